//! Device processes: other builds, busy ones, dead ones, and what they may reach.

use super::*;
use crate::recovery::{dos_with_toy_in, port, wait_state};
use vmsim_tests::Toy;

/// The built-in demo with the toy device in one build, saved after some ticks.
fn saved_toy(version: u32) -> (Home, Toy, String) {
    let home = Home::new();
    let toy = Toy::new(&home, "toy", version);
    let mut vm = Vm::start_in(home, &["--demo", "--no-sandbox", "--device", &toy.option()]);
    vm.wait_text("Press 1 to 6");
    poll("some ticks", PATIENCE, || (vm.ps().seconds > 0.5).then_some(()));
    let (_, file) = place(&vm, "toy.saved");
    vm.vmsim(&["save", &file, "--stop"]).ok();
    vm.assert_nothing_left(Duration::from_secs(2));
    (std::mem::take(vm.home_mut()), toy, file)
}

/// Ticks in the last line that a build said of a start.
fn ticks(toy: &Toy) -> u32 {
    let line = toy.seen().pop().expect("a start");
    line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("ticks")
}

#[test]
fn a_newer_build_goes_on_from_a_state_that_an_older_one_was_saved_with() {
    let (home, old, file) = saved_toy(1);
    let new = Toy::new(&home, "newer", 2);

    let vm = restore(home, &file, &["--device", &new.option()]);

    assert!(new.seen().pop().expect("a start").starts_with("starts version 2"));
    assert_eq!(old.seen().len(), 1);
    // What it has ticked since counts on, over a crash too.
    poll("ticks", PATIENCE, || {
        let killed = vm.kill("toy");
        vm.wait_restarted("toy", killed);
        (ticks(&new) > 0).then_some(())
    });
    vm.stop();
}

#[test]
fn the_state_of_a_device_is_kept_or_the_vm_is_refused() {
    let (home, old, file) = saved_toy(2);
    let other = Toy::new(&home, "older", 1);

    let line = refused(&home, &file, &["--device", &other.option()]);
    assert!(line.contains("toy cannot go on") && line.contains("version 2"), "{line}");
    let line = refused(&home, &file, &["--device", "toy=/no/such/program"]);
    assert!(line.contains("/no/such/program"), "{line}");
    let gpu = Home::built("other-gpu").display().to_string();
    let line = refused(&home, &file, &["--device", &format!("toy={gpu}")]);
    assert!(line.contains("toy"), "{line}");

    let vm = restore(home, &file, &[]);
    assert!(ticks(&old) >= 40, "{} ticks after half a second", ticks(&old));
    assert_eq!(vm.ps().process("toy").restarts, 0);
    vm.stop();
}

#[test]
fn a_newer_gpu_takes_the_state_of_the_built_in_one_and_not_the_other_way_round() {
    let home = Home::new();
    let newer = format!("gpu={}", Home::built("newer-gpu").display());
    let vm = Vm::start_in(home, &["--demo"]);
    vm.wait_text("Press 1 to 6");
    let (_, file) = place(&vm, "first.saved");
    vm.vmsim(&["save", &file]).ok();
    let home = vm.stop();

    let vm = restore(home, &file, &["--device", &newer]);
    vm.wait_text("Press 1 to 6");
    let (_, second) = place(&vm, "second.saved");
    vm.vmsim(&["save", &second]).ok();
    let home = vm.stop();

    let line = refused(&home, &second, &["--device", "gpu=built-in"]);
    assert!(line.contains("vga cannot go on") && line.contains("version"), "{line}");
    let vm = restore(home, &second, &[]);
    vm.wait_text("Press 1 to 6");
    vm.stop();
}

#[test]
fn a_device_that_is_busy_or_held_delays_or_refuses_the_file_and_the_guest_goes_on() {
    let home = Home::new();
    let toy = Toy::new(&home, "toy", 2);
    let vm = Vm::start_in(home, &["--demo", "--no-sandbox", "--device", &toy.option()]);
    vm.wait_text("Press 1 to 6");
    let (path, file) = place(&vm, "toy.saved");
    let pid = rustix::process::Pid::from_raw(vm.pid_of("toy") as i32).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is stopped");
    poll("toy stopped", PATIENCE, || (vm.ps().process("toy").state == "stopped").then_some(()));

    let line = vm.vmsim(&["save", &file]).one_line_error();

    assert!(line.contains("toy does not serve"), "{line}");
    assert!(!path.exists());
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it goes on");
    // One that was killed a moment ago is waited for.
    let killed = vm.kill("toy");
    vm.vmsim(&["save", &file]).ok();
    assert_ne!(vm.pid_of("toy"), killed);
    let before = vm.ps().seconds;
    poll("time that goes on", PATIENCE, || (vm.ps().seconds > before + 0.2).then_some(()));
    vm.stop();
}

#[test]
fn a_guest_that_waits_for_a_device_cannot_be_saved_and_goes_on_waiting() {
    let more = "watchdog = 0\n";
    let Some((vm, toy)) = dos_with_toy_in(more) else { return };
    toy.tell("mute");
    vm.type_text("in300\\n");
    poll("a wait", PATIENCE, || vm.ps().state.contains("waits for toy").then_some(()));
    let (path, file) = place(&vm, "toy.saved");

    let line = vm.vmsim(&["save", &file]).one_line_error();

    assert!(line.contains("waits for a device"), "{line}");
    assert!(!path.exists());
    toy.tell("");
    vm.vmsim(&["device", "restart", "toy", "--state", "cold"]).ok();
    vm.wait_text("FF");
    vm.vmsim(&["save", &file]).ok();
    assert!(vm.dos("ver").contains("FreeCom"));
    vm.stop();
}

#[test]
fn a_vm_whose_devices_are_killed_all_the_time_can_be_saved_and_each_file_is_whole() {
    const SAVES: usize = 6;
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    vm.type_text("cls\\nfor %i in (1 2 3) do copy /y command.com copy%i.com\\n");
    let files: Vec<_> = (0..SAVES).map(|number| place(&vm, &format!("{number}.saved")).1).collect();
    let saved = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let devices = ["gpu", "storage", "chipset", "keyboard"];
            for device in devices.iter().cycle() {
                if saved.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                // One that is dead already is not killed again.
                let pid = vm.try_ps().and_then(|status| status.process(device).pid);
                if let Some(pid) = pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
                    // It may have died meanwhile.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                std::thread::sleep(Duration::from_millis(120));
            }
        });
        for file in &files {
            vm.vmsim(&["save", file, "--with-disks"]).ok();
        }
        saved.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let copied = |vm: &Vm| {
        vm.wait_screen("the end of the copies", |text| text.contains("=> copy3.com") && ends_at_prompt(text));
    };
    copied(&vm);
    let floppy = vm.home().file("freedos-1440.img");
    let mut home = vm.stop();
    let right = |image: &Path| {
        let read = crate::floppy::reader(image);
        for copy in ["COPY1.COM", "COPY2.COM", "COPY3.COM"] {
            assert!(read(copy) == read("COMMAND.COM"), "{copy} differs");
        }
    };
    right(&floppy);
    // The first was saved in the middle, the last later.
    for file in [&files[0], &files[SAVES - 1]] {
        let vm = restore(home, file, &[]);
        copied(&vm);
        // The guest's disk is a copy that goes with the VM: it has what the guest thinks that it has.
        let inside = vm.home().temporary_files().into_iter().map(|folder| folder.join("2-freedos-1440.img"));
        let inside = inside.filter(|path| path.is_file()).collect::<Vec<_>>();
        assert_eq!(inside.len(), 1, "{:?}", vm.home().temporary_files());
        right(&inside[0]);
        home = vm.stop();
    }
}

#[test]
fn what_a_device_process_may_reach_of_ram_is_the_same_when_it_goes_on() {
    let home = Home::new();
    let machine = home.write("machine.toml", b"[device.storage]\ndma = [\"0-640K\", \"1M-8M\"]\n");
    let mut vm = Vm::start_in(home, &[&machine, "--demo"]);
    vm.wait_text("Press 1 to 6");
    let (_, file) = place(&vm, "demo.saved");
    vm.vmsim(&["save", &file, "--stop"]).ok();
    vm.assert_nothing_left(Duration::from_secs(2));
    let vm = restore(std::mem::take(vm.home_mut()), &file, &[]);
    let ps = vm.home().vmsim(&["ps"]).ok();
    assert!(ps.contains(" 0-640K,1M-8M "), "{ps}");
    vm.stop();
}

/// DOS with the toy device, in whose register is 5Ah, off the bus.
fn dos_without_toy() -> Option<(Vm, Toy)> {
    let (vm, toy) = dos_with_toy_in("")?;
    vm.dos("out300");
    toy.tell("crash");
    wait_state(&vm, "toy", "offline");
    toy.tell("");
    Some((vm, toy))
}

#[test]
fn a_device_that_is_off_the_bus_is_so_after_a_restore_and_comes_back_with_its_state() {
    let Some((vm, toy)) = dos_without_toy() else { return };
    // The VM is saved and restored twice: the second time nobody has seen the device since.
    let (home, file) = suspend(vm, "first.saved", &[]);
    let starts = toy.seen().len();
    let vm = restore(home, &file, &[]);
    assert_eq!((vm.ps().process("toy").state.as_str(), port(&vm).as_str()), ("offline", "FF"));
    let (home, file) = suspend(vm, "second.saved", &[]);
    let name = home.fresh_name();
    let vm = Vm::adopt(home, name.clone());
    let said = restore_with(vm.home(), &file, &name, &[]);
    let advice = format!("vmsim device restart toy --vm {name}");
    assert!(said.err.contains("toy is off the bus") && said.err.contains(&advice), "{}", said.err);
    assert_eq!(port(&vm), "FF");
    assert_eq!(toy.seen().len(), starts, "it was started");

    vm.vmsim(&["device", "restart", "toy"]).ok();

    assert_eq!(port(&vm), "5A");
    let start = toy.seen().pop().expect("a start");
    assert!(start.contains("scratch 5a") && !start.ends_with("ticks 0"), "{start}");
    assert_eq!(vm.ps().process("toy").state, "ready");
    vm.stop();
}

#[test]
fn a_device_that_is_off_the_bus_is_started_where_the_command_line_names_its_program() {
    let Some((vm, _toy)) = dos_without_toy() else { return };
    let (home, file) = suspend(vm, "dos.saved", &[]);
    let other = Toy::new(&home, "other", 2);
    let older = Toy::new(&home, "older", 1);

    // It is a device like any other then, and must take the state.
    let line = refused(&home, &file, &["--device", &older.option()]);
    assert!(line.contains("toy cannot go on"), "{line}");
    let vm = restore(home, &file, &["--device", &other.option()]);

    assert_eq!(vm.ps().process("toy").state, "ready");
    assert_eq!(port(&vm), "5A");
    vm.stop();
}

#[test]
fn a_device_that_was_off_the_bus_can_be_made_anew() {
    let Some((vm, _toy)) = dos_without_toy() else { return };
    let (home, file) = suspend(vm, "dos.saved", &[]);
    let vm = restore(home, &file, &[]);

    vm.vmsim(&["device", "restart", "toy", "--state", "cold"]).ok();

    assert_eq!(port(&vm), "00");
    vm.stop();
}
