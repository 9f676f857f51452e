//! Writes archives in cpio's "newc" format, of which the Linux kernel makes its first root file
//! system (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

const MAGIC: &str = "070701";
/// Name of the entry that ends an archive.
const TRAILER: &str = "TRAILER!!!";
/// Names and contents end at multiples of this.
const ALIGNMENT: usize = 4;

/// File type bits of a mode.
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive under construction. Everything in it belongs to root and has no date.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a directory; those above it must be there already.
    pub fn directory(&mut self, name: &str, permissions: u32) {
        self.entry(name, DIRECTORY | permissions, (0, 0), &[]);
    }

    /// Adds a file.
    pub fn file(&mut self, name: &str, permissions: u32, content: &[u8]) {
        self.entry(name, FILE | permissions, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, name: &str, target: &str) {
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, name: &str, permissions: u32, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | permissions, (major, minor), &[]);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        let fields = [
            self.entries, // inode
            mode,
            0, // user
            0, // group
            links,
            0, // time
            content.len() as u32,
            0, // device that the file lies on
            0,
            device.0,
            device.1,
            name.len() as u32 + 1,
            0, // checksum: none in this format
        ];
        self.bytes.extend(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of the entry at `at`, its name, its content, and where the next one begins.
    fn parse(bytes: &[u8], at: usize) -> (Vec<u32>, String, Vec<u8>, usize) {
        assert_eq!(&bytes[at..at + 6], MAGIC.as_bytes());
        let field = |index: usize| {
            let at = at + 6 + 8 * index;
            u32::from_str_radix(std::str::from_utf8(&bytes[at..at + 8]).unwrap(), 16).unwrap()
        };
        let fields: Vec<_> = (0..13).map(field).collect();
        let name = at + 110;
        let name_end = name + fields[11] as usize;
        assert_eq!(bytes[name_end - 1], 0);
        let content = name_end.next_multiple_of(4);
        let end = content + fields[6] as usize;
        (
            fields,
            String::from_utf8(bytes[name..name_end - 1].to_vec()).unwrap(),
            bytes[content..end].to_vec(),
            end.next_multiple_of(4),
        )
    }

    #[test]
    fn entries_have_type_size_and_alignment_and_the_trailer_is_last() {
        let mut archive = Archive::default();
        archive.directory("dev", 0o755);
        archive.character_device("dev/console", 0o600, 5, 1);
        archive.file("hello", 0o644, b"hello");
        archive.symlink("link", "hello");
        let bytes = archive.finish();

        let (directory, name, _, at) = parse(&bytes, 0);
        assert_eq!((name.as_str(), directory[1]), ("dev", 0o040_755));
        let (device, name, _, at) = parse(&bytes, at);
        assert_eq!((name.as_str(), device[1]), ("dev/console", 0o020_600));
        assert_eq!((device[9], device[10]), (5, 1));
        let (file, name, content, at) = parse(&bytes, at);
        assert_eq!((name.as_str(), file[1], content.as_slice()), ("hello", 0o100_644, b"hello".as_slice()));
        let (link, name, content, at) = parse(&bytes, at);
        assert_eq!((name.as_str(), link[1], content.as_slice()), ("link", 0o120_777, b"hello".as_slice()));
        assert_ne!(file[0], link[0], "inodes");
        let (_, name, _, at) = parse(&bytes, at);
        assert_eq!((name.as_str(), at), (TRAILER, bytes.len()));
    }
}
