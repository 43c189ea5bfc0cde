//! What the program asks of the PF, and what becomes of it: address, filters, modes, RSS.

use super::fake::{Fake, KEY, RETA, XCAST, with_payload};
use super::{AGREEMENT, API, I82599, X540, X550, groups, mac, ready, ready_on, refused, ring, running, settings};
use crate::addr::MacAddr;
use crate::error::Error;
use crate::port::device::{Device, Settings};
use crate::port::rss::Rss;

#[test]
fn settings_reach_the_pf_in_order() {
    let mut vf = ready(X540);
    let wanted = Settings {
        mac: Some(mac(1)),
        vlans: [100, 200].into(),
        multicast: vec!["01:00:5e:00:00:fb".parse().unwrap()],
        unicast: vec![mac(9), mac(10)],
        all_multicast: true,
        ..settings()
    };
    vf.restore(&wanted).unwrap();
    let expected: [&[u32]; 9] = [
        &[0x0000_0002, 0x0000_0002, 0x0100],
        // 1500 + 18, and room for two tags.
        &[0x0000_0005, 1526],
        &[0x0001_0003, 0x0FB0],
        &[0x0000_0006, 0x0000_0002, 0x0100],
        &[0x0001_0006, 0x0000_0002, 0x0900],
        &[0x0002_0006, 0x0000_0002, 0x0A00],
        &[0x0001_0004, 100],
        &[0x0001_0004, 200],
        &[0x0000_000C, 2],
    ];
    assert_eq!(vf.fake().requests[AGREEMENT.len()..], expected);
    assert_eq!(vf.mac(), mac(1));
}

#[test]
fn the_frame_size_is_told_after_every_reset_and_never_beyond_what_a_pf_answers() {
    let mut vf = ready(I82599);
    for _ in 0..2 {
        vf.restore(&settings()).unwrap();
        assert!(vf.fake().requests.contains(&vec![5, 1518]));
        vf.fake().requests.clear();
        vf.reset(false).unwrap();
    }
    // 1500 + 18 there: with one byte more an 82599 PF at MTU 1500 disables the VF.
    for (device, mtu, asked) in [(I82599, 9702, 9720), (X540, 9000, 9026), (X550, 9702, 9728)] {
        let mut vf = ready(device);
        vf.restore(&Settings { mtu, ..settings() }).unwrap();
        assert!(vf.fake().requests.contains(&vec![5, asked]), "{device:#x} {mtu}");
        vf.fake().requests.clear();
        assert!(matches!(vf.restore(&Settings { mtu: 9703, ..settings() }), Err(Error::Config(_))));
        assert!(!vf.fake().requests.iter().any(|request| request[0] == 5));
    }
}

#[test]
fn group_addresses_are_hashed_as_the_pf_filters() {
    for (filter_type, hash) in [(0, 0xFB0), (1, 0xF60), (2, 0xEC0), (3, 0xB00)] {
        let mut vf = ready_on(with_payload(Fake::new(X540), 1, &[filter_type]));
        vf.set_multicast(&["01:00:5e:00:00:fb".parse().unwrap()]).unwrap();
        assert_eq!(vf.last_request(), [0x0001_0003, hash], "type {filter_type}");
    }
    // Also where the PF assigns no address.
    let mut vf = ready_on(Fake { mac: None, ..with_payload(Fake::new(X540), 1, &[3]) });
    vf.set_multicast(&["01:00:5e:00:00:fb".parse().unwrap()]).unwrap();
    assert_eq!(vf.last_request(), [0x0001_0003, 0xB00]);
}

#[test]
fn refusals_teach_and_are_no_transport_failure() {
    let mut vf = running(X540);
    vf.fake().refuses = vec![2, 3, 4, 5, 6, XCAST];
    let before = vf.mac();
    refused(vf.set_mac(mac(1)), "ip link set dev PF vf N mac");
    assert_eq!(vf.mac(), before);
    refused(vf.set_vlan(5, true), "vlan 0");
    refused(vf.set_multicast(&[]), "multicast");
    refused(vf.set_unicast(&[mac(2)]), "trust on");
    refused(vf.set_promiscuous(true, false), "trust on");
    refused(vf.set_promiscuous(false, true), "trust on");
    assert_eq!(vf.check(), super::UP);
    // What was only inherited may be refused: the address, clearing an empty list, and what the PF does anyway.
    vf.fake().refuses = vec![2, XCAST];
    vf.restore(&settings()).unwrap();
    vf.fake().refuses = vec![5];
    refused(vf.restore(&settings()), "1500");
}

#[test]
fn requests_that_make_no_sense_are_not_sent() {
    let mut vf = ready(X540);
    let sent = vf.fake().requests.len();
    for result in [vf.set_mac(MacAddr::ZERO), vf.set_mac(MacAddr::BROADCAST), vf.set_vlan(4095, true)] {
        assert!(matches!(result, Err(Error::Config(_))), "{result:?}");
    }
    assert_eq!(vf.fake().requests.len(), sent);
    assert!(vf.set_unicast(&[MacAddr::BROADCAST]).is_err());
}

#[test]
fn less_than_was_asked_for_is_a_refusal_although_the_pf_agrees() {
    // An untrusted VF: the PF answers yes, and grants broadcast and filtered multicast.
    let mut vf = ready_on(with_payload(Fake::new(X540), XCAST, &[1]));
    vf.restore(&settings()).unwrap();
    refused(vf.set_promiscuous(false, true), "multicast");
    assert_eq!(vf.last_request(), [0x0C, 2]);
    refused(vf.set_promiscuous(true, false), "unicast");
    assert_eq!(vf.last_request(), [0x0C, 3]);
    refused(vf.restore(&Settings { promiscuous: true, ..settings() }), "unicast");
    // A later change repeats only what the PF permits.
    vf.reset(false).unwrap();
    vf.restore(&settings()).unwrap();
    refused(vf.set_promiscuous(true, true), "unicast");
    vf.set_promiscuous(false, false).unwrap();
    assert_eq!(vf.last_request(), [0x0C, 1]);
}

#[test]
fn modes_are_not_asked_of_a_pf_that_is_too_old() {
    for (spoken, all_multicast, promiscuous) in
        [(&[0, 2, 3, 4][..], true, true), (&[0, 2, 3], true, false), (&[0, 2], false, false), (&[0], false, false)]
    {
        let mut vf = ready_on(with_payload(Fake::new(X540), API, spoken));
        vf.restore(&settings()).unwrap();
        assert_eq!(vf.set_promiscuous(false, true).is_ok(), all_multicast, "{spoken:?}");
        assert_eq!(vf.set_promiscuous(true, false).is_ok(), promiscuous, "{spoken:?}");
        let asked = |mode| vf.vf.bus.requests.contains(&vec![0x0C, mode]);
        assert_eq!((asked(1), asked(2), asked(3)), (all_multicast, all_multicast, promiscuous), "{spoken:?}");
    }
}

#[test]
fn more_groups_than_fit_mean_all_multicast() {
    let mut vf = ready(X540);
    vf.set_multicast(&groups(30)).unwrap();
    assert_eq!(vf.last_request()[0], 30 << 16 | 3);
    vf.set_multicast(&[groups(30), groups(30)].concat()).unwrap();
    assert_eq!(vf.last_request()[0], 30 << 16 | 3, "one hash counts once");
    vf.set_multicast(&groups(31)).unwrap();
    assert_eq!(vf.last_request(), [0x0C, 2]);
    // The program's own wishes do not switch it off, nor does the end of the overflow switch off theirs.
    vf.set_promiscuous(false, false).unwrap();
    assert_eq!(vf.last_request(), [0x0C, 2]);
    vf.set_multicast(&groups(3)).unwrap();
    assert_eq!(vf.last_request(), [0x0C, 1]);
    vf.set_promiscuous(false, true).unwrap();
    vf.set_multicast(&groups(31)).unwrap();
    vf.set_multicast(&[]).unwrap();
    assert_eq!(vf.last_request(), [0x0C, 2]);
    vf.set_promiscuous(false, false).unwrap();
    vf.fake().refuses = vec![XCAST];
    refused(vf.set_multicast(&groups(31)), "30 group addresses");
}

#[test]
fn tags_are_stripped_while_a_vlan_is_accepted() {
    const VME: u32 = 1 << 30;
    let mut vf = running(X540);
    let stripping = |vf: &mut super::Ixgbevf<Fake>| {
        let controls: Vec<u32> = (0..4).map(|n| vf.fake().get(0x1028 + 0x40 * n)).collect();
        assert!(controls.iter().all(|&control| control == controls[0] && control & 1 << 25 != 0), "{controls:x?}");
        controls[0] & VME != 0
    };
    assert!(!stripping(&mut vf));
    vf.set_vlan(0, true).unwrap();
    assert!(!stripping(&mut vf), "0 is no VLAN");
    vf.set_vlan(100, true).unwrap();
    assert!(stripping(&mut vf));
    vf.set_vlan(200, true).unwrap();
    vf.set_vlan(100, false).unwrap();
    assert!(stripping(&mut vf));
    vf.fake().refuses = vec![4];
    assert!(vf.set_vlan(200, false).is_err());
    assert!(stripping(&mut vf));
    vf.fake().refuses.clear();
    vf.set_vlan(200, false).unwrap();
    assert!(!stripping(&mut vf));
    // Rings that start later, and only what runs.
    let mut vf = ready(X540);
    vf.restore(&Settings { vlans: [7].into(), ..settings() }).unwrap();
    assert_eq!(vf.fake().get(0x1028), 0);
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    assert_eq!((vf.fake().get(0x1028), vf.fake().get(0x1068)), (1 << 25 | VME, 0));
    // A reset forgets them.
    vf.reset(false).unwrap();
    vf.restore(&settings()).unwrap();
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    assert_eq!(vf.fake().get(0x1028), 1 << 25);
}

#[test]
fn generation_b_has_key_and_table_of_its_own() {
    let rss = Rss { key: (1..=40).collect(), table: (0..64).map(|entry| entry % 4).collect() };
    let mut vf = ready(X550);
    vf.fake().actions.clear();
    vf.restore(&Settings { rss: Some(rss.clone()), ..settings() }).unwrap();
    let writes = vf.fake().take_writes();
    let at = |offset| writes.iter().position(|&(of, _)| of == offset).unwrap();
    assert_eq!(writes[at(0x3100)].1, 0x0403_0201, "byte order as in memory");
    assert_eq!(writes[at(0x3124)].1, 0x2827_2625);
    assert_eq!((writes[at(0x3200)].1, writes[at(0x323C)].1), (0x0302_0100, 0x0302_0100));
    assert_eq!(writes[at(0x3000)].1, 0x00F3_0001);
    assert!(at(0x3124) < at(0x3200) && at(0x323C) < at(0x3000), "key, table, control");
    assert_eq!(vf.rss().unwrap(), rss);
    // A key of all ones is a key.
    let ones = Rss { key: vec![0xFF; 40], ..rss.clone() };
    vf.set_rss(&ones).unwrap();
    assert_eq!(vf.rss().unwrap(), ones);
    for bad in [
        Rss { key: vec![0; 52], ..rss.clone() },
        Rss { table: vec![0; 128], ..rss.clone() },
        Rss { table: vec![256; 64], ..rss.clone() },
    ] {
        assert!(matches!(vf.set_rss(&bad), Err(Error::Config(_))), "{bad:?}");
    }
    assert_eq!(vf.rss().unwrap(), ones);
    assert!(ready(X540).set_rss(&rss).is_err(), "generation A has none");
}

#[test]
fn generation_a_reads_its_pfs_key_and_table() {
    let table = [0x0000_00E4, 0, 0, 0, 0, 0, 0, 0xC000_0000];
    let key: Vec<u32> = (0..10).map(|i| 0x0403_0201 + 0x0404_0404 * i).collect();
    let fake = || with_payload(with_payload(Fake::new(I82599), RETA, &table), KEY, &key);
    let mut vf = ready_on(fake());
    let rss = vf.rss().unwrap();
    assert_eq!(rss.key, (1..=40).collect::<Vec<u8>>());
    assert_eq!((rss.table.len(), &rss.table[..5], rss.table[127]), (128, &[0, 1, 2, 3, 0][..], 3));
    for id in [RETA, KEY] {
        let mut vf = ready_on(Fake { refuses: vec![id], ..fake() });
        refused(vf.rss(), "query_rss on");
    }
    let mut vf = ready_on(with_payload(fake(), API, &[0, 2]));
    refused(vf.rss(), "too old");
    assert!(!vf.fake().requests.iter().any(|request| [RETA, KEY].contains(&request[0])));
}
