//! Registers of the 8259A and of the PIIX4 edge/level control; no behaviour.
//!
//! Names are those of the Intel 8259A datasheet ("Programming the 8259A") and of the
//! 82371AB (PIIX4) datasheet, section 4.2 (interrupt controller registers).

use bitfield_struct::bitfield;

/// First port of the master controller (IRQ 0-7).
pub const MASTER_BASE: u16 = 0x20;
/// First port of the slave controller (IRQ 8-15).
pub const SLAVE_BASE: u16 = 0xa0;
/// Ports of one controller.
pub const CONTROLLER_PORTS: u16 = 2;
/// ELCR1 (IRQ 0-7); ELCR2 (IRQ 8-15) follows.
pub const ELCR_BASE: u16 = 0x4d0;
/// Edge/level control registers.
pub const ELCR_PORTS: u16 = 2;

/// Address line A0 = 0: ICW1, OCW2 and OCW3 are written here; IRR, ISR and poll data are read.
pub const COMMAND_OFFSET: u64 = 0;
/// Address line A0 = 1: ICW2-4 and OCW1 are written here, the interrupt mask is read.
pub const DATA_OFFSET: u64 = 1;

/// Inputs of one controller.
pub const LEVELS: u8 = 8;
/// The level that a controller reports when a request vanished before INTA.
pub const SPURIOUS_LEVEL: u8 = 7;
/// The master input that the slave's INT output is wired to.
pub const CASCADE_LEVEL: u8 = 2;
/// Lowest-priority level after ICW1.
pub const INITIAL_LOWEST_LEVEL: u8 = 7;

/// Bits of ICW2 that are the vector base (T7-T3); the level takes the place of the others.
pub const ICW2_VECTOR_BASE: u8 = 0b1111_1000;

/// IRQ 0, 1 and 2 are always edge-triggered (ELCR1 bits 2-0 are reserved).
pub const ELCR1_WRITABLE: u8 = 0b1111_1000;
/// IRQ 8 and 13 are always edge-triggered (ELCR2 bits 0 and 5 are reserved).
pub const ELCR2_WRITABLE: u8 = 0b1101_1110;

/// Poll data bit 7: an interrupt was pending and its level is in bits 2-0.
pub const POLL_INTERRUPT: u8 = 1 << 7;

/// Initialization command word 1: starts the initialization sequence.
#[bitfield(u8)]
pub struct Icw1 {
    /// IC4: ICW4 follows.
    pub icw4_needed: bool,
    /// SNGL: no ICW3 follows. The PIIX4 requires 0.
    pub single: bool,
    /// ADI: call address interval of the MCS-80 mode; ignored.
    pub address_interval_4: bool,
    /// LTIM: level triggered. Without function in the PIIX4, where the ELCR decides.
    pub level_triggered: bool,
    /// Set in ICW1, clear in OCW2 and OCW3.
    pub is_icw1: bool,
    /// A7-A5 of the MCS-80 mode; ignored.
    #[bits(3)]
    pub mcs80_address: u8,
}

/// Initialization command word 4.
#[bitfield(u8)]
pub struct Icw4 {
    /// uPM: 8086 mode (the only one that works with an x86 CPU).
    pub mode_8086: bool,
    /// AEOI: end of interrupt with the acknowledge.
    pub auto_eoi: bool,
    /// M/S in buffered mode; without effect in the PIIX4.
    pub buffered_master: bool,
    /// BUF: buffered mode; without effect in the PIIX4.
    pub buffered: bool,
    /// SFNM: special fully nested mode.
    pub special_fully_nested: bool,
    /// Reserved.
    #[bits(3)]
    pub reserved: u8,
}

/// Operation command word 2: end of interrupt and rotation.
#[bitfield(u8)]
pub struct Ocw2 {
    /// L2-L0: level for the specific commands.
    #[bits(3)]
    pub level: u8,
    /// Which command word this is: 00b for OCW2, see [`Ocw3::is_ocw3`].
    #[bits(2)]
    pub selector: u8,
    /// R, SL and EOI: one of the `OCW2_*` commands.
    #[bits(3)]
    pub command: u8,
}

/// Clears rotation in automatic EOI mode.
pub const OCW2_CLEAR_ROTATE_IN_AUTO_EOI: u8 = 0b000;
/// Non-specific EOI: ends the in-service interrupt of highest priority.
pub const OCW2_NON_SPECIFIC_EOI: u8 = 0b001;
/// No operation.
pub const OCW2_NO_OPERATION: u8 = 0b010;
/// Specific EOI: ends the given level.
pub const OCW2_SPECIFIC_EOI: u8 = 0b011;
/// Sets rotation in automatic EOI mode.
pub const OCW2_SET_ROTATE_IN_AUTO_EOI: u8 = 0b100;
/// Non-specific EOI; the ended level gets the lowest priority.
pub const OCW2_ROTATE_ON_NON_SPECIFIC_EOI: u8 = 0b101;
/// Gives the given level the lowest priority.
pub const OCW2_SET_PRIORITY: u8 = 0b110;
/// Specific EOI; the level gets the lowest priority.
pub const OCW2_ROTATE_ON_SPECIFIC_EOI: u8 = 0b111;

/// Operation command word 3: what the next read means, and special mask mode.
#[bitfield(u8)]
pub struct Ocw3 {
    /// RIS: with `read_register`, 1 selects the ISR and 0 the IRR for reads.
    pub read_isr: bool,
    /// RR: `read_isr` is valid.
    pub read_register: bool,
    /// P: the next read is a poll.
    pub poll: bool,
    /// Set in OCW3, clear in OCW2.
    pub is_ocw3: bool,
    /// Clear in OCW2 and OCW3.
    pub is_icw1: bool,
    /// SMM: with `special_mask_enable`, the new special mask mode.
    pub special_mask: bool,
    /// ESMM: `special_mask` is valid.
    pub special_mask_enable: bool,
    /// Must be 0.
    pub reserved: bool,
}
