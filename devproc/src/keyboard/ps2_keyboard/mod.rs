//! PS/2 keyboard with 101 to 104 keys.
//!
//! See the IBM PS/2 Hardware Interface Technical Reference, "101/102-Key Keyboard": commands,
//! typematic repetition, the scan code sets and the 16-byte buffer with its overrun code.
//!
//! Strokes that find the buffer full wait in a second queue, so that pasted text reaches a slow
//! guest whole; only when that is full too are strokes lost, and the overrun code says so. The
//! release of a key whose press was sent is never lost. A repetition that finds the
//! buffer not empty is dropped, so that no key repeats after it was let go.

pub mod scancodes;
pub mod spec;
pub mod state;

#[cfg(test)]
mod tests;

use super::ps2_device::Ps2Device;
use crate::device::{StateError, load_state};
use ipc::input::{HostEvent, Key};
use ipc::time::VirtualTime;
use scancodes::{KeyCodes, KeyType, Modifiers, ScanCodeSet};
use spec::*;
use state::{ANSWER_BYTES, Expecting, Repeat, State, Stroke, WAITING_STROKES};

/// The keyboard.
#[derive(Default)]
pub struct Ps2Keyboard {
    // Volatile state
    state: State,
}

impl Ps2Keyboard {
    /// A keyboard without power.
    pub fn new() -> Self {
        Self::default()
    }

    /// The status indicators: bit 0 Scroll Lock, bit 1 Num Lock, bit 2 Caps Lock.
    pub fn leds(&self) -> u8 {
        self.state.leds
    }

    fn answer(&mut self, byte: u8) {
        // Somebody who sends commands without reading answers has no use for the oldest.
        if self.state.answers.len() >= ANSWER_BYTES {
            self.state.answers.pop_front();
        }
        self.state.answers.push_back(byte);
    }

    /// Empties the buffer, and with it all that waits for it.
    fn clear_buffer(&mut self) {
        self.state.buffer.clear();
        self.state.waiting.clear();
        self.state.held = self.state.down;
        self.state.repeat = None;
    }

    fn set_defaults(&mut self) {
        self.clear_buffer();
        self.state.set = ScanCodeSet::default();
        self.state.typematic = DEFAULT_TYPEMATIC;
        self.state.set_default_key_types();
    }

    fn start_self_test(&mut self, now: VirtualTime) {
        // Keys that are down stay down: their release is not to be mistaken for a stroke.
        let down = self.state.down;
        self.state = State { down, held: down, ..State::default() };
        self.state.self_test_ends = Some(now + BAT_NANOS);
    }

    fn command(&mut self, command: u8, now: VirtualTime) {
        self.state.expecting = Expecting::Command;
        match command {
            SET_LEDS | SELECT_SCAN_CODES | SET_TYPEMATIC => {
                self.state.expecting = Expecting::Option(command);
            }
            SET_KEY_TYPEMATIC | SET_KEY_MAKE_BREAK | SET_KEY_MAKE => {
                self.clear_buffer();
                self.state.expecting = Expecting::KeyList(command);
            }
            ECHO => return self.answer(ECHO),
            RESEND => {
                let last = self.state.last_sent;
                return self.answer(last);
            }
            READ_ID => {
                self.answer(ACK);
                return ID.into_iter().for_each(|byte| self.answer(byte));
            }
            ENABLE => {
                self.clear_buffer();
                self.state.scanning = true;
            }
            DEFAULT_DISABLE => {
                self.set_defaults();
                self.state.scanning = false;
            }
            SET_DEFAULT => self.set_defaults(),
            SET_ALL_TYPEMATIC => self.set_all(KeyType::Typematic),
            SET_ALL_MAKE_BREAK => self.set_all(KeyType::MakeBreak),
            SET_ALL_MAKE => self.set_all(KeyType::Make),
            SET_ALL_TYPEMATIC_MAKE_BREAK => self.set_all(KeyType::TypematicMakeBreak),
            RESET => self.start_self_test(now),
            _ => return self.answer(RESEND_REQUEST),
        }
        self.answer(ACK);
    }

    fn set_all(&mut self, key_type: KeyType) {
        self.clear_buffer();
        self.state.set_all_key_types(key_type);
    }

    fn option(&mut self, command: u8, option: u8) {
        self.state.expecting = Expecting::Command;
        match command {
            SET_LEDS => self.state.leds = option & LED_MASK,
            SET_TYPEMATIC => self.state.typematic = option & TYPEMATIC_MASK,
            SELECT_SCAN_CODES if option == SCAN_CODES_QUERY => {
                self.answer(ACK);
                return self.answer(self.state.set.number());
            }
            SELECT_SCAN_CODES => match ScanCodeSet::from_option(option) {
                Some(set) => {
                    self.clear_buffer();
                    self.state.set = set;
                }
                None => return self.answer(RESEND_REQUEST),
            },
            _ => {}
        }
        self.answer(ACK);
    }

    fn key_of_list(&mut self, command: u8, code: u8) {
        let key_type = match command {
            SET_KEY_TYPEMATIC => KeyType::Typematic,
            SET_KEY_MAKE_BREAK => KeyType::MakeBreak,
            _ => KeyType::Make,
        };
        self.state.set_key_type(code, key_type);
        self.answer(ACK);
    }

    /// Takes note of a stroke; it may have to wait.
    fn stroke(&mut self, key: Key, pressed: bool, now: VirtualTime) {
        if scancodes::find(key).is_none() || self.state.down.get(key.0) == pressed {
            return;
        }
        if pressed {
            // Room is kept for the release of each key that is down, this one among them, and for
            // an overrun mark here and after each of those releases.
            let keys_down = self.state.down.count() + 1;
            if self.state.waiting.len() + 1 + 2 * keys_down + 1 > WAITING_STROKES {
                if self.state.waiting.back() != Some(&Stroke::Overrun) {
                    self.state.waiting.push_back(Stroke::Overrun);
                }
                return;
            }
        }
        self.state.down.set(key.0, pressed);
        self.state.waiting.push_back(if pressed { Stroke::Down(key) } else { Stroke::Up(key) });
        self.fill_buffer(now);
    }

    /// Moves strokes into the buffer while they fit as a whole.
    fn fill_buffer(&mut self, now: VirtualTime) {
        while let Some(stroke) = self.state.waiting.front().copied() {
            let codes = if self.scans() { self.codes_of(stroke) } else { Vec::new() };
            if self.state.buffer.len() + codes.len() > BUFFER_BYTES {
                return;
            }
            self.state.waiting.pop_front();
            self.state.buffer.extend(codes);
            match stroke {
                Stroke::Down(key) => {
                    self.state.held.set(key.0, true);
                    let delay = typematic_delay_nanos(self.state.typematic);
                    self.state.repeat = self.repeats(key).then(|| Repeat { key, at: now + delay });
                }
                Stroke::Up(key) => {
                    self.state.held.set(key.0, false);
                    self.state.repeat = self.state.repeat.filter(|repeat| repeat.key != key);
                }
                Stroke::Overrun => {}
            }
        }
    }

    fn scans(&self) -> bool {
        self.state.scanning && self.state.self_test_ends.is_none()
    }

    fn codes_of(&self, stroke: Stroke) -> Vec<u8> {
        let (set, modifiers) = (self.state.set, self.modifiers());
        match stroke {
            Stroke::Down(key) => scancodes::find(key).map(|row| row.make(set, modifiers)),
            Stroke::Up(key) => {
                scancodes::find(key).filter(|row| self.sends_break(row)).map(|row| row.break_(set, modifiers))
            }
            Stroke::Overrun if set == ScanCodeSet::Set1 => Some(vec![OVERRUN_SET_1]),
            Stroke::Overrun => Some(vec![OVERRUN]),
        }
        .unwrap_or_default()
    }

    fn sends_break(&self, row: &KeyCodes) -> bool {
        self.state.set != ScanCodeSet::Set3 || self.state.set3_break.get(row.set3)
    }

    fn repeats(&self, key: Key) -> bool {
        let repeats = |row: &KeyCodes| match self.state.set {
            ScanCodeSet::Set3 => self.state.set3_typematic.get(row.set3),
            ScanCodeSet::Set1 | ScanCodeSet::Set2 => row.repeats(),
        };
        self.scans() && scancodes::find(key).is_some_and(repeats)
    }

    fn modifiers(&self) -> Modifiers {
        let held = |key: Key| self.state.held.get(key.0);
        Modifiers {
            left_shift: held(Key::LEFT_SHIFT),
            right_shift: held(Key::RIGHT_SHIFT),
            ctrl: held(Key::LEFT_CTRL) || held(Key::RIGHT_CTRL),
            alt: held(Key::LEFT_ALT) || held(Key::RIGHT_ALT),
            leds: self.state.leds,
        }
    }

    fn repeat_key(&mut self, repeat: Repeat, now: VirtualTime) {
        if self.state.buffer.is_empty()
            && self.scans()
            && let Some(row) = scancodes::find(repeat.key)
        {
            self.state.buffer.extend(row.repeat(self.state.set, self.modifiers()));
        }
        let period = typematic_period_nanos(self.state.typematic);
        // From the deadline, so that the rate is kept; from now, when a pause was longer than that.
        let at = (repeat.at + period).max(now);
        self.state.repeat = Some(Repeat { at, ..repeat });
    }
}

impl Ps2Device for Ps2Keyboard {
    fn power_on(&mut self, now: VirtualTime) {
        self.state = State::default();
        self.start_self_test(now);
    }

    fn receive(&mut self, byte: u8, now: VirtualTime) {
        match self.state.expecting {
            // A command in the place of an option byte is taken as a command.
            Expecting::Option(command) if byte < FIRST_COMMAND => self.option(command, byte),
            Expecting::KeyList(command) if byte < FIRST_COMMAND => self.key_of_list(command, byte),
            Expecting::Command | Expecting::Option(_) | Expecting::KeyList(_) => self.command(byte, now),
        }
    }

    fn wants_to_send(&self) -> bool {
        !self.state.answers.is_empty() || !self.state.buffer.is_empty()
    }

    fn send(&mut self, now: VirtualTime) -> Option<u8> {
        let byte = match self.state.answers.pop_front() {
            Some(answer) => answer,
            None => self.state.buffer.pop_front()?,
        };
        self.state.last_sent = byte;
        self.fill_buffer(now);
        Some(byte)
    }

    fn deadline(&self) -> Option<VirtualTime> {
        let repeat = self.state.repeat.map(|repeat| repeat.at);
        [self.state.self_test_ends, repeat].into_iter().flatten().min()
    }

    fn deadline_reached(&mut self, now: VirtualTime) {
        if self.state.self_test_ends.is_some_and(|ends| ends <= now) {
            self.state.self_test_ends = None;
            self.answer(BAT_PASSED);
        }
        if let Some(repeat) = self.state.repeat
            && repeat.at <= now
        {
            self.repeat_key(repeat, now);
        }
    }

    fn host_event(&mut self, event: &HostEvent, now: VirtualTime) {
        if let HostEvent::Key { key, pressed } = event {
            self.stroke(*key, *pressed, now);
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.state.save(out);
    }

    fn load(&mut self, data: &[u8]) -> Result<(), StateError> {
        let state: State = load_state(data)?;
        state.validate()?;
        self.state = state;
        Ok(())
    }
}
