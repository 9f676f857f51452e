//! 16550A UART: COM1 and COM2.
//!
//! Source: National Semiconductor PC16550D datasheet, section 8 (registers, FIFO interrupt and
//! polled operation); IBM PC AT Technical Reference (OUT2 connects the interrupt).
//!
//! **Transmission takes no time.** A character leaves as soon as it is written, so THRE and TEMT
//! are always set, the transmitter FIFO is always empty, and the "holding register empty"
//! interrupt comes at once. Software cannot tell this from a fast line except by measuring, and
//! a guest that prints its boot log over a polled console is not held up by the baud rate.
//! Baud rate and format still decide when waiting data times out in the receiver FIFO.
//!
//! The other end speaks eight bits, whatever the word length: SeaBIOS and many small kernels leave
//! LCR at its reset value, which means five, and expect readable text. Loopback is exact.
//!
//! **Reception takes the time that baud rate and format say.** Characters from the other end wait outside
//! until the receiver has room, as behind a handshake, so that a guest that polls loses nothing of
//! a pasted text; overruns happen in loopback only. RTS and DTR hold nothing back: many small kernels
//! never raise them.
//!
//! The other end is a [`SerialSink`], which only takes, or a cable of the host's ([`Host::serial_cable`]).
//! Of a cable the state keeps the two positions; the characters stay outside until the state that includes
//! them is committed.

mod names;
mod sink;
mod spec;
mod state;
#[cfg(test)]
mod tests;

pub use sink::{FileSink, NullSink, SerialSink};

use crate::device::{
    Access, Device, IoError, ReadResult, Region, RegionId, Register, ResetKind, StateError, TimerId,
    WriteResult, Writes, load_state,
};
use crate::host::Host;
use ipc::input::HostEvent;
use ipc::serial::{INPUT_BYTES, OUTPUT_BYTES};
use ipc::time::{NANOS_PER_SEC, VirtualTime};
use state::{Received, State};

const PORTS: RegionId = RegionId(0);
const TIMEOUT: TimerId = TimerId(0);
const RECEIVE: TimerId = TimerId(1);

/// Which of the PC's serial ports a UART is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SerialPort {
    /// 3F8h, IRQ 4.
    Com1,
    /// 2F8h, IRQ 3.
    Com2,
}

impl SerialPort {
    const fn name(self) -> &'static str {
        match self {
            Self::Com1 => "com1",
            Self::Com2 => "com2",
        }
    }

    const fn base(self) -> u16 {
        match self {
            Self::Com1 => 0x3f8,
            Self::Com2 => 0x2f8,
        }
    }

    /// Number of its cable.
    const fn cable(self) -> u8 {
        match self {
            Self::Com1 => 0,
            Self::Com2 => 1,
        }
    }

    const fn irq(self) -> u8 {
        match self {
            Self::Com1 => 4,
            Self::Com2 => 3,
        }
    }
}

/// One UART.
pub struct Uart {
    // Constant.
    port: SerialPort,
    // Runtime glue.
    /// The other end; a cable of the host's if there is none.
    sink: Option<Box<dyn SerialSink>>,
    /// Level of the interrupt as last driven.
    line_high: bool,
    /// Whether the state may differ from what was last saved.
    changed: bool,
    // Volatile state.
    state: State,
}

impl Uart {
    /// A UART at `port` whose characters go to `sink`.
    pub fn new(port: SerialPort, sink: Box<dyn SerialSink>) -> Self {
        Self { port, sink: Some(sink), line_high: false, changed: true, state: State::new() }
    }

    /// A UART at `port` with the host's cable of that port.
    pub fn with_cable(port: SerialPort) -> Self {
        Self { port, sink: None, line_high: false, changed: true, state: State::new() }
    }

    fn fifos(&self) -> bool {
        self.state.fcr & spec::FCR_ENABLE != 0
    }

    fn looped(&self) -> bool {
        self.state.mcr & spec::MCR_LOOP != 0
    }

    fn divisor_latch(&self) -> bool {
        self.state.lcr & spec::LCR_DLAB != 0
    }

    fn receiver_room(&self) -> usize {
        if self.fifos() { spec::FIFO_LEN } else { 1 }
    }

    fn trigger_level(&self) -> usize {
        if !self.fifos() {
            return 1;
        }
        let index = usize::from(self.state.fcr >> spec::FCR_TRIGGER_SHIFT);
        spec::TRIGGER_LEVELS.get(index).copied().unwrap_or(1)
    }

    /// Cuts a looped-back character to the word length.
    fn cut(&self, byte: u8) -> u8 {
        byte & (0xff >> (3 - (self.state.lcr & spec::LCR_WLS)))
    }

    /// How long a character takes on the line.
    fn character_nanos(&self) -> u64 {
        let lcr = self.state.lcr;
        let data = 5 + u64::from(lcr & spec::LCR_WLS);
        let bits = 1 + data + u64::from(lcr & spec::LCR_PEN != 0) + 1 + u64::from(lcr & spec::LCR_STB != 0);
        let divisor = u64::from(self.state.divisor.max(1));
        bits * divisor * spec::CLOCKS_PER_BIT * NANOS_PER_SEC / spec::CRYSTAL_HZ
    }

    /// The next character from the other end, if one waits and the receiver could take it. In loopback
    /// the receiver is cut off from the line.
    fn waiting(&self, host: &dyn Host) -> Option<u8> {
        let open = self.sink.is_none() && !self.looped() && self.state.receiver.len() < self.receiver_room();
        open.then(|| host.serial_peek(self.port.cable(), self.state.taken)).flatten()
    }

    /// Moves the characters that have arrived by now into the receiver, as far as it has room.
    fn fill_receiver(&mut self, host: &mut dyn Host) {
        let now = host.now();
        while let Some(byte) = self.waiting(host) {
            let arrives = self.state.next_at.unwrap_or(now.0);
            if arrives > now.0 {
                return;
            }
            self.state.taken = self.state.taken.wrapping_add(1);
            host.serial_taken(self.port.cable(), self.state.taken);
            self.enter(Received { byte, errors: 0 }, now);
            self.state.next_at = Some(VirtualTime(arrives).after(self.character_nanos()).0);
            self.changed = true;
        }
        // The line was idle or held: the next character can come at any time.
        if self.state.next_at.is_some_and(|at| at <= now.0) {
            self.state.next_at = None;
            self.changed = true;
        }
    }

    /// A character has arrived in the receiver's shift register.
    fn enter(&mut self, character: Received, now: VirtualTime) {
        if self.state.receiver.len() >= self.receiver_room() {
            self.state.errors |= spec::LSR_OE;
            if self.fifos() {
                // The FIFO keeps what it has; the character in the shift register is lost.
                return;
            }
            self.state.receiver.clear();
        }
        if self.state.receiver.is_empty() {
            self.state.errors |= character.errors;
        }
        self.state.receiver.push_back(character);
        self.restart_timeout(now);
    }

    /// The receiver FIFO was used: the four characters' time starts again.
    fn restart_timeout(&mut self, now: VirtualTime) {
        self.state.timed_out = false;
        let waiting = self.fifos() && !self.state.receiver.is_empty();
        let wait = spec::TIMEOUT_CHARACTERS * self.character_nanos();
        self.state.timeout_at = waiting.then(|| now.after(wait).0);
    }

    fn read_data(&mut self, now: VirtualTime) -> u8 {
        let Some(character) = self.state.receiver.pop_front() else {
            self.restart_timeout(now);
            return 0;
        };
        if let Some(next) = self.state.receiver.front() {
            // Errors are shown when their character comes to the top.
            self.state.errors |= next.errors;
        }
        self.restart_timeout(now);
        character.byte
    }

    fn write_data(&mut self, byte: u8, host: &mut dyn Host) {
        if self.looped() {
            let byte = self.cut(byte);
            self.enter(Received { byte, errors: 0 }, host.now());
        } else if self.state.lcr & spec::LCR_BREAK != 0 {
            // The line is held low.
        } else if let Some(sink) = &mut self.sink {
            sink.write(byte);
        } else {
            host.serial_put(self.port.cable(), self.state.sent, byte);
            self.state.sent = self.state.sent.wrapping_add(1);
            host.serial_sent(self.port.cable(), self.state.sent);
        }
    }

    /// Cause with the highest priority, as IIR shows it.
    fn interrupt_id(&self) -> u8 {
        let State { ier, errors, ref receiver, timed_out, thre_pending, msr, .. } = self.state;
        if ier & spec::IER_ELSI != 0 && errors != 0 {
            spec::IIR_LINE_STATUS
        } else if ier & spec::IER_ERBFI != 0 && receiver.len() >= self.trigger_level() {
            spec::IIR_DATA
        } else if ier & spec::IER_ERBFI != 0 && timed_out {
            spec::IIR_TIMEOUT
        } else if ier & spec::IER_ETBEI != 0 && thre_pending {
            spec::IIR_THRE
        } else if ier & spec::IER_EDSSI != 0 && msr & spec::MSR_DELTAS != 0 {
            spec::IIR_MODEM
        } else {
            spec::IIR_NONE
        }
    }

    fn read_interrupt_id(&mut self) -> u8 {
        let id = self.interrupt_id();
        if id == spec::IIR_THRE {
            self.state.thre_pending = false;
        }
        id | if self.fifos() { spec::IIR_FIFOS } else { 0 }
    }

    fn write_fifo_control(&mut self, value: u8, now: VirtualTime) {
        let toggled = (value ^ self.state.fcr) & spec::FCR_ENABLE != 0;
        // The other bits are only programmed while bit 0 is one.
        self.state.fcr = if value & spec::FCR_ENABLE != 0 { value & spec::FCR_KEPT } else { 0 };
        if toggled || value & spec::FCR_CLEAR_RX != 0 {
            self.state.receiver.clear();
            self.restart_timeout(now);
        }
    }

    fn write_line_control(&mut self, value: u8, now: VirtualTime) {
        let break_starts = value & !self.state.lcr & spec::LCR_BREAK != 0;
        self.state.lcr = value;
        if break_starts && self.looped() {
            let errors = spec::LSR_BI | spec::LSR_FE;
            self.enter(Received { byte: 0, errors }, now);
        }
    }

    /// Levels of the modem lines as MSR shows them.
    fn modem_inputs(&self, host: &dyn Host) -> u8 {
        if !self.looped() {
            let connected = match &self.sink {
                Some(sink) => sink.connected(),
                None => host.serial_cable(self.port.cable()).connected,
            };
            return if connected { spec::MSR_CTS | spec::MSR_DSR | spec::MSR_DCD } else { 0 };
        }
        let wires = [
            (spec::MCR_RTS, spec::MSR_CTS),
            (spec::MCR_DTR, spec::MSR_DSR),
            (spec::MCR_OUT1, spec::MSR_RI),
            (spec::MCR_OUT2, spec::MSR_DCD),
        ];
        wires.iter().filter(|(out, _)| self.state.mcr & out != 0).fold(0, |msr, (_, input)| msr | input)
    }

    fn update_modem_status(&mut self, host: &dyn Host) {
        let levels = self.modem_inputs(host);
        let old = self.state.msr & !spec::MSR_DELTAS;
        // RI only counts when it goes away (trailing edge).
        let edges = (levels ^ old) & !spec::MSR_RI | old & !levels & spec::MSR_RI;
        self.state.msr = levels | self.state.msr & spec::MSR_DELTAS | edges >> spec::MSR_DELTA_SHIFT;
    }

    fn line_status(&self) -> u8 {
        let mut status = spec::LSR_THRE | spec::LSR_TEMT | self.state.errors;
        if !self.state.receiver.is_empty() {
            status |= spec::LSR_DR;
        }
        if self.fifos() && self.state.receiver.iter().any(|c| c.errors != 0) {
            status |= spec::LSR_FIFO_ERROR;
        }
        status
    }

    fn read_line_status(&mut self) -> u8 {
        let status = self.line_status();
        self.state.errors = 0;
        if let Some(top) = self.state.receiver.front_mut() {
            // It has been reported; bit 7 is about the characters behind it.
            top.errors = 0;
        }
        status
    }

    /// Whether the interrupt line is high. OUT2 gates it; in loopback OUT2's pin is inactive.
    fn interrupt_level(&self) -> bool {
        let connected = self.state.mcr & spec::MCR_OUT2 != 0 && !self.looped();
        connected && self.interrupt_id() != spec::IIR_NONE
    }

    /// Takes what has arrived, and publishes.
    fn update(&mut self, host: &mut dyn Host) {
        self.fill_receiver(host);
        self.publish(host);
    }

    /// Publishes the interrupt and the timers.
    fn publish(&mut self, host: &mut dyn Host) {
        let level = self.interrupt_level();
        if level != self.line_high {
            self.line_high = level;
            host.set_irq(self.port.irq(), level);
        }
        match self.state.timeout_at {
            Some(at) => host.arm_timer(TIMEOUT, VirtualTime(at)),
            None => host.cancel_timer(TIMEOUT),
        }
        if self.waiting(host).is_some() {
            host.arm_timer(RECEIVE, self.state.next_at.map_or(host.now(), VirtualTime));
        } else {
            host.cancel_timer(RECEIVE);
        }
    }

    /// Says again which characters the state includes, and takes over where a cable is that the state
    /// cannot be about: one that a model started cold finds.
    fn publish_cable(&mut self, host: &mut dyn Host) {
        if self.sink.is_some() {
            return;
        }
        let cable = host.serial_cable(self.port.cable());
        if self.state.taken.wrapping_sub(cable.taken) > INPUT_BYTES as u64 {
            self.state.taken = cable.taken;
        }
        if self.state.sent.wrapping_sub(cable.sent) > OUTPUT_BYTES as u64 {
            self.state.sent = cable.sent;
        }
        host.serial_taken(self.port.cable(), self.state.taken);
        host.serial_sent(self.port.cable(), self.state.sent);
    }

    /// The holding register was filled and is empty again: an interrupt that was pending goes
    /// away and comes back, which an edge-triggered controller must see.
    fn pulse_thre(&mut self, host: &mut dyn Host) {
        self.state.thre_pending = false;
        self.update(host);
        self.state.thre_pending = true;
    }
}

impl Device for Uart {
    fn name(&self) -> &'static str {
        self.port.name()
    }

    fn regions(&self) -> Vec<Region> {
        vec![
            Region::ports(PORTS, self.port.name(), self.port.base(), spec::PORT_COUNT)
                .writes(Writes::PostedLocal),
        ]
    }

    fn registers(&self) -> Vec<Register> {
        names::REGISTERS.to_vec()
    }

    fn attach(&mut self, host: &mut dyn Host) {
        self.publish_cable(host);
        // The other end may have changed while no process was there.
        self.update_modem_status(host);
        self.line_high = self.interrupt_level();
        host.set_irq(self.port.irq(), self.line_high);
        // Nothing is taken here: what attaching does happens before the state is committed.
        self.publish(host);
    }

    fn read(&mut self, at: Access, host: &mut dyn Host) -> ReadResult {
        let now = host.now();
        let idle_line_status = at.offset == spec::LSR && self.state.errors == 0;
        self.changed |= !idle_line_status;
        let value = match at.offset {
            spec::DATA if self.divisor_latch() => self.state.divisor.to_le_bytes()[0],
            spec::DATA => self.read_data(now),
            spec::IER if self.divisor_latch() => self.state.divisor.to_le_bytes()[1],
            spec::IER => self.state.ier,
            spec::IIR_FCR => self.read_interrupt_id(),
            spec::LCR => self.state.lcr,
            spec::MCR => self.state.mcr,
            spec::LSR => self.read_line_status(),
            spec::MSR => {
                let status = self.state.msr;
                self.state.msr &= !spec::MSR_DELTAS;
                status
            }
            spec::SCR => self.state.scr,
            _ => return Err(IoError::InvalidRegister),
        };
        if !idle_line_status {
            self.update(host);
        }
        Ok(value.into())
    }

    fn write(&mut self, at: Access, value: u32, host: &mut dyn Host) -> WriteResult {
        let (value, now) = (value as u8, host.now());
        self.changed = true;
        let [low, high] = self.state.divisor.to_le_bytes();
        match at.offset {
            spec::DATA if self.divisor_latch() => self.state.divisor = u16::from_le_bytes([value, high]),
            spec::DATA => {
                self.write_data(value, host);
                self.pulse_thre(host);
            }
            spec::IER if self.divisor_latch() => self.state.divisor = u16::from_le_bytes([low, value]),
            spec::IER => {
                if value & !self.state.ier & spec::IER_ETBEI != 0 {
                    // Enabling it while the register is empty, which it always is, interrupts.
                    self.state.thre_pending = true;
                }
                self.state.ier = value & spec::IER_WRITABLE;
            }
            spec::IIR_FCR => self.write_fifo_control(value, now),
            spec::LCR => self.write_line_control(value, now),
            spec::MCR => {
                self.state.mcr = value & spec::MCR_WRITABLE;
                self.update_modem_status(host);
            }
            // LSR and MSR are for reading; factory tests aside, writes do nothing.
            spec::LSR | spec::MSR => {}
            spec::SCR => self.state.scr = value,
            _ => return Err(IoError::InvalidRegister),
        }
        self.update(host);
        Ok(())
    }

    fn timer(&mut self, _timer: TimerId, _deadline: VirtualTime, host: &mut dyn Host) {
        let due = self.state.timeout_at.is_some_and(|at| host.now().0 >= at);
        if due {
            self.state.timeout_at = None;
            self.state.timed_out = true;
            self.changed = true;
        }
        self.update(host);
    }

    fn host_event(&mut self, event: &HostEvent, host: &mut dyn Host) {
        if *event == HostEvent::Serial && self.sink.is_none() {
            let before = self.state.msr;
            self.update_modem_status(host);
            self.changed |= before != self.state.msr;
            self.update(host);
        }
    }

    fn reset(&mut self, _kind: ResetKind, host: &mut dyn Host) {
        let cable = host.serial_cable(self.port.cable());
        // What is under way on the cable knows of no reset.
        self.state = State { taken: cable.taken, sent: cable.sent, ..State::new() };
        self.state.msr = self.modem_inputs(host);
        self.changed = true;
        self.attach(host);
    }

    fn save(&self, out: &mut Vec<u8>) {
        self.state.save(out);
    }

    fn state_version(&self) -> u16 {
        2
    }

    fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    fn load(&mut self, version: u16, data: &[u8]) -> Result<(), StateError> {
        if version != self.state_version() {
            return Err(StateError::Version { found: version, newest: self.state_version() });
        }
        let state: State = load_state(data)?;
        state.validate()?;
        self.state = state;
        self.changed = true;
        Ok(())
    }
}
