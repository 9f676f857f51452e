//! The demo guest built into the ROM: a menu and six pages that show the devices at work.

mod clock;
mod graphics;
mod menu;
mod pages;
mod print;

use super::asm::{Asm, AsmResult};
use super::screen::{COLUMNS, Screen, cell};

/// Attributes of the demo's screens.
mod look {
    pub const BAR: u8 = 0x70;
    pub const BAR_STRONG: u8 = 0x74;
    pub const GROUND: u8 = 0x17;
    pub const TEXT: u8 = 0x1F;
    pub const FAINT: u8 = 0x13;
    pub const WINDOW: u8 = 0x07;
    pub const LABEL: u8 = 0x03;
    pub const VALUE: u8 = 0x0F;
    pub const KEY: u8 = 0x0E;
    pub const GOOD: u8 = 0x0A;
    pub const BAD: u8 = 0x0C;
}

/// Where every page shows the time since power-on, in the top bar.
const UPTIME: i32 = cell(0, COLUMNS - 10);

/// A screen with the bars that all pages share.
fn page(title: &str, hint: &str) -> Screen {
    let mut screen = Screen::new(look::GROUND);
    screen.fill(0, 0, 1, COLUMNS, ' ', look::BAR);
    screen.text(0, 2, look::BAR_STRONG, "VMSim");
    screen.text(0, 8, look::BAR, title);
    screen.text(0, COLUMNS - 14, look::BAR, "up");
    screen.fill(24, 0, 1, COLUMNS, ' ', look::BAR);
    screen.text(24, 2, look::BAR, hint);
    screen
}

/// Emits the guest; it starts at `demo.start` (INT 18h).
pub fn emit(a: &mut Asm) -> AsmResult {
    menu::emit(a)?;
    pages::emit(a)?;
    graphics::emit(a)?;
    clock::emit(a)?;
    print::emit(a)
}
