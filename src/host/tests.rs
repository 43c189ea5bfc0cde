//! Tests of the host's tools on sysfs trees, with a kernel that reacts to writes as Linux does.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::*;
use crate::addr::PciAddress;
use crate::pci::fake::FakeSysfs;

const PF: &str = "0000:03:00.0";
const VF: &str = "0000:03:10.0";

fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn host(sysfs: &FakeSysfs) -> Host {
    Host { sysfs: sysfs.root(), dev: sysfs.dev(), proc: sysfs.root().path().join("proc") }
}

/// An I350 port with `vfs` VFs on igbvf, and vfio-pci loaded.
fn i350(vfs: u32) -> FakeSysfs {
    let sysfs = FakeSysfs::new();
    sysfs.pf(PF, "8086:1521", 7, 0).driver(PF, "igb").group(PF, 40).interface(
        PF,
        "ens802f0",
        "a0:36:9f:00:00:01",
        true,
    );
    sysfs.file("bus/pci/drivers/vfio-pci/module", "").node("vfio");
    make_vfs(&sysfs, vfs);
    sysfs
}

fn make_vfs(sysfs: &FakeSysfs, number: u32) {
    sysfs.write(PF, "sriov_numvfs", &format!("{number}\n"));
    for index in 0..number {
        let vf = address_of(index);
        sysfs.vf(&vf, "8086:1520", PF, index).driver(&vf, "igbvf").group(&vf, 50 + index);
    }
}

fn address_of(index: u32) -> String {
    format!("0000:03:{:02x}.{}", 0x10 + index / 2, index % 2 * 4)
}

/// A kernel: reacts to the writes, and refuses what it is told to.
struct FakeKernel<'a> {
    sysfs: &'a FakeSysfs,
    overrides: BTreeMap<String, String>,
    log: Vec<String>,
    /// Part of a path, and the error that a write to it meets.
    refuses: Option<(&'static str, i32)>,
}

impl<'a> FakeKernel<'a> {
    fn new(sysfs: &'a FakeSysfs) -> Self {
        FakeKernel { sysfs, overrides: BTreeMap::new(), log: Vec::new(), refuses: None }
    }

    fn driver_of(&self, address: &str) -> Option<String> {
        self.sysfs.root().function(at(address)).unwrap().driver
    }
}

impl Hands for FakeKernel<'_> {
    fn write(&mut self, path: &Path, value: &str) -> io::Result<()> {
        let path = path.strip_prefix(self.sysfs.root().path().join("bus/pci")).unwrap().to_str().unwrap().to_owned();
        self.log.push(format!("{} > {path}", value.trim_end()));
        if let Some((_, errno)) = self.refuses.filter(|(part, _)| path.contains(part)) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        match path.split('/').collect::<Vec<_>>()[..] {
            ["devices", address, "driver", "unbind"] => {
                assert_eq!(address, value);
                self.sysfs.remove(address, "driver");
            }
            ["devices", address, "driver_override"] => {
                self.overrides.insert(address.to_owned(), value.trim().to_owned());
            }
            ["drivers", driver, "bind"] => {
                assert_eq!(self.driver_of(value), None, "still bound");
                assert_eq!(self.overrides[value], driver, "vfio-pci takes only what is overridden to it");
                self.sysfs.driver(value, driver);
            }
            ["drivers_probe"] => {
                if self.driver_of(value).is_none() {
                    let own = self.overrides.get(value).filter(|driver| !driver.is_empty());
                    self.sysfs.driver(value, own.map_or("igbvf", String::as_str));
                }
            }
            ["devices", PF, "sriov_numvfs"] => {
                let had = self.sysfs.root().function(at(PF)).unwrap().sriov.unwrap().num_vfs;
                let number: u32 = value.parse().unwrap();
                if had > 0 && number > 0 {
                    return Err(io::Error::from_raw_os_error(libc::EBUSY));
                }
                for index in 0..had {
                    self.sysfs.remove(PF, &format!("virtfn{index}")).unplug(&address_of(index));
                }
                make_vfs(self.sysfs, number);
            }
            _ => panic!("no such attribute: {path}"),
        }
        Ok(())
    }

    fn acts(&self) -> bool {
        true
    }
}

/// The error's one line has all the parts.
fn says<T: std::fmt::Debug>(result: crate::Result<T>, parts: &[&str]) {
    let text = result.unwrap_err().to_string();
    for part in parts {
        assert!(text.contains(part) && !text.contains('\n'), "'{part}' is not in: {text}");
    }
}

// --- bind ------------------------------------------------------------------------------------------------------------

#[test]
fn binding_leaves_no_override_and_is_done_once() {
    let sysfs = i350(1);
    let mut kernel = FakeKernel::new(&sysfs);
    let bound = bind(&host(&sysfs), &mut kernel, at(VF), "vfio-pci", false).unwrap();
    assert_eq!(bound, Binding::Changed(Some("vfio-pci".into())));
    let expected = [
        "0000:03:10.0 > devices/0000:03:10.0/driver/unbind",
        "vfio-pci > devices/0000:03:10.0/driver_override",
        "0000:03:10.0 > drivers/vfio-pci/bind",
        " > devices/0000:03:10.0/driver_override",
    ];
    assert_eq!(kernel.log, expected);
    let again = bind(&host(&sysfs), &mut kernel, at(VF), "vfio-pci", false).unwrap();
    assert_eq!((again, kernel.log.len()), (Binding::Already(Some("vfio-pci".into())), 4));
    assert_eq!(unbind(&host(&sysfs), &mut kernel, at(VF), false).unwrap(), Binding::Changed(Some("igbvf".into())));
    assert_eq!(unbind(&host(&sysfs), &mut kernel, at(VF), false).unwrap(), Binding::Already(Some("igbvf".into())));
}

#[test]
fn a_rehearsal_says_every_write_and_does_none() {
    let sysfs = i350(1);
    let mut rehearsal = Rehearsal::default();
    let bound = bind(&host(&sysfs), &mut rehearsal, at(VF), "vfio-pci", false).unwrap();
    assert_eq!(bound, Binding::Changed(Some("vfio-pci".into())));
    let dir = format!("{}/bus/pci", sysfs.root().path().display());
    let expected = [
        format!("echo {VF} > {dir}/devices/{VF}/driver/unbind"),
        format!("echo vfio-pci > {dir}/devices/{VF}/driver_override"),
        format!("echo {VF} > {dir}/drivers/vfio-pci/bind"),
        format!("echo > {dir}/devices/{VF}/driver_override"),
    ];
    assert_eq!(rehearsal.commands, expected);
    assert_eq!(sysfs.root().function(at(VF)).unwrap().driver.as_deref(), Some("igbvf"));
}

#[test]
fn a_device_that_the_driver_does_not_take_goes_back_to_its_own() {
    let sysfs = i350(1);
    let mut kernel = FakeKernel::new(&sysfs);
    kernel.refuses = Some(("vfio-pci/bind", libc::ENODEV));
    says(bind(&host(&sysfs), &mut kernel, at(VF), "vfio-pci", false), &["vfio-pci/bind", "No such device", "dmesg"]);
    assert_eq!(kernel.driver_of(VF).as_deref(), Some("igbvf"));
    assert_eq!(kernel.overrides[VF], "");
}

#[test]
fn what_cannot_be_bound_is_refused_before_anything_is_written() {
    let sysfs = i350(1);
    let mut kernel = FakeKernel::new(&sysfs);
    let host = host(&sysfs);
    says(bind(&host, &mut kernel, at("0000:09:00.0"), "vfio-pci", false), &["no such PCI device"]);
    for driver in ["uio_pci_generic", "", "../../../etc", "a/b"] {
        says(bind(&host, &mut kernel, at(VF), driver, true), &["modprobe"]);
    }
    says(bind(&host, &mut kernel, at(PF), "vfio-pci", false), &["is a PF, and its 1 VFs would go", "--force"]);
    sysfs.remove(VF, "iommu_group");
    says(bind(&host, &mut kernel, at(VF), "vfio-pci", true), &["IOMMU is off", "intel_iommu=on"]);
    assert_eq!(kernel.log, [""; 0]);
    sysfs.file("module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
    assert!(bind(&host, &mut kernel, at(VF), "vfio-pci", false).is_ok());
}

#[test]
fn an_interface_in_use_is_taken_only_by_force() {
    const TITLES: &str = "Iface\tDestination\tGateway\n";
    let sysfs = i350(1);
    sysfs.interface(VF, "enp3s16", "a0:36:9f:00:00:02", true);
    let route = |line: &str| {
        sysfs.file("proc/net/route", &format!("{TITLES}{line}"));
    };
    let address = |line: &str| {
        sysfs.file("proc/net/if_inet6", line);
    };
    let host = host(&sysfs);
    let mut kernel = FakeKernel::new(&sysfs);
    let mut refused = |part: &str| says(bind(&host, &mut kernel, at(VF), "vfio-pci", false), &[part, "--force"]);
    route("enp3s16\t00000000\t0102A8C0\n");
    refused("its interface enp3s16 has the default route");
    route("eth0\t00000000\t0102A8C0\nenp3s16\t0002A8C0\t00000000\n");
    refused("has a route");
    route("eth0\t00000000\t0102A8C0\n");
    address("20010db8000000000000000000000001 03 40 00 80  enp3s16\n");
    refused("has an IPv6 address");
    address("fe800000000000000000000000000001 03 40 20 80  enp3s16\n");
    sysfs.file("devices/virtual/net/bond0/type", "1\n");
    let master = sysfs.root().path().join(format!("devices/pci/{VF}/net/enp3s16/master"));
    std::os::unix::fs::symlink("../../../../virtual/net/bond0", &master).unwrap();
    refused("belongs to bond0");
    assert_eq!(kernel.log, [""; 0]);
    assert!(bind(&host, &mut kernel, at(VF), "vfio-pci", true).is_ok(), "forced");
    // The tree keeps the interface, which a kernel would have taken.
    unbind(&host, &mut kernel, at(VF), true).unwrap();
    // A link-local address alone is no use.
    std::fs::remove_file(master).unwrap();
    assert!(bind(&host, &mut kernel, at(VF), "vfio-pci", false).is_ok());
}

#[test]
fn refused_writes_say_what_mends_them() {
    let sysfs = i350(1);
    let mut kernel = FakeKernel::new(&sysfs);
    for (errno, part) in [(libc::EACCES, "as root"), (libc::EROFS, "read-only"), (libc::EIO, "dmesg")] {
        kernel.refuses = Some(("unbind", errno));
        says(bind(&host(&sysfs), &mut kernel, at(VF), "vfio-pci", false), &[part, "writing '0000:03:10.0' to"]);
    }
    // The real hands make no file where there is none.
    let path = sysfs.root().path().join("nothing");
    assert_eq!(Kernel.write(&path, "x").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!path.exists() && Kernel.acts() && !Rehearsal::default().acts());
}

// --- VFs -------------------------------------------------------------------------------------------------------------

#[test]
fn vfs_are_made_once_and_anew_only_for_another_number() {
    let sysfs = i350(0);
    let host = host(&sysfs);
    let mut kernel = FakeKernel::new(&sysfs);
    let mut create = |number| {
        let pf = find_pf(&host, "ens802f0").unwrap();
        let done = create_vfs(&host, &mut kernel, &pf, number, false).unwrap();
        (done, std::mem::take(&mut kernel.log))
    };
    let write = |value: u32| format!("{value} > devices/{PF}/sriov_numvfs");
    assert_eq!(create(4), (Creation::Made, vec![write(4)]));
    assert_eq!(create(4), (Creation::Already, vec![]));
    assert_eq!(create(2), (Creation::MadeAnew(4), vec![write(0), write(2)]));
    let vfs: Vec<_> = vfs_of(&host, at(PF)).unwrap().into_iter().map(|(n, vf)| (n, vf.address.to_string())).collect();
    assert_eq!(vfs, [(0, "0000:03:10.0".to_owned()), (1, "0000:03:10.4".to_owned())]);
    let pf = find_pf(&host, PF).unwrap();
    assert_eq!(destroy_vfs(&host, &mut kernel, &pf, false).unwrap(), 2);
    assert_eq!(destroy_vfs(&host, &mut kernel, &find_pf(&host, PF).unwrap(), false).unwrap(), 0);
    assert_eq!(kernel.log, [write(0)]);
}

#[test]
fn numbers_and_pfs_that_cannot_be_are_refused() {
    let sysfs = i350(1);
    let host = host(&sysfs);
    let mut kernel = FakeKernel::new(&sysfs);
    let pf = find_pf(&host, PF).unwrap();
    for number in [0, 8, u32::MAX] {
        says(create_vfs(&host, &mut kernel, &pf, number, true), &["it can have 1 to 7", &number.to_string()]);
    }
    says(find_pf(&host, "eth9"), &["eth9: no such PF", "ens802f0"]);
    says(find_pf(&host, VF), &["is no PF with SR-IOV"]);
    sysfs.driver(PF, "vfio-pci");
    let pf = find_pf(&host, PF).unwrap();
    says(create_vfs(&host, &mut kernel, &pf, 2, true), &["is bound to vfio-pci", "vfring unbind 0000:03:00.0"]);
    assert_eq!(kernel.log, [""; 0]);
}

#[test]
fn the_places_of_vfs_that_are_not_made_follow_from_the_pf() {
    let sysfs = i350(0);
    let host = host(&sysfs);
    assert_eq!(places_of_vfs(&host, at(PF), 7).unwrap(), []);
    // The I350's: 128 functions on, every fourth.
    sysfs.write(PF, "sriov_offset", "128\n").write(PF, "sriov_stride", "4\n");
    let places: Vec<String> = places_of_vfs(&host, at(PF), 3).unwrap().iter().map(PciAddress::to_string).collect();
    assert_eq!(places, [address_of(0), address_of(1), address_of(2)]);
    let mut rehearsal = Rehearsal::default();
    bind_unmade(&host, &mut rehearsal, at(&places[0]), "vfio-pci").unwrap();
    assert_eq!(rehearsal.commands.len(), 3);
    // The 82599's later VFs are on the next bus.
    sysfs.write(PF, "sriov_offset", "256").write(PF, "sriov_stride", "2");
    assert_eq!(places_of_vfs(&host, at(PF), 2).unwrap()[1], at("0000:04:00.2"));
}

#[test]
fn vfs_in_use_are_not_taken_away() {
    let sysfs = i350(2);
    let host = host(&sysfs);
    sysfs.interface("0000:03:10.4", "enp3s16f4", "", true);
    sysfs.file("proc/net/route", "Iface\nenp3s16f4\t0002A8C0\n");
    let mut kernel = FakeKernel::new(&sysfs);
    let pf = find_pf(&host, PF).unwrap();
    let parts = ["its VF 1 (0000:03:10.4) is in use", "enp3s16f4 has a route", "--force"];
    says(create_vfs(&host, &mut kernel, &pf, 4, false), &parts);
    says(destroy_vfs(&host, &mut kernel, &pf, false), &parts);
    assert_eq!(kernel.log, [""; 0]);
    assert_eq!(create_vfs(&host, &mut kernel, &pf, 4, true).unwrap(), Creation::MadeAnew(2));
}

#[test]
fn a_firmware_that_left_no_room_is_named_with_the_kernel_s_argument() {
    let sysfs = i350(0);
    let mut kernel = FakeKernel::new(&sysfs);
    let pf = find_pf(&host(&sysfs), PF).unwrap();
    for errno in [libc::ENOMEM, libc::ENOSPC] {
        kernel.refuses = Some(("sriov_numvfs", errno));
        says(create_vfs(&host(&sysfs), &mut kernel, &pf, 7, false), &["pci=assign-busses", "pci=realloc"]);
    }
}

// --- doctor ----------------------------------------------------------------------------------------------------------

/// A host on which all is well.
fn healthy() -> FakeSysfs {
    let sysfs = i350(2);
    for (vf, group) in [("0000:03:10.0", "50"), ("0000:03:10.4", "51")] {
        sysfs.driver(vf, "vfio-pci").node(group).write(vf, "numa_node", "0\n");
    }
    for dir in ["kernel/mm/hugepages", "devices/system/node/node0/hugepages"] {
        sysfs.file(&format!("{dir}/hugepages-2048kB/nr_hugepages"), "512\n");
        sysfs.file(&format!("{dir}/hugepages-2048kB/free_hugepages"), "100\n");
    }
    sysfs.file("proc/cmdline", "root=/dev/sda1 intel_iommu=on\n");
    sysfs.file("proc/self/limits", "Limit  Soft  Hard  Units\nMax locked memory  unlimited  unlimited  bytes\n");
    sysfs.file("kubelet/kubelet.sock", "");
    sysfs
}

fn examined(sysfs: &FakeSysfs) -> Vec<Finding> {
    doctor(&host(sysfs), &sysfs.root().path().join("kubelet")).unwrap()
}

#[test]
fn a_healthy_host_has_nothing_to_mend() {
    let found = examined(&healthy());
    assert!(found.iter().all(|finding| finding.level == Level::Good && finding.fix.is_none()), "{found:#?}");
    let texts: Vec<String> = found.iter().map(Finding::to_string).collect();
    let expected = [
        "good     iommu      on, 3 groups",
        "good     vfio       vfio-pci is loaded",
        "good     sriov      ens802f0 (0000:03:00.0, 8086:1521): 2 of 7 VFs",
        "good     vfs        2 VFs: 2 on vfio-pci",
        "good     groups     each VF has an IOMMU group of its own",
        "good     hugepages  100 of 512 pages of 2 MiB free",
        "good     memlock    unlimited bytes may be locked",
    ];
    assert_eq!(texts[..7], expected);
    assert!(texts[7].ends_with("has kubelet.sock") && texts.len() == 8, "{texts:#?}");
}

/// What is done to a healthy host, and the finding that must follow: level, check, parts of its line.
type Case = (fn(&FakeSysfs), Level, &'static str, &'static [&'static str]);

#[test]
fn each_ailment_of_a_host_is_found_with_its_cure() {
    let cases: [Case; 15] = [
        (
            |s| std::fs::remove_dir_all(s.root().path().join("kernel/iommu_groups")).unwrap(),
            Level::Failure,
            "iommu",
            &["off", "the kernel was told to use it", "firmware"],
        ),
        (
            |s| {
                std::fs::remove_dir_all(s.root().path().join("kernel/iommu_groups")).unwrap();
                s.file("proc/cmdline", "quiet\n");
            },
            Level::Failure,
            "iommu",
            &["off", "boot with `intel_iommu=on iommu=pt`"],
        ),
        (
            |s| {
                s.file("module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
            },
            Level::Warning,
            "iommu",
            &["can reach all memory"],
        ),
        (
            |s| {
                s.driver("0000:03:10.0", "igbvf").driver("0000:03:10.4", "igbvf");
                std::fs::remove_dir_all(s.root().path().join("bus/pci/drivers/vfio-pci")).unwrap();
            },
            Level::Failure,
            "vfio",
            &["not loaded", "`modprobe vfio-pci`", "modules-load.d"],
        ),
        (
            |s| {
                s.remove_node("vfio");
            },
            Level::Failure,
            "vfio",
            &["/dev/vfio/vfio is missing"],
        ),
        (
            |s| {
                s.remove_node("51");
            },
            Level::Failure,
            "vfio",
            &["missing: /dev/vfio/51"],
        ),
        (
            |s| {
                s.write(PF, "sriov_offset", "128").write(PF, "sriov_stride", "64").bridge(PF, 3);
            },
            Level::Warning,
            "sriov",
            &["bus numbers suffice for 2 of 7 VFs", "pci=assign-busses"],
        ),
        (
            |s| {
                s.write(PF, "resource", &"0x0000000000000000 0x0000000000000000 0x0000000000000000\n".repeat(13));
            },
            Level::Warning,
            "sriov",
            &["gave its VFs no addresses", "pci=realloc"],
        ),
        (
            |s| {
                s.file(&format!("devices/pci/{PF}/net/ens802f0/flags"), "0x1002\n");
            },
            Level::Warning,
            "sriov",
            &["is down", "`ip link set ens802f0 up`"],
        ),
        (
            |s| {
                s.driver("0000:03:10.0", "igbvf").remove("0000:03:10.4", "driver");
            },
            Level::Warning,
            "vfs",
            &["1 on igbvf, 1 on no driver", "vfring bind"],
        ),
        (
            |s| {
                s.group("0000:03:10.4", 50);
            },
            Level::Warning,
            "groups",
            &["group 50 is shared by 0000:03:10.0 (vfio-pci), 0000:03:10.4 (vfio-pci)", "one pod together", "ACS"],
        ),
        (
            |s| {
                s.group(PF, 50);
            },
            Level::Warning,
            "groups",
            &["0000:03:00.0 (igb)", "cannot be used"],
        ),
        (
            |s| {
                s.file("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
            },
            Level::Failure,
            "hugepages",
            &["none are reserved", "nr_hugepages", "hugepages.md"],
        ),
        (
            |s| {
                s.file("devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "0\n");
            },
            Level::Warning,
            "hugepages",
            &["NUMA node 0 has VFs and no hugepages", "devices/system/node/node0"],
        ),
        (
            |s| std::fs::remove_file(s.root().path().join("kubelet/kubelet.sock")).unwrap(),
            Level::Warning,
            "kubelet",
            &["no kubelet.sock", "systemctl"],
        ),
    ];
    for (spoil, level, check, parts) in cases {
        let sysfs = healthy();
        spoil(&sysfs);
        let found = examined(&sysfs);
        let own = found.iter().find(|finding| finding.level == level && finding.check == check);
        let text = own.unwrap_or_else(|| panic!("{check} {parts:?}: {found:#?}")).to_string();
        for part in parts {
            assert!(text.contains(part) && !text.contains('\n'), "'{part}' is not in: {text}");
        }
        assert!(own.is_some_and(|finding| finding.fix.is_some()), "{text}");
    }
}

#[test]
fn notes_are_no_ailments() {
    let sysfs = i350(0);
    sysfs.file("proc/self/limits", "Max locked memory         8388608              8388608              bytes\n");
    let found = examined(&sysfs);
    let notes: Vec<&Finding> = found.iter().filter(|finding| finding.level == Level::Note).collect();
    assert_eq!(notes.iter().map(|note| note.check).collect::<Vec<_>>(), ["sriov", "memlock", "kubelet"]);
    assert!(notes[0].fix.as_ref().unwrap().contains("vfring vf create --pf ens802f0"));
    assert!(notes[1].text.contains("8192 KiB"));
    // A machine without anything is examined to the end.
    let nothing = doctor(&host(&FakeSysfs::new()), Path::new("/nonexistent")).unwrap();
    assert!(nothing.iter().any(|finding| finding.level == Level::Failure), "{nothing:#?}");
}
