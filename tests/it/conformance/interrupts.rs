//! Sleeping on an interrupt: nothing that happens between the last poll and the sleep is lost.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use vfring::{Burst, PortConfig, PortState};
use vfring_tests::bed::*;

/// Longer than any test takes, so that a wake-up that was lost is seen.
const LONG: Duration = Duration::from_secs(30);

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd that lives through the call.
    (unsafe { libc::poll(&mut poll, 1, 0) }) == 1
}

fn drain(fd: BorrowedFd<'_>) {
    let mut count = [0u8; 8];
    // SAFETY: an eventfd read puts 8 bytes into `count`.
    let _ = unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), 8) };
}

/// Arms every queue, one right after the other, before the model looks. What happened while they were masked interrupts
/// at once and masks again, so it takes two rounds.
fn arm(s: &mut Station) {
    for _ in 0..2 {
        s.rx.iter_mut().for_each(|rx| rx.rearm());
        s.world.step();
        s.rx.iter().for_each(|rx| drain(rx.event_fd().unwrap()));
    }
}

fn config() -> PortConfig {
    PortConfig::new().interrupts(true)
}

#[test]
fn a_frame_after_arming_makes_the_descriptor_readable() {
    let world = world("arming");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), config());
        let f = frame(s.mac(), PEER, 60, 1);
        drain(s.rx[0].event_fd().unwrap());
        // Masked: a frame that nobody waits for does not interrupt.
        assert!(world.inject(s.id, &f));
        assert!(!readable(s.rx[0].event_fd().unwrap()));
        assert_eq!(s.receive().len(), 1);
        for _ in 0..5 {
            arm(&mut s);
            assert!(world.inject(s.id, &f));
            assert!(readable(s.rx[0].event_fd().unwrap()), "an armed vector fires");
            drain(s.rx[0].event_fd().unwrap());
            assert!(world.inject(s.id, &f));
            assert!(!readable(s.rx[0].event_fd().unwrap()), "once, and is masked until the next arming");
            assert_eq!(s.receive().len(), 2);
        }
        s.finish();
    }
}

#[test]
fn a_frame_between_the_poll_and_the_arming_is_not_lost() {
    let world = world("between");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), config());
        let f = frame(s.mac(), PEER, 60, 1);
        for _ in 0..5 {
            assert!(s.receive().is_empty());
            assert!(world.inject(s.id, &f));
            let mut burst = Burst::new();
            let before = Instant::now();
            assert_eq!(s.rx[0].sleep(&mut s.cache, &mut burst, LONG).unwrap(), 1);
            assert!(before.elapsed() < LONG / 3);
            s.cache.free(&mut burst);
        }
        s.finish();
    }
}

#[test]
fn the_first_thing_a_program_does_may_be_to_sleep() {
    let world = world("first_sleep");
    for part in PARTS {
        let id = options(part, 1).add_to(&world);
        let port = vfring::Port::open(&world.spec(id), config()).unwrap();
        let pool = pool_for(&port, 2048);
        let vfring::Started { control, mut rx, tx } = port.start(&pool).unwrap();
        let mut cache = pool.cache();
        let mut burst = Burst::new();
        // As a program that waits on several descriptors does: arm, poll once more, wait.
        rx[0].rearm();
        assert_eq!(rx[0].burst(&mut cache, &mut burst), 0);
        world.step();
        drain(rx[0].event_fd().unwrap());
        assert!(world.inject(id, &frame(control.mac(), PEER, 60, 1)));
        assert!(readable(rx[0].event_fd().unwrap()), "the wake-up was lost");
        assert_eq!(rx[0].burst(&mut cache, &mut burst), 1);
        drop((burst, cache, rx, tx));
        drop(control.stop(DEADLINE).unwrap());
        assert_home(&pool);
    }
    assert_no_violations(&world);
}

#[test]
fn a_sleeping_thread_wakes_on_a_frame() {
    let world = world("sleeping");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), config());
        let mut rx = s.rx.remove(0);
        let pool = s.pool.clone();
        let f = frame(s.mac(), PEER, 60, 1);
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            let mut cache = pool.cache();
            let mut burst = Burst::new();
            while asked.recv().is_ok() {
                let before = Instant::now();
                while rx.sleep(&mut cache, &mut burst, LONG).unwrap() == 0 && before.elapsed() < LONG {}
                tell.send((burst.len(), before.elapsed())).unwrap();
                cache.free(&mut burst);
            }
            rx
        });
        for _ in 0..50 {
            ask.send(()).unwrap();
            assert!(world.inject(s.id, &f));
            // The model looks at the mask whenever it is stepped; the thread may arm at any time.
            let (got, slept) = loop {
                world.step();
                if let Ok(answer) = told.try_recv() {
                    break answer;
                }
                std::thread::yield_now();
            };
            assert_eq!(got, 1);
            assert!(slept < LONG / 3, "woken after {slept:?}");
        }
        drop(ask);
        s.rx.push(sleeper.join().unwrap());
        s.finish();
    }
}

#[test]
fn a_sleeping_thread_wakes_on_every_change_of_state() {
    let world = world("state_wakes");
    for part in PARTS {
        let mut s = Station::new(&world, options(part, 1), config());
        let mut rx = s.rx.remove(0);
        let pool = s.pool.clone();
        let (tell, told) = std::sync::mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            let mut cache = pool.cache();
            let mut burst = Burst::new();
            loop {
                let before = Instant::now();
                let got = rx.sleep(&mut cache, &mut burst, LONG).unwrap();
                if tell.send((got, before.elapsed())).is_err() {
                    return rx;
                }
                cache.free(&mut burst);
            }
        });
        let woken = |told: &std::sync::mpsc::Receiver<(usize, Duration)>| {
            let (got, slept) = told.recv().unwrap();
            assert!(slept < LONG / 3, "woken after {slept:?}");
            got
        };
        world.pf_reset(s.id);
        assert_eq!(s.control.service(), PortState::Resetting);
        woken(&told);
        world.pf_reset_done(s.id);
        // The transmit queues let go; the sleeper may still have to, before its time is over.
        while s.control.service() == PortState::Resetting {
            s.reclaim();
            world.step();
        }
        woken(&told);
        // A frame through the rebuilt ring wakes it again.
        let f = frame(s.mac(), PEER, 60, 1);
        while !world.inject(s.id, &f) {
            world.step();
        }
        let mut got = 0;
        while got == 0 {
            world.step();
            if let Ok((n, slept)) = told.try_recv() {
                assert!(slept < LONG / 3);
                got = n;
            }
        }
        drop(told);
        let Station { control, rx, tx, cache, pool, world, .. } = s;
        drop((rx, tx, cache));
        // Stopping wakes it once more; it finds nobody to tell and returns.
        let port = control.stop(DEADLINE).unwrap();
        drop(sleeper.join().unwrap());
        drop(port);
        assert_home(&pool);
        assert_no_violations(&world);
    }
}

#[test]
fn each_queue_has_its_own_vector() {
    let world = world("two_vectors");
    let rss = Vf { rss: true, ..options(Part::I82576, 1) };
    let mut s = Station::new(&world, rss, config().queues(2, 1));
    let flow = |n: u16| {
        let mut f = Vec::new();
        let builder = etherparse::PacketBuilder::ethernet2(PEER.0, mac(1).0);
        builder.ipv4([198, 18, 0, 1], [198, 18, 0, 2], 64).udp(n, 9).write(&mut f, &[0; 30]).unwrap();
        f
    };
    let mut by_queue = [None, None];
    for n in 0..64 {
        let got = s.deliver(&flow(n)).unwrap();
        by_queue[usize::from(got.queue)] = Some(got.bytes);
    }
    let frames = by_queue.map(Option::unwrap);
    for wanted in [0, 1] {
        arm(&mut s);
        assert!(world.inject(s.id, &frames[wanted]));
        let fired = [0, 1].map(|q: usize| readable(s.rx[q].event_fd().unwrap()));
        assert_eq!(fired, [wanted == 0, wanted == 1]);
        assert_eq!(s.receive().len(), 1);
        assert!(world.inject(s.id, &frames[1 - wanted]));
        assert!(readable(s.rx[1 - wanted].event_fd().unwrap()), "the other was armed too");
        assert_eq!(s.receive().len(), 1);
    }
    s.finish();
}

#[test]
fn the_controls_descriptor_tells_of_the_pf() {
    let world = world("mailbox_fd");
    for part in PARTS {
        for config in [config(), PortConfig::new()] {
            let mut s = Station::new(&world, options(part, 1), config);
            s.run(2);
            assert!(!readable(s.control.as_fd()), "service reads the descriptor");
            world.link(s.id, false);
            world.advance(Duration::from_millis(1));
            assert!(readable(s.control.as_fd()), "the PF pings when the link changes");
            s.control.service();
            assert!(!s.control.link().up && !readable(s.control.as_fd()));
            world.link(s.id, true);
            world.advance(Duration::from_millis(1));
            assert!(readable(s.control.as_fd()));
            s.run(1);
            world.pf_reset(s.id);
            world.pf_reset_done(s.id);
            s.run(5);
            assert_eq!((s.control.state(), s.stats().recoveries), (PortState::Running, 1));
            // The vectors are set up again after a reset.
            world.link(s.id, false);
            world.advance(Duration::from_millis(1));
            assert!(readable(s.control.as_fd()));
            s.finish();
        }
    }
}

#[test]
fn without_interrupts_a_queue_cannot_sleep() {
    let world = world("polling");
    let mut s = Station::new(&world, options(Part::I82576, 1), PortConfig::new());
    assert!(s.rx[0].event_fd().is_none());
    let text = one_line(&s.rx[0].sleep(&mut s.cache, &mut Burst::new(), LONG).unwrap_err());
    assert!(text.contains("interrupts(true)"), "{text}");
    s.rx[0].rearm();
    s.finish();
}

#[test]
fn sleeping_on_a_stopped_port_returns_when_the_time_is_over() {
    let world = world("stopped_sleep");
    let s = Station::new(&world, options(Part::I350, 1), config());
    let Station { control, mut rx, tx, mut cache, pool, .. } = s;
    let port = control.stop(DEADLINE).unwrap();
    // The change of state is one wake-up; after it only the time ends a sleep.
    for _ in 0..3 {
        let got = rx[0].sleep(&mut cache, &mut Burst::new(), Duration::from_millis(5)).unwrap();
        assert_eq!(got, 0);
    }
    drop((rx, tx, cache, port));
    assert_home(&pool);
    assert_no_violations(&world);
}
