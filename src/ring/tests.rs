//! Rings against an oracle: a toy device that follows the same rules, driven by a seeded random walk.
//!
//! The oracle is a queue of the frames that are on their way. Every run prints its seed when it fails.

mod join;
mod steady;
mod toy;

use std::collections::{BTreeSet, VecDeque};

use super::unusual::segments_per_cut;
use super::*;
use crate::cpu::Kernel;
use crate::mem::{Burst, PacketBuf, PoolCache, TxInfo};
use toy::*;

#[test]
fn received_frames_are_those_sent_in_order() {
    receive_by::<Toy>();
}

#[test]
fn received_frames_are_those_sent_in_order_by_descriptors_of_four_words() {
    receive_by::<Wide>();
}

fn receive_by<F: RxFormat<Quirks = ()>>() {
    for (seed, bits) in (1..=SEEDS).flat_map(|seed| VECTOR_BITS.map(|bits| (seed, bits))) {
        println!("seed {seed}, vectors of {bits} bits");
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let size = [32, 64, 72, 256][dice.roll(4)];
        let want_info = dice.roll(2) == 0;
        let pool = pool(size as u32 + 64 + dice.roll(400) as u32);
        let mut bench = Bench::new(size);
        bench.kernel = Kernel::best(bits);
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
            // Of many packets, of less than a group, of one: each has a way of its own.
            let most = [64, 8, 1][dice.roll(3)];
            let mut burst = Burst::with_limit(1 + dice.roll(most)).unwrap();
            let got = rx.burst(&mut cache, &mut burst);
            assert_eq!(got, burst.len());
            let buffers: BTreeSet<u32> = rx.slots.iter().copied().collect();
            assert_eq!(buffers.len(), size, "seed {seed}: one buffer in two slots");
            for (i, packet) in burst.iter().enumerate() {
                assert_eq!(Some(bytes(packet)), oracle.pop_front(), "seed {seed}");
                assert_eq!(burst.rx_info(i).hash, want_info.then_some(0xdead));
            }
            if !burst.is_full() && cache.len() + pool.available() as usize > 0 {
                assert!(oracle.is_empty(), "seed {seed}: {got} frames and no more");
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
    // Ends even where a buffer that was handed out twice follows itself.
    sendable &= bytes(&packet).len() <= limit;
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
    for (seed, bits) in (1..=2 * SEEDS).flat_map(|seed| VECTOR_BITS.map(|bits| (seed, bits))) {
        println!("seed {seed}, vectors of {bits} bits");
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let size = [32, 64, 72, 256][dice.roll(4)];
        let offloads = dice.roll(2) == 0;
        // Large bursts and small ones, which have a way of their own; devices that keep up and those whose ring fills.
        let (most, pace) = ([64, 8, 4][dice.roll(3)], [2 * size, 8][dice.roll(2)]);
        let usual = dice.roll(2) == 0;
        let (own, other) = (pool(2000), pool(600));
        let mut bench = Bench::new(size);
        bench.kernel = Kernel::best(bits);
        let mut tx = bench.tx::<Toy>(&[&own, &other], offloads);
        let (mut cache, mut other_cache) = (own.cache(), other.cache());
        let mut burst = Burst::with_limit(most).unwrap();
        let mut oracle = Sent::default();
        for round in 0..400 {
            for _ in 0..dice.roll(40) {
                if burst.is_full() {
                    break;
                }
                let made = make(&mut dice, &mut cache, &mut other_cache, offloads);
                let Some((packet, info, sendable)) = made else { break };
                if usual && (!sendable || packet.segment_count() > 1 || packet.len() < 60) {
                    continue;
                }
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
            for _ in 0..dice.roll(pace) {
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
    echoes::<Toy>();
}

#[test]
fn a_done_bit_over_an_armed_address_is_no_frame_yet() {
    echoes::<Wide>();
}

fn echoes<F: RxFormat<Quirks = ()>>() {
    // With the echo as the last that the burst has room for, and as one of many.
    let kinds = [(LAST, true), (LAST, false), (0, true), (0, false)];
    for (bits, before, (flags, tight)) in
        VECTOR_BITS.into_iter().flat_map(|v| (0..20).flat_map(move |n| kinds.map(|kind| (v, n, kind))))
    {
        let pool = pool(32 + 64);
        let mut bench = Bench::new(32);
        bench.kernel = Kernel::best(bits);
        // Addresses that read as lengths of whole frames, where the length takes their place.
        let buffer = pool.cache().alloc_one().unwrap().as_ptr() as u64;
        bench.delta = (60u64 << 32).wrapping_sub(buffer >> 32 << 32);
        let mut rx = bench.rx::<F>(&pool, false);
        let (mut cache, mut burst) =
            (pool.cache(), Burst::with_limit(if tight { usize::from(before) + 1 } else { 32 }).unwrap());
        assert_eq!(rx.burst(&mut cache, &mut burst), 0);
        for lap in 0..8 {
            for n in 0..before {
                assert!(bench.receive(&[n; 60], LAST, 0));
            }
            bench.echo(flags);
            let case = format!("vectors of {bits} bits, {before} frames, flags {flags:#x}, tight {tight}, lap {lap}");
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
