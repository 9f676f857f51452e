//! Counters that follow virtual time: how the bus latches and reads them without asking the device.
//!
//! What such a counter holds is a function of the time, and its device states which. A command copies the count into an output
//! latch; reads give that, or else the count itself, a byte at a time, the low one first. The latch is a word that bus and device hand to each
//! other: the bus changes it while it is in force, the device takes it back for the time in which it acts. This module knows
//! that function, the latch and how both travel, and no device's registers.

use crate::sync::{AtomicU64, Ordering, fence};
use crate::time::{NANOS_PER_SEC, VirtualTime};

/// Counters that a device process can state.
pub const MAX_COUNTERS: usize = 4;
/// Words in which a statement is published.
const WORDS: usize = 7;

/// Ticks of a clock per time: an exact fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many ticks...
    pub ticks: u32,
    /// ...in so many ns.
    pub nanos: u32,
}

impl Rate {
    /// That of a clock of `hz`.
    pub const fn of_hz(hz: u32) -> Self {
        Self { ticks: hz, nanos: NANOS_PER_SEC as u32 }
    }

    /// The first moment at which `tick` whole ticks have passed since power-on, and what of the next one has passed then, in
    /// parts of which a tick has [`Rate::nanos`]. `None`: no such moment.
    pub fn moment(self, tick: u64) -> Option<(VirtualTime, u32)> {
        let parts = u128::from(tick) * u128::from(self.nanos);
        let ticks = u128::from(self.ticks);
        let nanos = u64::try_from(parts.checked_next_multiple_of(ticks)? / ticks).ok()?;
        // Less than `ticks`, by the choice of `nanos`.
        Some((VirtualTime(nanos), (u128::from(nanos) * ticks - parts) as u32))
    }
}

/// How a counter counts down, and by which registers it is latched and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counting {
    /// Register that reads the counter: offset in the region.
    pub register: u16,
    /// Register and byte whose write latches the count.
    pub command: (u16, u8),
    /// How fast it counts.
    pub rate: Rate,
    /// From when on all this is true.
    pub origin: VirtualTime,
    /// From when on it is not true any more; [`VirtualTime::NEVER`] if it stays true until it is replaced.
    pub until: VirtualTime,
    /// What of a tick has passed at the origin, in parts of which a tick has [`Rate::nanos`].
    pub fraction: u32,
    /// Ticks of the period that have passed at the origin.
    pub phase: u32,
    /// Ticks after which the count is `first` again; not 0.
    pub period: u32,
    /// Ticks of a period after which it is so once in between; `period` if it is not.
    pub turn: u32,
    /// The count with which a period begins. It is read modulo 2^16.
    pub first: u32,
    /// By how much it falls with each tick.
    pub step: u8,
}

impl Counting {
    /// Ticks of the period that have passed at `now`, and parts of the next. `None`: this is not true then, or the origin is too
    /// long ago to tell.
    #[inline]
    fn position(&self, now: VirtualTime) -> Option<(u32, u64)> {
        let nanos = now.0.checked_sub(self.origin.0).filter(|_| now < self.until)?;
        let parts = nanos.checked_mul(self.rate.ticks.into())?.checked_add(self.fraction.into())?;
        let tick = u64::from(self.rate.nanos);
        let passed = parts.checked_div(tick)?.checked_add(self.phase.into())?;
        Some((passed.checked_rem(self.period.into())? as u32, parts % tick))
    }

    /// What the counter holds at `now`. `None`: the device is to be asked.
    #[inline]
    pub fn count(&self, now: VirtualTime) -> Option<u16> {
        let (phase, _) = self.position(now)?;
        let since = phase.checked_sub(self.turn).unwrap_or(phase);
        Some(self.first.wrapping_sub(u32::from(self.step).wrapping_mul(since)) as u16)
    }

    /// Whether it says of `now` and all later times what `other` says.
    pub fn agrees(&self, other: &Self, now: VirtualTime) -> bool {
        let place = self.position(now);
        let same = Self { origin: other.origin, fraction: other.fraction, phase: other.phase, ..*self };
        place.is_some() && place == other.position(now) && same == *other
    }

    fn encode(&self) -> [u64; WORDS] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (command, byte) = self.command;
        [
            u64::from(self.register)
                | u64::from(command) << 16
                | u64::from(byte) << 32
                | u64::from(self.step) << 40,
            self.origin.0,
            self.until.0,
            pair(self.rate.ticks, self.rate.nanos),
            pair(self.fraction, self.phase),
            pair(self.period, self.turn),
            self.first.into(),
        ]
    }

    fn decode(words: [u64; WORDS]) -> Self {
        let pair = |word: u64| (word as u32, (word >> 32) as u32);
        let ((ticks, nanos), (fraction, phase), (period, turn)) =
            (pair(words[3]), pair(words[4]), pair(words[5]));
        Self {
            register: words[0] as u16,
            command: ((words[0] >> 16) as u16, (words[0] >> 32) as u8),
            rate: Rate { ticks, nanos },
            origin: VirtualTime(words[1]),
            until: VirtualTime(words[2]),
            fraction,
            phase,
            period,
            turn,
            first: words[6] as u32,
            step: (words[0] >> 40) as u8,
        }
    }
}

/// The output latch of a counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latch {
    /// The count that was latched and has not been read to its end.
    pub count: Option<u16>,
    /// The next read gives the high byte.
    pub high: bool,
}

impl Latch {
    /// What a latch command makes of it. What was latched before stays. `None`: `count` gives none.
    #[inline]
    pub fn hold(self, count: impl FnOnce() -> Option<u16>) -> Option<Self> {
        Some(Self { count: Some(self.count.or_else(count)?), ..self })
    }

    /// What a read gives, and makes of it; `count` is only asked when nothing is latched. `None`: it gives none.
    #[inline]
    pub fn read(self, count: impl FnOnce() -> Option<u16>) -> Option<(u8, Self)> {
        let [low, high] = self.count.or_else(count)?.to_le_bytes();
        Some(if self.high {
            (high, Self { count: None, high: false })
        } else {
            (low, Self { high: true, ..self })
        })
    }

    fn word(self) -> u64 {
        u64::from(self.count.unwrap_or(0))
            | if self.count.is_some() { LATCHED } else { 0 }
            | if self.high { HIGH } else { 0 }
    }

    const fn of(word: u64) -> Self {
        Self { count: if word & LATCHED != 0 { Some(word as u16) } else { None }, high: word & HIGH != 0 }
    }
}

const LATCHED: u64 = 1 << 16;
const HIGH: u64 = 1 << 17;
const IN_FORCE: u64 = 1 << 18;
const BY_BUS: u64 = 1 << 19;
const GENERATION_SHIFT: u32 = 32;

/// The state word of a counter that is in force, as the bus found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(u64);

impl Seen {
    /// Differs from statement to statement.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> GENERATION_SHIFT) as u32
    }

    /// The output latch.
    #[inline]
    pub const fn latch(self) -> Latch {
        Latch::of(self.0)
    }
}

/// What the device finds when it takes a counter back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// It was in force.
    pub in_force: bool,
    /// The output latch, if the bus has changed it and the device has yet to take notice.
    pub moved: Option<Latch>,
}

/// One counter of a device process, as it stands in the link. While it is in force the bus is the only one to change it, but for the
/// device's taking it back; while it is not, the device is.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct CounterCell {
    words: [AtomicU64; WORDS],
    /// Bits 0-15 the latched count; 16: it is latched; 17: the high byte comes next; 18: in force; 19: changed by the bus, and
    /// the device has yet to take notice; 32-63: counts publications.
    state: AtomicU64,
}

const _: () = assert!(size_of::<CounterCell>() == 64);

impl CounterCell {
    /// The counter, if it is in force. Bus side.
    #[inline]
    pub fn look(&self) -> Option<Seen> {
        // SYNC POINT counter: pairs with `publish` and `give`.
        let state = self.state.load(Ordering::Acquire);
        (state & IN_FORCE != 0).then_some(Seen(state))
    }

    /// How it counts. `None`: it was taken back meanwhile. Bus side.
    pub fn counting(&self, seen: Seen) -> Option<Counting> {
        let words = std::array::from_fn(|n| self.words[n].load(Ordering::Relaxed));
        // SYNC POINT counter: pairs with the fence in `publish`. Who read a word of a later statement sees that it was taken back.
        fence(Ordering::Acquire);
        let still = self.look().is_some_and(|now| now.generation() == seen.generation());
        still.then(|| Counting::decode(words))
    }

    /// Changes the latch in the device's place. False: it was taken back meanwhile. Bus side.
    #[inline]
    #[must_use]
    pub fn exchange(&self, seen: Seen, latch: Latch) -> bool {
        let generation = u64::from(seen.generation()) << GENERATION_SHIFT;
        let state = generation | BY_BUS | IN_FORCE | latch.word();
        // SYNC POINT counter: pairs with `take`, which finds either this or nothing of it.
        self.state.compare_exchange(seen.0, state, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Latches the count in the device's place, as at `now`, unless it is latched already. False: the device is to be told. Bus side.
    #[inline]
    #[must_use]
    pub fn latch(&self, seen: Seen, counting: &Counting, now: impl FnOnce() -> VirtualTime) -> bool {
        let latch = seen.latch();
        let Some(held) = latch.hold(|| counting.count(now())) else { return false };
        held == latch || self.exchange(seen, held)
    }

    /// Reads a byte in the device's place, as at `now` if nothing is latched. `None`: the device is to be asked. Bus side.
    #[inline]
    pub fn read(&self, seen: Seen, counting: &Counting, now: impl FnOnce() -> VirtualTime) -> Option<u8> {
        let (byte, latch) = seen.latch().read(|| counting.count(now()))?;
        self.exchange(seen, latch).then_some(byte)
    }

    /// Takes the counter out of force, so that the latch is the device's alone. Device side, before it acts, or gives its state away.
    pub fn take(&self) -> Taken {
        let mut state = self.state.load(Ordering::Relaxed);
        // Only this side puts it in force: what it sees out of force stays so.
        if state & IN_FORCE != 0 {
            // SYNC POINT counter: pairs with `exchange`.
            state = self.state.fetch_and(!IN_FORCE, Ordering::AcqRel);
        }
        Taken { in_force: state & IN_FORCE != 0, moved: (state & BY_BUS != 0).then(|| Latch::of(state)) }
    }

    /// What the bus has changed is in a state that outlives the process. Device side, after [`CounterCell::take`].
    pub fn notice(&self) {
        self.state.fetch_and(!BY_BUS, Ordering::Relaxed);
    }

    /// Puts it in force again as it was taken. Device side.
    pub fn give(&self) {
        // SYNC POINT counter: pairs with `look`.
        self.state.fetch_or(IN_FORCE, Ordering::Release);
    }

    /// Says how it counts from now on and what the latch holds; `None`: not in force. Device side.
    pub fn publish(&self, counting: Option<&Counting>, latch: Latch) {
        self.take();
        let generation = self.state.load(Ordering::Relaxed) >> GENERATION_SHIFT;
        let state = match counting {
            None => 0,
            Some(counting) => {
                // SYNC POINT counter: that it was taken back is visible before any word changes.
                fence(Ordering::Release);
                for (cell, word) in self.words.iter().zip(counting.encode()) {
                    cell.store(word, Ordering::Relaxed);
                }
                IN_FORCE | latch.word()
            }
        };
        let generation = u64::from((generation as u32).wrapping_add(1)) << GENERATION_SHIFT;
        // SYNC POINT counter: the words are complete for who looks.
        self.state.store(generation | state, Ordering::Release);
    }

    /// Whether it is in force. Device side.
    pub fn is_in_force(&self) -> bool {
        self.state.load(Ordering::Relaxed) & IN_FORCE != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicBool;

    fn counting() -> Counting {
        Counting {
            register: 1,
            command: (3, 0x40),
            rate: Rate::of_hz(1000),
            origin: VirtualTime(5_000_000),
            until: VirtualTime::NEVER,
            fraction: 0,
            phase: 0,
            period: 10,
            turn: 10,
            first: 10,
            step: 1,
        }
    }

    prop_compose! {
        fn any_counting()(
            registers in any::<(u16, u16, u8)>(),
            numbers in any::<[u32; 7]>(),
            times in any::<[u64; 2]>(),
            step in any::<u8>(),
        ) -> Counting {
            let [ticks, nanos, fraction, phase, period, turn, first] = numbers;
            Counting {
                register: registers.0,
                command: (registers.1, registers.2),
                rate: Rate { ticks, nanos },
                origin: VirtualTime(times[0]),
                until: VirtualTime(times[1]),
                fraction, phase, period, turn, first, step,
            }
        }
    }

    proptest! {
        #[test]
        fn it_comes_back_as_it_was_published(counting in any_counting(), count in any::<Option<u16>>(), high in any::<bool>()) {
            let (cell, latch) = (CounterCell::default(), Latch { count, high });
            prop_assert_eq!(cell.look(), None);
            cell.publish(Some(&counting), latch);
            let seen = cell.look().expect("in force");
            prop_assert_eq!((cell.counting(seen), seen.latch()), (Some(counting), latch));
            cell.publish(None, latch);
            prop_assert_eq!((cell.look(), cell.counting(seen)), (None, None));
        }

        /// Beside a counter that is moved on tick by tick, with ticks that are counted from power-on.
        #[test]
        fn it_counts_as_one_that_is_moved_on_by_ticks(
            hz in 1u32..=u32::MAX,
            tick in 0u64..1 << 50,
            halves in (1u32..40, 0u32..40),
            phase in 0u32..80,
            step in 1u8..3,
            later in 0u64..200,
            nanos in 0u64..2_000_000_000,
        ) {
            let (period, turn) = (halves.0 + halves.1, halves.0);
            let phase = phase % period;
            let rate = Rate::of_hz(hz);
            let Some((origin, fraction)) = rate.moment(tick) else { return Ok(()) };
            prop_assert_eq!(origin, VirtualTime::of_ticks(tick, hz.into()));
            let counting = Counting { rate, origin, fraction, phase, period, turn, first: 90, step, ..counting() };

            // About so many ticks later, and not just at one.
            let now = origin.after(nanos / 1000 + later * 1_000_000_000 / u64::from(hz));
            let (mut count, mut place) = (90u32, 0);
            let mut tick_on = || {
                place += 1;
                if place == period || place == turn {
                    count = 90;
                    place %= period;
                } else {
                    count -= u32::from(step);
                }
            };
            (0..phase).for_each(|_| tick_on());
            let passed = now.ticks(hz.into()) - tick;
            (0..passed % u64::from(period)).for_each(|_| tick_on());
            prop_assert_eq!(counting.count(now), Some(count as u16));
        }

        #[test]
        fn nonsense_gives_some_count_or_none(counting in any_counting(), now in any::<u64>(), near in any::<u16>()) {
            _ = counting.count(VirtualTime(now));
            _ = counting.count(counting.origin.after(near.into()));
            _ = counting.agrees(&counting, VirtualTime(now));
            for period in [0, 1] {
                let counting = Counting { period, until: VirtualTime::NEVER, ..counting };
                let count = counting.count(counting.origin.after(near.into()));
                prop_assert!(period != 0 || count.is_none());
            }
            for rate in [Rate { ticks: 0, nanos: 0 }, Rate { ticks: u32::MAX, nanos: 1 }] {
                let count = Counting { rate, ..counting }.count(VirtualTime(now));
                prop_assert!(rate.nanos != 0 || count.is_none());
                _ = rate.moment(now);
            }
        }

        #[test]
        fn the_origin_does_not_matter_to_what_is_said(tick in 0u64..1 << 40, later in 0u64..1 << 20, more in 0u64..1 << 40) {
            let rate = Rate::of_hz(1_193_182);
            let at = |tick: u64| {
                let (origin, fraction) = rate.moment(tick).expect("a moment");
                Counting { rate, origin, fraction, phase: (tick % 10) as u32, ..counting() }
            };
            let (old, new) = (at(tick), at(tick + later));
            let now = new.origin.after(more);
            let known = old.count(now);
            prop_assert!(known.is_none() || old.agrees(&new, now) && known == new.count(now));
            let other = Counting { phase: (new.phase + 1) % 10, ..new };
            prop_assert!(!old.agrees(&other, now));
            let other = Counting { first: 11, ..new };
            prop_assert!(!old.agrees(&other, now));
        }
    }

    #[test]
    fn it_is_true_from_its_origin_until_its_end() {
        let counting = Counting { until: VirtualTime(9_000_000), ..counting() };
        let at = |nanos| counting.count(VirtualTime(nanos));
        assert_eq!(
            [at(4_999_999), at(5_000_000), at(8_999_999), at(9_000_000)],
            [None, Some(10), Some(7), None]
        );
    }

    #[test]
    fn a_latched_count_stays_until_both_bytes_are_read() {
        let never = || unreachable!("nobody needs the count");
        let latch = Latch::default().hold(|| Some(0x1234)).unwrap();
        assert_eq!(latch.hold(never), Some(latch));
        let (low, latch) = latch.read(never).unwrap();
        let (high, latch) = latch.read(never).unwrap();
        assert_eq!((low, high, latch), (0x34, 0x12, Latch::default()));
        // Without a command, bytes of what it is at the moment; the low one was read before the command here.
        let (low, latch) = latch.read(|| Some(0x5678)).unwrap();
        let latch = latch.hold(|| Some(0x4321)).unwrap();
        assert_eq!((low, latch.read(never)), (0x78, Some((0x43, Latch::default()))));
        assert_eq!((latch.hold(|| None), Latch::default().hold(|| None)), (Some(latch), None));
    }

    #[test]
    fn the_device_finds_what_the_bus_did_and_the_bus_does_nothing_meanwhile() {
        let cell = CounterCell::default();
        cell.publish(Some(&counting()), Latch::default());
        assert_eq!(cell.take(), Taken { in_force: true, moved: None });
        cell.give();
        let seen = cell.look().unwrap();
        let latch = Latch { count: Some(7), high: true };
        assert!(cell.exchange(seen, latch));
        assert!(!cell.exchange(seen, Latch::default()), "it is not as it was seen");

        let seen = cell.look().unwrap();
        assert_eq!(cell.take(), Taken { in_force: true, moved: Some(latch) });
        assert!(cell.look().is_none() && !cell.exchange(seen, Latch::default()));
        // A successor, should the process die here, finds it too.
        assert_eq!(cell.take(), Taken { in_force: false, moved: Some(latch) });
        cell.notice();
        assert_eq!(cell.take().moved, None);
        cell.give();
        assert_eq!((cell.is_in_force(), cell.look().unwrap().latch()), (true, latch));
    }

    /// The bus acts by itself, or asks when it cannot; the device takes the counter back all the time, and states it anew.
    #[test]
    fn no_latch_and_no_read_is_lost_between_bus_and_device() {
        let cell = CounterCell::default();
        // Who holds it is the device, as with a message.
        let model = Mutex::new(Latch::default());
        let device = |act: &mut dyn FnMut(&mut Latch), anew: bool| {
            let mut model = model.lock().unwrap();
            if let Some(moved) = cell.take().moved {
                *model = moved;
                cell.notice();
            }
            act(&mut model);
            if anew {
                // Each statement is of one kind as a whole.
                let kind = u32::from(model.count.unwrap_or(1));
                let counting = Counting { period: kind, turn: kind, first: kind, ..counting() };
                cell.publish(Some(&counting), *model);
            } else {
                cell.give();
            }
        };
        device(&mut |_| {}, true);
        let over = AtomicBool::new(false);
        let (mut alone, mut asked) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut turns = 0u32;
                while !over.load(Ordering::Relaxed) {
                    turns = turns.wrapping_add(1);
                    device(&mut |_| {}, turns.is_multiple_of(3));
                    std::thread::yield_now();
                }
            });
            let mut step = |act: &mut dyn FnMut(Latch) -> Latch| {
                if let Some(seen) = cell.look() {
                    if let Some(Counting { period, turn, first, .. }) = cell.counting(seen) {
                        assert_eq!((period, turn), (first, first));
                    }
                    if cell.exchange(seen, act(seen.latch())) {
                        alone += 1;
                        return;
                    }
                }
                asked += 1;
                device(&mut |latch| *latch = act(*latch), true);
            };
            for count in 1..=50_000u16 {
                step(&mut |latch| latch.hold(|| Some(count)).unwrap());
                let mut bytes = [0; 2];
                for byte in &mut bytes {
                    step(&mut |latch| {
                        let (read, latch) = latch.read(|| None).expect("it is latched");
                        *byte = read;
                        latch
                    });
                }
                assert_eq!(u16::from_le_bytes(bytes), count);
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(alone > 1000, "{alone} alone, {asked} asked");
    }
}

#[cfg(all(test, loom))]
mod model {
    use super::*;
    use loom::sync::Arc;

    /// A statement that is of one kind as a whole.
    fn counting(kind: u32) -> Counting {
        Counting {
            register: 0,
            command: (1, 0),
            rate: Rate { ticks: kind, nanos: kind },
            origin: VirtualTime(kind.into()),
            until: VirtualTime(kind.into()),
            fraction: kind,
            phase: kind,
            period: kind,
            turn: kind,
            first: kind,
            step: 1,
        }
    }

    /// The bus latches a count while the device acts, which says something `anew` or leaves its statement as it was.
    fn run(anew: bool) {
        let mut builder = loom::model::Builder::new();
        // All of them take minutes: each word of a statement is a place to switch at.
        builder.preemption_bound = Some(3);
        builder.check(move || {
            const COUNT: u16 = 5;
            let cell = Arc::new(CounterCell::default());
            cell.publish(Some(&counting(1)), Latch::default());
            let device = {
                let cell = cell.clone();
                loom::thread::spawn(move || {
                    let mut model = Latch::default();
                    if let Some(moved) = cell.take().moved {
                        model = moved;
                        cell.notice();
                    }
                    if anew {
                        cell.publish(Some(&counting(2)), model);
                    } else {
                        cell.give();
                    }
                    model
                })
            };
            let mut latched = false;
            if let Some(seen) = cell.look() {
                if let Some(found) = cell.counting(seen) {
                    assert_eq!(found, counting(found.first));
                }
                let held = seen.latch().hold(|| Some(COUNT)).unwrap();
                latched = cell.exchange(seen, held);
            }
            let told = device.join().unwrap();
            let last = cell.look().map(Seen::latch);
            assert_eq!(last, Some(Latch { count: latched.then_some(COUNT), high: false }));
            // The device knows of it, or is told when it takes the counter back.
            let moved = cell.take().moved;
            assert_eq!(moved.or(Some(told)).unwrap().count, latched.then_some(COUNT));
        });
    }

    #[test]
    fn no_interleaving_loses_what_the_bus_latched() {
        run(false);
    }

    #[test]
    fn no_interleaving_mixes_statements() {
        run(true);
    }
}
