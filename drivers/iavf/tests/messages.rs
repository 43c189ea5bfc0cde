//! Parsers on whatever bytes: every length, every field at its ends, and the corpus that fuzzing starts from.

use crate::drivers::iavf::virtchnl::*;

#[test]
fn opcodes_and_capabilities_are_those_of_the_sheet() {
    use Opcode::*;
    let opcodes = [
        (Version, 1),
        (ResetVf, 2),
        (GetVfResources, 3),
        (ConfigVsiQueues, 6),
        (ConfigIrqMap, 7),
        (EnableQueues, 8),
        (AddEthAddr, 10),
        (DelEthAddr, 11),
        (AddVlan, 12),
        (DelVlan, 13),
        (ConfigPromiscuousMode, 14),
        (GetStats, 15),
        (Event, 17),
        (ConfigRssKey, 23),
        (ConfigRssLut, 24),
        (GetRssHenaCaps, 25),
        (SetRssHena, 26),
        (EnableVlanStripping, 27),
        (DisableVlanStripping, 28),
        (RequestQueues, 29),
        (GetSupportedRxdids, 44),
        (GetOffloadVlanV2Caps, 51),
        (AddVlanV2, 52),
        (DelVlanV2, 53),
        (EnableVlanStrippingV2, 54),
        (DisableVlanStrippingV2, 55),
        (EnableVlanInsertionV2, 56),
        (EnableQueuesV2, 107),
    ];
    for (opcode, number) in opcodes {
        assert_eq!(opcode as u32, number, "{opcode:?}");
    }
    let caps = [
        (Cap::L2, 0),
        (Cap::WB_ON_ITR, 5),
        (Cap::REQ_QUEUES, 6),
        (Cap::ADV_LINK_SPEED, 7),
        (Cap::LARGE_NUM_QPAIRS, 9),
        (Cap::VLAN_V2, 15),
        (Cap::VLAN, 16),
        (Cap::RSS_PF, 19),
        (Cap::RX_FLEX_DESC, 26),
    ];
    for (cap, bit) in caps {
        assert_eq!(cap.bits(), 1 << bit, "{cap:?}");
    }
    // UDP, TCP, SCTP, others and fragments over IPv4 (29 to 36) and IPv6 (39 to 46).
    assert_eq!(HENA_WANTED, 0x7F9F_E000_0000);
}

#[test]
fn messages_have_the_lengths_that_pfs_compute() {
    let mac = crate::addr::MacAddr([2, 0, 0, 0, 0, 1]);
    let golden = [
        ("VERSION", version().len(), 8),
        ("GET_VF_RESOURCES", get_vf_resources(Cap::L2).len(), 4),
        ("CONFIG_VSI_QUEUES, 1 pair", config_vsi_queues(1, &[Pair::default()]).len(), 136),
        ("CONFIG_VSI_QUEUES, 62 pairs", config_vsi_queues(1, &[Pair::default(); PAIRS_PER_MESSAGE]).len(), 4040),
        (
            "CONFIG_IRQ_MAP, 1 vector",
            config_irq_map(1, &[VectorMap { vector: 1, rx_queues: 1, tx_queues: 1 }]).len(),
            26,
        ),
        ("ENABLE_QUEUES", select_queues(1, 1, 1).len(), 12),
        ("ENABLE_QUEUES_V2, 1 chunk", select_queues_v2(1, 1, 0).len(), 16),
        ("ADD_ETH_ADDR, 1 address", addresses(1, &[mac], AddressType::Primary).len(), 20),
        ("ADD_ETH_ADDR, most", addresses(1, &[mac; ADDRESSES_PER_MESSAGE], AddressType::Extra).len(), 4092),
        ("ADD_VLAN, 1 id", vlan(1, 5).len(), 8),
        ("ADD_VLAN_V2, outer", vlan_v2(1, 5, true).len(), 40),
        ("ADD_VLAN_V2, inner", vlan_v2(1, 5, false).len(), 40),
        ("VLAN toggle V2", vlan_toggle_v2(1, true).len(), 16),
        ("CONFIG_PROMISCUOUS_MODE", promiscuous(1, true, true).len(), 4),
        ("CONFIG_RSS_KEY, 52", rss_bytes(1, &[0; 52]).len(), 57),
        ("CONFIG_RSS_LUT, 64", rss_bytes(1, &[0; 64]).len(), 69),
        ("SET_RSS_HENA", rss_hena(1).len(), 8),
        ("REQUEST_QUEUES", request_queues(16).len(), 2),
    ];
    for (name, len, expected) in golden {
        assert_eq!(len, expected, "{name}");
        assert!(len <= 4096);
    }
    assert_eq!(version(), [1, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(promiscuous(0x17, true, false), [0x17, 0, 1, 0]);
    assert_eq!(promiscuous(0x17, false, true), [0x17, 0, 2, 0]);
    let runs = select_queues_v2(1, 0x8000_0001, u32::MAX);
    assert_eq!((runs[4], runs.len()), (3, 8 + 3 * 8), "{runs:?}");
}

/// A reply to GET_VF_RESOURCES of `vsis` VSIs of this type.
fn resources(vsis: u16, kind: u32) -> Vec<u8> {
    let mut reply = vec![0; 20];
    reply[..2].copy_from_slice(&vsis.to_le_bytes());
    (reply[2], reply[4]) = (4, 5);
    for n in 0..vsis {
        let mut vsi = [0; 16];
        vsi[0] = n as u8;
        vsi[2] = 4;
        vsi[4..8].copy_from_slice(&kind.to_le_bytes());
        vsi[10..].copy_from_slice(&[2, 0, 0, 0, 0, n as u8]);
        reply.extend(vsi);
    }
    reply
}

#[test]
fn resources_of_any_length_are_read_or_refused() {
    let good = resources(1, 6);
    assert_eq!(good.len(), 36);
    for len in 0..good.len() {
        assert!(parse_resources(&good[..len]).is_err(), "{len} bytes");
    }
    let read = parse_resources(&good).unwrap();
    assert_eq!(
        (read.pairs, read.vectors, read.vsi, read.mac),
        (4, 5, 0, Some(crate::addr::MacAddr([2, 0, 0, 0, 0, 0])))
    );
    // One more element, as in-tree i40e sends.
    assert_eq!(parse_resources(&[&good[..], &[0xFF; 16]].concat()).unwrap(), read);
    assert!(parse_resources(&resources(0, 6)).is_err() && parse_resources(&resources(2, 1)).is_err());
    let mut lying = good.clone();
    lying[0] = 2;
    assert!(parse_resources(&lying).is_err(), "two VSIs announced, one there");
    lying[..2].copy_from_slice(&[0xFF; 2]);
    assert!(parse_resources(&lying).is_err());
    // The lesser number of queues counts, and a group address is none.
    let mut odd = good;
    (odd[2], odd[22], odd[30]) = (16, 3, 1);
    let read = parse_resources(&odd).unwrap();
    assert_eq!((read.pairs, read.mac), (3, None));
}

#[test]
fn replies_of_any_length_are_read_or_refused() {
    let bytes: Vec<u8> = (0..120).collect();
    for len in 0..bytes.len() {
        let reply = &bytes[..len];
        assert_eq!(parse_version(reply).is_some(), len >= 8, "{len}");
        assert_eq!(parse_u64(reply).is_some(), len >= 8, "{len}");
        assert_eq!(parse_vlan_caps(reply).is_some(), len >= 40, "{len}");
        assert_eq!(parse_stats(reply).is_some(), len >= 96, "{len}");
        assert_eq!(parse_event(&[&[1, 0, 0, 0], reply].concat(), true) != Event::Other, len + 4 >= 16, "{len}");
        parse_anything(reply);
    }
    let caps: Vec<u8> = (0..10u32).flat_map(u32::to_le_bytes).collect();
    let caps = parse_vlan_caps(&caps).unwrap();
    let of = |support: Support| (support.outer, support.inner);
    assert_eq!((of(caps.filtering), of(caps.stripping), of(caps.insertion)), ((0, 1), (4, 5), (6, 7)));
    assert_eq!(caps.filtering.tag(), Some(Tag { outer: false, bits: 1 }));
    assert_eq!(Support { outer: 0x103, inner: 1 }.tag(), Some(Tag { outer: true, bits: 0x103 }));
    assert_eq!(Support { outer: 0x102, inner: 0x100 }.tag(), None);
    let stats: Vec<u8> = (0..12u64).flat_map(u64::to_le_bytes).collect();
    let stats = parse_stats(&stats).unwrap();
    assert_eq!((stats.rx_bytes, stats.rx_unicast, stats.rx_multicast, stats.rx_broadcast), (0, 1, 2, 3));
    assert_eq!(stats.rx_discards, 4);
    assert_eq!((stats.tx_bytes, stats.tx_unicast, stats.tx_multicast, stats.tx_broadcast), (6, 7, 8, 9));
}
