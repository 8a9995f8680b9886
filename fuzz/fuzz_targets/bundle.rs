#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| glasshouse_fuzz::targets::bundle::run(data));

#[cfg(not(fuzzing))]
fn main() {} // a part of `cargo test`, which runs the corpora elsewhere
