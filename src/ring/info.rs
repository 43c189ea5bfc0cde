//! The metadata of eight descriptors, as the loops over groups ask for it where there are no vectors.
//!
//! What always holds, here and where there are: the group was seen done and what the device wrote before that is visible, so
//! all words are read when metadata is made, whatever the caller has loaded before, but for the status words that were seen done;
//! and nothing but metadata comes of them, so that a device that writes to what is not its own any more can lie about that alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{MAX_WORDS, RxFormat};
use super::kernel::GROUP;
use crate::mem::PackedInfo;

/// Writes the metadata of the eight descriptors from `at` on, as [`RxFormat::packed`] makes it; formats have faster ways for
/// vectors, `infos_avx2` and `infos_avx512`.
///
/// # Safety
/// The words of eight descriptors from `at` on can be read, and are written by nobody but a device.
#[inline(always)]
pub(super) unsafe fn one_by_one<F: RxFormat>(at: *const u64, infos: &mut [PackedInfo; GROUP], quirks: F::Quirks) {
    // First all loads and then all arithmetic, which the compiler may do in vectors.
    let mut rows = [[0u64; MAX_WORDS]; GROUP];
    for (i, row) in rows.iter_mut().enumerate() {
        for (word, value) in row.iter_mut().enumerate().take(F::WORDS) {
            // SAFETY: one of the words (contract), which are 8 aligned bytes each; all accesses to them are atomic.
            let word = unsafe { AtomicU64::from_ptr(at.add(i * F::WORDS + word).cast_mut()) };
            *value = u64::from_le(word.load(Ordering::Relaxed));
        }
    }
    for (info, row) in infos.iter_mut().zip(&rows) {
        *info = F::packed(|word| row[word], quirks);
    }
}
