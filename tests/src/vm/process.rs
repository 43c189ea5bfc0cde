//! Programs that run in the guest while the test goes on.
//!
//! A process gets a session of its own, default signal dispositions (a shell's `&` would make it ignore SIGINT), a log
//! file with everything that it prints, and a parent that records its exit status. It ends with the guest at the
//! latest; dropping a [`Process`] does nothing.

use super::control::encode;
use super::error::{Error, Result};
use super::guest::Guest;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// For a look at a file.
const SHORT: Duration = Duration::from_secs(30);

/// A program in the guest. Its methods that ask are on [`Guest`].
#[derive(Debug, Clone)]
pub struct Process {
    /// Its process number in the guest: of the program itself, when the script ended in `exec program`.
    pub pid: u32,
    /// The file in the guest that has its stdout and stderr.
    pub log: String,
    files: String,
}

impl Guest {
    /// Starts a shell script in the background. Let it end in `exec program …`, then signals reach the program.
    pub fn spawn(&self, script: &str) -> Result<Process> {
        let files = format!("/run/process-{}", self.next_process.fetch_add(1, Ordering::Relaxed));
        let log = format!("{files}.log");
        let body = format!("echo $$ >{files}.pid.part; mv {files}.pid.part {files}.pid\n{script}\n");
        let parent = format!(
            "sh {files}.sh </dev/null >{log} 2>&1\necho $? >{files}.status.part; mv {files}.status.part {files}.status\n"
        );
        let pid = self.sh(&format!(
            "echo {} | base64 -d >{files}.sh; echo {} | base64 -d >{files}.parent; : >{log}
             start-stop-daemon -S -b -m -p {files}.parent.pid -a /bin/sh -- {files}.parent
             until [ -e {files}.pid ]; do usleep 10000; done; cat {files}.pid",
            encode(body.as_bytes()),
            encode(parent.as_bytes())
        ))?;
        let pid = pid.parse().map_err(|_| Error::new(format!("not a process number: {pid:?}")))?;
        Ok(Process { pid, log, files })
    }

    /// Sends a signal by name ("INT", "TERM", "KILL").
    pub fn signal(&self, process: &Process, signal: &str) -> Result<()> {
        self.sh(&format!("kill -{signal} {}", process.pid)).map(drop)
    }

    /// Kills it, if it still runs, and waits until it is gone.
    pub fn kill(&self, process: &Process) -> Result<()> {
        self.sh(&format!(
            "[ -e {status} ] || kill -KILL {}; until [ -e {status} ]; do usleep 10000; done",
            process.pid,
            status = format_args!("{}.status", process.files)
        ))
        .map(drop)
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self, process: &Process) -> Result<bool> {
        Ok(self.run(&format!("[ ! -e {}.status ]", process.files), SHORT)?.status == 0)
    }

    /// Waits until it ends; its exit status, or 128 + N when signal N ended it.
    pub fn wait(&self, process: &Process, timeout: Duration) -> Result<i32> {
        let status = format!("{}.status", process.files);
        self.wait_until(&format!("[ -e {status} ]"), timeout)
            .map_err(|error| error.with(format!("its log:\n{}", self.log(process).unwrap_or_default())))?;
        let text = self.sh(&format!("cat {status}"))?;
        text.parse().map_err(|_| Error::new(format!("not an exit status: {text:?}")))
    }

    /// What it has printed so far.
    pub fn log(&self, process: &Process) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read_file(&process.log)?).into_owned())
    }

    /// Waits until its log has a line with this fixed text; an error when it ends without having printed it.
    pub fn wait_log(&self, process: &Process, text: &str, timeout: Duration) -> Result<()> {
        let quoted = format!("echo {} | base64 -d", encode(text.as_bytes()));
        // Its end is looked at first: what it printed before its end is then in the log.
        let condition = format!(
            "ended=1; [ -e {files}.status ] && ended=2; grep -qF \"$({quoted})\" {log} && exit 0; exit $ended",
            files = process.files,
            log = process.log
        );
        let found = super::poll(&format!("{text:?} in the log"), timeout, Duration::ZERO, || {
            match self.ask_for_a_while(&condition)? {
                0 => Ok(Some(())),
                1 => Ok(None),
                _ => Err(Error::new(format!("it ended without printing {text:?}"))),
            }
        });
        found.map_err(|error| error.with(format!("its log:\n{}", self.log(process).unwrap_or_default())))
    }
}
