//! The tests' kubelet as a program, for guests: `kubelet DIRECTORY RESOURCE REQUESTS`.
//!
//! DIRECTORY is that of device plugins, REQUESTS a named pipe. It prints a line when it listens (`ready`), when the devices
//! of the resource change (`devices {"ID": "HEALTH"} at SECONDS`, of the machine's uptime), and for each line that it reads
//! from the pipe: `N allocate ID,ID` is answered with `N allocated {…}` or `N refused TEXT`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde_json::json;
use vfring_tests::kubelet::{ContainerAllocateResponse, Kubelet, Manner};
use vfring_tests::vm::{Error, Result};

/// How often it looks whether the devices have changed.
const TICK: Duration = Duration::from_millis(20);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, resource, requests] = &arguments[..] else {
        return Err(Error::new("usage: kubelet DIRECTORY RESOURCE REQUESTS"));
    };
    // Opened for writing too, the pipe has no end.
    let pipe = File::options().read(true).write(true).open(requests).map_err(Error::during(requests))?;
    let kubelet = Kubelet::start(Path::new(directory), Manner::default())?;
    println!("ready");
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(std::io::Result::ok) {
            // Its reader ends with the program.
            let _ = sender.send(line);
        }
    });
    let mut seen = None;
    loop {
        let devices = kubelet.devices(resource);
        if devices != seen {
            let health: BTreeMap<&str, &str> =
                devices.iter().flatten().map(|device| (device.id.as_str(), device.health.as_str())).collect();
            println!("devices {} at {}", json!(health), uptime()?);
            seen = devices;
        }
        match lines.recv_timeout(TICK) {
            Ok(line) => println!("{}", answer(&kubelet, resource, &line)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::new(format!("{requests} ended"))),
        }
    }
}

fn answer(kubelet: &Kubelet, resource: &str, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [number, "allocate", ids] = words[..] else { return format!("no request: {line}") };
    match kubelet.allocate(resource, &ids.split(',').collect::<Vec<_>>()) {
        Ok(answer) => format!("{number} allocated {}", as_json(&answer)),
        Err(refusal) => format!("{number} refused {}", refusal.text),
    }
}

fn as_json(answer: &ContainerAllocateResponse) -> serde_json::Value {
    let devices = answer.devices.iter().map(|device| {
        json!({"host": device.host_path, "container": device.container_path, "permissions": device.permissions})
    });
    json!({
        "devices": devices.collect::<Vec<_>>(),
        "envs": answer.envs,
        "mounts": answer.mounts.len(),
        "annotations": answer.annotations,
        "cdi_devices": answer.cdi_devices.len(),
    })
}

fn uptime() -> Result<String> {
    let text = fs::read_to_string("/proc/uptime").map_err(Error::during("/proc/uptime"))?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}
