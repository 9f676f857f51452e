//! The program `vmsim`, built as part of the tests.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::main()
}
