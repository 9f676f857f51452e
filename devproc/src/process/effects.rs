//! What a model did to the machine during one call, held back until its state is committed.
//!
//! Most effects can be published again from the state (`Device::attach` does so after a
//! restart). Those that cannot are packed into the commit record, so that a successor repeats
//! exactly what may not have been done.

use crate::device::MirrorSlot;
use crate::host::{A20Source, DmaChannel, IntxPin, ResetRequest};
use ipc::link::COMMIT_WORDS;
use ipc::message::{MESSAGE_WORDS, Message};

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
    Mirror(MirrorSlot, u32),
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
}

const TAG_DMA: u64 = 1;
const TAG_RESET: u64 = 2;
const TAG_POWER_OFF: u64 = 3;
const TAG_CODE: u64 = 4;

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

/// Packs the reply (if any) and the effects that cannot be published again from the state.
/// Code ranges beyond the record are merged into one that spans them, so none is lost.
pub fn pack_record(reply: Option<&Message>, effects: &[Effect], record: &mut Vec<u64>) {
    record.clear();
    match reply {
        Some(reply) => {
            record.push(1);
            record.extend(reply.encode());
        }
        None => record.push(0),
    }
    let mut code: Option<(u64, u64)> = None;
    for effect in effects {
        // The last place is kept for the merged code range.
        if record.len() + 6 > COMMIT_WORDS && !matches!(effect, Effect::CodeWritten(..)) {
            tracing::error!(
                "One access had more effects than a commit record holds: {effect:?} is not repeatable"
            );
            continue;
        }
        match *effect {
            Effect::Dma(number, state) => {
                let [low, high] = pack_channel(&state);
                record.extend([TAG_DMA | u64::from(number) << 8, low, high]);
            }
            Effect::Reset(kind) => record.extend([TAG_RESET, kind as u64, 0]),
            Effect::PowerOff => record.extend([TAG_POWER_OFF, 0, 0]),
            Effect::CodeWritten(address, len) => {
                let end = address.saturating_add(len);
                code = Some(code.map_or((address, end), |(low, high)| (low.min(address), high.max(end))));
            }
            _ => {}
        }
    }
    if let Some((low, high)) = code {
        record.extend([TAG_CODE, low, high - low]);
    }
}

/// Unpacks [`pack_record`]: the reply and the effects to repeat. Malformed parts are left out.
pub fn unpack_record(record: &[u64]) -> (Option<Message>, Vec<Effect>) {
    let (reply, rest) = match record.split_first() {
        Some((1, rest)) if rest.len() >= MESSAGE_WORDS => {
            let (words, rest) = rest.split_at(MESSAGE_WORDS);
            (words.try_into().ok().and_then(Message::decode), rest)
        }
        Some((_, rest)) => (None, rest),
        None => (None, record),
    };
    let effect = |words: &[u64]| match words[0] & 0xff {
        TAG_DMA => {
            let channel = (words[0] >> 8) as u8 & 7;
            Some(Effect::Dma(channel, unpack_channel([words[1], words[2]], false)))
        }
        TAG_RESET if words[1] == ResetRequest::Machine as u64 => Some(Effect::Reset(ResetRequest::Machine)),
        TAG_RESET => Some(Effect::Reset(ResetRequest::Cpu)),
        TAG_POWER_OFF => Some(Effect::PowerOff),
        TAG_CODE => Some(Effect::CodeWritten(words[1], words[2])),
        _ => None,
    };
    (reply, rest.chunks_exact(3).filter_map(effect).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::message::Kind;

    #[test]
    fn what_cannot_be_published_again_survives_in_the_record() {
        let channel = DmaChannel {
            base_address: 1,
            current_count: 0xffff,
            page: 7,
            masked: true,
            ..Default::default()
        };
        let reply = Message { sequence: 9, value: 0x80, ..Message::new(Kind::Reply) };
        let effects = [
            Effect::Irq(6, true),
            Effect::Dma(2, channel),
            Effect::CodeWritten(0x7c00, 512),
            Effect::Reset(ResetRequest::Machine),
        ];
        let mut record = Vec::new();
        pack_record(Some(&reply), &effects, &mut record);
        let (back, repeated) = unpack_record(&record);
        assert_eq!(back, Some(reply));
        assert_eq!(repeated, [effects[1], effects[3], effects[2]]);
        assert_eq!(unpack_record(&[]), (None, vec![]));
        assert_eq!(unpack_record(&[1, 2, 3]).0, None);
    }

    #[test]
    fn a_record_never_outgrows_its_place() {
        let mut effects = vec![Effect::Dma(1, DmaChannel::default()); 100];
        effects.push(Effect::CodeWritten(0x5000, 0x10));
        effects.push(Effect::CodeWritten(0x1000, 0x10));
        let mut record = Vec::new();
        pack_record(Some(&Message::new(Kind::Reply)), &effects, &mut record);
        assert!(record.len() <= COMMIT_WORDS);
        assert_eq!(unpack_record(&record).1.last(), Some(&Effect::CodeWritten(0x1000, 0x4010)));
    }
}
