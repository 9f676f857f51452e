//! A device that does what a test tells it. Beside the executable (or a link to it) are two files:
//!
//! - `EXE.do`: what it does wrong, in words: `crash`, `hang` or `exit` at its next tick, `stall` (a tick takes
//!   two seconds), `crash-at-start`, `hang-at-start`, `hang-at-build`, `refuse` (its state), `keep-version` (it cannot save
//!   an older one), `mute` (it never answers a read);
//! - `EXE.version`: the version of its state format, 1 or 2 (default).
//!
//! In a sandbox it sees these files only when it starts: there, `escape` has it try to get out at its first tick.
//! It appends a line to `EXE.seen` for each start. The guest sees a scratch register at 300h, ticks at 301h and
//! a stopwatch at 302h: when a millisecond of host time or more has passed between two reads of it, a line says how much.

#![expect(unsafe_code, reason = "an attempt to map more guest RAM")]

use devproc::device::{
    Access, Device, Dma, IoError, ReadResult, Region, RegionId, ResetKind, StateError, TimerId, WriteResult,
    load_state, save_state,
};
use devproc::host::Host;
use ipc::time::VirtualTime;
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

const PORTS: RegionId = RegionId(0);
const SCRATCH: u64 = 0;
const TICKS: u64 = 1;
const LAP: u64 = 2;
/// Laps that are shorter are not told.
const WORTH_TELLING: Duration = Duration::from_millis(1);
const TICK: TimerId = TimerId(0);
const PERIOD: u64 = 10_000_000;
/// Guest RAM that it asks for.
const REACH: u64 = 64 << 10;

/// The file `EXE.NAME`.
fn beside(name: &str) -> String {
    format!("{}.{name}", std::env::args().next().expect("a program has a name"))
}

fn told(what: &str) -> bool {
    let words = std::fs::read_to_string(beside("do")).unwrap_or_default();
    words.split_whitespace().any(|word| word == what)
}

fn hang() -> ! {
    loop {
        std::hint::spin_loop();
    }
}

/// Where this process has a segment of the VM mapped, and how much of it, by its list of mappings.
fn mapping(maps: &std::fs::File, segment: &str) -> Option<(usize, usize)> {
    use std::os::unix::fs::FileExt;
    let mut text = vec![0; 1 << 20];
    // The kernel gives a page of it at a time.
    let mut len = 0;
    while let Ok(more @ 1..) = maps.read_at(&mut text[len..], len as u64) {
        len += more;
    }
    let text = String::from_utf8_lossy(&text[..len]);
    let line = text.lines().find(|line| line.ends_with(segment))?;
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).ok());
    Some((start?, end? - start?))
}

/// Whether the mapping of guest RAM can be made to reach further than it does.
fn grow(maps: &std::fs::File) -> bool {
    let (start, len) = mapping(maps, "-ram").expect("guest RAM is mapped");
    assert_eq!(len as u64, REACH, "no more of it than was asked for");
    // SAFETY: a length of 0 makes another mapping of the same memory and leaves this one alone.
    unsafe { rustix::mm::mremap(start as *mut _, 0, 2 * len, rustix::mm::MremapFlags::MAYMOVE).is_ok() }
}

/// Whether the panel can be made writable where it is mapped.
fn unlock(maps: &std::fs::File) -> bool {
    use rustix::mm::{MprotectFlags, mprotect};
    let (start, len) = mapping(maps, "-panel").expect("the panel is mapped");
    // SAFETY: nobody relies on the pages being read-only, and readable they stay.
    unsafe { mprotect(start as *mut _, len, MprotectFlags::READ | MprotectFlags::WRITE).is_ok() }
}

/// Things that a device process in its sandbox has no business to do: what, and whether it worked.
fn escapes(own: &std::fs::File, maps: &std::fs::File) -> Vec<(&'static str, bool)> {
    let vm = std::env::args().skip_while(|arg| arg != "--attach").nth(1).expect("the VM");
    let uid = rustix::process::getuid().as_raw();
    let open = |path: &str| std::fs::File::options().read(true).write(true).open(path).is_ok();
    let run_dir = std::env::var("XDG_RUNTIME_DIR").expect("a runtime directory");
    let parent = rustix::process::getppid().expect("a parent");
    vec![
        ("read", std::fs::read("/etc/passwd").is_ok()),
        ("create", std::fs::write(beside("escaped"), "x").is_ok()),
        ("remove", std::fs::remove_file(beside("version")).is_ok()),
        ("ram", open(&format!("/dev/shm/vmsim-{uid}-{vm}-ram"))),
        ("panel", open(&format!("/dev/shm/vmsim-{uid}-{vm}-panel"))),
        ("unlock", unlock(maps)),
        ("grow", grow(maps)),
        ("link", open(&format!("/dev/shm/vmsim-{uid}-{vm}-link0"))),
        ("control", std::os::unix::net::UnixStream::connect(format!("{run_dir}/vmsim/{vm}/control")).is_ok()),
        ("network", std::net::TcpListener::bind("127.0.0.1:0").is_ok()),
        ("datagram", std::net::UdpSocket::bind("127.0.0.1:0").is_ok()),
        ("program", std::process::Command::new("/bin/true").status().is_ok()),
        // To the length that it has: shared memory, which is open too, would be missed by others.
        ("shrink", own.metadata().and_then(|file| own.set_len(file.len())).is_ok()),
        ("signal", rustix::process::test_kill_process(parent).is_ok()),
    ]
}

struct Toy {
    /// Open from the start: in a sandbox it could not be opened later.
    seen: std::fs::File,
    /// Its mappings; opened at the start, for the same reason.
    maps: std::fs::File,
    escapes: bool,
    version: u16,
    scratch: u8,
    ticks: u32,
    deadline: u64,
    lap: Option<Instant>,
}

impl Toy {
    fn new() -> Self {
        if told("hang-at-build") {
            hang();
        }
        let version = std::fs::read_to_string(beside("version")).unwrap_or_default();
        let version = version.trim().parse().unwrap_or(2);
        let seen = std::fs::OpenOptions::new().create(true).append(true).open(beside("seen"));
        let seen = seen.expect("the file");
        let maps = std::fs::File::open("/proc/self/maps").expect("the mappings");
        Self { seen, maps, escapes: told("escape"), version, scratch: 0, ticks: 0, deadline: 0, lap: None }
    }

    fn tell(&self, what: &str) {
        let Self { version, scratch, ticks, .. } = self;
        writeln!(&self.seen, "{what} version {version} scratch {scratch:02x} ticks {ticks}")
            .expect("a line is written");
    }

    fn lap(&mut self) {
        let now = Instant::now();
        let passed = now - self.lap.unwrap_or(now);
        if passed >= WORTH_TELLING {
            writeln!(&self.seen, "lap {}", passed.as_micros()).expect("a line is written");
        }
        // Not what telling it took.
        self.lap = Some(Instant::now());
    }

    fn save_as(&self, version: u16, out: &mut Vec<u8>) {
        match version {
            1 => save_state(&(self.scratch, self.deadline), out),
            _ => save_state(&(self.scratch, self.deadline, self.ticks), out),
        }
    }
}

impl Device for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn regions(&self) -> Vec<Region> {
        vec![Region::ports(PORTS, "toy", 0x300, 3)]
    }

    fn dma(&self) -> Dma {
        Dma::Below(REACH)
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.tell("starts");
        if told("crash-at-start") {
            panic!("told to crash at its start");
        }
        if told("hang-at-start") {
            hang();
        }
        if self.deadline == 0 {
            self.deadline = host.now().after(PERIOD).0;
        }
        host.arm_timer(TICK, VirtualTime(self.deadline));
    }

    fn read(&mut self, at: Access, _: &mut dyn Host) -> ReadResult {
        match at.offset {
            _ if told("mute") => Err(IoError::Deferred),
            SCRATCH => Ok(self.scratch.into()),
            TICKS => Ok(self.ticks & 0xff),
            LAP => {
                self.lap();
                Ok(0)
            }
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write(&mut self, at: Access, value: u32, _: &mut dyn Host) -> WriteResult {
        match at.offset {
            SCRATCH => self.scratch = value as u8,
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    fn timer(&mut self, _: TimerId, deadline: VirtualTime, host: &mut dyn Host) {
        if std::mem::take(&mut self.escapes) {
            for (what, worked) in escapes(&self.seen, &self.maps) {
                self.tell(&format!("{what} {}", if worked { "works" } else { "is refused" }));
            }
        }
        if told("crash") {
            panic!("told to crash");
        }
        if told("exit") {
            std::process::exit(3);
        }
        if told("hang") {
            hang();
        }
        if told("stall") {
            std::thread::sleep(Duration::from_secs(2));
        }
        self.ticks = self.ticks.wrapping_add(1);
        self.deadline = deadline.after(PERIOD).0;
        host.arm_timer(TICK, VirtualTime(self.deadline));
    }

    fn reset(&mut self, _: ResetKind, host: &mut dyn Host) {
        self.scratch = 0;
        self.ticks = 0;
        host.arm_timer(TICK, VirtualTime(self.deadline));
    }

    fn state_version(&self) -> u16 {
        self.version
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.save_as(self.version, out);
    }

    fn save_older(&self, version: u16, out: &mut Vec<u8>) -> bool {
        if told("keep-version") {
            return false;
        }
        self.save_as(version, out);
        true
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if told("refuse") {
            return Err(StateError::Malformed("told to refuse it".into()));
        }
        match version {
            _ if version > self.version => {
                return Err(StateError::Version { found: version, newest: self.version });
            }
            1 => (self.scratch, self.deadline) = load_state(data)?,
            _ => (self.scratch, self.deadline, self.ticks) = load_state(data)?,
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    devproc::standard::main(|_| Some(|_| Ok(vec![Box::new(Toy::new())])))
}
