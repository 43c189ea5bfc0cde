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

/// [`RxInfo`] as rings write it: in one word, so that it costs one store, and laid out so that formats make it of a
/// descriptor's words by few operations, eight packets at once where there are vectors.
///
/// | bits | |
/// |---|---|
/// | 0 to 6 | the packet type |
/// | 7, 8 | there is a hash; there is a tag |
/// | 10, 11 | the NIC has looked at L4's checksum; at the IP header's |
/// | 12; 13 or 14 | L4's is wrong; the IP header's is. They mean nothing where the NIC has not looked |
/// | 16 to 31, 32 to 63 | tag; hash |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct PackedInfo(u64);

impl PackedInfo {
    pub(crate) const TYPES: u64 = PacketType::all().bits() as u64;
    pub(crate) const HASHED: u64 = 1 << 7;
    pub(crate) const TAGGED: u64 = 1 << 8;
    pub(crate) const L4_LOOKED: u64 = 1 << 10;
    pub(crate) const IP_LOOKED: u64 = 1 << 11;
    pub(crate) const L4_WRONG: u64 = 1 << 12;
    pub(crate) const IP_WRONG: u64 = 1 << 13;
    /// Of two IP headers, the outer one's is wrong.
    pub(crate) const OUTER_IP_WRONG: u64 = 1 << 14;

    /// Of the bits named above, a tag in the low 16 bits and a hash in the low 32.
    #[inline(always)]
    pub(crate) fn new(flags: u64, tag: u64, hash: u64) -> PackedInfo {
        Self::beside((tag & 0xffff) << 16 | hash << 32, flags & 0xffff)
    }

    /// Of the bits named above, and of tag and hash where they belong, with anything in the low 16 bits.
    #[inline(always)]
    pub(crate) fn beside(tag_and_hash: u64, flags: u64) -> PackedInfo {
        PackedInfo(tag_and_hash & !0xffff | flags)
    }

    #[inline]
    pub(crate) fn unpack(self) -> RxInfo {
        let PackedInfo(bits) = self;
        let has = |mask| bits & mask != 0;
        let checksum = |looked, wrong| match (has(looked), has(wrong)) {
            (false, _) => Checksum::Unchecked,
            (true, false) => Checksum::Good,
            (true, true) => Checksum::Bad,
        };
        RxInfo {
            hash: has(Self::HASHED).then_some((bits >> 32) as u32),
            vlan_tci: has(Self::TAGGED).then_some((bits >> 16) as u16),
            packet_type: PacketType::from_bits_truncate(bits as u16),
            ip_checksum: checksum(Self::IP_LOOKED, Self::IP_WRONG | Self::OUTER_IP_WRONG),
            l4_checksum: checksum(Self::L4_LOOKED, Self::L4_WRONG),
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
