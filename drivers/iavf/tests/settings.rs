//! What the PF is told: addresses, VLANs, RSS, promiscuity, and what happens when it refuses.

use super::*;
use crate::port::rss::Rss;

fn group(last: u8) -> MacAddr {
    MacAddr([0x01, 0, 0x5E, 0, 0, last])
}

fn rss() -> Rss {
    Rss { key: (0..52).collect(), table: (0..64).map(|n| n % 4).collect() }
}

fn everything() -> Settings {
    Settings {
        mac: Some(mac(7)),
        vlans: [100, 200].into(),
        multicast: vec![group(1), group(2)],
        unicast: vec![mac(9)],
        promiscuous: true,
        all_multicast: true,
        rss: Some(rss()),
        ..settings()
    }
}

#[test]
fn settings_reach_the_pf_in_order() {
    let mut vf = ready();
    vf.fake().take_opcodes();
    vf.restore(&everything()).unwrap();
    assert_eq!(vf.mac(), mac(7));
    let sent = std::mem::take(&mut vf.fake().requests);
    let opcodes: Vec<u32> = sent.iter().map(|(opcode, _)| *opcode).collect();
    // The new address, then away with the assigned one; groups; another address; insertion; stripping before the
    // VLANs; table, key, packet types.
    assert_eq!(opcodes, [10, 11, 10, 10, 56, 54, 52, 52, 24, 23, 25, 26, 14]);
    let bytes = |n: usize| &sent[n].1[..];
    let head = |count| [0x17, 0, count, 0];
    let assigned = [0x02, 0, 0, 0xAA, 0xBB, 0xCC];
    assert_eq!(bytes(0), [&head(1)[..], &mac(7).0, &[1, 0], &[0; 8]].concat());
    assert_eq!(bytes(1), [&head(1)[..], &assigned, &[1, 0], &[0; 8]].concat());
    assert_eq!(bytes(2), [&head(2)[..], &group(1).0, &[2, 0], &group(2).0, &[2, 0], &[0; 8]].concat());
    assert_eq!(bytes(3), [&head(1)[..], &mac(9).0, &[2, 0], &[0; 8]].concat());
    // Inner, TPID 8100.
    assert_eq!(bytes(4), [0, 0, 0, 0, 1, 0, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes(5), bytes(4));
    assert_eq!(bytes(6), [&[0x17, 0, 1, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0x00, 0x81, 0, 0][..], &[0; 24]].concat());
    let table: Vec<u8> = (0..64).map(|n| n % 4).collect();
    assert_eq!(bytes(8), [&[0x17, 0, 64, 0][..], &table, &[0]].concat());
    let key: Vec<u8> = (0..52).collect();
    assert_eq!(bytes(9), [&[0x17, 0, 52, 0][..], &key, &[0]].concat());
    // Of 63, 33 and 31 the PF can do all, and 63 is not wanted.
    assert_eq!(bytes(11), (1u64 << 33 | 1 << 31).to_le_bytes());
    assert_eq!(bytes(12), [0x17, 0, 3, 0]);
    assert_eq!(vf.rss().unwrap(), rss());
}

#[test]
fn a_reset_makes_the_pf_forget_and_restore_tells_it_again() {
    let mut vf = ready();
    vf.restore(&everything()).unwrap();
    let first = vf.fake().take_opcodes();
    vf.reset(false).unwrap();
    vf.fake().take_opcodes();
    vf.restore(&everything()).unwrap();
    assert_eq!(first[5..], vf.fake().take_opcodes());
}

#[test]
fn the_outer_tag_is_used_where_the_pf_handles_that() {
    let vlan = [[0x8000_0001, 0x8000_0001], [0x8000_0401, 0x8000_0101], [0x8000_0201, 0x8000_0101]];
    let mut vf = ready_with(Fake { vlan, ..Fake::new(0x1889) });
    vf.restore(&everything()).unwrap();
    assert_eq!(vf.fake().last(54), [1, 0, 0, 0, 0, 0, 0, 0, 0x17, 0, 0, 0, 0, 0, 0, 0]);
    let fake = vf.fake();
    assert_eq!(fake.last(56), fake.last(54));
    let expected = [&[0x17, 0, 1, 0, 0, 0, 0, 0][..], &[0; 8], &[200, 0, 0, 0, 0x00, 0x81, 0, 0], &[0; 16]].concat();
    assert_eq!(vf.fake().last(52), expected);
}

#[test]
fn stripping_is_on_while_there_are_vlans() {
    for (caps, on, off, add, del) in [(u32::MAX, 54, 55, 52, 53), (!(1 << 15 | LARGE), 27, 28, 12, 13)] {
        let mut vf = ready_with(Fake { caps, ..Fake::new(0x1889) });
        vf.restore(&settings()).unwrap();
        let sent = vf.fake().take_opcodes();
        assert!(sent.contains(&off) && !sent.contains(&on), "{sent:?}");
        vf.set_vlan(5, true).unwrap();
        vf.set_vlan(6, true).unwrap();
        vf.set_vlan(5, false).unwrap();
        assert_eq!(vf.fake().take_opcodes(), [on, add, add, del]);
        vf.set_vlan(6, false).unwrap();
        assert_eq!(vf.fake().take_opcodes(), [del, off]);
        // A refused id changes nothing.
        vf.fake().refuses.push((add, -53));
        assert!(one_line(vf.set_vlan(7, true).unwrap_err()).contains("trust on"));
        assert_eq!(vf.fake().take_opcodes(), [on, add, off]);
    }
}

#[test]
fn vlans_are_refused_where_the_pf_has_none_to_give() {
    for fake in [
        Fake { vlan: [[0; 2]; 3], ..Fake::new(0x1889) },
        Fake { caps: !(1 << 15 | 1 << 16), ..Fake::new(0x1889) },
        Fake { lies: vec![(51, vec![0xFF; 39])], ..Fake::new(0x1889) },
        Fake { refuses: vec![(51, -64)], ..Fake::new(0x1889) },
    ] {
        let mut vf = ready_with(fake);
        vf.restore(&settings()).unwrap();
        assert!(one_line(vf.set_vlan(5, true).unwrap_err()).contains("port VLAN"));
        vf.start_rings(&[ring(0, 2048)], &[ring(0, 0)]).unwrap();
    }
    assert!(matches!(ready().set_vlan(4095, true), Err(Error::Config(_))));
}

#[test]
fn lists_of_addresses_are_told_as_changes() {
    let mut vf = ready();
    vf.restore(&settings()).unwrap();
    vf.fake().take_opcodes();
    vf.set_multicast(&[group(1), group(2), group(1)]).unwrap();
    assert_eq!(vf.fake().last(10)[2], 2, "twice is once");
    vf.set_multicast(&[group(2), group(3)]).unwrap();
    assert_eq!((vf.fake().last(11)[2..10].to_vec(), vf.fake().last(10)[2..10].to_vec()), {
        let of = |mac: MacAddr| [&[1, 0][..], &mac.0].concat();
        (of(group(1)), of(group(3)))
    });
    vf.fake().take_opcodes();
    vf.set_multicast(&[group(3), group(2)]).unwrap();
    vf.set_unicast(&[]).unwrap();
    // The station's own address is one already.
    vf.set_unicast(&[vf.mac()]).unwrap();
    assert_eq!(vf.fake().take_opcodes(), [0u32; 0]);
    // More than a message takes.
    let many: Vec<MacAddr> = (0..600u16).map(|n| MacAddr([1, 0, 0x5E, 1, (n >> 8) as u8, n as u8])).collect();
    vf.set_multicast(&many).unwrap();
    let added = vf.fake().requests.iter().filter(|(opcode, _)| *opcode == 10);
    assert_eq!(added.map(|(_, bytes)| u16::from_le_bytes([bytes[2], bytes[3]])).collect::<Vec<_>>(), [510, 90]);
}

#[test]
fn a_refused_list_leaves_nothing_half_done() {
    let mut vf = ready();
    vf.restore(&settings()).unwrap();
    vf.set_multicast(&[group(1)]).unwrap();
    vf.fake().take_opcodes();
    vf.fake().refuses.push((10, -5));
    assert!(one_line(vf.set_multicast(&[group(1), group(2), group(3)]).unwrap_err()).contains("18 filters"));
    // The PF may have taken some of them.
    assert_eq!(vf.fake().take_opcodes(), [10, 11]);
    vf.set_multicast(&[group(1)]).unwrap();
    assert_eq!(vf.fake().take_opcodes(), [0u32; 0], "what was there is still there");
    // One alone it took or not, and it may have been there before.
    assert!(one_line(vf.set_multicast(&[group(1), group(2)]).unwrap_err()).contains(&group(2).to_string()));
    assert_eq!(vf.fake().take_opcodes(), [10]);
    assert!(vf.set_unicast(&[mac(3)]).is_err());
    assert!(matches!(vf.set_unicast(&[group(3)]), Err(Error::Config(_))));
}

#[test]
fn an_address_that_the_host_fixed_is_kept_and_named() {
    let mut vf = ready_with(Fake { refuses: vec![(10, -53)], ..Fake::new(0x1889) });
    let assigned = vf.mac();
    vf.restore(&settings()).unwrap();
    assert!(one_line(vf.set_mac(mac(7)).unwrap_err()).contains("ip link set dev PF vf N mac 02:00:00:00:00:07"));
    assert_eq!(vf.mac(), assigned);
    vf.set_mac(assigned).unwrap();
    assert!(matches!(vf.set_mac(group(1)), Err(Error::Config(_))));
    vf.fake().refuses.clear();
    vf.set_mac(mac(7)).unwrap();
    vf.fake().take_opcodes();
    vf.set_mac(mac(7)).unwrap();
    assert_eq!((vf.mac(), vf.fake().take_opcodes()), (mac(7), vec![0u32; 0]));
}

#[test]
fn each_refusal_in_turn_is_an_answer_and_no_silence() {
    for opcode in [10, 14, 23, 24, 26, 52, 54, 56] {
        let mut vf = ready_with(Fake { refuses: vec![(opcode, -60)], ..Fake::new(0x1889) });
        let text = one_line(vf.restore(&everything()).unwrap_err());
        assert!(!text.contains("timed out"), "{opcode}: {text}");
        assert_eq!(vf.check(), Health::Running(Link::default()), "{opcode}");
        vf.fake().refuses.clear();
        vf.reset(false).unwrap();
        vf.restore(&everything()).unwrap();
    }
    // A PF that does not say what it can hash, or will not stop stripping, or counts nothing, is no obstacle.
    let mut vf = ready_with(Fake { refuses: vec![(25, -64), (55, -64), (11, -5), (15, -5)], ..Fake::new(0x1889) });
    vf.restore(&Settings { vlans: BTreeSet::new(), ..everything() }).unwrap();
    assert_eq!(vf.counters(), Counters { rx_missed: Some(0), ..Default::default() });
}

#[test]
fn rss_is_checked_before_it_reaches_the_pf() {
    let mut vf = ready();
    vf.fake().take_opcodes();
    assert!(vf.rss().is_err(), "nothing was set");
    assert!(matches!(vf.set_rss(&Rss { key: vec![0; 40], ..rss() }), Err(Error::Config(_))));
    assert!(matches!(vf.set_rss(&Rss { table: vec![4; 64], ..rss() }), Err(Error::Config(_))));
    assert_eq!(vf.fake().take_opcodes(), [0u32; 0]);
}

#[test]
fn an_mtu_beyond_the_port_is_refused() {
    let mut vf = ready_with(Fake { max_mtu: 1600, ..Fake::new(0x1889) });
    assert!(matches!(vf.restore(&Settings { mtu: 1575, ..settings() }), Err(Error::Config(_))));
    vf.restore(&Settings { mtu: 1574, ..settings() }).unwrap();
}
