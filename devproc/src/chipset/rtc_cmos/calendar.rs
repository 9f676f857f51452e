//! Date arithmetic of the clock: the Gregorian calendar without time zones.

/// Seconds of a day.
pub(super) const SECONDS_PER_DAY: u64 = 86_400;
const DAYS_PER_400_YEARS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_FROM_MARCH_0000: i64 = 719_468;
/// 1970-01-01 was a Thursday; Sunday is 0 here.
const EPOCH_DAY_OF_WEEK: i64 = 4;

/// A date and time as the clock registers hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateTime {
    pub(super) year: u16,
    /// 1 to 12.
    pub(super) month: u8,
    /// 1 to 31.
    pub(super) day: u8,
    /// 1 (Sunday) to 7; a counter of its own, which the chip does not derive from the date.
    pub(super) day_of_week: u8,
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
}

impl DateTime {
    /// The moment `seconds` after 1970-01-01 00:00:00.
    pub(super) fn from_unix(seconds: i64) -> Self {
        let days = seconds.div_euclid(SECONDS_PER_DAY as i64);
        let (year, month, day) = civil_from_days(days);
        let mut time = Self {
            year,
            month,
            day,
            day_of_week: ((days + EPOCH_DAY_OF_WEEK).rem_euclid(7) + 1) as u8,
            hour: 0,
            minute: 0,
            second: 0,
        };
        time.set_second_of_day(seconds.rem_euclid(SECONDS_PER_DAY as i64) as u64);
        time
    }

    /// Seconds since midnight.
    pub(super) fn second_of_day(&self) -> u64 {
        u64::from(self.hour) * 3600 + u64::from(self.minute) * 60 + u64::from(self.second)
    }

    fn set_second_of_day(&mut self, second: u64) {
        self.hour = (second / 3600 % 24) as u8;
        self.minute = (second / 60 % 60) as u8;
        self.second = (second % 60) as u8;
    }

    /// The same clock `seconds` updates later.
    pub(super) fn after(mut self, seconds: u64) -> Self {
        let total = self.second_of_day().saturating_add(seconds);
        self.set_second_of_day(total % SECONDS_PER_DAY);
        let days = total / SECONDS_PER_DAY;
        if days > 0 {
            let today = days_from_civil(self.year, self.month, self.day);
            (self.year, self.month, self.day) = civil_from_days(today.saturating_add_unsigned(days));
            self.day_of_week = ((u64::from(self.day_of_week.saturating_sub(1)) + days) % 7 + 1) as u8;
        }
        self
    }
}

/// Days since 1970-01-01 of a date; years run from March, so that the leap day comes last.
fn days_from_civil(year: u16, month: u8, day: u8) -> i64 {
    let (month, day) = (i64::from(month), i64::from(day));
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_400_YEARS + day_of_era - EPOCH_FROM_MARCH_0000
}

/// The date that is `days` after 1970-01-01.
fn civil_from_days(days: i64) -> (u16, u8, u8) {
    let days = days.saturating_add(EPOCH_FROM_MARCH_0000);
    let era = days.div_euclid(DAYS_PER_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_PER_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    // The registers hold four digits of year.
    (year.rem_euclid(10_000) as u16, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_convert() {
        let time = DateTime::from_unix(951_827_696); // 2000-02-29 12:34:56, a Tuesday
        let expected =
            DateTime { year: 2000, month: 2, day: 29, day_of_week: 3, hour: 12, minute: 34, second: 56 };
        assert_eq!(time, expected);
        let before = DateTime::from_unix(-1);
        assert_eq!((before.year, before.month, before.day, before.second), (1969, 12, 31, 59));
    }

    #[test]
    fn stepping_agrees_with_conversion_over_four_hundred_years() {
        let start = 946_684_800; // 2000-01-01
        let mut time = DateTime::from_unix(start);
        let step = 86_400 * 13 + 12_345;
        for i in 1..11_000 {
            time = time.after(step);
            assert_eq!(time, DateTime::from_unix(start + i * step as i64));
        }
    }

    #[test]
    fn extreme_values_do_not_overflow() {
        DateTime::from_unix(i64::MAX);
        DateTime::from_unix(i64::MIN);
        DateTime::from_unix(0).after(u64::MAX);
    }
}
