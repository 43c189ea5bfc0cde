//! What became of a port since it was looked at last, in words.
//!
//! The control side looks now and then. What always holds: no reset goes unsaid, also when it began and ended between two looks.
#![forbid(unsafe_code)]

use vfring::{Control, Link, PortState};

use crate::report::{self, PortSample};

/// What a look at a port finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub state: PortState,
    pub link: Link,
    /// Resets that the port has recovered from.
    pub recoveries: u64,
    /// Why it has not yet recovered from the last.
    pub trouble: Option<String>,
}

impl Look {
    /// What a sample says.
    pub fn of(sample: &PortSample) -> Look {
        Look { state: sample.state, link: sample.link, recoveries: sample.stats.recoveries, trouble: None }
    }

    /// Asks a port for all of it at one moment.
    pub fn at(control: &mut Control) -> Look {
        Look {
            state: control.state(),
            link: control.link(),
            recoveries: control.recoveries(),
            trouble: control.trouble().map(ToString::to_string),
        }
    }

    /// What has changed since `before`, a line each; `port` names it.
    pub fn changes(&self, before: &Look, port: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let recovered = self.recoveries != before.recoveries;
        if self.state != before.state || recovered && self.state == PortState::Running {
            lines.push(match self.state {
                PortState::Running if before.state == PortState::Running => {
                    format!("{port} runs again, after a reset by its PF")
                }
                PortState::Running => format!("{port} runs again"),
                PortState::Resetting => {
                    format!("{port} is being reset by its PF; forwarding goes on once the PF is back")
                }
                PortState::Stopping => format!("{port} is stopping"),
                PortState::Dead => format!("{port}: the device is gone"),
            });
        }
        if let Some(trouble) = self.trouble.as_ref().filter(|_| self.trouble != before.trouble) {
            lines.push(format!("{port} cannot go on yet: {trouble}"));
        }
        if self.link != before.link {
            lines.push(format!("{port}: the link is now {}", report::link(self.link)));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(recoveries: u64) -> Look {
        let link = Link { up: true, speed_mbps: 10_000, full_duplex: true };
        Look { state: PortState::Running, link, recoveries, trouble: None }
    }

    #[test]
    fn nothing_is_said_of_a_port_that_runs_on() {
        assert!(running(3).changes(&running(3), "port 0").is_empty());
    }

    #[test]
    fn a_reset_is_said_also_when_it_is_over() {
        let resetting = Look {
            state: PortState::Resetting,
            link: Link::default(),
            recoveries: 0,
            trouble: Some("the PF is silent".into()),
        };
        assert_eq!(
            resetting.changes(&running(0), "port 0"),
            [
                "port 0 is being reset by its PF; forwarding goes on once the PF is back",
                "port 0 cannot go on yet: the PF is silent",
                "port 0: the link is now down",
            ]
        );
        assert_eq!(
            running(1).changes(&resetting, "port 0"),
            ["port 0 runs again", "port 0: the link is now 10000 Mb/s"]
        );
        assert_eq!(running(2).changes(&running(1), "port 0"), ["port 0 runs again, after a reset by its PF"]);
    }
}
