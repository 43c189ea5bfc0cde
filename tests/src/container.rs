//! Containers in a guest, by runc: what containerd would ask of it for a pod of ours.
//!
//! Always holds: a container has what its [`Container`] says and no more. Its root is read-only, it has namespaces of its
//! own (the network's too), no capability that is not named, may open no device that is not named, and may not say where
//! its memory lies, as containerd's default profile has it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::vm::{Guest, Result};

/// What a stock system has done by the time that containers start, and busybox has not.
pub const PRELUDE: &str = "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
                           echo '+hugetlb +memory +pids' >/sys/fs/cgroup/cgroup.subtree_control";

/// Starts and short programs under emulation.
const TIMEOUT: Duration = Duration::from_secs(60);

/// What a container is made of.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// The program, which is one of the files below, and its arguments.
    pub arguments: Vec<String>,
    /// Files of the guest that are put into the container's root, at the same place.
    pub files: Vec<String>,
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// Device nodes, the same inside and outside, for reading and writing.
    pub nodes: Vec<String>,
    /// Such as `CAP_IPC_LOCK`.
    pub capabilities: Vec<String>,
    /// Folders of the guest: where they are, where the container has them, and whether it may write there.
    pub folders: Vec<(String, String, bool)>,
    /// Most bytes of hugepages of 2 MiB; with any there is a mount for them.
    pub hugepages: u64,
    /// Most bytes of other memory; 0 for no limit.
    pub memory: u64,
}

/// A container that is ready to be started.
pub struct Bundle<'a> {
    guest: &'a Guest,
    name: String,
}

impl Container {
    /// Writes the bundle.
    pub fn bundle<'a>(&self, guest: &'a Guest, name: &str) -> Result<Bundle<'a>> {
        let bundle = Bundle { guest, name: name.to_owned() };
        let (folder, root) = (bundle.folder(), bundle.root());
        guest.sh(&format!("mkdir -p {root}/proc {root}/sys {root}/dev"))?;
        for file in &self.files {
            guest.sh(&format!("mkdir -p {root}$(dirname {file}) && cp {file} {root}{file}"))?;
        }
        for (_, inside, _) in &self.folders {
            guest.sh(&format!("mkdir -p {root}{inside}"))?;
        }
        let mut nodes = Vec::new();
        for path in &self.nodes {
            nodes.push((path.as_str(), node_number(guest, path)?));
        }
        guest.write_file(&format!("{folder}/config.json"), self.config(name, &nodes).to_string().as_bytes())?;
        Ok(bundle)
    }

    /// The configuration by the runtime specification of the Open Container Initiative.
    fn config(&self, name: &str, nodes: &[(&str, (u32, u32))]) -> Value {
        let mut devices = Vec::new();
        let mut rules = vec![json!({"allow": false, "access": "rwm"})];
        for (path, (major, minor)) in nodes {
            devices.push(json!({"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o600}));
            rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rw"}));
        }
        let mut resources = json!({"devices": rules});
        if self.hugepages > 0 {
            resources["hugepageLimits"] = json!([{"pageSize": "2MB", "limit": self.hugepages}]);
        }
        if self.memory > 0 {
            resources["memory"] = json!({"limit": self.memory});
        }
        let namespaces = ["pid", "ipc", "uts", "mount", "network", "cgroup"].map(|kind| json!({"type": kind}));
        let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mbind", "set_mempolicy", "get_mempolicy"], "action": "SCMP_ACT_ERRNO"},
        ]});
        let variables: Vec<String> = self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        json!({
            "ociVersion": "1.0.2",
            "root": {"path": "root", "readonly": true},
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": self.arguments,
                "env": variables,
                "cwd": "/",
                "capabilities":
                    {"bounding": self.capabilities, "effective": self.capabilities, "permitted": self.capabilities},
                "rlimits": [{"type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 65536}],
                "noNewPrivileges": true,
            },
            "mounts": self.mounts(),
            "linux": {
                "cgroupsPath": format!("/pod-{name}"),
                "namespaces": namespaces,
                "devices": devices,
                "seccomp": seccomp,
                "resources": resources,
            },
        })
    }

    fn mounts(&self) -> Vec<Value> {
        fn mount(to: &str, kind: &str, options: &[&str]) -> Value {
            json!({"destination": to, "type": kind, "source": kind, "options": options})
        }
        let mut mounts = vec![
            mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=65536k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "ro"]),
        ];
        if self.hugepages > 0 {
            mounts.push(mount("/dev/hugepages", "hugetlbfs", &["nosuid"]));
        }
        mounts.extend(self.folders.iter().map(|(outside, inside, writable)| {
            let options = ["rbind", if *writable { "rw" } else { "ro" }];
            json!({"destination": inside, "type": "bind", "source": outside, "options": options})
        }));
        mounts
    }
}

impl Bundle<'_> {
    fn folder(&self) -> String {
        format!("/run/bundles/{}", self.name)
    }

    /// The container's root, from outside.
    pub fn root(&self) -> String {
        format!("{}/root", self.folder())
    }

    /// The command that runs it, and hands signals on. What a guest boots from cannot be pivoted away from.
    pub fn command(&self) -> String {
        format!("runc run --no-pivot --bundle {} {}", self.folder(), self.name)
    }

    /// Runs it to its end; its exit status and what it printed.
    pub fn run(&self) -> Result<(i32, String)> {
        let output = self.guest.run(&self.command(), TIMEOUT)?;
        println!("{}: status {}, {}", self.name, output.status, output.text());
        Ok((output.status, output.text()))
    }
}

/// Major and minor number of a device node.
pub fn node_number(guest: &Guest, path: &str) -> Result<(u32, u32)> {
    let text = guest.sh(&format!("stat -c '%t %T' {path}"))?;
    let number = |text: &str| u32::from_str_radix(text, 16).unwrap_or_else(|error| panic!("{path}: {text}: {error}"));
    let (major, minor) = text.split_once(' ').unwrap_or_else(|| panic!("{path}: {text}"));
    Ok((number(major), number(minor)))
}
