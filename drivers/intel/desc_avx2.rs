//! The flags of [`PackedInfo`] for eight advanced descriptors at once: what `desc::flags` is for one, with AVX2.
//!
//! The families' files of this name make metadata of it. What always holds: every lane is what `desc` makes of the same
//! descriptor, which stays the oracle of both.
#![forbid(unsafe_code)]

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_cmpeq_epi32, _mm256_or_si256, _mm256_setr_epi8, _mm256_setzero_si256,
    _mm256_shuffle_epi8,
};

use super::desc::{ERROR_FLAGS, STATUS_FLAGS, rx};
use crate::mem::PackedInfo;
use crate::ring::columns::{moved, splat};

/// By the number of an RSS type: [`PackedInfo::HASHED`] where it is not 0.
#[inline]
#[target_feature(enable = "avx2")]
fn hashed(word0: __m256i) -> __m256i {
    const YES: i8 = PackedInfo::HASHED as u8 as i8;
    #[rustfmt::skip]
    let table = _mm256_setr_epi8(
        0, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES,
        0, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES, YES,
    );
    // The other bytes look up number 0.
    _mm256_shuffle_epi8(table, _mm256_and_si256(word0, splat(rx::RSS_TYPE)))
}

/// Of the low halves of the words 0 and 1. A bit of `OTHER` in word 0 says that the type bits mean something else; `ERRORS`
/// are the family's bits for a wrong L4 checksum and a wrong one of the IP header.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn flags<const OTHER: u64, const ERRORS: u64>(word0: __m256i, status: __m256i) -> __m256i {
    let types = moved::<{ PackedInfo::TYPES << rx::TYPE_SHIFT }, { PackedInfo::TYPES }>(word0);
    let plain = _mm256_cmpeq_epi32(_mm256_and_si256(word0, splat(OTHER)), _mm256_setzero_si256());
    let about_packet = _mm256_or_si256(_mm256_and_si256(types, plain), hashed(word0));
    let looked = moved::<{ rx::VP | rx::L4CS | rx::IPCS }, STATUS_FLAGS>(status);
    let wrong = moved::<ERRORS, ERROR_FLAGS>(status);
    _mm256_or_si256(about_packet, _mm256_or_si256(looked, wrong))
}
