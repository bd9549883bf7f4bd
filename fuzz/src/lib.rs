//! Harnesses for hostile bytes, one function each.
//!
//! With nightly and cargo-fuzz: `cargo fuzz run session`. On stable the same functions run as ordinary tests
//! (`cargo test --manifest-path fuzz/Cargo.toml`) over the corpus, damaged samples and random bytes, all from a seed
//! that is printed; `RIVUS_SEED=… cargo test` repeats or changes it. `cargo run --bin session -- FILE` repeats a crash
//! file, which then becomes a file of the corpus.
//!
//! Whatever the bytes: no panic, no broken invariant, refusals are errors, and decoding takes at most 8 times its
//! input and 64 KiB of memory.

pub mod allocation;
#[allow(dead_code, reason = "the command line's own file; only its values are read here")]
#[path = "../../crates/rivus-cli/src/assignment.rs"]
mod assignment;
mod connection;
mod frames;
mod import;
mod registers;
pub mod samples;
mod stores;
#[allow(dead_code, reason = "the command line's own file; only its values are shown here")]
#[path = "../../crates/rivus-cli/src/table.rs"]
mod table;
mod text;
mod user;

use rivus_core::row::Row;
use rivus_core::value::{self, Json, Value};
use rivus_core::view::View;

use allocation::within;
pub use connection::session;
pub use frames::{TIMES_MAX, frame_decode, rows_decode};
pub use import::import_file;
pub use registers::register_join;
pub use stores::{store_memory, store_sqlite};
pub use text::{replay_script, schema_json, schema_toml};
pub use user::user_merge;

/// What the reader of import files expects of the command line.
mod args {
    /// A file format.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) enum Format {
        Json,
        Jsonl,
        Csv,
    }
}

/// A target: its name, which is its folder in the corpus, and its harness.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 13] = [
    ("frame_decode", frame_decode),
    ("import_file", import_file),
    ("register_join", register_join),
    ("replay_script", replay_script),
    ("row", row),
    ("schema_json", schema_json),
    ("schema_toml", schema_toml),
    ("session", session),
    ("store_memory", store_memory),
    ("store_sqlite", store_sqlite),
    ("user_merge", user_merge),
    ("value_decode", value_decode),
    ("value_json", value_json),
];

/// Where the corpus of a target is.
#[must_use]
pub fn corpus_of(target: &str) -> std::path::PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "corpus", target].iter().collect()
}

/// A stored row from a damaged file.
pub fn row(data: &[u8]) {
    let Ok(row) = Row::new(data, 7) else { return };
    let mut addresses = Vec::new();
    for entry in row.entries() {
        let Ok(entry) = entry else { break };
        addresses.push(entry.address);
        let _ = within(TIMES_MAX, data.len(), "an entry of a row", || entry.state());
    }
    for address in addresses {
        let _ = row.find(address);
    }
    let schema = samples::schema();
    for kind in schema.kinds() {
        let _ = View::read(kind, [row]);
    }
}

/// How many times its bytes a value may take: a map of one entry is 3 bytes, and a node of a tree.
const VALUE_TIMES_MAX: usize = 256;

/// A value's bytes.
pub fn value_decode(data: &[u8]) {
    let (checked, prefix) =
        within(0, 0, "checking a value", || (value::check(data), value::check_prefix(data)));
    match within(VALUE_TIMES_MAX, data.len(), "a value", || Value::decode(data)) {
        Ok(value) => {
            assert_eq!((checked, prefix.clone()), (Ok(()), Ok(data.len())));
            assert_eq!(value.to_bytes(), data, "one form for each value");
            let json = serde_json::to_string(&Json(&value)).expect("every value has a JSON form");
            assert_eq!(Value::from_json_str(&json), Ok(value));
        }
        Err(_) if data == value::ABSENT => assert_eq!(checked, Ok(())),
        Err(error) => assert_eq!(checked, Err(error)),
    }
    if let Ok(len) = prefix {
        assert_eq!(value::check(&data[..len]), Ok(()));
    }
}

/// A value in JSON.
pub fn value_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(value) = Value::from_json_str(text) else { return };
    assert!(value.depth_ok());
    assert_eq!(Value::decode(&value.to_bytes()), Ok(value.clone()));
    let json = serde_json::to_string(&Json(&value)).expect("every value has a JSON form");
    assert_eq!(Value::from_json_str(&json), Ok(value));
}

#[cfg(test)]
mod tests;
