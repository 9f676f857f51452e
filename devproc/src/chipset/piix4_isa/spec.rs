//! Registers of PIIX4 function 0, named as in the datasheet "82371AB PCI-to-ISA / IDE Xcelerator
//! (PIIX4)", sections 4.1 (configuration) and 4.2 (I/O).

/// Intel's vendor ID.
pub const VENDOR_INTEL: u16 = 0x8086;
/// Device ID of function 0.
pub const DEVICE_82371AB_ISA: u16 = 0x7110;
/// Stepping.
pub const REVISION: u8 = 0x02;
/// ISA bridge.
pub const CLASS_ISA_BRIDGE: u32 = 0x06_01_00;

/// Command register: I/O, memory and bus mastering cannot be switched off.
pub const PCICMD_DEFAULT: u16 = 0x0007;
/// Command register: special cycles and SERR# can be switched.
pub const PCICMD_WRITABLE: u16 = 0x0108;
/// Status register: fast back-to-back, medium DEVSEL timing.
pub const PCISTS_DEFAULT: u16 = 0x0280;
/// High byte of the status register: error bits cleared by writing ones.
pub const PCISTS_HIGH_CLEAR: u8 = 0x78;

/// ISA I/O recovery timer.
pub const IORT: u8 = 0x4c;
/// X-bus chip select, 16 bits.
pub const XBCS: u8 = 0x4e;
/// PIRQA# route control; B, C and D follow.
pub const PIRQRCA: u8 = 0x60;
/// Number of PIRQ lines.
pub const PIRQ_COUNT: u8 = 4;
/// Serial IRQ control.
pub const SERIRQC: u8 = 0x64;
/// Top of memory (for ISA masters).
pub const TOM: u8 = 0x69;
/// Miscellaneous status, 16 bits.
pub const MSTAT: u8 = 0x6a;
/// Motherboard device DMA control 0 and 1.
pub const MBDMA: u8 = 0x76;
/// APIC base address relocation.
pub const APICBASE: u8 = 0x80;
/// Deterministic latency control.
pub const DLC: u8 = 0x82;
/// PCI DMA configuration, 16 bits.
pub const PDMACFG: u8 = 0x90;
/// Distributed DMA slave base pointers, two of 16 bits.
pub const DDMABASE: u8 = 0x92;
/// General configuration, 32 bits.
pub const GENCFG: u8 = 0xb0;
/// Real-time clock configuration.
pub const RTCCFG: u8 = 0xcb;

/// One plain register: offset, value after reset, writable bits.
pub struct Plain(pub u8, pub u8, pub u8);

/// Registers without an effect in this model: they keep what the firmware writes.
pub const PLAIN: [Plain; 20] = [
    Plain(IORT, 0x4d, 0xff),
    Plain(XBCS, 0x03, 0xff),
    Plain(XBCS + 1, 0x00, 0x07),
    Plain(SERIRQC, 0x10, 0xff),
    Plain(TOM, 0x02, 0xfe),
    Plain(MSTAT, 0x00, 0x80),
    Plain(MBDMA, 0x04, 0x87),
    Plain(MBDMA + 1, 0x04, 0x87),
    Plain(APICBASE, 0x00, 0x7f),
    Plain(DLC, 0x00, 0x0f),
    Plain(PDMACFG, 0x00, 0xff),
    Plain(PDMACFG + 1, 0x00, 0xfc),
    Plain(DDMABASE, 0x00, 0xc0),
    Plain(DDMABASE + 1, 0x00, 0xff),
    Plain(DDMABASE + 2, 0x00, 0xc0),
    Plain(DDMABASE + 3, 0x00, 0xff),
    Plain(GENCFG, 0x00, 0x73),
    Plain(GENCFG + 1, 0x00, 0xdf),
    Plain(GENCFG + 2, 0x00, 0xff),
    Plain(GENCFG + 3, 0x00, 0xfb),
];

/// MSTAT high byte: SERR# status, cleared by writing a one.
pub const MSTAT_HIGH_CLEAR: u8 = 0x80;
/// RTCCFG after reset: RTC enabled, upper 128 bytes on, port 70h aliased.
pub const RTCCFG_DEFAULT: u8 = 0x21;
/// RTCCFG: writable bits.
pub const RTCCFG_WRITABLE: u8 = 0x3d;

/// PIRQRC bit 7: the line is routed nowhere.
pub const PIRQRC_DISABLE: u8 = 1 << 7;
/// PIRQRC bits 3-0: the ISA IRQ.
pub const PIRQRC_IRQ: u8 = 0x0f;
/// PIRQRC: writable bits.
pub const PIRQRC_WRITABLE: u8 = PIRQRC_DISABLE | PIRQRC_IRQ;
/// ISA IRQs that a PIRQ can be routed to: not 0, 1, 2, 8 and 13.
pub const ROUTABLE_IRQS: u16 = 0b1101_1110_1111_1000;

/// Reset control register (section 4.2.6).
pub const RCR_PORT: u16 = 0xcf9;
/// RCR bit 2: a 0 to 1 transition resets.
pub const RCR_RCPU: u8 = 1 << 2;
/// RCR bit 1: the reset is a hard one.
pub const RCR_SRST: u8 = 1 << 1;
/// RCR: bits that keep their value.
pub const RCR_WRITABLE: u8 = RCR_RCPU | RCR_SRST;

/// Fast A20 and INIT (section 4.2.5, "Port 92 register").
pub const PORT92: u16 = 0x92;
/// Port 92h bit 1: A20 passes.
pub const PORT92_FAST_A20: u8 = 1 << 1;
/// Port 92h bit 0: a 0 to 1 transition pulses INIT#.
pub const PORT92_FAST_INIT: u8 = 1 << 0;
/// Port 92h: bits that keep their value.
pub const PORT92_WRITABLE: u8 = PORT92_FAST_A20 | PORT92_FAST_INIT;
