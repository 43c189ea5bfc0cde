//! `vfring bind` and `unbind`: functions and their drivers.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use vfring::{PciAddress, Result};

use crate::prepare::{self, Tools};

fn addresses() -> Arg {
    let parse = |text: &str| text.parse::<PciAddress>().map_err(|error| error.to_string());
    Arg::new("address").value_name("ADDRESS").required(true).action(ArgAction::Append).num_args(1..).value_parser(parse)
}

pub(crate) fn bind_command() -> Command {
    prepare::with_options(Command::new("bind"))
        .about("Bind PCI functions to vfio-pci, or to another driver")
        .arg(addresses())
        .arg(Arg::new("driver").long("driver").value_name("DRIVER").default_value("vfio-pci").help("The driver"))
}

pub(crate) fn unbind_command() -> Command {
    prepare::with_options(Command::new("unbind"))
        .about("Give PCI functions back to the kernel's own drivers")
        .arg(addresses())
}

pub(crate) fn run(matches: &ArgMatches, is_bind: bool) -> Result<ExitCode> {
    let mut tools = Tools::new(matches);
    for address in matches.get_many::<PciAddress>("address").into_iter().flatten() {
        match is_bind {
            true => tools.bind(*address, matches.get_one::<String>("driver").map_or("", String::as_str))?,
            false => tools.unbind(*address)?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
