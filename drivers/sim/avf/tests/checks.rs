//! Every check of the model fires on a deliberate mistake, and says what it was.
#![forbid(unsafe_code)]

use super::*;

/// What the violation says, and what a driver does wrong on a running port.
type Mistake = (&'static str, fn(&mut Rig));

fn each_is_found(part: AvfPart, mistakes: &[Mistake]) {
    for (says, make) in mistakes {
        let mut rig = Rig::running(part);
        make(&mut rig);
        rig.end_with(says);
    }
}

#[test]
fn registers() {
    each_is_found(
        AvfPart::E810,
        &[
            ("read of no register 0x9000", |rig| assert_eq!(rig.read(0x9000), 0)),
            ("read of VFQF_HENA(0)", |rig| assert_eq!(rig.read(0xc400), 0)),
            ("VFGEN_RSTAT is read only", |rig| rig.write(0x8800, 0)),
            ("ATQBAL written with 0x20", |rig| rig.write(0x7c00, 0x20)),
            ("ATQT written with 0x400", |rig| rig.write(0x8400, 0x400)),
            ("written with reserved bits", |rig| rig.write(0x3800, 1 << 20)),
            ("write of 0x1 to VFINT_DYN_CTLN1(16)", |rig| rig.write(0x3840, 1)),
        ],
    );
}

#[test]
fn admin_queues() {
    fn descriptor(rig: &mut Rig, words: [u64; 4]) {
        rig.store(ATQ_RING + rig.atq_next * 32, &words);
        rig.write(0x8400, (rig.atq_next as u32 + 1) % ATQ as u32);
        rig.pause(Duration::from_millis(1));
        assert_eq!(rig.read(0x6800) >> 31, 0, "the queue is stopped");
    }
    each_is_found(
        AvfPart::E810,
        &[
            ("with opcode 0x0802", |rig| descriptor(rig, [0x2000 | 0x0802 << 16, 1, 0, 0])),
            ("with DD, CMP or ERR", |rig| descriptor(rig, [0x2001 | 0x0801 << 16, 1, 0, 0])),
            ("without SI", |rig| descriptor(rig, [0x0801 << 16, 1, 0, 0])),
            ("without BUF and RD", |rig| descriptor(rig, [0x3000 | 0x0801 << 16 | 8 << 32, 1, 0, 0])),
            ("LB does not fit", |rig| descriptor(rig, [0x3400 | 0x0801 << 16 | 513 << 32, 1, 0, 0])),
            ("of more than 4096 bytes", |rig| descriptor(rig, [0x3600 | 0x0801 << 16 | 4097 << 32, 1, 0, 0])),
            ("DMA outside every mapping", |rig| descriptor(rig, [0x3400 | 0x0801 << 16 | 8 << 32, 1, 0, 0])),
            ("ATQ of 16 descriptors with head 1 and tail 16", |rig| {
                rig.write(0x6400, 1);
                rig.write(0x8400, 16);
                rig.pause(Duration::from_millis(1));
            }),
            ("ARQ descriptor 0 given without BUF", |rig| {
                rig.listen();
                assert_eq!(rig.arq_next, 0);
                rig.store(ARQ_RING, &[0x200 | 4096 << 32, 0, 0, 0]);
                rig.try_ask(51, bytes());
            }),
            ("ARQ outside device memory", |rig| {
                rig.write(0x6000, 0);
                rig.post(51, &[]);
                rig.pause(Duration::from_millis(1));
            }),
        ],
    );
}

/// Demands this status, and the violation.
fn answered(rig: &mut Rig, opcode: u32, payload: Bytes, status: i32) {
    assert_eq!(rig.ask(opcode, payload), (status, vec![]));
}

#[test]
fn messages_to_an_ice_pf() {
    each_is_found(
        AvfPart::E810,
        &[
            ("opcode 15: a message of 11 bytes", |rig| answered(rig, 15, bytes().u8s(&[0; 11]), -5)),
            ("opcode 10: a message of 12 bytes", |rig| answered(rig, 10, bytes().u8s(&[0; 12]), -5)),
            ("opcode 600: unknown", |rig| answered(rig, 600, bytes(), -5)),
            ("opcode 47: not granted", |rig| answered(rig, 47, bytes().u8s(&[0; 2616]), -64)),
            ("opcode 12: not granted", |rig| answered(rig, 12, bytes().u16s(&[rig.vsi, 1, 5, 0]), -64)),
            ("opcode 14: VSI 1", |rig| answered(rig, 14, bytes().u16s(&[1, 0]), -5)),
            ("an RSS key of 40 bytes", |rig| answered(rig, 23, bytes().u16s(&[rig.vsi, 40]).u8s(&[0; 41]), -5)),
            ("queues mapped to vector 0", |rig| {
                answered(rig, 7, bytes().u16s(&[1, rig.vsi, 0, 1, 0, 0, 0]).u8s(&[0; 12]), -5)
            }),
            ("queues 0x10 and 0x0, the VF has 4", |rig| {
                answered(rig, 8, bytes().u16s(&[rig.vsi, 0]).u32s(&[0x10, 0]), -5)
            }),
            ("rx queue 1 enabled without CONFIG_VSI_QUEUES", |rig| {
                answered(rig, 8, bytes().u16s(&[rig.vsi, 0]).u32s(&[2, 0]), -5)
            }),
            ("VLAN toggle 54 for ethertypes 0x1, 0x0", |rig| {
                answered(rig, 54, bytes().u32s(&[1, 0]).u16s(&[rig.vsi]).u8s(&[0; 6]), -5)
            }),
            ("VLAN filter with TCI 0x0", |rig| {
                let filter = bytes().u16s(&[rig.vsi, 1]).u32s(&[0]).u8s(&[0; 8]).u16s(&[100, 0, 0x8100, 0]);
                answered(rig, 52, filter.u8s(&[0; 16]), -5)
            }),
            ("opcode 51 sent before the reply to 44", |rig| {
                rig.post(44, &[]);
                rig.done(51, bytes());
            }),
        ],
    );
}

#[test]
fn messages_to_an_i40e_pf() {
    each_is_found(
        AvfPart::Xl710,
        &[
            ("opcode 47: not served", |rig| answered(rig, 47, bytes().u8s(&[0; 2616]), -60)),
            ("opcode 44: not served", |rig| answered(rig, 44, bytes(), -5)),
            ("zero or broadcast", |rig| {
                answered(rig, 10, bytes().u16s(&[rig.vsi, 1]).u8s(&[0xff; 6]).u8s(&[0; 10]), -5)
            }),
            ("promiscuous flags 0x4", |rig| answered(rig, 14, bytes().u16s(&[rig.vsi, 4]), -5)),
            ("an RSS table with queue 9", |rig| {
                answered(rig, 24, bytes().u16s(&[rig.vsi, 64]).u8s(&[9; 64]).u8s(&[0]), -5)
            }),
        ],
    );
    let mut rig = Rig::running_with(AvfOptions { in_tree: true, ..options(AvfPart::Xl710) });
    answered(&mut rig, 47, bytes().u8s(&[0; 2616]), -95);
    rig.end_with("opcode 47: not served");
    for (part, status) in [(AvfPart::Xl710, -5), (AvfPart::E810, -64)] {
        let mut rig = Rig::open(options(part));
        assert_eq!(rig.ask(15, bytes().u8s(&[0; 12])).0, status);
        rig.end_with("opcode 15: sent before GET_VF_RESOURCES");
    }
}

#[test]
fn queue_configurations() {
    /// Changes a good message for queue 0 of a stopped port at one place, as u16.
    fn changed(part: AvfPart, at: usize, value: u16, says: &str) {
        let mut rig = Rig::talking(options(part));
        let mut config = rig.queue_config(1, 1);
        config.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
        assert_eq!(rig.ask(6, config).0, -5, "{says}");
        rig.end_with(says);
    }
    for part in [AvfPart::Xl710, AvfPart::E810] {
        changed(part, 8, 1, "do not agree");
        changed(part, 8 + 26, 1, "do not agree");
        changed(part, 8 + 4, 100, "a tx ring of 100");
        changed(part, 8 + 28, 8192, "a rx ring of 8192");
        changed(part, 8 + 6, 1, "head write-back");
        changed(part, 8 + 8, 64, "not a multiple of 128 bytes");
        changed(part, 8 + 34, 1, "header split");
        changed(part, 8 + 36, 16384, "receive buffers of 16384");
        changed(part, 8 + 40, 63, "a maximum packet of 63");
    }
    changed(AvfPart::E810, 8 + 4, 32, "a tx ring of 32");
    changed(AvfPart::E810, 8 + 36, 512, "receive buffers of 512");
    changed(AvfPart::E810, 8 + 44, 0x0300, "RXDID 3");
    let mut rig = Rig::talking(options(AvfPart::Xl710));
    let mut config = rig.queue_config(1, 22);
    config.0[8 + 4..8 + 6].copy_from_slice(&8u16.to_le_bytes());
    rig.done(6, config);
    rig.end_clean();
}

#[test]
fn a_queue_without_a_vector() {
    let mut rig = Rig::talking(options(AvfPart::E810));
    let config = rig.queue_config(1, 1);
    rig.done(6, config);
    rig.done(8, bytes().u16s(&[rig.vsi, 0]).u32s(&[1, 0]));
    rig.end_with("enabled without a vector");
}

#[test]
fn tails_and_receive_buffers() {
    each_is_found(
        AvfPart::E810,
        &[
            ("tail 64 of rx queue 0 is past the end", |rig| rig.ring(0x2000, N)),
            ("went from 63 to 0, past the head at 0", |rig| rig.ring(0x2000, 0)),
            ("is already armed", |rig| {
                let at = rig.iova + rx_buffer(0, 3) + 512;
                rig.send(&[data(at, 60, EOP | RS)]);
            }),
            ("descriptor 0 was changed", |rig| {
                rig.store(RX_RINGS, &[rig.iova + rx_buffer(1, 0)]);
                assert!(!rig.inject(&frame(60)));
            }),
            ("(DD) set", |rig| {
                rig.store(RX_RINGS + 8, &[1]);
                assert!(!rig.inject(&frame(60)));
            }),
        ],
    );
    // What a tail says about a queue that is off means nothing until it is on.
    let mut rig = Rig::talking(options(AvfPart::E810));
    rig.ring(0x2000, 77);
    rig.ring(0, 5);
    rig.write(0x2000, 0);
    rig.end_clean();
}

/// Sends these descriptors; they get the IOVA of a buffer with a frame of 10000 bytes.
fn send(rig: &mut Rig, descriptors: impl Fn(u64) -> Vec<[u64; 2]>) {
    let mut long = frame(9000);
    long.resize(10000, 0);
    let at = rig.fill(&long);
    rig.send(&descriptors(at));
    assert!(rig.sent().is_empty(), "a forbidden packet was sent");
}

const UDP4: u64 = 0x360 << 4 | 7 << 16 | 5 << 23 | 2 << 30;
const TCP4: u64 = 0x160 << 4 | 7 << 16 | 5 << 23 | 5 << 30;

fn tso(mss: u64, payload: u64) -> [u64; 2] {
    [0, 1 | 1 << 4 | payload << 30 | mss << 50]
}

#[test]
fn transmit_descriptors() {
    each_is_found(
        AvfPart::E810,
        &[
            ("a frame of 16 bytes", |rig| send(rig, |at| vec![data(at, 16, EOP | RS)])),
            ("a frame of 9729 bytes", |rig| send(rig, |at| vec![data(at, 9729, EOP | RS)])),
            ("a buffer of 0 bytes", |rig| send(rig, |at| vec![data(at, 0, EOP | RS)])),
            ("DMA outside every mapping", |rig| send(rig, |_| vec![data(0x1000, 60, EOP | RS)])),
            ("9 data descriptors", |rig| {
                send(rig, |at| (0..9).map(|i| data(at + 100 * i, 100, if i == 8 { EOP | RS } else { 0 })).collect())
            }),
            ("ICRC is clear", |rig| send(rig, |at| vec![[at, 60 << 34 | EOP | RS]])),
            ("RS without EOP", |rig| send(rig, |at| vec![data(at, 60, RS), data(at + 60, 60, EOP | RS)])),
            ("DTYPE is 0xf", |rig| send(rig, |at| vec![[at, 0xf]])),
            ("DTYPE is neither", |rig| send(rig, |at| vec![data(at, 60, EOP | RS | 8)])),
            ("reserved bits", |rig| send(rig, |at| vec![data(at, 60, EOP | RS | 0x100)])),
            ("L4T without IIPT", |rig| send(rig, |at| vec![data(at, 60, EOP | RS | 0x300 << 4 | 2 << 30)])),
            ("CMD, OFFSET or L2TAG1 differ", |rig| {
                send(rig, |at| vec![data(at, 60, UDP4), data(at + 60, 60, EOP | RS)])
            }),
            ("a context descriptor inside", |rig| {
                send(rig, |at| vec![data(at, 60, 0), [0, 1], data(at + 60, 60, EOP | RS)])
            }),
            ("two context descriptors", |rig| send(rig, |at| vec![[0, 1], [0, 1], data(at, 60, EOP | RS)])),
            ("tunnel fields", |rig| send(rig, |at| vec![[0x200, 1], data(at, 60, EOP | RS)])),
            ("TLEN or MSS in a context without TSO", |rig| {
                send(rig, |at| vec![[0, 1 | 1 << 50], data(at, 60, EOP | RS)])
            }),
            ("do not lead to an IPv6 header", |rig| {
                send(rig, |at| vec![data(at, 100, EOP | RS | 0x20 << 4 | 7 << 16 | 10 << 23)])
            }),
            ("IIPT with MACLEN 14 and IPLEN 16", |rig| {
                send(rig, |at| vec![data(at, 100, EOP | RS | 0x40 << 4 | 7 << 16 | 4 << 23)])
            }),
            ("Udp checksum with headers of 14, 20 and 20 bytes", |rig| {
                send(rig, |at| vec![data(at, 100, EOP | RS | UDP4 & !(0xf << 30) | 5 << 30)])
            }),
            ("IP checksum with a header checksum that is not 0", |rig| {
                send(rig, |at| vec![data(at, 100, EOP | RS | UDP4)])
            }),
            ("a tag in L2TAG1 although", |rig| send(rig, |at| vec![data(at, 60, EOP | RS | 0x80)])),
            ("a tag in L2TAG2 although", |rig| send(rig, |at| vec![[0, 1 | 4 << 4], data(at, 60, EOP | RS)])),
            ("TSO with MSS 63", |rig| send(rig, |at| vec![tso(63, 1000), data(at, 1054, EOP | RS | TCP4)])),
            ("TSO with TLEN 999 and headers of 54", |rig| {
                send(rig, |at| vec![tso(500, 999), data(at, 1054, EOP | RS | TCP4)])
            }),
            ("TSO over IPv4 without", |rig| {
                send(rig, |at| vec![tso(500, 1000), data(at, 1054, EOP | RS | TCP4 & !(0x20 << 4))])
            }),
            ("TSO of what is not TCP", |rig| send(rig, |at| vec![tso(500, 1000), data(at, 1042, EOP | RS | UDP4)])),
            ("a TSO segment over 9 buffers", |rig| {
                send(rig, |at| {
                    let mut list = vec![tso(1000, 1000), data(at, 54, TCP4)];
                    list.extend((0..8).map(|i| data(at + 54 + 125 * i, 125, TCP4 | if i == 7 { EOP | RS } else { 0 })));
                    list
                })
            }),
        ],
    );
    each_is_found(
        AvfPart::Xl710,
        &[("TSO with MSS 255", |rig| send(rig, |at| vec![tso(255, 1000), data(at, 1054, EOP | RS | TCP4)]))],
    );
}

#[test]
fn an_i40e_pf_ignores_a_vf_that_broke_the_rules_and_an_ice_pf_does_not() {
    for part in PARTS {
        let mut rig = Rig::running(part);
        rig.send_plain(&[0; 16]);
        let ice = part == AvfPart::E810;
        assert_eq!(rig.try_ask(15, bytes().u16s(&[rig.vsi, 0]).u32s(&[0, 0])).is_some(), ice);
        rig.send_plain(&frame(60));
        assert!(rig.sent().is_empty(), "the queue stands still");
        assert_eq!((rig.read(0x8800), rig.read(0x8000) >> 31), (2, 1), "and nothing else shows");
        rig.bus.reset_function().unwrap();
        rig.bus.set_bus_master(true).unwrap();
        rig.wait_active();
        rig.start_admin();
        rig.negotiate(CAPS);
        rig.start_queues(1, 1);
        rig.send_plain(&frame(60));
        assert_eq!(rig.sent().len(), 1);
        rig.end_with("a frame of 16 bytes");
    }
}

#[test]
fn memory_must_outlive_its_use() {
    let mut rig = Rig::running(AvfPart::E810);
    let memory = rig.memory.clone();
    rig.bus.unmap_dma(&memory).unwrap();
    assert!(!rig.inject(&frame(60)), "and it is not touched");
    let world = rig.world.clone();
    drop(rig);
    let found = world.violations().join("\n");
    for says in
        ["unmapped while a buffer in it is armed", "unmapped while a ring in it is enabled", "closed while queues"]
    {
        assert!(found.contains(says), "{says}: {found}");
    }
    let rig = Rig::talking(options(AvfPart::E810));
    let world = rig.world.clone();
    drop(rig);
    assert!(world.violations()[0].contains("closed while the admin queues are enabled"), "{:?}", world.violations());
}
