//! Interrupts: ICR01, DYN_CTL, and the vectors as eventfds.

use std::io::Read;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use super::*;

const INTENA: u32 = 1;
const CLEARPBA: u32 = 2;
const ADMINQ: u32 = 1 << 30;

struct Fds(Vec<std::fs::File>);

fn connect(rig: &mut Rig) -> Fds {
    let fds: Vec<OwnedFd> = (0..3)
        .map(|_| {
            // SAFETY: creates a descriptor and touches no memory; it is owned by nobody else.
            unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)) }
        })
        .collect();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    rig.bus.connect_vectors(&borrowed).unwrap();
    Fds(fds.into_iter().map(Into::into).collect())
}

impl Fds {
    /// How often each vector fired since the last call.
    fn fired(&mut self) -> Vec<u64> {
        let mut count = [0; 8];
        self.0.iter_mut().map(|f| f.read(&mut count).map_or(0, |_| u64::from_ne_bytes(count))).collect()
    }
}

#[test]
fn every_message_interrupts_whether_or_not_the_cause_is_read() {
    for read_cause in [false, true] {
        let mut rig = Rig::open(options(AvfPart::E810));
        let mut fds = connect(&mut rig);
        rig.write(0x5c00, INTENA | CLEARPBA | 3 << 3);
        rig.write(0x5000, ADMINQ);
        for _ in 0..3 {
            rig.post(1, &bytes().u32s(&[1, 1]).0);
            rig.pause(Duration::from_millis(1));
            assert_eq!(fds.fired(), [1, 0, 0]);
            assert_eq!(rig.read(0x5c00) & INTENA, 0, "fires once");
            assert!(rig.hear().is_some());
            if read_cause {
                assert_eq!((rig.read(0x4800), rig.read(0x4800)), (ADMINQ, 0));
            }
            rig.write(0x5c00, INTENA | CLEARPBA | 3 << 3);
        }
        rig.end_clean();
    }
}

#[test]
fn a_message_while_the_cause_is_disabled_waits() {
    let mut rig = Rig::open(options(AvfPart::Xl710));
    let mut fds = connect(&mut rig);
    rig.write(0x5c00, INTENA | 3 << 3);
    rig.post(1, &bytes().u32s(&[1, 1]).0);
    rig.pause(Duration::from_millis(1));
    assert_eq!((fds.fired(), rig.read(0x5000)), (vec![0, 0, 0], 0));
    rig.write(0x5000, ADMINQ);
    assert_eq!(fds.fired(), [1, 0, 0]);
    assert_eq!(rig.read(0x4800), ADMINQ);
    rig.end_clean();
}

#[test]
fn queues_interrupt_through_their_vector() {
    let mut rig = Rig::running(AvfPart::E810);
    let mut fds = connect(&mut rig);
    assert!(rig.inject(&frame(60)));
    assert_eq!(fds.fired(), [0, 0, 0], "not enabled");
    rig.write(0x3800, INTENA | CLEARPBA);
    assert_eq!(fds.fired(), [0, 0, 0], "the write forgot what was pending");
    assert!(rig.inject(&frame(60)) && rig.inject(&frame(60)));
    assert_eq!(fds.fired(), [0, 1, 0], "once");
    rig.ring(0x3800, INTENA);
    assert_eq!(fds.fired(), [0, 1, 0], "the second one was pending; the cell acts as the register does");
    rig.write(0x3800, INTENA);
    rig.send_plain(&frame(60));
    assert_eq!(fds.fired(), [0, 1, 0], "transmit, where RS was");
    rig.write(0x3804, INTENA | 4);
    assert_eq!(fds.fired(), [0, 0, 1], "by software");
    rig.end_clean();
}

#[test]
fn intena_is_left_alone_where_the_mask_says_so_and_intervals_show() {
    for (part, itr1) in [(AvfPart::Xl710, 0x2840), (AvfPart::E810, 0x2804)] {
        let mut rig = Rig::running(part);
        rig.write(0x3800, INTENA);
        rig.write(0x3800, 1 << 31 | 1 << 30 | 1 << 3 | 62 << 5);
        assert_eq!(rig.read(0x3800), INTENA | 1 << 30 | 1 << 3 | 62 << 5);
        assert_eq!((rig.read(itr1), rig.read(0x2800)), (62, 0), "2 was overwritten by the write before");
        rig.write(0x5c00, 2 << 5);
        assert_eq!(rig.read(0x4c00), 2);
        rig.end_clean();
    }
}

#[test]
fn traffic_on_vector_0_where_the_pf_allows_it() {
    let mut rig = Rig::running(AvfPart::Xl710);
    let mut fds = connect(&mut rig);
    let map = bytes().u16s(&[1, rig.vsi, 0, 1, 1, 0, 0]).u8s(&[0; 12]);
    rig.done(7, map);
    rig.read(0x4800);
    rig.write(0x5c00, INTENA);
    fds.fired();
    assert!(rig.inject(&frame(60)));
    assert_eq!((fds.fired(), rig.read(0x4800)), (vec![1, 0, 0], 1));
    rig.end_clean();
}
