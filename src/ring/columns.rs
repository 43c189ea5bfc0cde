//! Eight descriptors in vectors of AVX2, for formats that decode metadata so.
//!
//! A column is the same 32 bits of all eight descriptors, the first one's in the lowest lane. Formats get columns, make the
//! flags of [`PackedInfo`] of them and hand those back with the columns that hold tag and hash. What always holds: descriptors
//! are read by `asm`, so that the compiler can neither split, repeat nor move what it knows nothing about; that a load of 16
//! bytes may be two accesses does not matter, because a device that keeps the rules does not write here any more.

use std::arch::asm;
use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_storeu_si128, _mm256_and_si256, _mm256_blend_epi16,
    _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_set1_epi32, _mm256_sll_epi32, _mm256_srl_epi32,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use crate::mem::PackedInfo;

/// The four columns that words `FROM` and `FROM + 1` are, low half before high half, of eight descriptors of `WORDS` words.
///
/// # Safety
/// The eight descriptors can be read.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn load<const WORDS: usize, const FROM: usize>(descriptors: *const u64) -> [__m256i; 4] {
    const { assert!(FROM + 2 <= WORDS) };
    let (p0, p1, p2, p3): (__m256i, __m256i, __m256i, __m256i);
    // SAFETY: reads 16 bytes of each of the eight (contract) and nothing else. Not `pure`: what is there has changed.
    unsafe {
        asm!(
            "vmovdqu {p0:x}, [{at} + {d0}]",
            "vmovdqu {p1:x}, [{at} + {d1}]",
            "vmovdqu {p2:x}, [{at} + {d2}]",
            "vmovdqu {p3:x}, [{at} + {d3}]",
            "vinserti128 {p0}, {p0}, [{at} + {d4}], 1",
            "vinserti128 {p1}, {p1}, [{at} + {d5}], 1",
            "vinserti128 {p2}, {p2}, [{at} + {d6}], 1",
            "vinserti128 {p3}, {p3}, [{at} + {d7}], 1",
            at = in(reg) descriptors,
            p0 = out(ymm_reg) p0,
            p1 = out(ymm_reg) p1,
            p2 = out(ymm_reg) p2,
            p3 = out(ymm_reg) p3,
            d0 = const 8 * FROM,
            d1 = const 8 * (FROM + WORDS),
            d2 = const 8 * (FROM + 2 * WORDS),
            d3 = const 8 * (FROM + 3 * WORDS),
            d4 = const 8 * (FROM + 4 * WORDS),
            d5 = const 8 * (FROM + 5 * WORDS),
            d6 = const 8 * (FROM + 6 * WORDS),
            d7 = const 8 * (FROM + 7 * WORDS),
            options(nostack, preserves_flags, readonly),
        );
    }
    // Of the descriptors 0 and 4, 1 and 5, 2 and 6, 3 and 7: unpacking works on either half alone.
    let (low01, high01) = (_mm256_unpacklo_epi32(p0, p1), _mm256_unpackhi_epi32(p0, p1));
    let (low23, high23) = (_mm256_unpacklo_epi32(p2, p3), _mm256_unpackhi_epi32(p2, p3));
    [
        _mm256_unpacklo_epi64(low01, low23),
        _mm256_unpackhi_epi64(low01, low23),
        _mm256_unpacklo_epi64(high01, high23),
        _mm256_unpackhi_epi64(high01, high23),
    ]
}

/// The bits `FROM` of a column, at the places `TO`; all others are 0.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn moved<const FROM: u64, const TO: u64>(column: __m256i) -> __m256i {
    const {
        assert!(FROM != 0 && FROM <= 0xffff_ffff && TO <= 0xffff_ffff);
        assert!(FROM >> FROM.trailing_zeros() == TO >> TO.trailing_zeros());
    }
    let (from, to) = (FROM.trailing_zeros() as i32, TO.trailing_zeros() as i32);
    let there = if to >= from {
        _mm256_sll_epi32(column, _mm_cvtsi32_si128(to - from))
    } else {
        _mm256_srl_epi32(column, _mm_cvtsi32_si128(from - to))
    };
    _mm256_and_si256(there, splat(TO))
}

/// A column whose every lane is this.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn splat(value: u64) -> __m256i {
    _mm256_set1_epi32(value as i32)
}

/// Writes metadata: the flags are in the low 16 bits of a column, the tags in the high 16 bits of another.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn store(infos: &mut [PackedInfo; 8], flags: __m256i, tags: __m256i, hashes: __m256i) {
    let low = _mm256_blend_epi16::<0b1010_1010>(flags, tags);
    // The first and third two of either half.
    let (a, b) = (_mm256_unpacklo_epi32(low, hashes), _mm256_unpackhi_epi32(low, hashes));
    let at = infos.as_mut_ptr().cast::<__m128i>();
    // SAFETY: 64 bytes of numbers.
    unsafe {
        _mm_storeu_si128(at, _mm256_castsi256_si128(a));
        _mm_storeu_si128(at.add(1), _mm256_castsi256_si128(b));
        _mm_storeu_si128(at.add(2), _mm256_extracti128_si256::<1>(a));
        _mm_storeu_si128(at.add(3), _mm256_extracti128_si256::<1>(b));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::columns512::ORDER;
    use super::super::{MAX_WORDS, RxFormat};
    use crate::mem::PackedInfo;

    /// Random words.
    pub(crate) fn noise(seed: u64) -> impl FnMut() -> u64 {
        println!("seed {seed}");
        let mut state = seed;
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ mixed >> 31
        }
    }

    /// Holds a format's `infos_avx2` and `infos_avx512` against its `packed`, descriptor by descriptor, eight by eight.
    pub(crate) fn same<F: RxFormat>(quirks: F::Quirks, descriptors: impl IntoIterator<Item = [u64; MAX_WORDS]>) {
        if !std::arch::is_x86_feature_detected!("avx2") {
            println!("this CPU has no AVX2: nothing is tested");
            return;
        }
        let wide = std::arch::is_x86_feature_detected!("avx512f") && std::arch::is_x86_feature_detected!("avx512bw");
        if !wide {
            println!("this CPU has no AVX-512: only AVX2 is tested");
        }
        let mut descriptors = descriptors.into_iter().peekable();
        while descriptors.peek().is_some() {
            let rows: [_; 8] = std::array::from_fn(|_| {
                let row = descriptors.next().unwrap_or_default();
                std::array::from_fn(|word| if word < F::WORDS { row[word] } else { 0 })
            });
            let mut words: Vec<u64> =
                rows.iter().flat_map(|row: &[u64; MAX_WORDS]| &row[..F::WORDS]).copied().collect();
            let expected = rows.map(|row| F::packed(|word| row[word], quirks));
            let mut infos = [PackedInfo::default(); 8];
            // SAFETY: eight descriptors; the CPU has AVX2.
            unsafe { F::infos_avx2(words.as_mut_ptr(), &mut infos, quirks) };
            assert_eq!(infos, expected, "AVX2: {rows:#x?}");
            if wide {
                infos = Default::default();
                // SAFETY: as above, and the CPU has AVX-512; a vector is eight words.
                unsafe {
                    let status = ORDER.map(|i| rows[i][F::STATUS]);
                    let status = std::mem::transmute::<[u64; 8], std::arch::x86_64::__m512i>(status);
                    F::infos_avx512(words.as_mut_ptr(), status, &mut infos, quirks)
                };
                assert_eq!(infos, expected, "AVX-512: {rows:#x?}");
            }
        }
    }
}
