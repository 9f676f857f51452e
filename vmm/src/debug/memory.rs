//! Guest memory as a debugger sees it: no rights, no faults, no accessed or dirty bits.
//!
//! Only memory that the CPU could reach directly is touched (RAM, ROM, plain device memory): reading a
//! device's registers could change what the device does.

use crate::cpu::Vcpu;
use crate::cpu::bus::{Bus, PAGE_SIZE};
use crate::cpu::descriptor::{DESCRIPTOR_SIZE, Descriptor};
use crate::cpu::registers::selector;
use crate::cpu::{Seg, Segment};
use ipc::inspect::Address;
use ipc::width::Width;
use std::fmt::Write as _;

/// Bytes in a line of a dump.
const LINE: usize = 16;

/// An [`Address`] that has been looked up: what stands for its first byte, and how to go on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A linear address.
    Linear(u32),
    /// A physical address.
    Physical(u64),
    /// An offset into a segment with this selector, base and default size.
    Segment {
        /// The selector, for display.
        selector: u16,
        /// Linear address of offset zero.
        base: u32,
        /// D/B: 32-bit code.
        wide: bool,
        /// The offset.
        offset: u32,
    },
}

impl Place {
    /// Looks an address up. `None` for a selector that names no descriptor.
    pub fn find<B: Bus>(cpu: &mut Vcpu<B>, address: Address) -> Option<Self> {
        Some(match address {
            Address::Linear(linear) => Self::Linear(linear),
            Address::Physical(physical) => Self::Physical(physical),
            Address::Segmented { selector, offset } => {
                let segment = segment(cpu, selector)?;
                Self::Segment { selector, base: segment.base(), wide: segment.big(), offset }
            }
        })
    }

    /// The instruction to be executed next.
    pub fn next_instruction<B: Bus>(cpu: &Vcpu<B>) -> Self {
        let cs = cpu.state.segment(Seg::Cs);
        Self::Segment { selector: cs.selector, base: cs.base(), wide: cs.big(), offset: cpu.state.eip }
    }

    /// The place `bytes` further on.
    pub fn after(self, bytes: u32) -> Self {
        match self {
            Self::Linear(linear) => Self::Linear(linear.wrapping_add(bytes)),
            Self::Physical(physical) => Self::Physical(physical.wrapping_add(bytes.into())),
            Self::Segment { selector, base, wide, offset } => {
                let offset = offset.wrapping_add(bytes);
                let offset = if wide { offset } else { offset & 0xffff };
                Self::Segment { selector, base, wide, offset }
            }
        }
    }

    /// Its physical address; `None` where no page is mapped.
    pub fn physical<B: Bus>(self, cpu: &mut Vcpu<B>) -> Option<u64> {
        match self {
            Self::Linear(linear) => cpu.debug_translate(linear),
            Self::Physical(physical) => Some(physical),
            Self::Segment { base, offset, .. } => cpu.debug_translate(base.wrapping_add(offset)),
        }
    }

    /// One byte; `None` where there is no plain memory.
    pub fn read<B: Bus>(self, cpu: &mut Vcpu<B>) -> Option<u8> {
        let physical = self.physical(cpu)?;
        read_physical(cpu, physical)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Linear(linear) => write!(f, "{linear:08x}"),
            Self::Physical(physical) => write!(f, "phys:{physical:08x}"),
            Self::Segment { selector, wide: true, offset, .. } => write!(f, "{selector:04x}:{offset:08x}"),
            Self::Segment { selector, offset, .. } => write!(f, "{selector:04x}:{offset:04x}"),
        }
    }
}

/// What loading `selector` now would give, rights aside: a register that holds it, or its descriptor.
fn segment<B: Bus>(cpu: &mut Vcpu<B>, selector: u16) -> Option<Segment> {
    if !cpu.descriptors_used() {
        return Some(Segment::v86_mode(selector));
    }
    if let Some(loaded) = cpu.state.segments.iter().find(|s| s.selector == selector && s.usable()) {
        return Some(*loaded);
    }
    let (base, limit) = if selector & selector::TI != 0 {
        (cpu.state.ldtr.base(), cpu.state.ldtr.limit())
    } else {
        (cpu.state.gdtr.base, u32::from(cpu.state.gdtr.limit))
    };
    let offset = u32::from(selector & selector::OFFSET);
    if offset + (DESCRIPTOR_SIZE - 1) > limit {
        return None;
    }
    let mut bytes = [0; DESCRIPTOR_SIZE as usize];
    if read_linear(cpu, base.wrapping_add(offset), &mut bytes) < bytes.len() {
        return None;
    }
    let raw = u64::from_le_bytes(bytes);
    Some(Descriptor { low: raw as u32, high: (raw >> 32) as u32 }.segment(selector))
}

/// One byte of physical memory; `None` where there is no plain memory.
pub fn read_physical<B: Bus>(cpu: &mut Vcpu<B>, physical: u64) -> Option<u8> {
    cpu.bus.page(physical & !(PAGE_SIZE - 1)).read?;
    Some(cpu.bus.read_memory(physical, Width::Byte) as u8)
}

/// Writes one byte of physical memory; decoded code of it is dropped before the guest goes on. False
/// where there is no memory that can be written.
pub fn write_physical<B: Bus>(cpu: &mut Vcpu<B>, physical: u64, value: u8) -> bool {
    if cpu.bus.page(physical & !(PAGE_SIZE - 1)).write.is_none() {
        return false;
    }
    cpu.bus.write_memory(physical, Width::Byte, value.into());
    cpu.code.note_write(physical, 1);
    true
}

/// Reads linear memory as far as it is there; returns the number of bytes read.
pub fn read_linear<B: Bus>(cpu: &mut Vcpu<B>, linear: u32, data: &mut [u8]) -> usize {
    for (i, byte) in data.iter_mut().enumerate() {
        match Place::Linear(linear.wrapping_add(i as u32)).read(cpu) {
            Some(value) => *byte = value,
            None => return i,
        }
    }
    data.len()
}

/// Writes linear memory, all of it or nothing. False where it cannot be written.
pub fn write_linear<B: Bus>(cpu: &mut Vcpu<B>, linear: u32, data: &[u8]) -> bool {
    let mut places = Vec::with_capacity(data.len());
    for i in 0..data.len() {
        let Some(physical) = cpu.debug_translate(linear.wrapping_add(i as u32)) else { return false };
        if cpu.bus.page(physical & !(PAGE_SIZE - 1)).write.is_none() {
            return false;
        }
        places.push(physical);
    }
    data.iter().zip(places).for_each(|(byte, physical)| {
        write_physical(cpu, physical, *byte);
    });
    true
}

/// A dump in hexadecimal and ASCII; `??` where there is no plain memory.
pub fn dump<B: Bus>(cpu: &mut Vcpu<B>, start: Place, len: u32) -> String {
    let mut out = String::new();
    let mut place = start;
    let mut left = len as usize;
    while left > 0 {
        let count = left.min(LINE);
        let bytes: Vec<Option<u8>> = (0..count).map(|i| place.after(i as u32).read(cpu)).collect();
        let (mut hex, mut text) = (String::new(), String::new());
        for (i, byte) in bytes.iter().enumerate() {
            hex.push_str(if i == LINE / 2 { "  " } else { " " });
            match byte {
                // Writing to a string cannot fail.
                Some(byte) => _ = write!(hex, "{byte:02x}"),
                None => hex.push_str("??"),
            }
            text.push(match byte {
                Some(byte @ 0x20..=0x7e) => char::from(*byte),
                _ => '.',
            });
        }
        _ = writeln!(out, "{place} {hex:<49}  {text}");
        place = place.after(count as u32);
        left -= count;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::testing::{DEVICE_PAGE, at, protected, sel, vcpu};

    #[test]
    fn a_dump_shows_bytes_and_text_and_leaves_devices_alone() {
        let mut cpu = vcpu();
        cpu.bus.load(0x7c00, b"Hello, guest memory\0");
        let text = dump(&mut cpu, Place::Linear(0x7c00), 18);
        assert_eq!(
            text,
            "00007c00  48 65 6c 6c 6f 2c 20 67  75 65 73 74 20 6d 65 6d  Hello, guest mem\n\
             00007c10  6f 72                                             or\n"
        );
        let device = dump(&mut cpu, Place::Physical(DEVICE_PAGE), 4);
        assert!(device.starts_with("phys:fee00000  ?? ?? ?? ?? "), "{device}");
        assert!(cpu.bus.device_log.is_empty());
    }

    #[test]
    fn selectors_are_looked_up_as_the_mode_says() {
        let mut cpu = vcpu();
        let real = Address::Segmented { selector: 0x1234, offset: 0x10 };
        assert_eq!(
            Place::find(&mut cpu, real),
            Some(Place::Segment { selector: 0x1234, base: 0x12340, wide: false, offset: 0x10 })
        );
        let mut cpu = protected();
        let place = |cpu: &mut Vcpu<_>, selector| {
            Place::find(cpu, Address::Segmented { selector, offset: 0 }).map(|place| match place {
                Place::Segment { base, wide, .. } => (base, wide),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(place(&mut cpu, sel::CODE0), Some((0, true)));
        assert_eq!(place(&mut cpu, sel::CODE16), Some((0, false)));
        assert_eq!(place(&mut cpu, sel::TSS_B), Some((at::TSS_B, false)));
        assert_eq!(place(&mut cpu, 0x7ff8), None);
    }

    #[test]
    fn linear_memory_is_written_through_page_tables_and_only_where_it_is_mapped() {
        let mut cpu = protected();
        cpu.enable_paging();
        cpu.set_pte(0x20_0000, 0x30_0000 | 7);
        cpu.set_pte(0x20_1000, 0);
        assert!(write_linear(&mut cpu, 0x20_0ffe, &[0x12, 0x34]));
        assert_eq!(cpu.bus.peek16(0x30_0ffe), 0x3412);
        assert!(!write_linear(&mut cpu, 0x20_0fff, &[0xff, 0xff]));
        assert_eq!(cpu.bus.peek16(0x30_0ffe), 0x3412);
        let mut data = [0; 4];
        assert_eq!(read_linear(&mut cpu, 0x20_0ffe, &mut data), 2);
        assert_eq!(cpu.pte(0x20_0000), 0x30_0000 | 7, "a debugger sets no accessed bit");
    }
}
