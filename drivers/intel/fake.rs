//! A scripted function for the tests of igb's and ixgbe's drivers: an array of registers, a PF that answers the mailbox, and
//! a clock that moves only when the driver looks at or waits for the device.
//!
//! It is no model: it checks the mailbox's rules and records what the driver does, and each test sets its misbehaviour. A
//! family's tests say in a [`Wiring`] where its registers are, from the fact sheet and not from its `regs.rs`.

use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use crate::addr::{Iova, MacAddr};
use crate::error::Result;
use crate::mem::HugeRegion;
use crate::mmio::{Bus, Doorbell, PciId, Reg};

pub(crate) const CTS: u32 = 1 << 29;
pub(crate) const NACK: u32 = 1 << 30;
pub(crate) const ACK: u32 = 1 << 31;

pub(crate) const PFU: u32 = 1 << 3;
pub(crate) const PFSTS: u32 = 1 << 4;
pub(crate) const PFACK: u32 = 1 << 5;
pub(crate) const RSTI: u32 = 1 << 6;
pub(crate) const RSTD: u32 = 1 << 7;

/// What the driver did that is not a register access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    FunctionReset,
    BusMaster(bool),
    Write(u32, u32),
}

/// Where a family has its registers, and what its PF answers.
pub(crate) trait Wiring: Send + Sized {
    /// The mailbox's control register and word 0 of its buffer.
    const CONTROL: u32;
    const BUFFER: u32;
    /// The interrupt causes, cleared by reading.
    const CAUSES: u32;
    /// Receive and transmit descriptor control of queue 0, and the bytes to those of the next.
    const RXDCTL: u32;
    const TXDCTL: u32;
    const STRIDE: u32;
    /// Queues that have registers.
    const QUEUES: u32;

    /// What a function holds that a killed process left behind, besides queues that run.
    fn set_up(fake: &mut Fake<Self>);
    /// Words of a request, by its first.
    fn request_len(word0: u32) -> usize;
    /// The answer to any request but a reset, from a PF that considers the VF clear to send.
    fn answer(fake: &Fake<Self>, request: &[u32]) -> Vec<u32>;
}

pub(crate) struct Fake<W: Wiring> {
    pub(crate) id: PciId,
    pub(crate) bar_len: u32,
    pub(crate) regs: Vec<u32>,
    pub(crate) time: Duration,
    /// What one register access takes.
    pub(crate) access_time: Duration,
    /// Register reads so far, the one from which on the device is gone, and what it reads then: all ones, or 0 after a
    /// reset that took the BARs and bus mastering away.
    pub(crate) reads: u64,
    pub(crate) dead_from: Option<u64>,
    pub(crate) dead_value: u32,
    /// Queues that ignore writes of their ENABLE bit.
    pub(crate) queues_stick: bool,
    pub(crate) bus_master: bool,
    pub(crate) removal: bool,
    pub(crate) actions: Vec<Action>,
    // The PF.
    pub(crate) mac: Option<MacAddr>,
    pub(crate) acknowledges: bool,
    pub(crate) answers: bool,
    pub(crate) clear_to_send: bool,
    /// Message ids that the PF does not permit.
    pub(crate) refuses: Vec<u32>,
    /// How long the PF takes to answer.
    pub(crate) answer_time: Duration,
    /// So many requests are zeros when the PF reads them: it noticed the reset late and cleared the buffer.
    pub(crate) empties: u32,
    /// The answer to a reset has CTS.
    pub(crate) eager_clear_to_send: bool,
    /// Sent just before every answer.
    pub(crate) crossing: Option<u32>,
    /// Sent in place of every answer, again as soon as it is read.
    pub(crate) flood: Option<u32>,
    /// Every message of the VF.
    pub(crate) requests: Vec<Vec<u32>>,
    pub(crate) acks: u32,
    /// PF's coming doings: when, event bits, message.
    pub(crate) coming: Vec<(Duration, u32, Vec<u32>)>,
    /// Registers that change by themselves: when, which, to what.
    pub(crate) later: Vec<(Duration, u32, u32)>,
    /// Words behind the first of answers, by message id.
    pub(crate) payloads: Vec<(u32, Vec<u32>)>,
    pub(crate) wiring: PhantomData<W>,
}

impl<W: Wiring> Fake<W> {
    pub(crate) fn new(device: u16) -> Self {
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
            answer_time: Duration::from_micros(1900),
            empties: 0,
            eager_clear_to_send: false,
            crossing: None,
            flood: None,
            requests: Vec::new(),
            acks: 0,
            coming: Vec::new(),
            later: Vec::new(),
            payloads: Vec::new(),
            wiring: PhantomData,
        };
        // As a killed process leaves it.
        for offset in Self::enables() {
            fake.set(offset, 1 << 25);
        }
        W::set_up(&mut fake);
        fake
    }

    /// The registers that start and stop queues.
    fn enables() -> Vec<u32> {
        (0..W::QUEUES).flat_map(|n| [W::RXDCTL + n * W::STRIDE, W::TXDCTL + n * W::STRIDE]).collect()
    }

    fn is_buffer(offset: u32) -> bool {
        (W::BUFFER..W::BUFFER + 64).contains(&offset)
    }

    pub(crate) fn get(&self, offset: u32) -> u32 {
        self.regs[offset as usize / 4]
    }

    pub(crate) fn set(&mut self, offset: u32, value: u32) {
        self.regs[offset as usize / 4] = value;
    }

    /// The PF writes a message and says so.
    pub(crate) fn pf_says(&mut self, words: &[u32]) {
        for (i, &word) in words.iter().enumerate() {
            self.set(W::BUFFER + 4 * i as u32, word);
        }
        self.set(W::CONTROL, self.get(W::CONTROL) | PFSTS);
    }

    /// Registers written since the last call, in order.
    pub(crate) fn take_writes(&mut self) -> Vec<(u32, u32)> {
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
        while let Some(i) = self.later.iter().position(|(at, ..)| *at <= self.time) {
            let (_, offset, value) = self.later.remove(i);
            self.set(offset, value);
        }
        while let Some(i) = self.coming.iter().position(|(at, ..)| *at <= self.time) {
            let (_, bits, words) = self.coming.remove(i);
            self.set(W::CONTROL, self.get(W::CONTROL) | bits);
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
        if self.empties > 0 {
            self.empties -= 1;
            self.set(W::BUFFER, 0);
        }
        let len = W::request_len(self.get(W::BUFFER));
        let request: Vec<u32> = (0..len).map(|i| self.get(W::BUFFER + 4 * i as u32)).collect();
        let word0 = request[0];
        let id = word0 & 0xFFFF;
        let cts = if self.eager_clear_to_send { CTS } else { 0 };
        let answer = match id {
            1 => {
                let word3 = self.payloads.iter().find(|(of, _)| *of == 1).map_or(0, |(_, words)| words[0]);
                let (verdict, MacAddr([a, b, c, d, e, f])) = match self.mac {
                    Some(mac) => (ACK, mac),
                    None => (NACK, MacAddr::ZERO),
                };
                vec![verdict | cts | 1, u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]), word3]
            }
            _ if !self.clear_to_send => vec![NACK],
            _ => W::answer(self, &request),
        };
        self.requests.push(request);
        let answer_time = self.answer_time.as_micros() as u64;
        let mut after =
            |micros, bits, words| self.coming.push((self.time + Duration::from_micros(micros), bits, words));
        if self.acknowledges {
            after(200, PFACK, vec![]);
        }
        self.clear_to_send |= id == 1;
        if let Some(word) = self.crossing {
            after(500, PFSTS, vec![word]);
        }
        match self.flood {
            Some(word) => after(700, PFSTS, vec![word]),
            None if self.answers => after(answer_time, PFSTS, answer),
            None => (),
        }
    }
}

impl<W: Wiring> Bus for Fake<W> {
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
            _ if offset == W::CONTROL => self.set(offset, value & !0xB0),
            _ if offset == W::CAUSES => self.set(offset, 0),
            _ if Self::is_buffer(offset) => assert_ne!(self.get(W::CONTROL) & 4, 0, "the buffer is read without VFU"),
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
            _ if self.queues_stick && Self::enables().contains(&offset) => (),
            0x0000 if value & 1 << 26 != 0 => {
                for offset in Self::enables().into_iter().filter(|_| !self.queues_stick) {
                    self.regs[offset as usize / 4] = 0;
                }
                self.clear_to_send = false;
            }
            _ if offset == W::CONTROL => {
                let old = self.get(offset);
                let owned = value & 4 != 0 && old & PFU == 0;
                self.set(offset, (old & !4) | if owned { 4 } else { 0 });
                if value & 1 != 0 {
                    assert_ne!(old & 4, 0, "REQ without VFU");
                    self.serve();
                }
                self.acks += value >> 1 & 1;
            }
            _ if Self::is_buffer(offset) => {
                assert_ne!(self.get(W::CONTROL) & 4, 0, "the buffer is written without VFU");
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
