//! The integers that one access moves, and the only places where guest memory is touched directly.
#![expect(
    unsafe_code,
    reason = "guest memory is shared with other processes: raw pointers, never references"
)]

/// Alignment checking knows no operand that must be aligned to more bytes: instructions that want 16 raise
/// #GP by themselves.
pub const MAX_ALIGNMENT: u32 = 8;

/// An integer that one access reads or writes: `u8`, `u16`, `u32`, `u64`, or the value of a vector register.
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
    impl Sealed for super::Vector64 {}
    impl Sealed for super::Vector128 {}
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

/// Values of vector registers: bytes, lowest first. They are arrays and not integers because compilers handle arrays
/// of lanes in vector registers of the host, but take wide integers apart.
macro_rules! vector {
    ($(#[$doc:meta])* $name:ident: $integer:ty, $align:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[repr(C, align($align))]
        pub struct $name([u8; size_of::<$integer>()]);

        const _: () = assert!(align_of::<$name>() <= align_of::<$integer>());

        impl $name {
            /// The value of a register.
            #[inline(always)]
            pub fn of(register: &$integer) -> Self {
                if cfg!(target_endian = "big") {
                    return Self(register.to_le_bytes());
                }
                // SAFETY: the integer has the size and at least the alignment of `Self`, for which all bits are valid.
                unsafe { (&raw const *register).cast::<Self>().read() }
            }

            /// Sets a register.
            #[inline(always)]
            pub fn put(self, register: &mut $integer) {
                if cfg!(target_endian = "big") {
                    *register = <$integer>::from_le_bytes(self.0);
                    return;
                }
                // SAFETY: as in `of`, the other way round.
                unsafe { (&raw mut *register).cast::<Self>().write(self) }
            }
        }

        impl Word for $name {
            const SIZE: u32 = size_of::<$integer>() as u32;

            #[inline(always)]
            fn widen(self) -> u128 {
                u128::from(<$integer>::from_le_bytes(self.0))
            }

            #[inline(always)]
            fn narrow(value: u128) -> Self {
                Self((value as $integer).to_le_bytes())
            }

            #[inline(always)]
            unsafe fn load(at: *const u8) -> Self {
                // SAFETY: as for integers.
                unsafe { at.cast::<Self>().read_unaligned() }
            }

            #[inline(always)]
            unsafe fn store(self, at: *mut u8) {
                // SAFETY: as for integers.
                unsafe { at.cast::<Self>().write_unaligned(self) }
            }
        }
    };
}

vector! {
    /// The value of an MMX register.
    Vector64: u64, 8
}
vector! {
    /// The value of an XMM register.
    Vector128: u128, 16
}
