//! The depot: where a pool's free buffers are when no cache and no ring has them, and how the last one home is known.
//!
//! Buffers are numbers. Full magazines of [`MAGAZINE`] numbers move in one queue operation; single ones go to a loose
//! queue that holds the whole pool, so neither can overflow. No operation takes a lock, allocates or panics. (The queues are
//! crossbeam's: whoever meets an entry that another thread has claimed and not yet written waits for that thread.)
//!
//! The life of a pool, as its depot sees it:
//! 1. *Owned*: at least one handle (pool, cache, queue, port) exists. Anyone may put, handle holders may take.
//! 2. *Orphaned* by [`Depot::orphan`], once, by whoever drops the last handle. Nobody takes any more; packets that
//!    outlive the pool still come home through [`Depot::put_one`].
//! 3. *Over*: exactly one call of `orphan` or `put_one` returned true: every buffer is home, and that caller frees it.
//!
//! One counter makes this exact without a count per packet. While owned it holds minus the loose buffers put and not
//! yet taken (it may be off for an instant, and nobody acts on it). Orphaning adds the buffers that are not in
//! magazines, and a mark; from then on it is the mark plus the buffers still out, and the put that takes it to the mark
//! is the last.
#![forbid(unsafe_code)]

use crate::sync::{ArrayQueue, AtomicI64, Ordering};

/// Buffers that move between a cache and the depot at a time.
pub(crate) const MAGAZINE: usize = 64;

/// Added once when the last handle goes; larger than any count of buffers.
const ORPHANED: i64 = 1 << 40;

/// The free buffers of one pool.
pub(crate) struct Depot {
    capacity: u32,
    magazines: ArrayQueue<[u32; MAGAZINE]>,
    loose: ArrayQueue<u32>,
    balance: AtomicI64,
}

impl Depot {
    /// A depot that holds these buffers, each named once.
    pub(crate) fn new(numbers: &[u32]) -> Depot {
        let (magazines, rest) = numbers.as_chunks::<MAGAZINE>();
        let depot = Depot {
            capacity: numbers.len() as u32,
            magazines: ArrayQueue::new(magazines.len().max(1)),
            loose: ArrayQueue::new(numbers.len().max(1)),
            balance: AtomicI64::new(0),
        };
        for magazine in magazines {
            // A magazine's last is taken first, and that should be the lowest in memory.
            let mut magazine = *magazine;
            magazine.reverse();
            let _ = depot.magazines.push(magazine);
        }
        for &number in rest {
            let _ = depot.put_one(number);
        }
        depot
    }

    /// Free buffers in the depot. Exact when nothing moves.
    pub(crate) fn len(&self) -> usize {
        self.magazines.len() * MAGAZINE + self.loose.len()
    }

    /// Brings one buffer home, from any thread. True when it was the last of an orphaned pool: the caller frees it.
    #[must_use = "the last buffer home frees the pool"]
    pub(crate) fn put_one(&self, number: u32) -> bool {
        // Cannot be full: it has room for every buffer there is. If it were, the buffer would leak, never be doubled.
        if self.loose.push(number).is_err() {
            return false;
        }
        // Release: what this thread did to the pool is done before the thread that frees it, which acquires.
        self.balance.fetch_sub(1, Ordering::AcqRel) == ORPHANED + 1
    }

    /// Brings a full magazine home. For handle holders only, so it is never the last.
    pub(crate) fn put_magazine(&self, numbers: &[u32; MAGAZINE]) {
        if self.magazines.push(*numbers).is_err() {
            // More magazines than the pool has cannot be; singles keep every buffer all the same.
            for &number in numbers {
                let _ = self.put_one(number);
            }
        }
    }

    /// Takes up to `out.len()` buffers, whole magazines first. For handle holders only.
    pub(crate) fn take(&self, out: &mut [u32]) -> usize {
        let wanted = out.len();
        let mut room = out;
        while room.len() >= MAGAZINE
            && let Some(magazine) = self.magazines.pop()
        {
            room = fill(room, &magazine);
        }
        let mut singles = 0;
        while !room.is_empty()
            && let Some(number) = self.loose.pop()
        {
            room = fill(room, &[number]);
            singles += 1;
        }
        if singles > 0 {
            self.balance.fetch_add(singles, Ordering::AcqRel);
        }
        // Fewer than a magazine are wanted and no singles are left: break one up.
        if !room.is_empty()
            && let Some(magazine) = self.magazines.pop()
        {
            for &number in magazine.iter().skip(room.len()) {
                let _ = self.put_one(number); // the caller holds a handle: never the last
            }
            room = fill(room, &magazine);
        }
        wanted - room.len()
    }

    /// The last handle is gone. True when every buffer is home: the caller frees the pool.
    #[must_use = "an orphaned pool with every buffer home must be freed"]
    pub(crate) fn orphan(&self) -> bool {
        let outside_magazines = i64::from(self.capacity) - (self.magazines.len() * MAGAZINE) as i64;
        let before = self.balance.fetch_add(ORPHANED + outside_magazines, Ordering::AcqRel);
        before + outside_magazines == 0
    }
}

/// Copies as many numbers as there is room for, and returns the room behind them.
fn fill<'a>(room: &'a mut [u32], numbers: &[u32]) -> &'a mut [u32] {
    for (place, &number) in room.iter_mut().zip(numbers) {
        *place = number;
    }
    room.get_mut(numbers.len()..).unwrap_or(&mut [])
}
