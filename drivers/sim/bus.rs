//! A port of a world as a driver sees it: the [`Bus`] of the models.
//!
//! Holds nothing but the port's number and what it mapped; every access goes to the model under the world's lock. Dropping
//! it closes the port, which is an error while queues are enabled.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::dma::UnmapResult;
use super::world::{State, World};
use crate::addr::Iova;
use crate::error::{Error, Result};
use crate::mem::HugeRegion;
use crate::mmio::{ALL_ONES, Bus, Doorbell, PciId, Reg};

/// An opened port.
pub(crate) struct SimBus {
    world: World,
    port: usize,
    name: String,
    bar_len: u32,
    vectors: u32,
    /// What was mapped through this bus, once for each time.
    mapped: Vec<Arc<HugeRegion>>,
}

impl SimBus {
    /// Opens a port; only one driver may have it.
    pub(super) fn open(world: World, port: usize, name: String) -> Result<SimBus> {
        let (bar_len, vectors) = world.open(port, &name)?;
        Ok(SimBus { world, port, name, bar_len, vectors, mapped: Vec::new() })
    }

    fn valid(&self, register: Reg) -> bool {
        register.0.is_multiple_of(4) && register.0 < self.bar_len
    }
}

impl Drop for SimBus {
    fn drop(&mut self) {
        self.world.close(self.port);
        for region in std::mem::take(&mut self.mapped) {
            self.world.with(|state| unmap(state, &region));
        }
    }
}

/// Unmaps a region; a ring or buffers in it that a device still has are an error of the driver.
fn unmap(state: &mut State, region: &Arc<HugeRegion>) -> bool {
    let State { env, ports } = state;
    let Some(result) = env.dma.unmap(region) else { return false };
    let UnmapResult::Gone { start, end } = result else { return true };
    if let Some(by) = env.dma.armed_within(start, end)
        && let Some(port) = ports.get(by.port).and_then(Option::as_ref)
    {
        port.vf.violate(env, &format!("memory unmapped while a buffer in it is armed in {by}"));
    }
    for port in ports.iter().flatten().filter(|port| port.vf.has_ring_within(start, end)) {
        port.vf.violate(env, "memory unmapped while a ring in it is enabled");
    }
    true
}

impl Bus for SimBus {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> PciId {
        self.world.access(self.port, |port, _| port.vf.id())
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn is_model(&self) -> bool {
        true
    }

    fn bar_len(&self) -> u32 {
        self.bar_len
    }

    fn read32(&mut self, register: Reg) -> u32 {
        if !self.valid(register) {
            return ALL_ONES;
        }
        self.world.access(self.port, |port, env| port.vf.read(register.0, env))
    }

    fn write32(&mut self, register: Reg, value: u32) {
        if self.valid(register) {
            self.world.access(self.port, |port, env| port.vf.write(register.0, value, env));
        }
    }

    fn doorbell(&mut self, register: Reg) -> Result<Doorbell> {
        let cells = self.world.access(self.port, |port, _| port.vf.cells());
        let cell = cells
            .of(register.0)
            .map(NonNull::from)
            .ok_or_else(|| Error::device(&self.name, format!("the register at {:#06x} is no doorbell", register.0)))?;
        // SAFETY: the cell is an AtomicU32 (aligned) that `Cells::of` lent from what `cells` keeps alive as the owner, and
        // an Arc's contents do not move.
        Ok(unsafe { Doorbell::new(cell, cells) })
    }

    fn map_dma(&mut self, region: &Arc<HugeRegion>) -> Result<Iova> {
        let iova = self.world.with(|state| state.env.dma.map(region, &mut state.env.rng));
        self.mapped.push(region.clone());
        Ok(iova)
    }

    fn unmap_dma(&mut self, region: &Arc<HugeRegion>) -> Result<()> {
        let Some(at) = self.mapped.iter().position(|r| Arc::ptr_eq(r, region)) else {
            return Err(Error::device(&self.name, format!("{region:?} is not mapped")));
        };
        self.mapped.swap_remove(at);
        self.world.with(|state| unmap(state, region));
        Ok(())
    }

    fn vectors(&self) -> u32 {
        self.vectors
    }

    fn connect_vectors(&mut self, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        self.world.access(self.port, |port, _| port.vf.connect_vectors(eventfds))
    }

    fn reset_function(&mut self) -> Result<bool> {
        self.world.access(self.port, |port, env| port.vf.function_reset(env));
        Ok(true)
    }

    fn bus_master(&mut self) -> Result<bool> {
        Ok(self.world.access(self.port, |port, _| port.vf.bus_master()))
    }

    fn set_bus_master(&mut self, on: bool) -> Result<()> {
        self.world.access(self.port, |port, _| port.vf.set_bus_master(on));
        Ok(())
    }

    fn removal_requested(&mut self) -> bool {
        false
    }

    fn now(&self) -> Duration {
        self.world.now()
    }

    fn pause(&mut self, time: Duration) {
        self.world.advance(time);
    }
}
