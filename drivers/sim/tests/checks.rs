//! Every check of the model fires on a deliberate mistake, and says what it was.
#![forbid(unsafe_code)]

use super::*;

/// What the violation says, and what a driver does wrong on a running port.
type Mistake = (&'static str, fn(&mut Rig));

fn each_is_found(part: Part, mistakes: &[Mistake]) {
    for (says, make) in mistakes {
        let mut rig = Rig::running(part);
        make(&mut rig);
        rig.end_with(says);
    }
}

/// Sends these descriptors; they get the IOVA of a buffer with a frame of 100 bytes.
fn send(rig: &mut Rig, descriptors: impl Fn(u64) -> Vec<[u64; 2]>) {
    let at = rig.fill(0, &frame(100));
    rig.send(&descriptors(at));
    assert!(rig.sent().is_empty(), "a forbidden frame was sent");
}

#[test]
fn registers_that_do_not_exist_or_are_read_only() {
    each_is_found(
        Part::I82576,
        &[
            ("read of no register 0x0010", |rig| assert_eq!(rig.read(0x10), 0)),
            ("write of 0x1 to no register 0x2c00", |rig| rig.write(0x2c00, 1)),
            ("STATUS is read only", |rig| rig.write(8, 0)),
        ],
    );
    each_is_found(Part::I350, &[("read of RDBAL(1)", |rig| assert_eq!(rig.read(0x2900), 0))]);
    let mut rig = Rig::open(Part::I82576);
    assert_eq!((rig.read(0x4000), rig.read(2)), (u32::MAX, u32::MAX), "outside the BAR, unaligned");
    rig.end_clean();
}

#[test]
fn the_mailbox_without_ownership() {
    each_is_found(
        Part::I82576,
        &[
            ("mailbox buffer written without owning it", |rig| rig.write(0x800, 1)),
            ("REQ written without owning", |rig| rig.write(0xc40, 1)),
        ],
    );
}

#[test]
fn queues_enabled_too_early_or_wrongly() {
    each_is_found(
        Part::I82576,
        &[
            ("TXDCTL(0).ENABLE before the reset handshake", |rig| {
                rig.write(0, 1 << 26);
                rig.write(0x3814, 0);
                rig.write(0x3828, 1 << 25);
            }),
            ("ENABLE without Bus Master", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.bus.set_bus_master(false).unwrap();
                rig.write(0x2828, 1 << 25 | 1 << 16);
            }),
            ("WTHRESH is 0: an 82576 VF needs 1", |rig| {
                rig.write(0x2828, 0);
                rig.write(0x2828, 1 << 25);
            }),
            ("TXCTL bit 11", |rig| {
                rig.write(0x3828, 0);
                rig.write(0x3814, 1 << 11);
                rig.write(0x3828, 1 << 25);
            }),
            ("without writing 0 to TDWBAL", |rig| {
                rig.write(0x3828, 0);
                rig.write(0x3838, 1);
                rig.write(0x3828, 1 << 25);
            }),
            ("DESCTYPE 2", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.write(0x280c, 2 | 2 << 25);
                rig.write(0x2828, 1 << 25 | 1 << 16);
            }),
            ("a ring of 0 descriptors", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.write(0x2808, 0);
                rig.write(0x2828, 1 << 25 | 1 << 16);
            }),
            ("ring outside device memory", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.write(0x2804, 0);
                rig.write(0x2828, 1 << 25 | 1 << 16);
            }),
            ("head 64 past its end", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.write(0x2810, N);
                rig.write(0x2828, 1 << 25 | 1 << 16);
            }),
            ("RXDCTL(0) 0x00010020 has reserved bits", |rig| rig.write(0x2828, 1 << 16 | 0x20)),
            ("SRRCTL 0x12000082 has reserved bits", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.write(0x280c, 0x82 | 1 << 25 | 1 << 28);
            }),
            ("is not a multiple of 128 bytes", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.write(0x2800, rig.iova as u32 + 64);
            }),
            ("ring length 0x410 is not a multiple", |rig| {
                rig.write(0x3828, 0);
                rig.write(0x3808, 0x410);
            }),
            ("written while it is enabled", |rig| rig.write(0x2808, N * 16)),
            ("SRRCTL written while the queue is enabled", |rig| rig.write(0x280c, 2 | 1 << 25)),
            ("head written while it is the device's", |rig| rig.write(0x2810, 0)),
        ],
    );
}

#[test]
fn a_tx_queue_started_without_writing_tdwbal_or_txctl() {
    for (skipped, says) in [(0x3838, "TDWBAL"), (0x3814, "TXCTL bit 11")] {
        let mut rig = Rig::open(Part::I82576);
        rig.reset();
        let base = rig.iova + TX_RING;
        let writes = [(0x3800, base as u32), (0x3804, (base >> 32) as u32), (0x3808, N * 16), (0x3814, 0), (0x3838, 0)];
        for (offset, value) in writes.into_iter().filter(|(offset, _)| *offset != skipped) {
            rig.write(offset, value);
        }
        rig.write(0x383c, 0);
        rig.write(0x3828, 1 << 25);
        rig.end_with(says);
    }
}

#[test]
fn tails() {
    each_is_found(
        Part::I82576,
        &[
            ("tail 64 of rx queue 0 is past the end", |rig| rig.ring(0x2818, N)),
            ("went from 63 to 0, past the head at 0", |rig| rig.ring(0x2818, 0)),
            ("tail 5 of tx queue 0 written while it is disabled", |rig| {
                rig.write(0x3828, 0);
                rig.ring(0x3818, 5);
            }),
            ("tail 7 of rx queue 0 written while it is disabled", |rig| {
                rig.write(0, 1 << 26);
                rig.write(0x2818, 7);
            }),
        ],
    );
    // A tail of 0 and a doorbell after a reset that the driver does not know of are no mistakes.
    let mut rig = Rig::running(Part::I82576);
    rig.write(0x2828, 1 << 16);
    rig.write(0x2818, 0);
    rig.end_clean();
}

#[test]
fn receive_buffers() {
    each_is_found(
        Part::I82576,
        &[
            ("rx queue 0 descriptor 1: the buffer at IOVA", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.start_rx(2);
                rig.set_rx(0, RX_BUFFERS);
                rig.set_rx(1, RX_BUFFERS + 100);
                rig.ring(0x2818, 2);
            }),
            ("rx descriptor 0: DMA outside every mapping", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.start_rx(2);
                // One byte too few for the longest frame that comes in: 1518 bytes and a tag.
                rig.store(RX_RING, [rig.iova + MEMORY as u64 - 1521, 0]);
                rig.ring(0x2818, 1);
                assert!(!rig.world.inject(rig.port, &frame(60)));
            }),
            ("runs past the end of the address space", |rig| {
                rig.write(0x2828, 1 << 16);
                rig.start_rx(2);
                rig.store(RX_RING, [u64::MAX - 1, 0]);
                rig.ring(0x2818, 1);
            }),
            ("bit 0 of the header address (DD) set", |rig| {
                let [address, _] = rig.load(RX_RING);
                rig.store(RX_RING, [address, 1]);
                assert!(!rig.world.inject(rig.port, &frame(60)));
            }),
            ("descriptor 0 was changed", |rig| {
                rig.set_rx(0, RX_BUFFERS + 63 * 2048);
                rig.world.inject(rig.port, &frame(60));
            }),
            ("armed (at", |rig| {
                // A transmit buffer that the receive ring still has.
                let at = rig.iova + RX_BUFFERS + 512;
                rig.send(&[data(at, 60, 60, EOP | RS, 0)]);
            }),
        ],
    );
}

#[test]
fn transmit_descriptors() {
    each_is_found(
        Part::I82576,
        &[
            ("DMA outside every mapping", |rig| send(rig, |_| vec![data(0x1000, 60, 60, EOP | RS, 0)])),
            ("DEXT is clear", |rig| send(rig, |at| vec![[at, 100 | 3 << 20 | (EOP | RS) as u64 | 1 << 25]])),
            ("DTYP is neither", |rig| {
                send(rig, |at| {
                    let [a, b] = data(at, 100, 100, EOP | RS, 0);
                    vec![[a, b | 4 << 20]]
                })
            }),
            ("DTALEN 0", |rig| send(rig, |at| vec![data(at, 0, 100, 0, 0), data(at, 100, 100, EOP | RS, 0)])),
            ("PAYLEN 99 is not the sum of its buffers, 100", |rig| {
                send(rig, |at| vec![data(at, 100, 99, EOP | RS, 0)])
            }),
            ("context index above 1", |rig| send(rig, |at| vec![data(at, 100, 100, EOP | RS, 2 << 4)])),
            ("DD is set before", |rig| send(rig, |at| vec![data(at, 100, 100, EOP | RS, 1)])),
            ("reserved bits set (dword 2)", |rig| send(rig, |at| vec![data(at, 100, 100, EOP | RS | 1 << 16, 0)])),
            ("reserved bits set (dword 3)", |rig| send(rig, |at| vec![data(at, 100, 100, EOP | RS, 1 << 12)])),
            ("RS without EOP", |rig| {
                send(rig, |at| vec![data(at, 50, 100, RS, 0), data(at + 50, 50, 100, EOP | RS, 0)])
            }),
            ("IFCS is clear", |rig| {
                send(rig, |at| {
                    let [a, b] = data(at, 100, 100, EOP | RS, 0);
                    vec![[a, b & !(1 << 25)]]
                })
            }),
            ("context that was never written", |rig| send(rig, |at| vec![data(at, 100, 100, EOP | RS | VLE, 1 << 4)])),
            ("a context descriptor inside a frame", |rig| {
                send(rig, |at| vec![data(at, 50, 100, 0, 0), PLAIN.words(0), data(at + 50, 50, 100, EOP | RS, 0)])
            }),
            ("launch time set", |rig| send(rig, |_| vec![[1 << 32 | PLAIN.words(0)[0], PLAIN.words(0)[1]]])),
            ("reserved bits set in a context (dword 2)", |rig| {
                send(rig, |_| vec![[PLAIN.words(0)[0], PLAIN.words(0)[1] | 1]])
            }),
            ("reserved bits set in a context (dword 3)", |rig| {
                send(rig, |_| vec![[PLAIN.words(0)[0], PLAIN.words(0)[1] | 1 << 32]])
            }),
            ("a frame of 13 bytes", |rig| send(rig, |at| vec![data(at, 13, 13, EOP | RS, 0)])),
            ("a frame of 16384 bytes", |rig| send(rig, |at| vec![data(at, 16384, 16384, EOP | RS, 0)])),
            ("L4 checksum of no transport", |rig| {
                send(rig, |at| vec![PLAIN.words(0), data(at, 100, 100, EOP | RS, TXSM)])
            }),
            ("IP checksum with a header checksum that is not 0", |rig| {
                send(rig, |at| vec![PLAIN.words(0), data(at, 100, 100, EOP | RS, IXSM)])
            }),
            ("IP checksum with a header of 0 bytes", |rig| {
                let context = Context { ip_len: 0, ..PLAIN };
                send(rig, |at| vec![context.words(0), data(at, 100, 100, EOP | RS, IXSM)])
            }),
            ("L4 checksum with a header at 95", |rig| {
                let context = Context { ip_len: 81, l4: 1, ..PLAIN };
                send(rig, |at| vec![context.words(0), data(at, 100, 100, EOP | RS, TXSM)])
            }),
        ],
    );
}

#[test]
fn segmentation() {
    const TSO: Context = Context { l4: 1, l4_len: 20, mss: 10, ..PLAIN };
    fn tso(rig: &mut Rig, context: Context, paylen: usize, olinfo: u32) {
        send(rig, |at| vec![context.words(0), data(at, 100, paylen, EOP | RS | TSE, olinfo)]);
    }
    each_is_found(
        Part::I82576,
        &[
            ("TSO without a context", |rig| send(rig, |at| vec![data(at, 100, 46, EOP | RS | TSE, IXSM | TXSM)])),
            ("TSO with MSS 0", |rig| tso(rig, Context { mss: 0, ..TSO }, 46, IXSM | TXSM)),
            ("TSO with MSS 9217", |rig| tso(rig, Context { mss: 9217, ..TSO }, 46, IXSM | TXSM)),
            ("TSO with L4 type 0", |rig| tso(rig, Context { l4: 0, ..TSO }, 46, IXSM | TXSM)),
            ("TSO with L4 type 1 and L4LEN 0", |rig| tso(rig, Context { l4_len: 0, ..TSO }, 46, IXSM | TXSM)),
            ("TSO with PAYLEN 100 and headers of 54", |rig| tso(rig, TSO, 100, IXSM | TXSM)),
            ("TSO with MACLEN 14 and IPLEN 19", |rig| tso(rig, Context { ip_len: 19, ..TSO }, 47, IXSM | TXSM)),
            ("TSO without IXSM", |rig| tso(rig, TSO, 46, TXSM)),
        ],
    );
}

#[test]
fn an_i350_stops_a_vf_that_breaks_the_rules_and_an_82576_only_the_queue() {
    for part in [Part::I350, Part::I82576] {
        let mut rig = Rig::running(part);
        rig.send_plain(&[0; 13]);
        rig.pause(Duration::from_millis(1));
        let i350 = part == Part::I350;
        assert_eq!(rig.read(0x2828) & 1 << 25 == 0, i350);
        assert_eq!(rig.world.inject(rig.port, &frame(60)), !i350);
        assert_eq!(rig.read(0x800) == 0x100, i350, "a ping without CTS");
        rig.send_plain(&frame(60));
        assert!(rig.sent().is_empty(), "the queue stands still until a reset");
        rig.bring_up();
        rig.send_plain(&frame(60));
        assert_eq!(rig.sent().len(), 1);
        rig.end_with("a frame of 13 bytes");
    }
}

#[test]
fn memory_must_outlive_its_use() {
    let mut rig = Rig::running(Part::I82576);
    let memory = rig.memory.clone();
    rig.bus.unmap_dma(&memory).unwrap();
    assert!(rig.bus.unmap_dma(&memory).is_err(), "unmapped twice");
    assert!(!rig.world.inject(rig.port, &frame(60)), "and it is not touched");
    rig.write(0, 1 << 26);
    let world = rig.world.clone();
    drop(rig);
    let found = world.violations();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("unmapped while a buffer in it is armed in port 0 rx queue 0"), "{found:?}");
    assert!(found[1].contains("unmapped while a ring in it is enabled"), "{found:?}");
    assert!(found[2].contains("DMA outside every mapping"), "{found:?}");

    let rig = Rig::running(Part::I82576);
    let world = rig.world.clone();
    drop(rig);
    assert!(world.violations()[0].contains("closed while queues are enabled"), "{:?}", world.violations());
}

#[test]
fn a_violation_shows_the_register_accesses_before_it() {
    let mut rig = Rig::running(Part::I82576);
    rig.read(0x10);
    let text = rig.world.violations().remove(0);
    for needle in ["sim:igbvf?world=", "seed 7", "TXDCTL(0)", "<- 0x02000000", "RDT(0)"] {
        assert!(text.contains(needle), "{needle} is missing in {text}");
    }
    rig.end_with("no register");
}
