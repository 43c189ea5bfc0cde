//! Tests of the models with a scripted driver: registers by number, descriptors by hand, through [`SimBus`].
//!
//! It is written from the fact sheet and shares no constant with the model or with the real driver, so a slip in
//! either shows. [`Rig`] is the script: reset, one ring of 64 descriptors each way, and the mailbox.

mod chaos;
mod checks;
mod faults;
mod interrupts;
mod ixgbe;
mod mailbox;
mod rx;
mod tx;
mod wires;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::bus::SimBus;
use super::{IgbOptions, Part, PortId, World, spec};
use crate::addr::MacAddr;
use crate::mem::{HugeRegion, Pages};
use crate::mmio::{Bus, Reg};
use crate::spec::DeviceSpec;

/// Descriptors of each ring.
const N: u32 = 64;
/// Offsets in the rig's memory.
const RX_RING: u64 = 0;
const TX_RING: u64 = 0x1000;
const RX_BUFFERS: u64 = 0x10000;
const TX_BUFFERS: u64 = 0x40000;
const MEMORY: usize = 0x80000;

const EOP: u32 = 1 << 24;
const RS: u32 = 1 << 27;
const VLE: u32 = 1 << 30;
const TSE: u32 = 1 << 31;
const IXSM: u32 = 1 << 8;
const TXSM: u32 = 1 << 9;

/// The station address of every rig.
const MAC: MacAddr = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
const PEER: MacAddr = MacAddr([0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);

/// A scripted driver of one port.
struct Rig {
    world: World,
    port: PortId,
    bus: SimBus,
    memory: Arc<HugeRegion>,
    iova: u64,
    /// The next transmit descriptor.
    tx_next: u32,
}

fn options(part: Part) -> IgbOptions {
    IgbOptions { part, mac: Some(MAC), ..IgbOptions::default() }
}

impl Rig {
    /// A port of a new world, opened, with memory mapped and Bus Master set, not yet reset.
    fn open(part: Part) -> Rig {
        Rig::in_world(&World::stepped(7), options(part))
    }

    fn in_world(world: &World, options: IgbOptions) -> Rig {
        Rig::attach(world, world.add_igbvf(options))
    }

    /// Opens a port of a stepped world.
    fn attach(world: &World, port: PortId) -> Rig {
        let DeviceSpec::Sim(spec) = world.spec(port) else { panic!("a stepped port is a model") };
        Rig::over(world, port, spec::open(&spec).unwrap())
    }

    fn over(world: &World, port: PortId, mut bus: SimBus) -> Rig {
        let memory = Arc::new(HugeRegion::allocate(MEMORY, Pages::Ordinary, None).unwrap());
        let iova = bus.map_dma(&memory).unwrap().0;
        bus.set_bus_master(true).unwrap();
        Rig { world: world.clone(), port, bus, memory, iova, tx_next: 0 }
    }

    /// Reset, handshake, and both rings of queue 0 running with all receive descriptors armed (2 KiB buffers).
    fn running(part: Part) -> Rig {
        let mut rig = Rig::open(part);
        rig.bring_up();
        rig
    }

    fn bring_up(&mut self) {
        assert_eq!(self.reset()[0], 0x8000_0001);
        self.start_tx();
        self.start_rx(2);
        self.arm(N - 1);
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.bus.read32(Reg(offset))
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.bus.write32(Reg(offset), value);
    }

    fn pause(&mut self, time: Duration) {
        self.bus.pause(time);
    }

    /// Sends a message and waits for the PF's ACK: 1 s. The mailbox bits seen meanwhile.
    fn post(&mut self, words: &[u32]) -> u32 {
        self.write(0xc40, 4);
        assert_ne!(self.read(0xc40) & 4, 0, "VFU");
        for (i, word) in words.iter().enumerate() {
            self.write(0x800 + 4 * i as u32, *word);
        }
        self.write(0xc40, 1);
        self.wait_mail(0x20)
    }

    /// Polls V2PMAILBOX until one of `bits` is seen, at most 1 s. All bits seen.
    fn wait_mail(&mut self, bits: u32) -> u32 {
        let mut seen = 0;
        for _ in 0..2000 {
            seen |= self.read(0xc40);
            if seen & bits != 0 {
                break;
            }
            self.pause(Duration::from_micros(500));
        }
        seen
    }

    /// Sends a message and reads `N` words of the reply; `None` when no ACK or no reply comes.
    fn ask<const W: usize>(&mut self, words: &[u32]) -> Option<[u32; W]> {
        let seen = self.post(words);
        if seen & 0x20 == 0 || (seen & 0x10 == 0 && self.wait_mail(0x10) & 0x10 == 0) {
            return None;
        }
        self.write(0xc40, 4);
        let reply = std::array::from_fn(|i| self.read(0x800 + 4 * i as u32));
        self.write(0xc40, 2);
        Some(reply)
    }

    /// CTRL.RST, the wait for RSTI and RSTD, and the reset request.
    fn reset(&mut self) -> [u32; 3] {
        self.write(0, 1 << 26);
        while self.read(0xc40) & 0xc0 != 0 {}
        self.ask(&[1]).expect("no reply to the reset request")
    }

    fn start_rx(&mut self, kib: u32) {
        self.start_rx_with(kib | 1 << 25 | 1 << 31);
    }

    /// Starts the ring with this SRRCTL.
    fn start_rx_with(&mut self, srrctl: u32) {
        let base = self.iova + RX_RING;
        self.write(0x2800, base as u32);
        self.write(0x2804, (base >> 32) as u32);
        self.write(0x2808, N * 16);
        self.write(0x280c, srrctl);
        self.write(0x2828, 1 << 25 | 1 << 16 | 8 << 8 | 16);
        self.write(0x2810, 0);
        self.write(0x2818, 0);
    }

    fn start_tx(&mut self) {
        let base = self.iova + TX_RING;
        self.write(0x3800, base as u32);
        self.write(0x3804, (base >> 32) as u32);
        self.write(0x3808, N * 16);
        self.write(0x3810, 0);
        self.write(0x3818, 0);
        self.write(0x3814, 0);
        self.write(0x3838, 0);
        self.write(0x383c, 0);
        self.write(0x3828, 1 << 25);
        self.tx_next = 0;
    }

    /// Arms descriptors 0 to `count`, each with its own 2 KiB buffer, and rings the doorbell.
    fn arm(&mut self, count: u32) {
        for slot in 0..count {
            self.set_rx(slot, RX_BUFFERS + slot as u64 * 2048);
        }
        self.ring(0x2818, count);
    }

    fn set_rx(&self, slot: u32, buffer: u64) {
        self.store(RX_RING + slot as u64 * 16, [self.iova + buffer, 0]);
    }

    /// Rings a doorbell cell and lets the model see it.
    fn ring(&mut self, offset: u32, value: u32) {
        self.bus.doorbell(Reg(offset)).unwrap().ring(value);
        self.world.step();
    }

    /// Puts descriptors behind the last ones and rings the doorbell. The first one's slot.
    fn send(&mut self, descriptors: &[[u64; 2]]) -> u32 {
        let first = self.tx_next;
        for words in descriptors {
            self.store(TX_RING + self.tx_next as u64 * 16, *words);
            self.tx_next = (self.tx_next + 1) % N;
        }
        self.ring(0x3818, self.tx_next);
        first
    }

    /// Copies a frame to a transmit buffer; its IOVA.
    fn fill(&self, offset: u64, bytes: &[u8]) -> u64 {
        assert!(TX_BUFFERS as usize + offset as usize + bytes.len() <= MEMORY);
        let to = std::ptr::with_exposed_provenance_mut::<u8>(self.memory.addr() + (TX_BUFFERS + offset) as usize);
        // SAFETY: inside the region (asserted), which `self` keeps alive; the model runs on this thread only.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        self.iova + TX_BUFFERS + offset
    }

    /// Sends a plain frame from one buffer.
    fn send_plain(&mut self, bytes: &[u8]) -> u32 {
        let at = self.fill(0, bytes);
        self.send(&[data(at, bytes.len(), bytes.len(), EOP | RS, 0)])
    }

    fn cell(&self, offset: u64) -> &AtomicU64 {
        let at = std::ptr::with_exposed_provenance::<AtomicU64>(self.memory.addr() + offset as usize);
        // SAFETY: aligned and inside the region for the ring offsets that tests use; both sides use atomics.
        unsafe { &*at }
    }

    fn store(&self, offset: u64, words: [u64; 2]) {
        self.cell(offset).store(words[0], Ordering::Relaxed);
        self.cell(offset + 8).store(words[1], Ordering::Relaxed);
    }

    fn load(&self, offset: u64) -> [u64; 2] {
        [self.cell(offset).load(Ordering::Relaxed), self.cell(offset + 8).load(Ordering::Relaxed)]
    }

    /// A written-back receive descriptor.
    fn rx_done(&self, slot: u32) -> RxDone {
        let words = self.load(RX_RING + slot as u64 * 16);
        RxDone {
            packet_type: words[0] as u32 & 0x1_fff0,
            rss_type: words[0] as u32 & 0xf,
            hash: (words[0] >> 32) as u32,
            status: words[1] as u32,
            len: (words[1] >> 32) as u16,
            vlan: (words[1] >> 48) as u16,
        }
    }

    /// The bytes of a receive buffer.
    fn rx_bytes(&self, slot: u32, len: usize) -> Vec<u8> {
        assert!(len <= 2048);
        let at = self.memory.addr() + (RX_BUFFERS + slot as u64 * 2048) as usize;
        let mut bytes = vec![0; len];
        let from = std::ptr::with_exposed_provenance::<u8>(at);
        // SAFETY: `len` bytes (checked) of a buffer inside the region; the model runs on this thread only.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        bytes
    }

    fn tx_done(&self, slot: u32) -> bool {
        self.load(TX_RING + slot as u64 * 16)[1] >> 32 & 1 != 0
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        self.world.take_sent(self.port)
    }

    /// Stops the device so that dropping the rig is no violation, and demands that there was none.
    fn end_clean(mut self) {
        self.write(0, 1 << 26);
        let world = self.world.clone();
        drop(self);
        assert_eq!(world.violations(), [""; 0]);
    }

    /// Demands exactly one violation that says `what`.
    fn end_with(mut self, what: &str) {
        self.write(0, 1 << 26);
        let world = self.world.clone();
        drop(self);
        let found = world.violations();
        assert!(found.len() == 1 && found[0].contains(what), "wanted one violation with {what:?}, got {found:#?}");
        assert!(found[0].contains("seed 7"), "{found:?}");
    }
}

/// A receive write-back taken apart.
#[derive(Debug, PartialEq, Eq)]
struct RxDone {
    packet_type: u32,
    rss_type: u32,
    hash: u32,
    status: u32,
    len: u16,
    vlan: u16,
}

/// A data descriptor: DTYP 3, IFCS, DEXT, and the given flags of dwords 2 and 3.
fn data(iova: u64, len: usize, paylen: usize, command: u32, olinfo: u32) -> [u64; 2] {
    let command = len as u32 | 3 << 20 | 1 << 25 | 1 << 29 | command;
    let olinfo = (paylen as u32) << 14 | olinfo;
    [iova, command as u64 | (olinfo as u64) << 32]
}

/// A context descriptor for slot `index`.
struct Context {
    mac_len: u64,
    ip_len: u64,
    vlan: u64,
    ipv4: bool,
    l4: u64,
    l4_len: u64,
    mss: u64,
}

const PLAIN: Context = Context { mac_len: 14, ip_len: 20, vlan: 0, ipv4: true, l4: 3, l4_len: 0, mss: 0 };

impl Context {
    fn words(&self, index: u64) -> [u64; 2] {
        let command = 2 << 20 | 1 << 29 | (self.ipv4 as u64) << 10 | self.l4 << 11;
        let info = index << 4 | self.l4_len << 8 | self.mss << 16;
        [self.ip_len | self.mac_len << 9 | self.vlan << 16, command | info << 32]
    }
}

/// A UDP frame for the rig.
fn frame(len: usize) -> Vec<u8> {
    super::frame::udp(MAC, PEER, [192, 0, 2, 1], (1000, 2000), len)
}
