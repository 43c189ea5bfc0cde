//! Resets of the PF, a link that goes, a function that the host resets, and a server that dies.

use std::time::{Duration, Instant};

use vfring::{Burst, DeviceSpec, MacAddr, Port, PortConfig, PortState, Started};
use vfring_tests::bed::{PEER, assert_home, frame, one_line, packet, pool_for};

use crate::bed::*;
use crate::proxy::Proxy;

/// Looks after the port until `done`.
fn until(what: &str, live: &mut Live, mut done: impl FnMut(&mut Live) -> bool) {
    eventually(what, || {
        live.control.service();
        live.poll();
        live.reclaim();
        done(live).then_some(())
    });
}

#[test]
fn a_pf_reset_is_recovered_from_with_everything_that_was_set() {
    for model in MODELS {
        let mut served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new()));
        let group = MacAddr([0x01, 0, 0x5e, 0, 0, 9]);
        live.control.set_multicast(&[group]).unwrap();
        for round in 1..=3 {
            served.ask("pf-reset 20ms");
            until("a recovery", &mut live, |live| live.control.stats().recoveries == round);
            live.runs();
            assert!(live.passes(&served, &frame(group, PEER, 60, round)), "{model:?}");
            let f = frame(PEER, live.mac(), 200, round);
            assert_eq!(live.send(&served, std::slice::from_ref(&f)), [f]);
        }
        live.stop();
        served.check();
    }
}

#[test]
fn what_the_host_takes_is_set_again() {
    for model in MODELS {
        let mut served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new()));
        served.ask("fault config-lost");
        until("a recovery", &mut live, |live| live.control.stats().recoveries == 1);
        live.runs();
        assert!(!live.passes(&served, &frame(MacAddr([2; 6]), PEER, 60, 1)), "{model:?}");
        live.stop();
        served.check();
    }
}

#[test]
fn the_link_is_followed() {
    for model in MODELS {
        let mut served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new()));
        for _ in 0..3 {
            served.ask("link down");
            until("a link that is down", &mut live, |live| !live.control.link().up);
            served.ask("link up");
            live.runs();
        }
        let f = frame(live.mac(), PEER, 60, 1);
        served.inject(&f);
        assert_eq!(live.receive(1), [f]);
        live.stop();
        served.check();
    }
}

#[test]
fn a_server_that_is_killed_leaves_a_dead_port_and_every_buffer() {
    for model in MODELS {
        let served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new()));
        served.server.signal(libc::SIGKILL).unwrap();
        let begun = Instant::now();
        until("a dead port", &mut live, |live| live.control.state() == PortState::Dead);
        assert!(begun.elapsed() < Duration::from_secs(5), "a closed socket is no matter of waiting");
        assert!(live.poll().is_empty());
        let Live { pool, control, rx, tx, cache } = live;
        drop((rx, tx, cache));
        let _ = control.stop(PATIENCE);
        assert_home(&pool);
        // Once the system has taken the process apart, nobody listens.
        eventually("an error that says what to do", || {
            let text = one_line(&Port::open(&served.spec, PortConfig::new()).unwrap_err());
            text.contains("vfring sim serve").then_some(())
        });
    }
}

#[test]
fn a_server_that_says_nothing_any_more_is_given_up_after_the_deadline() {
    let served = Served::start(MODELS[0]);
    let mut live = Live::start(served.open(PortConfig::new()));
    served.server.signal(libc::SIGSTOP).unwrap();
    let begun = Instant::now();
    until("a dead port", &mut live, |live| live.control.state() == PortState::Dead);
    // The deadline of a reply is 5 s; nothing is asked a second time.
    assert!(begun.elapsed() > Duration::from_secs(4) && begun.elapsed() < Duration::from_secs(15));
    let Live { pool, control, rx, tx, cache } = live;
    drop((rx, tx, cache));
    assert!(control.stop(PATIENCE).is_err());
    // It may go on, and write to the buffers that it was given: they are not used again.
    assert!(pool.available() < pool.capacity());
}

/// A port's life, as far as it gets; every error is one line, and every buffer comes home.
fn life(spec: &DeviceSpec) -> vfring::Result<()> {
    let port = Port::open(spec, PortConfig::new().interrupts(true))?;
    let pool = pool_for(&port, 2048);
    let lived = (|| {
        let Started { mut control, mut rx, mut tx } = port.start(&pool)?;
        let mut cache = pool.cache();
        let work = (|| {
            control.set_multicast(&[MacAddr([0x01, 0, 0x5e, 0, 0, 9])])?;
            control.add_vlan(100)?;
            rx[0].rearm();
            for n in 0..3 {
                let mut burst = Burst::new();
                burst.push(packet(&mut cache, &frame(PEER, control.mac(), 60, n), 2048)).expect("room");
                rx[0].burst(&mut cache, &mut Burst::new());
                tx[0].burst(&mut cache, &mut burst);
                control.service();
                control.stats();
            }
            Ok(())
        })();
        drop((rx, tx, cache));
        let stopped = control.stop(PATIENCE).map(drop);
        work.and(stopped)
    })();
    assert_home(&pool);
    lived
}

#[test]
fn a_server_that_closes_at_any_message_is_survived() {
    /// Each model takes every so-manieth message, and all of them together about all.
    const STRIDE: usize = MODELS.len();
    // Side by side: each life is mostly waiting.
    std::thread::scope(|scope| {
        for (first, model) in MODELS.into_iter().enumerate() {
            scope.spawn(move || {
                let mut served = Served::start(model);
                let (mut failed, begun) = (0, Instant::now());
                for limit in (first..).step_by(STRIDE) {
                    let begun = Instant::now();
                    let proxy = Proxy::start(served.socket(), limit);
                    let lived = life(&proxy.spec());
                    let relayed = proxy.relayed();
                    assert!(begun.elapsed() < PATIENCE / 3, "{model:?}: closed at message {limit}");
                    if let Err(error) = &lived {
                        one_line(error);
                        failed += 1;
                    }
                    if relayed < limit {
                        assert!(lived.is_ok(), "{model:?}: {lived:?}");
                        assert!(failed > 5, "{model:?}: {failed} of {limit} lives failed");
                        break;
                    }
                }
                println!("{model:?}: {failed} lives failed in {:?}", begun.elapsed());
                served.check();
            });
        }
    });
}

#[test]
fn a_model_that_is_gone_is_dead_and_may_come_back_for_another_client() {
    let mut served = Served::start(MODELS[0]);
    let mut live = Live::start(served.open(PortConfig::new()));
    served.ask("fault all-ones-from-access 5");
    until("a dead port", &mut live, |live| live.control.state() == PortState::Dead);
    let Live { pool, control, rx, tx, cache } = live;
    drop((rx, tx, cache));
    drop(control.stop(PATIENCE));
    assert_home(&pool);
    served.ask("clear");
    Live::start(served.open(PortConfig::new())).stop();
}
