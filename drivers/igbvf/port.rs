//! One opened 82576 or I350 virtual function: the trait `Device` over its registers and its mailbox.
//!
//! Owns the bus, the mailbox, and what was programmed into the function (which rings run, which address is in force).
//! The port framework calls it, always from the thread that holds the port or its control; the queues' own threads
//! get doorbells and nothing else. What always holds: every wait has a deadline, reads of all ones end in
//! [`Error::Gone`] or [`Health::Gone`], and a ring is checked against the part's limits before its address reaches a
//! register.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::counters::{IgbTotals, counters, snapshot, totals};
use super::intel::function::{CTRL, CTRL_RST, DESCRIPTOR, Function, INTEL, Layout, STATUS};
use super::intel::interrupts::VECTORS;
use super::intel::mailbox::granted;
use super::messages::{MAILBOX, add_unicast, clear_unicast, multicast_honoured, promiscuous};
use super::regs::*;
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::{Bus, Doorbell, PciId};
use crate::port::device::{Caps, Counters, Device, Health, Link, RingKind, RingPlan, Settings};

/// Device ids (fact sheet igbvf 1).
const ID_82576_VF: u16 = 0x10CA;
const ID_I350_VF: u16 = 0x1520;
const ID_82576_VF_HYPER_V: u16 = 0x152D;
const ID_I350_VF_HYPER_V: u16 = 0x152F;

/// Bytes of a frame besides its MTU: Ethernet header and FCS, and two VLAN tags (fact sheet igbvf 3.3, LPE).
const FRAME_OVERHEAD: u32 = 18 + 4 + 4;

/// Which bits of a group address the PF hashes: always the same here (fact sheet igbvf 3.3).
const MULTICAST_FILTER_TYPE: u32 = 0;

/// How long a queue may take to stop (fact sheet igbvf 5.2).
const DISABLE_DEADLINE: Duration = Duration::from_millis(10);
const DISABLE_POLL: Duration = Duration::from_micros(100);
/// Margin for writes in flight once ENABLE reads 0 (fact sheet igbvf 5.2, an engineering choice).
const DRAIN: Duration = Duration::from_micros(100);

/// Prefetch, host and write-back thresholds. Write-back 1: the 82576 VF sometimes never writes back otherwise, and
/// more would delay completions (fact sheet igbvf 4.7, 5.6).
const RX_THRESHOLDS: u32 = thresholds(16, 8, 1);
const TX_THRESHOLDS: u32 = thresholds(8, 1, 1);

/// An opened 82576 or I350 virtual function.
pub(crate) struct Igbvf<B: Bus> {
    pub(super) vf: Function<B>,
    /// More group addresses than the PF takes: every multicast frame is accepted instead.
    multicast_overflow: bool,
    /// What the program asked of `set_promiscuous`.
    promiscuous: (bool, bool),
    totals: IgbTotals,
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
            // The 82576 spreads by a table of the PF that no message reads (fact sheet igbvf 2.5).
            rss: None,
            vectors: bus.vectors().min(VECTORS.into()) as u16,
            paired: false,
            // Fact sheet igbvf 4.4.
            rings: RingKind::Igb { big_endian_loopback_tag: device == ID_I350_VF },
        };
        let layout = Layout {
            protocol: MAILBOX,
            interrupts: INTERRUPTS,
            rdlen: RDLEN,
            tdlen: TDLEN,
            rxdctl: RXDCTL,
            txdctl: TXDCTL,
            enable: XDCTL_ENABLE,
            queues,
        };
        Ok(Igbvf {
            vf: Function::new(bus, layout, caps)?,
            multicast_overflow: false,
            promiscuous: (false, false),
            totals: totals(),
        })
    }

    /// Turns every ring off and resets the function (fact sheet igbvf 5.1 steps 1 to 3, 3.4 step 1).
    fn silence(&mut self) -> Result<()> {
        self.vf.mask_interrupts();
        for n in self.vf.queues() {
            self.vf.write(RXDCTL(n), 0);
            self.vf.write(TXDCTL(n), 0);
        }
        // A queue that does not stop by itself is stopped by the reset.
        self.vf.queues_stopped(DISABLE_DEADLINE, DISABLE_POLL)?;
        let ctrl = self.vf.read(CTRL)?;
        self.vf.write(CTRL, ctrl | CTRL_RST);
        if !self.vf.queues_stopped(DISABLE_DEADLINE, DISABLE_POLL)? {
            self.vf.silent = false;
            let ms = DISABLE_DEADLINE.as_millis();
            let reason =
                format!("a queue still runs {ms} ms after CTRL.RST; remove the VF and create it again on the host");
            return Err(self.vf.refused(reason));
        }
        self.vf.bus.pause(DRAIN);
        self.vf.silent = true;
        Ok(())
    }

    fn sample_counters(&mut self) {
        if let Some(now) = self.vf.vouched(snapshot) {
            self.totals.sample(now);
        }
    }

    /// Tells the PF which frames to accept unfiltered.
    fn send_promiscuous(&mut self) -> Result<()> {
        let unicast = self.promiscuous.0;
        let multicast = self.promiscuous.1 | self.multicast_overflow;
        let [word0] = self.vf.mailbox.request(&mut self.vf.bus, &promiscuous(unicast, multicast))?;
        if multicast && !multicast_honoured(word0) {
            return Err(self.vf.refused("the PF does not let this VF receive all multicast frames"));
        }
        if unicast && !granted(word0) {
            self.promiscuous.0 = false;
            return Err(self.vf.refused(
                "the PF does not let this VF receive all unicast frames: the igb driver never does; \
                 add the addresses that are needed instead",
            ));
        }
        Ok(())
    }

    /// Programs and enables a transmit ring, tail 0.
    fn start_tx(&mut self, ring: &RingPlan) -> Result<()> {
        self.vf.check_ring(ring, self.vf.caps.tx_queues, 1)?;
        let n = ring.queue;
        let len = u32::from(ring.entries) * DESCRIPTOR;
        self.vf.write(TDBAL(n), ring.base.0 as u32);
        self.vf.write(TDBAH(n), (ring.base.0 >> 32) as u32);
        self.vf.write(TDLEN(n), len);
        self.vf.write(TDH(n), 0);
        self.vf.write(TDT(n), 0);
        // A relaxed-ordered write-back could pass the ones before it.
        let txctl = self.vf.read(TXCTL(n))?;
        self.vf.write(TXCTL(n), txctl & !TXCTL_WRITE_BACK_RELAXED);
        // No reset is known to clear head write-back, and with it on the device would not write DD.
        self.vf.write(TDWBAL(n), 0);
        self.vf.write(TDWBAH(n), 0);
        self.vf.silent = false;
        self.vf.write(TXDCTL(n), XDCTL_ENABLE | TX_THRESHOLDS);
        self.vf.flush()?;
        self.vf.ring_runs(ring, false);
        Ok(())
    }

    /// Programs and enables a receive ring, tail 0.
    fn start_rx(&mut self, ring: &RingPlan) -> Result<()> {
        self.vf.check_ring(ring, self.vf.caps.rx_queues, self.vf.caps.rx_buffer_granule)?;
        if ring.buffer_len == 0 {
            // A size of 0 would mean whatever the PF uses itself.
            return Err(self.vf.nonsense("receive buffers of 0 bytes"));
        }
        let n = ring.queue;
        let len = u32::from(ring.entries) * DESCRIPTOR;
        let buffer_units = u32::from(ring.buffer_len / SRRCTL_BSIZEPKT_UNIT);
        self.vf.write(RDBAL(n), ring.base.0 as u32);
        self.vf.write(RDBAH(n), (ring.base.0 >> 32) as u32);
        self.vf.write(RDLEN(n), len);
        self.vf.write(SRRCTL(n), SRRCTL_DROP_EN | SRRCTL_DESCTYPE_ADVANCED | buffer_units);
        // Before ENABLE, while both are still ours; equal means empty until the queue's thread rings.
        self.vf.write(RDH(n), 0);
        self.vf.write(RDT(n), 0);
        self.vf.silent = false;
        self.vf.write(RXDCTL(n), XDCTL_ENABLE | RX_THRESHOLDS);
        self.vf.flush()?;
        self.vf.ring_runs(ring, true);
        Ok(())
    }

    fn look(&mut self) -> Result<Health> {
        if self.vf.bus.removal_requested() {
            return Ok(Health::Gone);
        }
        // First a read that tells a living device from a dead one; bus mastering costs a system call.
        let status = Status::from_bits_retain(self.vf.read(STATUS)?);
        if !self.vf.mailbox.service(&mut self.vf.bus)? || !self.vf.bus.bus_master()? || !self.vf.rings_intact()? {
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
        self.vf.forget();
        self.vf.begin_reset(function_reset)?;
        self.silence()?;
        let pf = self.vf.wait_for_pf();
        self.vf.mask_interrupts();
        pf?;
        self.vf.handshake()?;
        let base = snapshot(&mut self.vf.bus);
        self.vf.flush()?;
        self.totals.rebase(base);
        Ok(())
    }

    fn is_silent(&self) -> bool {
        self.vf.silent
    }

    fn restore(&mut self, settings: &Settings) -> Result<()> {
        self.vf.restore_mac(settings)?;
        self.set_multicast(&settings.multicast)?;
        self.set_unicast(&settings.unicast)?;
        for &vid in &settings.vlans {
            self.set_vlan(vid, true)?;
        }
        self.vf.restore_mtu(settings, u32::from(settings.mtu) + FRAME_OVERHEAD)?;
        if settings.promiscuous || settings.all_multicast {
            self.set_promiscuous(settings.promiscuous, settings.all_multicast)?;
        }
        Ok(())
    }

    fn set_mac(&mut self, mac: MacAddr) -> Result<()> {
        self.vf.set_mac(mac)
    }

    fn set_vlan(&mut self, vid: u16, on: bool) -> Result<()> {
        // Any id but 0 makes the PF strip tags (fact sheet igbvf 3.3).
        self.vf.set_vlan(vid, on)
    }

    fn set_multicast(&mut self, list: &[MacAddr]) -> Result<()> {
        let overflow = self.vf.set_multicast(list, MULTICAST_FILTER_TYPE)?;
        // What does not fit the message is received by receiving all.
        if overflow != self.multicast_overflow {
            self.multicast_overflow = overflow;
            self.send_promiscuous()?;
        }
        Ok(())
    }

    fn set_unicast(&mut self, list: &[MacAddr]) -> Result<()> {
        // Some PFs refuse to clear an empty list; what counts is whether they take the addresses.
        self.vf.ask(clear_unicast(self.vf.mac))?;
        list.iter().try_for_each(|&mac| self.vf.add_unicast(mac, add_unicast(mac)))
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
        self.vf.check_number("receive queue", queue, self.vf.caps.rx_queues)?;
        self.vf.bus.doorbell(RDT(queue))
    }

    fn tx_doorbell(&mut self, queue: u16) -> Result<Doorbell> {
        self.vf.check_number("transmit queue", queue, self.vf.caps.tx_queues)?;
        self.vf.bus.doorbell(TDT(queue))
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
