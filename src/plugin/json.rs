//! JSON as Go's `encoding/json` writes it.
//!
//! Owns the few lines that must be byte for byte what sriov-network-device-plugin, written in Go, gives to a pod. Called
//! by `allocate`. Keys are sorted because they come from ordered maps.
#![forbid(unsafe_code)]

use std::fmt::Write;

/// A string in quotation marks. Go escapes `<`, `>` and `&` too, and the two line separators of JavaScript.
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An object whose values are JSON already.
pub(super) fn object<K: AsRef<str>>(members: impl IntoIterator<Item = (K, String)>) -> String {
    let members: Vec<String> =
        members.into_iter().map(|(key, value)| format!("{}:{value}", string(key.as_ref()))).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_as_go_does() {
        assert_eq!(
            string("a\"b\\c\n\u{1}<>&\u{2028}\u{7f}é/"),
            "\"a\\\"b\\\\c\\n\\u0001\\u003c\\u003e\\u0026\\u2028\u{7f}é/\""
        );
        assert_eq!(object([("b", "1".to_owned()), ("a", object([("c", string("d"))]))]), r#"{"b":1,"a":{"c":"d"}}"#);
        assert_eq!(object::<&str>([]), "{}");
    }
}
