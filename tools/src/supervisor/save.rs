//! `vmsim save`: brings the whole VM to rest, writes it into a file, and lets it go on or ends it.
//!
//! The VMM stops the guest between two instructions, freezes time, waits until the devices have done what they were sent, and
//! gives its own state. Then every device process commits its states and parks, as in a swap of builds. From there on nothing
//! changes, and a thread of its own writes what lies in shared memory. Whatever goes wrong, the VM goes on where it was.

use super::serial::SerialPorts;
use super::{DISPLAY, Managed, Supervisor};
use crate::roles::Executable;
use anyhow::{Context, Result};
use crossbeam::channel::{Receiver, Sender, bounded};
use ipc::control::Reply;
use ipc::input::HostEvent;
use ipc::link::{LinkLayout, decode_event, hand_over};
use ipc::machine::{DriveConfig, SerialBackend};
use ipc::panel::{ProcessState, VMM_SLOT};
use ipc::segment::Segment;
use ipc::setup::{Command, Exported};
use ipc::sync::Ordering;
use ipc_channel::TryRecvError;
use ipc_channel::ipc::IpcReceiver;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vmm::saved::{
    About, Board, Clock, Contents, Device, DeviceProcess, FileSource, Identity, Machine, MachineFile, Model,
    Program, SerialPort, Source, Use,
};

/// How long device processes that are being started again may take to be there.
const READY_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the VMM may take: it waits for devices.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long device processes may take to finish what they are at.
const PARK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long is looked at a time whether one has.
const PARK_LOOK: Duration = Duration::from_millis(2);

/// A VM that is being saved.
pub struct Save {
    file: PathBuf,
    stop: bool,
    with_disks: bool,
    reply: Sender<Reply>,
    stage: Stage,
}

enum Stage {
    /// Until every device process serves.
    Ready { until: Instant },
    /// Until the VMM stands.
    Stopping { state: IpcReceiver<Exported>, until: Instant },
    /// Until every device process is parked. The VM stands.
    Parking { processor: Exported, since: Instant, told: Vec<Option<Told>> },
    /// Until the file is written. The VM stands.
    Writing { done: Receiver<Result<u64>>, since: Instant, unwanted: Arc<AtomicBool> },
}

/// That a device process was told to park: which run of it, and when.
#[derive(Clone, Copy)]
struct Told {
    generation: u64,
    at: Instant,
}

/// What ends the VM: it is saved, and somebody waits to hear that.
pub struct SavedAndStopped {
    /// Who waits.
    pub reply: Sender<Reply>,
    /// What to say.
    pub text: String,
}

impl Save {
    /// Whether the VM stands still for it.
    pub fn holds(&self) -> bool {
        matches!(self.stage, Stage::Parking { .. } | Stage::Writing { .. })
    }

    /// Ends it: the VM ends.
    pub fn abandon(self) {
        if let Stage::Writing { done, unwanted, .. } = &self.stage {
            unwanted.store(true, Ordering::Relaxed);
            // What was written so far goes with the thread.
            let _ = done.recv();
        }
        // A client that went away does not need its answer.
        let _ = self.reply.send(Reply::Refused("The VM is ending".into()));
    }
}

impl Supervisor {
    /// Begins to save the VM. `reply` is answered when that is done.
    pub(super) fn save(&mut self, file: PathBuf, stop: bool, with_disks: bool, reply: Sender<Reply>) {
        match self.may_save(&file) {
            Ok(()) => {
                let stage = Stage::Ready { until: Instant::now() + READY_TIMEOUT };
                self.save = Some(Save { file, stop, with_disks, reply, stage });
            }
            // A client that went away does not need its answer.
            Err(why) => drop(reply.send(Reply::Refused(format!("{why:#}")))),
        }
    }

    fn may_save(&self, file: &Path) -> Result<()> {
        anyhow::ensure!(self.save.is_none(), "The VM is being saved already");
        anyhow::ensure!(self.swap.is_none(), "A build is being swapped: try again when that is done");
        let shown = file.display();
        anyhow::ensure!(!file.exists(), "{shown} exists already: remove it or choose another name");
        let folder = file.parent().with_context(|| format!("{shown} is no file name"))?;
        anyhow::ensure!(folder.is_dir(), "There is no folder {}", folder.display());
        Ok(())
    }

    /// Goes on with saving as soon as that can be. Gives something when the VM is to end now.
    pub(super) fn follow_save(&mut self) -> Option<SavedAndStopped> {
        let mut save = self.save.take()?;
        let next = match save.stage {
            Stage::Ready { until } => self.stop_when_ready(until),
            Stage::Stopping { state, until } => self.park_when_stopped(state, until),
            Stage::Parking { processor, since, told } => {
                self.write_when_parked(processor, since, told, &save.file, save.with_disks)
            }
            Stage::Writing { done, since, unwanted } => match done.try_recv() {
                Ok(Ok(bytes)) => {
                    return self.saved(save.reply, &save.file, save.stop, bytes, since.elapsed());
                }
                Ok(Err(error)) => Err(format!("{error:#}")),
                Err(crossbeam::channel::TryRecvError::Empty) => Ok(Stage::Writing { done, since, unwanted }),
                Err(crossbeam::channel::TryRecvError::Disconnected) => Err("its thread ended".into()),
            },
        };
        match next {
            Ok(stage) => {
                save.stage = stage;
                self.save = Some(save);
            }
            Err(why) => {
                self.release();
                let text = format!("{} is not saved: {why}", self.config.name);
                self.note(&text);
                // As above.
                let _ = save.reply.send(Reply::Refused(text));
            }
        }
        None
    }

    fn saved(
        &mut self,
        reply: Sender<Reply>,
        file: &Path,
        stop: bool,
        bytes: u64,
        paused: Duration,
    ) -> Option<SavedAndStopped> {
        let (mib, millis) = (bytes as f64 / f64::from(1 << 20), paused.as_secs_f64() * 1e3);
        let mut text = format!("{} is saved in {} ({mib:.1} MiB)", self.config.name, file.display());
        if stop {
            self.note(&text);
            return Some(SavedAndStopped { reply, text });
        }
        self.release();
        text.push_str(&format!("; the guest was paused for {millis:.0} ms"));
        self.note(&text);
        // As above.
        let _ = reply.send(Reply::Done(text));
        None
    }

    /// Whether a device process does its work: not one that was just killed, or is held by somebody.
    fn serves(&self, slot: usize) -> bool {
        let works = |managed: &Managed| managed.child.is_some() && !managed.stopped && !managed.end_wanted;
        self.memory.process_state(slot) == ProcessState::Ready
            && self.processes[slot].as_ref().is_some_and(works)
    }

    /// Asks the VMM to stop the guest once every device process serves.
    fn stop_when_ready(&self, until: Instant) -> Result<Stage, String> {
        // One that was given up is not waited for: its states are those that it committed last.
        let is_missing = |slot: usize| !self.serves(slot) && !self.is_off_bus(slot);
        if let Some((_, name)) = self.devices.iter().find(|(slot, _)| is_missing(*slot as usize)) {
            return if Instant::now() < until {
                Ok(Stage::Ready { until })
            } else {
                Err(format!("{name} does not serve: see 'vmsim ps' ({READY_TIMEOUT:?})"))
            };
        }
        let (answer, state) = ipc_channel::ipc::channel()
            .map_err(|error| format!("there is no channel to the VMM: {error}"))?;
        if !self.vmm_lifeline().is_some_and(|vmm| vmm.send(Command::Export { answer })) {
            return Err("there is no VMM at present: see 'vmsim ps'".into());
        }
        Ok(Stage::Stopping { state, until: Instant::now() + STOP_TIMEOUT })
    }

    fn park_when_stopped(&self, state: IpcReceiver<Exported>, until: Instant) -> Result<Stage, String> {
        match state.try_recv() {
            Ok(processor) => {
                let told = vec![None; self.devices.len()];
                Ok(Stage::Parking { processor, since: Instant::now(), told })
            }
            Err(TryRecvError::Empty) if Instant::now() < until => Ok(Stage::Stopping { state, until }),
            Err(TryRecvError::Empty) => {
                Err("the VMM waits for a device, or is stopped itself: see 'vmsim ps'".into())
            }
            Err(TryRecvError::IpcError(error)) => Err(format!("the VMM went away: {error}")),
        }
    }

    /// Has every device process commit its states and do nothing more; one that dies meanwhile, its successor. Then begins to
    /// write.
    fn write_when_parked(
        &self,
        processor: Exported,
        since: Instant,
        mut told: Vec<Option<Told>>,
        file: &Path,
        with_disks: bool,
    ) -> Result<Stage, String> {
        let mut waits_for = None;
        for ((slot, name), told) in self.devices.iter().zip(&mut told) {
            if !self.is_off_bus(*slot as usize) && !self.has_parked(*slot as usize, told) {
                waits_for = waits_for.or(Some((name, *told)));
            }
        }
        match waits_for {
            Some((name, Some(Told { at, .. }))) if at.elapsed() > PARK_TIMEOUT => {
                Err(format!("{name} is busy for more than {PARK_TIMEOUT:?}"))
            }
            Some((name, _)) if since.elapsed() > READY_TIMEOUT => {
                Err(format!("{name} does not serve: see 'vmsim ps' ({READY_TIMEOUT:?})"))
            }
            Some(_) => Ok(Stage::Parking { processor, since, told }),
            None => {
                let parts = self.parts(processor, with_disks);
                let (sender, done) = bounded(1);
                let unwanted = Arc::new(AtomicBool::new(false));
                let (stop, file) = (unwanted.clone(), file.to_owned());
                std::thread::spawn(move || sender.send(parts.write(&file, &stop)));
                Ok(Stage::Writing { done, since, unwanted })
            }
        }
    }

    /// Whether a device process is parked; tells it to if nobody has told this run of it.
    fn has_parked(&self, slot: usize, told: &mut Option<Told>) -> bool {
        let Some(Managed { lifeline: Some(lifeline), child: Some(child), .. }) = &self.processes[slot] else {
            return false;
        };
        if !self.serves(slot) || child.has_ended() {
            return false;
        }
        let Some(step) = self.memory.link(slot).map(|link| &link.process.hand_over) else { return false };
        if told.is_none_or(|told| told.generation != child.generation) {
            // A predecessor may have left what it had come to.
            step.store(hand_over::NONE, Ordering::Release);
            lifeline.send(Command::HandOver { versions: Vec::new() });
            *told = Some(Told { generation: child.generation, at: Instant::now() });
        }
        // The guest waits: most park within microseconds.
        self.wait_for(PARK_LOOK, || step.load(Ordering::Acquire) != hand_over::NONE);
        step.load(Ordering::Acquire) == hand_over::PARKED && !child.has_ended()
    }

    /// Lets everything go on. One that does not stand is not disturbed.
    fn release(&self) {
        for slot in 0..=VMM_SLOT {
            let Some(Managed { lifeline: Some(lifeline), .. }) = &self.processes[slot] else { continue };
            if let Some(link) = self.memory.link(slot) {
                link.process.hand_over.store(hand_over::NONE, Ordering::Release);
            }
            lifeline.send(Command::GoOn { reload: false });
        }
        self.give_serial_output();
    }

    /// Lets those who are connected to serial ports have what was kept from them while the VM was saved.
    pub(super) fn give_serial_output(&self) {
        if let Some(serial) = &self.serial {
            serial.go_on();
        }
    }

    /// The serial ports as they are kept. What they hold is given to nobody from now on.
    fn hold_serial_output(&self) -> Vec<SerialPort> {
        let held = self.serial.as_ref().map(SerialPorts::hold).unwrap_or_default();
        let under_way = self.memory.serial().under_way().into_iter();
        under_way.zip(held).map(|(under_way, held)| SerialPort { under_way, held }).collect()
    }

    /// Everything that goes into the file. Only while the VM stands.
    fn parts(&self, processor: Exported, with_disks: bool) -> Parts {
        let (board, panel) = (self.memory.board(), self.memory.panel());
        let named = self.devices.iter().map(|(slot, name)| (*slot as usize, name.as_str()));
        let held = named.chain([(VMM_SLOT, VMM_NAME)]);
        let unix_seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut input: Vec<_> = self.input.iter().cloned().collect();
        input.retain(|event| *event != HostEvent::Serial);
        Parts {
            about: About { program: env!("CARGO_PKG_VERSION").into(), unix_seconds },
            machine: self.machine(),
            clock: Clock {
                nanos: panel.clock.now().0,
                start_unix_seconds: panel.start_unix_seconds.load(Ordering::Relaxed),
            },
            processor,
            board: Board {
                wiring: board.wiring(),
                edges: board.lines.all_edges().to_vec(),
                held: held.map(|(slot, name)| (name.into(), board.lines.held_by(slot))).collect(),
            },
            devices: self
                .devices
                .iter()
                .filter_map(|(slot, name)| self.device(*slot as usize, name))
                .collect(),
            serial: self.hold_serial_output(),
            input,
            files: self.files(with_disks),
            ram: self.memory.ram().clone(),
        }
    }

    fn machine(&self) -> Machine {
        let device = |(slot, name): &(u32, String)| {
            let managed = self.processes[*slot as usize].as_ref()?;
            Some(DeviceProcess {
                name: name.clone(),
                program: match &managed.executable {
                    Executable::Own => Program::BuiltIn,
                    Executable::Other(path) => Program::Other(path.clone()),
                    Executable::ByHand => Program::ByHand,
                },
                watchdog: managed.watchdog,
                sandbox: managed.sandbox,
                faults: managed.faults.clone(),
                dma: managed.dma.clone(),
            })
        };
        let shown = self.processes[DISPLAY].is_some();
        let own = |port: usize| match &self.config.serial[port] {
            SerialBackend::Socket(path) | SerialBackend::Pty(path) => *path == self.dir.serial(port + 1),
            _ => false,
        };
        Machine {
            config: self.config.clone(),
            own_serial: [own(0), own(1)],
            display: self.display_kind.filter(|_| shown).unwrap_or("none").into(),
            devices: self.devices.iter().filter_map(device).collect(),
        }
    }

    fn device(&self, slot: usize, name: &str) -> Option<(Device, Option<Segment>)> {
        let link = self.memory.link(slot)?;
        let build = self.processes[slot].as_ref().map(Managed::build).unwrap_or_default();
        let device = describe(link, name, build, self.is_off_bus(slot));
        Some((device, self.memory.device_memory(slot)))
    }

    /// The machine's files, and whether each is to be kept inside.
    fn files(&self, with_disks: bool) -> Vec<(Use, PathBuf, bool)> {
        let config = &self.config;
        let temporary =
            |path: &Path| self.temporary.as_ref().is_some_and(|folder| path.starts_with(folder.path()));
        let drive = |used_as, drive: &Option<DriveConfig>| {
            let path = drive.as_ref()?.path.clone();
            let inside = with_disks || temporary(&path);
            Some((used_as, path, inside))
        };
        // Firmware is small, and changes with the next update of the system.
        let mut files = vec![(Use::Firmware, config.firmware.clone(), true)];
        files.extend(config.video_rom.clone().map(|path| (Use::VideoRom, path, true)));
        files.extend((0..).zip(&config.floppies).filter_map(|(number, d)| drive(Use::Floppy(number), d)));
        files.extend((0..).zip(&config.disks).filter_map(|(number, d)| drive(Use::Disk(number), d)));
        files
    }
}

/// What the VMM is called among the holders of interrupt lines.
pub const VMM_NAME: &str = "vmm";

/// The states that a device process has committed, and what waits for it.
fn describe(link: &LinkLayout, name: &str, build: String, off_bus: bool) -> Device {
    let models = link.model_infos().into_iter().zip(&link.states).map(|(info, page)| Model {
        name: info.name,
        state: page.committed().map(|state| Exported { version: state.version, data: state.data }),
    });
    Device {
        name: name.into(),
        build,
        models: models.collect(),
        events: link.events.waiting().into_iter().filter_map(decode_event).collect(),
        fault_counts: link.faults.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
        line_faults: link.line_faults().to_vec(),
        off_bus,
    }
}

/// What is written: owned, or shared memory in which nothing changes.
struct Parts {
    about: About,
    machine: Machine,
    clock: Clock,
    processor: Exported,
    board: Board,
    devices: Vec<(Device, Option<Segment>)>,
    serial: Vec<SerialPort>,
    input: Vec<HostEvent>,
    files: Vec<(Use, PathBuf, bool)>,
    ram: Arc<Segment>,
}

impl Parts {
    /// Writes the file; it is there when it is whole. Returns its length.
    fn write(self, path: &Path, unwanted: &AtomicBool) -> Result<u64> {
        let goes_on = || !unwanted.load(Ordering::Relaxed);
        let folder = path.parent().unwrap_or(Path::new("."));
        let place = || format!("File {}", path.display());
        let file = tempfile::Builder::new().prefix(".vmsim-save-").tempfile_in(folder).with_context(place)?;
        let files = self.files.iter().map(|(used_as, path, inside)| {
            let image = || format!("image {}", path.display());
            let file = File::open(path).with_context(image)?;
            let outside =
                if *inside { None } else { Some(Identity::of(&file, goes_on).with_context(image)?) };
            let content = if *inside { Some(FileSource::new(file).with_context(image)?) } else { None };
            Ok((MachineFile { used_as: *used_as, path: path.clone(), outside }, content))
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        let contents = Contents {
            about: &self.about,
            machine: &self.machine,
            clock: self.clock,
            processor: &self.processor,
            board: &self.board,
            devices: self
                .devices
                .iter()
                .map(|(device, memory)| (device, memory.as_ref().map(source)))
                .collect(),
            serial: &self.serial,
            input: &self.input,
            files: files.iter().map(|(file, content)| (file, content.as_ref().map(source))).collect(),
            ram: self.ram.as_ref(),
        };
        contents.write(BufWriter::new(file.as_file()), &goes_on).with_context(place)?;
        file.as_file().sync_all().with_context(place)?;
        let len = file.as_file().metadata().with_context(place)?.len();
        file.persist_noclobber(path).map_err(|error| error.error).with_context(place)?;
        Ok(len)
    }
}

fn source(of: &impl Source) -> &dyn Source {
    of
}
