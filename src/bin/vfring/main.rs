//! `vfring`, the program: each subcommand is a file of its own, which has its options and what it does.
//!
//! What always holds: an error is one line on the standard error output, and the exit status is then 1 (2 for a command
//! line that cannot be understood).

#[cfg(all(feature = "sim", feature = "vfio-user"))]
mod signals;
#[cfg(all(feature = "sim", feature = "vfio-user"))]
mod sim;

use std::process::ExitCode;

use clap::Command;

fn main() -> ExitCode {
    let command = Command::new("vfring")
        .version(env!("CARGO_PKG_VERSION"))
        .about("SR-IOV virtual functions in user space: the tools of the vfring library")
        .subcommand_required(true)
        .arg_required_else_help(true);
    #[cfg(all(feature = "sim", feature = "vfio-user"))]
    let command = command.subcommand(sim::command());
    let matches = command.get_matches();
    let result = match matches.subcommand() {
        #[cfg(all(feature = "sim", feature = "vfio-user"))]
        Some(("sim", matches)) => sim::run(matches),
        _ => Ok(()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfring: {error}");
            ExitCode::FAILURE
        }
    }
}
