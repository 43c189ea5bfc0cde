//! The transmit engine of the avf model: from descriptors to frames on the wire (fact sheet iavf 5.1, 6.5).
//!
//! Gathers a packet over its descriptors, refuses what the sheet forbids (malicious-driver detection), does what the
//! descriptors ask on a private copy (tags, checksums, segmentation), and writes "done" where RS was set.
#![forbid(unsafe_code)]

use super::super::env::Env;
use super::super::fault::Faults;
use super::super::frame::{self, MIN_FRAME, Transport};
use super::super::offload::{Offload, pad_and_emit};
use super::regs;
use super::ring::Ring;

/// Shortest packet in memory, and longest frame (iavf 5.1).
const FRAME_MIN: usize = 17;
const FRAME_MAX: usize = 9728;
/// Data descriptors of a packet, and of a segment on the wire (iavf 5.1).
const BUFFERS_MAX: usize = 8;
/// Largest MSS (iavf 5.1).
const MSS_MAX: usize = 9668;

/// What the PF's set-up of the VF means for frames that it sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Smallest MSS: 256 on the 700 series, 64 on the 800 series (iavf 6.5).
    pub(super) mss_min: usize,
    /// Ethertype of the tag that L2TAG1 inserts, where that is switched on.
    pub(super) tag1: Option<u16>,
    /// Ethertype of the tag that L2TAG2 inserts, where that is switched on.
    pub(super) tag2: Option<u16>,
}

/// One transmit queue.
pub(super) struct TxQueue {
    pub(super) ring: Ring,
    pub(super) vector: Option<usize>,
    /// Lengths of the packet's buffers.
    pieces: Vec<usize>,
    /// The packet being gathered, and the frame as it goes out.
    gathered: Vec<u8>,
    outgoing: Vec<u8>,
}

/// A packet gathered from the ring.
struct Packet {
    /// Quadword 1 of its first data descriptor.
    command: u64,
    /// Its context descriptor.
    context: Option<[u64; 2]>,
    len: usize,
    /// Slot of its last descriptor, and whether that has RS.
    last: u32,
    report: bool,
}

impl TxQueue {
    pub(super) fn new(port: usize, queue: usize) -> Self {
        let ring = Ring::new(port, "tx", queue);
        TxQueue { ring, vector: None, pieces: Vec::new(), gathered: Vec::new(), outgoing: Vec::new() }
    }

    /// Sends the next packet of the ring: `emit` gets each frame that goes out and its length. With `need_bytes` false,
    /// plain frames are counted only and `emit` gets no bytes. `Ok(None)`: nothing (complete) to send; else whether it
    /// was reported as done.
    pub(super) fn send_one(
        &mut self,
        need_bytes: bool,
        rules: &Rules,
        hold: bool,
        env: &mut Env,
        faults: &Faults,
        mut emit: impl FnMut(&mut Env, &[u8], usize),
    ) -> Result<Option<bool>, String> {
        let Some(packet) = self.gather(need_bytes, env)? else { return Ok(None) };
        if packet.context.is_some() || packet.command & (regs::TX_IIPT | regs::TX_L4T | regs::TX_IL2TAG1) != 0 {
            self.send_offload(&packet, rules, env, &mut emit)
                .map_err(|what| format!("tx packet ending at descriptor {}: {what}", packet.last))?;
        } else if need_bytes {
            self.outgoing.clear();
            self.outgoing.extend_from_slice(&self.gathered);
            pad_and_emit(&mut self.outgoing, env, &mut emit);
        } else {
            emit(env, &[], packet.len.max(MIN_FRAME));
        }
        self.ring.head = self.ring.next(packet.last);
        if packet.report {
            // Nothing in the descriptor but its type means anything afterwards.
            self.ring.complete(packet.last, [0, regs::TX_DONE, 0, 0], hold, env, faults)?;
        }
        Ok(Some(packet.report))
    }

    /// Collects the descriptors and, where needed, the bytes of the packet at the head.
    fn gather(&mut self, need_bytes: bool, env: &mut Env) -> Result<Option<Packet>, String> {
        let (mut first, mut context) = (None, None);
        let mut copy = need_bytes;
        let mut left = self.ring.available();
        let mut slot = self.ring.head;
        self.pieces.clear();
        while left > 0 {
            let words = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            check_descriptor(words, first, context.is_some())
                .map_err(|what| format!("tx descriptor {slot}: {what}: {:#018x} {:#018x}", words[0], words[1]))?;
            let command = words[1];
            if command & regs::TX_DTYPE == regs::TX_CONTEXT {
                context = Some(words);
            } else {
                if first.is_none() {
                    first = Some(command);
                    copy |= context.is_some() || command & (regs::TX_IIPT | regs::TX_L4T | regs::TX_IL2TAG1) != 0;
                    self.gathered.clear();
                }
                let piece = ((command & regs::TX_SIZE) >> 34) as usize;
                if copy { env.dma.read(words[0], piece, &mut self.gathered) } else { env.dma.check(words[0], piece) }
                    .map_err(|fault| format!("tx descriptor {slot}: {fault}"))?;
                self.pieces.push(piece);
                if command & regs::TX_EOP != 0 {
                    let report = command & regs::TX_RS != 0;
                    self.release(slot, env)?;
                    let (command, len) = (first.unwrap_or(command), self.pieces.iter().sum());
                    let packet = Packet { command, context, len, last: slot, report };
                    self.check_lengths(&packet)?;
                    return Ok(Some(packet));
                }
            }
            slot = self.ring.next(slot);
            left -= 1;
        }
        Ok(None)
    }

    /// In worlds that check: the buffers from the head to `last` are the driver's again once "done" is reported.
    fn release(&mut self, last: u32, env: &mut Env) -> Result<(), String> {
        if !env.strict {
            return Ok(());
        }
        let mut slot = self.ring.head;
        loop {
            let [address, command] = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            if command & regs::TX_DTYPE == regs::TX_DATA {
                self.ring.used(slot, address, env)?;
            }
            if slot == last {
                return Ok(());
            }
            slot = self.ring.next(slot);
        }
    }

    /// What the sheet says about a packet that is not segmented.
    fn check_lengths(&self, packet: &Packet) -> Result<(), String> {
        let bad = |what: String| Err(format!("tx packet ending at descriptor {}: {what}", packet.last));
        if packet.context.is_some_and(|c| c[1] & regs::CONTEXT_TSO != 0) {
            return Ok(());
        }
        if !(FRAME_MIN..=FRAME_MAX).contains(&packet.len) {
            return bad(format!("a frame of {} bytes ({FRAME_MIN} to {FRAME_MAX})", packet.len));
        }
        if self.pieces.len() > BUFFERS_MAX {
            return bad(format!("{} data descriptors (at most {BUFFERS_MAX})", self.pieces.len()));
        }
        Ok(())
    }

    fn send_offload(
        &mut self,
        packet: &Packet,
        rules: &Rules,
        env: &mut Env,
        emit: &mut impl FnMut(&mut Env, &[u8], usize),
    ) -> Result<(), String> {
        let command = packet.command;
        let offload = offload(command, &self.gathered)?;
        let context = packet.context.unwrap_or([0; 2]);
        let tag = |asked: bool, tci: u64, tpid: Option<u16>, name: &str| match (asked, tpid) {
            (false, _) => Ok(None),
            (true, Some(tpid)) => Ok(Some((tpid, tci as u16))),
            (true, None) => Err(format!("a tag in {name} although its insertion is not switched on")),
        };
        let inner = tag(command & regs::TX_IL2TAG1 != 0, command >> 48, rules.tag1, "L2TAG1")?;
        let outer = tag(context[1] & regs::CONTEXT_IL2TAG2 != 0, context[0] >> 32, rules.tag2, "L2TAG2")?;
        let mut tagged = Vec::new();
        let mut finish = |bytes: &[u8], outgoing: &mut Vec<u8>, env: &mut Env| {
            outgoing.clear();
            outgoing.extend_from_slice(bytes);
            for (tpid, tci) in [inner, outer].into_iter().flatten() {
                tagged.clear();
                frame::insert_tag_of(tpid, outgoing, tci, &mut tagged);
                std::mem::swap(outgoing, &mut tagged);
            }
            pad_and_emit(outgoing, env, emit);
        };
        if context[1] & regs::CONTEXT_TSO == 0 {
            offload.insert_checksums(&mut self.gathered)?;
            finish(&self.gathered, &mut self.outgoing, env);
            return Ok(());
        }
        let headers = offload.l4 + 4 * (command >> 30 & 0xf) as usize;
        let (payload, mss) = ((context[1] >> 30 & 0x3_ffff) as usize, (context[1] >> 50) as usize);
        if offload.transport != Transport::Tcp {
            return Err("TSO of what is not TCP (L4T)".into());
        }
        if offload.ipv4 && command & regs::TX_IIPT != regs::TX_IPV4_CSUM {
            return Err("TSO over IPv4 without its header checksum (IIPT)".into());
        }
        if !(rules.mss_min..=MSS_MAX).contains(&mss) {
            return Err(format!("TSO with MSS {mss} ({} to {MSS_MAX})", rules.mss_min));
        }
        if payload == 0 || payload + headers != packet.len {
            return Err(format!("TSO with TLEN {payload} and headers of {headers} in {} bytes", packet.len));
        }
        self.check_segments(headers, mss, packet.len)?;
        offload.segment(&self.gathered, headers, mss, |segment| finish(segment, &mut self.outgoing, env))
    }

    /// No segment may need more than eight buffers, its headers included.
    fn check_segments(&self, headers: usize, mss: usize, len: usize) -> Result<(), String> {
        // Buffers that hold any of the bytes `from..to`.
        let buffers = |from: usize, to: usize| {
            let mut start = 0;
            let touching = |piece: &&usize| {
                let begin = start;
                start += **piece;
                begin < to && start > from
            };
            self.pieces.iter().filter(touching).count()
        };
        let of_headers = buffers(0, headers);
        for from in (headers..len).step_by(mss) {
            let needed = of_headers + buffers(from, len.min(from + mss));
            if needed > BUFFERS_MAX {
                return Err(format!("a TSO segment over {needed} buffers with its headers (at most {BUFFERS_MAX})"));
            }
        }
        Ok(())
    }
}

/// What the sheet says about a descriptor, given quadword 1 of the packet's first data descriptor.
fn check_descriptor(words: [u64; 2], first: Option<u64>, after_context: bool) -> Result<(), &'static str> {
    let command = words[1];
    let data = command & regs::TX_DTYPE == regs::TX_DATA;
    if command & regs::TX_DTYPE == regs::TX_CONTEXT {
        return match () {
            _ if first.is_some() => Err("a context descriptor inside a packet"),
            _ if after_context => Err("two context descriptors in a row"),
            _ if command & !regs::CONTEXT_BITS != 0 => Err("a context asks for what the model does not know"),
            _ if words[0] & !regs::CONTEXT_TAG != 0 => Err("tunnel fields set in a context (quadword 0)"),
            _ if command & regs::CONTEXT_TSO == 0 && command >> 30 != 0 => Err("TLEN or MSS in a context without TSO"),
            _ => Ok(()),
        };
    }
    match () {
        _ if command & regs::TX_DTYPE == regs::TX_DONE => Err("DTYPE is 0xf: a descriptor that was not written anew"),
        _ if !data => Err("DTYPE is neither 0 (data) nor 1 (context)"),
        _ if command & !regs::TX_DATA_BITS != 0 => Err("reserved bits set, or a command that the model does not know"),
        _ if command & regs::TX_SIZE == 0 => Err("a buffer of 0 bytes"),
        _ if command & regs::TX_ICRC == 0 => Err("ICRC is clear"),
        _ if command & regs::TX_RS != 0 && command & regs::TX_EOP == 0 => Err("RS without EOP"),
        _ if command & regs::TX_L4T != 0 && command & regs::TX_IIPT == 0 => Err("L4T without IIPT"),
        _ if first.is_some_and(|first| (first ^ command) & !regs::TX_VARIES != 0) => {
            Err("CMD, OFFSET or L2TAG1 differ from those of the packet's first descriptor")
        }
        _ => Ok(()),
    }
}

/// What a data descriptor asks for, held against the packet's own headers.
fn offload(command: u64, packet: &[u8]) -> Result<Offload, String> {
    let l3 = 2 * (command >> 16 & 0x7f) as usize;
    let ip_len = 4 * (command >> 23 & 0x7f) as usize;
    let l4_len = 4 * (command >> 30 & 0xf) as usize;
    let iipt = command & regs::TX_IIPT;
    let ipv4 = iipt & regs::TX_IPV4 != 0;
    if iipt != 0 {
        let (least, version) = if ipv4 { (20, 4) } else { (40, 6) };
        if l3 < frame::ETHERNET || ip_len < least {
            return Err(format!("IIPT with MACLEN {l3} and IPLEN {ip_len} (in bytes)"));
        }
        if packet.get(l3).is_none_or(|byte| byte >> 4 != version) {
            return Err(format!("IIPT and MACLEN {l3} (in bytes) do not lead to an IPv{version} header"));
        }
    }
    let (transport, right) = match command & regs::TX_L4T {
        regs::TX_TCP => (Transport::Tcp, l4_len >= 20),
        regs::TX_UDP => (Transport::Udp, l4_len == 8),
        regs::TX_SCTP => (Transport::Sctp, l4_len == 12),
        _ => (Transport::None, true),
    };
    if !right || l3 + ip_len + l4_len > packet.len() {
        return Err(format!(
            "{transport:?} checksum with headers of {l3}, {ip_len} and {l4_len} bytes in {}",
            packet.len()
        ));
    }
    Ok(Offload {
        l3,
        l4: l3 + ip_len,
        ipv4,
        transport,
        ip_checksum: iipt == regs::TX_IPV4_CSUM,
        l4_checksum: transport != Transport::None,
    })
}

// IIPT 0x020 is IPv6 and shares no bit with IPv4 without a checksum, so one bit tells them apart.
const _: () = assert!(regs::TX_IPV6 & regs::TX_IPV4 == 0 && regs::TX_IPV4_CSUM == regs::TX_IPV4 | regs::TX_IPV6);
