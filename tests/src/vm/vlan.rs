//! Questions on a VLAN, by hand: the kernels of build machines have no VLAN interfaces.
//!
//! A request goes out with an 802.1Q tag, and the answer must have the same tag. The kernel takes the tag out of a received
//! frame and tells it beside the data ("auxiliary data" of packet(7)).

use etherparse::{Icmpv4Type, PacketBuilder, SlicedPacket, TransportSlice, VlanId};

use super::error::{Error, Result};
use super::net::{Mac, Tap};
use super::traffic::{packet_socket, set_option};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Between two requests; an answer takes milliseconds.
const AGAIN: Duration = Duration::from_millis(500);

const ALL_PROTOCOLS: u16 = libc::ETH_P_ALL as u16;
const ARP: [u8; 2] = [0x08, 0x06];
/// Of Ethernet, for IPv4, with addresses of 6 and 4 bytes.
const ARP_HEAD: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// Bytes of an echo request that fills a frame of a link with an MTU of 1500, tag not counted.
const FULL_ECHO: usize = 1500 - 20 - 8;

impl Tap {
    /// Asks on a VLAN for the MAC address behind `address`, on behalf of `from`, until somebody answers on that VLAN.
    pub fn ask_on_vlan(&self, vlan: u16, from: Ipv4Addr, address: Ipv4Addr, timeout: Duration) -> Result<Mac> {
        let tag = vlan.to_be_bytes();
        let mut request = [&[0xff; 6], &self.mac.0[..], &[0x81, 0], &tag, &ARP, &ARP_HEAD, &[0, 1]].concat();
        request.extend([&self.mac.0[..], &from.octets(), &[0; 6], &address.octets()].concat());
        let answer = |frame: &[u8]| {
            let reply = frame.len() >= 42
                && frame[12..14] == ARP
                && frame[20..22] == [0, 2]
                && frame[28..32] == address.octets();
            reply.then(|| Mac([frame[22], frame[23], frame[24], frame[25], frame[26], frame[27]]))
        };
        let asked = self.namespace().enter(|| ask(self, vlan, &request, answer, timeout))?;
        asked.map_err(Error::during(format!("asking for {address} on VLAN {vlan}")))
    }

    /// Sends echo requests in frames of full size to `address`, whose MAC address is `mac` and which knows that of `from`, on
    /// a VLAN, until one comes back as it was on that VLAN.
    pub fn ping_on_vlan(
        &self,
        vlan: u16,
        from: Ipv4Addr,
        (address, mac): (Ipv4Addr, Mac),
        timeout: Duration,
    ) -> Result<()> {
        let data: Vec<u8> = (0..FULL_ECHO).map(|i| (i * 7) as u8).collect();
        let id = VlanId::try_new(vlan).expect("a VLAN has twelve bits");
        let builder = PacketBuilder::ethernet2(self.mac.0, mac.0).single_vlan(id);
        let builder = builder.ipv4(from.octets(), address.octets(), 64).icmpv4_echo_request(1, 1);
        let mut request = Vec::new();
        builder.write(&mut request, &data).expect("a vector takes any number of bytes");
        let answer = |frame: &[u8]| {
            let transport = SlicedPacket::from_ethernet(frame).ok()?.transport?;
            let TransportSlice::Icmpv4(icmp) = transport else { return None };
            let same = matches!(icmp.icmp_type(), Icmpv4Type::EchoReply(_)) && icmp.payload() == data;
            same.then_some(())
        };
        let asked = self.namespace().enter(|| ask(self, vlan, &request, answer, timeout))?;
        asked.map_err(Error::during(format!("an echo of {FULL_ECHO} bytes from {address} on VLAN {vlan}")))
    }
}

/// Sends a request again and again until a frame on this VLAN is the answer to it.
fn ask<T>(
    tap: &Tap,
    vlan: u16,
    request: &[u8],
    answer: impl Fn(&[u8]) -> Option<T>,
    timeout: Duration,
) -> io::Result<T> {
    let socket = packet_socket(&tap.name, ALL_PROTOCOLS)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    let started = Instant::now();
    while started.elapsed() < timeout {
        // SAFETY: the buffer is `request`, alive and of this length; the kernel copies from it before it returns.
        if unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let sent = Instant::now();
        while sent.elapsed() < AGAIN {
            let mut frame = [0; 2048];
            let Some((len, tag)) = receive(&socket, &mut frame)? else { continue };
            let answer = frame.get(..len).and_then(&answer);
            if let Some(answer) = answer.filter(|_| tag == Some(vlan)) {
                return Ok(answer);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}")))
}

/// A frame's length and the VLAN of its tag; `None` when none came for a moment.
fn receive(socket: &OwnedFd, frame: &mut [u8]) -> io::Result<Option<(usize, Option<u16>)>> {
    let mut data = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
    // Aligned for the header that the kernel writes.
    let mut control = [0u64; 16];
    // SAFETY: all-zero bytes are a valid `msghdr`: it consists of pointers that may be null, and integers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut data, 1);
    (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
    // SAFETY: every pointer of `message` is to a buffer of the length beside it, and all of them outlive the call.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    if len < 0 {
        return match io::Error::last_os_error() {
            error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            error => Err(error),
        };
    }
    let mut tag = None;
    // SAFETY: the kernel has filled `control` and set the length; CMSG_FIRSTHDR returns null or a header inside it, and
    // the data behind a header of this level, type and length is a `tpacket_auxdata`, read unaligned.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if !header.is_null() && ((*header).cmsg_level, (*header).cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
        {
            let data: libc::tpacket_auxdata = libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
            if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                tag = Some(data.tp_vlan_tci & 0xfff);
            }
        }
    }
    Ok(Some((len as usize, tag)))
}
