//! The transmit ring: packets into descriptors, finished buffers back to their pools.
//!
//! Owns a ring's descriptors and, in its slots, the buffer behind each. What always holds: a packet's buffers belong to
//! the ring from the moment its descriptors are written until the device reported a descriptor at or behind them done;
//! the device is told of at most size - 1 descriptors; reports are asked for on the last descriptor of a frame only,
//! and `marks` remembers where, so reclaim looks nowhere else.
//!
//! Buffers of the queue's own pool in plain frames are the fast path: one slot, no look at anything else. Context
//! descriptors (no buffer) and buffers of other pools are `odd`; while any is in flight, reclaim goes slot by slot.
//!
//! A burst touches one state word, the oldest mark's descriptor, the descriptors it writes (16 bytes each), their slots
//! (4 bytes each) and the burst; never the packets.

use std::sync::Arc;

use super::descriptors::Descriptors;
use super::format::TxFormat;
use super::kernel::{self, GROUP, TX_WORDS as WORDS, TxRun, TxShape};
use super::link::{Count, InFlight, QueueLink};
use super::marks::{MARKS, Marks};
use super::state::Turn;
use super::unusual::Fate;
use crate::cpu::Kernel;
use crate::mem::{BLOCK, Burst, Lines, POOL_MASK, PoolCache, PoolHandle, TxInfo};
use crate::mmio::Doorbell;

/// A completion is asked for at least every so many descriptors, or every quarter of the ring.
const MARK_STEP: u32 = 32;
/// Shortest frame without FCS. Shorter ones are padded with zeros here: not every PF lets the hardware do it
/// (igbvf.md 4.7). What the hardware segments is left to it: zeros would become payload.
pub(super) const MIN_FRAME: u32 = 60;
/// The slot of a descriptor without a buffer.
pub(super) const NO_BUFFER: u32 = u32::MAX;

/// What happened on a transmit queue. Counts since the port was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TxQueueStats {
    /// Packets given to the device.
    pub packets: u64,
    /// Packets freed because they, or a segment of theirs, had no bytes.
    pub empty: u64,
    /// Packets freed because they are longer than the port's MTU allows.
    pub too_long: u64,
    /// Packets freed because they have more segments than the device or the ring can take.
    pub too_many_segments: u64,
    /// Packets freed because their pool is not attached to the port.
    pub foreign_pool: u64,
    /// Packets freed because the hardware cannot do what their `TxInfo` asks, they are shorter than it says, or their
    /// segments would be longer than the port's MTU allows.
    pub bad_offload: u64,
    /// Bursts refused because the cache belongs to another pool than the queue's.
    pub wrong_pool: u64,
}

#[derive(Default)]
#[repr(align(128))] // lines of its own, see `mem::lines`
pub(crate) struct TxCounts {
    pub(super) packets: Count,
    pub(super) empty: Count,
    pub(super) too_long: Count,
    pub(super) too_many_segments: Count,
    pub(super) foreign_pool: Count,
    pub(super) bad_offload: Count,
    pub(super) wrong_pool: Count,
}

impl TxCounts {
    pub(crate) fn snapshot(&self) -> TxQueueStats {
        TxQueueStats {
            packets: self.packets.get(),
            empty: self.empty.get(),
            too_long: self.too_long.get(),
            too_many_segments: self.too_many_segments.get(),
            foreign_pool: self.foreign_pool.get(),
            bad_offload: self.bad_offload.get(),
            wrong_pool: self.wrong_pool.get(),
        }
    }
}

/// A pool whose packets a queue may send: IOVA minus virtual address of its region.
pub(crate) struct Attached {
    pub(crate) pool: PoolHandle,
    pub(crate) iova_delta: u64,
}

/// Everything a transmit queue is made of.
pub(crate) struct TxParts {
    pub(crate) number: u16,
    pub(crate) link: QueueLink,
    pub(crate) ring: Descriptors,
    pub(crate) size: u16,
    pub(crate) tail: Doorbell,
    /// The queue's own pool first, then the others that are attached.
    pub(crate) pools: Vec<Attached>,
    /// Largest frame without FCS, in bytes.
    pub(crate) max_frame: u32,
    pub(crate) max_segments: u8,
    pub(crate) offloads: bool,
    pub(crate) kernel: Kernel,
    pub(crate) counts: Arc<TxCounts>,
}

/// A transmit queue. It belongs to the thread that sends on it.
#[repr(align(128))] // lines of its own, see `mem::lines`
pub struct TxQueue<F: TxFormat> {
    pub(super) parts: TxParts,
    /// Buffer number per descriptor, or `NO_BUFFER`, and a block behind them that makes the copy of a block simple.
    pub(super) slots: Lines<u32>,
    /// Pool per descriptor; differs from `tag` for strangers in flight only.
    pub(super) owners: Lines<u16>,
    /// Positions of the descriptors that report, oldest first.
    marks: Marks,
    pub(super) next: u32,
    clean: u32,
    pub(super) in_flight: u32,
    pub(super) unmarked: u32,
    pub(super) mark_step: u32,
    /// Slots in flight that are not a buffer of the own pool.
    pub(super) odd: u32,
    pub(super) tag: u16,
    pub(super) shape: TxShape,
    /// Context slots of the device: what each was last loaded with.
    pub(super) contexts: [Option<TxInfo>; 2],
    pub(super) next_context: u8,
    _format: std::marker::PhantomData<F>,
}

impl<F: TxFormat> TxQueue<F> {
    /// A queue over a ring that control has programmed. `None` when the ring's memory does not fit its size or there
    /// is no own pool.
    pub(crate) fn new(parts: TxParts) -> Option<TxQueue<F>> {
        let size = parts.size as usize;
        if parts.ring.len() != size * WORDS || size < 8 {
            return None;
        }
        let own = parts.pools.first()?;
        let (tag, iova_delta) = (own.pool.number(), own.iova_delta);
        Some(TxQueue {
            slots: Lines::new(size + BLOCK, || NO_BUFFER),
            owners: Lines::new(size, || tag),
            marks: Marks::new(),
            next: 0,
            clean: 0,
            in_flight: 0,
            unmarked: 0,
            mark_step: MARK_STEP.min(size as u32 / 4).max(size.div_ceil(MARKS) as u32),
            odd: 0,
            tag,
            shape: TxShape::new(tag, iova_delta, MIN_FRAME as u16, parts.max_frame.min(0xffff) as u16),
            contexts: [None; 2],
            next_context: 0,
            parts,
            _format: std::marker::PhantomData,
        })
    }

    /// Descriptors of the ring.
    #[inline(always)]
    pub(super) fn size(&self) -> u32 {
        self.parts.size.into()
    }

    /// The queue's number in its port.
    pub fn number(&self) -> u16 {
        self.parts.number
    }

    /// One load: does the queue work under the state word in force?
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.parts.link.is_current()
    }

    /// Can anything be sent, with this cache?
    pub(crate) fn has_room(&self, cache: &PoolCache) -> bool {
        self.is_current() && cache.tag() == self.tag && self.in_flight < self.size() - 1
    }

    /// Sends packets from the front of `burst` as far as they fit the ring and leaves the rest in it. Buffers that the
    /// device is done with go to `cache`, as many as make room for the burst and a stock for the thread. Returns the number of
    /// packets sent.
    ///
    /// Packets that can never be sent are freed and counted by reason, so a loop that retries ends. An empty burst
    /// takes back all that the device is done with. Returns 0 without looking when the port is not running, and when the cache is of another pool
    /// than the queue's (which is counted).
    #[inline]
    pub fn burst(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        if self.is_current() && cache.tag() == self.tag {
            self.work(cache, burst)
        } else {
            self.attend_change(cache, burst)
        }
    }

    /// The state word has changed, or the cache is of another pool.
    #[cold]
    #[inline(never)]
    fn attend_change(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        if !self.is_current() && !self.catch_up(cache) {
            return 0;
        }
        if cache.tag() != self.tag {
            self.parts.counts.wrong_pool.add(1);
            return 0;
        }
        self.work(cache, burst)
    }

    /// The rest of `burst`, by the kernel that fits.
    #[inline(always)]
    fn work(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        if burst.len() == 1 {
            return self.work_one(cache, burst);
        }
        // SAFETY: the proofs say that the CPU has what each is compiled for.
        unsafe {
            match self.parts.kernel {
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512(_) if burst.len() <= GROUP => self.work_group(cache, burst),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512(_) => self.work_avx512(cache, burst),
                // There is nothing for less than half a group.
                _ if burst.len() < GROUP / 2 => self.work_portable(cache, burst),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2(_) => self.work_avx2(cache, burst),
                Kernel::Portable => self.work_portable(cache, burst),
            }
        }
    }

    /// As `send`, of one packet: without a run where it is plain.
    #[inline(never)]
    fn work_one(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        self.reclaim(cache, 1);
        if self.room() == 0 || !self.is_plain(burst, 0) {
            return self.work_portable(cache, burst);
        }
        // SAFETY: as in `work_portable`, of a run of one, for which there is room.
        if unsafe { kernel::tx_run::<F>(&self.run(1, burst, 0), 0) } == 0 {
            return self.work_portable(cache, burst);
        }
        self.written(1);
        // SAFETY: the one packet was written to the ring, whose slot owns its buffer now.
        unsafe { burst.forget_all() };
        self.parts.tail.ring(self.next);
        self.parts.counts.packets.add(1);
        1
    }

    #[inline(never)]
    fn work_portable(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        // SAFETY: `plain` asks for runs that meet the contract.
        self.send(cache, burst, |run| unsafe { kernel::tx_run::<F>(run, 0) })
    }

    /// # Safety
    /// The CPU has AVX-512 as `cpu::Avx512` says.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
    unsafe fn work_group(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        // SAFETY: as in `work_portable`; the burst has a group at most.
        self.send(cache, burst, |run| unsafe { super::avx512::tx_group::<F>(run) })
    }

    /// # Safety
    /// The CPU has AVX-512 as `cpu::Avx512` says.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
    unsafe fn work_avx512(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        // SAFETY: as in `work_portable`.
        self.send(cache, burst, |run| unsafe { super::avx512::tx_run::<F>(run) })
    }

    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn work_avx2(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        // SAFETY: as in `work_portable`.
        self.send(cache, burst, |run| unsafe { super::avx2::tx_run::<F>(run) })
    }

    /// The rest of `burst`, once for each kernel, so that its loop and what surrounds it are one; `kernel` is as
    /// [`kernel::tx_run`].
    #[inline(always)]
    fn send(&mut self, cache: &mut PoolCache, burst: &mut Burst, kernel: impl Fn(&TxRun<'_>) -> usize) -> usize {
        self.reclaim(cache, burst.len() as u32);
        let before = self.next;
        let mut taken = if self.is_plain(burst, 0) { self.plain(burst, 0, kernel) } else { 0 };
        let mut dropped = 0;
        if taken < burst.len() {
            (taken, dropped) = self.send_rest(cache, burst, taken);
        }
        // SAFETY: the first `taken` packets were either written to the ring, whose slots own their buffers now, or read out
        // and dropped by `send_any`.
        unsafe { burst.forget_front(taken) };
        if self.next != before {
            // One doorbell: every descriptor up to here is written.
            self.parts.tail.ring(self.next);
        }
        let sent = taken - dropped;
        self.parts.counts.packets.add(sent as u64);
        sent
    }

    /// What one plain run left: packets behind the end of the ring, or something unusual. Returns how many are out of the
    /// burst, and how many of these were dropped.
    #[inline(never)]
    fn send_rest(&mut self, cache: &mut PoolCache, burst: &mut Burst, from: usize) -> (usize, usize) {
        let (mut taken, mut dropped) = (from, 0);
        let kernel = self.parts.kernel;
        while taken < burst.len() {
            if self.is_plain(burst, taken) {
                // SAFETY: `plain` asks for runs that meet the contract.
                let sent = self.plain(burst, taken, |run| unsafe { kernel.tx_run::<F>(run) });
                taken += sent;
                if sent > 0 {
                    continue;
                }
            }
            match self.send_any(burst, taken) {
                Fate::Sent => {}
                Fate::Dropped => dropped += 1,
                Fate::Full if self.frees(cache) => continue,
                Fate::Full => break,
            }
            taken += 1;
        }
        (taken, dropped)
    }

    /// Was nothing asked for packets `from` and later?
    #[inline(always)]
    fn is_plain(&self, burst: &Burst, from: usize) -> bool {
        !self.parts.offloads || burst.is_plain_from(from)
    }

    /// Writes plain single-buffer frames of the own pool from `burst[from..]` until one is something else or the ring
    /// is full or at its end; returns how many.
    #[inline(always)]
    fn plain(&mut self, burst: &Burst, from: usize, kernel: impl Fn(&TxRun<'_>) -> usize) -> usize {
        let sent = kernel(&self.run(self.room().min(burst.len() - from), burst, from));
        if sent > 0 {
            self.written(sent as u32);
        }
        sent
    }

    /// A run of `count` descriptors from `next` on, for the packets from `burst[from]` on. It meets the kernels' contract where there
    /// is room for as many; the packets written are to be forgotten.
    #[inline(always)]
    fn run(&mut self, count: usize, burst: &Burst, from: usize) -> TxRun<'_> {
        let first = self.next as usize;
        TxRun {
            count,
            // SAFETY: `next` is below the ring's size.
            words: unsafe { self.parts.ring.words().from(first * WORDS) },
            slots: self.slots.as_mut_ptr().wrapping_add(first),
            packets: burst.as_slice().as_ptr().wrapping_add(from),
            shape: &self.shape,
        }
    }

    /// Descriptors that can be written, up to the end of the ring, so that no step has to wrap.
    #[inline(always)]
    pub(super) fn room(&self) -> usize {
        let size = self.size();
        (size - 1 - self.in_flight).min(size - self.next) as usize
    }

    /// Accounts for `count` frames of a descriptor each, at least one, that were written from `next` on.
    #[inline(always)]
    pub(super) fn written(&mut self, count: u32) {
        self.unmarked += count;
        if self.unmarked >= self.mark_step {
            self.mark(self.next + count - 1);
        }
        self.advance(count);
    }

    /// Asks for a report of the descriptor at `position`, the last of its frame.
    #[inline(always)]
    pub(super) fn mark(&mut self, position: u32) {
        let word1 = position as usize * WORDS + 1;
        // SAFETY: the position has just been written, so it is in the ring; the device is not told of it yet.
        unsafe { self.parts.ring.store(word1, F::with_report(self.parts.ring.load(word1))) };
        self.marks.push(position);
        self.unmarked = 0;
    }

    #[inline(always)]
    fn advance(&mut self, count: u32) {
        let next = self.next + count;
        self.next = if next >= self.size() { 0 } else { next };
        self.in_flight += count;
    }

    /// Takes back what the device is done with, until `wanted` descriptors are free and the cache is stocked: more would only go
    /// to the depot and come back from there. Everything, if 0 are wanted.
    #[inline(always)]
    pub(super) fn reclaim(&mut self, cache: &mut PoolCache, wanted: u32) {
        while let Some(mark) = self.marks.first() {
            // SAFETY: marks are positions in the ring.
            let word1 = unsafe { self.parts.ring.load_acquire(mark as usize * WORDS + 1) };
            if !F::done(word1) || cache.is_stocked() && wanted.wrapping_sub(1) < self.size() - 1 - self.in_flight {
                return;
            }
            self.marks.pop();
            let end = mark + 1;
            if end > self.clean {
                self.release(cache, self.clean, end);
            } else {
                self.release(cache, self.clean, self.size());
                self.release(cache, 0, end);
            }
            self.clean = if end == self.size() { 0 } else { end };
        }
    }

    /// Takes everything back that the device is done with. False where there is nothing.
    #[cold]
    #[inline(never)]
    fn frees(&mut self, cache: &mut PoolCache) -> bool {
        let before = self.in_flight;
        self.reclaim(cache, 0);
        self.in_flight < before
    }

    /// How many buffers the device is done with that lie one behind another, as far as the oldest mark says; 0 where anything is
    /// odd.
    #[inline(always)]
    pub(super) fn finished(&self) -> usize {
        let Some(mark) = self.marks.first() else { return 0 };
        // SAFETY: marks are positions in the ring.
        let word1 = unsafe { self.parts.ring.load_acquire(mark as usize * WORDS + 1) };
        if F::done(word1) && self.odd == 0 { (mark + 1).saturating_sub(self.clean) as usize } else { 0 }
    }

    /// Takes `count` of these back, for a ring and not for a cache: where their numbers are.
    #[inline(always)]
    pub(super) fn take_finished(&mut self, count: u32) -> *const u32 {
        let first = self.slots.as_ptr().wrapping_add(self.clean as usize);
        self.in_flight -= count;
        self.clean += count;
        if self.marks.first().is_some_and(|mark| mark < self.clean) {
            self.marks.pop();
            if self.clean == self.size() {
                self.clean = 0;
            }
        }
        first
    }

    /// Gives back the buffers of the slots `from..to`.
    #[inline(always)]
    fn release(&mut self, cache: &mut PoolCache, from: u32, to: u32) {
        let count = (to - from) as usize;
        self.in_flight -= to - from;
        let block = self.slots.get(from as usize..).and_then(|slots| slots.first_chunk());
        // SAFETY: none is odd, so each slot has a buffer of the own pool, which is the cache's (compared at the start of
        // the burst); the device is done with them, and they leave the ring's window here.
        let put = self.odd == 0 && block.is_some_and(|block| unsafe { cache.put_block(block, count) });
        if !put {
            self.release_any(cache, from, to);
        }
    }

    /// As `release`, of more than a block, or with odd ones among them.
    #[inline(never)]
    fn release_any(&mut self, cache: &mut PoolCache, from: u32, to: u32) {
        if self.odd > 0 {
            self.release_odd(cache, from, to);
        } else if let Some(slots) = self.slots.get(from as usize..to as usize) {
            // SAFETY: as in `release`.
            unsafe { cache.put(slots) };
        }
    }

    #[cold]
    fn release_odd(&mut self, cache: &mut PoolCache, from: u32, to: u32) {
        let (from, count) = (from as usize, (to - from) as usize);
        let slots = self.slots.iter().zip(self.owners.iter_mut()).skip(from).take(count);
        for (&index, owner) in slots {
            if index == NO_BUFFER {
                self.odd -= 1;
            } else if *owner == self.tag {
                // SAFETY: as in `release`.
                unsafe { cache.put_one(index) };
            } else {
                let owner = std::mem::replace(owner, self.tag);
                self.odd -= 1;
                if let Some(other) = attached(&self.parts.pools, owner) {
                    // We hold a handle of that pool, so this is never the last of an orphaned one.
                    let _ = other.pool.depot().put_one(index);
                }
            }
        }
    }

    /// Writes one descriptor and its slot.
    pub(super) fn put(&mut self, words: [u64; 2], index: u32, owner: u16) {
        let position = self.next as usize;
        // SAFETY: `next` is below the ring's size, and `plan` checked that this descriptor is free.
        unsafe {
            self.parts.ring.store(position * WORDS, words[0]);
            self.parts.ring.store(position * WORDS + 1, words[1]);
        }
        if let (Some(slot), Some(of)) = (self.slots.get_mut(position), self.owners.get_mut(position)) {
            (*slot, *of) = (index, owner);
        }
        self.unmarked += 1;
        self.advance(1);
    }

    /// The state word has changed. True when the queue may work.
    #[cold]
    fn catch_up(&mut self, cache: &mut PoolCache) -> bool {
        match self.parts.link.look() {
            Turn::Rest => false,
            Turn::Rebuild => {
                // The device was reset: it is done with everything. A stranger's cache cannot take the buffers, so they
                // go home one by one then.
                for (tag, index) in self.held() {
                    if tag == self.tag && cache.tag() == tag {
                        // SAFETY: a buffer of the cache's pool out of our window, which is emptied below.
                        unsafe { cache.put_one(index) };
                    } else if let Some(other) = attached(&self.parts.pools, tag) {
                        // A handle is held: never the last of an orphaned pool.
                        let _ = other.pool.depot().put_one(index);
                    }
                }
                self.marks.clear();
                self.owners.fill(self.tag);
                (self.next, self.clean, self.in_flight, self.unmarked, self.odd) = (0, 0, 0, 0, 0);
                self.contexts = [None; 2];
                if let Some(words) = F::PLAIN_CONTEXT {
                    // The ring is empty and larger than this; the first burst's doorbell covers it.
                    self.put(words, NO_BUFFER, self.tag);
                    self.odd += 1;
                }
                true
            }
        }
    }

    /// Pool tag and number of every buffer in the ring.
    fn held(&self) -> impl Iterator<Item = (u16, u32)> {
        let slots = || self.owners.iter().copied().zip(self.slots.iter().copied());
        let all = slots().skip(self.clean as usize).chain(slots()); // around the ring
        all.take(self.in_flight as usize).filter(|&(_, index)| index != NO_BUFFER)
    }
}

/// The pool of a packet, where it is one of these.
pub(super) fn attached(pools: &[Attached], tag: u16) -> Option<&Attached> {
    pools.iter().find(|a| a.pool.number() == tag & POOL_MASK)
}

impl<F: TxFormat> Drop for TxQueue<F> {
    fn drop(&mut self) {
        let in_flight = InFlight {
            buffers: self.held().collect(),
            pools: self.parts.pools.iter().map(|a| a.pool.clone()).collect(),
            _ring: self.parts.ring.region().clone(),
        };
        self.parts.link.leave(in_flight);
    }
}
