//! Device processes of one's own, and processes started by hand.

use vmsim_tests::{Home, Vm, run};

/// The executable that is not the program `vmsim`.
fn other_gpu() -> String {
    Home::built("other-gpu").display().to_string()
}

#[test]
fn a_gpu_process_of_ones_own_works_and_is_restarted() {
    let vm = Vm::start(&["--demo", "--device", &format!("gpu={}", other_gpu())]);
    vm.wait_text("Press 1 to 6");
    let old = vm.pid_of("gpu");
    let program = std::fs::read_link(format!("/proc/{old}/exe")).expect("the process's program");
    assert_eq!(program, Home::built("other-gpu"));

    vm.kill("gpu");

    vm.wait_restarted("gpu", old);
    vm.key("1");
    vm.wait_text("All 256 attributes");
    vm.stop();
}

#[test]
fn a_machine_file_names_the_executable_of_a_device() {
    let home = Home::new();
    let file = home.write("machine.toml", format!("[device.gpu]\nexe = \"{}\"\n", other_gpu()).as_bytes());
    let vm = Vm::start_in(home, &[&file, "--demo"]);
    vm.wait_text("Press 1 to 6");

    let program = std::fs::read_link(format!("/proc/{}/exe", vm.pid_of("gpu"))).expect("the program");

    assert_eq!(program, Home::built("other-gpu"));
    vm.stop();
}

#[test]
fn a_second_process_for_a_device_that_runs_is_refused() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let before = vm.ps();
    let mut command = std::process::Command::new(other_gpu());
    command.args(["gpu", "--attach", vm.name()]).env("XDG_RUNTIME_DIR", vm.home().runtime_dir());

    let said = run(command);

    assert_eq!(said.code, Some(1));
    assert_eq!(said.err.trim_end().lines().count(), 1, "{}", said.err);
    assert!(said.err.contains(&vm.pid_of("gpu").to_string()), "{}", said.err);
    assert_eq!(vm.ps().processes, before.processes);
    vm.stop();
}

#[test]
fn a_device_that_the_vm_does_not_have_is_refused_with_those_it_has() {
    let vm = Vm::start(&["--demo"]);
    let mut command = std::process::Command::new(other_gpu());
    command.args(["keyboard2", "--attach", vm.name()]).env("XDG_RUNTIME_DIR", vm.home().runtime_dir());

    let said = run(command);

    assert_eq!(said.code, Some(1));
    assert_eq!(said.err.trim_end().lines().count(), 1, "{}", said.err);
    vm.stop();
}
