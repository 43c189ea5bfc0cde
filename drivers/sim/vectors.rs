//! The MSI-X vectors of a model: eventfds that its driver connected.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::error::{Error, Result};

/// One slot for each vector of the function.
pub(super) struct Vectors(Vec<Option<OwnedFd>>);

impl Vectors {
    /// `count` vectors, none connected: MSI-X is off.
    pub(super) fn new(count: usize) -> Self {
        Vectors((0..count).map(|_| None).collect())
    }

    /// Connects vector i to a duplicate of `eventfds[i]`.
    pub(super) fn connect(&mut self, name: &str, eventfds: &[BorrowedFd<'_>]) -> Result<()> {
        if eventfds.len() > self.0.len() {
            return Err(Error::Config(format!(
                "{name}: {} vectors asked for, the function has {}",
                eventfds.len(),
                self.0.len()
            )));
        }
        self.0.fill_with(|| None);
        for (slot, fd) in self.0.iter_mut().zip(eventfds) {
            *slot = Some(fd.try_clone_to_owned().map_err(|e| Error::os(format!("{name}: duplicating an eventfd"), e))?);
        }
        Ok(())
    }

    /// Sends the message of a vector; false when it is not connected, so that none was sent.
    #[inline]
    pub(super) fn signal(&self, vector: usize) -> bool {
        let Some(Some(fd)) = self.0.get(vector) else { return false };
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` holds the 8 bytes that an eventfd takes, and `fd` is open. A full counter (EAGAIN) means that
        // the reader has a signal pending anyway, so the result does not matter.
        unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        true
    }
}
