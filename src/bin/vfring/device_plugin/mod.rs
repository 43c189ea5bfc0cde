//! `vfring device-plugin`: the Kubernetes device plugin, and what tells a person what it does.
//!
//! What is handed out is decided in `vfring::plugin`; here is what talks to kubelet, and the options of all four
//! subcommands. [`run`] serves, [`status`] asks kubelet who has what, [`inspect`] explains and validates.

mod answers;
mod http;
mod info;
mod inspect;
mod keeper;
mod log;
mod messages;
mod metrics;
mod process;
mod record;
mod rpc;
mod run;
mod shared;
mod socket;
mod status;
mod survey;
mod users;
mod watch;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use vfring::plugin::Config;
use vfring::{Error, Result};

use crate::roots;

/// Where sriov-network-device-plugin looks for its configuration.
const DEFAULT_CONFIG: &str = "/etc/pcidp/config.json";
/// Kubelet's directory of device plugins.
const DEFAULT_SOCKETS: &str = "/var/lib/kubelet/device-plugins";
/// Options that sriov-network-device-plugin has with one dash.
const GO_OPTIONS: [&str; 2] = ["-config-file", "-resource-prefix"];

/// `device-plugin` and what is below it.
pub(crate) fn command() -> Command {
    let with_options = |command: Command| {
        let prefix = "Prefix of resources that name none [default: intel.com]";
        roots::with_roots(command)
            .arg(value("config", "FILE").alias("config-file").default_value(DEFAULT_CONFIG).help("The config.json"))
            .arg(value("resource-prefix", "PREFIX").help(prefix))
    };
    Command::new("device-plugin")
        .about("The Kubernetes device plugin")
        .subcommand_required(true)
        .subcommand(run::options(with_options(Command::new("run"))))
        .subcommand(status::options(with_options(Command::new("status"))))
        .subcommand(with_options(inspect::explain_command()))
        .subcommand(with_options(inspect::validate_command()))
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    match matches.subcommand() {
        Some(("run", matches)) => run::run(matches),
        Some(("status", matches)) => status::run(matches),
        Some(("explain", matches)) => inspect::explain_run(matches),
        Some(("validate", matches)) => inspect::validate_run(matches),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The command line with a second dash where sriov-network-device-plugin's options have one, so that its manifests
/// work.
pub(crate) fn with_two_dashes(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    if arguments.get(1).is_some_and(|name| name == "device-plugin") {
        for argument in &mut arguments {
            let name = argument.to_str().map(|text| text.split_once('=').map_or(text, |(name, _)| name));
            if name.is_some_and(|name| GO_OPTIONS.contains(&name)) {
                let mut whole = OsString::from("-");
                whole.push(&*argument);
                *argument = whole;
            }
        }
    }
    arguments
}

fn value(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

/// The option for kubelet's directory of device plugins.
fn plugin_dir() -> Arg {
    value("plugin-dir", "DIR").default_value(DEFAULT_SOCKETS).help("Kubelet's directory of device plugins")
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

fn prefix(matches: &ArgMatches) -> Option<String> {
    matches.get_one::<String>("resource-prefix").cloned()
}

fn read(path: &Path, prefix: Option<&str>) -> Result<Config> {
    let path = path.display();
    let content = fs::read_to_string(path.to_string())
        .map_err(|error| Error::os(format!("reading {path} (--config names another)"), error))?;
    Config::parse(&content, prefix).map_err(|error| Error::Parse(format!("{path}: {error}")))
}
