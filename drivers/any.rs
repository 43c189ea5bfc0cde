//! Queues of any family, and the start of a port that yields them.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

#[cfg(feature = "igbvf")]
use super::igbvf::{self, IgbRx, IgbTx};
#[cfg(feature = "ixgbevf")]
use super::ixgbevf::{self, IxgbeRx, IxgbeTx};
use crate::error::{Error, Result};
use crate::event;
use crate::mem::{Burst, Mempool, PoolCache};
use crate::port::device::RingKind;
use crate::port::{Control, Port, StartParts};
use crate::ring::{RxQueue, TxQueue};

/// A started port, taken apart: control and queues may go to different threads and be combined freely.
#[derive(Debug)]
pub struct Started {
    /// State, link, settings, counters, and stopping.
    pub control: Control,
    /// Receive queues, by number.
    pub rx: Vec<AnyRx>,
    /// Transmit queues, by number.
    pub tx: Vec<AnyTx>,
}

/// A receive queue of whatever family the VF is.
#[non_exhaustive]
pub enum AnyRx {
    /// 82576 and I350.
    #[cfg(feature = "igbvf")]
    Igb(RxQueue<IgbRx>),
    /// 82599, X540, X550 and E610.
    #[cfg(feature = "ixgbevf")]
    Ixgbe(RxQueue<IxgbeRx>),
}

/// A transmit queue of whatever family the VF is.
#[non_exhaustive]
pub enum AnyTx {
    /// 82576 and I350.
    #[cfg(feature = "igbvf")]
    Igb(TxQueue<IgbTx>),
    /// 82599, X540, X550 and E610.
    #[cfg(feature = "ixgbevf")]
    Ixgbe(TxQueue<IxgbeTx>),
}

macro_rules! each {
    ($any:ident, $self:expr, $queue:ident => $act:expr) => {
        match $self {
            #[cfg(feature = "igbvf")]
            $any::Igb($queue) => $act,
            #[cfg(feature = "ixgbevf")]
            $any::Ixgbe($queue) => $act,
        }
    };
}

impl AnyRx {
    /// The queue's number in its port.
    pub fn number(&self) -> u16 {
        each!(AnyRx, self, queue => queue.number())
    }

    /// Receives packets; see [`RxQueue::burst`].
    #[inline]
    pub fn burst(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        each!(AnyRx, self, queue => queue.burst(cache, burst))
    }

    /// Sleeps until packets come; see [`RxQueue::sleep`].
    ///
    /// # Errors
    /// As [`RxQueue::sleep`].
    pub fn sleep(&mut self, cache: &mut PoolCache, burst: &mut Burst, timeout: Duration) -> Result<usize> {
        each!(AnyRx, self, queue => queue.sleep(cache, burst, timeout))
    }

    /// Unmasks the queue's vector; see [`RxQueue::rearm`].
    pub fn rearm(&mut self) {
        each!(AnyRx, self, queue => queue.rearm())
    }

    /// Sleeps until one of several queues has an event (a packet, or a change of its port's state), or `timeout` is over;
    /// false when it is over, or a signal came.
    ///
    /// In this order, or a packet may be slept through: [`rearm`](Self::rearm) each queue, poll each once more, and wait
    /// if none had a packet. For one queue, [`sleep`](Self::sleep) does all of it.
    ///
    /// # Errors
    /// [`Error::Config`] when a port was opened without interrupts; [`Error::Os`] when `poll` fails.
    pub fn wait<'a>(queues: impl IntoIterator<Item = &'a AnyRx>, timeout: Duration) -> Result<bool> {
        let fds: Option<Vec<BorrowedFd<'_>>> = queues.into_iter().map(AnyRx::event_fd).collect();
        let fds = fds.ok_or_else(|| Error::Config("a port was opened without interrupts(true)".into()))?;
        let poll = |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut polls: Vec<libc::pollfd> = fds.iter().map(poll).collect();
        let ready = event::wait_any(&mut polls, timeout)?;
        for (fd, _) in fds.iter().zip(&polls).filter(|(_, poll)| poll.revents != 0) {
            event::clear(*fd);
        }
        Ok(ready)
    }

    /// The eventfd to wait on; see [`RxQueue::event_fd`].
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        each!(AnyRx, self, queue => queue.event_fd())
    }
}

impl AnyTx {
    /// The queue's number in its port.
    pub fn number(&self) -> u16 {
        each!(AnyTx, self, queue => queue.number())
    }

    /// Sends packets; see [`TxQueue::burst`].
    #[inline]
    pub fn burst(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        each!(AnyTx, self, queue => queue.burst(cache, burst))
    }
}

impl std::fmt::Debug for AnyRx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnyRx({})", self.number())
    }
}

impl std::fmt::Debug for AnyTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnyTx({})", self.number())
    }
}

impl Port {
    /// Starts the port: programs rings over buffers of `pool` and gives out control and queues.
    ///
    /// # Errors
    /// [`Error::Config`] when the pool is smaller than rings, caches and bursts need (with the number), or when queues
    /// of an earlier start have not let go; what the device or the PF says otherwise. The port is closed then.
    pub fn start(self, pool: &Mempool) -> Result<Started> {
        let name = self.name().to_owned();
        let StartParts { control, rx, tx, kind } = self.start_parts(pool)?;
        let short = || Error::Memory(format!("{name}: the pool ran out of buffers while rings were filled"));
        let (rx, tx): (Option<Vec<_>>, Option<Vec<_>>) = match kind {
            #[cfg(feature = "igbvf")]
            RingKind::Igb { big_endian_loopback_tag } => {
                let quirks = igbvf::Quirks { big_endian_loopback_tag };
                (
                    rx.into_iter().map(|parts| RxQueue::new(parts, quirks).map(AnyRx::Igb)).collect(),
                    tx.into_iter().map(|parts| TxQueue::new(parts).map(AnyTx::Igb)).collect(),
                )
            }
            #[cfg(feature = "ixgbevf")]
            RingKind::Ixgbe { udp_without_checksum_flagged } => {
                let quirks = ixgbevf::Quirks { udp_without_checksum_flagged };
                (
                    rx.into_iter().map(|parts| RxQueue::new(parts, quirks).map(AnyRx::Ixgbe)).collect(),
                    tx.into_iter().map(|parts| TxQueue::new(parts).map(AnyTx::Ixgbe)).collect(),
                )
            }
        };
        // Queues go before the control, which would wait for them.
        let (Some(rx), Some(tx)) = (rx, tx) else { return Err(short()) };
        Ok(Started { control, rx, tx })
    }
}
