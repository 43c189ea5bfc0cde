//! Queues in threads, control in a service, models in real time: two ports on one wire.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use vfring::drivers::sim::World;
use vfring::{AnyRx, AnyTx, Burst, Mempool, PoolCache, Port, PortConfig, Service, Started};
use vfring_tests::bed::*;

/// Real time in which a test must make progress.
const LONG: Duration = Duration::from_secs(30);
/// Frames that a sender has out at most, below what the receiver's ring takes.
const WINDOW: u64 = 200;

struct End {
    service: Service,
    rx: AnyRx,
    tx: AnyTx,
    cache: PoolCache,
}

fn open(pair: &str, part: Part, config: &PortConfig) -> (Vec<Port>, Vec<Mempool>) {
    let Facts { family, key, .. } = part.facts();
    let spec = |n: u8| format!("sim:{family}?wire=pair:{pair}&part={key}&mac={}", mac(n)).parse().unwrap();
    let ports = Port::open_many(&[(spec(1), config.clone()), (spec(2), config.clone())]).unwrap();
    let pools = ports.iter().map(|p| pool_for(p, 2048)).collect();
    (ports, pools)
}

fn start(port: Port, pool: &Mempool) -> End {
    let Started { mut control, mut rx, mut tx } = port.start(pool).unwrap();
    let mut cache = pool.cache();
    rx[0].burst(&mut cache, &mut Burst::new());
    // A register access, so that the model has seen the ring before anybody sends to it.
    control.stats();
    End { service: control.spawn().unwrap(), rx: rx.remove(0), tx: tx.remove(0), cache }
}

#[test]
fn every_frame_arrives_once_and_in_order_under_load() {
    let parts = [
        (Part::I82576, false),
        (Part::I350, true),
        (Part::I82599, false),
        (Part::X550, true),
        (Part::Xl710, false),
        (Part::E810, true),
    ];
    for (part, interrupts) in parts {
        let config = PortConfig::new().interrupts(interrupts);
        let (ports, pools) = open(&format!("order-{}", part.facts().key), part, &config);
        let mut ends = ports.into_iter().zip(&pools).map(|(port, pool)| start(port, pool));
        let (a, b) = (ends.next().unwrap(), ends.next().unwrap());
        let received = AtomicU64::new(0);
        let total = 20_000u64;
        let began = std::time::Instant::now();
        let (a, b) = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut a = a;
                let mut burst = Burst::new();
                let mut next = 0;
                while next < total || !burst.is_empty() {
                    while next < total && next < received.load(Ordering::Acquire) + WINDOW && !burst.is_full() {
                        let f = frame(mac(2), mac(1), 60 + (next % 1400) as usize, next);
                        burst.push(packet(&mut a.cache, &f, 2048)).unwrap();
                        next += 1;
                    }
                    if a.tx.burst(&mut a.cache, &mut burst) == 0 {
                        std::thread::yield_now();
                    }
                    assert!(began.elapsed() < LONG, "stuck at {next}");
                }
                a
            });
            let receiver = scope.spawn(|| {
                let mut b = b;
                let mut burst = Burst::new();
                let mut next = 0;
                while next < total {
                    if interrupts {
                        b.rx.sleep(&mut b.cache, &mut burst, LONG).unwrap();
                    } else if b.rx.burst(&mut b.cache, &mut burst) == 0 {
                        std::thread::yield_now();
                    }
                    for p in &burst {
                        assert!(bytes(p) == frame(mac(2), mac(1), 60 + (next % 1400) as usize, next), "frame {next}");
                        next += 1;
                    }
                    received.store(next, Ordering::Release);
                    b.cache.free(&mut burst);
                    assert!(began.elapsed() < LONG, "stuck at {next}");
                }
                b
            });
            (sender.join().unwrap(), receiver.join().unwrap())
        });
        assert_eq!(a.service.stats().tx[0].packets, total);
        assert_eq!(b.service.stats().rx[0].packets, total);
        for end in [a, b] {
            let End { service, rx, tx, cache } = end;
            drop((rx, tx, cache));
            drop(service.stop(DEADLINE).unwrap());
        }
        pools.iter().for_each(assert_home);
    }
    assert_no_violations(&World::shared());
}

#[test]
fn ports_are_stopped_under_the_feet_of_their_threads() {
    let config = PortConfig::new().rings(64, 64);
    for part in [Part::I82576, Part::I350, Part::X550, Part::E810] {
        let (mut ports, pools) = open(&format!("stop-{}", part.facts().key), part, &config);
        for lap in 0..25 {
            let ends: Vec<End> = ports.drain(..).zip(&pools).map(|(port, pool)| start(port, pool)).collect();
            let (end, moved) = (AtomicBool::new(false), AtomicU64::new(0));
            std::thread::scope(|scope| {
                let mut services = Vec::new();
                for (me, port) in ends.into_iter().enumerate() {
                    let End { service, mut rx, mut tx, mut cache } = port;
                    services.push(service);
                    let (end, moved) = (&end, &moved);
                    scope.spawn(move || {
                        let mut burst = Burst::new();
                        let f = frame(mac(2 - me as u8), mac(1 + me as u8), 60, 1);
                        while !end.load(Ordering::Acquire) {
                            let got = rx.burst(&mut cache, &mut burst);
                            moved.fetch_add(got as u64, Ordering::Relaxed);
                            while burst.len() < 16 {
                                burst.push(packet(&mut cache, &f, 2048)).unwrap();
                            }
                            for p in &mut burst {
                                p[..12].copy_from_slice(&f[..12]);
                            }
                            if tx.burst(&mut cache, &mut burst) == 0 {
                                std::thread::yield_now();
                            }
                        }
                    });
                }
                let began = std::time::Instant::now();
                while moved.load(Ordering::Relaxed) < 500 {
                    assert!(began.elapsed() < LONG, "lap {lap}: nothing moves");
                    std::thread::yield_now();
                }
                // The threads go on polling until both are stopped.
                for service in services {
                    ports.push(service.stop(Duration::from_secs(5)).unwrap());
                }
                end.store(true, Ordering::Release);
            });
            pools.iter().for_each(assert_home);
        }
        drop(ports);
    }
    assert_no_violations(&World::shared());
}

#[test]
fn a_service_is_asked_and_told_while_threads_poll() {
    let (ports, pools) = open("service", Part::I82576, &PortConfig::new());
    let mut ends = ports.into_iter().zip(&pools).map(|(port, pool)| start(port, pool));
    let (a, b) = (ends.next().unwrap(), ends.next().unwrap());
    b.service.with(|control| control.add_vlan(7)).unwrap();
    assert!(b.service.link().up && b.service.waiting_for().is_empty());
    assert_eq!(b.service.state(), vfring::PortState::Running);
    assert_eq!(b.service.stats().recoveries, 0);
    // Dropping a service stops its port; the queues go home whenever they are dropped.
    drop(a.service);
    drop((a.rx, a.tx, a.cache));
    drop((b.rx, b.tx, b.cache));
    drop(b.service);
    pools.iter().for_each(assert_home);
    assert_no_violations(&World::shared());
}
