//! Code that is written over again and again: which bytes, so that immediate operands among them are read from guest memory when they
//! are used and writes to them drop nothing; and where making code does not pay for a while.
//!
//! It knows physical pages and offsets, nothing of units.

use super::classify::Kind;
use super::mode::Mode;
use super::scanner::{self, CodeBytes, LiveImmediate, Unit};
use iced_x86::Decoder;
use std::collections::HashMap;

/// Most bytes of a write that may be that of an operand.
const LONGEST: u64 = 4;
/// Writes of the same bytes from which on their operand is read from memory.
const OFTEN: u8 = 2;
/// Most places that are remembered of a page, and most pages.
const MOST_PLACES: usize = 64;
const MOST_PAGES: usize = 256;
/// Times that code of a page is made anew before it is left to the interpreter for a while.
const PATIENCE: u32 = 8;
/// Instructions that are interpreted then, doubled each time up to `LONGEST_PAUSE`.
const FIRST_PAUSE: u32 = 64;
const LONGEST_PAUSE: u32 = 4096;
/// Ticks without a write after which a page starts anew.
const FORGOTTEN_AFTER: u64 = 50_000_000;

/// Bytes that were written together while code of them was kept.
struct Place {
    start: u16,
    end: u16,
    times: u8,
}

#[derive(Default)]
struct Page {
    places: Vec<Place>,
    /// Times that code was dropped that had been made since the last time.
    drops: u32,
    made: bool,
    last_drop: u64,
    /// Instructions that are still to be interpreted.
    pause: u32,
}

/// See the module's description.
#[derive(Default)]
pub struct Patched {
    pages: HashMap<u64, Page>,
}

impl Patched {
    /// Code of a physical page was made.
    pub fn made(&mut self, physical: u64) {
        if let Some(page) = self.pages.get_mut(&physical) {
            page.made = true;
        }
    }

    /// Code of a physical page was dropped because the processor wrote bytes from `start` up to `end`, at the time `now` in ticks.
    pub fn note(&mut self, physical: u64, start: u64, end: u64, now: u64) {
        if self.pages.len() >= MOST_PAGES && !self.pages.contains_key(&physical) {
            self.pages.clear();
        }
        let page = self.pages.entry(physical).or_default();
        if now.saturating_sub(page.last_drop) > FORGOTTEN_AFTER {
            page.drops = 0;
        }
        page.last_drop = now;
        // Otherwise it is one program that writes over another.
        let again = std::mem::take(&mut page.made);
        page.drops += u32::from(again);
        if again && let Some(beyond) = page.drops.checked_sub(PATIENCE) {
            page.pause = FIRST_PAUSE.checked_shl(beyond).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE);
        }
        if end - start > LONGEST {
            return;
        }
        let (start, end) = (start as u16, end as u16);
        match page.places.iter_mut().find(|place| (place.start, place.end) == (start, end)) {
            Some(place) => place.times = place.times.saturating_add(1),
            None => {
                if page.places.len() >= MOST_PLACES {
                    page.places.clear();
                }
                page.places.push(Place { start, end, times: 1 });
            }
        }
    }

    /// Whether code of a physical page was written over.
    pub fn knows(&self, physical: u64) -> bool {
        self.pages.contains_key(&physical)
    }

    /// Whether code of a physical page that is missing is to be interpreted instead of made.
    pub fn pauses(&mut self, physical: u64) -> bool {
        let Some(page) = self.pages.get_mut(&physical) else { return false };
        let pauses = page.pause > 0;
        page.pause = page.pause.saturating_sub(1);
        pauses
    }

    /// Marks the instructions of a unit whose immediate operands are written again and again.
    pub fn find_live(&self, physical: u64, unit: &mut Unit, bytes: &CodeBytes, mode: Mode) {
        let Some(page) = self.pages.get(&physical) else { return };
        for (&offset, item) in &mut unit.instructions {
            if item.crosses || !matches!(item.kind, Kind::Plain | Kind::Push) {
                continue;
            }
            let end = offset + item.len() as u16;
            let often = |place: &&Place| place.times >= OFTEN && place.start >= offset && place.end <= end;
            let mut places = page.places.iter().filter(often).peekable();
            if places.peek().is_none() {
                continue;
            }
            let bits = if mode.code32() { 32 } else { 16 };
            let mut decoder = Decoder::new(bits, bytes.from(usize::from(offset)), scanner::OPTIONS);
            let instruction = decoder.decode();
            let at = decoder.get_constant_offsets(&instruction);
            let start = offset + at.immediate_offset() as u16;
            let end = start + at.immediate_size() as u16;
            if at.has_immediate() && places.any(|place| place.start >= start && place.end <= end) {
                item.live = LiveImmediate::of(&instruction, at.immediate_offset(), at.immediate_size());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shadow::listing::Snippet;

    const PAGE: u64 = 0x5000;
    /// `mov ax, 0x1234; add bx, 5; shl ax, 3`.
    const CODE: [u8; 9] = [0xb8, 0x34, 0x12, 0x83, 0xc3, 0x05, 0xc1, 0xe0, 0x03];

    /// The immediates that are live after writes of these ranges.
    fn live_after(writes: &[(u64, u64)]) -> Vec<(u16, LiveImmediate)> {
        let mode = Mode::made_of(&Snippet {
            bytes: &CODE,
            eip: 0,
            code32: false,
            stack32: false,
            user: false,
            flat: false,
            window: false,
            sse: false,
            segmented: true,
            cs_base: 0,
            reads_eip: None,
        });
        let mut page = [0xf4; scanner::PAGE];
        page[..CODE.len()].copy_from_slice(&CODE);
        let bytes = CodeBytes::of(&page, None);
        let mut unit = scanner::scan(&bytes, mode, 0, 0, |_| false);
        let mut patched = Patched::default();
        for &(start, end) in writes {
            patched.note(PAGE, start, end, 0);
        }
        patched.find_live(PAGE, &mut unit, &bytes, mode);
        let found = |(offset, item): (&u16, &scanner::Scanned)| item.live.map(|live| (*offset, live));
        unit.instructions.iter().filter_map(found).collect()
    }

    #[test]
    fn an_immediate_is_live_when_it_is_written_twice() {
        assert_eq!(live_after(&[(1, 3)]), []);
        assert_eq!(live_after(&[(1, 3), (1, 3)]), [(0, LiveImmediate { offset: 1, size: 2 })]);
        assert_eq!(live_after(&[(2, 3), (2, 3)]), [(0, LiveImmediate { offset: 1, size: 2 })]);
        assert_eq!(live_after(&[(5, 6), (5, 6)]), [(3, LiveImmediate { offset: 2, size: 1 })]);
    }

    #[test]
    fn writes_of_more_than_an_immediate_make_none_live() {
        assert_eq!(live_after(&[(0, 2), (0, 2)]), []);
        assert_eq!(live_after(&[(2, 4), (2, 4)]), []);
        assert_eq!(live_after(&[(0, 9), (0, 9)]), []);
    }

    #[test]
    fn counts_of_shifts_are_never_live() {
        assert_eq!(live_after(&[(8, 9), (8, 9)]), []);
    }

    #[test]
    fn a_page_that_changes_all_the_time_is_left_alone_for_a_while() {
        let mut patched = Patched::default();
        let again = |patched: &mut Patched, now| {
            patched.made(PAGE);
            patched.note(PAGE, 0, 100, now);
        };
        patched.note(PAGE, 0, 100, 0);
        (1..u64::from(PATIENCE)).for_each(|now| again(&mut patched, now));
        assert!(!patched.pauses(PAGE));
        again(&mut patched, 8);
        assert_eq!((0..).take_while(|_| patched.pauses(PAGE)).count(), FIRST_PAUSE as usize);
        again(&mut patched, 9);
        assert_eq!((0..).take_while(|_| patched.pauses(PAGE)).count(), 2 * FIRST_PAUSE as usize);
        again(&mut patched, FORGOTTEN_AFTER + 10);
        assert!(!patched.pauses(PAGE));
    }

    #[test]
    fn writing_over_a_whole_page_once_is_no_reason_to_leave_it_alone() {
        let mut patched = Patched::default();
        for n in 0..100 {
            patched.note(PAGE, 4 * n, 4 * n + 4, n);
        }
        assert!(!patched.pauses(PAGE));
    }
}
