//! The inner loops of the rings over whole runs of descriptors: portable ones, and the choice of faster ones.
//!
//! A ring prepares a run (as many descriptors as there surely are buffers, places and slots for) and a kernel works
//! through it until something is not plain; the ring's slow path takes over there. Kernels know neither queues nor pools.
//! What always holds: a kernel changes nothing behind the count that it returns, but for places that are nobody's yet.

use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, fence};

use super::descriptors::Words;
use super::format::{MAX_WORDS, RxFormat, TxFormat};
use super::info;
use crate::mem::{PackedInfo, PacketBuf};

/// Descriptors handled in one straight line.
pub(super) const GROUP: usize = 8;
/// Words of a transmit descriptor.
pub(super) const TX_WORDS: usize = 2;

/// Which loops a queue uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// Straight-line code over atomics.
    Portable,
    /// AVX2. Made by [`Kernel::best`] only, so its existence proves that the CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    Avx2(super::avx2::Proof),
}

impl Kernel {
    /// The fastest loops of this CPU whose vectors have at most so many bits.
    pub(crate) fn best(vector_bits: u16) -> Kernel {
        #[cfg(target_arch = "x86_64")]
        if let Some(proof) = super::avx2::Proof::detect().filter(|_| vector_bits >= 256) {
            return Kernel::Avx2(proof);
        }
        let _ = vector_bits;
        Kernel::Portable
    }

    /// Bits of the vectors that it uses.
    fn vector_bits(self) -> u16 {
        match self {
            Kernel::Portable => 0,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => 256,
        }
    }
}

/// The widest vectors that queues use on this CPU, in bits: 256 where it has AVX2, 0 where they do without.
/// [`PortConfig::vector_bits`](crate::PortConfig::vector_bits) asks for narrower ones.
pub fn widest_vectors() -> u16 {
    Kernel::best(u16::MAX).vector_bits()
}

/// A run of receive descriptors. All slices have as many groups, and so has the ring from `words` on.
pub(super) struct RxRun<'a> {
    /// The run's first descriptor.
    pub(super) words: Words,
    /// Buffers that are in the ring.
    pub(super) slots: &'a mut [[u32; GROUP]],
    /// Where the packets go.
    pub(super) places: &'a mut [[MaybeUninit<PacketBuf>; GROUP]],
    /// Buffers that replace them; the last group is used first, so that the newest are.
    pub(super) fresh: &'a [[u32; GROUP]],
    /// Where the metadata goes; as many groups as `places`.
    pub(super) infos: &'a mut [[PackedInfo; GROUP]],
    /// Address of the data of buffer 0, and bytes from one buffer to the next.
    pub(super) base: usize,
    pub(super) stride: usize,
    /// Where the device sees `base`.
    pub(super) iova_base: u64,
    pub(super) tag: u16,
    /// Bytes that a buffer takes.
    pub(super) limit: u32,
}

/// Takes groups as long as all eight descriptors of one are whole good frames of one buffer each; returns how many.
/// `AVX2` makes metadata of vectors.
///
/// # Safety
/// The ring has the descriptors of the run, and the caller owns them, the buffers in `slots` and those in `fresh`. It
/// gives up, per group done, the group's old slots (which are packets now) and its fresh buffers (which are in the slots
/// now). With `AVX2` the CPU has it.
#[inline(always)]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool, const AVX2: bool>(
    run: RxRun<'_>,
    quirks: F::Quirks,
) -> usize {
    let RxRun { words, slots, places, fresh, infos, base, stride, iova_base, tag, limit } = run;
    // The same number of groups from each, and of the fresh ones the newest, so that the loop needs no checks.
    let count = slots.len().min(places.len()).min(fresh.len());
    let (slots, places, fresh) = (&mut slots[..count], &mut places[..count], &fresh[fresh.len() - count..]);
    for group in 0..count {
        let (slots, places) = (&mut slots[group], &mut places[group]);
        let Some(fresh) = fresh.get(count - 1 - group) else { return group };
        let at = group * GROUP * F::WORDS;
        let (mut all, mut any, mut last) = (u64::MAX, 0, 0);
        for i in (0..GROUP).rev() {
            // SAFETY: the run's descriptors exist (contract).
            let word = unsafe { words.load(at + i * F::WORDS + F::STATUS) };
            all &= word;
            any |= word;
            if i == GROUP - 1 {
                last = word;
            }
            if F::LEN_WORD == F::STATUS {
                // A place that is written but not counted is nobody's; so is one that is written in part.
                PacketBuf::write_len(&mut places[i], F::len(word) as u16);
            }
        }
        if !plain::<F>(all, any) || F::LEN_WORD == F::STATUS && (F::len(any) > limit || last & F::WRITTEN == 0) {
            return group;
        }
        // The loads above saw DONE; what the device wrote before it is visible after this.
        fence(Ordering::Acquire);
        if F::LEN_WORD != F::STATUS {
            let (mut any, mut last) = (0, 0);
            for (i, place) in places.iter_mut().enumerate() {
                // SAFETY: as above.
                last = unsafe { words.load(at + i * F::WORDS + F::LEN_WORD) };
                any |= last;
                PacketBuf::write_len(place, F::len(last) as u16);
            }
            if F::len(any) > limit || last & F::WRITTEN == 0 {
                return group;
            }
        }
        if INFO {
            let Some(infos) = infos.get_mut(group) else { return group };
            // SAFETY: the run's descriptors exist and are the caller's (contract); the fence above came after the loads that
            // saw them done.
            unsafe { info::group::<F, AVX2>(words.at(at), infos, quirks) };
        }
        for i in 0..GROUP {
            // SAFETY: the slot's buffer was the ring's alone, the device is done with it, the length written above fits it,
            // and the slot gets another buffer below.
            unsafe { PacketBuf::write_rest(&mut places[i], base, stride, slots[i], tag) };
        }
        for i in 0..GROUP {
            let index = fresh[i];
            slots[i] = index;
            let at = at + i * F::WORDS;
            // SAFETY: as above.
            unsafe {
                words.store(at, iova_base.wrapping_add(index as u64 * stride as u64));
                for word in 1..F::WORDS {
                    words.store(at + word, 0);
                }
            }
        }
    }
    count
}

/// Is every one of a group's status words, whose AND and OR these are, a whole good frame? That each fits its buffer is for
/// the union of their lengths to say.
///
/// No length has a bit that the union lacks, so where the union fits the buffer every one does. (Frames that fill more than
/// half of a buffer whose size is no power of two may fail this, and come one by one. A last descriptor that nobody seems to
/// have written may not be done at all, see `RxQueue::is_past`; an earlier one is.)
#[inline(always)]
fn plain<F: RxFormat>(all: u64, any: u64) -> bool {
    let whole = F::DONE | F::LAST;
    all & whole == whole && any & F::ERROR == 0
}

/// The words of a descriptor that was seen done: the status word as it was seen, and the others as `load` has them.
#[inline(always)]
pub(super) fn all_words<F: RxFormat>(status: u64, load: impl Fn(usize) -> u64) -> [u64; MAX_WORDS] {
    let mut words = [0; MAX_WORDS];
    for (word, value) in words.iter_mut().enumerate().take(F::WORDS) {
        *value = if word == F::STATUS { status } else { load(word) };
    }
    words
}

/// A run of transmit descriptors.
pub(super) struct TxRun<'a> {
    /// The run's first descriptor; the ring has one for each slot.
    pub(super) words: Words,
    pub(super) slots: &'a mut [u32],
    pub(super) packets: &'a [PacketBuf],
    /// IOVA minus virtual address.
    pub(super) delta: u64,
    /// The tag that plain packets of the own pool have.
    pub(super) tag: u16,
    /// Shortest and longest frame that needs nothing done to it.
    pub(super) shortest: u16,
    pub(super) longest: u16,
}

/// Writes the descriptors of packets from number `from` on, until one is not plain or the slots are used up; returns the
/// number of the first packet not written.
///
/// # Safety
/// The ring has a descriptor for each slot, and the caller owns them. It gives up the buffers of the packets written, which
/// are in the slots now.
#[inline(always)]
pub(super) unsafe fn tx_run<F: TxFormat>(run: TxRun<'_>, from: usize) -> usize {
    let TxRun { words, slots, packets, delta, tag, shortest, longest } = run;
    let span = longest.saturating_sub(shortest);
    let (Some(packets), Some(slots)) = (packets.get(from..), slots.get_mut(from..)) else { return from };
    let mut at = from * TX_WORDS;
    for (packet, slot) in packets.iter().zip(slots) {
        let (addr, index, len, packet_tag) = packet.parts();
        if packet_tag != tag || len.wrapping_sub(shortest) > span {
            break;
        }
        let [word0, word1] = F::whole((addr as u64).wrapping_add(delta), len);
        // SAFETY: the slot at this position exists, so the descriptor does (contract).
        unsafe {
            words.store(at, word0);
            words.store(at + 1, word1);
        }
        *slot = index;
        at += TX_WORDS;
    }
    at / TX_WORDS
}
