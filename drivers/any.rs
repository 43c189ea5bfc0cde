//! Queues of any family, and the start of a port that yields them.
#![forbid(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

#[cfg(feature = "iavf")]
use super::iavf::{self, AvfFlexRx, AvfLegacyRx, AvfTx};
#[cfg(feature = "igbvf")]
use super::igbvf::{self, IgbRx, IgbTx};
#[cfg(feature = "ixgbevf")]
use super::ixgbevf::{self, IxgbeRx, IxgbeTx};
use crate::error::{Error, Result};
use crate::event;
use crate::mem::{Burst, Mempool, PoolCache};
use crate::port::device::RingKind;
use crate::port::{Control, Port, StartParts};
use crate::ring::{Look, RxFormat, RxParts, RxQueue, TxFormat, TxParts, TxQueue};

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
    /// XL710, X722 and those of the 800 series whose PF offers no other format.
    #[cfg(feature = "iavf")]
    AvfLegacy(RxQueue<AvfLegacyRx>),
    /// 800 series.
    #[cfg(feature = "iavf")]
    AvfFlex(RxQueue<AvfFlexRx>),
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
    /// XL710, X722 and the 800 series.
    #[cfg(feature = "iavf")]
    Avf(TxQueue<AvfTx<{ iavf::TAG_IN_DATA }>>),
    /// The same, where VLAN tags to insert go into a context.
    #[cfg(feature = "iavf")]
    AvfOuterTag(TxQueue<AvfTx<{ iavf::TAG_IN_CONTEXT }>>),
    /// The same, where the PF lets the VF insert no tags.
    #[cfg(feature = "iavf")]
    AvfNoTag(TxQueue<AvfTx<{ iavf::TAG_NOWHERE }>>),
}

macro_rules! each_rx {
    ($self:expr, $queue:ident => $act:expr) => {
        match $self {
            #[cfg(feature = "igbvf")]
            AnyRx::Igb($queue) => $act,
            #[cfg(feature = "ixgbevf")]
            AnyRx::Ixgbe($queue) => $act,
            #[cfg(feature = "iavf")]
            AnyRx::AvfLegacy($queue) => $act,
            #[cfg(feature = "iavf")]
            AnyRx::AvfFlex($queue) => $act,
        }
    };
}

macro_rules! each_tx {
    ($self:expr, $queue:ident => $act:expr) => {
        match $self {
            #[cfg(feature = "igbvf")]
            AnyTx::Igb($queue) => $act,
            #[cfg(feature = "ixgbevf")]
            AnyTx::Ixgbe($queue) => $act,
            #[cfg(feature = "iavf")]
            AnyTx::Avf($queue) => $act,
            #[cfg(feature = "iavf")]
            AnyTx::AvfOuterTag($queue) => $act,
            #[cfg(feature = "iavf")]
            AnyTx::AvfNoTag($queue) => $act,
        }
    };
}

impl AnyRx {
    /// The queue's number in its port.
    pub fn number(&self) -> u16 {
        each_rx!(self, queue => queue.number())
    }

    /// Receives packets; see [`RxQueue::burst`].
    #[inline]
    pub fn burst(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        // Which queue it is matters only when there is something to do.
        match each_rx!(self, queue => queue.watch()).look(cache) {
            Look::Idle => 0,
            Look::Ready => each_rx!(self, queue => queue.attend(cache, burst)),
            Look::Changed => self.attend_change(cache, burst),
        }
    }

    /// As [`RxQueue::attend_change`].
    #[cold]
    fn attend_change(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        each_rx!(self, queue => queue.attend_change(cache, burst))
    }

    /// Is there nothing to receive, and nothing unusual?
    #[inline]
    pub(super) fn is_idle(&self, cache: &PoolCache) -> bool {
        matches!(each_rx!(self, queue => queue.watch()).look(cache), Look::Idle)
    }

    /// See [`RxQueue::is_running`].
    #[inline]
    pub(super) fn is_running(&mut self) -> bool {
        each_rx!(self, queue => queue.is_running())
    }

    /// Sleeps until packets come; see [`RxQueue::sleep`].
    ///
    /// # Errors
    /// As [`RxQueue::sleep`].
    pub fn sleep(&mut self, cache: &mut PoolCache, burst: &mut Burst, timeout: Duration) -> Result<usize> {
        each_rx!(self, queue => queue.sleep(cache, burst, timeout))
    }

    /// Unmasks the queue's vector; see [`RxQueue::rearm`].
    pub fn rearm(&mut self) {
        each_rx!(self, queue => queue.rearm())
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
        each_rx!(self, queue => queue.event_fd())
    }
}

impl AnyTx {
    /// The queue's number in its port.
    pub fn number(&self) -> u16 {
        each_tx!(self, queue => queue.number())
    }

    /// Sends packets; see [`TxQueue::burst`].
    #[inline]
    pub fn burst(&mut self, cache: &mut PoolCache, burst: &mut Burst) -> usize {
        each_tx!(self, queue => queue.burst(cache, burst))
    }

    /// See [`TxQueue::is_current`].
    #[inline]
    pub(super) fn is_current(&self) -> bool {
        each_tx!(self, queue => queue.is_current())
    }

    /// See [`TxQueue::has_room`].
    pub(super) fn has_room(&self, cache: &PoolCache) -> bool {
        each_tx!(self, queue => queue.has_room(cache))
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
        let (rx, tx) = match kind {
            #[cfg(feature = "igbvf")]
            RingKind::Igb { big_endian_loopback_tag } => {
                let quirks = igbvf::Quirks { big_endian_loopback_tag };
                (receivers(rx, quirks, AnyRx::Igb), transmitters(tx, AnyTx::Igb))
            }
            #[cfg(feature = "ixgbevf")]
            RingKind::Ixgbe { udp_without_checksum_flagged } => {
                let quirks = ixgbevf::Quirks { udp_without_checksum_flagged };
                (receivers(rx, quirks, AnyRx::Ixgbe), transmitters(tx, AnyTx::Ixgbe))
            }
            #[cfg(feature = "iavf")]
            RingKind::Avf { flex, rx_tag_in_l2tag2, tx_tag } => {
                let quirks = iavf::AvfQuirks { tag_in_l2tag2: rx_tag_in_l2tag2 };
                let rx =
                    if flex { receivers(rx, quirks, AnyRx::AvfFlex) } else { receivers(rx, quirks, AnyRx::AvfLegacy) };
                let tx = match tx_tag {
                    iavf::TAG_IN_DATA => transmitters(tx, AnyTx::Avf),
                    iavf::TAG_IN_CONTEXT => transmitters(tx, AnyTx::AvfOuterTag),
                    _ => transmitters(tx, AnyTx::AvfNoTag),
                };
                (rx, tx)
            }
        };
        // Queues go before the control, which would wait for them.
        let (Some(rx), Some(tx)) = (rx, tx) else { return Err(short()) };
        Ok(Started { control, rx, tx })
    }
}

/// Queues of their parts; `None` when one could not be made.
fn receivers<F: RxFormat>(parts: Vec<RxParts>, quirks: F::Quirks, any: fn(RxQueue<F>) -> AnyRx) -> Option<Vec<AnyRx>> {
    parts.into_iter().map(|parts| RxQueue::new(parts, quirks).map(any)).collect()
}

fn transmitters<F: TxFormat>(parts: Vec<TxParts>, any: fn(TxQueue<F>) -> AnyTx) -> Option<Vec<AnyTx>> {
    parts.into_iter().map(|parts| TxQueue::new(parts).map(any)).collect()
}
