//! Random bytes as code: no panic, no endless loop in one step.

use super::{Bench, CODE};
use crate::cpu::registers::{cr0, eflags, rights};
use crate::cpu::state::{Activity, Segment};
use proptest::prelude::*;

fn survive(mut bench: Bench, registers: [u32; 8], flags: u32) {
    bench.cpu.state.gpr = registers;
    let keep = bench.cpu.state.eflags & eflags::VM;
    bench.cpu.set_flags(flags & !(eflags::VM | eflags::TF) | keep);
    for _ in 0..4 {
        bench.interp.run(&mut bench.cpu, 64);
        for _ in 0..16 {
            bench.interp.step(&mut bench.cpu);
        }
        if bench.cpu.state.activity == Activity::Halted {
            bench.cpu.state.activity = Activity::Running;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_code_in_real_mode_does_not_panic(
        code in proptest::collection::vec(any::<u8>(), 1..64),
        registers in any::<[u32; 8]>(),
        flags in any::<u32>(),
    ) {
        survive(Bench::real(&code), registers, flags);
    }

    #[test]
    fn random_code_in_protected_mode_does_not_panic(
        code in proptest::collection::vec(any::<u8>(), 1..64),
        registers in any::<[u32; 8]>(),
        flags in any::<u32>(),
    ) {
        survive(Bench::flat(&code), registers, flags);
    }

    #[test]
    fn random_code_with_paging_does_not_panic(
        code in proptest::collection::vec(any::<u8>(), 1..64),
        registers in any::<[u32; 8]>(),
        flags in any::<u32>(),
        at_page_end in any::<bool>(),
    ) {
        let mut bench = Bench::flat(&code);
        // One page table: the first 64 pages, the page of the code followed by a hole.
        bench.cpu.bus.poke32(0x2_0000, 0x2_1007);
        for page in 0..64 {
            let present = if page == CODE / 0x1000 + 1 { 0 } else { 7 };
            bench.cpu.bus.poke32(0x2_1000 + u64::from(page) * 4, page << 12 | present);
        }
        if at_page_end {
            let len = code.len() as u32;
            bench.cpu.state.eip = CODE + 0x1000 - len;
            bench.cpu.bus.load(u64::from(CODE + 0x1000 - len), &code);
        }
        bench.cpu.state.cr3 = 0x2_0000;
        bench.cpu.state.cr0 |= cr0::PG;
        bench.cpu.state.idtr.limit = 0x3ff;
        bench.cpu.state_replaced();
        survive(bench, registers, flags);
    }

    #[test]
    fn random_code_in_virtual_8086_mode_does_not_panic(
        code in proptest::collection::vec(any::<u8>(), 1..64),
        registers in any::<[u32; 8]>(),
        flags in any::<u32>(),
    ) {
        let mut bench = Bench::flat(&code);
        for n in 0..6 {
            bench.cpu.state.segments[n] = Segment::new(0, rights::V86_MODE, 0, 0xffff);
        }
        bench.cpu.state.cpl = 3;
        bench.cpu.state.eflags |= eflags::VM;
        bench.cpu.state_replaced();
        survive(bench, registers, flags);
    }
}
