//! What receive and transmit queues of the avf model share: the context that the PF programs, the tail, write-backs that are
//! late or held, and in worlds that check, the buffer of every armed descriptor.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::super::dma::ArmedBy;
use super::super::env::Env;
use super::super::fault::{Fault, Faults};
use super::regs;

/// Completed descriptors that are held until so many are there, where write-backs are batched (iavf 7.3).
const BATCH: usize = 4;

/// What the PF programs a ring with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Context {
    pub(super) base: u64,
    pub(super) entries: u32,
    /// Bytes of a descriptor: 16 or 32.
    pub(super) stride: u32,
    /// Descriptors that a tail publishes at a time, a power of two.
    pub(super) granule: u32,
    /// Bytes of a receive buffer.
    pub(super) buffer_len: usize,
}

/// A write-back that waits.
struct Late {
    due: Duration,
    slot: u32,
    words: [u64; 4],
}

/// One descriptor ring and the device's place in it.
pub(super) struct Ring {
    port: usize,
    /// `rx` or `tx`, for messages.
    pub(super) kind: &'static str,
    queue: usize,
    pub(super) context: Option<Context>,
    pub(super) head: u32,
    /// Tail as last seen.
    pub(super) tail: u32,
    pub(super) enabled: bool,
    /// The device stopped the queue because of a violation.
    pub(super) halted: bool,
    late: VecDeque<Late>,
    /// Completed and not written back, because no vector asks for it.
    held: Vec<(u32, [u64; 4])>,
    /// In worlds that check: the buffer of each armed descriptor.
    slots: Vec<u64>,
}

impl Ring {
    pub(super) fn new(port: usize, kind: &'static str, queue: usize) -> Self {
        Ring {
            port,
            kind,
            queue,
            context: None,
            head: 0,
            tail: 0,
            enabled: false,
            halted: false,
            late: VecDeque::new(),
            held: Vec::new(),
            slots: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn entries(&self) -> u32 {
        self.context.map_or(0, |c| c.entries)
    }

    /// Bytes of a receive buffer.
    #[inline]
    pub(super) fn buffer_len(&self) -> usize {
        self.context.map_or(0, |c| c.buffer_len)
    }

    /// IOVA of a descriptor.
    #[inline]
    pub(super) fn descriptor(&self, slot: u32) -> u64 {
        self.context.map_or(0, |c| c.base + (slot * c.stride) as u64)
    }

    #[inline]
    pub(super) fn next(&self, slot: u32) -> u32 {
        if slot + 1 == self.entries() { 0 } else { slot + 1 }
    }

    #[inline]
    fn distance(&self, from: u32, to: u32) -> u32 {
        if to >= from { to - from } else { to + self.entries() - from }
    }

    /// Descriptors that the device may use now.
    #[inline]
    pub(super) fn available(&self) -> u32 {
        let Some(context) = self.context.filter(|_| self.enabled && !self.halted) else { return 0 };
        self.distance(self.head, self.tail & !(context.granule - 1))
    }

    /// Stops the queue; nothing is written afterwards. The context stays.
    pub(super) fn stop(&mut self, env: &mut Env) {
        (self.enabled, self.halted, self.head) = (false, false, 0);
        self.late.clear();
        self.held.clear();
        self.slots.clear();
        if env.strict {
            env.dma.disarm_queue(self.port, self.kind, self.queue);
        }
    }

    /// A reset of the VF: the context is lost too.
    pub(super) fn reset(&mut self, env: &mut Env) {
        self.stop(env);
        self.context = None;
    }

    /// Starts the queue at descriptor 0, with the tail that was written before; what was wrong.
    pub(super) fn enable(&mut self, tail: u32, env: &mut Env) -> Result<(), String> {
        let (kind, queue) = (self.kind, self.queue);
        let Some(context) = self.context else { return Ok(()) };
        (self.enabled, self.halted, self.head, self.tail) = (true, false, 0, 0);
        self.slots = vec![0; if env.strict { context.entries as usize } else { 0 }];
        if let Err(fault) = env.dma.check(context.base, (context.entries * context.stride) as usize) {
            self.halted = true;
            return Err(format!("{kind} queue {queue} enabled with a ring outside device memory: {fault}"));
        }
        self.set_tail(tail, env)
    }

    /// Takes note of a tail that the driver wrote.
    pub(super) fn set_tail(&mut self, tail: u32, env: &mut Env) -> Result<(), String> {
        let from = std::mem::replace(&mut self.tail, tail);
        if !self.enabled || self.halted {
            return Ok(());
        }
        let (kind, queue, entries) = (self.kind, self.queue, self.entries());
        if tail >= entries {
            self.halted = true;
            return Err(format!("tail {tail} of {kind} queue {queue} is past the end of a ring of {entries}"));
        }
        let outstanding = self.distance(self.head, from);
        if outstanding + self.distance(from, tail) >= entries {
            self.halted = true;
            return Err(format!(
                "tail of {kind} queue {queue} went from {from} to {tail}, past the head at {}: at most {} descriptors may be armed",
                self.head,
                entries - 1
            ));
        }
        if env.strict { self.arm(from, tail, env) } else { Ok(()) }
    }

    /// Notes the buffers of newly armed descriptors.
    fn arm(&mut self, from: u32, to: u32, env: &mut Env) -> Result<(), String> {
        let mut slot = from;
        while slot != to {
            let [address, word1] = env.dma.fetch(self.descriptor(slot)).map_err(|f| f.to_string())?;
            let len = match self.kind {
                "rx" => self.buffer_len(),
                _ if word1 & regs::TX_DTYPE == regs::TX_DATA => ((word1 & regs::TX_SIZE) >> 34) as usize,
                _ => 0,
            };
            if len > 0 {
                let by = ArmedBy { port: self.port, ring: self.kind, queue: self.queue, slot };
                if let Err(error) = env.dma.arm(address, len, by) {
                    self.halted = true;
                    return Err(error);
                }
                self.slots[slot as usize] = address;
            }
            slot = self.next(slot);
        }
        Ok(())
    }

    /// The device used a descriptor whose buffer is at `address`.
    #[inline]
    pub(super) fn used(&mut self, slot: u32, address: u64, env: &mut Env) -> Result<(), String> {
        if !env.strict {
            return Ok(());
        }
        let armed = std::mem::take(&mut self.slots[slot as usize]);
        env.dma.disarm(armed);
        if armed != address {
            let (kind, queue) = (self.kind, self.queue);
            return Err(format!(
                "{kind} queue {queue}: descriptor {slot} was changed from {armed:#x} to {address:#x} while it was the device's"
            ));
        }
        Ok(())
    }

    /// Writes a descriptor back, now or as the faults have it; `hold` keeps it until there are several. A descriptor of
    /// 16 bytes has two words. The word with DD is word 1.
    #[inline]
    pub(super) fn complete(
        &mut self,
        slot: u32,
        words: [u64; 4],
        hold: bool,
        env: &Env,
        faults: &Faults,
    ) -> Result<(), String> {
        let due = match faults.writeback() {
            None if hold => {
                self.held.push((slot, words));
                return if self.held.len() >= BATCH { self.release(env) } else { Ok(()) };
            }
            None if self.late.is_empty() => return self.write(slot, words, env),
            None => env.now,
            Some(Fault::PartialWriteback(delay)) => {
                env.dma.write_first(self.descriptor(slot), words[0]).map_err(|f| f.to_string())?;
                env.now + delay
            }
            Some(Fault::DelayCompletions(delay)) => env.now + delay,
            Some(_) => return Ok(()),
        };
        self.late.push_back(Late { due, slot, words });
        Ok(())
    }

    fn write(&self, slot: u32, words: [u64; 4], env: &Env) -> Result<(), String> {
        let iova = self.descriptor(slot);
        if self.context.is_some_and(|c| c.stride == 32) {
            env.dma.write_four(iova, words, 1).map_err(|f| f.to_string())
        } else {
            env.dma.write_back(iova, [words[0], words[1]]).map_err(|f| f.to_string())
        }
    }

    /// True while completed descriptors are held.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Writes back what is held.
    pub(super) fn release(&mut self, env: &Env) -> Result<(), String> {
        for (slot, words) in std::mem::take(&mut self.held) {
            self.write(slot, words, env)?;
        }
        Ok(())
    }

    /// Writes back what is due; how many descriptors.
    pub(super) fn flush(&mut self, env: &Env) -> Result<usize, String> {
        let mut done = 0;
        while let Some(late) = self.late.pop_front_if(|late| late.due <= env.now) {
            self.write(late.slot, late.words, env)?;
            done += 1;
        }
        Ok(done)
    }
}
