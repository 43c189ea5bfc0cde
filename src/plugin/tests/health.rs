//! Groups and health: what is advertised, what is left out, and what changes while it is.

use super::*;

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
