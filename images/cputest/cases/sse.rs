//! SSE as system software sees it: FXSAVE and FXRSTOR, MXCSR, numeric exceptions.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, code};
use crate::demo::asm::AsmResult;
use exception as x;
use iced_x86::code_asm::*;

/// MXCSR: division by zero and invalid operation, flags and masks, and what no Pentium III has.
const ZE: i32 = 4;
const ZM: i32 = ZE << 7;
const IE: i32 = 1;
const IM: i32 = IE << 7;
const DAZ: i32 = 0x40;
const RESERVED: i32 = 0x1_0000;
const FLAGS: u32 = 0x3F;
/// Offsets in an FXSAVE image.
const IMAGE_TAGS: i32 = 4;
const IMAGE_MXCSR: i32 = 24;
const IMAGE_ST0: i32 = 32;
const IMAGE_XMM0: i32 = 160;
/// An image, 512 bytes.
const IMAGE: i32 = SCRATCH + 0x100;
/// MXCSR as a case starts with it, and what it had afterwards.
const CONTROL: i32 = SCRATCH + 0x7F0;
const CONTROL_AFTER: i32 = SCRATCH + 0x7F4;
/// An XMM register in memory.
const VECTOR: i32 = SCRATCH + 0x7E0;
/// Numbers of single precision.
const ONE: i32 = 0x3F80_0000;
const SIGNALLING: i32 = 0x7FA0_0000;
const PATTERN: i32 = 0x5AA5_1234;

pub fn emit(t: &mut Suite) -> AsmResult {
    images(t)?;
    control(t)?;
    exceptions(t)
}

fn images(t: &mut Suite) -> AsmResult {
    t.ring0("fxsave/image", code! { fninit(); fld1(); movups(xmm0, ptr(VECTOR)); ldmxcsr(dword_ptr(CONTROL)); fxsave(ptr(IMAGE)); })?
        .cr4(ctl::OSFXSR)
        .poke(VECTOR, PATTERN)
        .poke(CONTROL, MXCSR_DEFAULT | ZE)
        .done()
        .memory("control word", IMAGE, 0xFFFF, 0x37F)
        .memory("tags", IMAGE + IMAGE_TAGS, 0xFF, 0x80)
        .memory("MXCSR", IMAGE + IMAGE_MXCSR, u32::MAX, MXCSR_DEFAULT | ZE)
        .memory("ST(0)", IMAGE + IMAGE_ST0 + 4, u32::MAX, i32::MIN)
        .memory("XMM0", IMAGE + IMAGE_XMM0, u32::MAX, PATTERN);
    for off in [1, 4, 8] {
        t.ring0(&format!("fxsave/off-by-{off}"), code! { at(".fault"); fxsave(ptr(IMAGE + off)); })?
            .fault(x::GP, 0)
            .at(".fault")
            .memory("memory", IMAGE + 8, u32::MAX, 0);
        t.ring0(&format!("fxrstor/off-by-{off}"), code! { at(".fault"); fxrstor(ptr(IMAGE + off)); })?
            .fault(x::GP, 0)
            .at(".fault");
    }
    // QEMU accepts DAZ, and all others too.
    for (name, bits) in [("reserved", RESERVED), ("daz", DAZ), ("highest", i32::MIN)] {
        t.ring0(
            &format!("fxrstor/{name}-mxcsr-bit"),
            code! { fxsave(ptr(IMAGE)); or(dword_ptr(IMAGE + IMAGE_MXCSR), bits); at(".fault"); fxrstor(ptr(IMAGE)); },
        )?
        .cr4(ctl::OSFXSR)
        .fault(x::GP, 0)
        .at(".fault");
    }
    t.ring0("fxsave/without-osfxsr-no-xmm", code! { fninit(); fld1(); fxsave(ptr(IMAGE)); })?
        .poke(IMAGE + IMAGE_XMM0, PATTERN)
        .done()
        .memory("control word", IMAGE, 0xFFFF, 0x37F)
        .memory("XMM0", IMAGE + IMAGE_XMM0, u32::MAX, PATTERN);
    t.ring0(
        "fxrstor/without-osfxsr-no-xmm",
        code! {
            movups(xmm0, ptr(VECTOR)); fninit(); fld1(); fxsave(ptr(IMAGE)); not(dword_ptr(IMAGE + IMAGE_XMM0)); fninit();
            mov(eax, cr4); and(eax, !ctl::OSFXSR); mov(cr4, eax); fxrstor(ptr(IMAGE));
            or(eax, ctl::OSFXSR); mov(cr4, eax); movups(ptr(VECTOR), xmm0); fnstenv(ptr(IMAGE));
        },
    )?
    .cr4(ctl::OSFXSR)
    .poke(VECTOR, PATTERN)
    .done()
    .memory("XMM0", VECTOR, u32::MAX, PATTERN)
    .memory("tag word", IMAGE + 8, 0xFFFF, 0x3FFF);
    t.ring0(
        "fxrstor/restores-xmm",
        code! {
            fxsave(ptr(IMAGE)); mov(dword_ptr(IMAGE + IMAGE_XMM0), PATTERN); mov(dword_ptr(IMAGE + IMAGE_MXCSR), MXCSR_DEFAULT | ZE);
            fxrstor(ptr(IMAGE)); movups(ptr(VECTOR), xmm0); stmxcsr(dword_ptr(CONTROL_AFTER));
        },
    )?
    .cr4(ctl::OSFXSR)
    .done()
    .memory("XMM0", VECTOR, u32::MAX, PATTERN)
    .memory("MXCSR", CONTROL_AFTER, u32::MAX, MXCSR_DEFAULT | ZE);
    t.ring0("fxsave/keeps-the-unit", code! { fninit(); fld1(); fxsave(ptr(IMAGE)); fnstsw(ax); })?
        .done()
        .memory("TOP", record::EAX, 0x3800, 0x3800);
    for (name, write) in [("fxsave", true), ("fxrstor", false)] {
        t.ring0(&format!("{name}/into-an-absent-page"), |a| {
            a.at(".fault")?;
            if write {
                a.fxsave(ptr(TEST_B - 0x100))?
            } else {
                a.fxrstor(ptr(TEST_B - 0x100))?
            };
            Ok(())
        })?
        .cr4(ctl::OSFXSR)
        .paging()
        .poke(TEST_B_PTE, 0)
        .fault(x::PF, if write { 2 } else { 0 })
        .at(".fault")
        .memory("page in CR2", record::CR2, !0xFFF, TEST_B);
    }
    Ok(())
}

fn control(t: &mut Suite) -> AsmResult {
    // QEMU accepts these too.
    for (name, bits) in [("reserved", RESERVED), ("daz", DAZ), ("highest", i32::MIN)] {
        t.ring0(&format!("ldmxcsr/{name}-bit"), code! { at(".fault"); ldmxcsr(dword_ptr(CONTROL)); })?
            .cr4(ctl::OSFXSR)
            .poke(CONTROL, MXCSR_DEFAULT | bits)
            .fault(x::GP, 0)
            .at(".fault");
    }
    t.ring0(
        "ldmxcsr/everything-else",
        code! { ldmxcsr(dword_ptr(CONTROL)); stmxcsr(dword_ptr(CONTROL_AFTER)); },
    )?
    .cr4(ctl::OSFXSR)
    .poke(CONTROL, 0xFFBF)
    .done()
    .memory("MXCSR", CONTROL_AFTER, u32::MAX, 0xFFBF);
    Ok(())
}

fn exceptions(t: &mut Suite) -> AsmResult {
    let load = code! { ldmxcsr(dword_ptr(CONTROL)); movups(xmm0, ptr(VECTOR)); xorps(xmm1, xmm1); };
    let after = code! {
        // Keeps what the instruction left, and ends the case.
        at("sse.after");
        movups(ptr(VECTOR), xmm0); stmxcsr(dword_ptr(CONTROL_AFTER)); mov(eax, dword_ptr(esp)); int(x::DONE);
    };
    after(&mut t.a)?;
    const BOTH: i32 = ctl::OSFXSR | ctl::OSXMMEXCPT;
    // QEMU's TCG raises no SSE exceptions.
    t.ring0("xm/division-by-zero", code! { at(".fault"); divss(xmm0, xmm1); })?
        .cr4(BOTH)
        .poke(CONTROL, MXCSR_DEFAULT & !ZM)
        .poke(VECTOR, ONE)
        .plain_fault(x::XM)
        .at(".fault");
    t.setup(load)?;
    t.ring0("xm/without-osxmmexcpt-is-ud", code! { at(".fault"); divss(xmm0, xmm1); })?
        .cr4(ctl::OSFXSR)
        .poke(CONTROL, MXCSR_DEFAULT & !ZM)
        .poke(VECTOR, ONE)
        .plain_fault(x::UD)
        .at(".fault");
    t.setup(load)?;
    t.ring0(
        "xm/masked",
        code! { divss(xmm0, xmm1); stmxcsr(dword_ptr(CONTROL_AFTER)); movups(ptr(VECTOR), xmm0); },
    )?
    .cr4(BOTH)
    .poke(CONTROL, MXCSR_DEFAULT)
    .poke(VECTOR, ONE)
    .done()
    .memory("flags", CONTROL_AFTER, FLAGS, ZE)
    .memory("infinity", VECTOR, u32::MAX, 0x7F80_0000);
    t.setup(load)?;
    for (name, bits, vector) in [("xm", BOTH, x::XM), ("ud", ctl::OSFXSR, x::UD)] {
        t.ring0(
            &format!("{name}/flags-are-set-and-the-register-is-kept"),
            code! { at(".fault"); divps(xmm0, xmm1); },
        )?
        .cr4(bits)
        .poke(CONTROL, MXCSR_DEFAULT & !ZM)
        .poke(VECTOR, ONE)
        .poke(VECTOR + 4, ONE)
        .done()
        .memory_label("EIP", record::EAX, ".fault")
        .memory("register", VECTOR, u32::MAX, ONE)
        .memory("flags", CONTROL_AFTER, FLAGS, ZE | IE);
        t.setup(|a| {
            load(a)?;
            // The other elements: 0 / 0 is masked.
            a.set_gate(vector, "sse.after", GATE_INTERRUPT)
        })?;
    }
    t.ring0("xm/old-flags-raise-nothing", code! { divss(xmm1, xmm0); addps(xmm0, xmm1); })?
        .cr4(BOTH)
        .poke(CONTROL, MXCSR_DEFAULT & !ZM | ZE)
        .poke(VECTOR, ONE)
        .done();
    t.setup(load)?;
    t.ring0("xm/comiss-of-a-signalling-nan", code! { at(".fault"); comiss(xmm0, xmm1); })?
        .cr4(BOTH)
        .poke(CONTROL, MXCSR_DEFAULT & !IM)
        .poke(VECTOR, SIGNALLING)
        .plain_fault(x::XM)
        .at(".fault");
    t.setup(load)?;
    t.ring0(
        "xm/moves-raise-nothing",
        code! { movss(xmm2, xmm0); andps(xmm0, xmm1); shufps(xmm0, xmm1, 0); },
    )?
    .cr4(BOTH)
    .poke(CONTROL, 0)
    .poke(VECTOR, SIGNALLING)
    .done();
    t.setup(load)?;
    t.ring3("xm/at-level-3", code! { at(".fault"); divss(xmm0, xmm1); })?
        .cr4(BOTH)
        .poke(CONTROL, MXCSR_DEFAULT & !ZM)
        .poke(VECTOR, ONE)
        .plain_fault(x::XM)
        .at(".fault")
        .cs(CODE3)
        .memory("ESP", record::ESP, u32::MAX, STACK_USER);
    t.setup(load)?;
    // Alignment: 16-byte operands.
    t.ring0("sse/misaligned-operand", code! { at(".fault"); addps(xmm0, ptr(VECTOR + 4)); })?
        .cr4(ctl::OSFXSR)
        .fault(x::GP, 0)
        .at(".fault");
    t.ring0("sse/misaligned-movaps", code! { at(".fault"); movaps(ptr(VECTOR + 8), xmm0); })?
        .cr4(ctl::OSFXSR)
        .fault(x::GP, 0)
        .at(".fault");
    Ok(())
}
