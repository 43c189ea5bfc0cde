//! Our drivers on our models, through the guest's real vfio-pci and IOMMU: what a bug of the in-process bus or of the
//! models' own view of memory would hide, shows here.

use std::time::Duration;

use vfring_tests::build::complete_example;
use vfring_tests::forwarder::{Forwarder, PROGRAM, Traffic, Way};
use vfring_tests::vm::{Bench, Models, ModelsConfig, Result, poll};

const SECOND: Duration = Duration::from_secs(1);

/// Bits a second of TCP payload that must flow through l2fwd: a fraction of what an idle machine does.
const ENOUGH_TCP: f64 = 5e6;

/// A reset takes the model half a second, and the driver looks after it ten times a second; the machine may be busy.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn igbvf_forwards_on_the_model_of_an_82576() -> Result<()> {
    judge(ModelsConfig::new("igbvf", "vfio-pci"))
}

#[test]
fn ixgbevf_forwards_on_the_model_of_an_x550() -> Result<()> {
    judge(ModelsConfig::new("ixgbevf", "vfio-pci"))
}

#[test]
fn ixgbevf_forwards_on_the_model_of_an_82599() -> Result<()> {
    judge(ModelsConfig::new("ixgbevf", "vfio-pci").option("part", "82599"))
}

#[test]
fn iavf_forwards_on_the_model_behind_an_ice_pf() -> Result<()> {
    judge(ModelsConfig::new("iavf", "vfio-pci"))
}

#[test]
fn iavf_forwards_on_the_model_behind_an_i40e_pf() -> Result<()> {
    judge(ModelsConfig::new("iavf", "vfio-pci").option("part", "xl710"))
}

fn judge(config: ModelsConfig) -> Result<()> {
    Models::boot(config.file(complete_example("l2fwd")?, PROGRAM))?.judge(|bed| {
        let free = bed.guest.free_hugepages()?;

        let forwarder = Forwarder::start(bed, "")?;
        ping(bed)?;
        for (from, to) in [(&bed.a, &bed.b), (&bed.b, &bed.a)] {
            let tcp = from.namespace.tcp_to(&to.namespace, to.address, 3 * SECOND)?;
            println!("TCP from {} to {}: {:.0} Mb/s, {tcp:?}", from.address, to.address, tcp.bits_per_second / 1e6);
            assert!(tcp.bits_per_second >= ENOUGH_TCP, "{tcp:?}");
        }
        forwarder.stop()?;
        counted(bed)?;

        // Killed in mid traffic, then reset under a fresh one.
        let traffic = Traffic::start(bed, 1000)?;
        for _ in 0..5 {
            let forwarder = Forwarder::start(bed, "")?;
            traffic.wait_for_more(traffic.arrived(), 100, RECOVERY_TIMEOUT)?;
            forwarder.kill()?;
        }
        let forwarder = Forwarder::start(bed, "")?;
        traffic.wait_for_more(traffic.arrived(), 100, RECOVERY_TIMEOUT)?;
        for server in &bed.servers {
            server.ask("pf-reset 500ms")?;
        }
        for (port, side) in [&bed.a, &bed.b].into_iter().enumerate() {
            forwarder.wait_for(&format!("port {port} ({}) runs again", side.vf), RECOVERY_TIMEOUT)?;
        }
        traffic.wait_for_more(traffic.arrived(), 100, RECOVERY_TIMEOUT)?;
        for received in traffic.finish()? {
            assert_eq!(received.corrupt, 0, "{received:?}");
        }
        let report = forwarder.stop()?;
        for port in 0..2 {
            assert!(report.number(&format!("/ports/{port}/resets_recovered")) > 0, "port {port}: {report:?}");
        }

        let forwarder = Forwarder::start(bed, "--interrupts")?;
        ping(bed)?;
        forwarder.stop()?;
        assert_eq!(bed.guest.free_hugepages()?, free);
        Ok(())
    })
}

/// Counted frames arrive intact, with the right addresses, and everyone counts the same.
fn counted(bed: &Bench) -> Result<()> {
    let forwarder = Forwarder::start(bed, "")?;
    let mut frames = Vec::new();
    for way in [Way::AToB, Way::BToA] {
        let receiver = way.receiver(bed)?;
        let sent = way.sender(bed).rate(5000).following(&receiver, 256).send(10_000)?;
        let received = receiver.finish_after(sent.frames)?;
        assert_eq!(
            (sent.refused, received.frames, received.corrupt, received.duplicates),
            (0, 10_000, 0, 0),
            "{way:?}"
        );
        let (destination, source) = way.addresses(bed);
        assert_eq!(received.destinations.into_iter().collect::<Vec<_>>(), [destination]);
        assert_eq!(received.sources.into_iter().collect::<Vec<_>>(), [source]);
        frames.push(received.frames);
    }
    let report = forwarder.stop()?;
    for port in 0..2 {
        for counter in ["rx/packets", "tx/packets", "device_counters/rx_packets", "device_counters/tx_packets"] {
            assert_eq!(report.number(&format!("/ports/{port}/{counter}")), 10_000, "port {port}, {counter}");
        }
    }
    assert_eq!(report.number("/drops"), 0);
    Ok(())
}

fn ping(bed: &Bench) -> Result<()> {
    poll("pings to pass", RECOVERY_TIMEOUT, SECOND / 10, || {
        Ok((bed.a.namespace.ping(bed.b.address, 5, 56)?.received == 5).then_some(()))
    })?;
    let report = bed.b.namespace.ping(bed.a.address, 10, 56)?;
    println!("{report:?}");
    assert_eq!(report.received, 10, "{report:?}");
    Ok(())
}
