//! Vectors, masks and the interrupt doorbell.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::*;

struct Vectors(Vec<OwnedFd>);

impl Vectors {
    fn connect(rig: &mut Rig) -> Self {
        let eventfd = || {
            // SAFETY: eventfd(2) takes no pointer; the descriptor that it returns is nobody else's.
            unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)) }
        };
        let fds: Vec<OwnedFd> = (0..3).map(|_| eventfd()).collect();
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        rig.bus.connect_vectors(&borrowed).unwrap();
        Vectors(fds)
    }

    /// Messages since the last call, by vector.
    fn take(&self) -> [u64; 3] {
        std::array::from_fn(|v| {
            let mut count = [0u8; 8];
            // SAFETY: `count` has the 8 bytes that an eventfd gives.
            let got = unsafe { libc::read(self.0[v].as_raw_fd(), count.as_mut_ptr().cast(), 8) };
            if got == 8 { u64::from_ne_bytes(count) } else { 0 }
        })
    }
}

#[test]
fn a_received_frame_sends_one_message_until_it_is_armed_again() {
    let mut rig = Rig::running(Part::I82576);
    let vectors = Vectors::connect(&mut rig);
    rig.write(0x1700, 0x80 | 0x81 << 8); // Rx0 on vector 0, Tx0 on vector 1
    rig.write(0x152c, 7);
    rig.write(0x1530, 7);
    rig.world.inject(rig.port, &frame(60));
    assert_eq!(vectors.take(), [0, 0, 0], "masked");
    rig.ring(0x1524, 1);
    assert_eq!(vectors.take(), [1, 0, 0], "pending when it was unmasked");
    rig.world.inject(rig.port, &frame(60));
    rig.world.inject(rig.port, &frame(60));
    assert_eq!(vectors.take(), [0, 0, 0], "EIAM masked it");
    rig.ring(0x1524, 1);
    rig.ring(0x1524, 1);
    assert_eq!(vectors.take(), [1, 0, 0], "EIAC cleared the cause, so the second unmasking finds none");
    rig.write(0x1524, 2);
    rig.send_plain(&frame(60));
    assert_eq!(vectors.take(), [0, 1, 0]);
    assert_eq!(rig.read(0x1524), 1);
    rig.write(0x1528, 7);
    assert_eq!(rig.read(0x1524), 0);
    rig.end_clean();
}

#[test]
fn causes_can_be_set_and_are_cleared_by_reading_or_writing_them() {
    let mut rig = Rig::open(Part::I82576);
    let vectors = Vectors::connect(&mut rig);
    rig.write(0x1524, 4);
    rig.write(0x1520, 0xffff_fff5);
    assert_eq!(vectors.take(), [0, 0, 1]);
    rig.write(0x1580, 1);
    assert_eq!((rig.read(0x1580), rig.read(0x1580)), (4, 0));
    assert_eq!((rig.read(0x1520), rig.read(0x1528)), (0, 0));
    rig.write(0x1680, 488);
    assert_eq!(rig.read(0x1680), 488);
    rig.end_clean();
}

#[test]
fn the_mailbox_has_a_vector_and_disconnected_vectors_are_silent() {
    let mut rig = Rig::running(Part::I82576);
    let vectors = Vectors::connect(&mut rig);
    rig.write(0x1740, 0x82);
    rig.write(0x152c, 7);
    rig.write(0x1524, 4);
    assert_eq!(rig.ask(&[5, 1522]), Some([0xa000_0005]));
    assert_eq!(vectors.take(), [0, 0, 2], "ACK and reply");
    rig.bus.connect_vectors(&[]).unwrap();
    rig.world.link(rig.port, false);
    rig.pause(Duration::from_millis(1));
    assert_eq!(vectors.take(), [0, 0, 0]);
    assert_eq!(rig.read(0x1580), 4, "no message, so nothing was cleared by it");
    let many: Vec<_> = vectors.0.iter().chain(&vectors.0).map(AsFd::as_fd).collect();
    assert!(rig.bus.connect_vectors(&many).is_err());
    rig.end_clean();
}
