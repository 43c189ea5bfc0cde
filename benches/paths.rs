//! Time per packet of each path at each burst size. Machines are shared and noisy: compare within one run, and trust
//! `benches/instructions` for regressions.
//!
//! `cargo bench -p vfring-bench`, or `cargo bench -p vfring-bench -- 'rx.tx igbvf AVX2/32'` for one.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vfring_bench::{BURSTS, Path, ROUND, Rig, Shape};

fn paths(criterion: &mut Criterion) {
    for (shape_name, shape) in Shape::all() {
        for (name, path) in Path::ALL {
            let mut group = criterion.benchmark_group(format!("{name} {shape_name}"));
            group.throughput(Throughput::Elements(ROUND as u64));
            for burst in BURSTS {
                let mut rig = Rig::new(burst, shape).expect("a model needs nothing of the machine");
                group.bench_function(burst.to_string(), |bencher| {
                    bencher.iter_custom(|rounds| {
                        let mut spent = Duration::ZERO;
                        for _ in 0..rounds {
                            rig.prepare(path);
                            let start = Instant::now();
                            let done = rig.drive(path);
                            spent += start.elapsed();
                            assert_eq!(done, ROUND);
                            rig.finish(path);
                        }
                        spent
                    });
                });
                rig.close().expect("the model stops");
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = paths
}
criterion_main!(benches);
