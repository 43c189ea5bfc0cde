//! Judges the guest harness with nothing of ours in the guest: if one of these fails, no other guest test means
//! anything. Real IOMMU groups, real vfio-pci, Linux's own VF driver passing real traffic.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};
use vfring_tests::vm::{
    Binding, Error, Guest, GuestConfig, GuestFile, Mac, Netns, Nic, PacedSender, Receiver, Result, Testbed,
    TestbedConfig, Topology, memlock_limited, unprivileged,
};

const SECOND: Duration = Duration::from_secs(1);

fn two_unconnected_nics() -> Vec<Nic> {
    vec![Nic::unconnected(Mac([0x52, 0x54, 0, 0, 0, 1])), Nic::unconnected(Mac([0x52, 0x54, 0, 0, 0, 2]))]
}

#[test]
fn vfs_have_groups_of_their_own_and_bind_to_vfio_pci() -> Result<()> {
    let guest = Guest::boot(GuestConfig { nics: two_unconnected_nics(), ..GuestConfig::default() })?;
    println!("booted in {:?}", guest.boot_time());
    let mut groups = Vec::new();
    for pf in ["0000:01:00.0", "0000:02:00.0"] {
        assert_eq!(guest.driver(pf)?.as_deref(), Some("igb"));
        for vf in guest.create_vfs(pf, 2)? {
            assert_eq!(guest.driver(&vf)?, None, "{vf}");
            assert_eq!(guest.sh(&format!("cat /sys/bus/pci/devices/{vf}/device"))?, "0x10ca");
            let group = guest.bind_vfio(&vf)?;
            assert_eq!(guest.driver(&vf)?.as_deref(), Some("vfio-pci"));
            assert_eq!(guest.group_members(group)?, [vf]);
            groups.push(group);
        }
    }
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), 4);
    assert_eq!(guest.netdev("0000:02:00.0")?, "eth1");
    guest.hugepages(128)?;
    assert_eq!(guest.free_hugepages()?, 128);
    // More than the guest has memory for is an error, not a smaller number.
    assert!(guest.hugepages(4096).unwrap_err().to_string().contains("of 4096 hugepages"));
    Ok(())
}

#[test]
fn commands_files_and_processes_in_the_guest() -> Result<()> {
    let script = std::env::temp_dir().join(format!("vfring-smoke-{}", std::process::id()));
    std::fs::write(&script, "#!/bin/sh\necho \"hello $*\"\n").map_err(Error::during(script.display()))?;
    let files = vec![GuestFile { host: script.clone(), guest: "/opt/test/hello".into() }];
    let guest = Guest::boot(GuestConfig { files, ..GuestConfig::default() })?;
    std::fs::remove_file(&script).map_err(Error::during(script.display()))?;

    // Extra files arrive, status and both streams come back, odd bytes and long outputs survive.
    assert_eq!(guest.sh("/opt/test/hello you")?, "hello you");
    let output = guest.run("echo out; echo err >&2; printf '\\0\\377>1 0\\n'; exit 7", 5 * SECOND)?;
    assert_eq!((output.status, output.stdout.as_slice()), (7, b"out\nerr\n\0\xff>1 0\n".as_slice()));
    let long = guest.run("seq 1 60000", 30 * SECOND)?;
    assert_eq!(long.stdout, (1..=60000).map(|n| format!("{n}\n")).collect::<String>().into_bytes());
    let blob: Vec<u8> = (0..20_000u32).map(|n| ((n * n) >> 3) as u8).collect();
    guest.write_file("/tmp/blob", &blob)?;
    assert_eq!(guest.read_file("/tmp/blob")?, blob);
    assert!(guest.sh("echo seen; false").unwrap_err().to_string().contains("seen"));

    // What runs too long is killed with its children, and the guest goes on.
    let error = guest.run("echo before; sleep 1234; echo after", 2 * SECOND).unwrap_err().to_string();
    assert!(error.contains("longer than 2 s") && error.contains("before"), "{error}");
    assert_eq!(guest.sh("ps | grep -c '[s]leep 1234' || true")?, "0");

    // Background processes: log, signals with default dispositions, exit status.
    let process = guest.spawn("echo started; exec sleep 1000")?;
    guest.wait_log(&process, "started", 10 * SECOND)?;
    assert!(guest.is_running(&process)?);
    guest.signal(&process, "INT")?;
    assert_eq!(guest.wait(&process, 10 * SECOND)?, 128 + 2);
    assert!(!guest.is_running(&process)?);
    let process = guest.spawn("exec sleep 1000")?;
    guest.kill(&process)?;
    assert_eq!(guest.wait(&process, SECOND)?, 128 + 9);
    guest.kill(&process)?;
    let process = guest.spawn("echo 'it is \"done\"'; exit 3")?;
    guest.wait_log(&process, "it is \"done\"", 10 * SECOND)?;
    assert_eq!(guest.wait(&process, 10 * SECOND)?, 3);
    let error = guest.wait_log(&process, "never", 10 * SECOND).unwrap_err().to_string();
    assert!(error.contains("ended without printing") && error.contains("done"), "{error}");

    // Lesser privileges.
    assert_eq!(guest.sh(&unprivileged("id -u", None))?, "1000");
    let limits = guest.sh(&unprivileged("grep -E 'locked memory' /proc/self/limits", Some(64)))?;
    assert_eq!(limits.split_whitespace().nth(3), Some("65536"), "{limits}");
    let capability = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or_default().to_owned();
        u64::from_str_radix(&line, 16).unwrap_or(u64::MAX)
    };
    let (ipc_lock, sys_admin) = (1 << 14, 1 << 21);
    assert_eq!(capability(&guest.sh(&unprivileged("cat /proc/self/status", None))?), 0);
    let limited = capability(&guest.sh(&memlock_limited("cat /proc/self/status", 64))?);
    assert_eq!((limited & ipc_lock, limited & sys_admin), (0, sys_admin));
    Ok(())
}

#[test]
fn linux_igbvf_answers_pings_and_counted_frames_arrive_intact() -> Result<()> {
    let bed = Testbed::boot(TestbedConfig { binding: Binding::Igbvf, ..TestbedConfig::default() })?;
    let guest = &bed.guest;
    for (side, there) in [(&bed.a, Ipv4Addr::new(10, 77, 0, 101)), (&bed.b, Ipv4Addr::new(10, 77, 0, 102))] {
        let netdev = guest.netdev(&side.vf)?;
        assert_eq!(guest.driver(&side.vf)?.as_deref(), Some("igbvf"));
        assert_eq!(guest.sh(&format!("cat /sys/class/net/{netdev}/address"))?, side.vf_mac.to_string());
        // Both networks are the same: a table of its own sends each interface's answers out of that interface.
        guest.link_up(&netdev)?;
        let table = side.group;
        guest.sh(&format!(
            "/bin/ip address add {there}/32 dev {netdev} && /bin/ip route add {}/32 dev {netdev} table {table} && \
             /bin/ip rule add from {there} table {table} && /bin/ip route add {}/32 dev {netdev}",
            side.address, side.address
        ))?;
        side.tap.add_neighbour(there, side.vf_mac)?;
        let report = side.namespace.ping(there, 10, 56)?;
        println!("{there}: {report:?}");
        assert_eq!(report.received, 10, "{report:?}");
    }

    // Counted frames: without a forwarder nobody sends them back, so the VF's own interface counts what reached it. Slow
    // enough that Linux's ring of 256 outlasts a guest that does not run for a quarter of a second.
    let netdev = guest.netdev(&bed.a.vf)?;
    let arrived =
        || -> Result<u64> { Ok(number(&guest.sh(&format!("cat /sys/class/net/{netdev}/statistics/rx_packets"))?)) };
    let (vf_before, tap_before) = (arrived()?, bed.a.tap.counters()?);
    let sender = PacedSender::new(&bed.a.namespace, &bed.a.tap.name, bed.a.tap.mac, bed.a.vf_mac);
    let sent = sender.rate(1_000).send_for(2 * SECOND)?;
    assert_eq!((sent.frames, sent.refused), (2_000, 0));
    let tap_after = bed.a.tap.counters()?;
    assert_eq!(tap_after.tx_dropped - tap_before.tx_dropped, 0, "the TAP device dropped");
    let started = Instant::now();
    while arrived()? - vf_before < 2_000 && started.elapsed() < 20 * SECOND {
        std::thread::sleep(SECOND / 4);
    }
    assert_eq!(arrived()? - vf_before, 2_000);

    // A PF reset, as its netdev sees it: Linux's driver comes back.
    guest.bounce_pf(&bed.pfs[0].netdev)?;
    let started = Instant::now();
    while bed.a.namespace.ping(Ipv4Addr::new(10, 77, 0, 101), 1, 56)?.received == 0 {
        assert!(started.elapsed() < 60 * SECOND, "igbvf did not come back\n{}", guest.dmesg()?);
    }
    println!("igbvf was back after {:?}", started.elapsed());
    Ok(())
}

#[test]
fn without_acs_all_vfs_share_a_group_with_their_pfs() -> Result<()> {
    let bed = Testbed::boot(TestbedConfig {
        topology: Topology::SharedGroup,
        binding: Binding::Unbound,
        hugepages: 0,
        ..TestbedConfig::default()
    })?;
    assert_eq!(bed.guest.driver(&bed.a.vf)?, None);
    assert_eq!(bed.guest.free_hugepages()?, 0);
    assert_eq!(bed.a.group, bed.b.group);
    let members = bed.guest.group_members(bed.a.group)?;
    for device in [&bed.pfs[0].address, &bed.a.vf, &bed.pfs[1].address, &bed.b.vf] {
        assert!(members.contains(device), "{device} is not in {members:?}");
    }
    bed.guest.bind_vfio(&bed.a.vf)?;
    Ok(())
}

#[test]
fn what_the_sender_sends_is_what_the_receiver_counts() -> Result<()> {
    // No guest, two ends of a virtual cable: a frame that is lost or changed here is the harness's fault.
    let namespace = Netns::new("cable")?;
    namespace.ip("link add left type veth peer name right")?;
    for end in ["left", "right"] {
        namespace.ip(&format!("link set {end} mtu 9000 up"))?;
    }
    let (source, destination) = (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2]));
    for (stream, length) in [(1, 60), (2, 1514), (3, 9014)] {
        let sender = PacedSender::new(&namespace, "left", source, destination).stream(stream).frame_len(length);
        let receiver = Receiver::start(&namespace, "right", stream)?;
        let other = sender.clone().stream(99).send(10)?;
        let before = namespace.counters("right")?;
        let sent = sender.rate(20_000).send_for(SECOND)?;
        let received = receiver.finish_after(20_000)?;
        let after = namespace.counters("right")?;
        println!("{length} bytes: {sent:?}");
        assert_eq!((other.frames, sent.frames, sent.refused), (10, 20_000, 0));
        assert!(sent.wall >= SECOND * 9 / 10, "not paced: {:?}", sent.wall);
        assert_eq!((received.frames, received.bytes), (20_000, 20_000 * length as u64));
        assert_eq!((received.corrupt, received.duplicates, received.reordered, received.overrun), (0, 0, 0, 0));
        assert_eq!(received.sources.into_iter().collect::<Vec<_>>(), [source]);
        assert_eq!(received.destinations.into_iter().collect::<Vec<_>>(), [destination]);
        assert_eq!(after.rx_packets - before.rx_packets, 20_000);
    }
    Ok(())
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("not a number: {text:?}"))
}
