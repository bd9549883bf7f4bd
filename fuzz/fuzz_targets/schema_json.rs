#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rivus_fuzz::schema_json(data));

#[cfg(not(fuzzing))]
fn main() {
    rivus_fuzz::repeat(rivus_fuzz::schema_json);
}
