//! Inside a pod: the VFs that a device plugin gave it, and whether the pod can use them.
//!
//! Owns reading the environment, the nodes, the cpuset and the limits of hugepages, as a container sees them. Called by a
//! program at its start. What always holds: what is missing is an error that says what to add to the pod's manifest; what
//! only costs speed is a note.
#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

use crate::addr::PciAddress;
use crate::error::{Error, Result};
use crate::pci::SysfsRoot;
use crate::spec::DeviceSpec;

/// What a pod was given for a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PodDevices {
    /// The devices, in the order of the environment: with Multus, that of the pod's networks.
    pub specs: Vec<DeviceSpec>,
    /// The processors that the container may run on.
    pub cpus: Vec<usize>,
    /// Most bytes of hugepages that the container may have, by page size, as far as the kernel tells.
    pub hugepages: Vec<HugepageLimit>,
    /// What works and costs speed, one line each.
    pub notes: Vec<String>,
}

/// How many hugepages of one size a container may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HugepageLimit {
    /// The page size in bytes.
    pub page_size: u64,
    /// The limit in bytes; none where there is none.
    pub limit: Option<u64>,
}

/// Where a container's files are.
struct Roots {
    sysfs: SysfsRoot,
    dev: PathBuf,
    proc: PathBuf,
}

impl PodDevices {
    /// The devices that a Kubernetes device plugin gave this pod for `resource`, such as
    /// `intel.com/intel_sriov_dpdk`, with all that the pod needs to use them.
    ///
    /// Reads `PCIDEVICE_<RESOURCE>` (upper case, dots and the slash as `_`), a comma-separated list of PCI addresses, and
    /// `PCIDEVICE_<RESOURCE>_INFO` where it is set: the variables that sriov-network-device-plugin sets. Checks that each
    /// device is there, that its IOMMU group is still the one that the pod was given, and its node in `/dev/vfio`; that
    /// the container may have hugepages; and which processors it has.
    ///
    /// # Errors
    /// [`Error::Config`] when the variable is unset or empty, or hugepages are forbidden, naming what to add to the pod;
    /// [`Error::Parse`] when an entry is no PCI address; [`Error::Device`] when a device or its node is missing.
    pub fn from_env(resource: &str) -> Result<PodDevices> {
        let roots = Roots { sysfs: SysfsRoot::default(), dev: "/dev".into(), proc: "/proc".into() };
        let name = variable(resource);
        let get = |name: &str| std::env::var(name).unwrap_or_default();
        roots.read(resource, &get(&name), &get(&format!("{name}_INFO")))
    }
}

impl DeviceSpec {
    /// The devices that a Kubernetes device plugin gave this pod for `resource`: [`PodDevices::from_env`] without the
    /// rest of what it found.
    ///
    /// # Errors
    /// As [`PodDevices::from_env`].
    pub fn from_env(resource: &str) -> Result<Vec<DeviceSpec>> {
        Ok(PodDevices::from_env(resource)?.specs)
    }
}

/// `intel.com/intel_sriov_dpdk` to `PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK`.
fn variable(resource: &str) -> String {
    format!("PCIDEVICE_{}", resource.replace(['.', '/'], "_").to_ascii_uppercase())
}

impl Roots {
    fn read(&self, resource: &str, list: &str, info: &str) -> Result<PodDevices> {
        let addresses = addresses(resource, list)?;
        for &address in &addresses {
            self.check_node(resource, address, info)?;
        }
        let hugepages = self.hugepage_limits();
        if !hugepages.is_empty() && hugepages.iter().all(|size| size.limit == Some(0)) {
            return Err(Error::Config(format!(
                "the container may have no hugepages, and '{resource}' needs some; add `hugepages-2Mi: 256Mi` (or \
                 hugepages-1Gi) to its resource limits, with `memory` and `cpu` beside it"
            )));
        }
        let (cpus, online) = (self.allowed_cpus(), self.online_cpus());
        let mut notes = Vec::new();
        if !cpus.is_empty() && cpus == online {
            notes.push(format!(
                "the container shares all {} processors with others; for some of its own, request whole `cpu`s with \
                 requests equal to limits, on a node whose kubelet has `cpuManagerPolicy: static`",
                cpus.len()
            ));
        }
        Ok(PodDevices { specs: addresses.into_iter().map(DeviceSpec::Pci).collect(), cpus, hugepages, notes })
    }

    /// The device's group has the node that the pod was given.
    fn check_node(&self, resource: &str, address: PciAddress, info: &str) -> Result<()> {
        let group = self.sysfs.function(address)?.iommu_group;
        let Some(group) = group else {
            return Err(Error::device(address, "has no IOMMU group: the IOMMU of the host is off"));
        };
        let node = format!("/dev/vfio/{}", group.number);
        if let Some(told) = member(info, &[&address.to_string(), "vfio", "dev-mount"])
            && told != node
        {
            return Err(Error::device(
                address,
                format!(
                    "the pod was given {told}, and the device is in IOMMU group {} now (the host was restarted, or its VFs \
                     were made anew); delete the pod, so that it is given its devices anew",
                    group.number
                ),
            ));
        }
        for name in ["vfio".to_owned(), group.number.to_string()] {
            let path = self.dev.join("vfio").join(&name);
            if !fs::exists(&path).map_err(|e| Error::os(format!("looking for {}", path.display()), e))? {
                return Err(Error::device(
                    address,
                    format!(
                        "/dev/vfio/{name} is missing in the container: the device plugin passes it when the container \
                         itself has `{resource}` in its resource limits, and hands out devices that are on vfio-pci"
                    ),
                ));
            }
        }
        Ok(())
    }

    /// The limits of the container's cgroup; empty where the kernel does not tell.
    fn hugepage_limits(&self) -> Vec<HugepageLimit> {
        let cgroup = self.sysfs.path().join("fs/cgroup");
        let mut limits = Vec::new();
        // One directory for all controllers (version 2), or one for this (version 1).
        for (dir, end) in [(cgroup.clone(), ".max"), (cgroup.join("hugetlb"), ".limit_in_bytes")] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let size = name.strip_prefix("hugetlb.").and_then(|rest| rest.strip_suffix(end)).and_then(page_size);
                let Some(page_size) = size else { continue };
                let Ok(text) = fs::read_to_string(entry.path()) else { continue };
                // "max", or a number that is as good as none.
                let limit = text.trim().parse().ok().filter(|&bytes: &u64| bytes < 1 << 62);
                limits.push(HugepageLimit { page_size, limit });
            }
        }
        limits.sort_unstable_by_key(|size| size.page_size);
        limits
    }

    fn allowed_cpus(&self) -> Vec<usize> {
        let status = fs::read_to_string(self.proc.join("self/status")).unwrap_or_default();
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        list.map(cpu_list).unwrap_or_default()
    }

    fn online_cpus(&self) -> Vec<usize> {
        let path = self.sysfs.path().join("devices/system/cpu/online");
        cpu_list(&fs::read_to_string(path).unwrap_or_default())
    }
}

fn addresses(resource: &str, list: &str) -> Result<Vec<PciAddress>> {
    let name = variable(resource);
    let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let addresses: Vec<PciAddress> = entries
        .map(|entry| entry.parse().map_err(|error| Error::Parse(format!("{name}: {error}"))))
        .collect::<Result<_>>()?;
    if addresses.is_empty() {
        return Err(Error::Config(format!(
            "{name} is not set: the pod was given no '{resource}'; add `{resource}: \"1\"` to the container's resource limits"
        )));
    }
    Ok(addresses)
}

/// `2MB` of the name of a cgroup's file, in bytes.
fn page_size(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let shift = match unit {
        "KB" => 10,
        "MB" => 20,
        "GB" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The kernel's lists: `0-3,8`.
fn cpu_list(text: &str) -> Vec<usize> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<usize>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// The string at a path of keys in an object of JSON; none where there is none. Only what `_INFO` needs is understood:
/// objects and strings, and any other value as far as to skip it.
fn member(json: &str, path: &[&str]) -> Option<String> {
    let mut rest = json.trim_start();
    for (depth, key) in path.iter().enumerate() {
        rest = rest.strip_prefix('{')?.trim_start();
        loop {
            let (name, after) = string(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            if name == *key {
                rest = value;
                break;
            }
            rest = skip(value)?.trim_start().strip_prefix(',')?.trim_start();
        }
        if depth + 1 == path.len() {
            return string(rest).map(|(text, _)| text);
        }
    }
    None
}

/// A string and what follows it. Escapes other than of one character stay as they are: paths and addresses have none.
fn string(text: &str) -> Option<(String, &str)> {
    let body = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut chars = body.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &body[at + 1..])),
            '\\' => out.push(chars.next()?.1),
            c => out.push(c),
        }
    }
    None
}

/// What follows a value.
fn skip(text: &str) -> Option<&str> {
    if text.starts_with('"') {
        return string(text).map(|(_, rest)| rest);
    }
    let (mut rest, mut depth) = (text, 0u32);
    loop {
        let c = rest.chars().next()?;
        match c {
            '"' => {
                rest = string(rest)?.1;
                continue;
            }
            '{' | '[' => depth += 1,
            ',' | '}' | ']' if depth == 0 => return Some(rest),
            '}' | ']' => depth -= 1,
            _ => {}
        }
        rest = &rest[c.len_utf8()..];
        if depth == 0 && matches!(c, '}' | ']') {
            return Some(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::FakeSysfs;

    const RESOURCE: &str = "intel.com/intel_sriov_dpdk";
    const VF: &str = "0000:01:10.0";
    const INFO: &str = r#"{"0000:01:10.0":{"extra":{"a":"}\"{"},"generic":{"deviceID":"0000:01:10.0"},"vfio":{"dev-mount":"/dev/vfio/5","mount":"/dev/vfio/vfio"}}}"#;

    /// A pod with one VF in group 5, 512 MiB of 2 MiB pages, and two of four processors.
    fn pod() -> FakeSysfs {
        let sysfs = FakeSysfs::new();
        sysfs.pf("0000:01:00.0", "8086:10c9", 8, 1).vfio_vf(VF, "8086:10ca", "0000:01:00.0", 0, 5).node("vfio");
        sysfs.file("fs/cgroup/hugetlb.2MB.max", "536870912\n").file("fs/cgroup/hugetlb.1GB.max", "0\n");
        sysfs.file("fs/cgroup/hugetlb.2MB.rsvd.max", "max\n").file("fs/cgroup/hugetlb.2MB.current", "0\n");
        sysfs.file("devices/system/cpu/online", "0-3\n");
        sysfs.file("proc/self/status", "Name:\tl2fwd\nCpus_allowed:\tc\nCpus_allowed_list:\t2-3\n");
        sysfs
    }

    fn read(sysfs: &FakeSysfs, list: &str, info: &str) -> Result<PodDevices> {
        let proc = sysfs.root().path().join("proc");
        Roots { sysfs: sysfs.root(), dev: sysfs.dev(), proc }.read(RESOURCE, list, info)
    }

    fn refused(sysfs: &FakeSysfs, info: &str, parts: &[&str]) {
        let error = read(sysfs, VF, info).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part) && !error.contains('\n'), "'{part}' is not in: {error}");
        }
    }

    #[test]
    fn a_pod_with_all_it_needs_gets_its_devices() {
        let (sysfs, mib) = (pod(), 1 << 20);
        let found = read(&sysfs, &format!(" {VF},"), INFO).unwrap();
        assert_eq!(found.specs, [DeviceSpec::Pci(VF.parse().unwrap())]);
        assert_eq!((found.cpus, found.notes), (vec![2, 3], vec![]));
        let expected = [(2 * mib, Some(512 * mib)), (1024 * mib, Some(0))];
        assert_eq!(found.hugepages, expected.map(|(page_size, limit)| HugepageLimit { page_size, limit }));
    }

    #[test]
    fn the_variable_is_that_of_the_device_plugin() {
        assert_eq!(variable(RESOURCE), "PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK");
        // Only dots and the slash are replaced.
        assert_eq!(variable("a-b.c/d-e_f"), "PCIDEVICE_A-B_C_D-E_F");
    }

    #[test]
    fn a_pod_that_was_given_nothing_is_told_what_to_ask_for() {
        let sysfs = pod();
        for list in ["", " ", ",,"] {
            let error = read(&sysfs, list, "").unwrap_err().to_string();
            assert!(error.contains("PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK is not set"), "{error}");
            assert!(error.contains("`intel.com/intel_sriov_dpdk: \"1\"`"), "{error}");
        }
        for list in ["eth0", "0000:01:10.0,x", "../0000:01:10.0"] {
            assert!(read(&sysfs, list, "").unwrap_err().to_string().contains("is not a PCI address"));
        }
    }

    #[test]
    fn missing_nodes_and_devices_are_named() {
        let sysfs = pod();
        sysfs.remove_node("5");
        refused(&sysfs, INFO, &[VF, "/dev/vfio/5 is missing in the container", RESOURCE]);
        sysfs.node("5").remove_node("vfio");
        refused(&sysfs, INFO, &["/dev/vfio/vfio is missing"]);
        sysfs.remove(VF, "iommu_group");
        refused(&sysfs, INFO, &["no IOMMU group"]);
        sysfs.unplug(VF);
        refused(&sysfs, INFO, &["no such PCI device"]);
    }

    #[test]
    fn a_group_that_was_renumbered_is_noticed_by_info_alone() {
        let sysfs = pod();
        sysfs.group(VF, 9).node("9");
        refused(&sysfs, INFO, &["was given /dev/vfio/5", "group 9 now", "delete the pod"]);
        for info in ["", "{}", "null", "{\"0000:01:10.0\":{\"vfio\":{}}}", "{\"0000:01:10.1\":7}"] {
            assert!(read(&sysfs, VF, info).is_ok(), "{info}");
        }
    }

    #[test]
    fn a_container_without_hugepages_is_told_to_ask_for_some() {
        let sysfs = pod();
        sysfs.file("fs/cgroup/hugetlb.2MB.max", "0\n");
        refused(&sysfs, INFO, &["no hugepages", "hugepages-2Mi: 256Mi"]);
        sysfs.file("fs/cgroup/hugetlb.1GB.max", "max\n");
        assert_eq!(read(&sysfs, VF, INFO).unwrap().hugepages[1].limit, None);
        // Version 1 of cgroups.
        let sysfs = FakeSysfs::new();
        sysfs.pf("0000:01:00.0", "8086:10c9", 8, 1).vfio_vf(VF, "8086:10ca", "0000:01:00.0", 0, 5).node("vfio");
        assert_eq!(read(&sysfs, VF, "").unwrap().hugepages, []);
        sysfs.file("fs/cgroup/hugetlb/hugetlb.2MB.limit_in_bytes", "9223372036852678656\n");
        assert_eq!(read(&sysfs, VF, "").unwrap().hugepages[0].limit, None);
        sysfs.file("fs/cgroup/hugetlb/hugetlb.2MB.limit_in_bytes", "0\n");
        refused(&sysfs, "", &["no hugepages"]);
    }

    #[test]
    fn a_container_that_shares_all_processors_is_told_how_to_get_its_own() {
        let sysfs = pod();
        sysfs.file("proc/self/status", "Cpus_allowed_list:\t0-3\n");
        let found = read(&sysfs, VF, INFO).unwrap();
        assert_eq!((found.cpus.len(), found.notes.len()), (4, 1));
        assert!(found.notes[0].contains("all 4 processors") && found.notes[0].contains("cpuManagerPolicy: static"));
        assert_eq!(cpu_list("0-2,7\n"), [0, 1, 2, 7]);
        assert!(cpu_list("x,3-1").is_empty());
    }

    #[test]
    fn members_are_found_in_any_json_and_never_in_none() {
        assert_eq!(member(INFO, &[VF, "vfio", "dev-mount"]).as_deref(), Some("/dev/vfio/5"));
        assert_eq!(member(INFO, &[VF, "extra", "a"]).as_deref(), Some("}\"{"));
        let spaced = "{ \"a\" : [1, {\"b\": \"]\"}] , \"n\" : -1.5e3, \"b\" : { \"c\" : \"d\" } }";
        assert_eq!(member(spaced, &["b", "c"]).as_deref(), Some("d"));
        for path in [&["a", "b"][..], &["n"], &["b"], &["c"], &[]] {
            assert_eq!(member(spaced, path), None, "{path:?}");
        }
        // Cut anywhere, it is an answer or none, and no panic.
        for end in (0..=INFO.len()).filter(|&end| INFO.is_char_boundary(end)) {
            let _ = member(&INFO[..end], &[VF, "vfio", "dev-mount"]);
            let _ = member(&INFO[end..], &[VF, "vfio", "dev-mount"]);
        }
    }
}
