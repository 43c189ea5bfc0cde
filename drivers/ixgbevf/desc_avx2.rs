//! Metadata of eight receive descriptors of the 82599 and its successors at once, with AVX2.
//!
//! Called by [`IxgbeRx`](super::IxgbeRx) alone. What always holds: it makes of each what `packed` does.

use std::arch::x86_64::{_mm256_and_si256, _mm256_andnot_si256, _mm256_cmpeq_epi32};

use super::desc::{IPE, L4E, Quirks, TUNNEL, UDP, VERDICTS};
use super::intel::desc::rx;
use super::intel::desc_avx2::flags;
use crate::mem::PackedInfo;
use crate::ring::columns::{load, moved, splat, store};

/// As [`RxFormat::infos_avx2`](crate::RxFormat::infos_avx2).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn infos(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: Quirks) {
    // SAFETY: the caller's contract.
    let [word0, hashes, status, tags] = unsafe { load::<2, 0>(descriptors) };
    let mut flags = flags::<{ rx::TYPE_ETQF | TUNNEL }, { L4E | IPE }>(word0, status);
    if quirks.udp_without_checksum_flagged {
        let udp = moved::<UDP, { PackedInfo::L4_LOOKED }>(flags);
        let wrong = moved::<L4E, { PackedInfo::L4_LOOKED }>(status);
        flags = _mm256_andnot_si256(_mm256_and_si256(udp, wrong), flags);
    }
    let tunnel = splat(TUNNEL);
    let tunnelled = _mm256_cmpeq_epi32(_mm256_and_si256(word0, tunnel), tunnel);
    flags = _mm256_andnot_si256(_mm256_and_si256(tunnelled, splat(VERDICTS)), flags);
    store(infos, flags, tags, hashes);
}

#[cfg(test)]
mod tests {
    use super::super::IxgbeRx;
    use super::*;
    use crate::ring::columns::tests::{noise, same};

    const QUIRKS: [Quirks; 2] =
        [Quirks { udp_without_checksum_flagged: false }, Quirks { udp_without_checksum_flagged: true }];

    #[test]
    fn eight_at_once_are_as_one_by_one() {
        for (seed, quirks) in (1..=10).flat_map(|seed| QUIRKS.map(|quirks| (seed, quirks))) {
            let mut noise = noise(seed);
            same::<IxgbeRx>(quirks, (0..20_000).map(|_| [noise(), noise(), 0, 0]));
        }
    }

    #[test]
    fn every_type_and_every_verdict_at_once_is_as_one_by_one() {
        for quirks in QUIRKS {
            let mut noise = noise(99);
            // The low 17 bits of word 0; the low 8 status bits and the error bits 28 to 31, with every type of L4.
            same::<IxgbeRx>(quirks, (0..1 << 17).map(|low| [noise() << 32 | low, noise(), 0, 0]));
            same::<IxgbeRx>(
                quirks,
                (0..1 << 16).map(|bits| [noise() & !0x1_8700 | bits >> 12 << 8, bits >> 8 << 28 | bits & 0xff, 0, 0]),
            );
        }
    }
}
