//! Where the host's files are: options that all of the host's tools have.
#![forbid(unsafe_code)]

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command};
use vfring::host::Host;
use vfring::pci::SysfsRoot;

/// Adds the options.
pub(crate) fn with_roots(command: Command) -> Command {
    let dir = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("DIR").default_value(default).help(help).hide_short_help(true)
    };
    command
        .arg(dir("sysfs", "/sys", "Where sysfs is mounted"))
        .arg(dir("dev", "/dev", "Where the device nodes are"))
        .arg(dir("proc", "/proc", "Where proc is mounted"))
}

/// What the options say.
pub(crate) fn host(matches: &ArgMatches) -> Host {
    let dir = |name: &str| PathBuf::from(matches.get_one::<String>(name).map_or("", String::as_str));
    Host { sysfs: SysfsRoot::new(dir("sysfs")), dev: dir("dev"), proc: dir("proc") }
}

/// True for this machine's own files; else the kernel's netlink speaks of another machine than the files.
pub(crate) fn is_this_machine(host: &Host) -> bool {
    *host == Host::default()
}
