//! Registers and bits of the igb VF, from the fact sheet (igbvf 1, 2 and 4); the model's own reading of it, shared with
//! no driver.
#![forbid(unsafe_code)]

use super::super::adv::{DCTL_ENABLE, DCTL_SWFLSH, QueueRegister, Register, Rules};

/// Bytes of BAR0 (igbvf 1).
pub(super) const BAR_LEN: u32 = 16 << 10;

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

pub(super) const STATUS_FD: u32 = 1 << 0;
pub(super) const STATUS_LU: u32 = 1 << 1;
pub(super) const STATUS_SPEED_1000: u32 = 2 << 6;

/// Bits of RXDCTL that exist (igbvf 2.2).
const RXDCTL_BITS: u32 = 0x001f_1f1f | DCTL_ENABLE | DCTL_SWFLSH;
/// Receive buffer when SRRCTL.BSIZEPKT is 0: the PF's RCTL.BSIZE, 2 KiB in a stock PF.
const DEFAULT_BUFFER: usize = 2048;

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

/// What the engine needs to know.
pub(super) static RULES: Rules = Rules {
    // igbvf 4.
    ring_max: 4096,
    // Bytes, 19:7 (igbvf 2.3).
    len_bits: 0x000f_ff80,
    batches_stay_out: false,
    reset_keeps_queues: false,
    dctl_bits: [RXDCTL_BITS, RXDCTL_BITS | 1 << 27],
    // WTHRESH 1 (igbvf 2.2).
    dctl_reset: [1 << 16, 0],
    // TXCTL: bits 9, 11 and 13 (igbvf 2.2).
    dca_reset: [0, 1 << 9 | 1 << 11 | 1 << 13],
    tx_dca: "TXCTL",
    srrctl_bits: 0x7f | 0x3f00 | 0x01f0_0000 | 0x0e00_0000 | 1 << 30 | 1 << 31,
    srrctl_reset: 0,
    buffer_len: |srrctl| match (srrctl & 0x7f) as usize {
        0 => Ok(DEFAULT_BUFFER),
        kib => Ok(kib << 10),
    },
    splits_headers: true,
    header_address_counts: true,
    // Dword 2 (igbvf 4.2).
    rx_l4e: 1 << 29,
    rx_ipe: 1 << 30,
    rx_rxe: 1 << 31,
    reports_kept_tags: false,
    // DTALEN, time stamp, DTYP, EOP, IFCS, RS, DEXT, VLE, TSE (igbvf 4.5).
    tx_data_bits: 0xffff | 1 << 19 | 0xf << 20 | 3 << 24 | 1 << 27 | 7 << 29,
    // IDX, CC, IXSM, TXSM, PAYLEN (DD must be 0).
    tx_olinfo_bits: 7 << 4 | 7 << 7 | 0xffff_c000,
    // IPv4, L4 type, DTYP, DEXT (MKRLOC must be 0) (igbvf 4.6).
    tx_context_bits: 1 << 10 | 3 << 11 | 0xf << 20 | 1 << 29,
    // IDX, L4LEN, MSS.
    tx_context_info_bits: 7 << 4 | 0xff << 8 | 0xffff << 16,
    tx_context_dword1: "launch time set in a context",
    tx_needs_context: false,
    // The 14-bit length field (igbvf 4.7).
    tx_frame_max: 16383,
    tx_descriptors_max: 255,
    mss_max: 9216,
    tso_headers_max: 512,
};

/// What is at an offset of a VF with this many queues.
pub(super) fn decode(offset: u32, queues: usize) -> Option<Register> {
    Some(match offset {
        CTRL | CTRL_ALIAS => Register::Ctrl,
        V2PMAILBOX => Register::Mailbox,
        VMBMEM..=VMBMEM_LAST => Register::Memory(((offset - VMBMEM) / 4) as usize),
        EICS => Register::Eics,
        EIMS => Register::Eims,
        EIMC => Register::Eimc,
        EIAC => Register::Eiac,
        EIAM => Register::Eiam,
        EICR => Register::Eicr,
        EITR0..=EITR2 => Register::Eitr(((offset - EITR0) / 4) as usize),
        IVAR0 => Register::Ivar(0),
        IVAR_MISC => Register::IvarMisc,
        _ => {
            for (base, tx) in [(RX_BASE, false), (TX_BASE, true)] {
                let relative = offset.wrapping_sub(base);
                let queue = (relative / QUEUE_STRIDE) as usize;
                if queue < queues {
                    let register = queue_register(tx, relative % QUEUE_STRIDE)?;
                    return Some(Register::Queue { tx, queue, register });
                }
            }
            Register::Own
        }
    })
}

fn queue_register(tx: bool, relative: u32) -> Option<QueueRegister> {
    Some(match (tx, relative) {
        (_, BAL) => QueueRegister::Bal,
        (_, BAH) => QueueRegister::Bah,
        (_, LEN) => QueueRegister::Len,
        (false, SRRCTL) => QueueRegister::Srrctl,
        (_, HEAD) => QueueRegister::Head,
        (_, DCA) => QueueRegister::Dca,
        (_, TAIL) => QueueRegister::Tail,
        (_, DCTL) => QueueRegister::Dctl,
        (false, RQDPC) => QueueRegister::Rqdpc,
        (true, TDWBAL) => QueueRegister::Tdwbal,
        (true, TDWBAH) => QueueRegister::Tdwbah,
        _ => return None,
    })
}

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
