//! Code that jumps to other code of its page by itself: when that is written over, the jump must lead to what is there then.

use super::guest::{Guest, PAGE, assemble, on_every_engine};
use iced_x86::code_asm::*;
use vmm::cpu::registers::gpr::{EAX, EBX, EDX};

/// All on one page: what runs first, what runs then and jumps there, and what both jump to.
const CODE: u32 = 0x2_0000;
const FIRST: u32 = CODE + 0x400;
const SHARED: u32 = CODE + 0x800;
/// Comes back to the first or to the second, by EBP.
const BACK: u32 = CODE + 0xc00;
/// On another page: writes `INC EDX` over the shared `INC EBX`.
const PATCHER: u32 = CODE + PAGE;
const INC_EDX: u8 = 0x42;

fn load(guest: &mut Guest, at: u32, write: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
    guest.load(at, &assemble(at, write));
}

/// The shared code counts in EBX, and in EDX once it is patched. It is reached by `reach` from code that is made when there is code
/// of it already.
fn counts(reach: fn(&mut CodeAssembler, u32) -> Result<(), IcedError>) {
    on_every_engine(|guest| {
        load(guest, SHARED, |a| {
            a.inc(ebx)?;
            a.jmp(u64::from(BACK))
        });
        load(guest, BACK, |a| {
            a.nop()?;
            a.jmp(ebp)
        });
        load(guest, CODE, |a| {
            let mut there = a.create_label();
            a.xor(eax, eax)?;
            a.xor(ebx, ebx)?;
            a.xor(edx, edx)?;
            a.mov(ebp, FIRST)?;
            a.mov(ecx, SHARED)?;
            a.jmp(ecx)?;
            a.set_label(&mut there)?;
            a.hlt()
        });
        load(guest, FIRST, |a| {
            let (mut again, mut patch) = (a.create_label(), a.create_label());
            a.mov(ebp, FIRST + 0x100)?;
            a.mov(esi, 1000)?;
            a.set_label(&mut again)?;
            a.cmp(esi, 300)?;
            a.je(patch)?;
            reach(a, SHARED)?;
            a.set_label(&mut patch)?;
            a.mov(ecx, PATCHER)?;
            a.jmp(ecx)
        });
        // Where the shared code comes back to.
        load(guest, FIRST + 0x100, |a| {
            let mut done = a.create_label();
            a.inc(eax)?;
            a.dec(esi)?;
            a.jz(done)?;
            a.jmp(u64::from(FIRST) + 10)?;
            a.set_label(&mut done)?;
            a.hlt()
        });
        load(guest, PATCHER, |a| {
            a.mov(byte_ptr(SHARED), u32::from(INC_EDX))?;
            a.dec(esi)?;
            a.jmp(u64::from(FIRST) + 10)
        });
        guest.run(CODE);
        let found = [EAX, EBX, EDX].map(|n| guest.register(n));
        assert_eq!(found, [999, 1 + 700, 299]);
    });
}

#[test]
fn a_jump_leads_to_what_is_there_now() {
    counts(|a, to| a.jmp(u64::from(to)));
}

#[test]
fn a_conditional_jump_leads_to_what_is_there_now() {
    counts(|a, to| {
        a.jne(u64::from(to))?;
        a.hlt()
    });
}
