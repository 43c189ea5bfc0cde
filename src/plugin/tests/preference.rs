//! Which devices kubelet is advised to take together.

use super::*;

/// Two PFs on each of two NUMA nodes; the first PF of each node has three VFs, the second has two.
fn four_ports() -> FakeSysfs {
    let sysfs = FakeSysfs::new();
    for pf in 0..4u32 {
        let vfs = 3 - pf % 2;
        let address = format!("0000:{pf:02x}:00.0");
        sysfs.pf(&address, "8086:1592", 64, vfs);
        for index in 0..vfs {
            let vf = format!("0000:{pf:02x}:01.{index}");
            sysfs.vfio_vf(&vf, "8086:1889", &address, index, 10 * pf + index);
            sysfs.write(&vf, "numa_node", &format!("{}\n", pf / 2));
        }
    }
    sysfs
}

fn prefer(sysfs: &FakeSysfs, preference: &str, available: &[&str], required: &[&str], size: usize) -> Vec<String> {
    let config = config(&format!("{{\"resourceName\": \"r\", \"preferredAllocation\": \"{preference}\"}}"));
    let pools = pools(&config, sysfs);
    let full = |short: &&str| format!("0000:{short}");
    let (available, required): (Vec<String>, Vec<String>) =
        (available.iter().map(full).collect(), required.iter().map(full).collect());
    let chosen = preferred(&pools.list()[0], &available, &required, size).unwrap();
    chosen.iter().map(|address| address.to_string()[5..].to_owned()).collect()
}

const ALL: [&str; 10] =
    ["00:01.0", "00:01.1", "00:01.2", "01:01.0", "01:01.1", "02:01.0", "02:01.1", "02:01.2", "03:01.0", "03:01.1"];

#[test]
fn devices_come_from_one_node_spread_or_packed_over_its_pfs() {
    let sysfs = four_ports();
    for (preference, available, required, size, expected) in [
        ("spread", &ALL[..], &[][..], 2, &["00:01.0", "01:01.0"][..]),
        ("spread", &ALL, &[], 4, &["00:01.0", "00:01.1", "01:01.0", "01:01.1"]),
        ("pack", &ALL, &[], 3, &["00:01.0", "00:01.1", "00:01.2"]),
        // The tightest fit leaves the larger PF whole.
        ("pack", &ALL, &[], 2, &["01:01.0", "01:01.1"]),
        // Where something must be on node 1, the rest is there too.
        ("spread", &ALL, &["03:01.1"], 3, &["02:01.0", "02:01.1", "03:01.1"]),
        ("pack", &ALL, &["02:01.2"], 2, &["02:01.0", "02:01.2"]),
        // The node that has enough, though the other is lower.
        ("spread", &["00:01.0", "02:01.0", "02:01.1"], &[], 2, &["02:01.0", "02:01.1"]),
        // The node that has just enough.
        ("spread", &["00:01.0", "00:01.1", "02:01.0"], &[], 1, &["02:01.0"]),
        // No node has enough: the larger part first.
        ("spread", &["00:01.0", "02:01.0", "02:01.1"], &[], 3, &["00:01.0", "02:01.0", "02:01.1"]),
        ("spread", &ALL, &["00:01.0", "02:01.0"], 2, &["00:01.0", "02:01.0"]),
        ("spread", &ALL, &[], 0, &[]),
    ] {
        assert_eq!(prefer(&sysfs, preference, available, required, size), expected, "{preference} {size} {required:?}");
    }
    let mut reversed = ALL;
    reversed.reverse();
    assert_eq!(prefer(&sysfs, "spread", &reversed, &[], 2), ["00:01.0", "01:01.0"], "any order of the question");
}

#[test]
fn a_node_with_free_hugepages_is_preferred() {
    let sysfs = four_ports();
    for (name, pages) in [("nr_hugepages", "600\n"), ("free_hugepages", "512\n")] {
        sysfs.file(&format!("devices/system/node/node1/hugepages/hugepages-2048kB/{name}"), pages);
    }
    assert_eq!(host(&sysfs).free_hugepages(1), 1 << 30);
    assert_eq!(prefer(&sysfs, "spread", &ALL, &[], 2), ["02:01.0", "03:01.0"]);
    // But not at the price of two nodes.
    assert_eq!(prefer(&sysfs, "spread", &["00:01.0", "00:01.1", "02:01.0"], &[], 2), ["00:01.0", "00:01.1"]);
}

#[test]
fn preferences_that_cannot_be_met_are_refused() {
    let sysfs = four_ports();
    let pools = pools(&one("{}"), &sysfs);
    let ask = |available: &[&str], required: &[&str], size| {
        preferred(&pools.list()[0], available, required, size).unwrap_err().to_string()
    };
    assert!(ask(&["0000:00:01.0"], &[], 2).contains("2 devices are asked for, with 0 required and 1 more available"));
    assert!(ask(&["0000:00:01.0"], &["0000:00:01.0"], 2).contains("1 required and 0 more"));
    assert!(ask(&[], &["0000:00:01.0"], 0).contains("0 devices are asked for, with 1 required"));
    assert!(ask(&["0000:00:00.0"], &[], 1).contains("'0000:00:00.0' was never advertised"));
}
