//! The counters that GET_STATS reports (fact sheet iavf 4.4).
#![forbid(unsafe_code)]

use super::super::frame::FCS;
use crate::addr::MacAddr;

/// Bytes, unicast, multicast, broadcast, discards, unknown protocol; then the same of transmit, with errors last.
#[derive(Clone, Debug, Default)]
pub(super) struct Stats([u64; 12]);

impl Stats {
    fn frame(&mut self, first: usize, to: MacAddr, bytes: usize) {
        let cast = match to {
            MacAddr::BROADCAST => 3,
            to if to.is_multicast() => 2,
            _ => 1,
        };
        for (counter, add) in [(first, bytes as u64), (first + cast, 1)] {
            self.0[counter] = self.0[counter].wrapping_add(add);
        }
    }

    /// Counts a frame of `len` bytes without FCS that the switch passed to the VF: octets include the FCS, and the
    /// counters include the frames that found no buffers, which are discards besides (DPDK subtracts both).
    pub(super) fn received(&mut self, to: MacAddr, len: usize, taken: bool) {
        self.frame(0, to, len + FCS);
        self.0[4] = self.0[4].wrapping_add(!taken as u64);
    }

    /// Counts a sent frame of `len` bytes.
    pub(super) fn sent(&mut self, to: MacAddr, len: usize) {
        self.frame(6, to, len);
    }

    /// Counts a packet that was refused.
    pub(super) fn refused(&mut self) {
        self.0[11] = self.0[11].wrapping_add(1);
    }

    /// Sets every counter. They have 64 bits, so nobody lives to see one wrap.
    pub(super) fn preset(&mut self, value: u64) {
        self.0 = [value; 12];
    }

    /// The reply; an i40e PF appends one more counter.
    pub(super) fn reply(&self, i40e: bool) -> Vec<u8> {
        let more: &[u64] = if i40e { &[0] } else { &[] };
        self.0.iter().chain(more).flat_map(|counter| counter.to_le_bytes()).collect()
    }
}
