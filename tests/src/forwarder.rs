//! l2fwd in a guest, between the two sides of a [`Bench`]: start, watch, end, and what it reported.
//!
//! It always runs with `--json`, so that its last word is an object with every counter. What always holds: a
//! [`Forwarder`] that was started has said that it forwards, and [`stop`](Forwarder::stop) gives no report of one that
//! failed, lost a buffer or did not end by itself.

use crate::build::complete_example;
use crate::vm::{Bench, Error, Mac, PacedSender, Process, Received, Receiver, Result, Testbed, TestbedConfig, poll};
use serde_json::Value;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// l2fwd in the guest.
pub const PROGRAM: &str = "/bin/l2fwd";

/// What it prints once it forwards.
const READY: &str = "Ctrl-C stops";

/// Two resets of VFs and as many handshakes take a second under emulation; the machine may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Twice its own deadline for stopping both ports, and then some.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// What nothing takes longer than on its way through the guest.
const QUIET: Duration = Duration::from_secs(1);

/// A testbed that has l2fwd.
pub fn testbed(config: TestbedConfig) -> Result<Testbed> {
    Testbed::boot(config.file(complete_example("l2fwd")?, PROGRAM))
}

/// The command line that forwards between both VFs, to the MAC addresses of the far ends.
pub fn command(bed: &Bench, options: &str) -> String {
    let (a, b) = (&bed.a, &bed.b);
    let peers = format!("--peer-mac 0,{} --peer-mac 1,{}", a.tap.mac, b.tap.mac);
    format!("{PROGRAM} --json --stats-period 0 --port {} --port {} {peers} {options}", a.vf, b.vf)
}

/// A running l2fwd.
pub struct Forwarder<'a> {
    bed: &'a Bench,
    process: Process,
}

impl<'a> Forwarder<'a> {
    /// Starts it as root, and returns when it forwards.
    pub fn start(bed: &'a Bench, options: &str) -> Result<Forwarder<'a>> {
        Forwarder::spawn(bed, &format!("exec {}", command(bed, options)))
    }

    /// The same by a script that ends in its [`command`].
    pub fn spawn(bed: &'a Bench, script: &str) -> Result<Forwarder<'a>> {
        let process = bed.guest.spawn(script)?;
        bed.guest.wait_log(&process, READY, START_TIMEOUT)?;
        Ok(Forwarder { bed, process })
    }

    /// Its process number in the guest.
    pub fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Waits until it has printed this.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<()> {
        self.bed.guest.wait_log(&self.process, text, timeout)
    }

    /// Interrupts it as Ctrl-C does. It must end with status 0 and every buffer at home.
    pub fn stop(self) -> Result<Report> {
        let guest = &self.bed.guest;
        guest.signal(&self.process, "INT")?;
        let status = guest.wait(&self.process, STOP_TIMEOUT)?;
        let log = guest.log(&self.process)?;
        let broken = |what: &str| Error::new(format!("l2fwd {what}; it printed:\n{log}"));
        let json = log.lines().rev().find(|line| line.starts_with('{')).ok_or_else(|| broken("printed no JSON"))?;
        let report = Report(serde_json::from_str(json).map_err(|error| broken(&format!("printed bad JSON: {error}")))?);
        match (status, report.number("/pool/lost")) {
            (0, 0) => Ok(report),
            (0, lost) => Err(broken(&format!("lost {lost} buffers"))),
            (status, _) => Err(broken(&format!("ended with status {status}"))),
        }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(self) -> Result<()> {
        self.bed.guest.kill(&self.process)
    }
}

/// What l2fwd said at its end.
#[derive(Debug)]
pub struct Report(Value);

impl Report {
    /// A number by its path, such as `/ports/0/rx/packets`.
    pub fn number(&self, path: &str) -> u64 {
        let found = self.0.pointer(path).and_then(Value::as_u64);
        found.unwrap_or_else(|| panic!("no number {path} in {}", self.0))
    }

    /// Whether the packet buffers were on hugepages.
    pub fn on_hugepages(&self) -> bool {
        self.0.pointer("/pool/hugepages") == Some(&Value::Bool(true))
    }
}

/// A direction through the forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In at port 0, out of port 1.
    AToB,
    /// In at port 1, out of port 0.
    BToA,
}

impl Way {
    /// Counts what comes out.
    pub fn receiver(self, bed: &Bench) -> Result<Receiver> {
        let to = match self {
            Way::AToB => &bed.b,
            Way::BToA => &bed.a,
        };
        Receiver::start(&to.namespace, &to.tap.name, self.stream())
    }

    /// Sends what goes in.
    pub fn sender(self, bed: &Bench) -> PacedSender {
        let from = match self {
            Way::AToB => &bed.a,
            Way::BToA => &bed.b,
        };
        PacedSender::new(&from.namespace, &from.tap.name, from.tap.mac, from.vf_mac).stream(self.stream())
    }

    /// The addresses of what must come out: destination and source.
    pub fn addresses(self, bed: &Bench) -> (Mac, Mac) {
        match self {
            Way::AToB => (bed.b.tap.mac, bed.b.vf_mac),
            Way::BToA => (bed.a.tap.mac, bed.a.vf_mac),
        }
    }

    fn stream(self) -> u32 {
        match self {
            Way::AToB => 0xA0,
            Way::BToA => 0xB0,
        }
    }
}

/// Frames both ways, without a pause until the end, whether somebody forwards them or not.
pub struct Traffic {
    receivers: [Receiver; 2],
    senders: Vec<JoinHandle<Result<()>>>,
    stop: StopOnDrop,
}

/// Ends the senders, also when a test fails.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    /// Starts sending `rate` frames a second each way.
    pub fn start(bed: &Bench, rate: u32) -> Result<Traffic> {
        let ways = [Way::AToB, Way::BToA];
        let stop = Arc::new(AtomicBool::new(false));
        let receivers = [ways[0].receiver(bed)?, ways[1].receiver(bed)?];
        let send = |way: Way| {
            let (sender, stop) = (way.sender(bed).rate(rate), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    sender.send_for(Duration::from_millis(200))?;
                }
                Ok(())
            })
        };
        let senders = ways.into_iter().map(send).collect();
        Ok(Traffic { receivers, senders, stop: StopOnDrop(stop) })
    }

    /// Frames that came out intact so far, of each way.
    pub fn arrived(&self) -> [u64; 2] {
        [self.receivers[0].frames(), self.receivers[1].frames()]
    }

    /// Waits until so many more frames have come out than `before`, of both ways.
    pub fn wait_for_more(&self, before: [u64; 2], count: u64, timeout: Duration) -> Result<()> {
        poll("frames to come out of both sides", timeout, Duration::from_millis(5), || {
            let now = self.arrived();
            Ok((now[0] >= before[0] + count && now[1] >= before[1] + count).then_some(()))
        })
        .map_err(|error| error.with(format!("before: {before:?}, now: {:?}", self.arrived())))
    }

    /// Stops sending; what came out of each way.
    pub fn finish(self) -> Result<[Received; 2]> {
        drop(self.stop);
        for sender in self.senders {
            sender.join().map_err(|_| Error::new("a sender panicked"))??;
        }
        let [to_b, to_a] = self.receivers;
        Ok([to_b.finish(QUIET)?, to_a.finish(QUIET)?])
    }
}
