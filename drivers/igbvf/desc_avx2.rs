//! Metadata of eight receive descriptors of the 82576 and I350 at once, with AVX2.
//!
//! Called by [`IgbRx`](super::IgbRx) alone. What always holds: it makes of each what `packed` does.

use std::arch::x86_64::{
    _mm256_and_si256, _mm256_blendv_epi8, _mm256_cmpeq_epi32, _mm256_or_si256, _mm256_slli_epi16, _mm256_srli_epi16,
};

use super::desc::{IPE, L4E, LB, Quirks};
use super::intel::desc::rx;
use super::intel::desc_avx2::flags;
use crate::mem::PackedInfo;
use crate::ring::columns::{load, splat, store};

/// As [`RxFormat::infos_avx2`](crate::RxFormat::infos_avx2).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn infos(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: Quirks) {
    // SAFETY: the caller's contract.
    let [word0, hashes, status, mut tags] = unsafe { load::<2, 0>(descriptors) };
    if quirks.big_endian_loopback_tag {
        let swapped = _mm256_or_si256(_mm256_slli_epi16::<8>(tags), _mm256_srli_epi16::<8>(tags));
        let loopback = _mm256_cmpeq_epi32(_mm256_and_si256(status, splat(LB)), splat(LB));
        tags = _mm256_blendv_epi8(tags, swapped, loopback);
    }
    store(infos, flags::<{ rx::TYPE_ETQF }, { L4E | IPE }>(word0, status), tags, hashes);
}

#[cfg(test)]
mod tests {
    use super::super::IgbRx;
    use super::*;
    use crate::ring::columns::tests::{noise, same};

    const QUIRKS: [Quirks; 2] = [Quirks { big_endian_loopback_tag: false }, Quirks { big_endian_loopback_tag: true }];

    #[test]
    fn eight_at_once_are_as_one_by_one() {
        for (seed, quirks) in (1..=10).flat_map(|seed| QUIRKS.map(|quirks| (seed, quirks))) {
            let mut noise = noise(seed);
            same::<IgbRx>(quirks, (0..20_000).map(|_| [noise(), noise(), 0, 0]));
        }
    }

    #[test]
    fn every_type_and_every_verdict_at_once_is_as_one_by_one() {
        for quirks in QUIRKS {
            let mut noise = noise(99);
            // The low 17 bits of word 0; the status bits VP, L4CS, IPCS, LB and the error bits 28 to 31.
            same::<IgbRx>(quirks, (0..1 << 17).map(|low| [noise() << 32 | low, noise(), 0, 0]));
            same::<IgbRx>(
                quirks,
                (0..1 << 12).map(|bits| [noise(), noise() << 32 | (bits & 0xff) | bits >> 8 << 28, 0, 0]),
            );
            same::<IgbRx>(
                quirks,
                (0..1 << 12).map(|bits| [noise(), noise() << 32 | bits >> 8 << 28 | LB | bits & 0xff, 0, 0]),
            );
        }
    }
}
