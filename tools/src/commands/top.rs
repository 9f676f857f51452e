//! `vmsim top`: where the time of a guest's second goes, device process by device process.
//!
//! It looks into the VM's shared memory a thousand times a second, without anybody's help: so it costs the VM nothing, and
//! shares are as exact as that many looks make them. Numbers of messages are counted, not sampled.

use super::print_text;
use crate::client;
use anyhow::{Result, bail};
use ipc::board::{Board, VcpuState};
use ipc::control::VmStatus;
use ipc::link::Link;
use ipc::message::Message;
use ipc::runtime_dir::VmDir;
use ipc::segment::{Segment, SegmentNames};
use ipc::sync::Ordering;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(1);
/// Linux shows times to user space in 1/100 s, whatever its own tick is (USER_HZ).
const TICKS_PER_SECOND: f64 = 100.0;
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[H\x1b[J";

/// What was seen of a device process.
#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    /// Looks at which its ring was not empty.
    busy: u32,
    /// Looks at which the guest waited for it.
    waited: u32,
    /// Messages in its ring, of all looks.
    depth: u64,
    /// Most messages in its ring at one look.
    deepest: u64,
}

/// What was seen of the vCPU: looks at which it ran guest code, was halted, waited for a device.
#[derive(Clone, Debug, Default, PartialEq)]
struct Vcpu {
    running: u32,
    halted: u32,
    waiting: u32,
}

/// Counters at one moment.
#[derive(Clone, Debug, Default)]
struct Counters {
    messages: u64,
    accesses: u64,
    errors: u64,
    cpu_ticks: u64,
}

struct Device {
    name: String,
    pid: u32,
    models: Vec<String>,
    link: Link,
}

impl Device {
    fn counters(&self) -> Counters {
        let layout = self.link.layout();
        let sum = |counter: fn(&ipc::link::ModelCell) -> u64| {
            layout.models.iter().map(counter).fold(0, u64::wrapping_add)
        };
        Counters {
            messages: layout.requests.produced(),
            accesses: sum(|cell| cell.accesses.load(Ordering::Relaxed)),
            errors: sum(|cell| cell.errors.load(Ordering::Relaxed)),
            cpu_ticks: cpu_ticks(self.pid),
        }
    }
}

/// CPU time that a process used, in ticks; 0 when it is gone.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in parentheses, may have spaces in it; utime and stime are fields 14 and 15 of proc(5).
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// Prints figures every `interval`, `count` times or until the VM ends.
pub fn top(vm: Option<&str>, interval: Duration, count: Option<u32>) -> Result<()> {
    let (mut control, dir) = client::connect(vm)?;
    let names = SegmentNames::new(dir.name());
    let board = Segment::open(&names.board())?;
    let clear = if count != Some(1) && std::io::stdout().is_terminal() { CLEAR } else { "" };
    let mut left = count.unwrap_or(u32::MAX);
    while left > 0 {
        let status = match control.status() {
            Err(_) if !dir.is_running() => break,
            status => status?,
        };
        // A process that was restarted has another number.
        let devices = devices(&status, &names)?;
        let text = watch(board.view()?, &devices, interval, &dir)?;
        print_text(&format!("{clear}{}: {}\n{text}", status.name, status.state))?;
        left -= 1;
    }
    Ok(())
}

fn devices(status: &VmStatus, names: &SegmentNames) -> Result<Vec<Device>> {
    // Device processes come in the order of their slots; the others have no models.
    let others = ["supervisor", "vmm", "display"];
    let processes = status.processes.iter().filter(|process| !others.contains(&process.name.as_str()));
    let device = |(slot, process): (usize, &ipc::control::ProcessStatus)| {
        Ok(Device {
            name: process.name.clone(),
            pid: process.pid,
            models: process.models.clone(),
            link: Link::open(&names.link(slot))?,
        })
    };
    processes.enumerate().map(device).collect()
}

fn watch(board: &Board, devices: &[Device], interval: Duration, dir: &VmDir) -> Result<String> {
    let mut seen = vec![Seen::default(); devices.len()];
    let mut vcpu = Vcpu::default();
    let before: Vec<_> = devices.iter().map(Device::counters).collect();
    let instructions = board.vcpu.instructions.load(Ordering::Relaxed);
    let virtual_before = board.clock.now().0;
    let began = Instant::now();
    let mut looks = 0u32;
    while began.elapsed() < interval {
        look(board, devices, &mut seen, &mut vcpu);
        looks += 1;
        std::thread::sleep(LOOK);
    }
    if !dir.is_running() {
        bail!("The VM has ended");
    }
    let seconds = began.elapsed().as_secs_f64();
    let after: Vec<_> = devices.iter().map(Device::counters).collect();
    let ran = board.vcpu.instructions.load(Ordering::Relaxed).wrapping_sub(instructions);
    let virtual_seconds = board.clock.now().0.saturating_sub(virtual_before) as f64 / 1e9;
    let share = |part: u32| f64::from(part) * 100.0 / f64::from(looks.max(1));
    let mut out = format!(
        "  vCPU: {:.0} % guest code, {:.0} % halted, {:.0} % waits for devices; {:.1} million instructions/s; virtual time at \
         {:.0} % ({looks} looks)\n",
        share(vcpu.running),
        share(vcpu.halted),
        share(vcpu.waiting),
        ran as f64 / seconds / 1e6,
        virtual_seconds / seconds * 100.0,
    );
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "  {:12} {:>10} {:>10} {:>8} {:>6} {:>6} {:>6} {:>6} {:>7}  MODELS",
        "PROCESS", "MESSAGES/s", "ACCESSES/s", "ERRORS/s", "CPU %", "BUSY %", "WAIT %", "QUEUE", "LONGEST"
    );
    for (((device, seen), before), after) in devices.iter().zip(&seen).zip(&before).zip(&after) {
        let rate =
            |counter: fn(&Counters) -> u64| counter(after).wrapping_sub(counter(before)) as f64 / seconds;
        let cpu =
            after.cpu_ticks.saturating_sub(before.cpu_ticks) as f64 / TICKS_PER_SECOND / seconds * 100.0;
        let _ = writeln!(
            out,
            "  {:12} {:>10.0} {:>10.0} {:>8.0} {:>6.1} {:>6.1} {:>6.1} {:>6.1} {:>7}  {}",
            device.name,
            rate(|counters| counters.messages),
            rate(|counters| counters.accesses),
            rate(|counters| counters.errors),
            cpu,
            share(seen.busy),
            share(seen.waited),
            seen.depth as f64 / f64::from(looks.max(1)),
            seen.deepest,
            device.models.join(" ")
        );
    }
    Ok(out)
}

fn look(board: &Board, devices: &[Device], seen: &mut [Seen], vcpu: &mut Vcpu) {
    let waits_for = board.vcpu.waits_for.load(Ordering::Relaxed) as usize;
    let mut waits = waits_for != 0;
    for (slot, (device, seen)) in devices.iter().zip(seen).enumerate() {
        let requests = &device.link.layout().requests;
        let depth = requests.len().unwrap_or(0);
        // The newest message is the one that the guest waits for, if it waits for any of them.
        let newest = requests.peek_last().and_then(Message::decode);
        let waited = waits_for == slot + 1 || newest.is_some_and(|message| message.expects_reply());
        waits |= waited;
        seen.busy += u32::from(depth > 0);
        seen.waited += u32::from(waited);
        seen.depth += depth;
        seen.deepest = seen.deepest.max(depth);
    }
    match VcpuState::from_wire(board.vcpu.state.load(Ordering::Relaxed)) {
        VcpuState::Halted => vcpu.halted += 1,
        _ if waits => vcpu.waiting += 1,
        VcpuState::Running => vcpu.running += 1,
        _ => {}
    }
}
