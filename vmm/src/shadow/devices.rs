//! Instructions whose accesses meet devices again and again. Shadow code has those interpreted in place, where a slot is empty,
//! instead of leaving for each.
//!
//! It knows physical addresses of instructions, and nothing of devices.

use std::collections::HashMap;

/// Accesses of an instruction that met a device from which on it is one of these.
const OFTEN: u8 = 16;
/// Most instructions that are remembered.
const MOST: usize = 4096;

/// See the module's description.
#[derive(Default)]
pub struct DeviceSites {
    met: HashMap<u64, u8>,
}

impl DeviceSites {
    /// The access of the instruction at a physical address met a device. True when that made it one of these: code of it is to be
    /// made anew.
    pub fn note(&mut self, physical: u64) -> bool {
        if self.met.len() >= MOST && !self.met.contains_key(&physical) {
            self.met.clear();
        }
        let met = self.met.entry(physical).or_default();
        let before = *met;
        *met = before.saturating_add(1);
        before == OFTEN - 1
    }

    /// Whether the instruction at a physical address is one.
    pub fn is(&self, physical: u64) -> bool {
        self.met.get(&physical).is_some_and(|met| *met >= OFTEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_becomes_one_once() {
        let mut sites = DeviceSites::default();
        let becomes: Vec<_> = (0..400).filter(|_| sites.note(0x1234)).collect();
        assert_eq!(becomes, [i32::from(OFTEN) - 1]);
        assert!(sites.is(0x1234) && !sites.is(0x1235));
    }
}
