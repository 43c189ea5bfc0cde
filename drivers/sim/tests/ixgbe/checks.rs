//! Every check that only the ixgbe model makes fires on a deliberate mistake, and says what it was.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use super::*;
use crate::event::{clear, eventfd};

/// What the violation says, and what a driver does wrong on a running port.
type Mistake = (&'static str, fn(&mut Vf));

fn each_is_found(part: IxgbePart, mistakes: &[Mistake]) {
    for (says, make) in mistakes {
        let mut vf = Vf::running(options(part));
        make(&mut vf);
        vf.end_with(says);
    }
}

/// Sends these descriptors; they get the IOVA of a buffer with a frame of 100 bytes.
fn send(vf: &mut Vf, descriptors: impl Fn(u64) -> Vec<[u64; 2]>) {
    let at = vf.fill(0, &frame(100));
    vf.send(&descriptors(at));
    assert!(vf.sent().is_empty(), "a forbidden frame was sent");
}

#[test]
fn registers_that_do_not_exist_or_are_read_only() {
    each_is_found(
        IxgbePart::X540,
        &[
            ("read of no register 0x0014", |vf| assert_eq!(vf.read(0x14), 0)),
            ("read of VFMRQC", |vf| assert_eq!(vf.read(0x3000), 0)),
            ("write of 0x1 to VFRETA(0)", |vf| vf.write(0x3200, 1)),
            ("write of 0x0 to VFGPRC", |vf| vf.write(0x101c, 0)),
            ("read of no register 0x1200", |vf| assert_eq!(vf.read(0x1200), 0)),
            ("VFLINKS is read only", |vf| vf.write(0x10, 0)),
        ],
    );
    // What Linux's drivers read when they are asked for their registers.
    let mut vf = Vf::running(options(IxgbePart::X550));
    for offset in [0, 8, 0x10, 0x48, 0x104, 0x108, 0x10c, 0x110, 0x114, 0x120, 0x140, 0x300, 0x820, 0x3190] {
        vf.read(offset);
    }
    for q in 0..8 {
        for offset in [0, 4, 8, 0xc, 0x10, 0x14, 0x18, 0x28, 0x2c] {
            vf.read(0x1000 + 0x40 * q + offset);
        }
        for offset in [0, 4, 8, 0xc, 0x10, 0x18, 0x28, 0x38, 0x3c] {
            vf.read(0x2000 + 0x40 * q + offset);
        }
    }
    vf.end_clean();
}

#[test]
fn queues_enabled_too_early_or_wrongly() {
    each_is_found(
        IxgbePart::X540,
        &[
            ("TXDCTL(0).ENABLE before the reset handshake", |vf| {
                vf.write(0x2028, 0);
                vf.write(0, 1 << 26);
                vf.write(0x2028, 1 << 25);
            }),
            ("RXDCTL(4).ENABLE, but the PF granted 4 queues", |vf| vf.start_rx(4, 2, 0)),
            ("enabled with head 0 and tail 63, which a reset leaves", |vf| {
                vf.write(0x1028, 0);
                vf.write(0x1028, 1 << 25);
            }),
            ("SRRCTL.BSIZEPKT 0", |vf| {
                vf.write(0x1028, 0);
                vf.start_rx(0, 0, 0);
            }),
            ("SRRCTL.BSIZEPKT 17", |vf| {
                vf.write(0x1028, 0);
                vf.start_rx(0, 17, 0);
            }),
            ("SRRCTL 0x80000402 has reserved bits", |vf| {
                vf.write(0x1028, 0);
                vf.write(0x1014, 1 << 31 | 0x402); // DROP_EN of igb
            }),
            ("RXDCTL(0) 0x00010000 has reserved bits", |vf| vf.write(0x1028, 1 << 16)),
            ("PTHRESH 33 and WTHRESH 8: 40 descriptors fit", |vf| {
                vf.write(0x2028, 0);
                vf.write(0x2010, 0);
                vf.write(0x2018, 0);
                vf.write(0x2028, 1 << 25 | 33 | 1 << 8 | 8 << 16);
            }),
            ("DCA_TXCTRL bit 11", |vf| {
                vf.write(0x2028, 0);
                vf.write(0x2010, 0);
                vf.write(0x2018, 0);
                vf.write(0x200c, 0x2a00);
                vf.write(0x2028, 1 << 25);
            }),
            ("without writing 0 to TDWBAL", |vf| {
                vf.write(0x2028, 0);
                vf.write(0x2010, 0);
                vf.write(0x2018, 0);
                vf.write(0x2038, 1);
                vf.write(0x2028, 1 << 25);
            }),
            ("VFRSCCTL(0).RSCEN", |vf| vf.write(0x102c, 1)),
            ("VFPSRTYPE 0x00000001 has reserved bits", |vf| vf.write(0x300, 1)),
            ("ring registers of rx queue 0 written while it is enabled", |vf| {
                vf.write(0, 1 << 26);
                vf.ask::<1>(&[1]);
                vf.write(0x1008, N * 16); // still enabled: the defaults were not written
            }),
        ],
    );
    each_is_found(
        IxgbePart::X550,
        &[
            ("VFMRQC 0x00000002 has reserved bits", |vf| vf.write(0x3000, 2)),
            ("RSS switched on with queue 4 in VFRETA; the PF granted 4", |vf| {
                vf.write(0x3200, 0x0403_0201);
                vf.write(0x3000, 1);
            }),
        ],
    );
}

#[test]
fn packets_without_their_context() {
    each_is_found(
        IxgbePart::X540,
        &[
            ("CC is clear", |vf| send(vf, |at| vec![data(at, 100, 100, EOP | RS, 0)])),
            ("CC names context 1, which was never written", |vf| {
                send(vf, |at| vec![data(at, 100, 100, EOP | RS, CC | 1 << 4)])
            }),
            ("MACLEN 13", |vf| {
                send(vf, |at| vec![Context { mac_len: 13, ..PLAIN }.words(0), data(at, 100, 100, EOP | RS, CC)])
            }),
            ("CC names context 0, which was never written", |vf| {
                // A queue that was stopped forgets its contexts.
                vf.write(0x2028, 0);
                vf.start_tx(0);
                vf.send_plain(&frame(60));
            }),
            ("tunnel or IPsec fields", |vf| send(vf, |_| vec![[1 << 56 | PLAIN.words(0)[0], PLAIN.words(0)[1]]])),
            ("a frame of 9725 bytes (14 to 9724)", |vf| send(vf, |at| vec![data(at, 9725, 9725, EOP | RS, CC)])),
            ("one of a packet of more than 32", |vf| {
                vf.write(0x2028, 0);
                vf.start_tx(0);
                vf.write(0x2028, 0);
                vf.write(0x2028, 1 << 25 | 32 | 1 << 8 | 8 << 16);
                vf.write(0x820, 200);
                vf.write(0x120, 0x80 << 8);
                send(vf, |at| {
                    let piece = |i: u64, flags| data(at + i * 3, 3, 99, flags, CC);
                    let pieces = (0..33).map(|i| piece(i, if i == 32 { EOP | RS } else { 0 }));
                    [PLAIN.words(0)].into_iter().chain(pieces).collect()
                });
            }),
        ],
    );
}

#[test]
fn receive_descriptors_may_hold_what_the_last_write_back_left() {
    let mut vf = Vf::running(options(IxgbePart::X550));
    assert!(vf.world.inject(vf.port, &frame(60)));
    let [_, left] = vf.load(RX_RING);
    vf.store(RX_RING + 63 * 16, [vf.iova + RX_BUFFERS, left & 0xffff_0000_ffff_ffff]);
    vf.ring(0x1018, 0);
    for _ in 0..63 {
        assert!(vf.world.inject(vf.port, &frame(60)));
    }
    assert_eq!(vf.rx_done(63).status & 3, 3);
    vf.end_clean();
}

#[test]
fn the_ring_must_be_known_before_its_head() {
    let wrong = |vf: &mut Vf| {
        vf.write(0x1028, 0);
        vf.write(0x1008, N * 16);
        vf.write(0x1010, 0);
    };
    each_is_found(IxgbePart::X550, &[("VFRDH(0) written before VFRDLEN had reached the device", wrong)]);
    let mut vf = Vf::running(options(IxgbePart::X540));
    wrong(&mut vf);
    vf.end_clean();
}

#[test]
fn batched_write_backs_need_moderation() {
    let start = |vf: &mut Vf| {
        vf.write(0x2028, 0);
        vf.start_tx(0);
        vf.write(0x2028, 0);
        vf.write(0x2028, 1 << 25 | 32 | 1 << 8 | 8 << 16);
    };
    let mut vf = Vf::running(options(IxgbePart::X540));
    start(&mut vf);
    vf.send_context();
    vf.end_with("WTHRESH 8 and no interrupt moderation");
    let mut vf = Vf::running(options(IxgbePart::X540));
    start(&mut vf);
    vf.write(0x120, 0x81 << 8);
    vf.write(0x824, 200 | 1 << 31);
    vf.send_context();
    vf.send_plain(&frame(60));
    assert_eq!(vf.sent().len(), 1);
    vf.end_clean();
}

#[test]
fn messages_reach_the_vectors_of_their_queues() {
    let mut vf = Vf::running(options(IxgbePart::X550));
    let fds: Vec<_> = (0..3).map(|_| eventfd().unwrap()).collect();
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    vf.bus.connect_vectors(&borrowed).unwrap();
    let taken = || [0, 1, 2].map(|v: usize| clear(fds[v].as_fd()));
    vf.write(0x120, 0x81 | 0x80 << 8); // Rx0 on vector 1, Tx0 on vector 0
    vf.write(0x124, 0x82 << 16); // Rx3 on vector 2
    vf.write(0x140, 0x82);
    for offset in [0x110, 0x114, 0x108] {
        vf.write(offset, 7);
    }
    assert!(vf.world.inject(vf.port, &frame(60)));
    assert_eq!(taken(), [false, true, false]);
    assert!(vf.world.inject(vf.port, &frame(60)));
    assert_eq!((taken(), vf.read(0x108)), ([false; 3], 5), "VTEIAM masked it");
    vf.ring(0x108, 2);
    assert_eq!(taken(), [false, true, false], "the doorbell unmasks");
    vf.send_plain(&frame(60));
    assert_eq!(taken(), [true, false, false]);
    vf.world.link(vf.port, false);
    vf.pause(Duration::from_millis(1));
    assert_eq!(taken(), [false, false, true], "the mailbox");
    assert_eq!(vf.read(0x100), 0, "VTEIAC cleared the causes");
    vf.end_clean();
}
