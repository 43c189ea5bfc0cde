//! The PF resets while packets flow: the port finds out, waits for its queues, shakes hands again, restores everything,
//! and the program keeps its queues.

use std::time::Duration;

use vfring::drivers::sim::{Fault, World};

use vfring::{Burst, MacAddr, PortConfig, PortState};
use vfring_tests::bed::*;

/// Services and polls until the port runs again.
pub(crate) fn recover(s: &mut Station) {
    s.recover(Duration::from_secs(2));
}

/// Packets pass in both directions.
pub(crate) fn assert_passes(s: &mut Station) {
    let own = s.mac();
    s.world.advance(Duration::from_millis(1));
    s.world.take_sent(s.id);
    assert!(s.passes(own, None), "a frame for the port");
    let f = frame(PEER, own, 100, 1);
    for queue in 0..s.tx.len() {
        s.send_by(queue, std::slice::from_ref(&f), 1);
        s.world.advance(Duration::from_millis(1));
        assert_eq!(s.world.take_sent(s.id), std::slice::from_ref(&f));
    }
}

/// The ways in which a PF loses a VF.
pub(crate) fn lose(world: &World, s: &Station, how: usize) {
    match how {
        // RSTI is seen, and RSTD later.
        0 => {
            world.pf_reset(s.id);
        }
        // It is over before anybody looks.
        1 => {
            world.pf_reset(s.id);
            world.pf_reset_done(s.id);
        }
        // The function was reset behind the driver's back.
        _ => world.set_fault(s.id, Fault::ConfigLost),
    }
}

fn group(n: u8) -> MacAddr {
    MacAddr([0x01, 0, 0x5e, 0, 0, n])
}

/// What the PF lets through.
fn filters(s: &mut Station) -> Vec<bool> {
    let own = s.mac();
    let mut passes = Vec::new();
    for vid in [None, Some(5), Some(6), Some(7)] {
        passes.push(s.passes(own, vid));
    }
    for to in [mac(1), mac(2), mac(0x41), mac(0x42), mac(0x43), group(1), group(2), group(3), MacAddr::BROADCAST] {
        passes.push(s.passes(to, None));
    }
    for len in [1514, 1522, 4026, 4027, 9000] {
        passes.push(s.deliver(&frame(own, PEER, len, 1)).is_some());
    }
    passes
}

#[test]
fn everything_that_was_asked_for_is_in_force_after_a_reset() {
    let world = world("restored");
    for part in PARTS {
        for all_multicast in [false, true] {
            let trusted = Vf { trusted: true, ..options(part, 1) };
            let mut s = Station::new(&world, trusted, PortConfig::new().mtu(4000).rx_info(true));
            s.control.set_mac(mac(2)).unwrap();
            s.control.add_vlan(5).unwrap();
            s.control.add_vlan(6).unwrap();
            s.control.add_vlan(7).unwrap();
            s.control.remove_vlan(6).unwrap();
            s.control.set_unicast(&[mac(0x41), mac(0x42)]).unwrap();
            s.control.set_multicast(&[group(1), group(2)]).unwrap();
            s.control.set_promiscuous(false, all_multicast).unwrap();
            let before = filters(&mut s);
            let expected = [true, true, false, true, false, true, true, true, false, true, true, all_multicast, true];
            assert_eq!(before[..13], expected);
            // With VLANs an igb PF allows for one more tag; on ixgbe the port's limit is as high as somebody raised it.
            if part.facts().own_frame_limit {
                assert_eq!(before[13..], [true, true, part.is_igb(), false, false]);
            }
            for how in 0..3 {
                lose(&world, &s, how);
                s.control.service();
                world.pf_reset_done(s.id);
                recover(&mut s);
                world.clear_faults(s.id);
                assert_eq!(s.mac(), mac(2));
                assert_eq!(filters(&mut s), before, "after a loss of kind {how}");
                assert_eq!(s.stats().recoveries, how as u64 + 1);
                // Tags are stripped as before.
                let mut tagged = frame(s.mac(), PEER, 60, 1);
                tagged.splice(12..12, [0x81, 0, 0, 5]);
                assert_eq!(s.deliver(&tagged).unwrap().info.vlan_tci, Some(5));
            }
            s.finish();
        }
    }
}

#[test]
fn a_refused_or_random_address_survives_a_reset() {
    let world = world("address_survives");
    for part in PARTS {
        for options in
            [Vf { mac: None, ..options(part, 0) }, Vf { mac_fixed: true, ..options(part, 9) }, options(part, 8)]
        {
            let mut s = Station::new(&world, options, PortConfig::new());
            let own = s.mac();
            for how in 0..3 {
                lose(&world, &s, how);
                s.control.service();
                world.pf_reset_done(s.id);
                recover(&mut s);
                assert_eq!((s.mac(), world.mac(s.id)), (own, own));
                assert_passes(&mut s);
            }
            s.finish();
        }
    }
}

#[test]
fn a_program_keeps_its_queues_through_resets_in_mid_traffic() {
    let seed = seed("mid_traffic");
    let mut rng = Rng(seed);
    for part in PARTS {
        let world = World::stepped(seed);
        let queues = part.facts().queues.0;
        let config = PortConfig::new().queues(queues, queues).rings(64, 64).mtu(4000).interrupts(rng.below(2) == 0);
        let mut s = Station::new(&world, Vf { rss: true, ..options(part, 1) }, config);
        let mut burst = Burst::with_limit(40).unwrap();
        let (mut resets, mut pending) = (0, None);
        for n in 0..20_000u64 {
            match rng.below(200) {
                0 if pending.is_none() => {
                    let how = rng.below(3) as usize;
                    lose(&world, &s, how);
                    // The others are over as soon as they happen.
                    pending = (how == 0).then(|| n + rng.below(300));
                    resets += 1;
                }
                1..30 => drop(s.control.service()),
                30..60 => {
                    world.advance(Duration::from_micros(rng.below(2000)));
                }
                60..120 => {
                    let f = frame(s.mac(), PEER, 60 + rng.below(3000) as usize, n);
                    world.inject(s.id, &f);
                }
                120..160 => {
                    let queue = rng.below(queues.into()) as usize;
                    let got = s.rx[queue].burst(&mut s.cache, &mut burst);
                    for p in burst.iter().rev().take(got) {
                        assert_eq!(p[..6], s.mac().0, "a frame of nobody's");
                    }
                }
                _ => {
                    let queue = rng.below(queues.into()) as usize;
                    if rng.below(3) == 0 && !burst.is_full() {
                        let f = frame(PEER, s.mac(), 60 + rng.below(3000) as usize, n);
                        let packet = s.packet(&f);
                        burst.push(packet).unwrap();
                    }
                    s.tx[queue].burst(&mut s.cache, &mut burst);
                    if rng.below(10) == 0 {
                        s.cache.free(&mut burst);
                    }
                }
            }
            if pending.is_some_and(|at| at <= n) {
                world.pf_reset_done(s.id);
                pending = None;
            }
            if n % 50 == 0 {
                let held = burst.iter().map(|p| p.segment_count()).sum();
                s.assert_books(held);
                assert_no_violations(&world);
            }
        }
        s.cache.free(&mut burst);
        if pending.is_some() {
            world.pf_reset_done(s.id);
        }
        recover(&mut s);
        world.take_sent(s.id);
        s.receive();
        assert_passes(&mut s);
        assert!(resets > 20, "{resets}");
        let recoveries = s.stats().recoveries;
        assert!(recoveries > 10 && recoveries <= resets, "{recoveries} of {resets}");
        s.finish();
    }
}

#[test]
fn queues_rest_from_the_first_sign_until_the_pf_is_back() {
    let world = world("rest");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let f = frame(PEER, s.mac(), 60, 1);
        world.pf_reset(s.id);
        assert_eq!(s.control.service(), PortState::Resetting);
        assert_eq!(s.control.waiting_for().len(), 2);
        // Both let go, and touch nothing after that.
        let mut burst = Burst::new();
        burst.push(s.packet(&f)).unwrap();
        for _ in 0..100 {
            assert_eq!(s.rx[0].burst(&mut s.cache, &mut burst), 0);
            assert_eq!(s.tx[0].burst(&mut s.cache, &mut burst), 0);
            world.step();
        }
        assert!(s.control.waiting_for().is_empty());
        assert_eq!(burst.len(), 1, "what could not be sent stays with the program");
        for _ in 0..50 {
            assert_eq!(s.control.service(), PortState::Resetting, "the PF is not back");
            world.advance(Duration::from_millis(100));
            assert_eq!(s.rx[0].burst(&mut s.cache, &mut burst) + s.tx[0].burst(&mut s.cache, &mut burst), 0);
        }
        // Settings cannot change meanwhile, and say so.
        let text = one_line(&s.control.add_vlan(3).unwrap_err());
        assert!(text.contains("Resetting"), "{text}");
        world.pf_reset_done(s.id);
        world.step();
        assert_eq!(s.control.service(), PortState::Running);
        assert_eq!(s.tx[0].burst(&mut s.cache, &mut burst), 1);
        world.step();
        assert_eq!(world.take_sent(s.id), [f]);
        s.poll();
        assert_passes(&mut s);
        s.finish();
    }
}

#[test]
fn a_port_is_stopped_while_the_pf_resets() {
    let world = world("stop_in_reset");
    for part in PARTS {
        for (seen, back) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new());
            s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 20], 32);
            world.pf_reset(s.id);
            if seen {
                s.control.service();
            }
            if back {
                world.pf_reset_done(s.id);
            }
            let (pool, id) = (s.pool.clone(), s.id);
            match s.stop() {
                Ok(port) => {
                    let mut s = Station::start(&world, id, port, &pool);
                    assert_passes(&mut s);
                    s.finish();
                }
                Err(error) => {
                    assert!(!back, "{error}");
                    assert!(one_line(&error).contains("PF"), "{error}");
                }
            }
            assert_home(&pool);
            assert_no_violations(&world);
        }
    }
}

#[test]
fn a_pf_that_resets_while_the_port_is_idle_costs_nothing() {
    let world = world("idle_reset");
    for part in PARTS {
        for how in 0..3 {
            let s = Station::new(&world, options(part, 1), PortConfig::new());
            let (id, pool) = (s.id, s.pool.clone());
            let port = s.stop().unwrap();
            match how {
                0 => {
                    world.pf_reset(id);
                    world.pf_reset_done(id);
                    world.step();
                }
                1 => {
                    world.pf_reset(id);
                    world.step();
                    world.pf_reset_done(id);
                    world.advance(Duration::from_secs(3));
                }
                _ => world.set_fault(id, Fault::ConfigLost),
            }
            let mut s = Station::start(&world, id, port, &pool);
            assert_passes(&mut s);
            s.finish();
        }
    }
}

#[test]
fn counters_only_grow_over_resets() {
    let world = world("growing");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let mut last = s.stats().device;
        for lap in 0..6 {
            for n in 0..10 {
                s.deliver(&frame(s.mac(), PEER, 60, n)).unwrap();
            }
            let now = s.stats().device;
            assert_eq!(now.rx_packets, last.rx_packets + 10);
            assert_eq!(now.rx_octets, last.rx_octets + 640);
            lose(&world, &s, lap % 3);
            // The registers start over or not, as the part likes; either way a total never jumps.
            world.preset_counters(s.id, if lap % 2 == 0 { 0 } else { u32::MAX });
            s.control.service();
            assert_eq!(s.stats().device, now);
            world.pf_reset_done(s.id);
            recover(&mut s);
            last = s.stats().device;
            assert_eq!(last, now);
        }
        s.finish();
    }
}

#[test]
fn offload_contexts_are_loaded_anew_after_a_reset() {
    let world = world("contexts_lost");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().tx_offloads(true));
        let f = frame(PEER, s.mac(), 60, 1);
        let mut expected = f.clone();
        expected.splice(12..12, [0x81, 0, 0, 9]);
        let tagged = vfring::TxInfo { vlan_tci: Some(9), ..Default::default() };
        for how in 0..3 {
            for _ in 0..3 {
                assert_eq!(s.send_with(&f, tagged), std::slice::from_ref(&expected));
            }
            lose(&world, &s, how);
            s.control.service();
            world.pf_reset_done(s.id);
            recover(&mut s);
        }
        assert_eq!(s.send_with(&f, tagged), [expected]);
        s.finish();
    }
}
