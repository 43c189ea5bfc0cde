//! The register file of the igb VF: what reads and writes do (fact sheet igbvf 2, 7.1).
//!
//! Every access first takes note of the doorbells and may trip a fault. A register that does not exist, and a write
//! that the sheet forbids, is a violation of the driver.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::super::env::Env;
use super::super::model::Model;
use super::{IgbVf, PF_RESET_TIME, Part, queue_register, regs};
use crate::mmio::ALL_ONES;

/// What the driver did wrong.
type Checked = Result<(), String>;

impl IgbVf {
    /// A read by the driver.
    pub(super) fn read_bar(&mut self, offset: u32, env: &mut Env) -> u32 {
        self.before_access(env);
        let value = if self.faults.gone() {
            ALL_ONES
        } else if self.unmapped {
            0
        } else {
            match self.read_register(offset, env) {
                Some(value) => value,
                None => {
                    self.violate(env, &format!("read of {}", regs::name(offset)));
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
        match self.write_register(offset, value, env) {
            Some(result) => self.check(env, result),
            None => self.violate(env, &format!("write of {value:#x} to {}", regs::name(offset))),
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
        Some(match offset {
            // RST clears itself at once.
            regs::CTRL | regs::CTRL_ALIAS => 0,
            regs::STATUS if self.link => regs::STATUS_FD | regs::STATUS_LU | regs::STATUS_SPEED_1000,
            regs::STATUS => 0,
            regs::FRTIMER => env.now.as_micros() as u32,
            regs::EICS | regs::EIMC => 0,
            regs::EIMS => self.irq.eims,
            regs::EIAC => self.irq.eiac,
            regs::EIAM => self.irq.eiam,
            regs::EICR => self.irq.read_causes(),
            regs::EITR0..=regs::EITR2 => self.irq.eitr[((offset - regs::EITR0) / 4) as usize],
            regs::IVAR0 => self.irq.ivar0,
            regs::IVAR_MISC => self.irq.ivar_misc,
            regs::PBACL => self.pbacl,
            regs::PSRTYPE => self.psrtype,
            regs::PBRWAC | regs::PBTWAC => 0,
            regs::V2PMAILBOX => self.mailbox.read(&self.faults),
            regs::VMBMEM..=regs::VMBMEM_LAST => self.mailbox.read_memory(((offset - regs::VMBMEM) / 4) as usize),
            _ => {
                return self.stats.read(offset).or_else(|| match queue_register(offset, self.queues())? {
                    (false, queue, relative) => self.rx[queue].read(relative, env),
                    (true, queue, relative) => self.tx[queue].read(relative, env),
                });
            }
        })
    }

    /// `None`: there is no such register; `Err`: the driver broke a rule.
    fn write_register(&mut self, offset: u32, value: u32, env: &mut Env) -> Option<Checked> {
        match offset {
            regs::CTRL | regs::CTRL_ALIAS => {
                if value & regs::CTRL_RST != 0 {
                    self.software_reset(env);
                }
            }
            regs::EICS => self.irq.raise(value),
            regs::EIMS => self.irq.unmask(value),
            regs::EIMC => self.irq.eims &= !value,
            regs::EIAC => self.irq.eiac = value & regs::CAUSES,
            regs::EIAM => self.irq.eiam = value & regs::CAUSES,
            regs::EICR => self.irq.eicr &= !value,
            regs::EITR0..=regs::EITR2 => {
                self.irq.eitr[((offset - regs::EITR0) / 4) as usize] = value;
            }
            regs::IVAR0 => self.irq.ivar0 = value,
            regs::IVAR_MISC => self.irq.ivar_misc = value,
            regs::PBACL => self.pbacl = value,
            regs::PSRTYPE => self.psrtype = value,
            regs::V2PMAILBOX => match self.mailbox.write(value, env.now, &self.faults) {
                Ok(step) if step.interrupt => self.irq.misc_event(),
                Ok(_) => {}
                Err(what) => return Some(Err(what.into())),
            },
            regs::VMBMEM..=regs::VMBMEM_LAST => {
                let word = ((offset - regs::VMBMEM) / 4) as usize;
                return Some(self.mailbox.write_memory(word, value).map_err(Into::into));
            }
            regs::STATUS | regs::FRTIMER => return Some(Err(format!("{} is read only", regs::name(offset)))),
            _ => {
                let (tx, queue, relative) = queue_register(offset, self.queues())?;
                return self.write_queue(tx, queue, relative, value, env);
            }
        }
        Some(Ok(()))
    }

    fn write_queue(&mut self, tx: bool, queue: usize, relative: u32, value: u32, env: &mut Env) -> Option<Checked> {
        match (tx, relative) {
            (false, regs::SRRCTL) => return Some(self.rx[queue].write_srrctl(value)),
            (false, regs::RQDPC) => return Some(Err("RQDPC is read only".into())),
            (true, regs::TDWBAL) => self.tx[queue].tdwbal = value,
            (true, regs::TDWBAH) => self.tx[queue].tdwbah = value,
            (_, regs::TAIL) => {
                // The same cell that the queue's thread rings, so that no tail is seen twice.
                let cells = if tx { &self.cells.tdt } else { &self.cells.rdt };
                cells[queue].store(value, Ordering::Relaxed);
                return Some(self.set_tail(tx, queue, value, env));
            }
            (_, regs::DCTL) => return Some(self.write_control(tx, queue, value, env)),
            (_, regs::BAL | regs::BAH | regs::LEN | regs::HEAD | regs::DCA) => {
                let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
                return Some(ring.write(relative, value));
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    fn write_control(&mut self, tx: bool, queue: usize, value: u32, env: &mut Env) -> Checked {
        let (exists, kind) = if tx { (regs::TXDCTL_BITS, "TXDCTL") } else { (regs::RXDCTL_BITS, "RXDCTL") };
        if value & !exists != 0 {
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
        if self.handshake && !self.pf.enabled {
            // The PF reset behind the driver's back, perhaps since the ring was programmed: nothing runs, and the
            // driver cannot know yet.
            let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
            ring.halted = true;
            return Ok(());
        }
        let wthresh = value >> 16 & 0x1f;
        let problem = if !self.handshake {
            Some(format!("{kind}({queue}).ENABLE before the reset handshake with the PF"))
        } else if !self.bus_master {
            Some(format!("{kind}({queue}).ENABLE without Bus Master"))
        } else if !tx && self.options.part == Part::I82576 && wthresh != 1 {
            Some(format!(
                "RXDCTL({queue}).WTHRESH is {wthresh}: an 82576 VF needs 1, or write-backs stay out (erratum)"
            ))
        } else {
            None
        };
        if let Some(problem) = problem {
            let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
            ring.halted = true;
            return Err(problem);
        }
        if tx { self.tx[queue].check_enable(env) } else { self.rx[queue].check_enable(env) }
    }

    fn set_tail(&mut self, tx: bool, queue: usize, tail: u32, env: &mut Env) -> Checked {
        let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
        ring.set_tail(tail, env)
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
