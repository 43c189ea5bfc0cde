//! The mailbox: its registers, its memory, and when the PF looks at it (fact sheets igbvf 2.6, 3.1; ixgbevf 3, 3.4).
//!
//! What the PF answers is decided by the family's [`PfSide`]; this file is the transport between the two. The PF acts a little while
//! after it is rung, in the order in which it was rung, and waits while the VF owns the buffer. A reset of the VF it notices at
//! once, unless a fault says otherwise; what it was about to write then is still written.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::super::fault::{Fault, Faults};
use super::super::rng::Rng;
use super::family::PfSide;

// Bits of V2PMAILBOX and VFMAILBOX.
const REQ: u32 = 1 << 0;
const ACK: u32 = 1 << 1;
const VFU: u32 = 1 << 2;
const PFU: u32 = 1 << 3;
const PFSTS: u32 = 1 << 4;
const PFACK: u32 = 1 << 5;
const RSTI: u32 = 1 << 6;
const RSTD: u32 = 1 << 7;

/// How long the PF takes to look at its mail. Drivers poll every 500 us and give up after 1 s (igbvf 3.1, ixgbevf 3.4).
const PF_LATENCY: Duration = Duration::from_micros(20);
/// How long it then takes to answer: up to this much longer, so that drivers see ACK and answer in one read or in two.
const PF_LATENCY_MORE_US: u64 = 1000;
/// How long the PF waits for a buffer that the VF owns before it looks again.
const PF_RETRY: Duration = Duration::from_micros(10);

/// Something the PF is about to do.
enum Event {
    /// Notice that the VF was reset.
    Reset,
    /// The VF rang REQ: read the message, acknowledge it, act on it.
    Request,
    /// The VF rang ACK.
    Acknowledge,
    /// Write this message and set STS.
    Message(Vec<u32>),
}

/// V2PMAILBOX, VMBMEM and the PF's agenda.
#[derive(Default)]
pub(super) struct Mailbox {
    /// VFU, PFSTS, PFACK, RSTI and RSTD as they read.
    bits: u32,
    memory: [u32; 16],
    agenda: VecDeque<(Duration, Event)>,
}

/// What happened in a step of the mailbox.
#[derive(Default)]
pub(super) struct Step {
    /// The VF's mailbox interrupt fires.
    pub(super) interrupt: bool,
    /// Anything happened at all.
    pub(super) busy: bool,
}

impl Mailbox {
    /// A mailbox of a PF that came up before the VF: a stale RSTD waits to be read.
    pub(super) fn new() -> Self {
        Mailbox { bits: RSTD, ..Mailbox::default() }
    }

    /// A read of V2PMAILBOX, which clears PFSTS, PFACK and RSTD.
    pub(super) fn read(&mut self, faults: &Faults) -> u32 {
        let mut value = self.bits;
        self.bits &= !(PFSTS | PFACK | RSTD);
        if faults.has(Fault::RstiStuck) {
            value |= RSTI;
        }
        if faults.has(Fault::PfHoldsBuffer) {
            value |= PFU;
        }
        value
    }

    /// A write of V2PMAILBOX. Returns what the driver did wrong.
    pub(super) fn write(&mut self, value: u32, now: Duration, faults: &Faults) -> Result<Step, &'static str> {
        let owned = self.bits & VFU != 0;
        let mut step = Step::default();
        if value & VFU == 0 {
            self.bits &= !VFU;
        } else if !faults.has(Fault::PfHoldsBuffer) {
            self.bits |= VFU;
        }
        if value & REQ != 0 {
            self.agenda.push_back((now + PF_LATENCY, Event::Request));
            if faults.has(Fault::StsWithoutMessage) {
                self.bits |= PFSTS;
                step.interrupt = true;
            }
            if !owned {
                return Err("REQ written without owning the mailbox buffer (VFU)");
            }
        }
        if value & ACK != 0 {
            self.agenda.push_back((now + PF_LATENCY, Event::Acknowledge));
        }
        Ok(step)
    }

    pub(super) fn read_memory(&self, word: usize) -> u32 {
        self.memory.get(word).copied().unwrap_or(0)
    }

    /// A write of VMBMEM. Returns what the driver did wrong.
    pub(super) fn write_memory(&mut self, word: usize, value: u32) -> Result<(), &'static str> {
        if self.bits & VFU == 0 {
            return Err("mailbox buffer written without owning it (VFU)");
        }
        if let Some(slot) = self.memory.get_mut(word) {
            *slot = value;
        }
        Ok(())
    }

    /// A reset of the VF, by itself or as a function: flags and unread requests are dropped. The PF is in the middle of what it
    /// says.
    pub(super) fn vf_reset(&mut self, pf: &impl PfSide, now: Duration, faults: &Faults) {
        self.bits &= !(PFSTS | PFACK | VFU);
        self.agenda.retain(|(_, event)| matches!(event, Event::Message(_)));
        match faults.notice_delay() {
            Some(delay) => self.agenda.push_back((now + delay, Event::Reset)),
            None => self.noticed(pf),
        }
    }

    /// What the PF does when it notices a reset of the VF.
    fn noticed(&mut self, pf: &impl PfSide) {
        if pf.clears_memory() {
            self.memory = [0; 16];
        }
    }

    /// The PF goes down. A VF that owns the buffer keeps it.
    pub(super) fn pf_reset(&mut self) {
        self.bits = (self.bits & VFU) | RSTI;
        self.agenda.clear();
    }

    /// The PF is back: RSTI falls, RSTD is set once (CTRL_EXT.PFRSTD).
    pub(super) fn pf_reset_done(&mut self) {
        self.bits = (self.bits & !RSTI) | RSTD;
    }

    /// The PF means to send a message of its own.
    pub(super) fn post(&mut self, message: Vec<u32>, now: Duration) {
        self.agenda.push_back((now + PF_LATENCY, Event::Message(message)));
    }

    /// Lets the PF do what is due.
    pub(super) fn step(&mut self, now: Duration, rng: &mut Rng, pf: &mut impl PfSide, faults: &Faults) -> Step {
        let mut step = Step::default();
        while let Some((due, event)) = self.agenda.front_mut() {
            if *due > now {
                break;
            }
            // The PF reads and writes the buffer under PFU, which it cannot have while the VF holds VFU.
            let needs_buffer = match event {
                Event::Request => !pf.reads_owned_buffer(),
                Event::Acknowledge | Event::Reset => false,
                Event::Message(_) => true,
            };
            if self.bits & VFU != 0 && needs_buffer {
                *due = now + PF_RETRY;
                break;
            }
            step.busy = true;
            let Some((_, event)) = self.agenda.pop_front() else { break };
            if self.bits & RSTI != 0 {
                continue; // a PF in reset reads no mail
            }
            match event {
                Event::Reset => self.noticed(pf),
                Event::Request => {
                    if !faults.has(Fault::LoseAck) {
                        self.bits |= PFACK;
                        step.interrupt = true;
                    }
                    if let Some(reply) = pf.request(&self.memory, now, faults)
                        && !faults.has(Fault::LoseReply)
                        && !faults.has(Fault::StsWithoutMessage)
                    {
                        let more = Duration::from_micros(rng.below(PF_LATENCY_MORE_US)) + faults.reply_delay();
                        self.agenda.push_front((now + PF_LATENCY + more, Event::Message(reply)));
                    }
                }
                Event::Acknowledge => {
                    if let Some(reply) = pf.acknowledged(now) {
                        self.agenda.push_front((now + PF_LATENCY, Event::Message(reply)));
                    }
                }
                Event::Message(words) => {
                    for (slot, word) in self.memory.iter_mut().zip(words) {
                        *slot = if faults.has(Fault::GarbageReply) { 0x5bad_c0de } else { word };
                    }
                    self.bits |= PFSTS;
                    step.interrupt = true;
                }
            }
        }
        step
    }
}
