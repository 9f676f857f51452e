//! Rounds in which a user's program runs under a small kernel: what raises an exception goes on elsewhere, in page tables that the
//! kernel has changed meanwhile, as kernels do: an entry and INVLPG, or CR3, to the same tables or to others.

use super::guest::{CODE, CODE_BYTES, GDT, IDT, Machine, PAGING, PAGING_PAGES, RAM, Random, TSS};
use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};
use vmm::cpu::registers::{Seg, cr0, cr4, eflags, gpr, rights, vector};
use vmm::cpu::{Segment, TableRegister, Vcpu};

const PAGE: u32 = vmm::cpu::bus::PAGE_SIZE as u32;
/// Below this only the kernel has anything.
const SYSTEM_END: u32 = CODE;
/// The kernel's code, its variables, and the end of its stack.
const HANDLER: u32 = 0x4000;
const COUNTER: u32 = 0x5000;
const SEED: u32 = 0x5004;
const CHANGES: u32 = 0x5100;
const STACK_END: u32 = 0x6ff0;
/// Page directories, and the tables between them. The first table belongs to the first 4 MiB alone.
const DIRECTORIES: [u32; 2] = [PAGING, PAGING + (PAGING_PAGES - 1) * PAGE];
const TABLES: u32 = PAGING_PAGES - 2;
const ENTRIES: u32 = 1024;
/// Changes of page tables, one for each exception.
const MOST_CHANGES: u32 = 128;
/// A change: where, which value, CR3 or zero, page to be invalidated.
const CHANGE_BYTES: u32 = 16;
const P_W: u32 = 3;
const P_W_U: u32 = 7;

const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_CODE: u16 = 0x1b;
const USER_DATA: u16 = 0x23;

fn table(n: u32) -> u32 {
    PAGING + n * PAGE
}

/// An entry of the table `n`: mostly where it would be without paging, mostly with all rights.
fn entry(random: &mut Random, page: u32) -> u32 {
    let frame =
        if random.one_in(4) { random.below(RAM as u32) & !(PAGE - 1) } else { page * PAGE % RAM as u32 };
    let rights = if random.one_in(8) { random.below(8) } else { P_W_U };
    match frame {
        _ if (PAGING..PAGING + PAGING_PAGES * PAGE).contains(&frame) => 0,
        _ if frame < SYSTEM_END => frame | rights & P_W,
        _ => frame | rights,
    }
}

/// What every exception comes to: changes the page tables, and goes on somewhere in the user's code.
fn handler(with_code: bool) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    let mut with_error = a.create_label();
    let mut flush_page = a.create_label();
    let mut flushed = a.create_label();
    let mut no_change = a.create_label();
    if !with_code {
        a.push(0)?;
    }
    a.set_label(&mut with_error)?;
    a.push(eax)?;
    a.push(ebx)?;
    a.push(ecx)?;
    a.mov(eax, dword_ptr(COUNTER).ss())?;
    a.inc(dword_ptr(COUNTER).ss())?;
    a.and(eax, (MOST_CHANGES - 1) as i32)?;
    a.imul_3(eax, eax, CHANGE_BYTES as i32)?;
    a.mov(ebx, dword_ptr(eax + CHANGES).ss())?;
    a.test(ebx, ebx)?;
    a.jz(no_change)?;
    a.mov(ecx, dword_ptr(eax + CHANGES + 4).ss())?;
    a.mov(dword_ptr(ebx).ss(), ecx)?;
    a.set_label(&mut no_change)?;
    a.mov(ecx, dword_ptr(eax + CHANGES + 8).ss())?;
    a.test(ecx, ecx)?;
    a.jz(flush_page)?;
    a.mov(cr3, ecx)?;
    a.jmp(flushed)?;
    a.set_label(&mut flush_page)?;
    a.mov(ecx, dword_ptr(eax + CHANGES + 12).ss())?;
    a.invlpg(ptr(ecx).ss())?;
    a.set_label(&mut flushed)?;
    // The linear congruential generator of the C standard decides where it goes on.
    a.imul_3(ecx, dword_ptr(SEED).ss(), 1_103_515_245)?;
    a.add(ecx, 12345)?;
    a.mov(dword_ptr(SEED).ss(), ecx)?;
    a.shr(ecx, 12)?;
    a.mov(eax, ecx)?;
    a.and(ecx, (CODE_BYTES - 1) as i32)?;
    a.add(ecx, CODE as i32)?;
    a.mov(dword_ptr(esp + 16).ss(), ecx)?;
    a.mov(dword_ptr(esp + 20).ss(), u32::from(USER_CODE))?;
    // No flag that engines leave when it is dead: overflow, sign and direction now and then.
    a.mov(ecx, eax)?;
    a.and(ecx, (eflags::OF | eflags::SF | eflags::DF | eflags::CF) as i32)?;
    a.or(ecx, eflags::FIXED as i32)?;
    a.mov(dword_ptr(esp + 24).ss(), ecx)?;
    a.and(eax, (RAM as u32 - 4) as i32)?;
    a.mov(dword_ptr(esp + 28).ss(), eax)?;
    a.mov(dword_ptr(esp + 32).ss(), u32::from(USER_DATA))?;
    a.mov(ecx, u32::from(USER_DATA))?;
    a.mov(ds, ecx)?;
    a.mov(es, ecx)?;
    a.pop(ecx)?;
    a.pop(ebx)?;
    a.pop(eax)?;
    a.add(esp, 4)?;
    a.iretd()?;
    Ok(a.assemble_options(u64::from(HANDLER), BlockEncoderOptions::NONE)?.inner.code_buffer)
}

/// Turns what `prepare` made into such a round.
pub fn make_user(cpu: &mut Vcpu<Machine>, random: &mut Random) {
    let put = |cpu: &Vcpu<Machine>, at: u32, value: u32| cpu.bus.poke(at, &value.to_le_bytes());
    // The kernel.
    for (selector, kind) in [
        (KERNEL_CODE, rights::FLAT_CODE),
        (KERNEL_DATA, rights::FLAT_DATA),
        (USER_CODE, rights::FLAT_CODE | rights::DPL),
        (USER_DATA, rights::FLAT_DATA | rights::DPL),
    ] {
        let descriptor = 0xffff | u64::from(kind) << 40 | 0xf << 48;
        cpu.bus.poke(GDT + u32::from(selector & !7), &descriptor.to_le_bytes());
    }
    let with_code = handler(true).expect("it assembles");
    let without_code = handler(false).expect("it assembles");
    let second = HANDLER + with_code.len() as u32;
    cpu.bus.poke(HANDLER, &with_code);
    cpu.bus.poke(second, &without_code);
    for n in 0..256 {
        let has_code = [vector::DF, vector::TS, vector::NP, vector::SS, vector::GP, vector::PF, vector::AC]
            .contains(&(n as u8));
        let offset = if has_code { HANDLER } else { second };
        const INTERRUPT_GATE: u32 = 0x8e00;
        put(cpu, IDT + n * 8, u32::from(KERNEL_CODE) << 16 | offset & 0xffff);
        put(cpu, IDT + n * 8 + 4, offset & 0xffff_0000 | INTERRUPT_GATE);
    }
    put(cpu, TSS + 4, STACK_END);
    put(cpu, TSS + 8, KERNEL_DATA.into());
    put(cpu, COUNTER, 0);
    put(cpu, SEED, random.dword());
    // Page tables.
    for directory in DIRECTORIES {
        for n in 0..ENTRIES {
            let of = if n == 0 { table(1) } else { table(2 + random.below(TABLES - 1)) };
            put(cpu, directory + 4 * n, of | P_W_U);
        }
    }
    for n in 1..=TABLES {
        for page in 0..ENTRIES {
            let system = n == 1 && page < SYSTEM_END / PAGE;
            let code = n == 1 && (CODE..CODE + CODE_BYTES).contains(&(page * PAGE));
            let value = if system {
                (page * PAGE) | P_W
            } else if code {
                (page * PAGE) | P_W_U
            } else {
                entry(random, page)
            };
            put(cpu, table(n) + 4 * page, value);
        }
    }
    for n in 0..MOST_CHANGES {
        let at = CHANGES + n * CHANGE_BYTES;
        // Pages of code too, and what is near, which is used more than the rest.
        let in_first = random.one_in(2);
        let page = if random.one_in(3) { SYSTEM_END / PAGE + random.below(8) } else { random.below(ENTRIES) };
        let page = page.max(SYSTEM_END / PAGE);
        let of = if in_first { table(1) } else { table(2 + random.below(TABLES - 1)) };
        let changes = !random.one_in(3);
        let one_page = in_first && random.one_in(2) || !changes && random.one_in(2);
        put(cpu, at, if changes { of + 4 * page } else { 0 });
        put(cpu, at + 4, entry(random, page));
        put(cpu, at + 8, if one_page { 0 } else { random.pick(&DIRECTORIES) });
        put(cpu, at + 12, page * PAGE);
    }
    let state = &mut cpu.state;
    state.gdtr = TableRegister { base: GDT, limit: USER_DATA | 7 };
    state.idtr = TableRegister { base: IDT, limit: 0x7ff };
    state.ldtr = Segment::new(0, 0, 0, 0);
    state.tr = Segment::new(0x28, 0x8b, TSS, 0x67);
    state.cr0 = cr0::PE | cr0::PG | cr0::ET | cr0::NE | if random.one_in(2) { cr0::WP } else { 0 };
    state.cr3 = DIRECTORIES[0];
    state.cr4 = cr4::OSFXSR;
    state.dr[7] = 0;
    for seg in Seg::ALL {
        let (selector, kind) = match seg {
            Seg::Cs => (USER_CODE, rights::FLAT_CODE),
            _ => (USER_DATA, rights::FLAT_DATA),
        };
        state.segments[seg as usize] = Segment::new(selector, kind | rights::DPL, 0, u32::MAX);
    }
    state.cpl = 3;
    state.eflags = eflags::FIXED;
    state.eip = CODE + random.below(CODE_BYTES);
    state.gpr[gpr::ESP] = random.below(RAM as u32) & !3;
    let valid = cpu.state.clone().validated();
    cpu.state = valid.expect("the round begins in a state that a processor can be in");
    cpu.state_replaced();
}
