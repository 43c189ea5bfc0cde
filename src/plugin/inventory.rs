//! What a host has: every function that a pool could hold, read once.
//!
//! Owns reading sysfs for the plugin. Selection, health and explanations work on an [`Inventory`] and read nothing more,
//! so that all of them speak of one moment. What always holds: one broken or vanishing function hides no other.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::PciAddress;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::pci::{Interface, PciFunction, SysfsRoot};

use super::config::DeviceType;

/// A function that a pool could hold, with all that selectors ask for.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What it is.
    pub function: PciFunction,
    /// The first interface of its PF, or its own if it is no VF.
    pub pf_name: Option<String>,
    /// Its PF, or itself if it is no VF.
    pub root: PciAddress,
    /// Its ACPI index.
    pub acpi_index: Option<String>,
    /// The type of its link (`ether`), from its own interface, or its PF's while it has none.
    pub link_type: Option<String>,
    /// False when its configuration space reads all ones.
    pub answers: bool,
}

/// All that a host had when it was read.
#[derive(Debug)]
pub struct Inventory {
    /// Network controllers and processing accelerators, by address; PFs too.
    pub candidates: BTreeMap<PciAddress, Candidate>,
    /// Functions that are there and cannot be read, with the reason.
    pub broken: BTreeMap<PciAddress, Error>,
}

impl DeviceType {
    /// The PCI class, the topmost byte of three.
    fn class(self) -> u32 {
        match self {
            DeviceType::NetDevice => 0x02,
            DeviceType::Accelerator => 0x12,
        }
    }

    /// Whether a function is of this type.
    pub fn matches(self, function: &PciFunction) -> bool {
        function.class >> 16 == self.class()
    }
}

impl Candidate {
    /// The function's PF by its address.
    pub fn pf(&self) -> Option<PciAddress> {
        self.function.vf.map(|vf| vf.pf)
    }

    /// The number among the VFs of its PF.
    pub fn index(&self) -> Option<u32> {
        self.function.vf.and_then(|vf| vf.index)
    }

    /// A PF that has VFs: it is their control and never handed out.
    pub fn is_pf_with_vfs(&self) -> bool {
        self.function.sriov.is_some_and(|sriov| sriov.num_vfs > 0)
    }
}

impl Inventory {
    /// Reads what a host has.
    ///
    /// # Errors
    /// [`Error::Os`] when PCI functions cannot be listed at all.
    pub fn scan(host: &Host) -> Result<Inventory> {
        Ok(Inventory::of(host, host.sysfs.functions()?))
    }

    /// Reads some functions only. One that is not there is in neither list.
    pub(super) fn read(host: &Host, addresses: impl IntoIterator<Item = PciAddress>) -> Inventory {
        Inventory::of(host, host.sysfs.read_all(addresses))
    }

    /// The PFs of all VFs.
    pub fn pfs(&self) -> BTreeSet<PciAddress> {
        self.candidates.values().filter_map(Candidate::pf).collect()
    }

    fn of(host: &Host, functions: impl IntoIterator<Item = (PciAddress, Result<PciFunction>)>) -> Inventory {
        let sysfs = &host.sysfs;
        let (mut candidates, mut broken) = (BTreeMap::new(), BTreeMap::new());
        let mut interfaces: BTreeMap<PciAddress, Vec<Interface>> = BTreeMap::new();
        for (address, function) in functions {
            let candidate = function.and_then(|function| {
                if ![DeviceType::NetDevice, DeviceType::Accelerator].iter().any(|kind| kind.matches(&function)) {
                    return Ok(None);
                }
                read_candidate(sysfs, function, &mut interfaces).map(Some)
            });
            match candidate {
                Ok(Some(candidate)) => drop(candidates.insert(address, candidate)),
                Ok(None) => {}
                // What vanishes while it is read is not broken.
                Err(_) if !sysfs.directory(address).exists() => {}
                Err(error) => drop(broken.insert(address, error)),
            }
        }
        Inventory { candidates, broken }
    }
}

fn read_candidate(
    sysfs: &SysfsRoot,
    function: PciFunction,
    known: &mut BTreeMap<PciAddress, Vec<Interface>>,
) -> Result<Candidate> {
    let address = function.address;
    let root = function.vf.map_or(address, |vf| vf.pf);
    // A PF is asked once for all its VFs.
    let of_root = match known.get(&root) {
        Some(list) => list.clone(),
        None => {
            let list = sysfs.interfaces(root)?;
            known.insert(root, list.clone());
            list
        }
    };
    let own = if root == address { Vec::new() } else { sysfs.interfaces(address)? };
    let link_type = own.first().or(of_root.first()).and_then(|interface| interface.kind).map(link_name);
    Ok(Candidate {
        pf_name: of_root.first().map(|interface| interface.name.clone()),
        root,
        acpi_index: sysfs.attribute(address, "acpi_index")?,
        link_type,
        answers: sysfs.answers(address)?,
        function,
    })
}

/// The name that selectors use for an `ARPHRD_` number (linux/if_arp.h).
fn link_name(kind: u32) -> String {
    match kind {
        1 => "ether".into(),
        32 => "infiniband".into(),
        other => other.to_string(),
    }
}
