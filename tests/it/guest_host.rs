//! The host's tools on a real kernel: VFs of a PF that nobody here wrote, its driver's own word on them over netlink,
//! vfio-pci and Linux's igbvf. What the unit tests do with a kernel that was made up must hold here.

use std::time::Duration;

use serde_json::Value;
use vfring_tests::build;
use vfring_tests::vm::{Guest, GuestConfig, GuestFile, Mac, Nic, Result};

const PROGRAM: &str = "/opt/vfring/vfring";
const TIMEOUT: Duration = Duration::from_secs(60);
const PF: &str = "0000:01:00.0";
const VFS: [&str; 3] = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4"];

/// Runs a subcommand, demands its status, and returns what it printed on both streams.
fn vfring(guest: &Guest, arguments: &str, status: i32) -> Result<String> {
    let output = guest.run(&format!("{PROGRAM} {arguments}"), TIMEOUT)?;
    let text = output.text();
    println!("$ vfring {arguments}\n{text}");
    assert_eq!(output.status, status, "{arguments}: {text}");
    Ok(text)
}

/// Runs a subcommand that must be refused with one line that has all the parts.
fn refused(guest: &Guest, arguments: &str, parts: &[&str]) -> Result<()> {
    let text = vfring(guest, arguments, 1)?;
    assert!(text.starts_with("vfring: ") && text.lines().count() == 1, "{text}");
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    Ok(())
}

/// What `list --json` says of a device.
fn listed(guest: &Guest, address: &str) -> Result<Value> {
    let text = vfring(guest, "list --json --probe", 0)?;
    let list: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let devices = list.as_array().expect("an array");
    Ok(devices
        .iter()
        .find(|device| device["address"] == address)
        .unwrap_or_else(|| panic!("{address}: {text}"))
        .clone())
}

#[test]
fn a_host_is_prepared_examined_and_given_back() -> Result<()> {
    let files = vec![GuestFile { host: build::vfring()?, guest: PROGRAM.into() }];
    let nics = vec![Nic::unconnected(Mac([0x52, 0x54, 0, 0, 0, 1]))];
    let guest = Guest::boot(GuestConfig { nics, files, modules: vec!["igbvf"], ..GuestConfig::default() })?;

    // Before: no hugepages, no VFs.
    let found = vfring(&guest, "doctor", 2)?;
    assert!(found.contains("failure  hugepages  none are reserved"), "{found}");
    assert!(found.contains("good     iommu      on, "), "{found}");
    assert!(
        found.contains("eth0 (0000:01:00.0, 8086:10c9): 0 of 7 VFs; `vfring vf create --pf eth0 --num N`"),
        "{found}"
    );
    guest.hugepages(64)?;

    // A rehearsal names the addresses that VFs then really have, and does nothing.
    let create = "vf create --pf eth0 --num 2 --driver vfio-pci";
    let rehearsed = vfring(&guest, &format!("{create} --dry-run"), 0)?;
    for vf in &VFS[..2] {
        assert!(rehearsed.contains(&format!("echo {vf} > /sys/bus/pci/drivers/vfio-pci/bind")), "{rehearsed}");
    }
    assert_eq!(guest.sh(&format!("cat /sys/bus/pci/devices/{PF}/sriov_numvfs"))?, "0");

    // Made, told of, and bound away from igbvf, which takes each VF when it appears.
    let create = format!("{create} --vf 1 --mac 52:54:00:00:00:aa --vlan 100 --qos 3 --trust on --spoofchk off");
    let made = vfring(&guest, &create, 0)?;
    for part in [
        "eth0: made 2 VFs\n",
        "ip link set eth0 vf 1 mac 52:54:00:00:00:aa\n",
        "ip link set eth0 vf 1 vlan 100 qos 3\n",
        "ip link set eth0 vf 1 trust on\n",
        "0000:01:10.0: bound to vfio-pci\n0000:01:10.2: bound to vfio-pci\n",
    ] {
        assert!(made.contains(part), "{part:?} is not in: {made}");
    }
    for vf in &VFS[..2] {
        assert_eq!(guest.driver(vf)?.as_deref(), Some("vfio-pci"));
        assert_eq!(guest.sh(&format!("cat /sys/bus/pci/devices/{vf}/driver_override"))?, "(null)");
    }
    // iproute2 sees what was set.
    let links = guest.sh("/bin/ip link show dev eth0")?;
    let line = links.lines().find(|line| line.trim_start().starts_with("vf 1 ")).unwrap_or_else(|| panic!("{links}"));
    for part in ["52:54:00:00:00:aa", "vlan 100", "qos 3", "spoof checking off", "trust on"] {
        assert!(line.contains(part), "'{part}' is not in: {line}");
    }
    let own = listed(&guest, VFS[1])?;
    for (key, value) in [
        ("mac", Value::from("52:54:00:00:00:aa")),
        ("vlan", 100.into()),
        ("trust", true.into()),
        ("spoofchk", false.into()),
        ("driver", "vfio-pci".into()),
        ("vf", 1.into()),
        ("pf", PF.into()),
        ("vfring_driver", "igbvf".into()),
        ("used_by", Value::Null),
    ] {
        assert_eq!(own[key], value, "{key}: {own:#}");
    }

    // Again: nothing to do.
    let again = vfring(&guest, &create, 0)?;
    assert!(again.starts_with("eth0: has 2 VFs already\n") && !again.contains("ip link"), "{again}");
    assert_eq!(again.matches("is bound to vfio-pci already").count(), 2, "{again}");
    let found = vfring(&guest, "doctor", 0)?;
    assert!(found.contains("2 VFs: 2 on vfio-pci") && found.contains("an IOMMU group of its own"), "{found}");

    // A configuration that selects them, and one with a guide's mistakes.
    let good = r#"{"resourceList":[{"resourceName":"r","selectors":{"devices":["10ca"],"pfNames":["eth0"]}}]}"#;
    guest.write_file("/tmp/config.json", good.as_bytes())?;
    assert!(vfring(&guest, "device-plugin validate --config /tmp/config.json", 0)?.contains("nothing is wrong"));
    let explained = vfring(&guest, "device-plugin explain --config /tmp/config.json", 0)?;
    assert_eq!(explained.matches("vfio-pci): advertised, IOMMU group").count(), 2, "{explained}");
    guest.write_file("/tmp/config.json", good.replace("10ca", "10c9").replace("pfNames", "pfName").as_bytes())?;
    let problems = vfring(&guest, "device-plugin validate --config /tmp/config.json", 2)?;
    assert!(problems.contains("'pfNames' is probably meant") && problems.contains("write 10ca"), "{problems}");

    // What a process has open is not taken away.
    let group = guest.iommu_group(VFS[1])?;
    let user = guest.spawn(&format!("exec 3<>/dev/vfio/{group}; echo open; exec sleep 1000"))?;
    guest.wait_log(&user, "open", TIMEOUT)?;
    let node = format!("/dev/vfio/{group}");
    assert!(listed(&guest, VFS[1])?["used_by"].as_str().is_some_and(|text| text.contains(&node)));
    refused(&guest, "vf destroy --pf eth0", &["its VF 1 (0000:01:10.2) is in use", &node, "--force"])?;
    refused(&guest, &format!("unbind {}", VFS[1]), &["is in use", &node])?;
    guest.kill(&user)?;
    guest.wait(&user, TIMEOUT)?;

    // Back to Linux's driver, and away again only by force once it carries an address.
    assert!(vfring(&guest, &format!("unbind {}", VFS[1]), 0)?.contains("bound to igbvf"));
    let netdev = guest.netdev(VFS[1])?;
    guest.sh(&format!("/bin/ip addr add 10.9.0.1/24 dev {netdev}; /bin/ip link set {netdev} up"))?;
    refused(&guest, &format!("bind {}", VFS[1]), &[&format!("its interface {netdev} has a route"), "--force"])?;
    refused(&guest, &format!("bind {PF}"), &["is a PF, and its 2 VFs would go with it"])?;
    assert!(vfring(&guest, &format!("bind --force {}", VFS[1]), 0)?.contains("bound to vfio-pci"));

    // A file for boot, with another number; then again.
    let file = "[[pf]]\nname = \"eth0\"\nvfs = 3\ndriver = \"vfio-pci\"\n[[pf.vf]]\nlist = \"0-1\"\nvlan = 7\n";
    guest.write_file("/tmp/host.toml", file.as_bytes())?;
    let applied = vfring(&guest, "apply /tmp/host.toml", 0)?;
    assert!(applied.starts_with("eth0: had 2 VFs, made 3\n"), "{applied}");
    assert_eq!(applied.matches(" vlan 7\n").count(), 2, "{applied}");
    for vf in VFS {
        assert_eq!(guest.driver(vf)?.as_deref(), Some("vfio-pci"), "{vf}");
    }
    // Linux's igb remembers the address that igbvf chose at random, so it need not be told.
    assert!(!applied.contains(" mac "), "{applied}");
    assert_ne!(listed(&guest, VFS[2])?["mac"], "00:00:00:00:00:00");
    let again = vfring(&guest, "apply /tmp/host.toml", 0)?;
    assert_eq!((again.lines().count(), again.matches(" already\n").count()), (4, 4), "{again}");

    assert_eq!(vfring(&guest, "vf destroy --pf 0000:01:00.0", 0)?, "0000:01:00.0: 3 VFs taken away\n");
    assert_eq!(vfring(&guest, "vf destroy --pf eth0", 0)?, "eth0: has no VFs\n");
    refused(&guest, "vf create --pf eth0 --num 8", &["it can have 1 to 7"])
}

#[test]
fn without_an_iommu_doctor_and_bind_say_so() -> Result<()> {
    let files = vec![GuestFile { host: build::vfring()?, guest: PROGRAM.into() }];
    let nics = vec![Nic::unconnected(Mac([0x52, 0x54, 0, 0, 0, 1]))];
    // The last word on the command line counts.
    let kernel_arguments = "intel_iommu=off".to_owned();
    let guest = Guest::boot(GuestConfig { nics, files, kernel_arguments, ..GuestConfig::default() })?;
    guest.create_vfs(PF, 1)?;
    let found = vfring(&guest, "doctor", 2)?;
    assert!(found.contains("failure  iommu      off: there are no IOMMU groups"), "{found}");
    refused(&guest, &format!("bind {}", VFS[0]), &["has no IOMMU group", "intel_iommu=on"])?;
    assert_eq!(guest.driver(VFS[0])?, None);
    Ok(())
}
