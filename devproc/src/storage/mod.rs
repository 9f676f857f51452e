//! The models of the storage process: floppy controller, IDE, disk images.
//!
//! Both controllers exist in every machine; drives exist as the configuration says. A drive's image is
//! opened here, once, so that a wrong path or size stops the start with a message instead of
//! troubling the guest.

pub mod fdc_82077aa;
pub mod ide;
pub mod image;

use crate::device::Device;
use crate::outside::Outside;
use fdc_82077aa::{Fdc, FloppyDrive, Medium};
use ide::{Ide, IdeDrive};
use image::{BlockDevice, FloppyFormat, GeometryError, ImageError, disk_geometry};
use ipc::machine::{DriveConfig, MachineConfig};
use std::path::PathBuf;
use thiserror::Error;

/// Why the storage models cannot be built.
#[derive(Debug, Error)]
pub enum BuildError {
    /// An image cannot be opened.
    #[error("{drive}: {source}")]
    Image {
        /// The drive that it was to be in.
        drive: &'static str,
        /// What is wrong, with the file's name.
        source: ImageError,
    },
    /// An image does not fit the drive.
    #[error("{drive}: image {}: {source}", path.display())]
    Geometry {
        /// The drive that it was to be in.
        drive: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: GeometryError,
    },
}

const FLOPPY_NAMES: [&str; 2] = ["Floppy drive A", "Floppy drive B"];
const DISK_NAMES: [&str; 4] = ["Primary master", "Primary slave", "Secondary master", "Secondary slave"];
const SERIALS: [&str; 4] = ["VM00001", "VM00002", "VM00003", "VM00004"];

/// Builds the models of the storage process.
///
/// # Errors
/// [`BuildError`], which names the drive and the file and says what to do.
pub fn models(config: &MachineConfig, outside: &Outside) -> Result<Vec<Box<dyn Device>>, BuildError> {
    let floppy = |index: usize| {
        let drive = config.floppies[index].as_ref();
        drive.map(|drive| open_floppy(outside, drive, FLOPPY_NAMES[index])).transpose()
    };
    let disk = |index: usize| {
        let drive = config.disks[index].as_ref();
        drive.map(|drive| open_disk(outside, drive, DISK_NAMES[index], SERIALS[index])).transpose()
    };
    let fdc = Fdc::new([floppy(0)?, floppy(1)?]);
    let ide = Ide::new([[disk(0)?, disk(1)?], [disk(2)?, disk(3)?]]);
    Ok(vec![Box::new(fdc), Box::new(ide)])
}

fn open(
    outside: &Outside,
    config: &DriveConfig,
    drive: &'static str,
) -> Result<Box<dyn BlockDevice>, BuildError> {
    let image = outside.open_image(&config.path, config.read_only);
    image.map_err(|source| BuildError::Image { drive, source })
}

fn open_floppy(
    outside: &Outside,
    config: &DriveConfig,
    drive: &'static str,
) -> Result<FloppyDrive, BuildError> {
    let image = open(outside, config, drive)?;
    let format = FloppyFormat::of_image(image.len(), config.geometry)
        .map_err(|source| BuildError::Geometry { drive, path: config.path.clone(), source })?;
    Ok(FloppyDrive { medium: Some(Medium { image, format }) })
}

fn open_disk(
    outside: &Outside,
    config: &DriveConfig,
    drive: &'static str,
    serial: &'static str,
) -> Result<IdeDrive, BuildError> {
    let mut image = open(outside, config, drive)?;
    let geometry = disk_geometry(image.as_mut(), config.geometry).map_err(|source| BuildError::Geometry {
        drive,
        path: config.path.clone(),
        source,
    })?;
    Ok(IdeDrive::new(image, geometry, serial))
}

#[cfg(test)]
mod tests;
