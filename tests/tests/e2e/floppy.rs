//! Files on floppy images: programs put there for a VM, and what is read when it has ended.

use std::io::{Read, Write};
use std::path::Path;
use vmsim_tests::Home;

/// A copy of `image` with a program in its root directory: its path.
pub fn with_program(home: &Home, image: &Path, name: &str, program: &[u8]) -> String {
    let copy = home.copy(image);
    let disk = std::fs::File::options().read(true).write(true).open(&copy).expect("the image");
    let files = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).expect("a FAT file system");
    files.root_dir().create_file(name).expect("a file").write_all(program).expect("a file");
    files.unmount().expect("the image is complete");
    copy
}

/// Reads files of the root directory by name; panics about one that is not there.
pub fn reader(image: &Path) -> impl Fn(&str) -> Vec<u8> {
    let disk = std::fs::File::options().read(true).write(true).open(image).expect("the image");
    let files = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).expect("a FAT file system");
    move |name| {
        let mut bytes = Vec::new();
        let mut file = files.root_dir().open_file(name).expect(name);
        file.read_to_end(&mut bytes).expect(name);
        bytes
    }
}
