//! The steady state: what a forwarding thread writes is its own.

use crossbeam::utils::CachePadded;

use super::*;
use crate::mem::{LINE, Lines};

/// What bursts write, and what control writes beside what bursts read.
#[test]
fn whatever_a_burst_writes_begins_a_line() {
    let alignments = [
        align_of::<RxQueue<Toy>>(),
        align_of::<TxQueue<Toy>>(),
        align_of::<RxCounts>(),
        align_of::<TxCounts>(),
        align_of::<Burst>(),
        align_of::<PoolCache>(),
        align_of::<Gallery>(),
        // The state word is read by every queue and written by control; so is a gate, by its own queue.
        align_of::<Shared>(),
        align_of::<CachePadded<Gate>>(),
    ];
    assert_eq!(alignments, [LINE; 9]);
    // What begins a line and is whole lines long ends one.
    let numbers = [Lines::new(100, || 0u32), Lines::new(100, || 0u32)];
    let [a, b] = numbers.each_ref().map(|lines| lines.as_ptr() as usize / LINE);
    assert!(a.abs_diff(b) >= (100 * size_of::<u32>()).div_ceil(LINE));
}

#[test]
fn forwarding_leaves_the_depot_alone() {
    const FRAMES: usize = 32;
    let pool = pool(2048);
    let (mut from, mut to) = (Bench::new(256), Bench::new(256));
    let (mut rx, mut tx) = (from.rx::<Toy>(&pool, false), to.tx::<Toy>(&[&pool], false));
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    rx.burst(&mut cache, &mut burst);
    let mut free = None;
    for round in 0..1000 {
        assert!((0..FRAMES).all(|_| from.receive(&[7; 60], LAST, 0)));
        assert_eq!(rx.burst(&mut cache, &mut burst), FRAMES);
        assert_eq!(tx.burst(&mut cache, &mut burst), FRAMES);
        while to.transmit().is_some() {}
        let now = pool.handle().depot().len();
        // Once the cache has filled up.
        assert!(round < 2 || free == Some(now), "round {round}: {free:?} became {now}");
        free = Some(now);
    }
    drop((rx, tx, cache));
    from.close();
    to.close();
}
