//! Guests on the shadow engine, compared with the interpreter as they run: the VM ends at the first difference.

use std::time::Duration;
use vmsim_tests::{Home, Missing, PATIENCE, Vm, guest, poll, skip};

/// With the direct map, and with windows.
const ENGINES: [&str; 2] = ["lockstep", "lockstep-windows"];
/// Instructions of Linux that are compared, unless this variable says how many: the boot loader, and the start of its decompression. A
/// whole boot to the shell has some 6,000,000,000.
const LINUX_INSTRUCTIONS: u64 = 100_000_000;
const LINUX_VARIABLE: &str = "VMSIM_LOCKSTEP_INSTRUCTIONS";

/// Instructions that were compared so far; fails when there was a difference.
#[track_caller]
fn compared(vm: &Vm) -> u64 {
    let statistics = vm.vmsim(&["stats"]).ok();
    let number = |what: &str| -> u64 {
        let line = statistics.lines().find(|line| line.trim_end().ends_with(what));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_else(|| panic!("no {what} in {statistics}"))
    };
    assert_eq!(number("differences of long runs that short ones do not show"), 0, "{}", vm.log(&[]));
    number("instructions compared")
}

/// The end of a VM without a difference.
#[track_caller]
fn stop(vm: Vm, at_least: u64) {
    let compared = compared(&vm);
    println!("{compared} instructions compared");
    assert!(compared > at_least, "{compared} instructions compared");
    vm.stop();
}

fn floppy(image: &std::path::Path, engine: &str) -> Vm {
    let home = Home::new();
    let copy = home.copy(image);
    Vm::start_in(home, &["--floppy", &copy, "--engine", engine])
}

#[test]
fn freedos_boots_and_lists_its_directory_without_a_difference() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = floppy(&image, ENGINES[0]);
    vm.wait_prompt();

    vm.type_text("dir\\n");

    vm.wait_text("1,337,344 bytes free");
    stop(vm, 1_000_000);
}

#[test]
fn mikeos_answers_the_keyboard_without_a_difference() {
    let Some(image) = guest("mikeos.img") else { return };
    let vm = floppy(&image, ENGINES[0]);
    vm.wait_text("Thanks for trying out MikeOS");

    vm.key("enter");

    vm.wait_text("Please select a file");
    stop(vm, 1_000_000);
}

#[test]
fn primes_and_vim_run_without_a_difference() {
    let Some(image) = guest("freedos-720-himem.img") else { return };
    let vm = floppy(&image, ENGINES[0]);
    vm.wait_prompt();
    vm.dos("primes /p /n:100");
    assert!(vm.dos("type primes.txt").contains("97"));

    vm.write_with_vim();
    stop(vm, 1_000_000);
}

#[test]
fn memtest_makes_its_first_tests_without_a_difference() {
    let home = Home::new();
    let image = home.file("memtest.img").display().to_string();
    let made = home.vmsim(&["image", "memtest", &image]);
    if made.code != Some(0) {
        return skip(made.err.trim(), Missing::Installable);
    }
    let vm = Vm::start_in(home, &["--floppy", &image, "--ram", "16M", "--engine", ENGINES[0]]);
    poll("the fourth memory test", PATIENCE, || {
        let text = vm.screen_text();
        let (_, number) = text.split_once("Test #")?;
        number.split_whitespace().next()?.parse::<u32>().ok().filter(|number| *number >= 4)
    });
    assert!(vm.shows("Errors: 0"), "{}", vm.screen_text());
    stop(vm, 50_000_000);
}

#[test]
fn linux_starts_without_a_difference() {
    let wanted = std::env::var(LINUX_VARIABLE).map_or(LINUX_INSTRUCTIONS, |text| text.parse().unwrap());
    for engine in ENGINES {
        let home = Home::new();
        let image = home.file("linux.img").display().to_string();
        let made = home.vmsim(&["image", "linux", &image]);
        if made.code != Some(0) {
            return skip(made.err.trim(), Missing::Installable);
        }
        let vm = Vm::start_in(home, &["--disk", &image, "--ram", "128M", "--engine", engine]);
        let patience = PATIENCE.max(Duration::from_millis(wanted / 1000));
        poll("Linux", patience, || (compared(&vm) >= wanted).then_some(()));
        stop(vm, wanted - 1);
    }
}
