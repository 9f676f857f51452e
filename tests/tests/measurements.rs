//! What things cost. A program of its own: cargo runs it while no other test runs, and its tests
//! take turns. Limits are loose, for machines that others use too; the figures are printed.

use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use vmsim_tests::{Home, PATIENCE, Vm, cpu_time, guest, poll};

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
