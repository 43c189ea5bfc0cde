//! The mailbox and the PF, with the vectors of the fact sheet (igbvf 7.4).
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::Fault;

#[test]
fn the_reset_exchange_brings_the_mac() {
    let mut rig = Rig::open(Part::I82576);
    assert_ne!(rig.read(0xc40) & 0x80, 0, "a PF that came up before us left RSTD");
    assert_eq!(rig.read(0xc40) & 0x80, 0, "which a read clears");
    assert_eq!(rig.reset(), [0x8000_0001, 0x3322_1102, 0x5544]);
    assert_eq!(rig.bus.id().device, 0x10ca);
    rig.end_clean();
}

#[test]
fn a_pf_without_a_mac_says_nack_to_the_reset() {
    let world = World::stepped(7);
    let mut rig = Rig::in_world(&world, IgbOptions { mac: None, ..IgbOptions::default() });
    assert_eq!(rig.reset(), [0x4000_0001, 0, 0]);
    assert_eq!(rig.ask(&[2, 0x3322_1102, 0x5544]), Some([0xa000_0002]));
    assert_eq!(world.mac(rig.port), MAC);
    rig.end_clean();
}

#[test]
fn requests_are_answered_as_in_the_fact_sheet() {
    let mut rig = Rig::open(Part::I350);
    rig.reset();
    assert_eq!(rig.bus.id().device, 0x1520);
    assert_eq!(rig.ask(&[5, 1522]), Some([0xa000_0005]));
    assert_eq!(rig.ask(&[0x0001_0004, 100]), Some([0xa001_0004]));
    assert_eq!(rig.ask(&[0x0002_0006]), Some([0xa000_0006]));
    assert_eq!(rig.ask(&[0x0000_0099]), Some([0x6000_0099]));
    assert_eq!(rig.post(&[0x8000_0005]) & 0x30, 0x20, "acknowledged, never answered");
    assert_eq!(rig.wait_mail(0x10) & 0x10, 0);
    assert_eq!(rig.read(0x800) & 0x8000_0000, 0x8000_0000, "the last message stays in the buffer");
    rig.end_clean();
}

#[test]
fn without_cts_one_word_comes_in_two_seconds() {
    let mut rig = Rig::open(Part::I82576);
    rig.reset();
    rig.write(0, 1 << 26);
    assert_eq!(rig.ask::<1>(&[5, 1522]), None);
    rig.pause(Duration::from_secs(1));
    assert_eq!(rig.ask(&[5, 1522]), Some([0x4000_0000]));
    rig.pause(Duration::from_millis(100)); // the ACK pulse of the exchange is not answered either
    assert_eq!(rig.ask::<1>(&[5, 1522]), None);
    rig.end_clean();
}

#[test]
fn reads_clear_pfsts_and_pfack() {
    let mut rig = Rig::open(Part::I82576);
    rig.write(0, 1 << 26);
    rig.write(0xc40, 4);
    rig.write(0x800, 1);
    rig.write(0xc40, 1);
    rig.pause(Duration::from_millis(5));
    assert_eq!(rig.read(0xc40) & 0x30, 0x30);
    assert_eq!(rig.read(0xc40) & 0x30, 0);
    rig.end_clean();
}

#[test]
fn ownership_of_the_buffer_is_released_by_req_and_refused_while_the_pf_has_it() {
    let mut rig = Rig::open(Part::I82576);
    rig.write(0xc40, 4);
    assert_eq!(rig.read(0xc40) & 4, 4);
    rig.write(0xc40, 1);
    assert_eq!(rig.read(0xc40) & 4, 0);
    rig.world.set_fault(rig.port, Fault::PfHoldsBuffer);
    rig.write(0xc40, 4);
    assert_eq!(rig.read(0xc40) & 0xc, 8);
    rig.end_clean();
}

#[test]
fn link_changes_show_in_status_and_are_pinged() {
    let mut rig = Rig::open(Part::I82576);
    rig.reset();
    assert_eq!(rig.read(8), 0x83);
    rig.world.link(rig.port, false);
    assert_eq!(rig.read(8) & 2, 0);
    rig.pause(Duration::from_millis(1));
    assert_ne!(rig.read(0xc40) & 0x10, 0);
    assert_eq!(rig.read(0x800), 0x2000_0100);
    rig.end_clean();
}

#[test]
fn a_pf_reset_is_seen_in_every_way_and_takes_everything() {
    let mut rig = Rig::running(Part::I82576);
    rig.world.pf_reset(rig.port);
    assert_eq!(rig.read(0xc40) & 0xc0, 0x40);
    assert_eq!(rig.read(0xc40) & 0xc0, 0x40, "RSTI is a level");
    assert_eq!((rig.read(0x2808), rig.read(0x3808)), (0, 0));
    rig.ring(0x2818, 5); // a queue that does not know yet
    assert!(!rig.world.inject(rig.port, &frame(60)));
    rig.world.pf_reset_done(rig.port);
    rig.pause(Duration::from_millis(1));
    let bits = rig.read(0xc40);
    assert_eq!(bits & 0xd0, 0x90, "RSTD and a ping");
    assert_eq!(rig.read(0xc40) & 0xd0, 0);
    assert_eq!(rig.read(0x800), 0x100);
    rig.bring_up();
    assert!(rig.world.inject(rig.port, &frame(60)));
    rig.end_clean();
}
