//! A VF with advanced descriptors and a mailbox, as seen from BAR0, with the PF behind it: what igb and ixgbe share.
//!
//! Owns the register file and ties the parts together: `mailbox` (the channel), `ring`, `rx` and `tx` (the engines) and
//! `irq`. What is a family's own (where registers are, bits, policy of its PF, statistics, RSS) it gets from a
//! [`Family`]. Called by the world under its lock: for every register access, and in steps. Doorbells are cells that
//! drivers' threads store to; they are sampled before anything else is looked at, so a register access sees them in
//! program order.

mod access;
mod family;
mod irq;
mod mailbox;
mod ring;
mod rx;
mod tx;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::bench::Lent;
use super::env::Env;
use super::fault::{Fault, Faults};
use super::frame;
use super::model::{Arrival, Cells, Emit, Model, Prepared};
use super::trace::Trace;
use crate::addr::MacAddr;
use crate::error::Result;
use crate::mmio::PciId;

pub(super) use family::{
    Checked, DCTL_ENABLE, DCTL_SWFLSH, Family, Look, PfSide, QUEUES_MAX, QueueRegister, Register, Rules, VECTORS,
};
pub(super) use rx::{Verdict, classify};

/// How long a PF reset takes when a fault starts it.
const PF_RESET_TIME: Duration = Duration::from_millis(20);

/// The registers that queue threads write without the lock.
struct Doorbells {
    /// The register at an offset.
    decode: fn(u32, usize) -> Option<Register>,
    queues: usize,
    rdt: [CachePadded<AtomicU32>; QUEUES_MAX],
    tdt: [CachePadded<AtomicU32>; QUEUES_MAX],
    /// Bits to unmask; the model takes them by swapping 0 in. One for each vector, so that two threads which unmask
    /// theirs at a time do not overwrite each other's, as they cannot on hardware.
    eims: [CachePadded<AtomicU32>; VECTORS],
    /// Doorbells of EIMS that were given out.
    unmaskers: AtomicUsize,
}

impl Doorbells {
    fn new<F: Family>(queues: usize) -> Arc<Doorbells> {
        let (decode, unmaskers) = (F::decode, AtomicUsize::new(0));
        let (rdt, tdt, eims) = Default::default();
        Arc::new(Doorbells { decode, queues, rdt, tdt, eims, unmaskers })
    }
}

impl Cells for Doorbells {
    fn of(&self, offset: u32) -> Option<&AtomicU32> {
        match (self.decode)(offset, self.queues)? {
            Register::Eims => Some(&self.eims[self.unmaskers.fetch_add(1, Ordering::Relaxed) % VECTORS]),
            Register::Queue { tx: false, queue, register: QueueRegister::Tail } => Some(&self.rdt[queue]),
            Register::Queue { tx: true, queue, register: QueueRegister::Tail } => Some(&self.tdt[queue]),
            _ => None,
        }
    }

    fn tail(&self, tx: bool, queue: usize) -> &AtomicU32 {
        if tx { &self.tdt[queue] } else { &self.rdt[queue] }
    }
}

/// One VF.
pub(super) struct AdvVf<F: Family> {
    /// The device's spec, for messages.
    name: String,
    family: F,
    cells: Arc<Doorbells>,
    trace: Trace,
    faults: Faults,
    mailbox: mailbox::Mailbox,
    pf: F::Pf,
    irq: irq::Irq,
    rx: Vec<rx::RxQueue>,
    tx: Vec<tx::TxQueue>,
    /// Register reads so far: each one makes sure that earlier writes have arrived.
    reads: u64,
    bus_master: bool,
    /// BAR reads return 0 until Bus Master is set again.
    unmapped: bool,
    /// The driver completed the reset handshake since it last reset the function.
    handshake: bool,
    /// When the PF is back from a reset that a fault started.
    pf_back: Option<Duration>,
    link: bool,
    flap_at: Option<Duration>,
    /// Peers are VFs of the same PF: frames carry LB.
    pub(super) loopback: bool,
    /// A frame whose tag was stripped.
    stripped: Vec<u8>,
}

impl<F: Family> AdvVf<F> {
    pub(super) fn new(port: usize, name: String, family: F, env: &mut Env) -> Self {
        let queues = family.queues();
        AdvVf {
            name,
            cells: Doorbells::new::<F>(queues),
            trace: Trace::default(),
            faults: Faults::default(),
            mailbox: mailbox::Mailbox::new(),
            pf: family.pf(),
            irq: irq::Irq::new(),
            rx: (0..queues).map(|q| rx::RxQueue::new(F::RULES, port, q)).collect(),
            tx: (0..queues).map(|q| tx::TxQueue::new(F::RULES, port, q, env.rng.next())).collect(),
            reads: 0,
            bus_master: false,
            unmapped: false,
            handshake: false,
            pf_back: None,
            link: true,
            flap_at: None,
            loopback: false,
            stripped: Vec::new(),
            family,
        }
    }

    fn check(&self, env: &mut Env, result: std::result::Result<(), impl AsRef<str>>) {
        if let Err(what) = result {
            self.violate(env, what.as_ref());
        }
    }

    /// Tails to 0, in the cells too: what a queue's thread rings next must differ from what was seen last.
    fn zero_tails(&mut self) {
        for queue in 0..self.rx.len() {
            self.cells.rdt[queue].store(0, Ordering::Relaxed);
            self.cells.tdt[queue].store(0, Ordering::Relaxed);
            (self.rx[queue].ring.tail, self.tx[queue].ring.tail) = (0, 0);
        }
    }

    /// CTRL.RST: queues stop and what the PF granted is lost; ring registers stay (igbvf 6, 7.1), or everything else of a
    /// queue (ixgbevf 2.4).
    fn software_reset(&mut self, env: &mut Env) {
        for queue in 0..self.rx.len() {
            if F::RULES.reset_keeps_queues {
                self.rx[queue].ring.lose_ring(env);
                self.tx[queue].lose_ring(env);
            } else {
                self.rx[queue].ring.stop(env, false);
                self.tx[queue].stop(env, false);
            }
        }
        if !F::RULES.reset_keeps_queues {
            self.zero_tails();
        }
        self.handshake = false;
        self.mailbox.vf_reset(&self.pf, env.now, &self.faults);
        self.pf.forget(env.now);
    }

    /// Registers to their defaults.
    fn registers_lost(&mut self, env: &mut Env, lost: bool) {
        for queue in 0..self.rx.len() {
            self.rx[queue].reset(env, lost);
            self.tx[queue].reset(env, lost);
        }
        self.zero_tails();
        self.irq.reset();
        self.family.reset(true);
    }

    fn ping(&mut self, env: &Env) {
        self.mailbox.post(vec![self.pf.ping()], env.now);
    }

    /// The driver broke a rule where hardware would act: with MDD the VF is stopped (igbvf 6, ixgbevf 6), else the queue.
    fn broken(&mut self, what: &str, env: &mut Env) {
        self.violate(env, what);
        if self.family.detects_malice() {
            for queue in 0..self.rx.len() {
                self.rx[queue].ring.stop(env, true);
                self.tx[queue].stop(env, true);
            }
            let message = self.pf.punish(env.now);
            self.mailbox.post(vec![message], env.now);
        }
    }

    fn gone(&self) -> bool {
        self.faults.gone()
    }

    fn rings(&self) -> impl Iterator<Item = &ring::Ring> {
        self.rx.iter().map(|q| &q.ring).chain(self.tx.iter().map(|q| &q.ring))
    }

    /// True while a queue could still reach device memory.
    fn running(&self) -> bool {
        self.rings().any(ring::Ring::reaches_memory)
    }

    fn halt(&mut self, tx: bool, queue: usize, what: &str, env: &mut Env) {
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        ring.halted = true;
        self.broken(what, env);
    }

    /// True when frames can pass at all.
    #[inline]
    fn alive(&self) -> bool {
        self.link && self.bus_master && !self.faults.gone() && !self.faults.has(Fault::LinkDisabled)
    }

    /// Puts a frame into a queue, past the switch.
    #[inline]
    fn put(&mut self, queue: usize, frame: &[u8], verdict: Verdict, env: &mut Env) -> bool {
        match self.rx[queue].place(frame, verdict, self.pf.longest(), env, &self.faults) {
            Ok(taken) => {
                if taken {
                    let (to, wire_len) = (frame::destination(frame), frame.len() + verdict.stripped());
                    self.family.received(wire_len, to.is_multicast() && to != MacAddr::BROADCAST, self.loopback);
                }
                taken
            }
            Err(what) => {
                self.halt(false, queue, &what, env);
                false
            }
        }
    }
}

impl<F: Family> Model for AdvVf<F> {
    fn id(&self) -> PciId {
        self.family.id()
    }

    fn bar_len(&self) -> u32 {
        F::BAR_LEN
    }

    fn vectors(&self) -> usize {
        VECTORS
    }

    fn queues(&self) -> usize {
        self.rx.len()
    }

    /// The station address that the PF filters by.
    fn mac(&self) -> MacAddr {
        self.pf.mac()
    }

    fn read(&mut self, offset: u32, env: &mut Env) -> u32 {
        self.read_bar(offset, env)
    }

    fn write(&mut self, offset: u32, value: u32, env: &mut Env) {
        self.write_bar(offset, value, env);
    }

    fn cells(&self) -> Arc<dyn Cells> {
        self.cells.clone()
    }

    fn connect_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        self.irq.connect(&self.name, eventfds)
    }

    /// Function-level reset by the driver. Bus Master is off afterwards; TDWBAL keeps its value (igbvf 2.3), and much
    /// else may (ixgbevf 2.4).
    fn function_reset(&mut self, env: &mut Env) {
        self.sample(env);
        if F::RULES.reset_keeps_queues {
            self.irq.reset();
            self.family.reset(false);
        } else {
            self.registers_lost(env, false);
        }
        self.software_reset(env);
        self.bus_master = false;
        self.unmapped = false;
    }

    fn bus_master(&self) -> bool {
        self.bus_master
    }

    fn set_bus_master(&mut self, on: bool) {
        self.bus_master = on;
        self.unmapped &= !on;
    }

    /// The driver closed the device: as a reset by the kernel.
    fn close(&mut self, env: &mut Env) {
        self.sample(env);
        if self.running() && !self.gone() {
            self.violate(env, "closed while queues are enabled: reset the VF first");
        }
        self.function_reset(env);
        // The next driver gets cells of its own, as a closed device's mapping is of no use to anybody: a queue of this one
        // that is in the middle of a burst must not ring there.
        self.cells = Doorbells::new::<F>(self.rx.len());
        for (queue, (rx, tx)) in self.rx.iter().zip(&self.tx).enumerate() {
            self.cells.rdt[queue].store(rx.ring.tail, Ordering::Relaxed);
            self.cells.tdt[queue].store(tx.ring.tail, Ordering::Relaxed);
        }
    }

    /// True while an enabled queue has its ring in these IOVAs.
    fn has_ring_within(&self, start: u64, end: u64) -> bool {
        self.rings().filter(|ring| ring.enabled).any(|ring| (start..end).contains(&ring.descriptor(0)))
    }

    /// Everything but frames: doorbells, mailbox, timers, late write-backs. True when anything happened.
    fn step(&mut self, env: &mut Env) -> bool {
        self.sample(env);
        if self.pf_back.is_some_and(|at| at <= env.now) {
            self.pf_back = None;
            self.pf_reset_done(env);
        }
        if let (Some(at), Some(period)) = (self.flap_at, self.faults.flap_period())
            && at <= env.now
        {
            self.set_link(!self.link, env);
            self.flap_at = Some(env.now + period);
        }
        let granted = self.pf.clear_to_send();
        let step = self.mailbox.step(env.now, &mut env.rng, &mut self.pf, &self.faults);
        if self.pf.clear_to_send() && !granted {
            self.handshake = true;
            if self.family.pf_clears_write_back() {
                self.tx.iter_mut().for_each(|tx| (tx.tdwbal, tx.tdwbah) = (0, 0));
            }
        }
        if step.interrupt {
            self.irq.misc_event();
        }
        let mut busy = step.busy;
        for queue in 0..self.rx.len() {
            for tx in [false, true] {
                let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
                match ring.flush(env) {
                    Ok(0) => {}
                    Ok(_) => {
                        busy = true;
                        self.irq.queue_event(queue, tx);
                    }
                    Err(what) => self.halt(tx, queue, &what, env),
                }
            }
        }
        busy
    }

    /// Sends up to `limit` frames of a transmit queue; how many went.
    fn transmit(&mut self, queue: usize, limit: usize, need_bytes: bool, env: &mut Env, emit: &mut Emit<'_>) -> usize {
        if !self.alive() || !self.pf.transmits() {
            return 0;
        }
        let port_vlan = self.pf.port_vlan();
        let (mut sent, mut reported) = (0, false);
        while sent < limit {
            let (family, loopback, tagged) = (&mut self.family, self.loopback, &mut self.stripped);
            let result = self.tx[queue].send_one(need_bytes, env, &self.faults, |env, bytes, len| {
                family.sent(len, loopback);
                match port_vlan {
                    Some(vid) if !bytes.is_empty() => {
                        tagged.clear();
                        frame::insert_tag(bytes, vid, tagged);
                        emit(env, tagged, tagged.len());
                    }
                    Some(_) => emit(env, bytes, len + 4),
                    None => emit(env, bytes, len),
                }
            });
            match result {
                Ok(Some(report)) => {
                    sent += 1;
                    reported |= report;
                }
                Ok(None) => break,
                Err(what) => {
                    self.halt(true, queue, &what, env);
                    break;
                }
            }
        }
        if reported {
            self.irq.queue_event(queue, true);
        }
        sent
    }

    /// A frame arrives for the VF.
    fn receive(&mut self, frame: &[u8], env: &mut Env) -> Arrival {
        if frame.len() < frame::ETHERNET || !self.alive() || !self.pf.receives() {
            return Arrival::Dropped;
        }
        if !self.pf.accepts(frame) {
            return Arrival::Filtered;
        }
        let (queue, mut verdict) = self.family.route(frame);
        let rxdctl = self.rx[queue].ring.dctl;
        let tag = frame::vlan_tag(frame);
        // A tag that the VF does not know of is gone without a trace.
        let hidden = tag.is_some() && self.pf.port_vlan().is_some();
        let strip = tag.is_some() && (hidden || self.family.strips(&self.pf, rxdctl));
        if !self.family.takes_length(rxdctl, frame.len() - if tag.is_some() { 4 } else { 0 }) {
            return Arrival::Dropped;
        }
        if let Some(tci) = tag.filter(|_| !hidden && (strip || F::RULES.reports_kept_tags)) {
            verdict = verdict.with_tag(self.family.tag(tci, self.loopback), strip);
        }
        if self.loopback {
            verdict = verdict.marked_loopback();
        }
        let mut stripped = std::mem::take(&mut self.stripped);
        let bytes = if strip {
            stripped.clear();
            stripped.extend_from_slice(&frame[..12]);
            stripped.extend_from_slice(&frame[16..]);
            &stripped
        } else {
            frame
        };
        if !self.has_room(queue, bytes.len()) {
            self.sample(env); // the doorbell may have been rung since this round began
        }
        let taken = self.put(queue, bytes, verdict, env);
        if taken {
            self.irq.queue_event(queue, false);
        }
        self.stripped = stripped;
        if taken { Arrival::Taken } else { Arrival::Dropped }
    }

    /// True when a frame like this would reach the VF now.
    fn accepts(&self, frame: &[u8]) -> bool {
        self.alive() && self.pf.receives() && self.pf.accepts(frame)
    }

    /// True while frames can reach the VF, and each receive queue that runs could take one of `len` bytes now.
    #[cfg(feature = "pcap")]
    fn takes(&self, len: usize) -> bool {
        let mut running = (0..self.rx.len()).filter(|&queue| self.rx[queue].ring.enabled).peekable();
        self.alive() && self.pf.receives() && running.peek().is_some() && running.all(|queue| self.has_room(queue, len))
    }

    fn prepare(&self, frame: &[u8]) -> Prepared {
        let (queue, verdict) = self.family.route(frame);
        Prepared { queue, words: verdict.words() }
    }

    /// RSS is programmed by registers and by mail, which goes through registers too.
    fn generation(&self) -> u64 {
        self.faults.accesses()
    }

    /// True while other receive queues are enabled and this one is not.
    fn left_out(&self, queue: usize) -> bool {
        !self.rx[queue].ring.enabled && self.rx.iter().any(|q| q.ring.enabled)
    }

    /// True when a receive queue could take a frame of `len` bytes now.
    #[inline]
    fn has_room(&self, queue: usize, len: usize) -> bool {
        let ring = &self.rx[queue].ring;
        let available = ring.available() as usize;
        available > 0 && len <= available * ring.buffer_len
    }

    #[inline]
    fn place(&mut self, frame: &[u8], prepared: &Prepared, env: &mut Env) -> bool {
        self.put(prepared.queue, frame, Verdict::from_words(prepared.words), env)
    }

    fn lend(&mut self, queue: usize, frame: &[u8]) -> Option<Lent> {
        let (_, verdict) = self.family.route(frame);
        let [word0, word1] = verdict.last(frame.len(), 0);
        let rx = self.rx.get_mut(queue)?.ring.lend()?;
        let tx = self.tx.get_mut(queue)?.ring.lend()?;
        Some(Lent { rx, tx, received: [word0, word1, 0, 0], report: tx::RS.into(), done: tx::REPORT })
    }

    /// Signals a batch of placed frames.
    fn received(&mut self, queue: usize) {
        self.irq.queue_event(queue, false);
    }

    /// Link up or down; the PF pings its VFs (igbvf 5.3, ixgbevf 6).
    fn set_link(&mut self, up: bool, env: &mut Env) {
        if self.link != up {
            self.link = up;
            self.ping(env);
        }
    }

    fn set_loopback(&mut self, loopback: bool) {
        self.loopback = loopback;
    }

    /// The PF goes into reset: RSTI, and everything in the VF is lost.
    fn pf_reset(&mut self, env: &mut Env) {
        self.registers_lost(env, true);
        self.pf.forget(env.now);
        self.mailbox.pf_reset();
    }

    /// The PF is back: RSTD, and a ping without CTS.
    fn pf_reset_done(&mut self, env: &mut Env) {
        self.mailbox.pf_reset_done();
        self.ping(env);
        self.irq.misc_event();
    }

    fn set_fault(&mut self, fault: Fault, env: &mut Env) {
        self.faults.set(fault);
        match fault {
            Fault::ConfigLost => {
                self.registers_lost(env, true);
                self.mailbox.vf_reset(&self.pf, env.now, &self.faults);
                self.pf.forget(env.now);
                self.bus_master = false;
                self.unmapped = true;
            }
            Fault::PfResetFor(time) => {
                self.pf_reset(env);
                self.pf_back = Some(env.now + time);
            }
            Fault::LinkFlaps(period) => self.flap_at = Some(env.now + period),
            Fault::LinkDisabled => {
                // Any change by the administrator takes the VF's clear-to-send (ixgbevf 6).
                self.pf.forget(env.now);
                self.ping(env);
            }
            _ => {}
        }
    }

    fn clear_faults(&mut self) {
        self.faults.clear();
        self.flap_at = None;
    }

    fn accesses(&self) -> u64 {
        self.faults.accesses()
    }

    fn preset_counters(&mut self, value: u32) {
        self.family.preset_counters(value);
    }

    fn violate(&self, env: &mut Env, what: &str) {
        env.violation(&self.name, what, &self.trace.print(F::register_name));
    }
}
