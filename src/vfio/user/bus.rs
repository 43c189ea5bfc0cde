//! [`VfioUserBus`]: a served device as the drivers' [`Bus`].
//!
//! Made by `Port::open`, used by the control path of one driver. What always holds: a region that is mapped is kept alive
//! until it is unmapped, the server refuses to, or the bus goes.
#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::REPLY_DEADLINE;
use super::device::Device;
use crate::addr::Iova;
use crate::error::{Error, Result};
use crate::mem::HugeRegion;
use crate::mmio::{ALL_ONES, Bus, Doorbell, PciId, Reg};

/// Registers of config space, and bits of the command register (PCI Local Bus Specification 3.0, 6.2).
const PCI_VENDOR: u64 = 0x00;
const PCI_DEVICE: u64 = 0x02;
const PCI_COMMAND: u64 = 0x04;
const PCI_COMMAND_MEMORY: u16 = 1 << 1;
const PCI_COMMAND_MASTER: u16 = 1 << 2;

/// A device that another process serves.
pub(crate) struct VfioUserBus {
    device: Arc<Device>,
    id: PciId,
    /// Regions with how often each was mapped.
    mapped: Vec<(Arc<HugeRegion>, usize)>,
    vectors_connected: bool,
    opened: Instant,
}

impl VfioUserBus {
    /// Connects to the server at `path`.
    ///
    /// # Errors
    /// One line with what stands in the way: nobody serves there, the server has another client, it breaks the protocol.
    pub(crate) fn open(path: &Path) -> Result<VfioUserBus> {
        let name = format!("vfio-user:{}", path.display());
        VfioUserBus::new(Device::open(&name, path, REPLY_DEADLINE)?)
    }

    pub(super) fn new(device: Device) -> Result<VfioUserBus> {
        let id = PciId { vendor: device.read_config(PCI_VENDOR)?, device: device.read_config(PCI_DEVICE)? };
        let device = Arc::new(device);
        Ok(VfioUserBus { device, id, mapped: Vec::new(), vectors_connected: false, opened: Instant::now() })
    }

    fn position(&self, region: &Arc<HugeRegion>) -> Option<usize> {
        self.mapped.iter().position(|(known, _)| Arc::ptr_eq(known, region))
    }
}

impl Bus for VfioUserBus {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn id(&self) -> PciId {
        self.id
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    /// What serves a device in software needs no hugepages.
    fn is_model(&self) -> bool {
        true
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
        self.device.doorbell(register)
    }

    fn map_dma(&mut self, region: &Arc<HugeRegion>) -> Result<Iova> {
        match self.position(region) {
            Some(known) => self.mapped[known].1 += 1,
            None => {
                self.device.map(region)?;
                self.mapped.push((Arc::clone(region), 1));
            }
        }
        Ok(Iova(region.addr() as u64))
    }

    fn unmap_dma(&mut self, region: &Arc<HugeRegion>) -> Result<()> {
        let Some(known) = self.position(region) else {
            return Err(Error::Memory(format!("{}: {region:?} is not mapped", self.name())));
        };
        self.mapped[known].1 -= 1;
        if self.mapped[known].1 == 0 {
            self.mapped.swap_remove(known);
            self.device.unmap(region)?;
        }
        Ok(())
    }

    fn vectors(&self) -> u32 {
        self.device.vectors()
    }

    fn connect_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        if eventfds.len() > self.vectors() as usize {
            return Err(Error::Config(format!(
                "{}: {} interrupt vectors asked for, and the function has {}",
                self.name(),
                eventfds.len(),
                self.vectors()
            )));
        }
        if self.vectors_connected {
            self.device.set_vectors(&[])?;
            self.vectors_connected = false;
        }
        if !eventfds.is_empty() {
            self.vectors_connected = true;
            self.device.set_vectors(eventfds)?;
        }
        Ok(())
    }

    fn reset_function(&mut self) -> Result<bool> {
        self.device.reset()
    }

    fn bus_master(&mut self) -> Result<bool> {
        Ok(self.device.read_config(PCI_COMMAND)? & PCI_COMMAND_MASTER != 0)
    }

    fn set_bus_master(&mut self, on: bool) -> Result<()> {
        let before = self.device.read_config(PCI_COMMAND)?;
        let wanted = match on {
            true => before | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
            false => before & !PCI_COMMAND_MASTER,
        };
        self.device.write_config(PCI_COMMAND, wanted)?;
        if self.bus_master()? != on {
            let state = if on { "stays off" } else { "stays on" };
            return Err(Error::device(self.name(), format!("the Bus Master bit {state} though it was written")));
        }
        Ok(())
    }

    fn removal_requested(&mut self) -> bool {
        self.device.is_dead()
    }

    fn now(&self) -> Duration {
        self.opened.elapsed()
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}

impl Drop for VfioUserBus {
    fn drop(&mut self) {
        // The server resets the device when the connection closes. Until it has noticed, the device does no DMA either.
        if self.mapped.is_empty() || self.set_bus_master(false).is_err() {
            return;
        }
        for (region, _) in self.mapped.drain(..) {
            let _ = self.device.unmap(&region);
        }
    }
}
