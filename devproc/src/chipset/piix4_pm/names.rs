//! Names of the registers of the power management function, for traces.

use super::{APM, GPE0, PM, SMBUS, spec};
use crate::device::{Register, Width};

/// All of them.
pub(super) const REGISTERS: [Register; 32] = [
    Register::new(PM, spec::pm::PMSTS as u64, "PMSTS").width(Width::Word),
    Register::new(PM, spec::pm::PMEN as u64, "PMEN").width(Width::Word),
    Register::new(PM, spec::pm::PMCNTRL as u64, "PMCNTRL").width(Width::Word),
    Register::new(PM, spec::pm::PMTMR as u64, "PMTMR").width(Width::Dword),
    Register::new(PM, spec::pm::GPSTS as u64, "GPSTS").width(Width::Word),
    Register::new(PM, spec::pm::GPEN as u64, "GPEN").width(Width::Word),
    Register::new(PM, spec::pm::PCNTRL as u64, "PCNTRL").width(Width::Dword),
    Register::new(PM, spec::pm::GLBSTS as u64, "GLBSTS").width(Width::Word),
    Register::new(PM, spec::pm::DEVSTS as u64, "DEVSTS").width(Width::Dword),
    Register::new(PM, spec::pm::GLBEN as u64, "GLBEN").width(Width::Word),
    Register::new(PM, spec::pm::GLBCTL as u64, "GLBCTL").width(Width::Dword),
    Register::new(PM, spec::pm::DEVCTL as u64, "DEVCTL").width(Width::Dword),
    Register::new(PM, spec::pm::GPIREG as u64, "GPIREG").width(Width::Dword),
    Register::new(PM, spec::pm::GPOREG as u64, "GPOREG").width(Width::Dword),
    Register::new(SMBUS, spec::smbus::SMBHSTSTS, "SMBHSTSTS"),
    Register::new(SMBUS, spec::smbus::SMBSLVSTS, "SMBSLVSTS"),
    Register::new(SMBUS, spec::smbus::SMBHSTCNT, "SMBHSTCNT"),
    Register::new(SMBUS, spec::smbus::SMBHSTCMD, "SMBHSTCMD"),
    Register::new(SMBUS, spec::smbus::SMBHSTADD, "SMBHSTADD"),
    Register::new(SMBUS, spec::smbus::SMBHSTDAT0, "SMBHSTDAT0"),
    Register::new(SMBUS, spec::smbus::SMBHSTDAT1, "SMBHSTDAT1"),
    Register::new(SMBUS, spec::smbus::SMBBLKDAT, "SMBBLKDAT"),
    Register::new(SMBUS, spec::smbus::SMBSLVCNT, "SMBSLVCNT"),
    Register::new(APM, 0, "APMC"),
    Register::new(APM, 1, "APMS"),
    Register::new(GPE0, 0, "GPE0_STS").width(Width::Word),
    Register::new(GPE0, 2, "GPE0_EN").width(Width::Word),
    Register::config(spec::PMBA, Width::Dword, "PMBA"),
    Register::config(spec::DEVACTB, Width::Dword, "DEVACTB"),
    Register::config(spec::PMREGMISC, Width::Byte, "PMREGMISC"),
    Register::config(spec::SMBBA, Width::Dword, "SMBBA"),
    Register::config(spec::SMBHSTCFG, Width::Byte, "SMBHSTCFG"),
];
