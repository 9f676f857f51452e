//! IN and OUT: the permission checks and the access itself (SDM vol. 1, "Input/Output").

use super::descriptor::system_type;
use super::fault::{Exec, Fault};
use super::{Vcpu, bus::Bus};
use ipc::width::Width;

/// Where the 32-bit TSS holds the offset of its I/O permission bitmap.
const BITMAP_OFFSET_AT: u32 = 0x66;

impl<B: Bus> Vcpu<B> {
    /// #GP(0) unless the current code may access these ports.
    pub fn check_io(&mut self, port: u16, width: Width) -> Exec {
        if !self.protected_mode() || !self.v86() && self.cpl() <= self.state.iopl() {
            return Ok(());
        }
        let denied = Fault::gp(0);
        let tr = self.state.tr;
        if !tr.usable() || tr.rights() & system_type::WIDE == 0 || tr.limit() < BITMAP_OFFSET_AT + 1 {
            return Err(denied);
        }
        let bitmap = self.read_linear_u16(tr.base().wrapping_add(BITMAP_OFFSET_AT))?;
        let at = u32::from(bitmap) + u32::from(port / 8);
        // Two bytes are always read: an access can straddle a byte boundary.
        if at + 1 > tr.limit() {
            return Err(denied);
        }
        let bits = self.read_linear_u16(tr.base().wrapping_add(at))?;
        let wanted = (1u16 << width.bytes()) - 1;
        if bits >> (port % 8) & wanted != 0 { Err(denied) } else { Ok(()) }
    }

    /// IN, with all checks.
    pub fn port_read(&mut self, port: u16, width: Width) -> Exec<u32> {
        self.check_io(port, width)?;
        self.watch_port(port, width);
        let value = self.bus.read_port(port, width);
        self.trace_port(port, width, false, value, 1);
        self.sync_map();
        Ok(value)
    }

    /// OUT, with all checks.
    pub fn port_write(&mut self, port: u16, width: Width, value: u32) -> Exec {
        self.check_io(port, width)?;
        self.watch_port(port, width);
        self.trace_port(port, width, true, value & width.mask(), 1);
        self.bus.write_port(port, width, value);
        self.sync_map();
        Ok(())
    }

    /// A burst of REP INS, whose checks the caller has made: fills `data`, whole elements of `width`.
    pub fn port_read_string(&mut self, port: u16, width: Width, data: &mut [u8]) {
        self.bus.read_port_string(port, width, data);
        self.trace_burst(port, width, false, data);
        self.sync_map();
    }

    /// A burst of REP OUTS, as [`Vcpu::port_read_string`].
    pub fn port_write_string(&mut self, port: u16, width: Width, data: &[u8]) {
        self.trace_burst(port, width, true, data);
        self.bus.write_port_string(port, width, data);
        self.sync_map();
    }

    fn trace_burst(&mut self, port: u16, width: Width, write: bool, data: &[u8]) {
        let size = width.bytes() as usize;
        let first = data.iter().take(size).rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        self.trace_port(port, width, write, first, (data.len() / size) as u32);
    }
}
