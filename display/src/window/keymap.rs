//! Keys of the window system, by their place on the keyboard, as keys of the virtual PC.

use ipc::input::Key;
use winit::keyboard::{KeyCode, PhysicalKey};

/// Each key of a PC keyboard.
const KEYS: &[(KeyCode, Key)] = &[
    (KeyCode::KeyA, Key::A),
    (KeyCode::KeyB, Key::B),
    (KeyCode::KeyC, Key::C),
    (KeyCode::KeyD, Key::D),
    (KeyCode::KeyE, Key::E),
    (KeyCode::KeyF, Key::F),
    (KeyCode::KeyG, Key::G),
    (KeyCode::KeyH, Key::H),
    (KeyCode::KeyI, Key::I),
    (KeyCode::KeyJ, Key::J),
    (KeyCode::KeyK, Key::K),
    (KeyCode::KeyL, Key::L),
    (KeyCode::KeyM, Key::M),
    (KeyCode::KeyN, Key::N),
    (KeyCode::KeyO, Key::O),
    (KeyCode::KeyP, Key::P),
    (KeyCode::KeyQ, Key::Q),
    (KeyCode::KeyR, Key::R),
    (KeyCode::KeyS, Key::S),
    (KeyCode::KeyT, Key::T),
    (KeyCode::KeyU, Key::U),
    (KeyCode::KeyV, Key::V),
    (KeyCode::KeyW, Key::W),
    (KeyCode::KeyX, Key::X),
    (KeyCode::KeyY, Key::Y),
    (KeyCode::KeyZ, Key::Z),
    (KeyCode::Digit1, Key::DIGIT_1),
    (KeyCode::Digit2, Key::DIGIT_2),
    (KeyCode::Digit3, Key::DIGIT_3),
    (KeyCode::Digit4, Key::DIGIT_4),
    (KeyCode::Digit5, Key::DIGIT_5),
    (KeyCode::Digit6, Key::DIGIT_6),
    (KeyCode::Digit7, Key::DIGIT_7),
    (KeyCode::Digit8, Key::DIGIT_8),
    (KeyCode::Digit9, Key::DIGIT_9),
    (KeyCode::Digit0, Key::DIGIT_0),
    (KeyCode::Enter, Key::ENTER),
    (KeyCode::Escape, Key::ESCAPE),
    (KeyCode::Backspace, Key::BACKSPACE),
    (KeyCode::Tab, Key::TAB),
    (KeyCode::Space, Key::SPACE),
    (KeyCode::Minus, Key::MINUS),
    (KeyCode::Equal, Key::EQUAL),
    (KeyCode::BracketLeft, Key::LEFT_BRACKET),
    (KeyCode::BracketRight, Key::RIGHT_BRACKET),
    (KeyCode::Backslash, Key::BACKSLASH),
    (KeyCode::Semicolon, Key::SEMICOLON),
    (KeyCode::Quote, Key::QUOTE),
    (KeyCode::Backquote, Key::GRAVE),
    (KeyCode::Comma, Key::COMMA),
    (KeyCode::Period, Key::PERIOD),
    (KeyCode::Slash, Key::SLASH),
    (KeyCode::CapsLock, Key::CAPS_LOCK),
    (KeyCode::F1, Key::F1),
    (KeyCode::F2, Key::F2),
    (KeyCode::F3, Key::F3),
    (KeyCode::F4, Key::F4),
    (KeyCode::F5, Key::F5),
    (KeyCode::F6, Key::F6),
    (KeyCode::F7, Key::F7),
    (KeyCode::F8, Key::F8),
    (KeyCode::F9, Key::F9),
    (KeyCode::F10, Key::F10),
    (KeyCode::F11, Key::F11),
    (KeyCode::F12, Key::F12),
    (KeyCode::PrintScreen, Key::PRINT_SCREEN),
    (KeyCode::ScrollLock, Key::SCROLL_LOCK),
    (KeyCode::Pause, Key::PAUSE),
    (KeyCode::Insert, Key::INSERT),
    (KeyCode::Home, Key::HOME),
    (KeyCode::PageUp, Key::PAGE_UP),
    (KeyCode::Delete, Key::DELETE),
    (KeyCode::End, Key::END),
    (KeyCode::PageDown, Key::PAGE_DOWN),
    (KeyCode::ArrowRight, Key::RIGHT),
    (KeyCode::ArrowLeft, Key::LEFT),
    (KeyCode::ArrowDown, Key::DOWN),
    (KeyCode::ArrowUp, Key::UP),
    (KeyCode::NumLock, Key::NUM_LOCK),
    (KeyCode::NumpadDivide, Key::KP_SLASH),
    (KeyCode::NumpadMultiply, Key::KP_ASTERISK),
    (KeyCode::NumpadSubtract, Key::KP_MINUS),
    (KeyCode::NumpadAdd, Key::KP_PLUS),
    (KeyCode::NumpadEnter, Key::KP_ENTER),
    (KeyCode::Numpad1, Key::KP_1),
    (KeyCode::Numpad2, Key::KP_2),
    (KeyCode::Numpad3, Key::KP_3),
    (KeyCode::Numpad4, Key::KP_4),
    (KeyCode::Numpad5, Key::KP_5),
    (KeyCode::Numpad6, Key::KP_6),
    (KeyCode::Numpad7, Key::KP_7),
    (KeyCode::Numpad8, Key::KP_8),
    (KeyCode::Numpad9, Key::KP_9),
    (KeyCode::Numpad0, Key::KP_0),
    (KeyCode::NumpadDecimal, Key::KP_PERIOD),
    (KeyCode::IntlBackslash, Key::NON_US_BACKSLASH),
    (KeyCode::ContextMenu, Key::APPLICATION),
    (KeyCode::ControlLeft, Key::LEFT_CTRL),
    (KeyCode::ShiftLeft, Key::LEFT_SHIFT),
    (KeyCode::AltLeft, Key::LEFT_ALT),
    (KeyCode::SuperLeft, Key::LEFT_GUI),
    (KeyCode::ControlRight, Key::RIGHT_CTRL),
    (KeyCode::ShiftRight, Key::RIGHT_SHIFT),
    (KeyCode::AltRight, Key::RIGHT_ALT),
    (KeyCode::SuperRight, Key::RIGHT_GUI),
];

/// The virtual PC's key in the same place, if its keyboard has one there.
pub fn key_at(place: PhysicalKey) -> Option<Key> {
    let PhysicalKey::Code(code) = place else { return None };
    KEYS.iter().find(|(known, _)| *known == code).map(|(_, key)| *key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_virtual_pc_can_be_struck_in_one_way() {
        for (key, name) in Key::ALL {
            assert_eq!(KEYS.iter().filter(|(_, known)| known == key).count(), 1, "{name}");
        }
        for (code, key) in KEYS {
            assert_eq!(key_at(PhysicalKey::Code(*code)), Some(*key));
        }
    }

    #[test]
    fn keys_that_a_pc_lacks_are_none() {
        assert_eq!(key_at(PhysicalKey::Code(KeyCode::MediaPlayPause)), None);
    }
}
