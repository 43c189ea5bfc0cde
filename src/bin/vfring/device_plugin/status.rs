//! `vfring device-plugin status`: which pod and container has which device, as kubelet says.
//!
//! Owns the join of kubelet's answer with the pools of this host.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};
use vfring::plugin::{Inventory, Pool, Pools};
use vfring::{Error, Result};

use crate::roots;

use super::users::{self, User, Users};
use super::{prefix, read, text};

/// How long kubelet may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Adds the options.
pub(super) fn options(command: Command) -> Command {
    command
        .about("Say which pod has which device, as kubelet says")
        .arg(users::option())
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print one JSON array"))
}

/// A device of a resource, and who has it.
struct Row {
    resource: String,
    device: String,
    group: Option<u32>,
    /// Why it is not handed out now, if it is not.
    cause: Option<String>,
    user: Option<User>,
}

pub(super) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let config = read(Path::new(text(matches, "config")), prefix(matches).as_deref())?;
    let host = roots::host(matches);
    let pools = Pools::new(&config, &host, &Inventory::scan(&host)?);
    let users = users(Path::new(text(matches, "pod-resources")))?;
    let rows: Vec<Vec<Row>> = pools.list().iter().map(|pool| rows(pool, &users)).collect();
    if matches.get_flag("json") {
        println!("{}", Value::Array(rows.iter().flatten().map(as_json).collect()));
        return Ok(ExitCode::SUCCESS);
    }
    for (pool, rows) in pools.list().iter().zip(&rows) {
        print(pool, rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks kubelet.
fn users(socket: &Path) -> Result<Users> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::os("starting the runtime", error))?;
    runtime.block_on(users::ask(socket, LIMIT)).map_err(Error::Config)
}

/// The devices of a pool, and those that pods have of its resource though it no longer has them.
fn rows(pool: &Pool, users: &Users) -> Vec<Row> {
    let resource = pool.resource().to_string();
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let mut add = |device: String, group: Option<u32>, cause: Option<String>| {
        let user = users.get(&(resource.clone(), device.clone())).cloned();
        rows.entry(device.clone()).or_insert(Row { resource: resource.clone(), device, group, cause, user });
    };
    for device in pool.devices() {
        add(device.address.to_string(), Some(device.group), None);
    }
    for omitted in pool.omitted() {
        add(omitted.address.to_string(), None, Some(omitted.cause.to_string()));
    }
    for (of, device) in users.keys() {
        if *of == resource {
            add(device.clone(), None, Some("it is not in this pool now".into()));
        }
    }
    rows.into_values().collect()
}

fn as_json(row: &Row) -> Value {
    let user = row.user.as_ref();
    json!({
        "resource": row.resource,
        "device": row.device,
        "group": row.group,
        "cause": row.cause,
        "namespace": user.map(|user| &user.namespace),
        "pod": user.map(|user| &user.pod),
        "container": user.map(|user| &user.container),
    })
}

fn print(pool: &Pool, rows: &[Row]) {
    let used = rows.iter().filter(|row| row.user.is_some()).count();
    let devices = pool.devices().len();
    println!("{}: {devices} device{}, {used} in use", pool.resource(), if devices == 1 { "" } else { "s" });
    for row in rows {
        let state = match (&row.cause, row.group) {
            (Some(cause), _) => format!("not handed out: {cause}"),
            (None, Some(group)) => format!("IOMMU group {group}"),
            (None, None) => String::new(),
        };
        let user = row.user.as_ref();
        let user = user.map(|user| format!("{}/{}, container {}", user.namespace, user.pod, user.container));
        println!("  {}  {}  ({state})", row.device, user.as_deref().unwrap_or("free"));
    }
}
