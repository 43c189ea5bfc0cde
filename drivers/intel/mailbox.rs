//! The mailbox that igb's and ixgbe's VFs share with their PFs: sixteen words and a control register, and the protocol over
//! them (fact sheets igbvf 2.6 and 3, ixgbevf 3; the register blocks lie elsewhere and the bits are the same).
//!
//! Owns every access to the control register and the buffer, because each read of the former destroys three event bits:
//! they are kept here until somebody consumes them. A family calls [`Mailbox::handshake`] after a reset,
//! [`Mailbox::request`] for settings, [`Mailbox::service`] from the periodic check.
//!
//! What always holds: no wait is longer than its deadline; after one unanswered message, or a sign that the PF forgot
//! this VF, every later request fails at once until the next handshake; a refusal (NACK) of a VF that is
//! clear to send is an answer, not a failure of the transport.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::request::{ACK, CONTROL, CTS, ID_MASK, NACK, RESET, Request};
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::{ALL_ONES, Bus, Reg};

/// Longest wait for PFACK, and again for the answer: 2000 polls of 500 us (fact sheets igbvf 3.1 steps 5, 6,
/// ixgbevf 3.4).
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
const ANSWER_POLL: Duration = Duration::from_micros(500);
/// The first pause between two polls, each of which is twice the one before until they are [`ANSWER_POLL`]: a PF that is not
/// busy answers in its interrupt, which takes some tens of microseconds (our choice; any poll is harmless).
const ANSWER_FIRST_POLL: Duration = Duration::from_micros(20);

/// How much longer an answer to a reset request is waited for once the PF has said something else, which it may have written over
/// the answer: as long as other drivers wait for the answer in any case (fact sheets igbvf 3.4 step 4, ixgbevf 3.5 step 7).
const OVERWRITTEN: Duration = Duration::from_millis(10);

/// What differs between the families' mailboxes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Protocol {
    /// The control register: V2PMAILBOX, VFMAILBOX.
    pub(crate) control: Reg,
    /// Word 0 of the buffer: VMBMEM, VFMBMEM.
    pub(crate) buffer: Reg,
    /// Attempts to take the buffer, and the pause between them.
    pub(crate) ownership_tries: u32,
    pub(crate) ownership_pause: Duration,
    /// The PF's acknowledgement of a request is awaited before its answer.
    pub(crate) awaits_acknowledgement: bool,
}

impl Protocol {
    /// Word i of the buffer; touched only while VFU is ours.
    fn word(&self, i: usize) -> Reg {
        Reg(self.buffer.0 + 4 * i as u32)
    }
}

bitflags::bitflags! {
    /// Bits of V2PMAILBOX and VFMAILBOX (fact sheets igbvf 2.6, ixgbevf 3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct V2pMailbox: u32 {
        /// Tells the PF that the buffer holds a request; releases VFU unless written with it.
        const REQ = 1 << 0;
        /// Tells the PF that its message was read; releases VFU unless written with it.
        const ACK = 1 << 1;
        /// The VF owns the buffer.
        const VFU = 1 << 2;
        /// The PF owns the buffer.
        const PFU = 1 << 3;
        /// The PF wrote a message. Cleared by reading.
        const PFSTS = 1 << 4;
        /// The PF read our message. Cleared by reading.
        const PFACK = 1 << 5;
        /// The PF is in reset: a level.
        const RSTI = 1 << 6;
        /// The PF finished a reset: an event. Cleared by reading.
        const RSTD = 1 << 7;
        /// The bits that every read destroys.
        const READ_TO_CLEAR = Self::PFSTS.bits() | Self::PFACK.bits() | Self::RSTD.bits();
        const _ = !0;
    }
}

/// What the PF answered to a reset request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// The address that the PF assigned, if any.
    pub(crate) mac: Option<MacAddr>,
    /// The fourth word of the answer.
    pub(crate) word3: u32,
}

impl Greeting {
    /// The answer to a reset request, by its first words; `None` for another message.
    fn parse([word0, low, high, word3]: [u32; 4]) -> Option<Greeting> {
        // The answer has no CTS; other PFs may set it.
        let mac = match word0 & !CTS {
            word if word == RESET | ACK => {
                let ([a, b, c, d], [e, f, ..]) = (low.to_le_bytes(), high.to_le_bytes());
                Some(MacAddr([a, b, c, d, e, f])).filter(|mac| mac.is_valid_station())
            }
            word if word == RESET | NACK => None,
            _ => return None,
        };
        Some(Greeting { mac, word3 })
    }
}

/// True for a refusal of a message of zeros: the PF found the buffer empty. Intel's ixgbe driver clears that of an X550 or later
/// when it notices a reset of the VF, with the request that has been put in since (fact sheet ixgbevf 6).
fn refuses_nothing(word0: u32) -> bool {
    word0 & !CTS == NACK
}

/// True when the PF did what was asked (ACK), by word 0 of its answer; otherwise it does not permit it (NACK).
pub(crate) fn granted(word0: u32) -> bool {
    word0 & NACK == 0
}

/// Whether requests may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    /// The PF answers.
    Open,
    /// A message went unanswered.
    Silent,
    /// The PF was reset or does not consider this VF clear to send, or there was no handshake yet.
    Lost,
}

/// A read of the buffer or the control register that cannot be true ends everything: the device is gone.
fn live<B: Bus>(bus: &mut B, value: u32) -> Result<u32> {
    if value == ALL_ONES { Err(Error::gone(bus.name())) } else { Ok(value) }
}

/// True when a message of the PF means that it no longer knows this VF (fact sheet igbvf 3.3, 6).
fn disowns(word0: u32) -> bool {
    word0 & CTS == 0 && (word0 & NACK != 0 || word0 & ID_MASK == CONTROL)
}

/// The VF's end of the mailbox.
#[derive(Debug)]
pub(crate) struct Mailbox {
    protocol: Protocol,
    /// Event bits that a read destroyed in the register and nobody consumed yet.
    seen: V2pMailbox,
    channel: Channel,
}

impl Mailbox {
    /// A mailbox before its first handshake: requests fail.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Mailbox { protocol, seen: V2pMailbox::empty(), channel: Channel::Lost }
    }

    /// Forgets every event and forbids requests, for a reset that is about to begin.
    pub(crate) fn close(&mut self) {
        self.seen = V2pMailbox::empty();
        self.channel = Channel::Lost;
    }

    /// Reads the control register and keeps the bits that this destroys. The bits returned are those of this read.
    fn poll<B: Bus>(&mut self, bus: &mut B) -> Result<V2pMailbox> {
        let value = bus.read32(self.protocol.control);
        let bits = V2pMailbox::from_bits_retain(live(bus, value)?);
        self.seen |= bits & V2pMailbox::READ_TO_CLEAR;
        Ok(bits)
    }

    /// Consumes an event.
    fn take(&mut self, event: V2pMailbox) -> bool {
        let there = self.seen.contains(event);
        self.seen -= event;
        there
    }

    /// True while the PF is in reset, or said at this very read that it has finished one.
    pub(crate) fn pf_resets<B: Bus>(&mut self, bus: &mut B) -> Result<bool> {
        Ok(self.poll(bus)?.intersects(V2pMailbox::RSTI | V2pMailbox::RSTD))
    }

    /// One attempt to own the buffer.
    fn try_own<B: Bus>(&mut self, bus: &mut B) -> Result<bool> {
        bus.write32(self.protocol.control, V2pMailbox::VFU.bits());
        Ok(self.poll(bus)?.contains(V2pMailbox::VFU))
    }

    fn own<B: Bus>(&mut self, bus: &mut B, what: &str) -> Result<()> {
        let Protocol { ownership_tries, ownership_pause, .. } = self.protocol;
        for _ in 1..ownership_tries {
            if self.try_own(bus)? {
                return Ok(());
            }
            bus.pause(ownership_pause);
        }
        if self.try_own(bus)? {
            return Ok(());
        }
        self.channel = Channel::Silent;
        Err(Error::timeout(
            bus.name(),
            format!(
                "{what}: the PF held the mailbox for {} ms; see `dmesg` on the host for the PF's driver",
                (ownership_pause * ownership_tries).as_millis()
            ),
        ))
    }

    /// Polls until `event` is there, and consumes it. `false` when it has not come by the deadline.
    fn wait<B: Bus>(&mut self, bus: &mut B, event: V2pMailbox, deadline: Duration, what: &str) -> Result<bool> {
        let mut pause = ANSWER_FIRST_POLL;
        loop {
            let bits = self.poll(bus)?;
            if self.take(event) {
                return Ok(true);
            }
            // A PF in reset has forgotten the request. RSTD counts only for a VF that the PF knew: a handshake may
            // begin right at the end of a reset.
            let forgotten = self.channel == Channel::Open && self.seen.contains(V2pMailbox::RSTD);
            if bits.contains(V2pMailbox::RSTI) || forgotten {
                self.channel = Channel::Lost;
                return Err(self.unusable(bus, what));
            }
            if bus.now() >= deadline {
                return Ok(false);
            }
            bus.pause(pause);
            pause = (pause * 2).min(ANSWER_POLL);
        }
    }

    /// Notes that the PF does not answer.
    fn silent<B: Bus>(&mut self, bus: &B, what: &str) -> Error {
        self.channel = Channel::Silent;
        Error::timeout(
            bus.name(),
            format!(
                "{what}: no answer from the PF within {} s; its driver answers only while the PF's interface is up: \
                 `ip link set dev PF up` on the host, and see `dmesg` there",
                ANSWER_DEADLINE.as_secs()
            ),
        )
    }

    fn unusable<B: Bus>(&self, bus: &B, what: &str) -> Error {
        let reason = match self.channel {
            Channel::Open | Channel::Lost => "the PF was reset or no longer knows this VF",
            Channel::Silent => "an earlier message to the PF went unanswered",
        };
        Error::timeout(bus.name(), format!("{what}: {reason}; try again once the port has shaken hands anew"))
    }

    /// Writes a message into the buffer, which must be owned, hands it over and, where the protocol asks for it, waits until
    /// the PF has read it.
    fn post<B: Bus>(&mut self, bus: &mut B, words: &[u32], what: &str) -> Result<()> {
        for (i, &word) in words.iter().enumerate() {
            bus.write32(self.protocol.word(i), word);
        }
        bus.write32(self.protocol.control, V2pMailbox::REQ.bits());
        if !self.protocol.awaits_acknowledgement {
            return Ok(());
        }
        let deadline = bus.now() + ANSWER_DEADLINE;
        if self.wait(bus, V2pMailbox::PFACK, deadline, what)? { Ok(()) } else { Err(self.silent(bus, what)) }
    }

    /// Waits for a message of the PF, reads its first words and acknowledges it. `None` when none has come by the deadline.
    fn fetch<B: Bus, const N: usize>(
        &mut self,
        bus: &mut B,
        deadline: Duration,
        what: &str,
    ) -> Result<Option<[u32; N]>> {
        if !self.wait(bus, V2pMailbox::PFSTS, deadline, what)? {
            return Ok(None);
        }
        self.own(bus, what)?;
        let words = std::array::from_fn(|i| bus.read32(self.protocol.word(i)));
        bus.write32(self.protocol.control, V2pMailbox::ACK.bits());
        // A device that vanished between the words would leave half a message.
        self.poll(bus)?;
        Ok(Some(words))
    }

    /// Shakes hands after the function's reset: sends the reset request and returns what the PF answered.
    ///
    /// Other drivers pause for 10 ms before they look for the answer (fact sheets igbvf 3.4 step 4, ixgbevf 3.5 step 7). We
    /// look at once: a PF has done all that was asked when it writes the answer, what it said before the request is thrown
    /// away while the buffer is ours, and what else it says is told from an answer.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the PF does not answer or resets meanwhile; [`Error::Gone`].
    pub(crate) fn handshake<B: Bus>(&mut self, bus: &mut B) -> Result<Greeting> {
        const WHAT: &str = "reset request";
        self.close();
        let mut deadline = None;
        loop {
            self.own(bus, WHAT)?;
            self.seen = V2pMailbox::empty();
            self.post(bus, &[RESET], WHAT)?;
            // The PF has just read the request, so a reset of its own that ended before is over and done with.
            self.take(V2pMailbox::RSTD);
            let deadline = *deadline.get_or_insert(bus.now() + ANSWER_DEADLINE);
            let mut patience = deadline;
            while let Some(answer) = self.fetch(bus, patience, WHAT)? {
                if !self.protocol.awaits_acknowledgement {
                    // Only now it is known that the PF has read it.
                    self.take(V2pMailbox::RSTD);
                }
                if let Some(greeting) = Greeting::parse(answer) {
                    self.channel = Channel::Open;
                    return Ok(greeting);
                }
                patience = patience.min(bus.now() + OVERWRITTEN);
                // A PF that only ever pings must not hold us.
                if bus.now() >= patience || refuses_nothing(answer[0]) {
                    break;
                }
            }
            if bus.now() >= deadline {
                return Err(self.silent(bus, WHAT));
            }
            bus.pause(ANSWER_POLL);
        }
    }

    /// Sends a request and returns the first words of the PF's answer: word 0 says whether it is [`granted`].
    ///
    /// # Errors
    /// [`Error::Timeout`] when the PF does not answer within a second, did not answer before, or forgot this VF: only
    /// a new handshake helps then. [`Error::Gone`].
    pub(crate) fn request<B: Bus, const N: usize>(&mut self, bus: &mut B, request: &Request) -> Result<[u32; N]> {
        let what = request.name();
        if self.channel != Channel::Open {
            return Err(self.unusable(bus, what));
        }
        self.own(bus, what)?;
        // What the PF said unasked must not be taken for the answer, nor be lost.
        if self.take(V2pMailbox::PFSTS) && disowns(bus.read32(self.protocol.word(0))) {
            bus.write32(self.protocol.control, V2pMailbox::ACK.bits());
            self.channel = Channel::Lost;
            return Err(self.unusable(bus, what));
        }
        self.take(V2pMailbox::PFACK);
        let words = request.words();
        self.post(bus, words, what)?;
        let deadline = bus.now() + ANSWER_DEADLINE;
        while let Some(answer) = self.fetch::<B, N>(bus, deadline, what)? {
            let word0 = answer.first().copied().unwrap_or_default();
            if disowns(word0) {
                self.channel = Channel::Lost;
                return Err(self.unusable(bus, what));
            }
            if (word0 ^ words[0]) & ID_MASK == 0 && word0 & (ACK | NACK) != 0 {
                return Ok(answer);
            }
            // A ping that crossed the request; a PF that only ever pings must not hold us.
            if bus.now() >= deadline {
                break;
            }
        }
        Err(self.silent(bus, what))
    }

    /// Looks after what the PF says unasked. `false` when only a new handshake helps. Never waits.
    ///
    /// # Errors
    /// [`Error::Gone`] only.
    pub(crate) fn service<B: Bus>(&mut self, bus: &mut B) -> Result<bool> {
        let bits = self.poll(bus)?;
        // RSTD stays in the cache: it is for the handshake to consume.
        if bits.contains(V2pMailbox::RSTI) || self.seen.contains(V2pMailbox::RSTD) {
            self.channel = Channel::Lost;
        }
        if self.channel != Channel::Open {
            return Ok(false);
        }
        // While the PF holds the buffer the event stays in the cache, for the next call.
        if self.seen.contains(V2pMailbox::PFSTS) && self.try_own(bus)? {
            self.take(V2pMailbox::PFSTS);
            let word = bus.read32(self.protocol.word(0));
            let word0 = live(bus, word)?;
            bus.write32(self.protocol.control, V2pMailbox::ACK.bits());
            if disowns(word0) {
                self.channel = Channel::Lost;
            }
        }
        Ok(self.channel == Channel::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_message_without_clear_to_send_disowns() {
        for word in [0x4000_0000, 0x4000_0002, 0x0000_0100, 0x6000_0100 & !CTS] {
            assert!(disowns(word), "{word:#x}");
        }
        for word in [0x2000_0100, 0x6000_0002, 0xA000_0005, 0x8000_0001, 0] {
            assert!(!disowns(word), "{word:#x}");
        }
    }
}
