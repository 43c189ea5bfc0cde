//! `vfring vf create` and `vf destroy`: the VFs of a PF.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use vfring::Result;

use crate::prepare::{self, PfPlan, Tools};
use crate::settings::{self, Numbers};

const AFTER: &str = "\
VFs that are there already in this number stay as they are. Example:
  vfring vf create --pf ens802f0 --num 8 --driver vfio-pci --vf 0-3 --vlan 100 --trust on --spoofchk off";

/// `vf` and what is below it.
pub(crate) fn command() -> Command {
    let pf = || value("pf", "PF").required(true).help("The PF: its interface or PCI address");
    let create = prepare::with_options(Command::new("create"))
        .about("Give a PF VFs, say what it says of them, and bind them")
        .after_help(AFTER)
        .arg(pf())
        .arg(value("num", "N").required(true).value_parser(clap::value_parser!(u32)).help("How many VFs"))
        .arg(value("driver", "DRIVER").help("Bind them to this driver, such as vfio-pci"))
        .arg(value("vf", "LIST").help("The VFs that the settings are for, like 0-3,5 [default: all]"))
        .arg(value("mac", "ADDRESS").help("Station address, for one VF"))
        .arg(value("vlan", "ID").help("VLAN, 0 for none"))
        .arg(value("qos", "PRIORITY").help("Priority of the VLAN, 0 to 7"))
        .arg(value("spoofchk", "on|off").help("Frames with other source addresses are dropped"))
        .arg(value("trust", "on|off").help("The VF may change its address and be promiscuous"))
        .arg(value("link", "STATE").help("What link it sees: auto, enable or disable"))
        .arg(value("rate", "MBIT").help("Most megabits a second that it may send, 0 for no limit"));
    let destroy = prepare::with_options(Command::new("destroy")).about("Take all VFs of a PF away").arg(pf());
    Command::new("vf").about("The VFs of a PF").subcommand_required(true).subcommand(create).subcommand(destroy)
}

fn value(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(ExitCode::SUCCESS) };
    let text = |name: &str| matches.get_one::<String>(name).map(String::as_str);
    let pf = text("pf").unwrap_or_default();
    let mut tools = Tools::new(matches);
    if name == "destroy" {
        tools.destroy(pf)?;
        return Ok(ExitCode::SUCCESS);
    }
    let vfs = matches.get_one::<u32>("num").copied().unwrap_or(0);
    let numbers = text("vf").map_or_else(|| Ok(Numbers::all(vfs)), Numbers::parse)?;
    let settings = vec![(numbers, settings::parse(text)?)];
    tools.prepare(&PfPlan { pf: pf.to_owned(), vfs, driver: text("driver").map(str::to_owned), settings })?;
    Ok(ExitCode::SUCCESS)
}
