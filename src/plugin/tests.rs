//! Tests of selection, health, explanations and answers on sysfs trees of the NICs that people have.

use std::collections::BTreeMap;

use super::*;
use crate::addr::PciAddress;
use crate::host::Host;
use crate::pci::fake::FakeSysfs;

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

// --- selection -------------------------------------------------------------------------------------------------------

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

// --- groups ----------------------------------------------------------------------------------------------------------

#[test]
fn a_group_of_several_vfs_is_advertised_once_under_its_lowest() {
    let sysfs = i350();
    sysfs.group("0000:03:10.4", 50).group("0000:03:11.0", 50);
    let config = config(
        "{\"resourceName\": \"a\", \"selectors\": {\"pfNames\": [\"ens802f0#0-1\"]}}, \
         {\"resourceName\": \"b\", \"selectors\": {\"pfNames\": [\"ens802f0\"]}}",
    );
    let pools = pools(&config, &sysfs);
    assert_eq!(addresses(&pools.list()[0]), ["0000:03:10.0"]);
    assert_eq!(addresses(&pools.list()[1]), ["0000:03:11.4"], "a group belongs to one pool");
    let text = explain(&config, &host(&sysfs), &scan(&sysfs)).to_string();
    assert_eq!(text.matches("it shares IOMMU group 50 with 0000:03:10.0").count(), 2, "{text}");
}

#[test]
fn a_group_shared_with_a_device_of_the_kernel_is_not_advertised_and_all_members_are_listed() {
    let sysfs = i350();
    sysfs.device("0000:00:04.0", "8086:2030").driver("0000:00:04.0", "pcieport").group("0000:00:04.0", 50);
    sysfs.group("0000:03:10.4", 50).driver("0000:03:10.4", "igbvf").device("0000:05:00.0", "8086:1533");
    sysfs.group("0000:05:00.0", 50);
    let config = one("{\"pfNames\": [\"ens802f0#0\"]}");
    let pools = pools(&config, &sysfs);
    assert_eq!(pools.list()[0].devices().len(), 0);
    let text = pools.list()[0].omitted()[0].cause.to_string();
    assert!(
        text.contains(
            "the members are 0000:00:04.0 (pcieport), 0000:03:10.0 (vfio-pci), 0000:03:10.4 (igbvf), \
             0000:05:00.0 (no driver);"
        ),
        "{text}"
    );
}

#[test]
fn devices_without_an_iommu_need_to_be_allowed() {
    let sysfs = i350();
    sysfs.group_name(50, "vfio-noiommu").node("noiommu-50");
    let refused = pools(&one("{\"pfNames\": [\"ens802f0#0\"]}"), &sysfs);
    assert_eq!(refused.list()[0].omitted()[0].cause, Cause::NoIommu);
    let allowed =
        config("{\"resourceName\": \"r\", \"selectors\": {\"pfNames\": [\"ens802f0#0\"]}, \"allowNoIommu\": true}");
    let pools = pools(&allowed, &sysfs);
    let given = allocate(&pools.list()[0], &["0000:03:10.0"]).unwrap();
    assert_eq!(
        (given.devices[1].host_path.as_str(), given.devices[1].container_path.as_str()),
        ("/dev/vfio/noiommu-50", "/dev/vfio/50")
    );
    // The node with an IOMMU's name does not count.
    sysfs.remove_node("noiommu-50");
    assert!(allocate(&pools.list()[0], &["0000:03:10.0"]).unwrap_err().to_string().contains("noiommu-50 is missing"));
}

// --- health ----------------------------------------------------------------------------------------------------------

#[test]
fn what_is_not_fit_at_first_is_not_advertised_and_joins_when_it_is() {
    let sysfs = i350();
    sysfs.remove("0000:03:10.0", "driver");
    let config = one("{\"pfNames\": [\"ens802f0#0-1\"]}");
    let mut pools = pools(&config, &sysfs);
    assert_eq!(addresses(&pools.list()[0]), ["0000:03:10.4"]);
    assert_eq!(pools.list()[0].omitted()[0].cause, Cause::Driver(None));
    sysfs.driver("0000:03:10.0", "vfio-pci");
    assert_eq!(pools.update(&scan(&sysfs)), [(0, Change::Added(at("0000:03:10.0")))]);
    assert_eq!((pools.list()[0].devices().len(), pools.list()[0].omitted().len()), (2, 0));
}

#[test]
fn an_empty_pool_is_a_pool_and_fills_later() {
    let sysfs = FakeSysfs::new();
    let mut pools = pools(&one("{}"), &sysfs);
    assert_eq!((pools.list().len(), pools.list()[0].devices().len()), (1, 0));
    sysfs.pf("0000:01:00.0", "8086:10c9", 8, 1).vfio_vf("0000:01:10.0", "8086:10ca", "0000:01:00.0", 0, 5);
    assert_eq!(pools.update(&scan(&sysfs)).len(), 1);
}

/// Each way in which a device turns bad, how it is mended, and the label of its cause.
type Ailment = (Act, Act, &'static str);
/// Something that happens to a machine.
type Act = fn(&FakeSysfs) -> &FakeSysfs;

#[test]
fn every_ailment_is_noticed_and_outlived() {
    const VF: &str = "0000:03:10.0";
    let ailments: [Ailment; 7] = [
        (|s| s.driver(VF, "igbvf"), |s| s.driver(VF, "vfio-pci"), "driver"),
        (|s| s.remove(VF, "driver"), |s| s.driver(VF, "vfio-pci"), "driver"),
        (|s| s.remove_node("50"), |s| s.node("50"), "node_missing"),
        (|s| s.remove(VF, "iommu_group"), |s| s.group(VF, 50), "no_group"),
        (|s| s.write_bytes(VF, "config", &[0xff; 64]), |s| s.write_bytes(VF, "config", &[0; 64]), "silent"),
        (|s| s.write(VF, "vendor", "?"), |s| s.write(VF, "vendor", "0x8086"), "unreadable"),
        (
            |s| s.device("0000:05:00.0", "8086:1533").group("0000:05:00.0", 50).driver("0000:05:00.0", "igb"),
            |s| s.driver("0000:05:00.0", "vfio-pci"),
            "not_viable",
        ),
    ];
    for (spoil, mend, label) in ailments {
        let sysfs = i350();
        let mut pools = pools(&one("{\"pfNames\": [\"ens802f0#0\"]}"), &sysfs);
        spoil(&sysfs);
        assert_eq!(pools.update(&scan(&sysfs)), [], "{label}: one scan is not believed");
        assert_eq!(health(&pools, VF), Health::Healthy);
        assert_eq!(pools.update(&scan(&sysfs)).len(), 1, "{label}");
        let Health::Unhealthy(cause) = health(&pools, VF) else { panic!("{label}: healthy") };
        assert_eq!(cause.label(), label);
        assert!(!cause.to_string().contains('\n') && cause.to_string().len() > 20);
        mend(&sysfs);
        assert_eq!(pools.update(&scan(&sysfs)), [], "{label}: one scan is not believed");
        assert_eq!(pools.update(&scan(&sysfs)), [(0, Change::Health(at(VF), Health::Healthy))], "{label}");
    }
}

#[test]
fn a_device_that_is_gone_stays_listed_and_comes_back() {
    let sysfs = i350();
    let mut pools = pools(&one("{\"pfNames\": [\"ens802f0#0\"]}"), &sysfs);
    sysfs.remove(I350[0], "virtfn0").unplug("0000:03:10.0");
    let gone = (0, Change::Health(at("0000:03:10.0"), Health::Unhealthy(Cause::Gone)));
    assert_eq!((pools.update(&scan(&sysfs)), pools.update(&scan(&sysfs))), (vec![], vec![gone]));
    assert_eq!(addresses(&pools.list()[0]), ["0000:03:10.0"]);
    // It comes back in another group, which is then the one handed out.
    sysfs.vfio_vf("0000:03:10.0", "8086:1520", I350[0], 0, 77);
    pools.update(&scan(&sysfs));
    assert_eq!(pools.update(&scan(&sysfs)).len(), 1);
    let given = allocate(&pools.list()[0], &["0000:03:10.0"]).unwrap();
    assert_eq!(given.devices[1].host_path, "/dev/vfio/77");
}

#[test]
fn a_flicker_is_not_believed_and_a_device_does_not_change_its_pool() {
    let sysfs = i350();
    let config = config(
        "{\"resourceName\": \"vfio\", \"selectors\": {\"drivers\": [\"vfio-pci\"], \"pfNames\": [\"ens802f0#0\"]}}, \
         {\"resourceName\": \"other\", \"selectors\": {\"pfNames\": [\"ens802f0#0\"]}}",
    );
    let mut pools = pools(&config, &sysfs);
    for driver in ["igbvf", "vfio-pci", "igbvf", "vfio-pci"] {
        sysfs.driver("0000:03:10.0", driver);
        assert_eq!(pools.update(&scan(&sysfs)), []);
    }
    sysfs.driver("0000:03:10.0", "igbvf");
    pools.update(&scan(&sysfs));
    pools.update(&scan(&sysfs));
    assert_eq!(addresses(&pools.list()[0]), ["0000:03:10.0"]);
    assert_eq!((pools.list()[1].devices().len(), pools.list()[1].omitted().len()), (0, 0));
}

// --- answers ---------------------------------------------------------------------------------------------------------

#[test]
fn a_container_gets_byte_for_byte_what_the_other_plugin_gives() {
    let sysfs = FakeSysfs::new();
    sysfs.pf("0000:4b:00.0", "8086:1592", 64, 2);
    sysfs.vfio_vf("0000:4b:01.0", "8086:1889", "0000:4b:00.0", 0, 314);
    sysfs.vfio_vf("0000:4b:01.1", "8086:1889", "0000:4b:00.0", 1, 315);
    let plain = config("{\"resourceName\": \"intel_sriov_dpdk\"}");
    let pools = pools(&plain, &sysfs);
    let given = allocate(&pools.list()[0], &["0000:4b:01.0"]).unwrap();
    let node = |path: &str| DeviceNode { host_path: path.into(), container_path: path.into(), permissions: "rw" };
    assert_eq!(given.devices, [node("/dev/vfio/vfio"), node("/dev/vfio/314")]);
    let variables: Vec<(&str, &str)> = given.variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        variables,
        [
            ("PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK", "0000:4b:01.0"),
            (
                "PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK_INFO",
                r#"{"0000:4b:01.0":{"generic":{"deviceID":"0000:4b:01.0"},"vfio":{"dev-mount":"/dev/vfio/314","mount":"/dev/vfio/vfio"}}}"#
            ),
        ]
    );
    assert_eq!(given.groups, BTreeMap::from([(at("0000:4b:01.0"), 314)]));
    // Kubelet's order is random, and each device comes once.
    let both = allocate(&pools.list()[0], &["0000:4b:01.1", "0000:4b:01.0", "0000:4b:01.1"]).unwrap();
    assert_eq!(both.variables["PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK"], "0000:4b:01.0,0000:4b:01.1");
    assert_eq!(both.devices, [node("/dev/vfio/vfio"), node("/dev/vfio/314"), node("/dev/vfio/315")]);
}

#[test]
fn additional_info_goes_into_extra_and_the_exact_address_wins() {
    let sysfs = i350();
    let config = config(
        "{\"resourceName\": \"r\", \"resourcePrefix\": \"a.b-c\", \"additionalInfo\": {\"*\": {\"z\": \"<all>\", \"a\": \"1\"}, \
         \"0000:03:10.0\": {\"z\": \"own\"}}}",
    );
    let pools = pools(&config, &sysfs);
    let given = allocate(&pools.list()[0], &["0000:03:10.1", "0000:03:10.0"]).unwrap();
    assert_eq!(
        given.variables["PCIDEVICE_A_B-C_R_INFO"],
        concat!(
            r#"{"0000:03:10.0":{"extra":{"a":"1","z":"own"},"generic":{"deviceID":"0000:03:10.0"},"#,
            r#""vfio":{"dev-mount":"/dev/vfio/50","mount":"/dev/vfio/vfio"}},"#,
            r#""0000:03:10.1":{"extra":{"a":"1","z":"\u003call\u003e"},"generic":{"deviceID":"0000:03:10.1"},"#,
            r#""vfio":{"dev-mount":"/dev/vfio/60","mount":"/dev/vfio/vfio"}}}"#
        )
    );
}

#[test]
fn ids_are_sorted_as_text_as_multus_sorts_them() {
    let sysfs = FakeSysfs::new();
    sysfs.pf("0000:e1:00.0", "8086:1592", 64, 1).pf("10000:01:00.0", "8086:1592", 64, 1);
    sysfs.vfio_vf("0000:e1:01.0", "8086:1889", "0000:e1:00.0", 0, 1);
    sysfs.vfio_vf("10000:01:01.0", "8086:1889", "10000:01:00.0", 0, 2);
    sysfs.pf("2000:01:00.0", "8086:1592", 64, 1).vfio_vf("2000:01:01.0", "8086:1889", "2000:01:00.0", 0, 3);
    let pools = pools(&one("{}"), &sysfs);
    let given = allocate(&pools.list()[0], &["2000:01:01.0", "10000:01:01.0", "0000:e1:01.0"]).unwrap();
    assert_eq!(given.variables["PCIDEVICE_INTEL_COM_R"], "0000:e1:01.0,10000:01:01.0,2000:01:01.0");
}

#[test]
fn what_was_never_advertised_is_refused() {
    let sysfs = i350();
    let pools = pools(&one("{\"pfNames\": [\"ens802f0#0-1\"]}"), &sysfs);
    let pool = &pools.list()[0];
    for id in ["0000:03:10.1", "0000:03:00.0", "0000:99:00.0", "", "../../etc/passwd", "03:10.0", "0000:03:10.0 ", "é"]
    {
        for ids in [vec![id], vec!["0000:03:10.0", id]] {
            let error = allocate(pool, &ids).unwrap_err().to_string();
            assert!(error.contains(&format!("'{id}' was never advertised")), "{error}");
            assert!(error.contains("this resource has 0000:03:10.0, 0000:03:10.4"), "{error}");
            assert!(pre_start(pool, &ids, &BTreeMap::new()).is_err());
        }
    }
    assert!(allocate::<&str>(pool, &[]).unwrap_err().to_string().contains("no device is asked for"));
}

#[test]
fn an_allocation_reads_the_state_anew_and_is_never_half() {
    let spoils: [(Act, &str); 5] = [
        (|s| s.driver("0000:03:10.4", "igbvf"), "it is bound to igbvf"),
        (|s| s.remove("0000:03:10.4", "iommu_group"), "no IOMMU group"),
        (|s| s.remove_node("51"), "/dev/vfio/51 is missing"),
        (|s| s.remove(I350[0], "virtfn1").unplug("0000:03:10.4"), "gone from the PCI bus"),
        (
            |s| s.device("0000:05:00.0", "8086:1533").group("0000:05:00.0", 51).driver("0000:05:00.0", "igb"),
            "0000:05:00.0 (igb)",
        ),
    ];
    for (spoil, part) in spoils {
        let sysfs = i350();
        let pools = pools(&one("{}"), &sysfs);
        spoil(&sysfs);
        let ids = ["0000:03:10.0", "0000:03:10.4"];
        for result in [allocate(&pools.list()[0], &ids).map(drop), pre_start(&pools.list()[0], &ids, &BTreeMap::new())]
        {
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with("0000:03:10.4: cannot be given to a pod: ") && error.contains(part), "{error}");
        }
        assert!(allocate(&pools.list()[0], &["0000:03:10.0"]).is_ok());
    }
}

#[test]
fn a_container_that_starts_again_is_refused_when_its_group_has_another_number() {
    let sysfs = i350();
    let pools = pools(&one("{}"), &sysfs);
    let pool = &pools.list()[0];
    let told = allocate(pool, &["0000:03:10.0", "0000:03:10.4"]).unwrap().groups;
    pre_start(pool, &["0000:03:10.0"], &told).unwrap();
    sysfs.group("0000:03:10.0", 70).node("70");
    let error = pre_start(pool, &["0000:03:10.4", "0000:03:10.0"], &told).unwrap_err().to_string();
    assert!(error.starts_with("0000:03:10.0: the container was given /dev/vfio/50"), "{error}");
    assert!(error.contains("IOMMU group 70 now") && error.contains("delete the pod"), "{error}");
    pre_start(pool, &["0000:03:10.0"], &BTreeMap::new()).unwrap();
}

// --- preference ------------------------------------------------------------------------------------------------------

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
