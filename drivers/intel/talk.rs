//! The mailbox against a PF that says anything at any moment, for fuzzing and for the corpora in tests.
//!
//! Owns a function that has a mailbox and nothing else; what its registers read comes from bytes, and its clock moves when
//! it is looked at. What always holds, or [`talk`] panics: the buffer is touched only while it is the VF's, every call ends
//! within [`PATIENCE`], an answer is one to what was asked, an address is one that a station may have, and an error is one
//! line.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use super::mailbox::{Mailbox, Protocol, V2pMailbox};
use super::request::{ACK, ID_MASK, NACK, Request};
use crate::addr::{Iova, MacAddr};
use crate::error::{Error, Result};
use crate::mem::HugeRegion;
use crate::mmio::{ALL_ONES, Bus, Doorbell, PciId, Reg};

/// More than a call may take: a handshake of a few attempts, each of which may wait a second for the buffer, for the PF to
/// read and for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a register access takes.
const ACCESS: Duration = Duration::from_micros(1);

struct AnyPf<'a> {
    protocol: Protocol,
    /// What is read next: a byte for the control register, 0xFF for a device that is gone; four for a word of the buffer.
    bytes: &'a [u8],
    time: Duration,
    /// The buffer is the VF's.
    owned: bool,
}

impl AnyPf<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (now, rest) = self.bytes.split_at(N.min(self.bytes.len()));
        self.bytes = rest;
        std::array::from_fn(|i| now.get(i).copied().unwrap_or(0))
    }
}

impl Bus for AnyPf<'_> {
    crate::mmio::nothing_behind!();

    fn name(&self) -> &str {
        "0000:01:10.0"
    }

    fn id(&self) -> PciId {
        PciId { vendor: 0x8086, device: 0 }
    }

    fn bar_len(&self) -> u32 {
        0x4000
    }

    fn read32(&mut self, register: Reg) -> u32 {
        self.time += ACCESS;
        if register == self.protocol.control {
            let [bits] = self.take();
            self.owned |= V2pMailbox::from_bits_retain(bits.into()).contains(V2pMailbox::VFU);
            return if bits == 0xFF { ALL_ONES } else { bits.into() };
        }
        assert!(self.owned, "the buffer is read and not the VF's");
        u32::from_le_bytes(self.take())
    }

    fn write32(&mut self, register: Reg, value: u32) {
        self.time += ACCESS;
        match register == self.protocol.control {
            // Whatever is written without it gives the buffer back.
            true => self.owned &= V2pMailbox::from_bits_retain(value).contains(V2pMailbox::VFU),
            false => assert!(self.owned, "the buffer is written and not the VF's"),
        }
    }

    fn doorbell(&mut self, _: Reg) -> Result<Doorbell> {
        Err(Error::gone(self.name()))
    }

    fn map_dma(&mut self, _: &Arc<HugeRegion>) -> Result<Iova> {
        Err(Error::gone(self.name()))
    }

    fn unmap_dma(&mut self, _: &Arc<HugeRegion>) -> Result<()> {
        Err(Error::gone(self.name()))
    }

    fn reset_function(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn now(&self) -> Duration {
        self.time
    }

    fn pause(&mut self, time: Duration) {
        self.time += time;
    }
}

/// A step of a conversation, which must end soon and in one line.
fn step<'a, T>(pf: &mut AnyPf<'a>, call: impl FnOnce(&mut AnyPf<'a>) -> Result<T>) -> Option<T> {
    let began = pf.time;
    let result = call(pf);
    assert!(pf.time - began < PATIENCE, "a call took {:?}", pf.time - began);
    result.map_err(|error| assert!(!error.to_string().contains('\n'), "an error is one line: {error}")).ok()
}

/// Shakes hands, asks and listens, over and over until the bytes are used up.
pub(crate) fn talk(protocol: Protocol, bytes: &[u8]) {
    let mut pf = AnyPf { protocol, bytes, time: Duration::ZERO, owned: false };
    let mut mailbox = Mailbox::new(protocol);
    let requests = [Request::set_mac(MacAddr([2, 0, 0, 0, 0, 1])), Request::vlan(5, true), Request::max_frame(1522)];
    loop {
        if let Some(greeting) = step(&mut pf, |pf| mailbox.handshake(pf)) {
            assert!(greeting.mac.is_none_or(|mac| mac.is_valid_station()), "{greeting:?}");
        }
        for request in &requests {
            if let Some([word0, _]) = step(&mut pf, |pf| mailbox.request::<_, 2>(pf, request)) {
                let asked = request.words()[0];
                assert!((word0 ^ asked) & ID_MASK == 0 && word0 & (ACK | NACK) != 0, "{word0:#x} answers {asked:#x}");
            }
            step(&mut pf, |pf| mailbox.service(pf));
        }
        if pf.bytes.is_empty() {
            return;
        }
    }
}
