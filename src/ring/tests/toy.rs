//! Toy formats, the device behind them, and the dice of the rings' tests.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::__m512i;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::super::*;
#[cfg(target_arch = "x86_64")]
use super::super::{columns512::ORDER, info::one_by_one};
use crate::cpu::Kernel;
use crate::mem::{DmaTarget, HugeRegion, Mempool, PackedInfo, PacketBuf, Pages, TxInfo};
use crate::mmio::Doorbell;

pub(super) const DONE: u64 = 1;
pub(super) const LAST: u64 = 2;
pub(super) const ERROR: u64 = 4;
/// In a transmit descriptor: report asked for.
pub(super) const REPORT: u64 = 8;
/// In a transmit descriptor: it carries a context.
pub(super) const CONTEXT: u64 = 16;
/// Random walks per test.
pub(super) const SEEDS: u64 = 10;
/// Bits of the vectors that every kernel there is uses.
pub(super) const VECTOR_BITS: [u16; 3] = [0, 256, 512];
const DELTA: u64 = 0x7000_0000_0000;

pub(super) struct Toy;

fn hash_alone(hash: u64) -> PackedInfo {
    PackedInfo::new(PackedInfo::HASHED, 0, hash)
}

/// Holds the status words that the loops have against those of the descriptors.
///
/// # Safety
/// As of [`RxFormat::infos_avx512`].
#[cfg(target_arch = "x86_64")]
unsafe fn infos_of<F: RxFormat<Quirks = ()>>(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8]) {
    // SAFETY: a vector is eight words; the rest is the caller's contract.
    unsafe {
        let words1 = std::mem::transmute::<__m512i, [u64; 8]>(words1);
        assert_eq!(words1, ORDER.map(|i| *at.add(i * F::WORDS + F::STATUS)));
        one_by_one::<F>(at, infos, ());
    }
}

// SAFETY: the toy device below sets DONE after the rest, and armed descriptors have a zero status word.
unsafe impl RxFormat for Toy {
    const WORDS: usize = 2;
    const STATUS: usize = 1;
    const DONE: u64 = DONE;
    const LAST: u64 = LAST;
    const ERROR: u64 = ERROR;
    const LEN_SHIFT: u32 = 32;
    const LEN_BITS: u32 = 16;
    type Quirks = ();
    fn packed(word: impl Fn(usize) -> u64, (): ()) -> PackedInfo {
        hash_alone(word(0))
    }
    #[cfg(target_arch = "x86_64")]
    unsafe fn infos_avx512(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], (): ()) {
        // SAFETY: the caller's contract.
        unsafe { infos_of::<Self>(at, words1, infos) }
    }
}

/// A device with descriptors of four words, the length apart from the status, that takes tails in eights.
pub(super) enum Wide {}

// SAFETY: as `Toy`.
unsafe impl RxFormat for Wide {
    const WORDS: usize = 4;
    const STATUS: usize = 1;
    const LEN_WORD: usize = 0;
    const WRITTEN: u64 = 0x3F;
    const DONE: u64 = DONE;
    const LAST: u64 = LAST;
    const ERROR: u64 = ERROR;
    const LEN_SHIFT: u32 = 32;
    const LEN_BITS: u32 = 14;
    const TAIL_MULTIPLE: u32 = 8;
    type Quirks = ();
    fn packed(word: impl Fn(usize) -> u64, (): ()) -> PackedInfo {
        hash_alone(word(3))
    }
    #[cfg(target_arch = "x86_64")]
    unsafe fn infos_avx512(at: *const u64, words1: __m512i, infos: &mut [PackedInfo; 8], (): ()) {
        // SAFETY: the caller's contract.
        unsafe { infos_of::<Self>(at, words1, infos) }
    }
}

// SAFETY: the toy device reads what the descriptor says and then sets DONE, which `data` leaves clear.
unsafe impl TxFormat for Toy {
    const MAX_SEGMENT: u32 = 65535;
    const CONTEXTS: usize = 2;
    const WHOLE: u64 = LAST;
    const WHOLE_PER_BYTE: u64 = 1 << 32;
    fn data(iova: u64, len: u32, _: u32, last: bool, report: bool) -> [u64; 2] {
        [iova, u64::from(len) << 32 | if last { LAST } else { 0 } | if report { REPORT } else { 0 }]
    }
    fn data_offload(iova: u64, len: u32, total: u32, last: bool, report: bool, _: &TxInfo, context: u8) -> [u64; 2] {
        let [a, b] = Self::data(iova, len, total, last, report);
        [a, b | u64::from(context + 1) << 8]
    }
    fn context(info: &TxInfo, _: u32, context: u8) -> Option<[u64; 2]> {
        (info.l2_len <= 127).then_some([u64::from(info.tso_mss), CONTEXT | u64::from(context + 1) << 8])
    }
    fn with_report(word1: u64) -> u64 {
        word1 | REPORT
    }
    fn done(word1: u64) -> bool {
        word1 & DONE != 0
    }
}

/// As `Toy`, of a device that wants every frame to refer to a context.
pub(super) enum Wary {}

/// What a ring of `Wary` begins with.
pub(super) const FIRST: [u64; 2] = [0xC0DE, CONTEXT];

// SAFETY: as `Toy`, whose device reads nothing for a context.
unsafe impl TxFormat for Wary {
    const MAX_SEGMENT: u32 = Toy::MAX_SEGMENT;
    const CONTEXTS: usize = 1;
    const PLAIN_CONTEXT: Option<[u64; 2]> = Some(FIRST);
    const WHOLE: u64 = Toy::WHOLE;
    const WHOLE_PER_BYTE: u64 = Toy::WHOLE_PER_BYTE;
    fn data(iova: u64, len: u32, total: u32, last: bool, report: bool) -> [u64; 2] {
        Toy::data(iova, len, total, last, report)
    }
    fn data_offload(iova: u64, len: u32, total: u32, last: bool, report: bool, info: &TxInfo, _: u8) -> [u64; 2] {
        Toy::data_offload(iova, len, total, last, report, info, 1)
    }
    fn context(info: &TxInfo, _: u32, _: u8) -> Option<[u64; 2]> {
        Toy::context(info, 0, 1)
    }
    fn with_report(word1: u64) -> u64 {
        Toy::with_report(word1)
    }
    fn done(word1: u64) -> bool {
        Toy::done(word1)
    }
}

/// Ring memory, state and a doorbell, as control would make them.
pub(super) struct Bench {
    pub(super) region: Arc<HugeRegion>,
    pub(super) size: usize,
    pub(super) cell: Arc<AtomicU32>,
    pub(super) shared: Arc<Shared>,
    pub(super) gate: Arc<CachePadded<Gate>>,
    pub(super) head: usize,
    pub(super) kernel: Kernel,
    /// Words of a descriptor.
    pub(super) words: usize,
    /// From where a received packet's buffer is to where the device sees it.
    pub(super) delta: u64,
}

pub(super) struct Model;
impl DmaTarget for Model {
    fn numa_node(&self) -> Option<u32> {
        None
    }
    fn is_model(&self) -> bool {
        true
    }
}

pub(super) fn pool(buffers: u32) -> Mempool {
    Mempool::builder().buffers(buffers).data_room(1024).on(&[&Model]).unwrap()
}

impl Bench {
    pub(super) fn new(size: usize) -> Bench {
        let region = Arc::new(HugeRegion::allocate(size * 32, Pages::Ordinary, None).unwrap());
        let shared = Arc::new(Shared::new());
        let gate = Arc::new(CachePadded::new(Gate::new()));
        gate.enable(shared.word.load());
        let (cell, kernel) = (Arc::new(AtomicU32::new(0)), Kernel::best(u16::MAX));
        Bench { region, size, cell, shared, gate, head: 0, kernel, words: 2, delta: DELTA }
    }

    pub(super) fn doorbell(&self) -> Doorbell {
        // SAFETY: the cell lives as long as its Arc, which the doorbell holds.
        unsafe { Doorbell::new(NonNull::from(&*self.cell), self.cell.clone()) }
    }

    pub(super) fn word(&self, descriptor: usize, word: usize) -> &AtomicU64 {
        assert!(descriptor < self.size);
        let at = self.region.addr() + (descriptor * self.words + word) * 8;
        // SAFETY: inside the region (asserted), aligned, and only ever used as atomics.
        unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(at) }
    }

    pub(super) fn tail(&self) -> usize {
        self.cell.load(Ordering::Acquire) as usize
    }

    pub(super) fn armed(&self) -> usize {
        (self.tail() + self.size - self.head) % self.size
    }

    pub(super) fn rx<F: RxFormat<Quirks = ()>>(&mut self, pool: &Mempool, want_info: bool) -> RxQueue<F> {
        self.words = F::WORDS;
        let parts = RxParts {
            number: 0,
            link: QueueLink::new(self.shared.clone(), self.gate.clone()),
            ring: Descriptors::new(self.region.clone(), 0, self.size * F::WORDS).unwrap(),
            size: self.size as u16,
            tail: self.doorbell(),
            pool: pool.handle().clone(),
            iova_delta: self.delta,
            buffer_len: 1024,
            want_info,
            kernel: self.kernel,
            counts: Default::default(),
            interrupt: None,
        };
        RxQueue::new(parts, ()).unwrap()
    }

    pub(super) fn tx<F: TxFormat>(&self, pools: &[&Mempool], offloads: bool) -> TxQueue<F> {
        let parts = TxParts {
            number: 0,
            link: QueueLink::new(self.shared.clone(), self.gate.clone()),
            ring: Descriptors::new(self.region.clone(), 0, self.size * 2).unwrap(),
            size: self.size as u16,
            tail: self.doorbell(),
            pools: pools.iter().map(|p| Attached { pool: p.handle().clone(), iova_delta: DELTA }).collect(),
            max_frame: 1522,
            max_segments: 8,
            offloads,
            kernel: self.kernel,
            counts: Default::default(),
        };
        TxQueue::new(parts).unwrap()
    }

    /// The device stores one piece of a frame, if a descriptor is armed.
    pub(super) fn receive(&mut self, data: &[u8], flags: u64, lie: u64) -> bool {
        if self.armed() == 0 {
            return false;
        }
        let iova = self.word(self.head, 0).load(Ordering::Relaxed);
        // Words 2 and 3 keep what the device wrote to them.
        assert_eq!(self.word(self.head, 1).load(Ordering::Relaxed) >> 32, 0, "an armed descriptor has no length");
        let at = std::ptr::with_exposed_provenance_mut::<u8>(iova.wrapping_sub(self.delta) as usize);
        // SAFETY: the driver gave this buffer of 1024 bytes to the device; `data` is at most that.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), at, data.len()) };
        let len = (data.len() as u64 + lie) << 32;
        if self.words == 2 {
            self.word(self.head, 0).store(0xdead, Ordering::Relaxed);
            self.word(self.head, 1).store(len | flags | DONE, Ordering::Release);
        } else {
            assert!(self.tail().is_multiple_of(8));
            self.word(self.head, 3).store(0xdead, Ordering::Relaxed);
            self.word(self.head, 0).store(len | 22, Ordering::Relaxed);
            self.word(self.head, 1).store(flags | DONE, Ordering::Release);
        }
        self.head = (self.head + 1) % self.size;
        true
    }

    /// The device stores the status of the last lap once more, into a descriptor that was armed anew since.
    pub(super) fn echo(&self, flags: u64) {
        self.word(self.head, 1).store(flags | DONE, Ordering::Release);
    }

    /// The device sends one descriptor, if there is one: its bytes, whether it ends a frame, its context slot.
    pub(super) fn transmit(&mut self) -> Option<(Vec<u8>, u64)> {
        if self.armed() == 0 {
            return None;
        }
        let (iova, word) = (self.word(self.head, 0).load(Ordering::Relaxed), self.word(self.head, 1));
        let flags = word.load(Ordering::Relaxed);
        let mut data = vec![0; (flags >> 32) as usize];
        if flags & CONTEXT == 0 {
            let at = std::ptr::with_exposed_provenance::<u8>(iova.wrapping_sub(DELTA) as usize);
            // SAFETY: the driver gave these bytes to the device.
            unsafe { std::ptr::copy_nonoverlapping(at, data.as_mut_ptr(), data.len()) };
        } else {
            data = iova.to_le_bytes().to_vec();
        }
        if flags & REPORT != 0 {
            word.store(DONE, Ordering::Release);
        }
        self.head = (self.head + 1) % self.size;
        Some((data, flags))
    }

    pub(super) fn reset(&mut self) {
        self.cell.store(0, Ordering::Release);
        self.head = 0;
    }

    /// Opens the quarantine, as control does after a reset.
    pub(super) fn close(&self) {
        self.shared.word.go(PortState::Dead);
        // SAFETY: the toy device only acts when the test calls it.
        unsafe { self.shared.quarantine.open() };
    }
}

/// A small generator of numbers (xorshift).
pub(super) struct Dice(pub(super) u64);
impl Dice {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}

/// More bytes than any packet here has.
const ENDLESS: usize = 1 << 16;

pub(super) fn bytes(packet: &PacketBuf) -> Vec<u8> {
    let bytes: Vec<u8> = packet.segments().flatten().copied().take(ENDLESS).collect();
    if bytes.len() == ENDLESS {
        // A buffer that was handed out twice is its own next one. Unwinding would free it for ever.
        eprintln!("a packet has no end");
        std::process::abort();
    }
    bytes
}

pub(super) fn frame(dice: &mut Dice, len: usize) -> Vec<u8> {
    let first = dice.roll(256);
    (0..len).map(|i| (first + i) as u8).collect()
}
