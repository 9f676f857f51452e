//! Which linear pages a cache of translations knows, so that it can forget those that a flush makes void in no more time than
//! there are such pages.
//!
//! This module knows nothing of what is cached.

use super::direct::Flush;

/// Linear address bits of a 4 MiB page that lie above its offset, and how far they are shifted.
const LARGE_MASK: u32 = 0xffc0_0000;
const LARGE_SHIFT: u32 = LARGE_MASK.trailing_zeros();
/// Large pages there can be.
const REGIONS: usize = 1 << (32 - LARGE_SHIFT);
/// Pages below which no list is looked through for those that it has twice.
const SMALL: usize = 1024;

/// A page.
#[derive(Clone, Copy, Debug)]
pub struct Known<T> {
    /// Its linear address.
    pub page: u32,
    /// It is part of a large one.
    pub large: bool,
    /// What the cache wants to know besides.
    pub extra: T,
}

/// Pages that die together, the latest last. Some are there no more, and some are twice.
struct List<T> {
    pages: Vec<Known<T>>,
    limit: usize,
}

impl<T: Copy> List<T> {
    const fn new() -> Self {
        Self { pages: Vec::new(), limit: SMALL }
    }

    fn add(&mut self, known: Known<T>) {
        if self.pages.len() >= self.limit {
            // The latest of each page remains.
            self.pages.reverse();
            self.pages.sort_by_key(|known| known.page);
            self.pages.dedup_by_key(|known| known.page);
            self.limit = SMALL.max(2 * self.pages.len());
        }
        self.pages.push(known);
    }
}

/// See the module's description.
pub struct KnownPages<T> {
    local: List<T>,
    global: List<T>,
    /// Whether a page of the large page was known since the last flush of all.
    large: Box<[bool; REGIONS]>,
    has_large: bool,
}

impl<T: Copy> Default for KnownPages<T> {
    fn default() -> Self {
        Self { local: List::new(), global: List::new(), large: Box::new([false; REGIONS]), has_large: false }
    }
}

impl<T: Copy> KnownPages<T> {
    /// A page that was not known.
    pub fn add(&mut self, global: bool, known: Known<T>) {
        if known.large {
            self.has_large = true;
            self.large[(known.page >> LARGE_SHIFT) as usize] = true;
        }
        if global { self.global.add(known) } else { self.local.add(known) }
    }

    /// All pages; some may have been forgotten since, and some come twice.
    pub fn iter(&self) -> impl Iterator<Item = &Known<T>> {
        self.local.pages.iter().chain(&self.global.pages)
    }

    /// Has `forget` called for every page that a flush makes void, and for some that are not known.
    pub fn flush(&mut self, flush: Flush, mut forget: impl FnMut(u32)) {
        match flush {
            Flush::All => {
                self.iter().for_each(|known| forget(known.page));
                self.local.pages.clear();
                self.global.pages.clear();
                if std::mem::take(&mut self.has_large) {
                    self.large.fill(false);
                }
            }
            Flush::Local => self.local.pages.drain(..).for_each(|known| forget(known.page)),
            Flush::Page(linear) => {
                forget(linear);
                if self.large[(linear >> LARGE_SHIFT) as usize] {
                    let same = |known: &Known<T>| known.large && (known.page ^ linear) & LARGE_MASK == 0;
                    for list in [&mut self.local, &mut self.global] {
                        list.pages.retain(|known| {
                            if same(known) {
                                forget(known.page);
                            }
                            !same(known)
                        });
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(page: u32, large: bool) -> Known<()> {
        Known { page, large, extra: () }
    }

    fn flushed(pages: &mut KnownPages<()>, flush: Flush) -> Vec<u32> {
        let mut forgotten = Vec::new();
        pages.flush(flush, |page| forgotten.push(page));
        forgotten.sort_unstable();
        forgotten
    }

    #[test]
    fn a_local_flush_forgets_local_pages_only() {
        let mut pages = KnownPages::default();
        pages.add(false, known(0x1000, false));
        pages.add(true, known(0x2000, false));
        assert_eq!(flushed(&mut pages, Flush::Local), [0x1000]);
        assert_eq!(flushed(&mut pages, Flush::Local), []);
        assert_eq!(flushed(&mut pages, Flush::All), [0x2000]);
        assert_eq!(flushed(&mut pages, Flush::All), []);
    }

    #[test]
    fn a_page_takes_its_large_page_with_it() {
        let mut pages = KnownPages::default();
        pages.add(true, known(0xc000_1000, true));
        pages.add(true, known(0xc000_2000, true));
        pages.add(true, known(0xc040_0000, true));
        pages.add(false, known(0x1000, false));
        assert_eq!(flushed(&mut pages, Flush::Page(0x1000)), [0x1000]);
        let forgotten = flushed(&mut pages, Flush::Page(0xc000_5000));
        assert_eq!(forgotten, [0xc000_1000, 0xc000_2000, 0xc000_5000]);
        assert!(flushed(&mut pages, Flush::All).contains(&0xc040_0000));
    }

    #[test]
    fn a_page_that_comes_and_goes_takes_no_more_room() {
        let mut pages = KnownPages::default();
        for n in 0..100_000 {
            pages.add(true, Known { page: (n % 3) << 12, large: false, extra: n });
        }
        assert!(pages.iter().count() <= 2 * SMALL);
        assert!(pages.iter().any(|known| known.extra == 99_999), "the latest is there");
    }
}
