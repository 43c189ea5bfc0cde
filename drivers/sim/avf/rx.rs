//! The receive engine of the avf model: verdicts on a frame, and its way into armed buffers (fact sheet iavf 5.2 to 5.6).
//!
//! A verdict is independent of the descriptor format; it is encoded when the frame is placed, in the format that the
//! PF configured for the queue. A frame that needs more descriptors than are armed, or more than five, is dropped whole.
#![forbid(unsafe_code)]

use super::super::env::Env;
use super::super::fault::{Fault, Faults};
use super::super::frame::{self, Ip, Layout, Transport};
use super::regs;
use super::ring::Ring;
use crate::addr::MacAddr;

/// Buffers that a frame may span (iavf 5.6).
pub(super) const BUFFERS_MAX: usize = 5;
/// "No flow" in the formats that have a place for one (iavf 5.4).
const NO_FLOW: u64 = 0xffff_ffff;

/// One receive queue.
pub(super) struct RxQueue {
    pub(super) ring: Ring,
    /// Descriptor profile that the queue was configured with.
    pub(super) rxdid: u8,
    /// Longest frame with FCS that it takes.
    pub(super) max_packet: usize,
    /// Keep the FCS in the buffer.
    pub(super) keep_crc: bool,
    /// The vector that reports its events.
    pub(super) vector: Option<usize>,
}

/// What the device found out about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    pub(super) hash: Option<u32>,
    /// Packet type (iavf 5.5).
    ptype: u8,
    /// 0 unicast, 1 multicast, 2 broadcast.
    cast: u8,
    /// Headers were recognised, so that the error bits mean something.
    parsed: bool,
    ip_error: bool,
    l4_error: bool,
    extensions: bool,
    pub(super) loopback: bool,
    /// Stripped tags: in L2TAG1, and in the second L2TAG2.
    pub(super) tag1: Option<u16>,
    pub(super) tag2: Option<u16>,
}

impl RxQueue {
    pub(super) fn new(port: usize, queue: usize) -> Self {
        let ring = Ring::new(port, "rx", queue);
        RxQueue { ring, rxdid: regs::RXDID_LEGACY, max_packet: 0, keep_crc: false, vector: None }
    }

    /// True when a frame of `len` bytes would find buffers now.
    #[inline]
    pub(super) fn has_room(&self, len: usize) -> bool {
        let available = (self.ring.available() as usize).min(BUFFERS_MAX);
        available > 0 && len + self.crc() <= available * self.ring.buffer_len()
    }

    fn crc(&self) -> usize {
        if self.keep_crc { frame::FCS } else { 0 }
    }

    /// Writes a frame into armed buffers and writes their descriptors back. `Ok(false)` when it does not fit.
    #[inline]
    pub(super) fn place(
        &mut self,
        bytes: &[u8],
        verdict: &Verdict,
        hold: bool,
        env: &mut Env,
        faults: &Faults,
    ) -> Result<bool, String> {
        if !self.has_room(bytes.len()) {
            return Ok(false);
        }
        let with_crc: Vec<u8>;
        let mut left = bytes;
        if self.keep_crc {
            // The model's wires carry no FCS, so there is none to show.
            with_crc = [bytes, &[0; frame::FCS]].concat();
            left = &with_crc;
        }
        let buffer = self.ring.buffer_len();
        loop {
            let slot = self.ring.head;
            let [address, header] = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            if header & 1 != 0 {
                return Err(format!("rx descriptor {slot} armed with bit 0 of the header address (DD) set"));
            }
            let (piece, rest) = left.split_at(left.len().min(buffer));
            // The device may write the whole buffer, so the whole buffer must be there.
            env.dma.check(address, buffer).map_err(|f| format!("rx descriptor {slot}: {f}"))?;
            env.dma.write(address, piece).map_err(|f| f.to_string())?;
            self.ring.used(slot, address, env)?;
            let len = faults.lying_length().unwrap_or(piece.len() as u16) & 0x3fff;
            let last = rest.is_empty().then_some(verdict);
            let words = encode(self.rxdid, len, last, faults.has(Fault::RxError));
            self.ring.head = self.ring.next(slot);
            self.ring.complete(slot, words, hold, env, faults)?;
            if rest.is_empty() {
                return Ok(true);
            }
            left = rest;
        }
    }
}

/// A write-back of `len` bytes; with the verdict in the last descriptor of a frame only.
pub(super) fn encode(rxdid: u8, len: u16, last: Option<&Verdict>, error: bool) -> [u64; 4] {
    let bit = |on: bool, bit: u64| if on { bit } else { 0 };
    let flex = rxdid != regs::RXDID_LEGACY;
    let Some(v) = last else {
        return if flex {
            [rxdid as u64 | (len as u64) << 32, regs::FLEX_DD, 0, 0]
        } else {
            [0, regs::RX_DD | (len as u64) << 38, 0, 0]
        };
    };
    let hash = v.hash.unwrap_or(0) as u64;
    let tag1 = (v.tag1.unwrap_or(0) as u64) << 16;
    // The second L2TAG2 is in the top 16 bits of quadword 2 in both formats.
    let tag2 = (v.tag2.unwrap_or(0) as u64) << 48;
    if !flex {
        let status = regs::RX_DD
            | regs::RX_EOF
            | bit(v.tag1.is_some(), regs::RX_L2TAG1P)
            | bit(v.parsed, regs::RX_L3L4P)
            | (v.cast as u64) << 9
            | bit(v.hash.is_some(), regs::RX_FLTSTAT_HASH)
            | bit(v.loopback, regs::RX_LPBK)
            | bit(v.extensions, regs::RX_IPV6EX)
            | bit(error, regs::RX_RXE)
            | bit(v.ip_error, regs::RX_IPE)
            | bit(v.l4_error, regs::RX_L4E);
        let qw1 = status | (v.ptype as u64) << 30 | (len as u64) << 38;
        return [tag1 | hash << 32, qw1, bit(v.tag2.is_some(), regs::RX_L2TAG2P) | tag2, 0];
    }
    let status = regs::FLEX_DD
        | regs::FLEX_EOF
        | bit(v.parsed, regs::FLEX_L3L4P)
        | bit(v.ip_error, regs::FLEX_IPE)
        | bit(v.l4_error, regs::FLEX_L4E)
        | bit(v.loopback, regs::FLEX_LPBK)
        | bit(v.extensions, regs::FLEX_IPV6EX)
        | bit(error, regs::FLEX_RXE)
        | bit(v.hash.is_some(), regs::FLEX_RSS_VALID)
        | bit(v.tag1.is_some(), regs::FLEX_L2TAG1P);
    // Hash and flow: in bytes 12 and 24, or the other way round.
    let (at_12, at_24) = if rxdid == regs::RXDID_OVS { (NO_FLOW, hash) } else { (hash, NO_FLOW) };
    [
        rxdid as u64 | (v.cast as u64) << 14 | (v.ptype as u64) << 16 | (len as u64) << 32,
        status | tag1 | at_12 << 32,
        bit(v.tag2.is_some(), regs::FLEX_L2TAG2P) | tag2,
        at_24,
    ]
}

/// Headers, checksums and packet type of a frame whose tags were stripped if they are to be.
pub(super) fn classify(bytes: &[u8]) -> (Layout, Verdict) {
    let layout = frame::layout(bytes);
    let to = frame::destination(bytes);
    let verdict = Verdict {
        ptype: packet_type(bytes, &layout),
        cast: match to {
            MacAddr::BROADCAST => 2,
            to if to.is_multicast() => 1,
            _ => 0,
        },
        parsed: layout.ip != Ip::None,
        ip_error: matches!(layout.ip, Ip::V4 { .. }) && !frame::ipv4_checksum_good(bytes, &layout),
        l4_error: frame::transport_checksum_good(bytes, &layout) == Some(false),
        extensions: layout.ip == Ip::V6 { extensions: true },
        ..Verdict::default()
    };
    (layout, verdict)
}

/// What follows the IP header of a frame, for the packet type and the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    Fragment,
    Other,
    Udp,
    Tcp,
    Sctp,
    Icmp,
}

/// What follows the IP header.
pub(super) fn payload(bytes: &[u8], layout: &Layout) -> Payload {
    let (fragment, protocol) = match layout.ip {
        Ip::V4 { .. } => {
            let fragment = u16::from_be_bytes([bytes[layout.l3 + 6], bytes[layout.l3 + 7]]) & 0x3fff;
            (fragment != 0, bytes[layout.l3 + 9])
        }
        Ip::V6 { .. } => (bytes[layout.l3 + 6] == 44, bytes[layout.l3 + 6]),
        Ip::None => return Payload::Other,
    };
    match layout.transport {
        _ if fragment => Payload::Fragment,
        Transport::Tcp => Payload::Tcp,
        Transport::Udp => Payload::Udp,
        Transport::Sctp => Payload::Sctp,
        Transport::None if protocol == 1 || protocol == 58 => Payload::Icmp,
        Transport::None => Payload::Other,
    }
}

/// Packet type (iavf 5.5).
fn packet_type(bytes: &[u8], layout: &Layout) -> u8 {
    let block = match layout.ip {
        Ip::V4 { .. } => 22,
        Ip::V6 { .. } => 88,
        Ip::None if bytes.get(layout.l3 - 2..layout.l3) == Some(&[0x08, 0x06]) => return 11,
        Ip::None => return 1,
    };
    block
        + match payload(bytes, layout) {
            Payload::Fragment => 0,
            Payload::Other => 1,
            Payload::Udp => 2,
            Payload::Tcp => 4,
            Payload::Sctp => 5,
            Payload::Icmp => 6,
        }
}

impl Verdict {
    /// As the world keeps it for a frame that is sent many times.
    pub(super) fn pack(&self) -> [u64; 4] {
        let flags = [
            self.hash.is_some(),
            self.parsed,
            self.ip_error,
            self.l4_error,
            self.extensions,
            self.loopback,
            self.tag1.is_some(),
            self.tag2.is_some(),
        ];
        let flags = flags.iter().rev().fold(0, |all, &flag| all << 1 | flag as u64);
        let types = self.ptype as u64 | (self.cast as u64) << 8;
        let tags = self.tag1.unwrap_or(0) as u64 | (self.tag2.unwrap_or(0) as u64) << 16;
        [self.hash.unwrap_or(0) as u64, flags, types, tags]
    }

    /// The verdict that was packed.
    #[inline]
    pub(super) fn unpack([hash, flags, types, tags]: [u64; 4]) -> Self {
        let flag = |bit: u32| flags >> bit & 1 != 0;
        Verdict {
            hash: flag(0).then_some(hash as u32),
            ptype: types as u8,
            cast: (types >> 8) as u8,
            parsed: flag(1),
            ip_error: flag(2),
            l4_error: flag(3),
            extensions: flag(4),
            loopback: flag(5),
            tag1: flag(6).then_some(tags as u16),
            tag2: flag(7).then_some((tags >> 16) as u16),
        }
    }

    /// Bytes that were on the wire and are not in the buffer.
    #[inline]
    pub(super) fn stripped(&self) -> usize {
        4 * (self.tag1.is_some() as usize + self.tag2.is_some() as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_verdict_is_the_same_afterwards() {
        let verdict = Verdict {
            hash: Some(0xdead_beef),
            ptype: 92,
            cast: 2,
            l4_error: true,
            loopback: true,
            tag2: Some(0x2064),
            ..Verdict::default()
        };
        assert_eq!(Verdict::unpack(verdict.pack()), verdict);
        let other = Verdict { parsed: true, ip_error: true, extensions: true, tag1: Some(7), ..Verdict::default() };
        assert_eq!(Verdict::unpack(other.pack()), other);
    }

    #[test]
    fn write_backs_as_in_the_fact_sheet() {
        let v = Verdict { hash: Some(0x1122_3344), ptype: 24, parsed: true, tag1: Some(100), ..Verdict::default() };
        assert_eq!(encode(1, 60, None, false), [0, 1 | 60 << 38, 0, 0]);
        assert_eq!(encode(1, 60, Some(&v), false), [0x1122_3344_0064_0000, 0x300f | 24 << 30 | 60 << 38, 0, 0]);
        assert_eq!(encode(2, 60, Some(&v), false), [2 | 24 << 16 | 60 << 32, 0x1122_3344_0064_300b, 0, 0xffff_ffff]);
        assert_eq!(encode(22, 60, Some(&v), false), [22 | 24 << 16 | 60 << 32, 0xffff_ffff_0064_300b, 0, 0x1122_3344]);
        let v = Verdict { tag2: Some(7), ..Verdict::default() };
        assert_eq!(encode(1, 60, Some(&v), true)[1..3], [3 | 1 << 19 | 60 << 38, 1 | 7 << 48]);
        assert_eq!(encode(22, 60, Some(&v), true)[1..3], [0xffff_ffff_0000_0403, 1 << 11 | 7 << 48]);
    }
}
