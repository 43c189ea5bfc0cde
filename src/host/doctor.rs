//! What stands between a host and its VFs.
//!
//! Owns the checks and, for each finding, what mends it. Reads only: no node is opened, nothing is written. What always
//! holds: a check that cannot be made says so or stays silent, and never keeps another from being made.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use crate::addr::PciAddress;
use crate::error::Result;
use crate::pci::{GroupMember, PciFunction, is_vfio_driver};

use super::Host;

/// Locked memory below this, in bytes, is too little for any pool: a VF's rings and 4,096 buffers take about 16 MiB.
const LITTLE_LOCKED_MEMORY: u64 = 64 << 20;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is as it should be.
    Good,
    /// Worth knowing.
    Note,
    /// It works, and not as well as it could.
    Warning,
    /// It cannot work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was looked at, in one word.
    pub check: &'static str,
    /// What was found.
    pub text: String,
    /// What mends it.
    pub fix: Option<String>,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Level::Good => "good",
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Failure => "failure",
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<10} {}", self.level, self.check, self.text)?;
        match &self.fix {
            Some(fix) => write!(f, "; {fix}"),
            None => Ok(()),
        }
    }
}

/// Examines a host; `kubelet` is where kubelet's sockets are, `/var/lib/kubelet/device-plugins` as a rule.
///
/// # Errors
/// [`Error::Os`](crate::Error::Os) when PCI functions cannot be listed.
pub fn doctor(host: &Host, kubelet: &std::path::Path) -> Result<Vec<Finding>> {
    let mut functions = Vec::new();
    let mut report = Report { host, findings: Vec::new() };
    for (address, function) in host.sysfs.functions()? {
        match function {
            Ok(function) => functions.push(function),
            Err(error) => report.warning("pci", format!("{address} cannot be read: {error}"), None),
        }
    }
    let vfs: Vec<&PciFunction> = functions.iter().filter(|function| function.vf.is_some()).collect();
    report.iommu(&vfs);
    report.vfio(&vfs);
    report.sriov(&functions)?;
    report.vfs(&vfs);
    report.groups(&vfs);
    report.hugepages(&vfs);
    report.locked_memory();
    report.kubelet(kubelet);
    Ok(report.findings)
}

struct Report<'a> {
    host: &'a Host,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn add(&mut self, level: Level, check: &'static str, text: String, fix: Option<&str>) {
        self.findings.push(Finding { level, check, text, fix: fix.map(str::to_owned) });
    }

    fn good(&mut self, check: &'static str, text: String) {
        self.add(Level::Good, check, text, None);
    }

    fn warning(&mut self, check: &'static str, text: String, fix: Option<&str>) {
        self.add(Level::Warning, check, text, fix);
    }

    fn failure(&mut self, check: &'static str, text: String, fix: &str) {
        self.add(Level::Failure, check, text, Some(fix));
    }

    /// The text of a file of sysfs, without white space around it.
    fn sysfs(&self, path: &str) -> Option<String> {
        Some(fs::read_to_string(self.host.sysfs.path().join(path)).ok()?.trim().to_owned())
    }

    fn iommu(&mut self, vfs: &[&PciFunction]) {
        let groups = self.host.sysfs.path().join("kernel/iommu_groups");
        let count = fs::read_dir(groups).map_or(0, |entries| entries.count());
        let made_up = vfs.iter().any(|vf| vf.iommu_group.as_ref().is_some_and(|group| group.no_iommu));
        if self.sysfs("module/vfio/parameters/enable_unsafe_noiommu_mode").as_deref() == Some("Y") {
            self.warning(
                "iommu",
                "vfio works without an IOMMU: who has such a VF can reach all memory".into(),
                Some("`echo N > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode`, with an IOMMU turned on"),
            );
        }
        if count > 0 && !made_up {
            return self.good("iommu", format!("on, {count} groups"));
        }
        let command_line = fs::read_to_string(self.host.proc.join("cmdline")).unwrap_or_default();
        let asked = command_line.split_whitespace().any(|word| {
            matches!(word, "intel_iommu=on" | "iommu=on" | "iommu.passthrough=0") || word.starts_with("intel_iommu=on,")
        });
        let fix = match asked {
            true => {
                "the kernel was told to use it: enable VT-d or AMD-Vi in the firmware (a virtual machine needs a virtual IOMMU)"
            }
            false => {
                "enable VT-d or AMD-Vi in the firmware and boot with `intel_iommu=on iommu=pt` (AMD needs no argument; a \
                 virtual machine needs a virtual IOMMU)"
            }
        };
        self.failure("iommu", "off: there are no IOMMU groups".into(), fix);
    }

    fn vfio(&mut self, vfs: &[&PciFunction]) {
        let loaded = self.host.sysfs.path().join("bus/pci/drivers/vfio-pci").exists();
        if !loaded {
            return self.failure(
                "vfio",
                "vfio-pci is not loaded".into(),
                "`modprobe vfio-pci`, and for every boot `echo vfio-pci > /etc/modules-load.d/vfio-pci.conf`",
            );
        }
        if !self.host.vfio_node("vfio").exists() {
            return self.failure("vfio", "/dev/vfio/vfio is missing".into(), "`modprobe vfio`, and mount /dev here");
        }
        let lost: Vec<String> = vfs
            .iter()
            .filter(|vf| vf.driver.as_deref().is_some_and(is_vfio_driver))
            .filter_map(|vf| vf.iommu_group.as_ref())
            .filter(|group| !group.no_iommu && !self.host.vfio_node(&group.number.to_string()).exists())
            .map(|group| format!("/dev/vfio/{}", group.number))
            .collect();
        match lost.is_empty() {
            true => self.good("vfio", "vfio-pci is loaded".into()),
            false => self.failure("vfio", format!("missing: {}", lost.join(", ")), "mount the host's /dev/vfio here"),
        }
    }

    fn sriov(&mut self, functions: &[PciFunction]) -> Result<()> {
        let pfs: Vec<&PciFunction> =
            functions.iter().filter(|pf| pf.sriov.is_some() && pf.class >> 16 == 0x02).collect();
        if pfs.is_empty() {
            let fix = "enable SR-IOV in the firmware and in the NIC's own settings; in a virtual machine VFs come from its host";
            self.warning("sriov", "there is no network controller with SR-IOV".into(), Some(fix));
        }
        for pf in pfs {
            let Some(sriov) = pf.sriov else { continue };
            let interfaces = self.host.sysfs.interfaces(pf.address)?;
            let name = interfaces.first().map_or_else(|| pf.address.to_string(), |interface| interface.name.clone());
            let state = format!("{name} ({}, {}): {} of {} VFs", pf.address, pf.id, sriov.num_vfs, sriov.total_vfs);
            match (sriov.num_vfs, pf.driver.as_deref()) {
                (0, None) => self.add(Level::Note, "sriov", format!("{state}, and no driver"), None),
                (0, Some(_)) => {
                    let fix = format!("`vfring vf create --pf {name} --num N` makes some");
                    self.add(Level::Note, "sriov", state, Some(&fix));
                }
                (_, _) if interfaces.first().is_some_and(|interface| !interface.up) => {
                    let fix = format!("`ip link set {name} up`: its VFs have no link until then");
                    self.warning("sriov", format!("{state}, and it is down"), Some(&fix));
                }
                _ => self.good("sriov", state),
            }
            self.room(pf, &name, sriov.total_vfs)?;
        }
        Ok(())
    }

    /// The firmware's share of bus numbers and addresses, which may be too small for all VFs.
    fn room(&mut self, pf: &PciFunction, name: &str, total: u32) -> Result<()> {
        let number = |attribute: &str| -> Result<Option<u32>> {
            Ok(self.host.sysfs.attribute(pf.address, attribute)?.and_then(|text| text.parse().ok()))
        };
        let (offset, stride) = (number("sriov_offset")?, number("sriov_stride")?);
        let own = pf.address.routing_id();
        if let (Some(offset @ 1..), Some(stride), Some(last_bus)) = (offset, stride, self.last_bus_behind(pf.address)) {
            let fits = (1..=total).filter(|n| (own + offset + (n - 1) * stride) >> 8 <= last_bus).count();
            if fits < total as usize {
                let text = format!("{name}: bus numbers suffice for {fits} of {total} VFs");
                self.warning("sriov", text, Some("boot with `pci=assign-busses` to have more"));
            }
        }
        // Lines 8 to 13 are the BARs of the VFs (struct pci_dev, PCI_IOV_RESOURCES): start, end, flags.
        let resources = self.host.sysfs.attribute(pf.address, "resource")?.unwrap_or_default();
        let bars: Vec<&str> = resources.lines().skip(7).take(6).collect();
        let is_set =
            |line: &&str| line.split_whitespace().any(|word| word.trim_start_matches("0x").contains(|c| c != '0'));
        if bars.len() == 6 && !bars.iter().any(is_set) {
            let text = format!("{name}: the firmware gave its VFs no addresses");
            self.warning("sriov", text, Some("boot with `pci=realloc`, or enable SR-IOV in the firmware"));
        }
        Ok(())
    }

    /// The last bus number behind the bridge that a function is below.
    fn last_bus_behind(&self, address: PciAddress) -> Option<u32> {
        // Type 1 header: the subordinate bus number (PCI-to-PCI bridge specification).
        const SUBORDINATE: usize = 0x1a;
        let own = fs::canonicalize(self.host.sysfs.directory(address)).ok()?;
        let bridge = own.parent()?;
        bridge.file_name()?.to_str()?.parse::<PciAddress>().ok()?;
        fs::read(bridge.join("config")).ok()?.get(SUBORDINATE).map(|&bus| u32::from(bus))
    }

    fn vfs(&mut self, vfs: &[&PciFunction]) {
        let mut drivers: BTreeMap<&str, usize> = BTreeMap::new();
        for vf in vfs {
            *drivers.entry(vf.driver.as_deref().unwrap_or("no driver")).or_default() += 1;
        }
        if vfs.is_empty() {
            return;
        }
        let list: Vec<String> = drivers.iter().map(|(driver, count)| format!("{count} on {driver}")).collect();
        let text = format!("{} VFs: {}", vfs.len(), list.join(", "));
        match drivers.keys().any(|driver| is_vfio_driver(driver)) {
            true => self.good("vfs", text),
            false => self.warning("vfs", text, Some("`vfring bind ADDRESS` binds one to vfio-pci")),
        }
    }

    fn groups(&mut self, vfs: &[&PciFunction]) {
        let mut seen = BTreeMap::new();
        for group in vfs.iter().filter_map(|vf| vf.iommu_group.as_ref()) {
            seen.entry(group.number).or_insert(group);
        }
        let shared: Vec<_> = seen.values().filter(|group| group.members.len() > 1).collect();
        if !seen.is_empty() && shared.is_empty() {
            self.good("groups", "each VF has an IOMMU group of its own".into());
        }
        for group in shared {
            let members: Vec<String> = group.members.iter().map(GroupMember::to_string).collect();
            let text = format!("group {} is shared by {}", group.number, members.join(", "));
            let fix = match group.spoilers().next() {
                Some(_) => {
                    "it cannot be used while a driver of the kernel has a member: put the NIC into a slot with ACS"
                }
                None => "all go to one pod together: put the NIC into a slot with ACS to tell them apart",
            };
            self.warning("groups", text, Some(fix));
        }
    }

    fn hugepages(&mut self, vfs: &[&PciFunction]) {
        const FIX: &str = "`echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages`, for every boot \
                           `hugepages=512` on the kernel command line; see hugepages.md";
        let all = self.host.hugepages();
        if all.iter().all(|pages| pages.pages == 0) {
            return self.failure("hugepages", "none are reserved".into(), FIX);
        }
        let list: Vec<String> = all
            .iter()
            .filter(|pages| pages.pages > 0)
            .map(|pages| format!("{} of {} pages of {} MiB free", pages.free, pages.pages, pages.size >> 20))
            .collect();
        match all.iter().all(|pages| pages.free == 0) {
            true => self.warning("hugepages", list.join(", "), Some("all are in use: reserve more")),
            false => self.good("hugepages", list.join(", ")),
        }
        let mut nodes: Vec<u32> = vfs.iter().filter_map(|vf| vf.numa_node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let own = self.host.hugepages_of_node(node);
            if !own.is_empty() && own.iter().all(|pages| pages.pages == 0) {
                let fix =
                    format!("`echo 512 > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages`");
                self.warning("hugepages", format!("NUMA node {node} has VFs and no hugepages"), Some(&fix));
            }
        }
    }

    fn locked_memory(&mut self) {
        let limits = fs::read_to_string(self.host.proc.join("self/limits")).unwrap_or_default();
        let Some(line) = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")) else { return };
        let soft = line.split_whitespace().next().unwrap_or_default();
        match soft.parse::<u64>() {
            Ok(bytes) if bytes < LITTLE_LOCKED_MEMORY => {
                let text = format!("a process of this user may lock {} KiB, and DMA memory counts", bytes >> 10);
                let fix = "`ulimit -l unlimited`, systemd's `LimitMEMLOCK=infinity`, or IPC_LOCK in a pod; root needs nothing";
                self.add(Level::Note, "memlock", text, Some(fix));
            }
            _ => self.good("memlock", format!("{soft} bytes may be locked")),
        }
    }

    fn kubelet(&mut self, directory: &std::path::Path) {
        if !directory.exists() {
            let text = format!("{} is absent: kubelet does not run here, or elsewhere", directory.display());
            return self.add(Level::Note, "kubelet", text, None);
        }
        match directory.join("kubelet.sock").exists() {
            true => self.good("kubelet", format!("{} has kubelet.sock", directory.display())),
            false => {
                let text = format!("{} has no kubelet.sock", directory.display());
                self.warning("kubelet", text, Some("`systemctl status kubelet` says why it is not up"));
            }
        }
    }
}
