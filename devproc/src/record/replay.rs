//! Runs a build's models against a recording, in this process, and says where they differ.
//!
//! Each call is made as it was recorded, at the same virtual time and with the same answers from the
//! machine; what the model then answers and does is compared. Calls are numbered as transactions from 1.
//! The recording is not trusted: it may come from anywhere.

use super::deeds::{Doings, kind};
use super::format::{
    Access, AccessKind, Answer, Call, Deed, FormatError, Header, Learnt, Outcome, PictureHash, RegionInfo,
    Shown, Start, Status, What,
};
use super::hash::hash_picture;
use super::items::{Item, Items, Transaction};
use super::names::{Names, width_mask};
use super::show;
use super::stand_in::{StandIn, Surroundings, World};
use crate::device::{self, Device, Frame, IoError, RegionId, ResetKind, TimerId, Width};
use crate::outside::{ImageAct, Outside};
use crate::process::{BuildContext, Builder, debugger};
use ipc::link::PAYLOAD_BYTES;
use ipc::machine::MachineConfig;
use ipc::time::VirtualTime;
use std::any::Any;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a recording cannot be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The file is not one.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// This executable has no such device process.
    #[error(
        "It is of the device process '{0}', which this executable does not have: name another with --exe"
    )]
    NoSuchDevice(String),
    /// The models cannot be built.
    #[error("Cannot build the models of '{device}': {reason}")]
    Build {
        /// Name of the device process.
        device: String,
        /// One line that says why.
        reason: String,
    },
    /// This build has other models.
    #[error("'{device}' had the models {recorded} when it was recorded; this build has {found}")]
    Models {
        /// Name of the device process.
        device: String,
        /// Models of the recording.
        recorded: String,
        /// Models of this build.
        found: String,
    },
    /// A model refuses the recorded state.
    #[error("{model} of this build does not take the state that the recording starts with: {reason}")]
    State {
        /// The model.
        model: String,
        /// Why.
        reason: String,
    },
    /// The content makes no sense.
    #[error("It is damaged: {0}")]
    Nonsense(String),
}

/// Where a build differs from the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Number of the transaction, counted from 1; 0: the start of a section.
    pub transaction: u64,
    /// What the transaction was, and where it reached.
    pub call: String,
    /// What differs.
    pub what: String,
    /// What was recorded.
    pub recorded: String,
    /// What this build did.
    pub found: String,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Name of the device process.
    pub device: String,
    /// Transactions replayed.
    pub transactions: u64,
    /// Guest time in the recording.
    pub guest: Duration,
    /// Host time that the recording took; less than that of the guest when its end is missing.
    pub host: Duration,
    /// Time that the replay took.
    pub took: Duration,
    /// The recording ends in the middle of an entry.
    pub cut: bool,
    /// The recording ends with a call that did not come back.
    pub died: bool,
    /// Differences told.
    pub differences: u64,
}

/// Whether to go on after a difference.
pub type GoOn = bool;

/// Replays a recording with the models that `build` gives for its device. `tell` is told each difference. Before the
/// models are called for transaction `stop_at` the process is stopped for its debugger.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(
    source: impl Read,
    build: impl Fn(&str) -> Option<Builder>,
    stop_at: Option<u64>,
    mut tell: impl FnMut(&Difference) -> GoOn,
) -> Result<Report, ReplayError> {
    let began = Instant::now();
    let (mut items, header) = Items::new(source)?;
    let mut player = Player::new(header, build)?;
    player.stop_at = stop_at;
    let mut more = true;
    while more
        && !player.over
        && let Some(item) = items.next()?
    {
        match item {
            Item::Start(start) => match catch_unwind(AssertUnwindSafe(|| player.start(*start))) {
                Ok(started) => started?,
                Err(panic) => {
                    let reason = format!("a panic: {}", panic_text(panic.as_ref()));
                    return Err(ReplayError::Build { device: player.report.device, reason });
                }
            },
            Item::Transaction(transaction) => player.transaction(*transaction)?,
            Item::Bus(both) => player.bus(&both.0, &both.1)?,
            Item::End(host_nanos) => {
                let lasted = host_nanos.saturating_sub(player.host_start);
                player.report.host = player.report.host.saturating_add(Duration::from_nanos(lasted));
            }
        }
        for difference in player.differences.drain(..) {
            player.report.differences += 1;
            more = more && tell(&difference);
        }
    }
    player.end_section();
    let mut report = player.report;
    report.cut = items.is_cut();
    report.took = began.elapsed();
    Ok(report)
}

/// What a panic said.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?")
}

struct Player {
    header: Header,
    names: Names,
    config: MachineConfig,
    builder: Builder,
    models: Vec<Box<dyn Device>>,
    worlds: Vec<World>,
    around: Surroundings,
    outside: Outside,
    /// Regions as they were in the recording.
    regions: Vec<Vec<RegionInfo>>,
    frames: Vec<Frame>,
    pictures: Vec<Option<PictureHash>>,
    started: bool,
    over: bool,
    stop_at: Option<u64>,
    host_start: u64,
    guest_start: u64,
    now: u64,
    differences: Vec<Difference>,
    report: Report,
}

impl Player {
    fn new(header: Header, build: impl Fn(&str) -> Option<Builder>) -> Result<Self, ReplayError> {
        let builder =
            build(&header.device).ok_or_else(|| ReplayError::NoSuchDevice(header.device.clone()))?;
        Ok(Self {
            names: Names::new(&header),
            config: header.machine.config(),
            builder,
            models: Vec::new(),
            worlds: Vec::new(),
            around: Surroundings::default(),
            outside: Outside::default(),
            regions: Vec::new(),
            frames: Vec::new(),
            pictures: Vec::new(),
            started: false,
            over: false,
            stop_at: None,
            host_start: 0,
            guest_start: 0,
            now: 0,
            differences: Vec::new(),
            report: Report { device: header.device.clone(), ..Report::default() },
            header,
        })
    }

    fn end_section(&mut self) {
        let lasted = Duration::from_nanos(self.now.saturating_sub(self.guest_start));
        self.report.guest = self.report.guest.saturating_add(lasted);
        self.guest_start = self.now;
    }

    fn start(&mut self, start: Start) -> Result<(), ReplayError> {
        self.end_section();
        self.started = true;
        self.report.died = false;
        (self.now, self.guest_start, self.host_start) = (start.now, start.now, start.host_nanos);
        self.outside = Outside::recorded(self.header.found.clone());
        let context = BuildContext {
            config: &self.config,
            start_unix_seconds: self.header.start_unix_seconds,
            outside: &self.outside,
        };
        let device = self.header.device.clone();
        self.models = (self.builder)(&context)
            .map_err(|reason| ReplayError::Build { device: device.clone(), reason })?;
        self.outside.built();
        self.outside.listen(true);
        let list = |names: Vec<&str>| names.join(", ");
        let recorded: Vec<_> = self.header.models.iter().map(|model| model.name.as_str()).collect();
        let found: Vec<_> = self.models.iter().map(|model| model.name()).collect();
        if recorded != found {
            return Err(ReplayError::Models { device, recorded: list(recorded), found: list(found) });
        }
        if start.models.len() != self.models.len() {
            return Err(ReplayError::Nonsense("a section starts without all its models".into()));
        }
        self.worlds = self.models.iter().map(|model| World::new(model.as_ref())).collect();
        self.around = Surroundings::new(self.config.ram_bytes);
        self.around.begin_with(&start.around);
        self.frames = self.models.iter().map(|_| Frame::default()).collect();
        self.pictures = self.models.iter().map(|_| None).collect();
        self.regions = start.models.iter().map(|model| model.shown.regions.clone()).collect();
        for (number, model) in start.models.iter().enumerate() {
            if !start.cold {
                self.models[number].load(model.version, &model.state).map_err(|error| {
                    ReplayError::State { model: self.models[number].name().into(), reason: error.to_string() }
                })?;
                for (offset, bytes) in &model.memory {
                    let start = usize::try_from(*offset).ok();
                    let end = start.and_then(|start| start.checked_add(bytes.len()));
                    let memory = &mut self.worlds[number].memory;
                    let target = start.zip(end).and_then(|(start, end)| memory.get_mut(start..end));
                    target
                        .ok_or_else(|| {
                            ReplayError::Nonsense("a model has more device memory than this build's".into())
                        })?
                        .copy_from_slice(bytes);
                }
            }
            let mut host = StandIn::new(start.now, &mut self.worlds[number], &mut self.around);
            self.models[number].attach(&mut host);
            if start.cold {
                self.models[number].reset(ResetKind::PowerOn, &mut host);
            }
            let _ = self.worlds[number].doings.finish();
            self.compare_shown(number, &model.shown);
            // From here on the same changes are changes for both.
            self.worlds[number].doings = Doings::new(&model.shown);
        }
        Ok(())
    }

    fn compare_shown(&mut self, number: usize, recorded: &Shown) {
        let found = self.worlds[number].doings.shown();
        let mirrors = |shown: &Shown| show::mirrors(&self.names, number as u8, &shown.mirrors);
        let parts = [
            ("lines", show::lines(recorded.lines), show::lines(found.lines)),
            ("timers", show::timers(&recorded.timers), show::timers(&found.timers)),
            ("mirrors", mirrors(recorded), mirrors(&found)),
            ("regions", show::regions(&recorded.regions), show::regions(&found.regions)),
        ];
        for (what, recorded, found) in parts {
            if recorded != found {
                let call = format!("{}: start", self.names.model_name(number as u8));
                self.differences.push(Difference {
                    transaction: self.report.transactions,
                    call,
                    what: what.into(),
                    recorded,
                    found,
                });
            }
        }
    }

    /// An access that the bus answers: what it does to the device's memory, and what it finds.
    fn bus(&mut self, access: &Access, answer: &Answer) -> Result<(), ReplayError> {
        let number = usize::from(access.model);
        let region = self.regions.get(number).and_then(|regions| {
            regions.iter().find(|region| region.id == access.region && !access.kind.is_config())
        });
        let Some(region) = region.filter(|_| number < self.worlds.len()) else {
            return Err(ReplayError::Nonsense("an access is to nothing that the bus answers for".into()));
        };
        let Some((backing, _)) = region.backing else { return Ok(()) };
        let world = &mut self.worlds[number];
        let value = access.value.to_le_bytes();
        let answered = answer.value.to_le_bytes();
        let width = usize::from(access.width).min(value.len());
        let data = match access.kind {
            AccessKind::Write => &value[..width],
            AccessKind::WriteBurst => &access.data,
            AccessKind::Read => &answered[..width],
            _ => answer.data.as_slice(),
        };
        let start = backing.checked_add(access.offset).and_then(|start| usize::try_from(start).ok());
        let end = start.and_then(|start| start.checked_add(data.len()));
        let memory = start.zip(end).and_then(|(start, end)| world.memory.get_mut(start..end));
        let Some(memory) = memory else {
            return Err(ReplayError::Nonsense("an access is beyond the device's memory".into()));
        };
        if access.kind.is_write() {
            memory.copy_from_slice(data);
        } else if memory != data {
            let (recorded, found) = (show::bytes(data), show::bytes(memory));
            self.differences.push(Difference {
                transaction: self.report.transactions,
                call: show::access(&self.names, access, self.now),
                what: "device memory".into(),
                recorded,
                found,
            });
        }
        Ok(())
    }

    // A place for breakpoints: once for each transaction, in their order.
    #[inline(never)]
    fn transaction(&mut self, transaction: Transaction) -> Result<(), ReplayError> {
        let Transaction { number: count, call, learnt, outcome } = transaction;
        let call = &call;
        self.report.transactions = count;
        self.now = call.now;
        let number = usize::from(call.model);
        if !self.started || number >= self.models.len() {
            return Err(ReplayError::Nonsense(format!(
                "transaction {} is for no model",
                self.report.transactions
            )));
        }
        let (images, learnt): (Vec<_>, Vec<_>) =
            learnt.into_iter().partition(|learnt| matches!(learnt, Learnt::Image(_)));
        let image = |learnt| match learnt {
            Learnt::Image(act) => Some(act),
            _ => None,
        };
        self.outside.expect(images.into_iter().filter_map(image).collect::<Vec<ImageAct>>());
        self.around.expect(learnt);
        let drew_before = self.pictures[number].is_some();
        let world = &mut self.worlds[number];
        world.doings.begin(&call.what);
        let model = self.models[number].as_mut();
        let frame = &mut self.frames[number];
        let mut host = StandIn::new(call.now, world, &mut self.around);
        let run = || perform(model, call, frame, drew_before, &mut host);
        if self.stop_at == Some(count) {
            debugger::stop(&format!("transaction {count}: {}", show::call(&self.names, call)));
        }
        let (answer, drew) = match catch_unwind(AssertUnwindSafe(run)) {
            Ok(done) => done?,
            Err(panic) => {
                let found = format!("a panic: {}", panic_text(panic.as_ref()));
                self.differ(call, "outcome", "none".into(), found);
                // What state the model is in now means nothing.
                self.over = true;
                return Ok(());
            }
        };
        self.outside.take_acts().into_iter().for_each(|act| world.doings.image(act));
        let deeds = world.doings.finish();
        let complaints = self.around.take_complaints().into_iter();
        let unknown = self.outside.take_unknown().into_iter();
        let unknown = unknown
            .map(|(image, offset, len)| format!("read of {len} bytes at {offset:#x} of disk image {image}"));
        for complaint in complaints.chain(unknown) {
            self.differ(call, "what the model looks at", "nothing of it is known".into(), complaint);
        }
        let Some(outcome) = outcome else {
            self.report.died = true;
            return Ok(());
        };
        self.track_regions(number, &outcome.deeds);
        self.compare(call, &outcome, &answer, &deeds);
        self.compare_pictures(call, number, outcome.picture.as_ref(), drew);
        Ok(())
    }

    /// Follows the regions as they were in the recording.
    fn track_regions(&mut self, number: usize, deeds: &[Deed]) {
        for deed in deeds {
            if let Deed::Region(region) = deed
                && let Some(old) = self.regions[number].iter_mut().find(|old| old.id == region.id)
            {
                *old = region.clone();
            }
        }
    }

    fn differ(&mut self, call: &Call, what: &str, recorded: String, found: String) {
        self.differences.push(Difference {
            transaction: self.report.transactions,
            call: show::call(&self.names, call),
            what: what.into(),
            recorded,
            found,
        });
    }

    fn compare(&mut self, call: &Call, outcome: &Outcome, answer: &Answer, deeds: &[Deed]) {
        if let What::Access(access) = &call.what
            && outcome.answer != *answer
        {
            let (recorded, found) = (&outcome.answer, answer);
            let mut what = "reply".to_owned();
            let single = matches!(access.kind, AccessKind::Read | AccessKind::ConfigRead);
            if single && recorded.status == found.status {
                let bits = self.names.differing_bits(access, recorded.value, found.value);
                what = format!("reply, {bits} of {}", self.names.place(access));
            }
            let (recorded, found) = show::answers(access, recorded, found);
            self.differ(call, &what, recorded, found);
        }
        for (recorded, found) in differing_kinds(&outcome.deeds, deeds) {
            let what = recorded.first().or(found.first()).map_or("", |deed| show::kind_name(deed));
            let at = recorded.iter().zip(found).take_while(|(recorded, found)| recorded == found).count();
            let (recorded, found) = show::deeds(&self.names, call.model, recorded.get(at), found.get(at));
            self.differ(call, what, recorded, found);
        }
    }

    fn compare_pictures(
        &mut self,
        call: &Call,
        number: usize,
        recorded: Option<&PictureHash>,
        found: Option<PictureHash>,
    ) {
        let last = self.pictures[number].clone();
        let recorded = recorded.cloned().or(last);
        let now = if found.is_some() { found } else { self.pictures[number].clone() };
        // What is compared with from now on is what was recorded: one difference is told once.
        self.pictures[number].clone_from(&recorded);
        if let Some((recorded, now)) = recorded.zip(now)
            && recorded != now
        {
            let (what, recorded, found) = show::pictures(&recorded, &now);
            self.differ(call, &what, recorded, found);
        }
    }
}

/// Runs of deeds of one kind, which differ.
fn differing_kinds<'a>(recorded: &'a [Deed], found: &'a [Deed]) -> Vec<(&'a [Deed], &'a [Deed])> {
    if recorded == found {
        return Vec::new();
    }
    let of = |deeds: &'a [Deed], wanted: u8| {
        let start = deeds.partition_point(|deed| kind(deed) < wanted);
        let len = deeds[start..].iter().take_while(|deed| kind(deed) == wanted).count();
        &deeds[start..start + len]
    };
    let mut kinds: Vec<_> = recorded.iter().chain(found).map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into_iter().map(|kind| (of(recorded, kind), of(found, kind))).filter(|(r, f)| r != f).collect()
}

/// Makes a call.
fn perform(
    model: &mut dyn Device,
    call: &Call,
    frame: &mut Frame,
    drew_before: bool,
    host: &mut StandIn<'_>,
) -> Result<(Answer, Option<PictureHash>), ReplayError> {
    match &call.what {
        What::Access(access) => return Ok((perform_access(model, access, host)?, None)),
        What::Reset(hard) => model.reset(if *hard { ResetKind::Hard } else { ResetKind::PowerOn }, host),
        What::Acknowledge(vector) => model.interrupt_acknowledged(*vector, host),
        What::Timer(timer, deadline) => model.timer(TimerId(*timer), VirtualTime(*deadline), host),
        What::Event(event) => model.host_event(event, host),
        What::Lines => model.lines_changed(host),
        What::Render(force) => {
            let drew = model.render(frame, *force || !drew_before, host);
            return Ok((Answer::default(), drew.then(|| hash_picture(frame))));
        }
    }
    Ok((Answer::default(), None))
}

fn perform_access(
    model: &mut dyn Device,
    access: &Access,
    host: &mut StandIn<'_>,
) -> Result<Answer, ReplayError> {
    let width = match access.width {
        1 => Width::Byte,
        2 => Width::Word,
        4 => Width::Dword,
        other => return Err(ReplayError::Nonsense(format!("an access is {other} bytes wide"))),
    };
    let at = device::Access {
        region: RegionId(access.region),
        address: access.address,
        offset: access.offset,
        width,
    };
    let mut data = Vec::new();
    let result = match access.kind {
        AccessKind::Read => model.read(at, host).map(|value| value & width.mask()),
        AccessKind::Write => model.write(at, access.value, host).map(|()| 0),
        AccessKind::ReadBurst => {
            data.resize((access.len as usize).min(PAYLOAD_BYTES), 0);
            model.read_burst(at, &mut data, host).map(|()| 0)
        }
        AccessKind::WriteBurst => model.write_burst(at, &access.data, host).map(|()| 0),
        AccessKind::ConfigRead => Ok(model.config_read(access.address as u8, width, host)),
        AccessKind::ConfigWrite => {
            model.config_write(access.address as u8, width, access.value, host);
            Ok(0)
        }
    };
    let status = match result {
        Ok(_) => Status::Done,
        Err(IoError::InvalidRegister) => Status::InvalidRegister,
        Err(IoError::InvalidWidth) => Status::InvalidWidth,
        Err(IoError::NoResponse) => Status::NoResponse,
        Err(IoError::Deferred) => Status::Deferred,
    };
    if result.is_err() {
        data.clear();
    }
    let value = result.unwrap_or(0) & width_mask(4);
    Ok(Answer { status, value, data: data.into() })
}
