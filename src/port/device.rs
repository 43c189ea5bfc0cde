//! What a NIC family implements so that the port framework can drive it: the trait [`Device`].
//!
//! The framework owns the life cycle, the settings to restore and the queues' state; a family owns its registers and
//! its mailbox. Nothing here touches ring memory. A `Device` is only ever called by the thread that holds the
//! port or its control.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::rss::{NO_RSS, Rss, RssCaps};
use crate::addr::{Iova, MacAddr};
use crate::error::{Error, Result};
use crate::mmio::{Bus, Doorbell};

/// What a function can do, known once it is opened.
#[derive(Clone, Debug)]
pub(crate) struct Caps {
    /// Driver's name: `igbvf`.
    pub family: &'static str,
    /// The part: `82576 VF`.
    pub part: &'static str,
    /// Receive queues of this VF.
    pub rx_queues: u16,
    /// Transmit queues of this VF.
    pub tx_queues: u16,
    /// Smallest ring, in descriptors.
    pub ring_min: u16,
    /// Largest ring, in descriptors.
    pub ring_max: u16,
    /// Rings are a multiple of this many descriptors.
    pub ring_multiple: u16,
    /// Largest MTU in bytes.
    pub mtu_max: u16,
    /// Receive buffers are a multiple of this many bytes.
    pub rx_buffer_granule: u16,
    /// Most buffers that one sent frame may span.
    pub max_segments: u8,
    /// How the VF can spread flows over its receive queues; `None` where that is the PF's affair alone.
    pub rss: Option<RssCaps>,
    /// MSI-X vectors that the VF may use.
    pub vectors: u16,
    /// The receive and the transmit queue of a number are programmed by one act, so neither starts without the other
    /// while that one may still touch the device.
    pub paired: bool,
    /// The descriptor formats of the rings.
    pub rings: RingKind,
}

/// Which descriptor formats a family's rings have: what gives a port's queues their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RingKind {
    /// 82576 and I350.
    #[cfg(feature = "igbvf")]
    Igb {
        /// The I350's byte order of VLAN tags on loopback frames (igbvf.md 4.4).
        big_endian_loopback_tag: bool,
    },
    /// 82599 and its successors.
    #[cfg(feature = "ixgbevf")]
    Ixgbe {
        /// The 82599's verdict on UDP datagrams without a checksum (ixgbevf.md 4.2).
        udp_without_checksum_flagged: bool,
    },
    /// XL710, X722 and the 800 series.
    #[cfg(feature = "iavf")]
    Avf {
        /// Receive descriptors are flex ones, RXDID 22, not legacy ones (iavf.md 5.3, 5.4).
        flex: bool,
        /// Stripped tags are in the second L2TAG2 of receive descriptors (iavf.md 5.4).
        rx_tag_in_l2tag2: bool,
        /// Where tags to insert go: the parameter of the transmit format (iavf.md 5.4).
        tx_tag: u8,
    },
}

impl RingKind {
    /// 64-bit words of a receive descriptor; those of transmit descriptors are 2 in every family.
    pub(crate) fn rx_words(self) -> usize {
        match self {
            #[cfg(feature = "igbvf")]
            RingKind::Igb { .. } => 2,
            #[cfg(feature = "ixgbevf")]
            RingKind::Ixgbe { .. } => 2,
            #[cfg(feature = "iavf")]
            RingKind::Avf { .. } => 4,
        }
    }
}

/// What the program asked of the VF; the framework keeps it and restores it after every reset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The station address asked for; `None` keeps the PF's, or a random one where the PF gave none.
    pub mac: Option<MacAddr>,
    /// Largest payload of a frame, in bytes, without Ethernet header, VLAN tags and FCS.
    pub mtu: u16,
    /// Accepted VLAN ids.
    pub vlans: std::collections::BTreeSet<u16>,
    /// Accepted group addresses.
    pub multicast: Vec<MacAddr>,
    /// Accepted unicast addresses besides the station address.
    pub unicast: Vec<MacAddr>,
    /// Accept every unicast frame.
    pub promiscuous: bool,
    /// Accept every multicast frame.
    pub all_multicast: bool,
    /// How flows are spread: always there where the VF's RSS can be set, and never where not.
    pub rss: Option<Rss>,
}

/// One ring to program into the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingPlan {
    /// Queue number.
    pub queue: u16,
    /// Where the device sees the first descriptor.
    pub base: Iova,
    /// Descriptors in the ring.
    pub entries: u16,
    /// Bytes of a receive buffer, a multiple of the granule (0 for transmit).
    pub buffer_len: u16,
    /// The vector of the ring's interrupts, where they are wanted: never [`MAILBOX_VECTOR`].
    pub vector: Option<u16>,
}

/// The vector of the PF's channel; receive queue q has vector q + 1 where it has one.
pub(crate) const MAILBOX_VECTOR: u16 = 0;

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Link {
    /// Frames can pass.
    pub up: bool,
    /// Speed in Mb/s; 0 while down.
    pub speed_mbps: u32,
    /// Full duplex.
    pub full_duplex: bool,
}

/// The device's own counters since the port was opened, extended to 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Octets received, FCS included; on iavf with those of `rx_missed`.
    pub rx_octets: u64,
    /// Octets sent, FCS included.
    pub tx_octets: u64,
    /// Multicast frames received.
    pub rx_multicast: u64,
    /// Frames for this VF that found no receive buffer and are in no other count of frames; `None` where the hardware does
    /// not tell a VF (all but iavf).
    pub rx_missed: Option<u64>,
    /// Frames received from other functions of the same port; part of `rx_packets`.
    pub rx_loopback_packets: u64,
    /// Frames sent to other functions of the same port; part of `tx_packets`.
    pub tx_loopback_packets: u64,
    /// Octets received from other functions of the same port.
    pub rx_loopback_octets: u64,
    /// Octets sent to other functions of the same port.
    pub tx_loopback_octets: u64,
}

/// What a check of the device found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// All is well; the link is as given.
    Running(Link),
    /// The PF resets, or no longer considers the VF clear to send, or the device lost its rings or its bus mastering.
    Resetting,
    /// Registers read all ones, or the kernel wants the device back.
    Gone,
}

/// One opened virtual function of some family.
pub(crate) trait Device: Send {
    /// The bus, for DMA maps, vectors and time.
    fn bus(&mut self) -> &mut dyn Bus;
    /// What the function can do.
    fn caps(&self) -> &Caps;
    /// The station address in force; valid after `reset`.
    fn mac(&self) -> MacAddr;

    /// Says how many queues the program wants each way, before the first `reset`: where the PF grants fewer, a family may
    /// ask it for them.
    fn want_queues(&mut self, _: u16) {}
    /// Stops everything the device does and shakes hands with the PF anew: function reset where there is one (only when
    /// `function_reset`), Bus Master, the family's own reset, interrupts masked. Afterwards no queue runs and every
    /// setting is lost. Bounded by the family's deadlines; a PF that is not ready is an [`Error::Timeout`](crate::Error),
    /// to be tried again.
    fn reset(&mut self, function_reset: bool) -> Result<()>;
    /// True when the device does no DMA: a reset got as far as stopping every queue, whatever it returned in the end, and
    /// none was started since. Memory that the device was given may be used again only while this is so.
    fn is_silent(&self) -> bool;
    /// Tells the PF all of `settings`. Called after `reset`, before queues start. Refusals of what was only inherited
    /// (a MAC that the PF fixes) are no errors.
    fn restore(&mut self, settings: &Settings) -> Result<()>;

    /// Asks the PF for this station address.
    fn set_mac(&mut self, mac: MacAddr) -> Result<()>;
    /// Adds or removes a VLAN id.
    fn set_vlan(&mut self, vid: u16, on: bool) -> Result<()>;
    /// Replaces the list of group addresses.
    fn set_multicast(&mut self, list: &[MacAddr]) -> Result<()>;
    /// Replaces the list of additional unicast addresses.
    fn set_unicast(&mut self, list: &[MacAddr]) -> Result<()>;
    /// Asks for promiscuous and all-multicast reception.
    fn set_promiscuous(&mut self, unicast: bool, multicast: bool) -> Result<()>;
    /// Programs key and table, which fit the VF's [`RssCaps`]. Only for families whose capabilities say `settable`;
    /// `restore` does it too.
    fn set_rss(&mut self, _: &Rss) -> Result<()> {
        Err(Error::Config(format!("{}: {NO_RSS}", self.bus().name())))
    }
    /// The key and table in force, asked of the device or the PF. For families that have RSS capabilities.
    fn rss(&mut self) -> Result<Rss> {
        Err(Error::Config(format!("{}: {NO_RSS}", self.bus().name())))
    }

    /// Programs and enables rings, transmit first, each with tail 0: a queue's thread arms descriptors and writes the tail
    /// later. Called once after `restore` with the rings of all queues that have let go, and again for each that lets
    /// go later (for both of a number in a call where the queues are [paired](Caps::paired)). After an error some may run,
    /// until the next reset.
    fn start_rings(&mut self, rx: &[RingPlan], tx: &[RingPlan]) -> Result<()>;
    /// The tail register of a receive queue.
    fn rx_doorbell(&mut self, queue: u16) -> Result<Doorbell>;
    /// The tail register of a transmit queue.
    fn tx_doorbell(&mut self, queue: u16) -> Result<Doorbell>;
    /// The register and the value that unmask a vector, for the thread that sleeps on it.
    fn arm_doorbell(&mut self, vector: u16) -> Result<(Doorbell, u32)>;
    /// Routes and unmasks interrupts: each receive queue to the vector in its plan, the PF's channel to
    /// [`MAILBOX_VECTOR`].
    fn start_interrupts(&mut self, rx: &[RingPlan]) -> Result<()>;

    /// Looks after the device: mailbox, signs of a reset, link. Never blocks.
    fn check(&mut self) -> Health;
    /// The counters so far. Samples the hardware only while it answers; must be called at least every
    /// [`COUNTER_PERIOD`].
    fn counters(&mut self) -> Counters;
}

/// Octet counters of 32 bits wrap after 34 s at 1 Gb/s, so they are sampled at least this often (igbvf.md 2.4).
pub(crate) const COUNTER_PERIOD: Duration = Duration::from_secs(10);
