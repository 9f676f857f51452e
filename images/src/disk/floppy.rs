//! Floppy sizes and empty FAT file systems on them.

use super::{DiskError, FloppyContent, Geometry, SECTOR};
use std::io::Cursor;
use std::str::FromStr;

const LABEL_BYTES: usize = 11;
/// What a label may hold besides letters and digits.
const LABEL_EXTRA: &str = " -_!#$%&'()@^`{}~";
const FLOPPY_DRIVE: u8 = 0;

/// What the parameters of a floppy size are.
struct Parameters {
    name: &'static str,
    cylinders: u32,
    heads: u32,
    sectors: u32,
    media: u8,
    root_entries: u16,
    cluster_sectors: u32,
}

macro_rules! formats {
    ($($variant:ident: $name:literal, $cylinders:literal, $heads:literal, $sectors:literal,
       $media:literal, $root:literal, $cluster:literal;)*) => {
        /// A size of floppy that PCs had.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum FloppyFormat {
            $(#[doc = concat!("The size that is called ", $name, ".")] $variant,)*
        }

        impl FloppyFormat {
            /// All of them, smallest first.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            fn parameters(self) -> Parameters {
                match self {
                    $(Self::$variant => Parameters {
                        name: $name,
                        cylinders: $cylinders,
                        heads: $heads,
                        sectors: $sectors,
                        media: $media,
                        root_entries: $root,
                        cluster_sectors: $cluster,
                    },)*
                }
            }
        }
    };
}

// Name, cylinders, heads, sectors per track, media byte, root entries, sectors per cluster (as DOS formats).
formats! {
    F160: "160K", 40, 1, 8, 0xFE, 64, 1;
    F180: "180K", 40, 1, 9, 0xFC, 64, 1;
    F320: "320K", 40, 2, 8, 0xFF, 112, 2;
    F360: "360K", 40, 2, 9, 0xFD, 112, 2;
    F720: "720K", 80, 2, 9, 0xF9, 112, 2;
    F1200: "1.2M", 80, 2, 15, 0xF9, 224, 1;
    F1440: "1.44M", 80, 2, 18, 0xF0, 224, 1;
    F2880: "2.88M", 80, 2, 36, 0xF0, 240, 2;
}

impl FloppyFormat {
    /// What it is called.
    pub fn name(self) -> &'static str {
        self.parameters().name
    }

    /// Its geometry.
    pub fn geometry(self) -> Geometry {
        let Parameters { cylinders, heads, sectors, .. } = self.parameters();
        Geometry { cylinders, heads, sectors }
    }

    /// Bytes of its image.
    pub fn bytes(self) -> u64 {
        let Geometry { cylinders, heads, sectors } = self.geometry();
        u64::from(cylinders * heads * sectors) * SECTOR
    }

    /// The floppy whose image has this many bytes.
    pub fn of_bytes(bytes: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.bytes() == bytes)
    }

    /// The names, for an error text.
    pub(super) fn names() -> String {
        Self::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for FloppyFormat {
    type Err = DiskError;

    /// Takes the names, also in bytes (`1440K`) and with a trailing `B`.
    fn from_str(text: &str) -> Result<Self, DiskError> {
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_suffix('B').unwrap_or(&upper);
        Self::ALL
            .iter()
            .copied()
            .find(|format| format.name() == name || format!("{}K", format.bytes() / 1024) == name)
            .ok_or_else(|| DiskError::FloppySize(text.to_owned()))
    }
}

/// The bytes of a new floppy.
pub(super) fn image(format: FloppyFormat, content: &FloppyContent) -> Result<Vec<u8>, DiskError> {
    let mut image = vec![0; format.bytes() as usize];
    if let FloppyContent::Fat { label } = content {
        make_file_system(&mut image, format, label.as_deref())?;
    }
    Ok(image)
}

fn make_file_system(image: &mut [u8], format: FloppyFormat, label: Option<&str>) -> Result<(), DiskError> {
    let Parameters { heads, sectors, media, root_entries, cluster_sectors, .. } = format.parameters();
    let mut options = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat12)
        .bytes_per_cluster(cluster_sectors * SECTOR as u32)
        .max_root_dir_entries(root_entries)
        .media(media)
        .sectors_per_track(sectors as u16)
        .heads(heads as u16)
        .drive_num(FLOPPY_DRIVE);
    if let Some(label) = label {
        options = options.volume_label(label_bytes(label)?);
    }
    fatfs::format_volume(Cursor::new(image), options).map_err(DiskError::Format)
}

/// A label as FAT stores it: upper case, padded with spaces.
fn label_bytes(label: &str) -> Result<[u8; LABEL_BYTES], DiskError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || LABEL_EXTRA.contains(c);
    if label.trim().is_empty()
        || label.len() > LABEL_BYTES
        || !label.chars().all(allowed)
        || label.starts_with(' ')
    {
        return Err(DiskError::Label(label.to_owned()));
    }
    let mut bytes = [b' '; LABEL_BYTES];
    for (byte, character) in bytes.iter_mut().zip(label.bytes()) {
        *byte = character.to_ascii_uppercase();
    }
    Ok(bytes)
}
