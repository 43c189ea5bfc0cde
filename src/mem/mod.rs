//! Memory that a device may touch, and the packets in it.
//!
//! Read in this order: `region` (the only allocator of DMA memory), `pool` (equal buffers in a region, and when they
//! are freed), `depot` (where free buffers are), `cache` (a thread's own stock), `numbers` (what it takes from a freed burst), `packet` (the one owner of a buffer),
//! `burst` (what rings work on); `lines` keeps what threads write apart. Nothing here knows a device: a pool only learns from a
//! [`DmaTarget`] whether hugepages are needed, and where.

mod burst;
mod cache;
mod depot;
mod info;
mod lines;
mod numbers;
mod packet;
mod pool;
mod region;
#[cfg(test)]
mod tests;

pub use burst::{Burst, DEFAULT_BURST, Drain, MAX_BURST};
pub use cache::PoolCache;
pub use info::{Checksum, L4, PackedInfo, PacketType, RxInfo, TxInfo};
pub use packet::PacketBuf;
pub use pool::{DEFAULT_DATA_ROOM, DmaTarget, HEADROOM, Mempool, MempoolBuilder};
pub use region::{HugeRegion, Pages};

pub(crate) use cache::{BLOCK, CACHE_SIZE};
#[cfg(test)]
pub(crate) use lines::LINE;
pub(crate) use lines::{AHEAD, Lines};
pub(crate) use packet::POOL_MASK;
pub(crate) use pool::PoolHandle;
