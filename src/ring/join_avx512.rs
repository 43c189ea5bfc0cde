//! The loops of `join` for CPUs with AVX-512: eight frames to a vector.
//!
//! What the modules `avx512` and `avx2` say of loads, stores and orders of lanes holds here.

use std::arch::x86_64::{__m256i, _mm256_loadu_si256};

use super::avx512::{self, Found, Places, lanes, second_words, splat, store_eight, store_numbers};
use super::format::{RxFormat, TxFormat};
use super::join::{self, ArmRun, JoinRun, JoinShape};
use super::kernel::{Buffers, GROUP, TX_WORDS};

/// As [`join::take`], from frame 0 on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn take<F: RxFormat, G: TxFormat, const INFO: bool>(
    run: &JoinRun,
    shape: &JoinShape,
    quirks: F::Quirks,
) -> usize {
    let (least, span) = (splat(u64::from(shape.least) << 32), splat(u64::from(shape.span) << 32));
    // SAFETY: the receive ring has the groups that this is asked of.
    let look = |at: usize| unsafe { Found::look::<F>(run.from.at(at * F::WORDS), least, span) };
    let end = run.count / GROUP * GROUP;
    let mut at = 0;
    while at < end {
        let found = look(at);
        if !found.is_whole() {
            break;
        }
        // SAFETY: the group is the run's, whole, good and done.
        unsafe { write::<F, G, INFO, true>(run, at, GROUP, &found, shape, quirks) };
        at += GROUP;
    }
    if at == run.count {
        return at;
    }
    // Groups are looked at whole.
    if at + GROUP > run.to_end {
        // SAFETY: the caller's contract.
        return unsafe { rest::<F, G, INFO>(run, at, shape, quirks) };
    }
    let found = look(at);
    let count = found.count(run.count - at);
    // SAFETY: as above, for the first `count`, which are no more than are left.
    unsafe { write::<F, G, INFO, false>(run, at, count, &found, shape, quirks) };
    at + count
}

/// As [`join::take`], at the end of the receive ring.
///
/// # Safety
/// As there.
#[inline(never)]
unsafe fn rest<F: RxFormat, G: TxFormat, const INFO: bool>(
    run: &JoinRun,
    at: usize,
    shape: &JoinShape,
    quirks: F::Quirks,
) -> usize {
    // SAFETY: the caller's contract.
    unsafe { join::take::<F, G, INFO>(run, at, shape, quirks) }
}

/// Writes what `count` frames of the group that begins with `at`, which was `found`, need to be sent: all eight with `WHOLE`.
///
/// # Safety
/// The contract of [`join::take`], in which they are whole good frames that may be sent, seen done.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
unsafe fn write<F: RxFormat, G: TxFormat, const INFO: bool, const WHOLE: bool>(
    run: &JoinRun,
    at: usize,
    count: usize,
    found: &Found,
    shape: &JoinShape,
    quirks: F::Quirks,
) {
    // SAFETY: the receive ring has the group, and of views and metadata there is a whole one too, since `at` is a multiple of
    // eight; nobody else uses them meanwhile, and those behind `count` are nobody's. Of the transmit ring the first `count`
    // descriptors and slots are the caller's, the others are not written. A view is exactly an address and a word with the length
    // in its upper half. This function needs of the CPU what making metadata does.
    unsafe {
        if INFO {
            F::infos_avx512(run.from.at(at * F::WORDS), found.status, &mut *run.infos.add(at).cast(), quirks);
        }
        let numbers = _mm256_loadu_si256(run.from_slots.add(at).cast::<__m256i>());
        store_numbers::<WHOLE>(run.to_slots.add(at), count, numbers);
        let (numbers, places) = (lanes(numbers), Places::new(&shape.buffers));
        store_eight::<true>(run.views.add(at).cast(), GROUP, places.addr(numbers), found.len);
        let to = run.to.at(at * TX_WORDS).cast_mut();
        store_eight::<WHOLE>(to, count, places.iova(numbers), second_words::<G>(found.len));
    }
}

/// As [`join::arm`], from descriptor 0 on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn arm<F: RxFormat>(run: &ArmRun, buffers: &Buffers) {
    let places = Places::new(buffers);
    let end = run.count / GROUP * GROUP;
    let mut at = 0;
    // SAFETY: as many of each (contract), and a group of buffers behind the last one can be read.
    unsafe {
        let words = |at: usize| run.words.at(at * F::WORDS).cast_mut();
        while at < end {
            avx512::arm::<F, true>(words(at), run.slots.add(at), run.fresh.add(at), GROUP, &places);
            at += GROUP;
        }
        if at < run.count {
            avx512::arm::<F, false>(words(at), run.slots.add(at), run.fresh.add(at), run.count - at, &places);
        }
    }
}
