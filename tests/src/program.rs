//! Programs on this machine, run to their end or to a signal, with what they print read as they print it.
//!
//! Owns the child: it is killed when its [`Program`] is dropped, so no test leaves one behind. Every wait has a
//! deadline and, when it passes, an error with all that was printed.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::vm::{Error, Result, poll};

/// How often a waiting test looks.
const EVERY: Duration = Duration::from_millis(10);

/// A running program.
pub struct Program {
    child: Child,
    stdout: Stream,
    stderr: Stream,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Exit code, or 128 + N when signal N ended it.
    pub code: i32,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Program {
    /// Starts `path` with `arguments`, with nothing on its standard input.
    pub fn start(path: &Path, arguments: &[&str]) -> Result<Program> {
        Program::start_with(path, arguments, &[])
    }

    /// The same with variables added to the environment.
    pub fn start_with(path: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Program> {
        let mut command = Command::new(path);
        command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
        Program::spawn(command)
    }

    /// The same for a prepared command, which says what its standard input is.
    pub fn spawn(mut command: Command) -> Result<Program> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(Error::during(format!("starting {:?}", command.get_program())))?;
        let (stdout, stderr) = (Stream::of(child.stdout.take()), Stream::of(child.stderr.take()));
        Ok(Program { child, stdout, stderr })
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until its standard output has `text`.
    pub fn wait_for(&mut self, text: &str, timeout: Duration) -> Result<()> {
        let found = poll(&format!("{text:?} on stdout"), timeout, EVERY, || {
            if self.stdout.text().contains(text) {
                return Ok(Some(()));
            }
            match self.status()? {
                None => Ok(None),
                // What it printed last may not have been read yet.
                Some(_) if self.stdout.text_at_the_end().contains(text) => Ok(Some(())),
                Some(status) => Err(Error::new(format!("it ended ({status}) without printing {text:?}"))),
            }
        });
        found.map_err(|error| error.with(self.evidence()))
    }

    /// Writes a line to its standard input, which must be a pipe, and returns the line that it answers with.
    pub fn ask(&mut self, line: &str, timeout: Duration) -> Result<String> {
        // The end of a line that it is still printing is no answer.
        let before = poll("the end of its last line", timeout, EVERY, || {
            let text = self.stdout.text();
            Ok((text.is_empty() || text.ends_with('\n')).then_some(text.len()))
        });
        let before = before.map_err(|error| error.with(self.evidence()))?;
        let input = self.child.stdin.as_mut().ok_or_else(|| Error::new("its standard input is no pipe"))?;
        input.write_all(format!("{line}\n").as_bytes()).map_err(Error::during(format!("sending {line:?}")))?;
        poll(&format!("an answer to {line:?}"), timeout, EVERY, || {
            let text = self.stdout.text();
            Ok(text[before..].split_once('\n').map(|(answer, _)| answer.to_owned()))
        })
        .map_err(|error| error.with(self.evidence()))
    }

    /// Sends a signal, such as `libc::SIGINT`.
    pub fn signal(&self, signal: i32) -> Result<()> {
        // SAFETY: kill takes no pointer. The child has not been waited for (`self` exists), so its number is still its own.
        match unsafe { libc::kill(self.child.id() as libc::pid_t, signal) } {
            0 => Ok(()),
            _ => Err(Error::during("kill")(std::io::Error::last_os_error())),
        }
    }

    /// Waits until it ends.
    pub fn end(mut self, timeout: Duration) -> Result<Ended> {
        let status = poll("the end of the program", timeout, EVERY, || self.status());
        let status = status.map_err(|error| error.with(self.evidence()))?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ok(Ended { code, stdout: self.stdout.text_at_the_end(), stderr: self.stderr.text_at_the_end() })
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().map_err(Error::during("waiting for a program"))
    }

    /// What it has printed on its standard output so far.
    pub fn printed(&self) -> String {
        self.stdout.text()
    }

    /// What it has printed on its standard error so far.
    pub fn errors(&self) -> String {
        self.stderr.text()
    }

    /// What it has printed, for a failure's text.
    pub fn evidence(&self) -> String {
        format!("--- its stdout:\n{}\n--- its stderr:\n{}\n---", self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One stream of a program, read by a thread so that the program never waits for the test.
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Stream {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Stream {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&bytes);
        let reader = pipe.map(|mut pipe| {
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&chunk[..n]);
                }
            })
        });
        Stream { bytes, reader }
    }

    /// What was printed so far.
    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// All of it; the program has ended, so the reader is about to.
    fn text_at_the_end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            // It does nothing that panics.
            let _ = reader.join();
        }
        self.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_earlier_line_is_no_answer() -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "printf serving; sleep 0.3; echo; read line; echo got $line"]).stdin(Stdio::piped());
        let mut program = Program::spawn(command)?;
        program.wait_for("serving", Duration::from_secs(60))?;
        assert_eq!(program.ask("it", Duration::from_secs(60))?, "got it");
        Ok(())
    }
}
