//! Exact instruction counts of a piece of code, by single-stepping: with the trap flag set the CPU traps after every
//! instruction, and the traps are counted. Whatever the CPU can execute can be counted, unlike under an emulator.
//!
//! What always holds: the flag is set between `on` and `off` only, in the thread that asked; the kernel clears it while the
//! handler runs.

use std::arch::asm;
use std::sync::atomic::{AtomicU64, Ordering};

/// Traps so far.
static STEPS: AtomicU64 = AtomicU64::new(0);

extern "C" fn on_trap(_: libc::c_int) {
    STEPS.fetch_add(1, Ordering::Relaxed);
}

/// Sets the trap flag, bit 8 of RFLAGS.
#[inline(always)]
fn on() {
    // SAFETY: changes nothing but the flag; the block may use the stack, and SIGTRAP has a handler.
    unsafe { asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
}

/// Clears it.
#[inline(always)]
fn off() {
    // SAFETY: as above.
    unsafe { asm!("pushfq", "and qword ptr [rsp], ~0x100", "popfq") };
}

#[inline(never)]
fn nothing() {
    // SAFETY: no instruction at all; it keeps the call.
    unsafe { asm!("") };
}

/// Counts instructions.
pub struct Stepper {
    /// What stepping itself takes.
    base: u64,
}

impl Stepper {
    /// Takes over SIGTRAP. `None` where traps do not come, under a debugger, say.
    pub fn new() -> Option<Stepper> {
        // SAFETY: an empty mask and no flags are all zeros; the handler touches one atomic.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_trap as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut());
        }
        let base = Stepper { base: 0 }.count(nothing).1;
        (base > 0).then_some(Stepper { base })
    }

    /// What `code` returns and how many instructions it took.
    #[inline(never)]
    pub fn count<T>(&self, code: impl FnOnce() -> T) -> (T, u64) {
        let before = STEPS.load(Ordering::Relaxed);
        on();
        let result = code();
        off();
        (result, (STEPS.load(Ordering::Relaxed) - before).saturating_sub(self.base))
    }
}
