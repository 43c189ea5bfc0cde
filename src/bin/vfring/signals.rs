//! SIGINT and SIGTERM as something that a thread waits for.

use std::io;
use std::ptr;

/// The signals that ask a program to end, blocked in every thread that is made from now on.
pub(crate) struct EndSignals(libc::sigset_t);

impl EndSignals {
    /// Blocks the signals in this thread. Call it before any other thread is made.
    pub(crate) fn block() -> io::Result<EndSignals> {
        // SAFETY: a signal set is plain integers, for which all zeroes is a value; sigemptyset makes it an empty set
        // whatever that is to the system.
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: the three calls take a pointer to a set that lives through them; the signal numbers exist.
        let error = unsafe {
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGINT);
            libc::sigaddset(&raw mut set, libc::SIGTERM);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut())
        };
        if error == 0 { Ok(EndSignals(set)) } else { Err(io::Error::from_raw_os_error(error)) }
    }

    /// Waits for one of them.
    pub(crate) fn wait(&self) {
        let mut signal = 0;
        // SAFETY: both pointers are to values that live through the call. It fails for invalid signal numbers only.
        unsafe { libc::sigwait(&raw const self.0, &raw mut signal) };
    }
}
