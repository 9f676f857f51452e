//! Keyboard controller (8042) with its keyboard port and its auxiliary (mouse) port.
//!
//! See the IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device
//! Controller", and the 82371AB (PIIX4) datasheet for how A20GATE and RCIN# are wired.
//!
//! A byte travels from a device into the output buffer when that is empty and the device's
//! clock is not held low; it takes the time of a serial frame, which interrupt handlers rely
//! on. The controller takes what is written to it at once, so IBF never shows.
//! Two simplifications: a controller's answer waits for a full output buffer to be read
//! (the original overwrites it), and pulse commands act only on the reset line.

mod names;
pub mod spec;
pub mod state;
pub mod translation;

#[cfg(test)]
mod tests;

use super::ps2_device::Ps2Device;
use super::ps2_keyboard::Ps2Keyboard;
use crate::device::{
    ALL_PARTS, Access, Device, IoError, MirrorSlot, Parts, ReadResult, Region, RegionId, Register, ResetKind,
    StateError, TimerId, WriteResult, Writes, load_state, save_parts,
};
use crate::host::{A20Source, Host, ResetRequest};
use crate::pack::{pack, pack_sized};
use ipc::input::HostEvent;
use ipc::time::VirtualTime;
use spec::*;
use state::{OutputByte, Saved, State};

/// The parts in which the state is saved.
mod part {
    use crate::device::Parts;
    pub(super) const CONTROLLER: Parts = 1 << 0;
    pub(super) const KEYBOARD: Parts = 1 << 1;
    pub(super) const AUXILIARY: Parts = 1 << 2;
    pub(super) const COUNT: usize = 3;
}

const DATA: RegionId = RegionId(0);
const COMMAND: RegionId = RegionId(1);
const STATUS_MIRROR: MirrorSlot = MirrorSlot(0);

const FRAME_TIMER: TimerId = TimerId(0);
const KEYBOARD_TIMER: TimerId = TimerId(1);
const AUX_TIMER: TimerId = TimerId(2);
const AUX_TIMEOUT_TIMER: TimerId = TimerId(3);

/// The keyboard controller, the keyboard, and what is on the auxiliary port.
pub struct I8042 {
    // Sub-devices
    keyboard: Box<dyn Ps2Device>,
    auxiliary: Option<Box<dyn Ps2Device>>,

    // Volatile state
    state: State,
    changed: Parts,
}

impl Default for I8042 {
    fn default() -> Self {
        Self::new()
    }
}

impl I8042 {
    /// A controller with a keyboard and nothing on the auxiliary port.
    pub fn new() -> Self {
        Self::with_devices(Box::new(Ps2Keyboard::new()), None)
    }

    /// A controller with the devices given.
    pub fn with_devices(keyboard: Box<dyn Ps2Device>, auxiliary: Option<Box<dyn Ps2Device>>) -> Self {
        Self { keyboard, auxiliary, state: State::default(), changed: ALL_PARTS }
    }

    fn status(&self) -> Status {
        let state = &self.state;
        let status = Status::new()
            .with_output_buffer_full(state.output_full)
            .with_system_flag(state.command_byte().system_flag())
            .with_command(state.last_write_was_command)
            .with_keyboard_unlocked(true)
            .with_auxiliary_output_buffer_full(state.output_full && state.output.auxiliary)
            .with_general_timeout(state.output.timeout);
        match state.polled_inputs {
            Some(inputs) => Status::from_bits(status.into_bits() & 0x0f | inputs & 0xf0),
            None => status,
        }
    }

    fn keyboard_interrupt(&self) -> bool {
        let state = &self.state;
        state.output_full && !state.output.auxiliary && state.command_byte().keyboard_interrupt()
    }

    fn auxiliary_interrupt(&self) -> bool {
        let state = &self.state;
        state.output_full && state.output.auxiliary && state.command_byte().auxiliary_interrupt()
    }

    fn publish_output(&self, host: &mut dyn Host) {
        host.publish_mirror(STATUS_MIRROR, self.status().into_bits().into());
        host.set_irq(KEYBOARD_IRQ, self.keyboard_interrupt());
        host.set_irq(AUX_IRQ, self.auxiliary_interrupt());
    }

    /// Moves bytes on as far as they go now, then publishes everything.
    fn settle(&mut self, host: &mut dyn Host) {
        if !self.state.output_full
            && let Some(answer) = self.state.answer.take()
        {
            self.fill_output(answer);
        }
        if self.state.output_full || !(self.keyboard_sending() || self.auxiliary_sending()) {
            self.state.frame_done = None;
        } else if self.state.frame_done.is_none() {
            self.state.frame_done = Some(host.now() + FRAME_NANOS);
        }
        self.publish_output(host);
        let deadlines = [
            (FRAME_TIMER, self.state.frame_done),
            (KEYBOARD_TIMER, self.keyboard.deadline()),
            (AUX_TIMER, self.auxiliary.as_ref().and_then(|device| device.deadline())),
            (AUX_TIMEOUT_TIMER, self.state.aux_timeout),
        ];
        for (timer, deadline) in deadlines {
            match deadline {
                Some(deadline) => host.arm_timer(timer, deadline),
                None => host.cancel_timer(timer),
            }
        }
    }

    fn keyboard_sending(&self) -> bool {
        !self.state.command_byte().disable_keyboard() && self.keyboard.wants_to_send()
    }

    fn auxiliary_sending(&self) -> bool {
        !self.state.command_byte().disable_auxiliary()
            && self.auxiliary.as_ref().is_some_and(|device| device.wants_to_send())
    }

    fn fill_output(&mut self, byte: OutputByte) {
        self.state.output = byte;
        self.state.output_full = true;
    }

    /// Takes the byte whose frame has ended from its device.
    fn frame_ended(&mut self, now: VirtualTime) {
        self.state.frame_done = None;
        if self.state.output_full {
            return;
        }
        if self.keyboard_sending() {
            self.changed |= part::KEYBOARD;
            if let Some(byte) = self.keyboard.send(now)
                && let Some(value) = self.translated(byte)
            {
                self.fill_output(OutputByte { value, ..OutputByte::default() });
            }
        } else if self.auxiliary_sending() {
            self.changed |= part::AUXILIARY;
            if let Some(value) = self.auxiliary.as_mut().and_then(|device| device.send(now)) {
                self.fill_output(OutputByte { value, auxiliary: true, timeout: false });
            }
        }
    }

    fn translated(&mut self, byte: u8) -> Option<u8> {
        if self.state.command_byte().translate() {
            translation::translate(byte, &mut self.state.break_pending)
        } else {
            self.state.break_pending = false;
            Some(byte)
        }
    }

    fn answer(&mut self, value: u8) {
        self.state.answer = Some(OutputByte { value, ..OutputByte::default() });
    }

    fn update_command_byte(&mut self, update: impl FnOnce(CommandByte) -> CommandByte) {
        self.state.set_command_byte(update(self.state.command_byte()));
    }

    fn set_output_port(&mut self, value: u8, host: &mut dyn Host) {
        let port = OutputPort::from_bits(value & !OUTPUT_PORT_INTERRUPTS);
        self.state.output_port = port.into_bits();
        host.set_a20(A20Source::Keyboard, port.gate_a20());
        if !port.not_reset() {
            // The CPU would be held until somebody writes a 1, which nobody could do: the pin
            // is taken as a pulse.
            self.state.output_port = port.with_not_reset(true).into_bits();
            host.request_reset(ResetRequest::Cpu);
        }
    }

    fn controller_command(&mut self, command: u8, host: &mut dyn Host) {
        self.state.command = None;
        match command {
            READ_RAM..=READ_RAM_LAST => {
                let address = usize::from(command & RAM_ADDRESS_MASK);
                self.answer(self.state.ram[address]);
            }
            WRITE_RAM..=WRITE_RAM_LAST
            | WRITE_OUTPUT_PORT
            | WRITE_KEYBOARD_OUTPUT_BUFFER
            | WRITE_AUX_OUTPUT_BUFFER
            | WRITE_AUX => self.state.command = Some(command),
            TEST_PASSWORD => self.answer(PASSWORD_NOT_INSTALLED),
            DISABLE_AUX => self.update_command_byte(|byte| byte.with_disable_auxiliary(true)),
            ENABLE_AUX => self.update_command_byte(|byte| byte.with_disable_auxiliary(false)),
            TEST_AUX | TEST_KEYBOARD => self.answer(TEST_PASSED),
            SELF_TEST => {
                self.state = State {
                    output: self.state.output,
                    output_full: self.state.output_full,
                    output_port: self.state.output_port,
                    last_write_was_command: true,
                    ..State::default()
                };
                self.update_command_byte(|byte| byte.with_system_flag(true));
                self.answer(SELF_TEST_PASSED);
            }
            DISABLE_KEYBOARD => self.update_command_byte(|byte| byte.with_disable_keyboard(true)),
            ENABLE_KEYBOARD => self.update_command_byte(|byte| byte.with_disable_keyboard(false)),
            READ_INPUT_PORT => self.answer(INPUT_PORT),
            POLL_INPUT_PORT_LOW => self.state.polled_inputs = Some(INPUT_PORT << 4),
            POLL_INPUT_PORT_HIGH => self.state.polled_inputs = Some(INPUT_PORT & 0xf0),
            READ_OUTPUT_PORT => {
                let port = OutputPort::from_bits(self.state.output_port)
                    .with_keyboard_interrupt(self.keyboard_interrupt())
                    .with_auxiliary_interrupt(self.auxiliary_interrupt());
                self.answer(port.into_bits());
            }
            CLOSE_GATE_A20 | OPEN_GATE_A20 => {
                let port = OutputPort::from_bits(self.state.output_port);
                self.set_output_port(port.with_gate_a20(command == OPEN_GATE_A20).into_bits(), host);
            }
            READ_TEST_INPUTS => {
                let byte = self.state.command_byte();
                let keyboard = if byte.disable_keyboard() { 0 } else { TEST_INPUT_KEYBOARD_CLOCK };
                let auxiliary = if byte.disable_auxiliary() { 0 } else { TEST_INPUT_AUX_CLOCK };
                self.answer(keyboard | auxiliary);
            }
            PULSE_OUTPUT_PORT.. if command & PULSE_SPARES_RESET == 0 => host.request_reset(ResetRequest::Cpu),
            // Later controllers have more commands, each its own; software that tries one of
            // them sees no answer, as on a controller without it.
            _ => {}
        }
    }

    fn data_written(&mut self, value: u8, host: &mut dyn Host) {
        match self.state.command.take() {
            Some(command @ WRITE_RAM..=WRITE_RAM_LAST) => {
                self.state.ram[usize::from(command & RAM_ADDRESS_MASK)] = value;
            }
            Some(WRITE_OUTPUT_PORT) => self.set_output_port(value, host),
            Some(WRITE_KEYBOARD_OUTPUT_BUFFER) => self.answer(value),
            Some(WRITE_AUX_OUTPUT_BUFFER) => {
                self.state.answer = Some(OutputByte { value, auxiliary: true, timeout: false });
            }
            Some(WRITE_AUX) => self.send_to_auxiliary(value, host.now()),
            // Sending releases the clock; the device could not answer otherwise.
            _ => {
                self.update_command_byte(|byte| byte.with_disable_keyboard(false));
                self.state.frame_done = None;
                self.changed |= part::KEYBOARD;
                self.keyboard.receive(value, host.now());
            }
        }
    }

    fn send_to_auxiliary(&mut self, value: u8, now: VirtualTime) {
        self.update_command_byte(|byte| byte.with_disable_auxiliary(false));
        match &mut self.auxiliary {
            Some(device) => {
                self.state.frame_done = None;
                self.changed |= part::AUXILIARY;
                device.receive(value, now);
            }
            None => self.state.aux_timeout = Some(now + DEVICE_TIMEOUT_NANOS),
        }
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region::ports(DATA, "i8042 data", DATA_PORT, 1).writes(Writes::Sync),
            Region::ports(COMMAND, "i8042 command/status", COMMAND_PORT, 1)
                .writes(Writes::Sync)
                .mirrored(STATUS_MIRROR),
        ]
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        let port = OutputPort::from_bits(self.state.output_port);
        host.set_a20(A20Source::Keyboard, port.gate_a20());
        self.settle(host);
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        match at.region {
            DATA => {
                let value = self.state.output.value;
                if self.state.output_full {
                    self.changed |= part::CONTROLLER;
                    self.state.output_full = false;
                    // The line falls before the next byte raises it: each byte is an edge.
                    self.publish_output(host);
                    self.settle(host);
                }
                Ok(value.into())
            }
            COMMAND => Ok(self.status().into_bits().into()),
            _ => Err(IoError::InvalidRegister),
        }
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let value = value as u8;
        self.changed |= part::CONTROLLER;
        self.state.polled_inputs = None;
        self.state.last_write_was_command = at.region == COMMAND;
        match at.region {
            DATA => self.data_written(value, host),
            COMMAND => self.controller_command(value, host),
            _ => return Err(IoError::InvalidRegister),
        }
        self.settle(host);
        Ok(())
    }

    fn timer(&mut self, timer: TimerId, _deadline: VirtualTime, host: &mut dyn Host) {
        let now = host.now();
        let reached = |deadline: Option<VirtualTime>| deadline.is_some_and(|deadline| deadline <= now);
        self.changed |= part::CONTROLLER;
        match timer {
            FRAME_TIMER if reached(self.state.frame_done) => self.frame_ended(now),
            KEYBOARD_TIMER if reached(self.keyboard.deadline()) => {
                self.changed |= part::KEYBOARD;
                self.keyboard.deadline_reached(now);
            }
            AUX_TIMER => {
                if let Some(device) = &mut self.auxiliary
                    && reached(device.deadline())
                {
                    self.changed |= part::AUXILIARY;
                    device.deadline_reached(now);
                }
            }
            AUX_TIMEOUT_TIMER if reached(self.state.aux_timeout) => {
                self.state.aux_timeout = None;
                self.state.answer = Some(OutputByte { value: NO_ANSWER, auxiliary: true, timeout: true });
            }
            _ => {}
        }
        self.settle(host);
    }

    fn host_event(&mut self, event: &HostEvent, host: &mut dyn Host) {
        self.changed = ALL_PARTS;
        self.keyboard.host_event(event, host.now());
        if let Some(device) = &mut self.auxiliary {
            device.host_event(event, host.now());
        }
        self.settle(host);
    }

    fn reset(&mut self, kind: ResetKind, host: &mut dyn Host) {
        self.changed = ALL_PARTS;
        self.state = State::default();
        if kind == ResetKind::PowerOn {
            self.keyboard.power_on(host.now());
            if let Some(device) = &mut self.auxiliary {
                device.power_on(host.now());
            }
        }
        self.attach(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_parts(self, out);
    }

    fn take_changed(&mut self) -> bool {
        self.take_changed_parts() != 0
    }

    fn parts(&self) -> usize {
        part::COUNT
    }

    fn save_part(&self, part: usize, out: &mut Vec<u8>) {
        match 1 << part {
            part::CONTROLLER => pack(&self.state, out),
            part::KEYBOARD => pack_sized(out, |out| self.keyboard.save(out)),
            _ => {
                out.push(self.auxiliary.is_some().into());
                if let Some(device) = &self.auxiliary {
                    pack_sized(out, |out| device.save(out));
                }
            }
        }
    }

    fn take_changed_parts(&mut self) -> Parts {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let Saved { controller, keyboard, auxiliary } = load_state(data)?;
        let mut keyboard_before = Vec::new();
        self.keyboard.save(&mut keyboard_before);
        self.keyboard.load(&keyboard)?;
        let loaded = match (&mut self.auxiliary, &auxiliary) {
            (Some(device), Some(bytes)) => device.load(bytes),
            (None, None) => Ok(()),
            _ => Err(StateError::OutOfRange("another device on the auxiliary port")),
        };
        if loaded.is_err() {
            // Its own state of a moment ago: it takes that.
            self.keyboard.load(&keyboard_before)?;
            return loaded;
        }
        self.state = controller;
        self.changed = ALL_PARTS;
        Ok(())
    }
}
