//! DPDK's testpmd on our models, through the guest's vfio-pci and IOMMU: the other user-space drivers of these VFs.

use std::time::Duration;

use vfring_tests::forwarder::{QUIET, Way};
use vfring_tests::vm::{Bench, Models, ModelsConfig, Process, Result};

/// testpmd starts within 2 s under emulation; the machine may be busy.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Frames each way.
const FRAMES: u64 = 10_000;

/// What testpmd reads its commands from.
const COMMANDS: &str = "/run/testpmd";

/// What it prints when it waits for one.
const PROMPT: &str = "testpmd> ";

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
        let testpmd = start(bed)?;
        command(bed, &testpmd, "show port info all")?;
        command(bed, &testpmd, "start")?;
        for way in [Way::AToB, Way::BToA] {
            let receiver = way.receiver(bed)?;
            let sent = way.sender(bed).rate(5000).following(&receiver, 256).send(FRAMES)?;
            let received = receiver.finish(QUIET)?;
            assert_eq!(
                (sent.refused, received.frames, received.corrupt, received.duplicates),
                (0, FRAMES, 0, 0),
                "{way:?}"
            );
            let (destination, source) = way.addresses(bed);
            assert_eq!(received.destinations.into_iter().collect::<Vec<_>>(), [destination]);
            assert_eq!(received.sources.into_iter().collect::<Vec<_>>(), [source]);
        }
        command(bed, &testpmd, "stop")?;
        command(bed, &testpmd, "show port stats all")?;
        bed.guest.sh(&format!("echo quit >{COMMANDS}"))?;
        assert_eq!(bed.guest.wait(&testpmd, START_TIMEOUT)?, 0);
        let log = bed.guest.log(&testpmd)?;
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

/// Starts it on both VFs, on two threads of which one waits for commands.
fn start(bed: &Bench) -> Result<Process> {
    let (a, b) = (&bed.a, &bed.b);
    let process = bed.guest.spawn(&format!(
        "mkfifo {COMMANDS}; exec 3<>{COMMANDS}
         exec /bin/dpdk-testpmd --lcores '(0,1)@0' -n 1 --in-memory -a {} -a {} -- -i --total-num-mbufs=8192 \\
            --rxd=512 --txd=512 --forward-mode=mac --eth-peer=0,{} --eth-peer=1,{} <&3",
        a.vf, b.vf, a.tap.mac, b.tap.mac
    ))?;
    bed.guest.wait_log(&process, PROMPT, START_TIMEOUT)?;
    Ok(process)
}

/// Gives a command and waits until it is done. What it printed may come later: its output is no terminal.
fn command(bed: &Bench, process: &Process, line: &str) -> Result<()> {
    let count = format!("grep -o '{PROMPT}' {} | wc -l", process.log);
    let before = bed.guest.sh(&count)?;
    bed.guest.sh(&format!("echo '{line}' >{COMMANDS}"))?;
    bed.guest.wait_until(&format!("[ $({count}) != {before} ]"), START_TIMEOUT)
}

/// The number behind this name in the paragraph with this title. Prompts may stand anywhere in between.
fn number(log: &str, title: &str, name: &str) -> Option<u64> {
    log.split(title).nth(1)?.split(&format!("{name}:")).nth(1)?.split_whitespace().next()?.parse().ok()
}
