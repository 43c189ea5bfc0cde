//! `sim:MODEL?key=value&…`: what the keys mean, and which port they make. Keys of wires are the same for all models.
#![forbid(unsafe_code)]

use std::str::FromStr;

use super::avf::{AvfOptions, AvfPart, QUEUES_MAX};
use super::bus::SimBus;
use super::frame::{ETHERNET, MIN_FRAME};
use super::igb::{IgbOptions, Part};
use super::ixgbe::{IxgbeOptions, IxgbePart};
use super::model::Options;
#[cfg(feature = "pcap")]
use super::pcap::PcapWire;
use super::socket::SocketWire;
use super::tap::Tap;
use super::wire::{Generator, Wire};
use super::world::World;
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::spec::SimSpec;

/// Longest generated frame: a 9216-byte MTU with headers.
const SIZE_MAX: usize = 9216 + ETHERNET;

/// Opens the model that a spec describes.
///
/// # Errors
/// [`Error::Config`] for a model, key or value that does not exist, naming those that do; [`Error::Os`] when a wire cannot
/// be opened.
pub(crate) fn open(spec: &SimSpec) -> Result<SimBus> {
    if spec.get("world").is_some() {
        model(spec)?;
        return open_stepped(spec);
    }
    let world = World::shared();
    let port = add(spec, &world)?;
    SimBus::open(world, port, spec.to_string())
}

/// Adds the port that a spec describes to a world in real time.
pub(super) fn add(spec: &SimSpec, world: &World) -> Result<usize> {
    let (keys, options) = model(spec)?;
    let mut keys = [keys, &["wire", "seed"]].concat();
    let wire = spec.get("wire").unwrap_or("sink");
    let (kind, name) = wire.split_once(':').unwrap_or((wire, ""));
    match kind {
        "gen" => keys.extend(["size", "rate", "flows"]),
        "pair" => keys.push("loopback"),
        "pcap" => keys.extend(["in", "out", "loop"]),
        _ => {}
    }
    check_keys(spec, &keys)?;
    if spec.get("seed").is_some() {
        world.reseed(number(spec, "seed", 0, 0, u64::MAX)?);
    }
    let options = options(spec)?;
    let text = spec.to_string();
    Ok(match (kind, name) {
        ("sink", "") => world.add(options, Wire::Sink, |_| text.clone()),
        ("gen", "") => {
            let size = number(spec, "size", MIN_FRAME, MIN_FRAME, SIZE_MAX)?;
            let rate = Some(number(spec, "rate", 0, 0, u64::MAX)?).filter(|&rate| rate > 0);
            let flows = number(spec, "flows", 1, 1, u16::MAX)?;
            world.add(options, Wire::Generator(Generator::new(size, rate, flows)), |_| text.clone())
        }
        ("pair", path) if path.contains('/') => {
            world.add(options, Wire::Socket(Box::new(SocketWire::open(path)?)), |_| text.clone())
        }
        ("pair", name) if !name.is_empty() => world.add_pair(options, name, flag(spec, "loopback")?, &text)?,
        ("tap", name) if !name.is_empty() => world.add(options, Wire::Tap(Tap::open(name)?), |_| text.clone()),
        #[cfg(feature = "pcap")]
        ("pcap", "") => {
            let wire = PcapWire::open(spec.get("in"), spec.get("out"), flag(spec, "loop")?)?;
            world.add(options, Wire::Pcap(Box::new(wire)), |_| text.clone())
        }
        #[cfg(not(feature = "pcap"))]
        ("pcap", "") => return Err(Error::Config(format!("{spec}: wire=pcap needs the cargo feature `pcap`"))),
        _ => {
            return Err(Error::Config(format!(
                "{spec}: there is no wire '{wire}'; wires are gen, sink, pair:NAME, pair:/PATH, tap:IFNAME and pcap"
            )));
        }
    })
}

/// A port of a stepped world, which a test made.
fn open_stepped(spec: &SimSpec) -> Result<SimBus> {
    check_keys(spec, &["world", "port"])?;
    let number_of_world = number(spec, "world", 0, 0, u64::MAX)?;
    let port = number(spec, "port", 0, 0, usize::MAX)?;
    let world = World::find(number_of_world)
        .ok_or_else(|| Error::Config(format!("{spec}: there is no world {number_of_world}, or it was dropped")))?;
    SimBus::open(world, port, spec.to_string())
}

/// The keys of a model, and what makes its options of them.
type ModelKeys = (&'static [&'static str], fn(&SimSpec) -> Result<Options>);

fn model(spec: &SimSpec) -> Result<ModelKeys> {
    match spec.model.as_str() {
        "igbvf" => Ok((&["part", "mac", "mac_fixed", "rss", "lenient"], igb_options)),
        "ixgbevf" => Ok((&IXGBE_KEYS, ixgbe_options)),
        "iavf" => Ok((&AVF_KEYS, avf_options)),
        other => Err(Error::Config(format!(
            "{spec}: there is no model '{other}'; models are sim:igbvf, sim:ixgbevf and sim:iavf"
        ))),
    }
}

fn igb_options(spec: &SimSpec) -> Result<Options> {
    let part = match spec.get("part") {
        None | Some("82576") => Part::I82576,
        Some("i350") => Part::I350,
        Some(other) => return Err(bad(spec, "part", other, "82576 or i350")),
    };
    Ok(Options::Igb(IgbOptions {
        part,
        mac: mac(spec)?,
        mac_fixed: flag(spec, "mac_fixed")?,
        rss: flag(spec, "rss")?,
        lenient: flag(spec, "lenient")?,
    }))
}

const IXGBE_KEYS: [&str; 12] = [
    "part",
    "queues",
    "api",
    "mac",
    "mac_fixed",
    "trust",
    "pf_promisc",
    "query_rss",
    "jumbo",
    "tcs",
    "port_vlan",
    "mc_filter",
];

fn ixgbe_options(spec: &SimSpec) -> Result<Options> {
    let defaults = IxgbeOptions::default();
    let part = match spec.get("part") {
        None => defaults.part,
        Some("82599") => IxgbePart::I82599,
        Some("x540") => IxgbePart::X540,
        Some("x550") => IxgbePart::X550,
        Some("e610") => IxgbePart::E610,
        Some(other) => return Err(bad(spec, "part", other, "82599, x540, x550 or e610")),
    };
    let one_of = |key, default: u8, values: &[u8]| {
        let value = number(spec, key, default, 0, u8::MAX)?;
        let texts: Vec<String> = values.iter().map(u8::to_string).collect();
        let known = values.contains(&value);
        if known { Ok(value) } else { Err(bad(spec, key, &value.to_string(), &texts.join(", "))) }
    };
    let api = match spec.get("api") {
        None => defaults.api,
        Some(text) => match text.strip_prefix("1.").map(str::parse) {
            Some(Ok(digit)) if digit <= defaults.api => digit,
            _ => return Err(bad(spec, "api", text, &format!("1.0 to 1.{}", defaults.api))),
        },
    };
    Ok(Options::Ixgbe(IxgbeOptions {
        part,
        queues: one_of("queues", defaults.queues, &[1, 2, 4, 8])?,
        api,
        mac: mac(spec)?,
        mac_fixed: flag(spec, "mac_fixed")?,
        trusted: flag(spec, "trust")?,
        pf_promiscuous: flag(spec, "pf_promisc")?,
        query_rss: flag(spec, "query_rss")?,
        jumbo: flag(spec, "jumbo")?,
        traffic_classes: one_of("tcs", 0, &[0, 4, 8])?,
        port_vlan: Some(number(spec, "port_vlan", 0, 0, 4094)?).filter(|&vid| vid > 0),
        multicast_filter: number(spec, "mc_filter", 0, 0, 3)?,
    }))
}

const AVF_KEYS: [&str; 10] =
    ["part", "queues", "mac", "mac_fixed", "trust", "double_vlan", "large_queues", "in_tree", "rxdids", "batched"];

fn avf_options(spec: &SimSpec) -> Result<Options> {
    let part = match spec.get("part") {
        Some("xl710") => AvfPart::Xl710,
        Some("x722") => AvfPart::X722,
        None | Some("e810") => AvfPart::E810,
        Some(other) => return Err(bad(spec, "part", other, "xl710, x722 or e810")),
    };
    let defaults = AvfOptions::new(part);
    Ok(Options::Avf(AvfOptions {
        queues: number(spec, "queues", defaults.queues, 1, QUEUES_MAX)?,
        mac: mac(spec)?,
        mac_fixed: flag(spec, "mac_fixed")?,
        trusted: flag(spec, "trust")?,
        double_vlan: flag(spec, "double_vlan")?,
        large_queues: flag(spec, "large_queues")?,
        in_tree: flag(spec, "in_tree")?,
        rxdids: number(spec, "rxdids", defaults.rxdids, 0, u64::MAX)?,
        batched: flag(spec, "batched")?,
        part,
    }))
}

/// The address that the PF assigns; `None`: it assigns none.
fn mac(spec: &SimSpec) -> Result<Option<MacAddr>> {
    match spec.get("mac") {
        None => Ok(Some(World::next_mac())),
        Some("none") => Ok(None),
        Some(text) => match text.parse::<MacAddr>() {
            Ok(mac) if mac.is_valid_station() => Ok(Some(mac)),
            _ => Err(bad(spec, "mac", text, "a unicast address like 02:56:46:00:00:01, or none")),
        },
    }
}

fn check_keys(spec: &SimSpec, keys: &[&str]) -> Result<()> {
    match spec.params.iter().find(|(key, _)| !keys.contains(&key.as_str())) {
        Some((key, _)) => {
            Err(Error::Config(format!("{spec}: '{key}' means nothing here; keys are {}", keys.join(", "))))
        }
        None => Ok(()),
    }
}

fn flag(spec: &SimSpec, key: &str) -> Result<bool> {
    match spec.get(key) {
        None | Some("0") => Ok(false),
        Some("1") => Ok(true),
        Some(other) => Err(bad(spec, key, other, "0 or 1")),
    }
}

fn number<T>(spec: &SimSpec, key: &str, default: T, least: T, most: T) -> Result<T>
where
    T: FromStr + PartialOrd + std::fmt::Display + Copy,
{
    let Some(text) = spec.get(key) else { return Ok(default) };
    match text.parse::<T>() {
        Ok(value) if value >= least && value <= most => Ok(value),
        _ => Err(bad(spec, key, text, &format!("a number from {least} to {most}"))),
    }
}

fn bad(spec: &SimSpec, key: &str, value: &str, wanted: &str) -> Error {
    Error::Config(format!("{spec}: {key}={value} cannot be; expected {wanted}"))
}
