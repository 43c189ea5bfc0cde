//! The loops of `join` for CPUs with AVX-512: eight frames to a vector.
//!
//! What the modules `avx512` and `avx2` say of loads, stores and orders of lanes holds here.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi64, _mm512_and_si512,
    _mm512_cmpgt_epu16_mask, _mm512_cmpneq_epi64_mask, _mm512_cvtepu32_epi64, _mm512_mask_testn_epi64_mask,
    _mm512_maskz_permutexvar_epi64, _mm512_mul_epu32, _mm512_set1_epi32, _mm512_setr_epi64, _mm512_setzero_si512,
    _mm512_sllv_epi64, _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_sub_epi16,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};
use std::sync::atomic::{Ordering, fence};

use super::avx512::{lanes, load_column, splat};
use super::format::{RxFormat, TxFormat};
use super::join::{self, ArmRun, JoinRun, JoinShape};
use super::kernel::{self, Buffers, GROUP, TX_WORDS};

/// As [`join::take`], from frame 0 on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn take<F: RxFormat, G: TxFormat, const INFO: bool>(
    run: &JoinRun,
    shape: &JoinShape,
    quirks: F::Quirks,
) -> usize {
    const { assert!(kernel::has_vectors::<F>()) };
    let len_mask = splat(((1u64 << F::LEN_BITS) - 1) << 32);
    let whole = splat(F::DONE | F::LAST);
    let judged = splat(F::DONE | F::LAST | F::ERROR);
    let (least, span) = (splat(u64::from(shape.least) << 32), splat(u64::from(shape.span) << 32));
    let stride = _mm512_set1_epi32(shape.buffers.stride as i32);
    let (base, iova_base) = (splat(shape.buffers.base), splat(shape.buffers.iova_base));
    let eights = run.count / GROUP;
    let mut at = 0;
    for eight in 0..eights {
        at = eight * GROUP;
        let words = run.from.at(at * F::WORDS);
        // SAFETY: the run's descriptors exist (contract).
        let status = unsafe { load_column::<F, true>(words) };
        let mut wrong = u32::from(_mm512_cmpneq_epi64_mask(_mm512_and_si512(status, judged), whole));
        let mut raw = status;
        if F::LEN_WORD == 0 {
            if wrong != 0 {
                break;
            }
            // Word 0 may have been loaded before the status that shows it complete, so it is loaded now.
            fence(Ordering::Acquire);
            // SAFETY: as above.
            raw = unsafe { load_column::<F, false>(words) };
        }
        // Has a write-back left its bits in the last descriptor?
        wrong |= u32::from(_mm512_mask_testn_epi64_mask(0x80, raw, splat(F::WRITTEN)));
        // Lengths where a view has them.
        let len = _mm512_and_si512(_mm512_srlv_epi64(raw, splat(u64::from(F::LEN_SHIFT - 32))), len_mask);
        wrong |= _mm512_cmpgt_epu16_mask(_mm512_sub_epi16(len, least), span);
        if wrong != 0 {
            break;
        }
        // The loads above saw DONE; what the device wrote before it is visible after this.
        fence(Ordering::Acquire);
        if INFO {
            // SAFETY: the run's descriptors exist and are the caller's, and so is the group of metadata (contract); the fence
            // above came after the loads that saw them done. This function needs the same of the CPU.
            unsafe { F::infos_avx512(words, &mut *run.infos.add(at).cast(), quirks) };
        }
        // SAFETY: a group of each (contract), which nobody else uses meanwhile; a view is exactly an address and a word with the
        // length in its upper half.
        unsafe {
            let numbers = _mm256_loadu_si256(run.from_slots.add(at).cast::<__m256i>());
            _mm256_storeu_si256(run.to_slots.add(at).cast::<__m256i>(), numbers);
            let offset = _mm512_mul_epu32(lanes(numbers), stride);
            let views = run.views.add(at).cast::<__m512i>();
            store_pairs(views, _mm512_add_epi64(offset, base), len);
            let to = run.to.at(at * TX_WORDS).cast_mut().cast::<__m512i>();
            store_pairs(to, _mm512_add_epi64(offset, iova_base), second_words::<G>(len));
        }
        at += GROUP;
    }
    // SAFETY: the caller's contract.
    unsafe { join::take::<F, G, INFO>(run, at, shape, quirks) }
}

/// Writes eight pairs of words, which are in the order of the module `avx512`.
///
/// # Safety
/// 128 bytes can be written.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_pairs(to: *mut __m512i, first: __m512i, second: __m512i) {
    // SAFETY: the caller's contract.
    unsafe {
        _mm512_storeu_si512(to, _mm512_unpacklo_epi64(first, second));
        _mm512_storeu_si512(to.add(1), _mm512_unpackhi_epi64(first, second));
    }
}

/// Second words of transmit descriptors, of lengths in the upper halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn second_words<G: TxFormat>(len: __m512i) -> __m512i {
    let (low, high) = (G::WHOLE_PER_BYTE & 0xffff_ffff, G::WHOLE_PER_BYTE >> 32);
    const { assert!(G::WHOLE_PER_BYTE & 0xffff_ffff < 2 && (G::WHOLE_PER_BYTE >> 32).is_power_of_two()) };
    let mut word = _mm512_add_epi64(splat(G::WHOLE), _mm512_sllv_epi64(len, splat(high.trailing_zeros().into())));
    if low == 1 {
        word = _mm512_add_epi64(word, _mm512_srli_epi64::<32>(len));
    }
    word
}

/// As [`join::arm`], from descriptor 0 on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn arm<F: RxFormat>(run: &ArmRun, buffers: &Buffers) {
    let stride = _mm512_set1_epi32(buffers.stride as i32);
    let iova_base = splat(buffers.iova_base);
    let mut at = 0;
    while at + GROUP <= run.count {
        let words = run.words.at(at * F::WORDS).cast_mut();
        // SAFETY: a group of each (contract). The descriptors are the driver's, so nobody reads them before the doorbell.
        unsafe {
            let numbers = _mm256_loadu_si256(run.fresh.add(at).cast::<__m256i>());
            _mm256_storeu_si256(run.slots.add(at).cast::<__m256i>(), numbers);
            if F::WORDS == 2 {
                let iova = _mm512_add_epi64(_mm512_mul_epu32(lanes(numbers), stride), iova_base);
                store_pairs(words.cast(), iova, _mm512_setzero_si512());
            } else {
                // Whole lines of two descriptors each.
                let iova = _mm512_add_epi64(_mm512_mul_epu32(_mm512_cvtepu32_epi64(numbers), stride), iova_base);
                for pair in 0..GROUP / 2 {
                    // Lane 2 * pair to lane 0, and the next to lane 4.
                    let pick = _mm512_add_epi64(_mm512_setr_epi64(0, 0, 0, 0, 1, 0, 0, 0), splat(2 * pair as u64));
                    let line = _mm512_maskz_permutexvar_epi64(0b0001_0001, pick, iova);
                    _mm512_storeu_si512(words.add(8 * pair).cast(), line);
                }
            }
        }
        at += GROUP;
    }
    // SAFETY: the caller's contract.
    unsafe { join::arm::<F>(run, at, buffers) }
}
