//! Break- and watchpoints of a debugger outside.

use super::{Bench, CODE, DATA, assemble};
use crate::cpu::bus::Bus;
use crate::cpu::hooks::{Watch, Watchpoint};
use crate::cpu::registers::eflags;
use crate::interp::Exit;
use iced_x86::code_asm::*;
use std::collections::BTreeSet;

impl Bench {
    fn break_at(&mut self, addresses: &[u32]) {
        let addresses: BTreeSet<u32> = addresses.iter().copied().collect();
        self.interp.set_breakpoints(&mut self.cpu, &addresses);
    }

    fn watch(&mut self, linear: u32, len: u32, kind: Watch) {
        self.cpu.set_watchpoints(vec![Watchpoint { linear, len, kind }]);
    }

    fn go(&mut self) -> Exit {
        self.interp.run(&mut self.cpu, 1_000_000)
    }
}

/// inc eax; inc eax; inc eax; hlt: one byte each.
fn increments() -> Bench {
    Bench::assembled(|a| {
        a.inc(eax)?;
        a.inc(eax)?;
        a.inc(eax)?;
        a.hlt()
    })
}

#[test]
fn a_breakpoint_stops_before_its_instruction_and_a_step_leaves_it() {
    let mut bench = increments();
    bench.break_at(&[CODE + 2]);

    assert_eq!(bench.go(), Exit::Breakpoint);
    assert_eq!((bench.cpu.state.eip, bench.eax()), (CODE + 2, 2));
    assert_eq!(bench.go(), Exit::Breakpoint);
    assert_eq!(bench.interp.step(&mut bench.cpu), Exit::Budget);
    assert_eq!(bench.go(), Exit::Halted);
    assert_eq!(bench.eax(), 3);
}

#[test]
fn a_breakpoint_in_a_block_that_is_kept_stops_and_one_taken_away_does_not() {
    let mut bench = Bench::assembled(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 5)?;
        a.set_label(&mut top)?;
        a.inc(eax)?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.hlt()
    });
    bench.run();
    bench.cpu.state.eip = CODE;
    bench.cpu.state.activity = crate::cpu::Activity::Running;
    // DEC is after a MOV of five bytes and an INC of one.
    bench.break_at(&[CODE + 6]);

    for round in (1..=5).rev() {
        assert_eq!(bench.go(), Exit::Breakpoint);
        assert_eq!(bench.ecx(), round);
        bench.interp.step(&mut bench.cpu);
        if round == 3 {
            bench.break_at(&[]);
            break;
        }
    }
    assert_eq!(bench.go(), Exit::Halted);
    let steps = bench.interp.statistics().single_steps;
    assert!(steps <= 4, "without breakpoints everything runs in blocks again: {steps}");
}

#[test]
fn a_breakpoint_counts_at_its_linear_address_only() {
    let mut bench = increments();
    // The same offset in another page: the instruction is looked at, and executed.
    bench.break_at(&[CODE + 0x1000 + 1]);
    assert_eq!(bench.go(), Exit::Halted);
    assert_eq!(bench.eax(), 3);

    let mut bench = Bench::real(&assemble(16, |a| {
        a.inc(eax)?;
        a.hlt()
    }));
    // CS:IP 0010:0F00 is linear CODE.
    bench.cpu.state.segments[1] = crate::cpu::Segment::v86_mode(0x10);
    bench.cpu.state.eip = CODE - 0x100;
    bench.cpu.state_replaced();
    bench.break_at(&[CODE]);
    assert_eq!(bench.go(), Exit::Breakpoint);
}

#[test]
fn a_breakpoint_is_found_through_another_mapping_of_kept_code() {
    let mut cpu = crate::cpu::testing::protected();
    cpu.enable_paging();
    // inc eax; inc eax; ret at 20_0000, which 30_0000 maps too.
    cpu.bus.load(0x20_0000, &[0x40, 0x40, 0xc3]);
    cpu.set_pte(0x30_0000, 0x20_0000 | 7);
    // call 20_0000; call 30_0000; hlt
    let mut code = vec![0xe8];
    code.extend((0x20_0000u32 - (0x1_0000 + 5)).to_le_bytes());
    code.push(0xe8);
    code.extend((0x30_0000u32 - (0x1_0000 + 10)).to_le_bytes());
    code.push(0xf4);
    cpu.bus.load(0x1_0000, &code);
    cpu.state.eip = 0x1_0000;
    cpu.state.gpr[0] = 0;
    let mut bench = Bench { cpu, interp: crate::interp::Interp::new() };
    bench.break_at(&[0x30_0001]);

    assert_eq!(bench.go(), Exit::Breakpoint);

    assert_eq!((bench.cpu.state.eip, bench.eax()), (0x30_0001, 3));
}

/// Writes DATA + 4, reads DATA + 8, then counts.
fn accesses() -> Bench {
    Bench::assembled(|a| {
        a.mov(dword_ptr(DATA + 4), 1)?;
        a.mov(ebx, dword_ptr(DATA + 8))?;
        a.inc(eax)?;
        a.hlt()
    })
}

#[test]
fn a_watchpoint_stops_after_the_access_it_is_for() {
    // The first instruction has ten bytes, the second six.
    for (offset, len, kind, stops_at) in [
        (4, 4, Watch::Write, Some(CODE + 10)),
        (7, 1, Watch::Access, Some(CODE + 10)),
        (4, 4, Watch::Read, None),
        (8, 4, Watch::Read, Some(CODE + 16)),
        (0, 64, Watch::Read, Some(CODE + 16)),
        (8, 4, Watch::Write, None),
        (12, 4, Watch::Access, None),
    ] {
        let mut bench = accesses();
        bench.watch(DATA + offset, len, kind);
        let exit = bench.go();
        let hit = bench.cpu.hooks.take_hit();
        match stops_at {
            Some(eip) => {
                assert_eq!((exit, bench.cpu.state.eip), (Exit::Watchpoint, eip), "{offset} {kind:?}");
                assert_eq!(hit.map(|hit| hit.linear), Some(DATA + offset));
                assert_eq!(bench.eax(), 0);
            }
            None => assert_eq!((exit, hit), (Exit::Halted, None), "{offset} {kind:?}"),
        }
    }
}

#[test]
fn flags_are_those_of_the_access_even_if_the_next_instruction_overwrites_them() {
    let mut bench = Bench::assembled(|a| {
        a.mov(eax, -1i32)?;
        a.add(eax, dword_ptr(DATA))?;
        a.or(ebx, 1)?;
        a.hlt()
    });
    bench.cpu.bus.load(u64::from(DATA), &1u32.to_le_bytes());
    bench.watch(DATA, 4, Watch::Read);
    assert_eq!(bench.go(), Exit::Watchpoint);
    let expected = eflags::CF | eflags::ZF | eflags::AF | eflags::PF;
    assert_eq!((bench.eax(), bench.cpu.flags() & eflags::ARITHMETIC), (0, expected));
}

#[test]
fn a_watchpoint_in_a_page_of_code_is_not_met_by_fetching() {
    let mut bench = increments();
    bench.watch(CODE, 4, Watch::Access);
    assert_eq!(bench.go(), Exit::Halted);
    assert_eq!(bench.eax(), 3);
}

#[test]
fn a_repeated_instruction_stops_in_the_middle() {
    let mut bench = Bench::assembled(|a| {
        a.mov(edi, DATA)?;
        a.mov(ecx, 1000)?;
        a.rep().stosb()?;
        a.hlt()
    });
    bench.watch(DATA + 100, 1, Watch::Write);
    assert_eq!(bench.go(), Exit::Watchpoint);
    let left = bench.ecx();
    assert!((1..1000).contains(&left), "{left} left");
    bench.cpu.hooks.take_hit();
    assert_eq!(bench.go(), Exit::Halted);
}

#[test]
fn the_guest_sees_neither_break_nor_watchpoints() {
    let mut bench = increments();
    let before = bench.cpu.bus.peek32(u64::from(CODE));
    let debug_registers = bench.cpu.state.dr;
    bench.break_at(&[CODE + 1]);
    bench.watch(DATA, 4, Watch::Access);
    assert_eq!(bench.go(), Exit::Breakpoint);
    assert_eq!(bench.cpu.bus.read_memory(u64::from(CODE), ipc::width::Width::Dword), before);
    assert_eq!(bench.cpu.state.dr, debug_registers);
}
