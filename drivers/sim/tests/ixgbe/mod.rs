//! Tests of the ixgbe model with a scripted driver, from the fact sheet ixgbevf: registers by number, as [`Rig`] for igb.

mod checks;
mod mailbox;
mod paths;
mod resets;

use std::ops::{Deref, DerefMut};

use super::*;
use crate::drivers::sim::{Fault, IxgbeOptions, IxgbePart};

/// CC: every packet names a context.
pub(super) const CC: u32 = 1 << 7;

/// A scripted driver of an ixgbe port: memory, doorbells and descriptors are those of [`Rig`].
pub(super) struct Vf(Rig);

impl Deref for Vf {
    type Target = Rig;

    fn deref(&self) -> &Rig {
        &self.0
    }
}

impl DerefMut for Vf {
    fn deref_mut(&mut self) -> &mut Rig {
        &mut self.0
    }
}

fn options(part: IxgbePart) -> IxgbeOptions {
    IxgbeOptions { part, mac: Some(MAC), ..IxgbeOptions::default() }
}

impl Vf {
    fn open(options: IxgbeOptions) -> Vf {
        Vf::in_world(&World::stepped(7), options)
    }

    fn in_world(world: &World, options: IxgbeOptions) -> Vf {
        Vf(Rig::attach(world, world.add_ixgbevf(options)))
    }

    /// Reset, handshake, and both rings of queue 0 running with a context in slot 0 of the transmit ring.
    pub(super) fn running(options: IxgbeOptions) -> Vf {
        let mut vf = Vf::open(options);
        vf.bring_up();
        vf
    }

    pub(super) fn bring_up(&mut self) {
        self.reset();
        self.start_tx(0);
        self.start_rx(0, 2, 0);
        self.arm(N - 1);
        self.send_context();
    }

    /// A message as drivers before API 1.5 send it: own the buffer, write, REQ alone.
    fn post(&mut self, words: &[u32]) -> u32 {
        self.write(0x2fc, 4);
        assert_ne!(self.read(0x2fc) & 4, 0, "VFU");
        for (i, word) in words.iter().enumerate() {
            self.write(0x200 + 4 * i as u32, *word);
        }
        self.write(0x2fc, 1);
        self.wait_mail(0x10)
    }

    /// Polls VFMAILBOX until one of `bits` is seen, at most 1 s. All bits seen.
    fn wait_mail(&mut self, bits: u32) -> u32 {
        let mut seen = 0;
        for _ in 0..2000 {
            seen |= self.read(0x2fc);
            if seen & bits != 0 {
                break;
            }
            self.pause(Duration::from_micros(500));
        }
        seen
    }

    /// Reads `W` words of the message in the buffer, and acknowledges it.
    fn take<const W: usize>(&mut self) -> [u32; W] {
        self.write(0x2fc, 4);
        let reply = std::array::from_fn(|i| self.read(0x200 + 4 * i as u32));
        self.write(0x2fc, 2);
        reply
    }

    /// Sends a message and reads `W` words of the reply; `None` when none comes.
    fn ask<const W: usize>(&mut self, words: &[u32]) -> Option<[u32; W]> {
        (self.post(words) & 0x10 != 0).then(|| self.take())
    }

    /// The reset sequence (3.5) up to the reply.
    fn reset(&mut self) -> [u32; 4] {
        self.write(0x10c, 7);
        for q in 0..8 {
            self.write(0x2028 + 0x40 * q, 1 << 26);
            let rxdctl = self.read(0x1028 + 0x40 * q);
            self.write(0x1028 + 0x40 * q, rxdctl & !(1 << 25));
        }
        self.write(0x300, 0);
        self.write(0, 1 << 26);
        self.read(8);
        while self.read(0x2fc) & 0xc0 != 0 {}
        for q in 0..8 {
            for (offset, value) in [(0x1028, 0), (0x1010, 0), (0x1018, 0), (0x1014, 0x402), (0x100c, 0xa200)] {
                self.write(offset + 0x40 * q, value);
            }
            for (offset, value) in [(0x2028, 0), (0x2010, 0), (0x2018, 0), (0x2038, 0), (0x203c, 0), (0x200c, 0x2a00)] {
                self.write(offset + 0x40 * q, value);
            }
        }
        self.tx_next = 0;
        self.ask(&[1]).expect("no reply to the reset request")
    }

    /// Negotiates 1.`digit`.
    fn api(&mut self, digit: u32) -> u32 {
        let ordinal = if digit == 0 { 0 } else { digit + 1 };
        self.ask::<1>(&[8, ordinal]).expect("an answer")[0]
    }

    fn start_rx(&mut self, queue: u32, kib: u32, rxdctl: u32) {
        let (base, at) = (self.iova + RX_RING, 0x40 * queue);
        self.write(0x1000 + at, base as u32);
        self.write(0x1004 + at, (base >> 32) as u32);
        self.write(0x1008 + at, N * 16);
        self.read(8);
        self.write(0x1010 + at, 0);
        self.write(0x1018 + at, 0);
        self.write(0x1014 + at, kib | 4 << 8 | 1 << 25 | 1 << 28);
        self.write(0x1028 + at, 1 << 25 | rxdctl);
    }

    fn start_tx(&mut self, queue: u32) {
        let (base, at) = (self.iova + TX_RING, 0x40 * queue);
        self.write(0x2000 + at, base as u32);
        self.write(0x2004 + at, (base >> 32) as u32);
        self.write(0x2008 + at, N * 16);
        self.read(8);
        self.write(0x2010 + at, 0);
        self.write(0x2018 + at, 0);
        self.write(0x200c + at, 1 << 9 | 1 << 13);
        self.write(0x2028 + at, 1 << 25 | 32);
        self.tx_next = 0;
    }

    fn arm(&mut self, count: u32) {
        for slot in 0..count {
            self.set_rx(slot, RX_BUFFERS + slot as u64 * 2048);
        }
        self.ring(0x1018, count);
    }

    /// Puts descriptors behind the last ones and rings the doorbell. The first one's slot.
    fn send(&mut self, descriptors: &[[u64; 2]]) -> u32 {
        let first = self.tx_next;
        for words in descriptors {
            self.store(TX_RING + self.tx_next as u64 * 16, *words);
            self.tx_next = (self.tx_next + 1) % N;
        }
        let tail = self.tx_next;
        self.ring(0x2018, tail);
        first
    }

    fn send_context(&mut self) {
        self.send(&[PLAIN.words(0)]);
    }

    /// Sends a plain frame from one buffer.
    pub(super) fn send_plain(&mut self, bytes: &[u8]) -> u32 {
        let at = self.fill(0, bytes);
        self.send(&[data(at, bytes.len(), bytes.len(), EOP | RS, CC)])
    }

    fn end_clean(self) {
        self.0.end_clean();
    }

    fn end_with(self, what: &str) {
        self.0.end_with(what);
    }
}
