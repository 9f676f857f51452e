//! What things cost. A program of its own: cargo runs it while no other test runs, and its tests
//! take turns. Limits are loose, for machines that others use too; the figures are printed.

use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use vmsim_tests::{Home, PATIENCE, Toy, Vm, cpu_time, guest, poll};

static TURN: Mutex<()> = Mutex::new(());

fn my_turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Prints past the capturing of output: figures of passing tests are worth seeing.
fn report(text: &str) {
    // A closed terminal is no failure.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn nanoseconds(figures: &str, what: &str) -> f64 {
    let line = figures.lines().find(|line| line.contains(what));
    let line = line.unwrap_or_else(|| panic!("no figure for {what} in: {figures}"));
    let words: Vec<_> = line.split_whitespace().collect();
    let unit = words.iter().position(|word| *word == "ns").expect("nanoseconds");
    words[unit - 1].parse().expect("a number")
}

/// Goals of the design (ns), and how far above them a machine that is busy may be.
const TRAPPED_READ: f64 = 1_000.0;
const TRAPPED_READ_ONE_CPU: f64 = 8_000.0;
const POSTED_WRITE: f64 = 100.0;
const MIRRORED_READ: f64 = 100.0;
const SLACK: f64 = 10.0;

fn bench(args: &[&str], trapped_read: f64) {
    let home = Home::new();
    let figures = home.vmsim(args).ok();
    report(&figures);
    for (what, goal) in
        [("trapped read", trapped_read), ("posted write", POSTED_WRITE), ("mirrored read", MIRRORED_READ)]
    {
        let found = nanoseconds(&figures, what);
        assert!(found > 0.0 && found <= goal * SLACK, "{what}: {found} ns, {goal} ns wanted");
    }
    assert_eq!(home.temporary_files(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn port_accesses_are_fast() {
    let _turn = my_turn();
    bench(&["bench"], TRAPPED_READ);
}

#[test]
fn port_accesses_are_fast_with_all_processes_on_one_cpu() {
    let _turn = my_turn();
    bench(&["bench", "--one-cpu"], TRAPPED_READ_ONE_CPU);
}

/// CPU time that all processes of a VM use, as a share of one core.
fn load(vm: &Vm, period: Duration) -> f64 {
    let pids = vm.ps().pids();
    let used = || pids.iter().map(|pid| cpu_time(*pid)).sum::<Duration>();
    let (started, before) = (Instant::now(), used());
    std::thread::sleep(period);
    (used() - before).as_secs_f64() / started.elapsed().as_secs_f64()
}

/// Waits for a load below `limit`: boot, drawing and the spinning of idle processes fade out.
fn settles_below(vm: &Vm, limit: f64, what: &str) {
    let reached = poll(&format!("load below {limit}"), PATIENCE, || {
        let load = load(vm, Duration::from_secs(3));
        report(&format!("{what} uses {:.1} % of one core", load * 100.0));
        (load < limit).then_some(load)
    });
    assert!(reached < limit);
}

#[test]
fn an_idle_guest_costs_less_than_five_percent_of_a_core() {
    let _turn = my_turn();
    let Some(image) = guest("mikeos.img") else { return };
    let vm = Vm::with_floppy(&image);
    vm.wait_text("Thanks for trying out MikeOS");

    settles_below(&vm, 0.05, "MikeOS at its dialog");

    assert_eq!(vm.ps().state, "idle");
    vm.stop();
}

#[test]
fn a_paused_guest_costs_next_to_nothing() {
    let _turn = my_turn();
    let vm = Vm::start(&["--demo"]);
    vm.wait_text("Press 1 to 6");

    vm.vmsim(&["pause"]).ok();

    settles_below(&vm, 0.02, "A paused VM");
    vm.stop();
}

/// LAPS.COM: reads the toy device's stopwatch and then a register of each built-in device process, for ever.
const LAPS: &[u8] = &[
    0xba, 0x02, 0x03, // lap: mov dx, 302h
    0xec, // in al, dx
    0xe4, 0x61, // in al, 61h (chipset)
    0xe4, 0x64, // in al, 64h (keyboard)
    0xba, 0xda, 0x03, // mov dx, 3dah
    0xec, // in al, dx (gpu)
    0xba, 0xf4, 0x03, // mov dx, 3f4h
    0xec, // in al, dx (storage)
    0xeb, 0xee, // jmp lap
];

/// Pauses that are measured of each kind; more on demand.
const PAUSES: usize = 20;
const PAUSES_VARIABLE: &str = "VMSIM_PAUSES";
/// What the guest may notice of a restart and of a swap (ms).
const RESTART: f64 = 50.0;
const SWAP: f64 = 100.0;
/// Time between two blows, in which the next device settles.
const CALM: Duration = Duration::from_millis(150);

/// The longest pauses of the guest (ms) in `count` periods, in each of which `blow` does something to a device.
fn pauses(toy: &Toy, count: usize, mut blow: impl FnMut(&'static str)) -> Vec<f64> {
    let laps = || {
        let lap = |line: &String| line.strip_prefix("lap ")?.parse::<f64>().ok();
        toy.seen().iter().filter_map(lap).collect::<Vec<_>>()
    };
    let devices = ["gpu", "storage", "chipset", "keyboard"];
    let mut longest: Vec<f64> = (0..count)
        .map(|number| {
            std::thread::sleep(CALM);
            let before = laps().len();
            blow(devices[number % devices.len()]);
            std::thread::sleep(CALM);
            laps()[before..].iter().copied().fold(0.0, f64::max) / 1e3
        })
        .collect();
    longest.sort_by(f64::total_cmp);
    longest
}

fn share(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

#[test]
fn the_guest_hardly_notices_restarts_and_swaps() {
    let _turn = my_turn();
    let Some(image) = guest("freedos-1440.img") else { return };
    let count = std::env::var(PAUSES_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(PAUSES);
    let home = Home::new();
    let floppy = home.copy(&image);
    let disk = std::fs::File::options().read(true).write(true).open(&floppy).expect("the image");
    let files = fatfs::FileSystem::new(disk, fatfs::FsOptions::new()).expect("a FAT file system");
    files.root_dir().create_file("LAPS.COM").expect("a file").write_all(LAPS).expect("a file");
    files.unmount().expect("the image is complete");
    let toy = Toy::new(&home, "toy", 2);
    let vm = Vm::start_in(home, &["--floppy", &floppy, "--no-sandbox", "--device", &toy.option()]);
    vm.wait_prompt();
    vm.type_text("laps\\n");

    let calm = pauses(&toy, count, |_| ());
    let restarts = pauses(&toy, count, |device| {
        let old = vm.kill(device);
        vm.wait_restarted(device, old);
    });
    let other = Home::built("other-gpu").display().to_string();
    let swaps = pauses(&toy, count, |device| {
        vm.vmsim(&["device", "swap", device, "--exe", &other]).ok();
    });

    for (what, times) in [("nothing", &calm), ("a restart", &restarts), ("a swap", &swaps)] {
        let [median, most, worst] = [0.5, 0.99, 1.0].map(|part| share(times, part));
        report(&format!(
            "the guest pauses for {median:.1} ms (median), {most:.1} ms (99 %), {worst:.1} ms (worst of {count}) for {what}"
        ));
    }
    // A restart that nobody noticed was not measured.
    assert!(share(&restarts, 0.5) > 0.0 && share(&swaps, 0.5) > 0.0);
    assert!(share(&restarts, 0.5) <= RESTART && share(&swaps, 0.5) <= SWAP);
    vm.stop();
}
