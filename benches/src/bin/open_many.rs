//! The control path on a large host: `Port::open_many` of 64 VFs in one process, on models in real time, so that every wait of
//! a driver is as long as on hardware. `cargo run --release -p vfring-bench --bin open_many` prints it, and fails where it takes a
//! second.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use vfring::{DeviceSpec, Port, PortConfig};

/// VFs that are opened at once: a PF has up to 64 of them or more.
const VFS: usize = 64;
/// The bar.
const LIMIT: Duration = Duration::from_secs(1);
const RUNS: usize = 5;
const MODELS: [&str; 4] = ["sim:igbvf", "sim:ixgbevf", "sim:iavf?part=xl710", "sim:iavf?part=e810"];

fn main() {
    println!("| VF | one | {VFS} at once, median | least to most |");
    println!("|---|---|---|---|");
    let mut slow = false;
    for model in MODELS {
        let open = |count: usize| {
            let spec: DeviceSpec = model.parse().expect("a model");
            let start = Instant::now();
            let ports = Port::open_many(&vec![(spec, PortConfig::new()); count]).expect("models open");
            let took = start.elapsed();
            assert_eq!(ports.len(), count);
            took
        };
        let one = open(1);
        let mut took: Vec<Duration> = (0..RUNS).map(|_| open(VFS)).collect();
        took.sort_unstable();
        let ms = |time: Duration| time.as_millis();
        println!(
            "| {model} | {} ms | {} ms | {} to {} ms |",
            ms(one),
            ms(took[RUNS / 2]),
            ms(took[0]),
            ms(took[RUNS - 1])
        );
        slow |= took[RUNS / 2] >= LIMIT;
    }
    if slow {
        eprintln!("open_many: {VFS} VFs took a second or more");
        std::process::exit(1);
    }
}
