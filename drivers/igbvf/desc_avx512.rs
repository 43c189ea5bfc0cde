//! Metadata of eight receive descriptors of the 82576 and I350 at once, with AVX-512.
//!
//! Called by [`IgbRx`](super::IgbRx) alone. What always holds: it makes of each what `packed` does.

use std::arch::x86_64::{
    __m512i, _mm512_mask_blend_epi64, _mm512_or_si512, _mm512_slli_epi16, _mm512_srli_epi16, _mm512_test_epi64_mask,
};

use super::desc::{IPE, L4E, LB, Quirks};
use super::intel::desc::rx;
use super::intel::desc_avx512::{flags, metadata};
use crate::mem::PackedInfo;
use crate::ring::columns512::{load, splat, store};

/// As [`RxFormat::infos_avx512`](crate::RxFormat::infos_avx512).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn infos(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], quirks: Quirks) {
    // SAFETY: the caller's contract.
    let [word0, word1, ..] = unsafe { load::<2>(at, words1) };
    let mut tags = word1;
    if quirks.big_endian_loopback_tag {
        let swapped = _mm512_or_si512(_mm512_slli_epi16::<8>(word1), _mm512_srli_epi16::<8>(word1));
        tags = _mm512_mask_blend_epi64(_mm512_test_epi64_mask(word1, splat(LB)), word1, swapped);
    }
    store(infos, metadata(flags::<{ rx::TYPE_ETQF }, { L4E | IPE }>(word0, word1), tags, word0));
}
