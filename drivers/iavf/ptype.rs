//! The packet type table: what headers a number in a receive descriptor means.
//!
//! Owns the layout of the first 256 numbers, which both series share (fact sheet iavf 5.5); numbers beyond, which the 800
//! series' package defines, are unknown. `desc.rs` looks numbers up. What always holds: the tables are made at compile time,
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

/// Numbers that a descriptor can have: 10 bits.
const NUMBERS: usize = 1 << 10;

/// The same by number, without and with extension headers, and with [`PRESENT`]; nothing but that stands for what is unknown.
static BY_NUMBER: [[u16; NUMBERS]; 2] = {
    let mut table = [[PRESENT as u16; NUMBERS]; 2];
    let mut number = 0;
    while number < 2 * BLOCK {
        let (block, at) = ((number / BLOCK) as usize, number % BLOCK);
        let flags = FLAGS[block][if at < PLAIN { at } else { PLAIN } as usize];
        table[0][(FIRSTS[block] + at) as usize] |= flags;
        table[1][(FIRSTS[block] + at) as usize] |= extended(flags as u64) as u16;
        number += 1;
    }
    table
};
/// What any packet can have beside the rest.
const PRESENT: u64 = PackedInfo::HASHED | PackedInfo::TAGGED;

// The bits that verdicts are made of: wrong are the checksums of the IP header, of L4, of the IP header outside a tunnel; they
// were looked at.
const IP_WRONG: u64 = 0;
const L4_WRONG: u64 = 1;
const OUTER_IP_WRONG: u64 = 2;
const CHECKED: u64 = 3;

/// By these bits, the flags about checksums: of all that a packet could have.
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

/// All flags of a packet with such a verdict that says whether there are hash and tag: those that its number does not take away.
pub(super) const fn allowed(verdict: usize, hashed: bool, tagged: bool) -> u16 {
    let hash = if hashed { PackedInfo::HASHED } else { 0 };
    let tag = if tagged { PackedInfo::TAGGED } else { 0 };
    VERDICTS[verdict] | (PackedInfo::TYPES | hash | tag) as u16
}

/// The flags of [`PackedInfo`] that a packet with this number can have, where bit 0 of `extensions` says that there are extension
/// headers of IPv6 beyond which the device cannot read.
#[inline(always)]
pub(super) fn possible(number: u64, extensions: u64) -> u64 {
    BY_NUMBER[extensions as usize & 1][number as usize % NUMBERS].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_mean_what_the_sheet_says() {
        let golden: [(u64, PacketType, bool); 19] = [
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
        let judge = |number, verdict| possible(number, 0) & u64::from(allowed(verdict, false, false));
        for (number, types, tunnel) in golden {
            assert_eq!(judge(number, 0), u64::from(types.bits()), "{number}");
            assert_eq!(possible(number, 0) & u64::from(allowed(0, true, true)), u64::from(types.bits()) | PRESENT);
            // A wrong outer header counts in tunnels alone, and a wrong header outside of them alone.
            let verdicts = judge(number, 0b1101) & (PackedInfo::IP_WRONG | PackedInfo::OUTER_IP_WRONG);
            let expected = match (types.contains(PacketType::IPV4), tunnel) {
                (false, _) => 0,
                (true, false) => PackedInfo::IP_WRONG,
                (true, true) => PackedInfo::OUTER_IP_WRONG,
            };
            assert_eq!(verdicts, expected, "{number}");
        }
        assert!((256..1024).all(|number| judge(number, 0b1111) == 0));
    }
}
