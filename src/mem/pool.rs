//! Pools: equal buffers in one region, known to the process by a number.
//!
//! Owns the buffers' layout, the process-wide table from number to pool, and the rule by which a pool dies: handles
//! (the [`Mempool`], caches, queues, ports) hold it; when the last handle goes it is only orphaned, and the last
//! buffer that comes home frees it and gives its number back. A packet may therefore outlive pool and port.
//!
//! Layout of a buffer, at `base + index * stride`: [`HEADROOM`] bytes, then the data room. The stride is an odd
//! multiple of 64 bytes and so never a power of two: equal offsets of neighbouring buffers fall into different cache
//! sets (measured: power-of-two strides cost almost twice the time). A place that would lie across [`BOUNDARY`] stays
//! empty; its number is nobody's.

use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use super::cache::PoolCache;
use super::depot::{Depot, MAGAZINE};
use super::packet::POOL_MASK;
use super::region::{HugeRegion, Pages};
use crate::cpu::Kernel;
use crate::error::{Error, Result};

/// Bytes in front of a received packet, for headers to be added.
pub const HEADROOM: usize = 128;
/// Data room unless asked otherwise: one frame of the usual MTU.
pub const DEFAULT_DATA_ROOM: u16 = 2048;
/// Pools that a process can have at a time.
const MAX_POOLS: usize = POOL_MASK as usize + 1;
/// Largest number of buffers of a pool.
const MAX_BUFFERS: u32 = 1 << 24;

/// No buffer lies across a multiple of this from the region's start: every size of hugepage is a multiple of it, and two
/// pages that are neighbours to us need not be so in memory. An IOMMU makes up for that, at the cost of a second
/// translation, but QEMU's NICs do not: they drop a frame to be sent from a buffer that they cannot map in one piece.
const BOUNDARY: usize = 2 << 20;

/// Everything that buffers, caches and rings need of a pool.
pub(crate) struct PoolShared {
    number: u16,
    base: usize,
    stride: usize,
    data_room: u16,
    capacity: u32,
    region: Arc<HugeRegion>,
    depot: Depot,
    /// For buffer i of a chain: the segment after it (see `packet.rs`). Touched for chained packets only.
    links: Box<[AtomicU64]>,
    /// Buffers that started ports count on.
    reserved: AtomicU32,
    /// How caches free packets.
    kernel: Kernel,
}

impl PoolShared {
    #[inline(always)]
    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    /// Address of the first byte after the headroom of buffer `index`.
    #[inline(always)]
    pub(crate) fn data_addr(&self, index: u32) -> usize {
        self.base + index as usize * self.stride + HEADROOM
    }

    /// What `data_addr` computes with, for loops that keep it in registers.
    #[inline(always)]
    pub(crate) fn layout(&self) -> (usize, usize) {
        (self.base + HEADROOM, self.stride)
    }

    /// First and one-past-last address of buffer `index`, headroom included.
    pub(crate) fn buffer_bounds(&self, index: u32) -> (usize, usize) {
        let start = self.base + index as usize * self.stride;
        (start, start + HEADROOM + self.data_room as usize)
    }

    pub(crate) fn kernel(&self) -> Kernel {
        self.kernel
    }

    pub(crate) fn region(&self) -> &Arc<HugeRegion> {
        &self.region
    }

    pub(crate) fn depot(&self) -> &Depot {
        &self.depot
    }

    /// The chain link of a buffer; `None` for an index that the pool does not have.
    pub(crate) fn link(&self, index: u32) -> Option<&AtomicU64> {
        self.links.get(index as usize)
    }

    /// Sets `count` buffers aside for a port that starts, or says how many are left.
    pub(crate) fn reserve(&self, count: u32) -> Result<(), u32> {
        self.reserved
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
                now.checked_add(count).filter(|&sum| sum <= self.capacity)
            })
            .map(|_| ())
            .map_err(|now| self.capacity - now)
    }

    pub(crate) fn release(&self, count: u32) {
        self.reserved.fetch_sub(count, Ordering::AcqRel);
    }
}

static TABLE: [AtomicPtr<PoolShared>; MAX_POOLS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_POOLS];

/// A number that is taken while its pool is being made.
fn claimed() -> *mut PoolShared {
    std::ptr::without_provenance_mut(1)
}

/// The pool of a live buffer.
///
/// # Safety
/// The caller holds a buffer of pool `number` (or a handle) and keeps it for as long as it uses the reference: the
/// table's pool is freed only when all handles are gone and all buffers are home.
#[inline]
pub(crate) unsafe fn pool_of<'a>(number: u16) -> &'a PoolShared {
    // SAFETY: a number that a buffer carries was stored here before the buffer existed, and the pointer stays valid
    // and in place until the last buffer is home (this function's contract). Masking keeps the index in bounds.
    unsafe { &*TABLE[(number & POOL_MASK) as usize].load(Ordering::Acquire) }
}

/// Frees an orphaned pool whose buffers are all home.
///
/// # Safety
/// `Depot::orphan` or `Depot::put_one` of this pool returned true to this caller, which therefore is the only one
/// that can still reach it.
pub(crate) unsafe fn free_pool(number: u16) {
    let entry = &TABLE[(number & POOL_MASK) as usize];
    let pool = entry.load(Ordering::Acquire);
    // SAFETY: made by `Box::into_raw` in `Builder::build`; this caller is the only one left (contract).
    drop(unsafe { Box::from_raw(pool) });
    entry.store(std::ptr::null_mut(), Ordering::Release);
}

/// One handle on a pool: keeps it owned. All handles of a pool share one `Arc` of this.
struct Owner(*const PoolShared);

// SAFETY: `PoolShared` is Sync (atomics, queues, plain numbers and an `Arc` of a Sync region), so the pointer may be
// used from any thread; it stays valid until `drop` below.
unsafe impl Send for Owner {}
// SAFETY: as above.
unsafe impl Sync for Owner {}

impl Drop for Owner {
    fn drop(&mut self) {
        // SAFETY: while an Owner exists the pool is not orphaned, so nobody has freed it.
        let shared = unsafe { &*self.0 };
        let number = shared.number;
        if shared.depot.orphan() {
            // SAFETY: `orphan` returned true to us; `shared` is not used after this.
            unsafe { free_pool(number) };
        }
    }
}

/// A cheap clone of a handle, for caches, queues and ports.
#[derive(Clone)]
pub(crate) struct PoolHandle(Arc<Owner>);

impl std::ops::Deref for PoolHandle {
    type Target = PoolShared;

    #[inline(always)]
    fn deref(&self) -> &PoolShared {
        // SAFETY: the Owner that we share keeps the pool from being orphaned, hence from being freed.
        unsafe { &*self.0.0 }
    }
}

/// A pool of equal packet buffers.
///
/// Cheap to clone; all clones are the same pool. Dropping the last clone frees the memory once every buffer has come
/// home.
#[derive(Clone)]
pub struct Mempool {
    handle: PoolHandle,
}

/// Something whose device will read and write a pool's memory: a port.
pub trait DmaTarget {
    /// NUMA node of the device, where known.
    fn numa_node(&self) -> Option<u32>;
    /// True for a software model, which can do with ordinary pages.
    fn is_model(&self) -> bool;
    /// Widest vectors, in bits, that caches of the pool may use; see
    /// [`PortConfig::vector_bits`](crate::PortConfig::vector_bits).
    fn vector_bits(&self) -> u16 {
        u16::MAX
    }
}

/// Makes a [`Mempool`].
#[derive(Clone, Debug)]
pub struct MempoolBuilder {
    buffers: u32,
    data_room: u16,
    pages: Option<Pages>,
    node: Option<u32>,
}

impl Mempool {
    /// Starts with 8192 buffers of [`DEFAULT_DATA_ROOM`] bytes.
    pub fn builder() -> MempoolBuilder {
        MempoolBuilder { buffers: 8192, data_room: DEFAULT_DATA_ROOM, pages: None, node: None }
    }

    /// A cache for the calling thread, which everything that allocates, receives, sends or frees in bulk needs.
    pub fn cache(&self) -> PoolCache {
        PoolCache::new(self.handle.clone())
    }

    /// Buffers of the pool.
    pub fn capacity(&self) -> u32 {
        self.handle.capacity
    }

    /// Free buffers in the depot: those in caches, rings and hands are not counted. Exact when nothing moves.
    pub fn available(&self) -> u32 {
        self.handle.depot.len() as u32
    }

    /// Bytes of packet data a buffer has room for after the headroom.
    pub fn data_room(&self) -> u16 {
        self.handle.data_room
    }

    /// True when the pool lies in hugepages.
    pub fn is_huge(&self) -> bool {
        self.handle.region.is_huge()
    }

    pub(crate) fn handle(&self) -> &PoolHandle {
        &self.handle
    }
}

impl std::fmt::Debug for Mempool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let p = &*self.handle;
        write!(f, "Mempool({} buffers of {} bytes, {:?})", p.capacity, p.data_room, p.region)
    }
}

impl MempoolBuilder {
    /// Number of buffers: 64 to 2^24.
    pub fn buffers(mut self, buffers: u32) -> Self {
        self.buffers = buffers;
        self
    }

    /// Bytes of packet data per buffer, 64 to 16384. A received frame that is longer spans several buffers.
    pub fn data_room(mut self, bytes: u16) -> Self {
        self.data_room = bytes;
        self
    }

    /// Pages to use. Without this: the system's default hugepages, or ordinary pages where every device is a model.
    pub fn pages(mut self, pages: Pages) -> Self {
        self.pages = Some(pages);
        self
    }

    /// NUMA node to allocate on. Without this: that of the first device which has one.
    pub fn node(mut self, node: u32) -> Self {
        self.node = Some(node);
        self
    }

    /// Makes the pool for these ports.
    ///
    /// # Errors
    /// [`Error::Config`] for sizes out of range, or ordinary pages for hardware; [`Error::Memory`] when there are too
    /// few hugepages, with the command that reserves them.
    pub fn on<T: DmaTarget>(self, targets: &[&T]) -> Result<Mempool> {
        let only_models = !targets.is_empty() && targets.iter().all(|t| t.is_model());
        let pages = self.pages.unwrap_or(if only_models { Pages::Ordinary } else { Pages::Default });
        if pages == Pages::Ordinary && !only_models {
            return Err(Error::Config("ordinary pages are for software models only: a VF needs hugepages".into()));
        }
        let node = self.node.or_else(|| targets.iter().find_map(|t| t.numa_node()));
        let bits = targets.iter().map(|t| t.vector_bits()).min().unwrap_or(u16::MAX);
        self.build(pages, node, Kernel::best(bits))
    }

    fn build(self, pages: Pages, node: Option<u32>, kernel: Kernel) -> Result<Mempool> {
        let MempoolBuilder { buffers, data_room, .. } = self;
        if !(MAGAZINE as u32..=MAX_BUFFERS).contains(&buffers) {
            return Err(Error::Config(format!(
                "a pool of {buffers} buffers: {MAGAZINE} to {MAX_BUFFERS} are possible"
            )));
        }
        if !(64..=16384).contains(&data_room) {
            return Err(Error::Config(format!("a data room of {data_room} bytes: 64 to 16384 are possible")));
        }
        let stride = stride_of(data_room);
        let numbers = places(stride, HEADROOM + data_room as usize, buffers);
        let count = numbers.last().map_or(0, |&last| last + 1);
        let region = Arc::new(HugeRegion::allocate(count as usize * stride, pages, node)?);
        let number = claim_number()?;
        let shared = PoolShared {
            number,
            base: region.addr(),
            stride,
            data_room,
            capacity: buffers,
            region,
            depot: Depot::new(&numbers),
            links: (0..count).map(|_| AtomicU64::new(0)).collect(),
            reserved: AtomicU32::new(0),
            kernel,
        };
        let shared = Box::into_raw(Box::new(shared));
        TABLE[number as usize].store(shared, Ordering::Release);
        Ok(Mempool { handle: PoolHandle(Arc::new(Owner(shared))) })
    }
}

/// The smallest odd multiple of 64 bytes that holds a buffer.
fn stride_of(data_room: u16) -> usize {
    let lines = (HEADROOM + data_room as usize).div_ceil(64);
    (lines | 1) * 64
}

/// The first `buffers` numbers whose buffers of `len` bytes do not lie across a boundary.
fn places(stride: usize, len: usize, buffers: u32) -> Vec<u32> {
    let fits = |number: &u32| {
        let start = *number as usize * stride;
        start / BOUNDARY == (start + len - 1) / BOUNDARY
    };
    (0..).filter(fits).take(buffers as usize).collect()
}

fn claim_number() -> Result<u16> {
    TABLE
        .iter()
        .position(|entry| {
            entry.compare_exchange(std::ptr::null_mut(), claimed(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })
        .map(|number| number as u16)
        .ok_or_else(|| Error::Memory(format!("a process can have {MAX_POOLS} pools; drop one first")))
}
