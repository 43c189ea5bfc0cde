//! The control channel: shell scripts go into the guest, their output and exit status come back.
//!
//! The other end is `tests/vm/init`, whose head describes the protocol. Base64 in both directions keeps lines
//! apart from what they carry. Always holds: one request is outstanding at a
//! time, every request has a number, and replies to other numbers are dropped. When a reply does not come in time the
//! channel is broken for good, and every later request says why, because the guest may still be busy with the old one.

use super::error::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a reply may take after the guest has killed the script for its own deadline: base64 of a long
/// output in a slow guest, on a machine that others use too.
const REPLY_GRACE: Duration = Duration::from_secs(60);

/// The longest script that is sent as one request. The guest's shell holds the whole line in memory; larger data goes
/// in with the initramfs.
const LONGEST_SCRIPT: usize = 64 * 1024;

/// How much of a script an error shows.
const SHOWN_SCRIPT: usize = 500;

/// What a script in the guest left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// The exit status; 128 + N when signal N ended it.
    pub status: i32,
    /// Everything that it printed on stdout and stderr, in the order it was printed.
    pub stdout: Vec<u8>,
}

impl Output {
    /// The output as text, with what is not UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// The host's end of the virtio port.
pub(super) struct Control {
    stream: UnixStream,
    received: Vec<u8>,
    next_id: u64,
    broken: Option<String>,
}

impl Control {
    pub(super) fn new(stream: UnixStream) -> Control {
        Control { stream, received: Vec::new(), next_id: 1, broken: None }
    }

    /// Waits for the guest's first word.
    pub(super) fn wait_ready(&mut self, deadline: Instant) -> Result<()> {
        loop {
            if self.line(deadline)? == b"ready" {
                return Ok(());
            }
        }
    }

    /// Runs a shell script in the guest, which kills it (and what it started in its session) after `timeout`.
    pub(super) fn run(&mut self, script: &str, timeout: Duration) -> Result<Output> {
        if let Some(why) = &self.broken {
            return Err(Error::new(format!("the guest's control channel is broken since an earlier command: {why}")));
        }
        if script.len() > LONGEST_SCRIPT {
            return Err(Error::new(format!(
                "a script of {} bytes is too long for the control channel (at most {LONGEST_SCRIPT}): \
                 put the data into GuestConfig::files instead",
                script.len()
            )));
        }
        let seconds = timeout.as_secs().max(1);
        let started = Instant::now();
        let output = self.exchange(script, seconds).map_err(|error| {
            self.broken = Some(error.to_string());
            let shown: String = script.chars().take(SHOWN_SCRIPT).collect();
            error.with(format!("the command was ({} bytes):\n{shown}", script.len()))
        })?;
        if output.status == 128 + libc::SIGKILL && started.elapsed() >= Duration::from_secs(seconds) {
            return Err(Error::new(format!(
                "this ran longer than {seconds} s in the guest and was killed:\n{script}\nit had printed:\n{}",
                output.text()
            )));
        }
        Ok(output)
    }

    fn exchange(&mut self, script: &str, seconds: u64) -> Result<Output> {
        let id = self.next_id;
        self.next_id += 1;
        let deadline = Instant::now() + Duration::from_secs(seconds) + REPLY_GRACE;
        let request = format!("{id} {seconds} {}\n", encode(script.as_bytes()));
        self.stream
            .set_write_timeout(Some(REPLY_GRACE))
            .and_then(|()| self.stream.write_all(request.as_bytes()))
            .map_err(Error::during("sending a command to the guest"))?;
        let begin = format!("<{id}");
        while self.line(deadline)? != begin.as_bytes() {}
        let mut text = Vec::new();
        let end = format!(">{id} ");
        loop {
            let line = self.line(deadline)?;
            if let Some(status) = line.strip_prefix(end.as_bytes()) {
                let status = std::str::from_utf8(status).ok().and_then(|s| s.parse().ok());
                let status = status.ok_or_else(|| Error::new("the guest sent an exit status that is not a number"))?;
                let stdout = decode(&text).ok_or_else(|| Error::new("the guest's reply is not base64"))?;
                return Ok(Output { status, stdout });
            }
            text.extend_from_slice(&line);
        }
    }

    /// The next line, without its end.
    fn line(&mut self, deadline: Instant) -> Result<Vec<u8>> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.received.drain(..=end).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new("the guest did not answer in time"));
            }
            self.stream.set_read_timeout(Some(left)).map_err(Error::during("control channel"))?;
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Error::new("QEMU closed the control channel (it ended or the guest powered off)")),
                Ok(n) => self.received.extend_from_slice(&chunk[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::new(format!("reading the guest's control channel: {error}"))),
            }
        }
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding, in one line.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0u32, |word, &byte| word << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { digit as char } else { '=' });
        }
    }
    text
}

/// The reverse of [`encode`]; `None` when a character has no business there.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut word, mut bits) = (0u32, 0);
    for &character in text.iter().filter(|&&c| c != b'=') {
        let value = ALPHABET.iter().position(|&digit| digit == character)?;
        word = word << 6 | value as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Control, Duration, decode, encode};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn base64_is_what_the_guest_speaks() {
        assert_eq!(encode(b"uname -a"), "dW5hbWUgLWE=");
        assert_eq!(encode(b"ab"), "YWI=");
        assert_eq!(encode(b"a"), "YQ==");
        let all: Vec<u8> = (0..=255).collect();
        for length in 0..all.len() {
            assert_eq!(decode(encode(&all[..length]).as_bytes()).as_deref(), Some(&all[..length]));
        }
        assert_eq!(decode(b"YW*j"), None);
    }

    #[test]
    fn replies_to_other_requests_and_stray_lines_are_dropped() {
        let (host, guest) = UnixStream::pair().unwrap();
        let mut control = Control::new(host);
        let answer = std::thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(guest.try_clone().unwrap()).read_line(&mut line).unwrap();
            let text = format!("noise\n<0\nYQ==\n>0 0\r\n<1\n{}\n>1 3\n", encode(b"<1\n>1 0\n"));
            (&guest).write_all(text.as_bytes()).unwrap();
            line
        });
        let output = control.run("echo", Duration::from_secs(5)).unwrap();
        assert_eq!((output.status, output.stdout.as_slice()), (3, b"<1\n>1 0\n".as_slice()));
        assert_eq!(answer.join().unwrap(), "1 5 ZWNobw==\n");
    }

    #[test]
    fn a_channel_that_closed_stays_broken_and_says_why() {
        let (host, guest) = UnixStream::pair().unwrap();
        let mut control = Control::new(host);
        drop(guest);
        assert!(control.run("true", Duration::from_secs(1)).is_err());
        let second = control.run("true", Duration::from_secs(1)).unwrap_err().to_string();
        assert!(second.contains("broken since an earlier command"), "{second}");
    }
}
