//! The metadata of eight descriptors at once, as the loops over groups ask for it.
//!
//! What always holds: the group was seen done and what the device wrote before that is visible, so all words are read
//! here and now, whatever the caller has loaded before; and nothing but metadata comes of them, so that a device that
//! writes to what is not its own any more can lie about that alone.

use std::sync::atomic::{AtomicU64, Ordering};

use super::format::{MAX_WORDS, RxFormat};
use super::kernel::GROUP;
use crate::mem::PackedInfo;

/// Writes the metadata of the eight descriptors from `at` on, with `AVX2` in the format's own way with vectors.
///
/// # Safety
/// The descriptors are a ring's, each a packet's last, done, and the caller's; a fence came after the loads that saw that.
/// With `AVX2` the CPU has it.
#[inline(always)]
pub(super) unsafe fn group<F: RxFormat, const AVX2: bool>(
    at: *const u64,
    infos: &mut [PackedInfo; GROUP],
    quirks: F::Quirks,
) {
    #[cfg(target_arch = "x86_64")]
    if AVX2 {
        // SAFETY: the caller's contract.
        return unsafe { F::infos_avx2(at, infos, quirks) };
    }
    // SAFETY: the caller's contract.
    unsafe { one_by_one::<F>(at, infos, quirks) }
}

/// As `group`, by [`RxFormat::packed`].
///
/// # Safety
/// The words of eight descriptors from `at` on can be read, and written by nobody but a device.
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
        *info = F::packed(row, quirks);
    }
}
