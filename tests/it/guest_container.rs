//! From a host without VFs to a container that forwards with two of them: the program `vfring` prepares the host, and runc
//! starts containers with the device nodes and the environment that a pod gets, and nothing else.
//!
//! What the kernel does about devices is real here (cgroup version 2, an IOMMU, vfio-pci); what is missing of a cluster is
//! in front of runc: containerd, and a kubelet that nobody here wrote.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use vfring_tests::build::{static_example, static_vfring};
use vfring_tests::forwarder::{Forwarder, QUIET, Way};
use vfring_tests::vm::{Bench, Binding, Guest, Mac, Result, Testbed, TestbedConfig};

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(60);

const VFRING: &str = "/opt/vfring/vfring";
const L2FWD: &str = "/opt/vfring/l2fwd";
const RESOURCE: &str = "intel.com/intel_sriov_dpdk";
const HUGEPAGES: u32 = 128;

/// What a stock system has done by the time that kubelet starts, and busybox has not.
const PRELUDE: &str = "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
                       echo '+hugetlb +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control";

/// What Allocate answers for one container.
struct Answer {
    /// Paths of device nodes, the same inside and outside.
    nodes: Vec<String>,
    variables: BTreeMap<String, String>,
}

/// A folder that runc starts a container from.
struct Bundle<'a> {
    guest: &'a Guest,
    name: &'a str,
}

impl<'a> Bundle<'a> {
    /// Makes the bundle of a container that has `answer` and IPC_LOCK, as root, and runs `arguments`.
    fn new(guest: &'a Guest, name: &'a str, answer: &Answer, arguments: &[&str]) -> Result<Bundle<'a>> {
        let mut nodes = Vec::new();
        for path in &answer.nodes {
            nodes.push((path.as_str(), node_number(guest, path)?));
        }
        let bundle = Bundle { guest, name };
        let (folder, root) = (bundle.folder(), bundle.root());
        guest.sh(&format!(
            "mkdir -p {root}/bin {root}/proc {root}/sys {root}/dev && cp {L2FWD} /bin/busybox {root}/bin/"
        ))?;
        let config = config(&nodes, &answer.variables, arguments, name);
        guest.write_file(&format!("{folder}/config.json"), config.to_string().as_bytes())?;
        Ok(bundle)
    }

    fn folder(&self) -> String {
        format!("/run/bundles/{}", self.name)
    }

    /// The container's root, from outside.
    fn root(&self) -> String {
        format!("{}/root", self.folder())
    }

    /// The command that runs it. What the guest boots from cannot be pivoted away from.
    fn command(&self) -> String {
        format!("runc run --no-pivot --bundle {} {}", self.folder(), self.name)
    }

    /// Runs it to its end; its exit status and what it printed.
    fn run(&self) -> Result<(i32, String)> {
        let output = self.guest.run(&self.command(), TIMEOUT)?;
        println!("{}: status {}, {}", self.name, output.status, output.text());
        Ok((output.status, output.text()))
    }
}

/// Major and minor number of a device node.
fn node_number(guest: &Guest, path: &str) -> Result<(u32, u32)> {
    let text = guest.sh(&format!("stat -c '%t %T' {path}"))?;
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{path}: {text}: {error}"));
    let (major, minor) = text.split_once(' ').unwrap_or_else(|| panic!("{path}: {text}"));
    Ok((number(major), number(minor)))
}

/// The runtime's configuration, as containerd would write it for a pod that drops all capabilities but IPC_LOCK, with a
/// volume of hugepages and a limit on them.
fn config(nodes: &[(&str, (u32, u32))], variables: &BTreeMap<String, String>, arguments: &[&str], name: &str) -> Value {
    let capabilities = ["CAP_IPC_LOCK"];
    let variables: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let devices: Vec<Value> = nodes
        .iter()
        .map(|(path, (major, minor))| json!({"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o600}))
        .collect();
    let mut rules = vec![json!({"allow": false, "access": "rwm"})];
    rules.extend(nodes.iter().map(
        |(_, (major, minor))| json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rw"}),
    ));
    let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({"type": kind}));
    let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "root", "readonly": true},
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": arguments,
            "env": variables,
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 65536}],
            "noNewPrivileges": true,
        },
        "mounts": [
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/dev/hugepages", "hugetlbfs", &["nosuid"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        ],
        "linux": {
            "cgroupsPath": format!("/pod-{name}"),
            "namespaces": namespaces,
            "devices": devices,
            "resources": {"devices": rules, "hugepageLimits": [{"pageSize": "2MB", "limit": 64 << 20}]},
        },
    })
}

/// Runs a subcommand, demands its status, and returns what it printed.
fn vfring(guest: &Guest, arguments: &str, status: i32) -> Result<String> {
    let output = guest.run(&format!("{VFRING} {arguments}"), TIMEOUT)?;
    let text = output.text();
    println!("$ vfring {arguments}\n{text}");
    assert_eq!(output.status, status, "{arguments}: {text}");
    Ok(text)
}

/// Gives each PF of the guest two VFs on vfio-pci, by nothing but `vfring`; the addresses of the second ones.
fn prepare(bed: &Testbed) -> Result<[String; 2]> {
    let guest = &bed.guest;
    for (pf, side) in bed.pfs.iter().zip([&bed.a, &bed.b]) {
        vfring(guest, &format!("vf destroy --pf {}", pf.netdev), 0)?;
        vfring(guest, &format!("vf create --pf {} --num 2 --vf 0 --mac {}", pf.netdev, side.vf_mac), 0)?;
        let second = second_vf(side.vf.as_str());
        vfring(guest, &format!("bind {} {second}", side.vf), 0)?;
    }
    // VFs that come and go take the link down.
    for pf in &bed.pfs {
        guest.wait_carrier(&pf.netdev)?;
    }
    vfring(guest, "doctor", 0)?;
    let list = vfring(guest, "list", 0)?;
    assert_eq!(list.matches(" vfio-pci ").count(), 4, "{list}");
    Ok([second_vf(&bed.a.vf), second_vf(&bed.b.vf)])
}

/// VFs of QEMU's igb have every second number.
fn second_vf(first: &str) -> String {
    first.replace(":10.0", ":10.2")
}

#[test]
fn a_container_with_what_a_pod_gets_forwards_and_no_other_opens_its_group() -> Result<()> {
    let files = TestbedConfig { binding: Binding::Unbound, hugepages: HUGEPAGES, ..TestbedConfig::default() };
    let bed = Testbed::boot(files.file(static_vfring()?, VFRING).file(static_example("l2fwd")?, L2FWD))?;
    let guest = &bed.guest;
    guest.sh(PRELUDE)?;
    let others = prepare(&bed)?;
    println!("{}", guest.sh("runc --version")?);

    let first = allocate(guest, &[&bed.a.vf, &bed.b.vf])?;
    let [peer_a, peer_b] = [&bed.a, &bed.b].map(|side| side.tap.mac);
    let peers = [format!("0,{peer_a}"), format!("1,{peer_b}")];
    let l2fwd = ["/bin/l2fwd", "--json", "--stats-period", "0", "--resource", RESOURCE];
    let arguments = [&l2fwd[..], &["--peer-mac", &peers[0], "--peer-mac", &peers[1]]].concat();
    let bundle = Bundle::new(guest, "first", &first, &arguments)?;
    let forwarder = Forwarder::spawn(&bed, &format!("exec {}", bundle.command()))?;
    for way in [Way::AToB, Way::BToA] {
        forwards(&bed, way)?;
    }

    // A second container opens its own group, and not the first one's, whose node it has all the same.
    let second = allocate(guest, &[&others[0]])?;
    let (own, foreign) = (&second.nodes[1], &first.nodes[1]);
    let open = |path: &str| format!("if (exec 3<>{path}); then echo opened; fi");
    let script = format!("{}; {}", open(own), open("/stolen"));
    let intruder = Bundle::new(guest, "second", &second, &["/bin/busybox", "sh", "-c", &script])?;
    let (major, minor) = node_number(guest, foreign)?;
    guest.sh(&format!("mknod {}/stolen c {major} {minor}", intruder.root()))?;
    let (_, printed) = intruder.run()?;
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.len(), 2, "{printed}");
    assert_eq!(lines[0], "opened");
    assert!(lines[1].contains("/stolen") && lines[1].contains("Operation not permitted"), "{printed}");
    // It is the cgroup that forbids it: outside, the same node is only taken.
    let outside = guest.run(&open(&format!("{}/stolen", intruder.root())), TIMEOUT)?.text();
    assert!(outside.contains("Device or resource busy"), "{outside}");

    // The first one has not noticed.
    forwards(&bed, Way::AToB)?;
    let report = forwarder.stop()?;
    assert!(report.on_hugepages());
    assert!(guest.sh("runc list -q")?.is_empty());
    assert_eq!(guest.free_hugepages()?, HUGEPAGES);

    // What a pod may forget is said by the program in it.
    let mut nothing = allocate(guest, &[&bed.a.vf, &bed.b.vf])?;
    nothing.variables.clear();
    let (status, printed) = Bundle::new(guest, "forgotten", &nothing, &l2fwd)?.run()?;
    assert!(status != 0 && printed.contains(&format!("add `{RESOURCE}: \"1\"`")), "{printed}");
    let mut half = allocate(guest, &[&bed.a.vf, &bed.b.vf])?;
    let removed = half.nodes.pop().expect("three nodes");
    let (status, printed) = Bundle::new(guest, "half", &half, &l2fwd)?.run()?;
    assert!(status != 0 && printed.contains(&format!("{removed} is missing in the container")), "{printed}");
    Ok(())
}

/// Counted frames pass, with new addresses, and none is lost.
fn forwards(bed: &Bench, way: Way) -> Result<()> {
    let receiver = way.receiver(bed)?;
    let sent = way.sender(bed).rate(10_000).following(&receiver, 256).send_for(SECOND)?;
    let received = receiver.finish(QUIET)?;
    println!("{way:?}: {} of {} frames", received.frames, sent.frames);
    assert_eq!((received.frames, received.corrupt), (sent.frames, 0), "{way:?}");
    let (destination, source): (Mac, Mac) = way.addresses(bed);
    assert_eq!(received.destinations.into_iter().collect::<Vec<_>>(), [destination]);
    assert_eq!(received.sources.into_iter().collect::<Vec<_>>(), [source]);
    Ok(())
}

/// What kubelet would get for these devices.
fn allocate(guest: &Guest, devices: &[&str]) -> Result<Answer> {
    let mut nodes = vec!["/dev/vfio/vfio".to_owned()];
    for device in devices {
        nodes.push(format!("/dev/vfio/{}", guest.iommu_group(device)?));
    }
    let variable = format!("PCIDEVICE_{}", RESOURCE.replace(['.', '/'], "_").to_uppercase());
    Ok(Answer { nodes, variables: BTreeMap::from([(variable, devices.join(","))]) })
}
