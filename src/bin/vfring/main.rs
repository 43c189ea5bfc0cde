//! `vfring`, the program: each subcommand is a file of its own, which has its options and what it does.
//!
//! What always holds: an error is one line on the standard error output, and the exit status is then 1 (2 for a command
//! line that cannot be understood). `doctor` and `validate` say by their status how bad what they found is.

mod apply;
mod bind;
mod device_plugin;
mod doctor;
mod list;
mod manual;
mod names;
mod netlink;
mod prepare;
mod roots;
mod settings;
#[cfg(all(feature = "sim", feature = "vfio-user"))]
mod signals;
#[cfg(all(feature = "sim", feature = "vfio-user"))]
mod sim;
mod vf;

use std::process::ExitCode;

use clap::Command;

/// The whole command line.
fn program() -> Command {
    let command = Command::new("vfring")
        .version(env!("CARGO_PKG_VERSION"))
        .about("SR-IOV virtual functions in user space: the tools of the vfring library")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(list::command())
        .subcommand(doctor::command())
        .subcommand(vf::command())
        .subcommand(bind::bind_command())
        .subcommand(bind::unbind_command())
        .subcommand(apply::command())
        .subcommand(device_plugin::command())
        .subcommand(manual::completions_command())
        .subcommand(manual::man_command());
    #[cfg(all(feature = "sim", feature = "vfio-user"))]
    let command = command.subcommand(sim::command());
    command
}

fn main() -> ExitCode {
    let matches = program().get_matches_from(device_plugin::with_two_dashes(std::env::args_os()));
    let result = match matches.subcommand() {
        Some(("list", matches)) => list::run(matches),
        Some(("doctor", matches)) => doctor::run(matches),
        Some(("vf", matches)) => vf::run(matches),
        Some(("bind", matches)) => bind::run(matches, true),
        Some(("unbind", matches)) => bind::run(matches, false),
        Some(("apply", matches)) => apply::run(matches),
        Some(("device-plugin", matches)) => device_plugin::run(matches),
        Some(("completions", matches)) => manual::completions(matches, program()),
        Some(("man", matches)) => manual::man(matches, program()),
        #[cfg(all(feature = "sim", feature = "vfio-user"))]
        Some(("sim", matches)) => sim::run(matches).map(|()| ExitCode::SUCCESS),
        _ => Ok(ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vfring: {error}");
            ExitCode::FAILURE
        }
    }
}
