//! Two queue pairs on two cores against one on one: what forwarding threads cost each other.
//!
//! Each thread has a queue pair, of one port or of two, and plays its device itself, untimed and with nothing that the other touches;
//! only the driver's side is timed, which both threads enter at the same moment. One thread alone, the other and both take turns of
//! a millisecond, so that a neighbour on this machine, or a change of its clock, meets them alike.
//! `cargo run --release -p vfring-bench --bin scaling` prints how many times the rate of one thread two have. Threads that share no
//! line have what the first row has, which is without a driver; those that share one have what the last row has.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vfring::drivers::sim::{BenchQueue, World};
use vfring::{Control, Mempool, Port, Started};
use vfring_bench::driver::{Driver, swap_macs};
use vfring_bench::{BURST, Family, RING, ROUND, Shape, cpu};

/// Rounds of a turn; its figure is their median.
const ROUNDS: usize = 16;
/// Turns of one thread, the other and both, and such before that do not count.
const TURNS: usize = 500;
const WARM_UP: usize = 10;
const THREADS: usize = 2;
/// Bytes of a line, and lines that a step of the row without a driver writes: about what a packet costs.
const LINE: usize = 64;
const LINES: usize = 5;

/// What a thread does in a round, on lines of its own.
#[repr(align(128))]
enum Work {
    /// Forwards packets.
    Forward { device: BenchQueue, driver: Box<Driver> },
    /// As that, and writes a word for each burst that the other writes, too.
    ForwardAndCount { device: BenchQueue, driver: Box<Driver>, count: Arc<AtomicUsize> },
    /// Writes memory of its own.
    Own(Vec<u64>),
}

impl Work {
    /// The devices' side before a round.
    fn prepare(&mut self) {
        if let Work::Forward { device, driver } | Work::ForwardAndCount { device, driver, .. } = self {
            driver.ready(0, BURST);
            assert_eq!(device.fill_rx(ROUND), ROUND, "the ring takes a round");
        }
    }

    /// What is timed.
    #[inline(never)]
    fn run(&mut self) {
        match self {
            Work::Forward { driver, .. } => {
                driver.forward(ROUND, |packet| swap_macs(packet));
            }
            Work::ForwardAndCount { driver, count, .. } => {
                for _ in 0..ROUND / BURST {
                    driver.forward(BURST, |packet| swap_macs(packet));
                    count.store(count.load(Ordering::Relaxed) + BURST, Ordering::Relaxed);
                }
            }
            Work::Own(memory) => {
                for word in memory.iter_mut().step_by(LINE / size_of::<u64>()) {
                    *word = std::hint::black_box(*word + 1);
                }
            }
        }
    }

    /// The devices' side after a round.
    fn finish(&mut self) {
        if let Work::Forward { device, .. } | Work::ForwardAndCount { device, .. } = self {
            assert_eq!(device.complete_tx(), ROUND, "every frame reached the device");
        }
    }
}

/// Lets both threads pass at once.
#[derive(Default)]
struct Gate(AtomicUsize);

impl Gate {
    /// The thread's pass number `times`, from 1.
    fn pass(&self, times: usize) {
        self.0.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0;
        while self.0.load(Ordering::Acquire) < times * THREADS {
            spins += 1;
            // The other may need this CPU.
            if spins > 10_000 {
                thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

/// What reading the clock twice takes.
fn clock() -> Duration {
    let read = |_| {
        let start = Instant::now();
        start.elapsed()
    };
    (0..100).map(read).min().unwrap_or_default()
}

/// Thread `me`: the median nanoseconds of a round alone and of one beside the other, turn by turn. In the turns of the other it
/// passes the gates and does nothing else.
fn take_turns(me: usize, work: &mut Work, gate: &Gate) -> Vec<[f64; 2]> {
    let clock = clock();
    let mut passes = 0;
    let mut pass = || {
        passes += 1;
        gate.pass(passes);
    };
    let turn = |_| {
        let mut medians = [0.0; 2];
        for whose in 0..=THREADS {
            let (both, mine) = (whose == THREADS, whose == THREADS || whose == me);
            let mut took = [Duration::ZERO; ROUNDS];
            for took in &mut took {
                if mine {
                    work.prepare();
                }
                pass();
                if mine {
                    let start = Instant::now();
                    work.run();
                    *took = start.elapsed();
                }
                pass();
                if mine {
                    work.finish();
                }
            }
            if mine {
                took.sort_unstable();
                medians[both as usize] = took[ROUNDS / 2].saturating_sub(clock).as_nanos() as f64;
            }
        }
        medians
    };
    (0..WARM_UP + TURNS).map(turn).skip(WARM_UP).collect()
}

/// Two threads' work, and what has to live as long.
struct Pair {
    works: Vec<Work>,
    controls: Vec<Control>,
}

/// Queue pairs of one port or of as many, whose threads may both count in one place.
fn forwarders(family: Family, one_port: bool, count: Option<&Arc<AtomicUsize>>) -> Pair {
    let shape = Shape { family, vector_bits: u16::MAX, metadata: false };
    let (ports, queues) = if one_port { (1, THREADS) } else { (THREADS, 1) };
    let mut pair = Pair { works: Vec::new(), controls: Vec::new() };
    for _ in 0..ports {
        let world = World::stepped(1);
        let port = family.add_to(&world);
        world.bench_relax();
        let config = shape.config(RING).queues(queues as u16, queues as u16);
        let opened = Port::open(&world.spec(port), config).expect("a model needs nothing of the machine");
        let pool = Mempool::builder().buffers(4096 * queues as u32).on(&[&opened]).expect("as above");
        let Started { control, rx, tx } = opened.start(&pool).expect("as above");
        pair.controls.push(control);
        for (queue, (rx, tx)) in rx.into_iter().zip(tx).enumerate() {
            let mut driver = Box::new(Driver::new(rx, tx, pool.cache()));
            // A round of the model's: what is sent once after a start is sent.
            assert_eq!(world.bench_fill_rx(port, queue, ROUND), ROUND);
            driver.forward(ROUND, |_| ());
            assert_eq!(world.bench_complete_tx(port, queue), ROUND);
            let device = world.bench_take(port, queue);
            pair.works.push(match count {
                None => Work::Forward { device, driver },
                Some(count) => Work::ForwardAndCount { device, driver, count: count.clone() },
            });
        }
    }
    pair
}

/// Prints a row of the table.
fn measure(name: &str, of: &str, pair: Pair) {
    let Pair { mut works, controls } = pair;
    let gate = &Gate::default();
    let turns: Vec<Vec<[f64; 2]>> = thread::scope(|scope| {
        let run = |(me, work)| {
            scope.spawn(move || {
                cpu::pin(me);
                take_turns(me, work, gate)
            })
        };
        let threads: Vec<_> = works.iter_mut().enumerate().map(run).collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread runs")).collect()
    });
    drop(works);
    for control in controls {
        control.stop(Duration::from_secs(1)).expect("the model stops");
    }
    let sorted = |values: &mut dyn Iterator<Item = f64>| {
        let mut values: Vec<f64> = values.collect();
        values.sort_unstable_by(f64::total_cmp);
        values
    };
    let rate = |turn: usize, both: usize| turns.iter().map(|thread| 1.0 / thread[turn][both]).sum::<f64>();
    let ratios = sorted(&mut (0..TURNS).map(|turn| rate(turn, 1) / (rate(turn, 0) / THREADS as f64)));
    let alone = sorted(&mut turns.iter().flatten().map(|turn| turn[0] / ROUND as f64));
    let at = |part: f64| ratios[(TURNS as f64 * part) as usize];
    println!(
        "| {name} | {of} | {:.1} | {:.2} | {:.2} to {:.2} | {:.2} to {:.2} |",
        alone[alone.len() / 2],
        at(0.5),
        at(0.25),
        at(0.75),
        at(0.05),
        at(0.95)
    );
}

fn main() {
    println!("| VF | queue pairs of | one thread, ns per packet | both: median | quartiles | 5 to 95 of 100 |");
    println!("|---|---|---|---|---|---|");
    let own = || Work::Own(vec![0; ROUND * LINES * LINE / size_of::<u64>()]);
    measure("none", "memory of its own", Pair { works: vec![own(), own()], controls: Vec::new() });
    for (name, family) in Family::ALL {
        for (one_port, of) in [(true, "one port"), (false, "two ports")] {
            measure(name, of, forwarders(family, one_port, None));
        }
    }
    let count = Arc::default();
    measure("ixgbevf", "two ports, and a common counter", forwarders(Family::Ixgbevf, false, Some(&count)));
}
