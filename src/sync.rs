//! The atomics and queues of the concurrent protocols, by one name.
//!
//! `mem/depot.rs`, `ring/state.rs` and `ring/quarantine.rs` use nothing but these, so that the loom tests
//! (`tests/it/loom.rs`) can compile the very same files over loom's types.
#![forbid(unsafe_code)]

pub(crate) use crossbeam::queue::ArrayQueue;
pub(crate) use std::sync::Mutex;
pub(crate) use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
