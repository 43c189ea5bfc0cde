//! The PF behind the VF: when it looks at messages, whom it answers, and what it grants (fact sheet iavf 4.1 to 4.4, 6).
//!
//! It answers as an i40e or as an ice PF does, which differ in capabilities, in status codes and in whom they ignore. Length
//! first, then permission, then the request itself. What a driver should never have sent is a violation besides.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::time::Duration;

use super::super::env::Env;
use super::super::fault::Fault;
use super::super::model::Model;
use super::super::rng::Rng;
use super::adminq::{Message, Request};
use super::virtchnl::{self, ERR_NOT_IMPLEMENTED, ERR_NOT_SUPPORTED, ERR_PARAM, Payload};
use super::{AvfPart, AvfVf, QUEUES_MAX, RESET_TIME, filters, rss};
use crate::addr::MacAddr;

/// How long the PF takes to look at a message, and then to answer: up to so much longer. Drivers poll every millisecond and
/// give up after 0.1 s at the earliest (iavf 4.1).
const PF_LATENCY: Duration = Duration::from_micros(20);
const PF_LATENCY_MORE_US: u64 = 200;
/// A request that is older than this was given up by the driver, which may send another.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long after a reply the link event follows.
const EVENT_DELAY: Duration = Duration::from_micros(20);

/// The PF's view of one VF, besides its queues and filters.
pub(super) struct Pf {
    /// Minor version agreed; kept over a reset (iavf 4.4).
    minor: u32,
    /// Capabilities, once GET_VF_RESOURCES was answered.
    granted: Option<u32>,
    /// The VF asked for link speeds in Mb/s.
    mbps: bool,
    /// Queue pairs granted.
    pub(super) queues: usize,
    /// The id that the VF must use in its messages.
    pub(super) vsi: u16,
    /// An i40e PF marked the VF as malicious: it hears nothing.
    pub(super) disabled: bool,
    /// Messages that the PF has not looked at.
    inbox: VecDeque<(Duration, Request)>,
    /// The last request, and when it came.
    last: (u32, Duration),
}

/// What becomes of a request.
pub(super) enum Answer {
    /// Status 0 with this payload.
    Reply(Vec<u8>),
    /// The PF does not want to.
    Refuse(i32),
    /// The driver should not have asked: this status, and a violation.
    Wrong(i32, String),
    /// No answer.
    Silence,
}

impl Answer {
    /// Status 0 without a payload.
    pub(super) fn done() -> Self {
        Answer::Reply(Vec::new())
    }
}

impl Pf {
    pub(super) fn new(queues: usize) -> Self {
        Pf {
            minor: 0,
            granted: None,
            mbps: false,
            queues,
            vsi: 0,
            disabled: false,
            inbox: VecDeque::new(),
            last: (0, Duration::ZERO),
        }
    }

    /// The VF was reset: everything that it was granted is lost. Its VSI is another one.
    pub(super) fn forget(&mut self, rng: &mut Rng) {
        let vsi = 0x200 + rng.below(0x100) as u16;
        *self = Pf { minor: self.minor, vsi, ..Pf::new(self.queues) };
    }

    /// The VF was granted a capability.
    pub(super) fn has(&self, cap: u32) -> bool {
        self.granted.is_some_and(|granted| granted & cap != 0)
    }

    /// Received frames are spread over the queues.
    pub(super) fn spreads(&self) -> bool {
        self.has(virtchnl::CAP_RSS_PF | virtchnl::CAP_RSS_REG)
    }
}

impl AvfVf {
    /// Moves messages both ways; true when anything happened.
    pub(super) fn talk(&mut self, env: &mut Env) -> bool {
        let mut busy = false;
        loop {
            match self.adminq.take(env) {
                Ok(None) => break,
                Ok(Some(request)) => self.arrived(request, env),
                Err(what) => {
                    self.adminq.stop_atq();
                    self.violate(env, &what);
                }
            }
            busy = true;
        }
        while self.pf.inbox.front().is_some_and(|(due, _)| *due <= env.now) {
            let Some((_, request)) = self.pf.inbox.pop_front() else { break };
            busy = true;
            self.serve(request, env);
            if self.reset.is_some() {
                return true;
            }
        }
        match self.adminq.deliver(env, &self.faults) {
            Ok(0) => {}
            Ok(_) => {
                busy = true;
                self.irq.adminq_event();
            }
            Err(what) => {
                self.adminq.stop_arq();
                self.violate(env, &what);
            }
        }
        busy
    }

    fn arrived(&mut self, request: Request, env: &mut Env) {
        let owed = !self.pf.inbox.is_empty() || self.adminq.owes_reply();
        let (before, at) = self.pf.last;
        // Drivers that pipeline their set-up exist; ours keeps one request outstanding.
        if env.strict && owed && request.opcode != virtchnl::RESET_VF && env.now < at + PATIENCE {
            self.violate(env, &format!("opcode {} sent before the reply to {before} came", request.opcode));
        }
        self.pf.last = (request.opcode, env.now);
        self.pf.inbox.push_back((env.now + PF_LATENCY, request));
    }

    fn serve(&mut self, request: Request, env: &mut Env) {
        if self.pf.disabled {
            return;
        }
        let nack = u16::try_from(request.opcode).is_ok_and(|op| self.faults.has(Fault::NackRequest(op)));
        let answer = if nack { Answer::Refuse(ERR_PARAM) } else { self.answer(&request, env) };
        self.respond(request.opcode, answer, env);
    }

    fn respond(&mut self, opcode: u32, answer: Answer, env: &mut Env) {
        let (status, payload) = match answer {
            Answer::Reply(payload) => (0, payload),
            Answer::Refuse(status) => (status, Vec::new()),
            Answer::Wrong(status, what) => {
                self.violate(env, &format!("opcode {opcode}: {what}"));
                (status, Vec::new())
            }
            Answer::Silence => return,
        };
        if self.faults.has(Fault::LoseReply) {
            return;
        }
        let in_tree_i40e = self.options.in_tree && !self.options.part.is_ice();
        let status = if in_tree_i40e { virtchnl::in_tree(status) } else { status };
        let more = Duration::from_micros(env.rng.below(PF_LATENCY_MORE_US));
        let due = env.now + PF_LATENCY + more + self.faults.reply_delay();
        if let Some(stray) = self.faults.stray_reply() {
            self.adminq.post(Message { due, opcode: stray, status: 0, payload: vec![0xa5; 16], reply: false });
        }
        if let Some(code) = self.faults.stray_event() {
            self.post_event(due, virtchnl::event(code, u32::MAX, true, 0));
        }
        if opcode == virtchnl::VERSION && self.faults.has(Fault::StaleEvents) {
            self.post_event(due, reset_impending());
        }
        let payload = self.faults.mangle(payload);
        self.adminq.post(Message { due, opcode, status, payload, reply: true });
        let linked = [virtchnl::GET_VF_RESOURCES, virtchnl::ENABLE_QUEUES, virtchnl::ENABLE_QUEUES_V2];
        if status == 0 && linked.contains(&opcode) {
            self.post_link(due + EVENT_DELAY - env.now, env);
        }
    }

    fn post_event(&mut self, due: Duration, payload: Vec<u8>) {
        self.adminq.post(Message { due, opcode: virtchnl::EVENT, status: 0, payload, reply: false });
    }

    /// Tells the VF about its link, if it was granted anything yet.
    pub(super) fn post_link(&mut self, delay: Duration, env: &Env) {
        if self.pf.granted.is_none() || self.pf.disabled {
            return;
        }
        let (mbps, bit) = self.options.part.speed();
        let speed = match () {
            _ if !self.link => 0,
            _ if self.pf.mbps => mbps,
            _ => bit,
        };
        let payload = virtchnl::event(virtchnl::EVENT_LINK_CHANGE, speed, self.link, 0);
        self.post_event(env.now + delay, payload);
    }

    /// RESET_IMPENDING, at once: the reset follows.
    pub(super) fn warn(&mut self, env: &mut Env) {
        if self.reset.is_some() || !self.bus_master || self.pf.granted.is_none() {
            return;
        }
        self.post_event(Duration::ZERO, reset_impending());
        if let Ok(1..) = self.adminq.deliver(env, &self.faults) {
            self.irq.adminq_event();
        }
    }

    fn answer(&mut self, request: &Request, env: &mut Env) -> Answer {
        let (opcode, p) = (request.opcode, Payload(&request.payload));
        let ice = self.options.part.is_ice();
        match virtchnl::length_fits(opcode, p.0, self.pf.minor) {
            Some(true) => {}
            None => return Answer::Wrong(ERR_PARAM, "unknown to the PF".into()),
            Some(false) => {
                return Answer::Wrong(ERR_PARAM, format!("a message of {} bytes does not fit its counts", p.0.len()));
            }
        }
        match opcode {
            virtchnl::VERSION => return self.version(p),
            virtchnl::RESET_VF => {
                if !self.faults.has(Fault::ResetIgnored) {
                    self.begin_reset(Some(RESET_TIME), env);
                }
                return Answer::Silence;
            }
            virtchnl::GET_VF_RESOURCES => return self.resources(p, env),
            _ => {}
        }
        if self.pf.granted.is_none() {
            let code = if ice { ERR_NOT_SUPPORTED } else { ERR_PARAM };
            return Answer::Wrong(code, "sent before GET_VF_RESOURCES".into());
        }
        if ice && !virtchnl::allowed_by_ice(opcode, self.pf.granted) {
            return Answer::Wrong(ERR_NOT_SUPPORTED, "not granted".into());
        }
        if !ice && virtchnl::known_to_i40e(opcode) {
            return Answer::Wrong(ERR_NOT_IMPLEMENTED, "not served by an i40e PF".into());
        }
        if let Some(vsi) = vsi_of(opcode, p).filter(|vsi| *vsi != self.pf.vsi) {
            return Answer::Wrong(ERR_PARAM, format!("VSI {vsi}, and the VF's is {}", self.pf.vsi));
        }
        // Whatever it is, frames may take another way afterwards.
        self.generation += 1;
        self.granted_request(opcode, p, env)
    }

    fn granted_request(&mut self, opcode: u32, p: Payload<'_>, env: &mut Env) -> Answer {
        use virtchnl::*;
        let options = &self.options;
        match opcode {
            CONFIG_VSI_QUEUES => self.configure_queues(p, env),
            CONFIG_IRQ_MAP => self.map_vectors(p),
            MAP_QUEUE_VECTOR => self.map_queue_vectors(p),
            ENABLE_QUEUES | DISABLE_QUEUES => self.switch_queues(opcode == ENABLE_QUEUES, p, env),
            ENABLE_QUEUES_V2 | DISABLE_QUEUES_V2 => self.switch_queues_v2(opcode == ENABLE_QUEUES_V2, p, env),
            ADD_ETH_ADDR | DEL_ETH_ADDR => self.filters.change_addresses(opcode == ADD_ETH_ADDR, p, options),
            ADD_VLAN | DEL_VLAN => self.filters.change_vlans(opcode == ADD_VLAN, p, options),
            ADD_VLAN_V2 | DEL_VLAN_V2 => self.filters.change_vlans_v2(opcode == ADD_VLAN_V2, p, options),
            CONFIG_PROMISCUOUS_MODE => self.filters.set_promiscuous(p.u16(2), options),
            GET_STATS => Answer::Reply(self.stats.reply(!options.part.is_ice())),
            CONFIG_RSS_KEY => {
                let Some(key) = p.0.get(4..4 + rss::KEY).filter(|_| p.u16(2) as usize == rss::KEY) else {
                    return Answer::Wrong(ERR_PARAM, format!("an RSS key of {} bytes", p.u16(2)));
                };
                self.rss.key.copy_from_slice(key);
                Answer::done()
            }
            CONFIG_RSS_LUT => self.set_table(p),
            GET_RSS_HENA_CAPS => Answer::Reply(self.rss.capable.to_le_bytes().to_vec()),
            SET_RSS_HENA => {
                self.rss.fields = p.u64(0) & self.rss.capable;
                Answer::done()
            }
            ENABLE_VLAN_STRIPPING | DISABLE_VLAN_STRIPPING => {
                self.filters.strip_inner = opcode == ENABLE_VLAN_STRIPPING;
                Answer::done()
            }
            ENABLE_VLAN_STRIPPING_V2
            | DISABLE_VLAN_STRIPPING_V2
            | ENABLE_VLAN_INSERTION_V2
            | DISABLE_VLAN_INSERTION_V2 => self.filters.toggle(opcode, p, options),
            GET_OFFLOAD_VLAN_V2_CAPS if options.part.is_ice() => Answer::Reply(filters::v2_caps(options)),
            GET_SUPPORTED_RXDIDS if options.part.is_ice() => Answer::Reply(options.rxdids.to_le_bytes().to_vec()),
            // Room for 16 queues.
            GET_MAX_RSS_QREGION => Answer::Reply([self.pf.vsi, 4, 0, 0].iter().flat_map(|v| v.to_le_bytes()).collect()),
            REQUEST_QUEUES => self.request_queues(p.u16(0) as usize, env),
            _ => Answer::Wrong(ERR_PARAM, "not served".into()),
        }
    }

    fn version(&mut self, p: Payload<'_>) -> Answer {
        self.pf.minor = if p.u32(0) == 1 && p.u32(4) == 0 { 0 } else { 1 };
        Answer::Reply([1, self.pf.minor].iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn resources(&mut self, p: Payload<'_>, env: &mut Env) -> Answer {
        use virtchnl::*;
        let (part, in_tree) = (self.options.part, self.options.in_tree);
        if self.pf.granted.is_some() && !(part.is_ice() && in_tree) {
            return Answer::Refuse(ERR_PARAM); // once a reset
        }
        let asked = match (self.pf.minor, part.is_ice()) {
            (0, true) => CAP_L2 | CAP_VLAN,
            (0, false) => CAP_L2 | CAP_RSS_REG | CAP_VLAN,
            _ => p.u32(0),
        };
        let mut granted = asked & (CAP_L2 | CAP_REQ_QUEUES);
        if part.is_ice() {
            granted |= asked & (CAP_RSS_PF | CAP_WB_ON_ITR | CAP_ADV_LINK_SPEED | CAP_FLEX_DESC | CAP_CRC);
            granted |= if asked & CAP_VLAN_V2 != 0 { CAP_VLAN_V2 } else { asked & CAP_VLAN };
            if self.options.large_queues {
                granted |= asked & CAP_LARGE_QUEUES;
            }
        } else {
            granted |= CAP_L2 | CAP_ADV_LINK_SPEED | asked & CAP_RX_POLLING;
            granted |= if asked & CAP_RSS_PF != 0 { CAP_RSS_PF } else { CAP_RSS_REG };
            if asked & (CAP_VLAN | CAP_VLAN_V2) != 0 {
                granted |= CAP_VLAN;
            }
            if part == AvfPart::X722 {
                granted |= asked & (CAP_WB_ON_ITR | CAP_RSS_PCTYPE_V2);
            }
        }
        if !part.is_ice() && self.options.mac.is_none() {
            // An address of the PF's own for those who ask for USO, else none (iavf 4.3).
            let [a, b, c, ..] = env.rng.next().to_le_bytes();
            let default = if asked & CAP_USO != 0 { MacAddr([2, 0, 0x49, a, b, c]) } else { MacAddr::ZERO };
            self.filters = filters::Filters::new(default);
        }
        // With V1 VLANs an ice PF strips from the start, and tags in descriptors are inserted without being asked.
        self.filters.strip_inner = part.is_ice() && granted & CAP_VLAN != 0;
        self.filters.insert_inner = (granted & CAP_VLAN_V2 == 0).then_some(0x8100);
        self.generation += 1;
        self.pf.granted = Some(granted);
        self.pf.mbps = asked & CAP_ADV_LINK_SPEED != 0;
        let (queues, vectors) = self.faults.resources().unwrap_or((self.pf.queues as u16, part.vectors() as u16));
        let max_mtu = if part.is_ice() || in_tree { filters::FRAME_MAX as u16 } else { 0 };
        let mut reply = Vec::with_capacity(36);
        for value in [1, queues, vectors, max_mtu] {
            reply.extend_from_slice(&value.to_le_bytes());
        }
        for value in [granted, rss::KEY as u32, rss::TABLE as u32] {
            reply.extend_from_slice(&value.to_le_bytes());
        }
        reply.extend_from_slice(&self.pf.vsi.to_le_bytes());
        reply.extend_from_slice(&queues.to_le_bytes());
        reply.extend_from_slice(&6i32.to_le_bytes());
        reply.extend_from_slice(&[0, 0]);
        reply.extend_from_slice(&self.filters.default.0);
        if in_tree && !part.is_ice() {
            reply.resize(52, 0); // one element more than there are
        }
        Answer::Reply(reply)
    }

    fn set_table(&mut self, p: Payload<'_>) -> Answer {
        let Some(table) = p.0.get(4..4 + rss::TABLE).filter(|_| p.u16(2) as usize == rss::TABLE) else {
            return Answer::Wrong(ERR_PARAM, format!("an RSS table of {} entries", p.u16(2)));
        };
        if let Some(queue) = table.iter().find(|queue| **queue as usize >= self.pf.queues) {
            let text = format!("an RSS table with queue {queue}, and the VF has {}", self.pf.queues);
            if !self.options.part.is_ice() {
                return Answer::Wrong(ERR_PARAM, text);
            }
        }
        self.rss.table.copy_from_slice(table);
        Answer::done()
    }

    fn request_queues(&mut self, pairs: usize, env: &mut Env) -> Answer {
        if !(1..=QUEUES_MAX).contains(&pairs) {
            // Intel's own i40e driver says nothing at all.
            let most = (QUEUES_MAX as u16).to_le_bytes().to_vec();
            let answers = self.options.part.is_ice() || self.options.in_tree;
            return if answers { Answer::Reply(most) } else { Answer::Silence };
        }
        self.warn(env);
        self.pf.queues = pairs;
        self.begin_reset(Some(RESET_TIME), env);
        Answer::Silence
    }
}

/// The VSI that a message names, where it names one.
fn vsi_of(opcode: u32, p: Payload<'_>) -> Option<u16> {
    use virtchnl::*;
    match opcode {
        CONFIG_IRQ_MAP => Some(p.u16(2)),
        CONFIG_VSI_QUEUES
        | ENABLE_QUEUES
        | DISABLE_QUEUES
        | ADD_ETH_ADDR
        | DEL_ETH_ADDR
        | ADD_VLAN
        | DEL_VLAN
        | CONFIG_PROMISCUOUS_MODE
        | GET_STATS
        | CONFIG_RSS_KEY
        | CONFIG_RSS_LUT
        | ADD_VLAN_V2
        | DEL_VLAN_V2
        | ENABLE_QUEUES_V2
        | DISABLE_QUEUES_V2
        | MAP_QUEUE_VECTOR => Some(p.u16(0)),
        ENABLE_VLAN_STRIPPING_V2..=DISABLE_VLAN_INSERTION_V2 => Some(p.u16(8)),
        _ => None,
    }
}

fn reset_impending() -> Vec<u8> {
    virtchnl::event(virtchnl::EVENT_RESET_IMPENDING, 0, false, virtchnl::SEVERITY_CERTAIN)
}
