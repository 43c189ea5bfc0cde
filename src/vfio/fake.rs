//! A kernel for tests: groups, containers and devices with the rules of VFIO that matter here.
//!
//! Every call is written down, and any call can be made to fail. A device's descriptor is a memfd with BAR0 and config
//! space in it, so mapping, reading and writing it are the real thing. Closing in the wrong order is written down too.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vfio_bindings::bindings::vfio::{vfio_device_info, vfio_irq_info};

use crate::addr::Iova;

use super::info::build;
use super::ioctl::{self, Kernel};

/// Where config space lies in a fake device's descriptor.
const CONFIG: u64 = 0x10_0000;
const BAR0: u32 = 0;
const CONFIG_REGION: u32 = 7;
const MSIX: u32 = 2;

/// The kernel. Clones are the same kernel.
#[derive(Clone)]
pub(super) struct FakeKernel(Arc<Mutex<State>>);

pub(super) struct State {
    /// Every call, in order.
    pub(super) log: Vec<String>,
    /// Closed in the wrong order, or another thing that a kernel would suffer for.
    pub(super) violations: Vec<String>,
    /// What the IOMMU translates; both ends belong to a range.
    pub(super) ranges: Vec<(u64, u64)>,
    pub(super) api_version: u32,
    pub(super) type1v2: bool,
    pub(super) groups: BTreeMap<u32, FakeGroup>,
    pub(super) devices: BTreeMap<String, FakeDevice>,
    pub(super) containers: BTreeMap<u32, FakeContainer>,
    /// Fails the call number `.0` (from 0) with errno `.1`.
    pub(super) fail_call: Option<(usize, i32)>,
    /// Fails every call whose log line starts with `.0`.
    pub(super) fail: Option<(&'static str, i32)>,
    containers_made: u32,
}

pub(super) struct FakeGroup {
    pub(super) viable: bool,
    /// Groups of different IOMMUs do not share a container.
    pub(super) iommu: u32,
    pub(super) open: bool,
    pub(super) container: Option<u32>,
}

pub(super) struct FakeDevice {
    pub(super) group: u32,
    pub(super) bar_len: u64,
    pub(super) sparse: Option<Vec<(u64, u64)>>,
    pub(super) vectors: u32,
    pub(super) can_reset: bool,
    pub(super) open: bool,
    /// The same memory as the descriptor handed out.
    pub(super) memory: File,
    /// The eventfds connected, by index.
    pub(super) connected: BTreeMap<u32, Vec<OwnedFd>>,
}

#[derive(Default)]
pub(super) struct FakeContainer {
    iommu: Option<u32>,
    groups: Vec<u32>,
    /// IOVA, length and virtual address.
    pub(super) mappings: Vec<(u64, u64, usize)>,
}

pub(super) struct FakeFd {
    fd: OwnedFd,
    what: What,
    state: Arc<Mutex<State>>,
}

#[derive(Clone)]
enum What {
    Container(u32),
    Group(u32),
    Device(String),
}

impl FakeDevice {
    /// A 16-bit register of config space.
    pub(super) fn config(&self, offset: u64) -> u16 {
        let mut bytes = [0; 2];
        self.memory.read_exact_at(&mut bytes, CONFIG + offset).unwrap();
        u16::from_le_bytes(bytes)
    }

    pub(super) fn set_config(&self, offset: u64, value: u16) {
        self.memory.write_all_at(&value.to_le_bytes(), CONFIG + offset).unwrap();
    }

    pub(super) fn register(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, offset).unwrap();
        u32::from_le_bytes(bytes)
    }

    pub(super) fn set_register(&self, offset: u64, value: u32) {
        self.memory.write_all_at(&value.to_le_bytes(), offset).unwrap();
    }

    /// Fires what is connected to an index.
    pub(super) fn signal(&self, index: u32) {
        for fd in &self.connected[&index] {
            let fd = File::from(fd.try_clone().unwrap());
            (&fd).write_all(&1u64.to_ne_bytes()).unwrap();
        }
    }
}

impl FakeKernel {
    /// A kernel that translates 48 bits without the window of the interrupts, and has no device.
    pub(super) fn new() -> Self {
        FakeKernel(Arc::new(Mutex::new(State {
            log: Vec::new(),
            violations: Vec::new(),
            ranges: vec![(0, 0xfedf_ffff), (0xfef0_0000, (1 << 48) - 1)],
            api_version: 0,
            type1v2: true,
            groups: BTreeMap::new(),
            devices: BTreeMap::new(),
            containers: BTreeMap::new(),
            fail_call: None,
            fail: None,
            containers_made: 0,
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Adds a VF with 16 KiB of BAR0, three vectors and a reset, to a group that is made when it is new.
    pub(super) fn add(&self, address: &str, group: u32) -> &Self {
        // SAFETY: the name is a C string and the flag is one of memfd_create(2).
        let fd = unsafe { libc::memfd_create(c"vfring-fake".as_ptr(), libc::MFD_CLOEXEC) };
        assert!(fd >= 0);
        // SAFETY: the kernel just made this descriptor for us alone.
        let memory = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        memory.set_len(CONFIG + 0x1000).unwrap();
        let mut state = self.state();
        state.groups.entry(group).or_insert(FakeGroup { viable: true, iommu: 0, open: false, container: None });
        let device = FakeDevice {
            group,
            bar_len: 0x4000,
            sparse: None,
            vectors: 3,
            can_reset: true,
            open: false,
            memory,
            connected: BTreeMap::new(),
        };
        state.devices.insert(address.to_owned(), device);
        drop(state);
        self
    }

    /// Takes the calls written down so far.
    pub(super) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }

    /// Asserts that nothing is open or mapped and that everything closed in order.
    pub(super) fn assert_clean(&self) {
        let state = self.state();
        assert_eq!(state.violations, [] as [String; 0]);
        assert!(state.containers.is_empty(), "a container is open");
        assert!(state.groups.values().all(|group| !group.open && group.container.is_none()), "a group is open");
        assert!(state.devices.values().all(|device| !device.open), "a device is open");
    }

    fn enter(&self, call: String) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        let number = state.log.len();
        let by_name = state.fail.filter(|(prefix, _)| call.starts_with(prefix)).map(|(_, errno)| errno);
        let by_number = state.fail_call.filter(|(at, _)| *at == number).map(|(_, errno)| errno);
        state.log.push(call);
        match by_name.or(by_number) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(state),
        }
    }

    fn fd(&self, what: What) -> FakeFd {
        FakeFd { fd: ioctl::eventfd().unwrap(), what, state: Arc::clone(&self.0) }
    }
}

/// True when the whole range is mapped in this process.
fn is_allocated(address: usize, len: usize) -> bool {
    let at = std::ptr::without_provenance_mut(address);
    // SAFETY: on anonymous memory this changes nothing; where nothing is mapped it fails with ENOMEM.
    unsafe { libc::msync(at, len, libc::MS_ASYNC) == 0 }
}

/// A test that failed with the lock held must still be able to drop what it opened.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

impl FakeFd {
    fn container(&self) -> u32 {
        let What::Container(id) = self.what else { panic!("no container") };
        id
    }

    fn group(&self) -> u32 {
        let What::Group(number) = self.what else { panic!("no group") };
        number
    }

    fn device(&self) -> &str {
        let What::Device(name) = &self.what else { panic!("no device") };
        name
    }
}

impl AsFd for FakeFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for FakeFd {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        match &self.what {
            What::Device(name) => {
                state.log.push(format!("close device {name}"));
                let device = state.devices.get_mut(name).unwrap();
                device.open = false;
                device.connected.clear();
            }
            What::Group(number) => {
                state.log.push(format!("close group {number}"));
                if state.devices.values().any(|device| device.open && device.group == *number) {
                    state.violations.push(format!("group {number} closed before its device"));
                }
                let group = state.groups.get_mut(number).unwrap();
                group.open = false;
                if let Some(container) = group.container.take().and_then(|id| state.containers.get_mut(&id)) {
                    container.groups.retain(|other| other != number);
                }
            }
            What::Container(id) => {
                state.log.push(format!("close container {id}"));
                let container = state.containers.remove(id).unwrap();
                // Until now the device could reach what is mapped.
                if container.mappings.iter().any(|&(_, len, address)| !is_allocated(address, len as usize)) {
                    state.violations.push(format!("memory went before container {id} closed"));
                }
                if !container.groups.is_empty() {
                    state.violations.push(format!("container {id} closed before its groups"));
                }
            }
        }
    }
}

impl Kernel for FakeKernel {
    type Fd = FakeFd;

    fn open_container(&self) -> io::Result<FakeFd> {
        let mut state = self.enter("open container".into())?;
        let id = state.containers_made;
        state.containers_made += 1;
        state.containers.insert(id, FakeContainer::default());
        Ok(self.fd(What::Container(id)))
    }

    fn open_group(&self, group: u32) -> io::Result<FakeFd> {
        let mut state = self.enter(format!("open group {group}"))?;
        let Some(found) = state.groups.get_mut(&group) else { return errno(libc::ENOENT) };
        if std::mem::replace(&mut found.open, true) {
            return errno(libc::EBUSY);
        }
        Ok(self.fd(What::Group(group)))
    }

    fn api_version(&self, container: &FakeFd) -> io::Result<u32> {
        Ok(self.enter(format!("api_version {}", container.container()))?.api_version)
    }

    fn has_extension(&self, container: &FakeFd, extension: u32) -> io::Result<bool> {
        let state = self.enter(format!("has_extension {} {extension}", container.container()))?;
        Ok(extension == 3 && state.type1v2)
    }

    fn set_iommu(&self, container: &FakeFd, iommu: u32) -> io::Result<()> {
        let id = container.container();
        let mut state = self.enter(format!("set_iommu {id} {iommu}"))?;
        let unit = state.containers[&id].groups.first().map(|group| state.groups[group].iommu);
        let container = state.containers.get_mut(&id).unwrap();
        if iommu != 3 || unit.is_none() || container.iommu.is_some() {
            return errno(libc::EINVAL);
        }
        container.iommu = unit;
        Ok(())
    }

    fn iommu_info(&self, container: &FakeFd) -> io::Result<Vec<u8>> {
        let state = self.enter(format!("iommu_info {}", container.container()))?;
        Ok(build::iommu(&state.ranges))
    }

    unsafe fn map_dma(&self, container: &FakeFd, address: usize, iova: Iova, len: usize) -> io::Result<()> {
        let id = container.container();
        let mut state = self.enter(format!("map_dma {id} {iova}"))?;
        let (first, len) = (iova.0, len as u64);
        let last = first + (len - 1);
        let translated = state.ranges.iter().any(|range| range.0 <= first && last <= range.1);
        let container = state.containers.get_mut(&id).unwrap();
        if container.iommu.is_none() || !translated || !(first | len | address as u64).is_multiple_of(4096) {
            return errno(libc::EINVAL);
        }
        if container.mappings.iter().any(|(start, size, _)| first < start + size && *start <= last) {
            return errno(libc::EEXIST);
        }
        container.mappings.push((first, len, address));
        Ok(())
    }

    fn unmap_dma(&self, container: &FakeFd, iova: Iova, len: usize) -> io::Result<u64> {
        let id = container.container();
        let masters = |state: &State| state.devices.values().filter(|d| d.open && d.config(4) & 4 != 0).count();
        let masters = masters(&self.state());
        let mut state = self.enter(format!("unmap_dma {id} {iova} masters={masters}"))?;
        let container = state.containers.get_mut(&id).unwrap();
        let before = container.mappings.len();
        container.mappings.retain(|(start, size, _)| (*start, *size) != (iova.0, len as u64));
        Ok(if container.mappings.len() < before { len as u64 } else { 0 })
    }

    fn group_status(&self, group: &FakeFd) -> io::Result<u32> {
        let state = self.enter(format!("group_status {}", group.group()))?;
        Ok(u32::from(state.groups[&group.group()].viable))
    }

    fn set_container(&self, group: &FakeFd, container: &FakeFd) -> io::Result<()> {
        let (number, id) = (group.group(), container.container());
        let mut state = self.enter(format!("set_container {number} {id}"))?;
        let found = &state.groups[&number];
        let joins = state.containers[&id].iommu.is_none_or(|iommu| iommu == found.iommu);
        if found.container.is_some() || !joins {
            return errno(libc::EINVAL);
        }
        state.groups.get_mut(&number).unwrap().container = Some(id);
        state.containers.get_mut(&id).unwrap().groups.push(number);
        Ok(())
    }

    fn device(&self, group: &FakeFd, name: &str) -> io::Result<FakeFd> {
        let number = group.group();
        let mut state = self.enter(format!("device {number} {name}"))?;
        let attached = state.groups[&number].container.is_some_and(|id| state.containers[&id].iommu.is_some());
        let Some(device) = state.devices.get_mut(name).filter(|device| attached && device.group == number) else {
            return errno(libc::ENODEV);
        };
        device.open = true;
        let fd = device.memory.try_clone()?.into();
        Ok(FakeFd { fd, what: What::Device(name.to_owned()), state: Arc::clone(&self.0) })
    }

    fn device_info(&self, device: &FakeFd) -> io::Result<vfio_device_info> {
        let state = self.enter("device_info".into())?;
        let flags = 2 | u32::from(state.devices[device.device()].can_reset);
        Ok(vfio_device_info { flags, num_regions: 9, num_irqs: 5, ..Default::default() })
    }

    fn region_info(&self, device: &FakeFd, index: u32) -> io::Result<Vec<u8>> {
        let state = self.enter(format!("region_info {index}"))?;
        let device = &state.devices[device.device()];
        match index {
            BAR0 => Ok(build::region(7, index, device.bar_len, 0, device.sparse.as_deref())),
            CONFIG_REGION => Ok(build::region(3, index, 0x1000, CONFIG, None)),
            _ => errno(libc::EINVAL),
        }
    }

    fn irq_info(&self, device: &FakeFd, index: u32) -> io::Result<vfio_irq_info> {
        let state = self.enter(format!("irq_info {index}"))?;
        let count = if index == MSIX { state.devices[device.device()].vectors } else { 1 };
        Ok(vfio_irq_info { index, count, ..Default::default() })
    }

    fn set_irqs(&self, device: &FakeFd, index: u32, eventfds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut state = self.enter(format!("set_irqs {index} x{}", eventfds.len()))?;
        let device = state.devices.get_mut(device.device()).unwrap();
        let count = if index == MSIX { device.vectors as usize } else { 1 };
        let enabled = device.connected.contains_key(&index);
        // As kernels without dynamic MSI-X: what is enabled must be disabled before it is enabled otherwise.
        if eventfds.len() > count || (enabled && !eventfds.is_empty()) {
            return errno(libc::EINVAL);
        }
        device.connected.remove(&index);
        if !eventfds.is_empty() {
            let kept = eventfds.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>()?;
            device.connected.insert(index, kept);
        }
        Ok(())
    }

    fn reset(&self, device: &FakeFd) -> io::Result<()> {
        let state = self.enter("reset".into())?;
        if state.devices[device.device()].can_reset { Ok(()) } else { errno(libc::EINVAL) }
    }
}
