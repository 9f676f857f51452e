use super::*;
use crate::testing::Bench;

const MIB: u64 = 1 << 20;
const KIB: usize = 1 << 10;

fn image(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 4096) as u8 ^ i as u8).collect()
}

fn model() -> I440fx {
    I440fx::new(64 * MIB, image(256 * KIB)).unwrap()
}

fn shadow(bench: &Bench<I440fx>, base: u32) -> (u32, bool, bool) {
    bench.host.shadow[&base]
}

#[test]
fn firmware_must_have_the_size_of_a_flash_chip() {
    assert_eq!(I440fx::new(MIB, vec![0; 1000]).err(), Some(FirmwareSizeError { len: 1000 }));
    assert!(I440fx::new(MIB, Vec::new()).is_err());
    for len in [64, 128, 256, 512, 1024] {
        assert!(I440fx::new(MIB, image(len * KIB)).is_ok(), "{len} KiB");
    }
}

#[test]
fn firmware_ends_at_4_gib_and_its_last_128_kib_end_at_1_mib() {
    let mut bench = Bench::new(model());
    let expected = image(256 * KIB);
    assert_eq!(bench.mem_read(0xfffc_0000, Width::Byte), u32::from(expected[0]));
    let last = u32::from_le_bytes(expected[256 * KIB - 4..].try_into().unwrap());
    assert_eq!(bench.mem_read(0xffff_fffc, Width::Dword), last);
    assert_eq!(bench.mem_read(0xf_fffc, Width::Dword), last);
    assert_eq!(bench.mem_read(0xe_0000, Width::Byte), u32::from(expected[128 * KIB]));
    assert_eq!(bench.host.memory, expected);
    assert_eq!(bench.host.regions[1].backing, Some(Backing { offset: 128 * 1024, writable: false }));
}

#[test]
fn small_firmware_covers_only_the_f_segment() {
    let bench = Bench::new(I440fx::new(MIB, image(64 * KIB)).unwrap());
    assert_eq!((bench.host.regions[1].base, bench.host.regions[1].len), (0xf_0000, 0x1_0000));
}

#[test]
fn firmware_cannot_be_written() {
    let mut bench = Bench::new(model());
    bench.mem_write(0xf_0000, Width::Dword, 0x1234_5678);
    let at = 192 * KIB;
    let expected = u32::from_le_bytes(image(256 * KIB)[at..at + 4].try_into().unwrap());
    assert_eq!(bench.mem_read(0xf_0000, Width::Dword), expected);
}

#[test]
fn power_on_shows_rom_and_devices_everywhere() {
    let bench = Bench::new(model());
    assert_eq!(bench.host.shadow.len(), 14);
    assert!(bench.host.shadow.values().all(|(_, read, write)| !read && !write));
    let total: u32 = bench.host.shadow.values().map(|(len, _, _)| len).sum();
    assert_eq!(total, 0x10_0000 - 0xa_0000);
}

/// SeaBIOS: open everything for writes, copy, and in the end protect what is done.
#[test]
fn seabios_shadowing_sequence_sets_each_range() {
    let mut bench = Bench::new(model());
    for pam in 0x5a..=0x5f {
        bench.config_write(pam, Width::Byte, 0x33);
    }
    bench.config_write(0x59, Width::Byte, 0x30);
    assert_eq!(shadow(&bench, 0xf_0000), (0x1_0000, true, true));
    for index in 0..12 {
        assert_eq!(shadow(&bench, 0xc_0000 + index * 0x4000), (0x4000, true, true));
    }
    // Protect C8000-CBFFF, leave CC000-CFFFF open; E8000 read-only; F0000 read-only.
    bench.config_write(0x5b, Width::Byte, 0x31);
    bench.config_write(0x59, Width::Byte, 0x10);
    assert_eq!(shadow(&bench, 0xc_8000), (0x4000, true, false));
    assert_eq!(shadow(&bench, 0xc_c000), (0x4000, true, true));
    assert_eq!(shadow(&bench, 0xf_0000), (0x1_0000, true, false));
    assert_eq!(bench.config_read(0x59, Width::Byte), 0x10);
}

#[test]
fn a_dword_write_reaches_all_pam_registers_in_it() {
    let mut bench = Bench::new(model());
    bench.config_write(0x5c, Width::Dword, 0xffff_ffff);
    assert_eq!(bench.config_read(0x5c, Width::Dword), 0x3333_3333);
    assert_eq!(shadow(&bench, 0xd_0000), (0x4000, true, true));
    assert_eq!(shadow(&bench, 0xe_c000), (0x4000, true, true));
    assert_eq!(shadow(&bench, 0xc_c000), (0x4000, false, false));
}

#[test]
fn smram_opens_and_is_locked_for_good() {
    let mut bench = Bench::new(model());
    bench.config_write(0x72, Width::Byte, 0x4a);
    assert_eq!(shadow(&bench, 0xa_0000), (0x2_0000, true, true));
    bench.config_write(0x72, Width::Byte, 0x6a);
    assert_eq!(shadow(&bench, 0xa_0000), (0x2_0000, false, false));
    bench.config_write(0x72, Width::Byte, 0x5a);
    assert_eq!(bench.config_read(0x72, Width::Byte), 0x1a);
    bench.config_write(0x72, Width::Byte, 0x4a);
    assert_eq!(bench.config_read(0x72, Width::Byte), 0x1a);
    assert_eq!(shadow(&bench, 0xa_0000), (0x2_0000, false, false));
    bench.device.reset(ResetKind::Hard, &mut bench.host);
    assert_eq!(bench.config_read(0x72, Width::Byte), 0x02);
}

#[test]
fn identity_is_what_seabios_looks_for() {
    let mut bench = Bench::new(model());
    assert_eq!(bench.config_read(0x00, Width::Dword), 0x1237_8086);
    assert_eq!(bench.config_read(0x2c, Width::Dword), 0x1100_1af4);
    assert_eq!(bench.config_read(0x08, Width::Dword), 0x0600_0002);
    assert_eq!(bench.config_read(0x04, Width::Dword), 0x0280_0006);
    assert_eq!(bench.device.pci_address(), Some(PciAddress::bus0(0, 0)));
}

#[test]
fn row_boundaries_describe_the_ram() {
    assert_eq!(row_boundaries(64 * MIB), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(row_boundaries(MIB), [1; 8]);
    assert_eq!(row_boundaries(24 * MIB), [1, 2, 3, 3, 3, 3, 3, 3]);
    assert_eq!(row_boundaries(2048 * MIB), [32, 64, 96, 128, 160, 192, 224, 255]);
}

#[test]
fn turbo_reset_acts_on_the_rising_bit() {
    let mut bench = Bench::new(model());
    bench.config_write(0x93, Width::Byte, 0x04);
    bench.config_write(0x93, Width::Byte, 0x06);
    assert_eq!(bench.host.resets, [ResetRequest::Cpu]);
    bench.config_write(0x93, Width::Byte, 0x02);
    bench.config_write(0x93, Width::Byte, 0x06);
    assert_eq!(bench.host.resets, [ResetRequest::Cpu, ResetRequest::Machine]);
}

#[test]
fn a_restart_in_the_middle_of_shadowing_keeps_the_map_and_the_flash() {
    let mut bench = Bench::new(model());
    bench.config_write(0x59, Width::Byte, 0x20);
    bench.config_write(0x72, Width::Byte, 0x1a);
    bench.host.shadow.clear();
    bench.restart(model());
    assert_eq!(shadow(&bench, 0xf_0000), (0x1_0000, false, true));
    bench.config_write(0x72, Width::Byte, 0x4a);
    assert_eq!(bench.config_read(0x72, Width::Byte), 0x1a);
    assert_eq!(bench.host.memory, image(256 * KIB));
}

#[test]
fn a_restart_with_another_image_leaves_the_running_guest_its_firmware() {
    let mut bench = Bench::new(model());
    bench.restart(I440fx::new(64 * MIB, vec![0x90; 256 * KIB]).unwrap());
    assert_eq!(bench.host.memory, image(256 * KIB));
    assert_ne!(bench.mem_read(0xffff_0000, Width::Dword), 0x9090_9090);
}

#[test]
fn malformed_states_are_refused() {
    let mut device = model();
    assert!(matches!(device.load(2, &[]), Err(StateError::Version { found: 2, newest: 1 })));
    assert!(matches!(device.load(1, &[1, 2]), Err(StateError::Malformed(_) | StateError::OutOfRange(_))));
}
