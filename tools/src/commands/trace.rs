//! `vmsim trace`: exceptions, interrupts and port accesses of the guest as they happen.

use crate::cli::TraceArgs;
use crate::client;
use anyhow::{Context, Result, bail};
use ipc::control::Control;
use ipc::inspect::{Inspect, Inspected, MAX_TRACE_BATCH, TraceBatch, TraceEvent, TraceFilter, TraceRecord};
use std::io::Write;
use std::time::Duration;

/// How often records are fetched while few come.
const PERIOD: Duration = Duration::from_millis(50);
/// All ports.
const ALL_PORTS: (u16, u16) = (0, u16::MAX);
/// Names of the exceptions by number.
const EXCEPTIONS: [&str; 20] = [
    "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "9", "#TS", "#NP", "#SS", "#GP", "#PF",
    "15", "#MF", "#AC", "#MC", "#XM",
];

/// Prints events until there were enough, or for ever.
pub fn trace(args: &TraceArgs) -> Result<()> {
    let filter = filter(args)?;
    let (mut control, vm) = client::connect(args.vm.name.as_deref())?;
    let mut next = fetch(&mut control, Inspect::TraceStart(filter))?.next;
    let limit = if args.follow { args.limit } else { Some(args.limit.unwrap_or(100)) };
    let mut left = limit.unwrap_or(u64::MAX);
    let mut out = std::io::stdout().lock();
    while left > 0 {
        let batch = match fetch(&mut control, Inspect::TraceRead { from: next }) {
            Err(_) if !vm.is_running() => break,
            batch => batch?,
        };
        next = batch.next;
        if print(&mut out, &batch, &mut left).is_err() {
            // The reader of a pipe has seen enough.
            break;
        }
        if !batch.recording {
            bail!("Another 'vmsim trace' took over, or this one was held up for too long");
        }
        if batch.records.len() < MAX_TRACE_BATCH && left > 0 {
            std::thread::sleep(PERIOD);
        }
    }
    // The VM may have ended.
    let _ = control.inspect(Inspect::TraceStop);
    Ok(())
}

fn filter(args: &TraceArgs) -> Result<TraceFilter> {
    let ports = match &args.ports {
        None => None,
        Some(None) => Some(ALL_PORTS),
        Some(Some(range)) => Some(port_range(range)?),
    };
    let filter = TraceFilter { exceptions: args.exceptions, interrupts: args.interrupts, ports };
    Ok(if filter == TraceFilter::default() {
        TraceFilter { exceptions: true, interrupts: true, ports: Some(ALL_PORTS) }
    } else {
        filter
    })
}

/// `60` or `3f0-3f7`.
fn port_range(text: &str) -> Result<(u16, u16)> {
    let port = |text: &str| {
        let digits = text.trim_start_matches("0x").trim_end_matches(['h', 'H']);
        u16::from_str_radix(digits, 16)
            .with_context(|| format!("--ports {text}: write 60 or 3f0-3f7, in hexadecimal"))
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok((port(first)?, port(last)?))
}

fn fetch(control: &mut Control, what: Inspect) -> Result<TraceBatch> {
    match control.inspect(what)? {
        Inspected::Trace(batch) => Ok(batch),
        other => bail!("The VMM gave another answer than the one asked for: {other:?}"),
    }
}

fn print(out: &mut impl Write, batch: &TraceBatch, left: &mut u64) -> std::io::Result<()> {
    if batch.lost > 0 {
        writeln!(out, "({} records lost: they came faster than they were fetched)", batch.lost)?;
    }
    for record in &batch.records {
        if *left == 0 {
            break;
        }
        writeln!(out, "{}", line(record))?;
        *left -= 1;
    }
    out.flush()
}

/// A record as a line: `    1.234567890 f000:0000e05b in  0060.1 -> fa`.
fn line(record: &TraceRecord) -> String {
    let what = match record.event {
        TraceEvent::Exception { vector, error_code, detail } => {
            let name = EXCEPTIONS.get(usize::from(vector)).copied().unwrap_or("?");
            let code = error_code.map_or(String::new(), |code| format!(" error {code:04x}"));
            let detail = match name {
                "#PF" => format!(" CR2 {detail:08x}"),
                "#DB" => format!(" DR6 {detail:08x}"),
                _ => String::new(),
            };
            format!("exception {vector:02x} {name}{code}{detail}")
        }
        TraceEvent::Interrupt { vector } => format!("interrupt {vector:02x}"),
        TraceEvent::Software { vector, eax } => format!("int       {vector:02x} EAX {eax:08x}"),
        TraceEvent::Port { port, width, write, value, count } => {
            let digits = usize::from(width) * 2;
            let times = if count > 1 { format!(" and {} more", count - 1) } else { String::new() };
            let (name, arrow) = if write { ("out", "<-") } else { ("in ", "->") };
            format!("{name}       {port:04x}.{width} {arrow} {value:0digits$x}{times}")
        }
    };
    let seconds = record.nanos / 1_000_000_000;
    let nanos = record.nanos % 1_000_000_000;
    format!("{seconds:>6}.{nanos:09} {:04x}:{:08x} {what}", record.cs, record.eip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(event: TraceEvent) -> TraceRecord {
        TraceRecord { nanos: 1_000_000_005, cs: 0x60, eip: 0xc010_0000, event }
    }

    #[test]
    fn lines_say_what_when_and_where() {
        let fault = TraceEvent::Exception { vector: 14, error_code: Some(2), detail: 0xdead_b000 };
        assert_eq!(
            line(&record(fault)),
            "     1.000000005 0060:c0100000 exception 0e #PF error 0002 CR2 deadb000"
        );
        let port = TraceEvent::Port { port: 0x1f0, width: 2, write: false, value: 0x1, count: 256 };
        assert!(line(&record(port)).ends_with("in        01f0.2 -> 0001 and 255 more"));
        let port = TraceEvent::Port { port: 0x20, width: 1, write: true, value: 0x20, count: 1 };
        assert!(line(&record(port)).ends_with("out       0020.1 <- 20"));
    }

    #[test]
    fn port_ranges_are_hexadecimal() {
        assert_eq!(port_range("3f0-3f7").unwrap(), (0x3f0, 0x3f7));
        assert_eq!(port_range("0x60").unwrap(), (0x60, 0x60));
        assert!(port_range("kbd").is_err());
    }
}
