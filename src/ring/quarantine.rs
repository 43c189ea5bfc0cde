//! Where a dropped queue leaves the buffers that the device may still write to.
//!
//! Queues never free DMA memory. A queue that is dropped leaves its ring and its in-flight buffers here; control opens
//! the quarantine once the device has been reset, and only then do they go home. A queue that is dropped after that
//! may take them home itself. What always holds: nothing leaves before `open`, and everything leaves exactly once.

use std::sync::PoisonError;

use crate::sync::Mutex;

/// Things that wait for the device's reset. `T` goes home by being dropped.
pub(crate) struct Quarantine<T> {
    inner: Mutex<Inner<T>>,
}

struct Inner<T> {
    open: bool,
    kept: Vec<T>,
}

impl<T> Quarantine<T> {
    pub(crate) fn new() -> Quarantine<T> {
        Quarantine { inner: Mutex::new(Inner { open: false, kept: Vec::new() }) }
    }

    /// Leaves `thing` here; it goes home at once when the device has been reset already.
    pub(crate) fn leave(&self, thing: T) {
        let Ok(mut inner) = self.inner.lock() else {
            // A thread died inside this module, which nothing here can do; leaking is the safe answer.
            std::mem::forget(thing);
            return;
        };
        if inner.open {
            drop(inner);
            drop(thing);
        } else {
            inner.kept.push(thing);
        }
    }

    /// The device has been reset: everything goes home, now and from now on.
    ///
    /// # Safety
    /// The device does no DMA to anything that was or will be left here: it was reset after the last start that
    /// these things belong to, and no queue of that start will be enabled again.
    pub(crate) unsafe fn open(&self) {
        let Ok(mut inner) = self.inner.lock() else { return };
        inner.open = true;
        let kept = std::mem::take(&mut inner.kept);
        drop(inner);
        drop(kept);
    }
}

impl<T> Drop for Quarantine<T> {
    fn drop(&mut self) {
        // Never opened: the device was never reset, so what is here must not be freed. Control always resets; this is
        // for the case that it was leaked.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if !inner.open {
            std::mem::forget(std::mem::take(&mut inner.kept));
        }
    }
}
