//! Which keys of a US keyboard type a text.

use ipc::input::Key;
use std::time::Duration;
use thiserror::Error;

/// How long whoever types a text should wait between two characters. Firmware and DOS keep
/// 15 characters and drop the rest, so a text must not come much faster than they read.
pub const CHARACTER_INTERVAL: Duration = Duration::from_millis(15);

/// A key going down or up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stroke {
    /// Which key.
    pub key: Key,
    /// True when it goes down.
    pub pressed: bool,
}

/// A key, and the keys held while it is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Combination {
    /// The key struck.
    pub key: Key,
    /// Shift is held.
    pub shift: bool,
    /// Ctrl is held.
    pub ctrl: bool,
    /// Alt is held.
    pub alt: bool,
}

impl Combination {
    /// A key alone.
    pub const fn plain(key: Key) -> Self {
        Self { key, shift: false, ctrl: false, alt: false }
    }

    /// With Shift.
    pub const fn shifted(key: Key) -> Self {
        Self { shift: true, ..Self::plain(key) }
    }

    /// The strokes: held keys down, key down and up, held keys up in the other order.
    pub fn strokes(self) -> Vec<Stroke> {
        let held = [(self.ctrl, Key::LEFT_CTRL), (self.alt, Key::LEFT_ALT), (self.shift, Key::LEFT_SHIFT)]
            .into_iter()
            .filter_map(|(held, key)| held.then_some(key));
        let keys: Vec<Key> = held.chain([self.key]).collect();
        let down = keys.iter().map(|key| Stroke { key: *key, pressed: true });
        let up = keys.iter().rev().map(|key| Stroke { key: *key, pressed: false });
        down.chain(up).collect()
    }
}

/// Why a text cannot be typed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TypingError {
    /// No key of a US keyboard gives this character.
    #[error("No key of a US keyboard types {character:?} (character {position} of the text)")]
    NoKey {
        /// The character.
        character: char,
        /// Its place in the text, from 1.
        position: usize,
    },
    /// A backslash before something that it gives no meaning.
    #[error("Unknown escape \\{0} in the text; known are \\n \\t \\e \\b \\\\")]
    UnknownEscape(char),
    /// A backslash at the end.
    #[error("The text ends in a backslash; write \\\\ for a backslash")]
    LoneBackslash,
}

/// The characters of the keys of a US keyboard, alone and with Shift.
const PRINTABLE: &[(Key, char, char)] = &[
    (Key::GRAVE, '`', '~'),
    (Key::DIGIT_1, '1', '!'),
    (Key::DIGIT_2, '2', '@'),
    (Key::DIGIT_3, '3', '#'),
    (Key::DIGIT_4, '4', '$'),
    (Key::DIGIT_5, '5', '%'),
    (Key::DIGIT_6, '6', '^'),
    (Key::DIGIT_7, '7', '&'),
    (Key::DIGIT_8, '8', '*'),
    (Key::DIGIT_9, '9', '('),
    (Key::DIGIT_0, '0', ')'),
    (Key::MINUS, '-', '_'),
    (Key::EQUAL, '=', '+'),
    (Key::LEFT_BRACKET, '[', '{'),
    (Key::RIGHT_BRACKET, ']', '}'),
    (Key::BACKSLASH, '\\', '|'),
    (Key::SEMICOLON, ';', ':'),
    (Key::QUOTE, '\'', '"'),
    (Key::COMMA, ',', '<'),
    (Key::PERIOD, '.', '>'),
    (Key::SLASH, '/', '?'),
];

/// The keys that type `character`, if any do.
pub fn combination_for(character: char) -> Option<Combination> {
    let letter = |letter: u8| Key(Key::A.0 + (letter - b'a'));
    match character {
        '\n' | '\r' => Some(Combination::plain(Key::ENTER)),
        '\t' => Some(Combination::plain(Key::TAB)),
        '\x1b' => Some(Combination::plain(Key::ESCAPE)),
        '\x08' | '\x7f' => Some(Combination::plain(Key::BACKSPACE)),
        ' ' => Some(Combination::plain(Key::SPACE)),
        'a'..='z' => Some(Combination::plain(letter(character as u8))),
        'A'..='Z' => Some(Combination::shifted(letter(character.to_ascii_lowercase() as u8))),
        '\x01'..='\x1a' => {
            Some(Combination { ctrl: true, ..Combination::plain(letter(character as u8 - 1 + b'a')) })
        }
        _ => PRINTABLE.iter().find_map(|(key, plain, shifted)| match character {
            c if c == *plain => Some(Combination::plain(*key)),
            c if c == *shifted => Some(Combination::shifted(*key)),
            _ => None,
        }),
    }
}

/// Replaces `\n`, `\t`, `\e` (Escape), `\b` (Backspace) and `\\`.
///
/// # Errors
/// [`TypingError`] for any other use of a backslash.
pub fn unescape(text: &str) -> Result<String, TypingError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        out.push(match character {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('e') => '\x1b',
                Some('b') => '\x08',
                Some('\\') => '\\',
                Some(other) => return Err(TypingError::UnknownEscape(other)),
                None => return Err(TypingError::LoneBackslash),
            },
            other => other,
        });
    }
    Ok(out)
}

/// The combinations that type `text`, one per character.
///
/// # Errors
/// [`TypingError::NoKey`] for the first character without a key; nothing is to be typed then.
pub fn combinations_for(text: &str) -> Result<Vec<Combination>, TypingError> {
    text.chars()
        .enumerate()
        .map(|(index, character)| {
            combination_for(character).ok_or(TypingError::NoKey { character, position: index + 1 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_ascii_character_has_its_own_keys() {
        let mut seen = BTreeSet::new();
        for character in ' '..='~' {
            let combination = combination_for(character).expect("a key");
            assert!(seen.insert((combination.key.0, combination.shift)), "{character}");
        }
    }

    #[test]
    fn shift_is_held_around_the_key() {
        let strokes: Vec<_> = combination_for('A')
            .expect("a key")
            .strokes()
            .into_iter()
            .map(|stroke| (stroke.key, stroke.pressed))
            .collect();
        let expected = [(Key::LEFT_SHIFT, true), (Key::A, true), (Key::A, false), (Key::LEFT_SHIFT, false)];
        assert_eq!(strokes, expected);
    }

    #[test]
    fn commands_of_a_shell_are_typed() {
        let keys: Vec<_> = combinations_for("dir c:\\\n").expect("all on the keyboard");
        let expected = [
            Combination::plain(Key::D),
            Combination::plain(Key::I),
            Combination::plain(Key::R),
            Combination::plain(Key::SPACE),
            Combination::plain(Key::C),
            Combination::shifted(Key::SEMICOLON),
            Combination::plain(Key::BACKSLASH),
            Combination::plain(Key::ENTER),
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn escapes_become_characters() {
        assert_eq!(unescape(r"a\tb\n\e\\n").as_deref(), Ok("a\tb\n\x1b\\n"));
        assert_eq!(unescape(r"c:\dos"), Err(TypingError::UnknownEscape('d')));
        assert_eq!(unescape("\\"), Err(TypingError::LoneBackslash));
    }

    #[test]
    fn control_characters_are_ctrl_and_a_letter() {
        let combination = combination_for('\x03').expect("Ctrl+C");
        assert_eq!(combination, Combination { ctrl: true, ..Combination::plain(Key::C) });
    }

    #[test]
    fn character_without_a_key_is_named_with_its_place() {
        assert_eq!(combinations_for("naïve"), Err(TypingError::NoKey { character: 'ï', position: 3 }));
    }
}
