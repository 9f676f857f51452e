//! A whole VM is written into a file and goes on from it, as if nothing had been.

mod devices;
mod disks;
mod display;
mod faults;
mod serial;

use crate::linux::{Linux, md5sum};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vmsim_tests::{Home, PATIENCE, Pixels, Said, Vm, guest, poll};

/// A path for a saved VM.
fn place(vm: &Vm, name: &str) -> (PathBuf, String) {
    let path = vm.home().file(name);
    (path.clone(), path.display().to_string())
}

/// `vmsim restore FILE --detach ...`
fn restore_with(home: &Home, file: &str, name: &str, more: &[&str]) -> Said {
    let mut args = vec!["restore", file, "--name", name, "--display", "none", "--detach"];
    args.extend(more);
    home.vmsim(&args)
}

/// The VM that was saved, in the surroundings of what it was.
#[track_caller]
fn restore(home: Home, file: &str, more: &[&str]) -> Vm {
    let name = home.fresh_name();
    let vm = Vm::adopt(home, name.clone());
    restore_with(vm.home(), file, &name, more).ok();
    vm
}

/// Saves the VM in a file `name` and ends it; gives its surroundings and the file.
#[track_caller]
fn suspend(mut vm: Vm, name: &str, more: &[&str]) -> (Home, String) {
    let (_, file) = place(&vm, name);
    let mut args = vec!["save", &file, "--stop"];
    args.extend(more);
    vm.vmsim(&args).ok();
    vm.assert_nothing_left(Duration::from_secs(2));
    (std::mem::take(vm.home_mut()), file)
}

/// What is said of a saved VM that cannot go on; nothing of it is left then.
#[track_caller]
fn refused(home: &Home, file: &str, more: &[&str]) -> String {
    let name = home.fresh_name();
    let line = restore_with(home, file, &name, more).one_line_error();
    assert_eq!(home.left_of(&name), [] as [String; 0]);
    assert_eq!(home.temporary_files(), [] as [PathBuf; 0]);
    line
}

fn ends_at_prompt(text: &str) -> bool {
    text.trim_end().ends_with(r"A:\>")
}

/// Waits for the end of a copy of COMMAND.COM; the floppy has it then.
fn wait_copied(vm: &Vm) {
    vm.wait_screen("the end of the copy", |text| {
        text.to_lowercase().contains("=> copy.com") && ends_at_prompt(text)
    });
}

fn copy_is_right(image: &Path) {
    let read = crate::floppy::reader(image);
    assert!(read("COPY.COM") == read("COMMAND.COM"), "the copy differs");
}

#[test]
fn dos_that_was_saved_while_it_copies_goes_on_twice_and_the_copies_are_right() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let mut vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    let floppy = vm.home().file("freedos-1440.img");
    let before = std::fs::metadata(&floppy).and_then(|meta| meta.modified()).expect("an age");
    // Three, so that the last one is still to come when a busy host has started 'vmsim save'.
    vm.type_text("cls\\nfor %i in (one two copy) do copy /y command.com %i.com\\n");
    // In the middle of it: the first sectors are written, and the prompt is not back.
    poll("the first sectors of the copy", PATIENCE, || {
        let now = std::fs::metadata(&floppy).and_then(|meta| meta.modified()).expect("an age");
        (now != before).then_some(())
    });
    let (_, file) = place(&vm, "dos.saved");

    let said = vm.vmsim(&["save", &file, "--stop"]).ok();

    assert!(said.contains("is saved in") && said.contains(&file), "{said}");
    vm.assert_nothing_left(Duration::from_secs(2));
    let at_save = std::fs::read(&floppy).expect("the image");
    let mut home = std::mem::take(vm.home_mut());
    let command = crate::floppy::reader(&floppy)("COMMAND.COM");
    let last_sector = command.chunks_exact(512).next_back().expect("a sector");
    let copies = at_save.chunks(512).filter(|sector| *sector == last_sector).count();
    assert!(copies < 4, "it was saved when the copies were complete");
    for _ in 0..2 {
        // Not as old as it was, but with the same content.
        std::fs::write(&floppy, &at_save).expect("the image");
        let vm = restore(home, &file, &[]);
        wait_copied(&vm);
        assert!(vm.dos("dir").contains("COPY"));
        home = vm.stop();
        copy_is_right(&floppy);
    }
    // The guest has gone on: this is not the disk that it was saved with.
    let line = refused(&home, &file, &[]);
    assert!(line.contains("has another content") && line.contains("freedos-1440.img"), "{line}");
    let vm = restore(home, &file, &["--force"]);
    assert!(vm.ps().seconds > 0.0);
    vm.stop();
}

#[test]
fn dos_that_is_saved_again_and_again_while_it_copies_does_not_notice() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    vm.type_text("cls\\ncopy /y command.com copy.com\\n");
    let mut last = String::new();
    for number in 0..8 {
        let (_, file) = place(&vm, &format!("{number}.saved"));
        let said = vm.vmsim(&["save", &file, "--with-disks"]).ok();
        assert!(said.contains("the guest was paused for"), "{said}");
        last = file;
        if vm.shows("=> copy.com") {
            break;
        }
    }
    wait_copied(&vm);
    let floppy = vm.home().file("freedos-1440.img");
    let home = vm.stop();
    copy_is_right(&floppy);
    // The disk is in the file: whatever became of it outside does not matter.
    std::fs::remove_file(&floppy).expect("the image");
    let vm = restore(home, &last, &[]);
    wait_copied(&vm);
    let home = vm.stop();
    assert!(!floppy.exists());
    drop(home);
}

#[test]
fn linux_that_was_saved_while_it_writes_a_disk_goes_on_with_right_sums_and_a_clock_without_jump() {
    const MIB: usize = 8;
    let data: Vec<u8> =
        (0..MIB << 18).flat_map(|n: usize| (n as u32).wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let home = Home::new();
    let source = home.write("source.img", &data);
    let target = home.file("target.img").display().to_string();
    std::fs::File::create_new(&target)
        .and_then(|file| file.set_len((MIB << 20) as u64 + 512))
        .expect("an image");
    let Some(linux) = Linux::boot_in(home, &["--disk", &source, "--disk", &target, "--boot", "c"]) else {
        return;
    };
    let names = linux.shell(&format!(
        "for d in sda sdb sdc; do case $(cat /sys/block/$d/size) in {}) S=/dev/$d;; {}) T=/dev/$d;; esac; done; \
         echo $S $T",
        (MIB << 20) / 512,
        (MIB << 20) / 512 + 1
    ));
    assert!(names.contains("/dev/sd"), "{names}");
    let uptime = |vm: &Vm, text: &str| -> f64 {
        let seconds = vm.ps().seconds;
        let guest: f64 = text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("seconds");
        guest - seconds
    };
    let ahead = uptime(&linux.vm, &linux.shell("cat /proc/uptime"));
    linux.shell("(while sleep 0.1; do cat /proc/uptime; done) >/looks & sleep 0.5");
    linux.vm.type_text(
        "clear; for i in 1 2 3; do dd if=$S of=$T bs=64k; sync; echo 3 >/proc/sys/vm/drop_caches; done; \
         head -c 8388608 $T | md5sum; echo COPIES$((1+1))DONE\\n",
    );
    std::thread::sleep(Duration::from_millis(700));
    let file = linux.vm.home().file("linux.saved").display().to_string();

    linux.vm.vmsim(&["save", &file, "--stop"]).ok();
    // Long enough for whatever would time out.
    std::thread::sleep(Duration::from_secs(5));
    let linux = linux.after_restore(&file);

    linux.vm.wait_screen("the end of the copies", |text| text.contains("COPIES2DONE"));
    let screen = linux.vm.screen_text();
    assert!(screen.contains(&md5sum(&data)), "{screen}");
    let steps = linux.shell("awk '{d=$1-p; if(NR>1&&d>m)m=d; p=$1} END{print \"STEP \" m \" \" NR}' /looks");
    let longest = steps
        .lines()
        .find_map(|line| line.strip_prefix("STEP ")?.split_whitespace().next()?.parse::<f64>().ok());
    let longest = longest.unwrap_or_else(|| panic!("no steps of the clock: {steps}"));
    assert!(longest < 3.0, "the guest's clock jumped by {longest} s");
    let drift = uptime(&linux.vm, &linux.shell("cat /proc/uptime")) - ahead;
    assert!(drift.abs() < 1.5, "the guest's clock went {drift} s away from virtual time");
    let complaints = linux.shell(
        "dmesg | grep -iE 'lost|timed out|timeout|lockup|exception|stall|i/o error' | grep -v 'NMI watchdog' | tail -5",
    );
    let complaints: Vec<_> = complaints.lines().filter(|line| line.starts_with('[')).collect();
    assert!(complaints.is_empty(), "the guest noticed: {complaints:?}");
    linux.shell("kill %1; sync");
    assert!(std::fs::read(&target).expect("the image")[..data.len()] == data[..], "the copy differs");
    assert_eq!(linux.power_off(), Some(0));
}

/// The picture of a guest that is paused, once there is one.
fn picture(vm: &Vm) -> Pixels {
    std::thread::sleep(Duration::from_millis(150));
    vm.screen_png()
}

#[test]
fn the_picture_is_the_same_at_once_and_time_stands_where_it_stood() {
    let mut vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    vm.key("2");
    poll("a picture with many colours", PATIENCE, || (vm.screen_png().histogram().len() > 32).then_some(()));
    vm.vmsim(&["pause"]).ok();
    let (before, seconds) = (picture(&vm), vm.ps().seconds);
    let (_, file) = place(&vm, "demo.saved");
    vm.vmsim(&["save", &file, "--stop"]).ok();
    // The demo's firmware and floppy have gone with the VM, and are in the file.
    vm.assert_nothing_left(Duration::from_secs(2));
    let home = std::mem::take(vm.home_mut());

    // Whatever ran the code before, another engine goes on.
    for (round, engine) in [(0, "shadow"), (1, "interp")] {
        let name = home.fresh_name();
        let vm = Vm::adopt(Home::new(), name.clone());
        restore_with(vm.home(), &file, &name, &["--paused", "--engine", engine]).ok();
        let status = vm.ps();
        assert_eq!((status.state.as_str(), status.seconds), ("paused", seconds));
        assert!(picture(&vm) == before, "another picture after restore {round}");
        vm.vmsim(&["resume"]).ok();
        poll("a picture that moves", PATIENCE, || (vm.screen_png() != before).then_some(()));
        let passed = vm.ps().seconds - seconds;
        assert!((0.0..60.0).contains(&passed), "{passed}");
        vm.key("esc");
        vm.wait_text("Press 1 to 6");
        vm.stop();
    }
}

#[test]
fn damaged_files_are_refused_in_one_line_that_names_the_section() {
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");
    let (path, file) = place(&vm, "demo.saved");
    vm.vmsim(&["save", &file]).ok();
    let line = vm.vmsim(&["save", &file]).one_line_error();
    assert!(line.contains("exists already"), "{line}");
    let line = vm.vmsim(&["save", "/no/such/folder/vm.saved"]).one_line_error();
    assert!(line.contains("/no/such/folder"), "{line}");
    let before = vm.ps().seconds;
    poll("time that goes on", PATIENCE, || (vm.ps().seconds > before + 0.2).then_some(()));
    let home = vm.stop();

    let whole = std::fs::read(&path).expect("the file");
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        let bad = home.write("bad.saved", &bytes);
        let line = refused(&home, &bad, &[]);
        assert!(line.contains(&bad), "{line}");
        line
    };
    let at = |name: &str| {
        let mut padded = [0; 16];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        whole.windows(16).position(|bytes| bytes == padded).expect(name)
    };
    for name in ["machine", "processor", "device", "ram"] {
        let start = at(name);
        let line = with(&|bytes| bytes.truncate(start + 45));
        assert!(line.contains(&format!("truncated: section '{name}'")), "{line}");
        let line = with(&|bytes| bytes[start + 44] ^= 1);
        assert!(line.contains(&format!("corrupt: section '{name}'")), "{line}");
    }
    let line = with(&|bytes| bytes[8] = 77);
    assert!(line.contains("format is 77") && line.contains("newer"), "{line}");
    assert!(with(&|bytes| bytes.truncate(5)).contains("not a saved VM"));
    assert!(with(&|bytes| bytes.push(0)).contains("section 'end'"));
    let line = refused(&home, "/no/such/file", &[]);
    assert!(line.contains("/no/such/file"), "{line}");
    // And the whole one still works.
    let vm = restore(home, &file, &[]);
    vm.wait_text("Press 1 to 6");
    vm.stop();
}

#[test]
fn keys_that_are_under_way_reach_the_guest() {
    let Some(image) = guest("freedos-1440.img") else { return };
    let mut vm = Vm::with_floppy(&image);
    vm.wait_prompt();
    vm.type_text("cls\\necho typed before\\n");
    let (_, file) = place(&vm, "dos.saved");
    vm.vmsim(&["save", &file, "--stop"]).ok();
    let home = std::mem::take(vm.home_mut());

    let vm = restore(home, &file, &[]);

    vm.wait_screen("what was typed", |text| {
        text.lines().any(|line| line.trim() == "typed before") && ends_at_prompt(text)
    });
    vm.stop();
}
