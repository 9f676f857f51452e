//! What the monitor shows, and whether it has changed since it was last drawn.
//!
//! Nothing here is saved state: a restarted process draws the whole picture again.

use super::palette::Colors;
use super::registers::Registers;
use super::scan::Planes;
use super::spec::{LEGACY_VRAM_LEN, attribute, crtc, graphics, sequencer};
use super::text::{self, Blink, Blinking};
use super::timing::FrameTiming;
use super::{Layout, graphics as graphics_modes};
use crate::device::Frame;
use crate::gpu::vbe::{Dispi, Scanout, scanout};
use ipc::time::VirtualTime;

/// Size of a blank picture when nothing has been shown before: the usual text mode.
const BLANK_SIZE: (u32, u32) = (720, 400);

/// Everything besides memory that a picture depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Blank,
    Vga {
        crtc: [u8; crtc::COUNT],
        attribute: [u8; attribute::COUNT],
        clocking: u8,
        font_select: u8,
        shift: u8,
        graphics: bool,
        text_window: bool,
        cursor_phase: bool,
        character_phase: bool,
    },
    Vbe(Scanout),
}

/// The last picture, as far as it is needed to see a change.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    key: Option<(Key, Option<Box<Colors>>)>,
    /// Copy of the display memory that was drawn.
    memory: Vec<u8>,
    /// Copy of the text window that was drawn.
    text: Vec<u8>,
    blinking: Blinking,
    size: Option<(u32, u32)>,
}

/// What a picture is drawn from.
pub(crate) struct Source<'a> {
    /// VGA registers.
    pub registers: &'a Registers,
    /// VBE registers.
    pub dispi: &'a Dispi,
    /// The text window holds the truth of planes 0 and 1.
    pub text_window: bool,
    /// Virtual time.
    pub now: VirtualTime,
}

impl Picture {
    /// Draws into `frame` if anything changed since the last call, or if `force`d.
    pub fn render(&mut self, source: &Source<'_>, memory: &mut [u8], frame: &mut Frame, force: bool) -> bool {
        let Some(layout) = Layout::split(memory) else { return false };
        let blink = Blink::at_frame(FrameTiming::decode(source.registers).frame(source.now));
        let key = self.key(source, blink);
        let colors = (key != Key::Blank)
            .then(|| Box::new(Colors::resolve(source.registers, source.dispi.eight_bit_dac())));
        let key = (key, colors);
        let same_key = self.key.as_ref() == Some(&key);
        let same_memory = match &key.0 {
            Key::Blank => true,
            Key::Vga { text_window, .. } => {
                let vram = layout.vram.get(..LEGACY_VRAM_LEN).unwrap_or_default();
                let text = if *text_window { &layout.text[..] } else { &[] };
                let same_vram = take_over(&mut self.memory, vram);
                take_over(&mut self.text, text) && same_vram
            }
            Key::Vbe(scanout) => self.take_over_lines(scanout, layout.vram, same_key),
        };
        if same_key && same_memory && !force {
            return false;
        }
        self.draw(source, &key, blink, frame);
        // Only now is it known what on this screen blinks, and so which phases count.
        self.key = Some((self.key(source, blink), key.1));
        true
    }

    fn key(&self, source: &Source<'_>, blink: Blink) -> Key {
        let registers = source.registers;
        let running = registers.sequencer[sequencer::RESET] == sequencer::RUN;
        let synchronized = registers.crtc[crtc::MODE_CONTROL] & crtc::RETRACE_ENABLE != 0;
        match source.dispi.scanout() {
            _ if !registers.screen_on() => Key::Blank,
            Some(scanout) => Key::Vbe(scanout),
            None if !running || !synchronized => Key::Blank,
            None => Key::Vga {
                crtc: registers.crtc,
                attribute: registers.attribute,
                clocking: registers.sequencer[sequencer::CLOCKING_MODE],
                font_select: registers.sequencer[sequencer::CHARACTER_MAP_SELECT],
                shift: registers.graphics[graphics::MODE]
                    & (graphics::SHIFT_256 | graphics::SHIFT_INTERLEAVE),
                graphics: registers.graphics[graphics::MISCELLANEOUS] & graphics::GRAPHICS_MODE != 0,
                text_window: source.text_window,
                // A phase counts only if something on the screen shows it.
                cursor_phase: self.blinking.cursor && blink.cursor,
                character_phase: self.blinking.characters && blink.characters,
            },
        }
    }

    /// Compares the visible lines with the copy and brings the copy up to date; true when equal.
    fn take_over_lines(&mut self, scanout: &Scanout, vram: &[u8], same_mode: bool) -> bool {
        let len = scanout.line_len * scanout.height as usize;
        let lines = vram.get(scanout.start..).unwrap_or_default().chunks(scanout.pitch.max(1));
        let mut same = same_mode && self.memory.len() == len;
        self.memory.resize(len, 0);
        for (copy, line) in self.memory.chunks_exact_mut(scanout.line_len.max(1)).zip(lines) {
            let Some(line) = line.get(..scanout.line_len) else { break };
            if copy != line {
                copy.copy_from_slice(line);
                same = false;
            }
        }
        same
    }

    fn draw(
        &mut self,
        source: &Source<'_>,
        (key, colors): &(Key, Option<Box<Colors>>),
        blink: Blink,
        frame: &mut Frame,
    ) {
        self.blinking = Blinking::default();
        match (key, colors) {
            (Key::Vga { graphics, text_window, .. }, Some(colors)) => {
                let text = text_window.then_some(&self.text[..]);
                let planes = Planes { vram: &self.memory, text };
                if *graphics {
                    graphics_modes::draw(source.registers, &planes, colors, frame);
                } else {
                    self.blinking = text::draw(source.registers, &planes, colors, blink, frame);
                }
                self.size = Some((frame.width, frame.height));
            }
            (Key::Vbe(scanout), Some(colors)) => {
                scanout::draw(scanout, &self.memory, colors, frame);
                self.size = Some((frame.width, frame.height));
            }
            _ => {
                // The monitor keeps its size while the picture is black.
                (frame.width, frame.height) = self.size.unwrap_or(BLANK_SIZE);
                frame.text = None;
                frame.pixels.clear();
                frame.pixels.resize(frame.width as usize * frame.height as usize, 0);
            }
        }
    }
}

/// Makes `copy` equal to `current`; true when it was.
fn take_over(copy: &mut Vec<u8>, current: &[u8]) -> bool {
    if copy == current {
        return true;
    }
    copy.clear();
    copy.extend_from_slice(current);
    false
}
