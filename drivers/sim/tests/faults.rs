//! Every fault shows.
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::Fault;

fn with(fault: Fault) -> Rig {
    let rig = Rig::running(Part::I82576);
    rig.world.set_fault(rig.port, fault);
    rig
}

#[test]
fn late_and_partial_write_backs() {
    let mut rig = with(Fault::DelayCompletions(Duration::from_millis(1)));
    assert!(rig.world.inject(rig.port, &frame(60)));
    let slot = rig.send_plain(&frame(60));
    assert_eq!((rig.rx_done(0).status, rig.tx_done(slot), rig.sent().len()), (0, false, 1));
    rig.pause(Duration::from_millis(2));
    assert_eq!((rig.rx_done(0).status & 3, rig.tx_done(slot)), (3, true));

    rig.world.clear_faults(rig.port);
    rig.world.set_fault(rig.port, Fault::PartialWriteback(Duration::from_millis(1)));
    assert!(rig.world.inject(rig.port, &frame(60)));
    assert_eq!((rig.rx_done(1).status, rig.rx_done(1).packet_type), (0, 0x210));
    // Without the fault, and still in order.
    rig.world.clear_faults(rig.port);
    assert!(rig.world.inject(rig.port, &frame(60)));
    assert_eq!(rig.rx_done(2).status, 0);
    rig.pause(Duration::from_millis(2));
    assert_eq!((rig.rx_done(1).status & 3, rig.rx_done(2).status & 3), (3, 3));
    rig.end_clean();
}

#[test]
fn late_write_backs_do_not_survive_a_reset() {
    let mut rig = with(Fault::DelayCompletions(Duration::from_millis(1)));
    assert!(rig.world.inject(rig.port, &frame(60)));
    rig.write(0, 1 << 26);
    rig.pause(Duration::from_millis(5));
    assert_eq!(rig.rx_done(0).status, 0);
    rig.end_clean();
}

#[test]
fn stuck_done_lying_lengths_and_frame_errors() {
    let mut rig = with(Fault::StuckDone);
    assert!(rig.world.inject(rig.port, &frame(60)));
    let slot = rig.send_plain(&frame(60));
    rig.pause(Duration::from_secs(1));
    assert_eq!((rig.rx_done(0).status, rig.tx_done(slot)), (0, false));
    rig.end_clean();
    let rig = with(Fault::LyingLength(9000));
    assert!(rig.world.inject(rig.port, &frame(60)));
    assert_eq!(rig.rx_done(0).len, 9000);
    rig.world.clear_faults(rig.port);
    rig.world.set_fault(rig.port, Fault::RxError);
    assert!(rig.world.inject(rig.port, &frame(60)));
    assert_eq!((rig.rx_done(1).status >> 31, rig.rx_done(1).len), (1, 60));
    rig.end_clean();
}

#[test]
fn a_pf_reset_at_a_chosen_access() {
    let mut rig = with(Fault::PfResetAtAccess(3));
    assert_eq!((rig.read(0xc40) & 0x40, rig.read(0xc40) & 0x40, rig.read(0xc40) & 0x40), (0, 0, 0x40));
    assert_eq!(rig.ask::<1>(&[5, 1522]), None, "nobody is at home");
    rig.pause(Duration::from_millis(30));
    assert_eq!(rig.read(0xc40) & 0x40, 0);
    rig.bring_up();
    rig.end_clean();
}

#[test]
fn a_pf_reset_while_the_driver_programs_is_no_mistake_of_the_driver() {
    let mut rig = Rig::open(Part::I82576);
    rig.reset();
    rig.write(0xc40, 4);
    rig.world.pf_reset(rig.port);
    rig.write(0x800, 5);
    rig.write(0xc40, 1); // the VF still owned the buffer
    rig.write(0x3828, 1 << 25); // the ring that was programmed is gone, and TXCTL is at its default
    rig.send_plain(&frame(60));
    rig.start_rx(2);
    rig.arm(5);
    rig.pause(Duration::from_millis(1));
    assert!(rig.sent().is_empty() && !rig.world.inject(rig.port, &frame(60)));
    rig.world.pf_reset_done(rig.port);
    rig.pause(Duration::from_millis(1)); // for the ping, which a reset of the VF does not stop
    rig.bring_up();
    rig.send_plain(&frame(60));
    assert!(rig.sent().len() == 1 && rig.world.inject(rig.port, &frame(60)));
    rig.end_clean();
}

#[test]
fn all_ones_from_a_chosen_access() {
    let mut rig = with(Fault::AllOnesFromAccess(2));
    assert_eq!((rig.read(8), rig.read(8), rig.read(8)), (0x83, u32::MAX, u32::MAX));
    rig.ring(0x2818, 3);
    assert!(!rig.world.inject(rig.port, &frame(60)));
    rig.end_clean();
}

#[test]
fn a_lost_configuration_reads_0_until_bus_master_is_set() {
    let mut rig = with(Fault::ConfigLost);
    assert!(!rig.bus.bus_master().unwrap());
    assert_eq!((rig.read(8), rig.read(0x2808), rig.read(0xc40)), (0, 0, 0));
    assert!(!rig.world.inject(rig.port, &frame(60)));
    rig.bus.set_bus_master(true).unwrap();
    assert_eq!((rig.read(8), rig.read(0x2808)), (0x83, 0));
    rig.bring_up();
    assert!(rig.world.inject(rig.port, &frame(60)));
    rig.end_clean();
}

#[test]
fn a_pf_that_refuses_or_loses_or_garbles() {
    let mut rig = with(Fault::NackRequest(5));
    assert_eq!(rig.ask(&[5, 9000]), Some([0x6000_0005]));
    assert_eq!(rig.ask(&[0x0001_0004, 100]), Some([0xa001_0004]));
    rig.end_clean();
    let mut rig = with(Fault::LoseAck);
    assert_eq!(rig.post(&[5, 1522]) & 0x30, 0x10);
    rig.end_clean();
    let mut rig = with(Fault::LoseReply);
    assert_eq!(rig.post(&[5, 1522]) & 0x30, 0x20);
    assert_eq!(rig.wait_mail(0x10) & 0x10, 0);
    rig.end_clean();
    let mut rig = with(Fault::GarbageReply);
    assert_eq!(rig.ask(&[5, 1522]), Some([0x5bad_c0de]));
    rig.end_clean();
    let mut rig = with(Fault::StsWithoutMessage);
    rig.write(0xc40, 4);
    rig.write(0x800, 5);
    rig.write(0xc40, 1);
    assert_eq!(rig.read(0xc40) & 0x30, 0x10);
    assert_eq!(rig.wait_mail(0x20) & 0x20, 0x20);
    assert_eq!((rig.wait_mail(0x10) & 0x10, rig.read(0x800)), (0, 5));
    rig.end_clean();
}

#[test]
fn a_pf_that_stays_in_reset_and_queues_that_stay_enabled() {
    let mut rig = with(Fault::RstiStuck);
    rig.pause(Duration::from_secs(10));
    assert_eq!(rig.read(0xc40) & 0x40, 0x40);
    rig.end_clean();
    let mut rig = with(Fault::EnableStuck);
    rig.write(0x2828, 1 << 16);
    rig.pause(Duration::from_secs(1));
    assert_ne!(rig.read(0x2828) & 1 << 25, 0);
    rig.end_clean();
}

#[test]
fn a_link_that_flaps() {
    let mut rig = with(Fault::LinkFlaps(Duration::from_millis(10)));
    let mut seen = Vec::new();
    for _ in 0..4 {
        rig.pause(Duration::from_millis(10));
        seen.push(rig.read(8) & 2);
    }
    assert_eq!(seen, [0, 2, 0, 2]);
    rig.end_clean();
}
