//! Conformance: one suite for every driver and model, with random IOVA deltas.
//!
//! Each test ends with every buffer at home and no rule broken in the model's eyes
//! ([`Station::finish`](vfring_tests::bed::Station::finish)). Time is virtual, except in `threads` and where a thread sleeps on an interrupt.

#![allow(missing_docs)] // tests say in their names what holds

mod avf;
mod data;
mod filters;
mod forward;
mod interrupts;
mod life;
mod offload;
mod ownership;
mod rss;
mod threads;
