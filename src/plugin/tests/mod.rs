//! Tests of selection, health, explanations and answers on sysfs trees of the NICs that people have.

mod answers;
mod health;
mod preference;
mod selection;

use std::collections::BTreeMap;

use super::*;
use crate::addr::PciAddress;
use crate::host::Host;
use crate::pci::fake::FakeSysfs;

/// Something that happens to a machine.
type Act = fn(&FakeSysfs) -> &FakeSysfs;

const I350: [&str; 2] = ["0000:03:00.0", "0000:03:00.1"];

fn at(text: &str) -> PciAddress {
    text.parse().unwrap()
}

fn host(sysfs: &FakeSysfs) -> Host {
    Host { sysfs: sysfs.root(), dev: sysfs.dev(), proc: sysfs.root().path().join("proc") }
}

fn scan(sysfs: &FakeSysfs) -> Inventory {
    Inventory::scan(&host(sysfs)).unwrap()
}

/// The configuration of one pool `intel.com/r`.
fn one(selectors: &str) -> Config {
    config(&format!("{{\"resourceName\": \"r\", \"selectors\": {selectors}}}"))
}

/// A configuration by its pools.
fn config(pools: &str) -> Config {
    Config::parse(&format!("{{\"resourceList\": [{pools}]}}"), None).unwrap()
}

fn pools(config: &Config, sysfs: &FakeSysfs) -> Pools {
    Pools::new(config, &host(sysfs), &scan(sysfs))
}

fn addresses(pool: &Pool) -> Vec<String> {
    pool.devices().map(|device| device.address.to_string()).collect()
}

fn health(pools: &Pools, address: &str) -> Health {
    pools.list()[0].device(at(address)).unwrap().health().clone()
}

/// Two ports of an I350 with four VFs each, all of them on vfio-pci, on NUMA nodes 0 and 1.
fn i350() -> FakeSysfs {
    let sysfs = FakeSysfs::new();
    for (port, pf) in I350.iter().enumerate() {
        sysfs.pf(pf, "8086:1521", 7, 4).driver(pf, "igb").group(pf, 40 + port as u32);
        sysfs.interface(pf, &format!("ens802f{port}"), "a0:36:9f:00:00:01", true);
        for index in 0..4 {
            // The VFs of the two ports take turns: 10.0, 10.1, 10.4, 10.5, 11.0, …
            let (device, function) = (0x10 + index / 2, index % 2 * 4 + port as u32);
            let vf = format!("0000:03:{device:02x}.{function}");
            sysfs.vfio_vf(&vf, "8086:1520", pf, index, 50 + 10 * port as u32 + index);
            sysfs.write(&vf, "numa_node", &format!("{port}\n"));
        }
    }
    sysfs
}

/// Machines of one PF each: its id, the id of its VFs, and the addresses of two VFs.
const FAMILIES: [(&str, &str, &str, [&str; 2]); 5] = [
    ("82599", "8086:10fb", "8086:10ed", ["0000:04:10.0", "0000:04:10.2"]),
    ("X540", "8086:1528", "8086:1515", ["0000:04:10.0", "0000:04:10.2"]),
    ("I350", "8086:1521", "8086:1520", ["0000:04:10.0", "0000:04:10.4"]),
    ("XL710", "8086:1583", "8086:154c", ["0000:04:02.0", "0000:04:02.1"]),
    ("E810", "8086:1592", "8086:1889", ["0000:04:01.0", "0000:04:01.1"]),
];

fn machine(pf_id: &str, vf_id: &str, vfs: [&str; 2]) -> FakeSysfs {
    let (sysfs, pf) = (FakeSysfs::new(), "0000:04:00.0");
    sysfs.pf(pf, pf_id, 64, 2).driver(pf, "pf-driver").group(pf, 1).interface(pf, "p1p1", "00:1b:21:00:00:01", true);
    for (index, vf) in vfs.iter().enumerate() {
        sysfs.vfio_vf(vf, vf_id, pf, index as u32, 10 + index as u32);
    }
    sysfs
}
