//! Postcard by hand, for the states that are saved after every other message: the same bytes as
//! [`save_state`](crate::device::save_state) writes, several times as fast.
//!
//! Why it is faster: everything here is inlined into the one place that packs a part of a state, so how much was
//! written is in a register. Through serde's calls it is in memory, where each byte waits for the one before.

use crate::spare::Room;
use ipc::time::VirtualTime;

/// Something that packs itself as postcard would have it.
pub(crate) trait Pack {
    /// Appends it to `room`.
    fn pack(&self, room: &mut Room<'_>);

    /// Appends an array of it.
    #[inline(always)]
    fn pack_array<const N: usize>(array: &[Self; N], room: &mut Room<'_>)
    where
        Self: Sized,
    {
        array.iter().for_each(|value| value.pack(room));
    }
}

/// Appends `value` to `out`.
#[inline(always)]
pub(crate) fn pack(value: impl Pack, out: &mut Vec<u8>) {
    if !crate::spare::write(out, |room| value.pack(room)) {
        again(value, out);
    }
}

/// Appends bytes that `fill` appends, with their number before them: what bytes of a `Vec` are. The number has room for
/// some hundred bytes; for others they are moved.
pub(crate) fn pack_sized(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    const ROOM: usize = 2;
    let start = out.len();
    out.extend_from_slice(&[0; ROOM]);
    fill(out);
    let len = out.len() - start - ROOM;
    match out.get_mut(start..start + ROOM) {
        Some(room) if (1 << 7..1 << 14).contains(&len) => {
            room.copy_from_slice(&[len as u8 | 0x80, (len >> 7) as u8]);
        }
        _ => {
            let bytes = out.split_off(start + ROOM);
            out.truncate(start);
            pack(len, out);
            out.extend(bytes);
        }
    }
}

/// With more room. It is not needed twice: buffers are kept.
#[cold]
#[inline(never)]
fn again(value: impl Pack, out: &mut Vec<u8>) {
    let mut more = 256;
    loop {
        out.reserve(more);
        if crate::spare::write(out, |room| value.pack(room)) {
            return;
        }
        more *= 2;
    }
}

impl Pack for u8 {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        room.byte(*self);
    }

    #[inline(always)]
    fn pack_array<const N: usize>(array: &[Self; N], room: &mut Room<'_>) {
        room.array(array);
    }
}

impl Pack for bool {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        room.byte(u8::from(*self));
    }
}

impl Pack for u64 {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        let mut rest = *self;
        while rest >= 0x80 {
            room.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        room.byte(rest as u8);
    }
}

macro_rules! as_u64 {
    ($($integer:ty)*) => {$(
        impl Pack for $integer {
            #[inline(always)]
            fn pack(&self, room: &mut Room<'_>) {
                (*self as u64).pack(room);
            }
        }
    )*};
}
as_u64!(u16 u32 usize);

impl Pack for VirtualTime {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        self.0.pack(room);
    }
}

impl<T: Pack + ?Sized> Pack for &T {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        (**self).pack(room);
    }
}

impl<T: Pack> Pack for Option<T> {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        match self {
            None => room.byte(0),
            Some(value) => {
                room.byte(1);
                value.pack(room);
            }
        }
    }
}

impl<T: Pack, const N: usize> Pack for [T; N] {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        T::pack_array(self, room);
    }
}

/// Any number of things, with their number before them: what a `Vec` is.
pub(crate) struct Many<I>(pub I);

impl<T: Pack, I: ExactSizeIterator<Item = T> + Clone> Pack for Many<I> {
    #[inline(always)]
    fn pack(&self, room: &mut Room<'_>) {
        self.0.len().pack(room);
        self.0.clone().for_each(|value| value.pack(room));
    }
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => {$(
        impl<$($name: Pack),*> Pack for ($($name,)*) {
            #[inline(always)]
            #[allow(non_snake_case, reason = "each is named as its type")]
            fn pack(&self, room: &mut Room<'_>) {
                let ($($name,)*) = self;
                $($name.pack(room);)*
            }
        }
    )*};
}
tuples!((A B)(A B C)(A B C D)(A B C D E)(A B C D E F)(A B C D E F G)(A B C D E F G H)(A B C D E F G H I));

/// Packs a structure: its fields in their order, all of them.
macro_rules! pack_fields {
    ($name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::pack::Pack for $name {
            #[inline(always)]
            fn pack(&self, room: &mut $crate::spare::Room<'_>) {
                let Self { $($field),* } = self;
                $($crate::pack::Pack::pack($field, room);)*
            }
        }
    };
}

/// Packs an enumeration without fields: the number of the variant, in the order of the declaration.
macro_rules! pack_variants {
    ($name:ty) => {
        impl $crate::pack::Pack for $name {
            #[inline(always)]
            fn pack(&self, room: &mut $crate::spare::Room<'_>) {
                $crate::pack::Pack::pack(&(*self as u8), room);
            }
        }
    };
}

pub(crate) use {pack_fields, pack_variants};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_packs_what_postcard_does() {
        for shift in 0..64 {
            let long = u64::MAX >> shift;
            let option = (shift % 2 == 0).then_some(long as u16);
            let value = (shift as u8, long, long as u32, option, [true, false], [long, 1]);
            let mut out = Vec::new();
            pack(value, &mut out);
            pack(([1u8, 2, 0xff], Many([300u32, 4].iter()), VirtualTime(long)), &mut out);
            let other = ([1u8, 2, 0xff], vec![300u32, 4], VirtualTime(long));
            let mut expected = postcard::to_stdvec(&value).unwrap();
            expected.extend(postcard::to_stdvec(&other).unwrap());
            assert_eq!(out, expected);
        }
        let long = [7u8; 2000];
        let mut out = vec![1];
        pack(long, &mut out);
        assert_eq!((out.len(), out[0], out[2000]), (2001, 1, 7));
    }

    #[test]
    fn bytes_have_their_number_before_them_however_many_they_are() {
        for len in [0, 1, 127, 128, 200, (1 << 14) - 1, 1 << 14, 40_000] {
            let bytes = vec![7u8; len];
            let mut out = vec![1, 2];
            pack_sized(&mut out, |out| out.extend(&bytes));
            assert_eq!(out[..2], [1, 2]);
            assert_eq!(out[2..], postcard::to_stdvec(&bytes).unwrap(), "{len} bytes");
        }
    }
}
