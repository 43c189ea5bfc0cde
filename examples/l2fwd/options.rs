//! The command line of l2fwd: what was asked for, checked as far as that goes without a device.
#![forbid(unsafe_code)]

use std::time::Duration;

use vfring::{DeviceSpec, MacAddr, Pages};

use crate::common::args::{Args, Problem};
use crate::common::cores::CoreList;

pub const USAGE: &str = "\
l2fwd: forwards what each port receives to another port

usage: l2fwd [OPTIONS]            (without options: two software models, a generator on one, a sink on the other)

  --port SPEC            a port: a PCI address (0000:3b:02.1), a socket that a device is served on
                         (vfio-user:/run/vf.sock), or a model (sim:igbvf?wire=gen); repeat it
  --resource NAME        the ports that the environment of a pod names, such as intel.com/intel_sriov_dpdk
  --portmap PAIRS        where packets go, by port number, such as '(0,1),(1,0)'; the default joins 0 and 1,
                         2 and 3 and so on, and sends a last lone port's packets back to it
  --no-mac-updating      leave the frames as they are; otherwise the source becomes the MAC of the sending port and
                         the destination 02:00:00:00:00:PORT
  --peer-mac PORT,MAC    the destination of what PORT sends; repeat it
  --queues N             receive queues of each port (1), and as many threads unless --cores says otherwise: thread n owns
                         receive queue n of every port, and a transmit queue of every port it sends to
  --symmetric-rss        spread flows so that both directions of one meet in the same queue
  --burst N              packets moved at a time, 1 to 1024 (32)
  --cores LIST           a pinned thread on each of these cores, such as 2,3 or 2-5; each owns some receive queues and
                         a transmit queue of every port it sends to (default: N threads, not pinned)
  --ring N               descriptors of every ring (512)
  --buffers N            packet buffers in the pool (default: enough for rings, caches and bursts)
  --pages SIZE           hugepages of the packet buffers, 2M or 1G (default: the system's default size)
  --mtu N                largest payload of a frame in bytes, 9000 for jumbo frames (1500)
  --interrupts           sleep while nothing arrives
  --duration SECONDS     stop after this time (default: at Ctrl-C or SIGTERM)
  --stats-period SECONDS time between statistics, 0 for none (1)
  --json                 one JSON object on stdout at the end; everything else goes to stderr
  --help                 this text
";

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    /// The ports by number.
    pub ports: Vec<DeviceSpec>,
    /// Where the packets of each port go; `None`: the port only sends.
    pub to: Vec<Option<usize>>,
    /// Rewrite MAC addresses.
    pub mac_updating: bool,
    /// The destination address of what each port sends.
    pub peers: Vec<MacAddr>,
    /// Receive queues of each port.
    pub queues: u16,
    /// Both directions of a flow meet in one queue.
    pub symmetric_rss: bool,
    /// Packets moved at a time.
    pub burst: usize,
    /// One pinned thread each; empty: as many threads as queues, not pinned.
    pub cores: Vec<usize>,
    /// Descriptors of every ring.
    pub ring: u16,
    /// Packet buffers; `None`: as many as are needed.
    pub buffers: Option<u32>,
    /// Pages of the packet buffers; `None`: the library's choice.
    pub pages: Option<Pages>,
    /// Largest payload of a frame in bytes.
    pub mtu: u16,
    /// Sleep while nothing arrives.
    pub interrupts: bool,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Time between statistics; `None`: none but the summary.
    pub stats_period: Option<Duration>,
    /// One JSON object on stdout at the end.
    pub json: bool,
}

/// Pairs of port numbers: packets of the first go to the second.
type Pairs = Vec<(usize, usize)>;

impl Options {
    /// Reads the command line; `None` when only help is asked for.
    pub fn parse(mut args: Args) -> Result<Option<Options>, Problem> {
        let (mut ports, mut resource) = (Vec::<DeviceSpec>::new(), None);
        let (mut pairs, mut peers) = (None::<Pairs>, Vec::new());
        let mut cores = CoreList(Vec::new());
        let mut options = Options {
            ports: Vec::new(),
            to: Vec::new(),
            mac_updating: true,
            peers: Vec::new(),
            queues: 1,
            symmetric_rss: false,
            burst: 32,
            cores: Vec::new(),
            ring: 512,
            buffers: None,
            pages: None,
            mtu: 1500,
            interrupts: false,
            duration: None,
            stats_period: Some(Duration::from_secs(1)),
            json: false,
        };
        while let Some(option) = args.next_option()? {
            match option.as_str() {
                "--port" => ports.push(args.parsed()?),
                "--resource" => resource = Some(args.value()?),
                "--portmap" => pairs = Some(args.parsed_by(parse_pairs)?),
                "--no-mac-updating" => options.mac_updating = false,
                "--peer-mac" => peers.push(args.parsed_by(parse_peer)?),
                "--queues" => options.queues = args.number(1..=256)?,
                "--symmetric-rss" => options.symmetric_rss = true,
                "--burst" => options.burst = args.number(1..=1024)?,
                "--cores" => cores = args.parsed()?,
                "--ring" => options.ring = args.number(1..=32768)?,
                "--buffers" => options.buffers = Some(args.number(1..=u32::MAX)?),
                "--pages" => options.pages = Some(args.parsed_by(parse_pages)?),
                "--mtu" => options.mtu = args.number(1..=u16::MAX)?,
                "--interrupts" => options.interrupts = true,
                "--duration" => options.duration = Some(args.seconds()?),
                "--stats-period" => options.stats_period = Some(args.seconds()?).filter(|period| !period.is_zero()),
                "--json" => options.json = true,
                "--help" | "-h" => return Ok(None),
                _ => return Err(args.unknown()),
            }
        }
        if let Some(name) = resource {
            ports.extend(DeviceSpec::from_env(&name)?);
        }
        if ports.is_empty() {
            ports = vec!["sim:igbvf?wire=gen".parse()?, "sim:igbvf?wire=sink".parse()?];
        }
        for (i, port) in ports.iter().enumerate() {
            if matches!(port, DeviceSpec::Pci(_)) && ports[..i].contains(port) {
                return Err(format!("{port} is given as a port twice").into());
            }
        }
        options.to = destinations(pairs, ports.len())?;
        options.peers = peer_addresses(&peers, ports.len())?;
        options.ports = ports;
        options.cores = cores.0;
        Ok(Some(options))
    }
}

/// Parses `(0,1),(1,0)`; spaces do not matter, and neither do commas between the pairs.
fn parse_pairs(text: &str) -> Result<Pairs, String> {
    let bad = || format!("'{text}' is not a list of pairs of port numbers like (0,1),(1,0)");
    let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let mut pairs = Vec::new();
    let mut rest = plain.as_str();
    while !rest.is_empty() {
        let (pair, tail) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(bad)?;
        let (from, to) = pair.split_once(',').ok_or_else(bad)?;
        pairs.push((from.parse().map_err(|_| bad())?, to.parse().map_err(|_| bad())?));
        rest = match tail.strip_prefix(',') {
            Some("") => return Err(bad()),
            Some(more) => more,
            None => tail,
        };
    }
    if pairs.is_empty() { Err(bad()) } else { Ok(pairs) }
}

/// Parses `1,52:54:00:12:34:56`.
fn parse_peer(text: &str) -> Result<(usize, MacAddr), String> {
    let (port, mac) = text
        .split_once(',')
        .and_then(|(port, mac)| Some((port.parse().ok()?, mac)))
        .ok_or_else(|| format!("'{text}' is not a port number and a MAC address like 1,52:54:00:12:34:56"))?;
    mac.parse().map(|mac| (port, mac)).map_err(|error: vfring::Error| error.to_string())
}

fn parse_pages(text: &str) -> Result<Pages, String> {
    match text {
        "2M" => Ok(Pages::Huge2M),
        "1G" => Ok(Pages::Huge1G),
        _ => Err(format!("'{text}' is no size of hugepages; 2M and 1G are")),
    }
}

/// Where the packets of each port go. Without pairs, neighbours are joined and a last lone port is its own peer.
fn destinations(pairs: Option<Pairs>, ports: usize) -> Result<Vec<Option<usize>>, String> {
    let Some(pairs) = pairs else {
        return Ok((0..ports).map(|port| Some(if port ^ 1 < ports { port ^ 1 } else { port })).collect());
    };
    let mut to = vec![None; ports];
    for &(from, target) in &pairs {
        for port in [from, target] {
            known_port("--portmap", port, ports)?;
        }
        if to[from].replace(target).is_some() {
            return Err(format!("--portmap: port {from} is first in two pairs; its packets can go to one port only"));
        }
    }
    match (0..ports).find(|port| pairs.iter().all(|&(from, target)| from != *port && target != *port)) {
        Some(idle) => Err(format!("--portmap: port {idle} is in no pair; give it one, or leave out the port")),
        None => Ok(to),
    }
}

/// The destination address of what each port sends: DPDK's 02:00:00:00:00:PORT where none is given.
fn peer_addresses(given: &[(usize, MacAddr)], ports: usize) -> Result<Vec<MacAddr>, String> {
    let mut peers: Vec<MacAddr> = (0..ports).map(|port| MacAddr([2, 0, 0, 0, (port >> 8) as u8, port as u8])).collect();
    for &(port, mac) in given {
        known_port("--peer-mac", port, ports)?;
        peers[port] = mac;
    }
    Ok(peers)
}

fn known_port(option: &str, port: usize, ports: usize) -> Result<(), String> {
    match port < ports {
        true => Ok(()),
        false => Err(format!("{option}: there is no port {port}; the {ports} ports are numbered from 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        let args = Args::new(line.split_whitespace().map(str::to_owned));
        Options::parse(args).map(|options| options.expect("no --help in tests")).map_err(|problem| problem.to_string())
    }

    #[test]
    fn without_options_two_models_are_joined() {
        let options = parse("").unwrap();
        assert_eq!(options.ports.len(), 2);
        assert_eq!(options.to, [Some(1), Some(0)]);
        assert_eq!(options.peers[1], "02:00:00:00:00:01".parse().unwrap());
        assert!(options.mac_updating && options.cores.is_empty() && options.duration.is_none());
    }

    #[test]
    fn neighbours_are_joined_and_a_lone_port_is_its_own_peer() {
        assert_eq!(destinations(None, 1).unwrap(), [Some(0)]);
        assert_eq!(destinations(None, 4).unwrap(), [1, 0, 3, 2].map(Some));
        assert_eq!(destinations(None, 3).unwrap(), [1, 0, 2].map(Some));
    }

    #[test]
    fn a_portmap_is_directed() {
        assert_eq!(parse_pairs("(0,1),(1,0)").unwrap(), [(0, 1), (1, 0)]);
        assert_eq!(parse_pairs(" (0, 2) (12,1)").unwrap(), [(0, 2), (12, 1)]);
        assert_eq!(destinations(Some(vec![(0, 1)]), 2).unwrap(), [Some(1), None]);
        assert_eq!(destinations(Some(vec![(0, 0), (1, 0)]), 2).unwrap(), [Some(0), Some(0)]);
    }

    #[test]
    fn bad_portmaps_are_refused() {
        for text in ["", "0,1", "(0,1", "(0)", "(0,1),", "(0,x)", "(0,1)x", "(-1,0)", "((0,1))", ",(0,1)", "(0,1,2)"] {
            assert!(parse_pairs(text).unwrap_err().contains("(0,1),(1,0)"), "{text}");
        }
        let refusal = |pairs: &[(usize, usize)], ports| destinations(Some(pairs.to_vec()), ports).unwrap_err();
        assert!(refusal(&[(0, 2)], 2).contains("no port 2"));
        assert!(refusal(&[(0, 1), (0, 0)], 2).contains("two pairs"));
        assert!(refusal(&[(0, 1), (1, 0)], 3).contains("port 2 is in no pair"));
    }

    #[test]
    fn peers_by_port() {
        let options = parse("--peer-mac 1,52:54:00:12:34:56").unwrap();
        assert_eq!(options.peers, ["02:00:00:00:00:00", "52:54:00:12:34:56"].map(|mac| mac.parse().unwrap()));
        for (line, part) in [
            ("--peer-mac 2,52:54:00:12:34:56", "no port 2"),
            ("--peer-mac 52:54:00:12:34:56", "1,52:54:00:12:34:56"),
            ("--peer-mac 1,52:54", "not a MAC address"),
        ] {
            assert!(parse(line).unwrap_err().contains(part), "{line}");
        }
    }

    #[test]
    fn usage_errors_are_one_line_that_names_the_option() {
        for (line, part) in [
            ("--burst 0", "--burst: '0' is not a whole number from 1 to 1024"),
            ("--burst 1025", "1 to 1024"),
            ("--queues 0", "--queues"),
            ("--port eth0", "'eth0' names no device"),
            ("--port 0000:01:10.0 --port 0000:01:10.0", "twice"),
            ("--cores 3-1", "--cores: '3-1'"),
            ("--duration -1", "--duration"),
            ("--frobnicate", "no option --frobnicate"),
            ("--json=1", "takes no value"),
            ("--pages 4K", "--pages: '4K'"),
            ("--mtu", "--mtu needs a value"),
            ("--resource intel.com/no_such_resource", "PCIDEVICE_INTEL_COM_NO_SUCH_RESOURCE"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(part) && !problem.contains('\n'), "{line}: {problem}");
        }
    }

    #[test]
    fn help_names_every_option() {
        assert!(Options::parse(Args::new(["--help".to_owned()])).unwrap().is_none());
        let arms =
            include_str!("options.rs").lines().filter(|line| line.trim().starts_with("\"--") && line.contains("=>"));
        for option in arms.filter_map(|line| line.split('"').nth(1)) {
            assert!(USAGE.contains(&format!("  {option} ")), "{option}");
        }
    }
}
