//! The seam between rings and NICs: descriptor formats, as two unsafe traits of associated constants and functions.
//!
//! A ring knows no NIC and a format knows no ring: it turns addresses into words and words into facts. Every
//! function is pure, so that the compiler sees straight-line code in the ring's loops.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

use crate::mem::{PackedInfo, RxInfo, TxInfo};

/// Most words that a descriptor has.
pub(crate) const MAX_WORDS: usize = 4;

/// A receive descriptor format: `WORDS` little-endian 64-bit words.
///
/// Word 0 takes the buffer's address and word 1 is written 0 when a descriptor is armed; those behind are the device's alone.
///
/// # Safety
/// `DONE` must be a bit of word `STATUS` that the device sets only after the buffer and the other words are written
/// and that reads 0 in an armed descriptor; the length's field must be where the device
/// stores it, and `len` not be overridden. The ring checks the length against the buffer, so a lying device is harmless, but
/// a wrong `DONE` hands out buffers that the device still writes.
pub unsafe trait RxFormat: Send + 'static {
    /// Words of a descriptor: 2 or 4.
    const WORDS: usize;
    /// The word with the status bits: 1, since an armed descriptor has them 0.
    const STATUS: usize;
    /// The word with the length: `STATUS`, or 0.
    const LEN_WORD: usize = Self::STATUS;
    /// Bits of word `LEN_WORD` of which a write-back sets at least one and an armed descriptor has none: the length where it
    /// is in the status word, else some of the low six bits, which no buffer's address has.
    const WRITTEN: u64 = ((1 << Self::LEN_BITS) - 1) << Self::LEN_SHIFT;
    /// Descriptor done, in word `STATUS`.
    const DONE: u64;
    /// End of packet, in word `STATUS`.
    const LAST: u64;
    /// Frame errors (not checksum verdicts), in word `STATUS`: the frame is dropped and counted.
    const ERROR: u64;
    /// State of the format that depends on the part (byte order quirks).
    type Quirks: Copy + Send + 'static;

    /// Lowest bit of the length, in word `LEN_WORD`.
    const LEN_SHIFT: u32;
    /// Bits of the length, at most 16.
    const LEN_BITS: u32;
    /// The device heeds tails that are multiples of this alone, a power of two that divides every ring.
    const TAIL_MULTIPLE: u32 = 1;

    /// Bytes in this buffer, from word `LEN_WORD`. The length of two such words ORed is the OR of their lengths, which the
    /// ring relies on.
    #[inline(always)]
    fn len(word: u64) -> u32 {
        (word >> Self::LEN_SHIFT) as u32 & ((1 << Self::LEN_BITS) - 1)
    }
    /// The metadata, from the words of the packet's last descriptor, which `word` gives by their numbers, below `WORDS`. It asks
    /// for those that it needs.
    fn packed(word: impl Fn(usize) -> u64, quirks: Self::Quirks) -> PackedInfo;
    /// As [`packed`](Self::packed), of eight descriptors that lie one behind another.
    ///
    /// # Safety
    /// The eight descriptors can be read, and written by nobody but a device. The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn infos_avx2(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: Self::Quirks)
    where
        Self: Sized,
    {
        // SAFETY: the caller's contract.
        unsafe { super::info::one_by_one::<Self>(descriptors, infos, quirks) }
    }
    /// The same with AVX-512. The caller has the words `STATUS`: those of the descriptors 0, 4, 1, 5, 2, 6, 3 and 7.
    ///
    /// # Safety
    /// As of `infos_avx2`, and the CPU has the parts F and BW of AVX-512.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn infos_avx512(at: *const u64, _: __m512i, infos: &mut [PackedInfo; 8], quirks: Self::Quirks)
    where
        Self: Sized,
    {
        // SAFETY: the caller's contract.
        unsafe { Self::infos_avx2(at, infos, quirks) }
    }
    /// The same as the program sees it.
    fn info(words: &[u64; MAX_WORDS], quirks: Self::Quirks) -> RxInfo {
        Self::packed(|word| words.get(word).copied().unwrap_or_default(), quirks).unpack()
    }
}

/// A transmit descriptor format of two little-endian 64-bit words.
///
/// # Safety
/// `done` must be true only for a word that the device wrote after it had read the whole frame of the descriptor, and
/// false for every word that `data` returns. `data` and `whole` must make the device read `len` bytes at `iova` and nothing
/// else, and `whole` must be what `data` is for the same frame; it must not be overridden.
pub unsafe trait TxFormat: Send + 'static {
    /// Most bytes of payload that one descriptor can carry.
    const MAX_SEGMENT: u32;
    /// Contexts a queue remembers for frames with offloads (0: a context goes before every frame that needs one).
    const CONTEXTS: usize;
    /// Where a device wants every frame to refer to a context: the descriptor that loads the one that frames without
    /// offloads refer to. A ring begins with it. `context` never loads the same, whatever number it is given.
    const PLAIN_CONTEXT: Option<[u64; 2]> = None;
    /// Second word of `data(_, 0, 0, true, false)`.
    const WHOLE: u64;
    /// Most segments count for every frame that the device cuts out of one with TSO, headers included, not for the whole.
    const SEGMENTS_PER_CUT: bool = false;
    /// What each byte of a whole frame adds to it: a 1 at the place of every length field.
    const WHOLE_PER_BYTE: u64;

    /// A data descriptor. `len` are the bytes of this buffer, `total` those of the whole frame.
    fn data(iova: u64, len: u32, total: u32, last: bool, report: bool) -> [u64; 2];
    /// As `data` for a frame in one buffer, without a report: what the fast path writes. Its second word is
    /// `WHOLE + len * WHOLE_PER_BYTE`.
    #[inline(always)]
    fn whole(iova: u64, len: u16) -> [u64; 2] {
        [iova, Self::WHOLE + u64::from(len) * Self::WHOLE_PER_BYTE]
    }
    /// The same with offloads: refers to what `context` loads under the number `context`. For TSO, `total` still is the whole frame.
    fn data_offload(iova: u64, len: u32, total: u32, last: bool, report: bool, info: &TxInfo, context: u8) -> [u64; 2];
    /// The context descriptor for these offloads of a frame of `total` bytes, or `None` when the hardware cannot do what
    /// is asked. Formats whose queues remember contexts make it of `info` alone.
    fn context(info: &TxInfo, total: u32, context: u8) -> Option<[u64; 2]>;
    /// Does a frame with these offloads need a context at all? `context` is asked in any case.
    #[inline(always)]
    fn needs_context(_: &TxInfo) -> bool {
        true
    }
    /// Asks for a completion report, on the second word of a frame's last descriptor.
    fn with_report(word1: u64) -> u64;
    /// True when the device reported completion in the second word.
    fn done(word1: u64) -> bool;
}
