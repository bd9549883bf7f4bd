//! Writes the samples into the corpus, for when formats change on purpose: `cargo run --bin write_corpus`.

use std::fs;

use rivus_fuzz::{TARGETS, corpus_of, samples};

fn main() {
    for (target, _) in TARGETS {
        let folder = corpus_of(target);
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (number, sample) in samples::of(target).iter().enumerate() {
            fs::write(folder.join(format!("sample-{number:03}")), sample).expect("the file can be written");
        }
    }
}
