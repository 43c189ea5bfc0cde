//! The one error type of the crate.
//!
//! Errors teach: the text names what failed, the device or path it failed on, and what mends it. Only control
//! operations return errors; the data path returns counts. Written by hand, because a derive would take the
//! default build from four seconds to twenty.
#![forbid(unsafe_code)]

use std::fmt::{self, Write};
use std::io;

/// The result of every control operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, on which device or path, and what mends it.
///
/// `Debug` prints the same line as `Display`, so that a `main` which returns a `Result` ends in it.
#[non_exhaustive]
pub enum Error {
    /// Text that names something (an address, a device spec, an option) is malformed.
    Parse(String),
    /// A value is well-formed and cannot be used: out of range, not a multiple, more than the device has.
    Config(String),
    /// The device cannot be used as it stands: absent, wrong id, wrong driver, a PF, a group that is not viable.
    Device {
        /// The device, as its spec prints.
        device: String,
        /// What is wrong and what mends it.
        reason: String,
    },
    /// The device did not answer within the deadline of the wait.
    Timeout {
        /// The device, as its spec prints.
        device: String,
        /// What was waited for, with the deadline.
        what: String,
    },
    /// The device is gone: registers read all ones, or the kernel asked for its release.
    Gone {
        /// The device, as its spec prints.
        device: String,
    },
    /// Memory for the device cannot be had.
    Memory(String),
    /// The operating system refused; `context` names the call, the path and the fix.
    Os {
        /// The call and its object, and what mends it where that is known.
        context: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// An [`Error::Os`] with its context.
    pub fn os(context: impl Into<String>, source: io::Error) -> Self {
        Error::Os { context: context.into(), source }
    }

    /// An [`Error::Os`] from the calling thread's `errno`.
    pub fn last_os(context: impl Into<String>) -> Self {
        Error::os(context, io::Error::last_os_error())
    }

    /// An [`Error::Device`].
    pub fn device(device: impl fmt::Display, reason: impl Into<String>) -> Self {
        Error::Device { device: device.to_string(), reason: reason.into() }
    }

    /// An [`Error::Timeout`].
    pub fn timeout(device: impl fmt::Display, what: impl Into<String>) -> Self {
        Error::Timeout { device: device.to_string(), what: what.into() }
    }

    /// An [`Error::Gone`].
    pub fn gone(device: impl fmt::Display) -> Self {
        Error::Gone { device: device.to_string() }
    }
}

/// Writes on one line whatever the text quotes.
pub(crate) struct OneLine<'a, 'b>(pub(crate) &'a mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|c| c.is_control()) {
                Some(c) => write!(self.0, "{}{}", &part[..part.len() - c.len_utf8()], c.escape_default())?,
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = OneLine(f);
        match self {
            Error::Parse(text) | Error::Config(text) | Error::Memory(text) => f.write_str(text),
            Error::Device { device, reason } => write!(f, "{device}: {reason}"),
            Error::Timeout { device, what } => write!(f, "{device}: timed out: {what}"),
            Error::Gone { device } => {
                write!(f, "{device}: the device is gone (registers read all ones, or the kernel asked for its release)")
            }
            Error::Os { context, source } => write!(f, "{context}: {source}"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Os { source, .. } => Some(source),
            _ => None,
        }
    }
}
