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
use super::kernel::{self, Buffers, GROUP, RxRun, RxShape, TX_WORDS, TxRun, TxShape};
use crate::mem::PacketBuf;

/// Packets or descriptors in a vector.
pub(super) const HALF: usize = GROUP / 2;

/// The first two words of the descriptors `AT + PLUS` and the next, as they are at this moment.
///
/// # Safety
/// These descriptors of `F` can be read from `descriptors` on.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_pair<F: RxFormat, const AT: usize, const PLUS: usize>(descriptors: *const u64) -> __m256i {
    let value;
    // SAFETY: reads the descriptors (contract) and nothing else. Not `pure`: the device changes what is there.
    unsafe {
        if F::WORDS == 2 {
            asm!("vmovdqu {0}, [{1} + {2}]", out(ymm_reg) value, in(reg) descriptors,
                const (AT + PLUS) * 8 * F::WORDS, options(nostack, preserves_flags, readonly));
        } else {
            asm!("vmovdqu {0:x}, [{1} + {2}]", "vinserti128 {0}, {0}, [{1} + {3}], 1",
                out(ymm_reg) value, in(reg) descriptors, const (AT + PLUS) * 8 * F::WORDS,
                const (AT + PLUS + 1) * 8 * F::WORDS, options(nostack, preserves_flags, readonly));
        }
    }
    value
}

/// Word `WORD` of four descriptors from `AT` on, in the order of this module.
///
/// # Safety
/// As `load_pair`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_half<F: RxFormat, const AT: usize, const WORD: usize>(descriptors: *const u64) -> __m256i {
    // SAFETY: the caller's contract.
    let (p2, p0) = unsafe { (load_pair::<F, AT, 2>(descriptors), load_pair::<F, AT, 0>(descriptors)) };
    if WORD == 0 { _mm256_unpacklo_epi64(p0, p2) } else { _mm256_unpackhi_epi64(p0, p2) }
}

/// Word `WORD` of four or eight descriptors, the last ones first.
///
/// # Safety
/// As `load_pair`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_halves<F: RxFormat, const HALVES: usize, const WORD: usize>(
    descriptors: *const u64,
) -> [__m256i; HALVES] {
    const { assert!(HALVES == 1 || HALVES == 2) };
    let mut halves = [_mm256_setzero_si256(); HALVES];
    // SAFETY: the caller's contract.
    unsafe {
        if HALVES == 2 {
            halves[HALVES - 1] = load_half::<F, HALF, WORD>(descriptors);
        }
        halves[0] = load_half::<F, 0, WORD>(descriptors);
    }
    halves
}

/// Four buffer numbers as 64-bit lanes in the order 0, 2, 1, 3.
///
/// # Safety
/// They can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn lanes(numbers: *const u32) -> __m256i {
    // SAFETY: the caller's contract.
    let numbers = unsafe { _mm_loadu_si128(numbers.cast::<__m128i>()) };
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

/// What makes addresses of buffer numbers, as `lanes` gives these.
pub(super) struct Places {
    stride: __m256i,
    base: __m256i,
    iova_base: __m256i,
}

impl Places {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn new(buffers: &Buffers) -> Places {
        let stride = _mm256_set1_epi32(buffers.stride as i32);
        Places { stride, base: splat(buffers.base), iova_base: splat(buffers.iova_base) }
    }

    /// Where the data of buffers is.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn addr(&self, numbers: __m256i) -> __m256i {
        _mm256_add_epi64(_mm256_mul_epu32(numbers, self.stride), self.base)
    }

    /// Where the device sees it.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn iova(&self, numbers: __m256i) -> __m256i {
        _mm256_add_epi64(_mm256_mul_epu32(numbers, self.stride), self.iova_base)
    }
}

/// Judges four or eight descriptors, all but their lengths: not zero where one is no whole good frame of one buffer, or nobody has
/// written the last one (see `RxQueue::is_past`; the earlier ones were done before it). And the lengths, in bits 32 to 47, of the
/// descriptors 0, 2, 1, 3 (and 4, 6, 5, 7), each of which is to be checked before it is used.
///
/// # Safety
/// They can be read from `descriptors` on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn judge<F: RxFormat, const HALVES: usize>(descriptors: *const u64) -> (__m256i, [__m256i; HALVES]) {
    const { assert!(kernel::has_vectors::<F>()) };
    let whole = splat(F::DONE | F::LAST);
    // SAFETY: the caller's contract.
    let status = unsafe { load_halves::<F, HALVES, 1>(descriptors) };
    let all = _mm256_and_si256(_mm256_and_si256(status[0], status[HALVES - 1]), whole);
    let any = _mm256_and_si256(_mm256_or_si256(status[0], status[HALVES - 1]), splat(F::ERROR));
    let wrong = _mm256_xor_si256(_mm256_or_si256(all, any), whole);
    // What the device wrote before the DONE that was seen is visible after this.
    fence(Ordering::Acquire);
    let mut lens = status;
    if F::LEN_WORD == 0 {
        // Loaded after the status that shows it complete.
        // SAFETY: as above.
        lens = unsafe { load_halves::<F, HALVES, 0>(descriptors) };
    }
    // The bits that a write-back leaves in the last descriptor.
    let written = _mm256_and_si256(lens[HALVES - 1], splat(F::WRITTEN));
    let unwritten = _mm256_cmpeq_epi64(written, _mm256_setzero_si256());
    let last = _mm256_setr_epi64x(0, 0, 0, -1);
    let len_mask = splat(((1u64 << F::LEN_BITS) - 1) << 32);
    (
        _mm256_or_si256(wrong, _mm256_and_si256(unwritten, last)),
        lens.map(|lens| _mm256_and_si256(_mm256_srlv_epi64(lens, splat(u64::from(F::LEN_SHIFT - 32))), len_mask)),
    )
}

/// As [`kernel::rx_groups`]. With `HALF_ONE` it is half a group instead, where the run and the ring have it.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool, const HALF_ONE: bool>(
    run: &RxRun,
    shape: &RxShape,
    quirks: F::Quirks,
) -> usize {
    // SAFETY: the run has the descriptors (contract), and the ring those behind them to the end of the group.
    unsafe {
        if HALF_ONE {
            let is_there = HALF <= run.count && GROUP <= run.to_end;
            return if is_there && take::<F, INFO, 1>(run, 0, shape, quirks) { HALF } else { 0 };
        }
        let groups = run.count / GROUP;
        for group in 0..groups {
            if !take::<F, INFO, 2>(run, group * GROUP, shape, quirks) {
                return group * GROUP;
            }
        }
        groups * GROUP
    }
}

/// Takes four or eight descriptors from number `from` on if all of them are whole good frames of one buffer each.
///
/// # Safety
/// The run's contract; it has these descriptors, and the ring eight.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn take<F: RxFormat, const INFO: bool, const HALVES: usize>(
    run: &RxRun,
    from: usize,
    shape: &RxShape,
    quirks: F::Quirks,
) -> bool {
    let (places, limit, tag) = (Places::new(&shape.buffers), splat(shape.meta_limit), splat(shape.meta_tag));
    let at = run.words.at(from * F::WORDS);
    // SAFETY: the run's descriptors exist (contract).
    let (wrong, lens) = unsafe { judge::<F, HALVES>(at) };
    // As in `kernel::plain`: where their union fits the buffer, every one does.
    let long = _mm256_subs_epu16(_mm256_or_si256(lens[0], lens[HALVES - 1]), limit);
    if !is_zero(_mm256_or_si256(wrong, long)) {
        return false;
    }
    if INFO {
        // SAFETY: the ring has the group and the run a group of metadata more than it needs (contract), the caller's alone; those
        // that count were seen done. This function needs the same of the CPU.
        unsafe { F::infos_avx2(at, &mut *run.infos.add(from).cast(), quirks) };
    }
    for (half, len) in lens.into_iter().enumerate() {
        let first = half * HALF;
        // SAFETY: half a group of each (contract), which nobody else uses meanwhile; a packet is exactly address and meta. Each
        // slot's buffer was the ring's alone, the device is done with it, the length fits it, and the slot gets another one.
        // The descriptors are the driver's since they were done.
        unsafe {
            let slots = run.slots.add(from + first);
            let old = lanes(slots);
            let meta = _mm256_or_si256(_mm256_or_si256(len, old), tag);
            store_four(run.places.add(from + first).cast(), places.addr(old), meta);
            let fresh = run.fresh.sub(from + HALVES * HALF).add(first);
            arm::<F>(at.add(first * F::WORDS).cast_mut(), slots, fresh, &places);
        }
    }
    true
}

/// Puts four buffers into slots and descriptors.
///
/// # Safety
/// There are four of each, which are the caller's, as are the buffers, which it gives up.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn arm<F: RxFormat>(descriptors: *mut u64, slots: *mut u32, fresh: *const u32, places: &Places) {
    let zero = _mm256_setzero_si256();
    // SAFETY: the contract; descriptors that are the driver's are read by nobody before the doorbell.
    unsafe {
        *slots.cast::<[u32; HALF]>() = *fresh.cast::<[u32; HALF]>();
        let iova = places.iova(lanes(fresh));
        if F::WORDS == 2 {
            store_four(descriptors, iova, zero);
        } else {
            let pairs = [_mm256_unpacklo_epi64(iova, zero), _mm256_unpackhi_epi64(iova, zero)];
            for (pair, words) in pairs.into_iter().enumerate() {
                let at = descriptors.add(2 * pair * F::WORDS);
                _mm_storeu_si128(at.cast(), _mm256_castsi256_si128(words));
                _mm_storeu_si128(at.add(F::WORDS).cast(), _mm256_extracti128_si256::<1>(words));
            }
        }
    }
}

/// Writes four pairs of words, which are in the order of this module.
///
/// # Safety
/// 64 bytes can be written from `at` on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_four(at: *mut u64, first: __m256i, second: __m256i) {
    // SAFETY: the caller's contract.
    unsafe {
        _mm256_storeu_si256(at.cast(), _mm256_unpacklo_epi64(first, second));
        _mm256_storeu_si256(at.add(4).cast(), _mm256_unpackhi_epi64(first, second));
    }
}

/// The second words of the transmit descriptors of whole frames whose lengths are in bits 32 to 47, all other bits 0.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn second_words<F: TxFormat>(len: __m256i) -> __m256i {
    let (in_low, shift) = const { kernel::per_byte::<F>() };
    let mut words = _mm256_add_epi64(splat(F::WHOLE), _mm256_sllv_epi64(len, splat(shift)));
    if in_low {
        words = _mm256_add_epi64(words, _mm256_srli_epi64::<32>(len));
    }
    words
}

/// As [`kernel::tx_run`], from the first packet on.
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn tx_run<F: TxFormat>(run: &TxRun<'_>) -> usize {
    let TxShape { delta, least, span } = *run.shape;
    let (least, span, delta) = (splat(least), splat(span), splat(delta));
    let end = run.count / HALF * HALF;
    let first_of_each = _mm256_setr_epi32(0, 4, 2, 6, 0, 0, 0, 0);
    let mut at = 0;
    while at < end {
        // SAFETY: four packets of 16 bytes, all initialised (contract).
        let (p0, p2) = unsafe {
            let from = run.packets.add(at).cast::<__m256i>();
            (_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1)))
        };
        let addr = _mm256_unpacklo_epi64(p0, p2);
        let meta = _mm256_unpackhi_epi64(p0, p2);
        if !is_zero(_mm256_sub_epi32(_mm256_max_epu32(_mm256_sub_epi32(meta, least), span), span)) {
            break;
        }
        let len = _mm256_and_si256(meta, splat(0xffff << 32));
        let numbers = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(meta, first_of_each));
        // SAFETY: the slots and descriptors of these four exist (contract) and are the driver's.
        unsafe {
            let words = run.words.at(at * TX_WORDS).cast_mut();
            kernel::fetch_ahead(words);
            store_four(words, _mm256_add_epi64(addr, delta), second_words::<F>(len));
            _mm_storeu_si128(run.slots.add(at).cast::<__m128i>(), numbers);
        }
        at += HALF;
    }
    // SAFETY: the caller's contract.
    unsafe { kernel::tx_run::<F>(run, at) }
}

const _: () = assert!(PacketBuf::LAYOUT_IS_ADDR_INDEX_LEN_TAG && GROUP == 8);
