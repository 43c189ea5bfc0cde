//! From a spec to an opened port: which bus, which family.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use crate::mmio::{Bus, PciId};
use crate::port::device::Device;
use crate::port::{Port, PortConfig};
use crate::spec::DeviceSpec;
use crate::vfio::VfioBus;

/// Intel's PCI vendor id.
const INTEL: u16 = 0x8086;

/// The VFs that vfring drives, for messages.
const SUPPORTED: &str = "supported are the 82576 VF (8086:10ca) and the I350 VF (8086:1520)";

impl Port {
    /// Opens the VF that `spec` names: resets it, so that nothing of an earlier user is left, and shakes hands with
    /// its PF.
    ///
    /// # Errors
    /// One line that names the device, what stands in the way, and what mends it.
    pub fn open(spec: &DeviceSpec, config: PortConfig) -> Result<Port> {
        Port::with_device(open_device(spec)?, config)
    }

    /// Opens several VFs at once: each reset takes a tenth of a second or more, mostly waiting.
    ///
    /// # Errors
    /// The first error in the order given; the ports that could be opened are closed again.
    pub fn open_many(specs: &[(DeviceSpec, PortConfig)]) -> Result<Vec<Port>> {
        let ports: Vec<Result<Port>> = std::thread::scope(|scope| {
            let openers: Vec<_> =
                specs.iter().map(|(spec, config)| scope.spawn(move || Port::open(spec, config.clone()))).collect();
            openers
                .into_iter()
                .map(|opener| {
                    opener.join().unwrap_or_else(|_| Err(Error::Config("a thread that opened a port panicked".into())))
                })
                .collect()
        });
        ports.into_iter().collect()
    }
}

fn open_device(spec: &DeviceSpec) -> Result<Box<dyn Device>> {
    match spec {
        DeviceSpec::Pci(address) => attach(VfioBus::open(*address)?),
        #[cfg(feature = "sim")]
        DeviceSpec::Sim(spec) => attach(super::sim::open(spec)?),
        #[cfg(not(feature = "sim"))]
        DeviceSpec::Sim(spec) => Err(Error::Config(format!("{spec}: built without the feature 'sim'"))),
    }
}

/// Gives the bus to the family that knows its id.
fn attach<B: Bus + 'static>(bus: B) -> Result<Box<dyn Device>> {
    let id = bus.id();
    match id {
        #[cfg(feature = "igbvf")]
        PciId { vendor: INTEL, device: 0x10ca | 0x1520 | 0x152d | 0x152f } => {
            Ok(Box::new(super::igbvf::Igbvf::open(bus)?))
        }
        PciId { vendor: INTEL, .. } => Err(Error::device(bus.name(), format!("no driver for {id}; {SUPPORTED}"))),
        _ => Err(Error::device(bus.name(), format!("{id} is not an Intel VF; {SUPPORTED}"))),
    }
}
