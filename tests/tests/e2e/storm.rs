//! Linux at work while device processes, and the window, are killed or stopped again and again.

use crate::linux::{BOOT_PATIENCE, Linux, md5sum};
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use vmsim_tests::{Home, program_in_path};

/// What happens to a random process, again and again.
#[derive(Clone, Copy, PartialEq)]
enum Storm {
    /// SIGKILL every 200 ms.
    Kills,
    /// SIGSTOP for up to a second, or as the variable says.
    Stops,
}

/// What Linux writes to meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Medium {
    IdeDisk,
    Floppy,
}

/// How often, and how much Linux copies meanwhile; more on demand.
const STORM_BLOWS: usize = 25;
const STORM_MIB: usize = 8;
const STORM_PERIOD: Duration = Duration::from_millis(200);
const LONGEST_STOP_MILLIS: u64 = 1000;
/// What a floppy holds beside its file system.
const FLOPPY_BYTES: usize = 1 << 20;
const SECTOR: usize = 512;
/// The longest step of the guest's clock between two looks, a tenth of a second apart, of a program in it that has
/// to wait for the others. A stop that the guest noticed would be a longer one.
const LONGEST_STEP: f64 = 3.0;

fn setting(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One blow to one process. False when that one cannot be struck just now.
fn strike(linux: &Linux, storm: Storm, processes: &[&str], random: u64) -> bool {
    let status = linux.vm.ps();
    let name = processes[random as usize % processes.len()];
    let Some(process) = status.processes.iter().find(|process| process.name == name) else { return false };
    // A window takes long to open: one that was never open is given up in the end.
    if name == "display" && process.state != "ready" {
        return false;
    }
    let Some(pid) = process.pid else { return false };
    // It may have ended since: then it was not struck.
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
        rustix::process::kill_process(pid, signal).is_ok()
    };
    match storm {
        Storm::Kills => signal(rustix::process::Signal::KILL),
        Storm::Stops => {
            let longest = setting("VMSIM_STORM_STOP_MILLIS", LONGEST_STOP_MILLIS as usize) as u64;
            let stopped = signal(rustix::process::Signal::STOP);
            std::thread::sleep(Duration::from_millis(100 + (random >> 8) % longest.max(1)));
            stopped && signal(rustix::process::Signal::CONT)
        }
    }
}

/// Linux copies from a disk to a file system on another one or on a floppy, synchronises and reads back while
/// processes are struck; the guest has no word of it in its log, its clock agrees with virtual time and makes no jump.
fn copies_in_a_storm(storm: Storm, medium: Medium, window: bool) {
    let blows = setting("VMSIM_STORM_KILLS", STORM_BLOWS);
    let mib = setting("VMSIM_STORM_MIB", STORM_MIB);
    let server = if window {
        let Some(server) = crate::display::Server::start() else { return };
        Some(server)
    } else {
        None
    };
    let mut home = Home::new();
    home.set_display(server.as_ref().map(crate::display::Server::display));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let bytes = if medium == Medium::Floppy { FLOPPY_BYTES } else { mib << 20 };
    let data: Vec<u8> = std::iter::repeat_with(|| next().to_le_bytes()).take(bytes / 8).flatten().collect();
    let source = home.write("source.img", &data);
    let (size, option) = match medium {
        Medium::IdeDisk => (bytes + bytes / 8 + (4 << 20), "--disk"),
        Medium::Floppy => (1440 << 10, "--floppy"),
    };
    let target = home.file("target.img").display().to_string();
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&target);
    let mut file = file.expect("an image");
    file.set_len(size as u64).expect("room for an image");
    fatfs::format_volume(&mut file, fatfs::FormatVolumeOptions::new()).expect("a file system");
    let display = if window { "window" } else { "none" };
    let args = ["--disk", &source, option, &target, "--boot", "c", "--display", display];
    let Some(linux) = Linux::boot_in(home, &args) else { return };
    let mut processes = vec!["chipset", "gpu", "keyboard", "storage"];
    processes.extend(window.then_some("display"));
    let uptime = |linux: &Linux| -> f64 {
        let text = linux.shell("cat /proc/uptime");
        text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("seconds")
    };
    // Linux names the disks in the order in which it happens to find them: their sizes tell which is which.
    let (source_size, target_size) = (bytes / SECTOR, size / SECTOR);
    let mounts = linux.shell(&format!(
        "mkdir /t; T=/dev/fd0; for d in sda sdb sdc; do case $(cat /sys/block/$d/size) in \
         {source_size}) S=/dev/$d;; {target_size}) T=/dev/$d;; esac; done; \
         mount -t vfat $T /t; grep ' /t ' /proc/mounts"
    ));
    assert!(mounts.contains(" /t vfat"), "{mounts}");
    linux.shell("(while sleep 0.1; do cat /proc/uptime; done) >/looks & sleep 1");
    let (guest_before, before) = (uptime(&linux), linux.vm.ps().seconds);

    let (mut struck, mut rounds) = (0, 0);
    while struck < blows {
        rounds += 1;
        linux.vm.type_text(&format!(
            "clear; dd if=$S of=/t/copy bs=64k; sync; echo 3 >/proc/sys/vm/drop_caches; \
             md5sum </t/copy; echo ROUND$(({rounds}+0))END\\n"
        ));
        let end = format!("ROUND{rounds}END");
        let started = std::time::Instant::now();
        while !linux.vm.shows(&end) {
            assert!(started.elapsed() < 40 * BOOT_PATIENCE, "round {rounds} does not end");
            let blow = std::time::Instant::now();
            if struck < blows && strike(&linux, storm, &processes, next() >> 16) {
                struck += 1;
            }
            std::thread::sleep(STORM_PERIOD.saturating_sub(blow.elapsed()));
        }
        let sum = linux.vm.screen_text();
        assert!(sum.contains(&md5sum(&data)), "round {rounds}: {sum}");
    }

    let (guest_after, after) = (uptime(&linux), linux.vm.ps().seconds);
    let drift = (guest_after - guest_before) - (after - before);
    if drift.abs() >= 1.5 {
        let clock = "cat /sys/devices/system/clocksource/clocksource0/current_clocksource";
        let facts = linux
            .shell(&format!("{clock}; dmesg | grep -iE 'mhz|clocksource' | tail; head -2 /proc/interrupts"));
        panic!("the guest's clock went {drift} s away from virtual time: {facts}");
    }
    let steps = linux.shell("awk '{d=$1-p; if(NR>1&&d>m)m=d; p=$1} END{print \"STEP \" m \" \" NR}' /looks");
    let longest = steps.lines().find_map(|line| {
        let mut words = line.strip_prefix("STEP ")?.split_whitespace();
        words.next()?.parse::<f64>().ok()
    });
    let longest = longest.unwrap_or_else(|| panic!("no steps of the clock: {steps}"));
    assert!(longest < LONGEST_STEP, "the guest's clock jumped by {longest} s");
    let complaints = linux.shell(
        "dmesg | grep -iE 'lost|timed out|timeout|lockup|exception|stall|i/o error|fat-fs' | grep -v 'NMI watchdog' | tail -5",
    );
    let complaints: Vec<_> = complaints.lines().filter(|line| line.starts_with('[')).collect();
    assert!(complaints.is_empty(), "the guest noticed: {complaints:?}");
    let restarts: u32 = linux.vm.ps().processes.iter().map(|row| row.restarts).sum();
    // On a busy host a process may be struck that is dead already, and nobody has noticed yet.
    let wanted = if storm == Storm::Kills { blows as u32 * 9 / 10..=blows as u32 } else { 0..=0 };
    assert!(wanted.contains(&restarts), "{restarts} restarts after {blows} blows");
    // Past the capturing of output: figures of passing tests are worth seeing.
    let _ = writeln!(
        std::io::stderr(),
        "{blows} blows in {:.0} s of virtual time, {rounds} rounds: drift {drift:.2} s, longest step {longest} s",
        after - before
    );
    linux.shell("kill %1; umount /t");
    is_sound(Path::new(&target), &data);
    assert_eq!(linux.power_off(), Some(0));
}

/// The file system in an image is in order, and has what was copied.
fn is_sound(image: &Path, data: &[u8]) {
    let copy = crate::floppy::reader(image)("COPY");
    assert!(copy == data, "the copy differs from what was copied");
    if let Some(fsck) = program_in_path("fsck.vfat") {
        let said = Command::new(fsck).arg("-n").arg(image).output().expect("fsck runs");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
    }
}

#[test]
fn linux_copies_a_disk_in_a_storm_of_kills() {
    copies_in_a_storm(Storm::Kills, Medium::IdeDisk, false);
}

#[test]
fn linux_writes_a_floppy_in_a_storm_of_kills() {
    copies_in_a_storm(Storm::Kills, Medium::Floppy, false);
}

#[test]
fn linux_copies_a_disk_in_a_storm_of_kills_with_a_window() {
    copies_in_a_storm(Storm::Kills, Medium::IdeDisk, true);
}

#[test]
fn linux_copies_a_disk_while_devices_are_stopped() {
    copies_in_a_storm(Storm::Stops, Medium::IdeDisk, false);
}

#[test]
fn linux_copies_a_disk_while_devices_and_window_are_stopped() {
    copies_in_a_storm(Storm::Stops, Medium::IdeDisk, true);
}
