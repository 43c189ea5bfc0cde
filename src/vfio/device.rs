//! An open function: its descriptor, its registers, its config space and its interrupts.
//!
//! Owns the device's file descriptor and the maps of BAR0, and is the only place that touches a register. Shared by the
//! bus, which does the control work, and by every doorbell into the BAR, so that the map and the descriptor (and with
//! it the group and the container) outlive the last queue. What always holds: an access is one aligned 32-bit load or
//! store inside the BAR; no reference to the BAR is kept.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use memmap2::{Advice, MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio;
use volatile_register::RW;

use crate::addr::PciAddress;
use crate::error::{Error, Result};
use crate::mmio::Reg;

use super::container::{Container, Group};
use super::info::Region;
use super::ioctl::{self, Kernel};
use super::{explain, info};

/// An open function.
pub(super) struct Device<K: Kernel> {
    kernel: K,
    address: PciAddress,
    /// The maps of BAR0: usually one, as long as the BAR.
    windows: Vec<Window>,
    fd: K::Fd,
    bar: Region,
    bar_len: u32,
    config: Region,
    can_reset: bool,
    vectors: u32,
    /// Signalled on an error of the device and when the kernel wants it back.
    removal: OwnedFd,
    // Last: the group closes after the device.
    group: Arc<Group<K>>,
}

/// A part of BAR0 in our address space.
struct Window {
    start: u32,
    len: u32,
    map: MmapRaw,
}

impl<K: Kernel> Device<K> {
    /// Opens the function; on failure nothing stays open.
    pub(super) fn open(kernel: &K, group: &Arc<Group<K>>, address: PciAddress) -> Result<Self> {
        let fd = kernel.device(group.fd(), &address.to_string()).map_err(|e| explain::device_failed(address, e))?;
        let device = kernel.device_info(&fd).map_err(|e| Error::os(format!("{address}: VFIO_DEVICE_GET_INFO"), e))?;
        if device.flags & vfio::VFIO_DEVICE_FLAGS_PCI == 0 || device.num_regions <= vfio::VFIO_PCI_CONFIG_REGION_INDEX {
            return Err(Error::device(address, "is no PCI function to VFIO"));
        }
        let region = |index: u32| -> Result<Region> {
            let answer = kernel
                .region_info(&fd, index)
                .map_err(|e| Error::os(format!("{address}: VFIO_DEVICE_GET_REGION_INFO {index}"), e))?;
            info::region(&answer).ok_or_else(|| {
                Error::device(address, format!("VFIO_DEVICE_GET_REGION_INFO {index} gave a malformed answer"))
            })
        };
        let bar = region(vfio::VFIO_PCI_BAR0_REGION_INDEX)?;
        let config = region(vfio::VFIO_PCI_CONFIG_REGION_INDEX)?;
        let bar_len = u32::try_from(bar.len).ok().filter(|&len| len > 0).ok_or_else(|| {
            Error::device(address, format!("has a BAR0 of {} bytes, which no VF that vfring drives has", bar.len))
        })?;
        let windows = bar
            .areas
            .iter()
            .map(|area| {
                let map = MmapOptions::new()
                    .offset(bar.offset + area.start)
                    .len(area.len as usize)
                    .map_raw(fd.as_fd().as_raw_fd())
                    .map_err(|e| Error::os(format!("{address}: mmap of BAR0 at {:#x}", area.start), e))?;
                // A forked child that outlived us would keep the function open, and so its group.
                map.advise(Advice::DontFork)
                    .map_err(|e| Error::os(format!("{address}: madvise(MADV_DONTFORK) of BAR0"), e))?;
                // `info::region` checked that areas lie inside the BAR, whose length fits into 32 bits.
                Ok(Window { start: area.start as u32, len: area.len as u32, map })
            })
            .collect::<Result<Vec<Window>>>()?;
        let vectors = kernel
            .irq_info(&fd, vfio::VFIO_PCI_MSIX_IRQ_INDEX)
            .map_err(|e| Error::os(format!("{address}: VFIO_DEVICE_GET_IRQ_INFO of MSI-X"), e))?
            .count;
        let removal = ioctl::eventfd().map_err(|e| Error::os(format!("{address}: eventfd"), e))?;
        for (index, what) in [(vfio::VFIO_PCI_ERR_IRQ_INDEX, "errors"), (vfio::VFIO_PCI_REQ_IRQ_INDEX, "requests")] {
            // Kernels answer EINVAL for what the device or they themselves lack.
            if index < device.num_irqs && kernel.irq_info(&fd, index).is_ok_and(|info| info.count > 0) {
                kernel
                    .set_irqs(&fd, index, &[removal.as_fd()])
                    .map_err(|e| Error::os(format!("{address}: VFIO_DEVICE_SET_IRQS of device {what}"), e))?;
            }
        }
        Ok(Device {
            kernel: kernel.clone(),
            address,
            windows,
            fd,
            bar,
            bar_len,
            config,
            can_reset: device.flags & vfio::VFIO_DEVICE_FLAGS_RESET != 0,
            vectors,
            removal,
            group: Arc::clone(group),
        })
    }

    pub(super) fn address(&self) -> PciAddress {
        self.address
    }

    pub(super) fn container(&self) -> &Container<K> {
        self.group.container()
    }

    pub(super) fn bar_len(&self) -> u32 {
        self.bar_len
    }

    pub(super) fn vectors(&self) -> u32 {
        self.vectors
    }

    /// Reads a register; `None` outside the BAR or when the device does not answer.
    pub(super) fn read(&self, register: Reg) -> Option<u32> {
        let value = match self.cell(register) {
            Some(cell) => touch(cell, None),
            None => {
                let mut bytes = [0; 4];
                ioctl::read_at(self.fd.as_fd(), &mut bytes, self.trapped(register)?).ok()?;
                u32::from_le_bytes(bytes)
            }
        };
        // What the device says about memory must not be overtaken by reads of that memory.
        fence(Ordering::Acquire);
        Some(value)
    }

    /// Writes a register; nothing happens outside the BAR.
    pub(super) fn write(&self, register: Reg, value: u32) {
        // What memory holds must be there before the device is told.
        fence(Ordering::Release);
        if let Some(cell) = self.cell(register) {
            touch(cell, Some(value));
        } else if let Some(offset) = self.trapped(register) {
            // A device that is gone is found by reading.
            let _ = ioctl::write_at(self.fd.as_fd(), &value.to_le_bytes(), offset);
        }
    }

    /// Where a register is mapped, aligned and whole; valid for as long as the device is open.
    pub(super) fn cell(&self, register: Reg) -> Option<NonNull<u32>> {
        let offset = register.0;
        let end = offset.checked_add(4).filter(|_| offset.is_multiple_of(4))?;
        let window = self.windows.iter().find(|w| w.start <= offset && end <= w.start + w.len)?;
        // SAFETY: the offset is inside the map, which is as long as the window.
        let at = unsafe { window.map.as_mut_ptr().add((offset - window.start) as usize) };
        NonNull::new(at.cast())
    }

    /// Where a register that is not mapped lies in the device's descriptor.
    fn trapped(&self, register: Reg) -> Option<u64> {
        let inside = register.0.is_multiple_of(4) && register.0.checked_add(4).is_some_and(|end| end <= self.bar_len);
        inside.then(|| self.bar.offset + u64::from(register.0))
    }

    /// Reads 16 bits of config space.
    pub(super) fn read_config(&self, offset: u64) -> Result<u16> {
        let mut bytes = [0; 2];
        ioctl::read_at(self.fd.as_fd(), &mut bytes, self.config.offset + offset)
            .map_err(|e| Error::os(format!("{}: reading config space at {offset:#x}", self.address), e))?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// Writes 16 bits of config space.
    pub(super) fn write_config(&self, offset: u64, value: u16) -> Result<()> {
        ioctl::write_at(self.fd.as_fd(), &value.to_le_bytes(), self.config.offset + offset)
            .map_err(|e| Error::os(format!("{}: writing config space at {offset:#x}", self.address), e))
    }

    /// Connects the MSI-X vectors, all in one call; an empty slice disables them.
    pub(super) fn set_vectors(&self, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        self.kernel.set_irqs(&self.fd, vfio::VFIO_PCI_MSIX_IRQ_INDEX, eventfds).map_err(|e| {
            Error::os(format!("{}: VFIO_DEVICE_SET_IRQS of {} MSI-X vectors", self.address, eventfds.len()), e)
        })
    }

    /// Function-level reset; false when the function has none.
    pub(super) fn reset(&self) -> Result<bool> {
        if !self.can_reset {
            return Ok(false);
        }
        self.kernel.reset(&self.fd).map_err(|e| {
            Error::os(
                format!("{}: VFIO_DEVICE_RESET (EAGAIN: its PF is resetting it or taking it away)", self.address),
                e,
            )
        })?;
        Ok(true)
    }

    /// True when the kernel reported an error or asked for the device since this was last asked.
    pub(super) fn removal_signalled(&self) -> bool {
        ioctl::was_signalled(self.removal.as_fd())
    }
}

/// The one function that touches a BAR register: one volatile 32-bit load, or one store when there is a `value`.
///
/// Registers are little-endian, and so are the machines that have these devices.
fn touch(cell: NonNull<u32>, value: Option<u32>) -> u32 {
    // SAFETY: `Device::cell` made `cell` from a live map, aligned and in bounds, and the caller holds the device. The
    // reference lasts for this one access, and its type has interior mutability, so it promises nobody that the value
    // stays the same or may be read at will.
    let register = unsafe { cell.cast::<RW<u32>>().as_ref() };
    match value {
        None => register.read(),
        Some(value) => {
            // SAFETY: a register write may start DMA; the IOMMU confines it to memory that was mapped for the device,
            // which nobody holds references to.
            unsafe { register.write(value) };
            value
        }
    }
}
