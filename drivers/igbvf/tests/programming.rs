//! What reaches the registers: offsets, rings, interrupts, counters, written down from the fact sheet.

use super::fake::Fake;
use super::{ready, ring, start};
use crate::addr::Iova;
use crate::drivers::igbvf::port::Igbvf;
use crate::error::Error;
use crate::mmio::Reg;
use crate::port::device::{Counters, Device, RingPlan};

#[test]
fn registers_lie_where_the_sheet_says() {
    use crate::drivers::igbvf::regs::*;
    use crate::drivers::intel::function::{CTRL, STATUS};
    use crate::drivers::intel::mailbox::V2pMailbox;
    let golden = [
        (CTRL, 0x0000),
        (STATUS, 0x0008),
        (INTERRUPTS.eims, 0x1524),
        (INTERRUPTS.eimc, 0x1528),
        (INTERRUPTS.eiac, 0x152C),
        (INTERRUPTS.eiam, 0x1530),
        (INTERRUPTS.eicr, 0x1580),
        ((INTERRUPTS.eitr)(0), 0x1680),
        ((INTERRUPTS.eitr)(2), 0x1688),
        ((INTERRUPTS.ivar)(0), 0x1700),
        (INTERRUPTS.ivar_misc, 0x1740),
        (V2PMAILBOX, 0x0C40),
        (VMBMEM, 0x0800),
        (RDBAL(0), 0x2800),
        (RDBAH(0), 0x2804),
        (RDLEN(0), 0x2808),
        (SRRCTL(0), 0x280C),
        (RDH(0), 0x2810),
        (RDT(0), 0x2818),
        (RXDCTL(0), 0x2828),
        (RXDCTL(1), 0x2928),
        (TDBAL(0), 0x3800),
        (TDBAH(0), 0x3804),
        (TDLEN(0), 0x3808),
        (TDH(0), 0x3810),
        (TXCTL(0), 0x3814),
        (TDT(0), 0x3818),
        (TXDCTL(0), 0x3828),
        (TDWBAL(0), 0x3838),
        (TDWBAH(1), 0x393C),
        (VFGPRC, 0x0F10),
        (VFGPTC, 0x0F14),
        (VFGORC, 0x0F18),
        (VFGOTC, 0x0F34),
        (VFMPRC, 0x0F3C),
        (VFGPRLBC, 0x0F40),
        (VFGPTLBC, 0x0F44),
        (VFGORLBC, 0x0F48),
        (VFGOTLBC, 0x0F50),
    ];
    for (register, offset) in golden {
        assert_eq!(register, Reg(offset));
    }
    assert_eq!(V2pMailbox::READ_TO_CLEAR.bits(), 0xB0);
}

#[test]
fn a_transmit_ring_is_programmed_as_the_sheet_says() {
    let mut vf = ready();
    vf.fake().actions.clear();
    vf.start_rings(&[], &[ring(1, 0)]).unwrap();
    let expected = [
        (0x3900, 0x3456_7880),
        (0x3904, 0x12),
        (0x3908, 512 * 16),
        (0x3910, 0),
        (0x3918, 0),
        (0x3914, 1 << 9 | 1 << 13),
        (0x3938, 0),
        (0x393C, 0),
        (0x3928, 1 << 25 | 1 << 16 | 1 << 8 | 8),
    ];
    assert_eq!(vf.fake().take_writes(), expected);
}

#[test]
fn a_receive_ring_is_programmed_as_the_sheet_says() {
    let mut vf = ready();
    vf.fake().actions.clear();
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    let expected = [
        (0x2800, 0x3456_7880),
        (0x2804, 0x12),
        (0x2808, 512 * 16),
        (0x280C, 1 << 31 | 1 << 25 | 2),
        (0x2810, 0),
        (0x2818, 0),
        (0x2828, 1 << 25 | 1 << 16 | 8 << 8 | 16),
    ];
    assert_eq!(vf.fake().take_writes(), expected);
}

#[test]
fn rings_that_do_not_fit_reach_no_register() {
    let mut vf = ready();
    vf.fake().actions.clear();
    let good = ring(0, 2048);
    for bad in [
        RingPlan { queue: 2, ..good },
        RingPlan { entries: 24, ..good },
        RingPlan { entries: 4104, ..good },
        RingPlan { entries: 60, ..good },
        RingPlan { base: Iova(0x1040), ..good },
        RingPlan { buffer_len: 1500, ..good },
        RingPlan { buffer_len: 0, ..good },
    ] {
        assert!(matches!(vf.start_rings(&[bad], &[]), Err(Error::Config(_))), "{bad:?}");
        if bad.buffer_len == good.buffer_len {
            assert!(matches!(vf.start_rings(&[], &[bad]), Err(Error::Config(_))), "{bad:?}");
        }
    }
    assert!(vf.rx_doorbell(2).is_err() && vf.tx_doorbell(2).is_err() && vf.arm_doorbell(3).is_err());
    assert!(vf.start_interrupts(&[RingPlan { vector: Some(3), ..good }]).is_err());
    assert_eq!(vf.fake().take_writes(), []);
    vf.start_rings(&[RingPlan { entries: 32, ..good }, RingPlan { entries: 4096, queue: 1, ..good }], &[]).unwrap();
}

#[test]
fn interrupts_are_routed_and_only_the_mailbox_is_unmasked() {
    let mut vf = ready();
    vf.fake().actions.clear();
    vf.start_interrupts(&[ring(0, 2048), ring(1, 2048)]).unwrap();
    let expected = [
        // Rx 0 to vector 1 in byte 0, Rx 1 to vector 2 in byte 2.
        (0x1700, 0x0082_0081),
        (0x1740, 0x80),
        (0x1680, 0),
        (0x1684, 0),
        (0x1688, 0),
        (0x152C, 7),
        (0x1530, 6),
        (0x1524, 1),
    ];
    assert_eq!(vf.fake().take_writes(), expected);
    assert_eq!(vf.arm_doorbell(1).unwrap().1, 2);
    // Polling: the mailbox alone.
    vf.start_interrupts(&[RingPlan { vector: None, ..ring(0, 2048) }]).unwrap();
    let writes = vf.fake().take_writes();
    assert_eq!((writes[0], writes[1]), ((0x1700, 0), (0x1740, 0x80)));
    assert_eq!(writes[5..], [(0x152C, 1), (0x1530, 0), (0x1524, 1)]);
}

#[test]
fn counters_survive_wraps_resets_and_a_device_that_reads_zero() {
    let registers = [0xF10, 0xF14, 0xF18, 0xF34, 0xF3C, 0xF40, 0xF44, 0xF48, 0xF50];
    let mut vf = Igbvf::open(Fake::new(0x10CA)).unwrap();
    // Others have counted before us.
    for register in registers {
        vf.fake().set(register, u32::MAX - 9);
    }
    vf.reset(true).unwrap();
    assert_eq!(vf.counters().rx_packets, 0);
    start(&mut vf).unwrap();
    for (i, register) in registers.into_iter().enumerate() {
        vf.fake().set(register, i as u32);
    }
    let wrapped = |c: Counters| {
        [
            c.rx_packets,
            c.tx_packets,
            c.rx_octets,
            c.tx_octets,
            c.rx_multicast,
            c.rx_loopback_packets,
            c.tx_loopback_packets,
            c.rx_loopback_octets,
            c.tx_loopback_octets,
        ]
    };
    let expected = [10, 11, 12, 13, 14, 15, 16, 17, 18];
    assert_eq!(wrapped(vf.counters()), expected);
    assert_eq!(wrapped(vf.counters()), expected, "reading does not count");

    // The BAR is lost in the middle of a sample.
    for k in 0..14 {
        let reads = vf.fake().reads;
        (vf.fake().dead_from, vf.fake().dead_value) = (Some(reads + k), 0);
        assert_eq!(wrapped(vf.counters()), expected, "read {k}");
    }
    (vf.fake().dead_from, vf.fake().dead_value) = (None, u32::MAX);

    // A PF reset: everything reads 0, then the registers start anew.
    let regs = vf.fake().regs.clone();
    vf.fake().regs.fill(0);
    assert_eq!(wrapped(vf.counters()), expected, "zeros of a dead BAR are no wrap");
    vf.fake().dead_from = Some(0);
    assert_eq!(wrapped(vf.counters()), expected);
    vf.fake().dead_from = None;
    vf.fake().regs = regs;
    vf.fake().set(0xF10, 5);
    vf.reset(true).unwrap();
    assert_eq!(vf.counters().rx_packets, 15, "sampled once more before the reset");
    vf.fake().set(0xF10, 7);
    assert_eq!(vf.counters().rx_packets, 15, "no queue runs");
    start(&mut vf).unwrap();
    assert_eq!(vf.counters().rx_packets, 17);
    for register in registers {
        vf.fake().set(register, 0);
    }
    vf.fake().set(0x2808, 0);
    vf.reset(false).unwrap();
    start(&mut vf).unwrap();
    vf.fake().set(0xF10, 3);
    assert_eq!(vf.counters().rx_packets, 20, "based anew at 0");
}
