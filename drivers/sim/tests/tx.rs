//! The transmit engine.
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::frame::{
    Ip, Transport, fold, ipv4_checksum_good, layout, pseudo_header, sum, transport_checksum_good, vlan_tag,
};

const IPV4_UDP: Context = Context { l4: 0, l4_len: 8, ..PLAIN };
const IPV4_TCP: Context = Context { l4: 1, l4_len: 20, ..PLAIN };

/// A TCP frame with checksum fields as hardware wants them: IP 0, TCP the pseudo-header sum without length if `tso`.
fn tcp(v6: bool, payload: usize, tso: bool) -> Vec<u8> {
    let mut frame = [MAC.0, PEER.0].concat();
    let len = 20 + payload;
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((if tso { 0 } else { len as u16 }).to_be_bytes());
        frame.extend([6, 64]);
        frame.extend([0x20; 32]);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((if tso { 0 } else { 20 + len as u16 }).to_be_bytes());
        frame.extend([0x12, 0xff, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
    }
    let l4 = frame.len();
    frame.extend([0x10, 0, 0x20, 0, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x50, 0x19, 1, 0, 0, 0, 0, 0]);
    frame.extend((0..payload).map(|i| i as u8));
    let addresses = if v6 { l4 - 32..l4 } else { l4 - 8..l4 };
    let seed = fold(sum(&frame[addresses], 6 + if tso { 0 } else { len as u64 }));
    frame[l4 + 16..l4 + 18].copy_from_slice(&seed.to_be_bytes());
    frame
}

#[test]
fn plain_frames_go_out_and_dd_comes_only_where_rs_was() {
    let mut rig = Rig::running(Part::I82576);
    let body = frame(300);
    let at = rig.fill(0, &body);
    let slot = rig.send(&[
        data(at, 100, 300, 0, 0),
        data(at + 100, 50, 300, 0, 0),
        data(at + 150, 150, 300, EOP, 0),
        data(at + 1024, 64, 64, EOP | RS, 0),
    ]);
    assert_eq!(rig.sent(), [body, vec![0; 64]]);
    assert_eq!([0, 1, 2, 3].map(|i| rig.tx_done(slot + i)), [false, false, false, true]);
    assert_eq!((rig.read(0x3810), rig.read(0xf14), rig.read(0xf34)), (4, 2, 300 + 64 + 8));
    rig.send_plain(&frame(42));
    assert_eq!(rig.sent()[0].len(), 60, "short frames are padded");
    rig.end_clean();
}

#[test]
fn a_frame_waits_for_its_last_descriptor() {
    let mut rig = Rig::running(Part::I82576);
    let at = rig.fill(0, &frame(120));
    rig.send(&[data(at, 60, 120, 0, 0)]);
    assert!(rig.sent().is_empty());
    rig.send(&[data(at + 60, 60, 120, EOP | RS, 0)]);
    assert_eq!(rig.sent(), [frame(120)]);
    rig.end_clean();
}

#[test]
fn rings_wrap_many_times() {
    let mut rig = Rig::running(Part::I82576);
    for i in 0..300u32 {
        let slot = rig.send_plain(&frame(60 + i as usize % 100));
        assert_eq!(slot, i % N);
        assert!(rig.tx_done(slot));
    }
    assert_eq!(rig.sent().len(), 300);
    rig.end_clean();
}

#[test]
fn tags_are_inserted_from_the_context() {
    let mut rig = Rig::running(Part::I82576);
    let at = rig.fill(0, &frame(60));
    rig.send(&[Context { vlan: 0x2064, ..PLAIN }.words(1), data(at, 60, 60, EOP | RS | VLE, 1 << 4)]);
    rig.send(&[data(at, 60, 60, EOP | RS | VLE, 1 << 4)]); // the context persists
    for sent in rig.sent() {
        assert_eq!((sent.len(), vlan_tag(&sent)), (64, Some(0x2064)));
        assert_eq!([&sent[..12], &sent[16..]].concat(), frame(60));
    }
    rig.end_clean();
}

#[test]
fn checksums_are_inserted() {
    let mut rig = Rig::running(Part::I82576);
    // UDP over IPv4: IP field 0, UDP field the pseudo-header sum.
    let mut udp = frame(101);
    let good = udp.clone();
    let at = layout(&udp);
    let seed = fold(pseudo_header(&udp, &at));
    udp[24..26].fill(0);
    udp[40..42].copy_from_slice(&seed.to_be_bytes());
    let iova = rig.fill(0, &udp);
    rig.send(&[IPV4_UDP.words(0), data(iova, 101, 101, EOP | RS, IXSM | TXSM)]);
    assert_eq!(rig.sent(), [good]);

    for v6 in [false, true] {
        let segment = tcp(v6, 77, false);
        let context = Context { ipv4: !v6, ip_len: if v6 { 40 } else { 20 }, ..IPV4_TCP };
        let iova = rig.fill(0, &segment);
        let wanted = if v6 { TXSM } else { IXSM | TXSM };
        rig.send(&[context.words(0), data(iova, segment.len(), segment.len(), EOP | RS, wanted)]);
        let sent = rig.sent().remove(0);
        let at = layout(&sent);
        assert_eq!(at.transport, Transport::Tcp);
        assert!(v6 || ipv4_checksum_good(&sent, &at));
        assert_eq!(transport_checksum_good(&sent, &at), Some(true), "{sent:02x?}");
    }

    let mut sctp = frame(60);
    sctp[23] = 132;
    let iova = rig.fill(0, &sctp);
    rig.send(&[Context { l4: 2, l4_len: 12, ..PLAIN }.words(0), data(iova, 60, 60, EOP | RS, TXSM)]);
    let sent = rig.sent().remove(0);
    assert_eq!(transport_checksum_good(&sent, &layout(&sent)), Some(true));
    rig.end_clean();
}

#[test]
fn tso_makes_segments_that_are_right_in_every_field() {
    for v6 in [false, true] {
        for vlan in [false, true] {
            let mut rig = Rig::running(Part::I350);
            let big = tcp(v6, 2500, true);
            let header = if v6 { 74 } else { 54 };
            let context = Context { ipv4: !v6, ip_len: if v6 { 40 } else { 20 }, mss: 1000, vlan: 100, ..IPV4_TCP };
            let iova = rig.fill(0, &big);
            let wanted = if v6 { TXSM } else { IXSM | TXSM };
            let tag = if vlan { VLE } else { 0 };
            let slot = rig.send(&[
                context.words(0),
                data(iova, 1000, 2500, TSE | tag, wanted),
                data(iova + 1000, big.len() - 1000, 2500, TSE | tag | EOP | RS, wanted),
            ]);
            assert!(rig.tx_done(slot + 2));
            let sent = rig.sent();
            assert_eq!(sent.len(), 3);
            let mut payload = Vec::new();
            for (i, segment) in sent.iter().enumerate() {
                assert_eq!(vlan_tag(segment).is_some(), vlan);
                let at = layout(segment);
                assert!(matches!((at.ip, v6), (Ip::V4 { .. }, false) | (Ip::V6 { .. }, true)), "{at:?}");
                assert_eq!(at.end, segment.len());
                assert!(v6 || ipv4_checksum_good(segment, &at));
                assert_eq!(transport_checksum_good(segment, &at), Some(true));
                let tcp = &segment[at.l4..];
                let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
                assert_eq!(sequence, 0xffff_fff0u32.wrapping_add(1000 * i as u32));
                assert_eq!(tcp[13], if i == 2 { 0x19 } else { 0x10 }, "FIN and PSH in the last only");
                if !v6 {
                    assert_eq!(segment[at.l3 + 4..at.l3 + 6], (0x12ff + i as u16).to_be_bytes());
                }
                payload.extend_from_slice(&tcp[20..]);
            }
            assert_eq!(payload, big[header..]);
            assert_eq!(rig.read(0xf14), 3);
            rig.end_clean();
        }
    }
}

#[test]
fn nothing_is_sent_without_link_and_the_second_queue_works() {
    let mut rig = Rig::running(Part::I82576);
    rig.world.link(rig.port, false);
    let slot = rig.send_plain(&frame(60));
    assert!(rig.sent().is_empty() && !rig.tx_done(slot));
    rig.world.link(rig.port, true);
    rig.world.step();
    assert!(rig.sent().len() == 1 && rig.tx_done(slot));

    let base = rig.iova + TX_RING + 0x1000;
    for (offset, value) in
        [(0x3900, base as u32), (0x3904, (base >> 32) as u32), (0x3908, N * 16), (0x3910, 0), (0x3914, 0)]
    {
        rig.write(offset, value);
    }
    rig.write(0x3938, 0);
    rig.write(0x393c, 0);
    rig.write(0x3928, 1 << 25);
    let at = rig.fill(0, &frame(60));
    rig.store(TX_RING + 0x1000, data(at, 60, 60, EOP | RS, 0));
    rig.ring(0x3918, 1);
    assert_eq!(rig.sent(), [frame(60)]);
    rig.end_clean();
}
