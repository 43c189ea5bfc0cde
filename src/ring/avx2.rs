//! The loops of `kernel` for CPUs with AVX2: four packets to a vector.
//!
//! Descriptors are read by `asm` loads of vectors, which the compiler can neither split, repeat nor move; every field that is
//! used comes out of what was loaded. To a model in this process that is a device's access outside Rust's memory model; on
//! hardware it is what every vector driver does. A load may see several descriptors, and even words, of different age, but
//! each status word is 8 aligned bytes and one age, and only status words count before all of a group were seen done.
//! Stores are whole vectors to descriptors that the driver owns; the doorbell that hands them over is a release store.
//!
//! Two packets lie in a vector as address, meta, address, meta (`PacketBuf` is 16 bytes: index in bits 0 to 31 of meta,
//! length in 32 to 47, tag in 48 to 63), two descriptors as word 0, word 1, word 0, word 1 (of descriptors of four words,
//! the first two). Unpacking two such vectors gives the numbers 0, 2, 1, 3 of four; the inverse unpacking puts them back
//! in order, so everything between works in that order.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm_shuffle_epi32, _mm_storeu_si128, _mm256_add_epi64, _mm256_and_si256,
    _mm256_castsi256_si128, _mm256_cmpeq_epi64, _mm256_cvtepu32_epi64, _mm256_extracti128_si256, _mm256_loadu_si256,
    _mm256_max_epu32, _mm256_mul_epu32, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_setr_epi32, _mm256_setr_epi64x, _mm256_setzero_si256, _mm256_sllv_epi64,
    _mm256_srli_epi64, _mm256_srlv_epi64, _mm256_storeu_si256, _mm256_sub_epi32, _mm256_subs_epu16, _mm256_testc_si256,
    _mm256_unpackhi_epi64, _mm256_unpacklo_epi64, _mm256_xor_si256,
};
use std::sync::atomic::{Ordering, fence};

use super::format::{RxFormat, TxFormat};
use super::kernel::{self, GROUP, RxRun, RxShape, TX_WORDS, TxRun};
use crate::mem::PacketBuf;

/// Packets in one pass of the transmit loop.
const TX_GROUP: usize = 4;

/// The first two words of the descriptors `AT` and `AT + 1`, as they are at this moment.
///
/// # Safety
/// These descriptors of `F` can be read from `descriptors` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_pair<F: RxFormat, const AT: usize>(descriptors: *const u64) -> __m256i {
    let value;
    // SAFETY: reads the descriptors (contract) and nothing else. Not `pure`: the device changes what is there.
    unsafe {
        if F::WORDS == 2 {
            asm!("vmovdqu {0}, [{1} + {2}]", out(ymm_reg) value, in(reg) descriptors,
                const AT * 8 * F::WORDS, options(nostack, preserves_flags, readonly));
        } else {
            asm!("vmovdqu {0:x}, [{1} + {2}]", "vinserti128 {0}, {0}, [{1} + {3}], 1",
                out(ymm_reg) value, in(reg) descriptors, const AT * 8 * F::WORDS, const (AT + 1) * 8 * F::WORDS,
                options(nostack, preserves_flags, readonly));
        }
    }
    value
}

/// The first two words of eight descriptors: the pairs 0, 2, 4 and 6.
///
/// # Safety
/// As `load_pair`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_group<F: RxFormat>(descriptors: *const u64) -> [__m256i; 4] {
    // SAFETY: the caller's contract.
    unsafe {
        let (d6, d4) = (load_pair::<F, 6>(descriptors), load_pair::<F, 4>(descriptors));
        let (d2, d0) = (load_pair::<F, 2>(descriptors), load_pair::<F, 0>(descriptors));
        [d0, d2, d4, d6]
    }
}

/// Four buffer numbers as 64-bit lanes in the order 0, 2, 1, 3.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn lanes(numbers: &[u32; 4]) -> __m256i {
    // SAFETY: 16 bytes of an array.
    let numbers = unsafe { _mm_loadu_si128(numbers.as_ptr().cast::<__m128i>()) };
    _mm256_cvtepu32_epi64(_mm_shuffle_epi32::<0b11_01_10_00>(numbers))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn splat(value: u64) -> __m256i {
    _mm256_set1_epi64x(value as i64)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn is_zero(value: __m256i) -> bool {
    _mm256_testc_si256(_mm256_setzero_si256(), value) != 0
}

/// As [`kernel::rx_groups`].
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool>(
    run: &RxRun,
    shape: &RxShape,
    quirks: F::Quirks,
) -> usize {
    const { assert!(kernel::has_vectors::<F>()) };
    let len_mask = splat(((1u64 << F::LEN_BITS) - 1) << 32);
    let whole = splat(F::DONE | F::LAST);
    let error = splat(F::ERROR);
    let stride = _mm256_set1_epi32(shape.buffers.stride as i32);
    let (base, iova_base) = (splat(shape.buffers.base), splat(shape.buffers.iova_base));
    let tag = splat(shape.meta_tag);
    let limit = splat(shape.meta_limit);
    let zero = _mm256_setzero_si256();
    let seventh = _mm256_setr_epi64x(0, 0, 0, -1);
    let groups = run.count / GROUP;
    for group in 0..groups {
        let from = group * GROUP;
        let at = run.words.at(from * F::WORDS);
        // SAFETY: the run's descriptors exist (contract).
        let mut pairs = unsafe { load_group::<F>(at) };
        // Status words of the descriptors 0, 2, 1, 3 and 4, 6, 5, 7.
        let status = [_mm256_unpackhi_epi64(pairs[0], pairs[1]), _mm256_unpackhi_epi64(pairs[2], pairs[3])];
        let all = _mm256_and_si256(_mm256_and_si256(status[0], status[1]), whole);
        let any = _mm256_and_si256(_mm256_or_si256(status[0], status[1]), error);
        let mut wrong = _mm256_xor_si256(_mm256_or_si256(all, any), whole);
        let mut lens = status;
        if F::LEN_WORD == 0 {
            if !is_zero(wrong) {
                return from;
            }
            // Word 0 may have been loaded before the status that shows it complete, so it is loaded now.
            fence(Ordering::Acquire);
            // SAFETY: as above.
            pairs = unsafe { load_group::<F>(at) };
            lens = [_mm256_unpacklo_epi64(pairs[0], pairs[1]), _mm256_unpacklo_epi64(pairs[2], pairs[3])];
        }
        // The bits that a write-back leaves in the last descriptor.
        let written = _mm256_and_si256(lens[1], splat(F::WRITTEN));
        wrong = _mm256_or_si256(wrong, _mm256_and_si256(_mm256_cmpeq_epi64(written, zero), seventh));
        // Lengths where a packet has them.
        for lens in &mut lens {
            *lens = _mm256_and_si256(_mm256_srlv_epi64(*lens, splat(u64::from(F::LEN_SHIFT - 32))), len_mask);
        }
        // As in `kernel::plain`: where their union fits the buffer, every one does.
        wrong = _mm256_or_si256(wrong, _mm256_subs_epu16(_mm256_or_si256(lens[0], lens[1]), limit));
        if !is_zero(wrong) {
            return from;
        }
        // The loads above saw DONE; what the device wrote before it is visible after this.
        fence(Ordering::Acquire);
        if INFO {
            // SAFETY: the run's descriptors exist and are the caller's, and so is the group of metadata (contract); the fence
            // above came after the loads that saw them done. This function needs the same of the CPU.
            unsafe { F::infos_avx2(at, &mut *run.infos.add(from).cast(), quirks) };
        }
        for (half, len) in lens.into_iter().enumerate() {
            // SAFETY: half a group of each (contract), which nobody else uses meanwhile.
            let (numbers, new) = unsafe {
                let numbers = run.slots.add(from).cast::<[u32; GROUP / 2]>().add(half);
                (&mut *numbers, &*run.fresh.sub(from + GROUP).cast::<[u32; GROUP / 2]>().add(half))
            };
            let old = lanes(numbers);
            let meta = _mm256_or_si256(_mm256_or_si256(len, old), tag);
            let addr = _mm256_add_epi64(_mm256_mul_epu32(old, stride), base);
            // SAFETY: four places of 16 bytes; a packet is exactly address and meta. Each slot's buffer was the ring's
            // alone, the device is done with it, the length fits it, and the slot gets another buffer below.
            unsafe {
                let places = run.places.add(from).cast::<__m256i>().add(2 * half);
                _mm256_storeu_si256(places, _mm256_unpacklo_epi64(addr, meta));
                _mm256_storeu_si256(places.add(1), _mm256_unpackhi_epi64(addr, meta));
            }
            *numbers = *new;
            let iova = _mm256_add_epi64(_mm256_mul_epu32(lanes(new), stride), iova_base);
            let (first, second) = (_mm256_unpacklo_epi64(iova, zero), _mm256_unpackhi_epi64(iova, zero));
            // SAFETY: the descriptors loaded above; they are the driver's, so nobody reads them before the doorbell.
            unsafe {
                let at = at.add(half * 4 * F::WORDS).cast_mut();
                store_pair::<F>(at, first);
                store_pair::<F>(at.add(2 * F::WORDS), second);
            }
        }
    }
    groups * GROUP
}

/// Writes the first two words of two descriptors.
///
/// # Safety
/// They can be written from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_pair<F: RxFormat>(at: *mut u64, pair: __m256i) {
    // SAFETY: the caller's contract.
    unsafe {
        if F::WORDS == 2 {
            _mm256_storeu_si256(at.cast(), pair);
        } else {
            _mm_storeu_si128(at.cast(), _mm256_castsi256_si128(pair));
            _mm_storeu_si128(at.add(F::WORDS).cast(), _mm256_extracti128_si256::<1>(pair));
        }
    }
}

/// As [`kernel::tx_run`], from the first packet on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn tx_run<F: TxFormat>(run: &TxRun<'_>) -> usize {
    let fours = run.count / TX_GROUP;
    let shape = run.shape;
    let (least, span, delta) = (splat(shape.least.into()), splat(shape.span.into()), splat(shape.delta));
    let first_of_each = _mm256_setr_epi32(0, 4, 2, 6, 0, 0, 0, 0);
    let (low, high) = (F::WHOLE_PER_BYTE & 0xffff_ffff, F::WHOLE_PER_BYTE >> 32);
    for four in 0..fours {
        // SAFETY: four packets of 16 bytes, all initialised (contract).
        let (p0, p2) = unsafe {
            let from = run.packets.add(TX_GROUP * four).cast::<__m256i>();
            (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)))
        };
        let addr = _mm256_unpacklo_epi64(p0, p2);
        let meta = _mm256_unpackhi_epi64(p0, p2);
        let upper = _mm256_srli_epi64::<32>(meta);
        if !is_zero(_mm256_sub_epi32(_mm256_max_epu32(_mm256_sub_epi32(upper, least), span), span)) {
            // SAFETY: the caller's contract.
            return unsafe { kernel::tx_run::<F>(run, TX_GROUP * four) };
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
        let word0 = _mm256_add_epi64(addr, delta);
        let numbers = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(meta, first_of_each));
        // SAFETY: the slots and descriptors of these four exist (contract) and are the driver's.
        unsafe {
            let at = run.words.at(TX_GROUP * four * TX_WORDS).cast_mut().cast::<__m256i>();
            kernel::fetch_ahead(at.cast());
            _mm256_storeu_si256(at, _mm256_unpacklo_epi64(word0, word1));
            _mm256_storeu_si256(at.add(1), _mm256_unpackhi_epi64(word0, word1));
            _mm_storeu_si128(run.slots.add(TX_GROUP * four).cast::<__m128i>(), numbers);
        }
    }
    // SAFETY: the caller's contract.
    unsafe { kernel::tx_run::<F>(run, TX_GROUP * fours) }
}

const _: () = assert!(PacketBuf::LAYOUT_IS_ADDR_INDEX_LEN_TAG && GROUP == 8);
