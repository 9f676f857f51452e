//! The program `vmsim`: runs virtual PCs, supervises their processes and talks to them.
//!
//! One executable has every role (`roles`): the same file runs as supervisor, VMM, device
//! process and display, so a plain build, an installed copy and `cargo run` all find every part.

mod bench;
mod cli;
mod client;
mod commands;
mod config;
mod default_guest;
mod display_role;
mod machine_file;
mod progress;
mod roles;
mod supervisor;

use clap::Parser;
use std::process::ExitCode;

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match commands::dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            // One line: the chain of causes behind the first sentence.
            let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
            eprintln!("vmsim: {}", chain.join(": "));
            ExitCode::FAILURE
        }
    }
}
