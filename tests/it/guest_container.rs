//! From a host without VFs to a container that forwards with two of them, as in a cluster: `vfring` prepares the host, the
//! device plugin runs in the container that `deploy/daemonset.yaml` describes, a kubelet asks it for devices, and its
//! answer becomes a container in which l2fwd forwards.
//!
//! What the kernel does about devices is real here (cgroup version 2, an IOMMU, vfio-pci), and so is runc; what is missing
//! of a cluster are containerd, and a kubelet that nobody here wrote.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use vfring_tests::build::{self, complete_example, libraries, root};
use vfring_tests::container::{Bundle, Container, PRELUDE, node_number};
use vfring_tests::forwarder::{Forwarder, Way};
use vfring_tests::vm::{Bench, Binding, Guest, Mac, Process, Result, Testbed, TestbedConfig, poll};

const SECOND: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(60);

const VFRING: &str = "/vfring";
const L2FWD: &str = "/l2fwd";
const KUBELET: &str = "/kubelet";
const BUSYBOX: &str = "/bin/busybox";
const RESOURCE: &str = "intel.com/intel_sriov_dpdk";
const HUGEPAGES: u32 = 128;
/// How soon kubelet must know that a device cannot be given to a pod.
const SOON: f64 = 5.0;

// --- the host --------------------------------------------------------------------------------------------------------

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
        vfring(guest, &format!("bind {} {}", side.vf, second_vf(&side.vf)), 0)?;
    }
    // VFs that come and go take the link down.
    for pf in &bed.pfs {
        guest.wait_carrier(&pf.netdev)?;
    }
    // As on a machine with NUMA, whose pools lie on the node of their NIC.
    guest.sh("for node in /sys/bus/pci/devices/*/physfn; do echo 0 >${node%/*}/numa_node; done")?;
    vfring(guest, "doctor", 0)?;
    let list = vfring(guest, "list", 0)?;
    assert_eq!(list.matches(" vfio-pci ").count(), 4, "{list}");
    Ok([second_vf(&bed.a.vf), second_vf(&bed.b.vf)])
}

/// VFs of QEMU's igb have every second number.
fn second_vf(first: &str) -> String {
    first.replace(":10.0", ":10.2")
}

// --- kubelet and the device plugin -----------------------------------------------------------------------------------

fn manifest(name: &str) -> Value {
    let path = root().join("deploy").join(name);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let one = serde_norway::Deserializer::from_str(&text).next().expect("a document");
    Value::deserialize(one).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().unwrap_or_else(|| panic!("no list: {value}"));
    list.iter().map(|item| item.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()).collect()
}

/// The container of the DaemonSet, with the folders of the guest that it has of its node.
fn plugin_container(guest: &Guest) -> Result<Container> {
    const CONFIG: &str = "/run/configmap";
    let json = manifest("configmap.yaml")["data"]["config.json"].as_str().expect("a text").to_owned();
    guest.sh(&format!("mkdir -p {CONFIG}"))?;
    guest.write_file(&format!("{CONFIG}/config.json"), json.as_bytes())?;
    let pod = manifest("daemonset.yaml")["spec"]["template"]["spec"].clone();
    let container = &pod["containers"][0];
    let mut folders = Vec::new();
    for mount in container["volumeMounts"].as_array().expect("mounts") {
        let volumes = pod["volumes"].as_array().expect("volumes");
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).expect("a volume for each mount");
        let outside = volume["hostPath"]["path"].as_str().unwrap_or(CONFIG).to_owned();
        guest.sh(&format!("mkdir -p {outside}"))?;
        let inside = mount["mountPath"].as_str().expect("a path").to_owned();
        folders.push((outside, inside, mount["readOnly"] != true));
    }
    let arguments = [vec![VFRING.to_owned()], strings(&container["args"])].concat();
    let memory = container["resources"]["limits"]["memory"].as_str().and_then(|text| text.strip_suffix("Mi"));
    let memory: u64 = memory.and_then(|text| text.parse().ok()).expect("a limit in Mi");
    Ok(Container { arguments, files: vec![VFRING.into()], folders, memory: memory << 20, ..Container::default() })
}

/// The kubelet in the guest.
struct Kubelet<'a> {
    guest: &'a Guest,
    process: Process,
}

/// What Allocate answers for one container.
struct Answer {
    nodes: Vec<String>,
    variables: BTreeMap<String, String>,
}

impl<'a> Kubelet<'a> {
    const REQUESTS: &'static str = "/run/kubelet.requests";

    fn start(guest: &'a Guest) -> Result<Kubelet<'a>> {
        let directory = "/var/lib/kubelet/device-plugins";
        guest.sh(&format!("mkdir -p {directory} && chmod 750 {directory} && mkfifo {}", Self::REQUESTS))?;
        let process = guest.spawn(&format!("exec {KUBELET} {directory} {RESOURCE} {}", Self::REQUESTS))?;
        guest.wait_log(&process, "ready", TIMEOUT)?;
        Ok(Kubelet { guest, process })
    }

    /// What the plugin said last of its devices, and when, in seconds of the guest's uptime.
    fn devices(&self) -> Result<Option<(BTreeMap<String, String>, f64)>> {
        let log = self.guest.log(&self.process)?;
        let last = log.lines().rev().find_map(|line| line.strip_prefix("devices "));
        Ok(last.map(|line| {
            let (health, at) = line.rsplit_once(" at ").unwrap_or_else(|| panic!("{line}"));
            let health = serde_json::from_str(health).unwrap_or_else(|error| panic!("{line}: {error}"));
            (health, at.parse().unwrap_or_else(|error| panic!("{line}: {error}")))
        }))
    }

    /// Waits until there are four devices of which just `ill` are unhealthy; when that was.
    fn wait_for(&self, ill: &[&str]) -> Result<f64> {
        let found = poll(&format!("four devices, unhealthy: {ill:?}"), TIMEOUT, SECOND / 10, || {
            Ok(self.devices()?.and_then(|(devices, at)| {
                let is_as_said = |(id, health): (&String, &String)| (health == "Healthy") != ill.contains(&id.as_str());
                (devices.len() == 4 && devices.iter().all(is_as_said)).then_some(at)
            }))
        });
        found.map_err(|error| error.with(self.guest.log(&self.process).unwrap_or_default()))
    }

    /// Asks for devices; the answer, or the text of the refusal.
    fn allocate(&self, ids: &[&str]) -> Result<Result<Answer, String>> {
        let number = self.guest.sh("cat /proc/sys/kernel/random/uuid")?;
        self.guest.sh(&format!("echo {number} allocate {} >{}", ids.join(","), Self::REQUESTS))?;
        self.guest.wait_log(&self.process, &number, TIMEOUT)?;
        let log = self.guest.log(&self.process)?;
        let answer = log.lines().find_map(|line| line.strip_prefix(number.as_str())).expect("it is in the log").trim();
        println!("allocate {ids:?}: {answer}");
        if let Some(text) = answer.strip_prefix("refused ") {
            return Ok(Err(text.to_owned()));
        }
        let json = answer.strip_prefix("allocated ").unwrap_or_else(|| panic!("{answer}"));
        let json: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!((&json["mounts"], &json["cdi_devices"]), (&0.into(), &0.into()), "{json}");
        let mut nodes = Vec::new();
        for device in json["devices"].as_array().expect("devices") {
            assert_eq!((&device["host"], &device["permissions"]), (&device["container"], &"rw".into()), "{json}");
            nodes.push(device["host"].as_str().expect("a path").to_owned());
        }
        let envs: BTreeMap<String, String> = serde_json::from_value(json["envs"].clone()).expect("texts");
        Ok(Ok(Answer { nodes, variables: envs }))
    }

    fn give(&self, ids: &[&str]) -> Result<Answer> {
        Ok(self.allocate(ids)?.unwrap_or_else(|refusal| panic!("{ids:?}: {refusal}")))
    }
}

fn uptime(guest: &Guest) -> Result<f64> {
    let text = guest.sh("cut -d' ' -f1 /proc/uptime")?;
    Ok(text.parse().unwrap_or_else(|error| panic!("{text}: {error}")))
}

// --- pods ------------------------------------------------------------------------------------------------------------

/// A container of a pod like `deploy/l2fwd.yaml`, with what it was given.
fn pod<'a>(guest: &'a Guest, name: &str, answer: &Answer, arguments: &[&str]) -> Result<Bundle<'a>> {
    let container = Container {
        arguments: arguments.iter().map(ToString::to_string).collect(),
        files: vec![L2FWD.into(), BUSYBOX.into()],
        variables: answer.variables.clone(),
        nodes: answer.nodes.clone(),
        capabilities: vec!["CAP_IPC_LOCK".into()],
        hugepages: 64 << 20,
        ..Container::default()
    };
    container.bundle(guest, name)
}

#[test]
fn a_pod_s_container_forwards_and_no_other_opens_its_group() -> Result<()> {
    let config = TestbedConfig { binding: Binding::Unbound, hugepages: HUGEPAGES, ..TestbedConfig::default() };
    let mut config = config.file(build::vfring()?, VFRING).file(complete_example("l2fwd")?, L2FWD);
    let kubelet = env!("CARGO_BIN_EXE_kubelet");
    config = config.file(kubelet, KUBELET);
    for library in libraries(kubelet.as_ref())? {
        config = config.file(&library, &library);
    }
    let bed = Testbed::boot(config)?;
    let guest = &bed.guest;
    guest.sh(PRELUDE)?;
    println!("{}", guest.sh("runc --version")?);
    let others = prepare(&bed)?;

    let kubelet = Kubelet::start(guest)?;
    let plugin = plugin_container(guest)?.bundle(guest, "plugin")?;
    let plugin = guest.spawn(&format!("exec {}", plugin.command()))?;
    kubelet.wait_for(&[]).map_err(|error| error.with(guest.log(&plugin).unwrap_or_default()))?;

    // What a pod with two devices gets, in the order in which Multus gives them to its networks.
    let both = [bed.a.vf.as_str(), &bed.b.vf];
    let first = kubelet.give(&[both[1], both[0]])?;
    let groups = [guest.iommu_group(both[0])?, guest.iommu_group(both[1])?];
    let nodes = ["/dev/vfio/vfio".to_owned(), format!("/dev/vfio/{}", groups[0]), format!("/dev/vfio/{}", groups[1])];
    assert_eq!(first.nodes, nodes);
    assert_eq!(first.variables["PCIDEVICE_INTEL_COM_INTEL_SRIOV_DPDK"], both.join(","));
    let info = guest.read_file(&format!(
        "/var/run/k8s.cni.cncf.io/devinfo/dp/{}-{}-device.json",
        RESOURCE.replace('/', "-"),
        both[0]
    ))?;
    assert!(String::from_utf8_lossy(&info).contains(&format!("\"pci-address\":\"{}\"", both[0])));

    let [peer_a, peer_b] = [&bed.a, &bed.b].map(|side| side.tap.mac);
    let peers = [format!("0,{peer_a}"), format!("1,{peer_b}")];
    let l2fwd = [L2FWD, "--json", "--stats-period", "0", "--resource", RESOURCE];
    let arguments = [&l2fwd[..], &["--peer-mac", &peers[0], "--peer-mac", &peers[1]]].concat();
    let bundle = pod(guest, "first", &first, &arguments)?;
    let forwarder = Forwarder::spawn(&bed, &format!("exec {}", bundle.command()))?;
    for way in [Way::AToB, Way::BToA] {
        forwards(&bed, way)?;
    }

    another_container_opens_its_own_group_only(&kubelet, &others[0], &nodes[1])?;
    a_device_without_its_driver_is_unhealthy_until_it_is_back(&kubelet, &others[1])?;

    // The first one has not noticed.
    forwards(&bed, Way::AToB)?;
    let report = forwarder.stop()?;
    assert!(report.on_hugepages());
    assert_eq!(guest.free_hugepages()?, HUGEPAGES);

    // What a pod may forget is said by the program in it.
    let nothing = Answer { variables: BTreeMap::new(), nodes: first.nodes.clone() };
    let (status, printed) = pod(guest, "forgotten", &nothing, &l2fwd)?.run()?;
    assert!(status != 0 && printed.contains(&format!("add `{RESOURCE}: \"1\"`")), "{printed}");
    let half = Answer { nodes: nodes[..2].to_vec(), variables: first.variables };
    let (status, printed) = pod(guest, "half", &half, &l2fwd)?.run()?;
    assert!(status != 0 && printed.contains(&format!("{} is missing in the container", nodes[2])), "{printed}");

    guest.signal(&plugin, "TERM")?;
    assert_eq!(guest.wait(&plugin, TIMEOUT)?, 0, "{}", guest.log(&plugin)?);
    println!("{}", guest.log(&plugin)?);
    assert!(guest.sh("runc list -q")?.is_empty());
    Ok(())
}

/// A container opens the group that it was given, and not another's, whose node it has all the same.
fn another_container_opens_its_own_group_only(kubelet: &Kubelet<'_>, device: &str, foreign: &str) -> Result<()> {
    let guest = kubelet.guest;
    let second = kubelet.give(&[device])?;
    let open = |path: &str| format!("if (exec 3<>{path}); then echo opened; fi");
    let script = format!("{}; {}", open(&second.nodes[1]), open("/stolen"));
    let intruder = pod(guest, "second", &second, &[BUSYBOX, "sh", "-c", &script])?;
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
    Ok(())
}

fn a_device_without_its_driver_is_unhealthy_until_it_is_back(kubelet: &Kubelet<'_>, device: &str) -> Result<()> {
    let guest = kubelet.guest;
    for (change, ill) in [("unbind", &[device][..]), ("bind", &[])] {
        let before = uptime(guest)?;
        vfring(guest, &format!("{change} {device}"), 0)?;
        let took = kubelet.wait_for(ill)? - before;
        println!("{change}: kubelet knew after {took:.2} s");
        assert!((0.0..SOON).contains(&took), "{change}: {took:.2} s");
        if !ill.is_empty() {
            let refusal = kubelet.allocate(ill)?.err().expect("it is refused");
            assert!(refusal.contains(device) && refusal.contains("vfio-pci"), "{refusal}");
        }
    }
    kubelet.give(&[device]).map(drop)
}

/// Counted frames pass, with new addresses, and none is lost.
fn forwards(bed: &Bench, way: Way) -> Result<()> {
    let receiver = way.receiver(bed)?;
    let sent = way.sender(bed).rate(10_000).following(&receiver, 256).send_for(SECOND)?;
    let received = receiver.finish_after(sent.frames)?;
    println!("{way:?}: {} of {} frames", received.frames, sent.frames);
    assert_eq!((received.frames, received.corrupt), (sent.frames, 0), "{way:?}");
    let (destination, source): (Mac, Mac) = way.addresses(bed);
    assert_eq!(received.destinations.into_iter().collect::<Vec<_>>(), [destination]);
    assert_eq!(received.sources.into_iter().collect::<Vec<_>>(), [source]);
    Ok(())
}
