//! Memory and disk images in a section: blocks of 64 KiB, compressed; those of nothing but zeros are left out.
//!
//! ```text
//! content  length of the whole (u64), blocks in rising order
//! block    number (u32), length as stored (u32), bytes: an LZ4 block, or the plain bytes where that is no shorter
//! ```

use super::container::SavedError;
use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use twox_hash::XxHash3_64;

/// Bytes of a block.
const BLOCK: u64 = 64 << 10;

/// Something with bytes at offsets, that is not changed meanwhile.
pub trait Source {
    /// How many.
    fn len(&self) -> u64;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies bytes out.
    ///
    /// # Errors
    /// What the system says, or that there are not so many.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Where the next bytes may be that are not zero, at or after an offset. `None`: nowhere.
    fn next_data(&self, offset: u64) -> Option<u64> {
        Some(offset)
    }
}

impl Source for ipc::segment::Segment {
    fn len(&self) -> u64 {
        self.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read(offset, buffer).then_some(()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A file, as long as it was at the start.
pub struct FileSource {
    file: File,
    len: u64,
}

impl FileSource {
    /// The content of `file`.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(file: File) -> io::Result<Self> {
        let len = file.metadata()?.len();
        Ok(Self { file, len })
    }
}

impl Source for FileSource {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> Option<u64> {
        match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(at) => Some(at),
            Err(rustix::io::Errno::NXIO) => None,
            // A file system that knows no holes.
            Err(_) => Some(offset),
        }
    }
}

/// Calls `each` with number and bytes of every block that has something else than zeros.
fn for_each_block(
    source: &(impl Source + ?Sized),
    mut each: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; BLOCK as usize];
    let mut at = 0;
    while at < source.len() {
        let Some(data) = source.next_data(at) else { break };
        at = data.max(at) / BLOCK * BLOCK;
        let Some(left) = source.len().checked_sub(at).filter(|left| *left > 0) else { break };
        let block = &mut buffer[..left.min(BLOCK) as usize];
        source.read_at(at, block)?;
        if block.iter().any(|byte| *byte != 0) {
            each(at / BLOCK, block)?;
        }
        at += BLOCK;
    }
    Ok(())
}

/// Writes everything that a source has.
///
/// # Errors
/// [`SavedError::Io`], also when `goes_on` said no.
pub fn write(
    source: &(impl Source + ?Sized),
    to: &mut impl Write,
    goes_on: impl Fn() -> bool,
) -> Result<(), SavedError> {
    to.write_all(&source.len().to_le_bytes())?;
    for_each_block(source, |number, block| {
        if !goes_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let packed = lz4_flex::block::compress(block);
        let stored = if packed.len() < block.len() { &packed } else { block };
        to.write_all(&(number as u32).to_le_bytes())?;
        to.write_all(&(stored.len() as u32).to_le_bytes())?;
        to.write_all(stored)
    })?;
    Ok(())
}

/// A hash of a source's content: two that differ have different ones, but for accidents.
///
/// # Errors
/// What the system says.
pub fn content_hash(source: &(impl Source + ?Sized), goes_on: impl Fn() -> bool) -> io::Result<u64> {
    let mut hash = XxHash3_64::with_seed(0);
    hash.write(&source.len().to_le_bytes());
    for_each_block(source, |number, block| {
        hash.write(&number.to_le_bytes());
        hash.write(block);
        if goes_on() { Ok(()) } else { Err(io::ErrorKind::Interrupted.into()) }
    })?;
    Ok(hash.finish())
}

/// The length at the start of a content, which is not above `most`.
///
/// # Errors
/// [`SavedError`] about `section`.
pub fn read_len(section: &str, from: &mut impl Read, most: u64) -> Result<u64, SavedError> {
    let mut len = [0; 8];
    from.read_exact(&mut len).map_err(|_| SavedError::corrupt(section, "has no length"))?;
    let len = u64::from_le_bytes(len);
    if len > most {
        return Err(SavedError::corrupt(section, format!("has {len} bytes; at most {most} are allowed")));
    }
    Ok(len)
}

/// Reads the blocks after [`read_len`] and puts them where they belong, in memory that is all zeros.
///
/// # Errors
/// [`SavedError`] about `section`.
pub fn read_blocks(
    section: &str,
    from: &mut impl Read,
    len: u64,
    mut put: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> Result<(), SavedError> {
    let corrupt = |what: &str| SavedError::corrupt(section, what);
    let mut from = io::BufReader::with_capacity(4 * BLOCK as usize, from);
    let (mut packed, mut plain) = (vec![0; BLOCK as usize], vec![0; BLOCK as usize]);
    let mut next = 0;
    loop {
        let mut head = [0; 8];
        match from.read(&mut head[..1])? {
            0 => return Ok(()),
            _ => from.read_exact(&mut head[1..]).map_err(|_| corrupt("ends in the middle of a block"))?,
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (number, stored) = (u64::from(word(0)), word(4) as usize);
        let at = number * BLOCK;
        if number < next || at >= len {
            return Err(corrupt("has a block that has no place"));
        }
        next = number + 1;
        let block = (len - at).min(BLOCK) as usize;
        if stored > block {
            return Err(corrupt("has a block that is too long"));
        }
        from.read_exact(&mut packed[..stored]).map_err(|_| corrupt("ends in the middle of a block"))?;
        if stored == block {
            put(at, &packed[..block])?;
            continue;
        }
        let unpacked = lz4_flex::block::decompress_into(&packed[..stored], &mut plain[..block]);
        if unpacked.ok() != Some(block) {
            return Err(corrupt("has a block that cannot be unpacked"));
        }
        put(at, &plain[..block])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl Source for Vec<u8> {
        fn len(&self) -> u64 {
            self.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
            let from = self.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&bytes.to_vec(), &mut out, || true).unwrap();
        out
    }

    fn unpacked(mut bytes: &[u8]) -> Result<Vec<u8>, SavedError> {
        let len = read_len("ram", &mut bytes, 1 << 20)?;
        let mut memory = vec![0; len as usize];
        read_blocks("ram", &mut bytes, len, |at, block| {
            memory[at as usize..][..block.len()].copy_from_slice(block);
            Ok(())
        })?;
        Ok(memory)
    }

    /// Pages of zeros, of one value and of noise, and a last block that is not whole.
    fn memory() -> Vec<u8> {
        let mut bytes = vec![0; 5 * BLOCK as usize + 1000];
        bytes[70_000..90_000].fill(7);
        let mut noise = 1u32;
        for byte in &mut bytes[3 * BLOCK as usize..4 * BLOCK as usize] {
            noise = noise.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            *byte = (noise >> 24) as u8;
        }
        if let Some(last) = bytes.last_mut() {
            *last = 1;
        }
        bytes
    }

    #[test]
    fn memory_comes_back_and_zeros_take_no_room() {
        let bytes = memory();
        let file = packed(&bytes);
        assert!(file.len() < BLOCK as usize + 2000, "{}", file.len());
        assert!(unpacked(&file).unwrap() == bytes);
        assert_eq!(unpacked(&packed(&[])).unwrap(), [0; 0]);
    }

    #[test]
    fn blocks_are_as_the_page_says() {
        let mut file = 70_000u64.to_le_bytes().to_vec();
        // A run of 65536 sevens as an LZ4 block: one literal, a match of distance 1, five literals at the end.
        let mut packed = vec![0x1f, 7, 1, 0];
        let run = BLOCK as usize - 1 - 5;
        let more = run - 4 - 15;
        packed.extend(std::iter::repeat_n(0xff, more / 255));
        packed.push((more % 255) as u8);
        packed.extend([0x50, 7, 7, 7, 7, 7]);
        file.extend([0, 0, 0, 0]);
        file.extend((packed.len() as u32).to_le_bytes());
        file.extend(&packed);
        let rest = 70_000 - BLOCK as usize;
        file.extend([1, 0, 0, 0]);
        file.extend((rest as u32).to_le_bytes());
        file.extend(vec![9; rest]);
        let memory = unpacked(&file).unwrap();
        assert!(memory[..BLOCK as usize].iter().all(|byte| *byte == 7));
        assert!(memory[BLOCK as usize..].iter().all(|byte| *byte == 9) && memory.len() == 70_000);
    }

    #[test]
    fn a_file_with_holes_has_the_content_of_one_without() {
        let bytes = memory();
        let sparse = tempfile::tempfile().unwrap();
        sparse.set_len(bytes.len() as u64).unwrap();
        for_each_block(&bytes, |number, block| sparse.write_all_at(block, number * BLOCK)).unwrap();
        let source = FileSource::new(sparse).unwrap();
        let mut file = Vec::new();
        write(&source, &mut file, || true).unwrap();
        assert!(file == packed(&bytes));
        let hash = content_hash(&source, || true).unwrap();
        assert_eq!(hash, content_hash(&bytes, || true).unwrap());
        let mut other = bytes;
        other[80_000] = 8;
        assert_ne!(hash, content_hash(&other, || true).unwrap());
        other.fill(0);
        let shorter = vec![0; other.len() - 1];
        assert_ne!(content_hash(&other, || true).unwrap(), content_hash(&shorter, || true).unwrap());
    }

    #[test]
    fn writing_ends_when_nobody_wants_it_any_more() {
        let mut out = Vec::new();
        assert!(write(&memory(), &mut out, || false).is_err());
        assert!(content_hash(&memory(), || false).is_err());
    }

    proptest! {
        #[test]
        fn hostile_content_is_refused_or_fits(
            at in any::<prop::sample::Index>(), with in any::<[u8; 4]>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut file = packed(&memory());
            let at = at.index(file.len() - with.len());
            file[at..at + with.len()].copy_from_slice(&with);
            // Only the front is worth changing often: there are the lengths.
            for bytes in [&file[..], &file[..cut.index(file.len())]] {
                if let Ok(memory) = unpacked(bytes) {
                    prop_assert!(memory.len() <= 1 << 20);
                }
            }
            let front = at % 40;
            file[front..front + with.len()].copy_from_slice(&with);
            let _ = unpacked(&file);
        }
    }
}
