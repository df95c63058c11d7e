//! Runs [`portcullis_fuzz::modules`] on what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz::modules(bytes));
