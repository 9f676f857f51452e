use super::*;
use crate::testing::Bench;
use ipc::machine::{BootDevice, DriveConfig, MachineConfig, SerialBackend};

fn config() -> MachineConfig {
    let disk = DriveConfig { path: "/disk".into(), read_only: false, geometry: None };
    MachineConfig {
        name: "test".into(),
        cpu: "pentium3".into(),
        engine: "interp".into(),
        ram_bytes: 64 << 20,
        firmware: "/bios".into(),
        video_rom: None,
        floppies: [None, None],
        disks: [None, None, None, Some(disk)],
        boot_order: vec![BootDevice::Disk, BootDevice::Floppy],
        cmos: None,
        debug_console: None,
        serial: [SerialBackend::Unconnected, SerialBackend::Unconnected],
    }
}

fn standard() -> Bench<FwCfg> {
    Bench::new(FwCfg::new(standard_items(&config())).unwrap())
}

/// OUT of the key, REP INSB of the data: SeaBIOS without the DMA interface.
fn item(bench: &mut Bench<FwCfg>, key: u16, len: usize) -> Vec<u8> {
    bench.outw(0x510, key);
    rep_insb(bench, len)
}

fn rep_insb(bench: &mut Bench<FwCfg>, len: usize) -> Vec<u8> {
    let at = Access { region: PORTS, address: 0x511, offset: 1, width: Width::Byte };
    let mut data = vec![0xaa; len];
    bench.device.read_burst(at, &mut data, &mut bench.host).unwrap();
    data
}

/// Walks the directory as SeaBIOS does and returns the contents of `name`.
fn find_file(bench: &mut Bench<FwCfg>, name: &str) -> Option<Vec<u8>> {
    let count = u32::from_be_bytes(item(bench, 0x19, 4).try_into().unwrap());
    let entries: Vec<Vec<u8>> = (0..count).map(|_| rep_insb(bench, 64)).collect();
    let entry = entries.iter().find(|e| e[8..].split(|b| *b == 0).next() == Some(name.as_bytes()))?;
    let size = u32::from_be_bytes(entry[..4].try_into().unwrap());
    let key = u16::from_be_bytes(entry[4..6].try_into().unwrap());
    Some(item(bench, key, size as usize))
}

#[test]
fn seabios_finds_the_device_and_no_dma() {
    let mut bench = standard();
    bench.outw(0x510, 0);
    let signature: Vec<u8> = (0..4).map(|_| bench.inb(0x511)).collect();
    assert_eq!(signature, b"QEMU");
    assert_eq!(item(&mut bench, 1, 4), [1, 0, 0, 0]);
}

#[test]
fn items_that_do_not_exist_and_bytes_after_an_end_are_zero() {
    let mut bench = standard();
    assert_eq!(item(&mut bench, 0x0d, 8), [0; 8]);
    assert_eq!(item(&mut bench, 0x8000, 2), [0; 2]);
    assert_eq!(item(&mut bench, 0, 6), *b"QEMU\0\0");
    assert_eq!(bench.inb(0x511), 0);
}

#[test]
fn scalars_describe_the_machine() {
    let mut bench = standard();
    assert_eq!(item(&mut bench, 0x03, 8), (64u64 << 20).to_le_bytes());
    assert_eq!(item(&mut bench, 0x05, 2), [1, 0]);
    assert_eq!(item(&mut bench, 0x0f, 2), [1, 0]);
    assert_eq!(item(&mut bench, 0x0e, 2), [0, 0]);
}

#[test]
fn files_are_found_through_the_directory() {
    let mut bench = standard();
    let order = find_file(&mut bench, "bootorder").unwrap();
    assert_eq!(order, b"/pci@i0cf8/ide@1,1/drive@1/disk@1\n/pci@i0cf8/isa@1/fdc@03f0/floppy@0\0");
    let e820 = find_file(&mut bench, "etc/e820").unwrap();
    assert_eq!(e820.len(), 20);
    assert_eq!(e820[8..16], (64u64 << 20).to_le_bytes());
    assert_eq!(e820[16..], [1, 0, 0, 0]);
    assert_eq!(find_file(&mut bench, "etc/system-states").unwrap()[3] & 0x80, 0);
    assert_eq!(find_file(&mut bench, "etc/table-loader"), None);
}

#[test]
fn the_write_bit_of_a_key_is_not_part_of_it() {
    let mut bench = standard();
    assert_eq!(item(&mut bench, 0x4000, 4), b"QEMU");
}

#[test]
fn the_data_port_cannot_be_written_nor_the_selector_read() {
    let mut bench = standard();
    bench.outw(0x510, 0);
    assert_eq!(bench.try_outb(0x511, 0), Err(IoError::InvalidRegister));
    assert_eq!(bench.inb(0x510), 0xff);
    assert_eq!(bench.inb(0x511), b'Q');
}

#[test]
fn a_restart_in_the_middle_of_an_item_goes_on_there() {
    let mut bench = standard();
    bench.outw(0x510, 0);
    assert_eq!(rep_insb(&mut bench, 2), b"QE");
    bench.restart(FwCfg::new(standard_items(&config())).unwrap());
    assert_eq!(rep_insb(&mut bench, 2), b"MU");
}

#[test]
fn a_hostile_position_reads_zeros() {
    let mut bench = standard();
    let mut data = Vec::new();
    save_state(&State { key: 0, position: u32::MAX }, &mut data);
    bench.device.load(1, &data).unwrap();
    assert_eq!(rep_insb(&mut bench, 3), [0; 3]);
    assert!(bench.device.load(1, &[1]).is_err());
    assert!(bench.device.load(2, &data).is_err());
}

#[test]
fn bad_sets_of_items_are_refused() {
    let file = |name: &str| (name.to_owned(), Vec::new());
    let files = |files: Vec<_>| FwCfg::new(Items { keys: Vec::new(), files }).err();
    assert!(matches!(files(vec![file(&"x".repeat(56))]), Some(ItemsError::Name { .. })));
    assert!(matches!(files(vec![file("")]), Some(ItemsError::Name { .. })));
    assert!(matches!(files(vec![file("a"), file("b"), file("a")]), Some(ItemsError::Duplicate { .. })));
    let keys = |keys| FwCfg::new(Items { keys, files: vec![file("a")] }).err();
    assert_eq!(keys(vec![(0x19, Vec::new())]), Some(ItemsError::Key { key: 0x19 }));
    assert_eq!(keys(vec![(0x20, Vec::new())]), Some(ItemsError::Key { key: 0x20 }));
    assert_eq!(keys(vec![(0x4001, Vec::new())]), Some(ItemsError::Key { key: 0x4001 }));
    assert!(files(vec![file(&"x".repeat(55))]).is_none());
}
