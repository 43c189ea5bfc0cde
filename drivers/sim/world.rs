//! A world: the ports that are modelled together, their clock, and who makes time pass.
//!
//! There are two kinds. A *stepped* world has virtual time, which passes in every pause and register access of a driver and
//! when a test says so; it is deterministic, and it checks the driver more closely. The *shared* world is one a process,
//! made when first needed, in real time: one thread plays all its devices, and sleeps when there is nothing to do, so
//! that two cores carry a program and its models.
//!
//! Everything is behind one lock, which drivers' control paths take for a register access and the data path never takes.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::avf::AvfOptions;
use super::bench::BenchQueue;
use super::env::Env;
use super::fault::Fault;
use super::frame;
use super::igb::IgbOptions;
use super::ixgbe::IxgbeOptions;
use super::model::{Arrival, Options, Prepared};
use super::wire::{Port, Wire, WireCounters};
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::spec::{DeviceSpec, SimSpec};

/// Virtual time of a register access: about what a read over PCIe takes.
const ACCESS_TIME: Duration = Duration::from_micros(1);
/// Virtual time of [`World::step`].
const STEP_TIME: Duration = Duration::from_micros(10);
/// A pause in virtual time passes in at most this many pieces.
const SLICES: u32 = 16;
/// Frames that a port moves before the next one has its turn.
const BATCH: usize = 64;
/// Rounds after which a step ends even if devices are still busy: an endless generator.
const ROUNDS: usize = 256;

/// Rounds without work that the thread of a world in real time spins (tens of microseconds: a program works off a
/// ring in that time, and yielding on a busy machine costs milliseconds), and rounds after which it sleeps.
const SPINS: u32 = 200;
const PATIENCE: u32 = 2000;
/// How often it yields to a thread that waits for the lock.
const COURTESY: u32 = 1000;
/// How long it sleeps while the world is empty.
const EMPTY: Duration = Duration::from_millis(100);
/// How long it sleeps at first, and at most.
const NAP: Duration = Duration::from_micros(50);
const NAP_MAX: Duration = Duration::from_millis(1);

/// One modelled port of a [`World`]. Methods of a world panic when they are given a port that it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortId(pub(super) usize);

/// Ports that are modelled together. Cheap to clone; all clones are the same world.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    number: u64,
    /// Real time, and a thread of its own.
    threaded: bool,
    start: Instant,
    /// Threads that want the lock; the world's own thread steps back for them.
    waiting: AtomicUsize,
    /// Signalled when there may be work for the world's own thread.
    awake: Condvar,
    state: Mutex<State>,
}

/// What the lock protects.
pub(super) struct State {
    pub(super) env: Env,
    pub(super) ports: Vec<Option<Box<Port>>>,
}

/// Stepped worlds by number, so that a device spec can name a port of one.
static REGISTRY: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
static SHARED: OnceLock<World> = OnceLock::new();
static NUMBER: AtomicU64 = AtomicU64::new(1);

impl World {
    /// A new world in virtual time, empty. `seed` decides everything that is left to chance.
    pub fn stepped(seed: u64) -> World {
        let world = World::new(NUMBER.fetch_add(1, Ordering::Relaxed), Env::new(seed, true, false), false);
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        registry.retain(|w| w.strong_count() > 0);
        registry.push(Arc::downgrade(&world.inner));
        world
    }

    /// The world of all models that are opened by a spec without `world=`: real time, one thread.
    pub fn shared() -> World {
        SHARED.get_or_init(World::threaded).clone()
    }

    /// A new world in real time, with a thread of its own.
    pub(super) fn threaded() -> World {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
        let world = World::new(0, Env::new(seed, false, true), true);
        let inner = Arc::downgrade(&world.inner);
        // Without a thread nothing is ever answered, and every open reports that.
        let _ = thread::Builder::new().name("vfring-models".into()).spawn(move || Inner::play(&inner));
        world
    }

    /// There may be work: the world's own thread stops its nap.
    #[cfg(feature = "vfio-user")]
    pub(super) fn wake(&self) {
        self.inner.awake.notify_all();
    }

    fn new(number: u64, env: Env, threaded: bool) -> World {
        let state = Mutex::new(State { env, ports: Vec::new() });
        let (start, waiting, awake) = (Instant::now(), AtomicUsize::new(0), Condvar::new());
        World { inner: Arc::new(Inner { number, threaded, start, waiting, awake, state }) }
    }

    /// The stepped world with this number, if it still exists.
    pub(super) fn find(number: u64) -> Option<World> {
        let registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        registry.iter().filter_map(Weak::upgrade).find(|w| w.number == number).map(|inner| World { inner })
    }

    /// Runs `action` under the lock, at the current time of the world.
    pub(super) fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let inner = &*self.inner;
        inner.waiting.fetch_add(1, Ordering::Relaxed);
        let mut state = inner.lock();
        inner.waiting.fetch_sub(1, Ordering::Relaxed);
        if inner.threaded {
            state.env.now = inner.start.elapsed();
        }
        action(&mut state)
    }

    fn port<T>(&self, port: PortId, action: impl FnOnce(&mut Port, &mut Env) -> T) -> T {
        self.with(|state| {
            let State { env, ports } = state;
            match ports.get_mut(port.0).and_then(Option::as_mut) {
                Some(port) => action(port, env),
                None => panic!("this world has no port {}", port.0),
            }
        })
    }

    /// Adds an igb VF whose wire is the test: see [`inject`](Self::inject) and [`take_sent`](Self::take_sent).
    pub fn add_igbvf(&self, options: IgbOptions) -> PortId {
        self.add_tested(Options::Igb(options))
    }

    /// Adds an ixgbe VF whose wire is the test.
    pub fn add_ixgbevf(&self, options: IxgbeOptions) -> PortId {
        self.add_tested(Options::Ixgbe(options))
    }

    /// Adds an Adaptive VF whose wire is the test.
    pub fn add_iavf(&self, options: AvfOptions) -> PortId {
        self.add_tested(Options::Avf(options))
    }

    /// Adds a port whose wire is the test.
    fn add_tested(&self, options: Options) -> PortId {
        let (number, model) = (self.inner.number, options.model());
        PortId(self.add(options, Wire::Test(Vec::new()), |id| sim_spec(model, number, id).to_string()))
    }

    /// Adds a port under a name that may depend on its number.
    pub(super) fn add(&self, options: Options, wire: Wire, name: impl FnOnce(usize) -> String) -> usize {
        let id = self.with(|state| state.add(options, wire, name));
        self.inner.awake.notify_all();
        id
    }

    /// Adds a port to the pair `name`: the second one is connected to the first. All of it under one lock, because ports
    /// are opened side by side.
    pub(super) fn add_pair(&self, options: Options, name: &str, loopback: bool, spec: &str) -> Result<usize> {
        let id = self.with(|state| {
            let of_pair = |p: &Option<Box<Port>>| p.as_ref().is_some_and(|p| p.pair.as_deref() == Some(name));
            let peers: Vec<usize> = (0..state.ports.len()).filter(|&i| of_pair(&state.ports[i])).collect();
            if peers.len() > 1 {
                return Err(Error::device(spec, format!("the pair '{name}' already has two ends")));
            }
            let id = state.add(options, Wire::Peer(None), |_| spec.to_owned());
            if let Some(port) = &mut state.ports[id] {
                port.pair = Some(name.to_owned());
                port.vf.set_loopback(loopback);
            }
            if let Some(&peer) = peers.first() {
                state.join(peer, id, loopback);
            }
            Ok(id)
        })?;
        self.inner.awake.notify_all();
        Ok(id)
    }

    /// Starts chance over.
    pub(super) fn reseed(&self, seed: u64) {
        self.with(|state| state.env.reseed(seed));
    }

    /// An address for a VF whose spec names none.
    pub(super) fn next_mac() -> MacAddr {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let [.., a, b] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        MacAddr([0x02, 0x56, 0x46, 0, a, b])
    }

    /// The spec by which `Port::open` opens this port.
    pub fn spec(&self, port: PortId) -> DeviceSpec {
        let model = self.port(port, |port, _| port.model);
        DeviceSpec::Sim(sim_spec(model, self.inner.number, port.0))
    }

    /// Lets a little time pass and every device work until it has nothing left to do.
    pub fn step(&self) {
        self.advance(STEP_TIME);
    }

    /// Lets `time` pass: virtual time at once, real time by sleeping.
    pub fn advance(&self, time: Duration) {
        if self.inner.threaded {
            thread::sleep(time);
            return;
        }
        self.with(|state| {
            let slices = (time.as_micros().min(SLICES as u128) as u32).max(1);
            for _ in 0..slices {
                state.env.now += time / slices;
                state.settle();
            }
        });
    }

    /// A register access by a driver: time passes, devices work, and then `action` runs.
    pub(super) fn access<T>(&self, port: usize, action: impl FnOnce(&mut Port, &mut Env) -> T) -> T {
        if !self.inner.threaded {
            self.with(|state| {
                state.env.now += ACCESS_TIME;
                state.settle();
            });
        }
        self.port(PortId(port), action)
    }

    /// Time since the world began.
    pub fn now(&self) -> Duration {
        self.with(|state| state.env.now)
    }

    /// A frame (without FCS) arrives on the wire for the VF. True when it reached the VF's buffers; false when the PF
    /// filtered it, the link is down, no queue runs, or too few descriptors are armed.
    pub fn inject(&self, port: PortId, frame: &[u8]) -> bool {
        self.port(port, |port, env| {
            port.vf.step(env);
            port.deliver(frame, env) == Arrival::Taken
        })
    }

    /// The frames that the VF sent since the last call, oldest first. Step the world first.
    pub fn take_sent(&self, port: PortId) -> Vec<Vec<u8>> {
        self.port(port, |port, _| if let Wire::Test(sent) = &mut port.wire { std::mem::take(sent) } else { Vec::new() })
    }

    /// Connects two ports back to back.
    pub fn connect(&self, a: PortId, b: PortId) {
        self.with(|state| state.join(a.0, b.0, false));
    }

    /// Connects two ports as VFs of one PF: frames pass inside the NIC and carry the loopback mark.
    pub fn connect_loopback(&self, a: PortId, b: PortId) {
        self.with(|state| state.join(a.0, b.0, true));
    }

    /// Takes the link of a port up or down.
    pub fn link(&self, port: PortId, up: bool) {
        self.port(port, |port, env| port.vf.set_link(up, env));
    }

    /// The PF of a port goes into reset (RSTI): every setting, ring and interrupt register of the VF is lost.
    pub fn pf_reset(&self, port: PortId) {
        self.port(port, |port, env| port.vf.pf_reset(env));
    }

    /// The PF is back (RSTD, and a ping without CTS).
    pub fn pf_reset_done(&self, port: PortId) {
        self.port(port, |port, env| port.vf.pf_reset_done(env));
    }

    /// Makes a port misbehave; faults add up.
    pub fn set_fault(&self, port: PortId, fault: Fault) {
        self.port(port, |port, env| port.vf.set_fault(fault, env));
    }

    /// Ends every fault of a port.
    pub fn clear_faults(&self, port: PortId) {
        self.port(port, |port, _| port.vf.clear_faults());
    }

    /// Register accesses that drivers of a port have made so far: what the faults that strike at an access count in.
    pub fn accesses(&self, port: PortId) -> u64 {
        self.port(port, |port, _| port.vf.accesses())
    }

    /// Sets the nine statistics registers of a port to `value`, so that they wrap soon.
    pub fn preset_counters(&self, port: PortId, value: u32) {
        self.port(port, |port, _| port.vf.preset_counters(value));
    }

    /// The station address that the PF of a port filters by.
    pub fn mac(&self, port: PortId) -> MacAddr {
        self.port(port, |port, _| port.vf.mac())
    }

    /// What passed the wire of a port.
    pub fn wire_counters(&self, port: PortId) -> WireCounters {
        self.port(port, |port, _| port.counters)
    }

    /// What drivers did wrong so far: each with the seed and the last register accesses. At most 64 are kept.
    pub fn violations(&self) -> Vec<String> {
        self.with(|state| state.env.violations())
    }

    /// For benchmarks: completes up to `n` armed descriptors of a receive queue with a frame of 60 bytes, past the
    /// wire and the switch. How many.
    pub fn bench_fill_rx(&self, port: PortId, queue: usize, n: usize) -> usize {
        self.port(port, |port, env| {
            port.vf.step(env);
            let frame = bench_frame(port);
            let prepared = Prepared { queue, ..port.vf.prepare(&frame) };
            (0..n).take_while(|_| port.vf.has_room(queue, frame.len()) && port.vf.place(&frame, &prepared, env)).count()
        })
    }

    /// For benchmarks: sends everything that a transmit queue holds to nowhere. How many frames.
    pub fn bench_complete_tx(&self, port: PortId, queue: usize) -> usize {
        self.port(port, |port, env| {
            port.vf.step(env);
            port.vf.transmit(queue, usize::MAX, false, env, &mut |_, _, _| {})
        })
    }

    /// For benchmarks, in a world that [`bench_relax`](Self::bench_relax) made lenient: takes a queue pair out of its model, for the
    /// caller to play its device. The model does not work on it any more, until it is started again.
    ///
    /// # Panics
    /// When the queues do not run, or are taken already.
    pub fn bench_take(&self, port: PortId, queue: usize) -> BenchQueue {
        self.port(port, |port, env| {
            port.vf.step(env);
            let frame = bench_frame(port);
            let lent = port.vf.lend(queue, &frame).expect("a queue pair that runs and is not taken");
            BenchQueue::new(queue, lent, frame, port.vf.cells(), env.dma.view())
        })
    }

    /// For benchmarks: stops tracking every armed buffer, which costs more than what is measured.
    pub fn bench_relax(&self) {
        self.with(|state| {
            state.env.strict = false;
            state.env.dma.disarm_all();
        });
    }

    /// Marks a port as opened by a driver: the length of its BAR and its vectors.
    pub(super) fn open(&self, port: usize, name: &str) -> Result<(u32, u32)> {
        self.with(|state| match state.ports.get_mut(port).and_then(Option::as_mut) {
            Some(port) if port.open => Err(Error::device(name, "the port is already open in this process")),
            Some(port) => {
                port.open = true;
                Ok((port.vf.bar_len(), port.vf.vectors() as u32))
            }
            None => Err(Error::device(name, format!("the world has no port {port}"))),
        })
    }

    /// The driver closed a port: a function reset. Ports of the shared world go away, those of stepped ones stay.
    pub(super) fn close(&self, port: usize) {
        self.with(|state| {
            let State { env, ports } = state;
            let Some(slot) = ports.get_mut(port) else { return };
            if let Some(port) = slot {
                port.vf.close(env);
                port.open = false;
            }
            if self.inner.threaded {
                *slot = None;
                for other in ports.iter_mut().flatten() {
                    if let Wire::Peer(peer) = &mut other.wire
                        && *peer == Some(port)
                    {
                        *peer = None;
                    }
                }
            }
        });
    }
}

fn sim_spec(model: &str, world: u64, port: usize) -> SimSpec {
    let params = vec![("world".to_owned(), world.to_string()), ("port".to_owned(), port.to_string())];
    SimSpec { model: model.to_owned(), params }
}

/// A frame of 60 bytes for the VF.
fn bench_frame(port: &Port) -> Vec<u8> {
    frame::udp(port.vf.mac(), MacAddr([2; 6]), [198, 18, 0, 2], (1024, 9), frame::MIN_FRAME)
}

impl State {
    fn add(&mut self, options: Options, wire: Wire, name: impl FnOnce(usize) -> String) -> usize {
        let id = self.ports.iter().position(Option::is_none).unwrap_or(self.ports.len());
        let model = options.model();
        let vf = options.build(id, name(id), &mut self.env);
        let port = Some(Box::new(Port::new(model, vf, wire)));
        if id == self.ports.len() {
            self.ports.push(port);
        } else {
            self.ports[id] = port;
        }
        id
    }

    fn join(&mut self, a: usize, b: usize, loopback: bool) {
        for (from, to) in [(a, b), (b, a)] {
            match self.ports.get_mut(from).and_then(Option::as_mut) {
                Some(port) => {
                    port.wire = Wire::Peer(Some(to));
                    port.vf.set_loopback(loopback);
                }
                None => panic!("this world has no port {from}"),
            }
        }
    }

    /// One round over all devices; true when any of them did something.
    fn round(&mut self) -> bool {
        let State { env, ports } = self;
        let mut busy = false;
        for i in 0..ports.len() {
            // Out of the table while it works, so that it can reach the others.
            let Some(mut port) = ports[i].take() else { continue };
            busy |= port.vf.step(env);
            busy |= port.send(BATCH, ports, env) > 0;
            busy |= port.bring(BATCH, env) > 0;
            ports[i] = Some(port);
        }
        busy
    }

    /// Rounds until nothing happens.
    fn settle(&mut self) {
        for _ in 0..ROUNDS {
            if !self.round() {
                return;
            }
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of a test under the lock leaves nothing behind that later readers could not cope with.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread of a world in real time; it ends when nobody else has the world any more.
    fn play(world: &Weak<Inner>) {
        let (mut idle, mut nap) = (0, NAP);
        while let Some(this) = world.upgrade() {
            let mut state = this.lock();
            if state.ports.iter().all(Option::is_none) {
                this.sleep(state, EMPTY);
                continue;
            }
            state.env.now = this.start.elapsed();
            let busy = state.round();
            drop(state);
            if busy {
                (idle, nap) = (0, NAP);
            } else {
                idle += 1;
            }
            if idle >= PATIENCE {
                this.sleep(this.lock(), nap);
                nap = (nap * 2).min(NAP_MAX);
            } else if idle >= SPINS {
                thread::yield_now();
            } else if !busy {
                std::hint::spin_loop();
            }
            // Let in who waits: the lock is not fair, and this thread would have it again before the other woke up.
            for _ in 0..COURTESY {
                if this.waiting.load(Ordering::Relaxed) == 0 {
                    break;
                }
                thread::yield_now();
            }
        }
    }

    /// Lets go of the lock until there may be work, at most for `time`.
    fn sleep(&self, state: MutexGuard<'_, State>, time: Duration) {
        drop(self.awake.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner));
    }
}
