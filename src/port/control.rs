//! Looking after a started port: state, resets of the PF, link, counters, and the way back.
//!
//! [`Control`] is the only writer of the state word and the only one that talks to the device's registers. It must be
//! serviced every 100 ms or when its descriptor is readable, by the program or by [`Control::spawn`]. Dropping it stops
//! the port.
//!
//! Recovery from a reset of the PF, in steps that each end a call of `service`:
//! 1. The device shows a sign of a reset: the word goes to Resetting, sleeping queues are woken.
//! 2. Every queue has acknowledged, or [`QUEUE_GRACE`] is over: the family's handshake is tried, at each call until the
//!    PF answers. Everything the program asked for is told again, and the rings of the queues that acknowledged are
//!    programmed.
//! 3. The word goes to Running in the next epoch, and those queues rebuild their rings. A queue that was silent stays
//!    disabled at the device until it has acknowledged.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::Port;
use super::device::{COUNTER_PERIOD, Counters, Device, Health, Link, MAILBOX_VECTOR, RingPlan};
use super::rss::Rss;
use super::service::Service;
use super::start::Reservation;
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::event;
use crate::mem::HugeRegion;
use crate::ring::{Gate, PortState, RxCounts, RxQueueStats, Shared, TxCounts, TxQueueStats, Word};

/// How long a reset waits for queues to let go, before it goes on without the silent ones. A polling thread answers
/// within microseconds; this covers one that was descheduled.
const QUEUE_GRACE: Duration = Duration::from_millis(200);
/// How long dropping a control waits for queues that are still out.
const DROP_DEADLINE: Duration = Duration::from_millis(50);
/// VLAN ids of stations (IEEE 802.1Q: 0 is no VLAN, 4095 reserved).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
/// Step of waiting for queues to let go.
const STOP_STEP: Duration = Duration::from_micros(200);

/// Control's side of one queue.
pub(super) struct Side {
    pub(super) plan: RingPlan,
    pub(super) receive: bool,
    pub(super) gate: Arc<CachePadded<Gate>>,
    pub(super) event: Option<Arc<OwnedFd>>,
}

impl Side {
    fn name(&self) -> String {
        format!("{} queue {}", if self.receive { "receive" } else { "transmit" }, self.plan.queue)
    }
}

/// Queues of a start that is over, as long as one of them may still ring a doorbell.
pub(super) struct Earlier {
    sides: Vec<Side>,
    word: Word,
}

impl Earlier {
    pub(super) fn silent(&self) -> Vec<String> {
        self.sides.iter().filter(|s| !s.gate.is_quiet(self.word)).map(Side::name).collect()
    }
}

/// Counters of a port: the device's own, and those of each queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortStats {
    /// The device's counters since the port was opened.
    pub device: Counters,
    /// Each receive queue since the start.
    pub rx: Vec<RxQueueStats>,
    /// Each transmit queue since the start.
    pub tx: Vec<TxQueueStats>,
    /// Resets that the port recovered from since the start.
    pub recoveries: u64,
}

/// A started port, as far as it is not in the hands of queues.
pub(super) struct Inner {
    port: Port,
    shared: Arc<Shared>,
    sides: Vec<Side>,
    region: Arc<HugeRegion>,
    _reservation: Reservation,
    /// Per vector.
    events: Vec<Arc<OwnedFd>>,
    rx_counts: Vec<Arc<RxCounts>>,
    tx_counts: Vec<Arc<TxCounts>>,
    link: Link,
    resetting_since: Option<Duration>,
    counters: Counters,
    sampled: Duration,
    recoveries: u64,
    /// Why the last attempt to recover failed.
    trouble: Option<Error>,
}

impl Inner {
    #[allow(clippy::too_many_arguments)] // one caller, which has just made each of them
    pub(super) fn new(
        port: Port,
        shared: Arc<Shared>,
        sides: Vec<Side>,
        region: Arc<HugeRegion>,
        reservation: Reservation,
        events: Vec<Arc<OwnedFd>>,
        rx_counts: Vec<Arc<RxCounts>>,
        tx_counts: Vec<Arc<TxCounts>>,
    ) -> Inner {
        Inner {
            port,
            shared,
            sides,
            region,
            _reservation: reservation,
            events,
            rx_counts,
            tx_counts,
            link: Link::default(),
            resetting_since: None,
            counters: Counters::default(),
            sampled: Duration::ZERO,
            recoveries: 0,
            trouble: None,
        }
    }

    fn word(&self) -> Word {
        self.shared.word.load()
    }

    /// Changes the state and wakes every queue that sleeps.
    fn go(&self, state: PortState) {
        if self.shared.word.go(state) {
            self.wake();
        }
    }

    fn wake(&self) {
        for side in &self.sides {
            if let Some(event) = &side.event {
                event::signal(event);
            }
        }
    }

    /// From a device in reset to running queues.
    fn bring_up(&mut self) -> Result<()> {
        let settings = self.port.config.settings.clone();
        if self.port.device.restore(&settings).is_err() {
            // The PF may have been reset while the port was idle; once more from the handshake, and then it counts.
            self.port.device.reset(false)?;
            self.port.device.restore(&settings)?;
        }
        self.program(&vec![true; self.sides.len()])?;
        let word = self.word();
        self.sides.iter().for_each(|side| side.gate.enable(word));
        // Totals go on from an earlier start: they are there before the first reset of this one.
        self.sample();
        self.service();
        Ok(())
    }

    /// Programs the rings of the queues whose place in `wanted` says so, and the interrupts of all.
    fn program(&mut self, wanted: &[bool]) -> Result<()> {
        start_queues(&mut self.port, self.sides.iter().zip(wanted).filter(|(_, wanted)| **wanted).map(|(s, _)| s))?;
        if self.port.connect(&self.events)? {
            let plans: Vec<RingPlan> =
                self.sides.iter().filter(|s| s.receive && s.plan.vector.is_some()).map(|s| s.plan).collect();
            self.port.device.start_interrupts(&plans)?;
        }
        Ok(())
    }

    /// The queues that may be programmed: they have let go of the device under `word` and are not dropped, and where
    /// queues are paired that goes for both.
    fn ready(&self, word: Word) -> Vec<bool> {
        let paired = self.port.device.caps().paired;
        // Asked once: a queue that acknowledges while the others are programmed must not be enabled with them.
        let quiet: Vec<bool> = self.sides.iter().map(|s| s.gate.is_quiet(word)).collect();
        let holds = |side: &Side| {
            let partners = self.sides.iter().zip(&quiet).filter(|(s, _)| s.plan.queue == side.plan.queue);
            paired && partners.into_iter().any(|(_, quiet)| !quiet)
        };
        self.sides.iter().zip(&quiet).map(|(s, quiet)| *quiet && !s.gate.is_gone() && !holds(s)).collect()
    }

    fn service(&mut self) -> PortState {
        if let Some(mailbox) = self.events.get(usize::from(MAILBOX_VECTOR)) {
            event::clear(mailbox.as_fd());
        }
        match self.word().state() {
            PortState::Running => self.look(),
            PortState::Resetting => self.recover(),
            PortState::Stopping | PortState::Dead => {}
        }
        self.word().state()
    }

    /// Checks a running device.
    fn look(&mut self) {
        match self.port.device.check() {
            Health::Gone => self.go(PortState::Dead),
            Health::Resetting => {
                self.link = Link::default();
                self.resetting_since = Some(self.port.device.bus().now());
                self.go(PortState::Resetting);
                self.recover();
            }
            Health::Running(link) => {
                self.link = link;
                if self.port.device.bus().now().saturating_sub(self.sampled) >= COUNTER_PERIOD {
                    self.sample();
                }
                self.enable_late();
            }
        }
    }

    /// Queues that were silent through a reset and have let go since.
    fn enable_late(&mut self) {
        let word = self.word();
        let paired = self.port.device.caps().paired;
        let ready = self.ready(word);
        let late = self.sides.iter().zip(ready).filter(|(side, ready)| *ready && !side.gate.is_enabled(word));
        let mut late: Vec<&Side> = late.map(|(side, _)| side).collect();
        let mut woken = false;
        while let Some(&first) = late.first() {
            let with_first = |s: &&Side| std::ptr::eq(*s, first) || paired && s.plan.queue == first.plan.queue;
            let (now, later): (Vec<&Side>, Vec<&Side>) = late.into_iter().partition(with_first);
            late = later;
            // Rings that cannot be programmed now are tried again at the next call.
            if start_queues(&mut self.port, now.iter().copied()).is_ok() {
                now.iter().for_each(|side| side.gate.enable(word));
                woken = true;
            }
        }
        if woken {
            self.wake();
        }
    }

    fn recover(&mut self) {
        let word = self.word();
        let waited = self.port.device.bus().now().saturating_sub(self.resetting_since.unwrap_or_default());
        if self.sides.iter().any(|s| !s.gate.is_quiet(word)) && waited < QUEUE_GRACE {
            return;
        }
        let settings = self.port.config.settings.clone();
        let ready = self.ready(word);
        let done = self
            .port
            .device
            .reset(false)
            .and_then(|()| self.port.device.restore(&settings))
            .and_then(|()| self.program(&ready));
        match done {
            Ok(()) => {
                self.recoveries += 1;
                self.trouble = None;
                self.resetting_since = None;
                // The next epoch is not known before the word has it; a queue that looks in between only rests.
                self.shared.word.go(PortState::Running);
                let word = self.word();
                for (side, ready) in self.sides.iter().zip(ready) {
                    if ready {
                        side.gate.enable(word);
                    }
                }
                self.wake();
            }
            Err(Error::Gone { .. }) => self.go(PortState::Dead),
            // The PF is not ready yet, or refuses what it granted before: the next call tries again.
            Err(error) => self.trouble = Some(error),
        }
    }

    fn sample(&mut self) {
        self.counters = self.port.device.counters();
        self.sampled = self.port.device.bus().now();
    }

    fn waiting_for(&self) -> Vec<String> {
        let word = self.word();
        let waits = |side: &&Side| match word.state() {
            PortState::Running => !side.gate.is_enabled(word) && !side.gate.is_gone(),
            PortState::Resetting | PortState::Stopping | PortState::Dead => !side.gate.is_quiet(word),
        };
        self.sides.iter().filter(waits).map(Side::name).collect()
    }

    /// Stops everything. The port comes back unless the device is gone or cannot be reset.
    fn stop(mut self, deadline: Duration) -> Result<Port> {
        if self.word().state() == PortState::Running {
            self.sample();
        }
        self.go(PortState::Stopping);
        let stopping = self.word();
        let start = self.port.device.bus().now();
        while self.sides.iter().any(|s| !s.gate.is_quiet(stopping))
            && self.port.device.bus().now().saturating_sub(start) < deadline
        {
            self.port.device.bus().pause(STOP_STEP);
        }
        // Queues that stay silent are reset under their feet: the device stops, whatever they do.
        let reset = self.port.device.reset(true);
        self.go(PortState::Dead);
        let word = self.word();
        // The reset may have failed after it silenced the device: a PF that does not answer comes later.
        if self.port.device.is_silent() {
            // SAFETY: the device does no DMA, as it just said; the word is Dead for good, so no queue of this start is
            // enabled again.
            unsafe { self.shared.quarantine.open() };
            // What cannot be unmapped stays mapped, and alive, until the bus goes.
            let _ = self.port.device.bus().unmap_dma(&self.region);
        }
        // A queue that let go of the device under Stopping need not see Dead as well.
        self.sides.retain(|s| !s.gate.is_quiet(stopping));
        let mut port = self.port;
        port.earlier = Some(Earlier { sides: self.sides, word });
        reset.map(|()| port)
    }
}

/// Asks the device for `new`, and on a refusal, which may have come half way, again for `old`: an error changes nothing.
fn ask<T: ?Sized>(
    device: &mut dyn Device,
    new: &T,
    old: &T,
    set: impl Fn(&mut dyn Device, &T) -> Result<()>,
) -> Result<()> {
    let asked = set(device, new);
    if asked.is_err() {
        // A PF that does not answer any more is noticed by `service`, and then everything is told again.
        let _ = set(device, old);
    }
    asked
}

fn start_queues<'a>(port: &mut Port, sides: impl Iterator<Item = &'a Side>) -> Result<()> {
    let (rx, tx): (Vec<&Side>, Vec<&Side>) = sides.partition(|side| side.receive);
    let plans = |sides: Vec<&Side>| -> Vec<RingPlan> { sides.into_iter().map(|side| side.plan).collect() };
    port.device.start_rings(&plans(rx), &plans(tx))
}

/// The control of a started port.
pub struct Control {
    inner: Option<Inner>,
}

/// Where a control cannot be without its inside: it is taken by `stop`, `spawn` and `drop` only, which consume it.
const HELD: &str = "a control holds its port until it is consumed";

impl Control {
    pub(super) fn new(inner: Inner) -> Control {
        Control { inner: Some(inner) }
    }

    pub(super) fn bring_up(&mut self) -> Result<()> {
        self.get_mut().bring_up()
    }

    fn get(&self) -> &Inner {
        self.inner.as_ref().expect(HELD)
    }

    fn get_mut(&mut self) -> &mut Inner {
        self.inner.as_mut().expect(HELD)
    }

    /// Looks after the port: the mailbox, resets, the link, late queues. To be called every 100 ms, and when
    /// [`as_fd`](AsFd::as_fd) is readable. Does not block, but for the handshake after a reset of the PF, which is
    /// bounded by the family's deadlines.
    pub fn service(&mut self) -> PortState {
        self.get_mut().service()
    }

    /// What the queues do at the moment.
    pub fn state(&self) -> PortState {
        self.get().word().state()
    }

    /// The device as its spec prints.
    pub fn name(&self) -> &str {
        self.get().port.name()
    }

    /// The station address in force.
    pub fn mac(&self) -> MacAddr {
        self.get().port.mac()
    }

    /// The link, as `service` saw it last.
    pub fn link(&self) -> Link {
        self.get().link
    }

    /// Counters. The device's own are read now while it runs; during a reset they are those of before. An iavf VF has none in
    /// its registers, so its PF is asked: an answer that takes longer than 20 ms counts at a later call.
    pub fn stats(&mut self) -> PortStats {
        let inner = self.get_mut();
        if inner.word().state() == PortState::Running {
            inner.sample();
        }
        PortStats {
            device: inner.counters,
            rx: inner.rx_counts.iter().map(|c| c.snapshot()).collect(),
            tx: inner.tx_counts.iter().map(|c| c.snapshot()).collect(),
            recoveries: inner.recoveries,
        }
    }

    /// Resets that the port has recovered from since the start. It tells of one that came and went between two looks at
    /// [`state`](Self::state), without asking the device as [`stats`](Self::stats) does.
    pub fn recoveries(&self) -> u64 {
        self.get().recoveries
    }

    /// Why the port is still Resetting: what the last attempt to recover met. `None` when nothing went wrong.
    pub fn trouble(&self) -> Option<&Error> {
        self.get().trouble.as_ref()
    }

    /// Names the queues that a reset or a stop waits for, or that stay disabled because they did not let go: they have
    /// not been polled since the state changed.
    pub fn waiting_for(&self) -> Vec<String> {
        self.get().waiting_for()
    }

    /// Changes the station address; it is kept through resets.
    ///
    /// # Errors
    /// [`Error::Config`] for a group address; [`Error::Device`] when the PF refuses.
    pub fn set_mac(&mut self, mac: MacAddr) -> Result<()> {
        if !mac.is_valid_station() {
            return Err(Error::Config(format!("{mac} cannot be a station's address (it is zero or a group address)")));
        }
        self.change(|port| {
            port.device.set_mac(mac)?;
            port.config.settings.mac = Some(mac);
            Ok(())
        })
    }

    /// Accepts frames of a VLAN; the PF strips their tags. Kept through resets.
    ///
    /// # Errors
    /// [`Error::Config`] for 0 and ids beyond 4094; [`Error::Device`] when the PF refuses.
    pub fn add_vlan(&mut self, vid: u16) -> Result<()> {
        self.set_vlan(vid, true)
    }

    /// No longer accepts frames of a VLAN.
    ///
    /// # Errors
    /// As [`add_vlan`](Self::add_vlan).
    pub fn remove_vlan(&mut self, vid: u16) -> Result<()> {
        self.set_vlan(vid, false)
    }

    fn set_vlan(&mut self, vid: u16, on: bool) -> Result<()> {
        if !VLANS.contains(&vid) {
            return Err(Error::Config(format!("VLAN {vid}: {} to {} are possible", VLANS.start(), VLANS.end())));
        }
        self.change(|port| {
            port.device.set_vlan(vid, on)?;
            let vlans = &mut port.config.settings.vlans;
            if on {
                vlans.insert(vid)
            } else {
                vlans.remove(&vid)
            };
            Ok(())
        })
    }

    /// Replaces the group addresses to accept. Kept through resets.
    ///
    /// # Errors
    /// [`Error::Config`] when one is not a group address; [`Error::Device`] when the PF refuses.
    pub fn set_multicast(&mut self, list: &[MacAddr]) -> Result<()> {
        if let Some(mac) = list.iter().find(|mac| !mac.is_multicast()) {
            return Err(Error::Config(format!("{mac} is not a group address")));
        }
        self.change(|port| {
            let settings = &mut port.config.settings;
            ask(port.device.as_mut(), list, &settings.multicast, |device, list| device.set_multicast(list))?;
            settings.multicast = list.to_vec();
            Ok(())
        })
    }

    /// Replaces the unicast addresses to accept besides the station address. Kept through resets.
    ///
    /// # Errors
    /// [`Error::Config`] when one is a group address or zero; [`Error::Device`] when the PF refuses.
    pub fn set_unicast(&mut self, list: &[MacAddr]) -> Result<()> {
        if let Some(mac) = list.iter().find(|mac| !mac.is_valid_station()) {
            return Err(Error::Config(format!("{mac} is zero or a group address")));
        }
        self.change(|port| {
            let settings = &mut port.config.settings;
            ask(port.device.as_mut(), list, &settings.unicast, |device, list| device.set_unicast(list))?;
            settings.unicast = list.to_vec();
            Ok(())
        })
    }

    /// Asks for every unicast and every multicast frame. Kept through resets.
    ///
    /// # Errors
    /// [`Error::Device`] when the PF refuses; stock PFs grant unicast to nobody or to trusted VFs only.
    pub fn set_promiscuous(&mut self, unicast: bool, multicast: bool) -> Result<()> {
        self.change(|port| {
            let settings = &mut port.config.settings;
            let before = (settings.promiscuous, settings.all_multicast);
            let now = (unicast, multicast);
            ask(port.device.as_mut(), &now, &before, |device, &(unicast, multicast)| {
                device.set_promiscuous(unicast, multicast)
            })?;
            (settings.promiscuous, settings.all_multicast) = now;
            Ok(())
        })
    }

    /// Spreads received flows anew over the queues that the port has. Packets of a flow that changes queues may be
    /// overtaken by later ones. Kept through resets.
    ///
    /// # Errors
    /// [`Error::Config`] for a key or table that does not fit the VF, and where the PF's are in force;
    /// [`Error::Device`] when the PF refuses.
    pub fn set_rss(&mut self, rss: &Rss) -> Result<()> {
        self.change(|port| {
            rss.check(&port.name, port.device.caps().rss, port.config.rx_queues)?;
            port.device.set_rss(rss)?;
            port.config.settings.rss = Some(rss.clone());
            Ok(())
        })
    }

    /// How received flows are spread, asked of the device or, where the PF's key and table are in force, of the PF.
    ///
    /// # Errors
    /// [`Error::Config`] where the VF cannot know; [`Error::Device`] when the PF does not let it.
    pub fn rss(&mut self) -> Result<Rss> {
        self.change(|port| port.device.rss())
    }

    fn change<T>(&mut self, act: impl FnOnce(&mut Port) -> Result<T>) -> Result<T> {
        let inner = self.get_mut();
        match inner.word().state() {
            PortState::Running => act(&mut inner.port),
            state => Err(Error::device(
                &inner.port.name,
                format!("settings cannot be read or changed while the port is {state:?}"),
            )),
        }
    }

    /// Stops the port: queues let go (those that do not within `deadline` are left behind), the function is reset,
    /// buffers go home, and the port can be started again.
    ///
    /// # Errors
    /// When the device is gone or cannot be reset; the port is closed then.
    pub fn stop(mut self, deadline: Duration) -> Result<Port> {
        match self.inner.take() {
            Some(inner) => inner.stop(deadline),
            None => unreachable!("{HELD}"),
        }
    }

    /// Gives the control a thread that services it.
    ///
    /// # Errors
    /// [`Error::Os`] when no thread can be made.
    pub fn spawn(self) -> Result<Service> {
        Service::new(self)
    }
}

impl AsFd for Control {
    /// Readable when the mailbox wants to be looked at.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.get().events[usize::from(MAILBOX_VECTOR)].as_fd() // always there
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            // The port drops here whatever the reset says: nobody is left to tell.
            let _ = inner.stop(DROP_DEADLINE);
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Control({}, {:?})", self.name(), self.state())
    }
}
