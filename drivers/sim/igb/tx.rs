//! The transmit engine: from descriptors to frames on the wire (fact sheet igbvf 4.5 to 4.7).
//!
//! Gathers a frame over its descriptors, refuses what the sheet forbids, does what the context asks (VLAN insertion,
//! checksums, segmentation) on a private copy, and reports DD where RS was set. Frames leave in ring order.
#![forbid(unsafe_code)]

use super::super::env::Env;
use super::super::fault::Faults;
use super::super::frame::{self, MIN_FRAME, Transport};
use super::super::offload::{Offload, pad_and_emit};
use super::regs;
use super::ring::Ring;

/// Longest frame without TSO: the 14-bit length field (igbvf 4.7).
const FRAME_MAX: usize = 16383;
/// Shortest frame that makes sense: an Ethernet header.
const FRAME_MIN: usize = frame::ETHERNET;
/// Largest MSS (igbvf 4.7).
const MSS_MAX: u16 = 9216;
/// Longest headers of a segmented packet (igbvf 4.7).
const TSO_HEADERS_MAX: usize = 512;

const L4_UDP: u32 = 0;
const L4_TCP: u32 = 1;
const L4_SCTP: u32 = 2;

/// A context descriptor as the queue remembers it (igbvf 4.6).
#[derive(Clone, Copy, Debug)]
struct Context {
    ip_len: usize,
    mac_len: usize,
    vlan: u16,
    ipv4: bool,
    l4: u32,
    l4_len: usize,
    mss: u16,
}

/// One transmit queue.
pub(super) struct TxQueue {
    pub(super) ring: Ring,
    pub(super) tdwbal: u32,
    pub(super) tdwbah: u32,
    contexts: [Option<Context>; 2],
    /// The frame being gathered, and the frame as it goes out.
    gathered: Vec<u8>,
    outgoing: Vec<u8>,
}

/// A frame gathered from the ring.
struct Gathered {
    /// Dwords 2 and 3 of its first descriptor.
    command: u32,
    olinfo: u32,
    len: usize,
    /// Slot of its last descriptor, and whether that has RS.
    last: u32,
    report: bool,
}

impl TxQueue {
    pub(super) fn new(port: usize, queue: usize, garbage: u64) -> Self {
        TxQueue {
            ring: Ring::new(port, "tx", queue),
            // No reset clears these (igbvf 2.3), so they hold what the last user left.
            tdwbal: garbage as u32 | 1,
            tdwbah: (garbage >> 32) as u32,
            contexts: [None; 2],
            gathered: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    pub(super) fn stop(&mut self, env: &mut Env, lost: bool) {
        self.ring.stop(env, lost);
        self.contexts = [None; 2];
    }

    pub(super) fn reset(&mut self, env: &mut Env, lost: bool) {
        self.ring.reset(env, lost);
        self.contexts = [None; 2];
    }

    pub(super) fn read(&self, offset: u32, env: &Env) -> Option<u32> {
        match offset {
            regs::TDWBAL => Some(self.tdwbal),
            regs::TDWBAH => Some(self.tdwbah),
            _ => self.ring.read(offset, env.now),
        }
    }

    pub(super) fn check_enable(&mut self, env: &Env) -> Result<(), String> {
        self.ring.check_enable(env)?;
        if self.tdwbal != 0 || self.tdwbah != 0 {
            self.ring.halted = true;
            return Err("tx queue enabled without writing 0 to TDWBAL and TDWBAH: \
                 head write-back goes where the last user left it"
                .into());
        }
        if self.ring.dca & regs::TXCTL_WB_RO != 0 {
            // Works here, as it mostly does on silicon.
            return Err("tx queue enabled with TXCTL bit 11 set: write-backs could pass each other".into());
        }
        Ok(())
    }

    /// Sends the next frame of the ring: `emit` gets each frame that goes out (several with TSO) and its length. With
    /// `need_bytes` false, plain frames are counted only and `emit` gets no bytes. `Ok(None)`: nothing (complete) to send;
    /// else whether DD was reported.
    pub(super) fn send_one(
        &mut self,
        need_bytes: bool,
        env: &mut Env,
        faults: &Faults,
        mut emit: impl FnMut(&mut Env, &[u8], usize),
    ) -> Result<Option<bool>, String> {
        let Some(frame) = self.gather(need_bytes, env)? else { return Ok(None) };
        let offload =
            frame.command & (regs::TX_VLE | regs::TX_TSE) != 0 || frame.olinfo & (regs::TX_IXSM | regs::TX_TXSM) != 0;
        if offload {
            let context = self.contexts[(frame.olinfo >> 4 & 1) as usize]
                .ok_or("offload asked of a context that was never written")?;
            self.send_offload(&frame, &context, env, &mut emit)?;
        } else if need_bytes {
            self.outgoing.clear();
            self.outgoing.extend_from_slice(&self.gathered);
            pad_and_emit(&mut self.outgoing, env, &mut emit);
        } else {
            emit(env, &[], frame.len.max(MIN_FRAME));
        }
        self.ring.head = self.ring.next(frame.last);
        if frame.report {
            // Write-back overwrites the descriptor: only DD means anything.
            self.ring.complete(frame.last, [0, 1 << 32], env, faults)?;
        }
        Ok(Some(frame.report))
    }

    /// Collects the descriptors and, where needed, the bytes of the frame at the head.
    fn gather(&mut self, need_bytes: bool, env: &mut Env) -> Result<Option<Gathered>, String> {
        let mut first: Option<(u32, u32)> = None;
        let mut copy = need_bytes;
        let mut len = 0;
        let mut left = self.ring.available();
        let mut slot = self.ring.head;
        while left > 0 {
            let words = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            let (command, olinfo) = (words[1] as u32, (words[1] >> 32) as u32);
            check_descriptor(slot, words, first.is_some())?;
            if command >> 20 & 0xf == regs::TX_DTYP_CONTEXT {
                self.contexts[(olinfo >> 4 & 1) as usize] = Some(Context::parse(words));
                slot = self.ring.next(slot);
                left -= 1;
                self.ring.head = slot;
                continue;
            }
            if first.is_none() {
                first = Some((command, olinfo));
                copy |= command & (regs::TX_VLE | regs::TX_TSE) != 0 || olinfo & (regs::TX_IXSM | regs::TX_TXSM) != 0;
                self.gathered.clear();
            }
            let piece = (command & 0xffff) as usize;
            if copy { env.dma.read(words[0], piece, &mut self.gathered) } else { env.dma.check(words[0], piece) }
                .map_err(|fault| format!("tx descriptor {slot}: {fault}"))?;
            len += piece;
            if command & regs::TX_EOP != 0 {
                let (command, olinfo) = first.unwrap_or((command, olinfo));
                let report = words[1] as u32 & regs::TX_RS != 0;
                self.release(slot, env)?;
                let frame = Gathered { command, olinfo, len, last: slot, report };
                check_lengths(&frame, &self.contexts)?;
                return Ok(Some(frame));
            }
            slot = self.ring.next(slot);
            left -= 1;
        }
        Ok(None)
    }

    /// In worlds that check: the buffers from the head to `last` are the driver's again once DD is reported.
    fn release(&mut self, last: u32, env: &mut Env) -> Result<(), String> {
        if !env.strict {
            return Ok(());
        }
        let mut slot = self.ring.head;
        loop {
            let [address, _] = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            self.ring.used(slot, address, env)?;
            if slot == last {
                return Ok(());
            }
            slot = self.ring.next(slot);
        }
    }

    fn send_offload(
        &mut self,
        frame: &Gathered,
        context: &Context,
        env: &mut Env,
        emit: &mut impl FnMut(&mut Env, &[u8], usize),
    ) -> Result<(), String> {
        let tag = (frame.command & regs::TX_VLE != 0).then_some(context.vlan);
        let mut finish = |bytes: &[u8], outgoing: &mut Vec<u8>, env: &mut Env| {
            outgoing.clear();
            match tag {
                Some(tci) => frame::insert_tag(bytes, tci, outgoing),
                None => outgoing.extend_from_slice(bytes),
            }
            pad_and_emit(outgoing, env, emit);
        };
        let offload = context.offload(frame.olinfo);
        if frame.command & regs::TX_TSE == 0 {
            offload.insert_checksums(&mut self.gathered)?;
            finish(&self.gathered, &mut self.outgoing, env);
            return Ok(());
        }
        offload.segment(&self.gathered, context.headers(), context.mss as usize, |segment| {
            finish(segment, &mut self.outgoing, env);
        })
    }
}

impl Context {
    fn parse(words: [u64; 2]) -> Self {
        let (dword0, dword2, dword3) = (words[0] as u32, words[1] as u32, (words[1] >> 32) as u32);
        Context {
            ip_len: (dword0 & 0x1ff) as usize,
            mac_len: (dword0 >> 9 & 0x7f) as usize,
            vlan: (dword0 >> 16) as u16,
            ipv4: dword2 & regs::TX_CONTEXT_IPV4 != 0,
            l4: dword2 >> 11 & 3,
            l4_len: (dword3 >> 8 & 0xff) as usize,
            mss: (dword3 >> 16) as u16,
        }
    }

    fn headers(&self) -> usize {
        self.mac_len + self.ip_len + self.l4_len
    }

    /// What `olinfo` asks for with this context.
    fn offload(&self, olinfo: u32) -> Offload {
        Offload {
            l3: self.mac_len,
            l4: self.mac_len + self.ip_len,
            ipv4: self.ipv4,
            transport: match self.l4 {
                L4_TCP => Transport::Tcp,
                L4_UDP => Transport::Udp,
                L4_SCTP => Transport::Sctp,
                _ => Transport::None,
            },
            ip_checksum: olinfo & regs::TX_IXSM != 0,
            l4_checksum: olinfo & regs::TX_TXSM != 0,
        }
    }
}

/// What the sheet says about a descriptor on its own.
fn check_descriptor(slot: u32, words: [u64; 2], inside: bool) -> Result<(), String> {
    let (command, olinfo) = (words[1] as u32, (words[1] >> 32) as u32);
    let problem = if command & regs::TX_DEXT == 0 {
        "DEXT is clear: a legacy descriptor"
    } else if olinfo >> 4 & 7 > 1 {
        "context index above 1"
    } else {
        match command >> 20 & 0xf {
            regs::TX_DTYP_CONTEXT if inside => "a context descriptor inside a frame",
            regs::TX_DTYP_CONTEXT if command & !regs::TX_CONTEXT_BITS != 0 => {
                "reserved bits set in a context (dword 2)"
            }
            regs::TX_DTYP_CONTEXT if olinfo & !regs::TX_CONTEXT_INFO_BITS != 0 => {
                "reserved bits set in a context (dword 3)"
            }
            regs::TX_DTYP_CONTEXT if words[0] >> 32 != 0 => "launch time set in a context",
            regs::TX_DTYP_CONTEXT => return Ok(()),
            regs::TX_DTYP_DATA if command & !regs::TX_DATA_BITS != 0 => "reserved bits set (dword 2)",
            regs::TX_DTYP_DATA if olinfo & 1 != 0 => "DD is set before it was sent",
            regs::TX_DTYP_DATA if olinfo & !regs::TX_OLINFO_BITS != 0 => "reserved bits set (dword 3)",
            regs::TX_DTYP_DATA if command & 0xffff == 0 => "DTALEN 0",
            regs::TX_DTYP_DATA if command & regs::TX_IFCS == 0 => "IFCS is clear",
            regs::TX_DTYP_DATA if command & regs::TX_RS != 0 && command & regs::TX_EOP == 0 => "RS without EOP",
            regs::TX_DTYP_DATA => return Ok(()),
            _ => "DTYP is neither 2 (context) nor 3 (data)",
        }
    };
    Err(format!("tx descriptor {slot}: {problem}: {:#018x} {:#018x}", words[0], words[1]))
}

/// What the sheet says about the lengths of a whole frame.
fn check_lengths(frame: &Gathered, contexts: &[Option<Context>; 2]) -> Result<(), String> {
    let paylen = (frame.olinfo >> 14) as usize;
    let context = contexts[(frame.olinfo >> 4 & 1) as usize];
    let bad = |what: String| Err(format!("tx frame ending at descriptor {}: {what}", frame.last));
    if frame.command & regs::TX_TSE == 0 {
        if paylen != frame.len {
            return bad(format!("PAYLEN {paylen} is not the sum of its buffers, {}", frame.len));
        }
        if !(FRAME_MIN..=FRAME_MAX).contains(&frame.len) {
            return bad(format!("a frame of {} bytes ({FRAME_MIN} to {FRAME_MAX})", frame.len));
        }
        return Ok(());
    }
    let Some(context) = context else { return bad("TSO without a context".into()) };
    let headers = context.headers();
    if context.l4 != L4_TCP || context.l4_len < 20 {
        return bad(format!("TSO with L4 type {} and L4LEN {}", context.l4, context.l4_len));
    }
    if context.mss == 0 || context.mss > MSS_MAX || headers > TSO_HEADERS_MAX {
        return bad(format!("TSO with MSS {} (1 to {MSS_MAX}) and headers of {headers} bytes", context.mss));
    }
    let ip_min = if context.ipv4 { 20 } else { 40 };
    if context.mac_len < frame::ETHERNET || context.ip_len < ip_min {
        return bad(format!("TSO with MACLEN {} and IPLEN {}", context.mac_len, context.ip_len));
    }
    if paylen == 0 || paylen + headers != frame.len {
        return bad(format!("TSO with PAYLEN {paylen} and headers of {headers} in {} bytes", frame.len));
    }
    let wanted = if context.ipv4 { regs::TX_IXSM | regs::TX_TXSM } else { regs::TX_TXSM };
    if frame.olinfo & (regs::TX_IXSM | regs::TX_TXSM) != wanted {
        return bad("TSO without IXSM (IPv4) and TXSM".into());
    }
    Ok(())
}
