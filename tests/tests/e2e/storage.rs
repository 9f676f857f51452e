//! What guests write is in the image afterwards, as independent programs read it.

use fatfs::{FileSystem, FsOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use vmsim_tests::{Home, Vm, guest, program_in_path, run};

/// A file of the FAT file system in `image`.
fn file_in(image: &Path, name: &str) -> Vec<u8> {
    let disk = std::fs::OpenOptions::new().read(true).write(true).open(image).expect("the image");
    let files = FileSystem::new(disk, FsOptions::new()).expect("a FAT file system");
    let mut bytes = Vec::new();
    files.root_dir().open_file(name).expect(name).read_to_end(&mut bytes).expect("the whole file");
    bytes
}

#[test]
fn files_that_dos_wrote_are_in_the_image_after_stop() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    let image = vm.home().file("freedos-1440.img");
    vm.wait_prompt();

    vm.dos("echo hello from DOS > x.txt");
    vm.dos("copy command.com copy.com");
    let home = vm.stop();

    assert_eq!(file_in(&image, "X.TXT"), b"hello from DOS \r\n");
    assert!(file_in(&image, "COPY.COM") == file_in(&image, "COMMAND.COM"), "the copy differs");
    if program_in_path("mtype").is_some() {
        let mut mtype = Command::new("mtype");
        mtype.arg("-i").arg(&image).arg("::X.TXT");
        assert_eq!(run(mtype).ok(), "hello from DOS \r\n");
    }
    drop(home);
}

#[test]
fn read_only_image_stays_as_it_was_and_dos_says_so() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let home = Home::new();
    let copy = home.copy(&image);
    let vm = Vm::start_in(home, &["--read-only", "--floppy", &copy]);
    vm.wait_prompt();

    vm.type_text("echo hello > x.txt\\n");

    vm.wait_screen("complaint", |text| text.to_lowercase().contains("write-protect"));
    let _home = vm.stop();
    assert!(std::fs::read(image).ok() == std::fs::read(&copy).ok(), "the image was written");
}

#[test]
fn second_floppy_drive_is_drive_b() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let home = Home::new();
    let first = home.copy(&image);
    let second = home.file("second.img").display().to_string();
    home.vmsim(&["image", "create", &second, "--size", "720K", "--fat", "--label", "SECOND"]).ok();
    let vm = Vm::start_in(home, &["--floppy", &first, "--floppy", &second]);
    vm.wait_prompt();

    assert!(vm.dos("dir b:").contains("SECOND"));
    vm.dos("copy config.sys b:\\\\there.sys");

    let image = vm.home().file("second.img");
    let expected = file_in(&vm.home().file("freedos-1440.img"), "CONFIG.SYS");
    let _home = vm.stop();
    assert_eq!(file_in(&image, "THERE.SYS"), expected);
}

/// A hard disk image with one FAT16 partition, made without this project's code for disks.
fn partitioned_disk(path: &Path, files: &[(&str, &[u8])]) {
    const SECTOR: u64 = 512;
    const START: u32 = 63;
    const SECTORS: u32 = 32 * 1024;
    let mut disk =
        std::fs::File::options().read(true).write(true).create_new(true).open(path).expect("a file");
    disk.set_len(u64::from(START + SECTORS) * SECTOR).expect("its size");
    let mut table = [0; 512];
    let entry = &mut table[446..462];
    entry[0] = 0x80; // active
    entry[1..4].copy_from_slice(&[1, 1, 0]); // head 1, sector 1, cylinder 0
    entry[4] = 0x06; // FAT16
    entry[5..8].copy_from_slice(&[15, 63, 31]);
    entry[8..12].copy_from_slice(&START.to_le_bytes());
    entry[12..16].copy_from_slice(&SECTORS.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all(&table).expect("the partition table");
    let partition =
        Partition { disk, start: u64::from(START) * SECTOR, len: u64::from(SECTORS) * SECTOR, at: 0 };
    format_and_fill(partition, files);
}

fn format_and_fill(mut partition: Partition, files: &[(&str, &[u8])]) {
    let options =
        fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16).heads(16).sectors_per_track(63);
    fatfs::format_volume(&mut partition, options.drive_num(0x80)).expect("a file system");
    // DOS finds the volume by the number of sectors before it, which the formatter leaves out.
    partition.write_at(0x1c, &63u32.to_le_bytes());
    let system = FileSystem::new(partition, FsOptions::new()).expect("a FAT file system");
    for (name, bytes) in files {
        system.root_dir().create_file(name).expect("a file").write_all(bytes).expect("its bytes");
    }
}

/// The part of a file that is a partition.
struct Partition {
    disk: std::fs::File,
    start: u64,
    len: u64,
    at: u64,
}

impl Partition {
    fn write_at(&mut self, at: u64, bytes: &[u8]) {
        use std::os::unix::fs::FileExt;
        self.disk.write_all_at(bytes, self.start + at).expect("a write");
    }
}

impl Read for Partition {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let room = (self.len - self.at).min(buffer.len() as u64) as usize;
        let read = self.disk.read_at(&mut buffer[..room], self.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Write for Partition {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let room = (self.len - self.at).min(bytes.len() as u64) as usize;
        let written = self.disk.write_at(&bytes[..room], self.start + self.at)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl std::io::Seek for Partition {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        let (base, offset) = match to {
            std::io::SeekFrom::Start(at) => (at, 0),
            std::io::SeekFrom::Current(by) => (self.at, by),
            std::io::SeekFrom::End(by) => (self.len, by),
        };
        self.at = base.checked_add_signed(offset).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[test]
fn dos_reads_and_writes_a_hard_disk() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let home = Home::new();
    let floppy = home.copy(&image);
    let disk = home.file("disk.img");
    let contents: Vec<u8> = (0..70_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    partitioned_disk(&disk, &[("PATTERN.BIN", &contents)]);
    let disk_path = disk.display().to_string();
    let vm = Vm::start_in(home, &["--floppy", &floppy, "--disk", &disk_path, "--boot", "a"]);
    vm.wait_prompt();

    assert!(vm.dos("dir c:").contains("70,000"));
    vm.dos("copy c:\\\\pattern.bin c:\\\\again.bin");
    let _home = vm.stop();

    let file = std::fs::File::options().read(true).write(true).open(&disk).expect("the image");
    let len = file.metadata().expect("its size").len() - 63 * 512;
    let files = FileSystem::new(Partition { disk: file, start: 63 * 512, len, at: 0 }, FsOptions::new());
    let mut bytes = Vec::new();
    let files = files.expect("a FAT file system");
    files.root_dir().open_file("AGAIN.BIN").expect("the copy").read_to_end(&mut bytes).expect("its bytes");
    assert!(bytes == contents, "the copy differs: {} bytes", bytes.len());
}
