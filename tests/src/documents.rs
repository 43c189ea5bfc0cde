//! The documents as data: blocks to run with what they should print, and tables of error texts.
//!
//! A block that a test runs has a comment in front of it that names where, and the text block after it is what the
//! reader should see:
//!
//! ````text
//! <!-- run: WHERE -->
//! ```sh
//! commands
//! ```
//! You should see:
//! ```text
//! a line; an ellipsis in it stands for anything
//! ...
//! another line, any number of lines further on
//! ```
//! ````

use std::fs;

use crate::build::root;

/// What stands for any text within a line.
const ANY: char = '…';

/// Commands of a document, and what they should print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The document, and the line that the block starts at.
    pub place: String,
    /// Where it runs.
    pub run: String,
    /// The commands.
    pub script: String,
    /// What a reader should see.
    pub expected: String,
}

/// A document of the top level, as text.
pub fn read(name: &str) -> String {
    let path = root().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a document that tests run, in order. Panics where the marks are wrong: that is the document's fault.
pub fn blocks(name: &str) -> Vec<Block> {
    parse(name, &read(name))
}

fn parse(name: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let Some(run) = line.strip_prefix("<!-- run: ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let place = format!("{name}:{}", at + 1);
        let script = fenced(&mut lines, "```sh").unwrap_or_else(|| panic!("{place}: no sh block follows"));
        let expected = fenced(&mut lines, "```text").unwrap_or_else(|| panic!("{place}: no text block follows"));
        blocks.push(Block { place, run: run.to_owned(), script, expected });
    }
    blocks
}

/// The next fenced block, which must open with `fence`.
fn fenced<'a>(lines: &mut impl Iterator<Item = (usize, &'a str)>, fence: &str) -> Option<String> {
    let opening = lines.map(|(_, line)| line).find(|line| line.starts_with("```") || line.starts_with("<!-- run: "))?;
    if opening != fence {
        return None;
    }
    Some(lines.map(|(_, line)| line).take_while(|line| *line != "```").map(|line| format!("{line}\n")).collect())
}

/// Whether `seen` is what `expected` describes; spaces at the end of lines and of the text do not matter.
pub fn agrees(expected: &str, seen: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    lines_agree(&lines(expected), &lines(seen))
}

fn lines_agree(expected: &[String], seen: &[String]) -> bool {
    match expected.split_first() {
        None => seen.is_empty(),
        Some((line, rest)) if line == "..." => (0..=seen.len()).any(|skipped| lines_agree(rest, &seen[skipped..])),
        Some((line, rest)) => {
            seen.split_first().is_some_and(|(first, others)| line_agrees(line, first) && lines_agree(rest, others))
        }
    }
}

/// Whether a line matches a pattern with ellipses.
pub fn line_agrees(pattern: &str, line: &str) -> bool {
    match pattern.split_once(ANY) {
        None => pattern == line,
        Some((head, tail)) => line.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(at, _)| at).chain([rest.len()]).any(|at| line_agrees(tail, &rest[at..]))
        }),
    }
}

/// The string literals of a Rust source without its tests, one line each; what a format puts in is an ellipsis.
pub fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let mut found = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            // A quote as a character is no start of a text.
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
            '"' => found.push(placeholders(&literal(&mut chars))),
            _ => {}
        }
    }
    found
}

/// The rest of a string literal, escapes resolved.
fn literal(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> String {
    let mut text = String::new();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => match chars.next() {
                Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                Some('n') => text.push('\n'),
                Some(other) => text.push(other),
                None => break,
            },
            c => text.push(c),
        }
    }
    text
}

fn placeholders(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((head, tail)) = rest.split_once('{') {
        out += head;
        if let Some(tail) = tail.strip_prefix('{') {
            out.push('{');
            rest = tail;
        } else {
            out.push(ANY);
            rest = tail.split_once('}').map_or("", |(_, tail)| tail);
        }
    }
    (out + rest).replace("}}", "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_with_what_they_print() {
        let text =
            "a\n```sh\nnot this\n```\n<!-- run: here -->\n```sh\none\ntwo\n```\nYou should see:\n```text\n1\n```\n";
        let found = parse("x.md", text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].place.as_str(), found[0].run.as_str()), ("x.md:5", "here"));
        assert_eq!((found[0].script.as_str(), found[0].expected.as_str()), ("one\ntwo\n", "1\n"));
    }

    #[test]
    #[should_panic(expected = "no text block")]
    fn a_block_without_its_output_is_refused() {
        parse("x.md", "<!-- run: here -->\n```sh\none\n```\n```sh\ntwo\n```\n");
    }

    #[test]
    fn ellipses_stand_for_anything() {
        for (expected, seen, same) in [
            ("a\n", "a", true),
            ("a", "b", false),
            ("a…c", "abbc", true),
            ("a…c", "abb", false),
            ("a…c…", "axcyd", true),
            ("…", "", false),
            ("a…", "a", true),
            ("a\n...\nz", "a\nb\nc\nz", true),
            ("a\n...\nz", "a\nz  \n", true),
            ("a\n...\nz", "a\nb", false),
            ("...", "", true),
            ("a", "a\nb", false),
            ("a\nb", "a", false),
        ] {
            assert_eq!(agrees(expected, seen), same, "{expected:?} and {seen:?}");
        }
    }

    #[test]
    fn literals_are_whole_texts() {
        let source = "// no \"comment\"\nf(\"one {x:?} \\\n     two {{}} \\\"q\\\"\", '\"', \"three\");\n#[cfg(test)]\nmod tests { \"no\" }";
        assert_eq!(literals(source), ["one … two {} \"q\"", "three"]);
    }
}
