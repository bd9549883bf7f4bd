//! Bytes that were written once and are read for ever: the files of `tests/golden`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// Where a golden file or folder is.
pub(crate) fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/golden", name].iter().collect()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes that hexadecimal digits stand for, white space aside.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

/// The pieces of a file: a line with a name, then its digits, indented. Lines that begin with `#` are for people.
pub(crate) fn pieces(file: &str) -> BTreeMap<String, Vec<u8>> {
    let text = std::fs::read_to_string(path(file)).unwrap();
    let mut digits: Vec<(&str, String)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.strip_prefix(' ') {
            Some(more) => digits.last_mut().unwrap().1.push_str(more),
            None => digits.push((line, String::new())),
        }
    }
    let names = digits.len();
    let pieces: BTreeMap<_, _> =
        digits.into_iter().map(|(name, hex)| (name.to_owned(), bytes(&hex))).collect();
    assert_eq!(pieces.len(), names, "{file} has a name twice");
    pieces
}

/// Asserts that the file holds exactly what is written today, byte for byte, under the same names.
pub(crate) fn assert_same(file: &str, written: &[(String, Vec<u8>)]) {
    let mut kept = pieces(file);
    let mut differs = String::new();
    for (name, bytes) in written {
        if kept.remove(name).as_ref() != Some(bytes) {
            writeln!(differs, "{name}").unwrap();
            hex(bytes).as_bytes().chunks(100).for_each(|line| {
                writeln!(differs, "  {}", std::str::from_utf8(line).unwrap()).unwrap();
            });
        }
    }
    let names: Vec<_> = kept.keys().collect();
    assert!(names.is_empty(), "nothing writes these any more: {names:?} of {file}");
    assert!(differs.is_empty(), "{file} has no such bytes:\n{differs}");
}
