//! Descriptor rings: generic over the NIC's descriptor format, knowing no NIC.
//!
//! `rx` (made of `rx_parts`) and `tx` are the data path, `kernel`, `avx2` and `avx512` their inner loops, `unusual` the slow part of the latter;
//! `join` is both rings in one for forwarders, `join_avx2` and `join_avx512` its loops, `frame` what the program sees of it;
//! `info` and `columns` the metadata of what is received; `format` is what a NIC family supplies; `descriptors` is the
//! memory shared with the device; `state`, `quarantine` and `link` are where queues meet the port's control. The data path
//! neither panics nor allocates nor locks; only dropping a queue does the latter two.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod columns;
#[cfg(target_arch = "x86_64")]
pub(crate) mod columns512;
mod descriptors;
mod format;
mod frame;
mod info;
mod join;
#[cfg(target_arch = "x86_64")]
mod join_avx2;
#[cfg(target_arch = "x86_64")]
mod join_avx512;
mod kernel;
mod link;
mod marks;
mod quarantine;
mod rx;
mod rx_parts;
mod state;
#[cfg(test)]
mod tests;
mod tx;
mod unusual;

pub(crate) use format::MAX_WORDS;
pub use format::{RxFormat, TxFormat};
pub use frame::{Forwarded, Frame, Verdict};
pub(crate) use rx::Look;
pub use rx::RxQueue;
pub use rx_parts::RxQueueStats;
pub use state::PortState;
pub use tx::{TxQueue, TxQueueStats};

pub(crate) use descriptors::Descriptors;
pub(crate) use frame::{Arrivals, CHUNK, Gallery};
pub(crate) use join::{Judge, forward};
pub(crate) use link::{QueueLink, Shared};
pub(crate) use rx_parts::{RxCounts, RxInterrupt, RxParts};
pub(crate) use state::{Gate, Word};
pub(crate) use tx::{Attached, TxCounts, TxParts};
