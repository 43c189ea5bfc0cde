//! The 16-byte advanced descriptors, as far as igb's and ixgbe's VFs have them alike: most of the receive write-back, and
//! the transmit data and context descriptors (fact sheets igbvf 4, ixgbevf 4).
//!
//! Owns those bits; the families' formats are made of them, with error bits, quirks and limits of their own. What always
//! holds: a descriptor is two little-endian 64-bit words, word 1 has the sheet's dword 2 in its low and dword 3 in its high
//! half, and everything here is pure arithmetic without tables or memory.
#![forbid(unsafe_code)]

use crate::mem::{L4, PackedInfo, PacketType, TxInfo};

/// Write-back of a receive descriptor (fact sheets igbvf 4.2, 4.3, ixgbevf 4.2, 4.3).
pub(crate) mod rx {
    // Word 0.
    /// RSS type; 0 means that dword 1 holds no hash.
    pub(crate) const RSS_TYPE: u64 = 0xF;
    /// The type bits hold an ETQF index instead.
    pub(crate) const TYPE_ETQF: u64 = 1 << 15;
    /// IPv4, IPv4 with options, IPv6, IPv6 with extensions, TCP, UDP, SCTP from bit 4 on: the order of `PacketType`.
    pub(crate) const TYPE_SHIFT: u32 = 4;
    pub(crate) const HASH_SHIFT: u32 = 32;
    // Word 1: status, error, length, tag.
    pub(crate) const DD: u64 = 1 << 0;
    pub(crate) const EOP: u64 = 1 << 1;
    /// VLAN tag stripped into the descriptor.
    pub(crate) const VP: u64 = 1 << 3;
    /// L4 checksum looked at.
    pub(crate) const L4CS: u64 = 1 << 5;
    /// IP checksum looked at.
    pub(crate) const IPCS: u64 = 1 << 6;
    pub(crate) const LEN_SHIFT: u32 = 32;
    pub(crate) const LEN_BITS: u32 = 16;
    pub(crate) const VLAN_SHIFT: u32 = 48;
}

// The packet type bits are taken over by a shift, so their order must be that of the sheets.
const _: () = {
    assert!(PacketType::IPV4.bits() == 0x10 >> rx::TYPE_SHIFT);
    assert!(PacketType::IPV4_OPTIONS.bits() == 0x20 >> rx::TYPE_SHIFT);
    assert!(PacketType::IPV6.bits() == 0x40 >> rx::TYPE_SHIFT);
    assert!(PacketType::IPV6_EXTENSIONS.bits() == 0x80 >> rx::TYPE_SHIFT);
    assert!(PacketType::TCP.bits() == 0x100 >> rx::TYPE_SHIFT);
    assert!(PacketType::UDP.bits() == 0x200 >> rx::TYPE_SHIFT);
    assert!(PacketType::SCTP.bits() == 0x400 >> rx::TYPE_SHIFT);
};

/// How far status bits are from the places where [`PackedInfo`] has them.
pub(super) const STATUS_SHIFT: u32 = 5;
const _: () = {
    assert!(rx::VP << STATUS_SHIFT == PackedInfo::TAGGED);
    assert!(rx::L4CS << STATUS_SHIFT == PackedInfo::L4_LOOKED);
    assert!(rx::IPCS << STATUS_SHIFT == PackedInfo::IP_LOOKED);
};
pub(super) const STATUS_FLAGS: u64 = PackedInfo::TAGGED | PackedInfo::L4_LOOKED | PackedInfo::IP_LOOKED;
pub(super) const ERROR_FLAGS: u64 = PackedInfo::L4_WRONG | PackedInfo::IP_WRONG;

/// How far a family's error bits are from the places where [`PackedInfo`] has them.
pub(crate) const fn error_shift(l4_wrong: u64, ip_wrong: u64) -> u32 {
    let shift = l4_wrong.trailing_zeros() - PackedInfo::L4_WRONG.trailing_zeros();
    assert!(l4_wrong >> shift == PackedInfo::L4_WRONG && ip_wrong >> shift == PackedInfo::IP_WRONG);
    shift
}

/// The flags of [`PackedInfo`]. A bit of `other` in word 0 says that the type bits mean something else.
#[inline(always)]
pub(crate) fn flags(word0: u64, status: u64, other: u64, error_shift: u32) -> u64 {
    let types = if word0 & other == 0 { word0 >> rx::TYPE_SHIFT & PackedInfo::TYPES } else { 0 };
    let hashed = if word0 & rx::RSS_TYPE != 0 { PackedInfo::HASHED } else { 0 };
    types | hashed | status << STATUS_SHIFT & STATUS_FLAGS | status >> error_shift & ERROR_FLAGS
}

/// Word 1 of transmit descriptors (fact sheets igbvf 4.5, 4.6, ixgbevf 4.5, 4.6).
pub(crate) mod tx {
    const DTYP_DATA: u64 = 3 << 20;
    pub(super) const DTYP_CONTEXT: u64 = 2 << 20;
    pub(crate) const EOP_SHIFT: u32 = 24;
    const IFCS: u64 = 1 << 25;
    pub(crate) const RS_SHIFT: u32 = 27;
    pub(super) const DEXT: u64 = 1 << 29;
    pub(super) const VLE_SHIFT: u32 = 30;
    pub(super) const TSE_SHIFT: u32 = 31;
    pub(crate) const DD: u64 = 1 << 32;
    pub(super) const IDX_SHIFT: u32 = 36;
    pub(super) const IXSM_SHIFT: u32 = 40;
    pub(super) const TXSM_SHIFT: u32 = 41;
    pub(crate) const PAYLEN_SHIFT: u32 = 46;
    // Context descriptors: word 0.
    pub(super) const MACLEN_SHIFT: u32 = 9;
    pub(super) const VLAN_SHIFT: u32 = 16;
    // Context descriptors: word 1.
    pub(super) const IPV4_SHIFT: u32 = 10;
    pub(super) const L4T_SHIFT: u32 = 11;
    pub(super) const L4LEN_SHIFT: u32 = 40;
    pub(super) const MSS_SHIFT: u32 = 48;
    /// The part of every data descriptor that never changes.
    pub(crate) const DATA: u64 = DTYP_DATA | IFCS | DEXT;
    /// What a byte of a whole frame adds: DTALEN and PAYLEN.
    pub(crate) const PER_BYTE: u64 = 1 | 1 << PAYLEN_SHIFT;
}

/// Most bytes of one data descriptor, a field of 16 bits (fact sheets igbvf 4.5, ixgbevf 4.5).
pub(crate) const MAX_SEGMENT: u32 = 0xFFFF;
/// Length of an Ethernet header, in bytes.
const ETHERNET_HEADER: u8 = 14;
/// Largest MACLEN, a field of 7 bits (fact sheets igbvf 4.7, ixgbevf 4.7).
const MACLEN_MAX: u8 = 127;
/// Largest IPLEN, a field of 9 bits (fact sheets igbvf 4.7, ixgbevf 4.7).
const IPLEN_MAX: u16 = 511;
/// Smallest IPv4 and IPv6 header, and bounds of a TCP header, in bytes (RFC 791, 8200, 9293).
const IPV4_HEADER: u16 = 20;
const IPV6_HEADER: u16 = 40;
const TCP_HEADER: std::ops::RangeInclusive<u8> = 20..=60;
/// L4T of a context that names no L4 protocol (fact sheet ixgbevf 4.6; on igb, what is reserved there).
const L4T_NONE: u64 = 3;

#[inline(always)]
fn headers(info: &TxInfo) -> u32 {
    u32::from(info.l2_len) + u32::from(info.l3_len) + u32::from(info.l4_len)
}

/// A data descriptor; `fixed` are the bits that all of the family's have.
#[inline(always)]
pub(crate) fn data(fixed: u64, iova: u64, len: u32, total: u32, last: bool, report: bool) -> [u64; 2] {
    let word1 = fixed
        | u64::from(len as u16)
        | u64::from(last) << tx::EOP_SHIFT
        | u64::from(report) << tx::RS_SHIFT
        | u64::from(total) << tx::PAYLEN_SHIFT;
    [iova, word1]
}

/// The frame of a data descriptor with offloads.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) iova: u64,
    pub(crate) len: u32,
    pub(crate) total: u32,
    pub(crate) last: bool,
    pub(crate) report: bool,
}

/// A data descriptor with offloads, which refers to context `index`.
#[inline(always)]
pub(crate) fn data_offload(fixed: u64, piece: Piece, info: &TxInfo, index: u8) -> [u64; 2] {
    let Piece { iova, len, total, last, report } = piece;
    // The ring refuses TSO without payload; PAYLEN must not wrap even so.
    let headers = headers(info);
    let segmented = info.tso_mss != 0 && total > headers;
    let total = if segmented { total - headers } else { total };
    let ip = info.ip_checksum | (info.tso_mss != 0 && !info.ipv6);
    let l4 = (info.l4 != L4::None) | (info.tso_mss != 0);
    let [iova, word1] = data(fixed, iova, len, total, last, report);
    let word1 = word1
        | u64::from(info.vlan_tci.is_some()) << tx::VLE_SHIFT
        | u64::from(segmented) << tx::TSE_SHIFT
        | u64::from(index & 1) << tx::IDX_SHIFT
        | u64::from(ip) << tx::IXSM_SHIFT
        | u64::from(l4) << tx::TXSM_SHIFT;
    [iova, word1]
}

/// What a family's segmentation can do.
pub(crate) struct TsoLimits {
    /// Largest MSS.
    pub(crate) mss: u16,
    /// Most header bytes of a frame.
    pub(crate) headers: u32,
}

/// Loads context `index` for frames without checksums to fill in: the header lengths do not matter but for MACLEN.
#[inline]
pub(crate) const fn plain_context(index: u8, tag: u16) -> [u64; 2] {
    let word0 = (ETHERNET_HEADER as u64) << tx::MACLEN_SHIFT | (tag as u64) << tx::VLAN_SHIFT;
    let word1 = tx::DTYP_CONTEXT | tx::DEXT | ((index & 1) as u64) << tx::IDX_SHIFT;
    [word0, word1 | L4T_NONE << tx::L4T_SHIFT]
}

/// Loads context `index` for these offloads; `None` when the hardware cannot do what is asked.
#[inline]
pub(crate) fn context(info: &TxInfo, index: u8, tso_limits: TsoLimits) -> Option<[u64; 2]> {
    let tso = info.tso_mss != 0;
    if !tso && !info.ip_checksum && info.l4 == L4::None {
        return Some(plain_context(index, info.vlan_tci.unwrap_or(0)));
    }
    let ip_min = if info.ipv6 { IPV6_HEADER } else { IPV4_HEADER };
    if !(ETHERNET_HEADER..=MACLEN_MAX).contains(&info.l2_len)
        || !(ip_min..=IPLEN_MAX).contains(&info.l3_len)
        || (info.ipv6 && info.ip_checksum)
    {
        return None;
    }
    if tso
        && (matches!(info.l4, L4::Udp | L4::Sctp)
            || info.tso_mss > tso_limits.mss
            || !TCP_HEADER.contains(&info.l4_len)
            || headers(info) > tso_limits.headers)
    {
        return None;
    }
    let l4_type = match info.l4 {
        _ if tso => 1,
        L4::Udp => 0,
        L4::Tcp => 1,
        L4::Sctp => 2,
        L4::None => L4T_NONE,
    };
    let tag = u64::from(info.vlan_tci.unwrap_or(0)) << tx::VLAN_SHIFT;
    let word0 = u64::from(info.l3_len) | u64::from(info.l2_len) << tx::MACLEN_SHIFT | tag;
    let word1 = tx::DTYP_CONTEXT
        | tx::DEXT
        | u64::from(index & 1) << tx::IDX_SHIFT
        | u64::from(!info.ipv6) << tx::IPV4_SHIFT
        | l4_type << tx::L4T_SHIFT
        | u64::from(info.l4_len) << tx::L4LEN_SHIFT
        | u64::from(info.tso_mss) << tx::MSS_SHIFT;
    Some([word0, word1])
}
