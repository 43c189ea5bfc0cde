//! The order of things over a device that a test scripts: what races with queues that answer late, and what must not
//! happen when the device cannot be reset. Everything that a real device does is tested on the models.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::device::{Caps, Counters, Device, Health, Link, RingKind, RingPlan, Settings};
use super::{Port, PortConfig, StartParts};
use crate::addr::{Iova, MacAddr};
use crate::error::{Error, Result};
use crate::mem::{HugeRegion, Mempool};
use crate::mmio::{Bus, Doorbell, PciId, Reg};
use crate::ring::{PortState, QueueLink, RxQueue};

/// Longer than a recovery waits for queues.
const LONG: Duration = Duration::from_secs(1);

/// What the device was told and how it answers.
#[derive(Default)]
struct Script {
    time: Duration,
    /// Regions that are mapped.
    mapped: usize,
    /// Receive queues that run.
    running: Vec<u16>,
    /// The receive and transmit queues of each call that started some.
    started: Vec<(Vec<u16>, Vec<u16>)>,
    /// The device reports a reset at the next check.
    resetting: bool,
    /// The device cannot be reset.
    stuck: bool,
    /// The PF refuses the settings.
    refuses: bool,
    /// Called once, when queues are started.
    at_start: Option<Box<dyn FnOnce() + Send>>,
    /// Called once, when the driver waits.
    at_pause: Option<Box<dyn FnOnce() + Send>>,
}

/// A device of two queues each way that does what its script says.
struct Scripted {
    script: Arc<Mutex<Script>>,
    caps: Caps,
}

impl Scripted {
    fn port(config: PortConfig) -> (Port, Arc<Mutex<Script>>) {
        Self::port_with(config, false)
    }

    fn port_with(config: PortConfig, paired: bool) -> (Port, Arc<Mutex<Script>>) {
        let script = Arc::new(Mutex::new(Script::default()));
        let caps = Caps {
            family: "scripted",
            part: "script",
            rx_queues: 2,
            tx_queues: 2,
            ring_min: 32,
            ring_max: 4096,
            ring_multiple: 8,
            mtu_max: 9216,
            rx_buffer_granule: 1024,
            max_segments: 8,
            rss: None,
            vectors: 0,
            paired,
            rings: RingKind::Igb { big_endian_loopback_tag: false },
        };
        let device = Scripted { script: script.clone(), caps };
        (Port::with_device(Box::new(device), config).unwrap(), script)
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        // A failed assertion is to be seen, not the panic of the port that drops after it.
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn doorbell() -> Doorbell {
    let cell = Arc::new(AtomicU32::new(0));
    // SAFETY: the cell lives as long as its Arc, which the doorbell holds.
    unsafe { Doorbell::new(NonNull::from(&*cell), cell.clone()) }
}

impl Device for Scripted {
    fn bus(&mut self) -> &mut dyn Bus {
        self
    }
    fn caps(&self) -> &Caps {
        &self.caps
    }
    fn mac(&self) -> MacAddr {
        MacAddr([2, 0, 0, 0, 0, 1])
    }
    fn reset(&mut self, _: bool) -> Result<()> {
        let mut script = self.script();
        if script.stuck {
            return Err(Error::device("script", "cannot be reset"));
        }
        script.running.clear();
        script.resetting = false;
        Ok(())
    }
    fn is_silent(&self) -> bool {
        self.script().running.is_empty()
    }
    fn restore(&mut self, _: &Settings) -> Result<()> {
        if self.script().refuses { Err(Error::device("script", "refused")) } else { Ok(()) }
    }
    fn set_mac(&mut self, _: MacAddr) -> Result<()> {
        Ok(())
    }
    fn set_vlan(&mut self, _: u16, _: bool) -> Result<()> {
        Ok(())
    }
    fn set_multicast(&mut self, _: &[MacAddr]) -> Result<()> {
        Ok(())
    }
    fn set_unicast(&mut self, _: &[MacAddr]) -> Result<()> {
        Ok(())
    }
    fn set_promiscuous(&mut self, _: bool, _: bool) -> Result<()> {
        Ok(())
    }
    fn start_rings(&mut self, rx: &[RingPlan], tx: &[RingPlan]) -> Result<()> {
        let act = self.script().at_start.take();
        if let Some(act) = act {
            act();
        }
        let queues = |rings: &[RingPlan]| rings.iter().map(|ring| ring.queue).collect();
        self.script().started.push((queues(rx), queues(tx)));
        self.script().running.extend(rx.iter().map(|ring| ring.queue));
        Ok(())
    }
    fn rx_doorbell(&mut self, _: u16) -> Result<Doorbell> {
        Ok(doorbell())
    }
    fn tx_doorbell(&mut self, _: u16) -> Result<Doorbell> {
        Ok(doorbell())
    }
    fn arm_doorbell(&mut self, _: u16) -> Result<(Doorbell, u32)> {
        Ok((doorbell(), 1))
    }
    fn start_interrupts(&mut self, _: &[RingPlan]) -> Result<()> {
        Ok(())
    }
    fn check(&mut self) -> Health {
        if self.script().resetting { Health::Resetting } else { Health::Running(Link::default()) }
    }
    fn counters(&mut self) -> Counters {
        Counters::default()
    }
}

impl Bus for Scripted {
    crate::mmio::nothing_behind!();

    fn name(&self) -> &str {
        "script"
    }
    fn id(&self) -> PciId {
        PciId { vendor: 0, device: 0 }
    }
    fn bar_len(&self) -> u32 {
        0
    }
    fn read32(&mut self, _: Reg) -> u32 {
        0
    }
    fn write32(&mut self, _: Reg, _: u32) {}
    fn doorbell(&mut self, _: Reg) -> Result<Doorbell> {
        Ok(doorbell())
    }
    fn map_dma(&mut self, region: &Arc<HugeRegion>) -> Result<Iova> {
        self.script().mapped += 1;
        Ok(Iova(region.addr() as u64))
    }
    fn unmap_dma(&mut self, _: &Arc<HugeRegion>) -> Result<()> {
        self.script().mapped -= 1;
        Ok(())
    }
    fn reset_function(&mut self) -> Result<bool> {
        Ok(true)
    }
    fn now(&self) -> Duration {
        self.script().time
    }
    fn pause(&mut self, time: Duration) {
        let act = self.script().at_pause.take();
        if let Some(act) = act {
            act();
        }
        self.script().time += time;
    }
}

fn pool(port: &Port) -> Mempool {
    Mempool::builder().buffers(port.buffers_needed()).on(&[port]).unwrap()
}

/// A queue as far as the state is concerned: true when it may work.
fn poll(link: &Mutex<QueueLink>) -> bool {
    let mut link = link.lock().unwrap();
    link.is_current() || {
        link.look();
        link.is_current()
    }
}

#[test]
fn a_queue_that_answers_while_the_others_are_programmed_is_not_enabled_with_them() {
    let (port, script) = Scripted::port(PortConfig::new().queues(2, 1));
    let pool = pool(&port);
    let StartParts { mut control, rx, tx, .. } = port.start_parts(&pool).unwrap();
    let mut links = rx.into_iter().map(|parts| Arc::new(Mutex::new(parts.link)));
    let (prompt, late) = (links.next().unwrap(), links.next().unwrap());
    let sender = Mutex::new(tx.into_iter().next().unwrap().link);
    assert!(poll(&prompt) && poll(&late) && poll(&sender));

    script.lock().unwrap().resetting = true;
    assert_eq!(control.service(), PortState::Resetting);
    assert!(!poll(&prompt) && !poll(&sender));
    script.lock().unwrap().time += LONG;
    let answers = late.clone();
    script.lock().unwrap().at_start = Some(Box::new(move || assert!(!poll(&answers))));
    assert_eq!(control.service(), PortState::Running);
    assert!(script.lock().unwrap().at_start.is_none(), "the late queue has answered meanwhile");
    assert_eq!(script.lock().unwrap().running, [0]);
    assert!(poll(&prompt) && poll(&sender));
    assert!(!poll(&late), "its ring is not programmed");
    assert_eq!(control.waiting_for(), ["receive queue 1"]);
    control.service();
    assert_eq!(script.lock().unwrap().running, [0, 1]);
    assert!(poll(&late));
    assert!(control.waiting_for().is_empty());
}

#[test]
fn paired_queues_start_together_once_both_have_let_go() {
    let (port, script) = Scripted::port_with(PortConfig::new().queues(2, 2), true);
    let pool = pool(&port);
    let StartParts { mut control, rx, tx, .. } = port.start_parts(&pool).unwrap();
    assert_eq!(std::mem::take(&mut script.lock().unwrap().started), [(vec![0, 1], vec![0, 1])]);
    let rx: Vec<_> = rx.into_iter().map(|parts| Mutex::new(parts.link)).collect();
    let tx: Vec<_> = tx.into_iter().map(|parts| Mutex::new(parts.link)).collect();
    assert!(rx.iter().chain(&tx).all(poll));
    script.lock().unwrap().resetting = true;
    control.service();
    // Transmit queue 1 stays silent.
    assert!(![&rx[0], &rx[1], &tx[0]].into_iter().any(poll));
    script.lock().unwrap().time += LONG;
    assert_eq!(control.service(), PortState::Running);
    assert_eq!(std::mem::take(&mut script.lock().unwrap().started), [(vec![0], vec![0])]);
    assert!(poll(&rx[0]) && poll(&tx[0]) && !poll(&rx[1]));
    control.service();
    assert!(script.lock().unwrap().started.is_empty(), "its partner may still ring");
    assert!(!poll(&tx[1]));
    control.service();
    assert_eq!(std::mem::take(&mut script.lock().unwrap().started), [(vec![1], vec![1])]);
    assert!(rx.iter().chain(&tx).all(poll));

    // One that was dropped holds nobody up.
    script.lock().unwrap().resetting = true;
    control.service();
    assert!(!rx.iter().chain(&tx[..1]).any(poll));
    drop(tx);
    control.service();
    assert_eq!(std::mem::take(&mut script.lock().unwrap().started), [(vec![0, 1], vec![])]);
}

#[test]
fn a_device_that_cannot_be_reset_keeps_every_byte_that_it_was_given() {
    let (port, script) = Scripted::port(PortConfig::new());
    let pool = pool(&port);
    let StartParts { control, rx, tx, .. } = port.start_parts(&pool).unwrap();
    let rx: RxQueue<crate::drivers::igbvf::IgbRx> =
        RxQueue::new(rx.into_iter().next().unwrap(), Default::default()).unwrap();
    let in_ring = pool.capacity() - pool.available();
    assert!(in_ring > 0);
    // The pool and the rings.
    assert_eq!(script.lock().unwrap().mapped, 2);
    drop((rx, tx));
    script.lock().unwrap().stuck = true;
    assert!(control.stop(Duration::ZERO).is_err());
    assert_eq!(script.lock().unwrap().mapped, 2, "the device may still write there");
    assert_eq!(pool.capacity() - pool.available(), in_ring);
}

#[test]
fn a_start_that_fails_half_way_waits_for_nobody_and_unmaps_everything() {
    let (port, script) = Scripted::port(PortConfig::new().queues(2, 2));
    let pool = pool(&port);
    script.lock().unwrap().refuses = true;
    assert!(port.start_parts(&pool).is_err());
    let script = script.lock().unwrap();
    assert_eq!((script.time, script.mapped), (Duration::ZERO, 0));
}

#[test]
fn a_stopped_port_unmaps_its_rings_and_a_closed_one_its_pools() {
    let (port, script) = Scripted::port(PortConfig::new());
    let pool = pool(&port);
    let StartParts { control, .. } = port.start_parts(&pool).unwrap();
    let port = control.stop(Duration::ZERO).unwrap();
    assert_eq!(script.lock().unwrap().mapped, 1);
    drop(port);
    assert_eq!(script.lock().unwrap().mapped, 0);
}

#[test]
fn a_queue_that_let_go_when_the_port_stopped_does_not_hold_the_next_start_up() {
    let (port, script) = Scripted::port(PortConfig::new());
    let pool = pool(&port);
    let StartParts { control, rx, tx, .. } = port.start_parts(&pool).unwrap();
    let links: Vec<_> = rx.into_iter().map(|p| p.link).chain(tx.into_iter().map(|p| p.link)).map(Mutex::new).collect();
    assert!(links.iter().all(poll));
    // They see Stopping, and then nobody polls them again.
    script.lock().unwrap().at_pause = Some(Box::new(move || {
        assert!(!links.iter().any(poll));
        std::mem::forget(links);
    }));
    let port = control.stop(LONG).unwrap();
    assert!(script.lock().unwrap().time < LONG, "nothing is left to wait for");
    assert!(port.start_parts(&pool).is_ok());
}

#[test]
fn a_queue_that_never_let_go_holds_the_next_start_up_and_is_named() {
    let (port, _) = Scripted::port(PortConfig::new());
    let pool = pool(&port);
    let StartParts { control, rx, tx, .. } = port.start_parts(&pool).unwrap();
    let [rx, tx]: [Vec<_>; 2] = [rx.into_iter().map(|p| p.link).collect(), tx.into_iter().map(|p| p.link).collect()];
    let [rx, tx] = [rx, tx].map(|links| links.into_iter().map(Mutex::new).collect::<Vec<_>>());
    assert!(rx.iter().chain(&tx).all(poll));
    let port = control.stop(Duration::ZERO).unwrap();
    assert!(!tx.iter().any(poll));
    let error = port.start_parts(&pool).map(drop).unwrap_err().to_string();
    assert!(error.contains("receive queue 0") && !error.contains("transmit"), "{error}");
}
