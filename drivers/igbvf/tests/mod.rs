//! The control path against a scripted function in virtual time: life cycle, mailbox, settings, signs of a reset.

mod fake;
mod programming;

use std::collections::BTreeSet;
use std::time::Duration;

use super::port::Igbvf;
use crate::addr::{Iova, MacAddr};
use crate::error::{Error, Result};
use crate::port::device::{Device, Health, Link, RingKind, RingPlan, Settings};
use fake::{ACK, Action, CTS, Fake, NACK, PFSTS, PFU, RSTD, RSTI};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const UP: Health = Health::Running(Link { up: true, speed_mbps: 1000, full_duplex: true });

fn settings() -> Settings {
    Settings {
        mac: None,
        mtu: 1500,
        vlans: BTreeSet::new(),
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
fn ready() -> Igbvf<Fake> {
    let mut vf = Igbvf::open(Fake::new(0x10CA)).unwrap();
    vf.reset(true).unwrap();
    vf
}

/// A function whose rings run.
fn running() -> Igbvf<Fake> {
    let mut vf = ready();
    start(&mut vf).unwrap();
    vf
}

fn start(vf: &mut Igbvf<Fake>) -> Result<()> {
    vf.restore(&settings())?;
    let queues = vf.caps().rx_queues;
    let [rx, tx] = [2048, 0].map(|len| (0..queues).map(|queue| ring(queue, len)).collect::<Vec<_>>());
    vf.start_rings(&rx, &tx)?;
    vf.start_interrupts(&[ring(0, 2048)])
}

fn elapsed<T>(vf: &mut Igbvf<Fake>, act: impl FnOnce(&mut Igbvf<Fake>) -> T) -> (T, Duration) {
    let before = vf.fake().time;
    let result = act(vf);
    (result, vf.fake().time - before)
}

fn is_timeout<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Timeout { .. }))
}

impl Igbvf<Fake> {
    fn fake(&mut self) -> &mut Fake {
        &mut self.vf.bus
    }
}

#[test]
fn only_the_parts_that_are_known_are_opened() {
    let error = |fake: Fake| Igbvf::open(fake).err().expect("refused").to_string();
    for id in [0x152D, 0x152F] {
        let text = error(Fake::new(id));
        assert!(text.contains("Hyper-V") && !text.contains('\n'), "{text}");
    }
    assert!(error(Fake::new(0x10ED)).contains("8086:10ca"));
    assert!(error(Fake { bar_len: 0x1000, ..Fake::new(0x10CA) }).contains("BAR0"));
    let (ca, i350) = (Igbvf::open(Fake::new(0x10CA)).unwrap(), Igbvf::open(Fake::new(0x1520)).unwrap());
    assert_eq!((ca.caps().rx_queues, ca.caps().tx_queues), (2, 2));
    assert_eq!((i350.caps().rx_queues, i350.caps().tx_queues), (1, 1));
    assert_eq!(ca.caps().rings, RingKind::Igb { big_endian_loopback_tag: false });
    assert_eq!(i350.caps().rings, RingKind::Igb { big_endian_loopback_tag: true });
}

#[test]
fn opening_touches_no_register() {
    let mut vf = Igbvf::open(Fake::new(0x10CA)).unwrap();
    assert_eq!((vf.fake().reads, vf.fake().actions.len()), (0, 0));
}

#[test]
fn a_queue_that_never_stops_fails_the_reset_before_the_pf_is_told() {
    let mut vf = Igbvf::open(Fake { queues_stick: true, ..Fake::new(0x10CA) }).unwrap();
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
    assert!(matches!(result, Err(Error::Device { reason, .. }) if reason.contains("CTRL.RST")));
    assert!(!vf.is_silent());
    assert!(time >= 20 * MS && time < 30 * MS, "{time:?}");
    assert_eq!(vf.fake().requests.len(), 0);
}

#[test]
fn a_function_is_silent_from_a_reset_that_stopped_it_to_the_first_queue_that_starts() {
    let mut vf = Igbvf::open(Fake::new(0x10CA)).unwrap();
    assert!(!vf.is_silent(), "a killed process may have left queues running");
    vf.fake().answers = false;
    assert!(is_timeout(vf.reset(false)));
    assert!(vf.is_silent(), "only the PF does not answer");
    vf.fake().answers = true;
    vf.reset(true).unwrap();
    assert!(vf.is_silent());
    vf.start_rings(&[ring(0, 2048)], &[]).unwrap();
    assert!(!vf.is_silent());
    // Gone, and nothing has stopped it; then the kernel could reset it all the same.
    vf.fake().dead_from = Some(0);
    assert!(vf.reset(false).is_err() && !vf.is_silent());
    assert!(vf.reset(true).is_err() && vf.is_silent());
    let mut vf = ready();
    vf.start_rings(&[], &[ring(1, 0)]).unwrap();
    assert!(!vf.is_silent());
}

#[test]
fn reset_silences_first_and_then_shakes_hands() {
    let mut vf = ready();
    assert_eq!(vf.mac(), MacAddr([0x02, 0, 0, 0xAA, 0xBB, 0xCC]));
    let actions = vf.fake().actions.clone();
    let at = |action| actions.iter().position(|&a| a == action).unwrap_or_else(|| panic!("no {action:?}"));
    let order = [
        at(Action::FunctionReset),
        at(Action::BusMaster(true)),
        at(Action::Write(0x1528, 7)),
        at(Action::Write(0x2828, 0)),
        at(Action::Write(0x3928, 0)),
        at(Action::Write(0x0000, 1 << 26)),
        at(Action::Write(0x0800, 1)),
        at(Action::Write(0xC40, 1)),
    ];
    assert!(order.is_sorted(), "{actions:x?}");
    assert_eq!(vf.fake().requests, [[1]]);
    assert!(vf.fake().time < 4 * MS, "an answer of 1.9 ms is looked for from the start: {:?}", vf.fake().time);
    // The reset left the function quiet: no queue, no vector.
    for offset in [0x2828, 0x2928, 0x3828, 0x3928, 0x152C, 0x1530] {
        assert_eq!(vf.fake().get(offset), 0, "{offset:#x}");
    }
    assert_eq!(vf.check(), UP);
}

#[test]
fn an_answer_to_a_reset_is_waited_for_as_long_as_it_takes_and_no_longer() {
    for answer_time in [Duration::from_micros(30), 3 * MS, 70 * MS, 990 * MS] {
        let mut vf = Igbvf::open(Fake { answer_time, ..Fake::new(0x10CA) }).unwrap();
        let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
        result.unwrap();
        assert!(time >= answer_time && time < answer_time + 2 * MS, "{answer_time:?}: {time:?}");
        assert_eq!(vf.fake().requests, [[1]], "{answer_time:?}: asked once");
    }
    let mut vf = Igbvf::open(Fake { answer_time: SECOND + 10 * MS, ..Fake::new(0x10CA) }).unwrap();
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
    assert!(is_timeout(result) && time < SECOND + 10 * MS, "{time:?}");
}

#[test]
fn a_family_reset_leaves_the_function_reset_out() {
    let mut vf = running();
    vf.fake().actions.clear();
    vf.reset(false).unwrap();
    assert!(!vf.fake().actions.contains(&Action::FunctionReset));
    assert!(vf.fake().actions.contains(&Action::BusMaster(true)));
}

#[test]
fn without_an_assigned_address_a_random_one_is_kept_and_asked_for() {
    for (assigned, refuses) in [(None, vec![]), (None, vec![2]), (Some(MacAddr::ZERO), vec![])] {
        let mut vf = Igbvf::open(Fake { mac: assigned, refuses, ..Fake::new(0x10CA) }).unwrap();
        vf.reset(true).unwrap();
        let own = vf.mac();
        assert!(own.is_valid_station());
        assert_eq!(own.0[0] & 3, 2, "{own}: locally administered, no group");
        vf.restore(&settings()).unwrap();
        let m = own.0;
        let asked = vec![2, u32::from_le_bytes([m[0], m[1], m[2], m[3]]), u32::from_le_bytes([m[4], m[5], 0, 0])];
        assert_eq!(vf.fake().requests[1], asked);
        vf.reset(false).unwrap();
        assert_eq!(vf.mac(), own, "a port keeps its address");
    }
    // A PF that forgets what it once assigned does not change the port's address.
    let mut vf = ready();
    let assigned = vf.mac();
    vf.fake().mac = None;
    vf.reset(false).unwrap();
    assert_eq!(vf.mac(), assigned);
    let other = || {
        let mut vf = Igbvf::open(Fake { mac: None, ..Fake::new(0x10CA) }).unwrap();
        vf.reset(true).unwrap();
        vf.mac()
    };
    assert_ne!(other(), other());
}

#[test]
fn clear_to_send_in_the_answer_to_a_reset_is_tolerated() {
    for mac in [None, Some(mac(7))] {
        let mut vf = Igbvf::open(Fake { mac, eager_clear_to_send: true, ..Fake::new(0x10CA) }).unwrap();
        vf.reset(true).unwrap();
        assert!(mac.is_none_or(|mac| mac == vf.mac()));
    }
}

#[test]
fn settings_reach_the_pf_in_order() {
    let mut vf = ready();
    vf.fake().requests.clear();
    let wanted = Settings {
        mac: Some(mac(1)),
        mtu: 1500,
        vlans: [100, 200].into(),
        multicast: vec!["01:00:5e:00:00:fb".parse().unwrap()],
        unicast: vec![mac(9)],
        promiscuous: false,
        all_multicast: true,
        rss: None,
    };
    vf.restore(&wanted).unwrap();
    let expected: [&[u32]; 8] = [
        &[0x0000_0002, 0x0000_0002, 0x0100],
        &[0x0001_0003, 0x0FB0],
        &[0x0001_0002, 0x0000_0002, 0x0100],
        &[0x0002_0002, 0x0000_0002, 0x0900],
        &[0x0001_0004, 100],
        &[0x0001_0004, 200],
        // 1500 + 18 + 4 + 4.
        &[0x0000_0005, 1526],
        &[0x0002_0006],
    ];
    assert_eq!(vf.fake().requests, expected);
    assert_eq!(vf.mac(), mac(1));
}

#[test]
fn a_pf_stuck_in_reset_is_a_timeout_to_be_tried_again() {
    let mut vf = Igbvf::open(Fake::new(0x10CA)).unwrap();
    vf.fake().set(0xC40, RSTI);
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(true));
    assert!(is_timeout(result));
    assert!(time >= MS && time < 10 * MS, "{time:?}");
    assert_eq!(vf.fake().requests.len(), 0, "nothing is sent to a PF in reset");
    assert_eq!(vf.fake().get(0x2828), 0, "queues are off all the same");
    assert_eq!(vf.check(), Health::Resetting);
    vf.fake().set(0xC40, RSTD);
    vf.reset(true).unwrap();
    assert_eq!(vf.check(), UP);
    // A reset that failed half way leaves a function that needs another one, even once the PF is back.
    vf.fake().set(0xC40, RSTI);
    assert!(is_timeout(vf.reset(false)));
    vf.fake().set(0xC40, 0);
    assert_eq!(vf.check(), Health::Resetting);
    assert!(is_timeout(vf.set_vlan(5, true)));
}

#[test]
fn the_end_of_a_pf_reset_just_before_the_handshake_costs_no_second_one() {
    let mut vf = running();
    // While the PF takes the request: it is acknowledged 200 us after it was sent.
    let soon = vf.fake().time + Duration::from_micros(250);
    vf.fake().coming.push((soon, RSTD, vec![]));
    vf.reset(false).unwrap();
    assert_eq!(vf.check(), UP);
    // After the answer it is news.
    vf.fake().set(0xC40, RSTD);
    assert_eq!(vf.check(), Health::Resetting);
}

#[test]
fn silence_costs_one_deadline_and_then_nothing_until_the_next_handshake() {
    for (acknowledges, answers) in [(false, true), (false, false), (true, false)] {
        let mut vf = running();
        (vf.fake().acknowledges, vf.fake().answers) = (acknowledges, answers);
        let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
        let text = result.unwrap_err().to_string();
        assert!(text.contains("VLAN") && text.contains("ip link set dev PF up"), "{text}");
        assert!(time >= SECOND && time < SECOND + 10 * MS, "{time:?}");
        let sent = vf.fake().requests.len();
        let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(6, true));
        assert!(is_timeout(result) && time.is_zero(), "{time:?}");
        assert_eq!(vf.fake().requests.len(), sent);
        assert_eq!(vf.check(), Health::Resetting);
        // A handshake that gets no answer is bounded as well, and one that does arms the mailbox again.
        let (result, time) = elapsed(&mut vf, |vf| vf.reset(false));
        assert!(is_timeout(result) && time < SECOND + 50 * MS, "{time:?}");
        (vf.fake().acknowledges, vf.fake().answers) = (true, true);
        vf.reset(false).unwrap();
        vf.set_vlan(6, true).unwrap();
    }
}

#[test]
fn a_mailbox_that_the_pf_never_lets_go_of_is_given_up() {
    let mut vf = running();
    vf.fake().set(0xC40, PFU);
    let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
    assert!(is_timeout(result));
    assert!(time >= 9 * MS && time < 11 * MS, "{time:?}");
    assert_eq!(vf.check(), Health::Resetting);
}

#[test]
fn a_pf_that_only_ever_pings_does_not_hold_the_caller() {
    let mut vf = ready();
    // Slow accesses, so that the second passes in few of them.
    vf.fake().access_time = Duration::from_micros(50);
    vf.fake().flood = Some(0x100 | CTS);
    let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
    assert!(is_timeout(result) && time < SECOND + 10 * MS, "{time:?}");
    let (result, time) = elapsed(&mut vf, |vf| vf.reset(false));
    assert!(is_timeout(result) && time < SECOND + 50 * MS, "{time:?}");
}

#[test]
fn a_ping_that_crosses_a_request_is_not_its_answer() {
    let mut vf = Igbvf::open(Fake { crossing: Some(0x100 | CTS), ..Fake::new(0x10CA) }).unwrap();
    vf.reset(true).unwrap();
    vf.fake().refuses = vec![4];
    vf.restore(&settings()).unwrap();
    assert!(matches!(vf.set_vlan(5, true), Err(Error::Device { .. })));
    assert_eq!(vf.check(), UP);
}

#[test]
fn refusals_teach_and_are_no_transport_failure() {
    let mut vf = running();
    vf.fake().refuses = vec![2, 3, 4, 5, 6];
    let before = vf.mac();
    let refused = |result: Result<()>, word: &str| {
        let Err(Error::Device { reason, .. }) = result else { panic!("{result:?}") };
        assert!(reason.contains(word), "{reason}");
    };
    refused(vf.set_mac(mac(1)), "ip link set dev PF vf N mac");
    assert_eq!(vf.mac(), before);
    refused(vf.set_vlan(5, true), "vlan 0");
    refused(vf.set_multicast(&[]), "multicast");
    refused(vf.set_unicast(&[mac(2)]), "trust on");
    refused(vf.set_promiscuous(true, false), "unicast");
    refused(vf.set_promiscuous(false, true), "multicast");
    refused(vf.restore(&Settings { mac: Some(mac(1)), ..settings() }), "MAC");
    assert_eq!(vf.check(), UP);
    // What was only inherited may be refused: the address, and clearing an empty list.
    vf.fake().refuses = vec![2];
    vf.restore(&settings()).unwrap();
    vf.restore(&Settings { mac: Some(before), ..settings() }).unwrap();
    vf.fake().refuses = vec![5];
    refused(vf.restore(&settings()), "1500");
}

#[test]
fn requests_that_make_no_sense_are_not_sent() {
    let mut vf = ready();
    let sent = vf.fake().requests.len();
    for result in [vf.set_mac(MacAddr::ZERO), vf.set_mac(MacAddr::BROADCAST), vf.set_vlan(4095, true)] {
        assert!(matches!(result, Err(Error::Config(_))), "{result:?}");
    }
    assert_eq!(vf.fake().requests.len(), sent);
    assert!(vf.set_unicast(&[MacAddr::BROADCAST]).is_err());
    assert!(vf.restore(&Settings { mtu: 9217, ..settings() }).is_err());
    vf.restore(&Settings { mtu: 9216, ..settings() }).unwrap();
}

#[test]
fn more_groups_than_fit_mean_all_multicast() {
    let mut vf = ready();
    vf.set_multicast(&groups(30)).unwrap();
    assert_eq!(vf.fake().requests.last().unwrap()[0], 30 << 16 | 3);
    vf.set_multicast(&[groups(30), groups(30)].concat()).unwrap();
    assert_eq!(vf.fake().requests.last().unwrap()[0], 30 << 16 | 3, "one hash counts once");
    vf.set_multicast(&groups(31)).unwrap();
    assert_eq!(*vf.fake().requests.last().unwrap(), [0x0002_0006]);
    // The program's own wishes do not switch it off, nor does the end of the overflow switch off theirs.
    vf.set_promiscuous(false, false).unwrap();
    assert_eq!(*vf.fake().requests.last().unwrap(), [0x0002_0006]);
    vf.set_multicast(&groups(3)).unwrap();
    assert_eq!(*vf.fake().requests.last().unwrap(), [0x0000_0006]);
    vf.set_promiscuous(false, true).unwrap();
    vf.set_multicast(&groups(31)).unwrap();
    vf.set_multicast(&[]).unwrap();
    assert_eq!(*vf.fake().requests.last().unwrap(), [0x0002_0006]);
    vf.fake().refuses = vec![6];
    assert!(matches!(vf.set_multicast(&groups(31)), Err(Error::Device { .. })));
}

#[test]
fn unicast_promiscuous_is_refused_and_the_multicast_half_stays() {
    let mut vf = ready();
    let text = vf.set_promiscuous(true, true).unwrap_err().to_string();
    assert!(text.contains("unicast"), "{text}");
    // A later change repeats only what the PF permits.
    vf.set_multicast(&groups(31)).unwrap();
    assert_eq!(*vf.fake().requests.last().unwrap(), [0x0002_0006]);
}

#[test]
fn a_device_that_vanishes_at_any_read_is_gone_and_never_hangs() {
    let life = |dead_from| {
        let mut vf = Igbvf::open(Fake { dead_from, ..Fake::new(0x10CA) }).unwrap();
        let result = vf.reset(true).and_then(|()| start(&mut vf)).and_then(|()| vf.set_multicast(&groups(31)));
        (result, vf)
    };
    // Each call by itself, to its last read.
    for k in 0..ready().fake().reads {
        let mut vf = Igbvf::open(Fake { dead_from: Some(k + 1), ..Fake::new(0x10CA) }).unwrap();
        assert!(matches!(vf.reset(true), Err(Error::Gone { .. })), "read {k} of a reset");
    }
    let (result, mut vf) = life(None);
    result.unwrap();
    let reads = vf.fake().reads;
    assert!(reads > 50, "{reads}");
    for k in 0..reads {
        let (result, mut vf) = life(Some(k + 1));
        assert!(matches!(result, Err(Error::Gone { .. })), "read {k}: {result:?}");
        assert!(vf.fake().time < SECOND, "read {k}");
        assert_eq!(vf.check(), Health::Gone);
        assert!(matches!(vf.reset(false), Err(Error::Gone { .. })));
        vf.counters();
    }
    // And during a check.
    let reads = |vf: &mut Igbvf<Fake>| {
        let before = vf.fake().reads;
        vf.fake().pf_says(&[0x100 | CTS]);
        assert_eq!(vf.check(), UP);
        vf.fake().reads - before
    };
    for k in 0..reads(&mut vf) {
        let mut vf = running();
        vf.fake().pf_says(&[0x100 | CTS]);
        vf.fake().dead_from = Some(vf.fake().reads + k + 1);
        assert_eq!(vf.check(), Health::Gone, "read {k}");
    }
}

#[test]
fn a_bar_that_reads_zero_from_any_read_on_is_seen_and_never_hangs() {
    let life = |dead_from| {
        let mut vf = Igbvf::open(Fake { dead_from, dead_value: 0, ..Fake::new(0x10CA) }).unwrap();
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

#[test]
fn pings_are_answered_and_one_without_clear_to_send_means_reset() {
    let mut vf = running();
    let acks = vf.fake().acks;
    assert_eq!(acks as usize, vf.fake().requests.len(), "every answer is acknowledged");
    vf.fake().pf_says(&[0x100 | CTS]);
    assert_eq!(vf.check(), UP);
    assert_eq!(vf.fake().acks, acks + 1);
    assert_eq!(vf.fake().get(0xC40), 0, "the buffer is free again");
    assert_eq!(vf.check(), UP);
    assert_eq!(vf.fake().acks, acks + 1, "one message, one acknowledgement");
    for word in [0x100, NACK, NACK | 5] {
        let mut vf = running();
        vf.fake().pf_says(&[word]);
        assert_eq!(vf.check(), Health::Resetting, "{word:#x}");
        assert!(is_timeout(vf.set_vlan(5, true)));
        vf.reset(false).unwrap();
        start(&mut vf).unwrap();
        assert_eq!(vf.check(), UP);
    }
}

#[test]
fn a_message_survives_a_check_that_cannot_read_it() {
    let mut vf = running();
    vf.fake().pf_says(&[0x100]);
    let busy = vf.fake().get(0xC40) | PFU;
    vf.fake().set(0xC40, busy);
    let (health, time) = elapsed(&mut vf, |vf| vf.check());
    assert_eq!(health, UP, "the PF is still writing");
    assert!(time < MS, "{time:?}");
    assert_eq!(vf.fake().get(0xC40) & PFSTS, 0, "the read destroyed the bit");
    vf.fake().set(0xC40, 0);
    assert_eq!(vf.check(), Health::Resetting, "and the cache kept it");
}

#[test]
fn a_message_seen_before_a_request_is_neither_its_answer_nor_lost() {
    let mut vf = running();
    vf.fake().pf_says(&[0x100]);
    let sent = vf.fake().requests.len();
    assert!(is_timeout(vf.set_vlan(5, true)));
    assert_eq!(vf.fake().requests.len(), sent, "the request would have been in vain");
    assert_eq!(vf.check(), Health::Resetting);

    let mut vf = running();
    // A stale answer that looks like the one to come.
    let acks = vf.fake().acks;
    vf.fake().refuses = vec![4];
    vf.fake().pf_says(&[0x0001_0004 | ACK | CTS]);
    assert!(vf.set_vlan(5, true).is_err());
    assert_eq!(vf.fake().acks, acks + 1, "only the answer is read");
    assert_eq!(vf.check(), UP);
}

#[test]
fn a_pf_that_forgot_us_answers_without_clear_to_send() {
    let mut vf = running();
    vf.fake().clear_to_send = false;
    assert!(is_timeout(vf.set_vlan(5, true)));
    assert_eq!(vf.check(), Health::Resetting);
}

#[test]
fn every_sign_of_a_reset_is_seen() {
    type Sign = fn(&mut Fake);
    let signs: [(&str, Sign); 8] = [
        ("RSTI", |fake| fake.set(0xC40, RSTI)),
        ("RSTD", |fake| fake.set(0xC40, RSTD)),
        ("bus master lost", |fake| fake.bus_master = false),
        ("RDLEN 0", |fake| fake.set(0x2808, 0)),
        ("RDLEN 1", |fake| fake.set(0x2908, 0)),
        ("TDLEN 0", |fake| fake.set(0x3808, 0)),
        ("TDLEN 1", |fake| fake.set(0x3908, 0)),
        // After a reset of the PF through sysfs.
        ("BAR reads 0", |fake| {
            fake.regs.fill(0);
            fake.bus_master = false;
        }),
    ];
    for (name, sign) in signs {
        let mut vf = running();
        assert_eq!(vf.check(), UP);
        sign(vf.fake());
        let (health, time) = elapsed(&mut vf, |vf| vf.check());
        assert_eq!(health, Health::Resetting, "{name}");
        assert!(time < MS, "{name}: {time:?}");
        assert_eq!(vf.check(), Health::Resetting, "{name}: until a handshake");
        vf.fake().set(0xC40, 0);
        vf.fake().set(0x0008, 0x83);
        vf.reset(false).unwrap();
        start(&mut vf).unwrap();
        assert_eq!(vf.check(), UP, "{name}");
    }
    let mut vf = running();
    vf.fake().removal = true;
    assert_eq!(vf.check(), Health::Gone);
}

#[test]
fn a_pf_reset_during_a_request_ends_it_early() {
    for bit in [RSTI, RSTD] {
        let mut vf = running();
        vf.fake().set(0xC40, bit);
        let (result, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
        assert!(is_timeout(result) && time < 10 * MS, "{time:?}");
        assert_eq!(vf.check(), Health::Resetting);
    }
}

#[test]
fn link_is_read_from_status() {
    let mut vf = running();
    for (status, link) in [
        (0x00, Link::default()),
        (0x81, Link::default()),
        (0x02, Link { up: true, speed_mbps: 10, full_duplex: false }),
        (0x43, Link { up: true, speed_mbps: 100, full_duplex: true }),
        (0x83, Link { up: true, speed_mbps: 1000, full_duplex: true }),
        (0xC3, Link { up: true, speed_mbps: 1000, full_duplex: true }),
    ] {
        vf.fake().set(0x0008, status);
        assert_eq!(vf.check(), Health::Running(link), "{status:#x}");
    }
}
