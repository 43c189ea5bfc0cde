//! What the plugin says while it runs: events on the standard output, troubles on the standard error, a line each.
//!
//! What always holds: a trouble that lasts is said once, and its end is said; a reader that went away stops nothing.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Says what happened.
pub(super) fn event(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Says what went wrong.
pub(super) fn trouble(text: impl Display) {
    // Kubelet's words may have more lines than one.
    let text = text.to_string().replace(['\n', '\r'], " ");
    let _ = writeln!(std::io::stderr().lock(), "vfring: {text}");
}

/// Troubles that last, by what they are about.
#[derive(Default)]
pub(super) struct Troubles(Mutex<BTreeMap<String, String>>);

impl Troubles {
    /// Says a trouble, unless that is what was said of it last.
    pub(super) fn raise(&self, about: &str, text: String) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(about) != Some(&text) {
            trouble(&text);
            said.insert(about.to_owned(), text);
        }
    }

    /// Ends a trouble; true when there was one.
    pub(super) fn settle(&self, about: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(about).is_some()
    }
}
