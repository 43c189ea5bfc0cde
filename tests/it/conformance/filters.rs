//! What the PF lets through: VLANs, groups, further addresses, promiscuity, frame size; and link and counters.

use std::time::Duration;

use vfring::{MacAddr, PortConfig};
use vfring_tests::bed::*;

fn group(n: u8) -> MacAddr {
    MacAddr([0x01, 0, 0x5e, 0, n, n ^ 0x3c])
}

#[test]
fn vlans_are_accepted_until_they_are_removed() {
    let world = world("vlans");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new().rx_info(true));
        let own = s.mac();
        assert!(s.passes(own, None));
        assert_eq!(s.passes(own, Some(100)), part.facts().hears_all_vlans);
        for vid in [100, 1, 4094] {
            s.control.add_vlan(vid).unwrap();
        }
        s.control.add_vlan(100).unwrap(); // again
        for vid in [1, 100, 4094] {
            assert!(s.passes(own, Some(vid)));
        }
        assert!(!s.passes(own, Some(101)));
        s.control.remove_vlan(100).unwrap();
        assert!(!s.passes(own, Some(100)) && s.passes(own, Some(1)) && s.passes(own, None));
        for vid in [0, 4095, u16::MAX] {
            let text = one_line(&s.control.add_vlan(vid).unwrap_err());
            assert!(text.contains(&vid.to_string()) && text.contains("1 to 4094"), "{text}");
            let text = one_line(&s.control.remove_vlan(vid).unwrap_err());
            assert!(text.contains("1 to 4094"), "{text}");
        }
        s.finish();
    }
}

#[test]
fn groups_are_accepted_while_they_are_in_the_list() {
    let world = world("groups");
    for part in PARTS {
        // To receive every group takes trust.
        let mut s = Station::new(&world, Vf { trusted: true, ..options(part, 1) }, PortConfig::new());
        assert!(!s.passes(group(1), None));
        s.control.set_multicast(&[group(1), group(2), group(1)]).unwrap();
        assert!(s.passes(group(1), None) && s.passes(group(2), None) && !s.passes(group(3), None));
        let before = s.stats().device.rx_multicast;
        assert_eq!(before, 2);
        // A new list replaces the old one.
        s.control.set_multicast(&[group(3)]).unwrap();
        assert!(!s.passes(group(1), None) && s.passes(group(3), None));
        // With more than fit the message, every group is accepted, and with fewer again only those.
        let fit = part.facts().groups.unwrap_or(100);
        let many: Vec<_> = (0..fit).map(group).collect();
        s.control.set_multicast(&many).unwrap();
        assert!(many.iter().all(|&g| s.passes(g, None)) && !s.passes(group(fit), None));
        let more: Vec<_> = (0..fit + 1).map(group).collect();
        s.control.set_multicast(&more).unwrap();
        assert!(more.iter().all(|&g| s.passes(g, None)));
        assert_eq!(s.passes(group(199), None), part.facts().groups.is_some());
        s.control.set_multicast(&many).unwrap();
        assert!(many.iter().all(|&g| s.passes(g, None)) && !s.passes(group(199), None));
        s.control.set_multicast(&[]).unwrap();
        assert!(!s.passes(group(1), None) && s.passes(MacAddr::BROADCAST, None));
        let text = one_line(&s.control.set_multicast(&[group(1), mac(3)]).unwrap_err());
        assert!(text.contains(&mac(3).to_string()), "{text}");
        assert!(!s.passes(group(1), None), "a list that is refused changes nothing");
        s.finish();
    }
}

#[test]
fn further_unicast_addresses_are_accepted_as_far_as_there_are_filters() {
    let world = world("unicast");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let own = s.mac();
        s.control.set_unicast(&[mac(0x21), mac(0x22), mac(0x23)]).unwrap();
        assert!([own, mac(0x21), mac(0x22), mac(0x23)].iter().all(|&m| s.passes(m, None)));
        assert!(!s.passes(mac(0x24), None));
        s.control.set_unicast(&[mac(0x24)]).unwrap();
        assert!(s.passes(mac(0x24), None) && !s.passes(mac(0x21), None) && s.passes(own, None));
        // An igb PF gives three filters to a VF, an ixgbe PF what its port has left, others 18 in all.
        let many: Vec<_> = (0x31..if part.is_igb() { 0x35 } else { 0xf1 }).map(mac).collect();
        let text = one_line(&s.control.set_unicast(&many).unwrap_err());
        assert!(
            many[part.facts().unicast_before_refusal..].iter().any(|mac| text.contains(&mac.to_string())),
            "{text}"
        );
        assert!(s.passes(mac(0x24), None) && !s.passes(mac(0x31), None), "a refusal changes nothing");
        s.control.set_unicast(&[]).unwrap();
        assert!(!s.passes(mac(0x31), None) && s.passes(own, None));
        for bad in [group(1), MacAddr::ZERO] {
            let text = one_line(&s.control.set_unicast(&[bad]).unwrap_err());
            assert!(text.contains(&bad.to_string()), "{text}");
        }
        s.finish();
    }
}

#[test]
fn promiscuity_is_refused_and_all_multicast_is_granted() {
    let world = world("promiscuous");
    for part in PARTS.into_iter().filter(|part| !part.facts().promiscuous) {
        let options = |part, n| Vf { trusted: true, ..options(part, n) };
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        let text = one_line(&s.control.set_promiscuous(true, false).unwrap_err());
        assert!(text.contains("unicast"), "{text}");
        assert!(!s.passes(mac(7), None) && !s.passes(group(7), None));
        s.control.set_promiscuous(false, true).unwrap();
        assert!(!s.passes(mac(7), None) && s.passes(group(7), None));
        // Refused, and what was granted before stays.
        one_line(&s.control.set_promiscuous(true, true).unwrap_err());
        assert!(!s.passes(mac(7), None) && s.passes(group(7), None));
        s.control.set_promiscuous(false, false).unwrap();
        assert!(!s.passes(group(7), None) && s.passes(s.mac(), None));
        // Refused in whole: the half that would be granted is not left behind.
        one_line(&s.control.set_promiscuous(true, true).unwrap_err());
        assert!(!s.passes(group(7), None));
        s.finish();

        let mut s = Station::new(&world, options(part, 1), PortConfig::new().all_multicast(true));
        assert!(s.passes(group(7), None) && !s.passes(mac(7), None));
        s.finish();

        let id = options(part, 1).add_to(&world);
        let port = vfring::Port::open(&world.spec(id), PortConfig::new().promiscuous(true)).unwrap();
        let pool = pool_for(&port, 2048);
        let text = one_line(&port.start(&pool).unwrap_err());
        assert!(text.contains("unicast"), "{text}");
        assert_home(&pool);
        assert_no_violations(&world);
    }
}

#[test]
fn without_trust_a_pf_grants_less() {
    let world = world("untrusted");
    // An igb PF knows no trust.
    for part in PARTS.into_iter().filter(|part| !part.is_igb()) {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        for (unicast, multicast) in [(true, false), (false, true), (true, true)] {
            match s.control.set_promiscuous(unicast, multicast) {
                Ok(()) => assert!(!part.facts().says_no, "an iavf VF is told that it is done, and it is not"),
                Err(error) => assert!(part.facts().says_no && one_line(&error).contains("trust on"), "{error}"),
            }
            assert!(!s.passes(mac(7), None) && !s.passes(group(7), None));
        }
        // Lists that fit a message, or 18 filters of which the station's own address is one.
        let (fit, words) = match part.facts().groups {
            Some(fit) => (fit, "30 group addresses"),
            None => (17, "18 filters"),
        };
        let many: Vec<_> = (0..fit + 1).map(group).collect();
        s.control.set_multicast(&many[..fit.into()]).unwrap();
        let text = one_line(&s.control.set_multicast(&many).unwrap_err());
        assert!(text.contains(words), "{text}");
        assert!(s.passes(group(1), None) && !s.passes(group(fit), None), "a refusal changes nothing");
        assert!(s.passes(MacAddr::BROADCAST, None) && s.passes(s.mac(), None) && !s.passes(mac(7), None));
        s.finish();
    }
}

#[test]
fn a_trusted_vf_of_a_promiscuous_pf_sees_everything() {
    let world = world("sees_everything");
    // An igb PF lets no VF, and an ixgbe PF one that is of generation B.
    for part in PARTS.into_iter().filter(|&part| part == Part::X550 || part.facts().promiscuous) {
        let trusted = Vf { trusted: true, pf_promiscuous: true, ..options(part, 1) };
        let mut s = Station::new(&world, trusted, PortConfig::new().promiscuous(true));
        assert!(s.passes(mac(7), None));
        // An ixgbe PF has no mode for every unicast frame that is not one for every group too.
        assert_eq!(s.passes(group(7), None), part == Part::X550);
        s.control.set_promiscuous(true, true).unwrap();
        assert!(s.passes(mac(7), None) && s.passes(group(7), None));
        s.control.set_promiscuous(false, true).unwrap();
        assert!(!s.passes(mac(7), None) && s.passes(group(7), None));
        s.control.set_promiscuous(false, false).unwrap();
        assert!(!s.passes(mac(7), None) && !s.passes(group(7), None));
        s.finish();
    }
}

#[test]
fn the_mtu_decides_which_frames_pass() {
    let world = world("mtu");
    for part in PARTS {
        for mtu in [68u16, 576, 1500, 4000, 9000, part.facts().mtu_max] {
            let mut s = Station::new(&world, options(part, 1), PortConfig::new().mtu(mtu));
            let most = part.longest_frame(mtu);
            let longest = frame(s.mac(), PEER, most, 1);
            assert_eq!(s.deliver(&longest).expect("a frame of the MTU").bytes, longest);
            if part.facts().own_frame_limit {
                assert!(s.deliver(&frame(s.mac(), PEER, most + 1, 1)).is_none());
            }
            // Header, two tags and payload; the FCS is the NIC's.
            let most = usize::from(mtu) + 14 + 8;
            let longest = frame(PEER, s.mac(), most, 1);
            assert_eq!(s.send_with(&longest, Default::default()), [longest]);
            let before = s.stats().tx[0].too_long;
            assert!(s.send_with(&frame(PEER, s.mac(), most + 1, 1), Default::default()).is_empty());
            assert_eq!(s.stats().tx[0].too_long, before + 1);
            s.finish();
        }
    }
}

#[test]
fn the_link_is_followed() {
    let world = world("link");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        for _ in 0..3 {
            world.link(s.id, false);
            s.run(2);
            let link = s.control.link();
            assert_eq!((link.up, link.speed_mbps, link.full_duplex), (false, 0, false));
            assert!(!s.passes(s.mac(), None));
            let f = frame(PEER, s.mac(), 60, 1);
            s.send_by(0, std::slice::from_ref(&f), 1);
            assert!(world.take_sent(s.id).is_empty());
            world.link(s.id, true);
            s.run(2);
            let link = s.control.link();
            assert_eq!((link.up, link.speed_mbps, link.full_duplex), (true, part.facts().speed_mbps, true));
            assert_eq!(world.take_sent(s.id), [f], "what waited leaves when the link is back");
            assert!(s.passes(s.mac(), None));
        }
        assert_eq!(s.stats().recoveries, 0, "a link that goes down is no reset");
        s.finish();
    }
}

#[test]
fn counters_go_on_over_a_wrap_of_32_bits() {
    let world = world("wrap");
    for part in PARTS {
        let id = options(part, 1).add_to(&world);
        // Before the port is opened: totals begin at 0 all the same.
        world.preset_counters(id, u32::MAX - 100);
        let port = vfring::Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(&world, id, port, &pool);
        s.control.set_multicast(&[group(1)]).unwrap();
        let mut expected = (0, 0, 0, 0, 0);
        for n in 0..30 {
            let f = frame(if n % 3 == 0 { group(1) } else { s.mac() }, PEER, 60 + n * 10, n as u64);
            s.deliver(&f).unwrap();
            s.send_by(0, std::slice::from_ref(&f), 1);
            expected.0 += 1;
            expected.1 += f.len() as u64 + 4;
            expected.2 += u64::from(n % 3 == 0);
            expected.3 += 1;
            expected.4 += f.len() as u64 + 4;
            if n == 10 {
                // Control samples by itself in time.
                s.run(1);
                world.advance(Duration::from_secs(11));
                s.run(1);
            }
            if n > 10 {
                let c = s.stats().device;
                assert_eq!((c.rx_packets, c.rx_octets, c.rx_multicast, c.tx_packets, c.tx_octets), expected);
                assert_eq!((c.rx_loopback_packets, c.tx_loopback_packets), (0, 0));
            }
        }
        // Over a stop and a start.
        let port = s.stop().unwrap();
        let mut s = Station::start(&world, id, port, &pool);
        s.control.set_multicast(&[]).unwrap();
        s.deliver(&frame(s.mac(), PEER, 60, 1)).unwrap();
        expected.0 += 1;
        expected.1 += 64;
        let c = s.stats().device;
        assert_eq!((c.rx_packets, c.rx_octets, c.rx_multicast, c.tx_packets, c.tx_octets), expected);
        s.finish();
    }
}

#[test]
fn counters_that_nobody_asks_for_are_sampled_before_they_wrap_twice() {
    let world = world("sampling");
    // The others are as wide as the totals.
    for part in PARTS.into_iter().filter(|part| part.facts().octet_bits < 64) {
        let mut s = Station::new(&world, options(part, 1), PortConfig::new());
        // A full wrap of the octets every 20 seconds or so, serviced and otherwise left alone.
        let mut octets = 0u64;
        for _ in 0..5 {
            world.preset_counters(s.id, 3 << 30);
            s.stats();
            octets = s.stats().device.rx_octets;
            world.preset_counters(s.id, (3u32 << 30).wrapping_add(2 << 30));
            world.advance(Duration::from_secs(11));
            s.control.service();
            world.preset_counters(s.id, (3u32 << 30).wrapping_add(1));
            world.advance(Duration::from_secs(11));
            s.control.service();
            assert_eq!(s.stats().device.rx_octets - octets, (1 << part.facts().octet_bits) + 1);
        }
        assert!(octets > 0);
        s.finish();
    }
}

#[test]
fn counters_never_go_back() {
    let world = world("never_back");
    for part in PARTS {
        let id = options(part, 1).add_to(&world);
        let port = vfring::Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(&world, id, port, &pool);
        for n in 0..10 {
            s.deliver(&frame(s.mac(), PEER, 60, n)).unwrap();
        }
        let port = s.stop().unwrap();
        let mut s = Station::start(&world, id, port, &pool);
        // The PF resets before anybody asked for counters in this start.
        world.pf_reset(id);
        s.run(1);
        assert_eq!(s.stats().device.rx_packets, 10);
        world.pf_reset_done(id);
        s.run(5);
        assert_eq!(s.stats().device.rx_packets, 10);
        s.finish();
    }
}
