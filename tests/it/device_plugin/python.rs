//! A client whose gRPC is Google's and whose messages were generated from the published interface: `tests/python`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use vfring_tests::build::root;
use vfring_tests::kubelet::PATIENCE;
use vfring_tests::program::Program;
use vfring_tests::vm::{Error, Result};

use crate::bed::{Host, RESOURCE, VFS};

/// Starts the Python kubelet; what it needs is installed first, and that this fails is a failure.
fn kubelet(host: &Host) -> Result<Program> {
    let prepared = Command::new(root().join("tests/python/prepare")).output();
    let prepared = prepared.map_err(Error::during("starting tests/python/prepare"))?;
    if !prepared.status.success() {
        return Err(Error::new(String::from_utf8_lossy(&prepared.stderr)));
    }
    let printed = String::from_utf8_lossy(&prepared.stdout);
    let mut lines = printed.lines();
    let (Some(python), Some(generated)) = (lines.next(), lines.next()) else {
        return Err(Error::new(format!("tests/python/prepare printed {printed}")));
    };
    let mut command = Command::new(python);
    command.arg(root().join("tests/python/kubelet.py")).arg(generated).arg(host.plugins()).stdin(Stdio::piped());
    let mut kubelet = Program::spawn(command)?;
    kubelet.wait_for("serving", PATIENCE)?;
    Ok(kubelet)
}

fn ask(kubelet: &mut Program, call: Value) -> Result<Value> {
    let line = kubelet.ask(&call.to_string(), PATIENCE)?;
    serde_json::from_str(&line).map_err(|error| Error::new(format!("{error}: {line}")).with(kubelet.evidence()))
}

#[test]
fn a_client_by_other_hands_sees_the_same() -> Result<()> {
    let host = Host::new();
    let plugin = host.start(&[])?;
    let mut kubelet = kubelet(&host)?;
    let devices = |health: [&str; 4]| json!({"call": "devices", "resource": RESOURCE, "states": health});
    let seen = ask(&mut kubelet, devices(["Healthy"; 4])).map_err(|error| error.with(plugin.program.evidence()))?;
    let device = |vf: &str, health: &str| json!({"ID": vf, "health": health, "topology": {"nodes": [{"ID": "0"}]}});
    assert_eq!(seen, Value::from(VFS.map(|vf| device(vf, "Healthy")).to_vec()));
    let options = json!({"pre_start_required": true, "get_preferred_allocation_available": true});
    let request = json!({
        "version": "v1beta1", "endpoint": "intel.com_intel_sriov_dpdk.sock", "resource_name": RESOURCE, "options": options,
    });
    let registrations = ask(&mut kubelet, json!({"call": "registrations"}))?;
    assert_eq!(registrations, json!([{"request": request, "options": options}]));

    // Two containers of a pod at once.
    let containers = json!([[VFS[1], VFS[0]], [VFS[3]]]);
    let given = ask(&mut kubelet, json!({"call": "allocate", "resource": RESOURCE, "containers": containers}))?;
    let info = |vf: &str, group: u32| {
        format!(
            "\"{vf}\":{{\"generic\":{{\"deviceID\":\"{vf}\"}},\"vfio\":{{\"dev-mount\":\"/dev/vfio/{group}\",\
             \"mount\":\"/dev/vfio/vfio\"}}}}"
        )
    };
    let node = |name: &str| {
        let path = format!("/dev/vfio/{name}");
        json!({"container_path": path, "host_path": path, "permissions": "rw"})
    };
    let container = |list: &str, info: String, nodes: &[&str]| {
        json!({
            "envs": {
                "PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK": list,
                "PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK_INFO": format!("{{{info}}}"),
            },
            "devices": nodes.iter().map(|name| node(name)).collect::<Vec<Value>>(),
            "mounts": [], "annotations": {}, "cdi_devices": [],
        })
    };
    let both = format!("{},{}", info(VFS[0], 50), info(VFS[1], 51));
    let first = container("0000:03:10.0,0000:03:10.4", both, &["vfio", "50", "51"]);
    let second = container("0000:03:11.4", info(VFS[3], 53), &["vfio", "53"]);
    assert_eq!(given, json!({"container_responses": [first, second]}));

    let advice = json!({"call": "preferred", "resource": RESOURCE, "available": VFS, "must": [VFS[2]], "size": 2});
    let expected = json!({"container_responses": [{"deviceIDs": [VFS[0], VFS[2]]}]});
    assert_eq!(ask(&mut kubelet, advice)?, expected);
    let start = |ids: &[&str]| json!({"call": "pre_start", "resource": RESOURCE, "ids": ids});
    assert_eq!(ask(&mut kubelet, start(&VFS[..2]))?, json!({}));

    // A VF that goes between the list and the call, and one that never was.
    host.tree.driver(VFS[2], "igbvf");
    let states = ["Healthy", "Healthy", "Unhealthy", "Healthy"];
    let expected: Vec<Value> = VFS.iter().zip(states).map(|(vf, health)| device(vf, health)).collect();
    assert_eq!(ask(&mut kubelet, devices(states))?, Value::from(expected));
    let refused = ask(&mut kubelet, json!({"call": "allocate", "resource": RESOURCE, "containers": [[VFS[2]]]}))?;
    assert_eq!(refused["code"], "FAILED_PRECONDITION", "{refused}");
    assert!(refused["text"].as_str().is_some_and(|text| text.contains("bound to igbvf")), "{refused}");
    let refused = ask(&mut kubelet, start(&[VFS[2]]))?;
    assert_eq!(refused["code"], "FAILED_PRECONDITION", "{refused}");
    let unknown = json!([["0000:99:00.0"]]);
    let refused = ask(&mut kubelet, json!({"call": "allocate", "resource": RESOURCE, "containers": unknown}))?;
    assert_eq!(refused["code"], "INVALID_ARGUMENT", "{refused}");

    // Its end is the stream's.
    let ended = plugin.end()?;
    assert_eq!(ended.code, 0, "{ended:?}");
    let gone = json!({"call": "devices", "resource": RESOURCE, "states": null});
    assert_eq!(ask(&mut kubelet, gone)?, Value::Null);
    Ok(())
}
