//! The steady state: what a forwarding thread writes is its own.

use crossbeam::utils::CachePadded;

use super::*;
use crate::mem::{AHEAD, LINE, Lines};

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
    // What begins a line and is whole lines long ends one, and what is fetched ahead at its end is nobody's.
    let numbers = [Lines::new(100, || 0u32), Lines::new(100, || 0u32)];
    let [a, b] = numbers.each_ref().map(|lines| lines.as_ptr() as usize / LINE);
    assert!(a.abs_diff(b) >= (100 * size_of::<u32>() + AHEAD).div_ceil(LINE));
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

/// A device that sends a whole ring at once: bursts take back what they need, and the depot sees nothing of it.
#[test]
fn sending_takes_back_what_is_needed_and_an_empty_burst_everything() {
    const FRAMES: usize = 32;
    let pool = pool(4096);
    let mut to = Bench::new(1024);
    let mut tx = to.tx::<Toy>(&[&pool], false);
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    let mut send = |tx: &mut TxQueue<Toy>, cache: &mut PoolCache| {
        assert_eq!(cache.alloc(FRAMES, &mut burst), FRAMES);
        for packet in &mut burst {
            packet.append(60).unwrap();
        }
        assert_eq!(tx.burst(cache, &mut burst), FRAMES);
    };
    for _ in 0..20 {
        send(&mut tx, &mut cache);
    }
    while to.transmit().is_some() {}
    send(&mut tx, &mut cache);
    let (stock, depot) = (cache.len(), pool.handle().depot().len());
    for _ in 0..10 {
        send(&mut tx, &mut cache);
        assert_eq!((cache.len(), pool.handle().depot().len()), (stock, depot));
    }
    while to.transmit().is_some() {}
    assert_eq!(tx.burst(&mut cache, &mut Burst::new()), 0);
    drop(tx);
    assert_eq!(cache.len() as u32 + pool.available(), pool.capacity(), "the ring has kept buffers");
    drop(cache);
    to.close();
}

/// As many descriptors as frames are free, and frames need more: then the ring takes back what it had left.
#[test]
fn frames_of_several_segments_find_the_room_that_there_is() {
    let pool = pool(4096);
    let mut to = Bench::new(64);
    let mut tx = to.tx::<Toy>(&[&pool], false);
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    let plain = |cache: &mut PoolCache| {
        let mut packet = cache.alloc_one().unwrap();
        packet.append(60).unwrap();
        packet
    };
    for _ in 0..2 {
        assert!((0..31).all(|_| burst.push(plain(&mut cache)).is_ok()));
        assert_eq!(tx.burst(&mut cache, &mut burst), 31);
    }
    while to.transmit().is_some() {}
    // A cache that wants nothing back.
    let mut stocked = pool.cache();
    assert!(stocked.ensure(256) == 256 && stocked.is_stocked());
    let mut packet = plain(&mut cache);
    for _ in 0..3 {
        packet.chain(plain(&mut cache)).unwrap();
    }
    assert!(burst.push(packet).is_ok());
    assert_eq!(tx.burst(&mut stocked, &mut burst), 1);
    drop((tx, cache, stocked));
    to.close();
}
