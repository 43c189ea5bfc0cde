//! The function's statistics: which registers, how wide they are, and what they count.
//!
//! Owns the order of the registers and the reading of those that are wider than a register; the device decides when a
//! reading may be trusted. What always holds: reading has no side effect.
#![forbid(unsafe_code)]

use super::intel::counters::Totals;
use super::regs::*;
use crate::mmio::{Bus, Reg};
use crate::port::device::Counters;

/// Width of the octet counters in bits, and of what their high register holds (fact sheet ixgbevf 2.5).
const OCTET_BITS: u32 = 36;
const MSB_MASK: u32 = (1 << (OCTET_BITS - 32)) - 1;

/// Packets received and sent, octets received and sent, multicast packets received.
pub(super) type IxgbeTotals = Totals<5>;

/// Counters that start at 0.
pub(super) fn totals() -> IxgbeTotals {
    Totals::new([32, 32, OCTET_BITS, OCTET_BITS, 32])
}

/// Reads all registers.
pub(super) fn snapshot<B: Bus>(bus: &mut B) -> [u64; 5] {
    [
        u64::from(bus.read32(VFGPRC)),
        u64::from(bus.read32(VFGPTC)),
        wide(bus, VFGORC_LSB, VFGORC_MSB),
        wide(bus, VFGOTC_LSB, VFGOTC_MSB),
        u64::from(bus.read32(VFMPRC)),
    ]
}

/// Reads a counter of two registers. Nothing says that reading one holds the other still (fact sheet ixgbevf 2.5), so
/// where the high half moved, the low half is read again: it has just begun anew and will not do so for seconds.
fn wide<B: Bus>(bus: &mut B, lsb: Reg, msb: Reg) -> u64 {
    let before = bus.read32(msb) & MSB_MASK;
    let mut low = bus.read32(lsb);
    let high = bus.read32(msb) & MSB_MASK;
    if high != before {
        low = bus.read32(lsb);
    }
    u64::from(high) << 32 | u64::from(low)
}

/// What was counted. The function does not count frames of its own port's other functions apart.
pub(super) fn counters(totals: &IxgbeTotals) -> Counters {
    let [rx_packets, tx_packets, rx_octets, tx_octets, rx_multicast] = totals.get();
    Counters { rx_packets, tx_packets, rx_octets, tx_octets, rx_multicast, ..Counters::default() }
}
