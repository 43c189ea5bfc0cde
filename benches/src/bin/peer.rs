//! What `benches/peer/run` starts once everything is built: drives DPDK's side and vfring's through the same measurement, by
//! turns, and writes `results.tsv` and the tables.
//!
//! Every side is a process that serves commands (`benches/peer/harness.c`); for each figure the sides take turns, so that
//! what the neighbours of a shared machine do hits all of them.
//!
//! usage: peer --fake LIBRARY --vfring PROGRAM [--dpdk VERSION=PROGRAM]... [--quick] [--family NAME]... [--ring N]... [--burst N]...
//!   --out FOLDER
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

/// What is measured, with the name of its column.
const PATHS: [(&str, &str); 4] =
    [("rx", "rx+return"), ("tx", "tx"), ("rx+tx", "rx+tx"), ("rx+swap+tx", "rx+MAC swap+tx")];
/// The burst size of the main table.
const BURST: u32 = 32;
/// Packets of a run, about.
const PACKETS: u32 = 100_000;
/// Runs of each side per figure, in turns. Each run's figure is the median of its rounds, and the least of them is what is reported:
/// whatever else runs on the machine only adds.
const RUNS: usize = 15;

/// In the names of those of our sides that do both rings in one call.
const JOINED: &str = ", joined";

/// A family of VFs as the fake device plays it, and the widths of vectors in bits that DPDK's drivers tell apart.
struct Family {
    name: &'static str,
    fake: &'static str,
    flex: bool,
    widths: &'static [u32],
}

const FAMILIES: [Family; 4] = [
    Family { name: "igbvf", fake: "igbvf", flex: false, widths: &[64] },
    Family { name: "ixgbevf", fake: "ixgbevf", flex: false, widths: &[64, 128] },
    Family { name: "iavf", fake: "iavf", flex: false, widths: &[64, 256, 512] },
    Family { name: "iavf flex", fake: "iavf", flex: true, widths: &[64, 256, 512] },
];

type Failure = Box<dyn std::error::Error>;

/// A process that serves the harness.
struct Side {
    name: String,
    ours: bool,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Side {
    /// Starts it; `None`, and a line that says so, when it does not come up.
    fn start(name: String, ours: bool, mut command: Command) -> Result<Option<Side>, Failure> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().ok_or("no stdin")?;
        let from = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut side = Side { name, ours, child, to, from };
        if side.line()? == "ready" {
            return Ok(Some(side));
        }
        eprintln!("peer: {} does not come up", side.name);
        Ok(None)
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// The first number of the answer; `None` where the driver refuses the burst size.
    fn ask(&mut self, command: &str) -> Result<Option<f64>, Failure> {
        writeln!(self.to, "{command}")?;
        let answer = self.line()?;
        if answer == "refuses" {
            return Ok(None);
        }
        let first = answer.split(' ').next().unwrap_or_default();
        Ok(Some(first.parse().map_err(|_| format!("{}: no answer to `{command}`", self.name))?))
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // The end of its stdin ends it; a driver that hangs is ended here.
        let _ = self.to.write_all(b"quit\n");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One figure of one side.
struct Figure {
    /// A run for each turn, in order.
    runs: Vec<f64>,
    instructions: Option<f64>,
}

impl Figure {
    fn least(&self) -> f64 {
        self.runs.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.runs.iter().copied().fold(0.0, f64::max)
    }

    /// What the runs are of another side's: the median over the turns, since what else the machine did in a turn was the same for
    /// both.
    fn ratio_to(&self, other: &Figure) -> f64 {
        median(self.runs.iter().zip(&other.runs).map(|(this, other)| this / other).collect())
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Where the device leaves what it wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Memory {
    Warm,
    Llc,
    Dram,
}

impl Memory {
    fn name(self) -> &'static str {
        match self {
            Memory::Warm => "warm",
            Memory::Llc => "LLC",
            Memory::Dram => "DRAM",
        }
    }

    /// How a side is told.
    fn argument(self) -> Option<&'static str> {
        match self {
            Memory::Warm => None,
            Memory::Llc => Some("llc"),
            Memory::Dram => Some("dram"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Setting {
    memory: Memory,
    ring: u32,
}

struct Options {
    fake: PathBuf,
    vfring: PathBuf,
    dpdk: Vec<(String, PathBuf)>,
    quick: bool,
    families: Vec<String>,
    /// Of the whole measurement these alone, where there are any.
    rings: Vec<u32>,
    bursts: Vec<u32>,
    out: PathBuf,
}

fn options() -> Option<Options> {
    let mut options = Options {
        fake: PathBuf::new(),
        vfring: PathBuf::new(),
        dpdk: Vec::new(),
        quick: false,
        families: Vec::new(),
        rings: Vec::new(),
        bursts: Vec::new(),
        out: PathBuf::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => options.quick = true,
            "--fake" => options.fake = arguments.next()?.into(),
            "--vfring" => options.vfring = arguments.next()?.into(),
            "--out" => options.out = arguments.next()?.into(),
            "--family" => options.families.push(arguments.next()?),
            "--ring" => options.rings.push(arguments.next()?.parse().ok()?),
            "--burst" => options.bursts.push(arguments.next()?.parse().ok()?),
            "--dpdk" => {
                let named = arguments.next()?;
                let (version, program) = named.split_once('=')?;
                options.dpdk.push((version.to_owned(), program.into()));
            }
            _ => return None,
        }
    }
    let known = |name: &String| FAMILIES.iter().any(|family| family.name == name);
    (options.families.iter().all(known) && !options.out.as_os_str().is_empty()).then_some(options)
}

fn sides(options: &Options, family: &Family, setting: Setting) -> Result<Vec<Side>, Failure> {
    let mut sides = Vec::new();
    // On a CPU without AVX-512, DPDK's driver takes AVX2 for 512 bits, too.
    let widest = vfring_bench::kernels().map(|(_, bits)| u32::from(bits)).max().unwrap_or(0).max(128);
    let tail = |command: &mut Command| {
        if family.flex {
            command.arg("flex");
        }
        command.args(setting.memory.argument());
    };
    for (version, program) in &options.dpdk {
        for width in family.widths.iter().filter(|width| **width <= widest) {
            let mut command = Command::new(program);
            command.args([family.fake, &setting.ring.to_string(), &width.to_string()]);
            tail(&mut command);
            let path = if *width == 64 { "scalar".to_owned() } else { format!("{width} bits") };
            sides.extend(Side::start(format!("DPDK {version}, {path}"), false, command)?);
        }
    }
    for (place, (kernel, bits)) in vfring_bench::kernels().collect::<Vec<_>>().into_iter().rev().enumerate() {
        let kinds: [(&[&str], &str); 4] =
            [(&[], ""), (&["info"], ", metadata"), (&["joined"], JOINED), (&["joined", "info"], ", joined, metadata")];
        // Both rings in one call with the best kernel alone: every side has its own hugepages.
        for (kind, suffix) in kinds.into_iter().filter(|(_, suffix)| place == 0 || !suffix.starts_with(JOINED)) {
            let mut command = Command::new(&options.vfring);
            command.env("LD_PRELOAD", &options.fake).args([family.fake, &setting.ring.to_string(), &bits.to_string()]);
            tail(command.args(kind));
            sides.extend(Side::start(format!("vfring, {kernel}{suffix}"), true, command)?);
        }
    }
    Ok(sides)
}

/// All figures of a family: by setting, burst, path, and side.
type Figures = BTreeMap<(Setting, u32, &'static str, String), Figure>;

fn measure(
    sides: &mut [Side],
    setting: Setting,
    burst: u32,
    path: &'static str,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let rounds = (PACKETS / (setting.ring / 2)).max(20);
    // Both rings in one call is a way of these alone.
    let takes = |side: &Side| !side.name.contains(JOINED) || path.starts_with("rx+");
    let mut runs: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
    for _ in 0..RUNS {
        for (side, runs) in sides.iter_mut().zip(&mut runs).filter(|(side, _)| takes(side)) {
            runs.extend(side.ask(&format!("run {path} {burst} {rounds}"))?);
        }
    }
    for (side, runs) in sides.iter_mut().zip(runs).filter(|(_, runs)| !runs.is_empty()) {
        let counted = burst == BURST && setting.memory == Memory::Warm && !path.starts_with("floor");
        let instructions = if counted { side.ask(&format!("insn {path} {burst}"))? } else { None };
        figures.insert((setting, burst, path, side.name.clone()), Figure { runs, instructions });
    }
    Ok(())
}

/// A side's figure to that of the DPDK side that comes off best against it.
fn ratio(figures: &Figures, setting: Setting, burst: u32, path: &'static str, name: &str) -> Option<f64> {
    let figure = figures.get(&(setting, burst, path, name.to_owned()))?;
    let of_dpdk = figures
        .iter()
        .filter(|((s, b, p, name), _)| (*s, *b, *p) == (setting, burst, path) && name.starts_with("DPDK"));
    of_dpdk.map(|(_, other)| figure.ratio_to(other)).max_by(f64::total_cmp)
}

fn main_table(figures: &Figures, names: &[String], setting: Setting) -> Result<String, Failure> {
    let mut text = String::new();
    let columns: Vec<&str> = PATHS.iter().map(|(_, column)| *column).collect();
    writeln!(text, "| side | {} | empty poll | instructions | ratio |", columns.join(" | "))?;
    writeln!(text, "|---|{}---|---|---|", "---|".repeat(PATHS.len()))?;
    for name in names {
        let figure = |path| figures.get(&(setting, BURST, path, name.clone()));
        let cell = |path| figure(path).map_or("-".to_owned(), |f| format!("{:.1}", f.least()));
        let per_path = |show: &dyn Fn(&'static str) -> Option<String>| -> String {
            PATHS.iter().map(|(path, _)| show(path).unwrap_or("-".to_owned())).collect::<Vec<_>>().join(" / ")
        };
        let instructions = per_path(&|path| Some(format!("{:.0}", figure(path)?.instructions?)));
        let ratios = per_path(&|path| Some(format!("{:.2}", ratio(figures, setting, BURST, path, name)?)));
        let cells: Vec<String> = PATHS.iter().map(|(path, _)| cell(path)).collect();
        writeln!(text, "| {name} | {} | {} | {instructions} | {ratios} |", cells.join(" | "), cell("empty"))?;
    }
    Ok(text)
}

/// The ratio of one of our sides to DPDK's best, at every setting and burst size.
fn ratio_table(figures: &Figures, name: &str, settings: &[Setting], bursts: &[u32]) -> Result<String, Failure> {
    let mut text = String::new();
    let columns: Vec<String> = bursts.iter().map(u32::to_string).collect();
    writeln!(text, "| ring, memory | path | {} |", columns.join(" | "))?;
    writeln!(text, "|---|---|{}", "---|".repeat(bursts.len()))?;
    for &setting in settings {
        for (path, column) in PATHS {
            let cells: Vec<String> = bursts
                .iter()
                .map(|&burst| {
                    let figure = figures.get(&(setting, burst, path, name.to_owned()));
                    match (figure, ratio(figures, setting, burst, path, name)) {
                        (Some(figure), Some(ratio)) => format!("{ratio:.2} ({:.1})", figure.least()),
                        _ => "-".to_owned(),
                    }
                })
                .collect();
            writeln!(text, "| {}, {} | {column} | {} |", setting.ring, setting.memory.name(), cells.join(" | "))?;
        }
    }
    Ok(text)
}

/// Whether the CPU has a feature, by the kernel's name.
fn cpu_has(feature: &str) -> Result<bool, Failure> {
    let text = std::fs::read_to_string("/proc/cpuinfo")?;
    let flags = text.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    Ok(flags.split_whitespace().any(|flag| flag == feature))
}

fn run(options: &Options) -> Result<(), Failure> {
    std::fs::create_dir_all(&options.out)?;
    let mut bursts = if options.quick { vec![BURST] } else { vec![1, 4, 8, 32, 64, 256] };
    let mut settings = vec![Setting { memory: Memory::Warm, ring: 512 }];
    if !options.quick {
        settings.extend([1024, 4096].map(|ring| Setting { memory: Memory::Warm, ring }));
        // Without CLDEMOTE, what the device wrote can only be sent all the way to memory.
        let memory = if cpu_has("cldemote")? { Memory::Llc } else { Memory::Dram };
        settings.extend([512, 4096].map(|ring| Setting { memory, ring }));
    }
    bursts.retain(|burst| options.bursts.is_empty() || options.bursts.contains(burst));
    settings.retain(|setting| options.rings.is_empty() || options.rings.contains(&setting.ring));
    if bursts.is_empty() || settings.is_empty() {
        return Err("no such ring or burst is measured".into());
    }
    let mut table = "family\tmemory\tring\tburst\tside\tpath\tleast\tmedian\tmost\tinstructions\tratio\n".to_owned();
    let mut report = String::new();
    for family in &FAMILIES {
        if !options.families.is_empty() && !options.families.iter().any(|name| name == family.name) {
            continue;
        }
        let mut figures = Figures::new();
        let mut names = Vec::new();
        let mut ours = Vec::new();
        for &setting in &settings {
            eprintln!("peer: {}, ring {}, {}", family.name, setting.ring, setting.memory.name());
            let mut sides = sides(options, family, setting)?;
            if names.is_empty() {
                names = sides.iter().map(|side| side.name.clone()).collect();
                ours = sides.iter().filter(|side| side.ours).map(|side| side.name.clone()).collect();
            }
            for &burst in &bursts {
                for path in PATHS.iter().map(|(path, _)| *path).chain((burst == BURST).then_some("empty")) {
                    measure(&mut sides, setting, burst, path, &mut figures)?;
                }
            }
            measure(&mut sides, setting, BURST, "floor-packets", &mut figures)?;
        }
        for ((setting, burst, path, side), figure) in &figures {
            let instructions = figure.instructions.map_or("-".to_owned(), |count| format!("{count:.2}"));
            let ratio =
                ratio(&figures, *setting, *burst, path, side).map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
            let (least, median, most) = (figure.least(), median(figure.runs.clone()), figure.most());
            let (memory, ring) = (setting.memory.name(), setting.ring);
            writeln!(
                table,
                "{}\t{memory}\t{ring}\t{burst}\t{side}\t{path}\t{least:.3}\t{median:.3}\t{most:.3}\t{instructions}\t{ratio}",
                family.name
            )?;
        }
        let first = settings[0];
        writeln!(report, "### {}\n\nRing {}, burst {BURST}, {}.\n", family.name, first.ring, first.memory.name())?;
        report += &main_table(&figures, &names, first)?;
        if !options.quick {
            for name in ours.iter().filter(|name| !name.contains("portable")) {
                writeln!(report, "\n{name}: ratio to DPDK's best (core cycles per packet), by burst size.\n")?;
                report += &ratio_table(&figures, name, &settings, &bursts)?;
            }
        }
        report.push('\n');
    }
    std::fs::write(options.out.join("results.tsv"), table)?;
    std::fs::write(options.out.join("tables.md"), &report)?;
    print!("{report}");
    Ok(())
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: benches/peer/run [--quick] [--family NAME]... [--ring N]... [--burst N]... [OUT]");
        return ExitCode::FAILURE;
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peer: {error}");
            ExitCode::FAILURE
        }
    }
}
