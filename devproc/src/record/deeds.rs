//! What a model did in one call, in the form in which two builds can be compared.
//!
//! Only what somebody can notice counts: driving a line to the level that it has, arming a timer for
//! the deadline that it has, or writing memory in two pieces instead of one is no deed. Deeds are gathered
//! kind by kind, because the device process applies them kind by kind, after the call.

use super::format::{Deed, RegionInfo, Shown, What};
use crate::device::{Reads, Region, Space, Writes};
use crate::outside::ImageAct;
use serde_bytes::ByteBuf;
use std::collections::BTreeMap;

/// Number of PCI pin INTA# among [`Deed::Line`]s.
pub const FIRST_PIN: u8 = 16;

impl RegionInfo {
    /// A region as recordings have it.
    pub fn of(region: &Region) -> Self {
        Self {
            id: region.id.0,
            name: region.name.into(),
            is_memory: region.space == Space::Memory,
            base: region.base,
            len: region.len,
            width: region.width.bytes() as u8,
            writes: match region.writes {
                Writes::Sync => 0,
                Writes::Posted => 1,
                Writes::PostedLocal => 2,
                Writes::Joined => 3,
            },
            mirror: match region.reads {
                Reads::Trap | Reads::Timed { .. } | Reads::Raster | Reads::Ticks(_) | Reads::Counters => None,
                Reads::Mirrored { first } => Some(first.0),
            },
            backing: region.backing.map(|backing| (backing.offset, backing.writable)),
            enabled: region.enabled,
        }
    }
}

/// What one model shows, and what it does in the call at hand.
#[derive(Debug, Default)]
pub struct Doings {
    lines: u32,
    timers: BTreeMap<u8, u64>,
    mirrors: BTreeMap<u16, u32>,
    regions: Vec<RegionInfo>,
    dreq: BTreeMap<u8, bool>,
    a20: BTreeMap<u8, bool>,
    shadow: BTreeMap<u32, (u32, bool, bool)>,
    before: Before,
    /// Deeds that are kept in their order.
    ordered: Vec<Deed>,
    channels: BTreeMap<u8, [u64; 2]>,
    text: Vec<u8>,
}

/// What was shown before the call at hand, as far as it changed.
#[derive(Debug, Default)]
struct Before {
    timers: BTreeMap<u8, Option<u64>>,
    mirrors: BTreeMap<u16, u32>,
    regions: BTreeMap<usize, RegionInfo>,
}

impl Doings {
    /// Of a model that shows this.
    pub fn new(shown: &Shown) -> Self {
        Self {
            lines: shown.lines,
            timers: shown.timers.iter().copied().collect(),
            mirrors: shown.mirrors.iter().copied().collect(),
            regions: shown.regions.clone(),
            ..Self::default()
        }
    }

    /// What the model shows.
    pub fn shown(&self) -> Shown {
        Shown {
            lines: self.lines,
            timers: self.timers.iter().map(|(timer, deadline)| (*timer, *deadline)).collect(),
            mirrors: self.mirrors.iter().filter(|cell| *cell.1 != 0).map(|(c, v)| (*c, *v)).collect(),
            regions: self.regions.clone(),
        }
    }

    /// A call begins.
    pub fn begin(&mut self, what: &What) {
        if let What::Timer(timer, _) = what {
            self.timers.remove(timer);
        }
    }

    /// Line or pin `line` is driven.
    pub fn line(&mut self, line: u8, level: bool) {
        let bit = 1u32 << (line & 31);
        if (self.lines & bit != 0) != level {
            self.lines ^= bit;
            self.ordered.push(Deed::Line(line & 31, level));
        }
    }

    /// A timer is armed, or cancelled.
    pub fn timer(&mut self, timer: u8, deadline: Option<u64>) {
        let old = match deadline {
            Some(deadline) => self.timers.insert(timer, deadline),
            None => self.timers.remove(&timer),
        };
        self.before.timers.entry(timer).or_insert(old);
    }

    /// A mirror cell is published.
    pub fn mirror(&mut self, cell: u16, value: u32) {
        let old = self.mirrors.insert(cell, value).unwrap_or(0);
        self.before.mirrors.entry(cell).or_insert(old);
    }

    /// A region is published.
    pub fn region(&mut self, region: &Region) {
        let new = RegionInfo::of(region);
        if let Some((at, old)) = (0..).zip(&mut self.regions).find(|(_, old)| old.id == new.id)
            && *old != new
        {
            let old = std::mem::replace(old, new);
            self.before.regions.entry(at).or_insert(old);
        }
    }

    /// Guest memory is written.
    pub fn dma(&mut self, address: u64, data: &[u8]) {
        if let Some(Deed::Dma(start, bytes)) = self.ordered.last_mut()
            && start.wrapping_add(bytes.len() as u64) == address
        {
            bytes.extend_from_slice(data);
            return;
        }
        self.ordered.push(Deed::Dma(address, ByteBuf::from(data)));
    }

    /// DREQ is driven.
    pub fn dreq(&mut self, channel: u8, level: bool) {
        if self.dreq.insert(channel, level) != Some(level) {
            self.ordered.push(Deed::Dreq(channel, level));
        }
    }

    /// An ISA DMA channel is set.
    pub fn channel(&mut self, channel: u8, state: [u64; 2]) {
        self.channels.insert(channel, state);
    }

    /// An input of the A20 gate is driven.
    pub fn a20(&mut self, source: u8, enabled: bool) {
        if self.a20.insert(source, enabled) != Some(enabled) {
            self.ordered.push(Deed::A20(source, enabled));
        }
    }

    /// Shadow RAM is switched.
    pub fn shadow(&mut self, base: u32, len: u32, read: bool, write: bool) {
        if self.shadow.insert(base, (len, read, write)) != Some((len, read, write)) {
            self.ordered.push(Deed::Shadow(base, len, read, write));
        }
    }

    /// A character for the debug console.
    pub fn text(&mut self, byte: u8) {
        self.text.push(byte);
    }

    /// A disk image is used. Reads are no deeds.
    pub fn image(&mut self, act: ImageAct) {
        match act {
            ImageAct::Read { .. } => {}
            ImageAct::Write { image, offset, data, .. } => {
                if let Some(Deed::ImageWrite(last, start, bytes)) = self.ordered.last_mut()
                    && *last == image
                    && start.wrapping_add(bytes.len() as u64) == offset
                {
                    bytes.extend_from_slice(&data);
                    return;
                }
                self.ordered.push(Deed::ImageWrite(image, offset, data));
            }
            ImageAct::Flush { image, .. } => self.ordered.push(Deed::ImageFlush(image)),
        }
    }

    /// Anything else.
    pub fn other(&mut self, deed: Deed) {
        if !matches!(deed, Deed::Interrupt(_)) || self.ordered.last() != Some(&deed) {
            self.ordered.push(deed);
        }
    }

    /// The call ends: what was done in it.
    pub fn finish(&mut self) -> Vec<Deed> {
        let mut deeds = std::mem::take(&mut self.ordered);
        let before = std::mem::take(&mut self.before);
        let channels = std::mem::take(&mut self.channels);
        deeds.extend(channels.into_iter().map(|(channel, state)| Deed::Channel(channel, state)));
        for (timer, old) in before.timers {
            let new = self.timers.get(&timer).copied();
            if new != old {
                deeds.push(Deed::Timer(timer, new));
            }
        }
        for (cell, old) in before.mirrors {
            let new = self.mirrors.get(&cell).copied().unwrap_or(0);
            if new != old {
                deeds.push(Deed::Mirror(cell, new));
            }
        }
        for (at, old) in before.regions {
            if self.regions[at] != old {
                deeds.push(Deed::Region(self.regions[at].clone()));
            }
        }
        if !self.text.is_empty() {
            deeds.push(Deed::Text(ByteBuf::from(std::mem::take(&mut self.text))));
        }
        // Stable: the order within a kind stays.
        deeds.sort_by_key(kind);
        deeds
    }
}

/// Number of a deed's kind.
pub fn kind(deed: &Deed) -> u8 {
    match deed {
        Deed::Line(..) => 0,
        Deed::Interrupt(_) => 1,
        Deed::Dma(..) => 2,
        Deed::ImageWrite(..) => 3,
        Deed::ImageFlush(_) => 4,
        Deed::Dreq(..) => 5,
        Deed::Channel(..) => 6,
        Deed::Timer(..) => 7,
        Deed::Mirror(..) => 8,
        Deed::Region(_) => 9,
        Deed::A20(..) => 10,
        Deed::Shadow(..) => 11,
        Deed::Reset(_) => 12,
        Deed::PowerOff => 13,
        Deed::Late(_) => 14,
        Deed::Text(_) => 15,
        Deed::SerialTaken(..) => 16,
        Deed::SerialPut(..) => 17,
        Deed::SerialSent(..) => 18,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::RegionId;

    #[test]
    fn only_what_changes_something_is_a_deed() {
        let mut doings = Doings::new(&Shown { lines: 1 << 6, timers: vec![(0, 100)], ..Shown::default() });
        doings.line(6, true);
        doings.timer(0, None);
        doings.timer(0, Some(100));
        doings.mirror(3, 5);
        doings.mirror(3, 0);
        assert_eq!(doings.finish(), []);

        doings.line(6, false);
        doings.line(6, true);
        doings.timer(0, Some(200));
        assert_eq!(doings.finish(), [Deed::Line(6, false), Deed::Line(6, true), Deed::Timer(0, Some(200))]);
        doings.begin(&What::Timer(0, 200));
        assert_eq!(doings.shown().timers, []);
    }

    #[test]
    fn writes_that_join_are_one() {
        let mut doings = Doings::default();
        doings.dma(0x1000, &[1, 2]);
        doings.dma(0x1002, &[3]);
        doings.dma(0x2000, &[4]);
        let expected = [Deed::Dma(0x1000, ByteBuf::from([1, 2, 3])), Deed::Dma(0x2000, ByteBuf::from([4]))];
        assert_eq!(doings.finish(), expected);
    }

    #[test]
    fn a_region_is_a_deed_when_it_is_not_as_before() {
        let region = Region::ports(RegionId(1), "r", 0x300, 4);
        let shown = Shown { regions: vec![RegionInfo::of(&region)], ..Shown::default() };
        let mut doings = Doings::new(&shown);
        doings.region(&region.disabled());
        doings.region(&region);
        assert_eq!(doings.finish(), []);
        doings.region(&region.disabled());
        assert_eq!(doings.finish(), [Deed::Region(RegionInfo::of(&region.disabled()))]);
    }
}
