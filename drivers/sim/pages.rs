//! Pages of a BAR that are plain memory: the model reads from them what the threads of queues wrote.
//!
//! In one process a page is an allocation of its own. A served model has its pages in a file that is as long as the BAR,
//! which the client maps. What always holds: the words of a page are accessed by atomics only, and its memory lives as
//! long as the page.

use std::array;
use std::ptr::NonNull;
#[cfg(feature = "vfio-user")]
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

#[cfg(feature = "vfio-user")]
use memmap2::MmapRaw;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

type Words = [AtomicU32; PAGE / 4];

/// A page of a BAR.
pub(super) struct Page {
    words: NonNull<Words>,
    memory: Memory,
}

/// What keeps the words.
enum Memory {
    /// `words` came from a box.
    Own,
    #[cfg(feature = "vfio-user")]
    /// `words` lies in this map.
    Shared { _bar: Arc<MmapRaw> },
}

// SAFETY: the words are atomics, which any thread may access by reference, in memory that belongs to the process and not
// to a thread; a page may be dropped by any.
unsafe impl Send for Page {}
// SAFETY: as above; `words` never changes.
unsafe impl Sync for Page {}

impl Page {
    /// A page of zeroes.
    pub(super) fn new() -> Page {
        let words: Box<Words> = Box::new(array::from_fn(|_| AtomicU32::new(0)));
        Page { words: NonNull::from(Box::leak(words)), memory: Memory::Own }
    }

    /// The page at `offset` of a BAR that is shared; none when the map has no whole page there.
    #[cfg(feature = "vfio-user")]
    pub(super) fn within(bar: &Arc<MmapRaw>, offset: usize) -> Option<Page> {
        let inside = offset.is_multiple_of(PAGE) && offset.checked_add(PAGE).is_some_and(|end| end <= bar.len());
        // SAFETY: the offset lies inside the map.
        let at = inside.then(|| unsafe { bar.as_mut_ptr().add(offset) })?;
        Some(Page { words: NonNull::new(at.cast())?, memory: Memory::Shared { _bar: Arc::clone(bar) } })
    }

    /// The register at a byte offset of the page.
    #[inline]
    pub(super) fn at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `words` is aligned (an allocation of that type, or a page of a map) and in bounds, and `memory` keeps it
        // for as long as this borrow of the page. Another process may store to it, as to any atomic.
        let words = unsafe { self.words.as_ref() };
        &words[offset / 4]
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        match self.memory {
            // SAFETY: `new` leaked this box into `words`, and nobody else has it.
            Memory::Own => drop(unsafe { Box::from_raw(self.words.as_ptr()) }),
            #[cfg(feature = "vfio-user")]
            Memory::Shared { .. } => {}
        }
    }
}

#[cfg(all(test, feature = "vfio-user"))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn pages_of_one_bar_are_its_memory() {
        let bar: Arc<MmapRaw> = Arc::new(memmap2::MmapOptions::new().len(3 * PAGE).map_anon().unwrap().into());
        let (first, last) = (Page::within(&bar, 0).unwrap(), Page::within(&bar, 2 * PAGE).unwrap());
        last.at(PAGE - 4).store(7, Relaxed);
        assert_eq!(Page::within(&bar, 2 * PAGE).unwrap().at(PAGE - 4).load(Relaxed), 7);
        assert_eq!(first.at(PAGE - 4).load(Relaxed), 0);
        for offset in [4, 3 * PAGE, usize::MAX - PAGE + 1] {
            assert!(Page::within(&bar, offset).is_none());
        }
        assert_eq!(Page::new().at(4).load(Relaxed), 0);
    }
}
