//! Makes the faults that the machine file asks for: on what the process sends and drives, beside its models, which
//! know nothing of them.
//!
//! Each fault is a line in the log, with its number: `at = NUMBER` makes the very same one again.

use super::machine::{DeviceProcess, Shared};
use ipc::board::ALL_LINES;
use ipc::fault::{FIRST_PIRQ, Fault, Faults, KeptRise, LineFault, Pulse};
use ipc::link::LinkLayout;
use ipc::message::{Kind, Message, Status};
use ipc::sync::Ordering;
use ipc::time::VirtualTime;

/// Between the fall of a line and the pulse that repeats it, ns: the guest's handler has read the register that made
/// the line fall, and may have ended.
const GAP: u64 = 20_000;
/// Length of that pulse, ns.
const PULSE: u64 = 50_000;

/// The faults of a process.
#[derive(Debug, Default)]
pub struct Injector {
    faults: Faults,
    /// Further faults of interrupts are made: not while the process starts.
    lines_on: bool,
    /// Lines of the process that are high as far as the machine can see.
    high: u32,
    /// What is under way on each line. The link has the same, for a successor.
    lines: [LineFault; ALL_LINES],
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
        if self.is_idle() {
            return None;
        }
        self.lines.iter().filter_map(LineFault::due).min()
    }

    /// Takes over what a predecessor had under way.
    fn resume(&mut self, layout: &LinkLayout) {
        self.lines = layout.line_faults();
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
        let Some(before) = self.lines.get(line as usize).copied() else { return level };
        let pulsed = matches!(before.pulse, Some(Pulse::Ends(_)));
        // While the process starts, what is under way goes on and nothing else counts: no line has changed.
        let high = if self.lines_on { self.high & 1 << line != 0 } else { pulsed };
        let mut fault = before;
        let shown = match (level, high) {
            (true, false) if fault.rise.is_some() => false,
            (true, false) if self.lines_on => {
                fault.rise = self.rise(layout, now, line);
                fault.rise.is_none()
            }
            (true, _) => true,
            (false, true) if !pulsed => {
                fault.rise = None;
                fault.pulse = self.fall(layout, now, line).or(fault.pulse);
                false
            }
            (false, high) => {
                fault.rise = None;
                high
            }
        };
        if level && pulsed {
            // It is the model's own now.
            fault.pulse = None;
        }
        self.follow(layout, line, fault, shown);
        shown
    }

    /// Notes what is under way on a line, and what the machine is about to see of it.
    fn follow(&mut self, layout: &LinkLayout, line: u32, fault: LineFault, shown: bool) {
        let bit = 1 << line;
        self.high = if shown { self.high | bit } else { self.high & !bit };
        let Some(place) = self.lines.get_mut(line as usize) else { return };
        if std::mem::replace(place, fault) != fault {
            layout.set_line_fault(line as usize, &fault);
        }
    }

    fn rise(&self, layout: &LinkLayout, now: impl Fn() -> VirtualTime, line: u32) -> Option<KeptRise> {
        let concerns = |fault, only: Option<u64>| {
            matches!(fault, Fault::DelayInterrupt { .. } | Fault::DropInterrupt)
                && only.is_none_or(|only| only == u64::from(line))
        };
        let (fault, number) = self.strike(layout, concerns)?;
        match fault {
            Fault::DelayInterrupt { nanos } => {
                tracing::warn!("Fault: interrupt {number} of {} is {} us late", name(line), nanos / 1000);
                Some(KeptRise::Late(now().after(nanos)))
            }
            _ => {
                tracing::warn!("Fault: interrupt {number} of {} is dropped", name(line));
                Some(KeptRise::Dropped)
            }
        }
    }

    fn fall(&self, layout: &LinkLayout, now: impl Fn() -> VirtualTime, line: u32) -> Option<Pulse> {
        let concerns = |fault, only: Option<u64>| {
            fault == Fault::RepeatInterrupt && only.is_none_or(|only| only == u64::from(line))
        };
        let (_, number) = self.strike(layout, concerns)?;
        tracing::warn!("Fault: interrupt {number} of {} is repeated", name(line));
        Some(Pulse::Begins(now().after(GAP)))
    }

    /// Takes a change of a line that is due: the line, and the level that the machine sees from now on.
    fn take_due(&mut self, layout: &LinkLayout, now: VirtualTime) -> Option<(u32, bool)> {
        let is_due = |fault: &LineFault| fault.due().is_some_and(|due| due <= now);
        let index = self.lines.iter().position(is_due)?;
        let (line, mut fault) = (index as u32, self.lines[index]);
        let high = self.high & 1 << line != 0;
        let shown = match fault {
            LineFault { rise: Some(KeptRise::Late(due)), .. } if due <= now => {
                // A pulse that it meets is not seen apart from it.
                fault = LineFault::default();
                true
            }
            // Unless the model has raised it again meanwhile.
            LineFault { pulse: Some(Pulse::Begins(_)), .. } => {
                fault.pulse = (!high).then_some(Pulse::Ends(now.after(PULSE)));
                true
            }
            _ => {
                fault.pulse = None;
                false
            }
        };
        self.follow(layout, line, fault, shown);
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

    /// Goes on with the faults that a predecessor had under way. Before the lines are driven.
    pub(super) fn resume_faults(&mut self) {
        let Shared { injector, link, .. } = &mut self.shared;
        injector.resume(link.layout());
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
            let now = self.shared.clock().now();
            let Shared { injector, link, .. } = &mut self.shared;
            let Some((line, level)) = injector.take_due(link.layout(), now) else { break };
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

    /// A process that goes on for another one, and starts.
    fn successor(link: &Link, fault: Fault) -> Injector {
        let rule = FaultRule { fault, when: When::At(1), only: Some(IRQ.into()) };
        let mut successor = Injector::new(Faults { seed: 1, rules: vec![rule] });
        successor.resume(link.layout());
        successor
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
        assert_eq!(injector.take_due(link.layout(), VirtualTime(599)), None);
        assert_eq!(injector.take_due(link.layout(), VirtualTime(600)), Some((IRQ, true)));
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
        assert_eq!(injector.take_due(link.layout(), VirtualTime(GAP)), Some((IRQ, true)));
        assert_eq!(injector.take_due(link.layout(), VirtualTime(GAP + PULSE)), Some((IRQ, false)));
        assert_eq!(injector.next(), None);
        assert!(injector.line(link.layout(), now, IRQ, true));
        assert!(!injector.line(link.layout(), now, IRQ, false));
        assert_eq!(injector.next(), None);
    }

    #[test]
    fn a_late_interrupt_of_a_predecessor_comes_when_it_was_due_and_a_dropped_one_does_not() {
        for (what, part) in [(Fault::DelayInterrupt { nanos: 500 }, "e"), (Fault::DropInterrupt, "f")] {
            let link = link(part);
            let now = || VirtualTime(100);
            assert!(!injector(what, When::At(1)).line(link.layout(), now, IRQ, true));
            let mut successor = successor(&link, what);
            // The models drive their lines from their states.
            assert!(!successor.line(link.layout(), now, IRQ, true));
            successor.begin_lines(0);
            assert!(!successor.line(link.layout(), now, IRQ, true));
            let late = what != Fault::DropInterrupt;
            assert_eq!(successor.next(), late.then_some(VirtualTime(600)));
            assert_eq!(successor.take_due(link.layout(), VirtualTime(600)), late.then_some((IRQ, true)));
            assert!(!successor.line(link.layout(), now, IRQ, false));
            assert!(successor.line(link.layout(), now, IRQ, true));
            assert_eq!(link.layout().line_faults(), [LineFault::default(); ALL_LINES]);
        }
    }

    #[test]
    fn a_pulse_of_a_predecessor_begins_and_ends_when_it_was_to() {
        let link = link("g");
        let now = || VirtualTime(0);
        let mut first = injector(Fault::RepeatInterrupt, When::At(1));
        assert!(first.line(link.layout(), now, IRQ, true));
        assert!(!first.line(link.layout(), now, IRQ, false));
        let mut second = successor(&link, Fault::RepeatInterrupt);
        assert!(!second.line(link.layout(), now, IRQ, false));
        second.begin_lines(0);
        assert_eq!(second.take_due(link.layout(), VirtualTime(GAP)), Some((IRQ, true)));
        let mut third = successor(&link, Fault::RepeatInterrupt);
        assert!(third.line(link.layout(), now, IRQ, false), "the machine sees it still");
        third.begin_lines(1 << IRQ);
        assert_eq!(third.take_due(link.layout(), VirtualTime(GAP + PULSE)), Some((IRQ, false)));
        assert_eq!(third.next(), None);
    }

    #[test]
    fn a_line_that_a_successor_does_not_hold_has_no_late_rise() {
        let link = link("h");
        let what = Fault::DelayInterrupt { nanos: 500 };
        assert!(!injector(what, When::At(1)).line(link.layout(), || VirtualTime(0), IRQ, true));
        let mut successor = successor(&link, what);
        assert!(!successor.line(link.layout(), || VirtualTime(0), IRQ, false));
        assert_eq!(successor.next(), None);
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
