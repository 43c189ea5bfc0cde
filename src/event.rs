//! Eventfds: how an MSI-X vector, or control, wakes a thread.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::error::{Error, Result};

/// A new eventfd, non-blocking and closed on exec.
pub(crate) fn eventfd() -> Result<OwnedFd> {
    // SAFETY: a plain system call.
    let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(Error::last_os("eventfd"));
    }
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the eventfd readable.
pub(crate) fn signal(fd: &OwnedFd) {
    let one = 1u64;
    // SAFETY: an eventfd write takes 8 bytes from `one`. It fails only when the counter is full, that is readable.
    let _ = unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Makes the eventfd unreadable; true when it was readable.
pub(crate) fn clear(fd: BorrowedFd<'_>) -> bool {
    let mut count = 0u64;
    // SAFETY: an eventfd read puts 8 bytes into `count`.
    (unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) }) == 8
}

/// Waits until `fd` is readable; false when the time is over or a signal came.
pub(crate) fn wait(fd: BorrowedFd<'_>, timeout: Duration) -> Result<bool> {
    wait_any(&mut [libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }], timeout)
}

/// Waits until one of the descriptors is readable; false when the time is over or a signal came.
pub(crate) fn wait_any(fds: &mut [libc::pollfd], timeout: Duration) -> Result<bool> {
    // Rounded up, so that the last millisecond of a wait is not spent spinning.
    let millis = timeout.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
    // SAFETY: as many pollfds as the length says, and they live through the call.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) };
    if ready < 0 {
        let error = std::io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::EINTR) => Ok(false),
            _ => Err(Error::os("poll on an eventfd", error)),
        };
    }
    Ok(ready > 0)
}
