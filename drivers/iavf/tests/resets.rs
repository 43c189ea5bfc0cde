//! Resets, whoever asks for them, and a PF that is silent, late or gone.

use super::*;
use fake::{ARQLEN, ATQLEN, RSTAT};

#[test]
fn a_function_reset_comes_first_and_then_bus_mastering() {
    let mut vf = ready();
    let actions = vf.fake().actions.clone();
    let at = |action| actions.iter().position(|&a| a == action).unwrap_or_else(|| panic!("no {action:?}"));
    let order = [
        at(Action::FunctionReset),
        at(Action::BusMaster(true)),
        at(Action::Write(0x5C00, 0)),
        at(Action::Write(0x3800, 0)),
        at(Action::Write(0x6800, 0x8000_0020)),
        at(Action::Write(0x5000, 1 << 30)),
        at(Action::Message(1)),
        at(Action::Message(3)),
    ];
    assert!(order.is_sorted(), "{actions:x?}");
    assert!(!actions.contains(&Action::Message(2)), "one reset is enough");
    assert!(vf.fake().time >= 50 * MS, "the PF was waited for");
}

#[test]
fn a_family_reset_asks_the_pf() {
    let mut vf = running();
    vf.fake().actions.clear();
    vf.fake().take_opcodes();
    vf.reset(false).unwrap();
    assert!(!vf.fake().actions.contains(&Action::FunctionReset));
    assert_eq!(vf.fake().take_opcodes()[..3], [2, 1, 3]);
    assert!(vf.is_silent());
    assert_eq!(vf.fake().mapped, 1, "mapped once");
}

#[test]
fn without_a_function_reset_the_pf_is_asked_even_before_the_version() {
    let mut vf = ready_with(Fake { has_function_reset: false, ..Fake::new(0x1889) });
    assert_eq!(vf.fake().take_opcodes()[..3], [2, 1, 3]);
    assert!(vf.is_silent());
}

#[test]
fn a_function_is_silent_only_after_a_reset_that_ended() {
    let mut vf = open(Fake { has_function_reset: false, ..Fake::new(0x1889) });
    assert!(!vf.is_silent(), "a killed process may have left queues running");
    vf.fake().ignores.push(2);
    assert!(is_timeout(vf.reset(true)) && !vf.is_silent());
    let mut vf = running();
    assert!(!vf.is_silent());
    vf.fake().begin_reset(3 * SECOND);
    assert!(is_timeout(vf.reset(false)) && !vf.is_silent(), "an ice PF stops queues after it tells");
    vf.bus().pause(3 * SECOND);
    vf.reset(false).unwrap();
    assert!(vf.is_silent());
    // A function-level reset needs nobody's consent.
    let mut vf = running();
    vf.fake().ignores = vec![1];
    assert!(is_timeout(vf.reset(true)) && vf.is_silent());
}

#[test]
fn a_reset_by_the_pf_is_noticed_and_recovered_from() {
    type Sign = fn(&mut Fake);
    let signs: [(&str, Sign); 6] = [
        ("reset", |fake| fake.begin_reset(50 * MS)),
        ("receive queue off", |fake| fake.set(ARQLEN, 32)),
        ("send queue off", |fake| fake.set(ATQLEN, 32)),
        ("in progress", |fake| fake.set(RSTAT, 0xDEAD_BEEF)),
        ("bus master", |fake| fake.bus_master = false),
        ("announced", |fake| {
            let Coming::Say(opcode, status, payload) = Fake::impending() else { return };
            fake.say(opcode, status, &payload);
            fake.after(30 * MS, Coming::Reset(50 * MS));
        }),
    ];
    for (name, sign) in signs {
        let mut vf = running();
        sign(vf.fake());
        let (health, time) = elapsed(&mut vf, |vf| vf.check());
        assert_eq!(health, Health::Resetting, "{name}");
        assert!(time < MS, "{name}: {time:?}");
        if name == "in progress" {
            vf.fake().set(RSTAT, 2);
        }
        // Whoever resets a VF forgets what was granted.
        vf.fake().granted = false;
        let (done, time) = elapsed(&mut vf, |vf| vf.reset(false));
        done.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(time < SECOND, "{name}: {time:?}");
        start(&mut vf).unwrap();
        settle(&mut vf);
        assert_eq!(vf.check(), UP, "{name}");
    }
}

#[test]
fn a_reset_of_the_pf_needs_no_request_of_ours() {
    let mut vf = running();
    vf.fake().take_opcodes();
    vf.fake().begin_reset(50 * MS);
    assert_eq!(vf.check(), Health::Resetting);
    vf.reset(false).unwrap();
    assert!(!vf.fake().take_opcodes().contains(&2));
}

#[test]
fn an_active_state_right_after_the_queues_went_off_is_not_believed() {
    // An ice PF switches the queues off first; RSTAT goes to 0 a little later.
    let mut vf = running();
    vf.fake().set(ARQLEN, 0);
    vf.fake().set(ATQLEN, 0);
    vf.fake().after(MS, Coming::Reset(50 * MS));
    let (done, time) = elapsed(&mut vf, |vf| vf.reset(false));
    done.unwrap();
    assert!(time >= 50 * MS, "{time:?}");
}

#[test]
fn an_announcement_during_the_handshake_is_of_the_last_reset() {
    for opcode in [1, 3] {
        let mut vf = open(Fake { before: vec![(opcode, Fake::impending())], ..Fake::new(0x154C) });
        vf.reset(true).unwrap();
        start(&mut vf).unwrap();
        settle(&mut vf);
        assert_eq!(vf.check(), UP);
    }
}

#[test]
fn an_announced_reset_that_never_comes_is_made_by_us_in_the_end() {
    let mut vf = running();
    let Coming::Say(opcode, status, payload) = Fake::impending() else { unreachable!() };
    vf.fake().say(opcode, status, &payload);
    assert_eq!(vf.check(), Health::Resetting);
    let began = vf.fake().time;
    let mut attempts = 0;
    loop {
        let (done, time) = elapsed(&mut vf, |vf| vf.reset(false));
        attempts += 1;
        assert!(time < 2 * SECOND, "{time:?}");
        if done.is_ok() {
            break;
        }
        assert!(is_timeout(done) && attempts < 20);
    }
    let took = vf.fake().time - began;
    assert!(took >= 10 * SECOND && took < 12 * SECOND, "{took:?}");
}

#[test]
fn a_pf_that_takes_long_over_a_reset_is_an_error_in_time_and_tried_again() {
    let mut vf = open(Fake { reset_takes: 3 * SECOND, ..Fake::new(0x1889) });
    for function_reset in [true, false] {
        let (done, time) = elapsed(&mut vf, |vf| vf.reset(function_reset));
        let text = one_line(done.unwrap_err());
        assert!(text.contains("timed out") && text.contains("VFGEN_RSTAT is 0x0"), "{text}");
        assert!(time < 2 * SECOND, "{time:?}");
    }
    vf.bus().pause(SECOND);
    vf.fake().actions.clear();
    vf.reset(false).unwrap();
    assert!(!vf.fake().actions.contains(&Action::Message(2)), "the one reset is all there was");
}

#[test]
fn silence_to_each_request_in_turn_ends_in_time_and_is_remembered() {
    for opcode in [1, 3, 51, 44, 15] {
        let mut vf = open(Fake { ignores: vec![opcode], ..Fake::new(0x1889) });
        let (done, time) = elapsed(&mut vf, |vf| vf.reset(true));
        let text = one_line(done.unwrap_err());
        assert!(text.contains("timed out") && text.contains("within 2 s"), "{text}");
        assert!(time < 3 * SECOND, "{opcode}: {time:?}");
        vf.fake().ignores.clear();
        vf.reset(false).unwrap_or_else(|error| panic!("{opcode}: {error}"));
    }
    for opcode in [10, 52, 6, 7, 8] {
        let mut vf = ready();
        vf.fake().ignores.push(opcode);
        let wanted = Settings { vlans: [5].into(), ..settings() };
        let (done, time) =
            elapsed(&mut vf, |vf| vf.restore(&wanted).and_then(|()| vf.start_rings(&[ring(0, 2048)], &[ring(0, 0)])));
        assert!(is_timeout(done) && time < 3 * SECOND, "{opcode}: {time:?}");
        // Later requests fail at once, and the port recovers by a reset that needs no answer.
        let (done, time) = elapsed(&mut vf, |vf| vf.set_vlan(9, true));
        assert!(is_timeout(done) && time < MS);
        assert_eq!(vf.check(), Health::Resetting);
        vf.fake().ignores.clear();
        vf.fake().actions.clear();
        vf.reset(false).unwrap();
        assert!(vf.fake().actions.contains(&Action::FunctionReset));
        start(&mut vf).unwrap();
    }
}

#[test]
fn a_vf_taken_for_malicious_recovers_by_a_function_reset() {
    // An i40e PF drops every message then; RSTAT and the admin queues look well.
    let mut vf = running();
    vf.fake().ignores = (0..200).collect();
    assert!(is_timeout(vf.set_vlan(5, true)));
    assert_eq!(vf.check(), Health::Resetting);
    vf.fake().actions.clear();
    let (done, time) = elapsed(&mut vf, |vf| {
        let done = vf.reset(false);
        assert!(vf.fake().actions.contains(&Action::FunctionReset));
        done
    });
    assert!(is_timeout(done) && time < 3 * SECOND, "it is still silent: {time:?}");
    vf.fake().ignores.clear();
    vf.reset(false).unwrap();
}

#[test]
fn a_reset_in_the_middle_of_a_request_ends_it_at_once() {
    let mut vf = running();
    vf.fake().ignores.push(52);
    vf.fake().before.push((52, Coming::Reset(50 * MS)));
    let (done, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
    assert!(is_timeout(done) && time < 10 * MS, "{time:?}");
    assert_eq!(vf.check(), Health::Resetting);
    // So does the announcement of one.
    let mut vf = running();
    vf.fake().ignores.push(52);
    vf.fake().before.push((52, Fake::impending()));
    let (done, time) = elapsed(&mut vf, |vf| vf.set_vlan(5, true));
    assert!(is_timeout(done) && time < 10 * MS, "{time:?}");
}

#[test]
fn a_device_that_vanishes_at_any_read_is_gone() {
    let mut vf = running();
    let start_up = vf.fake().reads;
    for read in 0..start_up {
        let mut vf = open(Fake { dead_from: Some(read), ..Fake::new(0x1889) });
        let result = vf.reset(true).and_then(|()| start(&mut vf));
        match result {
            Err(Error::Gone { .. }) | Ok(()) => {}
            Err(error) => panic!("read {read}: {error}"),
        }
        vf.fake().dead_from = Some(0);
        assert_eq!(vf.check(), Health::Gone, "read {read}");
        assert!(matches!(vf.reset(false), Err(Error::Gone { .. })), "read {read}");
    }
    vf.fake().removal = true;
    assert_eq!(vf.check(), Health::Gone);
}

#[test]
fn error_bits_of_the_admin_queues_are_cleared() {
    let mut vf = running();
    for register in [ARQLEN, ATQLEN] {
        let len = vf.fake().get(register);
        vf.fake().set(register, len | 5 << 28);
        assert_eq!(vf.check(), UP);
        assert_eq!(vf.fake().get(register), len);
    }
}

#[test]
fn a_port_that_is_closed_takes_its_admin_queues_along() {
    let mut vf = running();
    let arqlen = vf.fake().arqlen.clone();
    let len = || arqlen.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(len(), 0x8000_0020);
    drop(vf);
    assert_eq!(len(), 0);
}
