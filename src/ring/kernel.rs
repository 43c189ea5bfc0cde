//! The inner loops of the rings over whole runs of descriptors: portable ones, and the choice of faster ones.
//!
//! A ring prepares a run (as many descriptors as there surely are buffers, places and slots for) and a kernel works
//! through it until something is not plain; the ring's slow path takes over there. The loops know neither queues nor pools.
//! What always holds: a kernel changes nothing behind the count that it returns, but for places that are nobody's yet.

use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, fence};

use super::descriptors::Words;
use super::format::{RxFormat, TxFormat};
use super::info;
use crate::cpu::Kernel;
use crate::mem::{PackedInfo, PacketBuf, PoolHandle};

/// Descriptors handled in one straight line.
pub(super) const GROUP: usize = 8;
/// Words of a transmit descriptor.
pub(super) const TX_WORDS: usize = 2;

impl Kernel {
    /// As the function [`tx_run`], from the first packet on.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn tx_run<F: TxFormat>(self, run: &TxRun<'_>) -> usize {
        // SAFETY: the caller's contract; the proofs say that the CPU has what the loops are compiled for.
        unsafe {
            match self {
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512(_) => super::avx512::tx_run::<F>(run),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2(_) => super::avx2::tx_run::<F>(run),
                Kernel::Portable => tx_run::<F>(run, 0),
            }
        }
    }
}

/// Where the buffers of a pool are.
pub(super) struct Buffers {
    /// Address of the data of buffer 0, and where a device sees it.
    pub(super) base: u64,
    pub(super) iova_base: u64,
    /// Bytes from one buffer to the next.
    pub(super) stride: u32,
}

impl Buffers {
    /// Where the data of a buffer is.
    #[inline(always)]
    pub(super) fn addr(&self, index: u32) -> usize {
        self.base as usize + index as usize * self.stride as usize
    }

    /// Where the device sees a buffer's data.
    #[inline(always)]
    pub(super) fn iova(&self, index: u32) -> u64 {
        self.iova_base.wrapping_add(u64::from(index) * u64::from(self.stride))
    }

    /// Arms the receive descriptor whose first word is at `at` with a buffer.
    ///
    /// # Safety
    /// The descriptor is in the ring of `words`, which lives, and is the caller's, as is the buffer, which it gives up.
    #[inline(always)]
    pub(super) unsafe fn arm(&self, words: Words, at: usize, index: u32) {
        // SAFETY: a descriptor has two words or more (contract).
        unsafe {
            words.store(at, self.iova(index));
            words.store(at + 1, 0);
        }
    }
}

/// What all receive runs of a queue have in common, as the loops use it.
pub(super) struct RxShape {
    /// As the receiving device sees them.
    pub(super) buffers: Buffers,
    /// The tag of the packets, and the bytes that a buffer takes.
    pub(super) tag: u16,
    pub(super) limit: u16,
    /// The same where the second word of a `PacketBuf` has tag and length.
    pub(super) meta_tag: u64,
    pub(super) meta_limit: u64,
}

impl RxShape {
    pub(super) fn new(pool: &PoolHandle, iova_delta: u64, limit: u16) -> Option<RxShape> {
        let ((base, stride), tag) = (pool.layout(), pool.number());
        let base = base as u64;
        Some(RxShape {
            buffers: Buffers { base, iova_base: base.wrapping_add(iova_delta), stride: stride.try_into().ok()? },
            tag,
            limit,
            meta_tag: u64::from(tag) << 48,
            meta_limit: u64::from(limit) << 32,
        })
    }
}

/// Do the loops in vectors fit a format? They look at the first two words of a descriptor, whose upper halves have the length.
#[cfg(target_arch = "x86_64")]
pub(super) const fn has_vectors<F: RxFormat>() -> bool {
    F::STATUS == 1 && F::LEN_WORD < 2 && F::LEN_SHIFT >= 32 && F::LEN_SHIFT + F::LEN_BITS <= 64
}

/// A run of receive descriptors.
pub(super) struct RxRun {
    /// How many may be taken, and how many there are to the end of the ring, as many or more.
    pub(super) count: usize,
    pub(super) to_end: usize,
    /// The run's first descriptor.
    pub(super) words: Words,
    /// Buffers that are in the ring.
    pub(super) slots: *mut u32,
    /// Where the packets go; a group more than `count` may be written.
    pub(super) places: *mut PacketBuf,
    /// Where their metadata goes, likewise.
    pub(super) infos: *mut PackedInfo,
    /// The end of the buffers that replace those in the ring: the last ones are used first, so that the newest are. A group can
    /// be read behind it.
    pub(super) fresh: *const u32,
}

/// Takes groups as long as all eight descriptors of one are whole good frames of one buffer each; returns how many descriptors.
///
/// # Safety
/// The ring has the descriptors of the run; `slots`, `places` and, with `INFO`, `infos` have as many, as `fresh` has before its
/// end, and what is said there of a group more; and the caller owns all of them, the buffers in `slots` and those in `fresh`. It
/// gives up, per descriptor taken, its old slot (which is a packet now) and a fresh buffer (which is in the slot now). The
/// shape is that of the pool of these buffers.
#[inline(always)]
pub(super) unsafe fn rx_groups<F: RxFormat, const INFO: bool>(
    run: &RxRun,
    shape: &RxShape,
    quirks: F::Quirks,
) -> usize {
    let (words, limit) = (run.words, u32::from(shape.limit));
    let groups = run.count / GROUP;
    for group in 0..groups {
        let from = group * GROUP;
        // SAFETY: each has the group (contract), and nobody else uses it meanwhile.
        let (slots, places, fresh) = unsafe {
            let places = run.places.add(from).cast::<[MaybeUninit<PacketBuf>; GROUP]>();
            let slots = run.slots.add(from).cast::<[u32; GROUP]>();
            (&mut *slots, &mut *places, &*run.fresh.sub(from + GROUP).cast::<[u32; GROUP]>())
        };
        let at = from * F::WORDS;
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
            return from;
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
                return from;
            }
        }
        if INFO {
            // SAFETY: the run's descriptors exist and are the caller's, and so is the group of metadata (contract); the fence
            // above came after the loads that saw them done.
            unsafe { info::one_by_one::<F>(words.at(at), &mut *run.infos.add(from).cast(), quirks) };
        }
        for i in 0..GROUP {
            // SAFETY: the slot's buffer was the ring's alone, the device is done with it, the length written above fits it,
            // and the slot gets another buffer below.
            unsafe { PacketBuf::write_rest(&mut places[i], shape.buffers.addr(slots[i]), slots[i], shape.tag) };
        }
        for i in 0..GROUP {
            let index = fresh[i];
            slots[i] = index;
            // SAFETY: as above.
            unsafe { shape.buffers.arm(words, at + i * F::WORDS, index) };
        }
    }
    groups * GROUP
}

/// As [`rx_groups`], descriptor by descriptor.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn rx_few<F: RxFormat, const INFO: bool>(run: &RxRun, shape: &RxShape, quirks: F::Quirks) -> usize {
    for i in 0..run.count {
        // SAFETY: the caller's contract.
        if !unsafe { rx_one::<F, INFO>(run, i, shape, quirks) } {
            return i;
        }
    }
    run.count
}

/// Takes descriptor `i` if it is a whole good frame of one buffer.
///
/// # Safety
/// As [`rx_groups`], of a run that has it.
#[inline(always)]
pub(super) unsafe fn rx_one<F: RxFormat, const INFO: bool>(
    run: &RxRun,
    i: usize,
    shape: &RxShape,
    quirks: F::Quirks,
) -> bool {
    let at = i * F::WORDS;
    // SAFETY: one of each (contract), which nobody else uses meanwhile. The slot's buffer was the ring's alone, the device is done
    // with it, the length fits it, and the slot gets another buffer.
    unsafe {
        let Some((status, len)) = whole::<F>(run.words, at, 0, shape.limit) else { return false };
        let (slot, fresh) = (run.slots.add(i), *run.fresh.sub(i + 1));
        let index = slot.replace(fresh);
        run.places.add(i).write(PacketBuf::from_parts(shape.buffers.addr(index), index, len, shape.tag));
        if INFO {
            *run.infos.add(i) = F::packed(words::<F>(status, |word| run.words.load(at + word)), quirks);
        }
        shape.buffers.arm(run.words, at, fresh);
    }
    true
}

/// Status word and length of the descriptor whose first word is at `at`, where it is a whole good frame in one buffer of `least` to
/// `least + span` bytes. What the device wrote before it is visible then.
///
/// # Safety
/// The descriptor is in the ring of `words`, which lives.
#[inline(always)]
pub(super) unsafe fn whole<F: RxFormat>(words: Words, at: usize, least: u16, span: u16) -> Option<(u64, u16)> {
    let whole = F::DONE | F::LAST;
    // SAFETY: a word of the descriptor (contract).
    let load = |word| unsafe { words.load(at + word) };
    let status = load(F::STATUS);
    if status & (whole | F::ERROR) != whole {
        return None;
    }
    // What the device wrote before DONE is visible after this.
    fence(Ordering::Acquire);
    let len_word = if F::LEN_WORD == F::STATUS { status } else { load(F::LEN_WORD) };
    let len = F::len(len_word);
    if len_word & F::WRITTEN == 0 || len.wrapping_sub(least.into()) > span.into() {
        return None;
    }
    Some((status, len as u16))
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
pub(super) fn words<F: RxFormat>(status: u64, load: impl Fn(usize) -> u64) -> impl Fn(usize) -> u64 {
    move |word| if word == F::STATUS { status } else { load(word) }
}

/// Transmit descriptors from those that a loop writes to those that it fetches: a burst.
#[cfg(target_arch = "x86_64")]
const FETCHED: usize = 32;

/// Fetches a cache line of descriptors ahead of the one that is written, to be written: stores alone do not make a CPU fetch what
/// follows, and in a large ring, or after the device, the line is not in L1. Behind the ring's end it fetches lines of nobody.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn fetch_ahead(written: *const u64) {
    let ahead = written.wrapping_add(FETCHED * TX_WORDS);
    // SAFETY: a prefetch changes nothing that a program sees, and does not fault whatever the address. CPUs without the instruction
    // take it for one that does nothing.
    unsafe { std::arch::asm!("prefetchw [{0}]", in(reg) ahead, options(nostack, preserves_flags, readonly)) };
}

#[cfg(target_arch = "x86_64")]
const _: () =
    assert!(FETCHED * TX_WORDS * size_of::<u64>() <= crate::mem::AHEAD, "what is fetched behind a ring is its own");

/// What all transmit runs of a queue have in common, as the loops use it.
pub(super) struct TxShape {
    /// IOVA minus virtual address.
    pub(super) delta: u64,
    /// Length and tag of a plain packet, which are the upper half of a `PacketBuf`'s second word, are from `least` on `span` more;
    /// the lower half counts for nothing.
    pub(super) least: u64,
    pub(super) span: u64,
}

impl TxShape {
    /// For packets of the pool `tag` whose lengths, in bytes, need nothing done to them from `shortest` to `longest`.
    pub(super) fn new(tag: u16, delta: u64, shortest: u16, longest: u16) -> TxShape {
        let least = u64::from(tag) << 48 | u64::from(shortest) << 32;
        TxShape { delta, least, span: u64::from(longest.saturating_sub(shortest)) << 32 | 0xffff_ffff }
    }
}

/// How the loops in vectors make second words of lengths in upper halves: does each byte count in the lower half, and by how many
/// bits the length is shifted for the upper one, where it always does.
#[cfg(target_arch = "x86_64")]
pub(super) const fn per_byte<F: TxFormat>() -> (bool, u64) {
    let (low, high) = (F::WHOLE_PER_BYTE & 0xffff_ffff, F::WHOLE_PER_BYTE >> 32);
    assert!(low < 2 && high.is_power_of_two());
    (low == 1, high.trailing_zeros() as u64)
}

/// A run of transmit descriptors.
pub(super) struct TxRun<'a> {
    /// Packets of the run.
    pub(super) count: usize,
    /// The run's first descriptor, slot and packet.
    pub(super) words: Words,
    pub(super) slots: *mut u32,
    pub(super) packets: *const PacketBuf,
    pub(super) shape: &'a TxShape,
}

/// Writes the descriptors of packets from number `from` on, until one is not plain or all are written; returns the
/// number of the first packet not written.
///
/// # Safety
/// The ring has the descriptors of the run, and there are as many slots and packets; the caller owns all of them. It gives
/// up the buffers of the packets written, which are in the slots now. `from` is at most `count`.
#[inline(always)]
pub(super) unsafe fn tx_run<F: TxFormat>(run: &TxRun<'_>, from: usize) -> usize {
    let TxShape { delta, least, span } = *run.shape;
    for at in from..run.count {
        // SAFETY: `at` is below the count (contract).
        let (addr, index, len, tag) = unsafe { (*run.packets.add(at)).parts() };
        if (u32::from(tag) << 16 | u32::from(len)).wrapping_sub((least >> 32) as u32) > (span >> 32) as u32 {
            return at;
        }
        let [word0, word1] = F::whole((addr as u64).wrapping_add(delta), len);
        // SAFETY: as above.
        unsafe {
            run.words.store(at * TX_WORDS, word0);
            run.words.store(at * TX_WORDS + 1, word1);
            *run.slots.add(at) = index;
        }
    }
    run.count
}
