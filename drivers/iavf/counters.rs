//! The PF's statistics of this VF, as totals since the port was opened.
//!
//! Owns the arithmetic; `port.rs` asks the PF and decides when. What always holds: a total never goes back. The PF counts
//! for the VSI, from before the port was opened and maybe from 0 again after a reset, so only differences count
//! (fact sheet iavf 4.4, GET_STATS).
#![forbid(unsafe_code)]

use super::negotiate::FCS;
use super::virtchnl::Stats;
use crate::port::device::Counters;

/// The VF's totals.
#[derive(Debug, Default)]
pub(super) struct CounterSet {
    last: Stats,
    /// Frames that came, with and without a buffer to go to.
    came: u64,
    missed: u64,
    totals: Counters,
}

impl CounterSet {
    /// Adds what was counted since the last reply.
    pub(super) fn sample(&mut self, now: Stats) {
        let last = std::mem::replace(&mut self.last, now);
        // A PF that started anew meanwhile: what it has counted since is all there is to add.
        let since = |now: u64, last: u64| if now >= last { now - last } else { now };
        let rx = |s: Stats| s.rx_unicast.wrapping_add(s.rx_multicast).wrapping_add(s.rx_broadcast);
        let tx = |s: Stats| s.tx_unicast.wrapping_add(s.tx_multicast).wrapping_add(s.tx_broadcast);
        let add = |total: &mut u64, count: u64| *total = total.wrapping_add(count);
        add(&mut self.came, since(rx(now), rx(last)));
        add(&mut self.missed, since(now.rx_discards, last.rx_discards));
        // Frames that found no buffer are among the others (as DPDK counts them); the PF may have read the one before the
        // other.
        self.totals.rx_packets = self.totals.rx_packets.max(self.came.saturating_sub(self.missed));
        let sent = since(tx(now), tx(last));
        add(&mut self.totals.tx_packets, sent);
        add(&mut self.totals.rx_octets, since(now.rx_bytes, last.rx_bytes));
        // Received octets are counted with the FCS and sent ones without (as DPDK counts them).
        add(&mut self.totals.tx_octets, since(now.tx_bytes, last.tx_bytes).wrapping_add(sent.wrapping_mul(FCS.into())));
        add(&mut self.totals.rx_multicast, since(now.rx_multicast, last.rx_multicast));
    }

    /// Goes on from here, without adding.
    pub(super) fn rebase(&mut self, now: Stats) {
        self.last = now;
    }

    pub(super) fn totals(&self) -> Counters {
        Counters { rx_missed: Some(self.missed), ..self.totals }
    }
}
