//! The packet type table: what headers a number in a receive descriptor means.
//!
//! Owns the layout of the first 256 numbers, which both series share (fact sheet iavf 5.5); numbers beyond, which the 800
//! series' package defines, are unknown. `desc.rs` looks numbers up. What always holds: the table is made at compile time,
//! and a look-up is one load.
#![forbid(unsafe_code)]

use crate::mem::{PacketType, verdict};

/// Bit of an entry besides those of [`PacketType`]: the headers named are those around a tunnel.
pub(super) const TUNNEL: u8 = 1 << 7;

const IPV4: u8 = PacketType::IPV4.bits() as u8;
const IPV6: u8 = PacketType::IPV6.bits() as u8;
const _: () = assert!(PacketType::all().bits() < TUNNEL as u16);

/// First number of the blocks of seven over IPv4 and IPv6 (fragment, plain, UDP, unused, TCP, SCTP, ICMP).
const PLAIN: [(usize, u8); 2] = [(22, IPV4), (88, IPV6)];
/// Offset of L4 headers in a block.
const UDP: usize = 2;
const TCP: usize = 4;
const SCTP: usize = 5;
const BLOCK: usize = 7;
/// Numbers of tunnels behind a plain block: IP in IP, then GRE or NAT alone, with MAC, and with MAC and VLAN.
const TUNNELS: usize = 2 * BLOCK + 3 * (1 + 2 * BLOCK);

const TABLE: [u8; 256] = {
    let mut table = [0; 256];
    let mut family = 0;
    while family < PLAIN.len() {
        let (first, ip) = PLAIN[family];
        let mut i = 0;
        while i < BLOCK + TUNNELS {
            table[first + i] = if i < BLOCK { ip } else { ip | TUNNEL };
            i += 1;
        }
        table[first + UDP] |= PacketType::UDP.bits() as u8;
        table[first + TCP] |= PacketType::TCP.bits() as u8;
        table[first + SCTP] |= PacketType::SCTP.bits() as u8;
        // The unused number of a block.
        table[first + UDP + 1] = 0;
        family += 1;
    }
    table
};

// The bits that verdicts are made of: wrong are the checksums of the IP header, of L4, of the IP header outside a tunnel; they
// were looked at; there are extension headers of IPv6 that the device cannot read beyond.
const IP_WRONG: u64 = 0;
const L4_WRONG: u64 = 1;
const OUTER_IP_WRONG: u64 = 2;
const CHECKED: u64 = 3;
const EXTENSIONS: u64 = 4;

// Verdicts as `VERDICTS` has them, all that could be asked for, and as `MASKS` chooses among them.
const ON_IP: u8 = 3;
const ON_L4: u8 = 3 << 2;
const ON_OUTER_IP: u8 = 3 << 4;
const EXTENDED: u8 = 1 << 6;

/// By the bits that verdicts are made of.
static VERDICTS: [u8; 32] = {
    const fn bit(bits: u64, number: u64) -> u64 {
        bits >> number & 1
    }
    let mut table = [0; 32];
    let mut bits = 0;
    while bits < 32 {
        let (checked, extended) = (bit(bits, CHECKED), bit(bits, EXTENSIONS));
        // With such extension headers the verdict on L4 cannot be trusted.
        let verdicts = verdict(checked, bit(bits, IP_WRONG))
            | verdict(checked & (extended ^ 1), bit(bits, L4_WRONG)) << 2
            | verdict(checked, bit(bits, OUTER_IP_WRONG)) << 4
            | extended << 6;
        table[bits as usize] = verdicts as u8;
        bits += 1;
    }
    table
};

/// By number: bits of [`PacketType`], and above them which verdicts such a packet has.
static MASKS: [u16; 256] = {
    let mut table = [0; 256];
    let mut number = 0;
    while number < 256 {
        let entry = TABLE[number];
        let mut mask = 0;
        if entry & IPV4 != 0 {
            mask |= if entry & TUNNEL != 0 { ON_OUTER_IP } else { ON_IP };
        }
        // Of what a tunnel holds nothing is told: its entry names no L4.
        if entry & (PacketType::TCP.bits() | PacketType::UDP.bits() | PacketType::SCTP.bits()) as u8 != 0 {
            mask |= ON_L4;
        }
        if entry & IPV6 != 0 {
            mask |= EXTENDED;
        }
        table[number] = (entry & !TUNNEL) as u16 | (mask as u16) << 8;
        number += 1;
    }
    table
};
const _: () = assert!(PacketType::IPV6_EXTENSIONS.bits() as u8 == EXTENDED >> 3 && IPV6 == EXTENDED >> 4);

/// Bits of [`PacketType`], and verdicts as [`Facts`](crate::mem::Facts) has them, of a packet type's number and the bits that
/// verdicts are made of, in the order above.
#[inline(always)]
pub(super) fn judge(number: u16, bits: u64) -> (u64, u64) {
    let entry = u64::from(MASKS[usize::from(number as u8)]);
    let entry = if number < 256 { entry } else { 0 };
    let verdicts = u64::from(VERDICTS[bits as usize & 31]) & entry >> 8;
    // Either bit tells the kind of IPv6 header, and never both.
    let extended = verdicts >> 3 & u64::from(EXTENDED >> 3);
    (
        (entry & 0xff) ^ (extended | extended >> 1),
        verdicts & u64::from(ON_IP | ON_L4) | verdicts >> 4 & u64::from(ON_IP),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_mean_what_the_sheet_says() {
        let golden: [(u16, PacketType, bool); 19] = [
            (0, PacketType::empty(), false),
            (1, PacketType::empty(), false),
            (11, PacketType::empty(), false),
            (21, PacketType::empty(), false),
            (22, PacketType::IPV4, false),
            (23, PacketType::IPV4, false),
            (24, PacketType::IPV4.union(PacketType::UDP), false),
            (25, PacketType::empty(), false),
            (26, PacketType::IPV4.union(PacketType::TCP), false),
            (27, PacketType::IPV4.union(PacketType::SCTP), false),
            (28, PacketType::IPV4, false),
            (29, PacketType::IPV4, true),
            (43, PacketType::IPV4, true),
            (87, PacketType::IPV4, true),
            (90, PacketType::IPV6.union(PacketType::UDP), false),
            (92, PacketType::IPV6.union(PacketType::TCP), false),
            (153, PacketType::IPV6, true),
            (154, PacketType::empty(), false),
            (255, PacketType::empty(), false),
        ];
        for (number, types, tunnel) in golden {
            let expected = types.bits() as u8 | if tunnel { TUNNEL } else { 0 };
            assert_eq!(TABLE[usize::from(number)], expected, "{number}");
            assert_eq!(judge(number, 0), (types.bits().into(), 0), "{number}");
        }
        assert!((256..1024).all(|number| judge(number, 0b01111) == (0, 0)));
    }
}
