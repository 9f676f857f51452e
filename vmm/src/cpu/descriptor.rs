//! Segment and gate descriptors as they stand in memory (SDM vol. 3, "Protected-Mode Memory Management").

use super::Vcpu;
use super::bus::Bus;
use super::fault::{Exec, Fault};
use super::registers::{rights, selector};
use super::state::Segment;

/// System descriptor types.
pub mod system_type {
    /// 16-bit TSS, available.
    pub const TSS16_AVAILABLE: u16 = 1;
    /// Local descriptor table.
    pub const LDT: u16 = 2;
    /// 16-bit TSS, busy.
    pub const TSS16_BUSY: u16 = 3;
    /// 16-bit call gate.
    pub const CALL_GATE16: u16 = 4;
    /// Task gate.
    pub const TASK_GATE: u16 = 5;
    /// 16-bit interrupt gate.
    pub const INTERRUPT_GATE16: u16 = 6;
    /// 16-bit trap gate.
    pub const TRAP_GATE16: u16 = 7;
    /// 32-bit TSS, available.
    pub const TSS32_AVAILABLE: u16 = 9;
    /// 32-bit TSS, busy.
    pub const TSS32_BUSY: u16 = 11;
    /// 32-bit call gate.
    pub const CALL_GATE32: u16 = 12;
    /// 32-bit interrupt gate.
    pub const INTERRUPT_GATE32: u16 = 14;
    /// 32-bit trap gate.
    pub const TRAP_GATE32: u16 = 15;
    /// Bit that tells a 32-bit gate or TSS from a 16-bit one.
    pub const WIDE: u16 = 8;
    /// Bit that tells a busy TSS from an available one.
    pub const BUSY: u16 = 2;
}

/// Bytes of a descriptor.
pub const DESCRIPTOR_SIZE: u32 = 8;

/// Eight bytes of a descriptor table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes 0 to 3.
    pub low: u32,
    /// Bytes 4 to 7.
    pub high: u32,
}

impl Descriptor {
    /// The attributes, as [`Segment::rights`] holds them.
    pub const fn rights(self) -> u16 {
        (self.high >> 8) as u16 & rights::DEFINED
    }

    /// Linear address of the segment.
    pub const fn base(self) -> u32 {
        self.low >> 16 | (self.high & 0xff) << 16 | self.high & 0xff00_0000
    }

    /// The limit in bytes.
    pub const fn limit(self) -> u32 {
        let limit = self.low & 0xffff | self.high & 0x000f_0000;
        if self.rights() & rights::GRANULAR != 0 { limit << 12 | 0xfff } else { limit }
    }

    /// The descriptor is present.
    pub const fn present(self) -> bool {
        self.rights() & rights::PRESENT != 0
    }

    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        ((self.rights() & rights::DPL) >> rights::DPL_SHIFT) as u8
    }

    /// Not a code or data segment.
    pub const fn is_system(self) -> bool {
        self.rights() & rights::NOT_SYSTEM == 0
    }

    /// For system descriptors: one of [`system_type`].
    pub const fn system_type(self) -> u16 {
        self.rights() & rights::TYPE
    }

    /// A code segment.
    pub const fn is_code(self) -> bool {
        !self.is_system() && self.rights() & rights::CODE != 0
    }

    /// A data segment.
    pub const fn is_data(self) -> bool {
        !self.is_system() && self.rights() & rights::CODE == 0
    }

    /// A data segment that can be written.
    pub const fn is_writable_data(self) -> bool {
        self.is_data() && self.rights() & rights::WRITABLE != 0
    }

    /// A code segment that keeps the caller's privilege level.
    pub const fn is_conforming(self) -> bool {
        self.is_code() && self.rights() & rights::CONFORMING != 0
    }

    /// A segment that can be read.
    pub const fn is_readable(self) -> bool {
        self.is_data() || self.is_code() && self.rights() & rights::READABLE != 0
    }

    /// Whether the type of a TSS or gate is one of the 32-bit ones.
    pub const fn is_wide(self) -> bool {
        self.system_type() & system_type::WIDE != 0
    }

    /// A TSS of either size that is not busy.
    pub const fn is_available_tss(self) -> bool {
        self.is_system()
            && matches!(self.system_type(), system_type::TSS16_AVAILABLE | system_type::TSS32_AVAILABLE)
    }

    /// A TSS of either size that is busy.
    pub const fn is_busy_tss(self) -> bool {
        self.is_system() && matches!(self.system_type(), system_type::TSS16_BUSY | system_type::TSS32_BUSY)
    }

    /// Gates: selector of the target.
    pub const fn gate_selector(self) -> u16 {
        (self.low >> 16) as u16
    }

    /// Call, interrupt and trap gates: offset of the target.
    pub const fn gate_offset(self) -> u32 {
        if self.is_wide() { self.low & 0xffff | self.high & 0xffff_0000 } else { self.low & 0xffff }
    }

    /// Call gates: how many parameters are copied to the inner stack.
    pub const fn gate_parameters(self) -> u32 {
        self.high & 0x1f
    }

    /// What a segment register holds after loading this through `selector`.
    pub const fn segment(self, selector: u16) -> Segment {
        Segment::new(selector, self.rights(), self.base(), self.limit())
    }
}

/// Whether a selector is null (index 0 of the GDT, any RPL).
pub const fn is_null(selector: u16) -> bool {
    selector & !selector::RPL == 0
}

/// Requested privilege level of a selector.
pub const fn rpl(selector: u16) -> u8 {
    (selector & selector::RPL) as u8
}

/// Error code that names a selector.
pub const fn error_code(selector: u16) -> u32 {
    (selector & !selector::RPL) as u32
}

impl<B: Bus> Vcpu<B> {
    /// Linear address of a selector's descriptor; `None` when it is outside its table.
    pub(super) fn descriptor_address(&self, selector: u16) -> Option<u32> {
        let offset = u32::from(selector & selector::OFFSET);
        let last = offset + DESCRIPTOR_SIZE - 1;
        if selector & selector::TI != 0 {
            let ldtr = &self.state.ldtr;
            (ldtr.usable() && last <= ldtr.limit()).then(|| ldtr.base().wrapping_add(offset))
        } else {
            let gdtr = &self.state.gdtr;
            (last <= u32::from(gdtr.limit)).then(|| gdtr.base.wrapping_add(offset))
        }
    }

    pub(super) fn read_descriptor_at(&mut self, address: u32) -> Exec<Descriptor> {
        let raw = self.read_linear_u64(address)?;
        Ok(Descriptor { low: raw as u32, high: (raw >> 32) as u32 })
    }

    /// Linear address and bytes of a selector's descriptor (also of the null one), if it can be read.
    pub fn descriptor_bytes(&mut self, selector: u16) -> Option<(u32, u64)> {
        let address = self.descriptor_address(selector)?;
        Some((address, self.read_linear_u64(address).ok()?))
    }

    /// Reads a selector's descriptor; outside its table raises `vector` with the selector.
    pub(super) fn descriptor(&mut self, selector: u16, vector: u8) -> Exec<Descriptor> {
        match self.descriptor_address(selector) {
            Some(address) => self.read_descriptor_at(address),
            None => Err(Fault::with_code(vector, error_code(selector))),
        }
    }

    /// Sets the accessed bit of a code or data descriptor in memory, if it is not set, and gives
    /// the descriptor as it is then.
    pub(super) fn mark_accessed(&mut self, selector: u16, descriptor: Descriptor) -> Exec<Descriptor> {
        const ACCESSED: u32 = (rights::ACCESSED as u32) << 8;
        if descriptor.high & ACCESSED != 0 {
            return Ok(descriptor);
        }
        let marked = Descriptor { high: descriptor.high | ACCESSED, ..descriptor };
        if let Some(address) = self.descriptor_address(selector) {
            self.write_linear_u32(address.wrapping_add(4), marked.high)?;
        }
        Ok(marked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_code_descriptor_is_decoded() {
        let flat = Descriptor { low: 0x0000_ffff, high: 0x00cf_9a00 };
        assert_eq!((flat.base(), flat.limit(), flat.dpl()), (0, u32::MAX, 0));
        assert!(flat.is_code() && flat.present() && flat.is_readable() && !flat.is_conforming());
        assert!(flat.segment(8).big());
    }

    #[test]
    fn scattered_base_and_limit_are_joined() {
        let data = Descriptor { low: 0x5678_4321, high: 0x120f_f234 };
        assert_eq!((data.base(), data.limit(), data.dpl()), (0x1234_5678, 0xf_4321, 3));
        assert!(data.is_writable_data());
    }

    #[test]
    fn gate_fields_depend_on_its_width() {
        let wide = Descriptor { low: 0x0008_5678, high: 0x1234_8c03 };
        assert_eq!((wide.gate_selector(), wide.gate_offset(), wide.gate_parameters()), (8, 0x1234_5678, 3));
        let narrow = Descriptor { high: 0x1234_8403, ..wide };
        assert_eq!(narrow.gate_offset(), 0x5678);
    }
}
