//! What is particular to adaptive VFs, behind an i40e and an ice PF: both receive formats, queues asked for, completions
//! that need a vector, resets that the PF announces.

use std::time::Duration;

use vfring::PortConfig;
use vfring::drivers::sim::{AvfOptions, AvfPart, Fault, World};
use vfring_tests::bed::*;

/// Both PFs, and the forms of an ice PF that change formats and messages.
fn forms(last: u8) -> [AvfOptions; 5] {
    let of = |part| AvfOptions { mac: Some(mac(last)), ..AvfOptions::new(part) };
    let e810 = || AvfOptions { batched: true, ..of(AvfPart::E810) };
    [
        of(AvfPart::Xl710),
        of(AvfPart::X722),
        e810(),
        AvfOptions { double_vlan: true, large_queues: true, ..e810() },
        // RXDID 22 is not offered: legacy descriptors.
        AvfOptions { rxdids: 0b10, ..e810() },
    ]
}

fn station(world: &World, options: AvfOptions, config: PortConfig) -> Station {
    let id = world.add_iavf(options);
    let port = vfring::Port::open(&world.spec(id), config).expect("open");
    let pool = pool_for(&port, 2048);
    Station::start(world, id, port, &pool)
}

#[test]
fn frames_pass_both_ways_behind_every_pf() {
    let world = world("avf_frames");
    for options in forms(1) {
        let mut s = station(&world, options, PortConfig::new().rings(64, 64));
        let own = s.mac();
        for round in 0..40 {
            for len in [60, 61, 300, 1514] {
                let bytes = frame(own, PEER, len, round);
                assert_eq!(s.deliver(&bytes).expect("a frame").bytes, bytes);
            }
            let frames: Vec<Vec<u8>> = (0..20).map(|n| frame(PEER, own, 60 + 50 * n as usize, n)).collect();
            s.send_by(0, &frames, 7);
            assert_eq!(world.take_sent(s.id), frames);
        }
        s.finish();
    }
}

#[test]
fn buffers_that_the_longest_frames_would_not_fit_are_refused() {
    let world = world("avf_buffers");
    for options in forms(1) {
        // Five buffers for a frame: of 1024 bytes for 5120.
        for (mtu, room, needed) in [(5098, 1024, None), (5099, 1024, Some("1152")), (9000, 1919, Some("1920"))] {
            let id = world.add_iavf(options.clone());
            let port = vfring::Port::open(&world.spec(id), PortConfig::new().mtu(mtu)).expect("open");
            let pool = pool_for(&port, room);
            match (Station::try_start(&world, id, port, &pool), needed) {
                (Ok(mut s), None) => {
                    let longest = frame(s.mac(), PEER, usize::from(mtu) + 22, 1);
                    assert_eq!(s.deliver(&longest).expect("the longest frame").segments, 5);
                    s.finish();
                }
                (Err(error), Some(needed)) => {
                    let text = one_line(&error);
                    assert!(
                        text.contains(&format!("data_room({needed})")) && text.contains(&mtu.to_string()),
                        "{text}"
                    );
                }
                (result, _) => panic!("MTU {mtu}, room {room}: {:?}", result.err()),
            }
            assert_home(&pool);
        }
    }
    assert_no_violations(&world);
}

#[test]
fn resets_of_every_kind_are_recovered_from() {
    let world = world("avf_resets");
    for options in forms(1) {
        let mut s = station(&world, options.clone(), PortConfig::new().queues(2, 2));
        for how in 0..6 {
            match how {
                0 | 1 => {
                    world.pf_reset(s.id);
                    if how == 1 {
                        world.pf_reset_done(s.id);
                    }
                }
                2 => world.set_fault(s.id, Fault::ConfigLost),
                3 => world.set_fault(s.id, Fault::PfResetFor(Duration::from_millis(400))),
                4 => world.set_fault(s.id, Fault::StaleEvents),
                _ => world.set_fault(s.id, Fault::FalseAlarm),
            }
            if how == 4 {
                world.pf_reset(s.id);
                world.pf_reset_done(s.id);
            }
            for _ in 0..50 {
                s.control.service();
                world.advance(Duration::from_millis(1));
            }
            world.pf_reset_done(s.id);
            s.recover(Duration::from_secs(5));
            let own = s.mac();
            assert!(s.passes(own, None), "{options:?}, {how}");
            world.take_sent(s.id);
            for queue in 0..2 {
                let frames = [frame(PEER, own, 100, how)];
                s.send_by(queue, &frames, 1);
                assert_eq!(world.take_sent(s.id), frames, "{options:?}, {how}");
            }
            world.clear_faults(s.id);
        }
        s.finish();
    }
}
