//! Debian's stock Linux, from SeaBIOS to a shell and back.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use vmsim_tests::{Home, Missing, PATIENCE, Vm, guest, poll, program_in_path, skip};

/// What the guest says when its shells are there (`images/src/recipes/linux`).
const READY: &str = "VMSIM-LINUX-READY";
/// The whole boot, with other tests running beside it.
pub const BOOT_PATIENCE: Duration = Duration::from_secs(300);
/// Bytes of the disk that the guest reads back.
const READ_BACK: usize = 4 << 20;

/// A VM with Linux at its shell, and the `vmsim run` that waits for its end.
pub struct Linux {
    /// The VM.
    pub vm: Vm,
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

    /// The same in given surroundings.
    pub fn boot_in(home: Home, args: &[&str]) -> Option<Self> {
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
        let mut all = vec!["run", "--name", &name, "--ram", "128M"];
        all.extend(["--disk", &image, "--serial", &com1]);
        all.extend(args);
        if !args.contains(&"--display") {
            all.extend(["--display", "none"]);
        }
        let run = home.command(&all).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let vm = Vm::adopt(home, name);
        poll("Linux at its shell", BOOT_PATIENCE, || {
            let screen = vm.vmsim(&["screen", "--text"]);
            (screen.out.contains(READY) && screen.out.trim_end().ends_with('#')).then_some(())
        });
        Some(Self { vm, run, disk, serial, commands: std::cell::Cell::new(0) })
    }

    /// Types a command and gives what it says on a cleared screen, once its shell is back.
    pub fn shell(&self, command: &str) -> String {
        // The end is marked with a number that only the shell computes and no earlier command has left.
        let number = 1000 + self.commands.replace(self.commands.get() + 1);
        self.vm.type_text(&format!("clear; {command}; echo END$(({number}+0))\\n"));
        let screen = self.vm.wait_screen(command, |text| text.contains(&format!("END{number}")));
        screen.trim_start().to_owned()
    }

    /// The same guest, which was saved in `file` and whose VM has ended, in a VM of its own.
    pub fn after_restore(mut self, file: &str) -> Self {
        poll("end of the VM", BOOT_PATIENCE, || self.run.try_wait().unwrap());
        let home = std::mem::take(self.vm.home_mut());
        let name = home.fresh_name();
        let args = ["restore", file, "--name", &name, "--display", "none"];
        let run = home.command(&args).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let vm = Vm::adopt(home, name);
        poll("the restored VM", PATIENCE, || vm.try_ps().map(drop));
        Self { vm, run, ..self }
    }

    /// `poweroff`: the exit code of `vmsim run`.
    pub fn power_off(mut self) -> Option<i32> {
        self.vm.type_text("poweroff\\n");
        poll("end of the VM", BOOT_PATIENCE, || self.run.try_wait().unwrap()).code()
    }
}

/// The MD5 sum as the program md5sum prints it, short enough for a line of the screen.
pub fn md5sum(bytes: &[u8]) -> String {
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
