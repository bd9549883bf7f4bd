//! Which scopes a grant is for: by name, or by how names begin.
//!
//! Owns the patterns and what they cover. Whom they are granted to is in `grant`; nothing here knows which scopes there
//! are, so a scope that is made later is covered by the patterns of before.

use thiserror::Error;

use super::Access;
use crate::scope::SCOPE_BYTES_MAX;

/// What a grant allows with scopes: by default everything. Neither right implies the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    /// The scopes that may be read.
    pub read: Scopes,
    /// The scopes that may be written. Only there may be brought back what the hub has lost, too ([`Access::Restore`]).
    pub write: Scopes,
}

impl Rights {
    /// Whether no scope is left out.
    pub(super) fn is_everything(&self) -> bool {
        self.read == Scopes::all() && self.write == Scopes::all()
    }

    pub(super) fn allows(&self, access: Access, scope: &str) -> bool {
        match access {
            Access::Read => self.read.has(scope),
            // What is brought back is written, and is not even judged.
            Access::Write | Access::Restore => self.write.has(scope),
        }
    }
}

/// Some scopes, or all of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scopes(Option<Vec<String>>);

impl Scopes {
    /// Every scope, that without a name too.
    #[must_use]
    pub fn all() -> Self {
        Self(None)
    }

    /// No scope.
    #[must_use]
    pub fn none() -> Self {
        Self(Some(Vec::new()))
    }

    /// Those that one of the patterns covers. A pattern is the name of a scope, empty for the scope without a name; or the
    /// beginning of names and a `*`. Without a pattern there are none.
    ///
    /// # Errors
    /// [`ScopesError`] if a pattern can cover no scope, or has a `*` before its end.
    ///
    /// ```
    /// use rivus_core::session::Scopes;
    /// let scopes = Scopes::of(["home", "work/*"])?;
    /// assert!(scopes.has("work/plans") && !scopes.has("work") && !scopes.has(""));
    /// # Ok::<(), rivus_core::session::ScopesError>(())
    /// ```
    pub fn of<P: Into<String>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, ScopesError> {
        let patterns: Vec<String> = patterns.into_iter().map(Into::into).collect();
        for pattern in &patterns {
            let name = pattern.strip_suffix(MORE).unwrap_or(pattern);
            if name.contains(MORE) {
                return Err(ScopesError::Middle { pattern: pattern.clone() });
            }
            if name.len() > SCOPE_BYTES_MAX {
                return Err(ScopesError::TooLong { bytes: name.len() });
            }
        }
        // So it is said in one way alone, and is asked of nothing.
        let is_all = patterns.iter().any(|pattern| pattern.strip_suffix(MORE) == Some(""));
        Ok(Self((!is_all).then_some(patterns)))
    }

    /// Whether the scope of this name is among them.
    #[must_use]
    pub fn has(&self, scope: &str) -> bool {
        let covers = |pattern: &String| match pattern.strip_suffix(MORE) {
            Some(beginning) => scope.starts_with(beginning),
            None => scope == pattern,
        };
        self.0.as_ref().is_none_or(|patterns| patterns.iter().any(covers))
    }
}

/// At the end of a pattern: whatever comes then.
const MORE: char = '*';

/// Why patterns name no scopes.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ScopesError {
    /// A `*` that is not at the end.
    #[error("`{pattern}` has a * before its end: a * stands for the rest of a name, so put it last, once")]
    Middle {
        /// The pattern.
        pattern: String,
    },
    /// A name that no scope can have.
    #[error("a pattern of {bytes} bytes: the name of a scope has at most {SCOPE_BYTES_MAX}")]
    TooLong {
        /// How long it is, without a `*`.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_one_name_or_all_that_begin_with_it() {
        let covered = |patterns: &[&str]| {
            let scopes = Scopes::of(patterns.iter().copied()).unwrap();
            let all = ["", "home", "home/garden", "work"];
            all.into_iter().filter(|scope| scopes.has(scope)).collect::<Vec<_>>()
        };
        assert_eq!(covered(&["home"]), ["home"]);
        assert_eq!(covered(&["home*"]), ["home", "home/garden"]);
        assert_eq!(covered(&["home/*", "work"]), ["home/garden", "work"]);
        assert_eq!(covered(&[""]), [""]);
        assert_eq!(covered(&["*"]), ["", "home", "home/garden", "work"]);
        assert_eq!(covered(&[]), [""; 0]);
        assert!(Scopes::all().has("") && Scopes::all().has("home"));
        assert_eq!((Scopes::of([""; 0]), Scopes::of(["x", "*"])), (Ok(Scopes::none()), Ok(Scopes::all())));
    }

    #[test]
    fn a_star_before_the_end_and_a_name_that_no_scope_has_are_no_patterns() {
        for pattern in ["*home", "ho*me", "home**", "*/*"] {
            assert_eq!(Scopes::of([pattern]), Err(ScopesError::Middle { pattern: pattern.to_owned() }));
        }
        let (longest, longer) = ("x".repeat(SCOPE_BYTES_MAX), "x".repeat(SCOPE_BYTES_MAX + 1));
        assert!(Scopes::of([longest.clone(), format!("{longest}*")]).is_ok());
        assert_eq!(Scopes::of([longer]), Err(ScopesError::TooLong { bytes: SCOPE_BYTES_MAX + 1 }));
    }

    #[test]
    fn what_may_not_be_written_may_not_be_brought_back_and_neither_right_implies_the_other() {
        let scopes = |name: &str| Scopes::of([name]).unwrap();
        let rights = Rights { read: scopes("a"), write: scopes("b") };
        let allowed =
            |scope| [Access::Read, Access::Write, Access::Restore].map(|access| rights.allows(access, scope));
        assert_eq!((allowed("a"), allowed("b")), ([true, false, false], [false, true, true]));
        assert!(Rights::default().is_everything() && !rights.is_everything());
        assert!(!Rights { write: Scopes::none(), ..Rights::default() }.is_everything());
        assert!(!Rights { read: Scopes::none(), ..Rights::default() }.is_everything());
    }
}
