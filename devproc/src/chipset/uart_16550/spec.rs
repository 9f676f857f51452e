//! Registers of the 16550A, named as in National Semiconductor's "PC16550D Universal
//! Asynchronous Receiver/Transmitter with FIFOs" datasheet, section 8.

/// Ports of one UART.
pub const PORT_COUNT: u16 = 8;

/// RBR (read), THR (write), DLL (divisor latch access).
pub const DATA: u64 = 0;
/// IER, DLM (divisor latch access).
pub const IER: u64 = 1;
/// IIR (read), FCR (write).
pub const IIR_FCR: u64 = 2;
/// Line control.
pub const LCR: u64 = 3;
/// Modem control.
pub const MCR: u64 = 4;
/// Line status.
pub const LSR: u64 = 5;
/// Modem status.
pub const MSR: u64 = 6;
/// Scratch.
pub const SCR: u64 = 7;

/// IER bit 0: received data available.
pub const IER_ERBFI: u8 = 1 << 0;
/// IER bit 1: transmitter holding register empty.
pub const IER_ETBEI: u8 = 1 << 1;
/// IER bit 2: receiver line status.
pub const IER_ELSI: u8 = 1 << 2;
/// IER bit 3: modem status.
pub const IER_EDSSI: u8 = 1 << 3;
/// IER: bits that keep their value.
pub const IER_WRITABLE: u8 = 0x0f;

/// IIR: nothing pending.
pub const IIR_NONE: u8 = 0x01;
/// IIR: receiver line status (highest priority).
pub const IIR_LINE_STATUS: u8 = 0x06;
/// IIR: received data available.
pub const IIR_DATA: u8 = 0x04;
/// IIR: data has waited in the FIFO for four characters.
pub const IIR_TIMEOUT: u8 = 0x0c;
/// IIR: transmitter holding register empty.
pub const IIR_THRE: u8 = 0x02;
/// IIR: modem status (lowest priority).
pub const IIR_MODEM: u8 = 0x00;
/// IIR bits 7-6: FIFOs are enabled.
pub const IIR_FIFOS: u8 = 0xc0;

/// FCR bit 0: enable the FIFOs.
pub const FCR_ENABLE: u8 = 1 << 0;
/// FCR bit 1: empty the receiver FIFO.
pub const FCR_CLEAR_RX: u8 = 1 << 1;
/// FCR bits 7-6: trigger level.
pub const FCR_TRIGGER_SHIFT: u32 = 6;
/// Trigger level by FCR bits 7-6.
pub const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];
/// FCR: bits that keep their value (mode bit, trigger level, enable).
pub const FCR_KEPT: u8 = 0xc9;

/// LCR bits 1-0: word length less five.
pub const LCR_WLS: u8 = 0x03;
/// LCR bit 2: one and a half or two stop bits.
pub const LCR_STB: u8 = 1 << 2;
/// LCR bit 3: parity bit.
pub const LCR_PEN: u8 = 1 << 3;
/// LCR bit 6: hold the line at space.
pub const LCR_BREAK: u8 = 1 << 6;
/// LCR bit 7: divisor latch access.
pub const LCR_DLAB: u8 = 1 << 7;

/// MCR bit 0: data terminal ready.
pub const MCR_DTR: u8 = 1 << 0;
/// MCR bit 1: request to send.
pub const MCR_RTS: u8 = 1 << 1;
/// MCR bit 2: user output 1.
pub const MCR_OUT1: u8 = 1 << 2;
/// MCR bit 3: user output 2; on a PC it connects the interrupt to the bus.
pub const MCR_OUT2: u8 = 1 << 3;
/// MCR bit 4: loopback.
pub const MCR_LOOP: u8 = 1 << 4;
/// MCR: bits that keep their value.
pub const MCR_WRITABLE: u8 = 0x1f;

/// LSR bit 0: data ready.
pub const LSR_DR: u8 = 1 << 0;
/// LSR bit 1: overrun.
pub const LSR_OE: u8 = 1 << 1;
/// LSR bit 3: framing error.
pub const LSR_FE: u8 = 1 << 3;
/// LSR bit 4: break.
pub const LSR_BI: u8 = 1 << 4;
/// LSR bits 4-1: errors, cleared by reading; each is an interrupt cause.
pub const LSR_ERRORS: u8 = 0x1e;
/// LSR bits 4-2: errors that belong to a character.
pub const LSR_CHARACTER_ERRORS: u8 = 0x1c;
/// LSR bit 5: transmitter holding register empty.
pub const LSR_THRE: u8 = 1 << 5;
/// LSR bit 6: transmitter empty.
pub const LSR_TEMT: u8 = 1 << 6;
/// LSR bit 7: an error in the receiver FIFO.
pub const LSR_FIFO_ERROR: u8 = 1 << 7;

/// MSR bits 3-0: changes since the last read; bit 2 only notes RI going away.
pub const MSR_DELTAS: u8 = 0x0f;
/// MSR bit 4: clear to send.
pub const MSR_CTS: u8 = 1 << 4;
/// MSR bit 5: data set ready.
pub const MSR_DSR: u8 = 1 << 5;
/// MSR bit 6: ring indicator.
pub const MSR_RI: u8 = 1 << 6;
/// MSR bit 7: data carrier detect.
pub const MSR_DCD: u8 = 1 << 7;
/// Distance between a line's bit and its delta.
pub const MSR_DELTA_SHIFT: u32 = 4;

/// Characters in each FIFO.
pub const FIFO_LEN: usize = 16;
/// Characters after which waiting data is reported.
pub const TIMEOUT_CHARACTERS: u64 = 4;
/// Frequency of the crystal, and how many of its periods a bit takes for divisor 1.
pub const CRYSTAL_HZ: u64 = 1_843_200;
/// See [`CRYSTAL_HZ`].
pub const CLOCKS_PER_BIT: u64 = 16;
/// Divisor after power-on: 9600 baud (the datasheet leaves it undefined).
pub const DIVISOR_DEFAULT: u16 = 12;
