//! Whether a scan would find something else than the last one.
//!
//! Owns the cheap look that a plugin can afford every second or two: which functions there are, the drivers that have
//! them, the groups, the nodes of vfio, the names of the PFs' interfaces, and whether devices answer. It says
//! nothing but the same or not the same; a scan then finds out. It lists directories, a few for each driver and none for
//! each VF, because links that are read one by one cost ten times as much. What it does not see (a NUMA node) an
//! occasional scan must.
#![forbid(unsafe_code)]

use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::DirEntryExt;
use std::path::Path;

use crate::addr::PciAddress;
use crate::host::Host;

/// What was seen, for comparison with another of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance(u64);

impl Glance {
    /// Looks at a host whose VFs are those of `pfs`, and asks each of `devices` whether it answers, which is most of the
    /// price.
    pub fn take(
        host: &Host,
        pfs: impl IntoIterator<Item = PciAddress>,
        devices: impl IntoIterator<Item = PciAddress>,
    ) -> Glance {
        let mut seen = DefaultHasher::new();
        let drivers = host.sysfs.path().join("bus/pci/drivers");
        for (name, _) in entries(&drivers) {
            entries(&drivers.join(name)).hash(&mut seen);
        }
        for directory in ["bus/pci/devices", "kernel/iommu_groups"] {
            entries(&host.sysfs.path().join(directory)).hash(&mut seen);
        }
        entries(&host.dev.join("vfio")).hash(&mut seen);
        for pf in pfs {
            entries(&host.sysfs.directory(pf).join("net")).hash(&mut seen);
        }
        for address in devices {
            host.sysfs.answers(address).unwrap_or(false).hash(&mut seen);
        }
        Glance(seen.finish())
    }
}

/// What a directory has, in order; nothing where it cannot be read. The inode tells a function from one that was made
/// anew under its address.
fn entries(directory: &Path) -> Vec<(OsString, u64)> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut entries: Vec<_> = entries.map(|entry| (entry.file_name(), entry.ino())).collect();
    entries.sort_unstable();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::FakeSysfs;

    const PF: &str = "0000:03:00.0";
    const VF: &str = "0000:03:10.0";

    type Change = fn(&FakeSysfs) -> &FakeSysfs;

    fn look(tree: &FakeSysfs) -> Glance {
        let host = Host { sysfs: tree.root(), dev: tree.dev(), proc: tree.root().path().join("proc") };
        Glance::take(&host, [PF.parse().unwrap()], [VF.parse().unwrap()])
    }

    #[test]
    fn all_that_changes_while_a_plugin_runs_is_seen_and_nothing_else() {
        let tree = FakeSysfs::new();
        tree.pf(PF, "8086:1521", 7, 1).driver(PF, "igb").interface(PF, "eth0", "", true).node("vfio");
        tree.vfio_vf(VF, "8086:1520", PF, 0, 50).write_bytes(VF, "config", &[0; 64]);
        let mut last = look(&tree);
        let changes: [(&str, Change); 8] = [
            ("another VF", |tree| tree.vfio_vf("0000:03:10.4", "8086:1520", PF, 1, 51)),
            ("another driver", |tree| tree.driver(VF, "igbvf")),
            ("the driver from before", |tree| tree.driver(VF, "vfio-pci")),
            ("a node that is gone", |tree| tree.remove_node("50")),
            ("a group", |tree| tree.group(VF, 60)),
            ("a PF that is renamed", |tree| tree.interface(PF, "ens802f0", "", true)),
            ("a VF that reads ones", |tree| tree.write_bytes(VF, "config", &[0xff; 64])),
            ("a VF that is gone", |tree| tree.unplug("0000:03:10.4")),
        ];
        for (what, change) in changes {
            change(&tree);
            let now = look(&tree);
            assert_ne!(now, last, "{what} is not seen");
            assert_eq!(look(&tree), now, "{what}");
            last = now;
        }
    }
}
