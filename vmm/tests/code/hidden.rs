//! A guest that looks at itself sees its own code, and nothing of the host.

use super::guest::{DIRECTORY, Guest, PAGE, RAM, TABLE, assemble, entry, on_every_engine};
use iced_x86::code_asm::*;
use vmm::cpu::registers::gpr::{EAX, EBX, ECX, EDX};
use vmm::cpu::registers::{cr4, eflags};
use vmm::engine::{Engine, EngineKind};

const CODE: u32 = 0x2_0000;
const DATA: u32 = 0x5_0000;

/// What a guest may know: registers and RAM.
fn everything(guest: &Guest) -> (Vec<u32>, Vec<u8>) {
    let mut registers = guest.cpu.state.gpr.to_vec();
    registers.extend([guest.cpu.state.eip, guest.flags(), guest.cpu.state.cr2]);
    registers.extend(guest.cpu.state.segments.iter().map(|segment| u32::from(segment.selector)));
    (registers, guest.bytes(0, RAM))
}

/// Where this process has anything, by address.
fn mappings() -> Vec<std::ops::Range<u64>> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let parse = |line: &str| {
        let (start, end) = line.split_whitespace().next()?.split_once('-')?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    };
    maps.lines().filter_map(parse).collect()
}

/// Nothing that came into RAM could be an address of something of the host above 4 GiB: quadwords at any offset. What is below, which is
/// shadow code alone, the interpreter does not have: it would make a difference between the engines. (By itself, any number could be
/// such an address.)
fn assert_no_host_address(guest: &Guest, before: &[u8]) {
    let (_, ram) = everything(guest);
    let mappings = mappings();
    let is_mapped = |address: u64| mappings.iter().any(|range| range.contains(&address));
    // Entries of page tables, of which the processor sets bits, look like anything at odd offsets.
    let tables = DIRECTORY as usize..(TABLE + PAGE) as usize;
    let changed = |at: usize| ram[at..at + 8] != before[at..at + 8] && !tables.contains(&at);
    for (at, window) in ram.windows(8).enumerate().filter(|(at, _)| changed(*at)) {
        let quad = u64::from_le_bytes(window.try_into().expect("eight bytes"));
        assert!(quad <= u64::from(u32::MAX) || !is_mapped(quad), "[{at:x}] is {quad:x}");
    }
}

/// Runs on both engines; what the guest can see must be the same, and nothing of the host.
fn looks_the_same(prepare: impl Fn(&mut Guest)) {
    let seen = [EngineKind::Interp, EngineKind::Shadow].map(|kind| {
        let mut guest = Guest::new(kind);
        prepare(&mut guest);
        let before = guest.bytes(0, RAM);
        guest.run(CODE);
        assert_no_host_address(&guest, &before);
        everything(&guest)
    });
    assert_eq!(
        seen[0].0.iter().zip(&seen[1].0).position(|(a, b)| a != b),
        None,
        "registers: {:x?} {:x?}",
        seen[0].0,
        seen[1].0
    );
    let different: Vec<usize> = (0..RAM as usize).filter(|at| seen[0].1[*at] != seen[1].1[*at]).collect();
    assert!(different.is_empty(), "RAM differs at {different:x?}");
}

#[test]
fn code_that_adds_itself_up_finds_its_own_bytes() {
    on_every_engine(|guest| {
        // Twice: before everything was made into shadow code, and after.
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            let mut next = a.create_label();
            let mut end = a.create_label();
            a.xor(ebx, ebx)?;
            a.mov(edx, 2)?;
            a.set_label(&mut again)?;
            a.mov(esi, CODE)?;
            a.xor(eax, eax)?;
            a.set_label(&mut next)?;
            a.movzx(ecx, byte_ptr(esi))?;
            a.imul_3(eax, eax, 31)?;
            a.add(eax, ecx)?;
            a.inc(esi)?;
            a.cmp(esi, CODE + 0x40)?;
            a.jb(next)?;
            a.xchg(eax, ebx)?;
            a.dec(edx)?;
            a.jne(again)?;
            a.jmp(end)?;
            a.nop()?;
            a.set_label(&mut end)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        let sum = guest
            .bytes(CODE, 0x40)
            .iter()
            .fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
        assert_eq!((guest.register(EAX), guest.register(EBX)), (sum, sum));
        assert_eq!(guest.bytes(CODE, code.len() as u32), code);
    });
}

#[test]
fn code_that_copies_itself_while_it_runs_copies_its_own_bytes() {
    on_every_engine(|guest| {
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(edx, 100)?;
            a.set_label(&mut again)?;
            a.mov(esi, CODE)?;
            a.mov(edi, DATA)?;
            a.mov(ecx, 0x40)?;
            a.rep().movsb()?;
            a.mov(eax, dword_ptr(CODE))?;
            a.push(dword_ptr(CODE + 4))?;
            a.pop(ebx)?;
            a.dec(edx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        let original = guest.bytes(CODE, 0x40);
        assert_eq!(original[..code.len()], code);
        assert_eq!(guest.bytes(DATA, 0x40), original);
        let dword = |at: usize| u32::from_le_bytes(original[at..at + 4].try_into().expect("four bytes"));
        assert_eq!((guest.register(EAX), guest.register(EBX), guest.register(EDX)), (dword(0), dword(4), 0));
        assert_eq!(guest.register(ECX), 0);
    });
}

#[test]
fn return_addresses_are_the_guests_own() {
    looks_the_same(|guest| {
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            let mut here = a.create_label();
            a.mov(ebp, 20)?;
            a.mov(edi, DATA)?;
            a.set_label(&mut again)?;
            a.call(here)?;
            a.set_label(&mut here)?;
            a.pop(eax)?;
            a.stosd()?;
            a.mov(eax, DATA + 0x1000)?;
            a.call(eax)?;
            a.dec(ebp)?;
            a.jne(again)?;
            a.hlt()
        });
        let function = assemble(DATA + 0x1000, |a| {
            a.mov(eax, dword_ptr(esp))?;
            a.stosd()?;
            a.ret()
        });
        guest.load(CODE, &code);
        guest.load(DATA + 0x1000, &function);
    });
}

#[test]
fn images_of_state_hold_nothing_of_the_host() {
    looks_the_same(|guest| {
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(ebp, 20)?;
            a.mov(edi, DATA)?;
            a.set_label(&mut again)?;
            a.fninit()?;
            a.fld1()?;
            a.fldpi()?;
            a.fadd_2(st0, st1)?;
            a.fld(dword_ptr(DATA + 0x800))?;
            a.fxsave(ptr(edi))?;
            a.fnstenv(ptr(edi + 0x200))?;
            a.fnsave(ptr(edi + 0x240))?;
            a.movd(xmm0, ebp)?;
            a.paddd(xmm0, xmm0)?;
            a.movups(xmmword_ptr(edi + 0x2c0), xmm0)?;
            a.cmp(ebp, 7)?;
            a.pushfd()?;
            a.pop(dword_ptr(edi + 0x300))?;
            a.sgdt(ptr(edi + 0x310))?;
            a.sidt(ptr(edi + 0x320))?;
            a.sldt(ax)?;
            a.str(bx)?;
            a.smsw(ecx)?;
            a.mov(dword_ptr(edi + 0x330), eax)?;
            a.mov(dword_ptr(edi + 0x334), ebx)?;
            a.mov(dword_ptr(edi + 0x338), ecx)?;
            a.pushad()?;
            a.add(edi, 0x400)?;
            a.dec(ebp)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.cpu.state.cr4 |= cr4::OSFXSR;
        guest.cpu.state_replaced();
    });
}

#[test]
fn frames_of_exceptions_hold_nothing_of_the_host() {
    looks_the_same(|guest| {
        // Page faults at loads and stores, an undefined instruction, a division by zero, INT3, INTO, an INT.
        const NOWHERE: u32 = 0x12_3000;
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(ebp, 10)?;
            a.set_label(&mut again)?;
            a.cmp(ebp, 5)?;
            a.mov(eax, dword_ptr(NOWHERE + 8))?;
            a.mov(dword_ptr(NOWHERE + 0x10), eax)?;
            a.push(dword_ptr(NOWHERE))?;
            a.pop(eax)?;
            a.ud2()?;
            a.nop()?;
            a.xor(ecx, ecx)?;
            a.div(ecx)?;
            a.nop()?;
            a.nop()?;
            a.int3()?;
            a.mov(al, 0x7f)?;
            a.add(al, 1)?;
            a.into()?;
            a.int(0x40)?;
            a.dec(ebp)?;
            a.jne(again)?;
            a.hlt()
        });
        // Skips instructions of six, and two bytes: notes the frame, and goes on behind what faulted.
        let with_error = assemble(DATA, |a| {
            a.push(eax)?;
            a.push(esi)?;
            a.mov(esi, dword_ptr(DATA + 0x800))?;
            a.mov(eax, dword_ptr(esp + 8))?;
            a.mov(dword_ptr(esi + DATA + 0x1000), eax)?;
            a.mov(eax, dword_ptr(esp + 12))?;
            a.mov(dword_ptr(esi + DATA + 0x1004), eax)?;
            a.mov(eax, cr2)?;
            a.mov(dword_ptr(esi + DATA + 0x1008), eax)?;
            a.add(dword_ptr(DATA + 0x800), 12)?;
            a.pop(esi)?;
            a.mov(eax, dword_ptr(esp + 8))?;
            // MOV EAX, moffs has five bytes, PUSH m32 six.
            a.cmp(byte_ptr(eax), 0xa1)?;
            let mut six = a.create_label();
            let mut done = a.create_label();
            a.je(six)?;
            a.cmp(byte_ptr(eax), 0xa3)?;
            a.je(six)?;
            a.inc(dword_ptr(esp + 8))?;
            a.set_label(&mut six)?;
            a.add(dword_ptr(esp + 8), 5)?;
            a.jmp(done)?;
            a.set_label(&mut done)?;
            a.pop(eax)?;
            a.add(esp, 4)?;
            a.iretd()
        });
        let without_error = assemble(DATA + 0x200, |a| {
            a.push(eax)?;
            a.mov(eax, dword_ptr(esp + 4))?;
            a.mov(dword_ptr(DATA + 0x900), eax)?;
            a.mov(eax, dword_ptr(esp + 12))?;
            // DIV leaves arithmetic flags undefined, so nobody keeps them for its fault.
            a.and(eax, !eflags::ARITHMETIC as i32)?;
            a.mov(dword_ptr(DATA + 0x904), eax)?;
            a.add(dword_ptr(esp + 4), 2)?;
            a.pop(eax)?;
            a.iretd()
        });
        let trap = assemble(DATA + 0x300, |a| {
            a.add(dword_ptr(DATA + 0x908), 1)?;
            a.iretd()
        });
        guest.load(CODE, &code);
        guest.load(DATA, &with_error);
        guest.load(DATA + 0x200, &without_error);
        guest.load(DATA + 0x300, &trap);
        use vmm::cpu::registers::vector;
        guest.gate(vector::PF, DATA);
        guest.gate(vector::UD, DATA + 0x200);
        guest.gate(vector::DE, DATA + 0x200);
        for number in [vector::BP, vector::OF, 0x40] {
            guest.gate(number, DATA + 0x300);
        }
        guest.page();
        guest.load(entry(NOWHERE & !(PAGE - 1)), &0_u32.to_le_bytes());
    });
}

#[test]
fn shadow_code_does_run_in_these_tests() {
    let mut guest = Guest::new(EngineKind::Shadow);
    let code = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut again)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.hlt()
    });
    guest.load(CODE, &code);
    guest.run(CODE);
    assert!(matches!(guest.engine, Engine::Shadow(_)));
    let text = guest.engine.list(&mut guest.cpu, u64::from(CODE));
    assert!(text.contains("Unit of bytes 000-") && text.contains("dec ecx"), "{text}");
    let nothing = guest.engine.list(&mut guest.cpu, u64::from(DATA));
    assert!(nothing.starts_with("There is no"), "{nothing}");
    assert!(guest.engine.interpreted() < 20, "{} instructions were interpreted", guest.engine.interpreted());
}
