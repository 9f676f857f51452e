//! Values of MMX and XMM registers as vectors of lanes, lane 0 lowest. One implementation of an operation serves
//! both: it is generic over [`Vector`].

/// A value that is also an array of lanes of type `T`.
pub trait Lanes<T>: Copy {
    /// The array.
    type Array: Copy + AsRef<[T]> + AsMut<[T]>;

    /// Takes it apart.
    fn split(self) -> Self::Array;

    /// Puts it together.
    fn join(lanes: Self::Array) -> Self;
}

/// The value of an MMX register (`u64`) or of an XMM register (`u128`).
pub trait Vector: Lanes<u8> + Lanes<u16> + Lanes<u32> + Lanes<u64> + Default + 'static {
    /// Bits it has.
    const BITS: u32;

    /// Zero-extended.
    fn widen(self) -> u128;

    /// The low bits of `value`.
    fn narrow(value: u128) -> Self;
}

macro_rules! lanes {
    ($vector:ty, $lane:ty) => {
        impl Lanes<$lane> for $vector {
            type Array = [$lane; size_of::<$vector>() / size_of::<$lane>()];

            #[inline(always)]
            fn split(self) -> Self::Array {
                let bytes = self.to_le_bytes();
                let (lanes, _) = bytes.as_chunks();
                std::array::from_fn(|n| lanes.get(n).map_or(0, |lane| <$lane>::from_le_bytes(*lane)))
            }

            #[inline(always)]
            fn join(lanes: Self::Array) -> Self {
                let mut bytes = [0; size_of::<$vector>()];
                for (to, lane) in bytes.as_chunks_mut().0.iter_mut().zip(lanes) {
                    *to = lane.to_le_bytes();
                }
                <$vector>::from_le_bytes(bytes)
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

        impl Vector for $vector {
            const BITS: u32 = <$vector>::BITS;

            #[inline(always)]
            fn widen(self) -> u128 {
                u128::from(self)
            }

            #[inline(always)]
            fn narrow(value: u128) -> Self {
                value as Self
            }
        }
    };
}

vector!(u64);
vector!(u128);

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
