//! Bursts: what receive and transmit work on, a bounded list of packets with their metadata beside them.
//!
//! Owns up to `limit` packets in an array made once, and two parallel arrays of [`RxInfo`] and [`TxInfo`] that move
//! with the packets. Metadata costs nothing where nobody uses it: each array is valid for a leading run of packets only,
//! and the rest reads as the default. What always holds: the first `len` packets are initialised and owned, and
//! `rx_valid` and `tx_valid` are at most `len`.

use std::iter::FusedIterator;
use std::mem::MaybeUninit;

use super::info::{PackedInfo, RxInfo, TxInfo};
use super::lines::Lines;
use super::packet::PacketBuf;
use crate::error::{Error, Result};

/// Packets a burst holds unless asked otherwise.
pub const DEFAULT_BURST: usize = 32;
/// Most packets that a burst can be made for.
pub const MAX_BURST: usize = 1024;

/// Places behind the limit, so that a ring can write whole groups of eight and count as many as there are.
const SPARE: usize = 8;

/// A list of packets, bounded by the limit it was made with.
#[repr(align(128))] // lines of its own, see `mem::lines`
pub struct Burst {
    len: usize,
    limit: usize,
    rx_valid: usize,
    tx_valid: usize,
    packets: Lines<MaybeUninit<PacketBuf>>,
    rx: Lines<PackedInfo>,
    tx: Lines<TxInfo>,
}

impl Default for Burst {
    fn default() -> Self {
        Self::new()
    }
}

impl Burst {
    /// An empty burst for up to [`DEFAULT_BURST`] packets.
    pub fn new() -> Burst {
        Self::make(DEFAULT_BURST)
    }

    /// An empty burst for up to `limit` packets, 1 to [`MAX_BURST`].
    ///
    /// # Errors
    /// [`Error::Config`] when the limit is out of range.
    pub fn with_limit(limit: usize) -> Result<Burst> {
        if !(1..=MAX_BURST).contains(&limit) {
            return Err(Error::Config(format!("a burst of {limit} packets: 1 to {MAX_BURST} are possible")));
        }
        Ok(Self::make(limit))
    }

    fn make(limit: usize) -> Burst {
        Burst {
            len: 0,
            limit,
            rx_valid: 0,
            tx_valid: 0,
            packets: Lines::new(limit + SPARE, MaybeUninit::uninit),
            rx: Lines::new(limit + SPARE, PackedInfo::default),
            tx: Lines::new(limit, TxInfo::default),
        }
    }

    /// Packets in the burst.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when there are none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Most packets that the burst can hold.
    #[inline(always)]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// True when no packet can be added.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.len == self.limit
    }

    /// The packets.
    #[inline]
    pub fn as_slice(&self) -> &[PacketBuf] {
        // SAFETY: the first `len` packets are initialised (module invariant), and `len` is at most the array's length.
        unsafe { std::slice::from_raw_parts(self.packets.as_ptr().cast(), self.len) }
    }

    /// The packets, to be changed in place.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [PacketBuf] {
        // SAFETY: as in `as_slice`, and `&mut self` makes this the only borrow.
        unsafe { std::slice::from_raw_parts_mut(self.packets.as_mut_ptr().cast(), self.len) }
    }

    /// The packets in order.
    #[inline]
    pub fn iter(&self) -> std::slice::Iter<'_, PacketBuf> {
        self.as_slice().iter()
    }

    /// The packets in order, to be changed in place.
    #[inline]
    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, PacketBuf> {
        self.as_mut_slice().iter_mut()
    }

    /// Adds a packet with default metadata.
    ///
    /// # Errors
    /// Gives the packet back when the burst is full.
    #[inline]
    pub fn push(&mut self, packet: PacketBuf) -> Result<(), PacketBuf> {
        if self.is_full() {
            return Err(packet);
        }
        match self.packets.get_mut(self.len) {
            Some(place) => {
                place.write(packet);
                self.len += 1;
                Ok(())
            }
            None => Err(packet),
        }
    }

    /// Takes the last packet. [`drain`](Self::drain) takes them in order.
    #[inline]
    pub fn pop(&mut self) -> Option<PacketBuf> {
        let last = self.len.checked_sub(1)?;
        self.set_len(last);
        // SAFETY: `last` was below `len`, so the packet is initialised; `len` no longer covers it.
        self.packets.get(last).map(|place| unsafe { place.assume_init_read() })
    }

    /// Takes all packets out, in order, each with what the NIC found out about it: for programs that send some one way and some
    /// another. Those that are not taken are dropped with the iterator, as with [`Vec::drain`].
    ///
    /// ```
    /// use vfring::{Burst, Mempool, Port, PortConfig};
    /// # fn main() -> vfring::Result<()> {
    /// # let port = Port::open(&"sim:igbvf".parse()?, PortConfig::new())?;
    /// # let pool = Mempool::builder().buffers(1024).on(&[&port])?;
    /// # let (mut cache, mut received) = (pool.cache(), Burst::new());
    /// # cache.alloc(32, &mut received);
    /// let mut ways = [Burst::new(), Burst::new()];
    /// for (packet, info) in received.drain() {
    ///     let way = info.hash.unwrap_or(0) as usize % ways.len();
    ///     if let Err(packet) = ways[way].push(packet) {
    ///         drop(packet); // that way's burst is full
    ///     }
    /// }
    /// assert_eq!((received.len(), ways[0].len()), (0, 32));
    /// # Ok(())
    /// # }
    /// ```
    #[inline]
    pub fn drain(&mut self) -> Drain<'_> {
        let (len, rx_valid) = (self.len, self.rx_valid);
        // Already here: should the iterator be forgotten, no packet has two owners.
        self.set_len(0);
        Drain { burst: self, next: 0, len, rx_valid }
    }

    /// Exchanges two packets and their metadata. No effect when an index is not in the burst.
    pub fn swap(&mut self, a: usize, b: usize) {
        if a < self.len && b < self.len {
            let (rx, tx) = (self.rx_valid, self.tx_valid);
            self.packets.swap(a, b);
            if a < rx || b < rx {
                self.fill_rx(a.max(b) + 1);
                self.rx.swap(a, b);
            }
            if a < tx || b < tx {
                self.fill_tx(a.max(b) + 1);
                self.tx.swap(a, b);
            }
        }
    }

    /// Drops the packets for which `keep` is false; the others keep their order and metadata.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut PacketBuf, &RxInfo) -> bool) {
        let mut kept = 0;
        for i in 0..self.len {
            let info = self.rx_info(i);
            let stays = self.as_mut_slice().get_mut(i).is_some_and(|packet| keep(packet, &info));
            if stays {
                self.swap(kept, i);
                kept += 1;
            }
        }
        while self.len > kept {
            drop(self.pop());
        }
    }

    /// What the NIC found out about packet `i`; the default when the queue was opened without metadata or there is no
    /// such packet.
    #[inline]
    pub fn rx_info(&self, i: usize) -> RxInfo {
        self.packed_info(i).unpack()
    }

    /// The same as rings write it.
    #[inline]
    pub(crate) fn packed_info(&self, i: usize) -> PackedInfo {
        self.info_among(i, self.rx_valid)
    }

    /// The metadata of packet `i` where the first `valid` packets have some.
    #[inline]
    fn info_among(&self, i: usize, valid: usize) -> PackedInfo {
        if i < valid { self.rx.get(i).copied().unwrap_or_default() } else { PackedInfo::default() }
    }

    /// What the NIC is asked to do to packet `i`.
    #[inline]
    pub fn tx_info(&self, i: usize) -> TxInfo {
        if i < self.tx_valid { self.tx.get(i).copied().unwrap_or_default() } else { TxInfo::default() }
    }

    /// True when nothing was asked for packets `from` and later.
    #[inline(always)]
    pub(crate) fn is_plain_from(&self, from: usize) -> bool {
        self.tx_valid <= from
    }

    /// Asks the NIC to do something to packet `i` when it is sent. Ignored when there is no such packet.
    #[inline]
    pub fn set_tx_info(&mut self, i: usize, info: TxInfo) {
        if i < self.len {
            self.fill_tx(i + 1);
            if let Some(place) = self.tx.get_mut(i) {
                *place = info;
            }
        }
    }

    /// Metadata of the packet added last.
    #[inline(always)]
    pub(crate) fn set_last_rx_info(&mut self, info: PackedInfo) {
        let Some(last) = self.len.checked_sub(1) else { return };
        self.fill_rx(last);
        if let Some(place) = self.rx.get_mut(last) {
            *place = info;
            self.rx_valid = self.len;
        }
    }

    #[inline(always)]
    fn fill_rx(&mut self, to: usize) {
        if self.rx_valid < to {
            self.fill_gap(to);
        }
    }

    #[inline(never)] // a burst whose packets come from one queue has no gap
    fn fill_gap(&mut self, to: usize) {
        if let Some(gap) = self.rx.get_mut(self.rx_valid..to) {
            gap.fill(PackedInfo::default());
        }
        self.rx_valid = to;
    }

    #[inline(always)]
    fn fill_tx(&mut self, to: usize) {
        if self.tx_valid < to {
            if let Some(gap) = self.tx.get_mut(self.tx_valid..to) {
                gap.fill(TxInfo::default());
            }
            self.tx_valid = to;
        }
    }

    #[inline(always)]
    fn set_len(&mut self, len: usize) {
        self.len = len;
        self.rx_valid = self.rx_valid.min(len);
        self.tx_valid = self.tx_valid.min(len);
    }

    /// Room behind the packets and for their metadata, `limit - len` and 8 places more of each, for a ring that fills it.
    #[inline(always)]
    pub(crate) fn spare(&mut self) -> (*mut MaybeUninit<PacketBuf>, *mut PackedInfo) {
        let len = self.len;
        (self.packets.as_mut_ptr().wrapping_add(len), self.rx.as_mut_ptr().wrapping_add(len))
    }

    /// Counts `count` packets that were written to [`spare`](Self::spare); with `INFO`, their metadata was too.
    ///
    /// # Safety
    /// The first `count` places of `spare` have been written with packets that the caller owned.
    #[inline(always)]
    pub(crate) unsafe fn grow<const INFO: bool>(&mut self, count: usize) {
        if INFO {
            self.fill_rx(self.len);
            self.rx_valid = self.len + count;
        }
        self.len += count;
    }

    /// Forgets the first `count` packets, whose buffers someone else owns now, and moves the rest to the front.
    ///
    /// # Safety
    /// `count` is at most `len`, and the caller took the first `count` packets' buffers over.
    #[inline(always)]
    pub(crate) unsafe fn forget_front(&mut self, count: usize) {
        if count == self.len {
            // SAFETY: the caller took all of them over.
            return unsafe { self.forget_all() };
        }
        let len = self.len;
        // SAFETY: both ranges lie inside the array, as `count <= len`; a move of handles, of which the first `count` are
        // forgotten and the copies left behind `len` are never read.
        unsafe {
            let base = self.packets.as_mut_ptr();
            std::ptr::copy(base.add(count), base, len - count);
        }
        move_to_front(self.rx.get_mut(..self.rx_valid).unwrap_or(&mut []), count);
        move_to_front(self.tx.get_mut(..self.tx_valid).unwrap_or(&mut []), count);
        self.rx_valid = self.rx_valid.saturating_sub(count);
        self.tx_valid = self.tx_valid.saturating_sub(count);
        self.len = len - count;
    }

    /// Forgets every packet, whose buffers someone else owns now.
    ///
    /// # Safety
    /// The caller took all packets' buffers over.
    #[inline(always)]
    pub(crate) unsafe fn forget_all(&mut self) {
        (self.len, self.rx_valid, self.tx_valid) = (0, 0, 0);
    }

    /// Drops every packet. [`PoolCache::free`](crate::PoolCache::free) is faster.
    pub fn clear(&mut self) {
        while self.pop().is_some() {}
    }
}

/// Moves what is at `from` and behind to the front. (`copy_within` could panic, for all the compiler knows.)
#[inline(never)] // a burst that goes as a whole, the usual one, keeps its registers
pub(super) fn move_to_front<T: Copy>(values: &mut [T], from: usize) {
    let cells = std::cell::Cell::from_mut(values).as_slice_of_cells();
    for (to, from) in cells.iter().zip(cells.iter().skip(from)) {
        to.set(from.get());
    }
}

impl Drop for Burst {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The packets of a burst on their way out of it, see [`Burst::drain`].
#[derive(Debug)]
pub struct Drain<'a> {
    /// It counts no packet any more; its places up to `len` have them still, from `next` on.
    burst: &'a mut Burst,
    next: usize,
    len: usize,
    rx_valid: usize,
}

impl Iterator for Drain<'_> {
    type Item = (PacketBuf, RxInfo);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let at = self.next;
        let place = self.burst.packets.get(at).filter(|_| at < self.len)?;
        self.next += 1;
        // SAFETY: the burst owned its first `len` packets when it handed them over, and counts none of them since; this one is
        // read once, as `next` only grows.
        let packet = unsafe { place.assume_init_read() };
        Some((packet, self.burst.info_among(at, self.rx_valid).unpack()))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.len - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Drain<'_> {}

impl FusedIterator for Drain<'_> {}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

impl<'a> IntoIterator for &'a mut Burst {
    type Item = &'a mut PacketBuf;
    type IntoIter = std::slice::IterMut<'a, PacketBuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter_mut()
    }
}

impl<'a> IntoIterator for &'a Burst {
    type Item = &'a PacketBuf;
    type IntoIter = std::slice::Iter<'a, PacketBuf>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::fmt::Debug for Burst {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
