//! Instructions whose accesses meet devices, again and again, and memory in between.

use super::guest::{Guest, REGISTERS, assemble, on_every_engine_uninterrupted};
use iced_x86::code_asm::*;
use std::cell::RefCell;
use vmm::cpu::registers::gpr::{EAX, EBX, EDX};
use vmm::engine::Engine;
use vmm::shadow::Terminal;

const CODE: u32 = 0x2_0000;
const DATA: u32 = 0x5_0000;
const TURNS: u32 = 500;

/// Accesses that were interpreted in place.
fn in_place(guest: &Guest) -> u64 {
    match &guest.engine {
        Engine::Shadow(shadow) => shadow.statistics().in_place[Terminal::Device as usize],
        Engine::Interp(_) => 0,
    }
}

/// Runs a loop that counts ECX down with EDI at the device's registers and at memory in turns; the same comes of it everywhere.
fn runs_alike(body: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) {
    let code = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.xor(ebx, ebx)?;
        a.xor(edx, edx)?;
        a.mov(eax, 0x9000_0001u32)?;
        a.mov(edi, REGISTERS)?;
        a.mov(ebp, DATA)?;
        a.mov(ecx, TURNS)?;
        a.set_label(&mut again)?;
        body(a)?;
        a.xchg(edi, ebp)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.hlt()
    });
    let expected = RefCell::new(None);
    on_every_engine_uninterrupted(|guest| {
        guest.load(CODE, &code);
        guest.run(CODE);
        let registers = [EAX, EBX, EDX].map(|register| guest.register(register));
        let machine = &guest.cpu.bus;
        let found = (registers, machine.registers, machine.accesses, guest.bytes(DATA, 64));
        let expected = expected.borrow_mut().get_or_insert(found.clone()).clone();
        assert_eq!(found, expected);
        if matches!(guest.engine, Engine::Shadow(_)) {
            assert!(in_place(guest) > u64::from(TURNS / 2 - 50), "{} in place", in_place(guest));
        }
    });
}

#[test]
fn loads_and_stores_of_registers_and_memory() {
    runs_alike(|a| {
        a.add(eax, ecx)?;
        a.mov(dword_ptr(edi), eax)?;
        a.add(ebx, dword_ptr(edi))?;
        a.mov(byte_ptr(edi + 5), cl)?;
        a.movzx(edx, word_ptr(edi + 4))
    });
}

#[test]
fn flags_of_read_modify_write_instructions() {
    runs_alike(|a| {
        a.add(dword_ptr(edi + 8), eax)?;
        a.adc(ebx, 3)?;
        a.inc(word_ptr(edi + 12))?;
        a.adc(edx, ebx)?;
        a.rol(byte_ptr(edi + 12), 3)?;
        a.adc(eax, edx)
    });
}

#[test]
fn pushes_pops_and_strings() {
    runs_alike(|a| {
        a.push(dword_ptr(edi + 16))?;
        a.pop(edx)?;
        a.add(edx, ecx)?;
        a.push(edx)?;
        a.pop(dword_ptr(edi + 16))?;
        a.mov(esi, edi)?;
        a.push(edi)?;
        a.add(edi, 20)?;
        a.lodsd()?;
        a.add(eax, ecx)?;
        a.stosd()?;
        a.movsb()?;
        a.pop(edi)?;
        a.add(ebx, eax)
    });
}

#[test]
fn memory_at_such_a_place_is_direct_again() {
    let code = assemble(CODE, |a| {
        let mut again = a.create_label();
        a.mov(edi, REGISTERS)?;
        a.mov(ecx, TURNS)?;
        a.set_label(&mut again)?;
        a.mov(dword_ptr(edi), ecx)?;
        a.dec(ecx)?;
        a.jne(again)?;
        a.cmp(edi, REGISTERS)?;
        a.mov(edi, DATA)?;
        a.mov(ecx, 100 * TURNS)?;
        a.je(again)?;
        a.hlt()
    });
    on_every_engine_uninterrupted(|guest| {
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.bytes(DATA, 4), [1, 0, 0, 0]);
        assert!(in_place(guest) < u64::from(2 * TURNS));
    });
}
