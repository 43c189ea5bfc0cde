//! A JSON object written by hand, on one line.
#![forbid(unsafe_code)]

use std::fmt::Write;

/// An object under construction. Keys are written in the order of the calls.
#[derive(Default)]
pub struct Object {
    body: String,
}

impl Object {
    /// An empty object.
    pub fn new() -> Self {
        Self::default()
    }

    /// A whole number.
    pub fn number(self, key: &str, value: impl Into<u64>) -> Self {
        let value: u64 = value.into();
        self.raw(key, &value.to_string())
    }

    /// A number with three decimals; what JSON has no word for (infinity) becomes null.
    pub fn decimal(self, key: &str, value: f64) -> Self {
        if value.is_finite() { self.raw(key, &format!("{value:.3}")) } else { self.raw(key, "null") }
    }

    /// True or false.
    pub fn flag(self, key: &str, value: bool) -> Self {
        self.raw(key, if value { "true" } else { "false" })
    }

    /// A string.
    pub fn text(self, key: &str, value: &str) -> Self {
        let value = quoted(value);
        self.raw(key, &value)
    }

    /// An object within the object.
    pub fn object(self, key: &str, value: Object) -> Self {
        self.raw(key, &value.finish())
    }

    /// A list of whole numbers.
    pub fn numbers(self, key: &str, values: impl IntoIterator<Item = u64>) -> Self {
        let values: Vec<String> = values.into_iter().map(|value| value.to_string()).collect();
        self.raw(key, &format!("[{}]", values.join(",")))
    }

    /// A list of objects.
    pub fn list(self, key: &str, values: impl IntoIterator<Item = Object>) -> Self {
        let values: Vec<String> = values.into_iter().map(Object::finish).collect();
        self.raw(key, &format!("[{}]", values.join(",")))
    }

    /// The object as text.
    pub fn finish(self) -> String {
        format!("{{{}}}", self.body)
    }

    fn raw(mut self, key: &str, value: &str) -> Self {
        if !self.body.is_empty() {
            self.body.push(',');
        }
        self.body.push_str(&quoted(key));
        self.body.push(':');
        self.body.push_str(value);
        self
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_nest_and_text_is_escaped() {
        let inner = |n: u64| Object::new().number("n", n);
        let text = Object::new()
            .text("device", "a\"b\\c\n\u{7f}é")
            .decimal("rate", 0.12345)
            .decimal("none", f64::NAN)
            .flag("up", true)
            .object("empty", Object::new())
            .list("ports", [inner(1), inner(u64::MAX)])
            .finish();
        assert_eq!(
            text,
            "{\"device\":\"a\\\"b\\\\c\\u000a\u{7f}é\",\"rate\":0.123,\"none\":null,\"up\":true,\"empty\":{},\
             \"ports\":[{\"n\":1},{\"n\":18446744073709551615}]}"
        );
    }
}
