//! Which IOMMU group each device had when it was handed out.
//!
//! Owns the file with that, in kubelet's directory of device plugins, where kubelet removes sockets only. Kubelet gives
//! containers the answer of the first Allocate over restarts of the machine, so what was in it must outlive this process
//! too: PreStartContainer compares.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use serde_json::{Map, Value};
use vfring::PciAddress;
use vfring::plugin::Resource;

/// The file's name.
const NAME: &str = "vfring-allocations.json";

/// The record.
pub(super) struct Record {
    path: PathBuf,
    /// By resource.
    groups: BTreeMap<String, BTreeMap<PciAddress, u32>>,
}

impl Record {
    /// Reads what an earlier run wrote. What cannot be read is an empty record, and the reason.
    pub(super) fn open(directory: &std::path::Path) -> (Record, Option<String>) {
        let path = directory.join(NAME);
        let (groups, trouble) = match fs::read_to_string(&path) {
            Ok(text) => match parse(&text) {
                Some(groups) => (groups, None),
                None => (BTreeMap::new(), Some("it is not what this plugin writes".to_owned())),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => (BTreeMap::new(), None),
            Err(error) => (BTreeMap::new(), Some(error.to_string())),
        };
        let trouble = trouble.map(|why| {
            format!("{}: {why}; groups that changed since they were handed out go unnoticed", path.display())
        });
        (Record { path, groups }, trouble)
    }

    /// What was handed out of a resource.
    pub(super) fn of(&self, resource: &Resource) -> BTreeMap<PciAddress, u32> {
        self.groups.get(&resource.to_string()).cloned().unwrap_or_default()
    }

    /// Notes what is handed out.
    pub(super) fn note(&mut self, resource: &Resource, groups: &BTreeMap<PciAddress, u32>) -> io::Result<()> {
        let known = self.groups.entry(resource.to_string()).or_default();
        if groups.iter().all(|(address, group)| known.get(address) == Some(group)) {
            return Ok(());
        }
        known.extend(groups);
        let devices = |devices: &BTreeMap<PciAddress, u32>| -> Map<String, Value> {
            devices.iter().map(|(address, group)| (address.to_string(), Value::from(*group))).collect()
        };
        let all: Map<String, Value> =
            self.groups.iter().map(|(name, list)| (name.clone(), Value::from(devices(list)))).collect();
        let new = self.path.with_extension("new");
        fs::write(&new, format!("{}\n", Value::from(all)))?;
        fs::rename(&new, &self.path)
    }
}

fn parse(text: &str) -> Option<BTreeMap<String, BTreeMap<PciAddress, u32>>> {
    let value: Value = serde_json::from_str(text).ok()?;
    let device = |(address, group): (&String, &Value)| -> Option<(PciAddress, u32)> {
        Some((address.parse().ok()?, group.as_u64()?.try_into().ok()?))
    };
    let resources = value.as_object()?.iter();
    resources
        .map(|(name, list)| Some((name.clone(), list.as_object()?.iter().map(device).collect::<Option<_>>()?)))
        .collect()
}
