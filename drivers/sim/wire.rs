//! What is at the other end of a modelled VF's cable.
//!
//! A wire takes the frames that the VF sends and brings frames for it. Wires run under the lock of the world, in
//! batches, and allocate nothing per frame on the paths that rates are measured on (generator, sink, pair).
#![forbid(unsafe_code)]

use std::time::Duration;

use super::env::Env;
use super::frame::{self, MIN_FRAME};
use super::model::{Arrival, Model, Prepared};
#[cfg(feature = "pcap")]
use super::pcap::PcapWire;
use super::socket::SocketWire;
use super::tap::Tap;
use crate::addr::MacAddr;

/// What passed a wire, counted at the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WireCounters {
    /// Frames that the VF sent.
    pub sent_frames: u64,
    /// Their bytes, without FCS.
    pub sent_bytes: u64,
    /// Frames for the VF that reached its buffers.
    pub received_frames: u64,
    /// Their bytes, without FCS.
    pub received_bytes: u64,
    /// Frames for the VF that found too few armed descriptors, no running queue, or no link.
    pub dropped_frames: u64,
    /// Frames for the VF that the PF's switch did not pass to it.
    pub filtered_frames: u64,
}

impl WireCounters {
    pub(super) fn arrived(&mut self, arrival: Arrival, len: usize) {
        match arrival {
            Arrival::Taken => {
                self.received_frames += 1;
                self.received_bytes += len as u64;
            }
            Arrival::Filtered => self.filtered_frames += 1,
            Arrival::Dropped => self.dropped_frames += 1,
        }
    }
}

/// The far end.
pub(super) enum Wire {
    /// Frames are kept for a test, and come from it.
    Test(Vec<Vec<u8>>),
    /// Counts and drops.
    Sink,
    /// Sends frames to the VF, and counts and drops.
    Generator(Generator),
    /// Another port of the world, once it is there.
    Peer(Option<usize>),
    /// A TAP interface of this host.
    Tap(Tap),
    /// A port in another process.
    Socket(Box<SocketWire>),
    /// Files.
    #[cfg(feature = "pcap")]
    Pcap(Box<PcapWire>),
}

impl Wire {
    /// False when frames that the VF sends are only counted.
    pub(super) fn needs_bytes(&self) -> bool {
        !matches!(self, Wire::Sink | Wire::Generator(_) | Wire::Peer(None))
    }
}

/// One VF and its cable.
pub(super) struct Port {
    /// The model's name in specs.
    pub(super) model: &'static str,
    pub(super) vf: Box<dyn Model>,
    pub(super) wire: Wire,
    pub(super) counters: WireCounters,
    /// A driver has it open.
    pub(super) open: bool,
    /// The name of the pair that it belongs to.
    pub(super) pair: Option<String>,
}

impl Port {
    pub(super) fn new(model: &'static str, vf: Box<dyn Model>, wire: Wire) -> Self {
        Port { model, vf, wire, counters: WireCounters::default(), open: false, pair: None }
    }

    /// A frame arrives from the wire.
    pub(super) fn deliver(&mut self, frame: &[u8], env: &mut Env) -> Arrival {
        let arrival = self.vf.receive(frame, env);
        self.counters.arrived(arrival, frame.len());
        arrival
    }

    /// Sends what the VF has to send, at most `limit` frames a queue. `peers` are the other ports of the world.
    pub(super) fn send(&mut self, limit: usize, peers: &mut [Option<Box<Port>>], env: &mut Env) -> usize {
        let Port { vf, wire, counters, .. } = self;
        let needs_bytes = wire.needs_bytes();
        let (mut sent, mut seen) = (0, false);
        for queue in 0..vf.queues() {
            sent += vf.transmit(queue, limit, needs_bytes, env, &mut |env, bytes, len| {
                counters.sent_frames += 1;
                counters.sent_bytes += len as u64;
                match wire {
                    Wire::Sink | Wire::Generator(_) => {}
                    Wire::Test(sent) => sent.push(bytes.to_vec()),
                    Wire::Peer(peer) => {
                        if let Some(peer) = peer.and_then(|p| peers.get_mut(p)).and_then(Option::as_mut) {
                            // Doorbells that the peer rang before this port's are seen before its frames arrive.
                            if !std::mem::replace(&mut seen, true) {
                                peer.vf.step(env);
                            }
                            peer.deliver(bytes, env);
                        }
                    }
                    Wire::Tap(tap) => tap.send(bytes),
                    Wire::Socket(socket) => socket.send(bytes),
                    #[cfg(feature = "pcap")]
                    Wire::Pcap(pcap) => pcap.send(bytes, env.now),
                }
            });
        }
        sent
    }

    /// Brings what the wire has for the VF, at most `limit` frames.
    pub(super) fn bring(&mut self, limit: usize, env: &mut Env) -> usize {
        let Port { vf, wire, counters, .. } = self;
        match wire {
            Wire::Test(_) | Wire::Sink | Wire::Peer(_) => 0,
            Wire::Generator(generator) => generator.run(limit, vf.as_mut(), counters, env),
            Wire::Tap(tap) => tap.receive(limit, env.now, |frame| {
                let arrival = vf.receive(frame, env);
                counters.arrived(arrival, frame.len());
            }),
            Wire::Socket(socket) => socket.receive(limit, env.now, |frame| {
                let arrival = vf.receive(frame, env);
                counters.arrived(arrival, frame.len());
            }),
            #[cfg(feature = "pcap")]
            Wire::Pcap(pcap) => pcap.run(limit, vf.as_mut(), counters, env),
        }
    }
}

/// A backlog longer than this is forgotten: the wire was not looked at.
const BACKLOG: Duration = Duration::from_millis(100);
/// The station that generated frames come from.
const GENERATOR: MacAddr = MacAddr([0x02, 0x56, 0x46, 0xff, 0xff, 0xff]);

/// A traffic generator towards the VF: UDP frames of one size in several flows.
pub(super) struct Generator {
    size: usize,
    /// Frames a second; `None`: as fast as the ring takes them.
    rate: Option<u64>,
    flows: u16,
    /// The address, and the state of the VF, that `templates` are made for; the frames with what becomes of them.
    mac: MacAddr,
    generation: u64,
    templates: Vec<(Vec<u8>, Prepared)>,
    next: usize,
    since: Duration,
    made: u64,
}

impl Generator {
    /// Frames of `size` bytes without FCS.
    pub(super) fn new(size: usize, rate: Option<u64>, flows: u16) -> Self {
        let size = size.max(MIN_FRAME);
        let (mac, since) = (MacAddr::ZERO, Duration::ZERO);
        let flows = flows.max(1);
        Generator { size, rate, flows, mac, generation: 0, templates: Vec::new(), next: 0, since, made: 0 }
    }

    fn run(&mut self, limit: usize, vf: &mut dyn Model, counters: &mut WireCounters, env: &mut Env) -> usize {
        if (self.mac, self.generation) != (vf.mac(), vf.generation()) || self.templates.is_empty() {
            (self.mac, self.generation) = (vf.mac(), vf.generation());
            self.templates = (0..self.flows).map(|flow| self.template(flow, vf)).collect();
            self.next = 0;
        }
        if !vf.accepts(&self.templates[0].0) {
            (self.since, self.made) = (env.now, 0);
            return 0;
        }
        let due = match self.rate {
            None => limit,
            Some(rate) => self.due(rate, env.now).min(limit),
        };
        let mut touched = 0u64;
        let (mut made, mut taken) = (0, 0);
        while made < due {
            let (frame, prepared) = &self.templates[self.next];
            let queue = prepared.queue;
            // Unbounded, it waits for a ring that is full, but not for a queue that the driver did not start.
            if self.rate.is_none() && !vf.has_room(queue, frame.len()) && !vf.left_out(queue) {
                break;
            }
            if vf.place(frame, prepared, env) {
                counters.arrived(Arrival::Taken, frame.len());
                touched |= 1 << queue;
                taken += 1;
            } else {
                counters.arrived(Arrival::Dropped, frame.len());
            }
            self.next = if self.next + 1 == self.templates.len() { 0 } else { self.next + 1 };
            made += 1;
        }
        self.made += made as u64;
        for queue in (0..vf.queues()).filter(|queue| touched >> queue & 1 != 0) {
            vf.received(queue);
        }
        taken
    }

    fn template(&self, flow: u16, vf: &dyn Model) -> (Vec<u8>, Prepared) {
        let frame = frame::udp(self.mac, GENERATOR, [198, 18, 0, 2], (1024u16.wrapping_add(flow), 9), self.size);
        let prepared = vf.prepare(&frame);
        (frame, prepared)
    }

    /// Frames that the rate allows now.
    fn due(&mut self, rate: u64, now: Duration) -> usize {
        let earned = |since: Duration| (now.saturating_sub(since).as_nanos() * rate as u128 / 1_000_000_000) as u64;
        let due = earned(self.since).saturating_sub(self.made);
        if due > (BACKLOG.as_nanos() * rate as u128 / 1_000_000_000) as u64 + 1 {
            (self.since, self.made) = (now, 0);
            return 0;
        }
        due as usize
    }
}
