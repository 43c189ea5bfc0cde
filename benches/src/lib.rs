//! A port on a model in stepped time, with the driver's side and the device's side as separate calls, so that only the
//! driver's is measured.
//!
//! One round is half a ring of packets: the device fills it, the driver works through it in bursts, the device sends
//! what the driver queued. The doorbells are plain stores to memory, as in the peer figures of DPDK: the cost of real
//! MMIO is absent on both sides.
#![deny(unsafe_code)]

#[allow(unsafe_code, reason = "asks the kernel")]
pub mod cpu;
pub mod driver;

use std::time::Duration;

use vfring::drivers::sim::{AvfOptions, AvfPart, IgbOptions, IxgbeOptions, PortId, World};
use vfring::{Control, Mempool, Port, PortConfig, PortStats, Result, Started, widest_vectors};

use driver::{Driver, swap_macs};

/// Descriptors of each ring.
pub const RING: u16 = 512;
/// Packets of a round.
pub const ROUND: usize = RING as usize / 2;
/// The burst sizes that are reported.
pub const BURSTS: [usize; 5] = [1, 4, 8, 32, 64];
/// The burst size that everything is reported for.
pub const BURST: usize = 32;
/// The loops that queues may use, by name, with the bits of their vectors.
pub const KERNELS: [(&str, u16); 3] = [("portable", 0), ("AVX2", 256), ("AVX-512", 512)];

/// Those of [`KERNELS`] that this CPU has.
pub fn kernels() -> impl Iterator<Item = (&'static str, u16)> {
    KERNELS.into_iter().filter(|(_, bits)| *bits <= widest_vectors())
}

/// A family of VFs, by what its driver does differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 82576 and I350.
    Igbvf,
    /// 82599 to E610.
    Ixgbevf,
    /// XL710 and others, with legacy receive descriptors.
    IavfLegacy,
    /// E810, with flex receive descriptors.
    IavfFlex,
}

impl Family {
    /// Every family, with its name in reports.
    pub const ALL: [(&'static str, Family); 4] = [
        ("igbvf", Family::Igbvf),
        ("ixgbevf", Family::Ixgbevf),
        ("iavf-legacy", Family::IavfLegacy),
        ("iavf-flex", Family::IavfFlex),
    ];

    /// Adds a VF of the family.
    pub fn add_to(self, world: &World) -> PortId {
        match self {
            Family::Igbvf => world.add_igbvf(IgbOptions::default()),
            Family::Ixgbevf => world.add_ixgbevf(IxgbeOptions::default()),
            Family::IavfLegacy => world.add_iavf(AvfOptions::new(AvfPart::Xl710)),
            Family::IavfFlex => world.add_iavf(AvfOptions::new(AvfPart::E810)),
        }
    }
}

/// What is opened, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The VF.
    pub family: Family,
    /// Bits of the widest vectors, see [`KERNELS`].
    pub vector_bits: u16,
    /// Metadata on receive, and offloads on transmit.
    pub metadata: bool,
}

impl Shape {
    /// Every shape that this CPU can take, with its name in reports.
    pub fn all() -> impl Iterator<Item = (String, Shape)> {
        Family::ALL.into_iter().flat_map(|(name, family)| {
            kernels().flat_map(move |(kernel, vector_bits)| {
                [("", false), ("+metadata", true)].map(|(suffix, metadata)| {
                    (format!("{name} {kernel}{suffix}"), Shape { family, vector_bits, metadata })
                })
            })
        })
    }

    /// What a port of this shape is opened with.
    pub fn config(self, ring: u16) -> PortConfig {
        let config = PortConfig::new().rings(ring, ring).vector_bits(self.vector_bits);
        config.rx_info(self.metadata).tx_offloads(self.metadata)
    }
}

/// What the driver does in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Receive, and give the buffers back in bulk.
    Rx,
    /// Send packets that are there; reclaim included.
    Tx,
    /// Receive and send.
    RxTx,
    /// Receive, swap the MAC addresses (which touches every packet), send.
    RxSwapTx,
    /// As `RxTx`, both rings in one call.
    Join,
    /// As `RxSwapTx`, likewise.
    JoinSwap,
    /// Poll a ring with nothing in it.
    Empty,
}

impl Path {
    /// Every path, with its name in reports.
    pub const ALL: [(&'static str, Path); 7] = [
        ("rx", Path::Rx),
        ("tx", Path::Tx),
        ("rx+tx", Path::RxTx),
        ("rx+swap+tx", Path::RxSwapTx),
        ("joined", Path::Join),
        ("joined+swap", Path::JoinSwap),
        ("empty", Path::Empty),
    ];
}

/// A started port on a model, and its driver.
pub struct Rig {
    world: World,
    port: PortId,
    control: Control,
    driver: Driver,
    pool: Mempool,
    burst: usize,
}

impl Rig {
    /// Opens and starts a port.
    ///
    /// # Errors
    /// What opening and starting a port returns.
    pub fn new(burst: usize, shape: Shape) -> Result<Rig> {
        let world = World::stepped(1);
        let port = shape.family.add_to(&world);
        world.bench_relax();
        let opened = Port::open(&world.spec(port), shape.config(RING))?;
        let pool = Mempool::builder().buffers(4096).on(&[&opened])?;
        let Started { control, mut rx, mut tx } = opened.start(&pool)?;
        let driver = Driver::new(rx.remove(0), tx.remove(0), pool.cache());
        Ok(Rig { world, port, control, driver, pool, burst })
    }

    /// The device's side before a round, and packets to send where the path has to find them.
    pub fn prepare(&mut self, path: Path) {
        self.driver.ready(if path == Path::Tx { ROUND } else { 0 }, self.burst);
        if !matches!(path, Path::Tx | Path::Empty) {
            let filled = self.world.bench_fill_rx(self.port, 0, ROUND);
            assert_eq!(filled, ROUND, "the ring takes a round");
        }
    }

    /// The driver's side: the measured part. Returns the packets it handled (polls, for the empty path).
    pub fn drive(&mut self, path: Path) -> usize {
        match path {
            Path::Rx => self.driver.receive(ROUND),
            Path::Tx => self.driver.send(),
            Path::RxTx => self.driver.forward(ROUND, |_| ()),
            Path::RxSwapTx => self.driver.forward(ROUND, |packet| swap_macs(packet)),
            Path::Join => self.driver.join(ROUND, |_| ()),
            Path::JoinSwap => self.driver.join(ROUND, |frame| swap_macs(frame)),
            Path::Empty => self.driver.poll_empty(ROUND),
        }
    }

    /// The device's side after a round.
    pub fn finish(&mut self, path: Path) {
        if path != Path::Empty && path != Path::Rx {
            let sent = self.world.bench_complete_tx(self.port, 0);
            assert_eq!(sent, ROUND, "every frame reached the device");
        }
    }

    /// Stops the port; every buffer must be back. Returns what the queues counted.
    ///
    /// # Errors
    /// What stopping returns.
    pub fn close(self) -> Result<PortStats> {
        let Rig { mut control, driver, world, pool, .. } = self;
        drop(driver);
        let stats = control.stats();
        control.stop(Duration::from_secs(1))?;
        assert_eq!(pool.available(), pool.capacity(), "every buffer came back");
        assert_eq!(world.violations(), Vec::<String>::new());
        Ok(stats)
    }
}
