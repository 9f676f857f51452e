//! `vmsim top`: who costs the time.

use crate::cli::TopArgs;
use crate::client;
use anyhow::{Context, Result};
use ipc::control::{ProcessStatus, VmStatus};
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Clears a terminal and goes to its upper left corner.
const CLEAR: &str = "\x1b[H\x1b[2J";
const NANOS: f64 = 1e9;

/// Shows what the processes of a VM did in each interval, until interrupted or so many times.
pub fn top(args: &TopArgs) -> Result<()> {
    let interval = Duration::try_from_secs_f64(args.interval)
        .ok()
        .filter(|interval| !interval.is_zero())
        .with_context(|| format!("--interval {} is no number of seconds", args.interval))?;
    let (mut control, _) = client::connect(args.vm.name.as_deref())?;
    let terminal = std::io::stdout().is_terminal() && args.count != Some(1);
    let (mut before, mut then) = (control.status()?, Instant::now());
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        std::thread::sleep(interval);
        let (now, at) = (control.status()?, Instant::now());
        let table = table(&before, &now, (at - then).as_secs_f64());
        super::print_text(&if terminal { format!("{CLEAR}{table}") } else { table })?;
        (before, then) = (now, at);
        shown += 1;
    }
    Ok(())
}

fn table(before: &VmStatus, now: &VmStatus, seconds: f64) -> String {
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "{}: {}, virtual time {:.3} s, at {:.0} % of host time, {:.1} million interpreted instructions/s",
        now.name,
        now.state,
        now.virtual_nanos as f64 / NANOS,
        rate(before.virtual_nanos, now.virtual_nanos) / NANOS * 100.0,
        rate(before.instructions, now.instructions) / 1e6
    );
    let _ = writeln!(
        out,
        "  {:12} {:11} {:>7} {:>8} {:>12} {:>8} {:>7} {:>10}",
        "PROCESS", "STATE", "CPU %", "MODEL %", "MESSAGES/S", "ERRORS/S", "QUEUE", "WAITED %"
    );
    for process in &now.processes {
        // One that was started again begins with a CPU time of zero.
        let fresh = ProcessStatus::default();
        let same = |old: &&ProcessStatus| old.name == process.name;
        let old = before.processes.iter().find(same).unwrap_or(&fresh);
        let cpu_before = if old.pid == process.pid { old.cpu_nanos } else { 0 };
        let _ = writeln!(
            out,
            "  {:12} {:11} {:>7.1} {:>8.1} {:>12.0} {:>8.0} {:>7} {:>10.1}",
            process.name,
            process.state,
            rate(cpu_before, process.cpu_nanos) / NANOS * 100.0,
            rate(old.model_nanos, process.model_nanos) / NANOS * 100.0,
            rate(old.messages, process.messages),
            rate(old.errors, process.errors),
            process.queue,
            rate(old.waited_nanos, process.waited_nanos) / NANOS * 100.0,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_interval() {
        let process = |messages, cpu_nanos, waited_nanos, pid| ProcessStatus {
            name: "gpu".into(),
            state: "ready".into(),
            pid,
            messages,
            cpu_nanos,
            waited_nanos,
            model_nanos: messages * 200_000,
            ..ProcessStatus::default()
        };
        let status = |virtual_nanos, process| VmStatus {
            name: "vm".into(),
            state: "running".into(),
            virtual_nanos,
            processes: vec![process],
            ..VmStatus::default()
        };
        let before = status(0, process(100, 5_000_000_000, 0, 7));
        let now = status(1_000_000_000, process(1100, 6_000_000_000, 500_000_000, 7));
        let text = table(&before, &now, 2.0);
        assert!(text.contains("at 50 % of host time"), "{text}");
        let row: Vec<_> = text.lines().last().unwrap_or_default().split_whitespace().collect();
        assert_eq!(row, ["gpu", "ready", "50.0", "10.0", "500", "0", "0", "25.0"]);
        // Started again meanwhile: its CPU time is its own.
        let now = status(1_000_000_000, process(1100, 200_000_000, 0, 8));
        let text = table(&before, &now, 2.0);
        assert!(text.lines().last().is_some_and(|row| row.contains(" 10.0 ")), "{text}");
    }
}
