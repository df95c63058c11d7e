//! Runs [`portcullis_fuzz::frames`] on what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| portcullis_fuzz::frames(bytes));
