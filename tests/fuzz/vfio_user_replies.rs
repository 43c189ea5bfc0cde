//! A vfio-user server's side of taking a device over (src/vfio/user).
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vfring::fuzz::vfio_user_replies(bytes));
