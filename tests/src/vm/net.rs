//! Network namespaces and TAP devices on this machine: the outside of a guest's NICs.
//!
//! A namespace is anonymous: a file descriptor holds it, so it cannot outlive the test and its name cannot collide. A
//! TAP device is created inside its namespace and handed to QEMU as a descriptor, so it never appears in the machine's
//! own namespace. IPv6 is off in a namespace from the start (its neighbour discovery would be traffic nobody asked
//! for), and neighbours are static where a test wants them, so that nothing is sent but what the test sends.

use super::error::{Error, Result};
use super::host::{self, Running};
use super::qemu::Nic;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// A TAP device's queue towards QEMU, in frames. QEMU is paused for tens of milliseconds on a busy machine, and what
/// arrives meanwhile must wait here: the default of 1000 is 20 ms at 50 kpps.
const TAP_QUEUE: u32 = 4096;

/// For `ip` and other commands that take milliseconds.
const SHORT: Duration = Duration::from_secs(30);

/// iperf3's port.
const IPERF_PORT: u16 = 5201;

/// From a reply to the next ping.
const PING_INTERVAL: Duration = Duration::from_millis(200);

/// Seconds that a reply may take: more than a busy machine ever stands still.
const PING_PATIENCE: &str = "5";

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network namespace with a loopback interface that is up. Clones are the same namespace; it ends with the last of
/// them and the last process or TAP device in it.
#[derive(Debug, Clone)]
pub struct Netns {
    label: String,
    file: Arc<File>,
}

/// An interface's counters, of this machine's side. A TAP device's "tx" goes to QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub struct DeviceCounters {
    pub rx_bytes: u64,
    pub rx_packets: u64,
    pub rx_dropped: u64,
    pub tx_bytes: u64,
    pub tx_packets: u64,
    /// For a TAP device: frames that QEMU was too slow to take.
    pub tx_dropped: u64,
}

/// What ping counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PingReport {
    /// Requests.
    pub sent: u32,
    /// Replies.
    pub received: u32,
    /// A quarter of the replies took at most this many milliseconds. Not the mean: a machine that stands still for a second adds
    /// 40 ms to the mean of 25.
    pub quarter_ms: f64,
}

/// What an iperf3 client counted over TCP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TcpReport {
    /// Payload that arrived, in bits a second.
    pub bits_per_second: f64,
    /// Segments that the sender sent again.
    pub retransmits: u64,
}

impl Netns {
    /// A new, empty namespace. `label` names it in errors. Needs root.
    pub fn new(label: &str) -> Result<Netns> {
        let create = || -> io::Result<File> {
            // SAFETY: unshare takes no pointer. It moves the calling thread only, and that thread ends below.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            let file = File::open("/proc/thread-self/ns/net")?;
            for scope in ["all", "default"] {
                // Absent where the kernel has no IPv6, which is as good.
                let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6"), "1");
            }
            Ok(file)
        };
        let created = std::thread::scope(|scope| scope.spawn(create).join());
        let file = created
            .map_err(|_| Error::new("the thread that creates a namespace panicked"))?
            .map_err(Error::during(format!("creating network namespace {label} (needs root)")))?;
        let namespace = Netns { label: label.to_owned(), file: Arc::new(file) };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Runs `work` on a new thread inside the namespace and returns its result: sockets that it opens belong there.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entered = std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.join_this_thread().map(|()| work()));
            thread.join()
        });
        match entered {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Moves the calling thread into the namespace for good; for threads that live there.
    pub(super) fn join_this_thread(&self) -> Result<()> {
        setns(&self.file).map_err(Error::during(format!("entering network namespace {}", self.label)))
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let file = Arc::clone(&self.file);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing; it owns the file.
        unsafe {
            command.pre_exec(move || setns(&file));
        }
        command
    }

    /// Runs a program inside the namespace; what it printed on stdout. It must succeed within `timeout`.
    pub fn exec(&self, program: &str, arguments: &[&str], timeout: Duration) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        host::output(command, timeout).map_err(|e| Error::new(format!("in namespace {}: {e}", self.label)))
    }

    /// iproute2 inside the namespace; the arguments are split at spaces.
    pub fn ip(&self, arguments: &str) -> Result<String> {
        self.exec("ip", &arguments.split_whitespace().collect::<Vec<_>>(), SHORT)
    }

    /// Creates a TAP device that is up and has the given address, for [`Tap::nic`].
    pub fn create_tap(&self, name: &str, mac: Mac, mtu: u32) -> Result<Tap> {
        let file = self
            .enter(|| open_tap(name))?
            .map_err(Error::during(format!("creating TAP device {name} (needs root and /dev/net/tun)")))?;
        self.ip(&format!("link set {name} address {mac} mtu {mtu} txqueuelen {TAP_QUEUE}"))?;
        self.ip(&format!("link set {name} up"))?;
        Ok(Tap { file: Some(file), name: name.to_owned(), mac, namespace: self.clone() })
    }

    /// The same for a program that will attach to it by its name, inside the namespace.
    pub fn create_named_tap(&self, name: &str, mac: Mac, mtu: u32) -> Result<Tap> {
        self.ip(&format!("tuntap add dev {name} mode tap"))?;
        self.ip(&format!("link set {name} address {mac} mtu {mtu} txqueuelen {TAP_QUEUE} up"))?;
        Ok(Tap { file: None, name: name.to_owned(), mac, namespace: self.clone() })
    }

    /// The counters of an interface.
    pub fn counters(&self, device: &str) -> Result<DeviceCounters> {
        let table = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let table = table.map_err(Error::during("/proc/thread-self/net/dev"))?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
        let line = line.ok_or_else(|| Error::new(format!("no interface {device} in namespace {}", self.label)))?;
        let fields: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let [rx_bytes, rx_packets, _, rx_dropped, _, _, _, _, tx_bytes, tx_packets, _, tx_dropped, ..] = fields[..]
        else {
            return Err(Error::new(format!("/proc/net/dev has an unknown form: {line:?}")));
        };
        Ok(DeviceCounters { rx_bytes, rx_packets, rx_dropped, tx_bytes, tx_packets, tx_dropped })
    }

    /// Sends `count` pings of `payload` bytes that may not be fragmented, each 200 ms after the reply to the one before, until
    /// one is lost, which is no error. Each by a program of its own: after a first reply, ping waits for no later one longer
    /// than for twice the longest round trip so far.
    pub fn ping(&self, to: Ipv4Addr, count: u32, payload: u32) -> Result<PingReport> {
        let (mut sent, mut times) = (0, Vec::new());
        while sent < count {
            if sent > 0 {
                std::thread::sleep(PING_INTERVAL);
            }
            sent += 1;
            let mut command = self.command("ping");
            command.args([
                "-n",
                "-M",
                "do",
                "-c",
                "1",
                "-W",
                PING_PATIENCE,
                "-s",
                &payload.to_string(),
                &to.to_string(),
            ]);
            // Its exit status says whether a reply came, which the text says too.
            let text = match host::output(command, SHORT) {
                Ok(text) => text,
                Err(error) => error.to_string(),
            };
            if !text.contains("1 packets transmitted") {
                return Err(Error::new(format!("ping {to} from namespace {}: {text}", self.label)));
            }
            let time = text.split("time=").nth(1).and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
            let Some(time) = time else { break };
            times.push(time);
        }
        times.sort_by(f64::total_cmp);
        let quarter_ms = times.get(times.len() / 4).copied().unwrap_or(f64::INFINITY);
        Ok(PingReport { sent, received: times.len() as u32, quarter_ms })
    }

    /// Measures one TCP stream from this namespace to an iperf3 server in another one, which is started and listens on
    /// `address`.
    pub fn tcp_to(&self, server: &Netns, address: Ipv4Addr, duration: Duration) -> Result<TcpReport> {
        let mut listener = server.command("iperf3");
        listener
            .args(["-4", "-s", "-1", "-B", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let _listener = Running::spawn(listener)?;
        super::poll("iperf3 to listen", SHORT, Duration::from_millis(20), || {
            let table = server.enter(|| fs::read_to_string("/proc/thread-self/net/tcp"))?;
            let table = table.map_err(Error::during("/proc/thread-self/net/tcp"))?;
            let port = format!(":{IPERF_PORT:04X}");
            // The second field is the local address, the fourth the state; 0A is LISTEN.
            let listens = table.lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.len() > 3 && fields[1].ends_with(&port) && fields[3] == "0A"
            });
            Ok(listens.then_some(()))
        })?;
        self.tcp_client(address, duration, false)
    }

    /// Measures one TCP stream from this namespace to an iperf3 server that listens on `address`, or from there to here.
    pub fn tcp_client(&self, address: Ipv4Addr, duration: Duration, reverse: bool) -> Result<TcpReport> {
        let address = address.to_string();
        let seconds = duration.as_secs().max(1).to_string();
        let mut arguments = vec!["-4", "-c", &address, "-t", &seconds, "-J", "--connect-timeout", "10000"];
        arguments.extend(reverse.then_some("-R"));
        let json = self.exec("iperf3", &arguments, duration + Duration::from_secs(60))?;
        // The object "end" holds the sums (each interval has a number of that name too); the first number behind a key in
        // it is the one of the whole run.
        let end = json.split("\"end\":\t{").nth(1).unwrap_or_default();
        let number = |section: &str, key: &str| -> Option<f64> {
            let text = end.split(section).nth(1)?.split(key).nth(1)?.trim_start_matches(['"', ':', ' ', '\t']);
            text.split([',', '\n', '}']).next()?.trim().parse().ok()
        };
        match (number("\"sum_received\"", "bits_per_second"), number("\"sum_sent\"", "retransmits")) {
            (Some(bits_per_second), Some(again)) => Ok(TcpReport { bits_per_second, retransmits: again as u64 }),
            _ => Err(Error::new(format!("iperf3's report has an unknown form:\n{json}"))),
        }
    }
}

/// A TAP device. It exists until this and the QEMU that uses it are gone, a named one as long as its namespace.
#[derive(Debug)]
pub struct Tap {
    /// Its name inside the namespace.
    pub name: String,
    /// Its MAC address.
    pub mac: Mac,
    namespace: Netns,
    file: Option<OwnedFd>,
}

impl Tap {
    /// A NIC whose wire is this device.
    pub fn nic(&self, mac: Mac) -> Result<Nic> {
        let file = self.file.as_ref().ok_or_else(|| Error::new(format!("{} is for another program", self.name)))?;
        Ok(Nic { mac, tap: Some(file.try_clone().map_err(Error::during(&self.name))?) })
    }

    /// Gives the device an IPv4 address with its network (a /24).
    pub fn add_address(&self, address: Ipv4Addr) -> Result<()> {
        self.namespace.ip(&format!("address add {address}/24 dev {}", self.name)).map(drop)
    }

    /// Fixes the MAC address behind an IPv4 address, so that nobody asks for it.
    pub fn add_neighbour(&self, address: Ipv4Addr, mac: Mac) -> Result<()> {
        self.namespace
            .ip(&format!("neighbour replace {address} lladdr {mac} nud permanent dev {}", self.name))
            .map(drop)
    }

    /// Its counters.
    pub fn counters(&self) -> Result<DeviceCounters> {
        self.namespace.counters(&self.name)
    }

    /// The namespace it lives in.
    pub fn namespace(&self) -> &Netns {
        &self.namespace
    }
}

fn setns(namespace: &File) -> io::Result<()> {
    // SAFETY: setns takes no pointer; the descriptor is open while `namespace` lives.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A TAP device in the namespace of the calling thread. With the virtio-net header, as QEMU's own default: checksum and
/// segmentation requests of the namespace's TCP stack then reach the emulated NIC as such.
fn open_tap(name: &str) -> io::Result<OwnedFd> {
    let file = File::options().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid `ifreq`: it consists of integers, arrays and a union of them.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface names have at most 15 bytes"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which `request` is and which outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}
