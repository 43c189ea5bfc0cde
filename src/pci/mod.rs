//! PCI functions as sysfs shows them: ids, driver, IOMMU group, NUMA node, VF and PF.
//!
//! Owns reading `bus/pci/devices` below a root, which is `/sys` or, in tests, a tree built by hand; nothing here writes
//! or opens a device. Used when a VF is opened and by the tools that list and hand out VFs. What always holds: an
//! attribute that a kernel may leave out is an `Option`, one that cannot be read or parsed is an error that names its
//! path, and a function that disappears while a list is made is left out of the list.
#![forbid(unsafe_code)]

#[cfg(test)]
pub(crate) mod fake;

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::addr::PciAddress;
use crate::error::{Error, Result};
use crate::mmio::PciId;

/// Where sysfs is mounted. The default is `/sys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SysfsRoot {
    path: PathBuf,
}

/// One PCI function, as it was when sysfs was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Its address.
    pub address: PciAddress,
    /// Vendor and device id, as the kernel knows them (a VF's own config space reads all ones there).
    pub id: PciId,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// Its IOMMU group; none when the IOMMU is off.
    pub iommu_group: Option<IommuGroup>,
    /// The NUMA node it is attached to, where the firmware says.
    pub numa_node: Option<u32>,
    /// Where it comes from, when it is a VF.
    pub vf: Option<VfOrigin>,
    /// Its VFs, when it is a PF with SR-IOV.
    pub sriov: Option<Sriov>,
    /// The ways in which the kernel can reset it, in the order of preference (`flr`, `pm`, `bus`, …). Empty before
    /// Linux 5.15, which does not tell.
    pub reset_methods: Vec<String>,
    /// True when the kernel can reset it by some method.
    pub can_reset: bool,
}

/// The devices that the IOMMU cannot tell apart: all of them belong to one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IommuGroup {
    /// Its number, which is also the name of its node in `/dev/vfio`.
    pub number: u32,
    /// All its members, sorted by name.
    pub members: Vec<GroupMember>,
}

/// A member of an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its name; for a PCI function, the address.
    pub name: String,
    /// The driver it is bound to.
    pub driver: Option<String>,
}

/// Where a VF comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VfOrigin {
    /// The PF.
    pub pf: PciAddress,
    /// The number of the VF as the PF's driver counts, from 0; none while the PF's driver is taking it away.
    pub index: Option<u32>,
}

/// The SR-IOV state of a PF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// How many VFs the PF can have.
    pub total_vfs: u32,
    /// How many it has.
    pub num_vfs: u32,
}

impl Default for SysfsRoot {
    fn default() -> Self {
        SysfsRoot::new("/sys")
    }
}

impl SysfsRoot {
    /// A sysfs mounted at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SysfsRoot { path: path.into() }
    }

    /// Reads all about one function.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no such function; [`Error::Os`] or [`Error::Parse`] with the path of an
    /// attribute that cannot be read or understood.
    pub fn function(&self, address: PciAddress) -> Result<PciFunction> {
        let dir = self.directory(address);
        if !exists(&dir)? {
            return Err(Error::device(
                address,
                format!(
                    "no such PCI device ({} is absent); `ls -d /sys/bus/pci/devices/*/physfn` lists the VFs",
                    dir.display()
                ),
            ));
        }
        let id = |name: &str| -> Result<u16> {
            let path = dir.join(name);
            let text = fs::read_to_string(&path).map_err(|e| Error::os(format!("reading {}", path.display()), e))?;
            let digits = text.trim().strip_prefix("0x").unwrap_or(text.trim());
            u16::from_str_radix(digits, 16).map_err(|_| malformed(&path, &text, "a hexadecimal id"))
        };
        Ok(PciFunction {
            address,
            id: PciId { vendor: id("vendor")?, device: id("device")? },
            driver: link_name(&dir.join("driver"))?,
            iommu_group: iommu_group(&dir)?,
            // The kernel says -1 where the firmware says nothing.
            numa_node: number::<i64>(&dir.join("numa_node"))?.and_then(|node| u32::try_from(node).ok()),
            vf: vf_origin(address, &dir)?,
            sriov: sriov(&dir)?,
            reset_methods: read(&dir.join("reset_method"))?
                .map(|text| text.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            can_reset: exists(&dir.join("reset"))?,
        })
    }

    /// All VFs of the machine, sorted by address, whatever they are bound to.
    ///
    /// # Errors
    /// As [`function`](SysfsRoot::function).
    pub fn vfs(&self) -> Result<Vec<PciFunction>> {
        let mut addresses: Vec<PciAddress> = names(&self.path.join("bus/pci/devices"))?
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter(|&address| fs::symlink_metadata(self.directory(address).join("physfn")).is_ok())
            .collect();
        addresses.sort_unstable();
        let mut list = Vec::with_capacity(addresses.len());
        for address in addresses {
            match self.function(address) {
                Ok(function) => list.push(function),
                // It may go at any moment; only then is a failure to read it none of ours.
                Err(_) if !exists(&self.directory(address))? => {}
                Err(error) => return Err(error),
            }
        }
        Ok(list)
    }

    fn directory(&self, address: PciAddress) -> PathBuf {
        self.path.join(format!("bus/pci/devices/{address}"))
    }
}

fn iommu_group(dir: &Path) -> Result<Option<IommuGroup>> {
    let link = dir.join("iommu_group");
    let Some(name) = link_name(&link)? else { return Ok(None) };
    let number = name.parse().map_err(|_| malformed(&link, &name, "a group number"))?;
    let devices = link.join("devices");
    let mut members = Vec::new();
    for name in names(&devices)? {
        let driver = link_name(&devices.join(&name).join("driver"))?;
        members.push(GroupMember { name, driver });
    }
    members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(IommuGroup { number, members }))
}

fn vf_origin(address: PciAddress, dir: &Path) -> Result<Option<VfOrigin>> {
    let physfn = dir.join("physfn");
    let Some(name) = link_name(&physfn)? else { return Ok(None) };
    let pf = name.parse().map_err(|_| malformed(&physfn, &name, "a PCI address"))?;
    let own = address.to_string();
    let mut index = None;
    // The numbers have gaps when a PF's driver hands out VFs unevenly, so they are searched and never counted.
    for name in names(&physfn)? {
        let Some(Ok(number)) = name.strip_prefix("virtfn").map(str::parse) else { continue };
        if link_name(&physfn.join(&name))?.as_deref() == Some(&own) {
            index = Some(number);
        }
    }
    Ok(Some(VfOrigin { pf, index }))
}

fn sriov(dir: &Path) -> Result<Option<Sriov>> {
    let Some(total_vfs) = number(&dir.join("sriov_totalvfs"))? else { return Ok(None) };
    let num_vfs = number(&dir.join("sriov_numvfs"))?.unwrap_or(0);
    Ok(Some(Sriov { total_vfs, num_vfs }))
}

/// The text of an attribute, if there is one.
fn read(path: &Path) -> Result<Option<String>> {
    absent_is_none(fs::read_to_string(path)).map_err(|e| Error::os(format!("reading {}", path.display()), e))
}

fn number<T: std::str::FromStr>(path: &Path) -> Result<Option<T>> {
    let Some(text) = read(path)? else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| malformed(path, &text, "a number"))
}

/// The last part of what a symbolic link points to, if there is one.
fn link_name(path: &Path) -> Result<Option<String>> {
    let target = absent_is_none(fs::read_link(path))
        .map_err(|e| Error::os(format!("reading the link {}", path.display()), e))?;
    Ok(target.and_then(|t| t.file_name().map(|name| name.to_string_lossy().into_owned())))
}

/// The names in a directory; none when the directory is absent.
fn names(path: &Path) -> Result<Vec<String>> {
    let list = |path: &Path| -> std::io::Result<Vec<String>> {
        fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    let found = absent_is_none(list(path)).map_err(|e| Error::os(format!("listing {}", path.display()), e))?;
    Ok(found.unwrap_or_default())
}

fn exists(path: &Path) -> Result<bool> {
    fs::exists(path).map_err(|e| Error::os(format!("looking for {}", path.display()), e))
}

fn absent_is_none<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn malformed(path: &Path, text: &str, expected: &str) -> Error {
    Error::Parse(format!("{} holds '{}', which is not {expected}", path.display(), text.trim()))
}

#[cfg(test)]
mod tests {
    use super::fake::FakeSysfs;
    use super::*;

    fn at(text: &str) -> PciAddress {
        text.parse().unwrap()
    }

    fn member(name: &str, driver: Option<&str>) -> GroupMember {
        GroupMember { name: name.into(), driver: driver.map(str::to_owned) }
    }

    /// QEMU's igb with two VFs, 0x80 and 0x82 functions on, each in a group of its own.
    fn igb() -> FakeSysfs {
        let sysfs = FakeSysfs::new();
        sysfs.pf("0000:01:00.0", "8086:10c9", 8, 2).driver("0000:01:00.0", "igb").group("0000:01:00.0", 14);
        sysfs
            .vf("0000:01:10.0", "8086:10ca", "0000:01:00.0", 0)
            .driver("0000:01:10.0", "vfio-pci")
            .group("0000:01:10.0", 5);
        sysfs.vf("0000:01:10.2", "8086:10ca", "0000:01:00.0", 1).group("0000:01:10.2", 6);
        sysfs
    }

    #[test]
    fn a_vf_on_vfio_pci_is_read_whole() {
        let sysfs = igb();
        sysfs.write("0000:01:10.0", "numa_node", "1\n");
        sysfs.write("0000:01:10.0", "reset", "").write("0000:01:10.0", "reset_method", "flr bus\n");
        let vf = sysfs.root().function(at("0000:01:10.0")).unwrap();
        let expected = PciFunction {
            address: at("0000:01:10.0"),
            id: PciId { vendor: 0x8086, device: 0x10ca },
            driver: Some("vfio-pci".into()),
            iommu_group: Some(IommuGroup { number: 5, members: vec![member("0000:01:10.0", Some("vfio-pci"))] }),
            numa_node: Some(1),
            vf: Some(VfOrigin { pf: at("0000:01:00.0"), index: Some(0) }),
            sriov: None,
            reset_methods: vec!["flr".into(), "bus".into()],
            can_reset: true,
        };
        assert_eq!(vf, expected);
    }

    #[test]
    fn a_pf_tells_its_vfs_and_is_none() {
        let pf = igb().root().function(at("0000:01:00.0")).unwrap();
        assert_eq!(pf.sriov, Some(Sriov { total_vfs: 8, num_vfs: 2 }));
        assert_eq!(pf.vf, None);
        assert_eq!(pf.driver.as_deref(), Some("igb"));
    }

    #[test]
    fn what_the_kernel_leaves_out_or_denies_is_none() {
        let sysfs = FakeSysfs::new();
        sysfs.device("0000:03:00.0", "8086:1889");
        let bare = sysfs.root().function(at("0000:03:00.0")).unwrap();
        assert_eq!(
            (bare.driver, bare.iommu_group, bare.numa_node, bare.sriov, bare.vf),
            (None, None, None, None, None)
        );
        assert!(bare.reset_methods.is_empty() && !bare.can_reset);
        sysfs.write("0000:03:00.0", "numa_node", "-1\n");
        assert_eq!(sysfs.root().function(at("0000:03:00.0")).unwrap().numa_node, None);
    }

    #[test]
    fn only_vfs_are_listed_in_order_of_address() {
        let sysfs = igb();
        sysfs.device("0000:00:1f.2", "8086:2922");
        sysfs.pf("10000:e1:00.0", "8086:1592", 64, 1);
        sysfs.vf("10000:e1:01.0", "8086:1889", "10000:e1:00.0", 0);
        let found: Vec<String> = sysfs.root().vfs().unwrap().iter().map(|vf| vf.address.to_string()).collect();
        assert_eq!(found, ["0000:01:10.0", "0000:01:10.2", "10000:e1:01.0"]);
    }

    #[test]
    fn vf_numbers_may_have_gaps_and_do_not_follow_addresses() {
        // X710 style: 32 VFs a port; here the PF's driver has taken some away, and two digits sort before one.
        let sysfs = FakeSysfs::new();
        sysfs.pf("0000:3b:00.1", "8086:1572", 64, 3);
        sysfs.vf("0000:3b:06.0", "8086:154c", "0000:3b:00.1", 10);
        sysfs.vf("0000:3b:06.1", "8086:154c", "0000:3b:00.1", 2);
        sysfs.vf("0000:3b:0a.7", "8086:154c", "0000:3b:00.1", 31);
        let found: Vec<_> = sysfs.root().vfs().unwrap().iter().map(|vf| vf.vf.unwrap().index).collect();
        assert_eq!(found, [Some(10), Some(2), Some(31)]);
    }

    #[test]
    fn a_vf_that_its_pf_no_longer_lists_has_no_number() {
        let sysfs = igb();
        sysfs.remove("0000:01:00.0", "virtfn1");
        let vf = sysfs.root().function(at("0000:01:10.2")).unwrap();
        assert_eq!(vf.vf, Some(VfOrigin { pf: at("0000:01:00.0"), index: None }));
    }

    #[test]
    fn a_shared_group_names_all_members_and_their_drivers() {
        let sysfs = igb();
        sysfs.group("0000:01:10.2", 5);
        sysfs.device("0000:00:04.0", "1b36:000c").driver("0000:00:04.0", "pcieport").group("0000:00:04.0", 5);
        let group = sysfs.root().function(at("0000:01:10.0")).unwrap().iommu_group.unwrap();
        let expected = [
            member("0000:00:04.0", Some("pcieport")),
            member("0000:01:10.0", Some("vfio-pci")),
            member("0000:01:10.2", None),
        ];
        assert_eq!((group.number, group.members.as_slice()), (5, &expected[..]));
    }

    #[test]
    fn an_absent_function_and_a_malformed_attribute_are_errors_of_one_line() {
        let sysfs = igb();
        let error = sysfs.root().function(at("0000:09:00.0")).unwrap_err().to_string();
        assert!(error.starts_with("0000:09:00.0: no such PCI device") && error.contains("physfn"), "{error}");
        sysfs.write("0000:01:10.0", "numa_node", "many\n");
        let error = sysfs.root().function(at("0000:01:10.0")).unwrap_err().to_string();
        assert!(error.contains("numa_node holds 'many'") && !error.contains('\n'), "{error}");
        // A broken VF is not left out of the list: it has not gone.
        assert!(sysfs.root().vfs().is_err());
    }

    #[test]
    fn a_machine_without_pci_has_no_vfs() {
        assert_eq!(SysfsRoot::new("/nonexistent").vfs().unwrap(), []);
    }
}
