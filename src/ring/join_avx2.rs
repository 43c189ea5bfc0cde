//! The loops of `join` for CPUs with AVX2: four frames to a vector.
//!
//! What the module `avx2` says of loads, stores and orders of lanes holds here.

use std::arch::x86_64::{_mm256_or_si256, _mm256_sub_epi16, _mm256_subs_epu16};

use super::avx2::{self, HALF, Places, is_zero, judge, lanes, second_words, splat, store_four};
use super::format::{RxFormat, TxFormat};
use super::join::{self, ArmRun, JoinRun, JoinShape};
use super::kernel::{Buffers, GROUP, TX_WORDS};

/// As [`join::take`], from frame 0 on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn take<F: RxFormat, G: TxFormat, const INFO: bool>(
    run: &JoinRun,
    shape: &JoinShape,
    quirks: F::Quirks,
) -> usize {
    let (least, span) = (splat(u64::from(shape.least) << 32), splat(u64::from(shape.span) << 32));
    let places = Places::new(&shape.buffers);
    let end = run.count / GROUP * GROUP;
    let mut at = 0;
    while at < end {
        let words = run.from.at(at * F::WORDS);
        // SAFETY: the run's descriptors exist (contract).
        let (mut wrong, lens) = unsafe { judge::<F>(words) };
        for len in lens {
            wrong = _mm256_or_si256(wrong, _mm256_subs_epu16(_mm256_sub_epi16(len, least), span));
        }
        if !is_zero(wrong) {
            break;
        }
        if INFO {
            // SAFETY: the run's descriptors exist and are the caller's, and so is the group of metadata (contract); `judge` saw
            // them done. This function needs the same of the CPU.
            unsafe { F::infos_avx2(words, &mut *run.infos.add(at).cast(), quirks) };
        }
        for len in lens {
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
            at += HALF;
        }
    }
    // SAFETY: the caller's contract.
    unsafe { join::take::<F, G, INFO>(run, at, shape, quirks) }
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
