//! Names of vendors and devices, from the PCI id database that a machine has as a file.
#![forbid(unsafe_code)]

use std::path::Path;

use clap::{Arg, ArgMatches};
use pciid_parser::Database;
use vfring::{Error, PciId, Result};

/// Where distributions have the file.
const PLACES: [&str; 2] = ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids"];

/// The database.
pub(crate) struct Names(Database);

/// The option `--names`, with or without a file.
pub(crate) fn argument() -> Arg {
    Arg::new("names")
        .long("names")
        .value_name("FILE")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("")
        .help("Vendor and device names, from this machine's pci.ids or another FILE")
}

impl Names {
    /// The database that the option asks for; none where it does not.
    pub(crate) fn read(matches: &ArgMatches) -> Result<Option<Names>> {
        let Some(asked) = matches.get_one::<String>("names") else { return Ok(None) };
        let place = match asked.as_str() {
            "" => PLACES.into_iter().find(|place| Path::new(place).exists()),
            path => Some(path),
        };
        let place = place.ok_or_else(|| {
            let text =
                format!("there is no {}: `apt-get install pci.ids`, or give --names=FILE", PLACES.join(" and no "));
            Error::Config(text)
        })?;
        let database = Database::read_from_file(place).map_err(|error| Error::Parse(format!("{place}: {error}")))?;
        Ok(Some(Names(database)))
    }

    /// Vendor and device, as far as the database has them.
    pub(crate) fn of(&self, id: PciId) -> String {
        let vendor = self.0.vendors.get(&id.vendor);
        let device = vendor.and_then(|vendor| vendor.devices.get(&id.device));
        let vendor = vendor.map_or("unknown vendor", |vendor| &vendor.name);
        format!("{vendor} {}", device.map_or("unknown device", |device| &device.name))
    }
}
