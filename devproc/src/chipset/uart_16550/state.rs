//! Saved state of a UART.

use super::spec;
use crate::device::StateError;
use crate::pack::{Many, pack, pack_fields};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A character in the receiver, with the LSR error bits that came with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Received {
    pub(super) byte: u8,
    pub(super) errors: u8,
}

/// All that a UART remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// Interrupt enable register.
    pub(super) ier: u8,
    /// FIFO control register: enable, mode and trigger level.
    pub(super) fcr: u8,
    pub(super) lcr: u8,
    pub(super) mcr: u8,
    pub(super) scr: u8,
    pub(super) divisor: u16,
    /// Error bits of the line status register that have not been read yet.
    pub(super) errors: u8,
    /// Modem status register.
    pub(super) msr: u8,
    /// Receiver buffer or FIFO.
    pub(super) receiver: VecDeque<Received>,
    /// Characters taken from the cable since the VM started.
    pub(super) taken: u64,
    /// Characters sent over the cable since the VM started.
    pub(super) sent: u64,
    /// When the next character from the cable can have arrived; `None` when at any time.
    pub(super) next_at: Option<u64>,
    /// The transmitter became empty and software has not been told.
    pub(super) thre_pending: bool,
    /// Data has waited in the receiver FIFO for four characters.
    pub(super) timed_out: bool,
    /// When it will have.
    pub(super) timeout_at: Option<u64>,
}

pack_fields!(Received { byte, errors });

impl State {
    /// Appends the state as it is saved.
    pub(super) fn save(&self, out: &mut Vec<u8>) {
        let Self { ier, fcr, lcr, mcr, scr, divisor, errors, msr, .. } = self;
        let Self { receiver, taken, sent, next_at, thre_pending, timed_out, timeout_at, .. } = self;
        pack(
            (
                (ier, fcr, lcr, mcr, scr, divisor, errors, msr),
                (Many(receiver.iter()), taken, sent, next_at, thre_pending, timed_out, timeout_at),
            ),
            out,
        );
    }

    /// After power-on or master reset.
    pub(super) fn new() -> Self {
        Self {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: spec::DIVISOR_DEFAULT,
            errors: 0,
            msr: 0,
            receiver: VecDeque::new(),
            taken: 0,
            sent: 0,
            next_at: None,
            thre_pending: false,
            timed_out: false,
            timeout_at: None,
        }
    }

    /// Checks a state that came from outside.
    pub(super) fn validate(&self) -> Result<(), StateError> {
        let kept = [
            (self.ier, spec::IER_WRITABLE),
            (self.fcr, spec::FCR_KEPT),
            (self.mcr, spec::MCR_WRITABLE),
            (self.errors, spec::LSR_ERRORS),
        ];
        if kept.iter().any(|(value, mask)| value & !mask != 0) {
            return Err(StateError::OutOfRange("UART register"));
        }
        let room = if self.fcr & spec::FCR_ENABLE != 0 { spec::FIFO_LEN } else { 1 };
        if self.receiver.len() > room {
            return Err(StateError::OutOfRange("UART queue length"));
        }
        if self.receiver.iter().any(|c| c.errors & !spec::LSR_CHARACTER_ERRORS != 0) {
            return Err(StateError::OutOfRange("UART character error"));
        }
        Ok(())
    }
}
