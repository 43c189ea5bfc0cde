//! Faults (design 6.5): every way in which a model misbehaves, in virtual time.
//!
//! What is asserted everywhere: an operation ends within its deadlines, in success or in an error of one line; nothing
//! panics; no rule of the device is broken, least of all DMA after a reset; every buffer comes home.

#![allow(missing_docs)] // tests say in their names what holds

mod every_access;
mod input;
mod pf;
mod resets;
mod silent;
mod values;
