//! The register file of the avf VF: what reads and writes do (fact sheet iavf 2, 7.1).
//!
//! Every access first takes note of the doorbells and may trip a fault. A register that does not exist, and a write that the
//! sheet forbids, is a violation of the driver.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering;

use super::super::env::{Checked, Env};
use super::super::model::{Cells, Model};
use super::{AvfVf, PF_RESET_TIME, QUEUES_MAX, regs};
use crate::mmio::ALL_ONES;

impl AvfVf {
    /// A read by the driver.
    pub(super) fn read_bar(&mut self, offset: u32, env: &mut Env) -> u32 {
        self.before_access(env);
        let value = if self.faults.gone() {
            ALL_ONES
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
        if self.faults.gone() {
            return;
        }
        match self.write_register(offset, value, env) {
            Some(result) => self.check(env, result),
            None => self.violate(env, &format!("write of {value:#x} to {}", regs::name(offset))),
        }
    }

    fn before_access(&mut self, env: &mut Env) {
        if self.faults.on_access() {
            self.warn(env);
            self.begin_reset(Some(PF_RESET_TIME), env);
        }
        self.sample(env);
    }

    /// The vector of a DYN_CTL register, if the part has it.
    fn control(&self, offset: u32) -> Option<usize> {
        let vector = match offset {
            regs::DYN_CTL01 => 0,
            regs::DYN_CTLN..=regs::DYN_CTLN_LAST => (offset - regs::DYN_CTLN) as usize / 4 + 1,
            _ => return None,
        };
        (vector < self.options.part.vectors()).then_some(vector)
    }

    fn read_register(&mut self, offset: u32, env: &mut Env) -> Option<u32> {
        if let Some(cell) = self.cells.plain(offset) {
            return Some(cell.load(Ordering::Relaxed));
        }
        if let Some(vector) = self.control(offset) {
            return self.irq.control(vector);
        }
        if let Some(register) = self.adminq.register(offset) {
            return Some(*register);
        }
        Some(match offset {
            regs::ICR01 => self.irq.read_causes(),
            regs::ICR0_ENA1 => self.irq.icr_ena,
            regs::STAT_CTL01 => self.irq.stat_ctl,
            regs::ITR01..=regs::ITR01_LAST => self.irq.itr0[((offset - regs::ITR01) / 4) as usize],
            regs::RSTAT => self.reset_state(env),
            _ => return self.rss_register(offset, None),
        })
    }

    /// `None`: there is no such register; `Err`: the driver broke a rule.
    fn write_register(&mut self, offset: u32, value: u32, env: &mut Env) -> Option<Checked> {
        if let Some(cell) = self.cells.plain(offset) {
            // The same cell that the queue's thread rings, so that no tail is seen twice.
            cell.store(value, Ordering::Relaxed);
            self.sample(env);
            return Some(Ok(()));
        }
        if let Some(vector) = self.control(offset) {
            return Some(self.write_control(vector, value));
        }
        if let Some(register) = self.adminq.register(offset) {
            let wrong = match offset {
                regs::ATQBAL | regs::ARQBAL => value & 0x3f != 0,
                regs::ATQLEN | regs::ARQLEN => value & !(0xf << 28 | regs::AQ_INDEX) != 0,
                regs::ATQBAH | regs::ARQBAH => false,
                _ => value & !regs::AQ_INDEX != 0,
            };
            if wrong {
                return Some(Err(format!("{} written with {value:#x}", regs::name(offset))));
            }
            *register = value;
            if offset == regs::ATQT {
                self.adminq.rung(env.now);
            }
            return Some(Ok(()));
        }
        match offset {
            regs::ICR0_ENA1 => self.irq.enable_causes(value),
            regs::STAT_CTL01 => self.irq.stat_ctl = value,
            regs::ITR01..=regs::ITR01_LAST => self.irq.itr0[((offset - regs::ITR01) / 4) as usize] = value,
            regs::RSTAT => return Some(Err("VFGEN_RSTAT is read only".into())),
            _ => {
                self.rss_register(offset, Some(value))?;
                self.generation += 1;
            }
        }
        Some(Ok(()))
    }

    fn write_control(&mut self, vector: usize, value: u32) -> Checked {
        if let Some(throttle) = self.irq.write_control(vector, value) {
            if vector == 0 {
                self.irq.itr0[throttle.index] = throttle.interval;
            } else {
                let ice = self.options.part.is_ice();
                let (per_index, per_vector) = if ice { (4, 12) } else { (64, 4) };
                let at = regs::ITRN as usize + throttle.index * per_index + (throttle.vector - 1) * per_vector;
                if let Some(cell) = self.cells.plain(at as u32) {
                    cell.store(throttle.interval, Ordering::Relaxed);
                }
            }
        }
        if value & !regs::CTL_BITS != 0 {
            return Err(format!("DYN_CTL of vector {vector} written with reserved bits: {value:#010x}"));
        }
        Ok(())
    }

    /// Reads, or writes, an RSS register of the 700 series.
    fn rss_register(&mut self, offset: u32, value: Option<u32>) -> Option<u32> {
        if self.options.part.is_ice() {
            return None;
        }
        let rss = &mut self.rss;
        if let regs::HENA..=regs::HENA_LAST = offset {
            let shift = 8 * (offset - regs::HENA);
            if let Some(value) = value {
                rss.fields = rss.fields & !(0xffff_ffff << shift) | (value as u64) << shift;
            }
            return Some((rss.fields >> shift) as u32);
        }
        if let regs::HREGION..=regs::HREGION_LAST = offset {
            let register = &mut self.regions[((offset - regs::HREGION) / 4) as usize];
            *register = value.unwrap_or(*register);
            return Some(*register);
        }
        let bytes = match offset {
            regs::HKEY..=regs::HKEY_LAST => rss.key.get_mut((offset - regs::HKEY) as usize..)?,
            regs::HLUT..=regs::HLUT_LAST => rss.table.get_mut((offset - regs::HLUT) as usize..)?,
            _ => return None,
        };
        let bytes = bytes.first_chunk_mut::<4>()?;
        if let Some(value) = value {
            // Only the low 4 bits of a table entry exist.
            let mask = if offset >= regs::HLUT { 0x0f0f_0f0f } else { u32::MAX };
            *bytes = (value & mask).to_le_bytes();
        }
        Some(u32::from_le_bytes(*bytes))
    }

    /// Looks at the doorbell cells.
    #[inline]
    pub(super) fn sample(&mut self, env: &mut Env) {
        if self.faults.gone() {
            return;
        }
        for vector in 1..self.options.part.vectors() {
            if let Some(value) = self.cells.take_control(vector - 1) {
                let result = self.write_control(vector, value);
                self.check(env, result);
            }
        }
        for queue in 0..QUEUES_MAX {
            if !self.runs(queue) {
                continue;
            }
            for tx in [false, true] {
                let cell = self.cells.tail(tx, queue);
                let ring = if tx { &mut self.tx[queue].ring } else { &mut self.rx[queue].ring };
                if !ring.enabled {
                    continue; // looked at when the queue is enabled
                }
                // Acquire: the descriptors behind the old tail were written before the doorbell was rung.
                let tail = cell.load(Ordering::Acquire);
                if tail != ring.tail
                    && let Err(what) = ring.set_tail(tail, env)
                {
                    self.broken(tx, queue, &what, env);
                }
            }
        }
    }
}
