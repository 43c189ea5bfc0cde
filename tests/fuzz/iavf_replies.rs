//! Replies and events of a PF in virtchnl's words (drivers/iavf).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vfring::fuzz::iavf_replies(bytes));
