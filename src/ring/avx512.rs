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
    _mm512_loadu_si512, _mm512_mask_loadu_epi64, _mm512_mask_storeu_epi64, _mm512_maskz_permutexvar_epi64,
    _mm512_mul_epu32, _mm512_or_si512, _mm512_permutexvar_epi32, _mm512_set1_epi32, _mm512_set1_epi64,
    _mm512_setr_epi32, _mm512_setr_epi64, _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_sllv_epi64,
    _mm512_srli_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_sub_epi32, _mm512_sub_epi64,
    _mm512_testn_epi64_mask, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _pext_u32, _tzcnt_u32,
};
use std::sync::atomic::{Ordering, fence};

use super::format::{RxFormat, TxFormat};
use super::kernel::{self, Buffers, GROUP, RxRun, RxShape, TX_WORDS, TxRun, TxShape};

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
unsafe fn load_column<F: RxFormat, const HIGH: bool>(words: *const u64) -> __m512i {
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

/// What makes addresses of buffer numbers, as `lanes` gives these.
pub(super) struct Places {
    stride: __m512i,
    base: __m512i,
    iova_base: __m512i,
}

impl Places {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(buffers: &Buffers) -> Places {
        let stride = _mm512_set1_epi32(buffers.stride as i32);
        Places { stride, base: splat(buffers.base), iova_base: splat(buffers.iova_base) }
    }

    /// Where the data of buffers is.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn addr(&self, numbers: __m512i) -> __m512i {
        _mm512_add_epi64(_mm512_mul_epu32(numbers, self.stride), self.base)
    }

    /// Where the device sees it.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn iova(&self, numbers: __m512i) -> __m512i {
        _mm512_add_epi64(_mm512_mul_epu32(numbers, self.stride), self.iova_base)
    }
}

/// What eight descriptors say, a bit or a lane each.
pub(super) struct Found {
    /// No whole good frames of one buffer whose length may be taken.
    wrong: u8,
    /// Nobody seems to have written these: they are done only where a later one is (see `RxQueue::is_past`).
    unwritten: u8,
    /// The status words.
    pub(super) status: __m512i,
    /// Lengths, in bits 32 to 47.
    pub(super) len: __m512i,
}

impl Found {
    /// Looks at the eight descriptors from `words` on, whose lengths may be from `least` on `span` more, which are where lengths are.
    /// What the device wrote to those that it reported done is visible then.
    ///
    /// # Safety
    /// They can be read.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn look<F: RxFormat>(words: *const u64, least: __m512i, span: __m512i) -> Found {
        const { assert!(kernel::has_vectors::<F>()) };
        let (whole, judged) = (splat(F::DONE | F::LAST), splat(F::DONE | F::LAST | F::ERROR));
        // SAFETY: the caller's contract.
        let status = unsafe { load_column::<F, true>(words) };
        let wrong = _mm512_cmpneq_epi64_mask(_mm512_and_si512(status, judged), whole);
        // What the device wrote before the DONE that was seen is visible after this.
        fence(Ordering::Acquire);
        let mut raw = status;
        if F::LEN_WORD == 0 {
            // Loaded after the status that shows it complete.
            // SAFETY: as above.
            raw = unsafe { load_column::<F, false>(words) };
        }
        let unwritten = _mm512_testn_epi64_mask(raw, splat(F::WRITTEN));
        let len_mask = splat(((1u64 << F::LEN_BITS) - 1) << 32);
        let len = _mm512_and_si512(_mm512_srlv_epi64(raw, splat(u64::from(F::LEN_SHIFT - 32))), len_mask);
        let wrong = wrong | _mm512_cmpgt_epu64_mask(_mm512_sub_epi64(len, least), span);
        Found { wrong, unwritten, status, len }
    }

    /// Can all eight be taken? The last one's write-back says enough of the others.
    #[inline(always)]
    pub(super) fn is_whole(&self) -> bool {
        self.wrong | self.unwritten & 0x80 == 0
    }

    /// How many can be taken from the first on, at most eight and at most `left`.
    #[inline]
    #[target_feature(enable = "bmi1,bmi2,lzcnt")]
    pub(super) fn count(&self, left: usize) -> usize {
        // All that are left, as it mostly is, so that nothing that follows waits for what the masks say.
        match (FIRST.get(left), LAST.get(left)) {
            (Some(first), Some(last)) if self.wrong & first == 0 && self.unwritten & last == 0 => left,
            _ => leading(self.wrong, self.unwritten, left),
        }
    }
}

/// As [`kernel::rx_groups`]; and where groups end, what is left of the run as far as it is whole good frames, in one step too.
/// With `ONE` it is one step in all, without what the compiler prepares for a loop.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool, const ONE: bool>(
    run: &RxRun,
    shape: &RxShape,
    quirks: F::Quirks,
) -> usize {
    let limit = splat(shape.meta_limit);
    let mut from = 0;
    // Groups are looked at whole.
    while from < run.count && from + GROUP <= run.to_end {
        // SAFETY: the ring has the group.
        let found = unsafe { Found::look::<F>(run.words.at(from * F::WORDS), _mm512_setzero_si512(), limit) };
        let left = run.count - from;
        if found.is_whole() && left >= GROUP {
            // SAFETY: the group is the run's, whole, good and done.
            unsafe { take::<F, INFO, true>(run, from, GROUP, &found, shape, quirks) };
            from += GROUP;
            if ONE {
                break;
            }
            continue;
        }
        let count = found.count(left);
        // SAFETY: as above, for the first `count`, which are no more than are left.
        unsafe { take::<F, INFO, false>(run, from, count, &found, shape, quirks) };
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

/// Takes `count` descriptors of the group that begins with `from`, which was `found`: all eight with `WHOLE`.
///
/// # Safety
/// The run's contract, in which they are whole good frames, seen done.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
unsafe fn take<F: RxFormat, const INFO: bool, const WHOLE: bool>(
    run: &RxRun,
    from: usize,
    count: usize,
    found: &Found,
    shape: &RxShape,
    quirks: F::Quirks,
) {
    let words = run.words.at(from * F::WORDS);
    if INFO {
        // SAFETY: the ring has the group and the run a group of metadata more than it needs (contract), the caller's alone; those
        // that count were seen done. This function needs the same of the CPU.
        unsafe { F::infos_avx512(words, found.status, &mut *run.infos.add(from).cast(), quirks) };
    }
    let (places, tag) = (Places::new(&shape.buffers), splat(shape.meta_tag));
    // SAFETY: a group of slots is in the ring, of places there is one more than the run needs, and of buffers behind the end of
    // the fresh ones (contract); nobody else uses them meanwhile. A packet is exactly address and meta. Each slot's buffer was the
    // ring's alone, the device is done with it, the length fits it, and the slot gets another one. Places behind `count` are
    // nobody's. Descriptors seen done are the driver's.
    unsafe {
        let slots = run.slots.add(from);
        let old = lanes(_mm256_loadu_si256(slots.cast::<__m256i>()));
        let meta = _mm512_or_si512(_mm512_or_si512(found.len, old), tag);
        store_eight::<true>(run.places.add(from).cast(), GROUP, places.addr(old), meta);
        arm::<F, WHOLE>(words.cast_mut(), slots, run.fresh.sub(from + count), count, &places);
    }
}

/// Puts `count` buffers into slots and descriptors: eight with `WHOLE`, else less or as many.
///
/// # Safety
/// There are `count` of the descriptors and the slots, which are the caller's, as are the buffers, which it gives up; eight of
/// these can be read.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn arm<F: RxFormat, const WHOLE: bool>(
    descriptors: *mut u64,
    slots: *mut u32,
    fresh: *const u32,
    count: usize,
    places: &Places,
) {
    // SAFETY: the contract; what a mask leaves out is not written. Descriptors that are the driver's are read by nobody before the
    // doorbell.
    unsafe {
        let new = _mm256_loadu_si256(fresh.cast::<__m256i>());
        store_numbers::<WHOLE>(slots, count, new);
        if F::WORDS == 2 {
            store_eight::<WHOLE>(descriptors, count, places.iova(lanes(new)), _mm512_setzero_si512());
        } else {
            // Whole lines of two descriptors each.
            let iova = places.iova(_mm512_cvtepu32_epi64(new));
            let first_of_each = lanes_0_and_4();
            for pair in 0..GROUP / 2 {
                // Lane 2 * pair to lane 0, and the next to lane 4.
                let pick = _mm512_add_epi64(_mm512_setr_epi64(0, 0, 0, 0, 1, 0, 0, 0), splat(2 * pair as u64));
                let line = _mm512_maskz_permutexvar_epi64(first_of_each, pick, iova);
                store::<WHOLE>(descriptors, pair, count * F::WORDS, line);
            }
        }
    }
}

/// The mask of the lanes 0 and 4, which the compiler does not know: where it does, it makes a zeroed vector for each choice of lanes.
#[inline]
#[target_feature(enable = "avx512f")]
fn lanes_0_and_4() -> u8 {
    let mut mask = 0b0001_0001;
    // SAFETY: does nothing.
    unsafe { asm!("/* {0:e} */", inout(reg) mask, options(pure, nomem, nostack, preserves_flags)) };
    mask as u8
}

/// Writes the first `count` of eight buffer numbers: all eight with `WHOLE`.
///
/// # Safety
/// They can be written from `at` on.
#[inline]
#[target_feature(enable = "avx512f,avx512vl,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn store_numbers<const WHOLE: bool>(at: *mut u32, count: usize, numbers: __m256i) {
    // SAFETY: the caller's contract.
    unsafe {
        if WHOLE {
            _mm256_storeu_si256(at.cast::<__m256i>(), numbers);
        } else {
            _mm256_mask_storeu_epi32(at.cast::<i32>(), ones(count) as u8, numbers);
        }
    }
}

/// Writes the first `count` of eight pairs of words, which are in the order of this module: all eight with `WHOLE`.
///
/// # Safety
/// They can be written from `at` on.
#[inline]
#[target_feature(enable = "avx512f,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn store_eight<const WHOLE: bool>(at: *mut u64, count: usize, first: __m512i, second: __m512i) {
    // SAFETY: the caller's contract.
    unsafe {
        store::<WHOLE>(at, 0, 2 * count, _mm512_unpacklo_epi64(first, second));
        store::<WHOLE>(at, 1, 2 * count, _mm512_unpackhi_epi64(first, second));
    }
}

/// Writes line `line` of eight words, as far as it is among the first `count` words from `at` on: all of it with `WHOLE`.
///
/// # Safety
/// So many words can be written from `at` on.
#[inline]
#[target_feature(enable = "avx512f,bmi1,bmi2,lzcnt")]
unsafe fn store<const WHOLE: bool>(at: *mut u64, line: usize, count: usize, words: __m512i) {
    let to = at.wrapping_add(8 * line).cast();
    // SAFETY: the caller's contract.
    unsafe {
        if WHOLE {
            _mm512_storeu_si512(to, words);
        } else {
            _mm512_mask_storeu_epi64(to.cast(), (ones(count) >> (8 * line)) as u8, words);
        }
    }
}

/// The lowest `count` bits, at most 32.
#[inline]
#[target_feature(enable = "bmi1,bmi2,lzcnt")]
fn ones(count: usize) -> u32 {
    _bzhi_u32(u32::MAX, count as u32)
}

/// The second words of the transmit descriptors of whole frames whose lengths are in bits 32 to 47, all other bits 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn second_words<F: TxFormat>(len: __m512i) -> __m512i {
    let (in_low, shift) = const { kernel::per_byte::<F>() };
    let mut words = _mm512_add_epi64(splat(F::WHOLE), _mm512_sllv_epi64(len, splat(shift)));
    if in_low {
        words = _mm512_add_epi64(words, _mm512_srli_epi64::<32>(len));
    }
    words
}

/// As [`kernel::tx_run`], from the first packet on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn tx_run<F: TxFormat>(run: &TxRun<'_>) -> usize {
    let TxShape { delta, least, span } = *run.shape;
    let (least, span, delta) = (splat(least), splat(span), splat(delta));
    let end = run.count / GROUP * GROUP;
    let mut at = 0;
    while at < end {
        // SAFETY: eight packets of 16 bytes, all initialised (contract).
        let (p0, p4) = unsafe {
            let from = run.packets.add(at).cast::<__m512i>();
            (_mm512_loadu_si512(from), _mm512_loadu_si512(from.add(1)))
        };
        let addr = _mm512_unpacklo_epi64(p0, p4);
        let meta = _mm512_unpackhi_epi64(p0, p4);
        if _mm512_cmpgt_epu32_mask(_mm512_sub_epi32(meta, least), span) != 0 {
            break;
        }
        let len = _mm512_and_si512(meta, splat(0xffff << 32));
        let numbers = numbers_in_order(meta);
        // SAFETY: the slots and descriptors of these eight exist (contract) and are the driver's.
        unsafe {
            let words = run.words.at(at * TX_WORDS).cast_mut();
            kernel::fetch_ahead(words);
            kernel::fetch_ahead(words.wrapping_add(GROUP));
            store_eight::<true>(words, GROUP, _mm512_add_epi64(addr, delta), second_words::<F>(len));
            _mm256_storeu_si256(run.slots.add(at).cast::<__m256i>(), numbers);
        }
        at += GROUP;
    }
    // SAFETY: the caller's contract.
    unsafe { kernel::tx_run::<F>(run, at) }
}

/// As [`kernel::tx_run`] from the first packet on, of a group at most: in one step.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn tx_group<F: TxFormat>(run: &TxRun<'_>) -> usize {
    let TxShape { delta, least, span } = *run.shape;
    let (count, least) = (run.count, splat(least));
    let words = ones(2 * count);
    // SAFETY: the packets that there are, of 16 bytes each (contract). The others read as plain ones.
    let (p0, p4) = unsafe {
        let from = run.packets.cast::<i64>();
        let (first, second) = (words as u8, (words >> 8) as u8);
        (_mm512_mask_loadu_epi64(least, first, from), _mm512_mask_loadu_epi64(least, second, from.wrapping_add(8)))
    };
    let addr = _mm512_unpacklo_epi64(p0, p4);
    let meta = _mm512_unpackhi_epi64(p0, p4);
    if _mm512_cmpgt_epu32_mask(_mm512_sub_epi32(meta, least), splat(span)) != 0 {
        // SAFETY: the caller's contract.
        return unsafe { kernel::tx_run::<F>(run, 0) };
    }
    let len = _mm512_and_si512(meta, splat(0xffff << 32));
    // SAFETY: as many slots and descriptors as packets exist (contract) and are the driver's; no more are written.
    unsafe {
        let to = run.words.at(0).cast_mut();
        store_eight::<false>(to, count, _mm512_add_epi64(addr, splat(delta)), second_words::<F>(len));
        store_numbers::<false>(run.slots, count, numbers_in_order(meta));
    }
    count
}

/// The buffer numbers of eight packets, whose second words are in the order of this module.
#[inline]
#[target_feature(enable = "avx512f")]
fn numbers_in_order(meta: __m512i) -> __m256i {
    // The low halves of the lanes.
    let in_order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm512_castsi512_si256(_mm512_permutexvar_epi32(in_order, meta))
}
