//! Who may be dropped when: packets outlive pools and ports, in every order; and stopping in mid-traffic a thousand times.

use vfring::drivers::sim::World;
use vfring::{Burst, Mempool, PacketBuf, Port, PortConfig, Started};
use vfring_tests::bed::*;

/// Every order of the numbers below `n`.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(n - 1);
    (0..n).flat_map(|at| shorter.iter().map(move |o| [&o[..at], &[n - 1], &o[at..]].concat())).collect()
}

#[test]
fn packets_outlive_pool_and_port_in_every_drop_order() {
    let seed = seed("drop_orders");
    assert_eq!(orders(3).len(), 6);
    for (n, order) in orders(6).into_iter().enumerate() {
        let world = World::stepped(seed + n as u64);
        let part = PARTS[n % PARTS.len()];
        let id = options(part, 1).add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new().rings(64, 64).mtu(4000)).unwrap();
        let pool = Mempool::builder().buffers(port.buffers_needed()).on(&[&port]).unwrap();
        let Started { control, mut rx, mut tx } = port.start(&pool).unwrap();
        let mut cache = pool.cache();
        let mut burst = Burst::new();
        rx[0].burst(&mut cache, &mut burst);
        world.step();
        let frames = [60, 3000, 61].map(|len| frame(control.mac(), PEER, len, n as u64));
        for f in &frames {
            assert!(world.inject(id, f));
        }
        rx[0].burst(&mut cache, &mut burst);
        let packets: Vec<PacketBuf> = std::iter::from_fn(|| burst.pop()).collect();
        // Some that were received and not fetched, some that were sent and not reclaimed.
        assert!(world.inject(id, &frames[1]));
        burst.push(packet(&mut cache, &frames[1], 2048)).unwrap();
        assert_eq!(tx[0].burst(&mut cache, &mut burst), 1);

        let (mut control, mut pool, mut rx, mut tx, mut cache) =
            (Some(control), Some(pool), Some(rx), Some(tx), Some(cache));
        let mut packets = Some(packets);
        for what in order {
            match what {
                0 => drop(control.take()),
                1 => drop(pool.take()),
                2 => drop(rx.take()),
                3 => drop(tx.take()),
                4 => drop(cache.take()),
                _ => drop(packets.take()),
            }
            if let Some(packets) = &packets {
                assert!(packets.iter().rev().map(bytes).eq(frames.iter().cloned()));
            }
            if let (Some(pool), None, None, None, None, None) = (&pool, &control, &rx, &tx, &cache, &packets) {
                assert_home(pool);
            }
        }
        assert_no_violations(&world);
    }
    // Every pool was freed: their numbers are there for others. A process can have 1024 at a time.
    let world = World::stepped(seed);
    let id = options(PARTS[0], 1).add_to(&world);
    let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
    let pools: Vec<_> = (0..700).map(|_| Mempool::builder().buffers(64).data_room(64).on(&[&port]).unwrap()).collect();
    assert!(pools.iter().all(|p| p.available() == 64));
}

#[test]
fn strangers_go_home_from_wherever_they_are_freed() {
    let world = world("strangers");
    let id = options(PARTS[0], 1).add_to(&world);
    let port = Port::open(&world.spec(id), PortConfig::new().mtu(9000)).unwrap();
    let (ours, theirs) = (pool_for(&port, 2048), pool_for(&port, 1024));
    let (mut our_cache, mut their_cache) = (ours.cache(), theirs.cache());
    let mut burst = Burst::with_limit(100).unwrap();
    for n in 0..100 {
        let f = frame(PEER, mac(1), 60 + 40 * n, n as u64);
        let packet = if n % 3 == 0 { packet(&mut our_cache, &f, 2048) } else { packet(&mut their_cache, &f, 1024) };
        burst.push(packet).unwrap();
    }
    our_cache.free(&mut burst);
    drop((our_cache, their_cache));
    assert_home(&ours);
    assert_home(&theirs);
}

#[test]
fn a_port_is_stopped_a_thousand_times_in_mid_traffic() {
    let seed = seed("thousand_stops");
    let mut rng = Rng(seed);
    for part in PARTS {
        let world = World::stepped(seed);
        let ids = [1, 2].map(|n| options(part, n).add_to(&world));
        world.connect(ids[0], ids[1]);
        let config = PortConfig::new().rings(64, 64).mtu(4000);
        let mut ports = Vec::new();
        let mut pools = Vec::new();
        for id in ids {
            let port = Port::open(&world.spec(id), config.clone()).unwrap();
            pools.push(Mempool::builder().buffers(port.buffers_needed()).on(&[&port]).unwrap());
            ports.push(port);
        }
        for _ in 0..1000 / PARTS.len() {
            let mut stations: Vec<Station> = ids
                .into_iter()
                .zip(ports.drain(..))
                .zip(&pools)
                .map(|((id, port), pool)| Station::start(&world, id, port, pool))
                .collect();
            // Both send to each other and turn around what they get, for a random number of steps.
            let mut bursts = [Burst::with_limit(20).unwrap(), Burst::with_limit(20).unwrap()];
            for _ in 0..rng.below(12) {
                for me in [0, 1] {
                    let to = mac(2 - me as u8);
                    let s = &mut stations[me];
                    let burst = &mut bursts[me];
                    s.rx[0].burst(&mut s.cache, burst);
                    while burst.len() < 10 {
                        let f = frame(to, s.mac(), 60 + rng.below(3000) as usize, 1);
                        let packet = s.packet(&f);
                        burst.push(packet).unwrap();
                    }
                    for p in burst.iter_mut() {
                        p[..6].copy_from_slice(&to.0);
                    }
                    s.tx[0].burst(&mut s.cache, burst);
                    if rng.below(4) > 0 {
                        world.step();
                    }
                    if rng.below(8) == 0 {
                        s.control.service();
                    }
                }
            }
            let which = rng.below(2) as usize;
            let mut back: [Option<Port>; 2] = [None, None];
            for me in [which, 1 - which] {
                let s = stations.remove(if stations.len() == 2 { me } else { 0 });
                if rng.below(2) == 0 {
                    // Control first, while the queues are still out.
                    let Station { control, rx, tx, cache, .. } = s;
                    back[me] = Some(control.stop(std::time::Duration::from_millis(1)).unwrap());
                    drop((rx, tx, cache));
                } else {
                    back[me] = Some(s.stop().unwrap());
                }
            }
            ports.extend(back.into_iter().flatten());
            drop(bursts);
            pools.iter().for_each(assert_home);
            assert_no_violations(&world);
        }
    }
}
