//! Sends numbered UDP frames and counts those that come back.
//!
//! `cargo run --release --example pktgen` needs no NIC: it sends between two software models that are wired back to
//! back. `--port 0000:01:10.0` sends on a virtual function bound to vfio-pci; frames are counted where they arrive,
//! on the same port or on the one named by `--rx-port`. `--help` lists the options.
#![deny(unsafe_code)]

mod common;
#[path = "pktgen/frames.rs"]
mod frames;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use vfring::{AnyRx, AnyTx, Burst, DeviceSpec, MacAddr, Mempool, Port, PortConfig, PortState, Service, Started};

use common::args::{Args, Problem};
use common::cores::{self, CoreList};
use common::json::Object;
use common::screen::Screen;
use common::{args, human, stop};
use frames::{Frames, MIN_SIZE};

const USAGE: &str = "\
pktgen: sends numbered UDP frames and counts those that come back

usage: pktgen [OPTIONS]           (without options: between two software models, back to back)

  --port SPEC            where frames leave: a PCI address (0000:3b:02.1) or a model (sim:igbvf?wire=sink)
  --rx-port SPEC         where frames arrive (default: the same port)
  --size N               bytes of a frame without FCS, 60 to 9714 (60)
  --rate N               frames a second (default: as many as the port takes)
  --count N              stop after this many frames
  --duration SECONDS     stop after this time (default: at Ctrl-C or SIGTERM)
  --flows N              UDP flows, which RSS spreads over queues (1)
  --dst-mac MAC          destination address (default: the MAC of the receiving port, or 02:00:00:00:00:00)
  --burst N              frames handed over at a time, 1 to 1024 (32)
  --core N               pin the sending thread to this core
  --stats-period SECONDS time between statistics, 0 for none (1)
  --json                 one JSON object on stdout at the end; everything else goes to stderr
  --help                 this text
";

/// Largest frame: the largest MTU of an 82576 VF with the Ethernet header.
const MAX_SIZE: usize = 9714;
/// How long a device may take to learn of the first receive buffers.
const SETTLE_TIME: Duration = Duration::from_millis(10);
/// How long frames on their way are waited for once the last is sent.
const DRAIN_TIME: Duration = Duration::from_millis(200);
/// How long stopping a port may take before its queues are given up.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// Descriptors of the rings. What waits in the transmit ring may come back all at once, and fits the receive ring.
const RX_RING: u16 = 1024;
const TX_RING: u16 = 512;
/// How often the control side looks at signals and state.
const WATCH_PERIOD: Duration = Duration::from_millis(50);

struct Options {
    ports: Vec<DeviceSpec>,
    size: usize,
    rate: Option<u64>,
    count: u64,
    duration: Option<Duration>,
    flows: u16,
    destination: Option<MacAddr>,
    burst: usize,
    core: Option<usize>,
    stats_period: Option<Duration>,
    json: bool,
}

impl Options {
    fn parse(mut args: Args) -> Result<Option<Options>, Problem> {
        let (mut port, mut rx_port) = (None, None);
        let mut options = Options {
            ports: Vec::new(),
            size: MIN_SIZE,
            rate: None,
            count: u64::MAX,
            duration: None,
            flows: 1,
            destination: None,
            burst: 32,
            core: None,
            stats_period: Some(Duration::from_secs(1)),
            json: false,
        };
        while let Some(option) = args.next_option()? {
            match option.as_str() {
                "--port" => port = Some(args.parsed()?),
                "--rx-port" => rx_port = Some(args.parsed()?),
                "--size" => options.size = args.number(MIN_SIZE..=MAX_SIZE)?,
                "--rate" => options.rate = Some(args.number(1..=1_000_000_000)?),
                "--count" => options.count = args.number(1..=u64::MAX)?,
                "--duration" => options.duration = Some(args.seconds()?),
                "--flows" => options.flows = args.number(1..=u16::MAX)?,
                "--dst-mac" => options.destination = Some(args.parsed()?),
                "--burst" => options.burst = args.number(1..=1024)?,
                "--core" => {
                    let CoreList(list) = args.parsed()?;
                    let [core] = list[..] else { return Err("--core: the sending thread runs on one core".into()) };
                    options.core = Some(core);
                }
                "--stats-period" => options.stats_period = Some(args.seconds()?).filter(|period| !period.is_zero()),
                "--json" => options.json = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(args.unknown()),
            }
        }
        options.ports = match (port, rx_port) {
            (Some(port), rx_port) => std::iter::once(port).chain(rx_port).collect(),
            (None, None) => vec!["sim:igbvf?wire=pair:0".parse()?, "sim:igbvf?wire=pair:0".parse()?],
            (None, Some(_)) => {
                return Err("--rx-port says where frames arrive; say where they leave with --port".into());
            }
        };
        if matches!(&options.ports[..], [DeviceSpec::Pci(a), DeviceSpec::Pci(b)] if a == b) {
            return Err("--rx-port is the same as --port, which is the default; leave it out".into());
        }
        Ok(Some(options))
    }
}

/// What the sending thread counts; nobody else writes.
#[derive(Default)]
struct Tally {
    /// Frames of ours that came back.
    received: AtomicU64,
    /// Those that came later than a frame with a higher number.
    reordered: AtomicU64,
    /// Frames of others.
    strangers: AtomicU64,
    /// Times that a full ring made the thread wait.
    ring_full: AtomicU64,
}

fn main() -> ExitCode {
    args::run("pktgen", run)
}

fn run(args: Args) -> Result<(), Problem> {
    let Some(options) = Options::parse(args)? else {
        return Ok(io::stdout().write_all(USAGE.as_bytes())?);
    };
    if let Some(core) = options.core {
        cores::check(&[core])?;
    }
    stop::on_signals()?;
    let mut screen = Screen::new(options.json);
    let config =
        PortConfig::new().queues(1, 1).rings(RX_RING, TX_RING).mtu(options.size.saturating_sub(14).max(1500) as u16);
    let ports = Port::open_many(&options.ports.iter().map(|spec| (spec.clone(), config.clone())).collect::<Vec<_>>())?;
    let pool = Mempool::builder()
        .buffers(ports.iter().map(Port::buffers_needed).sum::<u32>() + 2 * options.burst as u32)
        .data_room(options.size.next_multiple_of(1024).max(2048) as u16)
        .on(&ports.iter().collect::<Vec<_>>())?;
    let names: Vec<String> = ports.iter().map(|port| port.name().to_owned()).collect();
    let models = ports.iter().any(|port| port.info().is_model);
    let default_destination = if ports.len() > 1 { ports[1].mac() } else { MacAddr([2, 0, 0, 0, 0, 0]) };
    let destination = options.destination.unwrap_or(default_destination);
    let frames = Frames::new(ports[0].mac(), destination, options.size, options.flows);
    let (mut services, mut rx_queues, mut tx_queues) = (Vec::new(), Vec::new(), Vec::new());
    for port in ports {
        let Started { control, rx, tx } = port.start(&pool)?;
        services.push(control.spawn()?);
        rx_queues.extend(rx);
        tx_queues.extend(tx);
    }
    // The last port receives and the first sends; the other queues, where there are two ports, end here.
    let rx = rx_queues.pop().ok_or("the port has no receive queue")?;
    let tx = tx_queues.into_iter().next().ok_or("the port has no transmit queue")?;
    drop(rx_queues);
    screen.print(&format!(
        "pktgen: {} bytes to {destination} from {}, counted on {}; Ctrl-C stops\n{}",
        frames.size(),
        names[0],
        names[names.len() - 1],
        if models { "note: software models take part, so a rate is the models' rate, not that of a NIC\n" } else { "" }
    ))?;

    let tally = Tally::default();
    let began = Instant::now();
    let outcome = thread::scope(|scope| {
        let (pool, options, tally) = (&pool, &options, &tally);
        let generator = scope.spawn(move || {
            let outcome = generate(rx, tx, pool, &frames, options, tally);
            stop::request();
            outcome
        });
        let watched = watch(&services, tally, options, &mut screen, began);
        stop::request();
        watched.and(generator.join().unwrap_or(Err("the sending thread panicked".into())))
    });
    let sent = sent(&services);
    let stopped: Result<Vec<Port>, _> = services.into_iter().map(|service| service.stop(STOP_DEADLINE)).collect();
    let seconds = outcome?.as_secs_f64().max(1e-6);
    drop(stopped?);
    let lost_buffers = pool.capacity().saturating_sub(pool.available());
    screen.print(&summary(&tally, sent, seconds, options.size))?;
    if options.json {
        let object = json(&tally, sent, seconds, &options, &names, models);
        writeln!(io::stdout(), "{}", object.number("lost_buffers", lost_buffers).finish())?;
    }
    match lost_buffers {
        0 => Ok(()),
        lost => Err(format!("{lost} of {} packet buffers did not come back", pool.capacity()).into()),
    }
}

/// Sends until count, time or a signal ends it, then waits a little for what is on its way. Returns how long it sent.
fn generate(
    mut rx: AnyRx,
    mut tx: AnyTx,
    pool: &Mempool,
    frames: &Frames,
    options: &Options,
    tally: &Tally,
) -> Result<Duration, Problem> {
    if let Some(core) = options.core {
        cores::pin_to(core)?;
    }
    let mut cache = pool.cache();
    let (mut outgoing, mut incoming) = (Burst::with_limit(options.burst)?, Burst::with_limit(options.burst)?);
    let (mut made, mut highest) = (0u64, None);
    // A queue hands its buffers to the device in its first burst.
    rx.burst(&mut cache, &mut incoming);
    thread::sleep(SETTLE_TIME);
    let began = Instant::now();
    let mut finished = None;
    loop {
        rx.burst(&mut cache, &mut incoming);
        let (mut received, mut reordered) = (0, 0);
        for packet in incoming.iter() {
            if let Some(number) = frames.number_of(packet) {
                received += 1;
                reordered += u64::from(highest.is_some_and(|highest| number < highest));
                highest = highest.max(Some(number));
            }
        }
        let quiet = incoming.is_empty();
        add(&tally.strangers, incoming.len() as u64 - received);
        add(&tally.received, received);
        add(&tally.reordered, reordered);
        cache.free(&mut incoming);

        let elapsed = began.elapsed();
        let over = stop::requested() || options.duration.is_some_and(|limit| elapsed >= limit);
        if over || (made == options.count && outgoing.is_empty()) {
            cache.free(&mut outgoing);
            let sending = *finished.get_or_insert(elapsed);
            if elapsed >= sending + DRAIN_TIME {
                return Ok(sending);
            }
        } else if outgoing.is_empty() {
            let due = options.rate.map_or(u64::MAX, |rate| (elapsed.as_secs_f64() * rate as f64) as u64 + 1);
            let wanted = due.min(options.count).saturating_sub(made).min(options.burst as u64);
            cache.alloc(wanted as usize, &mut outgoing);
            for packet in &mut outgoing {
                let bytes = packet.append(frames.size()).ok_or("the buffers are smaller than a frame")?;
                frames.write(bytes, made);
                made += 1;
            }
        }
        // Also with an empty burst: that takes back the buffers of frames that have left.
        let sent = tx.burst(&mut cache, &mut outgoing);
        if !outgoing.is_empty() {
            add(&tally.ring_full, 1);
        }
        if quiet && sent == 0 && options.core.is_none() {
            thread::yield_now();
        }
    }
}

/// Adds to a counter that this thread alone writes.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed) + count, Relaxed);
}

/// Frames that the sending port took.
fn sent(services: &[Service]) -> u64 {
    services.first().map_or(0, |service| service.stats().tx.iter().map(|queue| queue.packets).sum())
}

/// Shows statistics until the end, or reports the death of a port.
fn watch(
    services: &[Service],
    tally: &Tally,
    options: &Options,
    screen: &mut Screen,
    began: Instant,
) -> Result<(), Problem> {
    let mut due = options.stats_period.map(|period| began + period);
    let (mut at, mut seen) = (began, (0, 0));
    while !stop::requested() {
        thread::sleep(WATCH_PERIOD);
        for service in services {
            if service.state() == PortState::Dead {
                return Err("a port's device is gone".into());
            }
        }
        let now = Instant::now();
        if let (Some(time), Some(period)) = (due, options.stats_period)
            && now >= time
        {
            let counts = (sent(services), tally.received.load(Relaxed));
            let seconds = (now - at).as_secs_f64();
            let line = format!(
                "{:.1} s: sent {}, {} Mpps; received {}, {} Mpps\n",
                (now - began).as_secs_f64(),
                human::count(counts.0),
                human::mpps((counts.0 - seen.0) as f64 / seconds),
                human::count(counts.1),
                human::mpps((counts.1 - seen.1) as f64 / seconds),
            );
            match screen.is_terminal() {
                true => screen.refresh(&line)?,
                false => screen.print(&line)?,
            }
            (at, seen, due) = (now, counts, Some(time + period));
        }
    }
    Ok(())
}

fn summary(tally: &Tally, sent: u64, seconds: f64, size: usize) -> String {
    let received = tally.received.load(Relaxed);
    let rate = |frames: u64| {
        let per_second = frames as f64 / seconds;
        format!("{} Mpps, {}", human::mpps(per_second), human::bits(per_second * 8.0 * size as f64))
    };
    format!(
        "after {seconds:.1} s:\nsent {} frames, {}\nreceived {}, {}; {} missing, {} out of order, {} of others\n",
        human::count(sent),
        rate(sent),
        human::count(received),
        rate(received),
        human::count(sent.saturating_sub(received)),
        human::count(tally.reordered.load(Relaxed)),
        human::count(tally.strangers.load(Relaxed)),
    )
}

fn json(tally: &Tally, sent: u64, seconds: f64, options: &Options, names: &[String], models: bool) -> Object {
    let received = tally.received.load(Relaxed);
    Object::new()
        .text("program", "pktgen")
        .decimal("seconds", seconds)
        .text("tx_device", &names[0])
        .text("rx_device", &names[names.len() - 1])
        .flag("models", models)
        .number("frame_bytes", options.size as u64)
        .number("sent", sent)
        .number("received", received)
        .number("missing", sent.saturating_sub(received))
        .number("reordered", tally.reordered.load(Relaxed))
        .number("strangers", tally.strangers.load(Relaxed))
        .number("ring_full", tally.ring_full.load(Relaxed))
        .decimal("sent_per_second", sent as f64 / seconds)
        .decimal("received_per_second", received as f64 / seconds)
}
