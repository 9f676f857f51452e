//! Shows a view without a VM: `cargo run -p vmsim-display --example test_pattern -- [OPTIONS]`.
//!
//! `terminal` shows it in the terminal, `integer` scales by whole factors, `full` starts full
//! screen, `quit` ends after five seconds, `animate` changes the picture all the time. Keys:
//! F1 text, F2 320x200, F3 640x480, F4 a smaller text screen; all keys appear on the screen.

use display::source::{Command, Frame, InputSink, ScreenSource, TextScreen, VmStatus};
use display::{Options, Scaling, View};
use ipc::input::Key;
use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Text,
    Low,
    High,
    Small,
}

struct Machine {
    mode: Mode,
    sequence: u64,
    log: Vec<String>,
}

struct Screen {
    machine: Rc<RefCell<Machine>>,
    started: Instant,
    quit: bool,
    animate: bool,
}

struct Input(Rc<RefCell<Machine>>);

fn vga_colour(index: usize) -> u32 {
    let level = |on: usize, bright: usize| (on * 0xaa + bright * 0x55) as u32;
    let (blue, green, red, bright) = (index & 1, index >> 1 & 1, index >> 2 & 1, index >> 3);
    if index == 6 {
        return 0xaa5500;
    }
    level(red, bright) << 16 | level(green, bright) << 8 | level(blue, bright)
}

fn text_screen(machine: &Machine, columns: u16, rows: u16) -> TextScreen {
    let mut cells = vec![0x0720_u16; usize::from(columns) * usize::from(rows)];
    let mut put = |column: usize, row: usize, cell: u16| {
        if column < columns.into() && row < rows.into() {
            cells[row * usize::from(columns) + column] = cell;
        }
    };
    for code in 0..256_usize {
        put(2 + code % 32, 1 + code / 32, 0x1f00 | code as u16);
    }
    for attribute in 0..256_usize {
        put(40 + attribute % 32, 1 + attribute / 32, (attribute as u16) << 8 | 0x41);
    }
    for (row, line) in machine.log.iter().rev().take(12).rev().enumerate() {
        for (column, byte) in line.bytes().enumerate() {
            put(column, 10 + row, 0x0a00 | u16::from(byte));
        }
    }
    let row = (10 + machine.log.len().min(12) as u16).min(rows - 1);
    TextScreen { columns, rows, cells, cursor: Some((0, row)) }
}

fn draw_text(frame: &mut Frame, screen: TextScreen) {
    // There is no font here: a block of the foreground colour in each cell that is not empty.
    (frame.width, frame.height) = (u32::from(screen.columns) * 9, u32::from(screen.rows) * 16);
    frame.pixels = (0..frame.width * frame.height)
        .map(|index| {
            let (x, y) = (index % frame.width, index / frame.width);
            let cell = screen.cells[(y / 16 * u32::from(screen.columns) + x / 9) as usize];
            let attribute = usize::from(cell >> 8);
            let inked = cell as u8 != b' ' && (2..7).contains(&(x % 9)) && (3..13).contains(&(y % 16));
            vga_colour(if inked { attribute & 15 } else { attribute >> 4 & 7 })
        })
        .collect();
    frame.text = Some(screen);
}

fn draw_bars(frame: &mut Frame, width: u32, height: u32, phase: u64) {
    (frame.width, frame.height) = (width, height);
    frame.pixels = (0..width * height)
        .map(|index| {
            let (x, y) = (index % width, index / width);
            let edge = x == 0 || y == 0 || x == width - 1 || y == height - 1;
            let (dx, dy) = (x as i64 * 2 - i64::from(width), y as i64 * 2 - i64::from(height));
            let circle = (dx * dx + dy * dy).isqrt() / 2;
            if edge {
                0xffffff
            } else if (circle - height as i64 / 3).abs() < 2 {
                0xffff00
            } else {
                vga_colour(((u64::from(x) * 16 / u64::from(width) + phase) % 16) as usize)
            }
        })
        .collect();
    frame.text = None;
}

impl ScreenSource for Screen {
    fn changed(&mut self) -> Option<u64> {
        if self.animate {
            self.machine.borrow_mut().sequence += 1;
        }
        Some(self.machine.borrow().sequence)
    }

    fn frame(&mut self, frame: &mut Frame) -> Option<u64> {
        let machine = self.machine.borrow();
        match machine.mode {
            Mode::Text => draw_text(frame, text_screen(&machine, 80, 25)),
            Mode::Small => draw_text(frame, text_screen(&machine, 40, 25)),
            Mode::Low => draw_bars(frame, 320, 200, machine.sequence),
            Mode::High => draw_bars(frame, 640, 480, machine.sequence),
        }
        Some(machine.sequence)
    }

    fn status(&mut self) -> VmStatus {
        VmStatus {
            name: "test-pattern".into(),
            state: "running".into(),
            running: true,
            speed_percent: Some(100),
            trouble: None,
            ended: self.quit && self.started.elapsed() > Duration::from_secs(5),
        }
    }
}

impl InputSink for Input {
    fn key(&mut self, key: Key, pressed: bool) {
        let name = Key::ALL.iter().find(|(known, _)| *known == key).map_or("?", |(_, name)| name);
        let mut machine = self.0.borrow_mut();
        machine.log.push(format!("{name} {}", if pressed { "down" } else { "up" }));
        match (key, pressed) {
            (Key::F1, true) => machine.mode = Mode::Text,
            (Key::F2, true) => machine.mode = Mode::Low,
            (Key::F3, true) => machine.mode = Mode::High,
            (Key::F4, true) => machine.mode = Mode::Small,
            _ => {}
        }
        machine.sequence += 1;
    }

    fn mouse(&mut self, dx: i16, dy: i16, dz: i8, buttons: u8) {
        let mut machine = self.0.borrow_mut();
        machine.log.push(format!("mouse {dx} {dy} {dz} {buttons}"));
        machine.sequence += 1;
    }

    fn command(&mut self, command: Command) {
        let mut machine = self.0.borrow_mut();
        machine.log.push(format!("{command:?}"));
        machine.sequence += 1;
    }
}

fn main() -> ExitCode {
    let has = |word: &str| std::env::args().any(|argument| argument == word);
    let machine = Rc::new(RefCell::new(Machine { mode: Mode::Text, sequence: 1, log: Vec::new() }));
    let mut screen = Screen {
        machine: Rc::clone(&machine),
        started: Instant::now(),
        quit: has("quit"),
        animate: has("animate"),
    };
    let mut input = Input(Rc::clone(&machine));
    let options = Options {
        view: if has("terminal") { View::Terminal } else { View::Window },
        scaling: if has("integer") { Scaling::Integer } else { Scaling::Fit },
        full_screen: has("full"),
    };
    let result = display::run(&mut screen, &mut input, &options);
    for line in &machine.borrow().log {
        println!("{line}");
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
