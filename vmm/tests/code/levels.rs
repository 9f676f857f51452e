//! Between privilege levels and modes without the monitor: INT and IRET of a user, and of a kernel.

use super::guest::{
    CODE as KERNEL_CODE, DATA as KERNEL_DATA, GDT, Guest, assemble, on_every_engine_uninterrupted,
};
use iced_x86::code_asm::*;
use vmm::cpu::Segment;
use vmm::cpu::registers::gpr::{EAX, EBX, EDX, ESI};
use vmm::cpu::registers::{eflags, rights};
use vmm::engine::Engine;

const CODE: u32 = 0x2_0000;
const USER: u32 = 0x3_0000;
const HANDLER: u32 = 0x4_0000;
const USER_STACK: u32 = 0x5_0000;
const KERNEL_STACK: u32 = 0x6_0000;
const TSS: u32 = 0x6000;
/// Selectors of a user, and of the TSS.
const USER_CODE: u16 = 0x18 | 3;
const USER_DATA: u16 = 0x20 | 3;
const TSS_SELECTOR: u16 = 0x28;
/// A call, and the end.
const CALL: u8 = 0x80;
const END: u8 = 0x81;
const TURNS: u32 = 500;

/// Adds what a user needs.
fn add_user(guest: &mut Guest) {
    for (selector, kind) in [(USER_CODE, rights::FLAT_CODE), (USER_DATA, rights::FLAT_DATA)] {
        let descriptor = 0xffff | u64::from(kind | rights::DPL) << 40 | 0xf << 48;
        guest.load(GDT + u32::from(selector & !3), &descriptor.to_le_bytes());
    }
    guest.cpu.state.gdtr.limit = 0x2f;
    guest.cpu.state.tr = Segment::new(TSS_SELECTOR, rights::PRESENT | 11, TSS, 0x67);
    guest.load(TSS + 4, &KERNEL_STACK.to_le_bytes());
    guest.load(TSS + 8, &KERNEL_DATA.to_le_bytes());
}

/// An interrupt gate that a user may use.
fn open_gate(guest: &mut Guest, vector: u8, handler: u32) {
    guest.gate(vector, handler);
    guest.load(super::guest::IDT + 8 * u32::from(vector) + 5, &[0xee]);
}

#[test]
fn a_user_calls_the_kernel_and_comes_back() {
    on_every_engine_uninterrupted(|guest| {
        add_user(guest);
        open_gate(guest, CALL, HANDLER);
        open_gate(guest, END, HANDLER + 0x100);
        let handler = assemble(HANDLER, |a| {
            a.inc(edx)?;
            a.mov(eax, cs)?;
            a.or(esi, eax)?;
            a.stc()?;
            a.iretd()
        });
        guest.load(HANDLER, &handler);
        guest.load(HANDLER + 0x100, &[0xf4]);
        let user = assemble(USER, |a| {
            let mut again = a.create_label();
            a.xor(ebx, ebx)?;
            a.set_label(&mut again)?;
            a.cmp(ecx, 100)?;
            a.push(ecx)?;
            a.int(i32::from(CALL))?;
            a.pop(ecx)?;
            a.adc(ebx, 0)?;
            a.mov(eax, cs)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.int(i32::from(END))
        });
        guest.load(USER, &user);
        let code = assemble(CODE, |a| {
            a.xor(edx, edx)?;
            a.xor(esi, esi)?;
            a.mov(ecx, TURNS)?;
            a.push(u32::from(USER_DATA) as i32)?;
            a.push(USER_STACK as i32)?;
            a.pushfd()?;
            a.push(u32::from(USER_CODE) as i32)?;
            a.push(USER as i32)?;
            a.iretd()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!((guest.register(EDX), guest.register(EBX)), (TURNS, 99));
        assert_eq!(guest.register(ESI), KERNEL_CODE.into(), "in the handler");
        assert_eq!(guest.register(EAX), USER_CODE.into(), "behind it");
        assert_eq!(guest.cpu.state.segment(vmm::cpu::Seg::Ss).selector, KERNEL_DATA);
    });
}

#[test]
fn the_monitor_is_not_asked_when_a_kernel_interrupts_itself() {
    on_every_engine_uninterrupted(|guest| {
        guest.gate(CALL, HANDLER);
        let handler = assemble(HANDLER, |a| {
            a.pushfd()?;
            a.pop(eax)?;
            a.or(esi, eax)?;
            a.inc(edx)?;
            a.iretd()
        });
        guest.load(HANDLER, &handler);
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(edx, edx)?;
            a.xor(esi, esi)?;
            a.mov(ecx, TURNS)?;
            a.sti()?;
            a.set_label(&mut again)?;
            a.int(i32::from(CALL))?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.pushfd()?;
            a.pop(eax)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EDX), TURNS);
        assert_eq!(guest.register(ESI) & eflags::IF, 0);
        assert_eq!(guest.register(EAX) & eflags::IF, eflags::IF);
        if let Engine::Shadow(shadow) = &guest.engine
            && guest.uninterrupted
        {
            let entries = shadow.statistics().entries;
            assert!(entries < u64::from(TURNS) / 4, "{entries} entries");
        }
    });
}
