//! Opening, starting, stopping, starting again; addresses; queues and rings; several ports.

use vfring::{Error, MacAddr, Mempool, Port, PortConfig, PortState, Started};
use vfring_tests::bed::*;

#[test]
fn a_port_is_opened_started_stopped_and_started_again() {
    let world = world("a_port_is_opened");
    for part in PARTS {
        let Facts { family, name, queues: (queues, _), rings, mtu_max, speed_mbps, .. } = *part.facts();
        let id = options(part, 1).add_to(&world);
        let spec = world.spec(id);
        for _ in 0..2 {
            let mut port = Port::open(&spec, PortConfig::new()).unwrap();
            let info = port.info().clone();
            assert_eq!((info.family, info.part, info.rx_queues, info.tx_queues), (family, name, queues, queues));
            assert_eq!((info.ring_min, info.ring_max, info.ring_multiple), rings);
            assert_eq!(info.mtu_max, mtu_max);
            assert!(info.is_model);
            let pool = pool_for(&port, 2048);
            for lap in 0..3 {
                let mut s = Station::start(&world, id, port, &pool);
                assert_eq!(s.control.state(), PortState::Running);
                assert!(s.control.link().up);
                assert_eq!((s.control.link().speed_mbps, s.control.link().full_duplex), (speed_mbps, true));
                let frames: Vec<_> = (0..100).map(|n| frame(s.mac(), PEER, 60 + n as usize, n + lap)).collect();
                for f in &frames {
                    assert!(world.inject(id, f));
                }
                assert!(s.receive().iter().map(|p| &p.bytes).eq(&frames));
                s.send_by(0, &frames, 32);
                assert_eq!(world.take_sent(id), frames);
                let stats = s.stats();
                assert_eq!((stats.rx[0].packets, stats.tx[0].packets, stats.recoveries), (100, 100, 0));
                // The device's counters go on over starts, the queues' begin anew.
                assert_eq!((stats.device.rx_packets, stats.device.tx_packets), (100 * (lap + 1), 100 * (lap + 1)));
                s.assert_books(0);
                port = s.stop().unwrap();
                assert_home(&pool);
            }
            drop(port);
            assert_home(&pool);
        }
    }
    assert_no_violations(&world);
}

#[test]
fn a_port_that_is_never_started_closes_quietly() {
    let world = world("never_started");
    for part in PARTS {
        let id = options(part, 1).add_to(&world);
        let mut port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        port.attach(&pool).unwrap();
        drop(port);
        assert_home(&pool);
    }
    assert_no_violations(&world);
}

#[test]
fn nothing_flows_before_the_start_and_after_the_stop() {
    let world = world("nothing_flows");
    for part in PARTS {
        let id = options(part, 1).add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        let f = frame(port.mac(), PEER, 60, 1);
        assert!(!world.inject(id, &f));
        let Started { control, mut rx, mut tx } = port.start(&pool).unwrap();
        // Started, and no queue has armed its ring yet.
        assert!(!world.inject(id, &f));
        let mut cache = pool.cache();
        let mut burst = vfring::Burst::new();
        assert_eq!(rx[0].burst(&mut cache, &mut burst), 0);
        world.step();
        assert!(world.inject(id, &f));
        let port = control.stop(DEADLINE).unwrap();
        assert!(!world.inject(id, &f));
        assert_eq!(rx[0].burst(&mut cache, &mut burst), 0);
        burst.push(packet(&mut cache, &f, 2048)).unwrap();
        assert_eq!(tx[0].burst(&mut cache, &mut burst), 0);
        assert_eq!(burst.len(), 1, "a stopped queue leaves packets where they are");
        world.step();
        assert!(world.take_sent(id).is_empty());
        drop((rx, tx, cache, burst, port));
        assert_home(&pool);
    }
    assert_no_violations(&world);
}

#[test]
fn the_address_is_the_pfs_or_random_or_what_was_asked_for() {
    let world = world("the_address");
    for part in PARTS {
        // Given by the PF.
        let mut s = Station::new(&world, options(part, 5), PortConfig::new());
        assert_eq!((s.mac(), world.mac(s.id)), (mac(5), mac(5)));
        assert!(s.passes(mac(5), None) && !s.passes(mac(6), None));
        // Changed while it runs.
        s.control.set_mac(mac(6)).unwrap();
        assert_eq!((s.mac(), world.mac(s.id)), (mac(6), mac(6)));
        assert!(s.passes(mac(6), None) && !s.passes(mac(5), None));
        assert!(s.passes(MacAddr::BROADCAST, None));
        for bad in [MacAddr::ZERO, MacAddr::BROADCAST, "01:00:5e:00:00:01".parse().unwrap()] {
            let error = s.control.set_mac(bad).unwrap_err();
            assert!(one_line(&error).contains(&bad.to_string()), "{error}");
        }
        assert_eq!(s.mac(), mac(6));
        s.finish();

        // None assigned: a random one, which the PF filters by.
        let none = Vf { mac: None, ..options(part, 0) };
        let mut s = Station::new(&world, none.clone(), PortConfig::new());
        let own = s.mac();
        assert!(own.is_valid_station() && own.0[0] & 2 != 0, "{own} is locally administered");
        assert_eq!(world.mac(s.id), own);
        assert!(s.passes(own, None));
        let id = s.id;
        let pool = s.pool.clone();
        let port = s.stop().unwrap();
        let s = Station::start(&world, id, port, &pool);
        assert_eq!(s.mac(), own, "a port keeps its random address");
        s.finish();

        // Asked for.
        for options in [none, options(part, 5)] {
            let mut s = Station::new(&world, options, PortConfig::new().mac(mac(7)));
            assert_eq!((s.mac(), world.mac(s.id)), (mac(7), mac(7)));
            assert!(s.passes(mac(7), None) && !s.passes(mac(5), None));
            s.finish();
        }
    }
}

#[test]
fn an_address_that_the_host_fixed_stays() {
    let world = world("fixed_address");
    for part in PARTS {
        let fixed = Vf { mac_fixed: true, ..options(part, 5) };
        // Nobody asks for another, or for the same.
        for config in [PortConfig::new(), PortConfig::new().mac(mac(5))] {
            let mut s = Station::new(&world, fixed.clone(), config);
            assert_eq!(s.mac(), mac(5));
            assert!(s.passes(mac(5), None));
            let error = s.control.set_mac(mac(7)).unwrap_err();
            assert!(one_line(&error).contains("02:00:00:00:00:07"), "{error}");
            assert_eq!(s.mac(), mac(5));
            assert!(s.passes(mac(5), None) && !s.passes(mac(7), None));
            s.finish();
        }
        let id = fixed.add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new().mac(mac(7))).unwrap();
        let pool = pool_for(&port, 2048);
        let error = port.start(&pool).unwrap_err();
        let text = one_line(&error);
        assert!(text.contains("02:00:00:00:00:07") && text.contains("ip link set"), "{text}");
        assert_home(&pool);
        // The failed start has closed the port, not broken it.
        drop(Port::open(&world.spec(id), PortConfig::new()).unwrap());
    }
    assert_no_violations(&world);
}

#[test]
fn queues_are_counted_before_anything_starts() {
    let world = world("queues");
    for part in PARTS {
        let Facts { queues: (_, has), queues_known, .. } = *part.facts();
        let id = options(part, 1).add_to(&world);
        for (rx, tx) in [(2 * has, 1), (1, 2 * has), (0, 1), (1, 0), (u16::MAX, u16::MAX)] {
            let error = Port::open(&world.spec(id), PortConfig::new().queues(rx, tx)).unwrap_err();
            let text = one_line(&error);
            let wrong = if rx == 0 || rx > has { rx } else { tx };
            // What can never be is refused before the PF says what it grants.
            let granted = format!("has {}", if wrong == 2 * has { has.min(queues_known) } else { queues_known });
            assert!(text.contains(&wrong.to_string()) && text.contains(&granted), "{text}");
        }
        // A table that cannot be set spreads over a power of two.
        let counts = || (1..=has).filter(|&n| has <= 4 || [1, 3, has].contains(&n));
        for rx in counts().filter(|rx| part != Part::I82599 || rx.is_power_of_two()) {
            for tx in counts() {
                let mut s = Station::new(&world, options(part, 1), PortConfig::new().queues(rx, tx));
                assert_eq!((s.rx.len(), s.tx.len()), (rx as usize, tx as usize));
                for queue in 0..s.tx.len() {
                    assert_eq!(usize::from(s.tx[queue].number()), queue);
                    let f = frame(PEER, s.mac(), 100, queue as u64);
                    s.send_by(queue, std::slice::from_ref(&f), 1);
                    assert_eq!(world.take_sent(s.id), [f]);
                }
                assert!(s.passes(s.mac(), None));
                s.finish();
            }
        }
    }
    let id = options(Part::I82599, 1).add_to(&world);
    let text = one_line(&Port::open(&world.spec(id), PortConfig::new().queues(3, 3)).unwrap_err());
    assert!(text.contains("3 receive queues") && text.contains("power of two"), "{text}");
}

#[test]
fn both_queues_of_an_82576_receive() {
    let world = world("both_queues");
    let rss = Vf { rss: true, ..options(Part::I82576, 1) };
    let mut s = Station::new(&world, rss, PortConfig::new().queues(2, 2).rx_info(true).rings(256, 256));
    let mut sent = Vec::new();
    for flow in 0..64u16 {
        let builder = etherparse::PacketBuilder::ethernet2(PEER.0, s.mac().0)
            .ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64)
            .udp(1000 + flow, 2000);
        let mut f = Vec::new();
        builder.write(&mut f, &[0x5a; 40]).unwrap();
        assert!(world.inject(s.id, &f));
        sent.push(f);
    }
    let got = s.receive();
    let mut all: Vec<_> = got.iter().map(|p| p.bytes.clone()).collect();
    all.sort();
    sent.sort();
    assert_eq!(all, sent);
    for queue in [0, 1] {
        assert!(got.iter().filter(|p| p.queue == queue).count() > 10, "RSS spreads flows over both queues");
    }
    for p in &got {
        let hash = p.info.hash.expect("a hash with RSS");
        assert_eq!(hash % 2, u32::from(p.queue), "the hash decides the queue");
    }
    s.finish();
}

#[test]
fn rings_of_every_size_carry_traffic_around() {
    let world = world("rings");
    // The E810's rings are the same in any mode.
    for part in PARTS.into_iter().filter(|&part| part != Part::E810Qinq) {
        let (least, most, multiple) = part.facts().rings;
        let sizes = [32u16, 40, 56, 64, 72, 96, 104, 256, 520, 1000, 2016, 2040, 4088, most];
        let fits = |size: &u16| *size >= least && size.is_multiple_of(multiple);
        for (i, size) in sizes.into_iter().filter(fits).enumerate() {
            let config = PortConfig::new().rings(size, size);
            let mut s = Station::new(&world, options(part, 1), config);
            let frames: Vec<_> = (0..size as u64).map(|n| frame(s.mac(), PEER, 60 + n as usize % 7, n)).collect();
            // More than two laps, in pieces that do not divide the ring.
            let piece = size as usize * 4 / 5 - i;
            for _ in 0..3 {
                for f in &frames[..piece] {
                    assert!(world.inject(s.id, f), "a ring of {size} takes {piece} frames at a time");
                }
                assert!(s.receive_by(31).iter().map(|p| &p.bytes).eq(&frames[..piece]));
                s.send_by(0, &frames[..piece], 33);
                assert_eq!(world.take_sent(s.id), &frames[..piece]);
                s.assert_books(0);
            }
            s.finish();
        }
        let id = options(part, 1).add_to(&world);
        for size in [0, 8, 24, least - 1, least + 1, 100, 4092, most + 8, u16::MAX] {
            for config in [PortConfig::new().rings(size, 512), PortConfig::new().rings(512, size)] {
                let text = one_line(&Port::open(&world.spec(id), config).unwrap_err());
                assert!(text.contains(&format!(" {size} ")), "{text}");
                assert!(text.contains(&format!("{least} to {most} in multiples of {multiple}")), "{text}");
            }
        }
    }
}

#[test]
fn mtus_out_of_range_are_refused_with_the_range() {
    let world = world("mtus");
    let id = options(Part::I350, 1).add_to(&world);
    for mtu in [0, 67, 9217, u16::MAX] {
        let text = one_line(&Port::open(&world.spec(id), PortConfig::new().mtu(mtu)).unwrap_err());
        assert!(text.contains(&mtu.to_string()) && text.contains("68 to 9216"), "{text}");
    }
}

#[test]
fn many_ports_open_at_once_and_one_twice_is_refused() {
    let world = world("open_many");
    let ids: Vec<_> = (1..=6).map(|n| options(PARTS[n as usize], n).add_to(&world)).collect();
    let specs: Vec<_> = ids.iter().map(|&id| (world.spec(id), PortConfig::new())).collect();
    let ports = Port::open_many(&specs).unwrap();
    for (n, port) in ports.iter().enumerate() {
        assert_eq!((port.mac(), port.name()), (mac(n as u8 + 1), &*world.spec(ids[n]).to_string()));
    }
    let error = Port::open(&world.spec(ids[3]), PortConfig::new()).unwrap_err();
    assert!(one_line(&error).contains("already open"), "{error}");
    let error = Port::open_many(&specs[2..]).unwrap_err();
    assert!(one_line(&error).contains(&specs[2].0.to_string()), "the first error in order: {error}");
    drop(ports);
    // One bad configuration closes the others again.
    let mut mixed = specs.clone();
    mixed[4].1 = PortConfig::new().queues(17, 17);
    assert!(matches!(Port::open_many(&mixed), Err(Error::Config(_))));
    drop(Port::open_many(&specs).unwrap());
    assert_no_violations(&world);
}

#[test]
fn a_pool_that_is_too_small_is_refused_with_the_number() {
    let world = world("small_pool");
    for part in PARTS {
        let id = options(part, 1).add_to(&world);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let needed = port.buffers_needed();
        let pool = Mempool::builder().buffers(needed - 1).on(&[&port]).unwrap();
        let text = one_line(&port.start(&pool).unwrap_err());
        assert!(text.contains(&needed.to_string()) && text.contains("larger by 1"), "{text}");
        assert_home(&pool);
        // Exactly enough is enough.
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = Mempool::builder().buffers(needed).on(&[&port]).unwrap();
        let s = Station::start(&world, id, port, &pool);
        // What a started port counts on is not given away again.
        let other = options(part, 2).add_to(&world);
        let port = Port::open(&world.spec(other), PortConfig::new()).unwrap();
        let text = one_line(&port.start(&pool).unwrap_err());
        assert!(text.contains("has 0 to give"), "{text}");
        s.finish();
    }
    assert_no_violations(&world);
}

#[test]
fn buffers_too_small_to_receive_in_are_refused() {
    let world = world("small_buffers");
    let id = options(Part::I82576, 1).add_to(&world);
    let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
    let pool = pool_for(&port, 1000);
    let text = one_line(&port.start(&pool).unwrap_err());
    assert!(text.contains("1024") && text.contains("1000"), "{text}");
    assert_no_violations(&world);
}
