//! The igb VF: an 82576 VF or an I350 VF as seen from BAR0, with the PF behind it.
//!
//! Owns the register file and ties the parts together: `mailbox` and `pf` (the channel and the policy), `ring`, `rx`
//! and `tx` (the engines), `irq` and `stats`. Called by the world under its lock: for every register access, and
//! in steps. Doorbells are cells that drivers' threads store to; they are sampled before anything else is looked at,
//! so a register access sees them in program order.

mod access;
mod irq;
mod mailbox;
mod pf;
mod regs;
mod ring;
mod rx;
mod stats;
mod tx;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::env::Env;
use super::fault::{Fault, Faults};
use super::frame;
use super::model::{Arrival, Cells, Emit, Model, Prepared};
use super::trace::Trace;
use crate::addr::MacAddr;
use crate::error::Result;
use crate::mmio::PciId;
use rx::Verdict;

/// How long a PF reset takes when a fault starts it.
const PF_RESET_TIME: Duration = Duration::from_millis(20);
/// Most queues of a VF.
const QUEUES_MAX: usize = 2;

/// Which VF is modelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// 82576 VF, 8086:10ca: two receive and two transmit queues.
    I82576,
    /// I350 VF, 8086:1520: one of each; the PF detects malicious drivers.
    I350,
}

impl Part {
    fn queues(self) -> usize {
        match self {
            Part::I82576 => 2,
            Part::I350 => 1,
        }
    }

    fn id(self) -> PciId {
        PciId { vendor: 0x8086, device: if self == Part::I82576 { 0x10ca } else { 0x1520 } }
    }
}

/// What a modelled igb VF is like, and what its PF does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IgbOptions {
    /// The part.
    pub part: Part,
    /// The station address that the PF assigns; `None`: it assigns none and answers the reset request 0x4000_0001.
    pub mac: Option<MacAddr>,
    /// The host set the address administratively: the PF refuses another one.
    pub mac_fixed: bool,
    /// The PF spreads received frames over the queues by RSS and reports the hash. A stock PF does not.
    pub rss: bool,
}

impl Default for IgbOptions {
    fn default() -> Self {
        IgbOptions { part: Part::I82576, mac: Some(MacAddr([0x02, 0x56, 0x46, 0, 0, 1])), mac_fixed: false, rss: false }
    }
}

/// The registers that queue threads write without the lock.
#[derive(Default)]
struct Doorbells {
    queues: usize,
    rdt: [CachePadded<AtomicU32>; QUEUES_MAX],
    tdt: [CachePadded<AtomicU32>; QUEUES_MAX],
    /// Bits to unmask; the model takes them by swapping 0 in. One for each vector, so that two threads which unmask
    /// theirs at a time do not overwrite each other's, as they cannot on hardware.
    eims: [CachePadded<AtomicU32>; regs::VECTORS],
    /// Doorbells of EIMS that were given out.
    unmaskers: AtomicUsize,
}

impl Doorbells {
    fn new(queues: usize) -> Arc<Doorbells> {
        Arc::new(Doorbells { queues, ..Doorbells::default() })
    }
}

impl Cells for Doorbells {
    fn of(&self, offset: u32) -> Option<&AtomicU32> {
        match queue_register(offset, self.queues) {
            _ if offset == regs::EIMS => {
                Some(&self.eims[self.unmaskers.fetch_add(1, Ordering::Relaxed) % regs::VECTORS])
            }
            Some((false, queue, regs::TAIL)) => Some(&self.rdt[queue]),
            Some((true, queue, regs::TAIL)) => Some(&self.tdt[queue]),
            _ => None,
        }
    }
}

/// Takes a queue register apart: transmit, queue number, offset from the queue's first register.
fn queue_register(offset: u32, queues: usize) -> Option<(bool, usize, u32)> {
    for (base, tx) in [(regs::RX_BASE, false), (regs::TX_BASE, true)] {
        let relative = offset.wrapping_sub(base);
        if relative < queues as u32 * regs::QUEUE_STRIDE {
            return Some((tx, (relative / regs::QUEUE_STRIDE) as usize, relative % regs::QUEUE_STRIDE));
        }
    }
    None
}

/// One igb VF.
pub(super) struct IgbVf {
    /// The device's spec, for messages.
    pub(super) name: String,
    options: IgbOptions,
    cells: Arc<Doorbells>,
    trace: Trace,
    faults: Faults,
    mailbox: mailbox::Mailbox,
    pf: pf::Pf,
    irq: irq::Irq,
    stats: stats::Stats,
    rx: Vec<rx::RxQueue>,
    tx: Vec<tx::TxQueue>,
    pbacl: u32,
    psrtype: u32,
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

impl IgbVf {
    pub(super) fn new(port: usize, name: String, options: IgbOptions, env: &mut Env) -> Self {
        let queues = options.part.queues();
        IgbVf {
            name,
            cells: Doorbells::new(queues),
            trace: Trace::default(),
            faults: Faults::default(),
            mailbox: mailbox::Mailbox::new(),
            pf: pf::Pf::new(options.mac, options.mac_fixed),
            irq: irq::Irq::new(),
            stats: stats::Stats::default(),
            rx: (0..queues).map(|q| rx::RxQueue::new(port, q)).collect(),
            tx: (0..queues).map(|q| tx::TxQueue::new(port, q, env.rng.next())).collect(),
            pbacl: 0,
            psrtype: 0,
            bus_master: false,
            unmapped: false,
            handshake: false,
            pf_back: None,
            link: true,
            flap_at: None,
            loopback: false,
            stripped: Vec::new(),
            options,
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

    /// CTRL.RST: queues stop, what the PF granted is lost, ring registers stay (igbvf 6, 7.1).
    fn software_reset(&mut self, env: &mut Env) {
        for queue in 0..self.rx.len() {
            self.rx[queue].ring.stop(env, false);
            self.tx[queue].stop(env, false);
        }
        self.zero_tails();
        self.handshake = false;
        self.mailbox.vf_reset();
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
        (self.pbacl, self.psrtype) = (0, 0);
    }

    fn ping(&mut self, env: &Env) {
        self.mailbox.post(vec![self.pf.ping()], env.now);
    }

    /// The driver broke a rule where hardware would act: an I350 stops the VF (MDD, igbvf 6), an 82576 the queue.
    fn broken(&mut self, what: &str, env: &mut Env) {
        self.violate(env, what);
        if self.options.part == Part::I350 {
            for queue in 0..self.rx.len() {
                self.rx[queue].ring.stop(env, true);
                self.tx[queue].stop(env, true);
            }
            self.pf.forget(env.now);
            self.ping(env);
        }
    }

    pub(super) fn gone(&self) -> bool {
        self.faults.gone()
    }

    /// True while a queue could still reach device memory.
    pub(super) fn running(&self) -> bool {
        self.rx.iter().any(|q| q.ring.enabled) || self.tx.iter().any(|q| q.ring.enabled)
    }

    fn halt(&mut self, tx: bool, queue: usize, what: &str, env: &mut Env) {
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        ring.halted = true;
        self.broken(what, env);
    }

    /// True when frames can pass at all.
    #[inline]
    fn alive(&self) -> bool {
        self.link && self.pf.enabled && self.bus_master && !self.faults.gone()
    }

    /// Puts a frame into a queue, past the switch.
    #[inline]
    fn put(&mut self, queue: usize, frame: &[u8], verdict: Verdict, env: &mut Env) -> bool {
        match self.rx[queue].place(frame, verdict, env, &self.faults) {
            Ok(taken) => {
                if taken {
                    let (to, wire_len) = (frame::destination(frame), frame.len() + verdict.stripped());
                    self.stats.received(wire_len, to.is_multicast() && to != MacAddr::BROADCAST, self.loopback);
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

impl Model for IgbVf {
    fn id(&self) -> PciId {
        self.options.part.id()
    }

    fn bar_len(&self) -> u32 {
        regs::BAR_LEN
    }

    fn vectors(&self) -> usize {
        regs::VECTORS
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

    /// Function-level reset by the driver. Bus Master is off afterwards; TDWBAL keeps its value (igbvf 2.3).
    fn function_reset(&mut self, env: &mut Env) {
        self.sample(env);
        self.registers_lost(env, false);
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
        self.cells = Doorbells::new(self.rx.len());
    }

    /// True while an enabled queue has its ring in these IOVAs.
    fn has_ring_within(&self, start: u64, end: u64) -> bool {
        let rings = self.rx.iter().map(|q| &q.ring).chain(self.tx.iter().map(|q| &q.ring));
        rings.filter(|ring| ring.enabled).any(|ring| (start..end).contains(&ring.descriptor(0)))
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
        let granted = self.pf.cts;
        let step = self.mailbox.step(env.now, &mut env.rng, &mut self.pf, &self.faults);
        self.handshake |= self.pf.cts && !granted;
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
        if !self.alive() {
            return 0;
        }
        let (mut sent, mut reported) = (0, false);
        while sent < limit {
            let (stats, loopback) = (&mut self.stats, self.loopback);
            let result = self.tx[queue].send_one(need_bytes, env, &self.faults, |env, bytes, len| {
                stats.sent(len, loopback);
                emit(env, bytes, len);
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
        if frame.len() < frame::ETHERNET || !self.alive() {
            return Arrival::Dropped;
        }
        if !self.pf.accepts(frame) {
            return Arrival::Filtered;
        }
        let tag = frame::vlan_tag(frame).filter(|_| self.pf.strip);
        let mut stripped = std::mem::take(&mut self.stripped);
        let bytes = match tag {
            Some(_) => {
                stripped.clear();
                stripped.extend_from_slice(&frame[..12]);
                stripped.extend_from_slice(&frame[16..]);
                &stripped
            }
            None => frame,
        };
        let mut verdict = rx::classify(bytes, self.options.rss);
        let queue = verdict.hash() as usize % self.rx.len();
        if let Some(tci) = tag {
            verdict = verdict.with_tag(tci, self.loopback && self.options.part == Part::I350);
        }
        if self.loopback {
            verdict = verdict.marked_loopback();
        }
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
        self.alive() && self.pf.accepts(frame)
    }

    /// True while frames can reach the VF, and each receive queue that runs could take one of `len` bytes now.
    #[cfg(feature = "pcap")]
    fn takes(&self, len: usize) -> bool {
        let mut running = (0..self.rx.len()).filter(|&queue| self.rx[queue].ring.enabled).peekable();
        self.alive() && running.peek().is_some() && running.all(|queue| self.has_room(queue, len))
    }

    fn prepare(&self, frame: &[u8]) -> Prepared {
        let verdict = rx::classify(frame, self.options.rss);
        Prepared { queue: verdict.hash() as usize % self.rx.len(), words: verdict.words() }
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

    /// Signals a batch of placed frames.
    fn received(&mut self, queue: usize) {
        self.irq.queue_event(queue, false);
    }

    /// Link up or down; the PF pings its VFs (igbvf 5.3).
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
                self.mailbox.vf_reset();
                self.pf.forget(env.now);
                self.bus_master = false;
                self.unmapped = true;
            }
            Fault::PfResetFor(time) => {
                self.pf_reset(env);
                self.pf_back = Some(env.now + time);
            }
            Fault::LinkFlaps(period) => self.flap_at = Some(env.now + period),
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
        self.stats.preset(value);
    }

    fn violate(&self, env: &mut Env, what: &str) {
        env.violation(&self.name, what, &self.trace.print(regs::name));
    }
}
