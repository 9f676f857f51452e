//! Exceptions as values: what an instruction returns instead of completing.

use super::registers::{dr6, vector};
use std::num::NonZeroU64;

/// Result of anything that can raise an exception.
pub type Exec<T = ()> = Result<T, Fault>;

/// An exception that has been raised but not delivered.
///
/// One word, never zero: the result of every instruction travels in a register, and "no exception" is zero.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fault(NonZeroU64);

/// Where the parts of a [`Fault`] are in its word.
mod part {
    /// What CR2 or DR6 get: 32 bits from bit 0.
    pub(super) const PAYLOAD: u64 = 0xffff_ffff;
    /// Error code: 16 bits.
    pub(super) const CODE_SHIFT: u32 = 32;
    /// Vector: 8 bits.
    pub(super) const VECTOR_SHIFT: u32 = 48;
    /// There is an error code.
    pub(super) const HAS_CODE: u64 = 1 << 56;
    /// See [`super::Fault::in_new_task`].
    pub(super) const IN_NEW_TASK: u64 = 1 << 57;
    /// See [`super::Fault::BRANCH`].
    pub(super) const BRANCH: u64 = 1 << 58;
    /// Always set.
    pub(super) const RAISED: u64 = 1 << 63;
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fault")
            .field("vector", &self.vector())
            .field("error_code", &self.error_code())
            .field("payload", &self.payload())
            .field("in_new_task", &self.in_new_task())
            .finish()
    }
}

// What handlers return fits a register.
const _: () = assert!(size_of::<Exec>() == 8);

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
    /// No exception: how a conditional jump in the middle of a block says to its engine that it is taken.
    pub const BRANCH: Self = Self::from_parts(0, part::BRANCH);

    const fn from_parts(vector: u8, rest: u64) -> Self {
        let word = part::RAISED | (vector as u64) << part::VECTOR_SHIFT | rest;
        match NonZeroU64::new(word) {
            Some(word) => Self(word),
            None => unreachable!(),
        }
    }

    /// An exception without error code.
    #[cold]
    pub const fn new(vector: u8) -> Self {
        Self::from_parts(vector, 0)
    }

    /// An exception with error code, of which 16 bits count.
    #[cold]
    pub const fn with_code(vector: u8, error_code: u32) -> Self {
        Self::from_parts(vector, part::HAS_CODE | (error_code as u64 & 0xffff) << part::CODE_SHIFT)
    }

    /// Exception number.
    pub const fn vector(self) -> u8 {
        (self.0.get() >> part::VECTOR_SHIFT) as u8
    }

    /// What is pushed, for the vectors that push something.
    pub const fn error_code(self) -> Option<u32> {
        if self.0.get() & part::HAS_CODE == 0 {
            return None;
        }
        Some((self.0.get() >> part::CODE_SHIFT) as u32 & 0xffff)
    }

    /// #PF: the linear address that CR2 will show. #DB: the bits to set in DR6. Otherwise zero.
    pub const fn payload(self) -> u32 {
        (self.0.get() & part::PAYLOAD) as u32
    }

    /// Raised after a task switch had committed: EIP and ESP are already those of the new task
    /// and must not be restored.
    pub const fn in_new_task(self) -> bool {
        self.0.get() & part::IN_NEW_TASK != 0
    }

    /// No exception: the instruction has done nothing and is to be executed again, after the engine has looked for
    /// interrupts. Nothing is delivered.
    #[cold]
    pub const fn retry() -> Self {
        Self::new(RETRY)
    }

    /// Whether this is [`Fault::retry`].
    pub const fn is_retry(&self) -> bool {
        self.vector() == RETRY
    }

    /// #DE.
    pub const fn de() -> Self {
        Self::new(vector::DE)
    }

    /// #DB with the bits to set in DR6.
    pub const fn db(status: u32) -> Self {
        Self::from_parts(vector::DB, (status & dr6::WRITABLE) as u64)
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
        let code = part::HAS_CODE | (code as u64 & 0xffff) << part::CODE_SHIFT;
        Self::from_parts(vector::PF, code | address as u64)
    }

    /// The same exception with the bits `bits` added to its error code, if it has one that
    /// tells of a selector.
    pub(super) fn adding(self, bits: u32) -> Self {
        let of_selector = matches!(self.vector(), vector::TS | vector::NP | vector::SS | vector::GP);
        match self.error_code() {
            Some(_) if of_selector => Self(self.0 | (u64::from(bits) & 0xffff) << part::CODE_SHIFT),
            _ => self,
        }
    }

    /// The same exception, raised after a task switch.
    pub(super) fn after_switch(self) -> Self {
        Self(self.0 | part::IN_NEW_TASK)
    }

    /// How it combines with another one.
    pub const fn class(&self) -> FaultClass {
        match self.vector() {
            vector::DE | vector::TS | vector::NP | vector::SS | vector::GP => FaultClass::Contributory,
            vector::PF => FaultClass::PageFault,
            vector::DF => FaultClass::DoubleFault,
            _ => FaultClass::Benign,
        }
    }

    /// Whether the pushed EFLAGS have RF set, so that the restarted instruction does not hit its
    /// instruction breakpoint again (SDM vol. 3, "Instruction-Breakpoint Exception Condition").
    pub(super) const fn sets_resume_flag(&self) -> bool {
        !matches!(self.vector(), vector::DB | vector::NMI | vector::BP | vector::OF | vector::DF | vector::MC)
    }
}
