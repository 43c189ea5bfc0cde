//! Device specs: the text that names a port on a command line.
//!
//! Owns the grammar: a PCI address, `vfio-user:PATH`, or `sim:MODEL?key=value&key=value`. What the keys of a model mean is the
//! model's business (`drivers/sim/spec.rs`); this module only takes the text apart.
#![forbid(unsafe_code)]

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::addr::PciAddress;
use crate::error::{Error, Result};

/// Which device to open.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// A PCI function bound to vfio-pci, written as its address: `0000:3b:02.1`.
    Pci(PciAddress),
    /// A device that another process serves on a unix socket: `vfio-user:/run/vf.sock`.
    VfioUser(PathBuf),
    /// A software model in this process: `sim:igbvf?wire=pair:0`.
    Sim(SimSpec),
}

/// The parts of `sim:MODEL?key=value&key=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimSpec {
    /// The model's name, such as `igbvf`.
    pub model: String,
    /// The parameters in the order written.
    pub params: Vec<(String, String)>,
}

impl SimSpec {
    /// The value of the last parameter named `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.params.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl FromStr for DeviceSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("sim:") {
            return parse_sim(text, rest).map(DeviceSpec::Sim);
        }
        if let Some(path) = text.strip_prefix("vfio-user:") {
            return match path {
                "" => Err(Error::Parse(format!("'{text}': expected vfio-user:PATH, like vfio-user:/run/vf.sock"))),
                path => Ok(DeviceSpec::VfioUser(path.into())),
            };
        }
        if text.contains('.') && !text.contains(['/', '?']) && text.matches(':').count() <= 2 {
            return text.parse().map(DeviceSpec::Pci);
        }
        Err(Error::Parse(format!(
            "'{text}' names no device; expected a PCI address like 0000:3b:02.1, a socket like vfio-user:/run/vf.sock, or a model like \
             sim:igbvf"
        )))
    }
}

fn parse_sim(text: &str, rest: &str) -> Result<SimSpec> {
    let (model, query) = rest.split_once('?').unwrap_or((rest, ""));
    if model.is_empty() || !model.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(Error::Parse(format!(
            "'{text}': expected sim:MODEL?key=value&key=value, like sim:igbvf?wire=sink"
        )));
    }
    let params = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| match part.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Error::Parse(format!("'{text}': '{part}' is not of the form key=value"))),
        })
        .collect::<Result<_>>()?;
    Ok(SimSpec { model: model.to_owned(), params })
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceSpec::Pci(address) => address.fmt(f),
            DeviceSpec::VfioUser(path) => write!(f, "vfio-user:{}", path.display()),
            DeviceSpec::Sim(spec) => spec.fmt(f),
        }
    }
}

impl fmt::Display for SimSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sim:{}", self.model)?;
        for (i, (key, value)) in self.params.iter().enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_round_trip() {
        for text in ["0000:3b:02.1", "sim:igbvf", "sim:igbvf?wire=pair:0&seed=7", "vfio-user:/run/vf.sock"] {
            assert_eq!(text.parse::<DeviceSpec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_specs_are_refused_with_an_example() {
        for text in [
            "",
            "eth0",
            "vfio-user:",
            "sim:",
            "sim:?x=1",
            "sim:igbvf?x",
            "sim:igbvf?=1",
            "/dev/vfio/5",
            "0000:3b:02",
            "1.2.3:4",
        ] {
            let error = text.parse::<DeviceSpec>().unwrap_err().to_string();
            assert!(error.contains("expected") || error.contains("form"), "{text}: {error}");
        }
    }
}
