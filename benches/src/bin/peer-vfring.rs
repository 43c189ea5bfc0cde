//! vfring's side of `benches/peer/run`: our driver on the fake VF, opened by its PCI address through the fake VFIO, serving
//! the commands of `benches/peer/harness.c`. Both come into this process by LD_PRELOAD; without them this says so.
//!
//! usage: peer-vfring FAMILY RING [info] [portable] [flex] [demote]

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use vfring::{AnyRx, AnyTx, Burst, Control, Mempool, PoolCache, Port, PortConfig, Result, Started};

/// The fake VF's address (fakevf.c).
const ADDRESS: &str = "0000:03:10.0";
/// Where the measuring thread runs, as DPDK's.
const CPU: usize = 1;
/// Bytes of every packet.
const LEN: usize = 60;
/// Where the fake VF writes the packet's number.
const NUMBER_AT: usize = 42;
/// Longest burst.
const BURST_MAX: u32 = 256;

/// `struct hn_side` (harness.h).
#[repr(C)]
struct Side {
    this: *mut c_void,
    drive: [extern "C" fn(&mut Rig, u32, u32); 5],
    ready: extern "C" fn(&mut Rig, u32, u32),
    poll: extern "C" fn(&mut Rig, u32) -> u32,
    check: extern "C" fn(&mut Rig, u32) -> c_int,
}

/// The functions of fakevf.c and harness.c.
struct Fake {
    setup: unsafe extern "C" fn(c_int, c_int, *const c_char),
    demote: unsafe extern "C" fn(c_int),
    thread_start: unsafe extern "C" fn(),
    thread_stop: unsafe extern "C" fn(),
    attach_queues: unsafe extern "C" fn(),
    serve: unsafe extern "C" fn(*const Side, u32) -> c_int,
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a C string, and the handle that stands for every object of the process.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

impl Fake {
    fn find() -> Option<Fake> {
        // SAFETY: the types are those of fakevf.h and harness.h, which are built from the same folder as this.
        unsafe {
            Some(Fake {
                setup: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, c_int, *const c_char)>(symbol(
                    c"fv_setup",
                )?),
                demote: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int)>(symbol(c"fv_demote")?),
                thread_start: std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(symbol(c"fv_thread_start")?),
                thread_stop: std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(symbol(c"fv_thread_stop")?),
                attach_queues: std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(symbol(c"fv_attach_queues")?),
                serve: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const Side, u32) -> c_int>(symbol(
                    c"hn_serve",
                )?),
            })
        }
    }
}

/// A started port and what its thread needs.
struct Rig {
    rx: AnyRx,
    tx: AnyTx,
    cache: PoolCache,
    burst: Burst,
    /// What `drive_tx` sends.
    stock: Vec<Burst>,
    /// Stops the port when it goes.
    _control: Control,
}

impl Rig {
    fn open(ring: u16, info: bool, vector: bool) -> Result<Rig> {
        let config = PortConfig::new().rings(ring, ring).rx_info(info).vector(vector);
        let opened = Port::open(&ADDRESS.parse()?, config)?;
        // As many as DPDK's side has.
        let pool = Mempool::builder().buffers(4 * u32::from(ring) + 4096).on(&[&opened])?;
        let Started { control, mut rx, mut tx } = opened.start(&pool)?;
        let mut rig = Rig {
            rx: rx.swap_remove(0),
            tx: tx.swap_remove(0),
            cache: pool.cache(),
            burst: Burst::new(),
            stock: Vec::new(),
            _control: control,
        };
        // The first burst of each queue arms its ring.
        rig.forward(0, |_| ());
        Ok(rig)
    }

    #[inline(always)]
    fn forward(&mut self, count: u32, mut act: impl FnMut(&mut [u8])) {
        let mut done = 0;
        loop {
            self.rx.burst(&mut self.cache, &mut self.burst);
            for packet in &mut self.burst {
                act(packet);
            }
            done += self.tx.burst(&mut self.cache, &mut self.burst);
            if done >= count as usize {
                return;
            }
        }
    }
}

extern "C" fn drive_rx(rig: &mut Rig, count: u32, _burst: u32) {
    let mut done = 0;
    while done < count as usize {
        done += rig.rx.burst(&mut rig.cache, &mut rig.burst);
        rig.cache.free(&mut rig.burst);
    }
}

extern "C" fn drive_tx(rig: &mut Rig, _count: u32, _burst: u32) {
    for burst in &mut rig.stock {
        while !burst.is_empty() {
            rig.tx.burst(&mut rig.cache, burst);
        }
    }
}

extern "C" fn drive_rx_tx(rig: &mut Rig, count: u32, _burst: u32) {
    rig.forward(count, |_| ());
}

/// The same loads and stores as DPDK's side: 8 bytes from 0 and from 6, and 4 and 2 bytes for each address.
extern "C" fn drive_rx_swap_tx(rig: &mut Rig, count: u32, _burst: u32) {
    rig.forward(count, |packet| {
        if let Some(head) = packet.first_chunk_mut::<14>() {
            let [a, b, c, d, e, f, g, h, ..] = *head;
            let [_, _, _, _, _, _, i, j, k, l, m, n, o, p] = *head;
            let destination = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
            let source = u64::from_le_bytes([i, j, k, l, m, n, o, p]);
            head[..4].copy_from_slice(&(source as u32).to_le_bytes());
            head[4..6].copy_from_slice(&((source >> 32) as u16).to_le_bytes());
            head[6..10].copy_from_slice(&(destination as u32).to_le_bytes());
            head[10..12].copy_from_slice(&((destination >> 32) as u16).to_le_bytes());
        }
    });
}

extern "C" fn drive_empty(rig: &mut Rig, count: u32, _burst: u32) {
    for _ in 0..count {
        rig.rx.burst(&mut rig.cache, &mut rig.burst);
    }
}

extern "C" fn ready(rig: &mut Rig, count: u32, burst: u32) {
    let limit = burst.min(BURST_MAX) as usize;
    if rig.burst.limit() != limit {
        rig.burst = Burst::with_limit(limit).expect("within the limits of a burst");
    }
    let bursts = count.div_ceil(burst) as usize;
    if bursts > 0 && (rig.stock.len() != bursts || rig.stock.iter().any(|stock| stock.limit() != limit)) {
        rig.stock = (0..bursts).map(|_| Burst::with_limit(limit).expect("as above")).collect();
    }
    let mut left = count as usize;
    for stock in rig.stock.iter_mut().take(bursts) {
        left -= rig.cache.alloc(left.min(limit), stock);
        for packet in stock.iter_mut() {
            packet.append(LEN);
        }
    }
    assert_eq!(left, 0, "the pool has a round's packets");
}

extern "C" fn poll(rig: &mut Rig, burst: u32) -> u32 {
    if burst > rig.burst.limit() as u32 {
        ready(rig, 0, burst);
    }
    let got = rig.rx.burst(&mut rig.cache, &mut rig.burst);
    rig.cache.free(&mut rig.burst);
    got as u32
}

extern "C" fn check(rig: &mut Rig, count: u32) -> c_int {
    let (mut number, mut right) = (0, true);
    while number < count {
        rig.rx.burst(&mut rig.cache, &mut rig.burst);
        for packet in &rig.burst {
            let found = packet.get(NUMBER_AT..NUMBER_AT + 4).and_then(|bytes| bytes.try_into().ok());
            right &= packet.len() == LEN && found.map(u32::from_le_bytes) == Some(number);
            number += 1;
        }
        rig.cache.free(&mut rig.burst);
    }
    right.into()
}

/// Moves this thread, and all that it starts from now on, to the CPU.
fn pin() {
    // SAFETY: an empty set of CPUs is all zeros; the calls take a set and its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(CPU, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (Some(family), Some(ring)) = (arguments.first(), arguments.get(1).and_then(|ring| ring.parse().ok())) else {
        eprintln!("usage: peer-vfring FAMILY RING [info] [portable] [flex] [demote]");
        std::process::exit(1);
    };
    let asked = |name: &str| arguments.iter().any(|argument| argument == name);
    let Some(fake) = Fake::find() else {
        eprintln!("peer-vfring: there is no fake VF in this process; run `benches/peer/run`");
        std::process::exit(1);
    };
    let kind = ["ixgbevf", "iavf", "igbvf"].iter().position(|name| name == family).expect("a family") as c_int;
    let sysfs = std::env::temp_dir().join(format!("fakevf-sysfs.{}", std::process::id()));
    let path = CString::new(sysfs.as_os_str().as_encoded_bytes()).expect("a path without zeros");
    // SAFETY: called as fakevf.h says, from one thread: set up, then the thread that plays the PF.
    unsafe {
        (fake.setup)(kind, asked("flex").into(), path.as_ptr());
        (fake.thread_start)();
    }
    let opened = Rig::open(ring, asked("info"), !asked("portable"));
    let _ = std::fs::remove_dir_all(&sysfs);
    let mut rig = match opened {
        Ok(rig) => rig,
        Err(error) => {
            eprintln!("peer-vfring: {error}");
            std::process::exit(1);
        }
    };
    pin();
    let side = Side {
        this: (&raw mut rig).cast(),
        drive: [drive_rx, drive_tx, drive_rx_tx, drive_rx_swap_tx, drive_empty],
        ready,
        poll,
        check,
    };
    // SAFETY: the queues are programmed; the harness calls back with `this` while it serves, from this thread and one call at
    // a time, and `rig` is not touched otherwise.
    let code = unsafe {
        (fake.attach_queues)();
        (fake.thread_stop)();
        (fake.demote)(asked("demote").into());
        (fake.serve)(&side, u32::from(ring))
    };
    // No thread plays the PF any more, so stopping the port would wait for its deadlines.
    // SAFETY: ends the process; nothing of it needs to be tidied up.
    unsafe { libc::_exit(code) }
}
