//! The admin queues of the avf model: two rings in host memory that carry messages to and from the PF (fact sheet iavf 2.3,
//! 3, 7.1).
//!
//! What the PF answers is decided in `pf.rs`; this file is the transport between the two. A message for the VF
//! waits until its time has come and the driver has given a descriptor; none is kept over a reset.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::super::env::Env;
use super::super::fault::Faults;
use super::regs;

/// How long the device takes to look at a rung ATQ. Drivers poll every 50 us to 1 ms (iavf 3).
const FETCH_TIME: Duration = Duration::from_micros(5);
/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 32;

/// The registers of one queue.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) bal: u32,
    pub(super) bah: u32,
    pub(super) len: u32,
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl Queue {
    pub(super) fn enabled(&self) -> bool {
        self.len & regs::LEN_ENABLE != 0
    }

    fn entries(&self) -> u32 {
        self.len & regs::AQ_INDEX
    }

    /// IOVA of a descriptor; the low 6 bits of the base do not exist.
    pub(super) fn descriptor(&self, slot: u32) -> u64 {
        ((self.bah as u64) << 32 | (self.bal & !0x3f) as u64) + slot as u64 * DESCRIPTOR
    }

    /// What is wrong with a queue that is in use, if anything is.
    fn check(&self, name: &str, env: &Env) -> Result<(), String> {
        let entries = self.entries();
        if self.head >= entries || self.tail >= entries {
            return Err(format!("{name} of {entries} descriptors with head {} and tail {}", self.head, self.tail));
        }
        env.dma
            .check(self.descriptor(0), entries as usize * DESCRIPTOR as usize)
            .map_err(|fault| format!("{name} outside device memory: {fault}"))
    }

    fn advance(&mut self) {
        self.head = if self.head + 1 == self.entries() { 0 } else { self.head + 1 };
    }

    fn fetch(&self, env: &Env) -> Result<[u64; 4], String> {
        let at = self.descriptor(self.head);
        let [a, b] = env.dma.fetch(at).map_err(|f| f.to_string())?;
        let [c, d] = env.dma.fetch(at + 16).map_err(|f| f.to_string())?;
        Ok([a, b, c, d])
    }
}

/// A message for the VF.
pub(super) struct Message {
    pub(super) due: Duration,
    pub(super) opcode: u32,
    pub(super) status: i32,
    pub(super) payload: Vec<u8>,
    /// It answers a request.
    pub(super) reply: bool,
}

/// A message from the VF.
pub(super) struct Request {
    pub(super) opcode: u32,
    pub(super) payload: Vec<u8>,
}

/// Both queues and what waits for them.
#[derive(Default)]
pub(super) struct AdminQ {
    pub(super) atq: Queue,
    pub(super) arq: Queue,
    /// When the device looks at the ATQ.
    look_at: Option<Duration>,
    mail: VecDeque<Message>,
}

impl AdminQ {
    /// The register at an offset.
    pub(super) fn register(&mut self, offset: u32) -> Option<&mut u32> {
        let AdminQ { atq, arq, .. } = self;
        Some(match offset {
            regs::ATQBAL => &mut atq.bal,
            regs::ATQBAH => &mut atq.bah,
            regs::ATQLEN => &mut atq.len,
            regs::ATQH => &mut atq.head,
            regs::ATQT => &mut atq.tail,
            regs::ARQBAL => &mut arq.bal,
            regs::ARQBAH => &mut arq.bah,
            regs::ARQLEN => &mut arq.len,
            regs::ARQH => &mut arq.head,
            regs::ARQT => &mut arq.tail,
            _ => return None,
        })
    }

    /// The driver wrote ATQT.
    pub(super) fn rung(&mut self, now: Duration) {
        self.look_at.get_or_insert(now + FETCH_TIME);
    }

    /// The driver broke a rule of a queue: the device stops it.
    pub(super) fn stop_atq(&mut self) {
        (self.atq.len, self.look_at) = (0, None);
    }

    /// As [`stop_atq`](Self::stop_atq).
    pub(super) fn stop_arq(&mut self) {
        self.arq.len = 0;
    }

    /// A reset: both queues are off, and what was under way is lost.
    pub(super) fn reset(&mut self) {
        (self.atq.len, self.arq.len, self.look_at) = (0, 0, None);
        self.mail.clear();
    }

    /// Sends a message to the VF; those with an earlier time go first.
    pub(super) fn post(&mut self, message: Message) {
        let at = self.mail.iter().position(|m| m.due > message.due).unwrap_or(self.mail.len());
        self.mail.insert(at, message);
    }

    /// True while a reply waits to be delivered.
    pub(super) fn owes_reply(&self) -> bool {
        self.mail.iter().any(|m| m.reply)
    }

    /// Takes the next message that the driver posted, once the device looks. `Ok(None)`: none.
    pub(super) fn take(&mut self, env: &Env) -> Result<Option<Request>, String> {
        while self.look_at.is_some_and(|at| at <= env.now) {
            if !self.atq.enabled() || self.atq.head == self.atq.tail {
                self.look_at = None;
                break;
            }
            self.atq.check("ATQ", env)?;
            let mut words = self.atq.fetch(env)?;
            let result = parse(words, env);
            words[0] |= regs::AQ_DD | regs::AQ_CMP;
            words[0] &= 0x0000_ffff_ffff_ffff; // return value 0
            env.dma.write_four(self.atq.descriptor(self.atq.head), words, 0).map_err(|f| f.to_string())?;
            self.atq.advance();
            if let Some(request) = result? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }

    /// Writes messages whose time has come to the ARQ; how many.
    pub(super) fn deliver(&mut self, env: &Env, faults: &Faults) -> Result<usize, String> {
        let mut delivered = 0;
        while self.mail.front().is_some_and(|m| m.due <= env.now) {
            if !self.arq.enabled() {
                self.mail.pop_front(); // nobody listens
                continue;
            }
            self.arq.check("ARQ", env)?;
            if self.arq.head == self.arq.tail {
                break;
            }
            let Some(message) = self.mail.pop_front() else { break };
            let [word0, _, word2, word3] = self.arq.fetch(env)?;
            let room = (word0 >> 32 & 0xffff) as usize;
            let problem = match () {
                _ if word0 & regs::AQ_BUF == 0 => Some("without BUF".to_owned()),
                _ if word0 & (regs::AQ_DD | regs::AQ_ERR) != 0 => Some("with DD or ERR set".to_owned()),
                _ if room > regs::AQ_LARGE && word0 & regs::AQ_LB == 0 => Some("without LB".to_owned()),
                _ if room > regs::AQ_BUFFER_MAX => Some(format!("with a buffer of {room} bytes")),
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(format!("ARQ descriptor {} given {problem}", self.arq.head));
            }
            let buffer = word3.rotate_right(32);
            env.dma.check(buffer, room).map_err(|f| format!("ARQ descriptor {}: {f}", self.arq.head))?;
            let fits = message.payload.len().min(room);
            env.dma.write(buffer, &message.payload[..fits]).map_err(|f| f.to_string())?;
            let claimed = faults.lying_reply_length().unwrap_or(fits as u16);
            let flags = regs::AQ_DD | word0 & (regs::AQ_BUF | regs::AQ_LB);
            let words = [
                flags | regs::AQ_TO_VF << 16 | (claimed as u64) << 32,
                message.opcode as u64 | (message.status as u32 as u64) << 32,
                word2,
                word3,
            ];
            env.dma.write_four(self.arq.descriptor(self.arq.head), words, 0).map_err(|f| f.to_string())?;
            self.arq.advance();
            delivered += 1;
            if fits < message.payload.len() && faults.longer_replies() == 0 {
                return Err(format!("ARQ buffers of {room} bytes for messages of up to {}", regs::AQ_BUFFER_MAX));
            }
        }
        Ok(delivered)
    }
}

/// Takes a descriptor of the ATQ apart. `Ok(None)`: a message to the queue itself.
fn parse(words: [u64; 4], env: &Env) -> Result<Option<Request>, String> {
    let (flags, code, len) = (words[0] & 0xffff, words[0] >> 16 & 0xffff, (words[0] >> 32 & 0xffff) as usize);
    let bad = |what: String| Err(format!("ATQ descriptor {what} (flags {flags:#06x}, {len} bytes)"));
    if code == regs::AQ_SHUTDOWN {
        return Ok(None);
    }
    if code != regs::AQ_TO_PF {
        return bad(format!("with opcode {code:#06x}"));
    }
    if flags & (regs::AQ_DD | regs::AQ_CMP | regs::AQ_ERR) != 0 {
        return bad("with DD, CMP or ERR set".into());
    }
    if flags & regs::AQ_SI == 0 {
        return bad("without SI".into());
    }
    let mut payload = Vec::new();
    if len > 0 {
        if flags & regs::AQ_BUF == 0 || flags & regs::AQ_RD == 0 {
            return bad("of a message with data without BUF and RD".into());
        }
        if (len > regs::AQ_LARGE) != (flags & regs::AQ_LB != 0) {
            return bad(format!("whose LB does not fit (for more than {} bytes)", regs::AQ_LARGE));
        }
        if len > regs::AQ_BUFFER_MAX {
            return bad(format!("of more than {} bytes", regs::AQ_BUFFER_MAX));
        }
        let buffer = words[3].rotate_right(32);
        env.dma.read(buffer, len, &mut payload).map_err(|f| format!("ATQ descriptor: {f}"))?;
    }
    Ok(Some(Request { opcode: words[1] as u32, payload }))
}
