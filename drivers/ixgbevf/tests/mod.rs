//! The control path against a scripted function in virtual time: life cycle, agreement with the PF, signs of a reset, link.

mod fake;
mod programming;
mod settings;
mod signs;

use std::time::Duration;

use super::messages::Api;
use super::port::Ixgbevf;
use crate::addr::{Iova, MacAddr};
use crate::error::{Error, Result};
use crate::port::device::{Device, Health, Link, RingKind, RingPlan, Settings};
use fake::{ACK, API, Action, CTS, Fake, LINK, NACK, PFU, QUEUES, RSTD, RSTI, with_payload};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// What the scripted PF takes to answer.
const ANSWER: Duration = Duration::from_micros(1900);
const UP: Health = Health::Running(Link { up: true, speed_mbps: 10_000, full_duplex: true });
/// What the driver sends between the reset request and the first setting, to a PF that speaks 1.3.
const AGREEMENT: [&[u32]; 4] = [&[1], &[8, 4], &[9], &[0x10]];

/// Device ids (fact sheet ixgbevf 1).
const I82599: u16 = 0x10ED;
const X540: u16 = 0x1515;
const X550: u16 = 0x1565;

fn settings() -> Settings {
    Settings {
        mac: None,
        mtu: 1500,
        vlans: Default::default(),
        multicast: Vec::new(),
        unicast: Vec::new(),
        promiscuous: false,
        all_multicast: false,
        rss: None,
    }
}

fn ring(queue: u16, buffer_len: u16) -> RingPlan {
    RingPlan { queue, base: Iova(0x12_3456_7880), entries: 512, buffer_len, vector: Some(queue + 1) }
}

fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, last])
}

fn groups(n: u8) -> Vec<MacAddr> {
    (0..n).map(|i| MacAddr([0x01, 0, 0x5E, 0, 0, i])).collect()
}

/// A function after its handshake.
fn ready_on(fake: Fake) -> Ixgbevf<Fake> {
    let mut vf = Ixgbevf::open(fake).unwrap();
    vf.reset(true).unwrap();
    vf
}

fn ready(device: u16) -> Ixgbevf<Fake> {
    ready_on(Fake::new(device))
}

/// A function whose rings run.
fn running(device: u16) -> Ixgbevf<Fake> {
    let mut vf = ready(device);
    start(&mut vf).unwrap();
    vf
}

fn start(vf: &mut Ixgbevf<Fake>) -> Result<()> {
    vf.restore(&settings())?;
    let queues = vf.caps().rx_queues;
    let [rx, tx] = [2048, 0].map(|len| (0..queues).map(|queue| ring(queue, len)).collect::<Vec<_>>());
    vf.start_rings(&rx, &tx)?;
    vf.start_interrupts(&[ring(0, 2048)])
}

fn elapsed<T>(vf: &mut Ixgbevf<Fake>, act: impl FnOnce(&mut Ixgbevf<Fake>) -> T) -> (T, Duration) {
    let before = vf.fake().time;
    let result = act(vf);
    (result, vf.fake().time - before)
}

fn is_timeout<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Timeout { .. }))
}

/// The error of a device, which must say `word`.
fn refused<T: std::fmt::Debug>(result: Result<T>, word: &str) {
    let Err(Error::Device { reason, .. }) = result else { panic!("{result:?}") };
    assert!(reason.contains(word) && !reason.contains('\n'), "{reason}");
}

impl Ixgbevf<Fake> {
    fn fake(&mut self) -> &mut Fake {
        &mut self.vf.bus
    }

    fn last_request(&mut self) -> Vec<u32> {
        self.fake().requests.last().unwrap().clone()
    }
}

#[test]
fn only_the_parts_that_are_known_are_opened() {
    let error = |fake: Fake| Ixgbevf::open(fake).err().expect("refused").to_string();
    for id in [0x152E, 0x1530, 0x1564, 0x15A9, 0x15B4] {
        let text = error(Fake::new(id));
        assert!(text.contains("Hyper-V") && !text.contains('\n'), "{text}");
    }
    assert!(error(Fake::new(0x10CA)).contains("10ed"));
    assert!(error(Fake { bar_len: 0x1000, ..Fake::new(X540) }).contains("BAR0"));
    let mut stranger = Fake::new(X540);
    stranger.id.vendor = 0x1AF4;
    assert!(error(stranger).contains("1af4:1515"));
    let parts = [
        (I82599, "82599 VF", false),
        (X540, "X540 VF", false),
        (X550, "X550 VF", true),
        (0x15A8, "X550EM_x VF", true),
        (0x15C5, "X550EM_a VF", true),
        (0x57AD, "E610 VF", true),
    ];
    for (id, name, own_rss) in parts {
        let mut vf = Ixgbevf::open(Fake::new(id)).unwrap();
        assert_eq!((vf.fake().reads, vf.fake().actions.len()), (0, 0), "opening touches no register");
        let caps = vf.caps();
        assert_eq!((caps.part, caps.rx_queues, caps.tx_queues, caps.mtu_max), (name, 8, 8, 9702));
        assert_eq!(caps.rss.unwrap().settable, own_rss, "{name}");
        assert_eq!(caps.rings, RingKind::Ixgbe { udp_without_checksum_flagged: id == I82599 });
    }
}

#[test]
fn reset_silences_all_eight_queues_and_then_shakes_hands() {
    let mut vf = ready(X540);
    assert_eq!(vf.mac(), MacAddr([0x02, 0, 0, 0xAA, 0xBB, 0xCC]));
    let actions = vf.fake().actions.clone();
    let at = |action| actions.iter().position(|&a| a == action).unwrap_or_else(|| panic!("no {action:?}"));
    let order = [
        at(Action::FunctionReset),
        at(Action::BusMaster(true)),
        at(Action::Write(0x10C, 7)),
        at(Action::Write(0x2028, 1 << 26)),
        at(Action::Write(0x21E8, 1 << 26)),
        at(Action::Write(0x11E8, 0)),
        at(Action::Write(0x0300, 0)),
        at(Action::Write(0x0000, 1 << 26)),
        at(Action::Write(0x2038, 0)),
        at(Action::Write(0x200, 1)),
        at(Action::Write(0x2FC, 1)),
    ];
    assert!(order.is_sorted(), "{actions:x?}");
    assert_eq!(vf.fake().requests, AGREEMENT);
    let time = vf.fake().time;
    assert!(time >= 4 * MS + 4 * ANSWER, "2 ms to drain, 2 for the PF to notice, and four answers: {time:?}");
    assert!(time < 4 * MS + 4 * (ANSWER + MS), "an answer is looked for from the start: {time:?}");
    vf.fake().actions.clear();
    vf.reset(false).unwrap();
    assert!(!vf.fake().actions.contains(&Action::FunctionReset));
}

#[test]
fn what_no_reset_clears_has_its_default_afterwards() {
    for device in [X540, X550] {
        let mut fake = Fake::new(device);
        for n in 0..8 {
            for offset in [0x1010, 0x1018, 0x2010, 0x2018, 0x203C, 0x100C, 0x200C] {
                fake.set(offset + 0x40 * n, 0x55);
            }
        }
        let mut vf = ready_on(fake);
        for n in 0..8 {
            let defaults = [
                (0x1010, 0),
                (0x1018, 0),
                (0x1028, 0),
                (0x1014, 0x402),
                (0x100C, 0xA200),
                (0x2010, 0),
                (0x2018, 0),
                (0x2028, 0),
                (0x200C, 0x2A00),
                (0x2038, 0),
                (0x203C, 0),
            ];
            for (offset, value) in defaults {
                assert_eq!(vf.fake().get(offset + 0x40 * n), value, "{offset:#x} of queue {n}");
            }
        }
        assert_eq!(vf.fake().get(0x300), 0);
        // Generation A has no such register.
        assert_eq!(vf.fake().get(0x3000), u32::from(device == X540));
    }
}

#[test]
fn a_queue_that_never_stops_fails_the_reset_before_the_pf_is_told() {
    let mut vf = Ixgbevf::open(Fake { queues_stick: true, ..Fake::new(X540) }).unwrap();
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
    refused(result, "VFCTRL.RST");
    assert!(!vf.is_silent());
    assert!(time >= 14 * MS && time < 16 * MS, "{time:?}");
    assert_eq!(vf.fake().requests.len(), 0);
}

#[test]
fn a_function_is_silent_from_a_reset_that_stopped_it_to_the_first_queue_that_starts() {
    let mut vf = Ixgbevf::open(Fake::new(X540)).unwrap();
    assert!(!vf.is_silent(), "a killed process may have left queues running");
    vf.fake().answers = false;
    assert!(is_timeout(vf.reset(false)));
    assert!(vf.is_silent(), "only the PF does not answer");
    vf.fake().answers = true;
    vf.reset(true).unwrap();
    assert!(vf.is_silent());
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    assert!(!vf.is_silent());
    vf.fake().dead_from = Some(0);
    assert!(vf.reset(false).is_err() && !vf.is_silent());
    assert!(vf.reset(true).is_err() && vf.is_silent());
    let mut vf = ready(X540);
    vf.start_rings(&[], &[ring(1, 0)]).unwrap();
    assert!(!vf.is_silent());
}

#[test]
fn the_newest_version_that_both_speak_is_agreed_on_at_every_reset() {
    type Case<'a> = (&'a [u32], Api, &'a [&'a [u32]]);
    let cases: [Case<'_>; 5] = [
        (&[0, 2, 3, 4, 7, 8], Api::V1_3, &[&[1], &[8, 4], &[9], &[0x10]]),
        (&[0, 2, 3], Api::V1_2, &[&[1], &[8, 4], &[8, 3], &[9], &[0x10]]),
        (&[0, 2], Api::V1_1, &[&[1], &[8, 4], &[8, 3], &[8, 2], &[9]]),
        (&[0], Api::V1_0, &[&[1], &[8, 4], &[8, 3], &[8, 2], &[8, 0]]),
        (&[], Api::V1_0, &[&[1], &[8, 4], &[8, 3], &[8, 2], &[8, 0]]),
    ];
    for (spoken, agreed, requests) in cases {
        let mut vf = ready_on(with_payload(Fake::new(X540), API, spoken));
        assert_eq!(
            (vf.api, &vf.fake().requests[..]),
            (agreed, &requests.iter().map(|r| r.to_vec()).collect::<Vec<_>>()[..])
        );
        let queues = if agreed == Api::V1_0 { 1 } else { 4 };
        assert_eq!((vf.caps().rx_queues, vf.caps().tx_queues), (queues, queues));
        assert_eq!(vf.caps().rss.is_some(), queues > 1, "one queue: nothing to spread");
        start(&mut vf).unwrap();
        assert_eq!(vf.check(), UP);
        // The PF's driver was replaced meanwhile.
        *vf.fake() = with_payload(std::mem::replace(vf.fake(), Fake::new(X540)), API, &[0, 2]);
        vf.reset(false).unwrap();
        assert_eq!((vf.api, vf.caps().rx_queues), (Api::V1_1, 4));
    }
}

#[test]
fn the_pf_says_how_many_queues_there_are_and_nonsense_means_one() {
    for (words, rx, tx) in [
        ([2, 2, 0, 0], 2, 2),
        ([8, 8, 0, 0], 8, 8),
        ([1, 4, 1, 0], 4, 1),
        ([0, 0, 0, 0], 1, 1),
        ([9, u32::MAX, u32::MAX, u32::MAX], 1, 1),
    ] {
        for device in [X540, X550] {
            let mut vf = ready_on(with_payload(Fake::new(device), QUEUES, &words));
            assert_eq!((vf.caps().rx_queues, vf.caps().tx_queues), (rx, tx), "{words:?}");
            assert!(vf.start_rings(&[ring(rx, 2048)], &[]).is_err() && vf.start_rings(&[], &[ring(tx, 0)]).is_err());
            assert!(vf.rx_doorbell(rx).is_err() && vf.tx_doorbell(tx).is_err());
        }
    }
    // A PF that does not tell.
    let vf = ready_on(Fake { refuses: vec![QUEUES], ..Fake::new(X540) });
    assert_eq!((vf.caps().rx_queues, vf.caps().tx_queues), (1, 1));
}

#[test]
fn traffic_classes_take_the_place_of_rss() {
    let mut vf = ready_on(with_payload(Fake::new(X550), QUEUES, &[8, 8, 4, 3]));
    assert_eq!((vf.caps().rx_queues, vf.caps().tx_queues, vf.caps().rss), (4, 8, None));
    vf.fake().actions.clear();
    vf.start_rings(&[ring(0, 2048), ring(3, 2048)], &[ring(0, 0), ring(6, 0)]).unwrap();
    let writes = vf.fake().take_writes();
    assert!(writes.contains(&(0x300, 0)), "no queue bits");
    // Frames without a priority belong to queue 3, so the program's first is that one.
    for n in [3, 1] {
        assert!(writes.contains(&(0x2008 + 0x40 * n, 512 * 16)), "transmit queue {n}");
    }
    assert_eq!(vf.check(), UP, "the right lengths are looked at");
    vf.fake().set(0x2008 + 0x40, 0);
    assert_eq!(vf.check(), Health::Resetting);
}

#[test]
fn without_an_assigned_address_a_random_one_is_kept_and_asked_for() {
    for (assigned, refuses) in [(None, vec![]), (None, vec![2]), (Some(MacAddr::ZERO), vec![])] {
        let mut vf = ready_on(Fake { mac: assigned, refuses, ..Fake::new(X540) });
        let own = vf.mac();
        assert!(own.is_valid_station());
        assert_eq!(own.0[0] & 3, 2, "{own}: locally administered, no group");
        vf.restore(&settings()).unwrap();
        let m = own.0;
        let asked = vec![2, u32::from_le_bytes([m[0], m[1], m[2], m[3]]), u32::from_le_bytes([m[4], m[5], 0, 0])];
        assert_eq!(vf.fake().requests[AGREEMENT.len()], asked);
        vf.reset(false).unwrap();
        assert_eq!(vf.mac(), own, "a port keeps its address");
    }
    let mut vf = ready(X540);
    let assigned = vf.mac();
    vf.fake().mac = None;
    vf.reset(false).unwrap();
    assert_eq!(vf.mac(), assigned, "a PF that forgets what it once assigned does not change it");
}

#[test]
fn a_pf_stuck_in_reset_is_a_timeout_to_be_tried_again() {
    let mut vf = Ixgbevf::open(Fake::new(X540)).unwrap();
    vf.fake().set(0x2FC, RSTI);
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
    assert!(is_timeout(result));
    assert!(time >= 5 * MS && time < 7 * MS, "{time:?}");
    assert_eq!(vf.fake().requests.len(), 0, "nothing is sent to a PF in reset");
    assert_eq!(vf.fake().get(0x1028), 0, "queues are off all the same");
    assert_eq!(vf.check(), Health::Resetting);
    vf.fake().set(0x2FC, RSTD);
    vf.reset(true).unwrap();
    assert_eq!(vf.check(), UP);
}

#[test]
fn the_end_of_a_pf_reset_just_before_the_handshake_costs_no_second_one() {
    let mut vf = running(X540);
    // While the PF takes the request, whose answer comes 1900 us after it was sent.
    let soon = vf.fake().time + 4 * MS + Duration::from_micros(1000);
    vf.fake().coming.push((soon, RSTD, vec![]));
    vf.reset(false).unwrap();
    assert_eq!(vf.check(), UP);
    vf.fake().set(0x2FC, RSTD);
    assert_eq!(vf.check(), Health::Resetting, "after the answer it is news");
}

#[test]
fn an_answer_to_a_reset_is_waited_for_as_long_as_it_takes_and_no_longer() {
    for answer_time in [Duration::from_micros(30), 3 * MS, 70 * MS, 990 * MS] {
        let mut vf = Ixgbevf::open(Fake { answer_time, ..Fake::new(X540) }).unwrap();
        let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
        result.unwrap();
        let answers = AGREEMENT.len() as u32 * answer_time;
        assert!(time >= 4 * MS + answers && time < 7 * MS + answers, "{answer_time:?}: {time:?}");
        assert_eq!(vf.fake().requests, AGREEMENT, "{answer_time:?}: each was asked once");
    }
    let mut vf = Ixgbevf::open(Fake { answer_time: SECOND + 10 * MS, ..Fake::new(X540) }).unwrap();
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
    assert!(is_timeout(result) && time < SECOND + 10 * MS, "{time:?}");
    assert_eq!(vf.fake().requests, AGREEMENT[..1]);
}

#[test]
fn a_request_that_the_pf_found_empty_is_made_again() {
    for empties in [1, 20] {
        let mut vf = ready_on(Fake { empties, ..Fake::new(X550) });
        let requests: Vec<_> = std::iter::repeat_n(&[0][..], empties as usize).chain(AGREEMENT).collect();
        assert_eq!(vf.fake().requests, requests);
        // A refusal is an answer: nothing else is waited for.
        let time = vf.fake().time;
        assert!(time < 4 * MS + requests.len() as u32 * (ANSWER + MS), "{empties}: {time:?}");
        start(&mut vf).unwrap();
        assert_eq!(vf.check(), UP);
    }
    let answer_time = Duration::from_micros(30);
    let mut vf = Ixgbevf::open(Fake { empties: u32::MAX, answer_time, ..Fake::new(X550) }).unwrap();
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
    assert!(is_timeout(result) && time < SECOND + 20 * MS, "{time:?}");
    assert!(vf.fake().requests.len() < 2000, "it is not hurried: {}", vf.fake().requests.len());
}

#[test]
fn silence_costs_one_deadline_and_then_nothing_until_the_next_handshake() {
    let mut vf = running(X540);
    // Nobody waits for the PF's acknowledgement, only for its answer.
    vf.fake().acknowledges = false;
    vf.set_vlan(5, true).unwrap();
    vf.fake().answers = false;
    let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(6, true));
    let text = result.unwrap_err().to_string();
    assert!(text.contains("VLAN") && text.contains("ip link set dev PF up"), "{text}");
    assert!(time >= SECOND && time < SECOND + 10 * MS, "{time:?}");
    let sent = vf.fake().requests.len();
    let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(6, true));
    assert!(is_timeout(result) && time.is_zero(), "{time:?}");
    assert_eq!(vf.fake().requests.len(), sent);
    assert_eq!(vf.check(), Health::Resetting);
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(false));
    assert!(is_timeout(result) && time < SECOND + 100 * MS, "{time:?}");
    vf.fake().answers = true;
    vf.reset(false).unwrap();
    vf.set_vlan(6, true).unwrap();
}

#[test]
fn an_answer_to_a_given_up_request_is_not_taken_for_another() {
    let mut vf = running(X540);
    vf.fake().answers = false;
    assert!(is_timeout(vf.set_vlan(5, true)));
    vf.fake().pf_says(&[0x0001_0004 | ACK | CTS]);
    vf.fake().answers = true;
    vf.reset(false).unwrap();
    start(&mut vf).unwrap();
    vf.fake().refuses = vec![4];
    refused(vf.set_vlan(5, true), "VLAN 5");
}

#[test]
fn a_mailbox_that_the_pf_never_lets_go_of_is_given_up() {
    let mut vf = running(X540);
    vf.fake().set(0x2FC, PFU);
    let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
    assert!(is_timeout(result));
    assert!(time >= 990 * MS && time < SECOND + 10 * MS, "{time:?}");
    assert_eq!(vf.check(), Health::Resetting);
}

#[test]
fn a_pf_that_only_ever_pings_does_not_hold_the_caller() {
    let mut vf = ready(X540);
    // Slow accesses, so that the second passes in few of them.
    vf.fake().access_time = Duration::from_micros(50);
    vf.fake().flood = Some(0x100 | CTS);
    let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
    assert!(is_timeout(result) && time < SECOND + 10 * MS, "{time:?}");
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(false));
    assert!(is_timeout(result) && time < SECOND + 100 * MS, "{time:?}");
}

#[test]
fn a_ping_that_crosses_a_request_is_not_its_answer() {
    let mut vf = ready_on(Fake { crossing: Some(0x100 | CTS), ..Fake::new(X540) });
    assert_eq!((vf.api, vf.caps().rx_queues), (Api::V1_3, 4));
    vf.fake().refuses = vec![4];
    vf.restore(&settings()).unwrap();
    refused(vf.set_vlan(5, true), "VLAN 5");
    assert_eq!(vf.check(), UP);
}

#[test]
fn a_refusal_of_any_one_request_never_ends_in_a_hang_or_a_panic() {
    // What is asked at a reset and at a restore, refused one by one.
    for id in [2, 3, 4, 5, 6, API, QUEUES, 0x0C, LINK] {
        let mut vf = ready_on(Fake { refuses: vec![id], ..Fake::new(X540) });
        let wanted = Settings { vlans: [100].into(), unicast: vec![mac(9)], ..settings() };
        let result = vf.restore(&wanted);
        match id {
            3..=6 => assert!(matches!(result, Err(Error::Device { .. })), "{id}: {result:?}"),
            _ => result.unwrap_or_else(|error| panic!("{id}: {error}")),
        }
        assert!(vf.fake().time < SECOND, "{id}");
        let rings = vf.start_rings(&[ring(0, 2048)], &[ring(0, 0)]);
        rings.unwrap();
        assert_eq!(vf.check(), UP, "{id}");
    }
}

#[test]
fn a_device_that_vanishes_at_any_read_is_gone_and_never_hangs() {
    for device in [I82599, X550] {
        let life = |dead_from| {
            let mut vf = Ixgbevf::open(Fake { dead_from, ..Fake::new(device) }).unwrap();
            let result = vf.reset(true).and_then(|()| start(&mut vf)).and_then(|()| vf.set_multicast(&groups(30)));
            (result, vf)
        };
        let (result, mut vf) = life(None);
        result.unwrap();
        let reads = vf.fake().reads;
        assert!(reads > 100, "{reads}");
        for k in 0..reads {
            let (result, mut vf) = life(Some(k + 1));
            assert!(matches!(result, Err(Error::Gone { .. })), "read {k}: {result:?}");
            assert!(vf.fake().time < SECOND, "read {k}");
            assert_eq!(vf.check(), Health::Gone);
            assert!(matches!(vf.reset(false), Err(Error::Gone { .. })));
            vf.counters();
            assert!(vf.rss().is_err());
        }
    }
    // And during a check.
    let reads = |vf: &mut Ixgbevf<Fake>| {
        let before = vf.fake().reads;
        vf.fake().pf_says(&[0x100 | CTS]);
        assert_eq!(vf.check(), UP);
        vf.fake().reads - before
    };
    for k in 0..reads(&mut running(I82599)) {
        let mut vf = running(I82599);
        vf.fake().pf_says(&[0x100 | CTS]);
        vf.fake().dead_from = Some(vf.fake().reads + k + 1);
        assert_eq!(vf.check(), Health::Gone, "read {k}");
    }
}

#[test]
fn a_bar_that_reads_zero_from_any_read_on_is_seen_and_never_hangs() {
    let life = |dead_from| {
        let mut vf = Ixgbevf::open(Fake { dead_from, dead_value: 0, ..Fake::new(X540) }).unwrap();
        let result = vf.reset(true).and_then(|()| start(&mut vf));
        (result, vf)
    };
    let reads = life(None).1.fake().reads;
    for k in 0..reads {
        let (result, mut vf) = life(Some(k + 1));
        assert!(matches!(result, Ok(()) | Err(Error::Timeout { .. })), "read {k}: {result:?}");
        assert!(vf.fake().time < 3 * SECOND, "read {k}");
        assert_eq!(vf.check(), Health::Resetting, "read {k}");
        assert_eq!(vf.counters(), Default::default(), "read {k}");
    }
}
