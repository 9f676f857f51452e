//! Recordings of device processes: replayed, shown, and made by a second build beside the first.

use std::path::Path;
use std::time::Duration;
use vmsim_tests::{Home, PATIENCE, Said, Vm, guest, kill, poll};

/// A path as an argument.
fn text(path: &Path) -> String {
    path.display().to_string()
}

/// How many times as fast as recorded a replay was that found no difference.
fn speed(said: &str) -> f64 {
    assert!(said.ends_with("no difference\n") && !said.contains("cut off"), "{said}");
    let words: Vec<_> = said.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "times").expect("a speed");
    words[at - 1].parse().expect("a number")
}

/// The demo, recorded from power-on, at its menu and through its graphics page and its floppy page.
fn recorded_demo(recordings: &[&str]) -> (Home, Vec<String>) {
    let home = Home::new();
    let files: Vec<_> = recordings.iter().map(|device| text(&home.file(&format!("{device}.rec")))).collect();
    let options: Vec<_> =
        recordings.iter().zip(&files).map(|(device, file)| format!("{device}={file}")).collect();
    let mut args = vec!["--demo"];
    options.iter().for_each(|option| args.extend(["--record", option.as_str()]));
    let vm = Vm::start_in(home, &args);
    vm.wait_text("Press 1 to 6");
    vm.key("2");
    std::thread::sleep(Duration::from_millis(500));
    vm.key("esc");
    vm.wait_text("Press 1 to 6");
    vm.key("5");
    vm.wait_text("Read by INT 13h");
    (vm.stop(), files)
}

#[test]
fn replay_of_a_boot_is_the_same_and_faster() {
    let (home, files) = recorded_demo(&["gpu", "storage", "chipset", "keyboard"]);
    for file in files {
        let said = home.vmsim(&["replay", &file]).ok();
        assert!(speed(&said) > 1.0, "{said}");
        // Another executable with the same models.
        let other = text(&Home::built("other-gpu"));
        let said = home.vmsim(&["replay", &file, "--exe", &other]).ok();
        assert!(speed(&said) > 1.0, "{said}");
    }
}

#[test]
fn replay_of_dos_needs_neither_its_images_nor_its_firmware() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let home = Home::new();
    let copy = home.copy(&image);
    let file = text(&home.file("storage.rec"));
    let vm = Vm::start_in(home, &["--floppy", &copy, "--record", &format!("storage={file}")]);
    vm.wait_prompt();
    vm.dos("copy command.com copy.com");
    let home = vm.stop();
    std::fs::remove_file(copy).expect("the image");

    assert!(speed(&home.vmsim(&["replay", &file]).ok()) > 1.0);
    let statistics = home.vmsim(&["trace", "stat", &file]).ok();
    assert!(statistics.contains("bytes written to images"), "{statistics}");
}

#[test]
fn a_wrong_register_bit_is_named() {
    let (home, files) = recorded_demo(&["gpu"]);
    let wrong = text(&Home::built("wrong-gpu"));

    let said = home.vmsim(&["replay", &files[0], "--exe", &wrong]);

    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("reply, VR (bit 3) of INPUT_STATUS_1"), "{said:?}");
    assert!(said.out.contains("Difference at transaction "), "{said:?}");
}

#[test]
fn a_recording_goes_on_after_the_process_was_killed() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let file = text(&vm.home().file("gpu.rec"));
    vm.vmsim(&["device", "record", "gpu", &file]).ok();
    vm.key("3");
    vm.wait_text("Type something");
    let old = vm.pid_of("gpu");
    std::thread::scope(|scope| {
        scope.spawn(|| vm.type_text("the five boxing wizards jump quickly"));
        std::thread::sleep(Duration::from_millis(100));
        kill(old);
    });
    vm.wait_restarted("gpu", old);
    vm.wait_text("wizards jump quickly");
    vm.vmsim(&["device", "record", "gpu", "--stop"]).ok();
    // What happens now is not recorded.
    vm.key("esc");
    vm.wait_text("Press 1 to 6");
    let home = vm.stop();

    let said = home.vmsim(&["replay", &file]).ok();
    assert!(speed(&said) > 1.0, "{said}");
    let shown = home.vmsim(&["trace", "show", &file]).ok();
    assert_eq!(shown.lines().filter(|line| line.ends_with("starts, running")).count(), 2, "{shown}");
}

#[test]
fn a_recording_goes_on_in_the_same_file_when_another_build_takes_over() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let file = text(&vm.home().file("gpu.rec"));
    let other = text(&Home::built("other-gpu"));
    vm.vmsim(&["device", "record", "gpu", &file]).ok();
    vm.key("3");
    vm.wait_text("Type something");
    vm.type_text("the five ");
    vm.vmsim(&["device", "swap", "gpu", "--exe", &other]).ok();
    vm.type_text("boxing wizards ");
    // One that is refused leaves the recording alone.
    vm.vmsim(&["device", "swap", "gpu", "--exe", "/bin/false"]).one_line_error();
    vm.type_text("jump ");
    vm.vmsim(&["device", "swap", "gpu", "--exe", "built-in"]).ok();
    vm.type_text("quickly");
    vm.wait_text("the five boxing wizards jump quickly");
    // A crash names the file, and how it is replayed.
    let old = vm.kill("gpu");
    vm.wait_restarted("gpu", old);
    vm.vmsim(&["device", "record", "gpu", "--stop"]).ok();
    let crashes = vm.home().state_dir().join("vmsim/crashes").join(vm.name());
    let report = poll("the report", PATIENCE, || {
        let bundles = std::fs::read_dir(&crashes).ok()?.flatten();
        let report =
            |bundle: std::fs::DirEntry| std::fs::read_to_string(bundle.path().join("report.txt")).ok();
        bundles.filter_map(report).find(|report| report.contains("--attach"))
    });
    assert!(report.contains(&format!("  vmsim replay {file}\n")), "{report}");
    let home = vm.stop();

    for build in [&[][..], &["--exe", &other]] {
        let said = home.vmsim(&[&["replay", file.as_str()][..], build].concat()).ok();
        assert!(speed(&said) > 0.5, "{said}");
    }
    let shown = home.vmsim(&["trace", "show", &file]).ok();
    assert_eq!(shown.lines().filter(|line| line.ends_with("starts, running")).count(), 4, "{shown}");
}

#[test]
fn recordings_are_shown_as_text_json_and_waveforms() {
    let (home, files) = recorded_demo(&["gpu"]);
    let file = files[0].as_str();

    let text = home.vmsim(&["trace", "show", file, "--only", "crtc_cursor_start", "-n", "2"]).ok();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| line.contains("vga write 03d") && line.contains("CRTC_CURSOR_START")));
    let json = home.vmsim(&["trace", "export", file, "--form", "json"]).ok();
    assert!(
        json.lines().count() > 100 && json.lines().all(|l| l.starts_with("{\"type\":\"") && l.ends_with('}'))
    );
    let waves = home.file("gpu.vcd").display().to_string();
    home.vmsim(&["trace", "export", file, "--form", "vcd", "-o", &waves]).ok();
    let waves = std::fs::read_to_string(waves).expect("the file");
    assert!(waves.starts_with("$timescale 1 ns $end\n$scope module vga $end\n"));
    let times = waves.lines().filter_map(|line| line.strip_prefix('#')?.parse::<u64>().ok());
    assert!(times.is_sorted(), "time goes back");
    let coverage = home.vmsim(&["trace", "coverage", file]).ok();
    assert!(coverage.lines().any(|line| line.contains("ATC_PALETTE_7")), "{coverage}");
    assert!(coverage.contains("never touched: "), "{coverage}");
}

#[test]
fn coverage_of_a_running_device_shows_what_is_used_meanwhile() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let map = std::thread::scope(|scope| {
        let map = scope.spawn(|| vm.vmsim(&["device", "coverage", "gpu", "--seconds", "3"]).ok());
        std::thread::sleep(Duration::from_millis(1000));
        vm.key("2");
        map.join().expect("the command")
    });
    assert!(map.lines().any(|line| line.contains("SEQ_MEMORY_MODE")), "{map}");
    vm.key("esc");
    vm.wait_text("Press 1 to 6");
    vm.stop();
}

/// What `vmsim device compare` says of a build of the graphics adapter while the demo shows graphics.
fn compared(build: &str) -> (Vm, Said) {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let exe = text(&Home::built(build));
    let said = std::thread::scope(|scope| {
        let compare =
            || vm.vmsim(&["device", "compare", "gpu", "--exe", &exe, "--seconds", "4", "--limit", "3"]);
        let said = scope.spawn(compare);
        std::thread::sleep(Duration::from_millis(1500));
        vm.key("2");
        said.join().expect("the command")
    });
    (vm, said)
}

#[test]
fn a_second_build_that_does_the_same_is_found_the_same() {
    let (vm, said) = compared("other-gpu");
    assert!(said.clone().ok().ends_with("no difference\n"), "{said:?}");
    vm.key("esc");
    vm.wait_text("Press 1 to 6");
    vm.stop();
}

#[test]
fn differences_of_a_second_build_are_told_and_the_guest_sees_the_first() {
    let (vm, said) = compared("wrong-gpu");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.out.contains("VR (bit 3) of INPUT_STATUS_1"), "{said:?}");
    vm.key("esc");
    vm.wait_text("Press 1 to 6");
    assert_eq!(vm.ps().process("gpu").restarts, 0);
    vm.stop();
}

#[test]
fn what_is_no_recording_or_cannot_be_made_is_told_in_one_line() {
    let home = Home::new();
    let garbage = home.write("garbage.rec", b"VMSimRec garbage");
    let empty = home.write("empty.rec", b"");
    let missing = text(&home.file("missing.rec"));
    for file in [&garbage, &empty, &missing] {
        let said = home.vmsim(&["replay", file]);
        assert_eq!((said.code, said.err.lines().count()), (Some(2), 1), "{said:?}");
        assert!(said.err.contains(file.as_str()), "{said:?}");
        let said = home.vmsim(&["trace", "show", file]).one_line_error();
        assert!(said.contains(file.as_str()), "{said}");
    }
    let given = format!("gpu={garbage}");
    let said = home.vmsim(&["run", "--demo", "--display", "none", "--record", &given]).one_line_error();
    assert!(said.contains("exists already"), "{said}");
    let given = format!("sound={missing}");
    let said = home.vmsim(&["run", "--demo", "--display", "none", "--record", &given]).one_line_error();
    assert!(said.contains("sound") && said.contains("storage"), "{said}");

    let vm = Vm::start_in(home, &["--demo"]);
    vm.wait_text("Press 1 to 6");
    let refused = |args: &[&str]| vm.vmsim(args).one_line_error();
    assert!(refused(&["device", "record", "gpu", &garbage]).contains("exists already"));
    assert!(refused(&["device", "record", "sound", &missing]).contains("no device process 'sound'"));
    assert!(refused(&["device", "record", "gpu", "--stop"]).contains("not being recorded"));
    assert!(refused(&["device", "record", "gpu", "/no/such/folder/gpu.rec"]).contains("/no/such/folder"));
    vm.vmsim(&["device", "record", "gpu", &missing]).ok();
    assert!(refused(&["device", "record", "gpu", &format!("{missing}2")]).contains("already"));
    vm.stop();
}
