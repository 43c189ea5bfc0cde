//! The control path against a scripted function in virtual time: life cycle, negotiation, settings, signs of a reset.

mod fake;
mod messages;
mod programming;
mod resets;
mod settings;

use std::collections::BTreeSet;
use std::time::Duration;

use super::port::Iavf;
use crate::addr::{Iova, MacAddr};
use crate::error::{Error, Result};
use crate::port::device::{Counters, Device, Health, Link, RingKind, RingPlan, Settings};
use fake::{Action, Coming, Fake};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const UP: Health = Health::Running(Link { up: true, speed_mbps: 25_000, full_duplex: true });
/// LARGE_NUM_QPAIRS, which the scripted PF does not grant unless told to.
const LARGE: u32 = 1 << 9;

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
    let base = Iova(0x12_3456_7000 + (u64::from(queue) << 16) + u64::from(buffer_len));
    RingPlan { queue, base, entries: 512, buffer_len, vector: None }
}

fn mac(last: u8) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, last])
}

fn open(fake: Fake) -> Iavf<Fake> {
    Iavf::open(fake).unwrap()
}

/// A function whose PF has granted its resources.
fn ready_with(fake: Fake) -> Iavf<Fake> {
    let mut vf = open(fake);
    vf.reset(true).unwrap();
    vf
}

fn ready() -> Iavf<Fake> {
    ready_with(Fake::new(0x1889))
}

/// A function whose rings run.
fn running() -> Iavf<Fake> {
    let mut vf = ready();
    start(&mut vf).unwrap();
    settle(&mut vf);
    assert_eq!(vf.check(), UP);
    vf
}

fn start(vf: &mut Iavf<Fake>) -> Result<()> {
    vf.restore(&settings())?;
    let [rx, tx] = [2048, 0].map(|len| (0..2).map(|queue| ring(queue, len)).collect::<Vec<_>>());
    vf.start_rings(&rx, &tx)?;
    vf.start_interrupts(&[])
}

/// Lets what is under way arrive.
fn settle(vf: &mut Iavf<Fake>) {
    vf.bus().pause(20 * MS);
}

fn elapsed<T>(vf: &mut Iavf<Fake>, act: impl FnOnce(&mut Iavf<Fake>) -> T) -> (T, Duration) {
    let before = vf.fake().time;
    let result = act(vf);
    (result, vf.fake().time - before)
}

fn is_timeout<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Timeout { .. }))
}

fn one_line(error: Error) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n') && text.starts_with("0000:3b:02.0: "), "{text}");
    text
}

impl Iavf<Fake> {
    fn fake(&mut self) -> &mut Fake {
        &mut self.bus
    }
}

#[test]
fn only_the_parts_that_are_known_are_opened() {
    let error = |fake: Fake| one_line(Iavf::open(fake).err().expect("refused"));
    assert!(error(Fake::new(0x1571)).contains("Hyper-V"));
    assert!(error(Fake::new(0x10ED)).contains("8086:154c"));
    assert!(error(Fake { bar_len: 0x4000, ..Fake::new(0x1889) }).contains("BAR0"));
    for (id, part) in [(0x154C, "XL710 VF"), (0x37CD, "X722 VF"), (0x1889, "adaptive VF")] {
        let vf = open(Fake::new(id));
        assert_eq!((vf.caps().part, vf.caps().rx_queues, vf.caps().tx_queues), (part, 16, 16));
    }
}

#[test]
fn opening_touches_no_register_and_maps_nothing() {
    let mut vf = open(Fake::new(0x1889));
    let fake = vf.fake();
    assert_eq!((fake.reads, fake.actions.len(), fake.mapped), (0, 0, 0));
}

#[test]
fn a_reset_negotiates_everything_once() {
    let mut vf = ready();
    assert_eq!(vf.fake().take_opcodes(), [1, 3, 51, 44, 15]);
    assert_eq!(vf.mac(), MacAddr([0x02, 0, 0, 0xAA, 0xBB, 0xCC]));
    let caps = vf.caps();
    assert_eq!((caps.rx_queues, caps.tx_queues, caps.vectors, caps.mtu_max), (4, 4, 5, 9702));
    assert_eq!(caps.rings, RingKind::Avf { flex: true, rx_tag_in_l2tag2: false, tx_tag: 1 });
    let rss = caps.rss.unwrap();
    assert_eq!((rss.key_len, rss.table_len, rss.settable), (52, 64, true));
    assert!(vf.is_silent());
}

#[test]
fn what_the_pf_grants_is_cut_to_what_can_be_used() {
    let mut vf = ready_with(Fake { pairs: 256, max_vectors: 300, max_mtu: 0xFFFF, ..Fake::new(0x1889) });
    let caps = vf.caps();
    assert_eq!((caps.rx_queues, caps.vectors, caps.mtu_max), (16, 17, 9702));
    vf.reset(true).unwrap();
    for (max_mtu, mtu) in [(0, 9702), (1526, 1500), (9724, 9698), (20, 0)] {
        assert_eq!(ready_with(Fake { max_mtu, ..Fake::new(0x1889) }).caps().mtu_max, mtu);
    }
    for rss in [(0, 64), (52, 0), (1 << 20, 64), (52, u32::MAX)] {
        assert_eq!(ready_with(Fake { rss, ..Fake::new(0x1889) }).caps().rss, None, "{rss:?}");
    }
    assert_eq!(ready_with(Fake { caps: !(1 << 19), ..Fake::new(0x1889) }).caps().rss, None);
}

#[test]
fn a_grant_of_nothing_is_an_error_that_says_so() {
    for (fake, word) in [
        (Fake { pairs: 0, ..Fake::new(0x1889) }, "no queues"),
        (Fake { max_vectors: 0, ..Fake::new(0x1889) }, "no interrupt vectors"),
        (Fake { version: (1, 2), ..Fake::new(0x1889) }, "virtchnl 1.2"),
        (Fake { version: (2, 0), ..Fake::new(0x1889) }, "virtchnl 2.0"),
        (Fake { refuses: vec![(1, -5)], ..Fake::new(0x1889) }, "Version: status -5"),
        (Fake { refuses: vec![(3, -95)], ..Fake::new(0x1889) }, "GetVfResources: status -95"),
        (Fake { lies: vec![(1, vec![1, 0, 0])], ..Fake::new(0x1889) }, "too short"),
        (Fake { lies: vec![(3, vec![0xFF; 35])], ..Fake::new(0x1889) }, "too short"),
        (Fake { lies: vec![(3, vec![0; 64])], ..Fake::new(0x1889) }, "no VSI"),
    ] {
        let text = one_line(open(fake).reset(true).unwrap_err());
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn an_old_pf_is_asked_without_capabilities() {
    let mut vf = ready_with(Fake { version: (1, 0), ..Fake::new(0x154C) });
    assert_eq!(vf.fake().take_opcodes(), [1, 3, 15]);
    assert_eq!(vf.caps().rings, RingKind::Avf { flex: false, rx_tag_in_l2tag2: false, tx_tag: 1 });
    start(&mut vf).unwrap();
    settle(&mut vf);
    // Speeds are bits then: 0x40 is 25 Gb/s, and the scripted PF said 25000, which is several.
    let link = vf.fake().link(true, 0x40);
    vf.fake().after(MS, link);
    settle(&mut vf);
    assert_eq!(vf.check(), UP);
}

#[test]
fn formats_follow_what_the_pf_offers() {
    let rings = |fake| ready_with(fake).caps().rings;
    let legacy = RingKind::Avf { flex: false, rx_tag_in_l2tag2: false, tx_tag: 1 };
    assert_eq!(rings(Fake { rxdids: 0b110, ..Fake::new(0x1889) }), legacy, "RXDID not offered");
    assert_eq!(rings(Fake { refuses: vec![(44, -64)], ..Fake::new(0x1889) }), legacy);
    assert_eq!(rings(Fake { lies: vec![(44, vec![0xFF; 7])], ..Fake::new(0x1889) }), legacy);
    assert_eq!(rings(Fake { caps: !(1 << 26), ..Fake::new(0x1889) }), legacy);
    // As ice with two tags, as i40e with two tags, and with a port VLAN.
    let vlan = |vlan| rings(Fake { vlan, ..Fake::new(0x1889) });
    let outer = [[0x8000_0001, 0], [0x8000_0401, 0x8000_0101], [0x8000_0201, 0x8000_0101]];
    assert_eq!(vlan(outer), RingKind::Avf { flex: true, rx_tag_in_l2tag2: true, tx_tag: 2 });
    let i40e = [[0x2000_0003, 0], [0xC000_0503, 0x101], [0x8000_0203, 0]];
    assert_eq!(vlan(i40e), RingKind::Avf { flex: true, rx_tag_in_l2tag2: false, tx_tag: 2 });
    assert_eq!(vlan([[0; 2]; 3]), RingKind::Avf { flex: true, rx_tag_in_l2tag2: false, tx_tag: 0 });
    // Without the second generation, by the first.
    let first = Fake { caps: !(1 << 15), ..Fake::new(0x1889) };
    assert_eq!(rings(first), RingKind::Avf { flex: true, rx_tag_in_l2tag2: false, tx_tag: 1 });
}

#[test]
fn without_an_assigned_address_a_random_one_is_kept() {
    let mut vf = ready_with(Fake { mac: MacAddr::ZERO, ..Fake::new(0x154C) });
    let own = vf.mac();
    assert!(own.is_valid_station() && own.0[0] & 3 == 2, "{own}");
    vf.restore(&settings()).unwrap();
    assert_eq!(vf.fake().last(10)[4..12], [&own.0[..], &[1, 0]].concat());
    vf.reset(false).unwrap();
    assert_eq!(vf.mac(), own, "a port keeps its address");
    assert_ne!(ready_with(Fake { mac: MacAddr::ZERO, ..Fake::new(0x154C) }).mac(), own);
}

#[test]
fn more_queues_are_asked_for_and_the_reset_that_grants_them_is_waited_for() {
    let mut vf = open(Fake::new(0x154C));
    vf.want_queues(16);
    vf.reset(true).unwrap();
    assert_eq!(vf.caps().rx_queues, 16);
    assert_eq!(vf.fake().take_opcodes(), [1, 3, 51, 44, 29, 1, 3, 51, 44, 15]);
    // Granted for good; only what is wanted is asked for.
    vf.reset(false).unwrap();
    assert!(!vf.fake().take_opcodes().contains(&29));
    let mut vf = open(Fake::new(0x154C));
    vf.want_queues(4);
    vf.reset(true).unwrap();
    assert!(!vf.fake().take_opcodes().contains(&29));
}

#[test]
fn queues_that_are_refused_leave_the_ones_there_are() {
    for (most_pairs, refuses) in [(Some(8), vec![]), (None, vec![]), (Some(16), vec![(29, -18)])] {
        let mut vf = open(Fake { most_pairs, refuses, ..Fake::new(0x154C) });
        vf.want_queues(16);
        let (done, time) = elapsed(&mut vf, |vf| vf.reset(true));
        done.unwrap();
        assert_eq!(vf.caps().rx_queues, 4);
        assert!(time < 3 * SECOND, "{time:?}");
        start(&mut vf).unwrap();
    }
    // Without the capability nobody is asked.
    let mut vf = open(Fake { caps: !(1 << 6), ..Fake::new(0x154C) });
    vf.want_queues(16);
    vf.reset(true).unwrap();
    assert!(!vf.fake().take_opcodes().contains(&29));
}

#[test]
fn link_events_are_read_in_both_encodings() {
    let mut vf = running();
    for (up, speed, expected) in [(true, 100_000, 100_000), (true, 7, 7), (false, 25_000, 0)] {
        let event = vf.fake().link(up, speed);
        vf.fake().after(MS, event);
        settle(&mut vf);
        let link = Link { up, speed_mbps: expected, full_duplex: up };
        assert_eq!(vf.check(), Health::Running(link));
    }
    let mut vf = ready_with(Fake { caps: !(1 << 7 | LARGE), ..Fake::new(0x154C) });
    start(&mut vf).unwrap();
    settle(&mut vf);
    let bits =
        [(1, 2500), (2, 100), (4, 1000), (8, 10_000), (16, 40_000), (32, 20_000), (64, 25_000), (128, 5000), (3, 0)];
    for (bit, speed_mbps) in bits {
        let event = vf.fake().link(true, bit);
        vf.fake().after(MS, event);
        settle(&mut vf);
        assert_eq!(vf.check(), Health::Running(Link { up: true, speed_mbps, full_duplex: true }), "{bit}");
    }
}

#[test]
fn a_flood_of_events_holds_nobody() {
    let mut vf = running();
    for n in 0..2000 {
        let event = vf.fake().link(n % 2 == 0, 25_000);
        vf.fake().after(MS / 100 * n, event);
    }
    for _ in 0..300 {
        let (health, time) = elapsed(&mut vf, |vf| vf.check());
        assert!(matches!(health, Health::Running(_)));
        assert!(time < MS, "{time:?}");
        vf.bus().pause(MS / 10);
    }
    vf.set_vlan(5, true).unwrap();
}

#[test]
fn what_answers_nothing_is_passed_over() {
    let mut vf = running();
    for (opcode, payload) in [(0, vec![]), (9, vec![1; 4096]), (10, vec![]), (500, vec![7; 3]), (u32::MAX, vec![])] {
        vf.fake().before.push((12, Coming::Say(opcode, -5, payload)));
    }
    vf.fake().before.push((52, Coming::Say(53, -5, vec![])));
    for event in [vec![], vec![1; 3], vec![9; 16], vec![4, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]] {
        vf.fake().before.push((52, Coming::Say(17, 0, event)));
    }
    vf.set_vlan(5, true).unwrap();
    assert_eq!(vf.check(), UP);
}

#[test]
fn damaged_descriptors_are_passed_over() {
    // A length beyond the buffer, an opcode of another kind, the error flag.
    for damage in [(0, 0x0802, 4097), (0, 0x0802, u16::MAX), (0, 0x0801, 0), (4, 0x0802, 0)] {
        let mut vf = running();
        vf.fake().damage = Some(damage);
        // A link that went down, if it were to be believed.
        let Coming::Say(opcode, status, payload) = vf.fake().link(false, 0) else { unreachable!() };
        vf.fake().say(opcode, status, &payload);
        assert_eq!(vf.check(), UP, "{damage:x?}");
        vf.set_vlan(5, true).unwrap();
    }
}

#[test]
fn counters_are_differences_and_survive_a_pf_that_starts_anew() {
    let mut vf = ready_with(Fake { stats: (1000..1012).collect(), ..Fake::new(0x1889) });
    start(&mut vf).unwrap();
    assert_eq!(vf.counters(), Counters { rx_missed: Some(0), ..Default::default() });
    // Of the frames that came, 5 found no buffer.
    vf.fake().stats = (0..12).map(|n| 1000 + n + if n == 4 { 5 } else { 1 << n }).collect();
    let totals = vf.counters();
    assert_eq!((totals.rx_octets, totals.rx_packets, totals.rx_multicast), (1, 2 + 4 + 8 - 5, 4));
    assert_eq!(totals.rx_missed, Some(5));
    // Sent octets come without the FCS.
    assert_eq!((totals.tx_octets, totals.tx_packets), (64 + 4 * (128 + 256 + 512), 128 + 256 + 512));
    assert_eq!(vf.counters(), totals, "reading does not count");
    // The PF appends a counter, and starts anew.
    vf.fake().stats = vec![3; 13];
    let again = vf.counters();
    assert_eq!((again.rx_octets, again.rx_packets), (totals.rx_octets + 3, totals.rx_packets + 9 - 3));
    // Whatever it counted over a reset is no traffic of ours.
    vf.fake().stats = vec![100; 12];
    vf.reset(false).unwrap();
    assert_eq!(vf.counters(), again);
    vf.fake().stats = vec![101; 12];
    assert_eq!(vf.counters().rx_octets, again.rx_octets + 1);
}

#[test]
fn a_late_answer_about_counters_holds_nobody_and_counts_when_it_comes() {
    let mut vf = running();
    vf.fake().ignores.push(15);
    let (totals, time) = elapsed(&mut vf, |vf| vf.counters());
    assert!(time < 50 * MS, "{time:?}");
    let (_, time) = elapsed(&mut vf, |vf| vf.counters());
    assert!(time < 50 * MS, "{time:?}");
    assert_eq!(
        vf.fake().requests.iter().filter(|(opcode, _)| *opcode == 15).count(),
        2,
        "one at a time, after the first"
    );
    let late = [5u64; 12].iter().flat_map(|n| n.to_le_bytes()).collect();
    vf.fake().after(MS, Coming::Say(15, 0, late));
    settle(&mut vf);
    assert_eq!(vf.check(), UP);
    vf.fake().ignores.clear();
    vf.fake().stats = vec![5; 12];
    assert_eq!(vf.counters().rx_octets, totals.rx_octets + 5);
    // One that is late once more: what is counted is what the PF says now, not what it said to the caller before.
    let totals = vf.counters();
    vf.fake().ignores.push(15);
    vf.counters();
    vf.fake().ignores.clear();
    let late = [7u64; 12].iter().flat_map(|n| n.to_le_bytes()).collect();
    vf.fake().after(MS, Coming::Say(15, 0, late));
    vf.fake().stats = vec![9; 12];
    assert_eq!(vf.counters().rx_octets, totals.rx_octets + 4);
    // One that never comes ends as a PF that is silent.
    vf.fake().ignores.push(15);
    vf.counters();
    vf.bus().pause(3 * SECOND);
    assert_eq!(vf.check(), Health::Resetting);
}
