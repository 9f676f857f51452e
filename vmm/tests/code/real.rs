//! Real mode: segment registers, far transfers, interrupts and flags, which shadow code has code of its own for.

use super::guest::{Guest, REAL_STACK, assemble_16, on_every_engine_in_real_mode};
use iced_x86::code_asm::*;
use vmm::cpu::registers::gpr::{EAX, EBP, EBX, ECX, EDX, ESI, ESP};
use vmm::cpu::registers::{Seg, eflags, rights, vector};
use vmm::cpu::{InterruptShadow, Segment};
use vmm::interp::Exit;

/// Where most code is.
const CODE: u16 = 0x8000;
/// A segment of data, and what is at its start.
const SEGMENT: u16 = 0x2000;
const VALUE: u16 = 0x1234;
/// Turns of loops: enough for shadow code to be made, and used.
const TURNS: u16 = 300;

fn linear(segment: u16, offset: u16) -> u32 {
    16 * u32::from(segment) + u32::from(offset)
}

fn run(guest: &mut Guest, code: &[u8]) {
    guest.load(CODE.into(), code);
    guest.run(CODE.into());
}

fn selector(guest: &Guest, seg: Seg) -> (u16, u32) {
    let segment = guest.cpu.state.segment(seg);
    (segment.selector, segment.base())
}

#[test]
fn loads_of_every_segment_register_take_effect() {
    on_every_engine_in_real_mode(|guest| {
        guest.load(linear(SEGMENT, 0), &VALUE.to_le_bytes());
        guest.load(linear(SEGMENT + 1, 0), &(VALUE + 1).to_le_bytes());
        // Far pointers to both.
        guest.load(0x5000, &[2, 0, 0xff, 0x1f, 0x10, 0, 0, 0x20]);
        // One of 32 bits.
        guest.load(0x5010, &[4, 0, 1, 0, 0x01, 0x20]);
        let code = assemble_16(CODE, |a| {
            let mut again = a.create_label();
            a.mov(cx, u32::from(TURNS))?;
            a.xor(dx, dx)?;
            a.set_label(&mut again)?;
            a.mov(ax, u32::from(SEGMENT))?;
            a.mov(ds, ax)?;
            a.add(dx, word_ptr(0))?;
            a.push(cs)?;
            a.pop(ds)?;
            a.les(di, dword_ptr(0x5000))?;
            a.add(dx, word_ptr(di + 14).es())?;
            a.lfs(si, dword_ptr(0x5004))?;
            a.add(dx, word_ptr(si).fs())?;
            a.lgs(ebp, fword_ptr(0x5010))?;
            a.mov(word_ptr(0x5020), gs)?;
            a.mov(es, word_ptr(0x5020))?;
            a.add(dx, word_ptr(0).es())?;
            a.mov(ebx, es)?;
            a.dec(cx)?;
            a.jne(again)?;
            a.hlt()
        });
        run(guest, &code);
        // ES:DI + 14 is SEGMENT:0, FS:SI is one paragraph further.
        let sum = 2 * u32::from(VALUE) + 2 * u32::from(VALUE + 1);
        assert_eq!(guest.register(EDX) & 0xffff, (sum * u32::from(TURNS)) & 0xffff);
        assert_eq!(guest.register(EBX), u32::from(SEGMENT) + 1);
        assert_eq!(selector(guest, Seg::Ds), (0, 0));
        assert_eq!(selector(guest, Seg::Es), (0x2001, 0x2_0010));
        assert_eq!(selector(guest, Seg::Fs), (0x2000, 0x2_0000));
        assert_eq!(selector(guest, Seg::Gs), (0x2001, 0x2_0010));
        assert_eq!((guest.register(ESI) & 0xffff, guest.register(EBP)), (0x10, 0x1_0004));
    });
}

#[test]
fn nothing_comes_between_a_load_of_ss_and_the_next_instruction() {
    for through_pop in [false, true] {
        on_every_engine_in_real_mode(|guest| {
            let code = assemble_16(CODE, |a| {
                let mut again = a.create_label();
                a.mov(cx, u32::from(TURNS))?;
                a.set_label(&mut again)?;
                a.mov(ax, 0x1000)?;
                a.sti()?;
                if through_pop {
                    a.push(ax)?;
                    a.pop(ss)?;
                } else {
                    a.mov(ss, ax)?;
                }
                a.dec(cx)?;
                a.mov(ax, 0)?;
                a.mov(ss, ax)?;
                a.or(cx, cx)?;
                a.jne(again)?;
                a.hlt()
            });
            // Instructions behind loads of SS: by what was loaded.
            let behind: Vec<u32> = (0..code.len())
                .filter(|at| code[..*at].ends_with(&[0x8e, 0xd0]) || code[..*at].ends_with(&[0x17]))
                .map(|at| u32::from(CODE) + at as u32)
                .collect();
            assert_eq!(behind.len(), 2);
            guest.load(CODE.into(), &code);
            guest.cpu.state.eip = CODE.into();
            loop {
                let exit = guest.engine.run(&mut guest.cpu, 1);
                let state = &guest.cpu.state;
                if behind.contains(&state.eip) {
                    assert_eq!(state.interrupt_shadow, InterruptShadow::MovSs, "at {:x}", state.eip);
                }
                match exit {
                    Exit::Halted => break,
                    Exit::Budget | Exit::Attention => {}
                    exit => panic!("{exit:?}"),
                }
            }
            assert_eq!(guest.register(ECX) & 0xffff, 0);
        });
    }
}

#[test]
fn a_segment_of_4_gib_becomes_flat_and_stops_being_so() {
    on_every_engine_in_real_mode(|guest| {
        const FAR: u32 = 0x18_0000;
        guest.cpu.state.segments[Seg::Ds as usize] =
            Segment::new(0, rights::REAL_MODE | rights::GRANULAR, 0, u32::MAX);
        guest.load(FAR, &[7, 0]);
        guest.load(FAR + 0x10, &[9, 0]);
        let code = assemble_16(CODE, |a| {
            let mut again = a.create_label();
            a.mov(cx, u32::from(TURNS))?;
            a.xor(dx, dx)?;
            a.mov(ebx, FAR)?;
            a.set_label(&mut again)?;
            a.mov(ax, 0)?;
            a.mov(ds, ax)?;
            a.add(dx, word_ptr(ebx))?;
            a.inc(ax)?;
            a.mov(ds, ax)?;
            a.add(dx, word_ptr(ebx))?;
            a.dec(cx)?;
            a.jne(again)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!(guest.register(EDX) & 0xffff, 16 * u32::from(TURNS));
        assert_eq!(guest.cpu.state.segment(Seg::Ds).limit(), u32::MAX);
    });
}

#[test]
fn rights_that_protected_mode_left_are_gone_after_a_load() {
    on_every_engine_in_real_mode(|guest| {
        // Read-only, as after a return from protected mode.
        let read_only = rights::REAL_MODE & !rights::WRITABLE;
        guest.cpu.state.segments[Seg::Es as usize] = Segment::new(8, read_only, 0, 0xffff);
        let code = assemble_16(CODE, |a| {
            a.mov(ax, u32::from(SEGMENT))?;
            a.mov(es, ax)?;
            a.mov(word_ptr(0).es(), ax)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!(guest.bytes(linear(SEGMENT, 0), 2), SEGMENT.to_le_bytes());
        assert_eq!(guest.cpu.state.segment(Seg::Es).rights(), rights::REAL_MODE);
    });
}

#[test]
fn a_pop_beyond_the_end_of_the_stack_segment_faults() {
    on_every_engine_in_real_mode(|guest| {
        guest.vector(vector::SS, 0, 0x9000);
        let handler = assemble_16(0x9000, |a| {
            a.mov(word_ptr(0x5000), sp)?;
            a.mov(word_ptr(0x5002), ds)?;
            a.hlt()
        });
        guest.load(0x9000, &handler);
        let code = assemble_16(CODE, |a| {
            let mut again = a.create_label();
            a.mov(cx, 10)?;
            a.set_label(&mut again)?;
            a.push(ds)?;
            a.pop(ds)?;
            a.loop_(again)?;
            a.mov(sp, 0xffff)?;
            a.pop(ds)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!(guest.bytes(0x5000, 4), [0xf9, 0xff, 0, 0]);
    });
}

/// `call segment:offset`.
fn call_far(segment: u16, offset: u16) -> [u8; 5] {
    let ([a, b], [c, d]) = (offset.to_le_bytes(), segment.to_le_bytes());
    [0x9a, a, b, c, d]
}

#[test]
fn far_calls_and_jumps_go_to_other_segments_and_back() {
    on_every_engine_in_real_mode(|guest| {
        // At the end of a page: the return is on the next one.
        let function = assemble_16(0x0ffe, |a| {
            a.inc(dx)?;
            a.inc(dx)?;
            a.mov(si, cs)?;
            a.retf()
        });
        guest.load(linear(SEGMENT, 0x0ffe), &function);
        // Through memory, with parameters; it goes back by a jump.
        let other = assemble_16(0, |a| {
            a.inc(bx)?;
            a.retf_1(4)
        });
        guest.load(linear(0x3000, 0), &other);
        guest.load(0x5000, &[0, 0, 0x00, 0x30]);
        let code = assemble_16(CODE, |a| {
            let (mut again, mut on) = (a.create_label(), a.create_label());
            a.xor(dx, dx)?;
            a.xor(bx, bx)?;
            a.mov(cx, u32::from(TURNS))?;
            a.set_label(&mut again)?;
            a.db(&call_far(SEGMENT, 0x0ffe))?;
            a.push(dx)?;
            a.push(bx)?;
            // call far [0x5000]
            a.db(&[0xff, 0x1e, 0x00, 0x50])?;
            // jmp 0:on
            a.push(cs)?;
            a.mov(ax, 0)?;
            a.push(ax)?;
            a.add(sp, 4)?;
            a.jmp(on)?;
            a.hlt()?;
            a.set_label(&mut on)?;
            a.dec(cx)?;
            a.jne(again)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!(guest.register(EDX) & 0xffff, 2 * u32::from(TURNS));
        assert_eq!(guest.register(EBX) & 0xffff, u32::from(TURNS));
        assert_eq!(guest.register(ESI) & 0xffff, u32::from(SEGMENT));
        assert_eq!(guest.register(ESP), REAL_STACK);
        assert_eq!(selector(guest, Seg::Cs), (0, 0));
    });
}

#[test]
fn a_near_return_in_another_segment_goes_on_there() {
    on_every_engine_in_real_mode(|guest| {
        let [low, high] = SEGMENT.to_le_bytes();
        let code = assemble_16(CODE, |a| {
            let (mut again, mut function, mut away) = (a.create_label(), a.create_label(), a.create_label());
            a.xor(bx, bx)?;
            a.mov(cx, u32::from(TURNS))?;
            a.set_label(&mut again)?;
            a.call(function)?;
            a.inc(bx)?;
            a.dec(cx)?;
            a.jne(again)?;
            a.hlt()?;
            // Every other time it jumps to a RET in the other segment.
            a.set_label(&mut function)?;
            a.test(cx, 1)?;
            a.jne(away)?;
            a.ret()?;
            a.set_label(&mut away)?;
            a.nop()?;
            a.db(&[0xea, 0, 0, low, high])
        });
        let arrival = CODE + 8;
        assert_eq!(code[usize::from(arrival - CODE)], 0x43, "INC BX");
        guest.load(linear(SEGMENT, 0), &[0xc3]);
        // Where that leads: `add bx, 100`, and back behind `inc bx`.
        let there = assemble_16(arrival, |a| {
            a.add(bx, 100)?;
            a.db(&[0xea])?;
            a.dw(&[arrival + 1, 0])
        });
        guest.load(linear(SEGMENT, arrival), &there);
        run(guest, &code);
        assert_eq!(guest.register(EBX), u32::from(TURNS / 2) * 101);
        assert_eq!(selector(guest, Seg::Cs), (0, 0));
    });
}

#[test]
fn the_same_code_runs_in_more_segments_than_are_remembered() {
    on_every_engine_in_real_mode(|guest| {
        const SEGMENTS: u16 = 600;
        const FIRST: u16 = 0x1000;
        // The last paragraph that all of them reach: called with the offset that leads there.
        let target = linear(FIRST, 0xf000);
        let function = assemble_16(0, |a| {
            a.inc(dx)?;
            a.retf()
        });
        guest.load(target, &function);
        let code = assemble_16(CODE, |a| {
            let (mut all, mut again) = (a.create_label(), a.create_label());
            a.xor(dx, dx)?;
            a.mov(di, 3)?;
            a.set_label(&mut all)?;
            a.mov(cx, u32::from(SEGMENTS))?;
            a.mov(word_ptr(0x5000), 0xf000)?;
            a.mov(word_ptr(0x5002), u32::from(FIRST))?;
            a.set_label(&mut again)?;
            a.db(&[0xff, 0x1e, 0x00, 0x50])?;
            a.sub(word_ptr(0x5000), 0x10)?;
            a.inc(word_ptr(0x5002))?;
            a.dec(cx)?;
            a.jne(again)?;
            a.dec(di)?;
            a.jne(all)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!(guest.register(EDX) & 0xffff, 3 * u32::from(SEGMENTS));
    });
}

#[test]
fn a_far_function_that_is_written_over_is_seen() {
    on_every_engine_in_real_mode(|guest| {
        // `inc dx; retf`, and what makes `dec dx` of it and back.
        guest.load(linear(SEGMENT, 0), &[0x42, 0xcb]);
        let code = assemble_16(CODE, |a| {
            let mut again = a.create_label();
            a.mov(ax, u32::from(SEGMENT))?;
            a.mov(es, ax)?;
            a.xor(dx, dx)?;
            a.mov(cx, u32::from(TURNS))?;
            a.set_label(&mut again)?;
            a.db(&call_far(SEGMENT, 0))?;
            a.db(&call_far(SEGMENT, 0))?;
            a.xor(byte_ptr(0).es(), 0x42 ^ 0x4a)?;
            a.db(&call_far(SEGMENT, 0))?;
            a.xor(byte_ptr(0).es(), 0x42 ^ 0x4a)?;
            a.dec(cx)?;
            a.jne(again)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!(guest.register(EDX) & 0xffff, u32::from(TURNS));
    });
}

#[test]
fn a_far_call_that_finds_no_stack_faults_before_it_does_anything() {
    on_every_engine_in_real_mode(|guest| {
        let code = assemble_16(CODE, |a| {
            a.mov(sp, 3)?;
            a.db(&call_far(SEGMENT, 0))?;
            a.hlt()
        });
        guest.load(CODE.into(), &code);
        guest.cpu.state.eip = CODE.into();
        // The push at offset FFFF faults, and so do those of the frame: the processor shuts down where the call is.
        assert_eq!(guest.engine.run(&mut guest.cpu, 100), Exit::Shutdown);
        assert_eq!((selector(guest, Seg::Cs), guest.cpu.state.eip), ((0, 0), u32::from(CODE) + 3));
        assert_eq!(guest.register(ESP), 3);
    });
}

#[test]
fn flags_survive_pushf_and_popf() {
    on_every_engine_in_real_mode(|guest| {
        let code = assemble_16(CODE, |a| {
            let mut again = a.create_label();
            a.mov(di, 0x5000)?;
            a.mov(si, 0x6000)?;
            a.mov(cx, 0x200)?;
            a.set_label(&mut again)?;
            // All but TF, from a counter; and through the arithmetic unit.
            a.mov(ax, cx)?;
            a.imul_3(ax, ax, 0x4d7)?;
            a.and(ax, 0xfeff_u32 as i32)?;
            a.push(ax)?;
            a.popf()?;
            a.pushf()?;
            a.pop(bx)?;
            a.adc(bx, 1)?;
            a.pushf()?;
            a.pop(dx)?;
            a.cld()?;
            a.lea(bx, word_ptr(bx + si))?;
            a.xor(word_ptr(di), bx)?;
            a.add(word_ptr(di + 2), dx)?;
            a.dec(cx)?;
            a.jne(again)?;
            // 32 bits: ID and AC as well.
            a.mov(eax, (eflags::ID | eflags::AC | eflags::CF | eflags::DF | eflags::VM | eflags::RF) as i32)?;
            a.push(eax)?;
            a.popfd()?;
            a.pushfd()?;
            a.pop(eax)?;
            a.push(0)?;
            a.popf()?;
            a.hlt()
        });
        run(guest, &code);
        let expected = (0..0x200_u32).map(|n| n + 1).fold((0_u16, 0_u16), |(xor, sum), n| {
            let taken = (n as u16).wrapping_mul(0x4d7) & 0xfeff;
            let image = taken & (eflags::DEFINED as u16) | eflags::FIXED as u16;
            let carry = image & 1;
            let result = image.wrapping_add(1 + carry);
            let arithmetic = |bit: u32, on: bool| if on { bit as u16 } else { 0 };
            let flags = image & !(eflags::ARITHMETIC as u16)
                | arithmetic(eflags::CF, u32::from(image) + 1 + u32::from(carry) > 0xffff)
                | arithmetic(eflags::ZF, result == 0)
                | arithmetic(eflags::SF, result & 0x8000 != 0)
                | arithmetic(eflags::PF, (result as u8).count_ones().is_multiple_of(2))
                | arithmetic(eflags::AF, (image & 15) + 1 + carry > 15)
                | arithmetic(eflags::OF, image & 0x8000 == 0 && result & 0x8000 != 0);
            (xor ^ result.wrapping_add(0x6000), sum.wrapping_add(flags))
        });
        assert_eq!(guest.bytes(0x5000, 4), [expected.0.to_le_bytes(), expected.1.to_le_bytes()].concat());
        let wide = eflags::ID | eflags::AC | eflags::CF | eflags::DF | eflags::FIXED;
        assert_eq!(guest.register(EAX), wide);
    });
}

#[test]
fn popf_that_sets_tf_traps_after_the_next_instruction() {
    on_every_engine_in_real_mode(|guest| {
        guest.vector(vector::DB, 0, 0x9000);
        let handler = assemble_16(0x9000, |a| {
            a.inc(dx)?;
            a.push(bp)?;
            a.mov(bp, sp)?;
            a.and(word_ptr(bp + 6), !eflags::TF & 0xffff)?;
            a.pop(bp)?;
            a.iret()
        });
        guest.load(0x9000, &handler);
        let code = assemble_16(CODE, |a| {
            let mut again = a.create_label();
            a.xor(edx, edx)?;
            a.xor(bx, bx)?;
            a.mov(cx, u32::from(TURNS))?;
            a.set_label(&mut again)?;
            a.pushf()?;
            a.pop(ax)?;
            a.or(ax, eflags::TF)?;
            a.push(ax)?;
            a.popf()?;
            a.inc(bx)?;
            a.dec(cx)?;
            a.jne(again)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!((guest.register(EDX), guest.register(EBX)), (TURNS.into(), TURNS.into()));
    });
}

#[test]
fn software_interrupts_come_back_with_the_flags_they_left_with() {
    on_every_engine_in_real_mode(|guest| {
        guest.vector(0x60, SEGMENT, 0x10);
        let handler = assemble_16(0x10, |a| {
            a.pushf()?;
            a.pop(ax)?;
            a.or(si, ax)?;
            a.std()?;
            a.inc(dx)?;
            a.iret()
        });
        guest.load(linear(SEGMENT, 0x10), &handler);
        let code = assemble_16(CODE, |a| {
            let mut again = a.create_label();
            a.xor(edx, edx)?;
            a.xor(si, si)?;
            a.xor(bx, bx)?;
            a.mov(cx, u32::from(TURNS))?;
            a.sti()?;
            a.set_label(&mut again)?;
            a.cmp(cx, 100)?;
            a.int(0x60)?;
            a.adc(bx, 0)?;
            a.pushf()?;
            a.pop(ax)?;
            a.dec(cx)?;
            a.jne(again)?;
            a.hlt()
        });
        run(guest, &code);
        assert_eq!(guest.register(EDX), TURNS.into());
        assert_eq!(guest.register(EBX), 99, "CF of the comparison");
        assert_eq!(guest.register(ESI) & (eflags::IF | eflags::DF), 0, "in the handler");
        assert_eq!(guest.register(EAX) & (eflags::IF | eflags::DF), eflags::IF, "behind it");
        assert_eq!(selector(guest, Seg::Cs), (0, 0));
        assert_eq!(guest.register(ESP), REAL_STACK);
    });
}
