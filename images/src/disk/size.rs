//! Sizes as people write them: `64M`, `2G`.

use super::{DiskError, FloppyFormat};

/// Suffixes and what each multiplies by 1024 once more.
const SUFFIXES: [char; 5] = ['K', 'M', 'G', 'T', 'P'];
const KIB: u64 = 1024;

/// Bytes in a size like `512K`, `64M`, `64MB`, `64MiB` or `2g` (binary multiples), a plain number, or the name of
/// a floppy size such as `1.44M`.
pub fn parse_size(text: &str) -> Result<u64, DiskError> {
    // What is called 1.44M has 1440 KiB.
    if let Ok(floppy) = text.parse::<FloppyFormat>() {
        return Ok(floppy.bytes());
    }
    let wrong = || DiskError::Size(text.to_owned());
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.find(|c: char| !c.is_ascii_digit()).unwrap_or(upper.len());
    let (number, suffix) = upper.split_at(digits);
    let suffix = suffix.trim_start();
    let letter = suffix.strip_suffix("IB").or_else(|| suffix.strip_suffix('B')).unwrap_or(suffix);
    let power = match letter.chars().next() {
        None => 0,
        Some(letter) => 1 + SUFFIXES.iter().position(|known| *known == letter).ok_or_else(wrong)? as u32,
    };
    if letter.chars().count() > 1 {
        return Err(wrong());
    }
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(KIB.pow(power)).ok_or_else(wrong)
}

/// A size for people: the largest unit that shows it exactly, otherwise one decimal place.
pub fn display_size(bytes: u64) -> String {
    let mut unit = 0;
    let mut divisor = 1;
    while unit < SUFFIXES.len() && bytes / divisor >= KIB {
        unit += 1;
        divisor *= KIB;
    }
    match unit.checked_sub(1) {
        None => format!("{bytes} bytes"),
        Some(unit) if bytes.is_multiple_of(divisor) => format!("{} {}iB", bytes / divisor, SUFFIXES[unit]),
        Some(unit) => format!("{:.1} {}iB", bytes as f64 / divisor as f64, SUFFIXES[unit]),
    }
}
