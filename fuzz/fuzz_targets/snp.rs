#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(init: glasshouse_fuzz::targets::snp::init(), |data: &[u8]| glasshouse_fuzz::targets::snp::run(data));

#[cfg(not(fuzzing))]
fn main() {} // a part of `cargo test`, which runs the corpora elsewhere
