//! Segment registers that are loaded from the same descriptors again and again, and from descriptors that change meanwhile.

use super::guest::{DATA, GDT, Guest, assemble, on_every_engine_uninterrupted};
use iced_x86::code_asm::*;
use vmm::cpu::Seg;
use vmm::cpu::registers::gpr::{EAX, EBX, EDX};
use vmm::cpu::registers::{rights, vector};
use vmm::engine::Engine;

const CODE: u32 = 0x2_0000;
const HANDLER: u32 = 0x4_0000;
const VALUES: u32 = 0x5_0000;
const TURNS: u32 = 500;
/// A data segment with another base, and its number.
const OTHER: u16 = 0x18;
/// Where the first and the last byte of its base are, of which the latter is alone.
const OTHER_BASE: u32 = GDT + OTHER as u32 + 2;
/// Pseudo-descriptor for LGDT.
const TABLE: u32 = 0x6_0000;

fn add_other(guest: &mut Guest) {
    let base = u64::from(VALUES);
    let descriptor = 0xffff | base << 16 | u64::from(rights::FLAT_DATA) << 40 | 0xf << 48;
    guest.load(GDT + u32::from(OTHER), &descriptor.to_le_bytes());
    for n in 0..TURNS {
        guest.load(VALUES + 4 * n, &(n + 1).to_le_bytes());
    }
}

/// How many loads of segment registers the interpreter made for shadow code.
fn loads(guest: &Guest) -> Option<u64> {
    const SEGMENT: usize = 1;
    match &guest.engine {
        Engine::Shadow(shadow) => Some(shadow.statistics().in_place[SEGMENT]),
        _ => None,
    }
}

#[test]
fn the_interpreter_loads_a_register_once_while_its_descriptor_stays() {
    on_every_engine_uninterrupted(|guest| {
        add_other(guest);
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(ecx, TURNS)?;
            a.xor(ebx, ebx)?;
            a.set_label(&mut again)?;
            a.mov(eax, u32::from(OTHER))?;
            a.stc()?;
            a.mov(fs, ax)?;
            a.adc(ebx, dword_ptr(0).fs())?;
            a.push(ds)?;
            a.pop(es)?;
            a.push(0)?;
            a.pop(gs)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), 2 * TURNS);
        let selector = |seg| guest.cpu.state.segment(seg).selector;
        assert_eq!((selector(Seg::Fs), selector(Seg::Es), selector(Seg::Gs)), (OTHER, DATA, 0));
        assert_eq!(guest.cpu.state.segment(Seg::Fs).base(), VALUES);
        assert!(!guest.cpu.state.segment(Seg::Gs).usable());
        if let Some(loads) = loads(guest) {
            assert!(loads < u64::from(TURNS), "{loads} loads");
        }
    });
}

#[test]
fn a_descriptor_that_changes_is_seen_at_once() {
    on_every_engine_uninterrupted(|guest| {
        add_other(guest);
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.mov(ecx, TURNS)?;
            a.xor(ebx, ebx)?;
            a.mov(eax, u32::from(OTHER))?;
            a.set_label(&mut again)?;
            a.mov(fs, ax)?;
            a.add(ebx, dword_ptr(0).fs())?;
            a.mov(fs, ax)?;
            a.add(word_ptr(OTHER_BASE), 4)?;
            a.dec(ecx)?;
            a.jne(again)?;
            a.hlt()
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!(guest.register(EBX), TURNS * (TURNS + 1) / 2);
    });
}

#[test]
fn a_table_that_becomes_shorter_is_seen_at_once() {
    on_every_engine_uninterrupted(|guest| {
        add_other(guest);
        guest.gate(vector::GP, HANDLER);
        guest.load(HANDLER, &assemble(HANDLER, |a| a.hlt()));
        guest.load(TABLE, &[OTHER as u8 - 1, 0, 0, GDT.to_le_bytes()[1], 0, 0]);
        let code = assemble(CODE, |a| {
            let mut again = a.create_label();
            a.xor(edx, edx)?;
            a.mov(eax, u32::from(OTHER))?;
            a.set_label(&mut again)?;
            a.inc(edx)?;
            a.mov(fs, ax)?;
            a.cmp(edx, 3)?;
            a.jne(again)?;
            a.lgdt(fword_ptr(TABLE))?;
            a.jmp(again)
        });
        guest.load(CODE, &code);
        guest.run(CODE);
        assert_eq!((guest.register(EDX), guest.register(EAX)), (4, OTHER.into()));
        assert_eq!(guest.cpu.state.eip, HANDLER + 1, "#GP");
    });
}
