//! Registers of the Bochs VBE display interface ("DISPI") and of the MMIO bar.
//!
//! Source: Bochs, "VBE Display API" (vbe_display_api.txt) for the registers; QEMU,
//! docs/specs/standard-vga.rst for the PCI identity and the layout of BAR 2.

/// Port of the index register (16 bits).
pub const INDEX_PORT: u16 = 0x1ce;
/// Port of the data register on x86 (16 bits).
pub const DATA_PORT: u16 = 0x1cf;
/// Aligned alias of the data register.
pub const DATA_PORT_ALIGNED: u16 = 0x1d0;
/// Number of ports from [`INDEX_PORT`] on.
pub const PORT_COUNT: u16 = 4;

/// Interface version; software asks for a version by writing it.
pub const ID: u16 = 0;
/// Horizontal resolution in pixels.
pub const XRES: u16 = 1;
/// Vertical resolution in pixels.
pub const YRES: u16 = 2;
/// Bits per pixel.
pub const BPP: u16 = 3;
/// Mode control, see the `ENABLE_` bits.
pub const ENABLE: u16 = 4;
/// 64 KiB bank shown at A0000h.
pub const BANK: u16 = 5;
/// Pixels from one line to the next.
pub const VIRT_WIDTH: u16 = 6;
/// Lines that fit into the display memory (read-only).
pub const VIRT_HEIGHT: u16 = 7;
/// First visible column.
pub const X_OFFSET: u16 = 8;
/// First visible line.
pub const Y_OFFSET: u16 = 9;
/// Display memory in units of 64 KiB (read-only).
pub const VIDEO_MEMORY_64K: u16 = 10;
/// Number of registers.
pub const COUNT: u16 = 11;

/// Oldest interface version.
pub const ID_FIRST: u16 = 0xb0c0;
/// Newest interface version.
pub const ID_LAST: u16 = 0xb0c5;

/// The display is driven by these registers.
pub const ENABLE_ENABLED: u16 = 1 << 0;
/// Resolution registers read as their maximum.
pub const ENABLE_GETCAPS: u16 = 1 << 1;
/// The DAC has 8 bits per component.
pub const ENABLE_8BIT_DAC: u16 = 1 << 5;
/// The linear frame buffer is wanted (it is always there).
pub const ENABLE_LFB: u16 = 1 << 6;
/// The display memory is not cleared.
pub const ENABLE_NO_CLEAR: u16 = 1 << 7;
/// Implemented bits of [`ENABLE`].
pub const ENABLE_MASK: u16 = ENABLE_ENABLED | ENABLE_GETCAPS | ENABLE_8BIT_DAC | ENABLE_LFB | ENABLE_NO_CLEAR;

/// Widest picture.
pub const MAX_XRES: u16 = 2560;
/// Highest picture.
pub const MAX_YRES: u16 = 1600;
/// Deepest pixels.
pub const MAX_BPP: u16 = 32;
/// Widths are multiples of this.
pub const WIDTH_STEP: u16 = 8;

/// Display memory.
pub const VRAM_LEN: usize = 16 << 20;
/// Length of a bank.
pub const BANK_LEN: usize = 0x1_0000;

/// BAR 2: end of the EDID area (bytes after the EDID read zero).
pub const MMIO_EDID_END: u64 = 0x400;
/// BAR 2: ports 3C0h to 3DFh.
pub const MMIO_VGA: u64 = 0x400;
/// BAR 2: end of the VGA ports.
pub const MMIO_VGA_END: u64 = 0x420;
/// BAR 2: the DISPI registers, 16 bits each.
pub const MMIO_DISPI: u64 = 0x500;
/// BAR 2: end of the DISPI registers.
pub const MMIO_DISPI_END: u64 = MMIO_DISPI + 2 * COUNT as u64;
/// BAR 2: extension registers; the first holds their length.
pub const MMIO_EXTENSION: u64 = 0x600;
/// BAR 2: byte order of the frame buffer.
pub const MMIO_BYTE_ORDER: u64 = 0x604;
/// Length of the extension registers.
pub const EXTENSION_LEN: u32 = 8;
/// Byte order register: little endian, the only one here.
pub const BYTE_ORDER_LITTLE: u32 = 0x1e1e_1e1e;
/// Length of BAR 2.
pub const MMIO_LEN: u64 = 0x1000;

/// PCI vendor ID.
pub const VENDOR: u16 = 0x1234;
/// PCI device ID.
pub const DEVICE: u16 = 0x1111;
/// PCI revision: 2 announces the extension registers and the EDID.
pub const REVISION: u8 = 2;
/// PCI class: VGA compatible display controller.
pub const CLASS: u32 = 0x03_00_00;
/// PCI subsystem vendor and ID.
pub const SUBSYSTEM: (u16, u16) = (0x1af4, 0x1100);
/// Length of the ROM bar.
pub const ROM_LEN: usize = 0x1_0000;
