//! What l2fwd says: a table or lines while it runs, a summary and a JSON object at the end.
//!
//! Everything comes from two samples of the control side; nothing here is called by a forwarding thread.
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use vfring::{Link, MacAddr, PortState, PortStats};

use crate::common::human;
use crate::common::json::Object;

/// What does not change while a port runs.
#[derive(Clone, Debug)]
pub struct PortFacts {
    /// The spec that it was opened by.
    pub name: String,
    /// Driver's name.
    pub family: &'static str,
    /// The part.
    pub part: &'static str,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Where its packets go.
    pub to: Option<usize>,
    /// A software model.
    pub is_model: bool,
}

/// One port at one moment.
pub struct PortSample {
    pub stats: PortStats,
    pub link: Link,
    pub state: PortState,
    /// Packets that found the transmit rings of the port full.
    pub ring_full: u64,
}

/// All ports at one moment.
pub struct Sample {
    pub at: Instant,
    pub ports: Vec<PortSample>,
}

/// The pool once everything that used it is gone.
#[derive(Clone, Copy)]
pub struct PoolEnd {
    pub buffers: u32,
    pub available: u32,
    pub huge: bool,
}

impl PoolEnd {
    /// Buffers that did not come back.
    pub fn lost(&self) -> u32 {
        self.buffers.saturating_sub(self.available)
    }
}

/// Why packets were lost, and how many.
#[derive(Clone, Copy, Default)]
struct Drops {
    rx_errors: u64,
    rx_bad_length: u64,
    tx_ring_full: u64,
    tx_empty: u64,
    tx_too_long: u64,
    tx_too_many_segments: u64,
    tx_foreign_pool: u64,
    tx_bad_offload: u64,
}

impl Drops {
    fn total(&self) -> u64 {
        self.reasons().iter().map(|(_, count)| count).sum()
    }

    fn reasons(&self) -> [(&'static str, u64); 8] {
        [
            ("rx_errors", self.rx_errors),
            ("rx_bad_length", self.rx_bad_length),
            ("tx_ring_full", self.tx_ring_full),
            ("tx_empty", self.tx_empty),
            ("tx_too_long", self.tx_too_long),
            ("tx_too_many_segments", self.tx_too_many_segments),
            ("tx_foreign_pool", self.tx_foreign_pool),
            ("tx_bad_offload", self.tx_bad_offload),
        ]
    }
}

impl PortSample {
    fn rx_packets(&self) -> u64 {
        self.stats.rx.iter().map(|queue| queue.packets).sum()
    }

    fn tx_packets(&self) -> u64 {
        self.stats.tx.iter().map(|queue| queue.packets).sum()
    }

    /// Polls that left packets in the ring because the pool was empty; nothing is lost by that yet.
    fn rx_no_buffer(&self) -> u64 {
        self.stats.rx.iter().map(|queue| queue.no_buffer).sum()
    }

    fn drops(&self) -> Drops {
        let mut drops = Drops { tx_ring_full: self.ring_full, ..Drops::default() };
        for queue in &self.stats.rx {
            drops.rx_errors += queue.errors;
            drops.rx_bad_length += queue.bad_length;
        }
        for queue in &self.stats.tx {
            drops.tx_empty += queue.empty;
            drops.tx_too_long += queue.too_long;
            drops.tx_too_many_segments += queue.too_many_segments;
            drops.tx_foreign_pool += queue.foreign_pool;
            drops.tx_bad_offload += queue.bad_offload;
        }
        drops
    }
}

/// What the ports did between two samples, per second.
struct Rates {
    seconds: f64,
}

impl Rates {
    fn new(time: Duration) -> Self {
        Rates { seconds: time.as_secs_f64().max(1e-9) }
    }

    fn packets(&self, before: u64, now: u64) -> f64 {
        now.saturating_sub(before) as f64 / self.seconds
    }

    /// Bits per second of octets.
    fn bits(&self, before: u64, now: u64) -> f64 {
        8.0 * self.packets(before, now)
    }
}

/// The ports before the first packet, and what the numbers will mean.
pub fn banner(ports: &[PortFacts], huge: bool, threads: usize, burst: usize) -> String {
    let mut text = String::new();
    for (number, port) in ports.iter().enumerate() {
        let to = port.to.map_or("only sends".to_owned(), |to| format!("forwards to port {to}"));
        text += &format!("port {number}: {}, {}, MAC {}, {to}\n", port.name, port.part, port.mac);
    }
    let plural = if threads == 1 { "" } else { "s" };
    text += &format!("{threads} thread{plural}, bursts of {burst} packets; Ctrl-C stops\n");
    text + &caveats(ports, huge)
}

/// What keeps the numbers from being those of a NIC.
fn caveats(ports: &[PortFacts], huge: bool) -> String {
    let mut text = String::new();
    if ports.iter().any(|port| port.is_model) {
        text += "note: software models take part, so a rate is the models' rate, not that of a NIC\n";
    }
    if !huge {
        text += "note: the packet buffers are on ordinary pages; hardware gets hugepages\n";
    }
    text
}

/// The live table: totals since the start, rates since `before`.
pub fn table(ports: &[PortFacts], before: &Sample, now: &Sample) -> String {
    let rates = Rates::new(now.at - before.at);
    let rows: Vec<Vec<String>> = ports
        .iter()
        .zip(before.ports.iter().zip(&now.ports))
        .enumerate()
        .map(|(number, (port, (before, now)))| {
            let (rx, tx) = (now.rx_packets(), now.tx_packets());
            vec![
                number.to_string(),
                port.name.clone(),
                status(now),
                human::count(rx),
                human::mpps(rates.packets(before.rx_packets(), rx)),
                human::bits(rates.bits(before.stats.device.rx_octets, now.stats.device.rx_octets)),
                human::count(tx),
                human::mpps(rates.packets(before.tx_packets(), tx)),
                human::bits(rates.bits(before.stats.device.tx_octets, now.stats.device.tx_octets)),
                human::count(now.drops().total()),
            ]
        })
        .collect();
    let header = ["port", "device", "link", "rx packets", "Mpps", "rx bits", "tx packets", "Mpps", "tx bits", "drops"];
    human::table(3, &header, &rows)
}

/// The same for a log: a line a port.
pub fn lines(ports: &[PortFacts], began: Instant, before: &Sample, now: &Sample) -> String {
    let rates = Rates::new(now.at - before.at);
    let mut text = String::new();
    for (number, (before, now_port)) in before.ports.iter().zip(&now.ports).enumerate().take(ports.len()) {
        let (rx, tx) = (now_port.rx_packets(), now_port.tx_packets());
        text += &format!(
            "{:.1} s: port {number} ({}): rx {rx} packets, {} Mpps, {}; tx {tx} packets, {} Mpps, {}; {} dropped\n",
            (now.at - began).as_secs_f64(),
            status(now_port),
            human::mpps(rates.packets(before.rx_packets(), rx)),
            human::bits(rates.bits(before.stats.device.rx_octets, now_port.stats.device.rx_octets)),
            human::mpps(rates.packets(before.tx_packets(), tx)),
            human::bits(rates.bits(before.stats.device.tx_octets, now_port.stats.device.tx_octets)),
            now_port.drops().total(),
        );
    }
    text
}

/// The end: everything since the start.
pub fn summary(ports: &[PortFacts], pool: PoolEnd, first: &Sample, last: &Sample) -> String {
    let time = last.at - first.at;
    let mut text = format!("\nafter {:.1} s, rates on average:\n{}", time.as_secs_f64(), table(ports, first, last));
    for (number, port) in last.ports.iter().enumerate() {
        for (reason, count) in port.drops().reasons().iter().filter(|(_, count)| *count != 0) {
            text += &format!("port {number}: {} packets dropped: {reason}\n", human::count(*count));
        }
        if port.stats.recoveries != 0 {
            text += &format!("port {number}: recovered from {} resets\n", port.stats.recoveries);
        }
    }
    let sent: u64 = last.ports.iter().map(PortSample::tx_packets).sum();
    let rate = Rates::new(time).packets(0, sent);
    text += &format!("forwarded {} packets, {} Mpps\n", human::count(sent), human::mpps(rate));
    text += &caveats(ports, pool.huge);
    text + &format!("buffers: {} of {} came back, {} lost\n", pool.available, pool.buffers, pool.lost())
}

/// The end for programs.
pub fn json(ports: &[PortFacts], pool: PoolEnd, first: &Sample, last: &Sample) -> String {
    let rates = Rates::new(last.at - first.at);
    let ports_json =
        ports.iter().zip(first.ports.iter().zip(&last.ports)).enumerate().map(|(number, (facts, (a, b)))| {
            let (device_a, device_b) = (&a.stats.device, &b.stats.device);
            let side = |packets: u64, before: u64, octets: u64, octets_before: u64| {
                Object::new()
                    .number("packets", packets)
                    .number("octets", octets)
                    .decimal("packets_per_second", rates.packets(before, packets))
                    .decimal("bits_per_second", rates.bits(octets_before, octets))
            };
            let drops = b.drops();
            let reasons =
                drops.reasons().iter().fold(Object::new(), |object, (reason, count)| object.number(reason, *count));
            let mut object = Object::new()
                .number("port", number as u64)
                .text("device", &facts.name)
                .text("family", facts.family)
                .text("part", facts.part)
                .text("mac", &facts.mac.to_string())
                .flag("model", facts.is_model)
                .flag("link_up", b.link.up)
                .number("link_mbps", b.link.speed_mbps);
            if let Some(to) = facts.to {
                object = object.number("to", to as u64);
            }
            object
                .object(
                    "rx",
                    side(b.rx_packets(), a.rx_packets(), device_b.rx_octets, device_a.rx_octets)
                        .numbers("queue_packets", b.stats.rx.iter().map(|queue| queue.packets)),
                )
                .object(
                    "tx",
                    side(b.tx_packets(), a.tx_packets(), device_b.tx_octets, device_a.tx_octets)
                        .numbers("queue_packets", b.stats.tx.iter().map(|queue| queue.packets)),
                )
                .number("drops", drops.total())
                .object("drops_by_reason", reasons)
                .number("rx_no_buffer", b.rx_no_buffer())
                .number("resets_recovered", b.stats.recoveries)
                .object(
                    "device_counters",
                    Object::new().number("rx_packets", device_b.rx_packets).number("tx_packets", device_b.tx_packets),
                )
        });
    let total = |of: fn(&PortSample) -> u64| last.ports.iter().map(of).sum::<u64>();
    Object::new()
        .text("program", "l2fwd")
        .decimal("seconds", rates.seconds)
        .flag("models", ports.iter().any(|port| port.is_model))
        .list("ports", ports_json)
        .number("rx_packets", total(PortSample::rx_packets))
        .number("tx_packets", total(PortSample::tx_packets))
        .number("drops", total(|port| port.drops().total()))
        .decimal("packets_per_second", rates.packets(0, total(PortSample::tx_packets)))
        .object(
            "pool",
            Object::new()
                .number("buffers", pool.buffers)
                .number("available", pool.available)
                .number("lost", pool.lost())
                .flag("hugepages", pool.huge),
        )
        .finish()
}

/// A link in words.
pub fn link(link: Link) -> String {
    let duplex = if link.full_duplex { "" } else { " half duplex" };
    if link.up { format!("{} Mb/s{duplex}", link.speed_mbps) } else { "down".to_owned() }
}

/// The link, or what keeps the port from using it.
fn status(port: &PortSample) -> String {
    match port.state {
        PortState::Running => link(port.link),
        PortState::Resetting => "resetting".to_owned(),
        PortState::Stopping => "stopping".to_owned(),
        PortState::Dead => "dead".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vfring::{Counters, RxQueueStats, TxQueueStats};

    fn facts(to: Option<usize>) -> PortFacts {
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        PortFacts { name: "sim:igbvf?wire=gen".into(), family: "igbvf", part: "82576 VF", mac, to, is_model: true }
    }

    fn sample(at: Instant, packets: u64) -> Sample {
        let stats = PortStats {
            device: Counters { rx_octets: 64 * packets, tx_octets: 32 * packets, ..Counters::default() },
            rx: vec![RxQueueStats { packets, errors: 1, no_buffer: 7, ..RxQueueStats::default() }],
            tx: vec![
                TxQueueStats { packets: packets / 2, too_long: 2, ..TxQueueStats::default() },
                TxQueueStats { empty: 3, ..TxQueueStats::default() },
            ],
            recoveries: 5,
        };
        let link = Link { up: true, speed_mbps: 1000, full_duplex: true };
        Sample { at, ports: vec![PortSample { stats, link, state: PortState::Running, ring_full: 4 }] }
    }

    /// Two samples, two seconds and two million packets apart.
    fn samples() -> (Sample, Sample) {
        let at = Instant::now();
        (sample(at, 0), sample(at + Duration::from_secs(2), 2_000_000))
    }

    #[test]
    fn the_table_has_totals_and_rates() {
        let (first, last) = samples();
        let table = table(&[facts(Some(0))], &first, &last);
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = "0 sim:igbvf?wire=gen 1000 Mb/s 2,000,000 1.000 512.0 Mb/s 1,000,000 0.500 256.0 Mb/s 10";
        assert_eq!(row.join(" "), expected);
    }

    #[test]
    fn lines_for_a_log_say_the_same() {
        let (first, last) = samples();
        assert_eq!(
            lines(&[facts(Some(0))], first.at, &first, &last),
            "2.0 s: port 0 (1000 Mb/s): rx 2000000 packets, 1.000 Mpps, 512.0 Mb/s; tx 1000000 packets, 0.500 Mpps, \
             256.0 Mb/s; 10 dropped\n"
        );
    }

    #[test]
    fn drops_are_named_and_lost_buffers_counted() {
        let (first, last) = samples();
        let pool = PoolEnd { buffers: 100, available: 97, huge: false };
        let text = summary(&[facts(Some(0))], pool, &first, &last);
        for part in [
            "4 packets dropped: tx_ring_full",
            "3 packets dropped: tx_empty",
            "3 lost",
            "models",
            "ordinary pages",
            "5 resets",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("tx_foreign_pool"));

        let json = json(&[facts(None)], pool, &first, &last);
        for part in [
            "\"drops\":10,\"drops_by_reason\":{\"rx_errors\":1,\"rx_bad_length\":0,\"tx_ring_full\":4,\"tx_empty\":3,\
             \"tx_too_long\":2,",
            "\"rx\":{\"packets\":2000000,\"octets\":128000000,\"packets_per_second\":1000000.000,",
            "\"queue_packets\":[2000000]},\"tx\"",
            "\"rx_no_buffer\":7,\"resets_recovered\":5",
            "\"pool\":{\"buffers\":100,\"available\":97,\"lost\":3,\"hugepages\":false}",
            "\"seconds\":2.000",
        ] {
            assert!(json.contains(part), "{part}: {json}");
        }
        assert!(!json.contains("\"to\"") && !json.contains('\n'));
    }
}
