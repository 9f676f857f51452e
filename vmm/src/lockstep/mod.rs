//! Lockstep: each run of shadow code is compared with the interpreter, until the first difference.
//!
//! [`Witness::before`] covers the processor with copies of memory ([`crate::cpu::overlay`]), shadow code runs for some polls or to
//! an instruction that it declines, and [`Witness::after`] has the interpreter run from the same state over copies of its own
//! (`reference`). What shadow code did is right if the interpreter comes to exactly this state, registers and memory, after some
//! number of instructions. Then it is written to the machine; else nothing is, and `report` tells what it
//! was: from the last of many short runs, of one poll each, with which a long one that differs is repeated. So the shadow engine needs no special code for being compared, and nothing that devices write meanwhile can be
//! mistaken for a difference.
//!
//! Translations that shadow code has are not used meanwhile: each run starts with an empty TLB, and what it finds out is compared
//! with what shadow code would have gone on using, in the direct map or a window. What is outdated is only logged: it may be the
//! guest that has not flushed.
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

use crate::cpu::bus::Bus;
use crate::cpu::overlay::Cover;
use crate::cpu::{CpuModel, CpuState, Vcpu};
use crate::shadow::mode::Mode;
use reference::{Reference, Verdict};
pub(crate) use report::HostCode;
use report::Report;

/// Polls up to which shadow code runs before it is compared. More of them cost less.
const MOST_POLLS: i64 = 64;
/// Runs that end at their first poll after a difference: to find the instructions that make it, among those that were too many to look at.
const SHORT_RUNS: u64 = 4096;

/// Most outdated translations that are logged.
const MOST_WARNINGS: u64 = 16;

/// A run of shadow code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Its mode.
    pub(crate) mode: Mode,
    /// It ended before an instruction that it declined.
    pub(crate) declined: bool,
    /// It ended at its first poll: it never left its page and never jumped back.
    short: bool,
    /// Linear address of its first instruction.
    start: u32,
}

/// See the module's description.
pub(crate) struct Witness {
    cover: Cover,
    reference: Reference,
    before: CpuState,
    /// Page-table entries in which shadow code's accesses have set bits.
    walked: Vec<u64>,
    runs: u64,
    instructions: u64,
    outdated: u64,
    /// Runs that are to be short.
    short: u64,
    /// The report on a difference that short runs have not shown yet.
    suspicion: Option<String>,
    /// Differences that they did not show.
    vanished: u64,
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
            walked: Vec::new(),
            runs: 0,
            instructions: 0,
            outdated: 0,
            short: 0,
            suspicion: None,
            vanished: 0,
            difference: None,
        })
    }

    /// The report on the first difference.
    pub(crate) fn difference(&self) -> Option<&str> {
        self.difference.as_deref()
    }

    /// How often a slot of the direct map, or a page in a window, was outdated.
    pub(crate) fn outdated(&self) -> u64 {
        self.outdated
    }

    /// Differences of runs of many polls that did not come again when each run ended at its first poll.
    pub(crate) fn vanished(&self) -> u64 {
        self.vanished
    }

    /// What was compared, in lines for people.
    pub(crate) fn statistics(&self) -> String {
        let lines = [
            ("runs of shadow code compared", self.runs),
            ("instructions compared", self.instructions),
            ("outdated slots of the direct map, and pages in windows", self.outdated),
            ("differences of long runs that short ones do not show", self.vanished),
        ];
        let lines = lines.map(|(what, count)| format!("{count:>16}  {what}\n"));
        format!("Lockstep\n{}", lines.concat())
    }

    /// Polls up to which the next run is to go.
    pub(crate) fn polls(&self) -> i64 {
        if self.short > 0 { 1 } else { MOST_POLLS }
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
        _ = cpu.translate_code(cpu.state.eip);
    }

    /// To be called after shadow code was left. Returns how many instructions it was; when it was wrong, the processor is
    /// where it was before, and if that was no long run, which is to be repeated in short ones, [`Witness::difference`] tells. `host`
    /// gives the host code of the instructions.
    pub(crate) fn after<B: Bus>(
        &mut self,
        cpu: &mut Vcpu<B>,
        mode: Mode,
        declined: bool,
        host: impl FnOnce() -> HostCode,
    ) -> Option<u64> {
        let run = Run { mode, declined, short: self.polls() == 1, start: mode.linear(self.before.eip) };
        cpu.sync_flags();
        let stale = cpu.uncover(&mut self.cover);
        self.walked = cpu.updated_entries.take().unwrap_or_default();
        self.runs += 1;
        if let Some(page) = stale {
            self.note_outdated(page);
        }
        let overlay = self.cover.take();
        let (overlay, verdict) =
            self.reference.judge(&self.before, &cpu.state, &run, overlay, &mut cpu.bus, &self.walked);
        let instructions = match verdict {
            Verdict::Same(instructions) => {
                overlay.commit();
                self.instructions += instructions;
                if run.short {
                    self.was_short();
                }
                Some(instructions)
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
                if run.short {
                    self.difference = Some(report.text());
                } else {
                    self.suspicion = Some(report.text());
                    self.short = SHORT_RUNS;
                }
                cpu.state.clone_from(&self.before);
                cpu.state_replaced();
                None
            }
        };
        self.cover.put(overlay);
        self.walked.clear();
        instructions
    }

    /// Something else was known of a linear page than what the page tables say now.
    pub(crate) fn note_outdated(&mut self, page: u32) {
        self.outdated += 1;
        if self.outdated <= MOST_WARNINGS {
            tracing::warn!(
                "Lockstep: what is known of linear page {page:08x} is outdated at EIP {:08x}, CR3 {:08x}: the guest has not \
                 flushed it, or the engine has not",
                self.before.eip,
                self.before.cr3
            );
        }
    }

    /// A short run was right.
    fn was_short(&mut self) {
        self.short -= 1;
        if self.short == 0
            && let Some(report) = self.suspicion.take()
        {
            self.vanished += 1;
            tracing::warn!("Lockstep: a difference that short runs do not show: {report}");
        }
    }
}
