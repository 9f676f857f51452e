//! Device processes that are stopped, traced, slow or hang.

use rustix::process::{Pid, Signal, kill_process};
use std::time::{Duration, Instant};
use vmsim_tests::{Gdb, Home, PATIENCE, Toy, Vm, guest, poll};

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).expect("a process"), signal).expect("the process lives");
}

fn state(vm: &Vm, process: &str) -> String {
    vm.ps().process(process).state.clone()
}

fn wait_state(vm: &Vm, process: &str, wanted: &str) {
    poll(&format!("{process} {wanted}"), PATIENCE, || (state(vm, process) == wanted).then_some(()));
}

/// Virtual time, when it stands still; panics when it does not.
fn time_stands(vm: &Vm) -> f64 {
    let before = vm.ps();
    std::thread::sleep(Duration::from_millis(300));
    let after = vm.ps();
    assert_eq!(before.seconds, after.seconds, "time goes on while nobody should notice any");
    after.seconds
}

/// Stops `process` at the DOS prompt, with nothing to do: time stands still, and goes on without a jump.
fn is_stopped(process: &str) {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let (before, pid) = (vm.ps(), vm.pid_of(process));

    signal(pid, Signal::STOP);

    wait_state(&vm, process, "stopped");
    let stood = time_stands(&vm);
    assert!(vm.ps().state.contains(process), "{:?}", vm.ps());
    std::thread::sleep(Duration::from_secs(2));
    signal(pid, Signal::CONT);

    let continued = Instant::now();
    wait_state(&vm, process, "ready");
    let jump = vm.ps().seconds - stood;
    assert!(jump <= continued.elapsed().as_secs_f64() + 0.01, "time jumped by {jump} s");
    assert!(vm.dos("dir").contains("1,337,344 bytes free"));
    let after = vm.ps();
    assert_eq!(after.process(process).pid, Some(pid), "it was restarted");
    assert_eq!(after.process(process).restarts, before.process(process).restarts);
    vm.stop();
}

#[test]
fn time_stands_still_while_the_chipset_is_stopped() {
    is_stopped("chipset");
}

#[test]
fn time_stands_still_while_the_gpu_is_stopped() {
    is_stopped("gpu");
}

#[test]
fn time_stands_still_while_the_vmm_is_stopped() {
    is_stopped("vmm");
}

#[test]
fn time_stands_still_while_gdb_holds_the_gpu_and_the_watchdog_leaves_it_alone() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let pid = vm.pid_of("gpu");
    let Some(mut gdb) = Gdb::attach(pid) else { return };
    wait_state(&vm, "gpu", "traced");
    let stood = time_stands(&vm);

    // With work at hand, and for longer than the watchdog's patience.
    vm.type_text("dir\\n");
    std::thread::sleep(Duration::from_secs(7));

    assert_eq!(time_stands(&vm), stood);
    assert_eq!(state(&vm, "gpu"), "traced");
    gdb.say("detach");
    vm.wait_text("1,337,344 bytes free");
    let after = vm.ps();
    assert_eq!((after.process("gpu").pid, after.process("gpu").restarts), (Some(pid), 0));
    vm.stop();
}

/// The built-in demo with the toy device and a watchdog of three seconds for it.
fn demo_with_toy() -> (Vm, Toy) {
    let home = Home::new();
    let toy = Toy::new(&home, "toy", 2);
    let machine = format!("[device.toy]\nexe = \"{}\"\nwatchdog = 3\nsandbox = false\n", toy.exe());
    let machine = home.write("machine.toml", machine.as_bytes());
    let vm = Vm::start_in(home, &[&machine, "--demo"]);
    vm.wait_text("Press 1 to 6");
    (vm, toy)
}

#[test]
fn a_model_that_hangs_is_started_again_by_the_watchdog() {
    let (vm, toy) = demo_with_toy();
    let old = vm.pid_of("toy");

    toy.tell("hang");
    wait_state(&vm, "toy", "slow");
    toy.tell("");

    vm.wait_restarted("toy", old);
    assert_eq!(vm.ps().process("toy").restarts, 1);
    let log = vm.log(&[]);
    assert!(log.contains("toy hung") && log.contains("watchdog"), "{log}");
    vm.key("3");
    vm.wait_text("Type something");
    vm.stop();
}

#[test]
fn a_model_that_hangs_for_ever_goes_off_the_bus() {
    let (vm, toy) = demo_with_toy();

    toy.tell("hang");

    wait_state(&vm, "toy", "offline");
    vm.key("3");
    vm.wait_text("Type something");
    vm.stop();
}

#[test]
fn a_model_that_is_slow_is_shown_as_slow_and_left_alone() {
    let home = Home::new();
    let toy = Toy::new(&home, "toy", 2);
    let vm = Vm::start_in(home, &["--demo", "--no-sandbox", "--device", &toy.option()]);
    vm.wait_text("Press 1 to 6");
    let pid = vm.pid_of("toy");

    toy.tell("stall");

    wait_state(&vm, "toy", "slow");
    toy.tell("");
    wait_state(&vm, "toy", "ready");
    assert_eq!(vm.pid_of("toy"), pid);
    vm.stop();
}
