//! One build of a device process takes the place of another one under a running guest.

use std::time::Duration;
use vmsim_tests::{Home, PATIENCE, Pixels, Toy, Vm, guest, poll};

/// The built-in demo with the toy device in one build, and another build of it.
fn demo_with_toys(version: u32, other: u32) -> (Vm, Toy, Toy) {
    let home = Home::new();
    let (toy, new) = (Toy::new(&home, "toy", version), Toy::new(&home, "new", other));
    let vm = Vm::start_in(home, &["--demo", "--no-sandbox", "--device", &toy.option()]);
    vm.wait_text("Press 1 to 6");
    (vm, toy, new)
}

fn swap(vm: &Vm, device: &str, exe: &str, more: &[&str]) -> vmsim_tests::Said {
    let mut args = vec!["device", "swap", device, "--exe", exe];
    args.extend(more);
    vm.vmsim(&args)
}

/// Ticks in the last line that a build said of a start.
fn ticks(toy: &Toy) -> u32 {
    let line = toy.seen().pop().expect("a start");
    line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("ticks")
}

/// The milliseconds for which `vmsim device swap` says that the guest was paused.
fn pause(said: &str) -> f64 {
    let (_, rest) = said.split_once("paused for ").unwrap_or_else(|| panic!("no pause in {said}"));
    rest.split(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn a_newer_build_goes_on_from_the_state_of_an_older_one_and_back() {
    let (vm, old, new) = demo_with_toys(1, 2);
    let pid = vm.pid_of("toy");

    let said = swap(&vm, "toy", &new.exe(), &[]).ok();

    assert!(said.contains(&new.exe()) && said.contains(&old.exe()), "{said}");
    assert!(new.seen().pop().expect("a start").starts_with("starts version 2"));
    let row = vm.ps().process("toy").clone();
    assert!(row.pid != Some(pid) && row.state == "ready" && row.restarts == 0, "{row:?}");
    // A build that was killed comes back as itself.
    let killed = vm.kill("toy");
    vm.wait_restarted("toy", killed);
    assert_eq!(new.seen().len(), 2);
    assert!(ticks(&new) > 0 || new.seen().len() == 2);

    swap(&vm, "toy", &old.exe(), &[]).ok();

    assert_eq!(old.seen().len(), 2);
    let back = vm.kill("toy");
    vm.wait_restarted("toy", back);
    assert_eq!(old.seen().len(), 3);
    vm.stop();
}

#[test]
fn a_swap_keeps_the_state_or_begins_cold() {
    let (vm, _old, new) = demo_with_toys(2, 2);
    poll("some ticks", PATIENCE, || (vm.ps().seconds > 0.5).then_some(()));

    swap(&vm, "toy", &new.exe(), &[]).ok();
    let kept = ticks(&new);
    assert!(kept >= 40, "{kept} ticks after half a second");

    swap(&vm, "toy", &new.exe(), &["--state", "cold"]).ok();
    assert_eq!(ticks(&new), 0);
    // The same program once more.
    vm.vmsim(&["device", "swap", "toy"]).ok();
    assert_eq!(new.seen().len(), 3);
    vm.stop();
}

/// A build that fails in one way or another: the running one goes on.
fn is_refused(fault: &str, why: &str) {
    let (vm, old, new) = demo_with_toys(2, 2);
    let pid = vm.pid_of("toy");
    new.tell(fault);

    let line = swap(&vm, "toy", &new.exe(), &["--timeout", "2"]).one_line_error();

    assert!(line.contains(why) && line.contains(&new.exe()) && line.contains(&old.exe()), "{line}");
    let row = vm.ps().process("toy").clone();
    assert_eq!((row.pid, row.state.as_str(), row.restarts), (Some(pid), "ready", 0));
    let before = vm.ps().seconds;
    poll("time that goes on", PATIENCE, || (vm.ps().seconds > before + 0.3).then_some(()));
    // It works, and so does a swap to a build that is whole.
    new.tell("");
    swap(&vm, "toy", &new.exe(), &[]).ok();
    assert!(ticks(&new) > 30);
    vm.stop();
}

#[test]
fn a_build_that_refuses_the_state_is_refused() {
    is_refused("refuse", "told to refuse it");
}

#[test]
fn a_build_that_hangs_before_it_is_prepared_is_refused() {
    is_refused("hang-at-build", "not prepared within 2s");
}

#[test]
fn a_build_that_dies_when_it_takes_over_leaves_the_old_one_in_place() {
    is_refused("crash-at-start", "told to crash at its start");
}

#[test]
fn a_build_that_hangs_when_it_takes_over_leaves_the_old_one_in_place() {
    is_refused("hang-at-start", "did not take over within 2s");
}

#[test]
fn an_older_build_is_refused_when_the_state_cannot_be_had_in_its_version() {
    let (vm, old, new) = demo_with_toys(2, 1);
    old.tell("keep-version");

    let line = swap(&vm, "toy", &new.exe(), &[]).one_line_error();

    assert!(line.contains("older version"), "{line}");
    let before = vm.ps().seconds;
    poll("time that goes on", PATIENCE, || (vm.ps().seconds > before + 0.3).then_some(()));
    vm.stop();
}

#[test]
fn what_cannot_be_swapped_is_told_in_one_line() {
    let (vm, _, new) = demo_with_toys(2, 2);
    for (device, exe, why) in [
        ("toys", new.exe(), "no device process 'toys'"),
        ("toy", "no/such/file".into(), "no/such/file"),
        ("gpu", new.exe(), "model"),
    ] {
        let line = swap(&vm, device, &exe, &[]).one_line_error();
        assert!(line.contains(why), "{line}");
    }
    vm.key("3");
    vm.wait_text("Type something");
    vm.stop();
}

/// Swaps under a running guest; more on demand.
const SWAPS: u32 = 20;
const SWAPS_VARIABLE: &str = "VMSIM_SWAPS";

#[test]
fn dos_copies_files_while_builds_of_all_devices_are_swapped() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let swaps = std::env::var(SWAPS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(SWAPS);
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let other = Home::built("other-gpu").display().to_string();
    let own = vm.home().file("another").display().to_string();
    std::os::unix::fs::symlink(&other, &own).expect("a link");
    let devices = ["gpu", "storage", "chipset", "keyboard"];
    let mut pauses = Vec::new();
    let mut done = 0;
    while done < swaps {
        vm.type_text("cls\\ncopy /y command.com copy.com\\n");
        let copied = || {
            let text = vm.screen_text().to_lowercase();
            text.contains("=> copy.com") && text.trim_end().ends_with(r"a:\>")
        };
        while !copied() {
            if done < swaps {
                let device = devices[done as usize % devices.len()];
                let exe = if done / 4 % 2 == 0 { &other } else { &own };
                pauses.push(pause(&swap(&vm, device, exe, &[]).ok()));
                done += 1;
            }
        }
    }
    let status = vm.ps();
    for device in devices {
        assert_eq!(status.process(device).restarts, 0);
    }
    assert!(vm.dos("dir").contains("COPY"));
    pauses.sort_by(f64::total_cmp);
    let (median, worst) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
    // Past the capturing of output: figures of passing tests are worth seeing.
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("{swaps} swaps: guest paused for {median} ms (median), {worst} ms (worst)\n"),
    );
    let image = vm.home().file("freedos-1440.img");
    let _home = vm.stop();
    let read = crate::floppy::reader(&image);
    assert!(read("COPY.COM") == read("COMMAND.COM"), "the copy differs");
}

/// The picture of a guest that is paused, once what it drew last has come.
fn settled(vm: &Vm) -> Pixels {
    std::thread::sleep(Duration::from_millis(150));
    vm.screen_png()
}

#[test]
fn no_pixel_changes_while_builds_of_the_gpu_with_different_state_versions_are_swapped() {
    let swaps = std::env::var(SWAPS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(SWAPS);
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.key("2");
    poll("a picture with many colours", PATIENCE, || (vm.screen_png().histogram().len() > 32).then_some(()));
    let newer = Home::built("newer-gpu").display().to_string();

    for number in 0..swaps {
        let exe = if number % 2 == 0 { &newer } else { "built-in" };
        if number % 4 < 2 {
            // The guest changes colours all the time: whether it is the same picture shows while it is paused.
            vm.vmsim(&["pause"]).ok();
            let picture = settled(&vm);
            swap(&vm, "gpu", exe, &[]).ok();
            assert!(settled(&vm) == picture, "another picture after swap {number}");
            vm.vmsim(&["resume"]).ok();
        } else {
            swap(&vm, "gpu", exe, &[]).ok();
        }
    }

    assert_eq!(vm.ps().process("gpu").restarts, 0);
    vm.key("esc");
    vm.wait_text("Press 1 to 6");
    vm.stop();
}
