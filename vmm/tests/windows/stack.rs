//! ESP in windows, where R12 stands for it: what moves it, faults in between, and that it wraps round.

use super::*;

#[test]
fn the_stack_pointer_may_come_from_any_instruction() {
    let code = assembled(|a| {
        let mut end = a.create_label();
        a.mov(ebx, 0x8000_0000 + DATA)?;
        a.mov(eax, 0x9000)?;
        a.movzx(esp, ax)?;
        a.push(ebx)?;
        a.mov(eax, 0x7f)?;
        a.movsx(esp, al)?;
        a.push(eax)?;
        a.mov(ecx, STACK)?;
        a.movd(mm0, ecx)?;
        a.movd(esp, mm0)?;
        a.push(ecx)?;
        a.emms()?;
        a.mov(edx, 0x9000)?;
        a.cmovne(esp, edx)?;
        a.push(eax)?;
        // A displacement that cannot be negated.
        a.mov(edx, dword_ptr(ebx + i32::MIN))?;
        a.add(dword_ptr(ebx + i32::MIN), edx)?;
        // Flags that polls of the loop leave as they are.
        a.xor(edx, edx)?;
        a.set_label(&mut end)?;
        a.jmp(end)
    });
    same_everywhere(&code);
}

/// Runs code that faults at a page that is absent, with all engines: as nobody handles that, the processor shuts down with the state
/// that it had before the instruction. Returns ESP then, and the offset of the instruction.
fn faults_everywhere(absent: u32, code: &[u8]) -> (u32, u32) {
    let prepared = || {
        let cpu = user(code);
        cpu.bus.set(TABLE + 4 * (absent / PAGE), 0);
        cpu
    };
    let mut cpu = prepared();
    assert_eq!(Interp::new().run(&mut cpu, 10_000), Exit::Shutdown);
    let expected = (cpu.state.gpr, cpu.state.eip);
    for policy in [WindowPolicy::Off, WindowPolicy::Always] {
        let (mut shadow, mut cpu) = (engine(policy), prepared());
        while shadow.run(&mut cpu, 1000) != Exit::Shutdown {}
        assert_eq!((cpu.state.gpr, cpu.state.eip), expected, "{policy:?}");
    }
    (expected.0[gpr::ESP], expected.1 - CODE)
}

#[test]
fn esp_is_right_when_one_of_many_pushes_or_pops_faults() {
    const ABSENT: u32 = STACK - PAGE;
    let faults = |top: u32, build: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let code = assembled(|a| {
            a.mov(esp, top)?;
            build(a)?;
            a.hlt()
        });
        faults_everywhere(ABSENT, &code)
    };
    const MOV: u32 = 5;
    // Upon the third.
    let pushes = faults(STACK + 8, &|a| {
        a.push(eax)?;
        a.push(7)?;
        a.push(ecx)
    });
    assert_eq!(pushes, (STACK, MOV + 3));
    // What comes between them sees ESP as it is.
    let mixed = faults(STACK + 8, &|a| {
        a.push(eax)?;
        a.lea(edx, dword_ptr(esp + 4))?;
        a.mov(dword_ptr(esp), edx)?;
        a.inc(ebx)?;
        a.push(dword_ptr(esp))?;
        a.mov(ecx, dword_ptr(esp + ebx * 4 - 4))?;
        a.mov(edx, dword_ptr(ABSENT))
    });
    assert_eq!(mixed.0, STACK);
    let calls = faults(STACK + 4, &|a| {
        a.push(eax)?;
        a.call(u64::from(CODE))
    });
    assert_eq!(calls, (STACK, MOV + 1));
    let pops = faults(STACK - 2 * PAGE + PAGE - 8, &|a| {
        a.pop(eax)?;
        a.pop(ebx)?;
        a.pop(ecx)
    });
    assert_eq!(pops, (ABSENT, MOV + 2));
    let returns = faults(STACK - 2 * PAGE + PAGE - 4, &|a| {
        a.pop(ebp)?;
        a.ret()
    });
    assert_eq!(returns, (ABSENT, MOV + 1));
    // ADD and SUB whose flags nobody reads, and copies of ESP.
    let frame = faults(STACK + 16, &|a| {
        a.push(ebp)?;
        a.mov(ebp, esp)?;
        a.push(ebx)?;
        a.sub(esp, 12)?;
        a.mov(dword_ptr(esp + 12), ebp)?;
        a.mov(edx, esp)?;
        a.mov(dword_ptr(esp), eax)?;
        a.cmp(eax, edx)
    });
    assert_eq!(frame, (STACK - 4, MOV + 1 + 2 + 1 + 3 + 4 + 2));
    let cleans_up = faults(STACK - 2 * PAGE + PAGE - 16, &|a| {
        a.add(esp, 12)?;
        a.pop(ebx)?;
        a.pop(esi)?;
        a.cmp(eax, ebx)
    });
    assert_eq!(cleans_up, (ABSENT, MOV + 3 + 1));
    // An access that is no access of the stack.
    let other = faults(STACK + 16, &|a| {
        a.push(eax)?;
        a.push(ebx)?;
        a.mov(eax, dword_ptr(ABSENT))
    });
    assert_eq!(other, (STACK + 8, MOV + 2));
}

#[test]
fn esp_wraps_round_however_it_is_moved() {
    for (start, step) in [(0x800_u32, -4096_i32), (0xffff_f800, 4096)] {
        let code = assembled(|a| {
            let mut again = a.create_label();
            a.mov(esp, start)?;
            a.mov(ecx, 1500)?;
            a.set_label(&mut again)?;
            a.add(esp, step)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.push(eax)?;
            a.hlt()
        });
        let (top, _) = faults_everywhere(STACK, &code);
        assert_eq!(top, start.wrapping_add_signed(1500 * step));
    }
}
