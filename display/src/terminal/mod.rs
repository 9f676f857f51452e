//! The view in a terminal: text modes as text, graphics as blocks of two pixels.
//!
//! A terminal tells of characters, not of keys going down and up: each becomes the whole
//! stroke. Ctrl+] leaves the view.

mod draw;
mod keys;

use crate::DisplayError;
use crate::source::{Command, Frame, InputSink, ScreenSource, VmStatus};
use crate::typing::{self, CHARACTER_INTERVAL, Combination};
use draw::{Palette, Screen};
use keys::Meaning;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event};
use ratatui::crossterm::execute;
use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// Between two looks at the picture while it changes or somebody types.
const BUSY_POLL: Duration = Duration::from_millis(33);
/// The same after a while without either.
const IDLE_POLL: Duration = Duration::from_millis(100);
/// How long after the last change or key things count as happening.
const BUSY_TIME: Duration = Duration::from_secs(1);
/// Between two looks at the VM's status.
const STATUS_POLL: Duration = Duration::from_millis(500);

/// Shows the virtual PC in the terminal until Ctrl+] is typed or the VM ends.
///
/// # Errors
/// [`DisplayError::NoTerminal`] when standard input or output is not a terminal, and
/// [`DisplayError::Terminal`] when it fails.
pub fn run(source: &mut dyn ScreenSource, input: &mut dyn InputSink) -> Result<(), DisplayError> {
    if !io::stdin().is_terminal() {
        return Err(DisplayError::NoTerminal("standard input"));
    }
    if !io::stdout().is_terminal() {
        return Err(DisplayError::NoTerminal("standard output"));
    }
    // Restores the terminal on panic too.
    let mut terminal = ratatui::try_init().map_err(|error| {
        // It may be in raw mode already.
        let _ = ratatui::try_restore();
        DisplayError::Terminal(error)
    })?;
    // A terminal without it sends pasted text as keys, which works too.
    let _ = execute!(io::stdout(), EnableBracketedPaste);
    let result = Viewer::new(source, input).run(&mut terminal);
    let _ = execute!(io::stdout(), DisableBracketedPaste);
    let restored = ratatui::try_restore();
    result.and(restored).map_err(DisplayError::Terminal)
}

struct Viewer<'a> {
    source: &'a mut dyn ScreenSource,
    input: &'a mut dyn InputSink,
    palette: Palette,
    frame: Frame,
    /// Number of the picture in `frame`.
    shown: Option<u64>,
    status: VmStatus,
    redraw: bool,
    /// Pasted text that is still to be typed, at the pace of the guest.
    to_type: VecDeque<Combination>,
    next_character: Instant,
    last_activity: Instant,
    next_status: Instant,
}

impl<'a> Viewer<'a> {
    fn new(source: &'a mut dyn ScreenSource, input: &'a mut dyn InputSink) -> Self {
        let now = Instant::now();
        Self {
            status: source.status(),
            source,
            input,
            palette: Palette::of_terminal(),
            frame: Frame::default(),
            shown: None,
            redraw: true,
            to_type: VecDeque::new(),
            next_character: now,
            last_activity: now,
            next_status: now + STATUS_POLL,
        }
    }

    fn run(&mut self, terminal: &mut DefaultTerminal) -> io::Result<()> {
        loop {
            let now = Instant::now();
            if now >= self.next_status {
                self.next_status = now + STATUS_POLL;
                let status = self.source.status();
                if status.ended {
                    return Ok(());
                }
                self.redraw |= status != self.status;
                self.status = status;
            }
            if self.source.changed() != self.shown {
                self.last_activity = now;
                self.redraw = true;
                self.shown = self.source.frame(&mut self.frame);
            }
            if self.redraw {
                self.redraw = false;
                let picture = self.shown.is_some().then_some(&self.frame);
                let screen = Screen { picture, status: &self.status, palette: self.palette };
                terminal.draw(|area| draw::draw(area, &screen))?;
            }
            self.type_pasted(now);
            if event::poll(self.pause(now))? && self.handle(event::read()?) {
                self.input.command(Command::Closed);
                return Ok(());
            }
        }
    }

    /// How long nothing needs to be done unless a key comes.
    fn pause(&self, now: Instant) -> Duration {
        if !self.to_type.is_empty() {
            self.next_character.duration_since(now).min(BUSY_POLL)
        } else if now.duration_since(self.last_activity) < BUSY_TIME {
            BUSY_POLL
        } else {
            IDLE_POLL
        }
    }

    /// Handles an event; returns whether to leave.
    fn handle(&mut self, event: Event) -> bool {
        self.last_activity = Instant::now();
        match event {
            Event::Key(key) => match keys::meaning(key) {
                Meaning::Leave => return true,
                Meaning::CtrlAltDel => self.input.command(Command::CtrlAltDel),
                // In the order in which it was typed.
                Meaning::Keys(combination) if !self.to_type.is_empty() => {
                    self.to_type.push_back(combination);
                }
                Meaning::Keys(combination) => self.strike(combination),
                Meaning::Nothing => {}
            },
            // What no key types is left out: there is no place here to say so.
            Event::Paste(text) => self.to_type.extend(text.chars().filter_map(typing::combination_for)),
            Event::Resize(..) => self.redraw = true,
            Event::FocusGained | Event::FocusLost | Event::Mouse(_) => {}
        }
        false
    }

    fn type_pasted(&mut self, now: Instant) {
        if now >= self.next_character
            && let Some(combination) = self.to_type.pop_front()
        {
            self.next_character = now + CHARACTER_INTERVAL;
            self.strike(combination);
        }
    }

    fn strike(&mut self, combination: Combination) {
        for stroke in combination.strokes() {
            self.input.key(stroke.key, stroke.pressed);
        }
    }
}
