use super::*;
use std::io::{Cursor, Read};

/// A kernel that passes for one.
fn kernel() -> Vec<u8> {
    let mut kernel: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
    kernel[0x1F1] = 3;
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x211] = 1;
    kernel
}

fn parts() -> Parts {
    Parts { kernel: kernel(), initramfs: initramfs("6.1", &[], b"busybox") }
}

fn number(image: &[u8], field: usize) -> usize {
    let at = layout::PARAMETERS_AT + field;
    u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize
}

/// Makes a disk and checks it from the outside; returns its partition's type.
fn check_disk(size: u64) -> u8 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let options = Options { size, append: "panic=1".into(), ..Options::default() };
    parts().write(&path, &options).unwrap();
    let image = fs::read(path).unwrap();
    assert_eq!(image.len() as u64, size);

    // What the loader reads is what the file system holds.
    let entry = &image[layout::PARTITION_TABLE..][..16];
    let start = u32::from_le_bytes(entry[8..12].try_into().unwrap()) as usize * 512;
    let sectors = u32::from_le_bytes(entry[12..16].try_into().unwrap()) as usize;
    assert_eq!((entry[0], start + sectors * 512), (0x80, image.len()));
    let volume =
        fatfs::FileSystem::new(Cursor::new(image[start..].to_vec()), fatfs::FsOptions::new()).unwrap();
    let file = |name: &str| {
        let mut bytes = Vec::new();
        volume.root_dir().open_file(name).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let (kernel_at, initrd_at) = (number(&image, layout::KERNEL_START), number(&image, layout::INITRD_START));
    let kernel_bytes = number(&image, layout::KERNEL_SECTORS) * 512;
    assert!(image[kernel_at * 512..][..kernel_bytes].starts_with(&kernel()));
    assert_eq!(file(KERNEL_FILE), kernel());
    let initrd = &image[initrd_at * 512..][..number(&image, layout::INITRD_BYTES)];
    assert_eq!(file(INITRD_FILE), initrd);
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(initrd).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, parts().initramfs);
    assert_eq!(file(TEST_FILE), test_file());
    let line = b"console=ttyS0,115200 console=tty0 nokaslr quiet panic=1\0";
    assert!(image[layout::PARAMETERS_AT + layout::COMMAND_LINE..].starts_with(line));
    assert_eq!(image[510..512], [0x55, 0xAA]);
    entry[4]
}

#[test]
fn disk_holds_what_the_loader_reads() {
    assert_eq!(check_disk(SIZE_MIN), 0x0E, "FAT16");
    assert_eq!(check_disk(600 << 20), 0x0C, "FAT32");
}

#[test]
fn impossible_options_are_refused() {
    let path = Path::new("/nonexistent/linux.img");
    let bar = ProgressBar::hidden();
    for size in [0, SIZE_MIN - 512, SIZE_MIN + 1, SIZE_MAX + 512] {
        let error = create(path, &Options { size, ..Options::default() }, &bar).unwrap_err();
        assert!(matches!(error, RecipeError::Size { .. }), "{error}");
    }
    let error = create(path, &Options { append: "x".repeat(1024), ..Options::default() }, &bar).unwrap_err();
    assert!(matches!(error, RecipeError::CommandLine { .. }), "{error}");
}

#[test]
fn only_the_small_kernel_of_the_distribution_is_taken() {
    assert!(is_kernel_package("linux-image-6.1.0-50-686"));
    for other in ["linux-image-686", "linux-image-6.1.0-50-686-pae", "linux-image-6.1.0-50-rt-686", "busybox"]
    {
        assert!(!is_kernel_package(other), "{other}");
    }
    assert!(is_kept(Path::new("boot/vmlinuz-6.1")));
    assert!(is_kept(Path::new("lib/modules/6.1/kernel/fs/fat/vfat.ko")));
    assert!(!is_kept(Path::new("lib/modules/6.1/kernel/fs/xfs/xfs.ko")));
    assert!(!is_kept(Path::new("usr/share/doc/x")));
}

#[test]
fn without_packages_there_is_one_line_that_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let offline = Search {
        chosen: None,
        system: Vec::new(),
        cache: Some(folder.path().join("cache")),
        offline: true,
        packages: None,
    };
    let empty = Search { packages: Some(folder.path().to_owned()), ..offline.clone() };
    for (search, word) in [(offline, "downloads are off"), (empty, "busybox-static")] {
        let error = cached_in(&search, &ProgressBar::hidden()).unwrap_err().to_string();
        assert!(error.contains(word) && error.lines().count() == 1, "{error}");
    }
}

/// The packages as the cache keeps them.
fn packages_in(cache: &Path, script: &[u8]) {
    let kernel_folder = package_directory(cache, KERNEL_META_PACKAGE);
    let busybox_folder = package_directory(cache, BUSYBOX_KEPT_AS).join("bin");
    fs::create_dir_all(kernel_folder.join("boot")).unwrap();
    fs::create_dir_all(kernel_folder.join("lib/modules/6.1/kernel")).unwrap();
    fs::create_dir_all(&busybox_folder).unwrap();
    fs::write(kernel_folder.join("boot/vmlinuz-6.1"), kernel()).unwrap();
    fs::write(busybox_folder.join("busybox"), script).unwrap();
}

#[test]
fn cached_disk_is_made_again_only_when_its_parts_change() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let search = Search {
        chosen: None,
        system: Vec::new(),
        cache: Some(cache.clone()),
        offline: true,
        packages: None,
    };
    packages_in(&cache, b"one");
    let image = cached_in(&search, &ProgressBar::hidden()).unwrap();
    let first = fs::read(&image).unwrap();

    fs::write(&image, b"kept").unwrap();
    cached_in(&search, &ProgressBar::hidden()).unwrap();
    assert_eq!(fs::read(&image).unwrap(), b"kept");
    packages_in(&cache, b"two");
    cached_in(&search, &ProgressBar::hidden()).unwrap();
    let second = fs::read(&image).unwrap();

    assert_eq!(first.len(), second.len());
    assert!(first != second);
}
