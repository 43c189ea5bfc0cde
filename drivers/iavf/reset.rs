//! The way from whatever state the VF is in to one whose PF has granted its resources (fact sheet iavf 6.3).
//!
//! Owns the steps of a reset and the waits between them; `port.rs` calls [`Iavf::renew`]. What always holds: each step has a
//! deadline, after which the caller tries again and goes on from the step that was not done; a reset of the PF is not
//! answered by another of ours; and the function counts as silent only after a reset of it that has ended, or a
//! function-level one.
//!
//! | step | done when |
//! |---|---|
//! | a reset begins | a function-level reset, or the admin queues are off: by the PF, announced or not, or at our request |
//! | it ends | the PF says that the VF is active |
//! | negotiation | the PF has granted resources |
//! | more queues | asked for where fewer were granted than are wanted; the PF grants them by one more reset |
#![forbid(unsafe_code)]

use std::time::Duration;

use super::channel::State;
use super::negotiate::{Grant, QUEUES, negotiate};
use super::port::Iavf;
use super::regs::*;
use super::virtchnl::*;
use crate::addr::MacAddr;
use crate::error::{Error, Result};
use crate::mmio::Bus;

/// How long a reset that was asked for or announced may take to begin, and to end, before the caller has to try again. PFs
/// take up to 250 ms for a VF and seconds for a whole device; drivers wait 20 to 40 s in all, in which the framework
/// calls again and again (fact sheet iavf 6.1, 6.3).
const RESET_DEADLINE: Duration = Duration::from_secs(1);
const RESET_POLL: Duration = Duration::from_millis(10);
/// How long an announced reset may be due before we reset ourselves: 500 polls of 20 ms (fact sheet iavf 6.3 step 2, DPDK).
const IMPENDING_DEADLINE: Duration = Duration::from_secs(10);

impl<B: Bus> Iavf<B> {
    /// Resets the VF and negotiates anew; see `Device::reset`.
    pub(super) fn renew(&mut self, function_reset: bool) -> Result<()> {
        if function_reset {
            self.rings = None;
        }
        self.running.clear();
        self.sending.clear();
        self.told = None;
        self.unicast.clear();
        self.multicast.clear();
        self.vlans.clear();
        if function_reset && self.bus.reset_function()? {
            self.function_was_reset()?;
        }
        self.bus.set_bus_master(true)?;
        self.flush()?;
        self.mask_interrupts();
        self.begin_reset()?;
        // A function-level reset may have come on the way.
        self.bus.set_bus_master(true)?;
        self.end_reset()?;
        let mut grant = self.shake_hands()?;
        if self.ask_for_queues(grant)? {
            self.begin_reset()?;
            self.end_reset()?;
            grant = self.shake_hands()?;
        }
        self.mac = match grant.resources.mac {
            Some(mac) => mac,
            // Ours stays the same for the port's whole life.
            None if self.mac.is_valid_station() => self.mac,
            None => MacAddr::random(),
        };
        let request = select_queues(grant.resources.vsi, 0, 0);
        let reply = self.channel.request(&mut self.bus, Opcode::GetStats, &request)?;
        if let Some(stats) = self.channel.stats.take().filter(|_| reply.status == 0) {
            self.counters.rebase(stats);
        }
        Ok(())
    }

    /// Masks every vector (fact sheet iavf 6.3 step 1).
    pub(super) fn mask_interrupts(&mut self) {
        self.arm = None;
        self.write(VFINT_ICR0_ENA1, 0);
        self.write(VFINT_DYN_CTL01, 0);
        for vector in 1..self.caps.vectors.min(QUEUES + 1) {
            self.write(VFINT_DYN_CTLN1(vector), 0);
        }
    }

    /// Makes sure that the VF is being reset, or was, since its queues ran: by its PF, or else by us (fact sheet iavf 6.3).
    fn begin_reset(&mut self) -> Result<()> {
        if self.in_reset {
            return Ok(());
        }
        let known = self.grant.is_some();
        if known && !self.channel.is_on(&mut self.bus)? {
            return self.reset_began();
        }
        if let State::Impending(since) = self.channel.state() {
            if self.wait_for_begin()? {
                return self.reset_began();
            }
            if self.bus.now().saturating_sub(since) < IMPENDING_DEADLINE {
                return Err(Error::timeout(
                    self.bus.name(),
                    "the PF announced a reset of this VF that has not begun; trying again helps",
                ));
            }
        }
        // A PF that answers no more will not reset us either: an i40e PF drops every message of a VF that it takes for
        // malicious (fact sheet iavf 6.5).
        if matches!(self.channel.state(), State::Silent | State::Impending(_)) && self.bus.reset_function()? {
            return self.function_was_reset();
        }
        if !matches!(self.channel.state(), State::Open | State::Opening) {
            // VPP's order: the request comes even before the version (fact sheet iavf 4.5).
            self.channel.open(&mut self.bus)?;
        }
        self.write(VFINT_ICR0_ENA1, ICR0_ADMINQ);
        self.channel.send(&mut self.bus, Opcode::ResetVf, &[])?;
        if self.wait_for_begin()? {
            return self.reset_began();
        }
        if self.bus.reset_function()? {
            return self.function_was_reset();
        }
        let ms = RESET_DEADLINE.as_millis();
        Err(Error::timeout(
            self.bus.name(),
            format!("the PF did not reset this VF within {ms} ms; remove the VF and create it again on the host"),
        ))
    }

    /// True once the admin queues are off, within the deadline.
    fn wait_for_begin(&mut self) -> Result<bool> {
        let deadline = self.bus.now() + RESET_DEADLINE;
        while self.channel.is_on(&mut self.bus)? {
            if self.bus.now() >= deadline {
                return Ok(false);
            }
            self.bus.pause(RESET_POLL);
        }
        Ok(true)
    }

    fn reset_began(&mut self) -> Result<()> {
        self.in_reset = true;
        // An ice PF switches the queues off first and resets then: RSTAT may still say that the VF is active.
        self.bus.pause(RESET_POLL);
        Ok(())
    }

    fn function_was_reset(&mut self) -> Result<()> {
        self.in_reset = true;
        self.silent = true;
        // A function-level reset clears it.
        self.bus.set_bus_master(true)
    }

    /// Waits until the PF has ended the reset (fact sheet iavf 6.3 step 3).
    fn end_reset(&mut self) -> Result<()> {
        let deadline = self.bus.now() + RESET_DEADLINE;
        loop {
            // Unreadable registers read 0xDEADBEEF.
            let rstat = self.flush()?;
            if rstat & RSTAT_STATE == RSTAT_ACTIVE {
                break;
            }
            if self.bus.now() >= deadline {
                let text = format!(
                    "the PF has not made this VF active (VFGEN_RSTAT is {rstat:#x}); is its driver loaded? See `dmesg` on \
                     the host"
                );
                return Err(Error::timeout(self.bus.name(), text));
            }
            self.bus.pause(RESET_POLL);
        }
        self.in_reset = false;
        self.silent = true;
        Ok(())
    }

    /// Sets the channel up and learns what the PF grants.
    fn shake_hands(&mut self) -> Result<Grant> {
        self.grant = None;
        self.channel.open(&mut self.bus)?;
        // Even a driver that polls sets it: i40e PFs wait for it before they reset a VF (fact sheet iavf 4.6).
        self.write(VFINT_ICR0_ENA1, ICR0_ADMINQ);
        let grant = negotiate(&mut self.channel, &mut self.bus)?;
        self.grant = Some(grant);
        self.caps.rx_queues = grant.queues();
        self.caps.tx_queues = grant.queues();
        self.caps.mtu_max = grant.mtu_max();
        self.caps.rss = grant.rss();
        self.caps.rings = grant.rings();
        self.caps.vectors = u16::try_from(self.bus.vectors()).unwrap_or(u16::MAX).min(grant.resources.vectors);
        Ok(grant)
    }

    /// Asks for more queue pairs where the program wants them. True when the PF grants them, which it does by resetting
    /// the VF (fact sheet iavf 4.4, REQUEST_QUEUES).
    fn ask_for_queues(&mut self, grant: Grant) -> Result<bool> {
        if self.wanted.min(QUEUES) <= grant.queues() || !grant.has(Cap::REQ_QUEUES) {
            return Ok(false);
        }
        let request = request_queues(self.wanted.min(QUEUES));
        match self.channel.request(&mut self.bus, Opcode::RequestQueues, &request) {
            // Any answer is a refusal; whoever asks for the queues is told how many there are.
            Ok(_) => Ok(false),
            Err(error @ Error::Timeout { .. }) => match self.channel.state() {
                // Some i40e PFs refuse in silence.
                State::Silent => {
                    self.channel.give_up();
                    Ok(false)
                }
                State::Impending(_) | State::Lost => Ok(true),
                State::Opening | State::Open => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}
