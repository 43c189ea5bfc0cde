//! What kubelet is answered when it allocates and before a container starts.

use super::*;

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
