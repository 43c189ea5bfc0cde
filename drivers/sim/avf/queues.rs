//! Requests about queues: rings, vectors, on and off (fact sheet iavf 4.4, 7.3).
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::super::env::Env;
use super::super::model::{Cells, Model};
use super::filters::FRAME_MAX;
use super::pf::Answer;
use super::ring::Context;
use super::virtchnl::{CAP_CRC, CAP_FLEX_DESC, ERR_PARAM, Payload};
use super::{AvfVf, QUEUES_MAX, regs};

/// Longest ring and receive buffer (iavf 4.4).
const RING_MAX: u32 = 8160;
const BUFFER_MAX: u32 = 16256;
/// Least of an ice PF.
const RING_MIN_ICE: u32 = 64;
const BUFFER_MIN_ICE: u32 = 1024;
/// The hardware counts addresses of rings and lengths of buffers in these.
const UNIT: u32 = 128;

/// One pair of CONFIG_VSI_QUEUES.
struct Pair {
    queue: usize,
    tx_len: u32,
    tx_base: u64,
    rx_len: u32,
    rx_base: u64,
    buffer: u32,
    max_packet: u32,
    keep_crc: bool,
    rxdid: u8,
}

fn wrong(what: String) -> Answer {
    Answer::Wrong(ERR_PARAM, what)
}

impl AvfVf {
    pub(super) fn configure_queues(&mut self, p: Payload<'_>, env: &mut Env) -> Answer {
        let mut pairs = Vec::new();
        for at in (0..p.u16(2) as usize).map(|i| 8 + 64 * i) {
            match self.parse_pair(p, at) {
                Ok(pair) => pairs.push(pair),
                Err(what) => return wrong(what),
            }
        }
        for pair in pairs {
            if let Err(what) = self.configure_pair(&pair, env) {
                return wrong(what);
            }
        }
        Answer::done()
    }

    /// Takes one pair apart and checks it as the PF does.
    fn parse_pair(&self, p: Payload<'_>, at: usize) -> Result<Pair, String> {
        let queue = p.u16(at + 2) as usize;
        let bad = |what: String| Err(format!("queue {queue}: {what}"));
        if p.u16(at) != self.pf.vsi || p.u16(at + 24) != self.pf.vsi || p.u16(at + 26) as usize != queue {
            return bad("VSI or queue of the two halves do not agree".into());
        }
        if queue >= self.pf.queues {
            return bad(format!("the VF has {}", self.pf.queues));
        }
        let ice = self.options.part.is_ice();
        let (tx_len, rx_len) = (p.u16(at + 4) as u32, p.u32(at + 28));
        for (kind, len, granule) in [("tx", tx_len, if ice { 32 } else { 8 }), ("rx", rx_len, 32)] {
            let least = if ice && len > 0 { RING_MIN_ICE } else { 0 };
            if !len.is_multiple_of(granule) || !(least..=RING_MAX).contains(&len) {
                return bad(format!("a {kind} ring of {len} descriptors"));
            }
        }
        let (tx_base, rx_base) = (p.u64(at + 8), p.u64(at + 48));
        for (len, base) in [(tx_len, tx_base), (rx_len, rx_base)] {
            if len > 0 && !base.is_multiple_of(UNIT as u64) {
                return bad(format!("a ring at {base:#x}, not a multiple of {UNIT} bytes"));
            }
        }
        if p.u16(at + 6) != 0 || p.u64(at + 16) != 0 {
            return bad("head write-back, which the model does not do".into());
        }
        if p.u16(at + 34) != 0 {
            return bad("header split, which the model does not do".into());
        }
        let (buffer, max_packet) = (p.u32(at + 36), p.u32(at + 40));
        let least = if ice && buffer > 0 { BUFFER_MIN_ICE } else { 0 };
        if !(least..=BUFFER_MAX).contains(&buffer) || (rx_len > 0 && buffer < UNIT) {
            return bad(format!("receive buffers of {buffer} bytes"));
        }
        if !(64..=if ice { FRAME_MAX as u32 } else { 16383 }).contains(&max_packet) {
            return bad(format!("a maximum packet of {max_packet} bytes"));
        }
        let keep_crc = ice && p.u8(at + 44) != 0;
        if keep_crc && (!self.pf.has(CAP_CRC) || self.filters.strip_inner) {
            return bad("CRC strip off without the capability, or with VLAN strip".into());
        }
        let asked = p.u8(at + 45);
        let mut rxdid = regs::RXDID_LEGACY;
        if self.pf.has(CAP_FLEX_DESC) && rx_len > 0 {
            if asked > 63 || self.options.rxdids >> asked & 1 == 0 {
                return bad(format!("RXDID {asked}, which was not offered"));
            }
            rxdid = asked;
        }
        Ok(Pair { queue, tx_len, tx_base, rx_len, rx_base, buffer, max_packet, keep_crc, rxdid })
    }

    fn configure_pair(&mut self, pair: &Pair, env: &mut Env) -> Result<(), String> {
        let (queue, ice) = (pair.queue, self.options.part.is_ice());
        if self.rx[queue].ring.enabled || (self.tx[queue].ring.enabled && !ice) {
            return Err(format!("queue {queue} is configured while it is enabled"));
        }
        let rx = &mut self.rx[queue];
        let units = if ice { pair.buffer.div_ceil(UNIT) } else { pair.buffer / UNIT };
        rx.ring.context = Some(Context {
            base: pair.rx_base,
            entries: pair.rx_len,
            stride: 32,
            granule: if ice { 8 } else { 1 },
            buffer_len: (units * UNIT) as usize,
        });
        (rx.max_packet, rx.keep_crc, rx.rxdid) = (pair.max_packet as usize, pair.keep_crc, pair.rxdid);
        let ring = &mut self.tx[queue].ring;
        ring.stop(env);
        ring.context =
            Some(Context { base: pair.tx_base, entries: pair.tx_len, stride: 16, granule: 1, buffer_len: 0 });
        // What the last user rang is not for this ring.
        self.cells.tail(true, queue).store(0, Ordering::Relaxed);
        if ice && pair.tx_len > 0 { ring.enable(0, env) } else { Ok(()) }
    }

    pub(super) fn map_vectors(&mut self, p: Payload<'_>) -> Answer {
        let (ice, vectors) = (self.options.part.is_ice(), self.options.part.vectors());
        let count = p.u16(0) as usize;
        if ice && count > vectors {
            return wrong(format!("{count} vectors mapped, the VF has {vectors}"));
        }
        for at in (0..count).map(|i| 2 + 12 * i) {
            let (vector, maps) = (p.u16(at + 2) as usize, [p.u16(at + 4), p.u16(at + 6)]);
            let (used, itr) = (maps[0] | maps[1], [p.u16(at + 8), p.u16(at + 10)]);
            if p.u16(at) != self.pf.vsi || vector >= vectors || itr.iter().any(|i| *i > 3) {
                return wrong(format!("VSI {}, vector {vector}, ITR {itr:?} in a vector map", p.u16(at)));
            }
            if used as u32 >> self.pf.queues != 0 {
                return wrong(format!("vector {vector} mapped to queues {used:#x}, the VF has {}", self.pf.queues));
            }
            if ice && vector == 0 && used != 0 {
                return wrong("queues mapped to vector 0".into());
            }
            for queue in 0..QUEUES_MAX {
                if maps[0] >> queue & 1 != 0 {
                    self.rx[queue].vector = Some(vector);
                }
                if maps[1] >> queue & 1 != 0 {
                    self.tx[queue].vector = Some(vector);
                }
            }
        }
        Answer::done()
    }

    pub(super) fn map_queue_vectors(&mut self, p: Payload<'_>) -> Answer {
        for at in (0..p.u16(2) as usize).map(|i| 8 + 16 * i) {
            let (queue, vector) = (p.u16(at) as usize, p.u16(at + 2) as usize);
            let (itr, kind) = (p.u32(at + 8), p.u32(at + 12));
            if queue >= self.pf.queues || vector == 0 || vector >= self.options.part.vectors() || itr > 3 || kind > 1 {
                return wrong(format!("queue {queue} of type {kind} mapped to vector {vector}, ITR {itr}"));
            }
            let slot = if kind == 1 { &mut self.rx[queue].vector } else { &mut self.tx[queue].vector };
            *slot = Some(vector);
        }
        Answer::done()
    }

    pub(super) fn switch_queues(&mut self, on: bool, p: Payload<'_>, env: &mut Env) -> Answer {
        let (rx, tx) = (p.u32(4), p.u32(8));
        if rx | tx == 0 || (rx | tx) >> self.pf.queues != 0 {
            return wrong(format!("queues {rx:#x} and {tx:#x}, the VF has {}", self.pf.queues));
        }
        for queue in 0..self.pf.queues {
            for (map, of_tx) in [(tx, true), (rx, false)] {
                if map >> queue & 1 != 0
                    && let Err(what) = self.switch_queue(on, of_tx, queue, env)
                {
                    return wrong(what);
                }
            }
        }
        Answer::done()
    }

    pub(super) fn switch_queues_v2(&mut self, on: bool, p: Payload<'_>, env: &mut Env) -> Answer {
        for at in (0..p.u16(4) as usize).map(|i| 8 + 8 * i) {
            let (kind, first, count) = (p.u32(at), p.u16(at + 4) as usize, p.u16(at + 6) as usize);
            if kind > 1 || count == 0 || first + count > self.pf.queues {
                return wrong(format!("{count} queues of type {kind} from {first}, the VF has {}", self.pf.queues));
            }
            for queue in first..first + count {
                if let Err(what) = self.switch_queue(on, kind == 0, queue, env) {
                    return wrong(what);
                }
            }
        }
        Answer::done()
    }

    fn switch_queue(&mut self, on: bool, tx: bool, queue: usize, env: &mut Env) -> Result<(), String> {
        let ice = self.options.part.is_ice();
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        let kind = ring.kind;
        if !on {
            ring.stop(env);
            if tx {
                self.cells.tail(true, queue).store(0, Ordering::Relaxed);
                if ice {
                    ring.context = None; // CONFIG_VSI_QUEUES starts it again, not ENABLE_QUEUES
                }
            }
            return Ok(());
        }
        let Some(context) = ring.context else {
            return Err(format!("{kind} queue {queue} enabled without CONFIG_VSI_QUEUES"));
        };
        // A side that was configured with a length of 0 is left out.
        if ring.enabled || context.entries == 0 {
            return Ok(());
        }
        let cell = self.cells.tail(tx, queue);
        // Acquire: the driver filled the ring before it wrote the tail.
        let tail = cell.load(Ordering::Acquire);
        if let Err(what) = ring.enable(tail, env) {
            self.broken(tx, queue, &what, env);
        }
        if !tx && self.rx[queue].vector.is_none() {
            self.violate(
                env,
                &format!("rx queue {queue} enabled without a vector (CONFIG_IRQ_MAP): write-backs may wait"),
            );
        }
        Ok(())
    }
}
