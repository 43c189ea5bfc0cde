//! The function's statistics: which registers, and what they count.
//!
//! Owns the order of the registers; `port.rs` decides when a reading may be trusted. What always holds: reading has no
//! side effect, and every register has 32 bits and wraps.
#![forbid(unsafe_code)]

use super::intel::counters::Totals;
use super::regs::*;
use crate::mmio::{Bus, Reg};
use crate::port::device::Counters;

/// The registers (fact sheet igbvf 2.4).
const REGISTERS: [Reg; 9] = [VFGPRC, VFGPTC, VFGORC, VFGOTC, VFMPRC, VFGPRLBC, VFGPTLBC, VFGORLBC, VFGOTLBC];
/// Their widths in bits.
const WIDTHS: [u32; REGISTERS.len()] = [32; REGISTERS.len()];

/// All counters of the function, in the order of the registers.
pub(super) type IgbTotals = Totals<{ REGISTERS.len() }>;

/// Counters that start at 0.
pub(super) fn totals() -> IgbTotals {
    Totals::new(WIDTHS)
}

/// Reads all registers.
pub(super) fn snapshot<B: Bus>(bus: &mut B) -> [u64; REGISTERS.len()] {
    REGISTERS.map(|register| u64::from(bus.read32(register)))
}

/// What was counted.
pub(super) fn counters(totals: &IgbTotals) -> Counters {
    let [rx, tx, rx_octets, tx_octets, multicast, rx_loop, tx_loop, rx_loop_octets, tx_loop_octets] = totals.get();
    Counters {
        rx_packets: rx,
        tx_packets: tx,
        rx_octets,
        tx_octets,
        rx_multicast: multicast,
        rx_missed: None,
        rx_loopback_packets: rx_loop,
        tx_loopback_packets: tx_loop,
        rx_loopback_octets: rx_loop_octets,
        tx_loopback_octets: tx_loop_octets,
    }
}
