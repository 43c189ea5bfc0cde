//! The harness's one error: a text for the person who reads the test's output.
//!
//! It says what was being done, what happened and, where there is one, the way out. Tests end with it through `?` or
//! `unwrap`, so `Debug` prints the text as it is, line breaks included.

use std::fmt;

/// Why a guest, a namespace or a traffic program did not do what the test asked for.
pub struct Error(String);

/// What every fallible call of the harness returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that says `text`.
    pub fn new(text: impl Into<String>) -> Error {
        Error(text.into())
    }

    /// For `map_err`: `doing` names the step, the cause follows.
    pub fn during<E: fmt::Display>(doing: impl fmt::Display) -> impl FnOnce(E) -> Error {
        move |cause| Error(format!("{doing}: {cause}"))
    }

    /// The same error with more evidence below it.
    pub fn with(self, evidence: impl fmt::Display) -> Error {
        Error(format!("{}\n{evidence}", self.0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
