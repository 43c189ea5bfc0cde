//! Both rings in one call, held against an oracle: what must leave, in which order, whatever the write-backs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;
use crate::mem::Mempool;

/// Two rings of one pool, and what the drivers' `Forward` has.
struct Pair<F: RxFormat> {
    from: Bench,
    to: Bench,
    rx: RxQueue<F>,
    tx: TxQueue<Toy>,
    cache: PoolCache,
    gallery: Gallery,
    arrived: Burst,
    held: Burst,
}

impl<F: RxFormat<Quirks = ()>> Pair<F> {
    fn new(pool: &Mempool, sizes: [usize; 2], bits: u16, limit: usize, want_info: bool) -> Pair<F> {
        let [mut from, mut to] = sizes.map(Bench::new);
        (from.kernel, to.kernel) = (Kernel::best(bits), Kernel::best(bits));
        let (rx, tx) = (from.rx(pool, want_info), to.tx(&[pool], false));
        let burst = || Burst::with_limit(limit).unwrap();
        let (cache, gallery) = (pool.cache(), Gallery::new(limit));
        let mut pair = Pair { from, to, rx, tx, cache, gallery, arrived: burst(), held: burst() };
        // The first burst arms the rings.
        assert_eq!(pair.forward(|_| Verdict::Send), Forwarded::default());
        pair
    }

    /// The joined way alone.
    fn join(&mut self, mut each: impl FnMut(&mut Frame<'_>) -> Verdict) -> Forwarded {
        let Pair { rx, tx, cache, gallery, .. } = self;
        forward(rx, tx, cache, gallery, &mut |arrivals: Arrivals<'_>| arrivals.judge(&mut each))
    }

    /// The joined way, and the ordinary one where that does nothing.
    fn forward(&mut self, mut each: impl FnMut(&mut Frame<'_>) -> Verdict) -> Forwarded {
        if self.held.is_empty() && self.arrived.is_empty() {
            let done = self.join(&mut each);
            if done.received > 0 {
                return done;
            }
        }
        let Pair { rx, tx, cache, gallery, arrived, held, .. } = self;
        let mut sent = tx.burst(cache, held);
        if !held.is_empty() || !tx.has_room(cache) {
            return Forwarded { received: 0, sent };
        }
        if arrived.is_empty() {
            rx.burst(cache, arrived);
        }
        let dropped = Arrivals::of(arrived, gallery).judge(&mut each);
        let received = arrived.len();
        while let Some(packet) = arrived.pop() {
            if dropped >> arrived.len() & 1 == 0 {
                held.push(packet).unwrap();
            }
        }
        held.as_mut_slice().reverse();
        sent += tx.burst(cache, held);
        Forwarded { received, sent }
    }

    /// Everything at home again.
    fn close(self, pool: &Mempool) {
        let Pair { from, to, rx, tx, cache, arrived, held, .. } = self;
        drop((rx, tx, cache, arrived, held));
        from.close();
        to.close();
        assert_eq!(pool.available(), pool.capacity());
    }
}

/// The whole frames that the device has sent.
fn sent(to: &mut Bench, most: usize) -> Vec<Vec<u8>> {
    let (mut frames, mut building) = (Vec::new(), Vec::new());
    while frames.len() < most || !building.is_empty() {
        let Some((data, flags)) = to.transmit() else { break };
        building.extend(data);
        if flags & LAST != 0 {
            frames.push(std::mem::take(&mut building));
        }
    }
    frames
}

/// What the program does in these tests: some first bytes are for the bin, and byte 1 is written.
fn verdict(first: u8, mostly: Verdict) -> Verdict {
    match (first % 9, mostly) {
        (0, Verdict::Send) => Verdict::Drop,
        (0, Verdict::Drop) => Verdict::Send,
        _ => mostly,
    }
}

#[test]
fn forwarded_frames_are_those_received_in_order() {
    forward_by::<Toy>();
}

#[test]
fn forwarded_frames_are_those_received_in_order_by_descriptors_of_four_words() {
    forward_by::<Wide>();
}

fn forward_by<F: RxFormat<Quirks = ()>>() {
    for (seed, bits) in (1..=SEEDS).flat_map(|seed| VECTOR_BITS.map(|bits| (seed, bits))) {
        walk::<F>(seed, bits);
    }
}

/// Frames of every kind at random, some of them dropped, now and then a panic, a transmit ring that is slow or fast.
fn walk<F: RxFormat<Quirks = ()>>(seed: u64, bits: u16) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let case = format!("seed {seed}, vectors of {bits} bits");
    let sizes = [[32, 64, 72, 256][dice.roll(4)], [32, 64, 72, 256][dice.roll(4)]];
    // Of many frames, of a group at most: each has a way of its own.
    let most = [64, 8][dice.roll(2)];
    let (limit, want_info) = (1 + dice.roll(most), dice.roll(2) == 0);
    let mostly = if dice.roll(4) == 0 { Verdict::Drop } else { Verdict::Send };
    // Plain frames alone in some walks, so that runs are long.
    let odd = dice.roll(3);
    let pool = pool(sizes.iter().sum::<usize>() as u32 + 200 + dice.roll(400) as u32);
    let mut pair = Pair::<F>::new(&pool, sizes, bits, limit, want_info);
    let mut oracle: VecDeque<Vec<u8>> = VecDeque::new();
    let (mut judged, mut left, mut expected) = (0, 0, 0);
    for round in 0..150 {
        for _ in 0..dice.roll(sizes[0]) {
            let pieces = if odd > 0 && dice.roll(10) == 0 { 1 + dice.roll(3) } else { 1 };
            if round > 120 || pair.from.armed() < pieces {
                break;
            }
            let (damaged, lie) = (odd > 1 && dice.roll(40) == 0, odd > 1 && dice.roll(50) == 0);
            let mut whole = Vec::new();
            for piece in 1..=pieces {
                let len = match (piece == pieces, odd > 0 && dice.roll(12) == 0) {
                    (false, _) => 1024,
                    (true, true) => 2 + dice.roll(1023),
                    (true, false) => 60 + dice.roll(965),
                };
                let data = frame(&mut dice, len);
                let flags = if piece == pieces { LAST | if damaged { ERROR } else { 0 } } else { 0 };
                assert!(pair.from.receive(&data, flags, if lie && piece == pieces { 5000 } else { 0 }));
                whole.extend(data);
            }
            if damaged || lie {
                continue;
            }
            expected += 1;
            // Longer than the port's MTU: judged, and dropped by the transmit queue.
            if verdict(whole[0], mostly) == Verdict::Send && whole.len() <= 1522 {
                whole[1] = !whole[0];
                whole.resize(whole.len().max(60), 0);
                oracle.push_back(whole);
            }
        }
        let fall = dice.roll(8 * limit);
        let panics = dice.roll(5) == 0;
        let mut seen = 0;
        let done = catch_unwind(AssertUnwindSafe(|| {
            pair.forward(|frame| {
                seen += 1;
                if panics && seen == fall {
                    resume_unwind(Box::new("as planned"));
                }
                assert_eq!(frame.info().hash, want_info.then_some(0xdead));
                assert!(frame.total_len() >= frame.len());
                frame[1] = !frame[0];
                verdict(frame[0], mostly)
            })
        }));
        match done {
            Ok(done) => {
                assert_eq!(done.received, seen, "{case}");
                assert!(seen <= limit);
                judged += done.received;
            }
            Err(_) => assert_eq!((panics, seen), (true, fall), "{case}"),
        }
        // Now and then the device that sends stands still for a while.
        let most = if round % 24 < 8 { 0 } else { dice.roll(2 * sizes[1]) };
        for data in sent(&mut pair.to, most) {
            assert_eq!(Some(data), oracle.pop_front(), "{case}");
            left += 1;
        }
    }
    for _ in 0..200 {
        let done = pair.forward(|frame| {
            frame[1] = !frame[0];
            verdict(frame[0], mostly)
        });
        judged += done.received;
        for data in sent(&mut pair.to, usize::MAX) {
            assert_eq!(Some(data), oracle.pop_front(), "{case}");
            left += 1;
        }
    }
    assert!(oracle.is_empty(), "{case}: {} frames are missing", oracle.len());
    assert_eq!(judged, expected, "{case}");
    assert_eq!(pair.rx.watch.parts.counts.snapshot().packets, judged as u64, "{case}");
    assert_eq!(pair.tx.parts.counts.snapshot().packets, left as u64, "{case}");
    assert!(left > 100 || mostly == Verdict::Drop, "{case}: {left}");
    pair.close(&pool);
}

#[test]
fn plain_frames_need_neither_packets_nor_the_pool() {
    for bits in VECTOR_BITS {
        let pool = pool(1024);
        let mut pair = Pair::<Toy>::new(&pool, [256, 256], bits, 32, false);
        let mut stock = None;
        for round in 0..200u8 {
            assert!((0..32).all(|n| pair.from.receive(&[round, n, 3], LAST, 57)));
            let mut shown = 0;
            let done = pair.join(|frame| {
                assert_eq!((frame[0], frame[1], frame.len()), (round, shown, 60));
                shown += 1;
                Verdict::Send
            });
            assert_eq!(done, Forwarded { received: 32, sent: 32 }, "vectors of {bits} bits, round {round}");
            assert_eq!(sent(&mut pair.to, usize::MAX).len(), 32);
            // Once the transmit ring has what takes their place.
            let now = (pair.cache.len(), pool.handle().depot().len());
            assert!(round < 2 || stock == Some(now), "round {round}: {stock:?} became {now:?}");
            stock = Some(now);
        }
        pair.close(&pool);
    }
}

#[test]
fn what_does_not_fit_stays_in_the_receive_ring() {
    for bits in VECTOR_BITS {
        let pool = pool(1024);
        let mut pair = Pair::<Toy>::new(&pool, [256, 32], bits, 64, false);
        assert!((0..100).all(|n| pair.from.receive(&[n; 60], LAST, 0)));
        let mut got = Vec::new();
        while got.len() < 100 {
            let mut shown = 0;
            for _ in 0..4 {
                let before = shown;
                let done = pair.forward(|_| {
                    shown += 1;
                    Verdict::Send
                });
                assert_eq!((done.received, done.sent), (shown - before, shown - before));
            }
            assert!(pair.held.is_empty());
            // All but one of the ring's descriptors, or what is left.
            assert_eq!((shown, pair.to.armed()), (31.min(100 - got.len()), shown));
            got.extend(sent(&mut pair.to, usize::MAX));
        }
        assert!((0..100).all(|n| got[usize::from(n)] == [n; 60]));
        pair.close(&pool);
    }
}

#[test]
fn a_panic_leaves_the_frames_where_they_are() {
    for (bits, fall) in VECTOR_BITS.into_iter().flat_map(|bits| [1, 8, 9, 20].map(|fall| (bits, fall))) {
        let pool = pool(512);
        let mut pair = Pair::<Toy>::new(&pool, [64, 64], bits, 32, false);
        assert!((0..20).all(|n| pair.from.receive(&[n; 60], LAST, 0)));
        let mut shown = 0;
        let fallen = catch_unwind(AssertUnwindSafe(|| {
            pair.join(|_| {
                shown += 1;
                if shown == fall {
                    resume_unwind(Box::new("as planned"));
                }
                Verdict::Send
            })
        }));
        assert!(fallen.is_err());
        assert!(sent(&mut pair.to, usize::MAX).is_empty(), "nothing that was not judged may leave");
        assert_eq!(pair.join(|_| Verdict::Send), Forwarded { received: 20, sent: 20 });
        let frames = sent(&mut pair.to, usize::MAX);
        assert!(frames.len() == 20 && (0..20).all(|n| frames[usize::from(n)] == [n; 60]));
        pair.close(&pool);
    }
}

#[test]
fn an_echo_is_not_forwarded() {
    echo_by::<Toy>();
    echo_by::<Wide>();
}

fn echo_by<F: RxFormat<Quirks = ()>>() {
    for (bits, before) in VECTOR_BITS.into_iter().flat_map(|bits| (0..20).map(move |n| (bits, n))) {
        let pool = pool(256);
        let [mut from, mut to] = [32, 64].map(Bench::new);
        (from.kernel, to.kernel) = (Kernel::best(bits), Kernel::best(bits));
        // Addresses that read as lengths of whole frames, where the length takes their place.
        let buffer = pool.cache().alloc_one().unwrap().as_ptr() as u64;
        from.delta = (60u64 << 32).wrapping_sub(buffer >> 32 << 32);
        let (rx, tx, cache) = (from.rx::<F>(&pool, false), to.tx(&[&pool], false), pool.cache());
        let gallery = Gallery::new(32);
        let mut pair = Pair { from, to, rx, tx, cache, gallery, arrived: Burst::new(), held: Burst::new() };
        pair.forward(|_| unreachable!());
        for lap in 0..8 {
            assert!((0..before).all(|n| pair.from.receive(&[n; 60], LAST, 0)));
            pair.from.echo(LAST);
            let case = format!("vectors of {bits} bits, {before} frames, lap {lap}");
            let total: usize = (0..3).map(|_| pair.forward(|_| Verdict::Send).sent).sum();
            assert_eq!(total, usize::from(before), "{case}");
            assert!(pair.from.receive(&[99; 61], LAST, 0));
            assert_eq!(pair.forward(|_| Verdict::Send).sent, 1, "{case}");
            let frames = sent(&mut pair.to, usize::MAX);
            assert!((0..before).all(|n| frames[usize::from(n)] == [n; 60]) && frames[total] == [99; 61], "{case}");
        }
        pair.close(&pool);
    }
}

#[test]
fn queues_of_other_pools_are_not_joined() {
    let (a, b) = (pool(256), pool(256));
    let mut pair = Pair::<Toy>::new(&a, [64, 64], u16::MAX, 32, false);
    assert!(pair.from.receive(&[7; 60], LAST, 0));
    let mut cache = std::mem::replace(&mut pair.cache, b.cache());
    assert_eq!(pair.forward(|_| unreachable!()), Forwarded::default());
    std::mem::swap(&mut cache, &mut pair.cache);
    assert_eq!(pair.forward(|_| Verdict::Send).sent, 1);
    drop(cache);
    assert_eq!(b.available(), b.capacity());
    pair.close(&a);
}
