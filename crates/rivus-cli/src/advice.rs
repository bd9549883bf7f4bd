//! What to do about an error with this program.
//!
//! The library says what is wrong and what can be done about it, and knows no commands and options. Owns the sentence
//! that goes behind that.

use rivus::rivus_core::code::Code;
use rivus::rivus_core::session::SessionError;
use rivus::{EditError, Error, StoreError, SyncError};

/// The error in words, with what to do about it here.
pub(crate) fn told(error: &anyhow::Error) -> String {
    let advice = error.chain().filter_map(|cause| cause.downcast_ref()).find_map(advice);
    match advice {
        Some(advice) => format!("{error:#}; {advice}"),
        None => format!("{error:#}"),
    }
}

fn advice(error: &Error) -> Option<String> {
    match error {
        Error::Store(StoreError::Damaged(_)) => Some(DAMAGED.to_owned()),
        Error::Sync(error) if code(error) == Some(Code::UNAUTHORISED) => Some(UNAUTHORISED.to_owned()),
        Error::Edit(EditError::WrongType { field, ty, .. }) => Some(instead(field, ty)),
        _ => None,
    }
}

/// What the hub says.
fn code(error: &SyncError) -> Option<Code> {
    match error {
        SyncError::Session(SessionError::Goaway { code, .. }) | SyncError::TurnedAway { code, .. } => {
            Some(*code)
        }
        _ => None,
    }
}

/// How `put` changes a field of this type.
fn instead(field: &str, ty: &str) -> String {
    match ty.split([',', ' ']).next() {
        Some("set") => format!("with `put`: --add {field}=KEY, --remove {field}=KEY"),
        Some("map") => format!("with `put`: --set-key {field}.KEY=VALUE, --remove {field}=KEY"),
        Some("counter") => format!("with `put`: --inc {field}=N"),
        _ => format!("with `put`: {field}=VALUE"),
    }
}

const DAMAGED: &str = "`verify` names what is damaged, `export --skip-damaged` writes everything else";
const UNAUTHORISED: &str = "give a token that the hub grants with --token or in RIVUS_TOKEN";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_that_does_not_fit_is_told_with_the_option_that_does() {
        for (ty, option) in [
            ("set, add wins", "--add f=KEY, --remove f=KEY"),
            ("map", "--set-key f.KEY=VALUE, --remove f=KEY"),
            ("counter", "--inc f=N"),
            ("value, margin 0 ms, newest", "f=VALUE"),
        ] {
            let (kind, field) = ("k".to_owned(), "f".to_owned());
            let error = EditError::WrongType { kind, field, ty: ty.to_owned(), tried: "put" };
            let told = told(&Error::from(error).into());
            assert!(told.ends_with(&format!("; with `put`: {option}")), "{told}");
        }
    }
}
