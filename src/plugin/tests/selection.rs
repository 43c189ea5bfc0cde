//! Which devices a pool selects, and in which order filters and pools have their say.

use super::*;

#[test]
fn every_family_is_selected_by_the_id_of_its_vfs_and_never_by_that_of_its_pf() {
    for (name, pf_id, vf_id, vfs) in FAMILIES {
        let sysfs = machine(pf_id, vf_id, vfs);
        let by = |id: &str| one(&format!("{{\"vendors\": [\"8086\"], \"devices\": [\"{}\"]}}", &id[5..]));
        assert_eq!(addresses(&pools(&by(vf_id), &sysfs).list()[0]), vfs, "{name}");
        let config = by(pf_id);
        assert_eq!(addresses(&pools(&config, &sysfs).list()[0]), [""; 0], "{name}");
        let text = explain(&config, &host(&sysfs), &scan(&sysfs)).to_string();
        let hint =
            format!("{} is the id of its PF 0000:04:00.0; the VF's own id is {1}: write {1}", &pf_id[5..], &vf_id[5..]);
        assert!(text.contains(&hint), "{name}: {text}");
    }
}

#[test]
fn each_filter_selects_what_it_says() {
    let sysfs = i350();
    sysfs.driver("0000:03:10.1", "igbvf").write("0000:03:10.0", "acpi_index", "101\n");
    sysfs.interface("0000:03:10.1", "enp3s16f1", "a0:36:9f:00:00:02", false);
    sysfs.device("0000:07:00.0", "15b3:1018").group("0000:07:00.0", 90);
    sysfs.interface("0000:07:00.0", "ib0", "", true).driver("0000:07:00.0", "mlx5_core");
    sysfs.device("0000:00:1f.2", "8086:2922").write("0000:00:1f.2", "class", "0x010601\n");
    let all = ["10.0", "10.1", "10.4", "10.5", "11.0", "11.1", "11.4", "11.5"];
    let rest = |port: &str| -> Vec<&str> { all.iter().copied().filter(|vf| vf.ends_with(port)).collect() };
    for (selectors, expected) in [
        ("{}", vec!["07:00.0"].into_iter().chain(all).collect()),
        ("{\"vendors\": [\"8086\"]}", all.to_vec()),
        ("{\"vendors\": [\"0x8086\"]}", vec![]),
        ("{\"vendors\": [\"15b3\", \"8086\"], \"devices\": [\"1018\"]}", vec!["07:00.0"]),
        ("{\"drivers\": [\"igbvf\"]}", vec!["10.1"]),
        ("{\"drivers\": [\"vfio\"]}", vec![]),
        ("{\"pciAddresses\": [\"0000:03:11.5\", \"0000:03:00.0\"]}", vec!["11.5"]),
        ("{\"pciAddresses\": [\"03:11.5\"]}", vec![]),
        ("{\"acpiIndexes\": [\"101\"]}", vec!["10.0"]),
        ("{\"pfNames\": [\"ens802f1\"]}", [rest("1"), rest("5")].concat()),
        ("{\"pfNames\": [\"ENS802F0#1-2\"]}", vec!["10.4", "11.0"]),
        ("{\"pfNames\": [\"ens802f0#0,3\", \"ens802f1#2\"]}", vec!["10.0", "11.1", "11.4"]),
        // The first entry of a name decides.
        ("{\"pfNames\": [\"ens802f0#0\", \"ens802f0\"]}", vec!["10.0"]),
        ("{\"pfNames\": [\"ib0\"]}", vec!["07:00.0"]),
        ("{\"pfNames\": [\"ib0#0\"]}", vec![]),
        ("{\"rootDevices\": [\"0000:03:00.1#3\"]}", vec!["11.5"]),
        ("{\"rootDevices\": [\"03:00.1\"]}", vec![]),
        ("{\"linkTypes\": [\"ether\"], \"pfNames\": [\"ens802f0#0\"]}", vec!["10.0"]),
        ("{\"linkTypes\": [\"infiniband\"]}", vec![]),
        ("{\"vendors\": [\"8086\"], \"pfNames\": [\"ens802f1#0\"], \"drivers\": [\"vfio-pci\"]}", vec![]),
        ("[{\"acpiIndexes\": [\"101\"]}, {\"rootDevices\": [\"0000:03:00.1#3\"]}]", vec!["10.0", "11.5"]),
        ("[]", vec![]),
    ] {
        let config = one(selectors);
        let inventory = scan(&sysfs);
        let selected = |device: &&Candidate| pool::selects(&config.pools[0], device);
        let mut found: Vec<String> =
            inventory.candidates.values().filter(selected).map(|device| device.function.address.to_string()).collect();
        let mut expected: Vec<String> = expected
            .iter()
            .map(|vf: &&str| if vf.len() == 4 { format!("0000:03:{vf}") } else { format!("0000:{vf}") })
            .collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{selectors}");
    }
}

#[test]
fn filters_are_asked_in_their_order() {
    let sysfs = i350();
    let inventory = scan(&sysfs);
    let vf = &inventory.candidates[&at("0000:03:10.0")];
    let keys = ["vendors", "devices", "drivers", "pciAddresses", "acpiIndexes", "pfNames", "rootDevices", "linkTypes"];
    for (i, key) in keys.iter().enumerate() {
        // All filters from here on fail; the first of them is named.
        let body: Vec<String> = keys[i..].iter().rev().map(|key| format!("\"{key}\": [\"x\"]")).collect();
        let config = one(&format!("{{{}}}", body.join(", ")));
        assert_eq!(config.pools[0].selectors[0].check(vf).unwrap_err().key, *key);
    }
}

#[test]
fn sparse_numbers_of_vfs_are_those_of_the_links() {
    let sysfs = FakeSysfs::new();
    sysfs.pf("0000:3b:00.0", "8086:1572", 64, 3).interface("0000:3b:00.0", "ens1f0", "", true);
    for (vf, index) in [("0000:3b:02.0", 10), ("0000:3b:02.1", 2), ("0000:3b:02.7", 31)] {
        sysfs.vfio_vf(vf, "8086:154c", "0000:3b:00.0", index, index);
    }
    let config = one("{\"pfNames\": [\"ens1f0#2,20-40\"]}");
    assert_eq!(addresses(&pools(&config, &sysfs).list()[0]), ["0000:3b:02.1", "0000:3b:02.7"]);
}

#[test]
fn an_earlier_pool_has_first_choice_even_of_what_is_not_fit() {
    let sysfs = i350();
    sysfs.driver("0000:03:10.4", "igbvf");
    let config = config(
        "{\"resourceName\": \"a\", \"selectors\": {\"pfNames\": [\"ens802f0#0-1\"]}}, \
         {\"resourceName\": \"b\", \"selectors\": {\"pfNames\": [\"ens802f0\"]}}",
    );
    let pools = pools(&config, &sysfs);
    assert_eq!(addresses(&pools.list()[0]), ["0000:03:10.0"]);
    assert_eq!(addresses(&pools.list()[1]), ["0000:03:11.0", "0000:03:11.4"]);
    let text = explain(&config, &host(&sysfs), &scan(&sysfs)).to_string();
    assert!(text.contains("0000:03:10.0 (8086:1520, VF 0 of ens802f0 (0000:03:00.0), vfio-pci): advertised, IOMMU group 50, NUMA node 0\n"), "{text}");
    assert!(text.contains("): selected, not advertised: intel.com/a comes first and has it\n"), "{text}");
    assert!(text.contains("it is bound to igbvf, not to vfio-pci; `vfring bind` binds it\n"), "{text}");
    assert!(text.contains("never handed out: a PF with 4 VFs\n"), "{text}");
}

#[test]
fn accelerators_are_told_by_their_class() {
    let sysfs = i350();
    sysfs.device("0000:08:00.0", "8086:0b30").write("0000:08:00.0", "class", "0x120000\n");
    sysfs.driver("0000:08:00.0", "vfio-pci").group("0000:08:00.0", 80).node("80");
    let config = config("{\"resourceName\": \"a\", \"deviceType\": \"accelerator\"}, {\"resourceName\": \"b\"}");
    let pools = pools(&config, &sysfs);
    assert_eq!(addresses(&pools.list()[0]), ["0000:08:00.0"]);
    assert_eq!(pools.list()[1].devices().len(), 8);
}

#[test]
fn a_pool_with_an_error_is_explained_and_not_served() {
    let sysfs = i350();
    // The mistakes of a published guide: a key that does not exist, and the id of the PF.
    let config = config(
        "{\"resourceName\": \"intel_sriov_dpdk\", \"selectors\": {\"vendors\": [\"8086\"], \"devices\": [\"1521\"], \
         \"drivers\": [\"vfio-pci\"], \"pfName\": [\"ens802f0\"]}}, {\"resourceName\": \"rest\"}",
    );
    assert_eq!(pools(&config, &sysfs).list().len(), 1);
    assert_eq!(pools(&config, &sysfs).list()[0].devices().len(), 8);
    let text = explain(&config, &host(&sysfs), &scan(&sysfs)).to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "intel.com/intel_sriov_dpdk: 0 devices, NOT SERVED: its configuration has an error");
    assert_eq!(
        lines[1],
        "  error: resourceList[0].selectors.pfName: there is no key 'pfName'; 'pfNames' is probably meant"
    );
    assert!(text.contains("devices asks for 1521, and it has 1520 (1521 is the id of its PF 0000:03:00.0"), "{text}");
    let problems: Vec<String> =
        validate(&config, &host(&sysfs), &scan(&sysfs)).iter().map(Problem::to_string).collect();
    assert_eq!(problems[0], lines[1].trim());
    assert_eq!(
        problems[1],
        "warning: resourceList[0].selectors.devices[0]: 1521 is the id of a PF (0000:03:00.0), and PFs with VFs are \
         never handed out; write 1520, the id of its VFs"
    );
    assert!(problems[2].contains("match no device of this host") && problems.len() == 3, "{problems:#?}");
    assert!(problems.iter().all(|problem| !problem.contains('\n')));
}

#[test]
fn what_a_configuration_gets_wrong_on_a_host_is_said() {
    let sysfs = i350();
    sysfs.remove_node("51");
    let config = config(
        "{\"resourceName\": \"a\", \"selectors\": {\"pfNames\": [\"ens802f0#0-7\", \"eth9\"]}}, \
         {\"resourceName\": \"b\", \"selectors\": [{\"rootDevices\": [\"0000:03:00.0#3\", \"0000:99:00.0\"]}, {\"drivers\": [\"x\"]}]}",
    );
    let problems: Vec<String> =
        validate(&config, &host(&sysfs), &scan(&sysfs)).iter().map(Problem::to_string).collect();
    let expected = [
        "[0].selectors.pfNames[0]: VF 7 is out of range: ens802f0 has at most 7, from 0",
        "[0].selectors.pfNames[1]: 'eth9' is no PF of this host; there are: ens802f0, ens802f1",
        "[1].selectors[0].rootDevices[1]: '0000:99:00.0' is no PF of this host; there are: 0000:03:00.0, 0000:03:00.1",
        "[1]: overlaps with intel.com/a, which has first choice: 0000:03:11.4",
        "[0]: 0000:03:10.4 is not advertised: ",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, part) in problems.iter().zip(expected) {
        assert!(problem.starts_with(&format!("warning: resourceList{part}")), "{problem}");
    }
}

#[test]
fn a_good_configuration_has_no_problems() {
    let config = one("{\"vendors\": [\"8086\"], \"devices\": [\"1520\"], \"pfNames\": [\"ens802f0#0-3\"]}");
    assert_eq!(validate(&config, &host(&i350()), &scan(&i350())), []);
}
