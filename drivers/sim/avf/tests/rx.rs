//! The receive engine.
#![forbid(unsafe_code)]

use super::*;

#[test]
fn a_frame_lands_in_the_buffer_and_the_legacy_descriptor_tells() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        for (slot, len) in [(0, 60), (1, 61), (2, 1514)] {
            assert!(rig.inject(&frame(len)));
            let words = rig.rx_words(slot);
            // DD, EOF, L3L4P; packet type 24 (IPv4, UDP); an ice PF hashes from the start.
            assert_eq!(words[1] & !0x3000, 0xb | 24 << 30 | (len as u64) << 38);
            assert_eq!(words[1] & 0x3000 != 0, part == AvfPart::E810);
            assert_eq!(rig.rx_bytes(slot, len), frame(len));
        }
        assert_eq!(rig.rx_words(3)[1], 0);
        let stats = rig.stats();
        assert_eq!(stats.len(), if part == AvfPart::E810 { 12 } else { 13 });
        assert_eq!(stats[..5], [60 + 61 + 1514 + 12, 3, 0, 0, 0]);
        rig.end_clean();
    }
}

#[test]
fn flex_formats() {
    for (rxdid, hash_at, flow_at) in [(2u8, (1, 32), (3, 0)), (22, (3, 0), (1, 32))] {
        let mut rig = Rig::talking(options(AvfPart::E810));
        assert_eq!(rig.done(44, bytes()), (1u64 << 1 | 1 << 2 | 1 << 22).to_le_bytes());
        rig.start_queues(1, rxdid);
        assert!(rig.inject(&frame(60)));
        let words = rig.rx_words(0);
        assert_eq!(words[0], rxdid as u64 | 24 << 16 | 60 << 32);
        assert_eq!(words[1] & 0xffff, 1 | 2 | 8 | 1 << 12, "DD, EOF, L3L4P, hash");
        let field = |(word, shift): (usize, u32)| (words[word] >> shift) as u32;
        assert_ne!(field(hash_at), 0);
        assert_eq!(field(flow_at), u32::MAX);
        rig.end_clean();
    }
}

#[test]
fn a_long_frame_spans_descriptors_and_only_the_last_one_tells() {
    let rig = Rig::running(AvfPart::X722);
    let long = frame(5000);
    assert!(rig.inject(&long));
    assert_eq!((rig.rx_words(0), rig.rx_words(1)[1]), ([0, 1 | 2048 << 38, 0, 0], 1 | 2048 << 38));
    assert_eq!(rig.rx_words(2)[1], 0xb | 24 << 30 | (5000 - 4096) << 38);
    assert_eq!([rig.rx_bytes(0, 2048), rig.rx_bytes(1, 2048), rig.rx_bytes(2, 904)].concat(), long);
    rig.end_clean();
}

#[test]
fn the_800_series_takes_descriptors_in_eights() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        let taken = (0..N).take_while(|_| rig.inject(&frame(60))).count();
        assert_eq!(taken, if part == AvfPart::E810 { 56 } else { 63 });
        for slot in 0..8 {
            rig.set_rx(0, slot);
        }
        rig.ring(0x2000, 6);
        assert!(rig.inject(&frame(60)), "the wrap published the rest");
        let stats = rig.stats();
        assert_eq!((stats[1], stats[4]), (taken as u64 + 2, 1), "one was discarded, and counted all the same");
        rig.end_clean();
    }
}

#[test]
fn frames_longer_than_allowed_are_dropped() {
    let mut rig = Rig::talking(options(AvfPart::E810));
    rig.start_queues(1, 1);
    assert!(rig.inject(&frame(9724)) && !rig.inject(&frame(9725)));
    rig.done(9, bytes().u16s(&[rig.vsi, 0]).u32s(&[1, 1]));
    (0..N).for_each(|slot| rig.set_rx(0, slot));
    let mut config = rig.queue_config(1, 1);
    config.0[8 + 40..8 + 44].copy_from_slice(&1522u32.to_le_bytes());
    rig.done(6, config);
    rig.done(8, bytes().u16s(&[rig.vsi, 0]).u32s(&[1, 0]));
    assert!(rig.inject(&frame(1518)) && !rig.inject(&frame(1519)));
    rig.end_clean();
}

#[test]
fn wrong_checksums_and_packet_types() {
    let rig = Rig::running(AvfPart::Xl710);
    let changed = |at: usize, value: u8| {
        let mut frame = frame(80);
        frame[at] = value;
        frame
    };
    let mut unchecked = frame(80);
    unchecked[40..42].fill(0);
    let mut arp = frame(80);
    arp[12..14].copy_from_slice(&[8, 6]);
    let cases = [
        (changed(79, 1), 0x80_0008, 24),    // L4E
        (changed(22, 1), 0x40_0008, 24),    // IPE
        (unchecked, 8, 24),                 // no checksum is none that is wrong
        (changed(20, 0x20), 0x40_0008, 22), // a fragment (and the header checksum is wrong)
        (changed(23, 1), 0x40_0008, 28),    // ICMP
        (arp, 0, 11),
        (changed(12, 0x88), 0, 1),
    ];
    for (slot, (frame, status, ptype)) in cases.into_iter().enumerate() {
        assert!(rig.inject(&frame));
        let word = rig.rx_words(slot as u32)[1];
        assert_eq!((word & 0x3f_ffff_fffc & !(0xff << 30), word >> 30 & 0xff), (status, ptype), "frame {slot}");
    }
    rig.end_clean();
}

#[test]
fn the_table_chooses_the_queue_and_the_key_the_hash() {
    for part in PARTS {
        let mut rig = Rig::talking(options(part));
        rig.start_queues(4, 1);
        let table: Vec<u8> = (0..64).map(|i| 3 - i % 4).collect();
        rig.done(24, bytes().u16s(&[rig.vsi, 64]).u8s(&table).u8s(&[0; 1]));
        rig.set_key();
        let capable = u64::from_le_bytes(rig.done(25, bytes()).try_into().unwrap());
        assert_eq!(capable >> 63, (part != AvfPart::E810) as u64);
        rig.done(26, bytes().u64s(&[capable]));
        // 66.9.149.187:2794 to 161.142.100.80:1766: 0x51ccc178 with ports (as UDP here), table entry 56.
        let mut sample = frame(60);
        sample[26..34].copy_from_slice(&[66, 9, 149, 187, 161, 142, 100, 80]);
        sample[34..38].copy_from_slice(&[0x0a, 0xea, 0x06, 0xe6]);
        assert!(rig.inject(&sample));
        let words = rig.rx_words_of(3, 0);
        assert_eq!((words[0] >> 32, words[1] & 0x3000), (0x51cc_c178, 0x3000));
        // Nothing is hashed: queue 0.
        rig.done(26, bytes().u64s(&[0]));
        assert!(rig.inject(&sample));
        assert_eq!((rig.rx_words_of(0, 0)[0] >> 32, rig.rx_words_of(0, 0)[1] & 0x3001), (0, 1));
        rig.end_clean();
    }
}

#[test]
fn rss_by_registers_where_nothing_else_was_granted() {
    let mut rig = Rig::open(options(AvfPart::Xl710));
    rig.negotiate(1);
    assert_eq!(rig.granted & (1 << 4 | 1 << 19), 1 << 4);
    rig.start_queues(4, 1);
    for i in 0..16 {
        rig.write(0xd000 + 4 * i, 0x0202_0202);
    }
    rig.write(0xc400, 1 << 31);
    assert!(rig.inject(&frame(60)));
    assert_eq!(rig.rx_words_of(2, 0)[1] & 1, 1);
    assert_eq!((rig.read(0xd03c), rig.read(0xc400), rig.read(0xc404)), (0x0202_0202, 1 << 31, 0));
    rig.end_clean();
}

#[test]
fn write_backs_wait_for_company_unless_the_vector_asks_for_them() {
    for part in PARTS {
        let mut rig = Rig::running_with(AvfOptions { batched: true, ..options(part) });
        assert!(rig.inject(&frame(60)));
        assert_eq!(rig.rx_words(0)[1] & 1, 1, "WB_ON_ITR");
        rig.write(0x3800, 0);
        assert!((0..3).all(|_| rig.inject(&frame(60))));
        rig.pause(Duration::from_secs(1));
        assert_eq!(rig.rx_words(1)[1] & 1, 0);
        assert!(rig.inject(&frame(60)));
        assert_eq!((1..5).map(|slot| rig.rx_words(slot)[1] & 1).sum::<u64>(), 4);
        assert!(rig.inject(&frame(60)));
        rig.write(0x3800, 1 << 30);
        rig.pause(Duration::from_micros(10));
        assert_eq!(rig.rx_words(5)[1] & 1, 1);
        rig.end_clean();
    }
}
