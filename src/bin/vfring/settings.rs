//! What a PF says of a VF: its address, VLAN and rights.
//!
//! Owns the names of the settings, which are those of `ip link set … vf`, on the command line and in a file.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::RangeInclusive;

use vfring::{Error, MacAddr, Result};

/// Largest VLAN id: 4095 is reserved (IEEE 802.1Q).
const LAST_VLAN: u16 = 4094;

/// One setting of a VF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    Mac(MacAddr),
    /// Id and priority; 0 and 0 for none.
    Vlan(u16, u8),
    SpoofCheck(bool),
    Trust(bool),
    Link(Link),
    /// Most megabits a second that it may send; 0 for no limit.
    Rate(u32),
}

/// The link that a VF sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Auto,
    Enable,
    Disable,
}

/// What the PF says of a VF at present, as far as its driver tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Admin {
    pub(crate) mac: Option<MacAddr>,
    pub(crate) vlan: Option<(u16, u8)>,
    pub(crate) spoof_check: Option<bool>,
    pub(crate) trust: Option<bool>,
    pub(crate) link: Option<Link>,
    pub(crate) rate: Option<u32>,
}

/// Numbers of VFs: `0-3,5`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Numbers(Vec<RangeInclusive<u32>>);

impl Setting {
    /// True when nothing needs to be done.
    pub(crate) fn is_met(self, admin: &Admin) -> bool {
        match self {
            Setting::Mac(mac) => admin.mac == Some(mac),
            Setting::Vlan(id, priority) => admin.vlan == Some((id, priority)),
            Setting::SpoofCheck(on) => admin.spoof_check == Some(on),
            Setting::Trust(on) => admin.trust == Some(on),
            Setting::Link(link) => admin.link == Some(link),
            Setting::Rate(rate) => admin.rate == Some(rate),
        }
    }
}

impl fmt::Display for Setting {
    /// As the words of `ip link set INTERFACE vf NUMBER`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on: bool| if on { "on" } else { "off" };
        match *self {
            Setting::Mac(mac) => write!(f, "mac {mac}"),
            Setting::Vlan(id, 0) => write!(f, "vlan {id}"),
            Setting::Vlan(id, priority) => write!(f, "vlan {id} qos {priority}"),
            Setting::SpoofCheck(value) => write!(f, "spoofchk {}", on(value)),
            Setting::Trust(value) => write!(f, "trust {}", on(value)),
            Setting::Link(link) => write!(f, "state {link}"),
            Setting::Rate(rate) => write!(f, "max_tx_rate {rate}"),
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Auto => "auto",
            Link::Enable => "enable",
            Link::Disable => "disable",
        })
    }
}

impl Numbers {
    pub(crate) fn parse(text: &str) -> Result<Numbers> {
        let bad = || Error::Parse(format!("'{text}' is no list of VFs; expected numbers from 0, like 0-3,5"));
        let range = |part: &str| -> Result<RangeInclusive<u32>> {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
            if first <= last { Ok(first..=last) } else { Err(bad()) }
        };
        Ok(Numbers(text.split(',').map(range).collect::<Result<_>>()?))
    }

    /// All of them below `count`.
    pub(crate) fn all(count: u32) -> Numbers {
        Numbers(if count == 0 { Vec::new() } else { vec![0..=count - 1] })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().cloned().flatten()
    }

    /// The largest.
    pub(crate) fn last(&self) -> Option<u32> {
        self.0.iter().map(|range| *range.end()).max()
    }
}

/// The settings that texts describe, by the names of options (`mac`, `vlan`, `qos`, `spoofchk`, `trust`, `link`, `rate`).
pub(crate) fn parse<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Vec<Setting>> {
    let mut list = Vec::new();
    if let Some(text) = get("mac") {
        let mac: MacAddr = text.parse()?;
        if !mac.is_valid_station() {
            return Err(Error::Config(format!("mac: {mac} cannot be the address of a station")));
        }
        list.push(Setting::Mac(mac));
    }
    let number = |name: &str, most: u32| -> Result<Option<u32>> {
        let Some(text) = get(name) else { return Ok(None) };
        let value = text.parse().ok().filter(|&value| value <= most);
        value.map(Some).ok_or_else(|| Error::Parse(format!("{name}: '{text}' is no number from 0 to {most}")))
    };
    match (number("vlan", LAST_VLAN.into())?, number("qos", 7)?) {
        (None, None) => {}
        (None, Some(_)) => return Err(Error::Config("qos: is the priority of a VLAN; give its id as vlan".into())),
        (Some(id), priority) => list.push(Setting::Vlan(id as u16, priority.unwrap_or(0) as u8)),
    }
    let switch = |name: &str| -> Result<Option<bool>> {
        match get(name) {
            None => Ok(None),
            Some("on" | "true") => Ok(Some(true)),
            Some("off" | "false") => Ok(Some(false)),
            Some(other) => Err(Error::Parse(format!("{name}: '{other}' is neither on nor off"))),
        }
    };
    list.extend(switch("spoofchk")?.map(Setting::SpoofCheck));
    list.extend(switch("trust")?.map(Setting::Trust));
    list.extend(match get("link") {
        None => None,
        Some("auto") => Some(Setting::Link(Link::Auto)),
        Some("enable" | "on") => Some(Setting::Link(Link::Enable)),
        Some("disable" | "off") => Some(Setting::Link(Link::Disable)),
        Some(other) => return Err(Error::Parse(format!("link: '{other}' is none of auto, enable and disable"))),
    });
    list.extend(number("rate", u32::MAX)?.map(Setting::Rate));
    Ok(list)
}
