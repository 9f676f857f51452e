//! `vmsim bench`: what port accesses cost, measured by a guest.
//!
//! The guest's clock does not have what it waits for a device process after the VMM has stopped spinning: that is added here.

use crate::cli::{DisplayKind, HostArgs, RunArgs};
use crate::supervisor::Supervisor;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

/// Runs of the guest: the median shows the usual, the best what a busy machine hides.
const ROUNDS: u32 = 7;
const TIMEOUT: Duration = Duration::from_secs(120);
/// How often the guest's progress is looked at.
const LOOK: Duration = Duration::from_millis(1);
/// Name of the figure that is of waits, and of the one before it.
const WAITS: &str = "trapped read";
const BEFORE_WAITS: &str = "loop alone";
/// Last line of the benchmark guest.
const DONE: &str = "bench done";

/// Boots the benchmark floppy on the built-in firmware and prints what it finds.
pub fn run(one_cpu: bool) -> Result<()> {
    if one_cpu {
        let mut cpus = rustix::thread::CpuSet::new();
        let allowed = rustix::thread::sched_getaffinity(None).context("CPU affinity")?;
        let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap_or(0);
        cpus.set(first);
        // Inherited by every process of the VM.
        rustix::thread::sched_setaffinity(None, &cpus).context("Cannot pin to one CPU")?;
    }
    let mut figures: Vec<(String, Vec<f64>)> = Vec::new();
    for round in 0..ROUNDS {
        for (name, nanos) in measure(round)? {
            match figures.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(nanos),
                None => figures.push((name, vec![nanos])),
            }
        }
    }
    let cpus = if one_cpu { "one CPU" } else { "all CPUs" };
    println!("Cost of port accesses to a guest, processes on {cpus}; {ROUNDS} runs of the guest:");
    println!("  {:16} {:>12} {:>12}", "", "best", "median");
    for (name, mut values) in figures {
        values.sort_by(f64::total_cmp);
        println!("  {name:16} {:>9.1} ns {:>9.1} ns", values[0], values[values.len() / 2]);
    }
    Ok(())
}

/// One run of the guest: what it measured, in ns.
fn measure(round: u32) -> Result<Vec<(String, f64)>> {
    let dir = tempfile::Builder::new().prefix("vmsim-bench-").tempdir()?;
    let (floppy, console) = (dir.path().join("bench.img"), dir.path().join("console"));
    std::fs::write(&floppy, images::demo::bench_floppy())?;
    let args = RunArgs {
        floppy: vec![floppy],
        demo: true,
        host: HostArgs {
            name: Some(format!("bench-{}-{round}", std::process::id())),
            debug_console: Some(console.clone()),
            display: Some(DisplayKind::None),
            ..HostArgs::default()
        },
        ..RunArgs::default()
    };
    let mut supervisor = Supervisor::start(crate::config::plan(&args)?)?;
    supervisor.run_guest();
    let deadline = Instant::now() + TIMEOUT;
    let (mut before, mut after) = (None, None);
    loop {
        let text = std::fs::read_to_string(&console).unwrap_or_default();
        if has_line(&text, BEFORE_WAITS) {
            before.get_or_insert_with(|| supervisor.waited());
        }
        if has_line(&text, WAITS) {
            after.get_or_insert_with(|| supervisor.waited());
        }
        if text.contains(DONE) {
            let waited = after.unwrap_or_default().saturating_sub(before.unwrap_or_default());
            let waited = waited.as_nanos() as f64 / f64::from(images::demo::BENCH_TURNS);
            let figures = text.lines().filter_map(figure);
            return Ok(figures
                .map(|(name, nanos)| {
                    let more = if name == WAITS { waited } else { 0.0 };
                    (name, nanos + more)
                })
                .collect());
        }
        if Instant::now() > deadline {
            bail!("The benchmark guest did not finish within {TIMEOUT:?}; it said: {text}");
        }
        supervisor.serve_for(LOOK)?;
    }
}

/// Whether the figure of this name is complete.
fn has_line(text: &str, name: &str) -> bool {
    text.split_inclusive('\n').any(|line| line.starts_with(name) && line.ends_with('\n'))
}

/// Reads a line such as `posted write: 96.5 ns`.
fn figure(line: &str) -> Option<(String, f64)> {
    let (name, rest) = line.split_once(": ")?;
    Some((name.into(), rest.strip_suffix(" ns")?.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_and_other_lines_left_out() {
        assert_eq!(figure("posted write: 96.5 ns"), Some(("posted write".into(), 96.5)));
        assert_eq!(figure("time-stamp counter: 450 MHz"), None);
        assert_eq!(figure("bench done"), None);
        assert!(has_line("loop alone: 1 ns\ntrapped", "loop alone"));
        assert!(!has_line("loop alone: 1 ns\ntrapped read: 5", WAITS));
    }
}
