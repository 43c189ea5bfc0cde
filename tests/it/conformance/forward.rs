//! Forwarding in one call: what it does is what a loop over bursts does, for every pair of parts, and it lives through resets
//! of either port.

use std::time::Duration;

use vfring::drivers::sim::{PortId, World};
use vfring::{
    AnyRx, AnyTx, Burst, Control, Forward, Forwarded, Frame, Mempool, PoolCache, Port, PortConfig, PortState,
    PortStats, RxInfo, Started, Verdict,
};
use vfring_tests::bed::*;

/// Frames of a run.
const FRAMES: u64 = 600;

/// Two ports with one pool: what the first receives, the second sends.
struct Pair {
    world: World,
    ids: [PortId; 2],
    controls: [Control; 2],
    pool: Mempool,
    cache: PoolCache,
    rx: AnyRx,
    tx: AnyTx,
}

impl Pair {
    fn new(world: &World, parts: [Part; 2], config: PortConfig) -> Pair {
        let mut last = 0;
        let ids = parts.map(|part| {
            last += 1;
            options(part, last).add_to(world)
        });
        let [a, b] = ids.map(|id| Port::open(&world.spec(id), config.clone()).unwrap());
        let buffers = a.buffers_needed() + b.buffers_needed();
        let pool = Mempool::builder().buffers(buffers).on(&[&a, &b]).unwrap();
        let Started { control: control_a, mut rx, .. } = a.start(&pool).unwrap();
        let Started { control: control_b, mut tx, .. } = b.start(&pool).unwrap();
        let (rx, tx) = (rx.swap_remove(0), tx.swap_remove(0));
        Pair { world: world.clone(), ids, controls: [control_a, control_b], cache: pool.cache(), pool, rx, tx }
    }

    /// A frame for the first port.
    fn frame(&self, n: u64, lens: &[usize]) -> Vec<u8> {
        frame(self.controls[0].mac(), PEER, lens[n as usize % lens.len()], n)
    }

    fn close(self, forward: Option<Forward>) -> [PortStats; 2] {
        let Pair { world, mut controls, pool, cache, rx, tx, .. } = self;
        let stats = controls.each_mut().map(Control::stats);
        drop((rx, tx, cache, forward));
        for control in controls {
            drop(control.stop(DEADLINE).expect("stop"));
        }
        assert_home(&pool);
        assert_no_violations(&world);
        stats
    }
}

/// What the program does to a frame: some are dropped, the others leave with the second port's address.
fn judge(bytes: &mut [u8], from: vfring::MacAddr) -> Verdict {
    if bytes[14].is_multiple_of(5) {
        return Verdict::Drop;
    }
    bytes[..6].copy_from_slice(&PEER.0);
    bytes[6..12].copy_from_slice(&from.0);
    Verdict::Send
}

/// The same by packets.
fn by_packets(
    pair: &mut Pair,
    burst: &mut Burst,
    mut each: impl FnMut(&mut [u8], usize, RxInfo) -> Verdict,
) -> Forwarded {
    let received = pair.rx.burst(&mut pair.cache, burst);
    burst.retain(|packet, info| {
        let total = packet.total_len();
        each(packet, total, *info) == Verdict::Send
    });
    let sent = pair.tx.burst(&mut pair.cache, burst);
    assert!(burst.is_empty(), "the ring has room");
    Forwarded { received, sent }
}

/// Frames that left, what was seen of each, and what the queues counted.
type Outcome = (Vec<Vec<u8>>, Vec<(usize, RxInfo)>, [PortStats; 2]);

fn run(name: &str, parts: [Part; 2], lens: &[usize], config: PortConfig, limit: Option<usize>) -> Outcome {
    let world = world(name);
    let mut pair = Pair::new(&world, parts, config);
    let from = pair.controls[1].mac();
    let mut forward = limit.map(|limit| Forward::with_limit(limit).unwrap());
    let mut burst = Burst::new();
    let (mut left, mut seen, mut rng) = (Vec::new(), Vec::new(), Rng(seed(name)));
    let (mut n, mut idle) = (0, 0);
    let mut done = Forwarded::default();
    while idle < 5 {
        let some = if n < FRAMES { rng.below(50).min(FRAMES - n) } else { 0 };
        for _ in 0..some {
            let _ = world.inject(pair.ids[0], &pair.frame(n, lens));
            n += 1;
        }
        world.step();
        let mut each = |bytes: &mut [u8], total, info| {
            seen.push((total, info));
            judge(bytes, from)
        };
        idle += u32::from(n == FRAMES);
        loop {
            let now = match &mut forward {
                Some(forward) => forward.burst(&mut pair.rx, &mut pair.tx, &mut pair.cache, |frame: &mut Frame<'_>| {
                    let (total, info) = (frame.total_len(), frame.info());
                    each(frame, total, info)
                }),
                None => by_packets(&mut pair, &mut burst, &mut each),
            };
            done.received += now.received;
            done.sent += now.sent;
            if now.received == 0 {
                break;
            }
            idle = 0;
        }
        world.step();
        left.extend(world.take_sent(pair.ids[1]));
    }
    assert_eq!((done.received, done.sent), (seen.len(), left.len()));
    let mut stats = pair.close(forward);
    // What the device counts goes by the world's time as well, which depends on the number of calls.
    stats.iter_mut().for_each(|stats| stats.device = Default::default());
    (left, seen, stats)
}

#[test]
fn frames_are_forwarded_as_by_a_loop_over_bursts() {
    // Plain ones, and those of every kind.
    let plain: Vec<usize> = (60..1500).step_by(37).collect();
    let all: Vec<usize> = plain.iter().copied().chain([15, 30, 59, 2049, 2500, 3000, 3500]).collect();
    for (i, part) in PARTS.into_iter().enumerate() {
        let neighbour = PARTS[(i + 1) % PARTS.len()];
        for (to, lens, info) in [(part, &plain, false), (part, &all, true), (neighbour, &plain, true)] {
            let config = PortConfig::new().mtu(4000).rx_info(info).rings(256, 256);
            let expected = run("forwarded", [part, to], lens, config.clone(), None);
            assert!(expected.0.len() > 300, "{part:?}: {} frames left", expected.0.len());
            for limit in [5, 32, 64] {
                let found = run("forwarded", [part, to], lens, config.clone(), Some(limit));
                let case = format!("{part:?} to {to:?}, up to {limit}, metadata {info}");
                assert!(found.0 == expected.0, "{case}: {} frames, not {}", found.0.len(), expected.0.len());
                assert!(found.1 == expected.1, "{case}: not the same was seen");
                assert_eq!(found.2, expected.2, "{case}");
            }
        }
    }
}

#[test]
fn forwarding_goes_on_after_a_reset_of_either_port() {
    let world = world("forward_resets");
    for part in PARTS {
        let mut pair = Pair::new(&world, [part; 2], PortConfig::new());
        let from = pair.controls[1].mac();
        let mut forward = Forward::new();
        for lost in [None, Some(0), Some(1)] {
            for n in 0..20 {
                let _ = world.inject(pair.ids[0], &pair.frame(n, &[100]));
            }
            if let Some(port) = lost {
                world.pf_reset(pair.ids[port]);
                world.pf_reset_done(pair.ids[port]);
            }
            // Until both run again, and what had come before is gone or sent.
            let mut was_lost = false;
            for _ in 0..2000 {
                for control in &mut pair.controls {
                    control.service();
                    was_lost |= control.state() != PortState::Running;
                }
                forward.burst(&mut pair.rx, &mut pair.tx, &mut pair.cache, |_| Verdict::Drop);
                world.advance(Duration::from_millis(1));
                let ready =
                    |control: &Control| control.state() == PortState::Running && control.waiting_for().is_empty();
                if was_lost == lost.is_some() && pair.controls.iter().all(ready) {
                    break;
                }
            }
            assert!(was_lost == lost.is_some());
            assert!(world.take_sent(pair.ids[1]).is_empty());
            let frames: Vec<_> = (0..40).map(|n| pair.frame(n, &[100])).collect();
            let mut left = Vec::new();
            for f in &frames {
                assert!(world.inject(pair.ids[0], f), "{part:?}: the receive ring is armed");
            }
            for _ in 0..10 {
                world.step();
                forward.burst(&mut pair.rx, &mut pair.tx, &mut pair.cache, |frame| {
                    judge(frame, from);
                    Verdict::Send
                });
                world.advance(Duration::from_millis(1));
                left.extend(world.take_sent(pair.ids[1]));
            }
            assert!(left.len() == 40, "{part:?}: {} frames left after the loss of {lost:?}", left.len());
            assert!(left.iter().zip(&frames).all(|(left, f)| left[14..] == f[14..]));
        }
        pair.close(Some(forward));
    }
}

#[test]
fn a_forwarder_has_limits() {
    for limit in [0, 65] {
        let error = Forward::with_limit(limit).unwrap_err();
        assert!(one_line(&error).contains("1 to 64"));
    }
    assert_eq!((Forward::with_limit(64).unwrap().limit(), Forward::new().limit()), (64, 32));
}
