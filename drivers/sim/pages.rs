//! Pages of a BAR that are plain memory: the model reads from them what the threads of queues wrote.
//!
//! In one process a page is an allocation of its own, where words that are neighbours in the BAR lie on lines of their own:
//! tails of several queues share a line of a BAR and no cache ever holds it, but this is memory, and threads would take it from
//! each other. A served model has its pages in a file that is as long as the BAR, which the client maps. What always holds: the words of a page are accessed by atomics only, and its memory lives as
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

#[repr(align(4096))]
struct Words([AtomicU32; PAGE / 4]);

/// Lines of a page, of as many words each: 128 bytes, because CPUs fetch lines in pairs.
const LINES: usize = 32;
const _: () = assert!(LINES * LINES * 4 == PAGE);

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
        let words: Box<Words> = Box::new(Words(array::from_fn(|_| AtomicU32::new(0))));
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
        let word = offset / 4;
        &words.0[match self.memory {
            Memory::Own => word % LINES * LINES + word / LINES,
            #[cfg(feature = "vfio-user")]
            Memory::Shared { .. } => word,
        }]
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    #[cfg(feature = "vfio-user")]
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn neighbours_in_a_page_of_our_own_share_no_line_and_no_word() {
        let page = Page::new();
        let place = |offset| (page.at(offset) as *const AtomicU32).addr();
        let lines: BTreeSet<usize> = (0..LINES).map(|word| place(4 * word) / 128).collect();
        assert_eq!(lines.len(), LINES);
        let words: BTreeSet<usize> = (0..PAGE).step_by(4).map(place).collect();
        assert_eq!(words.len(), PAGE / 4);
        assert_eq!(words.last().unwrap() - words.first().unwrap(), PAGE - 4);
    }

    #[cfg(feature = "vfio-user")]
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
