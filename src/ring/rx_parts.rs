//! What a receive queue is made of, and what it counts.
//!
//! Control makes the parts and keeps the counts' other end; `rx` owns both from then on. What always holds: each count has one
//! writer, the queue.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::descriptors::Descriptors;
use super::link::{Count, QueueLink};
use crate::cpu::Kernel;
use crate::mem::PoolHandle;
use crate::mmio::Doorbell;

/// What happened on a receive queue. Counts since the port was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RxQueueStats {
    /// Packets handed to the program.
    pub packets: u64,
    /// Bursts that left packets in the ring because the pool had no buffer to replace them.
    pub no_buffer: u64,
    /// Frames dropped because the device marked them as damaged.
    pub errors: u64,
    /// Frames dropped because the device reported a length beyond the buffer, or no end within the longest frame.
    pub bad_length: u64,
    /// Bursts refused because the cache belongs to another pool than the queue's.
    pub wrong_pool: u64,
}

#[derive(Default)]
#[repr(align(128))] // lines of its own, see `mem::lines`
pub(crate) struct RxCounts {
    pub(super) packets: Count,
    pub(super) no_buffer: Count,
    pub(super) errors: Count,
    pub(super) bad_length: Count,
    pub(super) wrong_pool: Count,
}

impl RxCounts {
    pub(crate) fn snapshot(&self) -> RxQueueStats {
        RxQueueStats {
            packets: self.packets.get(),
            no_buffer: self.no_buffer.get(),
            errors: self.errors.get(),
            bad_length: self.bad_length.get(),
            wrong_pool: self.wrong_pool.get(),
        }
    }
}

/// How a queue sleeps.
pub(crate) struct RxInterrupt {
    /// Unmasks the queue's vector.
    pub(crate) arm: Doorbell,
    pub(crate) arm_value: u32,
    /// Signalled by the vector, and by control on every change of state.
    pub(crate) event: Arc<OwnedFd>,
}

/// Everything a receive queue is made of.
pub(crate) struct RxParts {
    pub(crate) number: u16,
    pub(crate) link: QueueLink,
    pub(crate) ring: Descriptors,
    pub(crate) size: u16,
    pub(crate) tail: Doorbell,
    pub(crate) pool: PoolHandle,
    /// IOVA minus virtual address of the pool's region.
    pub(crate) iova_delta: u64,
    /// Bytes the device may write to a buffer.
    pub(crate) buffer_len: u16,
    pub(crate) want_info: bool,
    pub(crate) kernel: Kernel,
    pub(crate) counts: Arc<RxCounts>,
    pub(crate) interrupt: Option<RxInterrupt>,
}
