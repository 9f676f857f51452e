//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipc::inspect::{Address, Listen};
use std::path::PathBuf;

/// A virtual PC whose devices are processes: plug in the model of a device that has no silicon
/// yet, run its real driver in a real guest, debug and replace the model while the guest lives.
///
/// Without a command, Linux runs, or the built-in demo where its packages cannot be had: 'vmsim run'.
#[derive(Debug, Parser)]
#[command(name = "vmsim", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a virtual PC
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// List the running VMs, their processes and states
    Ps,
    /// Show or save what is on a VM's screen
    Screen(ScreenArgs),
    /// Type text on a VM's keyboard (US layout; \n, \t, \e and \\ are understood)
    Type {
        /// The text.
        text: String,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Press keys together, such as 'ctrl-alt-del', 'f1' or 'shift-tab'
    Key {
        /// Keys, joined by '-'.
        #[arg(required = true)]
        keys: Vec<String>,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Wait until text is on the screen; exit code 1 when it does not come in time
    Wait {
        /// The text to wait for.
        #[arg(long)]
        text: String,
        /// Seconds to wait at most.
        #[arg(long, default_value_t = 30.0)]
        timeout: f64,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Stop guest and guest time
    Pause(VmArg),
    /// Let a paused VM go on
    Resume(VmArg),
    /// Press the reset button
    Reset(VmArg),
    /// End a VM
    Stop(VmArg),
    /// Write a whole VM into a file, from which 'vmsim restore' lets it go on
    #[command(after_help = SAVE_HELP)]
    Save(SaveArgs),
    /// Start a VM from what 'vmsim save' has written; its guest goes on as if nothing had been
    Restore(Box<RestoreArgs>),
    /// Show what each process of a running VM costs
    Top(TopArgs),
    /// Start again, replace, record or compare a device process of a running VM
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Open a display for a running VM (closing it leaves the guest alone)
    Display {
        /// What kind.
        #[arg(long, value_enum, default_value_t = DisplayKind::Auto)]
        display: DisplayKind,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Attach this terminal (Ctrl+] leaves), or a pipe, to a serial port of a VM
    Serial(SerialArgs),
    /// Show what the devices of a VM are doing, with virtual time and the guest's CS:EIP
    Log(LogArgs),
    /// Show all registers of the guest's CPU and the instruction that comes next
    Regs(VmArg),
    /// Show what the engine has done: code made, ways out of it, interpreted instructions
    Stats(VmArg),
    /// Show what was made of a page of guest code: host instructions beside the guest's
    Shadow {
        /// Any byte of the page: linear (7c00), SEGMENT:OFFSET (f000:fff0) or phys:ADDRESS, in hexadecimal
        at: Address,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Disassemble guest code
    Disasm {
        /// Where to start: linear (7c00), SEGMENT:OFFSET (f000:fff0) or phys:ADDRESS, in
        /// hexadecimal [default: the instruction that comes next]
        at: Option<Address>,
        /// How many instructions
        #[arg(short = 'n', long, default_value_t = 16)]
        count: u32,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Dump guest memory
    Mem {
        /// Where to start: linear (7c00), SEGMENT:OFFSET (f000:fff0) or phys:ADDRESS, in
        /// hexadecimal
        at: Address,
        /// How many bytes
        #[arg(short = 'n', long, default_value_t = 128)]
        len: u32,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Run a build's models against a recording of 'vmsim device record', without a VM, and say where
    /// they differ; exit code 1 when they do
    Replay {
        /// The recording
        file: PathBuf,
        /// The build: an executable for the device process [default: the built-in models]
        #[arg(long)]
        exe: Option<PathBuf>,
        /// End with so many differences
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Under a debugger: stop before transaction N, as 'vmsim trace show' counts them
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        stop_at: Option<u64>,
    },
    /// Print exceptions, interrupts and port accesses of the guest as they happen, or what is in a recording of
    /// 'vmsim device record'
    Trace(TraceArgs),
    /// Let a debugger connect to a running VM's guest, and print how
    Gdb {
        /// TCP port of 127.0.0.1 [default: a Unix socket in the VM's directory]
        #[arg(long)]
        port: Option<u16>,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Make and look at disk images
    #[command(subcommand)]
    Image(ImageCommand),
    /// Find the firmware, fetching it if needed, and print where it is
    Firmware,
    /// Measure, from the guest's side, what port accesses to device processes cost
    Bench {
        /// Run all processes on one CPU.
        #[arg(long)]
        one_cpu: bool,
    },
    /// Run as one of the processes of a VM (started by the supervisor)
    #[command(hide = true)]
    Role(RoleArgs),
}

/// A number of seconds from a hundredth to a day.
fn seconds(text: &str) -> Result<f64, String> {
    let range = 0.01..=86_400.0;
    let number = text.parse().ok().filter(|seconds| range.contains(seconds));
    number.ok_or_else(|| "give a number of seconds from 0.01 to 86400".into())
}

const RUN_HELP: &str = "\
Examples:
  vmsim run                                  Linux (or the demo, where its packages cannot be had)
  vmsim run --demo                           the built-in demo
  vmsim run --floppy freedos.img             boot a floppy
  vmsim run --disk hd.img --boot c --ram 128M
  vmsim run machine.toml                     a machine described in a file (see docs/machine-file.md)
  vmsim run --floppy dos.img --display none --detach --name dos
  vmsim wait --text 'A:\\>' && vmsim type 'dir\\n' && vmsim screen --text";

const SAVE_HELP: &str = "\
Examples:
  vmsim save dos.saved --stop                suspend; its disk images stay where they are
  vmsim restore dos.saved                    go on
  vmsim save --with-disks there.saved        a copy that can be restored any number of times
  vmsim restore there.saved --name again --display none --detach
  vmsim restore there.saved --keep-disks images   the same with disks that stay when the VM ends";

/// Arguments of `vmsim run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Machine description; options on the command line go before it
    pub machine: Option<PathBuf>,
    /// CPU model: pentium2, pentium3 (default) or max (adds SSE2)
    #[arg(long, value_name = "MODEL", value_parser = vmm::cpu::CpuModel::NAMES)]
    pub cpu: Option<String>,
    /// Guest RAM, such as 64M
    #[arg(long)]
    pub ram: Option<String>,
    /// Floppy image; the first is drive A, the second drive B
    #[arg(long, value_name = "IMG")]
    pub floppy: Vec<PathBuf>,
    /// Hard disk image; up to four
    #[arg(long, value_name = "IMG")]
    pub disk: Vec<PathBuf>,
    /// Refuse writes to all images given on the command line
    #[arg(long)]
    pub read_only: bool,
    /// Boot from the floppy (a) or the hard disk (c) first
    #[arg(long, value_enum)]
    pub boot: Option<Boot>,
    /// System firmware instead of SeaBIOS
    #[arg(long, value_name = "FILE")]
    pub firmware: Option<PathBuf>,
    /// Run the built-in demo on the built-in firmware, which needs nothing else on the machine
    #[arg(long)]
    pub demo: bool,
    /// How it runs here.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Arguments of `vmsim save`.
#[derive(Debug, Args)]
pub struct SaveArgs {
    /// File to make; it must not exist
    pub file: PathBuf,
    /// End the VM when it is saved
    #[arg(long)]
    pub stop: bool,
    /// Put the disk images into the file too, so that it can be restored when they have changed; images that
    /// last only as long as the VM always are
    #[arg(long)]
    pub with_disks: bool,
    /// Which VM.
    #[command(flatten)]
    pub vm: VmArg,
}

/// Arguments of `vmsim restore`.
#[derive(Clone, Debug, Args)]
pub struct RestoreArgs {
    /// What 'vmsim save' has made
    pub file: PathBuf,
    /// Where the floppy images are now, in the order of the drives [default: where they were]
    #[arg(long, value_name = "IMG")]
    pub floppy: Vec<PathBuf>,
    /// Where the hard disk images are now, in the order of the drives [default: where they were]
    #[arg(long, value_name = "IMG")]
    pub disk: Vec<PathBuf>,
    /// Take images that have changed since; the guest may then damage what is on them
    #[arg(long)]
    pub force: bool,
    /// Write the disk images that are in the file into this folder and use them there; they stay when the VM ends
    /// [default: copies that last as long as the VM]
    #[arg(long, value_name = "DIR")]
    pub keep_disks: Option<PathBuf>,
    /// Do not let the guest go on before 'vmsim resume'
    #[arg(long)]
    pub paused: bool,
    /// How it runs here.
    #[command(flatten)]
    pub host: HostArgs,
}

/// How a VM runs on this host, whatever the machine is.
#[derive(Clone, Debug, Default, Args)]
pub struct HostArgs {
    /// Name of the VM [default: the one that it had or that the machine file has, else 'vm']
    #[arg(long)]
    pub name: Option<String>,
    /// What runs guest code: shadow (made into host code), interp (the reference), shadow-direct
    /// (the same without windows), lockstep (both, compared) or lockstep-windows
    #[arg(long, value_name = "ENGINE", value_parser = vmm::engine::EngineKind::NAMES)]
    pub engine: Option<String>,
    /// What shows the picture
    #[arg(long, value_enum)]
    pub display: Option<DisplayKind>,
    /// File for text from the guest's debug ports (E9h, 402h); '-' is standard output
    #[arg(long, value_name = "FILE")]
    pub debug_console: Option<PathBuf>,
    /// Other end of serial port COM1: FILE (takes its output), socket[:PATH], pty, stdio or '-' (this
    /// terminal), or none [default: socket, for 'vmsim serial']
    #[arg(long, value_name = "WHERE")]
    pub serial: Option<String>,
    /// Another executable for a device process: DEVICE=PATH, such as gpu=target/release/my-gpu;
    /// DEVICE=hand leaves it to you to start it ('vmsim-dev gpu --attach VM')
    #[arg(long, value_name = "DEVICE=PATH")]
    pub device: Vec<String>,
    /// Record a device process from power-on: DEVICE=FILE, such as gpu=boot.rec; see 'vmsim replay'
    #[arg(long, value_name = "DEVICE=FILE")]
    pub record: Vec<String>,
    /// Let device processes keep the rights of their user once their models are built
    #[arg(long)]
    pub no_sandbox: bool,
    /// Let a device process wait for a debugger before it begins, and print how to attach one
    #[arg(long, value_name = "DEVICE")]
    pub debug: Vec<String>,
    /// Let a debugger connect: --gdb (a Unix socket in the VM's directory), --gdb=tcp:PORT (of
    /// 127.0.0.1) or --gdb=unix:PATH
    #[arg(long, value_name = "WHERE", num_args = 0..=1, require_equals = true)]
    pub gdb: Option<Option<Listen>>,
    /// The same, and do not start the guest before a debugger has connected
    #[arg(long)]
    pub wait_gdb: bool,
    /// Return once the guest runs, and leave it running
    #[arg(long)]
    pub detach: bool,
    /// This process is the supervisor that --detach left running.
    #[arg(long, hide = true)]
    pub detached_supervisor: bool,
}

/// Where to boot from first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Boot {
    /// Floppy drive A.
    A,
    /// The first hard disk.
    C,
}

/// What shows the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DisplayKind {
    /// A window where there is a display server, else the terminal
    Auto,
    /// A window
    Window,
    /// This terminal
    Terminal,
    /// Nothing; see 'vmsim screen'
    None,
}

/// Which VM a command is for.
#[derive(Clone, Debug, Args)]
pub struct VmArg {
    /// Name of the VM [default: the only one that runs]
    #[arg(long = "vm", value_name = "NAME")]
    pub name: Option<String>,
}

/// Arguments of `vmsim screen`.
#[derive(Debug, Args)]
pub struct ScreenArgs {
    #[command(flatten)]
    pub how: ScreenHow,
    /// Which VM.
    #[arg(long = "vm", value_name = "NAME")]
    pub vm: Option<String>,
}

/// How `vmsim screen` shows it: in one of these ways at least. (A group of its own: every argument of a structure is in its group.)
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ScreenHow {
    /// Print the characters on the screen
    #[arg(long)]
    pub text: bool,
    /// Save the picture as a PNG file
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
}

/// Arguments of `vmsim serial`.
#[derive(Debug, Args)]
pub struct SerialArgs {
    /// Which port: 1 is COM1
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=ipc::serial::PORTS as i64))]
    pub port: u8,
    /// Leave when the guest has sent this text; exit code 1 when it does not come in time
    #[arg(long, value_name = "TEXT")]
    pub wait_text: Option<String>,
    /// Leave after so many seconds [default: 30 with --wait-text]
    #[arg(long, value_name = "S")]
    pub timeout: Option<f64>,
    /// Which VM.
    #[command(flatten)]
    pub vm: VmArg,
}

/// Arguments of `vmsim log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// Go on printing as lines are written
    #[arg(long, short)]
    pub follow: bool,
    /// Only this process (vmm, chipset, storage, keyboard, gpu...) or model (pic, fdc...)
    #[arg(long)]
    pub device: Option<String>,
    /// Switch logging of every access on or off
    #[arg(long, value_parser = clap::builder::BoolishValueParser::new(), value_name = "on|off")]
    pub accesses: Option<bool>,
    /// Which VM.
    #[command(flatten)]
    pub vm: VmArg,
}

/// `vmsim trace` of a recording.
#[derive(Debug, Subcommand)]
pub enum TraceCommand {
    /// Print the transactions of a recording
    Show {
        /// The recording
        file: PathBuf,
        /// Start with this transaction
        #[arg(long, default_value_t = 0)]
        from: u64,
        /// Stop after so many
        #[arg(long, short = 'n')]
        limit: Option<u64>,
        /// Only registers or regions whose names contain this
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// Also what the model learnt in each (DMA, disk reads...), and each thing it did on a line of its own
        #[arg(long)]
        details: bool,
    },
    /// Count what is in a recording
    Stat {
        /// The recording
        file: PathBuf,
    },
    /// Print which registers and bits the guest touched, and which it read before any write
    Coverage {
        /// The recording
        file: PathBuf,
    },
    /// Write a recording in another form, to standard output or a file
    Export {
        /// The recording
        file: PathBuf,
        /// The form
        #[arg(long, value_enum, default_value_t = TraceForm::Text)]
        form: TraceForm,
        /// Only registers or regions whose names contain this
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// File to make
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// A form of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TraceForm {
    /// A line per transaction
    Text,
    /// A JSON object per line
    Json,
    /// Value change dump, for waveform viewers
    Vcd,
}

/// Arguments of `vmsim trace`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct TraceArgs {
    /// A recording instead of a running VM.
    #[command(subcommand)]
    pub recording: Option<TraceCommand>,
    /// Exceptions, with error code and CR2 [default: everything]
    #[arg(long)]
    pub exceptions: bool,
    /// Interrupts and INT instructions
    #[arg(long)]
    pub interrupts: bool,
    /// Port accesses: all, or --ports=60 or --ports=3f0-3f7, in hexadecimal
    #[arg(long, value_name = "RANGE", num_args = 0..=1, require_equals = true)]
    pub ports: Option<Option<String>>,
    /// Go on until interrupted
    #[arg(long, short)]
    pub follow: bool,
    /// Stop after so many lines [default: 100, with --follow: never]
    #[arg(long, short = 'n')]
    pub limit: Option<u64>,
    /// Which VM.
    #[command(flatten)]
    pub vm: VmArg,
}

/// `vmsim device`.
#[derive(Debug, Subcommand)]
pub enum DeviceCommand {
    /// Let another build take the place of a device process while the guest runs; when it is refused, the
    /// running one goes on
    Swap(SwapArgs),
    /// End a device process and start it again, or bring back one that is off the bus
    Restart {
        /// Its name, such as gpu
        device: String,
        /// What its models begin with
        #[arg(long, value_enum, default_value_t = State::Keep)]
        state: State,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Record everything that happens on a device process's link, for 'vmsim replay' and 'vmsim trace'
    Record {
        /// Device process: chipset, gpu, keyboard, storage...
        device: String,
        /// File to make; it must not exist
        #[arg(required_unless_present = "stop")]
        file: Option<PathBuf>,
        /// End the recording
        #[arg(long, conflicts_with = "file")]
        stop: bool,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Print which registers and bits of a running device process the guest touches
    Coverage {
        /// Device process: chipset, gpu, keyboard, storage...
        device: String,
        /// Watch for so many seconds
        #[arg(long, default_value_t = 5.0, value_parser = seconds)]
        seconds: f64,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
    /// Run a second build beside a device process, with the same transactions, and print where it differs. The
    /// guest notices nothing of it
    Compare {
        /// Device process: chipset, gpu, keyboard, storage...
        device: String,
        /// The second build
        #[arg(long)]
        exe: PathBuf,
        /// End after so many seconds [default: when interrupted, or when the VM ends]
        #[arg(long, value_parser = seconds)]
        seconds: Option<f64>,
        /// End with so many differences
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
        limit: u64,
        /// Which VM.
        #[command(flatten)]
        vm: VmArg,
    },
}

/// `vmsim image`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make an image
    Create {
        /// File to make; it must not exist.
        path: PathBuf,
        /// Size: 160K 180K 320K 360K 720K 1.2M 1.44M 2.88M make floppies, others (64M, 2G) hard disks
        #[arg(long)]
        size: String,
        /// Put an empty FAT file system on it (floppies)
        #[arg(long)]
        fat: bool,
        /// Volume label of the FAT file system
        #[arg(long)]
        label: Option<String>,
    },
    /// Say what an image is
    Info {
        /// The image.
        path: PathBuf,
    },
    /// Write a bootable memtest86+ floppy (fetches the distribution's package)
    Memtest {
        /// File to make.
        path: PathBuf,
    },
    /// Write a hard disk that starts Debian's i386 Linux with a busybox shell (fetches the
    /// distribution's packages)
    Linux {
        /// File to make; it must not exist.
        path: PathBuf,
        /// Size of the disk
        #[arg(long, default_value = "64M")]
        size: String,
        /// A console of the kernel, several times for several; its own programs write to the last
        /// [default: ttyS0,115200 and tty0]
        #[arg(long, value_name = "DEVICE")]
        console: Vec<String>,
        /// More for the kernel's command line
        #[arg(
            long,
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true,
            allow_hyphen_values = true
        )]
        append: String,
        /// Let the kernel show its messages while it starts
        #[arg(long)]
        messages: bool,
    },
    /// Write the built-in demo floppy
    Demo {
        /// File to make.
        path: PathBuf,
    },
}

/// Arguments of `vmsim top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Seconds between two looks
    #[arg(long, default_value_t = 1.0, value_name = "S")]
    pub interval: f64,
    /// Stop after so many tables [default: when interrupted]
    #[arg(long, short = 'n')]
    pub count: Option<u64>,
    /// Which VM.
    #[command(flatten)]
    pub vm: VmArg,
}

/// Arguments of `vmsim device swap`.
#[derive(Debug, Args)]
pub struct SwapArgs {
    /// Name of the device process, such as gpu
    pub device: String,
    /// The other build, or built-in [default: the program that the VM has for it, as it is on disk now]
    #[arg(long, value_name = "PATH")]
    pub exe: Option<PathBuf>,
    /// What its models begin with
    #[arg(long, value_enum, default_value_t = State::Keep)]
    pub state: State,
    /// Seconds within which it must be prepared; the guest runs meanwhile
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    pub timeout: f64,
    /// Which VM.
    #[command(flatten)]
    pub vm: VmArg,
}

/// What the models of a device process begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// The state that was committed last.
    Keep,
    /// The state of a machine that was just switched on.
    Cold,
}

/// Arguments of the hidden `vmsim role`.
#[derive(Debug, Args)]
pub struct RoleArgs {
    /// `vmm`, `device` or `display`.
    pub role: String,
    /// Name of the device process, or kind of the display.
    pub device: Option<String>,
    /// The VM to attach to.
    #[arg(long)]
    pub attach: String,
}
