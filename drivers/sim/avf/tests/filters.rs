//! Addresses, promiscuity and VLANs.
#![forbid(unsafe_code)]

use super::*;

const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 0xfb];

fn to(mac: [u8; 6]) -> Vec<u8> {
    let mut frame = frame(60);
    frame[..6].copy_from_slice(&mac);
    frame
}

fn addresses(rig: &Rig, list: &[[u8; 6]]) -> Bytes {
    let message = bytes().u16s(&[rig.vsi, list.len() as u16]);
    list.iter().fold(message, |m, mac| m.u8s(mac).u8s(&[2, 0])).u8s(&[0; 8])
}

#[test]
fn addresses_are_added_and_removed() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        assert!(rig.inject(&to(MAC.0)) && rig.inject(&to([0xff; 6])));
        assert!(!rig.inject(&to(PEER.0)) && !rig.inject(&to(GROUP)));
        let list = addresses(&rig, &[PEER.0, GROUP]);
        rig.done(10, list.clone());
        assert!(rig.inject(&to(PEER.0)) && rig.inject(&to(GROUP)));
        let stats = rig.stats();
        assert_eq!(stats[1..4], [2, 1, 1], "unicast, multicast, broadcast");
        rig.done(11, list);
        assert!(!rig.inject(&to(PEER.0)) && !rig.inject(&to(GROUP)));
        let many: Vec<_> = (0..18).map(|i| [2, 9, 9, 9, 9, i]).collect();
        let many = addresses(&rig, &many);
        assert_eq!(rig.ask(10, many).0, if part == AvfPart::E810 { -53 } else { -5 }, "18 and the VF's own");
        rig.end_clean();
    }
}

#[test]
fn an_administrative_address_is_the_only_one() {
    for (part, trusted) in PARTS.into_iter().flat_map(|part| [(part, false), (part, true)]) {
        let mut rig = Rig::talking(AvfOptions { mac_fixed: true, trusted, ..options(part) });
        let (own, other) = (addresses(&rig, &[MAC.0, GROUP]), addresses(&rig, &[PEER.0]));
        rig.done(10, own);
        let refused = if part == AvfPart::E810 { -53 } else { -5 };
        assert_eq!(rig.ask(10, other).0, if trusted { 0 } else { refused });
        rig.end_clean();
    }
}

#[test]
fn promiscuity_needs_trust_and_succeeds_without() {
    for trusted in [false, true] {
        let mut rig = Rig::running_with(AvfOptions { trusted, ..options(AvfPart::E810) });
        rig.done(14, bytes().u16s(&[rig.vsi, 2]));
        assert_eq!((rig.inject(&to(GROUP)), rig.inject(&to(PEER.0))), (trusted, false));
        rig.done(14, bytes().u16s(&[rig.vsi, 3]));
        assert_eq!((rig.inject(&to(GROUP)), rig.inject(&to(PEER.0))), (trusted, trusted));
        rig.end_clean();
    }
}

fn vlans(rig: &Rig, ids: &[u16]) -> Bytes {
    bytes().u16s(&[rig.vsi, ids.len() as u16]).u16s(ids).u16s(&[0])
}

#[test]
fn vlans_v1() {
    let mut rig = Rig::running(AvfPart::Xl710);
    let in_vlan = |id: u16| tagged(0x8100, 0x2000 | id, &frame(60));
    assert!(rig.inject(&in_vlan(100)), "until one is added every VLAN passes");
    assert_eq!((rig.rx_words(0)[1] & 4, rig.rx_words(0)[1] >> 38), (0, 64), "with its tag");
    let list = vlans(&rig, &[100, 200]);
    rig.done(12, list);
    assert!(rig.inject(&in_vlan(100)) && !rig.inject(&in_vlan(300)) && rig.inject(&frame(60)));
    // Adding switches stripping on (i40e).
    assert_eq!((rig.rx_words(1)[0] >> 16 & 0xffff, rig.rx_words(1)[1] & 4), (0x2064, 4));
    assert_eq!((rig.rx_bytes(1, 60), rig.rx_words(2)[1] & 4), (frame(60), 0));
    rig.done(28, bytes());
    assert!(rig.inject(&in_vlan(200)));
    assert_eq!((rig.rx_bytes(3, 64), rig.rx_words(3)[1] & 4), (in_vlan(200), 0));
    rig.done(27, bytes());
    let list = vlans(&rig, &[100, 200]);
    rig.done(13, list);
    assert!(rig.inject(&in_vlan(300)), "without any, every VLAN passes again");
    let many = vlans(&rig, &(1..=17).collect::<Vec<_>>());
    assert_eq!(rig.ask(12, many).0, -5, "at most 16");
    rig.end_clean();

    let mut rig = Rig::open(options(AvfPart::E810));
    rig.negotiate(1 | 1 << 16);
    rig.start_queues(1, 1);
    assert!(rig.inject(&in_vlan(100)));
    assert_eq!(rig.rx_words(0)[1] & 4, 4, "an ice PF strips from the start");
    let many = vlans(&rig, &(1..=17).collect::<Vec<_>>());
    rig.done(12, many);
    assert!(rig.inject(&in_vlan(8)) && !rig.inject(&in_vlan(9)), "success, and 8 were added");
    rig.end_clean();
}

fn toggle(rig: &Rig, outer: u32, inner: u32) -> Bytes {
    bytes().u32s(&[outer, inner]).u16s(&[rig.vsi]).u8s(&[0; 6])
}

#[test]
fn vlans_v2_in_single_vlan_mode() {
    let mut rig = Rig::running(AvfPart::E810);
    let caps = rig.done(51, bytes());
    assert_eq!(caps.len(), 40);
    let word = |at: usize| u32::from_le_bytes(caps[at..at + 4].try_into().unwrap());
    assert_eq!([word(0), word(4), word(16), word(20)], [0, 1, 0, 0x8000_0101]);
    let in_vlan = |id: u16| tagged(0x8100, id, &frame(60));
    let filter = bytes().u16s(&[rig.vsi, 1]).u32s(&[0]).u16s(&[100, 0, 0x8100, 0]).u8s(&[0; 24]);
    rig.done(52, filter.clone());
    assert!(rig.inject(&in_vlan(100)) && !rig.inject(&in_vlan(101)));
    assert_eq!(rig.rx_words(0)[1] & 4, 0, "stripping is off");
    let on = toggle(&rig, 0, 1);
    rig.done(54, on.clone());
    assert!(rig.inject(&in_vlan(100)));
    assert_eq!((rig.rx_words(1)[0] >> 16 & 0xffff, rig.rx_words(1)[1] & 4), (100, 4));
    rig.done(55, on);
    rig.done(53, filter);
    assert!(rig.inject(&in_vlan(101)));
    assert_eq!(rig.rx_words(2)[1] & 4, 0);
    rig.end_clean();
}

#[test]
fn vlans_v2_in_double_vlan_mode() {
    for rxdid in [1, 22] {
        let mut rig = Rig::talking(AvfOptions { double_vlan: true, ..options(AvfPart::E810) });
        rig.start_queues(1, rxdid);
        let on = toggle(&rig, 2, 1);
        rig.done(54, on);
        let filter = bytes().u16s(&[rig.vsi, 1]).u32s(&[0]).u8s(&[0; 8]).u16s(&[7, 0, 0x88a8, 0]).u8s(&[0; 16]);
        rig.done(52, filter);
        assert!(rig.inject(&tagged(0x88a8, 7, &tagged(0x8100, 0x2064, &frame(60)))));
        let words = rig.rx_words(0);
        let (tag1, tag1_there) = if rxdid == 1 { (words[0], words[1] >> 2) } else { (words[1], words[1] >> 13) };
        let tag2_there = words[2] >> if rxdid == 1 { 0 } else { 11 };
        assert_eq!((tag1 >> 16 & 0xffff, tag1_there & 1, words[2] >> 48, tag2_there & 1), (0x2064, 1, 7, 1));
        assert_eq!(rig.rx_bytes(0, 60), frame(60));
        assert!(!rig.inject(&tagged(0x88a8, 8, &frame(60))));
        rig.end_clean();
    }
}
