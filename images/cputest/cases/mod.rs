//! The cases, by topic.

mod faults;
mod paging;

use super::suite::Suite;
use crate::demo::asm::AsmResult;

/// Emits all of them.
pub fn emit(t: &mut Suite) -> AsmResult {
    faults::emit(t)?;
    paging::emit(t)?;
    faults::emit_last(t)
}
