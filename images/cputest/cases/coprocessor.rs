//! The floating-point unit as system software sees it: when it is available, and how its errors arrive.

use crate::cputest::layout::*;
use crate::cputest::suite::{Suite, Write, code};
use crate::demo::asm::AsmResult;
use crate::demo::chips::pic;
use exception as x;
use iced_x86::code_asm::*;

/// x87 control words: everything masked; all but division by zero.
const ALL_MASKED: i32 = 0x37F;
const ZERO_UNMASKED: i32 = 0x37B;
/// x87 status word.
const ZE: i32 = 4;
const ES: i32 = 0x80;
const B: i32 = 0x8000;
/// Where the cases find [`ZERO_UNMASKED`].
const CONTROL: i32 = SCRATCH + 0x7F0;
/// An environment or an image is stored here.
const IMAGE: i32 = SCRATCH + 0x100;
/// Offset of the address of the instruction in a 32-bit environment.
const ENVIRONMENT_FIP: i32 = 12;

pub fn emit(t: &mut Suite) -> AsmResult {
    let errors = code! {
        // Leaves an unmasked exception pending.
        at("x87.error");
        fninit(); fldcw(word_ptr(CONTROL)); fld1(); fldz();
        at("x87.division");
        fdivp(st1, st0); ret();
    };
    errors(&mut t.a)?;
    availability(t)?;
    reported(t)?;
    not_reported(t)?;
    priorities(t)?;
    external(t)
}

/// Every combination of EM, MP and TS with what the unit has (SDM 3A, table 2-2).
fn availability(t: &mut Suite) -> AsmResult {
    // QEMU's TCG takes TS before EM for MMX and SSE.
    let kinds: [(&str, Write); 7] = [
        ("esc", code! { at(".fault"); fnop(); }),
        ("wait", code! { at(".fault"); wait(); }),
        ("mmx", code! { at(".fault"); paddb(mm0, mm1); }),
        ("mmx-of-sse", code! { at(".fault"); pshufw(mm0, mm1, 0); }),
        ("sse", code! { at(".fault"); andps(xmm0, xmm1); }),
        ("fxsave", code! { at(".fault"); fxsave(ptr(IMAGE)); }),
        ("ldmxcsr", code! { at(".fault"); ldmxcsr(dword_ptr(CONTROL)); }),
    ];
    for (kind, write) in kinds {
        for bits in 0..8 {
            let (em, mp, ts) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
            let vector = match kind {
                "esc" | "fxsave" => (em || ts).then_some(x::NM),
                "wait" => (mp && ts).then_some(x::NM),
                _ if em => Some(x::UD),
                _ => ts.then_some(x::NM),
            };
            let name: Vec<_> = [(em, "em"), (mp, "mp"), (ts, "ts")]
                .iter()
                .filter_map(|(set, name)| set.then_some(*name))
                .collect();
            let name = if name.is_empty() { "nothing".into() } else { name.join("-") };
            let case = t.ring0(&format!("coprocessor/{kind}-with-{name}"), write)?;
            case.cr4(ctl::OSFXSR).poke(CONTROL, MXCSR_DEFAULT);
            for (set, bit) in [(em, ctl::EM), (mp, ctl::MP), (ts, ctl::TS)] {
                if set {
                    case.cr0(bit);
                }
            }
            match vector {
                Some(vector) => case.plain_fault(vector).at(".fault"),
                None => case.done(),
            };
        }
    }
    // QEMU's TCG looks at neither bit for EMMS.
    t.ring0("coprocessor/emms-with-em", code! { at(".fault"); emms(); })?
        .cr0(ctl::EM)
        .plain_fault(x::UD)
        .at(".fault");
    t.ring0("coprocessor/emms-with-ts", code! { at(".fault"); emms(); })?
        .cr0(ctl::TS)
        .plain_fault(x::NM)
        .at(".fault");
    t.ring0("coprocessor/sse-without-osfxsr", code! { at(".fault"); andps(xmm0, xmm1); })?
        .plain_fault(x::UD)
        .at(".fault");
    t.ring0("coprocessor/sse-without-osfxsr-with-ts", code! { at(".fault"); andps(xmm0, xmm1); })?
        .cr0(ctl::TS)
        .plain_fault(x::UD)
        .at(".fault");
    t.ring0("coprocessor/ldmxcsr-without-osfxsr", code! { at(".fault"); ldmxcsr(dword_ptr(CONTROL)); })?
        .plain_fault(x::UD)
        .at(".fault");
    // What touches no register needs nothing.
    t.ring0(
        "coprocessor/sse-without-registers",
        code! { sfence(); prefetchnta(byte_ptr(SCRATCH)); pshufw(mm0, mm1, 0); },
    )?
    .done();
    t.ring0("coprocessor/fences-with-em-and-ts", code! { sfence(); prefetchnta(byte_ptr(SCRATCH)); })?
        .cr0(ctl::EM | ctl::TS)
        .done();
    t.ring0("coprocessor/clts", code! { clts(); smsw(ax); })?.cr0(ctl::TS).done().memory(
        "TS",
        record::EAX,
        ctl::TS as u32,
        0,
    );
    Ok(())
}

/// Gives the latest case a pending error.
fn pending(t: &mut Suite) -> AsmResult {
    t.setup(code! { call("x87.error"); })
}

/// With CR0.NE the next waiting instruction is #MF.
fn reported(t: &mut Suite) -> AsmResult {
    let waiting: [(&str, Write); 12] = [
        ("fld1", code! { at(".fault"); fld1(); }),
        ("fxch", code! { at(".fault"); fxch(st0, st1); }),
        ("fnop", code! { at(".fault"); fnop(); }),
        ("fst", code! { at(".fault"); fst(dword_ptr(SCRATCH)); }),
        ("fldcw", code! { at(".fault"); fldcw(word_ptr(SCRATCH)); }),
        ("fldenv", code! { at(".fault"); fldenv(ptr(IMAGE)); }),
        ("frstor", code! { at(".fault"); frstor(ptr(IMAGE)); }),
        ("wait", code! { at(".fault"); wait(); }),
        ("emms", code! { at(".fault"); emms(); }),
        ("mmx", code! { at(".fault"); paddb(mm0, mm1); }),
        ("mmx-store", code! { at(".fault"); movq(qword_ptr(SCRATCH), mm0); }),
        ("cvtpi2ps", code! { at(".fault"); cvtpi2ps(xmm0, mm0); }),
    ];
    // QEMU's TCG reports at WAIT and FNOP only.
    for (name, write) in waiting {
        t.ring0(&format!("mf/{name}"), write)?
            .cr0(ctl::NE)
            .cr4(ctl::OSFXSR)
            .poke(CONTROL, ZERO_UNMASKED)
            .plain_fault(x::MF)
            .at(".fault")
            .cs(CODE0)
            .memory("memory", SCRATCH, u32::MAX, 0);
        pending(t)?;
    }
    t.ring3("mf/at-level-3", code! { nop(); at(".fault"); fld1(); })?
        .cr0(ctl::NE)
        .poke(CONTROL, ZERO_UNMASKED)
        .plain_fault(x::MF)
        .at(".fault")
        .cs(CODE3)
        .eflags(flag::RF, flag::RF)
        .memory("SS", record::SS, 0xFFFF, DATA3.into())
        .memory("ESP", record::ESP, u32::MAX, STACK_USER);
    pending(t)?;
    t.ring0(
        "mf/fldcw-unmasks-an-old-error",
        code! {
            fninit(); fld1(); fldz(); fdivp(st1, st0); wait();
            fldcw(word_ptr(CONTROL)); nop(); at(".fault"); fld1();
        },
    )?
    .cr0(ctl::NE)
    .poke(CONTROL, ZERO_UNMASKED)
    .plain_fault(x::MF)
    .at(".fault");
    t.ring0(
        "mf/fldenv-brings-an-error",
        code! {
            call("x87.error"); fnstenv(ptr(IMAGE)); fninit(); wait();
            mov(dword_ptr(IMAGE), ZERO_UNMASKED); fldenv(ptr(IMAGE)); nop(); at(".fault"); wait();
        },
    )?
    .cr0(ctl::NE)
    .poke(CONTROL, ZERO_UNMASKED)
    .plain_fault(x::MF)
    .at(".fault");
    t.ring0(
        "mf/fxrstor-brings-an-error",
        code! {
            call("x87.error"); fxsave(ptr(IMAGE)); fninit(); wait();
            fxrstor(ptr(IMAGE)); nop(); at(".fault"); wait();
        },
    )?
    .cr0(ctl::NE)
    .poke(CONTROL, ZERO_UNMASKED)
    .plain_fault(x::MF)
    .at(".fault");
    Ok(())
}

/// Instructions that do not wait run although an error is pending.
fn not_reported(t: &mut Suite) -> AsmResult {
    let immune: [(&str, Write); 8] = [
        ("fnstcw", code! { fnstcw(word_ptr(IMAGE)); }),
        ("fnstenv", code! { fnstenv(ptr(IMAGE)); }),
        ("fnsave", code! { fnsave(ptr(IMAGE)); }),
        ("fnclex", code! { fnclex(); wait(); fld1(); }),
        ("fninit", code! { fninit(); wait(); fld1(); }),
        ("fxsave", code! { fxsave(ptr(IMAGE)); }),
        ("sse", code! { andps(xmm0, xmm1); movups(ptr(IMAGE), xmm0); }),
        ("fnstsw-memory", code! { fnstsw(word_ptr(IMAGE)); }),
    ];
    for (name, write) in immune {
        t.ring0(&format!("mf/not-on-{name}"), write)?
            .cr0(ctl::NE)
            .cr4(ctl::OSFXSR)
            .poke(CONTROL, ZERO_UNMASKED)
            .done();
        pending(t)?;
    }
    t.ring0("mf/not-on-fnstsw", code! { fnstsw(ax); })?
        .cr0(ctl::NE)
        .poke(CONTROL, ZERO_UNMASKED)
        .done()
        .memory("status", record::EAX, 0x80FF, B | ES | ZE);
    pending(t)?;
    t.ring0("mf/environment-names-the-instruction", code! { fnstenv(ptr(IMAGE)); })?
        .cr0(ctl::NE)
        .poke(CONTROL, ZERO_UNMASKED)
        .done()
        .memory("control word", IMAGE, 0xFFFF, ZERO_UNMASKED)
        .memory("status", IMAGE + 4, 0x80FF, B | ES | ZE)
        .memory_label("FIP", IMAGE + ENVIRONMENT_FIP, "x87.division");
    pending(t)?;
    t.ring0("mf/masked-is-none", code! { call("x87.error"); fld1(); wait(); fnstsw(ax); })?
        .cr0(ctl::NE)
        .poke(CONTROL, ALL_MASKED)
        .done()
        .memory("status", record::EAX, 0x80FF, ZE);
    t.ring0("mf/fldcw-masks-it-again", |a| {
        let code = code! {
            call("x87.error"); fnstenv(ptr(IMAGE)); fldenv(ptr(IMAGE)); wait(); fnstsw(ax);
        };
        code(a)
    })?
    .cr0(ctl::NE)
    .poke(CONTROL, ALL_MASKED)
    .done()
    .memory("status", record::EAX, 0x80FF, ZE);
    Ok(())
}

/// A pending error among other faults.
fn priorities(t: &mut Suite) -> AsmResult {
    for (name, bits, vector) in
        [("ts", ctl::TS, x::NM), ("em", ctl::EM, x::NM), ("mp-and-ts", ctl::MP | ctl::TS, x::NM)]
    {
        t.ring0(
            &format!("mf/{name}-comes-before-it"),
            code! { mov(eax, cr0); or(eax, bits); mov(cr0, eax); at(".fault"); fld1(); },
        )?
        .cr0(ctl::NE)
        .poke(CONTROL, ZERO_UNMASKED)
        .plain_fault(vector)
        .at(".fault");
        pending(t)?;
    }
    for (name, bits) in [("ts", ctl::TS), ("em", ctl::EM), ("mp", ctl::MP)] {
        t.ring0(
            &format!("mf/wait-with-{name}-alone"),
            code! { mov(eax, cr0); or(eax, bits); mov(cr0, eax); at(".fault"); wait(); },
        )?
        .cr0(ctl::NE)
        .poke(CONTROL, ZERO_UNMASKED)
        .plain_fault(x::MF)
        .at(".fault");
        pending(t)?;
    }
    t.ring0("mf/comes-before-page-faults", code! { at(".fault"); fld(dword_ptr(TEST)); })?
        .cr0(ctl::NE)
        .paging()
        .poke(TEST_PTE, 0)
        .poke(CONTROL, ZERO_UNMASKED)
        .plain_fault(x::MF)
        .at(".fault");
    pending(t)?;
    Ok(())
}

/// With CR0.NE clear the error arrives as IRQ 13, and port F0h ignores it until it is cleared.
fn external(t: &mut Suite) -> AsmResult {
    const ERROR_PORT: i32 = 0xF0;
    const IRQ13: i32 = x::IRQ0 + 13;
    const CASCADE_ONLY: i32 = !(1 << 2) & 0xFF;
    const IRQ13_ONLY: i32 = !(1 << 5) & 0xFF;
    let handler = code! {
        // Uses the unit while the error is ignored, then clears it.
        at("ferr.handler");
        push(eax); inc(dword_ptr(LOG_COUNT));
        xor(eax, eax); out(ERROR_PORT, al);
        fst(dword_ptr(SCRATCH)); wait(); fnstsw(word_ptr(SCRATCH + 4)); fnclex();
        mov(al, pic::EOI); out(pic::SLAVE, al); out(pic::MASTER, al); pop(eax); iretd();
    };
    handler(&mut t.a)?;
    let unmask = code! {
        fninit(); fldcw(word_ptr(CONTROL)); fld1(); fldz();
        mov(al, CASCADE_ONLY); out(pic::MASTER_MASK, al); mov(al, IRQ13_ONLY); out(pic::SLAVE_MASK, al);
        xor(eax, eax);
    };
    // QEMU's TCG and Bochs run the instruction that should wait.
    t.ring0(
        "ferr/irq-13-before-the-waiting-instruction",
        code! { sti(); fdivp(st1, st0); at(".fault"); fld1(); },
    )?
    .poke(CONTROL, ZERO_UNMASKED)
    .plain_fault(IRQ13)
    .at(".fault");
    t.setup(unmask)?;
    t.ring0("ferr/wait-waits", code! { sti(); fdivp(st1, st0); at(".fault"); wait(); })?
        .poke(CONTROL, ZERO_UNMASKED)
        .plain_fault(IRQ13)
        .at(".fault");
    t.setup(unmask)?;
    t.ring0("ferr/mmx-waits", code! { sti(); fdivp(st1, st0); at(".fault"); paddb(mm0, mm1); })?
        .poke(CONTROL, ZERO_UNMASKED)
        .plain_fault(IRQ13)
        .at(".fault");
    t.setup(unmask)?;
    t.ring0("ferr/others-do-not-wait", code! { fdivp(st1, st0); fnstsw(ax); fnclex(); wait(); fld1(); })?
        .poke(CONTROL, ZERO_UNMASKED)
        .done()
        .memory("status", record::EAX, 0x80FF, B | ES | ZE);
    t.setup(unmask)?;
    t.ring0(
        "ferr/the-handler-can-use-the-unit",
        code! { sti(); fdivp(st1, st0); fld1(); wait(); cli(); fnstsw(ax); },
    )?
    .poke(CONTROL, ZERO_UNMASKED)
    .done()
    .logged(1)
    .memory("status in the handler", SCRATCH + 4, 0x80FF, B | ES | ZE)
    .memory("status", record::EAX, 0x80FF, 0);
    t.setup(|a| {
        unmask(a)?;
        a.set_gate(IRQ13, "ferr.handler", GATE_INTERRUPT)
    })?;
    t.ring0(
        "ferr/ignored-until-cleared-once",
        code! {
            fdivp(st1, st0); out(ERROR_PORT, al); fld1(); wait(); inc(ebx); fnclex();
            call("x87.error"); sti(); at(".fault"); fld1(); inc(ebx);
        },
    )?
    .poke(CONTROL, ZERO_UNMASKED)
    .plain_fault(IRQ13)
    .at(".fault")
    .ebx(1);
    t.setup(unmask)?;
    Ok(())
}
