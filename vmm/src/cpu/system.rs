//! System instructions: control and debug registers, descriptor table registers, flags with
//! privilege, and the rest that only an operating system uses (SDM vol. 2 and vol. 3).

use super::descriptor::{error_code, is_null, system_type};
use super::fault::{Exec, Fault};
use super::registers::{Seg, cr0, cr3, cr4, dr6, dr7, eflags, gpr, selector, vector};
use super::state::{Activity, InterruptShadow, Segment, TableRegister};
use super::{Vcpu, bus::Bus};

/// Ticks of the time-stamp counter in a second of virtual time.
pub const TSC_HZ: u64 = 450_000_000;

/// Base address bits that LGDT and LIDT load with a 16-bit operand size.
const BASE_24: u32 = 0x00ff_ffff;

/// Whether PAE paging is on.
const fn pae_paging(cr0: u32, cr4: u32) -> bool {
    cr0 & cr0::PG != 0 && cr4 & cr4::PAE != 0
}

impl<B: Bus> Vcpu<B> {
    /// #GP(0) unless at privilege level 0.
    #[inline]
    pub(super) fn demand_cpl0(&self) -> Exec {
        if self.cpl() == 0 { Ok(()) } else { Err(Fault::gp(0)) }
    }

    /// MOV r32, CRn.
    pub fn mov_from_cr(&self, number: u8) -> Exec<u32> {
        let value = match number {
            0 => self.state.cr0,
            2 => self.state.cr2,
            3 => self.state.cr3,
            4 => self.state.cr4,
            _ => return Err(Fault::ud()),
        };
        self.demand_cpl0()?;
        Ok(value)
    }

    /// MOV CRn, r32.
    pub fn mov_to_cr(&mut self, number: u8, value: u32) -> Exec {
        if !matches!(number, 0 | 2 | 3 | 4) {
            return Err(Fault::ud());
        }
        self.demand_cpl0()?;
        match number {
            0 => self.set_cr0(value),
            2 => {
                self.state.cr2 = value;
                Ok(())
            }
            3 => self.set_cr3(value),
            _ => self.set_cr4(value),
        }
    }

    fn set_cr0(&mut self, value: u32) -> Exec {
        let new = value & cr0::WRITABLE | cr0::ET;
        let paging_alone = new & (cr0::PG | cr0::PE) == cr0::PG;
        let write_through_alone = new & (cr0::NW | cr0::CD) == cr0::NW;
        if paging_alone || write_through_alone {
            return Err(Fault::gp(0));
        }
        let changed = self.state.cr0 ^ new;
        if changed & (cr0::PG | cr0::CD | cr0::NW) != 0 && pae_paging(new, self.state.cr4) {
            self.load_pointers(self.state.cr3)?;
        }
        if changed & (cr0::PG | cr0::PE | cr0::WP) != 0 {
            self.tlb.flush_all();
        }
        self.state.cr0 = new;
        self.update_mode();
        Ok(())
    }

    /// Changes CR3: everything but global pages is forgotten. #GP(0) when the directory pointers that PAE
    /// paging would have to load are not valid.
    pub(super) fn set_cr3(&mut self, value: u32) -> Exec {
        if pae_paging(self.state.cr0, self.state.cr4) {
            self.load_pointers(value)?;
        }
        self.state.cr3 = value & cr3::WRITABLE;
        self.tlb.flush_local();
        Ok(())
    }

    fn set_cr4(&mut self, value: u32) -> Exec {
        if value & !self.state.model.cr4() != 0 {
            return Err(Fault::gp(0));
        }
        if (self.state.cr4 ^ value) & (cr4::PSE | cr4::PGE | cr4::PAE) != 0 {
            if pae_paging(self.state.cr0, value) {
                self.load_pointers(self.state.cr3)?;
            }
            self.tlb.flush_all();
        }
        self.state.cr4 = value;
        Ok(())
    }

    /// The debug register that a number names: 4 and 5 are other names of 6 and 7 without CR4.DE.
    fn debug_register(&mut self, number: u8) -> Exec<usize> {
        let number = match number {
            4 | 5 if self.state.cr4 & cr4::DE != 0 => return Err(Fault::ud()),
            4 | 5 => number + 2,
            0..=7 => number,
            _ => return Err(Fault::ud()),
        };
        self.demand_cpl0()?;
        if self.state.dr[7] & dr7::GD != 0 {
            return Err(Fault::db(dr6::BD));
        }
        Ok(usize::from(number))
    }

    /// MOV r32, DRn.
    pub fn mov_from_dr(&mut self, number: u8) -> Exec<u32> {
        let number = self.debug_register(number)?;
        Ok(self.state.dr[number])
    }

    /// MOV DRn, r32.
    pub fn mov_to_dr(&mut self, number: u8, value: u32) -> Exec {
        let number = self.debug_register(number)?;
        self.state.dr[number] = match number {
            6 => value & dr6::WRITABLE | dr6::FIXED_ONE,
            7 => value & dr7::WRITABLE | dr7::FIXED_ONE,
            _ => value,
        };
        // Pages with data breakpoints must not be accessed directly.
        self.tlb.flush_all();
        Ok(())
    }

    fn read_table_register(&mut self, seg: Seg, offset: u32, wide: bool) -> Exec<TableRegister> {
        self.demand_cpl0()?;
        let limit = self.read_u16(seg, offset)?;
        let base = self.read_u32(seg, offset.wrapping_add(2))?;
        Ok(TableRegister { limit, base: if wide { base } else { base & BASE_24 } })
    }

    fn write_table_register(&mut self, seg: Seg, offset: u32, register: TableRegister) -> Exec {
        self.probe_write(seg, offset, 6)?;
        self.write_u16(seg, offset, register.limit)?;
        self.write_u32(seg, offset.wrapping_add(2), register.base)
    }

    /// LGDT; `wide` is the operand size.
    pub fn lgdt(&mut self, seg: Seg, offset: u32, wide: bool) -> Exec {
        self.state.gdtr = self.read_table_register(seg, offset, wide)?;
        Ok(())
    }

    /// LIDT; `wide` is the operand size.
    pub fn lidt(&mut self, seg: Seg, offset: u32, wide: bool) -> Exec {
        self.state.idtr = self.read_table_register(seg, offset, wide)?;
        Ok(())
    }

    /// SGDT. All 32 bits of the base are stored with either operand size, as every processor since the 386 does.
    pub fn sgdt(&mut self, seg: Seg, offset: u32) -> Exec {
        self.write_table_register(seg, offset, self.state.gdtr)
    }

    /// SIDT.
    pub fn sidt(&mut self, seg: Seg, offset: u32) -> Exec {
        self.write_table_register(seg, offset, self.state.idtr)
    }

    /// #UD in real and virtual-8086 mode, where SLDT, LTR and their like do not exist.
    fn demand_descriptors(&self) -> Exec {
        if self.descriptors_used() { Ok(()) } else { Err(Fault::ud()) }
    }

    /// SLDT.
    pub fn sldt(&self) -> Exec<u16> {
        self.demand_descriptors()?;
        Ok(self.state.ldtr.selector)
    }

    /// STR.
    pub fn str(&self) -> Exec<u16> {
        self.demand_descriptors()?;
        Ok(self.state.tr.selector)
    }

    /// LLDT.
    pub fn lldt(&mut self, selector: u16) -> Exec {
        self.demand_descriptors()?;
        self.demand_cpl0()?;
        if is_null(selector) {
            self.state.ldtr = Segment::null(selector);
            return Ok(());
        }
        let invalid = Fault::gp(error_code(selector));
        if selector & selector::TI != 0 {
            return Err(invalid);
        }
        let descriptor = self.descriptor(selector, vector::GP)?;
        if !descriptor.is_system() || descriptor.system_type() != system_type::LDT {
            return Err(invalid);
        }
        if !descriptor.present() {
            return Err(Fault::np(error_code(selector)));
        }
        self.state.ldtr = descriptor.segment(selector);
        Ok(())
    }

    /// LTR.
    pub fn ltr(&mut self, selector: u16) -> Exec {
        const BUSY: u32 = (system_type::BUSY as u32) << 8;
        self.demand_descriptors()?;
        self.demand_cpl0()?;
        let invalid = Fault::gp(error_code(selector));
        if is_null(selector) || selector & selector::TI != 0 {
            return Err(invalid);
        }
        let address = self.descriptor_address(selector).ok_or(invalid)?;
        let descriptor = self.read_descriptor_at(address)?;
        if !descriptor.is_available_tss() {
            return Err(invalid);
        }
        if !descriptor.present() {
            return Err(Fault::np(error_code(selector)));
        }
        self.write_linear_u32(address.wrapping_add(4), descriptor.high | BUSY)?;
        let tss = descriptor.segment(selector);
        self.state.tr = Segment::new(selector, tss.rights() | system_type::BUSY, tss.base(), tss.limit());
        Ok(())
    }

    /// SMSW: all of CR0; with a 16-bit destination the engine stores the low half.
    pub fn smsw(&self) -> u32 {
        self.state.cr0
    }

    /// LMSW: it can set PE but not clear it.
    pub fn lmsw(&mut self, value: u16) -> Exec {
        self.demand_cpl0()?;
        let value = u32::from(value) & cr0::LMSW;
        let kept = self.state.cr0 & !(cr0::LMSW & !cr0::PE);
        self.set_cr0(kept | value)
    }

    /// CLTS.
    pub fn clts(&mut self) -> Exec {
        self.demand_cpl0()?;
        self.state.cr0 &= !cr0::TS;
        Ok(())
    }

    /// INVLPG of a memory operand; neither segment limit nor presence of the page matter.
    pub fn invlpg(&mut self, seg: Seg, offset: u32) -> Exec {
        self.demand_cpl0()?;
        self.tlb.flush_page(self.state.segment(seg).base().wrapping_add(offset));
        Ok(())
    }

    /// INVD: there is no cache to lose.
    pub fn invd(&self) -> Exec {
        self.demand_cpl0()
    }

    /// WBINVD: there is no cache to write back.
    pub fn wbinvd(&self) -> Exec {
        self.demand_cpl0()
    }

    /// HLT.
    pub fn hlt(&mut self) -> Exec {
        self.demand_cpl0()?;
        self.state.activity = Activity::Halted;
        Ok(())
    }

    /// CLI.
    pub fn cli(&mut self) -> Exec {
        self.demand_io_privilege()?;
        self.state.eflags &= !eflags::IF;
        Ok(())
    }

    /// STI: interrupts are taken after the next instruction.
    pub fn sti(&mut self) -> Exec {
        self.demand_io_privilege()?;
        if self.state.eflags & eflags::IF == 0 {
            self.state.eflags |= eflags::IF;
            self.state.interrupt_shadow = InterruptShadow::Sti;
        }
        Ok(())
    }

    /// #GP(0) when CPL is above IOPL; in virtual-8086 mode CPL is 3.
    fn demand_io_privilege(&self) -> Exec {
        if self.cpl() <= self.state.iopl() { Ok(()) } else { Err(Fault::gp(0)) }
    }

    /// Whether INTR is looked at between the last instruction and the next one.
    #[inline]
    pub fn accepts_interrupts(&self) -> bool {
        self.state.eflags & eflags::IF != 0
            && self.state.interrupt_shadow == InterruptShadow::None
            && self.state.activity != Activity::Shutdown
    }

    /// Whether a pending NMI is taken between the last instruction and the next one.
    #[inline]
    pub fn accepts_nmi(&self) -> bool {
        self.state.nmi_pending
            && !self.state.nmi_blocked
            && self.state.interrupt_shadow != InterruptShadow::MovSs
            && self.state.activity != Activity::Shutdown
    }

    /// The time-stamp counter.
    pub fn time_stamp(&mut self) -> u64 {
        self.bus.now().ticks(TSC_HZ).wrapping_add(self.state.msr.tsc_offset)
    }

    /// RDTSC: result in EDX:EAX.
    pub fn rdtsc(&mut self) -> Exec {
        if self.state.cr4 & cr4::TSD != 0 && self.cpl() != 0 {
            return Err(Fault::gp(0));
        }
        let value = self.time_stamp();
        self.set_edx_eax(value);
        Ok(())
    }

    /// RDPMC of the counter in ECX: result in EDX:EAX.
    pub fn rdpmc(&mut self) -> Exec {
        let counter = self.state.msr.perf_counter.get(self.state.gpr[gpr::ECX] as usize).copied();
        let allowed = self.cpl() == 0 || self.state.cr4 & cr4::PCE != 0;
        let value = counter.filter(|_| allowed).ok_or(Fault::gp(0))?;
        self.set_edx_eax(value);
        Ok(())
    }

    pub(super) fn set_edx_eax(&mut self, value: u64) {
        self.state.gpr[gpr::EAX] = value as u32;
        self.state.gpr[gpr::EDX] = (value >> 32) as u32;
    }

    /// Before every floating-point instruction but WAIT: #NM when the unit is emulated or belongs to another task.
    #[inline]
    pub fn check_fpu(&self) -> Exec {
        if self.state.cr0 & (cr0::EM | cr0::TS) != 0 { Err(Fault::nm()) } else { Ok(()) }
    }

    /// Before WAIT.
    #[inline]
    pub fn check_wait(&self) -> Exec {
        const BOTH: u32 = cr0::MP | cr0::TS;
        if self.state.cr0 & BOTH == BOTH { Err(Fault::nm()) } else { Ok(()) }
    }

    /// Before every instruction on MMX registers; `needed` are the features that brought it.
    #[inline(always)]
    pub fn check_mmx(&mut self, needed: u32) -> Exec {
        self.check_vector(needed)?;
        self.check_fpu_error()
    }

    /// Before every instruction on XMM registers; `needed` are the features that brought it.
    #[inline(always)]
    pub fn check_xmm(&self, needed: u32) -> Exec {
        if self.state.cr4 & cr4::OSFXSR == 0 {
            return Err(Fault::ud());
        }
        self.check_vector(needed)
    }

    /// Before every instruction on both.
    #[inline(always)]
    pub fn check_mmx_and_xmm(&mut self, needed: u32) -> Exec {
        self.check_xmm(needed)?;
        self.check_fpu_error()
    }

    /// With EM set there are no vector instructions; with TS set the registers belong to another task.
    #[inline(always)]
    fn check_vector(&self, needed: u32) -> Exec {
        let blocked = self.state.cr0 & (cr0::EM | cr0::TS);
        if !self.state.model.has(needed) || blocked & cr0::EM != 0 {
            Err(Fault::ud())
        } else if blocked != 0 {
            Err(Fault::nm())
        } else {
            Ok(())
        }
    }
}
