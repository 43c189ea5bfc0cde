//! The admin queues: two rings of 32-byte descriptors in host memory, one to the PF and one from it.
//!
//! Owns that memory and the registers of both rings; `channel.rs` sends and receives through it and knows what the
//! messages mean. What always holds: the memory is mapped once and stays mapped until the bus goes, because a VF reset that
//! nobody saw the end of may still be writing a message; the device's lengths are checked before anything is read; and
//! memory that the device shares is touched by atomic loads and stores alone.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::regs::{ADMIN_INDEX, ADMIN_LEN_ENABLE, ADMIN_LEN_ERRORS, ARQ, ATQ, AdminRegs};
use crate::addr::Iova;
use crate::error::{Error, Result};
use crate::mem::{HugeRegion, Pages};
use crate::mmio::{ALL_ONES, Bus, Reg};
use crate::ring::Descriptors;

/// Descriptors of each ring: what Linux and DPDK use (fact sheet iavf 3).
pub(super) const ENTRIES: u16 = 32;
/// Bytes of a message's buffer: the longest message (fact sheet iavf 3, 4.1).
pub(super) const BUFFER: usize = 4096;
/// 64-bit words of a descriptor.
const WORDS: usize = 4;
/// Bytes of a word.
const WORD: usize = 8;

// Where things lie in the region, in bytes; each ring on a page of its own.
const ATQ_AT: usize = 0;
const ARQ_AT: usize = 4096;
const ATQ_BUFFERS: usize = 2 * 4096;
const ARQ_BUFFERS: usize = ATQ_BUFFERS + ENTRIES as usize * BUFFER;
const REGION: usize = ARQ_BUFFERS + ENTRIES as usize * BUFFER;
const _: () = assert!(ENTRIES as usize * WORDS * WORD <= ARQ_AT);

// Word 0 of a descriptor: flags, opcode, length, return value, 16 bits each (fact sheet iavf 3).
const FLAG_DD: u16 = 1 << 0;
const FLAG_ERR: u16 = 1 << 2;
/// The buffer is longer than 512 bytes.
const FLAG_LB: u16 = 1 << 9;
/// The device reads the buffer.
const FLAG_RD: u16 = 1 << 10;
const FLAG_BUF: u16 = 1 << 12;
/// No interrupt when done.
const FLAG_SI: u16 = 1 << 13;
/// A buffer from this length on, in bytes, is a large one.
const LARGE: usize = 512;

/// To the PF.
const OPCODE_TO_PF: u16 = 0x0801;
/// From the PF.
const OPCODE_TO_VF: u16 = 0x0802;

/// A message of the PF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Received {
    /// What it answers, or `EVENT`.
    pub opcode: u32,
    /// 0, or why the PF refused.
    pub status: i32,
    pub payload: Vec<u8>,
}

/// Both queues.
pub(super) struct AdminQueue {
    memory: Descriptors,
    base: Iova,
    /// The descriptor to send with next.
    to_send: u16,
    /// The descriptor that the next message comes in.
    to_receive: u16,
}

fn live<B: Bus>(bus: &mut B, register: Reg) -> Result<u32> {
    match bus.read32(register) {
        ALL_ONES => Err(Error::gone(bus.name())),
        value => Ok(value),
    }
}

fn head_word(flags: u16, opcode: u16, len: usize) -> u64 {
    u64::from(flags) | u64::from(opcode) << 16 | (len as u64 & 0xFFFF) << 32
}

fn next(index: u16) -> u16 {
    (index + 1) % ENTRIES
}

impl AdminQueue {
    /// Allocates the memory and maps it for the device, which does not know of it before [`start`](Self::start).
    pub(super) fn new<B: Bus>(bus: &mut B) -> Result<Self> {
        let pages = if bus.is_model() { Pages::Ordinary } else { Pages::Default };
        let region = Arc::new(HugeRegion::allocate(REGION, pages, bus.numa_node())?);
        let memory = Descriptors::new(region.clone(), 0, REGION / WORD)
            .ok_or_else(|| Error::Memory(format!("{}: the admin queue does not fit its region", bus.name())))?;
        let base = bus.map_dma(&region)?;
        Ok(AdminQueue { memory, base, to_send: 0, to_receive: 0 })
    }

    fn load(&self, byte: usize) -> u64 {
        assert!(byte / WORD < self.memory.len());
        // SAFETY: just checked.
        unsafe { self.memory.load(byte / WORD) }
    }

    fn load_acquire(&self, byte: usize) -> u64 {
        assert!(byte / WORD < self.memory.len());
        // SAFETY: just checked.
        unsafe { self.memory.load_acquire(byte / WORD) }
    }

    fn store(&self, byte: usize, value: u64) {
        assert!(byte / WORD < self.memory.len());
        // SAFETY: just checked.
        unsafe { self.memory.store(byte / WORD, value) };
    }

    fn write_descriptor(&self, at: usize, head: u64, opcode: u32, buffer: Option<usize>) {
        let address = buffer.map_or(0, |byte| self.base.0 + byte as u64);
        self.store(at + WORD, opcode.into());
        self.store(at + 2 * WORD, 0);
        // The high half of the address comes first.
        self.store(at + 3 * WORD, address.rotate_left(32));
        self.store(at, head);
    }

    /// Gives descriptor `index` of the receive queue, and its buffer, to the device.
    fn post(&self, index: u16) {
        let (at, buffer) = (usize::from(index) * WORDS * WORD, usize::from(index) * BUFFER);
        self.write_descriptor(ARQ_AT + at, head_word(FLAG_BUF | FLAG_LB, 0, BUFFER), 0, Some(ARQ_BUFFERS + buffer));
    }

    /// Sets both queues up anew and switches them on (fact sheet iavf 3).
    ///
    /// # Errors
    /// [`Error::Device`] when the registers do not hold what was written; [`Error::Gone`].
    pub(super) fn start<B: Bus>(&mut self, bus: &mut B) -> Result<()> {
        (self.to_send, self.to_receive) = (0, 0);
        (0..ENTRIES).for_each(|index| self.post(index));
        fence(Ordering::Release);
        for (regs, at) in [(ATQ, ATQ_AT), (ARQ, ARQ_AT)] {
            let base = self.base.0 + at as u64;
            bus.write32(regs.len, 0);
            bus.write32(regs.head, 0);
            bus.write32(regs.tail, 0);
            bus.write32(regs.bal, base as u32);
            bus.write32(regs.bah, (base >> 32) as u32);
            bus.write32(regs.len, u32::from(ENTRIES) | ADMIN_LEN_ENABLE);
            if live(bus, regs.bal)? != base as u32 {
                return Err(Error::device(
                    bus.name(),
                    "the admin queue's base cannot be written; remove the VF and create it again on the host",
                ));
            }
        }
        // All but one: a full ring must not look empty.
        bus.write32(ARQ.tail, u32::from(ENTRIES) - 1);
        Ok(())
    }

    /// Switches both queues off (fact sheet iavf 3).
    pub(super) fn stop<B: Bus>(&mut self, bus: &mut B) {
        for AdminRegs { bah, bal, len, head, tail } in [ATQ, ARQ] {
            for register in [len, head, tail, bal, bah] {
                bus.write32(register, 0);
            }
        }
    }

    /// False when a reset has switched a queue off. Clears the error bits of both.
    ///
    /// # Errors
    /// [`Error::Gone`] only.
    pub(super) fn is_on<B: Bus>(&self, bus: &mut B) -> Result<bool> {
        let mut on = true;
        for register in [ARQ.len, ATQ.len] {
            let len = live(bus, register)?;
            on &= len & ADMIN_LEN_ENABLE != 0;
            if on && len & ADMIN_LEN_ERRORS != 0 {
                bus.write32(register, len & !ADMIN_LEN_ERRORS);
            }
        }
        Ok(on)
    }

    /// Hands a message to the device; nothing is waited for.
    ///
    /// # Errors
    /// [`Error::Timeout`] when the PF has not taken the last messages; [`Error::Gone`].
    pub(super) fn send<B: Bus>(&mut self, bus: &mut B, opcode: u32, payload: &[u8]) -> Result<()> {
        let head = live(bus, ATQ.head)? & ADMIN_INDEX;
        if head >= ENTRIES.into() || u32::from(next(self.to_send)) == head {
            return Err(Error::timeout(bus.name(), "the PF does not take messages; see `dmesg` on the host"));
        }
        let payload = &payload[..payload.len().min(BUFFER)];
        let buffer = ATQ_BUFFERS + usize::from(self.to_send) * BUFFER;
        for (i, bytes) in payload.chunks(WORD).enumerate() {
            let mut word = [0; WORD];
            word[..bytes.len()].copy_from_slice(bytes);
            self.store(buffer + i * WORD, u64::from_le_bytes(word));
        }
        let mut flags = FLAG_SI;
        if !payload.is_empty() {
            flags |= FLAG_BUF | FLAG_RD;
        }
        if payload.len() > LARGE {
            flags |= FLAG_LB;
        }
        let at = ATQ_AT + usize::from(self.to_send) * WORDS * WORD;
        let buffer = (!payload.is_empty()).then_some(buffer);
        self.write_descriptor(at, head_word(flags, OPCODE_TO_PF, payload.len()), opcode, buffer);
        self.to_send = next(self.to_send);
        // The device reads the descriptor once it sees the tail.
        fence(Ordering::Release);
        bus.write32(ATQ.tail, self.to_send.into());
        Ok(())
    }

    /// The next message, if there is one. One that the device marked as damaged, or that is none, is passed over.
    pub(super) fn receive<B: Bus>(&mut self, bus: &mut B) -> Option<Received> {
        // A device that floods the ring must not hold us.
        for _ in 0..ENTRIES {
            let index = self.to_receive;
            let at = ARQ_AT + usize::from(index) * WORDS * WORD;
            let head = self.load_acquire(at);
            let (flags, opcode, len) = (head as u16, (head >> 16) as u16, (head >> 32) as u16);
            if flags & FLAG_DD == 0 {
                return None;
            }
            let cookies = self.load(at + WORD);
            let len = usize::from(len);
            let good = opcode == OPCODE_TO_VF && flags & FLAG_ERR == 0 && len <= BUFFER;
            let message = good.then(|| {
                let buffer = ARQ_BUFFERS + usize::from(index) * BUFFER;
                let words = (0..len.div_ceil(WORD)).map(|word| self.load(buffer + word * WORD).to_le_bytes());
                let mut payload: Vec<u8> = words.flatten().collect();
                payload.truncate(len);
                Received { opcode: cookies as u32, status: (cookies >> 32) as u32 as i32, payload }
            });
            self.post(index);
            fence(Ordering::Release);
            bus.write32(ARQ.tail, index.into());
            self.to_receive = next(index);
            if message.is_some() {
                return message;
            }
        }
        None
    }
}
