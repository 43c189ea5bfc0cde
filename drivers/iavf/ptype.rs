//! The packet type table: what headers a number in a receive descriptor means.
//!
//! Owns the layout of the first 256 numbers, which both series share (fact sheet iavf 5.5); numbers beyond, which the 800
//! series' package defines, are unknown. `desc.rs` looks numbers up. What always holds: the table is made at compile time,
//! and a look-up is one load.
#![forbid(unsafe_code)]

use crate::mem::PacketType;

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

static TABLE: [u8; 256] = {
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

/// The entry of a number: bits of [`PacketType`] and [`TUNNEL`]; 0 where nothing is known.
#[inline(always)]
pub(super) fn look_up(number: u16) -> u8 {
    match u8::try_from(number) {
        Ok(number) => TABLE[usize::from(number)],
        Err(_) => 0,
    }
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
            assert_eq!(look_up(number), expected, "{number}");
        }
        assert!((256..1024).all(|number| look_up(number) == 0));
    }
}
