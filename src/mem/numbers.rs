//! The buffer numbers of packets that are freed, gathered eight at a time.
//!
//! A cache frees a burst by this alone, if all its packets are in one buffer of the cache's pool each. The numbers come in any
//! order. Vectors pay twice here: a ring that takes the numbers up again soon, by vectors, finds them in one store instead of
//! waiting for eight.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m128i, __m256i, __m512i, _bzhi_u32, _mm_storeu_si128, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_castsi256_si128, _mm256_loadu_si256, _mm256_or_si256, _mm256_permutevar8x32_epi32, _mm256_set1_epi64x,
    _mm256_setr_epi32, _mm256_setzero_si256, _mm256_shuffle_ps, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_testz_si256, _mm256_unpackhi_epi64, _mm256_xor_si256, _mm512_cvtepi64_epi32, _mm512_mask_loadu_epi64,
    _mm512_or_si512, _mm512_permutex2var_epi64, _mm512_set1_epi64, _mm512_setr_epi64, _mm512_setzero_si512,
    _mm512_test_epi64_mask, _mm512_xor_si512,
};

use super::packet::PacketBuf;

/// Packets in one straight line.
pub(super) const EIGHT: usize = 8;
pub(super) const FOUR: usize = EIGHT / 2;
/// Where a packet's `meta` has its tag.
const TAG_SHIFT: u32 = 48;

/// Writes the buffer number of every packet to `places`; false, and what was written means nothing, when a packet is not of
/// the pool `tag` or in several buffers.
///
/// # Safety
/// There are as many places as packets and seven more, and nobody else uses them meanwhile.
#[inline(always)]
pub(super) unsafe fn portable(packets: &[PacketBuf], tag: u16, places: *mut u32) -> bool {
    // The lone one has no loop to go through.
    if let [packet] = packets {
        let meta = packet.meta();
        // SAFETY: a place for it (contract).
        unsafe { *places = meta as u32 };
        return meta >> TAG_SHIFT == u64::from(tag);
    }
    let own = u64::from(tag) << TAG_SHIFT;
    let mut strange = 0;
    let (count, packets) = (packets.len(), packets.as_ptr());
    // SAFETY: is called for numbers below `count`.
    let mut put = |at: usize| unsafe {
        let meta = (*packets.add(at)).meta();
        strange |= meta ^ own;
        *places.add(at) = meta as u32;
    };
    let mut at = 0;
    while at + EIGHT <= count {
        for i in 0..EIGHT {
            put(at + i);
        }
        at += EIGHT;
    }
    while at < count {
        put(at);
        at += 1;
    }
    strange >> TAG_SHIFT == 0
}

/// # Safety
/// As `portable`, and the CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn avx2(packets: &[PacketBuf], tag: u16, places: *mut u32) -> bool {
    let own = _mm256_set1_epi64x((u64::from(tag) << TAG_SHIFT) as i64);
    let mut strange = _mm256_setzero_si256();
    let (eights, few) = packets.as_chunks::<EIGHT>();
    for (eight, packets) in eights.iter().enumerate() {
        // SAFETY: eight packets of 16 bytes, address and meta each, and as many places.
        unsafe {
            let two = |at: usize| _mm256_loadu_si256(packets.as_ptr().cast::<__m256i>().add(at));
            let (a, b) = (_mm256_unpackhi_epi64(two(0), two(1)), _mm256_unpackhi_epi64(two(2), two(3)));
            strange = _mm256_or_si256(strange, _mm256_or_si256(_mm256_xor_si256(a, own), _mm256_xor_si256(b, own)));
            // The lower halves of each.
            let numbers = _mm256_shuffle_ps::<0b10_00_10_00>(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
            _mm256_storeu_si256(places.add(EIGHT * eight).cast::<__m256i>(), _mm256_castps_si256(numbers));
        }
    }
    let is_own = |strange: __m256i| {
        let tags = _mm256_srli_epi64::<{ TAG_SHIFT as i32 }>(strange);
        _mm256_testz_si256(tags, tags) != 0
    };
    if few.is_empty() {
        return is_own(strange);
    }
    let mut places = places.wrapping_add(EIGHT * eights.len());
    let (fours, few) = few.as_chunks::<FOUR>();
    if let [four] = fours {
        // SAFETY: as above, of four.
        unsafe {
            let two = |at: usize| _mm256_loadu_si256(four.as_ptr().cast::<__m256i>().add(at));
            let metas = _mm256_unpackhi_epi64(two(0), two(1));
            strange = _mm256_or_si256(strange, _mm256_xor_si256(metas, own));
            let numbers = _mm256_permutevar8x32_epi32(metas, _mm256_setr_epi32(0, 2, 4, 6, 0, 0, 0, 0));
            _mm_storeu_si128(places.cast::<__m128i>(), _mm256_castsi256_si128(numbers));
        }
        places = places.wrapping_add(FOUR);
    }
    // SAFETY: the caller's contract, for what is left.
    is_own(strange) && unsafe { portable(few, tag, places) }
}

/// # Safety
/// As `portable`, and the CPU has AVX-512 as `cpu::Avx512` says.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
pub(super) unsafe fn avx512(packets: &[PacketBuf], tag: u16, places: *mut u32) -> bool {
    if packets.len() < 2 {
        // SAFETY: the caller's contract.
        return unsafe { portable(packets, tag, places) };
    }
    let own = _mm512_set1_epi64((u64::from(tag) << TAG_SHIFT) as i64);
    let mut strange = _mm512_setzero_si512();
    let (mut from, mut to, mut left) = (packets.as_ptr().cast::<i64>(), places, packets.len());
    // One group, of which there may be less, has no loop to go through.
    while left > EIGHT {
        // SAFETY: eight packets, and as many places (contract).
        unsafe {
            strange = _mm512_or_si512(strange, gather_eight(u32::MAX, own, from, to));
            (from, to, left) = (from.add(2 * EIGHT), to.add(EIGHT), left - EIGHT);
        }
    }
    // SAFETY: the packets that there are, and a place for each and seven more (contract).
    strange = unsafe { _mm512_or_si512(strange, gather_eight(_bzhi_u32(u32::MAX, 2 * left as u32), own, from, to)) };
    _mm512_test_epi64_mask(strange, _mm512_set1_epi64((u64::MAX << TAG_SHIFT) as i64)) == 0
}

/// Writes eight buffer numbers, of the packets that `words` says are there; returns in what their tags differ from `own`.
///
/// # Safety
/// The words of the packets from `from` on can be read, of each two that `words` has, and eight places be written.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
unsafe fn gather_eight(words: u32, own: __m512i, from: *const i64, to: *mut u32) -> __m512i {
    // SAFETY: the caller's contract. What is not there reads as a packet of one's own.
    unsafe {
        let a = _mm512_mask_loadu_epi64(own, words as u8, from);
        let b = _mm512_mask_loadu_epi64(own, (words >> 8) as u8, from.wrapping_add(8));
        let metas = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(1, 3, 5, 7, 9, 11, 13, 15), b);
        _mm256_storeu_si256(to.cast::<__m256i>(), _mm512_cvtepi64_epi32(metas));
        _mm512_xor_si512(metas, own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Kernel;

    /// As the cache calls them.
    fn gather(kernel: Kernel, packets: &[PacketBuf], tag: u16) -> (bool, Vec<u32>) {
        let mut places = vec![u32::MAX; packets.len() + EIGHT - 1];
        // SAFETY: as many places and seven more; the proofs say that the CPU has what each is compiled for.
        let good = unsafe {
            match kernel {
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512(_) => avx512(packets, tag, places.as_mut_ptr()),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2(_) => avx2(packets, tag, places.as_mut_ptr()),
                Kernel::Portable => portable(packets, tag, places.as_mut_ptr()),
            }
        };
        places.truncate(packets.len());
        places.sort_unstable();
        (good, places)
    }

    #[test]
    fn every_kernel_gathers_the_numbers_and_finds_every_stranger() {
        const OWN: u16 = 5;
        // SAFETY: no buffer at all; the packets are looked at and forgotten.
        let packet = |index, tag| unsafe { PacketBuf::from_parts(0x1000, index, 60, tag) };
        for bits in [0, 256, 512] {
            let kernel = Kernel::best(bits);
            for count in 0..=40 {
                let mut packets: Vec<_> = (0..count).map(|i| packet(7 * i + 1, OWN)).collect();
                let numbers = (0..count).map(|i| 7 * i + 1).collect();
                assert_eq!(gather(kernel, &packets, OWN), (true, numbers), "{count} at {bits} bits");
                for strange in 0..packets.len() {
                    let usual = std::mem::replace(&mut packets[strange], packet(1, OWN | 1 << 15));
                    assert!(!gather(kernel, &packets, OWN).0, "{strange} of {count} at {bits} bits");
                    std::mem::forget(std::mem::replace(&mut packets[strange], usual));
                }
                packets.into_iter().for_each(std::mem::forget);
            }
        }
    }
}
