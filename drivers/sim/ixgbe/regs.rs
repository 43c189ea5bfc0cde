//! Registers and bits of the ixgbe VF, from the fact sheet (ixgbevf 2 to 4); the model's own reading of it, shared with
//! no driver.
#![forbid(unsafe_code)]

use super::super::adv::{DCTL_ENABLE, DCTL_SWFLSH, QueueRegister, Register, Rules};

/// Bytes of BAR0 (ixgbevf 1).
pub(super) const BAR_LEN: u32 = 16 << 10;
/// Receive queues and transmit queues that have registers (ixgbevf 1).
pub(super) const QUEUES: usize = 8;

// General (ixgbevf 2.1).
const VFCTRL: u32 = 0x0000;
pub(super) const VFSTATUS: u32 = 0x0008;
pub(super) const VFLINKS: u32 = 0x0010;
pub(super) const VFFRTIMER: u32 = 0x0048;
const VTEICR: u32 = 0x0100;
const VTEICS: u32 = 0x0104;
const VTEIMS: u32 = 0x0108;
const VTEIMC: u32 = 0x010c;
const VTEIAC: u32 = 0x0110;
const VTEIAM: u32 = 0x0114;
const VTIVAR0: u32 = 0x0120;
const VTIVAR3: u32 = 0x012c;
const VTIVAR_MISC: u32 = 0x0140;
pub(super) const VTRSCINT0: u32 = 0x0180;
pub(super) const VTRSCINT2: u32 = 0x0188;
const VFMBMEM: u32 = 0x0200;
const VFMBMEM_LAST: u32 = 0x023c;
const VFMAILBOX: u32 = 0x02fc;
pub(super) const VFPSRTYPE: u32 = 0x0300;
const VTEITR0: u32 = 0x0820;
const VTEITR2: u32 = 0x0828;
pub(super) const VFRXMEMWRAP: u32 = 0x3190;
// RSS of generation B.
pub(super) const VFMRQC: u32 = 0x3000;
pub(super) const VFRSSRK0: u32 = 0x3100;
pub(super) const VFRSSRK9: u32 = 0x3124;
pub(super) const VFRETA0: u32 = 0x3200;
pub(super) const VFRETA15: u32 = 0x323c;

// Queues (ixgbevf 2.2).
const QUEUE_STRIDE: u32 = 0x40;
const RX_BASE: u32 = 0x1000;
const TX_BASE: u32 = 0x2000;
const RX_REGISTERS: [(u32, QueueRegister, &str); 8] = [
    (0x00, QueueRegister::Bal, "VFRDBAL"),
    (0x04, QueueRegister::Bah, "VFRDBAH"),
    (0x08, QueueRegister::Len, "VFRDLEN"),
    (0x0c, QueueRegister::Dca, "VFDCA_RXCTRL"),
    (0x10, QueueRegister::Head, "VFRDH"),
    (0x14, QueueRegister::Srrctl, "VFSRRCTL"),
    (0x18, QueueRegister::Tail, "VFRDT"),
    (0x28, QueueRegister::Dctl, "VFRXDCTL"),
];
const TX_REGISTERS: [(u32, QueueRegister, &str); 9] = [
    (0x00, QueueRegister::Bal, "VFTDBAL"),
    (0x04, QueueRegister::Bah, "VFTDBAH"),
    (0x08, QueueRegister::Len, "VFTDLEN"),
    (0x0c, QueueRegister::Dca, "VFDCA_TXCTRL"),
    (0x10, QueueRegister::Head, "VFTDH"),
    (0x18, QueueRegister::Tail, "VFTDT"),
    (0x28, QueueRegister::Dctl, "VFTXDCTL"),
    (0x38, QueueRegister::Tdwbal, "VFTDWBAL"),
    (0x3c, QueueRegister::Tdwbah, "VFTDWBAH"),
];
/// VFRSCCTL among the registers of a receive queue.
const VFRSCCTL: u32 = 0x2c;

// Statistics, between the queue registers (ixgbevf 2.5).
pub(super) const VFGPRC: u32 = 0x101c;
pub(super) const VFGORC_LSB: u32 = 0x1020;
pub(super) const VFGORC_MSB: u32 = 0x1024;
pub(super) const VFMPRC: u32 = 0x1034;
pub(super) const VFGPTC: u32 = 0x201c;
pub(super) const VFGOTC_LSB: u32 = 0x2020;
pub(super) const VFGOTC_MSB: u32 = 0x2024;

/// VFLINKS: link up at 10 Gb/s (ixgbevf 2.3).
pub(super) const LINKS_UP_10G: u32 = 1 << 30 | 3 << 28;
/// RXDCTL: longest packet, and that it counts.
pub(super) const RXDCTL_RLPML: u32 = 0x3fff;
pub(super) const RXDCTL_RLPML_EN: u32 = 1 << 15;
/// RXDCTL: strip VLAN tags.
pub(super) const RXDCTL_VME: u32 = 1 << 30;
/// RSCCTL: coalesce (RSC).
pub(super) const RSCCTL_RSCEN: u32 = 1 << 0;
/// Bits of VFPSRTYPE that exist: TCP, UDP, IPv4, IPv6, L2, RQPL.
pub(super) const PSRTYPE_BITS: u32 = 3 << 4 | 3 << 8 | 1 << 12 | 7 << 29;
/// VFMRQC: hash at all.
pub(super) const MRQC_RSSEN: u32 = 1 << 0;
/// VFMRQC: the RSS type that each bit enables.
pub(super) const MRQC_TYPES: [(u32, u32); 9] =
    [(16, 1), (17, 2), (18, 6), (19, 4), (20, 5), (21, 3), (22, 7), (23, 8), (24, 9)];

/// Status and errors of a receive write-back (ixgbevf 4.2).
pub(super) const RX_L4CS: u32 = 1 << 5;
pub(super) const RX_L4E: u32 = 1 << 30;

// Word 0 of a message (ixgbevf 3.1) and the messages (3.3).
pub(super) const MSG_CTS: u32 = 1 << 29;
pub(super) const MSG_NACK: u32 = 1 << 30;
pub(super) const MSG_ACK: u32 = 1 << 31;
pub(super) const MSG_RESET: u16 = 0x01;
pub(super) const MSG_SET_MAC_ADDR: u16 = 0x02;
pub(super) const MSG_SET_MULTICAST: u16 = 0x03;
pub(super) const MSG_SET_VLAN: u16 = 0x04;
pub(super) const MSG_SET_LPE: u16 = 0x05;
pub(super) const MSG_SET_MACVLAN: u16 = 0x06;
pub(super) const MSG_API_NEGOTIATE: u16 = 0x08;
pub(super) const MSG_GET_QUEUES: u16 = 0x09;
pub(super) const MSG_GET_RETA: u16 = 0x0a;
pub(super) const MSG_GET_RSS_KEY: u16 = 0x0b;
pub(super) const MSG_UPDATE_XCAST_MODE: u16 = 0x0c;
pub(super) const MSG_GET_LINK_STATE: u16 = 0x10;
pub(super) const MSG_GET_PF_LINK_STATE: u16 = 0x11;
pub(super) const MSG_FEATURES_NEGOTIATE: u16 = 0x12;
pub(super) const MSG_PING: u32 = 0x0100;

/// Bits of the thresholds of TXDCTL.
pub(super) const TXDCTL_THRESH: u32 = 0x7f;
/// On-chip descriptors of a transmit queue: PTHRESH + WTHRESH, and the descriptors of a packet + WTHRESH (ixgbevf 2.3, 4.7).
pub(super) const TX_ON_CHIP: u32 = 40;

/// What the engine needs to know.
pub(super) static RULES: Rules = Rules {
    // ixgbevf 4.
    ring_max: 8192,
    // Bytes, in lines of 128, of up to 8192 descriptors.
    len_bits: 0x0003_ff80,
    // ixgbevf 2.4.
    batches_stay_out: true,
    reset_keeps_queues: true,
    // RLPML, RLPML_EN, VME; PTHRESH, HTHRESH, WTHRESH (ixgbevf 2.3).
    dctl_bits: [
        RXDCTL_RLPML | RXDCTL_RLPML_EN | RXDCTL_VME | DCTL_ENABLE | DCTL_SWFLSH,
        0x007f_7f7f | DCTL_ENABLE | DCTL_SWFLSH,
    ],
    // ixgbevf 7.1.
    dctl_reset: [0, 0],
    dca_reset: [0xa200, 0x2a00],
    tx_dca: "DCA_TXCTRL",
    // BSIZEPKT, BSIZEHDR, RDMTS, DESCTYPE, DROP_EN (ixgbevf 2.3).
    srrctl_bits: 0x7f | 0x3f << 8 | 7 << 22 | 7 << 25 | 1 << 28,
    srrctl_reset: 0x402,
    buffer_len: |srrctl| match (srrctl & 0x7f) as usize {
        kib @ 1..=16 => Ok(kib << 10),
        kib => Err(format!("rx queue enabled with SRRCTL.BSIZEPKT {kib} (1 to 16 KiB)")),
    },
    // ixgbevf 4.1.
    splits_headers: false,
    header_address_counts: false,
    // Dword 2 (ixgbevf 4.2).
    rx_l4e: RX_L4E,
    rx_ipe: 1 << 31,
    rx_rxe: 1 << 29,
    reports_kept_tags: true,
    // DTALEN, outer IP checksum, time stamp, DTYP, EOP, IFCS, RS, DEXT, VLE, TSE (ixgbevf 4.5).
    tx_data_bits: 0xffff | 1 << 17 | 1 << 19 | 0xf << 20 | 3 << 24 | 1 << 27 | 7 << 29,
    // IDX, CC, IXSM, TXSM, PAYLEN; DD must be 0, and IPsec is not modelled.
    tx_olinfo_bits: 7 << 4 | 7 << 7 | 0xffff_c000,
    // IPv4, L4T, DTYP, DEXT; IPsec is not modelled (ixgbevf 4.6).
    tx_context_bits: 1 << 10 | 3 << 11 | 0xf << 20 | 1 << 29,
    // IDX, L4LEN, MSS; bit 0, which nothing is known of, is set by DPDK's driver.
    tx_context_info_bits: 1 | 7 << 4 | 0xff << 8 | 0xffff << 16,
    tx_context_dword1: "tunnel or IPsec fields set in a context, which the model does not do",
    // ixgbevf 4.7.
    tx_needs_context: true,
    // 9728 with FCS (ixgbevf 4.8).
    tx_frame_max: 9724,
    tx_descriptors_max: TX_ON_CHIP,
    mss_max: u16::MAX,
    tso_headers_max: 127 + 511 + 255,
};

/// Takes a register of a queue apart: transmit, queue, offset from the queue's first.
fn queue_offset(offset: u32) -> Option<(bool, usize, u32)> {
    let of = |base: u32, tx| {
        let relative = offset.wrapping_sub(base);
        let queue = (relative / QUEUE_STRIDE) as usize;
        (queue < QUEUES).then_some((tx, queue, relative % QUEUE_STRIDE))
    };
    of(RX_BASE, false).or_else(|| of(TX_BASE, true))
}

fn queue_register(tx: bool, relative: u32) -> Option<(QueueRegister, &'static str)> {
    let all: &[_] = if tx { &TX_REGISTERS } else { &RX_REGISTERS };
    all.iter().find(|(at, ..)| *at == relative).map(|&(_, register, name)| (register, name))
}

/// The receive queue whose VFRSCCTL is at this offset.
pub(super) fn rscctl(offset: u32) -> Option<usize> {
    queue_offset(offset).and_then(|(tx, queue, relative)| (!tx && relative == VFRSCCTL).then_some(queue))
}

/// What is at an offset.
pub(super) fn decode(offset: u32) -> Option<Register> {
    let index = |first: u32| ((offset - first) / 4) as usize;
    Some(match offset {
        VFCTRL => Register::Ctrl,
        VFMAILBOX => Register::Mailbox,
        VFMBMEM..=VFMBMEM_LAST => Register::Memory(index(VFMBMEM)),
        VTEICR => Register::Eicr,
        VTEICS => Register::Eics,
        VTEIMS => Register::Eims,
        VTEIMC => Register::Eimc,
        VTEIAC => Register::Eiac,
        VTEIAM => Register::Eiam,
        VTEITR0..=VTEITR2 => Register::Eitr(index(VTEITR0)),
        VTIVAR0..=VTIVAR3 => Register::Ivar(index(VTIVAR0)),
        VTIVAR_MISC => Register::IvarMisc,
        _ => match queue_offset(offset) {
            Some((tx, queue, relative)) => match queue_register(tx, relative) {
                Some((register, _)) => Register::Queue { tx, queue, register },
                None => Register::Own, // statistics and VFRSCCTL
            },
            None => Register::Own,
        },
    })
}

/// The datasheet's name of a register, for traces.
pub(super) fn name(offset: u32) -> String {
    let index = |first: u32| (offset - first) / 4;
    let fixed = match offset {
        VFCTRL => "VFCTRL",
        VFSTATUS => "VFSTATUS",
        VFLINKS => "VFLINKS",
        VFFRTIMER => "VFFRTIMER",
        VTEICR => "VTEICR",
        VTEICS => "VTEICS",
        VTEIMS => "VTEIMS",
        VTEIMC => "VTEIMC",
        VTEIAC => "VTEIAC",
        VTEIAM => "VTEIAM",
        VTIVAR_MISC => "VTIVAR_MISC",
        VFMAILBOX => "VFMAILBOX",
        VFPSRTYPE => "VFPSRTYPE",
        VFRXMEMWRAP => "VFRXMEMWRAP",
        VFMRQC => "VFMRQC",
        VFGPRC => "VFGPRC",
        VFGORC_LSB => "VFGORC_LSB",
        VFGORC_MSB => "VFGORC_MSB",
        VFMPRC => "VFMPRC",
        VFGPTC => "VFGPTC",
        VFGOTC_LSB => "VFGOTC_LSB",
        VFGOTC_MSB => "VFGOTC_MSB",
        VTIVAR0..=VTIVAR3 => return format!("VTIVAR({})", index(VTIVAR0)),
        VTRSCINT0..=VTRSCINT2 => return format!("VTRSCINT({})", index(VTRSCINT0)),
        VFMBMEM..=VFMBMEM_LAST => return format!("VFMBMEM[{}]", index(VFMBMEM)),
        VTEITR0..=VTEITR2 => return format!("VTEITR({})", index(VTEITR0)),
        VFRSSRK0..=VFRSSRK9 => return format!("VFRSSRK({})", index(VFRSSRK0)),
        VFRETA0..=VFRETA15 => return format!("VFRETA({})", index(VFRETA0)),
        _ => {
            let queue = queue_offset(offset).and_then(|(tx, queue, relative)| match queue_register(tx, relative) {
                Some((_, name)) => Some(format!("{name}({queue})")),
                None => (!tx && relative == VFRSCCTL).then(|| format!("VFRSCCTL({queue})")),
            });
            return queue.unwrap_or_else(|| format!("no register {offset:#06x}"));
        }
    };
    fixed.to_owned()
}
