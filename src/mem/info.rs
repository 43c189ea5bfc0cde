//! Per-packet metadata that travels beside a packet in a burst: what the NIC found ([`RxInfo`]) and what it is asked
//! to do ([`TxInfo`]).
#![forbid(unsafe_code)]

bitflags::bitflags! {
    /// What the NIC recognised in a received frame. Flags combine: `IPV4 | TCP`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
    pub struct PacketType: u16 {
        /// IPv4 header.
        const IPV4 = 1 << 0;
        /// IPv4 header with options.
        const IPV4_OPTIONS = 1 << 1;
        /// IPv6 header.
        const IPV6 = 1 << 2;
        /// IPv6 header with extension headers.
        const IPV6_EXTENSIONS = 1 << 3;
        /// TCP header.
        const TCP = 1 << 4;
        /// UDP header.
        const UDP = 1 << 5;
        /// SCTP header.
        const SCTP = 1 << 6;
    }
}

/// The NIC's verdict on a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum Checksum {
    /// The NIC did not look.
    #[default]
    Unchecked = 0,
    /// The checksum is right.
    Good = 1,
    /// The checksum is wrong.
    Bad = 2,
}

/// What the NIC found out about a received packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RxInfo {
    /// RSS hash, where the NIC computed one.
    pub hash: Option<u32>,
    /// The VLAN tag (TCI, host byte order) that the NIC stripped.
    pub vlan_tci: Option<u16>,
    /// Recognised headers.
    pub packet_type: PacketType,
    /// Verdict on the IPv4 header checksum.
    pub ip_checksum: Checksum,
    /// Verdict on the TCP, UDP or SCTP checksum.
    pub l4_checksum: Checksum,
}

/// [`RxInfo`] as rings write it: in one word, so that it costs one store and formats can make it of a descriptor's words by plain
/// arithmetic, which the compiler turns into vectors where it may.
///
/// | bits | |
/// |---|---|
/// | 0 to 6 | the packet type |
/// | 7, 8 | there is a hash; there is a tag |
/// | 9, 10 | the verdict on the IP header's checksum, as the number of [`Checksum`] |
/// | 11, 12 | that on L4's |
/// | 16 to 31, 32 to 63 | tag; hash |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PackedInfo(u64);

/// What a descriptor says about its packet, as numbers.
pub(crate) struct Facts {
    /// Bits of [`PacketType`].
    pub(crate) types: u64,
    /// 1 where there is a hash, and it, in the low 32 bits.
    pub(crate) hashed: u64,
    pub(crate) hash: u64,
    /// 1 where there is a tag, and it, in the low 16 bits.
    pub(crate) tagged: u64,
    pub(crate) tag: u64,
    /// The [`verdict`] on the IP header's checksum in bits 0 and 1, that on L4's in bits 2 and 3.
    pub(crate) verdicts: u64,
}

/// 1 where a word has a bit of the mask.
#[inline(always)]
pub(crate) fn has(word: u64, mask: u64) -> u64 {
    u64::from(word & mask != 0)
}

/// The number of a checksum's verdict, from whether the NIC looked and whether it is wrong, each 0 or 1.
#[inline(always)]
pub(crate) const fn verdict(checked: u64, wrong: u64) -> u64 {
    checked + (checked & wrong)
}

const _: () = assert!(Checksum::Unchecked as u8 == 0 && Checksum::Good as u8 == 1 && Checksum::Bad as u8 == 2);

impl Facts {
    #[inline(always)]
    pub(crate) fn pack(self) -> PackedInfo {
        PackedInfo(
            self.types & u64::from(PacketType::all().bits())
                | self.hashed << 7
                | self.tagged << 8
                | self.verdicts << 9
                | (self.tag & 0xffff) << 16
                | self.hash << 32,
        )
    }
}

impl PackedInfo {
    #[inline]
    pub(crate) fn unpack(self) -> RxInfo {
        let PackedInfo(bits) = self;
        let checksum = |number| match number & 3 {
            0 => Checksum::Unchecked,
            1 => Checksum::Good,
            _ => Checksum::Bad,
        };
        RxInfo {
            hash: (bits & 1 << 7 != 0).then_some((bits >> 32) as u32),
            vlan_tci: (bits & 1 << 8 != 0).then_some((bits >> 16) as u16),
            packet_type: PacketType::from_bits_truncate(bits as u16),
            ip_checksum: checksum(bits >> 9),
            l4_checksum: checksum(bits >> 11),
        }
    }
}

/// Which L4 checksum the NIC inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[repr(u8)]
pub enum L4 {
    /// None.
    #[default]
    None = 0,
    /// TCP; the checksum field holds the pseudo-header sum.
    Tcp = 1,
    /// UDP; the checksum field holds the pseudo-header sum.
    Udp = 2,
    /// SCTP (CRC32c).
    Sctp = 3,
}

/// What the NIC is asked to do to a packet that is sent. Read only by queues opened with offloads.
///
/// Lengths are in bytes and describe the headers at the start of the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TxInfo {
    /// Length of the Ethernet header (14, or 18 with a tag in the frame); at most 127.
    pub l2_len: u8,
    /// Length of the IP header with options or extensions; at most 511.
    pub l3_len: u16,
    /// Length of the L4 header; needed for TSO.
    pub l4_len: u8,
    /// Insert the IPv4 header checksum (its field holds 0).
    pub ip_checksum: bool,
    /// The packet is IPv6 (`false`: IPv4). Only looked at when L4 or IP offloads are asked for.
    pub ipv6: bool,
    /// Insert this L4 checksum.
    pub l4: L4,
    /// Segment the TCP payload, which must not be empty, into pieces of this many bytes; 0 sends the frame as it is.
    /// The checksum field of TCP holds the pseudo-header sum with a length of 0: the NIC adds each segment's.
    pub tso_mss: u16,
    /// Insert a VLAN tag with this TCI (host byte order).
    pub vlan_tci: Option<u16>,
}

impl TxInfo {
    /// True when nothing is asked for.
    #[inline]
    pub fn is_plain(&self) -> bool {
        !self.ip_checksum && self.l4 == L4::None && self.tso_mss == 0 && self.vlan_tci.is_none()
    }
}
