//! Where people read: lines that stay, and on a terminal one block of text that is refreshed in place.
//!
//! A reader that goes away (`l2fwd | head`) is an error of the writing function, never a panic.
#![forbid(unsafe_code)]

use std::io::{self, IsTerminal, Write};

/// stdout, or stderr when stdout is kept for JSON.
pub struct Screen {
    to_stderr: bool,
    terminal: bool,
    /// Lines of the block on the screen.
    drawn: usize,
}

impl Screen {
    /// Writes to stdout, or to stderr.
    pub fn new(to_stderr: bool) -> Self {
        let terminal = if to_stderr { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        Screen { to_stderr, terminal, drawn: 0 }
    }

    /// True when somebody watches: the block can be refreshed in place.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes text that stays.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        let text = self.erase() + text;
        self.write(&text)
    }

    /// Writes a block that takes the place of the one before; long lines are cut at the edge of the screen.
    pub fn refresh(&mut self, block: &str) -> io::Result<()> {
        let text = format!("{}\x1b[?7l{block}\x1b[?7h", self.erase());
        self.drawn = block.lines().count();
        self.write(&text)
    }

    /// Writes a line to stderr, above the block.
    pub fn note(&mut self, line: &str) -> io::Result<()> {
        let erase = self.erase();
        self.write(&erase)?;
        writeln!(io::stderr(), "{line}")
    }

    /// What removes the block: cursor to its first line, then clear to the end of the screen.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut out: Box<dyn Write> = if self.to_stderr { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}
