//! What receive and transmit queues of the avf model share: the context that the PF programs, the tail, write-backs that are
//! late or held, and in worlds that check, the buffer of every armed descriptor.
#![forbid(unsafe_code)]

use super::super::bench::LentRing;
use super::super::env::{Checked, Env};
use super::super::fault::Faults;
use super::super::ring::{Armed, WriteBacks, distance, next, write};
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

/// One descriptor ring and the device's place in it.
pub(super) struct Ring {
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
    late: WriteBacks,
    /// Completed and not written back, because no vector asks for it.
    held: Vec<(u32, [u64; 4])>,
    armed: Armed,
}

impl Ring {
    pub(super) fn new(port: usize, kind: &'static str, queue: usize) -> Self {
        Ring {
            kind,
            queue,
            context: None,
            head: 0,
            tail: 0,
            enabled: false,
            halted: false,
            late: WriteBacks::default(),
            held: Vec::new(),
            armed: Armed::new(port, kind, queue),
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
        next(slot, self.entries())
    }

    /// Descriptors that the device may use now.
    #[inline]
    pub(super) fn available(&self) -> u32 {
        let Some(context) = self.context.filter(|_| self.enabled && !self.halted) else { return 0 };
        distance(self.head, self.tail & !(context.granule - 1), context.entries)
    }

    /// Stops the queue; nothing is written afterwards. The context stays.
    pub(super) fn stop(&mut self, env: &mut Env) {
        (self.enabled, self.halted, self.head) = (false, false, 0);
        self.late.clear();
        self.held.clear();
        self.armed.stop(env);
    }

    /// A reset of the VF: the context is lost too.
    pub(super) fn reset(&mut self, env: &mut Env) {
        self.stop(env);
        self.context = None;
    }

    /// Starts the queue at descriptor 0, with the tail that was written before; what was wrong.
    pub(super) fn enable(&mut self, tail: u32, env: &mut Env) -> Checked {
        let (kind, queue) = (self.kind, self.queue);
        let Some(context) = self.context else { return Ok(()) };
        (self.enabled, self.halted, self.head, self.tail) = (true, false, 0, 0);
        self.armed.start(context.entries, env);
        if let Err(fault) = env.dma.check(context.base, (context.entries * context.stride) as usize) {
            self.halted = true;
            return Err(format!("{kind} queue {queue} enabled with a ring outside device memory: {fault}"));
        }
        self.set_tail(tail, env)
    }

    /// Takes note of a tail that the driver wrote.
    pub(super) fn set_tail(&mut self, tail: u32, env: &mut Env) -> Checked {
        let from = std::mem::replace(&mut self.tail, tail);
        let Some(Context { base, entries, stride, buffer_len, .. }) =
            self.context.filter(|_| self.enabled && !self.halted)
        else {
            return Ok(());
        };
        let rx_len = (self.kind == "rx").then_some(buffer_len);
        let descriptor = |slot| base + (slot * stride) as u64;
        let len = |word1| match rx_len {
            Some(len) => len,
            None if word1 & regs::TX_DTYPE == regs::TX_DATA => ((word1 & regs::TX_SIZE) >> 34) as usize,
            None => 0,
        };
        let result = self.armed.advance((from, tail), self.head, entries, env, descriptor, len);
        self.halted |= result.is_err();
        result
    }

    /// Lends the ring to a benchmark; for the model it stands still, as if it had been stopped for a violation.
    pub(super) fn lend(&mut self) -> Option<LentRing> {
        let Context { base, entries, stride, granule, .. } = self.context.filter(|_| self.enabled && !self.halted)?;
        self.halted = true;
        Some(LentRing { base, stride, entries, head: self.head, granule, lease: self.armed.lend() })
    }

    /// The device used a descriptor whose buffer is at `address`.
    #[inline]
    pub(super) fn used(&mut self, slot: u32, address: u64, env: &mut Env) -> Checked {
        self.armed.used(slot, address, env)
    }

    /// Writes a descriptor back, now or as the faults have it; `hold` keeps it until there are several. A descriptor of
    /// 16 bytes has two words. The word with DD is word 1.
    #[inline]
    pub(super) fn complete(&mut self, slot: u32, words: [u64; 4], hold: bool, env: &Env, faults: &Faults) -> Checked {
        if hold && faults.writeback().is_none() {
            self.held.push((slot, words));
            return if self.held.len() >= BATCH { self.release(env) } else { Ok(()) };
        }
        self.late.complete(self.descriptor(slot), words, self.words(), env, faults)
    }

    /// Words of a descriptor.
    fn words(&self) -> usize {
        self.context.map_or(0, |c| c.stride as usize / size_of::<u64>())
    }

    /// True while completed descriptors are held.
    #[inline]
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Writes back what is held.
    pub(super) fn release(&mut self, env: &Env) -> Checked {
        for (slot, words) in std::mem::take(&mut self.held) {
            write(self.descriptor(slot), words, self.words(), env)?;
        }
        Ok(())
    }

    /// Writes back what is due; how many descriptors.
    pub(super) fn flush(&mut self, env: &Env) -> Result<usize, String> {
        self.late.flush(env)
    }
}
