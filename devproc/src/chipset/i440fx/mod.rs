//! Intel 440FX host bridge (82441FX PMC), PCI function 00:00.0, with the firmware flash.
//!
//! Source: "82440FX PCIset: 82441FX PCI and Memory Controller (PMC)" datasheet, section 3.2
//! (registers) and 4.1 (memory map). Configuration mechanism #1 itself belongs to the bus.
//!
//! What acts: the PAM registers (shadow RAM), SMRAM's DOPEN/DCLS/DLCK, and TRC (reset).
//! The other registers keep what is written to them; in particular the fixed DRAM hole is
//! not cut out of RAM, and system management mode does not exist, so G_SMRAME does nothing.
//!
//! The flash chip hangs off the ISA bridge in a real PC, but its address range below 1 MiB
//! lies behind PAM, so the same model owns it. The image is device memory: the guest reads
//! it without a trap.

mod names;
mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    Access, Backing, Device, IoError, ReadResult, Region, RegionId, Register, ResetKind, StateError, Width,
    WriteResult, Writes, load_state,
};
use crate::host::{Host, ResetRequest};
use crate::pci::{Bar, PciAddress, PciConfig, PciConfigState, PciIdentity, register};
use thiserror::Error;

/// The last bytes of a system ROM, where the CPU starts: never all zero.
const RESET_VECTOR_BYTES: usize = 16;
const BIOS_HIGH: RegionId = RegionId(0);
const BIOS_LOW: RegionId = RegionId(1);

/// Why a firmware image cannot be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("Firmware image has {len} bytes; it must have 64, 128, 256, 512 or 1024 KiB")]
pub struct FirmwareSizeError {
    /// Bytes in the image.
    pub len: usize,
}

/// The host bridge and the firmware flash.
pub struct I440fx {
    // Constant: the image in the flash chip.
    firmware: Vec<u8>,
    // Volatile state.
    config: PciConfig,
}

impl I440fx {
    /// A bridge in front of `ram_bytes` of DRAM, with `firmware` in the flash.
    ///
    /// # Errors
    /// When the image has not the size of a flash chip.
    pub fn new(ram_bytes: u64, firmware: Vec<u8>) -> Result<Self, FirmwareSizeError> {
        if !spec::FIRMWARE_SIZES.contains(&firmware.len()) {
            return Err(FirmwareSizeError { len: firmware.len() });
        }
        Ok(Self { firmware, config: configuration(ram_bytes) })
    }

    fn firmware_len(&self) -> u64 {
        self.firmware.len() as u64
    }

    fn low_len(&self) -> u64 {
        self.firmware_len().min(spec::FIRMWARE_LOW_MAX)
    }

    /// Offset in the image of a region's first byte.
    fn image_offset(&self, region: RegionId) -> Option<u64> {
        match region {
            BIOS_HIGH => Some(0),
            BIOS_LOW => Some(self.firmware_len() - self.low_len()),
            _ => None,
        }
    }

    fn publish_map(&self, host: &mut dyn Host) {
        for range in 0..2 * spec::PAM_COUNT - 1 {
            let (base, len, attributes) = self.pam_range(range);
            host.set_shadow_ram(base, len, attributes & spec::PAM_RE != 0, attributes & spec::PAM_WE != 0);
        }
        let smram = self.config.byte(spec::SMRAM);
        // DCLS keeps data out; code alone cannot be let in here, and firmware must not set both.
        let open = smram & spec::SMRAM_DOPEN != 0 && smram & spec::SMRAM_DCLS == 0;
        host.set_shadow_ram(spec::SMRAM_BASE, spec::SMRAM_LEN, open, open);
    }

    /// Base, length and attributes of PAM range 0 (F0000h) to 12 (EC000h).
    fn pam_range(&self, range: u8) -> (u32, u32, u8) {
        const PAM_FIRST: u32 = 0xc_0000;
        const PAM_STEP: u32 = 0x4000;
        const PAM0_BASE: u32 = 0xf_0000;
        const PAM0_LEN: u32 = 0x1_0000;
        if range == 0 {
            return (PAM0_BASE, PAM0_LEN, self.config.byte(spec::PAM0) >> 4);
        }
        let index = range - 1;
        let pam = self.config.byte(spec::PAM0 + 1 + index / 2);
        let attributes = if index.is_multiple_of(2) { pam & 0xf } else { pam >> 4 };
        (PAM_FIRST + PAM_STEP * u32::from(index), PAM_STEP, attributes)
    }

    /// DLCK: from the write that sets it on, DOPEN is 0 and both are read-only.
    fn apply_smram_lock(&mut self, before: u8) {
        let mut smram = self.config.byte(spec::SMRAM);
        if (before | smram) & spec::SMRAM_DLCK != 0 {
            smram = (smram | spec::SMRAM_DLCK) & !spec::SMRAM_DOPEN;
            self.config.set_byte(spec::SMRAM, smram);
        }
    }
}

/// The registers after reset and what the guest can write.
fn configuration(ram_bytes: u64) -> PciConfig {
    let identity = PciIdentity {
        vendor: spec::VENDOR_INTEL,
        device: spec::DEVICE_82441FX,
        revision: spec::REVISION,
        class: spec::CLASS_HOST_BRIDGE,
        // The chip has no subsystem ID. SeaBIOS takes the platform for the one it knows how to
        // set up only when it reads QEMU's here, so this board carries QEMU's.
        subsystem: spec::SUBSYSTEM_QEMU,
        multifunction: false,
        interrupt_pin: 0,
    };
    let mut config = PciConfig::new(identity, [Bar::None; 6], 0);
    config.preset16(register::COMMAND, spec::PCICMD_DEFAULT);
    config.allow16(register::COMMAND, spec::PCICMD_WRITABLE);
    config.preset16(register::STATUS, spec::PCISTS_DEFAULT);
    config.clear_by_one(register::STATUS + 1, spec::PCISTS_HIGH_CLEAR);
    for spec::Plain(at, value, writable) in spec::PLAIN {
        config.preset8(at, value);
        config.allow8(at, writable);
    }
    config.allow8(spec::PAM0, spec::PAM0_WRITABLE);
    for pam in 1..spec::PAM_COUNT {
        config.allow8(spec::PAM0 + pam, spec::PAM_WRITABLE);
    }
    for (row, boundary) in (0..spec::DRB_COUNT).zip(row_boundaries(ram_bytes)) {
        config.preset8(spec::DRB0 + row, boundary);
        config.allow8(spec::DRB0 + row, 0xff);
    }
    config.preset8(spec::SMRAM, spec::SMRAM_DEFAULT);
    config
        .allow8(spec::SMRAM, spec::SMRAM_DOPEN | spec::SMRAM_DCLS | spec::SMRAM_DLCK | spec::SMRAM_G_SMRAME);
    config.clear_by_one(spec::ERRSTS, spec::ERRSTS_CLEAR);
    config.allow8(spec::TRC, spec::TRC_WRITABLE);
    config
}

/// What memory sizing would have left in DRB0-7: SeaBIOS does not size the DRAM of a virtual
/// PC, so the rows are there from the start. Rows have a power-of-two size; the register's
/// highest boundary is 2040 MiB.
fn row_boundaries(ram_bytes: u64) -> [u8; spec::DRB_COUNT as usize] {
    let total = (ram_bytes / spec::DRB_UNIT).clamp(1, u64::from(u8::MAX));
    let row = total.div_ceil(u64::from(spec::DRB_COUNT)).next_power_of_two();
    std::array::from_fn(|i| (row * (i as u64 + 1)).min(total) as u8)
}

impl Device for I440fx {
    fn name(&self) -> &'static str {
        "i440fx"
    }

    fn regions(&self) -> Vec<Region> {
        let image = |id, name, end: u64, len: u64| {
            let backing = Backing { offset: self.firmware_len() - len, writable: false };
            Region::memory(id, name, end - len, len).writes(Writes::PostedLocal).backed(backing)
        };
        vec![
            image(BIOS_HIGH, "bios-high", spec::FIRMWARE_END, self.firmware_len()),
            image(BIOS_LOW, "bios-low", spec::FIRMWARE_LOW_END, self.low_len()),
        ]
    }

    fn pci_address(&self) -> Option<PciAddress> {
        Some(PciAddress::bus0(0, 0))
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn device_memory_len(&self) -> u64 {
        self.firmware_len()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        // Device memory is zero when the VM starts. Later it holds what the guest runs on, which
        // stays, even when the file has changed since: nobody writes ROM under a running guest.
        // The reset vector at the end is copied last: while it is missing, a predecessor died in
        // the middle of this copy, before any guest code ran.
        if let Some(flash) = host.device_memory().get_mut(..self.firmware.len())
            && flash.iter().rev().take(RESET_VECTOR_BYTES).all(|byte| *byte == 0)
        {
            let at = flash.len() - RESET_VECTOR_BYTES;
            flash[..at].copy_from_slice(&self.firmware[..at]);
            std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
            flash[at..].copy_from_slice(&self.firmware[at..]);
        }
        self.publish_map(host);
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let first = self.image_offset(at.region).ok_or(IoError::InvalidRegister)?;
        let start = usize::try_from(first + at.offset).map_err(|_| IoError::InvalidRegister)?;
        let bytes = host
            .device_memory()
            .get(start..start + at.width.bytes() as usize)
            .ok_or(IoError::InvalidRegister)?;
        Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte)))
    }

    fn write(&mut self, _at: Access, _value: u32, _host: &mut dyn Host) -> WriteResult {
        // The flash chip is write-protected: the cycle ends normally and changes nothing.
        Ok(())
    }

    fn config_read(&mut self, register: u8, width: Width, _host: &mut dyn Host) -> u32 {
        self.config.read(register, width)
    }

    fn config_write(&mut self, register: u8, width: Width, value: u32, host: &mut dyn Host) {
        let smram = self.config.byte(spec::SMRAM);
        let trc = self.config.byte(spec::TRC);
        self.config.write(register, width, value);
        self.apply_smram_lock(smram);
        let touched = u32::from(register)..u32::from(register) + width.bytes();
        let map = (spec::PAM0..spec::PAM0 + spec::PAM_COUNT).chain([spec::SMRAM]);
        if map.into_iter().any(|r| touched.contains(&r.into())) {
            self.publish_map(host);
        }
        let new_trc = self.config.byte(spec::TRC);
        if trc & spec::TRC_RCPU == 0 && new_trc & spec::TRC_RCPU != 0 {
            let hard = new_trc & spec::TRC_SHRE != 0;
            host.request_reset(if hard { ResetRequest::Machine } else { ResetRequest::Cpu });
        }
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        self.config.reset();
        self.publish_map(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.config.save(out);
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: PciConfigState = load_state(data)?;
        if !self.config.load(&state) {
            return Err(StateError::OutOfRange("configuration space"));
        }
        self.apply_smram_lock(0);
        Ok(())
    }
}
