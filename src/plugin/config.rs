//! The configuration: which resources there are, and which devices each selects.
//!
//! Owns reading the `config.json` of sriov-network-device-plugin, which this plugin takes unchanged. What always holds:
//! what is wrong with a pool is a [`Problem`] that names its place, and never hides another problem; a pool with an error
//! is read as far as it goes, so that it can be explained, and is not [`usable`](PoolConfig::usable), because a filter
//! that was not understood selects more than was meant.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Error, OneLine, Result};

use super::lint;
use super::resource::{DEFAULT_PREFIX, Resource};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pools in the order written, which is the order in which they take devices.
    pub pools: Vec<PoolConfig>,
    /// What is wrong with the text, pool by pool.
    pub problems: Vec<Problem>,
}

/// Something that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where it is, such as `resourceList[0].selectors[1].pfNames`.
    pub place: String,
    /// What is wrong, and what mends it.
    pub text: String,
}

/// How bad a problem is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, and probably not as meant.
    Warning,
    /// The pool is not served.
    Error,
}

/// One pool: a resource and the devices that it selects.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// Its place in the text, such as `resourceList[0]`.
    pub place: String,
    /// Its name; none when the text has none that can be used.
    pub resource: Option<Resource>,
    /// What kind of device it holds.
    pub device_type: DeviceType,
    /// Kubelet is not told the NUMA nodes.
    pub exclude_topology: bool,
    /// A device belongs to the pool when one of these matches.
    pub selectors: Vec<Selector>,
    /// What `_INFO` says besides, by PCI address, or `*` for all; none where the text does not have it.
    pub additional_info: Option<BTreeMap<String, BTreeMap<String, String>>>,
    /// Devices without an IOMMU may be handed out: their pod can reach all memory of the host.
    pub allow_no_iommu: bool,
    /// Which devices kubelet is advised to take together.
    pub preference: Preference,
    /// False when the pool has an error and must not be served.
    pub usable: bool,
}

/// What kind of device a pool holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceType {
    /// Network controllers, PCI class 02.
    #[default]
    NetDevice,
    /// Processing accelerators, PCI class 12.
    Accelerator,
}

/// Which devices kubelet is advised to take together, among those of one NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Preference {
    /// From as many PFs as possible: more bandwidth, and a failed port takes fewer.
    #[default]
    Spread,
    /// From as few PFs as possible, so that others stay whole.
    Pack,
}

/// What a device must have to be selected. An empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Vendor ids as sysfs prints them, without `0x`.
    pub vendors: Vec<String>,
    /// Device ids, the same.
    pub devices: Vec<String>,
    /// Drivers.
    pub drivers: Vec<String>,
    /// PCI addresses.
    pub pci_addresses: Vec<String>,
    /// ACPI indexes.
    pub acpi_indexes: Vec<String>,
    /// Interfaces of PFs, with numbers of VFs.
    pub pf_names: Vec<Parent>,
    /// PCI addresses of PFs, with numbers of VFs.
    pub root_devices: Vec<Parent>,
    /// Types of link: `ether`.
    pub link_types: Vec<String>,
}

/// An entry of `pfNames` or `rootDevices`: `ens785f0#0-3,5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The interface or the address of the PF.
    pub name: String,
    /// The numbers of VFs; none for all.
    pub vfs: Option<Vec<RangeInclusive<u32>>>,
}

impl Parent {
    /// Whether it has the VF number `index`; a function that is no VF has no number.
    pub fn has(&self, index: Option<u32>) -> bool {
        match (&self.vfs, index) {
            (None, _) => true,
            (Some(ranges), Some(index)) => ranges.iter().any(|range| range.contains(&index)),
            (Some(_), None) => false,
        }
    }

    fn parse(text: &str) -> std::result::Result<Parent, String> {
        let Some((name, list)) = text.split_once('#') else {
            return Ok(Parent { name: text.to_owned(), vfs: None });
        };
        let bad = |why: &str| format!("'{text}': {why}; expected NAME#LIST with numbers from 0, like ens785f0#0-3,5");
        let number = |part: &str| part.trim().parse::<u32>().map_err(|_| bad(&format!("'{part}' is no number")));
        let mut ranges = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(bad(&format!("{first}-{last} is empty")));
            }
            ranges.push(first..=last);
        }
        Ok(Parent { name: name.to_owned(), vfs: Some(ranges) })
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for (i, range) in self.vfs.iter().flatten().enumerate() {
            write!(f, "{}{}", if i == 0 { '#' } else { ',' }, range.start())?;
            if range.start() != range.end() {
                write!(f, "-{}", range.end())?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names of keys and values are quoted as the text has them, line ends and all.
        write!(OneLine(f), "{}: {}: {}", self.severity, self.place, self.text)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

impl Config {
    /// Reads a configuration; resources that name no prefix get `prefix`, or [`DEFAULT_PREFIX`].
    ///
    /// # Errors
    /// [`Error::Parse`] when the text is no JSON, with line and column, or no object with a `resourceList`. Anything
    /// less is in [`problems`](Config::problems).
    pub fn parse(text: &str, prefix: Option<&str>) -> Result<Config> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let looks_like_yaml = text.lines().any(|line| line.starts_with("apiVersion:") || line.starts_with("kind:"));
            let hint = match looks_like_yaml {
                true => "; this looks like the YAML of a ConfigMap: give the JSON below its `config.json: |`",
                false => "",
            };
            Error::Parse(format!("the configuration is no JSON: {error}{hint}"))
        })?;
        let Value::Object(top) = &value else {
            return Err(Error::Parse("the configuration is no JSON object; expected {\"resourceList\": [...]}".into()));
        };
        let mut reader = Reader { problems: Vec::new() };
        let fields = reader.fields("", top, &["resourceList"]);
        let Some(Value::Array(list)) = fields.get("resourceList") else {
            let found: Vec<&str> = top.keys().map(String::as_str).collect();
            return Err(Error::Parse(format!(
                "the configuration has no list 'resourceList', only: {}",
                if found.is_empty() { "nothing".into() } else { found.join(", ") }
            )));
        };
        let prefix = prefix.unwrap_or(DEFAULT_PREFIX);
        let mut pools: Vec<PoolConfig> = Vec::new();
        for (i, value) in list.iter().enumerate() {
            let errors_before = reader.errors();
            let mut pool = reader.pool(format!("resourceList[{i}]"), value, prefix);
            let same = |other: &&PoolConfig| pool.resource.is_some() && other.resource == pool.resource;
            if let Some(first) = pools.iter().find(same) {
                let text = format!("has the name of {}; give each pool a name of its own", first.place);
                reader.error(&pool.place, "resourceName", text);
            }
            pool.usable = reader.errors() == errors_before;
            pools.push(pool);
        }
        Ok(Config { pools, problems: reader.problems })
    }
}

/// What a JSON value is, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The values of an object by the names that the reader knows.
type Fields<'a> = BTreeMap<&'static str, &'a Value>;

const POOL_KEYS: &[&str] = &[
    "resourceName",
    "resourcePrefix",
    "deviceType",
    "excludeTopology",
    "selectors",
    "additionalInfo",
    // What the SR-IOV network operator writes, always null.
    "SelectorObj",
    "SelectorObjs",
    // Ours.
    "allowNoIommu",
    "preferredAllocation",
];

const SELECTOR_KEYS: &[&str] = &[
    "vendors",
    "devices",
    "drivers",
    "pciAddresses",
    "acpiIndexes",
    "pfNames",
    "rootDevices",
    "linkTypes",
    "ddpProfiles",
    "pKeys",
    "isRdma",
    "vdpaType",
    "needVhostNet",
];

struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, severity: Severity, place: &str, key: &str, text: String) {
        let dot = if place.is_empty() || key.is_empty() { "" } else { "." };
        self.problems.push(Problem { severity, place: format!("{place}{dot}{key}"), text });
    }

    fn error(&mut self, place: &str, key: &str, text: String) {
        self.problem(Severity::Error, place, key, text);
    }

    fn warning(&mut self, place: &str, key: &str, text: String) {
        self.problem(Severity::Warning, place, key, text);
    }

    fn errors(&self) -> usize {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    fn wrong_kind(&mut self, place: &str, key: &str, value: &Value, expected: &str) {
        self.error(place, key, format!("is {}; expected {expected}", kind(value)));
    }

    /// Keys match whatever their letter case, as in Go. A null counts as absent.
    fn fields<'a>(&mut self, place: &str, object: &'a Map<String, Value>, known: &[&'static str]) -> Fields<'a> {
        let mut fields = Fields::new();
        for (key, value) in object {
            match known.iter().find(|name| name.eq_ignore_ascii_case(key)) {
                Some(_) if value.is_null() => {}
                Some(name) => {
                    if fields.insert(name, value).is_some() {
                        self.error(place, key, "stands here twice, in different letter case; keep one".into());
                    }
                }
                None => {
                    let text = match lint::nearest(key, known) {
                        Some(name) => format!("there is no key '{key}'; '{name}' is probably meant"),
                        None => format!("there is no key '{key}'; there are {}", known.join(", ")),
                    };
                    self.error(place, key, text);
                }
            }
        }
        fields
    }

    fn text<'a>(&mut self, place: &str, fields: &Fields<'a>, key: &'static str) -> Option<&'a str> {
        let value = *fields.get(key)?;
        if value.as_str().is_none() {
            self.wrong_kind(place, key, value, "a string");
        }
        value.as_str()
    }

    fn flag(&mut self, place: &str, fields: &Fields<'_>, key: &'static str) -> bool {
        let Some(value) = fields.get(key) else { return false };
        if !value.is_boolean() {
            self.wrong_kind(place, key, value, "true or false");
        }
        value.as_bool().unwrap_or(false)
    }

    fn strings(&mut self, place: &str, fields: &Fields<'_>, key: &'static str) -> Vec<String> {
        let Some(value) = fields.get(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.wrong_kind(place, key, value, "a list of strings, like [\"…\"]");
            return Vec::new();
        };
        let mut list = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match item {
                Value::String(text) => list.push(text.clone()),
                other => self.wrong_kind(place, &format!("{key}[{i}]"), other, "a string"),
            }
        }
        list
    }

    fn pool(&mut self, place: String, value: &Value, prefix: &str) -> PoolConfig {
        let mut pool = PoolConfig {
            place,
            resource: None,
            device_type: DeviceType::default(),
            exclude_topology: false,
            selectors: Vec::new(),
            additional_info: None,
            allow_no_iommu: false,
            preference: Preference::default(),
            usable: false,
        };
        let at = pool.place.clone();
        let Value::Object(object) = value else {
            self.wrong_kind(&at, "", value, "an object");
            return pool;
        };
        let fields = self.fields(&at, object, POOL_KEYS);
        let prefix = self.text(&at, &fields, "resourcePrefix").filter(|own| !own.is_empty()).unwrap_or(prefix);
        match self.text(&at, &fields, "resourceName").map(|name| Resource::new(prefix, name)) {
            Some(Ok(resource)) => pool.resource = Some(resource),
            Some(Err(error)) => self.error(&at, "resourceName", error.to_string()),
            None => self.error(&at, "resourceName", "is missing".into()),
        }
        match self.text(&at, &fields, "deviceType") {
            None | Some("" | "netDevice") => {}
            Some("accelerator") => pool.device_type = DeviceType::Accelerator,
            Some("auxNetDevice") => {
                let text = "auxNetDevice hands out sub-functions, which have no VFIO group; use netDevice with VFs";
                self.error(&at, "deviceType", text.into());
            }
            Some(other) => {
                let known = ["netDevice", "accelerator"];
                let name = lint::nearest(other, &known).unwrap_or("netDevice or accelerator");
                self.error(&at, "deviceType", format!("'{other}' is no type of device; write {name}"));
            }
        }
        match self.text(&at, &fields, "preferredAllocation") {
            None | Some("spread") => {}
            Some("pack") => pool.preference = Preference::Pack,
            Some(other) => self.error(&at, "preferredAllocation", format!("'{other}' is neither spread nor pack")),
        }
        pool.exclude_topology = self.flag(&at, &fields, "excludeTopology");
        pool.allow_no_iommu = self.flag(&at, &fields, "allowNoIommu");
        if pool.allow_no_iommu {
            let text = "a pod with a device that has no IOMMU can read and write all memory of the host";
            self.warning(&at, "allowNoIommu", text.into());
        }
        pool.additional_info = fields.get("additionalInfo").map(|value| self.additional_info(&at, value));
        pool.selectors = match fields.get("selectors") {
            // Absent means everything.
            None => vec![Selector::default()],
            Some(value @ Value::Object(_)) => vec![self.selector(&format!("{at}.selectors"), value)],
            Some(Value::Array(list)) => {
                if list.is_empty() {
                    self.warning(&at, "selectors", "is an empty list, which selects nothing; {} selects all".into());
                }
                let place = |i: usize| format!("{at}.selectors[{i}]");
                list.iter().enumerate().map(|(i, value)| self.selector(&place(i), value)).collect()
            }
            Some(other) => {
                self.wrong_kind(&at, "selectors", other, "an object, or a list of them");
                Vec::new()
            }
        };
        pool
    }

    fn additional_info(&mut self, at: &str, value: &Value) -> BTreeMap<String, BTreeMap<String, String>> {
        let mut info = BTreeMap::new();
        let Value::Object(devices) = value else {
            self.wrong_kind(at, "additionalInfo", value, "an object of objects, like {\"*\": {\"key\": \"value\"}}");
            return info;
        };
        for (device, entries) in devices {
            let key = format!("additionalInfo.{device}");
            if device != "*"
                && let Some(text) = lint::address(device)
            {
                self.warning(at, &key, text);
            }
            let Value::Object(entries) = entries else {
                self.wrong_kind(at, &key, entries, "an object of strings");
                continue;
            };
            let mut own = BTreeMap::new();
            for (name, entry) in entries {
                match entry {
                    Value::String(text) => drop(own.insert(name.clone(), text.clone())),
                    other => self.wrong_kind(at, &format!("{key}.{name}"), other, "a string"),
                }
            }
            info.insert(device.clone(), own);
        }
        info
    }

    fn selector(&mut self, at: &str, value: &Value) -> Selector {
        let Value::Object(object) = value else {
            self.wrong_kind(at, "", value, "an object");
            return Selector::default();
        };
        let fields = self.fields(at, object, SELECTOR_KEYS);
        let selector = Selector {
            vendors: self.linted(at, &fields, "vendors", lint::id),
            devices: self.linted(at, &fields, "devices", lint::id),
            drivers: self.strings(at, &fields, "drivers"),
            pci_addresses: self.linted(at, &fields, "pciAddresses", lint::address),
            acpi_indexes: self.strings(at, &fields, "acpiIndexes"),
            pf_names: self.parents(at, &fields, "pfNames"),
            root_devices: self.parents(at, &fields, "rootDevices"),
            link_types: self.strings(at, &fields, "linkTypes"),
        };
        for (i, parent) in selector.root_devices.iter().enumerate() {
            if let Some(text) = lint::address(&parent.name) {
                self.warning(at, &format!("rootDevices[{i}]"), text);
            }
        }
        // What concerns interfaces of the kernel, which a device on vfio-pci does not have: never ignored.
        for (key, why) in [
            ("ddpProfiles", "the DDP profile is asked from the interface of a VF"),
            ("pKeys", "partition keys are InfiniBand's"),
        ] {
            if !self.strings(at, &fields, key).is_empty() {
                self.error(at, key, format!("cannot be selected by in a pool of vfio-pci devices ({why}); remove it"));
            }
        }
        for (key, why) in [
            ("isRdma", "RDMA needs the kernel's driver on the VF"),
            ("needVhostNet", "vhost-net belongs to interfaces of the kernel"),
        ] {
            if self.flag(at, &fields, key) {
                self.error(at, key, format!("cannot be had in a pool of vfio-pci devices ({why}); set it to false"));
            }
        }
        if self.text(at, &fields, "vdpaType").is_some_and(|text| !text.is_empty()) {
            let text =
                "cannot be had in a pool of vfio-pci devices (vDPA needs the kernel's driver on the VF); remove it";
            self.error(at, "vdpaType", text.into());
        }
        selector
    }

    /// Strings that warn where they can never be equal to what sysfs prints.
    fn linted(
        &mut self,
        at: &str,
        fields: &Fields<'_>,
        key: &'static str,
        lint: fn(&str) -> Option<String>,
    ) -> Vec<String> {
        let list = self.strings(at, fields, key);
        for (i, entry) in list.iter().enumerate() {
            if let Some(text) = lint(entry) {
                self.warning(at, &format!("{key}[{i}]"), text);
            }
        }
        list
    }

    fn parents(&mut self, at: &str, fields: &Fields<'_>, key: &'static str) -> Vec<Parent> {
        let mut list = Vec::new();
        for (i, text) in self.strings(at, fields, key).iter().enumerate() {
            match Parent::parse(text) {
                Ok(parent) => list.push(parent),
                Err(text) => self.error(at, &format!("{key}[{i}]"), text),
            }
        }
        list
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
