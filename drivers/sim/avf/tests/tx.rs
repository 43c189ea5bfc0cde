//! The transmit engine.
#![forbid(unsafe_code)]

use super::*;

/// IIPT IPv4 with checksum, L4T UDP, and the offsets of an untagged UDP/IPv4 packet.
const UDP4: u64 = 0x360 << 4 | 7 << 16 | 5 << 23 | 2 << 30;
/// The same for TCP.
const TCP4: u64 = 0x160 << 4 | 7 << 16 | 5 << 23 | 5 << 30;

#[test]
fn plain_frames_go_out_and_done_comes_only_where_rs_was() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        let long = frame(1514);
        let at = rig.fill(&long);
        assert_eq!(data(at, 64, EOP | RS)[1], 0x0000_0100_0000_0070, "the vector of the fact sheet");
        let first = rig.send(&[data(at, 1000, 0), data(at + 1000, 514, EOP)]);
        assert_eq!(rig.sent(), [long]);
        assert!(!rig.tx_done(first) && !rig.tx_done(first + 1));
        let last = rig.send_plain(&frame(60));
        assert!(rig.tx_done(last) && !rig.tx_done(last - 1));
        assert_eq!(rig.load(TX_RINGS + last as u64 * 16)[1], 0xf);
        let short = rig.send_plain(&frame(60)[..17]);
        assert!(rig.tx_done(short));
        assert_eq!(rig.sent().iter().map(Vec::len).collect::<Vec<_>>(), [60, 60], "padded");
        assert_eq!(rig.stats()[6..8], [1514 + 60 + 60, 3]);
        rig.end_clean();
    }
}

#[test]
fn rings_wrap_many_times() {
    let mut rig = Rig::running(AvfPart::E810);
    for i in 0..500 {
        let slot = rig.send_plain(&frame(60 + i));
        assert!(rig.tx_done(slot));
        assert_eq!(rig.sent(), [frame(60 + i)]);
    }
    rig.end_clean();
}

#[test]
fn checksums_are_inserted() {
    let mut rig = Rig::running(AvfPart::E810);
    let right = frame(100);
    let mut bare = right.clone();
    bare[24..26].fill(0);
    let at = frames::layout(&bare);
    let seed = frames::fold(frames::pseudo_header(&bare, &at));
    bare[40..42].copy_from_slice(&seed.to_be_bytes());
    let iova = rig.fill(&bare);
    rig.send(&[data(iova, 100, EOP | RS | UDP4)]);
    assert_eq!(rig.sent(), [right]);
    rig.end_clean();
}

#[test]
fn tso_makes_segments() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        let mut packet = frame(54 + 2500);
        packet[23] = 6;
        packet[46] = 5 << 4;
        packet[47] = 0x18; // ACK, PSH
        packet[24..26].fill(0);
        packet[38..42].copy_from_slice(&1000u32.to_be_bytes());
        packet[50..52].fill(0);
        let sum = frames::fold(frames::sum(&packet[26..34], 6));
        packet[50..52].copy_from_slice(&sum.to_be_bytes());
        let at = rig.fill(&packet);
        let context = [0, 1 | 1 << 4 | 2500 << 30 | 1000 << 50];
        let first = rig.send(&[context, data(at, 54, TCP4), data(at + 54, 2500, EOP | RS | TCP4)]);
        assert!(rig.tx_done(first + 2));
        let sent = rig.sent();
        assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1054, 1054, 554]);
        for (i, segment) in sent.iter().enumerate() {
            let layout = frames::layout(segment);
            assert!(frames::ipv4_checksum_good(segment, &layout));
            assert_eq!(frames::transport_checksum_good(segment, &layout), Some(true));
            assert_eq!(segment[38..42], (1000 + 1000 * i as u32).to_be_bytes());
            assert_eq!(segment[47], if i == 2 { 0x18 } else { 0x10 });
        }
        rig.end_clean();
    }
}

#[test]
fn tags_are_inserted() {
    // V1: without being asked.
    let mut rig = Rig::running(AvfPart::Xl710);
    let at = rig.fill(&frame(60));
    rig.send(&[data(at, 60, EOP | RS | 0x80 | 0x2064 << 48)]);
    assert_eq!(rig.sent(), [tagged(0x8100, 0x2064, &frame(60))]);
    rig.end_clean();
    // V2: outer from the context, inner from the descriptor, once both are switched on.
    let mut rig = Rig::running_with(AvfOptions { double_vlan: true, ..options(AvfPart::E810) });
    rig.done(56, bytes().u32s(&[2, 1]).u16s(&[rig.vsi]).u8s(&[0; 6]));
    let at = rig.fill(&frame(60));
    rig.send(&[[7 << 32, 1 | 4 << 4], data(at, 60, EOP | RS | 0x80 | 0x2064 << 48)]);
    assert_eq!(rig.sent(), [tagged(0x88a8, 7, &tagged(0x8100, 0x2064, &frame(60)))]);
    rig.end_clean();
}

#[test]
fn an_ice_vf_sends_once_configured_and_an_i40e_vf_once_enabled() {
    for part in PARTS {
        let mut rig = Rig::talking(options(part));
        let config = rig.queue_config(1, 1);
        rig.done(6, config);
        rig.send_plain(&frame(60));
        assert_eq!(rig.sent().len(), (part == AvfPart::E810) as usize);
        rig.end_clean();
    }
}

#[test]
fn a_tail_of_the_last_user_means_nothing() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        rig.send_plain(&frame(60));
        assert_eq!(rig.sent().len(), 1);
        rig.done(9, bytes().u16s(&[rig.vsi, 0]).u32s(&[1, 1]));
        rig.start_queues(1, 1);
        assert!(rig.sent().is_empty());
        rig.send_plain(&frame(61));
        assert_eq!(rig.sent(), [frame(61)]);
        rig.end_clean();
    }
}
