//! Which devices a selector selects.
//!
//! Owns the filters and their order. Called when pools are made and when a selection is explained: both ask
//! [`Selector::check`], so an explanation cannot differ from what was done. What always holds: strings are compared as
//! they are, but for the names of PFs, which match in any letter case.
#![forbid(unsafe_code)]

use std::fmt;

use super::config::{Parent, Selector};
use super::inventory::Candidate;

/// The first filter that a device does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The filter, as the configuration calls it.
    pub key: &'static str,
    /// What it asks for.
    pub wanted: Vec<String>,
    /// What the device has; none where it has no such thing.
    pub found: Option<String>,
}

impl Selector {
    /// Whether the selector selects a device, or the first filter that it does not pass.
    ///
    /// # Errors
    /// The [`Mismatch`] is the negative answer.
    pub fn check(&self, device: &Candidate) -> Result<(), Mismatch> {
        let function = &device.function;
        equal("vendors", &self.vendors, Some(format!("{:04x}", function.id.vendor)))?;
        equal("devices", &self.devices, Some(format!("{:04x}", function.id.device)))?;
        equal("drivers", &self.drivers, function.driver.clone())?;
        equal("pciAddresses", &self.pci_addresses, Some(function.address.to_string()))?;
        equal("acpiIndexes", &self.acpi_indexes, device.acpi_index.clone())?;
        parent("pfNames", &self.pf_names, device.pf_name.clone(), device.index())?;
        parent("rootDevices", &self.root_devices, Some(device.root.to_string()), device.index())?;
        equal("linkTypes", &self.link_types, device.link_type.clone())
    }
}

fn equal(key: &'static str, wanted: &[String], found: Option<String>) -> Result<(), Mismatch> {
    match wanted.is_empty() || found.as_ref().is_some_and(|found| wanted.contains(found)) {
        true => Ok(()),
        false => Err(Mismatch { key, wanted: wanted.to_vec(), found }),
    }
}

/// The first entry with the PF's name decides, so a later entry with other numbers does not count.
fn parent(key: &'static str, wanted: &[Parent], name: Option<String>, index: Option<u32>) -> Result<(), Mismatch> {
    let first = wanted.iter().find(|parent| name.as_ref().is_some_and(|name| parent.name.eq_ignore_ascii_case(name)));
    if wanted.is_empty() || first.is_some_and(|parent| parent.has(index)) {
        return Ok(());
    }
    let found = name.map(|name| match index {
        Some(index) => format!("{name}#{index}"),
        None => name,
    });
    Err(Mismatch { key, wanted: wanted.iter().map(Parent::to_string).collect(), found })
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.as_deref().unwrap_or("none");
        write!(f, "{} asks for {}, and it has {found}", self.key, self.wanted.join(" or "))
    }
}
