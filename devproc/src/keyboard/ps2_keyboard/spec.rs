//! Commands and answers of the keyboard, named as in the IBM PS/2 Hardware Interface Technical
//! Reference, "101/102-Key Keyboard".

/// Set/Reset Status Indicators; an option byte follows.
pub const SET_LEDS: u8 = 0xed;
/// Echo.
pub const ECHO: u8 = 0xee;
/// Select Alternate Scan Codes; an option byte follows.
pub const SELECT_SCAN_CODES: u8 = 0xf0;
/// Read ID.
pub const READ_ID: u8 = 0xf2;
/// Set Typematic Rate/Delay; an option byte follows.
pub const SET_TYPEMATIC: u8 = 0xf3;
/// Enable: starts scanning.
pub const ENABLE: u8 = 0xf4;
/// Default Disable: back to defaults, stops scanning.
pub const DEFAULT_DISABLE: u8 = 0xf5;
/// Set Default: back to defaults.
pub const SET_DEFAULT: u8 = 0xf6;
/// Set All Keys - Typematic (set 3).
pub const SET_ALL_TYPEMATIC: u8 = 0xf7;
/// Set All Keys - Make/Break (set 3).
pub const SET_ALL_MAKE_BREAK: u8 = 0xf8;
/// Set All Keys - Make (set 3).
pub const SET_ALL_MAKE: u8 = 0xf9;
/// Set All Keys - Typematic/Make/Break (set 3).
pub const SET_ALL_TYPEMATIC_MAKE_BREAK: u8 = 0xfa;
/// Set Key Type - Typematic (set 3); scan codes follow.
pub const SET_KEY_TYPEMATIC: u8 = 0xfb;
/// Set Key Type - Make/Break (set 3); scan codes follow.
pub const SET_KEY_MAKE_BREAK: u8 = 0xfc;
/// Set Key Type - Make (set 3); scan codes follow.
pub const SET_KEY_MAKE: u8 = 0xfd;
/// Resend.
pub const RESEND: u8 = 0xfe;
/// Reset.
pub const RESET: u8 = 0xff;

/// The lowest byte that is a command where an option byte is expected.
pub const FIRST_COMMAND: u8 = SET_LEDS;

/// Answer: the byte was taken.
pub const ACK: u8 = 0xfa;
/// Answer: the byte made no sense, send it again.
pub const RESEND_REQUEST: u8 = 0xfe;
/// Sent when the basic assurance test (self-test) was passed.
pub const BAT_PASSED: u8 = 0xaa;
/// Answer to [`READ_ID`].
pub const ID: [u8; 2] = [0xab, 0x83];
/// In the buffer where key strokes were lost, in sets 2 and 3.
pub const OVERRUN: u8 = 0x00;
/// The same in set 1.
pub const OVERRUN_SET_1: u8 = 0xff;

/// Bits of the LED option byte.
pub const LED_MASK: u8 = 0b111;
/// Num Lock in the LED option byte.
pub const LED_NUM_LOCK: u8 = 0b010;

/// The scan code option that asks for the set in use.
pub const SCAN_CODES_QUERY: u8 = 0;

/// Typematic rate and delay after power-on: 10.9 per second after 500 ms.
pub const DEFAULT_TYPEMATIC: u8 = 0x2b;
/// Bits of the typematic option byte; the highest must be 0.
pub const TYPEMATIC_MASK: u8 = 0x7f;

/// What a full buffer holds.
pub const BUFFER_BYTES: usize = 16;

/// Duration of the self-test. The original takes at least 300 ms, which only delays boots.
pub const BAT_NANOS: u64 = 10_000_000;

/// The delay before a key repeats, by the typematic option byte: (1 + bits 5-6) * 250 ms.
pub fn typematic_delay_nanos(option: u8) -> u64 {
    (1 + u64::from(option >> 5 & 0b11)) * 250_000_000
}

/// The time between repetitions: (8 + bits 0-2) * 2^(bits 3-4) * 4.17 ms.
pub fn typematic_period_nanos(option: u8) -> u64 {
    ((8 + u64::from(option & 0b111)) << (option >> 3 & 0b11)) * 4_170_000
}
