//! The cases, by topic.

mod coprocessor;
mod debug;
mod faults;
mod gates;
mod interrupts;
mod modes;
mod pae;
mod paging;
mod sse;
mod tasks;
mod v86;

use super::suite::Suite;
use crate::demo::asm::AsmResult;

/// Emits all of them.
pub fn emit(t: &mut Suite) -> AsmResult {
    faults::emit(t)?;
    gates::emit(t)?;
    tasks::emit(t)?;
    paging::emit(t)?;
    pae::emit(t)?;
    coprocessor::emit(t)?;
    sse::emit(t)?;
    debug::emit(t)?;
    interrupts::emit(t)?;
    v86::emit(t)?;
    modes::emit(t)?;
    pae::emit_last(t)?;
    faults::emit_last(t)
}
