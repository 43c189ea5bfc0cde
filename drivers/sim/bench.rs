//! For benchmarks: a queue pair whose device side is played by the thread that drives it, and by nobody else.
//!
//! A model works under the lock of its world and looks at all of its queues, so threads that have it play for one queue each
//! pass its memory to and fro. A [`BenchQueue`] is taken out of the model and has for itself all that it needs: it puts a frame
//! that was made before into armed buffers, reports descriptors done that ask for it, and checks nothing. What always holds:
//! one queue of the model has one `BenchQueue` at most, and once the model's ring is stopped nothing is read or written any more.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::utils::CachePadded;

use super::dma::{DmaSpace, Fault};
use super::model::Cells;
use super::ring::next;

/// Says whether a ring that was lent runs. Held while its device's side is played.
pub(super) type Lease = Arc<CachePadded<Mutex<bool>>>;

/// A ring that the model no longer works on.
pub(super) struct LentRing {
    /// IOVA of the first descriptor, and bytes of each.
    pub(super) base: u64,
    pub(super) stride: u32,
    pub(super) entries: u32,
    pub(super) head: u32,
    /// Descriptors that a tail publishes at a time, a power of two.
    pub(super) granule: u32,
    pub(super) lease: Lease,
}

/// A queue pair that the model no longer works on, and its words.
pub(super) struct Lent {
    pub(super) rx: LentRing,
    pub(super) tx: LentRing,
    /// What the descriptor of the frame is written back with.
    pub(super) received: [u64; 4],
    /// The bit in word 1 of a transmit descriptor that asks for a report, and word 1 of the report.
    pub(super) report: u64,
    pub(super) done: u64,
}

/// A queue pair taken out of a model by [`World::bench_take`](super::World::bench_take).
pub struct BenchQueue {
    queue: usize,
    lent: Lent,
    frame: Vec<u8>,
    cells: Arc<dyn Cells>,
    dma: DmaSpace,
}

impl LentRing {
    /// Gives `each` the IOVAs of the descriptors from the head up to the tail, `most` of them; how many went well.
    fn advance(&mut self, tail: u32, most: usize, mut each: impl FnMut(u64) -> Result<(), Fault>) -> usize {
        let runs = self.lease.lock().unwrap_or_else(PoisonError::into_inner);
        let tail = tail & !(self.granule - 1);
        let mut done = 0;
        while *runs && done < most && tail < self.entries && self.head != tail {
            if each(self.base + u64::from(self.head * self.stride)).is_err() {
                break;
            }
            self.head = next(self.head, self.entries);
            done += 1;
        }
        done
    }
}

impl BenchQueue {
    pub(super) fn new(queue: usize, lent: Lent, frame: Vec<u8>, cells: Arc<dyn Cells>, dma: DmaSpace) -> BenchQueue {
        BenchQueue { queue, lent, frame, cells, dma }
    }

    /// Completes up to `n` armed receive descriptors with a frame of 60 bytes. How many.
    pub fn fill_rx(&mut self, n: usize) -> usize {
        let BenchQueue { queue, lent, frame, cells, dma } = self;
        let (words, wide) = (lent.received, lent.rx.stride == 32);
        // Acquire: the descriptors behind the tail were written before it.
        let tail = cells.tail(false, *queue).load(Ordering::Acquire);
        lent.rx.advance(tail, n, |descriptor| {
            let [address, _] = dma.fetch(descriptor)?;
            dma.write(address, frame)?;
            if wide { dma.write_four(descriptor, words, 1) } else { dma.write_back(descriptor, [words[0], words[1]]) }
        })
    }

    /// Sends everything that the transmit ring holds to nowhere. How many descriptors.
    pub fn complete_tx(&mut self) -> usize {
        let BenchQueue { queue, lent, cells, dma, .. } = self;
        let (report, done) = (lent.report, lent.done);
        // Acquire: as above.
        let tail = cells.tail(true, *queue).load(Ordering::Acquire);
        lent.tx.advance(tail, usize::MAX, |descriptor| {
            let [_, word1] = dma.fetch(descriptor)?;
            if word1 & report != 0 { dma.write_back(descriptor, [0, done]) } else { Ok(()) }
        })
    }
}
