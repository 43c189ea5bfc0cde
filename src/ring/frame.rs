//! Frames as a forwarder sees them: in the buffers of a receive ring, between arrival and departure.
//!
//! The joined way of `join` and the ordinary way over packets both show frames to the program as [`Arrivals`], at most
//! [`CHUNK`] at a time, and hear which are not to be sent. What always holds: while there is a [`Frame`], nobody else uses its
//! bytes, and it does not outlive the call that shows it.

use std::ops::{Deref, DerefMut};

use crate::mem::{Burst, PackedInfo, RxInfo};

/// Most frames that are shown at a time: one bit each.
pub(crate) const CHUNK: usize = 64;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Send,
    /// It is not; its buffer goes home.
    Drop,
}

/// What a call has done, in frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Forwarded {
    /// Received and judged.
    pub received: usize,
    /// Given to the device that sends.
    pub sent: usize,
}

/// A frame on its way through.
///
/// Derefs to its bytes in place: all of a frame in one buffer, the first buffer's of a longer one.
pub struct Frame<'a> {
    bytes: &'a mut [u8],
    /// Bytes in further buffers.
    more: u32,
    info: Option<&'a PackedInfo>,
}

impl Frame<'_> {
    /// Bytes of the whole frame. (`len()` of the slice is the first buffer's.)
    pub fn total_len(&self) -> usize {
        self.bytes.len() + self.more as usize
    }

    /// What the NIC found out about it; the default when the receiving port was opened without metadata.
    #[inline]
    pub fn info(&self) -> RxInfo {
        self.info.copied().unwrap_or_default().unpack()
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl DerefMut for Frame<'_> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

impl std::fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({} bytes)", self.total_len())
    }
}

/// Where a frame's first buffer has it, as the loops of `join` write it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct View {
    pub(super) addr: usize,
    pub(super) more: u32,
    pub(super) len: u32,
}

/// Places for what is shown at a time.
#[repr(align(128))] // lines of its own, see `mem::lines`
pub(crate) struct Gallery {
    pub(super) views: [View; CHUNK],
    pub(super) infos: [PackedInfo; CHUNK],
    /// Most frames of a call, at most [`CHUNK`].
    pub(super) limit: usize,
    /// The metadata is that of the frames.
    pub(super) informed: bool,
}

impl Gallery {
    /// For up to `limit` frames a call.
    pub(crate) fn new(limit: usize) -> Gallery {
        let limit = limit.min(CHUNK);
        Gallery { views: [View::default(); CHUNK], infos: [PackedInfo::default(); CHUNK], limit, informed: false }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}

/// Frames to be judged.
pub(crate) struct Arrivals<'a> {
    gallery: &'a Gallery,
    count: usize,
}

impl<'a> Arrivals<'a> {
    /// The first `count` frames of the gallery.
    ///
    /// # Safety
    /// So many views were written, whose bytes are mapped, and nobody but the caller uses them during `'a`.
    #[inline(always)]
    pub(super) unsafe fn new(gallery: &'a Gallery, count: usize) -> Arrivals<'a> {
        Arrivals { gallery, count }
    }

    /// The packets of a burst, at most [`CHUNK`].
    pub(crate) fn of(burst: &'a mut Burst, gallery: &'a mut Gallery) -> Arrivals<'a> {
        let places = gallery.views.iter_mut().zip(gallery.infos.iter_mut());
        for ((i, packet), (view, info)) in burst.iter().enumerate().zip(places) {
            let (addr, _, len, _) = packet.parts();
            *view = View { addr, more: (packet.total_len() - usize::from(len)) as u32, len: len.into() };
            *info = burst.packed_info(i);
        }
        gallery.informed = true;
        // SAFETY: the bytes of packets, which are borrowed for as long as this lives.
        unsafe { Arrivals::new(gallery, burst.len().min(CHUNK)) }
    }

    /// Shows each frame to `each`; returns those that are not to be sent, the first one in the lowest bit.
    #[inline(always)]
    pub(crate) fn judge(self, each: &mut impl FnMut(&mut Frame<'_>) -> Verdict) -> u64 {
        let mut dropped = 0;
        let Gallery { views, infos, informed, .. } = self.gallery;
        let infos: &[PackedInfo] = if *informed { infos } else { &[] };
        for (i, view) in views.get(..self.count).unwrap_or(&[]).iter().enumerate() {
            let data = std::ptr::with_exposed_provenance_mut::<u8>(view.addr);
            // SAFETY: the bytes are ours alone while this lives (contract of `new`), and this is their only borrow; the provenance
            // of packet memory was exposed when it was made, and the kernel has zeroed it.
            let bytes = unsafe { std::slice::from_raw_parts_mut(data, view.len as usize) };
            let mut frame = Frame { bytes, more: view.more, info: infos.get(i) };
            if each(&mut frame) == Verdict::Drop {
                dropped |= 1u64.wrapping_shl(i as u32);
            }
        }
        dropped
    }
}
