//! Forwards what each port receives to another port: the "hello world" of poll-mode drivers.
//!
//! `cargo run --release --example l2fwd` needs no root, no hugepages and no NIC: it joins two software models, one
//! with a generator on its wire, the other with a sink. `--port 0000:01:10.0 --port 0000:01:10.2` runs the same code
//! on virtual functions bound to vfio-pci. `--help` lists the options.
//!
//! One packet's way is [`forward`]: the loop of a thread that owns some receive queues and a transmit queue of each
//! port it sends to. It does not allocate or lock, nor call the system unless it is idle. Everything else is the
//! control side: this thread opens and starts the ports, watches link, state and counters, and takes all down again.
//! `l2fwd/options.rs` is the command line, `l2fwd/plan.rs` deals queues out to threads, `l2fwd/report.rs` has the
//! words and numbers, `l2fwd/watch.rs` what is said while it runs.
#![deny(unsafe_code)]

mod common;
#[path = "l2fwd/options.rs"]
mod options;
#[path = "l2fwd/plan.rs"]
mod plan;
#[path = "l2fwd/report.rs"]
mod report;
#[path = "l2fwd/watch.rs"]
mod watch;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use vfring::{AnyRx, AnyTx, Burst, DeviceSpec, Mempool, Port, PortConfig, PortState, Service, Started};

use common::args::{Args, Problem};
use common::screen::Screen;
use common::{args, cores, stop};
use options::Options;
use plan::Plan;
use report::{PoolEnd, PortFacts, PortSample, Sample};
use watch::Look;

/// How often the control side looks at signals, link and state.
const WATCH_PERIOD: Duration = Duration::from_millis(50);
/// How long stopping a port may take before its queues are given up.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// Rounds without a packet after which a thread is idle. Then it sleeps with `--interrupts`, and lets others run where it
/// has no core to itself.
const IDLE_ROUNDS: u32 = 64;
/// The longest sleep, so that a thread notices the end of the program and the resets of ports that it only sends to.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    args::run("l2fwd", run)
}

fn run(args: Args) -> Result<(), Problem> {
    let Some(options) = Options::parse(args)? else {
        return Ok(io::stdout().write_all(options::USAGE.as_bytes())?);
    };
    let plan = Plan::new(&options.to, options.queues, &options.cores)?;
    cores::check(&options.cores)?;
    stop::on_signals()?;
    let mut screen = Screen::new(options.json);

    let ports = Port::open_many(&port_configs(&options, &plan))?;
    let buffers = options.buffers.unwrap_or_else(|| buffers_needed(&ports, &options, &plan));
    let mut pool = Mempool::builder().buffers(buffers);
    if let Some(pages) = options.pages {
        pool = pool.pages(pages);
    }
    let pool = pool.on(&ports.iter().collect::<Vec<_>>())?;
    let facts: Vec<PortFacts> = ports.iter().zip(&options.to).map(|(port, to)| port_facts(port, *to)).collect();
    let (services, workers) = start(ports, &pool, &plan, &options, &facts)?;
    screen.print(&report::banner(&facts, pool.is_huge(), plan.threads.len(), options.burst))?;

    let ring_full: Vec<AtomicU64> = facts.iter().map(|_| AtomicU64::new(0)).collect();
    let mut watch = Watch { facts: &facts, services: &services, ring_full: &ring_full, screen: &mut screen };
    let first = watch.sample();
    let mut outcome = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .map(|worker| {
                let (pool, ring_full) = (&pool, &ring_full);
                scope.spawn(move || {
                    let outcome = forward(worker, pool, ring_full);
                    stop::request();
                    outcome
                })
            })
            .collect();
        let watched = watch.until_the_end(&first, &options);
        stop::request();
        let ends =
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err("a forwarding thread panicked".into())));
        ends.fold(watched, |outcome, end| outcome.and(end))
    });
    let last = watch.sample();

    for service in services {
        outcome = service.stop(STOP_DEADLINE).map(drop).map_err(Problem::from).and(outcome);
    }
    let end = PoolEnd { buffers: pool.capacity(), available: pool.available(), huge: pool.is_huge() };
    screen.print(&report::summary(&facts, end, &first, &last))?;
    if options.json {
        writeln!(io::stdout(), "{}", report::json(&facts, end, &first, &last))?;
    }
    outcome?;
    match end.lost() {
        0 => Ok(()),
        lost => Err(format!("{lost} of {} packet buffers did not come back", end.buffers).into()),
    }
}

/// How each port is opened.
fn port_configs(options: &Options, plan: &Plan) -> Vec<(DeviceSpec, PortConfig)> {
    let config = |port: usize| {
        PortConfig::new()
            .queues(plan.rx_queues[port], plan.tx_queues[port])
            .rings(options.ring, options.ring)
            .mtu(options.mtu)
            .symmetric_rss(options.symmetric_rss)
            .interrupts(options.interrupts)
    };
    options.ports.iter().enumerate().map(|(number, spec)| (spec.clone(), config(number))).collect()
}

/// Buffers for every port's rings and caches, and for the threads' bursts.
fn buffers_needed(ports: &[Port], options: &Options, plan: &Plan) -> u32 {
    ports.iter().map(Port::buffers_needed).sum::<u32>() + (plan.threads.len() * options.burst) as u32
}

fn port_facts(port: &Port, to: Option<usize>) -> PortFacts {
    let info = port.info();
    PortFacts {
        name: port.name().to_owned(),
        family: info.family,
        part: info.part,
        mac: port.mac(),
        to,
        is_model: info.is_model,
    }
}

/// A thread's queues and how it uses them.
struct Worker {
    core: Option<usize>,
    /// Receive queues, each with the index in `outs` of where its packets go.
    routes: Vec<(AnyRx, usize)>,
    outs: Vec<Out>,
    burst: usize,
    /// Sleep while nothing arrives.
    sleeps: bool,
}

/// Where a thread sends to.
struct Out {
    tx: AnyTx,
    port: usize,
    /// The first 12 bytes of every frame sent: destination and source address.
    addresses: Option<[u8; 12]>,
}

/// Starts the ports and hands their queues to the threads of the plan.
fn start(
    ports: Vec<Port>,
    pool: &Mempool,
    plan: &Plan,
    options: &Options,
    facts: &[PortFacts],
) -> Result<(Vec<Service>, Vec<Worker>), Problem> {
    let mut services = Vec::new();
    let (mut rx_queues, mut tx_queues) = (Vec::new(), Vec::new());
    for port in ports {
        let Started { control, rx, tx } = port.start(pool)?;
        services.push(control.spawn()?);
        rx_queues.push(rx.into_iter().map(Some).collect::<Vec<_>>());
        tx_queues.push(tx.into_iter().map(Some).collect::<Vec<_>>());
    }
    let missing = || Problem::from("a port gave fewer queues than were asked for");
    let mut workers = Vec::new();
    for thread in &plan.threads {
        let mut worker = Worker {
            core: thread.core,
            routes: Vec::new(),
            outs: Vec::new(),
            burst: options.burst,
            sleeps: options.interrupts,
        };
        for (queue, out) in &thread.rx {
            let rx = rx_queues[queue.port].get_mut(usize::from(queue.number)).and_then(Option::take);
            worker.routes.push((rx.ok_or_else(missing)?, *out));
        }
        for queue in &thread.tx {
            let tx = tx_queues[queue.port].get_mut(usize::from(queue.number)).and_then(Option::take);
            let mut addresses = [0; 12];
            addresses[..6].copy_from_slice(&options.peers[queue.port].0);
            addresses[6..].copy_from_slice(&facts[queue.port].mac.0);
            worker.outs.push(Out {
                tx: tx.ok_or_else(missing)?,
                port: queue.port,
                addresses: options.mac_updating.then_some(addresses),
            });
        }
        workers.push(worker);
    }
    // Queues that no thread owns (a port that only receives, or only sends) end here.
    Ok((services, workers))
}

/// What a thread does until the program ends. A port that resets or dies needs nothing here: its bursts return 0.
fn forward(worker: Worker, pool: &Mempool, ring_full: &[AtomicU64]) -> Result<(), Problem> {
    let Worker { core, mut routes, mut outs, burst, sleeps } = worker;
    if let Some(core) = core {
        cores::pin_to(core)?;
    }
    let mut cache = pool.cache();
    let mut burst = Burst::with_limit(burst)?;
    let mut idle = 0u32;
    while !stop::requested() {
        idle = idle.saturating_add(1);
        for (rx, out) in &mut routes {
            let out = &mut outs[*out];
            // What has come meanwhile goes out with the rest: a look costs far less than one more tail write of the sender.
            while !burst.is_full() && rx.burst(&mut cache, &mut burst) > 0 {
                idle = 0;
            }
            if let Some(addresses) = &out.addresses {
                for packet in &mut burst {
                    if let Some(header) = packet.first_chunk_mut() {
                        *header = *addresses;
                    }
                }
            }
            // Also with an empty burst: that takes back the buffers of packets that have left.
            out.tx.burst(&mut cache, &mut burst);
            if !burst.is_empty() {
                ring_full[out.port].fetch_add(burst.len() as u64, Relaxed);
                cache.free(&mut burst);
            }
        }
        if sleeps {
            match idle {
                // Armed before the last look at the rings, so that no packet is slept through.
                IDLE_ROUNDS => routes.iter_mut().for_each(|(rx, _)| rx.rearm()),
                armed if armed > IDLE_ROUNDS => {
                    AnyRx::wait(routes.iter().map(|(rx, _)| rx), LONGEST_SLEEP)?;
                    idle = IDLE_ROUNDS - 1; // one look, and to sleep again
                }
                _ => {}
            }
        } else if idle >= IDLE_ROUNDS && core.is_none() {
            thread::yield_now();
        }
    }
    Ok(())
}

/// The control side while the threads forward.
struct Watch<'a> {
    facts: &'a [PortFacts],
    services: &'a [Service],
    ring_full: &'a [AtomicU64],
    screen: &'a mut Screen,
}

impl Watch<'_> {
    /// All counters at this moment.
    fn sample(&self) -> Sample {
        let ports = self.services.iter().zip(self.ring_full).map(|(service, ring_full)| PortSample {
            stats: service.stats(),
            link: service.link(),
            state: service.state(),
            ring_full: ring_full.load(Relaxed),
        });
        Sample { at: Instant::now(), ports: ports.collect() }
    }

    /// Shows statistics and reports changes until a signal, the end of the duration, or the death of a port.
    fn until_the_end(&mut self, first: &Sample, options: &Options) -> Result<(), Problem> {
        let end = options.duration.map(|duration| first.at + duration);
        let mut known: Vec<Look> = first.ports.iter().map(Look::of).collect();
        let mut shown: Option<Sample> = None;
        let mut due = options.stats_period.map(|period| first.at + period);
        while !stop::requested() {
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) {
                break;
            }
            let wake = [Some(now + WATCH_PERIOD), end, due].into_iter().flatten().min().unwrap_or(now);
            thread::sleep(wake.saturating_duration_since(now));
            for (number, known) in known.iter_mut().enumerate() {
                self.report_changes(number, known)?;
            }
            if let (Some(at), Some(period)) = (due, options.stats_period)
                && Instant::now() >= at
            {
                let sample = self.sample();
                let before = shown.as_ref().unwrap_or(first);
                match self.screen.is_terminal() {
                    true => self.screen.refresh(&report::table(self.facts, before, &sample))?,
                    false => self.screen.print(&report::lines(self.facts, first.at, before, &sample))?,
                }
                shown = Some(sample);
                due = Some(at + period);
            }
        }
        Ok(())
    }

    /// Says on stderr what became of a port.
    fn report_changes(&mut self, number: usize, known: &mut Look) -> Result<(), Problem> {
        let look = self.services[number].with(Look::at);
        let port = format!("port {number} ({})", self.facts[number].name);
        let changes = look.changes(known, &port);
        let gone = look.state == PortState::Dead;
        *known = look;
        if gone {
            return Err(changes.join("; ").into());
        }
        for line in changes {
            self.screen.note(&format!("l2fwd: {line}"))?;
        }
        Ok(())
    }
}
