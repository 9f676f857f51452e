//! Debug registers at work: breakpoints and the traps that follow them (SDM vol. 3, "Debugging").

use super::Vcpu;
use super::bus::Bus;
use super::fault::Fault;
use super::registers::{cr4, dr6, dr7, eflags};
use ipc::width::Width;

impl<B: Bus> Vcpu<B> {
    /// The breakpoint conditions (bits of DR6) that an access of a kind meets.
    fn breakpoints(&self, address: u32, len: u32, hits: impl Fn(u32) -> bool) -> (u32, bool) {
        let dr7 = self.state.dr[7];
        let mut matched = 0;
        let mut enabled = false;
        for i in 0..4 {
            let condition = dr7 >> (16 + 4 * i) & 3;
            if !hits(condition) {
                continue;
            }
            // LEN encodes 1, 2, (undefined: 8) and 4 bytes; an instruction breakpoint has one.
            let size = if condition == dr7::ON_EXECUTE {
                1
            } else {
                [1, 2, 8, 4][(dr7 >> (18 + 4 * i) & 3) as usize]
            };
            let start = self.state.dr[i as usize] & !(size - 1);
            let overlaps = address.wrapping_sub(start) < size || start.wrapping_sub(address) < len;
            if overlaps {
                matched |= 1 << i;
                enabled |= dr7 >> (2 * i) & 3 != 0;
            }
        }
        (matched, enabled)
    }

    /// Records data breakpoints, and a debugger's watchpoints, that an access of the current instruction meets.
    #[inline]
    pub(super) fn watch_data(&mut self, linear: u32, len: u32, write: bool) {
        if self.hooks.watches_data() {
            self.note_watched(linear, len, write);
        }
        if self.state.dr[7] & dr7::ENABLES == 0 {
            return;
        }
        let (matched, enabled) = self.breakpoints(linear, len, |condition| {
            condition == dr7::ON_ACCESS || write && condition == dr7::ON_WRITE
        });
        if enabled {
            self.state.pending_debug |= matched;
        }
    }

    /// Records I/O breakpoints that an access of the current instruction meets.
    pub(super) fn watch_port(&mut self, port: u16, width: Width) {
        if self.state.dr[7] & dr7::ENABLES == 0 || self.state.cr4 & cr4::DE == 0 {
            return;
        }
        let (matched, enabled) =
            self.breakpoints(u32::from(port), width.bytes(), |condition| condition == dr7::ON_IO);
        if enabled {
            self.state.pending_debug |= matched;
        }
    }

    /// Whether any breakpoint is enabled: engines then check each instruction.
    #[inline]
    pub fn breakpoints_enabled(&self) -> bool {
        self.state.dr[7] & dr7::ENABLES != 0
    }

    /// Whether each access to data must be looked at: nothing may be moved in bulk then.
    #[inline]
    pub fn data_is_watched(&self) -> bool {
        self.breakpoints_enabled() || self.hooks.watches_data()
    }

    /// The #DB to deliver *instead* of executing the instruction at linear address `linear`.
    pub fn instruction_breakpoint(&self, linear: u32) -> Option<Fault> {
        if !self.breakpoints_enabled() || self.state.eflags & eflags::RF != 0 {
            return None;
        }
        let (matched, enabled) = self.breakpoints(linear, 1, |condition| condition == dr7::ON_EXECUTE);
        enabled.then(|| Fault::db(matched))
    }

    /// Takes the #DB to deliver *after* an instruction: data and I/O breakpoints, task-switch traps, and
    /// the single step when TF was set before the instruction (`stepped`).
    #[inline]
    pub fn take_debug_trap(&mut self, stepped: bool) -> Option<Fault> {
        let status = std::mem::take(&mut self.state.pending_debug) | if stepped { dr6::BS } else { 0 };
        (status != 0).then(|| Fault::db(status))
    }
}
