//! `vfring doctor`: what stands between this host and its VFs.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use vfring::Result;
use vfring::host::{Finding, Level, doctor};

use crate::roots;

pub(crate) fn command() -> Command {
    roots::with_roots(Command::new("doctor"))
        .about("Examine this host: IOMMU, vfio, SR-IOV, groups, hugepages, kubelet")
        .after_help("Exit status: 0 all is well, 1 there are warnings, 2 something cannot work.")
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON object"))
        .arg(
            Arg::new("plugin-dir")
                .long("plugin-dir")
                .value_name("DIR")
                .default_value("/var/lib/kubelet/device-plugins")
                .help("Kubelet's directory of device plugins"),
        )
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let directory = matches.get_one::<String>("plugin-dir").map_or("", String::as_str);
    let findings = doctor(&roots::host(matches), Path::new(directory))?;
    let worst = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Good);
    let code = match worst {
        Level::Good | Level::Note => 0,
        Level::Warning => 1,
        Level::Failure => 2,
    };
    if matches.get_flag("json") {
        let list: Vec<_> = findings.iter().map(as_json).collect();
        println!("{}", json!({"worst": worst.to_string(), "exit": code, "findings": list}));
    } else {
        for finding in &findings {
            println!("{finding}");
        }
    }
    Ok(ExitCode::from(code))
}

fn as_json(finding: &Finding) -> serde_json::Value {
    json!({
        "level": finding.level.to_string(),
        "check": finding.check,
        "text": finding.text,
        "fix": finding.fix,
    })
}
