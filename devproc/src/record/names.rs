//! Says what an access reached by the names that the recorded models gave their registers.

use super::format::{Access, AccessKind, Header, ModelInfo, RegionInfo, RegisterInfo};
use crate::register::Register;
use std::collections::HashMap;

/// Widest register, bytes.
const WIDEST: u64 = 4;

/// The names of a recording.
#[derive(Debug)]
pub struct Names {
    models: Vec<Model>,
}

#[derive(Debug)]
struct Model {
    info: ModelInfo,
    /// Registers by region, offset and index.
    places: HashMap<(u8, u64, Option<u32>), usize>,
}

/// A register that an access touches.
#[derive(Clone, Copy, Debug)]
pub struct Touched<'a> {
    /// Its number in the model.
    pub number: usize,
    /// The register.
    pub register: &'a RegisterInfo,
    /// Where bit 0 of the access is in the register.
    pub register_shift: u32,
    /// Where bit 0 of the register is in the access.
    pub access_shift: u32,
}

impl Touched<'_> {
    /// The bits of the register that the access reaches.
    pub fn mask(&self, access: &Access) -> u32 {
        let mask = width_mask(u64::from(access.width)) >> self.access_shift << self.register_shift;
        mask & width_mask(self.register.width.into())
    }

    /// What the access carries for the register.
    pub fn value(&self, value: u32) -> u32 {
        value >> self.access_shift << self.register_shift
    }
}

/// All ones in so many bytes.
pub fn width_mask(bytes: u64) -> u32 {
    if bytes >= WIDEST { u32::MAX } else { (1 << (8 * bytes)) - 1 }
}

impl Names {
    /// The names of a recording's models.
    pub fn new(header: &Header) -> Self {
        let model = |info: &ModelInfo| {
            let place = |(number, r): (usize, &RegisterInfo)| ((r.region, r.offset, r.index), number);
            Model { places: info.registers.iter().enumerate().map(place).collect(), info: info.clone() }
        };
        Self { models: header.models.iter().map(model).collect() }
    }

    /// A model.
    pub fn model(&self, number: u8) -> Option<&ModelInfo> {
        self.models.get(usize::from(number)).map(|model| &model.info)
    }

    /// Name of a model.
    pub fn model_name(&self, number: u8) -> &str {
        self.model(number).map_or("?", |model| &model.name)
    }

    /// The models.
    pub fn models(&self) -> impl Iterator<Item = &ModelInfo> {
        self.models.iter().map(|model| &model.info)
    }

    /// Name of a mirror cell: of the register there, or else of the region.
    pub fn mirror(&self, model: u8, cell: u16) -> String {
        let Some(info) = self.model(model) else { return format!("mirror {cell}") };
        let found = info.regions.iter().find_map(|region| {
            let offset = u64::from(cell.checked_sub(region.mirror?)?);
            (offset < region.len).then_some((region, offset))
        });
        let Some((region, offset)) = found else { return format!("mirror {cell}") };
        let is_it = |r: &&RegisterInfo| r.region == region.id && r.offset == offset && r.index.is_none();
        match info.registers.iter().find(is_it) {
            Some(register) => register.name.clone(),
            None => format!("{}+{offset:x}", region.name),
        }
    }

    /// The region of an access.
    pub fn region(&self, access: &Access) -> Option<&RegionInfo> {
        self.model(access.model)?.regions.iter().find(|region| region.id == access.region)
    }

    /// The registers that an access touches.
    pub fn touched(&self, access: &Access) -> Vec<Touched<'_>> {
        let Some(model) = self.models.get(usize::from(access.model)) else { return Vec::new() };
        let mut touched: Vec<Touched<'_>> = Vec::new();
        let width = u64::from(access.width).clamp(1, WIDEST);
        for byte in 0..width {
            let at = access.offset.wrapping_add(byte);
            let whole = |last: &Touched<'_>| {
                u64::from(last.register.width) == width && last.register_shift == 0 && last.access_shift == 0
            };
            if touched.last().is_some_and(whole) {
                // A register that is just what is accessed, whatever else begins within it.
                break;
            }
            let found = (0..WIDEST).find_map(|back| {
                let start = at.checked_sub(back)?;
                let by = |index| model.places.get(&(access.region, start, index)).copied();
                let number = access.selected.and_then(|index| by(Some(index))).or_else(|| by(None))?;
                let register = &model.info.registers[number];
                (back < register.width.into()).then_some((number, register, start))
            });
            if let Some((number, register, start)) = found
                && touched.last().is_none_or(|last| last.number != number)
            {
                touched.push(Touched {
                    number,
                    register,
                    register_shift: 8 * access.offset.saturating_sub(start) as u32,
                    access_shift: 8 * start.saturating_sub(access.offset) as u32,
                });
            }
        }
        touched
    }

    /// What an access reaches, such as `crtc.OFFSET` or `vga-a0000+1f0`.
    pub fn place(&self, access: &Access) -> String {
        let touched = self.touched(access);
        if !touched.is_empty() {
            let names: Vec<_> = touched.iter().map(|touched| touched.register.name.as_str()).collect();
            return names.join("+");
        }
        if access.region == Register::CONFIG.0 {
            return format!("config+{:02x}", access.address);
        }
        match self.region(access) {
            Some(region) => format!("{}+{:x}", region.name, access.offset),
            None => format!("region {}+{:x}", access.region, access.offset),
        }
    }

    /// Which bits differ between two values of an access, by name where they have one.
    pub fn differing_bits(&self, access: &Access, recorded: u32, found: u32) -> String {
        let mut parts = Vec::new();
        for touched in self.touched(access) {
            let mut left = (touched.value(recorded) ^ touched.value(found)) & touched.mask(access);
            for (name, mask) in &touched.register.fields {
                if left & mask != 0 {
                    parts.push(format!("{} ({})", name, bits(left & mask)));
                    left &= !mask;
                }
            }
            if left != 0 {
                parts.push(bits(left));
            }
        }
        if parts.is_empty() { bits(recorded ^ found) } else { parts.join(", ") }
    }
}

/// `bit 3`, `bits 0-7`, `bits 1, 4-5`.
pub fn bits(mask: u32) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for bit in (0..u32::BITS).filter(|bit| mask & 1 << bit != 0) {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == bit => *last = bit,
            _ => runs.push((bit, bit)),
        }
    }
    let runs: Vec<_> = runs
        .iter()
        .map(|(first, last)| if first == last { first.to_string() } else { format!("{first}-{last}") })
        .collect();
    format!("{} {}", if mask.count_ones() == 1 { "bit" } else { "bits" }, runs.join(", "))
}

impl AccessKind {
    /// A word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::ReadBurst => "read burst",
            Self::WriteBurst => "write burst",
            Self::ConfigRead => "config read",
            Self::ConfigWrite => "config write",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::format::Header;
    use crate::record::machine::Machine;
    use serde_bytes::ByteBuf;

    fn names(registers: Vec<RegisterInfo>) -> Names {
        let model = ModelInfo { name: "m".into(), pci: None, memory_len: 0, regions: Vec::new(), registers };
        let found = crate::outside::Found::default();
        Names::new(&Header {
            device: "d".into(),
            build: "1".into(),
            machine: Machine::default(),
            start_unix_seconds: 0,
            models: vec![model],
            found,
        })
    }

    fn register(offset: u64, width: u8, index: Option<u32>, name: &str) -> RegisterInfo {
        let fields = vec![("LOW".to_owned(), 0x0f)];
        RegisterInfo { region: 0, offset, width, index, name: name.into(), fields }
    }

    fn access(offset: u64, width: u8, selected: Option<u32>) -> Access {
        Access {
            model: 0,
            kind: AccessKind::Read,
            region: 0,
            address: offset,
            offset,
            width,
            posted: false,
            sequence: 1,
            guest: (0, 0),
            value: 0,
            data: ByteBuf::new(),
            len: 0,
            selected,
        }
    }

    #[test]
    fn registers_are_found_by_any_byte_and_by_their_index() {
        let names = names(vec![
            register(0, 1, None, "INDEX"),
            register(1, 1, Some(7), "SEVEN"),
            register(4, 4, None, "WIDE"),
        ]);
        assert_eq!(names.place(&access(0, 2, Some(7))), "INDEX+SEVEN");
        assert_eq!(names.place(&access(1, 1, Some(8))), "region 0+1");
        assert_eq!(names.place(&access(6, 2, None)), "WIDE");
        let touched = names.touched(&access(6, 2, None))[0];
        assert_eq!((touched.mask(&access(6, 2, None)), touched.value(0x1234)), (0xffff_0000, 0x1234_0000));
        assert_eq!(names.place(&access(2, 4, None)), "WIDE");
        assert_eq!(names.touched(&access(2, 4, None))[0].mask(&access(2, 4, None)), 0xffff);
    }

    #[test]
    fn differing_bits_have_their_names() {
        let names = names(vec![register(0, 1, None, "R")]);
        assert_eq!(names.differing_bits(&access(0, 1, None), 0x81, 0x00), "LOW (bit 0), bit 7");
        assert_eq!(names.differing_bits(&access(9, 1, None), 0x07, 0x00), "bits 0-2");
    }
}
