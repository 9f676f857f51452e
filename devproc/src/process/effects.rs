//! What a model did to the machine during one call, held back until its state is committed.
//!
//! Most effects can be published again from the state (`Device::attach` does so after a
//! restart). Those that cannot are packed into the commit record, so that a successor repeats
//! exactly what may not have been done.

use crate::device::{CounterId, MirrorSlot};
use crate::host::{A20Source, DmaChannel, IntxPin, ResetRequest};
use ipc::counter::{Counting, Latch};
use ipc::link::COMMIT_WORDS;
use ipc::message::{MESSAGE_WORDS, Message};
use ipc::mirror::Mirrored;
use ipc::raster::Raster;
use std::borrow::Borrow;

/// One held-back effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// An ISA line.
    Irq(u8, bool),
    /// A PCI interrupt pin.
    Intx(IntxPin, bool),
    /// DREQ of a channel.
    Dreq(u8, bool),
    /// New state of an ISA DMA channel.
    Dma(u8, DmaChannel),
    /// An input of the A20 gate.
    A20(A20Source, bool),
    /// A reset request.
    Reset(ResetRequest),
    /// Soft-off.
    PowerOff,
    /// The interrupt request to the CPU.
    Interrupt(Option<u8>),
    /// A mirror cell.
    Mirror(MirrorSlot, Mirrored),
    /// How the bus makes accesses to the model's memory.
    Raster(Option<Raster>),
    /// What the latch of that memory holds.
    Latch(u32),
    /// How a counter counts, and what its latch holds.
    Counter(CounterId, Option<Counting>, Latch),
    /// Shadow-RAM switches.
    Shadow {
        /// First address.
        base: u32,
        /// Bytes.
        len: u32,
        /// Reads go to RAM.
        read: bool,
        /// Writes go to RAM.
        write: bool,
    },
    /// The model's regions changed (their new form is kept by the process).
    Regions,
    /// DMA wrote to a page that holds code.
    CodeWritten(u64, u64),
    /// Text for the debug console.
    DebugText(u8),
    /// The answer to a deferred access.
    Deferred(u32),
    /// Characters of a serial port's input that the state includes.
    SerialTaken(u8, u64),
    /// Characters of a serial port's output that go.
    SerialSent(u8, u64),
}

const TAG_DMA: u64 = 1;
const TAG_RESET: u64 = 2;
const TAG_POWER_OFF: u64 = 3;
const TAG_CODE: u64 = 4;
const TAG_EDGES: u64 = 5;
const HAS_REPLY: u64 = 1 << 0;
const HAS_LATE_REPLY: u64 = 1 << 1;
/// Words of a record before the replies.
const HEADER: usize = 3;
/// Words per effect.
const TRIPLE: usize = 3;

impl Effect {
    /// Whether it is done before what makes the guest, or another process, look: an interrupt handler
    /// that finds the old status in the mirror page would do nothing, and no further edge would come.
    pub fn comes_first(&self) -> bool {
        !matches!(
            self,
            Self::Irq(..) | Self::Intx(..) | Self::Dreq(..) | Self::Interrupt(_) | Self::Deferred(_)
        )
    }

    /// Whether it only tells the bus what the state says anyway: a call that changed nothing else need not be committed.
    pub fn is_only_shown(&self) -> bool {
        matches!(self, Self::Mirror(..) | Self::Counter(..))
    }

    /// Whether it is repeated from the commit record while that is not marked as applied.
    pub fn is_recorded(&self) -> bool {
        matches!(self, Self::Dma(..) | Self::Reset(_) | Self::PowerOff | Self::CodeWritten(..))
    }
}

/// Rising edges of a line that one call made beyond those that its last level shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edges {
    /// ISA line.
    pub irq: u8,
    /// Edges of the line before the call, as the board counts them.
    pub before: u32,
    /// Edges that the call made.
    pub rises: u32,
}

/// What was decided together with a committed state, besides the effects. `M` is a message, or where one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decisions<M = Message> {
    /// The reply to the request in progress.
    pub reply: Option<M>,
    /// The reply to an access that was deferred earlier.
    pub late_reply: Option<M>,
    /// Host events that the state includes.
    pub events: u64,
    /// Sequence number of an access that is deferred still; 0 for none.
    pub deferred: u64,
}

impl<M> Default for Decisions<M> {
    fn default() -> Self {
        Self { reply: None, late_reply: None, events: 0, deferred: 0 }
    }
}

/// A record as a successor finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// What was decided.
    pub decisions: Decisions,
    /// Effects to repeat if they were not applied.
    pub effects: Vec<Effect>,
    /// Edges that may be missing.
    pub edges: Vec<Edges>,
}

/// Packs a channel into the two words of the board.
pub fn pack_channel(channel: &DmaChannel) -> [u64; 2] {
    [
        u64::from(channel.base_address)
            | u64::from(channel.base_count) << 16
            | u64::from(channel.current_address) << 32
            | u64::from(channel.current_count) << 48,
        u64::from(channel.page)
            | u64::from(channel.mode) << 8
            | u64::from(channel.masked) << 16
            | u64::from(channel.terminal_count) << 17,
    ]
}

/// Unpacks a channel; DREQ travels apart.
pub fn unpack_channel(words: [u64; 2], request: bool) -> DmaChannel {
    DmaChannel {
        base_address: words[0] as u16,
        base_count: (words[0] >> 16) as u16,
        current_address: (words[0] >> 32) as u16,
        current_count: (words[0] >> 48) as u16,
        page: words[1] as u8,
        mode: (words[1] >> 8) as u8,
        masked: words[1] & 1 << 16 != 0,
        terminal_count: words[1] & 1 << 17 != 0,
        request,
    }
}

/// Packs the decisions and what of the effects cannot be published again from the state. `line`
/// tells of an ISA line whether the model holds it, and its edges so far.
pub fn pack_record<M: Borrow<Message>>(
    decisions: &Decisions<M>,
    effects: &[Effect],
    line: impl Fn(u8) -> (bool, u32),
    record: &mut Vec<u64>,
) {
    record.clear();
    let flag = |reply: &Option<M>, bit| if reply.is_some() { bit } else { 0 };
    record.extend_from_slice(&[
        flag(&decisions.reply, HAS_REPLY) | flag(&decisions.late_reply, HAS_LATE_REPLY),
        decisions.events,
        decisions.deferred,
    ]);
    if let Some(reply) = &decisions.reply {
        record.extend_from_slice(&reply.borrow().encode());
    }
    if let Some(reply) = &decisions.late_reply {
        record.extend_from_slice(&reply.borrow().encode());
    }
    let mut code: Option<(u64, u64)> = None;
    for (index, effect) in effects.iter().enumerate() {
        let later = || effects.iter().skip(index + 1);
        let triple = match *effect {
            // Only the last state of a channel matters.
            Effect::Dma(n, _) if later().any(|e| matches!(e, Effect::Dma(m, _) if *m == n)) => continue,
            Effect::Dma(number, state) => {
                let [low, high] = pack_channel(&state);
                [TAG_DMA | u64::from(number) << 8, low, high]
            }
            Effect::Reset(kind) => [TAG_RESET, kind as u64, 0],
            Effect::PowerOff => [TAG_POWER_OFF, 0, 0],
            // All changes of a line are counted with its last one; a single one shows in the state.
            Effect::Irq(irq, _) if !later().any(|e| matches!(e, Effect::Irq(i, _) if *i == irq)) => {
                let Some([before, rises]) = count_edges(irq, effects, line(irq)) else { continue };
                [TAG_EDGES | u64::from(irq) << 8, before.into(), rises.into()]
            }
            Effect::CodeWritten(address, len) => {
                let end = address.saturating_add(len);
                code = Some(code.map_or((address, end), |(low, high)| (low.min(address), high.max(end))));
                continue;
            }
            _ => continue,
        };
        // The last place is kept for the merged code range.
        if record.len() + 2 * TRIPLE > COMMIT_WORDS {
            tracing::error!(
                "One access had more effects than a commit record holds: {effect:?} is not repeatable"
            );
            continue;
        }
        record.extend(triple);
    }
    if let Some((low, high)) = code {
        record.extend([TAG_CODE, low, high - low]);
    }
}

/// Edges of `irq` before the call, and those that it makes; `None` when it changes the line at most
/// once.
fn count_edges(irq: u8, effects: &[Effect], (held, before): (bool, u32)) -> Option<[u32; 2]> {
    let mut level = held;
    let (mut changes, mut rises) = (0, 0);
    for effect in effects {
        if let Effect::Irq(i, new) = *effect
            && i == irq
            && new != level
        {
            changes += 1;
            rises += u32::from(new);
            level = new;
        }
    }
    (changes > 1).then_some([before, rises])
}

/// Unpacks [`pack_record`]. Malformed parts are left out.
pub fn unpack_record(words: &[u64]) -> Record {
    let Some((&[flags, events, deferred], mut rest)) = words.split_first_chunk::<HEADER>() else {
        return Record::default();
    };
    let mut reply = |bit| {
        let (message, after) = rest.split_first_chunk::<MESSAGE_WORDS>().filter(|_| flags & bit != 0)?;
        rest = after;
        Message::decode(*message)
    };
    let decisions =
        Decisions { reply: reply(HAS_REPLY), late_reply: reply(HAS_LATE_REPLY), events, deferred };
    let mut record = Record { decisions, ..Record::default() };
    for &[head, first, second] in rest.as_chunks::<TRIPLE>().0 {
        let number = (head >> 8) as u8;
        record.effects.push(match head & 0xff {
            TAG_DMA => Effect::Dma(number & 7, unpack_channel([first, second], false)),
            TAG_RESET if first == ResetRequest::Machine as u64 => Effect::Reset(ResetRequest::Machine),
            TAG_RESET => Effect::Reset(ResetRequest::Cpu),
            TAG_POWER_OFF => Effect::PowerOff,
            TAG_CODE => Effect::CodeWritten(first, second),
            TAG_EDGES => {
                record.edges.push(Edges { irq: number & 15, before: first as u32, rises: second as u32 });
                continue;
            }
            _ => continue,
        });
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::message::Kind;

    fn low(_: u8) -> (bool, u32) {
        (false, 7)
    }

    #[test]
    fn what_cannot_be_published_again_survives_in_the_record() {
        let channel = DmaChannel {
            base_address: 1,
            current_count: 0xffff,
            page: 7,
            masked: true,
            ..Default::default()
        };
        let reply = |sequence| Message { sequence, value: 0x80, ..Message::new(Kind::Reply) };
        let decisions =
            Decisions { reply: Some(reply(9)), late_reply: Some(reply(8)), events: 3, deferred: 4 };
        let effects = [
            Effect::Irq(6, true),
            Effect::Dma(2, DmaChannel::default()),
            Effect::Dma(2, channel),
            Effect::CodeWritten(0x7c00, 512),
            Effect::Reset(ResetRequest::Machine),
        ];
        let mut words = Vec::new();
        pack_record(&decisions, &effects, low, &mut words);
        let record = unpack_record(&words);
        assert_eq!(record.decisions, decisions);
        assert_eq!(record.effects, [effects[2], effects[4], effects[3]]);
        assert_eq!(record.edges, []);
        assert_eq!(unpack_record(&[]), Record::default());
        assert_eq!(unpack_record(&[1, 2, 3, 4]).decisions.reply, None);
    }

    #[test]
    fn edges_that_the_last_level_does_not_show_are_counted() {
        let pulse = [Effect::Irq(0, false), Effect::Irq(0, true)];
        let mut words = Vec::new();
        pack_record(&Decisions::<Message>::default(), &pulse, |_| (true, 7), &mut words);
        assert_eq!(unpack_record(&words).edges, [Edges { irq: 0, before: 7, rises: 1 }]);
        // From low it is one change, which `attach` makes from the state.
        pack_record(&Decisions::<Message>::default(), &pulse, low, &mut words);
        assert_eq!(unpack_record(&words).edges, []);
        let there_and_back = [Effect::Irq(4, true), Effect::Irq(4, false)];
        pack_record(&Decisions::<Message>::default(), &there_and_back, low, &mut words);
        assert_eq!(unpack_record(&words).edges, [Edges { irq: 4, before: 7, rises: 1 }]);
    }

    #[test]
    fn a_record_never_outgrows_its_place() {
        let mut effects: Vec<_> = (0..100).map(|_| Effect::PowerOff).collect();
        effects.push(Effect::CodeWritten(0x5000, 0x10));
        effects.push(Effect::CodeWritten(0x1000, 0x10));
        let reply = Some(Message::new(Kind::Reply));
        let decisions = Decisions { reply, late_reply: reply, ..Decisions::default() };
        let mut words = Vec::new();
        pack_record(&decisions, &effects, low, &mut words);
        assert!(words.len() <= COMMIT_WORDS);
        assert_eq!(unpack_record(&words).effects.last(), Some(&Effect::CodeWritten(0x1000, 0x4010)));
    }
}
