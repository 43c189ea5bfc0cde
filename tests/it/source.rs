//! What the sources promise about themselves: dependencies that point one way, two sources for what a device is, files that
//! one can read in a sitting, and a default build without surprises.
//!
//! A hand-made scan of `crate::` paths, not a compiler: comments, strings and tests are taken out first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use vfring_tests::build::root;

/// Lines of a file, tests included.
const LONGEST_FILE: usize = 650;
/// Crates of the default build besides vfring.
const MOST_CRATES: usize = 12;

/// One source file, by its path from the root of the tree.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Made for tests only.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        self.path.contains("/tests/") || name.ends_with("tests.rs") || name == "fake.rs"
    }

    /// Code without comments and the contents of strings.
    fn code(&self) -> String {
        let mut code = String::new();
        let mut rest = self.text.as_str();
        while let Some(at) = rest.find(['/', '"', '\'']) {
            let (head, tail) = rest.split_at(at);
            code += head;
            rest = if tail.starts_with("//") {
                tail.find('\n').map_or("", |end| &tail[end..])
            } else if let Some(tail) = tail.strip_prefix("'\"'") {
                tail
            } else if let Some(text) = tail.strip_prefix('"') {
                let mut escaped = false;
                let end = text.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                end.map_or("", |end| &text[end + 1..])
            } else {
                code.push_str(&tail[..1]);
                &tail[1..]
            };
        }
        code + rest
    }

    /// The same without the tests in the file.
    fn code_without_tests(&self) -> String {
        let code = self.code();
        code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
    }
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut found);
    }
    let root = root();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let path = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        Source { path, text }
    };
    found.into_iter().map(source).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => collect(&path, found),
            false if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            false => {}
        }
    }
}

/// Whether `word` stands in `code` as a word.
fn has_word(code: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

/// The first names after `crate::`, those in braces too.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => drop(names.insert(name(rest))),
            Some(group) => {
                let (mut depth, mut start) = (0, true);
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            names.insert(name(&group[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

#[test]
fn dependencies_point_one_way() {
    // What a module may use of the crate, besides itself.
    let rules: &[(&str, &[&str])] = &[
        ("src/error.rs", &[]),
        ("src/addr.rs", &["error"]),
        ("src/spec.rs", &["addr", "error"]),
        ("src/sync.rs", &[]),
        ("src/cpu.rs", &[]),
        ("src/event.rs", &["error"]),
        ("src/fuzz.rs", &["drivers", "plugin", "vfio"]),
        ("src/mem/", &["cpu", "error", "sync"]),
        ("src/mmio.rs", &["addr", "error", "mem"]),
        ("src/pci/", &["addr", "error", "mmio"]),
        ("src/pod.rs", &["addr", "error", "pci", "spec"]),
        ("src/host/", &["addr", "error", "pci"]),
        ("src/plugin/", &["addr", "error", "host", "pci"]),
        ("src/vfio/", &["addr", "error", "mem", "mmio", "pci"]),
        ("src/ring/", &["cpu", "error", "event", "mem", "mmio", "sync"]),
        ("src/port/", &["addr", "cpu", "error", "event", "mem", "mmio", "ring"]),
        ("drivers/iavf/", &["addr", "error", "mem", "mmio", "port", "ring"]),
        ("drivers/intel/", &["addr", "error", "mem", "mmio", "port", "ring"]),
        ("drivers/igbvf/", &["addr", "error", "mem", "mmio", "port", "ring"]),
        ("drivers/ixgbevf/", &["addr", "error", "mem", "mmio", "port", "ring"]),
        ("drivers/sim/", &["addr", "error", "mem", "mmio", "spec"]),
        ("src/bin/vfring/", &["names", "netlink", "prepare", "roots", "settings", "signals"]),
        ("drivers/any.rs", &["error", "event", "mem", "port", "ring"]),
        ("drivers/forward.rs", &["error", "mem", "ring"]),
        ("drivers/open.rs", &["error", "mmio", "pci", "port", "spec", "vfio"]),
    ];
    let mut checked = BTreeSet::new();
    let mut wrong = Vec::new();
    for source in sources(&["src", "drivers"]).iter().filter(|source| !source.is_test()) {
        if ["src/lib.rs", "drivers/mod.rs"].contains(&source.path.as_str()) {
            continue;
        }
        let Some((place, allowed)) = rules.iter().find(|(place, _)| source.path.starts_with(place)) else {
            wrong.push(format!("{}: no rule says what it may use", source.path));
            continue;
        };
        checked.insert(*place);
        let own = place.trim_end_matches(".rs").trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        for name in crate_paths(&source.code_without_tests()) {
            if name != own && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} uses crate::{name}; it may use {}", source.path, allowed.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(checked.len(), rules.len(), "rules for what is gone: {checked:?}");
}

#[test]
fn a_model_and_a_driver_share_no_constant() {
    // Tests included: one that took a register's place from the driver could not find it misplaced.
    let mut seen = (0, 0);
    let drivers = ["iavf", "igbvf", "ixgbevf", "intel"];
    for source in sources(&["drivers"]) {
        let code = source.code();
        let folder = source.path.split('/').nth(1).unwrap_or_default();
        if folder == "sim" {
            seen.0 += 1;
            for driver in drivers {
                assert!(!has_word(&code, driver), "{} names the driver {driver}", source.path);
            }
        } else if drivers.contains(&folder) {
            seen.1 += 1;
            assert!(!has_word(&code, "sim"), "{} names the models", source.path);
        }
    }
    assert!(seen.0 > 10 && seen.1 > 12, "{seen:?}");
}

#[test]
fn files_are_short_and_open_with_what_they_own() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "drivers", "examples", "tests/it", "tests/src", "benches"]) {
        let product = ["src", "drivers", "examples"].iter().any(|folder| source.path.starts_with(folder));
        let lines = source.text.lines().count();
        if product && lines > LONGEST_FILE {
            wrong.push(format!("{} has {lines} lines; {LONGEST_FILE} are the limit", source.path));
        }
        if !source.text.starts_with("//! ") {
            wrong.push(format!("{} does not open with a paragraph about itself", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_without_unsafe_say_so() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "drivers", "examples"]).iter().filter(|source| !source.is_test()) {
        let code = source.code();
        // A file with modules below it forbids for all of them; the smallest example has no line to spare.
        let parent = code.lines().any(|line| {
            let line = line.trim_start();
            line.ends_with(';') && (line.starts_with("mod ") || line.starts_with("pub") && line.contains(" mod "))
        });
        let safe = !has_word(&code, "unsafe");
        if safe && !parent && !code.contains("#![forbid(unsafe_code)]") && source.path != "examples/minimal.rs" {
            wrong.push(format!("{} has no unsafe code: #![forbid(unsafe_code)]", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program).current_dir(root()).args(arguments).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_default_build_is_a_dozen_crates_and_no_proc_macro() {
    let tree = cargo(&["tree", "-p", "vfring", "-e", "normal,build", "--prefix", "none", "--locked"]);
    assert!(!tree.contains("(proc-macro)"), "{tree}");
    let crates: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "vfring").collect();
    assert!(crates.len() <= MOST_CRATES, "{} crates: {crates:?}", crates.len());
    assert!(crates.contains("hugepage-rs") && crates.contains("vfio-bindings"), "{crates:?}");

    let metadata: Value = serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--locked"]))
        .expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let scripts: BTreeSet<String> = metadata["packages"]
        .as_array()
        .expect("a list of packages")
        .iter()
        .filter(|package| crates.contains(package["name"].as_str().unwrap_or_default()))
        .filter(|package| {
            let targets = package["targets"].as_array().expect("a list of targets");
            targets.iter().any(|target| target["kind"][0] == "custom-build")
        })
        .map(|package| text(&package["name"]))
        .collect();
    assert!(scripts.iter().all(|name| name == "libc" || name.starts_with("crossbeam")), "build scripts: {scripts:?}");
}

#[test]
fn the_scan_sees_through_comments_strings_and_groups() {
    let text = "// crate::a\nuse crate::b::C; // crate::d\nlet s = \"crate::e \\\" crate::f\"; let q = '\"';\n\
                use crate::{g::{h, i}, j};\n#[cfg(test)]\nmod tests { use crate::k; }";
    let source = Source { path: "x.rs".into(), text: text.into() };
    let names: Vec<String> = crate_paths(&source.code_without_tests()).into_iter().collect();
    assert_eq!(names, ["b", "g", "j"]);
    assert!(crate_paths(&source.code()).contains("k"));
    assert!(has_word("a sim b", "sim") && !has_word("simple is_sim sim_x", "sim"));
}
