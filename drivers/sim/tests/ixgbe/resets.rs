//! What resets take and what they leave (ixgbevf 2.4, 6).
#![forbid(unsafe_code)]

use super::*;

#[test]
fn a_reset_of_the_vf_leaves_queue_registers_as_they_were() {
    for flr in [false, true] {
        let mut vf = Vf::running(options(IxgbePart::X540));
        vf.write(0x300, 1 << 29);
        assert!(vf.world.inject(vf.port, &frame(60)));
        if flr {
            vf.bus.reset_function().unwrap();
            vf.bus.set_bus_master(true).unwrap();
        } else {
            vf.write(0, 1 << 26);
        }
        assert_ne!((vf.read(0x1028) & vf.read(0x2028)) & 1 << 25, 0, "still enabled");
        assert_eq!((vf.read(0x1010), vf.read(0x1018), vf.read(0x2010), vf.read(0x2018)), (1, N - 1, 1, 1));
        assert_eq!((vf.read(0x1014), vf.read(0x300)), (2 | 4 << 8 | 1 << 25 | 1 << 28, 1 << 29));
        assert_eq!((vf.read(0x1008), vf.read(0x2008)), (0, 0), "the rings themselves are lost");
        vf.bring_up();
        assert!(vf.world.inject(vf.port, &frame(60)), "and writing the defaults mends it");
        vf.end_clean();
    }
}

#[test]
fn the_pf_takes_everything_when_it_resets() {
    for part in [IxgbePart::I82599, IxgbePart::X550] {
        let mut vf = Vf::running(options(part));
        vf.api(3);
        vf.world.pf_reset(vf.port);
        assert_eq!(vf.read(0x2fc) & 0xc0, 0x40);
        assert_eq!((vf.read(0x1028), vf.read(0x1018), vf.read(0x1014), vf.read(0x100c)), (0, 0, 0x402, 0xa200));
        assert_eq!((vf.read(0x2028), vf.read(0x2018), vf.read(0x200c)), (0, 0, 0x2a00));
        vf.ring(0x1018, 5); // a queue that does not know yet
        vf.world.pf_reset_done(vf.port);
        vf.pause(Duration::from_millis(1));
        assert_eq!(vf.read(0x2fc) & 0xd0, 0x90, "RSTD and a ping");
        assert_eq!(vf.take(), [0x100]);
        assert_ne!(vf.wait_mail(0x10) & 0x10, 0);
        assert_eq!(vf.take(), [0x4000_0000], "what the PF says to an ACK of a VF that is not clear to send");
        for _ in 0..2 {
            // The exchange before this ended with an ACK too, so that another such word is there, to be dropped.
            vf.pause(Duration::from_millis(1));
            assert_ne!(vf.read(0x2fc) & 0x10, 0);
            assert_eq!(vf.ask(&[9]), Some([0x4000_0009]), "at once, and each time");
        }
        vf.bring_up();
        assert!(vf.world.inject(vf.port, &frame(60)));
        vf.end_clean();
    }
}

#[test]
fn the_pf_clears_the_head_write_back_of_the_last_user() {
    let mut vf = Vf::open(options(IxgbePart::X550));
    assert_eq!(vf.read(0x2038) & 1, 1);
    vf.write(0, 1 << 26);
    assert_eq!(vf.read(0x2038) & 1, 1, "a reset of the VF does not");
    assert!(vf.ask::<1>(&[1]).is_some());
    assert_eq!((vf.read(0x2038), vf.read(0x203c)), (0, 0));
    vf.end_clean();
}

#[test]
fn generation_b_clears_the_mailbox_and_stops_a_malicious_driver() {
    for part in [IxgbePart::X540, IxgbePart::X550] {
        let b = part == IxgbePart::X550;
        let mut vf = Vf::running(options(part));
        vf.api(3);
        assert_eq!(vf.read(0x204), 4);
        vf.write(0, 1 << 26);
        assert_eq!(vf.read(0x204), if b { 0 } else { 4 });
        vf.bring_up();
        vf.send(&[Context { mac_len: 0, ..PLAIN }.words(0)]);
        vf.send_plain(&frame(60));
        assert!(vf.sent().is_empty());
        assert_eq!(vf.world.inject(vf.port, &frame(60)), !b, "an X540 goes on receiving");
        if b {
            assert_ne!(vf.wait_mail(0x10) & 0x10, 0);
            assert_eq!(vf.take(), [0x2000_0100], "a ping that claims CTS");
            assert_ne!(vf.wait_mail(0x10) & 0x10, 0);
            assert_eq!(vf.take(), [0x4000_0000], "and the truth after it was acknowledged");
        }
        vf.bring_up();
        vf.send_plain(&frame(60));
        assert_eq!(vf.sent().len(), 1);
        vf.end_with("MACLEN 0");
    }
}

#[test]
fn a_pf_that_notices_late_destroys_what_was_sent_meanwhile() {
    for part in [IxgbePart::X540, IxgbePart::X550] {
        let mut vf = Vf::running(options(part));
        vf.world.set_fault(vf.port, Fault::LateNotice(Duration::from_millis(5)));
        vf.write(0, 1 << 26);
        let noticed = vf.world.now() + Duration::from_millis(5);
        assert_ne!(vf.post(&[1]) & 0x10, 0);
        assert!(vf.world.now() >= noticed, "and does nothing before");
        let b = part == IxgbePart::X550;
        assert_eq!(vf.take(), [if b { 0x4000_0000 } else { 0x8000_0001 }], "a message of zeros is refused");
        // What it says to the ACK of a VF that is not clear to send.
        assert_eq!(vf.wait_mail(0x10) & 0x10, if b { 0x10 } else { 0 });
        assert_eq!(vf.ask(&[1]).map(|[word0]| word0), Some(0x8000_0001));
        vf.end_clean();
    }
}

#[test]
fn what_the_pf_was_about_to_say_is_still_said_after_a_reset() {
    let mut vf = Vf::open(options(IxgbePart::X540));
    vf.reset();
    vf.world.set_fault(vf.port, Fault::LateReplies(Duration::from_millis(5)));
    for (offset, value) in [(0x2fc, 4), (0x200, 0x10), (0x2fc, 1)] {
        vf.write(offset, value);
    }
    vf.pause(Duration::from_millis(1));
    vf.write(0, 1 << 26);
    assert_eq!(vf.read(0x2fc) & 0x30, 0, "that it has read the request is no longer known");
    assert_ne!(vf.wait_mail(0x10) & 0x10, 0);
    assert_eq!(vf.take(), [0x6000_0010], "API 1.0");
    vf.world.clear_faults(vf.port);
    assert_ne!(vf.wait_mail(0x10) & 0x10, 0, "what it says to the ACK of a VF that is not clear to send");
    assert_eq!(vf.ask(&[1]).map(|[word0]| word0), Some(0x8000_0001));
    vf.end_clean();
}
