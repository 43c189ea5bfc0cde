//! What a forwarder must live through: being killed at any moment, and resets of its PFs. The traffic never pauses.

use std::time::{Duration, Instant};

use vfring_tests::forwarder::{Forwarder, Traffic, testbed};
use vfring_tests::vm::{Guest, Pf, Result, TestbedConfig};

/// Frames a second each way: enough for every moment to be in the middle of traffic.
const RATE: u32 = 4000;

/// Frames each way that show that it forwards.
const ENOUGH: u64 = 200;

/// A PF negotiates its link for 1 to 2 s after it was brought up, and frames pass within a second from then on; the
/// machine may be busy.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn after_each_of_50_kills_in_mid_traffic_a_fresh_start_forwards() -> Result<()> {
    let bed = testbed(TestbedConfig::default())?;
    let free = bed.guest.free_hugepages()?;
    let traffic = Traffic::start(&bed, RATE)?;
    let started = Instant::now();
    for _ in 0..50 {
        let forwarder = Forwarder::start(&bed, "")?;
        traffic.wait_for_more(traffic.arrived(), ENOUGH, RECOVERY_TIMEOUT)?;
        forwarder.kill()?;
    }
    println!("50 starts and kills took {:?}", started.elapsed());
    assert_eq!(bed.guest.free_hugepages()?, free);

    let forwarder = Forwarder::start(&bed, "")?;
    traffic.wait_for_more(traffic.arrived(), ENOUGH, RECOVERY_TIMEOUT)?;
    for received in traffic.finish()? {
        assert_eq!(received.corrupt, 0, "{received:?}");
    }
    forwarder.stop()?;
    assert_eq!(bed.guest.free_hugepages()?, free);
    Ok(())
}

#[test]
fn traffic_resumes_in_the_same_process_after_resets_of_the_pfs() -> Result<()> {
    let bed = testbed(TestbedConfig::default())?;
    let forwarder = Forwarder::start(&bed, "")?;
    let traffic = Traffic::start(&bed, RATE)?;
    type Reset = fn(&Guest, &Pf) -> Result<()>;
    let resets: [(&str, Reset); 2] = [
        ("its netdev down and up", |guest, pf| guest.bounce_pf(&pf.netdev)),
        ("its sysfs reset, then its netdev down and up", |guest, pf| {
            guest.sysfs_reset(&pf.address)?;
            guest.bounce_pf(&pf.netdev)
        }),
    ];
    for (port, pf) in bed.pfs.iter().enumerate() {
        for (what, reset) in resets {
            traffic.wait_for_more(traffic.arrived(), ENOUGH, RECOVERY_TIMEOUT)?;
            reset(&bed.guest, pf)?;
            let (before, started) = (traffic.arrived(), Instant::now());
            traffic.wait_for_more(before, ENOUGH, RECOVERY_TIMEOUT)?;
            println!("PF of port {port}, {what}: frames {:?} after its carrier was back", started.elapsed());
        }
    }
    for received in traffic.finish()? {
        assert_eq!(received.corrupt, 0, "{received:?}");
    }
    let report = forwarder.stop()?;
    for port in 0..2 {
        let recovered = report.number(&format!("/ports/{port}/resets_recovered"));
        assert!(recovered >= 2, "port {port} recovered from {recovered} resets");
    }
    Ok(())
}
