//! The file of a saved VM as a sequence of sections, each with name, version and checksum.
//!
//! ```text
//! file     magic "VMSimSav", format (u32), 0 (u32), sections, the last one "end"
//! section  name (16 bytes, padded with zeros), version (u16), flags (u16), 0 (u32), length (u64),
//!          checksum (u64), content
//! end      the number of sections before it (u32)
//! ```
//!
//! Numbers are little endian. The checksum is XXH3 (64 bits) of the content and then of the 32 bytes before the
//! checksum. It finds accidents, not attackers: whoever decodes a content checks it once more.
//!
//! It does not know what is in a section.

use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};
use twox_hash::XxHash3_64;

/// First bytes of every file.
const MAGIC: [u8; 8] = *b"VMSimSav";
/// How sections are strung together.
const FORMAT: u32 = 1;
const FILE_HEADER: usize = 16;
const NAME_LEN: usize = 16;
/// Name, version, flags, reserved, length.
const SUMMED_HEADER: usize = NAME_LEN + 16;
const SECTION_HEADER: usize = SUMMED_HEADER + 8;
/// A build that does not know the section may leave it out.
const FLAG_OPTIONAL: u16 = 1 << 0;
/// Name of the last section.
const END: &str = "end";
/// Sections that a file may have: protects the reader.
const MAX_SECTIONS: u32 = 10_000;
/// Longest section that is read as a whole, bytes.
const MAX_WHOLE: u64 = 64 << 20;
/// Bytes at a time when checksums are computed.
const PIECE: usize = 256 << 10;

/// Why a file cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is something else.
    #[error("It is not a saved VM")]
    NotSaved,
    /// A later build wrote it.
    #[error(
        "Its format is {found}, and this build knows formats up to {known}: use the build that wrote it, or a newer one"
    )]
    NewerFormat {
        /// What it has.
        found: u32,
        /// What is known.
        known: u32,
    },
    /// It ends too soon.
    #[error("It is truncated: section '{0}' is not complete")]
    Truncated(String),
    /// Something in it is not as it was written.
    #[error("It is corrupt: section '{section}' {what}")]
    Corrupt {
        /// The section.
        section: String,
        /// What is wrong with it.
        what: String,
    },
    /// A later build wrote a section.
    #[error(
        "Section '{section}' has version {found}, and this build knows versions up to {known}: use the build that \
         wrote it, or a newer one"
    )]
    NewerSection {
        /// The section.
        section: String,
        /// What it has.
        found: u16,
        /// What is known.
        known: u16,
    },
    /// A later build wrote a section that matters.
    #[error("Section '{0}' is unknown to this build: use the build that wrote it, or a newer one")]
    UnknownSection(String),
    /// A section is missing.
    #[error("It is incomplete: there is no section '{0}'")]
    Missing(String),
}

impl SavedError {
    /// A section whose content makes no sense.
    pub fn corrupt(section: &str, what: impl Into<String>) -> Self {
        Self::Corrupt { section: section.into(), what: what.into() }
    }
}

/// What stands before a section's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// What it is.
    pub name: String,
    /// Version of its content's format.
    pub version: u16,
    /// A build that does not know it may leave it out.
    pub optional: bool,
    start: u64,
    len: u64,
}

impl Section {
    fn header(&self) -> [u8; SUMMED_HEADER] {
        let mut header = [0; SUMMED_HEADER];
        let name = self.name.as_bytes();
        let len = name.len().min(NAME_LEN);
        header[..len].copy_from_slice(&name[..len]);
        header[16..18].copy_from_slice(&self.version.to_le_bytes());
        let flags = if self.optional { FLAG_OPTIONAL } else { 0 };
        header[18..20].copy_from_slice(&flags.to_le_bytes());
        header[24..32].copy_from_slice(&self.len.to_le_bytes());
        header
    }

    /// `None`: no writer makes such a header.
    fn decode(header: &[u8; SECTION_HEADER], start: u64) -> Option<Self> {
        let used = header[..NAME_LEN].iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        let name = &header[..used];
        let good = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
        let padded = header[used..NAME_LEN].iter().all(|byte| *byte == 0);
        if name.is_empty() || !name.iter().all(good) || !padded {
            return None;
        }
        let number = |from: usize| u16::from_le_bytes([header[from], header[from + 1]]);
        let mut len = [0; 8];
        len.copy_from_slice(&header[24..32]);
        let len = u64::from_le_bytes(len);
        let name = String::from_utf8_lossy(name).into_owned();
        let optional = number(18) & FLAG_OPTIONAL != 0;
        Some(Self { name, version: number(16), optional, start, len })
    }
}

/// Writes a file.
pub struct Writer<W: Write + Seek> {
    file: W,
    at: u64,
    sections: u32,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file, which is empty.
    ///
    /// # Errors
    /// [`SavedError::Io`].
    pub fn new(mut file: W) -> Result<Self, SavedError> {
        file.write_all(&MAGIC)?;
        file.write_all(&FORMAT.to_le_bytes())?;
        file.write_all(&[0; 4])?;
        Ok(Self { file, at: FILE_HEADER as u64, sections: 0 })
    }

    /// Adds a section whose content `write` writes. The name has at most 16 of `a-z0-9-`.
    ///
    /// # Errors
    /// [`SavedError::Io`]; the file is of no use then.
    pub fn section(
        &mut self,
        name: &str,
        version: u16,
        optional: bool,
        write: impl FnOnce(&mut SectionWriter<'_, W>) -> Result<(), SavedError>,
    ) -> Result<(), SavedError> {
        debug_assert!(name.len() <= NAME_LEN);
        self.file.write_all(&[0; SECTION_HEADER])?;
        let mut content = SectionWriter { file: &mut self.file, len: 0, sum: XxHash3_64::with_seed(0) };
        write(&mut content)?;
        let SectionWriter { len, mut sum, .. } = content;
        let section = Section { name: name.into(), version, optional, start: 0, len };
        let header = section.header();
        sum.write(&header);
        self.file.seek(SeekFrom::Start(self.at))?;
        self.file.write_all(&header)?;
        self.file.write_all(&sum.finish().to_le_bytes())?;
        self.at += SECTION_HEADER as u64 + len;
        self.file.seek(SeekFrom::Start(self.at))?;
        self.sections += 1;
        Ok(())
    }

    /// Adds the last section; returns the file.
    ///
    /// # Errors
    /// [`SavedError::Io`].
    pub fn finish(mut self) -> Result<W, SavedError> {
        let sections = self.sections;
        self.section(END, FORMAT as u16, false, |content| Ok(content.write_all(&sections.to_le_bytes())?))?;
        self.file.flush()?;
        Ok(self.file)
    }
}

/// Takes the content of a section.
pub struct SectionWriter<'a, W> {
    file: &'a mut W,
    len: u64,
    sum: XxHash3_64,
}

impl<W: Write> Write for SectionWriter<'_, W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let written = self.file.write(data)?;
        self.sum.write(&data[..written]);
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file whose sections are all there and have their checksums.
pub struct Reader<R: Read + Seek> {
    file: R,
    sections: Vec<Section>,
}

impl<R: Read + Seek> Reader<R> {
    /// Reads a file through.
    ///
    /// # Errors
    /// [`SavedError`], with the first section that is not as it was written.
    pub fn new(mut file: R) -> Result<Self, SavedError> {
        let file_len = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let mut header = [0; FILE_HEADER];
        let read = read_up_to(&mut file, &mut header)?;
        if read < MAGIC.len() || header[..MAGIC.len()] != MAGIC {
            return Err(SavedError::NotSaved);
        }
        if read < FILE_HEADER {
            return Err(SavedError::Truncated("header".into()));
        }
        let found = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
        if found > FORMAT {
            return Err(SavedError::NewerFormat { found, known: FORMAT });
        }
        if found == 0 || header[12..] != [0; 4] {
            return Err(SavedError::corrupt("header", "is not one that any build writes"));
        }
        let mut sections = Vec::new();
        let mut at = FILE_HEADER as u64;
        loop {
            let (section, header) = read_header(&mut file, at)?;
            let end = section.start.checked_add(section.len).filter(|end| *end <= file_len);
            at = end.ok_or_else(|| SavedError::Truncated(section.name.clone()))?;
            if !has_its_sum(&mut file, section.len, &header)? {
                return Err(SavedError::corrupt(&section.name, "does not have its checksum"));
            }
            if section.name == END {
                let mut reader = Self { file, sections };
                reader.check_end(&section, at, file_len)?;
                return Ok(reader);
            }
            sections.push(section);
            if sections.len() > MAX_SECTIONS as usize {
                return Err(SavedError::corrupt(END, "is not where it should be"));
            }
        }
    }

    fn check_end(&mut self, section: &Section, at: u64, file_len: u64) -> Result<(), SavedError> {
        let count = self.read(section)?;
        if count != (self.sections.len() as u32).to_le_bytes() {
            return Err(SavedError::corrupt(END, "says that sections are missing"));
        }
        if at != file_len {
            return Err(SavedError::corrupt(END, "is followed by something else"));
        }
        Ok(())
    }

    /// All sections but the last.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// The content of a section that is not large.
    ///
    /// # Errors
    /// [`SavedError`], also when it is large.
    pub fn read(&mut self, section: &Section) -> Result<Vec<u8>, SavedError> {
        if section.len > MAX_WHOLE {
            return Err(SavedError::corrupt(&section.name, "is too long"));
        }
        let mut content = Vec::new();
        self.open(section)?.read_to_end(&mut content)?;
        Ok(content)
    }

    /// The content of a section, to be read piece by piece.
    ///
    /// # Errors
    /// [`SavedError::Io`].
    pub fn open(&mut self, section: &Section) -> Result<io::Take<&mut R>, SavedError> {
        self.file.seek(SeekFrom::Start(section.start))?;
        Ok((&mut self.file).take(section.len))
    }
}

/// Fills the buffer as far as the file goes.
fn read_up_to(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read(&mut buffer[done..]) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

fn read_header<R: Read + Seek>(file: &mut R, at: u64) -> Result<(Section, [u8; SECTION_HEADER]), SavedError> {
    let mut header = [0; SECTION_HEADER];
    file.seek(SeekFrom::Start(at))?;
    if read_up_to(file, &mut header)? < SECTION_HEADER {
        return Err(SavedError::Truncated(END.into()));
    }
    let section = Section::decode(&header, at + SECTION_HEADER as u64);
    let section = section.ok_or_else(|| SavedError::corrupt("?", format!("at byte {at} has no name")))?;
    Ok((section, header))
}

/// Whether a section has the checksum that its header says. The file stands at the start of its content.
fn has_its_sum(file: &mut impl Read, len: u64, header: &[u8; SECTION_HEADER]) -> Result<bool, SavedError> {
    let mut sum = XxHash3_64::with_seed(0);
    let mut content = file.take(len);
    let mut piece = vec![0; PIECE.min(len as usize)];
    loop {
        match read_up_to(&mut content, &mut piece)? {
            0 => break,
            count => sum.write(&piece[..count]),
        }
    }
    let (summed, expected) = header.split_at(SUMMED_HEADER);
    sum.write(summed);
    Ok(sum.finish().to_le_bytes() == expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn file(sections: &[(&str, u16, bool, &[u8])]) -> Vec<u8> {
        let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
        for (name, version, optional, content) in sections {
            writer.section(name, *version, *optional, |to| Ok(to.write_all(content)?)).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    fn open(bytes: &[u8]) -> Result<Reader<Cursor<&[u8]>>, SavedError> {
        Reader::new(Cursor::new(bytes))
    }

    fn sample() -> Vec<u8> {
        file(&[("clock", 1, false, b"tick"), ("empty", 7, true, b""), ("ram", 2, false, &[9; 5000])])
    }

    #[test]
    fn sections_come_back_in_order_with_their_versions() {
        let bytes = sample();
        let mut reader = open(&bytes).unwrap();
        let sections = reader.sections().to_vec();
        let heads: Vec<_> = sections.iter().map(|s| (s.name.as_str(), s.version, s.optional)).collect();
        assert_eq!(heads, [("clock", 1, false), ("empty", 7, true), ("ram", 2, false)]);
        assert_eq!(reader.read(&sections[0]).unwrap(), b"tick");
        assert_eq!(reader.read(&sections[1]).unwrap(), b"");
        assert_eq!(reader.read(&sections[2]).unwrap(), [9; 5000]);
    }

    #[test]
    fn a_file_that_is_cut_short_anywhere_is_refused_and_the_section_is_named() {
        let bytes = sample();
        for len in 0..bytes.len() {
            let error = open(&bytes[..len]).err().unwrap_or_else(|| panic!("{len} bytes are taken"));
            let expected = if len < MAGIC.len() { "not a saved VM" } else { "truncated" };
            assert!(error.to_string().contains(expected), "{len}: {error}");
        }
        let error = open(&bytes[..bytes.len() - 2000]).err().unwrap().to_string();
        assert!(error.contains("'ram'"), "{error}");
    }

    #[test]
    fn newer_formats_and_more_bytes_are_told() {
        let mut bytes = sample();
        bytes.push(0);
        assert!(open(&bytes).err().unwrap().to_string().contains("followed by something else"));
        bytes.pop();
        bytes[8] = 2;
        assert!(matches!(open(&bytes), Err(SavedError::NewerFormat { found: 2, known: 1 })));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_noticed(at in any::<prop::sample::Index>(), with in 1u8..) {
            let mut bytes = sample();
            let at = at.index(bytes.len());
            bytes[at] ^= with;
            prop_assert!(open(&bytes).is_err(), "byte {at}");
        }

        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), headed in any::<bool>()) {
            let mut all = if headed { sample()[..FILE_HEADER].to_vec() } else { Vec::new() };
            all.extend(bytes);
            prop_assert!(open(&all).is_err());
        }
    }
}
