//! The tiny system ROM: power-on code and just enough of the interrupt services.

pub mod floppy;
pub mod keyboard;
pub mod post;
pub mod timer;
pub mod video;
