//! Two queue pairs on two cores against one on one: what forwarding threads cost each other.
//!
//! Each thread has a queue pair, and plays its device itself, untimed; only the driver's side is timed, which both threads enter
//! at the same moment; the devices work before and after it. The queue pairs are of one port or of two. `cargo run --release -p vfring-bench --bin scaling`
//! prints how many times the rate of one thread two have; without a line that both write, that is 2.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vfring::drivers::sim::{PortId, World};
use vfring::{Control, Mempool, Port, Started};
use vfring_bench::driver::{Driver, swap_macs};
use vfring_bench::{BURST, Family, Shape, cpu};

/// Packets of a round that are not timed: with them the thread takes back the lines of its tails, which the model of a port looked
/// at for the other thread's queue, too.
const TAKEN_BACK: usize = 2 * BURST;
/// Runs of one thread, the other, and both, by turns.
const RUNS: usize = 15;
/// Rounds of a run; its figure is their median.
const ROUNDS: usize = 500;
/// Rounds before.
const WARM_UP: usize = 20;
/// Descriptors of each ring, and packets of a round.
const RING: u16 = 512;
const ROUND: usize = RING as usize / 2;
const THREADS: usize = 2;

/// A queue pair, its device and its driver.
struct Lane {
    world: World,
    port: PortId,
    queue: usize,
    driver: Driver,
}

impl Lane {
    /// Nanoseconds per packet, the median of the rounds, without what the clock takes.
    fn run(&mut self, rounds: usize, together: Option<&Gate>) -> f64 {
        let mut took = Vec::with_capacity(rounds);
        for round in 0..rounds {
            // The devices work one after the other.
            let wait = |times| together.into_iter().for_each(|gate| gate.pass(4 * round + times));
            self.driver.ready(0, BURST);
            if self.queue > 0 {
                wait(1);
            }
            assert_eq!(self.world.bench_fill_rx(self.port, self.queue, ROUND), ROUND);
            if self.queue == 0 {
                wait(1);
            }
            wait(2);
            let lost = self.driver.forward(TAKEN_BACK, |packet| swap_macs(packet));
            let start = Instant::now();
            self.driver.forward(ROUND - lost, |packet| swap_macs(packet));
            took.push(start.elapsed());
            wait(3);
            if self.queue > 0 {
                wait(4);
            }
            assert_eq!(self.world.bench_complete_tx(self.port, self.queue), ROUND);
            if self.queue == 0 {
                wait(4);
            }
        }
        took.sort_unstable();
        (took[rounds / 2].saturating_sub(clock()).as_nanos() as f64) / (ROUND - TAKEN_BACK) as f64
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

/// The queue pairs, of one port or of as many; and what has to live as long.
fn lanes(family: Family, one_port: bool) -> (Vec<Lane>, Vec<Control>) {
    let shape = Shape { family, vector_bits: u16::MAX, metadata: false };
    let (ports, queues) = if one_port { (1, THREADS) } else { (THREADS, 1) };
    let mut lanes = Vec::new();
    let mut controls = Vec::new();
    for _ in 0..ports {
        let world = World::stepped(1);
        let port = family.add_to(&world);
        world.bench_relax();
        let config = shape.config(RING).queues(queues as u16, queues as u16);
        let opened = Port::open(&world.spec(port), config).expect("a model needs nothing of the machine");
        let pool = Mempool::builder().buffers(4096 * queues as u32).on(&[&opened]).expect("as above");
        let Started { control, rx, tx } = opened.start(&pool).expect("as above");
        controls.push(control);
        for (queue, (rx, tx)) in rx.into_iter().zip(tx).enumerate() {
            let driver = Driver::new(rx, tx, pool.cache());
            lanes.push(Lane { world: world.clone(), port, queue, driver });
        }
    }
    (lanes, controls)
}

/// One thread's nanoseconds per packet, the ratio of the best runs, and that of each run, sorted.
fn ratio(family: Family, one_port: bool) -> (f64, f64, Vec<f64>) {
    let (mut lanes, controls) = lanes(family, one_port);
    let mut alone_all = Vec::new();
    let mut ratios = Vec::new();
    let mut best = [0.0; 2];
    for run in 0..=RUNS {
        let rounds = if run == 0 { WARM_UP } else { ROUNDS };
        let mut rates = [0.0; 2];
        for (cpu, lane) in lanes.iter_mut().enumerate() {
            let took = thread::scope(|scope| {
                let alone = scope.spawn(move || {
                    cpu::pin(cpu);
                    lane.run(rounds, None)
                });
                alone.join().expect("a lane runs")
            });
            alone_all.push(took);
            rates[0] += 1.0 / took / THREADS as f64;
        }
        let gate = Gate::default();
        thread::scope(|scope| {
            let together = lanes.iter_mut().enumerate().map(|(cpu, lane)| {
                let gate = &gate;
                scope.spawn(move || {
                    cpu::pin(cpu);
                    lane.run(rounds, Some(gate))
                })
            });
            for lane in together.collect::<Vec<_>>() {
                rates[1] += 1.0 / lane.join().expect("a lane runs");
            }
        });
        if run > 0 {
            ratios.push(rates[1] / rates[0]);
            for (best, rate) in best.iter_mut().zip(rates) {
                *best = rate.max(*best);
            }
        }
    }
    drop(lanes);
    for control in controls {
        control.stop(Duration::from_secs(1)).expect("the model stops");
    }
    ratios.sort_unstable_by(f64::total_cmp);
    alone_all.sort_unstable_by(f64::total_cmp);
    (alone_all[alone_all.len() / 2], best[1] / best[0], ratios)
}

fn main() {
    println!("| VF | queue pairs of | one thread, ns per packet | best runs | median | quartiles | least to most |");
    println!("|---|---|---|---|---|---|---|");
    for (name, family) in Family::ALL {
        for (one_port, of) in [(true, "one port"), (false, "two ports")] {
            // The model of iavf has its tails where a BAR has them, 16 to a line: two queues of one port share that line there.
            if one_port && matches!(family, Family::IavfLegacy | Family::IavfFlex) {
                continue;
            }
            let (alone, best, ratios) = ratio(family, one_port);
            let at = |part: f64| ratios[(ratios.len() as f64 * part) as usize];
            println!(
                "| {name} | {of} | {alone:.1} | {best:.2} | {:.2} | {:.2} to {:.2} | {:.2} to {:.2} |",
                at(0.5),
                at(0.25),
                at(0.75),
                ratios[0],
                ratios[ratios.len() - 1]
            );
        }
    }
}
