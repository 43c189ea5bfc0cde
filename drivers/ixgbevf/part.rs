//! The parts whose VFs this driver takes, and what differs between them.
//!
//! Owns the ids (fact sheet ixgbevf 1); `port.rs` asks it at open. What always holds: what a part can do is known from its
//! device id alone.
#![forbid(unsafe_code)]

use super::intel::function::INTEL;
use super::regs::{VFLINKS_NON_STD, VFLINKS_SPEED_SHIFT};
use crate::mmio::PciId;

/// One part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    I82599,
    X540,
    X550,
    X550EmX,
    X550EmA,
    E610,
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Known(Part),
    /// A VF under Hyper-V, whose PF has no mailbox (fact sheet ixgbevf 3.6).
    HyperV,
    Unknown,
}

impl Part {
    /// Looks an id up. (An E610 VF under Hyper-V has the same id; its PF's silence gives it away.)
    pub(super) fn identify(id: PciId) -> Identity {
        if id.vendor != INTEL {
            return Identity::Unknown;
        }
        match id.device {
            0x10ED => Identity::Known(Part::I82599),
            0x1515 => Identity::Known(Part::X540),
            0x1565 => Identity::Known(Part::X550),
            0x15A8 => Identity::Known(Part::X550EmX),
            0x15C5 => Identity::Known(Part::X550EmA),
            0x57AD => Identity::Known(Part::E610),
            0x152E | 0x1530 | 0x1564 | 0x15A9 | 0x15B4 => Identity::HyperV,
            _ => Identity::Unknown,
        }
    }

    /// The part's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::I82599 => "82599 VF",
            Part::X540 => "X540 VF",
            Part::X550 => "X550 VF",
            Part::X550EmX => "X550EM_x VF",
            Part::X550EmA => "X550EM_a VF",
            Part::E610 => "E610 VF",
        }
    }

    /// RSS registers of its own, odd link speeds, and a PF that watches for malicious drivers.
    pub(super) fn is_generation_b(self) -> bool {
        !matches!(self, Part::I82599 | Part::X540)
    }

    /// Speed of the link in Mb/s that VFLINKS tells; 0 for a code that the part does not have (fact sheet ixgbevf 2.3).
    pub(super) fn speed_mbps(self, links: u32) -> u32 {
        let odd = links & VFLINKS_NON_STD != 0;
        match links >> VFLINKS_SPEED_SHIFT & 3 {
            3 if odd && self.is_generation_b() => 2_500,
            3 => 10_000,
            2 => 1_000,
            1 if odd && self == Part::X550 => 5_000,
            1 => 100,
            _ if self.is_generation_b() => 10,
            _ => 0,
        }
    }
}
