//! Configurations of the device plugin (src/plugin).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vfring::fuzz::plugin_config(bytes));
