#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rivus_fuzz::value_decode(data));

#[cfg(not(fuzzing))]
fn main() {
    rivus_fuzz::repeat(rivus_fuzz::value_decode);
}
