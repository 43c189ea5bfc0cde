//! A reset of the PF, and the end of the device, at every single register access of every operation.

use std::time::Duration;

use super::resets::{assert_passes, recover};
use vfring::drivers::sim::{Fault, PortId, World};

use vfring::{Error, Port, PortConfig, PortState, Result};
use vfring_tests::bed::*;

/// Longest that an operation may take: two handshakes of 2 s (igbvf 3.1), with settings in between; an iavf VF's two resets
/// of 2 s and two answers (iavf 4.1, 6.3).
const LONGEST: Duration = Duration::from_secs(9);

type Strike = fn(u64) -> Fault;
const STRIKES: [Strike; 2] = [Fault::PfResetAtAccess, Fault::AllOnesFromAccess];

fn config(part: Part) -> PortConfig {
    let queues = part.facts().queues.0.min(2);
    PortConfig::new().queues(queues, queues).rings(64, 64).interrupts(true).mac(mac(3))
}

/// Runs an operation, and asserts that it took no longer than it may and that its error is one line.
fn timed<T>(world: &World, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = world.now();
    let result = act();
    let took = world.now() - before;
    assert!(took < LONGEST, "{took:?}");
    if let Err(error) = &result {
        one_line(error);
    }
    result
}

/// The device and its PF are well again.
fn heal(world: &World, id: PortId) {
    world.clear_faults(id);
    world.pf_reset_done(id);
    world.advance(Duration::from_millis(50));
}

/// Opens, starts, uses and closes the port, as if nothing had been.
fn assert_usable(world: &World, id: PortId, config: PortConfig) {
    let port = Port::open(&world.spec(id), config).expect("the VF is as good as new");
    let pool = pool_for(&port, 2048);
    let mut s = Station::start(world, id, port, &pool);
    assert_passes(&mut s);
    s.finish();
}

/// Where the operation begins and ends among what else a test does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Begins,
    Ends,
}

/// Most strikes of a kind at one operation. An ixgbe VF's reset visits eight queues, most of the time to no purpose; an iavf
/// VF's masks as many vectors, and polls for every answer.
fn most_strikes(part: Part) -> u64 {
    match part.facts().family {
        "igbvf" => u64::MAX,
        "ixgbevf" => 150,
        _ => 8,
    }
}

/// For each part and strike: counts the accesses of `operation` in peace, then calls it with a strike at each, or at one in
/// so many that they do not take all day.
fn at_every_access(name: &str, operation: impl Fn(&World, PortId, PortConfig, &dyn Fn(Mark)) -> bool) {
    let seed = seed(name);
    for part in [Part::I82576, Part::I350, Part::X550, Part::E810] {
        for strike in STRIKES {
            let span = std::cell::Cell::new((0, 0));
            let world = World::stepped(seed);
            let id = options(part, 1).add_to(&world);
            let note = |mark| match mark {
                Mark::Begins => span.set((world.accesses(id), 0)),
                Mark::Ends => span.set((span.get().0, world.accesses(id))),
            };
            assert!(operation(&world, id, config(part), &note), "in peace");
            let accesses = span.get().1 - span.get().0;
            assert!(accesses > 5, "{accesses}");
            let mut ended_well = 0;
            let step = (accesses / most_strikes(part)).max(1);
            for k in (1..=accesses + 1).step_by(step as usize) {
                let world = World::stepped(seed);
                let id = options(part, 1).add_to(&world);
                print!("{part:?} {:?}; ", strike(k));
                let arm = |mark| {
                    if mark == Mark::Begins {
                        world.set_fault(id, strike(k));
                    }
                };
                ended_well += u64::from(operation(&world, id, config(part), &arm));
                heal(&world, id);
                assert_usable(&world, id, config(part));
            }
            println!("{part:?} {:?}: {accesses} accesses, {ended_well} ended well", strike(1));
        }
    }
}

#[test]
fn an_open_ends_well_or_in_an_error() {
    at_every_access("open", |world, id, config, mark| {
        mark(Mark::Begins);
        let opened = timed(world, || Port::open(&world.spec(id), config));
        mark(Mark::Ends);
        opened.is_ok()
    });
}

#[test]
fn a_start_ends_well_or_in_an_error() {
    at_every_access("start", |world, id, config, mark| {
        let port = Port::open(&world.spec(id), config).unwrap();
        let pool = pool_for(&port, 2048);
        mark(Mark::Begins);
        let started = timed(world, || Station::try_start(world, id, port, &pool));
        mark(Mark::Ends);
        let well = match started {
            Ok(mut s) => {
                // Started, and struck down at once: it recovers, or it is dead and says so.
                s.run(40);
                if s.control.state() == PortState::Running {
                    recover(&mut s);
                    assert_passes(&mut s);
                    s.assert_books(0);
                    s.stop().unwrap();
                    true
                } else {
                    assert_eq!(s.control.state(), PortState::Dead);
                    assert!(matches!(timed(world, || s.stop()), Err(Error::Gone { .. })));
                    false
                }
            }
            Err(_) => false,
        };
        assert_home(&pool);
        assert_no_violations(world);
        well
    });
}

#[test]
fn a_stop_ends_well_or_in_an_error_and_buffers_come_home() {
    at_every_access("stop", |world, id, config, mark| {
        let port = Port::open(&world.spec(id), config).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(world, id, port, &pool);
        // Traffic in both directions, not fetched and not reclaimed.
        s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 10], 32);
        for n in 0..10 {
            assert!(world.inject(id, &frame(s.mac(), PEER, 60, n)));
        }
        mark(Mark::Begins);
        let well = timed(world, || s.stop()).is_ok();
        mark(Mark::Ends);
        assert_home(&pool);
        assert_no_violations(world);
        well
    });
}

#[test]
fn a_recovery_is_tried_until_it_succeeds_or_the_device_is_gone() {
    at_every_access("recovery", |world, id, config, mark| {
        let port = Port::open(&world.spec(id), config).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(world, id, port, &pool);
        s.control.add_vlan(9).unwrap();
        world.pf_reset(id);
        s.control.service();
        s.poll();
        world.pf_reset_done(id);
        mark(Mark::Begins);
        while timed(world, || Ok(s.control.service())).unwrap() == PortState::Resetting {
            s.poll();
            world.advance(Duration::from_millis(5));
        }
        mark(Mark::Ends);
        s.run(40);
        let well = match s.control.state() {
            PortState::Running => {
                recover(&mut s);
                assert_passes(&mut s);
                let own = s.mac();
                assert!(s.passes(own, Some(9)) && own == mac(3));
                assert!(s.stats().recoveries >= 1);
                s.stop().unwrap();
                true
            }
            state => {
                assert_eq!(state, PortState::Dead);
                assert!(s.control.waiting_for().is_empty());
                assert!(matches!(timed(world, || s.stop()), Err(Error::Gone { .. })));
                false
            }
        };
        assert_home(&pool);
        assert_no_violations(world);
        well
    });
}

#[test]
fn a_setting_is_in_force_after_success_and_not_after_an_error() {
    at_every_access("settings", |world, id, config, mark| {
        let port = Port::open(&world.spec(id), config).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(world, id, port, &pool);
        // Without any VLAN filter some parts hear every VLAN.
        let own = s.mac();
        let hears_all = s.passes(own, Some(9));
        mark(Mark::Begins);
        let set = timed(world, || s.control.add_vlan(9));
        let moved = timed(world, || s.control.set_mac(mac(7)));
        mark(Mark::Ends);
        s.run(40);
        let well = if s.control.state() == PortState::Running {
            recover(&mut s);
            let own = s.mac();
            assert_eq!(own, if moved.is_ok() { mac(7) } else { mac(3) });
            assert_eq!((s.passes(own, Some(9)), s.passes(own, None)), (hears_all || set.is_ok(), true));
            s.stop().unwrap();
            set.is_ok()
        } else {
            assert_eq!(s.control.state(), PortState::Dead);
            assert!(timed(world, || s.stop()).is_err());
            false
        };
        assert_home(&pool);
        assert_no_violations(world);
        well
    });
}

#[test]
fn a_device_that_is_gone_in_mid_traffic_leaves_a_dead_port() {
    let world = world("gone");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        s.send_by(0, &vec![frame(PEER, s.mac(), 60, 1); 10], 32);
        assert!(world.inject(s.id, &frame(s.mac(), PEER, 60, 1)));
        let before = s.stats().device;
        world.set_fault(s.id, Fault::AllOnesFromAccess(1));
        assert_eq!(s.control.service(), PortState::Dead);
        let mut burst = vfring::Burst::new();
        assert_eq!(s.rx[0].burst(&mut s.cache, &mut burst), 0);
        burst.push(s.packet(&[1; 60])).unwrap();
        assert_eq!(s.tx[0].burst(&mut s.cache, &mut burst), 0);
        s.cache.free(&mut burst);
        // Dead is for good, also when the device seems to be back.
        world.clear_faults(s.id);
        assert_eq!(s.control.service(), PortState::Dead);
        assert_eq!(s.stats().device, before, "no counter of all ones");
        let text = one_line(&s.control.set_mac(mac(2)).unwrap_err());
        assert!(text.contains("Dead"), "{text}");
        let (id, pool) = (s.id, s.pool.clone());
        // The function itself can still be reset, so the port can be used again.
        let port = s.stop().unwrap();
        assert_home(&pool);
        let mut s = Station::start(&world, id, port, &pool);
        assert_passes(&mut s);
        s.finish();
    }
}
