//! `vfring device-plugin explain` and `validate`: what a configuration does on this host, and what is wrong with it.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use vfring::Result;
use vfring::plugin::{Config, Inventory, Problem, Severity, explain, validate};

use crate::roots;

use super::{plugin_dir, prefix, read, text};

pub(super) fn explain_command() -> Command {
    Command::new("explain").about("Say of every device and every pool whether it is advertised, and why not")
}

pub(super) fn validate_command() -> Command {
    Command::new("validate")
        .about("Say everything that is wrong with a configuration, on this host too")
        .after_help("Exit status: 0 nothing is wrong, 1 it works but probably not as meant, 2 a pool cannot be served.")
        .arg(plugin_dir())
}

pub(super) fn explain_run(matches: &ArgMatches) -> Result<ExitCode> {
    let config = read(Path::new(text(matches, "config")), prefix(matches).as_deref())?;
    let host = roots::host(matches);
    print!("{}", explain(&config, &host, &Inventory::scan(&host)?));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn validate_run(matches: &ArgMatches) -> Result<ExitCode> {
    let config = match read(Path::new(text(matches, "config")), prefix(matches).as_deref()) {
        Ok(config) => config,
        // Not even a pool can be told from another.
        Err(error) => {
            println!("error: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let host = roots::host(matches);
    let mut problems = validate(&config, &host, &Inventory::scan(&host)?);
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

/// Pools whose socket could not be made.
pub(super) fn long_sockets<'a>(config: &'a Config, directory: &'a Path) -> impl Iterator<Item = Problem> + 'a {
    config.pools.iter().filter_map(|pool| {
        let error = pool.resource.as_ref()?.socket_path(directory).err()?;
        Some(Problem { severity: Severity::Error, place: pool.place.clone(), text: error.to_string() })
    })
}
