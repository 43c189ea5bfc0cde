//! Where the 82599 and its successors have their registers, and what a PF that Linux's ixgbe drives answers, for the
//! scripted function. Written from the fact sheet, not taken from `regs.rs`.

use crate::drivers::intel::fake::{self, Wiring};
pub(super) use crate::drivers::intel::fake::{ACK, Action, CTS, NACK, PFU, RSTD, RSTI};

pub(super) type Fake = fake::Fake<Ixgbe>;

pub(super) enum Ixgbe {}

/// Message ids whose answers a test may set as a payload: API versions that the PF speaks (by their number on the wire),
/// queues, RSS table and key, granted xcast mode, link enabled.
pub(super) const API: u32 = 0x08;
pub(super) const QUEUES: u32 = 0x09;
pub(super) const RETA: u32 = 0x0A;
pub(super) const KEY: u32 = 0x0B;
pub(super) const XCAST: u32 = 0x0C;
pub(super) const LINK: u32 = 0x10;

impl Wiring for Ixgbe {
    const CONTROL: u32 = 0x2FC;
    const BUFFER: u32 = 0x200;
    const CAUSES: u32 = 0x100;
    const RXDCTL: u32 = 0x1028;
    const TXDCTL: u32 = 0x2028;
    const STRIDE: u32 = 0x40;
    const QUEUES: u32 = 8;

    fn set_up(fake: &mut Fake) {
        // Link up at 10 Gb/s.
        fake.set(0x10, 1 << 30 | 3 << 28);
        fake.set(0x300, 3 << 29 | 0x1330);
        fake.set(0x3000, 1);
        for n in 0..8 {
            fake.set(0x1014 + 0x40 * n, 0x0A00_0008);
            fake.set(0x2038 + 0x40 * n, 0xDEAD_0001);
        }
        fake.payloads = vec![(API, vec![0, 2, 3, 4]), (QUEUES, vec![4, 4, 0, 0]), (LINK, vec![1])];
    }

    fn request_len(word0: u32) -> usize {
        match word0 & 0xFFFF {
            0x02 | 0x06 => 3,
            0x03 => 1 + (word0 >> 16 & 0x1F).div_ceil(2) as usize,
            0x04 | 0x05 | 0x08 | 0x0C => 2,
            _ => 1,
        }
    }

    fn answer(fake: &Fake, request: &[u32]) -> Vec<u32> {
        let id = request[0] & 0xFFFF;
        let payload = fake.payloads.iter().find(|(of, _)| *of == id).map(|(_, words)| words.as_slice());
        let spoken = id != API || payload.is_some_and(|versions| versions.contains(&request[1]));
        let verdict = if spoken && !fake.refuses.contains(&id) { ACK } else { NACK };
        let behind = payload.unwrap_or(&request[1..]);
        [&[request[0] | verdict | CTS][..], behind].concat()
    }
}

/// The same with other words behind the first of an answer.
pub(super) fn with_payload(mut fake: Fake, id: u32, words: &[u32]) -> Fake {
    fake.payloads.retain(|(of, _)| *of != id);
    fake.payloads.push((id, words.to_vec()));
    fake
}
