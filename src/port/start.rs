//! Starting a port: memory for the rings, rings into the device, parts for the queues.
#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crossbeam::utils::CachePadded;

use super::control::{Control, Inner, Side};
use super::device::{MAILBOX_VECTOR, RingKind, RingPlan};
use super::{Port, PortConfig};
use crate::addr::Iova;
use crate::cpu::Kernel;
use crate::error::{Error, Result};
use crate::event::eventfd;
use crate::mem::{AHEAD, HugeRegion, Mempool, Pages, PoolHandle};
use crate::ring::{Attached, Descriptors, Gate, QueueLink, RxCounts, RxInterrupt, RxParts, Shared, TxCounts, TxParts};

/// Rings start on page boundaries: more than any family asks for.
const RING_ALIGN: usize = 4096;
/// Bytes of a descriptor word.
const WORD: usize = 8;

/// A started port before its queues know their descriptor format.
pub(crate) struct StartParts {
    pub(crate) control: Control,
    pub(crate) rx: Vec<RxParts>,
    pub(crate) tx: Vec<TxParts>,
    pub(crate) kind: RingKind,
}

/// Where each ring lies in the region of a start.
struct Layout {
    rx: Vec<usize>,
    tx: Vec<usize>,
    len: usize,
}

impl Layout {
    fn new(c: &PortConfig, descriptor_bytes: usize) -> Layout {
        let mut len = 0;
        let mut place = |entries: u16| {
            let at = len;
            len += (entries as usize * descriptor_bytes + AHEAD).next_multiple_of(RING_ALIGN);
            at
        };
        let rx = (0..c.rx_queues).map(|_| place(c.rx_ring)).collect();
        let tx = (0..c.tx_queues).map(|_| place(c.tx_ring)).collect();
        Layout { rx, tx, len }
    }
}

impl Port {
    /// Programs the device and takes the port apart. On an error the device has been reset and the port is dropped.
    pub(crate) fn start_parts(mut self, pool: &Mempool) -> Result<StartParts> {
        self.check_earlier()?;
        let buffer_len = self.buffer_len(pool)?;
        let needed = self.buffers_needed();
        if let Err(left) = pool.handle().reserve(needed) {
            return Err(Error::Config(format!(
                "{}: rings, caches and bursts need {needed} buffers and the pool of {} has {left} to give: make it larger by {}",
                self.name,
                pool.capacity(),
                needed - left
            )));
        }
        let reservation = Reservation { pool: pool.handle().clone(), count: needed };
        let iova = self.map_pool(pool.handle())?;
        let descriptor_words = self.device.caps().rings.rx_words();
        let layout = Layout::new(&self.config, descriptor_words * WORD);
        let pages = if self.info.is_model { Pages::Ordinary } else { Pages::Default };
        let region = Arc::new(HugeRegion::allocate(layout.len, pages, self.info.numa_node)?);
        let base = self.device.bus().map_dma(&region)?;
        let (rx_plans, tx_plans) = self.plans(&layout, base, buffer_len);
        let events = self.events()?;

        let shared = Arc::new(Shared::new());
        let tx_pools = || -> Vec<Attached> {
            let delta = |region: &HugeRegion, iova: Iova| iova.0.wrapping_sub(region.addr() as u64);
            let own = Attached { pool: pool.handle().clone(), iova_delta: delta(pool.handle().region(), iova) };
            let others = self.pools.iter().filter(|m| m.handle.number() != pool.handle().number());
            let others =
                others.map(|m| Attached { pool: m.handle.clone(), iova_delta: delta(m.handle.region(), m.iova) });
            std::iter::once(own).chain(others).collect()
        };
        let attached: Vec<Vec<Attached>> = tx_plans.iter().map(|_| tx_pools()).collect();
        let mut rx = Vec::new();
        let mut tx = Vec::new();
        let mut sides = Vec::new();
        let mut rx_counts = Vec::new();
        let mut tx_counts = Vec::new();
        for (plan, &offset) in rx_plans.iter().zip(&layout.rx) {
            let gate = Arc::new(CachePadded::new(Gate::new()));
            let counts = Arc::new(RxCounts::default());
            let event = plan.vector.and_then(|v| events.get(v as usize)).cloned();
            let interrupt = match (plan.vector, &event) {
                (Some(vector), Some(event)) => {
                    let (arm, arm_value) = self.device.arm_doorbell(vector)?;
                    Some(RxInterrupt { arm, arm_value, event: event.clone() })
                }
                _ => None,
            };
            rx.push(RxParts {
                number: plan.queue,
                link: QueueLink::new(shared.clone(), gate.clone()),
                ring: self.descriptors(&region, offset, plan.entries, descriptor_words)?,
                size: plan.entries,
                tail: self.device.rx_doorbell(plan.queue)?,
                pool: pool.handle().clone(),
                iova_delta: iova.0.wrapping_sub(pool.handle().region().addr() as u64),
                buffer_len,
                want_info: self.config.rx_info,
                kernel: Kernel::best(self.config.vector_bits),
                counts: counts.clone(),
                interrupt,
            });
            rx_counts.push(counts);
            sides.push(Side { plan: *plan, receive: true, gate, event });
        }
        for ((plan, &offset), pools) in tx_plans.iter().zip(&layout.tx).zip(attached) {
            let gate = Arc::new(CachePadded::new(Gate::new()));
            let counts = Arc::new(TxCounts::default());
            tx.push(TxParts {
                number: plan.queue,
                link: QueueLink::new(shared.clone(), gate.clone()),
                ring: self.descriptors(&region, offset, plan.entries, 2)?,
                size: plan.entries,
                tail: self.device.tx_doorbell(plan.queue)?,
                pools,
                max_frame: self.config.max_frame(),
                max_segments: self.device.caps().max_segments,
                offloads: self.config.tx_offloads,
                kernel: Kernel::best(self.config.vector_bits),
                counts: counts.clone(),
            });
            tx_counts.push(counts);
            sides.push(Side { plan: *plan, receive: false, gate, event: None });
        }
        let kind = self.device.caps().rings;
        let inner = Inner::new(self, shared, sides, region, reservation, events, rx_counts, tx_counts);
        // From here on dropping the control resets the device and takes everything back.
        let mut control = Control::new(inner);
        if let Err(error) = control.bring_up() {
            // Queues go before the control, which would wait for them.
            drop((rx, tx));
            return Err(error);
        }
        Ok(StartParts { control, rx, tx, kind })
    }

    /// Rule 4 of the module: a queue of an earlier start could still ring a doorbell.
    fn check_earlier(&mut self) -> Result<()> {
        let Some(earlier) = &self.earlier else { return Ok(()) };
        let silent = earlier.silent();
        if !silent.is_empty() {
            return Err(Error::Config(format!(
                "{}: cannot start while queues of the earlier start have not let go: {}; poll them once more or drop them",
                self.name,
                silent.join(", ")
            )));
        }
        self.earlier = None;
        Ok(())
    }

    /// Bytes of a buffer that the device may fill.
    fn buffer_len(&self, pool: &Mempool) -> Result<u16> {
        let granule = self.device.caps().rx_buffer_granule;
        let len = pool.data_room() / granule * granule;
        if len == 0 {
            return Err(Error::Config(format!(
                "{}: receive buffers are multiples of {granule} bytes and the pool's have room for {}",
                self.name,
                pool.data_room()
            )));
        }
        Ok(len)
    }

    fn plans(&self, layout: &Layout, base: Iova, buffer_len: u16) -> (Vec<RingPlan>, Vec<RingPlan>) {
        let c = &self.config;
        let plan = |(queue, offset): (usize, &usize), entries, buffer_len, vector| RingPlan {
            queue: queue as u16,
            base: Iova(base.0 + *offset as u64),
            entries,
            buffer_len,
            vector,
        };
        let interrupts = c.interrupts;
        let rx = layout.rx.iter().enumerate();
        let rx =
            rx.map(|q| plan(q, c.rx_ring, buffer_len, interrupts.then_some(MAILBOX_VECTOR + 1 + q.0 as u16))).collect();
        let tx = layout.tx.iter().enumerate().map(|q| plan(q, c.tx_ring, 0, None)).collect();
        (rx, tx)
    }

    /// One eventfd for the mailbox, which is the first vector, and in interrupt mode one per receive queue.
    fn events(&mut self) -> Result<Vec<Arc<OwnedFd>>> {
        let queues = if self.config.interrupts { self.config.rx_queues as usize } else { 0 };
        (0..=queues).map(|_| eventfd().map(Arc::new)).collect()
    }

    fn descriptors(&self, region: &Arc<HugeRegion>, offset: usize, entries: u16, words: usize) -> Result<Descriptors> {
        Descriptors::new(region.clone(), offset, entries as usize * words).ok_or_else(|| {
            Error::Memory(format!("{}: a ring of {entries} descriptors does not fit its region", self.name))
        })
    }

    /// Connects the vectors. A VF without enough of them is polled, mailbox and all.
    pub(super) fn connect(&mut self, events: &[Arc<OwnedFd>]) -> Result<bool> {
        if usize::from(self.device.caps().vectors) < events.len() {
            return Ok(false);
        }
        let fds: Vec<_> = events.iter().map(|e| e.as_fd()).collect();
        self.device.bus().connect_vectors(&fds)?;
        Ok(true)
    }
}

/// Buffers of a pool that a started port counts on.
pub(super) struct Reservation {
    pool: PoolHandle,
    count: u32,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.pool.release(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ring_begins_where_another_thread_s_fetches_ahead() {
        for (entries, bytes) in [(32, 16), (72, 16), (512, 16), (4096, 16), (4096, 32)] {
            let config = PortConfig::new().queues(4, 3).rings(entries, entries);
            let Layout { rx, tx, len } = Layout::new(&config, bytes);
            assert_eq!((rx.len(), tx.len()), (4, 3));
            let mut rings: Vec<(usize, usize)> =
                rx.iter().chain(&tx).map(|&at| (at, at + entries as usize * bytes)).collect();
            rings.push((len, len));
            rings.sort_unstable();
            assert!(rings.iter().all(|(start, _)| start % RING_ALIGN == 0));
            assert!(rings.is_sorted_by(|(_, end), (start, _)| end + AHEAD <= *start), "{rings:x?}");
        }
    }
}
