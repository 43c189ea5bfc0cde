//! What stands between a program and its VF, in one line each, with the command that mends it.
//!
//! Owns the texts: the checks that sysfs allows before anything is opened, and what the kernel's refusals mean. Called
//! by the rest of `vfio`. Commands name `/sys` and `/dev` as a user's shell sees them.
#![forbid(unsafe_code)]

use std::io;

use crate::addr::PciAddress;
use crate::error::{Error, Result};
use crate::mem::HugeRegion;
use crate::pci::{self, GroupMember, IommuGroup, PciFunction};

use super::ioctl;

/// Refuses a function that vfio-pci cannot give us as it stands; returns its group.
pub(super) fn check_function(function: &PciFunction) -> Result<&IommuGroup> {
    let address = function.address;
    let dir = format!("/sys/bus/pci/devices/{address}");
    // A VF that was passed into a virtual machine has neither `physfn` nor SR-IOV of its own: it passes.
    if let (None, Some(sriov)) = (function.vf, function.sriov) {
        let state = match sriov.num_vfs {
            0 => format!("make some of its {} with `echo N > {dir}/sriov_numvfs`", sriov.total_vfs),
            n => format!("it has {n}: `readlink {dir}/virtfn*`"),
        };
        return Err(Error::device(address, format!("is a PF, and vfring drives VFs; {state}")));
    }
    // Before the driver: without an IOMMU, vfio-pci refuses to bind.
    let Some(group) = &function.iommu_group else {
        return Err(Error::device(
            address,
            "has no IOMMU group, so the IOMMU is off; enable VT-d or AMD-Vi in the firmware and boot with \
             `intel_iommu=on` on the kernel command line (in a virtual machine, give it a virtual IOMMU)",
        ));
    };
    match function.driver.as_deref() {
        Some(driver) if pci::is_vfio_driver(driver) => {}
        other => {
            let (state, unbind) = match other {
                Some(driver) => (format!("bound to {driver}"), format!("echo {address} > {dir}/driver/unbind; ")),
                None => ("bound to no driver".to_owned(), String::new()),
            };
            return Err(Error::device(
                address,
                format!(
                    "is {state}, not to vfio-pci; as root run `modprobe vfio-pci; \
                     echo vfio-pci > {dir}/driver_override; {unbind}echo {address} > /sys/bus/pci/drivers_probe`"
                ),
            ));
        }
    }
    Ok(group)
}

/// The group is not viable.
pub(super) fn not_viable(function: &PciFunction, group: &IommuGroup) -> Error {
    const ACS: &str = "a slot with ACS, where each VF has a group of its own";
    let number = group.number;
    let spoilers: Vec<&GroupMember> = group.spoilers().collect();
    let (cause, cure) = if spoilers.is_empty() {
        ("somebody else owns it".to_owned(), format!("`fuser -v /dev/vfio/{number}` names who"))
    } else {
        let bound = |member: &&GroupMember| -> String {
            format!("{} is bound to {}", member.name, member.driver.as_deref().unwrap_or("nothing"))
        };
        let unbind = |member: &&GroupMember| -> String {
            format!("echo {0} > /sys/bus/pci/devices/{0}/driver/unbind", member.name)
        };
        let pf = function.vf.map(|vf| vf.pf.to_string());
        let cure = if spoilers.iter().any(|member| Some(&member.name) == pf.as_ref()) {
            format!("its PF cannot be freed without losing the VF, so only {ACS}, helps")
        } else {
            format!("free with `{}`, or use {ACS}", spoilers.iter().map(unbind).collect::<Vec<_>>().join("; "))
        };
        (spoilers.iter().map(bound).collect::<Vec<_>>().join(", "), cure)
    };
    Error::device(function.address, format!("its IOMMU group {number} is not viable, because {cause}; {cure}"))
}

/// A node of `/dev/vfio` that does not open.
pub(super) fn open_failed(address: PciAddress, node: &str, error: io::Error) -> Error {
    let path = format!("/dev/vfio/{node}");
    let is_container = node == "vfio";
    let cure = match error.raw_os_error() {
        Some(libc::ENOENT) if is_container => {
            format!("run `modprobe vfio-pci` on the host, and pass {path} into the container")
        }
        Some(libc::ENOENT) => format!(
            "a container must be given it: ask Kubernetes for the resource of the device plugin, or run with \
             `--device {path} --device /dev/vfio/vfio`"
        ),
        Some(libc::EACCES) => format!(
            "`sudo chown $USER {path}`, for good by a udev rule `SUBSYSTEM==\"vfio\", GROUP=\"vfio\", \
             MODE=\"0660\"`; in a pod set `securityContext: {{runAsUser: 0}}`, or \
             device_ownership_from_security_context in containerd"
        ),
        Some(libc::EPERM) => {
            format!("the container's device cgroup forbids it: let the device plugin or `--device {path}` pass it")
        }
        Some(libc::EBUSY) => {
            format!("another process has it, and all devices of a group belong to one; `fuser -v {path}` names it")
        }
        _ => "see dmesg".to_owned(),
    };
    Error::os(format!("{address}: cannot open {path} ({cure})"), error)
}

/// `VFIO_GROUP_SET_CONTAINER` or `VFIO_SET_IOMMU` refused.
pub(super) fn attach_failed(address: PciAddress, call: &str, group: u32, error: io::Error) -> Error {
    let cure = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "without interrupt remapping the kernel refuses: enable it in the firmware (in QEMU \
             `intel-iommu,intremap=on`), or accept the risk with `modprobe vfio_iommu_type1 \
             allow_unsafe_interrupts=1`; dmesg tells which"
        }
        Some(libc::ENODEV) => "`modprobe vfio_iommu_type1` on the host",
        _ => "see dmesg",
    };
    Error::os(format!("{address}: {call} for IOMMU group {group} ({cure})"), error)
}

/// `VFIO_GROUP_GET_DEVICE_FD` refused.
pub(super) fn device_failed(address: PciAddress, error: io::Error) -> Error {
    let cure = match error.raw_os_error() {
        Some(libc::EACCES) => "its PF is on vfio-pci too and demands a token; bind the PF to its own driver",
        Some(libc::ENODEV) => "it left its group or lost vfio-pci just now",
        _ => "see dmesg",
    };
    Error::os(format!("{address}: VFIO_GROUP_GET_DEVICE_FD ({cure})"), error)
}

/// `VFIO_IOMMU_MAP_DMA` refused.
pub(super) fn map_failed(address: PciAddress, region: &HugeRegion, error: io::Error) -> Error {
    let cure = match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            let limit = match ioctl::memlock_limit() {
                Some(bytes) => format!("{} KiB", bytes >> 10),
                None => "unlimited".to_owned(),
            };
            format!(
                "pinned memory counts against the limit of locked memory, which is {limit} here: raise it with \
                 `ulimit -l unlimited`, systemd's `LimitMEMLOCK=infinity`, or the capability IPC_LOCK in the pod's \
                 securityContext"
            )
        }
        Some(libc::ENOSPC) => {
            "the container is out of mappings: use larger regions, or raise vfio_iommu_type1's dma_entry_limit"
                .to_owned()
        }
        _ => "see dmesg".to_owned(),
    };
    Error::os(format!("{address}: VFIO_IOMMU_MAP_DMA of {region:?} ({cure})"), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::FakeSysfs;

    const VF: &str = "0000:01:10.0";

    fn vf() -> FakeSysfs {
        let sysfs = FakeSysfs::new();
        sysfs.pf("0000:01:00.0", "8086:10c9", 8, 1).driver("0000:01:00.0", "igb").group("0000:01:00.0", 14);
        sysfs.vf(VF, "8086:10ca", "0000:01:00.0", 0).driver(VF, "vfio-pci").group(VF, 5);
        sysfs
    }

    fn function(sysfs: &FakeSysfs, address: &str) -> PciFunction {
        sysfs.root().function(address.parse().unwrap()).unwrap()
    }

    /// The text of a refusal, which is one line that starts with the device and has all the `parts`.
    fn refused(sysfs: &FakeSysfs, address: &str, parts: &[&str]) {
        let error = check_function(&function(sysfs, address)).unwrap_err().to_string();
        assert!(error.starts_with(address) && !error.contains('\n'), "{error}");
        for part in parts {
            assert!(error.contains(part), "'{part}' is not in: {error}");
        }
    }

    #[test]
    fn a_vf_on_vfio_pci_passes_and_so_does_one_inside_a_virtual_machine() {
        let sysfs = vf();
        assert_eq!(check_function(&function(&sysfs, VF)).unwrap().number, 5);
        sysfs.device("0000:00:05.0", "8086:10ca").driver("0000:00:05.0", "vfio-pci").group("0000:00:05.0", 2);
        assert_eq!(check_function(&function(&sysfs, "0000:00:05.0")).unwrap().number, 2);
    }

    #[test]
    fn a_pf_is_refused_with_the_way_to_its_vfs() {
        let sysfs = vf();
        refused(&sysfs, "0000:01:00.0", &["is a PF", "it has 1", "virtfn"]);
        sysfs.pf("0000:02:00.0", "8086:10c9", 7, 0);
        refused(&sysfs, "0000:02:00.0", &["of its 7", "echo N > /sys/bus/pci/devices/0000:02:00.0/sriov_numvfs"]);
    }

    #[test]
    fn another_driver_or_none_is_refused_with_the_commands_that_bind() {
        let sysfs = vf();
        let commands = [
            "echo vfio-pci > /sys/bus/pci/devices/0000:01:10.0/driver_override; ",
            "echo 0000:01:10.0 > /sys/bus/pci/drivers_probe",
        ];
        sysfs.driver(VF, "igbvf");
        refused(&sysfs, VF, &["is bound to igbvf", "driver/unbind", commands[0], commands[1]]);
        sysfs.remove(VF, "driver");
        refused(&sysfs, VF, &["bound to no driver", commands[0], commands[1]]);
        assert!(!check_function(&function(&sysfs, VF)).unwrap_err().to_string().contains("unbind"));
    }

    #[test]
    fn no_group_means_no_iommu() {
        let sysfs = vf();
        sysfs.remove(VF, "iommu_group");
        refused(&sysfs, VF, &["IOMMU is off", "intel_iommu=on"]);
    }

    #[test]
    fn without_an_iommu_nobody_is_sent_to_bind_a_driver() {
        let sysfs = vf();
        sysfs.remove(VF, "iommu_group").remove(VF, "driver");
        refused(&sysfs, VF, &["IOMMU is off"]);
    }

    #[test]
    fn a_group_is_spoiled_by_drivers_that_do_dma_and_by_nothing_else() {
        let sysfs = vf();
        for (address, driver) in
            [("0000:00:04.0", Some("pcieport")), ("0000:00:04.1", None), ("0000:02:00.0", Some("nvme"))]
        {
            sysfs.device(address, "8086:0001").group(address, 5);
            if let Some(driver) = driver {
                sysfs.driver(address, driver);
            }
        }
        let text = |sysfs| {
            let vf = function(sysfs, VF);
            not_viable(&vf, vf.iommu_group.as_ref().unwrap()).to_string()
        };
        let error = text(&sysfs);
        assert!(error.contains("because 0000:02:00.0 is bound to nvme;"), "{error}");
        assert!(error.contains("`echo 0000:02:00.0 > /sys/bus/pci/devices/0000:02:00.0/driver/unbind`"), "{error}");
        assert!(!error.contains("0000:00:04") && !error.contains('\n'), "{error}");
        // Unbinding the PF would take the VF away: never advise it.
        sysfs.group("0000:01:00.0", 5);
        let error = text(&sysfs);
        assert!(error.contains("because 0000:01:00.0 is bound to igb, 0000:02:00.0 is bound to nvme;"), "{error}");
        assert!(error.contains("ACS") && !error.contains("unbind"), "{error}");
        sysfs.driver("0000:02:00.0", "vfio-pci").driver("0000:01:00.0", "pci-stub");
        assert!(text(&sysfs).contains("somebody else owns it; `fuser -v /dev/vfio/5`"));
    }

    #[test]
    fn the_kernel_s_refusals_name_their_cure() {
        let address: PciAddress = VF.parse().unwrap();
        let os = io::Error::from_raw_os_error;
        let region = HugeRegion::allocate(4096, crate::mem::Pages::Ordinary, None).unwrap();
        for (error, part) in [
            (open_failed(address, "5", os(libc::ENOENT)), "--device /dev/vfio/5"),
            (open_failed(address, "vfio", os(libc::ENOENT)), "modprobe vfio-pci"),
            (open_failed(address, "5", os(libc::EACCES)), "sudo chown $USER /dev/vfio/5"),
            (open_failed(address, "5", os(libc::EACCES)), "securityContext"),
            (open_failed(address, "5", os(libc::EPERM)), "cgroup"),
            (open_failed(address, "5", os(libc::EBUSY)), "fuser -v /dev/vfio/5"),
            (attach_failed(address, "VFIO_SET_IOMMU", 5, os(libc::EPERM)), "allow_unsafe_interrupts"),
            (device_failed(address, os(libc::EACCES)), "token"),
            (map_failed(address, &region, os(libc::ENOMEM)), "ulimit -l"),
            (map_failed(address, &region, os(libc::ENOMEM)), "LimitMEMLOCK"),
            (map_failed(address, &region, os(libc::ENOSPC)), "dma_entry_limit"),
        ] {
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains('\n'), "'{part}' is not in: {text}");
        }
    }
}
