//! Where the 82576 and the I350 have their registers, and what a PF that Linux's igb drives answers, for the scripted
//! function. Written from the fact sheet, not taken from `regs.rs`.

use crate::drivers::intel::fake::{self, Wiring};
pub(super) use crate::drivers::intel::fake::{ACK, Action, CTS, NACK, PFSTS, PFU, RSTD, RSTI};

pub(super) type Fake = fake::Fake<Igb>;

pub(super) enum Igb {}

impl Wiring for Igb {
    const CONTROL: u32 = 0xC40;
    const BUFFER: u32 = 0x800;
    const CAUSES: u32 = 0x1580;
    const RXDCTL: u32 = 0x2828;
    const TXDCTL: u32 = 0x3828;
    const STRIDE: u32 = 0x100;
    const QUEUES: u32 = 2;

    fn set_up(fake: &mut Fake) {
        // Link up at 1 Gb/s full duplex.
        fake.set(0x0008, 0x83);
        for n in 0..2 {
            fake.set(0x3814 + 0x100 * n, 1 << 9 | 1 << 11 | 1 << 13);
            fake.set(0x3838 + 0x100 * n, 0xDEAD_0001);
        }
    }

    fn request_len(word0: u32) -> usize {
        match word0 & 0xFFFF {
            0x02 => 3,
            0x03 => 1 + (word0 >> 16 & 0x1F).div_ceil(2) as usize,
            0x04 | 0x05 => 2,
            _ => 1,
        }
    }

    fn answer(fake: &Fake, request: &[u32]) -> Vec<u32> {
        let word0 = request[0];
        let id = word0 & 0xFFFF;
        vec![match id {
            // Stock PFs honour all-multicast, clear its bit, and refuse what is left.
            6 if word0 >> 16 & 1 != 0 => (word0 & !(2 << 16)) | NACK | CTS,
            6 if !fake.refuses.contains(&6) => (word0 & !(2 << 16)) | ACK | CTS,
            _ if fake.refuses.contains(&id) => word0 | NACK | CTS,
            _ => word0 | ACK | CTS,
        }]
    }
}
