//! DPDK's testpmd on our models, through the guest's vfio-pci and IOMMU: the other user-space drivers of these VFs.

use vfring_tests::forwarder::Way;
use vfring_tests::testpmd::Testpmd;
use vfring_tests::vm::{Models, ModelsConfig, Result};

/// Frames each way.
const FRAMES: u64 = 10_000;

#[test]
fn net_e1000_igb_vf_forwards_on_the_model_of_an_82576() -> Result<()> {
    judge(ModelsConfig::new("igbvf", "vfio-pci").option("lenient", "1"), "net_e1000_igb_vf")
}

#[test]
fn net_ixgbe_vf_forwards_on_the_model_of_an_x550() -> Result<()> {
    judge(ModelsConfig::new("ixgbevf", "vfio-pci"), "net_ixgbe_vf")
}

#[test]
fn net_iavf_forwards_on_the_model_behind_an_ice_pf() -> Result<()> {
    judge(ModelsConfig::new("iavf", "vfio-pci"), "net_iavf")
}

#[test]
fn net_iavf_forwards_on_the_model_behind_an_i40e_pf() -> Result<()> {
    judge(ModelsConfig::new("iavf", "vfio-pci").option("part", "xl710"), "net_iavf")
}

fn judge(config: ModelsConfig, driver: &str) -> Result<()> {
    Models::boot(config)?.judge(|bed| {
        let testpmd = Testpmd::start(bed, "--total-num-mbufs=8192 --rxd=512 --txd=512")?;
        testpmd.command("show port info all")?;
        testpmd.command("start")?;
        for way in [Way::AToB, Way::BToA] {
            let receiver = way.receiver(bed)?;
            let sent = way.sender(bed).rate(5000).following(&receiver, 256).send(FRAMES)?;
            let received = receiver.finish_after(sent.frames)?;
            assert_eq!(
                (sent.refused, received.frames, received.corrupt, received.duplicates),
                (0, FRAMES, 0, 0),
                "{way:?}"
            );
            let (destination, source) = way.addresses(bed);
            assert_eq!(received.destinations.into_iter().collect::<Vec<_>>(), [destination]);
            assert_eq!(received.sources.into_iter().collect::<Vec<_>>(), [source]);
        }
        testpmd.command("stop")?;
        testpmd.command("show port stats all")?;
        let log = testpmd.stop()?;
        assert_eq!(log.matches(&format!("Driver name: {driver}")).count(), 2, "{log}");
        // What it forwarded, then what each NIC counted.
        for title in ["Forward statistics for port", "NIC statistics for port"] {
            for port in 0..2 {
                for name in ["RX-packets", "TX-packets"] {
                    assert_eq!(
                        number(&log, &format!("{title} {port} "), name),
                        Some(FRAMES),
                        "{title} {port}, {name}:\n{log}"
                    );
                }
            }
        }
        Ok(())
    })
}

/// The number behind this name in the paragraph with this title. Prompts may stand anywhere in between.
fn number(log: &str, title: &str, name: &str) -> Option<u64> {
    log.split(title).nth(1)?.split(&format!("{name}:")).nth(1)?.split_whitespace().next()?.parse().ok()
}
