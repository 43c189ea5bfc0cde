//! Forwarding between queues of any family: the joined way where both are of one, and the ordinary way for all else.
//!
//! Used by network functions that hold no packets. What always holds: frames leave in the order in which they came, each once;
//! each is shown to the program before it leaves, and again where the program panicked over it or another of the same burst.
#![forbid(unsafe_code)]

use super::any::{AnyRx, AnyTx};
use crate::error::{Error, Result};
use crate::mem::{Burst, DEFAULT_BURST, PoolCache};
use crate::ring::{Arrivals, CHUNK, Forwarded, Frame, Gallery, Judge, Verdict, forward};

/// Takes frames from a receive queue to a transmit queue, for network functions that never hold packets: bridges, routers,
/// load balancers. One for each pair of queues.
///
/// One call does what a receive burst, a loop over its packets and a transmit burst do, for fewer instructions: buffers move
/// from receive slots to transmit slots, and those that the device has sent take their place, without handles in between.
///
/// ```
/// use vfring::{Forward, Mempool, Port, PortConfig, Started, Verdict};
///
/// # fn main() -> vfring::Result<()> {
/// let port = Port::open(&"sim:igbvf?wire=gen".parse()?, PortConfig::new())?;
/// let pool = Mempool::builder().buffers(4096).on(&[&port])?;
/// let Started { control, mut rx, mut tx } = port.start(&pool)?;
/// let service = control.spawn()?;
/// let (mut cache, mut forward) = (pool.cache(), Forward::new());
/// let mut sent = 0;
/// while sent < 1000 {
///     let done = forward.burst(&mut rx[0], &mut tx[0], &mut cache, |frame| match frame.first_chunk_mut::<12>() {
///         Some(macs) => {
///             macs.rotate_left(6); // destination and source change places
///             Verdict::Send
///         }
///         None => Verdict::Drop,
///     });
///     sent += done.sent;
/// }
/// drop((rx, tx));
/// service.stop(std::time::Duration::from_secs(1))?;
/// # Ok(())
/// # }
/// ```
pub struct Forward {
    gallery: Gallery,
    /// Packets of the ordinary way that have come and are not judged.
    arrived: Burst,
    /// Those that are judged, and did not fit the transmit ring.
    held: Burst,
}

impl Default for Forward {
    fn default() -> Self {
        Self::new()
    }
}

impl Forward {
    /// For up to [`DEFAULT_BURST`] frames a call.
    pub fn new() -> Forward {
        Self::make(DEFAULT_BURST, Burst::new(), Burst::new())
    }

    /// For up to `limit` frames a call, 1 to 64.
    ///
    /// # Errors
    /// [`Error::Config`] when the limit is out of range.
    pub fn with_limit(limit: usize) -> Result<Forward> {
        if !(1..=CHUNK).contains(&limit) {
            return Err(Error::Config(format!("forwarding {limit} frames a call: 1 to {CHUNK} are possible")));
        }
        let burst = || Burst::with_limit(limit);
        Ok(Self::make(limit, burst()?, burst()?))
    }

    fn make(limit: usize, arrived: Burst, held: Burst) -> Forward {
        Forward { gallery: Gallery::new(limit), arrived, held }
    }

    /// Most frames of a call.
    pub fn limit(&self) -> usize {
        self.gallery.limit()
    }

    /// Shows frames that `rx` has received to `each`, in order, and sends those that it wants sent on `tx`; buffers that the
    /// device is done with go to `cache`.
    ///
    /// Frames are taken as far as they fit the transmit ring. The others stay in the receive ring, and when that is full the
    /// NIC drops what comes and counts it; the same while the port that sends is reset or stopped. A frame over several buffers
    /// that has been judged and does not fit waits in here for the next call. All else is as with the bursts of the queues
    /// ([`AnyRx::burst`], [`AnyTx::burst`]): frames of less than 60 bytes are padded, those that cannot be sent are freed
    /// and counted. Nothing is received when the cache is not of both queues' own pool, which is counted.
    ///
    /// When `each` panics, what it has not judged, and what it has judged in the same burst, is shown again by the next call.
    #[inline]
    pub fn burst(
        &mut self,
        rx: &mut AnyRx,
        tx: &mut AnyTx,
        cache: &mut PoolCache,
        mut each: impl FnMut(&mut Frame<'_>) -> Verdict,
    ) -> Forwarded {
        let mut judge = |arrivals: Arrivals<'_>| arrivals.judge(&mut each);
        if self.is_clear() && tx.is_current() {
            if rx.is_idle(cache) {
                return Forwarded::default();
            }
            let done = joined(rx, tx, cache, &mut self.gallery, &mut judge);
            if done.received > 0 {
                return done;
            }
        }
        self.ordinary(rx, tx, cache, &mut judge)
    }

    /// Does nothing wait in here?
    #[inline(always)]
    fn is_clear(&self) -> bool {
        self.held.is_empty() && self.arrived.is_empty()
    }

    /// What is not plain, what an earlier call left, and a port whose state has changed: by packets, as a program would do it.
    #[inline(never)]
    fn ordinary(&mut self, rx: &mut AnyRx, tx: &mut AnyTx, cache: &mut PoolCache, judge: &mut Judge<'_>) -> Forwarded {
        // Each looks at its port's state whatever the other says: a reset waits for that.
        let receives = rx.is_running();
        let mut sent = tx.burst(cache, &mut self.held);
        if !receives || !self.held.is_empty() || !tx.has_room(cache) {
            return Forwarded { received: 0, sent };
        }
        if self.arrived.is_empty() && rx.burst(cache, &mut self.arrived) == 0 {
            return Forwarded { received: 0, sent };
        }
        // All are judged before any is moved.
        let dropped = judge(Arrivals::of(&mut self.arrived, &mut self.gallery));
        let received = self.arrived.len();
        while let Some(packet) = self.arrived.pop() {
            if dropped.wrapping_shr(self.arrived.len() as u32) & 1 == 0 {
                // As large as `arrived`, so this cannot fail; if it did, the packet would drop, as those do that are not to be sent.
                let _ = self.held.push(packet);
            }
        }
        self.held.as_mut_slice().reverse();
        sent += tx.burst(cache, &mut self.held);
        Forwarded { received, sent }
    }
}

/// The joined way, where there is one.
#[inline(never)]
fn joined(
    rx: &mut AnyRx,
    tx: &mut AnyTx,
    cache: &mut PoolCache,
    gallery: &mut Gallery,
    judge: &mut Judge<'_>,
) -> Forwarded {
    match (rx, tx) {
        #[cfg(feature = "igbvf")]
        (AnyRx::Igb(rx), AnyTx::Igb(tx)) => forward(rx, tx, cache, gallery, judge),
        #[cfg(feature = "ixgbevf")]
        (AnyRx::Ixgbe(rx), AnyTx::Ixgbe(tx)) => forward(rx, tx, cache, gallery, judge),
        #[cfg(feature = "iavf")]
        (AnyRx::AvfLegacy(rx), AnyTx::Avf(tx)) => forward(rx, tx, cache, gallery, judge),
        #[cfg(feature = "iavf")]
        (AnyRx::AvfLegacy(rx), AnyTx::AvfOuterTag(tx)) => forward(rx, tx, cache, gallery, judge),
        #[cfg(feature = "iavf")]
        (AnyRx::AvfLegacy(rx), AnyTx::AvfNoTag(tx)) => forward(rx, tx, cache, gallery, judge),
        #[cfg(feature = "iavf")]
        (AnyRx::AvfFlex(rx), AnyTx::Avf(tx)) => forward(rx, tx, cache, gallery, judge),
        #[cfg(feature = "iavf")]
        (AnyRx::AvfFlex(rx), AnyTx::AvfOuterTag(tx)) => forward(rx, tx, cache, gallery, judge),
        #[cfg(feature = "iavf")]
        (AnyRx::AvfFlex(rx), AnyTx::AvfNoTag(tx)) => forward(rx, tx, cache, gallery, judge),
        #[allow(unreachable_patterns, reason = "with one driver alone, all queues are of one family")]
        _ => Forwarded::default(),
    }
}

impl std::fmt::Debug for Forward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Forward({} frames a call, {} wait)", self.limit(), self.arrived.len() + self.held.len())
    }
}
