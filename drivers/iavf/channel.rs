//! The conversation with the PF: one request at a time, its reply, and the events that come in between.
//!
//! Owns the admin queue's use and what the PF said unasked (link, a reset to come). `port.rs` and `negotiate.rs` call
//! it. What always holds: one request is outstanding at most, because PFs take many for an attack; no wait is longer
//! than its deadline; after one unanswered request, or a sign of a reset, every later one fails at once until the channel
//! is opened anew; a refusal is an answer, not a failure of the transport.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::adminq::{AdminQueue, Received};
use super::virtchnl::{Event, Opcode, Stats, parse_event, parse_stats, status_text};
use crate::error::{Error, Result};
use crate::mmio::Bus;
use crate::port::device::Link;

/// Longest wait for a reply: 2000 polls of 1 ms (fact sheet iavf 4.1, DPDK's: the longest of all drivers).
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
const ANSWER_POLL: Duration = Duration::from_millis(1);
/// How long a reader of statistics waits for them; later ones count when they come. PFs answer within a millisecond or two.
const STATS_PATIENCE: Duration = Duration::from_millis(20);

/// Whether requests may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The PF answers, and has not granted resources yet. Announcements of a reset are of one that is over.
    Opening,
    /// The PF answers.
    Open,
    /// A request went unanswered. An i40e PF that has disabled the VF as malicious is silent, too.
    Silent,
    /// The PF announced a reset of the VF; when that was.
    Impending(Duration),
    /// The VF was reset, or the channel was never opened.
    Lost,
}

/// The PF's answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// 0 where the PF did what was asked.
    pub status: i32,
    pub payload: Vec<u8>,
}

/// A request whose reply `poll` waits for.
#[derive(Clone, Copy, Debug)]
struct Pending {
    opcode: Opcode,
    deadline: Duration,
}

/// The VF's end of the conversation.
pub(super) struct Channel {
    queue: Option<AdminQueue>,
    state: State,
    pending: Option<Pending>,
    /// Speeds of link events are in Mb/s.
    pub(super) advanced_speed: bool,
    /// The link, as the PF said last.
    pub(super) link: Link,
    /// Statistics that came and that nobody has taken.
    pub(super) stats: Option<Stats>,
}

impl Channel {
    /// A channel before it is opened: requests fail.
    pub(super) fn new() -> Self {
        Channel {
            queue: None,
            state: State::Lost,
            pending: None,
            advanced_speed: false,
            link: Link::default(),
            stats: None,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Opens the channel over admin queues that are set up anew.
    ///
    /// # Errors
    /// Those of [`AdminQueue::new`] and [`AdminQueue::start`].
    pub(super) fn open<B: Bus>(&mut self, bus: &mut B) -> Result<()> {
        self.close(bus);
        if self.queue.is_none() {
            self.queue = Some(AdminQueue::new(bus)?);
        }
        if let Some(queue) = &mut self.queue {
            queue.start(bus)?;
        }
        self.state = State::Opening;
        Ok(())
    }

    /// The PF has granted resources: from now on its events are about this life of the VF.
    pub(super) fn established(&mut self) {
        self.state = State::Open;
    }

    /// Forgets everything and forbids requests; the device is no longer told of the queues.
    pub(super) fn close<B: Bus>(&mut self, bus: &mut B) {
        if let Some(queue) = &mut self.queue {
            queue.stop(bus);
        }
        self.state = State::Lost;
        self.pending = None;
        self.link = Link::default();
        self.stats = None;
    }

    /// False when a reset has switched the admin queues off, or they never were on.
    ///
    /// # Errors
    /// [`Error::Gone`] only.
    pub(super) fn is_on<B: Bus>(&mut self, bus: &mut B) -> Result<bool> {
        match &self.queue {
            Some(queue) => queue.is_on(bus),
            None => Ok(false),
        }
    }

    /// Sends a request that nothing answers, or whose reply [`poll`](Self::poll) is to find.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the channel is not open or the PF takes nothing; [`Error::Gone`].
    pub(super) fn send<B: Bus>(&mut self, bus: &mut B, opcode: Opcode, payload: &[u8]) -> Result<()> {
        let deadline = bus.now() + ANSWER_DEADLINE;
        match &mut self.queue {
            Some(queue) if matches!(self.state, State::Opening | State::Open) => {
                queue.send(bus, opcode as u32, payload)?
            }
            _ => return Err(self.unusable(bus, opcode)),
        }
        self.pending = Some(Pending { opcode, deadline });
        Ok(())
    }

    /// Takes what the PF has said. Returns the reply to the outstanding request if it is there. Never waits.
    ///
    /// # Errors
    /// [`Error::Gone`]; [`Error::Timeout`] once the reply's deadline is over or the VF was reset.
    pub(super) fn poll<B: Bus>(&mut self, bus: &mut B) -> Result<Option<Reply>> {
        let on = self.is_on(bus)?;
        let Some(queue) = self.queue.as_mut().filter(|_| on) else {
            self.state = State::Lost;
            return match self.pending.take() {
                Some(pending) => Err(self.unusable(bus, pending.opcode)),
                None => Ok(None),
            };
        };
        // A PF that floods the queue must not hold us.
        for _ in 0..super::adminq::ENTRIES {
            let Some(Received { opcode, status, payload }) = queue.receive(bus) else { break };
            if opcode == Opcode::Event as u32 {
                match parse_event(&payload, self.advanced_speed) {
                    Event::Link { up, speed_mbps } => {
                        let speed_mbps = if up { speed_mbps } else { 0 };
                        self.link = Link { up, speed_mbps, full_duplex: up };
                    }
                    Event::ResetImpending if self.state == State::Open => self.state = State::Impending(bus.now()),
                    Event::ResetImpending | Event::Other => {}
                }
                continue;
            }
            // What answers nothing that was asked is dropped.
            let Some(pending) = self.pending.take_if(|pending| pending.opcode as u32 == opcode) else { continue };
            if pending.opcode == Opcode::GetStats {
                self.stats = parse_stats(&payload).filter(|_| status == 0);
            }
            return Ok(Some(Reply { status, payload }));
        }
        let Some(pending) = self.pending else { return Ok(None) };
        if let State::Impending(_) = self.state {
            self.pending = None;
            return Err(self.unusable(bus, pending.opcode));
        }
        if bus.now() < pending.deadline {
            return Ok(None);
        }
        self.pending = None;
        self.state = State::Silent;
        let what = format!(
            "{:?}: no answer from the PF within {} s; is its driver loaded and its interface healthy? See `dmesg` on the \
             host",
            pending.opcode,
            ANSWER_DEADLINE.as_secs()
        );
        Err(Error::timeout(bus.name(), what))
    }

    /// Forgets the outstanding request: a PF that refuses it in silence is no silent PF.
    pub(super) fn give_up(&mut self) {
        self.pending = None;
        if self.state == State::Silent {
            self.state = State::Open;
        }
    }

    /// Sends a request and waits for the PF's answer to it.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the PF does not answer within the deadline, did not answer before, or resets the VF: only
    /// opening the channel anew helps then. [`Error::Gone`].
    pub(super) fn request<B: Bus>(&mut self, bus: &mut B, opcode: Opcode, payload: &[u8]) -> Result<Reply> {
        self.settle(bus)?;
        self.send(bus, opcode, payload)?;
        self.wait(bus)
    }

    /// Waits until nothing is outstanding.
    fn settle<B: Bus>(&mut self, bus: &mut B) -> Result<()> {
        if self.pending.is_some() { self.wait(bus).map(drop) } else { Ok(()) }
    }

    fn wait<B: Bus>(&mut self, bus: &mut B) -> Result<Reply> {
        loop {
            if let Some(reply) = self.poll(bus)? {
                return Ok(reply);
            }
            bus.pause(ANSWER_POLL);
        }
    }

    /// As [`request`](Self::request), and a refusal is an error that says `refusal` and why.
    ///
    /// # Errors
    /// As there; [`Error::Device`] for a refusal.
    pub(super) fn demand<B: Bus>(
        &mut self,
        bus: &mut B,
        opcode: Opcode,
        payload: &[u8],
        refusal: &str,
    ) -> Result<Vec<u8>> {
        let reply = self.request(bus, opcode, payload)?;
        match reply.status {
            0 => Ok(reply.payload),
            status => Err(Error::device(bus.name(), format!("{refusal} ({opcode:?}: {})", status_text(status)))),
        }
    }

    /// Asks for the statistics and waits a moment for them; they come to `stats`, at once or at a later poll.
    ///
    /// # Errors
    /// As [`poll`](Self::poll).
    pub(super) fn ask_stats<B: Bus>(&mut self, bus: &mut B, request: &[u8]) -> Result<()> {
        let patience = bus.now() + STATS_PATIENCE;
        // The answer to an earlier caller, who did not wait for it, tells of then.
        let mut asked = false;
        loop {
            if self.pending.is_none() {
                if asked {
                    return Ok(());
                }
                self.send(bus, Opcode::GetStats, request)?;
                asked = true;
            }
            self.poll(bus)?;
            if self.pending.is_some() {
                if bus.now() >= patience {
                    return Ok(());
                }
                bus.pause(ANSWER_POLL);
            }
        }
    }

    fn unusable<B: Bus>(&self, bus: &B, opcode: Opcode) -> Error {
        let reason = match self.state {
            State::Opening | State::Open | State::Lost => "the VF was reset",
            State::Silent => "an earlier message to the PF went unanswered",
            State::Impending(_) => "the PF is about to reset the VF",
        };
        Error::timeout(bus.name(), format!("{opcode:?}: {reason}; try again once the port has recovered"))
    }
}
