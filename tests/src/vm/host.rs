//! Programs on this machine: every one has a deadline and dies with the test.

use super::error::{Error, Result};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a program on this machine printed, and that it succeeded.
pub(super) fn output(mut command: Command, timeout: Duration) -> Result<String> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Running::spawn(command)?;
    let stdout = child.child.stdout.take().map(collect);
    let stderr = child.child.stderr.take().map(collect);
    let started = Instant::now();
    let status = loop {
        match child.child.try_wait().map_err(Error::during(&shown))? {
            Some(status) => break Some(status),
            None if started.elapsed() > timeout => break None,
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    drop(child);
    let text = |thread: Option<std::thread::JoinHandle<Vec<u8>>>| {
        String::from_utf8_lossy(&thread.and_then(|t| t.join().ok()).unwrap_or_default()).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Some(status) if status.success() => Ok(stdout),
        Some(status) => Err(Error::new(format!("{shown}: {status}\n{stdout}{stderr}"))),
        None => Err(Error::new(format!("{shown}: killed after {timeout:?}\n{stdout}{stderr}"))),
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is shown all the same.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// Arranges that the kernel kills a program when the thread that spawns it ends.
pub(super) fn die_with_this_thread(command: &mut Command) {
    // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

/// A child that is killed when this is dropped, or when the thread that spawned it ends.
pub(super) struct Running {
    child: Child,
}

impl Running {
    pub(super) fn spawn(mut command: Command) -> Result<Running> {
        die_with_this_thread(&mut command);
        let child = command.spawn().map_err(Error::during(format!(
            "starting {:?} (tests/vm/prepare installs what the guest tests need)",
            command.get_program()
        )))?;
        Ok(Running { child })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended and was waited for: nothing is left to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
