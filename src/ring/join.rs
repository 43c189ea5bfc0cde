//! Both rings in one: frames go from receive descriptors straight into transmit descriptors.
//!
//! For forwarders, which hold no packets. A run takes whole good frames of one buffer each out of the receive ring: it writes
//! transmit descriptors and slots of the very same buffers, behind those that the device was told of, where they are nobody's
//! yet, and shows the frames to the program. Nothing has changed hands so far: when the program panics, the frames are still in
//! the receive ring. Then the receive slots get other buffers, straight from transmit slots whose frames have left, or from the
//! cache where these are too few, and both rings account for what they have.
//!
//! Everything else (frames over several buffers, damaged, shorter than may be sent, longer) ends a run and is for the ordinary
//! way of `drivers::forward`. What always holds: a slot of one ring has a buffer that the other counts as its own only between
//! the writing of a run and its accounting, where no foreign code runs but the program's look at the frames.

use super::descriptors::Words;
use super::format::{RxFormat, TxFormat};
use super::frame::{Arrivals, CHUNK, Forwarded, Gallery, View};
use super::info;
use super::kernel::{Buffers, GROUP, RxShape, TX_WORDS, TxShape, whole, words};
use super::rx::RxQueue;
use super::tx::{MIN_FRAME, TxQueue};
use crate::cpu::Kernel;
use crate::mem::{PackedInfo, PoolCache};

/// Who judges frames.
pub(crate) type Judge<'a> = dyn FnMut(Arrivals<'_>) -> u64 + 'a;

/// What all runs from one queue to another have in common, as the loops use it.
pub(super) struct JoinShape {
    /// As the sending device sees them.
    pub(super) buffers: Buffers,
    /// Lengths that need nothing done to them are these and up to `span` more, in bytes.
    pub(super) least: u16,
    pub(super) span: u16,
}

impl JoinShape {
    /// `None` where no length is good for both.
    #[inline(always)]
    fn new(rx: &RxShape, tx: &TxShape) -> Option<JoinShape> {
        let least = MIN_FRAME as u16;
        let span = ((tx.span >> 32) as u16).min(rx.limit.checked_sub(least)?);
        let Buffers { base, stride, .. } = rx.buffers;
        Some(JoinShape { buffers: Buffers { base, iova_base: base.wrapping_add(tx.delta), stride }, least, span })
    }
}

/// A run of frames.
pub(super) struct JoinRun {
    /// How many may be taken, and how many there are to the end of the receive ring, as many or more.
    pub(super) count: usize,
    pub(super) to_end: usize,
    /// The first descriptor and slot of the receive ring, and of the transmit ring.
    pub(super) from: Words,
    pub(super) from_slots: *const u32,
    pub(super) to: Words,
    pub(super) to_slots: *mut u32,
    /// Where it says where the frames are, and their metadata: as many as a whole number of groups has that hold `count`.
    pub(super) views: *mut View,
    pub(super) infos: *mut PackedInfo,
}

/// Writes what frame `at` and those behind it need to be sent, as long as they are whole good frames of one buffer each that are
/// neither too short nor too long; returns the number of the first that is not, or that there is not.
///
/// # Safety
/// The rings have the descriptors of the run, the receive ring as many as `to_end` says, and of all else there are as many; the
/// caller owns all of them, but for the receive descriptors that are not done. The shape is that of both rings, whose buffers are
/// of one pool. `at` is at most `count`.
#[inline(always)]
pub(super) unsafe fn take<F: RxFormat, G: TxFormat, const INFO: bool>(
    run: &JoinRun,
    at: usize,
    shape: &JoinShape,
    quirks: F::Quirks,
) -> usize {
    // SAFETY: the contract.
    let end = unsafe { take_plain::<F, G>(run, at, shape) };
    if INFO {
        // SAFETY: likewise; up to `end` the descriptors were seen done.
        unsafe { note::<F>(run, at, end, quirks) };
    }
    end
}

/// As [`take`], without metadata.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn take_plain<F: RxFormat, G: TxFormat>(run: &JoinRun, at: usize, shape: &JoinShape) -> usize {
    for i in at..run.count {
        // SAFETY: one of each (contract), which nobody else uses meanwhile.
        unsafe {
            let Some((_, len)) = whole::<F>(run.from, i * F::WORDS, shape.least, shape.span) else { return i };
            let index = *run.from_slots.add(i);
            let [word0, word1] = G::whole(shape.buffers.iova(index), len);
            run.to.store(i * TX_WORDS, word0);
            run.to.store(i * TX_WORDS + 1, word1);
            *run.to_slots.add(i) = index;
            *run.views.add(i) = View { addr: shape.buffers.addr(index), more: 0, len: len.into() };
        }
    }
    run.count
}

/// Writes the metadata of frames `from` to `end`.
///
/// # Safety
/// As [`take`], whose loads saw these descriptors done, with a fence behind them.
#[inline(always)]
unsafe fn note<F: RxFormat>(run: &JoinRun, mut from: usize, end: usize, quirks: F::Quirks) {
    while from + GROUP <= end {
        // SAFETY: a group of each (contract).
        unsafe { info::one_by_one::<F>(run.from.at(from * F::WORDS), &mut *run.infos.add(from).cast(), quirks) };
        from += GROUP;
    }
    for i in from..end {
        // SAFETY: one of each (contract).
        unsafe {
            let load = |word| run.from.load(i * F::WORDS + word);
            *run.infos.add(i) = F::packed(words::<F>(load(F::STATUS), load), quirks);
        }
    }
}

/// Receive descriptors to be armed.
pub(super) struct ArmRun {
    pub(super) count: usize,
    /// The first descriptor and slot.
    pub(super) words: Words,
    pub(super) slots: *mut u32,
    /// The first buffer. A group can be read behind the last one.
    pub(super) fresh: *const u32,
}

/// Arms descriptor `at` and those behind it.
///
/// # Safety
/// The ring has the descriptors of the run, which are the caller's, and there are as many slots and fresh buffers, which the
/// caller gives up, and a group more of these to be read.
#[inline(always)]
pub(super) unsafe fn arm<F: RxFormat>(run: &ArmRun, at: usize, buffers: &Buffers) {
    for i in at..run.count {
        // SAFETY: one of each (contract).
        unsafe {
            let index = *run.fresh.add(i);
            *run.slots.add(i) = index;
            buffers.arm(run.words, i * F::WORDS, index);
        }
    }
}

/// Takes frames from `rx` to `tx`, up to the gallery's limit and the end of either ring, as far as they are plain and there is
/// room. Does nothing where the receive queue has to look at its port's state, or the queues and the cache are not of one pool.
#[inline(always)]
pub(crate) fn forward<F: RxFormat, G: TxFormat>(
    rx: &mut RxQueue<F>,
    tx: &mut TxQueue<G>,
    cache: &mut PoolCache,
    gallery: &mut Gallery,
    judge: &mut Judge<'_>,
) -> Forwarded {
    let one_pool = cache.tag() == tx.tag && cache.tag() == rx.shape.tag;
    if !one_pool || !rx.watch.parts.link.is_current() || rx.within_frame {
        return Forwarded::default();
    }
    // SAFETY: the proofs say that the CPU has what each is compiled for.
    unsafe {
        match (rx.watch.parts.kernel, rx.watch.parts.want_info) {
            // Vectors gain nothing for one frame.
            (_, false) if gallery.limit == 1 => chunk_portable::<F, G, false>(rx, tx, cache, gallery, judge),
            (_, true) if gallery.limit == 1 => chunk_portable::<F, G, true>(rx, tx, cache, gallery, judge),
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx512(_), false) => chunk_avx512::<F, G, false>(rx, tx, cache, gallery, judge),
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx512(_), true) => chunk_avx512::<F, G, true>(rx, tx, cache, gallery, judge),
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2(_), false) if gallery.limit < GROUP => {
                chunk_avx2::<F, G, false, true>(rx, tx, cache, gallery, judge)
            }
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2(_), true) if gallery.limit < GROUP => {
                chunk_avx2::<F, G, true, true>(rx, tx, cache, gallery, judge)
            }
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2(_), false) => chunk_avx2::<F, G, false, false>(rx, tx, cache, gallery, judge),
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2(_), true) => chunk_avx2::<F, G, true, false>(rx, tx, cache, gallery, judge),
            (Kernel::Portable, false) => chunk_portable::<F, G, false>(rx, tx, cache, gallery, judge),
            (Kernel::Portable, true) => chunk_portable::<F, G, true>(rx, tx, cache, gallery, judge),
        }
    }
}

#[inline(never)]
fn chunk_portable<F: RxFormat, G: TxFormat, const INFO: bool>(
    rx: &mut RxQueue<F>,
    tx: &mut TxQueue<G>,
    cache: &mut PoolCache,
    gallery: &mut Gallery,
    judge: &mut Judge<'_>,
) -> Forwarded {
    // SAFETY: `work` asks for runs that meet the contracts.
    let take = |run: &JoinRun, shape: &JoinShape, quirks| unsafe { take::<F, G, INFO>(run, 0, shape, quirks) };
    // SAFETY: as above.
    work::<F, G, INFO>(rx, tx, cache, gallery, judge, take, |run, buffers| unsafe { arm::<F>(run, 0, buffers) })
}

/// # Safety
/// The CPU has AVX-512 as `cpu::Avx512` says.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
unsafe fn chunk_avx512<F: RxFormat, G: TxFormat, const INFO: bool>(
    rx: &mut RxQueue<F>,
    tx: &mut TxQueue<G>,
    cache: &mut PoolCache,
    gallery: &mut Gallery,
    judge: &mut Judge<'_>,
) -> Forwarded {
    use super::join_avx512::{arm, take};
    // SAFETY: as in `chunk_portable`.
    let take = |run: &JoinRun, shape: &JoinShape, quirks| unsafe { take::<F, G, INFO>(run, shape, quirks) };
    // SAFETY: as above.
    work::<F, G, INFO>(rx, tx, cache, gallery, judge, take, |run, buffers| unsafe { arm::<F>(run, buffers) })
}

/// # Safety
/// The CPU has AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn chunk_avx2<F: RxFormat, G: TxFormat, const INFO: bool, const HALF_ONE: bool>(
    rx: &mut RxQueue<F>,
    tx: &mut TxQueue<G>,
    cache: &mut PoolCache,
    gallery: &mut Gallery,
    judge: &mut Judge<'_>,
) -> Forwarded {
    use super::join_avx2::{arm, take};
    // SAFETY: as in `chunk_portable`.
    let take = |run: &JoinRun, shape: &JoinShape, quirks| unsafe { take::<F, G, INFO, HALF_ONE>(run, shape, quirks) };
    // SAFETY: as above.
    work::<F, G, INFO>(rx, tx, cache, gallery, judge, take, |run, buffers| unsafe { arm::<F>(run, buffers) })
}

/// `take` is as the function [`take`] from frame 0 on, `arm` as the function [`arm`]. Once for each kernel, so that its loops and
/// what surrounds them are one.
#[inline(always)]
fn work<F: RxFormat, G: TxFormat, const INFO: bool>(
    rx: &mut RxQueue<F>,
    tx: &mut TxQueue<G>,
    cache: &mut PoolCache,
    gallery: &mut Gallery,
    judge: &mut Judge<'_>,
    take: impl Fn(&JoinRun, &JoinShape, F::Quirks) -> usize,
    arm: impl Fn(&ArmRun, &Buffers),
) -> Forwarded {
    let (first, next) = (rx.next as usize, tx.next as usize);
    // Up to the end of either ring, so that no step has to wrap.
    let to_end = rx.slots.len() - first;
    let want = gallery.limit.min(to_end);
    let finished = tx.finished();
    let (count, finished) = if tx.room() >= want && finished.max(cache.len()) >= want {
        (want, finished)
    } else {
        (make_room(tx, cache, want), 0)
    };
    let Some(shape) = JoinShape::new(&rx.shape, &tx.shape) else { return Forwarded::default() };
    // SAFETY: `next` is below the size of its ring.
    let (from, to) =
        unsafe { (rx.watch.parts.ring.words().from(first * F::WORDS), tx.parts.ring.words().from(next * TX_WORDS)) };
    let slots = rx.slots.as_mut_ptr().wrapping_add(first);
    // From `next` on, both rings have as many descriptors and slots; those of the transmit ring are not the device's.
    let run = JoinRun {
        count,
        to_end,
        from,
        from_slots: slots,
        to,
        to_slots: tx.slots.as_mut_ptr().wrapping_add(next),
        views: gallery.views.as_mut_ptr(),
        infos: gallery.infos.as_mut_ptr(),
    };
    let taken = take(&run, &shape, rx.quirks);
    if taken == 0 {
        return Forwarded::default();
    }
    gallery.informed = INFO;
    // SAFETY: the run wrote that many; the buffers are those of slots of the receive ring, which is borrowed; the device is done
    // with them, and the lengths fit them.
    let dropped = judge(unsafe { Arrivals::new(gallery, taken) });
    // From here on nothing unwinds. The buffers that were in the receive slots are in the transmit slots; others take their
    // place. Behind transmit slots and the cache's stock there is a block.
    let fresh = if finished >= taken {
        tx.take_finished(taken as u32)
    } else {
        // SAFETY: there were that many for the run's count, of which `taken` are some.
        unsafe { cache.consume(taken) };
        cache.end()
    };
    arm(&ArmRun { count: taken, words: from, slots, fresh }, &rx.shape.buffers);
    rx.advance(taken as u32);
    rx.watch.parts.counts.packets.add(taken as u64);
    if rx.unannounced >= rx.tail_step {
        rx.announce();
    }
    let kept = if dropped == 0 { taken } else { leave_out(tx, cache, taken, dropped) };
    if kept > 0 {
        tx.written(kept as u32);
        tx.parts.tail.ring(tx.next);
        tx.parts.counts.packets.add(kept as u64);
    }
    Forwarded { received: taken, sent: kept }
}

/// Gives finished buffers to the cache, and that what it lacks from the pool; returns for how many of `want` there is room and a
/// buffer.
#[inline(never)]
fn make_room<G: TxFormat>(tx: &mut TxQueue<G>, cache: &mut PoolCache, want: usize) -> usize {
    tx.reclaim(cache, want as u32);
    cache.ensure(want.min(tx.room()))
}

/// Takes frames out of the run of `count` that was written from `next` on, and closes the gaps; returns how many are left. Their
/// buffers go to the cache.
#[inline(never)]
fn leave_out<G: TxFormat>(tx: &mut TxQueue<G>, cache: &mut PoolCache, count: usize, dropped: u64) -> usize {
    let first = tx.next as usize;
    let gap = dropped.trailing_zeros() as usize;
    let mut kept = gap;
    for i in gap..count {
        let Some(&index) = tx.slots.get(first + i) else { break };
        if dropped.wrapping_shr(i as u32) & 1 != 0 {
            // SAFETY: a buffer of the cache's pool that was received; its slot has another, and this one is not sent.
            unsafe { cache.put_one(index) };
            continue;
        }
        for word in 0..TX_WORDS {
            // SAFETY: both are descriptors of the run, which lies in the ring and is not the device's.
            unsafe {
                let value = tx.parts.ring.load((first + i) * TX_WORDS + word);
                tx.parts.ring.store((first + kept) * TX_WORDS + word, value);
            }
        }
        if let Some(slot) = tx.slots.get_mut(first + kept) {
            *slot = index;
        }
        kept += 1;
    }
    kept
}

const _: () = assert!(CHUNK.is_multiple_of(GROUP), "a gallery has whole groups");
