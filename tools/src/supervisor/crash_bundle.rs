//! What is kept of a device process that died: why, its last transactions, its committed states, its last
//! words, and the commands that run that build again. It outlives the VM.
//!
//! Taken before the successor starts, which changes all of it; written by a thread of its own, so that
//! the guest does not wait for the disk.

use ipc::link::{CommittedState, LinkLayout};
use ipc::message::{Kind, MESSAGE_WORDS, Message, Status};
use ipc::region::RegionInfo;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bundles kept per VM name; older ones go.
const KEPT: usize = 20;

/// What a link tells of its device process.
pub struct Snapshot {
    models: Vec<(String, Option<CommittedState>)>,
    regions: BTreeMap<(u8, u8), String>,
    requests: Vec<Message>,
    replies: BTreeMap<u64, Message>,
    /// Requests that were dealt with.
    consumed: u64,
}

impl Snapshot {
    /// Reads it off a link whose device process is dead.
    pub fn take(layout: &LinkLayout) -> Self {
        let models = layout.model_infos().into_iter().zip(&layout.states);
        let regions = layout.regions().map_or_else(Vec::new, |(_, words)| words);
        // How much device memory there is matters to the bus, not for names.
        let regions = regions.into_iter().filter_map(|words| RegionInfo::decode(words, u64::MAX).ok());
        let messages = |history: Vec<(u64, [u64; MESSAGE_WORDS])>| {
            history.into_iter().filter_map(|(number, words)| Some((number, Message::decode(words)?)))
        };
        Self {
            models: models.map(|(model, page)| (model.name, page.committed())).collect(),
            regions: regions.map(|region| ((region.model, region.region), region.name)).collect(),
            // The VMM may overwrite the oldest meanwhile.
            requests: messages(layout.requests.history())
                .filter(|(number, request)| request.sequence == *number)
                .map(|(_, request)| request)
                .collect(),
            replies: messages(layout.replies.history())
                .filter(|(_, reply)| reply.kind == Kind::Reply)
                .map(|(_, reply)| (reply.sequence, reply))
                .collect(),
            consumed: layout.requests.consumed(),
        }
    }

    /// A request as people read it.
    pub fn describe(&self, request: &Message) -> String {
        let Message { kind, address, guest, time, .. } = *request;
        let model =
            self.models.get(usize::from(request.model)).map_or("?", |(name, _)| name.as_str()).to_owned();
        let region = self.regions.get(&(request.model, request.region));
        let region =
            region.filter(|name| **name != model).map_or_else(String::new, |name| format!(" ({name})"));
        let digits = 2 * request.width.bytes() as usize;
        let what = match kind {
            Kind::Write | Kind::ConfigWrite => {
                let values: Vec<_> = request.values().map(|value| format!("{value:0digits$x}")).collect();
                format!("{kind:?} {address:04x} <- {}", values.join(" "))
            }
            Kind::ReadBurst | Kind::WriteBurst => {
                format!("{kind:?} {address:04x} {} bytes", request.payload.1)
            }
            Kind::Reset => "Reset".into(),
            Kind::InterruptAcknowledge => format!("InterruptAcknowledge vector {:02x}", request.value),
            _ => format!("{kind:?} {address:04x}"),
        };
        let answer = match self.replies.get(&request.sequence) {
            Some(reply) if reply.status != Status::Done => format!(" -> {:?}", reply.status),
            Some(reply) if matches!(kind, Kind::Read | Kind::ConfigRead) => {
                format!(" -> {:0digits$x}", reply.value)
            }
            _ => String::new(),
        };
        let pending = if request.sequence > self.consumed { "  NOT DONE" } else { "" };
        format!(
            "{:>10} {:6}.{:09} {:04x}:{:08x} {model}{region} {what}{answer}{pending}",
            request.sequence,
            time.0 / 1_000_000_000,
            time.0 % 1_000_000_000,
            guest.0,
            guest.1
        )
    }

    /// The request that the process was at, or had not begun with.
    pub fn at_hand(&self) -> Option<&Message> {
        self.requests.iter().find(|request| request.sequence > self.consumed)
    }
}

/// The request that a device process is at, or has not begun with, as people read it.
pub fn at_hand(layout: &LinkLayout) -> Option<String> {
    let snapshot = Snapshot::take(layout);
    snapshot.at_hand().map(|request| snapshot.describe(request).trim().to_owned())
}

/// All that is kept of a death.
pub struct Bundle {
    /// Name of the VM.
    pub vm: String,
    /// Name of the device process.
    pub device: String,
    /// Its process ID.
    pub pid: u32,
    /// Its program, and the version that it said to be.
    pub build: String,
    /// How it ended.
    pub why: String,
    /// Virtual time, ns.
    pub virtual_nanos: u64,
    /// How to start that build, by hand.
    pub command: String,
    /// The recording that was being made of it, and the command that replays that.
    pub recording: Option<(PathBuf, String)>,
    /// Its last words.
    pub stderr: String,
    /// What the link told.
    pub snapshot: Snapshot,
}

impl Bundle {
    /// Where it will be; `None` for a user without a home.
    pub fn path(&self) -> Option<PathBuf> {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Names sort by time.
        let name = format!("{}.{:03}-{}", seconds.as_secs(), seconds.subsec_millis(), self.device);
        Some(place()?.join(&self.vm).join(name))
    }

    fn report(&self) -> String {
        let Self { vm, device, pid, build, why, command, snapshot, recording, .. } = self;
        let mut out = String::new();
        let (seconds, nanos) = (self.virtual_nanos / 1_000_000_000, self.virtual_nanos % 1_000_000_000);
        // Writing to a String does not fail.
        let _ = writeln!(out, "device process  {device} of VM {vm}, process {pid}");
        let _ = writeln!(out, "build           {build}");
        let _ = writeln!(out, "ended           {why}");
        let _ = writeln!(out, "virtual time    {seconds}.{nanos:09} s");
        let done = snapshot.consumed;
        match snapshot.at_hand() {
            Some(request) => {
                let _ = writeln!(out, "at hand        {}", snapshot.describe(request));
            }
            None => {
                let _ = writeln!(out, "at hand         no request; {done} were done");
            }
        }
        for (name, state) in &snapshot.models {
            let state = state.as_ref().map_or_else(
                || "nothing committed".into(),
                |state| {
                    format!(
                        "state version {}, {} bytes, includes request {}",
                        state.version,
                        state.data.len(),
                        state.sequence
                    )
                },
            );
            let _ = writeln!(out, "model           {name}: {state}");
        }
        if let Some((path, command)) = recording {
            let _ = writeln!(out, "recording       {}", path.display());
            let _ = writeln!(out, "\nThe recording up to here, and what came after, without a VM:");
            let _ = writeln!(out, "  {command}");
        }
        let _ = writeln!(out, "\nThis build by hand, for a VM that waits for it (--device {device}=hand):");
        let _ = writeln!(out, "  {command}");
        let _ = writeln!(out, "In a debugger from its start:");
        let _ = writeln!(out, "  vmsim run --debug {device} ...");
        out
    }

    /// Writes it to `path`, and removes the oldest of the VM's bundles.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        std::fs::write(path.join("report.txt"), self.report())?;
        let snapshot = &self.snapshot;
        let lines: String =
            snapshot.requests.iter().map(|request| snapshot.describe(request) + "\n").collect();
        std::fs::write(path.join("transactions.txt"), lines)?;
        let raw: Vec<u8> =
            snapshot.requests.iter().flat_map(Message::encode).flat_map(u64::to_le_bytes).collect();
        std::fs::write(path.join("requests.bin"), raw)?;
        let replies = snapshot.replies.values().flat_map(Message::encode);
        std::fs::write(path.join("replies.bin"), replies.flat_map(u64::to_le_bytes).collect::<Vec<u8>>())?;
        std::fs::write(path.join("stderr.txt"), &self.stderr)?;
        for (name, state) in &snapshot.models {
            if let Some(state) = state {
                std::fs::write(path.join(format!("{name}-v{}.state", state.version)), &state.data)?;
            }
        }
        if let Some(folder) = path.parent() {
            remove_old(folder)?;
        }
        Ok(())
    }
}

/// Where the bundles of all VMs are.
fn place() -> Option<PathBuf> {
    let folder = |variable: &str| {
        std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute() && path.is_dir())
    };
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))?;
    Some(state.join("vmsim/crashes"))
}

fn remove_old(folder: &Path) -> io::Result<()> {
    let mut bundles: Vec<_> = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
    bundles.sort();
    for bundle in &bundles[..bundles.len().saturating_sub(KEPT)] {
        // Another death's thread may be at it.
        let _ = std::fs::remove_dir_all(bundle);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipc::link::Link;
    use ipc::link::ModelInfo;
    use ipc::segment::SegmentNames;
    use ipc::width::Width;

    fn bundle(vm: &str) -> Bundle {
        let link =
            Link::create(&SegmentNames::new(&format!("bundle{}{vm}", std::process::id())).link(0)).unwrap();
        let layout = link.layout();
        layout.set_models(&[ModelInfo { name: "fdc".into(), pci: None }]);
        assert!(layout.states[0].commit(2, 3, &[], b"state"));
        let read = |sequence, address| Message { sequence, address, ..Message::new(Kind::Read) };
        for request in [read(1, 0x3f4), read(2, 0x3f5), read(3, 0x3f4)] {
            layout.requests.push(request.encode()).unwrap();
        }
        for sequence in [1, 2] {
            let reply = Message { sequence, value: 0x80, ..Message::new(Kind::Reply) };
            layout.replies.push(reply.encode()).unwrap();
            layout.requests.advance();
        }
        Bundle {
            vm: vm.into(),
            device: "storage".into(),
            pid: 7,
            build: "0.1.0 of /bin/x".into(),
            why: "killed by signal 11".into(),
            virtual_nanos: 1_000_000_002,
            command: "/bin/x storage --attach vm".into(),
            recording: Some(("/tmp/s.rec".into(), "vmsim replay /tmp/s.rec --exe /bin/x".into())),
            stderr: "oh".into(),
            snapshot: Snapshot::take(layout),
        }
    }

    #[test]
    fn a_bundle_tells_what_was_done_and_what_was_at_hand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        bundle("a").write(&path).unwrap();
        let text = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
        let transactions = text("transactions.txt");
        let lines: Vec<_> = transactions.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with("fdc Read 03f4 -> 80"), "{}", lines[0]);
        assert!(lines[2].ends_with("fdc Read 03f4  NOT DONE"), "{}", lines[2]);
        let report = text("report.txt");
        assert!(report.contains("killed by signal 11") && report.contains("state version 3, 5 bytes"));
        assert!(report.contains("/bin/x storage --attach vm"), "{report}");
        assert!(report.contains("  vmsim replay /tmp/s.rec --exe /bin/x\n"), "{report}");
        assert_eq!(text("fdc-v3.state"), "state");
        assert_eq!(text("stderr.txt"), "oh");
        assert_eq!(std::fs::metadata(path.join("requests.bin")).unwrap().len(), 3 * 64);
    }

    #[test]
    fn only_the_newest_bundles_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = bundle("b");
        for number in 0..KEPT + 5 {
            bundle.write(&folder.path().join(format!("{number:03}"))).unwrap();
        }
        let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), KEPT);
        assert!(!folder.path().join("000").exists() && folder.path().join("024").exists());
    }

    #[test]
    fn a_width_shows_in_the_digits() {
        let bundle = bundle("c");
        let write = Message { width: Width::Word, value: 5, address: 0x1f0, ..Message::new(Kind::Write) };
        assert!(bundle.snapshot.describe(&write).contains("01f0 <- 0005"));
    }
}
