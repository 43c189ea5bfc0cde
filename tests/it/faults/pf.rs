//! A PF that refuses, forgets, lies, or does not answer.

use std::time::Duration;

use super::resets::{assert_passes, recover};
use vfring::drivers::sim::{Fault, World};
use vfring::{Port, PortConfig, PortState};
use vfring_tests::bed::*;

/// Faults under which the PF is of no use to this part's driver.
fn mute(part: Part) -> impl Iterator<Item = Fault> {
    use Fault::*;
    const MAILBOX: [Fault; 6] = [LoseReply, GarbageReply, StsWithoutMessage, RstiStuck, PfHoldsBuffer, LoseAck];
    let faults: &[Fault] = match part.facts().family {
        "igbvf" => &MAILBOX,
        // An ixgbe VF does not wait for an acknowledgement.
        "ixgbevf" => &MAILBOX[..5],
        // Admin queues have neither acknowledgement nor buffer, and garbage is an answer there.
        _ => &[LoseReply, RstiStuck],
    };
    faults.iter().copied()
}

/// A part of each kind of channel to the PF, and generation: silence is the same behind either PF of an iavf VF, and waiting
/// takes its time.
fn pfs() -> impl Iterator<Item = Part> {
    PARTS.into_iter().filter(|&part| !part.is_iavf() || part == Part::E810)
}

/// What one attempt to talk to the PF may take: a mailbox's acknowledgement, answer, and the pauses around them (igbvf 3.1,
/// 3.4); an iavf VF's reset, begun and ended, and an answer (iavf 4.1, 6.3).
fn attempt(part: Part) -> Duration {
    Duration::from_millis(if part.is_iavf() { 4200 } else { 2200 })
}

/// How long opening asks again before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn opening_waits_for_a_pf_that_is_being_reset() {
    let world = world("patient_open");
    for part in PARTS {
        for time in [1, 100, 2000].map(Duration::from_millis) {
            let id = options(part, 1).add_to(&world);
            world.set_fault(id, Fault::PfResetFor(time));
            let before = world.now();
            drop(Port::open(&world.spec(id), PortConfig::new()).unwrap());
            assert!(world.now() - before < time + attempt(part), "{time:?}: {:?}", world.now() - before);
        }
    }
    assert_no_violations(&world);
}

#[test]
fn a_pf_that_takes_its_time_is_waited_for() {
    use Fault::{LateNotice, LateReplies};
    let world = world("late");
    let ms = Duration::from_millis;
    for part in PARTS {
        let seconds = if part.is_iavf() { &[] } else { &[LateNotice(ms(20)), LateNotice(ms(900))][..] };
        for &fault in [LateReplies(ms(8)), LateReplies(ms(300))].iter().chain(seconds) {
            let id = options(part, 1).add_to(&world);
            world.set_fault(id, fault);
            let port =
                Port::open(&world.spec(id), PortConfig::new()).unwrap_or_else(|e| panic!("{part:?} {fault:?}: {e}"));
            assert_eq!(port.mac(), mac(1), "{part:?} {fault:?}");
            let pool = pool_for(&port, 2048);
            let mut s = Station::start(&world, id, port, &pool);
            assert_passes(&mut s);
            assert_eq!((s.control.state(), s.stats().recoveries), (PortState::Running, 0), "{part:?} {fault:?}");
            s.finish();
        }
    }
    assert_no_violations(&world);
}

#[test]
fn a_request_that_a_pf_destroys_when_it_notices_a_reset_is_made_again() {
    // Of the part whose PF clears the mailbox, at every time from before the request to long after it.
    for micros in (0..8000).step_by(100).chain([30_000, 200_000, 700_000]) {
        let world = world("late_notice");
        let id = options(Part::X550, 1).add_to(&world);
        let notice = Duration::from_micros(micros);
        world.set_fault(id, Fault::LateNotice(notice));
        let before = world.now();
        let port = Port::open(&world.spec(id), PortConfig::new()).expect("open");
        let took = world.now() - before;
        assert_eq!(port.mac(), mac(1));
        assert!(took < notice + Duration::from_millis(20), "{micros} us: {took:?}");
        drop(port);
        assert_no_violations(&world);
    }
}

#[test]
fn an_answer_that_was_given_up_is_not_taken_for_that_to_a_reset() {
    for part in PARTS.into_iter().filter(|part| !part.is_iavf()) {
        // From just before the deadline of the request to long after the reset that follows it.
        for late in (998_000..1_012_000).step_by(250).map(Duration::from_micros) {
            let world = world("given_up");
            let mut s = Station::new(&world, options(part, 1), PortConfig::new());
            world.set_fault(s.id, Fault::LateReplies(late));
            let set = s.control.add_vlan(5);
            world.clear_faults(s.id);
            if set.is_err() {
                recover(&mut s);
            }
            assert_passes(&mut s);
            let own = s.mac();
            assert_eq!(s.passes(own, Some(5)), set.is_ok(), "{part:?} {late:?}");
            s.finish();
        }
    }
}

#[test]
fn without_a_pf_nothing_opens_and_the_error_says_where_to_look() {
    let world = world("mute_open");
    for part in pfs() {
        for fault in mute(part) {
            let id = options(part, 1).add_to(&world);
            world.set_fault(id, fault);
            let before = world.now();
            let error = Port::open(&world.spec(id), PortConfig::new()).unwrap_err();
            let took = world.now() - before;
            assert!(PATIENCE <= took && took < PATIENCE + attempt(part), "{fault:?}: {took:?}");
            let text = one_line(&error);
            assert!(text.contains("PF") && text.contains(&world.spec(id).to_string()), "{fault:?}: {text}");
            world.clear_faults(id);
            drop(Port::open(&world.spec(id), PortConfig::new()).unwrap());
        }
    }
    assert_no_violations(&world);
}

#[test]
fn a_pf_that_falls_silent_before_the_start_fails_it() {
    let world = world("mute_start");
    for part in pfs() {
        for fault in mute(part) {
            let id = options(part, 1).add_to(&world);
            let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
            let pool = pool_for(&port, 2048);
            world.set_fault(id, fault);
            let before = world.now();
            match port.start(&pool) {
                // What only a reset shows is not in the way of a start.
                Ok(started) => {
                    assert_eq!(fault, Fault::RstiStuck);
                    drop(started);
                }
                Err(error) => drop(one_line(&error)),
            }
            // A request, a handshake, a request, and the reset of the port that is dropped.
            assert!(world.now() - before < 4 * attempt(part), "{fault:?}: {:?}", world.now() - before);
            assert_home(&pool);
            world.clear_faults(id);
            let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
            let mut s = Station::start(&world, id, port, &pool);
            assert_passes(&mut s);
            s.finish();
        }
    }
}

#[test]
fn a_pf_that_falls_silent_while_the_port_runs_is_waited_for() {
    let world = world("mute_running");
    for part in pfs() {
        for fault in mute(part) {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new());
            s.control.add_vlan(4).unwrap();
            world.set_fault(s.id, fault);
            let before = world.now();
            let set = s.control.add_vlan(5);
            assert!(world.now() - before < attempt(part), "{fault:?}");
            match &set {
                // Messages pass all the same.
                Ok(()) => assert!(part.is_iavf() && fault == Fault::RstiStuck, "{fault:?}"),
                Err(error) => drop(one_line(error)),
            }
            // Only a handshake helps, and it is tried until it succeeds.
            for _ in 0..5 {
                let before = world.now();
                assert_eq!(s.control.service(), PortState::Resetting, "{fault:?}");
                assert!(world.now() - before < attempt(part), "{fault:?}");
                s.poll();
                world.advance(Duration::from_millis(100));
            }
            world.clear_faults(s.id);
            recover(&mut s);
            assert_passes(&mut s);
            let own = s.mac();
            assert_eq!(s.passes(own, Some(5)), set.is_ok(), "{fault:?}");
            assert!(s.passes(own, Some(4)) && !s.passes(own, Some(6)), "{fault:?}: what was in force is, and no more");
            s.finish();
        }
    }
}

#[test]
fn a_port_stops_without_a_pf() {
    let world = world("mute_stop");
    for part in pfs() {
        for fault in mute(part) {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new());
            s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 10], 32);
            world.set_fault(s.id, fault);
            let (pool, id) = (s.pool.clone(), s.id);
            let before = world.now();
            let text = one_line(&s.stop().unwrap_err());
            assert!(text.contains("PF"), "{text}");
            assert!(world.now() - before < attempt(part) + DEADLINE, "{fault:?}");
            // The function is silent whatever the PF says.
            assert_home(&pool);
            world.clear_faults(id);
            let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
            let mut s = Station::start(&world, id, port, &pool);
            assert_passes(&mut s);
            s.finish();
        }
    }
}

#[test]
fn refusals_fail_what_asked_for_them_and_nothing_else() {
    let world = world("nack");
    for part in PARTS.into_iter().filter(|part| !part.is_iavf()) {
        // Reset, MAC, multicast, VLAN, frame size, promiscuity; on ixgbe the sixth is further addresses, and there are queues,
        // xcast mode and link state.
        let (messages, further, modes) = if part.is_igb() {
            (&[1u16, 2, 3, 4, 5, 6][..], 2, 6)
        } else {
            (&[1, 2, 3, 4, 5, 6, 9, 12, 16][..], 6, 12)
        };
        for &id_of_message in messages {
            let id = Vf { trusted: true, ..options(part, 1) }.add_to(&world);
            world.set_fault(id, Fault::NackRequest(id_of_message));
            let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
            let own = port.mac();
            assert!(own.is_valid_station());
            assert_eq!(own == mac(1), id_of_message != 1, "a reset that is refused assigns no address");
            let pool = pool_for(&port, 2048);
            match Station::try_start(&world, id, port, &pool) {
                Ok(mut s) => {
                    assert!(![3, 5].contains(&id_of_message));
                    assert_passes(&mut s);
                    let results = [
                        (2, s.control.set_mac(mac(2))),
                        (further, s.control.set_unicast(&[mac(3)])),
                        (3, s.control.set_multicast(&["01:00:5e:00:00:01".parse().unwrap()])),
                        (4, s.control.add_vlan(3)),
                        (4, s.control.remove_vlan(3)),
                        (modes, s.control.set_promiscuous(false, true)),
                    ];
                    for (message, result) in results {
                        assert_eq!(result.is_err(), message == id_of_message, "{message}: {result:?}");
                        if let Err(error) = result {
                            let text = one_line(&error);
                            assert!(text.contains("PF"), "{text}");
                        }
                    }
                    // A refusal is an answer: the port runs on.
                    s.run(3);
                    assert_eq!((s.control.state(), s.stats().recoveries), (PortState::Running, 0));
                    assert_passes(&mut s);
                    s.finish();
                }
                Err(error) => {
                    assert!([3, 5].contains(&id_of_message), "{error}");
                    let text = one_line(&error);
                    assert!(text.contains("PF"), "{text}");
                    assert_home(&pool);
                }
            }
            assert_no_violations(&world);
        }
    }
}

#[test]
fn refused_messages_of_virtchnl_fail_what_asked_for_them_and_nothing_else() {
    let world = world("nack_virtchnl");
    for part in PARTS.into_iter().filter(|part| part.is_iavf()) {
        let second = part == Part::E810Qinq;
        let v2 = part != Part::Xl710;
        // VERSION and GET_VF_RESOURCES; queues, vectors, RSS table, key and fields.
        let (to_open, to_start) = ([1, 3], [6, 7, if second { 107 } else { 8 }, 23, 24, 26]);
        let (add_vlan, del_vlan, strip, insert) = if v2 { (52, 53, 54, 56) } else { (12, 13, 27, 0) };
        // Filters; and what can be done without: deleting an address, statistics, capabilities, no stripping.
        let others = [10, 11, 14, 15, 25, 28, 44, 51, 55, add_vlan, del_vlan, strip, insert];
        for refused in to_open.into_iter().chain(to_start).chain(others) {
            let id = Vf { trusted: true, ..options(part, 1) }.add_to(&world);
            world.set_fault(id, Fault::NackRequest(refused));
            let says = |error: &vfring::Error| {
                let text = one_line(error);
                assert!(text.contains("the PF") && text.contains("status -5"), "{refused}: {text}");
            };
            let port = match Port::open(&world.spec(id), PortConfig::new()) {
                Ok(port) => port,
                Err(error) => {
                    assert!(to_open.contains(&refused), "{refused}: {error}");
                    says(&error);
                    continue;
                }
            };
            assert_eq!(port.mac(), mac(1));
            let pool = pool_for(&port, 2048);
            let mut s = match Station::try_start(&world, id, port, &pool) {
                Ok(s) => s,
                Err(error) => {
                    assert!(to_start.contains(&refused) || refused == insert, "{refused}: {error}");
                    says(&error);
                    assert_home(&pool);
                    continue;
                }
            };
            assert!(!to_start.contains(&refused), "{refused}");
            assert_passes(&mut s);
            // Without its capabilities there is no VLAN to ask for.
            let vlans = refused != 51 || !v2;
            let results = [
                (refused != 10, s.control.set_mac(mac(2))),
                (refused != 10, s.control.set_unicast(&[mac(3)])),
                (refused != 10, s.control.set_multicast(&["01:00:5e:00:00:01".parse().unwrap()])),
                (vlans && ![add_vlan, strip].contains(&refused), s.control.add_vlan(3)),
                (vlans && ![add_vlan, strip, del_vlan].contains(&refused), s.control.remove_vlan(3)),
                (refused != 14, s.control.set_promiscuous(false, true)),
            ];
            for (i, (expected, result)) in results.into_iter().enumerate() {
                // What was never added may be removed.
                assert!(result.is_ok() == expected || i == 4 && result.is_ok(), "{part:?} {refused}, {i}: {result:?}");
                if let Err(error) = result {
                    assert!(one_line(&error).contains("the PF"), "{error}");
                }
            }
            // A refusal is an answer: the port runs on.
            s.run(3);
            assert_eq!((s.control.state(), s.stats().recoveries), (PortState::Running, 0));
            assert_passes(&mut s);
            s.finish();
        }
    }
}

#[test]
fn garbage_of_a_pf_is_refused_at_once() {
    let world = world("garbage");
    for part in PARTS.into_iter().filter(|part| part.is_iavf()) {
        let id = options(part, 1).add_to(&world);
        world.set_fault(id, Fault::GarbageReply);
        let before = world.now();
        let text = one_line(&Port::open(&world.spec(id), PortConfig::new()).unwrap_err());
        assert!(text.contains("the PF speaks virtchnl 2779096485.2779096485"), "{text}");
        assert!(world.now() - before < attempt(part));
        world.clear_faults(id);
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(&world, id, port, &pool);
        assert_passes(&mut s);
        s.finish();
    }
}

#[test]
fn a_pf_that_forgets_the_vf_without_a_reset_is_noticed() {
    let world = world("forgotten");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        // No RSTI is ever seen: only the ping without CTS, at the time of an unrelated request.
        world.pf_reset(s.id);
        world.pf_reset_done(s.id);
        let error = s.control.add_vlan(3).unwrap_err();
        one_line(&error);
        assert_eq!(s.control.service(), PortState::Resetting);
        recover(&mut s);
        assert_passes(&mut s);
        s.control.add_vlan(3).unwrap();
        s.finish();
    }
}

#[test]
fn a_link_that_flaps_is_followed_and_is_no_reset() {
    let world = world("flaps");
    for part in PARTS {
        for period in [Duration::from_millis(2), Duration::from_micros(700)] {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new());
            world.set_fault(s.id, Fault::LinkFlaps(period));
            let (mut up, mut down) = (0, 0);
            for n in 0..300 {
                s.control.service();
                if s.control.link().up {
                    up += 1
                } else {
                    down += 1
                }
                s.send_by(0, &[frame(PEER, s.mac(), 60, n)], 1);
                world.inject(s.id, &frame(s.mac(), PEER, 60, n));
                s.receive();
                world.advance(Duration::from_micros(330));
            }
            assert!(up > 50 && down > 50, "{up} up, {down} down");
            world.clear_faults(s.id);
            world.link(s.id, true);
            s.run(2);
            assert_eq!(world.take_sent(s.id).len(), 300, "nothing that was sent is lost");
            assert_passes(&mut s);
            assert_eq!((s.control.state(), s.stats().recoveries), (PortState::Running, 0));
            s.finish();
        }
    }
}

#[test]
fn a_ping_over_the_answer_to_a_handshake_is_asked_around() {
    let seed = seed("ping_over_answer");
    for part in PARTS {
        // The link changes once, and the PF says so, at every time of the handshake.
        let second = Duration::from_secs(1);
        // An ixgbe VF then negotiates: a request whose answer a ping takes the place of is made again after its deadline, with
        // all the rest.
        let (step, most) = if part.is_igb() { (100, 40) } else { (150, 1200) };
        for micros in (0..step * 140).step_by(step as usize) {
            let world = World::stepped(seed);
            let id = options(part, 1).add_to(&world);
            world.set_fault(id, Fault::LinkFlaps(second));
            world.advance(second - Duration::from_micros(micros));
            let port = Port::open(&world.spec(id), PortConfig::new()).expect("open");
            assert_eq!(port.mac(), mac(1));
            assert!(world.now() < second + Duration::from_millis(most), "no second was waited for nothing");
            drop(port);
            assert_no_violations(&world);
        }
    }
}

#[test]
fn faults_add_up() {
    let world = world("add_up");
    for part in PARTS {
        let id = Vf { mac: None, ..options(part, 0) }.add_to(&world);
        for fault in [
            Fault::NackRequest(2),
            Fault::DelayCompletions(Duration::from_millis(1)),
            Fault::EnableStuck,
            Fault::LinkFlaps(Duration::from_millis(17)),
        ] {
            if part.facts().reset_stops_queues || fault != Fault::EnableStuck {
                world.set_fault(id, fault);
            }
        }
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(&world, id, port, &pool);
        for n in 0..100 {
            s.send_by(0, &[frame(PEER, s.mac(), 60, n)], 1);
            s.run(1);
        }
        let port = s.stop().unwrap();
        assert_home(&pool);
        drop(port);
    }
    assert_no_violations(&world);
}

#[test]
fn a_recovery_that_the_pf_stands_in_the_way_of_says_so() {
    let world = world("trouble");
    for part in PARTS {
        // Granted at the start, refused after the reset: the maximum frame, or the rings, which it is part of.
        let refused = Fault::NackRequest(if part.is_iavf() { 6 } else { 5 });
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        assert!(s.control.trouble().is_none());
        world.set_fault(s.id, refused);
        world.pf_reset(s.id);
        world.pf_reset_done(s.id);
        for _ in 0..20 {
            s.control.service();
            s.poll();
            world.advance(Duration::from_millis(100));
        }
        assert_eq!(s.control.state(), PortState::Resetting);
        let text = one_line(s.control.trouble().expect("a reason"));
        assert!(text.contains("PF") && text.contains(&world.spec(s.id).to_string()), "{text}");
        world.clear_faults(s.id);
        recover(&mut s);
        assert!(s.control.trouble().is_none());
        assert_passes(&mut s);
        s.finish();
    }
}
