use super::*;
use std::io::Cursor;

/// A kernel with `setup` sectors of real-mode code and `rest` sectors of the other.
fn kernel(setup: u8, rest: usize) -> Vec<u8> {
    let mut kernel = vec![0xCC; (1 + usize::from(setup) + rest) * SECTOR];
    kernel[SETUP_SECTORS_FIELD] = setup;
    kernel[SIGNATURE_FIELD..SIGNATURE_FIELD + 4].copy_from_slice(SIGNATURE);
    kernel[LOAD_FLAGS_FIELD] = LOADED_HIGH;
    kernel
}

#[test]
fn kernel_floppy_is_a_bootable_fat_file_system_with_the_kernel_reserved() {
    let kernel = kernel(3, 100);
    let image = kernel_floppy(&kernel, "console=ttyS0").unwrap();

    assert_eq!(image[510..512], [0x55, 0xAA]);
    assert_eq!(image[LOADER.len()..LOADER.len() + kernel.len()], kernel);
    assert!(image[COMMAND_LINE_AT..].starts_with(b"console=ttyS0\0"));
    assert_eq!(image[PARAMETERS_AT..COMMAND_LINE_AT], [6, 0, 4, 0, 100, 0]);
    let volume = fatfs::FileSystem::new(Cursor::new(image), fatfs::FsOptions::new()).unwrap();
    assert_eq!(volume.read_volume_label_from_root_dir().unwrap().as_deref(), Some("VMSIM BOOT"));
}

#[test]
fn what_cannot_boot_is_refused() {
    let mut low = kernel(3, 10);
    low[LOAD_FLAGS_FIELD] = 0;
    assert!(matches!(kernel_floppy(b"short", ""), Err(RecipeError::NotAKernel(_))));
    assert!(matches!(kernel_floppy(&low, ""), Err(RecipeError::NotAKernel(_))));
    assert!(matches!(kernel_floppy(&kernel(200, 10), ""), Err(RecipeError::NotAKernel(_))));
    assert!(matches!(kernel_floppy(&kernel(3, 3000), ""), Err(RecipeError::TooLarge { .. })));
    assert!(matches!(
        kernel_floppy(&kernel(3, 10), &"x".repeat(256)),
        Err(RecipeError::CommandLine { length: 256, .. })
    ));
}

#[test]
fn largest_kernel_still_leaves_a_file_system() {
    let room = SECTORS - LOADER.len() / SECTOR - 2 * FAT_SECTORS - ROOT_SECTORS;
    assert!(kernel_floppy(&kernel(3, room - 4), "").is_ok());
    assert!(kernel_floppy(&kernel(3, room - 3), "").is_err());
}
