//! Who uses a function, so that it is not taken away.
//!
//! Owns the signs of use: routes and addresses of an interface, a bond or bridge that it belongs to, a VFIO group that a
//! process has open. Called before anything is written.
#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};

use crate::error::Result;
use crate::pci::{self, PciFunction};

use super::Host;

/// Link-local scope in `/proc/net/if_inet6`: an address that every interface has and nobody gave it.
const LINK_LOCAL: &str = "20";

/// Who uses a function, in a few words; none when nobody does, as far as can be seen.
///
/// A group is opened for a moment to see whether it is free, so this is for tools that a person runs: a program that
/// opens the group in that moment is refused.
///
/// # Errors
/// When sysfs cannot be read.
pub fn user_of(host: &Host, function: &PciFunction) -> Result<Option<String>> {
    for interface in host.sysfs.interfaces(function.address)? {
        let name = interface.name;
        if let Some(use_) = use_of_interface(host, function, &name) {
            return Ok(Some(format!("its interface {name} {use_}")));
        }
    }
    let Some(group) = &function.iommu_group else { return Ok(None) };
    if !function.driver.as_deref().is_some_and(pci::is_vfio_driver) {
        return Ok(None);
    }
    let prefix = if group.no_iommu { "noiommu-" } else { "" };
    let node = host.vfio_node(&format!("{prefix}{}", group.number));
    let opened = OpenOptions::new().read(true).write(true).open(&node);
    let busy = opened.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
    Ok(busy.then(|| format!("a process has {0} open (`fuser -v {0}` names it)", node.display())))
}

fn use_of_interface(host: &Host, function: &PciFunction, name: &str) -> Option<String> {
    let master = host.sysfs.directory(function.address).join("net").join(name).join("master");
    if let Ok(target) = fs::read_link(master) {
        return Some(format!("belongs to {}", target.file_name().unwrap_or_default().to_string_lossy()));
    }
    let table = |file: &str| fs::read_to_string(host.proc.join("net").join(file)).unwrap_or_default();
    // Interface, destination, gateway, …, with a line of titles.
    for line in table("route").lines().skip(1) {
        let mut words = line.split_whitespace();
        if words.next() == Some(name) {
            return Some(match words.next() {
                Some("00000000") => "has the default route".into(),
                _ => "has a route".into(),
            });
        }
    }
    // Address, index, prefix length, scope, flags, interface.
    for line in table("if_inet6").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.get(5) == Some(&name) && words[3] != LINK_LOCAL {
            return Some("has an IPv6 address".into());
        }
    }
    None
}
