//! Prints a line for each packet that a port receives, or writes the packets to a pcap file.
//!
//! `cargo run --release --example rxdump -- --count 5` shows what the generator of a software model sends;
//! `--port 0000:01:10.0` listens on a virtual function bound to vfio-pci. `--help` lists the options.
#![deny(unsafe_code)]

mod common;
#[path = "rxdump/decode.rs"]
mod decode;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use vfring::{AnyRx, Burst, DeviceSpec, Mempool, PacketBuf, Port, PortConfig, RxInfo, Started};

use common::args::{Args, Problem};
use common::{args, human, stop};

const USAGE: &str = "\
rxdump: prints a line for each packet that a port receives, or writes the packets to a file

usage: rxdump [OPTIONS]           (without options: what the generator of a software model sends)

  --port SPEC            a PCI address (0000:3b:02.1) or a model (sim:igbvf?wire=gen)
  --write FILE           write a pcap file instead of lines (needs the feature pcap)
  --count N              stop after this many packets
  --duration SECONDS     stop after this time
  --mtu N                largest payload of a frame in bytes, 9000 for jumbo frames (1500)
  --promiscuous          ask the PF for frames to other addresses too
  --interrupts           sleep while nothing arrives
  --help                 this text
";

/// How long stopping the port may take before its queue is given up.
const STOP_DEADLINE: Duration = Duration::from_secs(2);
/// The longest sleep with `--interrupts`, so that signals and the end of the duration are noticed.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

struct Options {
    port: DeviceSpec,
    write: Option<String>,
    count: u64,
    duration: Option<Duration>,
    mtu: u16,
    promiscuous: bool,
    interrupts: bool,
}

impl Options {
    fn parse(mut args: Args) -> Result<Option<Options>, Problem> {
        let mut options = Options {
            port: "sim:igbvf?wire=gen".parse()?,
            write: None,
            count: u64::MAX,
            duration: None,
            mtu: 1500,
            promiscuous: false,
            interrupts: false,
        };
        while let Some(option) = args.next_option()? {
            match option.as_str() {
                "--port" => options.port = args.parsed()?,
                "--write" => options.write = Some(args.value()?),
                "--count" => options.count = args.number(1..=u64::MAX)?,
                "--duration" => options.duration = Some(args.seconds()?),
                "--mtu" => options.mtu = args.number(1..=u16::MAX)?,
                "--promiscuous" => options.promiscuous = true,
                "--interrupts" => options.interrupts = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(args.unknown()),
            }
        }
        Ok(Some(options))
    }
}

fn main() -> ExitCode {
    args::run("rxdump", run)
}

fn run(args: Args) -> Result<(), Problem> {
    let Some(options) = Options::parse(args)? else {
        return Ok(io::stdout().write_all(USAGE.as_bytes())?);
    };
    let mut sink = match &options.write {
        Some(path) => Sink::file(path)?,
        None => Sink::Lines(BufWriter::new(io::stdout())),
    };
    stop::on_signals()?;
    let config = PortConfig::new()
        .queues(1, 1)
        .mtu(options.mtu)
        .promiscuous(options.promiscuous)
        .rx_info(true)
        .interrupts(options.interrupts);
    let port = Port::open(&options.port, config)?;
    let pool = Mempool::builder().buffers(port.buffers_needed()).on(&[&port])?;
    writeln!(io::stderr(), "rxdump: {}, {}, MAC {}; Ctrl-C stops", port.name(), port.info().part, port.mac())?;
    let Started { control, mut rx, .. } = port.start(&pool)?;
    let service = control.spawn()?;
    let outcome = match rx.first_mut() {
        Some(rx) => dump(rx, &pool, &options, &mut sink),
        None => Err("the port has no receive queue".into()),
    };
    drop(rx);
    let outcome = outcome.and_then(|seen| sink.finish().map(|()| seen));
    let stats = service.stats();
    service.stop(STOP_DEADLINE)?;
    let lost: u64 = stats.rx.iter().map(|queue| queue.errors + queue.bad_length).sum();
    writeln!(
        io::stderr(),
        "rxdump: {} packets, {} dropped for errors; the port counted {}",
        human::count(outcome?),
        human::count(lost),
        human::count(stats.device.rx_packets)
    )?;
    Ok(())
}

/// Receives until the count, the time or a signal ends it; returns how many packets were taken.
fn dump(rx: &mut AnyRx, pool: &Mempool, options: &Options, sink: &mut Sink) -> Result<u64, Problem> {
    let mut cache = pool.cache();
    let mut burst = Burst::new();
    let began = Instant::now();
    let mut seen = 0;
    while seen < options.count && !stop::requested() && options.duration.is_none_or(|limit| began.elapsed() < limit) {
        if rx.burst(&mut cache, &mut burst) == 0 {
            sink.idle()?;
            match options.interrupts {
                true => rx.sleep(&mut cache, &mut burst, LONGEST_SLEEP).map(drop)?,
                false => std::thread::yield_now(),
            }
        }
        let at = began.elapsed();
        for (i, packet) in burst.iter().enumerate() {
            if seen < options.count {
                sink.packet(at, packet, &burst.rx_info(i))?;
                seen += 1;
            }
        }
        cache.free(&mut burst);
    }
    Ok(seen)
}

/// Where packets go.
enum Sink {
    Lines(BufWriter<io::Stdout>),
    #[cfg(feature = "pcap")]
    File(pcap::File),
}

impl Sink {
    #[cfg(feature = "pcap")]
    fn file(path: &str) -> Result<Sink, Problem> {
        pcap::File::create(path).map(Sink::File)
    }

    #[cfg(not(feature = "pcap"))]
    fn file(path: &str) -> Result<Sink, Problem> {
        Err(format!(
            "--write needs the feature pcap; run cargo run --release --features pcap --example rxdump -- --write {path}"
        )
        .into())
    }

    /// Takes a packet that arrived `at` after the start.
    fn packet(&mut self, at: Duration, packet: &PacketBuf, info: &RxInfo) -> Result<(), Problem> {
        match self {
            Sink::Lines(out) => {
                let (frame, info) = (decode::frame(packet), decode::info(info));
                writeln!(out, "{:.6} {} bytes {frame}{info}", at.as_secs_f64(), packet.total_len())?;
            }
            #[cfg(feature = "pcap")]
            Sink::File(file) => file.packet(at, packet, info)?,
        }
        Ok(())
    }

    /// Shows what was held back, so that somebody who watches sees packets when they come.
    fn idle(&mut self) -> Result<(), Problem> {
        match self {
            Sink::Lines(out) => Ok(out.flush()?),
            #[cfg(feature = "pcap")]
            Sink::File(_) => Ok(()),
        }
    }

    /// Writes what was held back.
    fn finish(self) -> Result<(), Problem> {
        match self {
            Sink::Lines(mut out) => Ok(out.flush()?),
            #[cfg(feature = "pcap")]
            Sink::File(file) => file.finish(),
        }
    }
}

/// Packets to a pcap file with times in nanoseconds.
#[cfg(feature = "pcap")]
mod pcap {
    use std::io::{BufWriter, Write};
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
    use pcap_file::{DataLink, TsResolution};
    use vfring::{PacketBuf, RxInfo};

    use super::Problem;

    pub struct File {
        path: String,
        began: Duration,
        writer: PcapWriter<BufWriter<std::fs::File>>,
        /// The frame put together; kept for its memory.
        frame: Vec<u8>,
    }

    impl File {
        pub fn create(path: &str) -> Result<File, Problem> {
            let problem = |error: &dyn std::fmt::Display| format!("cannot write {path}: {error}");
            let file = std::fs::File::create(path).map_err(|error| problem(&error))?;
            let header = PcapHeader {
                datalink: DataLink::ETHERNET,
                ts_resolution: TsResolution::NanoSecond,
                ..PcapHeader::default()
            };
            let writer = PcapWriter::with_header(BufWriter::new(file), header).map_err(|error| problem(&error))?;
            let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            Ok(File { path: path.to_owned(), began, writer, frame: Vec::new() })
        }

        pub fn packet(&mut self, at: Duration, packet: &PacketBuf, info: &RxInfo) -> Result<(), Problem> {
            self.frame.clear();
            for segment in packet.segments() {
                self.frame.extend_from_slice(segment);
            }
            if let (Some(tci), true) = (info.vlan_tci, self.frame.len() >= 12) {
                // A tag that the NIC stripped was on the wire behind the two addresses.
                let [high, low] = tci.to_be_bytes();
                self.frame.splice(12..12, [0x81, 0x00, high, low]);
            }
            let packet = PcapPacket::new(self.began + at, self.frame.len() as u32, &self.frame);
            match self.writer.write_packet(&packet) {
                Ok(_) => Ok(()),
                Err(error) => Err(format!("cannot write {}: {error}", self.path).into()),
            }
        }

        pub fn finish(self) -> Result<(), Problem> {
            self.writer.into_writer().flush().map_err(|error| format!("cannot write {}: {error}", self.path).into())
        }
    }
}
