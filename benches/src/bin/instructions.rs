//! The program that `benches/instructions` runs under callgrind: one path at one burst size, the driver's side inside
//! `measured_round` and nothing else.
//!
//! usage: instructions PATH BURST plain|portable|metadata|iavf-legacy|iavf-flex

use vfring_bench::{Kind, Path, Rig};

/// Rounds before counting: caches fill, the ring wraps.
const WARM_UP: usize = 8;
/// Rounds that count.
const ROUNDS: usize = 40;

/// Callgrind collects only inside this function.
#[inline(never)]
#[unsafe(no_mangle)]
fn measured_round(rig: &mut Rig, path: Path) -> usize {
    rig.drive(path)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, burst, kind] = arguments.as_slice() else {
        eprintln!("usage: instructions PATH BURST plain|portable|metadata|iavf-legacy|iavf-flex");
        std::process::exit(1);
    };
    let path = Path::ALL.iter().find(|(name, _)| name == path).map(|(_, path)| *path);
    let kind = Kind::ALL.iter().find(|(name, _)| name == kind).map(|(_, kind)| *kind);
    let (Some(path), Ok(burst), Some(kind)) = (path, burst.parse(), kind) else {
        eprintln!("instructions: no such path, burst or kind");
        std::process::exit(1);
    };
    let mut rig = Rig::new(burst, kind).expect("a model needs nothing of the machine");
    for _ in 0..WARM_UP {
        rig.prepare(path);
        rig.drive(path);
        rig.finish(path);
    }
    let mut packets = 0;
    for _ in 0..ROUNDS {
        rig.prepare(path);
        packets += measured_round(&mut rig, path);
        rig.finish(path);
    }
    rig.close().expect("the model stops");
    println!("{packets}");
}
