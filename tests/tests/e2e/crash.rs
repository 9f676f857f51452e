//! Processes die: device processes and displays come back, the guest stays; without a
//! supervisor or a VMM, nothing is left.

use std::time::Duration;
use vmsim_tests::{Home, PATIENCE, Vm, guest, is_alive, kill, poll};

/// What the issue promises for the end of a VM.
const SOON: Duration = Duration::from_secs(1);

/// Kills `process` at the DOS prompt: it comes back, nothing else restarts, DOS works.
fn dies_at_the_prompt(process: &str) {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    vm.dos("echo before the crash");
    let before = vm.ps();

    let old = vm.kill(process);
    vm.wait_restarted(process, old);

    assert!(vm.shows("before the crash"), "the guest's screen is lost: {}", vm.screen_text());
    assert!(vm.dos("dir").contains("1,337,344 bytes free"));
    let after = vm.ps();
    assert_eq!(after.process(process).restarts, before.process(process).restarts + 1);
    for row in before.processes.iter().filter(|row| row.name != process) {
        assert_eq!(after.process(&row.name), row, "only {process} was killed");
    }
    assert!(after.seconds > before.seconds && after.instructions > before.instructions);
    vm.stop();
}

#[test]
fn chipset_dies_at_the_prompt() {
    dies_at_the_prompt("chipset");
}

#[test]
fn storage_dies_at_the_prompt() {
    dies_at_the_prompt("storage");
}

#[test]
fn keyboard_dies_at_the_prompt() {
    dies_at_the_prompt("keyboard");
}

#[test]
fn gpu_dies_at_the_prompt() {
    dies_at_the_prompt("gpu");
}

/// Kills `process` again and again while DOS reads the floppy and text is typed.
fn dies_in_the_middle_of_work(process: &str) {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    for round in 0..4 {
        let name = format!("f{round}.com");
        vm.type_text(&format!("cls\\ncopy command.com {name}\\n"));
        // At another moment each time.
        std::thread::sleep(Duration::from_millis(30 + 45 * round));
        let old = vm.kill(process);
        vm.wait_restarted(process, old);
        vm.wait_text(&format!("=> {name}"));
        vm.wait_prompt();
    }
    let image = vm.home().file("freedos-1440.img");
    let _home = vm.stop();
    let read = crate::floppy::reader(&image);
    let original = read("COMMAND.COM");
    for round in 0..4 {
        assert!(read(&format!("F{round}.COM")) == original, "copy {round} differs");
    }
}

#[test]
fn storage_dies_while_dos_copies_a_file() {
    dies_in_the_middle_of_work("storage");
}

#[test]
fn chipset_dies_while_dos_copies_a_file() {
    dies_in_the_middle_of_work("chipset");
}

#[test]
fn gpu_dies_while_dos_copies_a_file() {
    dies_in_the_middle_of_work("gpu");
}

#[test]
fn keyboard_dies_while_text_is_typed_and_loses_no_key() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.key("3");
    vm.wait_text("Type something");
    for round in 0..4 {
        let text = format!("{round} the five boxing wizards jump quickly");
        let old = vm.pid_of("keyboard");
        std::thread::scope(|scope| {
            scope.spawn(|| vm.type_text(&text));
            std::thread::sleep(Duration::from_millis(60 + 50 * round));
            kill(old);
        });
        vm.wait_restarted("keyboard", old);
        vm.wait_text(&text);
        vm.type_text("\\n");
    }
    vm.stop();
}

#[test]
fn all_devices_die_at_once_and_come_back() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let devices = ["chipset", "gpu", "keyboard", "storage"];

    let old = devices.map(|device| vm.pid_of(device));
    old.into_iter().for_each(kill);

    for (device, old) in devices.into_iter().zip(old) {
        vm.wait_restarted(device, old);
    }
    assert!(vm.dos("dir").contains("1,337,344 bytes free"));
    vm.stop();
}

#[test]
fn nothing_is_left_within_a_second_after_the_supervisor_dies() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let pids = vm.ps().pids();

    vm.kill("supervisor");

    vm.assert_nothing_left(SOON);
    poll("end of the last process", SOON, || (!pids.iter().any(|pid| is_alive(*pid))).then_some(()));
}

#[test]
fn nothing_is_left_within_a_second_after_the_vmm_dies() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let pids = vm.ps().pids();

    vm.kill("vmm");

    vm.assert_nothing_left(SOON);
    poll("end of the last process", SOON, || (!pids.iter().any(|pid| is_alive(*pid))).then_some(()));
}

#[test]
fn a_vm_starts_in_the_place_of_one_that_was_killed_as_a_whole() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let pids = vm.ps().pids();
    // All at one stroke, so that nobody can tidy up.
    for signal in [rustix::process::Signal::STOP, rustix::process::Signal::KILL] {
        for pid in &pids {
            let pid = rustix::process::Pid::from_raw(*pid as i32).expect("a process");
            rustix::process::kill_process(pid, signal).expect("the process lives");
        }
    }
    poll("end of all processes", PATIENCE, || (!pids.iter().any(|pid| is_alive(*pid))).then_some(()));
    assert!(!vm.home().left_of(vm.name()).is_empty(), "nobody was left who could tidy up");

    let (home, name) = (vm.home(), vm.name());
    home.vmsim(&["run", "--demo", "--name", name, "--display", "none", "--detach"]).ok();

    vm.wait_text("Press 1 to 6");
    vm.vmsim(&["stop"]).ok();
    vm.assert_nothing_left(SOON);
}

#[test]
fn ps_does_not_show_a_vm_that_was_killed() {
    let vm = Vm::start(&["--demo"]);

    vm.kill("supervisor");

    poll("empty list", PATIENCE, || vm.try_ps().is_none().then_some(()));
    let line = Home::new().vmsim(&["stop", "--vm", vm.name()]).one_line_error();
    assert!(line.contains(vm.name()), "{line}");
}
