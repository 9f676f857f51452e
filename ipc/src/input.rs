//! Events that come from the person or the tool in front of the virtual PC, not from the guest.

use serde::{Deserialize, Serialize};

/// A key, named by its usage ID on the keyboard page (07h) of the USB HID Usage Tables.
///
/// It names a place on the keyboard, not a character: `Key::A` is the key right of Caps Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Key(pub u8);

macro_rules! keys {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl Key {
            $(#[doc = concat!("The key `", $text, "`.")] pub const $name: Key = Key($code);)*

            /// Every key that VMSim knows, with the name that `vmsim key` takes.
            pub const ALL: &'static [(Key, &'static str)] = &[$((Key::$name, $text)),*];
        }
    };
}

keys! {
    A = 0x04, "a"; B = 0x05, "b"; C = 0x06, "c"; D = 0x07, "d"; E = 0x08, "e"; F = 0x09, "f";
    G = 0x0a, "g"; H = 0x0b, "h"; I = 0x0c, "i"; J = 0x0d, "j"; K = 0x0e, "k"; L = 0x0f, "l";
    M = 0x10, "m"; N = 0x11, "n"; O = 0x12, "o"; P = 0x13, "p"; Q = 0x14, "q"; R = 0x15, "r";
    S = 0x16, "s"; T = 0x17, "t"; U = 0x18, "u"; V = 0x19, "v"; W = 0x1a, "w"; X = 0x1b, "x";
    Y = 0x1c, "y"; Z = 0x1d, "z";
    DIGIT_1 = 0x1e, "1"; DIGIT_2 = 0x1f, "2"; DIGIT_3 = 0x20, "3"; DIGIT_4 = 0x21, "4"; DIGIT_5 = 0x22, "5";
    DIGIT_6 = 0x23, "6"; DIGIT_7 = 0x24, "7"; DIGIT_8 = 0x25, "8"; DIGIT_9 = 0x26, "9"; DIGIT_0 = 0x27, "0";
    ENTER = 0x28, "enter"; ESCAPE = 0x29, "esc"; BACKSPACE = 0x2a, "backspace"; TAB = 0x2b, "tab";
    SPACE = 0x2c, "space"; MINUS = 0x2d, "minus"; EQUAL = 0x2e, "equal"; LEFT_BRACKET = 0x2f, "leftbracket";
    RIGHT_BRACKET = 0x30, "rightbracket"; BACKSLASH = 0x31, "backslash"; SEMICOLON = 0x33, "semicolon";
    QUOTE = 0x34, "quote"; GRAVE = 0x35, "grave"; COMMA = 0x36, "comma"; PERIOD = 0x37, "period";
    SLASH = 0x38, "slash"; CAPS_LOCK = 0x39, "capslock";
    F1 = 0x3a, "f1"; F2 = 0x3b, "f2"; F3 = 0x3c, "f3"; F4 = 0x3d, "f4"; F5 = 0x3e, "f5"; F6 = 0x3f, "f6";
    F7 = 0x40, "f7"; F8 = 0x41, "f8"; F9 = 0x42, "f9"; F10 = 0x43, "f10"; F11 = 0x44, "f11"; F12 = 0x45, "f12";
    PRINT_SCREEN = 0x46, "printscreen"; SCROLL_LOCK = 0x47, "scrolllock"; PAUSE = 0x48, "pause";
    INSERT = 0x49, "insert"; HOME = 0x4a, "home"; PAGE_UP = 0x4b, "pageup"; DELETE = 0x4c, "del";
    END = 0x4d, "end"; PAGE_DOWN = 0x4e, "pagedown"; RIGHT = 0x4f, "right"; LEFT = 0x50, "left";
    DOWN = 0x51, "down"; UP = 0x52, "up"; NUM_LOCK = 0x53, "numlock"; KP_SLASH = 0x54, "kpslash";
    KP_ASTERISK = 0x55, "kpasterisk"; KP_MINUS = 0x56, "kpminus"; KP_PLUS = 0x57, "kpplus"; KP_ENTER = 0x58, "kpenter";
    KP_1 = 0x59, "kp1"; KP_2 = 0x5a, "kp2"; KP_3 = 0x5b, "kp3"; KP_4 = 0x5c, "kp4"; KP_5 = 0x5d, "kp5";
    KP_6 = 0x5e, "kp6"; KP_7 = 0x5f, "kp7"; KP_8 = 0x60, "kp8"; KP_9 = 0x61, "kp9"; KP_0 = 0x62, "kp0";
    KP_PERIOD = 0x63, "kpperiod"; NON_US_BACKSLASH = 0x64, "nonusbackslash"; APPLICATION = 0x65, "menu";
    LEFT_CTRL = 0xe0, "ctrl"; LEFT_SHIFT = 0xe1, "shift"; LEFT_ALT = 0xe2, "alt"; LEFT_GUI = 0xe3, "win";
    RIGHT_CTRL = 0xe4, "rctrl"; RIGHT_SHIFT = 0xe5, "rshift"; RIGHT_ALT = 0xe6, "altgr"; RIGHT_GUI = 0xe7, "rwin";
}

/// Something that happened in the outside world and concerns a device model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostEvent {
    /// A key went down or up. Repetition is the keyboard model's own business (typematic).
    Key {
        /// Which key.
        key: Key,
        /// True when it went down.
        pressed: bool,
    },
    /// The mouse moved or a button changed.
    Mouse {
        /// Movement to the right, in counts.
        dx: i16,
        /// Movement *up*, in counts (the PS/2 direction).
        dy: i16,
        /// Wheel movement towards the user, in notches.
        dz: i8,
        /// Buttons held: bit 0 left, bit 1 right, bit 2 middle.
        buttons: u8,
    },
    /// Something changed at the other end of a serial port's cable: characters came, or somebody
    /// connected or left. The characters themselves wait in shared memory ([`crate::serial`]).
    Serial,
}
