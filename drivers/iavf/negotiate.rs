//! What the PF grants this VF: version, resources, descriptor formats, VLAN offloads.
//!
//! Owns the questions that come before everything else (fact sheet iavf 4.5) and what their answers mean for the driver.
//! `port.rs` calls [`negotiate`] once after each reset of the VF: PFs answer GET_VF_RESOURCES only once. What always holds:
//! nothing that was not granted is used, and numbers of the PF are cut to what the driver can handle.
#![forbid(unsafe_code)]

use super::channel::Channel;
use super::desc::{TAG_IN_CONTEXT, TAG_IN_DATA, TAG_NOWHERE};
use super::virtchnl::*;
use crate::error::{Error, Result};
use crate::mmio::Bus;
use crate::port::device::RingKind;
use crate::port::rss::RssCaps;

/// Most queues each way: what the messages with bitmaps can name (fact sheet iavf 4.4, ENABLE_QUEUES).
pub(super) const QUEUES: u16 = 16;
/// Longest frame of either series in bytes, FCS and tags included (fact sheet iavf 5.6).
const FRAME_MAX: u16 = 9728;
/// Bytes of a frame besides its MTU: Ethernet header, FCS and two VLAN tags (fact sheet iavf 5.6).
pub(super) const FRAME_OVERHEAD: u16 = 14 + FCS + 8;
/// Bytes of a frame's check sequence (IEEE 802.3).
pub(super) const FCS: u16 = 4;
/// Longest RSS key and table, in bytes: what fits a message.
const RSS_MAX: u32 = 4096 - 5;

/// What the driver asks for. RX_POLLING is not among it: it makes some i40e PFs refuse everything (fact sheet iavf 4.3).
const WANTED: Cap = Cap::L2
    .union(Cap::WB_ON_ITR)
    .union(Cap::REQ_QUEUES)
    .union(Cap::ADV_LINK_SPEED)
    .union(Cap::LARGE_NUM_QPAIRS)
    .union(Cap::VLAN_V2)
    .union(Cap::VLAN)
    .union(Cap::RSS_PF)
    .union(Cap::RX_FLEX_DESC);

/// How VLAN filters and offloads are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vlan {
    /// Not at all.
    No,
    /// By the first generation of messages; tags are in L2TAG1.
    V1,
    /// By the second generation, as these say. The first must not be used then.
    V2(VlanCaps),
}

/// What the PF granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub resources: Resources,
    pub vlan: Vlan,
    /// The receive descriptor format.
    pub rxdid: u8,
}

impl Grant {
    pub(super) fn has(&self, cap: Cap) -> bool {
        self.resources.caps.contains(cap)
    }

    /// Queue pairs that the driver can use.
    pub(super) fn queues(&self) -> u16 {
        self.resources.pairs.min(QUEUES)
    }

    /// The vector that queues share while they are polled. Without write-back on ITR descriptors wait for an interrupt,
    /// and vector 0 is the one that is looked after (fact sheet iavf 4.5, 6.6).
    pub(super) fn polling_vector(&self) -> u16 {
        u16::from(self.has(Cap::WB_ON_ITR) && self.resources.vectors > 1)
    }

    pub(super) fn mtu_max(&self) -> u16 {
        let frame = match self.resources.max_frame {
            0 => FRAME_MAX,
            frame => frame.min(FRAME_MAX),
        };
        frame.saturating_sub(FRAME_OVERHEAD)
    }

    pub(super) fn rss(&self) -> Option<RssCaps> {
        let Resources { rss_key, rss_table, .. } = self.resources;
        let fits = |len| (1..=RSS_MAX).contains(&len);
        let usable = self.has(Cap::RSS_PF) && fits(rss_key) && fits(rss_table);
        usable.then_some(RssCaps { key_len: rss_key as u16, table_len: rss_table as u16, settable: true })
    }

    /// The tag that the PF filters by, strips, and inserts.
    pub(super) fn filter_tag(&self) -> Option<Tag> {
        self.tag(|caps| caps.filtering)
    }

    pub(super) fn strip_tag(&self) -> Option<Tag> {
        self.tag(|caps| caps.stripping)
    }

    pub(super) fn insert_tag(&self) -> Option<Tag> {
        self.tag(|caps| caps.insertion)
    }

    fn tag(&self, of: impl Fn(VlanCaps) -> Support) -> Option<Tag> {
        match self.vlan {
            Vlan::No => None,
            Vlan::V1 => Some(Tag { outer: false, bits: VLAN_8100 | VLAN_L2TAG1 | VLAN_TOGGLE }),
            Vlan::V2(caps) => of(caps).tag(),
        }
    }

    pub(super) fn rings(&self) -> RingKind {
        // Linux's order: L2TAG1 where it is possible (fact sheet iavf 5.4).
        let tx_tag = match self.insert_tag().map_or(0, |tag| tag.bits) {
            bits if bits & VLAN_L2TAG1 != 0 => TAG_IN_DATA,
            bits if bits & VLAN_L2TAG2 != 0 => TAG_IN_CONTEXT,
            _ => TAG_NOWHERE,
        };
        let strip = self.strip_tag().map_or(0, |tag| tag.bits);
        RingKind::Avf {
            flex: self.rxdid == RXDID_COMMS_OVS,
            rx_tag_in_l2tag2: strip & VLAN_L2TAG1 == 0 && strip & VLAN_L2TAG2_2 != 0,
            tx_tag,
        }
    }
}

/// Agrees on a version, asks for resources, and for what depends on them.
///
/// # Errors
/// [`Error::Device`] where the PF refuses, answers nonsense or speaks another version; those of [`Channel::request`].
pub(super) fn negotiate<B: Bus>(channel: &mut Channel, bus: &mut B) -> Result<Grant> {
    let nonsense = |bus: &B, what: &str| Error::device(bus.name(), format!("the PF's answer grants {what}"));
    let reply = channel.demand(bus, Opcode::Version, &version(), "the PF refused to agree on a version")?;
    let (major, minor) = parse_version(&reply).ok_or_else(|| nonsense(bus, "a version that is too short"))?;
    if major != VERSION.0 || minor > VERSION.1 {
        let reason = format!("the PF speaks virtchnl {major}.{minor}; this driver speaks {}.{}", VERSION.0, VERSION.1);
        return Err(Error::device(bus.name(), reason));
    }
    let request = if minor == 0 { Vec::new() } else { get_vf_resources(WANTED) };
    let refusal = "the PF refused to grant resources";
    let reply = channel.demand(bus, Opcode::GetVfResources, &request, refusal)?;
    let resources = parse_resources(&reply).map_err(|what| nonsense(bus, what))?;
    channel.advanced_speed = resources.caps.contains(Cap::ADV_LINK_SPEED) && minor > 0;
    channel.established();
    let mut vlan = Vlan::No;
    if resources.caps.contains(Cap::VLAN_V2) {
        let reply = channel.request(bus, Opcode::GetOffloadVlanV2Caps, &[])?;
        vlan = parse_vlan_caps(&reply.payload).filter(|_| reply.status == 0).map_or(Vlan::No, Vlan::V2);
    } else if resources.caps.contains(Cap::VLAN) {
        vlan = Vlan::V1;
    }
    let mut rxdid = RXDID_LEGACY;
    if resources.caps.contains(Cap::RX_FLEX_DESC) {
        let reply = channel.request(bus, Opcode::GetSupportedRxdids, &[])?;
        let offered = parse_u64(&reply.payload).filter(|_| reply.status == 0).unwrap_or(0);
        if offered & 1 << RXDID_COMMS_OVS != 0 {
            rxdid = RXDID_COMMS_OVS;
        }
    }
    Ok(Grant { resources, vlan, rxdid })
}
