//! A host on a fake sysfs tree, with kubelet's directories, and the plugin that runs on it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vfring_tests::build::vfring;
use vfring_tests::kubelet::PATIENCE;
use vfring_tests::program::{Ended, Program};
use vfring_tests::vm::{Error, Result, poll};

use crate::fake::FakeSysfs;

pub const PF: &str = "0000:03:00.0";
pub const VFS: [&str; 4] = ["0000:03:10.0", "0000:03:10.4", "0000:03:11.0", "0000:03:11.4"];
pub const RESOURCE: &str = "intel.com/intel_sriov_dpdk";
pub const CONFIG: &str = r#"{"resourceList": [{"resourceName": "intel_sriov_dpdk", "selectors": {
    "vendors": ["8086"], "devices": ["1520"], "drivers": ["vfio-pci"]}}]}"#;

/// The host: one port of an I350 with four VFs on vfio-pci, in the groups 50 to 53, on NUMA node 0.
pub struct Host {
    pub tree: FakeSysfs,
}

impl Host {
    pub fn new() -> Host {
        let tree = FakeSysfs::new();
        tree.pf(PF, "8086:1521", 7, 4).driver(PF, "igb").group(PF, 40).write(PF, "numa_node", "0\n");
        tree.interface(PF, "ens802f0", "a0:36:9f:00:00:01", true).node("vfio");
        let host = Host { tree };
        for index in 0..VFS.len() {
            host.plug(index);
        }
        host.config(CONFIG);
        fs::create_dir_all(host.plugins()).expect("a directory can be made");
        host
    }

    /// Makes a VF.
    pub fn plug(&self, index: usize) {
        let (vf, group) = (VFS[index], 50 + index as u32);
        self.tree.vfio_vf(vf, "8086:1520", PF, index as u32, group).write(vf, "numa_node", "0\n");
    }

    /// Takes a VF away.
    pub fn unplug(&self, index: usize) {
        let link = self.path(&format!("devices/pci/{PF}/virtfn{index}"));
        fs::remove_file(link).expect("the VF was there");
        self.tree.unplug(VFS[index]);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.tree.root().path().join(name)
    }

    /// Kubelet's directory of device plugins.
    pub fn plugins(&self) -> PathBuf {
        self.path("plugins")
    }

    pub fn socket(&self) -> PathBuf {
        self.plugins().join("intel.com_intel_sriov_dpdk.sock")
    }

    pub fn config(&self, text: &str) {
        self.tree.file("config.json", text);
    }

    /// The options that lead a subcommand to this host, and those given.
    pub fn arguments(&self, command: &str, more: &[&str]) -> Vec<String> {
        let root = self.path("");
        let root = root.to_str().expect("temporary paths are UTF-8").trim_end_matches('/');
        let mut all = vec!["device-plugin".to_owned(), command.to_owned()];
        all.extend([format!("--sysfs={root}"), format!("--dev={root}/dev"), format!("--proc={root}/proc")]);
        let plain = |option: &str| !more.iter().any(|given| given.trim_start_matches('-').starts_with(option));
        if plain("config") {
            all.push(format!("--config={root}/config.json"));
        }
        if command == "run" {
            all.extend([format!("--plugin-dir={root}/plugins"), format!("--device-info-dir={root}/devinfo/dp")]);
            for (option, value) in [("metrics", "off"), ("interval", "0.02")] {
                if plain(option) {
                    all.push(format!("--{option}={value}"));
                }
            }
        }
        all.extend(more.iter().map(ToString::to_string));
        all
    }

    /// Starts the plugin; it looks every 20 ms unless `more` says otherwise.
    pub fn start(&self, more: &[&str]) -> Result<Plugin> {
        let arguments = self.arguments("run", more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Ok(Plugin { program: Program::start(&vfring()?, &arguments)? })
    }

    /// Starts the plugin through another program, which becomes it.
    pub fn start_through(&self, program: &str, options: &[&str]) -> Result<Plugin> {
        let vfring = vfring()?;
        let mut arguments: Vec<&str> = options.to_vec();
        arguments.push(vfring.to_str().expect("paths are UTF-8"));
        let own = self.arguments("run", &[]);
        arguments.extend(own.iter().map(String::as_str));
        Ok(Plugin { program: Program::start(program.as_ref(), &arguments)? })
    }

    /// Runs another subcommand to its end.
    pub fn run(&self, command: &str, more: &[&str]) -> Result<Ended> {
        let arguments = self.arguments(command, more);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Program::start(&vfring()?, &arguments)?.end(PATIENCE)
    }
}

/// The running plugin.
pub struct Plugin {
    pub program: Program,
}

impl Plugin {
    /// Waits until all that a plugin does when it starts is surely done: from then on only a change makes it scan.
    pub fn settles() {
        std::thread::sleep(Duration::from_millis(500));
    }

    /// Waits until `condition` is true, and fails with all that the plugin printed.
    pub fn wait(&self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        let done = poll(what, PATIENCE, Duration::from_millis(5), || Ok(condition().then_some(())));
        done.map_err(|error| error.with(self.program.evidence()))
    }

    /// Waits until the standard error has `text`.
    pub fn complains(&self, text: &str) -> Result<()> {
        self.wait(&format!("{text:?} on stderr"), || self.program.errors().contains(text))
    }

    /// How often the standard error has `text`.
    pub fn complaints(&self, text: &str) -> usize {
        self.program.errors().matches(text).count()
    }

    pub fn signal(&self, signal: i32) -> Result<()> {
        self.program.signal(signal)
    }

    /// Ends it as Kubernetes does.
    pub fn end(self) -> Result<Ended> {
        self.signal(libc::SIGTERM)?;
        self.program.end(PATIENCE)
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        let list = fs::read_dir(format!("/proc/{}/fd", self.program.pid())).expect("the plugin runs");
        list.count()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.program.pid())).expect("the plugin runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// What the plugin serves at a path of its HTTP server: the status line, and all.
    pub fn page(&mut self, path: &str) -> Result<(String, String)> {
        let mark = "metrics at http://";
        self.program.wait_for(mark, PATIENCE)?;
        let printed = self.program.evidence();
        let address = printed.split(mark).nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let mut peer = TcpStream::connect(address).map_err(Error::during(address.to_owned()))?;
        peer.set_read_timeout(Some(PATIENCE)).expect("it is no zero");
        write!(peer, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").map_err(Error::during("asking for a page"))?;
        let mut text = String::new();
        peer.read_to_string(&mut text).map_err(Error::during("reading a page"))?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| Error::new(format!("no page: {text}")))?;
        Ok((head.lines().next().unwrap_or_default().to_owned(), body.to_owned()))
    }
}

/// The ids of a list of devices.
pub fn ids(devices: &[vfring_tests::kubelet::Device]) -> Vec<&str> {
    devices.iter().map(|device| device.id.as_str()).collect()
}

/// The sockets in a directory, by name.
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a readable directory").flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
