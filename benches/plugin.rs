//! The device plugin on a large host: four PFs with 64 VFs each in 16 pools, on a fake sysfs tree, with the tests' kubelet.
//!
//! `chrt -f 1 cargo bench -p vfring-bench --bench plugin` prints what the README quotes: from the start of the process to
//! the last pool's devices at kubelet, a full scan, Allocate of 8 devices, resident memory, and processor time over an idle
//! minute. `chrt` keeps other processes out of the worst case; without it the figures are those of the machine as it is.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use vfring::pci::SysfsRoot;
use vfring_tests::build::vfring;
use vfring_tests::kubelet::{Kubelet, Manner, PATIENCE};
use vfring_tests::program::Program;

#[path = "../src/pci/fake.rs"]
#[allow(dead_code, reason = "unit tests of the crate use more of it")]
mod fake;

use fake::FakeSysfs;

const PFS: [(&str, &str); 4] = [("3b", "ens1f0"), ("5e", "ens2f0"), ("86", "ens3f0"), ("af", "ens4f0")];
const VFS: u32 = 64;
const POOLS_PER_PF: u32 = 4;
const SCANS: u32 = 100;
const ALLOCATIONS: usize = 1000;
const DEVICES: usize = 8;
const IDLE: Duration = Duration::from_secs(60);

/// Address of a VF.
fn vf(bus: &str, index: u32) -> String {
    format!("0000:{bus}:{:02x}.{}", 2 + index / 8, index % 8)
}

fn main() {
    let tree = FakeSysfs::new();
    tree.node("vfio");
    let mut pools = Vec::new();
    for (place, (bus, name)) in (0..).zip(PFS) {
        let pf = format!("0000:{bus}:00.0");
        tree.pf(&pf, "8086:1583", VFS, VFS).driver(&pf, "i40e").group(&pf, 10 + place).write(&pf, "numa_node", "0\n");
        tree.interface(&pf, name, "3c:fd:fe:00:00:01", true);
        for index in 0..VFS {
            let vf = vf(bus, index);
            tree.vfio_vf(&vf, "8086:154c", &pf, index, 100 + place * VFS + index).write(&vf, "numa_node", "0\n");
            tree.write_bytes(&vf, "config", &[0; 64]);
        }
        for pool in 0..POOLS_PER_PF {
            let (first, last) = (pool * VFS / POOLS_PER_PF, (pool + 1) * VFS / POOLS_PER_PF - 1);
            pools.push(format!(
                "{{\"resourceName\": \"{name}_{pool}\", \"selectors\": {{\"vendors\": [\"8086\"], \"devices\": [\"154c\"], \
                 \"drivers\": [\"vfio-pci\"], \"pfNames\": [\"{name}#{first}-{last}\"]}}}}"
            ));
        }
    }
    tree.file("config.json", &format!("{{\"resourceList\": [{}]}}", pools.join(", ")));
    let root = tree.root().path().display().to_string();
    fs::create_dir(format!("{root}/plugins")).expect("a directory can be made");
    let program = vfring().expect("vfring is built");
    let kubelet = Kubelet::start(format!("{root}/plugins").as_ref(), Manner::default()).expect("a kubelet");

    let options =
        ["config=config.json", "sysfs=", "dev=dev", "proc=proc", "plugin-dir=plugins", "device-info-dir=info"];
    let options = options.map(|option| option.replacen('=', &format!("={root}/"), 1));
    let mut arguments = vec!["device-plugin".to_owned(), "run".to_owned(), "--metrics=127.0.0.1:0".to_owned()];
    arguments.extend(options.iter().map(|option| format!("--{option}")));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let started = Instant::now();
    let mut plugin = Program::start(&program, &arguments).expect("the plugin starts");
    let each = (VFS / POOLS_PER_PF) as usize;
    for (_, name) in PFS {
        for pool in 0..POOLS_PER_PF {
            kubelet.wait_for_healthy(&format!("intel.com/{name}_{pool}"), each).expect("all devices");
        }
    }
    println!("start to {} pools with {each} devices each at kubelet: {:.0?}", pools.len(), started.elapsed());

    let metrics = "metrics at http://";
    plugin.wait_for(metrics, PATIENCE).expect("the address of the metrics");
    let printed = plugin.evidence();
    let address = printed.split(metrics).nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let metric = |name: &str| -> u64 {
        let mut peer = TcpStream::connect(address).expect("metrics are served");
        peer.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("a request");
        let mut page = String::new();
        peer.read_to_string(&mut page).expect("a page");
        let line = page.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}:\n{page}"));
        line.trim().parse().expect("a number")
    };
    let (scans, took) = (metric("vfring_scans_total"), metric("vfring_scan_microseconds_total"));
    for n in 1..=u64::from(SCANS) {
        plugin.signal(libc::SIGHUP).expect("the plugin runs");
        while metric("vfring_scans_total") < scans + n {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let scans = metric("vfring_scans_total") - scans;
    println!(
        "full scan, mean of {scans}: {:.1} ms",
        (metric("vfring_scan_microseconds_total") - took) as f64 / 1000.0 / scans as f64
    );

    let ids: Vec<String> = (0..DEVICES as u32).map(|index| vf("3b", index)).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut times: Vec<Duration> = (0..ALLOCATIONS)
        .map(|_| {
            let asked = Instant::now();
            kubelet.allocate("intel.com/ens1f0_0", &ids).expect("healthy devices");
            asked.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "Allocate of {DEVICES}, as kubelet sees it: median {:.2?}, worst of {ALLOCATIONS} {:.2?}",
        times[ALLOCATIONS / 2],
        times[ALLOCATIONS - 1]
    );

    let process = format!("/proc/{}", plugin.pid());
    let ticks = || -> u64 {
        let stat = fs::read_to_string(format!("{process}/stat")).expect("the plugin runs");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        // utime and stime, the 14th and 15th of proc(5), in hundredths of a second.
        [11, 12].iter().map(|&at| fields[at].parse::<u64>().expect("a number")).sum()
    };
    let status = fs::read_to_string(format!("{process}/status")).expect("the plugin runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default().trim().to_owned();
    let before = ticks();
    std::thread::sleep(IDLE);
    let used = ticks() - before;
    println!("resident: {resident}; processor over {IDLE:?} idle: {:.2} %", used as f64 / IDLE.as_secs_f64());
}
