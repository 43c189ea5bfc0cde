//! Drivers out of their mind: whatever one does, the model says so and neither panics nor leaves device memory.
#![forbid(unsafe_code)]

use super::ixgbe::{CC, Vf};
use super::*;
use crate::drivers::sim::rng::Rng;
use crate::drivers::sim::{Fault, IxgbeOptions, IxgbePart};

/// Where a family's registers are.
struct Map {
    rx: u32,
    tx: u32,
    stride: u32,
    queues: u64,
    rdt: u32,
    tdt: u32,
    mailbox: (u32, u32),
    /// Others that a driver writes.
    general: &'static [u32],
}

const IGB: Map = Map {
    rx: 0x2800,
    tx: 0x3800,
    stride: 0x100,
    queues: 2,
    rdt: 0x2818,
    tdt: 0x3818,
    mailbox: (0xc40, 0x800),
    general: &[0, 0x1520, 0x1524, 0x1528, 0x152c, 0x1530, 0x1580, 0x1680, 0x1700, 0x1740, 0xf04, 0xf0c],
};
const IXGBE: Map = Map {
    rx: 0x1000,
    tx: 0x2000,
    stride: 0x40,
    queues: 8,
    rdt: 0x1018,
    tdt: 0x2018,
    mailbox: (0x2fc, 0x200),
    general: &[0, 0x100, 0x104, 0x108, 0x10c, 0x110, 0x114, 0x120, 0x140, 0x300, 0x820, 0x3000, 0x3104, 0x3208],
};

/// A number that is more often small or a register's usual value than not.
fn value(rig: &Rig, rng: &mut Rng) -> u32 {
    match rng.below(8) {
        0 => rng.next() as u32,
        1 => rng.below(130) as u32,
        2 => N * 16,
        3 => 1 << 25,
        4 => 1 << 25 | 2,
        5 => rig.iova as u32,
        6 => (rig.iova >> 32) as u32,
        _ => 1 << rng.below(32),
    }
}

fn act(rig: &mut Rig, map: &Map, rng: &mut Rng) {
    match rng.below(12) {
        0..3 => {
            let base = if rng.below(2) == 0 { map.rx } else { map.tx };
            let offset = base + map.stride * rng.below(map.queues) as u32 + 4 * rng.below(16) as u32;
            if rng.below(3) == 0 {
                let _ = rig.read(offset);
            } else {
                let value = value(rig, rng);
                rig.write(offset, value);
            }
        }
        3 => {
            let (offset, value) = (map.general[rng.below(map.general.len() as u64) as usize], value(rig, rng));
            rig.write(offset, value);
        }
        4 => {
            let tail = if rng.below(2) == 0 { map.rdt } else { map.tdt };
            rig.ring(tail, rng.below(70) as u32);
        }
        5..7 => {
            rig.write(map.mailbox.0, 4);
            let id = rng.below(0x14) as u32 | (rng.below(40) as u32) << 16;
            for (i, word) in [id, rng.below(10) as u32, rng.next() as u32].into_iter().enumerate() {
                rig.write(map.mailbox.1 + 4 * i as u32, word);
            }
            rig.write(map.mailbox.0, rng.below(8) as u32);
            rig.pause(Duration::from_micros(rng.below(3000)));
            rig.read(map.mailbox.0);
        }
        7 => {
            let ring = [TX_RING, RX_RING][rng.below(2) as usize];
            let words = [rig.iova + rng.below(MEMORY as u64 + 4096), rng.next() & rng.next() & rng.next()];
            rig.store(ring + rng.below(N.into()) * 16, if rng.below(4) == 0 { [u64::MAX; 2] } else { words });
        }
        8 => {
            let mut wire = frame(60 + rng.below(3000) as usize);
            wire[12 + rng.below(30) as usize] = rng.next() as u8;
            rig.world.inject(rig.port, &wire);
        }
        9 => {
            let (iova, len) = (rig.fill(0, &frame(200)), rng.below(300) as usize);
            let context = Context {
                mac_len: rng.below(128),
                ip_len: rng.below(64),
                l4: rng.below(4),
                l4_len: rng.below(40),
                mss: rng.below(100),
                ipv4: rng.below(2) == 0,
                ..PLAIN
            };
            let command = EOP | RS | if rng.below(2) == 0 { 0 } else { TSE };
            let wanted = CC | [0, IXSM, TXSM, IXSM | TXSM][rng.below(4) as usize];
            for words in [context.words(0), data(iova, len, len.saturating_sub(54), command, wanted)] {
                rig.store(TX_RING + rig.tx_next as u64 * 16, words);
                rig.tx_next = (rig.tx_next + 1) % N;
            }
            rig.ring(map.tdt, rig.tx_next);
        }
        10 => {
            let faults = [Fault::EnableStuck, Fault::RstiStuck, Fault::PfHoldsBuffer, Fault::LinkDisabled];
            if rng.below(4) == 0 {
                rig.world.set_fault(rig.port, faults[rng.below(4) as usize]);
            }
            rig.world.clear_faults(rig.port);
            rig.world.link(rig.port, rng.below(4) > 0);
        }
        _ => match rng.below(6) {
            0 => drop(rig.bus.reset_function()),
            1 => rig.bus.set_bus_master(rng.below(4) > 0).unwrap(),
            2 => rig.world.pf_reset(rig.port),
            3 => rig.world.pf_reset_done(rig.port),
            _ => rig.pause(Duration::from_millis(1)),
        },
    }
    rig.sent();
}

/// Ends whatever is left of the madness, so that the next driver finds a VF that works.
fn calm(rig: &mut Rig) {
    rig.world.clear_faults(rig.port);
    rig.world.link(rig.port, true);
    rig.world.pf_reset(rig.port);
    rig.world.pf_reset_done(rig.port);
    rig.bus.reset_function().unwrap();
    rig.bus.set_bus_master(true).unwrap();
    rig.pause(Duration::from_millis(5));
}

#[test]
fn whatever_a_driver_does_an_igb_model_goes_on() {
    for seed in 0..24 {
        println!("seed {seed}");
        let (mut rng, part) = (Rng::new(seed), if seed % 2 == 0 { Part::I82576 } else { Part::I350 });
        let mut rig = Rig::running(part);
        for _ in 0..300 {
            act(&mut rig, &IGB, &mut rng);
            if rng.below(20) == 0 {
                calm(&mut rig);
                rig.bring_up();
            }
        }
        calm(&mut rig);
        rig.bring_up();
        assert!(rig.world.inject(rig.port, &frame(60)));
        rig.send_plain(&frame(60));
        assert_eq!(rig.sent().len(), 1);
        rig.write(0, 1 << 26);
    }
}

#[test]
fn whatever_a_driver_does_an_ixgbe_model_goes_on() {
    let parts = [IxgbePart::I82599, IxgbePart::X540, IxgbePart::X550, IxgbePart::E610];
    for seed in 0..24 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut vf = Vf::running(IxgbeOptions {
            part: parts[seed as usize % 4],
            mac: Some(MAC),
            query_rss: true,
            traffic_classes: if seed & 4 != 0 { 4 } else { 0 },
            trusted: seed & 8 != 0,
            pf_promiscuous: true,
            multicast_filter: (seed >> 4) as u8 & 3,
            ..IxgbeOptions::default()
        });
        for _ in 0..300 {
            act(&mut vf, &IXGBE, &mut rng);
            if rng.below(20) == 0 {
                calm(&mut vf);
                vf.bring_up();
            }
        }
        calm(&mut vf);
        vf.bring_up();
        if seed & 4 == 0 {
            assert!(vf.world.inject(vf.port, &frame(60)));
        }
        vf.send_plain(&frame(60));
        assert_eq!(vf.sent().len(), 1);
        vf.write(0, 1 << 26);
    }
}
