//! A device that is late, or lies in its descriptors, or does not stop when told.

use std::time::Duration;

use super::resets::assert_passes;
use vfring::drivers::sim::Fault;
use vfring::{Burst, Port, PortConfig};
use vfring_tests::bed::*;

#[test]
fn late_and_torn_write_backs_lose_and_invent_nothing() {
    let world = world("late");
    let delay = Duration::from_micros(700);
    for part in PARTS {
        for fault in [Fault::DelayCompletions(delay), Fault::PartialWriteback(delay)] {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new().rings(64, 64).mtu(9000).rx_info(true));
            world.set_fault(s.id, fault);
            let mut rng = Rng(seed("late"));
            let (mut expected, mut got) = (Vec::new(), Vec::new());
            for n in 0..400 {
                let f = frame(s.mac(), PEER, 60 + rng.below(6000) as usize, n);
                if world.inject(s.id, &f) {
                    expected.push(f);
                }
                if rng.below(3) == 0 {
                    got.extend(s.receive_by(1 + rng.below(40) as usize).into_iter().map(|p| p.bytes));
                }
                world.advance(Duration::from_micros(rng.below(300)));
            }
            world.advance(delay);
            got.extend(s.receive().into_iter().map(|p| p.bytes));
            assert!(expected.len() > 50 && got == expected, "{} of {}", got.len(), expected.len());
            // The transmit ring is full until the reports come.
            let frames: Vec<_> = (0..300).map(|n| frame(PEER, s.mac(), 60 + n as usize, n)).collect();
            s.send_by(0, &frames, 32);
            assert!(world.take_sent(s.id) == frames);
            s.assert_books(0);
            // Stopped with write-backs on the way.
            s.send_by(0, &frames[..40], 32);
            for f in &frames[..5] {
                world.inject(s.id, &[&s.mac().0[..], &f[6..]].concat());
            }
            s.finish();
        }
    }
}

#[test]
fn a_device_that_never_reports_fills_the_ring_and_no_more() {
    let world = world("stuck");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().rings(64, 64));
        world.set_fault(s.id, Fault::StuckDone);
        let mut burst = Burst::with_limit(200).unwrap();
        for n in 0..200 {
            burst.push(s.packet(&frame(PEER, mac(1), 60, n))).unwrap();
        }
        let mut sent = 0;
        for _ in 0..50 {
            sent += s.tx[0].burst(&mut s.cache, &mut burst);
            world.step();
        }
        // A ring of 64 holds 63.
        let holds = 63 - part.facts().plain_contexts;
        assert_eq!((sent, burst.len()), (holds, 200 - holds));
        for n in 0..40 {
            world.inject(s.id, &frame(s.mac(), PEER, 60, n));
        }
        assert!(s.receive().is_empty());
        s.assert_books(burst.len());
        s.cache.free(&mut burst);
        s.finish();
    }
}

#[test]
fn lengths_that_cannot_be_are_dropped_and_counted() {
    let world = world("lying");
    for part in PARTS {
        for room in [2048, 2047, 9216] {
            let fills = part.fills(room);
            for lie in [0, 1, 59, 1024, 1025, 2048, 2049, 9216, 9217, 16383, u16::MAX] {
                let config = PortConfig::new().mtu(9000).rings(64, 64).rx_info(lie % 2 == 0);
                let mut s = Station::with_room(&world, options(part, 1), config, room);
                world.set_fault(s.id, Fault::LyingLength(lie));
                let lens = [60, 3000, 9000, 61, 62, 63, 64, 65, 66, 67, 68, 69];
                for len in lens {
                    assert!(world.inject(s.id, &frame(s.mac(), PEER, len, 1)));
                }
                let got = s.receive_by(9);
                let stats = s.stats().rx[0];
                if lie == 0 && part.facts().empty_may_be_echo {
                    // The last one may be an echo of an earlier frame: it waits for the device to pass it.
                    assert_eq!((got.len(), stats.bad_length), (lens.len() - 1, 0), "{room}");
                    assert!(got.iter().all(|p| p.bytes.is_empty()));
                    world.clear_faults(s.id);
                    assert!(world.inject(s.id, &frame(s.mac(), PEER, 60, 2)));
                    let got = s.receive_by(9);
                    assert_eq!(got.iter().map(|p| p.bytes.len()).collect::<Vec<_>>(), [0, 60]);
                } else if usize::from(lie) <= fills {
                    assert_eq!((got.len(), stats.bad_length), (lens.len(), 0), "{lie} of {room}");
                    for (p, len) in got.iter().zip(lens) {
                        assert_eq!(p.bytes.len(), len.div_ceil(fills) * usize::from(lie));
                    }
                } else {
                    assert_eq!((got.len(), stats.bad_length), (0, lens.len() as u64), "{lie} of {room}");
                }
                s.assert_books(0);
                world.clear_faults(s.id);
                assert_passes(&mut s);
                s.finish();
            }
        }
    }
}

#[test]
fn damaged_frames_are_dropped_and_counted() {
    let world = world("damaged");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().mtu(9000));
        for lap in 1..=3 {
            world.set_fault(s.id, Fault::RxError);
            for n in 0..30 {
                assert!(world.inject(s.id, &frame(s.mac(), PEER, if n % 4 == 0 { 7000 } else { 60 }, n)));
            }
            assert!(s.receive_by(9).is_empty());
            assert_eq!(s.stats().rx[0].errors, lap * 30);
            world.clear_faults(s.id);
            assert_passes(&mut s);
        }
        s.finish();
    }
}

#[test]
fn damaged_frames_among_good_ones_take_nothing_with_them() {
    let world = world("mixed_damage");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().mtu(9000).rings(256, 64));
        let mut rng = Rng(seed("mixed_damage"));
        for limit in [1, 8, 9, 32, 64] {
            let (mut good, mut bad) = (Vec::new(), 0);
            let before = s.stats().rx[0];
            for n in 0..40 {
                let f = frame(s.mac(), PEER, [60, 64, 100, 5000][rng.below(4) as usize], n);
                match rng.below(4) {
                    0 => world.set_fault(s.id, Fault::RxError),
                    1 => world.set_fault(s.id, Fault::LyingLength(5000)),
                    _ => good.push(f.clone()),
                }
                bad += u64::from(good.last() != Some(&f));
                assert!(world.inject(s.id, &f));
                world.clear_faults(s.id);
            }
            let got: Vec<_> = s.receive_by(limit).into_iter().map(|p| p.bytes).collect();
            assert!(got == good, "bursts of {limit}");
            let after = s.stats().rx[0];
            assert_eq!(after.errors + after.bad_length - before.errors - before.bad_length, bad);
        }
        s.finish();
    }
}

#[test]
fn a_queue_that_no_reset_stops_keeps_its_memory() {
    let world = world("never_stops");
    for part in PARTS.into_iter().filter(|part| !part.facts().reset_stops_queues) {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let (id, pool) = (s.id, s.pool.clone());
        s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 10], 32);
        world.set_fault(id, Fault::EnableStuck);
        let text = one_line(&s.stop().unwrap_err());
        assert!(text.contains("still runs"), "{text}");
        assert!(pool.available() < pool.capacity(), "the device may still write there");
        world.clear_faults(id);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        Station::start(&world, id, port, &pool).finish();
    }
}

#[test]
fn queues_that_ignore_their_enable_bit_are_stopped_by_the_reset() {
    let world = world("enable_stuck");
    // An iavf VF has no such bit: its queues are the PF's to enable.
    for part in PARTS.into_iter().filter(|part| part.facts().reset_stops_queues && !part.is_iavf()) {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let id = s.id;
        world.set_fault(id, Fault::EnableStuck);
        for _ in 0..3 {
            s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 10], 32);
            world.pf_reset(id);
            s.control.service();
            world.pf_reset_done(id);
            super::resets::recover(&mut s);
            let pool = s.pool.clone();
            let port = s.stop().unwrap();
            assert_home(&pool);
            s = Station::start(&world, id, port, &pool);
        }
        s.finish();
    }
}
