//! Builds programs for the tests: static ones for guests, ordinary ones for this machine.
//!
//! Cargo is asked every time, so a test never runs an old binary; with nothing to do it answers within a second. Each
//! kind is built once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::vm::{Error, Result};

/// The only target whose C library Rust links statically here.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

static BUILDING: Mutex<()> = Mutex::new(());

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds an example of the root package for this machine, in release mode, and returns its path.
pub fn example(name: &str) -> Result<PathBuf> {
    build(name, Kind::Default)
}

/// The same with the cargo feature `pcap`.
pub fn pcap_example(name: &str) -> Result<PathBuf> {
    build(name, Kind::Pcap)
}

/// Builds an example as a static binary, which runs in a guest that has no C library.
pub fn static_example(name: &str) -> Result<PathBuf> {
    build(name, Kind::Static)
}

/// Builds the program `vfring` as a static binary, without the models' servers.
pub fn static_vfring() -> Result<PathBuf> {
    build("vfring", Kind::StaticCommand)
}

/// Builds an example that can attach to what `vfring sim serve` serves.
pub fn vfio_user_example(name: &str) -> Result<PathBuf> {
    build(name, Kind::VfioUser)
}

/// The shared libraries of a program and its loader, by the paths that they have here.
pub fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().map_err(Error::during("running ldd"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `name => path (address)`, or the loader's path alone.
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// Each kind has a folder of its own, so that they neither rebuild each other's dependencies nor take the place of
/// each other's programs, which have the same name.
#[derive(Clone, Copy)]
enum Kind {
    Default,
    Pcap,
    Static,
    Command,
    StaticCommand,
    VfioUser,
}

/// Builds the program `vfring` with every model.
pub fn vfring() -> Result<PathBuf> {
    build("vfring", Kind::Command)
}

fn build(name: &str, kind: Kind) -> Result<PathBuf> {
    let _turn = BUILDING.lock().unwrap_or_else(|e| e.into_inner());
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["build", "--release", "--message-format", "json"]);
    match kind {
        Kind::Command | Kind::StaticCommand => cargo.args(["--bin", name]),
        _ => cargo.args(["--example", name]),
    };
    let apart = |folder: &str| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        target.join(folder)
    };
    match kind {
        Kind::Default => {}
        Kind::Pcap => {
            cargo.args(["--features", "pcap"]).arg("--target-dir").arg(apart("with-pcap"));
        }
        Kind::Command | Kind::VfioUser => {
            cargo.args(["--features", "cli,vfio-user"]).arg("--target-dir").arg(apart("command"));
        }
        Kind::Static | Kind::StaticCommand => {
            if matches!(kind, Kind::StaticCommand) {
                cargo.args(["--features", "cli"]);
            }
            cargo.args(["--target", STATIC_TARGET]).env("RUSTFLAGS", "-C target-feature=+crt-static");
        }
    }
    let output = cargo.output().map_err(Error::during("running cargo"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // One JSON object a line; the last `executable` is the example's.
    let path = text.lines().filter_map(executable).next_back();
    match path {
        Some(path) if output.status.success() => Ok(path),
        _ => Err(Error::new(format!("building {name}: {}", String::from_utf8_lossy(&output.stderr)))),
    }
}

/// The value of `"executable":"…"` in a line of cargo's messages.
fn executable(line: &str) -> Option<PathBuf> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(PathBuf::from(path))
}
