//! The cables at the serial ports, in shared memory: characters between the process with the UARTs
//! and the supervisor, which holds the sockets and terminals at the other ends.
//!
//! Positions count characters since the VM started. The device process publishes its two (taken,
//! sent) only after the state that includes them is committed, and a character stays at its position
//! until then: a successor takes and sends exactly what its predecessor had not.

#![expect(unsafe_code)] // For `unsafe impl Shared`.

use crate::doorbell::Doorbell;
use crate::segment::{Segment, SegmentError, Shared};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicU8;
use std::time::Duration;

/// Serial ports of a PC here: COM1 and COM2.
pub const PORTS: usize = 2;
/// Characters to the guest that wait in shared memory.
pub const INPUT_BYTES: usize = 4096;
/// Characters from the guest in flight: twice what one burst of it can write.
pub const OUTPUT_BYTES: usize = 128 << 10;

#[repr(C)]
struct Cable {
    /// The supervisor's: somebody is at the other end.
    connected: AtomicU32,
    reserved: AtomicU32,
    /// The supervisor's: characters put into `input`.
    received: AtomicU64,
    /// The supervisor's: characters taken out of `output`.
    delivered: AtomicU64,
    /// The device process's: characters taken out of `input`.
    taken: AtomicU64,
    /// The device process's: characters put into `output`.
    sent: AtomicU64,
    /// Of the supervisor's thread that takes output.
    bell: Doorbell,
    input: [AtomicU8; INPUT_BYTES],
    output: [AtomicU8; OUTPUT_BYTES],
}

#[repr(C)]
struct Layout {
    cables: [Cable; PORTS],
}

const _: () = assert!(size_of::<Cable>() == 128 + INPUT_BYTES + OUTPUT_BYTES);
const _: () = assert!(INPUT_BYTES.is_power_of_two() && OUTPUT_BYTES.is_power_of_two());

// SAFETY: repr(C) and atomics only; zero is valid.
unsafe impl Shared for Layout {}

/// What is under way on one cable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// Characters that the guest has taken so far.
    pub taken: u64,
    /// Characters that the guest has sent so far.
    pub sent: u64,
    /// What waits for the guest.
    pub input: Vec<u8>,
    /// The last of what the guest has sent, which nobody has taken.
    pub output: Vec<u8>,
}

/// The segment with all cables. A port outside [`PORTS`] is a cable that leads nowhere.
pub struct SerialCables {
    segment: Segment,
}

impl SerialCables {
    /// Creates the segment. Its name is the VM's: it stays when this is dropped.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn create(name: &str) -> Result<Self, SegmentError> {
        let mut segment = Segment::create(name, size_of::<Layout>() as u64)?;
        segment.keep_name();
        Ok(Self { segment })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`SegmentError`].
    pub fn open(name: &str) -> Result<Self, SegmentError> {
        let segment = Segment::open(name)?;
        segment.view::<Layout>()?;
        Ok(Self { segment })
    }

    fn cable(&self, port: usize) -> Option<&Cable> {
        self.segment.view::<Layout>().ok()?.cables.get(port)
    }

    // What the device process does.

    /// Whether somebody is at the other end.
    pub fn is_connected(&self, port: usize) -> bool {
        self.cable(port).is_some_and(|cable| cable.connected.load(Ordering::Acquire) != 0)
    }

    /// Characters taken and sent, as last published.
    pub fn positions(&self, port: usize) -> (u64, u64) {
        self.cable(port)
            .map_or((0, 0), |cable| (cable.taken.load(Ordering::Relaxed), cable.sent.load(Ordering::Relaxed)))
    }

    /// The character at position `at` of what came in, if it is there.
    pub fn peek(&self, port: usize, at: u64) -> Option<u8> {
        let cable = self.cable(port)?;
        // SYNC POINT serial input: pairs with `offer`.
        let waiting = cable.received.load(Ordering::Acquire).wrapping_sub(at);
        let there = (1..=INPUT_BYTES as u64).contains(&waiting);
        there.then(|| cable.input[at as usize % INPUT_BYTES].load(Ordering::Relaxed))
    }

    /// Publishes that the characters before `taken` are not needed any more.
    pub fn set_taken(&self, port: usize, taken: u64) {
        if let Some(cable) = self.cable(port) {
            // SYNC POINT serial room: pairs with `room`.
            cable.taken.store(taken, Ordering::Release);
        }
    }

    /// Writes the character at position `at` of what goes out; it is not sent yet. False when there is
    /// no room for it.
    #[must_use]
    pub fn put(&self, port: usize, at: u64, byte: u8) -> bool {
        let Some(cable) = self.cable(port) else { return true };
        // SYNC POINT serial room: pairs with `collect`.
        if at.wrapping_sub(cable.delivered.load(Ordering::Acquire)) >= OUTPUT_BYTES as u64 {
            return false;
        }
        cable.output[at as usize % OUTPUT_BYTES].store(byte, Ordering::Relaxed);
        true
    }

    /// Sends the characters before position `sent`.
    pub fn set_sent(&self, port: usize, sent: u64) {
        if let Some(cable) = self.cable(port) {
            // SYNC POINT serial output: pairs with `collect`.
            cable.sent.store(sent, Ordering::Release);
            cable.bell.ring();
        }
    }

    // What the supervisor does.

    /// Says whether somebody is at the other end.
    pub fn set_connected(&self, port: usize, connected: bool) {
        if let Some(cable) = self.cable(port) {
            cable.connected.store(connected.into(), Ordering::Release);
        }
    }

    /// Characters that [`SerialCables::offer`] takes now.
    pub fn room(&self, port: usize) -> usize {
        let Some(cable) = self.cable(port) else { return 0 };
        // SYNC POINT serial room: pairs with `set_taken`.
        let taken = cable.taken.load(Ordering::Acquire);
        let waiting = cable.received.load(Ordering::Relaxed).wrapping_sub(taken);
        // More than fits is what no device process says: nothing more is given to it.
        INPUT_BYTES.saturating_sub(usize::try_from(waiting).unwrap_or(INPUT_BYTES))
    }

    /// Puts characters in for the guest, as many as there is room for; returns how many.
    pub fn offer(&self, port: usize, data: &[u8]) -> usize {
        let count = data.len().min(self.room(port));
        let Some(cable) = self.cable(port) else { return 0 };
        let start = cable.received.load(Ordering::Relaxed);
        for (index, byte) in data[..count].iter().enumerate() {
            let at = start.wrapping_add(index as u64) as usize % INPUT_BYTES;
            cable.input[at].store(*byte, Ordering::Relaxed);
        }
        // SYNC POINT serial input: pairs with `peek`.
        cable.received.store(start.wrapping_add(count as u64), Ordering::Release);
        count
    }

    /// Whether [`SerialCables::collect`] would find something.
    pub fn has_output(&self, port: usize) -> bool {
        self.cable(port).is_some_and(|cable| {
            cable.sent.load(Ordering::Acquire) != cable.delivered.load(Ordering::Relaxed)
        })
    }

    /// Takes what the guest has sent; returns how many characters came.
    pub fn collect(&self, port: usize, data: &mut impl Extend<u8>) -> usize {
        let Some(cable) = self.cable(port) else { return 0 };
        let start = cable.delivered.load(Ordering::Relaxed);
        // SYNC POINT serial output: pairs with `set_sent`.
        let sent = cable.sent.load(Ordering::Acquire);
        // More than fits is what no device process says: it is skipped.
        let count = usize::try_from(sent.wrapping_sub(start)).ok().filter(|count| *count <= OUTPUT_BYTES);
        let count = count.unwrap_or(0);
        data.extend((0..count as u64).map(|index| {
            let at = start.wrapping_add(index) as usize % OUTPUT_BYTES;
            cable.output[at].load(Ordering::Relaxed)
        }));
        // SYNC POINT serial room: pairs with `put`.
        cable.delivered.store(sent, Ordering::Release);
        count
    }

    /// What is under way on the cables. Only while the device process is at rest.
    pub fn under_way(&self) -> Vec<UnderWay> {
        let one = |cable: &Cable| {
            let taken = cable.taken.load(Ordering::Relaxed);
            let sent = cable.sent.load(Ordering::Relaxed);
            let length = |from: u64, to: u64, most: usize| {
                usize::try_from(to.wrapping_sub(from)).ok().filter(|length| *length <= most).unwrap_or(0)
                    as u64
            };
            let input = length(taken, cable.received.load(Ordering::Acquire), INPUT_BYTES);
            let output = length(cable.delivered.load(Ordering::Acquire), sent, OUTPUT_BYTES);
            let bytes = |cells: &[AtomicU8], from: u64, count: u64| {
                let at = |index| from.wrapping_add(index) as usize % cells.len();
                (0..count).map(|index| cells[at(index)].load(Ordering::Relaxed)).collect()
            };
            UnderWay {
                taken,
                sent,
                input: bytes(&cable.input, taken, input),
                output: bytes(&cable.output, sent.wrapping_sub(output), output),
            }
        };
        self.segment
            .view::<Layout>()
            .map(|layout| layout.cables.iter().map(one).collect())
            .unwrap_or_default()
    }

    /// Puts the cables into a state from before. For the launcher, before anybody else looks.
    pub fn restore(&self, cables: &[UnderWay]) {
        for (port, state) in cables.iter().enumerate() {
            let Some(cable) = self.cable(port) else { continue };
            let input = &state.input[..state.input.len().min(INPUT_BYTES)];
            let output = &state.output[..state.output.len().min(OUTPUT_BYTES)];
            cable.taken.store(state.taken, Ordering::Relaxed);
            cable.received.store(state.taken, Ordering::Relaxed);
            self.offer(port, input);
            let delivered = state.sent.wrapping_sub(output.len() as u64);
            cable.delivered.store(delivered, Ordering::Relaxed);
            for (index, byte) in output.iter().enumerate() {
                let at = delivered.wrapping_add(index as u64) as usize % OUTPUT_BYTES;
                cable.output[at].store(*byte, Ordering::Relaxed);
            }
            self.set_sent(port, state.sent);
        }
    }

    /// Sleeps until there is output, somebody calls [`SerialCables::wake`], or for `timeout`, unless
    /// `news()` holds. One thread of the supervisor per port.
    pub fn sleep(&self, port: usize, timeout: Duration, mut news: impl FnMut() -> bool) {
        if let Some(cable) = self.cable(port) {
            cable.bell.sleep(Some(timeout), || news() || self.has_output(port));
        }
    }

    /// Wakes who sleeps in [`SerialCables::sleep`].
    pub fn wake(&self, port: usize) {
        if let Some(cable) = self.cable(port) {
            cable.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::SegmentNames;

    fn cables(part: &str) -> (SerialCables, SerialCables, SegmentNames) {
        let names = SegmentNames::new(&format!("serial{}{part}", std::process::id()));
        let supervisor = SerialCables::create(&names.serial()).unwrap();
        let device = SerialCables::open(&names.serial()).unwrap();
        (supervisor, device, names)
    }

    #[test]
    fn input_stays_until_it_was_taken_and_no_more_is_accepted_than_fits() {
        let (supervisor, device, names) = cables("a");
        assert_eq!(device.peek(0, 0), None);
        assert_eq!(supervisor.offer(0, b"abc"), 3);
        assert_eq!((device.peek(0, 0), device.peek(0, 2), device.peek(0, 3)), (Some(b'a'), Some(b'c'), None));
        assert_eq!(supervisor.offer(0, &[1; INPUT_BYTES]), INPUT_BYTES - 3);
        assert_eq!(supervisor.offer(0, b"x"), 0);
        device.set_taken(0, 2);
        assert_eq!(supervisor.offer(0, b"xyz"), 2);
        assert_eq!(device.peek(0, INPUT_BYTES as u64 + 1), Some(b'y'));
        assert_eq!(device.peek(1, 0), None);
        names.remove_all();
    }

    #[test]
    fn output_is_seen_when_it_was_sent_and_may_be_written_again_before() {
        let (supervisor, device, names) = cables("b");
        let mut data = Vec::new();
        assert!(device.put(1, 0, b'x'));
        assert_eq!(supervisor.collect(1, &mut data), 0);
        assert!(device.put(1, 0, b'a') && device.put(1, 1, b'b'));
        device.set_sent(1, 2);
        assert!(supervisor.has_output(1));
        assert_eq!(supervisor.collect(1, &mut data), 2);
        assert_eq!(data, b"ab");
        assert!(device.put(1, OUTPUT_BYTES as u64 + 1, 0));
        assert!(!device.put(1, OUTPUT_BYTES as u64 + 2, 0));
        names.remove_all();
    }

    #[test]
    fn what_is_under_way_can_be_put_on_other_cables() {
        let (supervisor, device, names) = cables("d");
        device.set_taken(0, OUTPUT_BYTES as u64 - 1);
        device.set_sent(0, 70);
        supervisor.collect(0, &mut Vec::new());
        supervisor.restore(&[UnderWay {
            taken: u64::MAX,
            sent: 72,
            input: b"abc".into(),
            output: b"xy".into(),
        }]);
        let state = supervisor.under_way();
        assert_eq!((state[0].input.as_slice(), state[0].output.as_slice()), (&b"abc"[..], &b"xy"[..]));
        assert_eq!(state[1], UnderWay::default());
        let (other, guest, others) = cables("e");
        other.restore(&state);
        assert_eq!(other.under_way(), state);
        assert_eq!(guest.positions(0), (u64::MAX, 72));
        assert_eq!(guest.peek(0, 0), Some(b'b'));
        let mut data = Vec::new();
        assert_eq!(other.collect(0, &mut data), 2);
        assert_eq!(data, b"xy");
        names.remove_all();
        others.remove_all();
    }

    #[test]
    fn positions_that_no_device_process_publishes_do_no_harm() {
        let (supervisor, device, names) = cables("c");
        device.set_taken(0, 77);
        assert_eq!(supervisor.offer(0, b"a"), 0);
        device.set_sent(0, u64::MAX);
        let mut data = Vec::new();
        assert_eq!(supervisor.collect(0, &mut data), 0);
        device.set_sent(0, 0);
        assert!(device.put(0, 0, b'n'));
        device.set_sent(0, 1);
        supervisor.collect(0, &mut data);
        assert!(data.len() <= 2);
        assert!(device.put(9, 0, 0) && supervisor.room(9) == 0);
        names.remove_all();
    }
}
