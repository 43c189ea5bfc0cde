//! Ctrl-C and SIGTERM as a flag that loops look at.
//!
//! The handlers do one relaxed store. They are removed by the first signal, so a second Ctrl-C ends a program that
//! does not react.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static STOP: AtomicBool = AtomicBool::new(false);

/// True once the program is asked to end.
pub fn requested() -> bool {
    STOP.load(Relaxed)
}

/// Asks the program to end, as a signal does.
pub fn request() {
    STOP.store(true, Relaxed);
}

/// Makes SIGINT and SIGTERM ask the program to end.
pub fn on_signals() -> io::Result<()> {
    extern "C" fn handler(_: libc::c_int) {
        STOP.store(true, Relaxed);
    }
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: sigaction is plain integers and pointers, for which all zeroes is a value (no flags, an empty mask).
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = handler as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESETHAND;
        // SAFETY: `action` is initialised and outlives the call. The handler only stores to an atomic, which is
        // async-signal-safe, and has the signature that flags without SA_SIGINFO ask for.
        if unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
