//! What the 8042 controller sees of a device on the other end of a PS/2 cable.
//!
//! The cable carries bytes both ways; the controller holds the clock low to make the device
//! wait. A device has no other wire: it is not reset with the machine, only by power or by
//! a command.

use crate::device::StateError;
use ipc::input::HostEvent;
use ipc::time::VirtualTime;

/// A keyboard or a mouse on a PS/2 port.
pub trait Ps2Device: Send {
    /// Power is switched on: the device starts its self-test.
    fn power_on(&mut self, now: VirtualTime);

    /// A byte from the controller has arrived.
    fn receive(&mut self, byte: u8, now: VirtualTime);

    /// Whether the device has a byte to send as soon as the clock is released.
    fn wants_to_send(&self) -> bool;

    /// A byte has been transferred to the controller completely. `None` if there was none.
    fn send(&mut self, now: VirtualTime) -> Option<u8>;

    /// When [`Ps2Device::deadline_reached`] must be called next, if at all.
    fn deadline(&self) -> Option<VirtualTime>;

    /// The deadline has been reached.
    fn deadline_reached(&mut self, now: VirtualTime);

    /// A person did something; devices ignore events that are not theirs.
    fn host_event(&mut self, event: &HostEvent, now: VirtualTime);

    /// Appends the device's state to `out`.
    fn save(&self, out: &mut Vec<u8>);

    /// Takes over a state that `save` wrote. On error the device is unchanged.
    ///
    /// # Errors
    /// [`StateError`] when the data cannot be a state of this device.
    fn load(&mut self, data: &[u8]) -> Result<(), StateError>;
}
