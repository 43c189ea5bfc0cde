//! The last register accesses of a port, printed with every violation.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt::Write;
use std::time::Duration;

/// Accesses that are kept.
const KEPT: usize = 48;

struct Entry {
    at: Duration,
    write: bool,
    offset: u32,
    value: u32,
    /// Equal accesses in a row, as polling makes them.
    times: u32,
}

/// A ring of register accesses.
#[derive(Default)]
pub(super) struct Trace(VecDeque<Entry>);

impl Trace {
    pub(super) fn note(&mut self, at: Duration, write: bool, offset: u32, value: u32) {
        if let Some(last) = self.0.back_mut().filter(|e| (e.write, e.offset, e.value) == (write, offset, value)) {
            last.times += 1;
            return;
        }
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(Entry { at, write, offset, value, times: 1 });
    }

    /// The accesses, oldest first, one a line.
    pub(super) fn print(&self, name: impl Fn(u32) -> String) -> String {
        let mut text = String::new();
        for e in &self.0 {
            let micros = e.at.as_nanos() as f64 / 1e3;
            let (arrow, register) = (if e.write { "<-" } else { "->" }, name(e.offset));
            let _ = write!(text, "\n  {micros:>12.1} us  {register:<12} {arrow} {:#010x}", e.value);
            if e.times > 1 {
                let _ = write!(text, "  (x{})", e.times);
            }
        }
        text
    }
}
