//! [`VfioBus`]: a VF on vfio-pci as the drivers' [`Bus`].
//!
//! Owns one opened function and its share of the container's mappings. Made by `Port::open`, used by the control path
//! of one driver. What always holds: when the bus goes, the device can no longer do DMA before its memory is
//! unmapped; if that cannot be made sure of, the memory stays mapped and allocated until the container closes.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::addr::{Iova, PciAddress};
use crate::error::{Error, Result};
use crate::mem::HugeRegion;
use crate::mmio::{ALL_ONES, Bus, Doorbell, PciId, Reg};
use crate::pci::SysfsRoot;

use super::container::Registry;
use super::device::Device;
use super::explain;
use super::ioctl::{Kernel, Linux};

/// The containers of this process.
static REGISTRY: Registry<Linux> = Registry::new(Linux);

/// The command register in config space, and its bits (PCI Local Bus Specification 3.0, 6.2.2).
const PCI_COMMAND: u64 = 0x04;
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
const PCI_COMMAND_MASTER: u16 = 1 << 2;

/// A VF on vfio-pci.
pub(crate) struct VfioBus<K: Kernel = Linux> {
    name: String,
    id: PciId,
    numa_node: Option<u32>,
    device: Arc<Device<K>>,
    /// One entry for each `map_dma`.
    mapped: Vec<Arc<HugeRegion>>,
    vectors_connected: bool,
    removal_seen: bool,
    opened: Instant,
}

impl VfioBus {
    /// Opens the VF at `address`, with its group and a container.
    ///
    /// # Errors
    /// [`Error::Device`] or [`Error::Os`], one line with what stands in the way and the command that mends it.
    pub(crate) fn open(address: PciAddress) -> Result<VfioBus> {
        VfioBus::open_in(&REGISTRY, &SysfsRoot::default(), address)
    }
}

impl<K: Kernel> VfioBus<K> {
    pub(super) fn open_in(registry: &Registry<K>, sysfs: &SysfsRoot, address: PciAddress) -> Result<VfioBus<K>> {
        let function = sysfs.function(address)?;
        let group = explain::check_function(&function)?;
        let device = registry.open(&function, group)?;
        Ok(VfioBus {
            name: address.to_string(),
            id: function.id,
            numa_node: function.numa_node,
            device,
            mapped: Vec::new(),
            vectors_connected: false,
            removal_seen: false,
            opened: Instant::now(),
        })
    }

    fn command(&self) -> Result<u16> {
        match self.device.read_config(PCI_COMMAND)? {
            u16::MAX => Err(Error::gone(self.device.address())),
            command => Ok(command),
        }
    }
}

impl<K: Kernel> Bus for VfioBus<K> {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> PciId {
        self.id
    }

    fn numa_node(&self) -> Option<u32> {
        self.numa_node
    }

    fn is_model(&self) -> bool {
        false
    }

    fn bar_len(&self) -> u32 {
        self.device.bar_len()
    }

    fn read32(&mut self, register: Reg) -> u32 {
        self.device.read(register).unwrap_or(ALL_ONES)
    }

    fn write32(&mut self, register: Reg, value: u32) {
        self.device.write(register, value);
    }

    fn doorbell(&mut self, register: Reg) -> Result<Doorbell> {
        let cell = self.device.cell(register).ok_or_else(|| {
            Error::device(&self.name, format!("register {:#x} cannot be mapped, so it is no doorbell", register.0))
        })?;
        // SAFETY: the device's maps cover the aligned cell and live as long as the device, which the doorbell owns.
        Ok(unsafe { Doorbell::new(cell.cast(), Arc::clone(&self.device) as _) })
    }

    fn map_dma(&mut self, region: &Arc<HugeRegion>) -> Result<Iova> {
        let iova = self.device.container().map(self.device.address(), region)?;
        self.mapped.push(Arc::clone(region));
        Ok(iova)
    }

    fn unmap_dma(&mut self, region: &Arc<HugeRegion>) -> Result<()> {
        let Some(i) = self.mapped.iter().position(|known| Arc::ptr_eq(known, region)) else {
            return Err(Error::Memory(format!("{}: {region:?} is not mapped", self.name)));
        };
        self.mapped.swap_remove(i);
        self.device.container().unmap(self.device.address(), region)
    }

    fn vectors(&self) -> u32 {
        self.device.vectors()
    }

    fn connect_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        if eventfds.len() > self.vectors() as usize {
            return Err(Error::Config(format!(
                "{}: {} interrupt vectors asked for, and the function has {}",
                self.name,
                eventfds.len(),
                self.vectors()
            )));
        }
        // Disabled first even if nothing changes: a PF reset takes MSI-X from a VF behind the kernel's back, and the
        // kernel writes it to the device again only when it enables it anew.
        if self.vectors_connected {
            self.device.set_vectors(&[])?;
            self.vectors_connected = false;
        }
        if !eventfds.is_empty() {
            self.device.set_vectors(eventfds)?;
            self.vectors_connected = true;
        }
        Ok(())
    }

    fn reset_function(&mut self) -> Result<bool> {
        self.device.reset()
    }

    fn bus_master(&mut self) -> Result<bool> {
        Ok(self.command()? & PCI_COMMAND_MASTER != 0)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<()> {
        let before = self.command()?;
        let wanted = match on {
            true => before | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
            false => before & !PCI_COMMAND_MASTER,
        };
        self.device.write_config(PCI_COMMAND, wanted)?;
        // Reading back also waits for writes to memory that the device had under way: a completion does not overtake
        // them (PCI Express Base Specification, ordering rules).
        if (self.command()? & PCI_COMMAND_MASTER != 0) != on {
            let state = if on { "stays off" } else { "stays on" };
            return Err(Error::device(&self.name, format!("the Bus Master bit {state} though it was written")));
        }
        Ok(())
    }

    fn removal_requested(&mut self) -> bool {
        self.removal_seen |= self.device.removal_signalled();
        self.removal_seen
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl<K: Kernel> Drop for VfioBus<K> {
    fn drop(&mut self) {
        // A doorbell may keep the device open, so closing it cannot be relied on to stop it. What is unmapped while the
        // device still runs could be given to other memory at the same address.
        if self.mapped.is_empty() || self.set_bus_master(false).is_err() {
            return;
        }
        for region in self.mapped.drain(..) {
            // On failure the container keeps the region.
            let _ = self.device.container().unmap(self.device.address(), &region);
        }
    }
}
