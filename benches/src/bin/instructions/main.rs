//! Instructions per packet of the driver's side, exact, for every family, kernel and path, against the committed baseline.
//! `benches/instructions` starts it. Needs no root, no hugepages and no NIC: the ports are models.
//!
//! usage: instructions BASELINE [--update]

#[cfg(target_arch = "x86_64")]
mod steps;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use vfring_bench::{BURST, KERNELS};

/// By how much a count may grow: this factor, and the rounding of the baseline.
const GROWTH: f64 = 1.03;
const ROUNDING: f64 = 0.1;

/// Where `--update` puts the counts besides.
const README: &str = "README.md";

/// The counts of a baseline by row, `PATH BURST FAMILY KERNEL`, in the order of the file.
type Counts = Vec<(String, f64)>;

#[cfg(target_arch = "x86_64")]
fn measure() -> Result<Counts, String> {
    use vfring_bench::{BURSTS, Family, Path, Rig, Shape};

    /// Rounds before counting: caches fill, the ring wraps.
    const WARM_UP: usize = 8;
    /// Rounds that count: together, once around the ring.
    const ROUNDS: usize = 2;

    let stepper = steps::Stepper::new().ok_or("this machine does not let a process single-step itself")?;
    let mut counts = Counts::new();
    for (name, shape) in Shape::all() {
        // The shape over burst sizes is the same for all.
        let bursts = if shape.family == Family::Igbvf { &BURSTS[..] } else { &[BURST] };
        for &burst in bursts {
            for (path_name, path) in Path::ALL {
                let mut rig = Rig::new(burst, shape).map_err(|error| format!("{name}: {error}"))?;
                let (mut packets, mut total) = (0, 0);
                for round in 0..WARM_UP + ROUNDS {
                    rig.prepare(path);
                    if round < WARM_UP {
                        rig.drive(path);
                    } else {
                        let (handled, steps) = stepper.count(|| rig.drive(path));
                        packets += handled;
                        total += steps;
                    }
                    rig.finish(path);
                }
                rig.close().map_err(|error| format!("{name}: {error}"))?;
                let count = total as f64 / packets as f64;
                println!("{path_name} {burst} {name} {count:.1}");
                counts.push((format!("{path_name} {burst} {name}"), count));
            }
        }
    }
    Ok(counts)
}

#[cfg(not(target_arch = "x86_64"))]
fn measure() -> Result<Counts, String> {
    Err("instructions are counted with the trap flag of x86-64; this is another CPU".into())
}

fn parse(baseline: &str) -> Counts {
    let rows = baseline.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    rows.filter_map(|(row, count)| Some((row.to_owned(), count.parse().ok()?))).collect()
}

fn write(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))?;
    println!("wrote {path}");
    Ok(())
}

/// The README with the counts in those rows of its table that begin with a family and a kernel: without and with metadata. A row
/// that ends in "joined" is that of both rings in one call.
fn with_counts(readme: &str, counts: &Counts) -> String {
    let count = |path: &str, shape: &str| {
        let row = format!("{path} {BURST} {shape}");
        counts.iter().find(|(known, _)| *known == row).map(|(_, count)| format!("{count:.0}"))
    };
    let row = |line: &str| {
        let name = line.strip_prefix("| ")?.split(" | ").next()?;
        let (family, kernel) = name.split_once(", ")?;
        let mut row = format!("| {name} |");
        let (kernel, paths) = match kernel.strip_suffix(", joined") {
            None => (kernel, &["rx", "tx", "rx+tx", "rx+swap+tx"][..]),
            Some(kernel) => {
                row += " – | – |";
                (kernel, &["joined", "joined+swap"][..])
            }
        };
        let shape = format!("{family} {kernel}");
        for path in paths {
            write!(row, " {} / {} |", count(path, &shape)?, count(path, &format!("{shape}+metadata"))?).ok()?;
        }
        Some(row)
    };
    readme.lines().map(|line| row(line).unwrap_or(line.to_owned()) + "\n").collect()
}

/// The kernel of a row.
fn kernel(row: &str) -> &str {
    row.rsplit(' ').next().unwrap_or_default().trim_end_matches("+metadata")
}

fn run(path: &str, update: bool) -> Result<(), String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let baseline = parse(&text);
    let now = measure()?;
    let missing: Vec<&str> = KERNELS
        .map(|(name, _)| name)
        .into_iter()
        .filter(|name| !now.iter().any(|(row, _)| kernel(row) == *name))
        .collect();
    for name in &missing {
        println!("not run: {name}, which this CPU or this vfring does not have");
    }
    if update {
        let mut text = "# instructions per packet: PATH BURST FAMILY KERNEL COUNT\n".to_owned();
        // What cannot be measured here stays.
        let kept = baseline.iter().filter(|(row, _)| missing.contains(&kernel(row)));
        for (row, count) in now.iter().chain(kept) {
            let _ = writeln!(text, "{row} {count:.1}");
        }
        write(path, &text)?;
        let readme = std::fs::read_to_string(README).map_err(|error| format!("{README}: {error}"))?;
        return write(README, &with_counts(&readme, &parse(&text)));
    }
    let known: BTreeMap<&str, f64> = baseline.iter().map(|(row, count)| (row.as_str(), *count)).collect();
    let mut grown = 0;
    for (row, count) in &now {
        match known.get(row.as_str()) {
            None => println!("{row}: no baseline"),
            Some(old) if *count > old * GROWTH + ROUNDING => {
                println!("{row}: {count:.1} instructions, the baseline is {old:.1}")
            }
            Some(_) => continue,
        }
        grown += 1;
    }
    for (row, _) in baseline.iter().filter(|(row, _)| !missing.contains(&kernel(row))) {
        if !now.iter().any(|(measured, _)| measured == row) {
            println!("{row}: in the baseline, and not measured");
            grown += 1;
        }
    }
    if grown > 0 {
        return Err(format!(
            "{grown} counts grew by more than 3 % or differ in kind; run with --update if that is meant"
        ));
    }
    println!("{} counts, none more than 3 % over the baseline", now.len());
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, update) = match arguments.as_slice() {
        [path] => (path, false),
        [path, flag] if flag == "--update" => (path, true),
        _ => {
            eprintln!("usage: benches/instructions [--update]");
            return ExitCode::FAILURE;
        }
    };
    match run(path, update) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("benches/instructions: {error}");
            ExitCode::FAILURE
        }
    }
}
