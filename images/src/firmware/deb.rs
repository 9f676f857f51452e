//! Unpacks Debian packages: an `ar` archive with a compressed `tar` of the files (deb(5)).

use std::fs::File;
use std::io::{BufReader, Cursor, Error, ErrorKind, Read, Result, Write};
use std::path::Path;

/// More than any package this project unpacks holds.
const UNPACKED_MAX: usize = 512 * 1024 * 1024;

/// Collects what a decompressor writes, up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(damaged("the package unpacks to more than is sensible"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}

/// Unpacks those files of the package `deb` that `keep` wants (by their path in the package) into
/// the directory `into`.
pub fn unpack(deb: &Path, into: &Path, keep: &dyn Fn(&Path) -> bool) -> Result<()> {
    let mut archive = ar::Archive::new(BufReader::new(File::open(deb)?));
    while let Some(member) = archive.next_entry() {
        let mut member = member?;
        let name = String::from_utf8_lossy(member.header().identifier()).into_owned();
        if let Some(compression) = name.strip_prefix("data.tar") {
            let files = decompress(compression, &mut member)?;
            return unpack_files(&files, into, keep);
        }
    }
    Err(damaged("the package has no data"))
}

fn decompress(compression: &str, packed: &mut impl Read) -> Result<Vec<u8>> {
    let mut out = Bounded { bytes: Vec::new(), limit: UNPACKED_MAX };
    match compression {
        "" => std::io::copy(packed, &mut out)?,
        ".gz" => std::io::copy(&mut flate2::read::GzDecoder::new(packed), &mut out)?,
        ".xz" => {
            lzma_rs::xz_decompress(&mut BufReader::new(packed), &mut out)
                .map_err(|e| damaged(e.to_string()))?;
            0
        }
        ".zst" => {
            let mut decoder =
                ruzstd::decoding::StreamingDecoder::new(packed).map_err(|e| damaged(e.to_string()))?;
            std::io::copy(&mut decoder, &mut out)?
        }
        other => return Err(damaged(format!("unknown compression {other}"))),
    };
    Ok(out.bytes)
}

/// Extracts files, directories and links that stay inside; everything else is left out.
fn unpack_files(files: &[u8], into: &Path, keep: &dyn Fn(&Path) -> bool) -> Result<()> {
    let mut archive = tar::Archive::new(Cursor::new(files));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        let inner_link = kind.is_symlink()
            && entry.link_name()?.is_some_and(|target| {
                target.components().all(|part| matches!(part, std::path::Component::Normal(_)))
            });
        let path = entry.path()?;
        let wanted = kind.is_dir() || keep(path.strip_prefix(".").unwrap_or(&path));
        if wanted && (kind.is_file() || kind.is_dir() || inner_link) {
            entry.set_preserve_permissions(false);
            entry.unpack_in(into)?;
        }
    }
    Ok(())
}
