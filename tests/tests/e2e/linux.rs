//! Debian's stock Linux, from SeaBIOS to a shell and back.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use vmsim_tests::{Home, Missing, PATIENCE, Vm, guest, poll, program_in_path, skip};

/// What the guest says when its shells are there (`images/src/recipes/linux`).
const READY: &str = "VMSIM-LINUX-READY";
/// The whole boot, with other tests running beside it.
const BOOT_PATIENCE: Duration = Duration::from_secs(300);
/// Bytes of the disk that the guest reads back.
const READ_BACK: usize = 4 << 20;

/// A VM with Linux at its shell, and the `vmsim run` that waits for its end.
struct Linux {
    vm: Vm,
    run: std::process::Child,
    disk: Vec<u8>,
    serial: std::path::PathBuf,
    /// Commands typed so far.
    commands: std::cell::Cell<u32>,
}

impl Linux {
    /// `None`, said on the terminal, where the packages cannot be had.
    fn boot(args: &[&str]) -> Option<Self> {
        Self::boot_in(Home::new(), args)
    }

    fn boot_in(home: Home, args: &[&str]) -> Option<Self> {
        let image = home.file("linux.img").display().to_string();
        let made = home.vmsim(&["image", "linux", &image]);
        if made.code != Some(0) {
            skip(made.err.trim(), Missing::Installable);
            return None;
        }
        let disk = std::fs::read(&image).unwrap();
        let serial = home.file("com1.txt");
        let name = home.fresh_name();
        let com1 = serial.display().to_string();
        let mut all = vec!["run", "--name", &name, "--display", "none", "--ram", "128M"];
        all.extend(["--disk", &image, "--serial", &com1]);
        all.extend(args);
        let run = home.command(&all).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let vm = Vm::adopt(home, name);
        poll("Linux at its shell", BOOT_PATIENCE, || {
            let screen = vm.vmsim(&["screen", "--text"]);
            (screen.out.contains(READY) && screen.out.trim_end().ends_with('#')).then_some(())
        });
        Some(Self { vm, run, disk, serial, commands: std::cell::Cell::new(0) })
    }

    /// Types a command and gives what it says on a cleared screen, once its shell is back.
    fn shell(&self, command: &str) -> String {
        // The end is marked with a number that only the shell computes and no earlier command has left.
        let number = 1000 + self.commands.replace(self.commands.get() + 1);
        self.vm.type_text(&format!("clear; {command}; echo END$(({number}+0))\\n"));
        let screen = self.vm.wait_screen(command, |text| text.contains(&format!("END{number}")));
        screen.trim_start().to_owned()
    }

    /// `poweroff`: the exit code of `vmsim run`.
    fn power_off(mut self) -> Option<i32> {
        self.vm.type_text("poweroff\\n");
        poll("end of the VM", BOOT_PATIENCE, || self.run.try_wait().unwrap()).code()
    }
}

/// The MD5 sum as the program md5sum prints it, short enough for a line of the screen.
fn md5sum(bytes: &[u8]) -> String {
    let mut child = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

#[test]
fn linux_reaches_its_shell_reads_its_drives_and_powers_off() {
    let Some(floppy) = guest("freedos-1440.img") else { return };
    let copy = floppy.display().to_string();
    let Some(linux) = Linux::boot(&["--floppy", &copy, "--read-only", "--boot", "c"]) else { return };

    poll("the shell on the serial port", PATIENCE, || {
        let text = text_of(&linux.serial);
        (text.contains(READY) && text.contains('#')).then_some(())
    });
    assert!(linux.shell("head -5 /proc/cpuinfo").contains("Pentium III"));
    let sum = linux.shell(&format!("head -c {READ_BACK} /dev/sda | md5sum"));
    assert!(sum.contains(&md5sum(&linux.disk[..READ_BACK])), "{sum}");
    let files = linux.shell("mount -r -t vfat /dev/fd0 /mnt; ls /mnt");
    assert!(files.to_lowercase().contains("kernel.sys"), "{files}");
    assert_eq!(linux.power_off(), Some(0));
}

#[test]
fn gdb_stops_at_an_address_of_the_kernel_and_the_guest_goes_on() {
    let Some(gdb) = program_in_path("gdb") else {
        return skip("gdb is not installed", Missing::Installable);
    };
    let Some(linux) = Linux::boot(&[]) else { return };
    // Where the kernel itself says that it is: uname(2) in the kernel.
    let said = linux
        .shell("grep -m1 ' __ia32_sys_newuname\\\\| sys_newuname\\\\| __do_sys_newuname' /proc/kallsyms");
    let address = said
        .split_whitespace()
        .find(|word| word.len() == 8 && word.bytes().all(|b| b.is_ascii_hexdigit()))
        .unwrap_or_else(|| panic!("no address in {said}"))
        .to_owned();
    let listening = linux.vm.vmsim(&["gdb"]).ok();
    let target = listening
        .split_once("target remote ")
        .and_then(|(_, rest)| rest.split(['\'', '"', '\n']).next())
        .unwrap_or_else(|| panic!("no target in {listening}"));
    let typed = {
        let (home, name) = (linux.vm.home(), linux.vm.name().to_owned());
        let mut later = home.command(&["type", "--vm", &name, "uname -r\\n"]);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(5));
            later.status().unwrap()
        })
    };
    let out = Command::new(gdb)
        .args(["-nx", "-batch", "-ex", &format!("target remote {target}")])
        .args(["-ex", &format!("hbreak *0x{address}"), "-ex", "continue"])
        .args(["-ex", "printf \"at %x\\n\", $eip", "-ex", "stepi", "-ex", "printf \"then %x\\n\", $eip"])
        .args(["-ex", "x/2i $eip", "-ex", "x/4xb $esp", "-ex", "detach"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(typed.join().unwrap().success());
    let address = address.trim_start_matches('0');
    assert!(out.contains(&format!("at {address}")), "{out}");
    assert!(out.contains("then ") && !out.contains(&format!("then {address}\n")), "{out}");
    linux.vm.wait_text("6.1.");
    assert_eq!(linux.power_off(), Some(0));
}

#[test]
fn a_recorded_boot_is_replayed_without_a_difference_and_a_wrong_register_bit_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (gpu, storage) = (file("gpu.rec"), file("storage.rec"));
    let (record_gpu, record_storage) = (format!("gpu={gpu}"), format!("storage={storage}"));
    let Some(linux) = Linux::boot(&["--record", &record_gpu, "--record", &record_storage]) else { return };
    linux.shell("mount /mnt && cp /bin/busybox /mnt/copy && umount /mnt");
    assert_eq!(linux.power_off(), Some(0));

    let home = Home::new();
    for recording in [&gpu, &storage] {
        let said = home.vmsim(&["replay", recording]).ok();
        assert!(said.ends_with("no difference\n") && !said.contains("cut off"), "{said}");
        let (before, _) = said.split_once(" times as fast as recorded").expect("a speed");
        let speed: f64 = before.rsplit(' ').next().expect("a number").parse().expect("a number");
        assert!(speed > 1.0, "{said}");
    }
    let statistics = home.vmsim(&["trace", "stat", &storage]).ok();
    assert!(statistics.contains("bytes written to images"), "{statistics}");
    let wrong = Home::built("wrong-gpu").display().to_string();
    let said = home.vmsim(&["replay", &gpu, "--exe", &wrong]);
    assert!(said.code == Some(1) && said.out.contains("VR (bit 3) of INPUT_STATUS_1"), "{said:?}");
}

/// What happens to a random device process, again and again.
#[derive(Clone, Copy, PartialEq)]
enum Storm {
    /// SIGKILL every 200 ms.
    Kills,
    /// SIGSTOP for up to a second, or as the variable says.
    Stops,
}

/// How often, and how much Linux copies meanwhile; more on demand.
const STORM_BLOWS: usize = 25;
const STORM_MIB: usize = 8;
const STORM_PERIOD: Duration = Duration::from_millis(200);
const LONGEST_STOP_MILLIS: u64 = 1000;

fn setting(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// One blow to one process.
fn strike(linux: &Linux, storm: Storm, random: u64) -> bool {
    let devices = ["chipset", "gpu", "keyboard", "storage"];
    let status = linux.vm.ps();
    let Some(pid) = status.process(devices[random as usize % devices.len()]).pid else { return false };
    let signal = |signal| {
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
        rustix::process::kill_process(pid, signal).expect("the process lives");
    };
    match storm {
        Storm::Kills => signal(rustix::process::Signal::KILL),
        Storm::Stops => {
            let longest = setting("VMSIM_STORM_STOP_MILLIS", LONGEST_STOP_MILLIS as usize) as u64;
            signal(rustix::process::Signal::STOP);
            std::thread::sleep(Duration::from_millis(100 + (random >> 8) % longest.max(1)));
            signal(rustix::process::Signal::CONT);
        }
    }
    true
}

/// Linux copies from one disk to another, synchronises and reads back while devices are struck; the guest has
/// no word of it in its log, and its clock agrees with virtual time.
fn copies_in_a_storm(storm: Storm) {
    let (blows, mib) = (setting("VMSIM_STORM_KILLS", STORM_BLOWS), setting("VMSIM_STORM_MIB", STORM_MIB));
    let home = Home::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let data: Vec<u8> = std::iter::repeat_with(|| next().to_le_bytes()).take(mib << 17).flatten().collect();
    let source = home.write("source.img", &data);
    let target = home.write("target.img", &vec![0; mib << 20]);
    let Some(linux) = Linux::boot_in(home, &["--disk", &source, "--disk", &target]) else { return };
    let uptime = |linux: &Linux| -> f64 {
        let text = linux.shell("cat /proc/uptime");
        text.split_whitespace().next().and_then(|word| word.parse().ok()).expect("seconds")
    };
    let (guest_before, before) = (uptime(&linux), linux.vm.ps().seconds);

    let (mut struck, mut rounds) = (0, 0);
    while struck < blows {
        rounds += 1;
        linux.vm.type_text(&format!(
            "clear; dd if=/dev/sdb of=/dev/sdc bs=64k; sync; echo 3 >/proc/sys/vm/drop_caches; \
             md5sum </dev/sdc; echo ROUND$(({rounds}+0))END\\n"
        ));
        let end = format!("ROUND{rounds}END");
        let started = std::time::Instant::now();
        while !linux.vm.shows(&end) {
            assert!(started.elapsed() < 40 * BOOT_PATIENCE, "round {rounds} does not end");
            let blow = std::time::Instant::now();
            if struck < blows && strike(&linux, storm, next() >> 16) {
                struck += 1;
            }
            std::thread::sleep(STORM_PERIOD.saturating_sub(blow.elapsed()));
        }
        let sum = linux.vm.screen_text();
        assert!(sum.contains(&md5sum(&data)), "round {rounds}: {sum}");
    }

    assert!(std::fs::read(&target).expect("the image") == data, "the image differs from what was copied");

    let (guest_after, after) = (uptime(&linux), linux.vm.ps().seconds);
    let drift = (guest_after - guest_before) - (after - before);
    assert!(drift.abs() < 1.5, "the guest's clock went {drift} s away from virtual time");
    let complaints = linux.shell(
        "dmesg | grep -iE 'lost|timed out|timeout|lockup|exception|stall|i/o error' | grep -v 'NMI watchdog' | tail -5",
    );
    let complaints: Vec<_> = complaints.lines().filter(|line| line.starts_with('[')).collect();
    assert!(complaints.is_empty(), "the guest noticed: {complaints:?}");
    let restarts: u32 = linux.vm.ps().processes.iter().map(|row| row.restarts).sum();
    assert_eq!(restarts, if storm == Storm::Kills { blows as u32 } else { 0 });
    assert_eq!(linux.power_off(), Some(0));
}

#[test]
fn linux_copies_a_disk_in_a_storm_of_kills() {
    copies_in_a_storm(Storm::Kills);
}

#[test]
fn linux_copies_a_disk_while_devices_are_stopped() {
    copies_in_a_storm(Storm::Stops);
}
