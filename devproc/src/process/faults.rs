//! Makes the faults that the machine file asks for: on what the process sends and drives, beside its models, which
//! know nothing of them.
//!
//! Each fault is a line in the log, with its number: `at = NUMBER` makes the very same one again.

use super::machine::{DeviceProcess, Shared};
use ipc::fault::{FIRST_PIRQ, Fault, Faults};
use ipc::link::LinkLayout;
use ipc::message::{Kind, Message, Status};
use ipc::sync::Ordering;
use ipc::time::VirtualTime;

/// Between the fall of a line and the pulse that repeats it, ns: the guest's handler has read the register that made
/// the line fall, and may have ended.
const GAP: u64 = 20_000;
/// Length of that pulse, ns.
const PULSE: u64 = 50_000;
/// Changes of lines that can wait at a time. There is one per line, and a model makes no more.
const MOST_WAITING: usize = 64;

/// The faults of a process.
#[derive(Debug, Default)]
pub struct Injector {
    faults: Faults,
    /// Faults of interrupts are made: not while the process starts.
    lines_on: bool,
    /// Lines of the process that are high as far as the machine can see.
    high: u32,
    /// Lines whose rise is kept back until they fall or until it is due.
    kept: u32,
    /// Lines that are high because of a pulse of ours.
    pulsed: u32,
    /// When lines change by themselves.
    waiting: Vec<(VirtualTime, u32, Change)>,
}

/// What a line does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A rise that is late.
    Rise,
    /// A pulse that repeats one begins.
    Pulse,
    /// And ends.
    Fall,
}

impl Injector {
    /// With these rules.
    pub fn new(faults: Faults) -> Self {
        Self { faults, ..Self::default() }
    }

    /// Whether there are none: then nothing here costs anything.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.faults.rules.is_empty()
    }

    /// Counts an event for each rule that `concerns`, which is given the fault and what the rule is limited to. The first rule
    /// that strikes: what it does, and the event's number.
    fn strike(
        &self,
        layout: &LinkLayout,
        concerns: impl Fn(Fault, Option<u64>) -> bool,
    ) -> Option<(Fault, u64)> {
        let mut struck = None;
        for (index, (rule, count)) in self.faults.rules.iter().zip(&layout.faults).enumerate() {
            if concerns(rule.fault, rule.only) {
                // Only this process writes it.
                let number = count.load(Ordering::Relaxed).wrapping_add(1);
                count.store(number, Ordering::Release);
                if struck.is_none() && self.faults.strikes(index, number) {
                    struck = Some((rule.fault, number));
                }
            }
        }
        struck
    }

    /// When the next change of a line is due.
    pub fn next(&self) -> Option<VirtualTime> {
        self.waiting.iter().map(|(due, ..)| *due).min()
    }

    /// Begins to make faults of interrupts. `held`: the lines that the process holds.
    fn begin_lines(&mut self, held: u32) {
        self.lines_on = !self.is_idle();
        self.high = held;
    }

    /// What the machine is to see of `line`, which the models drive to `level`.
    pub fn line(
        &mut self,
        layout: &LinkLayout,
        now: impl Fn() -> VirtualTime,
        line: u32,
        level: bool,
    ) -> bool {
        if !self.lines_on {
            return level;
        }
        let bit = 1 << line;
        let shown = match (level, self.high & bit != 0) {
            (true, false) if self.kept & bit == 0 => self.rise(layout, now, line),
            (true, shown) => shown,
            (false, true) if self.pulsed & bit == 0 => self.fall(layout, now, line),
            (false, shown) => {
                self.kept &= !bit;
                self.waiting.retain(|(_, other, change)| (*other, *change) != (line, Change::Rise));
                shown
            }
        };
        if level {
            // It is the model's own now.
            self.pulsed &= !bit;
        }
        self.high = if shown { self.high | bit } else { self.high & !bit };
        shown
    }

    fn rise(&mut self, layout: &LinkLayout, now: impl Fn() -> VirtualTime, line: u32) -> bool {
        let concerns = |fault, only: Option<u64>| {
            matches!(fault, Fault::DelayInterrupt { .. } | Fault::DropInterrupt)
                && only.is_none_or(|only| only == u64::from(line))
        };
        let Some((fault, number)) = self.strike(layout, concerns) else { return true };
        self.kept |= 1 << line;
        match fault {
            Fault::DelayInterrupt { nanos } => {
                self.wait(now().after(nanos), line, Change::Rise);
                tracing::warn!("Fault: interrupt {number} of {} is {} us late", name(line), nanos / 1000);
            }
            _ => tracing::warn!("Fault: interrupt {number} of {} is dropped", name(line)),
        }
        false
    }

    fn fall(&mut self, layout: &LinkLayout, now: impl Fn() -> VirtualTime, line: u32) -> bool {
        let concerns = |fault, only: Option<u64>| {
            fault == Fault::RepeatInterrupt && only.is_none_or(|only| only == u64::from(line))
        };
        if let Some((_, number)) = self.strike(layout, concerns) {
            self.wait(now().after(GAP), line, Change::Pulse);
            tracing::warn!("Fault: interrupt {number} of {} is repeated", name(line));
        }
        false
    }

    fn wait(&mut self, due: VirtualTime, line: u32, change: Change) {
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push((due, line, change));
        }
    }

    /// Takes a change of a line that is due: the line, and the level that the machine sees from now on.
    fn take_due(&mut self, now: VirtualTime) -> Option<(u32, bool)> {
        let index = self.waiting.iter().position(|(due, ..)| *due <= now)?;
        let (_, line, change) = self.waiting.swap_remove(index);
        let bit = 1 << line;
        let shown = match change {
            Change::Rise => {
                self.kept &= !bit;
                true
            }
            // Unless the model has raised it again meanwhile.
            Change::Pulse if self.high & bit == 0 => {
                self.pulsed |= bit;
                self.wait(now.after(PULSE), line, Change::Fall);
                true
            }
            Change::Pulse => true,
            Change::Fall => self.pulsed & bit == 0 && self.high & bit != 0,
        };
        self.pulsed &= if change == Change::Fall { !bit } else { !0 };
        self.high = if shown { self.high | bit } else { self.high & !bit };
        Some((line, shown))
    }
}

/// A line as the machine file has it.
fn name(line: u32) -> String {
    match line.checked_sub(FIRST_PIRQ.into()) {
        None => format!("IRQ {line}"),
        Some(pirq) => format!("PIRQ {pirq}"),
    }
}

impl Shared {
    /// Bytes of a DMA transfer of `len` bytes that arrive.
    pub fn dma_arrives(&self, len: usize) -> usize {
        if self.injector.is_idle() {
            return len;
        }
        let concerns = |fault, _| matches!(fault, Fault::ShortDma { .. });
        match self.injector.strike(self.layout(), concerns) {
            Some((Fault::ShortDma { bytes }, number)) => {
                let arrives = usize::try_from(bytes).map_or(len, |bytes| bytes.min(len));
                tracing::warn!("Fault: {arrives} bytes of DMA transfer {number}, of {len} bytes, arrive");
                arrives
            }
            _ => len,
        }
    }
}

impl DeviceProcess {
    /// Makes these faults from the time on when it serves.
    pub fn set_faults(&mut self, faults: Faults) {
        self.shared.injector = Injector::new(faults);
    }

    /// The process serves: from now on its lines may be struck.
    pub(super) fn begin_faults(&mut self) {
        let held = self.shared.board().lines.held_by(self.shared.slot);
        self.shared.injector.begin_lines(held);
    }

    /// Dies, if it is to, when it is about to deal with a request.
    pub(super) fn may_be_killed(&self, request: &Message) {
        if self.shared.injector.is_idle() {
            return;
        }
        let concerns = |fault, only: Option<u64>| {
            fault == Fault::Kill && only.is_none_or(|only| only == request.address)
        };
        if let Some((_, number)) = self.shared.injector.strike(self.shared.layout(), concerns) {
            tracing::warn!(
                "Fault: the process is killed at request {number}, transaction {}",
                request.sequence
            );
            // Nothing follows: what a kill leaves is what it is about.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }

    /// Has the guest read all ones, if it is to.
    pub(super) fn may_float(&self, request: &Message, reply: &mut Message) {
        let reads = matches!(request.kind, Kind::Read | Kind::ReadBurst | Kind::ConfigRead);
        if self.shared.injector.is_idle() || !reads || reply.status != Status::Done {
            return;
        }
        let concerns = |fault, only: Option<u64>| {
            fault == Fault::FloatRead && only.is_none_or(|only| only == request.address)
        };
        if let Some((_, number)) = self.shared.injector.strike(self.shared.layout(), concerns) {
            tracing::warn!(
                "Fault: read {number}, of {:04x} (transaction {}), floats",
                request.address,
                request.sequence
            );
            reply.status = Status::NoResponse;
            reply.payload = (0, 0);
        }
    }

    /// Changes the lines whose time has come.
    pub(super) fn serve_faults(&mut self) -> bool {
        let mut worked = false;
        while self.shared.injector.next().is_some() {
            let now = self.shared.board().clock.now();
            let Some((line, level)) = self.shared.injector.take_due(now) else { break };
            self.show_line(line, level);
            self.follow_lines(now);
            worked = true;
        }
        worked
    }

    /// When a timer or a fault is due next.
    pub(super) fn next_deadline(&self) -> Option<VirtualTime> {
        let timers = self.shared.timers.next();
        [timers, self.shared.injector.next()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::fault::{FaultRule, When};
    use ipc::link::Link;
    use ipc::segment::SegmentNames;

    const IRQ: u32 = 6;

    fn link(name: &str) -> Link {
        Link::create(&SegmentNames::new(&format!("faults{}{name}", std::process::id())).link(0)).unwrap()
    }

    fn injector(fault: Fault, when: When) -> Injector {
        let rule = FaultRule { fault, when, only: Some(IRQ.into()) };
        let mut injector = Injector::new(Faults { seed: 1, rules: vec![rule] });
        injector.begin_lines(0);
        injector
    }

    #[test]
    fn a_dropped_interrupt_does_not_come_and_the_next_one_does() {
        let link = link("a");
        let mut injector = injector(Fault::DropInterrupt, When::At(2));
        let mut drive = |line, level| injector.line(link.layout(), || VirtualTime(0), line, level);
        let seen = [true, false, true, true, false, true, false].map(|level| drive(IRQ, level));
        assert_eq!(seen, [true, false, false, false, false, true, false]);
        assert!(drive(7, true), "another line");
    }

    #[test]
    fn a_late_interrupt_comes_when_it_is_due_unless_the_line_has_fallen() {
        let link = link("b");
        let mut injector = injector(Fault::DelayInterrupt { nanos: 500 }, When::Every(1));
        assert!(!injector.line(link.layout(), || VirtualTime(100), IRQ, true));
        assert_eq!(injector.next(), Some(VirtualTime(600)));
        assert_eq!(injector.take_due(VirtualTime(599)), None);
        assert_eq!(injector.take_due(VirtualTime(600)), Some((IRQ, true)));
        assert!(injector.line(link.layout(), || VirtualTime(700), IRQ, true));
        assert!(!injector.line(link.layout(), || VirtualTime(800), IRQ, false));
        assert!(!injector.line(link.layout(), || VirtualTime(900), IRQ, true));
        assert!(!injector.line(link.layout(), || VirtualTime(950), IRQ, false));
        assert_eq!(injector.next(), None);
    }

    #[test]
    fn a_repeated_interrupt_is_a_pulse_after_the_line_has_fallen() {
        let link = link("c");
        let mut injector = injector(Fault::RepeatInterrupt, When::At(1));
        let now = || VirtualTime(0);
        assert!(injector.line(link.layout(), now, IRQ, true));
        assert!(!injector.line(link.layout(), now, IRQ, false));
        assert_eq!(injector.take_due(VirtualTime(GAP)), Some((IRQ, true)));
        assert_eq!(injector.take_due(VirtualTime(GAP + PULSE)), Some((IRQ, false)));
        assert_eq!(injector.next(), None);
        assert!(injector.line(link.layout(), now, IRQ, true));
        assert!(!injector.line(link.layout(), now, IRQ, false));
        assert_eq!(injector.next(), None);
    }

    #[test]
    fn a_successor_goes_on_counting() {
        let link = link("d");
        let rise = |injector: &mut Injector| injector.line(link.layout(), || VirtualTime(0), IRQ, true);
        let new = || injector(Fault::DropInterrupt, When::At(2));
        assert!(rise(&mut new()));
        assert!(!rise(&mut new()));
        assert!(rise(&mut new()));
    }
}
