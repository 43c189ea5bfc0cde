//! What all devices of a world share: its clock, device memory, chance, and the record of what drivers did wrong.
#![forbid(unsafe_code)]

use std::time::Duration;

use super::dma::DmaSpace;
use super::rng::Rng;

/// Violations that are kept; a broken loop makes millions.
const KEPT: usize = 64;

/// What the driver did wrong, if it did.
pub(super) type Checked = Result<(), String>;

/// The shared part of a world, handed to its devices by `&mut`.
pub(super) struct Env {
    /// Time of the world, virtual or real.
    pub(super) now: Duration,
    pub(super) dma: DmaSpace,
    pub(super) rng: Rng,
    /// Track every armed buffer: the costly checks.
    pub(super) strict: bool,
    /// Print violations as they happen: nobody may ask for them in a program.
    pub(super) print: bool,
    seed: u64,
    violations: Vec<String>,
}

impl Env {
    pub(super) fn new(seed: u64, strict: bool, print: bool) -> Self {
        let (now, dma, rng) = (Duration::ZERO, DmaSpace::new(), Rng::new(seed));
        Env { now, dma, rng, strict, print, seed, violations: Vec::new() }
    }

    /// Starts chance over.
    pub(super) fn reseed(&mut self, seed: u64) {
        (self.seed, self.rng) = (seed, Rng::new(seed));
    }

    /// Records that the driver of `port` broke a rule; `trace` is the tail of its register accesses.
    pub(super) fn violation(&mut self, port: &str, what: &str, trace: &str) {
        let micros = self.now.as_nanos() as f64 / 1e3;
        let text = format!("{port}: {what} (seed {}, at {micros:.1} us); last register accesses:{trace}", self.seed);
        if self.print && self.violations.len() < KEPT {
            eprintln!("vfring model: {text}");
        }
        if self.violations.len() < KEPT {
            self.violations.push(text);
        }
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.violations.clone()
    }
}
