//! Registers of the 8254 and of port 61h; no behaviour.
//!
//! Names are those of the Intel 8254 datasheet ("Programming the 8254") and of the 82371AB
//! (PIIX4) datasheet, section 4.2 (counter/timer registers; NMI registers, NMISC).

use bitfield_struct::bitfield;

/// Frequency of the CLK inputs: 14.31818 MHz / 12.
pub const CLOCK_HZ: u64 = 1_193_182;
/// Counters of the 8254.
pub const COUNTERS: usize = 3;
/// The counter whose OUT is wired to IRQ 0.
pub const SYSTEM_TIMER: usize = 0;
/// The counter that drives the speaker and has its gate in port 61h.
pub const SPEAKER_TONE: usize = 2;
/// The interrupt line of the system timer.
pub const TIMER_IRQ: u8 = 0;

/// First of the four 8254 ports.
pub const PIT_BASE: u16 = 0x40;
/// 8254 ports: the three counters and the control word.
pub const PIT_PORTS: u16 = 4;
/// Control word register; write only.
pub const CONTROL_OFFSET: u64 = 3;
/// NMI status and control register.
pub const NMISC_PORT: u16 = 0x61;

/// Control word: what a counter does, or a counter latch command (`access` 0).
#[bitfield(u8)]
pub struct ControlWord {
    /// BCD: count in four decades.
    pub bcd: bool,
    /// M2-M0: mode 0 to 5 (6 and 7 are 2 and 3).
    #[bits(3)]
    pub mode: u8,
    /// RW1-RW0: one of `ACCESS_*`.
    #[bits(2)]
    pub access: u8,
    /// SC1-SC0: the counter, or [`SELECT_READ_BACK`].
    #[bits(2)]
    pub select: u8,
}

/// RW = 00: counter latch command.
pub const ACCESS_LATCH: u8 = 0;
/// RW = 01: least significant byte only.
pub const ACCESS_LOW: u8 = 1;
/// RW = 10: most significant byte only.
pub const ACCESS_HIGH: u8 = 2;
/// RW = 11: least significant byte first, then most significant byte.
pub const ACCESS_BOTH: u8 = 3;
/// SC = 11: read-back command.
pub const SELECT_READ_BACK: u8 = 3;

/// Read-back command.
#[bitfield(u8)]
pub struct ReadBack {
    /// Must be 0.
    pub reserved: bool,
    /// CNT0-CNT2: which counters.
    #[bits(3)]
    pub counters: u8,
    /// STATUS#: 0 latches the status.
    pub skip_status: bool,
    /// COUNT#: 0 latches the count.
    pub skip_count: bool,
    /// SC1-SC0 = 11.
    #[bits(2)]
    pub select: u8,
}

/// Status byte that a read-back command latches.
#[bitfield(u8)]
pub struct Status {
    /// BCD as programmed.
    pub bcd: bool,
    /// M2-M0.
    #[bits(3)]
    pub mode: u8,
    /// RW1-RW0 as programmed.
    #[bits(2)]
    pub access: u8,
    /// NULL COUNT: the count last written has not reached the counting element.
    pub null_count: bool,
    /// Level of the OUT pin.
    pub out: bool,
}

/// Mode 0: interrupt on terminal count.
pub const MODE_TERMINAL_COUNT: u8 = 0;
/// Mode 1: hardware retriggerable one-shot.
pub const MODE_ONE_SHOT: u8 = 1;
/// Mode 2: rate generator.
pub const MODE_RATE_GENERATOR: u8 = 2;
/// Mode 3: square wave.
pub const MODE_SQUARE_WAVE: u8 = 3;
/// Mode 4: software triggered strobe.
pub const MODE_SOFTWARE_STROBE: u8 = 4;
/// Mode 5: hardware triggered strobe.
pub const MODE_HARDWARE_STROBE: u8 = 5;

/// States of the counting element in binary.
pub const BINARY_MODULUS: u32 = 0x1_0000;
/// States of the counting element in BCD.
pub const BCD_MODULUS: u32 = 10_000;
/// Shortest period of modes 2 and 3 (a count of 1 is illegal there).
pub const SHORTEST_PERIOD: u32 = 2;

/// Port 61h, NMI status and control (NMISC).
#[bitfield(u8)]
pub struct Nmisc {
    /// Timer counter 2 gate.
    pub gate_2: bool,
    /// Speaker data enable.
    pub speaker_data: bool,
    /// PCI SERR# NMI: 1 disables and clears.
    pub serr_disable: bool,
    /// IOCHK# NMI: 1 disables and clears.
    pub iochk_disable: bool,
    /// Refresh cycle toggle; read only.
    pub refresh_toggle: bool,
    /// OUT of counter 2; read only.
    pub out_2: bool,
    /// IOCHK# was the NMI source; read only, never set here.
    pub iochk_source: bool,
    /// SERR# was the NMI source; read only, never set here.
    pub serr_source: bool,
}

/// Bits of port 61h that a write sets.
pub const NMISC_WRITABLE: u8 = 0b0000_1111;

/// CLK periods between two refresh cycles: 15.085 us.
pub const REFRESH_TICKS: u64 = 18;
