//! `vmsim bench`: what port accesses cost, measured by a guest.

use crate::cli::{DisplayKind, RunArgs};
use crate::supervisor::Supervisor;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(120);
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
    let dir = tempfile::Builder::new().prefix("vmsim-bench-").tempdir()?;
    let (floppy, console) = (dir.path().join("bench.img"), dir.path().join("console"));
    std::fs::write(&floppy, images::demo::bench_floppy())?;
    let args = RunArgs {
        name: Some(format!("bench-{}", std::process::id())),
        floppy: vec![floppy],
        debug_console: Some(console.clone()),
        display: Some(DisplayKind::None),
        demo: true,
        ..RunArgs::default()
    };
    let mut supervisor = Supervisor::start(crate::config::plan(&args)?)?;
    supervisor.run_guest();
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let text = std::fs::read_to_string(&console).unwrap_or_default();
        if text.contains(DONE) {
            let cpus = if one_cpu { "one CPU" } else { "all CPUs" };
            println!("Guest-side cost of port accesses, processes on {cpus}:");
            text.lines().filter(|line| line.contains("ns")).for_each(|line| println!("  {line}"));
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("The benchmark guest did not finish within {TIMEOUT:?}; it said: {text}");
        }
        supervisor.serve_for(Duration::from_millis(50))?;
    }
}
