//! Saved state of the keyboard.

use super::scancodes::{KEYS, KeyType, ScanCodeSet};
use super::spec::{BUFFER_BYTES, DEFAULT_TYPEMATIC, FIRST_COMMAND, LED_MASK, TYPEMATIC_MASK};
use crate::device::StateError;
use crate::pack::{Many, Pack, pack, pack_fields, pack_variants};
use crate::spare::Room;
use ipc::input::Key;
use ipc::time::VirtualTime;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// How many answer bytes can wait; more than one unanswered command leaves behind.
pub const ANSWER_BYTES: usize = 16;
/// How many key strokes (down or up) can wait for room in the buffer.
pub const WAITING_STROKES: usize = 1024;

/// One bit for each of 256 things.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bits256([u8; 32]);

impl Bits256 {
    /// All bits set.
    pub const ALL: Self = Self([0xff; 32]);

    /// Reads a bit.
    pub fn get(&self, index: u8) -> bool {
        self.0[usize::from(index >> 3)] & 1 << (index & 7) != 0
    }

    /// Writes a bit.
    pub fn set(&mut self, index: u8, value: bool) {
        let byte = &mut self.0[usize::from(index >> 3)];
        *byte = *byte & !(1 << (index & 7)) | u8::from(value) << (index & 7);
    }

    /// How many bits are set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }
}

/// Something that the fingers did and the buffer has no room for yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stroke {
    /// A key went down.
    Down(Key),
    /// A key went up.
    Up(Key),
    /// Strokes were lost here.
    Overrun,
}

/// Which byte the keyboard expects next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expecting {
    /// A command.
    #[default]
    Command,
    /// The option byte of the command.
    Option(u8),
    /// Scan codes of keys that get a type, for the command.
    KeyList(u8),
}

/// The key that repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeat {
    /// The key pressed last.
    pub key: Key,
    /// When it repeats next.
    pub at: VirtualTime,
}

/// The keyboard's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Scan code set in use.
    pub set: ScanCodeSet,
    /// Status indicators, as the option byte.
    pub leds: u8,
    /// Typematic rate and delay, as the option byte.
    pub typematic: u8,
    /// Whether keys are looked at.
    pub scanning: bool,
    /// Which byte comes next.
    pub expecting: Expecting,
    /// Answers to commands: they go before the buffer.
    pub answers: VecDeque<u8>,
    /// The buffer of scan codes.
    pub buffer: VecDeque<u8>,
    /// Strokes that wait for room in the buffer.
    pub waiting: VecDeque<Stroke>,
    /// For Resend.
    pub last_sent: u8,
    /// When the self-test ends, while it runs.
    pub self_test_ends: Option<VirtualTime>,
    /// The key that repeats.
    pub repeat: Option<Repeat>,
    /// Keys that are down, by usage ID, at the end of `waiting`.
    pub down: Bits256,
    /// Keys that are down as far as the buffer tells.
    pub held: Bits256,
    /// Set 3 codes of the keys that repeat in set 3.
    pub set3_typematic: Bits256,
    /// Set 3 codes of the keys that send break codes in set 3.
    pub set3_break: Bits256,
}

impl Default for State {
    /// The state at the start of the self-test.
    fn default() -> Self {
        let mut state = Self {
            set: ScanCodeSet::default(),
            leds: 0,
            typematic: DEFAULT_TYPEMATIC,
            scanning: true,
            expecting: Expecting::Command,
            answers: VecDeque::new(),
            buffer: VecDeque::new(),
            waiting: VecDeque::new(),
            last_sent: 0,
            self_test_ends: None,
            repeat: None,
            down: Bits256::default(),
            held: Bits256::default(),
            set3_typematic: Bits256::default(),
            set3_break: Bits256::default(),
        };
        state.set_default_key_types();
        state
    }
}

pack_variants!(ScanCodeSet);
pack_fields!(Repeat { key, at });

impl Pack for Key {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        self.0.pack(room);
    }
}

impl Pack for Expecting {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        match *self {
            Self::Command => 0u8.pack(room),
            Self::Option(command) => (1u8, command).pack(room),
            Self::KeyList(command) => (2u8, command).pack(room),
        }
    }
}

impl Pack for Stroke {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        match *self {
            Self::Down(key) => (0u8, key).pack(room),
            Self::Up(key) => (1u8, key).pack(room),
            Self::Overrun => 2u8.pack(room),
        }
    }
}

impl State {
    /// Appends the state as it is saved.
    pub fn save(&self, out: &mut Vec<u8>) {
        let keys = [&self.down, &self.held, &self.set3_typematic, &self.set3_break].map(|bits| &bits.0);
        pack(
            (
                (self.set, self.leds, self.typematic, self.scanning, self.expecting),
                (Many(self.answers.iter()), Many(self.buffer.iter()), Many(self.waiting.iter())),
                (self.last_sent, self.self_test_ends, self.repeat, keys),
            ),
            out,
        );
    }

    /// Gives each key its set 3 type after power-on.
    pub fn set_default_key_types(&mut self) {
        self.set3_typematic = Bits256::default();
        self.set3_break = Bits256::default();
        for row in KEYS {
            self.set_key_type(row.set3, row.set3_type);
        }
    }

    /// Gives the key with a set 3 code a type.
    pub fn set_key_type(&mut self, code: u8, key_type: KeyType) {
        use KeyType::{MakeBreak, Typematic, TypematicMakeBreak};
        self.set3_typematic.set(code, matches!(key_type, Typematic | TypematicMakeBreak));
        self.set3_break.set(code, matches!(key_type, MakeBreak | TypematicMakeBreak));
    }

    /// Gives all keys the same type.
    pub fn set_all_key_types(&mut self, key_type: KeyType) {
        for row in KEYS {
            self.set_key_type(row.set3, key_type);
        }
    }

    /// Refuses what a keyboard cannot be in.
    ///
    /// # Errors
    /// [`StateError::OutOfRange`].
    pub fn validate(&self) -> Result<(), StateError> {
        let check = |ok: bool, what| if ok { Ok(()) } else { Err(StateError::OutOfRange(what)) };
        check(self.leds & !LED_MASK == 0, "status indicators")?;
        check(self.typematic & !TYPEMATIC_MASK == 0, "typematic rate")?;
        check(self.answers.len() <= ANSWER_BYTES, "answers")?;
        check(self.buffer.len() <= BUFFER_BYTES, "scan code buffer")?;
        // Releases of keys that are down, and overrun marks after them, must find room.
        check(self.waiting.len() + 2 * self.down.count() <= WAITING_STROKES, "waiting strokes")?;
        match self.expecting {
            Expecting::Command => Ok(()),
            Expecting::Option(command) | Expecting::KeyList(command) => {
                check(command >= FIRST_COMMAND, "pending command")
            }
        }
    }
}
