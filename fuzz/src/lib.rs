//! Harnesses for hostile bytes, one function each.
//!
//! With nightly and cargo-fuzz: `cargo fuzz run session`. On stable the same functions run as ordinary tests
//! (`cargo test --manifest-path fuzz/Cargo.toml`) over samples, damaged samples and random bytes; a failure prints
//! the seed, and `RIVUS_SEED=… cargo test` repeats it. `cargo run --bin session -- FILE` repeats a crash file.
//!
//! Whatever the bytes: no panic, no broken invariant, and refusals are errors.

mod connection;
mod registers;
pub mod samples;

use rivus_core::id::StoreId;
use rivus_core::replica::Incoming;
use rivus_core::row::{Change, Row};
use rivus_core::schema::Schema;
use rivus_core::value::{self, Json, Value};
use rivus_core::view::View;
use rivus_core::wire::Frame;
use rivus_core::wire::page::RowDecoder;

pub use connection::session;
pub use registers::register_join;

/// Any frame, to a decoder that has read nothing and to one that has read a page.
pub fn frame_decode(data: &[u8]) {
    if let Ok(frame) = Frame::decode(data)
        && frame != Frame::Ignored
    {
        assert_eq!(Frame::decode(&frame.encode()), Ok(frame), "what was read is written and read again");
    }
    for before in [None, Some(samples::page())] {
        let mut decoder = RowDecoder::default();
        if let Some(page) = before {
            decoder.page(page, StoreId(1)).expect("the sample is a page");
        }
        if let Ok(page) = decoder.page(data, StoreId(1)) {
            check_rows(&page.rows);
        }
        if let Ok(push) = RowDecoder::default().push(data, StoreId(1)) {
            push.edits.iter().for_each(|edit| check_rows(&edit.entities));
        }
    }
}

fn check_rows(rows: &[Incoming<'_>]) {
    for (address, change) in rows.iter().flat_map(|row| &row.changes) {
        assert!(rivus_core::address::is_well_formed(address));
        let Change::Join { register, .. } = change else { panic!("a frame holds joins: {change:?}") };
        assert_eq!(register.check(), Ok(()));
        for candidate in register.alive.iter() {
            assert_eq!(value::check(candidate.value), Ok(()));
        }
    }
}

/// A stored row from a damaged file.
pub fn row(data: &[u8]) {
    let Ok(row) = Row::new(data, 7) else { return };
    let mut addresses = Vec::new();
    for entry in row.entries() {
        let Ok(entry) = entry else { break };
        addresses.push(entry.address);
        let _ = entry.state();
    }
    for address in addresses {
        let _ = row.find(address);
    }
    let schema = samples::schema();
    for kind in schema.kinds() {
        let _ = View::read(kind, [row]);
    }
}

/// A value's bytes.
pub fn value_decode(data: &[u8]) {
    let checked = value::check(data);
    let prefix = value::check_prefix(data);
    match Value::decode(data) {
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

/// A schema in JSON.
pub fn schema_json(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(schema) = Schema::from_json_str(text) else { return };
    let again = Schema::from_json_str(&schema.to_json()).expect("what was written can be read");
    assert_eq!(again.fingerprint(), schema.fingerprint());
    assert!(schema.compare(&again).is_empty() && schema.compare_policies(&again.policies()).is_empty());
}

/// Runs a harness over the files named on the command line.
pub fn repeat(harness: fn(&[u8])) {
    for path in std::env::args_os().skip(1) {
        println!("{}", path.display());
        harness(&std::fs::read(path).expect("the file can be read"));
    }
}

#[cfg(test)]
mod tests;
