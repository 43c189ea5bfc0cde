//! Rings against an oracle: a toy device that follows the same rules, driven by a seeded random walk.
//!
//! The oracle is a queue of the frames that are on their way. Every run prints its seed when it fails.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use super::tx::segments_per_cut;
use super::*;
use crate::mem::{Burst, DmaTarget, HugeRegion, Mempool, PacketBuf, Pages, PoolCache, RxInfo, TxInfo};
use crate::mmio::Doorbell;

const DONE: u64 = 1;
const LAST: u64 = 2;
const ERROR: u64 = 4;
/// In a transmit descriptor: report asked for.
const REPORT: u64 = 8;
/// In a transmit descriptor: it carries a context.
const CONTEXT: u64 = 16;
/// Random walks per test.
const SEEDS: u64 = 10;
const DELTA: u64 = 0x7000_0000_0000;

struct Toy;

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
    fn info(words: &[u64; MAX_WORDS], (): ()) -> RxInfo {
        RxInfo { hash: Some(words[0] as u32), ..Default::default() }
    }
}

/// A device with descriptors of four words, the length apart from the status, that takes tails in eights.
enum Wide {}

// SAFETY: as `Toy`.
unsafe impl RxFormat for Wide {
    const WORDS: usize = 4;
    const STATUS: usize = 1;
    const LEN_WORD: usize = 0;
    const DONE: u64 = DONE;
    const LAST: u64 = LAST;
    const ERROR: u64 = ERROR;
    const LEN_SHIFT: u32 = 32;
    const LEN_BITS: u32 = 14;
    const TAIL_MULTIPLE: u32 = 8;
    type Quirks = ();
    fn info(words: &[u64; MAX_WORDS], (): ()) -> RxInfo {
        RxInfo { hash: Some(words[3] as u32), ..Default::default() }
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
enum Wary {}

/// What a ring of `Wary` begins with.
const FIRST: [u64; 2] = [0xC0DE, CONTEXT];

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
struct Bench {
    region: Arc<HugeRegion>,
    size: usize,
    cell: Arc<AtomicU32>,
    shared: Arc<Shared>,
    gate: Arc<CachePadded<Gate>>,
    head: usize,
    kernel: Kernel,
    /// Words of a descriptor.
    words: usize,
}

struct Model;
impl DmaTarget for Model {
    fn numa_node(&self) -> Option<u32> {
        None
    }
    fn is_model(&self) -> bool {
        true
    }
}

fn pool(buffers: u32) -> Mempool {
    Mempool::builder().buffers(buffers).data_room(1024).on(&[&Model]).unwrap()
}

impl Bench {
    fn new(size: usize) -> Bench {
        let region = Arc::new(HugeRegion::allocate(size * 32, Pages::Ordinary, None).unwrap());
        let shared = Arc::new(Shared::new());
        let gate = Arc::new(CachePadded::new(Gate::new()));
        gate.enable(shared.word.load());
        let (cell, kernel) = (Arc::new(AtomicU32::new(0)), Kernel::best(true));
        Bench { region, size, cell, shared, gate, head: 0, kernel, words: 2 }
    }

    fn doorbell(&self) -> Doorbell {
        // SAFETY: the cell lives as long as its Arc, which the doorbell holds.
        unsafe { Doorbell::new(NonNull::from(&*self.cell), self.cell.clone()) }
    }

    fn word(&self, descriptor: usize, word: usize) -> &AtomicU64 {
        assert!(descriptor < self.size);
        let at = self.region.addr() + (descriptor * self.words + word) * 8;
        // SAFETY: inside the region (asserted), aligned, and only ever used as atomics.
        unsafe { &*std::ptr::with_exposed_provenance::<AtomicU64>(at) }
    }

    fn tail(&self) -> usize {
        self.cell.load(Ordering::Acquire) as usize
    }

    fn armed(&self) -> usize {
        (self.tail() + self.size - self.head) % self.size
    }

    fn rx<F: RxFormat<Quirks = ()>>(&mut self, pool: &Mempool, want_info: bool) -> RxQueue<F> {
        self.words = F::WORDS;
        let parts = RxParts {
            number: 0,
            link: QueueLink::new(self.shared.clone(), self.gate.clone()),
            ring: Descriptors::new(self.region.clone(), 0, self.size * F::WORDS).unwrap(),
            size: self.size as u16,
            tail: self.doorbell(),
            pool: pool.handle().clone(),
            iova_delta: DELTA,
            buffer_len: 1024,
            want_info,
            kernel: self.kernel,
            counts: Default::default(),
            interrupt: None,
        };
        RxQueue::new(parts, ()).unwrap()
    }

    fn tx<F: TxFormat>(&self, pools: &[&Mempool], offloads: bool) -> TxQueue<F> {
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
    fn receive(&mut self, data: &[u8], flags: u64, lie: u64) -> bool {
        if self.armed() == 0 {
            return false;
        }
        let iova = self.word(self.head, 0).load(Ordering::Relaxed);
        assert_eq!(self.word(self.head, 1).load(Ordering::Relaxed) >> 32, 0, "an armed descriptor has no length");
        for word in 2..self.words {
            assert_eq!(self.word(self.head, word).load(Ordering::Relaxed), 0, "an armed descriptor is clear");
        }
        let at = std::ptr::with_exposed_provenance_mut::<u8>(iova.wrapping_sub(DELTA) as usize);
        // SAFETY: the driver gave this buffer of 1024 bytes to the device; `data` is at most that.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), at, data.len()) };
        let len = (data.len() as u64 + lie) << 32;
        if self.words == 2 {
            self.word(self.head, 0).store(0xdead, Ordering::Relaxed);
            self.word(self.head, 1).store(len | flags | DONE, Ordering::Release);
        } else {
            assert!(self.tail().is_multiple_of(8));
            self.word(self.head, 3).store(0xdead, Ordering::Relaxed);
            self.word(self.head, 0).store(len, Ordering::Relaxed);
            self.word(self.head, 1).store(flags | DONE, Ordering::Release);
        }
        self.head = (self.head + 1) % self.size;
        true
    }

    /// The device stores the status of the last lap once more, into a descriptor that was armed anew since.
    fn echo(&self, flags: u64) {
        self.word(self.head, 1).store(flags | DONE, Ordering::Release);
    }

    /// The device sends one descriptor, if there is one: its bytes, whether it ends a frame, its context slot.
    fn transmit(&mut self) -> Option<(Vec<u8>, u64)> {
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

    fn reset(&mut self) {
        self.cell.store(0, Ordering::Release);
        self.head = 0;
    }

    /// Opens the quarantine, as control does after a reset.
    fn close(&self) {
        self.shared.word.go(PortState::Dead);
        // SAFETY: the toy device only acts when the test calls it.
        unsafe { self.shared.quarantine.open() };
    }
}

/// A small generator of numbers (xorshift).
struct Dice(u64);
impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % sides
    }
}

fn bytes(packet: &PacketBuf) -> Vec<u8> {
    packet.segments().flatten().copied().collect()
}

fn frame(dice: &mut Dice, len: usize) -> Vec<u8> {
    let first = dice.roll(256);
    (0..len).map(|i| (first + i) as u8).collect()
}

#[test]
fn received_frames_are_those_sent_in_order() {
    receive_by::<Toy>();
}

#[test]
fn received_frames_are_those_sent_in_order_by_descriptors_of_four_words() {
    receive_by::<Wide>();
}

fn receive_by<F: RxFormat<Quirks = ()>>() {
    for (seed, vector) in (1..=SEEDS).flat_map(|seed| [(seed, false), (seed, true)]) {
        println!("seed {seed}, vector {vector}");
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let size = [32, 64, 72, 256][dice.roll(4)];
        let want_info = dice.roll(2) == 0;
        let pool = pool(size as u32 + 64 + dice.roll(400) as u32);
        let mut bench = Bench::new(size);
        bench.kernel = Kernel::best(vector);
        let mut rx = bench.rx::<F>(&pool, want_info);
        let mut cache = pool.cache();
        let mut held = Burst::with_limit(512).unwrap();
        let mut oracle: VecDeque<Vec<u8>> = VecDeque::new();
        for _ in 0..400 {
            // Frames of one to three pieces; some damaged, some with a length that lies.
            for _ in 0..dice.roll(size) {
                let pieces = if dice.roll(4) == 0 { 1 + dice.roll(3) } else { 1 };
                if bench.armed() < pieces {
                    break;
                }
                let (damaged, lie) = (dice.roll(40) == 0, dice.roll(50) == 0);
                let mut whole = Vec::new();
                for piece in 1..=pieces {
                    let len = if piece == pieces { 1 + dice.roll(1024) } else { 1024 };
                    let data = frame(&mut dice, len);
                    let last = piece == pieces;
                    let flags = if last { LAST | if damaged { ERROR } else { 0 } } else { 0 };
                    assert!(bench.receive(&data, flags, if lie && last { 5000 } else { 0 }));
                    whole.extend(data);
                }
                if !damaged && !lie {
                    oracle.push_back(whole);
                }
            }
            let mut burst = Burst::with_limit(1 + dice.roll(64)).unwrap();
            let got = rx.burst(&mut cache, &mut burst);
            assert_eq!(got, burst.len());
            for (i, packet) in burst.iter().enumerate() {
                assert_eq!(Some(bytes(packet)), oracle.pop_front(), "seed {seed}");
                assert_eq!(burst.rx_info(i).hash, want_info.then_some(0xdead));
            }
            match dice.roll(4) {
                0 => burst.clear(),
                1 => {
                    while let Some(packet) = burst.pop() {
                        if let Err(packet) = held.push(packet) {
                            drop(packet);
                        }
                    }
                }
                _ => cache.free(&mut burst),
            }
            if dice.roll(10) == 0 {
                cache.free(&mut held);
            }
        }
        cache.free(&mut held);
        let mut burst = Burst::new();
        while rx.burst(&mut cache, &mut burst) > 0 {
            for packet in burst.iter() {
                assert_eq!(Some(bytes(packet)), oracle.pop_front(), "seed {seed}");
            }
            cache.free(&mut burst);
        }
        assert!(oracle.is_empty(), "seed {seed}: {} frames are missing", oracle.len());
        drop((rx, cache));
        assert_eq!(pool.available(), pool.capacity() - size as u32, "the quarantine keeps the ring's buffers");
        bench.close();
        assert_eq!(pool.available(), pool.capacity(), "seed {seed}");
    }
}

/// Random packets: plain, short, chained, of another pool, with offloads, and some that can never be sent.
fn make(
    dice: &mut Dice,
    own: &mut PoolCache,
    other: &mut PoolCache,
    offloads: bool,
) -> Option<(PacketBuf, TxInfo, bool)> {
    let mut sendable = true;
    let cache = if dice.roll(8) == 0 { other } else { own };
    let mut packet = cache.alloc_one()?;
    let len = match dice.roll(12) {
        0 => 1 + dice.roll(59),
        1 => {
            sendable = false;
            0
        }
        _ => 60 + dice.roll(900),
    };
    let data = frame(dice, len);
    packet.append(len)?.copy_from_slice(&data);
    if len > 0 && dice.roll(6) == 0 {
        for _ in 0..1 + dice.roll(2) {
            let mut piece = cache.alloc_one()?;
            let len = 1 + dice.roll(300);
            let data = frame(dice, len);
            piece.append(data.len())?.copy_from_slice(&data);
            packet.chain(piece).ok()?;
        }
    }
    let info = TxInfo { tso_mss: (dice.roll(3) * 100) as u16, ..Default::default() };
    let info = if offloads && dice.roll(3) == 0 { info } else { TxInfo::default() };
    let limit = if info.tso_mss > 0 { usize::MAX } else { 1522 };
    sendable &= packet.total_len() <= limit;
    Some((packet, info, sendable))
}

/// What a device has sent, held against what it was given.
#[derive(Default)]
struct Sent {
    pending: VecDeque<(Vec<u8>, u16)>,
    building: Vec<u8>,
    /// The segment size that each context slot was loaded with; slot 0 stands for no context.
    contexts: [u16; 3],
}

impl Sent {
    fn check(&mut self, data: Vec<u8>, flags: u64) {
        let slot = (flags >> 8 & 3) as usize;
        if flags & CONTEXT != 0 {
            self.contexts[slot] = u64::from_le_bytes(data.try_into().unwrap()) as u16;
            return;
        }
        self.building.extend(data);
        if flags & LAST != 0 {
            let (expected, mss) = self.pending.pop_front().expect("a frame that nobody sent");
            assert_eq!(self.building, expected);
            assert_eq!(self.contexts[slot], mss);
            self.building.clear();
        }
    }
}

#[test]
fn sent_frames_are_those_given_in_order_and_every_buffer_comes_back() {
    for (seed, vector) in (1..=SEEDS).flat_map(|seed| [(seed, false), (seed, true)]) {
        println!("seed {seed}, vector {vector}");
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let size = [32, 64, 72, 256][dice.roll(4)];
        let offloads = dice.roll(2) == 0;
        let (own, other) = (pool(2000), pool(600));
        let mut bench = Bench::new(size);
        bench.kernel = Kernel::best(vector);
        let mut tx = bench.tx::<Toy>(&[&own, &other], offloads);
        let (mut cache, mut other_cache) = (own.cache(), other.cache());
        let mut burst = Burst::with_limit(64).unwrap();
        let mut oracle = Sent::default();
        for round in 0..400 {
            for _ in 0..dice.roll(40) {
                if burst.is_full() {
                    break;
                }
                let Some((packet, info, sendable)) = make(&mut dice, &mut cache, &mut other_cache, offloads) else {
                    break;
                };
                if sendable {
                    let mut data = bytes(&packet);
                    if info.tso_mss == 0 {
                        data.resize(data.len().max(60), 0);
                    }
                    oracle.pending.push_back((data, info.tso_mss));
                }
                assert!(burst.push(packet).is_ok());
                burst.set_tx_info(burst.len() - 1, info);
            }
            tx.burst(&mut cache, &mut burst);
            for _ in 0..dice.roll(2 * size) {
                let Some((data, flags)) = bench.transmit() else { break };
                oracle.check(data, flags);
            }
            if round % 100 == 99 {
                // A reset: what the device had is gone, what it had not is sent again by nobody.
                bench.shared.word.go(PortState::Resetting);
                assert_eq!(tx.burst(&mut cache, &mut burst), 0);
                assert!(bench.gate.is_quiet(bench.shared.word.load()));
                bench.reset();
                bench.shared.word.go(PortState::Running);
                bench.gate.enable(bench.shared.word.load());
                cache.free(&mut burst);
                oracle = Sent::default();
            }
        }
        let mut rest = 0;
        while !burst.is_empty() && rest < 10_000 {
            tx.burst(&mut cache, &mut burst);
            while bench.transmit().is_some() {}
            rest += 1;
        }
        assert!(burst.is_empty(), "a loop that retries ends");
        drop((tx, cache, other_cache));
        bench.close();
        assert_eq!((own.available(), other.available()), (own.capacity(), other.capacity()), "seed {seed}");
    }
}

#[test]
fn a_packet_stays_in_the_ring_when_the_pool_is_empty() {
    let pool = pool(64);
    let mut bench = Bench::new(64);
    let mut rx = bench.rx::<Toy>(&pool, false);
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    assert_eq!(rx.burst(&mut cache, &mut burst), 0);
    assert!(bench.receive(&[7; 100], LAST, 0));
    assert_eq!(rx.burst(&mut cache, &mut burst), 0);
    assert!(burst.is_empty());
    drop(rx);
    bench.close();
}

#[test]
fn a_done_bit_without_a_length_is_no_frame_yet() {
    for (vector, before, flags) in
        [false, true].into_iter().flat_map(|v| (0..20).flat_map(move |n| [(v, n, LAST), (v, n, 0)]))
    {
        let pool = pool(32 + 64);
        let mut bench = Bench::new(32);
        bench.kernel = Kernel::best(vector);
        let mut rx = bench.rx::<Toy>(&pool, false);
        let (mut cache, mut burst) = (pool.cache(), Burst::new());
        assert_eq!(rx.burst(&mut cache, &mut burst), 0);
        for lap in 0..8 {
            for n in 0..before {
                assert!(bench.receive(&[n; 60], LAST, 0));
            }
            bench.echo(flags);
            let case = format!("vector {vector}, {before} frames, flags {flags:#x}, lap {lap}");
            assert_eq!(rx.burst(&mut cache, &mut burst), usize::from(before), "{case}");
            assert_eq!(rx.burst(&mut cache, &mut burst), 0, "{case}");
            assert!(bench.receive(&[99; 61], LAST, 0));
            assert_eq!(rx.burst(&mut cache, &mut burst), 1, "{case}");
            assert_eq!(bytes(&burst.pop().unwrap()), [99; 61], "{case}");
            assert!(burst.iter().zip(0..before).all(|(packet, n)| bytes(packet) == [n; 60]), "{case}");
            cache.free(&mut burst);
        }
        drop((rx, cache));
        bench.close();
        assert_eq!(pool.available(), pool.capacity());
    }
}

#[test]
fn a_frame_without_an_end_is_given_up_before_it_takes_the_pool() {
    let pool = pool(32 + 64);
    let mut bench = Bench::new(32);
    let mut rx = bench.rx::<Toy>(&pool, false);
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    assert_eq!(rx.burst(&mut cache, &mut burst), 0);
    for len in [1024, 0, 1] {
        // More pieces than the pool has buffers; then an end, and a frame as it should be.
        for piece in 0..200 {
            assert!(bench.receive(&vec![7; len], 0, 0), "piece {piece} of {len} bytes");
            assert_eq!(rx.burst(&mut cache, &mut burst), 0);
        }
        assert!(bench.receive(&[7; 60], LAST, 0));
        assert!(bench.receive(&[8; 60], LAST, 0));
        assert_eq!(rx.burst(&mut cache, &mut burst), 1);
        assert_eq!(bytes(&burst.pop().unwrap()), [8; 60]);
    }
    // The longest frame there can be passes, and so does one whose last buffer had nothing but the FCS.
    for last in [1024, 0] {
        for _ in 0..15 {
            assert!(bench.receive(&[1; 1024], 0, 0));
        }
        assert!(bench.receive(&vec![1; last], LAST, 0));
        assert_eq!(rx.burst(&mut cache, &mut burst), 1);
        let packet = burst.pop().unwrap();
        assert_eq!((packet.total_len(), packet.segment_count()), (15 * 1024 + last, 15 + last / 1024));
    }
    drop((rx, cache));
    bench.close();
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn a_cache_of_another_pool_is_refused() {
    let (a, b) = (pool(200), pool(200));
    let mut bench = Bench::new(32);
    let mut rx = bench.rx::<Toy>(&a, false);
    let mut burst = Burst::new();
    assert_eq!(rx.burst(&mut a.cache(), &mut burst), 0);
    assert!(bench.receive(&[7; 100], LAST, 0));
    assert_eq!(rx.burst(&mut b.cache(), &mut burst), 0);
    assert_eq!(rx.burst(&mut a.cache(), &mut burst), 1);
    drop(rx);
    bench.close();
}

#[test]
fn packets_of_a_pool_that_is_not_attached_are_freed_and_counted() {
    let (a, b) = (pool(200), pool(200));
    let bench = Bench::new(32);
    let mut tx = bench.tx::<Toy>(&[&a], false);
    let mut burst = Burst::new();
    let mut stranger = b.cache().alloc_one().unwrap();
    stranger.append(100).unwrap();
    burst.push(stranger).unwrap();
    assert_eq!(tx.burst(&mut a.cache(), &mut burst), 0);
    assert!(burst.is_empty());
    assert_eq!(b.available(), 200);
    drop(tx);
    bench.close();
}

#[test]
fn segments_longer_than_the_mtu_are_refused() {
    let pool = pool(200);
    let bench = Bench::new(32);
    let mut tx = bench.tx::<Toy>(&[&pool], true);
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    for (tso_mss, sent) in [(1522 - 54, 1), (1522 - 53, 0)] {
        let mut packet = cache.alloc_one().unwrap();
        packet.append(1000).unwrap().fill(0);
        burst.push(packet).unwrap();
        burst.set_tx_info(0, TxInfo { l2_len: 14, l3_len: 20, l4_len: 20, tso_mss, ..Default::default() });
        assert_eq!(tx.burst(&mut cache, &mut burst), sent);
        assert!(burst.is_empty());
    }
    drop((tx, cache));
    bench.close();
    assert_eq!(pool.available(), 200);
}

#[test]
fn segments_of_each_cut_are_those_of_headers_and_payload() {
    let of = |lens: &[usize], headers, mss| segments_per_cut(lens.iter().copied(), headers, mss);
    assert_eq!(of(&[54, 1460], 54, 1460), 2);
    assert_eq!(of(&[1514], 54, 1460), 2, "headers and payload in one buffer count twice");
    assert_eq!(of(&[20, 34, 1460], 54, 1460), 3);
    // 1000 bytes over pieces of 300: at worst the end of one, three whole ones and the start of another.
    assert_eq!(of(&[[54, 50].as_slice(), &[300; 40]].concat(), 54, 1000), 1 + 5);
    assert_eq!(of(&[[54].as_slice(), &[250; 40]].concat(), 54, 1000), 1 + 4);
    assert_eq!(of(&[[54].as_slice(), &[100; 40]].concat(), 54, 1000), 1 + 10);
    // Many cuts in one piece, the last of them shared with the next.
    assert_eq!(of(&[54, 10_500, 200, 200, 200], 54, 1000), 1 + 4);
    assert_eq!(of(&[0], 0, 0), 0);
}

#[test]
fn at_most_all_but_one_descriptor_are_given_to_the_device() {
    let pool = pool(600);
    let mut bench = Bench::new(64);
    let mut tx = bench.tx::<Toy>(&[&pool], false);
    let (mut cache, mut burst) = (pool.cache(), Burst::with_limit(128).unwrap());
    cache.alloc(128, &mut burst);
    burst.iter_mut().for_each(|p| p.append(64).unwrap().fill(1));
    assert_eq!(tx.burst(&mut cache, &mut burst), 63);
    assert_eq!((burst.len(), bench.armed()), (65, 63));
    assert_eq!(tx.burst(&mut cache, &mut burst), 0);
    while bench.transmit().is_some() {}
    assert_eq!(tx.burst(&mut cache, &mut burst), 63);
    cache.free(&mut burst);
    drop((tx, cache));
    bench.close();
    assert_eq!(pool.available(), 600);
}

#[test]
fn a_ring_that_needs_a_context_begins_with_it_and_again_after_a_reset() {
    let pool = pool(256);
    let mut bench = Bench::new(32);
    let mut tx = bench.tx::<Wary>(&[&pool], true);
    let (mut cache, mut burst) = (pool.cache(), Burst::new());
    tx.burst(&mut cache, &mut burst);
    assert_eq!(bench.tail(), 0, "nothing to send, nothing to tell");
    for epoch in 0..2 {
        let mut sent = Vec::new();
        for _ in 0..3 {
            cache.alloc(30, &mut burst);
            burst.iter_mut().for_each(|packet| assert!(packet.append(60).is_some()));
            while !burst.is_empty() {
                tx.burst(&mut cache, &mut burst);
                sent.extend(std::iter::from_fn(|| bench.transmit()));
            }
        }
        assert_eq!((sent.len(), &sent[0]), (91, &(FIRST[0].to_le_bytes().to_vec(), CONTEXT)), "epoch {epoch}");
        assert!(sent[1..].iter().all(|(data, flags)| data.len() == 60 && flags & CONTEXT == 0));
        bench.shared.word.go(PortState::Resetting);
        tx.burst(&mut cache, &mut burst);
        bench.reset();
        bench.shared.word.go(PortState::Running);
        bench.gate.enable(bench.shared.word.load());
        tx.burst(&mut cache, &mut burst);
    }
    drop((tx, cache));
    bench.close();
    assert_eq!(pool.available(), pool.capacity());
}

#[test]
fn only_the_transitions_of_the_table_are_possible() {
    use PortState::{Dead, Resetting, Running, Stopping};
    let all = [Running, Resetting, Stopping, Dead];
    let legal = [
        (Running, Resetting),
        (Running, Stopping),
        (Running, Dead),
        (Resetting, Running),
        (Resetting, Stopping),
        (Resetting, Dead),
        (Stopping, Dead),
    ];
    for from in all {
        for to in all {
            let word = state::StateWord::new();
            let path: &[PortState] = match from {
                Running => &[],
                Resetting => &[Resetting],
                Stopping => &[Stopping],
                Dead => &[Dead],
            };
            assert!(path.iter().all(|&s| word.go(s)));
            let before = word.load();
            assert_eq!(word.go(to), legal.contains(&(from, to)), "{from:?} -> {to:?}");
            assert_eq!(word.load() != before, legal.contains(&(from, to)));
        }
    }
}

#[test]
fn a_queue_works_only_under_a_word_it_was_enabled_for() {
    let (word, gate) = (state::StateWord::new(), Gate::new());
    let mut current = Word::NONE;
    assert_eq!(gate.look(&word, &mut current), state::Turn::Rest);
    gate.enable(word.load());
    assert_eq!(gate.look(&word, &mut current), state::Turn::Rebuild);
    assert_eq!(current, word.load());
    // A whole reset that the queue slept through: its old enabling does not count.
    assert!(word.go(PortState::Resetting) && word.go(PortState::Running));
    assert!(!gate.is_quiet(word.load()));
    assert_eq!(gate.look(&word, &mut current), state::Turn::Rest);
    assert!(gate.is_quiet(word.load()) && !gate.is_enabled(word.load()));
    gate.enable(word.load());
    assert_eq!(gate.look(&word, &mut current), state::Turn::Rebuild);
    gate.leave();
    assert!(gate.is_gone() && gate.is_quiet(word.load()));
}
