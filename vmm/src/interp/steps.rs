//! Instructions that were executed one by one and are likely to be executed again: decoded, and found by their bytes.
//!
//! For those who step through a guest all the time. It need not hear of writes to code: it is asked with the bytes as they are now.

use super::op::Op;
use crate::cpu::bus::Bus;

/// Instructions that are remembered; two that meet in one slot drive each other out.
const SLOTS: usize = 1 << 14;
/// Bytes that an instruction is looked for with: more than any has.
pub const BYTES: usize = size_of::<u128>();

struct Slot<B: Bus> {
    /// Its bytes, lowest first, and zeros.
    bytes: u128,
    /// `None`: there is none.
    op: Option<Op<B>>,
    wide: bool,
}

/// See the module's description.
pub struct Steps<B: Bus> {
    slots: Box<[Slot<B>]>,
}

impl<B: Bus> Default for Steps<B> {
    fn default() -> Self {
        Self { slots: (0..SLOTS).map(|_| Slot { bytes: 0, op: None, wide: false }).collect() }
    }
}

/// The first `len` of some bytes.
fn first(bytes: u128, len: u8) -> u128 {
    let bits = u32::from(len).min(BYTES as u32) * u8::BITS;
    bytes & 1_u128.checked_shl(bits).map_or(u128::MAX, |end| end.wrapping_sub(1))
}

impl<B: Bus> Steps<B> {
    /// The instruction at a linear address where these bytes are.
    #[inline]
    pub fn find(&self, linear: u32, bytes: u128, wide: bool) -> Option<&Op<B>> {
        let slot = &self.slots[linear as usize % SLOTS];
        // Not copied: its narrow fields would be loaded as one word where they had just been stored.
        slot.op.as_ref().filter(|op| slot.wide == wide && first(bytes, op.len) == slot.bytes)
    }

    /// Remembers one, which was decoded of these bytes.
    pub fn put(&mut self, linear: u32, bytes: u128, wide: bool, op: Op<B>) {
        self.slots[linear as usize % SLOTS] = Slot { bytes: first(bytes, op.len), op: Some(op), wide };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::RamBus;
    use crate::interp::Interp;

    #[test]
    fn an_instruction_is_found_only_by_all_of_its_bytes() {
        let code = [0x05, 1, 2, 3, 4, 0x90, 0x90];
        let op = *Interp::<RamBus>::new().decode_one(&code, true).expect("ADD EAX");
        let mut wide = [0; BYTES];
        wide[..code.len()].copy_from_slice(&code);
        let bytes = u128::from_le_bytes(wide);
        let mut steps = Steps::default();
        steps.put(0x1234, bytes, true, op);
        assert!(steps.find(0x1234, bytes, true).is_some());
        // What follows it does not matter.
        assert!(steps.find(0x1234, bytes ^ 1 << 40, true).is_some());
        assert!(steps.find(0x1234, bytes ^ 1 << 39, true).is_none());
        assert!(steps.find(0x1234, bytes, false).is_none());
        assert!(steps.find(0x1235, bytes, true).is_none());
    }
}
