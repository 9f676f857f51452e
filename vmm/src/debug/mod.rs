//! Looking at the guest from outside: `vmsim regs`, `disasm`, `mem` and `trace`, and debuggers that speak
//! GDB's remote protocol.
//!
//! All of it happens on the vCPU's thread between two runs of guest code, when the monitor calls
//! [`Desk::take`]; other threads only queue events and call the vCPU. It must not know what devices do.

mod disassembly;
mod fpu;
pub mod guest;
mod listener;
pub mod memory;
mod registers;
pub mod session;
#[cfg(test)]
mod tests;

use crate::cpu::Vcpu;
use crate::cpu::bus::Bus;
use crate::cpu::trace::Trace;
use ipc::board::attention;
use ipc::chassis::Chassis;
use ipc::inspect::{Address, Inspect, Inspected, Listen, MAX_INSTRUCTIONS, MAX_MEMORY, TraceBatch};
use ipc::setup::Exported;
use ipc_channel::ipc::IpcSender;
use memory::Place;
use session::Stream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};

/// Something for the monitor to deal with.
pub enum Event {
    /// A question that arrived from the supervisor, and where the answer goes.
    Inspect(Inspect, IpcSender<Inspected>),
    /// The state of the VMM is wanted, and nothing is to happen until [`Event::GoOn`].
    Export(IpcSender<Exported>),
    /// The VM is saved.
    GoOn,
    /// A debugger connected.
    Connected(u64, Box<dyn Stream>),
    /// A debugger sent something.
    Received(u64, Vec<u8>),
    /// A debugger's connection ended.
    Closed(u64),
}

/// Where other threads leave events for the monitor.
#[derive(Clone)]
pub struct Bell {
    events: mpsc::Sender<Event>,
    chassis: Arc<Chassis>,
}

impl Bell {
    /// Leaves an event and calls the vCPU. False when the monitor is gone.
    pub fn ring(&self, event: Event) -> bool {
        let left = self.events.send(event).is_ok();
        self.chassis.board().call_vcpu(attention::DEBUG);
        left
    }
}

/// The monitor's end.
pub struct Desk {
    events: mpsc::Receiver<Event>,
    bell: Bell,
    /// The socket for debuggers that need not be told where to connect.
    socket: PathBuf,
    /// Places where debuggers can connect already, and their addresses.
    listening: Vec<(Listen, String)>,
}

impl Desk {
    /// A desk for the VM with this chassis, and its bell. `socket` is where debuggers connect by default.
    pub fn new(chassis: Arc<Chassis>, socket: PathBuf) -> (Self, Bell) {
        let (sender, events) = mpsc::channel();
        let bell = Bell { events: sender, chassis };
        (Self { events, bell: bell.clone(), socket, listening: Vec::new() }, bell)
    }

    /// Lets debuggers connect; says where.
    pub fn listen(&mut self, at: &Listen) -> Inspected {
        if let Some((_, address)) = self.listening.iter().find(|(known, _)| known == at) {
            return Inspected::Listening(address.clone());
        }
        match listener::listen(at, &self.socket, self.bell.clone()) {
            Ok(address) => {
                tracing::info!("Debuggers can connect at {address}");
                self.listening.push((at.clone(), address.clone()));
                Inspected::Listening(address)
            }
            Err(error) => {
                let place = match at {
                    Listen::Default => self.socket.display().to_string(),
                    Listen::Unix(path) => path.display().to_string(),
                    Listen::Tcp(port) => format!("127.0.0.1:{port}"),
                };
                Inspected::Refused(format!("Cannot listen at {place}: {error}; choose another place"))
            }
        }
    }

    /// The next event, if there is one.
    pub fn take(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

/// Answers a question about the processor.
pub fn answer<B: Bus>(cpu: &mut Vcpu<B>, what: &Inspect) -> Inspected {
    match *what {
        Inspect::Registers => Inspected::Text(registers::describe(cpu)),
        Inspect::Code { at, count } => {
            let start = match at {
                Some(address) => find(cpu, address),
                None => Ok(Place::next_instruction(cpu)),
            };
            match start {
                Ok(place) => {
                    Inspected::Text(disassembly::disassemble(cpu, place, count.min(MAX_INSTRUCTIONS)))
                }
                Err(why) => Inspected::Refused(why),
            }
        }
        Inspect::Memory { at, len } => match find(cpu, at) {
            Ok(place) => Inspected::Text(memory::dump(cpu, place, len.min(MAX_MEMORY))),
            Err(why) => Inspected::Refused(why),
        },
        Inspect::TraceStart(filter) => {
            cpu.hooks.set_trace(Some(Trace::new(filter)));
            Inspected::Trace(TraceBatch { recording: true, ..TraceBatch::default() })
        }
        Inspect::TraceRead { from } => match cpu.hooks.trace() {
            Some(trace) => Inspected::Trace(trace.read(from)),
            None => Inspected::Trace(TraceBatch::default()),
        },
        Inspect::TraceStop => {
            cpu.hooks.set_trace(None);
            Inspected::Done
        }
        Inspect::Listen { .. } | Inspect::Statistics | Inspect::Shadow { .. } => {
            Inspected::Refused("That is not a question about the processor".into())
        }
    }
}

/// The physical address that people mean, or why there is none.
///
/// # Errors
/// One line: what is wrong with the address.
pub fn physical<B: Bus>(cpu: &mut Vcpu<B>, address: Address) -> Result<u64, String> {
    find(cpu, address)?.physical(cpu).ok_or_else(|| "No page is mapped there".into())
}

fn find<B: Bus>(cpu: &mut Vcpu<B>, address: Address) -> Result<Place, String> {
    Place::find(cpu, address).ok_or_else(|| {
        "No descriptor has that selector: 'vmsim regs' shows the loaded ones; a linear address always works"
            .into()
    })
}
