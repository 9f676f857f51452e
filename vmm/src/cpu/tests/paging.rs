//! Translation, permissions, accessed and dirty bits, TLB behaviour.

use crate::cpu::Fault;
use crate::cpu::registers::{Seg, cr0, cr4};
use crate::cpu::testing::{at, protected};

const P: u32 = 1;
const RW: u32 = 2;
const US: u32 = 4;
const A: u32 = 0x20;
const D: u32 = 0x40;
const PS: u32 = 0x80;
const G: u32 = 0x100;

#[test]
fn accessed_and_dirty_bits_follow_reads_and_writes() {
    let mut cpu = protected();
    cpu.enable_paging();

    cpu.read_u8(Seg::Ds, 0x5000).unwrap();
    assert_eq!(cpu.pte(0x5000) & (A | D), A);
    assert_eq!(cpu.bus.peek32(u64::from(at::DIRECTORY)) & A, A);
    cpu.write_u8(Seg::Ds, 0x5000, 1).unwrap();
    assert_eq!(cpu.pte(0x5000) & (A | D), A | D);
    assert_eq!(cpu.pte(0x5_0000) & (A | D), 0);
    cpu.modify_u16(Seg::Ds, 0x5_0000).unwrap();
    assert_eq!(cpu.pte(0x5_0000) & (A | D), A | D);
}

#[test]
fn error_codes_tell_presence_write_and_privilege() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.set_pte(0x5000, 0);
    cpu.set_pte(0x6000, 0x6000 | P | RW);
    cpu.set_pte(0x7000, 0x7000 | P | US);

    assert_eq!(cpu.read_u8(Seg::Ds, 0x5123), Err(Fault::pf(0x5123, 0)));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x5123, 0), Err(Fault::pf(0x5123, 2)));
    assert_eq!(cpu.modify_u8(Seg::Ds, 0x5123), Err(Fault::pf(0x5123, 2)));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x6000, 1), Ok(()));

    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x5123), Err(Fault::pf(0x5123, 4)));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x5123, 0), Err(Fault::pf(0x5123, 6)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x6000), Err(Fault::pf(0x6000, 5)), "cached for the supervisor only");
    assert_eq!(cpu.read_u8(Seg::Ds, 0x7000), Ok(0));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x7000, 0), Err(Fault::pf(0x7000, 7)));
    assert_eq!(cpu.probe_write(Seg::Ds, 0x7000, 4), Err(Fault::pf(0x7000, 7)));
    assert_eq!(cpu.translate_code(0x6000).map(|_| ()), Err(Fault::pf(0x6000, 5)));
}

#[test]
fn directory_entry_restricts_what_the_table_entry_allows() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.bus.poke32(u64::from(at::DIRECTORY) + 4, at::TABLE | P | RW);
    cpu.bus.poke32(u64::from(at::DIRECTORY) + 8, at::TABLE | P | US);
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x40_5000), Err(Fault::pf(0x40_5000, 5)));
    assert_eq!(cpu.read_u8(Seg::Ds, 0x80_5000), Ok(0));
    assert_eq!(cpu.write_u8(Seg::Ds, 0x80_5000, 0), Err(Fault::pf(0x80_5000, 7)));
}

#[test]
fn write_protect_bit_binds_the_supervisor() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.set_pte(0x7000, 0x7000 | P | US);
    assert_eq!(cpu.write_u8(Seg::Ds, 0x7000, 1), Ok(()));
    assert_eq!(cpu.pte(0x7000) & D, D);

    cpu.mov_to_cr(0, cpu.state.cr0 | cr0::WP).unwrap();
    assert_eq!(cpu.write_u8(Seg::Ds, 0x7000, 1), Err(Fault::pf(0x7000, 3)));
}

#[test]
fn stale_translation_lives_until_invlpg_or_cr3() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.bus.poke32(0x20_0000, 0xaa);
    cpu.bus.poke32(0x30_0000, 0xbb);
    cpu.read_u8(Seg::Ds, 0x20_0000).unwrap();
    let entry = u64::from(at::TABLE) + 0x200 * 4;

    cpu.bus.poke32(entry, 0x30_0000 | 7);
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xaa));
    cpu.invlpg(Seg::Ds, 0x20_0fff).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xbb));
    cpu.bus.poke32(entry, 0x20_0000 | 7);
    cpu.mov_to_cr(3, at::DIRECTORY).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xaa));
}

#[test]
fn global_pages_survive_cr3_but_not_invlpg() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.mov_to_cr(4, cr4::PGE).unwrap();
    cpu.bus.poke32(0x20_0000, 0xaa);
    cpu.bus.poke32(0x30_0000, 0xbb);
    cpu.set_pte(0x20_0000, 0x20_0000 | 7 | G);
    cpu.read_u8(Seg::Ds, 0x20_0000).unwrap();

    cpu.bus.poke32(u64::from(at::TABLE) + 0x200 * 4, 0x30_0000 | 7);
    cpu.mov_to_cr(3, at::DIRECTORY).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xaa));
    cpu.invlpg(Seg::Ds, 0x20_0000).unwrap();
    assert_eq!(cpu.read_u8(Seg::Ds, 0x20_0000), Ok(0xbb));
}

#[test]
fn large_pages_need_pse_and_are_invalidated_whole() {
    let mut cpu = protected();
    cpu.enable_paging();
    cpu.mov_to_cr(4, cr4::PSE).unwrap();
    let entry = u64::from(at::DIRECTORY) + 4;
    cpu.bus.poke32(entry, P | RW | PS);
    cpu.bus.poke32(0x20_1234, 0xcafe);

    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Ok(0xcafe));
    assert_eq!(cpu.bus.peek32(entry) & (A | D), A);
    cpu.write_u8(Seg::Ds, 0x60_2000, 1).unwrap();
    assert_eq!(cpu.bus.peek32(entry) & (A | D), A | D);

    cpu.bus.poke32(entry, 0);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Ok(0xcafe));
    cpu.invlpg(Seg::Ds, 0x7f_0000).unwrap();
    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Err(Fault::pf(0x60_1234, 0)));

    cpu.bus.poke32(entry, P | RW | PS | 1 << 13);
    assert_eq!(cpu.read_u32(Seg::Ds, 0x60_1234), Err(Fault::pf(0x60_1234, 9)));
}

#[test]
fn system_tables_are_read_with_supervisor_rights() {
    let mut cpu = protected();
    cpu.enable_paging();
    let gdt_page = at::GDT;
    cpu.set_pte(gdt_page, gdt_page | P | RW);
    cpu.enter_user(0x4000, 2);
    assert_eq!(cpu.load_segment(Seg::Es, crate::cpu::testing::sel::DATA3), Ok(()));
    assert_eq!(cpu.read_u8(Seg::Ds, gdt_page), Err(Fault::pf(gdt_page, 5)));
}

#[test]
fn paging_without_protection_is_refused() {
    let mut cpu = crate::cpu::testing::vcpu();
    assert_eq!(cpu.mov_to_cr(0, cr0::PG), Err(Fault::gp(0)));
    assert_eq!(cpu.mov_to_cr(4, cr4::PAE), Err(Fault::gp(0)));
}
