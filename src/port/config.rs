//! What a program asks of a port, and the checks that it can be had.

#![forbid(unsafe_code)]

use super::device::{Caps, Settings};
use crate::addr::MacAddr;
use crate::error::{Error, Result};

/// Descriptors per ring unless asked otherwise.
pub const DEFAULT_RING: u16 = 512;
/// Payload bytes of a frame unless asked otherwise.
pub const DEFAULT_MTU: u16 = 1500;
/// Smallest MTU: what IPv4 demands of a link.
const MIN_MTU: u16 = 68;
/// Ethernet header and two VLAN tags, in bytes: what a sent frame may have beyond its MTU (the FCS is the device's).
const FRAME_OVERHEAD: u32 = 14 + 8;

/// What a program asks of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    pub(crate) rx_queues: u16,
    pub(crate) tx_queues: u16,
    pub(crate) rx_ring: u16,
    pub(crate) tx_ring: u16,
    pub(crate) settings: Settings,
    pub(crate) rx_info: bool,
    pub(crate) tx_offloads: bool,
    pub(crate) vector_bits: u16,
    pub(crate) interrupts: bool,
    pub(crate) symmetric_rss: bool,
}

impl Default for PortConfig {
    fn default() -> Self {
        Self::new()
    }
}

impl PortConfig {
    /// One queue each way, rings of [`DEFAULT_RING`], an MTU of [`DEFAULT_MTU`], polling, no metadata, no offloads.
    pub fn new() -> PortConfig {
        PortConfig {
            rx_queues: 1,
            tx_queues: 1,
            rx_ring: DEFAULT_RING,
            tx_ring: DEFAULT_RING,
            settings: Settings {
                mac: None,
                mtu: DEFAULT_MTU,
                vlans: Default::default(),
                multicast: Vec::new(),
                unicast: Vec::new(),
                promiscuous: false,
                all_multicast: false,
                rss: None,
            },
            rx_info: false,
            tx_offloads: false,
            vector_bits: u16::MAX,
            interrupts: false,
            symmetric_rss: false,
        }
    }

    /// Receive and transmit queues; each at least 1 and at most what the VF has.
    pub fn queues(mut self, rx: u16, tx: u16) -> Self {
        (self.rx_queues, self.tx_queues) = (rx, tx);
        self
    }

    /// Descriptors per receive and transmit ring.
    pub fn rings(mut self, rx: u16, tx: u16) -> Self {
        (self.rx_ring, self.tx_ring) = (rx, tx);
        self
    }

    /// Largest payload of a frame in bytes, without Ethernet header, VLAN tags and FCS.
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.settings.mtu = mtu;
        self
    }

    /// Station address to ask the PF for. Without this the PF's choice is taken, or a random one where it has none.
    pub fn mac(mut self, mac: MacAddr) -> Self {
        self.settings.mac = Some(mac);
        self
    }

    /// Ask for every unicast frame. PFs grant this to trusted VFs only; a refusal fails the start.
    pub fn promiscuous(mut self, on: bool) -> Self {
        self.settings.promiscuous = on;
        self
    }

    /// Ask for every multicast frame.
    pub fn all_multicast(mut self, on: bool) -> Self {
        self.settings.all_multicast = on;
        self
    }

    /// Fill the [`RxInfo`](crate::RxInfo) of every received packet.
    pub fn rx_info(mut self, on: bool) -> Self {
        self.rx_info = on;
        self
    }

    /// Obey the [`TxInfo`](crate::TxInfo) of packets that are sent.
    pub fn tx_offloads(mut self, on: bool) -> Self {
        self.tx_offloads = on;
        self
    }

    /// Use no vector instructions wider than so many bits, 0 for none at all. By default queues, and caches of pools made for
    /// the port, use the widest that the CPU has and they have loops for ([`widest_vectors`](crate::widest_vectors)). Packets are the same either way.
    pub fn vector_bits(mut self, most: u16) -> Self {
        self.vector_bits = most;
        self
    }

    /// Give every receive queue an interrupt vector, so that it can [sleep](crate::AnyRx::sleep).
    pub fn interrupts(mut self, on: bool) -> Self {
        self.interrupts = on;
        self
    }

    /// Hash both directions of a flow alike, so that they come to the same queue number (of two ports with as many queues).
    /// Refused where the VF's hash key cannot be set.
    pub fn symmetric_rss(mut self, on: bool) -> Self {
        self.symmetric_rss = on;
        self
    }

    /// Largest frame to send, in bytes, without FCS.
    pub(crate) fn max_frame(&self) -> u32 {
        u32::from(self.settings.mtu) + FRAME_OVERHEAD
    }

    /// Refuses what the VF cannot do, with both numbers.
    pub(crate) fn check(&self, name: &str, caps: &Caps) -> Result<()> {
        let refuse = |text: String| Err(Error::Config(format!("{name}: {text}")));
        for (what, asked, has) in
            [("receive", self.rx_queues, caps.rx_queues), ("transmit", self.tx_queues, caps.tx_queues)]
        {
            if asked == 0 || asked > has {
                return refuse(format!("{asked} {what} queues were asked for; this {} has {has}", caps.part));
            }
        }
        let fixed_rss = caps.rss.is_some_and(|rss| !rss.settable);
        if fixed_rss && !self.rx_queues.is_power_of_two() {
            return refuse(format!(
                "{} receive queues: this {} spreads flows by its PF's table, so their number is a power of two",
                self.rx_queues, caps.part
            ));
        }
        if self.symmetric_rss && !caps.rss.is_some_and(|rss| rss.settable) {
            return refuse(format!("symmetric RSS needs a hash key of the VF's own, which this {} lacks", caps.part));
        }
        for (what, asked) in [("receive", self.rx_ring), ("transmit", self.tx_ring)] {
            if !(caps.ring_min..=caps.ring_max).contains(&asked) || asked % caps.ring_multiple != 0 {
                return refuse(format!(
                    "a {what} ring of {asked} descriptors: {} to {} in multiples of {} are possible",
                    caps.ring_min, caps.ring_max, caps.ring_multiple
                ));
            }
        }
        let mtu = self.settings.mtu;
        if !(MIN_MTU..=caps.mtu_max).contains(&mtu) {
            return refuse(format!("an MTU of {mtu} bytes: {MIN_MTU} to {} are possible", caps.mtu_max));
        }
        if let Some(mac) = self.settings.mac.filter(|mac| !mac.is_valid_station()) {
            return refuse(format!("{mac} cannot be a station's address (it is zero or a group address)"));
        }
        if self.interrupts && self.rx_queues >= caps.vectors {
            return refuse(format!(
                "interrupts for {} receive queues and the mailbox need {} vectors; this VF has {}: use fewer queues or poll",
                self.rx_queues,
                self.rx_queues + 1,
                caps.vectors
            ));
        }
        Ok(())
    }
}
