//! What reaches registers and messages when rings and interrupts start: written down from the fact sheet.

use super::*;
use crate::mmio::Reg;

#[test]
fn registers_lie_where_the_sheet_says() {
    use crate::drivers::iavf::regs::*;
    let golden = [
        (QTX_TAIL1(0), 0x0000),
        (QTX_TAIL1(15), 0x003C),
        (QRX_TAIL1(0), 0x2000),
        (QRX_TAIL1(15), 0x203C),
        (VFINT_DYN_CTLN1(1), 0x3800),
        (VFINT_DYN_CTLN1(16), 0x383C),
        (VFINT_ICR01, 0x4800),
        (VFINT_ICR0_ENA1, 0x5000),
        (VFINT_DYN_CTL01, 0x5C00),
        (ARQ.bah, 0x6000),
        (ARQ.bal, 0x6C00),
        (ARQ.tail, 0x7000),
        (ARQ.head, 0x7400),
        (ARQ.len, 0x8000),
        (ATQ.bah, 0x7800),
        (ATQ.bal, 0x7C00),
        (ATQ.tail, 0x8400),
        (ATQ.head, 0x6400),
        (ATQ.len, 0x6800),
        (VFGEN_RSTAT, 0x8800),
    ];
    for (register, offset) in golden {
        assert_eq!(register, Reg(offset));
    }
    assert_eq!((ADMIN_LEN_ENABLE, ADMIN_LEN_ERRORS, ADMIN_INDEX), (0x8000_0000, 0x7000_0000, 0x3FF));
    assert_eq!((ICR0_ADMINQ, DYN_CTL_WB_ON_ITR), (1 << 30, 1 << 30));
    assert_eq!((DYN_CTL_INTENA, DYN_CTL_CLEARPBA, DYN_CTL_NO_ITR), (1, 2, 0x18));
    assert_eq!((dyn_ctl_interval(2), dyn_ctl_interval(0xFFFF)), (0x40, 0x1_FFE0));
    assert_eq!((RSTAT_IN_PROGRESS, RSTAT_ACTIVE, RSTAT_UNREADABLE, RSTAT_STATE), (0, 2, 0xDEAD_BEEF & 3, 3));
}

#[test]
fn the_admin_queues_are_set_up_as_the_sheet_says() {
    let mut vf = ready();
    let order = [
        (0x6800, 0),
        (0x6400, 0),
        (0x8400, 0),
        (0x7C00, 0),
        (0x7800, 0),
        (0x6800, 0x8000_0020),
        (0x8000, 0),
        (0x7400, 0),
        (0x7000, 0),
        (0x6C00, 0),
        (0x6000, 0),
        (0x8000, 0x8000_0020),
        (0x7000, 31),
    ];
    let bases = [0x7C00, 0x7800, 0x6C00, 0x6000];
    let writes = vf.fake().actions.iter().filter_map(|action| match *action {
        Action::Write(offset, _) if bases.contains(&offset) => Some((offset, 0)),
        Action::Write(offset, value) => Some((offset, value)),
        _ => None,
    });
    let writes: Vec<(u32, u32)> = writes.collect();
    assert!(writes.windows(order.len()).any(|window| window == order), "{writes:x?}");
    // Four KiB apart, and neither in the other.
    let (atq, arq) = (vf.fake().get(0x7C00), vf.fake().get(0x6C00));
    assert_eq!((atq % 4096, arq.wrapping_sub(atq)), (0, 4096));
}

#[test]
fn rings_are_configured_mapped_and_enabled_by_the_right_messages() {
    let mut vf = ready();
    vf.restore(&settings()).unwrap();
    vf.fake().take_opcodes();
    vf.fake().actions.clear();
    vf.start_rings(&[ring(0, 2048), ring(2, 2048)], &[ring(0, 0), ring(1, 0)]).unwrap();
    assert_eq!(vf.fake().take_writes(), [(0, 0), (4, 0), (0x2000, 0), (0x2008, 0), (0x3800, 1 << 30 | 2 << 5)]);
    let sent = std::mem::take(&mut vf.fake().requests);
    assert_eq!(sent.iter().map(|(opcode, _)| *opcode).collect::<Vec<_>>(), [6, 7, 8]);
    let config = &sent[0].1;
    assert_eq!(config[..8], [0x17, 0, 3, 0, 0, 0, 0, 0]);
    let pair = |n: usize| &config[8 + 64 * n..72 + 64 * n];
    let u16_at = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    for (n, tx, rx) in [(0, true, true), (1, true, false), (2, false, true)] {
        let bytes = pair(n);
        assert_eq!(
            (u16_at(bytes, 0), u16_at(bytes, 2), u16_at(bytes, 24), u16_at(bytes, 26)),
            (0x17, n as u16, 0x17, n as u16)
        );
        let (tx_ring, rx_ring) = (ring(n as u16, 0).base.0, ring(n as u16, 2048).base.0);
        assert_eq!((u16_at(bytes, 4), u64_at(bytes, 8)), if tx { (512, tx_ring) } else { (0, 0) });
        assert_eq!((u16_at(bytes, 28), u64_at(bytes, 48)), if rx { (512, rx_ring) } else { (0, 0) });
        let (buffer, max_frame) = if rx { (2048, 1526) } else { (1024, 64) };
        assert_eq!((u16_at(bytes, 36), u16_at(bytes, 40), bytes[45]), (buffer, max_frame, 22));
        // No head write-back, no split, CRC stripped, no flags.
        for at in [6, 7, 16, 17, 18, 19, 20, 21, 22, 23, 30, 31, 32, 33, 34, 35, 44, 46, 47] {
            assert_eq!(bytes[at], 0, "byte {at}");
        }
    }
    assert!(config[8 + 64 * 3..].iter().all(|&byte| byte == 0) && config.len() == 72 + 64 * 3);
    // One vector for all, receive queues 0 and 2, transmit queues 0 and 1, throttle 0.
    assert_eq!(sent[1].1[..14], [1, 0, 0x17, 0, 1, 0, 5, 0, 3, 0, 0, 0, 0, 0]);
    assert_eq!(sent[2].1, [0x17, 0, 0, 0, 5, 0, 0, 0, 3, 0, 0, 0]);
    assert!(!vf.is_silent());
}

#[test]
fn many_queues_are_enabled_in_runs() {
    let mut vf = ready_with(Fake { caps: u32::MAX, pairs: 16, ..Fake::new(0x1889) });
    vf.restore(&settings()).unwrap();
    let rx: Vec<RingPlan> = [0, 1, 2, 5, 15].map(|queue| ring(queue, 2048)).to_vec();
    vf.start_rings(&rx, &[ring(3, 0)]).unwrap();
    // Chunks: Tx 3; Rx 0 to 2, 5, 15. Types: 0 is Tx, 1 is Rx.
    let chunk = |kind, first, count| [kind, 0, 0, 0, first, 0, count, 0];
    let expected =
        [[0x17, 0, 0, 0, 4, 0, 0, 0], chunk(0, 3, 1), chunk(1, 0, 3), chunk(1, 5, 1), chunk(1, 15, 1)].concat();
    assert_eq!(vf.fake().last(107), expected);
}

#[test]
fn late_queues_keep_the_others_on_their_vector() {
    let mut vf = ready();
    vf.restore(&settings()).unwrap();
    vf.start_rings(&[ring(0, 2048)], &[ring(0, 0)]).unwrap();
    vf.start_rings(&[ring(1, 2048)], &[]).unwrap();
    assert_eq!(vf.fake().last(6)[..4], [0x17, 0, 1, 0], "only what was silent is configured");
    assert_eq!(vf.fake().last(7)[..8], [1, 0, 0x17, 0, 1, 0, 3, 0]);
    assert_eq!(vf.fake().last(8)[4..], [2, 0, 0, 0, 0, 0, 0, 0]);
    // After a reset none runs.
    vf.reset(false).unwrap();
    vf.restore(&settings()).unwrap();
    vf.start_rings(&[ring(1, 2048)], &[]).unwrap();
    assert_eq!(vf.fake().last(7)[..8], [1, 0, 0x17, 0, 1, 0, 2, 0]);
}

#[test]
fn queues_that_interrupt_have_vectors_of_their_own() {
    let mut vf = ready();
    vf.restore(&settings()).unwrap();
    let plans = [0, 1].map(|queue| RingPlan { vector: Some(queue + 1), ..ring(queue, 2048) });
    vf.start_rings(&plans, &[ring(0, 0)]).unwrap();
    assert_eq!(
        vf.fake().last(7)[..26],
        [2, 0, 0x17, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0x17, 0, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0]
    );
    vf.fake().actions.clear();
    vf.start_interrupts(&plans).unwrap();
    assert_eq!(vf.fake().take_writes(), [(0x5C00, 0x1B)]);
    // INTENA, and what is done meanwhile is written back; ITR 0 without a throttle.
    assert_eq!(vf.arm_doorbell(2).unwrap().1, 1 << 30 | 1);
    assert_eq!(vf.fake().take_writes(), [(0x3804, u32::MAX)]);
    assert!(vf.arm_doorbell(0).is_err() && vf.arm_doorbell(5).is_err());
    // Vector 0 is armed anew at each look, before the queue is read.
    vf.fake().set(0x4800, 1 << 30);
    vf.check();
    assert_eq!(vf.fake().take_writes(), [(0x5C00, 0x1B)]);
    assert_eq!(vf.fake().get(0x4800), 0);
}

#[test]
fn without_write_back_on_itr_polled_queues_wait_for_vector_0() {
    let mut vf = ready_with(Fake { caps: !(1 << 5 | LARGE), ..Fake::new(0x154C) });
    vf.restore(&settings()).unwrap();
    vf.fake().actions.clear();
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    assert_eq!(vf.fake().last(7)[..8], [1, 0, 0x17, 0, 0, 0, 1, 0]);
    let armed = (0x5C00, 0xFF0 << 5 | 3);
    assert_eq!(vf.fake().take_writes().last(), Some(&armed));
    vf.start_interrupts(&[]).unwrap();
    assert_eq!(vf.fake().take_writes(), [armed]);
    vf.check();
    assert_eq!(vf.fake().take_writes(), [armed]);
}

#[test]
fn rings_that_do_not_fit_reach_no_message() {
    let mut vf = ready();
    vf.restore(&settings()).unwrap();
    vf.fake().take_opcodes();
    let good = ring(0, 2048);
    for bad in [
        RingPlan { queue: 4, ..good },
        RingPlan { entries: 32, ..good },
        RingPlan { entries: 8128, ..good },
        RingPlan { entries: 72, ..good },
        RingPlan { base: Iova(0x1040), ..good },
        RingPlan { buffer_len: 1500, ..good },
        RingPlan { buffer_len: 896, ..good },
        RingPlan { vector: Some(0), ..good },
        RingPlan { vector: Some(5), ..good },
    ] {
        assert!(matches!(vf.start_rings(&[bad], &[]), Err(Error::Config(_))), "{bad:?}");
    }
    assert!(vf.start_rings(&[], &[RingPlan { entries: 96 + 8, ..ring(1, 0) }]).is_err());
    assert!(vf.rx_doorbell(4).is_err() && vf.tx_doorbell(4).is_err());
    assert_eq!(vf.fake().take_opcodes(), [0u32; 0]);
    assert!(vf.is_silent());
    vf.start_rings(&[RingPlan { entries: 64, ..good }], &[RingPlan { entries: 8096, ..ring(0, 0) }]).unwrap();
    // A larger buffer is not used beyond what the device takes.
    vf.start_rings(&[RingPlan { buffer_len: 32_640, ..ring(1, 2048) }], &[]).unwrap();
    assert_eq!(vf.fake().last(6)[8 + 36..8 + 40], 16256u32.to_le_bytes());
    vf.fake().actions.clear();
    vf.rx_doorbell(3).unwrap();
    vf.tx_doorbell(3).unwrap();
    assert_eq!(vf.fake().take_writes(), [(0x200C, u32::MAX), (0x000C, u32::MAX)]);
}

#[test]
fn a_refused_ring_is_an_error_and_forgotten() {
    for opcode in [6, 7, 8] {
        let mut vf = ready_with(Fake { refuses: vec![(opcode, -5)], ..Fake::new(0x1889) });
        vf.restore(&settings()).unwrap();
        let text = one_line(vf.start_rings(&[ring(0, 2048)], &[ring(0, 0)]).unwrap_err());
        assert!(text.contains("refused") && text.contains("-5"), "{text}");
        assert!(!vf.is_silent(), "an ice PF starts transmit rings when it configures them");
        vf.fake().refuses.clear();
        vf.start_rings(&[ring(1, 2048)], &[]).unwrap();
        assert_eq!(vf.fake().last(7)[6], 2);
    }
}

#[test]
fn a_pf_that_changes_the_formats_under_running_queues_is_refused() {
    let mut vf = running();
    vf.fake().rxdids = 2;
    vf.reset(false).unwrap();
    vf.restore(&settings()).unwrap();
    let text = one_line(vf.start_rings(&[ring(0, 2048)], &[]).unwrap_err());
    assert!(text.contains("stop the port"), "{text}");
    vf.reset(true).unwrap();
    start(&mut vf).unwrap();
}
