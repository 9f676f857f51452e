//! What somebody outside wants to know of the guest's execution: a debugger's watchpoints, and the trace.
//!
//! Independent of the guest's own debug registers and invisible to the guest. Unused hooks cost one
//! branch on paths that are slow anyway. (A debugger's breakpoints are the engine's: [`crate::interp::Interp`].)

use super::trace::Trace;
use super::{Vcpu, bus::Bus};
use ipc::inspect::{TraceEvent, TraceRecord};
use ipc::width::Width;

/// Which accesses a watchpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Watch {
    /// Writes.
    Write,
    /// Reads.
    Read,
    /// Both.
    Access,
}

/// A range of linear memory that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Watchpoint {
    /// First byte.
    pub linear: u32,
    /// Bytes, at least one.
    pub len: u32,
    /// For which accesses.
    pub kind: Watch,
}

impl Watchpoint {
    fn overlaps(&self, linear: u32, len: u32) -> bool {
        linear.wrapping_sub(self.linear) < self.len || self.linear.wrapping_sub(linear) < len
    }

    fn matches(&self, linear: u32, len: u32, write: bool) -> bool {
        let kind = match self.kind {
            Watch::Write => write,
            Watch::Read => !write,
            Watch::Access => true,
        };
        kind && self.overlaps(linear, len)
    }
}

/// See the module's description.
#[derive(Default)]
pub struct Hooks {
    watchpoints: Vec<Watchpoint>,
    hit: Option<Watchpoint>,
    trace: Option<Box<Trace>>,
}

impl Hooks {
    /// Whether any memory is watched.
    #[inline]
    pub fn watches_data(&self) -> bool {
        !self.watchpoints.is_empty()
    }

    /// Whether any byte of the page at `page` is watched.
    pub(super) fn watches_page(&self, page: u32) -> bool {
        const PAGE: u32 = super::bus::PAGE_SIZE as u32;
        self.watchpoints.iter().any(|watch| watch.overlaps(page, PAGE))
    }

    /// The watchpoint that was met first since the last call.
    pub fn take_hit(&mut self) -> Option<Watchpoint> {
        self.hit.take()
    }

    /// The watchpoint that was met, not taken.
    #[inline]
    pub fn hit(&self) -> Option<Watchpoint> {
        self.hit
    }

    /// Puts back what [`Hooks::hit`] gave: what happened since is not to count.
    pub fn set_hit(&mut self, hit: Option<Watchpoint>) {
        self.hit = hit;
    }

    /// The trace, if one was started.
    pub fn trace(&mut self) -> Option<&mut Trace> {
        self.trace.as_deref_mut()
    }

    /// Starts a trace, or ends it.
    pub fn set_trace(&mut self, trace: Option<Trace>) {
        self.trace = trace.map(Box::new);
    }
}

impl<B: Bus> Vcpu<B> {
    /// Watches these ranges from now on, and no others.
    pub fn set_watchpoints(&mut self, watchpoints: Vec<Watchpoint>) {
        self.hooks.watchpoints = watchpoints;
        // Pages that are watched must not be accessed directly.
        self.tlb.flush_all();
    }

    /// Notes an access that a watchpoint is for; the engine stops after this instruction.
    #[cold]
    pub(super) fn note_watched(&mut self, linear: u32, len: u32, write: bool) {
        let met = self.hooks.watchpoints.iter().find(|watch| watch.matches(linear, len, write));
        if let Some(met) = met
            && self.hooks.hit.is_none()
        {
            self.hooks.hit = Some(*met);
            self.code.leave_block();
        }
    }

    #[cold]
    fn record(&mut self, event: TraceEvent) {
        let nanos = self.bus.now().0;
        let (cs, eip) = (self.state.segment(super::Seg::Cs).selector, self.state.eip);
        if let Some(trace) = &mut self.hooks.trace {
            trace.record(TraceRecord { nanos, cs, eip, event });
        }
    }

    /// Traces an event, if there is a trace.
    #[inline]
    pub(super) fn trace(&mut self, event: impl FnOnce(&Self) -> TraceEvent) {
        if self.hooks.trace.is_some() {
            let event = event(self);
            self.record(event);
        }
    }

    /// Traces a port access or a burst of them, if there is a trace.
    #[inline]
    pub(super) fn trace_port(&mut self, port: u16, width: Width, write: bool, value: u32, count: u32) {
        self.trace(|_| TraceEvent::Port { port, width: width.bytes() as u8, write, value, count });
    }
}
