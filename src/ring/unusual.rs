//! Packets that are not plain, on their way into a transmit ring: chained, of other pools, short, with offloads, or not to be
//! sent at all.
//!
//! The slow path of `tx`. What always holds: a packet is checked whole before its first descriptor is written, so that
//! it is sent, stays in the burst, or is dropped and counted by reason, never something in between.

use super::format::TxFormat;
use super::tx::{MIN_FRAME, NO_BUFFER, TxQueue, attached};
use crate::mem::{Burst, L4, POOL_MASK, PacketBuf, TxInfo};

/// What became of one packet on the slow path.
pub(super) enum Fate {
    Sent,
    Full,
    Dropped,
}

impl<F: TxFormat> TxQueue<F> {
    /// Any packet: chained, of another pool, short, with offloads, or not to be sent at all. When it is dropped, its
    /// handle has been taken out of the burst.
    #[cold]
    pub(super) fn send_any(&mut self, burst: &mut Burst, at: usize) -> Fate {
        let info = if self.parts.offloads { burst.tx_info(at) } else { TxInfo::default() };
        let Some(packet) = burst.as_mut_slice().get_mut(at) else { return Fate::Full };
        let reason = match self.plan(packet, &info) {
            Ok(plan) => return self.write_any(packet, &info, plan),
            Err(reason) => reason,
        };
        let counts = &self.parts.counts;
        match reason {
            Refusal::Full => return Fate::Full,
            Refusal::Empty => counts.empty.add(1),
            Refusal::TooLong => counts.too_long.add(1),
            Refusal::TooManySegments => counts.too_many_segments.add(1),
            Refusal::ForeignPool => counts.foreign_pool.add(1),
            Refusal::BadOffload => counts.bad_offload.add(1),
        }
        // SAFETY: a move out of the burst; `burst` forgets this place (it is among the `taken` packets).
        drop(unsafe { std::ptr::read(packet) });
        Fate::Dropped
    }

    /// Checks a packet and pads it to the shortest frame.
    fn plan(&self, packet: &mut PacketBuf, info: &TxInfo) -> Result<Plan, Refusal> {
        let (_, _, _, tag) = packet.parts();
        let delta = attached(&self.parts.pools, tag).ok_or(Refusal::ForeignPool)?.iova_delta;
        let (mut segments, mut total) = (1u32, packet.len());
        let (mut shortest, mut longest) = (total, total);
        for link in packet.links() {
            let len = usize::from(link.len);
            segments += 1;
            total += len;
            (shortest, longest) = (shortest.min(len), longest.max(len));
        }
        if shortest == 0 {
            return Err(Refusal::Empty);
        }
        let tso = info.tso_mss != 0;
        let max_frame = self.parts.max_frame as usize;
        // A frame that the hardware cuts into segments may be longer than one; 18 bits of length are the field's.
        let limit = if tso { 0x3_ffff } else { max_frame };
        if total > limit || longest > F::MAX_SEGMENT as usize {
            return Err(Refusal::TooLong);
        }
        if total < headers(info) || tso && headers(info) - 1 + usize::from(info.tso_mss) > max_frame {
            return Err(Refusal::BadOffload);
        }
        let most = u32::from(self.parts.max_segments);
        let cut = || {
            let lens = std::iter::once(packet.len()).chain(packet.links().map(|link| usize::from(link.len)));
            segments_per_cut(lens, headers(info) - 1, info.tso_mss.into())
        };
        let too_many = segments > most && !(F::SEGMENTS_PER_CUT && tso && cut() <= most);
        // Up to `mark_step` - 1 descriptors may wait without a report, for ever if nothing follows: what does not fit
        // beside them and a context would never be sent.
        if too_many || segments + self.mark_step > self.size() - 1 {
            return Err(Refusal::TooManySegments);
        }
        // Every buffer holds that much.
        if total < MIN_FRAME as usize && !tso && packet.pad(MIN_FRAME as usize - total) {
            total = MIN_FRAME as usize;
        }
        let context = if info.is_plain() { None } else { Some(self.find_context(info, total as u32)?) };
        let descriptors = segments + u32::from(matches!(context, Some((_, Some(_)))));
        if descriptors > self.size() - 1 - self.in_flight {
            return Err(Refusal::Full);
        }
        Ok(Plan { delta, total: total as u32, context })
    }

    /// The context slot to use, and the descriptor that loads it if it is not loaded with this already.
    fn find_context(&self, info: &TxInfo, total: u32) -> Result<(u8, Option<[u64; 2]>), Refusal> {
        let slots = F::CONTEXTS.clamp(1, self.contexts.len());
        let loaded = self.contexts.iter().take(slots).position(|c| c.as_ref() == Some(info));
        if let Some(slot) = loaded.filter(|_| F::CONTEXTS > 0) {
            return Ok((slot as u8, None));
        }
        let slot = self.next_context % slots as u8;
        let words = F::context(info, total, slot).ok_or(Refusal::BadOffload)?;
        Ok((slot, F::needs_context(info).then_some(words)))
    }

    /// Writes a packet that `plan` has passed.
    fn write_any(&mut self, packet: &PacketBuf, info: &TxInfo, plan: Plan) -> Fate {
        let mut context = 0;
        if let Some((slot, load)) = plan.context {
            context = slot;
            if let Some(words) = load {
                self.put(words, NO_BUFFER, self.tag);
                self.odd += 1;
                if let Some(known) = self.contexts.get_mut(slot as usize) {
                    *known = Some(*info);
                }
                self.next_context = slot.wrapping_add(1);
            }
        }
        let (addr, index, len, tag) = packet.parts();
        let owner = tag & POOL_MASK;
        let mut links = packet.links();
        let mut piece = Some((addr, index, u32::from(len)));
        while let Some((addr, index, len)) = piece {
            piece = links.next().and_then(|link| {
                let pool = &attached(&self.parts.pools, owner)?.pool;
                let (start, _) = pool.buffer_bounds(link.index);
                Some((start + link.offset as usize, link.index, u32::from(link.len)))
            });
            let iova = (addr as u64).wrapping_add(plan.delta);
            let last = piece.is_none();
            let words = if plan.context.is_some() {
                F::data_offload(iova, len, plan.total, last, false, info, context)
            } else {
                F::data(iova, len, plan.total, last, false)
            };
            let position = self.next;
            self.put(words, index, owner);
            if owner != self.tag {
                self.odd += 1;
            }
            if last && self.unmarked >= self.mark_step {
                self.mark(position);
            }
        }
        Fate::Sent
    }
}

/// The bytes that a frame must have for what is asked of the hardware: headers where it is told to write, and, to be
/// segmented, a payload.
fn headers(info: &TxInfo) -> usize {
    let ip = usize::from(info.l2_len) + usize::from(info.l3_len);
    match info.l4 {
        _ if info.tso_mss != 0 => ip + usize::from(info.l4_len) + 1,
        L4::Tcp => ip + 20,
        L4::Udp => ip + 8,
        L4::Sctp => ip + 12,
        L4::None if info.ip_checksum => ip,
        L4::None => 0,
    }
}

/// Most buffers that hold the headers and the payload of one of the frames that TSO cuts: those with a part of the headers,
/// and those with a part of its payload. One with both counts twice.
pub(super) fn segments_per_cut(lens: impl Iterator<Item = usize>, mut headers: usize, mss: usize) -> u32 {
    let (mut with_headers, mut with_payload, mut room, mut worst) = (0, 0, mss, 0);
    for mut len in lens {
        if headers > 0 {
            with_headers += 1;
            let here = len.min(headers);
            headers -= here;
            len -= here;
        }
        if len == 0 {
            continue;
        }
        with_payload += 1;
        worst = worst.max(with_headers + with_payload);
        if len < room {
            room -= len;
        } else {
            // Frames that lie in this buffer alone are no worse.
            let over = (len - room).checked_rem(mss).unwrap_or(0);
            (with_payload, room) = (u32::from(over > 0), mss - over);
        }
    }
    worst
}

/// A packet that can be sent.
struct Plan {
    delta: u64,
    total: u32,
    context: Option<(u8, Option<[u64; 2]>)>,
}

/// Why a packet is not sent.
enum Refusal {
    /// Not now.
    Full,
    Empty,
    TooLong,
    TooManySegments,
    ForeignPool,
    BadOffload,
}
