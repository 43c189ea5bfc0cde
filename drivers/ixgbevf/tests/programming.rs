//! What reaches the registers: offsets and bits, rings, interrupts, counters, written down from the fact sheet.

use super::fake::Fake;
use super::{I82599, X540, X550, ready, ready_on, ring, running, start};
use crate::addr::Iova;
use crate::drivers::intel::function::{CTRL, CTRL_RST, STATUS};
use crate::drivers::intel::interrupts::{ALL_CAUSES, IVAR_VALID};
use crate::drivers::intel::mailbox::V2pMailbox;
use crate::error::Error;
use crate::mmio::Reg;
use crate::port::device::{Counters, Device, RingPlan};

#[test]
fn registers_lie_where_the_sheet_says() {
    use crate::drivers::ixgbevf::regs::*;
    // Fact sheet ixgbevf 2.1, 2.2, 2.5.
    let golden = [
        (CTRL, 0x0000),
        (STATUS, 0x0008),
        (VFLINKS, 0x0010),
        (INTERRUPTS.eicr, 0x0100),
        (INTERRUPTS.eims, 0x0108),
        (INTERRUPTS.eimc, 0x010C),
        (INTERRUPTS.eiac, 0x0110),
        (INTERRUPTS.eiam, 0x0114),
        ((INTERRUPTS.ivar)(0), 0x0120),
        ((INTERRUPTS.ivar)(3), 0x012C),
        (INTERRUPTS.ivar_misc, 0x0140),
        (VFMBMEM, 0x0200),
        (VFMAILBOX, 0x02FC),
        (VFPSRTYPE, 0x0300),
        ((INTERRUPTS.eitr)(0), 0x0820),
        ((INTERRUPTS.eitr)(2), 0x0828),
        (VFMRQC, 0x3000),
        (VFRSSRK(0), 0x3100),
        (VFRSSRK(9), 0x3124),
        (VFRETA(0), 0x3200),
        (VFRETA(15), 0x323C),
        (VFRDBAL(0), 0x1000),
        (VFRDBAH(0), 0x1004),
        (VFRDLEN(0), 0x1008),
        (VFDCA_RXCTRL(0), 0x100C),
        (VFRDH(0), 0x1010),
        (VFSRRCTL(0), 0x1014),
        (VFRDT(0), 0x1018),
        (VFRXDCTL(0), 0x1028),
        (VFRXDCTL(7), 0x11E8),
        (VFTDBAL(0), 0x2000),
        (VFTDBAH(0), 0x2004),
        (VFTDLEN(0), 0x2008),
        (VFDCA_TXCTRL(0), 0x200C),
        (VFTDH(0), 0x2010),
        (VFTDT(0), 0x2018),
        (VFTXDCTL(0), 0x2028),
        (VFTDWBAL(0), 0x2038),
        (VFTDWBAH(0), 0x203C),
        (VFTDWBAH(7), 0x21FC),
        (VFGPRC, 0x101C),
        (VFGORC_LSB, 0x1020),
        (VFGORC_MSB, 0x1024),
        (VFMPRC, 0x1034),
        (VFGPTC, 0x201C),
        (VFGOTC_LSB, 0x2020),
        (VFGOTC_MSB, 0x2024),
    ];
    for (register, offset) in golden {
        assert_eq!(register, Reg(offset));
    }
    let bits = [
        ("VFCTRL.RST", CTRL_RST, 26),
        ("VFLINKS up", VFLINKS_UP, 30),
        ("VFLINKS.NON_STD", VFLINKS_NON_STD, 27),
        ("IVAR valid", IVAR_VALID, 7),
        ("MRQC.RSSEN", VFMRQC_RSSEN, 0),
        ("SRRCTL.DROP_EN", SRRCTL_DROP_EN, 28),
        ("XDCTL.ENABLE", XDCTL_ENABLE, 25),
        ("TXDCTL.SWFLSH", TXDCTL_SWFLSH, 26),
        ("RXDCTL.VME", RXDCTL_VME, 30),
        ("DCA_TXCTRL write-back", DCA_TXCTRL_WRITE_BACK_RELAXED, 11),
        ("mailbox REQ", V2pMailbox::REQ.bits(), 0),
        ("mailbox ACK", V2pMailbox::ACK.bits(), 1),
        ("mailbox VFU", V2pMailbox::VFU.bits(), 2),
        ("mailbox PFU", V2pMailbox::PFU.bits(), 3),
        ("mailbox PFSTS", V2pMailbox::PFSTS.bits(), 4),
        ("mailbox PFACK", V2pMailbox::PFACK.bits(), 5),
        ("mailbox RSTI", V2pMailbox::RSTI.bits(), 6),
        ("mailbox RSTD", V2pMailbox::RSTD.bits(), 7),
    ];
    for (name, value, bit) in bits {
        assert_eq!(value, 1 << bit, "{name}");
    }
    let values = [
        ("mailbox read to clear", V2pMailbox::READ_TO_CLEAR.bits(), 0xB0),
        ("SRRCTL default", SRRCTL_DEFAULT, 0x402),
        ("DCA_RXCTRL default", DCA_RXCTRL_DEFAULT, 0xA200),
        ("DCA_TXCTRL default", DCA_TXCTRL_DEFAULT, 0x2A00),
        ("MRQC fields", VFMRQC_FIELDS, 0x00F3_0000),
        ("RQPL", VFPSRTYPE_RQPL_SHIFT, 29),
        ("link speed", VFLINKS_SPEED_SHIFT, 28),
        ("causes", ALL_CAUSES, 7),
        ("thresholds", tx_thresholds(0x7F, 0x7F, 0x7F), 0x7F_7F7F),
    ];
    for (name, value, golden) in values {
        assert_eq!(value, golden, "{name}");
    }
}

#[test]
fn a_transmit_ring_is_programmed_as_the_sheet_says() {
    let mut vf = ready(X540);
    vf.fake().actions.clear();
    vf.start_rings(&[], &[ring(1, 0)]).unwrap();
    let expected = [
        (0x2040, 0x3456_7880),
        (0x2044, 0x12),
        (0x2048, 512 * 16),
        (0x2050, 0),
        (0x2058, 0),
        (0x204C, 1 << 9 | 1 << 13),
        (0x2078, 0),
        (0x207C, 0),
        (0x2068, 1 << 25 | 1 << 8 | 32),
    ];
    assert_eq!(vf.fake().take_writes(), expected);
}

#[test]
fn a_receive_ring_is_programmed_as_the_sheet_says() {
    let mut vf = ready(X540);
    vf.fake().actions.clear();
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    let expected = [
        (0x300, 0),
        (0x1000, 0x3456_7880),
        (0x1004, 0x12),
        (0x1008, 512 * 16),
        (0x1010, 0),
        (0x1018, 0),
        (0x1014, 1 << 28 | 1 << 25 | 4 << 8 | 2),
        (0x1028, 1 << 25),
    ];
    assert_eq!(vf.fake().take_writes(), expected);
    // A buffer that is larger than the field can say is used in part.
    vf.start_rings(&[ring(0, 32 << 10)], &[]).unwrap();
    assert_eq!(vf.fake().get(0x1014) & 0x7F, 16);
}

#[test]
fn lengths_reach_the_device_before_heads_and_tails() {
    for start in [|plan| (vec![plan], vec![]), |plan| (vec![], vec![plan])] {
        let mut vf = ready(X550);
        let (rx, tx): (Vec<RingPlan>, Vec<RingPlan>) = start(ring(0, 1024));
        vf.start_rings(&rx, &tx).unwrap();
        let before = vf.fake().reads;
        vf.start_rings(&rx, &tx).unwrap();
        assert_eq!(vf.fake().reads - before, 2, "a flush between, and ENABLE");
    }
}

#[test]
fn a_queue_that_does_not_start_is_given_up_in_time() {
    let mut vf = ready(X540);
    vf.fake().queues_stick = true;
    for (rx, tx) in [(vec![ring(0, 2048)], vec![]), (vec![], vec![ring(0, 0)])] {
        let before = vf.fake().time;
        assert!(super::is_timeout(vf.start_rings(&rx, &tx)));
        let time = vf.fake().time - before;
        assert!(time >= 10 * super::MS && time < 11 * super::MS, "{time:?}");
        assert!(!vf.is_silent(), "it may start yet");
    }
}

#[test]
fn rss_uses_as_many_queues_as_run() {
    for (rx, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3)] {
        let mut vf = ready_on(super::with_payload(Fake::new(X550), super::QUEUES, &[8, 8, 0, 0]));
        vf.start_rings(&(0..rx).map(|n| ring(n, 2048)).collect::<Vec<_>>(), &[]).unwrap();
        assert_eq!(vf.fake().get(0x300), bits << 29, "{rx} queues");
    }
    // A queue that comes late does not take the others' bits away.
    let mut vf = ready(X550);
    vf.start_rings(&[ring(1, 2048), ring(3, 2048)], &[]).unwrap();
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    assert_eq!(vf.fake().get(0x300), 2 << 29);
}

#[test]
fn rings_that_do_not_fit_reach_no_register() {
    let mut vf = ready(X540);
    vf.fake().actions.clear();
    let good = ring(0, 2048);
    for bad in [
        RingPlan { queue: 4, ..good },
        RingPlan { entries: 56, ..good },
        RingPlan { entries: 8200, ..good },
        RingPlan { entries: 68, ..good },
        RingPlan { base: Iova(0x1040), ..good },
        RingPlan { buffer_len: 1500, ..good },
        RingPlan { buffer_len: 0, ..good },
    ] {
        assert!(matches!(vf.start_rings(&[bad], &[]), Err(Error::Config(_))), "{bad:?}");
        if bad.buffer_len == good.buffer_len {
            assert!(matches!(vf.start_rings(&[], &[bad]), Err(Error::Config(_))), "{bad:?}");
        }
    }
    assert!(vf.rx_doorbell(4).is_err() && vf.tx_doorbell(4).is_err() && vf.arm_doorbell(3).is_err());
    assert!(vf.start_interrupts(&[RingPlan { vector: Some(3), ..good }]).is_err());
    assert!(vf.start_interrupts(&[RingPlan { queue: 4, ..good }]).is_err());
    assert_eq!(vf.fake().take_writes(), []);
    vf.start_rings(&[RingPlan { entries: 64, ..good }, RingPlan { entries: 8192, queue: 3, ..good }], &[]).unwrap();
}

#[test]
fn interrupts_are_routed_and_only_the_mailbox_is_unmasked() {
    let mut vf = ready(X540);
    vf.fake().actions.clear();
    vf.start_interrupts(&[ring(0, 2048), ring(1, 2048)]).unwrap();
    let expected = [
        // Rx 0 to vector 1 in byte 0, Rx 1 to vector 2 in byte 2.
        (0x120, 0x0082_0081),
        (0x124, 0),
        (0x128, 0),
        (0x12C, 0),
        (0x140, 0x80),
        (0x820, 0),
        (0x824, 0),
        (0x828, 0),
        (0x110, 7),
        (0x114, 6),
        (0x108, 1),
    ];
    assert_eq!(vf.fake().take_writes(), expected);
    assert_eq!(vf.arm_doorbell(1).unwrap().1, 2);
    // The other half of the queues.
    vf.start_interrupts(&[RingPlan { vector: Some(1), ..ring(3, 2048) }]).unwrap();
    let writes = vf.fake().take_writes();
    assert_eq!(writes[..2], [(0x120, 0), (0x124, 0x0081_0000)]);
    // Polling: the mailbox alone.
    vf.start_interrupts(&[RingPlan { vector: None, ..ring(0, 2048) }]).unwrap();
    let writes = vf.fake().take_writes();
    assert_eq!((writes[0], writes[4]), ((0x120, 0), (0x140, 0x80)));
    assert_eq!(writes[8..], [(0x110, 1), (0x114, 0), (0x108, 1)]);
}

fn counted(c: Counters) -> [u64; 5] {
    [c.rx_packets, c.tx_packets, c.rx_octets, c.tx_octets, c.rx_multicast]
}

#[test]
fn counters_survive_wraps_resets_and_a_device_that_reads_zero() {
    let registers = [0x101C, 0x201C, 0x1020, 0x2020, 0x1034];
    let mut fake = Fake::new(I82599);
    // Others have counted before us; what lies above the four bits of the high halves is nothing.
    for register in registers {
        fake.set(register, u32::MAX - 9);
    }
    fake.set(0x1024, 0xFFFF_FF0F);
    fake.set(0x2024, 0x0000_0003);
    let mut vf = ready_on(fake);
    assert_eq!(counted(vf.counters()), [0; 5]);
    start(&mut vf).unwrap();
    for (i, register) in registers.into_iter().enumerate() {
        vf.fake().set(register, i as u32);
    }
    vf.fake().set(0x1024, 0);
    vf.fake().set(0x2024, 4);
    let expected = [10, 11, 12, 13, 14];
    assert_eq!(counted(vf.counters()), expected);
    assert_eq!(counted(vf.counters()), expected, "reading does not count");

    // The BAR is lost in the middle of a sample.
    for k in 0..25 {
        let reads = vf.fake().reads;
        (vf.fake().dead_from, vf.fake().dead_value) = (Some(reads + k), 0);
        assert_eq!(counted(vf.counters()), expected, "read {k}");
    }
    (vf.fake().dead_from, vf.fake().dead_value) = (None, u32::MAX);

    vf.fake().set(0x101C, 5);
    vf.reset(true).unwrap();
    assert_eq!(vf.counters().rx_packets, 15, "sampled once more before the reset");
    vf.fake().set(0x101C, 7);
    assert_eq!(vf.counters().rx_packets, 15, "no queue runs");
    start(&mut vf).unwrap();
    assert_eq!(vf.counters().rx_packets, 17);
    for register in registers {
        vf.fake().set(register, 0);
    }
    vf.fake().set(0x1008, 0);
    vf.reset(false).unwrap();
    start(&mut vf).unwrap();
    vf.fake().set(0x101C, 3);
    assert_eq!(vf.counters().rx_packets, 20, "based anew at 0");
    vf.fake().set(0x1024, 2);
    vf.fake().set(0x2024, 3);
    let before = counted(vf.counters());
    vf.fake().set(0x1024, 7);
    vf.fake().set(0x2024, 4);
    let counts = counted(vf.counters());
    assert_eq!((counts[2] - before[2], counts[3] - before[3]), (5 << 32, 1 << 32));
}

#[test]
fn a_low_half_that_wraps_between_two_reads_is_read_again() {
    let mut vf = running(X540);
    vf.fake().set(0x1020, 0xFFFF_FFF0);
    assert_eq!(vf.counters().rx_octets, 0xFFFF_FFF0);
    // The reads of a sample: 8 lengths, 2 packet counters, then high, low, high of the octets received. It wraps after each
    // of them in turn.
    for read in 10..14 {
        let mut vf = running(X540);
        vf.fake().set(0x1020, 0xFFFF_FFF0);
        let at = vf.fake().time + read * vf.fake().access_time + vf.fake().access_time / 2;
        vf.fake().later.extend([(at, 0x1020, 0x10), (at, 0x1024, 1)]);
        let octets = vf.counters().rx_octets;
        assert!([0xFFFF_FFF0, 0x1_0000_0010].contains(&octets), "after read {read}: {octets:#x}");
    }
}
