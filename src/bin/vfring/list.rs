//! `vfring list`: PFs and VFs, what they are, who has them.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Value, json};
use vfring::Result;
use vfring::drivers::driver_for;
use vfring::host::{Host, user_of};
use vfring::pci::{GroupMember, PciFunction};

use crate::names::{self, Names};
use crate::netlink::Netlink;
use crate::roots;
use crate::settings::Admin;

pub(crate) fn command() -> Command {
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    roots::with_roots(Command::new("list"))
        .about("List network PFs with SR-IOV and their VFs")
        .arg(flag("json", "Print one JSON array"))
        .arg(flag("probe", "Open each VFIO group for a moment to see whether a process has it"))
        .arg(names::argument())
}

/// One line of the list.
struct Row {
    function: PciFunction,
    interface: Option<String>,
    admin: Option<Admin>,
    user: Option<String>,
    name: Option<String>,
}

pub(crate) fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let mut rows = rows(&roots::host(matches), matches.get_flag("probe"))?;
    let names = Names::read(matches)?;
    for row in &mut rows {
        row.name = names.as_ref().map(|names| names.of(row.function.id));
    }
    match matches.get_flag("json") {
        true => println!("{}", Value::Array(rows.iter().map(as_json).collect())),
        false => print(&rows, names.is_some()),
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(host: &Host, probe: bool) -> Result<Vec<Row>> {
    // Without netlink (another machine's files) nothing is known of what PFs say.
    let netlink = if roots::is_this_machine(host) { Netlink::open().ok() } else { None };
    let mut admins = BTreeMap::new();
    let mut rows = Vec::new();
    for (address, function) in host.sysfs.functions()? {
        let function = match function {
            Ok(function) => function,
            Err(error) => {
                eprintln!("vfring: {address} cannot be read: {error}");
                continue;
            }
        };
        if function.class >> 16 != 0x02 || function.vf.is_none() && function.sriov.is_none() {
            continue;
        }
        let interface = host.sysfs.interfaces(address)?.into_iter().next();
        if let (Some(netlink), Some(interface), true) = (&netlink, &interface, function.sriov.is_some()) {
            let vfs = netlink.interface(&interface.name).map(|link| link.vfs).unwrap_or_default();
            admins.extend(vfs.into_iter().map(|(number, admin)| ((address, number), admin)));
        }
        let user = if probe { user_of(host, &function)? } else { None };
        rows.push(Row {
            interface: interface.map(|interface| interface.name),
            admin: None,
            user,
            name: None,
            function,
        });
    }
    for row in &mut rows {
        let origin = row.function.vf.and_then(|vf| Some((vf.pf, vf.index?)));
        row.admin = origin.and_then(|origin| admins.remove(&origin));
    }
    Ok(rows)
}

fn as_json(row: &Row) -> Value {
    let function = &row.function;
    let members =
        |group: &vfring::pci::IommuGroup| -> Vec<String> { group.members.iter().map(GroupMember::to_string).collect() };
    json!({
        "address": function.address.to_string(),
        "id": function.id.to_string(),
        "name": row.name,
        "driver": function.driver,
        "interface": row.interface,
        "iommu_group": function.iommu_group.as_ref().map(|group| group.number),
        "group_members": function.iommu_group.as_ref().map(members),
        "numa_node": function.numa_node,
        "pf": function.vf.map(|vf| vf.pf.to_string()),
        "vf": function.vf.and_then(|vf| vf.index),
        "vfs": function.sriov.map(|sriov| sriov.num_vfs),
        "total_vfs": function.sriov.map(|sriov| sriov.total_vfs),
        "mac": row.admin.as_ref().and_then(|admin| admin.mac).map(|mac| mac.to_string()),
        "vlan": row.admin.as_ref().and_then(|admin| admin.vlan).map(|(id, _)| id),
        "spoofchk": row.admin.as_ref().and_then(|admin| admin.spoof_check),
        "trust": row.admin.as_ref().and_then(|admin| admin.trust),
        "vfring_driver": driver(row),
        "used_by": row.user,
    })
}

/// The driver of vfring for a VF.
fn driver(row: &Row) -> Option<String> {
    row.function.vf.and_then(|_| driver_for(row.function.id))
}

fn print(rows: &[Row], with_names: bool) {
    let titles = [
        "ADDRESS", "ID", "WHAT", "DRIVER", "GROUP", "NUMA", "MAC", "VLAN", "SPOOFCHK", "TRUST", "VFRING", "USED BY",
        "NAME",
    ];
    let columns = if with_names { titles.len() } else { titles.len() - 1 };
    let on = |value: Option<bool>| value.map(|on| if on { "on".to_owned() } else { "off".to_owned() });
    let number = |value: Option<u32>| value.map(|number| number.to_string());
    let mut table: Vec<Vec<String>> = vec![titles.map(str::to_owned).to_vec()];
    for row in rows {
        let function = &row.function;
        let pf_name = |vf: &vfring::pci::VfOrigin| {
            let pf = rows.iter().find(|other| other.function.address == vf.pf);
            pf.and_then(|pf| pf.interface.clone()).unwrap_or_else(|| vf.pf.to_string())
        };
        let what = match (&function.vf, function.sriov) {
            (Some(vf), _) => {
                format!("VF {} of {}", vf.index.map_or("?".into(), |index| index.to_string()), pf_name(vf))
            }
            (None, sriov) => {
                let (vfs, total) = sriov.map_or((0, 0), |sriov| (sriov.num_vfs, sriov.total_vfs));
                format!("PF {} with {vfs} of {total} VFs", row.interface.as_deref().unwrap_or("without interface"))
            }
        };
        // A group that is shared is marked: its devices go together.
        let group = function.iommu_group.as_ref();
        let group = group.map(|group| format!("{}{}", group.number, if group.members.len() > 1 { "*" } else { "" }));
        let admin = row.admin.clone().unwrap_or_default();
        let cells = [
            Some(function.address.to_string()),
            Some(function.id.to_string()),
            Some(what),
            function.driver.clone(),
            group,
            number(function.numa_node),
            admin.mac.map(|mac| mac.to_string()),
            admin.vlan.map(|(id, _)| id.to_string()),
            on(admin.spoof_check),
            on(admin.trust),
            driver(row),
            row.user.clone(),
            row.name.clone(),
        ];
        table.push(cells.map(|cell| cell.unwrap_or_else(|| "-".into())).to_vec());
    }
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &table {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", line.join("  ").trim_end());
    }
    if rows.iter().any(|row| row.function.iommu_group.as_ref().is_some_and(|group| group.members.len() > 1)) {
        println!("* the IOMMU group has other members: `--json` names them");
    }
}
