//! One decoded instruction, and the pieces that handlers are put together from: operand sizes
//! and operand places, both resolved at compile time so that a dispatch is one indirect call.

use crate::cpu::bus::Bus;
use crate::cpu::registers::Seg;
use crate::cpu::{Exec, Vcpu};
use ipc::width::Width;

/// Runs one instruction. EIP is that of the next instruction only for operations that end a
/// block (`Op::ends`); the others must not look at it.
pub type Handler<B> = fn(&mut Vcpu<B>, &Op<B>) -> Exec;

/// What follows an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The next one of the block.
    Not,
    /// Another block; nothing but EIP has changed that decides which.
    Near,
    /// The engine looks at the processor again: modes, flags, translation may have changed.
    Full,
    /// As `Full`, and the single-step trap is not taken after it, because its handler cleared TF.
    Interrupt,
}

/// A decoded instruction with its operands resolved.
pub struct Op<B: Bus> {
    /// What to run.
    pub handler: Handler<B>,
    /// Immediate operand, branch displacement or far offset.
    pub imm: u32,
    /// Displacement of the memory operand.
    pub disp: u32,
    /// All ones if `base` counts.
    base_mask: u32,
    /// All ones if `index` counts.
    index_mask: u32,
    /// `0xffff` for 16-bit addressing, and for branches that cut EIP to 16 bits.
    pub address_mask: u32,
    base: u8,
    index: u8,
    scale: u8,
    /// Segment of the memory operand.
    pub segment: Seg,
    /// The register operand that is written (or compared) first.
    pub reg: u8,
    /// The other register operand.
    pub rm: u8,
    /// Length in bytes.
    pub len: u8,
    /// Whether it ends its block.
    pub ends: Ends,
    /// Second immediate: a selector, ENTER's nesting level.
    pub imm2: u16,
    /// Where the instruction ends, from the start of its block.
    pub end: u16,
}

impl<B: Bus> Clone for Op<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Bus> Copy for Op<B> {}

impl<B: Bus> Op<B> {
    /// An operation without operands.
    pub fn new(handler: Handler<B>) -> Self {
        Op {
            handler,
            imm: 0,
            disp: 0,
            base_mask: 0,
            index_mask: 0,
            address_mask: u32::MAX,
            base: 0,
            index: 0,
            scale: 0,
            segment: Seg::Ds,
            reg: 0,
            rm: 0,
            len: 0,
            ends: Ends::Not,
            imm2: 0,
            end: 0,
        }
    }

    /// Sets the address of the memory operand.
    pub fn set_address(&mut self, base: Option<u8>, index: Option<u8>, scale: u8, disp: u32, mask: u32) {
        self.base = base.unwrap_or(0) & 7;
        self.base_mask = if base.is_some() { u32::MAX } else { 0 };
        self.index = index.unwrap_or(0) & 7;
        self.index_mask = if index.is_some() { u32::MAX } else { 0 };
        self.scale = scale & 3;
        self.disp = disp;
        self.address_mask = mask;
    }

    /// Says that EIP is that of the next instruction when the operation runs, because none follows it in a block.
    pub fn comes_last(&mut self) {
        if self.ends == Ends::Not {
            self.ends = Ends::Near;
        }
    }

    /// EIP of this very instruction, from within its handler. (Within a block EIP is that of the block's start.)
    #[inline(always)]
    pub fn address(&self, cpu: &Vcpu<B>) -> u32 {
        let to_end = if self.ends == Ends::Not { u32::from(self.end) } else { 0 };
        cpu.state.eip.wrapping_add(to_end).wrapping_sub(u32::from(self.len))
    }

    /// The offset of the memory operand in its segment.
    #[inline(always)]
    pub fn offset(&self, cpu: &Vcpu<B>) -> u32 {
        // Masks instead of branches: the shape of the address is data, not control flow.
        let base = cpu.state.gpr[(self.base & 7) as usize] & self.base_mask;
        let index = (cpu.state.gpr[(self.index & 7) as usize] & self.index_mask) << (self.scale & 3);
        base.wrapping_add(index).wrapping_add(self.disp) & self.address_mask
    }
}

/// Index of EAX, AX and AL.
pub const EAX: u8 = 0;
/// Index of ECX, CX and CL.
pub const ECX: u8 = 1;
/// Index of EDX, DX and DL.
pub const EDX: u8 = 2;
/// Index of EBX, BX and BL.
pub const EBX: u8 = 3;
/// Index of ESP and SP.
pub const ESP: u8 = 4;
/// Index of EBP and BP.
pub const EBP: u8 = 5;
/// Index of ESI and SI.
pub const ESI: u8 = 6;
/// Index of EDI and DI.
pub const EDI: u8 = 7;
/// Index of AH among the byte registers.
pub const AH: u8 = 4;

/// An operand size. Values travel zero-extended in a `u32`; stores truncate.
pub trait Size: 'static {
    /// Bits of an operand.
    const BITS: u32;
    /// The bits of an operand, set.
    const MASK: u32;
    /// The sign bit.
    const SIGN: u32;
    /// The same as a bus width.
    const WIDTH: Width;

    /// Reads a register.
    fn get<B: Bus>(cpu: &Vcpu<B>, register: u8) -> u32;
    /// Writes a register.
    fn set<B: Bus>(cpu: &mut Vcpu<B>, register: u8, value: u32);
    /// Reads memory.
    fn load<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<u32>;
    /// Writes memory.
    fn store<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: u32) -> Exec;
    /// Reads, modifies and writes memory: both accesses or, when either would fault, neither.
    fn modify<B: Bus>(
        cpu: &mut Vcpu<B>,
        segment: Seg,
        offset: u32,
        change: impl FnOnce(&mut Vcpu<B>, u32) -> u32,
    ) -> Exec;
    /// Extends the sign of a value to 32 bits.
    fn sign_extend(value: u32) -> u32;
}

/// 8-bit operands.
pub struct Byte;
/// 16-bit operands.
pub struct Word;
/// 32-bit operands.
pub struct Dword;

impl Size for Byte {
    const BITS: u32 = 8;
    const MASK: u32 = 0xff;
    const SIGN: u32 = 0x80;
    const WIDTH: Width = Width::Byte;

    #[inline(always)]
    fn get<B: Bus>(cpu: &Vcpu<B>, register: u8) -> u32 {
        // AL CL DL BL AH CH DH BH
        (cpu.state.gpr[(register & 3) as usize] >> ((register & 4) << 1)) & 0xff
    }

    #[inline(always)]
    fn set<B: Bus>(cpu: &mut Vcpu<B>, register: u8, value: u32) {
        let shift = (register & 4) << 1;
        let whole = &mut cpu.state.gpr[(register & 3) as usize];
        *whole = (*whole & !(0xff << shift)) | (value & 0xff) << shift;
    }

    #[inline(always)]
    fn load<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<u32> {
        Ok(u32::from(cpu.read_u8(segment, offset)?))
    }

    #[inline(always)]
    fn store<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: u32) -> Exec {
        cpu.write_u8(segment, offset, value as u8)
    }

    #[inline(always)]
    fn modify<B: Bus>(
        cpu: &mut Vcpu<B>,
        segment: Seg,
        offset: u32,
        change: impl FnOnce(&mut Vcpu<B>, u32) -> u32,
    ) -> Exec {
        let old = u32::from(cpu.modify_u8(segment, offset)?);
        let new = change(cpu, old);
        Self::store(cpu, segment, offset, new)
    }

    #[inline(always)]
    fn sign_extend(value: u32) -> u32 {
        value as i8 as u32
    }
}

impl Size for Word {
    const BITS: u32 = 16;
    const MASK: u32 = 0xffff;
    const SIGN: u32 = 0x8000;
    const WIDTH: Width = Width::Word;

    #[inline(always)]
    fn get<B: Bus>(cpu: &Vcpu<B>, register: u8) -> u32 {
        cpu.state.gpr[(register & 7) as usize] & 0xffff
    }

    #[inline(always)]
    fn set<B: Bus>(cpu: &mut Vcpu<B>, register: u8, value: u32) {
        let whole = &mut cpu.state.gpr[(register & 7) as usize];
        *whole = (*whole & !0xffff) | (value & 0xffff);
    }

    #[inline(always)]
    fn load<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<u32> {
        Ok(u32::from(cpu.read_u16(segment, offset)?))
    }

    #[inline(always)]
    fn store<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: u32) -> Exec {
        cpu.write_u16(segment, offset, value as u16)
    }

    #[inline(always)]
    fn modify<B: Bus>(
        cpu: &mut Vcpu<B>,
        segment: Seg,
        offset: u32,
        change: impl FnOnce(&mut Vcpu<B>, u32) -> u32,
    ) -> Exec {
        let old = u32::from(cpu.modify_u16(segment, offset)?);
        let new = change(cpu, old);
        Self::store(cpu, segment, offset, new)
    }

    #[inline(always)]
    fn sign_extend(value: u32) -> u32 {
        value as i16 as u32
    }
}

impl Size for Dword {
    const BITS: u32 = 32;
    const MASK: u32 = 0xffff_ffff;
    const SIGN: u32 = 0x8000_0000;
    const WIDTH: Width = Width::Dword;

    #[inline(always)]
    fn get<B: Bus>(cpu: &Vcpu<B>, register: u8) -> u32 {
        cpu.state.gpr[(register & 7) as usize]
    }

    #[inline(always)]
    fn set<B: Bus>(cpu: &mut Vcpu<B>, register: u8, value: u32) {
        cpu.state.gpr[(register & 7) as usize] = value;
    }

    #[inline(always)]
    fn load<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32) -> Exec<u32> {
        cpu.read_u32(segment, offset)
    }

    #[inline(always)]
    fn store<B: Bus>(cpu: &mut Vcpu<B>, segment: Seg, offset: u32, value: u32) -> Exec {
        cpu.write_u32(segment, offset, value)
    }

    #[inline(always)]
    fn modify<B: Bus>(
        cpu: &mut Vcpu<B>,
        segment: Seg,
        offset: u32,
        change: impl FnOnce(&mut Vcpu<B>, u32) -> u32,
    ) -> Exec {
        let old = cpu.modify_u32(segment, offset)?;
        let new = change(cpu, old);
        Self::store(cpu, segment, offset, new)
    }

    #[inline(always)]
    fn sign_extend(value: u32) -> u32 {
        value
    }
}

/// Where an operand is.
pub trait Place: 'static {
    /// Reads it.
    fn read<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<u32>;
}

/// A place that can be written.
pub trait Target: Place {
    /// Writes it.
    fn write<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>, value: u32) -> Exec;
    /// Reads, modifies, writes it. `change` runs only when the write cannot fault any more.
    fn modify<B: Bus, S: Size>(
        cpu: &mut Vcpu<B>,
        op: &Op<B>,
        change: impl FnOnce(&mut Vcpu<B>, u32) -> u32,
    ) -> Exec;
}

/// The register `Op::reg`.
pub struct Reg;
/// The register `Op::rm`.
pub struct Rm;
/// The memory operand.
pub struct Mem;
/// The immediate.
pub struct Imm;

impl Place for Reg {
    #[inline(always)]
    fn read<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<u32> {
        Ok(S::get(cpu, op.reg))
    }
}

impl Target for Reg {
    #[inline(always)]
    fn write<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>, value: u32) -> Exec {
        S::set(cpu, op.reg, value);
        Ok(())
    }

    #[inline(always)]
    fn modify<B: Bus, S: Size>(
        cpu: &mut Vcpu<B>,
        op: &Op<B>,
        change: impl FnOnce(&mut Vcpu<B>, u32) -> u32,
    ) -> Exec {
        let old = S::get(cpu, op.reg);
        let new = change(cpu, old);
        S::set(cpu, op.reg, new);
        Ok(())
    }
}

impl Place for Rm {
    #[inline(always)]
    fn read<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<u32> {
        Ok(S::get(cpu, op.rm))
    }
}

impl Place for Mem {
    #[inline(always)]
    fn read<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<u32> {
        let offset = op.offset(cpu);
        S::load(cpu, op.segment, offset)
    }
}

impl Target for Mem {
    #[inline(always)]
    fn write<B: Bus, S: Size>(cpu: &mut Vcpu<B>, op: &Op<B>, value: u32) -> Exec {
        let offset = op.offset(cpu);
        S::store(cpu, op.segment, offset, value)
    }

    #[inline(always)]
    fn modify<B: Bus, S: Size>(
        cpu: &mut Vcpu<B>,
        op: &Op<B>,
        change: impl FnOnce(&mut Vcpu<B>, u32) -> u32,
    ) -> Exec {
        let offset = op.offset(cpu);
        S::modify(cpu, op.segment, offset, change)
    }
}

impl Place for Imm {
    #[inline(always)]
    fn read<B: Bus, S: Size>(_cpu: &mut Vcpu<B>, op: &Op<B>) -> Exec<u32> {
        Ok(op.imm)
    }
}
