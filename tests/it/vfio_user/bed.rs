//! A served model with the test at the other end of its wire, and a port on it.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vfring::{
    AnyRx, AnyTx, Burst, Control, DeviceSpec, MacAddr, Mempool, PoolCache, Port, PortConfig, PortState, Started,
};
use vfring_tests::bed::{assert_home, bytes, mac, packet, pool_for};
use vfring_tests::build::vfring;
use vfring_tests::program::Program;

/// What anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What is served: the arguments that choose it.
pub const MODELS: [&[&str]; 6] = [
    &["--model", "igbvf", "--part", "82576"],
    &["--model", "igbvf", "--part", "i350"],
    // An 82599 passes long frames only where its PF does.
    &["--model", "ixgbevf", "--part", "82599", "--set", "jumbo=1"],
    &["--model", "ixgbevf", "--part", "x550"],
    &["--model", "iavf", "--part", "xl710"],
    &["--model", "iavf", "--part", "e810"],
];

/// The address of every served VF.
pub const OWN: u8 = 0x11;

/// A model in a process of its own.
pub struct Served {
    pub server: Program,
    pub spec: DeviceSpec,
    wire: UnixDatagram,
    files: Vec<PathBuf>,
}

/// Calls `step` until it returns something.
pub fn eventually<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(done) = step() {
            return done;
        }
        assert!(begun.elapsed() < PATIENCE, "timed out: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

impl Served {
    /// Serves the model that these arguments choose.
    pub fn start(model: &[&str]) -> Served {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vfring-vfio-user-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let base = std::env::temp_dir().join(name);
        let path = |end: &str| PathBuf::from(format!("{}{end}", base.display()));
        let (socket, [theirs, ours]) = (path(".sock"), ["-a", "-b"].map(path));
        let mut command = Command::new(vfring().expect("the program vfring"));
        command.args(["sim", "serve"]).args(model).arg("--socket").arg(&socket);
        command.args(["--mac", &mac(OWN).to_string(), "--wire", &format!("pair:{}", base.display())]);
        command.stdin(Stdio::piped());
        let mut server = Program::spawn(command).expect("a server");
        server.wait_for("serving ", PATIENCE).expect("a server that serves");
        let wire = UnixDatagram::bind(&ours).expect("the other end of the wire");
        wire.connect(&theirs).expect("the wire");
        wire.set_nonblocking(true).expect("fcntl");
        let spec = format!("vfio-user:{}", socket.display()).parse().expect("a spec");
        let mut served = Served { server, spec, wire, files: vec![socket, theirs, ours] };
        // The server looks for the other end of its wire now and then.
        served.wire_is_up();
        served
    }

    /// Waits until the server has connected its end of the wire: until then, it takes ten frames at a time.
    fn wire_is_up(&mut self) {
        let stranger = UnixDatagram::unbound().expect("a socket");
        eventually("the wire", || {
            // A socket that is connected refuses anybody else.
            stranger.connect(&self.files[1]).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied).then_some(())
        });
    }

    /// What the server answers to a line.
    pub fn ask(&mut self, line: &str) -> String {
        let answer = self.server.ask(line, PATIENCE).expect("an answer");
        assert!(!answer.starts_with("error"), "{line}: {answer}");
        answer
    }

    /// A number of the server's statistics.
    pub fn statistic(&mut self, name: &str) -> u64 {
        let text = self.ask("stats");
        let value = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text:?}"))
    }

    /// Asserts that the driver broke no rule of the hardware.
    pub fn check(&mut self) {
        assert_eq!(self.statistic("violations"), 0, "{}", self.server.evidence());
    }

    /// Puts a frame on the wire.
    pub fn inject(&self, frame: &[u8]) {
        eventually("room on the wire", || match self.wire.send(frame) {
            Ok(_) => Some(()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => None,
            Err(e) => panic!("the wire: {e}"),
        });
    }

    /// The next frame that the VF sent, when there is one.
    pub fn take(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65536];
        let len = self.wire.recv(&mut frame).ok()?;
        frame.truncate(len);
        Some(frame)
    }

    /// The server's socket.
    pub fn socket(&self) -> &Path {
        &self.files[0]
    }

    /// Opens the port.
    pub fn open(&self, config: PortConfig) -> Port {
        Port::open(&self.spec, config).unwrap_or_else(|error| panic!("{error}\n{}", self.server.evidence()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.server.evidence());
        }
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A port that is started, polled by the test's thread.
pub struct Live {
    pub pool: Mempool,
    pub control: Control,
    pub rx: AnyRx,
    pub tx: AnyTx,
    pub cache: PoolCache,
}

impl Live {
    /// Starts a port with one queue each way, and waits for the link.
    pub fn start(port: Port) -> Live {
        let pool = pool_for(&port, 2048);
        Live::start_with(port, pool)
    }

    pub fn start_with(port: Port, pool: Mempool) -> Live {
        let Started { control, mut rx, mut tx } = port.start(&pool).expect("start");
        let cache = pool.cache();
        let mut live = Live { pool, control, rx: rx.remove(0), tx: tx.remove(0), cache };
        live.runs();
        live
    }

    /// Waits until the port runs and its link is up, with rings armed.
    pub fn runs(&mut self) {
        eventually("a running port with a link", || {
            self.control.service();
            assert!(self.poll().is_empty(), "a packet that nobody expected");
            self.reclaim();
            (self.control.state() == PortState::Running && self.control.link().up).then_some(())
        });
        // A register access: the model has seen the ring before anybody sends to it.
        self.poll();
        self.control.stats();
    }

    /// What one burst brings.
    pub fn poll(&mut self) -> Vec<Vec<u8>> {
        let mut burst = Burst::new();
        self.rx.burst(&mut self.cache, &mut burst);
        let frames = burst.iter().map(bytes).collect();
        self.cache.free(&mut burst);
        frames
    }

    /// An empty burst, which takes back what was sent.
    pub fn reclaim(&mut self) {
        self.tx.burst(&mut self.cache, &mut Burst::new());
    }

    /// Receives `n` frames.
    pub fn receive(&mut self, n: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        eventually("frames", || {
            frames.extend(self.poll());
            (frames.len() >= n).then_some(())
        });
        frames
    }

    /// Sends frames, and takes what comes out of the wire.
    pub fn send(&mut self, served: &Served, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (mut burst, mut left, mut taken) = (Burst::new(), frames.iter(), Vec::new());
        eventually("frames on the wire", || {
            while !burst.is_full() {
                let Some(frame) = left.next() else { break };
                burst.push(packet(&mut self.cache, frame, 2048)).expect("room");
            }
            self.tx.burst(&mut self.cache, &mut burst);
            taken.extend(std::iter::from_fn(|| served.take()));
            (taken.len() >= frames.len()).then_some(())
        });
        taken
    }

    /// True when a frame comes out of the port; a second one behind it, to its own address, tells when it does not.
    pub fn passes(&mut self, served: &Served, frame: &[u8]) -> bool {
        let marker = vfring_tests::bed::frame(self.control.mac(), mac(0x99), 60, 77);
        served.inject(frame);
        served.inject(&marker);
        let mut passed = false;
        eventually("the frame behind", || {
            let frames = self.poll();
            passed |= frames.iter().any(|f| *f != marker);
            frames.contains(&marker).then_some(())
        });
        passed
    }

    /// Stops the port; every buffer is home.
    pub fn stop(self) -> Port {
        let Live { pool, control, rx, tx, cache } = self;
        drop((rx, tx, cache));
        let port = control.stop(PATIENCE).expect("stop");
        assert_home(&pool);
        port
    }

    /// The address in force.
    pub fn mac(&self) -> MacAddr {
        self.control.mac()
    }
}
