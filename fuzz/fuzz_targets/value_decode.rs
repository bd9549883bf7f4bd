#![cfg_attr(fuzzing, no_main)]

rivus_testkit::fuzz_merge!(rivus_fuzz::value_decode);
