//! Exceptions as values: what an instruction returns instead of completing.

use super::registers::{dr6, vector};

/// Result of anything that can raise an exception.
pub type Exec<T = ()> = Result<T, Fault>;

/// An exception that has been raised but not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Exception number.
    pub vector: u8,
    /// What is pushed, for the vectors that push something.
    pub error_code: Option<u32>,
    /// #PF: the linear address that CR2 will show. #DB: the bits to set in DR6. Otherwise zero.
    pub payload: u32,
    /// Raised after a task switch had committed: EIP and ESP are already those of the new task
    /// and must not be restored.
    pub in_new_task: bool,
}

/// Error code bit: the exception came up while an external event was delivered.
pub const ERROR_EXTERNAL: u32 = 1;
/// Error code bit: the index is one of the IDT.
pub const ERROR_IDT: u32 = 2;

/// Page-fault error code bits.
pub mod page_fault {
    /// The page was present: a protection violation.
    pub const PROTECTION: u32 = 1 << 0;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was made with user privilege.
    pub const USER: u32 = 1 << 2;
    /// A reserved bit was set in a paging structure.
    pub const RESERVED: u32 = 1 << 3;
}

/// No exception has this number: see [`Fault::retry`].
const RETRY: u8 = u8::MAX;

/// How exceptions combine into double faults (SDM vol. 3, "Interrupt 8").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultClass {
    /// Delivered one after the other.
    Benign,
    /// Two of them make a double fault.
    Contributory,
    /// Makes a double fault with a contributory exception or another page fault.
    PageFault,
    /// One more contributory exception or page fault shuts the processor down.
    DoubleFault,
}

impl Fault {
    /// An exception without error code.
    #[cold]
    pub const fn new(vector: u8) -> Self {
        Self { vector, error_code: None, payload: 0, in_new_task: false }
    }

    /// An exception with error code.
    #[cold]
    pub const fn with_code(vector: u8, error_code: u32) -> Self {
        Self { vector, error_code: Some(error_code), payload: 0, in_new_task: false }
    }

    /// No exception: the instruction has done nothing and is to be executed again, after the engine has looked for
    /// interrupts. Nothing is delivered.
    #[cold]
    pub const fn retry() -> Self {
        Self::new(RETRY)
    }

    /// Whether this is [`Fault::retry`].
    pub const fn is_retry(&self) -> bool {
        self.vector == RETRY
    }

    /// #DE.
    pub const fn de() -> Self {
        Self::new(vector::DE)
    }

    /// #DB with the bits to set in DR6.
    pub const fn db(status: u32) -> Self {
        Self { vector: vector::DB, error_code: None, payload: status & dr6::WRITABLE, in_new_task: false }
    }

    /// #BR.
    pub const fn br() -> Self {
        Self::new(vector::BR)
    }

    /// #UD.
    pub const fn ud() -> Self {
        Self::new(vector::UD)
    }

    /// #NM.
    pub const fn nm() -> Self {
        Self::new(vector::NM)
    }

    /// #MF.
    pub const fn mf() -> Self {
        Self::new(vector::MF)
    }

    /// #XM.
    pub const fn xm() -> Self {
        Self::new(vector::XM)
    }

    /// #TS.
    pub const fn ts(code: u32) -> Self {
        Self::with_code(vector::TS, code)
    }

    /// #NP.
    pub const fn np(code: u32) -> Self {
        Self::with_code(vector::NP, code)
    }

    /// #SS.
    pub const fn ss(code: u32) -> Self {
        Self::with_code(vector::SS, code)
    }

    /// #GP.
    pub const fn gp(code: u32) -> Self {
        Self::with_code(vector::GP, code)
    }

    /// #AC; its error code is always zero.
    pub const fn ac() -> Self {
        Self::with_code(vector::AC, 0)
    }

    /// #PF at linear address `address`; `code` is made of [`page_fault`] bits.
    #[cold]
    pub const fn pf(address: u32, code: u32) -> Self {
        Self { vector: vector::PF, error_code: Some(code), payload: address, in_new_task: false }
    }

    /// The same exception with the bits `bits` added to its error code, if it has one that
    /// tells of a selector.
    pub(super) fn adding(mut self, bits: u32) -> Self {
        if matches!(self.vector, vector::TS | vector::NP | vector::SS | vector::GP) {
            self.error_code = self.error_code.map(|code| code | bits);
        }
        self
    }

    /// The same exception, raised after a task switch.
    pub(super) fn after_switch(mut self) -> Self {
        self.in_new_task = true;
        self
    }

    /// How it combines with another one.
    pub const fn class(&self) -> FaultClass {
        match self.vector {
            vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => FaultClass::Contributory,
            vector::PF => FaultClass::PageFault,
            vector::DF => FaultClass::DoubleFault,
            _ => FaultClass::Benign,
        }
    }

    /// Whether the pushed EFLAGS have RF set, so that the restarted instruction does not hit its
    /// instruction breakpoint again (SDM vol. 3, "Instruction-Breakpoint Exception Condition").
    pub(super) const fn sets_resume_flag(&self) -> bool {
        !matches!(self.vector, vector::DB | vector::NMI | vector::BP | vector::OF | vector::DF | vector::MC)
    }
}
