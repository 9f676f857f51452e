//! Commands to a running VM.

use std::time::Duration;
use vmsim_tests::{Home, PATIENCE, Vm, guest, poll};

#[test]
fn pause_stops_virtual_time_and_resume_lets_it_go_on() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");

    vm.vmsim(&["pause"]).ok();

    let paused = poll("pause", PATIENCE, || {
        let before = vm.ps();
        std::thread::sleep(Duration::from_millis(100));
        let after = vm.ps();
        (after.instructions == before.instructions && after.seconds == before.seconds).then_some(after)
    });
    assert_eq!(paused.state, "paused");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((vm.ps().seconds, vm.ps().instructions), (paused.seconds, paused.instructions));

    vm.vmsim(&["resume"]).ok();

    poll("virtual time that goes on", PATIENCE, || (vm.ps().seconds > paused.seconds + 0.2).then_some(()));
    // It went on from where it stood, without making up for the pause.
    vm.key("3");
    vm.wait_text("Type something");
    vm.stop();
}

#[test]
fn keys_typed_while_paused_arrive_after_resume() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.vmsim(&["pause"]).ok();

    vm.key("3");

    assert!(vm.shows("Press 1 to 6"));
    vm.vmsim(&["resume"]).ok();
    vm.wait_text("Type something");
    vm.stop();
}

#[test]
fn reset_boots_again() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.key("3");
    vm.wait_text("Type something");

    vm.vmsim(&["reset"]).ok();

    vm.wait_text("Press 1 to 6");
    vm.key("1");
    vm.wait_text("All 256 attributes");
    vm.stop();
}

#[test]
fn ctrl_alt_del_boots_dos_again() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    vm.dos("echo this stands here before the boot");

    vm.key("ctrl-alt-del");

    vm.wait_screen("new boot", |text| text.contains("FreeDOS kernel") && !text.contains("stands here"));
    vm.wait_prompt();
    assert!(vm.dos("dir").contains("1,337,344 bytes free"));
    vm.stop();
}

#[test]
fn wait_gives_up_after_its_time_with_exit_code_1() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");

    let said = vm.vmsim(&["wait", "--text", "never on this screen", "--timeout", "0.3"]);

    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("never on this screen") && said.err.contains("Press 1 to 6"), "{}", said.err);
    vm.stop();
}

#[test]
fn log_names_device_access_virtual_time_and_guest_address() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.log(&["--accesses", "on"]);

    vm.key("5");
    vm.wait_text("Read by INT 13h");

    vm.log(&["--accesses", "off"]);
    let log = vm.log(&["--device", "fdc"]);
    let line = log.lines().find(|line| line.contains("03f5")).unwrap_or_else(|| panic!("no access: {log}"));
    let mut words = line.split_whitespace();
    let seconds: f64 = words.next().and_then(|word| word.parse().ok()).expect("virtual time");
    assert!(seconds > 0.0, "{line}");
    // The floppy driver is in the ROM.
    assert!(words.next().is_some_and(|address| address.starts_with("f000:0000")), "{line}");
    assert!(line.contains("storage") && line.contains("fdc"), "{line}");
    assert!(!log.contains("pic"), "lines of other devices: {log}");
    vm.stop();
}

#[test]
fn commands_without_a_vm_say_so_in_one_line() {
    let home = Home::new();
    for args in [&["screen", "--text"][..], &["type", "x"], &["pause"], &["stop"], &["log"]] {
        let line = home.vmsim(args).one_line_error();
        assert!(line.contains("No VM is running") && line.contains("vmsim run"), "{line}");
    }
    let line = home.vmsim(&["stop", "--vm", "ghost"]).one_line_error();
    assert!(line.contains("ghost") && line.contains("vmsim ps"), "{line}");
    assert!(home.vmsim(&["ps"]).ok().contains("No VM is running"));
}

#[test]
fn two_vms_run_side_by_side_and_are_told_apart_by_name() {
    let first = Vm::start(&["--demo"]);
    // In the same runtime directory.
    let name = first.home().fresh_name();
    first.home().vmsim(&["run", "--demo", "--name", &name, "--display", "none", "--detach"]).ok();

    let line = first.home().vmsim(&["screen", "--text"]).one_line_error();
    assert!(line.contains(first.name()) && line.contains(&name) && line.contains("--vm"), "{line}");

    first.home().vmsim(&["stop", "--vm", &name]).ok();
    poll("end of the second VM", PATIENCE, || first.home().left_of(&name).is_empty().then_some(()));
    first.wait_text("Press 1 to 6");
    first.stop();
}

#[test]
fn a_vm_starts_and_is_found_without_a_runtime_directory_of_the_session() {
    let mut home = Home::new();
    home.remove_runtime_dir();

    let vm = Vm::start_in(home, &["--demo"]);

    vm.wait_text("Press 1 to 6");
    let place = std::path::Path::new("/tmp").join(format!("vmsim-{}", rustix::process::getuid().as_raw()));
    assert!(place.join(vm.name()).is_dir(), "the VM is not in {}", place.display());
    let old = vm.kill("keyboard");
    vm.wait_restarted("keyboard", old);
    vm.key("3");
    vm.wait_text("Type something");
    vm.stop();
}

#[test]
fn top_shows_which_process_has_work() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();

    // The copies are over in a moment: they must begin while somebody looks.
    let table = std::thread::scope(|scope| {
        let table = scope.spawn(|| vm.vmsim(&["top", "-n", "1", "--interval", "3"]).ok());
        std::thread::sleep(Duration::from_millis(500));
        vm.type_text("copy command.com a.com\\ncopy command.com b.com\\n");
        table.join().expect("the command")
    });

    let column = |process: &str, number: usize| -> f64 {
        let row = table.lines().find(|line| line.trim_start().starts_with(process));
        let word = row.and_then(|row| row.split_whitespace().nth(number));
        word.and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("{process}: {table}"))
    };
    assert!(column("storage", 4) > 10.0, "storage has no messages: {table}");
    assert!(column("vmm", 2) > 0.0, "the VMM uses no CPU: {table}");
    vm.stop();
}
