//! l2fwd on VFs of QEMU's igb, which nobody here wrote, through the guest kernel's own vfio-pci and an IOMMU, between
//! two namespaces with real TCP stacks.

use std::time::Duration;

use vfring_tests::build::static_example;
use vfring_tests::vm::{Process, Result, Testbed, TestbedConfig};

const SECOND: Duration = Duration::from_secs(1);
const L2FWD: &str = "/bin/l2fwd";

fn bed(config: TestbedConfig) -> Result<Testbed> {
    Testbed::boot(config.file(static_example("l2fwd")?, L2FWD))
}

/// The command line that forwards between both VFs, with the MAC addresses of the far ends.
fn command(bed: &Testbed, options: &str) -> String {
    format!(
        "{L2FWD} --port {} --port {} --peer-mac 0,{} --peer-mac 1,{} {options}",
        bed.a.vf, bed.b.vf, bed.a.tap.mac, bed.b.tap.mac
    )
}

fn start(bed: &Testbed, options: &str) -> Result<Process> {
    let process = bed.guest.spawn(&format!("exec {}", command(bed, options)))?;
    bed.guest.wait_log(&process, "Ctrl-C stops", 30 * SECOND)?;
    Ok(process)
}

#[test]
fn ping_and_tcp_flow_through_l2fwd() -> Result<()> {
    let bed = bed(TestbedConfig::default())?;
    let process = start(&bed, "--stats-period 1")?;
    let report = bed.a.namespace.ping(bed.b.address, 10, 56)?;
    println!("{report:?}");
    println!("{}", bed.guest.log(&process)?);
    assert_eq!(report.received, 10, "{report:?}");
    let tcp = bed.a.namespace.tcp_to(&bed.b.namespace, bed.b.address, 5 * SECOND)?;
    println!("{tcp:?}");
    bed.guest.signal(&process, "INT")?;
    let status = bed.guest.wait(&process, 20 * SECOND)?;
    println!("{}", bed.guest.log(&process)?);
    assert_eq!(status, 0);
    Ok(())
}
