//! The function's statistics, extended from wrapping 32-bit registers to 64 bits.
//!
//! Owns the order of the registers and the arithmetic; `port.rs` decides when a sample may be trusted. What always
//! holds: a total never goes back, neither over a wrap nor over a reset of the registers that was announced by `rebase`.
#![forbid(unsafe_code)]

use super::regs::*;
use crate::mmio::{Bus, Reg};
use crate::port::device::Counters;

/// The registers, in the order of [`CounterSet::totals`] (fact sheet igbvf 2.4).
const REGISTERS: [Reg; 9] = [VFGPRC, VFGPTC, VFGORC, VFGOTC, VFMPRC, VFGPRLBC, VFGPTLBC, VFGORLBC, VFGOTLBC];

/// One reading of all registers.
pub(super) type Snapshot = [u32; REGISTERS.len()];

/// Reads all registers. Reading has no side effect.
pub(super) fn snapshot<B: Bus>(bus: &mut B) -> Snapshot {
    REGISTERS.map(|register| bus.read32(register))
}

/// A counter of 32 bits that wraps, extended to 64.
#[derive(Clone, Copy, Debug, Default)]
struct Extend32 {
    last: u32,
    total: u64,
}

/// All counters of the function.
#[derive(Debug, Default)]
pub(super) struct CounterSet([Extend32; REGISTERS.len()]);

impl CounterSet {
    /// Adds what was counted since the last snapshot; at most one wrap may lie between.
    pub(super) fn sample(&mut self, now: Snapshot) {
        for (counter, now) in self.0.iter_mut().zip(now) {
            counter.total += u64::from(now.wrapping_sub(counter.last));
            counter.last = now;
        }
    }

    /// Goes on from registers that started anew, without adding.
    pub(super) fn rebase(&mut self, now: Snapshot) {
        for (counter, now) in self.0.iter_mut().zip(now) {
            counter.last = now;
        }
    }

    /// The totals.
    pub(super) fn totals(&self) -> Counters {
        let [rx, tx, rx_octets, tx_octets, multicast, rx_loop, tx_loop, rx_loop_octets, tx_loop_octets] =
            self.0.map(|counter| counter.total);
        Counters {
            rx_packets: rx,
            tx_packets: tx,
            rx_octets,
            tx_octets,
            rx_multicast: multicast,
            rx_loopback_packets: rx_loop,
            tx_loopback_packets: tx_loop,
            rx_loopback_octets: rx_loop_octets,
            tx_loopback_octets: tx_loop_octets,
        }
    }
}
