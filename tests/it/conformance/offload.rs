//! What the NIC finds out about received frames, and what it is asked to do to sent ones. Frames are built and parsed by
//! etherparse, which shares nothing with driver or model.

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use vfring::{Checksum, L4, PacketType, PortConfig, RxInfo, TxInfo};
use vfring_tests::bed::*;

const V4: ([u8; 4], [u8; 4]) = ([198, 18, 0, 1], [198, 18, 7, 2]);
const V6: ([u8; 16], [u8; 16]) = (
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 2],
);

/// Which packet to build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Sctp,
    /// IP with a protocol that no NIC knows.
    Other,
}

/// A frame to `to` with right checksums and a payload that `n` decides.
fn ip_frame(to: vfring::MacAddr, v6: bool, kind: Kind, payload: usize, n: u64) -> Vec<u8> {
    let payload = frame(to, PEER, payload + 14, n).split_off(14);
    let builder = PacketBuilder::ethernet2(PEER.0, to.0);
    let builder = if v6 { builder.ipv6(V6.0, V6.1, 64) } else { builder.ipv4(V4.0, V4.1, 64) };
    let mut out = Vec::new();
    match kind {
        Kind::Tcp => builder.tcp(1000, 2000, 0x1234_5678 + n as u32, 512).psh().ack(77).write(&mut out, &payload),
        Kind::Udp => builder.udp(1000 + n as u16, 2000).write(&mut out, &payload),
        Kind::Sctp => {
            // etherparse knows no SCTP: ports, tag, CRC32c over the whole packet with a zero field (RFC 9260).
            let mut sctp = vec![3, 0xe8, 7, 0xd0, 1, 2, 3, n as u8, 0, 0, 0, 0];
            sctp.extend_from_slice(&payload);
            let crc = crc32c(&sctp);
            sctp[8..12].copy_from_slice(&crc.to_le_bytes());
            builder.write(&mut out, etherparse::IpNumber(132), &sctp)
        }
        Kind::Other => builder.write(&mut out, etherparse::IpNumber(253), &payload),
    }
    .expect("a frame");
    out
}

/// CRC32c by the definition: polynomial division, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| bit(crc)))
}

/// Offset of the IP and L4 headers.
fn offsets(v6: bool) -> (usize, usize) {
    (14, 14 + if v6 { 40 } else { 20 })
}

/// Asserts that every checksum in a frame is right and returns its L4 payload.
fn verify(bytes: &[u8]) -> Vec<u8> {
    let sliced = SlicedPacket::from_ethernet(bytes).expect("a well-formed frame");
    let (v4, v6) = match sliced.net.as_ref().expect("an IP packet") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum(), "IPv4 header checksum");
            (Some(header), None)
        }
        NetSlice::Ipv6(ip) => (None, Some(ip.header().to_header())),
        other => panic!("{other:?}"),
    };
    match sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let header = tcp.to_header();
            let expected = match (&v4, &v6) {
                (Some(ip), _) => header.calc_checksum_ipv4(ip, tcp.payload()),
                (_, Some(ip)) => header.calc_checksum_ipv6(ip, tcp.payload()),
                _ => unreachable!(),
            };
            assert_eq!(header.checksum, expected.unwrap(), "TCP checksum");
            tcp.payload().to_vec()
        }
        Some(TransportSlice::Udp(udp)) => {
            let header = udp.to_header();
            let expected = match (&v4, &v6) {
                (Some(ip), _) => header.calc_checksum_ipv4(ip, udp.payload()),
                (_, Some(ip)) => header.calc_checksum_ipv6(ip, udp.payload()),
                _ => unreachable!(),
            };
            assert_eq!(header.checksum, expected.unwrap(), "UDP checksum");
            udp.payload().to_vec()
        }
        _ => {
            let payload = sliced.ip_payload().expect("an IP payload");
            if payload.ip_number.0 == 132 {
                let mut zeroed = payload.payload.to_vec();
                zeroed[8..12].fill(0);
                assert_eq!(payload.payload[8..12], crc32c(&zeroed).to_le_bytes(), "SCTP checksum");
            }
            payload.payload.to_vec()
        }
    }
}

/// The sum over the pseudo header, folded and not complemented; `len` is 0 for TSO.
fn pseudo(v6: bool, protocol: u8, len: usize) -> u16 {
    let addresses: Vec<u8> = if v6 { [V6.0, V6.1].concat() } else { [V4.0, V4.1].concat() };
    let mut sum: u64 = addresses.chunks(2).map(|w| u64::from(u16::from_be_bytes([w[0], w[1]]))).sum();
    sum += u64::from(protocol) + len as u64;
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// A frame and what to ask of the NIC, so that it leaves as `ip_frame` would have made it.
fn to_offload(v6: bool, kind: Kind, payload: usize, n: u64) -> (Vec<u8>, TxInfo, Vec<u8>) {
    let whole = ip_frame(mac(9), v6, kind, payload, n);
    let mut bytes = whole.clone();
    let (l3, l4) = offsets(v6);
    if !v6 {
        bytes[l3 + 10..l3 + 12].fill(0);
    }
    let (protocol, field, l4_kind, l4_len) = match kind {
        Kind::Tcp => (6, 16, L4::Tcp, 20),
        Kind::Udp => (17, 6, L4::Udp, 8),
        Kind::Sctp => (132, 8, L4::Sctp, 12),
        Kind::Other => (0, 0, L4::None, 0),
    };
    match kind {
        Kind::Tcp | Kind::Udp => {
            let seed = pseudo(v6, protocol, bytes.len() - l4);
            bytes[l4 + field..l4 + field + 2].copy_from_slice(&seed.to_be_bytes());
        }
        Kind::Sctp => bytes[l4 + 8..l4 + 12].fill(0xaa),
        Kind::Other => {}
    }
    let info = TxInfo {
        l2_len: 14,
        l3_len: (l4 - l3) as u16,
        l4_len,
        ip_checksum: !v6,
        ipv6: v6,
        l4: l4_kind,
        ..TxInfo::default()
    };
    (bytes, info, whole)
}

fn station(part: Part, world: &vfring::drivers::sim::World) -> Station {
    let config = PortConfig::new().rx_info(true).tx_offloads(true).mtu(9000).rings(256, 256);
    Station::new(world, options(part, 1), config)
}

fn bad_verdict(part: Part, kind: Kind) -> Checksum {
    if kind == Kind::Udp { part.facts().bad_udp } else { Checksum::Bad }
}

/// Whether there is a hash is the affair of other tests.
fn unhashed(info: RxInfo) -> RxInfo {
    RxInfo { hash: None, ..info }
}

#[test]
fn the_nic_tells_types_and_checksum_verdicts() {
    use Checksum::{Bad, Good, Unchecked};
    let world = world("rx_info");
    for part in PARTS {
        let mut s = station(part, &world);
        let plain = |packet_type, ip_checksum, l4_checksum| RxInfo {
            packet_type,
            ip_checksum,
            l4_checksum,
            ..RxInfo::default()
        };
        for v6 in [false, true] {
            let (l3, l4) = offsets(v6);
            let ip = if v6 { PacketType::IPV6 } else { PacketType::IPV4 };
            let good_ip = if v6 { Unchecked } else { Good };
            for (kind, l4_type, verdict) in [
                (Kind::Tcp, PacketType::TCP, Good),
                (Kind::Udp, PacketType::UDP, Good),
                (Kind::Sctp, PacketType::SCTP, Good),
                (Kind::Other, PacketType::empty(), Unchecked),
            ] {
                for payload in [30, 31, 1200, 5000] {
                    let good = ip_frame(s.mac(), v6, kind, payload, 5);
                    verify(&good);
                    let got = s.deliver(&good).unwrap();
                    assert_eq!(unhashed(got.info), plain(ip | l4_type, good_ip, verdict), "{kind:?} v6 {v6} {payload}");
                    assert_eq!(got.bytes, good);
                    // One bit of the payload.
                    let mut bad = good.clone();
                    bad[l4 + 25] ^= 0x10;
                    let bad_l4 = if verdict == Good { bad_verdict(part, kind) } else { Unchecked };
                    let got = s.deliver(&bad).unwrap();
                    assert_eq!(unhashed(got.info), plain(ip | l4_type, good_ip, bad_l4), "{kind:?} v6 {v6} {payload}");
                    assert_eq!(got.bytes, bad, "a bad frame is the program's to judge");
                    if !v6 {
                        // The header checksum itself.
                        let mut bad = good.clone();
                        bad[l3 + 11] ^= 1;
                        let got = s.deliver(&bad).unwrap();
                        assert_eq!(unhashed(got.info), plain(ip | l4_type, Bad, verdict), "{kind:?} {payload}");
                    }
                }
            }
        }
        // No IP at all; IPv4 with options; an IPv6 extension header; a fragment; UDP without a checksum.
        let bytes = frame(s.mac(), PEER, 60, 1);
        assert_eq!(s.deliver(&bytes).unwrap().info, RxInfo::default());
        let options = PacketBuilder::ethernet2(PEER.0, s.mac().0).ip(etherparse::IpHeaders::Ipv4(
            etherparse::Ipv4Header {
                options: [1u8, 1, 1, 0].into(),
                ..etherparse::Ipv4Header::new(0, 64, etherparse::IpNumber::UDP, V4.0, V4.1).unwrap()
            },
            Default::default(),
        ));
        let mut bytes = Vec::new();
        options.udp(1, 2).write(&mut bytes, &[7; 40]).unwrap();
        let info = s.deliver(&bytes).unwrap().info;
        let ip = if part.facts().tells_options { PacketType::IPV4_OPTIONS } else { PacketType::IPV4 };
        assert_eq!(unhashed(info), plain(ip | PacketType::UDP, Good, Good));
        // A hop-by-hop header with one PadN option of 4 bytes, before the UDP header.
        let mut bytes = ip_frame(s.mac(), true, Kind::Udp, 40, 1);
        bytes.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
        bytes[20] = 0;
        let len = u16::from_be_bytes([bytes[18], bytes[19]]) + 8;
        bytes[18..20].copy_from_slice(&len.to_be_bytes());
        let info = s.deliver(&bytes).unwrap().info;
        let l4 = part.facts().behind_extensions;
        assert_eq!(unhashed(info), plain(PacketType::IPV6_EXTENSIONS | PacketType::UDP, Unchecked, l4));
        let mut bytes = ip_frame(s.mac(), false, Kind::Udp, 40, 1);
        bytes[40..42].fill(0);
        let info = s.deliver(&bytes).unwrap().info;
        let l4 = part.facts().no_udp_checksum;
        assert_eq!(unhashed(info), plain(PacketType::IPV4 | PacketType::UDP, Good, l4));
        s.finish();
    }
}

#[test]
fn verdicts_belong_to_their_packets_in_mixed_bursts() {
    let world = world("mixed");
    for part in PARTS {
        let mut s = station(part, &world);
        let mut rng = Rng(seed("mixed"));
        for limit in [1, 7, 8, 32] {
            let mut expected = Vec::new();
            for n in 0..100 {
                let v6 = rng.below(2) == 0;
                let kind = [Kind::Tcp, Kind::Udp, Kind::Other][rng.below(3) as usize];
                let mut f = ip_frame(s.mac(), v6, kind, 30 + rng.below(3000) as usize, n);
                let bad = rng.below(3) == 0;
                if bad {
                    let last = f.len() - 1;
                    f[last] ^= 0x55;
                }
                let verdict = match (kind, bad) {
                    (Kind::Other, _) => Checksum::Unchecked,
                    (_, true) => bad_verdict(part, kind),
                    (_, false) => Checksum::Good,
                };
                assert!(world.inject(s.id, &f));
                expected.push((f, v6, verdict));
            }
            for (got, (bytes, v6, verdict)) in s.receive_by(limit).iter().zip(&expected) {
                assert_eq!(got.bytes, *bytes);
                assert_eq!(got.info.packet_type.contains(PacketType::IPV6), *v6);
                assert_eq!(got.info.l4_checksum, *verdict);
            }
        }
        s.finish();
    }
}

#[test]
fn without_rx_info_nothing_is_claimed() {
    let world = world("no_info");
    let mut s = Station::new(&world, options(Part::I82576, 1), PortConfig::new());
    let f = ip_frame(s.mac(), false, Kind::Udp, 40, 1);
    assert_eq!(s.deliver(&f).unwrap().info, RxInfo::default());
    s.finish();
}

/// A frame of the nth of many TCP flows.
fn flow_frame(to: vfring::MacAddr, n: u16, payload: usize) -> Vec<u8> {
    let mut out = Vec::new();
    let builder = PacketBuilder::ethernet2(PEER.0, to.0).ipv4(V4.0, V4.1, 64).tcp(1000 + n, 2000, 1, 512);
    builder.write(&mut out, &vec![0x5a; payload]).unwrap();
    out
}

#[test]
fn the_hash_is_told_where_the_pf_computes_one() {
    let world = world("hash");
    for part in PARTS {
        let rss = Vf { rss: true, ..options(part, 1) };
        let mut s = Station::new(&world, rss, PortConfig::new().rx_info(true).queues(1, 1));
        let mut hashes = std::collections::BTreeSet::new();
        // With one queue open, only flows whose hash is even reach it on a part with two.
        for n in 0..40 {
            if let Some(got) = s.deliver(&flow_frame(s.mac(), n, 40)) {
                let again = s.deliver(&flow_frame(s.mac(), n, 400)).unwrap();
                assert_eq!(got.info.hash, again.info.hash, "a flow has one hash");
                hashes.insert(got.info.hash.expect("a hash"));
            }
        }
        assert!(hashes.len() > 10, "{hashes:?}");
        assert_eq!(s.deliver(&frame(s.mac(), PEER, 60, 1)).unwrap().info.hash, None, "no IP, no hash");
        s.finish();
    }
}

#[test]
fn a_stripped_tag_is_told_in_host_order() {
    let world = world("strip");
    for part in PARTS {
        let mut s = station(part, &world);
        s.control.add_vlan(0x123).unwrap();
        for pcp in [0u16, 1, 7] {
            for payload in [30, 4000] {
                let plain = ip_frame(s.mac(), false, Kind::Udp, payload, 3);
                let tci = pcp << 13 | 0x123;
                let mut tagged = plain.clone();
                tagged.splice(12..12, [0x81, 0x00, (tci >> 8) as u8, tci as u8]);
                let got = s.deliver(&tagged).unwrap();
                assert_eq!((got.info.vlan_tci, &got.bytes), (Some(tci), &plain));
                assert_eq!(got.info.l4_checksum, Checksum::Good);
                let got = s.deliver(&plain).unwrap();
                assert_eq!((got.info.vlan_tci, &got.bytes), (None, &plain));
            }
        }
        s.finish();
    }
}

#[test]
fn tags_of_loopback_frames_are_in_host_order_on_both_parts() {
    let world = world("loopback");
    for part in PARTS {
        let config = PortConfig::new().rx_info(true).tx_offloads(true);
        let mut a = Station::new(&world, options(part, 1), config.clone());
        let mut b = Station::new(&world, options(part, 2), config);
        world.connect_loopback(a.id, b.id);
        b.control.add_vlan(0x345).unwrap();
        let f = ip_frame(b.mac(), false, Kind::Udp, 60, 3);
        a.send_with(&f, TxInfo { vlan_tci: Some(0xe345), ..TxInfo::default() });
        let got = b.receive().pop().unwrap();
        assert_eq!((got.info.vlan_tci, &got.bytes), (Some(0xe345), &f));
        // The same port tells a frame from the wire alike.
        let mut tagged = f.clone();
        tagged.splice(12..12, [0x81, 0x00, 0xe3, 0x45]);
        let apart = if part.facts().counts_loopback { (1, f.len() as u64 + 8) } else { (0, 0) };
        let stats = b.stats().device;
        assert_eq!((stats.rx_packets, (stats.rx_loopback_packets, stats.rx_loopback_octets)), (1, apart));
        let stats = a.stats().device;
        assert_eq!((stats.tx_packets, (stats.tx_loopback_packets, stats.tx_loopback_octets)), (1, apart));
        let pool = a.pool.clone();
        drop(a.stop().unwrap());
        assert_home(&pool);
        b.finish();
    }
}

#[test]
fn checksums_are_inserted() {
    let world = world("tx_checksums");
    for part in PARTS {
        let mut s = station(part, &world);
        for v6 in [false, true] {
            for kind in [Kind::Tcp, Kind::Udp, Kind::Sctp, Kind::Other] {
                if v6 && kind == Kind::Other {
                    continue; // IPv6 has no header checksum
                }
                for payload in [26, 27, 28, 1000, 1001, 5000] {
                    let (bytes, info, whole) = to_offload(v6, kind, payload, payload as u64);
                    let sent = s.send_with(&bytes, info);
                    assert_eq!(sent, std::slice::from_ref(&whole), "{kind:?} v6 {v6} {payload}");
                    verify(&sent[0]);
                    // L4LEN need not be said.
                    assert_eq!(s.send_with(&bytes, TxInfo { l4_len: 0, ..info }), [whole]);
                }
            }
        }
        // A UDP checksum that comes out as 0 is sent as 0xffff.
        let (mut bytes, info, _) = to_offload(false, Kind::Udp, 40, 1);
        let sent = s.send_with(&bytes, info).pop().unwrap();
        let checksum = u16::from_be_bytes([sent[40], sent[41]]);
        let at = bytes.len() - 2;
        let word = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        // Adding the checksum itself to the sum makes the complement 0.
        let (sum, carry) = word.overflowing_add(checksum);
        bytes[at..].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
        let sent = s.send_with(&bytes, info).pop().unwrap();
        assert_eq!(sent[40..42], [0xff, 0xff]);
        verify(&sent);
        s.finish();
    }
}

#[test]
fn tags_are_inserted() {
    let world = world("tx_vlan");
    for part in PARTS {
        let mut s = station(part, &world);
        for tci in [1u16, 100, 0xe064, 0xffff] {
            for (bytes, info, whole) in [
                (frame(PEER, s.mac(), 60, 1), TxInfo::default(), frame(PEER, s.mac(), 60, 1)),
                (frame(PEER, s.mac(), 20, 1), TxInfo::default(), {
                    let mut f = frame(PEER, s.mac(), 20, 1);
                    f.resize(60, 0);
                    f
                }),
                to_offload(false, Kind::Udp, 300, 2),
                to_offload(true, Kind::Tcp, 3000, 2),
            ] {
                let mut tagged = whole.clone();
                tagged.splice(12..12, [0x81, 0x00, (tci >> 8) as u8, tci as u8]);
                assert_eq!(s.send_with(&bytes, TxInfo { vlan_tci: Some(tci), ..info }), [tagged]);
            }
        }
        s.finish();
    }
}

#[test]
fn contexts_alternate_without_mixing() {
    let world = world("contexts");
    for part in PARTS {
        let mut s = station(part, &world);
        let mut rng = Rng(seed("contexts"));
        let mut n = 0u64;
        for (kinds, limit) in [(1, 32), (2, 32), (3, 1), (3, 8), (6, 64)] {
            let mut burst = vfring::Burst::with_limit(limit).unwrap();
            let mut expected = Vec::new();
            for _ in 0..10 {
                while !burst.is_full() {
                    n += 1;
                    let size = 30 + rng.below(2500) as usize;
                    let (bytes, info, whole) = match rng.below(kinds) {
                        0 => to_offload(false, Kind::Udp, size, n),
                        1 => to_offload(false, Kind::Tcp, size, n),
                        2 => {
                            let (bytes, info, mut whole) = to_offload(true, Kind::Udp, size, n);
                            whole.splice(12..12, [0x81, 0x00, 0, 5]);
                            (bytes, TxInfo { vlan_tci: Some(5), ..info }, whole)
                        }
                        3 => to_offload(false, Kind::Sctp, size, n),
                        4 => to_offload(false, Kind::Other, size, n),
                        _ => {
                            let f = frame(PEER, s.mac(), size + 40, n);
                            (f.clone(), TxInfo::default(), f)
                        }
                    };
                    let packet = s.packet(&bytes);
                    burst.push(packet).unwrap();
                    burst.set_tx_info(burst.len() - 1, info);
                    expected.push(whole);
                }
                while !burst.is_empty() {
                    s.tx[0].burst(&mut s.cache, &mut burst);
                    world.step();
                }
            }
            assert!(world.take_sent(s.id) == expected, "{kinds} kinds, bursts of {limit}");
        }
        assert_eq!(s.stats().tx[0].bad_offload, 0);
        s.finish();
    }
}

#[test]
fn large_sends_are_cut_into_right_segments() {
    let world = world("tso");
    for part in PARTS {
        let mut s = station(part, &world);
        for v6 in [false, true] {
            for tci in [None, Some(0x2064)] {
                for (payload, mss) in [
                    (5000, 1448),
                    (20_000, 1448),
                    (60_000, 8948),
                    (1448, 1448),
                    (1449, 1448),
                    (2896, 1448),
                    (100, 536),
                    // Shorter than the shortest frame, which must not make payload of the padding.
                    (1, 1448),
                    (5, 1448),
                    (3000, part.facts().mss.0),
                ] {
                    if payload > 2000 && mss == 1 && v6 {
                        continue; // once is enough
                    }
                    let (mut bytes, info, whole) = to_offload(v6, Kind::Tcp, payload, 11);
                    let (l3, l4) = offsets(v6);
                    let data = verify(&whole);
                    assert_eq!(data.len(), payload);
                    // FIN, PSH and ACK; the sum without the length, which the NIC adds to each segment.
                    bytes[l4 + 13] = 0x19;
                    bytes[l4 + 16..l4 + 18].copy_from_slice(&pseudo(v6, 6, 0).to_be_bytes());
                    let info = TxInfo { tso_mss: mss, vlan_tci: tci, ..info };
                    let sent = s.send_with(&bytes, info);
                    assert_eq!(sent.len(), payload.div_ceil(mss.into()));
                    let mut rejoined = Vec::new();
                    for (i, segment) in sent.iter().enumerate() {
                        let mut untagged = segment.clone();
                        if let Some(tci) = tci {
                            assert_eq!(segment[12..16], [0x81, 0x00, (tci >> 8) as u8, tci as u8]);
                            untagged.drain(12..16);
                        }
                        let piece = verify(&untagged);
                        let header = |at: usize| u32::from_be_bytes(untagged[at..at + 4].try_into().unwrap());
                        assert_eq!(header(l4 + 4), (0x1234_5678 + 11) + rejoined.len() as u32, "sequence number");
                        let last = i + 1 == sent.len();
                        assert_eq!(untagged[l4 + 13], if last { 0x19 } else { 0x10 }, "FIN and PSH come last");
                        assert!(piece.len() == usize::from(mss) || last);
                        assert_eq!(untagged[..12], bytes[..12]);
                        if !v6 {
                            let id = |b: &[u8]| u16::from_be_bytes([b[l3 + 4], b[l3 + 5]]);
                            assert_eq!(id(&untagged), id(&bytes).wrapping_add(i as u16), "IPv4 identification");
                        }
                        rejoined.extend(piece);
                    }
                    assert!(rejoined == data);
                }
            }
        }
        s.finish();
    }
}

#[test]
fn what_the_hardware_cannot_do_is_freed_and_counted() {
    let world = world("bad_offload");
    for part in PARTS {
        let mut s = station(part, &world);
        let (bytes, info, _) = to_offload(false, Kind::Tcp, 3000, 1);
        let Facts { mss, l2_len_max, headers_max, .. } = *part.facts();
        let mut bad = vec![
            TxInfo { l2_len: 13, ..info },
            TxInfo { l2_len: l2_len_max + 1, ..info },
            TxInfo { l3_len: 19, ..info },
            TxInfo { l3_len: 512, ..info },
            TxInfo { ipv6: true, ..info },
            TxInfo { tso_mss: mss.1 + 1, ..info },
            TxInfo { tso_mss: 1000, l4_len: 19, ..info },
            TxInfo { tso_mss: 1000, l4_len: 61, ..info },
            TxInfo { tso_mss: 1000, l4: L4::Udp, ..info },
        ];
        if mss.0 > 1 {
            bad.push(TxInfo { tso_mss: mss.0 - 1, ..info });
        }
        if let Some(most) = headers_max {
            bad.push(TxInfo { tso_mss: 1000, l3_len: most - 33, l4_len: 20, ..info });
        }
        for (i, info) in bad.into_iter().enumerate() {
            assert!(s.send_with(&bytes, info).is_empty(), "{info:?}");
            assert_eq!(s.stats().tx[0].bad_offload, i as u64 + 1, "{info:?}");
        }
        s.assert_books(0);
        s.finish();
    }
}

#[test]
fn header_lengths_beyond_the_frame_are_refused() {
    let world = world("short_headers");
    for part in PARTS {
        let mut s = station(part, &world);
        let mut refused = 0;
        for (kind, l4_len) in [(Kind::Udp, 8), (Kind::Tcp, 20), (Kind::Sctp, 12), (Kind::Other, 0)] {
            let (mut bytes, info, _) = to_offload(false, kind, 40, 1);
            bytes.truncate(64);
            // The IP header is said to reach so far that the rest is one byte too short.
            for l3_len in [64 - 14 - l4_len + 1, 64, 511] {
                for ip_checksum in [true, kind == Kind::Other] {
                    assert!(s.send_with(&bytes, TxInfo { l3_len, ip_checksum, ..info }).is_empty());
                    refused += 1;
                    assert_eq!(s.stats().tx[0].bad_offload, refused, "{kind:?} {l3_len}");
                }
            }
        }
        // Nothing to segment.
        let (bytes, info, _) = to_offload(true, Kind::Tcp, 0, 1);
        assert!(s.send_with(&bytes, TxInfo { tso_mss: 1000, ..info }).is_empty());
        assert_eq!(s.stats().tx[0].bad_offload, refused + 1);
        let (bytes, info, whole) = to_offload(false, Kind::Udp, 40, 1);
        assert_eq!(s.send_with(&bytes, info), [whole], "the queue goes on");
        s.finish();
    }
}
