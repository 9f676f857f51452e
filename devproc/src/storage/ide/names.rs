//! Names of the registers of the IDE controller, for traces.

use super::spec;
use crate::device::{Register, Width};
use crate::register::Field;

/// Bits of the status register.
const STATUS: &[Field] = &[
    ("ERR", spec::status::ERR as u32),
    ("DRQ", spec::status::DRQ as u32),
    ("DSC", spec::status::DSC as u32),
    ("DF", spec::status::DF as u32),
    ("DRDY", spec::status::DRDY as u32),
    ("BSY", spec::status::BSY as u32),
];

/// All of them.
pub(super) const REGISTERS: [Register; 29] = [
    Register::new(super::command_region(0), spec::reg::DATA, "IDE0_DATA").width(Width::Word),
    Register::new(super::command_region(0), spec::reg::ERROR_FEATURES, "IDE0_ERROR/FEATURES"),
    Register::new(super::command_region(0), spec::reg::SECTOR_COUNT, "IDE0_SECTOR_COUNT"),
    Register::new(super::command_region(0), spec::reg::LBA_LOW, "IDE0_LBA_LOW"),
    Register::new(super::command_region(0), spec::reg::LBA_MID, "IDE0_LBA_MID"),
    Register::new(super::command_region(0), spec::reg::LBA_HIGH, "IDE0_LBA_HIGH"),
    Register::new(super::command_region(0), spec::reg::DEVICE, "IDE0_DEVICE/HEAD").fields(&[
        ("LBA", spec::device::LBA as u32),
        ("DEV", spec::device::DEV as u32),
        ("HEAD", spec::device::HEAD as u32),
    ]),
    Register::new(super::command_region(0), spec::reg::STATUS_COMMAND, "IDE0_STATUS/COMMAND").fields(STATUS),
    Register::new(super::control_region(0), 0, "IDE0_ALTERNATE_STATUS/CONTROL").fields(STATUS),
    Register::new(super::BUS_MASTER, spec::bus_master::COMMAND, "BMICP")
        .fields(&[("SSBM", spec::bus_master::SSBM as u32), ("RWCON", spec::bus_master::RWCON as u32)]),
    Register::new(super::BUS_MASTER, spec::bus_master::STATUS, "BMISP").fields(&[
        ("BMIDEA", spec::bus_master::BMIDEA as u32),
        ("DMA_ERROR", spec::bus_master::DMA_ERROR as u32),
        ("IDEINTS", spec::bus_master::IDEINTS as u32),
        ("DMA_CAP", spec::bus_master::DMA_CAPABLE as u32),
    ]),
    Register::new(super::BUS_MASTER, spec::bus_master::TABLE, "BMIDTPP").width(Width::Dword),
    Register::config(spec::pci::IDETIM, Width::Word, "IDETIM_P")
        .fields(&[("IDE_DECODE", spec::pci::IDETIM_DECODE as u32)]),
    Register::new(super::command_region(1), spec::reg::DATA, "IDE1_DATA").width(Width::Word),
    Register::new(super::command_region(1), spec::reg::ERROR_FEATURES, "IDE1_ERROR/FEATURES"),
    Register::new(super::command_region(1), spec::reg::SECTOR_COUNT, "IDE1_SECTOR_COUNT"),
    Register::new(super::command_region(1), spec::reg::LBA_LOW, "IDE1_LBA_LOW"),
    Register::new(super::command_region(1), spec::reg::LBA_MID, "IDE1_LBA_MID"),
    Register::new(super::command_region(1), spec::reg::LBA_HIGH, "IDE1_LBA_HIGH"),
    Register::new(super::command_region(1), spec::reg::DEVICE, "IDE1_DEVICE/HEAD").fields(&[
        ("LBA", spec::device::LBA as u32),
        ("DEV", spec::device::DEV as u32),
        ("HEAD", spec::device::HEAD as u32),
    ]),
    Register::new(super::command_region(1), spec::reg::STATUS_COMMAND, "IDE1_STATUS/COMMAND").fields(STATUS),
    Register::new(super::control_region(1), 0, "IDE1_ALTERNATE_STATUS/CONTROL").fields(STATUS),
    Register::new(super::BUS_MASTER, spec::bus_master::CHANNEL_PORTS + spec::bus_master::COMMAND, "BMICS")
        .fields(&[("SSBM", spec::bus_master::SSBM as u32), ("RWCON", spec::bus_master::RWCON as u32)]),
    Register::new(super::BUS_MASTER, spec::bus_master::CHANNEL_PORTS + spec::bus_master::STATUS, "BMISS")
        .fields(&[
            ("BMIDEA", spec::bus_master::BMIDEA as u32),
            ("DMA_ERROR", spec::bus_master::DMA_ERROR as u32),
            ("IDEINTS", spec::bus_master::IDEINTS as u32),
            ("DMA_CAP", spec::bus_master::DMA_CAPABLE as u32),
        ]),
    Register::new(super::BUS_MASTER, spec::bus_master::CHANNEL_PORTS + spec::bus_master::TABLE, "BMIDTPS")
        .width(Width::Dword),
    Register::config(spec::pci::IDETIM + 2, Width::Word, "IDETIM_S")
        .fields(&[("IDE_DECODE", spec::pci::IDETIM_DECODE as u32)]),
    Register::config(spec::pci::SIDETIM, Width::Byte, "SIDETIM"),
    Register::config(spec::pci::UDMACTL, Width::Byte, "UDMACTL"),
    Register::config(spec::pci::UDMATIM, Width::Word, "UDMATIM"),
];
