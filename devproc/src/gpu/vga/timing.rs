//! Where the beam is: retrace bits from virtual time and the CRTC's programming.
//!
//! Source: IBM PS/2 Hardware Interface Technical Reference, "CRT Controller Registers" and
//! "Input Status Register 1".

use super::registers::Registers;
use super::spec::{self, crtc, misc, sequencer, status_1};
use ipc::time::VirtualTime;

/// The CRTC's vertical registers, put together from their parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vertical {
    /// Lines of a frame.
    pub total: u32,
    /// Lines shown.
    pub display: u32,
    /// Line at which retrace starts.
    pub retrace_start: u32,
    /// Line compare.
    pub line_compare: u32,
}

impl Vertical {
    /// Reads the fields from CRTC registers.
    pub fn decode(registers: &[u8; crtc::COUNT]) -> Self {
        let overflow = registers[crtc::OVERFLOW];
        let max_scan = registers[crtc::MAXIMUM_SCAN_LINE];
        let wide = |low: usize, bit_8: bool, bit_9: bool| {
            u32::from(registers[low]) | u32::from(bit_8) << 8 | u32::from(bit_9) << 9
        };
        let has = |bit: u8| overflow & bit != 0;
        let total = wide(
            crtc::VERTICAL_TOTAL,
            has(crtc::OVERFLOW_VERTICAL_TOTAL_8),
            has(crtc::OVERFLOW_VERTICAL_TOTAL_9),
        ) + 2;
        let display = wide(
            crtc::VERTICAL_DISPLAY_END,
            has(crtc::OVERFLOW_DISPLAY_END_8),
            has(crtc::OVERFLOW_DISPLAY_END_9),
        ) + 1;
        let retrace_start = wide(
            crtc::VERTICAL_RETRACE_START,
            has(crtc::OVERFLOW_RETRACE_START_8),
            has(crtc::OVERFLOW_RETRACE_START_9),
        );
        let line_compare = wide(
            crtc::LINE_COMPARE,
            has(crtc::OVERFLOW_LINE_COMPARE_8),
            max_scan & crtc::LINE_COMPARE_9 != 0,
        );
        Self { total, display, retrace_start, line_compare }
    }
}

/// The rhythm of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameTiming {
    clock_hz: u64,
    dots_per_line: u64,
    display_dots: u64,
    lines: u64,
    display_lines: u64,
    retrace_start: u64,
    retrace_lines: u64,
}

impl FrameTiming {
    /// What a multisync monitor is sent while the VBE registers and not the CRTC set the mode:
    /// 525 lines of 800 dots at the 25 MHz clock, 60 frames a second.
    pub const VBE: Self = Self {
        clock_hz: spec::CLOCK_25_HZ,
        dots_per_line: 800,
        display_dots: 640,
        lines: 525,
        display_lines: 480,
        retrace_start: 490,
        retrace_lines: 2,
    };

    /// The timing that the VGA registers ask for.
    pub fn decode(registers: &Registers) -> Self {
        let clocking = registers.sequencer[sequencer::CLOCKING_MODE];
        let dots = if clocking & sequencer::EIGHT_DOTS != 0 { 8 } else { 9 };
        let dots = if clocking & sequencer::DOT_CLOCK_HALF != 0 { 2 * dots } else { dots };
        let fast = registers.misc & misc::CLOCK_SELECT == misc::CLOCK_28_MHZ;
        let vertical = Vertical::decode(&registers.crtc);
        // The end register holds the low four bits of the line where retrace ends.
        let end = registers.crtc[crtc::VERTICAL_RETRACE_END] & crtc::RETRACE_END_MASK;
        let length = end.wrapping_sub(vertical.retrace_start as u8) & crtc::RETRACE_END_MASK;
        let retrace_lines = if length == 0 { u64::from(crtc::RETRACE_END_MASK) + 1 } else { length.into() };
        Self {
            clock_hz: if fast { spec::CLOCK_28_HZ } else { spec::CLOCK_25_HZ },
            dots_per_line: dots * (u64::from(registers.crtc[crtc::HORIZONTAL_TOTAL]) + 5),
            display_dots: dots * (u64::from(registers.crtc[crtc::HORIZONTAL_DISPLAY_END]) + 1),
            lines: vertical.total.into(),
            display_lines: vertical.display.into(),
            retrace_start: vertical.retrace_start.into(),
            retrace_lines,
        }
    }

    fn dots_per_frame(&self) -> u64 {
        self.dots_per_line * self.lines
    }

    /// The moment before which input status register 1 does not change: where the beam comes to an end of the shown part of a line,
    /// or to the next line.
    pub fn status_1_until(&self, now: VirtualTime) -> VirtualTime {
        let dot = now.ticks(self.clock_hz);
        let (line, column) = (
            dot % self.dots_per_frame() / self.dots_per_line,
            dot % self.dots_per_frame() % self.dots_per_line,
        );
        let shown = line < self.display_lines && column < self.display_dots;
        let end = if shown { self.display_dots.min(self.dots_per_line) } else { self.dots_per_line };
        VirtualTime::of_ticks(dot.saturating_add(end - column), self.clock_hz)
    }

    /// Input status register 1 at `now`.
    pub fn status_1(&self, now: VirtualTime) -> u8 {
        let dot = now.ticks(self.clock_hz) % self.dots_per_frame();
        let (line, column) = (dot / self.dots_per_line, dot % self.dots_per_line);
        let mut status = 0;
        if line >= self.display_lines || column >= self.display_dots {
            status |= status_1::DISPLAY_DISABLED;
        }
        if (self.retrace_start..self.retrace_start + self.retrace_lines).contains(&line) {
            status |= status_1::VERTICAL_RETRACE;
        }
        status
    }

    /// How many frames have been started before `now`; the blink counters count it.
    pub fn frame(&self, now: VirtualTime) -> u64 {
        now.ticks(self.clock_hz) / self.dots_per_frame()
    }

    /// How many vertical retraces have started before `now`.
    pub fn retraces(&self, now: VirtualTime) -> u64 {
        if self.retrace_start >= self.lines {
            return 0;
        }
        let rest = (self.lines - self.retrace_start) * self.dots_per_line;
        now.ticks(self.clock_hz).saturating_add(rest) / self.dots_per_frame()
    }
}
