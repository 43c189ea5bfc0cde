//! The loops of `kernel` for CPUs with AVX2: four packets to a vector.
//!
//! Descriptors are read 32 bytes at a time by an `asm` load, which the compiler can neither split, repeat nor move, from the
//! highest to the lowest; every field that is used comes out of what was loaded. To a model in this process that is a
//! device's access outside Rust's memory model; on hardware it is what every vector driver does. A load of 32 bytes may
//! see two descriptors of different age, but each status word is 8 aligned bytes and one age, and only status words count.
//! Stores are whole vectors to descriptors that the driver owns; the doorbell that hands them over is a release store.
//!
//! Two packets lie in a vector as address, meta, address, meta (`PacketBuf` is 16 bytes: index in bits 0 to 31 of meta,
//! length in 32 to 47, tag in 48 to 63), two descriptors as word 0, word 1, word 0, word 1. Unpacking two such vectors
//! gives the numbers 0, 2, 1, 3 of four; the inverse unpacking puts them back in order, so everything between works in
//! that order.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_shuffle_epi32, _mm_storeu_si128, _mm256_add_epi64, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cmpgt_epi32, _mm256_cvtepu32_epi64, _mm256_loadu_si256, _mm256_max_epu32,
    _mm256_mul_epu32, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set1_epi64x, _mm256_setr_epi32,
    _mm256_setr_epi64x, _mm256_setzero_si256, _mm256_sllv_epi64, _mm256_srli_epi64, _mm256_srlv_epi64,
    _mm256_storeu_si256, _mm256_sub_epi32, _mm256_testc_si256, _mm256_testz_si256, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi64,
};
use std::sync::atomic::{Ordering, fence};

use super::format::{RxFormat, TxFormat};
use super::info;
use super::kernel::{self, GROUP, RxRun, TX_WORDS, TxRun};
use crate::mem::PacketBuf;

/// Fewest packets for which `tx_run` does more than the portable loop.
pub(super) const TX_GROUP: usize = 4;

/// That this CPU has AVX2. Only `detect` makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proof(());

impl Proof {
    pub(crate) fn detect() -> Option<Proof> {
        std::arch::is_x86_feature_detected!("avx2").then_some(Proof(()))
    }
}

/// True where the loops below fit the format.
const fn fits<F: RxFormat>() -> bool {
    F::WORDS == 2 && F::STATUS == 1 && F::LEN_WORD == 1
}

/// As [`kernel::rx_groups`].
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool>(run: RxRun<'_>, quirks: F::Quirks, _: Proof) -> usize {
    // SAFETY: the proof says that the CPU has AVX2; the rest is the caller's contract.
    unsafe {
        match (fits::<F>(), INFO) {
            (true, _) => rx::<F, INFO>(run, quirks),
            (false, true) => rx_portable::<F, INFO>(run, quirks),
            (false, false) => kernel::rx_groups::<F, INFO, true>(run, quirks),
        }
    }
}

/// The portable loop, compiled for AVX2: metadata is arithmetic that gains by it.
///
/// # Safety
/// As [`kernel::rx_groups`], on a CPU with AVX2.
#[target_feature(enable = "avx2")]
unsafe fn rx_portable<F: RxFormat, const INFO: bool>(run: RxRun<'_>, quirks: F::Quirks) -> usize {
    // SAFETY: the caller's contract.
    unsafe { kernel::rx_groups::<F, INFO, true>(run, quirks) }
}

/// As [`kernel::tx_run`].
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn tx_run<F: TxFormat>(run: TxRun<'_>, _: Proof) -> usize {
    // SAFETY: as in `rx_groups`.
    unsafe { tx::<F>(run) }
}

/// Two descriptors as they are at this moment.
///
/// # Safety
/// 32 bytes at `at` can be read.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_shared(at: *const u64) -> __m256i {
    let value;
    // SAFETY: reads 32 bytes at `at` (contract) and nothing else. Not `pure`: the device changes what is there.
    unsafe { asm!("vmovdqu {0}, [{1}]", out(ymm_reg) value, in(reg) at, options(nostack, preserves_flags, readonly)) };
    value
}

/// Four buffer numbers as 64-bit lanes in the order 0, 2, 1, 3.
#[inline]
#[target_feature(enable = "avx2")]
fn lanes(numbers: &[u32; 4]) -> __m256i {
    // SAFETY: 16 bytes of an array.
    let numbers = unsafe { _mm_loadu_si128(numbers.as_ptr().cast::<__m128i>()) };
    _mm256_cvtepu32_epi64(_mm_shuffle_epi32::<0b11_01_10_00>(numbers))
}

#[inline]
#[target_feature(enable = "avx2")]
fn splat(value: u64) -> __m256i {
    _mm256_set1_epi64x(value as i64)
}

/// # Safety
/// As [`kernel::rx_groups`], on a CPU with AVX2.
#[target_feature(enable = "avx2")]
unsafe fn rx<F: RxFormat, const INFO: bool>(run: RxRun<'_>, quirks: F::Quirks) -> usize {
    let RxRun { words, slots, places, fresh, infos, base, stride, iova_base, tag, limit } = run;
    let count = slots.len().min(places.len()).min(fresh.len());
    let (slots, places, fresh) = (&mut slots[..count], &mut places[..count], &fresh[fresh.len() - count..]);
    let len_mask = (1u64 << F::LEN_BITS) - 1;
    let whole = splat(F::DONE | F::LAST);
    let error = splat(F::ERROR);
    let stride = splat(stride as u64);
    let (base, iova_base) = (splat(base as u64), splat(iova_base));
    let tag = splat(u64::from(tag) << 48);
    let limit = splat(u64::from(limit));
    let zero = _mm256_setzero_si256();
    let last_len = _mm256_setr_epi64x(0, 0, 0, (len_mask << F::LEN_SHIFT) as i64);
    for group in 0..count {
        let (slots, places) = (&mut slots[group], &mut places[group]);
        let fresh = &fresh[count - 1 - group];
        let at = words.at(group * GROUP * F::WORDS);
        // SAFETY: the run's descriptors exist (contract), two in each load.
        let (d6, d4, d2, d0) =
            unsafe { (load_shared(at.add(12)), load_shared(at.add(8)), load_shared(at.add(4)), load_shared(at)) };
        // Status words of the descriptors 0, 2, 1, 3 and 4, 6, 5, 7.
        let status = [_mm256_unpackhi_epi64(d0, d2), _mm256_unpackhi_epi64(d4, d6)];
        let all = _mm256_and_si256(status[0], status[1]);
        let any = _mm256_or_si256(status[0], status[1]);
        let any_len = _mm256_and_si256(_mm256_srlv_epi64(any, splat(F::LEN_SHIFT.into())), splat(len_mask));
        let beyond = _mm256_cmpgt_epi32(any_len, limit);
        if _mm256_testc_si256(all, whole) == 0
            || _mm256_testz_si256(any, error) == 0
            || _mm256_testz_si256(beyond, beyond) == 0
            || _mm256_testz_si256(d6, last_len) != 0
        {
            return group;
        }
        // The loads above saw DONE; what the device wrote before it is visible after this.
        fence(Ordering::Acquire);
        if INFO {
            let Some(infos) = infos.get_mut(group) else { return group };
            // SAFETY: the run's descriptors exist and are the caller's (contract); the fence above came after the loads that
            // saw them done. This function's contract has AVX2.
            unsafe { info::group::<F, true>(at, infos, quirks) };
        }
        for half in 0..2 {
            let Some(numbers) = slots[4 * half..].first_chunk_mut::<4>() else { return group };
            let old = lanes(numbers);
            let len = if F::LEN_SHIFT == 32 {
                _mm256_and_si256(status[half], splat(len_mask << 32))
            } else {
                let len =
                    _mm256_and_si256(_mm256_srlv_epi64(status[half], splat(F::LEN_SHIFT.into())), splat(len_mask));
                _mm256_sllv_epi64(len, splat(32))
            };
            let meta = _mm256_or_si256(_mm256_or_si256(len, old), tag);
            let addr = _mm256_add_epi64(_mm256_mul_epu32(old, stride), base);
            // SAFETY: four places of 16 bytes; a packet is exactly address and meta. Each slot's buffer was the ring's
            // alone, the device is done with it, the length fits it, and the slot gets another buffer below.
            unsafe {
                let places = places.as_mut_ptr().add(4 * half).cast::<__m256i>();
                _mm256_storeu_si256(places, _mm256_unpacklo_epi64(addr, meta));
                _mm256_storeu_si256(places.add(1), _mm256_unpackhi_epi64(addr, meta));
            }
            let Some(new) = fresh[4 * half..].first_chunk::<4>() else { return group };
            *numbers = *new;
            let iova = _mm256_add_epi64(_mm256_mul_epu32(lanes(new), stride), iova_base);
            // SAFETY: the descriptors loaded above; they are the driver's, so nobody reads them before the doorbell.
            unsafe {
                let at = at.add(8 * half).cast_mut().cast::<__m256i>();
                _mm256_storeu_si256(at, _mm256_unpacklo_epi64(iova, zero));
                _mm256_storeu_si256(at.add(1), _mm256_unpackhi_epi64(iova, zero));
            }
        }
    }
    count
}

/// # Safety
/// As [`kernel::tx_run`], on a CPU with AVX2.
#[target_feature(enable = "avx2")]
unsafe fn tx<F: TxFormat>(run: TxRun<'_>) -> usize {
    let TxRun { words, packets, delta, tag, shortest, longest, .. } = run;
    let slots: *mut u32 = run.slots.as_mut_ptr();
    let fours = packets.len().min(run.slots.len()) / TX_GROUP;
    // The upper half of meta is length and tag; minus its least good value it is at most the span.
    let least = splat(u64::from(tag) << 16 | u64::from(shortest));
    let span = splat(u64::from(longest.saturating_sub(shortest)));
    let delta_lanes = splat(delta);
    let first_of_each = _mm256_setr_epi32(0, 4, 2, 6, 0, 0, 0, 0);
    let (low, high) = (F::WHOLE_PER_BYTE & 0xffff_ffff, F::WHOLE_PER_BYTE >> 32);
    for four in 0..fours {
        let from = packets.as_ptr().wrapping_add(4 * four).cast::<__m256i>();
        // SAFETY: four packets of 16 bytes, all initialised.
        let (p0, p2) = unsafe { (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))) };
        let addr = _mm256_unpacklo_epi64(p0, p2);
        let meta = _mm256_unpackhi_epi64(p0, p2);
        let upper = _mm256_srli_epi64::<32>(meta);
        let over = _mm256_sub_epi32(_mm256_max_epu32(_mm256_sub_epi32(upper, least), span), span);
        if _mm256_testz_si256(over, over) == 0 {
            // SAFETY: the caller's contract; the run is ours to hand on.
            return unsafe { kernel::tx_run::<F>(run, 4 * four) };
        }
        let len = _mm256_and_si256(upper, splat(0xffff));
        let mut word1 = splat(F::WHOLE);
        if low == 1 {
            word1 = _mm256_add_epi64(word1, len);
        } else if low != 0 {
            word1 = _mm256_add_epi64(word1, _mm256_mul_epu32(len, splat(low)));
        }
        if high.is_power_of_two() {
            let shift = splat(u64::from(32 + high.trailing_zeros()));
            word1 = _mm256_add_epi64(word1, _mm256_sllv_epi64(len, shift));
        } else if high != 0 {
            word1 = _mm256_add_epi64(word1, _mm256_sllv_epi64(_mm256_mul_epu32(len, splat(high)), splat(32)));
        }
        let word0 = _mm256_add_epi64(addr, delta_lanes);
        let numbers = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(meta, first_of_each));
        // SAFETY: the slots and descriptors of these four exist (`fours`, contract) and are the driver's.
        unsafe {
            let at = words.at(4 * four * TX_WORDS).cast_mut().cast::<__m256i>();
            _mm256_storeu_si256(at, _mm256_unpacklo_epi64(word0, word1));
            _mm256_storeu_si256(at.add(1), _mm256_unpackhi_epi64(word0, word1));
            _mm_storeu_si128(slots.add(4 * four).cast::<__m128i>(), numbers);
        }
    }
    // SAFETY: the caller's contract; the run is ours to hand on.
    unsafe { kernel::tx_run::<F>(run, 4 * fours) }
}

const _: () = assert!(PacketBuf::LAYOUT_IS_ADDR_INDEX_LEN_TAG && GROUP == 8);
