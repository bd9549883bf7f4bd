//! Names that differ for a reader to whom upper and lower case are the same.

use std::collections::BTreeSet;

/// Each name as it is, if nothing before it has that name but for the case of ASCII letters; else with the first of
/// `_2`, `_3`, … that no name has. The character that ends a text in C becomes the one that stands for the unreadable.
pub(super) fn distinct(taken: &[&str], names: impl Iterator<Item = String>) -> Vec<String> {
    let names: Vec<String> = names.map(|name| name.replace('\0', "\u{fffd}")).collect();
    let folded = |name: &str| name.to_ascii_lowercase();
    let mut first: BTreeSet<String> = taken.iter().map(|name| folded(name)).collect();
    let is_first: Vec<bool> = names.iter().map(|name| first.insert(folded(name))).collect();
    let mut used = first;
    let chosen = names.into_iter().zip(is_first).map(|(name, is_first)| {
        if is_first {
            return name;
        }
        let mut numbered = (2_u32..).map(|number| format!("{name}_{number}"));
        numbered.find(|name| used.insert(folded(name))).unwrap_or_default()
    });
    chosen.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(taken: &[&str], given: &[&str]) -> Vec<String> {
        distinct(taken, given.iter().map(ToString::to_string))
    }

    #[test]
    fn names_stay_unless_they_differ_by_case_only() {
        assert_eq!(names(&["id"], &["A", "a", "a_2", "b"]), ["A", "a_3", "a_2", "b"]);
        assert_eq!(names(&["id"], &["ID", "Id_2", "id"]), ["ID_3", "Id_2", "id_4"]);
        assert_eq!(names(&[], &["a\0", "a\u{fffd}", "É", "é"]), ["a\u{fffd}", "a\u{fffd}_2", "É", "é"]);
    }
}
