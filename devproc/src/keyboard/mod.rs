//! The models of the keyboard process: 8042 controller and PS/2 keyboard.

pub mod i8042;
pub mod ps2_device;
pub mod ps2_keyboard;

use crate::device::Device;
use i8042::I8042;
use ipc::machine::MachineConfig;

/// The models of the keyboard process. Nothing in the machine description concerns them yet:
/// every PC has the controller and a keyboard, and none has a mouse.
pub fn models(config: &MachineConfig) -> Vec<Box<dyn Device>> {
    let _ = config;
    vec![Box::new(I8042::new())]
}
