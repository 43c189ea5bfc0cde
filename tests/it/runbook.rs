//! The README's way to hardware and all of hugepages.md, run as a reader would: in one guest, block after block, each
//! compared with what its document says that one should see.

use std::time::Duration;

use vfring_tests::build::static_example;
use vfring_tests::documents::{agrees, blocks, read};
use vfring_tests::vm::{Guest, GuestConfig, GuestFile, Mac, Nic, Result};

/// What hugepages.md has its reader add to the kernel's command line.
const KERNEL_ARGUMENTS: &str = "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=64";
/// The most that fits below 4 GiB (see `GuestConfig`), and the least that has a gigabyte in one piece.
const MEMORY_MIB: u32 = 2800;
/// What a block may take; none does more than start l2fwd three times.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// What a stock system has done by the time that somebody logs in, and busybox has not: cgroups with the controller of
/// hugepages.
const PRELUDE: &str = "mkdir -p /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && \
                       echo +hugetlb >/sys/fs/cgroup/cgroup.subtree_control";

#[test]
fn every_block_prints_what_its_document_says() -> Result<()> {
    let blocks = [blocks("README.md"), blocks("hugepages.md")].concat();
    let blocks: Vec<_> = blocks.into_iter().filter(|block| block.run == "guest").collect();
    assert!(blocks.len() > 10, "the marks are gone: {blocks:?}");
    assert!(read("hugepages.md").contains(&format!("```text\n{KERNEL_ARGUMENTS}\n```")));

    let guest = Guest::boot(GuestConfig {
        nics: vec![Nic::unconnected(Mac([0x52, 0x54, 0, 0, 0, 1]))],
        memory_mib: MEMORY_MIB,
        // Where cargo puts it, seen from the root of the tree: the commands of the documents work as they stand.
        files: vec![GuestFile { host: static_example("l2fwd")?, guest: "/target/release/examples/l2fwd".into() }],
        kernel_arguments: KERNEL_ARGUMENTS.into(),
        ..GuestConfig::default()
    })?;
    guest.sh(PRELUDE)?;
    let mut wrong = Vec::new();
    for block in &blocks {
        let output = guest.run(&format!("cd /\n{}", block.script), BLOCK_TIMEOUT)?;
        if !agrees(&block.expected, &output.text()) {
            wrong.push(format!(
                "{}:\n{}expected:\n{}seen:\n{}",
                block.place,
                block.script,
                block.expected,
                output.text()
            ));
        }
    }
    // All of them: one wrong block often explains the next.
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), guest.evidence());
    Ok(())
}
