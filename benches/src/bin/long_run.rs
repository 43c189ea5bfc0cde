//! A long run: packets through the models at full speed, received, their MAC addresses swapped, and sent, with every packet
//! and every buffer accounted for at the end.
//!
//! `cargo run --release -p vfring-bench --bin long_run -- 1000000000` does it with so many packets, a quarter for each family.
#![forbid(unsafe_code)]

use std::time::Instant;

use vfring_bench::{BURST, Family, Path, ROUND, Rig, Shape};

/// Without an argument.
const PACKETS: u64 = 10_000_000;

fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(PACKETS);
    let rounds = asked.div_ceil((ROUND * Family::ALL.len()) as u64);
    let (mut total, start) = (0, Instant::now());
    for (name, family) in Family::ALL {
        let shape = Shape { family, vector_bits: u16::MAX, metadata: true };
        let mut rig = Rig::new(BURST, shape).expect("a model needs nothing of the machine");
        let start = Instant::now();
        let mut packets = 0;
        for _ in 0..rounds {
            rig.prepare(Path::RxSwapTx);
            packets += rig.drive(Path::RxSwapTx) as u64;
            // Demands that every frame of the round reached the device.
            rig.finish(Path::RxSwapTx);
        }
        let took = start.elapsed();
        // Demands that every buffer came back.
        let stats = rig.close().expect("the model stops");
        let (received, sent) = (stats.rx[0], stats.tx[0]);
        assert_eq!((received.packets, sent.packets), (packets, packets));
        assert_eq!((received.errors, received.bad_length, received.no_buffer), (0, 0, 0));
        println!("{name}: {packets} packets, {:.1} million a second", packets as f64 / took.as_secs_f64() / 1e6);
        total += packets;
    }
    println!(
        "{total} packets in {:.0} s; every packet was sent, every buffer came back",
        start.elapsed().as_secs_f64()
    );
}
