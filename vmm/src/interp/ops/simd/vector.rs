//! Values of MMX and XMM registers as vectors of lanes, lane 0 lowest. One implementation of an operation serves
//! both: it is generic over [`Vector`].
#![expect(unsafe_code, reason = "bytes of a vector are read as lanes of every width")]

use crate::cpu::word::{Vector64, Vector128, Word};
use std::mem::transmute;

/// A value that is also an array of lanes of type `T`.
pub trait Lanes<T>: Copy {
    /// The array.
    type Array: Copy + AsRef<[T]> + AsMut<[T]>;

    /// Takes it apart.
    fn split(self) -> Self::Array;

    /// Puts it together.
    fn join(lanes: Self::Array) -> Self;
}

/// The value of an MMX or XMM register.
pub trait Vector: Word + Lanes<u8> + Lanes<u16> + Lanes<u32> + Lanes<u64> + Default + 'static {}

macro_rules! lanes {
    ($vector:ty, $lane:ty) => {
        impl Lanes<$lane> for $vector {
            type Array = [$lane; size_of::<$vector>() / size_of::<$lane>()];

            #[inline(always)]
            fn split(self) -> Self::Array {
                // SAFETY: both are as many bytes, and all bits are valid in either.
                let lanes = unsafe { transmute::<$vector, Self::Array>(self) };
                if cfg!(target_endian = "big") { lanes.map(<$lane>::from_le) } else { lanes }
            }

            #[inline(always)]
            fn join(lanes: Self::Array) -> Self {
                let lanes = if cfg!(target_endian = "big") { lanes.map(<$lane>::to_le) } else { lanes };
                // SAFETY: as in `split`.
                unsafe { transmute::<Self::Array, $vector>(lanes) }
            }
        }
    };
}

macro_rules! vector {
    ($vector:ty) => {
        lanes!($vector, u8);
        lanes!($vector, u16);
        lanes!($vector, u32);
        lanes!($vector, u64);
        impl Vector for $vector {}
    };
}

vector!(Vector64);
vector!(Vector128);

/// The lanes of type `T`.
#[inline(always)]
pub fn split<T, V: Lanes<T>>(vector: V) -> <V as Lanes<T>>::Array {
    vector.split()
}

/// Applies `f` to each lane.
#[inline(always)]
pub fn map<T: Copy, V: Lanes<T>>(a: V, f: impl Fn(T) -> T) -> V {
    let mut lanes = a.split();
    for lane in lanes.as_mut() {
        *lane = f(*lane);
    }
    V::join(lanes)
}

/// Applies `f` to each pair of lanes.
#[inline(always)]
pub fn zip<T: Copy, V: Lanes<T>>(a: V, b: V, f: impl Fn(T, T) -> T) -> V {
    let (mut a, b) = (a.split(), b.split());
    for (a, b) in a.as_mut().iter_mut().zip(b.as_ref()) {
        *a = f(*a, *b);
    }
    V::join(a)
}

/// A vector whose lane n is `f(n)`.
#[inline(always)]
pub fn build<T, V: Lanes<T> + Default>(f: impl Fn(usize) -> T) -> V {
    let mut lanes = V::default().split();
    for (n, lane) in lanes.as_mut().iter_mut().enumerate() {
        *lane = f(n);
    }
    V::join(lanes)
}

/// Lane n, counted modulo their number (a power of two).
#[inline(always)]
pub fn lane<T: Copy + Default, A: AsRef<[T]>>(lanes: &A, n: usize) -> T {
    let lanes = lanes.as_ref();
    lanes.get(n & (lanes.len() - 1)).copied().unwrap_or_default()
}
