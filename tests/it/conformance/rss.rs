//! Flows over queues: the hash decides, the table names the queue, and both stay over resets.

use std::collections::BTreeMap;

use vfring::drivers::sim::{IxgbeOptions, IxgbePart, World};
use vfring::{Port, PortConfig, Rss};
use vfring_tests::bed::*;

/// Addresses and ports of a UDP flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
}

impl Flow {
    fn number(n: u16) -> Flow {
        Flow { from: ([198, 18, (n >> 8) as u8, n as u8], 1000 + n * 7), to: ([198, 19, 0, 1], 2000) }
    }

    fn back(self) -> Flow {
        Flow { from: self.to, to: self.from }
    }

    fn frame(self, s: &Station) -> Vec<u8> {
        let mut out = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2(PEER.0, s.mac().0).ipv4(self.from.0, self.to.0, 64);
        builder.tcp(self.from.1, self.to.1, 1, 512).write(&mut out, &[0x5a; 40]).unwrap();
        out
    }

    /// The Toeplitz hash, bit by bit as Microsoft describes it.
    fn hash(self, key: &[u8]) -> u32 {
        let ports = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        let input = [&self.from.0[..], &self.to.0, &ports].concat();
        let bit = |bytes: &[u8], i: usize| bytes[i / 8] >> (7 - i % 8) & 1 == 1;
        let window = |at: usize| (0..32).fold(0u32, |word, i| word << 1 | u32::from(bit(key, at + i)));
        (0..input.len() * 8).filter(|&i| bit(&input, i)).fold(0, |hash, i| hash ^ window(i))
    }
}

/// The queue that each of some flows comes to, by the frame; its hash is checked.
fn queues_of(s: &mut Station, rss: &Rss, flows: impl Iterator<Item = Flow>) -> Vec<u16> {
    let place = |flow: Flow| {
        let bytes = flow.frame(s);
        let got = s.deliver(&bytes).expect("every flow comes to a queue that runs");
        assert_eq!(got.bytes, bytes);
        assert_eq!(got.info.hash, Some(flow.hash(&rss.key)), "{flow:?}");
        assert_eq!(rss.queue_of(got.info.hash.unwrap()).map(|q| q % s.rx.len() as u16), Some(got.queue), "{flow:?}");
        got.queue
    };
    flows.map(place).collect()
}

fn station(world: &World, part: Part, queues: u16, symmetric: bool) -> Station {
    let config = PortConfig::new().queues(queues, queues).rx_info(true).symmetric_rss(symmetric);
    Station::new(world, options(part, 1), config)
}

/// The parts whose own VFs spread, by a table of theirs or the PF's, with the queues that each can have.
fn spreading() -> impl Iterator<Item = (Part, u16)> {
    PARTS.into_iter().filter(|part| !part.is_igb()).map(|part| (part, part.facts().queues.1))
}

/// Those with a table of their own.
fn settable() -> impl Iterator<Item = (Part, u16)> {
    spreading().filter(|(part, _)| part.facts().sets_rss)
}

/// Flows enough for every queue to have its share.
fn flows(queues: u16) -> impl Iterator<Item = Flow> {
    (0..64 * queues).map(Flow::number)
}

/// How many flows came to each queue.
fn shares(queues: &[u16]) -> BTreeMap<u16, usize> {
    queues.iter().fold(BTreeMap::new(), |mut shares, &queue| {
        *shares.entry(queue).or_default() += 1;
        shares
    })
}

#[test]
fn the_hash_spreads_flows_over_every_number_of_queues() {
    let world = world("spread");
    for (part, most) in spreading() {
        // A table that cannot be set spreads over a power of two.
        let counts = [1, 2, 3, most].into_iter().filter(|n| part.facts().sets_rss || n.is_power_of_two());
        for queues in counts {
            let mut s = station(&world, part, queues, false);
            let rss = s.control.rss().unwrap();
            let shares = shares(&queues_of(&mut s, &rss, flows(queues)));
            assert_eq!(shares.len(), usize::from(queues), "{part:?}");
            assert!(shares.values().all(|&n| n > 32), "{part:?}: {shares:?}");
            s.finish();
        }
    }
}

#[test]
fn a_flow_stays_on_its_queue_through_resets_and_starts_while_the_table_stays() {
    let world = world("stays");
    for (part, queues) in spreading() {
        let mut s = station(&world, part, queues, false);
        let rss = s.control.rss().unwrap();
        let before = queues_of(&mut s, &rss, flows(4));
        world.pf_reset(s.id);
        s.run(2);
        world.pf_reset_done(s.id);
        s.run(40);
        assert_eq!(s.stats().recoveries, 1);
        assert_eq!(s.control.rss().unwrap(), rss);
        assert_eq!(queues_of(&mut s, &rss, flows(4)), before);
        let (id, pool) = (s.id, s.pool.clone());
        let port = s.stop().unwrap();
        let mut s = Station::start(&world, id, port, &pool);
        assert_eq!(queues_of(&mut s, &rss, flows(4)), before);
        s.finish();
    }
}

#[test]
fn a_table_that_is_set_moves_flows_and_is_kept() {
    let world = world("table");
    for (part, queues) in settable() {
        let mut s = station(&world, part, queues, false);
        let rss = s.control.rss().unwrap();
        let only_2 = Rss { table: vec![2; rss.table.len()], ..rss.clone() };
        s.control.set_rss(&only_2).unwrap();
        assert!(queues_of(&mut s, &only_2, flows(2)).iter().all(|&queue| queue == 2));
        let other_key = Rss { key: rss.key.iter().map(|byte| byte ^ 0x5a).collect(), ..rss.clone() };
        s.control.set_rss(&other_key).unwrap();
        // The hashes are checked against the key.
        queues_of(&mut s, &other_key, flows(2));
        s.control.set_rss(&only_2).unwrap();
        world.pf_reset(s.id);
        s.run(2);
        world.pf_reset_done(s.id);
        s.run(40);
        assert_eq!(s.control.rss().unwrap(), only_2);
        assert!(queues_of(&mut s, &only_2, flows(2)).iter().all(|&queue| queue == 2));
        // What is refused changes nothing.
        for bad in [
            Rss { table: vec![queues; rss.table.len()], ..rss.clone() },
            Rss { table: vec![0; 128], ..rss.clone() },
            Rss { key: vec![0; rss.key.len() + 4], ..rss.clone() },
        ] {
            one_line(&s.control.set_rss(&bad).unwrap_err());
        }
        assert_eq!(s.control.rss().unwrap(), only_2);
        s.control.set_rss(&rss).unwrap();
        assert_eq!(shares(&queues_of(&mut s, &rss, flows(queues))).len(), usize::from(queues));
        s.finish();
    }
}

#[test]
fn symmetric_rss_brings_both_directions_to_one_queue() {
    let world = world("symmetric");
    for (part, queues) in settable() {
        let mut s = station(&world, part, queues, true);
        let rss = s.control.rss().unwrap();
        let there = queues_of(&mut s, &rss, flows(queues));
        let back = queues_of(&mut s, &rss, flows(queues).map(Flow::back));
        assert_eq!(there, back);
        assert_eq!(shares(&there).len(), usize::from(queues), "and still spreads");
        s.finish();
        let mut s = station(&world, part, queues, false);
        let rss = s.control.rss().unwrap();
        let there = queues_of(&mut s, &rss, flows(queues));
        assert_ne!(there, queues_of(&mut s, &rss, flows(queues).map(Flow::back)));
        s.finish();
    }
    for part in [Part::I82576, Part::I82599] {
        let id = options(part, 1).add_to(&world);
        let text = one_line(&Port::open(&world.spec(id), PortConfig::new().symmetric_rss(true)).unwrap_err());
        assert!(text.contains("symmetric") && text.contains(part.facts().name), "{text}");
    }
}

#[test]
fn the_pfs_table_is_read_where_the_host_allows_it_and_set_nowhere() {
    let world = world("pf_table");
    let mut s = station(&world, Part::I82599, 4, false);
    let rss = s.control.rss().unwrap();
    assert_eq!((rss.key.len(), rss.table.len()), (40, 128));
    let text = one_line(&s.control.set_rss(&rss).unwrap_err());
    assert!(text.contains("not set"), "{text}");
    s.finish();
    let secret = IxgbeOptions { part: IxgbePart::I82599, jumbo: true, ..IxgbeOptions::default() };
    let id = world.add_ixgbevf(secret);
    let port = Port::open(&world.spec(id), PortConfig::new().queues(2, 2)).unwrap();
    let pool = pool_for(&port, 2048);
    let mut s = Station::start(&world, id, port, &pool);
    let text = one_line(&s.control.rss().unwrap_err());
    assert!(text.contains("query_rss on"), "{text}");
    s.finish();
    let mut s = Station::new(&world, options(Part::I350, 1), PortConfig::new());
    assert!(one_line(&s.control.rss().unwrap_err()).contains("no RSS"));
    s.finish();
}

#[test]
fn one_granted_queue_refuses_more_with_the_reason() {
    let world = world("one_queue");
    for (queues, api) in [(1, 7), (4, 0)] {
        let id = world.add_ixgbevf(IxgbeOptions { queues, api, ..IxgbeOptions::default() });
        let text = one_line(&Port::open(&world.spec(id), PortConfig::new().queues(2, 1)).unwrap_err());
        assert!(text.contains("2 receive queues") && text.contains("has 1"), "{text}");
        let port = Port::open(&world.spec(id), PortConfig::new()).unwrap();
        let pool = pool_for(&port, 2048);
        let mut s = Station::start(&world, id, port, &pool);
        assert!(s.passes(s.mac(), None));
        s.finish();
    }
}

#[test]
fn a_vf_has_as_many_queues_as_its_pf_grants_by_any_version_of_the_api() {
    let world = world("grants");
    for api in 0..=7 {
        for queues in [2, 8] {
            let id = world.add_ixgbevf(IxgbeOptions { queues, api, ..IxgbeOptions::default() });
            let granted = if api == 0 { 1 } else { u16::from(queues) };
            let port = Port::open(&world.spec(id), PortConfig::new().queues(granted, granted)).unwrap();
            assert_eq!((port.info().rx_queues, port.info().tx_queues), (granted, granted), "API 1.{api}");
            let pool = pool_for(&port, 2048);
            let mut s = Station::start(&world, id, port, &pool);
            let own = s.mac();
            assert!(s.passes(own, None) && !s.passes(mac(9), None), "API 1.{api}");
            s.control.add_vlan(3).unwrap();
            assert!(s.passes(own, Some(3)));
            for queue in 0..s.tx.len() {
                let f = frame(PEER, own, 100, queue as u64);
                s.send_by(queue, std::slice::from_ref(&f), 1);
                assert_eq!(world.take_sent(s.id), [f]);
            }
            assert_eq!(s.control.link().speed_mbps, 10_000);
            s.finish();
        }
    }
}

#[test]
fn traffic_classes_have_a_queue_each() {
    let world = world("classes");
    let id = world.add_ixgbevf(IxgbeOptions { traffic_classes: 4, queues: 8, ..IxgbeOptions::default() });
    let port = Port::open(&world.spec(id), PortConfig::new().queues(4, 1)).unwrap();
    assert_eq!((port.info().rx_queues, port.info().rss), (4, None));
    let pool = pool_for(&port, 2048);
    let mut s = Station::start(&world, id, port, &pool);
    assert!(s.passes(s.mac(), None), "frames without a priority come in one of them");
    let f = frame(PEER, s.mac(), 100, 1);
    s.send_by(0, std::slice::from_ref(&f), 1);
    assert_eq!(world.take_sent(s.id), [f]);
    s.finish();
}
