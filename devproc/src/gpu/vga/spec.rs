//! Registers of the VGA.
//!
//! Source: IBM Personal System/2 Hardware Interface Technical Reference, "Video Subsystem"
//! (register and field names are its own).

/// Ports of the video subsystem.
pub mod port {
    /// CRT controller address register, monochrome I/O addresses.
    pub const CRTC_INDEX_MONO: u16 = 0x3b4;
    /// CRT controller data, monochrome I/O addresses.
    pub const CRTC_DATA_MONO: u16 = 0x3b5;
    /// Input status register 1 (read) and feature control (write), monochrome I/O addresses.
    pub const STATUS_1_MONO: u16 = 0x3ba;
    /// Attribute controller: address and data (write), address (read).
    pub const ATTRIBUTE: u16 = 0x3c0;
    /// Attribute controller data (read).
    pub const ATTRIBUTE_DATA_READ: u16 = 0x3c1;
    /// Miscellaneous output (write), input status register 0 (read).
    pub const MISC_OUTPUT_WRITE: u16 = 0x3c2;
    /// Video subsystem enable.
    pub const VIDEO_ENABLE: u16 = 0x3c3;
    /// Sequencer address register.
    pub const SEQUENCER_INDEX: u16 = 0x3c4;
    /// Sequencer data.
    pub const SEQUENCER_DATA: u16 = 0x3c5;
    /// PEL mask.
    pub const PEL_MASK: u16 = 0x3c6;
    /// PEL address, read mode (write); DAC state (read).
    pub const PEL_READ_INDEX: u16 = 0x3c7;
    /// PEL address, write mode.
    pub const PEL_WRITE_INDEX: u16 = 0x3c8;
    /// PEL data.
    pub const PEL_DATA: u16 = 0x3c9;
    /// Feature control (read).
    pub const FEATURE_CONTROL_READ: u16 = 0x3ca;
    /// Miscellaneous output (read).
    pub const MISC_OUTPUT_READ: u16 = 0x3cc;
    /// Graphics controller address register.
    pub const GRAPHICS_INDEX: u16 = 0x3ce;
    /// Graphics controller data.
    pub const GRAPHICS_DATA: u16 = 0x3cf;
    /// CRT controller address register, colour I/O addresses.
    pub const CRTC_INDEX_COLOR: u16 = 0x3d4;
    /// CRT controller data, colour I/O addresses.
    pub const CRTC_DATA_COLOR: u16 = 0x3d5;
    /// Input status register 1 (read) and feature control (write), colour I/O addresses.
    pub const STATUS_1_COLOR: u16 = 0x3da;
}

/// Miscellaneous output register.
pub mod misc {
    /// I/O address select: CRTC and status 1 at 3Dx instead of 3Bx.
    pub const IO_SELECT: u8 = 1 << 0;
    /// Display memory answers the CPU.
    pub const ENABLE_RAM: u8 = 1 << 1;
    /// Clock select field.
    pub const CLOCK_SELECT: u8 = 0b11 << 2;
    /// Clock select: 28.322 MHz.
    pub const CLOCK_28_MHZ: u8 = 0b01 << 2;
    /// Implemented bits. Bit 5 (page bit, diagnostic use) is kept without effect.
    pub const MASK: u8 = 0xef;
}

/// Input status register 0.
pub mod status_0 {
    /// Switch sense: a monitor loads the DAC outputs.
    pub const SWITCH_SENSE: u8 = 1 << 4;
    /// CRT interrupt: a vertical retrace began since the interrupt was cleared.
    pub const CRT_INTERRUPT: u8 = 1 << 7;
}

/// Input status register 1.
pub mod status_1 {
    /// Display enable (inverted): horizontal or vertical blanking.
    pub const DISPLAY_DISABLED: u8 = 1 << 0;
    /// Vertical retrace.
    pub const VERTICAL_RETRACE: u8 = 1 << 3;
}

/// Video subsystem enable register: answer the CPU.
pub const VIDEO_ENABLE_BIT: u8 = 1 << 0;
/// Implemented bits of the feature control register.
pub const FEATURE_CONTROL_MASK: u8 = 0x0b;

/// Sequencer registers.
pub mod sequencer {
    /// Reset.
    pub const RESET: usize = 0;
    /// Clocking mode.
    pub const CLOCKING_MODE: usize = 1;
    /// Map mask.
    pub const MAP_MASK: usize = 2;
    /// Character map select.
    pub const CHARACTER_MAP_SELECT: usize = 3;
    /// Memory mode.
    pub const MEMORY_MODE: usize = 4;
    /// Number of registers.
    pub const COUNT: usize = 5;
    /// Implemented bits of the address register.
    pub const INDEX_MASK: u8 = 0x07;
    /// Implemented bits of each register.
    pub const MASKS: [u8; COUNT] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e];

    /// Reset: both reset bits off, the sequencer runs.
    pub const RUN: u8 = 0b11;
    /// Clocking mode: characters are 8 dots wide, not 9.
    pub const EIGHT_DOTS: u8 = 1 << 0;
    /// Clocking mode: the dot clock is halved (320 and 360 dots a line).
    pub const DOT_CLOCK_HALF: u8 = 1 << 3;
    /// Clocking mode: screen off.
    pub const SCREEN_OFF: u8 = 1 << 5;
    /// Memory mode: odd/even addressing is *off*.
    pub const SEQUENTIAL: u8 = 1 << 2;
    /// Memory mode: chain 4.
    pub const CHAIN_4: u8 = 1 << 3;
}

/// CRT controller registers.
pub mod crtc {
    /// Horizontal total, minus 5.
    pub const HORIZONTAL_TOTAL: usize = 0x00;
    /// Horizontal display-enable end, minus 1.
    pub const HORIZONTAL_DISPLAY_END: usize = 0x01;
    /// Vertical total, minus 2.
    pub const VERTICAL_TOTAL: usize = 0x06;
    /// Overflow: high bits of the vertical registers.
    pub const OVERFLOW: usize = 0x07;
    /// Preset row scan.
    pub const PRESET_ROW_SCAN: usize = 0x08;
    /// Maximum scan line.
    pub const MAXIMUM_SCAN_LINE: usize = 0x09;
    /// Cursor start.
    pub const CURSOR_START: usize = 0x0a;
    /// Cursor end.
    pub const CURSOR_END: usize = 0x0b;
    /// Start address, high byte.
    pub const START_ADDRESS_HIGH: usize = 0x0c;
    /// Start address, low byte.
    pub const START_ADDRESS_LOW: usize = 0x0d;
    /// Cursor location, high byte.
    pub const CURSOR_LOCATION_HIGH: usize = 0x0e;
    /// Cursor location, low byte.
    pub const CURSOR_LOCATION_LOW: usize = 0x0f;
    /// Vertical retrace start.
    pub const VERTICAL_RETRACE_START: usize = 0x10;
    /// Vertical retrace end, interrupt control, write protection.
    pub const VERTICAL_RETRACE_END: usize = 0x11;
    /// Vertical display-enable end, minus 1.
    pub const VERTICAL_DISPLAY_END: usize = 0x12;
    /// Offset: half the memory addresses from one row to the next.
    pub const OFFSET: usize = 0x13;
    /// Underline location.
    pub const UNDERLINE_LOCATION: usize = 0x14;
    /// CRT mode control.
    pub const MODE_CONTROL: usize = 0x17;
    /// Line compare.
    pub const LINE_COMPARE: usize = 0x18;
    /// Number of registers.
    pub const COUNT: usize = 0x19;
    /// Implemented bits of the address register.
    pub const INDEX_MASK: u8 = 0x3f;

    /// Overflow: bit 8 of vertical total.
    pub const OVERFLOW_VERTICAL_TOTAL_8: u8 = 1 << 0;
    /// Overflow: bit 8 of vertical display-enable end.
    pub const OVERFLOW_DISPLAY_END_8: u8 = 1 << 1;
    /// Overflow: bit 8 of vertical retrace start.
    pub const OVERFLOW_RETRACE_START_8: u8 = 1 << 2;
    /// Overflow: bit 8 of line compare; the only bit that write protection leaves writable.
    pub const OVERFLOW_LINE_COMPARE_8: u8 = 1 << 4;
    /// Overflow: bit 9 of vertical total.
    pub const OVERFLOW_VERTICAL_TOTAL_9: u8 = 1 << 5;
    /// Overflow: bit 9 of vertical display-enable end.
    pub const OVERFLOW_DISPLAY_END_9: u8 = 1 << 6;
    /// Overflow: bit 9 of vertical retrace start.
    pub const OVERFLOW_RETRACE_START_9: u8 = 1 << 7;
    /// Preset row scan: starting row scan count.
    pub const PRESET_ROW_MASK: u8 = 0x1f;
    /// Preset row scan: shift of the byte panning field (2 bits).
    pub const BYTE_PANNING_SHIFT: u8 = 5;
    /// Maximum scan line: rows of a character, minus 1.
    pub const MAXIMUM_SCAN_LINE_MASK: u8 = 0x1f;
    /// Maximum scan line: bit 9 of line compare.
    pub const LINE_COMPARE_9: u8 = 1 << 6;
    /// Maximum scan line: 200 to 400 line conversion (every line twice).
    pub const DOUBLE_SCAN: u8 = 1 << 7;
    /// Cursor start: cursor off.
    pub const CURSOR_OFF: u8 = 1 << 5;
    /// Cursor start and end: row scan field.
    pub const CURSOR_ROW_MASK: u8 = 0x1f;
    /// Cursor end: shift of the skew field (2 bits).
    pub const CURSOR_SKEW_SHIFT: u8 = 5;
    /// Vertical retrace end: low bits of the line where retrace ends.
    pub const RETRACE_END_MASK: u8 = 0x0f;
    /// Vertical retrace end: 0 clears the vertical interrupt and holds it cleared.
    pub const CLEAR_INTERRUPT_N: u8 = 1 << 4;
    /// Vertical retrace end: registers 0 to 7 are write protected.
    pub const PROTECT: u8 = 1 << 7;
    /// Last register under write protection.
    pub const LAST_PROTECTED: usize = 0x07;
    /// Underline location: row scan of the underline.
    pub const UNDERLINE_ROW_MASK: u8 = 0x1f;
    /// Underline location: the address counter is clocked every fourth character.
    pub const COUNT_BY_4: u8 = 1 << 5;
    /// Underline location: doubleword addresses.
    pub const DOUBLEWORD: u8 = 1 << 6;
    /// Mode control: *clear* replaces address bit 13 by row scan bit 0.
    pub const ROW_SCAN_0_OFF: u8 = 1 << 0;
    /// Mode control: *clear* replaces address bit 14 by row scan bit 1.
    pub const ROW_SCAN_1_OFF: u8 = 1 << 1;
    /// Mode control: the vertical counter is clocked every second line.
    pub const VERTICAL_HALF: u8 = 1 << 2;
    /// Mode control: the address counter is clocked every second character.
    pub const COUNT_BY_2: u8 = 1 << 3;
    /// Mode control: address bit 15, not 13, wraps into bit 0 in word mode.
    pub const ADDRESS_WRAP: u8 = 1 << 5;
    /// Mode control: byte addresses, not word addresses.
    pub const BYTE_MODE: u8 = 1 << 6;
    /// Mode control: retraces are generated.
    pub const RETRACE_ENABLE: u8 = 1 << 7;
}

/// Graphics controller registers.
pub mod graphics {
    /// Set/reset.
    pub const SET_RESET: usize = 0;
    /// Enable set/reset.
    pub const ENABLE_SET_RESET: usize = 1;
    /// Color compare.
    pub const COLOR_COMPARE: usize = 2;
    /// Data rotate.
    pub const DATA_ROTATE: usize = 3;
    /// Read map select.
    pub const READ_MAP_SELECT: usize = 4;
    /// Graphics mode.
    pub const MODE: usize = 5;
    /// Miscellaneous.
    pub const MISCELLANEOUS: usize = 6;
    /// Color don't care (bits that are compared).
    pub const COLOR_DONT_CARE: usize = 7;
    /// Bit mask.
    pub const BIT_MASK: usize = 8;
    /// Number of registers.
    pub const COUNT: usize = 9;
    /// Implemented bits of the address register.
    pub const INDEX_MASK: u8 = 0x0f;
    /// Implemented bits of each register.
    pub const MASKS: [u8; COUNT] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff];

    /// Data rotate: rotate count.
    pub const ROTATE_MASK: u8 = 0x07;
    /// Data rotate: shift of the function select field (2 bits).
    pub const FUNCTION_SHIFT: u8 = 3;
    /// Mode: write mode.
    pub const WRITE_MODE_MASK: u8 = 0x03;
    /// Mode: read mode 1 (color compare).
    pub const READ_MODE_1: u8 = 1 << 3;
    /// Mode: odd/even addressing of reads.
    pub const ODD_EVEN: u8 = 1 << 4;
    /// Mode: interleaved shift registers (CGA graphics).
    pub const SHIFT_INTERLEAVE: u8 = 1 << 5;
    /// Mode: 256-colour shift registers.
    pub const SHIFT_256: u8 = 1 << 6;
    /// Miscellaneous: graphics mode, not alphanumeric.
    pub const GRAPHICS_MODE: u8 = 1 << 0;
    /// Miscellaneous: address bit 0 selects the plane, and is replaced in the address.
    pub const CHAIN_ODD_EVEN: u8 = 1 << 1;
    /// Miscellaneous: shift of the memory map field (2 bits).
    pub const MEMORY_MAP_SHIFT: u8 = 2;
    /// Memory map 0: 128 KiB at A0000h.
    pub const MAP_A0000_128K: u8 = 0;
    /// Memory map 1: 64 KiB at A0000h.
    pub const MAP_A0000_64K: u8 = 1;
    /// Memory map 2: 32 KiB at B0000h (3 is the same at B8000h).
    pub const MAP_B0000_32K: u8 = 2;
}

/// Attribute controller registers.
pub mod attribute {
    /// Number of palette registers (at 0).
    pub const PALETTE_COUNT: usize = 16;
    /// Attribute mode control.
    pub const MODE_CONTROL: usize = 0x10;
    /// Color plane enable.
    pub const COLOR_PLANE_ENABLE: usize = 0x12;
    /// Horizontal PEL panning.
    pub const PEL_PANNING: usize = 0x13;
    /// Color select.
    pub const COLOR_SELECT: usize = 0x14;
    /// Number of registers.
    pub const COUNT: usize = 0x15;
    /// Address register: index field.
    pub const INDEX_MASK: u8 = 0x1f;
    /// Address register: palette address source; 0 blanks the screen.
    pub const PALETTE_ADDRESS_SOURCE: u8 = 1 << 5;
    /// Implemented bits of a palette register.
    pub const PALETTE_MASK: u8 = 0x3f;
    /// Implemented bits of the registers after the palette.
    pub const MASKS: [u8; COUNT - PALETTE_COUNT] = [0xef, 0xff, 0x3f, 0x0f, 0x0f];

    /// Mode control: the ninth dot of line graphics characters repeats the eighth.
    pub const LINE_GRAPHICS: u8 = 1 << 2;
    /// Mode control: attribute bit 7 blinks instead of intensifying the background.
    pub const BLINK: u8 = 1 << 3;
    /// Mode control: the part below line compare does not pan.
    pub const PANNING_COMPATIBILITY: u8 = 1 << 5;
    /// Mode control: palette bits 4 and 5 come from color select.
    pub const PALETTE_SIZE_SELECT: u8 = 1 << 7;
    /// Color plane enable: the plane bits.
    pub const PLANES_MASK: u8 = 0x0f;
}

/// DAC state register: the PEL address was last written for writing.
pub const DAC_STATE_WRITE: u8 = 0b00;
/// DAC state register: the PEL address was last written for reading.
pub const DAC_STATE_READ: u8 = 0b11;
/// Value bits of a DAC component with 6-bit converters.
pub const DAC_6_BIT_MASK: u8 = 0x3f;

/// Base of the legacy display memory window.
pub const WINDOW_A_BASE: u64 = 0xa_0000;
/// Length of the part at A0000h.
pub const WINDOW_A_LEN: u64 = 0x1_0000;
/// Base of the monochrome text window.
pub const WINDOW_B0_BASE: u64 = 0xb_0000;
/// Base of the colour text window.
pub const WINDOW_B8_BASE: u64 = 0xb_8000;
/// Length of each of the two text windows.
pub const WINDOW_B_LEN: u64 = 0x8000;

/// Planes (maps) of the display memory.
pub const PLANES: usize = 4;
/// Bytes of a plane that the VGA itself reaches.
pub const PLANE_LEN: usize = 0x1_0000;
/// Bytes of display memory that the VGA itself reaches.
pub const LEGACY_VRAM_LEN: usize = PLANES * PLANE_LEN;
/// Bytes of a character in a font (only as many as the character height are shown).
pub const FONT_BYTES_PER_CHARACTER: usize = 32;
/// Bytes of a font of 256 characters.
pub const FONT_LEN: usize = 256 * FONT_BYTES_PER_CHARACTER;
/// Plane that holds the fonts.
pub const FONT_PLANE: usize = 2;

/// Dot clock 0.
pub const CLOCK_25_HZ: u64 = 25_175_000;
/// Dot clock 1.
pub const CLOCK_28_HZ: u64 = 28_322_000;
