//! What a pod gets: device nodes and environment, or a refusal.
//!
//! Owns the answers to kubelet's Allocate and PreStartContainer. What always holds: the state of every device is read
//! again here, an answer covers all devices asked for or none, and a refusal names the device and the cause. Nothing is
//! opened: a group that is opened here could make the pod's own opening fail.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use crate::addr::PciAddress;
use crate::error::{Error, Result};

use super::health::Access;
use super::inventory::Inventory;
use super::json;
use super::pool::{Pool, inspect};

/// The container device of VFIO, which every pod needs besides its groups.
const CONTAINER_NODE: &str = "/dev/vfio/vfio";

/// What one container gets. There are no mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerAllocation {
    /// The nodes, `/dev/vfio/vfio` first, each once.
    pub devices: Vec<DeviceNode>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// The IOMMU group of each device: what [`pre_start`] compares with later.
    pub groups: BTreeMap<PciAddress, u32>,
}

/// A device node for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its path on the host.
    pub host_path: String,
    /// Its path in the container.
    pub container_path: String,
    /// What the container may do with it: `rw`.
    pub permissions: &'static str,
}

impl DeviceNode {
    fn new(host_path: String, container_path: String) -> DeviceNode {
        DeviceNode { host_path, container_path, permissions: "rw" }
    }
}

/// Answers kubelet's Allocate: gives the devices `ids` of a pool to a container.
///
/// # Errors
/// [`Error::Config`] when an id was not advertised by this pool, or none is given; [`Error::Device`] when a device
/// cannot be used at this moment, with the cause.
pub fn allocate<S: AsRef<str>>(pool: &Pool, ids: &[S]) -> Result<ContainerAllocation> {
    let fit = check(pool, ids)?;
    let mut devices = vec![DeviceNode::new(CONTAINER_NODE.into(), CONTAINER_NODE.into())];
    for access in fit.values() {
        let node = DeviceNode::new(format!("/dev/vfio/{}", access.host_node()), container_node(*access));
        if devices.iter().all(|known| known.host_path != node.host_path) {
            devices.push(node);
        }
    }
    // Multus gives sorted ids to its networks by index, and sorts them as text.
    let by_id: BTreeMap<String, Access> = fit.iter().map(|(address, access)| (address.to_string(), *access)).collect();
    let info = json::object(by_id.iter().map(|(id, access)| (id, info(pool, id, *access))));
    let list = by_id.into_keys().collect::<Vec<_>>().join(",");
    let variable = pool.resource().variable();
    Ok(ContainerAllocation {
        devices,
        variables: BTreeMap::from([(format!("{variable}_INFO"), info), (variable, list)]),
        groups: fit.iter().map(|(address, access)| (*address, access.group)).collect(),
    })
}

/// Answers kubelet's PreStartContainer: that the devices are still what the container was told when they were allocated.
///
/// Kubelet gives a container that starts again the answer of its first Allocate, over restarts of kubelet and of the
/// machine; groups may have other numbers since. `told` is [`ContainerAllocation::groups`] of that answer, where the
/// caller still has it.
///
/// # Errors
/// As [`allocate`], and [`Error::Device`] when a group has another number than `told`.
pub fn pre_start<S: AsRef<str>>(pool: &Pool, ids: &[S], told: &BTreeMap<PciAddress, u32>) -> Result<()> {
    for (address, access) in check(pool, ids)? {
        if let Some(&group) = told.get(&address)
            && group != access.group
        {
            return Err(Error::device(
                address,
                format!(
                    "the container was given /dev/vfio/{group}, and the device is in IOMMU group {} now (the machine was \
                     restarted, or its VFs were made anew); delete the pod, so that it is given its devices anew",
                    access.group
                ),
            ));
        }
    }
    Ok(())
}

/// All devices of a request, each advertised and fit at this moment.
fn check<S: AsRef<str>>(pool: &Pool, ids: &[S]) -> Result<BTreeMap<PciAddress, Access>> {
    let resource = pool.resource();
    if ids.is_empty() {
        return Err(Error::Config(format!("{resource}: no device is asked for")));
    }
    let mut addresses = BTreeSet::new();
    for id in ids {
        let id = id.as_ref();
        // An id is the address as it was advertised, letter by letter.
        let address = id.parse().ok().filter(|address: &PciAddress| address.to_string() == id);
        match address.filter(|&address| pool.device(address).is_some()) {
            Some(address) => drop(addresses.insert(address)),
            None => {
                return Err(Error::Config(format!("{resource}: '{id}' was never advertised; {}", advertised(pool))));
            }
        }
    }
    let inventory = Inventory::read(&pool.host, addresses.iter().copied());
    let examine = |address| match inspect(&pool.host, &pool.config, &inventory, address) {
        Ok(access) => Ok((address, access)),
        Err(cause) => Err(Error::device(address, format!("cannot be given to a pod: {cause}"))),
    };
    addresses.into_iter().map(examine).collect()
}

fn advertised(pool: &Pool) -> String {
    let list: Vec<String> = pool.devices().map(|device| device.address.to_string()).collect();
    match list.is_empty() {
        true => "this resource has no devices".into(),
        false => format!("this resource has {}", list.join(", ")),
    }
}

/// Without an IOMMU the container sees the group's node under the name that it would have with one.
fn container_node(access: Access) -> String {
    format!("/dev/vfio/{}", access.group)
}

/// What `_INFO` says of one device: the keys in order are extra, generic, vfio.
fn info(pool: &Pool, address: &str, access: Access) -> String {
    let generic = json::object([("deviceID", json::string(address))]);
    let vfio =
        json::object([("dev-mount", json::string(&container_node(access))), ("mount", json::string(CONTAINER_NODE))]);
    let mut parts = vec![("generic", generic), ("vfio", vfio)];
    if let Some(info) = &pool.config.additional_info {
        let mut extra: BTreeMap<&str, &str> = BTreeMap::new();
        for entries in ["*", address].iter().filter_map(|key| info.get(*key)) {
            extra.extend(entries.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        }
        parts.insert(0, ("extra", json::object(extra.into_iter().map(|(key, value)| (key, json::string(value))))));
    }
    json::object(parts)
}
