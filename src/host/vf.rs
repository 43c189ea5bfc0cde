//! Making and destroying the VFs of a PF.
//!
//! Owns writes to `sriov_numvfs`. What always holds: VFs are made anew only when their number is another one, because
//! that takes away all that there are.
#![forbid(unsafe_code)]

use std::io;

use crate::addr::PciAddress;
use crate::error::{Error, Result};
use crate::pci::{PciFunction, Sriov, is_vfio_driver};

use super::change::{Hands, write};
use super::{Host, user_of};

/// What [`create_vfs`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// Nothing: the PF had as many.
    Already,
    /// It had none.
    Made,
    /// It had this many, which were taken away first.
    MadeAnew(u32),
}

/// The PF by its address, or by the name of its interface.
///
/// # Errors
/// [`Error::Device`] when there is no such PF, naming those that there are.
pub fn find_pf(host: &Host, name: &str) -> Result<PciFunction> {
    let mut known = Vec::new();
    let address = name.parse::<PciAddress>().ok();
    for (at, function) in host.sysfs.functions()? {
        let Ok(function) = function else { continue };
        if function.sriov.is_none() {
            if address == Some(at) {
                return Err(Error::device(at, "is no PF with SR-IOV (it has no sriov_totalvfs)"));
            }
            continue;
        }
        let interfaces = host.sysfs.interfaces(at)?;
        if address == Some(at) || interfaces.iter().any(|interface| interface.name == name) {
            return Ok(function);
        }
        known.push(interfaces.into_iter().next().map_or_else(|| at.to_string(), |interface| interface.name));
    }
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Error::device(name, format!("no such PF; PFs with SR-IOV are: {known}")))
}

/// The VFs of a PF, by number, as far as they have one.
///
/// # Errors
/// When sysfs cannot be read.
pub fn vfs_of(host: &Host, pf: PciAddress) -> Result<Vec<(u32, PciFunction)>> {
    let own = |vf: PciFunction| vf.vf.filter(|of| of.pf == pf).and_then(|of| of.index).map(|index| (index, vf));
    let mut list: Vec<(u32, PciFunction)> = host.sysfs.vfs()?.into_iter().filter_map(own).collect();
    list.sort_unstable_by_key(|(index, _)| *index);
    Ok(list)
}

/// Where the VFs of a PF would be, by number, as far as the kernel tells: the PF's place, an offset and a stride.
///
/// # Errors
/// When sysfs cannot be read.
pub fn places_of_vfs(host: &Host, pf: PciAddress, number: u32) -> Result<Vec<PciAddress>> {
    let attribute =
        |name: &str| -> Result<Option<u32>> { Ok(host.sysfs.attribute(pf, name)?.and_then(|text| text.parse().ok())) };
    let (Some(offset @ 1..), Some(stride)) = (attribute("sriov_offset")?, attribute("sriov_stride")?) else {
        return Ok(Vec::new());
    };
    let place = |index: u32| {
        // The routing id: bus, device and function in 16 bits. Past these, VFs are where no bus number is.
        let id = u16::try_from(pf.routing_id() + offset + index * stride).ok()?;
        let [bus, low] = id.to_be_bytes();
        Some(PciAddress { domain: pf.domain, bus, device: low >> 3, function: low & 7 })
    };
    Ok((0..number).map_while(place).collect())
}

/// Gives a PF `number` VFs.
///
/// # Errors
/// [`Error::Config`] when it cannot have that many; [`Error::Device`] when the PF has no driver that makes VFs, or a VF
/// that would go is in use (unless `force`); [`Error::Os`] when the kernel refuses.
pub fn create_vfs(host: &Host, hands: &mut dyn Hands, pf: &PciFunction, number: u32, force: bool) -> Result<Creation> {
    let sriov = sriov_of(pf)?;
    if number == 0 || number > sriov.total_vfs {
        return Err(Error::Config(format!(
            "{}: {number} VFs are asked for, and it can have 1 to {}; `vfring vf destroy` takes them away",
            pf.address, sriov.total_vfs
        )));
    }
    if sriov.num_vfs == number {
        return Ok(Creation::Already);
    }
    match pf.driver.as_deref() {
        Some(driver) if !is_vfio_driver(driver) => {}
        other => {
            let state = other.map_or("no driver".to_owned(), |driver| driver.to_owned());
            return Err(Error::device(
                pf.address,
                format!(
                    "is bound to {state}, and the kernel's own driver of the PF makes VFs; run `vfring unbind {}`",
                    pf.address
                ),
            ));
        }
    }
    let had = sriov.num_vfs;
    if had > 0 {
        destroy_vfs(host, hands, pf, force)?;
    }
    let path = host.sysfs.directory(pf.address).join("sriov_numvfs");
    write(hands, &path, &number.to_string(), |error| no_room(error, number))?;
    if hands.acts() {
        let now = host.sysfs.function(pf.address)?.sriov.map_or(0, |sriov| sriov.num_vfs);
        if now != number {
            return Err(Error::device(pf.address, format!("{number} VFs were asked for, and it has {now}; see dmesg")));
        }
    }
    Ok(if had > 0 { Creation::MadeAnew(had) } else { Creation::Made })
}

/// Takes all VFs of a PF away; returns how many there were.
///
/// # Errors
/// [`Error::Device`] when one is in use (unless `force`); [`Error::Os`] when the kernel refuses.
pub fn destroy_vfs(host: &Host, hands: &mut dyn Hands, pf: &PciFunction, force: bool) -> Result<u32> {
    let sriov = sriov_of(pf)?;
    if sriov.num_vfs == 0 {
        return Ok(0);
    }
    if !force {
        for (index, vf) in vfs_of(host, pf.address)? {
            if let Some(user) = user_of(host, &vf)? {
                return Err(Error::device(
                    pf.address,
                    format!(
                        "its VF {index} ({}) is in use: {user}; to take all VFs away anyway, say --force",
                        vf.address
                    ),
                ));
            }
        }
    }
    write(hands, &host.sysfs.directory(pf.address).join("sriov_numvfs"), "0", |error| {
        let assigned = error.raw_os_error() == Some(libc::EPERM);
        assigned.then(|| "a VF is assigned to a virtual machine, or run it as root".into())
    })?;
    Ok(sriov.num_vfs)
}

fn sriov_of(pf: &PciFunction) -> Result<Sriov> {
    pf.sriov.ok_or_else(|| Error::device(pf.address, "is no PF with SR-IOV (it has no sriov_totalvfs)"))
}

/// Why a PF cannot have VFs although its register says so: the firmware left too few bus numbers or addresses.
fn no_room(error: &io::Error, number: u32) -> Option<String> {
    match error.raw_os_error()? {
        libc::ENOMEM | libc::ENOSPC => Some(format!(
            "the firmware left no room for {number} VFs: where dmesg says \"bus number … out of range\", boot with \
             `pci=assign-busses`; where it says \"not enough MMIO resources\", with `pci=realloc`; fewer VFs may fit as it is"
        )),
        libc::EBUSY => Some("it has VFs already: somebody made them just now".into()),
        _ => None,
    }
}
