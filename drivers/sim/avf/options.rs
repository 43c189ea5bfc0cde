//! What a modelled Adaptive VF is: the part, the PF behind it, and what the host has decided about it.
//!
//! Owns the differences between the parts that are numbers. What the PFs do differently is in `pf`, by
//! [`AvfPart::is_ice`].
#![forbid(unsafe_code)]

use super::regs;
use crate::addr::MacAddr;
use crate::mmio::PciId;

/// Which VF is modelled, and with it which PF answers: they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AvfPart {
    /// XL710, X710 or XXV710 VF, 8086:154c, behind an i40e PF.
    Xl710,
    /// X722 VF, 8086:37cd, behind an i40e PF.
    X722,
    /// VF of E810, E82x or E830, 8086:1889, behind an ice PF.
    E810,
}

impl AvfPart {
    pub(super) fn id(self) -> PciId {
        let device = match self {
            AvfPart::Xl710 => 0x154c,
            AvfPart::X722 => 0x37cd,
            AvfPart::E810 => 0x1889,
        };
        PciId { vendor: 0x8086, device }
    }

    /// Behind an ice PF; else behind an i40e PF.
    pub(super) fn is_ice(self) -> bool {
        self == AvfPart::E810
    }

    /// MSI-X vectors of the function, vector 0 included (iavf 1).
    pub(super) fn vectors(self) -> usize {
        if self.is_ice() { 17 } else { 5 }
    }

    pub(super) fn queues(self) -> usize {
        if self.is_ice() { 16 } else { 4 }
    }

    /// Link speed in Mb/s, and as the bit of a driver that did not ask for that (iavf 4.4).
    pub(super) fn speed(self) -> (u32, u32) {
        match self {
            AvfPart::Xl710 => (40_000, 0x10),
            AvfPart::X722 => (10_000, 0x08),
            AvfPart::E810 => (25_000, 0x40),
        }
    }
}

/// What a modelled Adaptive VF is like, and what its PF does with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvfOptions {
    /// The part.
    pub part: AvfPart,
    /// Queue pairs that the PF grants at first, 1 to 16; a VF may request others.
    pub queues: usize,
    /// The station address that the PF reports; `None`: the host set none, and the PF reports zeros, except an i40e PF to a
    /// VF that asks for USO (fact sheet iavf 4.3).
    pub mac: Option<MacAddr>,
    /// The host set the address administratively: an untrusted VF may add no other unicast address.
    pub mac_fixed: bool,
    /// The host trusts the VF: it may be promiscuous, and has no limits on filters.
    pub trusted: bool,
    /// Double-VLAN mode of an ice PF: outer tags are stripped to and inserted from L2TAG2.
    pub double_vlan: bool,
    /// An ice PF grants LARGE_NUM_QPAIRS: the V2 messages for queues and their vectors.
    pub large_queues: bool,
    /// The PF's driver is that of the upstream kernel, else Intel's own: they differ in status codes (i40e), in what they
    /// answer to requests that they refuse, and in the length of GET_VF_RESOURCES (i40e).
    pub in_tree: bool,
    /// Receive descriptor profiles that an ice PF offers, a bit each; the model has 1, 2 and 22.
    pub rxdids: u64,
    /// Completed descriptors are kept until there are four, unless the queue's vector has WB_ON_ITR or an interrupt.
    pub batched: bool,
}

impl AvfOptions {
    /// Defaults for a part: 4 queue pairs on the 700 series and 16 on the 800 series, an assigned address, no trust.
    pub fn new(part: AvfPart) -> Self {
        AvfOptions {
            part,
            queues: part.queues(),
            mac: Some(MacAddr([0x02, 0x56, 0x46, 0, 0, 1])),
            mac_fixed: false,
            trusted: false,
            double_vlan: false,
            large_queues: false,
            in_tree: false,
            rxdids: 1 << regs::RXDID_LEGACY | 1 << regs::RXDID_NIC | 1 << regs::RXDID_OVS,
            batched: false,
        }
    }
}
