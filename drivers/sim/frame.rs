//! What a NIC knows about frames: where the headers are, the Internet checksum, CRC32c, and the RSS hash.
//!
//! Pure functions over private copies of frames; they never panic on malformed ones. Used by the engines of the model
//! for verdicts and insertions, by the generator and by tests.
#![forbid(unsafe_code)]

use crate::addr::MacAddr;

/// The FCS that is on the wire and in the octet counters but never in memory.
pub(super) const FCS: usize = 4;
/// Destination, source and type.
pub(super) const ETHERNET: usize = 14;
/// Shortest frame without FCS; shorter ones are padded.
pub(super) const MIN_FRAME: usize = 60;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;
const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;

/// The IP header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ip {
    /// Not IP, or too short to be.
    None,
    /// IPv4.
    V4 {
        /// The header is longer than 20 bytes.
        options: bool,
    },
    /// IPv6.
    V6 {
        /// There are extension headers.
        extensions: bool,
    },
}

/// The transport header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    None,
    Tcp,
    Udp,
    Sctp,
}

/// Where the headers of a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// First byte of the IP header.
    pub(super) l3: usize,
    /// First byte of the transport header.
    pub(super) l4: usize,
    /// One past the last byte of the IP packet (Ethernet padding is not part of it).
    pub(super) end: usize,
    pub(super) ip: Ip,
    pub(super) transport: Transport,
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// The VLAN tag of a frame, if it has one.
pub(super) fn vlan_tag(frame: &[u8]) -> Option<u16> {
    (frame.len() >= 18 && be16(frame, 12) == ETHERTYPE_VLAN).then(|| be16(frame, 14))
}

/// Appends `frame` with a tag inserted.
pub(super) fn insert_tag(frame: &[u8], tci: u16, out: &mut Vec<u8>) {
    insert_tag_of(ETHERTYPE_VLAN, frame, tci, out);
}

/// Appends `frame` with a tag of a given ethertype inserted.
pub(super) fn insert_tag_of(tpid: u16, frame: &[u8], tci: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&frame[..12]);
    out.extend_from_slice(&tpid.to_be_bytes());
    out.extend_from_slice(&tci.to_be_bytes());
    out.extend_from_slice(&frame[12..]);
}

/// Destination address; `frame` has at least an Ethernet header.
pub(super) fn destination(frame: &[u8]) -> MacAddr {
    MacAddr([frame[0], frame[1], frame[2], frame[3], frame[4], frame[5]])
}

/// Finds the headers of a frame.
pub(super) fn layout(frame: &[u8]) -> Layout {
    let tagged = vlan_tag(frame).is_some();
    let l3 = if tagged { ETHERNET + 4 } else { ETHERNET };
    let none = Layout { l3, l4: l3, end: frame.len(), ip: Ip::None, transport: Transport::None };
    if frame.len() < l3 {
        return none;
    }
    match be16(frame, l3 - 2) {
        ETHERTYPE_IPV4 => layout_v4(frame, none).unwrap_or(none),
        ETHERTYPE_IPV6 => layout_v6(frame, none).unwrap_or(none),
        _ => none,
    }
}

fn layout_v4(frame: &[u8], none: Layout) -> Option<Layout> {
    let header = frame.get(none.l3..)?;
    if header.len() < 20 || header[0] >> 4 != 4 {
        return None;
    }
    let header_len = (header[0] & 0xf) as usize * 4;
    let total = be16(header, 2) as usize;
    if header_len < 20 || total < header_len || total > header.len() {
        return None;
    }
    // More-fragments or an offset: the transport header is not (all) here.
    let fragment = be16(header, 6) & 0x3fff != 0;
    let (l4, end) = (none.l3 + header_len, none.l3 + total);
    let transport = if fragment { Transport::None } else { transport(header[9], end - l4) };
    Some(Layout { l4, end, ip: Ip::V4 { options: header_len > 20 }, transport, ..none })
}

fn layout_v6(frame: &[u8], none: Layout) -> Option<Layout> {
    let header = frame.get(none.l3..)?;
    if header.len() < 40 || header[0] >> 4 != 6 {
        return None;
    }
    let end = none.l3 + 40 + be16(header, 4) as usize;
    if end > frame.len() {
        return None;
    }
    let (mut next, mut l4, mut extensions) = (header[6], none.l3 + 40, false);
    // Hop-by-hop, routing and destination options; a fragment header ends the search.
    while matches!(next, 0 | 43 | 60 | 44) && l4 + 8 <= end {
        extensions = true;
        if next == 44 {
            next = 59; // "no next header": a fragment's transport header is not looked at
            break;
        }
        let len = (frame[l4 + 1] as usize + 1) * 8;
        if l4 + len > end {
            return None;
        }
        next = frame[l4];
        l4 += len;
    }
    Some(Layout { l4, end, ip: Ip::V6 { extensions }, transport: transport(next, end - l4), ..none })
}

fn transport(protocol: u8, len: usize) -> Transport {
    match protocol {
        TCP if len >= 20 => Transport::Tcp,
        UDP if len >= 8 => Transport::Udp,
        SCTP if len >= 12 => Transport::Sctp,
        _ => Transport::None,
    }
}

/// Adds bytes to a running Internet checksum (RFC 1071), an even number of bytes at a time except at the end.
pub(super) fn sum(bytes: &[u8], start: u64) -> u64 {
    let mut total = start;
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        total += u16::from_be_bytes([word[0], word[1]]) as u64;
    }
    if let [last] = words.remainder() {
        total += (*last as u64) << 8;
    }
    total
}

/// Folds a running sum to 16 bits (not complemented).
pub(super) fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Sum of the pseudo header of a frame's transport, with its length.
pub(super) fn pseudo_header(frame: &[u8], layout: &Layout) -> u64 {
    let len = (layout.end - layout.l4) as u64;
    let protocol = match layout.transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
        _ => SCTP,
    } as u64;
    let addresses = match layout.ip {
        Ip::V4 { .. } => &frame[layout.l3 + 12..layout.l3 + 20],
        Ip::V6 { .. } => &frame[layout.l3 + 8..layout.l3 + 40],
        Ip::None => &[],
    };
    sum(addresses, len + protocol)
}

/// True when the IPv4 header checksum is right. Only for `Ip::V4`.
pub(super) fn ipv4_checksum_good(frame: &[u8], layout: &Layout) -> bool {
    fold(sum(&frame[layout.l3..layout.l4], 0)) == 0xffff
}

/// The verdict on the transport checksum; `None` when there is none to check.
pub(super) fn transport_checksum_good(frame: &[u8], layout: &Layout) -> Option<bool> {
    let segment = &frame[layout.l4..layout.end];
    match layout.transport {
        Transport::None => None,
        // A UDP checksum of 0 over IPv4 means that the sender made none.
        Transport::Udp if be16(segment, 6) == 0 && matches!(layout.ip, Ip::V4 { .. }) => None,
        Transport::Tcp | Transport::Udp => Some(fold(sum(segment, pseudo_header(frame, layout))) == 0xffff),
        Transport::Sctp => {
            let mut copy = segment.to_vec();
            copy[8..12].fill(0);
            Some(crc32c(&copy).to_le_bytes() == segment[8..12])
        }
    }
}

/// Bytes of the headers up to the payload of TCP and UDP, or of IP for other transports; `None` for what is no IP.
pub(super) fn headers(frame: &[u8], layout: &Layout) -> Option<usize> {
    let transport = match layout.transport {
        Transport::Tcp => usize::from(frame[layout.l4 + 12] >> 4) * 4,
        Transport::Udp => 8,
        Transport::Sctp | Transport::None => 0,
    };
    (layout.ip != Ip::None).then_some((layout.l4 + transport).min(frame.len()))
}

/// CRC32c (Castagnoli), as SCTP uses it.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= byte as u32;
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// The key of Microsoft's RSS verification suite, which PF drivers are free to replace.
pub(super) const RSS_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];
/// Every RSS type: bit n stands for type n (igbvf 4.2).
pub(super) const RSS_TYPES_ALL: u32 = 0x3fe;

/// The Toeplitz hash of `input` under a key that is not empty.
pub(super) fn toeplitz<'a>(key: &[u8], input: impl Iterator<Item = &'a u8>) -> u32 {
    let mut hash = 0u32;
    for (i, byte) in input.enumerate() {
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                // The 32 key bits that start at bit position 8 i + bit.
                let mut window = [0u8; 8];
                for (w, k) in window.iter_mut().zip(key.iter().cycle().skip(i)) {
                    *w = *k;
                }
                hash ^= (u64::from_be_bytes(window) >> (32 - bit)) as u32;
            }
        }
    }
    hash
}

/// The RSS type (igbvf 4.2) and Toeplitz hash of a frame; type 0 when none of `types` (bit n: type n) covers it.
pub(super) fn rss(frame: &[u8], layout: &Layout, key: &[u8; 40], types: u32) -> (u32, u32) {
    // With the ports where the transport's type is wanted, else over the addresses alone.
    let (addresses, with_ports, alone) = match (layout.ip, layout.transport) {
        (Ip::None, _) => return (0, 0),
        (Ip::V4 { .. }, transport) => (
            &frame[layout.l3 + 12..layout.l3 + 20],
            match transport {
                Transport::Tcp => 1,
                Transport::Udp => 7,
                _ => 0,
            },
            2,
        ),
        (Ip::V6 { extensions }, transport) => (
            &frame[layout.l3 + 8..layout.l3 + 40],
            match (transport, extensions) {
                (Transport::Tcp, false) => 3,
                (Transport::Tcp, true) => 6,
                (Transport::Udp, false) => 8,
                (Transport::Udp, true) => 9,
                _ => 0,
            },
            if extensions { 4 } else { 5 },
        ),
    };
    let wanted = |rss_type: u32| rss_type != 0 && types & 1 << rss_type != 0;
    let (rss_type, ports) = if wanted(with_ports) {
        (with_ports, &frame[layout.l4..layout.l4 + 4])
    } else if wanted(alone) {
        (alone, &[][..])
    } else {
        return (0, 0);
    };
    (rss_type, toeplitz(key, addresses.iter().chain(ports)))
}

/// A UDP/IPv4 frame of `len` bytes (without FCS) with right checksums.
pub(super) fn udp(to: MacAddr, from: MacAddr, source: [u8; 4], ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut frame = vec![0u8; len.max(ETHERNET + 28)];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12..14].copy_from_slice(&ETHERTYPE_IPV4.to_be_bytes());
    let total = (frame.len() - ETHERNET) as u16;
    let ip = &mut frame[ETHERNET..];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    ip[8] = 64;
    ip[9] = UDP;
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&[198, 18, 1, 1]);
    let checksum = !fold(sum(&ip[..20], 0));
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    ip[20..22].copy_from_slice(&ports.0.to_be_bytes());
    ip[22..24].copy_from_slice(&ports.1.to_be_bytes());
    ip[24..26].copy_from_slice(&(total - 20).to_be_bytes());
    let at = layout(&frame);
    let checksum = match !fold(sum(&frame[at.l4..at.end], pseudo_header(&frame, &at))) {
        0 => 0xffff,
        other => other,
    };
    frame[at.l4 + 6..at.l4 + 8].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(len: usize) -> Vec<u8> {
        udp(MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]), [198, 18, 0, 1], (1000, 2000), len)
    }

    #[test]
    fn checksums_of_a_made_frame_are_right_and_a_flipped_bit_is_found() {
        let mut frame = sample(61);
        let at = layout(&frame);
        assert_eq!((at.ip, at.transport, at.end), (Ip::V4 { options: false }, Transport::Udp, 61));
        assert!(ipv4_checksum_good(&frame, &at));
        assert_eq!(transport_checksum_good(&frame, &at), Some(true));
        frame[60] ^= 1;
        assert_eq!(transport_checksum_good(&frame, &at), Some(false));
        frame[22] ^= 1;
        assert!(!ipv4_checksum_good(&frame, &at));
    }

    #[test]
    fn tags_fragments_and_rubbish_are_recognised() {
        let mut tagged = Vec::new();
        insert_tag(&sample(60), 0x2064, &mut tagged);
        assert_eq!(vlan_tag(&tagged), Some(0x2064));
        assert_eq!(layout(&tagged).l3, 18);
        let mut fragment = sample(60);
        fragment[20] = 0x20;
        assert_eq!(layout(&fragment).transport, Transport::None);
        for len in 0..60 {
            let _ = layout(&sample(60)[..len]); // must not panic
        }
        assert_eq!(layout(&[0xff; 60]).ip, Ip::None);
    }

    #[test]
    fn crc32c_and_toeplitz_match_their_published_vectors() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // 66.9.149.187:2794 to 161.142.100.80:1766, hash with ports 0x51ccc178, without 0x323e8fc2.
        let mut frame = vec![0u8; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x45;
        frame[16..18].copy_from_slice(&40u16.to_be_bytes());
        frame[23] = TCP;
        frame[26..34].copy_from_slice(&[66, 9, 149, 187, 161, 142, 100, 80]);
        frame[34..36].copy_from_slice(&2794u16.to_be_bytes());
        frame[36..38].copy_from_slice(&1766u16.to_be_bytes());
        assert_eq!(rss(&frame, &layout(&frame), &RSS_KEY, RSS_TYPES_ALL), (1, 0x51cc_c178));
        assert_eq!(rss(&frame, &layout(&frame), &RSS_KEY, 1 << 2), (2, 0x323e_8fc2), "TCP not asked for");
        assert_eq!(rss(&frame, &layout(&frame), &RSS_KEY, 1 << 7), (0, 0), "only UDP asked for");
        frame[23] = 1;
        assert_eq!(rss(&frame, &layout(&frame), &RSS_KEY, RSS_TYPES_ALL), (2, 0x323e_8fc2));
    }
}
