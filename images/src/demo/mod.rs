//! The built-in demo: a tiny system ROM with a demo guest in it, and two floppies.
//!
//! The build script assembles all of it from the sources in `images/demo/`, so that it needs
//! nothing else on the machine.

#[cfg(test)]
mod tests;

/// Size of a 1.44 MB floppy image.
pub const FLOPPY_BYTES: usize = 2880 * 512;

/// Accesses that the floppy of [`bench_floppy`] makes for each of its measurements.
pub const BENCH_TURNS: u32 = include!(concat!(env!("OUT_DIR"), "/bench_turns.rs"));

static ROM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo_rom.bin"));
static DEMO_FLOPPY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/demo_floppy.bin"));
static CPUTEST_FLOPPY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cputest_floppy.bin"));
static BENCH_FLOPPY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bench_floppy.bin"));

/// The 64 KiB system ROM: its last byte belongs at FFFFFh and at FFFFFFFFh.
///
/// It boots the floppy in drive A when that has a boot sector and runs its own demo otherwise.
pub fn demo_rom() -> &'static [u8] {
    ROM
}

/// A bootable 1.44 MB floppy that greets, uses INT 10h, 12h, 13h and 16h, and echoes keys.
pub fn demo_floppy() -> Vec<u8> {
    floppy(DEMO_FLOPPY)
}

/// A bootable 1.44 MB floppy that measures port accesses at once.
///
/// It prints to the screen and to port E9h; the last line is `bench done`.
pub fn bench_floppy() -> Vec<u8> {
    floppy(BENCH_FLOPPY)
}

/// A bootable 1.44 MB floppy that tests the processor at once: what only system software sees of it.
///
/// It prints a line for each case to port E9h, COM1 and the screen; the last line is `CPUTEST n passed, m failed`.
pub fn cputest_floppy() -> Vec<u8> {
    floppy(CPUTEST_FLOPPY)
}

/// A 1.44 MB floppy without a boot sector, for the demo's page that reads one: the ROM runs its
/// own demo with it in the drive.
pub fn data_floppy() -> Vec<u8> {
    let text = b"This is sector 0 of the floppy in drive A, read by the demo guest through the 82077AA \
        floppy controller, DMA channel 2 and IRQ 6 of a virtual PC whose devices are processes.";
    floppy(text)
}

/// The whole image: the build script keeps only its head, the rest is empty.
fn floppy(head: &[u8]) -> Vec<u8> {
    let mut image = head.to_vec();
    image.resize(FLOPPY_BYTES, 0);
    image
}
