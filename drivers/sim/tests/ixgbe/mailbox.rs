//! The mailbox and the PF, with the vectors of the fact sheet (ixgbevf 7.3).
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::frame::insert_tag;

/// 02:11:22:33:44:`last` as words 1 and 2.
fn address(last: u32) -> [u32; 2] {
    [0x3322_1102, last << 8 | 0x44]
}

fn to(last: u8, len: usize) -> Vec<u8> {
    let mut frame = frame(len);
    frame[5] = last;
    frame
}

fn multicast(group: [u8; 6]) -> Vec<u8> {
    let mut frame = frame(60);
    frame[..6].copy_from_slice(&group);
    frame
}

#[test]
fn the_reset_has_three_replies() {
    let mut vf = Vf::open(IxgbeOptions { multicast_filter: 2, ..options(IxgbePart::X540) });
    assert_ne!(vf.read(0x2fc) & 0x80, 0, "a PF that came up before us left RSTD");
    assert_eq!(vf.reset(), [0x8000_0001, 0x3322_1102, 0x5544, 2]);
    vf.end_clean();

    let mut vf = Vf::open(IxgbeOptions { mac: None, multicast_filter: 3, ..IxgbeOptions::default() });
    assert_eq!(vf.reset(), [0x4000_0001, 0, 0, 3], "no address, and no error");
    let [a, b] = address(0x55);
    assert_eq!(vf.ask(&[2, a, b]), Some([0xa000_0002]));
    assert_eq!(vf.world.mac(vf.port), MAC);
    vf.end_clean();

    let mut vf = Vf::open(options(IxgbePart::X550));
    vf.world.set_fault(vf.port, Fault::GarbageReply);
    assert_eq!(vf.reset()[0], 0x5bad_c0de);
    vf.end_clean();
}

#[test]
fn requests_are_answered_as_in_the_fact_sheet() {
    let mut vf = Vf::open(options(IxgbePart::X550));
    assert_eq!(vf.ask(&[5, 1518]), Some([0x4000_0005]), "before the reset request, without CTS");
    vf.reset();
    assert_eq!(vf.ask(&[8, 4]), Some([0xa000_0008, 4]));
    assert_eq!(vf.ask(&[5, 1518]), Some([0xa000_0005]));
    assert_eq!(vf.ask(&[0xc, 2]), Some([0xa000_000c, 1]), "lowered");
    assert_eq!(vf.ask(&[0x0001_0004, 100]), Some([0xa001_0004]));
    assert_eq!(vf.ask(&[9]), Some([0xa000_0009, 4, 4, 0, 0]));
    assert_eq!(vf.ask(&[0x10]), Some([0xa000_0010, 1]));
    assert_eq!(vf.ask(&[0x99, 7]), Some([0x6000_0099, 7]), "the buffer is written back whole");
    assert_eq!(vf.post(&[0x8000_0005]) & 0x10, 0, "never answered");
    vf.end_clean();
}

#[test]
fn versions_are_negotiated_by_ordinal_and_gate_messages() {
    let open = |api| {
        let mut vf = Vf::open(IxgbeOptions { api, ..options(IxgbePart::E610) });
        vf.reset();
        vf
    };
    for highest in 0..=7 {
        let mut vf = open(highest);
        assert_eq!(vf.ask(&[8, 1]), Some([0x6000_0008]), "2.0 is Solaris's");
        for digit in (0..=7).rev() {
            assert_eq!(vf.api(digit), if digit <= highest.into() { 0xa000_0008 } else { 0x6000_0008 });
        }
        vf.end_clean();
    }
    // Each message, and the version that brought it.
    for (request, since) in [([9, 0], 1), ([0xc, 1], 2), ([0x10, 0], 2), ([0x11, 0], 6), ([0x12, 0], 7)] {
        for digit in 0..=7 {
            let mut vf = open(7);
            vf.api(digit);
            let answer: [u32; 1] = if digit == 5 { esx_ask(&mut vf, &request) } else { vf.ask(&request).unwrap() };
            let verdict = if digit >= since { 0xa000_0000 } else { 0x6000_0000 };
            assert_eq!(answer, [verdict | request[0]], "{request:x?} with 1.{digit}");
            vf.end_clean();
        }
    }
    let mut vf = open(7);
    vf.api(6);
    assert_eq!(vf.ask(&[0x11]), Some([0xa000_0011, 0x80, 1]), "an E610 PF tells the link: 10 Gb/s, up");
    vf.reset();
    assert_eq!(vf.ask(&[9]), Some([0x6000_0009]), "1.0 again");
    vf.end_clean();
    let mut vf = Vf::open(options(IxgbePart::X550));
    vf.reset();
    vf.api(6);
    assert_eq!(vf.ask(&[0x11]), Some([0x6000_0011]), "others do not");
    vf.end_clean();
}

/// A request of API 1.5: the VF keeps the buffer until PFACK.
fn esx_ask<const W: usize>(vf: &mut Vf, words: &[u32]) -> [u32; W] {
    let owned = vf.read(0x2fc) | 4;
    vf.write(0x2fc, owned);
    assert_ne!(vf.read(0x2fc) & 4, 0);
    for (i, word) in words.iter().enumerate() {
        vf.write(0x200 + 4 * i as u32, *word);
    }
    let bits = vf.read(0x2fc) | 1;
    vf.write(0x2fc, bits);
    assert_ne!(vf.wait_mail(0x20) & 0x20, 0, "PFACK while the VF owns the buffer");
    vf.write(0x2fc, 0);
    assert_ne!(vf.wait_mail(0x10) & 0x10, 0, "the answer once it let go");
    let reply = std::array::from_fn(|i| vf.read(0x200 + 4 * i as u32));
    let bits = vf.read(0x2fc) | 2;
    vf.write(0x2fc, bits);
    reply
}

#[test]
fn with_the_mailbox_of_esx_the_pf_reads_what_the_vf_still_owns() {
    let mut vf = Vf::open(options(IxgbePart::X550));
    vf.reset();
    vf.api(5);
    assert_eq!(esx_ask(&mut vf, &[5, 9000]), [0xa000_0005]);
    vf.reset();
    vf.api(7);
    assert_eq!(vf.ask(&[0x12, 3]), Some([0xa000_0012, 2]), "IPsec is not granted");
    assert_eq!(esx_ask(&mut vf, &[0x10]), [0xa000_0010, 1]);
    // Without the feature the PF waits for the buffer.
    vf.reset();
    vf.api(7);
    vf.write(0x2fc, 4);
    vf.write(0x200, 0x10);
    vf.write(0x2fc, 5);
    assert_eq!(vf.wait_mail(0x30) & 0x30, 0);
    vf.write(0x2fc, 0);
    assert_eq!(vf.wait_mail(0x10) & 0x10, 0x10);
    vf.end_clean();
}

#[test]
fn read_only_and_read_to_clear_bits_cannot_be_written() {
    let mut vf = Vf::open(options(IxgbePart::X540));
    vf.reset();
    vf.write(0x2fc, 0xfc); // a read-modify-write with cached bits
    assert_eq!(vf.read(0x2fc), 4);
    vf.write(0x2fc, 0xf8);
    assert_eq!(vf.read(0x2fc), 0);
    vf.end_clean();
}

#[test]
fn addresses_are_granted_by_trust() {
    let [a, b] = address(0x66);
    for (fixed, trusted, granted) in [(false, false, true), (true, false, false), (true, true, true)] {
        let mut vf = Vf::running(IxgbeOptions { mac_fixed: fixed, trusted, ..options(IxgbePart::X550) });
        let verdict = if granted { 0xa000_0000 } else { 0x6000_0000 };
        assert_eq!(vf.ask(&[0x0001_0006, a, b]), Some([verdict | 0x0001_0006]));
        assert_eq!(vf.world.inject(vf.port, &to(0x66, 60)), granted);
        assert_eq!(vf.ask(&[0x0000_0006]), Some([0xa000_0006]), "clearing is always granted");
        assert!(!vf.world.inject(vf.port, &to(0x66, 60)));
        assert_eq!(vf.ask(&[2, a, b]), Some([verdict | 2]));
        assert_eq!(vf.world.inject(vf.port, &to(0x66, 60)), granted);
        let [a, b] = address(0x55);
        assert_eq!(vf.ask(&[2, a, b]), Some([0xa000_0002]), "its own address is never refused");
        assert_eq!(vf.ask(&[2, 1, 0]), Some([0x6000_0002]), "a multicast address always is");
        vf.end_clean();
    }
    let mut vf = Vf::running(options(IxgbePart::X550));
    for i in 0..9u32 {
        let [a, b] = address(0x60 + i);
        let verdict = if i < 8 { 0xa000_0000 } else { 0x6000_0000 };
        let request = if i == 0 { 0x0001_0006 } else { 0x0002_0006 };
        assert_eq!(vf.ask(&[request, a, b]), Some([verdict | request]), "entry {i}");
    }
    vf.end_clean();
}

#[test]
fn modes_are_lowered_or_refused() {
    let group = multicast([1, 0, 0x5e, 1, 2, 3]);
    let ask = |vf: &mut Vf, mode| vf.ask::<2>(&[0xc, mode]).unwrap();
    let open = |options| {
        let mut vf = Vf::running(options);
        vf.api(3);
        vf
    };
    let mut vf = open(options(IxgbePart::X550));
    assert_eq!((ask(&mut vf, 2), ask(&mut vf, 3)), ([0xa000_000c, 1], [0xa000_000c, 1]));
    assert_eq!(ask(&mut vf, 0), [0xa000_000c, 0]);
    assert!(!vf.world.inject(vf.port, &group));
    vf.end_clean();

    let trusted = IxgbeOptions { trusted: true, ..options(IxgbePart::X550) };
    let mut vf = open(trusted.clone());
    assert_eq!(ask(&mut vf, 2), [0xa000_000c, 2]);
    assert!(vf.world.inject(vf.port, &group) && !vf.world.inject(vf.port, &to(0x66, 60)));
    assert_eq!(ask(&mut vf, 3), [0x6000_000c, 3], "the PF itself is not promiscuous");
    vf.end_clean();

    let mut vf = open(IxgbeOptions { pf_promiscuous: true, ..trusted.clone() });
    vf.api(2);
    assert_eq!(ask(&mut vf, 3), [0x6000_000c, 3], "promiscuity came with 1.3");
    vf.api(3);
    assert_eq!(ask(&mut vf, 3), [0xa000_000c, 3]);
    let mut tagged = Vec::new();
    insert_tag(&to(0x66, 60), 200, &mut tagged);
    assert!(vf.world.inject(vf.port, &tagged) && vf.world.inject(vf.port, &group));
    vf.end_clean();

    let mut vf = open(IxgbeOptions { part: IxgbePart::I82599, pf_promiscuous: true, ..trusted });
    assert_eq!(ask(&mut vf, 3), [0x6000_000c, 3], "never on an 82599");
    vf.end_clean();
}

#[test]
fn the_filter_type_decides_over_the_multicast_hash() {
    let group = [1, 0, 0x5e, 1, 0x2a, 0xb7];
    for (filter, hash) in [(0, 0xb72), (1, 0x6e5), (2, 0xdca), (3, 0x72a)] {
        let mut vf = Vf::running(IxgbeOptions { multicast_filter: filter, ..options(IxgbePart::X550) });
        assert_eq!(vf.ask(&[0x0002_0003, 0x123 | (hash ^ 1) << 16]), Some([0xa002_0003]));
        assert!(!vf.world.inject(vf.port, &multicast(group)));
        assert_eq!(vf.ask(&[0x0002_0003, 0x123 | hash << 16]), Some([0xa002_0003]));
        assert!(vf.world.inject(vf.port, &multicast(group)), "filter {filter}");
        vf.api(3);
        vf.ask::<1>(&[0xc, 0]);
        assert!(!vf.world.inject(vf.port, &multicast(group)), "mode none");
        vf.ask::<1>(&[0xc, 1]);
        assert!(vf.world.inject(vf.port, &multicast(group)), "the table was kept");
        assert_eq!(vf.read(0x1034), 2);
        vf.end_clean();
    }
}

#[test]
fn frame_limits_are_shared_on_an_82599_and_raised_on_others() {
    let mut vf = Vf::running(options(IxgbePart::X540));
    assert!(vf.world.inject(vf.port, &frame(1514)) && !vf.world.inject(vf.port, &frame(1515)));
    assert_eq!(vf.ask(&[5, 3000]), Some([0xa000_0005]));
    assert!(vf.world.inject(vf.port, &frame(2996)) && !vf.world.inject(vf.port, &frame(2997)));
    assert_eq!(vf.ask(&[5, 1518]), Some([0xa000_0005]));
    assert!(vf.world.inject(vf.port, &frame(2996)), "never lowered");
    assert_eq!(vf.post(&[5, 9729]) & 0x10, 0, "not even answered");
    vf.end_clean();

    let mut vf = Vf::running(options(IxgbePart::I82599));
    assert!(vf.world.inject(vf.port, &frame(1514)));
    assert_eq!(vf.ask(&[5, 1519]), Some([0x6000_0005]));
    assert!(!vf.world.inject(vf.port, &frame(60)), "and VFRE is off");
    assert_eq!(vf.ask(&[5, 1518]), Some([0xa000_0005]));
    assert!(vf.world.inject(vf.port, &frame(60)));
    vf.end_clean();

    let mut vf = Vf::running(IxgbeOptions { jumbo: true, ..options(IxgbePart::I82599) });
    assert!(!vf.world.inject(vf.port, &frame(60)), "deaf before SET_LPE");
    assert_eq!(vf.ask(&[5, 1518]), Some([0x6000_0005]), "1.0 knows nothing of jumbo PFs");
    vf.api(1);
    assert_eq!(vf.ask(&[5, 1518]), Some([0xa000_0005]));
    assert!(vf.world.inject(vf.port, &frame(60)) && vf.world.inject(vf.port, &frame(9000)), "the PF's limit holds");
    vf.end_clean();
}

#[test]
fn the_rss_of_the_pf_is_told_to_those_who_may_know() {
    for (part, query_rss) in [(IxgbePart::X540, false), (IxgbePart::X550, true)] {
        let mut vf = Vf::open(IxgbeOptions { query_rss, ..options(part) });
        vf.reset();
        vf.api(3);
        assert_eq!((vf.ask(&[0xa]), vf.ask(&[0xb])), (Some([0x6000_000a]), Some([0x6000_000b])));
        vf.end_clean();
    }
}

#[test]
fn a_link_change_comes_with_a_ping() {
    let mut vf = Vf::open(options(IxgbePart::X550));
    vf.reset();
    assert_eq!(vf.read(0x10), 0x7000_0000);
    vf.world.link(vf.port, false);
    assert_eq!(vf.read(0x10), 0);
    assert_ne!(vf.wait_mail(0x10) & 0x10, 0);
    assert_eq!(vf.take(), [0x2000_0100]);
    vf.end_clean();
}

#[test]
fn a_link_that_the_administrator_disabled_shows_in_answers_only() {
    let mut vf = Vf::running(options(IxgbePart::E610));
    vf.world.set_fault(vf.port, Fault::LinkDisabled);
    assert_eq!(vf.read(0x10), 0x7000_0000);
    assert!(!vf.world.inject(vf.port, &frame(60)));
    assert_ne!(vf.wait_mail(0x10) & 0x10, 0);
    assert_eq!(vf.take(), [0x100], "a ping without CTS");
    vf.reset();
    vf.api(6);
    assert_eq!((vf.ask(&[0x10]), vf.ask(&[0x11])), (Some([0xa000_0010, 0]), Some([0xa000_0011, 0x80, 0])));
    vf.end_clean();
}

#[test]
fn queue_numbers_can_lie() {
    let mut vf = Vf::open(options(IxgbePart::X550));
    vf.reset();
    vf.api(1);
    vf.world.set_fault(vf.port, Fault::QueueReply([0, 0, 9, 300]));
    assert_eq!(vf.ask(&[9]), Some([0xa000_0009, 0, 0, 9, 300]));
    vf.end_clean();
}
