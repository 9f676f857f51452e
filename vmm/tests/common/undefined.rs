//! The arithmetic flags that the manual leaves undefined.

use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use vmm::cpu::registers::eflags::{AF, ARITHMETIC, CF, OF, PF, SF, ZF};

/// The arithmetic flags that an instruction leaves undefined (SDM vol. 2). `cl` is CL where it is known.
pub fn flags(instruction: &Instruction, cl: Option<u32>) -> u32 {
    use Mnemonic as M;
    let size = operand_bits(instruction);
    match instruction.mnemonic() {
        M::And | M::Or | M::Xor | M::Test => AF,
        M::Mul | M::Imul => SF | ZF | AF | PF,
        M::Div | M::Idiv => ARITHMETIC,
        M::Bsf | M::Bsr => CF | OF | SF | AF | PF,
        M::Bt | M::Bts | M::Btr | M::Btc => OF | SF | AF | PF,
        M::Aaa | M::Aas => OF | SF | ZF | PF,
        M::Daa | M::Das => OF,
        M::Aam | M::Aad => OF | AF | CF,
        M::Rol | M::Ror | M::Rcl | M::Rcr => match count(instruction, cl) {
            Some(0 | 1) => 0,
            _ => OF,
        },
        M::Shl | M::Sal | M::Shr | M::Sar => match count(instruction, cl) {
            Some(0) => 0,
            Some(1) => AF,
            Some(n) if n < size => AF | OF,
            _ => AF | OF | CF,
        },
        M::Shld | M::Shrd => match count(instruction, cl) {
            Some(0) => 0,
            Some(1) => AF,
            Some(n) if n <= size => AF | OF,
            _ => ARITHMETIC,
        },
        _ => 0,
    }
}

/// Bits of the first operand.
pub fn operand_bits(instruction: &Instruction) -> u32 {
    match instruction.op_kind(0) {
        OpKind::Register => 8 * instruction.op_register(0).size() as u32,
        _ => 8 * instruction.memory_size().size() as u32,
    }
}

/// The count of a shift or rotation, if it is known.
pub fn count(instruction: &Instruction, cl: Option<u32>) -> Option<u32> {
    let last = instruction.op_count() - 1;
    let count = match instruction.op_kind(last) {
        OpKind::Register if instruction.op_register(last) == Register::CL => cl?,
        _ => u32::from(instruction.immediate8()),
    };
    Some(count & 31)
}
