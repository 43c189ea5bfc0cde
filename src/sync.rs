//! The atomics and queues of the concurrent protocols, by one name.
//!
//! `mem/depot.rs` and `port/state.rs` use nothing but these, so that the loom tests can compile the very same files
//! over loom's types.

pub(crate) use crossbeam::queue::ArrayQueue;
pub(crate) use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
pub(crate) use std::sync::Mutex;
