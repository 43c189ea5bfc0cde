//! Registers and bits of the avf model, written from the fact sheet iavf 2, 3 and 5; nothing here comes from the driver.
#![forbid(unsafe_code)]

/// Bytes of BAR0 (iavf 1): 700 series, 800 series.
pub(super) const BAR_LEN_700: u32 = 64 << 10;
pub(super) const BAR_LEN_800: u32 = 128 << 10;
/// A page of BAR0 that a driver may map by itself.
pub(super) const PAGE: u32 = 4096;

// Tails, a page each (iavf 2.1).
pub(super) const QTX_TAIL: u32 = 0x0000;
pub(super) const QRX_TAIL: u32 = 0x2000;
pub(super) const QRX_PAGE_END: u32 = QRX_TAIL + PAGE;

// Interrupts (iavf 2.2).
pub(super) const ITRN: u32 = 0x2800;
pub(super) const DYN_CTLN: u32 = 0x3800;
pub(super) const DYN_CTLN_LAST: u32 = 0x38fc;
pub(super) const ICR01: u32 = 0x4800;
pub(super) const ITR01: u32 = 0x4c00;
pub(super) const ITR01_LAST: u32 = 0x4c08;
pub(super) const ICR0_ENA1: u32 = 0x5000;
pub(super) const STAT_CTL01: u32 = 0x5400;
pub(super) const DYN_CTL01: u32 = 0x5c00;

// DYN_CTL, both forms.
pub(super) const CTL_INTENA: u32 = 1 << 0;
pub(super) const CTL_CLEARPBA: u32 = 1 << 1;
pub(super) const CTL_SWINT_TRIG: u32 = 1 << 2;
pub(super) const CTL_SW_ITR_INDX_ENA: u32 = 1 << 24;
pub(super) const CTL_WB_ON_ITR: u32 = 1 << 30;
pub(super) const CTL_INTENA_MSK: u32 = 1 << 31;
/// Bits that exist: 23:17 and 29:27 do not.
pub(super) const CTL_BITS: u32 = 0xc701_ffff;
/// ITR index that selects none.
pub(super) const ITR_NONE: u32 = 3;

// ICR01 and ICR0_ENA1.
pub(super) const ICR_ADMINQ: u32 = 1 << 30;
pub(super) const ICR_SWINT: u32 = 1 << 31;
pub(super) const ICR_INTEVENT: u32 = 1 << 0;

// Admin queues (iavf 2.3).
pub(super) const ARQBAH: u32 = 0x6000;
pub(super) const ATQH: u32 = 0x6400;
pub(super) const ATQLEN: u32 = 0x6800;
pub(super) const ARQBAL: u32 = 0x6c00;
pub(super) const ARQT: u32 = 0x7000;
pub(super) const ARQH: u32 = 0x7400;
pub(super) const ATQBAH: u32 = 0x7800;
pub(super) const ATQBAL: u32 = 0x7c00;
pub(super) const ARQLEN: u32 = 0x8000;
pub(super) const ATQT: u32 = 0x8400;
pub(super) const LEN_ENABLE: u32 = 1 << 31;
/// Entries, heads and tails.
pub(super) const AQ_INDEX: u32 = 0x3ff;

/// Reset status (iavf 2.4).
pub(super) const RSTAT: u32 = 0x8800;
pub(super) const RSTAT_COMPLETED: u32 = 1;
pub(super) const RSTAT_ACTIVE: u32 = 2;
/// What a register may read as while the VF is in reset.
pub(super) const UNREADABLE: u32 = 0xdead_beef;

// RSS registers of the 700 series (iavf 2.5).
pub(super) const HENA: u32 = 0xc400;
pub(super) const HENA_LAST: u32 = 0xc404;
pub(super) const HKEY: u32 = 0xcc00;
pub(super) const HKEY_LAST: u32 = 0xcc30;
pub(super) const HLUT: u32 = 0xd000;
pub(super) const HLUT_LAST: u32 = 0xd03c;
pub(super) const HREGION: u32 = 0xd400;
pub(super) const HREGION_LAST: u32 = 0xd41c;

// Flags and opcodes of an admin queue descriptor (iavf 3).
pub(super) const AQ_DD: u64 = 1 << 0;
pub(super) const AQ_CMP: u64 = 1 << 1;
pub(super) const AQ_ERR: u64 = 1 << 2;
pub(super) const AQ_LB: u64 = 1 << 9;
pub(super) const AQ_RD: u64 = 1 << 10;
pub(super) const AQ_BUF: u64 = 1 << 12;
pub(super) const AQ_SI: u64 = 1 << 13;
/// A buffer longer than this needs LB.
pub(super) const AQ_LARGE: usize = 512;
/// Longest message.
pub(super) const AQ_BUFFER_MAX: usize = 4096;
pub(super) const AQ_TO_PF: u64 = 0x0801;
pub(super) const AQ_TO_VF: u64 = 0x0802;
pub(super) const AQ_SHUTDOWN: u64 = 0x0003;

// Transmit descriptors, quadword 1 (iavf 5.1).
pub(super) const TX_DTYPE: u64 = 0xf;
pub(super) const TX_DATA: u64 = 0;
pub(super) const TX_CONTEXT: u64 = 1;
pub(super) const TX_DONE: u64 = 0xf;
pub(super) const TX_EOP: u64 = 0x001 << 4;
pub(super) const TX_RS: u64 = 0x002 << 4;
pub(super) const TX_ICRC: u64 = 0x004 << 4;
pub(super) const TX_IL2TAG1: u64 = 0x008 << 4;
/// IIPT and its values.
pub(super) const TX_IIPT: u64 = 0x060 << 4;
pub(super) const TX_IPV6: u64 = 0x020 << 4;
pub(super) const TX_IPV4: u64 = 0x040 << 4;
pub(super) const TX_IPV4_CSUM: u64 = 0x060 << 4;
/// L4T and its values.
pub(super) const TX_L4T: u64 = 0x300 << 4;
pub(super) const TX_TCP: u64 = 0x100 << 4;
pub(super) const TX_SCTP: u64 = 0x200 << 4;
pub(super) const TX_UDP: u64 = 0x300 << 4;
/// Bits of a data descriptor that the model knows: DTYPE, the commands above, offsets, length, tag.
pub(super) const TX_DATA_BITS: u64 =
    TX_DTYPE | TX_EOP | TX_RS | TX_ICRC | TX_IL2TAG1 | TX_IIPT | TX_L4T | 0x3_ffff << 16 | TX_SIZE | 0xffff << 48;
/// Buffer size, 47:34.
pub(super) const TX_SIZE: u64 = 0x3fff << 34;
/// What may differ between the data descriptors of a packet.
pub(super) const TX_VARIES: u64 = TX_EOP | TX_RS | TX_SIZE;
// Context descriptor, quadword 1.
pub(super) const CONTEXT_TSO: u64 = 0x1 << 4;
pub(super) const CONTEXT_IL2TAG2: u64 = 0x4 << 4;
/// Bits of quadword 1 that the model knows: DTYPE, the two commands above, TLEN, MSS.
pub(super) const CONTEXT_BITS: u64 = TX_DTYPE | CONTEXT_TSO | CONTEXT_IL2TAG2 | 0x3_ffff << 30 | 0x3fff << 50;
/// Bits of quadword 0 that the model knows: L2TAG2.
pub(super) const CONTEXT_TAG: u64 = 0xffff << 32;

// Receive write-back, quadword 1, legacy (iavf 5.3).
pub(super) const RX_DD: u64 = 1 << 0;
pub(super) const RX_EOF: u64 = 1 << 1;
pub(super) const RX_L2TAG1P: u64 = 1 << 2;
pub(super) const RX_L3L4P: u64 = 1 << 3;
pub(super) const RX_FLTSTAT_HASH: u64 = 3 << 12;
pub(super) const RX_LPBK: u64 = 1 << 14;
pub(super) const RX_IPV6EX: u64 = 1 << 15;
pub(super) const RX_RXE: u64 = 1 << 19;
pub(super) const RX_IPE: u64 = 1 << 22;
pub(super) const RX_L4E: u64 = 1 << 23;
/// Extended status, quadword 2.
pub(super) const RX_L2TAG2P: u64 = 1 << 0;

// Receive write-back, quadword 1, flex (iavf 5.4): status0.
pub(super) const FLEX_DD: u64 = 1 << 0;
pub(super) const FLEX_EOF: u64 = 1 << 1;
pub(super) const FLEX_L3L4P: u64 = 1 << 3;
pub(super) const FLEX_IPE: u64 = 1 << 4;
pub(super) const FLEX_L4E: u64 = 1 << 5;
pub(super) const FLEX_LPBK: u64 = 1 << 8;
pub(super) const FLEX_IPV6EX: u64 = 1 << 9;
pub(super) const FLEX_RXE: u64 = 1 << 10;
pub(super) const FLEX_RSS_VALID: u64 = 1 << 12;
pub(super) const FLEX_L2TAG1P: u64 = 1 << 13;
/// status1, quadword 2.
pub(super) const FLEX_L2TAG2P: u64 = 1 << 11;

// Receive descriptor profiles (iavf 5.4).
pub(super) const RXDID_LEGACY: u8 = 1;
pub(super) const RXDID_NIC: u8 = 2;
pub(super) const RXDID_OVS: u8 = 22;

/// The datasheet's name of a register, for traces.
pub(super) fn name(offset: u32) -> String {
    let indexed = |name: &str, base: u32| format!("{name}({})", (offset - base) / 4);
    match offset {
        0..PAGE => indexed("QTX_TAIL1", QTX_TAIL),
        ITRN..QRX_PAGE_END => format!("VFINT_ITRN1+{:#x}", offset - ITRN),
        QRX_TAIL..ITRN => indexed("QRX_TAIL1", QRX_TAIL),
        DYN_CTLN..=DYN_CTLN_LAST => indexed("VFINT_DYN_CTLN1", DYN_CTLN),
        ICR01 => "VFINT_ICR01".into(),
        ITR01..=ITR01_LAST => indexed("VFINT_ITR01", ITR01),
        ICR0_ENA1 => "VFINT_ICR0_ENA1".into(),
        STAT_CTL01 => "VFINT_STAT_CTL01".into(),
        DYN_CTL01 => "VFINT_DYN_CTL01".into(),
        ARQBAH => "ARQBAH".into(),
        ATQH => "ATQH".into(),
        ATQLEN => "ATQLEN".into(),
        ARQBAL => "ARQBAL".into(),
        ARQT => "ARQT".into(),
        ARQH => "ARQH".into(),
        ATQBAH => "ATQBAH".into(),
        ATQBAL => "ATQBAL".into(),
        ARQLEN => "ARQLEN".into(),
        ATQT => "ATQT".into(),
        RSTAT => "VFGEN_RSTAT".into(),
        HENA..=HENA_LAST => indexed("VFQF_HENA", HENA),
        HKEY..=HKEY_LAST => indexed("VFQF_HKEY", HKEY),
        HLUT..=HLUT_LAST => indexed("VFQF_HLUT", HLUT),
        HREGION..=HREGION_LAST => indexed("VFQF_HREGION", HREGION),
        _ => format!("no register {offset:#06x}"),
    }
}
