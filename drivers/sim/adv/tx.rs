//! The transmit engine: from descriptors to frames on the wire (fact sheets igbvf 4.5 to 4.7; ixgbevf 4.5 to 4.7).
//!
//! Gathers a frame over its descriptors, refuses what the sheet forbids, does what the context asks (VLAN insertion,
//! checksums, segmentation) on a private copy, and reports DD where RS was set. Frames leave in ring order.
#![forbid(unsafe_code)]

use super::super::env::Env;
use super::super::fault::Faults;
use super::super::frame::{self, MIN_FRAME, Transport};
use super::super::offload::{Offload, pad_and_emit};
use super::family::{Checked, DCA_WB_RO, QueueRegister, Rules};
use super::ring::Ring;

/// Shortest frame that makes sense: an Ethernet header.
const FRAME_MIN: usize = frame::ETHERNET;

// Transmit descriptors, dword 2.
pub(super) const DTALEN: u32 = 0xffff;
const DTYP_CONTEXT: u32 = 2;
pub(super) const DTYP_DATA: u32 = 3;
const EOP: u32 = 1 << 24;
const IFCS: u32 = 1 << 25;
pub(super) const RS: u32 = 1 << 27;
const DEXT: u32 = 1 << 29;
const VLE: u32 = 1 << 30;
const TSE: u32 = 1 << 31;
const CONTEXT_IPV4: u32 = 1 << 10;
// Dword 3 of a data descriptor.
const CC: u32 = 1 << 7;
const IXSM: u32 = 1 << 8;
const TXSM: u32 = 1 << 9;

/// Word 1 of a report: DD.
pub(super) const REPORT: u64 = 1 << 32;

const L4_UDP: u32 = 0;
const L4_TCP: u32 = 1;
const L4_SCTP: u32 = 2;

/// The type of a descriptor by its second word.
pub(super) fn dtyp(word1: u64) -> u32 {
    word1 as u32 >> 20 & 0xf
}

/// A context descriptor as the queue remembers it (igbvf 4.6, ixgbevf 4.6).
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
    rules: &'static Rules,
    pub(super) ring: Ring,
    pub(super) tdwbal: u32,
    pub(super) tdwbah: u32,
    contexts: [Option<Context>; 2],
    /// Descriptors that a packet may have with this TXDCTL.
    pub(super) descriptors_max: u32,
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
    pub(super) fn new(rules: &'static Rules, port: usize, queue: usize, garbage: u64) -> Self {
        TxQueue {
            rules,
            ring: Ring::new(rules, port, "tx", queue),
            // No reset clears these (igbvf 2.3, ixgbevf 2.4), so they hold what the last user left.
            tdwbal: garbage as u32 | 1,
            tdwbah: (garbage >> 32) as u32,
            contexts: [None; 2],
            descriptors_max: rules.tx_descriptors_max,
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

    /// A reset of the VF in a family that keeps queue registers over it.
    pub(super) fn lose_ring(&mut self, env: &mut Env) {
        self.ring.lose_ring(env);
        self.contexts = [None; 2];
    }

    pub(super) fn read(&self, register: QueueRegister, env: &Env) -> Option<u32> {
        match register {
            QueueRegister::Tdwbal => Some(self.tdwbal),
            QueueRegister::Tdwbah => Some(self.tdwbah),
            _ => self.ring.read(register, env.now),
        }
    }

    pub(super) fn check_enable(&mut self, mind_relaxed: bool, env: &Env) -> Checked {
        self.ring.check_enable(env)?;
        if self.tdwbal != 0 || self.tdwbah != 0 {
            self.ring.halted = true;
            return Err("tx queue enabled without writing 0 to TDWBAL and TDWBAH: \
                 head write-back goes where the last user left it"
                .into());
        }
        if mind_relaxed && self.ring.dca & DCA_WB_RO != 0 {
            // Works here, as it mostly does on silicon.
            let name = self.rules.tx_dca;
            return Err(format!("tx queue enabled with {name} bit 11 set: write-backs could pass each other"));
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
        let offload = frame.command & (VLE | TSE) != 0 || frame.olinfo & (IXSM | TXSM) != 0;
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
            self.ring.complete(frame.last, [0, REPORT], env, faults)?;
        }
        Ok(Some(frame.report))
    }

    /// Collects the descriptors and, where needed, the bytes of the frame at the head.
    fn gather(&mut self, need_bytes: bool, env: &mut Env) -> Result<Option<Gathered>, String> {
        let mut first: Option<(u32, u32)> = None;
        let mut copy = need_bytes;
        let (mut len, mut descriptors) = (0, 0);
        let mut left = self.ring.available();
        let mut slot = self.ring.head;
        while left > 0 {
            let words = env.dma.fetch(self.ring.descriptor(slot)).map_err(|f| f.to_string())?;
            let (command, olinfo) = (words[1] as u32, (words[1] >> 32) as u32);
            check_descriptor(self.rules, slot, words, first.is_some())?;
            if dtyp(words[1]) == DTYP_CONTEXT {
                self.contexts[(olinfo >> 4 & 1) as usize] = Some(Context::parse(words));
                slot = self.ring.next(slot);
                left -= 1;
                self.ring.head = slot;
                continue;
            }
            if first.is_none() {
                first = Some((command, olinfo));
                copy |= command & (VLE | TSE) != 0 || olinfo & (IXSM | TXSM) != 0;
                self.gathered.clear();
            }
            let piece = (command & DTALEN) as usize;
            if copy { env.dma.read(words[0], piece, &mut self.gathered) } else { env.dma.check(words[0], piece) }
                .map_err(|fault| format!("tx descriptor {slot}: {fault}"))?;
            (len, descriptors) = (len + piece, descriptors + 1);
            if descriptors > self.descriptors_max {
                return Err(format!("tx descriptor {slot} is one of a packet of more than {}", self.descriptors_max));
            }
            if command & EOP != 0 {
                let (command, olinfo) = first.unwrap_or((command, olinfo));
                let report = words[1] as u32 & RS != 0;
                self.release(slot, env)?;
                let frame = Gathered { command, olinfo, len, last: slot, report };
                self.check_frame(&frame)?;
                return Ok(Some(frame));
            }
            slot = self.ring.next(slot);
            left -= 1;
        }
        Ok(None)
    }

    /// What the sheet says about a whole frame.
    fn check_frame(&self, frame: &Gathered) -> Checked {
        let rules = self.rules;
        let index = frame.olinfo >> 4 & 1;
        let context = self.contexts[index as usize];
        let bad = |what: String| Err(format!("tx frame ending at descriptor {}: {what}", frame.last));
        if rules.tx_needs_context {
            if frame.olinfo & CC == 0 {
                return bad("CC is clear: the switch cannot check the frame".into());
            }
            match context {
                None => return bad(format!("CC names context {index}, which was never written")),
                Some(context) if context.mac_len < frame::ETHERNET => {
                    return bad(format!("CC names a context with MACLEN {}", context.mac_len));
                }
                Some(_) => {}
            }
        }
        let paylen = (frame.olinfo >> 14) as usize;
        if frame.command & TSE == 0 {
            if paylen != frame.len {
                return bad(format!("PAYLEN {paylen} is not the sum of its buffers, {}", frame.len));
            }
            if !(FRAME_MIN..=rules.tx_frame_max).contains(&frame.len) {
                return bad(format!("a frame of {} bytes ({FRAME_MIN} to {})", frame.len, rules.tx_frame_max));
            }
            return Ok(());
        }
        let Some(context) = context else { return bad("TSO without a context".into()) };
        let headers = context.headers();
        if context.l4 != L4_TCP || context.l4_len < 20 {
            return bad(format!("TSO with L4 type {} and L4LEN {}", context.l4, context.l4_len));
        }
        let (mss_max, headers_max) = (rules.mss_max, rules.tso_headers_max);
        if context.mss == 0 || context.mss > mss_max || headers > headers_max {
            return bad(format!("TSO with MSS {} (1 to {mss_max}) and headers of {headers} bytes", context.mss));
        }
        let ip_min = if context.ipv4 { 20 } else { 40 };
        if context.mac_len < frame::ETHERNET || context.ip_len < ip_min {
            return bad(format!("TSO with MACLEN {} and IPLEN {}", context.mac_len, context.ip_len));
        }
        if paylen == 0 || paylen + headers != frame.len {
            return bad(format!("TSO with PAYLEN {paylen} and headers of {headers} in {} bytes", frame.len));
        }
        let wanted = if context.ipv4 { IXSM | TXSM } else { TXSM };
        if frame.olinfo & (IXSM | TXSM) != wanted {
            return bad("TSO without IXSM (IPv4) and TXSM".into());
        }
        Ok(())
    }

    /// In worlds that check: the buffers from the head to `last` are the driver's again once DD is reported.
    fn release(&mut self, last: u32, env: &mut Env) -> Checked {
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
        let tag = (frame.command & VLE != 0).then_some(context.vlan);
        let mut finish = |bytes: &[u8], outgoing: &mut Vec<u8>, env: &mut Env| {
            outgoing.clear();
            match tag {
                Some(tci) => frame::insert_tag(bytes, tci, outgoing),
                None => outgoing.extend_from_slice(bytes),
            }
            pad_and_emit(outgoing, env, emit);
        };
        let offload = context.offload(frame.olinfo);
        if frame.command & TSE == 0 {
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
            ipv4: dword2 & CONTEXT_IPV4 != 0,
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
            ip_checksum: olinfo & IXSM != 0,
            l4_checksum: olinfo & TXSM != 0,
        }
    }
}

/// What the sheet says about a descriptor on its own.
fn check_descriptor(rules: &Rules, slot: u32, words: [u64; 2], inside: bool) -> Checked {
    let (command, olinfo) = (words[1] as u32, (words[1] >> 32) as u32);
    let problem = if command & DEXT == 0 {
        "DEXT is clear: a legacy descriptor"
    } else if olinfo >> 4 & 7 > 1 {
        "context index above 1"
    } else {
        match dtyp(words[1]) {
            DTYP_CONTEXT if inside => "a context descriptor inside a frame",
            DTYP_CONTEXT if command & !rules.tx_context_bits != 0 => "reserved bits set in a context (dword 2)",
            DTYP_CONTEXT if olinfo & !rules.tx_context_info_bits != 0 => "reserved bits set in a context (dword 3)",
            DTYP_CONTEXT if words[0] >> 32 != 0 => rules.tx_context_dword1,
            DTYP_CONTEXT => return Ok(()),
            DTYP_DATA if command & !rules.tx_data_bits != 0 => "reserved bits set (dword 2)",
            DTYP_DATA if olinfo & 1 != 0 => "DD is set before it was sent",
            DTYP_DATA if olinfo & !rules.tx_olinfo_bits != 0 => "reserved bits set (dword 3)",
            DTYP_DATA if command & DTALEN == 0 => "DTALEN 0",
            DTYP_DATA if command & IFCS == 0 => "IFCS is clear",
            DTYP_DATA if command & RS != 0 && command & EOP == 0 => "RS without EOP",
            DTYP_DATA => return Ok(()),
            _ => "DTYP is neither 2 (context) nor 3 (data)",
        }
    };
    Err(format!("tx descriptor {slot}: {problem}: {:#018x} {:#018x}", words[0], words[1]))
}
