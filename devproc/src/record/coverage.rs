//! Which registers, and which of their bits, the guest touched: the register coverage map.
//!
//! Registers of the same name are one (a CRTC register at 3B5h and at 3D5h).

use super::format::{Access, AccessKind, Answer, Header, Status, What};
use super::items::Item;
use super::names::{Names, width_mask};
use std::collections::BTreeMap;
use std::fmt::Write;

/// What happened to a register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// Bits of the register.
    pub width_mask: u32,
    /// Names of bits.
    pub fields: Vec<(String, u32)>,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Accesses that the model refused.
    pub refused: u64,
    /// Bits that were read.
    pub read: u32,
    /// Bits that were read as one, and as zero.
    pub read_as: (u32, u32),
    /// Bits that were written as one, and as zero.
    pub written_as: (u32, u32),
    /// Reads before the first write.
    pub reads_before_write: u64,
}

impl Touch {
    /// Bits that were never written as one.
    pub fn never_set(&self) -> u32 {
        self.width_mask & !self.written_as.0
    }
}

/// The map.
#[derive(Debug)]
pub struct Coverage {
    names: Names,
    /// By model and name, in the order of the model's registers.
    registers: Vec<((u8, String), Touch)>,
    places: BTreeMap<(u8, String), usize>,
    /// Accesses to what has no name: by model and place.
    unnamed: BTreeMap<(u8, String), (u64, u64, u64)>,
}

impl Coverage {
    /// An empty map of a recording's registers.
    pub fn new(header: &Header) -> Self {
        let mut registers: Vec<((u8, String), Touch)> = Vec::new();
        let mut places = BTreeMap::new();
        for (model, info) in (0..).zip(&header.models) {
            for register in &info.registers {
                let key = (model, register.name.clone());
                places.entry(key.clone()).or_insert_with(|| {
                    let touch = Touch {
                        width_mask: width_mask(register.width.into()),
                        fields: register.fields.clone(),
                        ..Touch::default()
                    };
                    registers.push((key, touch));
                    registers.len() - 1
                });
            }
        }
        Self { names: Names::new(header), registers, places, unnamed: BTreeMap::new() }
    }

    /// Takes a part of the recording into the map.
    pub fn add(&mut self, item: &Item) {
        match item {
            Item::Bus(both) => self.access(&both.0, Some(&both.1)),
            Item::Transaction(transaction) => {
                if let What::Access(access) = &transaction.call.what {
                    self.access(access, transaction.outcome.as_ref().map(|outcome| &outcome.answer));
                }
            }
            Item::Start(_) | Item::End(_) => {}
        }
    }

    fn access(&mut self, access: &Access, answer: Option<&Answer>) {
        let refused = answer.is_some_and(|answer| !matches!(answer.status, Status::Done | Status::Deferred));
        let write = access.kind.is_write();
        let count = match access.kind {
            AccessKind::ReadBurst | AccessKind::WriteBurst => {
                u64::from(access.len / u32::from(access.width).max(1))
            }
            _ => 1,
        };
        let is_burst = matches!(access.kind, AccessKind::ReadBurst | AccessKind::WriteBurst);
        let touched = self.names.touched(access);
        if touched.is_empty() {
            let memory = self.names.region(access).is_some_and(|region| region.is_memory);
            let place = match self.names.region(access) {
                // Memory has too many places to tell apart.
                Some(region) if memory && !access.kind.is_config() => region.name.clone(),
                _ => self.names.place(access),
            };
            let (reads, writes, refusals) = self.unnamed.entry((access.model, place)).or_default();
            *(if write { writes } else { reads }) += count;
            *refusals += u64::from(refused);
            return;
        }
        for part in touched {
            let Some(at) = self.places.get(&(access.model, part.register.name.clone())) else { continue };
            let touch = &mut self.registers[*at].1;
            let mask = part.mask(access);
            touch.refused += u64::from(refused);
            if write {
                touch.writes += count;
                // Of a burst the values are not looked at: it is data.
                let value = part.value(access.value);
                touch.written_as.0 |= if is_burst { mask } else { value & mask };
                touch.written_as.1 |= if is_burst { mask } else { !value & mask };
            } else {
                touch.reads += count;
                touch.read |= mask;
                if touch.writes == 0 {
                    touch.reads_before_write += count;
                }
                if let Some(answer) = answer.filter(|_| !is_burst && !refused) {
                    let value = part.value(answer.value);
                    touch.read_as.0 |= value & mask;
                    touch.read_as.1 |= !value & mask;
                }
            }
        }
    }

    /// The registers with what happened to them: model, name, touch.
    pub fn registers(&self) -> impl Iterator<Item = (&str, &str, &Touch)> {
        self.registers.iter().map(|((model, name), t)| (self.names.model_name(*model), name.as_str(), t))
    }

    /// The map for people.
    pub fn table(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{:10} {:30} {:>9} {:>9}  {:8} {:8} {:8}  NOTES",
            "MODEL", "REGISTER", "READS", "WRITES", "READ", "SET", "CLEARED"
        );
        for (model, name, touch) in self.registers().filter(|(.., touch)| touch.reads + touch.writes > 0) {
            let digits = (touch.width_mask.count_ones() / 4) as usize;
            let hex = |mask: u32| format!("{mask:0digits$x}");
            let _ = writeln!(
                out,
                "{model:10} {name:30} {:>9} {:>9}  {:8} {:8} {:8}  {}",
                touch.reads,
                touch.writes,
                hex(touch.read),
                hex(touch.written_as.0),
                hex(touch.written_as.1),
                notes(touch)
            );
        }
        for ((model, place), (reads, writes, refused)) in &self.unnamed {
            let model = self.names.model_name(*model);
            let note = if *refused > 0 { format!("{refused} refused") } else { "no name".into() };
            let _ = writeln!(out, "{model:10} {place:30} {reads:>9} {writes:>9}  {:26}  {note}", "");
        }
        for (model, info) in (0..).zip(self.names.models()) {
            let untouched: Vec<_> = self
                .registers
                .iter()
                .filter(|((m, _), touch)| *m == model && touch.reads + touch.writes == 0)
                .map(|((_, name), _)| name.as_str())
                .collect();
            if !untouched.is_empty() {
                let _ = writeln!(out, "{}: never touched: {}", info.name, untouched.join(" "));
            }
        }
        out
    }
}

fn notes(touch: &Touch) -> String {
    let mut notes = Vec::new();
    if touch.reads_before_write > 0 && touch.writes > 0 {
        let count = touch.reads_before_write;
        notes.push(format!("{count} read{} before any write", if count == 1 { "" } else { "s" }));
    }
    if touch.refused > 0 {
        notes.push(format!("{} refused", touch.refused));
    }
    if touch.writes > 0 {
        let never = touch.never_set();
        let unset = |(_, mask): &&(String, u32)| mask & never == *mask;
        let names: Vec<_> = touch.fields.iter().filter(unset).map(|(name, _)| name.as_str()).collect();
        if !names.is_empty() {
            notes.push(format!("never set: {}", names.join(" ")));
        }
    }
    notes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outside::Found;
    use crate::record::format::{ModelInfo, RegisterInfo};
    use crate::record::machine::Machine;
    use serde_bytes::ByteBuf;

    fn coverage() -> Coverage {
        let register = |offset, name: &str| RegisterInfo {
            region: 0,
            offset,
            width: 1,
            index: None,
            name: name.into(),
            fields: vec![("GO".into(), 1), ("STOP".into(), 2)],
        };
        let registers = vec![register(0, "CONTROL"), register(1, "STATUS"), register(2, "UNUSED")];
        let model = ModelInfo { name: "m".into(), pci: None, memory_len: 0, regions: Vec::new(), registers };
        Coverage::new(&Header {
            device: "d".into(),
            build: "1".into(),
            machine: Machine::default(),
            start_unix_seconds: 0,
            models: vec![model],
            found: Found::default(),
        })
    }

    fn access(kind: AccessKind, offset: u64, width: u8, value: u32) -> Item {
        let access = Access {
            model: 0,
            kind,
            region: 0,
            address: offset,
            offset,
            width,
            posted: false,
            sequence: 1,
            guest: (0, 0),
            value: if kind.is_write() { value } else { 0 },
            data: ByteBuf::new(),
            len: 0,
            selected: None,
        };
        Item::Bus(Box::new((access, Answer { value, ..Answer::default() })))
    }

    #[test]
    fn bits_and_reads_before_the_first_write_are_counted() {
        let mut map = coverage();
        map.add(&access(AccessKind::Read, 0, 2, 0x8001));
        map.add(&access(AccessKind::Write, 0, 1, 1));
        map.add(&access(AccessKind::Write, 0, 1, 0));
        let touches: Vec<_> = map.registers().map(|(_, name, touch)| (name, touch.clone())).collect();
        let control = &touches[0].1;
        assert_eq!((control.reads, control.writes, control.reads_before_write), (1, 2, 1));
        assert_eq!((control.read_as, control.never_set()), ((0x01, 0xfe), 0xfe));
        assert_eq!((touches[1].1.reads, touches[1].1.read_as.0), (1, 0x80));
        let table = map.table();
        assert!(table.contains("1 read before any write; never set: STOP"), "{table}");
        assert!(table.contains("m: never touched: UNUSED"), "{table}");
    }

    #[test]
    fn what_has_no_name_is_counted_by_its_place() {
        let mut map = coverage();
        map.add(&access(AccessKind::Read, 0x20, 1, 0));
        assert!(map.table().contains("region 0+20"), "{}", map.table());
    }
}
