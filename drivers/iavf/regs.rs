//! The registers of BAR0 that the driver uses, under their datasheet names, and their bits.
//!
//! Owns offsets and bit positions and nothing else. Every register is 32 bits wide. Registers that only one of the two
//! series has are not here: what differs is asked of the PF (fact sheet iavf 2).
#![forbid(unsafe_code)]
// Registers of queues and vectors are functions of the number and keep the spelling of the datasheet.
#![allow(non_snake_case)]

use crate::mmio::Reg;

/// The part of BAR0 that the driver needs, in bytes: up to and with VFGEN_RSTAT. Its real size is 64 KiB on the 700
/// series and 128 KiB on the 800 series (fact sheet iavf 1).
pub(super) const BAR_LEN: u32 = 0x8804;

// Tails (fact sheet iavf 2.1).

/// Transmit tail of queue q.
pub(super) const fn QTX_TAIL1(q: u16) -> Reg {
    Reg(4 * q as u32)
}
/// Receive tail of queue q; the 800 series ignores its low three bits.
pub(super) const fn QRX_TAIL1(q: u16) -> Reg {
    Reg(0x2000 + 4 * q as u32)
}

// Interrupts (fact sheet iavf 2.2). ITRN has two layouts and is never written: intervals go through DYN_CTL.

/// Control of vector `vector`, which is not 0.
pub(super) const fn VFINT_DYN_CTLN1(vector: u16) -> Reg {
    Reg(0x3800 + 4 * (vector as u32 - 1))
}
/// Causes of vector 0. Reading clears them: the one register whose read has a side effect.
pub(super) const VFINT_ICR01: Reg = Reg(0x4800);
/// Enabled causes of vector 0.
pub(super) const VFINT_ICR0_ENA1: Reg = Reg(0x5000);
/// ICR01 and ICR0_ENA1: a message in the admin receive queue.
pub(super) const ICR0_ADMINQ: u32 = 1 << 30;
/// Control of vector 0.
pub(super) const VFINT_DYN_CTL01: Reg = Reg(0x5C00);
/// DYN_CTL: the vector may fire; cleared when it does.
pub(super) const DYN_CTL_INTENA: u32 = 1 << 0;
/// DYN_CTL: forget what is pending.
pub(super) const DYN_CTL_CLEARPBA: u32 = 1 << 1;
/// DYN_CTL: write the interval to no throttle (ITR_INDX 3).
pub(super) const DYN_CTL_NO_ITR: u32 = 3 << 3;
/// DYN_CTL: descriptors are written back when the throttle expires, interrupt or not.
pub(super) const DYN_CTL_WB_ON_ITR: u32 = 1 << 30;

/// DYN_CTL: ITR_INDX 0, the throttle that queues are mapped to, with this interval in units of 2 us (12 bits).
pub(super) const fn dyn_ctl_interval(two_us: u32) -> u32 {
    (two_us & 0xFFF) << 5
}

// Admin queue (fact sheet iavf 2.3).

/// The registers of one of the two admin queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdminRegs {
    /// Base, high and low half.
    pub bah: Reg,
    pub bal: Reg,
    /// Entries and ENABLE.
    pub len: Reg,
    pub head: Reg,
    pub tail: Reg,
}

/// To the PF.
pub(super) const ATQ: AdminRegs =
    AdminRegs { bah: Reg(0x7800), bal: Reg(0x7C00), len: Reg(0x6800), head: Reg(0x6400), tail: Reg(0x8400) };
/// From the PF.
pub(super) const ARQ: AdminRegs =
    AdminRegs { bah: Reg(0x6000), bal: Reg(0x6C00), len: Reg(0x8000), head: Reg(0x7400), tail: Reg(0x7000) };
/// Heads and tails: the number.
pub(super) const ADMIN_INDEX: u32 = 0x3FF;
/// LEN: VFE, OVFL and CRIT; cleared by writing the register.
pub(super) const ADMIN_LEN_ERRORS: u32 = 7 << 28;
/// LEN: the queue is on. A VF reset clears it, and only the driver sets it again: the best sign of a reset.
pub(super) const ADMIN_LEN_ENABLE: u32 = 1 << 31;

// Reset status (fact sheet iavf 2.4).

/// State of the VF. Reading it has no side effect, so it is the register to flush writes with.
pub(super) const VFGEN_RSTAT: Reg = Reg(0x8800);
/// RSTAT: the state's bits.
pub(super) const RSTAT_STATE: u32 = 3;
/// RSTAT: a reset is in progress.
pub(super) const RSTAT_IN_PROGRESS: u32 = 0;
/// RSTAT: the PF has made the VF ready, the last step of a reset.
pub(super) const RSTAT_ACTIVE: u32 = 2;
/// RSTAT: registers cannot be read yet (0xDEADBEEF).
pub(super) const RSTAT_UNREADABLE: u32 = 3;
