//! Answers of an ixgbe PF in the mailbox's words (drivers/ixgbevf).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vfring::fuzz::mailbox_replies(bytes));
