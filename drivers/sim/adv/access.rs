//! The register file: what reads and writes do (fact sheets igbvf 2, 7.1; ixgbevf 2, 7.1).
//!
//! Every access first takes note of the doorbells and may trip a fault. A register that does not exist, and a write
//! that the sheet forbids, is a violation of the driver.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::super::env::Env;
use super::super::model::Model;
use super::family::{CAUSES, CTRL_RST, Checked, Family, Look, PfSide, QueueRegister, Register};
use super::{AdvVf, PF_RESET_TIME};
use crate::mmio::ALL_ONES;

impl<F: Family> AdvVf<F> {
    /// A read by the driver.
    pub(super) fn read_bar(&mut self, offset: u32, env: &mut Env) -> u32 {
        self.before_access(env);
        self.reads += 1;
        let value = if self.faults.gone() {
            ALL_ONES
        } else if self.unmapped {
            0
        } else {
            match self.read_register(offset, env) {
                Some(value) => value,
                None => {
                    self.violate(env, &format!("read of {}", F::register_name(offset)));
                    0
                }
            }
        };
        self.trace.note(env.now, false, offset, value);
        value
    }

    /// A write by the driver.
    pub(super) fn write_bar(&mut self, offset: u32, value: u32, env: &mut Env) {
        self.before_access(env);
        self.trace.note(env.now, true, offset, value);
        if self.faults.gone() || self.unmapped {
            return;
        }
        if env.strict {
            self.check_order(offset, env);
        }
        match self.write_register(offset, value, env) {
            Some(result) => self.check(env, result),
            None => self.violate(env, &format!("write of {value:#x} to {}", F::register_name(offset))),
        }
    }

    /// In worlds that check: the length of a ring before its head and tail, with a read between them.
    fn check_order(&mut self, offset: u32, env: &mut Env) {
        let Some(Register::Queue { tx, queue, register }) = F::decode(offset, self.rx.len()) else { return };
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        match register {
            QueueRegister::Len => ring.len_at = Some(self.reads),
            QueueRegister::Head | QueueRegister::Tail
                if self.family.head_needs_flush() && ring.len_at == Some(self.reads) =>
            {
                let length = if tx { "VFTDLEN" } else { "VFRDLEN" };
                let name = F::register_name(offset);
                self.violate(
                    env,
                    &format!("{name} written before {length} had reached the device: read a register first"),
                );
            }
            _ => {}
        }
    }

    fn before_access(&mut self, env: &mut Env) {
        if self.faults.on_access() {
            self.pf_reset(env);
            self.pf_back = Some(env.now + PF_RESET_TIME);
        }
        self.sample(env);
    }

    fn read_register(&mut self, offset: u32, env: &Env) -> Option<u32> {
        Some(match F::decode(offset, self.rx.len())? {
            // RST clears itself at once.
            Register::Ctrl | Register::Eics | Register::Eimc => 0,
            Register::Eims => self.irq.eims,
            Register::Eiac => self.irq.eiac,
            Register::Eiam => self.irq.eiam,
            Register::Eicr => self.irq.read_causes(),
            Register::Eitr(vector) => self.irq.eitr[vector],
            Register::Ivar(pair) => self.irq.ivar[pair],
            Register::IvarMisc => self.irq.ivar_misc,
            Register::Mailbox => self.mailbox.read(&self.faults),
            Register::Memory(word) => self.mailbox.read_memory(word),
            Register::Queue { tx: false, queue, register } => return self.rx[queue].read(register, env),
            Register::Queue { tx: true, queue, register } => return self.tx[queue].read(register, env),
            Register::Own => {
                return self.family.read_own(offset, &Look { now: env.now, link: self.link });
            }
        })
    }

    /// `None`: there is no such register; `Err`: the driver broke a rule.
    fn write_register(&mut self, offset: u32, value: u32, env: &mut Env) -> Option<Checked> {
        match F::decode(offset, self.rx.len())? {
            Register::Ctrl => {
                if value & CTRL_RST != 0 {
                    self.software_reset(env);
                }
            }
            Register::Eics => self.irq.raise(value),
            Register::Eims => self.irq.unmask(value),
            Register::Eimc => self.irq.eims &= !value,
            Register::Eiac => self.irq.eiac = value & CAUSES,
            Register::Eiam => self.irq.eiam = value & CAUSES,
            Register::Eicr => self.irq.eicr &= !value,
            Register::Eitr(vector) => self.irq.eitr[vector] = value,
            Register::Ivar(pair) => self.irq.ivar[pair] = value,
            Register::IvarMisc => self.irq.ivar_misc = value,
            Register::Mailbox => match self.mailbox.write(value, env.now, &self.faults) {
                Ok(step) if step.interrupt => self.irq.misc_event(),
                Ok(_) => {}
                Err(what) => return Some(Err(what.into())),
            },
            Register::Memory(word) => return Some(self.mailbox.write_memory(word, value).map_err(Into::into)),
            Register::Queue { tx, queue, register } => return self.write_queue(tx, queue, register, value, env),
            Register::Own => return self.family.write_own(offset, value),
        }
        Some(Ok(()))
    }

    fn write_queue(
        &mut self,
        tx: bool,
        queue: usize,
        register: QueueRegister,
        value: u32,
        env: &mut Env,
    ) -> Option<Checked> {
        match (tx, register) {
            (false, QueueRegister::Srrctl) => return Some(self.rx[queue].write_srrctl(value)),
            (false, QueueRegister::Rqdpc) => return Some(Err("RQDPC is read only".into())),
            (true, QueueRegister::Tdwbal) => self.tx[queue].tdwbal = value,
            (true, QueueRegister::Tdwbah) => self.tx[queue].tdwbah = value,
            (_, QueueRegister::Tail) => {
                // The same cell that the queue's thread rings, so that no tail is seen twice.
                let cells = if tx { &self.cells.tdt } else { &self.cells.rdt };
                cells[queue].store(value, Ordering::Relaxed);
                return Some(self.set_tail(tx, queue, value, env));
            }
            (_, QueueRegister::Dctl) => return Some(self.write_control(tx, queue, value, env)),
            (
                _,
                QueueRegister::Bal | QueueRegister::Bah | QueueRegister::Len | QueueRegister::Head | QueueRegister::Dca,
            ) => {
                let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
                return Some(ring.write(register, value));
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    fn write_control(&mut self, tx: bool, queue: usize, value: u32, env: &mut Env) -> Checked {
        let kind = if tx { "TXDCTL" } else { "RXDCTL" };
        if value & !F::RULES.dctl_bits[tx as usize] != 0 {
            return Err(format!("{kind}({queue}) {value:#010x} has reserved bits set"));
        }
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        let was_enabled = ring.enabled;
        let enabled = ring.write_control(value, env, &self.faults);
        if tx && was_enabled && !ring.enabled {
            self.tx[queue].stop(env, false);
        }
        if !enabled {
            return Ok(());
        }
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        if self.handshake && !self.pf.clear_to_send() {
            // The PF reset behind the driver's back, perhaps since the ring was programmed: nothing runs, and the
            // driver cannot know yet.
            ring.halted = true;
            return Ok(());
        }
        let problem = if !self.handshake {
            Err(format!("{kind}({queue}).ENABLE before the reset handshake with the PF"))
        } else if !self.bus_master {
            Err(format!("{kind}({queue}).ENABLE without Bus Master"))
        } else if queue >= self.family.granted() {
            Err(format!("{kind}({queue}).ENABLE, but the PF granted {} queues", self.family.granted()))
        } else {
            self.family.check_control(tx, queue, value)
        };
        if problem.is_err() {
            ring.halted = true;
            return problem;
        }
        if tx {
            self.tx[queue].descriptors_max = F::RULES.tx_descriptors_max.saturating_sub(F::wthresh(value));
            self.tx[queue].check_enable(self.family.minds_relaxed_write_back(), env)
        } else {
            self.rx[queue].check_enable(env)
        }
    }

    fn set_tail(&mut self, tx: bool, queue: usize, tail: u32, env: &mut Env) -> Checked {
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        let wthresh = F::wthresh(ring.dctl);
        let starts = env.strict && tx && ring.enabled && !ring.started;
        ring.set_tail(tail, env)?;
        if starts && F::RULES.batches_stay_out && wthresh > 1 && !self.irq.moderates(queue) {
            return Err(format!(
                "tx queue {queue} used with WTHRESH {wthresh} and no interrupt moderation: write-backs may stay out"
            ));
        }
        Ok(())
    }

    /// Looks at the doorbell cells.
    #[inline]
    pub(super) fn sample(&mut self, env: &mut Env) {
        for cell in &self.cells.eims {
            if cell.load(Ordering::Relaxed) != 0 {
                let causes = cell.swap(0, Ordering::AcqRel);
                if !self.faults.gone() {
                    self.irq.unmask(causes);
                }
            }
        }
        for queue in 0..self.rx.len() {
            for tx in [false, true] {
                let (cell, ring) = if tx {
                    (&self.cells.tdt[queue], &self.tx[queue].ring)
                } else {
                    (&self.cells.rdt[queue], &self.rx[queue].ring)
                };
                // Acquire: the descriptors behind the old tail were written before the doorbell was rung.
                let tail = cell.load(Ordering::Acquire);
                if tail != ring.tail && !self.faults.gone() && !self.unmapped {
                    let result = self.set_tail(tx, queue, tail, env);
                    if let Err(what) = result {
                        self.broken(&what, env);
                    }
                }
            }
        }
    }
}
