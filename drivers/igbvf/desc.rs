//! Descriptor formats of the 82576 and I350: the advanced receive descriptor with one buffer, the advanced transmit
//! data descriptor and the transmit context descriptor.
//!
//! Owns the bits and limits that are these parts' own (fact sheet igbvf 4), as [`IgbRx`] and [`IgbTx`]; the rest is
//! shared with ixgbe's. The rings of `vfring` call it per packet. What always holds: everything here is pure arithmetic
//! without tables or memory.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

use super::intel::desc::{self, Piece, TsoLimits, rx, tx};
use crate::mem::{PackedInfo, TxInfo};
use crate::ring::{RxFormat, TxFormat};

/// Receive format: 16-byte advanced descriptors, one buffer each (fact sheet igbvf 4.1 to 4.4).
#[derive(Debug)]
pub enum IgbRx {}

/// Transmit format: 16-byte advanced data and context descriptors (fact sheet igbvf 4.5 and 4.6).
#[derive(Debug)]
pub enum IgbTx {}

/// How receive descriptors differ between the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quirks {
    /// The VLAN tag of a frame from another function of the same port is big endian: I350 only (fact sheet igbvf 4.4).
    pub big_endian_loopback_tag: bool,
}

// Word 1 of a receive descriptor's write-back: what is not as on ixgbe (fact sheet igbvf 4.2).

/// From another function of the port.
pub(super) const LB: u64 = 1 << 18;
/// CE, SE, SEQ, CXE and RXE.
const FRAME_ERRORS: u64 = 1 << 24 | 1 << 25 | 1 << 26 | 1 << 28 | 1 << 31;
/// L4 checksum wrong. 82599 and its kin have it one bit higher.
pub(super) const L4E: u64 = 1 << 29;
/// IP checksum wrong. 82599 and its kin have it one bit higher.
pub(super) const IPE: u64 = 1 << 30;
pub(super) const ERROR_SHIFT: u32 = desc::error_shift(L4E, IPE);

// SAFETY: DD is bit 0 of dword 2, which is bit 0 of word 1. The device stores the frame first and writes the descriptor
// back with DD afterwards (fact sheet igbvf 4.2); an armed descriptor has word 1, the header address, all 0
// (4.1), so DD reads 0 until then. `len` is PKT_LEN as stored, the bit field 15:0 of dword 3.
unsafe impl RxFormat for IgbRx {
    const WORDS: usize = 2;
    const STATUS: usize = 1;
    const DONE: u64 = rx::DD;
    const LAST: u64 = rx::EOP;
    const ERROR: u64 = FRAME_ERRORS;
    const LEN_SHIFT: u32 = rx::LEN_SHIFT;
    const LEN_BITS: u32 = rx::LEN_BITS;
    type Quirks = Quirks;

    #[inline(always)]
    fn packed(word: impl Fn(usize) -> u64, quirks: Quirks) -> PackedInfo {
        let (word0, status) = (word(0), word(1));
        let flags = desc::flags(word0, status, rx::TYPE_ETQF, ERROR_SHIFT);
        let swap = quirks.big_endian_loopback_tag & (status & LB != 0);
        let tag = (status >> rx::VLAN_SHIFT) as u16;
        let tag = if swap { tag.swap_bytes() } else { tag };
        PackedInfo::new(flags, tag.into(), word0 >> rx::HASH_SHIFT)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn infos_avx2(descriptors: *const u64, infos: &mut [PackedInfo; 8], quirks: Quirks) {
        // SAFETY: the caller's contract.
        unsafe { super::desc_avx2::infos(descriptors, infos, quirks) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw")]
    unsafe fn infos_avx512(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], quirks: Quirks) {
        // SAFETY: the caller's contract.
        unsafe { super::desc_avx512::infos(at, words1, infos, quirks) }
    }
}

/// Largest MSS and most header bytes of a TSO frame (fact sheet igbvf 4.7).
const TSO_LIMITS: TsoLimits = TsoLimits { mss: 9216, headers: 512 };

// SAFETY: with RS in a frame's last descriptor, hardware writes DD, bit 0 of dword 3, into that descriptor once it has
// fetched the frame (fact sheet igbvf 4.5), and `done` tests that bit alone. No word made here has it: fields start
// at bit 36 or end below bit 32, every shifted value is cut to its field, and PAYLEN sits at the top. Head write-back,
// which would replace DD, is switched off by the port. `data` and `data_offload` put `iova` and `len` in the
// address and DTALEN fields unchanged for every `len` up to MAX_SEGMENT; a longer one loses its high bits and the
// device reads less, never more. Contexts make the device read nothing.
unsafe impl TxFormat for IgbTx {
    const MAX_SEGMENT: u32 = desc::MAX_SEGMENT;
    const CONTEXTS: usize = 2;
    const WHOLE: u64 = tx::DATA | 1 << tx::EOP_SHIFT;
    const WHOLE_PER_BYTE: u64 = tx::PER_BYTE;

    #[inline(always)]
    fn data(iova: u64, len: u32, total: u32, last: bool, report: bool) -> [u64; 2] {
        desc::data(tx::DATA, iova, len, total, last, report)
    }

    #[inline(always)]
    fn data_offload(iova: u64, len: u32, total: u32, last: bool, report: bool, info: &TxInfo, context: u8) -> [u64; 2] {
        desc::data_offload(tx::DATA, Piece { iova, len, total, last, report }, info, context)
    }

    #[inline]
    fn context(info: &TxInfo, _: u32, context: u8) -> Option<[u64; 2]> {
        desc::context(info, context, TSO_LIMITS)
    }

    #[inline(always)]
    fn with_report(word1: u64) -> u64 {
        word1 | 1 << tx::RS_SHIFT
    }

    #[inline(always)]
    fn done(word1: u64) -> bool {
        word1 & tx::DD != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::{Checksum, L4, PacketType, RxInfo};

    /// Word 1 from the sheet's dwords 2 and 3.
    fn word(dword2: u32, dword3: u32) -> u64 {
        u64::from(dword3) << 32 | u64::from(dword2)
    }

    #[test]
    fn plain_data_descriptors_match_the_sheet() {
        // 4.5: DTYP 3 at 23:20, EOP 24, IFCS 25, RS 27, DEXT 29; PAYLEN at 31:14 of dword 3; no CC.
        let golden = [
            ((60, 60, true, true), word(0x2B30_003C, 60 << 14)),
            ((60, 60, true, false), word(0x2330_003C, 60 << 14)),
            ((2048, 3000, false, false), word(0x2230_0800, 3000 << 14)),
            ((0xFFFF, 0x3FFFF, true, true), word(0x2B30_FFFF, 0xFFFF_C000)),
        ];
        for ((len, total, last, report), word1) in golden {
            assert_eq!(
                IgbTx::data(0x1_2345_6789, len, total, last, report),
                [0x1_2345_6789, word1],
                "{len} of {total}"
            );
        }
        assert_eq!(IgbTx::with_report(golden[1].1), golden[0].1);
    }

    #[test]
    fn no_written_descriptor_reads_as_done() {
        let all = TxInfo {
            l2_len: u8::MAX,
            l3_len: u16::MAX,
            l4_len: u8::MAX,
            ip_checksum: true,
            ipv6: false,
            l4: L4::Tcp,
            tso_mss: u16::MAX,
            vlan_tci: Some(u16::MAX),
        };
        for total in [0, 1, 60, 0x3FFFF, u32::MAX] {
            assert!(!IgbTx::done(IgbTx::data(u64::MAX, u32::MAX, total, true, true)[1]));
            assert!(!IgbTx::done(IgbTx::data_offload(u64::MAX, u32::MAX, total, true, true, &all, u8::MAX)[1]));
        }
        assert!(IgbTx::done(word(0x2B30_003C, 60 << 14 | 1)));
    }

    #[test]
    fn a_length_beyond_the_field_never_spills_into_the_flags() {
        assert_eq!(IgbTx::data(0, 0x1_0001, 0, false, false)[1], word(0x2230_0001, 0));
    }

    #[test]
    fn checksum_offload_descriptors_match_the_sheet() {
        let info = TxInfo { l2_len: 14, l3_len: 20, l4_len: 8, ip_checksum: true, l4: L4::Udp, ..TxInfo::default() };
        // 4.6: IPLEN 20, MACLEN 14 at 15:9; IPv4 bit 10, L4T 0, DTYP 2, DEXT; L4LEN 8 at 15:8.
        assert_eq!(IgbTx::context(&info, 0, 0), Some([14 << 9 | 20, word(0x2020_0400, 8 << 8)]));
        assert_eq!(IgbTx::context(&info, 0, 1), Some([14 << 9 | 20, word(0x2020_0400, 8 << 8 | 1 << 4)]));
        // 4.5: IXSM 8, TXSM 9, IDX 6:4 of dword 3.
        assert_eq!(
            IgbTx::data_offload(0x1000, 64, 64, true, true, &info, 1),
            [0x1000, word(0x2B30_0040, 64 << 14 | 1 << 9 | 1 << 8 | 1 << 4)]
        );
        let v6 = TxInfo { l3_len: 40, ip_checksum: false, ipv6: true, l4: L4::Sctp, l4_len: 12, ..info };
        assert_eq!(IgbTx::context(&v6, 0, 0), Some([14 << 9 | 40, word(0x2020_1000, 12 << 8)]));
        assert_eq!(IgbTx::data_offload(0, 64, 64, true, false, &v6, 0)[1], word(0x2330_0040, 64 << 14 | 1 << 9));
        let ip_only = TxInfo { l4: L4::None, l4_len: 0, ..info };
        assert_eq!(IgbTx::context(&ip_only, 0, 0), Some([14 << 9 | 20, word(0x2020_1C00, 0)]));
        assert_eq!(IgbTx::data_offload(0, 64, 64, true, false, &ip_only, 0)[1], word(0x2330_0040, 64 << 14 | 1 << 8));
    }

    #[test]
    fn vlan_insertion_needs_no_header_lengths() {
        let info = TxInfo { vlan_tci: Some(0xE064), ..TxInfo::default() };
        assert_eq!(IgbTx::context(&info, 0, 0), Some([0xE064 << 16 | 14 << 9, word(0x2020_1800, 0)]));
        assert_eq!(IgbTx::data_offload(0, 60, 60, true, true, &info, 0)[1], word(0x6B30_003C, 60 << 14));
    }

    #[test]
    fn tso_counts_the_payload_without_headers() {
        let info = TxInfo {
            l2_len: 18,
            l3_len: 20,
            l4_len: 32,
            l4: L4::Tcp,
            tso_mss: 1448,
            ip_checksum: true,
            ..TxInfo::default()
        };
        assert_eq!(IgbTx::context(&info, 0, 0), Some([18 << 9 | 20, word(0x2020_0C00, 1448 << 16 | 32 << 8)]));
        assert_eq!(
            IgbTx::data_offload(0, 2048, 9070, false, false, &info, 0)[1],
            word(0xA230_0800, 9000 << 14 | 1 << 9 | 1 << 8)
        );
        // TSO implies both checksums; IPv6 has only the one.
        let implied = TxInfo { l4: L4::None, ip_checksum: false, ..info };
        assert_eq!(IgbTx::context(&implied, 0, 0), IgbTx::context(&info, 0, 0));
        assert_eq!(
            IgbTx::data_offload(0, 9, 9070, true, true, &implied, 0),
            IgbTx::data_offload(0, 9, 9070, true, true, &info, 0)
        );
        let v6 = TxInfo { ipv6: true, l3_len: 40, ip_checksum: false, ..info };
        assert_eq!(IgbTx::data_offload(0, 90, 91, true, false, &v6, 0)[1], word(0xA330_005A, 1 << 14 | 1 << 9));
        // Headers alone are not segmented.
        assert_eq!(IgbTx::data_offload(0, 90, 90, true, false, &v6, 0)[1], word(0x2330_005A, 90 << 14 | 1 << 9));
    }

    #[test]
    fn what_the_hardware_cannot_do_has_no_context() {
        let csum = TxInfo { l2_len: 14, l3_len: 20, l4_len: 20, l4: L4::Tcp, ..TxInfo::default() };
        let tso = TxInfo { tso_mss: 1460, ..csum };
        let v6 = TxInfo { ipv6: true, l3_len: 40, ..csum };
        for good in [
            csum,
            tso,
            v6,
            TxInfo { l2_len: 127, ..csum },
            TxInfo { l3_len: 511, ..csum },
            TxInfo { tso_mss: 9216, l4_len: 60, l3_len: 438, ..tso },
        ] {
            assert!(IgbTx::context(&good, 0, 0).is_some(), "{good:?}");
        }
        for bad in [
            TxInfo { l2_len: 128, ..csum },
            TxInfo { l2_len: 13, ..csum },
            TxInfo { l3_len: 512, ..csum },
            TxInfo { l3_len: 19, ..csum },
            TxInfo { l3_len: 39, ..v6 },
            TxInfo { ip_checksum: true, ..v6 },
            TxInfo { tso_mss: 9217, ..tso },
            TxInfo { l4_len: 19, ..tso },
            TxInfo { l4_len: 61, ..tso },
            TxInfo { l4_len: 60, l3_len: 439, ..tso },
            TxInfo { l4: L4::Udp, ..tso },
            TxInfo { l4: L4::Sctp, ..tso },
        ] {
            assert_eq!(IgbTx::context(&bad, 0, 0), None, "{bad:?}");
        }
    }

    #[test]
    fn a_whole_frame_is_what_data_makes_of_it() {
        for len in [1, 60, 1514, 9018, u16::MAX] {
            let (iova, total) = (0x1234_5678_9abc, u32::from(len));
            assert_eq!(IgbTx::whole(iova, len), IgbTx::data(iova, total, total, true, false));
        }
    }

    #[test]
    fn received_facts_match_the_sheet() {
        let plain = Quirks::default();
        // 4.2: DD, EOP, L4CS, IPCS set; length 1500; TCP/IPv4 with RSS type 1.
        let status = word(0x63, 1500);
        assert_eq!(IgbRx::len(status), 1500);
        assert_eq!(status & IgbRx::DONE, 1);
        assert_ne!(status & IgbRx::LAST, 0);
        let info = IgbRx::info(&[0xDEAD_BEEF_0000_0111, status, 0, 0], plain);
        assert_eq!(
            info,
            RxInfo {
                hash: Some(0xDEAD_BEEF),
                vlan_tci: None,
                packet_type: PacketType::IPV4 | PacketType::TCP,
                ip_checksum: Checksum::Good,
                l4_checksum: Checksum::Good,
            }
        );
        // Errors: L4 at 29, IP at 30 (one lower than on ixgbe); a verdict only where the NIC looked.
        assert_eq!(IgbRx::info(&[0, word(0x2000_0063, 0), 0, 0], plain).l4_checksum, Checksum::Bad);
        assert_eq!(IgbRx::info(&[0, word(0x2000_0063, 0), 0, 0], plain).ip_checksum, Checksum::Good);
        assert_eq!(IgbRx::info(&[0, word(0x4000_0063, 0), 0, 0], plain).ip_checksum, Checksum::Bad);
        assert_eq!(IgbRx::info(&[0, word(0x6000_0003, 0), 0, 0], plain), RxInfo::default());
        // RSS type 0: dword 1 is the IP identification.
        assert_eq!(IgbRx::info(&[0x1234_5678_0000_0050, status, 0, 0], plain).hash, None);
        // ETQF match: the other type bits mean nothing. HDR_LEN and SPH are not types.
        assert_eq!(IgbRx::info(&[0x8110, status, 0, 0], plain).packet_type, PacketType::empty());
        assert_eq!(IgbRx::info(&[0xFFE0_0400, status, 0, 0], plain).packet_type, PacketType::SCTP);
    }

    #[test]
    fn frame_errors_are_not_checksum_verdicts() {
        for bit in [24, 25, 26, 28, 31] {
            assert_ne!(word(1 << bit, 0) & IgbRx::ERROR, 0, "{bit}");
        }
        assert_eq!(word(1 << 23 | 1 << 27 | 1 << 29 | 1 << 30 | 0xF_FFFF, u32::MAX) & IgbRx::ERROR, 0);
    }

    #[test]
    fn loopback_tags_are_swapped_on_the_i350_only() {
        let i350 = Quirks { big_endian_loopback_tag: true };
        let wire = word(0x0B, 0xE064 << 16 | 64);
        let loopback = word(0x4_000B, 0x64E0 << 16 | 64);
        assert_eq!(IgbRx::info(&[0, wire, 0, 0], i350).vlan_tci, Some(0xE064));
        assert_eq!(IgbRx::info(&[0, loopback, 0, 0], i350).vlan_tci, Some(0xE064));
        assert_eq!(IgbRx::info(&[0, loopback, 0, 0], Quirks::default()).vlan_tci, Some(0x64E0));
        assert_eq!(IgbRx::info(&[0, word(0x03, 0xE064 << 16), 0, 0], i350).vlan_tci, None);
    }
}
