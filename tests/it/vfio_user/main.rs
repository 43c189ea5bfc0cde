//! The drivers on models that other processes serve: the part of the conformance suite that needs nothing but traffic,
//! the control language and signals, over a real socket and in real time.
//!
//! Each test starts its own server, whose wire ends in the test. All of them open ports by `vfio-user:PATH`.

mod bed;
mod programs;
mod proxy;
mod recovery;
mod traffic;
