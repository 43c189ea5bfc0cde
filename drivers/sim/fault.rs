//! How a model misbehaves on request: the list of faults of the design (6.5), and their state at a port.
//!
//! Faults add up; they last until [`World::clear_faults`](super::World::clear_faults). What always holds: a faulty
//! model lies in values and in time, and never touches memory outside a mapping or a buffer that it was not given.
#![forbid(unsafe_code)]

use std::time::Duration;

/// One way for a modelled device or its PF to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Descriptors are written back this much later than they are completed.
    DelayCompletions(Duration),
    /// Word 0 of a descriptor is written at once, the word with DD and the length this much later.
    PartialWriteback(Duration),
    /// Descriptors are completed and never written back.
    StuckDone,
    /// Received frames claim this length in each of their descriptors, whatever the buffer's.
    LyingLength(u16),
    /// Received frames are marked with a frame error (RXE).
    RxError,
    /// The PF resets at the n-th register access from now (1 = the next), and is back 20 ms later.
    PfResetAtAccess(u64),
    /// From the n-th register access from now on every read returns all ones: the device is gone.
    AllOnesFromAccess(u64),
    /// The host reset the function behind the driver's back: registers at their defaults, Bus Master off, and
    /// BAR reads return 0 until Bus Master is set again. Happens once, when the fault is set.
    ConfigLost,
    /// The PF answers requests with this id with NACK and does nothing.
    NackRequest(u16),
    /// The PF never acknowledges a request, but replies to it.
    LoseAck,
    /// The PF acknowledges requests and never replies.
    LoseReply,
    /// The PF's replies hold rubbish.
    GarbageReply,
    /// The PF signals a message (STS) at once with every request, before it wrote one; none follows.
    StsWithoutMessage,
    /// RSTI reads 1 for ever, as if the PF never came back from its reset.
    RstiStuck,
    /// The PF goes into reset now and is back after this long.
    PfResetFor(Duration),
    /// The PF keeps the mailbox buffer (PFU), so that the VF cannot have it.
    PfHoldsBuffer,
    /// Clearing ENABLE of a queue has no effect.
    EnableStuck,
    /// The link goes down and up again, each time after this long.
    LinkFlaps(Duration),
    /// The administrator of the host disabled the VF's link: no frame passes, and the VF has to ask for everything anew. The
    /// VF's link register still shows the cable; an ixgbe PF says so when it is asked.
    LinkDisabled,
    /// An ixgbe PF answers GET_QUEUES with these words: transmit queues, receive queues, traffic classes, default queue.
    QueueReply([u32; 4]),
    /// The PF's replies come this much later.
    LateReplies(Duration),
    /// The PF notices a reset of the VF this much later, and does nothing else before. That of an X550 or an E610 clears the
    /// mailbox buffer then.
    LateNotice(Duration),
    /// The PF's replies are cut to so many bytes.
    ShortReplies(u16),
    /// The PF's replies have so many bytes too many.
    LongReplies(u16),
    /// Messages of the PF claim this length in their descriptors, whatever the buffer's (admin queues).
    LyingReplyLength(u16),
    /// Before each reply comes one to a request that was not made: this opcode.
    StrayReplies(u32),
    /// Before each reply comes an event with this code.
    StrayEvents(u32),
    /// The first thing that a VF hears from the PF after a reset is the announcement of that reset.
    StaleEvents,
    /// The PF announces a reset that does not come. Happens once, when the fault is set.
    FalseAlarm,
    /// The PF pays no attention to a VF's request to be reset.
    ResetIgnored,
    /// The PF grants so many queue pairs and vectors, whatever the VF has.
    Resources {
        /// Queue pairs.
        queues: u16,
        /// Vectors.
        vectors: u16,
    },
}

/// The faults of a port and what they need to remember.
#[derive(Default)]
pub(super) struct Faults {
    list: Vec<Fault>,
    accesses: u64,
    /// Number of the access at which the PF resets.
    reset_at: Option<u64>,
    /// Number of the access from which on reads return all ones.
    ones_from: Option<u64>,
}

impl Faults {
    pub(super) fn set(&mut self, fault: Fault) {
        match fault {
            Fault::PfResetAtAccess(n) => self.reset_at = Some(self.accesses + n.max(1)),
            Fault::AllOnesFromAccess(n) => self.ones_from = Some(self.accesses + n.max(1)),
            other => self.list.push(other),
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Faults { accesses: self.accesses, ..Faults::default() };
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.list.contains(&fault)
    }

    /// Register accesses so far.
    pub(super) fn accesses(&self) -> u64 {
        self.accesses
    }

    /// Counts a register access; true when the PF is to reset at it.
    pub(super) fn on_access(&mut self) -> bool {
        self.accesses += 1;
        let reset = self.reset_at == Some(self.accesses);
        if reset {
            self.reset_at = None;
        }
        reset
    }

    /// True when the device no longer answers.
    pub(super) fn gone(&self) -> bool {
        self.ones_from.is_some_and(|n| self.accesses >= n)
    }

    /// When and how a descriptor is written back, if not normally.
    #[inline]
    pub(super) fn writeback(&self) -> Option<Fault> {
        self.list
            .iter()
            .find(|f| matches!(f, Fault::DelayCompletions(_) | Fault::PartialWriteback(_) | Fault::StuckDone))
            .copied()
    }

    pub(super) fn lying_length(&self) -> Option<u16> {
        self.list.iter().find_map(|f| if let Fault::LyingLength(n) = f { Some(*n) } else { None })
    }

    pub(super) fn queue_reply(&self) -> Option<[u32; 4]> {
        self.list.iter().find_map(|f| if let Fault::QueueReply(words) = f { Some(*words) } else { None })
    }

    /// How much later the PF replies.
    pub(super) fn reply_delay(&self) -> Duration {
        self.list.iter().find_map(|f| if let Fault::LateReplies(d) = f { Some(*d) } else { None }).unwrap_or_default()
    }

    /// How much later the PF notices a reset of the VF.
    pub(super) fn notice_delay(&self) -> Option<Duration> {
        self.list.iter().find_map(|f| if let Fault::LateNotice(d) = f { Some(*d) } else { None })
    }

    /// Bytes that replies have too many.
    pub(super) fn longer_replies(&self) -> usize {
        self.list.iter().find_map(|f| if let Fault::LongReplies(n) = f { Some(*n as usize) } else { None }).unwrap_or(0)
    }

    /// A reply's payload as the VF gets it.
    pub(super) fn mangle(&self, mut payload: Vec<u8>) -> Vec<u8> {
        if self.has(Fault::GarbageReply) {
            payload.fill(0xa5);
        }
        if let Some(n) = self.list.iter().find_map(|f| if let Fault::ShortReplies(n) = f { Some(*n) } else { None }) {
            payload.truncate(n as usize);
        }
        payload.resize(payload.len() + self.longer_replies(), 0x5a);
        payload
    }

    pub(super) fn lying_reply_length(&self) -> Option<u16> {
        self.list.iter().find_map(|f| if let Fault::LyingReplyLength(n) = f { Some(*n) } else { None })
    }

    pub(super) fn stray_reply(&self) -> Option<u32> {
        self.list.iter().find_map(|f| if let Fault::StrayReplies(opcode) = f { Some(*opcode) } else { None })
    }

    pub(super) fn stray_event(&self) -> Option<u32> {
        self.list.iter().find_map(|f| if let Fault::StrayEvents(code) = f { Some(*code) } else { None })
    }

    /// Queue pairs and vectors that the PF grants instead of its own.
    pub(super) fn resources(&self) -> Option<(u16, u16)> {
        self.list.iter().find_map(|f| match f {
            Fault::Resources { queues, vectors } => Some((*queues, *vectors)),
            _ => None,
        })
    }

    pub(super) fn flap_period(&self) -> Option<Duration> {
        self.list.iter().find_map(|f| if let Fault::LinkFlaps(d) = f { Some(*d) } else { None })
    }
}
