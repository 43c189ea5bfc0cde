//! A scripted function for the tests of this driver: an array of registers, admin queues in the memory that the driver
//! mapped, a PF that answers on them, and a clock that moves only when the driver looks at or waits for the device.
//!
//! It is no model: it checks the length of every message and records what the driver does, and each test sets its
//! misbehaviour. Offsets, bits and lengths are written from the fact sheet, not taken from the driver.

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::addr::{Iova, MacAddr};
use crate::error::Result;
use crate::mem::HugeRegion;
use crate::mmio::{Bus, Doorbell, PciId, Reg};

const ARQBAH: u32 = 0x6000;
const ATQH: u32 = 0x6400;
pub(super) const ATQLEN: u32 = 0x6800;
const ARQBAL: u32 = 0x6C00;
const ARQT: u32 = 0x7000;
const ARQH: u32 = 0x7400;
const ATQBAH: u32 = 0x7800;
const ATQBAL: u32 = 0x7C00;
pub(super) const ARQLEN: u32 = 0x8000;
const ATQT: u32 = 0x8400;
pub(super) const RSTAT: u32 = 0x8800;
const ENABLE: u32 = 1 << 31;

/// IOVA minus address: the driver must not mix the two up.
const DELTA: u64 = 0x5500_0000_0000;

/// What the driver did that is not a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    FunctionReset,
    BusMaster(bool),
    Write(u32, u32),
    /// A message with this opcode.
    Message(u32),
}

/// Something that the PF does later.
#[derive(Clone, Debug)]
pub(super) enum Coming {
    /// A message: opcode, status, payload.
    Say(u32, i32, Vec<u8>),
    /// The VF's reset begins; it ends after this time.
    Reset(Duration),
    Active,
}

pub(super) struct Fake {
    pub(super) id: PciId,
    pub(super) bar_len: u32,
    pub(super) vectors: u32,
    pub(super) regs: Vec<u32>,
    pub(super) time: Duration,
    /// Register reads so far, and the one from which on the device reads all ones.
    pub(super) reads: u64,
    pub(super) dead_from: Option<u64>,
    pub(super) bus_master: bool,
    pub(super) removal: bool,
    pub(super) has_function_reset: bool,
    /// From the begin of a reset to its end.
    pub(super) reset_takes: Duration,
    pub(super) actions: Vec<Action>,
    pub(super) region: Option<Arc<HugeRegion>>,
    pub(super) mapped: usize,
    // The PF.
    pub(super) version: (u32, u32),
    /// What GET_VF_RESOURCES grants at most.
    pub(super) caps: u32,
    pub(super) pairs: u16,
    pub(super) max_vectors: u16,
    pub(super) max_mtu: u16,
    pub(super) mac: MacAddr,
    pub(super) rss: (u32, u32),
    pub(super) rxdids: u64,
    /// Filtering, stripping, insertion; outer and inner each.
    pub(super) vlan: [[u32; 2]; 3],
    pub(super) stats: Vec<u64>,
    /// Pairs that REQUEST_QUEUES grants at most; `None` refuses in silence.
    pub(super) most_pairs: Option<u16>,
    /// Opcodes that are refused, with the status.
    pub(super) refuses: Vec<(u32, i32)>,
    /// Opcodes that nothing answers.
    pub(super) ignores: Vec<u32>,
    /// In place of the payload of the reply to an opcode.
    pub(super) lies: Vec<(u32, Vec<u8>)>,
    /// Said just before the reply to an opcode.
    pub(super) before: Vec<(u32, Coming)>,
    /// Every message of the VF.
    pub(super) requests: Vec<(u32, Vec<u8>)>,
    pub(super) coming: Vec<(Duration, Coming)>,
    /// What the driver may next be told in the admin receive queue's descriptor: flags to add, opcode, length.
    pub(super) damage: Option<(u16, u16, u16)>,
    /// The PF has granted resources since the last reset, and refuses to do it twice.
    pub(super) granted: bool,
    /// The last value of ARQLEN, to look at when the driver is gone.
    pub(super) arqlen: Arc<AtomicU32>,
}

impl Fake {
    pub(super) fn new(device: u16) -> Self {
        let mut fake = Fake {
            id: PciId { vendor: 0x8086, device },
            bar_len: 0x1_0000,
            vectors: 17,
            regs: vec![0; 0x4000],
            time: Duration::ZERO,
            reads: 0,
            dead_from: None,
            bus_master: false,
            removal: false,
            has_function_reset: true,
            reset_takes: Duration::from_millis(50),
            actions: Vec::new(),
            region: None,
            mapped: 0,
            version: (1, 1),
            caps: !(1 << 9),
            pairs: 4,
            max_vectors: 5,
            max_mtu: 9728,
            mac: MacAddr([0x02, 0, 0, 0xAA, 0xBB, 0xCC]),
            rss: (52, 64),
            rxdids: 1 << 1 | 1 << 22,
            // As ice in single-VLAN mode: inner, 8100, L2TAG1, toggle.
            vlan: [[0, 0x8000_0001], [0, 0x8000_0101], [0, 0x8000_0101]],
            stats: vec![0; 12],
            most_pairs: Some(16),
            refuses: Vec::new(),
            ignores: Vec::new(),
            lies: Vec::new(),
            before: Vec::new(),
            requests: Vec::new(),
            coming: Vec::new(),
            damage: None,
            granted: false,
            arqlen: Arc::default(),
        };
        fake.set(RSTAT, 2);
        fake
    }

    pub(super) fn get(&self, offset: u32) -> u32 {
        self.regs[offset as usize / 4]
    }

    pub(super) fn set(&mut self, offset: u32, value: u32) {
        self.regs[offset as usize / 4] = value;
        if offset == ARQLEN {
            self.arqlen.store(value, Ordering::Relaxed);
        }
    }

    /// Registers written since the last call, in order, without those of the admin queues.
    pub(super) fn take_writes(&mut self) -> Vec<(u32, u32)> {
        let writes = |action| match action {
            Action::Write(offset, value) if !(0x6000..0x8800).contains(&offset) => Some((offset, value)),
            _ => None,
        };
        std::mem::take(&mut self.actions).into_iter().filter_map(writes).collect()
    }

    /// Opcodes of the messages since the last call.
    pub(super) fn take_opcodes(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.requests).into_iter().map(|(opcode, _)| opcode).collect()
    }

    /// The last message with this opcode.
    pub(super) fn last(&self, opcode: u32) -> &[u8] {
        let found = self.requests.iter().rev().find(|(o, _)| *o == opcode);
        &found.unwrap_or_else(|| panic!("no message {opcode}")).1
    }

    pub(super) fn after(&mut self, time: Duration, what: Coming) {
        self.coming.push((self.time + time, what));
    }

    /// A link event.
    pub(super) fn link(&self, up: bool, speed: u32) -> Coming {
        let words = [1, speed, u32::from(up), 0];
        Coming::Say(17, 0, words.iter().flat_map(|w| w.to_le_bytes()).collect())
    }

    pub(super) fn impending() -> Coming {
        Coming::Say(17, 0, [2u32, 0, 0, 255].iter().flat_map(|w| w.to_le_bytes()).collect())
    }

    /// Queues and admin queues are off at once; the PF ends it later.
    pub(super) fn begin_reset(&mut self, takes: Duration) {
        self.set(RSTAT, 0);
        self.set(ATQLEN, 0);
        self.set(ARQLEN, 0);
        self.granted = false;
        self.coming.retain(|(_, what)| !matches!(what, Coming::Say(..) | Coming::Active));
        self.after(takes, Coming::Active);
    }

    fn dead(&self) -> bool {
        self.dead_from.is_some_and(|at| self.reads >= at)
    }

    fn elapse(&mut self, time: Duration) {
        self.time += time;
        while let Some(i) = self.coming.iter().position(|(at, _)| *at <= self.time) {
            match self.coming.remove(i).1 {
                Coming::Say(opcode, status, payload) => self.say(opcode, status, &payload),
                Coming::Reset(takes) => self.begin_reset(takes),
                Coming::Active => self.set(RSTAT, 2),
            }
        }
    }

    fn word(&self, iova: u64) -> &AtomicU64 {
        let region = self.region.as_ref().expect("admin queues lie in mapped memory");
        let offset = iova.checked_sub(region.addr() as u64 + DELTA).expect("an IOVA below the region") as usize;
        assert!(offset + 8 <= region.len() && offset.is_multiple_of(8), "DMA outside the region: {offset:#x}");
        // SAFETY: inside the region (asserted), aligned, and only ever used as atomics.
        unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(region.addr() + offset) }
    }

    fn load(&self, iova: u64) -> u64 {
        self.word(iova).load(Ordering::Acquire)
    }

    fn ring(&self, low: u32, high: u32, index: u32) -> u64 {
        (u64::from(self.get(high)) << 32 | u64::from(self.get(low))) + 32 * u64::from(index)
    }

    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let words = (0..len.div_ceil(8)).map(|i| self.load(at + 8 * i as u64).to_le_bytes());
        let mut bytes: Vec<u8> = words.flatten().collect();
        bytes.truncate(len);
        bytes
    }

    /// Puts a message into the admin receive queue, if that is on and has room.
    pub(super) fn say(&mut self, opcode: u32, status: i32, payload: &[u8]) {
        let (head, tail, len) = (self.get(ARQH), self.get(ARQT), self.get(ARQLEN) & 0x3FF);
        if self.get(ARQLEN) & ENABLE == 0 || head == tail {
            return;
        }
        let at = self.ring(ARQBAL, ARQBAH, head);
        let armed = self.load(at);
        assert_eq!(armed & 0xFFFF_FFFF_FFFF, 4096 << 32 | 0x1200, "BUF, LB and the buffer's length");
        let buffer = self.load(at + 24).rotate_left(32);
        for (i, part) in payload.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.word(buffer + 8 * i as u64).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        let (flags, aq_opcode, said) = self.damage.take().unwrap_or((0, 0x0802, payload.len() as u16));
        self.word(at + 8).store(u64::from(opcode) | u64::from(status as u32) << 32, Ordering::Relaxed);
        let head_word = u64::from(0x1201 | flags) | u64::from(aq_opcode) << 16 | u64::from(said) << 32;
        self.word(at).store(head_word, Ordering::Release);
        self.set(ARQH, (head + 1) % len);
    }

    /// Takes what the driver sent.
    fn serve(&mut self) {
        assert!(self.get(ATQLEN) & ENABLE != 0, "a message while the queue is off");
        assert!(self.bus_master, "the function may not read memory");
        let (mut head, tail, len) = (self.get(ATQH), self.get(ATQT), self.get(ATQLEN) & 0x3FF);
        assert!(tail < len);
        while head != tail {
            let at = self.ring(ATQBAL, ATQBAH, head);
            let [word0, cookies, params] = [0, 8, 16].map(|offset| self.load(at + offset));
            let payload_len = (word0 >> 32) as usize & 0xFFFF;
            assert_eq!(word0 >> 16 & 0xFFFF, 0x0801);
            let flags = match payload_len {
                0 => 0x2000,
                1..=512 => 0x3400,
                _ => 0x3600,
            };
            assert_eq!(word0 & 0xFFFF, flags, "flags of a message of {payload_len} bytes");
            assert_eq!((cookies >> 32, params), (0, 0));
            let opcode = cookies as u32;
            let payload = match payload_len {
                0 => Vec::new(),
                len => self.bytes(self.load(at + 24).rotate_left(32), len),
            };
            self.word(at).store(word0 | 3, Ordering::Release);
            head = (head + 1) % len;
            self.set(ATQH, head);
            self.actions.push(Action::Message(opcode));
            self.answer(opcode, payload);
        }
    }

    /// The length that PFs compute for a message.
    fn right_len(&self, opcode: u32, payload: &[u8]) -> usize {
        let n = |at: usize| usize::from(u16::from_le_bytes([payload[at], payload[at + 1]]));
        match opcode {
            1 => 8,
            2 | 25 | 27 | 28 | 44 | 51 => 0,
            3 if self.version == (1, 0) => 0,
            3 | 14 => 4,
            6 => 72 + 64 * n(2),
            7 => 14 + 12 * n(0),
            8 | 15 => 12,
            10 | 11 => 12 + 8 * n(2),
            12 | 13 => 6 + 2 * n(2),
            23 | 24 => 6 + n(2) - 1,
            26 => 8,
            29 => 2,
            52 | 53 => 40 + 32 * (n(2) - 1),
            54..=57 => 16,
            107 => 16 + 8 * (n(4) - 1),
            _ => panic!("an opcode that this driver does not use: {opcode}"),
        }
    }

    fn answer(&mut self, opcode: u32, payload: Vec<u8>) {
        assert_eq!(payload.len(), self.right_len(opcode, &payload), "length of message {opcode}");
        self.requests.push((opcode, payload.clone()));
        let soon = Duration::from_micros(500);
        for (of, what) in self.before.clone() {
            if of == opcode {
                self.after(soon, what);
            }
        }
        let soon = soon + Duration::from_micros(100);
        if self.ignores.contains(&opcode) {
            return;
        }
        if let Some(&(_, status)) = self.refuses.iter().find(|(o, _)| *o == opcode) {
            return self.after(soon, Coming::Say(opcode, status, Vec::new()));
        }
        let u32s = |words: &[u32]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        let reply = match opcode {
            1 => u32s(&[self.version.0, self.version.1]),
            2 => {
                assert_ne!(self.get(0x5000) & 1 << 30, 0, "an i40e PF waits for ICR0_ENA before it resets a VF");
                return self.after(Duration::from_millis(5), Coming::Reset(self.reset_takes));
            }
            3 if self.granted => return self.after(soon, Coming::Say(3, -5, Vec::new())),
            3 => {
                self.granted = true;
                self.resources(&payload)
            }
            15 => self.stats.iter().flat_map(|count| count.to_le_bytes()).collect(),
            25 => (1u64 << 33 | 1 << 31 | 1 << 63).to_le_bytes().to_vec(),
            29 => {
                let asked = u16::from_le_bytes([payload[0], payload[1]]);
                match self.most_pairs {
                    None => return,
                    Some(most) if asked <= most => {
                        self.pairs = asked;
                        self.after(soon, Fake::impending());
                        return self.after(Duration::from_millis(10), Coming::Reset(self.reset_takes));
                    }
                    Some(most) => most.to_le_bytes().to_vec(),
                }
            }
            44 => self.rxdids.to_le_bytes().to_vec(),
            51 => {
                let [[fo, fi], [so, si], [io, ii]] = self.vlan;
                u32s(&[fo, fi, 0, 8, so, si, io, ii, 0x8100, 0])
            }
            _ => Vec::new(),
        };
        let lie = self.lies.iter().find(|(o, _)| *o == opcode).map(|(_, lie)| lie.clone());
        self.after(soon, Coming::Say(opcode, 0, lie.unwrap_or(reply)));
        if opcode == 8 || opcode == 107 {
            let link = self.link(true, 25_000);
            self.after(2 * soon, link);
        }
    }

    fn resources(&self, request: &[u8]) -> Vec<u8> {
        let asked = if self.version == (1, 0) { 1 << 16 } else { u32::from_le_bytes(request.try_into().unwrap()) };
        let mut reply = Vec::new();
        for half in [1, self.pairs, self.max_vectors, self.max_mtu] {
            reply.extend(half.to_le_bytes());
        }
        for word in [asked & self.caps, self.rss.0, self.rss.1] {
            reply.extend(word.to_le_bytes());
        }
        // VSI 0x17, its pairs, type 6, queue-set handle, address.
        for half in [0x17, self.pairs, 6, 0, 0] {
            reply.extend(half.to_le_bytes());
        }
        reply.extend(self.mac.0);
        assert_eq!(reply.len(), 36);
        reply
    }
}

impl Bus for Fake {
    fn name(&self) -> &str {
        "0000:3b:02.0"
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
        self.elapse(Duration::from_nanos(100));
        if self.dead() {
            return u32::MAX;
        }
        let value = self.get(offset);
        if offset == 0x4800 {
            self.set(offset, 0);
        }
        value
    }

    fn write32(&mut self, Reg(offset): Reg, value: u32) {
        self.elapse(Duration::from_nanos(100));
        if self.dead() {
            return;
        }
        self.actions.push(Action::Write(offset, value));
        assert_ne!(offset, RSTAT, "read only");
        self.set(offset, value);
        if offset == ATQT && value != self.get(ATQH) {
            self.serve();
        }
    }

    fn doorbell(&mut self, Reg(offset): Reg) -> Result<Doorbell> {
        self.actions.push(Action::Write(offset, u32::MAX)); // so that a test sees which register it is
        let cell = Arc::new(AtomicU32::new(0));
        // SAFETY: the cell lives in the Arc that the doorbell keeps, and an AtomicU32 is aligned.
        Ok(unsafe { Doorbell::new(NonNull::from(&*cell), cell) })
    }

    fn map_dma(&mut self, region: &Arc<HugeRegion>) -> Result<Iova> {
        assert!(self.region.is_none(), "one region for the admin queues");
        self.mapped += 1;
        self.region = Some(region.clone());
        Ok(Iova(region.addr() as u64 + DELTA))
    }

    fn unmap_dma(&mut self, _: &Arc<HugeRegion>) -> Result<()> {
        unreachable!("a reset that nobody saw the end of may still write to it")
    }

    fn vectors(&self) -> u32 {
        self.vectors
    }

    fn connect_vectors(&mut self, _: &[BorrowedFd<'_>]) -> Result<()> {
        unreachable!("the framework connects vectors")
    }

    fn reset_function(&mut self) -> Result<bool> {
        self.actions.push(Action::FunctionReset);
        if self.has_function_reset {
            self.bus_master = false;
            self.begin_reset(self.reset_takes);
        }
        Ok(self.has_function_reset)
    }

    fn bus_master(&mut self) -> Result<bool> {
        Ok(self.bus_master)
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
