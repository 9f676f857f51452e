//! The CPU tests of `images/cputest/` in a whole VM: firmware, floppy, interrupt controllers and timer are real.

use std::path::Path;
use vmsim_tests::{Home, PATIENCE, Vm, poll};

/// Runs the floppy; returns what the guest wrote to port E9h.
fn run(arguments: &[&str]) -> String {
    let home = Home::new();
    let floppy = home.write("cputest.img", &images::demo::cputest_floppy());
    let console = home.file("console").display().to_string();
    let mut all = vec!["--floppy", &floppy, "--debug-console", &console];
    all.extend(arguments);
    let vm = Vm::start_in(home, &all);
    let text = poll("the summary of the CPU tests", 2 * PATIENCE, || {
        let bytes = std::fs::read(Path::new(&console)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.contains(" failed\n").then_some(text)
    });
    // The whole line: the picture may be taken while the guest writes it.
    vm.wait_screen("the summary on the screen", |screen| {
        screen.lines().any(|line| line.starts_with("CPUTEST") && line.trim_end().ends_with(" failed"))
    });
    vm.stop();
    text
}

#[track_caller]
fn assert_all_passed(text: &str) {
    let failed: Vec<_> = text.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    // The run after the triple fault reports the whole.
    assert!(text.contains("PASS shutdown/triple-fault-resets\n"), "{text}");
    println!("{}", text.lines().last().unwrap_or_default());
}

#[test]
fn every_cpu_test_passes_under_the_built_in_firmware() {
    assert_all_passed(&run(&["--demo"]));
}

#[test]
fn every_cpu_test_passes_under_seabios() {
    assert_all_passed(&run(&[]));
}
