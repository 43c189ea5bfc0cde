//! The receive ring: packets out of filled descriptors, fresh buffers into them.
//!
//! Owns a ring's descriptors and, in its slots, the buffer behind each: the slots are the truth, because the device
//! overwrites descriptors. What always holds: every slot has a buffer; the device may use the descriptors from `next`
//! up to the tail it was told, at most size - 1 of them; a packet is handed out only after its descriptor was seen done
//! and its length fits the buffer, and in the same step its slot gets another buffer. With no buffer to replace it, a
//! packet stays in the ring.
//!
//! A burst touches one state word, the descriptors it takes (16 or 32 bytes each), their slots (4 bytes each), the cache's
//! stock and the burst; never the packets.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use super::descriptors::Words;
use super::format::RxFormat;
use super::kernel::{self, GROUP, RxRun, RxShape};
use super::link::InFlight;
use super::rx_parts::RxParts;
use super::state::Turn;
use crate::cpu::Kernel;
use crate::error::{Error, Result};
use crate::event;
use crate::mem::{BLOCK, Burst, CACHE_SIZE, Lines, PackedInfo, PacketBuf, PoolCache};

/// Longest frame in bytes that a device can mean: 14 bits of length (igbvf.md 4.7, RLPML), more than any MTU here.
const MAX_FRAME: u32 = 1 << 14;
/// The tail is written when this many descriptors wait for it, or an eighth of the ring.
const TAIL_STEP: u32 = 256;

/// The parts and what a poll looks at besides: the same for queues of every format. Polls that find nothing are most of them,
/// and cost least where nobody has to ask whose queue it is.
pub(crate) struct Watch {
    pub(super) parts: RxParts,
    /// The status word of the next descriptor, and its bit for done.
    status: Words,
    done: u64,
    /// The pool's.
    tag: u16,
}

impl Watch {
    /// What there is to be done.
    #[inline(always)]
    pub(crate) fn look(&self, cache: &PoolCache) -> Look {
        if !self.parts.link.is_current() || cache.tag() != self.tag {
            return Look::Changed;
        }
        // SAFETY: a word of the ring, which is among the parts.
        if unsafe { self.status.load(0) } & self.done == 0 { Look::Idle } else { Look::Ready }
    }
}

/// What a poll finds.
pub(crate) enum Look {
    Idle,
    /// The next descriptor is done.
    Ready,
    /// The port's state has changed, or the cache is of another pool.
    Changed,
}

/// A receive queue. It belongs to the thread that polls it.
#[repr(C)] // `watch` has the same place whatever the format
#[repr(align(128))] // lines of its own, see `mem::lines`
pub struct RxQueue<F: RxFormat> {
    pub(super) watch: Watch,
    pub(super) quirks: F::Quirks,
    pub(super) shape: RxShape,
    /// Buffer number per descriptor.
    pub(super) slots: Lines<u32>,
    pub(super) next: u32,
    /// Descriptors armed in memory that the tail does not cover yet.
    pub(super) unannounced: u32,
    pub(super) tail_step: u32,
    /// The front of a frame whose end has not come yet.
    partial: Option<PacketBuf>,
    /// Buffers that the device filled for it, and how many the longest frame takes.
    pieces: u32,
    max_pieces: u32,
    /// Drop the rest of the current frame.
    discard: bool,
    /// The next descriptor is not a frame's first: there is a front, or a rest to be dropped.
    pub(super) within_frame: bool,
}

// A queue is Send by its parts and must not be shared: no method takes `&self` to the ring.

impl<F: RxFormat> RxQueue<F> {
    /// A queue over a ring that control has programmed, with a buffer for every slot. `None`, and no buffer taken,
    /// when the pool has too few or the ring's memory does not fit its size.
    pub(crate) fn new(parts: RxParts, quirks: F::Quirks) -> Option<RxQueue<F>> {
        let size = parts.size as usize;
        if parts.ring.len() != size * F::WORDS || size < GROUP {
            return None;
        }
        let shape = RxShape::new(&parts.pool, parts.iova_delta, parts.buffer_len)?;
        let mut slots = Lines::new(size, || 0u32);
        let depot = parts.pool.depot();
        let taken = depot.take(&mut slots);
        if taken < size {
            for &index in slots.iter().take(taken) {
                let _ = depot.put_one(index); // a handle is held: never the last
            }
            return None;
        }
        let max_pieces = MAX_FRAME.div_ceil(u32::from(parts.buffer_len).max(1));
        let tail_step = TAIL_STEP.min(size as u32 / 8).max(1);
        // SAFETY: the ring has descriptors of more words than this.
        let status = unsafe { parts.ring.words().from(F::STATUS) };
        Some(RxQueue {
            watch: Watch { parts, status, done: F::DONE, tag: shape.tag },
            quirks,
            shape,
            slots,
            next: 0,
            unannounced: 0,
            tail_step,
            partial: None,
            pieces: 0,
            max_pieces,
            discard: false,
            within_frame: false,
        })
    }

    /// The queue's number in its port.
    pub fn number(&self) -> u16 {
        self.watch.parts.number
    }

    /// Receives packets into `burst`, up to its limit, and gives the ring as many fresh buffers from `cache`. Returns
    /// the number of packets added. Returns 0 without looking when the port is not running, and when the cache is of
    /// another pool than the queue's (which is counted).
    #[inline]
    pub fn burst(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        match self.watch.look(cache) {
            Look::Idle => 0,
            Look::Ready => self.attend(cache, burst),
            Look::Changed => self.attend_change(cache, burst),
        }
    }

    pub(crate) fn watch(&self) -> &Watch {
        &self.watch
    }

    /// May the queue work? Looks at the state word, if it has changed.
    #[inline(always)]
    pub(crate) fn is_running(&mut self) -> bool {
        self.watch.parts.link.is_current() || self.catch_up()
    }

    /// As `burst`, of a queue that found its state word or its cache changed.
    #[cold]
    #[inline(never)]
    pub(crate) fn attend_change(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        if !self.is_running() {
            return 0;
        }
        if cache.tag() != self.watch.tag {
            self.watch.parts.counts.wrong_pool.add(1);
            return 0;
        }
        self.attend(cache, burst)
    }

    /// As `burst`, of a queue that is ready: once for each kernel, so that its loop and what surrounds it are one.
    #[inline(never)]
    pub(crate) fn attend(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        let wanted = burst.limit() - burst.len();
        // SAFETY: the proofs say that the CPU has what each is compiled for.
        unsafe {
            match (self.watch.parts.kernel, self.watch.parts.want_info) {
                (_, false) if wanted == 1 => self.work_one::<false>(cache, burst),
                (_, true) if wanted == 1 => self.work_one::<true>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx512(_), false) if wanted <= GROUP => self.work_group::<false>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx512(_), true) if wanted <= GROUP => self.work_group::<true>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx512(_), false) => self.work_avx512::<false>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx512(_), true) => self.work_avx512::<true>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx2(_), false) if wanted >= GROUP => self.work_avx2::<false, false>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx2(_), true) if wanted >= GROUP => self.work_avx2::<true, false>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx2(_), false) if wanted >= GROUP / 2 => self.work_avx2::<false, true>(cache, burst),
                #[cfg(target_arch = "x86_64")]
                (Kernel::Avx2(_), true) if wanted >= GROUP / 2 => self.work_avx2::<true, true>(cache, burst),
                // There is nothing for less than a group otherwise.
                (_, false) if wanted < GROUP => self.work_few::<false>(cache, burst),
                (_, true) if wanted < GROUP => self.work_few::<true>(cache, burst),
                (_, false) => self.work_portable::<false>(cache, burst),
                (_, true) => self.work_portable::<true>(cache, burst),
            }
        }
    }

    /// As `receive`, of one packet, for which a run is not worth its preparations.
    #[inline(never)]
    fn work_one<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        if self.one::<INFO>(cache, burst) {
            return self.finish(1);
        }
        let before = burst.len();
        while self.is_next_done() && self.unusual::<INFO>(cache, burst) {}
        self.finish(burst.len() - before)
    }

    /// As `receive`, of less than a group.
    #[inline(never)]
    fn work_few<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        let before = burst.len();
        while self.few::<INFO>(cache, burst) {}
        self.finish(burst.len() - before)
    }

    /// As `receive`, of a group at most: in one step, without all that a loop prepares.
    ///
    /// # Safety
    /// The CPU has AVX-512 as `cpu::Avx512` says.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
    unsafe fn work_group<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        let before = burst.len();
        if !self.within_frame {
            let run = self.run(cache.ensure(self.room(burst)), cache, burst);
            // SAFETY: the run meets the contract, and this function that of the CPU.
            let done = unsafe { super::avx512::rx_groups::<F, INFO, true>(&run, &self.shape, self.quirks) };
            // SAFETY: as in `receive`.
            unsafe { self.account::<INFO>(done, cache, burst) };
        }
        while !burst.is_full() && self.is_next_done() && self.rest::<INFO>(cache, burst) {}
        self.finish(burst.len() - before)
    }

    /// # Safety
    /// The CPU has AVX-512 as `cpu::Avx512` says.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
    unsafe fn work_avx512<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        // SAFETY: `receive` asks for runs that meet the contract.
        self.receive::<INFO>(cache, burst, |run, shape, quirks| unsafe {
            super::avx512::rx_groups::<F, INFO, false>(run, shape, quirks)
        })
    }

    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn work_avx2<const INFO: bool, const HALF_ONE: bool>(
        &mut self,
        cache: &mut PoolCache,
        burst: &mut Burst,
    ) -> usize {
        // SAFETY: as in `work_avx512`.
        self.receive::<INFO>(cache, burst, |run, shape, quirks| unsafe {
            super::avx2::rx_groups::<F, INFO, HALF_ONE>(run, shape, quirks)
        })
    }

    /// Tells the device of every descriptor but the one before `next`, so that a full ring is not an empty one, as far as
    /// its tail can say.
    #[inline(always)]
    pub(super) fn announce(&mut self) {
        let size = self.slots.len() as u32;
        let last = if self.next == 0 { size - 1 } else { self.next - 1 };
        self.watch.parts.tail.ring(last & !(F::TAIL_MULTIPLE - 1));
        self.unannounced = 0;
    }

    #[inline(never)]
    fn work_portable<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        // SAFETY: as in `work_avx512`.
        self.receive::<INFO>(cache, burst, |run, shape, quirks| unsafe {
            kernel::rx_groups::<F, INFO>(run, shape, quirks)
        })
    }

    /// Receives what there is room for: runs of plain packets as `kernel` does them (see [`kernel::rx_groups`]), and what is
    /// between them as it comes.
    #[inline(always)]
    fn receive<const INFO: bool>(
        &mut self,
        cache: &mut PoolCache,
        burst: &mut Burst,
        kernel: impl Fn(&RxRun, &RxShape, F::Quirks) -> usize,
    ) -> usize {
        let before = burst.len();
        loop {
            if !self.within_frame {
                let room = self.room(burst).min(CACHE_SIZE / 2);
                let run = self.run(cache.ensure(room), cache, burst);
                let done = kernel(&run, &self.shape, self.quirks);
                // SAFETY: the kernel made that many packets of slots that have others of the cache's buffers now.
                unsafe { self.account::<INFO>(done, cache, burst) };
            }
            if burst.is_full() || !self.is_next_done() || !self.rest::<INFO>(cache, burst) {
                break;
            }
        }
        self.finish(burst.len() - before)
    }

    /// As `few`, seldom needed.
    #[inline(never)]
    fn rest<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> bool {
        self.few::<INFO>(cache, burst)
    }

    /// What groups leave, up to a group: the end of the ring, of the burst or of the done descriptors, or something unusual. True
    /// when there may be more.
    #[inline(always)]
    fn few<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> bool {
        if !self.within_frame {
            let room = self.room(burst).min(GROUP);
            let run = self.run(cache.ensure(room), cache, burst);
            // SAFETY: the run meets the contract.
            let done = unsafe { kernel::rx_few::<F, INFO>(&run, &self.shape, self.quirks) };
            // SAFETY: as in `receive`.
            unsafe { self.account::<INFO>(done, cache, burst) };
            if done == room {
                return !burst.is_full();
            }
        }
        self.is_next_done() && self.unusual::<INFO>(cache, burst)
    }

    /// Takes the next packet, which there is room for, if it is plain.
    #[inline(always)]
    fn one<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> bool {
        if self.within_frame || cache.ensure(1) == 0 {
            return false;
        }
        let run = self.run(1, cache, burst);
        // SAFETY: the run meets the contract.
        if !unsafe { kernel::rx_one::<F, INFO>(&run, 0, &self.shape, self.quirks) } {
            return false;
        }
        // SAFETY: as in `receive`.
        unsafe { self.account::<INFO>(1, cache, burst) };
        true
    }

    /// Ends a burst that has got so many packets.
    #[inline(always)]
    fn finish(&mut self, got: usize) -> usize {
        self.watch.parts.counts.packets.add(got as u64);
        if self.unannounced >= self.tail_step {
            self.announce();
        }
        got
    }

    /// What stopped a run before the end: no buffer, or something unusual. True when another run may follow.
    #[inline(never)]
    fn unusual<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> bool {
        while !burst.is_full() && self.single::<INFO>(cache, burst) {
            if !self.within_frame {
                return true;
            }
        }
        false
    }

    /// Has the device reported the next descriptor done?
    #[inline(always)]
    fn is_next_done(&self) -> bool {
        // SAFETY: a word of the ring, which is among the parts.
        unsafe { self.watch.status.load(0) & F::DONE != 0 }
    }

    /// Descriptors to the end of the ring, as far as the burst has room for their packets.
    #[inline(always)]
    fn room(&self, burst: &Burst) -> usize {
        (burst.limit() - burst.len()).min(self.slots.len() - self.next as usize)
    }

    /// The run from `next` on, of `count` packets, which there are room and buffers for. It lies in the ring, where every descriptor
    /// and slot is the queue's; the fresh buffers are the cache's, which gives those up that `account` is told of.
    #[inline(always)]
    fn run(&mut self, count: usize, cache: &PoolCache, burst: &mut Burst) -> RxRun {
        let first = self.next as usize;
        let (places, infos) = burst.spare();
        RxRun {
            count,
            to_end: self.slots.len() - first,
            // SAFETY: `next` is below the ring's size.
            words: unsafe { self.watch.parts.ring.words().from(first * F::WORDS) },
            slots: self.slots.as_mut_ptr().wrapping_add(first),
            places: places.cast(),
            infos,
            fresh: cache.end(),
        }
    }

    /// Accounts for `done` packets of a run.
    ///
    /// # Safety
    /// The first `done` places behind the burst's packets have packets now, and the first as many slots from `next` on the
    /// cache's newest buffers.
    #[inline(always)]
    unsafe fn account<const INFO: bool>(&mut self, done: usize, cache: &mut PoolCache, burst: &mut Burst) {
        // SAFETY: the caller's contract.
        unsafe {
            burst.grow::<INFO>(done);
            cache.consume(done);
        }
        self.advance(done as u32);
    }

    /// Takes the next descriptor, whatever it is, if it is done and there is a buffer to replace it. False when there is
    /// nothing to do.
    #[inline(never)]
    fn single<const INFO: bool>(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> bool {
        let at = self.next as usize * F::WORDS;
        // SAFETY: `next` is below the ring's size.
        let status = unsafe { self.watch.parts.ring.load_acquire(at + F::STATUS) };
        if status & F::DONE == 0 {
            return false;
        }
        // SAFETY: as above.
        let load = |word| unsafe { self.watch.parts.ring.load(at + word) };
        let len_word = if F::LEN_WORD == F::STATUS { status } else { load(F::LEN_WORD) };
        if len_word & F::WRITTEN == 0 && !self.is_past(status, len_word) {
            return false;
        }
        if cache.ensure(1) == 0 {
            self.watch.parts.counts.no_buffer.add(1);
            return false;
        }
        // Before the descriptor is armed again.
        let info = if INFO { F::packed(kernel::words::<F>(status, load), self.quirks) } else { PackedInfo::default() };
        let len = F::len(len_word);
        let Some(&fresh) = cache.take(1).first() else { return false };
        let Some(slot) = self.slots.get_mut(self.next as usize) else { return false };
        let index = std::mem::replace(slot, fresh);
        self.arm(self.next as usize, fresh);
        self.advance(1);

        let addr = self.shape.buffers.addr(index);
        // SAFETY: the buffer was the ring's alone and the device is done with it; a length beyond the buffer is cut to 0
        // here and the frame dropped below; the slot has another buffer.
        let piece = unsafe {
            let len = if len <= u32::from(self.watch.parts.buffer_len) { len as u16 } else { 0 };
            PacketBuf::from_parts(addr, index, len, self.shape.tag)
        };
        let whole = self.assemble(piece, status, len);
        self.within_frame = self.partial.is_some() || self.discard;
        if let Some(packet) = whole {
            // The caller checked that there is room; without it the packet would drop and its buffer go home.
            let _ = burst.push(packet);
            if INFO {
                burst.set_last_rx_info(info);
            }
        }
        true
    }

    /// Is a done descriptor done for good whose length, or whatever else a write-back leaves, is not there?
    ///
    /// Emulated NICs store the done bit by a `memmove` that may store it twice (glibc's does for 4 bytes, QEMU's igb uses it),
    /// and when the second store is late it hits a descriptor that was armed anew: done, with no length, while the buffer
    /// is the device's. Linux's drivers take the length for the sign of completion. The device has passed it if it completed the
    /// next one; and a frame may end in a buffer that had nothing but the FCS, which was stripped. Where the length took the
    /// address's place, so did the rest of that word, and an echo is known by the address that is still there.
    #[cold]
    fn is_past(&self, status: u64, len_word: u64) -> bool {
        if F::LEN_WORD != F::STATUS
            && self.slots.get(self.next as usize).is_some_and(|&i| self.shape.buffers.iova(i) != len_word)
        {
            return true;
        }
        let following = if self.next as usize + 1 == self.slots.len() { 0 } else { self.next as usize + 1 };
        // SAFETY: below the ring's size.
        let next = unsafe { self.watch.parts.ring.load(following * F::WORDS + F::STATUS) };
        next & F::DONE != 0 || self.partial.is_some() && status & F::LAST != 0
    }

    /// A piece of a frame over several buffers, or of a bad one. Returns the frame once it is whole.
    #[cold]
    fn assemble(&mut self, piece: PacketBuf, status: u64, len: u32) -> Option<PacketBuf> {
        let last = status & F::LAST != 0;
        // A frame without an end would take the whole pool, buffer by buffer.
        self.pieces += 1;
        if len > u32::from(self.watch.parts.buffer_len) || self.pieces > self.max_pieces {
            if !self.discard {
                self.watch.parts.counts.bad_length.add(1);
            }
            self.discard = true;
        }
        // Errors are valid with the last descriptor only.
        if last && status & F::ERROR != 0 && !self.discard {
            self.watch.parts.counts.errors.add(1);
            self.discard = true;
        }
        if self.discard {
            self.partial = None;
            self.discard = !last;
        } else {
            match &mut self.partial {
                None => self.partial = Some(piece),
                // Nothing but an FCS that was stripped; a segment without bytes could not be sent on.
                Some(_) if piece.is_empty() => {}
                Some(front) => {
                    // Same pool, so this cannot fail; if it did, the piece would drop and go home.
                    let _ = front.chain(piece);
                }
            }
        }
        if !last {
            return None;
        }
        self.pieces = 0;
        self.partial.take()
    }

    /// Writes the descriptor of a fresh buffer.
    #[inline(always)]
    fn arm(&mut self, position: usize, index: u32) {
        // SAFETY: callers pass a position below the ring's size and a buffer that is in its slot now.
        unsafe { self.shape.buffers.arm(self.watch.parts.ring.words(), position * F::WORDS, index) };
    }

    #[inline(always)]
    pub(super) fn advance(&mut self, count: u32) {
        let next = self.next + count;
        self.next = if next >= self.slots.len() as u32 { 0 } else { next };
        self.look_at_next();
        self.unannounced += count;
    }

    /// `next` has changed.
    #[inline(always)]
    fn look_at_next(&mut self) {
        // SAFETY: `next` is below the ring's size.
        self.watch.status = unsafe { self.watch.parts.ring.words().from(self.next as usize * F::WORDS + F::STATUS) };
    }

    /// The state word has changed. True when the queue may work.
    #[cold]
    fn catch_up(&mut self) -> bool {
        match self.watch.parts.link.look() {
            Turn::Rest => false,
            Turn::Rebuild => {
                self.partial = None;
                self.pieces = 0;
                self.discard = false;
                self.within_frame = false;
                self.next = 0;
                self.look_at_next();
                let mut position = 0;
                while let Some(&index) = self.slots.get(position) {
                    self.arm(position, index);
                    position += 1;
                }
                self.announce();
                true
            }
        }
    }

    /// Sleeps until a packet comes, the port's state changes, or `timeout` is over; returns the number of packets
    /// added to `burst`, which may be 0.
    ///
    /// Arms the queue's interrupt, looks at the ring once more (a packet may have come in between), and sleeps.
    ///
    /// # Errors
    /// [`Error::Config`] when the port was opened without interrupts; [`Error::Os`] when `poll` fails.
    pub fn sleep(&mut self, cache: &mut PoolCache, burst: &mut Burst, timeout: Duration) -> Result<usize> {
        let fd = match &self.watch.parts.interrupt {
            Some(interrupt) => interrupt.event.clone(),
            None => return Err(Error::Config("the port was opened without interrupts(true)".into())),
        };
        self.rearm();
        let got = self.burst(cache, burst);
        if got > 0 {
            return Ok(got);
        }
        if event::wait(fd.as_fd(), timeout)? {
            event::clear(fd.as_fd());
        }
        Ok(self.burst(cache, burst))
    }

    /// The eventfd that the queue's vector and every change of the port's state signal; `None` on a port opened without
    /// interrupts. Read it when it was readable.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.watch.parts.interrupt.as_ref().map(|interrupt| interrupt.event.as_fd())
    }

    /// Unmasks the queue's vector, and gives the ring all of its buffers. Packets that are in the ring already may not
    /// raise it: poll once more, then wait on [`event_fd`](Self::event_fd). Does nothing on a port opened without
    /// interrupts or not running.
    pub fn rearm(&mut self) {
        // A queue that has not seen the word in force catches up first: its next poll would not arm the vector.
        if self.watch.parts.interrupt.is_none() || !self.is_running() {
            return;
        }
        if self.unannounced > 0 {
            self.announce();
        }
        if let Some(interrupt) = &self.watch.parts.interrupt {
            interrupt.arm.ring(interrupt.arm_value);
        }
    }
}

impl<F: RxFormat> Drop for RxQueue<F> {
    fn drop(&mut self) {
        // The front of an unfinished frame is the program's, not the device's.
        self.partial = None;
        let tag = self.shape.tag;
        let buffers = self.slots.iter().map(|&index| (tag, index)).collect();
        self.watch.parts.link.leave(InFlight {
            buffers,
            pools: vec![self.watch.parts.pool.clone()],
            _ring: self.watch.parts.ring.region().clone(),
        });
    }
}

const _: () = assert!(GROUP <= BLOCK, "a group can be read behind the cache's stock");
