//! Ownership of buffers: where they go, and when a pool's memory does.

use super::*;

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
    Mempool::builder().buffers(buffers).on(&[&Model]).unwrap()
}

#[test]
fn every_buffer_can_be_taken_once_and_comes_back() {
    let pool = pool(200);
    let mut cache = pool.cache();
    let mut burst = Burst::with_limit(MAX_BURST).unwrap();
    assert_eq!(cache.alloc(500, &mut burst), 200);
    let mut addresses: Vec<_> = burst.iter().map(|p| p.as_ptr().addr()).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 200);
    assert!(cache.alloc_one().is_none());
    cache.free(&mut burst);
    drop(cache);
    assert_eq!(pool.available(), 200);
}

#[test]
fn no_buffer_lies_across_two_hugepages() {
    let pool = pool(4000);
    let mut cache = pool.cache();
    let mut burst = Burst::with_limit(MAX_BURST).unwrap();
    let start = pool.handle().region().addr();
    let mut count = 0;
    let mut held = Vec::new();
    while cache.alloc(MAX_BURST, &mut burst) > 0 {
        for packet in &burst {
            let (first, end) = (packet.as_ptr().addr() - HEADROOM, packet.as_ptr().addr() + DEFAULT_DATA_ROOM as usize);
            assert_eq!((first - start) >> 21, (end - 1 - start) >> 21, "{first:#x} to {end:#x}");
            assert!(end <= start + pool.handle().region().len());
            count += 1;
        }
        held.push(std::mem::replace(&mut burst, Burst::with_limit(MAX_BURST).unwrap()));
    }
    assert_eq!((count, pool.capacity()), (4000, 4000));
    drop((held, cache));
    assert_eq!(pool.available(), 4000);
}

#[test]
fn a_packet_outlives_its_pool() {
    let pool = pool(64);
    let mut cache = pool.cache();
    let mut packet = cache.alloc_one().unwrap();
    packet.append(4).unwrap().copy_from_slice(b"ping");
    drop((cache, pool));
    assert_eq!(&packet[..], b"ping");
    std::thread::spawn(move || drop(packet)).join().unwrap();
}

#[test]
fn buffers_of_another_pool_go_home() {
    let (a, b) = (pool(64), pool(64));
    let mut at_a = a.cache();
    let mut at_b = b.cache();
    let mut burst = Burst::new();
    at_a.alloc(8, &mut burst);
    at_b.alloc(8, &mut burst);
    at_a.free(&mut burst);
    drop((at_a, at_b));
    assert_eq!((a.available(), b.available()), (64, 64));
}

#[test]
fn headroom_and_tailroom_are_bounds() {
    let pool = pool(64);
    let mut cache = pool.cache();
    let mut p = cache.alloc_one().unwrap();
    assert_eq!((p.headroom(), p.tailroom()), (HEADROOM, 2048));
    assert!(p.append(2049).is_none());
    assert!(p.prepend(HEADROOM + 1).is_none());
    p.append(2048).unwrap().fill(1);
    p.prepend(HEADROOM).unwrap().fill(2);
    assert_eq!((p.len(), p.headroom(), p.tailroom()), (2048 + HEADROOM, 0, 0));
    assert!(!p.trim_front(5000));
    assert!(p.trim_front(HEADROOM));
    assert!(p.iter().all(|&b| b == 1));
    p.truncate(10);
    assert_eq!((p.len(), p.tailroom()), (10, 2038));
}

#[test]
fn chains_keep_their_bytes_and_give_every_buffer_back() {
    let pool = pool(64);
    let mut cache = pool.cache();
    let data: Vec<u8> = (0..5000u32).map(|i| i as u8).collect();
    let mut packet = cache.alloc_one().unwrap();
    packet.append(1000).unwrap().copy_from_slice(&data[..1000]);
    for part in data[1000..].chunks(1500) {
        let mut next = cache.alloc_one().unwrap();
        next.append(part.len()).unwrap().copy_from_slice(part);
        packet.chain(next).unwrap();
    }
    assert!(packet.is_chained());
    assert_eq!((packet.total_len(), packet.segment_count()), (5000, 4));
    assert_eq!(packet.segments().flatten().copied().collect::<Vec<_>>(), data);

    let copy = cache.copy(&packet).unwrap();
    assert_eq!(copy.segments().flatten().copied().collect::<Vec<_>>(), data);
    assert_eq!(copy.segment_count(), 3);

    let mut cut = cache.copy(&packet).unwrap();
    cut.truncate(2100);
    assert_eq!(cut.segments().flatten().copied().collect::<Vec<_>>(), data[..2100]);
    assert_eq!(cut.segment_count(), 2);
    cut.truncate(2048);
    assert!(!cut.is_chained() || cut.segment_count() == 1 || cut.total_len() == 2048);
    cut.truncate(7);
    assert_eq!((cut.is_chained(), cut.total_len()), (false, 7));

    let mut burst = Burst::new();
    burst.push(copy).unwrap();
    cache.free(&mut burst);
    drop((packet, cut, cache));
    assert_eq!(pool.available(), 64);
}

#[test]
fn padding_finds_room_in_the_last_buffer_and_touches_no_other() {
    let pool = pool(64);
    let mut cache = pool.cache();
    let mut make = |at: usize, len: usize, byte: u8| {
        let mut packet = cache.alloc_one().unwrap();
        packet.append(at + len).unwrap().fill(byte);
        assert!(packet.trim_front(at));
        packet
    };
    // Room behind, exactly none, some.
    for at in [0, 2048 - 34, 2048 - 40] {
        let mut single = make(at, 34, 7);
        assert!(single.pad(26));
        assert_eq!((&single[..34], &single[34..]), (&[7; 34][..], &[0; 26][..]));
        let (mut chain, last) = (make(0, 14, 1), make(at, 34, 2));
        chain.chain(make(100, 4, 3)).unwrap();
        chain.chain(last).unwrap();
        assert!(chain.pad(8));
        let segments: Vec<_> = chain.segments().map(<[u8]>::to_vec).collect();
        assert_eq!(segments, [vec![1; 14], vec![3; 4], [vec![2; 34], vec![0; 8]].concat()]);
        assert!(!chain.pad(2048 + HEADROOM));
        assert_eq!(chain.total_len(), 60);
    }
}

#[test]
fn a_chain_across_pools_is_refused() {
    let (a, b) = (pool(64), pool(64));
    let mut packet = a.cache().alloc_one().unwrap();
    let other = b.cache().alloc_one().unwrap();
    assert!(packet.chain(other).is_err());
    drop(packet);
    assert_eq!((a.available(), b.available()), (64, 64));
}

#[test]
fn metadata_moves_with_its_packet() {
    let pool = pool(64);
    let mut cache = pool.cache();
    let mut burst = Burst::new();
    cache.alloc(6, &mut burst);
    for i in [1, 4] {
        burst.set_tx_info(i, TxInfo { tso_mss: 100 + i as u16, ..Default::default() });
    }
    for (i, packet) in burst.iter_mut().enumerate() {
        packet.append(i + 1).unwrap();
    }
    burst.swap(4, 0);
    assert_eq!((burst.tx_info(0).tso_mss, burst.tx_info(4).tso_mss), (104, 0));
    burst.retain(|packet, _| packet.len() != 1 && packet.len() != 3);
    let seen: Vec<_> = (0..burst.len()).map(|i| (burst.as_slice()[i].len(), burst.tx_info(i).tso_mss)).collect();
    assert_eq!(seen, [(5, 104), (2, 101), (4, 0), (6, 0)]);
    // SAFETY: the first packet is leaked on purpose, as a ring would take it over.
    unsafe { burst.forget_front(1) };
    assert_eq!((burst.len(), burst.tx_info(0).tso_mss, burst.tx_info(1).tso_mss), (3, 101, 0));
}

#[test]
fn packets_leave_a_burst_in_order_with_what_was_found_out_about_them() {
    let pool = pool(64);
    let mut cache = pool.cache();
    let mut burst = Burst::new();
    let fill = |burst: &mut Burst, cache: &mut PoolCache| {
        for n in 0..6 {
            let mut packet = cache.alloc_one().unwrap();
            packet.append(n + 1).unwrap();
            burst.push(packet).unwrap();
            // The last has none.
            if n < 5 {
                burst.set_last_rx_info(PackedInfo::new(PackedInfo::HASHED, 0, 100 + n as u64));
            }
        }
    };
    fill(&mut burst, &mut cache);
    let mut drain = burst.drain();
    let seen: Vec<_> = drain.by_ref().take(4).map(|(packet, info)| (packet.len(), info.hash)).collect();
    assert_eq!(seen, [(1, Some(100)), (2, Some(101)), (3, Some(102)), (4, Some(103))]);
    assert_eq!(drain.len(), 2);
    // Of the others, one goes out and one is dropped.
    assert_eq!(drain.next().map(|(packet, info)| (packet.len(), info.hash)), Some((5, Some(104))));
    drop(drain);
    assert!(burst.is_empty());
    cache.alloc(1, &mut burst);
    assert_eq!(burst.rx_info(0), RxInfo::default(), "what was found out about a packet left with it");
    cache.free(&mut burst);

    // All of them, and nothing behind.
    fill(&mut burst, &mut cache);
    let mut drain = burst.drain();
    assert_eq!(drain.by_ref().last().map(|(packet, info)| (packet.len(), info.hash)), Some((6, None)));
    assert!(drain.next().is_none());
    drop(drain);
    // Forgotten, packets are lost and have no owner: not two.
    fill(&mut burst, &mut cache);
    std::mem::forget(burst.drain());
    assert!(burst.is_empty());
    drop((burst, cache));
    assert_eq!(pool.available(), 64 - 6);
}

#[test]
fn bursts_out_of_range_are_refused() {
    assert!(Burst::with_limit(0).is_err());
    assert!(Burst::with_limit(MAX_BURST + 1).is_err());
}

#[test]
fn pools_out_of_range_are_refused_with_the_range() {
    assert!(Mempool::builder().buffers(1).on(&[&Model]).unwrap_err().to_string().contains("64"));
    assert!(Mempool::builder().data_room(1).on(&[&Model]).is_err());
}

#[test]
fn reservations_are_bounded_by_the_capacity() {
    let pool = pool(100);
    assert_eq!(pool.handle().reserve(60), Ok(()));
    assert_eq!(pool.handle().reserve(60), Err(40));
    pool.handle().release(60);
    assert_eq!(pool.handle().reserve(100), Ok(()));
}

#[test]
fn threads_share_a_pool_without_losing_a_buffer() {
    let pool = pool(4096);
    std::thread::scope(|s| {
        for seed in 0..4usize {
            let pool = &pool;
            s.spawn(move || {
                let mut cache = pool.cache();
                let mut burst = Burst::with_limit(256).unwrap();
                for round in 0..300 {
                    cache.alloc((round * 7 + seed * 31) % 256 + 1, &mut burst);
                    if round % 3 == 0 {
                        burst.clear();
                    } else {
                        cache.free(&mut burst);
                    }
                }
            });
        }
    });
    assert_eq!(pool.available(), 4096);
}

#[test]
fn pool_numbers_are_used_again() {
    for _ in 0..3000 {
        drop(pool(64));
    }
}
