//! Metadata of eight receive descriptors of the 82599 and its successors at once, with AVX-512.
//!
//! Called by [`IxgbeRx`](super::IxgbeRx) alone. What always holds: it makes of each what `packed` does.

use std::arch::x86_64::{
    __m512i, _mm512_and_si512, _mm512_andnot_si512, _mm512_mask_and_epi64, _mm512_test_epi64_mask,
};

use super::desc::{IPE, L4E, Quirks, TUNNEL, UDP, VERDICTS};
use super::intel::desc::rx;
use super::intel::desc_avx512::{flags, metadata};
use crate::mem::PackedInfo;
use crate::ring::columns512::{load, moved, splat, store};

/// As [`RxFormat::infos_avx512`](crate::RxFormat::infos_avx512).
///
/// # Safety
/// As there.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) unsafe fn infos(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], quirks: Quirks) {
    // SAFETY: the caller's contract.
    let [word0, word1, ..] = unsafe { load::<2>(at, words1) };
    let mut flags = flags::<{ rx::TYPE_ETQF | TUNNEL }, { L4E | IPE }>(word0, word1);
    if quirks.udp_without_checksum_flagged {
        let udp = moved::<UDP, { PackedInfo::L4_LOOKED }>(flags);
        let wrong = moved::<L4E, { PackedInfo::L4_LOOKED }>(word1);
        flags = _mm512_andnot_si512(_mm512_and_si512(udp, wrong), flags);
    }
    let tunnelled = _mm512_test_epi64_mask(word0, splat(TUNNEL));
    flags = _mm512_mask_and_epi64(flags, tunnelled, flags, splat(!VERDICTS));
    store(infos, metadata(flags, word1, word0));
}
