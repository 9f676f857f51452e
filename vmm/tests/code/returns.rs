//! Calls and returns: the shadow engine predicts where a return goes, and must not believe it.

use super::guest::{Guest, PAGE, STACK, assemble, on_every_engine};
use iced_x86::code_asm::*;
use vmm::cpu::registers::gpr::{EAX, EBX, ECX, EDX, ESP};

/// Where the code is.
const CODE: u32 = 0x2_0000;
/// A function on another page.
const OTHER: u32 = 0x3_0000;

fn run(guest: &mut Guest, write: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) {
    guest.load(CODE, &assemble(CODE, write));
    guest.run(CODE);
}

#[test]
fn recursion_comes_back() {
    on_every_engine(|guest| {
        run(guest, |a| {
            let (mut fib, mut small) = (a.create_label(), a.create_label());
            a.mov(eax, 15)?;
            a.call(fib)?;
            a.hlt()?;
            // FIB(EAX) into EAX.
            a.set_label(&mut fib)?;
            a.cmp(eax, 2)?;
            a.jb(small)?;
            a.push(eax)?;
            a.dec(eax)?;
            a.call(fib)?;
            a.xchg(dword_ptr(esp), eax)?;
            a.sub(eax, 2)?;
            a.call(fib)?;
            a.pop(edx)?;
            a.add(eax, edx)?;
            a.set_label(&mut small)?;
            a.ret()
        });
        assert_eq!(guest.register(EAX), 610);
        assert_eq!(guest.register(ESP), STACK);
    });
}

#[test]
fn a_return_to_another_address_than_the_calls_goes_there_with_its_flags() {
    on_every_engine(|guest| {
        let elsewhere = assemble(OTHER, |a| {
            let mut carry = a.create_label();
            a.jc(carry)?;
            a.mov(ebx, 1)?;
            a.hlt()?;
            a.set_label(&mut carry)?;
            a.mov(ebx, 2)?;
            a.hlt()
        });
        guest.load(OTHER, &elsewhere);
        run(guest, |a| {
            let mut function = a.create_label();
            a.mov(ecx, 3)?;
            a.call(function)?;
            // Flags are dead here, and live elsewhere.
            a.xor(eax, eax)?;
            a.hlt()?;
            a.set_label(&mut function)?;
            a.mov(dword_ptr(esp), OTHER)?;
            a.cmp(ecx, 4)?;
            a.ret()
        });
        assert_eq!(guest.register(EBX), 2, "the carry flag is set");
    });
}

#[test]
fn frames_may_be_left_behind() {
    on_every_engine(|guest| {
        run(guest, |a| {
            let (mut outer, mut inner, mut again) = (a.create_label(), a.create_label(), a.create_label());
            a.mov(ecx, 1000)?;
            a.xor(ebx, ebx)?;
            a.set_label(&mut again)?;
            a.mov(ebp, esp)?;
            a.call(outer)?;
            a.inc(ebx)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()?;
            a.set_label(&mut outer)?;
            a.call(inner)?;
            a.ud2()?;
            // Returns from OUTER at once.
            a.set_label(&mut inner)?;
            a.lea(esp, dword_ptr(ebp - 4))?;
            a.ret()
        });
        assert_eq!(guest.register(EBX), 1000);
    });
}

#[test]
fn calls_that_never_return_may_be_made_for_ever() {
    // More than any return stack holds.
    const CALLS: u32 = 300_000;
    on_every_engine(|guest| {
        run(guest, |a| {
            let (mut again, mut function) = (a.create_label(), a.create_label());
            a.mov(ecx, CALLS)?;
            a.xor(edx, edx)?;
            a.set_label(&mut again)?;
            a.call(function)?;
            a.ud2()?;
            a.set_label(&mut function)?;
            a.pop(eax)?;
            a.inc(edx)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        assert_eq!(guest.register(EDX), CALLS);
        assert_eq!(guest.register(ECX), 0);
    });
}

#[test]
fn deep_recursion_comes_back_from_beyond_the_return_stack() {
    const DEPTH: u32 = 100_000;
    on_every_engine(|guest| {
        run(guest, |a| {
            let (mut down, mut bottom) = (a.create_label(), a.create_label());
            a.mov(esp, 0x10_0000)?;
            a.mov(ecx, DEPTH)?;
            a.xor(ebx, ebx)?;
            a.call(down)?;
            a.hlt()?;
            a.set_label(&mut down)?;
            a.dec(ecx)?;
            a.je(bottom)?;
            a.call(down)?;
            a.set_label(&mut bottom)?;
            a.inc(ebx)?;
            a.ret()
        });
        assert_eq!(guest.register(EBX), DEPTH);
        assert_eq!(guest.register(ESP), 0x10_0000);
    });
}

#[test]
fn returns_without_calls_go_where_the_stack_says() {
    on_every_engine(|guest| {
        for step in 0..3 {
            let code = assemble(OTHER + step * PAGE, |a| {
                a.or(ebx, 1 << step)?;
                match step {
                    0 => a.hlt(),
                    1 => a.ret_1(8),
                    _ => a.ret(),
                }
            });
            guest.load(OTHER + step * PAGE, &code);
        }
        run(guest, |a| {
            a.push(0)?;
            a.push(0)?;
            for step in 0..3 {
                a.push((OTHER + step * PAGE) as i32)?;
            }
            a.ret()
        });
        assert_eq!(guest.register(EBX), 7);
        assert_eq!(guest.register(ESP), STACK);
    });
}

#[test]
fn code_behind_a_call_that_the_callee_writes_is_the_new_one() {
    on_every_engine(|guest| {
        run(guest, |a| {
            let (mut again, mut function) = (a.create_label(), a.create_label());
            a.mov(ecx, 100)?;
            a.xor(ebx, ebx)?;
            a.set_label(&mut again)?;
            a.call(function)?;
            // Its constant is what is written.
            a.add(ebx, 0x1000_0000)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()?;
            a.set_label(&mut function)?;
            a.mov(edx, dword_ptr(esp))?;
            a.mov(dword_ptr(edx + 2), ecx)?;
            a.ret()
        });
        assert_eq!(guest.register(EBX), (1..=100).sum());
    });
}

#[test]
fn a_call_through_memory_and_a_return_that_drops_arguments() {
    on_every_engine(|guest| {
        guest.load(
            OTHER,
            &assemble(OTHER, |a| {
                a.mov(eax, dword_ptr(esp + 4))?;
                a.add(eax, dword_ptr(esp + 8))?;
                a.ret_1(8)
            }),
        );
        guest.load(OTHER + PAGE, &OTHER.to_le_bytes());
        run(guest, |a| {
            let mut again = a.create_label();
            a.mov(ecx, 50)?;
            a.xor(ebx, ebx)?;
            a.set_label(&mut again)?;
            a.push(ecx)?;
            a.push(1)?;
            a.call(dword_ptr(OTHER + PAGE))?;
            a.add(ebx, eax)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        assert_eq!(guest.register(EBX), (2..=51).sum());
        assert_eq!(guest.register(ESP), STACK);
    });
}
