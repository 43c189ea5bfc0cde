//! The loops of `join` for CPUs with AVX2: four frames to a vector.
//!
//! What the module `avx2` says of loads, stores and orders of lanes holds here.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi64, _mm256_and_si256, _mm256_cmpeq_epi64, _mm256_mul_epu32, _mm256_or_si256,
    _mm256_set1_epi32, _mm256_setr_epi64x, _mm256_setzero_si256, _mm256_sllv_epi64, _mm256_srli_epi64,
    _mm256_srlv_epi64, _mm256_storeu_si256, _mm256_sub_epi16, _mm256_subs_epu16, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi64, _mm256_xor_si256,
};
use std::sync::atomic::{Ordering, fence};

use super::avx2::{is_zero, lanes, load_group, splat, store_pair};
use super::format::{RxFormat, TxFormat};
use super::join::{self, ArmRun, JoinRun, JoinShape};
use super::kernel::{self, Buffers, GROUP, TX_WORDS};

/// Frames in a vector.
const HALF: usize = GROUP / 2;

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
    const { assert!(kernel::has_vectors::<F>()) };
    let len_mask = splat(((1u64 << F::LEN_BITS) - 1) << 32);
    let whole = splat(F::DONE | F::LAST);
    let error = splat(F::ERROR);
    let (least, span) = (splat(u64::from(shape.least) << 32), splat(u64::from(shape.span) << 32));
    let stride = _mm256_set1_epi32(shape.buffers.stride as i32);
    let (base, iova_base) = (splat(shape.buffers.base), splat(shape.buffers.iova_base));
    let seventh = _mm256_setr_epi64x(0, 0, 0, -1);
    let eights = run.count / GROUP;
    let mut at = 0;
    for eight in 0..eights {
        at = eight * GROUP;
        let words = run.from.at(at * F::WORDS);
        // SAFETY: the run's descriptors exist (contract).
        let mut pairs = unsafe { load_group::<F>(words) };
        let status = [_mm256_unpackhi_epi64(pairs[0], pairs[1]), _mm256_unpackhi_epi64(pairs[2], pairs[3])];
        let all = _mm256_and_si256(_mm256_and_si256(status[0], status[1]), whole);
        let any = _mm256_and_si256(_mm256_or_si256(status[0], status[1]), error);
        let mut wrong = _mm256_xor_si256(_mm256_or_si256(all, any), whole);
        let mut lens = status;
        if F::LEN_WORD == 0 {
            if !is_zero(wrong) {
                break;
            }
            // Word 0 may have been loaded before the status that shows it complete, so it is loaded now.
            fence(Ordering::Acquire);
            // SAFETY: as above.
            pairs = unsafe { load_group::<F>(words) };
            lens = [_mm256_unpacklo_epi64(pairs[0], pairs[1]), _mm256_unpacklo_epi64(pairs[2], pairs[3])];
        }
        // The bits that a write-back leaves in the last descriptor.
        let written = _mm256_and_si256(lens[1], splat(F::WRITTEN));
        let unwritten = _mm256_cmpeq_epi64(written, _mm256_setzero_si256());
        wrong = _mm256_or_si256(wrong, _mm256_and_si256(unwritten, seventh));
        // Lengths where a view has them.
        for lens in &mut lens {
            *lens = _mm256_and_si256(_mm256_srlv_epi64(*lens, splat(u64::from(F::LEN_SHIFT - 32))), len_mask);
            wrong = _mm256_or_si256(wrong, _mm256_subs_epu16(_mm256_sub_epi16(*lens, least), span));
        }
        if !is_zero(wrong) {
            break;
        }
        // The loads above saw DONE; what the device wrote before it is visible after this.
        fence(Ordering::Acquire);
        if INFO {
            // SAFETY: the run's descriptors exist and are the caller's, and so is the group of metadata (contract); the fence
            // above came after the loads that saw them done. This function needs the same of the CPU.
            unsafe { F::infos_avx2(words, &mut *run.infos.add(at).cast(), quirks) };
        }
        for (half, len) in lens.into_iter().enumerate() {
            // SAFETY: half a group of each (contract), which nobody else uses meanwhile; a view is exactly an address and a word
            // with the length in its upper half.
            unsafe {
                let at = at + half * HALF;
                let numbers = *run.from_slots.add(at).cast::<[u32; HALF]>();
                *run.to_slots.add(at).cast::<[u32; HALF]>() = numbers;
                let offset = _mm256_mul_epu32(lanes(&numbers), stride);
                store_pairs(run.views.add(at).cast(), _mm256_add_epi64(offset, base), len);
                let to = run.to.at(at * TX_WORDS).cast_mut();
                store_pairs(to.cast(), _mm256_add_epi64(offset, iova_base), second_words::<G>(len));
            }
        }
        at += GROUP;
    }
    // SAFETY: the caller's contract.
    unsafe { join::take::<F, G, INFO>(run, at, shape, quirks) }
}

/// Writes four pairs of words, which are in the order of the module `avx2`.
///
/// # Safety
/// 64 bytes can be written.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store_pairs(to: *mut __m256i, first: __m256i, second: __m256i) {
    // SAFETY: the caller's contract.
    unsafe {
        _mm256_storeu_si256(to, _mm256_unpacklo_epi64(first, second));
        _mm256_storeu_si256(to.add(1), _mm256_unpackhi_epi64(first, second));
    }
}

/// Second words of transmit descriptors, of lengths in the upper halves.
#[inline]
#[target_feature(enable = "avx2")]
fn second_words<G: TxFormat>(len: __m256i) -> __m256i {
    let (low, high) = (G::WHOLE_PER_BYTE & 0xffff_ffff, G::WHOLE_PER_BYTE >> 32);
    const { assert!(G::WHOLE_PER_BYTE & 0xffff_ffff < 2 && (G::WHOLE_PER_BYTE >> 32).is_power_of_two()) };
    let mut word = _mm256_add_epi64(splat(G::WHOLE), _mm256_sllv_epi64(len, splat(high.trailing_zeros().into())));
    if low == 1 {
        word = _mm256_add_epi64(word, _mm256_srli_epi64::<32>(len));
    }
    word
}

/// As [`join::arm`], from descriptor 0 on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn arm<F: RxFormat>(run: &ArmRun, buffers: &Buffers) {
    let stride = _mm256_set1_epi32(buffers.stride as i32);
    let (iova_base, zero) = (splat(buffers.iova_base), _mm256_setzero_si256());
    let mut at = 0;
    while at + HALF <= run.count {
        // SAFETY: half a group of each (contract). The descriptors are the driver's, so nobody reads them before the doorbell.
        unsafe {
            let numbers = *run.fresh.add(at).cast::<[u32; HALF]>();
            *run.slots.add(at).cast::<[u32; HALF]>() = numbers;
            let iova = _mm256_add_epi64(_mm256_mul_epu32(lanes(&numbers), stride), iova_base);
            let words = run.words.at(at * F::WORDS).cast_mut();
            store_pair::<F>(words, _mm256_unpacklo_epi64(iova, zero));
            store_pair::<F>(words.add(2 * F::WORDS), _mm256_unpackhi_epi64(iova, zero));
        }
        at += HALF;
    }
    // SAFETY: the caller's contract.
    unsafe { join::arm::<F>(run, at, buffers) }
}
