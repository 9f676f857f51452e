//! The slow paths: page crossings, device memory, A20, kept code, watchpoints, alignment.

use crate::cpu::Fault;
use crate::cpu::registers::{Seg, cr0, eflags};
use crate::cpu::testing::{DEVICE_PAGE, protected, sel, vcpu};
use ipc::width::Width;

#[test]
fn words_of_every_size_cross_pages() {
    let mut cpu = protected();
    cpu.enable_paging();
    // Two linear neighbours that are far apart physically.
    cpu.set_pte(0x5000, 0x20_0000 | 7);
    cpu.set_pte(0x6000, 0x30_0000 | 7);

    for start in 0x5ff9..0x6000u32 {
        cpu.write_u64(Seg::Ds, start, 0x8877_6655_4433_2211).unwrap();
        assert_eq!(cpu.read_u64(Seg::Ds, start), Ok(0x8877_6655_4433_2211));
        cpu.write_u32(Seg::Ds, start, 0xddcc_bbaa).unwrap();
        assert_eq!(cpu.read_u32(Seg::Ds, start), Ok(0xddcc_bbaa));
    }
    cpu.write_u16(Seg::Ds, 0x5fff, 0x1234).unwrap();
    assert_eq!(cpu.read_u16(Seg::Ds, 0x5fff), Ok(0x1234));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x6000), Ok(0x12));
    assert_eq!(cpu.bus.peek32(0x30_0000) & 0xff, 0x12);
    assert_eq!(cpu.bus.peek32(0x20_0ffc) >> 24, 0x34);
}

#[test]
fn write_that_faults_on_its_second_page_changes_nothing() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.set_pte(0x6000, 0);
    cpu.write_u16(Seg::Ds, 0x5ffe, 0xaaaa).unwrap();

    assert_eq!(cpu.write_u32(Seg::Ds, 0x5ffe, 0), Err(Fault::pf(0x6000, 2)));
    assert_eq!(cpu.read_u16(Seg::Ds, 0x5ffe), Ok(0xaaaa));
}

#[test]
fn device_memory_is_accessed_once_with_its_width() {
    let mut cpu = protected();
    cpu.bus.device.insert(DEVICE_PAGE + 0x20, 0x1234_5678);

    assert_eq!(cpu.read_u32(Seg::Ds, DEVICE_PAGE as u32 + 0x20), Ok(0x1234_5678));
    cpu.write_u16(Seg::Ds, DEVICE_PAGE as u32 + 0x30, 0xbeef).unwrap();
    cpu.write_u64(Seg::Ds, DEVICE_PAGE as u32 + 0x38, 0x1_0000_0002).unwrap();

    assert_eq!(
        cpu.bus.device_log,
        [
            (DEVICE_PAGE + 0x20, Width::Dword, None),
            (DEVICE_PAGE + 0x30, Width::Word, Some(0xbeef)),
            (DEVICE_PAGE + 0x38, Width::Dword, Some(2)),
            (DEVICE_PAGE + 0x3c, Width::Dword, Some(1)),
        ]
    );
}

#[test]
fn closed_a20_gate_wraps_the_second_megabyte() {
    let mut cpu = vcpu();
    cpu.bus.poke16(0x500, 0x1111);
    cpu.bus.poke16(0x10_0500, 0x2222);
    cpu.load_segment(Seg::Es, 0xffff).unwrap();
    assert_eq!(cpu.read_u16(Seg::Es, 0x510), Ok(0x2222));

    cpu.bus.a20 = false;
    cpu.bus.generation += 1;
    cpu.port_write(0x92, Width::Byte, 0).unwrap();

    assert_eq!(cpu.read_u16(Seg::Es, 0x510), Ok(0x1111));
}

#[test]
fn new_map_generation_drops_translations_and_grants() {
    let mut cpu = vcpu();
    cpu.read_u8(Seg::Ds, 0).unwrap();
    let asked = cpu.bus.page_requests;
    cpu.read_u8(Seg::Ds, 1).unwrap();
    assert_eq!(cpu.bus.page_requests, asked);

    cpu.bus.generation += 1;
    cpu.sync_map();
    cpu.read_u8(Seg::Ds, 2).unwrap();
    assert_eq!(cpu.bus.page_requests, asked + 1);
}

#[test]
fn writes_to_kept_code_are_reported_until_it_is_dropped() {
    let mut cpu = protected();
    cpu.write_u32(Seg::Ds, 0x5000, 1).unwrap();

    cpu.mark_code(0x5010, 16);
    assert!(cpu.bus.code_pages.contains(&0x5000));
    cpu.write_u32(Seg::Ds, 0x5100, 2).unwrap();
    assert!(!cpu.code.has_written(), "another part of the page");
    cpu.write_u32(Seg::Ds, 0x501c, 3).unwrap();
    assert_eq!(cpu.code.take_written(), Some((0x501c, 4)));
    assert_eq!(cpu.read_u32(Seg::Ds, 0x501c), Ok(3));
    cpu.write_u32(Seg::Ds, 0x4ffe, 0).unwrap();
    assert!(!cpu.code.has_written());

    cpu.unmark_code_page(0x5000);
    assert!(cpu.bus.code_pages.is_empty());
    cpu.write_u32(Seg::Ds, 0x501c, 4).unwrap();
    cpu.write_u32(Seg::Ds, 0x501c, 5).unwrap();
    assert!(!cpu.code.has_written());
    assert_eq!(cpu.read_u32(Seg::Ds, 0x501c), Ok(5));
}

#[test]
fn write_through_an_alias_of_kept_code_is_reported() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.set_pte(0x7000, 0x5000 | 7);
    cpu.write_u8(Seg::Ds, 0x7000, 1).unwrap();
    cpu.mark_code(0x5000, 4);
    cpu.write_u8(Seg::Ds, 0x7003, 1).unwrap();
    assert_eq!(cpu.code.take_written(), Some((0x5003, 1)));
}

#[test]
fn data_breakpoint_traps_after_the_access() {
    let mut cpu = protected();
    cpu.write_u32(Seg::Ds, 0x5000, 0).unwrap();
    cpu.mov_to_dr(0, 0x5004).unwrap();
    // G0, write, four bytes.
    cpu.mov_to_dr(7, 0xd_0002).unwrap();

    cpu.read_u32(Seg::Ds, 0x5004).unwrap();
    cpu.write_u32(Seg::Ds, 0x5000, 1).unwrap();
    assert_eq!(cpu.take_debug_trap(false), None);
    cpu.write_u8(Seg::Ds, 0x5007, 1).unwrap();
    assert_eq!(cpu.take_debug_trap(false), Some(Fault::db(1)));
    assert_eq!(cpu.take_debug_trap(true), Some(Fault::db(0x4000)));
}

#[test]
fn instruction_breakpoint_is_skipped_with_the_resume_flag() {
    let mut cpu = protected();
    cpu.mov_to_dr(2, 0x1_2345).unwrap();
    cpu.mov_to_dr(7, 0x20).unwrap();
    assert_eq!(cpu.instruction_breakpoint(0x1_2345), Some(Fault::db(4)));
    assert_eq!(cpu.instruction_breakpoint(0x1_2346), None);
    cpu.set_flags(eflags::RF);
    assert_eq!(cpu.instruction_breakpoint(0x1_2345), None);
}

#[test]
fn alignment_is_checked_at_level_3_only() {
    let mut cpu = protected();
    cpu.mov_to_cr(0, cpu.state.cr0 | cr0::AM).unwrap();
    cpu.set_flags(eflags::AC);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x5001), Ok(0));

    cpu.enter_user(0x4000, eflags::AC);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x5001), Err(Fault::ac()));
    assert_eq!(cpu.write_u16(Seg::Ds, 0x5001, 0), Err(Fault::ac()));
    assert_eq!(cpu.modify_u32(Seg::Ds, 0x5002), Err(Fault::ac()));
    assert_eq!(cpu.read_u32(Seg::Ds, 0x5004), Ok(0));
    assert_eq!(cpu.load_segment(Seg::Es, sel::DATA3), Ok(()), "system tables are not checked");
}

#[test]
fn bulk_copy_repeats_the_pattern_of_overlapping_ranges() {
    let mut cpu = protected();
    cpu.bus.load(0x5000, b"abcdefgh");
    cpu.write_u8(Seg::Ds, 0x5100, 0).unwrap();
    assert_eq!(cpu.copy_direct(0x6000, 0x5000, 8, 1), 0, "nothing is known about the target");
    assert_eq!(cpu.copy_direct(0x5002, 0x5000, 6, 1), 2);
    assert_eq!(cpu.copy_direct(0x5004, 0x5002, 4, 1), 2);
    assert_eq!(cpu.read_u64(Seg::Ds, 0x5000), Ok(u64::from_le_bytes(*b"abababgh")));
    assert_eq!(cpu.copy_direct(0x5005, 0x5004, 8, 4), 0, "less than an element apart");
    assert_eq!(cpu.copy_direct(0x5000, 0x5001, 7, 1), 7, "downwards is safe at any distance");
    assert_eq!(cpu.read_u64(Seg::Ds, 0x5000), Ok(u64::from_le_bytes(*b"bababghh")));
    assert_eq!(cpu.copy_direct(0x5ff0, 0x5000, 0x40, 4), 16, "not beyond the page");
}

#[test]
fn bulk_fill_stops_at_the_page_and_at_kept_code() {
    let mut cpu = protected();
    cpu.write_u8(Seg::Ds, 0x5000, 0).unwrap();
    assert_eq!(cpu.fill_direct(0x5ff6, 0x1234_5678u32, 10), 2);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x5ffa), Ok(0x1234_5678));
    assert_eq!(cpu.read_u16(Seg::Ds, 0x5ffe), Ok(0));
    assert_eq!(cpu.store_direct(0x5000, b"hello"), 5);
    cpu.mark_code(0x5000, 1);
    assert_eq!(cpu.fill_direct(0x5100, 0u8, 1), 0);
    assert_eq!(cpu.store_direct(0x5100, b"x"), 0);
    let mut bytes = [0; 5];
    assert_eq!(cpu.load_direct(0x5000, &mut bytes), 5);
    assert_eq!(&bytes, b"hello");
}
