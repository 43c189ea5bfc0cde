//! A thread's own stock of free buffers, between the depot and everything that allocates or frees in bulk.
//!
//! A cache belongs to whoever holds it and is passed as `&mut`: no atomics and no thread-locals in steady state. It
//! works as a stack, so the buffer freed last, whose lines are still warm, is the next to be used. It touches the
//! depot in magazines only. What always holds: the first `len` numbers are free buffers of this pool that nobody else
//! has.

use crossbeam::utils::CachePadded;

use super::burst::{Burst, move_to_front};
use super::depot::MAGAZINE;
use super::lines::AHEAD;
use super::numbers;
use super::packet::{CHAINED, POOL_MASK, PacketBuf, links_of};
use super::pool::PoolHandle;
use crate::cpu::Kernel;

/// Most buffers that a cache keeps.
pub(crate) const CACHE_SIZE: usize = 512;

/// Numbers that `put_block` copies at once.
pub(crate) const BLOCK: usize = 32;
/// Places of the stock: for buffers, for what `put_block` copies behind them, and for what is fetched ahead.
const PLACES: usize = CACHE_SIZE + BLOCK + AHEAD / size_of::<u32>();

/// Free buffers of one pool for one thread. Dropping it takes them back to the pool.
#[repr(align(128))] // lines of its own, see `mem::lines`
pub struct PoolCache {
    pool: PoolHandle,
    /// The pool's number, which bursts compare with the queue's.
    tag: u16,
    kernel: Kernel,
    len: usize,
    /// The first `len` are the stock.
    stock: Box<CachePadded<[u32; PLACES]>>,
}

impl PoolCache {
    pub(crate) fn new(pool: PoolHandle) -> PoolCache {
        PoolCache {
            tag: pool.number(),
            kernel: pool.kernel(),
            pool,
            len: 0,
            stock: Box::new(CachePadded::new([0; PLACES])),
        }
    }

    #[inline(always)]
    pub(crate) fn tag(&self) -> u16 {
        self.tag
    }

    /// Buffers in this cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when the next allocation has to ask the depot.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Has it what a thread may need at once? More would sooner or later go to the depot.
    #[inline(always)]
    pub(crate) fn is_stocked(&self) -> bool {
        self.len >= CACHE_SIZE / 2
    }

    /// Makes sure of `want` buffers (at most half the cache) as far as the pool has them, and returns how many of
    /// `want` there are.
    #[inline(always)]
    pub(crate) fn ensure(&mut self, want: usize) -> usize {
        if self.len < want {
            self.refill(want);
        }
        want.min(self.len)
    }

    #[cold]
    fn refill(&mut self, want: usize) {
        // Up to half the cache, so that neither a run of takes nor a run of puts goes to the depot each time.
        let target = want.next_multiple_of(MAGAZINE).clamp(CACHE_SIZE / 2, CACHE_SIZE);
        if target > self.len {
            let room = self.stock.get_mut(self.len..target).unwrap_or(&mut []);
            self.len += self.pool.depot().take(room);
        }
    }

    /// Takes the `count` newest buffers, of which `ensure` said that they are there.
    #[inline(always)]
    pub(crate) fn take(&mut self, count: usize) -> &[u32] {
        let end = self.len;
        self.len = end.saturating_sub(count);
        // `get` instead of an index: the data path has no panic, and `len` never exceeds the array.
        self.stock.get(self.len..end).unwrap_or(&[])
    }

    /// The end of the stock: `len` buffers lie before it, the newest last. [`consume`](Self::consume) takes them.
    #[inline(always)]
    pub(crate) fn end(&self) -> *const u32 {
        self.stock.as_ptr().wrapping_add(self.len)
    }

    /// Takes the `count` newest buffers, which the caller has used.
    ///
    /// # Safety
    /// There are as many.
    #[inline(always)]
    pub(crate) unsafe fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len);
        self.len = self.len.wrapping_sub(count);
    }

    /// Puts back free buffers, the first `count` of a block; false, and nothing done, where that does not go in one piece.
    ///
    /// # Safety
    /// As [`put`](Self::put), for the first `count`.
    #[inline(always)]
    pub(crate) unsafe fn put_block(&mut self, block: &[u32; BLOCK], count: usize) -> bool {
        // The whole block whatever the count: that is a few wide stores, and what lies behind `len` is nobody's.
        let room = self.stock.get_mut(self.len..).and_then(|room| room.first_chunk_mut());
        match room {
            Some(room) if count <= BLOCK && self.len + count <= CACHE_SIZE => {
                *room = *block;
                self.len += count;
                true
            }
            _ => false,
        }
    }

    /// Puts back free buffers.
    ///
    /// # Safety
    /// The numbers are buffers of this pool which the caller owns and gives up, each once.
    #[inline(always)]
    pub(crate) unsafe fn put(&mut self, numbers: &[u32]) {
        for part in numbers.chunks(CACHE_SIZE / 2) {
            // As long as the part, which is at most half the cache.
            if let Some(room) = self.room(part.len()).get_mut(..part.len()) {
                room.copy_from_slice(part);
                self.len += part.len();
            }
        }
    }

    /// As [`put`](Self::put), for one.
    ///
    /// # Safety
    /// See [`put`](Self::put).
    #[inline(always)]
    pub(crate) unsafe fn put_one(&mut self, number: u32) {
        if self.len == CACHE_SIZE {
            self.flush(CACHE_SIZE / 2);
        }
        if let Some(room) = self.stock.get_mut(self.len) {
            *room = number;
            self.len += 1;
        }
    }

    /// Room behind the newest buffer, for `count` or half the cache, whichever is less.
    #[inline(always)]
    fn room(&mut self, count: usize) -> &mut [u32] {
        let count = count.min(CACHE_SIZE / 2);
        if self.len + count > CACHE_SIZE {
            self.flush(CACHE_SIZE / 2);
        }
        self.stock.get_mut(self.len..self.len + count).unwrap_or(&mut [])
    }

    /// Takes the oldest buffers to the depot until at most `keep` are left.
    #[cold]
    fn flush(&mut self, keep: usize) {
        let stock = self.stock.get_mut(..self.len).unwrap_or(&mut []);
        let mut out = 0;
        for magazine in stock.as_chunks::<MAGAZINE>().0 {
            if stock.len() - out <= keep {
                break;
            }
            self.pool.depot().put_magazine(magazine);
            out += MAGAZINE;
        }
        move_to_front(stock, out);
        self.len -= out;
    }

    /// An empty packet with the full headroom, or `None` when the pool has no buffer left.
    #[inline]
    pub fn alloc_one(&mut self) -> Option<PacketBuf> {
        if self.ensure(1) == 0 {
            return None;
        }
        let index = *self.take(1).first()?;
        // SAFETY: the number came out of the stock, so the buffer is ours; its data address lies inside it.
        Some(unsafe { PacketBuf::from_parts(self.pool.data_addr(index), index, 0, self.pool.number()) })
    }

    /// Appends up to `count` empty packets to `burst`, as far as the pool has buffers and the burst has room; returns
    /// how many.
    pub fn alloc(&mut self, count: usize, burst: &mut Burst) -> usize {
        let before = burst.len();
        while burst.len() - before < count && !burst.is_full() {
            let Some(packet) = self.alloc_one() else { break };
            // Not full, so this cannot fail; if it did, the packet would drop and its buffer go home.
            let _ = burst.push(packet);
        }
        burst.len() - before
    }

    /// A copy of the packet in buffers of this pool, chained where one is not enough. `None` when the pool has too
    /// few left.
    pub fn copy(&mut self, packet: &PacketBuf) -> Option<PacketBuf> {
        let mut head: Option<PacketBuf> = None;
        let mut current = self.alloc_one()?;
        for mut segment in packet.segments() {
            while !segment.is_empty() {
                if current.tailroom() == 0 {
                    let full = std::mem::replace(&mut current, self.alloc_one()?);
                    match &mut head {
                        None => head = Some(full),
                        Some(head) => head.chain(full).ok()?,
                    }
                }
                let (now, later) = segment.split_at(segment.len().min(current.tailroom()));
                current.append(now.len())?.copy_from_slice(now);
                segment = later;
            }
        }
        match head {
            None => Some(current),
            Some(mut head) => head.chain(current).ok().map(|()| head),
        }
    }

    /// Frees every packet of the burst: those of this pool into the cache, strangers to their own pools.
    #[inline]
    pub fn free(&mut self, burst: &mut Burst) {
        // SAFETY: the proofs say that the CPU has what each is compiled for.
        unsafe {
            match self.kernel {
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx512(_) => self.free_avx512(burst),
                #[cfg(target_arch = "x86_64")]
                Kernel::Avx2(_) if burst.len() >= numbers::FOUR => self.free_avx2(burst),
                _ => self.free_portable(burst),
            }
        }
    }

    /// # Safety
    /// The CPU has AVX-512 as `cpu::Avx512` says.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,bmi1,bmi2,lzcnt")]
    unsafe fn free_avx512(&mut self, burst: &mut Burst) {
        // SAFETY: `free_by` asks for what meets the contract.
        self.free_by(burst, |packets, tag, places| unsafe { numbers::avx512(packets, tag, places) });
    }

    /// # Safety
    /// The CPU has AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    unsafe fn free_avx2(&mut self, burst: &mut Burst) {
        // SAFETY: as above.
        self.free_by(burst, |packets, tag, places| unsafe { numbers::avx2(packets, tag, places) });
    }

    #[inline(never)]
    fn free_portable(&mut self, burst: &mut Burst) {
        // SAFETY: as above.
        self.free_by(burst, |packets, tag, places| unsafe { numbers::portable(packets, tag, places) });
    }

    /// `gather` is one of the functions of `numbers`.
    #[inline(always)]
    fn free_by(&mut self, burst: &mut Burst, gather: impl Fn(&[PacketBuf], u16, *mut u32) -> bool) {
        let count = burst.len();
        if count > CACHE_SIZE - self.len {
            return self.free_any(burst);
        }
        // The stock has places for all packets, and for a block more, which are numbers of nobody's.
        let places = self.stock.as_mut_ptr().wrapping_add(self.len);
        if !gather(burst.as_slice(), self.tag, places) {
            return self.free_any(burst);
        }
        self.len += count;
        // SAFETY: all are packets in one buffer of this pool each, whose numbers are in the stock now.
        unsafe { burst.forget_all() };
    }

    /// As `free`, with chains or strangers among the packets, or more of them than there is room for.
    #[inline(never)]
    fn free_any(&mut self, burst: &mut Burst) {
        if burst.len() > CACHE_SIZE - self.len && burst.len() <= CACHE_SIZE / 2 {
            self.flush(CACHE_SIZE / 2);
            return self.free(burst);
        }
        while let Some(packet) = burst.pop() {
            if packet.parts().3 & POOL_MASK == self.tag {
                self.free_one(packet);
            }
            // A stranger drops here and goes home.
        }
    }

    /// Frees a packet of this pool, of one buffer or several.
    fn free_one(&mut self, packet: PacketBuf) {
        let (_, index, _, tag) = packet.into_parts();
        let chained = tag & CHAINED != 0;
        let mut at = Some(index);
        while let Some(index) = at {
            // Read before the buffer goes: afterwards the entry may be another packet's.
            at = links_of(&self.pool, index, chained).next().map(|link| link.index);
            // SAFETY: the packet owned every buffer of its chain and has been taken apart.
            unsafe { self.put_one(index) };
        }
    }
}

impl Drop for PoolCache {
    fn drop(&mut self) {
        self.flush(0);
        for &number in self.stock.iter().take(self.len) {
            // We hold a handle, so this is never the last of an orphaned pool.
            let _ = self.pool.depot().put_one(number);
        }
    }
}

impl std::fmt::Debug for PoolCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PoolCache({} buffers of pool {})", self.len, self.pool.number())
    }
}
