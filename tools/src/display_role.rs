//! The display as a process of a VM: pictures from the screen segment, keys to the control socket.

use anyhow::Result;
use display::source::{Command, Frame, InputSink, ScreenSource, VmStatus};
use display::{Options, View};
use ipc::control::{Control, Request, Role};
use ipc::input::{HostEvent, Key};
use ipc::panel::{Health, PanelView, ProcessState, RunState, VcpuState};
use ipc::screen::Screen;
use ipc::segment::ReadOnlySegment;
use ipc::setup::Attachment;
use std::io::IsTerminal;
use std::sync::mpsc;
use std::time::Instant;

/// `window` where there is a display server, `terminal` where there is a terminal, else `none`
/// is left to the caller: a window that cannot open says so.
pub fn best_kind() -> &'static str {
    let server = ["WAYLAND_DISPLAY", "DISPLAY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    if !server && std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        "terminal"
    } else {
        "window"
    }
}

/// Attaches to `vm` and shows it until the view is closed or the VM ends.
pub fn run(vm: &str, kind: &str) -> Result<()> {
    let Attachment { setup, names, dir } = ipc::setup::attach(vm, Role::Display, env!("CARGO_PKG_VERSION"))?;
    // Without a log file the display still works.
    let _ = ipc::logging::to_file(&dir.log("display"), "display");
    let mut source = SharedScreen {
        screen: Screen::open(&names.screen())?,
        panel: ReadOnlySegment::open(&names.panel())?,
        name: setup.config.name.clone(),
        devices: setup.devices,
        ended: false,
        last: (Instant::now(), 0),
        speed: None,
        commands: spawn_watch(setup.commands),
    };
    let mut input = SocketInput::start(Control::connect(&dir.socket())?);
    let view = if kind == "terminal" { View::Terminal } else { View::Window };
    display::run(&mut source, &mut input, &Options { view, ..Options::default() })?;
    Ok(())
}

fn spawn_watch(commands: ipc_channel::ipc::IpcReceiver<ipc::setup::Command>) -> mpsc::Receiver<()> {
    let (ended, watch) = mpsc::channel();
    std::thread::spawn(move || {
        // A command to end, or a broken channel: the VM is gone either way.
        let _ = commands.recv();
        let _ = ended.send(());
        // A view that does not notice (a stuck window system) must not stay behind.
        std::thread::sleep(std::time::Duration::from_millis(500));
        std::process::exit(0);
    });
    watch
}

struct SharedScreen {
    screen: Screen,
    panel: ReadOnlySegment,
    name: String,
    devices: Vec<(u32, String)>,
    ended: bool,
    last: (Instant, u64),
    speed: Option<u32>,
    commands: mpsc::Receiver<()>,
}

impl SharedScreen {
    fn trouble(&self, panel: &PanelView) -> Option<String> {
        self.devices.iter().find_map(|(slot, name)| match panel.process_state(*slot as usize) {
            ProcessState::Restarting | ProcessState::Starting => Some(format!("{name}: restarting")),
            ProcessState::Offline => Some(format!("{name}: off the bus")),
            ProcessState::Swapping => Some(format!("{name}: being swapped")),
            ProcessState::Absent => None,
            ProcessState::Ready => {
                let health = panel.health(*slot as usize);
                (health != Health::Works).then(|| format!("{name}: {health}"))
            }
        })
    }
}

impl ScreenSource for SharedScreen {
    fn changed(&mut self) -> Option<u64> {
        match self.screen.sequence() {
            0 => None,
            sequence => Some(sequence),
        }
    }

    fn frame(&mut self, frame: &mut Frame) -> Option<u64> {
        let picture = self.screen.picture()?;
        let sequence = picture.sequence;
        *frame = crate::client::frame(picture);
        Some(sequence)
    }

    fn status(&mut self) -> VmStatus {
        self.ended |= !matches!(self.commands.try_recv(), Err(mpsc::TryRecvError::Empty));
        let Ok(panel) = self.panel.view::<PanelView>() else { return VmStatus::default() };
        let run_state = panel.run_state();
        let now = panel.clock().now().0;
        let passed = self.last.0.elapsed();
        if passed.as_millis() >= 900 {
            let percent = (now - self.last.1) as u128 * 100 / passed.as_nanos().max(1);
            self.speed = Some(percent as u32);
            self.last = (Instant::now(), now);
        }
        let state = match (run_state, panel.vcpu_state()) {
            (RunState::Paused, _) => "paused",
            (RunState::Starting, _) => "starting",
            (RunState::Stopping, _) => "stopping",
            (RunState::Running, VcpuState::Halted) => "idle",
            (RunState::Running, VcpuState::Shutdown) => "shut down",
            (RunState::Running, _) => "running",
        };
        VmStatus {
            name: self.name.clone(),
            state: state.into(),
            running: run_state == RunState::Running,
            speed_percent: self.speed,
            trouble: self.trouble(panel),
            ended: self.ended || run_state == RunState::Stopping,
        }
    }
}

/// Sends input from a thread of its own: a view must never wait for the supervisor.
struct SocketInput {
    queue: mpsc::Sender<HostEvent>,
}

impl SocketInput {
    fn start(mut control: Control) -> Self {
        let (queue, events) = mpsc::channel::<HostEvent>();
        std::thread::spawn(move || {
            while let Ok(first) = events.recv() {
                let batch: Vec<_> = std::iter::once(first).chain(events.try_iter()).collect();
                if let Err(error) = control.ask(&Request::Input(batch)) {
                    tracing::error!("Input is lost: {error}");
                }
            }
        });
        Self { queue }
    }

    fn send(&self, event: HostEvent) {
        // The thread lives as long as this does.
        let _ = self.queue.send(event);
    }
}

impl InputSink for SocketInput {
    fn key(&mut self, key: Key, pressed: bool) {
        self.send(HostEvent::Key { key, pressed });
    }

    fn mouse(&mut self, dx: i16, dy: i16, dz: i8, buttons: u8) {
        self.send(HostEvent::Mouse { dx, dy, dz, buttons });
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::CtrlAltDel => {
                let keys = [Key::LEFT_CTRL, Key::LEFT_ALT, Key::DELETE];
                keys.into_iter().for_each(|key| self.key(key, true));
                keys.into_iter().rev().for_each(|key| self.key(key, false));
            }
            Command::Closed => {}
        }
    }
}
