//! Queues that nobody polls, or that are dropped at an awkward time.

use std::time::Duration;

use super::resets::{assert_passes, recover};
use vfring::drivers::sim::World;

use vfring::{Burst, MacAddr, Port, PortConfig, PortState, Started};
use vfring_tests::bed::*;

fn flow(to: MacAddr, n: u16) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(PEER.0, to.0);
    let mut f = Vec::new();
    builder.ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64).udp(n, 9).write(&mut f, &[0; 30]).unwrap();
    f
}

/// A station with two receive and two transmit queues, and a frame for each receive queue.
fn two_queues(world: &World) -> (Station, [Vec<u8>; 2]) {
    let rss = Vf { rss: true, ..options(Part::I82576, 1) };
    let mut s = Station::new(world, rss, PortConfig::new().queues(2, 2));
    let mut frames = [Vec::new(), Vec::new()];
    for n in 0..64 {
        let got = s.deliver(&flow(mac(1), n)).unwrap();
        frames[usize::from(got.queue)] = got.bytes;
    }
    assert!(frames.iter().all(|f| !f.is_empty()));
    (s, frames)
}

fn service_for(s: &mut Station, time: Duration) {
    for _ in 0..time.as_millis() / 10 {
        s.control.service();
        s.poll();
        s.world.advance(Duration::from_millis(10));
    }
}

#[test]
fn a_queue_that_is_silent_through_a_reset_is_named_and_resumes_later() {
    let world = world("silent");
    let (mut s, frames) = two_queues(&world);
    let mut silent_rx = s.rx.remove(1);
    let mut silent_tx = s.tx.remove(1);
    // What the silent queue sent before is in its ring.
    let mut burst = Burst::new();
    for n in 0..20 {
        burst.push(s.packet(&frame(PEER, mac(1), 60, n))).unwrap();
    }
    silent_tx.burst(&mut s.cache, &mut burst);
    assert!(world.inject(s.id, &frames[1]));
    for resets in 1..=3u64 {
        world.pf_reset(s.id);
        s.control.service();
        world.pf_reset_done(s.id);
        s.poll();
        world.take_sent(s.id);
        // It is waited for, for a while.
        assert_eq!(s.control.service(), PortState::Resetting);
        assert_eq!(s.control.waiting_for(), ["receive queue 1", "transmit queue 1"]);
        service_for(&mut s, Duration::from_millis(300));
        assert_eq!(s.control.state(), PortState::Running);
        assert_eq!(s.control.waiting_for(), ["receive queue 1", "transmit queue 1"]);
        assert_eq!(s.stats().recoveries, resets);
        // The others go on.
        assert_eq!(s.deliver(&frames[0]).unwrap().queue, 0);
        let f = frame(PEER, mac(1), 80, resets);
        s.send_by(0, std::slice::from_ref(&f), 1);
        assert_eq!(world.take_sent(s.id), [f]);
        assert!(!world.inject(s.id, &frames[1]), "the silent queue is off");
        assert_no_violations(&world);
    }
    // It comes back: lets go first, is enabled by the next service, rebuilds.
    assert_eq!(silent_rx.burst(&mut s.cache, &mut burst), 0);
    assert_eq!(s.control.waiting_for(), ["receive queue 1", "transmit queue 1"], "until it is enabled");
    s.control.service();
    assert_eq!(s.control.waiting_for(), ["transmit queue 1"]);
    assert_eq!(silent_rx.burst(&mut s.cache, &mut burst), 0);
    world.step();
    assert!(world.inject(s.id, &frames[1]));
    assert_eq!(silent_rx.burst(&mut s.cache, &mut burst), 1);
    s.cache.free(&mut burst);
    assert_eq!(silent_tx.burst(&mut s.cache, &mut burst), 0);
    s.control.service();
    assert!(s.control.waiting_for().is_empty());
    burst.push(s.packet(&frame(PEER, mac(1), 70, 1))).unwrap();
    assert_eq!(silent_tx.burst(&mut s.cache, &mut burst), 1);
    world.step();
    assert_eq!(world.take_sent(s.id), [frame(PEER, mac(1), 70, 1)]);
    s.rx.push(silent_rx);
    s.tx.push(silent_tx);
    assert_passes(&mut s);
    s.finish();
}

#[test]
fn a_silent_queue_that_is_dropped_is_not_waited_for() {
    let world = world("silent_dropped");
    for when in 0..3 {
        let (mut s, frames) = two_queues(&world);
        let mut silent = Some((s.rx.remove(1), s.tx.remove(1)));
        if when == 0 {
            silent.take();
        }
        world.pf_reset(s.id);
        s.control.service();
        world.pf_reset_done(s.id);
        s.poll();
        if when == 1 {
            silent.take();
        }
        s.control.service();
        assert_eq!(s.control.state() == PortState::Running, when < 2, "a queue that is gone has let go");
        service_for(&mut s, Duration::from_millis(300));
        if when == 2 {
            assert_eq!(s.control.waiting_for().len(), 2);
            silent.take();
        }
        service_for(&mut s, Duration::from_millis(30));
        assert!(s.control.waiting_for().is_empty());
        assert_eq!(s.deliver(&frames[0]).unwrap().queue, 0);
        assert!(!world.inject(s.id, &frames[1]), "nobody has that queue any more");
        s.finish();
    }
}

#[test]
fn queues_that_are_silent_at_a_stop_are_left_behind() {
    let world = world("silent_stop");
    for part in PARTS {
        for drop_it in [false, true] {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new());
            s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 20], 32);
            assert!(world.inject(s.id, &frame(s.mac(), PEER, 60, 1)));
            let Station { control, mut rx, mut tx, mut cache, pool, id, .. } = s;
            let before = world.now();
            let port = control.stop(DEADLINE).unwrap();
            let took = world.now() - before;
            assert!(took >= DEADLINE && took < DEADLINE + Duration::from_secs(1), "{took:?}");
            assert!(pool.available() < pool.capacity());
            // The port cannot start while they could ring.
            let text = one_line(&port.start(&pool).unwrap_err());
            assert!(text.contains("receive queue 0, transmit queue 0") && text.contains("drop them"), "{text}");
            // What they have is theirs until they go, whatever happens to the port.
            let again = Port::open(&world.spec(id), PortConfig::new()).unwrap();
            drop(again);
            let mut burst = Burst::new();
            assert_eq!(rx[0].burst(&mut cache, &mut burst) + tx[0].burst(&mut cache, &mut burst), 0);
            if drop_it {
                drop((rx, tx));
                drop(cache);
            } else {
                drop(cache);
                drop((tx, rx));
            }
            assert_home(&pool);
            assert_no_violations(&world);
        }
    }
}

#[test]
fn a_queue_that_has_let_go_does_not_keep_a_port_from_starting() {
    let world = world("let_go");
    for part in PARTS {
        let s = Station::new(&world, options(part, 1), PortConfig::new());
        let Station { control, mut rx, mut tx, mut cache, pool, id, .. } = s;
        let port = control.stop(DEADLINE).unwrap();
        let mut burst = Burst::new();
        assert_eq!(rx[0].burst(&mut cache, &mut burst) + tx[0].burst(&mut cache, &mut burst), 0);
        // They exist, they hold buffers, and they can never touch the device again.
        let larger = vfring::Mempool::builder().buffers(8192).on(&[&port]).unwrap();
        let mut s = Station::start(&world, id, port, &larger);
        for _ in 0..20 {
            assert_eq!(rx[0].burst(&mut cache, &mut burst), 0);
            burst.push(packet(&mut cache, &[9; 60], 2048)).unwrap();
            assert_eq!(tx[0].burst(&mut cache, &mut burst), 0);
            cache.free(&mut burst);
            assert_passes(&mut s);
        }
        drop((rx, tx, cache));
        assert_home(&pool);
        assert_passes(&mut s);
        s.finish();
    }
}

#[test]
fn a_stop_waits_no_longer_than_the_queues_take() {
    let world = world("quick_stop");
    let s = Station::new(&world, options(Part::I350, 1), PortConfig::new());
    let Station { control, rx, tx, cache, .. } = s;
    drop((rx, tx, cache));
    let before = world.now();
    drop(control.stop(Duration::from_secs(1000)).unwrap());
    assert!(world.now() - before < Duration::from_secs(1));
    assert_no_violations(&world);
}

/// Every order of the numbers below `n`.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(n - 1);
    (0..n).flat_map(|at| shorter.iter().map(move |o| [&o[..at], &[n - 1], &o[at..]].concat())).collect()
}

#[test]
fn control_and_queues_are_dropped_in_any_order_at_any_time() {
    let seed = seed("any_order");
    for (n, order) in orders(5).into_iter().enumerate() {
        let world = World::stepped(seed + n as u64);
        let id = Vf { rss: true, ..options(Part::I82576, 1) }.add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new().queues(2, 2).rings(64, 64)).unwrap();
        let pool = pool_for(&port, 2048);
        let Started { mut control, mut rx, mut tx } = port.start(&pool).unwrap();
        let mut cache = pool.cache();
        let mut burst = Burst::new();
        for queue in 0..2 {
            rx[queue].burst(&mut cache, &mut burst);
            for n in 0..10 {
                burst.push(packet(&mut cache, &frame(PEER, mac(1), 60, n), 2048)).unwrap();
            }
            tx[queue].burst(&mut cache, &mut burst);
        }
        world.step();
        for n in 0..20 {
            world.inject(id, &flow(mac(1), n));
        }
        // Running; in a reset that some queues have noticed; and in one that is over but for a silent queue.
        if n % 3 > 0 {
            world.pf_reset(id);
            control.service();
            rx[0].burst(&mut cache, &mut burst);
            tx[1].burst(&mut cache, &mut burst);
            if n % 3 == 2 {
                world.pf_reset_done(id);
                world.advance(Duration::from_millis(300));
                assert_eq!(control.service(), PortState::Running);
                rx[0].burst(&mut cache, &mut burst);
                tx[1].burst(&mut cache, &mut burst);
                world.step();
            }
        }
        let (mut rx, mut tx) =
            (rx.into_iter().map(Some).collect::<Vec<_>>(), tx.into_iter().map(Some).collect::<Vec<_>>());
        let mut control = Some(control);
        for what in order {
            match what {
                0 | 1 => drop(rx[what].take()),
                2 | 3 => drop(tx[what - 2].take()),
                _ => drop(control.take()),
            }
            world.step();
            // Whoever is left is polled on and harms nobody.
            for rx in rx.iter_mut().flatten() {
                rx.burst(&mut cache, &mut burst);
            }
            for tx in tx.iter_mut().flatten() {
                tx.burst(&mut cache, &mut burst);
            }
            cache.free(&mut burst);
            if let Some(control) = &mut control {
                control.service();
            }
            world.step();
        }
        drop(cache);
        assert_home(&pool);
        assert_no_violations(&world);
    }
}

#[test]
fn queues_dropped_while_the_port_runs_leave_the_others_alone() {
    let world = world("dropped_running");
    let (mut s, frames) = two_queues(&world);
    drop(s.rx.remove(0));
    drop(s.tx.remove(0));
    for _ in 0..3 {
        // Nobody takes what comes for the dropped queue; its ring fills up and then drops.
        for _ in 0..600 {
            world.inject(s.id, &frames[0]);
        }
        assert_eq!(s.deliver(&frames[1]).unwrap().queue, 1);
        world.pf_reset(s.id);
        s.control.service();
        world.pf_reset_done(s.id);
        recover(&mut s);
        assert_eq!(s.deliver(&frames[1]).unwrap().queue, 1);
    }
    s.finish();
}
