//! From a spec to an opened port: which bus, which family.
#![forbid(unsafe_code)]

use std::fmt::Display;

use crate::error::{Error, Result};
use crate::mmio::{Bus, PciId};
use crate::pci::{PciFunction, SysfsRoot};
use crate::port::device::Device;
use crate::port::{Port, PortConfig};
use crate::spec::DeviceSpec;
use crate::vfio::VfioBus;

/// Intel's PCI vendor id.
const INTEL: u16 = 0x8086;

/// The VFs that vfring drives, for messages.
const SUPPORTED: &str = "supported are the VFs of the 82576 (8086:10ca) and I350 (1520), of the 82599 (10ed), \
     X540 (1515), X550 (1565), X550EM_x (15a8), X550EM_a (15c5) and E610 (57ad), and of the XL710 (154c), X722 (37cd) and \
     800 series (1889)";

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
        DeviceSpec::Pci(address) => {
            check_id(&SysfsRoot::default().function(*address)?)?;
            attach(VfioBus::open(*address)?)
        }
        #[cfg(feature = "sim")]
        DeviceSpec::Sim(spec) => attach(super::sim::open(spec)?),
        #[cfg(not(feature = "sim"))]
        DeviceSpec::Sim(spec) => Err(Error::Config(format!("{spec}: built without the feature 'sim'"))),
        #[cfg(feature = "vfio-user")]
        DeviceSpec::VfioUser(path) => attach(crate::vfio::VfioUserBus::open(path)?),
        #[cfg(not(feature = "vfio-user"))]
        DeviceSpec::VfioUser(_) => Err(Error::Config(format!("{spec}: built without the feature 'vfio-user'"))),
    }
}

/// Refuses a function of no known family before anybody is told to bind it to vfio-pci. A PF passes: what
/// [`VfioBus::open`] says to one helps more.
fn check_id(function: &PciFunction) -> Result<()> {
    let is_pf = function.vf.is_none() && function.sriov.is_some();
    if is_pf { Ok(()) } else { family(function.address, function.id).map(drop) }
}

/// The driver of this crate for a VF with this id, such as `igbvf`.
pub fn driver_for(id: PciId) -> Option<String> {
    // A family is called as its module is.
    family(id, id).ok().map(|family| format!("{family:?}").to_lowercase())
}

/// The families of drivers.
#[derive(Debug)]
enum Family {
    #[cfg(feature = "iavf")]
    Iavf,
    #[cfg(feature = "igbvf")]
    Igbvf,
    #[cfg(feature = "ixgbevf")]
    Ixgbevf,
}

/// The family that knows an id.
fn family(device: impl Display, id: PciId) -> Result<Family> {
    match (id.vendor, id.device) {
        #[cfg(feature = "iavf")]
        (INTEL, 0x154c | 0x37cd | 0x1889 | 0x1571) => Ok(Family::Iavf),
        #[cfg(feature = "igbvf")]
        (INTEL, 0x10ca | 0x1520 | 0x152d | 0x152f) => Ok(Family::Igbvf),
        #[cfg(feature = "ixgbevf")]
        (INTEL, 0x10ed | 0x1515 | 0x1565 | 0x15a8 | 0x15c5 | 0x57ad | 0x152e | 0x1530 | 0x1564 | 0x15a9 | 0x15b4) => {
            Ok(Family::Ixgbevf)
        }
        _ => Err(Error::device(device, format!("no driver for {id}; {SUPPORTED}"))),
    }
}

/// Gives the bus to the family that knows its id.
fn attach<B: Bus + 'static>(bus: B) -> Result<Box<dyn Device>> {
    match family(bus.name(), bus.id())? {
        #[cfg(feature = "iavf")]
        Family::Iavf => Ok(Box::new(super::iavf::Iavf::open(bus)?)),
        #[cfg(feature = "igbvf")]
        Family::Igbvf => Ok(Box::new(super::igbvf::Igbvf::open(bus)?)),
        #[cfg(feature = "ixgbevf")]
        Family::Ixgbevf => Ok(Box::new(super::ixgbevf::Ixgbevf::open(bus)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::FakeSysfs;

    #[test]
    fn an_unknown_id_is_refused_by_its_id_and_not_for_its_driver() {
        let sysfs = FakeSysfs::new();
        sysfs.device("0000:00:1f.2", "8086:2922").driver("0000:00:1f.2", "ahci");
        sysfs.pf("0000:3b:00.0", "8086:1017", 64, 1).vf("0000:3b:02.0", "8086:1018", "0000:3b:00.0", 0);
        sysfs.device("0000:00:1e.0", "1af4:1003");
        for (address, id) in
            [("0000:00:1f.2", "8086:2922"), ("0000:3b:02.0", "8086:1018"), ("0000:00:1e.0", "1af4:1003")]
        {
            let error = check_id(&sysfs.root().function(address.parse().unwrap()).unwrap()).unwrap_err().to_string();
            assert_eq!(error, format!("{address}: no driver for {id}; {SUPPORTED}"));
        }
    }

    #[test]
    fn known_vfs_and_any_pf_pass_the_look_at_the_id() {
        let sysfs = FakeSysfs::new();
        sysfs.pf("0000:3b:00.0", "8086:1572", 64, 0);
        sysfs.pf("0000:01:00.0", "8086:10c9", 7, 1).vf("0000:01:10.0", "8086:10ca", "0000:01:00.0", 0);
        sysfs.device("0000:00:05.0", "8086:1520").device("0000:00:06.0", "8086:1889");
        for address in ["0000:00:06.0", "0000:3b:00.0", "0000:01:00.0", "0000:01:10.0", "0000:00:05.0"] {
            check_id(&sysfs.root().function(address.parse().unwrap()).unwrap()).unwrap();
        }
    }
}
