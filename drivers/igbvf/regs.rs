//! The registers of BAR0 that the driver uses, under their datasheet names, and their bits.
//!
//! Owns offsets and bit positions and nothing else; `messages.rs`, `counters.rs` and `port.rs` read them. CTRL, STATUS and
//! the mailbox's bits are as on ixgbe, and shared. Every register is 32 bits
//! wide; registers of queue n lie [`QUEUE_STRIDE`] * n further on. Registers with side effects on read are marked.
#![forbid(unsafe_code)]
// Queue registers are functions of the queue number and keep the spelling of the datasheet.
#![allow(non_snake_case)]

use super::intel::interrupts::Interrupts;
use crate::mmio::Reg;

// Interrupts (fact sheet igbvf 2.1).

/// Registers of causes. Reading EICR clears them. IVAR0 is the only register of routes.
pub(super) const INTERRUPTS: Interrupts = Interrupts {
    eims: Reg(0x1524),
    eimc: Reg(0x1528),
    eiac: Reg(0x152C),
    eiam: Reg(0x1530),
    eicr: Reg(0x1580),
    ivar: |_| Reg(0x1700),
    ivar_misc: Reg(0x1740),
    eitr: |vector| Reg(0x1680 + 4 * vector as u32),
};

bitflags::bitflags! {
    /// Bits of STATUS (fact sheet igbvf 2.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Status: u32 {
        /// Full duplex.
        const FD = 1 << 0;
        /// Link up.
        const LU = 1 << 1;
        /// Speed, both bits: 0 is 10 Mb/s, 1 is 100, 2 and 3 are 1000.
        const SPEED = 3 << 6;
        const _ = !0;
    }
}

impl Status {
    /// Speed of the link in Mb/s (fact sheet igbvf 2.2).
    pub(super) fn speed_mbps(self) -> u32 {
        match (self & Status::SPEED).bits() >> 6 {
            0 => 10,
            1 => 100,
            _ => 1000,
        }
    }
}

// Mailbox (fact sheet igbvf 2.6).

/// Mailbox control. Reading clears PFSTS, PFACK and RSTD: every read goes through `Mailbox`, which keeps them.
pub(super) const V2PMAILBOX: Reg = Reg(0x0C40);
/// Word 0 of the mailbox buffer, sixteen words; touched only while V2PMAILBOX.VFU is ours.
pub(super) const VMBMEM: Reg = Reg(0x0800);

// Queues (fact sheet igbvf 2.3).

/// Bytes from a register of queue n to the same register of queue n + 1.
const QUEUE_STRIDE: u32 = 0x100;

const fn queue(first: u32, n: u16) -> Reg {
    Reg(first + QUEUE_STRIDE * n as u32)
}

/// Receive ring base, low half.
pub(super) const fn RDBAL(n: u16) -> Reg {
    queue(0x2800, n)
}
/// Receive ring base, high half.
pub(super) const fn RDBAH(n: u16) -> Reg {
    queue(0x2804, n)
}
/// Receive ring length in bytes.
pub(super) const fn RDLEN(n: u16) -> Reg {
    queue(0x2808, n)
}
/// Split and replication control.
pub(super) const fn SRRCTL(n: u16) -> Reg {
    queue(0x280C, n)
}
/// Receive head.
pub(super) const fn RDH(n: u16) -> Reg {
    queue(0x2810, n)
}
/// Receive tail.
pub(super) const fn RDT(n: u16) -> Reg {
    queue(0x2818, n)
}
/// Receive descriptor control.
pub(super) const fn RXDCTL(n: u16) -> Reg {
    queue(0x2828, n)
}
/// Transmit ring base, low half.
pub(super) const fn TDBAL(n: u16) -> Reg {
    queue(0x3800, n)
}
/// Transmit ring base, high half.
pub(super) const fn TDBAH(n: u16) -> Reg {
    queue(0x3804, n)
}
/// Transmit ring length in bytes.
pub(super) const fn TDLEN(n: u16) -> Reg {
    queue(0x3808, n)
}
/// Transmit head.
pub(super) const fn TDH(n: u16) -> Reg {
    queue(0x3810, n)
}
/// Transmit DCA and relaxed-ordering control.
pub(super) const fn TXCTL(n: u16) -> Reg {
    queue(0x3814, n)
}
/// Transmit tail.
pub(super) const fn TDT(n: u16) -> Reg {
    queue(0x3818, n)
}
/// Transmit descriptor control.
pub(super) const fn TXDCTL(n: u16) -> Reg {
    queue(0x3828, n)
}
/// Head write-back address, low half; bit 0 enables head write-back instead of DD.
pub(super) const fn TDWBAL(n: u16) -> Reg {
    queue(0x3838, n)
}
/// Head write-back address, high half.
pub(super) const fn TDWBAH(n: u16) -> Reg {
    queue(0x383C, n)
}

/// SRRCTL: the unit of BSIZEPKT (6:0) in bytes.
pub(super) const SRRCTL_BSIZEPKT_UNIT: u16 = 1024;
/// SRRCTL: DESCTYPE 1, advanced descriptors with one buffer.
pub(super) const SRRCTL_DESCTYPE_ADVANCED: u32 = 1 << 25;
/// SRRCTL: drop frames while the ring is empty instead of blocking the port for everybody.
pub(super) const SRRCTL_DROP_EN: u32 = 1 << 31;
/// TXCTL: descriptor write-back may be relaxed ordered. Set by reset and to be cleared (fact sheet igbvf 2.2).
pub(super) const TXCTL_WRITE_BACK_RELAXED: u32 = 1 << 11;
/// RXDCTL and TXDCTL: the queue runs.
pub(super) const XDCTL_ENABLE: u32 = 1 << 25;

/// RXDCTL and TXDCTL: prefetch, host and write-back thresholds in descriptors (4:0, 12:8, 20:16).
pub(super) const fn thresholds(prefetch: u32, host: u32, write_back: u32) -> u32 {
    prefetch | host << 8 | write_back << 16
}

// Statistics: 32 bits, wrap, not cleared by reading (fact sheet igbvf 2.4).

/// Good packets received.
pub(super) const VFGPRC: Reg = Reg(0x0F10);
/// Good packets transmitted.
pub(super) const VFGPTC: Reg = Reg(0x0F14);
/// Good octets received, low 32 bits.
pub(super) const VFGORC: Reg = Reg(0x0F18);
/// Good octets transmitted, low 32 bits.
pub(super) const VFGOTC: Reg = Reg(0x0F34);
/// Multicast packets received.
pub(super) const VFMPRC: Reg = Reg(0x0F3C);
/// Good packets received from other functions of the port.
pub(super) const VFGPRLBC: Reg = Reg(0x0F40);
/// Good packets sent to other functions of the port.
pub(super) const VFGPTLBC: Reg = Reg(0x0F44);
/// Octets received from other functions of the port.
pub(super) const VFGORLBC: Reg = Reg(0x0F48);
/// Octets sent to other functions of the port.
pub(super) const VFGOTLBC: Reg = Reg(0x0F50);
