//! One debugger's connection, from its first byte to its last.

use super::guest::{Guest, Reason};
use crate::cpu::bus::Bus;
use gdbstub::common::Signal;
use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{DisconnectReason, GdbStub};
use std::io::{self, Write};

/// Bytes of the longest packet; GDB reads and writes memory in pieces of it.
const PACKET_BYTES: usize = 16 << 10;

/// A stream socket of either kind, for writing; another thread reads it.
pub trait Stream: Write + Send {
    /// Ends the connection in both directions.
    fn close(&self);
}

/// What `gdbstub` writes to: gathers an answer and sends it at once.
pub struct Out {
    stream: Box<dyn Stream>,
    pending: Vec<u8>,
}

impl Connection for Out {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.pending.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.stream.write_all(&self.pending);
        self.pending.clear();
        result
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.stream.close();
    }
}

/// What became of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It lives; the guest is stopped.
    Stopped,
    /// It lives; the guest is to run.
    Running,
    /// It is over; the guest runs on.
    Detached,
    /// It is over, and so is the VM.
    Killed,
}

type Stub<B> = GdbStubStateMachine<'static, Guest<B>, Out>;

/// See the module's description.
pub struct Session<B: Bus> {
    /// Tells it from others.
    pub id: u64,
    stub: Option<Stub<B>>,
}

impl<B: Bus> Session<B> {
    /// A session that begins, with a guest that is stopped.
    pub fn new(id: u64, stream: Box<dyn Stream>, guest: &mut Guest<B>) -> Option<Self> {
        let out = Out { stream, pending: Vec::new() };
        let stub = GdbStub::builder(out).packet_buffer_size(PACKET_BYTES).build().ok()?;
        let stub = stub.run_state_machine(guest).ok()?;
        Some(Self { id, stub: Some(stub) })
    }

    /// What it is doing.
    pub fn state(&self) -> After {
        match &self.stub {
            Some(GdbStubStateMachine::Running(_)) => After::Running,
            Some(_) => After::Stopped,
            None => After::Detached,
        }
    }

    /// Takes what the debugger sent.
    pub fn receive(&mut self, guest: &mut Guest<B>, bytes: &[u8]) -> After {
        for byte in bytes {
            let next = match self.stub.take() {
                Some(GdbStubStateMachine::Idle(stub)) => stub.incoming_data(guest, *byte),
                Some(GdbStubStateMachine::Running(stub)) => stub.incoming_data(guest, *byte),
                Some(other) => Ok(other),
                None => return After::Detached,
            };
            let next = match next {
                Ok(GdbStubStateMachine::CtrlCInterrupt(stub)) => {
                    stub.interrupt_handled(guest, Some(Reason::Signal(Signal::SIGINT)))
                }
                other => other,
            };
            match next {
                Ok(GdbStubStateMachine::Disconnected(stub)) => {
                    return match stub.get_reason() {
                        DisconnectReason::Kill => After::Killed,
                        _ => After::Detached,
                    };
                }
                Ok(stub) => self.stub = Some(stub),
                Err(error) => {
                    tracing::warn!("The debugger's connection ends: {error}");
                    return After::Detached;
                }
            }
        }
        self.state()
    }

    /// Tells the debugger that the guest stopped.
    pub fn report(&mut self, guest: &mut Guest<B>, reason: Reason) -> After {
        match self.stub.take() {
            Some(GdbStubStateMachine::Running(stub)) => match stub.report_stop(guest, reason) {
                Ok(GdbStubStateMachine::Disconnected(_)) => After::Detached,
                Ok(stub) => {
                    self.stub = Some(stub);
                    self.state()
                }
                Err(error) => {
                    tracing::warn!("The debugger's connection ends: {error}");
                    After::Detached
                }
            },
            other => {
                self.stub = other;
                self.state()
            }
        }
    }
}
