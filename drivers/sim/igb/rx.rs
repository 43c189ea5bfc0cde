//! The receive engine: from a frame on the wire to written-back descriptors (fact sheet igbvf 4.1 to 4.4, 7.3).
//!
//! A frame passes the PF's switch, loses its VLAN tag if the PF strips, gets its verdicts, and is written over as many
//! armed descriptors as it needs. Without enough of them it is dropped and counted: never a part of a frame.
#![forbid(unsafe_code)]

use super::super::env::Env;
use super::super::fault::{Fault, Faults};
use super::super::frame::{self, Ip, Layout, Transport};
use super::regs;
use super::ring::Ring;

/// Receive buffer when SRRCTL.BSIZEPKT is 0: the PF's RCTL.BSIZE, 2 KiB in a stock PF.
const DEFAULT_BUFFER: usize = 2048;

/// One receive queue.
pub(super) struct RxQueue {
    pub(super) ring: Ring,
    srrctl: u32,
    /// RQDPC.
    pub(super) drops: u32,
}

/// What is written back with the last descriptor of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Verdict {
    /// RSS type, packet type and RSS hash.
    word0: u64,
    /// Status and error bits besides DD and EOP.
    status: u32,
    /// VLAN tag as it stands in dword 3.
    vlan: u16,
}

impl RxQueue {
    pub(super) fn new(port: usize, queue: usize) -> Self {
        RxQueue { ring: Ring::new(port, "rx", queue), srrctl: 0, drops: 0 }
    }

    pub(super) fn reset(&mut self, env: &mut Env, lost: bool) {
        self.ring.reset(env, lost);
        (self.srrctl, self.drops) = (0, 0);
    }

    pub(super) fn read(&mut self, offset: u32, env: &Env) -> Option<u32> {
        match offset {
            regs::SRRCTL => Some(self.srrctl),
            regs::RQDPC => Some(std::mem::take(&mut self.drops)),
            _ => self.ring.read(offset, env.now),
        }
    }

    /// SRRCTL; what was wrong with the value.
    pub(super) fn write_srrctl(&mut self, value: u32) -> Result<(), String> {
        if self.ring.enabled {
            return Err("SRRCTL written while the queue is enabled".into());
        }
        self.srrctl = value;
        if value & !regs::SRRCTL_BITS != 0 {
            return Err(format!("SRRCTL {value:#010x} has reserved bits set"));
        }
        Ok(())
    }

    pub(super) fn check_enable(&mut self, env: &Env) -> Result<(), String> {
        self.ring.check_enable(env)?;
        let desctype = self.srrctl >> 25 & 7;
        if desctype != 1 {
            self.ring.halted = true;
            return Err(format!("rx queue enabled with DESCTYPE {desctype}; the model does 1, advanced one buffer"));
        }
        self.ring.buffer_len = match (self.srrctl & 0x7f) as usize {
            0 => DEFAULT_BUFFER,
            kib => kib << 10,
        };
        Ok(())
    }

    /// Writes a frame into armed buffers and writes their descriptors back. `Ok(false)` when there are too few.
    #[inline]
    pub(super) fn place(
        &mut self,
        frame: &[u8],
        verdict: Verdict,
        env: &mut Env,
        faults: &Faults,
    ) -> Result<bool, String> {
        let buffer = self.ring.buffer_len;
        if self.ring.available() == 0 || frame.len().div_ceil(buffer) > self.ring.available() as usize {
            self.drops = self.drops.wrapping_add(1);
            return Ok(false);
        }
        let mut left = frame;
        loop {
            let slot = self.ring.head;
            let [address, header] = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            if header & 1 != 0 {
                return Err(format!("rx descriptor {slot} armed with bit 0 of the header address (DD) set"));
            }
            let (piece, rest) = left.split_at(left.len().min(buffer));
            // The device may write the whole buffer, so the whole buffer must be there.
            env.dma.check(address, buffer).map_err(|f| format!("rx descriptor {slot}: {f}"))?;
            env.dma.write(address, piece).map_err(|f| f.to_string())?;
            self.ring.used(slot, address, env)?;
            let len = faults.lying_length().unwrap_or(piece.len() as u16) as u64;
            let words = if rest.is_empty() {
                let error = if faults.has(Fault::RxError) { regs::RX_RXE } else { 0 };
                let status = verdict.status | error | regs::RX_DD | regs::RX_EOP;
                [verdict.word0, status as u64 | len << 32 | (verdict.vlan as u64) << 48]
            } else {
                [0, regs::RX_DD as u64 | len << 32] // DD and length only (igbvf 4.2)
            };
            self.ring.head = self.ring.next(slot);
            self.ring.complete(slot, words, env, faults)?;
            if rest.is_empty() {
                return Ok(true);
            }
            left = rest;
        }
    }
}

/// Packet type, checksum verdicts and, with `rss`, hash of a frame whose tag was stripped if it is to be.
pub(super) fn classify(frame: &[u8], rss: bool) -> Verdict {
    let layout = frame::layout(frame);
    let mut status = 0;
    if let Ip::V4 { .. } = layout.ip {
        status |= regs::RX_IPCS;
        if !frame::ipv4_checksum_good(frame, &layout) {
            status |= regs::RX_IPE;
        }
    }
    if let Some(good) = frame::transport_checksum_good(frame, &layout) {
        status |= regs::RX_L4CS;
        if layout.transport == Transport::Udp {
            status |= regs::RX_UDPCS;
        }
        if !good {
            status |= regs::RX_L4E;
        }
    }
    let (rss_type, hash) = if rss { frame::rss(frame, &layout) } else { (0, 0) };
    Verdict { word0: (rss_type | packet_type(&layout)) as u64 | (hash as u64) << 32, status, vlan: 0 }
}

/// Packet type at its position in dword 0 (igbvf 4.3).
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
    /// As bits of the last descriptor.
    pub(super) fn words(self) -> [u64; 4] {
        [self.word0, self.status as u64 | (self.vlan as u64) << 48, 0, 0]
    }

    /// What [`words`](Self::words) was made of.
    #[inline]
    pub(super) fn from_words([word0, word1, ..]: [u64; 4]) -> Self {
        Verdict { word0, status: word1 as u32, vlan: (word1 >> 48) as u16 }
    }

    /// Adds a stripped tag; `swapped` for the loopback frames of an I350 (igbvf 4.4).
    pub(super) fn with_tag(self, tci: u16, swapped: bool) -> Self {
        Verdict { status: self.status | regs::RX_VP, vlan: if swapped { tci.swap_bytes() } else { tci }, ..self }
    }

    pub(super) fn marked_loopback(self) -> Self {
        Verdict { status: self.status | regs::RX_LB, ..self }
    }

    /// Bytes that were on the wire and are not in the buffer.
    pub(super) fn stripped(&self) -> usize {
        if self.status & regs::RX_VP != 0 { 4 } else { 0 }
    }

    /// The RSS hash, for choosing a queue.
    pub(super) fn hash(&self) -> u32 {
        (self.word0 >> 32) as u32
    }
}
