//! Writing into the room that a vector has already: without filling it first, and without looking at each byte
//! whether the vector must grow. It knows nothing of what is written.

#![expect(unsafe_code, reason = "bytes that were written become part of the vector")]

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use std::mem::MaybeUninit;

/// Room of a vector, of which `used` bytes from its start were written. What does not fit is only counted.
pub(crate) struct Room<'a> {
    spare: &'a mut [MaybeUninit<u8>],
    used: usize,
}

impl Room<'_> {
    /// Writes a byte.
    #[inline(always)]
    pub(crate) fn byte(&mut self, byte: u8) {
        if let Some(place) = self.spare.get_mut(self.used) {
            place.write(byte);
        }
        self.used = self.used.wrapping_add(1);
    }

    /// Writes an array.
    #[inline(always)]
    pub(crate) fn array<const N: usize>(&mut self, bytes: &[u8; N]) {
        let end = self.used.wrapping_add(N);
        if let Some(place) = self.spare.get_mut(self.used..end) {
            copy(place, bytes);
        }
        self.used = end;
    }
}

/// They have the same length.
#[inline(always)]
fn copy(places: &mut [MaybeUninit<u8>], bytes: &[u8]) {
    // SAFETY: bytes that have a value are bytes that may have one; the layout is the same. (Byte by byte, a copy of
    // 32 bytes takes many times as long.)
    let bytes = unsafe { &*(std::ptr::from_ref(bytes) as *const [MaybeUninit<u8>]) };
    places.copy_from_slice(bytes);
}

/// Has `fill` write to the room that `out` has, and appends that. If it did not fit, `out` is as before, and false.
#[inline(always)]
pub(crate) fn write(out: &mut Vec<u8>, fill: impl FnOnce(&mut Room<'_>)) -> bool {
    let mut room = Room { spare: out.spare_capacity_mut(), used: 0 };
    fill(&mut room);
    let used = room.used;
    if used > room.spare.len() {
        return false;
    }
    // SAFETY: `used` bytes of the spare capacity, from its start, were written: `Room` counts what it writes, and
    // leaves nothing out while what it has counted fits.
    unsafe { out.set_len(out.len() + used) };
    true
}

/// A [`Room`] as postcard sees it.
struct Serialized<'a, 'b>(&'a mut Room<'b>);

impl Flavor for Serialized<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.byte(byte);
        Ok(())
    }

    #[inline(always)]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if let [byte] = bytes {
            return self.try_push(*byte);
        }
        let end = self.0.used.wrapping_add(bytes.len());
        if let Some(place) = self.0.spare.get_mut(self.0.used..end) {
            copy(place, bytes);
        }
        self.0.used = end;
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends `value` (postcard) to `out` if it fits what that has room for. If not, `out` is as before, and false.
pub(crate) fn save<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> bool {
    let mut result = Ok(());
    let before = out.len();
    let fits = write(out, |room| result = postcard::serialize_with_flavor(value, Serialized(room)));
    if result.is_err() {
        out.truncate(before);
    }
    fits && result.is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_fits_is_appended_and_what_does_not_fit_is_not() {
        let mut out = Vec::with_capacity(64);
        out.push(7);
        assert!(super::save(&(1u8, "two", [3u8; 4]), &mut out));
        assert_eq!(out, [7, 1, 3, b't', b'w', b'o', 3, 3, 3, 3]);
        out.shrink_to_fit();
        let room = out.capacity() - out.len();
        let before = out.clone();
        assert!(!super::save(&vec![0u8; room + 1], &mut out));
        assert!(!super::save(serde_bytes::Bytes::new(&vec![0u8; room + 1]), &mut out));
        assert_eq!(out, before);
    }
}
