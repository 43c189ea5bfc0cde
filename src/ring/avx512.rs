//! The loops of `kernel` for CPUs with AVX-512: eight packets to a vector.
//!
//! What the module `avx2` says of loads, stores and their order holds here. Unpacking two vectors of four packets or
//! descriptors gives the numbers 0, 4, 1, 5, 2, 6, 3, 7 of eight; the inverse unpacking puts them back in order, so
//! everything between works in that order.

use std::arch::asm;
use std::arch::x86_64::{
    __m256i, __m512i, _bzhi_u32, _lzcnt_u32, _mm256_loadu_si256, _mm256_mask_storeu_epi32, _mm256_permutevar8x32_epi32,
    _mm256_setr_epi32, _mm256_storeu_si256, _mm512_add_epi64, _mm512_and_si512, _mm512_castsi512_si256,
    _mm512_cmpgt_epu32_mask, _mm512_cmpgt_epu64_mask, _mm512_cmpneq_epi64_mask, _mm512_cvtepu32_epi64,
    _mm512_loadu_si512, _mm512_mask_storeu_epi64, _mm512_maskz_permutexvar_epi64, _mm512_mul_epu32,
    _mm512_permutexvar_epi32, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setr_epi32, _mm512_setr_epi64,
    _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_sllv_epi64, _mm512_srli_epi64, _mm512_srlv_epi64,
    _mm512_storeu_si512, _mm512_sub_epi32, _mm512_ternarylogic_epi64, _mm512_testn_epi64_mask, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64, _pext_u32, _tzcnt_u32,
};
use std::sync::atomic::{Ordering, fence};

use super::format::{RxFormat, TxFormat};
use super::kernel::{self, GROUP, RxRun, RxShape, TX_WORDS, TxRun};

/// Truth table of `ternarylogic`: a | b | c.
const OR3: i32 = 0xfe;

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

/// As [`kernel::rx_groups`]; and where groups end, what is left of the run as far as it is whole good frames, in one step too.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool>(
    run: &RxRun,
    shape: &RxShape,
    quirks: F::Quirks,
) -> usize {
    const { assert!(kernel::has_vectors::<F>()) };
    let len_mask = splat(((1u64 << F::LEN_BITS) - 1) << 32);
    let whole = splat(F::DONE | F::LAST);
    let judged = splat(F::DONE | F::LAST | F::ERROR);
    let limit = splat(shape.meta_limit);
    let mut from = 0;
    // Groups are looked at whole.
    while from < run.count && from + GROUP <= run.to_end {
        let at = run.words.at(from * F::WORDS);
        // SAFETY: the ring has the group.
        let status = unsafe { load_column::<F, true>(at) };
        let mut wrong = _mm512_cmpneq_epi64_mask(_mm512_and_si512(status, judged), whole);
        // What the device wrote before the DONE that was seen is visible after this.
        fence(Ordering::Acquire);
        let mut raw = status;
        if F::LEN_WORD == 0 {
            // Loaded after the status that shows it complete.
            // SAFETY: as above.
            raw = unsafe { load_column::<F, false>(at) };
        }
        // Has a write-back left its bits?
        let unwritten = _mm512_testn_epi64_mask(raw, splat(F::WRITTEN));
        // Lengths where a packet has them.
        let len = _mm512_and_si512(_mm512_srlv_epi64(raw, splat(u64::from(F::LEN_SHIFT - 32))), len_mask);
        wrong |= _mm512_cmpgt_epu64_mask(len, limit);
        let left = run.count - from;
        // Of a group, the last descriptor's write-back says enough of the others.
        if wrong | unwritten & 0x80 == 0 && left >= GROUP {
            // SAFETY: the group is the run's, whole, good and done.
            unsafe { take::<F, INFO, true>(run, from, GROUP, len, shape, quirks) };
            from += GROUP;
            continue;
        }
        // All that are left, as it mostly is, so that nothing that follows waits for what the masks say.
        let count = match (FIRST.get(left), LAST.get(left)) {
            (Some(first), Some(last)) if wrong & first == 0 && unwritten & last == 0 => left,
            _ => leading(wrong, unwritten, left),
        };
        // SAFETY: as above, for the first `count`, which are no more than are left.
        unsafe { take::<F, INFO, false>(run, from, count, len, shape, quirks) };
        return from + count;
    }
    from
}

/// The lanes of the first so many of eight descriptors, and that of the last of these, in the order of this module.
static FIRST: [u8; GROUP] = [0, 0x01, 0x05, 0x15, 0x55, 0x57, 0x5f, 0x7f];
static LAST: [u8; GROUP] = [0, 0x01, 0x04, 0x10, 0x40, 0x02, 0x08, 0x20];

/// How many descriptors from the first on, of `left`, can be taken: none of them wrong, and the last one written, since the
/// others were done before. The masks are in the order of this module.
#[inline]
#[target_feature(enable = "bmi1,bmi2,lzcnt")]
fn leading(wrong: u8, unwritten: u8, left: usize) -> usize {
    let in_order = |mask: u8| _pext_u32(mask.into(), 0x55) | _pext_u32(mask.into(), 0xaa) << 4;
    let end = _tzcnt_u32(in_order(wrong) | 1 << left.min(GROUP));
    let written = !in_order(unwritten) & ((1 << end) - 1);
    (u32::BITS - _lzcnt_u32(written)) as usize
}

/// Takes `count` descriptors of the group that begins with `from`, whose lengths are `len`: all eight with `WHOLE`.
///
/// # Safety
/// The run's contract, in which they are whole good frames, seen done.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
unsafe fn take<F: RxFormat, const INFO: bool, const WHOLE: bool>(
    run: &RxRun,
    from: usize,
    count: usize,
    len: __m512i,
    shape: &RxShape,
    quirks: F::Quirks,
) {
    let stride = _mm512_set1_epi32(shape.buffers.stride as i32);
    let (base, iova_base) = (splat(shape.buffers.base), splat(shape.buffers.iova_base));
    let tag = splat(shape.meta_tag);
    let at = run.words.at(from * F::WORDS);
    if INFO {
        // SAFETY: the ring has the group and the run a group of metadata more than it needs (contract), the caller's alone; those
        // that count were seen done. This function needs the same of the CPU.
        unsafe { F::infos_avx512(at, &mut *run.infos.add(from).cast(), quirks) };
    }
    // SAFETY: a group of slots is in the ring, of places there is one more than the run needs, and of buffers behind the end of
    // the fresh ones (contract); nobody else uses them meanwhile. A packet is exactly address and meta. Each slot's buffer was the
    // ring's alone, the device is done with it, the length fits it, and the slot gets another one. Places behind `count` are
    // nobody's, slots behind it stay as they are.
    let new = unsafe {
        let slots = run.slots.add(from);
        let old = lanes(_mm256_loadu_si256(slots.cast::<__m256i>()));
        let meta = _mm512_ternarylogic_epi64::<OR3>(len, old, tag);
        let addr = _mm512_add_epi64(_mm512_mul_epu32(old, stride), base);
        let places = run.places.add(from).cast::<__m512i>();
        _mm512_storeu_si512(places, _mm512_unpacklo_epi64(addr, meta));
        _mm512_storeu_si512(places.add(1), _mm512_unpackhi_epi64(addr, meta));
        let new = _mm256_loadu_si256(run.fresh.sub(from + count).cast::<__m256i>());
        if WHOLE {
            _mm256_storeu_si256(slots.cast::<__m256i>(), new);
        } else {
            _mm256_mask_storeu_epi32(slots.cast::<i32>(), ones(count) as u8, new);
        }
        new
    };
    let at = at.cast_mut();
    // SAFETY: descriptors seen done; they are the driver's, so nobody reads them before the doorbell. Those behind `count` are
    // the device's, and what a mask leaves out is not written.
    unsafe {
        let store = |line: usize, words: __m512i| {
            if WHOLE {
                _mm512_storeu_si512(at.add(8 * line).cast(), words);
            } else {
                _mm512_mask_storeu_epi64(at.add(8 * line).cast(), (ones(count * F::WORDS) >> (8 * line)) as u8, words);
            }
        };
        if F::WORDS == 2 {
            let zero = _mm512_setzero_si512();
            let iova = _mm512_add_epi64(_mm512_mul_epu32(lanes(new), stride), iova_base);
            store(0, _mm512_unpacklo_epi64(iova, zero));
            store(1, _mm512_unpackhi_epi64(iova, zero));
        } else {
            // Whole lines of two descriptors each.
            let iova = _mm512_add_epi64(_mm512_mul_epu32(_mm512_cvtepu32_epi64(new), stride), iova_base);
            for pair in 0..GROUP / 2 {
                // Lane 2 * pair to lane 0, and the next to lane 4.
                let pick = _mm512_add_epi64(_mm512_setr_epi64(0, 0, 0, 0, 1, 0, 0, 0), splat(2 * pair as u64));
                store(pair, _mm512_maskz_permutexvar_epi64(0b0001_0001, pick, iova));
            }
        }
    }
}

/// The lowest `count` bits, at most 32.
#[inline]
#[target_feature(enable = "bmi1,bmi2,lzcnt")]
fn ones(count: usize) -> u32 {
    _bzhi_u32(u32::MAX, count as u32)
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
            kernel::fetch_ahead(at.cast());
            kernel::fetch_ahead(at.add(1).cast());
            _mm512_storeu_si512(at, _mm512_unpacklo_epi64(word0, word1));
            _mm512_storeu_si512(at.add(1), _mm512_unpackhi_epi64(word0, word1));
            _mm256_storeu_si256(run.slots.add(GROUP * eight).cast::<__m256i>(), numbers);
        }
    }
    // SAFETY: the caller's contract.
    unsafe { kernel::tx_run::<F>(run, GROUP * eights) }
}
