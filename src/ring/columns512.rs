//! Eight descriptors in vectors of AVX-512, for formats that decode metadata so.
//!
//! A column is the same word of all eight descriptors, in the order that unpacking gives: 0, 4, 1, 5, 2, 6, 3, 7. What the
//! module `columns` says of reading holds here.

use std::arch::asm;
use std::arch::x86_64::{
    __m512i, _mm_cvtsi32_si128, _mm512_and_si512, _mm512_permutexvar_epi64, _mm512_set1_epi64, _mm512_setr_epi64,
    _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_sll_epi64, _mm512_srl_epi64, _mm512_storeu_si512,
    _mm512_unpackhi_epi64, _mm512_unpacklo_epi64,
};

use super::MAX_WORDS;
use crate::mem::PackedInfo;

/// The descriptors in a column's lanes.
#[cfg(test)]
pub(crate) const ORDER: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The columns of eight descriptors of `WORDS` words, whose words 1 the caller has; those of words that they lack are 0.
///
/// # Safety
/// The eight descriptors can be read.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) unsafe fn load<const WORDS: usize>(descriptors: *const u64, words1: __m512i) -> [__m512i; MAX_WORDS] {
    const { assert!(WORDS == 2 || WORDS == 4) };
    let (d0, d1, d2, d3): (__m512i, __m512i, __m512i, __m512i);
    if WORDS == 2 {
        // SAFETY: reads 128 bytes, which are eight descriptors (contract), and nothing else. Not `pure`: what is there has
        // changed.
        unsafe {
            asm!("vmovdqu64 {d0}, [{at}]", "vmovdqu64 {d1}, [{at} + 64]", at = in(reg) descriptors, d0 = out(zmm_reg) d0,
                d1 = out(zmm_reg) d1, options(nostack, preserves_flags, readonly));
        }
        let none = _mm512_setzero_si512();
        return [_mm512_unpacklo_epi64(d0, d1), words1, none, none];
    }
    // SAFETY: as above, of 256 bytes.
    unsafe {
        asm!("vmovdqu64 {d0}, [{at}]", "vmovdqu64 {d1}, [{at} + 64]", "vmovdqu64 {d2}, [{at} + 128]",
            "vmovdqu64 {d3}, [{at} + 192]", at = in(reg) descriptors, d0 = out(zmm_reg) d0, d1 = out(zmm_reg) d1,
            d2 = out(zmm_reg) d2, d3 = out(zmm_reg) d3, options(nostack, preserves_flags, readonly));
    }
    // Of the descriptors 0 and 4 an even word, then the one two further, of 1 and 5 the same; and of 2 and 6, 3 and 7.
    let (even, even2) = (_mm512_unpacklo_epi64(d0, d2), _mm512_unpacklo_epi64(d1, d3));
    let (odd, odd2) = (_mm512_unpackhi_epi64(d0, d2), _mm512_unpackhi_epi64(d1, d3));
    [
        _mm512_shuffle_i64x2::<0b10_00_10_00>(even, even2),
        words1,
        _mm512_shuffle_i64x2::<0b11_01_11_01>(even, even2),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(odd, odd2),
    ]
}

/// The bits `FROM` of a column, at the places `TO`; all others are 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn moved<const FROM: u64, const TO: u64>(column: __m512i) -> __m512i {
    const { assert!(FROM != 0 && FROM >> FROM.trailing_zeros() == TO >> TO.trailing_zeros()) };
    let (from, to) = (FROM.trailing_zeros() as i32, TO.trailing_zeros() as i32);
    let there = if to >= from {
        _mm512_sll_epi64(column, _mm_cvtsi32_si128(to - from))
    } else {
        _mm512_srl_epi64(column, _mm_cvtsi32_si128(from - to))
    };
    _mm512_and_si512(there, splat(TO))
}

/// A column whose every lane is this.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn splat(value: u64) -> __m512i {
    _mm512_set1_epi64(value as i64)
}

/// Writes a column of metadata.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn store(infos: &mut [PackedInfo; 8], column: __m512i) {
    let in_order = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), column);
    // SAFETY: 64 bytes of numbers.
    unsafe { _mm512_storeu_si512(infos.as_mut_ptr().cast::<__m512i>(), in_order) };
}
