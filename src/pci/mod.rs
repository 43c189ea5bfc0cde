//! PCI functions as sysfs shows them: ids, driver, IOMMU group, NUMA node, VF and PF.
//!
//! Owns reading `bus/pci/devices` below a root, which is `/sys` or, in tests, a tree built by hand; nothing here writes
//! or opens a device. Used when a VF is opened and by the tools that list and hand out VFs. What always holds: an
//! attribute that a kernel may leave out is an `Option`, one that cannot be read or parsed is an error that names its
//! path, and a function that disappears while a list is made is left out of the list.
#![forbid(unsafe_code)]

#[cfg(test)]
#[cfg_attr(not(feature = "plugin"), allow(dead_code, reason = "the tests of plugins and hosts need all of it"))]
pub(crate) mod fake;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::addr::{MacAddr, PciAddress};
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
    /// Class, subclass and programming interface, such as 0x020000 for an Ethernet controller.
    pub class: u32,
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
    /// True for a group that vfio made up where there is no IOMMU: its user can reach all memory.
    pub no_iommu: bool,
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

impl fmt::Display for GroupMember {
    /// `0000:03:10.0 (vfio-pci)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.driver.as_deref().unwrap_or("no driver"))
    }
}

/// True for the name of vfio-pci, or of a variant of it for some device, such as mlx5_vfio_pci.
pub fn is_vfio_driver(name: &str) -> bool {
    name.ends_with("vfio-pci") || name.ends_with("vfio_pci")
}

impl IommuGroup {
    /// The members that keep the rest of the group from being used: those that a driver of the kernel does DMA with.
    pub fn spoilers(&self) -> impl Iterator<Item = &GroupMember> {
        // pci-stub does nothing; pcieport does no DMA, and the kernel lets both stay.
        let harmless = |driver: &str| is_vfio_driver(driver) || ["pci-stub", "pcieport"].contains(&driver);
        self.members.iter().filter(move |member| member.driver.as_deref().is_some_and(|driver| !harmless(driver)))
    }
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
    /// The device id of its VFs, where the kernel tells.
    pub vf_device: Option<u16>,
}

/// A network interface of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, such as `ens802f0`.
    pub name: String,
    /// Its station address.
    pub mac: Option<MacAddr>,
    /// What it is, as the kernel's `ARPHRD_` number: 1 for Ethernet, 32 for InfiniBand.
    pub kind: Option<u32>,
    /// True when it is up, in the sense of `ip link`.
    pub up: bool,
}

/// The name that vfio gives to a group it makes up for a device without an IOMMU.
const NO_IOMMU: &str = "vfio-noiommu";

/// `IFF_UP` of an interface's flags (linux/if.h).
const IFF_UP: u32 = 1;

/// For each PF, its VFs with their numbers: read once for a whole list, since each VF would read all of them again.
type Numbers = BTreeMap<PciAddress, BTreeMap<String, u32>>;

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
        self.read_function(address, &mut Numbers::new())
    }

    fn read_function(&self, address: PciAddress, numbers: &mut Numbers) -> Result<PciFunction> {
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
        let id = |name: &str| -> Result<u16> { narrow(&dir.join(name), hexadecimal(&dir.join(name))?) };
        Ok(PciFunction {
            address,
            id: PciId { vendor: id("vendor")?, device: id("device")? },
            class: hexadecimal(&dir.join("class"))?,
            driver: link_name(&dir.join("driver"))?,
            iommu_group: iommu_group(&dir)?,
            // The kernel says -1 where the firmware says nothing.
            numa_node: number::<i64>(&dir.join("numa_node"))?.and_then(|node| u32::try_from(node).ok()),
            vf: vf_origin(address, &dir, numbers)?,
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
        let is_vf = |address: &PciAddress| fs::symlink_metadata(self.directory(*address).join("physfn")).is_ok();
        self.read_all(self.addresses()?.into_iter().filter(is_vf)).into_iter().map(|(_, function)| function).collect()
    }

    /// All functions of the machine, sorted by address, each with what it is or why that cannot be read.
    ///
    /// # Errors
    /// Only where the list itself cannot be read.
    pub fn functions(&self) -> Result<Vec<(PciAddress, Result<PciFunction>)>> {
        Ok(self.read_all(self.addresses()?))
    }

    /// The network interfaces of a function, sorted by name; none where it has no driver of the kernel.
    ///
    /// # Errors
    /// [`Error::Os`] or [`Error::Parse`] with the path of an attribute.
    pub fn interfaces(&self, address: PciAddress) -> Result<Vec<Interface>> {
        let dir = self.directory(address).join("net");
        let mut list = Vec::new();
        for name in names(&dir)? {
            let own = dir.join(&name);
            let flags = read(&own.join("flags"))?;
            let flags = flags.and_then(|text| u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok());
            list.push(Interface {
                mac: read(&own.join("address"))?.and_then(|text| text.trim().parse().ok()),
                kind: number(&own.join("type"))?,
                up: flags.is_some_and(|flags| flags & IFF_UP != 0),
                name,
            });
        }
        list.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(list)
    }

    /// The text of another attribute of a function, without white space around it, if there is one.
    ///
    /// # Errors
    /// [`Error::Os`] when it is there and cannot be read.
    pub fn attribute(&self, address: PciAddress, name: &str) -> Result<Option<String>> {
        Ok(read(&self.directory(address).join(name))?.map(|text| text.trim().to_owned()))
    }

    /// False when the function's configuration space reads all ones: it no longer answers on the bus.
    ///
    /// The first four bytes are not looked at: a VF reads all ones there by the SR-IOV specification.
    ///
    /// # Errors
    /// [`Error::Os`] when the space cannot be read.
    pub fn answers(&self, address: PciAddress) -> Result<bool> {
        let path = self.directory(address).join("config");
        // Each double word is a read on the bus, so no more is asked for than tells.
        let read = || -> io::Result<Vec<u8>> {
            let mut header = Vec::new();
            fs::File::open(&path)?.take(16).read_to_end(&mut header)?;
            Ok(header)
        };
        let header = absent_is_none(read()).map_err(|e| Error::os(format!("reading {}", path.display()), e))?;
        let header = header.unwrap_or_default();
        Ok(header.get(4..).is_none_or(|rest| rest.is_empty() || rest.iter().any(|&byte| byte != 0xff)))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn addresses(&self) -> Result<Vec<PciAddress>> {
        let names = names(&self.path.join("bus/pci/devices"))?;
        let mut addresses: Vec<PciAddress> = names.iter().filter_map(|name| name.parse().ok()).collect();
        addresses.sort_unstable();
        Ok(addresses)
    }

    /// Some functions, each with what it is or why that cannot be read; one that is not there is left out.
    pub(crate) fn read_all(
        &self,
        addresses: impl IntoIterator<Item = PciAddress>,
    ) -> Vec<(PciAddress, Result<PciFunction>)> {
        let mut numbers = Numbers::new();
        let mut list = Vec::new();
        for address in addresses {
            let function = self.read_function(address, &mut numbers);
            // It may go at any moment; only then is a failure to read it none of ours.
            if function.is_ok() || exists(&self.directory(address)).unwrap_or(true) {
                list.push((address, function));
            }
        }
        list
    }

    /// Where the function's attributes are.
    pub fn directory(&self, address: PciAddress) -> PathBuf {
        self.path.join(format!("bus/pci/devices/{address}"))
    }
}

fn iommu_group(dir: &Path) -> Result<Option<IommuGroup>> {
    let link = dir.join("iommu_group");
    let Some(name) = link_name(&link)? else { return Ok(None) };
    let number = name.parse().map_err(|_| malformed(&link, &name, "a group number"))?;
    let no_iommu = read(&link.join("name"))?.is_some_and(|name| name.trim() == NO_IOMMU);
    let devices = link.join("devices");
    let mut members = Vec::new();
    for name in names(&devices)? {
        let driver = link_name(&devices.join(&name).join("driver"))?;
        members.push(GroupMember { name, driver });
    }
    members.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Some(IommuGroup { number, no_iommu, members }))
}

fn vf_origin(address: PciAddress, dir: &Path, numbers: &mut Numbers) -> Result<Option<VfOrigin>> {
    let physfn = dir.join("physfn");
    let Some(name) = link_name(&physfn)? else { return Ok(None) };
    let pf = name.parse().map_err(|_| malformed(&physfn, &name, "a PCI address"))?;
    let of_pf = match numbers.entry(pf) {
        std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
        std::collections::btree_map::Entry::Vacant(place) => place.insert(vf_numbers(&physfn)?),
    };
    Ok(Some(VfOrigin { pf, index: of_pf.get(&address.to_string()).copied() }))
}

/// The VFs of a PF with their numbers, which have gaps when the PF's driver hands VFs out unevenly: they are read and
/// never counted.
fn vf_numbers(pf: &Path) -> Result<BTreeMap<String, u32>> {
    let mut numbers = BTreeMap::new();
    for name in names(pf)? {
        let Some(Ok(number)) = name.strip_prefix("virtfn").map(str::parse) else { continue };
        if let Some(vf) = link_name(&pf.join(&name))? {
            numbers.insert(vf, number);
        }
    }
    Ok(numbers)
}

fn sriov(dir: &Path) -> Result<Option<Sriov>> {
    let Some(total_vfs) = number(&dir.join("sriov_totalvfs"))? else { return Ok(None) };
    let num_vfs = number(&dir.join("sriov_numvfs"))?.unwrap_or(0);
    let vf_device = read(&dir.join("sriov_vf_device"))?.and_then(|text| u16::from_str_radix(text.trim(), 16).ok());
    Ok(Some(Sriov { total_vfs, num_vfs, vf_device }))
}

/// A number that the kernel writes as `0x8086`, in an attribute that is always there.
fn hexadecimal(path: &Path) -> Result<u32> {
    let text = fs::read_to_string(path).map_err(|e| Error::os(format!("reading {}", path.display()), e))?;
    let digits = text.trim().strip_prefix("0x").unwrap_or(text.trim());
    u32::from_str_radix(digits, 16).map_err(|_| malformed(path, &text, "a hexadecimal number"))
}

fn narrow(path: &Path, value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| malformed(path, &format!("{value:#x}"), "an id of 16 bits"))
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
            class: 0x020000,
            driver: Some("vfio-pci".into()),
            iommu_group: Some(IommuGroup {
                number: 5,
                no_iommu: false,
                members: vec![member("0000:01:10.0", Some("vfio-pci"))],
            }),
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
        assert_eq!(pf.sriov, Some(Sriov { total_vfs: 8, num_vfs: 2, vf_device: None }));
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

    #[test]
    fn all_functions_are_listed_and_one_that_is_broken_hides_no_other() {
        let sysfs = igb();
        sysfs.device("0000:00:1f.2", "8086:2922").write("0000:00:1f.2", "class", "0x010601\n");
        sysfs.write("0000:01:10.0", "vendor", "Intel\n");
        let all = sysfs.root().functions().unwrap();
        let found: Vec<_> = all.iter().map(|(address, function)| (address.to_string(), function.is_ok())).collect();
        let expected =
            [("0000:00:1f.2", true), ("0000:01:00.0", true), ("0000:01:10.0", false), ("0000:01:10.2", true)];
        assert_eq!(found, expected.map(|(address, ok)| (address.to_owned(), ok)));
        assert_eq!(all[0].1.as_ref().unwrap().class, 0x010601);
    }

    #[test]
    fn interfaces_are_read_with_address_and_state() {
        let sysfs = igb();
        sysfs.interface("0000:01:00.0", "eth1", "52:54:00:12:34:56", true).interface("0000:01:00.0", "eth0", "", false);
        let found = sysfs.root().interfaces(at("0000:01:00.0")).unwrap();
        let (eth0, eth1) = (&found[0], &found[1]);
        assert_eq!((eth0.name.as_str(), eth0.mac, eth0.kind, eth0.up), ("eth0", None, Some(1), false));
        assert_eq!((eth1.name.as_str(), eth1.mac, eth1.up), ("eth1", "52:54:00:12:34:56".parse().ok(), true));
        assert_eq!(sysfs.root().interfaces(at("0000:01:10.0")).unwrap(), []);
    }

    #[test]
    fn a_vf_reads_ones_for_its_ids_and_is_gone_only_when_all_is_ones() {
        let (sysfs, vf) = (igb(), at("0000:01:10.0"));
        assert!(sysfs.root().answers(vf).unwrap(), "no configuration space to read");
        let mut space = vec![0xff; 64];
        sysfs.write_bytes("0000:01:10.0", "config", &space);
        assert!(!sysfs.root().answers(vf).unwrap());
        space[6] = 0x10;
        sysfs.write_bytes("0000:01:10.0", "config", &space);
        assert!(sysfs.root().answers(vf).unwrap());
    }

    #[test]
    fn a_group_without_an_iommu_is_known_by_its_name() {
        let sysfs = igb();
        let no_iommu =
            |sysfs: &FakeSysfs| sysfs.root().function(at("0000:01:10.0")).unwrap().iommu_group.unwrap().no_iommu;
        sysfs.group_name(5, "");
        assert!(!no_iommu(&sysfs));
        sysfs.group_name(5, "vfio-noiommu");
        assert!(no_iommu(&sysfs));
    }

    #[test]
    fn a_pf_tells_the_id_of_its_vfs() {
        let sysfs = igb();
        sysfs.write("0000:01:00.0", "sriov_vf_device", "10ca\n");
        let pf = sysfs.root().function(at("0000:01:00.0")).unwrap();
        assert_eq!(pf.sriov.unwrap().vf_device, Some(0x10ca));
    }
}
