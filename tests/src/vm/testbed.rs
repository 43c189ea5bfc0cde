//! A guest with two PFs, one VF of each, and a namespace behind each PF: what a forwarder is tested on.
//!
//! Each side's namespace has a static neighbour that maps the *other* side's IPv4 address to its *own* VF's MAC
//! address, so a packet for the other side arrives at the VF here and nobody asks for addresses. The forwarder must
//! send it out of the other VF, to the MAC address of the other side's TAP device ([`Tap::mac`]).

use super::error::Result;
use super::guest::{Guest, GuestConfig, GuestFile};
use super::net::{Mac, Netns, Tap};
use super::qemu::Topology;
use std::net::Ipv4Addr;

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

/// One side of a testbed: a namespace, its TAP device, the PF behind it and the VF that the forwarder has.
#[derive(Debug)]
pub struct Side {
    /// The network namespace.
    pub namespace: Netns,
    /// Its end of the wire.
    pub tap: Tap,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// The PF's PCI address in the guest.
    pub pf: String,
    /// The PF's network interface in the guest.
    pub pf_netdev: String,
    /// The VF's PCI address in the guest.
    pub vf: String,
    /// The VF's administrative MAC address.
    pub vf_mac: Mac,
    /// The VF's IOMMU group.
    pub group: u32,
}

/// A booted guest between two namespaces.
pub struct Testbed {
    /// The guest. It ends first.
    pub guest: Guest,
    /// The side of eth0.
    pub a: Side,
    /// The side of eth1.
    pub b: Side,
}

/// Everything about a side that is known before the boot.
struct Plan {
    namespace: Netns,
    tap: Tap,
    address: Ipv4Addr,
    vf_mac: Mac,
}

impl Plan {
    fn new(number: u8, mtu: u32) -> Result<Plan> {
        let letter = char::from(b'a' + number);
        let namespace = Netns::new(&letter.to_string())?;
        let tap = namespace.create_tap(&format!("tap{letter}"), Mac([2, 0, 0, 0, 0x7a, number]), mtu)?;
        let address = Ipv4Addr::new(10, 77, 0, 1 + number);
        tap.add_address(address)?;
        Ok(Plan { namespace, tap, address, vf_mac: Mac([2, 0, 0, 0, 0x5f, number]) })
    }

    fn set_up(self, guest: &Guest, number: u8, config: &TestbedConfig) -> Result<Side> {
        let pf = format!("0000:{:02x}:00.0", number + 1);
        let pf_netdev = guest.netdev(&pf)?;
        let vf = guest.create_vfs(&pf, 1)?.remove(0);
        guest.set_vf_mac(&pf_netdev, 0, self.vf_mac)?;
        if config.mtu != 1500 {
            guest.set_mtu(&pf_netdev, config.mtu)?;
        }
        match config.binding {
            Binding::Vfio => drop(guest.bind_vfio(&vf)?),
            Binding::Unbound => guest.unbind(&vf)?,
            // It came up by itself, before the administrator's address.
            Binding::Igbvf => guest.bind(&vf, "igbvf")?,
        }
        let group = guest.iommu_group(&vf)?;
        let Plan { namespace, tap, address, vf_mac } = self;
        Ok(Side { namespace, tap, address, pf, pf_netdev, vf, vf_mac, group })
    }
}

impl Testbed {
    /// Boots and sets up everything; PFs have a carrier when this returns.
    pub fn boot(config: TestbedConfig) -> Result<Testbed> {
        let (a, b) = (Plan::new(0, config.mtu)?, Plan::new(1, config.mtu)?);
        a.tap.add_neighbour(b.address, a.vf_mac)?;
        b.tap.add_neighbour(a.address, b.vf_mac)?;
        let guest = Guest::boot(GuestConfig {
            nics: vec![a.tap.nic(Mac([0x52, 0x54, 0, 0, 0, 1]))?, b.tap.nic(Mac([0x52, 0x54, 0, 0, 0, 2]))?],
            processors: config.processors,
            topology: config.topology,
            files: config.files.clone(),
            igbvf: config.binding == Binding::Igbvf,
            ..GuestConfig::default()
        })?;
        let (a, b) = (a.set_up(&guest, 0, &config)?, b.set_up(&guest, 1, &config)?);
        guest.hugepages(config.hugepages)?;
        // Making VFs took the links down; both come back side by side.
        guest.wait_carrier(&a.pf_netdev)?;
        guest.wait_carrier(&b.pf_netdev)?;
        Ok(Testbed { guest, a, b })
    }
}
