//! The receive engine: from a frame on the wire to written-back descriptors (fact sheets igbvf 4.1 to 4.4, 7.3; ixgbevf 4.1
//! to 4.4).
//!
//! A frame passes the PF's switch, loses its VLAN tag if that is stripped, gets its verdicts, and is written over as many
//! armed descriptors as it needs. Without enough of them it is dropped and counted: never a part of a frame.
#![forbid(unsafe_code)]

use super::super::env::Env;
use super::super::fault::{Fault, Faults};
use super::super::frame::{self, Ip, Layout, Transport};
use super::family::{Checked, QueueRegister, Rules};
use super::ring::Ring;

// Status of a receive write-back, dword 2.
const DD: u32 = 1 << 0;
const EOP: u32 = 1 << 1;
const VP: u32 = 1 << 3;
const UDPCS: u32 = 1 << 4;
const L4CS: u32 = 1 << 5;
const IPCS: u32 = 1 << 6;
const LB: u32 = 1 << 18;
// Dword 0 of a receive write-back (igbvf 4.2): length of the header, and that it was split off.
const HDR_LEN_SHIFT: u32 = 21;
const SPH: u64 = 1 << 31;

/// Unit of SRRCTL.BSIZEHDR in bytes (igbvf 2.3).
const BSIZEHDR_UNIT: usize = 64;

/// One receive queue.
pub(super) struct RxQueue {
    rules: &'static Rules,
    pub(super) ring: Ring,
    srrctl: u32,
    /// Bytes of a header buffer, where headers are split off; 0 where not.
    header_len: usize,
    /// RQDPC.
    pub(super) drops: u32,
}

/// What is written back with the last descriptor of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(in super::super) struct Verdict {
    /// RSS type, packet type and RSS hash.
    word0: u64,
    /// Status and error bits besides DD and EOP.
    status: u32,
    /// VLAN tag as it stands in dword 3.
    vlan: u16,
    /// The tag is no longer in the frame.
    stripped: bool,
}

impl RxQueue {
    pub(super) fn new(rules: &'static Rules, port: usize, queue: usize) -> Self {
        RxQueue {
            rules,
            ring: Ring::new(rules, port, "rx", queue),
            srrctl: rules.srrctl_reset,
            header_len: 0,
            drops: 0,
        }
    }

    pub(super) fn reset(&mut self, env: &mut Env, lost: bool) {
        self.ring.reset(env, lost);
        (self.srrctl, self.drops) = (self.rules.srrctl_reset, 0);
    }

    pub(super) fn read(&mut self, register: QueueRegister, env: &Env) -> Option<u32> {
        match register {
            QueueRegister::Srrctl => Some(self.srrctl),
            QueueRegister::Rqdpc => Some(std::mem::take(&mut self.drops)),
            _ => self.ring.read(register, env.now),
        }
    }

    /// SRRCTL; what was wrong with the value.
    pub(super) fn write_srrctl(&mut self, value: u32) -> Checked {
        if self.ring.enabled {
            return Err("SRRCTL written while the queue is enabled".into());
        }
        self.srrctl = value;
        if value & !self.rules.srrctl_bits != 0 {
            return Err(format!("SRRCTL {value:#010x} has reserved bits set"));
        }
        Ok(())
    }

    pub(super) fn check_enable(&mut self, env: &Env) -> Checked {
        self.ring.check_enable(env)?;
        let header_len = (self.srrctl >> 8 & 0x3f) as usize * BSIZEHDR_UNIT;
        self.header_len = match self.srrctl >> 25 & 7 {
            1 => 0,
            5 if self.rules.splits_headers && header_len > 0 => header_len,
            desctype => {
                self.ring.halted = true;
                let split = if self.rules.splits_headers { ", and 5, split always, with a BSIZEHDR" } else { "" };
                return Err(format!(
                    "rx queue enabled with DESCTYPE {desctype}; the model does 1, advanced one buffer{split}"
                ));
            }
        };
        let buffer_len = (self.rules.buffer_len)(self.srrctl);
        self.ring.halted |= buffer_len.is_err();
        self.ring.buffer_len = buffer_len?;
        Ok(())
    }

    /// Writes a frame, of at most `longest` bytes, into armed buffers and writes their descriptors back. `Ok(false)` when there are too few.
    #[inline]
    pub(super) fn place(
        &mut self,
        frame: &[u8],
        verdict: Verdict,
        longest: usize,
        env: &mut Env,
        faults: &Faults,
    ) -> Result<bool, String> {
        let buffer = self.ring.buffer_len;
        let (head, split) = self.split(frame);
        let (header, payload) = frame.split_at(head);
        let available = self.ring.available() as usize;
        // A queue that does not run has no length of buffers either.
        if available == 0 || payload.len().div_ceil(buffer) > available {
            self.drops = self.drops.wrapping_add(1);
            return Ok(false);
        }
        let (mut left, mut first) = (payload, header);
        loop {
            let slot = self.ring.head;
            let [address, header_address] = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            if self.rules.header_address_counts && header_address & 1 != 0 {
                return Err(format!("rx descriptor {slot} armed with bit 0 of the header address (DD) set"));
            }
            if !first.is_empty() {
                env.dma.check(header_address, self.header_len).map_err(|f| format!("rx descriptor {slot}: {f}"))?;
                env.dma.write(header_address, first).map_err(|f| f.to_string())?;
            }
            let (piece, rest) = left.split_at(left.len().min(buffer));
            // The device may write the whole buffer, but no more than the longest frame that it lets in: so much must be
            // there. Linux's igbvf maps less than the 2048 bytes that it tells the device.
            env.dma.check(address, buffer.min(longest)).map_err(|f| format!("rx descriptor {slot}: {f}"))?;
            env.dma.write(address, piece).map_err(|f| f.to_string())?;
            self.ring.used(slot, address, env)?;
            let len = faults.lying_length().unwrap_or(piece.len() as u16) as u64;
            let split = if first.is_empty() { 0 } else { split };
            let words = if rest.is_empty() {
                let error = if faults.has(Fault::RxError) { self.rules.rx_rxe } else { 0 };
                let [word0, word1] = verdict.last(len as usize, error);
                [word0 | split, word1]
            } else {
                [split, DD as u64 | len << 32] // DD and lengths only (igbvf 4.2)
            };
            self.ring.head = self.ring.next(slot);
            self.ring.complete(slot, words, env, faults)?;
            if rest.is_empty() {
                return Ok(true);
            }
            (left, first) = (rest, &[]);
        }
    }

    /// How many bytes of a frame go to the header buffer, and what the descriptor says of it. A frame that fits there goes
    /// whole; headers that are unknown or do not fit fill it.
    #[inline]
    fn split(&self, frame: &[u8]) -> (usize, u64) {
        if self.header_len == 0 {
            return (0, 0);
        }
        let (head, parsed) = if frame.len() <= self.header_len {
            (frame.len(), 0)
        } else {
            match frame::headers(frame, &frame::layout(frame)) {
                Some(headers) if headers <= self.header_len => (headers, SPH),
                _ => (self.header_len, 0),
            }
        };
        (head, parsed | (head as u64) << HDR_LEN_SHIFT)
    }
}

/// Packet type and checksum verdicts of a frame, with an RSS type and hash (0: none).
pub(in super::super) fn classify(
    frame: &[u8],
    layout: &Layout,
    (rss_type, hash): (u32, u32),
    rules: &Rules,
) -> Verdict {
    let mut status = 0;
    if let Ip::V4 { .. } = layout.ip {
        status |= IPCS;
        if !frame::ipv4_checksum_good(frame, layout) {
            status |= rules.rx_ipe;
        }
    }
    if let Some(good) = frame::transport_checksum_good(frame, layout) {
        status |= L4CS;
        if layout.transport == Transport::Udp {
            status |= UDPCS;
        }
        if !good {
            status |= rules.rx_l4e;
        }
    }
    Verdict { word0: (rss_type | packet_type(layout)) as u64 | (hash as u64) << 32, status, vlan: 0, stripped: false }
}

/// Packet type at its position in dword 0 (igbvf 4.3, ixgbevf 4.3).
fn packet_type(layout: &Layout) -> u32 {
    let ip = match layout.ip {
        Ip::None => 0,
        Ip::V4 { options: false } => 0x10,
        Ip::V4 { options: true } => 0x20,
        Ip::V6 { extensions: false } => 0x40,
        Ip::V6 { extensions: true } => 0x80,
    };
    ip | match layout.transport {
        Transport::None => 0,
        Transport::Tcp => 0x100,
        Transport::Udp => 0x200,
        Transport::Sctp => 0x400,
    }
}

impl Verdict {
    /// Adds a tag as it stands in the descriptor; `stripped`: it is no longer in the frame.
    pub(super) fn with_tag(self, vlan: u16, stripped: bool) -> Self {
        Verdict { status: self.status | VP, vlan, stripped, ..self }
    }

    /// How the last descriptor of a frame is written back, with error bits and `len` bytes in its buffer.
    #[inline]
    pub(super) fn last(self, len: usize, error: u32) -> [u64; 2] {
        let status = self.status | error | DD | EOP;
        [self.word0, status as u64 | (len as u64) << 32 | (self.vlan as u64) << 48]
    }

    pub(super) fn marked_loopback(self) -> Self {
        Verdict { status: self.status | LB, ..self }
    }

    /// As bits of the last descriptor.
    pub(super) fn words(self) -> [u64; 4] {
        [self.word0, self.status as u64 | (self.vlan as u64) << 48, self.stripped as u64, 0]
    }

    /// What [`words`](Self::words) was made of.
    #[inline]
    pub(super) fn from_words([word0, word1, stripped, _]: [u64; 4]) -> Self {
        Verdict { word0, status: word1 as u32, vlan: (word1 >> 48) as u16, stripped: stripped != 0 }
    }

    /// Adds status and error bits.
    pub(in super::super) fn with_status(self, bits: u32) -> Self {
        Verdict { status: self.status | bits, ..self }
    }

    /// Bytes that were on the wire and are not in the buffer.
    pub(super) fn stripped(&self) -> usize {
        if self.stripped { 4 } else { 0 }
    }
}
