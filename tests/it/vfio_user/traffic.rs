//! Opening, frames in both directions, filters, interrupts, and starting over.

use std::thread;
use std::time::{Duration, Instant};

use vfring::{Burst, MacAddr, PortConfig};
use vfring_tests::bed::{PEER, frame, mac, one_line};

use crate::bed::*;

/// Around every boundary of buffers and of the frame itself.
const SIZES: [usize; 12] = [60, 61, 64, 128, 1024, 1514, 1518, 2048, 2049, 4097, 9000, 9014];

#[test]
fn frames_of_every_size_pass_in_both_directions() {
    for model in MODELS {
        let mut served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new().mtu(9000)));
        assert_eq!(live.mac(), mac(OWN));
        let incoming: Vec<_> =
            SIZES.iter().enumerate().map(|(n, &len)| frame(live.mac(), PEER, len, n as u64)).collect();
        incoming.iter().for_each(|f| served.inject(f));
        assert!(live.receive(SIZES.len()) == incoming, "{model:?}");
        let outgoing: Vec<_> =
            SIZES.iter().enumerate().map(|(n, &len)| frame(PEER, live.mac(), len, n as u64)).collect();
        assert!(live.send(&served, &outgoing) == outgoing, "{model:?}");
        let stats = live.control.stats();
        assert_eq!((stats.rx[0].packets, stats.tx[0].packets), (SIZES.len() as u64, SIZES.len() as u64));
        // The PF of an iavf VF is asked for these, and may be late.
        eventually("the device's counters", || {
            let device = live.control.stats().device;
            ((device.rx_packets, device.tx_packets) == (SIZES.len() as u64, SIZES.len() as u64)).then_some(())
        });
        live.stop();
        served.check();
    }
}

#[test]
fn thousands_of_frames_arrive_once_and_in_order() {
    /// Frames under way: fewer than the receive ring and the socket hold.
    const WINDOW: usize = 64;
    for model in MODELS {
        let mut served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new()));
        let frames: Vec<_> = (0..3000).map(|n| frame(live.mac(), PEER, 60 + n % 1400, n as u64)).collect();
        for some in frames.chunks(WINDOW) {
            some.iter().for_each(|f| served.inject(f));
            assert!(live.receive(some.len()) == some, "{model:?}");
            assert!(live.send(&served, some) == some, "{model:?}");
        }
        live.stop();
        served.check();
    }
}

#[test]
fn the_pf_lets_through_what_was_asked_for() {
    for model in MODELS {
        let mut served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new()));
        let group = MacAddr([0x01, 0, 0x5e, 0, 0, 9]);
        let to_group = frame(group, PEER, 60, 1);
        let mut tagged = frame(live.mac(), PEER, 60, 2);
        tagged.splice(12..12, [0x81, 0x00, 0, 100]);
        let foreign = frame(mac(0x77), PEER, 60, 3);
        // Behind some PFs every tag passes until a VLAN was asked for.
        live.control.add_vlan(7).unwrap();
        for f in [&to_group, &tagged, &foreign] {
            assert!(!live.passes(&served, f), "{model:?}");
        }
        live.control.set_multicast(&[group]).unwrap();
        live.control.add_vlan(100).unwrap();
        assert!(live.passes(&served, &to_group) && live.passes(&served, &tagged), "{model:?}");
        assert!(!live.passes(&served, &foreign), "{model:?}");
        live.control.set_multicast(&[]).unwrap();
        live.control.remove_vlan(100).unwrap();
        assert!(!live.passes(&served, &to_group) && !live.passes(&served, &tagged), "{model:?}");
        live.stop();
        served.check();
    }
}

#[test]
fn a_sleeping_queue_wakes_on_a_frame() {
    for model in MODELS {
        let mut served = Served::start(model);
        let mut live = Live::start(served.open(PortConfig::new().interrupts(true)));
        let f = frame(live.mac(), PEER, 60, 1);
        for round in 0..20 {
            let mut burst = Burst::new();
            let begun = Instant::now();
            let got = thread::scope(|scope| {
                scope.spawn(|| {
                    // Before it sleeps, in between, and when it sleeps for long.
                    thread::sleep(Duration::from_micros(250 * (round % 4)));
                    served.inject(&f);
                });
                let mut got = 0;
                while got == 0 && begun.elapsed() < PATIENCE {
                    got = live.rx.sleep(&mut live.cache, &mut burst, PATIENCE).unwrap();
                }
                got
            });
            assert_eq!(got, 1, "{model:?}");
            assert!(begun.elapsed() < PATIENCE / 3, "{model:?}: it woke by the clock");
            live.cache.free(&mut burst);
        }
        live.stop();
        served.check();
    }
}

#[test]
fn a_port_starts_again_and_a_server_takes_one_client_after_the_other() {
    for model in MODELS {
        let mut served = Served::start(model);
        for _ in 0..3 {
            let mut port = served.open(PortConfig::new());
            for lap in 0..3 {
                let mut live = Live::start(port);
                let f = frame(live.mac(), PEER, 100, lap);
                served.inject(&f);
                let frames = [f];
                assert_eq!(live.receive(1), frames);
                assert_eq!(live.send(&served, &frames), frames);
                port = live.stop();
            }
        }
        served.check();
    }
}

#[test]
fn a_second_client_is_told_why_it_waits() {
    let served = Served::start(MODELS[0]);
    let first = served.open(PortConfig::new());
    let text = one_line(&vfring::Port::open(&served.spec, PortConfig::new()).unwrap_err());
    assert!(text.contains("VERSION") && text.contains("one client at a time"), "{text}");
    drop(first);
    drop(served.open(PortConfig::new()));
}

#[test]
fn memory_that_cannot_be_shared_is_refused_with_what_mends_it() {
    let served = Served::start(MODELS[0]);
    let mut port = served.open(PortConfig::new());
    // Private hugepages; where the machine has none, that is what is said.
    match vfring::Mempool::builder().buffers(64).pages(vfring::Pages::Default).on(&[&port]) {
        Err(error) => assert!(one_line(&error).contains("hugepages")),
        Ok(pool) => {
            let text = one_line(&port.attach(&pool).unwrap_err());
            assert!(text.contains("memfd") && text.contains("Pages::Huge2M"), "{text}");
        }
    }
}
