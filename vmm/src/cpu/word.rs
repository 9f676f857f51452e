//! The integers that one access moves, and the only places where guest memory is touched directly.
#![expect(
    unsafe_code,
    reason = "guest memory is shared with other processes: raw pointers, never references"
)]

/// Alignment checking knows no operand that must be aligned to more bytes: instructions that want 16 raise
/// #GP by themselves.
pub const MAX_ALIGNMENT: u32 = 8;

/// An integer that one access reads or writes: `u8`, `u16`, `u32`, `u64` or (XMM registers) `u128`.
pub trait Word: Copy + private::Sealed {
    /// Bytes it has.
    const SIZE: u32;

    /// What its address must be a multiple of when alignment is checked.
    const ALIGNMENT: u32 = if Self::SIZE < MAX_ALIGNMENT { Self::SIZE } else { MAX_ALIGNMENT };

    /// Its value, zero-extended.
    fn widen(self) -> u128;

    /// The low bits of `value`.
    fn narrow(value: u128) -> Self;

    /// Reads it, little endian.
    ///
    /// # Safety
    /// `at` must be readable for `SIZE` bytes; it need not be aligned.
    unsafe fn load(at: *const u8) -> Self;

    /// Writes it, little endian.
    ///
    /// # Safety
    /// `at` must be writable for `SIZE` bytes; it need not be aligned.
    unsafe fn store(self, at: *mut u8);
}

mod private {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for u16 {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
    impl Sealed for u128 {}
}

macro_rules! word {
    ($type:ty) => {
        impl Word for $type {
            const SIZE: u32 = size_of::<$type>() as u32;

            #[inline(always)]
            fn widen(self) -> u128 {
                u128::from(self)
            }

            #[inline(always)]
            fn narrow(value: u128) -> Self {
                value as Self
            }

            #[inline(always)]
            unsafe fn load(at: *const u8) -> Self {
                // SAFETY: the caller vouches for SIZE readable bytes; read_unaligned asks no
                // alignment. Another process may write them at the same time: it is outside this
                // program's memory model, and any value read is a valid integer.
                Self::from_le(unsafe { at.cast::<Self>().read_unaligned() })
            }

            #[inline(always)]
            unsafe fn store(self, at: *mut u8) {
                // SAFETY: as for `load`, with SIZE writable bytes. No Rust reference to guest
                // memory exists anywhere, so nothing is aliased.
                unsafe { at.cast::<Self>().write_unaligned(self.to_le()) }
            }
        }
    };
}

word!(u8);
word!(u16);
word!(u32);
word!(u64);
word!(u128);
