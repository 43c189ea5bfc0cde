//! What a Kubernetes device plugin decides: which VFs a pool has, whether they are fit, what a pod gets.
//!
//! Pure functions on the configuration of sriov-network-device-plugin and on a sysfs tree; no gRPC, no thread, no
//! clock. The tools of this crate call it, and so may a plugin of another make:
//!
//! 1. [`Config::parse`] reads the configuration; what is wrong with it is in [`Config::problems`].
//! 2. [`Inventory::scan`] reads the devices of a [`Host`](crate::host::Host).
//! 3. [`Pools::new`] selects the devices of each pool; [`Pools::update`] after every further scan follows their health.
//!    A [`Glance`] says, at a small part of the price, whether a scan would find something else than the last.
//! 4. [`allocate`] answers kubelet's Allocate, [`pre_start`] its PreStartContainer, [`preferred`] its
//!    GetPreferredAllocation.
//! 5. [`explain()`] and [`validate`] tell a person why a device is where it is.
//!
//! What always holds:
//!
//! * A device belongs to one pool, and so does an IOMMU group: a group of several VFs is one device, its lowest VF.
//! * Nothing is handed out that was not advertised, and nothing half: the state of every device is read again at the
//!   moment when it is handed out.
//! * Addresses from a configuration are compared and never made part of a path.

mod allocate;
mod config;
mod explain;
mod glance;
mod health;
mod inventory;
mod json;
mod lint;
mod pool;
mod preferred;
mod resource;
mod select;
#[cfg(test)]
mod tests;

pub use allocate::{ContainerAllocation, DeviceNode, allocate, pre_start};
pub use config::{Config, DeviceType, Parent, PoolConfig, Preference, Problem, Selector, Severity};
pub use explain::{DeviceReport, Explanation, Outcome, PoolReport, explain, validate};
pub use glance::Glance;
pub use health::{Cause, Health};
pub use inventory::{Candidate, Inventory};
pub use pool::{Change, Omitted, Pool, PoolDevice, Pools};
pub use preferred::preferred;
pub use resource::{DEFAULT_PREFIX, DeviceInfoFile, Resource};
pub use select::Mismatch;
