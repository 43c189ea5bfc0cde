//! A guest between two network namespaces, with one VF towards each: what a forwarder is tested on.
//!
//! Each side's namespace has a static neighbour that maps the *other* side's IPv4 address to its *own* VF's MAC
//! address, so a packet for the other side arrives at the VF here and nobody asks for addresses. The forwarder must
//! send it out of the other VF, to the MAC address of the other side's TAP device ([`Tap::mac`]).
//!
//! What is behind a VF differs: a PF of the guest ([`Testbed`](super::Testbed)), or a model in another process
//! ([`Models`](super::Models)).

use super::error::Result;
use super::guest::Guest;
use super::net::{Mac, Netns, Tap};
use std::net::Ipv4Addr;

/// A booted guest between two namespaces.
pub struct Bench {
    /// The guest. It ends first.
    pub guest: Guest,
    /// The side of the first VF.
    pub a: Side,
    /// The side of the second VF.
    pub b: Side,
}

/// One side: a namespace, its TAP device and the VF that the forwarder has there.
#[derive(Debug)]
pub struct Side {
    /// The network namespace.
    pub namespace: Netns,
    /// Its end of the wire.
    pub tap: Tap,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// The VF's PCI address in the guest.
    pub vf: String,
    /// The VF's administrative MAC address.
    pub vf_mac: Mac,
    /// The VF's IOMMU group.
    pub group: u32,
}

/// Everything about a side that is known before the boot.
pub(super) struct Plan {
    pub(super) namespace: Netns,
    pub(super) tap: Tap,
    pub(super) address: Ipv4Addr,
    pub(super) vf_mac: Mac,
}

impl Plan {
    /// Both sides. `create` makes a TAP device of this name, address and MTU in a namespace.
    pub(super) fn both(mtu: u32, create: fn(&Netns, &str, Mac, u32) -> Result<Tap>) -> Result<[Plan; 2]> {
        let plan = |number: u8| {
            let letter = char::from(b'a' + number);
            let namespace = Netns::new(&letter.to_string())?;
            let tap = create(&namespace, &format!("tap{letter}"), Mac([2, 0, 0, 0, 0x7a, number]), mtu)?;
            let address = Ipv4Addr::new(10, 77, 0, 1 + number);
            tap.add_address(address)?;
            Ok(Plan { namespace, tap, address, vf_mac: Mac([2, 0, 0, 0, 0x5f, number]) })
        };
        let (a, b) = (plan(0)?, plan(1)?);
        a.tap.add_neighbour(b.address, a.vf_mac)?;
        b.tap.add_neighbour(a.address, b.vf_mac)?;
        Ok([a, b])
    }

    /// The side, when its VF is there.
    pub(super) fn with_vf(self, guest: &Guest, vf: String) -> Result<Side> {
        let group = guest.iommu_group(&vf)?;
        let Plan { namespace, tap, address, vf_mac } = self;
        Ok(Side { namespace, tap, address, vf, vf_mac, group })
    }
}
