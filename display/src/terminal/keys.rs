//! What the terminal says was typed, as keys of the virtual PC.

use crate::typing::{Combination, combination_for};
use ipc::input::Key;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Leave the view: Ctrl+].
    Leave,
    /// Ctrl+Alt+Del for the guest.
    CtrlAltDel,
    /// Keys for the guest.
    Keys(Combination),
    /// Nothing that a PC keyboard has.
    Nothing,
}

/// What `event` asks for.
pub fn meaning(event: KeyEvent) -> Meaning {
    if event.kind == KeyEventKind::Release {
        return Meaning::Nothing; // The press was taken for the whole stroke.
    }
    let ctrl = event.modifiers.contains(KeyModifiers::CONTROL);
    let alt = event.modifiers.contains(KeyModifiers::ALT);
    if ctrl && matches!(event.code, KeyCode::Char(']' | '5')) {
        // The control character 1Dh, which terminals send for Ctrl+] and for Ctrl+5, is told as 5.
        return Meaning::Leave;
    }
    if ctrl && alt && event.code == KeyCode::Delete {
        return Meaning::CtrlAltDel;
    }
    let shift = event.modifiers.contains(KeyModifiers::SHIFT);
    let combination = match event.code {
        // Here the character says whether Shift was held.
        KeyCode::Char(character) => combination_for(printable(character, ctrl)),
        other => named_key(other).map(|key| Combination { shift, ..Combination::plain(key) }),
    };
    match combination {
        Some(combination) => Meaning::Keys(Combination {
            ctrl: ctrl || combination.ctrl,
            alt: alt || combination.alt,
            shift: combination.shift || event.code == KeyCode::BackTab,
            ..combination
        }),
        None => Meaning::Nothing,
    }
}

/// The character of a key. Control characters 1Ch, 1Eh and 1Fh are told as Ctrl and the digit
/// that gives the same; the key with the sign is the one that people mean.
fn printable(character: char, ctrl: bool) -> char {
    match character {
        '4' if ctrl => '\\',
        '7' if ctrl => '/',
        other => other,
    }
}

fn named_key(code: KeyCode) -> Option<Key> {
    Some(match code {
        KeyCode::Enter => Key::ENTER,
        KeyCode::Esc => Key::ESCAPE,
        KeyCode::Backspace => Key::BACKSPACE,
        KeyCode::Tab | KeyCode::BackTab => Key::TAB,
        KeyCode::Left => Key::LEFT,
        KeyCode::Right => Key::RIGHT,
        KeyCode::Up => Key::UP,
        KeyCode::Down => Key::DOWN,
        KeyCode::Home => Key::HOME,
        KeyCode::End => Key::END,
        KeyCode::PageUp => Key::PAGE_UP,
        KeyCode::PageDown => Key::PAGE_DOWN,
        KeyCode::Insert => Key::INSERT,
        KeyCode::Delete => Key::DELETE,
        KeyCode::F(number @ 1..=12) => Key(Key::F1.0 + (number - 1)),
        KeyCode::CapsLock => Key::CAPS_LOCK,
        KeyCode::ScrollLock => Key::SCROLL_LOCK,
        KeyCode::NumLock => Key::NUM_LOCK,
        KeyCode::PrintScreen => Key::PRINT_SCREEN,
        KeyCode::Pause => Key::PAUSE,
        KeyCode::Menu => Key::APPLICATION,
        KeyCode::KeypadBegin => Key::KP_5,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: KeyCode, modifiers: KeyModifiers) -> Meaning {
        meaning(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn characters_are_typed_with_the_shift_they_need() {
        let plain = of(KeyCode::Char('a'), KeyModifiers::NONE);
        assert_eq!(plain, Meaning::Keys(Combination::plain(Key::A)));
        // Some terminals tell of Shift, some do not.
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            let shifted = of(KeyCode::Char('?'), modifiers);
            assert_eq!(shifted, Meaning::Keys(Combination::shifted(Key::SLASH)));
        }
    }

    #[test]
    fn held_keys_are_held_in_the_guest() {
        let copy = of(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(copy, Meaning::Keys(Combination { ctrl: true, ..Combination::plain(Key::C) }));
        let menu = of(KeyCode::Char('f'), KeyModifiers::ALT);
        assert_eq!(menu, Meaning::Keys(Combination { alt: true, ..Combination::plain(Key::F) }));
        let select = of(KeyCode::Left, KeyModifiers::SHIFT);
        assert_eq!(select, Meaning::Keys(Combination::shifted(Key::LEFT)));
        let back = of(KeyCode::BackTab, KeyModifiers::SHIFT);
        assert_eq!(back, Meaning::Keys(Combination::shifted(Key::TAB)));
    }

    #[test]
    fn function_keys_go_from_1_to_12() {
        for (number, key) in (1..=12).zip(Key::F1.0..=Key::F12.0) {
            assert_eq!(
                of(KeyCode::F(number), KeyModifiers::NONE),
                Meaning::Keys(Combination::plain(Key(key)))
            );
        }
        assert_eq!(of(KeyCode::F(13), KeyModifiers::NONE), Meaning::Nothing);
        assert_eq!(of(KeyCode::F(0), KeyModifiers::NONE), Meaning::Nothing);
    }

    #[test]
    fn both_reports_of_the_leave_key_leave() {
        assert_eq!(of(KeyCode::Char(']'), KeyModifiers::CONTROL), Meaning::Leave);
        assert_eq!(of(KeyCode::Char('5'), KeyModifiers::CONTROL), Meaning::Leave);
        assert_ne!(of(KeyCode::Char(']'), KeyModifiers::NONE), Meaning::Leave);
    }

    #[test]
    fn other_events_mean_nothing() {
        assert_eq!(of(KeyCode::Char('ä'), KeyModifiers::NONE), Meaning::Nothing);
        let up = KeyEvent::new_with_kind(KeyCode::Char('a'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(meaning(up), Meaning::Nothing);
        let all = KeyModifiers::CONTROL | KeyModifiers::ALT;
        assert_eq!(of(KeyCode::Delete, all), Meaning::CtrlAltDel);
    }
}
