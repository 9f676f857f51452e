//! Looks after the processes of a VM: publishes how they are, lets time stand still while one is held,
//! and ends those that hang.

use super::health::{LOOK, TRACED_LOOK};
use super::save::Save;
use super::{DISPLAY, Managed, START_TIMEOUT, Supervisor};
use crate::roles::Executable;
use ipc::link::hand_over;
use ipc::panel::{Health, MAX_DEVICES, ProcessState, RunState, VMM_SLOT};
use ipc::sync::Ordering;
use std::time::{Duration, Instant};

impl Supervisor {
    /// How soon processes are to be looked at again.
    pub(super) fn next_look(&self) -> Duration {
        let mut watches = self.processes.iter().flatten().filter_map(|managed| managed.watch.as_ref());
        if watches.any(|watch| watch.has_tracer()) { TRACED_LOOK } else { LOOK }
    }

    /// Looks at every process, if that is due.
    pub(super) fn look_after_processes(&mut self) {
        let now = Instant::now();
        // Who is held is looked at more often: the guest waits for its return.
        if !self.time_stands && now.duration_since(self.last_look) < self.next_look() {
            return;
        }
        self.last_look = now;
        for process in 0..=DISPLAY {
            self.look_at(process, now);
        }
    }

    fn look_at(&mut self, process: usize, now: Instant) {
        let state = self.memory.process_state(process);
        let handled = self.memory.handled(process);
        let link = self.memory.link(process);
        let waiting = link.is_some_and(|link| !link.requests.is_empty() || !link.events.is_empty());
        let stuck = self.holds_up_the_guest(process, waiting);
        let Some(managed) = &mut self.processes[process] else { return };
        let Some(watch) = &mut managed.watch else { return };
        let parked = self.save.as_ref().is_some_and(Save::holds)
            && link.is_some_and(|link| link.process.hand_over.load(Ordering::Relaxed) == hand_over::PARKED);
        let (done, patience) = if process < MAX_DEVICES && !parked {
            let rounds = link.map_or(0, |link| link.process.heartbeat.load(Ordering::Relaxed));
            let serves = state == ProcessState::Ready && managed.hung.is_none();
            // To go round and round is no progress when the guest waits for an answer.
            let rounds = if stuck { 0 } else { rounds };
            (handled.wrapping_add(rounds.into()), managed.watchdog.filter(|_| serves))
        } else {
            // Of these, and of those that do nothing because they were told so, it only matters whether somebody holds them.
            (watch.last_done().wrapping_add(1), None)
        };
        let before = watch.health();
        let health = watch.look(now, done, waiting || stuck, patience);
        let still = watch.still();
        if let Some(cell) = self.memory.panel().process(process) {
            cell.health.store(health as u32, Ordering::Relaxed);
        }
        managed.stopped = health.is_held();
        let late = managed.starts_late(now, state) && process < MAX_DEVICES && !health.is_held();
        let by_hand = managed.executable == Executable::ByHand;
        if health.is_held() != before.is_held() && process <= VMM_SLOT {
            self.tell_of_hold(process, health);
        }
        if by_hand {
            // Its user may be about to look why it hangs.
            return;
        }
        if health == Health::Hangs {
            self.end_hung(process, &format!("hung: it did nothing for {:.1} s", still.as_secs_f64()));
        } else if late {
            self.end_hung(process, &format!("hung: it was not ready within {START_TIMEOUT:?}"));
        }
    }

    /// Whether the guest can do nothing until the process answers, and nothing else keeps the process from that.
    fn holds_up_the_guest(&self, process: usize, waiting: bool) -> bool {
        let panel = self.memory.panel();
        let waits_for = panel.vcpu.waits_for.load(Ordering::Acquire) as usize;
        // An answer that comes later waits for a timer of the model, hence for time to go on.
        waits_for == process + 1
            && panel.run_state() == RunState::Running
            && (waiting || !panel.clock.is_frozen())
    }

    fn tell_of_hold(&mut self, process: usize, health: Health) {
        // Now, not when the log has been written.
        self.keep_time();
        let name = self.name(process);
        if health.is_held() {
            self.note(&format!("{name} is {health}: time stands still until it goes on"));
        } else {
            self.note(&format!("{name} goes on"));
        }
    }

    fn end_hung(&mut self, process: usize, why: &str) {
        let name = self.name(process);
        let request = self.memory.link(process).and_then(super::crash_bundle::at_hand);
        let why = match request {
            Some(request) => format!("{why}, with a request at hand: {request}"),
            None => why.to_owned(),
        };
        self.note(&format!("{name} {why}; the watchdog ends it"));
        if let Some(managed) = &mut self.processes[process]
            && let Some(child) = &managed.child
        {
            child.abort();
            managed.hung = Some(why);
        }
    }
}

impl Managed {
    /// Whether it should have become ready by now.
    fn starts_late(&mut self, now: Instant, state: ProcessState) -> bool {
        if !matches!(state, ProcessState::Starting | ProcessState::Restarting) {
            self.unready_since = None;
            return false;
        }
        let since = *self.unready_since.get_or_insert(now);
        self.child.is_some()
            && self.hung.is_none()
            && !self.debug
            && now.duration_since(since) > START_TIMEOUT
    }
}
