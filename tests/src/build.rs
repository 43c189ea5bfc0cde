//! Builds programs for the tests, in the two ways that people do: an example as a newcomer builds it, and a program with
//! every feature as a static binary, which runs on this machine, in guests and in images without a C library.
//!
//! There are no more ways than these two because each compiles the crate, and the second a hundred others, anew. Cargo is
//! asked once for each program in each test process, so a test never runs an old binary; with nothing to do it answers
//! within a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::vm::{Error, Result};

/// The only target whose C library Rust links statically here.
const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// How a program is built.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// With the default features.
    Newcomer,
    /// With every feature, as a static binary.
    Complete,
}

/// An example as `cargo run --release --example` builds it: with the default features.
pub fn example(name: &str) -> Result<PathBuf> {
    program(&["--example", name], Way::Newcomer)
}

/// The same with every feature, as a static binary.
pub fn complete_example(name: &str) -> Result<PathBuf> {
    program(&["--example", name], Way::Complete)
}

/// The program `vfring` with every feature, as a static binary.
pub fn vfring() -> Result<PathBuf> {
    program(&["--bin", "vfring"], Way::Complete)
}

/// The shared libraries of a program and its loader, by the paths that they have here.
pub fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output().map_err(Error::during("running ldd"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // `name => path (address)`, or the loader's path alone.
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// Builds what `which` names, unless this process has, and returns its path.
fn program(which: &[&str], way: Way) -> Result<PathBuf> {
    static BUILT: Mutex<BTreeMap<(Way, String), PathBuf>> = Mutex::new(BTreeMap::new());
    let key = (way, which.concat());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.get(&key) {
        return Ok(path.clone());
    }
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root()).args(["build", "--release", "--message-format", "json"]).args(which);
    if way == Way::Complete {
        // As in deploy/Dockerfile. The target must be named, or build scripts and macros would be static too.
        cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").args(["--all-features", "--target", STATIC_TARGET]);
    }
    let output = cargo.output().map_err(Error::during("running cargo"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    // One JSON object a line; the last `executable` is that of the program.
    match text.lines().filter_map(executable).next_back() {
        Some(path) if output.status.success() => Ok(built.entry(key).or_insert(path).clone()),
        _ => Err(Error::new(format!("building {}: {}", which.join(" "), String::from_utf8_lossy(&output.stderr)))),
    }
}

/// The value of `"executable":"…"` in a line of cargo's messages.
fn executable(line: &str) -> Option<PathBuf> {
    let (_, rest) = line.split_once("\"executable\":\"")?;
    let (path, _) = rest.split_once('"')?;
    Some(PathBuf::from(path))
}
