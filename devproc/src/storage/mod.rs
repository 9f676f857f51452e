//! The models of the storage process: floppy controller, IDE, disk images.
