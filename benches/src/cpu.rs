//! Where threads run.

/// Moves this thread, and all that it starts from now on, to one CPU. Where the machine has no such CPU, nothing happens.
pub fn pin(cpu: usize) {
    // SAFETY: an empty set of CPUs is all zeros; the calls take a set and its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}
