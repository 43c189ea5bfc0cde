//! Whether a scan would find something else than the last one.
//!
//! Owns the cheap look that a plugin can afford every second or two: which functions there are, their drivers and groups,
//! the nodes of vfio, and whether what is advertised answers. It says nothing but the same or not the same; a scan then
//! finds out. What it does not see (the name of a PF's interface) an occasional scan must.
#![forbid(unsafe_code)]

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;

use crate::addr::PciAddress;
use crate::host::Host;

/// What was seen, for comparison with another of the same process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance(u64);

impl Glance {
    /// Looks at a host on which the devices `advertised` are handed out.
    pub fn take(host: &Host, advertised: impl IntoIterator<Item = PciAddress>) -> Glance {
        let mut seen = DefaultHasher::new();
        let devices = host.sysfs.path().join("bus/pci/devices");
        for name in names(&devices) {
            let device = devices.join(&name);
            name.hash(&mut seen);
            for link in ["driver", "iommu_group"] {
                fs::read_link(device.join(link)).ok().hash(&mut seen);
            }
        }
        names(&host.dev.join("vfio")).hash(&mut seen);
        for address in advertised {
            host.sysfs.answers(address).unwrap_or(false).hash(&mut seen);
        }
        Glance(seen.finish())
    }
}

/// What a directory has, in order; nothing where it cannot be read.
fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    names
}
