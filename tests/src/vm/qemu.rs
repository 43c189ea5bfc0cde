//! The QEMU process: its command line, its birth and its certain death.
//!
//! Always holds: a QEMU dies with this process, even when that gets SIGKILL (the kernel kills it when the thread that
//! spawned it ends, so one thread that never ends spawns them all); it dies when its [`Qemu`] is dropped; and it dies
//! at the end of its lifetime, whatever the test is doing. Only processes spawned here are ever killed, through the
//! `Child` that knows whether the pid is still ours.

use super::error::{Error, Result};
use super::net::Mac;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// A PF of the guest: QEMU's `igb`, an 82576 with up to 7 VFs.
#[derive(Debug)]
pub struct Nic {
    /// The MAC address of the PF.
    pub mac: Mac,
    /// The TAP device that is its wire; without one, frames go nowhere and the link is up all the same.
    pub tap: Option<OwnedFd>,
}

impl Nic {
    /// A NIC whose wire ends nowhere.
    pub fn unconnected(mac: Mac) -> Nic {
        Nic { mac, tap: None }
    }
}

/// How the NICs hang below the root complex, which decides the IOMMU groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// A root port with access control (ACS) for each NIC: each PF and each VF has a group of its own.
    #[default]
    Isolated,
    /// Two functions of one root port device, without ACS: all PFs and VFs share one group, which is not viable for
    /// VFIO while a PF is bound to its kernel driver.
    SharedGroup,
}

/// What one QEMU is started with.
pub(super) struct Machine<'a> {
    pub(super) program: &'a Path,
    pub(super) kernel: &'a Path,
    pub(super) initrd: &'a Path,
    pub(super) console: &'a Path,
    pub(super) messages: &'a Path,
    pub(super) trace: &'a Path,
    pub(super) kernel_arguments: &'a str,
    pub(super) memory_mib: u32,
    pub(super) processors: u32,
    pub(super) topology: Topology,
    pub(super) nics: Vec<Nic>,
    /// Sockets of vfio-user devices.
    pub(super) devices: &'a [PathBuf],
    pub(super) control: OwnedFd,
    pub(super) monitor: OwnedFd,
    pub(super) lifetime: Duration,
}

/// A running QEMU.
pub(super) struct Qemu {
    child: Arc<Mutex<Child>>,
    // Dropping it tells the watchdog thread that its work is done.
    _watchdog: Sender<()>,
}

impl Qemu {
    pub(super) fn start(machine: Machine<'_>) -> Result<Qemu> {
        let mut command = Command::new(machine.program);
        // Who serves a device must see the guest's memory.
        let memory = if machine.devices.is_empty() { "" } else { ",memory-backend=memory" };
        command
            .args(["-M", &format!("q35,kernel-irqchip=split{memory}"), "-accel", "tcg,thread=single", "-cpu", "max"])
            .args(["-smp", &machine.processors.to_string()])
            .args(["-m", &format!("{}M", machine.memory_mib)])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(machine.kernel)
            .arg("-initrd")
            .arg(machine.initrd)
            .args(["-append", machine.kernel_arguments])
            .args(["-device", "intel-iommu,intremap=on,caching-mode=on"])
            .args(["-serial", &format!("file:{}", machine.console.display())])
            .args(["-chardev", &format!("socket,id=control,fd={}", machine.control.as_raw_fd())])
            .args(["-device", "virtio-serial-pci,bus=pcie.0,addr=1e.0", "-device", "virtserialport,chardev=control"])
            .args(["-chardev", &format!("socket,id=monitor,fd={}", machine.monitor.as_raw_fd())])
            .args(["-mon", "chardev=monitor,mode=control"])
            .arg("-D")
            .arg(machine.trace);
        for (n, nic) in machine.nics.iter().enumerate() {
            let port = match machine.topology {
                Topology::Isolated => String::new(),
                Topology::SharedGroup => format!(",bus=pcie.0,addr=4.{n},multifunction=on,disable-acs=on"),
            };
            command.args(["-device", &format!("pcie-root-port,id=rp{n},chassis={},slot={}{port}", n + 1, n + 1)]);
            match &nic.tap {
                Some(tap) => command.args(["-netdev", &format!("tap,id=n{n},fd={}", tap.as_raw_fd())]),
                None => command.args(["-netdev", &format!("hubport,id=n{n},hubid={n}")]),
            };
            command.args(["-device", &format!("igb,netdev=n{n},bus=rp{n},mac={}", nic.mac)]);
        }
        for (n, socket) in machine.devices.iter().enumerate() {
            let number = machine.nics.len() + n + 1;
            let device = serde_json::json!({
                "driver": "vfio-user-pci",
                "bus": format!("vu{n}"),
                "socket": { "type": "unix", "path": socket },
            });
            command.args(["-device", &format!("pcie-root-port,id=vu{n},chassis={number},slot={number}")]);
            command.args(["-device", &device.to_string()]);
        }
        if !machine.devices.is_empty() {
            let memory = format!("memory-backend-memfd,id=memory,size={}M,share=on", machine.memory_mib);
            command.args(["-object", &memory]);
        }
        let messages = File::create(machine.messages).map_err(Error::during(machine.messages.display()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(messages);
        let inherited: Vec<RawFd> = machine
            .nics
            .iter()
            .filter_map(|nic| nic.tap.as_ref())
            .chain([&machine.control, &machine.monitor])
            .map(AsRawFd::as_raw_fd)
            .collect();
        die_with_this_process(&mut command, inherited);
        let child = spawn_on_the_lasting_thread(command)
            .map_err(Error::during(format!("starting {} (tests/vm/prepare gets it)", machine.program.display())))?;
        let child = Arc::new(Mutex::new(child));
        let watchdog = watch(Arc::clone(&child), machine.lifetime);
        Ok(Qemu { child, _watchdog: watchdog })
    }

    /// How it ended, if it did.
    pub(super) fn ended(&self) -> Option<std::process::ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        kill(&self.child);
    }
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

fn kill(child: &Mutex<Child>) {
    let mut child = lock(child);
    // An error means that it has ended and was waited for: there is nothing left to kill.
    let _ = child.kill();
    let _ = child.wait();
}

/// Kills the guest at the end of its lifetime, unless the sender is dropped before.
fn watch(child: Arc<Mutex<Child>>, lifetime: Duration) -> Sender<()> {
    let (alive, done) = mpsc::channel();
    std::thread::spawn(move || {
        if done.recv_timeout(lifetime) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the guest has reached the end of its lifetime of {lifetime:?} and is killed");
            kill(&child);
        }
    });
    alive
}

/// Arranges that the process gets SIGKILL when the thread that spawns it ends, and inherits `files`.
fn die_with_this_process(command: &mut Command, files: Vec<RawFd>) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made (prctl, getppid, fcntl: plain system calls),
    // and the closure allocates nothing; `files` was allocated before. The descriptors are open: `Qemu::start` holds
    // their owners until the spawn has returned.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the line above took effect.
            if libc::getppid() as u32 != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            for &file in &files {
                if libc::fcntl(file, libc::F_SETFD, 0) != 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// The kernel's "parent death" signal is about the spawning thread, and a test's thread ends before the process does.
fn spawn_on_the_lasting_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static JOBS: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, reply) in receiver {
                // The caller waits for the reply, so nobody is gone; if it were, the child is dropped unwaited.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that spawns guests has ended");
    jobs.lock().unwrap_or_else(PoisonError::into_inner).send((command, reply)).map_err(|_| gone(()))?;
    answer.recv().map_err(|_| gone(()))?
}
