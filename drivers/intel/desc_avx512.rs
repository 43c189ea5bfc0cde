//! The flags of [`PackedInfo`] for eight advanced descriptors at once: what `desc::flags` is for one, with AVX-512.
//!
//! The families' files of this name make metadata of it. What always holds: every lane is what `desc` makes of the same
//! descriptor, which stays the oracle of both.
#![forbid(unsafe_code)]

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_mask_or_epi64, _mm512_maskz_mov_epi64, _mm512_or_si512, _mm512_test_epi64_mask,
    _mm512_testn_epi64_mask,
};

use super::desc::{ERROR_FLAGS, STATUS_FLAGS, rx};
use crate::mem::PackedInfo;
use crate::ring::columns512::{moved, splat};

/// As `desc_avx2::flags`, of the whole words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn flags<const OTHER: u64, const ERRORS: u64>(word0: __m512i, word1: __m512i) -> __m512i {
    let types = moved::<{ PackedInfo::TYPES << rx::TYPE_SHIFT }, { PackedInfo::TYPES }>(word0);
    let types = _mm512_maskz_mov_epi64(_mm512_testn_epi64_mask(word0, splat(OTHER)), types);
    let hashed = _mm512_test_epi64_mask(word0, splat(rx::RSS_TYPE));
    let about_packet = _mm512_mask_or_epi64(types, hashed, types, splat(PackedInfo::HASHED));
    let looked = moved::<{ rx::VP | rx::L4CS | rx::IPCS }, STATUS_FLAGS>(word1);
    _mm512_or_si512(about_packet, _mm512_or_si512(looked, moved::<ERRORS, ERROR_FLAGS>(word1)))
}

/// Metadata of flags, the tags at the top of a column of words 1, and the hashes at that of words 0.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn metadata(flags: __m512i, word1: __m512i, word0: __m512i) -> __m512i {
    let tags = moved::<{ 0xffff << rx::VLAN_SHIFT }, 0xffff_0000>(word1);
    let hashes = _mm512_and_si512(word0, splat(0xffff_ffff << rx::HASH_SHIFT));
    _mm512_or_si512(flags, _mm512_or_si512(tags, hashes))
}
