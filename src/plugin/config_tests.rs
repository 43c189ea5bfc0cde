//! Tests of reading configurations.

use super::*;

/// Problems as one line each.
fn problems(text: &str) -> Vec<String> {
    Config::parse(text, None).unwrap().problems.iter().map(Problem::to_string).collect()
}

fn pool(body: &str) -> String {
    format!("{{\"resourceList\": [{{\"resourceName\": \"r\", {body}}}]}}")
}

/// The one problem of a pool, which must begin with `severity: resourceList[0].` and have all the parts.
fn refused(body: &str, severity: &str, parts: &[&str]) {
    let text = pool(body);
    let found = problems(&text);
    assert_eq!(found.len(), 1, "{body}: {found:#?}");
    assert!(found[0].starts_with(&format!("{severity}: resourceList[0].")), "{}", found[0]);
    for part in parts {
        assert!(found[0].contains(part), "'{part}' is not in: {}", found[0]);
    }
    assert_eq!(Config::parse(&text, None).unwrap().pools[0].usable, severity == "warning", "{body}");
}

#[test]
fn what_is_quoted_stays_on_one_line() {
    refused(r#""selectors": {"pfNames": ["eth0#0-9\n9"]}"#, "error", &[r"'eth0#0-9\n9'", "is no number"]);
    let found = problems(&pool(r#""selec\r\ntors": {}"#));
    assert!(found.iter().all(|text| !text.contains(char::is_control)), "{found:?}");
    assert!(found.iter().any(|text| text.contains(r"selec\r\ntors")), "{found:?}");
}

#[test]
fn a_configuration_of_the_other_plugin_is_taken_unchanged() {
    let config = Config::parse(
        r#"{"resourceList": [
            {"resourceName": "intel_sriov_netdevice", "selectors": {"vendors": ["8086"], "devices": ["154c", "10ed"],
                "drivers": ["i40evf", "iavf", "ixgbevf"]}},
            {"resourceName": "intel_sriov_dpdk", "resourcePrefix": "example.org", "selectors": [
                {"vendors": ["8086"], "devices": ["154c"], "drivers": ["vfio-pci"], "pfNames": ["ens785f0#0-3,5", "eth1"]},
                {"rootDevices": ["0000:86:00.0#7"], "linkTypes": ["ether"], "acpiIndexes": ["101"]}],
             "additionalInfo": {"*": {"token": "t"}, "0000:86:02.1": {"token": "own"}}, "excludeTopology": true}]}"#,
        None,
    )
    .unwrap();
    assert_eq!(config.problems, []);
    let (first, second) = (&config.pools[0], &config.pools[1]);
    assert_eq!(first.resource.as_ref().unwrap().to_string(), "intel.com/intel_sriov_netdevice");
    assert_eq!(first.selectors[0].devices, ["154c", "10ed"]);
    assert_eq!((first.device_type, first.exclude_topology, first.usable), (DeviceType::NetDevice, false, true));
    assert_eq!(second.resource.as_ref().unwrap().to_string(), "example.org/intel_sriov_dpdk");
    let expected =
        [Parent { name: "ens785f0".into(), vfs: Some(vec![0..=3, 5..=5]) }, Parent { name: "eth1".into(), vfs: None }];
    assert_eq!(second.selectors[0].pf_names, expected);
    assert_eq!(second.selectors[0].pf_names[0].to_string(), "ens785f0#0-3,5");
    assert_eq!(second.selectors[1].root_devices[0].to_string(), "0000:86:00.0#7");
    assert_eq!(second.selectors[1].acpi_indexes, ["101"]);
    assert!(second.exclude_topology);
    assert_eq!(second.additional_info.as_ref().unwrap()["0000:86:02.1"]["token"], "own");
}

#[test]
fn what_the_operator_writes_is_taken() {
    let config = Config::parse(
        r#"{"resourceList":[{"resourceName":"r","selectors":{"vendors":["8086"],"pfNames":["eno1#0-4"],
            "IsRdma":false,"NeedVhostNet":false,"vdpaType":"","ddpProfiles":[]},"SelectorObj":null}]}"#,
        Some("openshift.io"),
    )
    .unwrap();
    assert_eq!(config.problems, []);
    assert_eq!(config.pools[0].resource.as_ref().unwrap().to_string(), "openshift.io/r");
    assert_eq!(config.pools[0].selectors[0].vendors, ["8086"]);
}

#[test]
fn no_selectors_and_empty_ones_mean_everything_but_an_empty_list_means_nothing() {
    let selectors = |text: &str| Config::parse(text, None).unwrap().pools[0].selectors.clone();
    let everything = [Selector::default()];
    assert_eq!(selectors("{\"resourceList\": [{\"resourceName\": \"r\"}]}"), everything);
    assert_eq!(selectors(&pool("\"selectors\": null")), everything);
    assert_eq!(selectors(&pool("\"selectors\": {}")), everything);
    assert_eq!(selectors(&pool("\"selectors\": [{}]")), everything);
    assert_eq!(selectors(&pool("\"selectors\": []")), []);
    refused("\"selectors\": []", "warning", &["selects nothing"]);
}

#[test]
fn broken_json_is_refused_with_line_and_column() {
    for (text, part) in [
        ("", "line 1 column 0"),
        ("{\"resourceList\": [\n  {\"resourceName\": \"r\",}\n]}", "line 2 column 24"),
        ("{\"resourceList\": [}", "line 1 column 19"),
        ("[]", "no JSON object"),
        ("{\"resources\": []}", "no list 'resourceList', only: resources"),
        ("{\"resourceList\": {}}", "no list 'resourceList'"),
        ("kind: ConfigMap\ndata:\n  config.json: |\n    {}", "below its `config.json: |`"),
    ] {
        let error = Config::parse(text, None).unwrap_err().to_string();
        assert!(error.contains(part) && !error.contains('\n'), "'{part}' is not in: {error}");
    }
}

#[test]
fn a_key_that_does_not_exist_is_an_error_that_names_the_one_that_is_meant() {
    refused("\"selectors\": {\"pfName\": [\"eth0\"]}", "error", &["selectors.pfName", "'pfNames' is probably meant"]);
    refused("\"selectors\": [{}, {\"Vendor\": []}]", "error", &["selectors[1].Vendor", "'vendors'"]);
    refused("\"selector\": {}", "error", &["'selectors' is probably meant"]);
    refused("\"frobnicate\": 1", "error", &["there is no key 'frobnicate'; there are resourceName, "]);
    let found = problems("{\"resourceList\": [], \"x\": 1}");
    assert_eq!(found, ["error: x: there is no key 'x'; there are resourceList"]);
    // Everything that is wrong is said at once.
    assert_eq!(problems(&pool("\"selectors\": {\"a\": 1, \"b\": 2, \"vendors\": [\"0x8086\"]}")).len(), 3);
}

#[test]
fn keys_match_in_any_letter_case_but_not_twice() {
    assert_eq!(problems(&pool("\"SELECTORS\": {\"pfnames\": [\"eth0\"]}")), [""; 0]);
    refused("\"selectors\": {}, \"Selectors\": {}", "error", &["twice"]);
}

#[test]
fn names_that_cannot_be_used_are_errors() {
    for name in ["\"a/b\"", "\"..\"", "\"\"", "7"] {
        let found = problems(&format!("{{\"resourceList\": [{{\"resourceName\": {name}}}]}}"));
        assert!(!found.is_empty() && found[0].starts_with("error: resourceList[0].resourceName: "), "{found:?}");
    }
    let found = problems("{\"resourceList\": [{}, {\"resourceName\": \"r\", \"resourcePrefix\": \"../x\"}]}");
    assert_eq!(found[0], "error: resourceList[0].resourceName: is missing");
    assert!(found[1].contains("'../x' cannot be the prefix"), "{found:?}");
    let twice = "{\"resourceList\": [{\"resourceName\": \"r\"}, {\"resourceName\": \"r\"}, \
                 {\"resourceName\": \"r\", \"resourcePrefix\": \"a.b\"}]}";
    assert_eq!(problems(twice).len(), 1);
    assert!(problems(twice)[0].starts_with("error: resourceList[1].resourceName: has the name of resourceList[0]"));
    let usable: Vec<bool> = Config::parse(twice, None).unwrap().pools.iter().map(|pool| pool.usable).collect();
    assert_eq!(usable, [true, false, true]);
}

#[test]
fn values_of_the_wrong_kind_are_errors() {
    for (body, parts) in [
        ("\"selectors\": 7", ["selectors", "is a number; expected an object, or a list"]),
        ("\"selectors\": [[]]", ["selectors[0]", "is a list; expected an object"]),
        ("\"selectors\": {\"vendors\": \"8086\"}", ["selectors.vendors", "is a string; expected a list"]),
        ("\"selectors\": {\"vendors\": [8086]}", ["selectors.vendors[0]", "is a number; expected a string"]),
        ("\"selectors\": {\"isRdma\": \"no\"}", ["isRdma", "expected true or false"]),
        ("\"excludeTopology\": 1", ["excludeTopology", "expected true or false"]),
        ("\"deviceType\": \"netdevice\"", ["deviceType", "write netDevice"]),
        ("\"deviceType\": \"auxNetDevice\"", ["deviceType", "no VFIO group"]),
        ("\"preferredAllocation\": \"random\"", ["preferredAllocation", "neither spread nor pack"]),
        ("\"additionalInfo\": []", ["additionalInfo", "expected an object of objects"]),
        ("\"additionalInfo\": {\"*\": {\"a\": 1}}", ["additionalInfo.*.a", "expected a string"]),
    ] {
        refused(body, "error", &parts);
    }
}

#[test]
fn filters_of_kernel_interfaces_are_refused_and_never_ignored() {
    for (body, part) in [
        ("\"ddpProfiles\": [\"GTPv1-C/U IPv4/IPv6 payload\"]", "DDP"),
        ("\"pKeys\": [\"0x1\"]", "InfiniBand"),
        ("\"isRdma\": true", "RDMA"),
        ("\"needVhostNet\": true", "vhost-net"),
        ("\"vdpaType\": \"virtio\"", "vDPA"),
    ] {
        refused(&format!("\"selectors\": {{{body}}}"), "error", &[part, "vfio-pci devices"]);
    }
}

#[test]
fn values_that_match_nothing_are_warned_of() {
    for (body, part) in [
        ("\"vendors\": [\"0x8086\"]", "vendors[0]: '0x8086' matches nothing"),
        ("\"devices\": [\"154c\", \"154C\"]", "devices[1]: '154C' matches nothing"),
        ("\"pciAddresses\": [\"3b:02.1\"]", "write '0000:3b:02.1'"),
        ("\"rootDevices\": [\"3b:00.0#0-3\"]", "write '0000:3b:00.0'"),
    ] {
        refused(&format!("\"selectors\": {{{body}}}"), "warning", &[part]);
    }
    refused("\"additionalInfo\": {\"02.1\": {}}", "warning", &["no PCI address"]);
    refused("\"allowNoIommu\": true", "warning", &["all memory of the host"]);
}

#[test]
fn lists_of_vfs_are_parsed_or_refused() {
    for text in ["#", "eth0#", "eth0#3-1", "eth0#a", "eth0#1-", "eth0#-1", "eth0#1,,2", "eth0#1-2-3"] {
        if text == "#" {
            assert!(Parent::parse(text).is_err());
            continue;
        }
        refused(&format!("\"selectors\": {{\"pfNames\": [\"{text}\"]}}"), "error", &["pfNames[0]", "ens785f0#0-3,5"]);
    }
    let parent = Parent::parse("eth0#0-3,7").unwrap();
    let has: Vec<u32> = (0..10).filter(|&index| parent.has(Some(index))).collect();
    assert_eq!(has, [0, 1, 2, 3, 7]);
    // A PF has no number of its own, so a list of numbers never means it.
    assert!(!parent.has(None) && Parent::parse("eth0").unwrap().has(None));
}
