//! An emitter of the x86-64 instructions that shadow code consists of besides the guest's own.
//!
//! It knows encodings, nothing of guests. Guest instructions are encoded by iced-x86 and appended as bytes.

/// A 64-bit register by its number in encodings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(pub u8);

/// RAX; the guest's EAX.
pub const RAX: Reg = Reg(0);
/// RCX; the guest's ECX.
pub const RCX: Reg = Reg(1);
/// RDX; the guest's EDX.
pub const RDX: Reg = Reg(2);
/// RBX; the guest's EBX.
pub const RBX: Reg = Reg(3);
/// RSP; the return stack's.
pub const RSP: Reg = Reg(4);
/// RBP; the guest's EBP.
pub const RBP: Reg = Reg(5);
/// RSI; the guest's ESI.
pub const RSI: Reg = Reg(6);
/// RDI; the guest's EDI.
pub const RDI: Reg = Reg(7);
/// R8.
pub const R8: Reg = Reg(8);
/// R9.
pub const R9: Reg = Reg(9);
/// R10.
pub const R10: Reg = Reg(10);
/// R11.
pub const R11: Reg = Reg(11);
/// R12.
pub const R12: Reg = Reg(12);
/// R13.
pub const R13: Reg = Reg(13);
/// R14.
pub const R14: Reg = Reg(14);
/// R15.
pub const R15: Reg = Reg(15);

/// Width of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum W {
    /// 8 bits.
    B,
    /// 16 bits.
    H,
    /// 32 bits; the upper half of a register that is written becomes zero.
    D,
    /// 64 bits.
    Q,
}

/// A memory operand: `[base + index * scale + disp]`.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    base: Option<Reg>,
    index: Option<(Reg, u8)>,
    disp: i32,
}

impl Mem {
    /// Base, index with scale, displacement.
    pub const fn parts(self) -> (Option<Reg>, Option<(Reg, u8)>, i32) {
        (self.base, self.index, self.disp)
    }
}

/// `[base + disp]`.
pub const fn at(base: Reg, disp: i32) -> Mem {
    Mem { base: Some(base), index: None, disp }
}

/// `[base + index * scale + disp]`; `scale` is 1, 2, 4 or 8.
pub const fn indexed(base: Reg, index: Reg, scale: u8, disp: i32) -> Mem {
    Mem { base: Some(base), index: Some((index, scale)), disp }
}

/// `[address]`, below 2 GiB.
pub const fn absolute(address: i32) -> Mem {
    Mem { base: None, index: None, disp: address }
}

/// `[index * scale + disp]`.
pub const fn scaled(index: Reg, scale: u8, disp: i32) -> Mem {
    Mem { base: None, index: Some((index, scale)), disp }
}

/// Condition codes as encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cond(pub u8);

/// Overflow.
pub const O: Cond = Cond(0);
/// Above (unsigned).
pub const A: Cond = Cond(7);
/// Above or equal (unsigned).
pub const AE: Cond = Cond(3);
/// Below (unsigned): CF.
pub const B: Cond = Cond(2);
/// Below or equal (unsigned).
pub const BE: Cond = Cond(6);
/// Equal, zero.
pub const E: Cond = Cond(4);
/// Not equal, not zero.
pub const NE: Cond = Cond(5);

/// A place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(u32);

/// Arithmetic operations by their number in encodings.
#[derive(Clone, Copy, Debug)]
pub enum Alu {
    /// ADD.
    Add = 0,
    /// OR.
    Or = 1,
    /// AND.
    And = 4,
    /// SUB.
    Sub = 5,
    /// XOR.
    Xor = 6,
    /// CMP.
    Cmp = 7,
}

/// String operations, by the opcode of their byte form.
#[derive(Clone, Copy, Debug)]
pub enum Rep {
    /// MOVSB.
    Movs = 0xa4,
    /// STOSB.
    Stos = 0xaa,
}

/// Code being emitted, to be placed at a known address below 2 GiB.
pub struct Asm {
    /// The bytes so far.
    pub code: Vec<u8>,
    base: u64,
    labels: Vec<Option<u32>>,
    fixups: Vec<(u32, Label)>,
    /// Places that hold a label's address.
    addresses: Vec<(u32, Label)>,
}

/// A displacement of a branch that does not fit: the code cache is larger than 2 GiB, which it never is.
fn displacement(from: u64, to: u64) -> i32 {
    i32::try_from(to as i64 - from as i64).unwrap_or_else(|_| unreachable!("the code cache is below 2 GiB"))
}

impl Asm {
    /// Nothing yet, to be placed at `base`.
    pub fn new(base: u64) -> Self {
        Self {
            code: Vec::with_capacity(4096),
            base,
            labels: Vec::new(),
            fixups: Vec::new(),
            addresses: Vec::new(),
        }
    }

    /// Starts anew, at another place.
    pub fn restart(&mut self, base: u64) {
        self.code.clear();
        self.labels.clear();
        self.fixups.clear();
        self.addresses.clear();
        self.base = base;
    }

    /// Address of the next byte.
    pub fn here(&self) -> u64 {
        self.base + self.code.len() as u64
    }

    /// A label without a place.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() as u32 - 1)
    }

    /// Puts a label here.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0 as usize] = Some(self.code.len() as u32);
    }

    /// Where a label is, from the start; bound labels only.
    pub fn place(&self, label: Label) -> Option<u32> {
        self.labels.get(label.0 as usize).copied().flatten()
    }

    /// Fills in every branch to a label.
    pub fn finish(&mut self) {
        for (at, label) in std::mem::take(&mut self.fixups) {
            let Some(target) = self.place(label) else { unreachable!("every label that is used is bound") };
            let displacement = target.wrapping_sub(at + 4);
            self.code[at as usize..at as usize + 4].copy_from_slice(&displacement.to_le_bytes());
        }
        for (at, label) in std::mem::take(&mut self.addresses) {
            let Some(target) = self.place(label) else { unreachable!("every label that is used is bound") };
            let address = (self.base + u64::from(target)) as u32;
            self.code[at as usize..at as usize + 4].copy_from_slice(&address.to_le_bytes());
        }
    }

    /// Appends bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.code.extend_from_slice(bytes);
    }

    fn imm32(&mut self, value: i32) {
        self.code.extend_from_slice(&value.to_le_bytes());
    }

    /// Prefixes, opcode and ModRM with a register operand.
    fn op_rr(&mut self, w: W, opcode: &[u8], reg: u8, rm: u8) {
        if w == W::H {
            self.code.push(0x66);
        }
        let rex = 0x40 | u8::from(w == W::Q) << 3 | (reg >> 3) << 2 | rm >> 3;
        // Bytes of RSP to RDI need a prefix, or they would be AH to BH.
        if rex != 0x40 || w == W::B && (reg >= 4 || rm >= 4) {
            self.code.push(rex);
        }
        self.code.extend_from_slice(opcode);
        self.code.push(0xc0 | (reg & 7) << 3 | rm & 7);
    }

    /// Prefixes, opcode and ModRM with a memory operand.
    fn op_rm(&mut self, w: W, opcode: &[u8], reg: u8, mem: Mem) {
        if w == W::H {
            self.code.push(0x66);
        }
        self.rex(w, reg, mem, w == W::B && reg >= 4);
        self.code.extend_from_slice(opcode);
        self.modrm(reg, mem);
    }

    fn rex(&mut self, w: W, reg: u8, mem: Mem, always: bool) {
        let base = mem.base.map_or(0, |base| base.0 >> 3);
        let index = mem.index.map_or(0, |(index, _)| index.0 >> 3);
        let rex = 0x40 | u8::from(w == W::Q) << 3 | (reg >> 3) << 2 | index << 1 | base;
        if rex != 0x40 || always {
            self.code.push(rex);
        }
    }

    fn modrm(&mut self, reg: u8, mem: Mem) {
        let reg = (reg & 7) << 3;
        let Some(base) = mem.base else {
            // SIB without a base: an absolute address, sign-extended.
            let (index, scale) =
                mem.index.map_or((4, 0), |(index, scale)| (index.0 & 7, scale.trailing_zeros() as u8));
            self.code.extend_from_slice(&[reg | 4, scale << 6 | index << 3 | 5]);
            return self.imm32(mem.disp);
        };
        let low = base.0 & 7;
        let mode = match mem.disp {
            // [RBP] and [R13] need a displacement.
            0 if low != 5 => 0x00,
            -128..=127 => 0x40,
            _ => 0x80,
        };
        match mem.index {
            Some((index, scale)) => {
                let scale = scale.trailing_zeros() as u8;
                self.code.extend_from_slice(&[mode | reg | 4, scale << 6 | (index.0 & 7) << 3 | low]);
            }
            None if low == 4 => self.code.extend_from_slice(&[mode | reg | 4, 0x24]),
            None => self.code.push(mode | reg | low),
        }
        match mode {
            0x40 => self.code.push(mem.disp as i8 as u8),
            0x80 => self.imm32(mem.disp),
            _ => {}
        }
    }

    /// `mov to, from`.
    pub fn mov(&mut self, w: W, to: Reg, from: Reg) {
        self.op_rr(w, if w == W::B { &[0x88] } else { &[0x89] }, from.0, to.0);
    }

    /// `mov to, [mem]`.
    pub fn load(&mut self, w: W, to: Reg, mem: Mem) {
        self.op_rm(w, if w == W::B { &[0x8a] } else { &[0x8b] }, to.0, mem);
    }

    /// `mov [mem], from`.
    pub fn store(&mut self, w: W, mem: Mem, from: Reg) {
        self.op_rm(w, if w == W::B { &[0x88] } else { &[0x89] }, from.0, mem);
    }

    /// `mov [mem], value` (sign-extended to 64 bits).
    pub fn store_imm(&mut self, w: W, mem: Mem, value: i32) {
        self.op_rm(w, if w == W::B { &[0xc6] } else { &[0xc7] }, 0, mem);
        match w {
            W::B => self.code.push(value as u8),
            W::H => self.code.extend_from_slice(&(value as i16).to_le_bytes()),
            W::D | W::Q => self.imm32(value),
        }
    }

    /// `mov to, value`; the upper half becomes zero.
    pub fn mov_imm(&mut self, to: Reg, value: u32) {
        if to.0 >= 8 {
            self.code.push(0x41);
        }
        self.code.push(0xb8 | to.0 & 7);
        self.code.extend_from_slice(&value.to_le_bytes());
    }

    /// `movzx to, from` from 8 or 16 bits.
    pub fn movzx(&mut self, to: Reg, from: Reg, w: W) {
        let opcode: &[u8] = if w == W::B { &[0x0f, 0xb6] } else { &[0x0f, 0xb7] };
        let rex = 0x40 | (to.0 >> 3) << 2 | from.0 >> 3;
        if rex != 0x40 || w == W::B && from.0 >= 4 {
            self.code.push(rex);
        }
        self.code.extend_from_slice(opcode);
        self.code.push(0xc0 | (to.0 & 7) << 3 | from.0 & 7);
    }

    /// `movzx to, byte/word [mem]`.
    pub fn movzx_load(&mut self, to: Reg, mem: Mem, w: W) {
        self.op_rm(W::D, if w == W::B { &[0x0f, 0xb6] } else { &[0x0f, 0xb7] }, to.0, mem);
    }

    /// `movsx to, byte [mem]` to 32 bits.
    pub fn movsx_load(&mut self, to: Reg, mem: Mem) {
        self.op_rm(W::D, &[0x0f, 0xbe], to.0, mem);
    }

    /// `lea to, [mem]`.
    pub fn lea(&mut self, w: W, to: Reg, mem: Mem) {
        self.op_rm(w, &[0x8d], to.0, mem);
    }

    /// `op to, from`.
    pub fn alu(&mut self, op: Alu, w: W, to: Reg, from: Reg) {
        self.op_rr(w, &[(op as u8) << 3 | u8::from(w != W::B)], from.0, to.0);
    }

    /// `op to, [mem]`.
    pub fn alu_load(&mut self, op: Alu, w: W, to: Reg, mem: Mem) {
        self.op_rm(w, &[(op as u8) << 3 | 2 | u8::from(w != W::B)], to.0, mem);
    }

    /// `op to, value` (not for bytes).
    pub fn alu_imm(&mut self, op: Alu, w: W, to: Reg, value: i32) {
        if (-128..=127).contains(&value) {
            self.op_rr(w, &[0x83], op as u8, to.0);
            self.code.push(value as i8 as u8);
        } else {
            self.op_rr(w, &[0x81], op as u8, to.0);
            self.imm32(value);
        }
    }

    /// `add reg, value` of the lowest byte.
    pub fn add_low(&mut self, reg: Reg, value: i8) {
        self.op_rr(W::B, &[0x80], Alu::Add as u8, reg.0);
        self.code.push(value as u8);
    }

    /// `cmp [mem], value`.
    pub fn cmp_mem_imm(&mut self, w: W, mem: Mem, value: i8) {
        self.op_rm(w, if w == W::B { &[0x80] } else { &[0x83] }, Alu::Cmp as u8, mem);
        self.code.push(value as u8);
    }

    /// `test a, b`.
    pub fn test(&mut self, w: W, a: Reg, b: Reg) {
        self.op_rr(w, if w == W::B { &[0x84] } else { &[0x85] }, b.0, a.0);
    }

    /// `test reg, value` of the lowest byte.
    pub fn test_low(&mut self, reg: Reg, value: u8) {
        self.op_rr(W::B, &[0xf6], 0, reg.0);
        self.code.push(value);
    }

    /// `test reg, value` of 32 bits.
    pub fn test_imm(&mut self, reg: Reg, value: u32) {
        self.op_rr(W::D, &[0xf7], 0, reg.0);
        self.imm32(value as i32);
    }

    /// `test [mem], reg`.
    pub fn test_mem(&mut self, w: W, mem: Mem, reg: Reg) {
        self.op_rm(w, if w == W::B { &[0x84] } else { &[0x85] }, reg.0, mem);
    }

    /// `shrx to, from, count` of 32 bits: no flag changes.
    pub fn shrx(&mut self, to: Reg, from: Reg, count: Reg) {
        // VEX.LZ.F2.0F38.W0 F7
        let r = u8::from(to.0 < 8) << 7;
        let b = u8::from(from.0 < 8) << 5;
        self.bytes(&[
            0xc4,
            r | 0x40 | b | 0x02,
            (!count.0 & 15) << 3 | 0x03,
            0xf7,
            0xc0 | (to.0 & 7) << 3 | from.0 & 7,
        ]);
    }

    /// `rorx to, from, count` of 32 bits: no flag changes.
    pub fn rorx(&mut self, to: Reg, from: Reg, count: u8) {
        // VEX.LZ.F2.0F3A.W0 F0
        let r = u8::from(to.0 < 8) << 7;
        let b = u8::from(from.0 < 8) << 5;
        self.bytes(&[0xc4, r | 0x40 | b | 0x03, 0x7b, 0xf0, 0xc0 | (to.0 & 7) << 3 | from.0 & 7, count]);
    }

    /// `shl reg, count` of 32 bits.
    pub fn shl(&mut self, reg: Reg, count: u8) {
        self.op_rr(W::D, &[0xc1], 4, reg.0);
        self.code.push(count);
    }

    /// `sar reg, count` of 32 bits.
    pub fn sar(&mut self, reg: Reg, count: u8) {
        self.op_rr(W::D, &[0xc1], 7, reg.0);
        self.code.push(count);
    }

    /// `mov to, address of label`.
    pub fn mov_label(&mut self, to: Reg, label: Label) {
        self.mov_imm(to, 0);
        self.addresses.push((self.code.len() as u32 - 4, label));
    }

    /// `mov to, address`, 64 bits wide, to be set with [`Asm::set_address`]; returns its place.
    pub fn mov_address(&mut self, to: Reg) -> u32 {
        self.bytes(&[0x48 | to.0 >> 3, 0xb8 | to.0 & 7]);
        self.bytes(&[0; 8]);
        self.code.len() as u32 - 8
    }

    /// Fills in what [`Asm::mov_address`] left open.
    pub fn set_address(&mut self, place: u32, address: u64) {
        self.code[place as usize..place as usize + 8].copy_from_slice(&address.to_le_bytes());
    }

    /// `not reg` of 32 bits: no flag changes.
    pub fn not(&mut self, reg: Reg) {
        self.op_rr(W::D, &[0xf7], 2, reg.0);
    }

    /// `fldcw [mem]`.
    pub fn fldcw(&mut self, mem: Mem) {
        self.op_rm(W::D, &[0xd9], 5, mem);
    }

    /// `rep movs` or `rep stos` of elements of `size` bytes.
    pub fn rep(&mut self, what: Rep, size: u32) {
        if size == 2 {
            self.code.push(0x66);
        }
        self.bytes(&[0xf3, what as u8 | u8::from(size != 1)]);
    }

    /// `lahf`.
    pub fn lahf(&mut self) {
        self.code.push(0x9f);
    }

    /// `sahf`.
    pub fn sahf(&mut self) {
        self.code.push(0x9e);
    }

    /// `setcc reg` (its lowest byte).
    pub fn setcc(&mut self, cond: Cond, reg: Reg) {
        self.op_rr(W::B, &[0x0f, 0x90 | cond.0], 0, reg.0);
    }

    /// `add al, 127`: OF becomes bit 0 of AL.
    pub fn al_to_overflow(&mut self) {
        self.bytes(&[0x04, 0x7f]);
    }

    /// `jcc label`.
    pub fn jcc(&mut self, cond: Cond, label: Label) {
        if let Some(distance) = self.short_way_back(label) {
            return self.bytes(&[0x70 | cond.0, distance]);
        }
        self.bytes(&[0x0f, 0x80 | cond.0]);
        self.branch_to(label);
    }

    /// `jmp label`.
    pub fn jmp(&mut self, label: Label) {
        if let Some(distance) = self.short_way_back(label) {
            return self.bytes(&[0xeb, distance]);
        }
        self.code.push(0xe9);
        self.branch_to(label);
    }

    /// The displacement of a jump of two bytes to a label that is bound already, if it is near enough.
    fn short_way_back(&self, label: Label) -> Option<u8> {
        let place = self.place(label)?;
        let distance = i64::from(place) - (self.code.len() as i64 + 2);
        i8::try_from(distance).ok().map(|distance| distance as u8)
    }

    /// Instructions that do nothing, up to a multiple of `to` bytes (a power of two, at most 16) from the start of aligned code.
    pub fn align(&mut self, to: usize) {
        /// The longest that all processors decode fast.
        const LONGEST: usize = 9;
        const NOPS: [&[u8]; LONGEST] = [
            &[0x90],
            &[0x66, 0x90],
            &[0x0f, 0x1f, 0x00],
            &[0x0f, 0x1f, 0x40, 0x00],
            &[0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0],
            &[0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0x66, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
        ];
        let mut missing = self.code.len().next_multiple_of(to) - self.code.len();
        while missing > 0 {
            let len = missing.min(LONGEST);
            self.bytes(NOPS[len - 1]);
            missing -= len;
        }
    }

    fn branch_to(&mut self, label: Label) {
        self.fixups.push((self.code.len() as u32, label));
        self.imm32(0);
    }

    /// `jmp address`.
    pub fn jmp_to(&mut self, address: u64) {
        self.code.push(0xe9);
        let displacement = displacement(self.here() + 4, address);
        self.imm32(displacement);
    }

    /// `jcc address`.
    pub fn jcc_to(&mut self, cond: Cond, address: u64) {
        self.bytes(&[0x0f, 0x80 | cond.0]);
        let displacement = displacement(self.here() + 4, address);
        self.imm32(displacement);
    }

    /// `call address`.
    pub fn call_to(&mut self, address: u64) {
        self.code.push(0xe8);
        let displacement = displacement(self.here() + 4, address);
        self.imm32(displacement);
    }

    /// `jmp reg`.
    pub fn jmp_reg(&mut self, reg: Reg) {
        self.op_rr(W::D, &[0xff], 4, reg.0);
    }

    /// `call label`.
    pub fn call(&mut self, label: Label) {
        self.code.push(0xe8);
        self.branch_to(label);
    }

    /// `jmp [address]`.
    pub fn jmp_through(&mut self, address: i32) {
        self.op_rm(W::D, &[0xff], 4, absolute(address));
    }

    /// `call [address]`.
    pub fn call_through(&mut self, address: i32) {
        self.op_rm(W::D, &[0xff], 2, absolute(address));
    }

    /// `call reg`.
    pub fn call_reg(&mut self, reg: Reg) {
        self.op_rr(W::D, &[0xff], 2, reg.0);
    }

    /// `ret`.
    pub fn ret(&mut self) {
        self.code.push(0xc3);
    }

    /// `jrcxz` over what `body` emits.
    pub fn unless_rcx_zero(&mut self, body: impl FnOnce(&mut Self)) {
        self.bytes(&[0xe3, 0]);
        let from = self.code.len();
        body(self);
        let length = self.code.len() - from;
        self.code[from - 1] =
            u8::try_from(length).unwrap_or_else(|_| unreachable!("short bodies only")) & 0x7f;
    }
}
