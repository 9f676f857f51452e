//! [`Host`] over shared memory: what a model sees during one call.
//!
//! Reads look at the board and at effects of the same call; writes are held back as
//! [`Effect`]s. Guest RAM and device memory are written at once: they outlive the process, and
//! repeating such a write from the same state writes the same.

use super::effects::{Effect, unpack_channel};
use super::machine::Shared;
use crate::device::{CounterId, MirrorSlot, Region, RegionId, TimerId};
use crate::host::{
    A20Source, DmaChannel, DmaDirection, DmaError, DmaOutcome, Host, IntxPin, IrqLines, ResetRequest,
    SerialCable,
};
use crate::isa_dma;
use ipc::counter::{Counting, Latch};
use ipc::mirror::Mirrored;
use ipc::raster::Raster;
use ipc::sync::Ordering;
use ipc::time::VirtualTime;

const PAGE: u64 = 4096;
/// A bus that nobody drives.
const FLOATING: u8 = 0xff;

/// The machine as one model sees it during one call.
pub struct ModelHost<'a> {
    /// What all models of the process share.
    pub shared: &'a mut Shared,
    /// The model's number in its process.
    pub model: usize,
    /// Virtual time of the call.
    pub now: VirtualTime,
}

impl ModelHost<'_> {
    fn push(&mut self, effect: Effect) {
        self.shared.effects.push(effect);
    }

    /// Whether this model may do DMA there: not all that the process has is for each of its models.
    fn may_reach(&self, address: u64, len: usize) -> Result<(), DmaError> {
        let end = self.shared.dma_end[self.model];
        let inside = address.checked_add(len as u64).is_some_and(|last| last <= end);
        if inside { Ok(()) } else { Err(self.refused(address, len)) }
    }

    /// Counts a DMA transfer that cannot be, and says so now and then.
    #[cold]
    fn refused(&self, address: u64, len: usize) -> DmaError {
        let cell = &self.shared.layout().models[self.model];
        let count = cell.dma_refused.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let error = DmaError { address, len: len as u64 };
        if count.is_power_of_two() {
            tracing::warn!(
                "{error} ({count} so far): nobody answers ('dma' in the machine file, Device::dma)"
            );
        }
        error
    }

    /// As `push`, in place of an earlier effect that `is_older` names.
    fn replace(&mut self, effect: Effect, is_older: impl Fn(&Effect) -> bool) {
        match self.shared.effects.iter_mut().find(|older| is_older(older)) {
            Some(older) => *older = effect,
            None => self.push(effect),
        }
    }
}

impl Host for ModelHost<'_> {
    fn now(&self) -> VirtualTime {
        self.now
    }

    fn arm_timer(&mut self, timer: TimerId, deadline: VirtualTime) {
        self.shared.timers.arm(self.model, timer, deadline);
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        self.shared.timers.cancel(self.model, timer);
    }

    fn set_irq(&mut self, irq: u8, level: bool) {
        self.push(Effect::Irq(irq, level));
    }

    fn set_intx(&mut self, pin: IntxPin, level: bool) {
        self.push(Effect::Intx(pin, level));
    }

    fn dma_read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), DmaError> {
        self.may_reach(address, buffer.len())?;
        if !self.shared.ram.read(address, buffer) {
            return Err(self.refused(address, buffer.len()));
        }
        let arrives = self.shared.dma_arrives(buffer.len());
        buffer[arrives..].fill(FLOATING);
        Ok(())
    }

    fn dma_write(&mut self, address: u64, data: &[u8]) -> Result<(), DmaError> {
        self.may_reach(address, data.len())?;
        if !self.shared.ram.reaches(address, data.len()) {
            return Err(self.refused(address, data.len()));
        }
        let data = &data[..self.shared.dma_arrives(data.len())];
        if !self.shared.ram.write(address, data) {
            return Err(self.refused(address, data.len()));
        }
        // The bytes are in RAM before the marks are read (SYNC POINT code, `Board::set_code`).
        std::sync::atomic::fence(Ordering::SeqCst);
        let end = address.saturating_add(data.len() as u64);
        let mut page = address & !(PAGE - 1);
        while page < end {
            if self.shared.panel().holds_code(page) {
                let from = address.max(page);
                let to = end.min(page + PAGE);
                self.push(Effect::CodeWritten(from, to - from));
            }
            page += PAGE;
        }
        Ok(())
    }

    fn isa_dma(&mut self, channel: u8, direction: DmaDirection, buffer: &mut [u8]) -> DmaOutcome {
        isa_dma::transfer(self, channel, direction, buffer)
    }

    fn set_dreq(&mut self, channel: u8, level: bool) {
        self.push(Effect::Dreq(channel, level));
    }

    fn device_memory(&mut self) -> &mut [u8] {
        self.shared.device_memory(self.model)
    }

    fn update_region(&mut self, region: Region) {
        if self.shared.replace_region(self.model, region) {
            self.push(Effect::Regions);
        }
    }

    fn publish_mirror(&mut self, slot: MirrorSlot, value: u32) {
        self.push(Effect::Mirror(slot, Mirrored::always(value as u8)));
    }

    fn publish_timed(&mut self, slot: MirrorSlot, content: Mirrored) {
        self.push(Effect::Mirror(slot, content));
    }

    fn publish_raster(&mut self, raster: Option<Raster>) {
        self.push(Effect::Raster(raster));
    }

    fn publish_latch(&mut self, latch: u32) {
        self.push(Effect::Latch(latch));
    }

    fn publish_counter(&mut self, counter: CounterId, counting: Option<Counting>, latch: Latch) {
        self.push(Effect::Counter(counter, counting, latch));
    }

    fn complete_deferred(&mut self, value: u32) {
        self.push(Effect::Deferred(value));
    }

    fn set_a20(&mut self, source: A20Source, enabled: bool) {
        self.push(Effect::A20(source, enabled));
    }

    fn request_reset(&mut self, reset: ResetRequest) {
        self.push(Effect::Reset(reset));
    }

    fn power_off(&mut self) {
        self.push(Effect::PowerOff);
    }

    fn debug_text(&mut self, byte: u8) {
        self.push(Effect::DebugText(byte));
    }

    fn serial_cable(&self, port: u8) -> SerialCable {
        self.shared.serial.as_ref().map_or_else(SerialCable::default, |cables| {
            let (taken, sent) = cables.positions(port.into());
            SerialCable { connected: cables.is_connected(port.into()), taken, sent }
        })
    }

    fn serial_peek(&self, port: u8, at: u64) -> Option<u8> {
        self.shared.serial.as_ref()?.peek(port.into(), at)
    }

    fn serial_taken(&mut self, port: u8, taken: u64) {
        let effect = Effect::SerialTaken(port, taken);
        self.replace(effect, |e| matches!(e, Effect::SerialTaken(p, _) if *p == port));
    }

    fn serial_put(&mut self, port: u8, at: u64, byte: u8) {
        self.shared.put_serial(port, at, byte);
    }

    fn serial_sent(&mut self, port: u8, sent: u64) {
        let effect = Effect::SerialSent(port, sent);
        self.replace(effect, |e| matches!(e, Effect::SerialSent(p, _) if *p == port));
    }

    fn irq_lines(&self) -> IrqLines {
        let lines = &self.shared.board().lines;
        let (isa_levels, isa_edges) = lines.isa();
        IrqLines { isa_levels, isa_edges, pirq_levels: lines.levels().1 }
    }

    fn set_interrupt_request(&mut self, vector: Option<u8>) {
        self.push(Effect::Interrupt(vector));
    }

    fn dma_channel(&self, channel: u8) -> DmaChannel {
        let mine = self.shared.effects.iter().rev().find_map(|effect| match effect {
            Effect::Dma(number, state) if *number == channel => Some(*state),
            _ => None,
        });
        mine.unwrap_or_else(|| {
            let (words, request) = self.shared.board().dma_channel(channel);
            unpack_channel(words, request)
        })
    }

    fn set_dma_channel(&mut self, channel: u8, state: DmaChannel) {
        self.push(Effect::Dma(channel, state));
    }

    fn set_shadow_ram(&mut self, base: u32, len: u32, read_ram: bool, write_ram: bool) {
        self.push(Effect::Shadow { base, len, read: read_ram, write: write_ram });
    }

    fn region(&self, id: RegionId) -> Option<Region> {
        self.shared.region(self.model, id)
    }
}
