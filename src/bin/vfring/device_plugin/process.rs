//! What this process is to the system: the mode of the files that it makes, and its user.

/// Gives what this process makes from now on to its user alone, sockets above all: 0600.
pub(super) fn restrict_new_files() {
    // SAFETY: umask takes no pointer and cannot fail; it changes a number of this process, and nothing here relies on
    // the former one: files with another mode are given it by name.
    unsafe { libc::umask(0o177) };
}

/// The user in whose name this process acts.
pub(super) fn user() -> u32 {
    // SAFETY: geteuid takes no pointer, reads a number of this process and cannot fail.
    unsafe { libc::geteuid() }
}
