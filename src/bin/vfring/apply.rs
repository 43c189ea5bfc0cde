//! `vfring apply FILE`: a host as a file describes it, at boot before kubelet starts.
#![forbid(unsafe_code)]

use std::fs;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use toml::{Table, Value};
use vfring::{Error, PciAddress, Result};

use crate::prepare::{self, PfPlan, Tools};
use crate::settings::{self, Numbers};

const AFTER: &str = r#"The file is TOML:

  [[pf]]
  name = "ens802f0"        # the interface or the PCI address
  vfs = 8
  driver = "vfio-pci"      # of all its VFs; left as it is without

  [[pf.vf]]
  list = "0-3,5"           # all without
  vlan = 100               # also: mac, qos, spoofchk, trust, link, rate
  trust = true

  [[device]]
  address = "0000:81:00.0"
  driver = "vfio-pci"

What is so already is left alone: it can be applied again at any time."#;

pub(crate) fn command() -> Command {
    prepare::with_options(Command::new("apply"))
        .about("Make VFs and bind them as a file says")
        .after_long_help(AFTER)
        .arg(Arg::new("file").value_name("FILE").required(true))
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let path = matches.get_one::<String>("file").map_or("", String::as_str);
    let text = fs::read_to_string(path).map_err(|error| Error::os(format!("reading {path}"), error))?;
    let (pfs, devices) = parse(&text).map_err(|error| Error::Parse(format!("{path}: {error}")))?;
    let mut tools = Tools::new(matches);
    for plan in &pfs {
        tools.prepare(plan)?;
    }
    for (address, driver) in devices {
        tools.bind(address, &driver)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What the file wants of PFs, and of single devices.
type Wishes = (Vec<PfPlan>, Vec<(PciAddress, String)>);

fn parse(text: &str) -> Result<Wishes> {
    let table: Table =
        text.parse().map_err(|error: toml::de::Error| Error::Parse(error.to_string().trim().to_owned()))?;
    known(&table, "the file", &["pf", "device"])?;
    let pfs = tables(&table, "pf")?.into_iter().enumerate().map(|(i, pf)| plan(pf, &format!("pf {}", i + 1)));
    let devices = tables(&table, "device")?.into_iter().enumerate().map(|(i, device)| {
        let place = format!("device {}", i + 1);
        known(device, &place, &["address", "driver"])?;
        Ok((
            required(device, &place, "address")?.parse()?,
            text_of(device, &place, "driver")?.unwrap_or("vfio-pci".into()),
        ))
    });
    Ok((pfs.collect::<Result<_>>()?, devices.collect::<Result<_>>()?))
}

fn plan(pf: &Table, place: &str) -> Result<PfPlan> {
    known(pf, place, &["name", "vfs", "driver", "vf"])?;
    let vfs = required(pf, place, "vfs")?;
    let vfs = vfs.parse().map_err(|_| Error::Parse(format!("{place}: vfs is '{vfs}', which is no number of VFs")))?;
    let mut list = Vec::new();
    for (i, vf) in tables(pf, "vf")?.into_iter().enumerate() {
        let place = format!("{place}, vf {}", i + 1);
        known(vf, &place, &["list", "mac", "vlan", "qos", "spoofchk", "trust", "link", "rate"])?;
        let numbers = text_of(vf, &place, "list")?;
        let numbers = numbers.map_or_else(|| Ok(Numbers::all(vfs)), |text| Numbers::parse(&text))?;
        let mut texts = Table::new();
        for name in vf.keys() {
            texts.insert(name.clone(), Value::String(text_of(vf, &place, name)?.unwrap_or_default()));
        }
        let settings = settings::parse(|name| texts.get(name).and_then(Value::as_str));
        list.push((numbers, settings.map_err(|error| Error::Parse(format!("{place}: {error}")))?));
    }
    Ok(PfPlan { pf: required(pf, place, "name")?, vfs, driver: text_of(pf, place, "driver")?, settings: list })
}

fn known(table: &Table, place: &str, keys: &[&str]) -> Result<()> {
    match table.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(Error::Parse(format!("{place} has '{key}'; there are {}", keys.join(", ")))),
    }
}

fn tables<'a>(table: &'a Table, key: &str) -> Result<Vec<&'a Table>> {
    let bad = || Error::Parse(format!("'{key}' is no list of tables; write [[{key}]]"));
    match table.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(|item| item.as_table().ok_or_else(bad)).collect(),
        Some(_) => Err(bad()),
    }
}

/// A string, a number or a truth value, as text.
fn text_of(table: &Table, place: &str, key: &str) -> Result<Option<String>> {
    match table.get(key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Integer(number)) => Ok(Some(number.to_string())),
        Some(Value::Boolean(value)) => Ok(Some(value.to_string())),
        Some(_) => Err(Error::Parse(format!("{place}: {key} is neither text nor a number nor true or false"))),
    }
}

fn required(table: &Table, place: &str, key: &str) -> Result<String> {
    text_of(table, place, key)?.ok_or_else(|| Error::Parse(format!("{place} has no {key}")))
}
