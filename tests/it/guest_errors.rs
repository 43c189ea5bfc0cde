//! What stands between a user and a first packet: each obstacle ends l2fwd with exit code 1 and one line, and what the
//! line says is what helps. Commands that it names are run as they stand.

use std::time::Duration;

use vfring_tests::forwarder::{Forwarder, PROGRAM, Traffic, command, testbed};
use vfring_tests::vm::{Bench, Binding, Result, TestbedConfig, Topology, memlock_limited, unprivileged};

/// l2fwd gives up within a second or two; the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Memory that a user may lock: less than any pool, and enough for all of l2fwd's.
const TOO_LITTLE_KIB: u64 = 64;
const ENOUGH_KIB: u64 = 256 << 10;

/// Frames each way that show that it forwards.
const ENOUGH: u64 = 50;

/// Runs a command line that must fail: exit code 1 and one line on stderr, which is returned.
fn refused(bed: &Bench, command: &str, parts: &[&str]) -> Result<String> {
    let output = bed.guest.run(&format!("({command}) 2>&1 >/dev/null"), TIMEOUT)?;
    let text = output.text();
    println!("{text}");
    assert_eq!(output.status, 1, "{text}");
    assert_eq!((text.lines().count(), text.ends_with('\n'), text.starts_with("l2fwd: ")), (1, true, true), "{text:?}");
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in: {text}");
    }
    Ok(text)
}

/// Does what stands between the first two backticks.
fn follow(bed: &Bench, line: &str) -> Result<()> {
    let advice = line.split('`').nth(1).unwrap_or_else(|| panic!("no command in: {line}"));
    // Its last command decides: `modprobe` fails here, where the modules are loaded already.
    bed.guest.sh(advice).map(drop)
}

/// A command line with one port.
fn one_port(address: &str) -> String {
    format!("{PROGRAM} --port {address}")
}

#[test]
fn each_obstacle_is_one_line_and_what_it_says_helps() -> Result<()> {
    let bed = testbed(TestbedConfig { binding: Binding::Igbvf, hugepages: 0, ..TestbedConfig::default() })?;
    let guest = &bed.guest;
    let l2fwd = command(&bed, "");

    // What is no VF of ours, whatever it is bound to.
    refused(&bed, &one_port(&bed.pfs[0].address), &["is a PF", "it has 1", "/virtfn*`"])?;
    let ahci = "0000:00:1f.2";
    let id = guest.sh(&format!("cd /sys/bus/pci/devices/{ahci}; echo $(cat vendor):$(cat device) | sed s/0x//g"))?;
    refused(&bed, &one_port(ahci), &[&format!("{ahci}: no driver for {id}; supported are"), "8086:10ca"])?;
    refused(&bed, &one_port("0000:09:00.0"), &["0000:09:00.0: no such PCI device", "`ls -d "])?;

    // Linux's own driver, or none.
    for vf in [&bed.a.vf, &bed.b.vf] {
        let line = refused(&bed, &one_port(vf), &["is bound to igbvf", "driver_override", "drivers_probe"])?;
        follow(&bed, &line)?;
        assert_eq!(guest.driver(vf)?.as_deref(), Some("vfio-pci"));
    }
    guest.unbind(&bed.b.vf)?;
    let line = refused(&bed, &l2fwd, &["is bound to no driver", &bed.b.vf])?;
    follow(&bed, &line)?;

    // No hugepages: first for the pool, then for the rings of each port.
    let mut rounds = 0;
    while guest.free_hugepages()? == 0 || guest.run(&format!("{l2fwd} --duration 0.1"), TIMEOUT)?.status != 0 {
        let line = refused(&bed, &l2fwd, &["too few 2 MiB hugepages", " needed, ", "nr_hugepages`"])?;
        follow(&bed, &line)?;
        rounds += 1;
        assert!(rounds <= 3, "the advice on hugepages leads nowhere");
    }
    assert!(rounds > 0);

    // A user who is not root, first without the right to open the groups, then without that to lock memory.
    let user = |memlock_kib| unprivileged(&l2fwd, Some(memlock_kib));
    let groups = [bed.a.group, bed.b.group].map(|group| format!("/dev/vfio/{group}"));
    refused(&bed, &user(ENOUGH_KIB), &["cannot open /dev/vfio/", "`sudo chown $USER /dev/vfio/", "Permission denied"])?;
    guest.sh(&format!("chown 1000 {} {}", groups[0], groups[1]))?;
    refused(&bed, &user(TOO_LITTLE_KIB), &["which is 64 KiB here", "`ulimit -l unlimited`", "IPC_LOCK"])?;
    // Root in a container that lacks the capability.
    refused(&bed, &memlock_limited(&l2fwd, TOO_LITTLE_KIB), &["which is 64 KiB here", "`ulimit -l unlimited`"])?;

    // With both rights it forwards, and nobody else gets the groups meanwhile.
    let forwarder = Forwarder::spawn(&bed, &user(ENOUGH_KIB))?;
    refused(&bed, &l2fwd, &["cannot open /dev/vfio/", "another process has it", "`fuser -v /dev/vfio/"])?;
    let traffic = Traffic::start(&bed, 1000)?;
    traffic.wait_for_more([0, 0], ENOUGH, TIMEOUT)?;
    traffic.finish()?;
    forwarder.stop()?;
    Ok(())
}

#[test]
fn a_group_that_is_not_viable_is_one_line_that_names_who_spoils_it() -> Result<()> {
    let bed = testbed(TestbedConfig { topology: Topology::SharedGroup, ..TestbedConfig::default() })?;
    let pfs = [&bed.pfs[0], &bed.pfs[1]].map(|pf| format!("{} is bound to igb", pf.address));
    let group = format!("its IOMMU group {} is not viable", bed.a.group);
    refused(&bed, &one_port(&bed.a.vf), &[&group, &pfs[0], &pfs[1], "ACS"])?;
    Ok(())
}
