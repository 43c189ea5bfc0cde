//! l2fwd against DPDK's testpmd, by turns, on the same two VFs of QEMU's igb in a guest.
//!
//! `nice -n -10 cargo bench -p vfring-bench --bench guest` (as root; `-- BOOTS ROUNDS` for other numbers than 3 and 3) prints one
//! table: the highest rate at which no frame is lost, what comes out when 250,000 frames a second go in, and the tail writes per
//! packet at both. QEMU's device model works while a register is written, and others wait for it: such a guest's rates tell of
//! doorbells, not of instructions. Rates are measured without QEMU's trace of register writes, doorbells with it, one after the other.

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vfring_tests::build::complete_example;
use vfring_tests::forwarder::{Forwarder, PROGRAM, Way};
use vfring_tests::testpmd::Testpmd;
use vfring_tests::vm::{Bench, Error, Receiver, Result, Testbed, TestbedConfig};

/// Equal for both: descriptors of a ring, packets of a burst, packet buffers. What is emulated is slow by the doorbell, and a busy
/// machine keeps the guest from running for milliseconds at a time, so rings are long.
const RING: u32 = 2048;
const BURST: u32 = 32;
const BUFFERS: u32 = 24576;

/// How long frames are sent for each try: 25 laps of a ring at 100,000 a second.
const TRY: Duration = Duration::from_millis(500);
/// A rate is free of loss when one of so many tries loses nothing, because neighbours can only make a forwarder look slower.
const TRIES: u32 = 3;
/// Tries with more frames than a forwarder can take.
const OVERLOAD_TRIES: u32 = 7;
/// What nothing takes longer than on its way through the guest, unless it is lost.
const QUIET: Duration = Duration::from_millis(300);
/// The loss-free rate is the last of these that a search by halves finds, in frames a second.
const STEP: u32 = 5_000;
const STEPS: u32 = 64;
/// More than either can take, in frames a second.
const OVERLOAD: u32 = 250_000;
/// Frames a second that show that a forwarder works, before anything is measured.
const WARM_UP: u32 = 10_000;
/// A sender that takes so much longer than it should did not send at its rate.
const LATE: f64 = 1.1;

/// Tail registers of VF 0's first queue, as QEMU names them: queue 0 in the second of the PF's aliases (fact sheet igbvf 2).
const RDT0: u64 = 0xC018;
const TDT0: u64 = 0xE018;

/// What one turn of a forwarder gave.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Frames a second.
    loss_free: f64,
    overloaded: f64,
    bells_loss_free: Bells,
    bells_overloaded: Bells,
}

/// Tail writes per packet.
#[derive(Clone, Copy, Debug, Default)]
struct Bells {
    receive: f64,
    transmit: f64,
}

fn main() -> ExitCode {
    let numbers: Vec<u32> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let number = |place: usize| numbers.get(place).copied().unwrap_or(3).max(1);
    let (boots, rounds) = (number(0), number(1));
    match compare(boots, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("guest: error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(boots: u32, rounds: u32) -> Result<()> {
    // SAFETY: geteuid takes no pointer and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Err(Error::new("network namespaces and TAP devices need root: run this as root"));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(Error::new("there is no /dev/net/tun: modprobe tun"));
    }
    let l2fwd = complete_example("l2fwd")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for boot in 0..boots {
        let config = TestbedConfig { judges: true, ..TestbedConfig::default() };
        let bed = Testbed::boot(config.file(&l2fwd, PROGRAM))?;
        for round in 0..rounds {
            eprintln!("boot {} of {boots}, round {} of {rounds}", boot + 1, round + 1);
            // Who comes first changes, so that what grows worse in a guest's life falls on both.
            if round % 2 == 0 {
                ours.push(turn_of_l2fwd(&bed)?);
                theirs.push(turn_of_testpmd(&bed)?);
            } else {
                theirs.push(turn_of_testpmd(&bed)?);
                ours.push(turn_of_l2fwd(&bed)?);
            }
        }
    }
    print(&ours, &theirs);
    Ok(())
}

fn turn_of_l2fwd(bed: &Bench) -> Result<Turn> {
    let l2fwd = Forwarder::start(bed, &format!("--cores 0 --ring {RING} --burst {BURST} --buffers {BUFFERS}"))?;
    let turn = turn("l2fwd", bed)?;
    l2fwd.stop()?;
    Ok(turn)
}

fn turn_of_testpmd(bed: &Bench) -> Result<Turn> {
    let options = format!("--rxd={RING} --txd={RING} --burst={BURST} --total-num-mbufs={BUFFERS}");
    let testpmd = Testpmd::start(bed, &options)?;
    testpmd.command("start")?;
    let turn = turn("testpmd", bed)?;
    testpmd.command("stop")?;
    testpmd.stop()?;
    Ok(turn)
}

/// What a forwarder that runs can do.
fn turn(name: &str, bed: &Bench) -> Result<Turn> {
    let warm_up = offer(bed, WARM_UP)?;
    if warm_up.arrived != warm_up.sent {
        return Err(Error::new(format!(
            "{name} loses frames at {WARM_UP} a second: {} of {}",
            warm_up.arrived, warm_up.sent
        )));
    }
    let rate = loss_free(|rate| {
        for _ in 0..TRIES {
            if offer(bed, rate)?.is_loss_free() {
                return Ok(true);
            }
        }
        Ok(false)
    })?;
    let turn = Turn {
        loss_free: f64::from(rate),
        overloaded: overloaded(bed)?,
        bells_loss_free: bells(bed, rate)?,
        bells_overloaded: bells(bed, OVERLOAD)?,
    };
    eprintln!("{name}: {turn:.4?}");
    Ok(turn)
}

/// The highest multiple of [`STEP`] that `passes`, if what is below one that passes does too; 0 if none does.
fn loss_free(mut passes: impl FnMut(u32) -> Result<bool>) -> Result<u32> {
    let (mut passed, mut failed) = (0, STEPS + 1);
    while failed - passed > 1 {
        let middle = (passed + failed) / 2;
        match passes(middle * STEP)? {
            true => passed = middle,
            false => failed = middle,
        }
    }
    Ok(passed * STEP)
}

/// What became of frames that were offered.
struct Offered {
    sent: u64,
    arrived: u64,
    seconds: f64,
}

impl Offered {
    fn kept_pace(&self) -> bool {
        self.seconds <= LATE * TRY.as_secs_f64()
    }

    fn is_loss_free(&self) -> bool {
        self.arrived == self.sent && self.kept_pace()
    }
}

/// Sends frames of 60 bytes into VF A at a rate, and counts what comes out of VF B.
fn offer(bed: &Bench, rate: u32) -> Result<Offered> {
    // Each try has a number of its own, so that what is late is lost and not taken for the next one's.
    static TRY_NUMBER: AtomicU32 = AtomicU32::new(1);
    let number = TRY_NUMBER.fetch_add(1, Ordering::Relaxed);
    let receiver = Receiver::start(&bed.b.namespace, &bed.b.tap.name, number)?;
    let sent = Way::AToB.sender(bed).stream(number).rate(rate).urgent().send_for(TRY)?;
    let received = receiver.finish(QUIET)?;
    if received.corrupt + received.duplicates + sent.refused > 0 {
        return Err(Error::new(format!("frames are not as they were sent: {received:?}, {sent:?}")));
    }
    Ok(Offered { sent: sent.frames, arrived: received.frames, seconds: sent.wall.as_secs_f64() })
}

/// Frames a second that come out when [`OVERLOAD`] go in: the median of several tries, because an overloaded guest is at times twice
/// as fast as at others.
fn overloaded(bed: &Bench) -> Result<f64> {
    let mut rates = Vec::new();
    for _ in 0..OVERLOAD_TRIES {
        let offered = offer(bed, OVERLOAD)?;
        if offered.kept_pace() {
            rates.push(offered.arrived as f64 / offered.seconds);
        }
    }
    rates.sort_by(f64::total_cmp);
    let median = rates.get(rates.len() / 2).copied();
    median.ok_or_else(|| {
        Error::new(format!("too busy a machine to send {OVERLOAD} frames a second: measure on an idle one"))
    })
}

/// Tail writes per forwarded packet at a rate.
fn bells(bed: &Bench, rate: u32) -> Result<Bells> {
    let (offered, writes) = bed.guest.register_writes(|| offer(bed, rate.max(WARM_UP)))?;
    let each = |register| writes.at(register) as f64 / offered.arrived as f64;
    Ok(Bells { receive: each(RDT0), transmit: each(TDT0) })
}

impl Bells {
    fn both(&self) -> f64 {
        self.receive + self.transmit
    }
}

/// What a row of the table says of a turn.
type Figure = fn(&Turn) -> f64;

fn print(ours: &[Turn], theirs: &[Turn]) {
    println!("| median (least to most) of {} turns | l2fwd | testpmd | ratio |", ours.len());
    println!("|---|---|---|---|");
    let rates: [(&str, Figure); 2] = [
        ("frames a second without loss", |turn| turn.loss_free),
        ("frames a second out of 250,000", |turn| turn.overloaded),
    ];
    let bells: [(&str, Figure); 6] = [
        ("tail writes per packet, without loss", |turn| turn.bells_loss_free.both()),
        ("of these RDT", |turn| turn.bells_loss_free.receive),
        ("of these TDT", |turn| turn.bells_loss_free.transmit),
        ("tail writes per packet, overloaded", |turn| turn.bells_overloaded.both()),
        ("of these RDT", |turn| turn.bells_overloaded.receive),
        ("of these TDT", |turn| turn.bells_overloaded.transmit),
    ];
    for (rows, digits) in [(rates.as_slice(), 0), (&bells, 4)] {
        for (title, figure) in rows {
            let (ours, our_median) = cell(ours, *figure, digits);
            let (theirs, their_median) = cell(theirs, *figure, digits);
            println!("| {title} | {ours} | {theirs} | {:.2} |", our_median / their_median);
        }
    }
}

/// What the table says of one forwarder in a row, and the median alone.
fn cell(turns: &[Turn], figure: Figure, digits: usize) -> (String, f64) {
    let mut figures: Vec<f64> = turns.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    let (least, median, most) = (figures[0], figures[figures.len() / 2], figures[figures.len() - 1]);
    (format!("{median:.digits$} ({least:.digits$} to {most:.digits$})"), median)
}
