//! The receive engine.
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::frame::insert_tag;

#[test]
fn a_frame_lands_in_the_buffer_and_the_descriptor_tells() {
    let mut rig = Rig::running(Part::I82576);
    for (slot, len) in [(0, 60), (1, 61), (2, 1514)] {
        assert!(rig.world.inject(rig.port, &frame(len)));
        let done = rig.rx_done(slot);
        assert_eq!((done.status & 0x6f, done.len, done.packet_type), (0x63, len as u16, 0x210));
        assert_eq!((done.status >> 20, done.vlan, done.hash), (0, 0, 0));
        assert_eq!(rig.rx_bytes(slot, len), frame(len));
    }
    assert_eq!(rig.read(0x2810), 3);
    assert_eq!(rig.rx_done(3).status, 0);
    assert_eq!((rig.read(0xf10), rig.read(0xf18)), (3, 60 + 61 + 1514 + 12));
    let counters = rig.world.wire_counters(rig.port);
    assert_eq!((counters.received_frames, counters.received_bytes), (3, 60 + 61 + 1514));
    rig.end_clean();
}

#[test]
fn a_long_frame_spans_descriptors_and_only_the_last_one_says_eop() {
    let mut rig = Rig::open(Part::I82576);
    rig.reset();
    rig.start_rx(1);
    rig.arm(4);
    assert_eq!(rig.ask(&[5, 4000]), Some([0xa000_0005]));
    let long = frame(2500);
    assert!(rig.world.inject(rig.port, &long));
    let parts: Vec<RxDone> = (0..3).map(|slot| rig.rx_done(slot)).collect();
    assert_eq!(parts[0], RxDone { packet_type: 0, rss_type: 0, hash: 0, status: 1, len: 1024, vlan: 0 });
    assert_eq!(parts[1].status, 1);
    assert_eq!((parts[2].status & 3, parts[2].len, parts[2].packet_type), (3, 2500 - 2048, 0x210));
    let pieces = [rig.rx_bytes(0, 1024), rig.rx_bytes(1, 1024), rig.rx_bytes(2, 452)].concat();
    assert_eq!(pieces, long);
    // One descriptor is left: a frame for two is dropped whole, and counted.
    assert!(!rig.world.inject(rig.port, &frame(1025)));
    assert_eq!(rig.rx_done(3).status, 0);
    assert_eq!((rig.read(0x2830), rig.read(0x2830)), (1, 0));
    assert!(rig.world.inject(rig.port, &frame(1024)));
    rig.end_clean();
}

#[test]
fn headers_are_split_off_for_who_asks() {
    let mut rig = Rig::open(Part::I82576);
    rig.reset();
    assert_eq!(rig.ask(&[5, 4000]), Some([0xa000_0005]));
    // DESCTYPE 5, headers of at most 128 bytes (BSIZEHDR 2), payload in pieces of 1 KiB.
    rig.start_rx_with(1 << 31 | 5 << 25 | 2 << 8 | 1);
    // The header of slot n goes to the buffer of slot 32 + n.
    for slot in 0..8 {
        let buffer = |slot: u32| rig.iova + RX_BUFFERS + slot as u64 * 2048;
        rig.store(RX_RING + slot as u64 * 16, [buffer(slot), buffer(32 + slot)]);
    }
    rig.ring(0x2818, 8);
    let lengths = |rig: &Rig, slot: u32| {
        let word0 = rig.cell(RX_RING + 16 * slot as u64).load(Ordering::Acquire);
        ((word0 >> 21 & 0x3ff) as usize, word0 >> 31 & 1)
    };
    // A frame that fits the header buffer; one of two pieces behind 42 bytes of headers; one that is no IP.
    let (short, long) = (frame(100), frame(1500));
    let mut alien = frame(300);
    alien[12] = 0x88;
    for frame in [&short, &long, &alien] {
        assert!(rig.world.inject(rig.port, frame));
    }
    assert_eq!((lengths(&rig, 0), rig.rx_done(0).len, rig.rx_done(0).status & 3), ((100, 0), 0, 3));
    assert_eq!(rig.rx_bytes(32, 100), short);
    assert_eq!((lengths(&rig, 1), rig.rx_done(1).len, rig.rx_done(1).status & 3), ((42, 1), 1024, 1));
    assert_eq!((lengths(&rig, 2), rig.rx_done(2).len, rig.rx_done(2).status & 3), ((0, 0), 1500 - 42 - 1024, 3));
    assert_eq!([rig.rx_bytes(33, 42), rig.rx_bytes(1, 1024), rig.rx_bytes(2, 434)].concat(), long);
    assert_eq!((lengths(&rig, 3), rig.rx_done(3).len), ((128, 0), 300 - 128));
    assert_eq!([rig.rx_bytes(35, 128), rig.rx_bytes(3, 172)].concat(), alien);
    rig.end_clean();
}

#[test]
fn tags_are_stripped_once_a_vlan_was_requested() {
    for part in [Part::I82576, Part::I350] {
        for loopback in [false, true] {
            let world = World::stepped(7);
            let (mut rig, other) = (Rig::in_world(&world, options(part)), world.add_igbvf(options(part)));
            if loopback {
                world.connect_loopback(rig.port, other);
            }
            rig.bring_up();
            let mut tagged = Vec::new();
            insert_tag(&frame(60), 0x2064, &mut tagged);
            assert!(!world.inject(rig.port, &tagged), "VLAN 100 is not ours yet");
            assert_eq!(rig.ask(&[0x0001_0004, 100]), Some([0xa001_0004]));
            assert!(world.inject(rig.port, &tagged));
            let done = rig.rx_done(0);
            let swapped = part == Part::I350 && loopback;
            assert_eq!((done.status & 8, done.len), (8, 60));
            assert_eq!(done.status >> 18 & 1 == 1, loopback);
            assert_eq!(done.vlan, if swapped { 0x6420 } else { 0x2064 });
            assert_eq!(rig.rx_bytes(0, 60), frame(60));
            assert_eq!(rig.read(0xf18), 60 + 4 + 4, "octets are those of the wire");
            assert_eq!((rig.read(0xf40), rig.read(0xf48)), if loopback { (1, 68) } else { (0, 0) });
            rig.end_clean();
        }
    }
}

#[test]
fn wrong_checksums_are_marked() {
    let rig = Rig::running(Part::I82576);
    let mut bad_l4 = frame(80);
    bad_l4[79] ^= 1;
    let mut bad_ip = frame(80);
    bad_ip[22] ^= 1;
    let mut unchecked = frame(80);
    unchecked[40..42].fill(0);
    let mut alien = frame(80);
    alien[12] = 0x88;
    for frame in [&bad_l4, &bad_ip, &unchecked, &alien] {
        assert!(rig.world.inject(rig.port, frame));
    }
    let seen: Vec<(u32, u32)> =
        (0..4).map(|s| (rig.rx_done(s).status & 0xf000_0060, rig.rx_done(s).packet_type)).collect();
    assert_eq!(seen, [(0x2000_0060, 0x210), (0x4000_0060, 0x210), (0x40, 0x210), (0, 0)]);
    rig.end_clean();
}

#[test]
fn multicast_counts_and_counters_wrap() {
    let mut rig = Rig::running(Part::I82576);
    rig.world.preset_counters(rig.port, u32::MAX);
    assert_eq!(rig.ask(&[0x0001_0003, 0xfb0]), Some([0xa001_0003]));
    let mut group = frame(60);
    group[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 0xfb]);
    assert!(rig.world.inject(rig.port, &group));
    let read: Vec<u32> = [0xf10, 0xf18, 0xf3c, 0xf14, 0xf34].map(|o| rig.read(o)).to_vec();
    assert_eq!(read, [0, 63, 0, u32::MAX, u32::MAX]);
    rig.end_clean();
}

#[test]
fn rss_reports_a_hash_and_spreads_over_two_queues() {
    let world = World::stepped(7);
    let mut rig = Rig::in_world(&world, IgbOptions { rss: true, ..options(Part::I82576) });
    rig.bring_up();
    let (mut here, mut elsewhere) = (0, 0);
    for port in 0..16 {
        let frame = crate::drivers::sim::frame::udp(MAC, PEER, [192, 0, 2, 1], (port, 7), 60);
        if world.inject(rig.port, &frame) {
            let done = rig.rx_done(here);
            assert_eq!((done.rss_type, done.hash % 2), (7, 0));
            here += 1;
        } else {
            elsewhere += 1; // queue 1 does not run
        }
    }
    assert!(here > 2 && elsewhere > 2, "{here} {elsewhere}");
    assert_eq!(rig.read(0x2930), elsewhere);
    rig.end_clean();
}

#[test]
fn nothing_arrives_without_link_queue_or_handshake() {
    let mut rig = Rig::open(Part::I82576);
    assert!(!rig.world.inject(rig.port, &frame(60)));
    rig.bring_up();
    assert!(rig.world.inject(rig.port, &frame(60)));
    rig.world.link(rig.port, false);
    assert!(!rig.world.inject(rig.port, &frame(60)));
    rig.world.link(rig.port, true);
    rig.write(0x2828, 1 << 16);
    assert_ne!(rig.read(0x2828) & 1 << 25, 0, "ENABLE lingers");
    rig.pause(Duration::from_micros(10));
    assert_eq!(rig.read(0x2828) & 1 << 25, 0);
    assert!(!rig.world.inject(rig.port, &frame(60)));
    let counters = rig.world.wire_counters(rig.port);
    assert_eq!((counters.received_frames, counters.dropped_frames, counters.filtered_frames), (1, 3, 0));
    rig.end_clean();
}
