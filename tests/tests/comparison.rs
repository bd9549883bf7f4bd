//! What the comparison claims is shown by tests: each row names one, and those are there.

use std::collections::BTreeSet;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/comparison.md");
const HEADINGS: [&str; 2] =
    ["| capability | theirs | in Rivus | shown by |", "| where | what happened | shown not to happen by |"];

/// The names of the tests in all Rust files below.
fn tests_below(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.extend(tests_in(&std::fs::read_to_string(&path).unwrap()));
        }
    }
}

/// The names of the functions that an attribute makes tests, be it within `proptest!`.
fn tests_in(text: &str) -> BTreeSet<String> {
    let (mut found, mut is_test) = (BTreeSet::new(), false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((before, rest)) = line.split_once("fn ")
            && is_test
            && ["", "async "].contains(&before)
            && let Some(end) = rest.find(['(', '<'])
        {
            found.extend(rest.get(..end).map(str::to_owned));
            is_test = false;
        } else {
            // Other attributes and comments may be between.
            is_test &= line.starts_with("#[") || line.starts_with("//");
        }
    }
    found
}

#[test]
fn every_row_names_tests_that_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut known = BTreeSet::new();
    for folder in ["crates", "tests", "examples"] {
        tests_below(&top.join(folder), &mut known);
    }
    assert_eq!(HEADINGS.map(|heading| PAGE.lines().filter(|line| *line == heading).count()), [1, 1]);
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !HEADINGS.contains(line));
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

#[test]
fn a_function_without_the_attribute_is_no_test() {
    let text = "
        fn plain() {}
        #[test]
        fn test() {}
        fn after() {}
        #[tokio::test(flavor = \"multi_thread\")]
        // On several threads.
        #[cfg(unix)]
        async fn awaits() {}
        proptest! {
            #[test]
            fn property(n in 0..9) {}
            fn draws(n in 0..9) {}
        }
        #[test]
        const NONE: u8 = 0;
        fn behind() {}
        // fn said() {}
    ";
    let expected = ["test", "awaits", "property"].map(str::to_owned);
    assert_eq!(tests_in(text), expected.into());
}
