//! Receiving and sending: descriptors, tags, checksums, RSS, counters.

use super::*;
use crate::drivers::sim::frame::{insert_tag, layout, transport_checksum_good, udp, vlan_tag};

#[test]
fn frames_pass_in_both_directions() {
    for part in [IxgbePart::I82599, IxgbePart::X540, IxgbePart::X550, IxgbePart::E610] {
        let mut vf = Vf::running(options(part));
        assert!(vf.world.inject(vf.port, &frame(100)));
        let done = vf.rx_done(0);
        assert_eq!((done.status & 0x6f, done.len, done.packet_type), (0x63, 100, 0x210));
        assert_eq!(vf.rx_bytes(0, 100), frame(100));
        let slot = vf.send_plain(&frame(80));
        assert_eq!(vf.sent(), [frame(80)]);
        assert!(vf.tx_done(slot) && !vf.tx_done(0), "a context gets no DD");
        assert_eq!((vf.read(0x101c), vf.read(0x1020), vf.read(0x201c), vf.read(0x2020)), (1, 104, 1, 84));
        vf.end_clean();
    }
}

#[test]
fn octet_counters_have_36_bits() {
    let mut vf = Vf::running(options(IxgbePart::X540));
    vf.world.preset_counters(vf.port, 1000);
    assert!(vf.world.inject(vf.port, &frame(60)));
    assert_eq!((vf.read(0x1020), vf.read(0x1024)), (1064, 0xf));
    vf.world.preset_counters(vf.port, u32::MAX);
    assert_eq!((vf.read(0x1020), vf.read(0x1024), vf.read(0x1034)), (u32::MAX, 0xf, u32::MAX));
    assert!(vf.world.inject(vf.port, &frame(60)));
    vf.send_plain(&frame(60));
    assert_eq!((vf.read(0x101c), vf.read(0x1020), vf.read(0x1024)), (0, 63, 0));
    assert_eq!((vf.read(0x201c), vf.read(0x2020), vf.read(0x2024)), (0, 63, 0));
    vf.reset();
    assert_eq!(vf.read(0x1020), 63, "a reset leaves them");
    vf.end_clean();
}

#[test]
fn error_bits_are_30_and_31_and_an_82599_doubts_udp_without_a_checksum() {
    let mut bad_l4 = frame(80);
    bad_l4[79] ^= 1;
    let mut bad_ip = frame(80);
    bad_ip[22] ^= 1;
    let mut unchecked = frame(80);
    unchecked[40..42].fill(0);
    for (part, doubt) in [(IxgbePart::X540, 0x40), (IxgbePart::I82599, 0x4000_0060)] {
        let vf = Vf::running(options(part));
        for frame in [&bad_l4, &bad_ip, &unchecked] {
            assert!(vf.world.inject(vf.port, frame));
        }
        let seen = [0, 1, 2].map(|slot| vf.rx_done(slot).status & 0xf000_0060);
        assert_eq!(seen, [0x4000_0060, 0x8000_0060, doubt]);
        vf.world.set_fault(vf.port, Fault::RxError);
        assert!(vf.world.inject(vf.port, &frame(60)));
        assert_eq!(vf.rx_done(3).status >> 29, 1, "RXE is bit 29");
        vf.end_clean();
    }
}

#[test]
fn the_queue_strips_tags_by_vme_and_reports_them_in_any_case() {
    for vme in [false, true] {
        let mut vf = Vf::open(options(IxgbePart::X550));
        vf.reset();
        vf.start_rx(0, 2, if vme { 1 << 30 } else { 0 });
        vf.arm(N - 1);
        let mut tagged = Vec::new();
        insert_tag(&frame(60), 0x2064, &mut tagged);
        assert!(!vf.world.inject(vf.port, &tagged), "VLAN 100 is not ours yet");
        assert_eq!(vf.ask(&[0x0001_0004, 100]), Some([0xa001_0004]));
        assert!(vf.world.inject(vf.port, &tagged));
        let done = vf.rx_done(0);
        assert_eq!((done.status & 8, done.vlan), (8, 0x2064));
        assert_eq!(vf.rx_bytes(0, done.len as usize), if vme { frame(60) } else { tagged });
        assert_eq!(vf.read(0x1020), 68, "octets are those of the wire");
        vf.end_clean();
    }
}

#[test]
fn rlpml_limits_a_queue_except_on_an_82599() {
    for (part, limited) in [(IxgbePart::I82599, false), (IxgbePart::X540, true), (IxgbePart::X550, true)] {
        let mut vf = Vf::open(options(part));
        vf.reset();
        vf.start_rx(0, 2, 1 << 15 | 1004);
        vf.arm(N - 1);
        assert!(vf.world.inject(vf.port, &frame(1000)));
        assert_eq!(vf.world.inject(vf.port, &frame(1001)), !limited);
        vf.end_clean();
    }
}

/// Sends 64 flows to a VF whose queues 0 and 1 share the rig's ring; how many came through each, by the hash's low bit.
fn spread(vf: &mut Vf, source: fn(u16) -> Vec<u8>) -> [u32; 2] {
    let before = [vf.read(0x1010), vf.read(0x1050)];
    (0..16).for_each(|port| {
        let _ = vf.world.inject(vf.port, &source(port));
    });
    [vf.read(0x1010) - before[0], vf.read(0x1050) - before[1]]
}

fn udp_flow(port: u16) -> Vec<u8> {
    udp(MAC, PEER, [192, 0, 2, 1], (port, 7), 60)
}

fn ip_flow(port: u16) -> Vec<u8> {
    udp(MAC, PEER, [192, 0, 2, port as u8], (5, 7), 60)
}

/// Two receive queues: queue 1 has the second half of the receive buffers.
fn two_queues(options: IxgbeOptions) -> Vf {
    let mut vf = Vf::open(options);
    vf.reset();
    vf.start_rx(0, 2, 0);
    vf.arm(20);
    let base = vf.iova + RX_RING + 0x400;
    for (offset, value) in
        [(0x1040, base as u32), (0x1044, (base >> 32) as u32), (0x1048, 32 * 16), (0x1054, 2 | 1 << 25)]
    {
        vf.write(offset, value);
    }
    vf.write(0x1068, 1 << 25);
    for slot in 0..20 {
        vf.store(RX_RING + 0x400 + slot * 16, [vf.iova + RX_BUFFERS + (30 + slot) * 2048, 0]);
    }
    vf.ring(0x1058, 20);
    vf
}

#[test]
fn generation_b_spreads_by_its_own_key_and_table() {
    let mut vf = two_queues(options(IxgbePart::X550));
    assert_eq!(spread(&mut vf, udp_flow), [16, 0], "RSS is off");
    vf.end_clean();

    let mut vf = two_queues(options(IxgbePart::X550));
    for i in 0..10 {
        vf.write(0x3100 + 4 * i, 0x0403_0201u32.wrapping_mul(i + 1));
    }
    for i in 0..16 {
        vf.write(0x3200 + 4 * i, 0x0100_0100);
    }
    assert_eq!((vf.read(0x3104), vf.read(0x3200)), (0x0806_0402, 0x0100_0100));
    vf.write(0x3000, 1 | 1 << 17 | 1 << 22);
    assert_eq!(spread(&mut vf, udp_flow), [16, 0], "RQPL says one queue");
    assert_eq!(vf.rx_done(0).rss_type, 7);
    vf.end_clean();

    let mut vf = two_queues(options(IxgbePart::X550));
    for i in 0..10 {
        vf.write(0x3100 + 4 * i, 0x0403_0201u32.wrapping_mul(i + 1));
    }
    for i in 0..16 {
        vf.write(0x3200 + 4 * i, 0x0100_0100);
    }
    vf.write(0x300, 1 << 29);
    vf.write(0x3000, 1 | 1 << 17);
    assert_eq!(spread(&mut vf, udp_flow).iter().filter(|n| **n == 0).count(), 1, "one address pair, one queue");
    let [a, b] = spread(&mut vf, ip_flow);
    assert!(a > 2 && b > 2, "{a} {b}");
    assert_eq!(vf.rx_done(0).rss_type, 2, "UDP was not asked for");
    vf.end_clean();
}

#[test]
fn generation_a_spreads_by_the_pfs_table() {
    let mut vf = two_queues(IxgbeOptions { queues: 2, query_rss: true, ..options(IxgbePart::X540) });
    vf.api(3);
    vf.write(0x300, 1 << 29);
    let [a, b] = spread(&mut vf, ip_flow);
    assert!(a > 2 && b > 2, "{a} {b}");
    let done = vf.rx_done(0);
    assert_eq!((done.rss_type, done.hash % 2), (2, 0), "a stock PF hashes no UDP; even entries are queue 0");
    let table: [u32; 9] = vf.ask(&[0xa]).unwrap();
    assert_eq!((table[0], &table[1..]), (0xa000_000a, &[0x4444_4444; 8][..]));
    let key: [u32; 11] = vf.ask(&[0xb]).unwrap();
    assert_eq!((key[0], key[1], key[10]), (0xa000_000b, 0xda56_5a6d, 0xfa01_acbe));
    vf.end_clean();
}

#[test]
fn traffic_classes_come_by_priority() {
    let mut vf = Vf::open(IxgbeOptions { traffic_classes: 4, ..options(IxgbePart::X540) });
    vf.reset();
    vf.api(1);
    assert_eq!(vf.ask(&[9]), Some([0xa000_0009, 4, 4, 4, 0]));
    assert_eq!(vf.ask(&[0x0001_0004, 100]), Some([0x6001_0004]), "no VLANs beside classes");
    vf.start_rx(3, 2, 0);
    for slot in 0..4 {
        vf.set_rx(slot, RX_BUFFERS + slot as u64 * 2048);
    }
    vf.ring(0x10d8, 4);
    assert!(!vf.world.inject(vf.port, &frame(60)), "untagged frames are of the first class");
    for (priority, taken) in [(7, true), (6, true), (5, false), (0, false)] {
        let mut tagged = Vec::new();
        insert_tag(&frame(60), priority << 13, &mut tagged);
        assert_eq!(vf.world.inject(vf.port, &tagged), taken, "priority {priority}");
    }
    vf.end_clean();
}

#[test]
fn loopback_frames_are_marked() {
    let world = World::stepped(7);
    let mut vf = Vf::in_world(&world, options(IxgbePart::X540));
    let other = world.add_ixgbevf(options(IxgbePart::X540));
    world.connect_loopback(vf.port, other);
    vf.bring_up();
    assert!(world.inject(vf.port, &frame(60)));
    assert_eq!(vf.rx_done(0).status >> 18 & 1, 1);
    vf.end_clean();
}

#[test]
fn a_port_vlan_is_invisible() {
    let mut vf = Vf::running(IxgbeOptions { port_vlan: Some(77), ..options(IxgbePart::X550) });
    vf.api(3);
    assert_eq!(vf.ask(&[9]), Some([0xa000_0009, 4, 4, 1, 0]));
    assert_eq!(vf.ask(&[0x0001_0004, 100]), Some([0x6001_0004]));
    let mut tagged = Vec::new();
    insert_tag(&frame(60), 77, &mut tagged);
    assert!(vf.world.inject(vf.port, &tagged) && !vf.world.inject(vf.port, &frame(60)));
    assert_eq!((vf.rx_done(0).status & 8, vf.rx_done(0).vlan), (0, 0));
    assert_eq!(vf.rx_bytes(0, 60), frame(60));
    vf.send_plain(&frame(60));
    assert_eq!(vf.sent(), [tagged]);
    vf.end_clean();
}

#[test]
fn offloads_are_those_of_the_context() {
    let mut vf = Vf::running(options(IxgbePart::X550));
    let mut body = udp(MAC, PEER, [192, 0, 2, 1], (5, 7), 101);
    let at = layout(&body);
    let seed = crate::drivers::sim::frame::fold(crate::drivers::sim::frame::pseudo_header(&body, &at));
    body[40..42].copy_from_slice(&seed.to_be_bytes());
    let iova = vf.fill(0, &body);
    // The first descriptor's dword 3 counts; those of the others may be 0 (ixgbevf 4.7).
    vf.send(&[
        Context { l4: 0, vlan: 0x2064, ..PLAIN }.words(1),
        data(iova, 50, 101, VLE, TXSM | CC | 1 << 4),
        [iova + 50, 51 | (3u64 << 20 | 1 << 25 | 1 << 29) | (EOP | RS) as u64],
    ]);
    let sent = vf.sent().remove(0);
    assert_eq!(vlan_tag(&sent), Some(0x2064));
    assert_eq!(transport_checksum_good(&sent, &layout(&sent)), Some(true));
    vf.end_clean();
}
