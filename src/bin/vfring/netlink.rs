//! A PF's word on its VFs, over the kernel's netlink.
//!
//! Owns the socket and the translation. What always holds: the kernel has answered a request before the call that makes
//! it returns, so nothing here waits.
#![forbid(unsafe_code)]

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage, LinkVfInfo, VfInfo, VfInfoLinkState, VfInfoMac,
    VfInfoSpoofCheck, VfInfoTrust, VfInfoTxRate, VfInfoVlan, VfLinkState,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use vfring::{Error, MacAddr, Result};

use crate::settings::{Admin, Link, Setting};

/// The socket.
pub(crate) struct Netlink {
    socket: Socket,
}

/// An interface as netlink knows it.
pub(crate) struct Interface {
    index: u32,
    /// It is up.
    pub(crate) up: bool,
    /// What it says of its VFs, by number.
    pub(crate) vfs: Vec<(u32, Admin)>,
}

impl Netlink {
    pub(crate) fn open() -> Result<Netlink> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Netlink { socket: open().map_err(|error| Error::os("opening a netlink socket", error))? })
    }

    /// Reads an interface with all of its VFs.
    pub(crate) fn interface(&self, name: &str) -> Result<Interface> {
        let mut message = LinkMessage::default();
        message.attributes =
            vec![LinkAttribute::IfName(name.to_owned()), LinkAttribute::ExtMask(vec![LinkExtentMask::Vf])];
        let answer = self.ask(RouteNetlinkMessage::GetLink(message), NLM_F_REQUEST, &format!("reading {name}"))?;
        let link = answer.ok_or_else(|| Error::Config(format!("netlink said nothing of {name}")))?;
        let mut vfs = Vec::new();
        for attribute in &link.attributes {
            let LinkAttribute::VfInfoList(list) = attribute else { continue };
            vfs.extend(list.iter().filter_map(admin));
        }
        Ok(Interface { index: link.header.index, up: link.header.flags.contains(LinkFlags::Up), vfs })
    }

    /// Brings an interface up.
    pub(crate) fn set_up(&self, interface: &Interface, name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_REQUEST | NLM_F_ACK, &format!("ip link set {name} up"))?;
        Ok(())
    }

    /// Makes one setting of a VF.
    pub(crate) fn set_vf(&self, interface: &Interface, name: &str, vf: u32, setting: Setting) -> Result<()> {
        let info = match setting {
            Setting::Mac(mac) => VfInfo::Mac(VfInfoMac::new(vf, &mac.0)),
            Setting::Vlan(id, priority) => VfInfo::Vlan(VfInfoVlan::new(vf, id.into(), priority.into())),
            Setting::SpoofCheck(on) => VfInfo::SpoofCheck(VfInfoSpoofCheck::new(vf, on)),
            Setting::Trust(on) => VfInfo::Trust(VfInfoTrust::new(vf, on)),
            Setting::Rate(rate) => VfInfo::TxRate(VfInfoTxRate::new(vf, rate)),
            Setting::Link(link) => {
                let state = match link {
                    Link::Auto => VfLinkState::Auto,
                    Link::Enable => VfLinkState::Enable,
                    Link::Disable => VfLinkState::Disable,
                };
                VfInfo::LinkState(VfInfoLinkState::new(vf, state))
            }
        };
        let mut message = LinkMessage::default();
        message.header.index = interface.index;
        message.attributes = vec![LinkAttribute::VfInfoList(vec![LinkVfInfo(vec![info])])];
        let what = format!("ip link set {name} vf {vf} {setting}");
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_REQUEST | NLM_F_ACK, &what)?;
        Ok(())
    }

    /// Sends a request and returns the link in its answer; none for an acknowledgement.
    fn ask(&self, request: RouteNetlinkMessage, flags: u16, what: &str) -> Result<Option<LinkMessage>> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let failed = |error: io::Error| {
            let cure = match error.raw_os_error() {
                Some(libc::EPERM) => " (run it as root)",
                Some(libc::EOPNOTSUPP) => " (the PF's driver cannot)",
                _ => "",
            };
            Error::os(format!("{what}{cure}"), error)
        };
        self.socket.send(&bytes, 0).map_err(failed)?;
        // The kernel answers such a request before it returns from the call.
        let (answer, _) = self.socket.recv_from_full().map_err(failed)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|error| Error::Parse(format!("{what}: netlink's answer cannot be read: {error}")))?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(failed(error.to_io())),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(link)),
            _ => Ok(None),
        }
    }
}

/// What a PF says of one VF, with its number.
fn admin(LinkVfInfo(list): &LinkVfInfo) -> Option<(u32, Admin)> {
    let (mut admin, mut number) = (Admin::default(), None);
    for info in list {
        match info {
            VfInfo::Mac(mac) => {
                number = Some(mac.vf_id);
                admin.mac = mac.mac[..6].try_into().ok().map(MacAddr);
            }
            VfInfo::Vlan(vlan) => admin.vlan = Some((vlan.vlan_id as u16, vlan.qos as u8)),
            VfInfo::SpoofCheck(check) => admin.spoof_check = Some(check.enabled),
            VfInfo::Trust(trust) => admin.trust = Some(trust.enabled),
            VfInfo::TxRate(rate) => admin.rate = Some(rate.rate),
            VfInfo::LinkState(link) => {
                admin.link = match link.state {
                    VfLinkState::Auto => Some(Link::Auto),
                    VfLinkState::Enable => Some(Link::Enable),
                    VfLinkState::Disable => Some(Link::Disable),
                    _ => None,
                }
            }
            _ => {}
        }
    }
    number.map(|number| (number, admin))
}
