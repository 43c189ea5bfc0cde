//! The frames that pktgen sends, and how it knows them when they come back.
//!
//! A frame is Ethernet, IPv4 and UDP. Flows differ in their UDP source port and IPv4 source address; the payload
//! begins with a mark and the frame's number and ends in zeroes. The length does not include the FCS.
#![forbid(unsafe_code)]

use vfring::MacAddr;

/// Bytes of the headers: Ethernet 14, IPv4 20, UDP 8.
const HEADERS: usize = 42;
/// Bytes of the mark and of the number.
const STAMP: usize = 16;
/// What tells our frames from others.
const MARK: [u8; 8] = *b"vfring\x01\x00";
/// First UDP source port of the flows, and the destination port.
const FIRST_PORT: u16 = 10_000;
const DISCARD_PORT: u16 = 9;

/// The shortest frame: what Ethernet demands, which also holds the headers and the stamp.
pub const MIN_SIZE: usize = 60;
const _: () = assert!(HEADERS + STAMP <= MIN_SIZE);

/// The headers of every flow, made before the first frame is sent.
pub struct Frames {
    flows: Vec<[u8; HEADERS]>,
    size: usize,
}

impl Frames {
    /// Frames of `size` bytes, at least [`MIN_SIZE`], in `flows` flows.
    pub fn new(source: MacAddr, destination: MacAddr, size: usize, flows: u16) -> Self {
        let flows = (0..flows.max(1)).map(|flow| headers(source, destination, size.max(MIN_SIZE), flow)).collect();
        Frames { flows, size: size.max(MIN_SIZE) }
    }

    /// Bytes of a frame.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Writes frame `number` into `bytes`, which are [`size`](Frames::size) long.
    pub fn write(&self, bytes: &mut [u8], number: u64) {
        let flow = (number % self.flows.len() as u64) as usize;
        let Some((head, padding)) = bytes.split_at_mut_checked(HEADERS + STAMP) else { return };
        head[..HEADERS].copy_from_slice(&self.flows[flow]);
        head[HEADERS..HEADERS + 8].copy_from_slice(&MARK);
        head[HEADERS + 8..].copy_from_slice(&number.to_be_bytes());
        padding.fill(0);
    }

    /// The number of a frame that is ours.
    pub fn number_of(&self, bytes: &[u8]) -> Option<u64> {
        let (mark, rest) = bytes.get(HEADERS..)?.split_first_chunk::<8>()?;
        (*mark == MARK).then(|| rest.first_chunk().map(|number| u64::from_be_bytes(*number))).flatten()
    }
}

fn headers(source: MacAddr, destination: MacAddr, size: usize, flow: u16) -> [u8; HEADERS] {
    // Sizes are bounded by the MTU, which has 16 bits.
    let (ip_len, udp_len) = ((size - 14) as u16, (size - 34) as u16);
    let [flow_high, flow_low] = flow.to_be_bytes();
    let mut bytes = [0; HEADERS];
    bytes[..6].copy_from_slice(&destination.0);
    bytes[6..12].copy_from_slice(&source.0);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut bytes[14..34];
    ip[0] = 0x45; // version 4, five words
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[6] = 0x40; // do not fragment
    ip[8] = 64; // time to live
    ip[9] = 17; // UDP
    // 198.18.0.0/15 is set aside for benchmarks (RFC 2544).
    ip[12..16].copy_from_slice(&[198, 18, flow_high, flow_low]);
    ip[16..20].copy_from_slice(&[198, 19, 0, 1]);
    let checksum = ip_checksum(ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let udp = &mut bytes[34..];
    udp[..2].copy_from_slice(&FIRST_PORT.wrapping_add(flow).to_be_bytes());
    udp[2..4].copy_from_slice(&DISCARD_PORT.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
    // A UDP checksum of 0 over IPv4 means that there is none.
    bytes
}

/// The Internet checksum of a header.
fn ip_checksum(header: &[u8]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_valid_and_numbered() {
        let destination = MacAddr([2, 0, 0, 0, 0, 1]);
        let frames = Frames::new(MacAddr([2, 0, 0, 0, 0, 9]), destination, 64, 3);
        let mut bytes = [0xff; 64];
        for number in [0, 1, 5, u64::MAX] {
            frames.write(&mut bytes, number);
            assert_eq!(frames.number_of(&bytes), Some(number));
            assert_eq!(bytes[..6], destination.0);
            assert_eq!(ip_checksum(&bytes[14..34]), 0, "a header with its checksum sums to zero");
            assert_eq!(bytes[14 + 2..14 + 4], 50u16.to_be_bytes());
            assert_eq!(bytes[34 + 4..34 + 6], 30u16.to_be_bytes());
            assert_eq!(bytes[34..36], (10_000 + (number % 3) as u16).to_be_bytes());
            assert!(bytes[58..].iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn the_checksum_is_the_one_of_rfc_1071() {
        // Worked by hand: 4500+0073+4000+4011+c0a8+0001+c0a8+00c7 = 2479c, folded 479e, inverted b861.
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(ip_checksum(&header), 0xb861);
    }

    #[test]
    fn other_frames_are_not_ours() {
        let frames = Frames::new(MacAddr::ZERO, MacAddr::ZERO, 1, 0);
        assert_eq!(frames.size(), MIN_SIZE);
        let mut bytes = [0; MIN_SIZE];
        assert_eq!(frames.number_of(&bytes), None);
        frames.write(&mut bytes, 7);
        assert_eq!(frames.number_of(&bytes[..57]), None);
        assert_eq!(frames.number_of(&bytes[..58]), Some(7));
    }
}
