//! Ports, commands and bits of the chips that the ROM and the demo guest program.

/// 8259A interrupt controllers.
pub mod pic {
    pub const MASTER: i32 = 0x20;
    pub const MASTER_MASK: i32 = 0x21;
    pub const SLAVE: i32 = 0xA0;
    pub const SLAVE_MASK: i32 = 0xA1;
    /// Edge triggered, cascaded, ICW4 follows.
    pub const ICW1: i32 = 0x11;
    pub const MASTER_VECTOR: i32 = 0x08;
    pub const SLAVE_VECTOR: i32 = 0x70;
    /// The slave hangs on IR2 of the master.
    pub const ICW3_MASTER: i32 = 0x04;
    pub const ICW3_SLAVE: i32 = 0x02;
    /// 8086 mode, normal end of interrupt.
    pub const ICW4: i32 = 0x01;
    pub const EOI: i32 = 0x20;
    /// Timer, keyboard, cascade and floppy enabled.
    pub const MASTER_ENABLED: i32 = 0b1011_1000;
    pub const NONE_ENABLED: i32 = 0xFF;
}

/// 8254 timer and the port that gates its counter 2.
pub mod pit {
    pub const COUNTER_0: i32 = 0x40;
    pub const COUNTER_2: i32 = 0x42;
    pub const CONTROL: i32 = 0x43;
    /// Counter 0, both bytes, square wave.
    pub const COUNTER_0_SQUARE: i32 = 0x36;
    /// Counter 2, both bytes, interrupt on terminal count.
    pub const COUNTER_2_ONE_SHOT: i32 = 0xB0;
    /// Counter 2, low byte only, interrupt on terminal count.
    pub const COUNTER_2_LOW_BYTE: i32 = 0x90;
    /// Input clocks in 10 ms (1.193182 MHz).
    pub const TEN_MS: i32 = 11_932;
    pub const SYSTEM_CONTROL: i32 = 0x61;
    pub const GATE_2: i32 = 0x01;
    pub const SPEAKER: i32 = 0x02;
    pub const OUT_2: i32 = 0x20;
}

/// 8237A DMA controllers and their page registers.
pub mod dma {
    pub const CHANNEL_2_ADDRESS: i32 = 0x04;
    pub const CHANNEL_2_COUNT: i32 = 0x05;
    pub const MASK: i32 = 0x0A;
    pub const MODE: i32 = 0x0B;
    pub const CLEAR_FLIP_FLOP: i32 = 0x0C;
    pub const MASTER_CLEAR: i32 = 0x0D;
    pub const CHANNEL_2_PAGE: i32 = 0x81;
    pub const MASK_CHANNEL_2: i32 = 0x06;
    pub const UNMASK_CHANNEL_2: i32 = 0x02;
    /// Single transfers, ascending, device to memory, channel 2.
    pub const CHANNEL_2_TO_MEMORY: i32 = 0x46;
    pub const SECOND_MASK: i32 = 0xD4;
    pub const SECOND_MODE: i32 = 0xD6;
    pub const SECOND_MASTER_CLEAR: i32 = 0xDA;
    /// Channel 4 carries the first controller.
    pub const CASCADE: i32 = 0xC0;
    /// Page register that no channel uses; POST codes are written to it.
    pub const POST_CODE: i32 = 0x80;
}

/// 8042 keyboard controller and the keyboard behind it.
pub mod kbc {
    pub const DATA: i32 = 0x60;
    pub const STATUS: i32 = 0x64;
    pub const COMMAND: i32 = 0x64;
    pub const OUTPUT_FULL: i32 = 0x01;
    pub const INPUT_FULL: i32 = 0x02;
    pub const SELF_TEST: i32 = 0xAA;
    pub const SELF_TEST_PASSED: i32 = 0x55;
    pub const ENABLE_KEYBOARD: i32 = 0xAE;
    pub const WRITE_COMMAND_BYTE: i32 = 0x60;
    /// Keyboard interrupt, system flag, mouse off, translation to scan code set 1.
    pub const COMMAND_BYTE: i32 = 0x65;
    pub const KEYBOARD_ENABLE_SCANNING: i32 = 0xF4;
}

/// MC146818 clock and CMOS memory.
pub mod cmos {
    pub const INDEX: i32 = 0x70;
    pub const DATA: i32 = 0x71;
    pub const SECONDS: i32 = 0x00;
    pub const MINUTES: i32 = 0x02;
    pub const HOURS: i32 = 0x04;
    pub const STATUS_A: i32 = 0x0A;
    pub const UPDATE_IN_PROGRESS: i32 = 0x80;
    /// Memory above 16 MiB in units of 64 KiB, low and high byte.
    pub const ABOVE_16M_LOW: i32 = 0x34;
    pub const ABOVE_16M_HIGH: i32 = 0x35;
    /// Memory between 1 and 64 MiB in KiB, low and high byte.
    pub const EXTENDED_LOW: i32 = 0x30;
    pub const EXTENDED_HIGH: i32 = 0x31;
}

/// 82077AA floppy controller.
pub mod fdc {
    pub const DOR: i32 = 0x3F2;
    pub const MSR: i32 = 0x3F4;
    pub const DATA: i32 = 0x3F5;
    /// Data rate (write) and disk change (read).
    pub const CCR_DIR: i32 = 0x3F7;
    pub const DOR_RESET: i32 = 0x08;
    pub const DOR_IDLE: i32 = 0x0C;
    pub const DOR_MOTOR_A: i32 = 0x1C;
    pub const MSR_RQM: i32 = 0x80;
    pub const MSR_DIO: i32 = 0x40;
    pub const MSR_BUSY: i32 = 0x10;
    pub const DIR_DISK_CHANGE: i32 = 0x80;
    pub const SPECIFY: i32 = 0x03;
    /// Step rate 3 ms, head unload 240 ms; head load 2 ms, DMA.
    pub const SPECIFY_TIMES: [i32; 2] = [0xDF, 0x02];
    pub const RECALIBRATE: i32 = 0x07;
    pub const SENSE_INTERRUPT: i32 = 0x08;
    pub const SEEK: i32 = 0x0F;
    /// MFM.
    pub const READ_ID: i32 = 0x4A;
    /// Multi-track, MFM, skip deleted data.
    pub const READ_DATA: i32 = 0xE6;
    pub const SECTOR_512: i32 = 0x02;
    pub const GAP: i32 = 0x1B;
    pub const DTL_UNUSED: i32 = 0xFF;
    /// Interrupt code and equipment check of ST0; zero when the command did its work.
    pub const ST0_FAILED: i32 = 0xD0;
    pub const RATE_500K: i32 = 0;
    pub const RATE_250K: i32 = 2;
    pub const RATE_1M: i32 = 3;
}

/// VGA registers.
pub mod vga {
    pub const ATTRIBUTE: i32 = 0x3C0;
    pub const MISC: i32 = 0x3C2;
    pub const SEQUENCER: i32 = 0x3C4;
    pub const DAC_MASK: i32 = 0x3C6;
    pub const DAC_INDEX: i32 = 0x3C8;
    pub const DAC_DATA: i32 = 0x3C9;
    pub const GRAPHICS: i32 = 0x3CE;
    pub const CRTC: i32 = 0x3D4;
    pub const STATUS_1: i32 = 0x3DA;
    /// CRTC index whose bit 7 protects registers 0 to 7.
    pub const CRTC_PROTECT: i32 = 0x11;
    pub const CRTC_CURSOR_START: i32 = 0x0A;
    pub const CRTC_CURSOR_HIGH: i32 = 0x0E;
    pub const CURSOR_OFF: i32 = 0x20;
    /// Attribute address bit that gives the palette back to the display.
    pub const PALETTE_ON: i32 = 0x20;
    pub const TEXT_SEGMENT: i32 = 0xB800;
    pub const GRAPHICS_SEGMENT: i32 = 0xA000;
}

/// The debug console of emulators.
pub const DEBUG_PORT: i32 = 0xE9;
