//! Metadata of eight receive descriptors of the adaptive VFs at once, with AVX-512.
//!
//! Called by [`AvfLegacyRx`](super::AvfLegacyRx) and [`AvfFlexRx`](super::AvfFlexRx) alone. What always holds: it makes of each
//! what `packed` does. Packet types are found as in `desc_avx2`.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_cmpeq_epi64_mask,
    _mm512_cmpgt_epu64_mask, _mm512_cmplt_epu64_mask, _mm512_loadu_si512, _mm512_mask_or_epi64,
    _mm512_maskz_permutexvar_epi64, _mm512_min_epu32, _mm512_or_si512, _mm512_shuffle_epi8, _mm512_slli_epi64,
    _mm512_srlv_epi64, _mm512_sub_epi32,
};

use super::desc::{AvfQuirks, flex as flex_bits, legacy as legacy_bits};
use super::desc_avx2::{VERDICT_BYTES, index};
use super::ptype::{BLOCK, FIRSTS, FLAGS, extended};
use crate::mem::PackedInfo;
use crate::ring::columns512::{load, moved, splat, store};

/// [`FLAGS`] of IPv4, of the same with extension headers, of IPv6, and of that with extension headers, from the low bits on.
static FLAGS_BY_PLACE: [u64; 8] = {
    let mut table = [0; 8];
    let mut place = 0;
    while place < 8 {
        let (over4, over6) = (FLAGS[0][place] as u64, FLAGS[1][place] as u64);
        table[place] = over4 | extended(over4) << EXTENDED | (over6 | extended(over6) << EXTENDED) << OVER6;
        place += 1;
    }
    table
};
const EXTENDED: u64 = 16;
const OVER6: u64 = 32;

/// As `desc_avx2`'s, with nothing above the flags; `extended` has the last of the bits that verdicts are made of where
/// [`EXTENDED`] has its only one.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn judge(number: __m512i, index: __m512i, extended: __m512i) -> __m512i {
    // SAFETY: 64 bytes of a table, and 16 of another.
    let (by_place, verdicts) = unsafe {
        let verdicts = _mm_loadu_si128(VERDICT_BYTES.as_ptr().cast::<__m128i>());
        let by_place = _mm512_loadu_si512(FLAGS_BY_PLACE.as_ptr().cast::<__m512i>());
        (by_place, _mm512_broadcast_i32x4(verdicts))
    };
    let [over4, over6] = FIRSTS.map(u64::from);
    // A number below a block's first one becomes a very great one.
    let place = _mm512_min_epu32(_mm512_sub_epi32(number, splat(over4)), _mm512_sub_epi32(number, splat(over6)));
    let is6 = _mm512_cmpgt_epu64_mask(number, splat(over6 - 1));
    let known = _mm512_cmplt_epu64_mask(place, splat(BLOCK.into()));
    let flags = _mm512_maskz_permutexvar_epi64(known, _mm512_min_epu32(place, splat(7)), by_place);
    let flags = _mm512_srlv_epi64(flags, _mm512_mask_or_epi64(extended, is6, extended, splat(OVER6)));
    let allowed = _mm512_or_si512(_mm512_shuffle_epi8(verdicts, index), splat(PackedInfo::TYPES));
    _mm512_and_si512(flags, allowed)
}

/// As [`RxFormat::infos_avx512`](crate::RxFormat::infos_avx512).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn legacy(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
    use legacy_bits::*;
    // SAFETY: the caller's contract.
    let [word0, word1, word2, _] = unsafe { load::<4>(at, words1) };
    let errors = moved::<{ IPE | L4E | EIPE }, { index::ERRORS }>(word1);
    let index = _mm512_or_si512(errors, moved::<L3L4P, { index::CHECKED }>(word1));
    let flags = judge(moved::<{ 0xff << PTYPE_SHIFT }, 0xff>(word1), index, moved::<IPV6EXADD, EXTENDED>(word1));
    let both = splat(FLTSTAT_RSS);
    let hashed = _mm512_cmpeq_epi64_mask(_mm512_and_si512(word1, both), both);
    let flags = _mm512_mask_or_epi64(flags, hashed, flags, splat(PackedInfo::HASHED));
    let (flags, tags, hashes) = if quirks.tag_in_l2tag2 {
        let tags = moved::<{ 0xffff << L2TAG2_2_SHIFT }, 0xffff_0000>(word2);
        let flags = _mm512_or_si512(flags, moved::<L2TAG2P, { PackedInfo::TAGGED }>(word2));
        (flags, tags, _mm512_and_si512(word0, splat(0xffff_ffff << HASH_SHIFT)))
    } else {
        // Tag and hash are where they belong.
        let flags = _mm512_or_si512(flags, moved::<L2TAG1P, { PackedInfo::TAGGED }>(word1));
        let both = _mm512_and_si512(word0, splat(!0xffff));
        (flags, both, both)
    };
    store(infos, _mm512_or_si512(flags, _mm512_or_si512(tags, hashes)));
}

/// As [`RxFormat::infos_avx512`](crate::RxFormat::infos_avx512).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn flex(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
    use flex_bits::*;
    // SAFETY: the caller's contract.
    let [word0, word1, word2, word3] = unsafe { load::<4>(at, words1) };
    let errors = moved::<{ IPE | L4E | EIPE }, { index::ERRORS }>(word1);
    let index = _mm512_or_si512(errors, moved::<L3L4P, { index::CHECKED }>(word1));
    let number = moved::<{ PTYPE << PTYPE_SHIFT }, PTYPE>(word0);
    let flags = judge(number, index, moved::<IPV6EXADD, EXTENDED>(word1));
    let (flags, tags) = if quirks.tag_in_l2tag2 {
        let flags = _mm512_or_si512(flags, moved::<RSS_VALID, { PackedInfo::HASHED }>(word1));
        let tags = moved::<{ 0xffff << L2TAG2_2_SHIFT }, 0xffff_0000>(word2);
        (_mm512_or_si512(flags, moved::<L2TAG2P, { PackedInfo::TAGGED }>(word2)), tags)
    } else {
        let both = moved::<{ RSS_VALID | L2TAG1P }, { PackedInfo::HASHED | PackedInfo::TAGGED }>(word1);
        (_mm512_or_si512(flags, both), _mm512_and_si512(word1, splat(0xffff << L2TAG1_SHIFT)))
    };
    store(infos, _mm512_or_si512(flags, _mm512_or_si512(tags, _mm512_slli_epi64::<32>(word3))));
}
