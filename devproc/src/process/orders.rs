//! What the supervisor wants of a device process, passed from the thread that listens to it to the main loop.

use ipc::board::Board;
use ipc::segment::Segment;
use ipc::sync::Ordering;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What the supervisor wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Work.
    Serve,
    /// Commit the states in these versions (0: the model's own) and do nothing more.
    HandOver(Vec<u16>),
    /// Begin, in the place of the process that has handed over.
    TakeOver,
    /// Work again after a hand-over that failed; the other build may have gone on from the states.
    GoOn {
        /// It has: go on from what is committed now.
        reload: bool,
    },
    /// End.
    End,
}

/// The order in force.
#[derive(Clone)]
pub struct Orders {
    shared: Arc<Shared>,
    board: Arc<Segment>,
    slot: usize,
}

struct Shared {
    /// Looked at by the main loop all the time: the order is not [`Order::Serve`].
    new: AtomicBool,
    /// The process is to end once nothing is left to do.
    stop: AtomicBool,
    order: Mutex<Order>,
    changed: Condvar,
}

impl Orders {
    /// For the process in `slot`.
    pub fn new(board: Arc<Segment>, slot: usize) -> Self {
        let shared = Shared {
            new: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            order: Mutex::new(Order::Serve),
            changed: Condvar::new(),
        };
        Self { shared: Arc::new(shared), board, slot }
    }

    /// Gives an order, and wakes the main loop.
    pub fn give(&self, order: Order) {
        if order == Order::End {
            self.shared.stop.store(true, Ordering::Release);
        }
        *self.lock() = order;
        self.shared.new.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        if let Ok(board) = self.board.view::<Board>() {
            board.doorbell(self.slot).ring();
        }
    }

    /// Whether the process is to end once nothing is left to do.
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    /// Whether there is an order to be looked at.
    #[inline]
    pub fn is_new(&self) -> bool {
        self.shared.new.load(Ordering::Acquire)
    }

    /// The versions in which states are to be handed over, if that is the order. Any other one needs no
    /// more than to be seen.
    pub fn hand_over(&self) -> Option<Vec<u16>> {
        let order = self.lock();
        self.shared.new.store(false, Ordering::Relaxed);
        match &*order {
            Order::HandOver(versions) => Some(versions.clone()),
            _ => None,
        }
    }

    /// Waits until the order is another one than [`Order::HandOver`] and [`Order::Serve`], and takes it.
    pub fn wait(&self) -> Order {
        let waits = |order: &mut Order| matches!(order, Order::HandOver(_) | Order::Serve);
        let woken = self.shared.changed.wait_while(self.lock(), waits);
        let mut order = woken.unwrap_or_else(PoisonError::into_inner);
        self.shared.new.store(false, Ordering::Relaxed);
        std::mem::replace(&mut *order, Order::Serve)
    }

    fn lock(&self) -> MutexGuard<'_, Order> {
        self.shared.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
