//! The loops of `join` for CPUs with AVX2: four frames to a vector.
//!
//! What the module `avx2` says of loads, stores and orders of lanes holds here.

use std::arch::x86_64::{_mm256_or_si256, _mm256_sub_epi16, _mm256_subs_epu16};

use super::avx2::{self, HALF, Places, is_zero, judge, lanes, second_words, splat, store_four};
use super::format::{RxFormat, TxFormat};
use super::join::{self, ArmRun, JoinRun, JoinShape};
use super::kernel::{Buffers, GROUP, TX_WORDS};

/// As [`join::take`], from frame 0 on. With `HALF_ONE` at most the first half a group is taken in vectors, else whole groups are.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn take<F: RxFormat, G: TxFormat, const INFO: bool, const HALF_ONE: bool>(
    run: &JoinRun,
    shape: &JoinShape,
    quirks: F::Quirks,
) -> usize {
    let mut at = 0;
    // SAFETY: the run has the descriptors (contract), and the ring those behind them to the end of the group.
    unsafe {
        if HALF_ONE {
            let is_there = HALF <= run.count && GROUP <= run.to_end;
            at = if is_there && write::<F, G, INFO, 1>(run, 0, shape, quirks) { HALF } else { 0 };
        } else {
            let end = run.count / GROUP * GROUP;
            while at < end && write::<F, G, INFO, 2>(run, at, shape, quirks) {
                at += GROUP;
            }
        }
        join::take::<F, G, INFO>(run, at, shape, quirks)
    }
}

/// Writes what four or eight frames from number `at` on need to be sent, if all of them are whole good ones of one buffer each that
/// are neither too short nor too long.
///
/// # Safety
/// The contract of [`join::take`]; the run has these descriptors, and the receive ring eight.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn write<F: RxFormat, G: TxFormat, const INFO: bool, const HALVES: usize>(
    run: &JoinRun,
    at: usize,
    shape: &JoinShape,
    quirks: F::Quirks,
) -> bool {
    let (least, span) = (splat(u64::from(shape.least) << 32), splat(u64::from(shape.span) << 32));
    let places = Places::new(&shape.buffers);
    let words = run.from.at(at * F::WORDS);
    // SAFETY: the run's descriptors exist (contract).
    let (mut wrong, lens) = unsafe { judge::<F, HALVES>(words) };
    for len in lens {
        wrong = _mm256_or_si256(wrong, _mm256_subs_epu16(_mm256_sub_epi16(len, least), span));
    }
    if !is_zero(wrong) {
        return false;
    }
    if INFO {
        // SAFETY: the ring has the group, and of metadata there is a whole one too, since `at` is a multiple of eight; nobody else
        // uses it meanwhile, and `judge` saw those done that count. This function needs the same of the CPU.
        unsafe { F::infos_avx2(words, &mut *run.infos.add(at).cast(), quirks) };
    }
    for (half, len) in lens.into_iter().enumerate() {
        let at = at + half * HALF;
        // SAFETY: half a group of each (contract), which nobody else uses meanwhile; a view is exactly an address and a word
        // with the length in its upper half.
        unsafe {
            let numbers = run.from_slots.add(at).cast::<[u32; HALF]>();
            *run.to_slots.add(at).cast::<[u32; HALF]>() = *numbers;
            let numbers = lanes(numbers.cast());
            store_four(run.views.add(at).cast(), places.addr(numbers), len);
            let to = run.to.at(at * TX_WORDS).cast_mut();
            store_four(to, places.iova(numbers), second_words::<G>(len));
        }
    }
    true
}

/// As [`join::arm`], from descriptor 0 on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn arm<F: RxFormat>(run: &ArmRun, buffers: &Buffers) {
    let places = Places::new(buffers);
    let end = run.count / HALF * HALF;
    let mut at = 0;
    while at < end {
        // SAFETY: as many of each (contract).
        unsafe {
            let words = run.words.at(at * F::WORDS).cast_mut();
            avx2::arm::<F>(words, run.slots.add(at), run.fresh.add(at), &places);
        }
        at += HALF;
    }
    // SAFETY: the caller's contract.
    unsafe { join::arm::<F>(run, at, buffers) }
}
