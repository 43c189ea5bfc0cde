//! Rings, told to the PF: checked, configured, mapped to interrupt vectors, enabled.
//!
//! Owns the requests behind `start_rings`; `port.rs` calls it. What always holds: a ring is checked against the part's
//! limits before its address reaches a message, tails are 0 before a PF may switch a ring on, and every ring that runs is
//! mapped to a vector.
#![forbid(unsafe_code)]

use super::negotiate::{FCS, FRAME_OVERHEAD, Grant, QUEUES};
use super::port::Iavf;
use super::regs::*;
use super::virtchnl::*;
use crate::error::Result;
use crate::mmio::Bus;
use crate::port::device::{Caps, MAILBOX_VECTOR, RingPlan};

/// Alignment of a ring's base in bytes (fact sheet iavf 5.1, 4.4).
const RING_ALIGN: u64 = 128;
/// Receive buffers in bytes (fact sheet iavf 5.6).
pub(super) const BUFFER_GRANULE: u16 = 128;
const BUFFER_MIN: u16 = 1024;
const BUFFER_MAX: u16 = 16256;
/// Most buffers of a received frame (fact sheet iavf 5.6); the device drops what needs more.
const BUFFERS_PER_FRAME: u16 = 5;
/// Longest frame of the receive side of a pair that has none: what PFs take at least (fact sheet iavf 4.4).
const FRAME_MIN: u16 = 64;
/// Write-back interval of polled queues in units of 2 us: late enough to collect a cache line's worth (fact sheet iavf 4.5).
const POLLING_INTERVAL: u32 = 2;
/// Interval of queues that wait for vector 0 to have descriptors written back, in units of 2 us: each expiry interrupts,
/// so it is the longest, 8 ms (fact sheet iavf 4.5, DPDK's without WB_ON_ITR).
const WRITE_BACK_INTERVAL: u32 = 0xFF0;

impl<B: Bus> Iavf<B> {
    /// Checks, configures, maps and enables rings, each with tail 0.
    pub(super) fn run_rings(&mut self, rx: &[RingPlan], tx: &[RingPlan]) -> Result<()> {
        tx.iter().try_for_each(|ring| self.check_ring(ring, false))?;
        for ring in rx {
            self.check_ring(ring, true)?;
            self.check_buffers(ring)?;
            if let Some(vector) = ring.vector {
                self.check_number("interrupt vector", vector, 1..self.caps.vectors)?;
            }
        }
        if self.rings.is_some_and(|rings| rings != self.caps.rings) {
            return Err(self.refused(
                "the PF offers other descriptor formats than before its reset; stop the port and start it again",
            ));
        }
        self.rings = Some(self.caps.rings);
        for ring in tx {
            self.write(QTX_TAIL1(ring.queue), 0);
        }
        // Before the queue is configured, while both ends are still ours; equal means empty until the queue's thread rings.
        for ring in rx {
            self.write(QRX_TAIL1(ring.queue), 0);
        }
        self.flush()?;
        let before = (self.running.len(), self.sending.len());
        self.running.extend(rx);
        self.sending.extend(tx.iter().map(|ring| ring.queue));
        self.silent = false;
        let done = self.configure(rx, tx);
        if done.is_err() {
            self.running.truncate(before.0);
            self.sending.truncate(before.1);
        }
        done
    }

    /// Refuses a ring that the part cannot do, before its address reaches a message.
    fn check_ring(&self, ring: &RingPlan, receive: bool) -> Result<()> {
        let Caps { ring_min, ring_max, ring_multiple, rx_queues, .. } = self.caps;
        let fits = ring.queue < rx_queues
            && (ring_min..=ring_max).contains(&ring.entries)
            && ring.entries.is_multiple_of(ring_multiple)
            && ring.base.0.is_multiple_of(RING_ALIGN)
            && (!receive || ring.buffer_len >= BUFFER_MIN && ring.buffer_len.is_multiple_of(BUFFER_GRANULE));
        if fits {
            return Ok(());
        }
        Err(self.bad_value(format_args!(
            "{ring:?} does not fit this {}: {rx_queues} queues, {ring_min} to {ring_max} descriptors in multiples of \
             {ring_multiple}, base aligned to {RING_ALIGN}, buffers of {BUFFER_MIN} bytes or more in multiples of \
             {BUFFER_GRANULE}",
            self.caps.part
        )))
    }

    /// Refuses buffers that the longest frames would not fit into: the device would drop those.
    fn check_buffers(&self, ring: &RingPlan) -> Result<()> {
        // The FCS does not come along.
        let longest = self.mtu.saturating_add(FRAME_OVERHEAD - FCS);
        let needed = longest.div_ceil(BUFFERS_PER_FRAME).next_multiple_of(BUFFER_GRANULE);
        if ring.buffer_len >= needed {
            return Ok(());
        }
        Err(self.bad_value(format_args!(
            "an MTU of {} needs receive buffers of {needed} bytes, not {}: this VF fills {BUFFERS_PER_FRAME} for a frame at \
             most; make the pool with data_room({needed})",
            self.mtu, ring.buffer_len
        )))
    }

    /// The messages that configure rings, map their vectors and enable them (fact sheet iavf 4.4, 4.5).
    fn configure(&mut self, rx: &[RingPlan], tx: &[RingPlan]) -> Result<()> {
        let grant = self.granted()?;
        let vsi = grant.resources.vsi;
        let max_frame = self.mtu.saturating_add(FRAME_OVERHEAD);
        let pair = |queue: u16| {
            let [rx, tx] = [rx, tx].map(|rings| rings.iter().find(|ring| ring.queue == queue));
            Pair {
                queue,
                tx_len: tx.map_or(0, |ring| ring.entries),
                tx_base: tx.map_or(0, |ring| ring.base.0),
                rx_len: rx.map_or(0, |ring| ring.entries),
                rx_base: rx.map_or(0, |ring| ring.base.0),
                buffer: rx.map_or(BUFFER_MIN, |ring| ring.buffer_len.min(BUFFER_MAX)),
                max_frame: if rx.is_some() { max_frame } else { FRAME_MIN },
                rxdid: grant.rxdid,
            }
        };
        let bitmap = |rings: &[RingPlan]| rings.iter().fold(0, |bits, ring| bits | 1 << ring.queue);
        let queues = bitmap(rx) | bitmap(tx);
        let pairs: Vec<Pair> = (0..QUEUES).filter(|q| queues & 1 << q != 0).map(pair).collect();
        for pairs in pairs.chunks(PAIRS_PER_MESSAGE) {
            let refusal = "the PF refused the rings";
            self.channel.demand(&mut self.bus, Opcode::ConfigVsiQueues, &config_vsi_queues(vsi, pairs), refusal)?;
        }
        self.map_vectors(grant)?;
        let (opcode, payload) = if grant.has(Cap::LARGE_NUM_QPAIRS) {
            (Opcode::EnableQueuesV2, select_queues_v2(vsi, bitmap(rx), bitmap(tx)))
        } else {
            (Opcode::EnableQueues, select_queues(vsi, bitmap(rx), bitmap(tx)))
        };
        self.channel.demand(&mut self.bus, opcode, &payload, "the PF refused to enable the queues").map(drop)
    }

    /// Maps every ring that runs to its vector, or to the one that polled rings share; transmit rings to that of the receive
    /// ring of their number. A ring without a vector may keep its last descriptors in the device (fact sheet iavf 4.5, 6.6).
    fn map_vectors(&mut self, grant: Grant) -> Result<()> {
        let mut map: Vec<VectorMap> = Vec::new();
        let mut add = |vector: u16, rx_queues, tx_queues| match map.iter_mut().find(|entry| entry.vector == vector) {
            Some(entry) => {
                entry.rx_queues |= rx_queues;
                entry.tx_queues |= tx_queues;
            }
            None => map.push(VectorMap { vector, rx_queues, tx_queues }),
        };
        for ring in &self.running {
            add(ring.vector.unwrap_or(grant.polling_vector()), 1 << ring.queue, 0);
        }
        for &queue in &self.sending {
            let partner = self.running.iter().find(|ring| ring.queue == queue);
            let vector = partner.or(self.running.first()).and_then(|ring| ring.vector);
            add(vector.unwrap_or(grant.polling_vector()), 0, 1 << queue);
        }
        if map.is_empty() {
            return Ok(());
        }
        let payload = config_irq_map(grant.resources.vsi, &map);
        let refusal = "the PF refused to map interrupt vectors";
        self.channel.demand(&mut self.bus, Opcode::ConfigIrqMap, &payload, refusal)?;
        for VectorMap { vector, .. } in map {
            if vector == MAILBOX_VECTOR {
                self.arm = Some(DYN_CTL_INTENA | DYN_CTL_CLEARPBA | dyn_ctl_interval(WRITE_BACK_INTERVAL));
                self.arm_vector_0();
            } else {
                let idle = DYN_CTL_WB_ON_ITR | dyn_ctl_interval(POLLING_INTERVAL);
                self.write(VFINT_DYN_CTLN1(vector), idle);
            }
        }
        Ok(())
    }
}
