//! A frame in one line: addresses, tags, and a short summary of what is inside.
//!
//! Nothing is trusted: a header that is cut short ends the line there.
#![forbid(unsafe_code)]

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use vfring::{Checksum, MacAddr, PacketType, RxInfo};

/// EtherType of a VLAN tag, 802.1Q and 802.1ad.
const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];

/// Describes the start of a frame, from its destination address on.
pub fn frame(bytes: &[u8]) -> String {
    let mut line = String::new();
    // Writing to a String cannot fail; a header that is cut short leaves the line as it is.
    if ethernet(bytes, &mut line).is_none() {
        line += " (cut short)";
    }
    line
}

/// Describes what the NIC found out about a packet; empty when it said nothing.
pub fn info(info: &RxInfo) -> String {
    let mut line = String::new();
    if let Some(tci) = info.vlan_tci {
        line += &format!(" stripped vlan {}", tci & 0xfff);
    }
    if let Some(hash) = info.hash {
        line += &format!(" hash {hash:#010x}");
    }
    if info.packet_type != PacketType::empty() {
        let names: Vec<&str> = info.packet_type.iter_names().map(|(name, _)| name).collect();
        line += &format!(" type {}", names.join("|"));
    }
    for (name, verdict) in [("ip", info.ip_checksum), ("l4", info.l4_checksum)] {
        match verdict {
            Checksum::Unchecked => (),
            Checksum::Good => line += &format!(" {name}-checksum good"),
            Checksum::Bad => line += &format!(" {name}-checksum BAD"),
        }
    }
    line
}

fn ethernet(bytes: &[u8], line: &mut String) -> Option<()> {
    let (destination, rest) = bytes.split_first_chunk::<6>()?;
    let (source, rest) = rest.split_first_chunk::<6>()?;
    *line += &format!("{} > {}", MacAddr(*source), MacAddr(*destination));
    let (mut ethertype, mut rest) = take_u16(rest)?;
    while VLAN_TAGS.contains(&ethertype) {
        let (tci, tail) = take_u16(rest)?;
        *line += &format!(" vlan {}", tci & 0xfff);
        (ethertype, rest) = take_u16(tail)?;
    }
    match ethertype {
        0x0800 => ipv4(rest, line),
        0x0806 => arp(rest, line),
        0x86dd => ipv6(rest, line),
        // An IEEE 802.3 length: the rest is LLC.
        0..=0x05ff => write!(line, " LLC, length {ethertype}").ok(),
        _ => write!(line, " ethertype {ethertype:#06x}").ok(),
    }
}

fn arp(bytes: &[u8], line: &mut String) -> Option<()> {
    // Ethernet and IPv4: operation at 6, sender's IP at 14, target's at 24.
    let operation = u16_at(bytes, 6)?;
    let sender = Ipv4Addr::from(*bytes.get(14..)?.first_chunk::<4>()?);
    let target = Ipv4Addr::from(*bytes.get(24..)?.first_chunk::<4>()?);
    match operation {
        1 => write!(line, " ARP who has {target}, tell {sender}").ok(),
        2 => write!(line, " ARP {sender} is here").ok(),
        _ => write!(line, " ARP operation {operation}").ok(),
    }
}

fn ipv4(bytes: &[u8], line: &mut String) -> Option<()> {
    *line += " IPv4";
    let header = bytes.first_chunk::<20>()?;
    let header_len = usize::from(header[0] & 0xf) * 4;
    let source = Ipv4Addr::from(*header[12..].first_chunk::<4>()?);
    let destination = Ipv4Addr::from(*header[16..].first_chunk::<4>()?);
    // 13 bits of fragment offset: only the first fragment has the ports.
    let fragment = u16_at(header, 6)? & 0x1fff != 0;
    let total = usize::from(u16_at(header, 2)?);
    let payload = bytes.get(header_len.max(20)..)?;
    let payload_len = total.saturating_sub(header_len);
    if fragment {
        return write!(line, " {source} > {destination} fragment of protocol {}", header[9]).ok();
    }
    transport(header[9], (&source.to_string(), &destination.to_string()), payload, payload_len, line)
}

fn ipv6(bytes: &[u8], line: &mut String) -> Option<()> {
    *line += " IPv6";
    let header = bytes.first_chunk::<40>()?;
    let source = Ipv6Addr::from(*header[8..].first_chunk::<16>()?);
    let destination = Ipv6Addr::from(*header[24..].first_chunk::<16>()?);
    let payload_len = usize::from(u16_at(header, 4)?);
    let hosts = (format!("[{source}]"), format!("[{destination}]"));
    transport(header[6], (&hosts.0, &hosts.1), &bytes[40..], payload_len, line)
}

fn transport(protocol: u8, hosts: (&str, &str), bytes: &[u8], length: usize, line: &mut String) -> Option<()> {
    let (source, destination) = hosts;
    let name = match protocol {
        6 => "TCP",
        17 => "UDP",
        132 => "SCTP",
        1 | 58 => {
            write!(line, " {source} > {destination} ICMP").ok()?;
            let kind = *bytes.first()?;
            let name = match (protocol, kind) {
                (1, 8) | (58, 128) => " echo request",
                (1, 0) | (58, 129) => " echo reply",
                (58, 135) => " neighbour solicitation",
                (58, 136) => " neighbour advertisement",
                _ => return write!(line, " type {kind}, length {length}").ok(),
            };
            return write!(line, "{name}, length {length}").ok();
        }
        _ => return write!(line, " {source} > {destination} protocol {protocol}, length {length}").ok(),
    };
    write!(line, " {source}:{} > {destination}:{} {name}", u16_at(bytes, 0)?, u16_at(bytes, 2)?).ok()?;
    match protocol {
        6 => {
            let flags = *bytes.get(13)?;
            let header_len = usize::from(bytes.get(12)? >> 4) * 4;
            let letters: String =
                "FSRPAU".chars().enumerate().filter(|(i, _)| flags >> i & 1 != 0).map(|(_, c)| c).collect();
            write!(line, " [{letters}], length {}", length.saturating_sub(header_len)).ok()
        }
        17 => write!(line, ", length {}", usize::from(u16_at(bytes, 4)?).saturating_sub(8)).ok(),
        _ => write!(line, ", length {length}").ok(),
    }
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*number), rest))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    take_u16(bytes.get(at..)?).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACS: &str = "ffffffffffff 525400000001";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
    }

    fn line(hex: &str) -> String {
        let line = frame(&bytes(&format!("{MACS} {hex}")));
        line.strip_prefix("52:54:00:00:00:01 > ff:ff:ff:ff:ff:ff").expect(&line).to_owned()
    }

    #[test]
    fn common_packets() {
        let ip = "0800 4500 002c 0000 4000 40 PP 0000 0a000001 0a000002";
        assert_eq!(
            line(&(ip.replace("PP", "11") + "1234 0035 0018 0000")),
            " IPv4 10.0.0.1:4660 > 10.0.0.2:53 UDP, length 16"
        );
        assert_eq!(
            line(&(ip.replace("PP", "06") + "0050 ffff 00000000 00000000 50 12 0000 0000 0000")),
            " IPv4 10.0.0.1:80 > 10.0.0.2:65535 TCP [SA], length 4"
        );
        assert_eq!(line(&(ip.replace("PP", "01") + "08")), " IPv4 10.0.0.1 > 10.0.0.2 ICMP echo request, length 24");
        assert_eq!(
            line("0806 0001 0800 06 04 0001 525400000001 0a000001 000000000000 0a000002"),
            " ARP who has 10.0.0.2, tell 10.0.0.1"
        );
        let ipv6 = "86dd 60000000 0008 11 40 fe80000000000000 0000000000000001 ff02000000000000 0000000000000001";
        assert_eq!(line(&format!("{ipv6} 0001 0002 0008 0000")), " IPv6 [fe80::1]:1 > [ff02::1]:2 UDP, length 0");
    }

    #[test]
    fn tags_fragments_and_unknown_types() {
        assert_eq!(line("8100 2005 88a8 0006 88cc"), " vlan 5 vlan 6 ethertype 0x88cc");
        assert_eq!(line("0020"), " LLC, length 32");
        assert_eq!(
            line("0800 4500 0020 0000 2001 40 11 0000 0a000001 0a000002 00"),
            " IPv4 10.0.0.1 > 10.0.0.2 fragment of protocol 17"
        );
    }

    #[test]
    fn every_prefix_of_every_packet_has_a_line() {
        for hex in [
            "8100 0005 0800 4600 002c 0000 4000 40 06 0000 0a000001 0a000002 00000000 0050 ffff 00000000 00000000 50 12",
            "86dd 60000000 0008 3a 40 fe80000000000000 0000000000000001 ff02000000000000 0000000000000001 87",
            "0806 0001 0800 06 04 0001 525400000001 0a000001 000000000000 0a000002",
            "0800 ff00 002c",
        ] {
            let packet = bytes(&format!("{MACS} {hex}"));
            for end in 0..packet.len() {
                assert!(frame(&packet[..end]).contains("cut short"), "{end} bytes of {hex}");
            }
        }
    }

    #[test]
    fn the_nics_findings() {
        assert_eq!(info(&RxInfo::default()), "");
        let found = RxInfo {
            hash: Some(0xbeef),
            vlan_tci: Some(0x2005),
            packet_type: PacketType::IPV4 | PacketType::UDP,
            ip_checksum: Checksum::Good,
            l4_checksum: Checksum::Bad,
        };
        assert_eq!(info(&found), " stripped vlan 5 hash 0x0000beef type IPV4|UDP ip-checksum good l4-checksum BAD");
    }
}
