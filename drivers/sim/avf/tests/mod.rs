//! Tests of the avf model with a scripted driver: registers by number, messages and descriptors by hand, through the bus.
//!
//! It is written from the fact sheet and shares no constant with the model or with the real driver, so a slip in either
//! shows. [`Rig`] is the script: admin queues, and per queue a ring of 64 descriptors each way.

mod channel;
mod chaos;
mod checks;
mod faults;
mod filters;
mod interrupts;
mod orders;
mod rx;
mod tx;
mod wires;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{AvfOptions, AvfPart};
use crate::addr::MacAddr;
use crate::drivers::sim::bus::SimBus;
use crate::drivers::sim::{PortId, World, frame as frames, spec};
use crate::mem::{HugeRegion, Pages};
use crate::mmio::{Bus, Reg};
use crate::spec::DeviceSpec;

/// Descriptors of each ring, of the ATQ, and of the ARQ.
const N: u32 = 64;
const ATQ: u64 = 16;
const ARQ: u64 = 8;
// Offsets in the rig's memory.
const ATQ_RING: u64 = 0;
const ARQ_RING: u64 = 0x1000;
const ATQ_BUFFER: u64 = 0x2000;
const ARQ_BUFFERS: u64 = 0x4000;
const RX_RINGS: u64 = 0x10000;
const TX_RINGS: u64 = 0x20000;
const RX_BUFFERS: u64 = 0x40000;
const TX_BUFFERS: u64 = 0xc0000;
const MEMORY: usize = 0xf0000;

const MAC: MacAddr = MacAddr([0x02, 0x11, 0x22, 0x33, 0x44, 0x55]);
const PEER: MacAddr = MacAddr([0x02, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]);

// What a capable driver asks for: L2, WB_ON_ITR, REQ_QUEUES, ADV_LINK_SPEED, LARGE, VLAN_V2, VLAN, RSS_PF, FLEX.
const CAPS: u32 = 1 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 15 | 1 << 16 | 1 << 19 | 1 << 26;

/// The RSS key of the published vectors.
const KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

const EOP: u64 = 0x10;
const RS: u64 = 0x20;
const ICRC: u64 = 0x40;

/// A scripted driver of one port.
struct Rig {
    world: World,
    port: PortId,
    bus: SimBus,
    memory: Arc<HugeRegion>,
    iova: u64,
    atq_next: u64,
    arq_next: u64,
    vsi: u16,
    granted: u32,
    /// How often it looks for a reply, every 100 us.
    patience: u32,
    /// Payloads of events, oldest first.
    events: Vec<Vec<u8>>,
    tx_next: [u32; 4],
}

/// Little-endian bytes of a message.
#[derive(Default, Clone)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u8s(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16s(mut self, values: &[u16]) -> Self {
        values.iter().for_each(|v| self.0.extend_from_slice(&v.to_le_bytes()));
        self
    }

    fn u32s(mut self, values: &[u32]) -> Self {
        values.iter().for_each(|v| self.0.extend_from_slice(&v.to_le_bytes()));
        self
    }

    fn u64s(mut self, values: &[u64]) -> Self {
        values.iter().for_each(|v| self.0.extend_from_slice(&v.to_le_bytes()));
        self
    }
}

fn bytes() -> Bytes {
    Bytes::default()
}

fn options(part: AvfPart) -> AvfOptions {
    AvfOptions { mac: Some(MAC), queues: 4, ..AvfOptions::new(part) }
}

impl Rig {
    /// A port of a new world, opened and reset, with memory mapped, Bus Master and the admin queues on.
    fn open(options: AvfOptions) -> Rig {
        Rig::in_world(&World::stepped(7), options)
    }

    fn in_world(world: &World, options: AvfOptions) -> Rig {
        let port = world.add_iavf(options);
        let DeviceSpec::Sim(text) = world.spec(port) else { panic!("a stepped port is a model") };
        Rig::over(world, Some(port), spec::open(&text).unwrap())
    }

    /// Over a bus to a port, which the shared world does not name.
    fn over(world: &World, port: Option<PortId>, mut bus: SimBus) -> Rig {
        let memory = Arc::new(HugeRegion::allocate(MEMORY, Pages::Ordinary, None).unwrap());
        let iova = bus.map_dma(&memory).unwrap().0;
        let (world, events) = (world.clone(), Vec::new());
        let mut rig = Rig {
            world,
            port: port.unwrap_or(PortId(usize::MAX)),
            bus,
            memory,
            iova,
            atq_next: 0,
            arq_next: 0,
            vsi: 0,
            granted: 0,
            patience: 200,
            events,
            tx_next: [0; 4],
        };
        assert!(rig.bus.reset_function().unwrap());
        rig.bus.set_bus_master(true).unwrap();
        rig.wait_active();
        rig.start_admin();
        rig
    }

    /// As [`open`](Self::open), with version and resources agreed.
    fn talking(options: AvfOptions) -> Rig {
        let mut rig = Rig::open(options);
        rig.negotiate(CAPS);
        rig
    }

    /// As [`talking`](Self::talking), with both rings of queue 0 running and all receive descriptors armed.
    fn running(part: AvfPart) -> Rig {
        Rig::running_with(options(part))
    }

    fn running_with(options: AvfOptions) -> Rig {
        let mut rig = Rig::talking(options);
        rig.start_queues(1, 1);
        rig
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

    /// Waits until RSTAT says that the VF is active; the values seen.
    fn wait_active(&mut self) -> Vec<u32> {
        let mut seen = Vec::new();
        for _ in 0..5000 {
            let state = self.read(0x8800);
            seen.push(state);
            if state == 2 {
                return seen;
            }
            self.pause(Duration::from_micros(500));
        }
        panic!("the VF is not back: {seen:x?}");
    }

    /// Sets both admin queues up in the order of Linux and DPDK.
    fn start_admin(&mut self) {
        let base = self.iova;
        for i in 0..ARQ {
            self.give_arq(i);
        }
        (self.atq_next, self.arq_next) = (0, 0);
        for (head, tail, len, bal, bah, ring, n) in [
            (0x6400, 0x8400, 0x6800, 0x7c00, 0x7800, ATQ_RING, ATQ),
            (0x7400, 0x7000, 0x8000, 0x6c00, 0x6000, ARQ_RING, ARQ),
        ] {
            self.write(head, 0);
            self.write(tail, 0);
            self.write(len, n as u32 | 1 << 31);
            self.write(bal, (base + ring) as u32);
            self.write(bah, ((base + ring) >> 32) as u32);
            assert_eq!(self.read(bal), (base + ring) as u32);
        }
        self.write(0x7000, ARQ as u32 - 1);
    }

    fn give_arq(&self, slot: u64) {
        let buffer = self.iova + ARQ_BUFFERS + slot * 4096;
        let words = [0x1200 | 4096 << 32, 0, 0, buffer.rotate_left(32)];
        self.store(ARQ_RING + slot * 32, &words);
    }

    /// Puts a message into the ATQ and rings.
    fn post(&mut self, opcode: u32, payload: &[u8]) {
        self.copy_in(ATQ_BUFFER, payload);
        let large = if payload.len() > 512 { 0x200 } else { 0 };
        let flags = 0x2000 | if payload.is_empty() { 0 } else { 0x1400 | large };
        let buffer = if payload.is_empty() { 0 } else { self.iova + ATQ_BUFFER };
        let words = [flags | 0x0801 << 16 | (payload.len() as u64) << 32, opcode as u64, 0, buffer.rotate_left(32)];
        self.store(ATQ_RING + self.atq_next * 32, &words);
        self.atq_next = (self.atq_next + 1) % ATQ;
        self.write(0x8400, self.atq_next as u32);
    }

    /// The next message in the ARQ: opcode, status, payload.
    fn hear(&mut self) -> Option<(u32, i32, Vec<u8>)> {
        if self.read(0x7400) as u64 == self.arq_next {
            return None;
        }
        let slot = self.arq_next;
        let words = self.load(ARQ_RING + slot * 32);
        assert_eq!(words[0] & 0xffff_1201, 0x0802_1201, "DD, BUF and LB kept, opcode");
        let len = (words[0] >> 32 & 0xffff) as usize;
        let payload = self.copy_out(ARQ_BUFFERS + slot * 4096, len.min(4096));
        self.give_arq(slot);
        self.write(0x7000, slot as u32);
        self.arq_next = (slot + 1) % ARQ;
        Some((words[1] as u32, (words[1] >> 32) as i32, payload))
    }

    /// Sends a request and waits for the reply to it (20 ms of virtual time), keeping events: status and payload.
    fn try_ask(&mut self, opcode: u32, payload: Bytes) -> Option<(i32, Vec<u8>)> {
        self.post(opcode, &payload.0);
        self.wait_reply(opcode)
    }

    fn wait_reply(&mut self, opcode: u32) -> Option<(i32, Vec<u8>)> {
        for _ in 0..self.patience {
            match self.hear() {
                Some((17, 0, event)) => self.events.push(event),
                Some((op, status, payload)) if op == opcode => return Some((status, payload)),
                Some(_) => {}
                None => self.pause(Duration::from_micros(100)),
            }
        }
        None
    }

    fn ask(&mut self, opcode: u32, payload: Bytes) -> (i32, Vec<u8>) {
        self.try_ask(opcode, payload).unwrap_or_else(|| panic!("no reply to opcode {opcode}"))
    }

    /// Asks for what must be granted; the payload.
    fn done(&mut self, opcode: u32, payload: Bytes) -> Vec<u8> {
        let (status, payload) = self.ask(opcode, payload);
        assert_eq!(status, 0, "opcode {opcode}");
        payload
    }

    /// Listens for a while; the events so far.
    fn listen(&mut self) -> Vec<Vec<u8>> {
        self.wait_reply(u32::MAX);
        std::mem::take(&mut self.events)
    }

    fn negotiate(&mut self, caps: u32) -> Vec<u8> {
        assert_eq!(self.done(1, bytes().u32s(&[1, 1])), [1, 0, 0, 0, 1, 0, 0, 0]);
        let reply = self.done(3, bytes().u32s(&[caps]));
        assert!(matches!(reply.len(), 36 | 52));
        self.granted = u32::from_le_bytes(reply[8..12].try_into().unwrap());
        self.vsi = u16::from_le_bytes(reply[20..22].try_into().unwrap());
        reply
    }

    /// A CONFIG_VSI_QUEUES message for queues 0 to `count`, 2 KiB buffers, this RXDID.
    fn queue_config(&self, count: u16, rxdid: u8) -> Bytes {
        let mut message = bytes().u16s(&[self.vsi, count]).u32s(&[0]);
        for q in 0..count {
            let (tx, rx) = (self.iova + TX_RINGS + q as u64 * 0x1000, self.iova + RX_RINGS + q as u64 * 0x1000);
            message = message.u16s(&[self.vsi, q, N as u16, 0]).u64s(&[tx, 0]);
            message = message.u16s(&[self.vsi, q]).u32s(&[N]).u16s(&[0, 0]).u32s(&[2048, 9728]);
            message = message.u8s(&[0, rxdid, 0, 0]).u64s(&[rx]).u32s(&[0, 0]);
        }
        message.u8s(&[0; 64])
    }

    /// Maps, configures and enables queues 0 to `count` (at most 4), with all receive descriptors armed, and spreads
    /// frames over them.
    fn start_queues(&mut self, count: u16, rxdid: u8) {
        for q in 0..count as u64 {
            for slot in 0..N {
                self.set_rx(q, slot);
            }
            self.write(0x2000 + 4 * q as u32, N - 1);
        }
        self.tx_next = [0; 4];
        if self.granted & 1 << 19 != 0 {
            let table: Vec<u8> = (0..64).map(|i| i % count as u8).collect();
            self.done(24, bytes().u16s(&[self.vsi, 64]).u8s(&table).u8s(&[0]));
        }
        let config = self.queue_config(count, rxdid);
        self.done(6, config);
        let all = (1u32 << count) - 1;
        let map = bytes().u16s(&[1, self.vsi, 1, all as u16, all as u16, 0, 0]).u8s(&[0; 12]);
        self.done(7, map);
        self.write(0x3800, 1 << 30 | 2 << 5);
        self.done(8, bytes().u16s(&[self.vsi, 0]).u32s(&[all, all]));
    }

    /// CONFIG_RSS_KEY with [`KEY`], zero-extended.
    fn set_key(&mut self) {
        self.done(23, bytes().u16s(&[self.vsi, 52]).u8s(&KEY).u8s(&[0; 13]));
    }

    fn set_rx(&self, queue: u64, slot: u32) {
        let buffer = self.iova + rx_buffer(queue, slot);
        self.store(RX_RINGS + queue * 0x1000 + slot as u64 * 32, &[buffer, 0, 0, 0]);
    }

    /// Rings a doorbell cell and lets the model see it.
    fn ring(&mut self, offset: u32, value: u32) {
        self.bus.doorbell(Reg(offset)).unwrap().ring(value);
        self.world.step();
    }

    /// Puts descriptors behind the last ones of queue 0 and rings. The first one's slot.
    fn send(&mut self, descriptors: &[[u64; 2]]) -> u32 {
        self.send_on(0, descriptors)
    }

    fn send_on(&mut self, queue: usize, descriptors: &[[u64; 2]]) -> u32 {
        let first = self.tx_next[queue];
        for words in descriptors {
            let next = &mut self.tx_next[queue];
            let at = TX_RINGS + queue as u64 * 0x1000 + *next as u64 * 16;
            *next = (*next + 1) % N;
            self.store(at, words);
        }
        self.ring(4 * queue as u32, self.tx_next[queue]);
        first
    }

    /// Sends a plain frame from one buffer.
    fn send_plain(&mut self, bytes: &[u8]) -> u32 {
        let at = self.fill(bytes);
        self.send(&[data(at, bytes.len(), EOP | RS)])
    }

    /// Copies a frame to the transmit buffer; its IOVA.
    fn fill(&self, bytes: &[u8]) -> u64 {
        self.copy_in(TX_BUFFERS, bytes);
        self.iova + TX_BUFFERS
    }

    fn copy_in(&self, offset: u64, bytes: &[u8]) {
        assert!(offset as usize + bytes.len() <= MEMORY);
        let to = std::ptr::with_exposed_provenance_mut::<u8>(self.memory.addr() + offset as usize);
        // SAFETY: inside the region (asserted), which `self` keeps alive; the model runs on this thread only.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    fn copy_out(&self, offset: u64, len: usize) -> Vec<u8> {
        assert!(offset as usize + len <= MEMORY);
        let from = std::ptr::with_exposed_provenance::<u8>(self.memory.addr() + offset as usize);
        let mut bytes = vec![0; len];
        // SAFETY: inside the region (asserted), which `self` keeps alive; the model runs on this thread only.
        unsafe { std::ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), len) };
        bytes
    }

    fn cell(&self, offset: u64) -> &AtomicU64 {
        assert!(offset as usize + 8 <= MEMORY && offset.is_multiple_of(8));
        let at = std::ptr::with_exposed_provenance::<AtomicU64>(self.memory.addr() + offset as usize);
        // SAFETY: aligned and inside the region (asserted, and its base is a page's); both sides use atomics.
        unsafe { &*at }
    }

    fn store(&self, offset: u64, words: &[u64]) {
        for (i, word) in words.iter().enumerate() {
            self.cell(offset + 8 * i as u64).store(*word, Ordering::Relaxed);
        }
    }

    fn load(&self, offset: u64) -> [u64; 4] {
        std::array::from_fn(|i| self.cell(offset + 8 * i as u64).load(Ordering::Relaxed))
    }

    /// A receive descriptor of queue 0.
    fn rx_words(&self, slot: u32) -> [u64; 4] {
        self.rx_words_of(0, slot)
    }

    fn rx_words_of(&self, queue: u64, slot: u32) -> [u64; 4] {
        self.load(RX_RINGS + queue * 0x1000 + slot as u64 * 32)
    }

    /// The bytes of a receive buffer of queue 0.
    fn rx_bytes(&self, slot: u32, len: usize) -> Vec<u8> {
        self.copy_out(rx_buffer(0, slot), len)
    }

    fn tx_done(&self, slot: u32) -> bool {
        self.cell(TX_RINGS + slot as u64 * 16 + 8).load(Ordering::Relaxed) & 0xf == 0xf
    }

    fn sent(&self) -> Vec<Vec<u8>> {
        self.world.take_sent(self.port)
    }

    fn inject(&self, frame: &[u8]) -> bool {
        self.world.inject(self.port, frame)
    }

    /// GET_STATS.
    fn stats(&mut self) -> Vec<u64> {
        let reply = self.done(15, bytes().u16s(&[self.vsi, 0]).u32s(&[0, 0]));
        reply.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap())).collect()
    }

    /// Resets the device so that dropping the rig is no violation, and demands that there was none.
    fn end_clean(mut self) {
        self.bus.reset_function().unwrap();
        let world = self.world.clone();
        drop(self);
        assert_eq!(world.violations(), [""; 0]);
    }

    /// Demands exactly one violation that says `what`.
    fn end_with(mut self, what: &str) {
        self.bus.reset_function().unwrap();
        let world = self.world.clone();
        drop(self);
        let found = world.violations();
        assert!(found.len() == 1 && found[0].contains(what), "wanted one violation with {what:?}, got {found:#?}");
        assert!(found[0].contains("seed 7"), "{found:?}");
    }
}

fn rx_buffer(queue: u64, slot: u32) -> u64 {
    RX_BUFFERS + (queue * N as u64 + slot as u64) * 2048
}

/// A data descriptor: ICRC and the given bits of quadword 1.
fn data(iova: u64, len: usize, bits: u64) -> [u64; 2] {
    [iova, ICRC | (len as u64) << 34 | bits]
}

/// A UDP frame for the rig.
fn frame(len: usize) -> Vec<u8> {
    frames::udp(MAC, PEER, [192, 0, 2, 1], (1000, 2000), len)
}

/// A frame with a tag.
fn tagged(tpid: u16, tci: u16, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frames::insert_tag_of(tpid, inner, tci, &mut out);
    out
}

const PARTS: [AvfPart; 3] = [AvfPart::Xl710, AvfPart::X722, AvfPart::E810];
