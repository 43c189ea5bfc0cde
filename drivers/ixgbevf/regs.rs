//! The registers of BAR0 that the driver uses, under their datasheet names, and their bits.
//!
//! Owns offsets and bit positions and nothing else; the rest of the driver reads them. VFCTRL, VFSTATUS and the mailbox's
//! bits are as on igb, and shared. Every register is 32 bits wide; registers of queue n lie [`QUEUE_STRIDE`] * n
//! further on. Registers with side effects on read are marked.
#![forbid(unsafe_code)]
// Queue registers are functions of the queue number and keep the spelling of the datasheet.
#![allow(non_snake_case)]

use super::intel::interrupts::Interrupts;
use crate::mmio::Reg;

/// Queues that have registers, each way (fact sheet ixgbevf 1).
pub(super) const QUEUES: u16 = 8;
// Link and interrupts (fact sheet ixgbevf 2.1, 2.3).

/// Link state.
pub(super) const VFLINKS: Reg = Reg(0x0010);
/// VFLINKS: link up.
pub(super) const VFLINKS_UP: u32 = 1 << 30;
/// VFLINKS: lowest bit of the two of the speed.
pub(super) const VFLINKS_SPEED_SHIFT: u32 = 28;
/// VFLINKS: the speed is one of the odd ones. Generation B.
pub(super) const VFLINKS_NON_STD: u32 = 1 << 27;
/// Registers of causes. Reading VTEICR clears them.
pub(super) const INTERRUPTS: Interrupts = Interrupts {
    eims: Reg(0x0108),
    eimc: Reg(0x010C),
    eiac: Reg(0x0110),
    eiam: Reg(0x0114),
    eicr: Reg(0x0100),
    ivar: |n| Reg(0x0120 + 4 * n as u32),
    ivar_misc: Reg(0x0140),
    eitr: |vector| Reg(0x0820 + 4 * vector as u32),
};

// Mailbox (fact sheet ixgbevf 2.1).

/// Word 0 of the mailbox buffer, sixteen words; touched only while VFMAILBOX.VFU is ours.
pub(super) const VFMBMEM: Reg = Reg(0x0200);
/// Mailbox control. Reading clears PFSTS, PFACK and RSTD: every read goes through the mailbox, which keeps them.
pub(super) const VFMAILBOX: Reg = Reg(0x02FC);

// Spreading over queues (fact sheet ixgbevf 2.1, 2.3, 2.6).

/// Packet split types, and how many queues RSS uses.
pub(super) const VFPSRTYPE: Reg = Reg(0x0300);
/// VFPSRTYPE: lowest bit of the binary logarithm of the number of queues.
pub(super) const VFPSRTYPE_RQPL_SHIFT: u32 = 29;
/// RSS control. Generation B.
pub(super) const VFMRQC: Reg = Reg(0x3000);
/// VFMRQC: RSS is on.
pub(super) const VFMRQC_RSSEN: u32 = 1 << 0;
/// VFMRQC: hash addresses and ports of TCP and UDP, and addresses of other IPv4 and IPv6.
pub(super) const VFMRQC_FIELDS: u32 = 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23;
/// Registers of the RSS key, four bytes each.
pub(super) const VFRSSRK_COUNT: usize = 10;
/// Registers of the RSS table, four entries each.
pub(super) const VFRETA_COUNT: usize = 16;

/// Bytes 4i to 4i + 3 of the RSS key, the first in the lowest bits. Generation B.
pub(super) const fn VFRSSRK(i: usize) -> Reg {
    Reg(0x3100 + 4 * i as u32)
}

/// Entries 4i to 4i + 3 of the RSS table, the first in the lowest bits. Generation B.
pub(super) const fn VFRETA(i: usize) -> Reg {
    Reg(0x3200 + 4 * i as u32)
}

// Queues (fact sheet ixgbevf 2.2, 2.3).

/// Bytes from a register of queue n to the same register of queue n + 1.
const QUEUE_STRIDE: u32 = 0x40;

const fn queue(first: u32, n: u16) -> Reg {
    Reg(first + QUEUE_STRIDE * n as u32)
}

/// Receive ring base, low half.
pub(super) const fn VFRDBAL(n: u16) -> Reg {
    queue(0x1000, n)
}
/// Receive ring base, high half.
pub(super) const fn VFRDBAH(n: u16) -> Reg {
    queue(0x1004, n)
}
/// Receive ring length in bytes.
pub(super) const fn VFRDLEN(n: u16) -> Reg {
    queue(0x1008, n)
}
/// Receive DCA and relaxed-ordering control.
pub(super) const fn VFDCA_RXCTRL(n: u16) -> Reg {
    queue(0x100C, n)
}
/// Receive head.
pub(super) const fn VFRDH(n: u16) -> Reg {
    queue(0x1010, n)
}
/// Split and replication control.
pub(super) const fn VFSRRCTL(n: u16) -> Reg {
    queue(0x1014, n)
}
/// Receive tail.
pub(super) const fn VFRDT(n: u16) -> Reg {
    queue(0x1018, n)
}
/// Receive descriptor control.
pub(super) const fn VFRXDCTL(n: u16) -> Reg {
    queue(0x1028, n)
}
/// Transmit ring base, low half.
pub(super) const fn VFTDBAL(n: u16) -> Reg {
    queue(0x2000, n)
}
/// Transmit ring base, high half.
pub(super) const fn VFTDBAH(n: u16) -> Reg {
    queue(0x2004, n)
}
/// Transmit ring length in bytes.
pub(super) const fn VFTDLEN(n: u16) -> Reg {
    queue(0x2008, n)
}
/// Transmit DCA and relaxed-ordering control.
pub(super) const fn VFDCA_TXCTRL(n: u16) -> Reg {
    queue(0x200C, n)
}
/// Transmit head.
pub(super) const fn VFTDH(n: u16) -> Reg {
    queue(0x2010, n)
}
/// Transmit tail.
pub(super) const fn VFTDT(n: u16) -> Reg {
    queue(0x2018, n)
}
/// Transmit descriptor control.
pub(super) const fn VFTXDCTL(n: u16) -> Reg {
    queue(0x2028, n)
}
/// Head write-back address, low half; bit 0 enables head write-back instead of DD.
pub(super) const fn VFTDWBAL(n: u16) -> Reg {
    queue(0x2038, n)
}
/// Head write-back address, high half.
pub(super) const fn VFTDWBAH(n: u16) -> Reg {
    queue(0x203C, n)
}

/// VFSRRCTL: the unit of BSIZEPKT (6:0) in bytes, and its largest value.
pub(super) const SRRCTL_BSIZEPKT_UNIT: u16 = 1024;
pub(super) const SRRCTL_BSIZEPKT_MAX: u16 = 16;
/// VFSRRCTL: BSIZEHDR (13:8) of 256 bytes, which one-buffer descriptors do not use and every driver writes.
const SRRCTL_BSIZEHDR: u32 = 4 << 8;
/// VFSRRCTL: DESCTYPE 1, advanced descriptors with one buffer.
pub(super) const SRRCTL_DESCTYPE_ADVANCED: u32 = 1 << 25 | SRRCTL_BSIZEHDR;
/// VFSRRCTL: drop frames while the ring is empty. The PF forces it; bit 31 on igb.
pub(super) const SRRCTL_DROP_EN: u32 = 1 << 28;
/// VFSRRCTL after power-on: buffers of 2 KiB.
pub(super) const SRRCTL_DEFAULT: u32 = SRRCTL_BSIZEHDR | 2;
/// VFDCA_RXCTRL after power-on: relaxed ordering of descriptor reads, data writes and header writes.
pub(super) const DCA_RXCTRL_DEFAULT: u32 = 1 << 9 | 1 << 13 | 1 << 15;
/// VFDCA_TXCTRL: descriptor write-back may be relaxed ordered. To be cleared.
pub(super) const DCA_TXCTRL_WRITE_BACK_RELAXED: u32 = 1 << 11;
/// VFDCA_TXCTRL after power-on: relaxed ordering of descriptor reads, write-backs and data reads.
pub(super) const DCA_TXCTRL_DEFAULT: u32 = 1 << 9 | DCA_TXCTRL_WRITE_BACK_RELAXED | 1 << 13;
/// VFRXDCTL and VFTXDCTL: the queue runs.
pub(super) const XDCTL_ENABLE: u32 = 1 << 25;
/// VFTXDCTL: write finished descriptors back and forget fetched ones.
pub(super) const TXDCTL_SWFLSH: u32 = 1 << 26;
/// VFRXDCTL: take the VLAN tag out of received frames.
pub(super) const RXDCTL_VME: u32 = 1 << 30;

/// VFTXDCTL: prefetch, host and write-back thresholds in descriptors (6:0, 14:8, 22:16).
pub(super) const fn tx_thresholds(prefetch: u32, host: u32, write_back: u32) -> u32 {
    prefetch | host << 8 | write_back << 16
}

// Statistics: they wrap, and are not cleared by reading or by a reset (fact sheet ixgbevf 2.5).

/// Good packets received, 32 bits.
pub(super) const VFGPRC: Reg = Reg(0x101C);
/// Good octets received, low 32 of 36 bits.
pub(super) const VFGORC_LSB: Reg = Reg(0x1020);
/// Good octets received, high 4 bits in 3:0.
pub(super) const VFGORC_MSB: Reg = Reg(0x1024);
/// Multicast packets received, 32 bits.
pub(super) const VFMPRC: Reg = Reg(0x1034);
/// Good packets transmitted, 32 bits.
pub(super) const VFGPTC: Reg = Reg(0x201C);
/// Good octets transmitted, low 32 of 36 bits.
pub(super) const VFGOTC_LSB: Reg = Reg(0x2020);
/// Good octets transmitted, high 4 bits in 3:0.
pub(super) const VFGOTC_MSB: Reg = Reg(0x2024);
