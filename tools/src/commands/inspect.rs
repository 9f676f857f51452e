//! `vmsim regs`, `stats`, `shadow`, `disasm`, `mem`, `gdb`: a look at the guest between two of its instructions.

use super::print_text;
use crate::client;
use anyhow::{Result, bail};
use ipc::inspect::{Address, Inspect, Inspected, Listen, MAX_INSTRUCTIONS, MAX_MEMORY};

/// Prints all registers.
pub fn regs(vm: Option<&str>) -> Result<()> {
    print_text(&ask(vm, Inspect::Registers)?)
}

/// Prints what the engine has done.
pub fn stats(vm: Option<&str>) -> Result<()> {
    print_text(&ask(vm, Inspect::Statistics)?)
}

/// Prints the shadow code of a page.
pub fn shadow(vm: Option<&str>, at: Address) -> Result<()> {
    print_text(&ask(vm, Inspect::Shadow { at })?)
}

/// Prints instructions.
pub fn disasm(vm: Option<&str>, at: Option<Address>, count: u32) -> Result<()> {
    if count > MAX_INSTRUCTIONS {
        bail!("At most {MAX_INSTRUCTIONS} instructions at once");
    }
    print_text(&ask(vm, Inspect::Code { at, count })?)
}

/// Prints a dump of memory.
pub fn mem(vm: Option<&str>, at: Address, len: u32) -> Result<()> {
    if len > MAX_MEMORY {
        bail!("At most {MAX_MEMORY} bytes at once");
    }
    print_text(&ask(vm, Inspect::Memory { at, len })?)
}

fn ask(vm: Option<&str>, what: Inspect) -> Result<String> {
    match client::connect(vm)?.0.inspect(what)? {
        Inspected::Text(text) => Ok(text),
        other => bail!("The VMM gave another answer than the one asked for: {other:?}"),
    }
}

/// Lets a debugger connect and prints how.
pub fn gdb(vm: Option<&str>, port: Option<u16>) -> Result<()> {
    let at = port.map_or(Listen::Default, Listen::Tcp);
    match client::connect(vm)?.0.inspect(Inspect::Listen { at, wait: false })? {
        Inspected::Listening(address) => print_text(&format!("{}\n", gdb_command(&address))),
        other => bail!("The VMM gave another answer than the one asked for: {other:?}"),
    }
}

/// What to type to debug the guest.
pub fn gdb_command(address: &str) -> String {
    format!("gdb -ex 'target remote {address}'")
}
