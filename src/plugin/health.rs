//! Whether a device can be given to a pod, and why not.
//!
//! Owns the conditions, and the patience before a change of them is believed. Called when a device is advertised, at
//! every scan, and once more when it is handed out.
#![forbid(unsafe_code)]

use std::fmt;

use crate::host::Host;
use crate::pci::{self, GroupMember, IommuGroup, PciFunction};

use super::inventory::Candidate;

/// Scans in a row that must agree before a device changes its health: one may fall into the middle of a rebind.
const PATIENCE: u8 = 2;

/// Why a device cannot be given to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// It is no longer there.
    Gone,
    /// Sysfs cannot be read; the text says what.
    Unreadable(String),
    /// Its configuration space reads all ones.
    Silent,
    /// It has no IOMMU group.
    NoGroup,
    /// It has no IOMMU, and the pool does not allow that.
    NoIommu,
    /// It is bound to another driver than vfio-pci, or to none.
    Driver(Option<String>),
    /// Other devices of its group are in use by the kernel.
    NotViable {
        /// The group.
        group: u32,
        /// All members.
        members: Vec<GroupMember>,
    },
    /// The node of its group is missing.
    NodeMissing(String),
    /// Its group belongs to another device that is advertised.
    Represented(String),
}

/// Whether kubelet may hand out a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It may.
    Healthy,
    /// It may not.
    Unhealthy(Cause),
}

/// Health that changes only when [`PATIENCE`] scans in a row say so.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) health: Health,
    differing: u8,
}

/// How a pod reaches a device that is fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    pub(super) group: u32,
    pub(super) no_iommu: bool,
}

impl Access {
    /// The node's name on the host.
    pub(super) fn host_node(self) -> String {
        let prefix = if self.no_iommu { "noiommu-" } else { "" };
        format!("{prefix}{}", self.group)
    }
}

impl Tracked {
    pub(super) fn new() -> Self {
        Tracked { health: Health::Healthy, differing: 0 }
    }

    /// Whether the last scan said the same.
    pub(super) fn is_settled(&self) -> bool {
        self.differing == 0
    }

    /// Takes what a scan says; true when the device turned healthy or unhealthy.
    pub(super) fn observe(&mut self, seen: Health) -> bool {
        let is_healthy = |health: &Health| *health == Health::Healthy;
        if is_healthy(&seen) == is_healthy(&self.health) {
            self.differing = 0;
            // The cause may have changed: that needs no patience.
            self.health = seen;
            return false;
        }
        self.differing += 1;
        let believed = self.differing >= PATIENCE;
        if believed {
            *self = Tracked { health: seen, differing: 0 };
        }
        believed
    }
}

/// Checks that a device that was read can be given to a pod.
pub(super) fn examine(host: &Host, device: &Candidate, allow_no_iommu: bool) -> Result<Access, Cause> {
    if !device.answers {
        return Err(Cause::Silent);
    }
    let group = check_binding(&device.function)?;
    if group.no_iommu && !allow_no_iommu {
        return Err(Cause::NoIommu);
    }
    if group.spoilers().next().is_some() {
        return Err(Cause::NotViable { group: group.number, members: group.members.clone() });
    }
    let access = Access { group: group.number, no_iommu: group.no_iommu };
    let node = host.vfio_node(&access.host_node());
    match node.exists() {
        true => Ok(access),
        false => Err(Cause::NodeMissing(node.display().to_string())),
    }
}

/// A group, and vfio-pci on the device itself. The group comes first: without an IOMMU vfio-pci refuses to bind.
fn check_binding(function: &PciFunction) -> Result<&IommuGroup, Cause> {
    let Some(group) = &function.iommu_group else { return Err(Cause::NoGroup) };
    match function.driver.as_deref() {
        Some(driver) if pci::is_vfio_driver(driver) => Ok(group),
        driver => Err(Cause::Driver(driver.map(str::to_owned))),
    }
}

impl Cause {
    /// One word for metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Cause::Gone => "gone",
            Cause::Unreadable(_) => "unreadable",
            Cause::Silent => "silent",
            Cause::NoGroup => "no_group",
            Cause::NoIommu => "no_iommu",
            Cause::Driver(_) => "driver",
            Cause::NotViable { .. } => "not_viable",
            Cause::NodeMissing(_) => "node_missing",
            Cause::Represented(_) => "represented",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Gone => f.write_str("it is gone from the PCI bus; `vfring vf create` makes VFs"),
            Cause::Unreadable(text) => write!(f, "sysfs cannot be read: {text}"),
            Cause::Silent => f.write_str("its configuration space reads all ones: it was pulled, or its PF is off"),
            Cause::NoGroup => {
                f.write_str("it has no IOMMU group, so the IOMMU is off; `vfring doctor` says how to turn it on")
            }
            Cause::NoIommu => f.write_str(
                "it has no IOMMU, so its pod could reach all memory of the host; \
                 to accept that, set \"allowNoIommu\": true in its pool",
            ),
            Cause::Driver(Some(driver)) => {
                write!(f, "it is bound to {driver}, not to vfio-pci; `vfring bind` binds it")
            }
            Cause::Driver(None) => f.write_str("it is bound to no driver; `vfring bind` binds it to vfio-pci"),
            Cause::NotViable { group, members } => {
                let list: Vec<String> = members.iter().map(GroupMember::to_string).collect();
                write!(
                    f,
                    "its IOMMU group {group} is shared with a device that the kernel uses; the members are {}; a slot \
                     with ACS gives each VF a group of its own",
                    list.join(", ")
                )
            }
            Cause::NodeMissing(node) => write!(f, "{node} is missing; is vfio-pci loaded, and /dev/vfio mounted here?"),
            Cause::Represented(text) => f.write_str(text),
        }
    }
}
