//! `vfring device-plugin explain` and `validate`: what a configuration does on this host, and what is wrong with it.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use vfring::plugin::{Config, Inventory, Problem, Severity, explain, validate};
use vfring::{Error, Result};

use crate::roots;

/// Where sriov-network-device-plugin looks for its configuration.
const DEFAULT_CONFIG: &str = "/etc/pcidp/config.json";
/// Kubelet's directory of device plugins.
const DEFAULT_SOCKETS: &str = "/var/lib/kubelet/device-plugins";

/// `device-plugin` and what is below it.
pub(crate) fn command() -> Command {
    let with_options = |command: Command| {
        let prefix = "Prefix of resources that name none [default: intel.com]";
        roots::with_roots(command)
            .arg(value("config", "FILE").alias("config-file").default_value(DEFAULT_CONFIG).help("The config.json"))
            .arg(value("resource-prefix", "PREFIX").help(prefix))
    };
    let explain = with_options(Command::new("explain"))
        .about("Say of every device and every pool whether it is advertised, and why not");
    let validate = with_options(Command::new("validate"))
        .about("Say everything that is wrong with a configuration, on this host too")
        .after_help("Exit status: 0 nothing is wrong, 1 it works but probably not as meant, 2 a pool cannot be served.")
        .arg(value("plugin-dir", "DIR").default_value(DEFAULT_SOCKETS).help("Kubelet's directory of device plugins"));
    Command::new("device-plugin")
        .about("The Kubernetes device plugin")
        .subcommand_required(true)
        .subcommand(explain)
        .subcommand(validate)
}

fn value(name: &'static str, value: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value)
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(ExitCode::SUCCESS) };
    let config = match read(matches) {
        Ok(config) => config,
        // Not even a pool can be told from another.
        Err(error) if name == "validate" => {
            println!("error: {error}");
            return Ok(ExitCode::from(2));
        }
        Err(error) => return Err(error),
    };
    let host = roots::host(matches);
    let inventory = Inventory::scan(&host)?;
    if name == "explain" {
        print!("{}", explain(&config, &host, &inventory));
        return Ok(ExitCode::SUCCESS);
    }
    let mut problems = validate(&config, &host, &inventory);
    problems.extend(long_sockets(&config, Path::new(text(matches, "plugin-dir"))));
    for problem in &problems {
        println!("{problem}");
    }
    Ok(match problems.iter().map(|problem| problem.severity).max() {
        None => {
            println!("{} pools, nothing is wrong", config.pools.len());
            ExitCode::SUCCESS
        }
        Some(Severity::Warning) => ExitCode::from(1),
        Some(Severity::Error) => ExitCode::from(2),
    })
}

fn text<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

fn read(matches: &ArgMatches) -> Result<Config> {
    let path = text(matches, "config");
    let content = fs::read_to_string(path)
        .map_err(|error| Error::os(format!("reading {path} (--config names another)"), error))?;
    let prefix = matches.get_one::<String>("resource-prefix").map(String::as_str);
    Config::parse(&content, prefix).map_err(|error| Error::Parse(format!("{path}: {error}")))
}

/// Pools whose socket could not be made.
fn long_sockets<'a>(config: &'a Config, directory: &'a Path) -> impl Iterator<Item = Problem> + 'a {
    config.pools.iter().filter_map(|pool| {
        let error = pool.resource.as_ref()?.socket_path(directory).err()?;
        Some(Problem { severity: Severity::Error, place: pool.place.clone(), text: error.to_string() })
    })
}
