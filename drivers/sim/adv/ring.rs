//! What receive and transmit queues share: ring registers, the tail, and write-backs that are late.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::super::bench::LentRing;
use super::super::env::Env;
use super::super::fault::{Fault, Faults};
use super::super::ring::{Armed, WriteBacks, distance, next};
use super::family::{Checked, DCTL_ENABLE, DCTL_SWFLSH, QueueRegister, Rules};
use super::tx::{DTALEN, DTYP_DATA, dtyp};

/// Bytes of a descriptor (igbvf 4, ixgbevf 4).
const DESCRIPTOR: u32 = 16;
/// Ring base alignment and length granule in bytes (igbvf 4, ixgbevf 4).
const RING_ALIGN: u32 = 128;
/// Fewest descriptors of a ring (igbvf 4).
const RING_MIN: u32 = 8;
/// How long ENABLE still reads 1 after it was cleared; drivers wait up to 10 ms, or 100 us (igbvf 5.2, ixgbevf 5.1).
const DISABLE_TIME: Duration = Duration::from_micros(5);

/// One descriptor ring: its registers and the device's place in it.
pub(super) struct Ring {
    rules: &'static Rules,
    /// `rx` or `tx`, for messages.
    pub(super) kind: &'static str,
    queue: usize,
    bal: u32,
    bah: u32,
    len: u32,
    /// Reads of the device when the length was written.
    pub(super) len_at: Option<u64>,
    /// The register of DCA and relaxed ordering.
    pub(super) dca: u32,
    /// RXDCTL or TXDCTL without ENABLE.
    pub(super) dctl: u32,
    pub(super) head: u32,
    /// Tail as last seen.
    pub(super) tail: u32,
    /// ENABLE is set.
    pub(super) enabled: bool,
    /// ENABLE still reads 1 until then.
    disabling: Duration,
    /// The tail left the head since the queue was enabled: the head is the device's.
    pub(super) started: bool,
    /// The device stopped the queue because of a violation.
    pub(super) halted: bool,
    /// The queue was lost to a reset that the driver did not ask for, so it may still ring the doorbell.
    lost: bool,
    late: WriteBacks,
    armed: Armed,
    /// Bytes of a receive buffer.
    pub(super) buffer_len: usize,
}

impl Ring {
    pub(super) fn new(rules: &'static Rules, port: usize, kind: &'static str, queue: usize) -> Self {
        let mut ring = Ring {
            rules,
            kind,
            queue,
            bal: 0,
            bah: 0,
            len: 0,
            len_at: None,
            dca: 0,
            dctl: 0,
            head: 0,
            tail: 0,
            enabled: false,
            disabling: Duration::ZERO,
            started: false,
            halted: false,
            lost: false,
            late: WriteBacks::default(),
            armed: Armed::new(port, kind, queue),
            buffer_len: 0,
        };
        ring.set_defaults();
        ring
    }

    fn set_defaults(&mut self) {
        let tx = (self.kind == "tx") as usize;
        (self.bal, self.bah, self.len, self.head) = (0, 0, 0, 0);
        (self.dca, self.dctl) = (self.rules.dca_reset[tx], self.rules.dctl_reset[tx]);
    }

    /// Descriptors in the ring.
    #[inline]
    pub(super) fn entries(&self) -> u32 {
        self.len / DESCRIPTOR
    }

    fn base(&self) -> u64 {
        (self.bah as u64) << 32 | self.bal as u64
    }

    /// IOVA of a descriptor.
    #[inline]
    pub(super) fn descriptor(&self, slot: u32) -> u64 {
        self.base() + (slot * DESCRIPTOR) as u64
    }

    #[inline]
    pub(super) fn next(&self, slot: u32) -> u32 {
        next(slot, self.entries())
    }

    /// Descriptors that the device may use now.
    #[inline]
    pub(super) fn available(&self) -> u32 {
        if self.enabled && self.started && !self.halted { distance(self.head, self.tail, self.entries()) } else { 0 }
    }

    /// Stops the queue: by the driver (`lost` false) or behind its back.
    pub(super) fn stop(&mut self, env: &mut Env, lost: bool) {
        // A reset by the driver ends the excuse: its queues have let go before.
        if self.enabled || !lost {
            self.lost = lost;
        }
        (self.enabled, self.started, self.halted) = (false, false, false);
        self.late.clear();
        self.armed.stop(env);
    }

    /// A reset of the whole function: registers at their defaults.
    pub(super) fn reset(&mut self, env: &mut Env, lost: bool) {
        self.stop(env, lost);
        self.set_defaults();
    }

    /// A reset of the VF in a family that keeps queue registers over it: the ring itself is lost, everything else stays,
    /// also ENABLE. A queue that was left enabled stands still until it is disabled.
    pub(super) fn lose_ring(&mut self, env: &mut Env) {
        let enabled = self.enabled;
        self.stop(env, false);
        (self.bal, self.bah, self.len) = (0, 0, 0);
        (self.enabled, self.halted) = (enabled, enabled);
    }

    /// True while the device could reach the ring or a buffer in it.
    pub(super) fn reaches_memory(&self) -> bool {
        self.enabled && self.len > 0
    }

    /// A register of the ring.
    pub(super) fn read(&self, register: QueueRegister, now: Duration) -> Option<u32> {
        Some(match register {
            QueueRegister::Bal => self.bal,
            QueueRegister::Bah => self.bah,
            QueueRegister::Len => self.len,
            QueueRegister::Head => self.head,
            QueueRegister::Dca => self.dca,
            QueueRegister::Tail => self.tail,
            QueueRegister::Dctl => self.dctl | if self.enabled || now < self.disabling { DCTL_ENABLE } else { 0 },
            _ => return None,
        })
    }

    /// Writes a register other than the tail and the control register; what was wrong with it.
    pub(super) fn write(&mut self, register: QueueRegister, value: u32) -> Checked {
        let (kind, queue) = (self.kind, self.queue);
        if self.enabled && !matches!(register, QueueRegister::Head | QueueRegister::Dca) {
            return Err(format!("ring registers of {kind} queue {queue} written while it is enabled"));
        }
        match register {
            // The low 7 bits do not exist; a base that needs them is found here, not by a corrupt ring.
            QueueRegister::Bal if !value.is_multiple_of(RING_ALIGN) => {
                return Err(format!("{kind} queue {queue}: ring base {value:#x} is not a multiple of 128 bytes"));
            }
            QueueRegister::Bal => self.bal = value,
            QueueRegister::Bah => self.bah = value,
            QueueRegister::Len if value & !self.rules.len_bits != 0 => {
                return Err(format!("{kind} queue {queue}: ring length {value:#x} is not a multiple of 128 bytes"));
            }
            QueueRegister::Len => self.len = value,
            QueueRegister::Head if self.started => {
                return Err(format!("{kind} queue {queue}: head written while it is the device's"));
            }
            QueueRegister::Head if self.enabled && value >= self.entries() => {
                return Err(format!("{kind} queue {queue}: head {value} written, past the end of its ring"));
            }
            QueueRegister::Head => self.head = value & 0xffff,
            _ => self.dca = value,
        }
        Ok(())
    }

    /// Writes RXDCTL or TXDCTL; true when the queue was enabled by it.
    pub(super) fn write_control(&mut self, value: u32, env: &mut Env, faults: &Faults) -> bool {
        let enable = value & DCTL_ENABLE != 0;
        self.dctl = value & !(DCTL_ENABLE | DCTL_SWFLSH);
        if self.enabled && !enable && !faults.has(Fault::EnableStuck) {
            self.stop(env, false);
            self.disabling = env.now + DISABLE_TIME;
        }
        let enabled = enable && !self.enabled;
        if enabled {
            (self.enabled, self.started, self.halted, self.lost) = (true, false, false, false);
            self.armed.start(self.entries(), env);
        }
        enabled
    }

    /// Rules for a ring that is being enabled; the queue does not run unless they hold.
    pub(super) fn check_enable(&mut self, env: &Env) -> Checked {
        let (kind, queue) = (self.kind, self.queue);
        let (entries, most) = (self.entries(), self.rules.ring_max);
        let result = if !(RING_MIN..=most).contains(&entries) {
            Err(format!("{kind} queue {queue} enabled with a ring of {entries} descriptors ({RING_MIN} to {most})"))
        } else if let Err(fault) = env.dma.check(self.base(), self.len as usize) {
            Err(format!("{kind} queue {queue} enabled with a ring outside device memory: {fault}"))
        } else if self.head >= entries {
            Err(format!("{kind} queue {queue} enabled with head {} past its end", self.head))
        } else if self.rules.reset_keeps_queues && self.tail != self.head {
            Err(format!(
                "{kind} queue {queue} enabled with head {} and tail {}, which a reset leaves as they were: the device \
                 takes what is between them",
                self.head, self.tail
            ))
        } else {
            Ok(())
        };
        self.halted |= result.is_err();
        result
    }

    /// Takes note of a tail written by the driver.
    pub(super) fn set_tail(&mut self, tail: u32, env: &mut Env) -> Checked {
        let old = std::mem::replace(&mut self.tail, tail);
        let (kind, queue, entries) = (self.kind, self.queue, self.entries());
        if !self.enabled {
            let excused = tail == 0 || self.lost;
            return if excused {
                Ok(())
            } else {
                Err(format!("tail {tail} of {kind} queue {queue} written while it is disabled"))
            };
        }
        if self.halted {
            return Ok(());
        }
        let from = if self.started { old } else { self.head };
        self.started |= tail != self.head && tail < entries;
        let (base, rx_len) = (self.base(), (kind == "rx").then_some(self.buffer_len));
        let descriptor = |slot| base + (slot * DESCRIPTOR) as u64;
        let len = |word1| match rx_len {
            Some(len) => len,
            None if dtyp(word1) == DTYP_DATA => (word1 as u32 & DTALEN) as usize,
            None => 0,
        };
        let result = self.armed.advance((from, tail), self.head, entries, env, descriptor, len);
        self.halted |= result.is_err();
        result
    }

    /// Lends the ring to a benchmark; for the model it stands still, as if it had been stopped for a violation.
    pub(super) fn lend(&mut self) -> Option<LentRing> {
        if !self.enabled || std::mem::replace(&mut self.halted, true) {
            return None;
        }
        let (base, entries, head) = (self.base(), self.entries(), self.head);
        Some(LentRing { base, stride: DESCRIPTOR, entries, head, granule: 1, lease: self.armed.lend() })
    }

    /// The device used a descriptor whose buffer is at `address`.
    #[inline]
    pub(super) fn used(&mut self, slot: u32, address: u64, env: &mut Env) -> Checked {
        self.armed.used(slot, address, env)
    }

    /// Writes a descriptor back, now or as the faults have it.
    #[inline]
    pub(super) fn complete(&mut self, slot: u32, words: [u64; 2], env: &Env, faults: &Faults) -> Checked {
        self.late.complete(self.descriptor(slot), [words[0], words[1], 0, 0], 2, env, faults)
    }

    /// Writes back what is due; how many descriptors.
    pub(super) fn flush(&mut self, env: &Env) -> Result<usize, String> {
        self.late.flush(env)
    }
}
