//! Ports: the life of a virtual function in a program.
//!
//! A [`Port`] is opened (the function is reset, so that what a killed process left behind is gone, and the PF is asked
//! for its clear-to-send), started (rings are programmed; control and queues part ways), and stopped (queues let go,
//! the function is reset, the port is back and can be started again). [`Control`] looks after it meanwhile. The
//! families supply a [`device::Device`]; this module owns the order of things:
//!
//! 1. DMA memory is mapped before a ring that names it is programmed, and unmapped only after a reset.
//! 2. Control never touches ring memory; a queue never touches registers but its doorbells.
//! 3. Between starts the function is in reset: no queue of it runs. One that cannot be reset keeps its memory: nothing
//!    is unmapped and no buffer goes home.
//! 4. A port is not started again while a queue of an earlier start has not let go: its doorbell could reach the new ring.

mod config;
mod control;
pub(crate) mod device;
pub(crate) mod rss;
mod service;
mod start;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use config::{DEFAULT_MTU, DEFAULT_RING, PortConfig};
pub use control::{Control, PortStats};
pub use device::{Counters, Link};
pub use rss::{Rss, RssCaps};
pub use service::Service;

pub(crate) use start::StartParts;

use crate::addr::{Iova, MacAddr};
use crate::error::{Error, Result};
use crate::mem::{CACHE_SIZE, DmaTarget, HugeRegion, Mempool, PoolHandle};
use crate::mmio::PciId;
use control::Earlier;
use device::Device;

/// What a port is and can do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PortInfo {
    /// The driver: `igbvf`.
    pub family: &'static str,
    /// The part: `82576 VF`.
    pub part: &'static str,
    /// PCI vendor and device id.
    pub id: PciId,
    /// Receive queues of the VF.
    pub rx_queues: u16,
    /// Transmit queues of the VF.
    pub tx_queues: u16,
    /// Smallest ring, in descriptors.
    pub ring_min: u16,
    /// Largest ring, in descriptors.
    pub ring_max: u16,
    /// Rings are a multiple of this many descriptors.
    pub ring_multiple: u16,
    /// Largest MTU, in bytes.
    pub mtu_max: u16,
    /// How the VF can spread flows over its receive queues; `None` where that is the PF's affair alone.
    pub rss: Option<RssCaps>,
    /// NUMA node of the device, where known.
    pub numa_node: Option<u32>,
    /// A software model: its rate is the model's rate.
    pub is_model: bool,
}

/// A pool mapped for the port's device.
pub(super) struct MappedPool {
    pub(super) handle: PoolHandle,
    pub(super) iova: Iova,
}

/// An opened virtual function that is not started.
pub struct Port {
    name: String,
    info: PortInfo,
    config: PortConfig,
    device: Box<dyn Device>,
    pools: Vec<MappedPool>,
    earlier: Option<Earlier>,
}

/// How long opening waits for a PF that does not answer: one whose interface goes down and up is back within seconds
/// (measured on Linux's igb).
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a PF is asked again.
const OPEN_RETRY: Duration = Duration::from_millis(50);

/// The first reset of a device, with patience for a PF that is just being reset itself.
fn open_reset(device: &mut dyn Device) -> Result<()> {
    let deadline = device.bus().now() + OPEN_PATIENCE;
    let mut answer = device.reset(true);
    while matches!(answer, Err(Error::Timeout { .. })) && device.bus().now() < deadline {
        device.bus().pause(OPEN_RETRY);
        answer = device.reset(false);
    }
    answer
}

impl Port {
    /// Takes over an opened device: resets it, shakes hands with the PF, checks the configuration.
    pub(crate) fn with_device(mut device: Box<dyn Device>, mut config: PortConfig) -> Result<Port> {
        let bus = device.bus();
        let (name, id, numa_node, is_model) = (bus.name().to_owned(), bus.id(), bus.numa_node(), bus.is_model());
        config.check(&name, device.caps())?;
        device.want_queues(config.rx_queues.max(config.tx_queues));
        open_reset(device.as_mut())?;
        let caps = device.caps();
        // After the handshake a family may know better how many queues the PF grants.
        config.check(&name, caps)?;
        if let Some(rss) = caps.rss.filter(|rss| rss.settable) {
            config.settings.rss = Some(Rss::even(rss, config.rx_queues, config.symmetric_rss));
        }
        config.check(&name, caps)?;
        let info = PortInfo {
            family: caps.family,
            part: caps.part,
            id,
            rx_queues: caps.rx_queues,
            tx_queues: caps.tx_queues,
            ring_min: caps.ring_min,
            ring_max: caps.ring_max,
            ring_multiple: caps.ring_multiple,
            mtu_max: caps.mtu_max,
            rss: caps.rss,
            numa_node,
            is_model,
        };
        Ok(Port { name, info, config, device, pools: Vec::new(), earlier: None })
    }

    /// The device as its spec prints.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the port is and can do.
    pub fn info(&self) -> &PortInfo {
        &self.info
    }

    /// The station address in force.
    pub fn mac(&self) -> MacAddr {
        self.device.mac()
    }

    /// Buffers that [`start`](Port::start) asks of a pool: every ring full, and for each thread a full cache and the
    /// bursts it holds.
    pub fn buffers_needed(&self) -> u32 {
        let c = &self.config;
        let rings = u32::from(c.rx_queues) * u32::from(c.rx_ring) + u32::from(c.tx_queues) * u32::from(c.tx_ring);
        let threads = u32::from(c.rx_queues.max(c.tx_queues));
        rings + threads * (CACHE_SIZE as u32 + 2 * crate::mem::DEFAULT_BURST as u32)
    }

    /// Maps a pool for the device, so that transmit queues of this port can send its packets. `start` does this for
    /// the pool it is given.
    ///
    /// # Errors
    /// [`Error::Config`] for a pool in ordinary pages on hardware; whatever the kernel says against the mapping.
    pub fn attach(&mut self, pool: &Mempool) -> Result<()> {
        self.map_pool(pool.handle()).map(|_| ())
    }

    pub(super) fn map_pool(&mut self, pool: &PoolHandle) -> Result<Iova> {
        if let Some(mapped) = self.pools.iter().find(|m| m.handle.number() == pool.number()) {
            return Ok(mapped.iova);
        }
        self.check_pages(pool.region())?;
        let iova = self.device.bus().map_dma(pool.region())?;
        self.pools.push(MappedPool { handle: pool.clone(), iova });
        Ok(iova)
    }

    fn check_pages(&self, region: &Arc<HugeRegion>) -> Result<()> {
        if !region.is_huge() && !self.info.is_model {
            return Err(Error::Config(format!(
                "{}: the pool lies in ordinary pages, which only software models can use; name this port when making it",
                self.name
            )));
        }
        Ok(())
    }
}

impl DmaTarget for Port {
    fn numa_node(&self) -> Option<u32> {
        self.info.numa_node
    }

    fn is_model(&self) -> bool {
        self.info.is_model
    }

    fn vector_bits(&self) -> u16 {
        self.config.vector_bits
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        // A device that could not be reset may still write to what it was given: the bus unmaps that when it has taken bus
        // mastering from the device, and never gives its addresses to other memory before.
        if !self.device.is_silent() {
            return;
        }
        // What cannot be unmapped stays mapped, and alive, until the bus goes.
        for mapped in self.pools.drain(..) {
            let _ = self.device.bus().unmap_dma(mapped.handle.region());
        }
    }
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({}, {})", self.name, self.info.part)
    }
}
