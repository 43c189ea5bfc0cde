//! What the function says by itself: pings, the signs of a reset, and its link.

use super::*;

#[test]
fn pings_are_answered_and_one_without_clear_to_send_means_reset() {
    let mut vf = running(X550);
    let acks = vf.fake().acks;
    assert_eq!(acks as usize, vf.fake().requests.len(), "every answer is acknowledged");
    vf.fake().pf_says(&[0x100 | CTS]);
    assert_eq!(vf.check(), UP);
    assert_eq!(vf.fake().acks, acks + 1);
    assert_eq!(vf.check(), UP);
    assert_eq!(vf.fake().acks, acks + 1, "one message, one acknowledgement");
    for word in [0x100, NACK, NACK | 5] {
        let mut vf = running(X550);
        vf.fake().pf_says(&[word]);
        assert_eq!(vf.check(), Health::Resetting, "{word:#x}");
        assert!(is_timeout(vf.set_vlan(5, true)));
        vf.reset(false).unwrap();
        start(&mut vf).unwrap();
        assert_eq!(vf.check(), UP);
    }
    // What a PF does with a malicious driver: a ping that looks harmless, and the truth once it is acknowledged (6).
    let mut vf = running(X550);
    vf.fake().clear_to_send = false;
    vf.fake().pf_says(&[0x100 | CTS]);
    assert_eq!(vf.check(), UP);
    vf.fake().pf_says(&[NACK]);
    assert_eq!(vf.check(), Health::Resetting);
    vf.reset(false).unwrap();
    start(&mut vf).unwrap();
    assert_eq!(vf.check(), UP);
}

#[test]
fn every_sign_of_a_reset_is_seen() {
    type Sign = fn(&mut Fake);
    let signs: [(&str, Sign); 7] = [
        ("RSTI", |fake| fake.set(0x2FC, RSTI)),
        ("RSTD", |fake| fake.set(0x2FC, RSTD)),
        ("bus master lost", |fake| fake.bus_master = false),
        ("VFRDLEN 0", |fake| fake.set(0x1008, 0)),
        ("VFRDLEN 3", |fake| fake.set(0x10C8, 0)),
        ("VFTDLEN 3", |fake| fake.set(0x20C8, 0)),
        ("BAR reads 0", |fake| {
            fake.regs.fill(0);
            fake.bus_master = false;
        }),
    ];
    for (name, sign) in signs {
        let mut vf = running(I82599);
        assert_eq!(vf.check(), UP);
        sign(vf.fake());
        let (health, time) = elapsed(&mut vf, |vf| vf.check());
        assert_eq!(health, Health::Resetting, "{name}");
        assert!(time < MS, "{name}: {time:?}");
        assert_eq!(vf.check(), Health::Resetting, "{name}: until a handshake");
        vf.fake().set(0x2FC, 0);
        vf.fake().set(0x10, 1 << 30 | 3 << 28);
        vf.reset(false).unwrap();
        start(&mut vf).unwrap();
        assert_eq!(vf.check(), UP, "{name}");
    }
    let mut vf = running(X540);
    vf.fake().removal = true;
    assert_eq!(vf.check(), Health::Gone);
}

#[test]
fn link_is_read_from_vflinks_by_generation() {
    let up = |speed_mbps| Health::Running(Link { up: true, speed_mbps, full_duplex: true });
    let down = Health::Running(Link::default());
    let codes = |code: u32, odd: u32| 1 << 30 | code << 28 | odd << 27;
    for (device, links, health) in [
        (X540, 0, down),
        (X540, 3 << 28, down),
        (X540, codes(3, 0), up(10_000)),
        (X540, codes(3, 1), up(10_000)),
        (X540, codes(2, 0), up(1_000)),
        (X540, codes(1, 1), up(100)),
        (X540, codes(0, 0), up(0)),
        (X550, codes(3, 1), up(2_500)),
        (X550, codes(1, 1), up(5_000)),
        (X550, codes(1, 0), up(100)),
        (X550, codes(0, 0), up(10)),
        (0x15A8, codes(1, 1), up(100)),
        (0x57AD, codes(3, 1), up(2_500)),
        (0x57AD, codes(2, 0), up(1_000)),
    ] {
        let mut vf = running(device);
        vf.fake().set(0x10, links);
        assert_eq!(vf.check(), health, "{device:#x}: {links:#x}");
    }
}

#[test]
fn a_link_that_flaps_while_it_comes_up_is_down_on_the_82599() {
    for (device, looks) in [(I82599, 6), (X540, 1)] {
        let mut vf = running(device);
        let reads = |vf: &mut Ixgbevf<Fake>| {
            let (before, health) = (vf.fake().reads, vf.check());
            (health, vf.fake().reads - before)
        };
        let (first, many) = reads(&mut vf);
        let (again, few) = reads(&mut vf);
        assert_eq!((first, again, many - few), (UP, UP, looks - 1), "once up, one look is enough");
        let (_, time) = elapsed(&mut vf, |vf| vf.check());
        assert!(time < MS, "{time:?}");
    }
    // Down at the last look.
    let mut vf = running(I82599);
    let falls = vf.fake().time + Duration::from_micros(450);
    vf.fake().later.push((falls, 0x10, 0));
    assert_eq!(vf.check(), Health::Running(Link::default()));
}

#[test]
fn a_link_that_the_administrator_holds_down_is_down() {
    let mut vf = ready_on(with_payload(Fake::new(X540), LINK, &[0]));
    start(&mut vf).unwrap();
    assert_eq!(vf.check(), Health::Running(Link::default()));
    // It is asked anew at each handshake, which a change of it brings about.
    *vf.fake() = with_payload(std::mem::replace(vf.fake(), Fake::new(X540)), LINK, &[1]);
    vf.reset(false).unwrap();
    start(&mut vf).unwrap();
    assert_eq!(vf.check(), UP);
}
