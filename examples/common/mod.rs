//! What the example programs share: a command line, signals, cores, and output for people and for programs.
#![allow(dead_code, reason = "each program uses a part of it")]

pub mod args;
pub mod cores;
pub mod human;
pub mod json;
pub mod screen;
pub mod stop;
