//! Runs [`portcullis_fuzz::configuration`] on what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz::configuration(bytes));
