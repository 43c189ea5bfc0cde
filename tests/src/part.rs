//! The parts that the suites run over: for each the facts that show at the surface of the library, and how to model it.
//!
//! A test asks a part for its facts and knows no part by name, unless it is about that part. What always holds: the facts are
//! those of the fact sheets, and no number here comes from a driver.

use vfring::drivers::sim::{AvfOptions, AvfPart, IgbOptions, IxgbeOptions, IxgbePart, Part as IgbPart, PortId, World};
use vfring::{Checksum, MacAddr};

/// A VF as a test knows it: which driver and model it is. What the suites need to know of the datasheet is in its
/// [`Facts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// igbvf, two queues.
    I82576,
    /// igbvf, one queue.
    I350,
    /// ixgbevf, generation A.
    I82599,
    /// ixgbevf, generation B: RSS of its own.
    X550,
    /// iavf behind an i40e PF: legacy descriptors, no write-back on ITR.
    Xl710,
    /// iavf behind an ice PF: flex descriptors, written back in batches.
    E810,
    /// iavf behind an ice PF in double-VLAN mode, with the second generation of queue messages.
    E810Qinq,
}

/// The parts that are tested: one of each descriptor quirk, number of queues and generation.
pub const PARTS: [Part; 7] =
    [Part::I82576, Part::I350, Part::I82599, Part::X550, Part::Xl710, Part::E810, Part::E810Qinq];

/// What differs among parts and shows at the surface of the library: what the suites expect is derived from it.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// The driver.
    pub family: &'static str,
    /// What the driver calls it.
    pub name: &'static str,
    /// Its value of the key `part` in a spec.
    pub key: &'static str,
    /// Queues in each direction that the PF grants: unasked, and at most.
    pub queues: (u16, u16),
    /// Queues in each direction that the driver refuses to exceed before it has heard of the PF.
    pub queues_known: u16,
    /// Smallest and largest ring, in descriptors, and what all are multiples of.
    pub rings: (u16, u16, u16),
    /// Receive buffers are filled up to a multiple of so many bytes, and a frame spans so many at most.
    pub buffers: (usize, usize),
    /// Most buffers of a sent frame, or of a segment that TSO makes of it.
    pub segments: usize,
    /// Descriptors of a transmit ring that are taken by a context which every frame refers to.
    pub plain_contexts: usize,
    /// Largest MTU, in bytes.
    pub mtu_max: u16,
    /// Bytes of tags that are sure to come in besides the MTU.
    pub tags: usize,
    /// The longest frame is the VF's own affair; elsewhere a VF only raises the port's limit.
    pub own_frame_limit: bool,
    /// Bits of the octet counters.
    pub octet_bits: u32,
    /// Loopback frames are counted apart.
    pub counts_loopback: bool,
    /// Speed of the model's link, in Mb/s.
    pub speed_mbps: u32,
    /// What is said of a bad UDP checksum: an 82599's word is not believed, as it says the same of datagrams without one.
    pub bad_udp: Checksum,
    /// What is said of a UDP datagram without a checksum.
    pub no_udp_checksum: Checksum,
    /// What is said of the L4 checksum behind IPv6 extension headers: an iavf device's word is not believed.
    pub behind_extensions: Checksum,
    /// IPv4 options are told.
    pub tells_options: bool,
    /// Smallest and largest MSS.
    pub mss: (u16, u16),
    /// Longest L2 header, in bytes.
    pub l2_len_max: u8,
    /// Longest headers of all layers of a frame to segment, in bytes.
    pub headers_max: Option<u16>,
    /// Frames of every VLAN come in until the first VLAN is added.
    pub hears_all_vlans: bool,
    /// Group addresses that fit a message; with more, every group is accepted. `None`: each is a filter of its own.
    pub groups: Option<u8>,
    /// Unicast filters that are taken before a list is refused; 0 where a list is taken or refused in whole.
    pub unicast_before_refusal: usize,
    /// The PF lets a VF that is trusted receive every unicast frame.
    pub promiscuous: bool,
    /// The PF says so when it lets a VF that is not trusted receive less than that asked for.
    pub says_no: bool,
    /// The VF has an RSS key and table of its own.
    pub sets_rss: bool,
    /// A done descriptor without a length may be the echo of an earlier one; elsewhere something else tells.
    pub empty_may_be_echo: bool,
    /// A reset stops queues that ignore their enable bit.
    pub reset_stops_queues: bool,
}

const I82576: Facts = Facts {
    family: "igbvf",
    name: "82576 VF",
    key: "82576",
    queues: (2, 2),
    queues_known: 2,
    rings: (32, 4096, 8),
    buffers: (1024, usize::MAX),
    segments: 255,
    plain_contexts: 0,
    mtu_max: 9216,
    tags: 8,
    own_frame_limit: true,
    octet_bits: 32,
    counts_loopback: true,
    speed_mbps: 1000,
    bad_udp: Checksum::Bad,
    no_udp_checksum: Checksum::Unchecked,
    behind_extensions: Checksum::Good,
    tells_options: true,
    mss: (1, 9216),
    l2_len_max: 127,
    headers_max: Some(512),
    hears_all_vlans: false,
    groups: Some(30),
    unicast_before_refusal: 3,
    promiscuous: false,
    says_no: true,
    sets_rss: false,
    empty_may_be_echo: true,
    reset_stops_queues: true,
};
const I350: Facts = Facts { name: "I350 VF", key: "i350", queues: (1, 1), queues_known: 1, ..I82576 };

const X550: Facts = Facts {
    family: "ixgbevf",
    name: "X550 VF",
    key: "x550",
    queues: (4, 4),
    queues_known: 8,
    rings: (64, 8192, 8),
    segments: 40,
    plain_contexts: 1,
    mtu_max: 9702,
    own_frame_limit: false,
    octet_bits: 36,
    counts_loopback: false,
    speed_mbps: 10_000,
    mss: (1, 9728),
    headers_max: None,
    // What its port has left.
    unicast_before_refusal: 3,
    sets_rss: true,
    // Fact sheet ixgbevf 2.4.
    reset_stops_queues: false,
    ..I82576
};
const I82599: Facts =
    Facts { name: "82599 VF", key: "82599", tags: 0, bad_udp: Checksum::Unchecked, sets_rss: false, ..X550 };

const XL710: Facts = Facts {
    family: "iavf",
    name: "XL710 VF",
    key: "xl710",
    queues: (4, 16),
    queues_known: 16,
    rings: (64, 8096, 32),
    buffers: (128, 5),
    segments: 8,
    plain_contexts: 0,
    own_frame_limit: true,
    octet_bits: 64,
    speed_mbps: 40_000,
    no_udp_checksum: Checksum::Good,
    behind_extensions: Checksum::Unchecked,
    tells_options: false,
    mss: (256, 9668),
    l2_len_max: 254,
    hears_all_vlans: true,
    groups: None,
    unicast_before_refusal: 0,
    promiscuous: true,
    says_no: false,
    // There is no enable bit.
    reset_stops_queues: true,
    ..X550
};
const E810: Facts =
    Facts { name: "adaptive VF", key: "e810", queues: (16, 16), speed_mbps: 25_000, empty_may_be_echo: false, ..XL710 };

impl Part {
    /// What is to be known of it.
    pub fn facts(self) -> &'static Facts {
        match self {
            Part::I82576 => &I82576,
            Part::I350 => &I350,
            Part::I82599 => &I82599,
            Part::X550 => &X550,
            Part::Xl710 => &XL710,
            Part::E810 | Part::E810Qinq => &E810,
        }
    }

    /// True for the parts that igbvf drives.
    pub fn is_igb(self) -> bool {
        self.facts().family == "igbvf"
    }

    /// True for the parts that iavf drives.
    pub fn is_iavf(self) -> bool {
        self.facts().family == "iavf"
    }

    /// Longest frame without FCS that is sure to come in with this MTU.
    pub fn longest_frame(self, mtu: u16) -> usize {
        usize::from(mtu) + 14 + self.facts().tags
    }

    /// Bytes of a buffer with this room that the device fills.
    pub fn fills(self, room: u16) -> usize {
        let granule = self.facts().buffers.0;
        usize::from(room) / granule * granule
    }

    /// The largest MTU up to this one with which every frame fits the buffers that it may span.
    pub fn mtu_of_buffers(self, room: u16, mtu: u16) -> u16 {
        let spans = self.fills(room).saturating_mul(self.facts().buffers.1);
        mtu.min(spans.saturating_sub(14 + 8).try_into().unwrap_or(u16::MAX))
    }
}

/// A VF to add to a world: its part, and what its PF does with it.
#[derive(Clone, Debug)]
pub struct Vf {
    /// The part.
    pub part: Part,
    /// The address that the PF assigns.
    pub mac: Option<MacAddr>,
    /// The host fixed it.
    pub mac_fixed: bool,
    /// The PF spreads flows over the queues of an igb VF. Others do by themselves.
    pub rss: bool,
    /// The host trusts the VF; an igb PF knows no trust.
    pub trusted: bool,
    /// The PF of an ixgbe VF is promiscuous itself: else it lets no VF be.
    pub pf_promiscuous: bool,
}

impl Vf {
    /// Adds it to a world.
    pub fn add_to(self, world: &World) -> PortId {
        let Vf { part, mac, mac_fixed, rss, trusted, pf_promiscuous } = self;
        let igb = |part| world.add_igbvf(IgbOptions { part, mac, mac_fixed, rss, ..IgbOptions::default() });
        // Jumbo frames are the port's affair on an 82599, so its PF has them.
        let ixgbe = |part| {
            let jumbo = part == IxgbePart::I82599;
            let options = IxgbeOptions { part, mac, mac_fixed, trusted, jumbo, ..IxgbeOptions::default() };
            world.add_ixgbevf(IxgbeOptions { query_rss: true, pf_promiscuous, ..options })
        };
        let avf = |part, double| {
            let options = AvfOptions { mac, mac_fixed, trusted, ..AvfOptions::new(part) };
            let batched = part == AvfPart::E810;
            world.add_iavf(AvfOptions { double_vlan: double, large_queues: double, batched, ..options })
        };
        match part {
            Part::I82576 => igb(IgbPart::I82576),
            Part::I350 => igb(IgbPart::I350),
            Part::I82599 => ixgbe(IxgbePart::I82599),
            Part::X550 => ixgbe(IxgbePart::X550),
            Part::Xl710 => avf(AvfPart::Xl710, false),
            Part::E810 => avf(AvfPart::E810, false),
            Part::E810Qinq => avf(AvfPart::E810, true),
        }
    }
}
