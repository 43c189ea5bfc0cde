//! Descriptor formats of the adaptive VFs: the 32-byte receive descriptor in its legacy and flex forms, the 16-byte
//! transmit data descriptor and the transmit context descriptor.
//!
//! Owns the bit layout (fact sheet iavf 5), as [`AvfLegacyRx`], [`AvfFlexRx`] and [`AvfTx`]; the rings of `vfring` call it
//! per packet. What always holds: descriptors are little-endian 64-bit words, and everything here is pure arithmetic but
//! for look-ups in tables of constants.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

use super::ptype::{allowed, possible};
use crate::mem::{L4, PackedInfo, TxInfo};
use crate::ring::{RxFormat, TxFormat};

/// Receive format: legacy 32-byte descriptors, RXDID 1 (fact sheet iavf 5.2, 5.3).
#[derive(Debug)]
pub enum AvfLegacyRx {}

/// Receive format: flex 32-byte descriptors with hash and flow id, RXDID 22 (fact sheet iavf 5.2, 5.4).
#[derive(Debug)]
pub enum AvfFlexRx {}

/// Transmit format: 16-byte data and context descriptors; `TAG` is where a VLAN tag to insert goes (fact sheet iavf 5.1).
#[derive(Debug)]
pub enum AvfTx<const TAG: u8> {}

/// The PF lets this VF insert no tags.
pub const TAG_NOWHERE: u8 = 0;
/// A tag to insert goes into L2TAG1 of the data descriptors.
pub const TAG_IN_DATA: u8 = 1;
/// A tag to insert goes into L2TAG2 of a context.
pub const TAG_IN_CONTEXT: u8 = 2;

/// What of a receive descriptor depends on the PF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct AvfQuirks {
    /// Stripped tags are in the second L2TAG2, not in L2TAG1 (fact sheet iavf 5.4, VLAN).
    pub tag_in_l2tag2: bool,
}

/// Write-back of a legacy receive descriptor (fact sheet iavf 5.3).
pub(super) mod legacy {
    use super::allowed;

    // Word 0.
    pub const L2TAG1_SHIFT: u32 = 16;
    pub const HASH_SHIFT: u32 = 32;
    // Word 1.
    pub const DD: u64 = 1 << 0;
    pub const EOF: u64 = 1 << 1;
    pub const L2TAG1P: u64 = 1 << 2;
    pub const L3L4P: u64 = 1 << 3;
    /// FLTSTAT: 3 means that word 0 has a hash.
    pub const FLTSTAT_RSS: u64 = 3 << 12;
    pub const IPV6EXADD: u64 = 1 << 15;
    pub const RXE: u64 = 1 << 19;
    pub const IPE: u64 = 1 << 22;
    pub const L4E: u64 = 1 << 23;
    pub const EIPE: u64 = 1 << 24;
    pub const PTYPE_SHIFT: u32 = 30;
    pub const LEN_SHIFT: u32 = 38;
    // Word 2.
    pub const L2TAG2P: u64 = 1 << 0;
    pub const L2TAG2_2_SHIFT: u32 = 48;

    /// The flags that a packet can have whatever its number is, by `status`.
    static ALLOWED: [u16; 128] = {
        let mut table = [0; 128];
        let mut at = 0;
        while at < 128 {
            let verdict = at >> 4 | at & 8;
            table[at] = allowed(verdict, at & 3 == 3, at & 4 != 0);
            at += 1;
        }
        table
    };

    /// All of the flags but what the packet's number says: FLTSTAT, `tagged`, L3L4P and the errors, close together.
    #[inline(always)]
    pub fn status(word1: u64, tagged: u64) -> u64 {
        const _: () = assert!(IPE == 1 << 22 && L4E == 2 << 22 && EIPE == 4 << 22 && L3L4P == 8 && L2TAG1P == 4);
        const _: () = assert!(FLTSTAT_RSS == 3 << 12);
        let at = word1 >> 12 & 3 | tagged & L2TAG1P | word1 & L3L4P | word1 >> 18 & 0x70;
        ALLOWED[at as usize % ALLOWED.len()].into()
    }
}

// SAFETY: DD is bit 0 of quadword 1. The device stores the frame first and writes the descriptor back with DD afterwards
// (fact sheet iavf 5.3); an armed descriptor has quadword 1, the header address, 0 (5.2), so DD reads 0 until then. The
// length is the 14 bits from 38 on of the same word.
unsafe impl RxFormat for AvfLegacyRx {
    const WORDS: usize = 4;
    const STATUS: usize = 1;
    const DONE: u64 = legacy::DD;
    const LAST: u64 = legacy::EOF;
    const ERROR: u64 = legacy::RXE;
    const LEN_SHIFT: u32 = legacy::LEN_SHIFT;
    const LEN_BITS: u32 = 14;
    // The 800 series drops the low three bits of the tail (fact sheet iavf 2.1).
    const TAIL_MULTIPLE: u32 = 8;
    type Quirks = AvfQuirks;

    #[inline(always)]
    fn packed(word: impl Fn(usize) -> u64, quirks: AvfQuirks) -> PackedInfo {
        let (word0, word1) = (word(0), word(1));
        let possible = possible(word1 >> legacy::PTYPE_SHIFT & 0xFF, word1 >> legacy::IPV6EXADD.trailing_zeros());
        if quirks.tag_in_l2tag2 {
            let word2 = word(2);
            const _: () = assert!(legacy::L2TAG2P << 2 == legacy::L2TAG1P);
            let flags = possible & legacy::status(word1, word2 << 2);
            return PackedInfo::new(flags, word2 >> legacy::L2TAG2_2_SHIFT, word0 >> legacy::HASH_SHIFT);
        }
        const _: () =
            assert!(legacy::L2TAG1_SHIFT == 16 && legacy::HASH_SHIFT == 32, "tag and hash are where they belong");
        PackedInfo::beside(word0, possible & legacy::status(word1, word1))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn infos_avx2(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
        // SAFETY: the caller's contract.
        unsafe { super::desc_avx2::legacy(descriptors, infos, quirks) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn infos_avx512(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
        // SAFETY: the caller's contract.
        unsafe { super::desc_avx512::legacy(at, words1, infos, quirks) }
    }
}

/// Write-back of a flex receive descriptor (fact sheet iavf 5.4).
pub(super) mod flex {
    use super::allowed;

    // Word 0.
    /// RXDID, which is 22.
    pub const RXDID: u64 = 0x3F;
    pub const PTYPE_SHIFT: u32 = 16;
    pub const PTYPE: u64 = 0x3FF;
    pub const LEN_SHIFT: u32 = 32;
    // Word 1: status 0, L2TAG1.
    pub const DD: u64 = 1 << 0;
    pub const EOF: u64 = 1 << 1;
    pub const L3L4P: u64 = 1 << 3;
    pub const IPE: u64 = 1 << 4;
    pub const L4E: u64 = 1 << 5;
    pub const EIPE: u64 = 1 << 6;
    pub const IPV6EXADD: u64 = 1 << 9;
    pub const RXE: u64 = 1 << 10;
    pub const RSS_VALID: u64 = 1 << 12;
    pub const L2TAG1P: u64 = 1 << 13;
    pub const L2TAG1_SHIFT: u32 = 16;
    // Word 2: status 1 and the tags.
    pub const L2TAG2P: u64 = 1 << 11;
    pub const L2TAG2_2_SHIFT: u32 = 48;

    /// The flags that a packet can have whatever its number is, by `status`.
    static ALLOWED: [u16; 64] = {
        let mut table = [0; 64];
        let mut at = 0;
        while at < 64 {
            let verdict = at >> 1 & 7 | at << 3 & 8;
            table[at] = allowed(verdict, at & 16 != 0, at & 32 != 0);
            at += 1;
        }
        table
    };

    /// All of the flags but what the packet's number says: L3L4P and the errors, RSS_VALID and `tagged`, close together.
    #[inline(always)]
    pub fn status(word1: u64, tagged: u64) -> u64 {
        const _: () = assert!(L3L4P == 8 && IPE == 1 << 4 && L4E == 2 << 4 && EIPE == 4 << 4);
        const _: () = assert!(RSS_VALID == 1 << 12 && L2TAG1P == 2 << 12);
        let at = word1 >> 3 & 0xF | (word1 & RSS_VALID | tagged & L2TAG1P) >> 8;
        ALLOWED[at as usize % ALLOWED.len()].into()
    }
}

// SAFETY: DD is bit 0 of status 0, the low 16 bits of quadword 1. The device stores the frame first and writes the
// descriptor back with DD afterwards (fact sheet iavf 5.4); an armed descriptor has quadword 1, the header address, 0
// (5.2), so DD reads 0 until then. The length is the 14 bits at byte 4, in quadword 0.
unsafe impl RxFormat for AvfFlexRx {
    const WORDS: usize = 4;
    const STATUS: usize = 1;
    const LEN_WORD: usize = 0;
    const WRITTEN: u64 = flex::RXDID;
    const DONE: u64 = flex::DD;
    const LAST: u64 = flex::EOF;
    const ERROR: u64 = flex::RXE;
    const LEN_SHIFT: u32 = flex::LEN_SHIFT;
    const LEN_BITS: u32 = 14;
    // As for the legacy form.
    const TAIL_MULTIPLE: u32 = 8;
    type Quirks = AvfQuirks;

    #[inline(always)]
    fn packed(word: impl Fn(usize) -> u64, quirks: AvfQuirks) -> PackedInfo {
        // The hash of this profile; others have it where this one has the flow id.
        let (word0, word1, hash) = (word(0), word(1), word(3));
        let possible = possible(word0 >> flex::PTYPE_SHIFT & flex::PTYPE, word1 >> flex::IPV6EXADD.trailing_zeros());
        if quirks.tag_in_l2tag2 {
            let word2 = word(2);
            const _: () = assert!(flex::L2TAG2P << 2 == flex::L2TAG1P);
            let flags = possible & flex::status(word1, word2 << 2);
            return PackedInfo::new(flags, word2 >> flex::L2TAG2_2_SHIFT, hash);
        }
        const _: () = assert!(flex::L2TAG1_SHIFT == 16, "the tag is where it belongs");
        PackedInfo::beside(word1 & 0xFFFF << flex::L2TAG1_SHIFT | hash << 32, possible & flex::status(word1, word1))
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn infos_avx2(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
        // SAFETY: the caller's contract.
        unsafe { super::desc_avx2::flex(descriptors, infos, quirks) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn infos_avx512(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], quirks: AvfQuirks) {
        // SAFETY: the caller's contract.
        unsafe { super::desc_avx512::flex(at, words1, infos, quirks) }
    }
}

/// Word 1 of transmit descriptors (fact sheet iavf 5.1).
mod tx {
    pub const DTYPE: u64 = 0xF;
    pub const DTYPE_CONTEXT: u64 = 1;
    /// Written by the device when it is done with the descriptor.
    pub const DTYPE_DONE: u64 = 0xF;
    // Data descriptors.
    pub const EOP_SHIFT: u32 = 4;
    pub const RS_SHIFT: u32 = 5;
    /// Reserved to be set, or insert the CRC: set by every driver.
    pub const ICRC: u64 = 1 << 6;
    pub const IL2TAG1: u64 = 1 << 7;
    pub const IIPT_IPV6: u64 = 1 << 9;
    pub const IIPT_IPV4: u64 = 2 << 9;
    pub const IIPT_IPV4_CHECKSUM: u64 = 3 << 9;
    pub const L4T_TCP: u64 = 1 << 12;
    pub const L4T_SCTP: u64 = 2 << 12;
    pub const L4T_UDP: u64 = 3 << 12;
    /// In units of 2 bytes.
    pub const MACLEN_SHIFT: u32 = 16;
    /// In units of 4 bytes.
    pub const IPLEN_SHIFT: u32 = 23;
    pub const L4LEN_SHIFT: u32 = 30;
    pub const SIZE_SHIFT: u32 = 34;
    pub const L2TAG1_SHIFT: u32 = 48;
    // Contexts: word 0.
    pub const L2TAG2_SHIFT: u32 = 32;
    // Contexts: word 1.
    pub const TSO: u64 = 1 << 4;
    pub const IL2TAG2: u64 = 1 << 6;
    pub const TLEN_SHIFT: u32 = 30;
    pub const MSS_SHIFT: u32 = 50;
}

/// Bits of a data descriptor's size.
const SIZE_BITS: u32 = 14;
/// Length of an Ethernet header, and what MACLEN can say, in bytes: 7 bits of 2 bytes (fact sheet iavf 5.1).
const MACLEN: std::ops::RangeInclusive<u8> = 14..=254;
/// Smallest IP headers, and the longest that IPLEN can say, in bytes: 7 bits of 4 bytes (RFC 791, 8200; fact sheet iavf 5.1).
const IPV4_HEADER: std::ops::RangeInclusive<u16> = 20..=60;
const IPV6_HEADER: std::ops::RangeInclusive<u16> = 40..=508;
/// Bytes of a TCP header (RFC 9293), of UDP's (RFC 768) and SCTP's (RFC 9260) in units of 4.
const TCP_HEADER: std::ops::RangeInclusive<u8> = 20..=60;
const UDP_WORDS: u64 = 2;
const SCTP_WORDS: u64 = 3;
/// MSS of TSO frames; outside of it the device takes a VF for malicious (fact sheet iavf 5.1).
const TSO_MSS: std::ops::RangeInclusive<u16> = 256..=9668;

#[inline(always)]
fn headers(info: &TxInfo) -> u32 {
    u32::from(info.l2_len) + u32::from(info.l3_len) + u32::from(info.l4_len)
}

// SAFETY: with RS in a frame's last descriptor the device writes DTYPE 0xF into that descriptor once it is done with the
// frame (fact sheet iavf 5.1), and `done` tests that nibble alone. No word made here has it: data descriptors have DTYPE 0
// and contexts 1, every other field starts at bit 4 or above. Head write-back, which would replace it, is not configured by
// the port. `data` and `data_offload` put `iova` and `len` into the address and size fields unchanged for every `len` up to
// MAX_SEGMENT; a longer one loses its high bits in `data` and spills into L2TAG1, which is not used then, in `whole`, so
// the device reads less, never more. Contexts make the device read nothing.
unsafe impl<const TAG: u8> TxFormat for AvfTx<TAG> {
    const MAX_SEGMENT: u32 = (1 << SIZE_BITS) - 1;
    const CONTEXTS: usize = 0;
    const SEGMENTS_PER_CUT: bool = true;
    const WHOLE: u64 = tx::ICRC | 1 << tx::EOP_SHIFT;
    const WHOLE_PER_BYTE: u64 = 1 << tx::SIZE_SHIFT;

    #[inline(always)]
    fn data(iova: u64, len: u32, _: u32, last: bool, report: bool) -> [u64; 2] {
        let word1 = tx::ICRC
            | u64::from(last) << tx::EOP_SHIFT
            | u64::from(report) << tx::RS_SHIFT
            | u64::from(len & Self::MAX_SEGMENT) << tx::SIZE_SHIFT;
        [iova, word1]
    }

    #[inline(always)]
    fn data_offload(iova: u64, len: u32, total: u32, last: bool, report: bool, info: &TxInfo, _: u8) -> [u64; 2] {
        let [iova, mut word1] = Self::data(iova, len, total, last, report);
        if let Some(tci) = info.vlan_tci.filter(|_| TAG == TAG_IN_DATA) {
            word1 |= tx::IL2TAG1 | u64::from(tci) << tx::L2TAG1_SHIFT;
        }
        let tso = info.tso_mss != 0;
        if !tso && !info.ip_checksum && info.l4 == L4::None {
            return [iova, word1];
        }
        word1 |= match (info.ipv6, info.ip_checksum || tso) {
            (true, _) => tx::IIPT_IPV6,
            (false, false) => tx::IIPT_IPV4,
            (false, true) => tx::IIPT_IPV4_CHECKSUM,
        };
        let tcp = u64::from(info.l4_len.max(*TCP_HEADER.start()) / 4);
        let (l4_type, l4_words) = match info.l4 {
            _ if tso => (tx::L4T_TCP, tcp),
            L4::None => (0, 0),
            L4::Tcp => (tx::L4T_TCP, tcp),
            L4::Udp => (tx::L4T_UDP, UDP_WORDS),
            L4::Sctp => (tx::L4T_SCTP, SCTP_WORDS),
        };
        // `context` has checked that each fits its field.
        word1 |= l4_type
            | u64::from(info.l2_len / 2) << tx::MACLEN_SHIFT
            | u64::from((info.l3_len / 4) & 0x7F) << tx::IPLEN_SHIFT
            | (l4_words & 0xF) << tx::L4LEN_SHIFT;
        [iova, word1]
    }

    #[inline]
    fn context(info: &TxInfo, total: u32, _: u8) -> Option<[u64; 2]> {
        let tso = info.tso_mss != 0;
        if info.vlan_tci.is_some() && TAG == TAG_NOWHERE {
            return None;
        }
        if tso || info.ip_checksum || info.l4 != L4::None {
            let ip = if info.ipv6 { IPV6_HEADER } else { IPV4_HEADER };
            if !MACLEN.contains(&info.l2_len)
                || !info.l2_len.is_multiple_of(2)
                || !ip.contains(&info.l3_len)
                || !info.l3_len.is_multiple_of(4)
                || (info.ipv6 && info.ip_checksum)
            {
                return None;
            }
        }
        let tcp = tso || info.l4 == L4::Tcp;
        // Without TSO the length may be left out.
        let needs_length = tso || info.l4_len != 0;
        if tcp && needs_length && (!TCP_HEADER.contains(&info.l4_len) || !info.l4_len.is_multiple_of(4)) {
            return None;
        }
        if tso && (matches!(info.l4, L4::Udp | L4::Sctp) || !TSO_MSS.contains(&info.tso_mss)) {
            return None;
        }
        let mut words = [0, tx::DTYPE_CONTEXT];
        if let Some(tci) = info.vlan_tci.filter(|_| TAG == TAG_IN_CONTEXT) {
            words[0] |= u64::from(tci) << tx::L2TAG2_SHIFT;
            words[1] |= tx::IL2TAG2;
        }
        if tso {
            // The ring refuses TSO without payload, and frames longer than 18 bits can say.
            let payload = total.saturating_sub(headers(info)) & 0x3_FFFF;
            words[1] |= tx::TSO | u64::from(payload) << tx::TLEN_SHIFT | u64::from(info.tso_mss) << tx::MSS_SHIFT;
        }
        Some(words)
    }

    #[inline(always)]
    fn needs_context(info: &TxInfo) -> bool {
        info.tso_mss != 0 || info.vlan_tci.is_some() && TAG == TAG_IN_CONTEXT
    }

    #[inline(always)]
    fn with_report(word1: u64) -> u64 {
        word1 | 1 << tx::RS_SHIFT
    }

    #[inline(always)]
    fn done(word1: u64) -> bool {
        word1 & tx::DTYPE == tx::DTYPE_DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Checksum, PacketType};

    type Tx = AvfTx<TAG_IN_DATA>;
    type TxOuter = AvfTx<TAG_IN_CONTEXT>;

    #[test]
    fn plain_data_descriptors_match_the_sheet() {
        // 7.4: 64 bytes, EOP, RS, ICRC.
        assert_eq!(Tx::data(0x1_2345_6789, 64, 64, true, true), [0x1_2345_6789, 0x0000_0100_0000_0070]);
        assert_eq!(Tx::data(7, 16383, 20_000, false, false)[1], 0x0000_FFFC_0000_0040);
        assert_eq!(Tx::with_report(Tx::data(7, 64, 64, true, false)[1]), 0x0000_0100_0000_0070);
        for len in [60, 64, 1514, 9724, 16383] {
            assert_eq!(Tx::whole(5, len), Tx::data(5, len.into(), len.into(), true, false), "{len}");
        }
        // A length that cannot be never makes the device read more.
        assert_eq!(Tx::data(7, 16384 + 5, 0, true, false)[1] >> 34, 5);
    }

    #[test]
    fn only_the_done_type_is_done() {
        assert!(Tx::done(0xF) && Tx::done(0xFFFF_FFFF_FFFF_FFFF));
        for word in [0, 1, 7, 8, 0xE, 0xB, 0xF0, u64::MAX << 4] {
            assert!(!Tx::done(word), "{word:#x}");
        }
        assert!(!Tx::done(Tx::data(u64::MAX, 0x3FFF, 0x3FFFF, true, true)[1]));
    }

    #[test]
    fn offloads_match_the_sheet() {
        let tcp = TxInfo { l2_len: 14, l3_len: 20, l4: L4::Tcp, ip_checksum: true, ..TxInfo::default() };
        // MACLEN 7 at 16, IPLEN 5 at 23, L4LEN 5 at 30; IIPT 0x60 and L4T 0x100 of CMD, which starts at bit 4.
        let fields = 7 << 16 | 5 << 23 | 5 << 30 | 0x160 << 4;
        let data = |info: &TxInfo| Tx::data_offload(9, 100, 100, true, false, info, 0);
        assert_eq!(data(&tcp), [9, 100 << 34 | 0x50 | fields]);
        assert!(Tx::context(&tcp, 100, 0).is_some() && !Tx::needs_context(&tcp));
        let udp6 = TxInfo { l3_len: 40, l4: L4::Udp, ipv6: true, ip_checksum: false, ..tcp };
        assert_eq!(data(&udp6)[1] & 0x3_FFFF_FFF0, 0x50 | 7 << 16 | 10 << 23 | 2 << 30 | 0x320 << 4);
        let sctp = TxInfo { l4: L4::Sctp, ip_checksum: false, ..tcp };
        assert_eq!(data(&sctp)[1] & 0x3_FFFF_FFF0, 0x50 | 7 << 16 | 5 << 23 | 3 << 30 | 0x240 << 4);
        let ip = TxInfo { l4: L4::None, ..tcp };
        assert_eq!(data(&ip)[1] & 0x3_FFFF_FFF0, 0x50 | 7 << 16 | 5 << 23 | 0x060 << 4);
    }

    #[test]
    fn tags_go_where_the_pf_takes_them() {
        let tag = TxInfo { vlan_tci: Some(0xE064), ..TxInfo::default() };
        assert_eq!(Tx::data_offload(9, 60, 60, true, false, &tag, 0)[1], 0xE064 << 48 | 60 << 34 | 0xD0);
        assert!(!Tx::needs_context(&tag));
        assert_eq!(TxOuter::data_offload(9, 60, 60, true, false, &tag, 0)[1], 60 << 34 | 0x50);
        assert!(TxOuter::needs_context(&tag));
        // IL2TAG2 is 4 of CMD, L2TAG2 is at 47:32 of quadword 0.
        assert_eq!(TxOuter::context(&tag, 60, 0), Some([0xE064 << 32, 0x41]));
        assert_eq!(AvfTx::<TAG_NOWHERE>::context(&tag, 60, 0), None);
        assert!(AvfTx::<TAG_NOWHERE>::context(&TxInfo::default(), 60, 0).is_some());
    }

    #[test]
    fn segmentation_matches_the_sheet() {
        let info = TxInfo { l2_len: 18, l3_len: 20, l4_len: 32, tso_mss: 1448, ..TxInfo::default() };
        assert!(Tx::needs_context(&info));
        // TSO is 1 of CMD at 4; TLEN at 30 is the payload alone; MSS at 50.
        assert_eq!(Tx::context(&info, 70 + 10_000, 0), Some([0, 1448 << 50 | 10_000 << 30 | 0x11]));
        let word1 = Tx::data_offload(9, 100, 10_070, true, false, &info, 0)[1];
        assert_eq!(word1, 100 << 34 | 8 << 30 | 5 << 23 | 9 << 16 | 0x160 << 4 | 0x50);
        let tagged = TxInfo { vlan_tci: Some(5), ..info };
        assert_eq!(TxOuter::context(&tagged, 1000, 0), Some([5 << 32, 1448 << 50 | 930 << 30 | 0x51]));
    }

    #[test]
    fn what_the_hardware_cannot_do_is_refused() {
        let tso = TxInfo { l2_len: 14, l3_len: 20, l4_len: 20, tso_mss: 1000, ..TxInfo::default() };
        let csum = TxInfo { tso_mss: 0, l4_len: 0, l4: L4::Tcp, ..tso };
        for good in [
            tso,
            csum,
            TxInfo { tso_mss: 256, ..tso },
            TxInfo { tso_mss: 9668, ..tso },
            TxInfo { l3_len: 60, l4_len: 60, ..tso },
            TxInfo { l2_len: 254, ipv6: true, l3_len: 508, ..tso },
            TxInfo { l4: L4::Udp, ..csum },
        ] {
            assert!(Tx::context(&good, 2000, 0).is_some(), "{good:?}");
        }
        for bad in [
            TxInfo { tso_mss: 255, ..tso },
            TxInfo { tso_mss: 9669, ..tso },
            TxInfo { l4_len: 0, ..tso },
            TxInfo { l4_len: 22, ..tso },
            TxInfo { l4_len: 64, ..tso },
            TxInfo { l4: L4::Udp, ..tso },
            TxInfo { l4: L4::Sctp, ..tso },
            TxInfo { l2_len: 15, ..csum },
            TxInfo { l2_len: 12, ..csum },
            TxInfo { l3_len: 18, ..csum },
            TxInfo { l3_len: 22, ..csum },
            TxInfo { l3_len: 64, ..csum },
            TxInfo { l3_len: 512, ipv6: true, ..csum },
            TxInfo { l3_len: 40, ipv6: true, ip_checksum: true, ..csum },
            TxInfo { l4_len: 21, ..csum },
        ] {
            assert_eq!(Tx::context(&bad, 2000, 0), None, "{bad:?}");
        }
    }

    #[test]
    fn legacy_descriptors_are_read_as_in_the_sheet() {
        let word0 = 0xDEAD_BEEF_0064_0000;
        // Length 1514 at 38, ptype 26 (IPv4 TCP) at 30, FLTSTAT 3 at 12, L3L4P 3, L2TAG1P 2, EOF, DD.
        let word1 = 1514 << 38 | 26 << 30 | 3 << 12 | 0xF;
        assert_eq!(AvfLegacyRx::len(word1), 1514);
        let plain = AvfQuirks::default();
        let info = AvfLegacyRx::info(&[word0, word1, 0, 0], plain);
        assert_eq!((info.hash, info.vlan_tci), (Some(0xDEAD_BEEF), Some(100)));
        assert_eq!(info.packet_type, PacketType::IPV4 | PacketType::TCP);
        assert_eq!((info.ip_checksum, info.l4_checksum), (Checksum::Good, Checksum::Good));
        let of = |word1| AvfLegacyRx::info(&[word0, word1, 0, 0], plain);
        assert_eq!(of(word1 | 1 << 22).ip_checksum, Checksum::Bad);
        assert_eq!(of(word1 | 1 << 23).l4_checksum, Checksum::Bad);
        assert_eq!(of(word1 & !8).l4_checksum, Checksum::Unchecked);
        assert_eq!(of(word1 & !(2 << 12)).hash, None, "FLTSTAT 1 is a filter's number");
        assert_eq!(of(word1 & !4).vlan_tci, None);
        // Both are set where a tunnel's inside is wrong; ptype 61 is IPv4 with something inside.
        let tunnel = 61 << 30 | 0xB | 1 << 22 | 1 << 23;
        assert_eq!((of(tunnel).ip_checksum, of(tunnel).l4_checksum), (Checksum::Good, Checksum::Unchecked));
        assert_eq!(of(tunnel | 1 << 24).ip_checksum, Checksum::Bad);
        // IPv6 has no header checksum, and with extensions no verdict on L4.
        let v6 = 92 << 30 | 0xB;
        assert_eq!((of(v6).ip_checksum, of(v6).l4_checksum), (Checksum::Unchecked, Checksum::Good));
        let extended = of(v6 | 1 << 15);
        assert_eq!(extended.l4_checksum, Checksum::Unchecked);
        assert!(extended.packet_type.contains(PacketType::IPV6_EXTENSIONS));
        // The second L2TAG2, at byte 22, where it is present (bit 0 of byte 16).
        let outer = AvfQuirks { tag_in_l2tag2: true };
        let words = |present: u64| [word0, word1, 0x0065_0000_0000_0000 | present, 0];
        assert_eq!(AvfLegacyRx::info(&words(1), outer).vlan_tci, Some(101));
        assert_eq!(AvfLegacyRx::info(&words(0), outer).vlan_tci, None);
        assert_eq!(AvfLegacyRx::ERROR, 1 << 19);
    }

    #[test]
    fn flex_descriptors_are_read_as_in_the_sheet() {
        // RXDID 22, ptype 24 (IPv4 UDP) at byte 2, length 9000 at byte 4; flags and header length must not matter.
        let word0 = 0xFFFF << 48 | 9000 << 32 | (0xFC00 | 24) << 16 | 22;
        let word1 = 0xFFFF_FFFF << 32 | 100 << 16 | 1 << 13 | 1 << 12 | 0xB;
        let word3 = 0x1111_1111_DEAD_BEEF;
        assert_eq!(AvfFlexRx::len(word0), 9000);
        assert_eq!(AvfFlexRx::len(word0 | 3 << 46), 9000, "14 bits");
        let plain = AvfQuirks::default();
        let of = |word1| AvfFlexRx::info(&[word0, word1, 0, word3], plain);
        let info = of(word1);
        assert_eq!((info.hash, info.vlan_tci), (Some(0xDEAD_BEEF), Some(100)));
        assert_eq!(info.packet_type, PacketType::IPV4 | PacketType::UDP);
        assert_eq!((info.ip_checksum, info.l4_checksum), (Checksum::Good, Checksum::Good));
        assert_eq!(of(word1 | 1 << 4).ip_checksum, Checksum::Bad);
        assert_eq!(of(word1 | 1 << 5).l4_checksum, Checksum::Bad);
        assert_eq!(of(word1 & !8).ip_checksum, Checksum::Unchecked);
        assert_eq!((of(word1 & !(1 << 12)).hash, of(word1 & !(1 << 13)).vlan_tci), (None, None));
        let unknown = AvfFlexRx::info(&[(0x100 | 24) << 16, word1, 0, word3], plain);
        assert_eq!((unknown.packet_type, unknown.l4_checksum), (PacketType::empty(), Checksum::Unchecked));
        let outer = AvfQuirks { tag_in_l2tag2: true };
        let words = |present: u64| [word0, word1, 0x0065_0000_0000_0000 | present << 11, word3];
        assert_eq!(AvfFlexRx::info(&words(1), outer).vlan_tci, Some(101));
        assert_eq!(AvfFlexRx::info(&words(0), outer).vlan_tci, None);
        assert_eq!(AvfFlexRx::ERROR, 1 << 10);
    }
}
