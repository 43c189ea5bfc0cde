//! The control language of a served model: one line in, one line out.
//!
//! | line | does |
//! |---|---|
//! | `link up`, `link down` | takes the link up or down |
//! | `pf-reset [TIME]` | the PF resets and is back after TIME (100ms) |
//! | `fault NAME [VALUE]` | makes the model misbehave; `fault` alone lists the names |
//! | `clear` | ends every fault |
//! | `stats` | what passed the wire, register accesses, and the driver's violations so far |
//! | `help` | says this |
//!
//! Times are numbers with `us`, `ms` or `s`.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::super::fault::Fault;
use super::super::world::{PortId, World};
use crate::error::{Error, Result};

const HELP: &str = "link up|down, pf-reset [TIME], fault NAME [VALUE], clear, stats, help; TIME is like 20us, 5ms, 1s";

/// How long a reset of the PF takes unless said otherwise.
const PF_RESET: &str = "100ms";

/// Makes a fault of its value.
type Make<T> = fn(T) -> Fault;

/// Faults with a time, with a number, and with nothing.
const TIMED: [(&str, Make<Duration>); 6] = [
    ("delay-completions", Fault::DelayCompletions),
    ("partial-writeback", Fault::PartialWriteback),
    ("pf-reset-for", Fault::PfResetFor),
    ("link-flaps", Fault::LinkFlaps),
    ("late-replies", Fault::LateReplies),
    ("late-notice", Fault::LateNotice),
];
const NUMBERED: [(&str, Make<u16>); 9] = [
    ("lying-length", Fault::LyingLength),
    ("nack-request", Fault::NackRequest),
    ("pf-reset-at-access", |n| Fault::PfResetAtAccess(n.into())),
    ("all-ones-from-access", |n| Fault::AllOnesFromAccess(n.into())),
    ("short-replies", Fault::ShortReplies),
    ("long-replies", Fault::LongReplies),
    ("lying-reply-length", Fault::LyingReplyLength),
    ("stray-replies", |n| Fault::StrayReplies(n.into())),
    ("stray-events", |n| Fault::StrayEvents(n.into())),
];
const PLAIN: [(&str, Fault); 14] = [
    ("stuck-done", Fault::StuckDone),
    ("rx-error", Fault::RxError),
    ("config-lost", Fault::ConfigLost),
    ("lose-ack", Fault::LoseAck),
    ("lose-reply", Fault::LoseReply),
    ("garbage-reply", Fault::GarbageReply),
    ("sts-without-message", Fault::StsWithoutMessage),
    ("rsti-stuck", Fault::RstiStuck),
    ("pf-holds-buffer", Fault::PfHoldsBuffer),
    ("enable-stuck", Fault::EnableStuck),
    ("link-disabled", Fault::LinkDisabled),
    ("stale-events", Fault::StaleEvents),
    ("false-alarm", Fault::FalseAlarm),
    ("reset-ignored", Fault::ResetIgnored),
];

/// Does what `line` says.
pub(super) fn obey(world: &World, port: PortId, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["link", "up"] => world.link(port, true),
        ["link", "down"] => world.link(port, false),
        ["pf-reset"] => world.set_fault(port, Fault::PfResetFor(time(PF_RESET)?)),
        ["pf-reset", text] => world.set_fault(port, Fault::PfResetFor(time(text)?)),
        ["fault", name] => world.set_fault(port, fault(name, None)?),
        ["fault", name, value] => world.set_fault(port, fault(name, Some(value))?),
        ["clear"] => world.clear_faults(port),
        ["stats"] => return Ok(stats(world, port)),
        ["help"] => return Ok(HELP.into()),
        ["fault"] => return Ok(fault_names()),
        _ => return Err(Error::Parse(format!("'{}' is no command; there are: {HELP}", line.trim()))),
    }
    world.wake();
    Ok("ok".into())
}

fn stats(world: &World, port: PortId) -> String {
    let c = world.wire_counters(port);
    format!(
        "sent_frames={} sent_bytes={} received_frames={} received_bytes={} dropped_frames={} filtered_frames={} \
         accesses={} violations={}",
        c.sent_frames,
        c.sent_bytes,
        c.received_frames,
        c.received_bytes,
        c.dropped_frames,
        c.filtered_frames,
        world.accesses(port),
        world.violations().len()
    )
}

fn fault(name: &str, value: Option<&str>) -> Result<Fault> {
    if let Some((_, make)) = TIMED.iter().find(|(n, _)| *n == name) {
        return Ok(make(time(value.unwrap_or_default())?));
    }
    if let Some((_, make)) = NUMBERED.iter().find(|(n, _)| *n == name) {
        return Ok(make(number(value.unwrap_or_default())?));
    }
    match (PLAIN.iter().find(|(n, _)| *n == name), value) {
        (Some((_, fault)), None) => Ok(*fault),
        (Some(_), Some(_)) => Err(Error::Parse(format!("the fault '{name}' takes no value"))),
        (None, _) => Err(Error::Parse(format!("there is no fault '{name}'; faults are {}", fault_names()))),
    }
}

fn fault_names() -> String {
    let timed = TIMED.iter().map(|(name, _)| format!("{name} TIME"));
    let numbered = NUMBERED.iter().map(|(name, _)| format!("{name} NUMBER"));
    timed.chain(numbered).chain(PLAIN.iter().map(|(name, _)| (*name).to_owned())).collect::<Vec<_>>().join(", ")
}

fn time(text: &str) -> Result<Duration> {
    let bad = || Error::Parse(format!("'{text}' is no time: expected one like 20us, 5ms or 1s"));
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    match &text[digits.len()..] {
        "us" => Ok(Duration::from_micros(number)),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        _ => Err(bad()),
    }
}

/// A number in decimal, or in hexadecimal with `0x`.
fn number(text: &str) -> Result<u16> {
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| Error::Parse(format!("'{text}' is no number from 0 to 65535")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::sim::IgbOptions;

    #[test]
    fn faults_are_named_with_their_values() {
        assert_eq!(fault("link-flaps", Some("10ms")).unwrap(), Fault::LinkFlaps(Duration::from_millis(10)));
        assert_eq!(fault("nack-request", Some("0x3")).unwrap(), Fault::NackRequest(3));
        assert_eq!(fault("stuck-done", None).unwrap(), Fault::StuckDone);
        for (name, value) in
            [("nothing", None), ("stuck-done", Some("1")), ("lying-length", None), ("link-flaps", Some("5"))]
        {
            assert!(fault(name, value).is_err(), "{name} {value:?}");
        }
    }

    #[test]
    fn each_line_is_answered_by_one() {
        let world = World::stepped(1);
        let port = world.add_igbvf(IgbOptions::default());
        for line in ["link down", "link up", "pf-reset", "pf-reset 5ms", "fault rx-error", "clear"] {
            assert_eq!(obey(&world, port, line).unwrap(), "ok", "{line}");
        }
        assert!(obey(&world, port, "stats").unwrap().starts_with("sent_frames=0 "));
        for line in ["", "link", "link sideways", "pf-reset 5", "stats now", "quit"] {
            let error = obey(&world, port, line).unwrap_err().to_string();
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
