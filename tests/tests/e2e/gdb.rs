//! gdb on device models: while a recording is replayed, and while the guest runs.

use crate::floppy::with_program;
use std::path::Path;
use std::time::{Duration, Instant};
use vmsim_tests::{Gdb, Home, PATIENCE, Pixels, Status, Vm, guest, poll};

/// The sources with what each transaction of a replay goes through, and with the graphics adapter.
const REPLAY: &str = "record/replay.rs";
const VGA: &str = "gpu/vga/mod.rs";

/// Where a function begins, as gdb takes it. Its name would not do: release builds have line tables, with short names.
fn place_of(function: &str, source: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devproc/src").join(source);
    let text = std::fs::read_to_string(path).expect("the source");
    let line = text.lines().position(|line| line.trim_start().starts_with(&format!("fn {function}(")));
    format!("{source}:{}", line.expect("the function") + 1)
}

/// TICKS.COM: in mode 13h, writes registers of the graphics adapter over and over, and draws a dot for each tick of the BIOS's
/// clock, until a key is pressed.
const TICKS: &[u8] = &[
    0xb8, 0x13, 0x00, // mov ax, 13h
    0xcd, 0x10, // int 10h
    0x68, 0x00, 0xa0, // push A000h
    0x07, // pop es
    0xb8, 0x40, 0x00, // mov ax, 40h
    0x8e, 0xd8, // mov ds, ax
    0x31, 0xff, // xor di, di
    0x8b, 0x1e, 0x6c, 0x00, // mov bx, [6Ch]
    0xba, 0xc8, 0x03, // again: mov dx, 3C8h
    0xb0, 0x01, // mov al, 1
    0xee, // out dx, al
    0x42, // inc dx
    0x88, 0xd8, // mov al, bl
    0xee, // out dx, al
    0x3b, 0x1e, 0x6c, 0x00, // cmp bx, [6Ch]
    0x75, 0x11, // jne tick
    0xb4, 0x01, // mov ah, 1
    0xcd, 0x16, // int 16h
    0x74, 0xea, // jz again
    0xb4, 0x00, // mov ah, 0
    0xcd, 0x16, // int 16h
    0xb8, 0x03, 0x00, // mov ax, 3
    0xcd, 0x10, // int 10h
    0xcd, 0x20, // int 20h
    0x26, 0xc6, 0x05, 0x0f, // tick: mov byte es:[di], 15
    0x47, // inc di
    0x43, // inc bx
    0xeb, 0xd7, // jmp again
];
/// Ticks of the BIOS's clock in a second: the timer's input clock over 65536.
const TICKS_A_SECOND: f64 = 1_193_182.0 / 65_536.0;
const WHITE: [u8; 3] = [0xff; 3];
/// How long the model is held at the breakpoint: longer than the watchdog's patience.
const HELD: Duration = Duration::from_secs(7);

/// A line of `vmsim trace show`: the transaction's number and the rest.
fn numbered(line: &str) -> Option<(u64, &str)> {
    let (number, rest) = line.trim_start().split_once(' ')?;
    Some((number.parse().ok()?, rest.trim()))
}

#[test]
fn a_replay_stops_in_gdb_before_the_transaction_that_it_is_told() {
    let home = Home::new();
    let file = home.file("gpu.rec").display().to_string();
    let vm = Vm::start_in(home, &["--demo", "--record", &format!("gpu={file}")]);
    vm.wait_text("Press 1 to 6");
    let home = vm.stop();
    let shown = home.vmsim(&["trace", "show", &file]).ok();
    let mut writes = shown.lines().filter_map(numbered).filter(|(_, call)| call.contains(" vga write "));
    let (number, call) = writes.nth(400).expect("a boot writes registers of the graphics adapter");
    let stop_at = number.to_string();
    let args = ["replay", &file, "--stop-at", &stop_at];
    let Some(mut gdb) = Gdb::program(&Home::built("other-gpu"), &args) else { return };

    // The breakpoint only counts.
    let set = gdb.ask(&format!("break {}", place_of("transaction", REPLAY)));
    assert!(set.contains("Breakpoint 1 at"), "{}", gdb.said());
    gdb.ask("ignore 1 1000000000");
    let stopped = gdb.ask("run");

    assert!(stopped.contains("received signal SIGTRAP"), "{}", gdb.said());
    // It says itself where it is.
    let place = poll("place where it stops", PATIENCE, || {
        let said = gdb.said();
        let (_, place) = said.split_once(&format!("Stops at transaction {number}: "))?;
        Some(place.split_once('\n')?.0.to_owned())
    });
    assert!(call.starts_with(&place), "stopped at '{place}', which in the recording is '{call}'");
    // As many calls as gdb counted itself.
    let hits = gdb.ask("info breakpoints");
    assert!(hits.contains(&format!("already hit {number} times")), "{hits}");
    let frames = gdb.ask("backtrace");
    assert!(frames.contains(&format!("{REPLAY}:")), "{frames}");
    // One thread, which gdb and rr can follow.
    let threads = gdb.ask("info threads");
    assert_eq!(
        threads.lines().filter(|line| line.contains("Thread 0x") || line.contains("process ")).count(),
        1,
        "{threads}"
    );
    // What comes next is the model's method.
    gdb.ask(&format!("break {}", place_of("write", VGA)));
    let frames = gdb.ask("continue") + &gdb.ask("backtrace");
    assert!(frames.contains("Breakpoint 2") && frames.contains(&format!("{VGA}:")), "{frames}");
    let hits = gdb.ask("info breakpoints 1");
    assert!(
        hits.contains(&format!("already hit {number} times")),
        "the write is another transaction's: {hits}"
    );
    gdb.ask("delete");
    gdb.ask("continue");
    let said = gdb.said();
    assert!(said.contains("no difference\n") && said.contains("exited normally"), "{said}");
}

#[test]
fn a_replay_that_is_to_stop_needs_a_debugger() {
    let home = Home::new();
    let said = home.vmsim(&["replay", "gpu.rec", "--stop-at", "7"]);
    assert_eq!(said.code, Some(2), "{said:?}");
    assert!(said.err.lines().count() == 1 && said.err.contains("gdb --args"), "{said:?}");
}

/// Dots that TICKS.COM has drawn.
fn dots(picture: &Pixels) -> usize {
    picture.histogram().get(&WHITE).copied().unwrap_or_default()
}

/// Virtual time, and the dots that the guest has drawn by then.
fn ticks_seen(vm: &Vm) -> (f64, usize) {
    vm.vmsim(&["pause"]).ok();
    let seconds = vm.ps().seconds;
    let mut last = None;
    // What the guest drew last may be on the screen a little later.
    let dots = poll("a picture that stays", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(100));
        let dots = dots(&vm.screen_png());
        (last.replace(dots) == Some(dots)).then_some(dots)
    });
    vm.vmsim(&["resume"]).ok();
    (seconds, dots)
}

#[test]
fn a_model_is_held_at_a_breakpoint_and_stepped_while_the_guest_draws_and_the_guest_misses_nothing() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let held = std::env::var("VMSIM_BREAKPOINT_SECONDS").ok().and_then(|text| text.parse().ok());
    let held = held.map_or(HELD, Duration::from_secs);
    let home = Home::new();
    let floppy = with_program(&home, &image, "TICKS.COM", TICKS);
    let vm = Vm::start_in(home, &["--floppy", &floppy]);
    vm.wait_prompt();
    vm.type_text("ticks\\n");
    poll("some dots", PATIENCE, || (dots(&vm.screen_png()) > 20).then_some(()));
    let pid = vm.pid_of("gpu");
    let (seconds_before, dots_before) = ticks_seen(&vm);
    let Some(mut gdb) = Gdb::attach(pid) else { return };
    let process = |status: &Status| status.process("gpu").clone();

    let set = gdb.ask(&format!("break {}", place_of("write", VGA)));
    assert!(set.contains("Breakpoint 1 at"), "{}", gdb.said());
    let stopped = gdb.ask("continue");
    assert!(stopped.contains("Breakpoint 1, ") && stopped.contains(&format!("{VGA}:")), "{}", gdb.said());
    let frames = gdb.ask("backtrace");
    assert!(frames.contains("process/serve.rs:"), "{frames}");
    // The guest waits where it is, however long that takes, and is looked at meanwhile.
    let stands = vm.ps();
    let picture = vm.screen_png();
    std::thread::sleep(held);
    let still = vm.ps();
    assert_eq!(still.seconds, stands.seconds, "time went on at the breakpoint");
    assert_eq!(process(&still).state, "traced");
    assert!(vm.screen_png().colours == picture.colours, "the picture changed at the breakpoint");

    let began = Instant::now();
    let mut places: Vec<_> = (0..5).map(|_| gdb.ask("next")).collect();
    places.extend((0..5).map(|_| gdb.ask("stepi")));
    places.dedup();
    assert!(places.len() > 3 && !gdb.said().contains("SIG"), "{places:?}");
    // To the next write, and the next but one.
    for _ in 0..2 {
        let stopped = gdb.ask("continue");
        assert!(stopped.contains("Breakpoint 1, "), "{}", gdb.said());
    }
    gdb.ask("delete");
    gdb.ask("detach");
    std::thread::sleep(Duration::from_secs(3));

    let (seconds_after, dots_after) = ticks_seen(&vm);
    // No jump: time cannot have gone faster than the host's.
    let gone = seconds_after - stands.seconds;
    assert!(gone <= began.elapsed().as_secs_f64() + 0.01, "time jumped by {gone} s");
    // Every tick was counted, and drawn, once.
    let ticks = (seconds_after - seconds_before) * TICKS_A_SECOND;
    let drawn = (dots_after - dots_before) as f64;
    println!(
        "held for {held:?}: {ticks:.1} ticks, {drawn} drawn; {gone:.3} s of guest time since the breakpoint"
    );
    assert!((drawn - ticks).abs() < 2.0, "{drawn} dots in {ticks} ticks");
    poll("more dots", PATIENCE, || (dots(&vm.screen_png()) > dots_after + 20).then_some(()));
    let after = process(&vm.ps());
    assert_eq!((after.pid, after.restarts, after.state.as_str()), (Some(pid), 0, "ready"));
    vm.type_text("x");
    vm.wait_prompt();
    vm.stop();
}
