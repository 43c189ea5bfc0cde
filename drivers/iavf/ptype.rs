//! The packet type table: what headers a number in a receive descriptor means.
//!
//! Owns the layout of the first 256 numbers, which both series share (fact sheet iavf 5.5); numbers beyond, which the 800
//! series' package defines, are unknown. `desc.rs` looks numbers up. What always holds: the table is made at compile time,
//! and a look-up is one load.
#![forbid(unsafe_code)]

use crate::mem::{PackedInfo, PacketType};

const IPV6: u64 = PacketType::IPV6.bits() as u64;
/// All about checksums that a packet can have.
const ON_IPV4: u64 = PackedInfo::IP_LOOKED | PackedInfo::IP_WRONG;
const ON_OUTER_IPV4: u64 = PackedInfo::IP_LOOKED | PackedInfo::OUTER_IP_WRONG;
const ON_L4: u64 = PackedInfo::L4_LOOKED | PackedInfo::L4_WRONG;

/// Numbers of the blocks over IPv4 and over IPv6: seven plain ones (fragment, plain, UDP, unused, TCP, SCTP, ICMP), and
/// tunnels: IP in IP, then GRE or NAT alone, with MAC, and with MAC and VLAN.
pub(super) const FIRSTS: [u16; 2] = [22, 88];
const PLAIN: u16 = 7;
pub(super) const BLOCK: u16 = PLAIN + 2 * PLAIN + 3 * (1 + 2 * PLAIN);

/// By block, the flags of [`PackedInfo`] that a number stands for, with all about checksums that such a packet can have: those
/// of the seven plain numbers, then that of every tunnel, of whose inside nothing is told.
pub(super) const FLAGS: [[u16; 8]; 2] = {
    let mut table = [[0; 8]; 2];
    let mut at = 0;
    while at < 8 {
        let l4 = match at {
            2 => PacketType::UDP.bits() as u64 | ON_L4,
            4 => PacketType::TCP.bits() as u64 | ON_L4,
            5 => PacketType::SCTP.bits() as u64 | ON_L4,
            _ => 0,
        };
        if at != 3 {
            let ip = if at < PLAIN { ON_IPV4 } else { ON_OUTER_IPV4 };
            table[0][at as usize] = (PacketType::IPV4.bits() as u64 | ip | l4) as u16;
            table[1][at as usize] = (IPV6 | l4) as u16;
        }
        at += 1;
    }
    table
};

/// The same by number; 0 stands for what is unknown.
static BY_NUMBER: [u16; 256] = {
    let mut table = [0; 256];
    let mut number = 0;
    while number < 2 * BLOCK {
        let (block, at) = ((number / BLOCK) as usize, number % BLOCK);
        table[(FIRSTS[block] + at) as usize] = FLAGS[block][if at < PLAIN { at } else { PLAIN } as usize];
        number += 1;
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

/// By the first four of these bits, the flags about checksums: of all that a packet could have.
pub(super) static VERDICTS: [u16; 16] = {
    let mut table = [0; 16];
    let mut bits = 1 << CHECKED;
    while bits < 16 {
        let mut flags = PackedInfo::IP_LOOKED | PackedInfo::L4_LOOKED;
        flags += (bits >> IP_WRONG & 1) * PackedInfo::IP_WRONG;
        flags += (bits >> L4_WRONG & 1) * PackedInfo::L4_WRONG;
        flags += (bits >> OUTER_IP_WRONG & 1) * PackedInfo::OUTER_IP_WRONG;
        table[bits as usize] = flags as u16;
        bits += 1;
    }
    table
};
const _: () = assert!(CHECKED == 3, "half of the table");

/// The flags of a packet with extension headers: the verdict on L4 cannot be trusted, and IPv6 becomes the next bit.
#[inline(always)]
pub(super) const fn extended(flags: u64) -> u64 {
    const _: () = assert!(PacketType::IPV6_EXTENSIONS.bits() == PacketType::IPV6.bits() << 1);
    (flags & !PackedInfo::L4_LOOKED) + (flags & IPV6)
}

/// The flags of [`PackedInfo`] but for hash and tag, of a packet type's number and the bits that verdicts are made of, in the
/// order above.
#[inline(always)]
pub(super) fn judge(number: u16, bits: u64) -> u64 {
    let flags = u64::from(BY_NUMBER[usize::from(number as u8)]);
    let flags = if number < 256 { flags } else { 0 };
    let flags = flags & (PackedInfo::TYPES | u64::from(VERDICTS[bits as usize & 15]));
    if bits >> EXTENSIONS & 1 == 1 { extended(flags) } else { flags }
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
            assert_eq!(judge(number, 0), u64::from(types.bits()), "{number}");
            // A wrong outer header counts in tunnels alone, and a wrong header outside of them alone.
            let verdicts = judge(number, 0b1101) & (PackedInfo::IP_WRONG | PackedInfo::OUTER_IP_WRONG);
            let expected = match (types.contains(PacketType::IPV4), tunnel) {
                (false, _) => 0,
                (true, false) => PackedInfo::IP_WRONG,
                (true, true) => PackedInfo::OUTER_IP_WRONG,
            };
            assert_eq!(verdicts, expected, "{number}");
        }
        assert!((256..1024).all(|number| judge(number, 0b01111) == 0));
    }
}
