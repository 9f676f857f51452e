//! Saved state of the keyboard controller.

use super::spec::{COMMAND_BYTE, COMMAND_BYTE_RESET, CommandByte, OUTPUT_PORT_RESET, RAM_BYTES};
use crate::pack::pack_fields;
use ipc::time::VirtualTime;
use serde::{Deserialize, Serialize};

/// A byte on its way to the output buffer, or in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputByte {
    /// The byte.
    pub value: u8,
    /// Whether it counts as the auxiliary device's.
    pub auxiliary: bool,
    /// Whether it stands for an answer that did not come.
    pub timeout: bool,
}

/// The controller's own state; the devices on its ports keep theirs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Controller RAM; byte 0 is the command byte.
    pub ram: [u8; RAM_BYTES],
    /// The output buffer. It keeps its value after it was read.
    pub output: OutputByte,
    /// OBF.
    pub output_full: bool,
    /// The controller's own answer, waiting for the output buffer to be read.
    pub answer: Option<OutputByte>,
    /// Whether the last write was to the command port.
    pub last_write_was_command: bool,
    /// The command that takes the next byte written to the data port.
    pub command: Option<u8>,
    /// Output port bits, without the interrupt pins.
    pub output_port: u8,
    /// Input port bits that show in status bits 4-7 (they are in bits 4-7 here too).
    pub polled_inputs: Option<u8>,
    /// The translator has swallowed a break prefix.
    pub break_pending: bool,
    /// When the byte that a device is sending will have arrived.
    pub frame_done: Option<VirtualTime>,
    /// When the controller gives up on the auxiliary device that is not there.
    pub aux_timeout: Option<VirtualTime>,
}

pack_fields!(OutputByte { value, auxiliary, timeout });
pack_fields!(State {
    ram,
    output,
    output_full,
    answer,
    last_write_was_command,
    command,
    output_port,
    polled_inputs,
    break_pending,
    frame_done,
    aux_timeout,
});

impl State {
    /// The command byte.
    pub fn command_byte(&self) -> CommandByte {
        CommandByte::from_bits(self.ram[COMMAND_BYTE])
    }

    /// Replaces the command byte.
    pub fn set_command_byte(&mut self, byte: CommandByte) {
        self.ram[COMMAND_BYTE] = byte.into_bits();
    }
}

impl Default for State {
    /// The state after reset.
    fn default() -> Self {
        let mut ram = [0; RAM_BYTES];
        ram[COMMAND_BYTE] = COMMAND_BYTE_RESET.into_bits();
        Self {
            ram,
            output: OutputByte::default(),
            output_full: false,
            answer: None,
            last_write_was_command: false,
            command: None,
            output_port: OUTPUT_PORT_RESET,
            polled_inputs: None,
            break_pending: false,
            frame_done: None,
            aux_timeout: None,
        }
    }
}

/// What is saved: the controller and what is plugged in.
#[derive(Serialize, Deserialize)]
pub struct Saved {
    /// The controller.
    pub controller: State,
    /// The keyboard's state.
    pub keyboard: Vec<u8>,
    /// The auxiliary device's state, when one is plugged in.
    pub auxiliary: Option<Vec<u8>>,
}
