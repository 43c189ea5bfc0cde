//! The loops of `kernel` for CPUs with AVX-512: eight packets to a vector.
//!
//! What the module `avx2` says of loads, stores and their order holds here. Unpacking two vectors of four packets or
//! descriptors gives the numbers 0, 4, 1, 5, 2, 6, 3, 7 of eight; the inverse unpacking puts them back in order, so
//! everything between works in that order.

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, __m512i, _mm256_loadu_si256, _mm256_permutevar8x32_epi32, _mm256_setr_epi32, _mm256_storeu_si256,
    _mm512_add_epi64, _mm512_and_si512, _mm512_castsi512_si256, _mm512_cmpgt_epu16_mask, _mm512_cmpgt_epu32_mask,
    _mm512_cmpneq_epi64_mask, _mm512_cvtepu32_epi64, _mm512_loadu_si512, _mm512_mask_testn_epi64_mask,
    _mm512_maskz_permutexvar_epi64, _mm512_mul_epu32, _mm512_permutexvar_epi32, _mm512_set1_epi32, _mm512_set1_epi64,
    _mm512_setr_epi32, _mm512_setr_epi64, _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_sllv_epi64,
    _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_sub_epi32, _mm512_ternarylogic_epi64,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};
use std::sync::atomic::{Ordering, fence};

use super::format::{RxFormat, TxFormat};
use super::kernel::{self, GROUP, RxRun, RxShape, TX_WORDS, TxRun};

/// Truth table of `ternarylogic`: a | b | c.
const OR3: i32 = 0xfe;

/// That this CPU has AVX-512 as the loops need it. Only `detect` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof(());

impl Proof {
    /// VBMI2 is not used: it tells the CPUs (Ice Lake and Zen 4 on) whose clock does not fall for light work in 512 bits
    /// from those where it does.
    pub(crate) fn detect() -> Option<Proof> {
        let has = std::arch::is_x86_feature_detected!("avx512f")
            && std::arch::is_x86_feature_detected!("avx512bw")
            && std::arch::is_x86_feature_detected!("avx512vl")
            && std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("avx512vbmi2");
        has.then_some(Proof(()))
    }
}

/// 64 bytes at word `AT`, as they are at this moment.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load<const AT: usize>(words: *const u64) -> __m512i {
    let value;
    // SAFETY: reads 64 bytes (contract) and nothing else. Not `pure`: the device changes what is there.
    unsafe {
        asm!("vmovdqu64 {0}, [{1} + {2}]", out(zmm_reg) value, in(reg) words, const AT * 8,
            options(nostack, preserves_flags, readonly));
    }
    value
}

/// Words 0 (`HIGH` false) or 1 of eight descriptors, in the order of this module.
///
/// # Safety
/// They can be read from `words` on.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn load_column<F: RxFormat, const HIGH: bool>(words: *const u64) -> __m512i {
    let unpack = |a, b| if HIGH { _mm512_unpackhi_epi64(a, b) } else { _mm512_unpacklo_epi64(a, b) };
    // SAFETY: the caller's contract.
    unsafe {
        if F::WORDS == 2 {
            let (d4, d0) = (load::<8>(words), load::<0>(words));
            unpack(d0, d4)
        } else {
            let (d6, d4, d2, d0) = (load::<24>(words), load::<16>(words), load::<8>(words), load::<0>(words));
            // Descriptors 0, 4, -, -, 1, 5, -, - and 2, 6, -, -, 3, 7, -, -.
            _mm512_shuffle_i64x2::<0b10_00_10_00>(unpack(d0, d4), unpack(d2, d6))
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat(value: u64) -> __m512i {
    _mm512_set1_epi64(value as i64)
}

/// Eight buffer numbers as 64-bit lanes in the order of this module.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx2")]
pub(super) fn lanes(numbers: __m256i) -> __m512i {
    _mm512_cvtepu32_epi64(_mm256_permutevar8x32_epi32(numbers, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)))
}

/// As [`kernel::rx_groups`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool>(
    run: &RxRun,
    shape: &RxShape,
    quirks: F::Quirks,
) -> usize {
    const { assert!(kernel::has_vectors::<F>()) };
    let len_mask = splat(((1u64 << F::LEN_BITS) - 1) << 32);
    let whole = splat(F::DONE | F::LAST);
    let judged = splat(F::DONE | F::LAST | F::ERROR);
    let stride = _mm512_set1_epi32(shape.stride as i32);
    let (base, iova_base) = (splat(shape.base), splat(shape.iova_base));
    let tag = splat(shape.meta_tag);
    let limit = splat(shape.meta_limit);
    let zero = _mm512_setzero_si512();
    for group in 0..run.groups {
        let at = run.words.at(group * GROUP * F::WORDS);
        // SAFETY: the run's descriptors exist (contract).
        let status = unsafe { load_column::<F, true>(at) };
        let mut wrong = u32::from(_mm512_cmpneq_epi64_mask(_mm512_and_si512(status, judged), whole));
        let mut raw = status;
        if F::LEN_WORD == 0 {
            if wrong != 0 {
                return group;
            }
            // Word 0 may have been loaded before the status that shows it complete, so it is loaded now.
            fence(Ordering::Acquire);
            // SAFETY: as above.
            raw = unsafe { load_column::<F, false>(at) };
        }
        // Has a write-back left its bits in the last descriptor?
        wrong |= u32::from(_mm512_mask_testn_epi64_mask(0x80, raw, splat(F::WRITTEN)));
        // Lengths where a packet has them.
        let len = _mm512_and_si512(_mm512_srlv_epi64(raw, splat(u64::from(F::LEN_SHIFT - 32))), len_mask);
        wrong |= _mm512_cmpgt_epu16_mask(len, limit);
        if wrong != 0 {
            return group;
        }
        // The loads above saw DONE; what the device wrote before it is visible after this.
        fence(Ordering::Acquire);
        if INFO {
            // SAFETY: the run's descriptors exist and are the caller's, and so is the group of metadata (contract); the fence
            // above came after the loads that saw them done. This function needs the same of the CPU.
            unsafe { F::infos_avx512(at, &mut *run.infos.add(group), quirks) };
        }
        // SAFETY: a group of each (contract), which nobody else uses meanwhile. A packet is exactly address and meta. Each
        // slot's buffer was the ring's alone, the device is done with it, the length fits it, and the slot gets another one.
        let new = unsafe {
            let slots = run.slots.add(group).cast::<__m256i>();
            let old = lanes(_mm256_loadu_si256(slots));
            let meta = _mm512_ternarylogic_epi64::<OR3>(len, old, tag);
            let addr = _mm512_add_epi64(_mm512_mul_epu32(old, stride), base);
            let places = run.places.add(group).cast::<__m512i>();
            _mm512_storeu_si512(places, _mm512_unpacklo_epi64(addr, meta));
            _mm512_storeu_si512(places.add(1), _mm512_unpackhi_epi64(addr, meta));
            let new = _mm256_loadu_si256(run.fresh.sub(group + 1).cast::<__m256i>());
            _mm256_storeu_si256(slots, new);
            new
        };
        let at = at.cast_mut();
        // SAFETY: the descriptors loaded above; they are the driver's, so nobody reads them before the doorbell.
        unsafe {
            if F::WORDS == 2 {
                let iova = _mm512_add_epi64(_mm512_mul_epu32(lanes(new), stride), iova_base);
                _mm512_storeu_si512(at.cast(), _mm512_unpacklo_epi64(iova, zero));
                _mm512_storeu_si512(at.add(8).cast(), _mm512_unpackhi_epi64(iova, zero));
            } else {
                // Whole lines of two descriptors each.
                let iova = _mm512_add_epi64(_mm512_mul_epu32(_mm512_cvtepu32_epi64(new), stride), iova_base);
                for pair in 0..GROUP / 2 {
                    // Lane 2 * pair to lane 0, and the next to lane 4.
                    let pick = _mm512_add_epi64(_mm512_setr_epi64(0, 0, 0, 0, 1, 0, 0, 0), splat(2 * pair as u64));
                    let line = _mm512_maskz_permutexvar_epi64(0b0001_0001, pick, iova);
                    _mm512_storeu_si512(at.add(8 * pair).cast(), line);
                }
            }
        }
    }
    run.groups
}

/// As [`kernel::tx_run`], from the first packet on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
pub(super) unsafe fn tx_run<F: TxFormat>(run: &TxRun<'_>) -> usize {
    let eights = run.count / GROUP;
    let shape = run.shape;
    let (least, span, delta) = (splat(shape.least.into()), splat(shape.span.into()), splat(shape.delta));
    let (low, high) = (F::WHOLE_PER_BYTE & 0xffff_ffff, F::WHOLE_PER_BYTE >> 32);
    for eight in 0..eights {
        // SAFETY: eight packets of 16 bytes, all initialised (contract).
        let (p0, p4) = unsafe {
            let from = run.packets.add(GROUP * eight).cast::<__m512i>();
            (_mm512_loadu_si512(from), _mm512_loadu_si512(from.add(1)))
        };
        let addr = _mm512_unpacklo_epi64(p0, p4);
        let meta = _mm512_unpackhi_epi64(p0, p4);
        let upper = _mm512_srli_epi64::<32>(meta);
        if _mm512_cmpgt_epu32_mask(_mm512_sub_epi32(upper, least), span) != 0 {
            // SAFETY: the caller's contract.
            return unsafe { kernel::tx_run::<F>(run, GROUP * eight) };
        }
        let len = _mm512_and_si512(upper, splat(0xffff));
        let mut word1 = splat(F::WHOLE);
        if low == 1 {
            word1 = _mm512_add_epi64(word1, len);
        } else if low != 0 {
            word1 = _mm512_add_epi64(word1, _mm512_mul_epu32(len, splat(low)));
        }
        if high.is_power_of_two() {
            let shift = splat(u64::from(32 + high.trailing_zeros()));
            word1 = _mm512_add_epi64(word1, _mm512_sllv_epi64(len, shift));
        } else if high != 0 {
            word1 = _mm512_add_epi64(word1, _mm512_sllv_epi64(_mm512_mul_epu32(len, splat(high)), splat(32)));
        }
        let word0 = _mm512_add_epi64(addr, delta);
        // The low halves of the lanes, in order.
        let in_order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
        let numbers = _mm512_castsi512_si256(_mm512_permutexvar_epi32(in_order, meta));
        // SAFETY: the slots and descriptors of these eight exist (contract) and are the driver's.
        unsafe {
            let at = run.words.at(GROUP * eight * TX_WORDS).cast_mut().cast::<__m512i>();
            _mm512_storeu_si512(at, _mm512_unpacklo_epi64(word0, word1));
            _mm512_storeu_si512(at.add(1), _mm512_unpackhi_epi64(word0, word1));
            _mm256_storeu_si256(run.slots.add(GROUP * eight).cast::<__m256i>(), numbers);
        }
    }
    // SAFETY: the caller's contract.
    unsafe { kernel::tx_run::<F>(run, GROUP * eights) }
}
