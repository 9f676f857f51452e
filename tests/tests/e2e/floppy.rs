//! Files on a floppy image, read when its VM has ended.

use std::io::Read;
use std::path::Path;

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
