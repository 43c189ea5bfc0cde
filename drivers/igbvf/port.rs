//! One opened 82576 or I350 virtual function: the trait `Device` over its registers and its mailbox.
//!
//! Owns the bus, the mailbox, and what was programmed into the function (which rings run, which address is in force).
//! The port framework calls it, always from the thread that holds the port or its control; the queues' own threads
//! get doorbells and nothing else. What always holds: every wait has a deadline, reads of all ones end in
//! [`Error::Gone`] or [`Health::Gone`], and a ring is checked against the part's limits before its address reaches a
//! register.
#![forbid(unsafe_code)]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::counters::{CounterSet, snapshot};
use super::mailbox::{MULTICAST_MAX, Mailbox, Message, multicast_hash};
use super::regs::*;
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::{ALL_ONES, Bus, Doorbell, PciId, Reg};
use crate::port::device::{Caps, Counters, Device, Health, Link, MAILBOX_VECTOR, RingKind, RingPlan, Settings};

/// Device ids (fact sheet igbvf 1).
const INTEL: u16 = 0x8086;
const ID_82576_VF: u16 = 0x10CA;
const ID_I350_VF: u16 = 0x1520;
const ID_82576_VF_HYPER_V: u16 = 0x152D;
const ID_I350_VF_HYPER_V: u16 = 0x152F;

/// Most queues per direction of either part (fact sheet igbvf 1).
const QUEUES: usize = 2;
/// Bytes of a descriptor (fact sheet igbvf 4).
const DESCRIPTOR: u32 = 16;
/// Alignment of a ring's base in bytes (fact sheet igbvf 4).
const RING_ALIGN: u64 = 128;
/// Bytes of a frame besides its MTU: Ethernet header and FCS, and two VLAN tags (fact sheet igbvf 3.3, LPE).
const FRAME_OVERHEAD: u32 = 18 + 4 + 4;
/// Highest VLAN id that a station may use (IEEE 802.1Q reserves 4095). Adding id 0 switches tag stripping off, which
/// any other id switches on (fact sheet igbvf 3.3).
const VID_MAX: u16 = 4094;

/// How long PF reset indications may stay after CTRL.RST: 200 polls of 5 us (fact sheet igbvf 3.4 step 2).
const RESET_DEADLINE: Duration = Duration::from_millis(1);
const RESET_POLL: Duration = Duration::from_micros(5);
/// How long a queue may take to stop (fact sheet igbvf 5.2).
const DISABLE_DEADLINE: Duration = Duration::from_millis(10);
const DISABLE_POLL: Duration = Duration::from_micros(100);
/// Margin for writes in flight once ENABLE reads 0 (fact sheet igbvf 5.2, an engineering choice).
const DRAIN: Duration = Duration::from_micros(100);

/// Prefetch, host and write-back thresholds. Write-back 1: the 82576 VF sometimes never writes back otherwise, and
/// more would delay completions (fact sheet igbvf 4.7, 5.6).
const RX_THRESHOLDS: u32 = thresholds(16, 8, 1);
const TX_THRESHOLDS: u32 = thresholds(8, 1, 1);

/// A locally administered address from the process's source of randomness.
fn random_mac() -> MacAddr {
    // Every RandomState has keys of its own, so the hash of nothing is a random number.
    let [mut a, b, c, d, e, f, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
    a = a & 0xFC | 0x02;
    MacAddr([a, b, c, d, e, f])
}

/// An opened 82576 or I350 virtual function.
pub(crate) struct Igbvf<B: Bus> {
    pub(super) bus: B,
    mailbox: Mailbox,
    caps: Caps,
    /// The address in force.
    mac: MacAddr,
    /// What the PF assigned at the last handshake.
    pf_mac: Option<MacAddr>,
    /// More group addresses than the PF takes: every multicast frame is accepted instead.
    multicast_overflow: bool,
    /// What the program asked of `set_promiscuous`.
    promiscuous: (bool, bool),
    /// What RDLEN and TDLEN of each running queue must read; 0 for a queue that is off.
    rx_len: [u32; QUEUES],
    tx_len: [u32; QUEUES],
    counters: CounterSet,
    /// Since the last reset that stopped every queue, none was started.
    silent: bool,
}

impl<B: Bus> Igbvf<B> {
    /// Takes over an opened function after a look at its ids and BAR. Touches no register: `reset` comes first.
    ///
    /// # Errors
    /// [`Error::Device`] for a part that this driver does not drive.
    pub(crate) fn open(bus: B) -> Result<Self> {
        let PciId { vendor, device } = bus.id();
        let (part, queues) = match (vendor, device) {
            (INTEL, ID_82576_VF) => ("82576 VF", 2),
            (INTEL, ID_I350_VF) => ("I350 VF", 1),
            (INTEL, ID_82576_VF_HYPER_V | ID_I350_VF_HYPER_V) => {
                return Err(Error::device(
                    bus.name(),
                    format!("{} is the Hyper-V variant, which is not supported", bus.id()),
                ));
            }
            _ => {
                return Err(Error::device(
                    bus.name(),
                    format!("{} is no igbvf device; this driver takes 8086:10ca and 8086:1520", bus.id()),
                ));
            }
        };
        if bus.bar_len() < BAR_LEN {
            let reason = format!("BAR0 has {} bytes instead of {BAR_LEN}; is the PF's driver up?", bus.bar_len());
            return Err(Error::device(bus.name(), reason));
        }
        let caps = Caps {
            family: "igbvf",
            part,
            rx_queues: queues,
            tx_queues: queues,
            // Fact sheet igbvf 4 and 4.7.
            ring_min: 32,
            ring_max: 4096,
            ring_multiple: 8,
            mtu_max: 9216,
            rx_buffer_granule: SRRCTL_BSIZEPKT_UNIT,
            max_segments: 255,
            // The 82576 spreads by a table of the PF that no message reads (fact sheet igbvf 1).
            rss: None,
            vectors: bus.vectors().min(VECTORS.into()) as u16,
            paired: false,
            // Fact sheet igbvf 4.4.
            rings: RingKind::Igb { big_endian_loopback_tag: device == ID_I350_VF },
        };
        Ok(Igbvf {
            bus,
            mailbox: Mailbox::new(),
            caps,
            mac: MacAddr::ZERO,
            pf_mac: None,
            multicast_overflow: false,
            promiscuous: (false, false),
            rx_len: [0; QUEUES],
            tx_len: [0; QUEUES],
            counters: CounterSet::default(),
            silent: false,
        })
    }

    /// Reads a register that never holds all ones on a living device.
    fn read(&mut self, register: Reg) -> Result<u32> {
        match self.bus.read32(register) {
            ALL_ONES => Err(Error::gone(self.bus.name())),
            value => Ok(value),
        }
    }

    fn write(&mut self, register: Reg, value: u32) {
        self.bus.write32(register, value);
    }

    /// Makes earlier writes effective, and notices a device that is gone (fact sheet igbvf 5.5).
    fn flush(&mut self) -> Result<()> {
        self.read(STATUS).map(drop)
    }

    fn queues(&self) -> std::ops::Range<u16> {
        0..self.caps.rx_queues
    }

    /// Masks every vector and drops what is pending (fact sheet igbvf 5.1 step 1).
    fn mask_interrupts(&mut self) {
        self.write(EIMC, ALL_CAUSES);
        self.write(EIAC, 0);
        self.write(EIAM, 0);
        self.bus.read32(EICR);
    }

    /// True once ENABLE of every queue reads 0, within the deadline.
    fn queues_stopped(&mut self) -> Result<bool> {
        let deadline = self.bus.now() + DISABLE_DEADLINE;
        loop {
            let mut enabled = 0;
            for n in self.queues() {
                enabled |= self.read(RXDCTL(n))? | self.read(TXDCTL(n))?;
            }
            if enabled & XDCTL_ENABLE == 0 {
                return Ok(true);
            }
            if self.bus.now() >= deadline {
                return Ok(false);
            }
            self.bus.pause(DISABLE_POLL);
        }
    }

    /// Turns every ring off and resets the function (fact sheet igbvf 5.1 steps 1 to 3, 3.4 step 1).
    fn silence(&mut self) -> Result<()> {
        self.mask_interrupts();
        for n in self.queues() {
            self.write(RXDCTL(n), 0);
            self.write(TXDCTL(n), 0);
        }
        // A queue that does not stop by itself is stopped by the reset.
        self.queues_stopped()?;
        let ctrl = self.read(CTRL)?;
        self.write(CTRL, ctrl | CTRL_RST);
        if !self.queues_stopped()? {
            self.silent = false;
            let ms = DISABLE_DEADLINE.as_millis();
            return Err(Error::device(
                self.bus.name(),
                format!("a queue still runs {ms} ms after CTRL.RST; remove the VF and create it again on the host"),
            ));
        }
        self.bus.pause(DRAIN);
        self.silent = true;
        Ok(())
    }

    /// Waits until the PF is out of its own reset (fact sheet igbvf 3.4 step 2).
    fn wait_for_pf(&mut self) -> Result<()> {
        let deadline = self.bus.now() + RESET_DEADLINE;
        while self.mailbox.pf_resets(&mut self.bus)? {
            if self.bus.now() >= deadline {
                return Err(Error::timeout(
                    self.bus.name(),
                    "the PF is in reset (RSTI); trying again helps unless its driver is unloaded or its interface down",
                ));
            }
            self.bus.pause(RESET_POLL);
        }
        Ok(())
    }

    /// True while every running queue has the length it was given: a reset of the port or the function clears them.
    fn rings_intact(&mut self) -> Result<bool> {
        let mut intact = true;
        for n in self.queues() {
            let i = usize::from(n);
            if self.rx_len[i] != 0 {
                intact &= self.read(RDLEN(n))? == self.rx_len[i];
            }
            if self.tx_len[i] != 0 {
                intact &= self.read(TDLEN(n))? == self.tx_len[i];
            }
        }
        Ok(intact)
    }

    fn runs(&self) -> bool {
        self.rx_len.iter().chain(&self.tx_len).any(|&len| len != 0)
    }

    /// Samples the counters while a running queue vouches for the registers: those of a function that was reset or has
    /// lost its BARs read 0, which would count as a wrap.
    fn sample_counters(&mut self) {
        if !self.runs() || !matches!(self.rings_intact(), Ok(true)) {
            return;
        }
        let now = snapshot(&mut self.bus);
        // It may have happened while we read.
        if matches!(self.rings_intact(), Ok(true)) {
            self.counters.sample(now);
        }
    }

    /// Refuses a queue or vector that the part does not have, before it becomes an offset or a shift.
    fn check_number(&self, what: &str, number: u16, count: u16) -> Result<()> {
        if number < count {
            return Ok(());
        }
        let part = self.caps.part;
        Err(Error::Config(format!("{}: no {what} {number}: the {part} has {count}", self.bus.name())))
    }

    /// Refuses a ring that the part cannot do, before its address reaches a register.
    fn check_ring(&self, ring: &RingPlan, granule: u16) -> Result<()> {
        let Caps { ring_min, ring_max, ring_multiple, .. } = self.caps;
        let fits = ring.queue < self.caps.rx_queues
            && (ring_min..=ring_max).contains(&ring.entries)
            && ring.entries.is_multiple_of(ring_multiple)
            && ring.base.0.is_multiple_of(RING_ALIGN)
            && ring.buffer_len.is_multiple_of(granule);
        if fits {
            return Ok(());
        }
        Err(Error::Config(format!(
            "{}: {ring:?} does not fit the {}: {} queues, {ring_min} to {ring_max} descriptors in multiples of \
             {ring_multiple}, base aligned to {RING_ALIGN}, buffers in multiples of {granule} bytes",
            self.bus.name(),
            self.caps.part,
            self.caps.rx_queues
        )))
    }

    fn refused(&self, reason: impl Into<String>) -> Error {
        Error::device(self.bus.name(), reason)
    }

    /// True when the PF did what was asked, false when it does not permit it.
    fn ask(&mut self, message: Message<'_>) -> Result<bool> {
        Ok(self.mailbox.request(&mut self.bus, message)?.granted)
    }

    /// Tells the PF which frames to accept unfiltered.
    fn send_promiscuous(&mut self) -> Result<()> {
        let unicast = self.promiscuous.0;
        let multicast = self.promiscuous.1 | self.multicast_overflow;
        let answer = self.mailbox.request(&mut self.bus, Message::Promiscuous { unicast, multicast })?;
        if multicast && !answer.multicast_honoured() {
            return Err(self.refused("the PF does not let this VF receive all multicast frames"));
        }
        if unicast && !answer.granted {
            self.promiscuous.0 = false;
            return Err(self.refused(
                "the PF does not let this VF receive all unicast frames: the igb driver never does; \
                 add the addresses that are needed instead",
            ));
        }
        Ok(())
    }

    /// Programs and enables a transmit ring, tail 0.
    fn start_tx(&mut self, ring: &RingPlan) -> Result<()> {
        self.check_ring(ring, 1)?;
        let n = ring.queue;
        let len = u32::from(ring.entries) * DESCRIPTOR;
        self.write(TDBAL(n), ring.base.0 as u32);
        self.write(TDBAH(n), (ring.base.0 >> 32) as u32);
        self.write(TDLEN(n), len);
        self.write(TDH(n), 0);
        self.write(TDT(n), 0);
        // A relaxed-ordered write-back could pass the ones before it.
        let txctl = self.read(TXCTL(n))?;
        self.write(TXCTL(n), txctl & !TXCTL_WRITE_BACK_RELAXED);
        // No reset is known to clear head write-back, and with it on the device would not write DD.
        self.write(TDWBAL(n), 0);
        self.write(TDWBAH(n), 0);
        self.silent = false;
        self.write(TXDCTL(n), XDCTL_ENABLE | TX_THRESHOLDS);
        self.flush()?;
        self.tx_len[usize::from(n)] = len;
        Ok(())
    }

    /// Programs and enables a receive ring, tail 0.
    fn start_rx(&mut self, ring: &RingPlan) -> Result<()> {
        self.check_ring(ring, self.caps.rx_buffer_granule)?;
        if ring.buffer_len == 0 {
            // A size of 0 would mean whatever the PF uses itself.
            return Err(Error::Config(format!("{}: receive buffers of 0 bytes", self.bus.name())));
        }
        let n = ring.queue;
        let len = u32::from(ring.entries) * DESCRIPTOR;
        let buffer_units = u32::from(ring.buffer_len / SRRCTL_BSIZEPKT_UNIT);
        self.write(RDBAL(n), ring.base.0 as u32);
        self.write(RDBAH(n), (ring.base.0 >> 32) as u32);
        self.write(RDLEN(n), len);
        self.write(SRRCTL(n), SRRCTL_DROP_EN | SRRCTL_DESCTYPE_ADVANCED | buffer_units);
        // Before ENABLE, while both are still ours; equal means empty until the queue's thread rings.
        self.write(RDH(n), 0);
        self.write(RDT(n), 0);
        self.silent = false;
        self.write(RXDCTL(n), XDCTL_ENABLE | RX_THRESHOLDS);
        self.flush()?;
        self.rx_len[usize::from(n)] = len;
        Ok(())
    }

    fn look(&mut self) -> Result<Health> {
        if self.bus.removal_requested() {
            return Ok(Health::Gone);
        }
        // First a read that tells a living device from a dead one; bus mastering costs a system call.
        let status = Status::from_bits_retain(self.read(STATUS)?);
        if !self.mailbox.service(&mut self.bus)? || !self.bus.bus_master()? || !self.rings_intact()? {
            return Ok(Health::Resetting);
        }
        let up = status.contains(Status::LU);
        Ok(Health::Running(Link {
            up,
            speed_mbps: if up { status.speed_mbps() } else { 0 },
            full_duplex: up && status.contains(Status::FD),
        }))
    }
}

impl<B: Bus> Device for Igbvf<B> {
    fn bus(&mut self) -> &mut dyn Bus {
        &mut self.bus
    }

    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn mac(&self) -> MacAddr {
        self.mac
    }

    fn reset(&mut self, function_reset: bool) -> Result<()> {
        self.sample_counters();
        self.rx_len = [0; QUEUES];
        self.tx_len = [0; QUEUES];
        self.multicast_overflow = false;
        self.promiscuous = (false, false);
        self.mailbox.close();
        if function_reset {
            // Without a reset method CTRL.RST alone has to do.
            self.silent |= self.bus.reset_function()?;
        }
        // FLR and a reset of the PF through sysfs both clear it, and the BARs read 0 until Memory Space is back.
        self.bus.set_bus_master(true)?;
        self.flush()?;
        self.silence()?;
        let pf = self.wait_for_pf();
        self.mask_interrupts();
        pf?;
        self.pf_mac = self.mailbox.handshake(&mut self.bus)?;
        self.mac = match self.pf_mac {
            Some(mac) => mac,
            // A PF forgets an address that its administrator did not set. Ours stays the same for the port's whole life.
            None if self.mac.is_valid_station() => self.mac,
            None => random_mac(),
        };
        let base = snapshot(&mut self.bus);
        self.flush()?;
        self.counters.rebase(base);
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.silent
    }

    fn restore(&mut self, settings: &Settings) -> Result<()> {
        match settings.mac {
            Some(mac) => self.set_mac(mac)?,
            // Nobody asked for it: a refusal leaves the PF's address, or ours where the PF has none, in force.
            None => {
                self.ask(Message::SetMac(self.mac))?;
            }
        }
        self.set_multicast(&settings.multicast)?;
        self.set_unicast(&settings.unicast)?;
        for &vid in &settings.vlans {
            self.set_vlan(vid, true)?;
        }
        if settings.mtu > self.caps.mtu_max {
            let reason = format!(
                "an MTU of {} is too large; the {} takes up to {}",
                settings.mtu, self.caps.part, self.caps.mtu_max
            );
            return Err(Error::Config(format!("{}: {reason}", self.bus.name())));
        }
        if !self.ask(Message::MaxFrame(u32::from(settings.mtu) + FRAME_OVERHEAD))? {
            let reason = format!("the PF refused frames for an MTU of {}; ask for a smaller one", settings.mtu);
            return Err(self.refused(reason));
        }
        if settings.promiscuous || settings.all_multicast {
            self.set_promiscuous(settings.promiscuous, settings.all_multicast)?;
        }
        Ok(())
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<()> {
        if !mac.is_valid_station() {
            return Err(Error::Config(format!("{}: {mac} is no station address", self.bus.name())));
        }
        if !self.ask(Message::SetMac(mac))? && self.pf_mac != Some(mac) {
            return Err(self.refused(format!(
                "the PF refused the MAC address {mac}: the host fixed another one; \
                 `ip link set dev PF vf N mac {mac}` on the host"
            )));
        }
        self.mac = mac;
        Ok(())
    }

    fn set_vlan(&mut self, vid: u16, on: bool) -> Result<()> {
        if vid > VID_MAX {
            return Err(Error::Config(format!("{}: VLAN ids are 0 to {VID_MAX}, not {vid}", self.bus.name())));
        }
        if !self.ask(Message::Vlan { vid, on })? {
            return Err(self.refused(format!(
                "the PF refused VLAN {vid}: the host set a port VLAN on this VF, or the port's filters are in use; \
                 `ip link set dev PF vf N vlan 0` on the host clears the former"
            )));
        }
        Ok(())
    }

    fn set_multicast(&mut self, list: &[MacAddr]) -> Result<()> {
        let mut hashes: Vec<u16> = list.iter().copied().map(multicast_hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let overflow = hashes.len() > MULTICAST_MAX;
        hashes.truncate(MULTICAST_MAX);
        if !self.ask(Message::Multicast(&hashes))? {
            return Err(self.refused("the PF refused the list of multicast addresses"));
        }
        // What does not fit the message is received by receiving all.
        if overflow != self.multicast_overflow {
            self.multicast_overflow = overflow;
            self.send_promiscuous()?;
        }
        Ok(())
    }

    fn set_unicast(&mut self, list: &[MacAddr]) -> Result<()> {
        // Some PFs refuse to clear an empty list; what counts is whether they take the addresses.
        self.ask(Message::ClearUnicast(self.mac))?;
        for &mac in list {
            if !mac.is_valid_station() {
                return Err(Error::Config(format!("{}: {mac} is no station address", self.bus.name())));
            }
            if !self.ask(Message::AddUnicast(mac))? {
                return Err(self.refused(format!(
                    "the PF refused the additional address {mac}: it has few filters left, or the host fixed this VF's \
                     address; `ip link set dev PF vf N trust on` on the host helps with the latter"
                )));
            }
        }
        Ok(())
    }

    fn set_promiscuous(&mut self, unicast: bool, multicast: bool) -> Result<()> {
        self.promiscuous = (unicast, multicast);
        self.send_promiscuous()
    }

    fn start_rings(&mut self, rx: &[RingPlan], tx: &[RingPlan]) -> Result<()> {
        tx.iter().try_for_each(|ring| self.start_tx(ring))?;
        rx.iter().try_for_each(|ring| self.start_rx(ring))
    }

    fn rx_doorbell(&mut self, queue: u16) -> Result<Doorbell> {
        self.check_number("receive queue", queue, self.caps.rx_queues)?;
        self.bus.doorbell(RDT(queue))
    }

    fn tx_doorbell(&mut self, queue: u16) -> Result<Doorbell> {
        self.check_number("transmit queue", queue, self.caps.tx_queues)?;
        self.bus.doorbell(TDT(queue))
    }

    fn arm_doorbell(&mut self, vector: u16) -> Result<(Doorbell, u32)> {
        self.check_number("vector", vector, VECTORS)?;
        Ok((self.bus.doorbell(EIMS)?, 1 << vector))
    }

    /// Receive vectors are routed with auto-clear and auto-mask and left masked: the queue's thread unmasks its own with
    /// one write of `arm_doorbell` each time before it sleeps. The mailbox's vector is unmasked here and stays so.
    fn start_interrupts(&mut self, rx: &[RingPlan]) -> Result<()> {
        let vectors = rx.iter().filter_map(|ring| ring.vector.map(|vector| (ring.queue, vector)));
        let (mut ivar0, mut rx_causes) = (0, 0);
        for (queue, vector) in vectors {
            self.check_number("receive queue", queue, self.caps.rx_queues)?;
            self.check_number("vector", vector, VECTORS)?;
            ivar0 |= (IVAR_VALID | u32::from(vector)) << (16 * queue);
            rx_causes |= 1 << vector;
        }
        let mailbox_cause = 1 << MAILBOX_VECTOR;
        self.write(IVAR0, ivar0);
        self.write(IVAR_MISC, IVAR_VALID | u32::from(MAILBOX_VECTOR));
        for vector in 0..VECTORS {
            // No throttle: a vector fires once and is masked until its thread wants the next one.
            self.write(EITR(vector), 0);
        }
        self.bus.read32(EICR);
        self.write(EIAC, rx_causes | mailbox_cause);
        self.write(EIAM, rx_causes & !mailbox_cause);
        self.write(EIMS, mailbox_cause);
        self.flush()
    }

    fn check(&mut self) -> Health {
        // The only errors are registers that read all ones and a config space that cannot be read.
        self.look().unwrap_or(Health::Gone)
    }

    fn counters(&mut self) -> Counters {
        self.sample_counters();
        self.counters.totals()
    }
}
