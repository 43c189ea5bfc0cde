//! What a queue and its port share: the state word, the queue's gate, the quarantine and the counters.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::quarantine::Quarantine;
use super::state::{Gate, StateWord, Turn, Word};
use crate::mem::{HugeRegion, POOL_MASK, PoolHandle};

/// Shared by the control and all queues of one start.
pub(crate) struct Shared {
    pub(crate) word: CachePadded<StateWord>,
    pub(crate) quarantine: Quarantine<InFlight>,
}

impl Shared {
    pub(crate) fn new() -> Shared {
        Shared { word: CachePadded::new(StateWord::new()), quarantine: Quarantine::new() }
    }
}

/// A queue's end of [`Shared`].
pub(crate) struct QueueLink {
    shared: Arc<Shared>,
    gate: Arc<CachePadded<Gate>>,
    current: Word,
}

impl QueueLink {
    pub(crate) fn new(shared: Arc<Shared>, gate: Arc<CachePadded<Gate>>) -> QueueLink {
        QueueLink { shared, gate, current: Word::NONE }
    }

    /// One load: does the queue work under the word in force?
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.shared.word.load() == self.current
    }

    /// The word has changed; see [`Gate::look`].
    #[cold]
    pub(crate) fn look(&mut self) -> Turn {
        self.gate.look(&self.shared.word, &mut self.current)
    }

    /// The queue is dropped: its buffers wait for the device's reset.
    pub(crate) fn leave(&mut self, in_flight: InFlight) {
        self.shared.quarantine.leave(in_flight);
    }
}

impl Drop for QueueLink {
    /// Whoever had the queue's end, even before there was a queue, is done with the device.
    fn drop(&mut self) {
        self.gate.leave();
    }
}

/// The buffers that a queue had given to the device, and the ring that tells the device of them.
pub(crate) struct InFlight {
    /// Pool tag and buffer number of each.
    pub(crate) buffers: Vec<(u16, u32)>,
    /// Keeps the pools of all of them.
    pub(crate) pools: Vec<PoolHandle>,
    /// Keeps the ring's memory.
    pub(crate) _ring: Arc<HugeRegion>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        for (tag, index) in self.buffers.drain(..) {
            if let Some(pool) = self.pools.iter().find(|p| p.number() == tag & POOL_MASK) {
                // A handle is held, so this is never the last of an orphaned pool.
                let _ = pool.depot().put_one(index);
            }
        }
    }
}

/// A counter with one writer: no locked instruction.
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline(always)]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
