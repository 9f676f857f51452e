//! MMX, SSE and SSE2: that every form exists where it should, and what goes before and around the computation.
//! What is computed is compared with silicon in `host_simd.rs`.

use super::{Bench, DATA};
use crate::cpu::Vcpu;
use crate::cpu::fault::{Exec, Fault};
use crate::cpu::fpu::{fsw, mxcsr};
use crate::cpu::model::CpuModel;
use crate::cpu::registers::{Seg, cr0, cr4, eflags, rights, vector};
use crate::cpu::state::Segment;
use crate::cpu::testing::{DEVICE_PAGE, RamBus};
use crate::interp::decode::{Outcome, decode};
use iced_x86::{
    Code, CpuidFeature, Encoder, EncodingKind, Instruction, MemoryOperand, Mnemonic, OpCodeOperandKind,
    OpKind, Register,
};

/// One way to write an instruction: with or without a memory operand, which is at `[eax]` (or `[edi]`).
pub(super) struct Form {
    pub(super) code: Code,
    pub(super) memory: bool,
}

/// Every form that MMX, SSE, SSE2 and CLFSH brought.
pub(super) fn forms() -> Vec<Form> {
    let ours = |feature: &CpuidFeature| {
        matches!(feature, CpuidFeature::MMX | CpuidFeature::SSE | CpuidFeature::SSE2 | CpuidFeature::CLFSH)
    };
    let codes = Code::values().filter(|code| {
        let details = code.op_code();
        details.encoding() == EncodingKind::Legacy
            && details.mode32()
            && code.cpuid_features().iter().any(ours)
            && !prefetches(code.mnemonic())
    });
    codes
        .flat_map(|code| [Form { code, memory: false }, Form { code, memory: true }])
        .filter(|form| form.instruction([0; 3], 0).is_some())
        .collect()
}

/// Hint NOPs: see `decode.rs`.
fn prefetches(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(mnemonic, Prefetchnta | Prefetcht0 | Prefetcht1 | Prefetcht2)
}

impl Form {
    /// The instruction with these registers; `None` if the form does not exist. General registers are ECX and EDX.
    pub(super) fn instruction(&self, registers: [u32; 3], imm: u8) -> Option<Instruction> {
        use OpCodeOperandKind as Kind;
        let details = self.code.op_code();
        let mut instruction = Instruction::with(self.code);
        let mut used_memory = false;
        for (n, number) in (0..details.op_count()).zip(registers) {
            let register = match details.op_kind(n) {
                Kind::mm_or_mem | Kind::xmm_or_mem | Kind::r32_or_mem | Kind::mem if self.memory => {
                    instruction.set_op_kind(n, OpKind::Memory);
                    instruction.set_memory_base(Register::EAX);
                    used_memory = true;
                    continue;
                }
                Kind::seg_rDI => {
                    if !self.memory {
                        return None;
                    }
                    instruction.set_op_kind(n, OpKind::MemorySegEDI);
                    used_memory = true;
                    continue;
                }
                Kind::imm8 => {
                    instruction.set_op_kind(n, OpKind::Immediate8);
                    instruction.set_immediate8(imm);
                    continue;
                }
                Kind::mm_or_mem | Kind::mm_reg | Kind::mm_rm => Register::MM0 + (number & 7),
                Kind::xmm_or_mem | Kind::xmm_reg | Kind::xmm_rm => Register::XMM0 + (number & 7),
                Kind::r32_or_mem | Kind::r32_reg | Kind::r32_rm => Register::ECX + (number & 1),
                Kind::mem => return None,
                kind => panic!("{:?}: operand {kind:?}", self.code),
            };
            instruction.set_op_kind(n, OpKind::Register);
            instruction.set_op_register(n, register);
        }
        (used_memory == self.memory).then_some(instruction)
    }

    pub(super) fn bytes(&self, registers: [u32; 3], imm: u8) -> Vec<u8> {
        encode(&self.instruction(registers, imm).unwrap())
    }

    /// Bytes of its memory operand.
    fn memory_size(&self) -> usize {
        let size = self.instruction([0; 3], 0).unwrap().memory_size().size();
        if self.memory { size } else { 0 }
    }

    /// Whether the memory operand must be aligned to 16 bytes.
    pub(super) fn wants_alignment(&self) -> bool {
        use Mnemonic::*;
        self.memory_size() == 16 && !matches!(self.code.mnemonic(), Movups | Movupd | Movdqu | Maskmovdqu)
    }

    /// The feature that brought it.
    fn feature(&self) -> CpuidFeature {
        match self.code {
            // iced, and the manual's page, say MMX; but it came with all other arithmetic on quadwords.
            Code::Paddq_mm_mmm64 => CpuidFeature::SSE2,
            code => code.cpuid_features()[0],
        }
    }

    /// Whether an operand is an MMX (`mm`) or XMM register, or would be without memory.
    fn uses(&self, wanted: &[OpCodeOperandKind]) -> bool {
        (0..self.code.op_code().op_count()).any(|n| wanted.contains(&self.code.op_code().op_kind(n)))
    }

    fn uses_mmx(&self) -> bool {
        use OpCodeOperandKind::*;
        // CVTPI2PD of memory is no MMX instruction.
        let pure = self.memory && self.code.mnemonic() == Mnemonic::Cvtpi2pd;
        !pure && (self.uses(&[mm_reg, mm_rm, mm_or_mem]) || self.code == Code::Emms)
    }

    fn uses_xmm(&self) -> bool {
        use OpCodeOperandKind::*;
        self.uses(&[xmm_reg, xmm_rm, xmm_or_mem])
            || matches!(self.code.mnemonic(), Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr)
    }
}

fn encode(instruction: &Instruction) -> Vec<u8> {
    let mut encoder = Encoder::new(32);
    encoder.encode(instruction, 0).unwrap();
    encoder.take_buffer()
}

/// A processor that has everything, with flat segments.
pub(super) fn bench() -> Bench {
    let mut bench = Bench::flat(&[]);
    bench.cpu.state.model = CpuModel::Max;
    bench.cpu.state.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT;
    bench.cpu.state.gpr[0] = DATA;
    bench.cpu.state.gpr[7] = DATA;
    bench
}

fn execute(cpu: &mut Vcpu<RamBus>, bytes: &[u8]) -> Exec {
    match decode::<RamBus>(bytes, true) {
        Outcome::Op(op, _) => (op.handler)(cpu, &op),
        Outcome::Incomplete => panic!("{bytes:02x?} is incomplete"),
    }
}

fn two(code: Code, a: Register, b: Register) -> Vec<u8> {
    encode(&Instruction::with2(code, a, b).unwrap())
}

fn store(code: Code, a: Register) -> Vec<u8> {
    encode(&Instruction::with2(code, MemoryOperand::with_base(Register::EAX), a).unwrap())
}

fn singles(values: [f32; 4]) -> u128 {
    values.iter().rev().fold(0, |vector, value| vector << 32 | u128::from(value.to_bits()))
}

#[test]
fn every_form_has_a_handler() {
    let mut bench = bench();
    let forms = forms();
    assert!(forms.len() > 400, "{} forms", forms.len());
    for form in forms {
        // LDMXCSR reads a dword of zeros.
        let bytes = form.bytes([1, 2, 3], 1);
        assert_eq!(execute(&mut bench.cpu, &bytes), Ok(()), "{:?}: {bytes:02x?}", form.code);
        bench.cpu.state.fpu.mxcsr = mxcsr::AFTER_RESET;
    }
}

#[test]
fn forms_that_the_model_does_not_have_are_undefined() {
    for form in forms() {
        let bytes = form.bytes([1, 2, 3], 1);
        for (model, missing) in [
            (CpuModel::Pentium2, [CpuidFeature::SSE, CpuidFeature::SSE2, CpuidFeature::CLFSH].as_slice()),
            (CpuModel::Pentium3, &[CpuidFeature::SSE2, CpuidFeature::CLFSH]),
            (CpuModel::Max, &[]),
        ] {
            let mut bench = bench();
            bench.cpu.state.model = model;
            let expected = if missing.contains(&form.feature()) { Err(Fault::ud()) } else { Ok(()) };
            assert_eq!(execute(&mut bench.cpu, &bytes), expected, "{:?} of a {model:?}", form.code);
        }
    }
}

#[test]
fn extensions_that_later_processors_have_are_undefined() {
    let mut bench = bench();
    for (name, bytes) in [
        ("haddps", &[0xf2, 0x0f, 0x7c, 0xc1][..]),
        ("lddqu", &[0xf2, 0x0f, 0xf0, 0x00]),
        ("movsldup", &[0xf3, 0x0f, 0x12, 0xc1]),
        ("pshufb", &[0x0f, 0x38, 0x00, 0xc1]),
        ("pextrw to memory", &[0x66, 0x0f, 0x3a, 0x15, 0x00, 0x00]),
        ("pfadd", &[0x0f, 0x0f, 0xc1, 0x9e]),
        ("f3 paddb", &[0xf3, 0x0f, 0xfc, 0xc1]),
        ("vaddps", &[0xc5, 0xf0, 0x58, 0xc2]),
    ] {
        assert_eq!(execute(&mut bench.cpu, bytes), Err(Fault::ud()), "{name}");
    }
    assert_eq!(execute(&mut bench.cpu, &[0x0f, 0x18, 0x08]), Ok(()), "prefetcht0");
    assert_eq!(execute(&mut bench.cpu, &[0xf3, 0x90]), Ok(()), "pause");
}

#[test]
fn lock_is_undefined_with_all_of_them() {
    let mut bench = bench();
    for form in forms() {
        let mut bytes = vec![0xf0];
        bytes.extend(form.bytes([1, 2, 3], 1));
        assert_eq!(execute(&mut bench.cpu, &bytes), Err(Fault::ud()), "{:?}", form.code);
    }
}

#[test]
fn control_registers_and_pending_x87_exceptions_come_first() {
    for form in forms() {
        let bytes = form.bytes([1, 2, 3], 1);
        let registers = form.uses_mmx() || form.uses_xmm();
        let check = |what: &str, expected: Option<Fault>, prepare: &dyn Fn(&mut Vcpu<RamBus>)| {
            let mut bench = bench();
            // Comes before a fault of the memory operand.
            bench.cpu.state.segments[Seg::Ds as usize] = Segment::null(0);
            let otherwise = if form.memory { Err(Fault::gp(0)) } else { Ok(()) };
            prepare(&mut bench.cpu);
            let expected = expected.map_or(otherwise, Err);
            assert_eq!(execute(&mut bench.cpu, &bytes), expected, "{:?}, {what}", form.code);
        };
        // An empty mask writes nothing.
        if matches!(form.code.mnemonic(), Mnemonic::Maskmovq | Mnemonic::Maskmovdqu) {
            continue;
        }
        check("CR0.TS", registers.then(Fault::nm), &|cpu| cpu.state.cr0 |= cr0::TS);
        check("CR0.EM", registers.then(Fault::ud), &|cpu| cpu.state.cr0 |= cr0::EM | cr0::TS);
        check("no OSFXSR", form.uses_xmm().then(Fault::ud), &|cpu| cpu.state.cr4 = 0);
        check("pending #MF", form.uses_mmx().then(Fault::mf), &|cpu| {
            cpu.state.cr0 |= cr0::NE;
            cpu.state.fpu.status |= fsw::ES;
        });
    }
}

#[test]
fn sixteen_bytes_of_memory_must_be_aligned_but_for_unaligned_moves() {
    let mut seen = 0;
    for form in forms().iter().filter(|form| form.memory_size() == 16) {
        let mut bench = bench();
        bench.cpu.state.gpr[0] = DATA + 8;
        bench.cpu.state.gpr[7] = DATA + 8;
        let expected = if form.wants_alignment() { Err(Fault::gp(0)) } else { Ok(()) };
        let bytes = form.bytes([1, 2, 3], 1);
        assert_eq!(execute(&mut bench.cpu, &bytes), expected, "{:?}", form.code);
        seen += 1;
    }
    assert!(seen > 100, "{seen} forms");
}

#[test]
fn misaligned_operands_outside_the_stack_segment_are_a_protection_fault() {
    let mut bench = bench();
    let stack = &mut bench.cpu.state.segments[Seg::Ss as usize];
    *stack = Segment::new(stack.selector, stack.rights(), 0, DATA);
    bench.cpu.state.gpr[5] = DATA;
    // MOVAPS xmm0, [ebp + disp8]
    let load = |displacement: u8| [0x0f, 0x28, 0x45, displacement];
    assert_eq!(execute(&mut bench.cpu, &load(8)), Err(Fault::gp(0)));
    assert_eq!(execute(&mut bench.cpu, &load(16)), Err(Fault::ss(0)));
}

#[test]
fn a_store_across_pages_writes_all_or_nothing() {
    let mut bench = bench();
    bench.cpu.bus.poke32(0x2_0000, 0x2_1007);
    for page in 0..64 {
        let present = if page == DATA / 0x1000 + 1 { 0 } else { 7 };
        bench.cpu.bus.poke32(0x2_1000 + u64::from(page) * 4, page << 12 | present);
    }
    bench.cpu.state.cr3 = 0x2_0000;
    bench.cpu.state.cr0 |= cr0::PG;
    bench.cpu.state_replaced();
    let last = DATA + 0xff8;
    bench.cpu.state.gpr[0] = last;
    bench.cpu.state.fpu.xmm[1] = u128::MAX;
    let bytes = store(Code::Movups_xmmm128_xmm, Register::XMM1);
    let fault = execute(&mut bench.cpu, &bytes).unwrap_err();
    assert_eq!((fault.vector(), fault.payload()), (vector::PF, last + 8));
    assert_eq!(bench.cpu.bus.peek32(u64::from(last)), 0);
    // With the page there it is one store.
    bench.cpu.bus.poke32(0x2_1000 + u64::from(DATA / 0x1000 + 1) * 4, (DATA + 0x1000) | 7);
    assert_eq!(execute(&mut bench.cpu, &bytes), Ok(()));
    for at in 0..4 {
        assert_eq!(bench.cpu.bus.peek32(u64::from(last) + 4 * at), u32::MAX);
    }
}

#[test]
fn alignment_checking_wants_unaligned_moves_on_eight_bytes() {
    let mut bench = bench();
    bench.cpu.state.cr0 |= cr0::AM;
    for seg in Seg::ALL {
        bench.cpu.state.segments[seg as usize] = Segment::new(0xb, rights::FLAT_DATA | 0x60, 0, u32::MAX);
    }
    bench.cpu.state.cpl = 3;
    bench.cpu.state.eflags |= eflags::AC;
    bench.cpu.state_replaced();
    let bytes = store(Code::Movups_xmmm128_xmm, Register::XMM1);
    bench.cpu.state.gpr[0] = DATA + 8;
    assert_eq!(execute(&mut bench.cpu, &bytes), Ok(()));
    bench.cpu.state.gpr[0] = DATA + 4;
    assert_eq!(execute(&mut bench.cpu, &bytes), Err(Fault::ac()));
    let aligned = store(Code::Movaps_xmmm128_xmm, Register::XMM1);
    assert_eq!(execute(&mut bench.cpu, &aligned), Err(Fault::gp(0)));
}

#[test]
fn mmx_writes_fill_x87_registers_and_emms_empties_them() {
    let mut bench = bench();
    let fpu = &mut bench.cpu.state.fpu;
    fpu.valid = 0;
    fpu.set_top(5);
    fpu.registers[2].significand = 7;
    let bytes = two(Code::Paddd_mm_mmm64, Register::MM3, Register::MM2);
    assert_eq!(execute(&mut bench.cpu, &bytes), Ok(()));
    let fpu = &bench.cpu.state.fpu;
    assert_eq!((fpu.registers[3].significand, fpu.registers[3].sign_exponent), (7, 0xffff));
    assert_eq!(fpu.registers[2].sign_exponent, 0, "a register that is only read keeps its exponent");
    assert_eq!((fpu.valid, fpu.top()), (0xff, 0));
    bench.cpu.state.fpu.set_top(5);
    assert_eq!(execute(&mut bench.cpu, &two(Code::Movd_rm32_mm, Register::ECX, Register::MM2)), Ok(()));
    assert_eq!(bench.cpu.state.fpu.top(), 0, "reading is enough");
    assert_eq!(execute(&mut bench.cpu, &[0x0f, 0x77]), Ok(()));
    assert_eq!(bench.cpu.state.fpu.valid, 0);
}

#[test]
fn an_unmasked_exception_changes_only_flags() {
    let mut bench = bench();
    let one_third = singles([1.0, 1.0, 1.0, 1.0]);
    bench.cpu.state.fpu.xmm[0] = one_third;
    bench.cpu.state.fpu.xmm[1] = singles([3.0, 0.0, 3.0, 3.0]);
    // Division by zero unmasked. PE was set before and stays; OE is masked.
    let zm = 1 << (mxcsr::MASKS_SHIFT + 2);
    bench.cpu.state.fpu.mxcsr = mxcsr::AFTER_RESET & !zm;
    let bytes = two(Code::Divps_xmm_xmmm128, Register::XMM0, Register::XMM1);
    assert_eq!(execute(&mut bench.cpu, &bytes), Err(Fault::xm()));
    assert_eq!(bench.cpu.state.fpu.xmm[0], one_third);
    assert_eq!(bench.cpu.state.fpu.mxcsr & mxcsr::EXCEPTIONS, 1 << 2, "other lanes are not computed");
    bench.cpu.state.cr4 &= !cr4::OSXMMEXCPT;
    assert_eq!(execute(&mut bench.cpu, &bytes), Err(Fault::ud()));
    // A flag that is left over raises nothing.
    bench.cpu.state.fpu.xmm[1] = singles([3.0; 4]);
    assert_eq!(execute(&mut bench.cpu, &bytes), Ok(()));
    assert_eq!(bench.cpu.state.fpu.xmm[0], singles([1.0 / 3.0; 4]));
    assert_eq!(bench.cpu.state.fpu.mxcsr & mxcsr::EXCEPTIONS, 1 << 2 | 1 << 5);
}

#[test]
fn exceptions_of_the_result_are_collected_from_all_lanes() {
    let mut bench = bench();
    let before = singles([f32::MAX, 1.0, 1.0, 1.0]);
    bench.cpu.state.fpu.xmm[0] = before;
    bench.cpu.state.fpu.xmm[1] = singles([f32::MAX, 1.0e-30, 1.0, f32::from_bits(1)]);
    let om = 1 << (mxcsr::MASKS_SHIFT + 3);
    bench.cpu.state.fpu.mxcsr = mxcsr::AFTER_RESET & !om;
    let bytes = two(Code::Addps_xmm_xmmm128, Register::XMM0, Register::XMM1);
    assert_eq!(execute(&mut bench.cpu, &bytes), Err(Fault::xm()));
    assert_eq!(bench.cpu.state.fpu.xmm[0], before);
    assert_eq!(bench.cpu.state.fpu.mxcsr & mxcsr::EXCEPTIONS, 1 << 1 | 1 << 3 | 1 << 5);
}

#[test]
fn mxcsr_bits_that_do_not_exist_are_refused() {
    let mut bench = bench();
    let load = [0x0f, 0xae, 0x10];
    for (model, value, expected) in [
        (CpuModel::Max, 0xffff, Ok(())),
        (CpuModel::Max, 0x1_0000, Err(Fault::gp(0))),
        (CpuModel::Pentium3, 0xffbf, Ok(())),
        (CpuModel::Pentium3, mxcsr::DAZ, Err(Fault::gp(0))),
    ] {
        bench.cpu.state.model = model;
        bench.cpu.state.fpu.mxcsr = 0;
        bench.cpu.bus.poke32(u64::from(DATA), value);
        assert_eq!(execute(&mut bench.cpu, &load), expected, "{value:#x} of a {model:?}");
        assert_eq!(bench.cpu.state.fpu.mxcsr, if expected.is_ok() { value } else { 0 });
    }
}

#[test]
fn masked_stores_write_the_selected_bytes_and_fault_for_none_else() {
    let mut bench = bench();
    bench.cpu.state.fpu.xmm[0] = 0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100;
    bench.cpu.state.fpu.xmm[1] = 0x8000_0000_0000_0000_0000_0000_0080_00ff;
    bench.cpu.state.gpr[7] = DATA + 1;
    let bytes = [0x66, 0x0f, 0xf7, 0xc1];
    bench.cpu.bus.load(u64::from(DATA), &[0xee; 18]);
    assert_eq!(execute(&mut bench.cpu, &bytes), Ok(()));
    let mut expected = [0xeeu8; 18];
    (expected[1], expected[3], expected[16]) = (0, 2, 15);
    for (n, byte) in expected.iter().enumerate() {
        assert_eq!(bench.cpu.read_u8(Seg::Ds, DATA + n as u32), Ok(*byte), "byte {n}");
    }
    bench.cpu.state.segments[Seg::Ds as usize] = Segment::null(0);
    assert_eq!(execute(&mut bench.cpu, &bytes), Err(Fault::gp(0)));
    bench.cpu.state.fpu.xmm[1] = 0;
    assert_eq!(execute(&mut bench.cpu, &bytes), Ok(()));
}

#[test]
fn masked_stores_follow_address_size_and_segment_override() {
    let mut bench = bench();
    bench.cpu.state.segments[Seg::Es as usize] = Segment::new(8, rights::FLAT_DATA, 0x100, u32::MAX);
    *bench.cpu.state.fpu.mm_mut(0) = u64::from_le_bytes(*b"abcdefgh");
    *bench.cpu.state.fpu.mm_mut(1) = u64::MAX;
    bench.cpu.state.gpr[7] = 0x7654_3000;
    // es maskmovq mm0, mm1 with 16-bit addressing
    assert_eq!(execute(&mut bench.cpu, &[0x26, 0x67, 0x0f, 0xf7, 0xc1]), Ok(()));
    assert_eq!(bench.cpu.bus.peek32(0x3100), u32::from_le_bytes(*b"abcd"));
    assert_eq!(bench.cpu.bus.peek32(0x3104), u32::from_le_bytes(*b"efgh"));
}

#[test]
fn sixteen_bytes_of_device_memory_are_moved_in_dwords() {
    let mut bench = bench();
    bench.cpu.state.gpr[0] = DEVICE_PAGE as u32 + 0x10;
    bench.cpu.state.fpu.xmm[1] = 0x4444_4444_3333_3333_2222_2222_1111_1111;
    assert_eq!(execute(&mut bench.cpu, &store(Code::Movaps_xmmm128_xmm, Register::XMM1)), Ok(()));
    let written: Vec<_> =
        bench.cpu.bus.device_log.iter().map(|(at, _, value)| (*at, value.unwrap())).collect();
    let expected = [0x1111_1111, 0x2222_2222, 0x3333_3333, 0x4444_4444];
    assert_eq!(
        written,
        [0u64, 4, 8, 12].map(|at| DEVICE_PAGE + 0x10 + at).into_iter().zip(expected).collect::<Vec<_>>()
    );
    let load =
        Instruction::with2(Code::Movups_xmm_xmmm128, Register::XMM0, MemoryOperand::with_base(Register::EAX));
    assert_eq!(execute(&mut bench.cpu, &encode(&load.unwrap())), Ok(()));
    assert_eq!(bench.cpu.state.fpu.xmm[0], bench.cpu.state.fpu.xmm[1]);
}
