//! What the engine has done: counters, and the places that left shadow code most often.

use super::classify::Terminal;
use super::window::WindowStatistics;
use std::fmt;

/// Counters since the engine was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Units made.
    pub units: u64,
    /// Instructions in them.
    pub instructions: u64,
    /// Bytes of shadow code made.
    pub code_bytes: u64,
    /// Bytes of the code cache in use.
    pub code_used: u64,
    /// Units dropped because their code was written.
    pub units_dropped: u64,
    /// Times everything was dropped because the cache was full.
    pub cache_flushes: u64,
    /// Shadow pages there are.
    pub pages: u64,
    /// Times shadow code was entered.
    pub entries: u64,
    /// Times it was left for want of shadow code or because of attention.
    pub misses: u64,
    /// Times it was left for an access that is not plain: page faults, devices, code, page boundaries.
    pub not_plain: u64,
    /// Terminal instructions that were interpreted in place, by [`Terminal`].
    pub in_place: [u64; Terminal::COUNT],
    /// Times it was left for a terminal instruction, by [`Terminal`].
    pub terminal: [u64; Terminal::COUNT],
    /// Instructions interpreted in states in which no shadow code runs.
    pub declined: u64,
    /// Windows.
    pub windows: WindowStatistics,
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Shadow code")?;
        for (what, count) in [
            ("units made", self.units),
            ("instructions in them", self.instructions),
            ("bytes of code made", self.code_bytes),
            ("bytes of the code cache in use", self.code_used),
            ("units dropped, written over", self.units_dropped),
            ("times all was dropped", self.cache_flushes),
            ("shadow pages", self.pages),
        ] {
            writeln!(f, "{count:>16}  {what}")?;
        }
        writeln!(f, "Bridge\n{:>16}  times entered", self.entries)?;
        writeln!(f, "{:>16}  left for want of code, or for attention", self.misses)?;
        writeln!(f, "{:>16}  left for an access that is not plain", self.not_plain)?;
        for (kind, count) in Terminal::ALL.into_iter().zip(self.terminal) {
            if matches!(kind, Terminal::Float | Terminal::Boundary) {
                writeln!(f, "{count:>16}  left for {}", kind.describe())?;
            }
        }
        for (kind, count) in Terminal::ALL.into_iter().zip(self.in_place) {
            if !matches!(kind, Terminal::Float | Terminal::Boundary) {
                writeln!(f, "{count:>16}  interpreted in place: {}", kind.describe())?;
            }
        }
        writeln!(f, "{:>16}  interpreted in states without shadow code", self.declined)?;
        let windows = &self.windows;
        if windows.promotions == 0 {
            return Ok(());
        }
        writeln!(f, "Windows")?;
        for (what, count) in [
            ("windows", windows.windows),
            ("pages in them", windows.pages),
            ("address spaces that got one", windows.promotions),
            ("lost it, for too many accesses that are not plain", windows.demotions),
            ("lost it to others", windows.evictions),
            ("faults that mapped pages", windows.fills),
            ("pages mapped by them", windows.pages_mapped),
            ("faults left to the interpreter", windows.not_plain),
            ("comparisons with page tables", windows.comparisons),
            ("pages unmapped by them", windows.changed),
            ("pages made read-only for their code", windows.protected),
        ] {
            writeln!(f, "{count:>16}  {what}")?;
        }
        Ok(())
    }
}

/// Slots for places.
const SITES: usize = 1024;
/// How many of them are reported.
const REPORTED: usize = 16;

/// Where shadow code is left for terminal instructions: an estimate, as places that share a slot drive each other out.
#[derive(Clone, Debug)]
pub struct Sites {
    slots: Box<[(u32, u32); SITES]>,
}

impl Default for Sites {
    fn default() -> Self {
        Self { slots: Box::new([(0, 0); SITES]) }
    }
}

impl Sites {
    /// Counts one more at a linear address.
    #[inline]
    pub fn note(&mut self, linear: u32) {
        let slot = &mut self.slots[(linear ^ linear >> 10) as usize % SITES];
        if slot.0 == linear {
            slot.1 = slot.1.saturating_add(1);
        } else if slot.1 <= 1 {
            *slot = (linear, 1);
        } else {
            // The one that comes often wins in the end.
            slot.1 -= 1;
        }
    }
}

impl fmt::Display for Sites {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sites: Vec<_> = self.slots.iter().copied().filter(|(_, count)| *count > 1).collect();
        sites.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        if !sites.is_empty() {
            writeln!(f, "Most frequent terminal instructions (linear addresses)")?;
        }
        for (linear, count) in sites.into_iter().take(REPORTED) {
            writeln!(f, "{count:>16}  {linear:08x}")?;
        }
        Ok(())
    }
}
