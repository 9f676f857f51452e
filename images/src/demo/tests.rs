use super::*;
use std::io::Cursor;

const RESET_VECTOR: usize = 0xFFF0;
const JMP_FAR: u8 = 0xEA;

#[test]
fn rom_begins_execution_inside_itself() {
    let rom = demo_rom();
    assert_eq!(rom.len(), 0x1_0000);
    assert_eq!(rom[RESET_VECTOR], JMP_FAR);
    let offset = usize::from(u16::from_le_bytes([rom[RESET_VECTOR + 1], rom[RESET_VECTOR + 2]]));
    let segment = u16::from_le_bytes([rom[RESET_VECTOR + 3], rom[RESET_VECTOR + 4]]);
    assert_eq!(segment, 0xF000);
    // CLI; CLD: nothing may interrupt before the vectors exist.
    assert_eq!(rom[offset..offset + 2], [0xFA, 0xFC]);
}

#[test]
fn floppies_are_bootable_empty_fat12_file_systems() {
    for (image, label) in [(demo_floppy(), "VMSIM DEMO"), (bench_floppy(), "VMSIM BENCH")] {
        assert_eq!(image.len(), FLOPPY_BYTES);
        assert_eq!(image[510..512], [0x55, 0xAA]);
        let volume = fatfs::FileSystem::new(Cursor::new(image), fatfs::FsOptions::new()).unwrap();
        assert_eq!(volume.fat_type(), fatfs::FatType::Fat12);
        assert_eq!(volume.volume_label(), label);
        assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some(label));
        assert_eq!(volume.root_dir().iter().count(), 0);
    }
}
