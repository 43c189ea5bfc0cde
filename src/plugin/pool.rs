//! Pools: which devices are advertised under which resource, and how they fare.
//!
//! Owns the assignment of devices to pools and its life. Called once per configuration and once per scan. What always
//! holds: a device and an IOMMU group belong to at most one pool; a device once advertised stays listed, unhealthy while
//! something is wrong with it, so that what was lost can be seen; a pool without devices is a pool.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::PciAddress;
use crate::host::Host;

use super::config::{Config, PoolConfig};
use super::health::{Access, Cause, Health, Tracked, examine};
use super::inventory::{Candidate, Inventory};
use super::resource::Resource;

/// All pools of a host.
#[derive(Clone, Debug)]
pub struct Pools {
    pools: Vec<Pool>,
}

/// One pool.
#[derive(Clone, Debug)]
pub struct Pool {
    pub(super) host: Host,
    pub(super) config: PoolConfig,
    resource: Resource,
    devices: BTreeMap<PciAddress, PoolDevice>,
    omitted: Vec<Omitted>,
}

/// A device that is advertised.
#[derive(Clone, Debug)]
pub struct PoolDevice {
    /// Its address, which is its id.
    pub address: PciAddress,
    /// Its NUMA node, where the firmware tells.
    pub numa_node: Option<u32>,
    /// Its PF.
    pub pf: Option<PciAddress>,
    /// Its IOMMU group.
    pub group: u32,
    tracked: Tracked,
}

/// A device that was selected and is not advertised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Omitted {
    /// The device.
    pub address: PciAddress,
    /// Why.
    pub cause: Cause,
}

/// What a scan changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A device is advertised from now on.
    Added(PciAddress),
    /// A device turned healthy or unhealthy.
    Health(PciAddress, Health),
}

impl PoolDevice {
    /// Whether kubelet may hand it out.
    pub fn health(&self) -> &Health {
        &self.tracked.health
    }
}

impl Pool {
    /// What pods ask for.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The configuration that it was made from.
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// The advertised devices, by address.
    pub fn devices(&self) -> impl ExactSizeIterator<Item = &PoolDevice> {
        self.devices.values()
    }

    /// One advertised device.
    pub fn device(&self, address: PciAddress) -> Option<&PoolDevice> {
        self.devices.get(&address)
    }

    /// What was selected at the last scan and is not advertised.
    pub fn omitted(&self) -> &[Omitted] {
        &self.omitted
    }
}

/// Whether a pool's selectors select a device.
pub(super) fn selects(config: &PoolConfig, device: &Candidate) -> bool {
    config.device_type.matches(&device.function)
        && !device.is_pf_with_vfs()
        && config.selectors.iter().any(|selector| selector.check(device).is_ok())
}

impl Pools {
    /// The pools of a configuration with the devices of a first scan. A pool whose configuration has an error is left
    /// out.
    pub fn new(config: &Config, host: &Host, inventory: &Inventory) -> Pools {
        let usable = config.pools.iter().filter(|pool| pool.usable);
        let pools = usable
            .filter_map(|config| {
                let resource = config.resource.clone()?;
                let (devices, omitted) = (BTreeMap::new(), Vec::new());
                Some(Pool { host: host.clone(), config: config.clone(), resource, devices, omitted })
            })
            .collect();
        let mut pools = Pools { pools };
        pools.update(inventory);
        pools
    }

    /// The pools, in the order of the configuration.
    pub fn list(&self) -> &[Pool] {
        &self.pools
    }

    /// False while a device differs from what is said of it, and not for long enough to be believed.
    pub fn is_settled(&self) -> bool {
        self.pools.iter().flat_map(Pool::devices).all(|device| device.tracked.is_settled())
    }

    /// Takes a further scan: follows the health of what is advertised and adds what is new. Each change comes with the
    /// place of its pool in [`list`](Pools::list).
    pub fn update(&mut self, inventory: &Inventory) -> Vec<(usize, Change)> {
        let mut changes = Vec::new();
        for (i, pool) in self.pools.iter_mut().enumerate() {
            changes.extend(pool.follow(inventory).into_iter().map(|change| (i, change)));
        }
        // A device that is advertised stays where it is, whatever selectors say of its present state.
        let mut taken: BTreeSet<PciAddress> = self.pools.iter().flat_map(|pool| pool.devices.keys().copied()).collect();
        let mut groups: BTreeMap<u32, PciAddress> =
            self.pools.iter().flat_map(Pool::devices).map(|device| (device.group, device.address)).collect();
        for (i, pool) in self.pools.iter_mut().enumerate() {
            changes.extend(pool.extend(inventory, &mut taken, &mut groups).into_iter().map(|change| (i, change)));
        }
        changes
    }
}

impl Pool {
    fn follow(&mut self, inventory: &Inventory) -> Vec<Change> {
        let mut changes = Vec::new();
        for device in self.devices.values_mut() {
            let seen = match inspect(&self.host, &self.config, inventory, device.address) {
                Ok(access) => {
                    device.group = access.group;
                    Health::Healthy
                }
                Err(cause) => Health::Unhealthy(cause),
            };
            if device.tracked.observe(seen) {
                changes.push(Change::Health(device.address, device.tracked.health.clone()));
            }
        }
        changes
    }

    /// Adds what is selected and free. Addresses ascend, so a group is represented by its lowest VF.
    fn extend(
        &mut self,
        inventory: &Inventory,
        taken: &mut BTreeSet<PciAddress>,
        groups: &mut BTreeMap<u32, PciAddress>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        self.omitted.clear();
        for (&address, candidate) in &inventory.candidates {
            if taken.contains(&address) || !selects(&self.config, candidate) {
                continue;
            }
            // Even a device that is not fit: an earlier pool has a claim to it.
            taken.insert(address);
            let access = match examine(&self.host, candidate, self.config.allow_no_iommu) {
                Ok(access) => access,
                Err(cause) => {
                    self.omitted.push(Omitted { address, cause });
                    continue;
                }
            };
            if let Some(first) = groups.get(&access.group) {
                let text = format!(
                    "it shares IOMMU group {} with {first}, which is advertised for both: a group belongs to one pod",
                    access.group
                );
                self.omitted.push(Omitted { address, cause: Cause::Represented(text) });
                continue;
            }
            groups.insert(access.group, address);
            self.devices.insert(address, PoolDevice::new(candidate, access));
            changes.push(Change::Added(address));
        }
        changes
    }
}

impl PoolDevice {
    fn new(candidate: &Candidate, access: Access) -> PoolDevice {
        PoolDevice {
            address: candidate.function.address,
            numa_node: candidate.function.numa_node,
            pf: candidate.pf(),
            group: access.group,
            tracked: Tracked::new(),
        }
    }
}

/// The state of a device of a pool, by a scan.
pub(super) fn inspect(
    host: &Host,
    config: &PoolConfig,
    inventory: &Inventory,
    address: PciAddress,
) -> Result<Access, Cause> {
    match (inventory.candidates.get(&address), inventory.broken.get(&address)) {
        (Some(candidate), _) => examine(host, candidate, config.allow_no_iommu),
        (None, Some(error)) => Err(Cause::Unreadable(error.to_string())),
        (None, None) => Err(Cause::Gone),
    }
}
