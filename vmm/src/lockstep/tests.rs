//! What is right passes, what is wrong is found and named.

use crate::cpu::registers::{gpr, rights};
use crate::cpu::testing::{DEVICE_PAGE, RamBus, protected};
use crate::cpu::{Segment, Vcpu};
use crate::interp::Exit;
use crate::shadow::{Shadow, WindowPolicy};

const CODE: u32 = 0x1_0000;
const HLT: u8 = 0xf4;

/// A processor with these instructions, HLT behind them.
fn guest(code: &[u8]) -> (Vcpu<RamBus>, Shadow<RamBus>) {
    let mut cpu = protected();
    cpu.bus.load(CODE.into(), code);
    cpu.bus.load(u64::from(CODE) + code.len() as u64, &[HLT]);
    (cpu, Shadow::in_lockstep().expect("there is memory"))
}

/// Runs from the start to HLT or to a difference.
fn run(cpu: &mut Vcpu<RamBus>, shadow: &mut Shadow<RamBus>) -> Exit {
    cpu.state.activity = crate::cpu::Activity::Running;
    cpu.state.eip = CODE;
    for _ in 0..100 {
        match shadow.run(cpu, 1000) {
            Exit::Budget => {}
            exit => return exit,
        }
    }
    panic!("it never ends")
}

/// Runs code that must pass.
fn passes(cpu: &mut Vcpu<RamBus>, shadow: &mut Shadow<RamBus>) {
    let exit = run(cpu, shadow);
    assert_eq!(exit, Exit::Halted, "{}", shadow.difference().unwrap_or_default());
}

#[test]
fn what_both_engines_do_alike_reaches_memory() {
    // mov ecx, 100 / xor eax, eax / L: add eax, ecx / push eax / call F / pop edx / loop L / mov [0x5000], eax / jmp E
    // F: adc dword [0x5004], 3 / ret / E:
    let (mut cpu, mut shadow) = guest(&[
        0xb9, 100, 0, 0, 0, 0x31, 0xc0, 0x01, 0xc8, 0x50, 0xe8, 0x0a, 0, 0, 0, 0x5a, 0xe2, 0xf5, 0xa3, 0x00,
        0x50, 0, 0, 0xeb, 0x08, 0x83, 0x15, 0x04, 0x50, 0, 0, 3, 0xc3,
    ]);
    passes(&mut cpu, &mut shadow);
    assert_eq!(cpu.state.gpr[gpr::EAX], 5050);
    assert_eq!(cpu.bus.peek32(0x5000), 5050);
    assert_eq!(cpu.bus.peek32(0x5004), 300);
    assert!(shadow.compared() > 600, "{}", shadow.compared());
}

#[test]
fn a_wrong_operation_is_reported_and_nothing_of_it_happens() {
    // mov eax, 5 / add eax, ebx / mov [0x5000], eax
    let (mut cpu, mut shadow) = guest(&[0xb8, 5, 0, 0, 0, 0x01, 0xd8, 0xa3, 0x00, 0x50, 0, 0]);
    cpu.state.gpr[gpr::EBX] = 1;
    passes(&mut cpu, &mut shadow);
    assert_eq!(cpu.bus.peek32(0x5000), 6);
    cpu.state.gpr[gpr::EBX] = 2;
    cpu.state.gpr[gpr::EAX] = 0x77;
    // ADD becomes SUB.
    shadow.falsify(5, 0x01, 0x29);
    assert_eq!(run(&mut cpu, &mut shadow), Exit::Difference);
    let report = shadow.difference().expect("there is one");
    let line = |what: &str| {
        report.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("no {what}: {report}"))
    };
    assert!(line("add eax,ebx").contains("sub eax,ebx"), "{report}");
    let eax: Vec<&str> = line("EAX ").split_whitespace().collect();
    assert_eq!(eax, ["EAX", "00000077", "00000007", "00000003", "<--"]);
    assert!(
        line("0000000000005000").ends_with("0000000000000006 0000000000000007 0000000000000003"),
        "{report}"
    );
    assert!(line("mode:").contains("32-bit code"));
    assert_eq!((cpu.state.eip, cpu.state.gpr[gpr::EAX], cpu.bus.peek32(0x5000)), (CODE, 0x77, 6));
    // It stays so.
    assert_eq!(shadow.run(&mut cpu, 1000), Exit::Difference);
}

#[test]
fn a_jump_to_another_place_is_reported() {
    // test eax, eax / jz +1 / inc ebx
    let (mut cpu, mut shadow) = guest(&[0x85, 0xc0, 0x74, 0x01, 0x43]);
    cpu.state.gpr[gpr::EAX] = 0;
    passes(&mut cpu, &mut shadow);
    // The condition becomes its opposite.
    shadow.falsify(2, 0x84, 0x85);
    assert_eq!(run(&mut cpu, &mut shadow), Exit::Difference);
    let report = shadow.difference().expect("there is one");
    assert!(report.contains("jne"), "{report}");
    assert!(report.lines().any(|line| line.starts_with("EBX") && line.ends_with("<--")), "{report}");
}

#[test]
fn a_write_that_the_interpreter_does_not_make_is_reported() {
    // cmp dword [0x5000], eax
    let (mut cpu, mut shadow) = guest(&[0x39, 0x05, 0x00, 0x50, 0, 0]);
    cpu.state.gpr[gpr::EAX] = 0x1234;
    cpu.bus.poke32(0x5000, 0x1234);
    passes(&mut cpu, &mut shadow);
    // CMP becomes SUB, with the same flags.
    shadow.falsify(0, 0x39, 0x29);
    let exit = run(&mut cpu, &mut shadow);
    let report = shadow.difference().unwrap_or_default();
    assert_eq!(exit, Exit::Difference);
    assert!(
        report.contains("0000000000005000 0000000000001234 0000000000001234 0000000000000000"),
        "{report}"
    );
}

#[test]
fn flags_that_nobody_reads_and_device_accesses_are_no_difference() {
    // mov ecx, 7 / dec ecx / mov eax, [device] / xor edx, edx / mul ecx / jz +0 / mov [device], eax / shl eax, cl / add eax, 1
    let mut code = vec![0xb9, 7, 0, 0, 0, 0x49, 0xa1];
    code.extend((DEVICE_PAGE as u32).to_le_bytes());
    code.extend([0x31, 0xd2, 0xf7, 0xe1, 0x74, 0x00, 0xa3]);
    code.extend((DEVICE_PAGE as u32).to_le_bytes());
    code.extend([0xd3, 0xe0, 0x83, 0xc0, 1]);
    let (mut cpu, mut shadow) = guest(&code);
    cpu.bus.device.insert(DEVICE_PAGE, 5);
    passes(&mut cpu, &mut shadow);
    assert_eq!(cpu.bus.device_log.len(), 2);
    assert_eq!(cpu.bus.device.get(&DEVICE_PAGE), Some(&30));
}

#[test]
fn page_tables_end_up_as_the_interpreter_leaves_them() {
    // mov eax, [0x5000] / mov [0x6000], eax / mov ebx, [device]
    let mut code = vec![0xa1, 0x00, 0x50, 0, 0, 0xa3, 0x00, 0x60, 0, 0, 0x8b, 0x1d];
    code.extend(0x7000_u32.to_le_bytes());
    let (mut cpu, mut shadow) = guest(&code);
    cpu.enable_paging();
    cpu.set_pte(0x5000, 0x5000 | 7);
    cpu.set_pte(0x6000, 0x6000 | 7);
    // Page tables can map nothing behind the end of RAM, which answers all ones.
    cpu.set_pte(0x7000, 0xf000_0000 | 7);
    passes(&mut cpu, &mut shadow);
    assert_eq!((cpu.pte(0x5000), cpu.pte(0x6000)), (0x5000 | 0x27, 0x6000 | 0x67));
    assert_eq!(cpu.state.gpr[gpr::EBX], u32::MAX);
}

#[test]
fn code_that_changes_itself_passes() {
    // mov byte [N + 1], 9 / jmp N / N: mov al, 1 / mov byte [N + 1], 1
    let at = CODE + 9 + 1;
    let mut code = vec![0xc6, 0x05];
    code.extend(at.to_le_bytes());
    code.extend([9, 0xeb, 0, 0xb0, 1, 0xc6, 0x05]);
    code.extend(at.to_le_bytes());
    code.push(1);
    let (mut cpu, mut shadow) = guest(&code);
    for _ in 0..3 {
        cpu.state.gpr[gpr::EAX] = 0;
        passes(&mut cpu, &mut shadow);
        assert_eq!(cpu.state.gpr[gpr::EAX], 9);
    }
}

#[test]
fn outdated_translations_are_counted() {
    // mov eax, [0x5000]
    let (mut cpu, mut shadow) = guest(&[0xa1, 0x00, 0x50, 0, 0]);
    cpu.enable_paging();
    passes(&mut cpu, &mut shadow);
    // With INVLPG all is well.
    cpu.set_pte(0x5000, 0x6000 | 7);
    passes(&mut cpu, &mut shadow);
    assert_eq!(shadow.outdated(), 0);
    // Without it the slot is the old one.
    cpu.bus.poke32(u64::from(crate::cpu::testing::at::TABLE) + 5 * 4, 0x7000 | 7);
    passes(&mut cpu, &mut shadow);
    assert_eq!(shadow.outdated(), 1);
}

#[test]
fn a_repeated_store_in_a_window_that_ends_at_a_device_passes() {
    // mov edi, 0x5008 / mov ecx, 0x800 / rep stosd / E: jmp E
    let code = [0xbf, 0x08, 0x50, 0, 0, 0xb9, 0x00, 0x08, 0, 0, 0xf3, 0xab, 0xeb, 0xfe];
    let (mut cpu, mut shadow) = guest(&code);
    shadow.use_windows(WindowPolicy::Always);
    cpu.enable_paging();
    for page in [CODE, 0x5000] {
        cpu.set_pte(page, page | 7);
    }
    // Behind the end of RAM.
    cpu.set_pte(0x6000, 0xf000_0000 | 7);
    cpu.set_pte(0x7000, 0x7000 | 7);
    for n in 0..6 {
        let kind = if n == 1 { rights::FLAT_CODE } else { rights::FLAT_DATA };
        cpu.state.segments[n] = Segment::new(0xb, kind | rights::DPL, 0, u32::MAX);
    }
    cpu.state.cpl = 3;
    cpu.state.gpr[gpr::EAX] = 0x1234_5678;
    cpu.state.eip = CODE;
    cpu.state_replaced();
    for _ in 0..20 {
        assert_eq!(shadow.run(&mut cpu, 1000), Exit::Budget, "{}", shadow.difference().unwrap_or_default());
    }
    assert_eq!(cpu.state.eip, CODE + code.len() as u32 - 2);
    assert_eq!(cpu.state.gpr[gpr::ECX], 0);
    assert_eq!(
        [0x5004, 0x5008, 0x5ffc, 0x7000, 0x7004].map(|at| cpu.bus.peek32(at)),
        [0, 0x1234_5678, 0x1234_5678, 0x1234_5678, 0x1234_5678]
    );
    assert!(shadow.statistics().windows.promotions > 0, "this host has no windows for us");
}
