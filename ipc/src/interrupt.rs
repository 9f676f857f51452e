//! Interrupt wiring that crosses processes: request lines, and the request from the controller
//! to the CPU. Each is one word that changes at once, so that a process that is killed in the
//! middle of driving a line leaves a line that was driven, or one that was not.

use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Interrupt request lines. A line has one bit per device process that holds it.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Lines {
    /// Bit n of word i: device process n asserts ISA IRQ i; bits 32-63: its rising edges so far.
    isa: [AtomicU64; 16],
    /// As above for PCI PIRQ i.
    pirq: [AtomicU64; 4],
    /// Changes of any line so far.
    generation: AtomicU32,
    /// Bit n: device process n wants to be woken by changes.
    watchers: AtomicU32,
}

/// ISA IRQs and PIRQs.
pub const ALL_LINES: usize = 16 + 4;
const HOLDERS: u64 = 0xffff_ffff;
const ONE_EDGE: u64 = 1 << 32;

impl Lines {
    /// Drives device process `slot`'s share of ISA IRQ `irq` (0-15). True when the line changed.
    pub fn set_isa(&self, irq: u8, slot: usize, level: bool) -> bool {
        self.drive(&self.isa[usize::from(irq & 15)], slot, level)
    }

    /// Drives device process `slot`'s share of PIRQ `pirq` (0-3). True when the line changed.
    pub fn set_pirq(&self, pirq: u8, slot: usize, level: bool) -> bool {
        self.drive(&self.pirq[usize::from(pirq & 3)], slot, level)
    }

    fn drive(&self, line: &AtomicU64, slot: usize, level: bool) -> bool {
        let bit = 1 << (slot & 31);
        let mut old = line.load(Ordering::Relaxed);
        let new = loop {
            let held = if level { old | bit } else { old & !bit };
            let rises = old & HOLDERS == 0 && held & HOLDERS != 0;
            let new = if rises { held.wrapping_add(ONE_EDGE) } else { held };
            if new == old {
                return false;
            }
            match line.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => break new,
                Err(found) => old = found,
            }
        };
        let changed = (old & HOLDERS != 0) != (new & HOLDERS != 0);
        if changed {
            self.generation.fetch_add(1, Ordering::Release);
        }
        changed
    }

    /// Lines that device process `slot` holds: ISA IRQs, and PIRQs from bit 16 on.
    pub fn held_by(&self, slot: usize) -> u32 {
        let lines = self.isa.iter().chain(&self.pirq).enumerate();
        lines.fold(0, |held, (line, word)| {
            held | ((word.load(Ordering::Acquire) >> (slot & 31)) as u32 & 1) << line
        })
    }

    /// Lets go of every line that device process `slot` holds: it is gone for good.
    pub fn release(&self, slot: usize) {
        for line in self.isa.iter().chain(&self.pirq) {
            self.drive(line, slot, false);
        }
    }

    /// Counts a change although no line may have changed: for a process that goes on for one
    /// which may have died between driving a line and saying so.
    pub fn announce(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Levels of the 16 ISA lines, and of the four PIRQs.
    pub fn levels(&self) -> (u16, u8) {
        let bits = |cells: &[AtomicU64]| {
            cells
                .iter()
                .enumerate()
                .fold(0, |bits, (i, cell)| bits | u16::from(cell.load(Ordering::Acquire) & HOLDERS != 0) << i)
        };
        (bits(&self.isa), bits(&self.pirq) as u8)
    }

    /// Levels of the ISA lines and rising edges of each so far, of one and the same moment per line.
    pub fn isa(&self) -> (u16, [u32; 16]) {
        let mut levels = 0;
        let edges = std::array::from_fn(|i| {
            let word = self.isa[i].load(Ordering::Acquire);
            levels |= u16::from(word & HOLDERS != 0) << i;
            (word >> 32) as u32
        });
        (levels, edges)
    }

    /// Rising edges of each ISA line so far.
    pub fn edges(&self) -> [u32; 16] {
        self.isa().1
    }

    /// Rising edges of one ISA line so far.
    pub fn edges_of(&self, irq: u8) -> u32 {
        (self.isa[usize::from(irq & 15)].load(Ordering::Acquire) >> 32) as u32
    }

    /// Rising edges of all lines so far: ISA IRQs, then PIRQs.
    pub fn all_edges(&self) -> [u32; ALL_LINES] {
        std::array::from_fn(|line| {
            let word = self.isa.iter().chain(&self.pirq).nth(line);
            word.map_or(0, |word| (word.load(Ordering::Acquire) >> 32) as u32)
        })
    }

    /// Puts all lines into a state from before: their edges, and for each slot the lines that it holds, as
    /// [`Lines::held_by`] has them. For the launcher, before anybody else looks.
    pub fn restore(&self, edges: &[u32; ALL_LINES], held: &[(usize, u32)]) {
        for (line, (word, edges)) in self.isa.iter().chain(&self.pirq).zip(edges).enumerate() {
            let holds = |(_, lines): &&(usize, u32)| lines >> line & 1 != 0;
            let holders = held.iter().filter(holds).fold(0, |bits, (slot, _)| bits | 1u64 << (slot & 31));
            word.store(u64::from(*edges) << 32 | holders, Ordering::Release);
        }
    }

    /// Changes so far.
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// Makes device process `slot` one that is woken by changes.
    pub fn watch(&self, slot: usize) {
        self.watchers.fetch_or(1 << (slot & 31), Ordering::AcqRel);
    }

    /// Slots of the processes that are woken by changes, as bits.
    pub fn watchers(&self) -> u32 {
        self.watchers.load(Ordering::Acquire)
    }
}

/// The interrupt request from the controller to the CPU, as one word:
/// bits 0-7 vector, 8 pending, 9 acknowledged, 16-23 model, 24-31 device process, 32-63 generation.
#[repr(C, align(64))]
#[derive(Default)]
pub struct InterruptRequest {
    word: AtomicU64,
}

const INTR_PENDING: u64 = 1 << 8;
const INTR_ACKNOWLEDGED: u64 = 1 << 9;

/// A published interrupt request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PendingInterrupt {
    /// Vector to deliver.
    pub vector: u8,
    /// Device process of the controller.
    pub process: u8,
    /// Model number of the controller in that process.
    pub model: u8,
    /// Which request it was; comes back in [`InterruptRequest::acknowledge_arrived`].
    pub generation: u32,
}

impl InterruptRequest {
    /// Publishes (or withdraws) the controller's request. Does nothing while an acknowledge is
    /// on its way to the controller: it publishes again when it has dealt with that.
    /// True when the CPU should look.
    pub fn publish(&self, request: Option<u8>, process: u8, model: u8) -> bool {
        let mut old = self.word.load(Ordering::Relaxed);
        loop {
            if old & INTR_ACKNOWLEDGED != 0 {
                return false;
            }
            let generation = (old >> 32).wrapping_add(1) << 32;
            let source = u64::from(model) << 16 | u64::from(process) << 24;
            let pending = request.map_or(0, |vector| INTR_PENDING | u64::from(vector));
            let new = generation | source | pending;
            // SYNC POINT intr: pairs with the CPU's Acquire in `take`.
            match self.word.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return request.is_some(),
                Err(found) => old = found,
            }
        }
    }

    /// Device process that published last.
    #[inline]
    pub fn process(&self) -> usize {
        (self.word.load(Ordering::Acquire) >> 24) as usize & 0xff
    }

    /// Whether a request is pending.
    #[inline]
    pub fn is_pending(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        word & INTR_PENDING != 0 && word & INTR_ACKNOWLEDGED == 0
    }

    /// CPU: takes the pending request, if there still is one. The controller must then be told.
    pub fn take(&self) -> Option<PendingInterrupt> {
        let mut old = self.word.load(Ordering::Acquire);
        loop {
            if old & INTR_PENDING == 0 || old & INTR_ACKNOWLEDGED != 0 {
                return None;
            }
            match self.word.compare_exchange_weak(
                old,
                old | INTR_ACKNOWLEDGED,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    return Some(PendingInterrupt {
                        vector: old as u8,
                        model: (old >> 16) as u8,
                        process: (old >> 24) as u8,
                        generation: (old >> 32) as u32,
                    });
                }
                Err(found) => old = found,
            }
        }
    }

    /// The acknowledge that was on its way to the controller in device process `slot` will never arrive: it
    /// was dropped while the process was off the bus.
    pub fn forget_acknowledge(&self, slot: u8) {
        let word = self.word.load(Ordering::Acquire);
        if word & INTR_ACKNOWLEDGED != 0 && (word >> 24) as u8 == slot {
            self.acknowledge_arrived((word >> 32) as u32);
        }
    }

    /// Controller: the acknowledge of request number `generation` has arrived; requests may be
    /// published again. A second arrival of the same one (a successor that does not know how far its
    /// predecessor got) does nothing: it neither drops nor doubles a request published since.
    pub fn acknowledge_arrived(&self, generation: u32) {
        let word = self.word.load(Ordering::Acquire);
        if word & INTR_ACKNOWLEDGED != 0 && (word >> 32) as u32 == generation {
            // While the bit is set, nobody else changes the word. If somebody hostile does, so be it.
            let new = word & !(INTR_PENDING | INTR_ACKNOWLEDGED);
            let _ = self.word.compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_shared_line_falls_when_its_last_holder_lets_go() {
        let lines = Lines::default();
        assert!(lines.set_isa(5, 0, true));
        assert!(!lines.set_isa(5, 1, true));
        assert!(!lines.set_isa(5, 0, false));
        assert_eq!(lines.levels(), (1 << 5, 0));
        assert!(lines.set_isa(5, 1, false));
        assert_eq!(lines.levels(), (0, 0));
        assert_eq!(lines.edges()[5], 1);
        assert_eq!(lines.generation(), 2);
    }

    #[test]
    fn a_process_that_is_gone_for_good_holds_no_line() {
        let lines = Lines::default();
        lines.set_isa(3, 2, true);
        lines.set_pirq(1, 2, true);
        lines.set_pirq(2, 4, true);
        lines.release(2);
        assert_eq!(lines.levels(), (0, 1 << 2));
    }

    #[test]
    fn an_acknowledge_that_was_dropped_on_its_way_is_forgotten_for_its_process_only() {
        let intr = InterruptRequest::default();
        assert!(intr.publish(Some(0x08), 1, 2));
        intr.take().unwrap();
        intr.forget_acknowledge(3);
        assert!(!intr.publish(Some(0x09), 1, 2));
        intr.forget_acknowledge(1);
        assert!(intr.publish(Some(0x09), 1, 2));
        // One that was not taken stays.
        intr.forget_acknowledge(1);
        assert_eq!(intr.take().map(|taken| taken.vector), Some(9));
    }

    #[test]
    fn a_taken_request_stays_taken_until_the_controller_knows() {
        let intr = InterruptRequest::default();
        assert!(intr.publish(Some(0x08), 1, 2));
        let taken = intr.take().unwrap();
        assert_eq!((taken.vector, taken.process, taken.model), (8, 1, 2));
        assert!(!intr.publish(Some(0x09), 1, 2));
        assert_eq!(intr.take(), None);
        intr.acknowledge_arrived(taken.generation);
        assert!(intr.publish(Some(0x09), 1, 2));
        assert!(intr.is_pending());
        intr.publish(None, 1, 2);
        assert_eq!(intr.take(), None);
    }

    #[test]
    fn an_acknowledge_that_arrives_twice_neither_drops_nor_doubles_the_next_request() {
        let intr = InterruptRequest::default();
        intr.publish(Some(0x08), 0, 0);
        let first = intr.take().unwrap();
        intr.acknowledge_arrived(first.generation);
        intr.publish(Some(0x09), 0, 0);
        intr.acknowledge_arrived(first.generation);
        assert!(intr.is_pending());
        let second = intr.take().unwrap();
        intr.acknowledge_arrived(first.generation);
        // Still on its way: published again now, it would be delivered twice.
        assert!(!intr.publish(Some(0x09), 0, 0));
        intr.acknowledge_arrived(second.generation);
        assert!(intr.publish(None, 0, 0) || !intr.is_pending());
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    /// Attention bit, request word, and the acknowledge on its way (generation plus one).
    #[derive(Default)]
    struct Wiring {
        attention: AtomicU32,
        intr: InterruptRequest,
        acknowledge: AtomicU64,
    }

    /// The CPU looks; true when it took a request.
    fn cpu_looks(wiring: &Wiring) -> Option<u8> {
        // The bit is taken first: a request that is published meanwhile sets it again.
        if wiring.attention.load(Ordering::Relaxed) == 0 {
            return None;
        }
        wiring.attention.swap(0, Ordering::Acquire);
        let taken = wiring.intr.take()?;
        wiring.acknowledge.store(u64::from(taken.generation) + 1, Ordering::Release);
        Some(taken.vector)
    }

    fn controller_publishes(wiring: &Wiring, vector: Option<u8>) {
        if wiring.intr.publish(vector, 0, 0) {
            wiring.attention.fetch_or(1, Ordering::Release);
        }
    }

    fn acknowledge(wiring: &Wiring) -> u32 {
        loop {
            match wiring.acknowledge.load(Ordering::Acquire) {
                0 => loom::thread::yield_now(),
                generation => {
                    wiring.acknowledge.store(0, Ordering::Relaxed);
                    return (generation - 1) as u32;
                }
            }
        }
    }

    #[test]
    fn no_interleaving_loses_an_interrupt() {
        loom::model(|| {
            let wiring = Arc::new(Wiring::default());
            let controller = {
                let wiring = wiring.clone();
                loom::thread::spawn(move || {
                    // Published twice, as a successor does.
                    controller_publishes(&wiring, Some(8));
                    controller_publishes(&wiring, Some(8));
                    for next in [Some(9), None] {
                        wiring.intr.acknowledge_arrived(acknowledge(&wiring));
                        controller_publishes(&wiring, next);
                    }
                })
            };
            let mut taken = Vec::new();
            // If a request could be lost, loom would report that this loop never ends.
            while taken.len() < 2 {
                match cpu_looks(&wiring) {
                    Some(vector) => taken.push(vector),
                    None => loom::thread::yield_now(),
                }
            }
            controller.join().unwrap();
            assert_eq!(taken, [8, 9]);
            assert_eq!(wiring.intr.take(), None);
        });
    }

    #[test]
    fn no_interleaving_of_a_repeated_acknowledge_doubles_an_interrupt() {
        loom::model(|| {
            let wiring = Arc::new(Wiring::default());
            controller_publishes(&wiring, Some(8));
            assert_eq!(cpu_looks(&wiring), Some(8));
            let controller = {
                let wiring = wiring.clone();
                loom::thread::spawn(move || {
                    // A successor does again what its predecessor had just done.
                    let first = acknowledge(&wiring);
                    for _ in 0..2 {
                        wiring.intr.acknowledge_arrived(first);
                        controller_publishes(&wiring, Some(9));
                        // A process died here: there is time for everything.
                        loom::thread::yield_now();
                    }
                })
            };
            // No yield in between: the CPU may look at any moment.
            let mut taken: Vec<_> = (0..3).filter_map(|_| cpu_looks(&wiring)).collect();
            controller.join().unwrap();
            taken.extend(cpu_looks(&wiring));
            assert_eq!(taken, [9]);
        });
    }

    #[test]
    fn no_interleaving_of_two_holders_loses_an_edge() {
        loom::model(|| {
            let lines = Arc::new(Lines::default());
            let other = {
                let lines = lines.clone();
                loom::thread::spawn(move || {
                    lines.set_isa(5, 1, true);
                    lines.set_isa(5, 1, false);
                })
            };
            lines.set_isa(5, 0, true);
            let (levels, edges) = lines.isa();
            assert!(levels == 1 << 5 && edges[5] >= 1);
            other.join().unwrap();
            assert_eq!(lines.levels().0, 1 << 5);
            assert!((1..=2).contains(&lines.edges_of(5)));
        });
    }
}
