//! Linux's own VF drivers judge the models: what they cannot use is a wrong model, whatever a datasheet says.
//!
//! Each test is one guest, in which the kernel's driver has probed a model as a PCI device. The other end of the wire is
//! a network namespace of this machine.

use std::net::Ipv4Addr;
use std::time::Duration;

use vfring_tests::vm::{Error, Models, ModelsConfig, Netns, Result, Tap, poll};

const SECOND: Duration = Duration::from_secs(1);

/// The guest's address, on the interface and on a VLAN of it.
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
const GUEST_VLAN: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 10);
/// The namespace's address on the VLAN.
const VLAN: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);

/// Bits a second of TCP payload that must flow each way: a fraction of what an idle machine does.
const ENOUGH_TCP: f64 = 5e6;

/// A kernel driver is told of a reset by a message and looks after it every second or two; the machine may be busy.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(120);

/// What differs from driver to driver.
struct Judge {
    config: ModelsConfig,
    /// Counters of `ethtool -S` of frames that came and went.
    counters: [&'static str; 2],
    /// Queues that `ethtool -x` spreads over; none where the driver has no `-x`.
    rss: Option<u32>,
}

#[test]
fn igbvf_works_on_the_model_of_an_82576() -> Result<()> {
    let config = ModelsConfig::new("igbvf", "igbvf").option("lenient", "1");
    judge(Judge { config, counters: ["rx_packets", "tx_packets"], rss: None })
}

#[test]
fn ixgbevf_works_on_the_model_of_an_x550() -> Result<()> {
    let config = ModelsConfig::new("ixgbevf", "ixgbevf").processors(2);
    judge(Judge { config, counters: ["rx_packets", "tx_packets"], rss: Some(2) })
}

#[test]
fn ixgbevf_works_on_the_model_of_an_82599() -> Result<()> {
    let config = ModelsConfig::new("ixgbevf", "ixgbevf").option("part", "82599").option("jumbo", "1");
    judge(Judge { config, counters: ["rx_packets", "tx_packets"], rss: None })
}

#[test]
fn iavf_works_on_the_model_behind_an_ice_pf() -> Result<()> {
    let config = ModelsConfig::new("iavf", "iavf").processors(2);
    judge(Judge { config, counters: ["rx_unicast", "tx_unicast"], rss: Some(2) })
}

#[test]
fn iavf_works_on_the_model_behind_an_i40e_pf() -> Result<()> {
    let config = ModelsConfig::new("iavf", "iavf").option("part", "xl710");
    judge(Judge { config, counters: ["rx_unicast", "tx_unicast"], rss: Some(1) })
}

fn judge(judge: Judge) -> Result<()> {
    Models::boot(judge.config.clone())?.judge(|bed| {
        let netdev = bed.guest.netdev(&bed.a.vf)?;
        let link = Link { bed, netdev: &netdev, tap: &bed.a.tap };

        let mac = bed.guest.sh(&format!("cat /sys/class/net/{netdev}/address"))?;
        check(mac == bed.a.vf_mac.to_string(), || format!("its address is {mac}"))?;
        bed.guest.sh(&format!("/bin/ip address add {GUEST}/24 dev {netdev}"))?;
        link.up()?;
        link.pings(GUEST, bed.a.address, 56)?;
        link.tcp()?;
        vlan(&link)?;

        let payload = 8900;
        link.namespace().ip(&format!("link set {} mtu 9000", link.tap.name))?;
        bed.guest.set_mtu(&netdev, 9000)?;
        link.comes_back()?;
        link.pings(GUEST, bed.a.address, payload)?;
        link.tcp()?;

        statistics(&link, &judge.counters)?;
        if let Some(queues) = judge.rss {
            indirection(&link, queues)?;
        }
        for _ in 0..10 {
            bed.guest.link_down(&netdev)?;
            link.up()?;
            link.comes_back()?;
        }

        bed.servers[0].ask("pf-reset 500ms")?;
        link.comes_back()?;
        link.pings(GUEST, bed.a.address, payload)?;

        bed.guest.unbind(&bed.a.vf)?;
        bed.guest.bind(&bed.a.vf, judge.config.driver)?;
        let netdev = bed.guest.netdev(&bed.a.vf)?;
        bed.guest.sh(&format!("/bin/ip address add {GUEST}/24 dev {netdev}"))?;
        let link = Link { netdev: &netdev, ..link };
        link.up()?;
        link.pings(GUEST, bed.a.address, 56)?;
        no_complaint(&link, judge.config.driver)
    })
}

/// The guest's interface and the other end of its wire.
struct Link<'a> {
    bed: &'a Models,
    netdev: &'a str,
    tap: &'a Tap,
}

impl Link<'_> {
    fn namespace(&self) -> &Netns {
        self.tap.namespace()
    }

    fn up(&self) -> Result<()> {
        self.bed.guest.link_up(self.netdev)
    }

    /// From the namespace to the guest's address and from the guest to the namespace's.
    fn pings(&self, guest: Ipv4Addr, namespace: Ipv4Addr, payload: u32) -> Result<()> {
        let report = self.namespace().ping(guest, 10, payload)?;
        check(report.received == 10, || format!("{payload} bytes to the guest: {report:?}"))?;
        // Each by a program of its own, as `Netns::ping` does and says why.
        let ping = format!("/bin/ping -n -q -M do -W 5 -s {payload} -c 1 {namespace} || exit 1; usleep 100000");
        self.bed.guest.sh(&format!("for n in $(seq 10); do {ping}; done")).map(drop)
    }

    /// Waits until pings pass.
    fn comes_back(&self) -> Result<()> {
        poll("pings to pass", RECOVERY_TIMEOUT, SECOND / 10, || {
            Ok((self.namespace().ping(GUEST, 2, 56)?.received == 2).then_some(()))
        })
        .map_err(|error| error.with(self.bed.guest.dmesg().unwrap_or_default()))
    }

    /// A TCP stream each way.
    fn tcp(&self) -> Result<()> {
        let guest = &self.bed.guest;
        for (way, from_guest) in [("to", false), ("from", true)] {
            let server = guest.spawn("exec /bin/iperf3 -4 -s -1 --forceflush")?;
            guest.wait_log(&server, "Server listening", RECOVERY_TIMEOUT)?;
            let tcp = self.namespace().tcp_client(GUEST, 2 * SECOND, from_guest);
            let tcp = tcp.map_err(|error| error.with(guest.log(&server).unwrap_or_default()))?;
            println!("TCP {way} the guest: {:.0} Mb/s, {} retransmits", tcp.bits_per_second / 1e6, tcp.retransmits);
            check(tcp.bits_per_second >= ENOUGH_TCP, || format!("TCP {way} the guest: {tcp:?}"))?;
            guest.wait(&server, RECOVERY_TIMEOUT)?;
        }
        Ok(())
    }
}

/// A VLAN interface in the guest; tagged frames pass both ways, those of full size too.
fn vlan(link: &Link) -> Result<()> {
    let (guest, netdev) = (&link.bed.guest, link.netdev);
    guest.sh(&format!(
        "/bin/ip link add link {netdev} name vlan100 type vlan id 100 &&
         /bin/ip address add {GUEST_VLAN}/24 dev vlan100 && /bin/ip link set vlan100 up"
    ))?;
    let mac = link.tap.ask_on_vlan(100, VLAN, GUEST_VLAN, RECOVERY_TIMEOUT)?;
    check(mac == link.bed.a.vf_mac, || format!("{mac} answers on the VLAN"))?;
    link.tap.ping_on_vlan(100, VLAN, (GUEST_VLAN, mac), RECOVERY_TIMEOUT)?;
    guest.sh("/bin/ip link delete vlan100").map(drop)
}

/// The driver's counters have counted. Some ask the PF for them every second or two.
fn statistics(link: &Link, counters: &[&str]) -> Result<()> {
    poll("counters of more than 1000", RECOVERY_TIMEOUT, SECOND, || {
        let text = link.bed.guest.sh(&format!("/bin/ethtool -S {}", link.netdev))?;
        let value = |counter| -> Option<u64> {
            text.lines().find_map(|line| line.trim().strip_prefix(counter)?.strip_prefix(": "))?.parse().ok()
        };
        Ok(counters.iter().all(|counter| value(counter).is_some_and(|value| value > 1000)).then_some(()))
    })
}

/// The indirection table spreads over all queues.
fn indirection(link: &Link, queues: u32) -> Result<()> {
    let text = link.bed.guest.sh(&format!("/bin/ethtool -x {}", link.netdev))?;
    let rows = text.lines().filter_map(|line| {
        let (place, entries) = line.trim().split_once(": ")?;
        place.trim().parse::<u32>().ok().map(|_| entries)
    });
    let mut seen: Vec<u32> =
        rows.flat_map(|row| row.split_whitespace()).filter_map(|entry| entry.parse().ok()).collect();
    seen.sort_unstable();
    seen.dedup();
    check(seen == (0..queues).collect::<Vec<_>>(), || format!("the table does not spread over {queues} queues: {text}"))
}

/// No line of the driver at level "error" or worse, and nothing that the kernel found wrong with it.
fn no_complaint(link: &Link, driver: &str) -> Result<()> {
    let log = link.bed.guest.sh("dmesg -r")?;
    let bad = |line: &&str| {
        let level =
            line.strip_prefix('<').and_then(|rest| rest.split_once('>')).and_then(|(n, _)| n.parse::<u32>().ok());
        let of_driver = line.contains(driver) && level.is_some_and(|level| level & 7 <= 3);
        of_driver || ["WARNING:", "BUG:", "Call Trace", "NETDEV WATCHDOG"].iter().any(|sign| line.contains(sign))
    };
    match log.lines().filter(bad).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        ref lines => Err(Error::new(format!("the guest's kernel complains:\n{}", lines.join("\n"))).with(log)),
    }
}

/// An error instead of a panic, so that it is shown with what the model and the guest have said.
fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::new(otherwise())) }
}
