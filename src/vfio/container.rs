//! Groups and containers: who shares an IOMMU address space, and which memory is mapped there.
//!
//! Owns the process's open groups (a group opens once per process), the choice of a container for each, and the table
//! of mappings per container. Called by `bus.rs`. What always holds:
//!
//! * A group joins a container that the process has, so that a pool is mapped once for all ports; when no container
//!   takes it, it gets its own.
//! * Memory in the table stays allocated for as long as the device may reach it: the table holds the region, an entry
//!   goes only when the kernel said that the unmap worked, and the container is closed before its table is dropped.
//! * Things close in the order device, group, container: a device holds its group, a group its container.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use vfio_bindings::bindings::vfio;

use crate::addr::{Iova, PciAddress};
use crate::error::{Error, Result};
use crate::mem::HugeRegion;
use crate::pci::{IommuGroup, PciFunction};

use super::device::Device;
use super::info::IovaRange;
use super::ioctl::Kernel;
use super::{explain, info, iova};

/// The open groups of a process, and through them its containers.
pub(super) struct Registry<K: Kernel> {
    kernel: K,
    groups: Mutex<Vec<Weak<Group<K>>>>,
}

/// An open group in a container.
pub(super) struct Group<K: Kernel> {
    fd: K::Fd,
    number: u32,
    /// What was opened through it. A function is opened once at a time.
    devices: Mutex<Vec<(PciAddress, Weak<Device<K>>)>>,
    // After `fd`: closing the group takes it out of the container.
    container: Arc<Container<K>>,
}

/// An IOMMU address space.
pub(super) struct Container<K: Kernel> {
    kernel: K,
    fd: K::Fd,
    // After `fd`: closing the container ends every mapping, and only then the memory may go.
    space: Mutex<Space>,
}

struct Space {
    ranges: Vec<IovaRange>,
    mappings: Vec<Mapping>,
}

struct Mapping {
    region: Arc<HugeRegion>,
    iova: Iova,
    /// How many `map`s it stands for; 0 when an unmap failed.
    users: usize,
}

impl<K: Kernel> Registry<K> {
    pub(super) const fn new(kernel: K) -> Self {
        Registry { kernel, groups: Mutex::new(Vec::new()) }
    }

    /// Opens a function that passed [`explain::check_function`], with its group and container.
    pub(super) fn open(&self, function: &PciFunction, group: &IommuGroup) -> Result<Arc<Device<K>>> {
        let group = self.group(function, group)?;
        let mut devices = lock(&group.devices);
        devices.retain(|(_, device)| device.strong_count() > 0);
        if devices.iter().any(|(address, _)| *address == function.address) {
            return Err(Error::device(
                function.address,
                "is open in this process already; drop its port, and every queue taken from it, first",
            ));
        }
        let device = Arc::new(Device::open(&self.kernel, &group, function.address)?);
        devices.push((function.address, Arc::downgrade(&device)));
        drop(devices);
        Ok(device)
    }

    fn group(&self, function: &PciFunction, group: &IommuGroup) -> Result<Arc<Group<K>>> {
        let address = function.address;
        let mut groups = lock(&self.groups);
        groups.retain(|group| group.strong_count() > 0);
        let open: Vec<Arc<Group<K>>> = groups.iter().filter_map(Weak::upgrade).collect();
        if let Some(found) = open.iter().find(|found| found.number == group.number) {
            return Ok(Arc::clone(found));
        }
        let kernel = &self.kernel;
        let number = group.number;
        let fd = kernel.open_group(number).map_err(|e| explain::open_failed(address, &number.to_string(), e))?;
        let status = kernel
            .group_status(&fd)
            .map_err(|e| Error::os(format!("{address}: VFIO_GROUP_GET_STATUS of group {number}"), e))?;
        if status & vfio::VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(explain::not_viable(function, group));
        }
        let mut containers: Vec<&Arc<Container<K>>> = Vec::new();
        for other in &open {
            if !containers.iter().any(|known| Arc::ptr_eq(known, &other.container)) {
                containers.push(&other.container);
            }
        }
        // A container refuses a group whose IOMMU differs too much from its own; which one does is the kernel's secret.
        let (fd, container) = match containers.into_iter().find(|c| kernel.set_container(&fd, &c.fd).is_ok()) {
            Some(container) => {
                // The newcomer may have narrowed the ranges.
                lock(&container.space).ranges = read_ranges(kernel, &container.fd, address)?;
                (fd, Arc::clone(container))
            }
            None => Container::with_first(kernel.clone(), address, number, fd)?,
        };
        let group = Arc::new(Group { fd, number, devices: Mutex::new(Vec::new()), container });
        groups.push(Arc::downgrade(&group));
        Ok(group)
    }
}

impl<K: Kernel> Group<K> {
    pub(super) fn fd(&self) -> &K::Fd {
        &self.fd
    }

    pub(super) fn container(&self) -> &Container<K> {
        &self.container
    }
}

impl<K: Kernel> Container<K> {
    /// A container of type1v2 with its first group, which is given back.
    fn with_first(kernel: K, address: PciAddress, number: u32, group: K::Fd) -> Result<(K::Fd, Arc<Self>)> {
        let fd = kernel.open_container().map_err(|e| explain::open_failed(address, "vfio", e))?;
        let version = kernel.api_version(&fd).map_err(|e| Error::os(format!("{address}: VFIO_GET_API_VERSION"), e))?;
        if version != vfio::VFIO_API_VERSION {
            return Err(Error::device(
                address,
                format!("/dev/vfio/vfio speaks version {version} of the API, and vfring {}", vfio::VFIO_API_VERSION),
            ));
        }
        let type1v2 = kernel
            .has_extension(&fd, vfio::VFIO_TYPE1v2_IOMMU)
            .map_err(|e| Error::os(format!("{address}: VFIO_CHECK_EXTENSION"), e))?;
        if !type1v2 {
            return Err(Error::device(
                address,
                "the kernel offers no type1v2 IOMMU; run `modprobe vfio_iommu_type1` on the host",
            ));
        }
        // Bound anew after the container's `fd`, so that it closes first when something below fails.
        let group = group;
        kernel
            .set_container(&group, &fd)
            .map_err(|e| explain::attach_failed(address, "VFIO_GROUP_SET_CONTAINER", number, e))?;
        kernel
            .set_iommu(&fd, vfio::VFIO_TYPE1v2_IOMMU)
            .map_err(|e| explain::attach_failed(address, "VFIO_SET_IOMMU", number, e))?;
        let ranges = read_ranges(&kernel, &fd, address)?;
        let space = Mutex::new(Space { ranges, mappings: Vec::new() });
        Ok((group, Arc::new(Container { kernel, fd, space })))
    }

    /// Maps a region, or counts one more user of it, and returns where its first byte is. Errors name the device
    /// `user`.
    pub(super) fn map(&self, user: PciAddress, region: &Arc<HugeRegion>) -> Result<Iova> {
        let mut space = lock(&self.space);
        if let Some(known) = space.mappings.iter_mut().find(|known| Arc::ptr_eq(&known.region, region)) {
            known.users += 1;
            return Ok(known.iova);
        }
        let taken: Vec<iova::Taken> = space.mappings.iter().map(|m| (m.iova.0, m.region.len() as u64)).collect();
        let (address, len, align) = (region.addr(), region.len(), region.page_size());
        let at = iova::place(&space.ranges, &taken, address as u64, len as u64, align as u64).ok_or_else(|| {
            Error::Memory(format!(
                "{user}: {region:?} finds no free range among the addresses that the IOMMU translates"
            ))
        })?;
        let iova = Iova(at);
        // SAFETY: the region is one mapping of exactly `len` bytes, to which nobody holds references; `mappings` keeps
        // it allocated until the kernel has unmapped it, or the container is closed.
        unsafe { self.kernel.map_dma(&self.fd, address, iova, len) }
            .map_err(|e| explain::map_failed(user, region, e))?;
        space.mappings.push(Mapping { region: Arc::clone(region), iova, users: 1 });
        Ok(iova)
    }

    /// Undoes one `map`. The last one unmaps; if that fails, the region stays allocated until the container is closed.
    pub(super) fn unmap(&self, user: PciAddress, region: &Arc<HugeRegion>) -> Result<()> {
        let mut space = lock(&self.space);
        let Some(i) = space.mappings.iter().position(|known| Arc::ptr_eq(&known.region, region)) else {
            return Err(Error::Memory(format!("{user}: {region:?} is not mapped")));
        };
        let known = &mut space.mappings[i];
        known.users = known.users.saturating_sub(1);
        if known.users > 0 {
            return Ok(());
        }
        let (iova, len) = (known.iova, region.len());
        match self.kernel.unmap_dma(&self.fd, iova, len) {
            Ok(unmapped) if unmapped == len as u64 => {
                space.mappings.swap_remove(i);
                Ok(())
            }
            Ok(unmapped) => Err(Error::Memory(format!(
                "{user}: VFIO_IOMMU_UNMAP_DMA of {region:?} at {iova} unmapped {unmapped} bytes: the region is kept"
            ))),
            Err(e) => {
                Err(Error::os(format!("{user}: VFIO_IOMMU_UNMAP_DMA of {region:?} at {iova}: the region is kept"), e))
            }
        }
    }
}

fn read_ranges<K: Kernel>(kernel: &K, container: &K::Fd, address: PciAddress) -> Result<Vec<IovaRange>> {
    let answer = kernel.iommu_info(container).map_err(|e| Error::os(format!("{address}: VFIO_IOMMU_GET_INFO"), e))?;
    info::iova_ranges(&answer).ok_or_else(|| {
        Error::device(address, "VFIO_IOMMU_GET_INFO tells no IOVA ranges; Linux 5.14 or later is needed")
    })
}

/// Nothing that is done under these locks leaves things half done when it panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
