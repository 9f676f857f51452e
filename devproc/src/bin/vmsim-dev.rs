//! A standard device process to be started by hand, from a debugger or an IDE:
//! `vmsim-dev gpu --attach VM`.

fn main() -> std::process::ExitCode {
    devproc::standard::main(devproc::standard::builder)
}
