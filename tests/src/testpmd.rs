//! DPDK's testpmd in a guest, between the two sides of a [`Bench`]: start, commands, end.
//!
//! What always holds: a [`Testpmd`] that was started waits for commands, on a thread that shares the guest's first processor
//! with the one that forwards. It rewrites MAC addresses as l2fwd does.

use crate::vm::{Bench, Error, Process, Result};
use std::time::Duration;

/// testpmd starts within 2 s under emulation; the machine may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// What testpmd reads its commands from.
const COMMANDS: &str = "/run/testpmd";

/// What it prints when it waits for one.
const PROMPT: &str = "testpmd> ";

/// The shell's status of a program that aborted.
const SIGABRT: i32 = 128 + libc::SIGABRT;

/// A running testpmd.
pub struct Testpmd<'a> {
    bed: &'a Bench,
    process: Process,
}

impl<'a> Testpmd<'a> {
    /// Starts it on both VFs with these options besides the usual ones, and returns when it waits for commands.
    pub fn start(bed: &'a Bench, options: &str) -> Result<Testpmd<'a>> {
        let (a, b) = (&bed.a, &bed.b);
        let process = bed.guest.spawn(&format!(
            "[ -e {COMMANDS} ] || mkfifo {COMMANDS}; exec 3<>{COMMANDS}
             exec /bin/dpdk-testpmd --lcores '(0,1)@0' -n 1 --in-memory -a {} -a {} -- -i {options} \\
                --forward-mode=mac --eth-peer=0,{} --eth-peer=1,{} <&3",
            a.vf, b.vf, a.tap.mac, b.tap.mac
        ))?;
        bed.guest.wait_log(&process, PROMPT, START_TIMEOUT)?;
        Ok(Testpmd { bed, process })
    }

    /// Gives a command and waits until it is done. What it printed may come later: its output is no terminal.
    pub fn command(&self, line: &str) -> Result<()> {
        let guest = &self.bed.guest;
        let count = format!("grep -o '{PROMPT}' {} | wc -l", self.process.log);
        let before = guest.sh(&count)?;
        guest.sh(&format!("echo '{line}' >{COMMANDS}"))?;
        guest.wait_until(&format!("[ $({count}) != {before} ]"), START_TIMEOUT)
    }

    /// Ends it as its user does. It must end with status 0, or by a fault of its own that comes after everything; all that it
    /// printed.
    ///
    /// The fault: net_iavf closes a port while DPDK's interrupt thread is in its handler, so that the handler stays registered and
    /// its eventfd is closed; when the thread comes to wait for it again, it panics (seen with 25.11, in one of five ends under
    /// emulation on a busy machine).
    pub fn stop(self) -> Result<String> {
        let guest = &self.bed.guest;
        guest.sh(&format!("echo quit >{COMMANDS}"))?;
        let status = guest.wait(&self.process, START_TIMEOUT)?;
        let log = guest.log(&self.process)?;
        let closed = log.split("Shutting down port 0").nth(1).unwrap_or_default();
        match status {
            0 => Ok(log),
            SIGABRT if closed.contains("epoll_ctl, Bad file descriptor") => Ok(log),
            _ => Err(Error::new(format!("testpmd ended with status {status}; it printed:\n{log}"))),
        }
    }
}
