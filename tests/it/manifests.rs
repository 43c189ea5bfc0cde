//! What `deploy/` hands to a cluster, held against Kubernetes' own types, against what the programs take, and against
//! itself: files that name each other must agree.
//!
//! No cluster is here. A field that Kubernetes does not know is dropped by its types without a word, so each manifest is
//! read into them and written again: what is missing then was a mistake.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vfring::pci::SysfsRoot;
use vfring_tests::build::{complete_example, root, vfring};
use vfring_tests::program::{Ended, Program};
use vfring_tests::vm::Result;

#[path = "../../src/pci/fake.rs"]
#[allow(dead_code, reason = "unit tests of the crate use more of it")]
mod fake;

use fake::FakeSysfs;

const RESOURCE: &str = "intel.com/intel_sriov_dpdk";

fn text(name: &str) -> String {
    let path = root().join("deploy").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The documents of a file, as JSON.
fn documents(name: &str) -> Vec<Value> {
    let text = text(name);
    let documents = serde_norway::Deserializer::from_str(&text);
    documents.map(|one| Value::deserialize(one).unwrap_or_else(|error| panic!("{name}: {error}"))).collect()
}

/// The only document of a file, as a type of Kubernetes that knows all of it.
fn typed<T: DeserializeOwned + serde::Serialize>(name: &str) -> T {
    let [document]: [Value; 1] = documents(name).try_into().expect("one document");
    read(name, &document)
}

fn read<T: DeserializeOwned + serde::Serialize>(name: &str, document: &Value) -> T {
    let value: T = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let again = serde_json::to_value(&value).expect("it was JSON");
    assert_eq!(&again, document, "{name} has fields that Kubernetes does not know");
    value
}

fn daemon_set() -> DaemonSet {
    typed("daemonset.yaml")
}

fn plugin_pod() -> PodSpec {
    daemon_set().spec.and_then(|spec| spec.template.spec).expect("a pod")
}

fn only_container(pod: &PodSpec) -> &Container {
    assert_eq!(pod.containers.len(), 1);
    assert!(pod.init_containers.is_none());
    &pod.containers[0]
}

/// The value of an option of the device plugin.
fn option(name: &str) -> String {
    let pod = plugin_pod();
    let arguments = only_container(&pod).args.clone().expect("arguments");
    let start = format!("--{name}=");
    arguments
        .iter()
        .find_map(|argument| argument.strip_prefix(&start))
        .unwrap_or_else(|| panic!("no {start}"))
        .to_owned()
}

fn config_json() -> String {
    let map: ConfigMap = typed("configmap.yaml");
    let data = map.data.expect("data");
    assert_eq!(data.keys().collect::<Vec<_>>(), ["config.json"]);
    data["config.json"].clone()
}

// --- least privilege -------------------------------------------------------------------------------------------------

/// What no pod here needs.
fn is_least_privileged(name: &str, pod: &PodSpec, added: &[&str]) {
    assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
    for host in [pod.host_network, pod.host_pid, pod.host_ipc, pod.share_process_namespace] {
        assert_ne!(host, Some(true), "{name} shares a namespace of the host");
    }
    let profile = pod.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    assert_eq!(profile.map(|profile| profile.type_.as_str()), Some("RuntimeDefault"), "{name}");
    let context = only_container(pod).security_context.as_ref().expect("a security context");
    assert_ne!(context.privileged, Some(true), "{name}");
    assert_eq!(context.allow_privilege_escalation, Some(false), "{name}");
    assert_eq!(context.read_only_root_filesystem, Some(true), "{name}");
    let capabilities = context.capabilities.as_ref().expect("capabilities");
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]), "{name}");
    assert_eq!(capabilities.add.clone().unwrap_or_default(), added, "{name}");
    let resources = only_container(pod).resources.as_ref().expect("resources");
    let limits = resources.limits.as_ref().expect("limits");
    assert!(limits.contains_key("cpu") && limits.contains_key("memory"), "{name}: {limits:?}");
}

#[test]
fn the_device_plugin_has_the_least_privilege_that_it_works_with() {
    let pod = plugin_pod();
    is_least_privileged("daemonset.yaml", &pod, &[]);
    assert!(pod.service_account_name.is_none());
    let container = only_container(&pod);
    assert_eq!(container.env, None);

    // Nothing of the host but these, and only two that can be written: kubelet's sockets and Multus's files.
    let mounts = container.volume_mounts.as_ref().expect("mounts");
    let mut seen = BTreeSet::new();
    for volume in pod.volumes.as_ref().expect("volumes") {
        let mount = mounts.iter().find(|mount| mount.name == volume.name).unwrap_or_else(|| panic!("{}", volume.name));
        let read_only = mount.read_only == Some(true);
        match &volume.host_path {
            Some(host) => drop(seen.insert((host.path.clone(), mount.mount_path.clone(), read_only))),
            None => assert!(volume.config_map.is_some() && read_only, "{}", volume.name),
        }
    }
    assert_eq!(mounts.len(), seen.len() + 1);
    let (sockets, info) = (option("plugin-dir"), option("device-info-dir"));
    let expected = [
        ("/dev/vfio".to_owned(), "/dev/vfio".to_owned(), true),
        ("/sys".to_owned(), option("sysfs"), true),
        ("/var/lib/kubelet/pod-resources".to_owned(), "/var/lib/kubelet/pod-resources".to_owned(), true),
        (sockets.clone(), sockets, false),
        (info.clone(), info, false),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn the_network_function_has_one_capability_and_only_devices_of_the_pool() {
    let pod: Pod = typed("l2fwd.yaml");
    let spec = pod.spec.expect("a spec");
    is_least_privileged("l2fwd.yaml", &spec, &["IPC_LOCK"]);
    assert!(spec.volumes.is_none());
    let container = only_container(&spec);
    let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref()).expect("limits");
    let names: BTreeSet<&str> = limits.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from([RESOURCE, "hugepages-2Mi", "memory", "cpu"]));
}

// --- files agree -----------------------------------------------------------------------------------------------------

#[test]
fn the_daemon_set_finds_its_pods_its_configuration_and_its_health() {
    let set = daemon_set();
    let spec = set.spec.expect("a spec");
    let labels = spec.template.metadata.and_then(|meta| meta.labels).expect("labels");
    assert_eq!(spec.selector.match_labels.as_ref(), Some(&labels));
    let pod = spec.template.spec.expect("a pod");

    let map: ConfigMap = typed("configmap.yaml");
    assert_eq!(map.metadata.namespace, set.metadata.namespace);
    let volumes = pod.volumes.as_ref().expect("volumes");
    let volume = volumes.iter().find(|volume| volume.config_map.is_some()).expect("a volume of a ConfigMap");
    assert_eq!(volume.config_map.as_ref().map(|source| &source.name), map.metadata.name.as_ref());
    let container = only_container(&pod);
    let mounts = container.volume_mounts.as_ref().expect("mounts");
    let mount = mounts.iter().find(|mount| mount.name == volume.name).expect("its mount");
    assert_eq!(option("config"), format!("{}/config.json", mount.mount_path));
    // A file of its own would never see a change of the ConfigMap.
    assert!(mounts.iter().all(|mount| mount.sub_path.is_none()));

    let port = container.ports.as_ref().expect("ports")[0].clone();
    assert!(option("metrics").ends_with(&format!(":{}", port.container_port)));
    let probe = container.liveness_probe.as_ref().and_then(|probe| probe.http_get.as_ref()).expect("a probe");
    assert_eq!(serde_json::to_value(&probe.port).ok(), port.name.map(Value::from));
    assert_eq!(probe.path.as_deref(), Some("/healthz"));
}

#[test]
fn networks_are_what_multus_and_sriov_cni_read() {
    // The keys that sriov-cni's configuration reference has, and those of every CNI plugin. Multus adds deviceID.
    let known = [
        "cniVersion",
        "name",
        "type",
        "capabilities",
        "vlan",
        "vlanQoS",
        "vlanProto",
        "mac",
        "spoofchk",
        "trust",
        "link_state",
        "min_tx_rate",
        "max_tx_rate",
        "logLevel",
        "logFile",
    ];
    let mut names = Vec::new();
    for network in documents("networks.yaml") {
        let keys = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap_or_else(|| panic!("{value}")).keys().cloned().collect()
        };
        let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
        // The shape of the custom resource.
        assert_eq!(keys(&network), set(&["apiVersion", "kind", "metadata", "spec"]));
        assert_eq!(
            (&network["apiVersion"], &network["kind"]),
            (&"k8s.cni.cncf.io/v1".into(), &"NetworkAttachmentDefinition".into())
        );
        let meta: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta =
            read("networks.yaml", &network["metadata"]);
        assert_eq!(keys(&network["spec"]), set(&["config"]));
        let annotations = meta.annotations.expect("annotations");
        assert_eq!(annotations.get("k8s.v1.cni.cncf.io/resourceName").map(String::as_str), Some(RESOURCE));

        let config: Value = serde_json::from_str(network["spec"]["config"].as_str().expect("a string")).expect("JSON");
        let strange: Vec<String> = keys(&config).difference(&set(&known)).cloned().collect();
        assert!(strange.is_empty(), "sriov-cni does not know {strange:?}");
        assert_eq!((&config["type"], &config["cniVersion"]), (&"sriov".into(), &"0.3.1".into()));
        assert_eq!(config["name"].as_str(), meta.name.as_deref());
        for key in ["spoofchk", "trust"] {
            assert!(matches!(config[key].as_str(), Some("on" | "off")), "{key}: {config}");
        }
        assert!(matches!(config["vlan"].as_u64(), Some(1..=4094)), "{config}");
        assert!(config["vlanQoS"].as_u64().is_none_or(|priority| priority <= 7), "{config}");
        assert_eq!(config["capabilities"]["mac"], true, "the pod gives a MAC address");
        names.push(config["name"].as_str().unwrap_or_default().to_owned());
    }

    // The pod asks for one device for each of its networks, and for networks that there are.
    let pod: Pod = typed("l2fwd.yaml");
    let wanted = pod.metadata.annotations.expect("annotations")["k8s.v1.cni.cncf.io/networks"].clone();
    let wanted: Vec<Value> = serde_json::from_str(&wanted).expect("JSON");
    assert_eq!(wanted.iter().map(|network| network["name"].as_str().expect("a name")).collect::<Vec<_>>(), names);
    for network in &wanted {
        let mac: vfring::MacAddr = network["mac"].as_str().expect("an address").parse().expect("an address");
        assert!(mac.is_valid_station(), "{mac}");
    }
    let spec = pod.spec.expect("a spec");
    let limits = only_container(&spec).resources.clone().and_then(|resources| resources.limits).expect("limits");
    assert_eq!(limits[RESOURCE].0, wanted.len().to_string());
}

// --- programs take it ------------------------------------------------------------------------------------------------

fn run(program: &Path, arguments: &[&str]) -> Result<Ended> {
    Program::start(program, arguments)?.end(Duration::from_secs(20))
}

#[test]
fn the_programs_take_the_arguments_of_the_manifests() -> Result<()> {
    let pod = plugin_pod();
    let container = only_container(&pod);
    assert_eq!(container.command, None, "the image has an entry point");
    let arguments = container.args.clone().expect("arguments");
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    arguments.push("--help");
    let ended = run(&vfring()?, &arguments)?;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{arguments:?}");

    let pod: Pod = typed("l2fwd.yaml");
    let spec = pod.spec.expect("a spec");
    let command = only_container(&spec).command.clone().expect("a command");
    assert_eq!(command[0], "/l2fwd");
    let arguments: Vec<&str> = command[1..].iter().map(String::as_str).collect();
    // On a machine where nobody gave it devices, that is all that it complains of.
    let ended = run(&complete_example("l2fwd")?, &arguments)?;
    assert!(ended.code != 0 && ended.stderr.contains(&format!("`{RESOURCE}: \"1\"`")), "{ended:?}");
    Ok(())
}

/// A host as the manifests have it: two PFs of an X540 with two VFs each, on vfio-pci.
fn host() -> FakeSysfs {
    let tree = FakeSysfs::new();
    for (n, name) in ["eth0", "eth1"].into_iter().enumerate() {
        let pf = format!("0000:0{}:00.0", n + 1);
        tree.pf(&pf, "8086:1528", 63, 2).driver(&pf, "ixgbe").interface(
            &pf,
            name,
            &format!("a0:36:9f:00:00:0{n}"),
            true,
        );
        for vf in 0..2 {
            let address = format!("0000:0{}:10.{}", n + 1, 2 * vf);
            tree.vfio_vf(&address, "8086:1515", &pf, vf, 10 + 2 * n as u32 + vf);
        }
    }
    tree.node("vfio");
    tree
}

fn with_roots<'a>(arguments: &[&'a str], roots: &'a [String; 3]) -> Vec<&'a str> {
    arguments.iter().copied().chain(roots.iter().map(String::as_str)).collect()
}

#[test]
fn the_configuration_is_valid_and_takes_the_vfs_that_the_host_file_makes() -> Result<()> {
    let tree = host();
    tree.file("config.json", &config_json()).file("host.toml", &text("host.toml"));
    let sysfs: SysfsRoot = tree.root();
    let sysfs = sysfs.path().to_str().expect("temporary paths are UTF-8").to_owned();
    let roots = [format!("--sysfs={sysfs}"), format!("--dev={sysfs}/dev"), format!("--proc={sysfs}/proc")];
    let config = format!("--config={sysfs}/config.json");
    let validated = run(&vfring()?, &with_roots(&["device-plugin", "validate", &config], &roots))?;
    assert_eq!((validated.code, validated.stdout.as_str()), (0, "1 pools, nothing is wrong\n"), "{validated:?}");
    let explained = run(&vfring()?, &with_roots(&["device-plugin", "explain", &config], &roots))?;
    assert!(explained.stdout.contains(&format!("{RESOURCE}: 4 devices")), "{explained:?}");
    // What the host file wants is so already on such a host.
    let file = format!("{sysfs}/host.toml");
    let applied = run(&vfring()?, &with_roots(&["apply", "--dry-run", &file], &roots))?;
    assert_eq!((applied.code, applied.stdout.as_str(), applied.stderr.as_str()), (0, "", ""), "{applied:?}");
    Ok(())
}

#[test]
fn the_unit_runs_apply_on_the_host_file_before_kubelet() {
    let unit = text("vfring-apply.service");
    let value = |key: &str| -> Vec<&str> {
        let start = format!("{key}=");
        unit.lines().filter_map(|line| line.strip_prefix(start.as_str())).collect()
    };
    assert_eq!(value("ExecStart"), ["/usr/local/bin/vfring apply /etc/vfring/host.toml"]);
    assert_eq!(value("Before"), ["kubelet.service"]);
    assert_eq!((value("Type"), value("RemainAfterExit")), (vec!["oneshot"], vec!["yes"]));
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(line.starts_with('[') || line.contains('='), "{line}");
    }
}

#[test]
fn the_image_is_built_as_the_tests_build_and_its_programs_are_static() -> Result<()> {
    let file = text("Dockerfile");
    for part in [
        "ENV RUSTFLAGS=\"-C target-feature=+crt-static\"\n",
        "cargo build --locked --release --target x86_64-unknown-linux-gnu --features cli --bin vfring --example l2fwd\n",
        "\nFROM scratch\n",
        "/release/vfring /vfring\n",
        "/release/examples/l2fwd /l2fwd\n",
        "ENTRYPOINT [\"/vfring\"]\n",
    ] {
        assert!(file.contains(part), "{part:?}");
    }
    assert!(
        fs::read_to_string(root().join(".dockerignore")).expect("it is there").lines().any(|line| line == "target")
    );
    // What a scratch image has no loader for would not start there.
    for program in [vfring()?, complete_example("l2fwd")?] {
        let output = Command::new("objdump").arg("-p").arg(&program).output().expect("binutils");
        let headers = String::from_utf8_lossy(&output.stdout);
        assert!(headers.contains("LOAD"), "{headers}");
        assert!(!headers.contains("INTERP") && !headers.contains("NEEDED"), "{}: {headers}", program.display());
    }
    Ok(())
}
