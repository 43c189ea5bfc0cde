//! QEMU's monitor, and the register writes that QEMU traces through it.
//!
//! The other end speaks QMP: one JSON object a line, first a greeting, then an answer to each command, events in between.
//! Traced events go into a file of the guest's folder, a line each. Nothing is traced unless somebody asks, since each line
//! costs QEMU a system call, which shows in the rates of what it emulates.

use super::error::{Error, Result};
use super::guest::Guest;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

/// QEMU's main loop answers in between of what it emulates; the machine may be busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// What QEMU calls a write to a register of an `igb`. It names the PF's register behind one of a VF.
const REGISTER_WRITE: &str = "e1000e_core_write";

/// The host's end of the monitor.
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
    trace: PathBuf,
    greeted: bool,
}

/// How often each register of the guest's `igb` NICs was written, by its offset in the BAR of a PF. NICs are not told apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterWrites(BTreeMap<u64, u64>);

impl RegisterWrites {
    /// Writes to the register at this offset.
    pub fn at(&self, offset: u64) -> u64 {
        self.0.get(&offset).copied().unwrap_or(0)
    }

    /// Counts the lines of a trace. The offset is the first number of each.
    fn count(trace: impl BufRead) -> Result<RegisterWrites> {
        let mut writes = BTreeMap::new();
        for line in trace.lines() {
            let line = line.map_err(Error::during("reading QEMU's trace"))?;
            if let Some((_, rest)) = line.split_once(REGISTER_WRITE) {
                let number = rest.split_once("0x").map(|(_, rest)| rest.split([',', ' ']).next().unwrap_or_default());
                let offset = number.and_then(|number| u64::from_str_radix(number, 16).ok());
                let offset =
                    offset.ok_or_else(|| Error::new(format!("QEMU traced what names no register: {line:?}")))?;
                *writes.entry(offset).or_insert(0) += 1;
            }
        }
        Ok(RegisterWrites(writes))
    }
}

impl Monitor {
    pub(super) fn new(stream: UnixStream, trace: PathBuf) -> Monitor {
        Monitor { stream: BufReader::new(stream), trace, greeted: false }
    }

    /// Gives a command and waits for its answer.
    fn execute(&mut self, command: &str, arguments: Value) -> Result<()> {
        if !self.greeted {
            self.stream.get_ref().set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(Error::during("QEMU's monitor"))?;
            self.greeted = true;
            // It takes no other command before.
            self.execute("qmp_capabilities", json!({}))?;
        }
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream.get_mut(), "{request}").map_err(Error::during(format!("sending {command} to QEMU")))?;
        loop {
            let mut line = String::new();
            let read =
                self.stream.read_line(&mut line).map_err(Error::during(format!("waiting for QEMU's {command}")))?;
            if read == 0 {
                return Err(Error::new(format!("QEMU closed its monitor before it answered {command}")));
            }
            let answer: Value = serde_json::from_str(&line).map_err(Error::during("QEMU's monitor"))?;
            if let Some(error) = answer.get("error") {
                return Err(Error::new(format!("QEMU refuses {request}: {error}")));
            }
            if answer.get("return").is_some() {
                return Ok(());
            }
        }
    }

    fn trace(&mut self, event: &str, on: bool) -> Result<()> {
        self.execute("trace-event-set-state", json!({"name": event, "enable": on}))
    }
}

impl Guest {
    /// Runs `work` and counts the register writes of the guest meanwhile, by its programs and its kernel.
    pub fn register_writes<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, RegisterWrites)> {
        let mut monitor = self.monitor.lock().unwrap_or_else(PoisonError::into_inner);
        let path = monitor.trace.clone();
        let opened = File::open(&path).and_then(|mut file| file.seek(SeekFrom::End(0)).map(|_| file));
        let mut trace = opened.map_err(Error::during(path.display()))?;
        monitor.trace(REGISTER_WRITE, true)?;
        let result = work();
        monitor.trace(REGISTER_WRITE, false)?;
        let mut lines = Vec::new();
        trace.read_to_end(&mut lines).map_err(Error::during(path.display()))?;
        Ok((result?, RegisterWrites::count(lines.as_slice())?))
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Monitor, PathBuf, RegisterWrites, json};
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn lines_of_other_events_are_not_register_writes() {
        let trace = "e1000e_core_write Write to register 0x2818, 4 byte(s), value: 0x1f\n\
                     e1000e_rx_set_rdt Setting RX 0 queue's RDT to 31\n\
                     12@1.5:e1000e_core_write Write to register 0x3818, 4 byte(s), value: 0x2818\n\
                     e1000e_core_write Write to register 0x2818, 4 byte(s), value: 0x3f\n";
        let writes = RegisterWrites::count(trace.as_bytes()).unwrap();
        assert_eq!((writes.at(0x2818), writes.at(0x3818), writes.at(0x1f)), (2, 1, 0));
        assert!(RegisterWrites::count("e1000e_core_write Write".as_bytes()).is_err());
    }

    #[test]
    fn greetings_and_events_are_no_answers_and_refusals_are_errors() {
        let (host, qemu) = UnixStream::pair().unwrap();
        qemu.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let answers = std::thread::spawn(move || {
            let mut commands = BufReader::new(qemu.try_clone().unwrap()).lines();
            (&qemu).write_all(b"{\"QMP\": {}}\n").unwrap();
            let mut seen = Vec::new();
            for answer in [
                "{\"return\": {}}",
                "{\"event\": \"RESUME\"}\n{\"return\": {}}",
                "{\"error\": {\"desc\": \"no such event\"}}",
            ] {
                seen.push(commands.next().unwrap().unwrap());
                (&qemu).write_all(format!("{answer}\n").as_bytes()).unwrap();
            }
            seen
        });
        let mut monitor = Monitor::new(host, PathBuf::new());
        monitor.execute("one", json!({})).unwrap();
        let refusal = monitor.trace("two", true).unwrap_err().to_string();
        assert!(refusal.contains("no such event"), "{refusal}");
        let seen = answers.join().unwrap();
        assert!(
            seen[0].contains("qmp_capabilities") && seen[1].contains("one") && seen[2].contains("\"two\""),
            "{seen:?}"
        );
    }
}
