//! A test bed on modelled ports: stepped worlds, stations (a port that is open and started, with pool and cache), and
//! frames.
//!
//! Used by the conformance and fault tests. What always holds: a [`Station`] that is [finished](Station::finish) has
//! asserted that every buffer came home and that the model saw no broken rule.

use std::time::Duration;

use vfring::drivers::sim::{PortId, World};
use vfring::{
    AnyRx, AnyTx, Burst, Control, MacAddr, Mempool, PacketBuf, PoolCache, Port, PortConfig, PortState, PortStats,
    RxInfo, Started, TxInfo,
};

pub use crate::part::*;

/// How long a stop waits for queues, in the world's time.
pub const DEADLINE: Duration = Duration::from_millis(100);
/// Where test frames come from.
pub const PEER: MacAddr = MacAddr([0x02, 0x99, 0, 0, 0, 0x99]);
/// Ethertype of frames that are no IP: IEEE 802 local experimental 1.
const EXPERIMENTAL: [u8; 2] = [0x88, 0xb5];
/// Rounds after which a loop that waits for a model gives up.
const ROUNDS: usize = 20_000;

/// The seed of a test: `VFRING_SEED`, or one that the name decides. Printed, so that a failure can be repeated.
pub fn seed(test: &str) -> u64 {
    let named = test.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let seed = std::env::var("VFRING_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(named);
    println!("{test}: seed {seed} (VFRING_SEED={seed} repeats it)");
    seed
}

/// A stepped world for a test.
pub fn world(test: &str) -> World {
    World::stepped(seed(test))
}

/// A splitmix64 generator.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }
}

/// A VF of this part whose PF assigns 02:00:00:00:00:`last`.
pub fn options(part: Part, last: u8) -> Vf {
    Vf { part, mac: Some(mac(last)), mac_fixed: false, rss: false, trusted: false, pf_promiscuous: false }
}

/// 02:00:00:00:00:`last`.
pub fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, last])
}

/// A frame of `len` bytes (14 or more, without FCS) whose contents `n` decides.
pub fn frame(to: MacAddr, from: MacAddr, len: usize, n: u64) -> Vec<u8> {
    let mut frame = Vec::with_capacity(len);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&EXPERIMENTAL);
    let mut rng = Rng(n);
    while frame.len() < len {
        let bytes = rng.number().to_le_bytes();
        let room = (len - frame.len()).min(bytes.len());
        frame.extend_from_slice(&bytes[..room]);
    }
    frame
}

/// The bytes of a packet, all segments.
pub fn bytes(packet: &PacketBuf) -> Vec<u8> {
    packet.segments().flatten().copied().collect()
}

/// Panics with every rule that a driver broke in this world.
pub fn assert_no_violations(world: &World) {
    let violations = world.violations();
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n\n"));
}

/// The text of an error, which must be one line and not empty.
pub fn one_line(error: &vfring::Error) -> String {
    let text = error.to_string();
    assert!(!text.trim().is_empty() && !text.contains('\n'), "an error is one line: {text:?}");
    text
}

/// A packet as a test looks at it.
#[derive(Clone, Debug)]
pub struct Received {
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// What the NIC found.
    pub info: RxInfo,
    /// The queue that it came through.
    pub queue: u16,
    /// The buffers that it spanned.
    pub segments: usize,
}

/// A port that is open and started.
pub struct Station {
    /// The world that it lives in.
    pub world: World,
    /// Its number there.
    pub id: PortId,
    /// Its pool.
    pub pool: Mempool,
    /// Its control.
    pub control: Control,
    /// Receive queues; tests may take some out.
    pub rx: Vec<AnyRx>,
    /// Transmit queues; tests may take some out.
    pub tx: Vec<AnyTx>,
    /// The one cache of the test's thread.
    pub cache: PoolCache,
    rings: (usize, usize),
}

impl Station {
    /// Adds a VF to the world, opens it, makes a pool of what it needs and some more, and starts it.
    pub fn new(world: &World, vf: Vf, config: PortConfig) -> Station {
        Station::with_room(world, vf, config, 2048)
    }

    /// As [`new`](Self::new), with this data room of the pool.
    pub fn with_room(world: &World, vf: Vf, config: PortConfig, room: u16) -> Station {
        let id = vf.add_to(world);
        let port = Port::open(&world.spec(id), config).expect("open");
        let pool = pool_for(&port, room);
        Station::start(world, id, port, &pool)
    }

    /// Starts an open port and polls every queue once, so that rings are armed.
    pub fn start(world: &World, id: PortId, port: Port, pool: &Mempool) -> Station {
        Station::try_start(world, id, port, pool).expect("start")
    }

    /// As [`start`](Self::start).
    ///
    /// # Errors
    /// Those of `Port::start`.
    pub fn try_start(world: &World, id: PortId, port: Port, pool: &Mempool) -> vfring::Result<Station> {
        let before = pool.available();
        let Started { control, rx, tx } = port.start(pool)?;
        let mut station = Station {
            world: world.clone(),
            id,
            pool: pool.clone(),
            control,
            rx,
            tx,
            cache: pool.cache(),
            rings: ((before - pool.available()) as usize, 0),
        };
        station.rings.1 = station.tx.len() * 4096;
        station.poll();
        Ok(station)
    }

    /// The address in force.
    pub fn mac(&self) -> MacAddr {
        self.control.mac()
    }

    /// Polls every queue once without expecting anything, and lets the model work before and after.
    pub fn poll(&mut self) {
        self.world.step();
        let mut burst = Burst::new();
        for rx in &mut self.rx {
            rx.burst(&mut self.cache, &mut burst);
        }
        assert!(burst.is_empty(), "a packet that nobody expected: {burst:?}");
        self.reclaim();
        self.world.step();
    }

    /// Services and polls, a millisecond a round, until the port runs again; packets that come meanwhile are dropped.
    pub fn recover(&mut self, within: Duration) {
        for _ in 0..within.as_millis() {
            self.control.service();
            let mut burst = Burst::with_limit(256).unwrap();
            for rx in &mut self.rx {
                rx.burst(&mut self.cache, &mut burst);
            }
            self.cache.free(&mut burst);
            self.reclaim();
            self.world.advance(Duration::from_millis(1));
            if self.control.state() == PortState::Running && self.control.waiting_for().is_empty() {
                return self.poll();
            }
        }
        let (state, waiting, trouble) = (self.control.state(), self.control.waiting_for(), self.control.trouble());
        panic!("not running after {within:?}: {state:?}, waiting for {waiting:?}, {trouble:?}");
    }

    /// An empty burst on every transmit queue.
    pub fn reclaim(&mut self) {
        let mut none = Burst::new();
        for tx in &mut self.tx {
            tx.burst(&mut self.cache, &mut none);
        }
    }

    /// Services control and polls, `times` times, 1 ms apart.
    pub fn run(&mut self, times: usize) {
        for _ in 0..times {
            self.control.service();
            self.poll();
            self.world.advance(Duration::from_millis(1));
        }
    }

    /// A packet with these bytes, over as many buffers as it takes.
    pub fn packet(&mut self, bytes: &[u8]) -> PacketBuf {
        packet(&mut self.cache, bytes, usize::from(self.pool.data_room()))
    }

    /// Receives everything there is, in bursts of at most `limit`.
    pub fn receive_by(&mut self, limit: usize) -> Vec<Received> {
        let mut out = Vec::new();
        let mut burst = Burst::with_limit(limit).expect("a burst");
        self.world.step();
        for queue in 0..self.rx.len() {
            loop {
                let got = self.rx[queue].burst(&mut self.cache, &mut burst);
                assert_eq!(got, burst.len());
                let number = self.rx[queue].number();
                for (i, packet) in burst.iter().enumerate() {
                    let (info, segments) = (burst.rx_info(i), packet.segment_count());
                    let received = Received { bytes: bytes(packet), info, queue: number, segments };
                    assert_eq!(packet.total_len(), received.bytes.len());
                    out.push(received);
                }
                self.cache.free(&mut burst);
                if got == 0 {
                    break;
                }
            }
        }
        self.world.step();
        out
    }

    /// Receives everything there is.
    pub fn receive(&mut self) -> Vec<Received> {
        self.receive_by(32)
    }

    /// Injects a frame and receives what came of it.
    pub fn deliver(&mut self, frame: &[u8]) -> Option<Received> {
        let taken = self.world.inject(self.id, frame);
        let mut got = self.receive();
        assert_eq!(got.len(), usize::from(taken), "one packet for a frame that was taken, none otherwise");
        got.pop()
    }

    /// True when a frame to this address, with this tag, passes the PF's filters and comes out of a queue.
    pub fn passes(&mut self, to: MacAddr, vid: Option<u16>) -> bool {
        let mut bytes = frame(to, PEER, 60, 7);
        if let Some(vid) = vid {
            bytes.splice(12..12, [0x81, 0x00, (vid >> 8) as u8, vid as u8]);
        }
        self.deliver(&bytes).is_some()
    }

    /// Sends frames on transmit queue `queue` in bursts of at most `limit`, and waits until the ring has all of them.
    pub fn send_by(&mut self, queue: usize, frames: &[Vec<u8>], limit: usize) {
        let mut burst = Burst::with_limit(limit).expect("a burst");
        let mut left = frames.iter();
        for _ in 0..ROUNDS {
            while !burst.is_full() {
                let Some(bytes) = left.next() else { break };
                let packet = packet(&mut self.cache, bytes, usize::from(self.pool.data_room()));
                burst.push(packet).expect("room");
            }
            if burst.is_empty() {
                return;
            }
            self.tx[queue].burst(&mut self.cache, &mut burst);
            self.world.step();
        }
        panic!("{} packets never got into the ring", burst.len());
    }

    /// Sends one frame with what is asked of the NIC and returns what left on the wire.
    pub fn send_with(&mut self, bytes: &[u8], info: TxInfo) -> Vec<Vec<u8>> {
        let packet = self.packet(bytes);
        let mut burst = Burst::with_limit(1).expect("a burst");
        burst.push(packet).expect("room");
        burst.set_tx_info(0, info);
        self.tx[0].burst(&mut self.cache, &mut burst);
        assert!(burst.is_empty(), "an idle ring takes or refuses a packet");
        self.world.step();
        self.world.take_sent(self.id)
    }

    /// Counters.
    pub fn stats(&mut self) -> PortStats {
        self.control.stats()
    }

    /// Asserts that every buffer is where it may be, while the port runs and `held` buffers are in the test's hands:
    /// free, in the cache, in the receive rings, and the rest, which transmit rings have.
    pub fn assert_books(&self, held: usize) {
        let known = self.pool.available() as usize + self.cache.len() + self.rings.0 + held;
        let capacity = self.pool.capacity() as usize;
        assert!(known <= capacity, "{known} of {capacity} buffers: some are twice somewhere");
        let sending = capacity - known;
        assert!(sending <= self.rings.1, "{sending} buffers are nowhere");
    }

    /// Drops the queues and stops the port; the cache's buffers go home.
    ///
    /// # Errors
    /// Those of `Control::stop`.
    pub fn stop(self) -> vfring::Result<Port> {
        let Station { control, rx, tx, cache, .. } = self;
        drop((rx, tx, cache));
        control.stop(DEADLINE)
    }

    /// Stops and closes the port, and asserts that every buffer is home and that no rule was broken.
    pub fn finish(self) {
        let (world, pool) = (self.world.clone(), self.pool.clone());
        self.assert_books(0);
        drop(self.stop().expect("stop"));
        assert_home(&pool);
        assert_no_violations(&world);
    }
}

/// Asserts that every buffer of the pool is home.
pub fn assert_home(pool: &Mempool) {
    assert_eq!(pool.available(), pool.capacity(), "buffers are missing from {pool:?}");
}

/// A pool of the size that a port needs, and some more for tests to hold.
pub fn pool_for(port: &Port, room: u16) -> Mempool {
    let buffers = port.buffers_needed() + 1024;
    Mempool::builder().buffers(buffers).data_room(room).on(&[port]).expect("a pool")
}

/// A packet with these bytes, in buffers of up to `room` bytes each.
pub fn packet(cache: &mut PoolCache, bytes: &[u8], room: usize) -> PacketBuf {
    let mut head: Option<PacketBuf> = None;
    for piece in bytes.chunks(room) {
        let mut packet = cache.alloc_one().expect("a buffer");
        packet.append(piece.len()).expect("tailroom").copy_from_slice(piece);
        match &mut head {
            None => head = Some(packet),
            Some(head) => head.chain(packet).expect("one pool"),
        }
    }
    head.unwrap_or_else(|| cache.alloc_one().expect("a buffer"))
}
