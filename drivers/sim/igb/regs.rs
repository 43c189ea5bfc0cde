//! Registers and bits of the igb VF, from the fact sheet (igbvf 1, 2 and 4); the model's own reading of it, shared with
//! no driver.
#![forbid(unsafe_code)]

/// Bytes of BAR0 (igbvf 1).
pub(super) const BAR_LEN: u32 = 16 << 10;
/// MSI-X vectors (igbvf 1).
pub(super) const VECTORS: usize = 3;

// Control, status and interrupts (igbvf 2.1).
pub(super) const CTRL: u32 = 0x0000;
pub(super) const CTRL_ALIAS: u32 = 0x0004;
pub(super) const STATUS: u32 = 0x0008;
pub(super) const VMBMEM: u32 = 0x0800;
pub(super) const VMBMEM_LAST: u32 = 0x083c;
pub(super) const V2PMAILBOX: u32 = 0x0c40;
pub(super) const PBACL: u32 = 0x0f04;
pub(super) const PSRTYPE: u32 = 0x0f0c;
pub(super) const FRTIMER: u32 = 0x1048;
pub(super) const EICS: u32 = 0x1520;
pub(super) const EIMS: u32 = 0x1524;
pub(super) const EIMC: u32 = 0x1528;
pub(super) const EIAC: u32 = 0x152c;
pub(super) const EIAM: u32 = 0x1530;
pub(super) const EICR: u32 = 0x1580;
pub(super) const EITR0: u32 = 0x1680;
pub(super) const EITR2: u32 = 0x1688;
pub(super) const IVAR0: u32 = 0x1700;
pub(super) const IVAR_MISC: u32 = 0x1740;
pub(super) const PBRWAC: u32 = 0x24e8;
pub(super) const PBTWAC: u32 = 0x34e8;

/// Statistics (igbvf 2.4), in the order of [`super::stats::Stats`].
pub(super) const STATS: [u32; 9] = [0x0f10, 0x0f14, 0x0f18, 0x0f34, 0x0f3c, 0x0f40, 0x0f44, 0x0f48, 0x0f50];

/// Distance of two queues' registers (igbvf 2).
pub(super) const QUEUE_STRIDE: u32 = 0x100;
/// First register of receive queue 0; offsets of the others are relative to it (igbvf 2.3).
pub(super) const RX_BASE: u32 = 0x2800;
pub(super) const TX_BASE: u32 = 0x3800;
pub(super) const BAL: u32 = 0x00;
pub(super) const BAH: u32 = 0x04;
pub(super) const LEN: u32 = 0x08;
pub(super) const SRRCTL: u32 = 0x0c;
pub(super) const HEAD: u32 = 0x10;
pub(super) const DCA: u32 = 0x14;
pub(super) const TAIL: u32 = 0x18;
pub(super) const DCTL: u32 = 0x28;
pub(super) const RQDPC: u32 = 0x30;
pub(super) const TDWBAL: u32 = 0x38;
pub(super) const TDWBAH: u32 = 0x3c;

pub(super) const CTRL_RST: u32 = 1 << 26;
pub(super) const STATUS_FD: u32 = 1 << 0;
pub(super) const STATUS_LU: u32 = 1 << 1;
pub(super) const STATUS_SPEED_1000: u32 = 2 << 6;

/// Bits of EICS, EIMS and their kin: one per vector (igbvf 2.1).
pub(super) const CAUSES: u32 = 0x7;
/// Valid bit of an IVAR byte.
pub(super) const IVAR_VALID: u32 = 0x80;

pub(super) const DCTL_ENABLE: u32 = 1 << 25;
pub(super) const DCTL_SWFLSH: u32 = 1 << 26;
/// Bits of RXDCTL that exist (igbvf 2.2).
pub(super) const RXDCTL_BITS: u32 = 0x001f_1f1f | DCTL_ENABLE | DCTL_SWFLSH;
/// Bits of TXDCTL that exist.
pub(super) const TXDCTL_BITS: u32 = RXDCTL_BITS | 1 << 27;
/// Bits of SRRCTL that exist.
pub(super) const SRRCTL_BITS: u32 = 0x7f | 0x3f00 | 0x01f0_0000 | 0x0e00_0000 | 1 << 30 | 1 << 31;
/// TXCTL bit 11, relaxed ordering of descriptor write-back, which must be off (igbvf 2.2).
pub(super) const TXCTL_WB_RO: u32 = 1 << 11;
/// Reset value of TXCTL: bits 9, 11 and 13 (igbvf 2.2).
pub(super) const TXCTL_RESET: u32 = 1 << 9 | 1 << 11 | 1 << 13;
/// Reset value of RXDCTL: WTHRESH 1 (igbvf 2.2).
pub(super) const RXDCTL_RESET: u32 = 1 << 16;
/// Bits of RDLEN and TDLEN (igbvf 2.3: bytes, 19:7).
pub(super) const LEN_BITS: u32 = 0x000f_ff80;

// V2PMAILBOX (igbvf 2.6).
pub(super) const MBX_REQ: u32 = 1 << 0;
pub(super) const MBX_ACK: u32 = 1 << 1;
pub(super) const MBX_VFU: u32 = 1 << 2;
pub(super) const MBX_PFU: u32 = 1 << 3;
pub(super) const MBX_PFSTS: u32 = 1 << 4;
pub(super) const MBX_PFACK: u32 = 1 << 5;
pub(super) const MBX_RSTI: u32 = 1 << 6;
pub(super) const MBX_RSTD: u32 = 1 << 7;

// Word 0 of a message (igbvf 3.2) and the messages (3.3).
pub(super) const MSG_CTS: u32 = 1 << 29;
pub(super) const MSG_NACK: u32 = 1 << 30;
pub(super) const MSG_ACK: u32 = 1 << 31;
pub(super) const MSG_RESET: u16 = 1;
pub(super) const MSG_SET_MAC: u16 = 2;
pub(super) const MSG_MULTICAST: u16 = 3;
pub(super) const MSG_VLAN: u16 = 4;
pub(super) const MSG_LPE: u16 = 5;
pub(super) const MSG_PROMISC: u16 = 6;
pub(super) const MSG_PING: u32 = 0x0100;

// Receive write-back, dword 2 (igbvf 4.2).
pub(super) const RX_DD: u32 = 1 << 0;
pub(super) const RX_EOP: u32 = 1 << 1;
pub(super) const RX_VP: u32 = 1 << 3;
pub(super) const RX_UDPCS: u32 = 1 << 4;
pub(super) const RX_L4CS: u32 = 1 << 5;
pub(super) const RX_IPCS: u32 = 1 << 6;
pub(super) const RX_LB: u32 = 1 << 18;
pub(super) const RX_L4E: u32 = 1 << 29;
pub(super) const RX_IPE: u32 = 1 << 30;
pub(super) const RX_RXE: u32 = 1 << 31;

// Transmit descriptors, dword 2 (igbvf 4.5, 4.6).
pub(super) const TX_DTYP_CONTEXT: u32 = 2;
pub(super) const TX_DTYP_DATA: u32 = 3;
pub(super) const TX_EOP: u32 = 1 << 24;
pub(super) const TX_IFCS: u32 = 1 << 25;
pub(super) const TX_RS: u32 = 1 << 27;
pub(super) const TX_DEXT: u32 = 1 << 29;
pub(super) const TX_VLE: u32 = 1 << 30;
pub(super) const TX_TSE: u32 = 1 << 31;
/// Bits of a data descriptor's dword 2 that exist: DTALEN, time stamp, DTYP and the flags above.
pub(super) const TX_DATA_BITS: u32 =
    0xffff | 1 << 19 | 0xf << 20 | TX_EOP | TX_IFCS | TX_RS | TX_DEXT | TX_VLE | TX_TSE;
/// Bits of a context descriptor's dword 2 that may be set: IPv4, L4 type, DTYP, DEXT (MKRLOC must be 0).
pub(super) const TX_CONTEXT_BITS: u32 = 1 << 10 | 3 << 11 | 0xf << 20 | TX_DEXT;
pub(super) const TX_CONTEXT_IPV4: u32 = 1 << 10;
// Dword 3 of a data descriptor.
pub(super) const TX_IXSM: u32 = 1 << 8;
pub(super) const TX_TXSM: u32 = 1 << 9;
/// Bits of a data descriptor's dword 3 that may be set: IDX, CC, IXSM, TXSM, PAYLEN (DD must be 0).
pub(super) const TX_OLINFO_BITS: u32 = 7 << 4 | 1 << 7 | TX_IXSM | TX_TXSM | 0xffff_c000;
/// Bits of a context descriptor's dword 3 that may be set: IDX, L4LEN, MSS.
pub(super) const TX_CONTEXT_INFO_BITS: u32 = 7 << 4 | 0xff << 8 | 0xffff << 16;

/// The datasheet's name of a register, for traces.
pub(super) fn name(offset: u32) -> String {
    let fixed = match offset {
        CTRL | CTRL_ALIAS => "CTRL",
        STATUS => "STATUS",
        V2PMAILBOX => "V2PMAILBOX",
        PBACL => "PBACL",
        PSRTYPE => "PSRTYPE",
        FRTIMER => "FRTIMER",
        EICS => "EICS",
        EIMS => "EIMS",
        EIMC => "EIMC",
        EIAC => "EIAC",
        EIAM => "EIAM",
        EICR => "EICR",
        IVAR0 => "IVAR0",
        IVAR_MISC => "IVAR_MISC",
        PBRWAC => "PBRWAC",
        PBTWAC => "PBTWAC",
        VMBMEM..=VMBMEM_LAST => return format!("VMBMEM[{}]", (offset - VMBMEM) / 4),
        EITR0..=EITR2 => return format!("EITR({})", (offset - EITR0) / 4),
        0x0f10 => "VFGPRC",
        0x0f14 => "VFGPTC",
        0x0f18 => "VFGORC",
        0x0f34 => "VFGOTC",
        0x0f3c => "VFMPRC",
        0x0f40 => "VFGPRLBC",
        0x0f44 => "VFGPTLBC",
        0x0f48 => "VFGORLBC",
        0x0f50 => "VFGOTLBC",
        _ => {
            let queue = |base: u32, names: &[(u32, &str)]| {
                let relative = offset.wrapping_sub(base);
                let found = names.iter().find(|(o, _)| *o == relative % QUEUE_STRIDE)?;
                (relative < 4 * QUEUE_STRIDE).then(|| format!("{}({})", found.1, relative / QUEUE_STRIDE))
            };
            let rx = [
                (BAL, "RDBAL"),
                (BAH, "RDBAH"),
                (LEN, "RDLEN"),
                (SRRCTL, "SRRCTL"),
                (HEAD, "RDH"),
                (DCA, "RXCTL"),
                (TAIL, "RDT"),
                (DCTL, "RXDCTL"),
                (RQDPC, "RQDPC"),
            ];
            let tx = [
                (BAL, "TDBAL"),
                (BAH, "TDBAH"),
                (LEN, "TDLEN"),
                (HEAD, "TDH"),
                (DCA, "TXCTL"),
                (TAIL, "TDT"),
                (DCTL, "TXDCTL"),
                (TDWBAL, "TDWBAL"),
                (TDWBAH, "TDWBAH"),
            ];
            return queue(RX_BASE, &rx)
                .or_else(|| queue(TX_BASE, &tx))
                .unwrap_or_else(|| format!("no register {offset:#06x}"));
        }
    };
    fixed.to_owned()
}
