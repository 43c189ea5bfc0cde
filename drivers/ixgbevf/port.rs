//! One opened virtual function of the 82599 or a successor: the trait `Device` over its registers and its mailbox.
//!
//! Owns the function, and what was agreed with the PF and programmed (API version, queues, which rings run). The port
//! framework calls it, always from the thread that holds the port or its control; the queues' own threads get doorbells
//! and nothing else. What always holds: every wait has a deadline, reads of all ones end in
//! [`Error::Gone`] or [`Health::Gone`], and a ring is checked against the part's limits before its address reaches a
//! register.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::time::Duration;

use super::counters::{IxgbeTotals, counters, snapshot, totals};
use super::intel::function::{CTRL, CTRL_RST, DESCRIPTOR, Function, Layout};
use super::intel::interrupts::VECTORS;
use super::intel::mailbox::granted;
use super::messages::{Api, Granted, MAILBOX, NEGOTIATED, get_link_state, get_queues, negotiate};
use super::part::{Identity, Part};
use super::regs::*;
use super::settings::{MTU_MAX, OWN_RSS, PF_RSS};
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::{Bus, Doorbell, Reg};
use crate::port::device::{Caps, Counters, Device, Health, Link, RingKind, RingPlan, Settings};
use crate::port::rss::Rss;

/// Most descriptors of a frame, with a write-back threshold of 0 (fact sheet ixgbevf 4.7).
const MAX_SEGMENTS: u8 = 40;
/// Prefetch, host and write-back thresholds: the sum of the first and the last is at most 40, and a last beyond 0 would
/// need a report on every descriptor (fact sheet ixgbevf 2.3, 4.7).
const TX_THRESHOLDS: u32 = tx_thresholds(32, 1, 0);

/// What queues get to finish before the function is reset (fact sheet ixgbevf 3.5 step 2).
const DRAIN: Duration = Duration::from_millis(2);
/// What the PF's driver gets to notice the function's reset before it is asked something. Upstream Linux's VF driver asks at
/// once, DPDK's and Intel's wait for 50 ms (fact sheet ixgbevf 3.5 step 4). The function itself needs no pause: RST is over when
/// the read after it returns (7.1). A PF may notice late whatever the pause; a request that it destroys then is made
/// again by the handshake, so this is only what makes that rare (our choice: many times a PF's interrupt).
const RESET_SETTLE: Duration = Duration::from_millis(2);
/// How long a queue may take to start or stop (fact sheet ixgbevf 5.1 step 4).
const QUEUE_DEADLINE: Duration = Duration::from_millis(10);
const QUEUE_POLL: Duration = Duration::from_micros(100);
/// The 82599's link is up when so many more looks, so far apart, find it up (fact sheet ixgbevf 5.2 step 2).
const LINK_LOOKS: u32 = 5;
const LINK_PAUSE: Duration = Duration::from_micros(100);

/// An opened virtual function.
pub(crate) struct Ixgbevf<B: Bus> {
    pub(super) vf: Function<B>,
    pub(super) part: Part,
    /// What the last handshake agreed on.
    pub(super) api: Api,
    granted: Granted,
    /// Which bits of group addresses the PF hashes.
    pub(super) filter_type: u32,
    /// False where the administrator holds the link down.
    link_enabled: bool,
    /// What the last check made of the link.
    link_up: bool,
    /// More group addresses than the PF takes: every multicast frame is accepted instead.
    pub(super) multicast_overflow: bool,
    /// What the program asked of `set_promiscuous`.
    pub(super) promiscuous: (bool, bool),
    /// The VLANs that the PF lets in.
    pub(super) vlans: BTreeSet<u16>,
    totals: IxgbeTotals,
}

impl<B: Bus> Ixgbevf<B> {
    /// Takes over an opened function after a look at its ids and BAR. Touches no register: `reset` comes first.
    ///
    /// # Errors
    /// [`Error::Device`] for a part that this driver does not drive.
    pub(crate) fn open(bus: B) -> Result<Self> {
        let id = bus.id();
        let part = match Part::identify(id) {
            Identity::Known(part) => part,
            Identity::HyperV => {
                let reason = format!("{id} is the Hyper-V variant, which is not supported");
                return Err(Error::device(bus.name(), reason));
            }
            Identity::Unknown => {
                let reason =
                    format!("{id} is no ixgbevf device; this driver takes 8086:10ed, 1515, 1565, 15a8, 15c5 and 57ad");
                return Err(Error::device(bus.name(), reason));
            }
        };
        let caps = Caps {
            family: "ixgbevf",
            part: part.name(),
            // Until the PF says how many it grants.
            rx_queues: QUEUES,
            tx_queues: QUEUES,
            // Fact sheet ixgbevf 4.
            ring_min: 64,
            ring_max: 8192,
            ring_multiple: 8,
            mtu_max: MTU_MAX,
            rx_buffer_granule: SRRCTL_BSIZEPKT_UNIT,
            max_segments: MAX_SEGMENTS,
            rss: Some(if part.is_generation_b() { OWN_RSS } else { PF_RSS }),
            vectors: bus.vectors().min(VECTORS.into()) as u16,
            paired: false,
            rings: RingKind::Ixgbe { udp_without_checksum_flagged: part == Part::I82599 },
        };
        let layout = Layout {
            protocol: MAILBOX,
            interrupts: INTERRUPTS,
            rdlen: VFRDLEN,
            tdlen: VFTDLEN,
            rxdctl: VFRXDCTL,
            txdctl: VFTXDCTL,
            enable: XDCTL_ENABLE,
            queues: QUEUES,
        };
        Ok(Ixgbevf {
            vf: Function::new(bus, layout, caps)?,
            part,
            api: Api::V1_0,
            granted: Granted::ONE,
            filter_type: 0,
            link_enabled: true,
            link_up: false,
            multicast_overflow: false,
            promiscuous: (false, false),
            vlans: BTreeSet::new(),
            totals: totals(),
        })
    }

    /// Turns every ring off and resets the function (fact sheet ixgbevf 3.5 steps 1, 2, 4). Neither this reset nor a
    /// function-level one is known to clear the ENABLE bits (2.4), so all of them are, whatever the PF grants.
    fn silence(&mut self) -> Result<()> {
        self.vf.mask_interrupts();
        for n in self.vf.queues() {
            self.vf.write(VFTXDCTL(n), TXDCTL_SWFLSH);
            let rxdctl = self.vf.read(VFRXDCTL(n))?;
            self.vf.write(VFRXDCTL(n), rxdctl & !XDCTL_ENABLE);
        }
        self.vf.write(VFPSRTYPE, 0);
        self.vf.flush()?;
        self.vf.bus.pause(DRAIN);
        self.vf.write(CTRL, CTRL_RST);
        self.vf.flush()?;
        self.vf.bus.pause(RESET_SETTLE);
        if !self.vf.queues_stopped(QUEUE_DEADLINE, QUEUE_POLL)? {
            self.vf.silent = false;
            let ms = QUEUE_DEADLINE.as_millis();
            let reason =
                format!("a queue still runs {ms} ms after VFCTRL.RST; remove the VF and create it again on the host");
            return Err(self.vf.refused(reason));
        }
        self.vf.silent = true;
        Ok(())
    }

    /// Undoes what an earlier user may have left in the registers that no reset clears (fact sheet ixgbevf 2.4).
    fn write_defaults(&mut self) -> Result<()> {
        self.vf.write(VFPSRTYPE, 0);
        if self.part.is_generation_b() {
            self.vf.write(VFMRQC, 0);
        }
        for n in self.vf.queues() {
            for register in [VFRDH, VFRDT, VFRXDCTL, VFTDH, VFTDT, VFTXDCTL, VFTDWBAH, VFTDWBAL] {
                self.vf.write(register(n), 0);
            }
            self.vf.write(VFSRRCTL(n), SRRCTL_DEFAULT);
            self.vf.write(VFDCA_RXCTRL(n), DCA_RXCTRL_DEFAULT);
            self.vf.write(VFDCA_TXCTRL(n), DCA_TXCTRL_DEFAULT);
        }
        self.vf.flush()
    }

    /// Agrees with the PF on an API version, and asks what it grants (fact sheet ixgbevf 3.5 steps 8 to 10).
    fn agree(&mut self) -> Result<()> {
        self.api = Api::V1_0;
        for api in NEGOTIATED {
            if self.vf.ask(negotiate(api))? {
                self.api = api;
                break;
            }
        }
        self.granted = Granted::ONE;
        if self.api >= Api::V1_1 {
            let answer: [u32; 5] = self.vf.mailbox.request(&mut self.vf.bus, &get_queues())?;
            if granted(answer[0]) {
                self.granted = Granted::parse(answer);
            }
        }
        self.link_enabled = true;
        if self.api >= Api::V1_2 {
            let [word0, enabled] = self.vf.mailbox.request(&mut self.vf.bus, &get_link_state())?;
            // A PF that does not know the message does not hold the link down either.
            self.link_enabled = !granted(word0) || enabled != 0;
        }
        let Granted { rx_queues, tx_queues, classes, .. } = self.granted;
        self.vf.caps.rx_queues = classes.unwrap_or(rx_queues);
        self.vf.caps.tx_queues = tx_queues;
        self.vf.caps.rss = match classes {
            Some(_) => None,
            None if self.part.is_generation_b() => Some(OWN_RSS),
            None => (rx_queues > 1).then_some(PF_RSS),
        };
        Ok(())
    }

    fn sample_counters(&mut self) {
        if let Some(now) = self.vf.vouched(snapshot) {
            self.totals.sample(now);
        }
    }

    /// The registers of a transmit queue: with traffic classes, the first is that of frames without a priority.
    fn tx_register(&self, queue: u16) -> u16 {
        let Granted { tx_queues, classes, default_tx, .. } = self.granted;
        if classes.is_some() { (queue + default_tx) % tx_queues } else { queue }
    }

    /// Waits until ENABLE of a queue that was just started reads 1.
    fn wait_enabled(&mut self, register: Reg) -> Result<()> {
        let deadline = self.vf.bus.now() + QUEUE_DEADLINE;
        while self.vf.read(register)? & XDCTL_ENABLE == 0 {
            if self.vf.bus.now() >= deadline {
                let ms = QUEUE_DEADLINE.as_millis();
                return Err(Error::timeout(
                    self.vf.bus.name(),
                    format!("a queue did not start within {ms} ms; see `dmesg` on the host for the PF's driver"),
                ));
            }
            self.vf.bus.pause(QUEUE_POLL);
        }
        Ok(())
    }

    /// Programs and enables a transmit ring, tail 0.
    fn start_tx(&mut self, ring: &RingPlan) -> Result<()> {
        self.vf.check_ring(ring, self.vf.caps.tx_queues, 1)?;
        let n = self.tx_register(ring.queue);
        self.vf.write(VFTDBAL(n), ring.base.0 as u32);
        self.vf.write(VFTDBAH(n), (ring.base.0 >> 32) as u32);
        self.vf.write(VFTDLEN(n), u32::from(ring.entries) * DESCRIPTOR);
        // A PF takes head or tail before a length for malice (fact sheet ixgbevf 6).
        self.vf.flush()?;
        self.vf.write(VFTDH(n), 0);
        self.vf.write(VFTDT(n), 0);
        // A relaxed-ordered write-back could pass the ones before it.
        self.vf.write(VFDCA_TXCTRL(n), DCA_TXCTRL_DEFAULT & !DCA_TXCTRL_WRITE_BACK_RELAXED);
        self.vf.write(VFTDWBAL(n), 0);
        self.vf.write(VFTDWBAH(n), 0);
        self.vf.silent = false;
        self.vf.write(VFTXDCTL(n), XDCTL_ENABLE | TX_THRESHOLDS);
        self.wait_enabled(VFTXDCTL(n))?;
        self.vf.ring_runs(&RingPlan { queue: n, ..*ring }, false);
        Ok(())
    }

    /// Programs and enables a receive ring, tail 0.
    fn start_rx(&mut self, ring: &RingPlan) -> Result<()> {
        self.check_rx(ring)?;
        let n = ring.queue;
        let buffer_units = (ring.buffer_len / SRRCTL_BSIZEPKT_UNIT).min(SRRCTL_BSIZEPKT_MAX);
        self.vf.write(VFRDBAL(n), ring.base.0 as u32);
        self.vf.write(VFRDBAH(n), (ring.base.0 >> 32) as u32);
        self.vf.write(VFRDLEN(n), u32::from(ring.entries) * DESCRIPTOR);
        self.vf.flush()?;
        // Before ENABLE, while both are still ours; equal means empty until the queue's thread rings.
        self.vf.write(VFRDH(n), 0);
        self.vf.write(VFRDT(n), 0);
        self.vf.write(VFSRRCTL(n), SRRCTL_DROP_EN | SRRCTL_DESCTYPE_ADVANCED | u32::from(buffer_units));
        self.vf.silent = false;
        self.vf.write(VFRXDCTL(n), self.rxdctl());
        self.wait_enabled(VFRXDCTL(n))?;
        self.vf.ring_runs(ring, true);
        Ok(())
    }

    fn check_rx(&self, ring: &RingPlan) -> Result<()> {
        self.vf.check_ring(ring, self.vf.caps.rx_queues, self.vf.caps.rx_buffer_granule)?;
        if ring.buffer_len == 0 {
            // A size of 0 is forbidden.
            return Err(self.vf.nonsense("receive buffers of 0 bytes"));
        }
        Ok(())
    }

    /// Lets RSS use the queues up to the highest that runs or is about to: the low bits of a table's entry that count. With
    /// traffic classes the classes pick the queue.
    fn write_rss_queues(&mut self, rx: &[RingPlan]) {
        let highest = self.running_rx().into_iter().chain(rx.iter().map(|ring| ring.queue)).max();
        let bits = match (self.granted.classes, highest) {
            (None, Some(highest)) => u16::BITS - highest.leading_zeros(),
            _ => 0,
        };
        self.vf.write(VFPSRTYPE, bits << VFPSRTYPE_RQPL_SHIFT);
    }

    /// Numbers of the receive queues that run.
    pub(super) fn running_rx(&self) -> Vec<u16> {
        self.vf.queues().zip(&self.vf.rx_len).filter(|&(_, &len)| len != 0).map(|(n, _)| n).collect()
    }

    fn look(&mut self) -> Result<Health> {
        if self.vf.bus.removal_requested() {
            return Ok(Health::Gone);
        }
        // First a read that tells a living device from a dead one; bus mastering costs a system call.
        let links = self.vf.read(VFLINKS)?;
        if !self.vf.mailbox.service(&mut self.vf.bus)? || !self.vf.bus.bus_master()? || !self.vf.rings_intact()? {
            return Ok(Health::Resetting);
        }
        self.link_up = self.link_enabled && self.link_stays_up(links)?;
        Ok(Health::Running(match self.link_up {
            true => Link { up: true, speed_mbps: self.part.speed_mbps(links), full_duplex: true },
            false => Link::default(),
        }))
    }

    /// True when the link is up, for good. A link that comes up on an 82599 is looked at several times, half a millisecond
    /// in all.
    fn link_stays_up(&mut self, links: u32) -> Result<bool> {
        let mut up = links & VFLINKS_UP != 0;
        if self.part == Part::I82599 && !self.link_up {
            for _ in 0..LINK_LOOKS {
                if !up {
                    break;
                }
                self.vf.bus.pause(LINK_PAUSE);
                up = self.vf.read(VFLINKS)? & VFLINKS_UP != 0;
            }
        }
        Ok(up)
    }
}

impl<B: Bus> Device for Ixgbevf<B> {
    fn bus(&mut self) -> &mut dyn Bus {
        &mut self.vf.bus
    }

    fn caps(&self) -> &Caps {
        &self.vf.caps
    }

    fn mac(&self) -> MacAddr {
        self.vf.mac
    }

    fn reset(&mut self, function_reset: bool) -> Result<()> {
        self.sample_counters();
        self.multicast_overflow = false;
        self.promiscuous = (false, false);
        self.vlans.clear();
        self.link_up = false;
        self.vf.forget();
        self.vf.begin_reset(function_reset)?;
        self.silence()?;
        let pf = self.vf.wait_for_pf();
        self.vf.mask_interrupts();
        pf?;
        self.write_defaults()?;
        self.filter_type = self.vf.handshake()?;
        self.agree()?;
        let base = snapshot(&mut self.vf.bus);
        self.vf.flush()?;
        self.totals.rebase(base);
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.vf.silent
    }

    fn restore(&mut self, settings: &Settings) -> Result<()> {
        self.tell_all(settings)
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<()> {
        self.vf.set_mac(mac)
    }

    fn set_vlan(&mut self, vid: u16, on: bool) -> Result<()> {
        self.tell_vlan(vid, on)
    }

    fn set_multicast(&mut self, list: &[MacAddr]) -> Result<()> {
        self.tell_multicast(list)
    }

    fn set_unicast(&mut self, list: &[MacAddr]) -> Result<()> {
        self.tell_unicast(list)
    }

    fn set_promiscuous(&mut self, unicast: bool, multicast: bool) -> Result<()> {
        self.tell_promiscuous(unicast, multicast)
    }

    fn set_rss(&mut self, rss: &Rss) -> Result<()> {
        self.write_rss(rss)
    }

    fn rss(&mut self) -> Result<Rss> {
        self.read_rss()
    }

    fn start_rings(&mut self, rx: &[RingPlan], tx: &[RingPlan]) -> Result<()> {
        tx.iter().try_for_each(|ring| self.start_tx(ring))?;
        rx.iter().try_for_each(|ring| self.check_rx(ring))?;
        if !rx.is_empty() {
            self.write_rss_queues(rx);
        }
        rx.iter().try_for_each(|ring| self.start_rx(ring))
    }

    fn rx_doorbell(&mut self, queue: u16) -> Result<Doorbell> {
        self.vf.check_number("receive queue", queue, self.vf.caps.rx_queues)?;
        self.vf.bus.doorbell(VFRDT(queue))
    }

    fn tx_doorbell(&mut self, queue: u16) -> Result<Doorbell> {
        self.vf.check_number("transmit queue", queue, self.vf.caps.tx_queues)?;
        self.vf.bus.doorbell(VFTDT(self.tx_register(queue)))
    }

    fn arm_doorbell(&mut self, vector: u16) -> Result<(Doorbell, u32)> {
        self.vf.arm_doorbell(vector)
    }

    fn start_interrupts(&mut self, rx: &[RingPlan]) -> Result<()> {
        self.vf.start_interrupts(rx)
    }

    fn check(&mut self) -> Health {
        // The only errors are registers that read all ones and a config space that cannot be read.
        self.look().unwrap_or(Health::Gone)
    }

    fn counters(&mut self) -> Counters {
        self.sample_counters();
        counters(&self.totals)
    }
}
