//! A host that hands out VFs: making them, binding them to drivers, and finding out what is wrong.
//!
//! Functions on a [`Host`], which is this machine or a tree built by hand; the program `vfring` is a thin layer above.
//! Everything that changes a host goes through a [`Hands`], so that it can be rehearsed: [`bind()`], [`unbind`],
//! [`create_vfs`] and [`destroy_vfs`]. [`doctor()`] only reads. What always holds:
//!
//! * Nothing is done that is done already.
//! * What somebody uses (an interface with a route or an address, a group that a process has open) is refused unless
//!   forced, before anything is written.

mod bind;
mod change;
mod doctor;
mod usage;
mod vf;

use std::fs;
use std::path::{Path, PathBuf};

pub use bind::{Binding, bind, bind_unmade, unbind};
pub use change::{Hands, Kernel, Rehearsal};
pub use doctor::{Finding, Level, doctor};
pub use usage::user_of;
pub use vf::{Creation, create_vfs, destroy_vfs, find_pf, places_of_vfs, vfs_of};

use crate::pci::SysfsRoot;

/// Where a host's sysfs, device nodes and processes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its `/sys`.
    pub sysfs: SysfsRoot,
    /// Its `/dev`.
    pub dev: PathBuf,
    /// Its `/proc`.
    pub proc: PathBuf,
}

impl Default for Host {
    /// This machine.
    fn default() -> Self {
        Host { sysfs: SysfsRoot::default(), dev: "/dev".into(), proc: "/proc".into() }
    }
}

/// Hugepages of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hugepages {
    /// The page size in bytes.
    pub(crate) size: u64,
    /// Pages set aside.
    pub(crate) pages: u64,
    /// Pages that nobody uses.
    pub(crate) free: u64,
}

impl Host {
    /// A node of `/dev/vfio`, on the host.
    pub(crate) fn vfio_node(&self, name: &str) -> PathBuf {
        self.dev.join("vfio").join(name)
    }

    /// Bytes of hugepages that nobody uses on a NUMA node, of all sizes.
    pub(crate) fn free_hugepages(&self, node: u32) -> u64 {
        self.hugepages_of_node(node).iter().map(|pages| pages.free.saturating_mul(pages.size)).sum()
    }

    /// The hugepages of a NUMA node, by size.
    pub(crate) fn hugepages_of_node(&self, node: u32) -> Vec<Hugepages> {
        hugepages(&self.sysfs.path().join(format!("devices/system/node/node{node}/hugepages")))
    }

    /// The hugepages of the whole machine, by size.
    pub(crate) fn hugepages(&self) -> Vec<Hugepages> {
        hugepages(&self.sysfs.path().join("kernel/mm/hugepages"))
    }
}

/// What a directory such as `/sys/kernel/mm/hugepages` has.
fn hugepages(dir: &Path) -> Vec<Hugepages> {
    let one = |dir: PathBuf| -> Option<Hugepages> {
        let kib: u64 = dir.file_name()?.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let number = |name: &str| -> Option<u64> { fs::read_to_string(dir.join(name)).ok()?.trim().parse().ok() };
        let (pages, free) = (number("nr_hugepages")?, number("free_hugepages")?);
        Some(Hugepages { size: kib.checked_mul(1024)?, pages, free })
    };
    let mut sizes: Vec<Hugepages> =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| one(entry.path())).collect();
    sizes.sort_unstable_by_key(|pages| pages.size);
    sizes
}

#[cfg(test)]
mod tests;
