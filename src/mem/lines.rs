//! Arrays on cache lines of their own, for what one thread writes per packet: no line of one is a line of anything else, nor one
//! that the CPU fetches ahead when it comes to the end of another, so threads do not take lines from each other.
//!
//! Structures that a thread writes are aligned to as much (`RxQueue`, `TxQueue`, their counters, `PoolCache`, `Burst`).
//! What always holds: `start` is the only pointer to `len` initialised values in memory of [`layout`]`(len)`.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes that threads keep from each other: two lines, because CPUs fetch them in pairs.
pub(crate) const LINE: usize = 128;

/// Bytes behind an array or a ring that nobody uses: as far as CPUs fetch ahead of whoever walks through memory (Intel's tell of
/// 20 lines), over the end of the array, and so take what lies there from the thread that writes it. Two threads on two queues of
/// one port did 1.5 times the work of one where rings lay end to end, and 2.0 times with this.
pub(crate) const AHEAD: usize = 20 * 64;

/// An array of a fixed length that fills its lines. Its values are never dropped.
pub(crate) struct Lines<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: a `Lines` owns its values as a box does, and nothing else points to them.
unsafe impl<T: Send> Send for Lines<T> {}
// SAFETY: as above; a shared borrow gives shared borrows of the values only.
unsafe impl<T: Sync> Sync for Lines<T> {}

/// Whole lines for `len` values, at least one, and those that are fetched ahead.
fn layout<T>(len: usize) -> Layout {
    let lines = Layout::array::<T>(len.max(1)).and_then(|array| array.align_to(LINE));
    let ahead = lines.and_then(|lines| lines.extend(Layout::new::<[u8; AHEAD]>()));
    ahead.expect("shorter than memory").0.pad_to_align()
}

impl<T> Lines<T> {
    /// `len` values, each as `make` makes it.
    pub(crate) fn new(len: usize, mut make: impl FnMut() -> T) -> Lines<T> {
        const { assert!(!std::mem::needs_drop::<T>()) };
        let layout = layout::<T>(len);
        // SAFETY: the layout has at least one line.
        let Some(start) = NonNull::new(unsafe { alloc(layout) }.cast::<T>()) else { handle_alloc_error(layout) };
        for i in 0..len {
            // SAFETY: there is room for `len` values, aligned to a line or more.
            unsafe { start.add(i).write(make()) };
        }
        Lines { start, len }
    }
}

impl<T> Drop for Lines<T> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the values need no drop.
        unsafe { dealloc(self.start.as_ptr().cast(), layout::<T>(self.len)) };
    }
}

impl<T> Deref for Lines<T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised values (module invariant).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Lines<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_fill_lines_of_their_own() {
        for len in [0, 1, 31, 32, 33, 512] {
            let mut number = 0;
            let mut lines = Lines::new(len, || {
                number += 1;
                number
            });
            assert_eq!(lines.as_ptr() as usize % LINE, 0);
            assert_eq!(layout::<i32>(len).size() % LINE, 0);
            assert!(layout::<i32>(len).size() >= 4 * len + AHEAD);
            assert!(lines.iter().copied().eq(1..=len as i32));
            lines.reverse();
            assert!(lines.iter().copied().eq((1..=len as i32).rev()));
        }
    }
}
