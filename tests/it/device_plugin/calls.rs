//! What kubelet is told and given: registration, lists, and the answers to each call.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use vfring_tests::kubelet::{
    ContainerDevices, ContainerResources, DeviceSpec, Kubelet, ListPodResourcesResponse, Manner, PodResources,
    PodResourcesServer,
};
use vfring_tests::vm::{Error, Result};

use crate::bed::{Host, RESOURCE, VFS, ids};

#[test]
fn a_pool_is_registered_and_a_container_gets_what_the_contract_says_byte_for_byte() -> Result<()> {
    let host = Host::new();
    host.config(
        r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "selectors": {"devices": ["1520"]},
            "additionalInfo": {"0000:03:10.4": {"zone": "b&b", "a": "1"}}}]}"#,
    );
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    let devices = kubelet.wait_for_healthy(RESOURCE, 4)?;
    assert_eq!(ids(&devices), VFS);
    assert!(devices.iter().all(|device| {
        device.topology.as_ref().is_some_and(|topology| topology.nodes.len() == 1 && topology.nodes[0].id == 0)
    }));
    let registered = &kubelet.registrations()[0];
    assert_eq!((registered.version.as_str(), registered.resource_name.as_str()), ("v1beta1", RESOURCE));
    assert_eq!(registered.endpoint, "intel.com_intel_sriov_dpdk.sock");
    let options = registered.options.as_ref().expect("options");
    assert!(options.pre_start_required && options.get_preferred_allocation_available);
    let socket = fs::metadata(host.socket()).expect("a socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);

    // In kubelet's order, which is random.
    let answer = kubelet.allocate(RESOURCE, &[VFS[2], VFS[1]]).expect("two healthy VFs");
    let node = |host: &str, container: &str| DeviceSpec {
        container_path: container.into(),
        host_path: host.into(),
        permissions: "rw".into(),
    };
    assert_eq!(answer.devices[0], node("/dev/vfio/vfio", "/dev/vfio/vfio"));
    assert_eq!(answer.devices[1..], [node("/dev/vfio/51", "/dev/vfio/51"), node("/dev/vfio/52", "/dev/vfio/52")]);
    assert!(answer.mounts.is_empty() && answer.annotations.is_empty() && answer.cdi_devices.is_empty());
    let expected = [
        ("PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK", "0000:03:10.4,0000:03:11.0"),
        (
            "PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK_INFO",
            "{\"0000:03:10.4\":{\"extra\":{\"a\":\"1\",\"zone\":\"b\\u0026b\"},\"generic\":{\"deviceID\":\"0000:03:10.4\"},\
             \"vfio\":{\"dev-mount\":\"/dev/vfio/51\",\"mount\":\"/dev/vfio/vfio\"}},\
             \"0000:03:11.0\":{\"extra\":{},\"generic\":{\"deviceID\":\"0000:03:11.0\"},\
             \"vfio\":{\"dev-mount\":\"/dev/vfio/52\",\"mount\":\"/dev/vfio/vfio\"}}}",
        ),
    ];
    let given: Vec<(&str, &str)> = answer.envs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(given, expected);
    drop(plugin);
    Ok(())
}

#[test]
fn multus_finds_a_file_for_each_device() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let _plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    for vf in VFS {
        let path = host.path(&format!("devinfo/dp/intel.com-intel_sriov_dpdk-{vf}-device.json"));
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(text, format!("{{\"type\":\"pci\",\"version\":\"1.1.0\",\"pci\":{{\"pci-address\":\"{vf}\"}}}}"));
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o444);
    }
    for directory in ["devinfo", "devinfo/dp"] {
        let mode = fs::metadata(host.path(directory)).expect("a directory").permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{directory}");
    }
    Ok(())
}

#[test]
fn ids_that_were_never_advertised_are_refused() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    for id in ["0000:03:00.0", "0000:99:00.0", "03:10.0", "../../etc/passwd", ""] {
        for asked in [&[id][..], &[VFS[0], id]] {
            let refusal = kubelet.allocate(RESOURCE, asked).expect_err("never advertised");
            assert!(refusal.text.contains(&format!("'{id}' was never advertised")), "{refusal:?}");
            let refusal = kubelet.pre_start(RESOURCE, asked).expect_err("never advertised");
            assert!(refusal.text.contains("never advertised"), "{refusal:?}");
        }
    }
    let refusal = kubelet.allocate(RESOURCE, &[]).expect_err("nothing is asked for");
    assert!(refusal.text.contains("no device is asked for"), "{refusal:?}");
    // It is still there.
    assert!(kubelet.allocate(RESOURCE, &[VFS[0]]).is_ok(), "{}", plugin.program.evidence());
    Ok(())
}

#[test]
fn kubelet_is_advised_to_stay_on_one_node() -> Result<()> {
    let host = Host::new();
    for vf in [VFS[0], VFS[2]] {
        host.tree.write(vf, "numa_node", "1\n");
    }
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let _plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    assert_eq!(kubelet.preferred(RESOURCE, &VFS, &[VFS[2]], 2).expect("advice"), [VFS[0], VFS[2]]);
    assert_eq!(kubelet.preferred(RESOURCE, &VFS, &[], 0).expect("advice"), [""; 0]);
    let refusal = kubelet.preferred(RESOURCE, &VFS[..1], &[], 2).expect_err("more than there are");
    assert!(refusal.text.contains("2 devices are asked for"), "{refusal:?}");
    Ok(())
}

#[test]
fn topology_is_left_out_where_it_is_unknown_or_unwanted() -> Result<()> {
    let host = Host::new();
    host.tree.write(VFS[1], "numa_node", "-1\n");
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    let devices = kubelet.wait_for_healthy(RESOURCE, 4)?;
    assert_eq!(devices.iter().filter(|device| device.topology.is_none()).count(), 1);
    assert!(devices[1].topology.is_none());
    host.config(r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "excludeTopology": true}]}"#);
    plugin.signal(libc::SIGHUP)?;
    kubelet
        .wait_for(RESOURCE, |devices| devices.len() == 4 && devices.iter().all(|device| device.topology.is_none()))?;
    Ok(())
}

#[test]
fn a_container_does_not_start_with_a_group_that_has_another_number_now() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    kubelet.allocate(RESOURCE, &[VFS[0], VFS[1]]).expect("healthy VFs");
    assert_eq!(kubelet.pre_start(RESOURCE, &[VFS[0], VFS[1]]), Ok(()));
    // The machine restarts: the plugin is gone without a word, and the groups have other numbers.
    plugin.signal(libc::SIGKILL)?;
    plugin.program.end(Duration::from_secs(20))?;
    drop(kubelet);
    host.tree.group(VFS[0], 90).node("90");
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let _plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    assert_eq!(kubelet.pre_start(RESOURCE, &[VFS[1]]), Ok(()));
    let refusal = kubelet.pre_start(RESOURCE, &[VFS[0], VFS[1]]).expect_err("another group");
    assert!(refusal.text.contains("given /dev/vfio/50") && refusal.text.contains("group 90"), "{refusal:?}");
    // Allocated anew, it may start.
    kubelet.allocate(RESOURCE, &[VFS[0]]).expect("a healthy VF");
    assert_eq!(kubelet.pre_start(RESOURCE, &[VFS[0]]), Ok(()));
    Ok(())
}

/// One pod of two containers, of which one has the second VF and one that is gone, and the other devices of another
/// resource.
fn pods() -> ListPodResourcesResponse {
    let devices = |ids: &[&str]| ContainerDevices {
        resource_name: RESOURCE.into(),
        device_ids: ids.iter().map(ToString::to_string).collect(),
        topology: None,
    };
    let container = ContainerResources {
        name: "l2fwd".into(),
        devices: vec![devices(&[VFS[1]]), devices(&["0000:99:00.0"])],
        cpu_ids: vec![2, 3],
    };
    let other = ContainerDevices { resource_name: "intel.com/other".into(), ..devices(&[VFS[0], "0000:99:00.1"]) };
    let other = ContainerResources { name: "x".into(), devices: vec![other], cpu_ids: Vec::new() };
    let pod = PodResources { name: "cnf-0".into(), namespace: "edge".into(), containers: vec![container, other] };
    ListPodResourcesResponse { pod_resources: vec![pod] }
}

#[test]
fn status_says_which_pod_has_which_device() -> Result<()> {
    let host = Host::new();
    host.tree.driver(VFS[2], "igbvf");
    let socket = host.path("pods.sock");
    let _server = PodResourcesServer::start(&socket, pods())?;
    host.config(r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "selectors": {"devices": ["1520"]}}]}"#);
    let option = format!("--pod-resources={}", socket.display());
    let ended = host.run("status", &[&option])?;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let expected = "\
intel.com/intel_sriov_dpdk: 3 devices, 2 in use
  0000:03:10.0  free  (IOMMU group 50)
  0000:03:10.4  edge/cnf-0, container l2fwd  (IOMMU group 51)
  0000:03:11.0  free  (not handed out: it is bound to igbvf, not to vfio-pci; `vfring bind` binds it)
  0000:03:11.4  free  (IOMMU group 53)
  0000:99:00.0  edge/cnf-0, container l2fwd  (not handed out: it is not in this pool now)
";
    assert_eq!(ended.stdout, expected);
    let json = host.run("status", &[&option, "--json"])?;
    let rows: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(rows[1]["pod"], "cnf-0");
    assert_eq!((&rows[1]["group"], &rows[0]["pod"]), (&Value::from(51), &Value::Null));
    let nobody = host.run("status", &["--pod-resources=/nonexistent/kubelet.sock"])?;
    assert_eq!((nobody.code, nobody.stderr.matches('\n').count()), (1, 1), "{nobody:?}");
    assert!(nobody.stderr.contains("--pod-resources"), "{nobody:?}");
    Ok(())
}

#[test]
fn a_device_that_hangs_in_sysfs_holds_up_neither_the_others_nor_kubelet() -> Result<()> {
    let host = Host::new();
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let plugin = host.start(&[])?;
    kubelet.wait_for_healthy(RESOURCE, 4)?;
    // A FIFO that nobody writes to: who opens it to read waits. It is not looked at unless something changes.
    let attribute = host.path(&format!("devices/pci/{}/reset_method", VFS[0]));
    fifo(&attribute);
    let (mut refusal, mut others) = (None, 0);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| kubelet.allocate(RESOURCE, &[VFS[0]]));
        while !asked.is_finished() {
            kubelet.allocate(RESOURCE, &[VFS[1]]).expect("a healthy VF");
            others += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        refusal = asked.join().expect("no panic").err();
    });
    let refusal = refusal.expect("nothing is given half known");
    assert!(refusal.text.contains("sysfs did not answer within 10 s"), "{refusal:?}");
    assert!(others > 20, "{others} calls while one hung");
    // What waits there goes on once it is answered, and so does the device.
    fs::write(&attribute, "flr\n").expect("somebody reads");
    fs::remove_file(&attribute).expect("it is there");
    kubelet
        .allocate(RESOURCE, &[VFS[0]])
        .map_err(|refusal| Error::new(refusal.text).with(plugin.program.evidence()))?;
    Ok(())
}

/// Makes a FIFO.
fn fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().expect("coreutils");
    assert!(made.success());
}

#[test]
fn metrics_and_health_are_served() -> Result<()> {
    let host = Host::new();
    host.tree.driver(VFS[3], "igbvf");
    host.config(r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "selectors": {"devices": ["1520"]}}]}"#);
    let kubelet = Kubelet::start(&host.plugins(), Manner::default())?;
    let socket = host.path("pods.sock");
    let option = format!("--pod-resources={}", socket.display());
    let mut plugin = host.start(&["--metrics=127.0.0.1:0", &option])?;
    kubelet.wait_for_healthy(RESOURCE, 3)?;
    // Kubelet does not say who has what, and that is all that is missing.
    for _ in 0..2 {
        let (_, page) = plugin.page("/metrics")?;
        assert!(page.contains("state=\"healthy\"") && !page.contains("\nvfring_devices_in_use{"), "{page}");
    }
    assert_eq!(plugin.complaints("no metrics of devices in use"), 1, "{}", plugin.program.errors());
    assert_eq!(plugin.complaints("--pod-resources"), 1, "{}", plugin.program.errors());
    let _server = PodResourcesServer::start(&socket, pods())?;
    kubelet.allocate(RESOURCE, &[VFS[0], VFS[1]]).expect("healthy VFs");
    kubelet.allocate(RESOURCE, &["nonsense"]).expect_err("nonsense");
    host.tree.driver(VFS[2], "igbvf");
    kubelet.wait_for(RESOURCE, |devices| devices.iter().any(|device| device.health == "Unhealthy"))?;
    let (status, page) = plugin.page("/metrics")?;
    assert_eq!(status, "HTTP/1.1 200 OK");
    for line in [
        "vfring_devices{resource=\"intel.com/intel_sriov_dpdk\",state=\"healthy\",reason=\"\"} 2",
        "vfring_devices{resource=\"intel.com/intel_sriov_dpdk\",state=\"unhealthy\",reason=\"driver\"} 1",
        "vfring_devices{resource=\"intel.com/intel_sriov_dpdk\",state=\"omitted\",reason=\"driver\"} 1",
        "vfring_devices_in_use{resource=\"intel.com/intel_sriov_dpdk\"} 2",
        "vfring_allocations_total{resource=\"intel.com/intel_sriov_dpdk\"} 1",
        "vfring_allocated_devices_total{resource=\"intel.com/intel_sriov_dpdk\"} 2",
        "vfring_refusals_total{resource=\"intel.com/intel_sriov_dpdk\",call=\"Allocate\"} 1",
        "vfring_registrations_total{resource=\"intel.com/intel_sriov_dpdk\"} 1",
        "# EOF",
    ] {
        assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
    }
    assert_eq!(plugin.page("/healthz")?, ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    assert_eq!(plugin.page("/other")?.0, "HTTP/1.1 404 Not Found");
    Ok(())
}
