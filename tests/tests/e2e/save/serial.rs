//! What the guest has said on a serial port and nobody has read.

use super::*;
use crate::serial::{connect, echoing, expect, incremented};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// Whether nothing more comes for a while.
fn is_quiet(line: &mut UnixStream) -> bool {
    line.set_read_timeout(Some(Duration::from_millis(300))).expect("a time-out");
    line.read(&mut [0]).is_err()
}

#[test]
fn output_that_nobody_has_read_is_for_the_first_client_after_a_restore() {
    let vm = echoing(&[]);
    poll("a guest that has said something", PATIENCE, || (vm.ps().seconds > 2.0).then_some(()));
    let (_, copy) = place(&vm, "copy.saved");
    vm.vmsim(&["save", &copy]).ok();
    let mut line = connect(&vm);
    expect(&mut line, b"OK");
    drop(line);
    let home = vm.stop();

    let vm = restore(home, &copy, &[]);
    // It is kept again, also by a VM in which nobody has read it.
    let (home, file) = suspend(vm, "again.saved", &[]);
    let vm = restore(home, &file, &[]);

    let mut line = connect(&vm);
    expect(&mut line, b"OK");
    line.write_all(b"HAL").expect("input");
    expect(&mut line, b"IBM");
    drop(line);
    let mut next = connect(&vm);
    assert!(is_quiet(&mut next), "something comes twice");
    vm.stop();
}

/// Reads to the end of a line, more slowly than the supervisor writes.
fn read_slowly(mut line: UnixStream) -> Vec<u8> {
    let mut got = Vec::new();
    let mut some = [0; 100];
    // The end of a line on which something was still to be read is an error.
    while let Ok(count @ 1..) = line.read(&mut some) {
        got.extend(&some[..count]);
        std::thread::sleep(Duration::from_millis(5));
    }
    got
}

#[test]
fn a_stream_that_is_cut_by_a_save_goes_on_in_the_restored_vm_without_a_gap_or_a_repetition() {
    let mut vm = echoing(&[]);
    let mut line = connect(&vm);
    expect(&mut line, b"OK");
    // It takes many seconds at the speed of the line.
    let data: Vec<u8> = (0..200_000u32).map(|n| (n ^ n >> 8) as u8).collect();
    let wanted = incremented(&data);
    let mut sender = line.try_clone().expect("the socket");
    let sending = std::thread::spawn(move || sender.write_all(&data));
    // Nobody reads, until the supervisor has what the socket has no room for.
    std::thread::sleep(Duration::from_secs(1));
    let reading = std::thread::spawn(move || read_slowly(line));

    let (_, file) = place(&vm, "echo.saved");
    vm.vmsim(&["save", &file, "--stop"]).ok();
    let mut got = reading.join().expect("the reader");
    // What was still in the socket is lost with the VM.
    let _ = sending.join().expect("the sender");
    let before = got.len();
    assert!(before < wanted.len() / 2, "it was saved at the end of the stream");
    let vm = restore(std::mem::take(vm.home_mut()), &file, &[]);

    let mut line = connect(&vm);
    line.set_read_timeout(Some(Duration::from_secs(2))).expect("a time-out");
    // It ends with what the guest had been given, when nothing comes for so long.
    let _ = line.read_to_end(&mut got);
    assert!(got.len() > before, "nothing comes after {before} characters");
    let wrong = got.iter().zip(&wanted).position(|(got, wanted)| got != wanted);
    assert_eq!(wrong, None, "after a cut at {before}");
    vm.stop();
}
