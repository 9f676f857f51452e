//! Device processes of one's own, and processes started by hand.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use vmsim_tests::{Home, Missing, PATIENCE, Vm, poll, program_in_path, run, skip};

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
    let mut command = Command::new(other_gpu());
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
    let mut command = Command::new(other_gpu());
    command.args(["keyboard2", "--attach", vm.name()]).env("XDG_RUNTIME_DIR", vm.home().runtime_dir());

    let said = run(command);

    assert_eq!(said.code, Some(1));
    assert_eq!(said.err.trim_end().lines().count(), 1, "{}", said.err);
    vm.stop();
}

/// Starts the GPU process by hand.
fn by_hand(home: &Home, name: &str) -> Child {
    let mut command = Command::new(other_gpu());
    command.args(["gpu", "--attach", name]).env("XDG_RUNTIME_DIR", home.runtime_dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the process starts")
}

#[test]
fn a_process_started_by_hand_before_the_vm_waits_for_it_and_may_be_started_again() {
    let home = Home::new();
    let name = home.fresh_name();
    let mut first = by_hand(&home, &name);
    // It looks for the VM for a while before there is one.
    std::thread::sleep(Duration::from_millis(300));
    assert!(first.try_wait().expect("its state").is_none(), "it did not wait");
    home.vmsim(&["run", "--demo", "--name", &name, "--display", "none", "--detach", "--device", "gpu=hand"])
        .ok();
    let vm = Vm::adopt(home, name.clone());
    vm.wait_text("Press 1 to 6");
    assert_eq!(vm.pid_of("gpu"), first.id());

    first.kill().expect("it lives");
    first.wait().expect("its end");
    poll("time that stands still", PATIENCE, || vm.ps().state.contains("gpu").then_some(()));
    let mut second = by_hand(vm.home(), &name);

    poll("the second process", PATIENCE, || {
        let row = vm.ps().process("gpu").clone();
        (row.pid == Some(second.id()) && row.state == "ready").then_some(())
    });
    vm.key("3");
    vm.wait_text("Type something");
    vm.stop();
    // It ends with its VM.
    poll("the end of the second process", PATIENCE, || second.try_wait().expect("its state"));
}

#[test]
fn a_vm_waits_for_a_process_that_is_started_by_hand_after_it() {
    let home = Home::new();
    let name = home.fresh_name();
    let args = ["run", "--demo", "--name", &name, "--display", "none", "--device", "gpu=hand"];
    let mut run = home.command(&args).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut said = BufReader::new(run.stderr.take().expect("its messages")).lines();
    let line = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("waits for gpu")));
    let line = line.expect("a line").expect("text");
    assert!(line.contains(&format!("vmsim-dev gpu --attach {name}")), "{line}");

    let mut gpu = by_hand(&home, &name);

    let vm = Vm::adopt(home, name);
    vm.wait_text("Press 1 to 6");
    vm.stop();
    poll("the end of the processes", PATIENCE, || {
        gpu.try_wait().expect("its state").and(run.try_wait().expect("its state"))
    });
}

#[test]
fn a_process_to_be_debugged_waits_for_the_debugger_whose_command_is_printed() {
    let Some(gdb) = program_in_path("gdb") else {
        return skip("gdb is not installed", Missing::Installable);
    };
    let home = Home::new();
    let name = home.fresh_name();
    let args = ["run", "--demo", "--name", &name, "--display", "none", "--debug", "gpu"];
    let mut run = home.command(&args).stderr(Stdio::piped()).spawn().expect("the program starts");
    let vm = Vm::adopt(home, name);
    let mut said = BufReader::new(run.stderr.take().expect("its messages")).lines();
    let line = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("waits for a debugger")));
    let line = line.expect("a line").expect("text");
    let pid = line.rsplit("gdb -p ").next().expect("a command").to_owned();
    poll("a process that waits", PATIENCE, || {
        vm.try_ps().is_some_and(|status| status.process("gpu").state == "awaits-gdb").then_some(())
    });

    let mut gdb = Command::new(gdb)
        .args(["-nx", "-q", "-p", &pid, "-ex", "continue"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("gdb starts");

    vm.wait_text("Press 1 to 6");
    assert_eq!(vm.pid_of("gpu").to_string(), pid);
    vm.stop();
    gdb.kill().expect("gdb lives");
    gdb.wait().expect("its end");
    run.wait().expect("its end");
}
