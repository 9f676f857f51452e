use super::{Bench, CODE, DATA, STACK, assemble};
use crate::cpu::bus::Bus;
use crate::cpu::registers::{cr0, eflags, rights};
use crate::cpu::state::{Activity, InterruptShadow, Segment};
use crate::interp::Exit;
use iced_x86::code_asm::*;

#[test]
fn loop_runs_from_cached_blocks() {
    let mut bench = Bench::assembled(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut top)?;
        a.add(eax, ecx)?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.hlt()
    });

    bench.run();

    assert_eq!(bench.eax(), 500_500);
    let statistics = bench.interp.statistics();
    assert_eq!(statistics.instructions, 1 + 3000 + 1);
    assert!(statistics.blocks_decoded <= 3, "{statistics:?}");
    assert_eq!(statistics.single_steps, 0);
}

#[test]
fn store_into_the_running_block_takes_effect_at_the_next_instruction() {
    let mut bench = Bench::assembled(|a| {
        let mut patched = a.create_label();
        a.mov(byte_ptr(CODE + 8), 0x42u32 as i32)?;
        a.nop()?;
        a.set_label(&mut patched)?;
        // At CODE + 7 is B0 11.. written as MOV AL, 11h.
        a.db(&[0xb0, 0x11])?;
        a.hlt()
    });
    // mov byte [CODE+9], 42h is 7 bytes, NOP one: the immediate is at CODE + 9.
    bench.cpu.bus.load(u64::from(CODE) + 2, &(CODE + 9).to_le_bytes());

    bench.run();

    assert_eq!(bench.eax(), 0x42);
}

#[test]
fn loop_that_patches_itself_sees_each_patch() {
    // inc byte [imm]; mov al, imm; add ebx, eax; dec ecx; jnz
    let mut bench = Bench::assembled(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 10)?;
        a.set_label(&mut top)?;
        a.inc(byte_ptr(CODE + 5 + 6 + 1))?;
        a.db(&[0xb0, 0x00])?;
        a.add(ebx, eax)?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.hlt()
    });

    bench.run();

    assert_eq!(bench.cpu.state.gpr[3], 55);
    assert!(bench.interp.statistics().blocks_dropped >= 9);
}

#[test]
fn store_beside_code_drops_nothing() {
    let mut bench = Bench::assembled(|a| {
        let mut top = a.create_label();
        a.mov(ecx, 100)?;
        a.set_label(&mut top)?;
        a.inc(dword_ptr(CODE + 0x100))?;
        a.dec(ecx)?;
        a.jnz(top)?;
        a.hlt()
    });

    bench.run();

    assert_eq!(bench.cpu.bus.peek32(u64::from(CODE) + 0x100), 100);
    assert_eq!(bench.interp.statistics().blocks_dropped, 0);
}

#[test]
fn code_written_by_a_device_is_decoded_again() {
    let mut bench = Bench::assembled(|a| {
        a.mov(eax, 1)?;
        a.hlt()
    });
    bench.run();
    assert!(bench.cpu.bus.code_pages.contains(&u64::from(CODE)));

    bench.cpu.bus.load(u64::from(CODE) + 1, &[2]);
    bench.cpu.bus.written_code.push_back((u64::from(CODE) + 1, 1));
    bench.cpu.state.activity = Activity::Running;
    bench.cpu.state.eip = CODE;
    bench.run();

    assert_eq!(bench.eax(), 2);
}

#[test]
fn unmarked_page_is_written_directly_again() {
    let mut bench = Bench::assembled(|a| {
        a.mov(eax, 1)?;
        a.hlt()
    });
    bench.run();

    bench.interp.forget_code(&mut bench.cpu);

    assert!(bench.cpu.bus.code_pages.is_empty());
    assert_eq!(bench.interp.statistics().blocks_kept, 0);
}

#[test]
fn instruction_across_a_page_boundary_runs() {
    let code = assemble(32, |a| {
        a.mov(eax, 0x1234_5678)?;
        a.hlt()
    });
    for before in 1..code.len() {
        let mut bench = Bench::flat(&[]);
        let at = 0x3000 - before as u32;
        bench.cpu.bus.load(u64::from(at), &code);
        bench.cpu.state.eip = at;

        bench.run();

        assert_eq!(bench.eax(), 0x1234_5678, "{before} bytes before the boundary");
    }
}

/// Paging with identity mapping; page table at 2_1000. Faults of vector `n` end at `9000 + 16 n`, a HLT.
fn with_paging(bench: &mut Bench) {
    bench.cpu.bus.poke32(0x2_0000, 0x2_1007);
    for page in 0..256 {
        bench.cpu.bus.poke32(0x2_1000 + page * 4, (page << 12) as u32 | 7);
    }
    with_handlers(bench);
    bench.cpu.state.cr3 = 0x2_0000;
    bench.cpu.state.cr0 |= cr0::PG | cr0::WP;
    bench.cpu.state_replaced();
}

/// An IDT at 2_2000 and a GDT with flat segments at 2_3000.
fn with_handlers(bench: &mut Bench) {
    bench.cpu.bus.poke32(0x2_3008, 0x0000_ffff);
    bench.cpu.bus.poke32(0x2_300c, 0x00cf_9b00);
    bench.cpu.bus.poke32(0x2_3010, 0x0000_ffff);
    bench.cpu.bus.poke32(0x2_3014, 0x00cf_9300);
    for vector in 0..32u64 {
        let handler = 0x9000 + vector as u32 * 16;
        bench.cpu.bus.poke32(0x2_2000 + vector * 8, 0x0008_0000 | handler);
        bench.cpu.bus.poke32(0x2_2004 + vector * 8, 0x0000_8e00);
        bench.cpu.bus.load(u64::from(handler), &[0xf4]);
    }
    bench.cpu.state.idtr.base = 0x2_2000;
    bench.cpu.state.idtr.limit = 0x7ff;
    bench.cpu.state.gdtr.base = 0x2_3000;
    bench.cpu.state.gdtr.limit = 0x17;
}

const fn handler(vector: u32) -> u32 {
    0x9000 + vector * 16
}

#[test]
fn page_fault_shows_the_state_before_the_instruction() {
    let mut bench = Bench::assembled(|a| {
        a.mov(eax, 7)?;
        a.push(eax)?;
        a.pop(dword_ptr(0x5_0000))?;
        a.hlt()
    });
    with_paging(&mut bench);
    bench.cpu.bus.poke32(0x2_1000 + 0x50 * 4, 0);

    bench.run();

    let top = u64::from(bench.cpu.state.gpr[4]);
    assert_eq!(bench.cpu.state.eip, handler(14) + 1);
    assert_eq!(bench.cpu.state.cr2, 0x5_0000);
    assert_eq!(bench.cpu.bus.peek32(top), 2, "a write to a page that is not present");
    assert_eq!(bench.cpu.bus.peek32(top + 4), CODE + 6);
    // Four words of frame below the pushed value: ESP was put back before the delivery.
    assert_eq!(top as u32, STACK - 4 - 16);
}

#[test]
fn read_modify_write_faults_as_a_write() {
    let mut bench = Bench::assembled(|a| {
        a.stc()?;
        a.inc(dword_ptr(0x5_0000))?;
        a.hlt()
    });
    with_paging(&mut bench);
    bench.cpu.bus.poke32(0x2_1000 + 0x50 * 4, 0x5_0005);
    bench.cpu.bus.poke32(0x5_0000, u32::MAX);

    bench.run();

    let top = u64::from(bench.cpu.state.gpr[4]);
    assert_eq!(bench.cpu.bus.peek32(top), 3);
    assert_eq!(bench.cpu.bus.peek32(top + 12) & eflags::ARITHMETIC, eflags::CF, "flags untouched");
    assert_eq!(bench.cpu.bus.peek32(0x5_0000), u32::MAX);
}

#[test]
fn fetch_from_a_missing_second_page_faults_with_its_address() {
    let mut bench = Bench::flat(&[]);
    let code = assemble(32, |a| {
        a.nop()?;
        a.mov(eax, 1)
    });
    bench.cpu.bus.load(0x4ffc, &code);
    with_paging(&mut bench);
    bench.cpu.bus.poke32(0x2_1000 + 5 * 4, 0);
    bench.cpu.state.eip = 0x4ffc;

    bench.run();

    let top = u64::from(bench.cpu.state.gpr[4]);
    assert_eq!(bench.cpu.state.cr2, 0x5000);
    assert_eq!(bench.cpu.bus.peek32(top), 0);
    assert_eq!(bench.cpu.bus.peek32(top + 4), 0x4ffd);
}

#[test]
fn instruction_of_sixteen_bytes_is_a_protection_fault() {
    let mut code = vec![0x26; 15];
    code.extend([0x90, 0xf4]);
    let mut bench = Bench::flat(&code);
    with_handlers(&mut bench);

    bench.run();

    assert_eq!(bench.cpu.state.eip, handler(13) + 1);
}

#[test]
fn code_past_the_segment_limit_is_a_protection_fault() {
    let mut bench = Bench::flat(&[0x90, 0x90, 0x90, 0xf4]);
    with_handlers(&mut bench);
    let code_segment = bench.cpu.state.segments[1];
    bench.cpu.state.segments[1] = Segment::new(8, code_segment.rights(), 0, CODE + 1);

    bench.run();

    let top = u64::from(bench.cpu.state.gpr[4]);
    assert_eq!(bench.cpu.state.eip, handler(13) + 1);
    assert_eq!(bench.cpu.bus.peek32(top + 4), CODE + 2);
}

#[test]
fn repeated_move_that_faults_has_done_the_elements_before() {
    let mut bench = Bench::assembled(|a| {
        a.rep().movsd()?;
        a.hlt()
    });
    with_paging(&mut bench);
    bench.cpu.bus.poke32(0x2_1000 + 0x51 * 4, 0);
    bench.cpu.state.gpr[6] = DATA;
    bench.cpu.state.gpr[7] = 0x5_0ff8;
    bench.cpu.state.gpr[1] = 10;

    bench.run();

    let top = u64::from(bench.cpu.state.gpr[4]);
    assert_eq!(bench.cpu.state.cr2, 0x5_1000);
    assert_eq!(bench.ecx(), 8);
    assert_eq!(bench.cpu.state.gpr[6], DATA + 8);
    assert_eq!(bench.cpu.state.gpr[7], 0x5_1000);
    assert_eq!(bench.cpu.bus.peek32(top + 4), CODE, "restartable");
}

#[test]
fn overlapping_repeated_move_replicates_as_the_processor_does() {
    let mut bench = Bench::assembled(|a| {
        a.rep().movsb()?;
        a.hlt()
    });
    bench.cpu.bus.load(u64::from(DATA), &[1, 2, 3]);
    bench.cpu.state.gpr[6] = DATA;
    bench.cpu.state.gpr[7] = DATA + 3;
    bench.cpu.state.gpr[1] = 30;

    bench.run();

    for n in 0..33u64 {
        let byte = bench.cpu.bus.read_memory(u64::from(DATA) + n, ipc::width::Width::Byte);
        assert_eq!(byte, (n % 3) as u32 + 1, "byte {n}");
    }
}

#[test]
fn backward_repeated_move_and_store_work() {
    let mut bench = Bench::assembled(|a| {
        a.std()?;
        a.rep().movsd()?;
        a.mov(ecx, 3)?;
        a.rep().stosw()?;
        a.hlt()
    });
    for n in 0..4 {
        bench.cpu.bus.poke32(u64::from(DATA) + n * 4, n as u32 + 1);
    }
    bench.cpu.state.gpr[0] = 0xabcd;
    bench.cpu.state.gpr[6] = DATA + 12;
    bench.cpu.state.gpr[7] = DATA + 0x2c;
    bench.cpu.state.gpr[1] = 4;

    bench.run();

    let values: Vec<u32> = (0..4).map(|n| bench.cpu.bus.peek32(u64::from(DATA) + 0x20 + n * 4)).collect();
    assert_eq!(values, [1, 2, 3, 4]);
    assert_eq!(bench.cpu.bus.peek32(u64::from(DATA) + 0x1c), 0x0000_abcd);
    assert_eq!(bench.cpu.bus.peek32(u64::from(DATA) + 0x18), 0xabcd_abcd);
}

#[test]
fn long_copies_and_fills_across_pages_are_exact() {
    for (size, count, source, target) in
        [(1, 20_000, DATA + 3, 0x10_0001), (2, 9_999, DATA + 1, 0x10_0ffd), (4, 7_001, DATA, 0x10_0ffe)]
    {
        let mut bench = Bench::assembled(|a| {
            match size {
                1 => a.rep().movsb()?,
                2 => a.rep().movsw()?,
                _ => a.rep().movsd()?,
            }
            a.mov(ecx, 3000)?;
            match size {
                1 => a.rep().stosb()?,
                2 => a.rep().stosw()?,
                _ => a.rep().stosd()?,
            }
            a.hlt()
        });
        let bytes: Vec<u8> = (0..count * size).map(|n| (n * 7 + n / 251) as u8).collect();
        bench.cpu.bus.load(u64::from(source), &bytes);
        bench.cpu.state.gpr[0] = 0x4433_2211;
        bench.cpu.state.gpr[6] = source;
        bench.cpu.state.gpr[7] = target;
        bench.cpu.state.gpr[1] = count;

        bench.run();

        let end = target + count * size;
        for (n, byte) in bytes.iter().enumerate() {
            let got = bench.cpu.bus.read_memory(u64::from(target) + n as u64, ipc::width::Width::Byte);
            assert_eq!(got, u32::from(*byte), "size {size}, byte {n}");
        }
        for n in 0..3000 * size {
            let got = bench.cpu.bus.read_memory(u64::from(end + n), ipc::width::Width::Byte);
            assert_eq!(got, 0x11 * (n % size + 1), "size {size}, filled byte {n}");
        }
        assert_eq!(bench.cpu.state.gpr[7], end + 3000 * size);
        assert_eq!(bench.ecx(), 0);
    }
}

#[test]
fn repeated_store_over_its_own_code_stops_the_block() {
    // rep stosb over the following "mov al, 1" with NOPs.
    let mut bench = Bench::assembled(|a| {
        a.rep().stosb()?;
        a.mov(al, 1)?;
        a.hlt()
    });
    bench.run();
    bench.cpu.state.activity = Activity::Running;
    bench.cpu.state.eip = CODE;
    bench.cpu.state.gpr[0] = 0x90;
    bench.cpu.state.gpr[1] = 2;
    bench.cpu.state.gpr[7] = CODE + 2;

    bench.run();

    assert_eq!(bench.eax(), 0x90);
}

#[test]
fn repeated_input_and_output_move_bursts() {
    let mut bench = Bench::assembled(|a| {
        a.rep().insw()?;
        a.mov(ecx, 3)?;
        a.mov(esi, DATA)?;
        a.rep().outsd()?;
        a.hlt()
    });
    bench.cpu.bus.ports.insert(0x1f0, 0xbeef);
    bench.cpu.state.gpr[2] = 0x1f0;
    bench.cpu.state.gpr[7] = DATA + 0xff1;
    bench.cpu.state.gpr[1] = 256;
    bench.cpu.bus.poke32(u64::from(DATA), 0x1111_1111);

    bench.run();

    for n in 0..256 {
        assert_eq!(bench.cpu.bus.peek16(u64::from(DATA) + 0xff1 + 2 * n), 0xbeef);
    }
    assert_eq!(bench.cpu.state.gpr[7], DATA + 0xff1 + 512);
    assert_eq!(bench.cpu.bus.port_log.len(), 3);
    assert_eq!(bench.cpu.bus.port_log[0].2, 0x1111_1111);
}

#[test]
fn single_step_traps_after_each_instruction_and_each_iteration() {
    let mut bench = Bench::assembled(|a| {
        a.nop()?;
        a.rep().stosb()?;
        a.pushfd()?;
        a.and(dword_ptr(esp), !(eflags::TF as i32))?;
        a.popfd()?;
        a.hlt()
    });
    with_handlers(&mut bench);
    // The handler of #DB: count in EBX, return.
    let counter = assemble(32, |a| {
        a.inc(ebx)?;
        a.iretd()
    });
    bench.cpu.bus.load(u64::from(handler(1)), &counter);
    bench.cpu.state.eflags |= eflags::TF;
    bench.cpu.state_replaced();
    bench.cpu.state.gpr[1] = 3;
    bench.cpu.state.gpr[7] = DATA;

    bench.run();

    // NOP, three iterations, and the three that clear TF.
    assert_eq!(bench.cpu.state.gpr[3], 7);
}

#[test]
fn single_step_traps_after_into_that_does_nothing() {
    let mut bench = Bench::assembled(|a| {
        a.into()?;
        a.hlt()
    });
    with_handlers(&mut bench);
    bench.cpu.state.eflags |= eflags::TF;
    bench.cpu.state_replaced();

    bench.interp.step(&mut bench.cpu);

    assert_eq!(bench.cpu.state.eip, handler(1));
}

#[test]
fn interrupt_shadow_covers_exactly_the_instruction_after_sti() {
    let mut bench = Bench::assembled(|a| {
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.hlt()
    });
    bench.cpu.bus.interrupts.push_back(0x20);

    assert_eq!(bench.interp.step(&mut bench.cpu), Exit::Attention);
    assert_eq!(bench.cpu.state.interrupt_shadow, InterruptShadow::Sti);
    assert!(!bench.cpu.accepts_interrupts());
    bench.interp.step(&mut bench.cpu);
    assert!(bench.cpu.accepts_interrupts());

    bench.cpu.state.eip = CODE;
    bench.cpu.state.eflags &= !eflags::IF;
    bench.cpu.state_replaced();
    assert_eq!(bench.interp.run(&mut bench.cpu, 1000), Exit::Attention);
    assert_eq!(bench.cpu.state.eip, CODE + 2);
    assert!(bench.cpu.accepts_interrupts());
}

#[test]
fn attention_ends_an_endless_loop() {
    let mut bench = Bench::flat(&[0xeb, 0xfe]);
    assert_eq!(bench.interp.run(&mut bench.cpu, 10_000), Exit::Budget);
    bench.cpu.bus.interrupts.push_back(8);
    assert_eq!(bench.interp.run(&mut bench.cpu, 10_000), Exit::Attention);
    assert_eq!(bench.cpu.state.eip, CODE);
}

#[test]
fn fault_without_handler_shuts_down() {
    let mut bench = Bench::flat(&[0x0f, 0x0b]);
    assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Shutdown);
    assert_eq!(bench.interp.run(&mut bench.cpu, 100), Exit::Shutdown);
}

#[test]
fn remapped_page_is_decoded_again() {
    // The same physical code runs at another linear address: blocks are relocatable.
    let mut bench = Bench::flat(&[]);
    let code = assemble(32, |a| {
        let mut over = a.create_label();
        a.jmp(over)?;
        a.nop()?;
        a.set_label(&mut over)?;
        a.inc(eax)?;
        a.hlt()
    });
    bench.cpu.bus.load(0x3000, &code);
    with_paging(&mut bench);
    bench.cpu.bus.poke32(0x2_1000 + 0x60 * 4, 0x3007);
    bench.cpu.state.eip = 0x3000;
    bench.run();
    let at_home = bench.cpu.state.eip;

    bench.cpu.state.activity = Activity::Running;
    bench.cpu.state.eip = 0x6_0000;
    bench.run();

    assert_eq!(bench.eax(), 2);
    assert_eq!(bench.cpu.state.eip - 0x6_0000, at_home - 0x3000);
    assert_eq!(bench.interp.statistics().blocks_decoded, 2);
}

#[test]
fn step_executes_one_instruction() {
    let mut bench = Bench::assembled(|a| {
        a.inc(eax)?;
        a.inc(eax)?;
        a.hlt()
    });
    assert_eq!(bench.interp.step(&mut bench.cpu), Exit::Budget);
    assert_eq!(bench.eax(), 1);
    assert_eq!(bench.interp.step(&mut bench.cpu), Exit::Budget);
    assert_eq!(bench.interp.step(&mut bench.cpu), Exit::Halted);
    assert_eq!(bench.eax(), 2);
}

#[test]
fn page_without_kept_code_is_not_marked() {
    // One instruction, across the end of its page.
    let mut bench = Bench::flat(&[]);
    let code = assemble(32, |a| {
        a.mov(eax, 1)?;
        a.hlt()
    });
    bench.cpu.bus.load(0x2ffe, &code);
    bench.cpu.state.eip = 0x2ffe;
    bench.run();
    assert!(!bench.cpu.bus.code_pages.contains(&0x2000));
}

#[test]
fn code_that_an_interrupt_frame_overwrote_is_decoded_again() {
    let mut bench = Bench::assembled(|a| {
        a.mov(eax, 1)?;
        a.hlt()
    });
    with_handlers(&mut bench);
    bench.run();
    // The frame's EIP lands on the immediate of MOV, its CS (F4) on the HLT.
    bench.cpu.state.segments[1] = Segment::new(0xf4, rights::FLAT_CODE, 0, u32::MAX);
    bench.cpu.state.gpr[4] = CODE + 13;
    bench.cpu.state.eip = 0x1234_5678;
    bench.cpu.deliver_external(0x11);
    bench.cpu.state.eip = CODE;
    bench.cpu.state.gpr[4] = STACK;

    bench.run();

    assert_eq!(bench.eax(), 0x1234_5678);
}
