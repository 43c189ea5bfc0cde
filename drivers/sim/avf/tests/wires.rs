//! The model at the wires of a world.
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::IgbOptions;

#[test]
fn a_generator_spreads_flows_as_the_driver_says_at_the_moment() {
    let DeviceSpec::Sim(text) = "sim:iavf?part=x722&queues=4&wire=gen&flows=16&rate=100000".parse().unwrap() else {
        panic!("a model's spec")
    };
    let bus = spec::open(&text).unwrap();
    // The shared world is in real time.
    let mut rig = Rig::over(&World::shared(), None, bus);
    rig.patience = 50_000;
    rig.negotiate(CAPS);
    rig.start_queues(4, 1);
    rig.set_key();
    rig.done(26, bytes().u64s(&[1 << 31]));
    let reached = |rig: &Rig| (0..4u64).map(|q| rig.rx_words_of(q, 0)[1] & 1).collect::<Vec<_>>();
    for _ in 0..200 {
        if reached(&rig) == [1; 4] {
            break;
        }
        rig.pause(Duration::from_millis(10));
    }
    assert_eq!(reached(&rig), [1; 4]);
    rig.bus.reset_function().unwrap();
}

#[test]
fn frames_pass_between_families_and_counters_go_on() {
    let world = World::stepped(7);
    let mut rig = Rig::in_world(&world, options(AvfPart::E810));
    let other = world.add_igbvf(IgbOptions::default());
    world.connect(rig.port, other);
    rig.negotiate(CAPS);
    rig.start_queues(1, 22);
    world.preset_counters(rig.port, u32::MAX);
    rig.send_plain(&frame(60));
    let preset = u64::from(u32::MAX);
    assert_eq!(rig.stats()[5..8], [preset, preset + 60, preset + 1]);
    let (here, there) = (world.wire_counters(rig.port), world.wire_counters(other));
    assert_eq!((here.sent_frames, there.dropped_frames), (1, 1));
    rig.end_clean();
}

#[test]
fn loopback_and_multicast_are_marked() {
    let world = World::stepped(7);
    let mut rig = Rig::in_world(&world, AvfOptions { trusted: true, ..options(AvfPart::E810) });
    let other = world.add_iavf(options(AvfPart::E810));
    world.connect_loopback(rig.port, other);
    rig.negotiate(CAPS);
    rig.start_queues(1, 22);
    rig.done(14, bytes().u16s(&[rig.vsi, 3]));
    let mut group = frame(60);
    group[0] = 3;
    assert!(rig.inject(&group));
    let words = rig.rx_words(0);
    assert_eq!((words[0] >> 14 & 3, words[1] >> 8 & 1), (1, 1));
    rig.end_clean();
}

#[test]
fn a_lent_queue_pair_is_the_benchmark_s_until_it_stops() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        let at = rig.fill(&frame(60));
        assert_eq!(rig.world.bench_fill_rx(rig.port, 0, 1), 1);
        let mut lent = rig.world.bench_take(rig.port, 0);
        assert_eq!(lent.fill_rx(5), 5);
        assert_eq!(rig.rx_words(0), rig.rx_words(5));
        assert_eq!(rig.rx_bytes(0, 60), rig.rx_bytes(5, 60));
        assert_eq!(rig.rx_words(6)[1], 0);
        let last = rig.send(&[data(at, 60, EOP), data(at, 60, EOP | RS)]) + 1;
        assert!(!rig.tx_done(last) && rig.world.bench_fill_rx(rig.port, 0, 1) == 0, "no longer the model's");
        assert_eq!((lent.complete_tx(), rig.tx_done(last - 1), rig.tx_done(last)), (2, false, true));
        // What the tail published is left: on the 800 series descriptors in eights.
        assert_eq!(lent.fill_rx(N as usize), if part == AvfPart::E810 { 50 } else { 57 });
        rig.bus.reset_function().unwrap();
        assert_eq!((lent.fill_rx(1), lent.complete_tx()), (0, 0));
        rig.end_clean();
    }
}
