//! The main loop of a device process.

use super::host::ModelHost;
use super::machine::DeviceProcess;
use super::{ProcessError, crash_point};
use crate::device::{Access, Device, IoError, RegionId, ResetKind};
use crate::host::Host;
use crate::record::format::What;
use ipc::link::{PAYLOAD_BYTES, Payload, decode_event};
use ipc::message::{Kind, Message, Status, may_be_joined};
use ipc::panel::{RunState, VMM_SLOT};
use ipc::patience::Patience;
use ipc::sync::Ordering;
use ipc::time::VirtualTime;
use std::time::Duration;

/// Longest sleep: a process that was told nothing still looks around this often.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);
/// Timers served before requests are looked at again.
const TIMERS_AT_ONCE: u32 = 10_000;
/// Tries to send before it is done less often.
const PATIENT_TRIES: u32 = 1000;
/// While spinning, the clock is read once in this many rounds.
const CLOCK_ROUNDS: u32 = 16;

/// Why a device process does not serve any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It is to end, and nothing is left to do.
    Told,
    /// It is to give its place to another build, with states of these versions (0: the model's own).
    HandsOver(Vec<u16>),
}

impl DeviceProcess {
    /// Serves until the process is to end, or to give its place to another one.
    ///
    /// # Errors
    /// [`ProcessError::Protocol`] when the request ring is corrupt.
    pub fn serve(&mut self) -> Result<Ended, ProcessError> {
        let mut buffer = vec![0; PAYLOAD_BYTES];
        let mut patience = Patience::for_work();
        loop {
            self.take_tape_orders();
            self.beat();
            if self.orders.is_new()
                && let Some(versions) = self.orders.hand_over()
            {
                return Ok(Ended::HandsOver(versions));
            }
            let mut worked = self.serve_requests(&mut buffer)?;
            worked |= self.serve_timers();
            worked |= self.serve_faults();
            worked |= self.serve_events();
            if self.shared.board().lines.generation() != self.lines_seen && !self.watchers.is_empty() {
                let now = self.shared.clock().now();
                self.follow_lines(now);
                worked = true;
            }
            self.paint_if_due();
            if worked {
                continue;
            }
            if self.orders.is_ending() {
                return Ok(Ended::Told);
            }
            let timer = self.next_deadline();
            let mut round = 0u32;
            let news = || {
                round = round.wrapping_add(1);
                // The clock costs more than the rest: it is looked at now and then.
                self.has_news() || (round.is_multiple_of(CLOCK_ROUNDS) && self.is_due(timer))
            };
            if !patience.look(news) {
                self.sleep(timer);
                self.stopwatch.after_pause();
                // The CPUs that the process may use can change while it runs; this is off the hot path.
                patience.renew(Patience::for_work());
            }
        }
    }

    /// Shows that this process does not hang.
    fn beat(&self) {
        let heartbeat = &self.shared.layout().process.heartbeat;
        // Only this thread writes it: no locked instruction is needed.
        heartbeat.store(heartbeat.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether somebody wants something. Looked at while spinning: cheap.
    fn has_news(&self) -> bool {
        let layout = self.shared.layout();
        !layout.requests.is_empty()
            || !layout.events.is_empty()
            || (!self.watchers.is_empty() && self.shared.board().lines.generation() != self.lines_seen)
            || self.tape_orders.are_waiting()
            || self.orders.is_ending()
            || self.orders.is_new()
    }

    fn is_due(&self, timer: Option<VirtualTime>) -> bool {
        timer.is_some_and(|deadline| self.shared.clock().now() >= deadline)
    }

    fn sleep(&self, timer: Option<VirtualTime>) {
        let (board, clock) = (self.shared.board(), self.shared.clock());
        let mut timeout = self.tape.patience().unwrap_or(LONGEST_SLEEP);
        // How long to sleep depends on whether the clock runs: if that changes, think again.
        let seen = clock.changes();
        if let Some(deadline) = timer {
            if clock.is_frozen() {
                board.sleeps_frozen(self.shared.slot);
            } else {
                timeout = timeout.min(Duration::from_nanos(deadline - clock.now()));
            }
        }
        if let Some(painter) = &self.painter {
            timeout = timeout.min(painter.next_look(self.shared.panel()));
        }
        board
            .doorbell(self.shared.slot)
            .sleep(Some(timeout), || self.has_news() || self.is_due(timer) || clock.changes() != seen);
    }

    fn serve_timers(&mut self) -> bool {
        let mut worked = false;
        if self.shared.timers.next().is_none() {
            return false;
        }
        let now = self.shared.clock().now();
        // A model that arms its timer for a moment that has passed, again and again, must not keep
        // the guest waiting for ever.
        for _ in 0..TIMERS_AT_ONCE {
            let Some((deadline, number, timer)) = self.shared.timers.take_due(now) else { break };
            ipc::logging::set_context(now, (0, 0));
            let what = || What::Timer(timer.0, deadline.0);
            self.call(number, now, what, |model, host| model.timer(timer, deadline, host));
            self.follow_lines(now);
            worked = true;
        }
        worked
    }

    fn serve_events(&mut self) -> bool {
        let mut worked = false;
        while let Ok(Some(words)) = self.shared.layout().events.peek() {
            let now = self.shared.clock().now();
            if let Some(event) = decode_event(words) {
                let count = self.shared.layout().events.consumed().wrapping_add(1);
                for number in 0..self.models.len() {
                    // A predecessor may have died when only some models had dealt with it.
                    if self.committer.sees_event(number, count) {
                        let what = || What::Event(event.clone());
                        self.call(number, now, what, |model, host| model.host_event(&event, host));
                    }
                }
                self.follow_lines(now);
            }
            crash_point();
            self.shared.layout().events.advance();
            worked = true;
        }
        worked
    }

    fn serve_requests(&mut self, buffer: &mut [u8]) -> Result<bool, ProcessError> {
        let mut worked = false;
        loop {
            let waiting = match self.shared.layout().requests.len() {
                Ok(waiting) => waiting,
                Err(error) => return Err(ProcessError::Protocol(error.to_string())),
            };
            // One that is to hand over leaves the rest to its successor, however much comes.
            if waiting == 0 || self.orders.is_new() && !self.orders.is_ending() {
                if worked {
                    // The VMM may wait for posted writes to have been handled.
                    self.shared.board().doorbell(VMM_SLOT).ring();
                }
                return Ok(worked);
            }
            worked = true;
            for _ in 0..waiting {
                let requests = &self.shared.layout().requests;
                let mut words = requests.front();
                if may_be_joined(&words) {
                    words = requests.close_front();
                }
                match Message::decode(words) {
                    Some(request) => {
                        // Timers that were due before the access come first: the model sees
                        // one order of time.
                        if self.shared.timers.next().is_some_and(|deadline| deadline <= request.time) {
                            self.serve_timers();
                        }
                        self.serve_request(&request, buffer);
                    }
                    None => tracing::error!("Dropped a request that no VMM sends: {words:x?}"),
                }
                self.shared.layout().requests.advance();
            }
        }
    }

    fn serve_request(&mut self, request: &Message, buffer: &mut [u8]) {
        ipc::logging::set_context(request.time, request.guest);
        let now = request.time;
        self.may_be_killed(request);
        if request.kind == Kind::Reset {
            let kind = if request.value == 0 { ResetKind::PowerOn } else { ResetKind::Hard };
            for number in 0..self.models.len() {
                let what = || What::Reset(kind == ResetKind::Hard);
                self.call(number, now, what, |model, host| model.reset(kind, host));
            }
            self.follow_lines(now);
            self.send(&Message { sequence: request.sequence, time: now, ..Message::new(Kind::Reply) });
            return;
        }
        let number = usize::from(request.model);
        let mut reply = Message { sequence: request.sequence, time: now, ..Message::new(Kind::Reply) };
        let mut deferred = false;
        if number < self.models.len() {
            self.take_latch(number);
            self.take_counters(number);
            let began = self.stopwatch.begin();
            let answer = self.answer(number, request, buffer);
            let Self { models, shared, stopwatch, .. } = self;
            let model = models[number].as_mut();
            let cell = &shared.layout().models[number];
            stopwatch.end(began, cell);
            // Only this thread writes it: no locked instruction is needed.
            cell.accesses.store(cell.accesses.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            match answer {
                Ok(value) => reply.value = value.into(),
                Err(IoError::Deferred) => deferred = true,
                Err(error) => {
                    cell.errors.fetch_add(1, Ordering::Relaxed);
                    reply.status = status_of(error);
                }
            }
            if request.kind == Kind::ReadBurst && reply.status == Status::Done {
                reply.payload = request.payload;
                let len = request.payload.1 as usize;
                if !shared.layout().write_payload(Payload::In, &buffer[..len.min(PAYLOAD_BYTES)]) {
                    reply.status = Status::InvalidWidth;
                }
            }
            if shared.panel().logs_accesses() {
                log_access(model.name(), request, &reply);
            }
            if deferred {
                shared.deferred[number] = Some(request.sequence);
            }
            self.may_float(request, &mut reply);
            let Self { models, shared, committer, .. } = self;
            let model = models[number].as_mut();
            let answered = (request.expects_reply() && !deferred).then_some(reply);
            committer.begin(number, request.sequence, answered);
            committer.commit(number, model, shared);
            crash_point();
            if request.kind == Kind::InterruptAcknowledge {
                shared.board().intr.acknowledge_arrived(request.address as u32);
            }
            crash_point();
            self.apply_effects(number, now);
            self.follow_lines(now);
        } else {
            reply.status = Status::NoResponse;
        }
        if request.expects_reply() && !deferred {
            self.send(&reply);
        }
        self.committer.end();
        crash_point();
    }

    /// What model `number` answers to a request.
    #[inline]
    fn answer(&mut self, number: usize, request: &Message, buffer: &mut [u8]) -> Result<u32, IoError> {
        let region = self.shared.region(number, RegionId(request.region));
        let at = Access {
            region: RegionId(request.region),
            address: request.address,
            offset: request.address.wrapping_sub(region.map_or(0, |region| region.base)),
            width: request.width,
        };
        // The region may have moved since the VMM looked: what is outside now, nobody answers.
        let is_access = matches!(request.kind, Kind::Read | Kind::Write | Kind::ReadBurst | Kind::WriteBurst);
        if is_access && region.is_none_or(|region| at.offset >= region.len) {
            return Err(IoError::InvalidRegister);
        }
        if request.kind == Kind::WriteBurst
            && !self.shared.layout().read_payload(Payload::Out, &mut buffer[..burst_len(request)])
        {
            return Err(IoError::InvalidWidth);
        }
        if self.shared.observed {
            return self.answer_observed(number, at, request, buffer);
        }
        let Self { models, shared, .. } = self;
        let mut host = ModelHost { shared, model: number, now: request.time };
        access(models[number].as_mut(), &mut host, at, request, buffer)
    }

    /// Sends to the VMM; waits while the ring is full (the VMM takes messages while it waits too).
    pub(super) fn send(&self, message: &Message) {
        let layout = self.shared.layout();
        let mut tries = 0;
        while let Err(error) = layout.replies.push(message.encode()) {
            if !matches!(error, ipc::ring::RingError::Full) {
                tracing::error!("Reply lost: {error}");
                return;
            }
            if self.orders.is_ending() || self.shared.panel().run_state() == RunState::Stopping {
                // Nobody takes it any more, and what was posted must still be done.
                return;
            }
            self.shared.board().call_vcpu(ipc::board::attention::CODE_WRITTEN);
            // It is the VMM that does not get on.
            self.beat();
            tries += 1;
            if tries < PATIENT_TRIES {
                std::thread::yield_now();
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        self.shared.board().doorbell(VMM_SLOT).ring();
    }
}

/// Has a model answer a request. What a burst writes is in `buffer`, and what one reads comes there.
#[inline]
pub(super) fn access(
    model: &mut dyn Device,
    host: &mut dyn Host,
    at: Access,
    request: &Message,
    buffer: &mut [u8],
) -> Result<u32, IoError> {
    let len = burst_len(request);
    match request.kind {
        Kind::Read => model.read(at, host).map(|value| value & request.width.mask()),
        Kind::Write => {
            // As if each had come for itself.
            let mut answer = Ok(0);
            for value in request.values() {
                answer = model.write(at, value, host).and(answer);
            }
            answer
        }
        Kind::ReadBurst => model.read_burst(at, &mut buffer[..len], host).map(|()| 0),
        Kind::WriteBurst => model.write_burst(at, &buffer[..len], host).map(|()| 0),
        Kind::ConfigRead => Ok(model.config_read(request.address as u8, request.width, host)),
        Kind::ConfigWrite => {
            model.config_write(request.address as u8, request.width, request.value as u32, host);
            Ok(0)
        }
        Kind::InterruptAcknowledge => {
            model.interrupt_acknowledged(request.value as u8, host);
            Ok(0)
        }
        Kind::Reset | Kind::Reply | Kind::CodeWritten => Err(IoError::InvalidRegister),
    }
}

/// Bytes of a burst.
pub(super) fn burst_len(request: &Message) -> usize {
    (request.payload.1 as usize).min(PAYLOAD_BYTES)
}

fn status_of(error: IoError) -> Status {
    match error {
        IoError::InvalidRegister => Status::InvalidRegister,
        IoError::InvalidWidth => Status::InvalidWidth,
        IoError::NoResponse | IoError::Deferred => Status::NoResponse,
    }
}

fn log_access(model: &str, request: &Message, reply: &Message) {
    let digits = 2 * request.width.bytes() as usize;
    let address = request.address;
    match request.kind {
        Kind::Read | Kind::ConfigRead => {
            tracing::info!(
                "{model} {:?} {address:04x} -> {:0digits$x} {:?}",
                request.kind,
                reply.value,
                reply.status
            );
        }
        Kind::Write | Kind::ConfigWrite => request.values().for_each(|value| {
            tracing::info!(
                "{model} {:?} {address:04x} <- {value:0digits$x} {:?}",
                request.kind,
                reply.status
            );
        }),
        _ => {
            tracing::info!(
                "{model} {:?} {address:04x} {} bytes {:?}",
                request.kind,
                request.payload.1,
                reply.status
            );
        }
    }
}
