//! Names of the registers of the clock, for traces.

use super::spec::{DATA_OFFSET, INDEX_OFFSET};
use super::{EXTENDED, STANDARD};
use crate::device::Register;

/// All of them.
pub(super) const REGISTERS: [Register; 18] = [
    Register::new(STANDARD, INDEX_OFFSET, "RTC_INDEX"),
    Register::new(STANDARD, DATA_OFFSET, "CMOS_RAM"),
    Register::new(EXTENDED, INDEX_OFFSET, "RTC_EXT_INDEX"),
    Register::new(EXTENDED, DATA_OFFSET, "CMOS_EXT_RAM"),
    Register::new(STANDARD, DATA_OFFSET, "RTC_SECONDS").index(0),
    Register::new(STANDARD, DATA_OFFSET, "RTC_SECONDS_ALARM").index(1),
    Register::new(STANDARD, DATA_OFFSET, "RTC_MINUTES").index(2),
    Register::new(STANDARD, DATA_OFFSET, "RTC_MINUTES_ALARM").index(3),
    Register::new(STANDARD, DATA_OFFSET, "RTC_HOURS").index(4),
    Register::new(STANDARD, DATA_OFFSET, "RTC_HOURS_ALARM").index(5),
    Register::new(STANDARD, DATA_OFFSET, "RTC_DAY_OF_WEEK").index(6),
    Register::new(STANDARD, DATA_OFFSET, "RTC_DATE").index(7),
    Register::new(STANDARD, DATA_OFFSET, "RTC_MONTH").index(8),
    Register::new(STANDARD, DATA_OFFSET, "RTC_YEAR").index(9),
    Register::new(STANDARD, DATA_OFFSET, "RTC_REGISTER_A").index(10),
    Register::new(STANDARD, DATA_OFFSET, "RTC_REGISTER_B").index(11),
    Register::new(STANDARD, DATA_OFFSET, "RTC_REGISTER_C").index(12),
    Register::new(STANDARD, DATA_OFFSET, "RTC_REGISTER_D").index(13),
];
