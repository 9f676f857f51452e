//! A device process that is not the program `vmsim`: what somebody who writes a model builds.

use std::process::ExitCode;

fn main() -> ExitCode {
    devproc::standard::main(devproc::standard::builder)
}
