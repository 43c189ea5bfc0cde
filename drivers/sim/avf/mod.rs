//! The avf VF: an Adaptive Virtual Function as seen from BAR0, with an i40e or an ice PF behind it.
//!
//! Owns the register file and ties the parts together: `adminq` (the channel), `pf`, `queues` and `filters` (what the PF
//! answers, in the words of `virtchnl`), `ring`, `rx`, `tx` and `rss` (the engines), `irq` and `stats`. Called by the world
//! under its lock: for every register access, and in steps. The tails and DYN_CTLN are cells that drivers' threads
//! store to; they are sampled before anything else is looked at, so a register access sees them in program order.
//!
//! What a VF is after a reset is in one place: `AvfVf::lose_everything`.

mod access;
mod adminq;
mod cells;
mod filters;
mod irq;
mod options;
mod pf;
mod queues;
mod regs;
mod ring;
mod rss;
mod rx;
mod stats;
#[cfg(test)]
mod tests;
mod tx;
mod virtchnl;

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[cfg(feature = "vfio-user")]
use memmap2::MmapRaw;

use super::bench::Lent;
use super::env::Env;
use super::fault::{Fault, Faults};
use super::frame;
use super::model::{Arrival, Cells, Emit, Model, Prepared};
use super::trace::Trace;
use crate::addr::MacAddr;
use crate::error::Result;
use crate::mmio::PciId;

pub use options::{AvfOptions, AvfPart};

/// Most queue pairs of a VF that the model has.
pub(super) const QUEUES_MAX: usize = 16;
/// How long a reset of the VF takes: RSTAT 0, then 1, then 2. Drivers wait tens of seconds (iavf 6.1).
const RESET_TIME: Duration = Duration::from_millis(10);
/// How long of it RSTAT reads 1.
const COMPLETED_TIME: Duration = Duration::from_millis(2);
/// How long a PF reset takes when a fault starts it.
const PF_RESET_TIME: Duration = Duration::from_millis(20);

/// A reset of the VF that is under way.
struct Reset {
    /// When RSTAT becomes 2; `None` while the PF is away.
    over: Option<Duration>,
}

/// One Adaptive VF.
pub(super) struct AvfVf {
    /// The device's spec, for messages.
    name: String,
    options: AvfOptions,
    cells: Arc<cells::Doorbells>,
    trace: Trace,
    faults: Faults,
    adminq: adminq::AdminQ,
    irq: irq::Irq,
    pf: pf::Pf,
    filters: filters::Filters,
    rss: rss::Rss,
    stats: stats::Stats,
    rx: Vec<rx::RxQueue>,
    tx: Vec<tx::TxQueue>,
    bus_master: bool,
    link: bool,
    flap_at: Option<Duration>,
    loopback: bool,
    reset: Option<Reset>,
    /// Counts what changes the way of frames to queues.
    generation: u64,
    /// VFQF_HREGION, which has no effect here.
    regions: [u32; 8],
    /// A frame whose tags were stripped.
    stripped: Vec<u8>,
}

impl AvfVf {
    pub(super) fn new(port: usize, name: String, options: AvfOptions, env: &mut Env) -> Self {
        let queues = options.queues.clamp(1, QUEUES_MAX);
        let mac = options.mac.unwrap_or(MacAddr::ZERO);
        let mut vf = AvfVf {
            name,
            cells: Arc::new(cells::Doorbells::new()),
            trace: Trace::default(),
            faults: Faults::default(),
            adminq: adminq::AdminQ::default(),
            irq: irq::Irq::new(options.part.vectors()),
            pf: pf::Pf::new(queues),
            filters: filters::Filters::new(mac),
            rss: rss::Rss::new(0, None, &mut env.rng),
            stats: stats::Stats::default(),
            rx: (0..QUEUES_MAX).map(|q| rx::RxQueue::new(port, q)).collect(),
            tx: (0..QUEUES_MAX).map(|q| tx::TxQueue::new(port, q)).collect(),
            bus_master: false,
            link: true,
            flap_at: None,
            loopback: false,
            reset: None,
            generation: 0,
            regions: [0; 8],
            stripped: Vec::new(),
            options,
        };
        vf.lose_everything(env);
        vf
    }

    /// What any reset of the VF leaves (iavf 2.2, 6.3, 7.3): admin queues off, nothing granted, no queue, no filter.
    fn lose_everything(&mut self, env: &mut Env) {
        for queue in 0..QUEUES_MAX {
            self.rx[queue].ring.reset(env);
            self.tx[queue].ring.reset(env);
            (self.rx[queue].vector, self.tx[queue].vector) = (None, None);
        }
        self.adminq.reset();
        self.irq.reset();
        self.pf.forget(&mut env.rng);
        let ice = self.options.part.is_ice();
        let capable = rss::Rss::capable(self.options.part != AvfPart::Xl710, !ice);
        self.rss = rss::Rss::new(capable, ice.then_some(self.pf.queues), &mut env.rng);
        self.filters = filters::Filters::new(self.options.mac.unwrap_or(MacAddr::ZERO));
        self.stats = stats::Stats::default();
        self.generation += 1;
    }

    /// The VF goes into reset and is back after `time`; `None`: when the PF says so.
    fn begin_reset(&mut self, time: Option<Duration>, env: &mut Env) {
        self.lose_everything(env);
        self.reset = Some(Reset { over: time.map(|time| env.now + time) });
    }

    /// VFGEN_RSTAT, which may be unreadable during a reset.
    fn reset_state(&self, env: &mut Env) -> u32 {
        match &self.reset {
            _ if self.faults.has(Fault::RstiStuck) => 0,
            None => regs::RSTAT_ACTIVE,
            Some(Reset { over: Some(over) }) if *over <= env.now + COMPLETED_TIME => regs::RSTAT_COMPLETED,
            Some(_) if env.rng.below(4) == 0 => regs::UNREADABLE,
            Some(_) => 0,
        }
    }

    fn check(&self, env: &mut Env, result: std::result::Result<(), String>) {
        if let Err(what) = result {
            self.violate(env, &what);
        }
    }

    /// The driver broke a rule where hardware would act: the queue stops, and an i40e PF no longer talks to the VF
    /// (iavf 6.5).
    fn broken(&mut self, tx: bool, queue: usize, what: &str, env: &mut Env) {
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        ring.halted = true;
        if tx {
            self.stats.refused();
        }
        if !self.options.part.is_ice() {
            self.pf.disabled = true;
        }
        self.violate(env, what);
    }

    /// True when frames can pass at all.
    #[inline]
    fn alive(&self) -> bool {
        self.link && self.reset.is_none() && self.bus_master && !self.faults.gone()
    }

    /// True when either direction of a queue is enabled.
    #[inline]
    fn runs(&self, queue: usize) -> bool {
        self.rx[queue].ring.enabled || self.tx[queue].ring.enabled
    }

    /// True when completed descriptors of a queue stay in the device until there are several.
    #[inline]
    fn holds(&self, vector: Option<usize>) -> bool {
        self.options.batched && !vector.is_some_and(|v| self.irq.writes_back(v))
    }

    /// Reports an event of a queue to its vector.
    #[inline]
    fn queue_event(&mut self, vector: Option<usize>) {
        match vector {
            Some(0) => self.irq.queue_event_on_0(),
            Some(vector) => self.irq.event(vector),
            None => {}
        }
    }

    /// The queue and verdict of a frame whose tags were stripped.
    fn classify(&self, bytes: &[u8]) -> (usize, rx::Verdict) {
        let (layout, mut verdict) = rx::classify(bytes);
        let mut queue = 0;
        if self.pf.spreads() {
            (queue, verdict.hash) = self.rss.queue(bytes, &layout);
        }
        verdict.loopback = self.loopback;
        (queue, verdict)
    }

    fn put(&mut self, queue: usize, bytes: &[u8], verdict: &rx::Verdict, env: &mut Env) -> bool {
        let hold = self.holds(self.rx.get(queue).and_then(|q| q.vector));
        let wire_len = bytes.len() + verdict.stripped();
        let result = match self.rx.get_mut(queue) {
            Some(rx) if wire_len + frame::FCS <= rx.max_packet => rx.place(bytes, verdict, hold, env, &self.faults),
            _ => Ok(false),
        };
        match result {
            Ok(taken) => {
                self.stats.received(frame::destination(bytes), wire_len, taken);
                taken
            }
            Err(what) => {
                self.broken(false, queue, &what, env);
                false
            }
        }
    }

    /// Late write-backs of all rings, and those that were held until their vector asks. True when there were any.
    fn write_back(&mut self, env: &mut Env) -> bool {
        let mut busy = false;
        for queue in 0..QUEUES_MAX {
            if !self.runs(queue) {
                continue; // a queue that stops forgets what it owes
            }
            for tx in [false, true] {
                let vector = if tx { self.tx[queue].vector } else { self.rx[queue].vector };
                let hold = self.holds(vector);
                let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
                let released = if ring.holds() && !hold { ring.release(env).map(|()| 1) } else { Ok(0) };
                match released.and_then(|n| ring.flush(env).map(|m| n + m)) {
                    Ok(0) => {}
                    Ok(_) => {
                        busy = true;
                        self.queue_event(vector);
                    }
                    Err(what) => self.broken(tx, queue, &what, env),
                }
            }
        }
        busy
    }
}

impl Model for AvfVf {
    fn id(&self) -> PciId {
        self.options.part.id()
    }

    fn bar_len(&self) -> u32 {
        if self.options.part.is_ice() { regs::BAR_LEN_800 } else { regs::BAR_LEN_700 }
    }

    fn vectors(&self) -> usize {
        self.options.part.vectors()
    }

    fn queues(&self) -> usize {
        self.pf.queues
    }

    fn mac(&self) -> MacAddr {
        self.filters.mac()
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

    #[cfg(feature = "vfio-user")]
    fn share_pages(&mut self, bar: &Arc<MmapRaw>) -> &'static [u32] {
        match cells::Doorbells::within(bar) {
            Some(shared) => {
                self.cells = Arc::new(shared);
                &[0, regs::QRX_TAIL]
            }
            None => &[],
        }
    }

    fn connect_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        self.irq.connect(&self.name, eventfds)
    }

    /// Function-level reset by the driver. Bus Master is off afterwards, and every tail is 0.
    fn function_reset(&mut self, env: &mut Env) {
        self.begin_reset(Some(RESET_TIME), env);
        for queue in 0..QUEUES_MAX {
            self.cells.tail(true, queue).store(0, Ordering::Relaxed);
            self.cells.tail(false, queue).store(0, Ordering::Relaxed);
        }
        self.bus_master = false;
    }

    fn bus_master(&self) -> bool {
        self.bus_master
    }

    fn set_bus_master(&mut self, on: bool) {
        self.bus_master = on;
    }

    /// The driver closed the device: as a reset by the kernel.
    fn close(&mut self, env: &mut Env) {
        self.sample(env);
        let running = self.rx.iter().any(|q| q.ring.enabled) || self.tx.iter().any(|q| q.ring.enabled);
        if running && !self.faults.gone() {
            self.violate(env, "closed while queues are enabled: reset the VF first");
        } else if self.adminq.arq.enabled() && !self.faults.gone() {
            self.violate(env, "closed while the admin queues are enabled: the PF may still write to them");
        }
        self.function_reset(env);
        // The next driver gets cells of its own, as a closed device's mapping is of no use to anybody: a queue of this one
        // that is in the middle of a burst must not ring there.
        self.cells = Arc::new(cells::Doorbells::new());
    }

    fn has_ring_within(&self, start: u64, end: u64) -> bool {
        let rings = self.rx.iter().map(|q| &q.ring).chain(self.tx.iter().map(|q| &q.ring));
        let enabled = rings.filter(|ring| ring.enabled).map(|ring| ring.descriptor(0));
        let admin = [&self.adminq.atq, &self.adminq.arq];
        let admin = admin.into_iter().filter(|queue| queue.enabled()).map(|queue| queue.descriptor(0));
        enabled.chain(admin).any(|at| (start..end).contains(&at))
    }

    fn step(&mut self, env: &mut Env) -> bool {
        self.sample(env);
        if self.reset.as_ref().is_some_and(|r| r.over.is_some_and(|over| over <= env.now)) {
            self.reset = None;
        }
        if let (Some(at), Some(period)) = (self.flap_at, self.faults.flap_period())
            && at <= env.now
        {
            self.set_link(!self.link, env);
            self.flap_at = Some(env.now + period);
        }
        if self.reset.is_some() || !self.bus_master || self.faults.gone() {
            return false;
        }
        let busy = self.talk(env);
        self.write_back(env) || busy
    }

    fn transmit(&mut self, queue: usize, limit: usize, need_bytes: bool, env: &mut Env, emit: &mut Emit<'_>) -> usize {
        if !self.alive() || !self.tx[queue].ring.enabled {
            return 0;
        }
        let rules = self.filters.rules(&self.options);
        let vector = self.tx[queue].vector;
        let hold = self.holds(vector);
        let (mut sent, mut reported) = (0, false);
        while sent < limit {
            let stats = &mut self.stats;
            let result = self.tx[queue].send_one(need_bytes, &rules, hold, env, &self.faults, |env, bytes, len| {
                let to = if bytes.is_empty() { MacAddr::ZERO } else { frame::destination(bytes) };
                stats.sent(to, len);
                emit(env, bytes, len);
            });
            match result {
                Ok(Some(report)) => {
                    sent += 1;
                    reported |= report;
                }
                Ok(None) => break,
                Err(what) => {
                    self.broken(true, queue, &what, env);
                    break;
                }
            }
        }
        if reported {
            self.queue_event(vector);
        }
        sent
    }

    fn receive(&mut self, frame: &[u8], env: &mut Env) -> Arrival {
        if frame.len() < frame::ETHERNET || !self.alive() {
            return Arrival::Dropped;
        }
        if !self.filters.accepts(frame) {
            return Arrival::Filtered;
        }
        let mut stripped = std::mem::take(&mut self.stripped);
        let (tag1, tag2) = self.filters.strip(frame, &mut stripped);
        let bytes = if tag1.is_some() || tag2.is_some() { &stripped } else { frame };
        let (queue, mut verdict) = self.classify(bytes);
        (verdict.tag1, verdict.tag2) = (tag1, tag2);
        if !self.has_room(queue, bytes.len()) {
            self.sample(env); // the doorbell may have been rung since this round began
        }
        let taken = self.put(queue, bytes, &verdict, env);
        if taken {
            self.received(queue);
        }
        self.stripped = stripped;
        if taken { Arrival::Taken } else { Arrival::Dropped }
    }

    fn accepts(&self, frame: &[u8]) -> bool {
        self.alive() && self.filters.accepts(frame)
    }

    #[cfg(feature = "pcap")]
    fn takes(&self, len: usize) -> bool {
        let mut running = (0..QUEUES_MAX).filter(|&queue| self.rx[queue].ring.enabled).peekable();
        self.alive() && running.peek().is_some() && running.all(|queue| self.has_room(queue, len))
    }

    fn prepare(&self, frame: &[u8]) -> Prepared {
        let (queue, verdict) = self.classify(frame);
        Prepared { queue, words: verdict.pack() }
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn left_out(&self, queue: usize) -> bool {
        !self.rx.get(queue).is_some_and(|q| q.ring.enabled) && self.rx.iter().any(|q| q.ring.enabled)
    }

    #[inline]
    fn has_room(&self, queue: usize, len: usize) -> bool {
        self.rx.get(queue).is_some_and(|q| q.has_room(len))
    }

    #[inline]
    fn place(&mut self, frame: &[u8], prepared: &Prepared, env: &mut Env) -> bool {
        self.put(prepared.queue, frame, &rx::Verdict::unpack(prepared.words), env)
    }

    fn lend(&mut self, queue: usize, frame: &[u8]) -> Option<Lent> {
        let (_, verdict) = self.classify(frame);
        let rx = self.rx.get_mut(queue)?;
        let received = rx::encode(rx.rxdid, frame.len() as u16, Some(&verdict), false);
        let (rx, tx) = (rx.ring.lend()?, self.tx.get_mut(queue)?.ring.lend()?);
        Some(Lent { rx, tx, received, report: regs::TX_RS, done: regs::TX_DONE })
    }

    fn received(&mut self, queue: usize) {
        self.queue_event(self.rx[queue].vector);
    }

    fn set_link(&mut self, up: bool, env: &mut Env) {
        if self.link != up {
            self.link = up;
            self.post_link(Duration::ZERO, env);
        }
    }

    fn set_loopback(&mut self, loopback: bool) {
        self.loopback = loopback;
        self.generation += 1;
    }

    fn pf_reset(&mut self, env: &mut Env) {
        self.warn(env);
        self.begin_reset(None, env);
    }

    fn pf_reset_done(&mut self, env: &mut Env) {
        if let Some(reset) = &mut self.reset {
            reset.over = Some(env.now + COMPLETED_TIME);
        }
    }

    fn set_fault(&mut self, fault: Fault, env: &mut Env) {
        self.faults.set(fault);
        match fault {
            Fault::ConfigLost => self.function_reset(env),
            Fault::PfResetFor(time) => {
                self.warn(env);
                self.begin_reset(Some(time), env);
            }
            Fault::LinkFlaps(period) => self.flap_at = Some(env.now + period),
            Fault::FalseAlarm => self.warn(env),
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
        self.stats.preset(value.into());
    }

    fn violate(&self, env: &mut Env, what: &str) {
        env.violation(&self.name, what, &self.trace.print(regs::name));
    }
}
