//! Writing to sysfs, for real or as a rehearsal.
//!
//! Owns the only writes that the tools of the host do, and what the kernel's refusals mean. What always holds: a
//! rehearsal writes nothing, and says each write as the shell command that would do it.
#![forbid(unsafe_code)]

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// What changes a host.
pub trait Hands {
    /// Writes a value to an attribute of sysfs.
    ///
    /// # Errors
    /// What the kernel says.
    fn write(&mut self, path: &Path, value: &str) -> io::Result<()>;

    /// False in a rehearsal: what was written has no effect.
    fn acts(&self) -> bool;
}

/// Writes for real.
#[derive(Debug, Default)]
pub struct Kernel;

/// Notes what would be written.
#[derive(Debug, Default)]
pub struct Rehearsal {
    /// The writes so far, each as a shell command.
    pub commands: Vec<String>,
}

impl Hands for Kernel {
    fn write(&mut self, path: &Path, value: &str) -> io::Result<()> {
        // Never made where it is absent: a file in sysfs is there or its function is gone.
        OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
    }

    fn acts(&self) -> bool {
        true
    }
}

impl Hands for Rehearsal {
    fn write(&mut self, path: &Path, value: &str) -> io::Result<()> {
        self.commands.push(format!("echo {} > {}", value.trim_end(), path.display()).replace("  ", " "));
        Ok(())
    }

    fn acts(&self) -> bool {
        false
    }
}

/// A write whose refusal is explained by `hint`, or else by what is commonly wrong.
pub(super) fn write(
    hands: &mut dyn Hands,
    path: &Path,
    value: &str,
    hint: impl Fn(&io::Error) -> Option<String>,
) -> Result<()> {
    hands.write(path, value).map_err(|error| {
        let common = match error.raw_os_error() {
            Some(libc::EACCES | libc::EPERM) => Some("run it as root".to_owned()),
            Some(libc::EROFS) => {
                Some("sysfs is mounted read-only here: run it on the host, or in a privileged pod".into())
            }
            _ => None,
        };
        let cure = hint(&error).or(common).unwrap_or_else(|| "see dmesg".into());
        Error::os(format!("writing '{}' to {} ({cure})", value.trim_end(), path.display()), error)
    })
}
