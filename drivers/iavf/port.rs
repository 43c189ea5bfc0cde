//! One opened adaptive virtual function: the trait `Device` over its registers and its conversation with the PF.
//!
//! Owns the bus, the channel, and what the PF was told (which rings run, which addresses it has). The port framework calls
//! it, always from the thread that holds the port or its control; the queues' own threads get doorbells and nothing
//! else. What always holds: every wait has a deadline, and reads of all ones end in [`Error::Gone`] or [`Health::Gone`].
//! What is asked of the PF is in `reset.rs`, `settings.rs` and `queues.rs`.
#![forbid(unsafe_code)]

use super::channel::{Channel, State};
use super::counters::CounterSet;
use super::negotiate::{Grant, QUEUES};
use super::queues::BUFFER_GRANULE;
use super::regs::*;
use super::virtchnl::*;
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::{ALL_ONES, Bus, Doorbell, PciId, Reg};
use crate::port::device::{Caps, Counters, Device, Health, RingKind, RingPlan, Settings};
use crate::port::rss::{Rss, RssCaps};

/// Device ids (fact sheet iavf 1).
const INTEL: u16 = 0x8086;
const ID_XL710_VF: u16 = 0x154C;
const ID_XL710_VF_HYPER_V: u16 = 0x1571;
const ID_X722_VF: u16 = 0x37CD;
const ID_ADAPTIVE_VF: u16 = 0x1889;

/// Data descriptors of a frame on the wire (fact sheet iavf 5.1).
const MAX_SEGMENTS: u8 = 8;
/// Interval of queues that interrupt: none.
const NO_INTERVAL: u32 = 0;

/// An opened XL710, X722 or adaptive virtual function.
pub(crate) struct Iavf<B: Bus> {
    pub(super) bus: B,
    pub(super) channel: Channel,
    pub(super) caps: Caps,
    /// What the PF granted after the last reset.
    pub(super) grant: Option<Grant>,
    /// Queue pairs that the program wants.
    pub(super) wanted: u16,
    /// The address in force.
    pub(super) mac: MacAddr,
    /// The addresses that the PF was told of: the station's, others, groups.
    pub(super) told: Option<MacAddr>,
    pub(super) unicast: Vec<MacAddr>,
    pub(super) multicast: Vec<MacAddr>,
    /// The VLAN ids that the PF was told of.
    pub(super) vlans: std::collections::BTreeSet<u16>,
    pub(super) rss: Option<Rss>,
    pub(super) mtu: u16,
    /// The formats of queues that a reset of the PF must not change under them.
    pub(super) rings: Option<RingKind>,
    /// Receive rings that run.
    pub(super) running: Vec<RingPlan>,
    /// Transmit queues that run.
    pub(super) sending: Vec<u16>,
    /// What re-arms vector 0; `None` while it is not to interrupt.
    pub(super) arm: Option<u32>,
    pub(super) counters: CounterSet,
    /// A reset of the VF has begun, whoever asked for it; the PF has to end it.
    pub(super) in_reset: bool,
    /// Since the last reset that ended, no queue was configured.
    pub(super) silent: bool,
}

impl<B: Bus> Iavf<B> {
    /// Takes over an opened function after a look at its ids and BAR. Touches no register: `reset` comes first.
    ///
    /// # Errors
    /// [`Error::Device`] for a part that this driver does not drive.
    pub(crate) fn open(bus: B) -> Result<Self> {
        let PciId { vendor, device } = bus.id();
        let part = match (vendor, device) {
            (INTEL, ID_XL710_VF) => "XL710 VF",
            (INTEL, ID_X722_VF) => "X722 VF",
            (INTEL, ID_ADAPTIVE_VF) => "adaptive VF",
            (INTEL, ID_XL710_VF_HYPER_V) => {
                return Err(Error::device(
                    bus.name(),
                    format!("{} is the Hyper-V variant, which is not supported", bus.id()),
                ));
            }
            _ => {
                return Err(Error::device(
                    bus.name(),
                    format!("{} is no iavf device; this driver takes 8086:154c, 37cd and 1889", bus.id()),
                ));
            }
        };
        if bus.bar_len() < BAR_LEN {
            let reason = format!("BAR0 has {} bytes, not even {BAR_LEN}; is the PF's driver up?", bus.bar_len());
            return Err(Error::device(bus.name(), reason));
        }
        let caps = Caps {
            family: "iavf",
            part,
            // What may be granted, RSS included; a reset learns what is.
            rx_queues: QUEUES,
            tx_queues: QUEUES,
            // Fact sheet iavf 5.6; the E830's limit, which the others exceed.
            ring_min: 64,
            ring_max: 8096,
            ring_multiple: 32,
            // Fact sheet iavf 5.6.
            mtu_max: 9702,
            rx_buffer_granule: BUFFER_GRANULE,
            max_segments: MAX_SEGMENTS,
            vectors: u16::try_from(bus.vectors()).unwrap_or(u16::MAX),
            paired: true,
            rss: Some(RssCaps { key_len: 52, table_len: 64, settable: true }),
            rings: RingKind::Avf { flex: false, rx_tag_in_l2tag2: false, tx_tag: super::TAG_NOWHERE },
        };
        Ok(Iavf {
            bus,
            channel: Channel::new(),
            caps,
            grant: None,
            wanted: 0,
            mac: MacAddr::ZERO,
            told: None,
            unicast: Vec::new(),
            multicast: Vec::new(),
            vlans: Default::default(),
            rss: None,
            mtu: 0,
            rings: None,
            running: Vec::new(),
            sending: Vec::new(),
            arm: None,
            counters: CounterSet::default(),
            in_reset: false,
            silent: false,
        })
    }

    /// Reads a register that never holds all ones on a living device.
    pub(super) fn read(&mut self, register: Reg) -> Result<u32> {
        match self.bus.read32(register) {
            ALL_ONES => Err(Error::gone(self.bus.name())),
            value => Ok(value),
        }
    }

    pub(super) fn write(&mut self, register: Reg, value: u32) {
        self.bus.write32(register, value);
    }

    /// Makes earlier writes effective, and notices a device that is gone (fact sheet iavf 6.6, register flush).
    pub(super) fn flush(&mut self) -> Result<u32> {
        self.read(VFGEN_RSTAT)
    }

    pub(super) fn refused(&self, reason: impl Into<String>) -> Error {
        Error::device(self.bus.name(), reason)
    }

    pub(super) fn bad_value(&self, text: impl std::fmt::Display) -> Error {
        Error::Config(format!("{}: {text}", self.bus.name()))
    }

    /// What the PF granted; every caller comes after a reset that ended well.
    pub(super) fn granted(&self) -> Result<Grant> {
        self.grant
            .ok_or_else(|| Error::timeout(self.bus.name(), "the PF has granted nothing yet; reset the port first"))
    }

    /// The VF's statistics, if the PF gives them within a moment.
    fn sample_counters(&mut self) -> Result<()> {
        let request = select_queues(self.granted()?.resources.vsi, 0, 0);
        self.channel.ask_stats(&mut self.bus, &request)?;
        if let Some(stats) = self.channel.stats.take() {
            self.counters.sample(stats);
        }
        Ok(())
    }

    /// Refuses a queue or vector that the VF does not have, before it becomes an offset or a shift.
    pub(super) fn check_number(&self, what: &str, number: u16, range: std::ops::Range<u16>) -> Result<()> {
        if range.contains(&number) {
            return Ok(());
        }
        Err(self.bad_value(format_args!("no {what} {number}: this VF has {} to {}", range.start, range.end)))
    }

    pub(super) fn arm_vector_0(&mut self) {
        if let Some(arm) = self.arm {
            // What it says is in the admin queue; only that it was read counts.
            self.bus.read32(VFINT_ICR01);
            self.write(VFINT_DYN_CTL01, arm);
        }
    }

    fn look(&mut self) -> Result<Health> {
        if self.bus.removal_requested() {
            return Ok(Health::Gone);
        }
        // First a read that tells a living device from a dead one; bus mastering costs a system call.
        let rstat = self.flush()? & RSTAT_STATE;
        // Armed before the queue is looked at: what comes later interrupts.
        self.arm_vector_0();
        let answered = self.channel.poll(&mut self.bus);
        if let Some(stats) = self.channel.stats.take() {
            self.counters.sample(stats);
        }
        match answered {
            Err(error @ Error::Gone { .. }) => return Err(error),
            Err(_) => return Ok(Health::Resetting),
            Ok(_) => {}
        }
        let in_reset = matches!(rstat, RSTAT_IN_PROGRESS | RSTAT_UNREADABLE);
        if in_reset || self.channel.state() != State::Open || !self.bus.bus_master()? {
            return Ok(Health::Resetting);
        }
        Ok(Health::Running(self.channel.link))
    }
}

impl<B: Bus> Drop for Iavf<B> {
    /// The memory of the admin queues goes with the bus, so the device is told that there are none (fact sheet iavf 6.4).
    fn drop(&mut self) {
        self.mask_interrupts();
        self.channel.close(&mut self.bus);
    }
}

impl<B: Bus> Device for Iavf<B> {
    fn bus(&mut self) -> &mut dyn Bus {
        &mut self.bus
    }

    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn want_queues(&mut self, pairs: u16) {
        self.wanted = pairs;
    }

    fn reset(&mut self, function_reset: bool) -> Result<()> {
        self.renew(function_reset)
    }

    fn is_silent(&self) -> bool {
        self.silent
    }

    fn restore(&mut self, settings: &Settings) -> Result<()> {
        self.tell_all(settings)
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<()> {
        self.tell_mac(mac)
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
        self.tell_rss(rss)
    }

    fn rss(&mut self) -> Result<Rss> {
        // No message reads it back; what the PF accepted is in force.
        self.rss.clone().ok_or_else(|| self.refused("the RSS key and table are the PF's until the port is started"))
    }

    fn start_rings(&mut self, rx: &[RingPlan], tx: &[RingPlan]) -> Result<()> {
        self.run_rings(rx, tx)
    }

    fn rx_doorbell(&mut self, queue: u16) -> Result<Doorbell> {
        self.check_number("receive queue", queue, 0..self.caps.rx_queues)?;
        self.bus.doorbell(QRX_TAIL1(queue))
    }

    fn tx_doorbell(&mut self, queue: u16) -> Result<Doorbell> {
        self.check_number("transmit queue", queue, 0..self.caps.tx_queues)?;
        self.bus.doorbell(QTX_TAIL1(queue))
    }

    /// Fires once and is masked then by the hardware; what is done meanwhile is written back all the same. What is
    /// pending stays pending: this write takes its time, and a frame may come between the thread's last look and it.
    fn arm_doorbell(&mut self, vector: u16) -> Result<(Doorbell, u32)> {
        self.check_number("interrupt vector", vector, 1..self.caps.vectors)?;
        let value = DYN_CTL_INTENA | DYN_CTL_WB_ON_ITR | dyn_ctl_interval(NO_INTERVAL);
        Ok((self.bus.doorbell(VFINT_DYN_CTLN1(vector))?, value))
    }

    /// Queues' vectors were mapped with their rings, and stay masked until a thread wants to sleep.
    fn start_interrupts(&mut self, _: &[RingPlan]) -> Result<()> {
        if self.arm.is_none() {
            self.arm = Some(DYN_CTL_INTENA | DYN_CTL_CLEARPBA | DYN_CTL_NO_ITR);
        }
        self.arm_vector_0();
        self.flush().map(drop)
    }

    fn check(&mut self) -> Health {
        // The only errors are registers that read all ones and a config space that cannot be read.
        self.look().unwrap_or(Health::Gone)
    }

    fn counters(&mut self) -> Counters {
        // A PF that does not answer is noticed by `check`.
        let _ = self.sample_counters();
        self.counters.totals()
    }
}
