//! Admin queues, negotiation, resets.
#![forbid(unsafe_code)]

use super::*;

#[test]
fn descriptors_as_in_the_fact_sheet() {
    let mut rig = Rig::open(options(AvfPart::E810));
    rig.post(1, &bytes().u32s(&[1, 1]).0);
    assert_eq!(rig.load(ATQ_RING)[..2], [0x3400 | 0x0801 << 16 | 8 << 32, 1]);
    rig.pause(Duration::from_millis(1));
    assert_eq!(rig.load(ATQ_RING)[..2], [0x3403 | 0x0801 << 16 | 8 << 32, 1], "DD and CMP");
    assert_eq!((rig.read(0x6400), rig.read(0x7400)), (1, 1));
    assert_eq!(rig.load(ARQ_RING)[..2], [0x1201 | 0x0802 << 16 | 8 << 32, 1]);
    assert_eq!(rig.copy_out(ARQ_BUFFERS, 8), [1, 0, 0, 0, 1, 0, 0, 0]);
    rig.end_clean();
}

#[test]
fn resources_of_each_part() {
    // Granted of CAPS; vectors, max_mtu.
    let wanted = [
        (AvfPart::Xl710, 1 | 1 << 6 | 1 << 7 | 1 << 16 | 1 << 19, 5, 0),
        (AvfPart::X722, 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 16 | 1 << 19, 5, 0),
        (AvfPart::E810, 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 15 | 1 << 19 | 1 << 26, 17, 9728),
    ];
    for ((part, granted, vectors, mtu), id) in wanted.into_iter().zip([0x154c, 0x37cd, 0x1889]) {
        let mut rig = Rig::open(options(part));
        assert_eq!((rig.bus.id().vendor, rig.bus.id().device), (0x8086, id));
        assert_eq!(rig.bus.bar_len(), if part == AvfPart::E810 { 0x20000 } else { 0x10000 });
        assert_eq!(rig.bus.vectors(), vectors as u32);
        let reply = rig.negotiate(CAPS);
        let head = bytes().u16s(&[1, 4, vectors, mtu]).u32s(&[granted, 52, 64]);
        assert_eq!(reply[..20], head.0);
        assert_eq!(reply[22..30], [4, 0, 6, 0, 0, 0, 0, 0]);
        assert_eq!(reply[30..], MAC.0);
        assert_eq!(rig.ask(3, bytes().u32s(&[CAPS])).0, -5, "only once");
        let events = rig.listen();
        let speed = match part {
            AvfPart::Xl710 => 40_000,
            AvfPart::X722 => 10_000,
            AvfPart::E810 => 25_000,
        };
        assert_eq!(events, [bytes().u32s(&[1, speed]).u8s(&[1, 0, 0, 0, 0, 0, 0, 0]).0]);
        rig.end_clean();
    }
}

#[test]
fn an_older_driver_and_link_speeds_as_bits() {
    let mut rig = Rig::open(options(AvfPart::Xl710));
    assert_eq!(rig.done(1, bytes().u32s(&[1, 0])), [1, 0, 0, 0, 0, 0, 0, 0]);
    let reply = rig.done(3, bytes());
    // L2, RSS_REG, VLAN, and ADV_LINK_SPEED that nobody asked for.
    assert_eq!(reply[8..12], (1u32 | 1 << 4 | 1 << 7 | 1 << 16).to_le_bytes());
    assert_eq!(rig.listen()[0][..9], bytes().u32s(&[1, 0x10]).u8s(&[1]).0);
    rig.world.link(rig.port, false);
    assert_eq!(rig.listen()[0][..9], bytes().u32s(&[1, 0]).u8s(&[0]).0);
    rig.end_clean();
}

#[test]
fn an_address_that_the_host_did_not_set() {
    for (part, caps, zero) in
        [(AvfPart::Xl710, CAPS, true), (AvfPart::Xl710, CAPS | 1 << 25, false), (AvfPart::E810, CAPS | 1 << 25, true)]
    {
        let mut rig = Rig::open(AvfOptions { mac: None, ..options(part) });
        let mac = rig.negotiate(caps)[30..].to_vec();
        assert_eq!(mac == [0; 6], zero);
        if zero {
            let add = bytes().u16s(&[rig.vsi, 1]).u8s(&PEER.0).u8s(&[1, 0]).u8s(&[0; 8]);
            rig.done(10, add);
            assert_eq!(rig.world.mac(rig.port), PEER);
        } else {
            assert_eq!(rig.world.mac(rig.port).0, mac[..]);
        }
        rig.end_clean();
    }
}

#[test]
fn the_vf_resets_itself() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        let vsi = rig.vsi;
        rig.post(2, &[]);
        assert_eq!(rig.read(0x8800), 2, "not at once");
        rig.pause(Duration::from_millis(1));
        assert_eq!((rig.read(0x6800), rig.read(0x8000), rig.read(0x3800)), (0, 0, 0));
        let seen = rig.wait_active();
        assert!(seen.iter().all(|s| [0, 1, 2, 0xdead_beef].contains(s)) && seen.contains(&1), "{seen:x?}");
        assert!(!rig.inject(&frame(60)), "queues are off");
        rig.send_plain(&frame(60));
        assert!(rig.sent().is_empty());
        rig.start_admin();
        // The agreed version lasts.
        let reply = rig.done(3, bytes().u32s(&[CAPS]));
        rig.vsi = u16::from_le_bytes([reply[20], reply[21]]);
        assert_ne!(rig.vsi, vsi, "another VSI");
        rig.start_queues(1, 1);
        assert!(rig.inject(&frame(60)));
        assert!(rig.sent().is_empty(), "what was rung while the queue was off is forgotten");
        rig.end_clean();
    }
}

#[test]
fn the_pf_resets() {
    let mut rig = Rig::running(AvfPart::E810);
    rig.listen();
    let slot = rig.arq_next;
    rig.world.pf_reset(rig.port);
    assert_eq!(rig.copy_out(ARQ_BUFFERS + slot * 4096, 16), bytes().u32s(&[2, 0, 0, 255]).0, "announced");
    rig.pause(Duration::from_secs(1));
    assert_ne!(rig.read(0x8800) & 3, 2);
    assert_eq!(rig.read(0x8000), 0);
    rig.world.pf_reset_done(rig.port);
    rig.wait_active();
    assert!(rig.bus.bus_master().unwrap());
    rig.start_admin();
    rig.negotiate(CAPS);
    rig.start_queues(1, 1);
    assert!(rig.inject(&frame(60)));
    rig.end_clean();
}

#[test]
fn more_queues_come_with_a_reset() {
    for part in PARTS {
        let mut rig = Rig::talking(options(part));
        rig.post(29, &16u16.to_le_bytes());
        rig.pause(Duration::from_millis(2));
        assert_eq!(rig.read(0x8000), 0);
        rig.wait_active();
        rig.start_admin();
        assert_eq!(rig.negotiate(CAPS)[2..4], [16, 0]);
        let refused = rig.try_ask(29, bytes().u16s(&[17]));
        assert_eq!(refused, (part == AvfPart::E810).then(|| (0, vec![16, 0])));
        rig.end_clean();
    }
}

#[test]
fn an_orderly_shutdown() {
    let mut rig = Rig::running(AvfPart::X722);
    rig.done(9, bytes().u16s(&[rig.vsi, 0]).u32s(&[1, 1]));
    assert!(!rig.inject(&frame(60)));
    rig.store(ATQ_RING + rig.atq_next * 32, &[0x2000 | 3 << 16, 0, 1, 0]);
    rig.write(0x8400, (rig.atq_next as u32 + 1) % ATQ as u32);
    rig.pause(Duration::from_millis(1));
    assert_eq!(rig.load(ATQ_RING + rig.atq_next * 32)[0], 0x2003 | 3 << 16);
    for register in [0x6800, 0x8000] {
        rig.write(register, 0);
    }
    let world = rig.world.clone();
    drop(rig);
    assert_eq!(world.violations(), [""; 0]);
}

#[test]
fn queues_are_switched_in_ranges_where_large_numbers_are_granted() {
    let mut rig = Rig::talking(AvfOptions { large_queues: true, ..options(AvfPart::E810) });
    assert_ne!(rig.granted & 1 << 9, 0);
    assert_eq!(rig.done(50, bytes())[2..4], [4, 0]);
    for slot in 0..N {
        rig.set_rx(0, slot);
    }
    rig.write(0x2000, N - 1);
    let config = rig.queue_config(1, 22);
    rig.done(6, config);
    for extra in [0, 16] {
        let map = bytes().u16s(&[rig.vsi, 2]).u32s(&[0]).u16s(&[0, 1]).u32s(&[0, 0, 0]);
        let map = map.u16s(&[0, 1]).u32s(&[0, 0, 1]).u8s(&[0; 16][..extra]);
        rig.done(111, map);
    }
    rig.done(24, bytes().u16s(&[rig.vsi, 64]).u8s(&[0; 65]));
    let both = bytes().u16s(&[rig.vsi, 0, 2, 0]).u32s(&[0]).u16s(&[0, 1]).u32s(&[1]).u16s(&[0, 1]);
    rig.done(107, both.clone());
    assert!(rig.inject(&frame(60)));
    rig.done(108, both);
    assert!(!rig.inject(&frame(60)));
    rig.end_clean();
}

#[test]
fn pf_drivers_of_the_upstream_kernel_answer_differently() {
    let mut rig = Rig::open(AvfOptions { in_tree: true, ..options(AvfPart::Xl710) });
    rig.done(1, bytes().u32s(&[1, 1]));
    let reply = rig.done(3, bytes().u32s(&[CAPS]));
    assert_eq!((reply.len(), &reply[6..8]), (52, &9728u16.to_le_bytes()[..]));
    assert_eq!(rig.ask(3, bytes().u32s(&[CAPS])).0, -22);
    assert_eq!(rig.ask(29, bytes().u16s(&[17])), (0, vec![16, 0]));
    rig.end_clean();
    let mut rig = Rig::open(AvfOptions { in_tree: true, ..options(AvfPart::E810) });
    rig.negotiate(CAPS);
    assert_eq!(rig.done(3, bytes().u32s(&[CAPS])).len(), 36);
    rig.end_clean();
}
