//! What the rings of every family's model share: the rules for a tail, the buffers that a driver armed, and write-backs
//! that are late.
//!
//! Owns neither registers nor the place of the head: a family's ring has those, and calls this. What always holds: a
//! descriptor whose buffer the driver changed under the device's hands is reported, in worlds that check.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::bench::Lease;
use super::dma::ArmedBy;
use super::env::{Checked, Env};
use super::fault::{Fault, Faults};

/// Steps from `from` to `to` in a ring of `entries` descriptors.
#[inline]
pub(super) fn distance(from: u32, to: u32, entries: u32) -> u32 {
    if to >= from { to - from } else { to + entries - from }
}

/// The descriptor behind `slot`.
#[inline]
pub(super) fn next(slot: u32, entries: u32) -> u32 {
    if slot + 1 == entries { 0 } else { slot + 1 }
}

/// The buffers that a driver armed in one ring.
pub(super) struct Armed {
    port: usize,
    /// `rx` or `tx`.
    kind: &'static str,
    queue: usize,
    /// In worlds that check: the address of the buffer of each armed descriptor.
    slots: Vec<u64>,
    /// Somebody else plays the device's side.
    lent: Option<Lease>,
}

impl Armed {
    pub(super) fn new(port: usize, kind: &'static str, queue: usize) -> Self {
        Armed { port, kind, queue, slots: Vec::new(), lent: None }
    }

    /// The ring starts with nothing armed.
    pub(super) fn start(&mut self, entries: u32, env: &Env) {
        self.slots = vec![0; if env.strict { entries as usize } else { 0 }];
    }

    /// Lends the ring until it stops.
    pub(super) fn lend(&mut self) -> Lease {
        let lease = Lease::new(CachePadded::new(true.into()));
        self.lent = Some(lease.clone());
        lease
    }

    /// The ring stops, and holds nothing any more.
    pub(super) fn stop(&mut self, env: &mut Env) {
        if let Some(lease) = self.lent.take() {
            *lease.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
        self.slots.clear();
        if env.strict {
            env.dma.disarm_queue(self.port, self.kind, self.queue);
        }
    }

    /// Takes note of a tail that went from `from` to `tail`: `descriptor` is where a descriptor lies, and `len` what its words
    /// say of the length of its buffer, 0 for none.
    pub(super) fn advance(
        &mut self,
        (from, tail): (u32, u32),
        head: u32,
        entries: u32,
        env: &mut Env,
        descriptor: impl Fn(u32) -> u64,
        len: impl Fn(u64) -> usize,
    ) -> Checked {
        let Armed { port, kind, queue, .. } = *self;
        if tail >= entries {
            return Err(format!("tail {tail} of {kind} queue {queue} is past the end of a ring of {entries}"));
        }
        if distance(head, from, entries) + distance(from, tail, entries) >= entries {
            let most = entries - 1;
            return Err(format!(
                "tail of {kind} queue {queue} went from {from} to {tail}, past the head at {head}: at most {most} \
                 descriptors may be armed"
            ));
        }
        let mut slot = from;
        while env.strict && slot != tail {
            let [address, word1] = env.dma.fetch(descriptor(slot)).map_err(|f| f.to_string())?;
            let len = len(word1);
            if len > 0 {
                env.dma.arm(address, len, ArmedBy { port, ring: kind, queue, slot })?;
                self.slots[slot as usize] = address;
            }
            slot = next(slot, entries);
        }
        Ok(())
    }

    /// The device used a descriptor whose buffer is at `address`.
    #[inline]
    pub(super) fn used(&mut self, slot: u32, address: u64, env: &mut Env) -> Checked {
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
}

/// Write-backs of one ring that wait for their time: where, and the first `usize` of the words.
#[derive(Default)]
pub(super) struct WriteBacks {
    late: VecDeque<(Duration, u64, [u64; 4], usize)>,
}

impl WriteBacks {
    /// Writes the first `count` words, two or four, of the descriptor at `iova`, now or as the faults have it.
    #[inline]
    pub(super) fn complete(&mut self, iova: u64, words: [u64; 4], count: usize, env: &Env, faults: &Faults) -> Checked {
        let due = match faults.writeback() {
            None if self.late.is_empty() => return write(iova, words, count, env),
            None => env.now,
            Some(Fault::PartialWriteback(delay)) => {
                env.dma.write_first(iova, words[0]).map_err(|f| f.to_string())?;
                env.now + delay
            }
            Some(Fault::DelayCompletions(delay)) => env.now + delay,
            Some(_) => return Ok(()),
        };
        self.late.push_back((due, iova, words, count));
        Ok(())
    }

    /// Forgets what waits.
    pub(super) fn clear(&mut self) {
        self.late.clear();
    }

    /// Writes back what is due; how many descriptors.
    pub(super) fn flush(&mut self, env: &Env) -> Result<usize, String> {
        let mut done = 0;
        while let Some((_, iova, words, count)) = self.late.pop_front_if(|late| late.0 <= env.now) {
            write(iova, words, count, env)?;
            done += 1;
        }
        Ok(done)
    }
}

/// Writes a descriptor back at once. The word with DD is word 1 in every family.
#[inline]
pub(super) fn write(iova: u64, words: [u64; 4], count: usize, env: &Env) -> Checked {
    let written = match count {
        4 => env.dma.write_four(iova, words, 1),
        _ => env.dma.write_back(iova, [words[0], words[1]]),
    };
    written.map_err(|f| f.to_string())
}
