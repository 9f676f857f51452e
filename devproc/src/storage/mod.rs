//! The models of the storage process: floppy controller, IDE, disk images.

pub mod fdc_82077aa;
pub mod image;
