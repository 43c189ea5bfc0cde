//! The mailbox: sixteen words shared with the PF, and the protocol over them (fact sheet igbvf 2.6, 3).
//!
//! Owns every access to V2PMAILBOX and VMBMEM, because each read of V2PMAILBOX destroys three event bits: they are kept
//! here until somebody consumes them. `port.rs` calls it: [`Mailbox::handshake`] after a reset, [`Mailbox::request`]
//! for settings, [`Mailbox::service`] from the periodic check.
//!
//! What always holds: no wait is longer than its deadline; after one unanswered message, or a sign that the PF forgot
//! this VF, every later request fails at once until the next handshake; a refusal (NACK) of a VF that is
//! clear to send is an answer, not a failure of the transport.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::regs::{MAILBOX_WORDS, V2PMAILBOX, V2pMailbox, VMBMEM};
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::{ALL_ONES, Bus};

/// Attempts to take the buffer, and the pause between them (fact sheet igbvf 3.1 step 1).
const OWNERSHIP_TRIES: u32 = 10;
const OWNERSHIP_PAUSE: Duration = Duration::from_millis(1);
/// Longest wait for PFACK, and again for the answer: 2000 polls of 500 us (fact sheet igbvf 3.1 steps 5, 6).
const ANSWER_DEADLINE: Duration = Duration::from_secs(1);
const ANSWER_POLL: Duration = Duration::from_micros(500);
/// Pause between the PF's acknowledgement of a reset request and its answer (fact sheet igbvf 3.4 step 4).
const RESET_SETTLE: Duration = Duration::from_millis(10);

/// Most multicast hashes of one message (fact sheet igbvf 3.3).
pub(super) const MULTICAST_MAX: usize = 30;

// Word 0 of a message (fact sheet igbvf 3.2).
const ID_MASK: u32 = 0xFFFF;
const INFO_SHIFT: u32 = 16;
/// The PF considers this VF clear to send.
const CTS: u32 = 1 << 29;
const NACK: u32 = 1 << 30;
const ACK: u32 = 1 << 31;

// Message ids (fact sheet igbvf 3.3).
const RESET: u32 = 0x01;
const SET_MAC: u32 = 0x02;
const MULTICAST: u32 = 0x03;
const VLAN: u32 = 0x04;
const MAX_FRAME: u32 = 0x05;
const PROMISCUOUS: u32 = 0x06;
/// From the PF, unasked: the "ping".
const CONTROL: u32 = 0x0100;

/// Info of `PROMISCUOUS`: every unicast frame, every multicast frame.
const PROMISCUOUS_UNICAST: u32 = 1 << 0;
const PROMISCUOUS_MULTICAST: u32 = 1 << 1;

/// A request to the PF.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message<'a> {
    /// Use this station address.
    SetMac(MacAddr),
    /// Forget all additional unicast addresses. The address is ours: newer PFs check it before they look further.
    ClearUnicast(MacAddr),
    /// Accept this unicast address too.
    AddUnicast(MacAddr),
    /// Accept the group addresses with these hashes, at most [`MULTICAST_MAX`], and no others.
    Multicast(&'a [u16]),
    /// Accept (or no longer accept) this VLAN id.
    Vlan { vid: u16, on: bool },
    /// Accept frames of up to so many bytes, header and FCS included.
    MaxFrame(u32),
    /// Accept every unicast frame, every multicast frame.
    Promiscuous { unicast: bool, multicast: bool },
}

impl Message<'_> {
    /// The words to send and their number.
    fn encode(&self) -> ([u32; MAILBOX_WORDS], usize) {
        let mut words = [0; MAILBOX_WORDS];
        let mut put_mac = |mac: MacAddr| {
            let m = mac.0;
            words[1] = u32::from_le_bytes([m[0], m[1], m[2], m[3]]);
            words[2] = u32::from_le_bytes([m[4], m[5], 0, 0]);
        };
        let (word0, len) = match *self {
            Message::SetMac(mac) => {
                put_mac(mac);
                (SET_MAC, 3)
            }
            Message::ClearUnicast(mac) => {
                put_mac(mac);
                (SET_MAC | 1 << INFO_SHIFT, 3)
            }
            Message::AddUnicast(mac) => {
                put_mac(mac);
                (SET_MAC | 2 << INFO_SHIFT, 3)
            }
            Message::Multicast(hashes) => {
                let hashes = &hashes[..hashes.len().min(MULTICAST_MAX)];
                for (i, &hash) in hashes.iter().enumerate() {
                    words[1 + i / 2] |= u32::from(hash) << (16 * (i % 2));
                }
                (MULTICAST | (hashes.len() as u32) << INFO_SHIFT, 1 + hashes.len().div_ceil(2))
            }
            Message::Vlan { vid, on } => {
                words[1] = u32::from(vid);
                (VLAN | u32::from(on) << INFO_SHIFT, 2)
            }
            Message::MaxFrame(bytes) => {
                words[1] = bytes;
                (MAX_FRAME, 2)
            }
            Message::Promiscuous { unicast, multicast } => {
                let info =
                    if unicast { PROMISCUOUS_UNICAST } else { 0 } | if multicast { PROMISCUOUS_MULTICAST } else { 0 };
                (PROMISCUOUS | info << INFO_SHIFT, 1)
            }
        };
        words[0] = word0;
        (words, len)
    }

    /// What the request is, for messages about it.
    fn name(&self) -> &'static str {
        match self {
            Message::SetMac(_) => "set MAC address",
            Message::ClearUnicast(_) => "clear unicast filters",
            Message::AddUnicast(_) => "add unicast filter",
            Message::Multicast(_) => "set multicast filter",
            Message::Vlan { .. } => "set VLAN filter",
            Message::MaxFrame(_) => "set maximum frame size",
            Message::Promiscuous { .. } => "set promiscuous mode",
        }
    }
}

/// The PF's answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// The PF did what was asked (ACK); otherwise it does not permit it (NACK).
    pub granted: bool,
    /// Bits of a promiscuous request that the PF did not honour: it clears the others (fact sheet igbvf 3.3).
    refused_info: u32,
}

impl Answer {
    /// A promiscuous request that was refused in whole: did the PF honour the multicast half?
    pub(super) fn multicast_honoured(self) -> bool {
        self.granted || self.refused_info & PROMISCUOUS_MULTICAST == 0
    }
}

/// The 12-bit hash that the PF filters group addresses by (fact sheet igbvf 3.3).
pub(super) fn multicast_hash(mac: MacAddr) -> u16 {
    (u16::from(mac.0[4]) >> 4 | u16::from(mac.0[5]) << 4) & 0xFFF
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

/// A read of VMBMEM or V2PMAILBOX that cannot be true ends everything: the device is gone.
fn live<B: Bus>(bus: &mut B, value: u32) -> Result<u32> {
    if value == ALL_ONES { Err(Error::gone(bus.name())) } else { Ok(value) }
}

/// True when a message of the PF means that it no longer knows this VF (fact sheet igbvf 3.3, 6).
fn disowns(word0: u32) -> bool {
    word0 & CTS == 0 && (word0 & NACK != 0 || word0 & ID_MASK == CONTROL)
}

/// The VF's end of the mailbox.
#[derive(Debug)]
pub(super) struct Mailbox {
    /// Event bits that a read destroyed in the register and nobody consumed yet.
    seen: V2pMailbox,
    channel: Channel,
}

impl Mailbox {
    /// A mailbox before its first handshake: requests fail.
    pub(super) fn new() -> Self {
        Mailbox { seen: V2pMailbox::empty(), channel: Channel::Lost }
    }

    /// Forgets every event and forbids requests, for a reset that is about to begin.
    pub(super) fn close(&mut self) {
        self.seen = V2pMailbox::empty();
        self.channel = Channel::Lost;
    }

    /// Reads V2PMAILBOX and keeps the bits that this destroys. The bits returned are those of this read.
    fn poll<B: Bus>(&mut self, bus: &mut B) -> Result<V2pMailbox> {
        let value = bus.read32(V2PMAILBOX);
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
    pub(super) fn pf_resets<B: Bus>(&mut self, bus: &mut B) -> Result<bool> {
        Ok(self.poll(bus)?.intersects(V2pMailbox::RSTI | V2pMailbox::RSTD))
    }

    /// One attempt to own the buffer.
    fn try_own<B: Bus>(&mut self, bus: &mut B) -> Result<bool> {
        bus.write32(V2PMAILBOX, V2pMailbox::VFU.bits());
        Ok(self.poll(bus)?.contains(V2pMailbox::VFU))
    }

    fn own<B: Bus>(&mut self, bus: &mut B, what: &str) -> Result<()> {
        for _ in 1..OWNERSHIP_TRIES {
            if self.try_own(bus)? {
                return Ok(());
            }
            bus.pause(OWNERSHIP_PAUSE);
        }
        if self.try_own(bus)? {
            return Ok(());
        }
        self.channel = Channel::Silent;
        Err(Error::timeout(
            bus.name(),
            format!(
                "{what}: the PF held the mailbox for {OWNERSHIP_TRIES} ms; see `dmesg` on the host for the PF's driver"
            ),
        ))
    }

    /// Polls until `event` is there, and consumes it.
    fn wait<B: Bus>(&mut self, bus: &mut B, event: V2pMailbox, deadline: Duration, what: &str) -> Result<()> {
        loop {
            let bits = self.poll(bus)?;
            if self.take(event) {
                return Ok(());
            }
            // A PF in reset has forgotten the request. RSTD counts only for a VF that the PF knew: a handshake may
            // begin right at the end of a reset.
            let forgotten = self.channel == Channel::Open && self.seen.contains(V2pMailbox::RSTD);
            if bits.contains(V2pMailbox::RSTI) || forgotten {
                self.channel = Channel::Lost;
                return Err(self.unusable(bus, what));
            }
            if bus.now() >= deadline {
                return Err(self.silent(bus, what));
            }
            bus.pause(ANSWER_POLL);
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

    /// Writes a message into the buffer, which must be owned, hands it over and waits until the PF has read it.
    fn post<B: Bus>(&mut self, bus: &mut B, words: &[u32], what: &str) -> Result<()> {
        for (i, &word) in words.iter().enumerate() {
            bus.write32(VMBMEM(i), word);
        }
        bus.write32(V2PMAILBOX, V2pMailbox::REQ.bits());
        let deadline = bus.now() + ANSWER_DEADLINE;
        self.wait(bus, V2pMailbox::PFACK, deadline, what)
    }

    /// Waits for a message of the PF, reads its first words and acknowledges it.
    fn fetch<B: Bus, const N: usize>(&mut self, bus: &mut B, deadline: Duration, what: &str) -> Result<[u32; N]> {
        self.wait(bus, V2pMailbox::PFSTS, deadline, what)?;
        self.own(bus, what)?;
        let words = std::array::from_fn(|i| bus.read32(VMBMEM(i)));
        bus.write32(V2PMAILBOX, V2pMailbox::ACK.bits());
        // A device that vanished between the words would leave half a message.
        self.poll(bus)?;
        Ok(words)
    }

    /// Shakes hands after CTRL.RST: sends the reset request and returns the address that the PF assigned, if any.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the PF does not answer or resets meanwhile; [`Error::Gone`].
    pub(super) fn handshake<B: Bus>(&mut self, bus: &mut B) -> Result<Option<MacAddr>> {
        const WHAT: &str = "reset request";
        self.close();
        let mut deadline = None;
        loop {
            self.own(bus, WHAT)?;
            self.seen = V2pMailbox::empty();
            self.post(bus, &[RESET], WHAT)?;
            // The PF has just read the request, so a reset of its own that ended before is over and done with.
            self.take(V2pMailbox::RSTD);
            bus.pause(RESET_SETTLE);
            let deadline = *deadline.get_or_insert(bus.now() + ANSWER_DEADLINE);
            let [word0, low, high] = self.fetch(bus, deadline, WHAT)?;
            // The answer has no CTS; other PFs may set it.
            let mac = match word0 & !CTS {
                word if word == RESET | ACK => {
                    let ([a, b, c, d], [e, f, ..]) = (low.to_le_bytes(), high.to_le_bytes());
                    Some(MacAddr([a, b, c, d, e, f])).filter(|mac| mac.is_valid_station())
                }
                word if word == RESET | NACK => None,
                // A PF that only ever pings must not hold us.
                _ if bus.now() >= deadline => return Err(self.silent(bus, WHAT)),
                // A ping: it crossed the request, or it was written over the answer, as when the link changes now.
                _ => continue,
            };
            self.channel = Channel::Open;
            return Ok(mac);
        }
    }

    /// Sends a request and returns the PF's answer.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the PF does not answer within a second, did not answer before, or forgot this VF: only
    /// a new handshake helps then. [`Error::Gone`].
    pub(super) fn request<B: Bus>(&mut self, bus: &mut B, message: Message<'_>) -> Result<Answer> {
        let what = message.name();
        if self.channel != Channel::Open {
            return Err(self.unusable(bus, what));
        }
        self.own(bus, what)?;
        // What the PF said unasked must not be taken for the answer, nor be lost.
        if self.take(V2pMailbox::PFSTS) && disowns(bus.read32(VMBMEM(0))) {
            bus.write32(V2PMAILBOX, V2pMailbox::ACK.bits());
            self.channel = Channel::Lost;
            return Err(self.unusable(bus, what));
        }
        self.take(V2pMailbox::PFACK);
        let (words, len) = message.encode();
        self.post(bus, &words[..len], what)?;
        let deadline = bus.now() + ANSWER_DEADLINE;
        loop {
            let [word0] = self.fetch(bus, deadline, what)?;
            if disowns(word0) {
                self.channel = Channel::Lost;
                return Err(self.unusable(bus, what));
            }
            if word0 & ID_MASK == words[0] & ID_MASK && word0 & (ACK | NACK) != 0 {
                return Ok(Answer { granted: word0 & NACK == 0, refused_info: word0 >> INFO_SHIFT & 0xFF });
            }
            // A ping that crossed the request; a PF that only ever pings must not hold us.
            if bus.now() >= deadline {
                return Err(self.silent(bus, what));
            }
        }
    }

    /// Looks after what the PF says unasked. `false` when only a new handshake helps. Never waits.
    ///
    /// # Errors
    /// [`Error::Gone`] only.
    pub(super) fn service<B: Bus>(&mut self, bus: &mut B) -> Result<bool> {
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
            let word = bus.read32(VMBMEM(0));
            let word0 = live(bus, word)?;
            bus.write32(V2PMAILBOX, V2pMailbox::ACK.bits());
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

    fn words(message: Message<'_>) -> Vec<u32> {
        let (words, len) = message.encode();
        words[..len].to_vec()
    }

    #[test]
    fn messages_match_the_sheet() {
        let mac = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
        assert_eq!(words(Message::SetMac(mac)), [0x0000_0002, 0x3322_1102, 0x5544]);
        assert_eq!(words(Message::ClearUnicast(mac)), [0x0001_0002, 0x3322_1102, 0x5544]);
        assert_eq!(words(Message::AddUnicast(mac)), [0x0002_0002, 0x3322_1102, 0x5544]);
        assert_eq!(words(Message::Vlan { vid: 100, on: true }), [0x0001_0004, 100]);
        assert_eq!(words(Message::Vlan { vid: 100, on: false }), [0x0000_0004, 100]);
        assert_eq!(words(Message::MaxFrame(1522)), [0x0000_0005, 1522]);
        assert_eq!(words(Message::Promiscuous { unicast: false, multicast: true }), [0x0002_0006]);
        assert_eq!(words(Message::Promiscuous { unicast: true, multicast: true }), [0x0003_0006]);
        assert_eq!(words(Message::Promiscuous { unicast: false, multicast: false }), [0x0000_0006]);
        assert_eq!(words(Message::Multicast(&[])), [0x0000_0003]);
        assert_eq!(words(Message::Multicast(&[0xFB0, 0x123, 0xABC])), [0x0003_0003, 0x0123_0FB0, 0x0ABC]);
        let full = words(Message::Multicast(&[0xFFF; 40]));
        assert_eq!((full.len(), full[0], full[15]), (16, 0x001E_0003, 0x0FFF_0FFF));
    }

    #[test]
    fn group_addresses_hash_as_in_the_sheet() {
        assert_eq!(multicast_hash("01:00:5e:00:00:fb".parse().unwrap()), 0xFB0);
        assert_eq!(multicast_hash("33:33:00:00:12:ff".parse().unwrap()), 0xFF1);
    }

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
