//! Packets: a [`PacketBuf`] is the one owner of its buffers.
//!
//! A handle is 16 bytes by value and says where the data is, how long it is and whose it is; nothing is written into
//! the buffer and there is no reference count. A frame over several buffers is still one handle: a flag says so, and
//! the pool's side table has, for each buffer but the last, where the next segment is. What always holds: `addr` and
//! `len` lie inside buffer `index` of pool `tag`, the same for every segment of a chain, and no other handle, cache or
//! ring has any of these buffers.

use std::fmt;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;

use super::pool::{PoolShared, free_pool, pool_of};

/// Bits of `tag` that hold the pool's number.
pub(crate) const POOL_MASK: u16 = 0x03ff;
/// Bit of `tag`: more segments follow, see the pool's side table.
pub(crate) const CHAINED: u16 = 0x8000;

/// One packet, alone in owning its buffers.
///
/// Derefs to the bytes of its first segment, which for frames up to the pool's data room is the whole packet. `Drop`
/// gives the buffers back, one by one: correct from any thread and slow; bursts are the fast way.
#[repr(C, align(16))]
pub struct PacketBuf {
    addr: usize,
    index: u32,
    len: u16,
    tag: u16,
}

const _: () = assert!(size_of::<PacketBuf>() == 16 && size_of::<usize>() == 8, "vfring needs a 64-bit target");

/// A segment as the side table keeps it: number and length of a buffer, and where in it the data starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) len: u16,
    pub(crate) offset: u16,
}

impl Link {
    /// The end of a chain.
    pub(crate) const END: u64 = u64::MAX;

    pub(crate) fn encode(self) -> u64 {
        u64::from(self.index) | u64::from(self.len) << 32 | u64::from(self.offset) << 48
    }

    fn decode(word: u64) -> Option<Link> {
        (word != Self::END).then_some(Link {
            index: word as u32,
            len: (word >> 32) as u16,
            offset: (word >> 48) as u16,
        })
    }
}

impl PacketBuf {
    /// What the vector loops rely on: address, index, length and tag in this order without gaps.
    pub(crate) const LAYOUT_IS_ADDR_INDEX_LEN_TAG: bool = std::mem::offset_of!(PacketBuf, addr) == 0
        && std::mem::offset_of!(PacketBuf, index) == 8
        && std::mem::offset_of!(PacketBuf, len) == 12
        && std::mem::offset_of!(PacketBuf, tag) == 14;

    /// A handle from its parts.
    ///
    /// # Safety
    /// The caller owns buffer `index` of pool `tag & POOL_MASK` and gives it up; `addr..addr + len` lies inside it; if
    /// `tag` has `CHAINED`, the side table describes a chain whose buffers the caller owns as well.
    #[inline(always)]
    pub(crate) unsafe fn from_parts(addr: usize, index: u32, len: u16, tag: u16) -> PacketBuf {
        PacketBuf { addr, index, len, tag }
    }

    /// Writes the length of a packet to be; [`write_rest`](Self::write_rest) makes it one.
    #[inline(always)]
    pub(crate) fn write_len(place: &mut MaybeUninit<PacketBuf>, len: u16) {
        // SAFETY: a field inside the place; nothing is read.
        unsafe { (&raw mut (*place.as_mut_ptr()).len).write(len) };
    }

    /// Completes a packet whose length was written: the data of buffer `index`, which begins at `addr`.
    ///
    /// # Safety
    /// `write_len` was called on this place; the caller owns buffer `index` of the unchained pool `tag` and gives it up;
    /// the data address and the length lie inside the buffer.
    #[inline(always)]
    pub(crate) unsafe fn write_rest(place: &mut MaybeUninit<PacketBuf>, addr: usize, index: u32, tag: u16) {
        let packet = place.as_mut_ptr();
        // SAFETY: fields inside the place.
        unsafe {
            (&raw mut (*packet).index).write(index);
            (&raw mut (*packet).tag).write(tag);
            (&raw mut (*packet).addr).write(addr);
        }
    }

    /// Address, index, length and tag; the buffers are the caller's now.
    #[inline(always)]
    pub(crate) fn into_parts(self) -> (usize, u32, u16, u16) {
        let parts = (self.addr, self.index, self.len, self.tag);
        std::mem::forget(self);
        parts
    }

    #[inline(always)]
    pub(crate) fn parts(&self) -> (usize, u32, u16, u16) {
        (self.addr, self.index, self.len, self.tag)
    }

    /// Index, length and tag, in bits 0 to 31, 32 to 47 and 48 to 63.
    #[inline(always)]
    pub(crate) fn meta(&self) -> u64 {
        u64::from(self.index) | u64::from(self.len) << 32 | u64::from(self.tag) << 48
    }

    fn pool(&self) -> &PoolShared {
        // SAFETY: we own a buffer of this pool for as long as `self` is borrowed.
        unsafe { pool_of(self.tag) }
    }

    /// True when the packet spans several buffers.
    #[inline(always)]
    pub fn is_chained(&self) -> bool {
        self.tag & CHAINED != 0
    }

    /// Bytes of the whole packet. (`len()` of the slice is the first segment's.)
    pub fn total_len(&self) -> usize {
        self.len as usize + self.links().map(|link| link.len as usize).sum::<usize>()
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        1 + self.links().count()
    }

    /// The bytes of every segment in order.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        let pool = self.pool();
        std::iter::once(&**self).chain(self.links().map(move |link| {
            let (start, _) = pool.buffer_bounds(link.index);
            let data = std::ptr::with_exposed_provenance::<u8>(start + link.offset as usize);
            // SAFETY: the side table of a chain we own: the bytes lie inside buffer `link.index`, which only we have
            // (module invariant); the region's provenance was exposed when it was made, and it lives while we do.
            unsafe { std::slice::from_raw_parts(data, link.len as usize) }
        }))
    }

    /// The segments after the first. Each step is bounded by the pool's capacity, so a walk ends.
    pub(crate) fn links(&self) -> Links<'_> {
        links_of(self.pool(), self.index, self.is_chained())
    }

    /// Free bytes before the packet.
    pub fn headroom(&self) -> usize {
        self.addr - self.pool().buffer_bounds(self.index).0
    }

    /// Free bytes after the packet's first segment; 0 when it is chained.
    pub fn tailroom(&self) -> usize {
        if self.is_chained() {
            return 0;
        }
        self.pool().buffer_bounds(self.index).1 - (self.addr + self.len as usize)
    }

    /// Makes the packet `count` bytes longer at its front and returns the new bytes, whose contents are whatever was
    /// there. `None`, and nothing changed, when the headroom is too small.
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.headroom() {
            return None;
        }
        self.addr -= count;
        self.len += count as u16; // at most headroom + data room, which fit 16 bits
        self.get_mut(..count)
    }

    /// Makes the packet `count` bytes longer at its end and returns the new bytes, whose contents are whatever was
    /// there. `None`, and nothing changed, when the tailroom is too small.
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let old = self.len as usize;
        self.len += count as u16; // see `prepend`
        self.get_mut(old..)
    }

    /// Appends `count` zeros; the last segment moves towards the front of its buffer where it has no room behind. False,
    /// and nothing changed, when its buffer holds less than that.
    pub(crate) fn pad(&mut self, count: usize) -> bool {
        let pool = self.pool();
        let mut previous = None;
        let (mut index, mut addr, mut len) = (self.index, self.addr, self.len);
        for link in self.links() {
            previous = Some(std::mem::replace(&mut index, link.index));
            (addr, len) = (pool.buffer_bounds(index).0 + usize::from(link.offset), link.len);
        }
        let (start, end) = pool.buffer_bounds(index);
        let at = addr.min(end.saturating_sub(usize::from(len) + count));
        if at < start {
            return false;
        }
        let (from, to) =
            (std::ptr::with_exposed_provenance::<u8>(addr), std::ptr::with_exposed_provenance_mut::<u8>(at));
        // SAFETY: `addr..addr + len` are the segment's bytes; `at..at + len + count` lies inside the same buffer, as
        // checked against both of its bounds; the buffer is ours alone (module invariant), and no borrow of it is alive.
        unsafe {
            std::ptr::copy(from, to, usize::from(len));
            to.add(usize::from(len)).write_bytes(0, count);
        }
        let len = len + count as u16; // fits a buffer
        match previous.map(|previous| pool.link(previous)) {
            None => (self.addr, self.len) = (at, len),
            Some(cell) => {
                let link = Link { index, len, offset: (at - start) as u16 };
                cell.inspect(|cell| cell.store(link.encode(), Ordering::Relaxed));
            }
        }
        true
    }

    /// Removes `count` bytes from the front of the first segment. False, and nothing changed, when it is shorter.
    #[must_use = "false means that nothing was removed"]
    pub fn trim_front(&mut self, count: usize) -> bool {
        let fits = count <= self.len as usize;
        if fits {
            self.addr += count;
            self.len -= count as u16;
        }
        fits
    }

    /// Shortens the packet to `len` bytes in all, giving back buffers that are no longer needed. No effect when it is
    /// not longer.
    pub fn truncate(&mut self, len: usize) {
        if len <= self.len as usize {
            self.cut_after(self.index);
            self.tag &= !CHAINED;
            self.len = len as u16;
            return;
        }
        let mut left = len - self.len as usize;
        let mut previous = self.index;
        let mut cut = None;
        for link in self.links() {
            if left <= link.len as usize {
                cut = Some((previous, Link { len: left as u16, ..link }));
                break;
            }
            left -= link.len as usize;
            previous = link.index;
        }
        if let Some((previous, last)) = cut {
            self.cut_after(last.index);
            if let Some(cell) = self.pool().link(previous) {
                cell.store(last.encode(), Ordering::Relaxed);
            }
        }
    }

    /// Gives back every buffer of the chain behind buffer `index`, which becomes the last.
    fn cut_after(&mut self, index: u32) {
        if !self.is_chained() {
            return;
        }
        let pool = self.pool();
        for link in links_of(pool, index, true) {
            // We hold the first buffer, so this cannot be the last one home.
            let _ = pool.depot().put_one(link.index);
        }
        if let Some(cell) = pool.link(index) {
            cell.store(Link::END, Ordering::Relaxed);
        }
    }

    /// Appends `tail` as further segments of this packet.
    ///
    /// # Errors
    /// Gives `tail` back when it is of another pool.
    pub fn chain(&mut self, tail: PacketBuf) -> Result<(), PacketBuf> {
        if (tail.tag ^ self.tag) & POOL_MASK != 0 {
            return Err(tail);
        }
        let last = self.links().last().map_or(self.index, |link| link.index);
        let tail_chained = tail.is_chained();
        let (addr, index, len, _) = tail.into_parts();
        let pool = self.pool();
        let offset = (addr - pool.buffer_bounds(index).0) as u16; // inside a buffer of at most 16.5 KiB
        if let (Some(at_last), Some(at_tail)) = (pool.link(last), pool.link(index)) {
            if !tail_chained {
                at_tail.store(Link::END, Ordering::Relaxed);
            }
            at_last.store(Link { index, len, offset }.encode(), Ordering::Relaxed);
        }
        self.tag |= CHAINED;
        Ok(())
    }
}

/// Walks the side table. A value that is no buffer of the pool ends the walk.
pub(crate) struct Links<'a> {
    pool: &'a PoolShared,
    at: Option<u32>,
}

pub(crate) fn links_of(pool: &PoolShared, index: u32, chained: bool) -> Links<'_> {
    Links { pool, at: chained.then_some(index) }
}

impl Iterator for Links<'_> {
    type Item = Link;

    fn next(&mut self) -> Option<Link> {
        let link = Link::decode(self.pool.link(self.at?)?.load(Ordering::Relaxed));
        self.at = link.map(|l| l.index);
        link
    }
}

impl Deref for PacketBuf {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        let data = std::ptr::with_exposed_provenance::<u8>(self.addr);
        // SAFETY: `addr..addr + len` lies inside our buffer, which no ring, cache or other handle has (module
        // invariant); the region is mapped and initialised (the kernel zeroes it) and lives while a buffer is out;
        // its provenance was exposed when it was made. The device is done with a buffer before it becomes a packet.
        unsafe { std::slice::from_raw_parts(data, self.len as usize) }
    }
}

impl DerefMut for PacketBuf {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        let data = std::ptr::with_exposed_provenance_mut::<u8>(self.addr);
        // SAFETY: as in `deref`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(data, self.len as usize) }
    }
}

impl Drop for PacketBuf {
    fn drop(&mut self) {
        let number = self.tag & POOL_MASK;
        let mut last = false;
        {
            let pool = self.pool();
            let mut links = self.links();
            let mut index = self.index;
            loop {
                // The link is read before its buffer goes home: afterwards another thread may reuse the entry, and
                // after the last buffer the pool may be gone.
                let next = links.next();
                last |= pool.depot().put_one(index);
                match next {
                    Some(link) => index = link.index,
                    None => break,
                }
            }
        }
        if last {
            // SAFETY: `put_one` told us that ours was the last buffer of an orphaned pool.
            unsafe { free_pool(number) };
        }
    }
}

impl fmt::Debug for PacketBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PacketBuf({} bytes, buffer {} of pool {})", self.total_len(), self.index, self.tag & POOL_MASK)
    }
}
