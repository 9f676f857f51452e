//! Lockstep: each run of shadow code is compared with the interpreter, until the first difference.
//!
//! [`Witness::before`] covers the processor with copies of memory ([`crate::cpu::overlay`]), shadow code runs to its next poll or
//! instruction that it declines, and [`Witness::after`] has the interpreter run from the same state over copies of its own
//! (`reference`). What shadow code did is right if the interpreter comes to exactly this state, registers and memory, after some
//! number of instructions. Then it is written to the machine; else nothing is, and `report` tells what it
//! was. So the shadow engine needs no special code for being compared, and nothing that devices write meanwhile can be
//! mistaken for a difference.
//!
//! Translations that shadow code has are not used meanwhile: each run starts with an empty TLB, and what it finds out is compared
//! with what shadow code would have gone on using.
//!
//! Instructions that shadow code leaves to the interpreter are not compared: they are the interpreter's in both.
//! Two things may differ: arithmetic flags that an instruction leaves undefined or that nobody reads (`flags`), and
//! accessed and dirty bits: shadow code looks at pages that it then leaves to the interpreter, and does not look at pages
//! of code that it knows. And after STI shadow code does not say that interrupts wait, where the interpreter goes on at once.

mod flags;
mod reference;
mod report;
#[cfg(test)]
mod tests;

use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::overlay::Cover;
use crate::cpu::{CpuModel, CpuState, Vcpu};
use crate::shadow::mode::Mode;
use reference::{Reference, Verdict};
pub(crate) use report::HostCode;
use report::Report;

/// Most pages that the reference may need beyond those that shadow code has touched.
const MORE_PAGES: usize = 64;

/// A run of shadow code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Its mode.
    pub(crate) mode: Mode,
    /// It ended before an instruction that it declined.
    pub(crate) declined: bool,
    /// Linear address of its first instruction.
    start: u32,
    /// Physical page of its code: it never leaves it.
    code_page: u64,
}

/// See the module's description.
pub(crate) struct Witness {
    cover: Cover,
    reference: Reference,
    before: CpuState,
    code_page: u64,
    /// Page-table entries in which shadow code's accesses have set bits.
    walked: Vec<u64>,
    runs: u64,
    instructions: u64,
    difference: Option<String>,
}

impl Witness {
    /// One that has seen nothing.
    ///
    /// # Errors
    /// What `mmap` says.
    pub(crate) fn new() -> rustix::io::Result<Self> {
        Ok(Self {
            cover: Cover::new()?,
            reference: Reference::new(),
            before: CpuState::at_reset(CpuModel::default()),
            code_page: 0,
            walked: Vec::new(),
            runs: 0,
            instructions: 0,
            difference: None,
        })
    }

    /// The report on the first difference.
    pub(crate) fn difference(&self) -> Option<&str> {
        self.difference.as_deref()
    }

    /// Instructions of shadow code that were compared.
    pub(crate) fn instructions(&self) -> u64 {
        self.instructions
    }

    /// To be called before shadow code is entered.
    pub(crate) fn before<B: Bus>(&mut self, cpu: &mut Vcpu<B>) {
        cpu.sync_flags();
        self.before.clone_from(&cpu.state);
        cpu.cover(&mut self.cover);
        cpu.updated_entries = Some(std::mem::take(&mut self.walked));
        // Shadow code may know where it is without looking, the reference does not: both mark the page as accessed.
        self.code_page = cpu.translate_code(cpu.state.eip).map_or(0, |code| code.physical & !(PAGE_SIZE - 1));
    }

    /// To be called after shadow code was left. Returns how many instructions it was; when it was wrong, the processor is
    /// where it was before, and [`Witness::difference`] tells. `host` gives the host code of the instructions.
    pub(crate) fn after<B: Bus>(
        &mut self,
        cpu: &mut Vcpu<B>,
        mode: Mode,
        declined: bool,
        host: impl FnOnce() -> HostCode,
    ) -> u64 {
        let run = Run { mode, declined, start: mode.linear(self.before.eip), code_page: self.code_page };
        cpu.sync_flags();
        let stale = cpu.uncover(&mut self.cover);
        self.walked = cpu.updated_entries.take().unwrap_or_default();
        self.runs += 1;
        if let Some(page) = stale {
            self.difference = Some(format!(
                "The shadow engine has an outdated slot for the linear page {page:08x}, which the run at EIP {:08x} uses (CR3 {:08x}, {mode})",
                self.before.eip, self.before.cr3
            ));
            return 0;
        }
        let a20 = cpu.bus.a20_enabled();
        let mut overlay = self.cover.take();
        let mut verdict;
        let mut more = 0;
        loop {
            (overlay, verdict) =
                self.reference.judge(&self.before, &cpu.state, &run, overlay, a20, &self.walked);
            match verdict {
                Verdict::Needs(page) if more < MORE_PAGES => {
                    more += 1;
                    let grant = cpu.bus.page(page);
                    overlay.add(page, grant);
                }
                _ => break,
            }
        }
        let instructions = match verdict {
            Verdict::Same(instructions) => {
                overlay.commit(&mut cpu.bus);
                self.instructions += instructions;
                instructions
            }
            Verdict::Differs(differs) => {
                let report = Report {
                    number: self.runs,
                    instructions: self.instructions,
                    time: cpu.bus.now(),
                    run: &run,
                    before: &self.before,
                    shadow: &cpu.state,
                    differs: &differs,
                    path: self.reference.path(),
                    host: &host(),
                };
                self.difference = Some(report.text());
                cpu.state.clone_from(&self.before);
                cpu.state_replaced();
                0
            }
            Verdict::Needs(page) => {
                self.difference = Some(format!(
                    "The reference touches more than {MORE_PAGES} pages that shadow code does not: {page:x}"
                ));
                0
            }
        };
        self.cover.put(overlay);
        self.walked.clear();
        instructions
    }
}
