//! Wires, specs, and the shared world.
#![forbid(unsafe_code)]

use super::super::model::Options;
use super::*;
use crate::drivers::sim::wire::{Generator, Wire};

fn spec_error(text: &str) -> String {
    let Ok(DeviceSpec::Sim(spec)) = text.parse::<DeviceSpec>() else { panic!("{text} does not parse") };
    spec::open(&spec).err().unwrap_or_else(|| panic!("{text} opened")).to_string()
}

#[test]
fn two_ports_back_to_back() {
    let world = World::stepped(7);
    let mut a = Rig::in_world(&world, options(Part::I82576));
    let mut b = Rig::in_world(&world, IgbOptions { mac: Some(PEER), ..options(Part::I350) });
    world.connect(a.port, b.port);
    a.bring_up();
    b.bring_up();
    let mut to_b = frame(100);
    to_b[..6].copy_from_slice(&PEER.0);
    a.send_plain(&to_b);
    a.send_plain(&frame(100)); // to a itself: b's switch drops it
    assert_eq!(b.rx_bytes(0, 100), to_b);
    assert_eq!((b.rx_done(0).status & 3, b.rx_done(1).status), (3, 0));
    let counters = world.wire_counters(b.port);
    assert_eq!((counters.received_frames, counters.filtered_frames, counters.dropped_frames), (1, 1, 0));
    assert_eq!(world.wire_counters(a.port).sent_frames, 2);
    let distance = |rig: &Rig| rig.iova.wrapping_sub(rig.memory.addr() as u64);
    assert_ne!(distance(&a), distance(&b), "each region has its own distance");
    a.write(0, 1 << 26);
    b.end_clean_with(a);
}

impl Rig {
    fn end_clean_with(self, other: Rig) {
        drop(other);
        self.end_clean();
    }
}

#[test]
fn a_generator_keeps_its_rate_and_drops_what_finds_no_buffer() {
    let world = World::stepped(7);
    let id =
        world.add(Options::Igb(options(Part::I82576)), Wire::Generator(Generator::new(60, Some(10_000), 4)), |_| {
            "gen".into()
        });
    let mut rig = Rig::attach(&world, PortId(id));
    rig.bring_up();
    let before = world.wire_counters(rig.port);
    rig.pause(Duration::from_millis(50));
    let after = world.wire_counters(rig.port);
    let made = |c: crate::drivers::sim::WireCounters| c.received_frames + c.dropped_frames;
    assert!((480..=520).contains(&(made(after) - made(before))), "{before:?} {after:?}");
    assert_eq!(after.received_frames, 63, "as many as were armed");
    let mut ports: Vec<u8> = (0..4).map(|slot| rig.rx_bytes(slot, 60)[35]).collect();
    ports.sort();
    assert_eq!(ports, [0, 1, 2, 3], "flows differ in the source port");
    assert_eq!((rig.rx_done(0).status & 0x60, rig.rx_done(0).len), (0x60, 60));
    rig.send_plain(&frame(60));
    assert_eq!(world.wire_counters(rig.port).sent_frames, 1);
    rig.end_clean();
}

#[test]
fn an_unbounded_generator_fills_the_ring_and_waits() {
    let world = World::stepped(7);
    let id = world
        .add(Options::Igb(options(Part::I82576)), Wire::Generator(Generator::new(1514, None, 1)), |_| "gen".into());
    let mut rig = Rig::attach(&world, PortId(id));
    rig.bring_up();
    rig.pause(Duration::from_millis(50));
    let counters = world.wire_counters(rig.port);
    assert_eq!((counters.received_frames, counters.dropped_frames), (63, 0));
    assert_eq!(rig.rx_bytes(62, 1514).len(), 1514);
    rig.end_clean();
}

#[test]
fn an_unbounded_generator_is_not_held_up_by_a_queue_that_does_not_run() {
    let world = World::stepped(7);
    let options = IgbOptions { rss: true, ..options(Part::I82576) };
    let id = world.add(Options::Igb(options), Wire::Generator(Generator::new(60, None, 16)), |_| "gen".into());
    let mut rig = Rig::attach(&world, PortId(id));
    rig.bring_up();
    rig.pause(Duration::from_millis(1));
    let counters = world.wire_counters(rig.port);
    assert_eq!(counters.received_frames, 63);
    assert!(counters.dropped_frames > 0, "those of queue 1");
    rig.end_clean();
}

#[test]
fn bench_hooks_complete_descriptors() {
    let mut rig = Rig::running(Part::I82576);
    assert_eq!(rig.world.bench_fill_rx(rig.port, 0, 5), 5);
    assert_eq!((rig.rx_done(4).len, rig.rx_done(4).status & 3, rig.rx_done(5).status), (60, 3, 0));
    assert_eq!(rig.world.bench_fill_rx(rig.port, 0, 1000), 58);
    let at = rig.fill(0, &frame(60));
    rig.store(TX_RING, data(at, 60, 60, EOP | RS, 0));
    rig.bus.doorbell(Reg(0x3818)).unwrap().ring(1);
    assert_eq!(rig.world.bench_complete_tx(rig.port, 0), 1);
    assert!(rig.tx_done(0) && rig.sent().is_empty());
    rig.end_clean();
}

#[test]
fn a_lent_queue_pair_is_the_benchmark_s_until_it_stops() {
    let mut rig = Rig::running(Part::I82576);
    assert_eq!(rig.world.bench_fill_rx(rig.port, 0, 1), 1);
    let mut lent = rig.world.bench_take(rig.port, 0);
    assert_eq!(lent.fill_rx(5), 5);
    assert_eq!((rig.load(RX_RING), rig.rx_bytes(0, 60)), (rig.load(RX_RING + 5 * 16), rig.rx_bytes(5, 60)));
    assert_eq!((rig.rx_done(6).status, rig.world.bench_fill_rx(rig.port, 0, 1)), (0, 0), "no longer the model's");
    let at = rig.fill(0, &frame(60));
    rig.store(TX_RING, data(at, 60, 60, EOP, 0));
    rig.store(TX_RING + 16, data(at, 60, 60, EOP | RS, 0));
    rig.bus.doorbell(Reg(0x3818)).unwrap().ring(2);
    assert_eq!(rig.world.bench_complete_tx(rig.port, 0), 0);
    assert_eq!((lent.complete_tx(), rig.tx_done(0), rig.tx_done(1)), (2, false, true));
    // Descriptors are armed still, and the tail is where it was; but the buffers are the driver's again.
    rig.reset();
    assert_eq!(lent.fill_rx(1), 0);
    assert_eq!(rig.rx_done(6).status, 0);
    rig.end_clean();
}

#[test]
#[should_panic = "not taken"]
fn a_queue_pair_is_lent_once() {
    let rig = Rig::running(Part::I82576);
    let _lent = rig.world.bench_take(rig.port, 0);
    rig.world.bench_take(rig.port, 0);
}

#[test]
fn frames_are_prepared_anew_when_a_register_was_written() {
    let mut rig = Rig::running(Part::I82576);
    let generation = |rig: &Rig| rig.world.access(rig.port.0, |port, _| port.vf.generation());
    let before = generation(&rig);
    assert_eq!(generation(&rig), before);
    rig.write(0x1680, 0); // EITR here; it might have been a register of RSS
    assert_ne!(generation(&rig), before);
    rig.end_clean();
}

#[test]
fn specs_teach() {
    for (text, says) in [
        ("sim:e1000", "models are sim:igbvf"),
        ("sim:ixgbevf?part=i350", "expected 82599, x540, x550 or e610"),
        ("sim:ixgbevf?queues=3", "queues=3 cannot be; expected 1, 2, 4, 8"),
        ("sim:ixgbevf?api=1.8", "expected 1.0 to 1.7"),
        ("sim:ixgbevf?api=2.0", "expected 1.0 to 1.7"),
        ("sim:ixgbevf?tcs=2", "expected 0, 4, 8"),
        ("sim:ixgbevf?rss=1", "'rss' means nothing here; keys are part, queues, api"),
        ("sim:igbvf?wire=loop", "wires are gen, sink, pair:NAME"),
        ("sim:igbvf?wire=pair:", "wires are"),
        ("sim:igbvf?wire=gen&speed=10", "'speed' means nothing here; keys are part, mac"),
        ("sim:igbvf?size=60", "'size' means nothing here"),
        ("sim:igbvf?wire=gen&size=20", "expected a number from 60 to 9230"),
        ("sim:igbvf?wire=gen&rate=-1", "expected a number"),
        ("sim:igbvf?part=x540", "expected 82576 or i350"),
        ("sim:iavf?part=82576", "expected xl710, x722 or e810"),
        ("sim:iavf?queues=17", "expected a number from 1 to 16"),
        ("sim:iavf?rss=1", "'rss' means nothing here; keys are part, queues, mac"),
        ("sim:igbvf?mac=ff:ff:ff:ff:ff:ff", "expected a unicast address"),
        ("sim:igbvf?mac_fixed=yes", "expected 0 or 1"),
        ("sim:igbvf?world=999999&port=0", "no world 999999"),
        ("sim:igbvf?world=1&wire=gen", "'wire' means nothing here; keys are world, port"),
    ] {
        let error = spec_error(text);
        assert!(error.contains(says) && error.contains(text), "{error}");
    }
}

#[test]
fn keys_of_an_ixgbe_model_reach_it() {
    for (text, device) in [
        ("sim:ixgbevf", 0x1565),
        ("sim:ixgbevf?part=82599&queues=2&api=1.0&mac=none&mac_fixed=1&jumbo=1&query_rss=1", 0x10ed),
        ("sim:ixgbevf?part=x540&tcs=8&trust=1&pf_promisc=1", 0x1515),
        ("sim:ixgbevf?part=e610&port_vlan=7&mc_filter=3&wire=gen&rate=10", 0x57ad),
    ] {
        assert_eq!(shared(text).bus.id().device, device, "{text}");
    }
}

#[test]
fn a_port_opens_once_and_again_after_it_was_closed() {
    let world = World::stepped(7);
    let rig = Rig::in_world(&world, options(Part::I82576));
    let text = world.spec(rig.port).to_string();
    assert!(spec_error(&text).contains("already open"));
    assert!(spec_error(&text.replace("port=0", "port=9")).contains("no port 9"));
    let port = rig.port;
    rig.end_clean();
    Rig::attach(&world, port).end_clean();
}

/// Opens a model of the shared world, in real time.
fn shared(text: &str) -> Rig {
    let Ok(DeviceSpec::Sim(spec)) = text.parse::<DeviceSpec>() else { panic!("{text}") };
    Rig::over(&World::shared(), PortId(usize::MAX), spec::open(&spec).unwrap())
}

#[test]
fn the_shared_world_plays_in_real_time() {
    let mut a = shared("sim:igbvf?wire=pair:test&mac=02:11:22:33:44:55");
    let mut b = shared("sim:igbvf?wire=pair:test&part=i350&mac=02:aa:bb:cc:dd:ee");
    assert!(spec_error("sim:igbvf?wire=pair:test").contains("already has two ends"));
    a.bring_up();
    assert_eq!(b.reset()[1], 0xccbb_aa02);
    b.start_rx(2);
    b.arm(N - 1);
    let mut to_b = frame(100);
    to_b[..6].copy_from_slice(&PEER.0);
    let slot = a.send_plain(&to_b);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !(a.tx_done(slot) && b.cell(RX_RING + 8).load(Ordering::Acquire) & 1 != 0) {
        assert!(std::time::Instant::now() < deadline, "no frame in 10 s");
        std::thread::yield_now();
    }
    assert_eq!(b.rx_bytes(0, 100), to_b);
    a.write(0, 1 << 26);
    b.write(0, 1 << 26);
    drop((a, b));
    let found: Vec<String> = World::shared().violations().into_iter().filter(|v| v.contains("pair:test")).collect();
    assert_eq!(found, [""; 0]);
    // Both ends are gone, so the name is free.
    drop(shared("sim:igbvf?wire=pair:test"));
}

#[test]
fn ends_of_a_pair_that_are_opened_side_by_side_are_connected() {
    let world = World::threaded();
    let start = std::sync::Barrier::new(3);
    for lap in 0..300 {
        let name = format!("lap{lap}");
        let join = || {
            start.wait();
            world.add_pair(Options::Igb(options(Part::I350)), &name, false, "pair")
        };
        let ends: Vec<usize> = std::thread::scope(|scope| {
            let threads = [scope.spawn(join), scope.spawn(join), scope.spawn(join)];
            threads.into_iter().filter_map(|t| t.join().unwrap().ok()).collect()
        });
        let &[a, b] = ends.as_slice() else { panic!("lap {lap}: a pair of {ends:?}") };
        let peer = |of: usize| {
            world.with(|state| match &state.ports[of].as_ref().unwrap().wire {
                Wire::Peer(peer) => *peer,
                _ => None,
            })
        };
        assert_eq!((peer(a), peer(b)), (Some(b), Some(a)), "lap {lap}");
        world.close(a);
        world.close(b);
    }
}

#[cfg(feature = "pcap")]
#[test]
fn files_are_wires() {
    let path = |name: &str| std::env::temp_dir().join(format!("vfring-{}-{name}", std::process::id()));
    let (input, output) = (path("in.pcap"), path("out.pcap"));
    let mut recorder = super::super::pcap::PcapWire::open(None, input.to_str(), false).unwrap();
    recorder.send(&frame(60), Duration::ZERO);
    recorder.send(&frame(80), Duration::ZERO);
    drop(recorder);
    let wire = super::super::pcap::PcapWire::open(input.to_str(), output.to_str(), false).unwrap();
    let world = World::stepped(7);
    let id = world.add(Options::Igb(options(Part::I350)), Wire::Pcap(Box::new(wire)), |_| "pcap".into());
    let mut rig = Rig::attach(&world, PortId(id));
    rig.bring_up();
    rig.pause(Duration::from_millis(1));
    assert_eq!((rig.rx_bytes(0, 60), rig.rx_bytes(1, 80), rig.rx_done(2).status), (frame(60), frame(80), 0));
    rig.send_plain(&frame(70));
    rig.end_clean();
    drop(world);
    let mut again = super::super::pcap::PcapWire::open(output.to_str(), None, false).unwrap();
    assert_eq!(again.take_input(), [frame(70)]);
    for file in [input, output] {
        std::fs::remove_file(file).unwrap();
    }
}
