//! One guest: boot, commands, files, end.
//!
//! Owns the folder with its initramfs and logs (removed with it), the QEMU process and the machine-wide lock that keeps
//! guests from running side by side. All methods take `&self`: threads of a test may share a guest, their commands
//! take turns.

use super::control::{Control, Output, encode};
use super::cpio::Archive;
use super::error::{Error, Result};
use super::monitor::Monitor;
use super::qemu::{Machine, Nic, Qemu, Topology};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// From spawning QEMU to the shell's "ready": 5 to 8 s on two idle cores, and the machine may be busy.
const BOOT_TIMEOUT: Duration = Duration::from_secs(180);

/// How long a boot waits for the guests of other tests to end.
const TURN_TIMEOUT: Duration = Duration::from_secs(3600);

/// The deadline of [`Guest::sh`]: for commands that take a fraction of a second.
const SHORT: Duration = Duration::from_secs(60);

/// Lines of the console that an error shows.
const CONSOLE_LINES: usize = 40;

/// A file that a guest gets, executable, readable by all.
#[derive(Debug, Clone)]
pub struct GuestFile {
    /// Where it is here.
    pub host: PathBuf,
    /// Where it will be there, absolute.
    pub guest: String,
}

/// What a guest is made of.
#[derive(Debug)]
pub struct GuestConfig {
    /// The PFs, in this order at 0000:01:00.0, 0000:02:00.0, … and as eth0, eth1, …
    pub nics: Vec<Nic>,
    /// Memory, hugepages included. Under 2816: above, RAM and BARs go beyond 4 GiB, and there QEMU's igb (10.0) decodes no
    /// BAR of a VF: it reads 0 to any driver.
    pub memory_mib: u32,
    /// Processors. More than one take turns of up to 100 ms when all are busy: QEMU emulates them on one thread here, because
    /// with a thread each it aborts now and then when a function reset changes the memory map under another one
    /// (`iotlb_to_section`, seen with 10.0 once in a few hundred resets).
    pub processors: u32,
    /// How the NICs are grouped by the IOMMU.
    pub topology: Topology,
    /// What the guest finds in its file system besides the base.
    pub files: Vec<GuestFile>,
    /// Kernel modules that are loaded besides those of every guest; see tests/vm/prepare. A VF driver among them takes
    /// every VF that is not claimed by a driver override.
    pub modules: Vec<&'static str>,
    /// Whether the guest is run by the newer QEMU and has the judges' programs, such as testpmd.
    pub judges: bool,
    /// Sockets of vfio-user devices, each at the next address behind the PFs. Only the newer QEMU knows them.
    pub devices: Vec<PathBuf>,
    /// What the kernel's command line has besides what the harness needs.
    pub kernel_arguments: String,
    /// When QEMU is killed at the latest.
    pub lifetime: Duration,
}

impl Default for GuestConfig {
    fn default() -> GuestConfig {
        GuestConfig {
            nics: Vec::new(),
            memory_mib: 2048,
            processors: 1,
            topology: Topology::Isolated,
            files: Vec::new(),
            modules: Vec::new(),
            judges: false,
            devices: Vec::new(),
            kernel_arguments: String::new(),
            lifetime: Duration::from_secs(900),
        }
    }
}

/// A booted guest. Dropping it kills it.
pub struct Guest {
    // Dropped in this order: QEMU ends before its folder goes and before the next guest may start.
    qemu: Qemu,
    control: Mutex<Control>,
    pub(super) monitor: Mutex<Monitor>,
    pub(super) next_process: AtomicU64,
    boot_time: Duration,
    folder: Folder,
    _turn: File,
}

impl Guest {
    /// Prepares what is missing (first time: downloads), waits for its turn, boots, and returns when commands work.
    pub fn boot(config: GuestConfig) -> Result<Guest> {
        let cache = prepare(config.judges)?;
        let turn = wait_for_turn(&cache)?;
        let folder = Folder::create()?;
        let initrd = folder.path.join("initrd.cpio");
        write_initrd(&cache.join(if config.judges { "judges.cpio" } else { "base.cpio" }), &config.files, &initrd)?;
        let started = Instant::now();
        let (ours, theirs) = UnixStream::pair().map_err(Error::during("creating the control channel"))?;
        let (monitor, monitored) =
            UnixStream::pair().map_err(Error::during("creating the channel to QEMU's monitor"))?;
        let modules = config.modules.join(",");
        let qemu = Qemu::start(Machine {
            program: &if config.judges { cache.join("qemu") } else { PathBuf::from("qemu-system-x86_64") },
            kernel: &cache.join("vmlinuz"),
            initrd: &initrd,
            console: &folder.console(),
            messages: &folder.messages(),
            trace: &folder.trace(),
            // Without IPv6 an interface that is up sends nothing by itself, and counters can be exact. The timer is not checked:
            // where this machine stands still for that moment, the kernel takes it for broken and panics.
            kernel_arguments: &format!(
                "console=ttyS0 quiet intel_iommu=on panic=-1 no_timer_check ipv6.disable=1 vfring.modules={modules} {}",
                config.kernel_arguments
            ),
            memory_mib: config.memory_mib,
            processors: config.processors,
            topology: config.topology,
            nics: config.nics,
            devices: &config.devices,
            control: theirs.into(),
            monitor: monitored.into(),
            lifetime: config.lifetime,
        })?;
        let mut control = Control::new(ours);
        if let Err(error) = control.wait_ready(started + BOOT_TIMEOUT) {
            return Err(Error::new(format!("the guest did not boot: {error}")).with(folder.evidence(&qemu)));
        }
        Ok(Guest {
            qemu,
            control: Mutex::new(control),
            monitor: Mutex::new(Monitor::new(monitor, folder.trace())),
            next_process: AtomicU64::new(1),
            boot_time: started.elapsed(),
            folder,
            _turn: turn,
        })
    }

    /// From the start of QEMU to the first command.
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Runs a shell script (busybox; iproute2 is `/bin/ip`) and waits for it. The guest kills it after `timeout`
    /// (whole seconds, at least one), which is an error here; an exit status other than 0 is not.
    pub fn run(&self, script: &str, timeout: Duration) -> Result<Output> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.run(script, timeout).map_err(|error| error.with(self.evidence()))
    }

    /// Runs a short script that must succeed, and returns what it printed, trimmed.
    pub fn sh(&self, script: &str) -> Result<String> {
        let output = self.run(script, SHORT)?;
        if output.status != 0 {
            return Err(Error::new(format!(
                "in the guest, exit status {}:\n{script}\nit printed:\n{}",
                output.status,
                output.text()
            )));
        }
        Ok(output.text().trim().to_owned())
    }

    /// The contents of a file in the guest, up to some megabytes.
    pub fn read_file(&self, path: &str) -> Result<Vec<u8>> {
        let output = self.run(&format!("cat {path}"), SHORT)?;
        if output.status != 0 {
            return Err(Error::new(format!("reading {path} in the guest: {}", output.text())));
        }
        Ok(output.stdout)
    }

    /// Writes a small file in the guest; large ones go into [`GuestConfig::files`].
    pub fn write_file(&self, path: &str, contents: &[u8]) -> Result<()> {
        self.sh(&format!("echo {} | base64 -d >{path}", encode(contents))).map(drop)
    }

    /// Waits until a shell condition holds (its exit status is 0).
    pub fn wait_until(&self, condition: &str, timeout: Duration) -> Result<()> {
        let asked = super::poll(&format!("`{condition}` in the guest"), timeout, Duration::ZERO, || {
            Ok((self.ask_for_a_while(&format!("({condition}) || exit 1"))? == 0).then_some(()))
        });
        asked.map_err(|error| error.with(self.evidence()))
    }

    /// Asks for a shell condition about 20 times a second, for about a second or until its exit status is not 1, in one
    /// command, and returns its last exit status. Short, so that other threads get their turn; long, because a command costs far more than a look.
    pub(super) fn ask_for_a_while(&self, condition: &str) -> Result<i32> {
        let script = format!(
            "for n in $(seq 20); do ({condition}); status=$?; [ $status = 1 ] || exit $status; usleep 50000; done; exit 1"
        );
        Ok(self.run(&script, SHORT)?.status)
    }

    /// The kernel's messages so far.
    pub fn dmesg(&self) -> Result<String> {
        self.sh("dmesg")
    }

    /// The end of the console log and of QEMU's messages, for a failure's text.
    pub fn evidence(&self) -> String {
        self.folder.evidence(&self.qemu)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.evidence());
        }
    }
}

/// Runs `tests/vm/prepare` once per process and argument; where the cache is complete that takes 40 ms.
fn prepare(judges: bool) -> Result<PathBuf> {
    static CACHES: [OnceLock<Result<PathBuf, String>>; 2] = [const { OnceLock::new() }; 2];
    let prepared = CACHES[usize::from(judges)].get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("vm/prepare");
        let output = Command::new(&script)
            .args(judges.then_some("judges"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("running {}: {error}", script.display()))?;
        if !output.status.success() {
            return Err(format!("{} failed:\n{}", script.display(), String::from_utf8_lossy(&output.stderr)));
        }
        Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    });
    prepared.clone().map_err(Error::new)
}

/// The lock that lets one guest run at a time; it is released when the file closes, however this process ends.
fn wait_for_turn(cache: &Path) -> Result<File> {
    let path = cache.join("turn");
    let file = File::create(&path).map_err(Error::during(path.display()))?;
    let taken = super::poll("another test's guest to end", TURN_TIMEOUT, Duration::from_millis(200), || {
        // SAFETY: flock takes no pointer; the descriptor is open while `file` lives.
        Ok((unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0).then_some(()))
    });
    taken.map(|()| file)
}

fn write_initrd(base: &Path, files: &[GuestFile], initrd: &Path) -> Result<()> {
    fs::copy(base, initrd).map_err(Error::during(format!("copying {}", base.display())))?;
    if files.is_empty() {
        return Ok(());
    }
    let mut archive = Archive::new();
    for file in files {
        let contents = fs::read(&file.host).map_err(Error::during(format!(
            "reading {}, which the guest should get as {}",
            file.host.display(),
            file.guest
        )))?;
        archive.add(&file.guest, &contents);
    }
    let append = || File::options().append(true).open(initrd)?.write_all(&archive.finish());
    append().map_err(Error::during(initrd.display()))
}

/// A guest's folder on this machine.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn create() -> Result<Folder> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("vfring-guest-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).map_err(Error::during(format!("creating {}", path.display())))?;
        Ok(Folder { path })
    }

    fn console(&self) -> PathBuf {
        self.path.join("console")
    }

    fn messages(&self) -> PathBuf {
        self.path.join("qemu")
    }

    fn trace(&self) -> PathBuf {
        self.path.join("trace")
    }

    fn evidence(&self, qemu: &Qemu) -> String {
        let end = |path: PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(CONSOLE_LINES)..].join("\n")
        };
        let state = match qemu.ended() {
            Some(status) => format!("QEMU has ended ({status})"),
            None => "QEMU is running".to_owned(),
        };
        format!(
            "--- {state}; its messages:\n{}\n--- the end of the guest's console:\n{}\n---",
            end(self.messages()),
            end(self.console())
        )
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary folder and harms nobody.
        let _ = fs::remove_dir_all(&self.path);
    }
}
