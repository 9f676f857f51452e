//! Device processes that fail: how they come back, when they are given up, what is kept of them.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use vmsim_tests::{Home, PATIENCE, Toy, Vm, guest, kill, poll};

/// The built-in demo with the toy device.
fn demo_with_toy() -> (Vm, Toy) {
    let home = Home::new();
    let toy = Toy::new(&home, "toy", 2);
    let vm = Vm::start_in(home, &["--demo", "--no-sandbox", "--device", &toy.option()]);
    vm.wait_text("Press 1 to 6");
    (vm, toy)
}

/// Waits until `vmsim ps` says that of a process.
pub fn wait_state(vm: &Vm, process: &str, state: &str) {
    poll(&format!("{process} {state}"), PATIENCE, || (vm.ps().process(process).state == state).then_some(()));
}

fn bundles(vm: &Vm) -> Vec<PathBuf> {
    let folder = vm.home().state_dir().join("vmsim/crashes").join(vm.name());
    let mut bundles: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    bundles.sort();
    bundles
}

/// IN300.COM: prints what a read of port 300h gives, as two hexadecimal digits.
const IN300: &[u8] = &[
    0xba, 0x00, 0x03, // mov dx, 300h
    0xec, // in al, dx
    0x88, 0xc3, // mov bl, al
    0xb1, 0x04, // mov cl, 4
    0xd2, 0xe8, // shr al, cl
    0xe8, 0x07, 0x00, // call digit
    0x88, 0xd8, // mov al, bl
    0xe8, 0x02, 0x00, // call digit
    0xcd, 0x20, // int 20h
    0x24, 0x0f, // digit: and al, 0fh
    0x3c, 0x0a, // cmp al, 10
    0x1c, 0x69, // sbb al, 69h
    0x2f, // das
    0x88, 0xc2, // mov dl, al
    0xb4, 0x02, // mov ah, 2
    0xcd, 0x21, // int 21h
    0xc3, // ret
];

/// OUT300.COM: writes 5Ah to port 300h.
const OUT300: &[u8] = &[
    0xba, 0x00, 0x03, // mov dx, 300h
    0xb0, 0x5a, // mov al, 5ah
    0xee, // out dx, al
    0xcd, 0x20, // int 20h
];

/// DOS with the toy device and the two programs for its port.
fn dos_with_toy() -> Option<(Vm, Toy)> {
    dos_with_toy_in("")
}

/// The same with more lines about the toy device, and what follows it, in the machine file.
pub fn dos_with_toy_in(more: &str) -> Option<(Vm, Toy)> {
    let image = guest("freedos-1440.img")?;
    let home = Home::new();
    let floppy = home.copy(&image);
    let disk = std::fs::File::options().read(true).write(true).open(&floppy).expect("the image");
    let files = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).expect("a FAT file system");
    for (name, code) in [("IN300.COM", IN300), ("OUT300.COM", OUT300)] {
        files.root_dir().create_file(name).expect(name).write_all(code).expect(name);
    }
    files.unmount().expect("the image is complete");
    let toy = Toy::new(&home, "toy", 2);
    let machine = format!("[[floppy]]\npath = \"{floppy}\"\n[device.toy]\nexe = \"{}\"\n{more}", toy.exe());
    let machine = home.write("machine.toml", machine.as_bytes());
    let vm = Vm::start_in(home, &[&machine, "--no-sandbox"]);
    vm.wait_prompt();
    Some((vm, toy))
}

/// What DOS reads at port 300h.
pub fn port(vm: &Vm) -> String {
    let text = vm.dos("in300");
    text.lines().map(str::trim).find(|line| line.len() == 2).expect("a byte").to_owned()
}

#[test]
fn a_model_that_keeps_crashing_goes_off_the_bus_and_comes_back_with_its_state() {
    let Some((vm, toy)) = dos_with_toy() else { return };
    vm.dos("out300");
    assert_eq!(port(&vm), "5A");

    toy.tell("crash");

    wait_state(&vm, "toy", "offline");
    assert_eq!(port(&vm), "FF");
    vm.dos("out300");
    toy.tell("crash-at-start");
    let line = vm.vmsim(&["device", "restart", "toy"]).one_line_error();
    assert!(line.contains("told to crash at its start"), "{line}");

    toy.tell("");
    let said = vm.vmsim(&["device", "restart", "toy"]).ok();

    assert!(said.contains("toy serves again"), "{said}");
    assert_eq!(port(&vm), "5A");
    vm.stop();
}

#[test]
fn a_model_that_never_answers_is_taken_for_hung_although_it_goes_round() {
    let image = guest("freedos-1440.img");
    let Some((vm, toy)) = image.and_then(|_| dos_with_toy_in("watchdog = 2\n")) else { return };

    toy.tell("mute");
    vm.type_text("in300\\n");

    wait_state(&vm, "toy", "offline");
    vm.wait_text("FF");
    assert!(vm.log(&[]).contains("toy hung"));
    vm.wait_prompt();
    vm.stop();
}

#[test]
fn the_guest_lives_without_a_device_that_is_off_the_bus() {
    let (vm, toy) = demo_with_toy();

    toy.tell("crash-at-start");
    vm.kill("toy");

    wait_state(&vm, "toy", "offline");
    // One run, three restarts at once and seven with growing waits.
    assert_eq!(toy.seen().len(), 1 + 11);
    vm.key("3");
    vm.wait_text("Type something");
    vm.type_text("alive");
    vm.wait_text("alive");
    assert!(vm.log(&[]).contains("off the bus"));

    let whole = Toy::new(vm.home(), "whole", 2);
    vm.vmsim(&["device", "swap", "toy", "--exe", &whole.exe()]).ok();

    let start = whole.seen().pop().expect("a start");
    assert!(!start.ends_with("ticks 0"), "the state of the build before is lost: {start}");
    assert_eq!(vm.ps().process("toy").state, "ready");
    vm.stop();
}

#[test]
fn a_model_that_works_may_be_killed_as_often_as_one_likes() {
    let (vm, toy) = demo_with_toy();
    for _ in 0..15 {
        let old = vm.kill("toy");
        vm.wait_restarted("toy", old);
    }
    assert_eq!(vm.ps().process("toy").restarts, 15);
    let ticks: Vec<u32> = toy
        .seen()
        .iter()
        .map(|line| line.rsplit(' ').next().and_then(|word| word.parse().ok()).expect("ticks"))
        .collect();
    assert!(ticks.is_sorted() && ticks[15] > ticks[1], "a restart lost ticks: {ticks:?}");
    vm.stop();
}

#[test]
fn a_device_is_started_again_or_made_anew_on_request() {
    let (vm, toy) = demo_with_toy();
    poll("ticks", PATIENCE, || (vm.ps().seconds > 0.5).then_some(()));
    let old = vm.pid_of("toy");

    vm.vmsim(&["device", "restart", "toy"]).ok();

    assert_ne!(vm.pid_of("toy"), old);
    let kept = toy.seen().pop().expect("a start");
    assert!(!kept.ends_with("ticks 0"), "{kept}");

    vm.vmsim(&["device", "restart", "toy", "--state", "cold"]).ok();

    let cold = toy.seen().pop().expect("a start");
    assert!(cold.ends_with("ticks 0"), "{cold}");
    assert_eq!(bundles(&vm).len(), 0, "a restart that was asked for is no crash");
    let line = vm.vmsim(&["device", "restart", "toys"]).one_line_error();
    assert!(line.contains("toys") && line.contains("chipset, gpu, keyboard, storage, toy"), "{line}");
    vm.stop();
}

#[test]
fn a_crash_leaves_a_bundle_that_says_what_happened() {
    let (vm, toy) = demo_with_toy();

    toy.tell("crash");
    poll("a restart", PATIENCE, || (vm.ps().process("toy").restarts > 0).then_some(()));
    toy.tell("");

    let bundle = poll("a crash bundle", PATIENCE, || {
        bundles(&vm).into_iter().find(|path| path.join("toy-v2.state").exists())
    });
    let report = std::fs::read_to_string(bundle.join("report.txt")).expect("the report");
    for text in ["panic at", "told to crash", "toy of VM", "state version 2", "--attach", &toy.exe()] {
        assert!(report.contains(text), "no {text} in {report}");
    }
    // Where, with the lines of the backtrace.
    let stderr = std::fs::read_to_string(bundle.join("stderr.txt")).expect("its last words");
    assert!(stderr.contains("stack backtrace") && stderr.contains(": timer"), "{stderr}");

    let old = vm.kill("storage");
    vm.wait_restarted("storage", old);
    let bundle = poll("the bundle of storage", PATIENCE, || {
        bundles(&vm).into_iter().find(|path| path.to_string_lossy().ends_with("-storage"))
    });
    let transactions = poll("transactions", PATIENCE, || {
        std::fs::read_to_string(bundle.join("transactions.txt")).ok().filter(|text| !text.is_empty())
    });
    assert!(transactions.lines().any(|line| line.contains("fdc")), "{transactions}");
    assert!(vm.log(&[]).contains(&bundle.display().to_string()));
    vm.stop();
}

/// Kills a random device process every 200 ms while DOS copies files: so often, or as the variable says.
const STORM_KILLS: u32 = 25;
const STORM_VARIABLE: &str = "VMSIM_STORM_KILLS";
const STORM_PERIOD: Duration = Duration::from_millis(200);

/// Prints how long processes took to come back.
fn report_recovery(log: &str) {
    let millis = |line: &str| -> Option<f64> {
        let (_, rest) = line.split_once(" serves again, ")?;
        rest.split(' ').next()?.parse().ok()
    };
    let mut times: Vec<f64> = log.lines().filter_map(millis).collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    // Past the capturing of output: figures of passing tests are worth seeing. A closed terminal is no failure.
    let _ = writeln!(
        std::io::stderr(),
        "{} restarts: back after {} ms (median), {} ms (99 %), {} ms (worst)",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[test]
fn dos_copies_files_from_one_to_the_next_in_a_storm_of_kills() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let kills = std::env::var(STORM_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(STORM_KILLS);
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let devices = ["chipset", "gpu", "keyboard", "storage"];
    // A generator of one's own repeats itself, which helps when a storm fails.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let (mut killed, mut copies) = (0, 0u32);
    let name = |number: u32| match number {
        0 => "command.com".into(),
        number => format!("c{}.com", number % 8),
    };
    while killed < kills {
        let (from, to) = (name(copies), name(copies + 1));
        copies += 1;
        vm.type_text(&format!("cls\\ncopy /y {from} {to}\\n"));
        let arrow = format!("=> {to}");
        let done = || {
            let text = vm.screen_text().to_lowercase();
            assert!(!text.contains("error"), "{text}");
            text.contains(&arrow) && text.trim_end().ends_with(r"a:\>")
        };
        while !done() {
            let started = Instant::now();
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let device = devices[(random >> 32) as usize % devices.len()];
            if killed < kills
                && let Some(pid) = vm.ps().process(device).pid
            {
                kill(pid);
                killed += 1;
            }
            std::thread::sleep(STORM_PERIOD.saturating_sub(started.elapsed()));
        }
    }
    let status = vm.ps();
    let restarts: u32 = devices.iter().map(|device| status.process(device).restarts).sum();
    assert_eq!(restarts, kills, "every kill was one restart");
    report_recovery(&vm.log(&["--device", "supervisor"]));
    let image = vm.home().file("freedos-1440.img");
    let _home = vm.stop();
    let read = crate::floppy::reader(&image);
    let original = read("COMMAND.COM");
    for number in 1..=copies.min(7) {
        assert!(read(&name(number)) == original, "copy {number} differs");
    }
}
