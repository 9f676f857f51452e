//! The chassis: board and panel together, as VMM and supervisor have them. What concerns both is done here.

use crate::board::{Board, attention};
use crate::clock::Freeze;
use crate::host_clock::Line;
use crate::panel::{Panel, RunState};
use crate::segment::{Segment, SegmentError, SegmentNames};

/// Board and panel of a VM. The creator removes their names when it drops it.
pub struct Chassis {
    board: Segment,
    panel: Segment,
}

impl Chassis {
    /// Creates both, for a machine with `ram_bytes` of RAM that is switched on at `start_unix_seconds`.
    ///
    /// # Errors
    /// [`SegmentError`]; nothing is left behind.
    pub fn create(
        names: &SegmentNames,
        ram_bytes: u64,
        start_unix_seconds: u64,
    ) -> Result<Self, SegmentError> {
        let board = Segment::create(&names.board(), size_of::<Board>() as u64)?;
        let panel = Segment::create(&names.panel(), size_of::<Panel>() as u64)?;
        board.view::<Board>()?.initialise();
        panel.view::<Panel>()?.initialise(ram_bytes, start_unix_seconds);
        Ok(Self { board, panel })
    }

    /// Opens both, to read and to write. For the VMM.
    ///
    /// # Errors
    /// [`SegmentError`], also when they are no board and no panel of this version.
    pub fn open(names: &SegmentNames) -> Result<Self, SegmentError> {
        let (board, panel) = (Segment::open(&names.board())?, Segment::open(&names.panel())?);
        let other = |name| SegmentError::Os { name, reason: "it is not of a VM of this version".into() };
        if !board.view::<Board>()?.is_valid() {
            return Err(other(names.board()));
        }
        if !panel.view::<Panel>()?.view().is_valid() {
            return Err(other(names.panel()));
        }
        Ok(Self { board, panel })
    }

    /// The board.
    #[inline]
    pub fn board(&self) -> &Board {
        self.board.view().unwrap_or_else(|_| unreachable!("it was large enough"))
    }

    /// The panel.
    #[inline]
    pub fn panel(&self) -> &Panel {
        self.panel.view().unwrap_or_else(|_| unreachable!("it was large enough"))
    }

    /// Tells the VM what to do, and the vCPU to look.
    pub fn set_run_state(&self, state: RunState) {
        self.panel().store_run_state(state);
        self.board().call_vcpu(attention::RUN_STATE);
    }

    /// Lets the clock go on after [`crate::clock::SharedClock::freeze`], and wakes the processes that chose how
    /// long to sleep while time stood still ([`Board::sleeps_frozen`]).
    pub fn thaw(&self, reason: Freeze) {
        self.thaw_ahead(reason, 0);
    }

    /// As [`Chassis::thaw`], but the clock goes on `nanos` ahead of where it stopped: no more than for how long it stood.
    pub fn thaw_ahead(&self, reason: Freeze, nanos: u64) {
        self.panel().clock.thaw_ahead(reason, nanos);
        self.board().wake_frozen_sleepers();
    }

    /// Changes how host time is read. For the launcher only.
    pub fn renew_clock(&self, line: Line) {
        self.panel().clock.begin_renewal(line);
        self.thaw(Freeze::Renewal);
    }
}
