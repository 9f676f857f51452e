//! Registers and commands of the keyboard controller, named as in the IBM PS/2 Hardware
//! Interface Technical Reference, "Keyboard and Auxiliary Device Controller".

use bitfield_struct::bitfield;

/// Data port: output buffer when read, data to a device or a command when written.
pub const DATA_PORT: u16 = 0x60;
/// Status register when read, controller command when written.
pub const COMMAND_PORT: u16 = 0x64;

/// The interrupt request of the keyboard port.
pub const KEYBOARD_IRQ: u8 = 1;
/// The interrupt request of the auxiliary port.
pub const AUX_IRQ: u8 = 12;

/// Bytes of controller RAM that the read and write commands reach.
pub const RAM_BYTES: usize = 32;
/// The RAM byte that is the controller command byte.
pub const COMMAND_BYTE: usize = 0;
/// The part of a RAM command that is the RAM address.
pub const RAM_ADDRESS_MASK: u8 = 0x1f;

/// The status register.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// OBF: the output buffer holds a byte for the system.
    pub output_buffer_full: bool,
    /// IBF: the input buffer holds a byte that the controller has not taken yet.
    pub input_buffer_full: bool,
    /// Set by the system or by a passed self-test.
    pub system_flag: bool,
    /// The last write was a command (port 64h), not data (port 60h).
    pub command: bool,
    /// The keyboard is not locked by the key switch.
    pub keyboard_unlocked: bool,
    /// The byte in the output buffer is from the auxiliary device.
    pub auxiliary_output_buffer_full: bool,
    /// A device did not answer in time.
    pub general_timeout: bool,
    /// The last byte from a device had wrong parity.
    pub parity_error: bool,
}

/// The controller command byte, RAM byte 0.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct CommandByte {
    /// IRQ1 while the output buffer holds a keyboard byte.
    pub keyboard_interrupt: bool,
    /// IRQ12 while the output buffer holds an auxiliary byte.
    pub auxiliary_interrupt: bool,
    /// Shown in the status register.
    pub system_flag: bool,
    /// Reserved; keeps what is written.
    pub reserved_3: bool,
    /// The keyboard's clock is held low.
    pub disable_keyboard: bool,
    /// The auxiliary device's clock is held low.
    pub disable_auxiliary: bool,
    /// Keyboard bytes are translated from scan code set 2 to set 1.
    pub translate: bool,
    /// Reserved; keeps what is written.
    pub reserved_7: bool,
}

/// The output port (8042 port 2).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct OutputPort {
    /// Low resets the CPU.
    pub not_reset: bool,
    /// The A20 gate is open.
    pub gate_a20: bool,
    /// Auxiliary data line.
    pub auxiliary_data: bool,
    /// Auxiliary clock line.
    pub auxiliary_clock: bool,
    /// IRQ1.
    pub keyboard_interrupt: bool,
    /// IRQ12.
    pub auxiliary_interrupt: bool,
    /// Keyboard clock line.
    pub keyboard_clock: bool,
    /// Keyboard data line.
    pub keyboard_data: bool,
}

/// Output port bits that command D1h does not set: the interrupt pins follow the output buffer.
pub const OUTPUT_PORT_INTERRUPTS: u8 = 0b0011_0000;
/// The output port after reset: an 8042 port floats high.
pub const OUTPUT_PORT_RESET: u8 = !OUTPUT_PORT_INTERRUPTS;
/// The command byte after reset and after the self-test: both devices are held.
pub const COMMAND_BYTE_RESET: CommandByte =
    CommandByte::new().with_disable_keyboard(true).with_disable_auxiliary(true);

/// The input port (8042 port 1): unlocked, colour display, no manufacturing jumper, both data
/// lines idle (high).
pub const INPUT_PORT: u8 = 0b1011_0011;
/// Test input T0 is the keyboard's clock line.
pub const TEST_INPUT_KEYBOARD_CLOCK: u8 = 1 << 0;
/// Test input T1 is the auxiliary device's clock line.
pub const TEST_INPUT_AUX_CLOCK: u8 = 1 << 1;

/// First of the commands that read controller RAM.
pub const READ_RAM: u8 = 0x20;
/// Last of the commands that read controller RAM.
pub const READ_RAM_LAST: u8 = 0x3f;
/// First of the commands that write controller RAM.
pub const WRITE_RAM: u8 = 0x60;
/// Last of the commands that write controller RAM.
pub const WRITE_RAM_LAST: u8 = 0x7f;
/// Is a password installed?
pub const TEST_PASSWORD: u8 = 0xa4;
/// Hold the auxiliary device's clock.
pub const DISABLE_AUX: u8 = 0xa7;
/// Release the auxiliary device's clock.
pub const ENABLE_AUX: u8 = 0xa8;
/// Test the auxiliary device's lines.
pub const TEST_AUX: u8 = 0xa9;
/// Controller self-test.
pub const SELF_TEST: u8 = 0xaa;
/// Test the keyboard's lines.
pub const TEST_KEYBOARD: u8 = 0xab;
/// Hold the keyboard's clock.
pub const DISABLE_KEYBOARD: u8 = 0xad;
/// Release the keyboard's clock.
pub const ENABLE_KEYBOARD: u8 = 0xae;
/// Read the input port.
pub const READ_INPUT_PORT: u8 = 0xc0;
/// Show input port bits 0-3 in status bits 4-7.
pub const POLL_INPUT_PORT_LOW: u8 = 0xc1;
/// Show input port bits 4-7 in status bits 4-7.
pub const POLL_INPUT_PORT_HIGH: u8 = 0xc2;
/// Read the output port.
pub const READ_OUTPUT_PORT: u8 = 0xd0;
/// Write the output port.
pub const WRITE_OUTPUT_PORT: u8 = 0xd1;
/// Put a byte into the output buffer as if the keyboard had sent it.
pub const WRITE_KEYBOARD_OUTPUT_BUFFER: u8 = 0xd2;
/// Put a byte into the output buffer as if the auxiliary device had sent it.
pub const WRITE_AUX_OUTPUT_BUFFER: u8 = 0xd3;
/// Send a byte to the auxiliary device.
pub const WRITE_AUX: u8 = 0xd4;
/// Close the A20 gate: not IBM's, but in most later controllers.
pub const CLOSE_GATE_A20: u8 = 0xdd;
/// Open the A20 gate: not IBM's, but in most later controllers.
pub const OPEN_GATE_A20: u8 = 0xdf;
/// Read the test inputs.
pub const READ_TEST_INPUTS: u8 = 0xe0;
/// First of the commands that pulse output port bits 0-3 low, where their own bit is 0.
pub const PULSE_OUTPUT_PORT: u8 = 0xf0;
/// The bit of a pulse command that spares the CPU's reset line.
pub const PULSE_SPARES_RESET: u8 = 1 << 0;

/// Answer to [`SELF_TEST`]: passed.
pub const SELF_TEST_PASSED: u8 = 0x55;
/// Answer to [`TEST_AUX`] and [`TEST_KEYBOARD`]: no error.
pub const TEST_PASSED: u8 = 0x00;
/// Answer to [`TEST_PASSWORD`]: none installed.
pub const PASSWORD_NOT_INSTALLED: u8 = 0xf1;
/// What the controller answers in the place of a device that does not: "resend".
pub const NO_ANSWER: u8 = 0xfe;

/// Time that a byte takes on the cable: 11 bits at the fastest clock allowed, 16.7 kHz.
///
/// Guests rely on it: an interrupt handler reads the data port and passes on to another one
/// that reads it again, and must find the same byte.
pub const FRAME_NANOS: u64 = 660_000;
/// How long the controller waits for a device that does not answer.
pub const DEVICE_TIMEOUT_NANOS: u64 = 20_000_000;
