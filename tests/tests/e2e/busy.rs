//! A guest that never halts and never asks: what reaches it comes by interrupts.

use std::path::Path;
use vmsim_tests::{Home, PATIENCE, Vm, poll};

/// What the guest writes for a tick: a character that the firmware, which writes to the same port before, does not use. With one of
/// its letters the test took the firmware for the guest, if it looked early enough.
const TICK: u8 = b'#';

/// A boot sector that runs in a loop of one instruction. Every eighth tick of the timer it writes a [`TICK`] to port E9h, and for each
/// key that goes down its scan code.
const BUSY: &[u8] = &[
    0xfa, // cli
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0x8e, 0xd0, // mov ss, ax
    0xbc, 0x00, 0x70, // mov sp, 7000h
    0xc7, 0x06, 0x20, 0x00, 0x23, 0x7c, // mov word [8 * 4], tick
    0xa3, 0x22, 0x00, // mov [8 * 4 + 2], ax
    0xc7, 0x06, 0x24, 0x00, 0x3b, 0x7c, // mov word [9 * 4], key
    0xa3, 0x26, 0x00, // mov [9 * 4 + 2], ax
    0xb0, 0xfc, // mov al, 0fch: IRQ 0 and 1
    0xe6, 0x21, // out 21h, al
    0xfb, // sti
    0xeb, 0xfe, // here: jmp here
    0x50, // tick: push ax
    0x2e, 0xfe, 0x06, 0x46, 0x7c, // inc byte [cs:count]
    0x2e, 0xf6, 0x06, 0x46, 0x7c, 0x07, // test byte [cs:count], 7
    0x75, 0x04, // jnz done
    0xb0, TICK, // mov al, TICK
    0xe6, 0xe9, // out 0e9h, al
    0xb0, 0x20, // done: mov al, 20h
    0xe6, 0x20, // out 20h, al
    0x58, // pop ax
    0xcf, // iret
    0x50, // key: push ax
    0xe4, 0x60, // in al, 60h
    0xa8, 0x80, // test al, 80h
    0x75, 0xf3, // jnz done
    0xe6, 0xe9, // out 0e9h, al
    0xeb, 0xef, // jmp done
    0x00, // count: db 0
];

/// Scan codes of `abcd`.
const TYPED: [u8; 4] = [0x1e, 0x30, 0x2e, 0x20];
/// Bytes of a floppy disk.
const FLOPPY: usize = 1_474_560;
const SECTOR: usize = 512;

fn keys_and_ticks_arrive(engine: &str) {
    let home = Home::new();
    let mut image = vec![0; FLOPPY];
    image[..BUSY.len()].copy_from_slice(BUSY);
    image[SECTOR - 2..SECTOR].copy_from_slice(&[0x55, 0xaa]);
    let floppy = home.write("busy.img", &image);
    let console = home.file("console").display().to_string();
    let vm =
        Vm::start_in(home, &["--demo", "--engine", engine, "--floppy", &floppy, "--debug-console", &console]);
    let seen = || std::fs::read(Path::new(&console)).unwrap_or_default();
    // What the firmware wrote there comes before the first tick.
    let ticks = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == TICK).count();
    poll("ticks of the timer", PATIENCE, || (ticks(&seen()) >= 2).then_some(()));
    let before = seen().len();

    vm.type_text("abcd");

    let after = poll("the scan codes, and ticks after them", PATIENCE, || {
        let bytes = seen().split_off(before);
        let (keys, last): (Vec<u8>, _) =
            (bytes.iter().copied().filter(|byte| *byte != TICK).collect(), bytes.last() == Some(&TICK));
        (keys.len() >= TYPED.len() && last).then_some(keys)
    });
    assert_eq!(after, TYPED);
    assert_eq!(vm.ps().state, "running", "it halted");
    vm.stop();
}

#[test]
fn keys_and_ticks_reach_a_guest_that_never_halts() {
    keys_and_ticks_arrive("shadow");
}

#[test]
fn keys_and_ticks_reach_a_guest_that_never_halts_when_it_is_interpreted() {
    keys_and_ticks_arrive("interp");
}
