//! A port on a model in stepped time, with the driver's side and the device's side as separate calls, so that only the
//! driver's is measured.
//!
//! One round is half a ring of packets: the device fills it, the driver works through it in bursts, the device sends
//! what the driver queued. The doorbells are plain stores to memory, as in the peer figures of DPDK: the cost of real
//! MMIO is absent on both sides.
#![forbid(unsafe_code)]

use std::time::Duration;

use vfring::drivers::sim::{AvfOptions, AvfPart, IgbOptions, PortId, World};
use vfring::{AnyRx, AnyTx, Burst, Control, Mempool, PacketBuf, PoolCache, Port, PortConfig, Result, Started};

/// Descriptors of each ring.
pub const RING: u16 = 512;
/// Packets of a round.
pub const ROUND: usize = RING as usize / 2;
/// The burst sizes that are reported.
pub const BURSTS: [usize; 4] = [1, 8, 32, 64];

/// A started port and what its thread needs.
pub struct Rig {
    world: World,
    port: PortId,
    control: Control,
    rx: AnyRx,
    tx: AnyTx,
    cache: PoolCache,
    burst: Burst,
    /// Packets that wait to be sent, for the transmit-only path.
    stock: Burst,
}

/// How the queues are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// As they are by default.
    Plain,
    /// Without the CPU's vector instructions.
    Portable,
    /// With metadata on receive and offloads on transmit.
    Metadata,
    /// As by default, of iavf with legacy receive descriptors; igbvf in all others.
    IavfLegacy,
    /// As by default, of iavf with flex receive descriptors.
    IavfFlex,
}

impl Kind {
    /// Every kind, with its name in reports.
    pub const ALL: [(&'static str, Kind); 5] = [
        ("plain", Kind::Plain),
        ("portable", Kind::Portable),
        ("metadata", Kind::Metadata),
        ("iavf-legacy", Kind::IavfLegacy),
        ("iavf-flex", Kind::IavfFlex),
    ];
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
    /// Poll a ring with nothing in it.
    Empty,
}

impl Path {
    /// Every path, with its name in reports.
    pub const ALL: [(&'static str, Path); 5] = [
        ("rx", Path::Rx),
        ("tx", Path::Tx),
        ("rx+tx", Path::RxTx),
        ("rx+swap+tx", Path::RxSwapTx),
        ("empty", Path::Empty),
    ];
}

impl Rig {
    /// Opens and starts a port.
    ///
    /// # Errors
    /// What opening and starting a port returns.
    pub fn new(burst: usize, kind: Kind) -> Result<Rig> {
        let world = World::stepped(1);
        let port = match kind {
            Kind::Plain | Kind::Portable | Kind::Metadata => world.add_igbvf(IgbOptions::default()),
            Kind::IavfLegacy => world.add_iavf(AvfOptions::new(AvfPart::Xl710)),
            Kind::IavfFlex => world.add_iavf(AvfOptions::new(AvfPart::E810)),
        };
        world.bench_relax();
        let metadata = kind == Kind::Metadata;
        let config = PortConfig::new().rings(RING, RING).rx_info(metadata).tx_offloads(metadata);
        let config = config.vector(kind != Kind::Portable);
        let opened = Port::open(&world.spec(port), config)?;
        let pool = Mempool::builder().buffers(4096).on(&[&opened])?;
        let Started { control, mut rx, mut tx } = opened.start(&pool)?;
        let mut rig = Rig {
            world,
            port,
            control,
            rx: rx.remove(0),
            tx: tx.remove(0),
            cache: pool.cache(),
            burst: Burst::with_limit(burst)?,
            stock: Burst::with_limit(ROUND)?,
        };
        // The first burst of each queue arms its ring.
        rig.drive_rx(0);
        rig.drive_rx_tx(0, |_| ());
        Ok(rig)
    }

    /// The device's side before a round.
    pub fn prepare(&mut self, path: Path) {
        match path {
            Path::Tx => {
                self.cache.alloc(ROUND, &mut self.stock);
                for packet in &mut self.stock {
                    if let Some(data) = packet.append(60) {
                        data.fill(0x5a);
                    }
                }
            }
            Path::Empty => {}
            Path::Rx | Path::RxTx | Path::RxSwapTx => {
                let filled = self.world.bench_fill_rx(self.port, 0, ROUND);
                assert_eq!(filled, ROUND, "the ring takes a round");
            }
        }
    }

    /// The driver's side: the measured part. Returns the packets it handled (polls, for the empty path).
    pub fn drive(&mut self, path: Path) -> usize {
        match path {
            Path::Rx => self.drive_rx(ROUND),
            Path::Tx => self.drive_tx(),
            Path::RxTx => self.drive_rx_tx(ROUND, |_| ()),
            Path::RxSwapTx => self.drive_rx_tx(ROUND, |packet| {
                if let Some(addresses) = packet.first_chunk_mut::<12>() {
                    let (destination, source) = addresses.split_at_mut(6);
                    destination.swap_with_slice(source);
                }
            }),
            Path::Empty => {
                for _ in 0..ROUND {
                    self.rx.burst(&mut self.cache, &mut self.burst);
                }
                ROUND
            }
        }
    }

    fn drive_rx(&mut self, packets: usize) -> usize {
        let mut done = 0;
        loop {
            done += self.rx.burst(&mut self.cache, &mut self.burst);
            self.cache.free(&mut self.burst);
            if done >= packets {
                return done;
            }
        }
    }

    fn drive_tx(&mut self) -> usize {
        let mut done = 0;
        while !self.stock.is_empty() {
            while !self.burst.is_full() {
                let Some(packet) = self.stock.pop() else { break };
                if self.burst.push(packet).is_err() {
                    break;
                }
            }
            done += self.tx.burst(&mut self.cache, &mut self.burst);
        }
        done
    }

    #[inline(always)]
    fn drive_rx_tx(&mut self, packets: usize, mut act: impl FnMut(&mut PacketBuf)) -> usize {
        let mut done = 0;
        loop {
            self.rx.burst(&mut self.cache, &mut self.burst);
            for packet in &mut self.burst {
                act(packet);
            }
            done += self.tx.burst(&mut self.cache, &mut self.burst);
            if done >= packets {
                return done;
            }
        }
    }

    /// The device's side after a round.
    pub fn finish(&mut self, path: Path) {
        if path != Path::Empty && path != Path::Rx {
            let sent = self.world.bench_complete_tx(self.port, 0);
            assert_eq!(sent, ROUND, "every frame reached the device");
        }
    }

    /// Stops the port; every buffer must be back.
    ///
    /// # Errors
    /// What stopping returns.
    pub fn close(self) -> Result<()> {
        let Rig { control, rx, tx, cache, burst, stock, world, .. } = self;
        drop((rx, tx, burst, stock, cache));
        control.stop(Duration::from_secs(1))?;
        assert_eq!(world.violations(), Vec::<String>::new());
        Ok(())
    }
}
