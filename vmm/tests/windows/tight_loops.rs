//! Loops that are made several times in a row.

use super::*;

/// Runs a loop, which leaves its results in registers and in memory, for so many turns.
fn loops(turns: &[u32], build: impl Fn(&mut CodeAssembler, u32) -> Result<(), IcedError>) {
    for turns in turns {
        let code = assembled(|a| {
            let mut end = a.create_label();
            build(a, *turns)?;
            a.pushfd()?;
            a.pop(ebp)?;
            // Around the jump to itself flags are dead: these are what a poll leaves.
            a.cmp(eax, eax)?;
            a.set_label(&mut end)?;
            a.jmp(end)
        });
        same_everywhere(&code);
    }
}

/// Around what is made in a row, and more than a page of operands.
const TURNS: [u32; 8] = [1, 2, 3, 4, 5, 6, 31, 1500];

#[test]
fn tight_loops_keep_their_carry_from_turn_to_turn() {
    loops(&TURNS, |a, turns| {
        let mut again = a.create_label();
        a.mov(ecx, turns)?;
        a.mov(esi, DATA)?;
        a.stc()?;
        a.set_label(&mut again)?;
        a.mov(eax, dword_ptr(esi))?;
        a.adc(dword_ptr(esi + 0x4002), eax)?;
        a.lea(esi, dword_ptr(esi + 4))?;
        a.dec(ecx)?;
        a.jnz(again)?;
        a.sbb(ebx, ebx)
    });
}

#[test]
fn tight_loops_are_left_in_their_midst_and_go_round_by_jumps() {
    loops(&TURNS, |a, turns| {
        let (mut again, mut out, mut other) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(ecx, turns)?;
        a.xor(eax, eax)?;
        a.set_label(&mut again)?;
        a.sub(ecx, 1)?;
        a.jc(out)?;
        a.add(eax, dword_ptr(DATA + ecx * 8))?;
        a.push(eax)?;
        a.pop(edx)?;
        a.cmp(eax, 0x4000_0000)?;
        a.ja(other)?;
        a.jmp(again)?;
        a.set_label(&mut other)?;
        a.ror(eax, 3)?;
        a.jmp(again)?;
        a.set_label(&mut out)?;
        a.mov(dword_ptr(DATA), eax)
    });
}

#[test]
fn tight_loops_of_the_floating_point_unit_know_their_last_instruction() {
    loops(&TURNS, |a, turns| {
        let mut again = a.create_label();
        a.fninit()?;
        a.mov(esi, DATA)?;
        a.mov(edi, DATA + 0x8000)?;
        a.xor(ecx, ecx)?;
        a.fldz()?;
        a.set_label(&mut again)?;
        a.fiadd(dword_ptr(esi))?;
        a.fist(dword_ptr(edi + ecx * 4))?;
        a.add(esi, 12)?;
        a.inc(ecx)?;
        a.cmp(ecx, turns as i32)?;
        a.jne(again)?;
        a.fnstenv(ptr(DATA + 0x10))?;
        a.fistp(qword_ptr(DATA + 0x40))
    });
    // Left before a turn has used the floating-point unit: what it remembers is the turn before's.
    loops(&TURNS, |a, turns| {
        let (mut again, mut out) = (a.create_label(), a.create_label());
        a.fninit()?;
        a.fld1()?;
        a.mov(esi, DATA)?;
        a.mov(ecx, turns)?;
        a.set_label(&mut again)?;
        a.dec(ecx)?;
        a.js(out)?;
        a.fimul(word_ptr(esi + ecx * 2))?;
        a.fxam()?;
        a.sub(esi, 2)?;
        a.jmp(again)?;
        a.set_label(&mut out)?;
        a.fnstenv(ptr(DATA + 0x10))?;
        a.fstp(qword_ptr(DATA + 0x40))
    });
}
