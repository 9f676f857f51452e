//! Task switches (SDM vol. 3, "Task Management").

use super::descriptor::{Descriptor, error_code, is_null, rpl, system_type};
use super::fault::{Exec, Fault};
use super::registers::{Seg, cr0, dr6, dr7, eflags, selector, vector};
use super::state::Segment;
use super::tlb::Mode;
use super::{Vcpu, bus::Bus};

/// What made the switch: it decides about busy bits, the back link and NT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TaskSwitch {
    /// JMP.
    Jump,
    /// CALL.
    Call,
    /// IRET with NT.
    Return,
    /// Interrupt or exception; the flags to save (RF may have been added).
    Interrupt {
        /// EFLAGS as saved in the old TSS.
        flags: u32,
    },
}

impl TaskSwitch {
    /// The new task can return to the old one.
    fn nests(self) -> bool {
        matches!(self, TaskSwitch::Call | TaskSwitch::Interrupt { .. })
    }
}

/// Busy bit of a TSS in the second dword of its descriptor.
const BUSY: u32 = (system_type::BUSY as u32) << 8;

/// Field offsets of the 32-bit TSS.
mod tss32 {
    pub(super) const CR3: u32 = 0x1c;
    pub(super) const EIP: u32 = 0x20;
    pub(super) const EFLAGS: u32 = 0x24;
    pub(super) const GPR: u32 = 0x28;
    pub(super) const SEGMENTS: u32 = 0x48;
    pub(super) const LDT: u32 = 0x60;
    pub(super) const TRAP: u32 = 0x64;
    /// Smallest limit.
    pub(super) const LIMIT: u32 = 0x67;
    /// What a switch writes: EIP up to GS.
    pub(super) const SAVED: u32 = LDT - EIP;
}

/// Field offsets of the 16-bit TSS.
mod tss16 {
    pub(super) const IP: u32 = 0x0e;
    pub(super) const FLAGS: u32 = 0x10;
    pub(super) const GPR: u32 = 0x12;
    pub(super) const SEGMENTS: u32 = 0x22;
    pub(super) const LDT: u32 = 0x2a;
    /// Smallest limit.
    pub(super) const LIMIT: u32 = 0x2b;
    /// What a switch writes: IP up to DS.
    pub(super) const SAVED: u32 = LDT - IP;
}

/// The dynamic part of a TSS, width forgotten.
struct Context {
    cr3: Option<u32>,
    eip: u32,
    eflags: u32,
    gpr: [u32; 8],
    /// In the order of [`Seg`].
    segments: [u16; 6],
    ldt: u16,
    trap: bool,
}

fn is_wide(tss: &Segment) -> bool {
    tss.rights() & system_type::WIDE != 0
}

impl<B: Bus> Vcpu<B> {
    /// Switches to the task whose TSS `tss` selects. `external` is the EXT bit for error codes.
    ///
    /// What the instruction or gate itself demands (privilege, presence of the gate) has been checked.
    pub(super) fn switch_task(&mut self, tss: u16, kind: TaskSwitch, external: u32) -> Exec {
        let (address, descriptor) = self.tss_descriptor(tss, kind).map_err(|fault| fault.adding(external))?;
        let new = descriptor.segment(tss);
        let old = self.state.tr;
        if !old.usable() {
            return Err(Fault::ts(error_code(old.selector) | external));
        }

        // Everything that may fault in the old task comes before the first change.
        let context = self.read_context(&new)?;
        let (saved_at, saved_len) =
            if is_wide(&old) { (tss32::EIP, tss32::SAVED) } else { (tss16::IP, tss16::SAVED) };
        self.probe_supervisor_write(old.base().wrapping_add(saved_at), saved_len)?;
        self.probe_supervisor_write(address, 8)?;
        let old_descriptor = self.descriptor_address(old.selector);
        if let Some(at) = old_descriptor {
            self.probe_supervisor_write(at, 8)?;
        }
        if kind.nests() {
            self.probe_supervisor_write(new.base(), 2)?;
        }

        let mut flags = match kind {
            TaskSwitch::Interrupt { flags } => flags,
            _ => self.flags(),
        };
        if kind == TaskSwitch::Return {
            flags &= !eflags::NT;
        }
        self.write_context(&old, flags)?;
        if !kind.nests()
            && let Some(at) = old_descriptor
        {
            let high = self.read_linear_u32(at.wrapping_add(4))?;
            self.write_linear_u32(at.wrapping_add(4), high & !BUSY)?;
        }
        if kind.nests() {
            self.write_linear_u16(new.base(), old.selector)?;
        }
        if kind != TaskSwitch::Return {
            self.write_linear_u32(address.wrapping_add(4), descriptor.high | BUSY)?;
        }

        self.state.cr0 |= cr0::TS;
        self.state.tr = Segment::new(tss, new.rights() | system_type::BUSY, new.base(), new.limit());
        self.load_context(context, kind).map_err(|fault| fault.adding(external).after_switch())
    }

    /// Address and content of the descriptor of a TSS that may be switched to.
    fn tss_descriptor(&mut self, tss: u16, kind: TaskSwitch) -> Exec<(u32, Descriptor)> {
        let vector = if kind == TaskSwitch::Return { vector::TS } else { vector::GP };
        let invalid = Fault::with_code(vector, error_code(tss));
        if is_null(tss) || tss & selector::TI != 0 {
            return Err(invalid);
        }
        let address = self.descriptor_address(tss).ok_or(invalid)?;
        let descriptor = self.read_descriptor_at(address)?;
        let fits =
            if kind == TaskSwitch::Return { descriptor.is_busy_tss() } else { descriptor.is_available_tss() };
        if !fits {
            return Err(invalid);
        }
        if !descriptor.present() {
            return Err(Fault::np(error_code(tss)));
        }
        let smallest = if descriptor.is_wide() { tss32::LIMIT } else { tss16::LIMIT };
        if descriptor.limit() < smallest {
            return Err(Fault::ts(error_code(tss)));
        }
        Ok((address, descriptor))
    }

    fn probe_supervisor_write(&mut self, linear: u32, len: u32) -> Exec {
        self.translate(linear, true, Mode::Supervisor)?;
        self.translate(linear.wrapping_add(len - 1), true, Mode::Supervisor)?;
        Ok(())
    }

    fn read_context(&mut self, tss: &Segment) -> Exec<Context> {
        let base = tss.base();
        let at = |offset: u32| base.wrapping_add(offset);
        let mut gpr = [0; 8];
        let mut segments = [0; 6];
        if is_wide(tss) {
            for (register, offset) in gpr.iter_mut().zip((tss32::GPR..).step_by(4)) {
                *register = self.read_linear_u32(at(offset))?;
            }
            for (segment, offset) in segments.iter_mut().zip((tss32::SEGMENTS..).step_by(4)) {
                *segment = self.read_linear_u16(at(offset))?;
            }
            Ok(Context {
                cr3: Some(self.read_linear_u32(at(tss32::CR3))?),
                eip: self.read_linear_u32(at(tss32::EIP))?,
                eflags: self.read_linear_u32(at(tss32::EFLAGS))?,
                gpr,
                segments,
                ldt: self.read_linear_u16(at(tss32::LDT))?,
                trap: self.read_linear_u16(at(tss32::TRAP))? & 1 != 0,
            })
        } else {
            for (register, offset) in gpr.iter_mut().zip((tss16::GPR..).step_by(2)) {
                // The high halves of the registers are undefined after a 16-bit switch.
                *register = 0xffff_0000 | u32::from(self.read_linear_u16(at(offset))?);
            }
            for (segment, offset) in segments.iter_mut().take(4).zip((tss16::SEGMENTS..).step_by(2)) {
                *segment = self.read_linear_u16(at(offset))?;
            }
            Ok(Context {
                cr3: None,
                eip: u32::from(self.read_linear_u16(at(tss16::IP))?),
                eflags: u32::from(self.read_linear_u16(at(tss16::FLAGS))?),
                gpr,
                segments,
                ldt: self.read_linear_u16(at(tss16::LDT))?,
                trap: false,
            })
        }
    }

    fn write_context(&mut self, tss: &Segment, flags: u32) -> Exec {
        let base = tss.base();
        let at = |offset: u32| base.wrapping_add(offset);
        let (eip, gpr) = (self.state.eip, self.state.gpr);
        let selectors = self.state.segments.map(|segment| segment.selector);
        if is_wide(tss) {
            self.write_linear_u32(at(tss32::EIP), eip)?;
            self.write_linear_u32(at(tss32::EFLAGS), flags)?;
            for (register, offset) in gpr.into_iter().zip((tss32::GPR..).step_by(4)) {
                self.write_linear_u32(at(offset), register)?;
            }
            for (segment, offset) in selectors.into_iter().zip((tss32::SEGMENTS..).step_by(4)) {
                self.write_linear_u16(at(offset), segment)?;
            }
        } else {
            self.write_linear_u16(at(tss16::IP), eip as u16)?;
            self.write_linear_u16(at(tss16::FLAGS), flags as u16)?;
            for (register, offset) in gpr.into_iter().zip((tss16::GPR..).step_by(2)) {
                self.write_linear_u16(at(offset), register as u16)?;
            }
            for (segment, offset) in selectors.into_iter().take(4).zip((tss16::SEGMENTS..).step_by(2)) {
                self.write_linear_u16(at(offset), segment)?;
            }
        }
        Ok(())
    }

    /// Loads the new task's registers. Faults belong to the new task, with what was not yet loaded unusable.
    fn load_context(&mut self, context: Context, kind: TaskSwitch) -> Exec {
        let address_space = match context.cr3 {
            Some(cr3) if self.state.cr0 & cr0::PG != 0 => self.set_cr3(cr3),
            _ => Ok(()),
        };
        self.state.dr[7] &= !dr7::LOCAL_ENABLES;
        self.state.eip = context.eip;
        self.state.gpr = context.gpr;
        self.set_flags(context.eflags | if kind.nests() { eflags::NT } else { 0 });
        for (register, selector) in self.state.segments.iter_mut().zip(context.segments) {
            *register = Segment::null(selector);
        }
        self.state.ldtr = Segment::null(context.ldt);
        let v86 = self.v86();
        self.set_cpl(if v86 { 3 } else { rpl(context.segments[Seg::Cs as usize]) });
        if context.trap {
            self.state.pending_debug |= dr6::BT;
        }
        // Not valid for PAE paging: the new task begins with that.
        address_space?;

        self.load_task_ldt(context.ldt)?;
        if v86 {
            self.state.segments = context.segments.map(Segment::v86_mode);
        } else {
            let [es, cs, ss, ds, fs, gs] = context.segments;
            // The stack first (SDM 3A, table 7-1): the handler of a bad code segment needs one.
            self.state.segments[Seg::Ss as usize] = self.stack_segment(ss, self.cpl(), vector::TS)?;
            let code = self.task_code_segment(cs)?;
            self.state.segments[Seg::Cs as usize] = code;
            for (seg, selector) in [(Seg::Es, es), (Seg::Ds, ds), (Seg::Fs, fs), (Seg::Gs, gs)] {
                self.state.segments[seg as usize] = self.data_segment(selector, vector::TS)?;
            }
        }
        if self.state.eip > self.state.segment(Seg::Cs).limit() {
            return Err(Fault::gp(0));
        }
        Ok(())
    }

    fn load_task_ldt(&mut self, ldt: u16) -> Exec {
        if is_null(ldt) {
            return Ok(());
        }
        let invalid = Fault::ts(error_code(ldt));
        if ldt & selector::TI != 0 {
            return Err(invalid);
        }
        let descriptor = self.descriptor(ldt, vector::TS)?;
        if !descriptor.is_system() || descriptor.system_type() != system_type::LDT || !descriptor.present() {
            return Err(invalid);
        }
        self.state.ldtr = descriptor.segment(ldt);
        Ok(())
    }

    fn task_code_segment(&mut self, cs: u16) -> Exec<Segment> {
        let invalid = Fault::ts(error_code(cs));
        if is_null(cs) {
            return Err(invalid);
        }
        let descriptor = self.descriptor(cs, vector::TS)?;
        let level = rpl(cs);
        let fits = if descriptor.is_conforming() {
            descriptor.dpl() <= level
        } else {
            descriptor.is_code() && descriptor.dpl() == level
        };
        if !fits {
            return Err(invalid);
        }
        if !descriptor.present() {
            return Err(Fault::np(error_code(cs)));
        }
        Ok(self.mark_accessed(cs, descriptor)?.segment(cs))
    }
}
