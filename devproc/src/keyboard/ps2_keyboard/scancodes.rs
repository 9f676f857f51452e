//! What each key sends in the three scan code sets.
//!
//! From the tables of the IBM PS/2 Hardware Interface Technical Reference, "101/102-Key
//! Keyboard", "Scan Code Tables"; the Windows keys as in Microsoft's "Keyboard Scan Code
//! Specification".

use super::spec::LED_NUM_LOCK;
use ipc::input::Key;
use serde::{Deserialize, Serialize};

/// Prefix of the keys that the 84-key keyboard did not have.
const EXTENDED: u8 = 0xe0;
/// Prefix of Pause.
const EXTENDED_PAUSE: u8 = 0xe1;
/// Prefix of a break code in sets 2 and 3.
const BREAK_PREFIX: u8 = 0xf0;
/// Mark of a break code in set 1.
const BREAK_BIT: u8 = 0x80;

/// A scan code set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ScanCodeSet {
    /// PC and XT.
    Set1,
    /// AT; the set after power-on.
    #[default]
    Set2,
    /// Terminals: one code per key, each key's behaviour selectable.
    Set3,
}

impl ScanCodeSet {
    /// The set that an option byte of F0h selects.
    pub fn from_option(option: u8) -> Option<Self> {
        match option {
            1 => Some(Self::Set1),
            2 => Some(Self::Set2),
            3 => Some(Self::Set3),
            _ => None,
        }
    }

    /// The number that the keyboard gives when asked.
    pub fn number(self) -> u8 {
        match self {
            Self::Set1 => 1,
            Self::Set2 => 2,
            Self::Set3 => 3,
        }
    }
}

/// How a key's codes depend on others, in sets 1 and 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One code.
    Plain,
    /// One code after E0h.
    Extended,
    /// As `Extended`, hidden from Shift and Num Lock: the keys between the letters and the keypad.
    Navigation,
    /// As `Extended`, hidden from Shift: the keypad's divide key.
    Divide,
    /// Print Screen / System Request.
    PrintScreen,
    /// Pause / Break: makes and breaks at once.
    Pause,
}

/// What a key does in set 3 after power-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// Repeats; no break code.
    Typematic,
    /// Make and break code; does not repeat.
    MakeBreak,
    /// Make code only.
    Make,
    /// Repeats, and has a break code.
    TypematicMakeBreak,
}

/// One row of the scan code tables.
#[derive(Clone, Copy, Debug)]
pub struct KeyCodes {
    /// The key.
    pub key: Key,
    kind: Kind,
    set1: u8,
    set2: u8,
    /// The code in set 3.
    pub set3: u8,
    /// The type in set 3 after power-on.
    pub set3_type: KeyType,
}

macro_rules! codes {
    ($($key:ident: $kind:ident, $set1:literal, $set2:literal, $set3:literal, $set3_type:ident;)*) => {
        &[$(KeyCodes {
            key: Key::$key,
            kind: Kind::$kind,
            set1: $set1,
            set2: $set2,
            set3: $set3,
            set3_type: KeyType::$set3_type,
        }),*]
    };
}

/// All keys.
#[rustfmt::skip] // A table.
pub const KEYS: &[KeyCodes] = codes! {
    GRAVE: Plain, 0x29, 0x0e, 0x0e, Typematic;
    DIGIT_1: Plain, 0x02, 0x16, 0x16, Typematic;
    DIGIT_2: Plain, 0x03, 0x1e, 0x1e, Typematic;
    DIGIT_3: Plain, 0x04, 0x26, 0x26, Typematic;
    DIGIT_4: Plain, 0x05, 0x25, 0x25, Typematic;
    DIGIT_5: Plain, 0x06, 0x2e, 0x2e, Typematic;
    DIGIT_6: Plain, 0x07, 0x36, 0x36, Typematic;
    DIGIT_7: Plain, 0x08, 0x3d, 0x3d, Typematic;
    DIGIT_8: Plain, 0x09, 0x3e, 0x3e, Typematic;
    DIGIT_9: Plain, 0x0a, 0x46, 0x46, Typematic;
    DIGIT_0: Plain, 0x0b, 0x45, 0x45, Typematic;
    MINUS: Plain, 0x0c, 0x4e, 0x4e, Typematic;
    EQUAL: Plain, 0x0d, 0x55, 0x55, Typematic;
    BACKSPACE: Plain, 0x0e, 0x66, 0x66, Typematic;
    TAB: Plain, 0x0f, 0x0d, 0x0d, Typematic;
    Q: Plain, 0x10, 0x15, 0x15, Typematic;
    W: Plain, 0x11, 0x1d, 0x1d, Typematic;
    E: Plain, 0x12, 0x24, 0x24, Typematic;
    R: Plain, 0x13, 0x2d, 0x2d, Typematic;
    T: Plain, 0x14, 0x2c, 0x2c, Typematic;
    Y: Plain, 0x15, 0x35, 0x35, Typematic;
    U: Plain, 0x16, 0x3c, 0x3c, Typematic;
    I: Plain, 0x17, 0x43, 0x43, Typematic;
    O: Plain, 0x18, 0x44, 0x44, Typematic;
    P: Plain, 0x19, 0x4d, 0x4d, Typematic;
    LEFT_BRACKET: Plain, 0x1a, 0x54, 0x54, Typematic;
    RIGHT_BRACKET: Plain, 0x1b, 0x5b, 0x5b, Typematic;
    BACKSLASH: Plain, 0x2b, 0x5d, 0x5c, Typematic;
    CAPS_LOCK: Plain, 0x3a, 0x58, 0x14, MakeBreak;
    A: Plain, 0x1e, 0x1c, 0x1c, Typematic;
    S: Plain, 0x1f, 0x1b, 0x1b, Typematic;
    D: Plain, 0x20, 0x23, 0x23, Typematic;
    F: Plain, 0x21, 0x2b, 0x2b, Typematic;
    G: Plain, 0x22, 0x34, 0x34, Typematic;
    H: Plain, 0x23, 0x33, 0x33, Typematic;
    J: Plain, 0x24, 0x3b, 0x3b, Typematic;
    K: Plain, 0x25, 0x42, 0x42, Typematic;
    L: Plain, 0x26, 0x4b, 0x4b, Typematic;
    SEMICOLON: Plain, 0x27, 0x4c, 0x4c, Typematic;
    QUOTE: Plain, 0x28, 0x52, 0x52, Typematic;
    ENTER: Plain, 0x1c, 0x5a, 0x5a, Typematic;
    LEFT_SHIFT: Plain, 0x2a, 0x12, 0x12, MakeBreak;
    NON_US_BACKSLASH: Plain, 0x56, 0x61, 0x13, Typematic;
    Z: Plain, 0x2c, 0x1a, 0x1a, Typematic;
    X: Plain, 0x2d, 0x22, 0x22, Typematic;
    C: Plain, 0x2e, 0x21, 0x21, Typematic;
    V: Plain, 0x2f, 0x2a, 0x2a, Typematic;
    B: Plain, 0x30, 0x32, 0x32, Typematic;
    N: Plain, 0x31, 0x31, 0x31, Typematic;
    M: Plain, 0x32, 0x3a, 0x3a, Typematic;
    COMMA: Plain, 0x33, 0x41, 0x41, Typematic;
    PERIOD: Plain, 0x34, 0x49, 0x49, Typematic;
    SLASH: Plain, 0x35, 0x4a, 0x4a, Typematic;
    RIGHT_SHIFT: Plain, 0x36, 0x59, 0x59, MakeBreak;
    LEFT_CTRL: Plain, 0x1d, 0x14, 0x11, MakeBreak;
    LEFT_ALT: Plain, 0x38, 0x11, 0x19, MakeBreak;
    SPACE: Plain, 0x39, 0x29, 0x29, Typematic;
    RIGHT_ALT: Extended, 0x38, 0x11, 0x39, Make;
    RIGHT_CTRL: Extended, 0x1d, 0x14, 0x58, Make;
    LEFT_GUI: Extended, 0x5b, 0x1f, 0x8b, MakeBreak;
    RIGHT_GUI: Extended, 0x5c, 0x27, 0x8c, MakeBreak;
    APPLICATION: Extended, 0x5d, 0x2f, 0x8d, MakeBreak;
    INSERT: Navigation, 0x52, 0x70, 0x67, Make;
    DELETE: Navigation, 0x53, 0x71, 0x64, Typematic;
    LEFT: Navigation, 0x4b, 0x6b, 0x61, Typematic;
    HOME: Navigation, 0x47, 0x6c, 0x6e, Make;
    END: Navigation, 0x4f, 0x69, 0x65, Make;
    UP: Navigation, 0x48, 0x75, 0x63, Typematic;
    DOWN: Navigation, 0x50, 0x72, 0x60, Typematic;
    PAGE_UP: Navigation, 0x49, 0x7d, 0x6f, Make;
    PAGE_DOWN: Navigation, 0x51, 0x7a, 0x6d, Make;
    RIGHT: Navigation, 0x4d, 0x74, 0x6a, Typematic;
    NUM_LOCK: Plain, 0x45, 0x77, 0x76, Make;
    KP_7: Plain, 0x47, 0x6c, 0x6c, Make;
    KP_4: Plain, 0x4b, 0x6b, 0x6b, Make;
    KP_1: Plain, 0x4f, 0x69, 0x69, Make;
    KP_SLASH: Divide, 0x35, 0x4a, 0x77, Make;
    KP_8: Plain, 0x48, 0x75, 0x75, Make;
    KP_5: Plain, 0x4c, 0x73, 0x73, Make;
    KP_2: Plain, 0x50, 0x72, 0x72, Make;
    KP_0: Plain, 0x52, 0x70, 0x70, Make;
    KP_ASTERISK: Plain, 0x37, 0x7c, 0x7e, Make;
    KP_9: Plain, 0x49, 0x7d, 0x7d, Make;
    KP_6: Plain, 0x4d, 0x74, 0x74, Make;
    KP_3: Plain, 0x51, 0x7a, 0x7a, Make;
    KP_PERIOD: Plain, 0x53, 0x71, 0x71, Make;
    KP_MINUS: Plain, 0x4a, 0x7b, 0x84, Make;
    KP_PLUS: Plain, 0x4e, 0x79, 0x7c, Typematic;
    KP_ENTER: Extended, 0x1c, 0x5a, 0x79, Make;
    ESCAPE: Plain, 0x01, 0x76, 0x08, Make;
    F1: Plain, 0x3b, 0x05, 0x07, Make;
    F2: Plain, 0x3c, 0x06, 0x0f, Make;
    F3: Plain, 0x3d, 0x04, 0x17, Make;
    F4: Plain, 0x3e, 0x0c, 0x1f, Make;
    F5: Plain, 0x3f, 0x03, 0x27, Make;
    F6: Plain, 0x40, 0x0b, 0x2f, Make;
    F7: Plain, 0x41, 0x83, 0x37, Make;
    F8: Plain, 0x42, 0x0a, 0x3f, Make;
    F9: Plain, 0x43, 0x01, 0x47, Make;
    F10: Plain, 0x44, 0x09, 0x4f, Make;
    F11: Plain, 0x57, 0x78, 0x56, Make;
    F12: Plain, 0x58, 0x07, 0x5e, Make;
    PRINT_SCREEN: PrintScreen, 0x37, 0x7c, 0x57, Make;
    SCROLL_LOCK: Plain, 0x46, 0x7e, 0x5f, Make;
    PAUSE: Pause, 0x45, 0x77, 0x62, Make;
};

const LEFT_SHIFT: CodePair = CodePair { set1: 0x2a, set2: 0x12 };
const RIGHT_SHIFT: CodePair = CodePair { set1: 0x36, set2: 0x59 };
const LEFT_CTRL: CodePair = CodePair { set1: 0x1d, set2: 0x14 };
/// Print Screen while Alt is held.
const SYSTEM_REQUEST: CodePair = CodePair { set1: 0x54, set2: 0x84 };
/// Pause while Ctrl is held.
const BREAK_KEY: CodePair = CodePair { set1: 0x46, set2: 0x7e };

#[derive(Clone, Copy)]
struct CodePair {
    set1: u8,
    set2: u8,
}

/// What the keyboard itself knows of the keys held, as far as other keys' codes depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modifiers {
    /// Left Shift is held.
    pub left_shift: bool,
    /// Right Shift is held.
    pub right_shift: bool,
    /// A Ctrl key is held.
    pub ctrl: bool,
    /// An Alt key is held.
    pub alt: bool,
    /// The status indicators; Num Lock is known from its light.
    pub leds: u8,
}

/// The row of `key`.
pub fn find(key: Key) -> Option<&'static KeyCodes> {
    KEYS.iter().find(|row| row.key == key)
}

impl KeyCodes {
    /// Whether the key repeats in sets 1 and 2.
    pub fn repeats(&self) -> bool {
        self.kind != Kind::Pause
    }

    /// What the key sends when it goes down.
    pub fn make(&self, set: ScanCodeSet, modifiers: Modifiers) -> Vec<u8> {
        let mut out = Sequence::new(set);
        if set == ScanCodeSet::Set3 {
            out.bytes.push(self.set3);
            return out.bytes;
        }
        let own = CodePair { set1: self.set1, set2: self.set2 };
        match self.kind {
            Kind::Plain => out.make(own),
            Kind::Extended => out.extended_make(own),
            Kind::Navigation | Kind::Divide => {
                match self.disguise(modifiers) {
                    Disguise::None => {}
                    Disguise::ReleaseShift => {
                        if modifiers.left_shift {
                            out.extended_break(LEFT_SHIFT);
                        }
                        if modifiers.right_shift {
                            out.extended_break(RIGHT_SHIFT);
                        }
                    }
                    Disguise::PressShift => out.extended_make(LEFT_SHIFT),
                }
                out.extended_make(own);
            }
            Kind::PrintScreen if modifiers.alt => out.make(SYSTEM_REQUEST),
            Kind::PrintScreen => {
                if !(modifiers.ctrl || modifiers.left_shift || modifiers.right_shift) {
                    out.extended_make(LEFT_SHIFT);
                }
                out.extended_make(own);
            }
            Kind::Pause if modifiers.ctrl => {
                out.extended_make(BREAK_KEY);
                out.extended_break(BREAK_KEY);
            }
            Kind::Pause => {
                out.bytes.push(EXTENDED_PAUSE);
                out.make(LEFT_CTRL);
                out.make(own);
                out.bytes.push(EXTENDED_PAUSE);
                out.break_(LEFT_CTRL);
                out.break_(own);
            }
        }
        out.bytes
    }

    /// What the key sends when it repeats: the make code without the disguise.
    pub fn repeat(&self, set: ScanCodeSet, modifiers: Modifiers) -> Vec<u8> {
        let own = CodePair { set1: self.set1, set2: self.set2 };
        let disguised = match self.kind {
            Kind::Navigation | Kind::Divide => true,
            Kind::PrintScreen => !modifiers.alt,
            Kind::Plain | Kind::Extended | Kind::Pause => false,
        };
        if set == ScanCodeSet::Set3 || !disguised {
            return self.make(set, modifiers);
        }
        let mut out = Sequence::new(set);
        out.extended_make(own);
        out.bytes
    }

    /// What the key sends when it goes up.
    pub fn break_(&self, set: ScanCodeSet, modifiers: Modifiers) -> Vec<u8> {
        let mut out = Sequence::new(set);
        if set == ScanCodeSet::Set3 {
            out.bytes.extend([BREAK_PREFIX, self.set3]);
            return out.bytes;
        }
        let own = CodePair { set1: self.set1, set2: self.set2 };
        match self.kind {
            Kind::Plain => out.break_(own),
            Kind::Extended => out.extended_break(own),
            Kind::Navigation | Kind::Divide => {
                out.extended_break(own);
                match self.disguise(modifiers) {
                    Disguise::None => {}
                    Disguise::ReleaseShift => {
                        if modifiers.right_shift {
                            out.extended_make(RIGHT_SHIFT);
                        }
                        if modifiers.left_shift {
                            out.extended_make(LEFT_SHIFT);
                        }
                    }
                    Disguise::PressShift => out.extended_break(LEFT_SHIFT),
                }
            }
            Kind::PrintScreen if modifiers.alt => out.break_(SYSTEM_REQUEST),
            Kind::PrintScreen => {
                out.extended_break(own);
                if !(modifiers.ctrl || modifiers.left_shift || modifiers.right_shift) {
                    out.extended_break(LEFT_SHIFT);
                }
            }
            Kind::Pause => {}
        }
        out.bytes
    }

    /// How the keyboard makes a key that the 84-key keyboard had only on the keypad mean the
    /// same there: to software that skips E0h it must look like the keypad key, unshifted.
    fn disguise(&self, modifiers: Modifiers) -> Disguise {
        let shift = modifiers.left_shift || modifiers.right_shift;
        let num_lock = modifiers.leds & LED_NUM_LOCK != 0 && self.kind == Kind::Navigation;
        match (shift, num_lock) {
            (true, false) => Disguise::ReleaseShift,
            (false, true) => Disguise::PressShift,
            (false, false) | (true, true) => Disguise::None,
        }
    }
}

#[derive(Clone, Copy)]
enum Disguise {
    None,
    ReleaseShift,
    PressShift,
}

/// A byte sequence of set 1 or 2.
struct Sequence {
    set: ScanCodeSet,
    bytes: Vec<u8>,
}

impl Sequence {
    fn new(set: ScanCodeSet) -> Self {
        Self { set, bytes: Vec::new() }
    }

    fn make(&mut self, code: CodePair) {
        self.bytes.push(if self.set == ScanCodeSet::Set1 { code.set1 } else { code.set2 });
    }

    fn break_(&mut self, code: CodePair) {
        if self.set == ScanCodeSet::Set1 {
            self.bytes.push(code.set1 | BREAK_BIT);
        } else {
            self.bytes.extend([BREAK_PREFIX, code.set2]);
        }
    }

    fn extended_make(&mut self, code: CodePair) {
        self.bytes.push(EXTENDED);
        self.make(code);
    }

    fn extended_break(&mut self, code: CodePair) {
        self.bytes.push(EXTENDED);
        self.break_(code);
    }
}
