//! Metadata of eight receive descriptors of the adaptive VFs at once, with AVX2.
//!
//! Called by [`AvfLegacyRx`](super::AvfLegacyRx) and [`AvfFlexRx`](super::AvfFlexRx) alone. What always holds: it makes of each
//! what `packed` does. Where that looks a packet type's number up, this reckons its place in the block over its IP version, of
//! which there are eight that differ.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256,
    _mm256_broadcastsi128_si256, _mm256_cmpeq_epi32, _mm256_cmpgt_epi32, _mm256_loadu_si256, _mm256_min_epu32,
    _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_shuffle_epi8, _mm256_srlv_epi32, _mm256_sub_epi32,
};

use super::desc::{AvfQuirks, flex as flex_bits, legacy as legacy_bits};
use super::ptype::{BLOCK, FIRSTS, FLAGS, VERDICTS};
use crate::mem::{PackedInfo, PacketType};
use crate::ring::columns::{load, moved, splat, store};

/// [`FLAGS`], the block over IPv6 in the high halves.
static FLAGS_BY_PLACE: [u32; 8] = {
    let mut table = [0; 8];
    let mut place = 0;
    while place < 8 {
        table[place] = FLAGS[0][place] as u32 | (FLAGS[1][place] as u32) << 16;
        place += 1;
    }
    table
};

/// The high bytes of [`VERDICTS`], whose low ones are 0.
pub(super) static VERDICT_BYTES: [u8; 16] = {
    let mut table = [0; 16];
    let mut bits = 0;
    while bits < 16 {
        assert!(VERDICTS[bits] as u8 == 0);
        table[bits] = (VERDICTS[bits] >> 8) as u8;
        bits += 1;
    }
    table
};

/// Where the bits that verdicts are looked up by go, so that the look-up makes bytes of the flags' places.
pub(super) mod index {
    pub(in super::super) const ERRORS: u64 = 7 << 8;
    pub(in super::super) const CHECKED: u64 = 8 << 8;
}

/// The flags but for hash and tag in the low 16 bits, anything above; as `ptype::judge`. `index` has the first four bits that
/// verdicts are made of at the places above, and `extended` the last at that of [`PackedInfo::L4_LOOKED`]; else both are 0.
#[inline]
#[target_feature(enable = "avx2")]
fn judge(number: __m256i, index: __m256i, extended: __m256i) -> __m256i {
    // SAFETY: 32 bytes of a table, and 16 of another.
    let (by_place, verdicts) = unsafe {
        let verdicts = _mm_loadu_si128(VERDICT_BYTES.as_ptr().cast::<__m128i>());
        let by_place = _mm256_loadu_si256(FLAGS_BY_PLACE.as_ptr().cast::<__m256i>());
        (by_place, _mm256_broadcastsi128_si256(verdicts))
    };
    let [over4, over6] = FIRSTS.map(u64::from);
    // A number below a block's first one becomes a very great one.
    let place = _mm256_min_epu32(_mm256_sub_epi32(number, splat(over4)), _mm256_sub_epi32(number, splat(over6)));
    let is6 = _mm256_and_si256(_mm256_cmpgt_epi32(number, splat(over6 - 1)), splat(16));
    let flags = _mm256_permutevar8x32_epi32(by_place, _mm256_min_epu32(place, splat(7)));
    let known = _mm256_cmpeq_epi32(_mm256_min_epu32(place, splat(u64::from(BLOCK) - 1)), place);
    let flags = _mm256_and_si256(_mm256_srlv_epi32(flags, is6), known);
    let allowed = _mm256_or_si256(_mm256_shuffle_epi8(verdicts, index), splat(PackedInfo::TYPES));
    // With extension headers the verdict on L4 cannot be trusted, and IPv6, where it is, becomes the next bit.
    let flags = _mm256_andnot_si256(extended, _mm256_and_si256(flags, allowed));
    let to_ipv6 = moved::<{ PackedInfo::L4_LOOKED }, { PacketType::IPV6.bits() as u64 }>(extended);
    _mm256_add_epi32(flags, _mm256_and_si256(flags, to_ipv6))
}

/// As [`RxFormat::infos_avx2`](crate::RxFormat::infos_avx2).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn legacy(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
    use legacy_bits::*;
    // SAFETY: the caller's contract.
    let [word0, hashes, status, high] = unsafe { load::<4, 0>(descriptors) };
    // The number lies across the middle of word 1.
    let number = _mm256_or_si256(moved::<{ 3 << PTYPE_SHIFT }, 3>(status), moved::<0x3F, { 0x3F << 2 }>(high));
    let errors = moved::<{ IPE | L4E | EIPE }, { index::ERRORS }>(status);
    let index = _mm256_or_si256(errors, moved::<L3L4P, { index::CHECKED }>(status));
    let flags = judge(number, index, moved::<IPV6EXADD, { PackedInfo::L4_LOOKED }>(status));
    const LOW: u64 = FLTSTAT_RSS & !(FLTSTAT_RSS << 1);
    let both = _mm256_and_si256(
        moved::<LOW, { PackedInfo::HASHED }>(status),
        moved::<{ LOW << 1 }, { PackedInfo::HASHED }>(status),
    );
    let flags = _mm256_or_si256(flags, both);
    if quirks.tag_in_l2tag2 {
        // SAFETY: the caller's contract.
        let [word2, tags, ..] = unsafe { load::<4, 2>(descriptors) };
        let flags = _mm256_or_si256(flags, moved::<L2TAG2P, { PackedInfo::TAGGED }>(word2));
        return store(infos, flags, tags, hashes);
    }
    let flags = _mm256_or_si256(flags, moved::<L2TAG1P, { PackedInfo::TAGGED }>(status));
    store(infos, flags, word0, hashes);
}

/// As [`RxFormat::infos_avx2`](crate::RxFormat::infos_avx2).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn flex(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
    use flex_bits::*;
    // SAFETY: the caller's contract.
    let ([word0, _, status, _], [word2, tags, hashes, _]) =
        unsafe { (load::<4, 0>(descriptors), load::<4, 2>(descriptors)) };
    let number = moved::<{ PTYPE << PTYPE_SHIFT }, PTYPE>(word0);
    let errors = moved::<{ IPE | L4E | EIPE }, { index::ERRORS }>(status);
    let index = _mm256_or_si256(errors, moved::<L3L4P, { index::CHECKED }>(status));
    let flags = judge(number, index, moved::<IPV6EXADD, { PackedInfo::L4_LOOKED }>(status));
    if quirks.tag_in_l2tag2 {
        let hashed = moved::<RSS_VALID, { PackedInfo::HASHED }>(status);
        let flags = _mm256_or_si256(_mm256_or_si256(flags, hashed), moved::<L2TAG2P, { PackedInfo::TAGGED }>(word2));
        return store(infos, flags, tags, hashes);
    }
    let both = moved::<{ RSS_VALID | L2TAG1P }, { PackedInfo::HASHED | PackedInfo::TAGGED }>(status);
    store(infos, _mm256_or_si256(flags, both), status, hashes);
}

#[cfg(test)]
mod tests {
    use super::super::{AvfFlexRx, AvfLegacyRx};
    use super::*;
    use crate::ring::columns::tests::{noise, same};

    const QUIRKS: [AvfQuirks; 2] = [AvfQuirks { tag_in_l2tag2: false }, AvfQuirks { tag_in_l2tag2: true }];

    #[test]
    fn eight_at_once_are_as_one_by_one() {
        for (seed, quirks) in (1..=10).flat_map(|seed| QUIRKS.map(|quirks| (seed, quirks))) {
            let mut noise = noise(seed);
            same::<AvfLegacyRx>(quirks, (0..20_000).map(|_| std::array::from_fn(|_| noise())));
            same::<AvfFlexRx>(quirks, (0..20_000).map(|_| std::array::from_fn(|_| noise())));
        }
    }

    /// All numbers below `numbers` with all bits that verdicts and hashes are made of, as spread over the words by `place`.
    fn all(numbers: u64, bits: [u64; 7], place: impl Fn(u64) -> [u64; 2]) -> impl Iterator<Item = [u64; 4]> {
        let mut noise = noise(99);
        (0..numbers << 7).map(move |case| {
            let of_status =
                bits.iter().enumerate().filter(|&(i, _)| case >> i & 1 == 1).fold(0, |sum, (_, bit)| sum | bit);
            let [word0, word1] = place(case >> 7);
            let mask = bits.iter().fold(0, |sum, bit| sum | bit);
            [noise() & !(0x3FF << 16) | word0, noise() & !(mask | 0xFF << 30) | of_status | word1, noise(), noise()]
        })
    }

    #[test]
    fn every_legacy_type_and_verdict_is_as_one_by_one() {
        use legacy_bits::*;
        for quirks in QUIRKS {
            let bits = [IPE, L4E, EIPE, L3L4P, IPV6EXADD, 1 << 12, 2 << 12];
            same::<AvfLegacyRx>(quirks, all(256, bits, |number| [0, number << PTYPE_SHIFT]));
        }
    }

    #[test]
    fn every_flex_type_and_verdict_is_as_one_by_one() {
        use flex_bits::*;
        for quirks in QUIRKS {
            let bits = [IPE, L4E, EIPE, L3L4P, IPV6EXADD, RSS_VALID, L2TAG1P];
            same::<AvfFlexRx>(quirks, all(1024, bits, |number| [number << PTYPE_SHIFT, 0]));
        }
    }
}
