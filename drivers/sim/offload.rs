//! What a NIC does to a frame on its way out: the checksums that the driver left to it, and segmentation.
//!
//! Works on private copies, for the transmit engine of every model. How a driver asks is the family's descriptor format;
//! what comes of it is the same. An order that does not fit the frame is refused with what is wrong.
#![forbid(unsafe_code)]

use super::env::Env;
use super::frame::{self, MIN_FRAME, Transport};

/// Where the driver says that the headers are, and what it leaves to the NIC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Offload {
    /// First byte of the IP header.
    pub(super) l3: usize,
    /// First byte of the transport header.
    pub(super) l4: usize,
    /// IPv4, else IPv6.
    pub(super) ipv4: bool,
    pub(super) transport: Transport,
    /// Insert the IPv4 header checksum.
    pub(super) ip_checksum: bool,
    /// Insert the transport checksum.
    pub(super) l4_checksum: bool,
}

impl Offload {
    /// Inserts the checksums that are asked for.
    pub(super) fn insert_checksums(&self, bytes: &mut [u8]) -> Result<(), String> {
        let (l3, l4) = (self.l3, self.l4);
        if self.ip_checksum {
            if !self.ipv4 || l4 < l3 + 20 || l4 > bytes.len() {
                let len = l4.saturating_sub(l3);
                return Err(format!(
                    "IP checksum with a header of {len} bytes (IPv4: {}) in {} bytes",
                    self.ipv4,
                    bytes.len()
                ));
            }
            // The field is summed as it is. Linux's drivers leave all ones there, which adds as much as 0.
            if ![0, 0xffff].contains(&get16(bytes, l3 + 10)) {
                return Err("IP checksum with a header checksum that is not 0 in the packet".into());
            }
            let checksum = !frame::fold(frame::sum(&bytes[l3..l4], 0));
            put16(bytes, l3 + 10, checksum);
        }
        if self.l4_checksum {
            let (offset, least) = match self.transport {
                Transport::Tcp => (16, 20),
                Transport::Udp => (6, 8),
                Transport::Sctp => (8, 12),
                Transport::None => return Err("L4 checksum of no transport (L4 type none)".into()),
            };
            if l4 + least > bytes.len() {
                return Err(format!("L4 checksum with a header at {l4} in {} bytes", bytes.len()));
            }
            if self.transport == Transport::Sctp {
                bytes[l4 + 8..l4 + 12].fill(0);
                let crc = frame::crc32c(&bytes[l4..]);
                bytes[l4 + 8..l4 + 12].copy_from_slice(&crc.to_le_bytes());
            } else {
                // The field holds the pseudo-header sum, so summing over it includes the pseudo header.
                let checksum = match !frame::fold(frame::sum(&bytes[l4..], 0)) {
                    0 if self.transport == Transport::Udp => 0xffff,
                    other => other,
                };
                put16(bytes, l4 + offset, checksum);
            }
        }
        Ok(())
    }

    /// Cuts a TCP packet with `headers` bytes of headers into segments of `mss` bytes of payload, in order. The
    /// caller has checked that the headers are in the frame and hold at least those of IP and TCP.
    pub(super) fn segment(
        &self,
        packet: &[u8],
        headers: usize,
        mss: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), String> {
        let (l3, l4) = (self.l3, self.l4);
        let payload = &packet[headers..];
        let segments = payload.len().div_ceil(mss);
        let mut segment = Vec::with_capacity(headers + mss);
        for (i, piece) in payload.chunks(mss).enumerate() {
            segment.clear();
            segment.extend_from_slice(&packet[..headers]);
            segment.extend_from_slice(piece);
            let ip_payload = segment.len() - l4;
            if self.ipv4 {
                put16(&mut segment, l3 + 2, (l4 - l3 + ip_payload) as u16);
                let id = get16(&segment, l3 + 4).wrapping_add(i as u16);
                put16(&mut segment, l3 + 4, id);
            } else {
                put16(&mut segment, l3 + 4, (l4 - l3 - 40 + ip_payload) as u16);
            }
            let sequence = [4, 5, 6, 7].map(|o| segment[l4 + o]);
            let sequence = u32::from_be_bytes(sequence).wrapping_add((i * mss) as u32);
            segment[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
            if i + 1 < segments {
                segment[l4 + 13] &= !0x09; // FIN and PSH belong to the last segment
            }
            // The packet's checksum field holds the pseudo-header sum without the length: hardware adds that.
            let seed = frame::fold(get16(&segment, l4 + 16) as u64 + ip_payload as u64);
            put16(&mut segment, l4 + 16, seed);
            self.insert_checksums(&mut segment)?;
            each(&segment);
        }
        Ok(())
    }
}

/// Pads a frame that is ready and hands it over.
pub(super) fn pad_and_emit(outgoing: &mut Vec<u8>, env: &mut Env, emit: &mut impl FnMut(&mut Env, &[u8], usize)) {
    if outgoing.len() < MIN_FRAME {
        outgoing.resize(MIN_FRAME, 0);
    }
    emit(env, outgoing, outgoing.len());
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
