//! Boots the Linux disk in QEMU, an independent PC; skipped where QEMU or the packages are not there.

mod skip;

use images::recipes::{RecipeError, linux};
use indicatif::ProgressBar;
use skip::skip;
use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-i386";
/// For everything together; other tests may keep the host busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where a PC has its text: cells of character and attribute. Linux scrolls by moving the screen within it.
const TEXT_MEMORY: &str = "0xb8000";
const TEXT_BYTES: usize = 32 * 1024;

/// A running PC with the disk.
struct Machine {
    child: Child,
    serial: std::os::unix::net::UnixStream,
    said: Receiver<u8>,
    log: String,
    screen: PathBuf,
    deadline: Instant,
}

impl Machine {
    fn start(folder: &Path, disk: &Path) -> Option<Self> {
        let socket = folder.join("serial");
        let listener = UnixListener::bind(&socket).unwrap();
        let child = Command::new(QEMU)
            .args(["-M", "pc", "-accel", "tcg", "-cpu", "pentium3", "-m", "128", "-vga", "std"])
            .args(["-display", "none", "-net", "none", "-no-reboot", "-monitor", "stdio"])
            .args(["-drive", &format!("if=ide,format=raw,file={}", disk.display())])
            .args(["-serial", &format!("unix:{}", socket.display())])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            skip(&format!("{QEMU} is not installed"));
            return None;
        };
        let serial = listener.accept().unwrap().0;
        let (sender, said) = channel();
        let reader = BufReader::new(serial.try_clone().unwrap());
        std::thread::spawn(move || {
            reader.bytes().map_while(Result::ok).try_for_each(|byte| sender.send(byte))
        });
        let deadline = Instant::now() + PATIENCE;
        Some(Self { child, serial, said, log: String::new(), screen: folder.join("screen"), deadline })
    }

    /// Waits for `text` on the serial port, and returns the line that it begins.
    fn wait_for(&mut self, text: &str) -> String {
        let start = self.log.len();
        loop {
            let line = self.log[start..].find(text).and_then(|at| self.log[start + at..].lines().next());
            if let Some(line) = line.filter(|_| self.log.ends_with('\n')) {
                return line.to_owned();
            }
            let left = self.deadline.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(byte) => self.log.push(char::from(byte)),
                Err(_) => panic!("no {text:?} on the serial port, only: {}", self.log),
            }
        }
    }

    fn say(&mut self, command: &str) {
        self.serial.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    fn monitor(&mut self, command: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
    }

    /// Types on the keyboard.
    fn press(&mut self, keys: &[&str]) {
        for key in keys {
            self.monitor(&format!("sendkey {key} 30"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for `text` on the screen.
    fn wait_for_screen(&mut self, text: &str) {
        let mut shown = String::new();
        while Instant::now() < self.deadline {
            // In quotes: the monitor would divide by a path.
            self.monitor(&format!("pmemsave {TEXT_MEMORY} {TEXT_BYTES} \"{}\"", self.screen.display()));
            std::thread::sleep(Duration::from_millis(300));
            let cells = std::fs::read(&self.screen).unwrap_or_default();
            shown = cells.chunks(2).map(|cell| char::from(cell[0])).collect();
            if shown.contains(text) {
                return;
            }
        }
        panic!("no {text:?} on the screen, only: {shown}");
    }

    /// Waits until the PC has switched itself off.
    fn wait_for_end(mut self) {
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < self.deadline, "the machine is still on: {}", self.log);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn linux_boots_to_a_shell_on_screen_and_serial_port_and_switches_off() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("linux.img");
    match linux::create(&disk, &linux::Options::default(), &ProgressBar::hidden()) {
        Err(error @ RecipeError::NoLinux { .. }) => return skip(&error.to_string()),
        result => result.unwrap(),
    }
    let Some(mut machine) = Machine::start(folder.path(), &disk) else { return };

    machine.wait_for("Loading Linux ..");
    let ready = machine.wait_for(linux::READY);
    let uptime: f64 = ready.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(uptime > 0.0, "{ready}");
    machine.wait_for_screen(linux::READY);

    // The file system that the loader does not look at, and a file read through Linux's own driver.
    machine.say("mount /mnt && crc32 /mnt/test.bin && tail -n 1 /mnt/readme.txt");
    let sum = machine.wait_for("CRC-32 of TEST.BIN: ");
    let expected = sum.rsplit(' ').next().unwrap().trim();
    assert!(machine.log.contains(&format!("{expected} /mnt/test.bin")), "{}", machine.log);
    machine.say("grep -c sda1 /proc/partitions; id");
    machine.wait_for("uid=0(root)");

    // The keyboard: the shell on the screen writes to the serial port.
    machine.press(&[
        "e",
        "c",
        "h",
        "o",
        "spc",
        "k",
        "e",
        "y",
        "s",
        "shift-dot",
        "slash",
        "d",
        "e",
        "v",
        "slash",
    ]);
    machine.press(&["t", "t", "y", "shift-s", "0", "ret"]);
    machine.wait_for("keys");

    machine.say("poweroff");
    machine.wait_for_end();
}
