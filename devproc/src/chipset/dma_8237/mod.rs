//! The ISA DMA controllers: two cascaded 8237As and the page registers.
//!
//! Sources: Intel 8237A datasheet ("Register description", "Software commands"); 82371AB (PIIX4)
//! datasheet, section 4.2 (DMA registers).
//!
//! Channel programming lives in the machine's channel table ([`Host::dma_channel`]): this
//! model writes it, the device that uses the channel advances it ([`crate::isa_dma`]). The model's
//! own state is what belongs to a controller: flip-flop, command register, software requests.
//!
//! A channel also stands still when its controller is disabled (command register bit 2), and
//! channels 0-3 when the cascade channel 4 is masked or controller 2 is disabled. The channel table
//! knows one mask bit only, so while a controller stands still all its channels are masked
//! there, and the programmed mask bits are kept here.
//!
//! Port 80h is not here: it is the POST code port of `debug_ports`, which holds what was
//! written to it just as the scratch page register would. Memory-to-memory transfers do not exist
//! in the PIIX4, so the temporary register reads 0. A software request in block mode runs the
//! channel to terminal count with nobody at the other end. Timing bits of the command register
//! are kept without effect.

mod names;
pub mod spec;
#[cfg(test)]
mod tests;

use crate::device::{
    Access, Device, Dma as DmaReach, IoError, MirrorSlot, ReadResult, Region, RegionId, Register, ResetKind,
    StateError, WriteResult, load_state, save_state,
};
use crate::host::{DmaChannel, DmaDirection, Host};
use serde::{Deserialize, Serialize};
use spec::{
    ALL_MASK, CASCADE_CHANNEL, CHANNELS, CLEAR_BYTE_POINTER, CLEAR_MASK, COMMAND_DISABLE, CONTROLLER_1_BASE,
    CONTROLLER_1_PORTS, CONTROLLER_2_BASE, CONTROLLER_2_PORTS, CONTROLLERS, ChannelBit, FLOATING_BUS,
    LAST_CHANNEL_REGISTER, MASK_ALL, MODE, MODE_BLOCK, MODE_CHANNEL, MODE_TRANSFER, MODE_TYPE,
    MODE_TYPE_READ, MODE_TYPE_WRITE, PAGE_BASE, PAGE_CHANNELS, PAGE_PORTS, REQUEST, SINGLE_MASK,
    STATUS_COMMAND, STATUS_REQUEST_SHIFT, STATUS_TC_SHIFT, TEMPORARY_MASTER_CLEAR,
};

const CONTROLLER_1: RegionId = RegionId(0);
const CONTROLLER_2: RegionId = RegionId(1);
const PAGES: RegionId = RegionId(2);

const FIRST_PAGE_MIRROR: MirrorSlot = MirrorSlot(0);

/// State of one controller apart from its channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Controller {
    command: u8,
    /// Byte pointer flip-flop: the next byte of an address or count is the high one.
    high_byte: bool,
    /// Software request bits.
    requests: u8,
    /// The programmed mask bits, while the controller stands still.
    held_mask: Option<u8>,
}

/// Saved state, version 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct DmaState {
    controllers: [Controller; CONTROLLERS],
    /// Page register ports that belong to no channel; the entries of the others are unused.
    scratch: [u8; PAGE_PORTS as usize],
}

/// Both DMA controllers and the page registers.
#[derive(Default)]
pub struct Dma {
    // Volatile state
    state: DmaState,
}

impl Dma {
    /// Controllers as before the first reset.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine's number of a controller's channel.
    fn channel(controller: usize, index: u8) -> u8 {
        controller as u8 * CHANNELS + index % CHANNELS
    }

    fn change(host: &mut dyn Host, channel: u8, change: impl FnOnce(&mut DmaChannel)) {
        let mut state = host.dma_channel(channel);
        change(&mut state);
        host.set_dma_channel(channel, state);
    }

    /// The programmed mask bits of a controller.
    fn mask(&self, controller: usize, host: &dyn Host) -> u8 {
        self.state.controllers[controller].held_mask.unwrap_or_else(|| Self::table_mask(controller, host))
    }

    /// The mask bits that the channel table shows.
    fn table_mask(controller: usize, host: &dyn Host) -> u8 {
        (0..CHANNELS)
            .filter(|index| host.dma_channel(Self::channel(controller, *index)).masked)
            .fold(0, |mask, index| mask | 1 << index)
    }

    fn set_table_mask(controller: usize, mask: u8, host: &mut dyn Host) {
        for index in 0..CHANNELS {
            let masked = mask & 1 << index != 0;
            if host.dma_channel(Self::channel(controller, index)).masked != masked {
                Self::change(host, Self::channel(controller, index), |channel| channel.masked = masked);
            }
        }
    }

    fn set_mask(&mut self, controller: usize, mask: u8, host: &mut dyn Host) {
        match &mut self.state.controllers[controller].held_mask {
            Some(held) => *held = mask,
            None => Self::set_table_mask(controller, mask, host),
        }
        self.settle(host);
    }

    /// Whether a controller can serve requests at all.
    fn stands_still(&self, controller: usize, host: &dyn Host) -> bool {
        let disabled = |c: usize| self.state.controllers[c].command & COMMAND_DISABLE != 0;
        let cascade_masked = self.mask(1, host) & 1 << (CASCADE_CHANNEL % CHANNELS) != 0;
        disabled(controller) || controller == 0 && (disabled(1) || cascade_masked)
    }

    /// Makes the channel table agree with whether the controllers stand still.
    fn settle(&mut self, host: &mut dyn Host) {
        for controller in 0..CONTROLLERS {
            let still = self.stands_still(controller, host);
            match self.state.controllers[controller].held_mask {
                None if still => {
                    self.state.controllers[controller].held_mask = Some(Self::table_mask(controller, host));
                    Self::set_table_mask(controller, MASK_ALL, host);
                }
                Some(mask) if !still => {
                    self.state.controllers[controller].held_mask = None;
                    Self::set_table_mask(controller, mask, host);
                }
                _ => {}
            }
        }
        self.serve_requests(host);
    }

    /// Software requests: served at once in block mode; in other modes they only show in the status.
    fn serve_requests(&mut self, host: &mut dyn Host) {
        for controller in 0..CONTROLLERS {
            for index in 0..CHANNELS {
                let bit = 1 << index;
                let channel = Self::channel(controller, index);
                let state = host.dma_channel(channel);
                let requested = self.state.controllers[controller].requests & bit != 0;
                if !requested || state.masked || state.mode & MODE_TRANSFER != MODE_BLOCK {
                    continue;
                }
                let direction = match state.mode & MODE_TYPE {
                    MODE_TYPE_WRITE => DmaDirection::ToMemory,
                    MODE_TYPE_READ => DmaDirection::FromMemory,
                    _ => DmaDirection::Verify,
                };
                let unit = if channel >= CASCADE_CHANNEL { 2 } else { 1 };
                let mut bus = vec![FLOATING_BUS; (usize::from(state.current_count) + 1) * unit];
                host.isa_dma(channel, direction, &mut bus);
                // Terminal count resets the request bit.
                self.state.controllers[controller].requests &= !bit;
            }
        }
    }

    fn master_clear(&mut self, controller: usize, host: &mut dyn Host) {
        for index in 0..CHANNELS {
            Self::change(host, Self::channel(controller, index), |channel| channel.terminal_count = false);
        }
        let held_mask = self.state.controllers[controller].held_mask;
        self.state.controllers[controller] = Controller { held_mask, ..Controller::default() };
        self.set_mask(controller, MASK_ALL, host);
    }

    fn read_register(&mut self, controller: usize, register: u8, host: &mut dyn Host) -> ReadResult {
        let value = match register {
            0..=LAST_CHANNEL_REGISTER => {
                let channel = host.dma_channel(Self::channel(controller, register / 2));
                let word =
                    if register.is_multiple_of(2) { channel.current_address } else { channel.current_count };
                word.to_le_bytes()[usize::from(self.take_byte_pointer(controller))]
            }
            STATUS_COMMAND => self.read_status(controller, host),
            TEMPORARY_MASTER_CLEAR => 0,
            ALL_MASK => self.mask(controller, host),
            _ => return Err(IoError::InvalidRegister),
        };
        Ok(value.into())
    }

    fn read_status(&mut self, controller: usize, host: &mut dyn Host) -> u8 {
        let mut status = self.state.controllers[controller].requests << STATUS_REQUEST_SHIFT;
        for index in 0..CHANNELS {
            let number = Self::channel(controller, index);
            let channel = host.dma_channel(number);
            status |= u8::from(channel.request) << (index + STATUS_REQUEST_SHIFT);
            status |= u8::from(channel.terminal_count) << (index + STATUS_TC_SHIFT);
            if channel.terminal_count {
                Self::change(host, number, |channel| channel.terminal_count = false);
            }
        }
        status
    }

    fn write_register(
        &mut self,
        controller: usize,
        register: u8,
        value: u8,
        host: &mut dyn Host,
    ) -> WriteResult {
        let argument = ChannelBit::from_bits(value);
        let bit = 1 << argument.channel();
        match register {
            0..=LAST_CHANNEL_REGISTER => {
                let high = self.take_byte_pointer(controller);
                Self::change(host, Self::channel(controller, register / 2), |channel| {
                    let (base, current) = if register.is_multiple_of(2) {
                        (&mut channel.base_address, &mut channel.current_address)
                    } else {
                        (&mut channel.base_count, &mut channel.current_count)
                    };
                    // Base and current are written together, each byte on its own.
                    *base = with_byte(*base, high, value);
                    *current = with_byte(*current, high, value);
                });
            }
            STATUS_COMMAND => {
                self.state.controllers[controller].command = value;
                self.settle(host);
            }
            REQUEST => {
                let requests = &mut self.state.controllers[controller].requests;
                *requests = if argument.set() { *requests | bit } else { *requests & !bit };
                self.serve_requests(host);
            }
            SINGLE_MASK => {
                let mask = self.mask(controller, host);
                self.set_mask(controller, if argument.set() { mask | bit } else { mask & !bit }, host);
            }
            MODE => {
                let channel = Self::channel(controller, argument.channel());
                Self::change(host, channel, |channel| channel.mode = value & !MODE_CHANNEL);
                self.serve_requests(host);
            }
            CLEAR_BYTE_POINTER => self.state.controllers[controller].high_byte = false,
            TEMPORARY_MASTER_CLEAR => self.master_clear(controller, host),
            CLEAR_MASK => self.set_mask(controller, 0, host),
            ALL_MASK => self.set_mask(controller, value & MASK_ALL, host),
            _ => return Err(IoError::InvalidRegister),
        }
        Ok(())
    }

    /// The flip-flop, which every access to an address or count toggles.
    fn take_byte_pointer(&mut self, controller: usize) -> bool {
        let flip_flop = &mut self.state.controllers[controller].high_byte;
        *flip_flop = !*flip_flop;
        !*flip_flop
    }

    fn read_page(&self, offset: usize, host: &dyn Host) -> Option<u8> {
        match PAGE_CHANNELS.get(offset)? {
            Some(channel) => Some(host.dma_channel(*channel).page),
            None => self.state.scratch.get(offset).copied(),
        }
    }

    fn write_page(&mut self, offset: usize, value: u8, host: &mut dyn Host) -> WriteResult {
        match (PAGE_CHANNELS.get(offset), self.state.scratch.get_mut(offset)) {
            (Some(Some(channel)), _) => Self::change(host, *channel, |state| state.page = value),
            (Some(None), Some(scratch)) => *scratch = value,
            _ => return Err(IoError::InvalidRegister),
        }
        self.publish_page(offset, host);
        Ok(())
    }

    fn publish_page(&self, offset: usize, host: &mut dyn Host) {
        if let Some(value) = self.read_page(offset, host) {
            host.publish_mirror(MirrorSlot(FIRST_PAGE_MIRROR.0 + offset as u16), value.into());
        }
    }
}

fn with_byte(word: u16, high: bool, value: u8) -> u16 {
    let mut bytes = word.to_le_bytes();
    bytes[usize::from(high)] = value;
    u16::from_le_bytes(bytes)
}

/// Which controller and register an access means.
fn decode(at: Access) -> Option<(usize, u8)> {
    match at.region {
        CONTROLLER_1 => Some((0, at.offset as u8)),
        // A0 is not decoded.
        CONTROLLER_2 => Some((1, (at.offset / 2) as u8)),
        _ => None,
    }
}

impl Device for Dma {
    fn name(&self) -> &'static str {
        "dma"
    }

    fn regions(&self) -> Vec<Region> {
        // Posted, not local: a command to the floppy controller must find its channel set up.
        vec![
            Region::ports(CONTROLLER_1, "dma1", CONTROLLER_1_BASE, CONTROLLER_1_PORTS),
            Region::ports(CONTROLLER_2, "dma2", CONTROLLER_2_BASE, CONTROLLER_2_PORTS),
            Region::ports(PAGES, "dma_page", PAGE_BASE, PAGE_PORTS).mirrored(FIRST_PAGE_MIRROR),
        ]
    }

    fn dma(&self) -> DmaReach {
        DmaReach::ISA
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        for offset in 0..PAGE_CHANNELS.len() {
            self.publish_page(offset, host);
        }
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        match decode(at) {
            Some((controller, register)) => self.read_register(controller, register, host),
            // Mirrored; answered all the same for a bus without a mirror.
            None => self.read_page(at.offset as usize, host).map(u32::from).ok_or(IoError::InvalidRegister),
        }
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let value = value as u8;
        match decode(at) {
            Some((controller, register)) => self.write_register(controller, register, value, host),
            None => self.write_page(at.offset as usize, value, host),
        }
    }

    fn reset(&mut self, kind: ResetKind, host: &mut dyn Host) {
        if kind == ResetKind::PowerOn {
            for number in 0..CONTROLLERS as u8 * CHANNELS {
                // DREQ is the device's wire, not ours.
                let request = host.dma_channel(number).request;
                host.set_dma_channel(number, DmaChannel { request, ..DmaChannel::default() });
            }
            self.state = DmaState::default();
        }
        // RESET is a master clear of both; addresses, counts and pages survive it.
        for controller in 0..CONTROLLERS {
            self.master_clear(controller, host);
        }
        self.attach(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        save_state(&self.state, out);
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: DmaState = load_state(data)?;
        for controller in &state.controllers {
            if controller.requests & !MASK_ALL != 0 || controller.held_mask.unwrap_or(0) & !MASK_ALL != 0 {
                return Err(StateError::OutOfRange("dma.mask"));
            }
        }
        self.state = state;
        Ok(())
    }
}
