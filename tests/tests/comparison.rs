//! What the comparison claims is shown by tests: each row names one, and those are there.

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/comparison.md");

/// The names of the functions of all Rust files below.
fn functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| {
                let (_, rest) = line.trim_start().split_once("fn ")?;
                let end = rest.find(['(', '<'])?;
                rest.get(..end)
            });
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_row_names_tests_that_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut known = BTreeSet::new();
    for folder in ["crates", "tests", "examples"] {
        functions(&top.join(folder), &mut known);
    }
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.contains("shown "));
    let mut count = 0;
    for row in rows {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test in: {row}");
        for name in names {
            assert!(known.contains(name), "no test `{name}`, for: {row}");
        }
        count += 1;
    }
    assert!(count > 40, "the page has its {count} rows in another form than this test reads");
}
