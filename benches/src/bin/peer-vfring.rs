//! vfring's side of `benches/peer/run`: our driver on the fake VF, opened by its PCI address through the fake VFIO, serving
//! the commands of `benches/peer/harness.c`. Both come into this process by LD_PRELOAD; without them this says so.
//!
//! usage: peer-vfring FAMILY RING BITS [info] [joined] [flex] [llc | dram]; BITS are those of the widest vectors, 0 for none

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use vfring::{Control, Mempool, Port, PortConfig, Result, Started};
use vfring_bench::cpu;
use vfring_bench::driver::{Driver, FRAME, swap_macs};

/// The fake VF's address (fakevf.c).
const ADDRESS: &str = "0000:03:10.0";
/// Where the measuring thread runs, as DPDK's.
const CPU: usize = 1;
/// Where the fake VF writes the packet's number.
const NUMBER_AT: usize = 42;

type Drive = extern "C" fn(&mut Rig, u32, u32);

/// `struct hn_side` (harness.h).
#[repr(C)]
struct Side {
    this: *mut c_void,
    drive: [Drive; 5],
    ready: extern "C" fn(&mut Rig, u32, u32),
    poll: extern "C" fn(&mut Rig, u32) -> u32,
    check: extern "C" fn(&mut Rig, u32) -> c_int,
}

/// The functions of fakevf.c and harness.c.
struct Fake {
    setup: unsafe extern "C" fn(c_int, c_int, *const c_char),
    leave: unsafe extern "C" fn(*const c_char),
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
                leave: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char)>(symbol(c"fv_leave")?),
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

/// A started port's queues, and what stops it.
struct Rig {
    driver: Driver,
    _control: Control,
}

impl Rig {
    fn open(ring: u16, config: PortConfig) -> Result<Rig> {
        let opened = Port::open(&ADDRESS.parse()?, config)?;
        // As many as DPDK's side has.
        let pool = Mempool::builder().buffers(4 * u32::from(ring) + 4096).on(&[&opened])?;
        let Started { control, mut rx, mut tx } = opened.start(&pool)?;
        Ok(Rig { driver: Driver::new(rx.swap_remove(0), tx.swap_remove(0), pool.cache()), _control: control })
    }
}

extern "C" fn drive_rx(rig: &mut Rig, count: u32, _burst: u32) {
    rig.driver.receive(count as usize);
}

extern "C" fn drive_tx(rig: &mut Rig, _count: u32, _burst: u32) {
    rig.driver.send();
}

extern "C" fn drive_rx_tx(rig: &mut Rig, count: u32, _burst: u32) {
    rig.driver.forward(count as usize, |_| ());
}

extern "C" fn drive_rx_swap_tx(rig: &mut Rig, count: u32, _burst: u32) {
    rig.driver.forward(count as usize, |packet| swap_macs(packet));
}

extern "C" fn drive_joined(rig: &mut Rig, count: u32, _burst: u32) {
    rig.driver.join(count as usize, |_| ());
}

extern "C" fn drive_joined_swap(rig: &mut Rig, count: u32, _burst: u32) {
    rig.driver.join(count as usize, |frame| swap_macs(frame));
}

extern "C" fn drive_empty(rig: &mut Rig, count: u32, _burst: u32) {
    rig.driver.poll_empty(count as usize);
}

extern "C" fn ready(rig: &mut Rig, count: u32, burst: u32) {
    rig.driver.ready(count as usize, burst as usize);
}

extern "C" fn poll(rig: &mut Rig, _burst: u32) -> u32 {
    rig.driver.poll(|_| ()) as u32
}

extern "C" fn check(rig: &mut Rig, count: u32) -> c_int {
    let (mut number, mut right) = (0, true);
    while number < count {
        rig.driver.poll(|packet| {
            let found = packet.get(NUMBER_AT..NUMBER_AT + 4).and_then(|bytes| bytes.try_into().ok());
            right &= packet.len() == FRAME && found.map(u32::from_le_bytes) == Some(number);
            number += 1;
        });
    }
    right.into()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|number| number.parse().ok());
    let (Some(family), Some(ring), Some(vector_bits)) = (arguments.first(), number(1), number(2)) else {
        eprintln!("usage: peer-vfring FAMILY RING BITS [info] [joined] [flex] [llc | dram]");
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
    let config = PortConfig::new().rings(ring, ring).rx_info(asked("info")).vector_bits(vector_bits);
    let opened = Rig::open(ring, config);
    let _ = std::fs::remove_dir_all(&sysfs);
    let mut rig = match opened {
        Ok(rig) => rig,
        Err(error) => {
            eprintln!("peer-vfring: {error}");
            std::process::exit(1);
        }
    };
    cpu::pin(CPU);
    let (through, swapped): (Drive, Drive) =
        if asked("joined") { (drive_joined, drive_joined_swap) } else { (drive_rx_tx, drive_rx_swap_tx) };
    let side = Side {
        this: (&raw mut rig).cast(),
        drive: [drive_rx, drive_tx, through, swapped, drive_empty],
        ready,
        poll,
        check,
    };
    // SAFETY: the queues are programmed; the harness calls back with `this` while it serves, from this thread and one call at
    // a time, and `rig` is not touched otherwise.
    let code = unsafe {
        (fake.attach_queues)();
        (fake.thread_stop)();
        for lines in [c"llc", c"dram"].into_iter().filter(|lines| lines.to_str().is_ok_and(asked)) {
            (fake.leave)(lines.as_ptr());
        }
        (fake.serve)(&side, u32::from(ring))
    };
    // No thread plays the PF any more, so stopping the port would wait for its deadlines.
    // SAFETY: ends the process; nothing of it needs to be tidied up.
    unsafe { libc::_exit(code) }
}
