//! Loading segment registers, and the instructions that only ask about descriptors
//! (SDM vol. 3, "Protection"; vol. 2, MOV, LAR, LSL, VERR, ARPL).

use super::descriptor::{Descriptor, error_code, is_null, rpl, system_type};
use super::fault::{Exec, Fault};
use super::registers::{Seg, rights, selector, vector};
use super::state::{InterruptShadow, Segment};
use super::{Vcpu, bus::Bus};

impl<B: Bus> Vcpu<B> {
    /// Loads ES, SS, DS, FS or GS as MOV, POP and LDS do. (CS is #UD.)
    pub fn load_segment(&mut self, seg: Seg, selector: u16) -> Exec {
        if !self.protected_mode() && seg != Seg::Cs {
            self.state.segments[seg as usize].load_real_mode(selector);
            return Ok(());
        }
        let loaded = self.segment_for(seg, selector)?;
        self.state.segments[seg as usize] = loaded;
        Ok(())
    }

    /// MOV SS and POP SS: also holds interrupts off until the next instruction has completed.
    pub fn load_ss_with_shadow(&mut self, selector: u16) -> Exec {
        self.load_segment(Seg::Ss, selector)?;
        self.state.interrupt_shadow = InterruptShadow::MovSs;
        Ok(())
    }

    /// What loading a segment register would give, after all checks.
    pub(super) fn segment_for(&mut self, seg: Seg, selector: u16) -> Exec<Segment> {
        match seg {
            Seg::Cs => Err(Fault::ud()),
            _ if !self.protected_mode() => Ok(self.state.segment(seg).real_mode(selector)),
            _ if self.v86() => Ok(Segment::v86_mode(selector)),
            Seg::Ss => self.stack_segment(selector, self.cpl(), vector::GP),
            _ => self.data_segment(selector, vector::GP),
        }
    }

    /// Checks a selector for SS at privilege level `cpl`; `vector` is #GP, or #TS when the selector
    /// comes from a TSS.
    pub(super) fn stack_segment(&mut self, selector: u16, cpl: u8, vector: u8) -> Exec<Segment> {
        if is_null(selector) {
            return Err(Fault::with_code(vector, error_code(selector)));
        }
        let invalid = Fault::with_code(vector, error_code(selector));
        let descriptor = self.descriptor(selector, vector)?;
        if rpl(selector) != cpl || descriptor.dpl() != cpl || !descriptor.is_writable_data() {
            return Err(invalid);
        }
        if !descriptor.present() {
            return Err(Fault::ss(error_code(selector)));
        }
        Ok(self.mark_accessed(selector, descriptor)?.segment(selector))
    }

    /// Checks a selector for DS, ES, FS or GS; `vector` is #GP, or #TS in a task switch.
    pub(super) fn data_segment(&mut self, selector: u16, vector: u8) -> Exec<Segment> {
        if is_null(selector) {
            return Ok(Segment::null(selector));
        }
        let invalid = Fault::with_code(vector, error_code(selector));
        let descriptor = self.descriptor(selector, vector)?;
        if !descriptor.is_readable() {
            return Err(invalid);
        }
        if !descriptor.is_conforming() && rpl(selector).max(self.cpl()) > descriptor.dpl() {
            return Err(invalid);
        }
        if !descriptor.present() {
            return Err(Fault::np(error_code(selector)));
        }
        Ok(self.mark_accessed(selector, descriptor)?.segment(selector))
    }

    /// The descriptor that LAR, LSL, VERR and VERW look at; `None` is the answer "not visible".
    fn visible_descriptor(&mut self, selector: u16) -> Exec<Option<Descriptor>> {
        if !self.descriptors_used() {
            return Err(Fault::ud());
        }
        if is_null(selector) {
            return Ok(None);
        }
        let Some(address) = self.descriptor_address(selector) else { return Ok(None) };
        let descriptor = self.read_descriptor_at(address)?;
        let reachable = descriptor.is_conforming() || rpl(selector).max(self.cpl()) <= descriptor.dpl();
        Ok(Some(descriptor).filter(|_| reachable))
    }

    /// LAR: the attribute bits of a descriptor, or `None` for ZF = 0.
    pub fn lar(&mut self, selector: u16) -> Exec<Option<u32>> {
        use system_type as t;
        // The limit bits among them are undefined to the manual; silicon gives them as they are.
        const ATTRIBUTES: u32 = 0x00ff_ff00;
        Ok(self.visible_descriptor(selector)?.and_then(|descriptor| {
            let valid = !descriptor.is_system()
                || matches!(
                    descriptor.system_type(),
                    t::TSS16_AVAILABLE
                        | t::LDT
                        | t::TSS16_BUSY
                        | t::CALL_GATE16
                        | t::TASK_GATE
                        | t::TSS32_AVAILABLE
                        | t::TSS32_BUSY
                        | t::CALL_GATE32
                );
            valid.then_some(descriptor.high & ATTRIBUTES)
        }))
    }

    /// LSL: the limit of a segment in bytes, or `None` for ZF = 0.
    pub fn lsl(&mut self, selector: u16) -> Exec<Option<u32>> {
        use system_type as t;
        Ok(self.visible_descriptor(selector)?.and_then(|descriptor| {
            let valid = !descriptor.is_system()
                || matches!(
                    descriptor.system_type(),
                    t::TSS16_AVAILABLE | t::LDT | t::TSS16_BUSY | t::TSS32_AVAILABLE | t::TSS32_BUSY
                );
            valid.then(|| descriptor.limit())
        }))
    }

    /// VERR: whether a segment can be read (ZF).
    pub fn verr(&mut self, selector: u16) -> Exec<bool> {
        Ok(self.visible_descriptor(selector)?.is_some_and(Descriptor::is_readable))
    }

    /// VERW: whether a segment can be written (ZF).
    pub fn verw(&mut self, selector: u16) -> Exec<bool> {
        Ok(self.visible_descriptor(selector)?.is_some_and(Descriptor::is_writable_data))
    }

    /// ARPL: the destination with the source's RPL when that is higher (ZF = 1), else `None` (ZF = 0).
    pub fn arpl(&self, destination: u16, source: u16) -> Exec<Option<u16>> {
        if !self.descriptors_used() {
            return Err(Fault::ud());
        }
        let raised = destination & !selector::RPL | u16::from(rpl(source));
        Ok((rpl(destination) < rpl(source)).then_some(raised))
    }

    /// Makes a data segment register null when it may not be used at the (outer) level just entered.
    pub(super) fn drop_inner_segment(&mut self, seg: Seg) {
        let segment = self.state.segment(seg);
        let conforming =
            segment.rights() & (rights::CODE | rights::CONFORMING) == rights::CODE | rights::CONFORMING;
        if segment.usable() && !conforming && segment.dpl() < self.cpl() {
            self.state.segments[seg as usize] = Segment::null(0);
        }
    }

    /// Puts a code segment in CS at privilege level `cpl`.
    pub(super) fn set_cs(&mut self, mut segment: Segment, cpl: u8) {
        segment.selector = segment.selector & !selector::RPL | u16::from(cpl);
        self.state.segments[Seg::Cs as usize] = segment;
        self.set_cpl(cpl);
    }
}
