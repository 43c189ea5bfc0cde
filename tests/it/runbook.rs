//! The README's way to hardware, all of hugepages.md, and deploy/README.md as far as it needs no cluster, run as a reader
//! would: in a guest, block after block, each compared with what its document says that one should see.

use std::time::Duration;

use vfring_tests::build::{complete_example, root, vfring};
use vfring_tests::documents::{Block, agrees, blocks, read};
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
    assert!(read("hugepages.md").contains(&format!("```text\n{KERNEL_ARGUMENTS}\n```")));
    let guest = Guest::boot(GuestConfig {
        nics: vec![Nic::unconnected(Mac([0x52, 0x54, 0, 0, 0, 1]))],
        memory_mib: MEMORY_MIB,
        // Where cargo puts it, seen from the root of the tree: the commands of the documents work as they stand.
        files: vec![GuestFile { host: complete_example("l2fwd")?, guest: "/target/release/examples/l2fwd".into() }],
        kernel_arguments: KERNEL_ARGUMENTS.into(),
        ..GuestConfig::default()
    })?;
    guest.sh(PRELUDE)?;
    run(&guest, &blocks)
}

#[test]
fn a_bare_host_becomes_one_for_pods_as_written() -> Result<()> {
    let blocks = blocks("deploy/README.md");
    let mut files = vec![GuestFile { host: vfring()?, guest: "/bin/vfring".into() }];
    for name in ["host.toml", "configmap.yaml"] {
        files.push(GuestFile { host: root().join("deploy").join(name), guest: format!("/deploy/{name}") });
    }
    let guest = Guest::boot(GuestConfig {
        nics: [1, 2].map(|n| Nic::unconnected(Mac([0x52, 0x54, 0, 0, 0, n]))).into(),
        files,
        kernel_arguments: "hugepages=64".into(),
        ..GuestConfig::default()
    })?;
    run(&guest, &blocks)
}

/// Runs the blocks that are for a guest.
fn run(guest: &Guest, blocks: &[Block]) -> Result<()> {
    let blocks: Vec<&Block> = blocks.iter().filter(|block| block.run == "guest").collect();
    assert!(blocks.len() > 6, "the marks are gone: {blocks:?}");
    let mut wrong = Vec::new();
    for block in blocks {
        let output = guest.run(&format!("cd /\n{}", block.script), BLOCK_TIMEOUT)?;
        println!("{}:\n{}{}", block.place, block.script, output.text());
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
