//! Descriptor formats of the 82599 and its successors: the advanced receive descriptor with one buffer, the advanced
//! transmit data descriptor and the transmit context descriptor.
//!
//! Owns the bits and limits that are these parts' own (fact sheet ixgbevf 4), as [`IxgbeRx`] and [`IxgbeTx`]; the rest is
//! shared with igb's. The rings of `vfring` call it per packet. What always holds: everything here is pure arithmetic
//! without tables or memory, and every data descriptor refers to a context.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;

use super::intel::desc::{self, Piece, TsoLimits, rx, tx};
use crate::mem::{PackedInfo, PacketType, TxInfo};
use crate::ring::{RxFormat, TxFormat};

/// Receive format: 16-byte advanced descriptors, one buffer each (fact sheet ixgbevf 4.1 to 4.4).
#[derive(Debug)]
pub enum IxgbeRx {}

/// Transmit format: 16-byte advanced data and context descriptors (fact sheet ixgbevf 4.5 and 4.6).
#[derive(Debug)]
pub enum IxgbeTx {}

/// How receive descriptors differ between the parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Quirks {
    /// UDP datagrams without a checksum can be flagged as wrong: 82599 only (fact sheet ixgbevf 4.2).
    pub udp_without_checksum_flagged: bool,
}

/// Word 0 of a receive descriptor's write-back: the frame is tunnelled, and the type bits are those of the inner packet
/// (fact sheet ixgbevf 4.3). Generation B.
pub(super) const TUNNEL: u64 = 1 << 16;

// Word 1: what is not as on igb (fact sheet ixgbevf 4.2).

/// CE, LE, PE, OSE and RXE. Bits 31 and 30 are checksum verdicts, 26 that of an outer header.
const FRAME_ERRORS: u64 = 1 << 24 | 1 << 25 | 1 << 27 | 1 << 28 | 1 << 29;
/// L4 checksum wrong. igb has it one bit lower.
pub(super) const L4E: u64 = 1 << 30;
/// IP checksum wrong. igb has it one bit lower.
pub(super) const IPE: u64 = 1 << 31;
pub(super) const ERROR_SHIFT: u32 = desc::error_shift(L4E, IPE);
/// The flag of UDP.
pub(super) const UDP: u64 = PacketType::UDP.bits() as u64;
/// All that tell of checksums.
pub(super) const VERDICTS: u64 =
    PackedInfo::L4_LOOKED | PackedInfo::IP_LOOKED | PackedInfo::L4_WRONG | PackedInfo::IP_WRONG;

// SAFETY: DD is bit 0 of dword 2, which is bit 0 of word 1. The device stores the frame first and writes the descriptor
// back with DD afterwards (fact sheet ixgbevf 4.2); an armed descriptor has word 1, the header address, all 0
// (4.1), so DD reads 0 until then. `len` is the length as stored, the bit field 15:0 of dword 3.
unsafe impl RxFormat for IxgbeRx {
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
        let flags = desc::flags(word0, status, rx::TYPE_ETQF | TUNNEL, ERROR_SHIFT);
        let flagged = quirks.udp_without_checksum_flagged & (flags & UDP != 0) & (status & L4E != 0);
        let flags = if flagged { flags & !PackedInfo::L4_LOOKED } else { flags };
        // The verdicts on a tunnel are about headers that the program has not asked about.
        let flags = if word0 & TUNNEL != 0 { flags & !VERDICTS } else { flags };
        PackedInfo::new(flags, status >> rx::VLAN_SHIFT, word0 >> rx::HASH_SHIFT)
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

/// Largest MSS, that of the largest frame, and most header bytes of a TSO frame, the sum of the fields (fact sheet ixgbevf
/// 4.7, 4.8).
const TSO_LIMITS: TsoLimits = TsoLimits { mss: 9728, headers: 127 + 511 + 60 };
/// CC: the device looks at the frame with the help of the context that it refers to. Mandatory for VFs (fact sheet ixgbevf
/// 4.5, 4.7).
const CHECK_CONTEXT: u64 = 1 << 39;
/// The part of every data descriptor that never changes.
const DATA: u64 = tx::DATA | CHECK_CONTEXT;
/// The context of frames without offloads, and that of the others.
const PLAIN: u8 = 0;
const OFFLOAD: u8 = 1;

// SAFETY: with RS in a frame's last descriptor, hardware writes DD, bit 0 of dword 3, into that descriptor once it has
// fetched the frame (fact sheet ixgbevf 4.5, 4.7), and `done` tests that bit alone. No word made here has it: fields start
// at bit 36 or end below bit 32, every shifted value is cut to its field, and PAYLEN sits at the top. Head write-back,
// which would replace DD, is switched off by the port. `data` and `data_offload` put `iova` and `len` in the
// address and DTALEN fields unchanged for every `len` up to MAX_SEGMENT; a longer one loses its high bits and the
// device reads less, never more. Contexts, the first one among them, make the device read nothing.
unsafe impl TxFormat for IxgbeTx {
    const MAX_SEGMENT: u32 = desc::MAX_SEGMENT;
    const CONTEXTS: usize = 1;
    const PLAIN_CONTEXT: Option<[u64; 2]> = Some(desc::plain_context(PLAIN, 0));
    const WHOLE: u64 = DATA | 1 << tx::EOP_SHIFT;
    const WHOLE_PER_BYTE: u64 = tx::PER_BYTE;

    #[inline(always)]
    fn data(iova: u64, len: u32, total: u32, last: bool, report: bool) -> [u64; 2] {
        desc::data(DATA, iova, len, total, last, report)
    }

    #[inline(always)]
    fn data_offload(iova: u64, len: u32, total: u32, last: bool, report: bool, info: &TxInfo, _: u8) -> [u64; 2] {
        desc::data_offload(DATA, Piece { iova, len, total, last, report }, info, OFFLOAD)
    }

    #[inline]
    fn context(info: &TxInfo, _: u32, _: u8) -> Option<[u64; 2]> {
        desc::context(info, OFFLOAD, TSO_LIMITS)
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
    use crate::mem::{Checksum, L4, RxInfo};

    /// Word 1 from the sheet's dwords 2 and 3.
    fn word(dword2: u32, dword3: u32) -> u64 {
        u64::from(dword3) << 32 | u64::from(dword2)
    }

    /// CC, bit 7 of dword 3.
    const CC: u32 = 1 << 7;

    #[test]
    fn plain_data_descriptors_match_the_sheet() {
        // 4.5: DTYP 3 at 23:20, EOP 24, IFCS 25, RS 27, DEXT 29; CC at 7, PAYLEN at 31:14 of dword 3; IDX 0.
        let golden = [
            ((60, 60, true, true), word(0x2B30_003C, 60 << 14 | CC)),
            ((60, 60, true, false), word(0x2330_003C, 60 << 14 | CC)),
            ((2048, 3000, false, false), word(0x2230_0800, 3000 << 14 | CC)),
            ((0xFFFF, 0x3FFFF, true, true), word(0x2B30_FFFF, 0xFFFF_C000 | CC)),
        ];
        for ((len, total, last, report), word1) in golden {
            assert_eq!(
                IxgbeTx::data(0x1_2345_6789, len, total, last, report),
                [0x1_2345_6789, word1],
                "{len} of {total}"
            );
        }
        assert_eq!(IxgbeTx::with_report(golden[1].1), golden[0].1);
        for len in [1, 60, 1514, 9018, u16::MAX] {
            let total = u32::from(len);
            assert_eq!(
                IxgbeTx::whole(0x1234_5678_9abc, len),
                IxgbeTx::data(0x1234_5678_9abc, total, total, true, false)
            );
        }
    }

    #[test]
    fn the_first_context_has_a_mac_length_and_index_0() {
        // 4.6, 4.7: MACLEN 14 at 15:9; DTYP 2, DEXT, L4T 3; IDX 0.
        assert_eq!(IxgbeTx::PLAIN_CONTEXT, Some([14 << 9, word(0x2020_1800, 0)]));
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
            assert!(!IxgbeTx::done(IxgbeTx::data(u64::MAX, u32::MAX, total, true, true)[1]));
            assert!(!IxgbeTx::done(IxgbeTx::data_offload(u64::MAX, u32::MAX, total, true, true, &all, u8::MAX)[1]));
        }
        assert!(IxgbeTx::done(word(0x2B30_003C, 60 << 14 | CC | 1)));
    }

    #[test]
    fn offload_descriptors_match_the_sheet_and_use_the_other_context() {
        let info = TxInfo { l2_len: 14, l3_len: 20, l4_len: 8, ip_checksum: true, l4: L4::Udp, ..TxInfo::default() };
        // 4.6: IPLEN 20, MACLEN 14 at 15:9; IPv4 bit 10, L4T 0, DTYP 2, DEXT; L4LEN 8 at 15:8, IDX 1 at 6:4.
        for index in 0..2 {
            assert_eq!(IxgbeTx::context(&info, 0, index), Some([14 << 9 | 20, word(0x2020_0400, 8 << 8 | 1 << 4)]));
        }
        // 4.5: IXSM 8, TXSM 9, CC 7, IDX 6:4 of dword 3.
        assert_eq!(
            IxgbeTx::data_offload(0x1000, 64, 64, true, true, &info, 0),
            [0x1000, word(0x2B30_0040, 64 << 14 | 1 << 9 | 1 << 8 | CC | 1 << 4)]
        );
        let tag = TxInfo { vlan_tci: Some(0xE064), ..TxInfo::default() };
        assert_eq!(IxgbeTx::context(&tag, 0, 0), Some([0xE064 << 16 | 14 << 9, word(0x2020_1800, 1 << 4)]));
        assert_eq!(IxgbeTx::data_offload(0, 60, 60, true, true, &tag, 0)[1], word(0x6B30_003C, 60 << 14 | CC | 1 << 4));
        let tso = TxInfo {
            l2_len: 18,
            l3_len: 20,
            l4_len: 32,
            l4: L4::Tcp,
            tso_mss: 1448,
            ip_checksum: true,
            ..TxInfo::default()
        };
        assert_eq!(
            IxgbeTx::context(&tso, 0, 0),
            Some([18 << 9 | 20, word(0x2020_0C00, 1448 << 16 | 32 << 8 | 1 << 4)])
        );
        assert_eq!(
            IxgbeTx::data_offload(0, 2048, 9070, false, false, &tso, 0)[1],
            word(0xA230_0800, 9000 << 14 | 1 << 9 | 1 << 8 | CC | 1 << 4)
        );
        assert!(IxgbeTx::context(&TxInfo { tso_mss: 9728, l3_len: 511, l4_len: 60, ..tso }, 0, 0).is_some());
        assert_eq!(IxgbeTx::context(&TxInfo { tso_mss: 9729, ..tso }, 0, 0), None);
    }

    #[test]
    fn received_facts_match_the_sheet() {
        let plain = Quirks::default();
        // 4.2: DD, EOP, L4CS, IPCS set; length 1500; TCP/IPv4 with RSS type 1.
        let status = word(0x63, 1500);
        assert_eq!(IxgbeRx::len(status), 1500);
        assert_eq!(status & IxgbeRx::DONE, 1);
        assert_ne!(status & IxgbeRx::LAST, 0);
        let info = IxgbeRx::info(&[0xDEAD_BEEF_0000_0111, status, 0, 0], plain);
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
        // Errors: L4 at 30, IP at 31 (one higher than on igb); a verdict only where the NIC looked.
        assert_eq!(IxgbeRx::info(&[0, word(0x4000_0063, 0), 0, 0], plain).l4_checksum, Checksum::Bad);
        assert_eq!(IxgbeRx::info(&[0, word(0x4000_0063, 0), 0, 0], plain).ip_checksum, Checksum::Good);
        assert_eq!(IxgbeRx::info(&[0, word(0x8000_0063, 0), 0, 0], plain).ip_checksum, Checksum::Bad);
        assert_eq!(IxgbeRx::info(&[0, word(0xC000_0003, 0), 0, 0], plain), RxInfo::default());
        // RSS type 0: dword 1 is the IP identification.
        assert_eq!(IxgbeRx::info(&[0x1234_5678_0000_0050, status, 0, 0], plain).hash, None);
        // ETQF match, tunnel: the type bits mean something else; HDR_LEN and SPH are no types.
        assert_eq!(IxgbeRx::info(&[0x8110, status, 0, 0], plain).packet_type, PacketType::empty());
        assert_eq!(IxgbeRx::info(&[0xFFE0_0400, status, 0, 0], plain).packet_type, PacketType::SCTP);
        let tunnel = IxgbeRx::info(&[0x1_0110, word(0xC000_0063, 0), 0, 0], plain);
        assert_eq!(tunnel, RxInfo::default(), "an inner packet's verdicts are not the frame's");
        // The tag is little endian, whoever sent the frame.
        assert_eq!(IxgbeRx::info(&[0, word(0x4_000B, 0xE064 << 16 | 64), 0, 0], plain).vlan_tci, Some(0xE064));
        assert_eq!(IxgbeRx::info(&[0, word(0x4_0003, 0xE064 << 16 | 64), 0, 0], plain).vlan_tci, None);
    }

    #[test]
    fn frame_errors_are_not_checksum_verdicts() {
        for bit in [24, 25, 27, 28, 29] {
            assert_ne!(word(1 << bit, 0) & IxgbeRx::ERROR, 0, "{bit}");
        }
        let others = 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 26 | 1 << 30 | 1 << 31 | 0xF_FFFF;
        assert_eq!(word(others, u32::MAX) & IxgbeRx::ERROR, 0);
    }

    #[test]
    fn udp_without_a_checksum_is_not_bad_on_the_82599() {
        let quirk = Quirks { udp_without_checksum_flagged: true };
        let (udp, tcp) = (0x210, 0x110);
        let verdict = |word0, dword2, quirks| IxgbeRx::info(&[word0, word(dword2, 64), 0, 0], quirks).l4_checksum;
        assert_eq!(verdict(udp, 0x4000_0063, quirk), Checksum::Unchecked);
        assert_eq!(verdict(udp, 0x4000_0063, Quirks::default()), Checksum::Bad);
        assert_eq!(verdict(tcp, 0x4000_0063, quirk), Checksum::Bad);
        assert_eq!(verdict(udp, 0x0000_0063, quirk), Checksum::Good);
    }
}
