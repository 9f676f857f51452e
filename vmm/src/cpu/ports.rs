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
        self.sync_map();
        Ok(value)
    }

    /// OUT, with all checks.
    pub fn port_write(&mut self, port: u16, width: Width, value: u32) -> Exec {
        self.check_io(port, width)?;
        self.watch_port(port, width);
        self.bus.write_port(port, width, value);
        self.sync_map();
        Ok(())
    }
}
