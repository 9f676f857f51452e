//! What is done with each instruction: taken over as it is, rewritten, or left to the interpreter.

use super::mode::Mode;
use crate::cpu::registers::Seg;
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

/// Why an instruction is terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Terminal {
    /// It changes or shows system state, or may end in another privilege level: INT, IRET, far transfers, control
    /// registers, descriptor tables, HLT, CPUID, RDTSC.
    System,
    /// It loads a segment register.
    Segment,
    /// It accesses a port.
    Port,
    /// It reads or writes EFLAGS beyond the arithmetic ones.
    Flags,
    /// A repeated string instruction.
    Repeated,
    /// Floating point of a kind that only the interpreter does exactly as the guest's processor would.
    Float,
    /// It crosses a page's boundary, or is invalid.
    Boundary,
    /// Nobody has taught the translator yet; rare ones.
    Rare,
    /// Its access meets a device, as it has done before.
    Device,
}

impl Terminal {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::System,
        Self::Segment,
        Self::Port,
        Self::Flags,
        Self::Repeated,
        Self::Float,
        Self::Boundary,
        Self::Rare,
        Self::Device,
    ];

    /// What it is called in reports.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::System => "system instructions",
            Self::Segment => "loads of segment registers",
            Self::Port => "port accesses",
            Self::Flags => "PUSHF, POPF, CLI, STI",
            Self::Repeated => "repeated string instructions",
            Self::Float => "floating-point instructions that only the interpreter does exactly",
            Self::Boundary => "invalid instructions, and those across a page boundary",
            Self::Rare => "instructions that the translator does not know",
            Self::Device => "accesses to devices at places that make many",
        }
    }
}

/// See the module's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same instruction with other registers and another address.
    Plain,
    /// The same with the guest's floating-point, MMX or SSE registers.
    Float,
    /// Nothing at all.
    Nothing,
    /// LEA: an address that is not accessed.
    Lea,
    /// DIV, IDIV: checked first, because the host's fault would be the host's.
    Divide,
    /// PUSH.
    Push,
    /// POP.
    Pop,
    /// PUSHA, PUSHAD.
    PushAll,
    /// POPA, POPAD.
    PopAll,
    /// LEAVE.
    Leave,
    /// A segment register is read: MOV r/m, Sreg.
    ReadSegment,
    /// A segment register is loaded by its selector alone.
    LoadSegment,
    /// MOVS, STOS, LODS, SCAS, CMPS, not repeated.
    String,
    /// REP MOVS, REP STOS in flat segments.
    Repeat,
    /// CLI and STI at CPL 0.
    InterruptFlag,
    /// PUSHF at CPL 0.
    PushFlags,
    /// POPF at CPL 0.
    PopFlags,
    /// IRET of 16 bits in real mode.
    InterruptReturn,
    /// JMP far where a selector is all there is to a segment.
    FarJump,
    /// CALL far there.
    FarCall,
    /// RET far there.
    FarReturn,
    /// PUSH of a segment register.
    PushSegment,
    /// CLD, STD.
    Direction,
    /// XLAT.
    Xlat,
    /// Jcc with its condition.
    Jcc(u8),
    /// LOOP, LOOPE, LOOPNE, JCXZ, JECXZ.
    Loop,
    /// JMP to a constant.
    Jump,
    /// CALL to a constant.
    Call,
    /// JMP to a register or memory.
    JumpIndirect,
    /// CALL to a register or memory.
    CallIndirect,
    /// RET.
    Return,
    /// Left to the interpreter.
    Terminal(Terminal),
}

impl Kind {
    /// Whether the instruction names where it may go.
    pub const fn has_target(self) -> bool {
        matches!(self, Self::Jump | Self::Call | Self::Jcc(_) | Self::Loop)
    }

    /// Whether the instruction behind a terminal one is likely to come next.
    pub fn goes_on(self, instruction: &Instruction) -> bool {
        use Mnemonic::*;
        let changes_flow = matches!(
            instruction.mnemonic(),
            Iret | Iretd
                | Int
                | Int1
                | Int3
                | Into
                | Retf
                | Jmp
                | Call
                | Ret
                | Hlt
                | Sysenter
                | Sysexit
                | Ud2
        );
        !changes_flow
            && !instruction.is_jcc_short_or_near()
            && !matches!(instruction.mnemonic(), Loop | Loope | Loopne | Jcxz | Jecxz)
            && !matches!(self, Self::Terminal(Terminal::Float | Terminal::Boundary))
    }
}

fn uses_high_byte(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|n| {
        instruction.op_kind(n) == OpKind::Register
            && matches!(instruction.op_register(n), Register::AH | Register::CH | Register::DH | Register::BH)
    })
}

/// Whether operand `n` is ESP or SP.
fn uses_stack_pointer(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|n| {
        instruction.op_kind(n) == OpKind::Register
            && matches!(instruction.op_register(n), Register::ESP | Register::SP)
    })
}

fn has_segment_register(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|n| {
        instruction.op_kind(n) == OpKind::Register && instruction.op_register(n).is_segment_register()
    })
}

/// The segment register that MOV, POP, LDS or its kin loads; none: it stores one.
pub fn segment_loaded(instruction: &Instruction) -> Register {
    match instruction.mnemonic() {
        Mnemonic::Lds => Register::DS,
        Mnemonic::Les => Register::ES,
        Mnemonic::Lss => Register::SS,
        Mnemonic::Lfs => Register::FS,
        Mnemonic::Lgs => Register::GS,
        _ => instruction.op0_register(),
    }
}

fn load_segment(instruction: &Instruction, mode: Mode) -> Kind {
    let loads = !matches!(segment_loaded(instruction), Register::CS | Register::None);
    if loads && mode.segmented() || may_be_remembered(instruction, mode) {
        Kind::LoadSegment
    } else {
        Kind::Terminal(Terminal::Segment)
    }
}

/// Whether the register may be loaded from a descriptor that is remembered, see [`super::descriptors`].
fn may_be_remembered(instruction: &Instruction, mode: Mode) -> bool {
    let known = match segment_loaded(instruction) {
        Register::FS | Register::GS => true,
        Register::DS => mode.flat(Seg::Ds),
        Register::ES => mode.flat(Seg::Es),
        _ => false,
    };
    let simple = matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop);
    known && simple && mode.code32() && mode.stack32() && !mode.user()
}

/// Whether an operand is memory that ModRM or an absolute offset addresses.
pub fn has_memory(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory)
}

/// What is to be done with an instruction in `mode`.
pub fn classify(instruction: &Instruction, mode: Mode) -> Kind {
    use Mnemonic::*;
    let rare = Kind::Terminal(Terminal::Rare);
    let register = |n| instruction.op_kind(n) == OpKind::Register;
    match instruction.mnemonic() {
        Mov => {
            let special = |n| {
                register(n)
                    && (instruction.op_register(n).is_cr()
                        || instruction.op_register(n).is_dr()
                        || instruction.op_register(n).is_tr())
            };
            if special(0) || special(1) {
                Kind::Terminal(Terminal::System)
            } else if has_segment_register(instruction) {
                let reads = register(1) && instruction.op_register(1).is_segment_register();
                if reads { Kind::ReadSegment } else { load_segment(instruction, mode) }
            } else {
                plain(instruction)
            }
        }
        // Of 16 bits shifted by more than 16 the manual says nothing, and processors differ.
        Shld | Shrd if instruction.op1_register().is_gpr16() => rare,
        Add | Or | Adc | Sbb | And | Sub | Xor | Cmp | Test | Inc | Dec | Not | Neg | Shl | Sal | Shr
        | Sar | Rol | Ror | Rcl | Rcr | Shld | Shrd | Mul | Imul | Movzx | Movsx | Xchg | Xadd | Cmpxchg
        | Cmpxchg8b | Bsf | Bsr | Cbw | Cwde | Cwd | Cdq | Lahf | Sahf | Cmc | Clc | Stc => {
            plain(instruction)
        }
        Bt | Btc | Btr | Bts => {
            // With a register for the bit's number the operand in memory is anywhere.
            if has_memory(instruction) && register(1) { rare } else { plain(instruction) }
        }
        Bswap => {
            if instruction.op_register(0).is_gpr32() {
                plain(instruction)
            } else {
                rare
            }
        }
        Nop => Kind::Nothing,
        Lea => Kind::Lea,
        Div | Idiv => {
            if uses_stack_pointer(instruction) {
                rare
            } else {
                Kind::Divide
            }
        }
        Push => {
            if has_segment_register(instruction) {
                Kind::PushSegment
            } else {
                Kind::Push
            }
        }
        Pop => {
            if has_segment_register(instruction) {
                load_segment(instruction, mode)
            } else if has_memory(instruction) {
                rare
            } else {
                Kind::Pop
            }
        }
        Pusha | Pushad => Kind::PushAll,
        Popa | Popad => Kind::PopAll,
        Leave => Kind::Leave,
        Cld | Std => Kind::Direction,
        Xlatb => Kind::Xlat,
        Movsb | Movsw | Movsd | Stosb | Stosw | Stosd | Lodsb | Lodsw | Lodsd | Scasb | Scasw | Scasd
        | Cmpsb | Cmpsw | Cmpsd
            if instruction.is_string_instruction() =>
        {
            if instruction.has_rep_prefix() || instruction.has_repne_prefix() {
                if repeats_plainly(instruction, mode) {
                    Kind::Repeat
                } else {
                    Kind::Terminal(Terminal::Repeated)
                }
            } else {
                Kind::String
            }
        }
        Loop | Loope | Loopne | Jcxz | Jecxz => near(instruction, mode, Kind::Loop),
        Jmp => {
            if instruction.is_jmp_short_or_near() {
                near(instruction, mode, Kind::Jump)
            } else if instruction.is_jmp_near_indirect() {
                near(instruction, mode, Kind::JumpIndirect)
            } else {
                far(instruction, mode, Kind::FarJump)
            }
        }
        Call => {
            if instruction.is_call_near() {
                near(instruction, mode, Kind::Call)
            } else if instruction.is_call_near_indirect() {
                near(instruction, mode, Kind::CallIndirect)
            } else {
                far(instruction, mode, Kind::FarCall)
            }
        }
        Ret => near(instruction, mode, Kind::Return),
        Retf => far(instruction, mode, Kind::FarReturn),
        Iret if !mode.user() => far(instruction, mode, Kind::InterruptReturn),
        Pushf | Pushfd if !mode.user() => Kind::PushFlags,
        Popf | Popfd if !mode.user() => Kind::PopFlags,
        In | Out | Insb | Insw | Insd | Outsb | Outsw | Outsd => Kind::Terminal(Terminal::Port),
        Cli | Sti if !mode.user() => Kind::InterruptFlag,
        Pushf | Pushfd | Popf | Popfd | Cli | Sti => Kind::Terminal(Terminal::Flags),
        Lds | Les | Lss | Lfs | Lgs => load_segment(instruction, mode),
        _ if instruction.is_jcc_short_or_near() => {
            let condition = (instruction.condition_code() as u8).wrapping_sub(1);
            near(instruction, mode, Kind::Jcc(condition))
        }
        _ if is_set(instruction) || is_move_if(instruction) => plain(instruction),
        Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2 if mode.sse() => Kind::Nothing,
        _ if is_float(instruction) => {
            if float_is_plain(instruction, mode) {
                Kind::Float
            } else {
                Kind::Terminal(Terminal::Float)
            }
        }
        Aaa | Aas | Aad | Aam | Daa | Das | Enter | Bound | Arpl | Salc => rare,
        _ => Kind::Terminal(Terminal::System),
    }
}

/// Whether a repeated string instruction can be the host's own.
fn repeats_plainly(instruction: &Instruction, mode: Mode) -> bool {
    use Mnemonic::*;
    let wide =
        |n| matches!(instruction.op_kind(n), OpKind::MemoryESEDI | OpKind::MemorySegESI | OpKind::Register);
    let source_is_flat = || match instruction.memory_segment() {
        Register::ES => mode.flat(Seg::Es),
        Register::SS => mode.flat(Seg::Ss),
        Register::DS => mode.flat(Seg::Ds),
        _ => false,
    };
    let plain = match instruction.mnemonic() {
        Movsb | Movsw | Movsd => source_is_flat(),
        Stosb | Stosw | Stosd => true,
        _ => false,
    };
    plain && mode.flat(Seg::Es) && wide(0) && wide(1)
}

fn is_set(instruction: &Instruction) -> bool {
    instruction.condition_code() != iced_x86::ConditionCode::None && instruction.op_count() == 1
}

fn is_move_if(instruction: &Instruction) -> bool {
    instruction.condition_code() != iced_x86::ConditionCode::None && instruction.op_count() == 2
}

fn is_float(instruction: &Instruction) -> bool {
    instruction.cpuid_features().iter().any(|feature| {
        use iced_x86::CpuidFeature::*;
        matches!(feature, FPU | FPU287 | FPU387 | MMX | SSE | SSE2 | FXSR)
    })
}

/// Whether the host's instruction does exactly what the guest's processor would.
fn float_is_plain(instruction: &Instruction, mode: Mode) -> bool {
    use Mnemonic::*;
    let known = instruction.cpuid_features().iter().all(|feature| {
        use iced_x86::CpuidFeature::*;
        match feature {
            FPU | FPU287 | FPU387 | MMX | CMOV => true,
            SSE => mode.sse(),
            SSE2 => mode.sse2(),
            _ => false,
        }
    });
    let other = matches!(
        instruction.mnemonic(),
        // The whole state, or parts of it, where the unit's own idea of the last instruction would show.
        Fnstenv | Fstenv | Fldenv | Fnsave | Fsave | Frstor | Fxsave | Fxrstor
        // Approximations differ between processors.
        | Fsin | Fcos | Fsincos | Fptan | Fpatan | F2xm1 | Fyl2x | Fyl2xp1 | Fprem | Fprem1
        // May unmask exceptions.
        | Ldmxcsr
        // A byte-wise store with a mask.
        | Maskmovq | Maskmovdqu
        // Of the 8087 and 287, without any effect.
        | Fneni | Feni | Fndisi | Fdisi | Fnsetpm | Fsetpm
    );
    // (The size is that of a form with memory, also where the operand is a register.)
    let fits = !has_memory(instruction) || matches!(instruction.memory_size().size(), 1..=16);
    // The SDM, and so iced-x86, counts the form with MMX registers among MMX; it came with SSE2.
    let exists = instruction.mnemonic() != Paddq || mode.sse2();
    known && exists && !other && fits
}

/// A near branch is as wide as the mode's EIP, or it is rare.
fn near(instruction: &Instruction, mode: Mode, kind: Kind) -> Kind {
    let wide = match instruction.mnemonic() {
        Mnemonic::Ret => matches!(instruction.code(), Code::Retnd | Code::Retnd_imm16),
        _ => match instruction.op0_kind() {
            OpKind::NearBranch16 => false,
            OpKind::NearBranch32 => true,
            OpKind::Register => instruction.op0_register().is_gpr32(),
            _ => instruction.memory_size().size() == 4,
        },
    };
    if wide == mode.code32() { kind } else { Kind::Terminal(Terminal::Rare) }
}

/// A far transfer to 16-bit code, or it is the interpreter's.
fn far(instruction: &Instruction, mode: Mode, kind: Kind) -> Kind {
    let short = matches!(
        instruction.code(),
        Code::Jmp_ptr1616
            | Code::Jmp_m1616
            | Code::Call_ptr1616
            | Code::Call_m1616
            | Code::Retfw
            | Code::Retfw_imm16
            | Code::Iretw
    );
    if short && mode.segmented() && !mode.code32() { kind } else { Kind::Terminal(Terminal::System) }
}

/// Taken over, if its registers can be encoded on the host.
fn plain(instruction: &Instruction) -> Kind {
    let unencodable = uses_high_byte(instruction) && uses_stack_pointer(instruction);
    let undocumented = matches!(
        instruction.code(),
        Code::Add_rm8_imm8_82
            | Code::Or_rm8_imm8_82
            | Code::Adc_rm8_imm8_82
            | Code::Sbb_rm8_imm8_82
            | Code::And_rm8_imm8_82
            | Code::Sub_rm8_imm8_82
            | Code::Xor_rm8_imm8_82
            | Code::Cmp_rm8_imm8_82
    );
    if unencodable || undocumented { Kind::Terminal(Terminal::Rare) } else { Kind::Plain }
}
