//! Loops of one straight piece of code, in windows: where a turn takes a few cycles, what comes between two turns counts.
//!
//! They are made several times in a row, and only the last jumps back, so there is one poll in as many turns. What the
//! floating-point unit is to remember ([`super::notes`]) is put off across turns too: then the first is one by itself, before which
//! nothing was put off, and the others know what the turn before has put off.
//!
//! Only the first turn can be entered: at its start and, if nothing is put off, where jumps lead into its midst.

use super::flow::Known;
use super::notes::Notes;
use super::{Emit, Keep, LOOP_ALIGNMENT};
use crate::shadow::asm::{Cond, Label};
use crate::shadow::classify::Kind;
use crate::shadow::scanner::{Scanned, Unit, on_page, target};

/// Instructions of all turns together.
const MOST_INSTRUCTIONS: usize = 32;
/// Turns in a row.
const MOST_TURNS: usize = 4;
/// Instructions of a turn that puts off notes: then two turns pay, the first and the others.
const LONGEST_WITH_NOTES: usize = 48;

/// A loop that is made several times in a row.
pub(super) struct TightLoop<'a> {
    /// Its instructions but the last.
    body: Vec<(u16, &'a Scanned)>,
    /// The last, which jumps to the first.
    jump: (u16, &'a Scanned),
    /// Times.
    turns: usize,
    /// See [`TightLoop::has_notes`].
    has_notes: bool,
}

/// Whether an instruction can be part of a loop that is made several times.
const fn is_straight(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Plain
            | Kind::Float
            | Kind::Nothing
            | Kind::Lea
            | Kind::Push
            | Kind::Pop
            | Kind::String
            | Kind::Jcc(_)
    )
}

impl<'a> TightLoop<'a> {
    /// How many instructions a turn has.
    pub(super) fn turn(&self) -> usize {
        self.body.len() + 1
    }

    /// Whether the floating-point unit remembers some instruction of it.
    pub(super) const fn has_notes(&self) -> bool {
        self.has_notes
    }

    /// Its first instruction.
    pub(super) fn start(&self) -> u16 {
        self.body.first().map_or(self.jump.0, |(offset, _)| *offset)
    }
}

impl Emit<'_> {
    /// The loop that starts at `offset`, if it is one of those.
    pub(super) fn tight_loop<'u>(&self, unit: &'u Unit, offset: u16) -> Option<TightLoop<'u>> {
        if !self.mode.window() || self.polls_next {
            return None;
        }
        let mut body = Vec::new();
        let mut next = offset;
        let mut is_entered_inside = false;
        // Where its other jumps lead.
        let mut exits = Vec::new();
        for (&at, item) in unit.instructions.range(offset..).take(LONGEST_WITH_NOTES) {
            if at != next || item.crosses || item.live.is_some() {
                return None;
            }
            is_entered_inside |= at != offset && item.leader;
            next = at + item.len() as u16;
            let to = matches!(item.kind, Kind::Jump | Kind::Jcc(_))
                .then(|| on_page(self.mode, self.target.page_eip, target(&item.instruction)))
                .flatten();
            if to == Some(offset) {
                if body.is_empty() || Self::live_at(unit, Some(offset)) == Keep::All {
                    return None;
                }
                // From a later turn they would lead into the first, around the poll.
                if exits.iter().any(|to| (offset..next).contains(to)) {
                    return None;
                }
                let has_notes = body.iter().any(|(_, item): &(u16, &Scanned)| item.fop.is_some());
                if has_notes && is_entered_inside {
                    return None;
                }
                let mut tight = TightLoop { body, jump: (at, item), turns: 1, has_notes };
                let most = if has_notes { MOST_TURNS + 1 } else { MOST_TURNS };
                let least = if has_notes { 2 } else { 1 };
                tight.turns = (MOST_INSTRUCTIONS / tight.turn()).clamp(least, most);
                return (tight.turns > 1).then_some(tight);
            }
            if !is_straight(item.kind) {
                return None;
            }
            exits.extend(to);
            body.push((at, item));
        }
        None
    }

    /// Emits a loop, whose start has been bound to its label. Returns where control falls through to, if it does.
    pub(super) fn turns(
        &mut self,
        tight: &TightLoop<'_>,
        unit: &Unit,
        map: &mut Vec<(u16, u32)>,
    ) -> Option<u16> {
        let start = tight.start();
        let mut again = self.labels.get(&start).copied();
        let out = self.asm.label();
        let mut left: Option<Notes> = None;
        for turn in 1..=tight.turns {
            if turn == 2 && tight.has_notes {
                // What comes before it is only jumped over by the first turn.
                self.asm.align(LOOP_ALIGNMENT);
                let second = self.asm.label();
                self.asm.bind(second);
                again = Some(second);
            }
            for (offset, item) in &tight.body {
                let inside = self.labels.get(offset).filter(|_| turn == 1 && *offset != start);
                if let Some(&label) = inside {
                    self.settle_stack();
                    self.bind(label);
                }
                self.begin(*offset, map);
                self.instruction(*offset, item, unit);
            }
            self.settle_stack();
            if let Some(&label) = self.labels.get(&tight.jump.0).filter(|_| turn == 1) {
                self.bind(label);
            }
            self.begin(tight.jump.0, map);
            // The same after every turn: each notes the same, or nothing.
            let notes = *left.get_or_insert(self.notes);
            debug_assert!(notes == self.notes, "turns of {tight_start:x} differ", tight_start = start);
            self.end_turn(tight, turn == tight.turns, again?, out, unit);
        }
        self.asm.bind(out);
        let (offset, jump) = tight.jump;
        (jump.kind != Kind::Jump).then(|| offset + jump.len() as u16)
    }

    /// The jump back to the start: to `again` from the `last` turn, else into the next. To `out` if it is not taken.
    fn end_turn(&mut self, tight: &TightLoop<'_>, last: bool, again: Label, out: Label, unit: &Unit) {
        let (_, jump) = tight.jump;
        let start = self.eip(tight.start());
        if let Kind::Jcc(condition) = jump.kind {
            self.asm.jcc(Cond(condition ^ 1), out);
        }
        // (Whoever counts counts every turn.)
        self.count(start);
        if !last {
            return;
        }
        let live = Self::live_at(unit, Some(tight.start()));
        self.poll_and_jump(start, Known::Own(again), live);
    }
}
