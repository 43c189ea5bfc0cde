//! What the documents say, held against what the tree has: the example in the README, its numbers, the error texts that
//! hugepages.md explains, and every link.
//!
//! The blocks of commands run in a guest (`runbook.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use vfring_tests::build::root;
use vfring_tests::documents::{line_agrees, literals, read};

const DOCUMENTS: [&str; 5] = ["README.md", "hugepages.md", "CHANGELOG.md", "CONTRIBUTING.md", "deploy/README.md"];

/// How far a figure in the README may be from the measured one.
const ROUNDING: f64 = 0.05;

fn source(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The cells of the table rows of a text that has `heading` above it, up to the next heading.
fn rows(document: &str, heading: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let (_, section) =
        text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{document}: no {heading:?}"));
    let section = section.split("\n#").next().unwrap_or_default();
    section
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

#[test]
fn the_readme_has_the_smallest_example_word_for_word() {
    let (readme, example) = (read("README.md"), source("examples/minimal.rs"));
    assert!(readme.contains(&format!("```rust\n{example}```\n")), "README.md and examples/minimal.rs differ");
    // "A 20-line l2fwd": what is inside `main`.
    let body = example.split_once("fn main").expect("a main").1.lines().count() - 2;
    assert!(body <= 26, "{body} lines");
}

#[test]
fn the_readme_forwards_as_the_documentation_does() {
    let (readme, documentation) = (read("README.md"), source("drivers/forward.rs"));
    let (_, block) = readme.split_once("```rust\nlet done = forward").expect("a block that forwards");
    let (block, _) = block.split_once("\n```").expect("its end");
    let tested: BTreeSet<&str> = documentation.lines().map(|line| line.trim_start_matches("/// ").trim()).collect();
    for line in format!("let done = forward{block}").lines().map(str::trim) {
        assert!(tested.contains(line), "not in drivers/forward.rs: {line}");
    }
}

#[test]
fn the_readme_s_instruction_counts_are_those_of_the_baseline() {
    let baseline = source("benches/instructions.baseline");
    let measured: BTreeMap<&str, f64> = baseline
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(row, count)| (row, count.parse().unwrap_or_else(|_| panic!("{row}: {count}"))))
        .collect();
    let shapes: BTreeSet<&str> = measured.keys().filter_map(|row| row.strip_prefix("rx 32 ")).collect();
    let mut checked = BTreeSet::new();
    for row in rows("README.md", "## Numbers") {
        let Some((family, kernel)) = row[0].split_once(", ").filter(|(_, kernel)| !kernel.starts_with("DPDK")) else {
            continue;
        };
        // Both rings in one call is neither receiving nor sending alone.
        let (kernel, paths, cells) = match kernel.strip_suffix(", joined") {
            Some(kernel) => (kernel, &["joined", "joined+swap"][..], &row[3..]),
            None => (kernel, &["rx", "tx", "rx+tx", "rx+swap+tx"][..], &row[1..]),
        };
        for (path, cell) in paths.iter().zip(cells) {
            let (without, with) = cell.split_once(" / ").unwrap_or_else(|| panic!("{row:?}"));
            for (said, shape) in
                [(without, format!("{family} {kernel}")), (with, format!("{family} {kernel}+metadata"))]
            {
                let is = measured.get(format!("{path} 32 {shape}").as_str()).unwrap_or_else(|| panic!("{row:?}"));
                let said: f64 = said.parse().unwrap_or_else(|_| panic!("{row:?}"));
                assert!(
                    (said - is).abs() <= is * ROUNDING,
                    "README.md says {said} for {path}, {shape}: measured are {is}"
                );
                checked.insert(shape);
            }
        }
    }
    assert!(shapes.len() >= 16, "{shapes:?}");
    assert_eq!(
        checked.iter().map(String::as_str).collect::<BTreeSet<_>>(),
        shapes,
        "README.md has others than the baseline"
    );
}

#[test]
fn hugepages_md_counts_pages_as_pools_do() {
    let len = vfring::HEADROOM + usize::from(vfring::DEFAULT_DATA_ROOM);
    let stride = (len.div_ceil(64) | 1) * 64;
    assert!(read("hugepages.md").contains(&format!("buffers x {stride} bytes")));
    // No buffer lies across a boundary of 2 MiB.
    let bytes = |buffers: usize| {
        let whole = |place: &usize| (place * stride) >> 21 == (place * stride + len - 1) >> 21;
        ((0..).filter(whole).nth(buffers - 1).expect("places have no end") + 1) * stride
    };
    let rows = rows("hugepages.md", "## How many");
    assert!(rows.len() > 4);
    for row in &rows[1..] {
        let digits: String = row[0].chars().take_while(char::is_ascii_digit).collect();
        let bytes = bytes(digits.parse().expect("a number of buffers"));
        for (cell, page) in row[1..].iter().zip([2usize << 20, 1 << 30]) {
            assert_eq!(cell, &bytes.div_ceil(page).to_string(), "{row:?}");
        }
    }
}

/// The texts in the first column of the tables of errors.
fn explained() -> Vec<String> {
    let text = |row: &Vec<String>| row[0].strip_prefix('`').and_then(|t| t.strip_suffix('`')).map(str::to_owned);
    let sections = ["### Hugepages and pools", "### VFIO and the IOMMU", "### Ports"];
    let texts = sections.iter().flat_map(|section| rows("hugepages.md", section)).filter(|row| row[0] != "text");
    texts.map(|row| text(&row).unwrap_or_else(|| panic!("no text in backticks: {row:?}"))).collect()
}

/// Whether an explained text is part of a literal.
fn is_part(text: &str, literal: &str) -> bool {
    line_agrees(&format!("…{text}…"), literal)
}

#[test]
fn every_text_that_hugepages_md_explains_is_in_the_sources() {
    let files = [
        "src/mem/region.rs",
        "src/mem/pool.rs",
        "src/pci/mod.rs",
        "src/vfio/explain.rs",
        "src/vfio/container.rs",
        "src/port/config.rs",
        "src/port/mod.rs",
        "src/port/start.rs",
    ];
    let literals: Vec<String> = files.iter().flat_map(|file| literals(&source(file))).collect();
    let explained = explained();
    assert!(explained.len() > 40, "{}", explained.len());
    let lost: Vec<&String> =
        explained.iter().filter(|text| !literals.iter().any(|literal| is_part(text, literal))).collect();
    assert!(lost.is_empty(), "hugepages.md explains what nothing says: {lost:#?}");
}

#[test]
fn every_error_of_memory_is_explained() {
    let explained = explained();
    for file in ["src/mem/region.rs", "src/mem/pool.rs"] {
        let code = source(file);
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        // The literal that follows each error that is made, wherever rustfmt has put it.
        for (at, _) in code.match_indices("Error::").filter(|(at, _)| {
            let rest = &code[at + "Error::".len()..];
            ["Memory(", "Config(", "os(", "last_os("].iter().any(|kind| rest.starts_with(kind))
        }) {
            let text = literals(&code[at..]).into_iter().next().expect("an error has a text");
            assert!(
                explained.iter().any(|known| is_part(known, &text)),
                "{file}: hugepages.md does not explain {text:?}"
            );
        }
    }
}

#[test]
fn links_lead_somewhere() {
    for document in DOCUMENTS {
        let text = read(document);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap_or_default();
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            if target.starts_with("https://") {
                continue;
            }
            // A link is seen from its document.
            let folder = Path::new(document).parent().unwrap_or(Path::new(""));
            let path = if path.is_empty() { PathBuf::from(document) } else { folder.join(path) };
            assert!(root().join(&path).exists(), "{document}: {target} does not exist");
            if !anchor.is_empty() {
                let headings = read(path.to_str().expect("names of documents are UTF-8"));
                let slug = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
                let found = headings.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor);
                assert!(found, "{document}: {target} has no heading");
            }
        }
    }
}

#[test]
fn versions_agree() {
    let manifest = source("Cargo.toml");
    let value = |key: &str| -> String {
        let line = manifest.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        line.unwrap_or_else(|| panic!("no {key} in Cargo.toml")).trim_end_matches('"').to_owned()
    };
    assert!(read("README.md").contains(&format!("Rust {} or later", value("rust-version"))));
    let changelog = read("CHANGELOG.md");
    let newest = changelog.lines().find(|line| line.starts_with("## [") && !line.contains("Unreleased"));
    if let Some(newest) = newest {
        assert!(newest.starts_with(&format!("## [{}]", value("version"))), "{newest}");
    }
}
