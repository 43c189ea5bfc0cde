//! Binding functions to drivers.
//!
//! Owns the order of writes: off the old driver, override, on the new driver, override cleared again, so that a later
//! probe finds things as they were. What always holds: a failure on the way gives the function back to a driver of the
//! kernel's choice.
#![forbid(unsafe_code)]

use std::fmt;

use crate::addr::PciAddress;
use crate::error::{Error, Result};
use crate::pci::{self, PciFunction};

use super::change::{Hands, Rehearsal, write};
use super::{Host, user_of};

/// What [`bind`] or [`unbind`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Nothing: it was so already, with this driver.
    Already(Option<String>),
    /// It is bound to this driver now, or to none.
    Changed(Option<String>),
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Binding::Already(Some(driver)) => write!(f, "is bound to {driver} already"),
            Binding::Already(None) => f.write_str("is bound to no driver already"),
            Binding::Changed(Some(driver)) => write!(f, "bound to {driver}"),
            Binding::Changed(None) => f.write_str("bound to no driver: the kernel has none for it that is loaded"),
        }
    }
}

/// Binds a function to a driver, `vfio-pci` as a rule.
///
/// # Errors
/// [`Error::Device`] when it is in use or a PF (unless `force`), when the IOMMU is off, when the driver is not loaded, or
/// did not take it; [`Error::Os`] when the kernel refuses a write.
pub fn bind(host: &Host, hands: &mut dyn Hands, address: PciAddress, driver: &str, force: bool) -> Result<Binding> {
    let function = host.sysfs.function(address)?;
    if function.driver.as_deref() == Some(driver) {
        return Ok(Binding::Already(function.driver));
    }
    if pci::is_vfio_driver(driver) {
        check_iommu(host, &function)?;
    }
    let drivers = host.sysfs.path().join("bus/pci/drivers");
    // The name becomes part of a path.
    let is_name = !driver.is_empty() && driver.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !is_name || !drivers.join(driver).exists() {
        return Err(Error::device(
            address,
            format!("the kernel has no PCI driver '{driver}'; load it with `modprobe {driver}`"),
        ));
    }
    check_unused(host, &function, force)?;
    rebind(host, hands, address, function.driver.is_some(), Some(driver))
}

/// Gives a function back to the kernel: off vfio-pci, and to whatever driver the kernel has for it.
///
/// # Errors
/// As [`bind`].
pub fn unbind(host: &Host, hands: &mut dyn Hands, address: PciAddress, force: bool) -> Result<Binding> {
    let function = host.sysfs.function(address)?;
    match function.driver.as_deref() {
        Some(driver) if pci::is_vfio_driver(driver) => check_unused(host, &function, force)?,
        Some(_) => return Ok(Binding::Already(function.driver)),
        None => {}
    }
    rebind(host, hands, address, function.driver.is_some(), None)
}

fn check_iommu(host: &Host, function: &PciFunction) -> Result<()> {
    let unsafe_mode = host.sysfs.path().join("module/vfio/parameters/enable_unsafe_noiommu_mode");
    let no_iommu_is_allowed = std::fs::read_to_string(unsafe_mode).is_ok_and(|text| text.trim() == "Y");
    if function.iommu_group.is_some() || no_iommu_is_allowed {
        return Ok(());
    }
    Err(Error::device(
        function.address,
        "has no IOMMU group, so the IOMMU is off and vfio-pci would refuse it; enable VT-d or AMD-Vi in the firmware and \
         boot with `intel_iommu=on` on the kernel command line",
    ))
}

fn check_unused(host: &Host, function: &PciFunction, force: bool) -> Result<()> {
    if force {
        return Ok(());
    }
    if let Some(sriov) = function.sriov.filter(|_| function.vf.is_none()) {
        let vfs = match sriov.num_vfs {
            0 => String::new(),
            n => format!(", and its {n} VFs would go with it"),
        };
        return Err(Error::device(
            function.address,
            format!("is a PF{vfs}; bind VFs, which `vfring vf create` makes, or say --force"),
        ));
    }
    match user_of(host, function)? {
        Some(user) => {
            Err(Error::device(function.address, format!("is in use: {user}; to take it anyway, say --force")))
        }
        None => Ok(()),
    }
}

/// Rehearses [`bind`] for a VF that a rehearsed [`create_vfs`](super::create_vfs) would have made, as the kernel leaves it
/// when it has no driver of its own for it.
///
/// # Errors
/// None.
pub fn bind_unmade(host: &Host, rehearsal: &mut Rehearsal, address: PciAddress, driver: &str) -> Result<Binding> {
    rebind(host, rehearsal, address, false, Some(driver))
}

fn rebind(
    host: &Host,
    hands: &mut dyn Hands,
    address: PciAddress,
    is_bound: bool,
    driver: Option<&str>,
) -> Result<Binding> {
    let (dir, bus) = (host.sysfs.directory(address), host.sysfs.path().join("bus/pci"));
    let plain = |_: &std::io::Error| None;
    let id = address.to_string();
    if is_bound {
        write(hands, &dir.join("driver/unbind"), &id, plain)?;
    }
    let Some(driver) = driver else {
        write(hands, &dir.join("driver_override"), "\n", plain)?;
        write(hands, &bus.join("drivers_probe"), &id, plain)?;
        let now = if hands.acts() { host.sysfs.function(address)?.driver } else { None };
        return Ok(Binding::Changed(now));
    };
    let bound = write(hands, &dir.join("driver_override"), driver, plain).and_then(|()| {
        write(hands, &bus.join("drivers").join(driver).join("bind"), &id, |error| {
            let busy = error.raw_os_error() == Some(libc::EBUSY);
            busy.then(|| "the driver has it already, or another took it just now".into())
        })
    });
    // Whatever happened, a later probe must find no override.
    let cleared = write(hands, &dir.join("driver_override"), "\n", plain);
    if let Err(error) = bound {
        let _ = hands.write(&bus.join("drivers_probe"), &id);
        return Err(error);
    }
    cleared?;
    let now = if hands.acts() { host.sysfs.function(address)?.driver } else { Some(driver.to_owned()) };
    if now.as_deref() != Some(driver) {
        return Err(Error::device(address, format!("{driver} did not take it, and gave no reason; see dmesg")));
    }
    Ok(Binding::Changed(now))
}
