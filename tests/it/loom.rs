//! Model checking of the protocols in which threads meet: the depot and a pool's last buffer, the state word and its
//! gates, the quarantine.
//!
//! The files under test are the crate's own, compiled here over loom's types: they use nothing but `crate::sync`. Each
//! test explores every interleaving that loom's bounds allow. Memory that a protocol hands from one thread to the other
//! is a loom cell, so a missing order is found as a race, not as a wrong value.

#![allow(dead_code, missing_docs)] // the files have more than these tests call

#[path = "../../src/mem/depot.rs"]
mod depot;
#[path = "../../src/ring/quarantine.rs"]
mod quarantine;
#[path = "../../src/ring/state.rs"]
mod state;

/// What `src/sync.rs` is in the crate.
mod sync {
    use std::collections::VecDeque;

    pub(crate) use loom::sync::Mutex;
    pub(crate) use loom::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    /// crossbeam's queue as a lock: its own correctness is crossbeam's, the protocol around it is ours.
    pub(crate) struct ArrayQueue<T> {
        items: Mutex<VecDeque<T>>,
        capacity: usize,
    }

    impl<T> ArrayQueue<T> {
        pub(crate) fn new(capacity: usize) -> Self {
            ArrayQueue { items: Mutex::new(VecDeque::new()), capacity }
        }
        pub(crate) fn push(&self, item: T) -> Result<(), T> {
            let mut items = self.items.lock().unwrap();
            if items.len() == self.capacity {
                return Err(item);
            }
            items.push_back(item);
            Ok(())
        }
        pub(crate) fn pop(&self) -> Option<T> {
            self.items.lock().unwrap().pop_front()
        }
        pub(crate) fn len(&self) -> usize {
            self.items.lock().unwrap().len()
        }
    }
}

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

use depot::{Depot, MAGAZINE};
use quarantine::Quarantine;
use state::{Gate, PortState, StateWord, Turn, Word};

/// An exclusive access; loom reports it when another access is not ordered before or after it.
fn write<T>(cell: &UnsafeCell<T>, act: impl FnOnce(&mut T)) {
    // SAFETY: loom fails the test before it lets two accesses meet.
    cell.with_mut(|value| act(unsafe { &mut *value }));
}

/// A shared access, likewise.
fn read<T: Copy>(cell: &UnsafeCell<T>) -> T {
    // SAFETY: as in `write`.
    cell.with(|value| unsafe { *value })
}

/// Packets outlive the pool: whoever brings the last buffer home, exactly one is told to free it, and everything the
/// others did is visible to it.
#[test]
fn exactly_one_frees_an_orphaned_pool() {
    loom::model(|| {
        let depot = Arc::new(Depot::new(&[0, 1]));
        let memory = Arc::new(UnsafeCell::new(0u32));
        let freed = Arc::new(AtomicUsize::new(0));
        let mut out = [0; 2];
        assert_eq!(depot.take(&mut out), 2);
        let free = |last: bool, memory: &UnsafeCell<u32>, freed: &AtomicUsize| {
            if last {
                // Freeing is an exclusive access: loom reports it if another thread's is not ordered before.
                write(memory, |m| *m = 99);
                freed.fetch_add(1, Ordering::Relaxed);
            }
        };
        let drops: Vec<_> = out
            .into_iter()
            .map(|number| {
                let (depot, memory, freed) = (depot.clone(), memory.clone(), freed.clone());
                thread::spawn(move || {
                    assert_eq!(read(&memory), 0, "used after it was freed");
                    free(depot.put_one(number), &memory, &freed);
                })
            })
            .collect();
        free(depot.orphan(), &memory, &freed);
        drops.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(freed.load(Ordering::Relaxed), 1);
    });
}

/// While a handle exists nobody frees, whatever single buffers come and go.
#[test]
fn nobody_frees_a_pool_that_is_owned() {
    loom::model(|| {
        let depot = Arc::new(Depot::new(&[0, 1]));
        let mut out = [0; 2];
        assert_eq!(depot.take(&mut out), 2);
        let other = {
            let depot = depot.clone();
            thread::spawn(move || assert!(!depot.put_one(out[0])))
        };
        let mut again = [0; 1];
        if depot.take(&mut again) == 1 {
            assert!(!depot.put_one(again[0]));
        }
        other.join().unwrap();
        assert!(!depot.put_one(out[1]));
        assert_eq!(depot.len(), 2);
        assert!(depot.orphan(), "all are home, so the last handle frees");
    });
}

/// A magazine and a single race for the same depot; no buffer is lost or doubled.
#[test]
fn magazines_and_singles_keep_every_buffer() {
    loom::model(|| {
        let depot = Arc::new(Depot::new(&(0..=MAGAZINE as u32).collect::<Vec<_>>()));
        let other = {
            let depot = depot.clone();
            thread::spawn(move || {
                let mut one = [0; 1];
                let n = depot.take(&mut one);
                one[..n].iter().for_each(|&i| assert!(!depot.put_one(i)));
            })
        };
        let mut many = [0; MAGAZINE];
        if depot.take(&mut many) == MAGAZINE {
            depot.put_magazine(&many);
        } else {
            return other.join().unwrap();
        }
        other.join().unwrap();
        assert_eq!(depot.len(), MAGAZINE + 1);
    });
}

/// The ring and its doorbell belong to the queue while it works and to control after it acknowledged: a reset in
/// mid-traffic, and on. The cell stands for descriptors and doorbell, the flag for the ring as the device has it: a queue
/// that rebuilds must find it programmed.
#[test]
fn a_reset_takes_the_ring_from_the_queue_and_gives_it_back() {
    loom::model(|| {
        let word = Arc::new(StateWord::new());
        let gate = Arc::new(Gate::new());
        let ring = Arc::new(UnsafeCell::new(0u32));
        let programmed = Arc::new(AtomicBool::new(true));
        gate.enable(word.load());
        let queue = {
            let (word, gate, ring, programmed) = (word.clone(), gate.clone(), ring.clone(), programmed.clone());
            thread::spawn(move || {
                let mut current = Word::NONE;
                for _ in 0..3 {
                    let mut works = word.load() == current;
                    if !works && gate.look(&word, &mut current) == Turn::Rebuild {
                        // What control saw of the reset is ordered with the word, so an old epoch may rebuild too.
                        assert!(programmed.load(Ordering::Acquire) || word.load() != current, "rebuilt a dead ring");
                        works = true;
                    }
                    if works {
                        write(&ring, |r| *r += 1);
                    }
                }
                gate.leave();
            })
        };
        assert!(word.go(PortState::Resetting));
        let resetting = word.load();
        programmed.store(false, Ordering::Release);
        if gate.is_quiet(resetting) {
            write(&ring, |r| *r = 0);
            programmed.store(true, Ordering::Release);
            assert!(word.go(PortState::Running));
            if !gate.is_gone() {
                gate.enable(word.load());
            }
        } else {
            // Silent: the others go on. The queue is programmed when it has let go under the new word, not before.
            assert!(word.go(PortState::Running));
            if gate.is_quiet(word.load()) && !gate.is_gone() {
                write(&ring, |r| *r = 0);
                programmed.store(true, Ordering::Release);
                gate.enable(word.load());
            }
        }
        queue.join().unwrap();
        read(&ring);
    });
}

/// After a stop whose acknowledgement was seen, the queue never rings again.
#[test]
fn a_stopped_queue_lets_go_for_good() {
    loom::model(|| {
        let word = Arc::new(StateWord::new());
        let gate = Arc::new(Gate::new());
        let ring = Arc::new(UnsafeCell::new(0u32));
        gate.enable(word.load());
        let queue = {
            let (word, gate, ring) = (word.clone(), gate.clone(), ring.clone());
            thread::spawn(move || {
                let mut current = Word::NONE;
                for _ in 0..3 {
                    if word.load() == current || gate.look(&word, &mut current) == Turn::Rebuild {
                        write(&ring, |r| *r += 1);
                    }
                }
            })
        };
        assert!(word.go(PortState::Stopping));
        if gate.is_quiet(word.load()) {
            assert!(word.go(PortState::Dead));
            write(&ring, |r| *r = 0);
        }
        queue.join().unwrap();
    });
}

/// What a dropped queue leaves goes home once, and never before the reset.
#[test]
fn the_quarantine_lets_nothing_out_before_the_reset() {
    struct Buffers {
        reset_done: Arc<UnsafeCell<bool>>,
        home: Arc<AtomicUsize>,
    }
    impl Drop for Buffers {
        fn drop(&mut self) {
            // Ordered after the reset, or loom reports a race with it.
            assert!(read(&self.reset_done), "freed before the device was reset");
            self.home.fetch_add(1, Ordering::Relaxed);
        }
    }
    loom::model(|| {
        let quarantine = Arc::new(Quarantine::new());
        let reset_done = Arc::new(UnsafeCell::new(false));
        let home = Arc::new(AtomicUsize::new(0));
        let queue = {
            let (quarantine, reset_done, home) = (quarantine.clone(), reset_done.clone(), home.clone());
            thread::spawn(move || quarantine.leave(Buffers { reset_done, home }))
        };
        write(&reset_done, |done| *done = true);
        // SAFETY: the "device" of this test is the flag above.
        unsafe { quarantine.open() };
        queue.join().unwrap();
        assert_eq!(home.load(Ordering::Relaxed), 1);
    });
}
