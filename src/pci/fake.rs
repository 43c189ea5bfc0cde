//! A sysfs tree built by hand for tests: real directories and links in a temporary folder, laid out as the kernel does.
//!
//! Methods return `&Self`, so that a device can be described in one chain. The tree goes when the value drops.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::SysfsRoot;

/// The tree.
pub(crate) struct FakeSysfs {
    root: PathBuf,
}

impl FakeSysfs {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("vfring-sysfs-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(unique);
        for dir in ["devices/pci", "bus/pci/devices", "bus/pci/drivers", "kernel/iommu_groups"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        FakeSysfs { root }
    }

    pub(crate) fn root(&self) -> SysfsRoot {
        SysfsRoot::new(&self.root)
    }

    fn dir(&self, address: &str) -> PathBuf {
        self.root.join("devices/pci").join(address)
    }

    /// A function with nothing but ids, such as `8086:10ca`.
    pub(crate) fn device(&self, address: &str, id: &str) -> &Self {
        fs::create_dir(self.dir(address)).unwrap();
        symlink(format!("../../../devices/pci/{address}"), self.root.join("bus/pci/devices").join(address)).unwrap();
        let (vendor, device) = id.split_once(':').unwrap();
        self.write(address, "vendor", &format!("0x{vendor}\n"))
            .write(address, "device", &format!("0x{device}\n"))
            .write(address, "class", "0x020000\n")
    }

    pub(crate) fn pf(&self, address: &str, id: &str, total_vfs: u32, num_vfs: u32) -> &Self {
        self.device(address, id).write(address, "sriov_totalvfs", &format!("{total_vfs}\n")).write(
            address,
            "sriov_numvfs",
            &format!("{num_vfs}\n"),
        )
    }

    /// VF number `index` of a PF that exists.
    pub(crate) fn vf(&self, address: &str, id: &str, pf: &str, index: u32) -> &Self {
        self.device(address, id);
        symlink(format!("../{pf}"), self.dir(address).join("physfn")).unwrap();
        symlink(format!("../{address}"), self.dir(pf).join(format!("virtfn{index}"))).unwrap();
        self
    }

    /// A VF of a PF that exists, on vfio-pci, with a group of its own and its node: what a plugin hands out.
    pub(crate) fn vfio_vf(&self, address: &str, id: &str, pf: &str, index: u32, group: u32) -> &Self {
        self.vf(address, id, pf, index).driver(address, "vfio-pci").group(address, group).node(&group.to_string())
    }

    /// Binds to `name`, or to another driver than before.
    pub(crate) fn driver(&self, address: &str, name: &str) -> &Self {
        self.leave_driver(address);
        let driver = self.root.join("bus/pci/drivers").join(name);
        fs::create_dir_all(&driver).unwrap();
        symlink(format!("../../../../devices/pci/{address}"), driver.join(address)).unwrap();
        self.link(address, "driver", format!("../../../bus/pci/drivers/{name}"))
    }

    /// Puts it into an IOMMU group, or into another than before.
    pub(crate) fn group(&self, address: &str, number: u32) -> &Self {
        self.leave_group(address);
        let devices = self.root.join(format!("kernel/iommu_groups/{number}/devices"));
        fs::create_dir_all(&devices).unwrap();
        symlink(format!("../../../../devices/pci/{address}"), devices.join(address)).unwrap();
        self.link(address, "iommu_group", format!("../../../kernel/iommu_groups/{number}"))
    }

    /// Puts a function below a bridge behind which the bus numbers end with `last_bus`.
    pub(crate) fn bridge(&self, address: &str, last_bus: u8) -> &Self {
        let bridge = self.root.join("devices/0000:00:1c.0");
        fs::create_dir_all(&bridge).unwrap();
        let mut config = [0; 64];
        config[0x1a] = last_bus;
        fs::write(bridge.join("config"), config).unwrap();
        let link = self.root.join("bus/pci/devices").join(address);
        fs::remove_file(&link).unwrap();
        fs::rename(self.dir(address), bridge.join(address)).unwrap();
        symlink(format!("../../../devices/0000:00:1c.0/{address}"), link).unwrap();
        self
    }

    /// A file anywhere in the tree.
    pub(crate) fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A node of `dev/vfio`, which lies beside the tree.
    pub(crate) fn node(&self, name: &str) -> &Self {
        fs::create_dir_all(self.dev().join("vfio")).unwrap();
        fs::write(self.dev().join("vfio").join(name), "").unwrap();
        self
    }

    pub(crate) fn remove_node(&self, name: &str) -> &Self {
        fs::remove_file(self.dev().join("vfio").join(name)).unwrap();
        self
    }

    pub(crate) fn dev(&self) -> PathBuf {
        self.root.join("dev")
    }

    /// Names a group, as vfio names those that it makes up.
    pub(crate) fn group_name(&self, number: u32, name: &str) -> &Self {
        fs::write(self.root.join(format!("kernel/iommu_groups/{number}/name")), format!("{name}\n")).unwrap();
        self
    }

    /// A network interface of the function, of the kind Ethernet.
    pub(crate) fn interface(&self, address: &str, name: &str, mac: &str, up: bool) -> &Self {
        let dir = self.dir(address).join("net").join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(self.root.join("class/net")).unwrap();
        symlink(format!("../../devices/pci/{address}/net/{name}"), self.root.join("class/net").join(name)).unwrap();
        for (attribute, text) in [("address", mac), ("type", "1"), ("flags", if up { "0x1003" } else { "0x1002" })] {
            fs::write(dir.join(attribute), format!("{text}\n")).unwrap();
        }
        self
    }

    /// The function is gone, as after hot-unplug.
    pub(crate) fn unplug(&self, address: &str) -> &Self {
        self.leave_group(address);
        self.leave_driver(address);
        fs::remove_file(self.root.join("bus/pci/devices").join(address)).unwrap();
        fs::remove_dir_all(self.dir(address)).unwrap();
        self
    }

    pub(crate) fn write_bytes(&self, address: &str, attribute: &str, bytes: &[u8]) -> &Self {
        fs::write(self.dir(address).join(attribute), bytes).unwrap();
        self
    }

    pub(crate) fn write(&self, address: &str, attribute: &str, text: &str) -> &Self {
        fs::write(self.dir(address).join(attribute), text).unwrap();
        self
    }

    pub(crate) fn remove(&self, address: &str, attribute: &str) -> &Self {
        if attribute == "driver" {
            self.leave_driver(address);
        }
        fs::remove_file(self.dir(address).join(attribute)).unwrap();
        self
    }

    fn leave_driver(&self, address: &str) {
        for driver in fs::read_dir(self.root.join("bus/pci/drivers")).unwrap() {
            let _ = fs::remove_file(driver.unwrap().path().join(address));
        }
    }

    fn leave_group(&self, address: &str) {
        for group in fs::read_dir(self.root.join("kernel/iommu_groups")).unwrap() {
            let _ = fs::remove_file(group.unwrap().path().join("devices").join(address));
        }
    }

    fn link(&self, address: &str, name: &str, target: String) -> &Self {
        let link = self.dir(address).join(name);
        let _ = fs::remove_file(&link);
        symlink(target, link).unwrap();
        self
    }
}

impl Drop for FakeSysfs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
