//! A scripted function for the tests of this driver: an array of registers, a PF that answers the mailbox, and a
//! clock that moves only when the driver looks at or waits for the device.
//!
//! It is no model: it checks the mailbox's rules and records what the driver does, and each test sets its misbehaviour.
//! Offsets and bits are written from the fact sheet, not taken from `regs.rs`.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::addr::{Iova, MacAddr};
use crate::error::Result;
use crate::mem::HugeRegion;
use crate::mmio::{Bus, Doorbell, PciId, Reg};

pub(super) const CTS: u32 = 1 << 29;
pub(super) const NACK: u32 = 1 << 30;
pub(super) const ACK: u32 = 1 << 31;

pub(super) const PFU: u32 = 1 << 3;
pub(super) const PFSTS: u32 = 1 << 4;
const PFACK: u32 = 1 << 5;
pub(super) const RSTI: u32 = 1 << 6;
pub(super) const RSTD: u32 = 1 << 7;

/// What the driver did that is not a register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    FunctionReset,
    BusMaster(bool),
    Write(u32, u32),
}

pub(super) struct Fake {
    pub(super) id: PciId,
    pub(super) bar_len: u32,
    pub(super) regs: Vec<u32>,
    pub(super) time: Duration,
    /// What one register access takes.
    pub(super) access_time: Duration,
    /// Register reads so far, the one from which on the device is gone, and what it reads then: all ones, or 0 after a
    /// reset that took the BARs and bus mastering away.
    pub(super) reads: u64,
    pub(super) dead_from: Option<u64>,
    pub(super) dead_value: u32,
    /// Queues that ignore writes of their ENABLE bit.
    pub(super) queues_stick: bool,
    pub(super) bus_master: bool,
    pub(super) removal: bool,
    pub(super) actions: Vec<Action>,
    // The PF.
    pub(super) mac: Option<MacAddr>,
    pub(super) acknowledges: bool,
    pub(super) answers: bool,
    pub(super) clear_to_send: bool,
    /// Message ids that the PF does not permit.
    pub(super) refuses: Vec<u32>,
    /// The answer to a reset has CTS.
    pub(super) eager_clear_to_send: bool,
    /// Sent just before every answer.
    pub(super) crossing: Option<u32>,
    /// Sent in place of every answer, again as soon as it is read.
    pub(super) flood: Option<u32>,
    /// Every message of the VF.
    pub(super) requests: Vec<Vec<u32>>,
    pub(super) acks: u32,
    /// PF's coming doings: when, event bits, message.
    pub(super) coming: Vec<(Duration, u32, Vec<u32>)>,
}

impl Fake {
    pub(super) fn new(device: u16) -> Self {
        let mut fake = Fake {
            id: PciId { vendor: 0x8086, device },
            bar_len: 0x4000,
            regs: vec![0; 0x1000],
            time: Duration::ZERO,
            access_time: Duration::from_nanos(100),
            reads: 0,
            dead_from: None,
            dead_value: u32::MAX,
            queues_stick: false,
            bus_master: false,
            removal: false,
            actions: Vec::new(),
            mac: Some(MacAddr([0x02, 0, 0, 0xAA, 0xBB, 0xCC])),
            acknowledges: true,
            answers: true,
            clear_to_send: false,
            refuses: Vec::new(),
            eager_clear_to_send: false,
            crossing: None,
            flood: None,
            requests: Vec::new(),
            acks: 0,
            coming: Vec::new(),
        };
        // As a killed process leaves it: link up at 1 Gb/s full duplex, queues running.
        fake.set(0x0008, 0x83);
        for n in 0..2 {
            fake.set(0x2828 + 0x100 * n, 1 << 25);
            fake.set(0x3828 + 0x100 * n, 1 << 25);
            fake.set(0x3814 + 0x100 * n, 1 << 9 | 1 << 11 | 1 << 13);
            fake.set(0x3838 + 0x100 * n, 0xDEAD_0001);
        }
        fake
    }

    pub(super) fn get(&self, offset: u32) -> u32 {
        self.regs[offset as usize / 4]
    }

    pub(super) fn set(&mut self, offset: u32, value: u32) {
        self.regs[offset as usize / 4] = value;
    }

    /// The PF writes a message and says so.
    pub(super) fn pf_says(&mut self, words: &[u32]) {
        for (i, &word) in words.iter().enumerate() {
            self.set(0x800 + 4 * i as u32, word);
        }
        self.set(0xC40, self.get(0xC40) | PFSTS);
    }

    /// Registers written since the last call, in order.
    pub(super) fn take_writes(&mut self) -> Vec<(u32, u32)> {
        let writes = |action| match action {
            Action::Write(offset, value) => Some((offset, value)),
            _ => None,
        };
        std::mem::take(&mut self.actions).into_iter().filter_map(writes).collect()
    }

    fn dead(&self) -> bool {
        self.dead_from.is_some_and(|at| self.reads >= at)
    }

    fn elapse(&mut self, time: Duration) {
        self.time += time;
        while let Some(i) = self.coming.iter().position(|(at, ..)| *at <= self.time) {
            let (_, bits, words) = self.coming.remove(i);
            self.set(0xC40, self.get(0xC40) | bits);
            if !words.is_empty() {
                self.pf_says(&words);
            }
            if let Some(word) = self.flood.filter(|_| bits & PFSTS != 0) {
                self.coming.push((self.time + Duration::from_nanos(50), PFSTS, vec![word]));
            }
        }
    }

    /// The PF's driver takes the request out of the buffer.
    fn serve(&mut self) {
        let len = match self.get(0x800) & 0xFFFF {
            0x02 => 3,
            0x03 => 1 + (self.get(0x800) >> 16 & 0x1F).div_ceil(2) as usize,
            0x04 | 0x05 => 2,
            _ => 1,
        };
        let request: Vec<u32> = (0..len).map(|i| self.get(0x800 + 4 * i as u32)).collect();
        let word0 = request[0];
        self.requests.push(request);
        let mut after =
            |micros, bits, words| self.coming.push((self.time + Duration::from_micros(micros), bits, words));
        if self.acknowledges {
            after(200, PFACK, vec![]);
        }
        let id = word0 & 0xFFFF;
        let cts = if self.eager_clear_to_send { CTS } else { 0 };
        let answer = match id {
            1 => match self.mac {
                Some(MacAddr([a, b, c, d, e, f])) => {
                    vec![ACK | cts | 1, u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0])]
                }
                None => vec![NACK | cts | 1],
            },
            _ if !self.clear_to_send => vec![NACK],
            // Stock PFs honour all-multicast, clear its bit, and refuse what is left.
            6 if word0 >> 16 & 1 != 0 => vec![(word0 & !(2 << 16)) | NACK | CTS],
            6 if !self.refuses.contains(&6) => vec![(word0 & !(2 << 16)) | ACK | CTS],
            _ if self.refuses.contains(&id) => vec![word0 | NACK | CTS],
            _ => vec![word0 | ACK | CTS],
        };
        self.clear_to_send |= id == 1;
        if let Some(word) = self.crossing {
            after(500, PFSTS, vec![word]);
        }
        match self.flood {
            Some(word) => after(700, PFSTS, vec![word]),
            None if self.answers => after(1900, PFSTS, answer),
            None => (),
        }
    }
}

impl Bus for Fake {
    fn name(&self) -> &str {
        "0000:01:10.0"
    }

    fn id(&self) -> PciId {
        self.id
    }

    fn numa_node(&self) -> Option<u32> {
        None
    }

    fn is_model(&self) -> bool {
        true
    }

    fn bar_len(&self) -> u32 {
        self.bar_len
    }

    fn read32(&mut self, Reg(offset): Reg) -> u32 {
        self.reads += 1;
        self.elapse(self.access_time);
        if self.dead() {
            return self.dead_value;
        }
        let value = self.get(offset);
        match offset {
            0xC40 => self.set(offset, value & !0xB0),
            0x1580 => self.set(offset, 0),
            0x800..0x840 => assert_ne!(self.get(0xC40) & 4, 0, "VMBMEM is read without VFU"),
            _ => (),
        }
        value
    }

    fn write32(&mut self, Reg(offset): Reg, value: u32) {
        self.elapse(self.access_time);
        if self.dead() {
            return;
        }
        self.actions.push(Action::Write(offset, value));
        match offset {
            0x2828 | 0x2928 | 0x3828 | 0x3928 if self.queues_stick => (),
            0x0000 if value & 1 << 26 != 0 => {
                let stuck = self.queues_stick;
                for n in (0..2).filter(|_| !stuck) {
                    self.set(0x2828 + 0x100 * n, 0);
                    self.set(0x3828 + 0x100 * n, 0);
                }
                self.clear_to_send = false;
            }
            0xC40 => {
                let old = self.get(0xC40);
                let owned = value & 4 != 0 && old & PFU == 0;
                self.set(0xC40, (old & !4) | if owned { 4 } else { 0 });
                if value & 1 != 0 {
                    assert_ne!(old & 4, 0, "REQ without VFU");
                    self.serve();
                }
                self.acks += value >> 1 & 1;
            }
            0x800..0x840 => {
                assert_ne!(self.get(0xC40) & 4, 0, "VMBMEM is written without VFU");
                self.set(offset, value);
            }
            _ => self.set(offset, value),
        }
    }

    fn doorbell(&mut self, _: Reg) -> Result<Doorbell> {
        let cell = Arc::new(AtomicU32::new(0));
        // SAFETY: the cell lives in the Arc that the doorbell keeps, and an AtomicU32 is aligned.
        Ok(unsafe { Doorbell::new(NonNull::from(&*cell), cell) })
    }

    fn map_dma(&mut self, _: &Arc<HugeRegion>) -> Result<Iova> {
        unreachable!("a driver maps nothing")
    }

    fn unmap_dma(&mut self, _: &Arc<HugeRegion>) -> Result<()> {
        unreachable!("a driver maps nothing")
    }

    fn vectors(&self) -> u32 {
        3
    }

    fn connect_vectors(&mut self, _: &[BorrowedFd<'_>]) -> Result<()> {
        unreachable!("the framework connects vectors")
    }

    fn reset_function(&mut self) -> Result<bool> {
        self.actions.push(Action::FunctionReset);
        self.bus_master = false;
        Ok(true)
    }

    fn bus_master(&mut self) -> Result<bool> {
        Ok(if self.dead() { self.dead_value != 0 } else { self.bus_master })
    }

    fn set_bus_master(&mut self, on: bool) -> Result<()> {
        self.actions.push(Action::BusMaster(on));
        self.bus_master = on;
        Ok(())
    }

    fn removal_requested(&mut self) -> bool {
        self.removal
    }

    fn now(&self) -> Duration {
        self.time
    }

    fn pause(&mut self, time: Duration) {
        self.elapse(time);
    }
}
