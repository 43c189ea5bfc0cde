//! The program `vfring` as an administrator runs it, on trees that look like a host: what it prints, what it would write,
//! and its exit status.
//!
//! The kernel does not react here; the unit tests of `vfring::host` have one that does.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use vfring::pci::SysfsRoot;
use vfring_tests::build::vfring;
use vfring_tests::program::{Ended, Program};
use vfring_tests::vm::Result;

#[path = "../../src/pci/fake.rs"]
#[allow(dead_code, reason = "unit tests of the crate use more of it")]
mod fake;

use fake::FakeSysfs;

const PF: &str = "0000:03:00.0";
const VFS: [&str; 2] = ["0000:03:10.0", "0000:03:10.4"];

/// A host with one port of an I350 and two VFs on vfio-pci.
struct Host {
    tree: FakeSysfs,
}

impl Host {
    fn new() -> Host {
        let tree = FakeSysfs::new();
        tree.pf(PF, "8086:1521", 7, 2).driver(PF, "igb").group(PF, 40).write(PF, "numa_node", "0\n");
        tree.interface(PF, "ens802f0", "a0:36:9f:00:00:01", true);
        tree.write(PF, "sriov_offset", "128\n").write(PF, "sriov_stride", "4\n");
        for (index, vf) in VFS.iter().enumerate() {
            tree.vfio_vf(vf, "8086:1520", PF, index as u32, 50 + index as u32).write(vf, "numa_node", "0\n");
        }
        tree.node("vfio").file("bus/pci/drivers/vfio-pci/bind", "");
        for dir in ["kernel/mm/hugepages", "devices/system/node/node0/hugepages"] {
            tree.file(&format!("{dir}/hugepages-2048kB/nr_hugepages"), "512\n");
            tree.file(&format!("{dir}/hugepages-2048kB/free_hugepages"), "512\n");
        }
        tree.file("kubelet/kubelet.sock", "");
        Host { tree }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.tree.root().path().join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Writes a file beside the tree and returns its path.
    fn file(&self, name: &str, text: &str) -> String {
        self.tree.file(name, text);
        self.path(name).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// Runs the program with the options that lead to this host.
    fn run(&self, arguments: &[&str]) -> Result<Ended> {
        let root = self.tree.root();
        let root = root.path().to_str().expect("temporary paths are UTF-8");
        let roots = [format!("--sysfs={root}"), format!("--dev={root}/dev"), format!("--proc={root}/proc")];
        let mut all = arguments.to_vec();
        all.extend(roots.iter().map(String::as_str));
        run(&all)
    }

    /// Runs it, demands its status, and returns what it printed, with the tree's root as `/sys`.
    fn prints(&self, arguments: &[&str], code: i32) -> Result<String> {
        let ended = self.run(arguments)?;
        assert_eq!(ended.code, code, "{arguments:?}: {ended:?}");
        assert_eq!(ended.stderr, "", "{arguments:?}");
        Ok(ended.stdout.replace(&self.tree.root().path().display().to_string(), "/sys"))
    }

    /// Runs it, demands that it fails with one line that has all the parts, and that it printed nothing else.
    fn refuses(&self, arguments: &[&str], parts: &[&str]) -> Result<()> {
        let ended = self.run(arguments)?;
        assert_eq!((ended.code, ended.stdout.as_str()), (1, ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.starts_with("vfring: ") && ended.stderr.matches('\n').count() == 1, "{ended:?}");
        for part in parts {
            assert!(ended.stderr.contains(part), "'{part}' is not in: {}", ended.stderr);
        }
        Ok(())
    }
}

fn run(arguments: &[&str]) -> Result<Ended> {
    Program::start(&vfring()?, arguments)?.end(Duration::from_secs(20))
}

// --- device-plugin ---------------------------------------------------------------------------------------------------

/// The ConfigMap of a published guide: a key that does not exist, and the id of the PF.
const GUIDE: &str = r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "selectors": {
    "vendors": ["8086"], "devices": ["1521"], "drivers": ["vfio-pci"], "pfName": ["ens802f0"]}}]}"#;
const GOOD: &str = r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "selectors": {
    "vendors": ["8086"], "devices": ["1520"], "drivers": ["vfio-pci"], "pfNames": ["ens802f0"]}}]}"#;

#[test]
fn both_mistakes_of_a_published_guide_are_named() -> Result<()> {
    let host = Host::new();
    let config = host.file("config.json", GUIDE);
    let explained = host.prints(&["device-plugin", "explain", "--config", &config], 0)?;
    for part in [
        "intel.com/intel_sriov_dpdk: 0 devices, NOT SERVED",
        "there is no key 'pfName'; 'pfNames' is probably meant",
        "0000:03:10.0 (8086:1520, VF 0 of ens802f0 (0000:03:00.0), vfio-pci): not selected: devices asks for 1521, and it \
         has 1520 (1521 is the id of its PF 0000:03:00.0; the VF's own id is 1520: write 1520)",
        "0000:03:00.0 (8086:1521, PF ens802f0 (0000:03:00.0) with 2 of 7 VFs, igb): never handed out",
    ] {
        assert!(explained.contains(part), "'{part}' is not in:\n{explained}");
    }
    let problems = host.prints(&["device-plugin", "validate", "--config", &config], 2)?;
    let lines: Vec<&str> = problems.lines().collect();
    assert!(lines[0].starts_with("error: resourceList[0].selectors.pfName: "), "{problems}");
    assert!(lines[1].contains("selectors.devices[0]: 1521 is the id of a PF") && lines[1].contains("write 1520"));
    Ok(())
}

#[test]
fn validate_says_by_its_status_how_bad_it_is() -> Result<()> {
    let host = Host::new();
    let validated = |text: &str, code: i32| -> Result<String> {
        let config = host.file("config.json", text);
        host.prints(&["device-plugin", "validate", "--config", &config], code)
    };
    assert_eq!(validated(GOOD, 0)?, "1 pools, nothing is wrong\n");
    let warned = validated(&GOOD.replace("ens802f0", "ens802f0#0-9"), 1)?;
    assert_eq!(
        warned,
        "warning: resourceList[0].selectors.pfNames[0]: VF 9 is out of range: ens802f0 has at most 7, from 0\n"
    );
    assert!(validated("{\n  \"resourceList\": [,]\n}", 2)?.contains("line 2 column 20"));
    assert!(validated(&GOOD.replace("intel_sriov_dpdk", "../x"), 2)?.contains("cannot be the name of a resource"));
    let config = host.file("config.json", GOOD);
    let long = format!("/{}", "d".repeat(100));
    let problems = host.prints(&["device-plugin", "validate", "--config", &config, "--plugin-dir", &long], 2)?;
    assert!(problems.contains("a socket's path may have 107"), "{problems}");
    host.refuses(&["device-plugin", "explain", "--config", "/nonexistent.json"], &["/nonexistent.json", "--config"])
}

#[test]
fn explain_says_where_each_device_is() -> Result<()> {
    let host = Host::new();
    host.tree.driver(VFS[1], "igbvf");
    let config = host.file("config.json", "{\"resourceList\": [{\"resourceName\": \"all\"}]}");
    let explained =
        host.prints(&["device-plugin", "explain", "--config-file", &config, "--resource-prefix", "a.b"], 0)?;
    let expected = "\
a.b/all: 1 device
  0000:03:00.0 (8086:1521, PF ens802f0 (0000:03:00.0) with 2 of 7 VFs, igb): never handed out: a PF with 2 VFs
  0000:03:10.0 (8086:1520, VF 0 of ens802f0 (0000:03:00.0), vfio-pci): advertised, IOMMU group 50, NUMA node 0
  0000:03:10.4 (8086:1520, VF 1 of ens802f0 (0000:03:00.0), igbvf): selected, not advertised: it is bound to igbvf, not \
to vfio-pci; `vfring bind` binds it
";
    assert_eq!(explained, expected);
    Ok(())
}

// --- doctor and list -------------------------------------------------------------------------------------------------

#[test]
fn doctor_says_by_its_status_how_bad_it_is() -> Result<()> {
    let host = Host::new();
    let kubelet = host.path("kubelet").display().to_string();
    let arguments = ["doctor", "--plugin-dir", &kubelet];
    let text = host.prints(&arguments, 0)?;
    assert!(text.lines().all(|line| line.starts_with("good ")), "{text}");
    // A note does not count.
    assert!(host.prints(&["doctor", "--plugin-dir", "/nonexistent"], 0)?.contains("note     kubelet"));
    assert!(text.contains("good     sriov      ens802f0 (0000:03:00.0, 8086:1521): 2 of 7 VFs\n"), "{text}");
    host.tree.group(VFS[1], 50);
    let text = host.prints(&arguments, 1)?;
    assert!(text.contains("warning  groups     group 50 is shared by 0000:03:10.0 (vfio-pci)"), "{text}");
    host.tree.remove_node("vfio");
    let text = host.prints(&["doctor", "--json", "--plugin-dir", &kubelet], 2)?;
    assert_eq!(text.matches('\n').count(), 1);
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!((&value["exit"], &value["worst"]), (&Value::from(2), &Value::from("failure")));
    let findings = value["findings"].as_array().expect("a list");
    let vfio = findings.iter().find(|finding| finding["check"] == "vfio").expect("a finding on vfio");
    assert_eq!(vfio["level"], "failure");
    assert!(vfio["fix"].as_str().is_some_and(|fix| fix.contains("modprobe")), "{vfio}");
    Ok(())
}

#[test]
fn list_shows_pfs_and_vfs() -> Result<()> {
    let host = Host::new();
    host.tree.device("0000:00:1f.6", "8086:15bb").driver("0000:00:1f.6", "e1000e");
    host.tree.group(VFS[1], 50).remove(VFS[1], "driver");
    let expected = "\
ADDRESS       ID         WHAT                         DRIVER    GROUP  NUMA  MAC  VLAN  SPOOFCHK  TRUST  VFRING  USED BY
0000:03:00.0  8086:1521  PF ens802f0 with 2 of 7 VFs  igb       40     0     -    -     -         -      -       -
0000:03:10.0  8086:1520  VF 0 of ens802f0             vfio-pci  50*    0     -    -     -         -      igbvf   -
0000:03:10.4  8086:1520  VF 1 of ens802f0             -         50*    0     -    -     -         -      igbvf   -
* the IOMMU group has other members: `--json` names them
";
    assert_eq!(host.prints(&["list"], 0)?, expected);
    let value: Value = serde_json::from_str(&host.prints(&["list", "--json", "--probe"], 0)?).expect("JSON");
    let vf = &value[1];
    assert_eq!((&vf["pf"], &vf["vf"], &vf["vfring_driver"]), (&PF.into(), &0.into(), &"igbvf".into()));
    assert_eq!(vf["group_members"], Value::from(vec!["0000:03:10.0 (vfio-pci)", "0000:03:10.4 (no driver)"]));
    Ok(())
}

#[test]
fn names_come_from_a_database_of_pci_ids() -> Result<()> {
    let host = Host::new();
    let ids = "# comment\n8086  Intel Corporation\n\t1520  I350 Ethernet Controller Virtual Function\n";
    let option = format!("--names={}", host.file("pci.ids", ids));
    let printed = host.prints(&["list", &option], 0)?;
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].ends_with("  USED BY  NAME"), "{printed}");
    assert!(lines[1].ends_with("  -        Intel Corporation unknown device"), "{printed}");
    assert!(lines[2].ends_with("  -        Intel Corporation I350 Ethernet Controller Virtual Function"), "{printed}");
    let value: Value = serde_json::from_str(&host.prints(&["list", "--json", &option], 0)?).expect("JSON");
    assert_eq!(value[1]["name"], "Intel Corporation I350 Ethernet Controller Virtual Function");
    let value: Value = serde_json::from_str(&host.prints(&["list", "--json"], 0)?).expect("JSON");
    assert_eq!(value[1]["name"], Value::Null);
    host.refuses(&["list", "--names=/nowhere/pci.ids"], &["/nowhere/pci.ids"])?;
    let broken = format!("--names={}", host.file("broken.ids", "\t1520  a device of nobody\n"));
    host.refuses(&["list", &broken], &["broken.ids: parsing error"])
}

// --- bind, vf, apply -------------------------------------------------------------------------------------------------

#[test]
fn a_dry_run_prints_every_write_and_does_none() -> Result<()> {
    let host = Host::new();
    host.tree.driver(VFS[1], "igbvf");
    let expected = "\
echo 0000:03:10.4 > /sys/bus/pci/devices/0000:03:10.4/driver/unbind
echo vfio-pci > /sys/bus/pci/devices/0000:03:10.4/driver_override
echo 0000:03:10.4 > /sys/bus/pci/drivers/vfio-pci/bind
echo > /sys/bus/pci/devices/0000:03:10.4/driver_override
";
    assert_eq!(host.prints(&["bind", "--dry-run", VFS[0], VFS[1]], 0)?, expected);
    assert!(!host.path(&format!("devices/pci/{}/driver_override", VFS[1])).exists());
    assert_eq!(host.prints(&["bind", VFS[0]], 0)?, "0000:03:10.0: is bound to vfio-pci already\n");
    assert_eq!(host.prints(&["unbind", VFS[1]], 0)?, "0000:03:10.4: is bound to igbvf already\n");
    let unbound = host.prints(&["unbind", "--dry-run", VFS[0]], 0)?;
    assert!(unbound.ends_with("driver_override\necho 0000:03:10.0 > /sys/bus/pci/drivers_probe\n"), "{unbound}");
    Ok(())
}

#[test]
fn writes_are_done_and_what_came_of_them_is_looked_at() -> Result<()> {
    let host = Host::new();
    let vf = VFS[1];
    host.tree.driver(vf, "igbvf").file("bus/pci/drivers/igbvf/unbind", "").file("bus/pci/drivers_probe", "");
    host.tree.write(vf, "driver_override", "(null)\n");
    // This tree's igbvf keeps the VF.
    host.refuses(&["bind", vf], &["0000:03:10.4: vfio-pci did not take it", "dmesg"])?;
    assert_eq!(host.text("bus/pci/drivers/igbvf/unbind"), vf);
    assert_eq!(host.text("bus/pci/drivers/vfio-pci/bind"), vf);
    assert!(host.text(&format!("devices/pci/{vf}/driver_override")).starts_with('\n'));
    host.refuses(&["bind", vf, "--driver", "uio_pci_generic"], &["modprobe uio_pci_generic"])?;
    host.refuses(&["bind", PF], &["is a PF, and its 2 VFs would go", "--force"])?;
    host.refuses(&["bind", "0000:99:00.0"], &["no such PCI device"])?;
    host.tree.interface(vf, "enp3s16f4", "", true).file("proc/net/route", "Iface\nenp3s16f4\t00000000\n");
    host.refuses(&["bind", vf, "--dry-run"], &["enp3s16f4 has the default route", "--force"])
}

#[test]
fn vfs_are_made_told_of_and_bound_in_this_order() -> Result<()> {
    let host = Host::new();
    let create = ["vf", "create", "--pf", "ens802f0", "--driver", "vfio-pci", "--dry-run"];
    // What is so already needs no write.
    assert_eq!(host.prints(&[&create[..], &["--num", "2"]].concat(), 0)?, "");
    let settings =
        ["--vf", "1-2", "--vlan", "100", "--qos", "3", "--trust", "on", "--spoofchk", "off", "--link", "auto"];
    host.tree.file(&format!("devices/pci/{PF}/net/ens802f0/flags"), "0x1002\n");
    let made = host.prints(&[&create[..], &["--num", "3"], &settings].concat(), 0)?;
    let mut expected = String::from(
        "\
echo 0 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs
echo 3 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs
ip link set ens802f0 up
",
    );
    for vf in 1..=2 {
        for setting in ["vlan 100 qos 3", "spoofchk off", "trust on", "state auto"] {
            expected += &format!("ip link set ens802f0 vf {vf} {setting}\n");
        }
    }
    for vf in ["0000:03:10.0", "0000:03:10.4", "0000:03:11.0"] {
        expected += &format!("echo vfio-pci > /sys/bus/pci/devices/{vf}/driver_override\n");
        expected += &format!("echo {vf} > /sys/bus/pci/drivers/vfio-pci/bind\n");
        expected += &format!("echo > /sys/bus/pci/devices/{vf}/driver_override\n");
    }
    assert_eq!(made, expected);
    assert_eq!(host.text(&format!("devices/pci/{PF}/sriov_numvfs")), "2\n");
    let destroyed = host.prints(&["vf", "destroy", "--pf", PF, "--dry-run"], 0)?;
    assert_eq!(destroyed, "echo 0 > /sys/bus/pci/devices/0000:03:00.0/sriov_numvfs\n");
    Ok(())
}

#[test]
fn a_vf_keeps_the_address_that_its_own_driver_gave_it() -> Result<()> {
    let host = Host::new();
    host.tree.driver(VFS[1], "igbvf").interface(VFS[1], "enp3s16f4", "a0:36:9f:00:00:99", false);
    let create = ["vf", "create", "--pf", "ens802f0", "--num", "2", "--dry-run"];
    let kept = "ip link set ens802f0 vf 1 mac a0:36:9f:00:00:99\n";
    let bound = host.prints(&[&create[..], &["--driver", "vfio-pci"]].concat(), 0)?;
    assert!(bound.starts_with(kept), "{bound}");
    // Not where it is not bound away, nor where it is told another.
    assert_eq!(host.prints(&create, 0)?, "");
    let own = ["--driver", "vfio-pci", "--vf", "1", "--mac", "52:54:00:00:00:01"];
    let told = host.prints(&[&create[..], &own].concat(), 0)?;
    assert!(told.starts_with("ip link set ens802f0 vf 1 mac 52:54:00:00:00:01\n") && !told.contains(kept), "{told}");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() -> Result<()> {
    let host = Host::new();
    for (arguments, parts) in [
        (&["--pf", "ens802f0", "--num", "8"][..], &["8 VFs are asked for, and it can have 1 to 7"][..]),
        (&["--pf", "eth9", "--num", "2"], &["eth9: no such PF", "ens802f0"]),
        (&["--pf", PF, "--num", "3", "--vf", "3", "--trust", "on"], &["VF 3 is out of range: it shall have 3"]),
        (&["--pf", PF, "--num", "3", "--vf", "2-1"], &["'2-1' is no list of VFs"]),
        (&["--pf", PF, "--num", "3", "--mac", "52:54:00:00:00:01"], &["several VFs cannot have one MAC"]),
        (&["--pf", PF, "--num", "1", "--mac", "ff:ff:ff:ff:ff:ff"], &["cannot be the address of a station"]),
        (&["--pf", PF, "--num", "3", "--vlan", "4095"], &["no number from 0 to 4094"]),
        (&["--pf", PF, "--num", "3", "--qos", "1"], &["give its id as vlan"]),
        (&["--pf", PF, "--num", "3", "--trust", "perhaps"], &["neither on nor off"]),
        (&["--pf", PF, "--num", "3", "--link", "up"], &["none of auto, enable and disable"]),
    ] {
        host.refuses(&[&["vf", "create", "--dry-run"], arguments].concat(), parts)?;
    }
    // Netlink speaks to this machine's kernel, whatever the tree says.
    host.refuses(&["vf", "create", "--pf", PF, "--num", "3"], &["with --sysfs of another machine, say --dry-run"])?;
    assert_eq!(host.text(&format!("devices/pci/{PF}/sriov_numvfs")), "2\n");
    Ok(())
}

#[test]
fn a_file_describes_a_host_and_is_applied_again_without_a_write() -> Result<()> {
    let host = Host::new();
    let file = host.file(
        "host.toml",
        "[[pf]]\nname = \"ens802f0\"\nvfs = 4\ndriver = \"vfio-pci\"\n\n[[pf.vf]]\nlist = \"0,3\"\nvlan = 7\ntrust = true\n\
         [[pf.vf]]\nspoofchk = false\n[[device]]\naddress = \"0000:03:10.4\"\n",
    );
    let applied = host.prints(&["apply", "--dry-run", &file], 0)?;
    let lines: Vec<&str> = applied.lines().collect();
    assert!(lines[0].starts_with("echo 0 > ") && lines[1].starts_with("echo 4 > "), "{applied}");
    let settings: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("ip link set ens802f0 vf ")).collect();
    let expected = [
        "0 vlan 7",
        "0 trust on",
        "3 vlan 7",
        "3 trust on",
        "0 spoofchk off",
        "1 spoofchk off",
        "2 spoofchk off",
        "3 spoofchk off",
    ];
    assert_eq!(settings, expected);
    assert_eq!(applied.matches("drivers/vfio-pci/bind").count(), 4, "{applied}");
    let file = host.file("host.toml", "[[pf]]\nname = \"0000:03:00.0\"\nvfs = 2\ndriver = \"vfio-pci\"\n");
    assert_eq!(host.prints(&["apply", "--dry-run", &file], 0)?, "");
    Ok(())
}

#[test]
fn files_that_are_wrong_are_refused_with_the_place() -> Result<()> {
    let host = Host::new();
    for (text, part) in [
        ("[[pf]\n", "line 1"),
        ("[[pf]]\nvfs = 2\n", "pf 1 has no name"),
        ("[[pf]]\nname = \"x\"\n", "pf 1 has no vfs"),
        ("[[pf]]\nname = \"x\"\nvfs = -1\n", "no number of VFs"),
        ("[[pf]]\nname = \"ens802f0\"\nvfs = 2\nnum = 3\n", "pf 1 has 'num'; there are name, vfs, driver, vf"),
        ("[[pf]]\nname = \"ens802f0\"\nvfs = 2\n[[pf.vf]]\nvlan = 4095\n", "pf 1, vf 1: vlan: '4095'"),
        ("[[pf]]\nname = \"ens802f0\"\nvfs = 2\n[[pf.vf]]\nvlans = 1\n", "has 'vlans'"),
        ("[pf]\nname = \"ens802f0\"\n", "write [[pf]]"),
        ("[[device]]\naddress = \"eth0\"\n", "is not a PCI address"),
        ("pfs = []\n", "the file has 'pfs'; there are pf, device"),
    ] {
        let file = host.file("host.toml", text);
        host.refuses(&["apply", "--dry-run", &file], &["host.toml", part])?;
    }
    host.refuses(&["apply", "/nonexistent.toml"], &["/nonexistent.toml"])
}

#[test]
fn the_command_line_explains_itself() -> Result<()> {
    let help = run(&["--help"])?;
    assert_eq!(help.code, 0);
    for name in ["list", "doctor", "vf", "bind", "unbind", "apply", "device-plugin", "completions", "man"] {
        assert!(help.stdout.contains(&format!("  {name} ")), "{}", help.stdout);
        let own = run(&[name, "--help"])?;
        assert!(own.code == 0 && own.stdout.contains("Usage: vfring"), "{own:?}");
    }
    for arguments in
        [&["bind"][..], &["bind", "eth0"], &["vf", "create", "--pf", "x"], &["frobnicate"], &["doctor", "x"]]
    {
        assert_eq!(run(arguments)?.code, 2, "{arguments:?}");
    }
    Ok(())
}

#[test]
fn bash_completes_subcommands_options_and_values() -> Result<()> {
    let host = Host::new();
    let file = host.file("vfring.bash", &run(&["completions", "bash"])?.stdout);
    let complete = |words: &[&str]| -> Result<Vec<String>> {
        let (last, previous) = (words[words.len() - 1], words[words.len() - 2]);
        let script = format!(
            "source {file}; COMP_WORDS=({}); COMP_CWORD={}; _vfring vfring '{last}' '{previous}'; echo ${{COMPREPLY[@]}}",
            words.iter().map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" "),
            words.len() - 1
        );
        let ended = Program::start("bash".as_ref(), &["-c", &script])?.end(Duration::from_secs(20))?;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{words:?}");
        Ok(ended.stdout.split_whitespace().map(str::to_owned).collect())
    };
    assert_eq!(complete(&["vfring", "d"])?, ["doctor", "device-plugin"]);
    assert_eq!(complete(&["vfring", "vf", "c"])?, ["create"]);
    assert_eq!(complete(&["vfring", "vf", "create", "--sp"])?, ["--spoofchk"]);
    assert_eq!(complete(&["vfring", "completions", ""])?, ["-h", "--help", "bash", "zsh", "fish"]);
    Ok(())
}

#[test]
fn zsh_and_fish_are_told_every_subcommand_and_others_are_refused() -> Result<()> {
    let names = ["list", "doctor", "create", "destroy", "bind", "unbind", "apply", "explain", "validate", "serve"];
    for (shell, start) in [("zsh", "#compdef vfring\n"), ("fish", "# Print an optspec")] {
        let ended = run(&["completions", shell])?;
        assert!(ended.code == 0 && ended.stdout.starts_with(start), "{shell}: {:.80}", ended.stdout);
        for name in names {
            assert!(ended.stdout.contains(name), "{shell} is not told of {name}");
        }
    }
    let refused = run(&["completions", "csh"])?;
    assert!(refused.code == 2 && refused.stderr.contains("bash, zsh, fish"), "{refused:?}");
    Ok(())
}

#[test]
fn each_subcommand_has_a_manual_page_with_its_options() -> Result<()> {
    let host = Host::new();
    assert!(run(&["man"])?.stdout.contains(".TH vfring 1 "));
    let directory = host.path("share/man1");
    let out = directory.to_str().expect("temporary paths are UTF-8");
    assert_eq!(run(&["man", "--out", out])?.stdout, format!("{out}\n"));
    let pages = fs::read_dir(&directory).expect("it was made");
    let mut pages: Vec<String> =
        pages.map(|page| page.expect("readable").file_name().to_string_lossy().into_owned()).collect();
    pages.sort();
    let page =
        |name: &str| fs::read_to_string(directory.join(name)).unwrap_or_else(|e| panic!("{name}: {e}: {pages:?}"));
    for (name, parts) in [
        ("vfring.1", &["vfring\\-vf(1)", "vfring\\-device\\-plugin(1)"][..]),
        ("vfring-vf-create.1", &[".TH vfring-vf-create 1 ", "\\-\\-spoofchk", "\\-\\-dry\\-run"]),
        ("vfring-device-plugin-validate.1", &["\\-\\-plugin\\-dir", "Exit status"]),
        ("vfring-apply.1", &["[[pf]]", "name = \"ens802f0\""]),
    ] {
        let text = page(name);
        for part in parts {
            assert!(text.contains(part), "'{part}' is not in {name}: {text}");
        }
    }
    let file = host.file("taken", "");
    let refused = run(&["man", "--out", &file])?;
    assert!(refused.code == 1 && refused.stderr.starts_with("vfring: writing ") && refused.stderr.contains(&file));
    Ok(())
}
