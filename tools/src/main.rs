//! The program `vmsim`. Everything is in the library, so that tests can be the same program.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::main()
}
