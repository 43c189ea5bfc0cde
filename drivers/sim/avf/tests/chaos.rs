//! A driver out of its mind: whatever it does, the model says so and neither panics nor leaves device memory.
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::rng::Rng;

/// A message with an opcode of interest: a good one changed at some bytes, or rubbish of any length.
fn message(rig: &Rig, rng: &mut Rng) -> (u32, Vec<u8>) {
    let opcode = match rng.below(8) {
        0 => rng.below(140) as u32,
        1 => 6,
        _ => [7, 8, 9, 10, 12, 14, 23, 24, 26, 29, 52, 54, 107, 111][rng.below(14) as usize],
    };
    let mut payload = match opcode {
        6 => rig.queue_config(1 + rng.below(3) as u16, 1).0,
        7 => bytes().u16s(&[1, rig.vsi, 1, 1, 1, 0, 0]).u8s(&[0; 12]).0,
        8 | 9 => bytes().u16s(&[rig.vsi, 0]).u32s(&[rng.below(8) as u32, rng.below(8) as u32]).0,
        24 => bytes().u16s(&[rig.vsi, 64]).u8s(&[0; 65]).0,
        _ => (0..rng.below(100)).map(|_| rng.below(4) as u8).collect(),
    };
    for _ in 0..rng.below(3) {
        let at = rng.below(payload.len().max(1) as u64) as usize;
        if let Some(byte) = payload.get_mut(at) {
            *byte = rng.next() as u8;
        }
    }
    (opcode, payload)
}

fn act(rig: &mut Rig, rng: &mut Rng) {
    match rng.below(12) {
        0..4 => {
            let (opcode, payload) = message(rig, rng);
            rig.post(opcode, &payload);
            rig.pause(Duration::from_micros(rng.below(600)));
            while rig.hear().is_some() {}
        }
        4 => rig.ring(4 * rng.below(4) as u32, rng.below(70) as u32),
        5 => rig.ring(0x2000 + 4 * rng.below(4) as u32, rng.below(70) as u32),
        6 => {
            let (ring, stride) = [(TX_RINGS, 16), (RX_RINGS, 32)][rng.below(2) as usize];
            let words = [rig.iova + rng.below(MEMORY as u64 + 4096), rng.next() & rng.next() & rng.next()];
            rig.store(ring + rng.below(64) * stride, &words);
        }
        7..9 => {
            let mut wire = frame(60 + rng.below(3000) as usize);
            wire[12 + rng.below(30) as usize] = rng.next() as u8;
            rig.inject(&wire);
        }
        9 => {
            let at = rig.fill(&frame(200));
            let bits = if rng.below(2) == 0 { EOP | RS } else { rng.next() & 0x00ff_ffff_fff0 };
            rig.send(&[[0, 1 | rng.next() << 4 & rng.next()], data(at, rng.below(300) as usize, bits)]);
        }
        10 => {
            let registers = [0x5c00, 0x3800, 0x6800, 0x7c00, 0x7800, 0x8400, 0x7000, 0xc400, 0xd000, 0x2800, 0x4800];
            let offset = registers[rng.below(11) as usize];
            let _ = rig.read(offset);
            if rng.below(8) == 0 {
                rig.write(offset, rng.next() as u32);
            }
        }
        _ => {
            // Back to work.
            if rng.below(4) == 0 || rig.read(0x8000) >> 31 == 0 {
                rig.bus.reset_function().unwrap();
                rig.bus.set_bus_master(true).unwrap();
                rig.wait_active();
                rig.start_admin();
                rig.negotiate(if rng.below(2) == 0 { CAPS } else { rng.next() as u32 });
            }
        }
    }
    rig.sent();
}

#[test]
fn whatever_a_driver_does_the_model_goes_on() {
    for seed in 0..30 {
        let part = PARTS[seed as usize % 3];
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut rig = Rig::running_with(AvfOptions {
            double_vlan: seed & 4 != 0,
            large_queues: seed & 8 != 0,
            batched: seed & 16 != 0,
            ..options(part)
        });
        for _ in 0..300 {
            act(&mut rig, &mut rng);
        }
        // And it is as good as new afterwards.
        rig.bus.reset_function().unwrap();
        rig.bus.set_bus_master(true).unwrap();
        rig.wait_active();
        rig.start_admin();
        rig.negotiate(CAPS);
        rig.start_queues(1, 1);
        assert!(rig.inject(&frame(60)), "seed {seed}");
        rig.send_plain(&frame(60));
        assert_eq!(rig.sent().len(), 1, "seed {seed}");
        rig.bus.reset_function().unwrap();
    }
}
