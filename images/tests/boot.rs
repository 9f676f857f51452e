//! Boots the built-in ROM and floppies in QEMU, an independent PC; skipped where it is not installed.

mod skip;

use images::demo;
use images::disk::{self, FloppyContent, FloppyFormat, Kind};
use indicatif::ProgressBar;
use skip::skip;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-i386";
const PATIENCE: Duration = Duration::from_secs(60);

/// A running machine whose debug port goes to a file.
struct Machine {
    child: Child,
    log: PathBuf,
}

impl Machine {
    fn start(folder: &Path, arguments: &[&str]) -> Option<Self> {
        let log = folder.join("e9.log");
        let child = Command::new(QEMU)
            .args(["-display", "none", "-net", "none", "-cpu", "pentium,-apic"])
            .arg("-debugcon")
            .arg(format!("file:{}", log.display()))
            .args(arguments)
            .args(["-monitor", "stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self { child, log }),
            Err(_) => {
                skip(&format!("{QEMU} is not installed"));
                None
            }
        }
    }

    /// Presses and releases a key.
    fn press(&mut self, key: &str) {
        let monitor = self.child.stdin.as_mut().unwrap();
        writeln!(monitor, "sendkey {key}").unwrap();
    }

    /// What the debug port printed up to and including `text`.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < deadline, "no {text:?} on the debug port, only: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

fn floppy_argument(path: &str) -> String {
    format!("if=floppy,format=raw,file={path}")
}

#[test]
fn rom_without_floppy_starts_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let rom = write(folder.path(), "rom.bin", demo::demo_rom());
    let Some(mut machine) = Machine::start(folder.path(), &["-bios", &rom]) else { return };

    machine.wait_for("demo: menu");
}

#[test]
fn menu_keys_open_the_graphics_floppy_and_benchmark_pages() {
    let folder = tempfile::tempdir().unwrap();
    let rom = write(folder.path(), "rom.bin", demo::demo_rom());
    let Some(mut machine) = Machine::start(folder.path(), &["-bios", &rom]) else { return };
    machine.wait_for("demo: menu");

    machine.press("2");
    machine.wait_for("demo: mode 13h");
    machine.press("esc");
    machine.press("5");
    machine.wait_for("demo: no floppy");
    machine.press("esc");
    machine.press("6");
    machine.wait_for("bench done");
}

#[test]
fn demo_reads_a_floppy_that_cannot_boot() {
    let folder = tempfile::tempdir().unwrap();
    let rom = write(folder.path(), "rom.bin", demo::demo_rom());
    for format in [FloppyFormat::F720, FloppyFormat::F1440, FloppyFormat::F2880] {
        let path = folder.path().join(format.name());
        let blank = Kind::Floppy { format, content: FloppyContent::Blank };
        disk::create(&path, &blank, &ProgressBar::hidden()).unwrap();
        let floppy = floppy_argument(&path.display().to_string());
        let Some(mut machine) = Machine::start(folder.path(), &["-bios", &rom, "-drive", &floppy]) else {
            return;
        };
        machine.wait_for("demo: menu");

        machine.press("5");

        machine.wait_for("demo: sector 0 read");
        drop(machine);
        std::fs::remove_file(folder.path().join("e9.log")).unwrap();
    }
}

#[test]
fn rom_boots_the_demo_floppy_through_dma() {
    let folder = tempfile::tempdir().unwrap();
    let rom = write(folder.path(), "rom.bin", demo::demo_rom());
    let floppy = floppy_argument(&write(folder.path(), "a.img", &demo::demo_floppy()));
    let Some(mut machine) = Machine::start(folder.path(), &["-bios", &rom, "-drive", &floppy]) else {
        return;
    };

    machine.wait_for("Boot sector read again: signature 55 AA found.");
}

#[test]
fn bench_floppy_measures_under_the_rom_and_under_seabios() {
    for own_rom in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let rom = write(folder.path(), "rom.bin", demo::demo_rom());
        let floppy = floppy_argument(&write(folder.path(), "a.img", &demo::bench_floppy()));
        let mut arguments = vec!["-drive", floppy.as_str()];
        if own_rom {
            arguments.extend(["-bios", rom.as_str()]);
        }
        let Some(mut machine) = Machine::start(folder.path(), &arguments) else { return };

        let log = machine.wait_for("bench done\n");

        for measured in ["trapped read: ", "posted write: ", "mirrored read: "] {
            let line = log.lines().find_map(|line| line.strip_prefix(measured)).unwrap();
            let nanoseconds: f64 = line.strip_suffix(" ns").unwrap().parse().unwrap();
            assert!(nanoseconds > 0.0, "{measured}{line}");
        }
    }
}
