//! What an operation depends on besides its operands, and what it leaves besides its result.

/// Exceptions: the bits are those of FSW, FCW and MXCSR.
pub mod exception {
    /// Invalid operation.
    pub const IE: u8 = 1 << 0;
    /// Denormal operand.
    pub const DE: u8 = 1 << 1;
    /// Division by zero.
    pub const ZE: u8 = 1 << 2;
    /// Overflow.
    pub const OE: u8 = 1 << 3;
    /// Underflow.
    pub const UE: u8 = 1 << 4;
    /// Inexact result ("precision").
    pub const PE: u8 = 1 << 5;
    /// Those found before anything is computed. An unmasked one of them keeps the others from coming up.
    pub const BEFORE: u8 = IE | DE | ZE;
    /// All of them.
    pub const ALL: u8 = 0x3f;
}

/// Rounding mode, as RC encodes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// To nearest, ties to even.
    #[default]
    Nearest,
    /// Towards minus infinity.
    Down,
    /// Towards plus infinity.
    Up,
    /// Towards zero.
    Zero,
}

impl Rounding {
    /// The mode that the two-bit field RC means; other bits do not matter.
    #[inline(always)]
    pub const fn from_rc(rc: u32) -> Self {
        match rc & 3 {
            0 => Rounding::Nearest,
            1 => Rounding::Down,
            2 => Rounding::Up,
            _ => Rounding::Zero,
        }
    }
}

/// To how many significant bits the x87 rounds results of arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits.
    #[default]
    Extended,
}

/// Modes that an operation runs under, and the exceptions that it raised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Env {
    /// Rounding mode.
    pub rounding: Rounding,
    /// Precision of x87 arithmetic; [`sse`](super::sse) does not look at it.
    pub precision: Precision,
    /// Exceptions that are not masked, see [`exception`].
    pub unmasked: u8,
    /// SSE: denormal operands count as zeros.
    pub daz: bool,
    /// SSE: tiny results become zeros if underflow is masked.
    pub ftz: bool,
    /// Exceptions raised so far: operations only add to it. Where PE is set already, and nothing is unmasked, the
    /// usual case of [`sse`](super::sse) is as quick as the host's floating point.
    pub flags: u8,
    /// x87 (C1): the last result was rounded away from zero.
    pub rounded_up: bool,
}

impl Env {
    /// Adds to the exceptions raised.
    #[inline(always)]
    pub(super) fn raise(&mut self, exceptions: u8) {
        self.flags |= exceptions;
    }

    /// Whether an exception has been raised that is not masked.
    #[inline(always)]
    pub const fn trapped(&self) -> bool {
        self.flags & self.unmasked != 0
    }
}
