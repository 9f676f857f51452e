//! What the manual leaves undefined, and what is only approximate. Everything that the comparison ignores is
//! decided here, and what of flags in `common/undefined.rs`.

pub use super::undefined_flags::{count, flags, operand_bits};
use iced_x86::{Code, Instruction, Mnemonic};
use vmm::cpu::fpu::fsw;
use vmm::cpu::registers::vector;

/// Whether a result is undefined: such an instruction is not generated.
pub fn result(instruction: &Instruction, cl: Option<u32>) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd => {
            count(instruction, cl).is_none_or(|count| count > operand_bits(instruction))
        }
        // BSWAP of a 16-bit register.
        Mnemonic::Bswap => instruction.op0_register().size() == 2,
        _ => false,
    }
}

/// What is open when an instruction raises an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    /// POPA: how many registers have been loaded.
    Registers,
    /// Instructions with an MMX and a memory or XMM operand: whether TOP and tags have been reset.
    X87,
    /// CMPS: which of two operands is read first, so which exception is raised when both fault.
    Which,
    /// Images of the x87 and SSE state, of which parts can be bad in different ways: which is reported.
    Address,
}

impl Partial {
    /// For the account.
    pub fn reason(self) -> &'static str {
        match self {
            Partial::Registers => "POPA that faults may have loaded registers",
            Partial::X87 => "MMX instructions of SSE that fault may have reset TOP and tags",
            Partial::Address => "state images may report any of their bad addresses",
            Partial::Which => "CMPS with two bad operands may fault on either",
        }
    }
}

/// What is open when the instruction raises an exception.
pub fn partial(code: Code) -> Option<Partial> {
    match code.mnemonic() {
        Mnemonic::Popa | Mnemonic::Popad => Some(Partial::Registers),
        Mnemonic::Cvtps2pi
        | Mnemonic::Cvttps2pi
        | Mnemonic::Cvtpd2pi
        | Mnemonic::Cvttpd2pi
        | Mnemonic::Cvtpi2ps
        | Mnemonic::Maskmovq => Some(Partial::X87),
        Mnemonic::Fnstenv
        | Mnemonic::Fnsave
        | Mnemonic::Fxsave
        | Mnemonic::Fldenv
        | Mnemonic::Frstor
        | Mnemonic::Fxrstor => Some(Partial::Address),
        Mnemonic::Cmpsb | Mnemonic::Cmpsw => Some(Partial::Which),
        Mnemonic::Cmpsd if code == Code::Cmpsd_m32_m32 => Some(Partial::Which),
        _ => None,
    }
}

/// Bits of the x87 status word that processors leave differently: always, and when the instruction raises an
/// unmasked exception.
pub fn status(code: Code) -> (u16, u16) {
    use Mnemonic as M;
    match code.mnemonic() {
        // Zero to the manual, unchanged on AMD.
        M::Fcomi | M::Fcomip | M::Fucomi | M::Fucomip => (fsw::C1, fsw::C1),
        // Unchanged to the manual, "unordered" on AMD.
        M::Fcom
        | M::Fcomp
        | M::Fcompp
        | M::Fucom
        | M::Fucomp
        | M::Fucompp
        | M::Ficom
        | M::Ficomp
        | M::Ftst => (0, fsw::C0 | fsw::C2 | fsw::C3),
        _ => (0, 0),
    }
}

/// Why an instruction may raise this exception on one engine only.
pub fn optional(code: Code, number: u8) -> Option<&'static str> {
    match (code.mnemonic(), number) {
        (Mnemonic::Maskmovq | Mnemonic::Maskmovdqu, vector::PF | vector::GP | vector::SS) => {
            Some("MASKMOVQ that writes nothing may fault")
        }
        (
            Mnemonic::Maskmovq
            | Mnemonic::Maskmovdqu
            | Mnemonic::Movups
            | Mnemonic::Movupd
            | Mnemonic::Movdqu,
            vector::AC,
        ) => Some("alignment of unaligned 16-byte operands may be checked"),
        (
            Mnemonic::Fnstenv
            | Mnemonic::Fnsave
            | Mnemonic::Fxsave
            | Mnemonic::Fldenv
            | Mnemonic::Frstor
            | Mnemonic::Fxrstor,
            vector::AC,
        ) => Some("state images may raise #AC or #GP"),
        (Mnemonic::Cvtpi2ps, vector::MF) => Some(CVTPI2PS),
        _ => None,
    }
}

/// See [`optional`].
pub const CVTPI2PS: &str = "CVTPI2PS of memory does nothing to x87 on AMD";
