//! Every fault shows.
#![forbid(unsafe_code)]

use super::*;
use crate::drivers::sim::Fault;

fn with(fault: Fault) -> Rig {
    let mut rig = Rig::running(AvfPart::E810);
    rig.listen();
    rig.world.set_fault(rig.port, fault);
    rig
}

fn get_caps() -> Bytes {
    bytes()
}

#[test]
fn late_partial_and_stuck_write_backs() {
    let mut rig = with(Fault::DelayCompletions(Duration::from_millis(1)));
    assert!(rig.inject(&frame(60)));
    let slot = rig.send_plain(&frame(60));
    assert_eq!((rig.rx_words(0)[1] & 1, rig.tx_done(slot)), (0, false));
    rig.pause(Duration::from_millis(2));
    assert_eq!((rig.rx_words(0)[1] & 1, rig.tx_done(slot)), (1, true));
    rig.world.clear_faults(rig.port);
    rig.world.set_fault(rig.port, Fault::PartialWriteback(Duration::from_millis(1)));
    assert!(rig.inject(&frame(60)));
    let words = rig.rx_words(1);
    assert!(words[0] >> 32 != 0 && words[1] & 1 == 0, "the hash is there, DD is not");
    rig.pause(Duration::from_millis(2));
    assert_eq!(rig.rx_words(1)[1] & 1, 1);
    rig.world.clear_faults(rig.port);
    rig.world.set_fault(rig.port, Fault::StuckDone);
    assert!(rig.inject(&frame(60)));
    rig.pause(Duration::from_secs(1));
    assert_eq!(rig.rx_words(2)[1] & 1, 0);
    rig.end_clean();
}

#[test]
fn lying_lengths_and_frame_errors() {
    let rig = with(Fault::LyingLength(9000));
    assert!(rig.inject(&frame(60)));
    assert_eq!(rig.rx_words(0)[1] >> 38 & 0x3fff, 9000);
    rig.world.clear_faults(rig.port);
    rig.world.set_fault(rig.port, Fault::RxError);
    assert!(rig.inject(&frame(60)));
    assert_eq!(rig.rx_words(1)[1] >> 19 & 1, 1);
    rig.end_clean();
}

#[test]
fn replies_that_are_refused_lost_late_or_wrong() {
    let mut rig = with(Fault::NackRequest(51));
    assert_eq!(rig.ask(51, get_caps()), (-5, vec![]));
    assert_eq!(rig.ask(44, get_caps()).0, 0);
    rig.end_clean();
    let mut rig = with(Fault::LoseReply);
    assert_eq!(rig.try_ask(51, get_caps()), None);
    rig.end_clean();
    let mut rig = with(Fault::LateReplies(Duration::from_millis(100)));
    assert_eq!(rig.try_ask(51, get_caps()), None);
    rig.pause(Duration::from_millis(100));
    assert_eq!(rig.wait_reply(51).unwrap().0, 0);
    rig.end_clean();
    let mut rig = with(Fault::GarbageReply);
    assert_eq!(rig.ask(51, get_caps()), (0, vec![0xa5; 40]));
    rig.end_clean();
    let mut rig = with(Fault::ShortReplies(3));
    assert_eq!(rig.ask(51, get_caps()).1.len(), 3);
    rig.end_clean();
    let mut rig = with(Fault::LongReplies(5000));
    assert_eq!(rig.ask(51, get_caps()).1.len(), 4096, "what fits the buffer");
    rig.end_clean();
    let mut rig = with(Fault::LyingReplyLength(0xffff));
    rig.post(51, &[]);
    rig.pause(Duration::from_millis(1));
    assert_eq!(rig.load(ARQ_RING + rig.arq_next * 32)[0] >> 32, 0xffff);
    rig.end_clean();
}

#[test]
fn messages_that_nobody_asked_for() {
    let mut rig = with(Fault::StrayReplies(77));
    rig.post(51, &[]);
    rig.pause(Duration::from_millis(1));
    assert_eq!(rig.hear(), Some((77, 0, vec![0xa5; 16])));
    assert_eq!(rig.hear().unwrap().0, 51);
    rig.end_clean();
    let mut rig = with(Fault::StrayEvents(99));
    rig.done(51, get_caps());
    assert_eq!(rig.listen()[0][..4], [99, 0, 0, 0]);
    rig.end_clean();
    let mut rig = with(Fault::FalseAlarm);
    assert_eq!(rig.listen()[0], bytes().u32s(&[2, 0, 0, 255]).0);
    assert_eq!((rig.read(0x8800), rig.read(0x8000) >> 31), (2, 1));
    rig.end_clean();
    let mut rig = with(Fault::StaleEvents);
    rig.done(1, bytes().u32s(&[1, 1]));
    assert_eq!(rig.listen()[0], bytes().u32s(&[2, 0, 0, 255]).0);
    rig.end_clean();
}

#[test]
fn resets_that_come_by_themselves_or_not_at_all() {
    let mut rig = with(Fault::PfResetAtAccess(2));
    assert_eq!((rig.read(0x8000) >> 31, rig.read(0x8000)), (1, 0));
    rig.wait_active();
    rig.end_clean();
    let mut rig = with(Fault::PfResetFor(Duration::from_millis(50)));
    rig.pause(Duration::from_millis(40));
    assert_ne!(rig.read(0x8800), 2);
    rig.pause(Duration::from_millis(20));
    assert_eq!(rig.read(0x8800), 2);
    rig.end_clean();
    let mut rig = with(Fault::ConfigLost);
    assert!(!rig.bus.bus_master().unwrap());
    rig.wait_active();
    assert_eq!((rig.read(0x8000), rig.inject(&frame(60))), (0, false));
    rig.end_clean();
    let mut rig = with(Fault::ResetIgnored);
    rig.post(2, &[]);
    rig.pause(Duration::from_secs(1));
    assert_eq!(rig.read(0x8000) >> 31, 1);
    rig.end_clean();
    let mut rig = with(Fault::RstiStuck);
    rig.pause(Duration::from_secs(1));
    assert_eq!(rig.read(0x8800), 0);
    rig.end_clean();
    let mut rig = with(Fault::AllOnesFromAccess(2));
    assert_eq!((rig.read(0x8800), rig.read(0x8800), rig.read(0)), (2, u32::MAX, u32::MAX));
    rig.end_clean();
}

#[test]
fn resources_that_are_none_or_too_many() {
    for (queues, vectors) in [(0, 0), (0xffff, 0xffff)] {
        let mut rig = Rig::open(options(AvfPart::Xl710));
        rig.world.set_fault(rig.port, Fault::Resources { queues, vectors });
        assert_eq!(rig.negotiate(CAPS)[2..6], bytes().u16s(&[queues, vectors]).0);
        rig.end_clean();
    }
    let mut rig = Rig::open(AvfOptions { rxdids: 0, ..options(AvfPart::E810) });
    rig.negotiate(CAPS);
    assert_eq!(rig.done(44, bytes()), [0; 8]);
    rig.end_clean();
}

#[test]
fn a_link_that_flaps() {
    let mut rig = with(Fault::LinkFlaps(Duration::from_millis(10)));
    rig.pause(Duration::from_millis(21));
    rig.world.clear_faults(rig.port);
    assert_eq!(rig.listen().iter().map(|event| event[8]).collect::<Vec<_>>(), [0, 1]);
    rig.end_clean();
}
