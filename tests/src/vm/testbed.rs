//! A [`Bench`] whose VFs are of two PFs of the guest: QEMU's `igb`, which nobody here wrote.

use super::bench::{Bench, Plan};
use super::error::Result;
use super::guest::{Guest, GuestConfig, GuestFile};
use super::net::{Mac, Netns};
use super::qemu::Topology;
use std::ops::Deref;

/// What drives the VFs when the test begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// vfio-pci.
    #[default]
    Vfio,
    /// Nothing.
    Unbound,
    /// Linux's igbvf; each VF is a network interface of the guest.
    Igbvf,
}

/// What a testbed is made of. The default is what l2fwd wants.
#[derive(Debug, Clone)]
pub struct TestbedConfig {
    /// The payload limit of TAP devices and PFs.
    pub mtu: u32,
    /// Hugepages of 2 MiB.
    pub hugepages: u32,
    /// Processors; see [`GuestConfig::processors`].
    pub processors: u32,
    /// What drives the VFs.
    pub binding: Binding,
    /// Whether each VF has an IOMMU group of its own.
    pub topology: Topology,
    /// Whether the guest has the judges' programs; see [`GuestConfig::judges`].
    pub judges: bool,
    /// Programs for the guest.
    pub files: Vec<GuestFile>,
}

impl Default for TestbedConfig {
    fn default() -> TestbedConfig {
        TestbedConfig {
            mtu: 1500,
            hugepages: 128,
            processors: 1,
            binding: Binding::Vfio,
            topology: Topology::Isolated,
            judges: false,
            files: Vec::new(),
        }
    }
}

impl TestbedConfig {
    /// Adds a program: `host` is its path here, `guest` its absolute path there.
    pub fn file(mut self, host: impl Into<std::path::PathBuf>, guest: &str) -> TestbedConfig {
        self.files.push(GuestFile { host: host.into(), guest: guest.to_owned() });
        self
    }
}

/// A booted guest with two PFs, one VF of each between two namespaces.
pub struct Testbed {
    bench: Bench,
    /// The PFs of the first and of the second VF.
    pub pfs: [Pf; 2],
}

/// A PF of the guest.
#[derive(Debug)]
pub struct Pf {
    /// Its PCI address.
    pub address: String,
    /// Its network interface.
    pub netdev: String,
}

impl Pf {
    /// Makes a VF of PF `number` as the configuration says; its PCI address.
    fn set_up(guest: &Guest, number: usize, vf_mac: Mac, config: &TestbedConfig) -> Result<(Pf, String)> {
        let address = format!("0000:{:02x}:00.0", number + 1);
        let netdev = guest.netdev(&address)?;
        let vf = guest.create_vfs(&address, 1)?.remove(0);
        guest.set_vf_mac(&netdev, 0, vf_mac)?;
        if config.mtu != 1500 {
            guest.set_mtu(&netdev, config.mtu)?;
        }
        match config.binding {
            Binding::Vfio => drop(guest.bind_vfio(&vf)?),
            Binding::Unbound => guest.unbind(&vf)?,
            // It came up by itself, before the administrator's address.
            Binding::Igbvf => guest.bind(&vf, "igbvf")?,
        }
        Ok((Pf { address, netdev }, vf))
    }
}

impl Testbed {
    /// Boots and sets up everything; PFs have a carrier when this returns.
    pub fn boot(config: TestbedConfig) -> Result<Testbed> {
        let [a, b] = Plan::both(config.mtu, Netns::create_tap)?;
        let guest = Guest::boot(GuestConfig {
            nics: vec![a.tap.nic(Mac([0x52, 0x54, 0, 0, 0, 1]))?, b.tap.nic(Mac([0x52, 0x54, 0, 0, 0, 2]))?],
            processors: config.processors,
            topology: config.topology,
            judges: config.judges,
            files: config.files.clone(),
            modules: if config.binding == Binding::Igbvf { vec!["igbvf"] } else { vec![] },
            ..GuestConfig::default()
        })?;
        let (pf_a, vf_a) = Pf::set_up(&guest, 0, a.vf_mac, &config)?;
        let (pf_b, vf_b) = Pf::set_up(&guest, 1, b.vf_mac, &config)?;
        guest.hugepages(config.hugepages)?;
        // Making VFs took the links down; both come back side by side.
        guest.wait_carrier(&pf_a.netdev)?;
        guest.wait_carrier(&pf_b.netdev)?;
        let (a, b) = (a.with_vf(&guest, vf_a)?, b.with_vf(&guest, vf_b)?);
        Ok(Testbed { bench: Bench { guest, a, b }, pfs: [pf_a, pf_b] })
    }
}

impl Deref for Testbed {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.bench
    }
}
