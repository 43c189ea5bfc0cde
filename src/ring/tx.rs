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

#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::descriptors::Descriptors;
use super::format::TxFormat;
use super::kernel::{self, Kernel, TX_WORDS as WORDS, TxRun};
use super::link::{Count, InFlight, QueueLink};
use super::state::Turn;
use crate::mem::{Burst, L4, POOL_MASK, PacketBuf, PoolCache, PoolHandle, TxInfo};
use crate::mmio::Doorbell;

/// A completion is asked for at least every so many descriptors, or every quarter of the ring.
const MARK_STEP: u32 = 32;
/// Shortest frame without FCS. Shorter ones are padded with zeros here: not every PF lets the hardware do it
/// (igbvf.md 4.7). What the hardware segments is left to it: zeros would become payload.
const MIN_FRAME: u32 = 60;
/// The slot of a descriptor without a buffer.
const NO_BUFFER: u32 = u32::MAX;

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
pub(crate) struct TxCounts {
    packets: Count,
    empty: Count,
    too_long: Count,
    too_many_segments: Count,
    foreign_pool: Count,
    bad_offload: Count,
    wrong_pool: Count,
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
pub struct TxQueue<F: TxFormat> {
    parts: TxParts,
    /// Buffer number per descriptor, or `NO_BUFFER`.
    slots: Box<[u32]>,
    /// Pool per descriptor; differs from `tag` for strangers in flight only.
    owners: Box<[u16]>,
    /// Positions of the descriptors that report, oldest first.
    marks: Marks,
    next: u32,
    clean: u32,
    in_flight: u32,
    unmarked: u32,
    mark_step: u32,
    /// Slots in flight that are not a buffer of the own pool.
    odd: u32,
    tag: u16,
    iova_delta: u64,
    /// Context slots of the device: what each was last loaded with.
    contexts: [Option<TxInfo>; 2],
    next_context: u8,
    _format: std::marker::PhantomData<F>,
}

/// A queue of ring positions, as many as the ring has descriptors: a mark covers at least one, so it never overflows.
struct Marks {
    positions: Box<[u32]>,
    first: usize,
    len: usize,
}

impl Marks {
    fn new(size: usize) -> Marks {
        Marks { positions: vec![0; size].into(), first: 0, len: 0 }
    }

    #[inline(always)]
    fn first(&self) -> Option<u32> {
        if self.len == 0 { None } else { self.positions.get(self.first).copied() }
    }

    #[inline(always)]
    fn push(&mut self, position: u32) {
        let size = self.positions.len();
        let end = self.first + self.len;
        let end = if end >= size { end - size } else { end };
        if let Some(place) = self.positions.get_mut(end) {
            *place = position;
            self.len += 1;
        }
    }

    #[inline(always)]
    fn pop(&mut self) {
        if self.len > 0 {
            self.first = if self.first + 1 == self.positions.len() { 0 } else { self.first + 1 };
            self.len -= 1;
        }
    }

    fn clear(&mut self) {
        self.len = 0;
    }
}

/// What became of one packet on the slow path.
enum Fate {
    Sent,
    Full,
    Dropped,
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
            slots: vec![NO_BUFFER; size].into(),
            owners: vec![tag; size].into(),
            marks: Marks::new(size),
            next: 0,
            clean: 0,
            in_flight: 0,
            unmarked: 0,
            mark_step: MARK_STEP.min(size as u32 / 4).max(1),
            odd: 0,
            tag,
            iova_delta,
            contexts: [None; 2],
            next_context: 0,
            parts,
            _format: std::marker::PhantomData,
        })
    }

    /// The queue's number in its port.
    pub fn number(&self) -> u16 {
        self.parts.number
    }

    /// Sends packets from the front of `burst` as far as they fit the ring and leaves the rest in it; buffers that the
    /// device is done with go to `cache`. Returns the number of packets sent.
    ///
    /// Packets that can never be sent are freed and counted by reason, so a loop that retries ends. An empty burst
    /// only reclaims. Returns 0 without looking when the port is not running, and when the cache is of another pool
    /// than the queue's (which is counted).
    #[inline]
    pub fn burst(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        if !self.parts.link.is_current() && !self.catch_up(cache) {
            return 0;
        }
        if cache.pool().number() != self.tag {
            self.parts.counts.wrong_pool.add(1);
            return 0;
        }
        self.reclaim(cache);
        let before = self.next;
        let mut taken = 0;
        let mut dropped = 0;
        loop {
            if !self.parts.offloads || burst.is_plain_from(taken) {
                taken += self.plain_run(burst, taken);
            }
            if taken == burst.len() {
                break;
            }
            match self.send_any(burst, taken) {
                Fate::Sent => {}
                Fate::Dropped => dropped += 1,
                Fate::Full => break,
            }
            taken += 1;
        }
        if taken > 0 {
            // SAFETY: the first `taken` packets were either written to the ring, whose slots own their buffers now, or
            // read out and dropped by `send_any`.
            unsafe { burst.forget_front(taken) };
        }
        if self.next != before {
            // One doorbell: every descriptor up to here is written.
            self.parts.tail.ring(self.next);
        }
        let sent = taken - dropped;
        if sent > 0 {
            self.parts.counts.packets.add(sent as u64);
        }
        sent
    }

    /// Writes plain single-buffer frames of the own pool from `burst[from..]` until one is something else or the ring
    /// is full; returns how many.
    #[inline(always)]
    fn plain_run(&mut self, burst: &Burst, from: usize) -> usize {
        let mut done = 0;
        loop {
            let size = self.slots.len() as u32;
            // Up to the end of the ring, so that no step has to wrap.
            let room = (size - 1 - self.in_flight).min(size - self.next) as usize;
            let Some(packets) = burst.as_slice().get(from + done..) else { return done };
            let first = self.next as usize;
            let Some(slots) = self.slots.get_mut(first..first + room) else { return done };
            let run = TxRun {
                words: self.parts.ring.words().from(first * WORDS),
                slots,
                packets,
                delta: self.iova_delta,
                tag: self.tag,
                shortest: MIN_FRAME as u16,
                longest: self.parts.max_frame.min(0xffff) as u16,
            };
            // SAFETY: the run lies in the ring, from `next` on, and is no longer than what the device does not use; the
            // packets written are forgotten by the caller.
            let count = unsafe {
                match self.parts.kernel {
                    #[cfg(target_arch = "x86_64")]
                    Kernel::Avx2(proof) if run.packets.len() >= avx2::TX_GROUP => avx2::tx_run::<F>(run, proof),
                    _ => kernel::tx_run::<F>(run, 0),
                }
            };
            let Some(last) = count.checked_sub(1).and_then(|last| packets.get(last)) else { return done };
            let last_word = F::whole(0, last.parts().2)[1];
            let count = count as u32;
            self.unmarked += count;
            if self.unmarked >= self.mark_step {
                self.mark(self.next + count - 1, last_word);
            }
            self.advance(count);
            done += count as usize;
            if from + done == burst.len() {
                return done;
            }
        }
    }

    /// Asks for a report of the descriptor at `position`, the last of its frame, whose second word is `word1`.
    #[inline(always)]
    fn mark(&mut self, position: u32, word1: u64) {
        // SAFETY: the position has just been written, so it is in the ring; the device is not told of it yet.
        unsafe { self.parts.ring.store(position as usize * WORDS + 1, F::with_report(word1)) };
        self.marks.push(position);
        self.unmarked = 0;
    }

    #[inline(always)]
    fn advance(&mut self, count: u32) {
        let next = self.next + count;
        self.next = if next >= self.slots.len() as u32 { 0 } else { next };
        self.in_flight += count;
    }

    /// Takes back what the device is done with.
    #[inline(always)]
    fn reclaim(&mut self, cache: &mut PoolCache) {
        while let Some(mark) = self.marks.first() {
            // SAFETY: marks are positions in the ring.
            let word1 = unsafe { self.parts.ring.load_acquire(mark as usize * WORDS + 1) };
            if !F::done(word1) {
                return;
            }
            self.marks.pop();
            let end = mark + 1;
            if end > self.clean {
                self.release(cache, self.clean, end);
            } else {
                self.release(cache, self.clean, self.slots.len() as u32);
                self.release(cache, 0, end);
            }
            self.clean = if end == self.slots.len() as u32 { 0 } else { end };
        }
    }

    /// Gives back the buffers of the slots `from..to`.
    #[inline(always)]
    fn release(&mut self, cache: &mut PoolCache, from: u32, to: u32) {
        self.in_flight -= to - from;
        if self.odd == 0 {
            if let Some(slots) = self.slots.get(from as usize..to as usize) {
                // SAFETY: none is odd, so each slot has a buffer of the own pool, which is the cache's (compared at the
                // start of the burst); the device is done with them, and they leave the ring's window here.
                unsafe { cache.put(slots) };
            }
        } else {
            self.release_odd(cache, from, to);
        }
    }

    #[cold]
    fn release_odd(&mut self, cache: &mut PoolCache, from: u32, to: u32) {
        let (from, count) = (from as usize, (to - from) as usize);
        let slots = self.slots.iter().zip(&mut self.owners).skip(from).take(count);
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

    /// Any packet: chained, of another pool, short, with offloads, or not to be sent at all. When it is dropped, its
    /// handle has been taken out of the burst.
    #[cold]
    fn send_any(&mut self, burst: &mut Burst, at: usize) -> Fate {
        let info = if self.parts.offloads { burst.tx_info(at) } else { TxInfo::default() };
        let Some(packet) = burst.as_mut_slice().get_mut(at) else { return Fate::Full };
        let reason = match self.plan(packet, &info) {
            Ok(plan) => return self.write_any(packet, &info, plan),
            Err(reason) => reason,
        };
        let counts = &self.parts.counts;
        match reason {
            Refusal::Full => return Fate::Full,
            Refusal::Empty => counts.empty.add(1),
            Refusal::TooLong => counts.too_long.add(1),
            Refusal::TooManySegments => counts.too_many_segments.add(1),
            Refusal::ForeignPool => counts.foreign_pool.add(1),
            Refusal::BadOffload => counts.bad_offload.add(1),
        }
        // SAFETY: a move out of the burst; `burst` forgets this place (it is among the `taken` packets).
        drop(unsafe { std::ptr::read(packet) });
        Fate::Dropped
    }

    /// Checks a packet and pads it to the shortest frame.
    fn plan(&self, packet: &mut PacketBuf, info: &TxInfo) -> Result<Plan, Refusal> {
        let (_, _, _, tag) = packet.parts();
        let delta = attached(&self.parts.pools, tag).ok_or(Refusal::ForeignPool)?.iova_delta;
        let (mut segments, mut total) = (1u32, packet.len());
        let (mut shortest, mut longest) = (total, total);
        for link in packet.links() {
            let len = usize::from(link.len);
            segments += 1;
            total += len;
            (shortest, longest) = (shortest.min(len), longest.max(len));
        }
        if shortest == 0 {
            return Err(Refusal::Empty);
        }
        let tso = info.tso_mss != 0;
        let max_frame = self.parts.max_frame as usize;
        // A frame that the hardware cuts into segments may be longer than one; 18 bits of length are the field's.
        let limit = if tso { 0x3_ffff } else { max_frame };
        if total > limit || longest > F::MAX_SEGMENT as usize {
            return Err(Refusal::TooLong);
        }
        if total < headers(info) || tso && headers(info) - 1 + usize::from(info.tso_mss) > max_frame {
            return Err(Refusal::BadOffload);
        }
        let most = u32::from(self.parts.max_segments);
        let cut = || {
            let lens = std::iter::once(packet.len()).chain(packet.links().map(|link| usize::from(link.len)));
            segments_per_cut(lens, headers(info) - 1, info.tso_mss.into())
        };
        let too_many = segments > most && !(F::SEGMENTS_PER_CUT && tso && cut() <= most);
        // Up to `mark_step` - 1 descriptors may wait without a report, for ever if nothing follows: what does not fit
        // beside them and a context would never be sent.
        if too_many || segments + self.mark_step > self.slots.len() as u32 - 1 {
            return Err(Refusal::TooManySegments);
        }
        // Every buffer holds that much.
        if total < MIN_FRAME as usize && !tso && packet.pad(MIN_FRAME as usize - total) {
            total = MIN_FRAME as usize;
        }
        let context = if info.is_plain() { None } else { Some(self.find_context(info, total as u32)?) };
        let descriptors = segments + u32::from(matches!(context, Some((_, Some(_)))));
        if descriptors > self.slots.len() as u32 - 1 - self.in_flight {
            return Err(Refusal::Full);
        }
        Ok(Plan { delta, total: total as u32, context })
    }

    /// The context slot to use, and the descriptor that loads it if it is not loaded with this already.
    fn find_context(&self, info: &TxInfo, total: u32) -> Result<(u8, Option<[u64; 2]>), Refusal> {
        let slots = F::CONTEXTS.clamp(1, self.contexts.len());
        let loaded = self.contexts.iter().take(slots).position(|c| c.as_ref() == Some(info));
        if let Some(slot) = loaded.filter(|_| F::CONTEXTS > 0) {
            return Ok((slot as u8, None));
        }
        let slot = self.next_context % slots as u8;
        let words = F::context(info, total, slot).ok_or(Refusal::BadOffload)?;
        Ok((slot, F::needs_context(info).then_some(words)))
    }

    /// Writes a packet that `plan` has passed.
    fn write_any(&mut self, packet: &PacketBuf, info: &TxInfo, plan: Plan) -> Fate {
        let mut context = 0;
        if let Some((slot, load)) = plan.context {
            context = slot;
            if let Some(words) = load {
                self.put(words, NO_BUFFER, self.tag);
                self.odd += 1;
                if let Some(known) = self.contexts.get_mut(slot as usize) {
                    *known = Some(*info);
                }
                self.next_context = slot.wrapping_add(1);
            }
        }
        let (addr, index, len, tag) = packet.parts();
        let owner = tag & POOL_MASK;
        let mut links = packet.links();
        let mut piece = Some((addr, index, u32::from(len)));
        while let Some((addr, index, len)) = piece {
            piece = links.next().and_then(|link| {
                let pool = &attached(&self.parts.pools, owner)?.pool;
                let (start, _) = pool.buffer_bounds(link.index);
                Some((start + link.offset as usize, link.index, u32::from(link.len)))
            });
            let iova = (addr as u64).wrapping_add(plan.delta);
            let last = piece.is_none();
            let words = if plan.context.is_some() {
                F::data_offload(iova, len, plan.total, last, false, info, context)
            } else {
                F::data(iova, len, plan.total, last, false)
            };
            let position = self.next;
            self.put(words, index, owner);
            if owner != self.tag {
                self.odd += 1;
            }
            if last && self.unmarked >= self.mark_step {
                self.mark(position, words[1]);
            }
        }
        Fate::Sent
    }

    /// Writes one descriptor and its slot.
    fn put(&mut self, words: [u64; 2], index: u32, owner: u16) {
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
                    if tag == self.tag && cache.pool().number() == tag {
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
fn attached(pools: &[Attached], tag: u16) -> Option<&Attached> {
    pools.iter().find(|a| a.pool.number() == tag & POOL_MASK)
}

/// The bytes that a frame must have for what is asked of the hardware: headers where it is told to write, and, to be
/// segmented, a payload.
fn headers(info: &TxInfo) -> usize {
    let ip = usize::from(info.l2_len) + usize::from(info.l3_len);
    match info.l4 {
        _ if info.tso_mss != 0 => ip + usize::from(info.l4_len) + 1,
        L4::Tcp => ip + 20,
        L4::Udp => ip + 8,
        L4::Sctp => ip + 12,
        L4::None if info.ip_checksum => ip,
        L4::None => 0,
    }
}

/// Most buffers that hold the headers and the payload of one of the frames that TSO cuts: those with a part of the headers,
/// and those with a part of its payload. One with both counts twice.
pub(super) fn segments_per_cut(lens: impl Iterator<Item = usize>, mut headers: usize, mss: usize) -> u32 {
    let (mut with_headers, mut with_payload, mut room, mut worst) = (0, 0, mss, 0);
    for mut len in lens {
        if headers > 0 {
            with_headers += 1;
            let here = len.min(headers);
            headers -= here;
            len -= here;
        }
        if len == 0 {
            continue;
        }
        with_payload += 1;
        worst = worst.max(with_headers + with_payload);
        if len < room {
            room -= len;
        } else {
            // Frames that lie in this buffer alone are no worse.
            let over = (len - room).checked_rem(mss).unwrap_or(0);
            (with_payload, room) = (u32::from(over > 0), mss - over);
        }
    }
    worst
}

/// A packet that can be sent.
struct Plan {
    delta: u64,
    total: u32,
    context: Option<(u8, Option<[u64; 2]>)>,
}

/// Why a packet is not sent.
enum Refusal {
    /// Not now.
    Full,
    Empty,
    TooLong,
    TooManySegments,
    ForeignPool,
    BadOffload,
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
