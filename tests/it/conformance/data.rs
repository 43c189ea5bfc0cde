//! Frames in both directions: every size, every burst limit, chains, refusals, and the books of the pool.

use vfring::{Burst, Port, PortConfig, Started};
use vfring_tests::bed::*;

const LIMITS: [usize; 10] = [1, 2, 7, 8, 9, 31, 32, 33, 64, 256];
/// Around every boundary: the shortest frame, buffers of 1 and 2 KiB, the jumbo MTU with two tags.
const SIZES: [usize; 24] = [
    60, 61, 63, 64, 65, 127, 128, 1023, 1024, 1025, 1514, 1522, 2047, 2048, 2049, 4095, 4096, 4097, 6144, 8192, 8193,
    9000, 9014, 9022,
];

#[test]
fn frames_of_every_size_arrive_whole_in_bursts_of_every_limit() {
    let world = world("rx_sizes");
    for part in PARTS {
        for room in [2048, 1024, 2047, 9216] {
            let mtu = part.mtu_of_buffers(room, 9000);
            let config = PortConfig::new().mtu(mtu).rings(1024, 64).rx_info(room == 2048);
            let mut s = Station::with_room(&world, options(part, 1), config, room);
            let piece = part.fills(room);
            let mut n = 0;
            for limit in LIMITS {
                let sizes = SIZES.iter().filter(|&&len| len <= part.longest_frame(mtu));
                let frames: Vec<_> = sizes.map(|&len| (n += 1, frame(s.mac(), PEER, len, n)).1).collect();
                for f in &frames {
                    assert!(world.inject(s.id, f));
                }
                let got = s.receive_by(limit);
                assert_eq!(got.len(), frames.len());
                for (p, f) in got.iter().zip(&frames) {
                    assert!(p.bytes == *f, "{} bytes came as {}", f.len(), p.bytes.len());
                    assert_eq!(p.segments, f.len().div_ceil(piece));
                }
                s.assert_books(0);
            }
            let stats = s.stats();
            assert_eq!(stats.rx[0].packets, n);
            assert_eq!((stats.rx[0].errors, stats.rx[0].bad_length, stats.rx[0].no_buffer), (0, 0, 0));
            s.finish();
        }
    }
}

#[test]
fn frames_of_every_size_are_sent_whole_in_bursts_of_every_limit() {
    let world = world("tx_sizes");
    for part in PARTS {
        for (room, offloads) in [(2048, false), (1024, false), (2048, true), (256, false)] {
            // Receive buffers need 1 KiB, so small pieces are packets of small chunks in large buffers.
            let mtu = part.mtu_of_buffers(room.max(1024), 9000);
            let config = PortConfig::new().mtu(mtu).rings(64, 128).tx_offloads(offloads);
            let mut s = Station::with_room(&world, options(part, 1), config, room.max(1024));
            let mut n = 0;
            for limit in LIMITS {
                let fits =
                    |len: usize| len <= usize::from(mtu) + 22 && len.div_ceil(room.into()) <= part.facts().segments;
                let sizes = SIZES.iter().filter(|len| fits(**len));
                let frames: Vec<_> = sizes.map(|&len| (n += 1, frame(PEER, s.mac(), len, n)).1).collect();
                let mut burst = Burst::with_limit(limit).unwrap();
                let mut left = frames.iter();
                let mut sent = 0;
                while sent < frames.len() {
                    while !burst.is_full() {
                        let Some(f) = left.next() else { break };
                        burst.push(packet(&mut s.cache, f, room.into())).unwrap();
                    }
                    sent += s.tx[0].burst(&mut s.cache, &mut burst);
                    world.step();
                }
                assert!(burst.is_empty());
                assert!(world.take_sent(s.id) == frames, "limit {limit}");
                s.assert_books(0);
            }
            assert_eq!(s.stats().tx[0].packets, n);
            s.finish();
        }
    }
}

#[test]
fn short_frames_leave_padded_with_zeros() {
    let world = world("padding");
    for part in PARTS {
        for offloads in [false, true] {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new().tx_offloads(offloads));
            for len in [14, 15, 42, 59, 60] {
                // What the buffer held before must not leak into the padding.
                let mut dirty = s.packet(&[0xee; 200]);
                dirty.truncate(0);
                dirty.append(len).unwrap().copy_from_slice(&frame(PEER, s.mac(), len, 3));
                let mut burst = Burst::new();
                burst.push(dirty).unwrap();
                assert_eq!(s.tx[0].burst(&mut s.cache, &mut burst), 1);
                world.step();
                let mut expected = frame(PEER, s.mac(), len, 3);
                let chain = packet(&mut s.cache, &expected, 8);
                expected.resize(60, 0);
                assert_eq!(world.take_sent(s.id), std::slice::from_ref(&expected));
                burst.push(chain).unwrap();
                assert_eq!(s.tx[0].burst(&mut s.cache, &mut burst), 1);
                world.step();
                let sent = world.take_sent(s.id).pop().unwrap();
                assert_eq!((sent.len(), &sent[..len]), (60, &expected[..len]));
            }
            s.finish();
        }
    }
}

#[test]
fn packets_that_cannot_be_sent_are_freed_and_counted_by_reason() {
    let world = world("refused");
    for part in PARTS {
        for offloads in [false, true] {
            let config = PortConfig::new().rings(64, 64).tx_offloads(offloads);
            let mut s = Station::new(&world, options(part, 1), config);
            let id = options(part, 2).add_to(&world);
            let other_port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
            let other = pool_for(&other_port, 2048);
            let mut other_cache = other.cache();

            let good = frame(PEER, s.mac(), 60, 1);
            let empty_tail = {
                let mut head = s.packet(&good);
                head.chain(s.cache.alloc_one().unwrap()).unwrap();
                head
            };
            let bad = vec![
                s.packet(&[]),
                empty_tail,
                s.packet(&frame(PEER, s.mac(), 1523, 2)),
                packet(&mut s.cache, &frame(PEER, mac(1), 1522, 2), 20),
                packet(&mut other_cache, &good, 2048),
            ];
            let mut burst = Burst::new();
            for packet in bad {
                let fine = s.packet(&good);
                burst.push(packet).unwrap();
                burst.push(fine).unwrap();
            }
            let before = burst.len();
            assert_eq!(s.tx[0].burst(&mut s.cache, &mut burst), before / 2);
            assert!(burst.is_empty(), "a loop that retries ends");
            world.step();
            assert_eq!(world.take_sent(s.id), vec![good; before / 2]);
            let stats = s.stats().tx[0];
            assert_eq!((stats.packets, stats.empty, stats.too_long), (5, 2, 1));
            assert_eq!((stats.too_many_segments, stats.foreign_pool, stats.bad_offload), (1, 1, 0));
            drop((other_port, other_cache));
            assert_home(&other);
            s.assert_books(0);
            s.finish();
        }
    }
}

#[test]
fn a_long_chain_is_never_stuck_behind_frames_that_nobody_reports() {
    let world = world("long_chains");
    for ring in [32u16, 64, 256] {
        // Every number of descriptors that can be waiting without a report, then the longest chain that is accepted.
        for ahead in 0..usize::from(ring / 4).min(32) {
            let mut s = Station::new(&world, options(Part::I82576, 1), PortConfig::new().rings(32, ring));
            let first: Vec<_> = (0..ahead as u64).map(|n| frame(PEER, s.mac(), 60, n)).collect();
            s.send_by(0, &first, 1);
            world.take_sent(s.id);
            let long = frame(PEER, s.mac(), 1500, 77);
            let mut accepted = 0;
            for segments in (1..ring as usize).rev() {
                let chain = packet(&mut s.cache, &long, long.len().div_ceil(segments));
                let mut burst = Burst::new();
                burst.push(chain).unwrap();
                let mut rounds = 0;
                while !burst.is_empty() {
                    accepted += s.tx[0].burst(&mut s.cache, &mut burst);
                    world.step();
                    rounds += 1;
                    assert!(rounds < 100, "ring {ring}: a chain waits for ever behind {ahead} frames");
                }
                if accepted > 0 {
                    break;
                }
            }
            assert_eq!(world.take_sent(s.id), [long]);
            s.finish();
        }
    }
}

#[test]
fn a_cache_of_another_pool_is_refused_and_counted() {
    let world = world("wrong_pool");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let id = options(part, 2).add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let other = pool_for(&port, 2048);
        let mut wrong = other.cache();
        let f = frame(s.mac(), PEER, 60, 1);
        assert!(world.inject(s.id, &f));
        let mut burst = Burst::new();
        assert_eq!(s.rx[0].burst(&mut wrong, &mut burst), 0);
        assert!(burst.is_empty());
        burst.push(s.packet(&f)).unwrap();
        assert_eq!(s.tx[0].burst(&mut wrong, &mut burst), 0);
        assert_eq!(burst.len(), 1);
        world.step();
        assert!(world.take_sent(s.id).is_empty());
        assert_eq!(wrong.len(), 0, "no buffer came into a stranger's cache");
        s.cache.free(&mut burst);
        let stats = s.stats();
        assert_eq!((stats.rx[0].wrong_pool, stats.tx[0].wrong_pool), (1, 1));
        assert_eq!((stats.rx[0].packets, stats.tx[0].packets), (0, 0));
        // Nothing was lost.
        assert_eq!(s.receive().pop().unwrap().bytes, f);
        s.finish();
        drop((port, wrong));
        assert_home(&other);
    }
}

#[test]
fn a_wrong_cache_at_the_first_burst_or_after_a_reset_moves_no_buffer() {
    let world = world("wrong_pool_rebuild");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let id = options(part, 2).add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let other = pool_for(&port, 2048);
        let mut wrong = other.cache();
        s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 20], 32);
        world.pf_reset(s.id);
        s.control.service();
        s.poll();
        world.pf_reset_done(s.id);
        world.step();
        s.control.service();
        let mut burst = Burst::new();
        assert_eq!(s.rx[0].burst(&mut wrong, &mut burst) + s.tx[0].burst(&mut wrong, &mut burst), 0);
        assert!(wrong.is_empty());
        s.run(3);
        assert!(s.passes(s.mac(), None));
        s.finish();
        drop((port, wrong));
        assert_home(&other);
    }
}

#[test]
fn with_an_empty_pool_packets_stay_in_the_ring() {
    let world = world("pool_empty");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().rings(64, 64).mtu(9000));
        // Hold every free buffer.
        let mut held = Vec::new();
        while let Some(packet) = s.cache.alloc_one() {
            held.push(packet);
        }
        s.assert_books(held.len());
        let frames: Vec<_> = (0..10).map(|n| frame(s.mac(), PEER, if n % 3 == 0 { 5000 } else { 60 }, n)).collect();
        for f in &frames {
            assert!(world.inject(s.id, f));
        }
        assert!(s.receive().is_empty());
        assert!(s.stats().rx[0].no_buffer > 0);
        // One buffer at a time is enough to go on, also through a chain.
        let mut got = Vec::new();
        while got.len() < frames.len() {
            drop(held.pop().expect("it needs no more than one buffer a descriptor"));
            got.extend(s.receive().into_iter().map(|p| p.bytes));
        }
        assert_eq!(got, frames);
        drop(held);
        s.finish();
    }
}

#[test]
fn a_full_receive_ring_drops_whole_frames_and_goes_on() {
    let world = world("ring_full");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().rings(64, 64).mtu(9000));
        for lap in 0..20u64 {
            let frames: Vec<_> =
                (0..40).map(|n| frame(s.mac(), PEER, 60 + 997 * (n as usize % 5), lap * 100 + n)).collect();
            let taken: Vec<_> = frames.iter().filter(|f| world.inject(s.id, f)).collect();
            assert!(taken.len() > 10 && taken.len() < 40);
            assert!(s.receive_by(9).iter().map(|p| &p.bytes).eq(taken));
        }
        let (counters, stats) = (world.wire_counters(s.id), s.stats());
        assert_eq!(counters.received_frames, stats.rx[0].packets);
        assert_eq!(counters.received_frames + counters.dropped_frames, 800);
        assert_eq!(stats.device.rx_packets, counters.received_frames);
        s.finish();
    }
}

#[test]
fn a_burst_that_holds_packets_already_is_filled_up() {
    let world = world("append");
    let mut s = Station::new(&world, options(Part::I82576, 1), PortConfig::new());
    let frames: Vec<_> = (0..40).map(|n| frame(s.mac(), PEER, 64, n)).collect();
    let mut burst = Burst::with_limit(20).unwrap();
    for f in &frames {
        assert!(world.inject(s.id, f));
    }
    for f in &frames[..5] {
        burst.push(s.packet(f)).unwrap();
    }
    assert_eq!(s.rx[0].burst(&mut s.cache, &mut burst), 15);
    assert_eq!(s.rx[0].burst(&mut s.cache, &mut burst), 0);
    assert!(burst.iter().map(bytes).eq(frames[..5].iter().chain(&frames[..15]).cloned()));
    s.cache.free(&mut burst);
    assert_eq!(s.receive().len(), 25);
    s.finish();
}

#[test]
fn a_program_forwards_in_place() {
    let world = world("forward");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().rings(64, 64).mtu(9000));
        let mut expected = Vec::new();
        let mut burst = Burst::with_limit(33).unwrap();
        let mut rng = Rng(seed("forward"));
        for n in 0..600u64 {
            let f = frame(s.mac(), PEER, 60 + rng.below(if n % 10 == 0 { 8900 } else { 1400 }) as usize, n);
            if world.inject(s.id, &f) {
                let mut back = f;
                back[..12].rotate_left(6);
                expected.push(back);
            }
            if rng.below(5) == 0 {
                s.rx[0].burst(&mut s.cache, &mut burst);
                for p in &mut burst {
                    p[..12].rotate_left(6);
                }
                s.tx[0].burst(&mut s.cache, &mut burst);
                // Packets that were not sent yet stay first: they were swapped already, so swap them back for the next lap.
                for p in &mut burst {
                    p[..12].rotate_left(6);
                }
            }
        }
        for _ in 0..100 {
            s.rx[0].burst(&mut s.cache, &mut burst);
            for p in &mut burst {
                p[..12].rotate_left(6);
            }
            s.tx[0].burst(&mut s.cache, &mut burst);
            for p in &mut burst {
                p[..12].rotate_left(6);
            }
            world.step();
        }
        assert!(burst.is_empty());
        assert!(world.take_sent(s.id) == expected);
        s.assert_books(0);
        s.finish();
    }
}

#[test]
fn two_ports_forward_between_each_other_from_one_pool() {
    let world = world("one_pool");
    for part in PARTS {
        let ids = [1, 2].map(|n| options(part, n).add_to(&world));
        let [a, b] = ids.map(|id| Port::open(&world.spec(id), PortConfig::new()).unwrap());
        let pool = vfring::Mempool::builder().buffers(8192).on(&[&a, &b]).unwrap();
        let mut a = Station::start(&world, ids[0], a, &pool);
        let mut b = Station::start(&world, ids[1], b, &pool);
        let frames: Vec<_> = (0..300).map(|n| frame(a.mac(), PEER, 60 + n as usize, n)).collect();
        let mut burst = Burst::new();
        for f in &frames {
            assert!(world.inject(ids[0], f));
        }
        // One thread, one cache, receive queue of the one and transmit queue of the other.
        while a.rx[0].burst(&mut a.cache, &mut burst) > 0 {
            b.tx[0].burst(&mut a.cache, &mut burst);
            assert!(burst.is_empty());
            world.step();
        }
        assert_eq!(world.take_sent(ids[1]), frames);
        b.poll();
        let Station { control, rx, tx, cache, .. } = a;
        drop((rx, tx, cache));
        drop(control.stop(DEADLINE).unwrap());
        assert!(b.passes(b.mac(), None), "the other port goes on");
        b.finish();
    }
}

#[test]
fn packets_of_an_attached_pool_are_sent_and_go_home() {
    let world = world("attach");
    for part in PARTS {
        let ids = [1, 2].map(|n| options(part, n).add_to(&world));
        let [a, mut b] = ids.map(|id| Port::open(&world.spec(id), PortConfig::new().rings(64, 64)).unwrap());
        let (pool_a, pool_b) = (pool_for(&a, 2048), pool_for(&b, 4096));
        b.attach(&pool_a).unwrap();
        b.attach(&pool_a).unwrap(); // once more changes nothing
        let mut a = Station::start(&world, ids[0], a, &pool_a);
        let mut b = Station::start(&world, ids[1], b, &pool_b);
        let mut burst = Burst::new();
        let mut expected = Vec::new();
        for n in 0..500u64 {
            // Alternately a stranger from a's ring and a packet of b's own.
            let f = frame(a.mac(), PEER, 60 + n as usize % 1400, n);
            assert!(world.inject(ids[0], &f));
            a.rx[0].burst(&mut a.cache, &mut burst);
            if n % 3 == 0 {
                burst.push(b.packet(&f)).unwrap();
                expected.push(f.clone());
            }
            expected.push(f);
            for _ in 0..3 {
                b.tx[0].burst(&mut b.cache, &mut burst);
                world.step();
            }
            assert!(burst.is_empty(), "a ring that is emptied takes two packets");
        }
        assert_eq!(world.take_sent(ids[1]), expected);
        let stats = b.stats().tx[0];
        assert_eq!((stats.packets, stats.foreign_pool), (expected.len() as u64, 0));
        b.reclaim();
        // At most what b's ring still has is missing from a's pool, and b's cache has none of them.
        a.assert_books(0);
        b.assert_books(0);
        let Station { control, rx, tx, cache, .. } = a;
        drop((rx, tx, cache));
        drop(control.stop(DEADLINE).unwrap());
        b.finish();
        assert_home(&pool_a);
    }
}

#[test]
fn what_both_sides_hold_when_a_port_stops_comes_home() {
    let world = world("held_at_stop");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().mtu(9000));
        let mut burst = Burst::new();
        for n in 0..20 {
            assert!(world.inject(s.id, &frame(s.mac(), PEER, 5000, n)));
        }
        assert_eq!(s.rx[0].burst(&mut s.cache, &mut burst), 20);
        // Link down: what is sent stays in the ring.
        world.link(s.id, false);
        let frames = vec![frame(PEER, s.mac(), 3000, 9); 20];
        s.send_by(0, &frames, 32);
        let pool = s.pool.clone();
        let Station { control, rx, tx, cache, .. } = s;
        let port = control.stop(DEADLINE).unwrap();
        let in_burst = burst.iter().map(|p| p.segment_count()).sum::<usize>() as u32;
        drop((rx, tx, cache, port));
        assert_eq!(pool.available() + in_burst, pool.capacity());
        assert!(burst.iter().all(|p| bytes(p).len() == 5000));
        drop(burst);
        assert_home(&pool);
    }
    assert_no_violations(&world);
}

#[test]
fn a_started_port_can_be_thrown_away_unused() {
    let world = world("thrown_away");
    for part in PARTS {
        let id = options(part, 1).add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        let Started { control, rx, tx } = port.start(&pool).unwrap();
        drop((rx, tx));
        drop(control);
        assert_home(&pool);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        drop(port.start(&pool).unwrap());
        assert_home(&pool);
    }
    assert_no_violations(&world);
}
