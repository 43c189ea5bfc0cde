//! Why a device is in a pool, or in none.
//!
//! Owns explanations and what can be said of a configuration on a given host. Both call what makes the pools
//! ([`Selector::check`](super::Selector::check), [`Pools::new`]), so they cannot disagree with it. A near miss (the id of
//! a PF where that of its VFs is meant) is only ever a hint.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use crate::addr::PciAddress;
use crate::host::Host;

use super::config::{Config, Parent, PoolConfig, Problem, Severity};
use super::health::{Cause, Health};
use super::inventory::{Candidate, Inventory};
use super::pool::{Pools, selects};
use super::select::Mismatch;

/// What became of every device in every pool.
#[derive(Debug)]
pub struct Explanation {
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolReport>,
    /// Functions that cannot be read, with the reason.
    pub broken: BTreeMap<PciAddress, String>,
}

/// What became of every device in one pool.
#[derive(Debug)]
pub struct PoolReport {
    /// The resource, or the pool's place where it has no name that can be used.
    pub name: String,
    /// False when the pool has an error and is not served.
    pub usable: bool,
    /// What is wrong with its configuration.
    pub problems: Vec<Problem>,
    /// The devices of its type, by address.
    pub devices: Vec<DeviceReport>,
}

/// What became of one device in one pool.
#[derive(Debug)]
pub struct DeviceReport {
    /// The device.
    pub address: PciAddress,
    /// What it is, such as `8086:1520, VF 3 of ens802f0 (0000:01:00.0), vfio-pci`.
    pub what: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a device in a pool.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It is advertised; kubelet may hand it out.
    Advertised {
        /// Its IOMMU group.
        group: u32,
        /// Its NUMA node.
        numa_node: Option<u32>,
    },
    /// It is selected and cannot be handed out.
    Unfit(Cause),
    /// It is selected by a pool that is not served.
    NotServed,
    /// An earlier pool has it.
    Taken(String),
    /// It is a PF that has VFs.
    PfWithVfs(u32),
    /// No selector selects it: for each, the first filter that it does not pass, with a hint where there is one.
    NotSelected(Vec<(Mismatch, Option<String>)>),
}

/// Explains what the pools of a configuration have on a host, and why.
pub fn explain(config: &Config, host: &Host, inventory: &Inventory) -> Explanation {
    let pools = Pools::new(config, host, inventory);
    // The pool that has a device, or would have it if it were fit.
    let mut owners: BTreeMap<PciAddress, String> = BTreeMap::new();
    for pool in pools.list() {
        let own =
            pool.devices().map(|device| device.address).chain(pool.omitted().iter().map(|omitted| omitted.address));
        owners.extend(own.map(|address| (address, pool.resource().to_string())));
    }
    let mut served = pools.list().iter();
    let report = |config_of_pool: &PoolConfig| {
        let pool = if config_of_pool.usable { served.next() } else { None };
        let outcome = |device: &Candidate| {
            let address = device.function.address;
            if device.is_pf_with_vfs() {
                return Outcome::PfWithVfs(device.function.sriov.map_or(0, |sriov| sriov.num_vfs));
            }
            if !selects(config_of_pool, device) {
                let misses = config_of_pool.selectors.iter().filter_map(|selector| selector.check(device).err());
                return Outcome::NotSelected(
                    misses.map(|miss| (miss.clone(), hint(&miss, device, inventory))).collect(),
                );
            }
            let Some(pool) = pool else { return Outcome::NotServed };
            if let Some(own) = pool.device(address) {
                return match own.health() {
                    Health::Healthy => Outcome::Advertised { group: own.group, numa_node: own.numa_node },
                    Health::Unhealthy(cause) => Outcome::Unfit(cause.clone()),
                };
            }
            match pool.omitted().iter().find(|omitted| omitted.address == address) {
                Some(omitted) => Outcome::Unfit(omitted.cause.clone()),
                None => Outcome::Taken(owners.get(&address).cloned().unwrap_or_default()),
            }
        };
        let of_type = |device: &&Candidate| config_of_pool.device_type.matches(&device.function);
        let devices = inventory.candidates.values().filter(of_type).map(|device| DeviceReport {
            address: device.function.address,
            what: describe(device),
            outcome: outcome(device),
        });
        PoolReport {
            name: name(config_of_pool),
            usable: config_of_pool.usable,
            problems: problems_of(config, &config_of_pool.place),
            devices: devices.collect(),
        }
    };
    Explanation {
        pools: config.pools.iter().map(report).collect(),
        broken: inventory.broken.iter().map(|(address, error)| (*address, error.to_string())).collect(),
    }
}

fn name(pool: &PoolConfig) -> String {
    pool.resource.as_ref().map_or_else(|| pool.place.clone(), |resource| resource.to_string())
}

fn problems_of(config: &Config, place: &str) -> Vec<Problem> {
    let inside = |problem: &&Problem| {
        problem.place.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    config.problems.iter().filter(inside).cloned().collect()
}

/// A device in a few words.
fn describe(device: &Candidate) -> String {
    let function = &device.function;
    let pf = |address: PciAddress| match &device.pf_name {
        Some(name) => format!("{name} ({address})"),
        None => address.to_string(),
    };
    let kind = match (function.vf, function.sriov) {
        (Some(vf), _) => match vf.index {
            Some(index) => format!("VF {index} of {}", pf(vf.pf)),
            None => format!("VF of {}", pf(vf.pf)),
        },
        (None, Some(sriov)) => format!("PF {} with {} of {} VFs", pf(function.address), sriov.num_vfs, sriov.total_vfs),
        (None, None) => "no SR-IOV".to_owned(),
    };
    format!("{}, {kind}, {}", function.id, function.driver.as_deref().unwrap_or("no driver"))
}

/// What was probably meant by a filter that a device does not pass.
fn hint(miss: &Mismatch, device: &Candidate, inventory: &Inventory) -> Option<String> {
    match miss.key {
        "devices" => {
            let pf = inventory.candidates.get(&device.pf()?)?;
            let id = format!("{:04x}", pf.function.id.device);
            let found = miss.found.as_deref()?;
            miss.wanted.contains(&id).then(|| {
                format!("{id} is the id of its PF {}; the VF's own id is {found}: write {found}", pf.function.address)
            })
        }
        "drivers" => match &device.function.driver {
            None => Some("it is bound to no driver; `vfring bind` binds it to vfio-pci".into()),
            Some(_) if miss.wanted.iter().any(|driver| driver == "vfio-pci") => {
                Some("`vfring bind` binds it to vfio-pci".into())
            }
            Some(_) => None,
        },
        "pfNames" if miss.found.is_none() => {
            Some("its PF has no interface here: it is bound to no driver of the kernel, or lies in another network namespace; \
                  rootDevices with the PF's address works without".into())
        }
        _ => None,
    }
}

/// Everything that is wrong with a configuration on a host: what [`Config::problems`] has, and filters that match
/// nothing there, pools that take each other's devices, numbers of VFs that a PF cannot have.
pub fn validate(config: &Config, host: &Host, inventory: &Inventory) -> Vec<Problem> {
    let mut problems = config.problems.clone();
    let mut warn = |place: String, text: String| problems.push(Problem { severity: Severity::Warning, place, text });
    for (i, pool) in config.pools.iter().enumerate() {
        for (place, text) in ids_of_pfs(pool, inventory).into_iter().chain(parents(pool, inventory)) {
            warn(place, text);
        }
        let matched: Vec<&Candidate> = inventory.candidates.values().filter(|device| selects(pool, device)).collect();
        if matched.is_empty() {
            let text = "its selectors match no device of this host; `vfring device-plugin explain` says why".to_owned();
            warn(pool.place.clone(), text);
        }
        for earlier in config.pools[..i].iter().filter(|earlier| earlier.usable) {
            let shared: Vec<String> = matched
                .iter()
                .filter(|device| selects(earlier, device))
                .map(|device| device.function.address.to_string())
                .collect();
            if !shared.is_empty() {
                let text = format!("overlaps with {}, which has first choice: {}", name(earlier), shared.join(", "));
                warn(pool.place.clone(), text);
            }
        }
    }
    for pool in Pools::new(config, host, inventory).list() {
        for omitted in pool.omitted() {
            warn(pool.config().place.clone(), format!("{} is not advertised: {}", omitted.address, omitted.cause));
        }
    }
    problems
}

/// Ids of PFs in `devices`: a PF with VFs is never handed out, and its VFs have another id.
fn ids_of_pfs(pool: &PoolConfig, inventory: &Inventory) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (s, selector) in pool.selectors.iter().enumerate() {
        for (d, id) in selector.devices.iter().enumerate() {
            let is_meant = |device: &&Candidate| {
                device.function.sriov.is_some() && format!("{:04x}", device.function.id.device) == *id
            };
            let Some(pf) = inventory.candidates.values().find(is_meant) else { continue };
            let address = pf.function.address;
            let of_vf = inventory.candidates.values().find(|device| device.pf() == Some(address));
            let vf_id = of_vf.map(|vf| vf.function.id.device).or(pf.function.sriov.and_then(|sriov| sriov.vf_device));
            let cure = match vf_id {
                Some(vf) if selector.devices.contains(&format!("{vf:04x}")) => {
                    "which is listed too: remove this one".into()
                }
                Some(vf) => format!("write {vf:04x}, the id of its VFs"),
                None => "write the id of its VFs".into(),
            };
            let text = format!("{id} is the id of a PF ({address}), and PFs with VFs are never handed out; {cure}");
            found.push((format!("{}.devices[{d}]", selector_place(pool, s)), text));
        }
    }
    found
}

/// PFs that are not there, and numbers of VFs that a PF cannot have.
fn parents(pool: &PoolConfig, inventory: &Inventory) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut check = |place: String, parent: &Parent, pf: Option<&Candidate>, names: Vec<String>| {
        let Some(pf) = pf else {
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return found.push((place, format!("'{}' is no PF of this host; there are: {there}", parent.name)));
        };
        let total = pf.function.sriov.map_or(0, |sriov| sriov.total_vfs);
        if let Some(range) = parent.vfs.iter().flatten().find(|range| *range.end() >= total) {
            let text = format!("VF {} is out of range: {} has at most {total}, from 0", range.end(), parent.name);
            found.push((place, text));
        }
    };
    let pfs: Vec<&Candidate> = inventory.candidates.values().filter(|device| device.function.sriov.is_some()).collect();
    for (s, selector) in pool.selectors.iter().enumerate() {
        let at = selector_place(pool, s);
        for (i, parent) in selector.pf_names.iter().enumerate() {
            let has =
                |pf: &&&Candidate| pf.pf_name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(&parent.name));
            let names = pfs.iter().filter_map(|pf| pf.pf_name.clone()).collect();
            check(format!("{at}.pfNames[{i}]"), parent, pfs.iter().find(has).copied(), names);
        }
        for (i, parent) in selector.root_devices.iter().enumerate() {
            let has = |pf: &&&Candidate| pf.function.address.to_string() == parent.name;
            let names = pfs.iter().map(|pf| pf.function.address.to_string()).collect();
            check(format!("{at}.rootDevices[{i}]"), parent, pfs.iter().find(has).copied(), names);
        }
    }
    found
}

fn selector_place(pool: &PoolConfig, selector: usize) -> String {
    match pool.selectors.len() {
        1 => format!("{}.selectors", pool.place),
        _ => format!("{}.selectors[{selector}]", pool.place),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for pool in &self.pools {
            let advertised =
                pool.devices.iter().filter(|device| matches!(device.outcome, Outcome::Advertised { .. })).count();
            let state = if pool.usable { "" } else { ", NOT SERVED: its configuration has an error" };
            let plural = if advertised == 1 { "device" } else { "devices" };
            writeln!(f, "{}: {advertised} {plural}{state}", pool.name)?;
            for problem in &pool.problems {
                writeln!(f, "  {problem}")?;
            }
            for device in &pool.devices {
                writeln!(f, "  {} ({}): {}", device.address, device.what, device.outcome)?;
            }
        }
        for (address, error) in &self.broken {
            writeln!(f, "{address} cannot be read: {error}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Advertised { group, numa_node: Some(node) } => {
                write!(f, "advertised, IOMMU group {group}, NUMA node {node}")
            }
            Outcome::Advertised { group, numa_node: None } => write!(f, "advertised, IOMMU group {group}"),
            Outcome::Unfit(cause) => write!(f, "selected, not advertised: {cause}"),
            Outcome::NotServed => f.write_str("selected, not advertised: the pool is not served"),
            Outcome::Taken(owner) => write!(f, "selected, not advertised: {owner} comes first and has it"),
            Outcome::PfWithVfs(vfs) => write!(f, "never handed out: a PF with {vfs} VFs"),
            Outcome::NotSelected(misses) if misses.is_empty() => f.write_str("not selected: the pool has no selector"),
            Outcome::NotSelected(misses) => {
                f.write_str("not selected: ")?;
                for (i, (miss, hint)) in misses.iter().enumerate() {
                    write!(f, "{}{miss}", if i == 0 { "" } else { "; or " })?;
                    if let Some(hint) = hint {
                        write!(f, " ({hint})")?;
                    }
                }
                Ok(())
            }
        }
    }
}
