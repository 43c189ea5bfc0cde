//! `vfring completions` and `vfring man`: what a shell and man(1) know of this program, made from its own command line.
#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use clap_complete::aot::{Shell, generate};
use clap_mangen::Man;
use vfring::{Error, Result};

const NAME: &str = "vfring";

const AFTER_COMPLETIONS: &str = "\
Examples:
  vfring completions bash > /etc/bash_completion.d/vfring
  vfring completions zsh > /usr/local/share/zsh/site-functions/_vfring
  vfring completions fish > /etc/fish/completions/vfring.fish";

pub(crate) fn completions_command() -> Command {
    let shells = clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish"]);
    Command::new("completions")
        .about("Print what a shell completes this program's command lines with")
        .after_help(AFTER_COMPLETIONS)
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(shells))
}

pub(crate) fn man_command() -> Command {
    Command::new("man")
        .about("Print the manual page, or write one for each subcommand")
        .after_help("Example: vfring man --out /usr/local/share/man/man1")
        .arg(Arg::new("out").long("out").value_name("DIR").help("Write all pages into this directory, which is made"))
}

/// Prints the completions of `program`.
pub(crate) fn completions(matches: &ArgMatches, mut program: Command) -> Result<ExitCode> {
    let shell = match matches.get_one::<String>("shell").map_or("", String::as_str) {
        "zsh" => Shell::Zsh,
        "fish" => Shell::Fish,
        _ => Shell::Bash,
    };
    print(|out| {
        generate(shell, &mut program, NAME, out);
        Ok(())
    })
}

/// Prints the manual page of `program`, or writes those of it and of all that is below it.
pub(crate) fn man(matches: &ArgMatches, program: Command) -> Result<ExitCode> {
    let Some(directory) = matches.get_one::<String>("out").map(PathBuf::from) else {
        return print(|out| Man::new(program).render(out));
    };
    let failed = |path: &Path, error| Error::os(format!("writing {}", path.display()), error);
    fs::create_dir_all(&directory).map_err(|error| failed(&directory, error))?;
    clap_mangen::generate_to(program, &directory).map_err(|error| failed(&directory, error))?;
    println!("{}", directory.display());
    Ok(ExitCode::SUCCESS)
}

/// Makes a text in whole and prints it. A reader that has seen enough is no error.
fn print(make: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Result<ExitCode> {
    let mut text = Vec::new();
    make(&mut text)
        .and_then(|()| io::stdout().write_all(&text))
        .or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
        .map_err(|error| Error::os("printing", error))?;
    Ok(ExitCode::SUCCESS)
}
