//! The tokens of the file: what each grants, and what cannot be meant.
//!
//! Owns the words of `[[grants]]`. A mistake is told with the number of the grant, from 1 on, and its subject; never with
//! the token.

use std::collections::BTreeMap;

use anyhow::Result;
use rivus::{Grant, Rights, Scopes};
use serde::{Deserialize, Serialize};

use super::settings::Serve;

/// A token in the file.
#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileGrant {
    pub(crate) token: String,
    pub(crate) rank: u8,
    pub(crate) subject: Option<String>,
    /// The scopes that may be read; everything if it is not there.
    pub(crate) read: Option<Listed>,
    /// The scopes that may be written.
    pub(crate) write: Option<Listed>,
}

impl std::fmt::Debug for FileGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("FileGrant").field("rank", &self.rank).finish_non_exhaustive()
    }
}

/// Scopes as they are listed in the file.
#[derive(Deserialize, Clone, Debug)]
#[serde(untagged, expecting = "expected a list of scopes, such as [\"home\", \"work/*\"], or \"nothing\"")]
pub(crate) enum Listed {
    Word(String),
    Patterns(Vec<String>),
}

/// The right to these scopes, or what is wrong with the list.
fn scopes(right: &str, listed: Option<&Listed>) -> Result<Scopes, String> {
    match listed {
        None => Ok(Scopes::all()),
        Some(Listed::Word(word)) if word == NOTHING => Ok(Scopes::none()),
        Some(Listed::Word(word)) => {
            Err(format!("`{right}` is a list: [\"{word}\"] if that is a scope, or \"{NOTHING}\""))
        }
        Some(Listed::Patterns(patterns)) if patterns.is_empty() => Err(format!(
            "`{right}` is an empty list: leave it out for everything, or say {right} = \"{NOTHING}\""
        )),
        Some(Listed::Patterns(patterns)) => {
            Scopes::of(patterns.iter().cloned()).map_err(|error| format!("in `{right}` {error}"))
        }
    }
}

/// What each token of the file grants.
///
/// # Errors
/// The first grant that cannot be meant as it stands.
pub(super) fn granted(serve: &Serve, is_open: bool) -> Result<Vec<(&str, Grant)>> {
    let (mut all, mut numbers) = (Vec::new(), BTreeMap::new());
    for (number, grant) in (1..).zip(&serve.grants) {
        let rights = rights(grant, number, &mut numbers).and_then(|rights| {
            let is_narrowed = rights != Rights::default();
            if is_narrowed && is_open {
                return Err(
                    "it is for some scopes, and the hub is open: whoever leaves the token out reads and \
                            writes everything"
                        .to_owned(),
                );
            }
            if is_narrowed && serve.peer == Some(true) {
                return Err(
                    "it is for some scopes, and a peer has none: it gives and takes everything".to_owned()
                );
            }
            Ok(rights)
        });
        let rights = rights.map_err(|wrong| {
            let subject = grant.subject.as_deref().filter(|subject| !subject.is_empty());
            let subject = subject.map(|subject| format!(" ({subject})")).unwrap_or_default();
            crate::usage(&format!("grant {number}{subject}: {wrong}"))
        })?;
        let subject = grant.subject.clone().unwrap_or_default();
        all.push((grant.token.as_str(), Grant { subject, rank: grant.rank, rights, ..Grant::default() }));
    }
    Ok(all)
}

/// What a grant is for, or what is wrong with it by itself and beside those before it.
fn rights<'g>(
    grant: &'g FileGrant,
    number: usize,
    numbers: &mut BTreeMap<&'g str, usize>,
) -> Result<Rights, String> {
    if grant.token.is_empty() {
        return Err(
            "a token in [[grants]] is empty: everybody can show that; make one with `openssl rand -hex 24`"
                .to_owned(),
        );
    }
    if let Some(first) = numbers.insert(&grant.token, number) {
        return Err(format!("its token is that of grant {first}: one of the two would count for nothing"));
    }
    if grant.subject.as_deref() == Some("") {
        return Err("`subject` is empty: leave it out, and its name is made of the token".to_owned());
    }
    let read = scopes("read", grant.read.as_ref())?;
    let write = scopes("write", grant.write.as_ref())?;
    if read == Scopes::none() && write == Scopes::none() {
        return Err("it may neither read nor write anything: leave it out".to_owned());
    }
    Ok(Rights { read, write })
}

/// What a token of the file comes to, for those who check it.
#[derive(Serialize)]
pub(super) struct Told<'g> {
    subject: Option<&'g str>,
    rank: u8,
    /// What is listed; everything without a list.
    read: Option<&'g [String]>,
    write: Option<&'g [String]>,
}

impl<'g> Told<'g> {
    pub(super) fn new(grant: &'g FileGrant) -> Self {
        let patterns = |listed: &'g Option<Listed>| {
            listed.as_ref().map(|listed| match listed {
                Listed::Word(_) => &[][..],
                Listed::Patterns(patterns) => patterns,
            })
        };
        let (read, write) = (patterns(&grant.read), patterns(&grant.write));
        Self { subject: grant.subject.as_deref(), rank: grant.rank, read, write }
    }

    pub(super) fn line(&self) -> String {
        let scopes = |patterns: Option<&[String]>| match patterns {
            None => "everything".to_owned(),
            Some([]) => NOTHING.to_owned(),
            Some(patterns) => patterns.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
        };
        let subject = self.subject.map(|subject| format!("{subject}, ")).unwrap_or_default();
        format!("{subject}rank {}, reads {}, writes {}", self.rank, scopes(self.read), scopes(self.write))
    }
}

/// The grant in which a line of the file is, counted from 1; `None` if it is in none.
pub(super) fn at_line(text: &str, line: usize) -> Option<usize> {
    let bare = |line: &str| -> String {
        let code = line.split('#').next().unwrap_or_default();
        code.chars().filter(|c| !c.is_whitespace()).collect()
    };
    let (mut number, mut is_in) = (0, false);
    for line in text.lines().take(line).map(bare) {
        if line.starts_with('[') && line.ends_with(']') {
            is_in = line == "[[grants]]";
            number += usize::from(is_in);
        }
    }
    is_in.then_some(number)
}

/// Instead of a list: no scope.
const NOTHING: &str = "nothing";

#[cfg(test)]
mod tests {
    use super::*;

    fn why(grants: &str, is_open: bool, peer: bool) -> String {
        #[derive(Deserialize)]
        struct File {
            grants: Vec<FileGrant>,
        }
        let File { grants } = toml::from_str(grants).unwrap();
        let serve = Serve { grants, peer: Some(peer), ..Serve::default() };
        granted(&serve, is_open).map_or_else(|error| error.to_string(), |_| String::new())
    }

    const ANN: &str = "[[grants]]\ntoken = \"s3cret\"\nrank = 5\nsubject = \"ann\"\n";

    #[test]
    fn what_cannot_be_meant_is_told_with_the_number_of_the_grant_and_without_a_token() {
        let told = |of_second: &str, expected: &str| {
            let second = format!("{ANN}[[grants]]\ntoken = \"t0ken\"\nrank = 0\n{of_second}\n");
            let why = why(&second, false, false);
            assert!(why.contains(expected) && !why.contains("t0ken"), "{why}");
        };
        told("read = []", "grant 2: `read` is an empty list");
        told("write = []", "grant 2: `write` is an empty list");
        told("read = \"home\"", "grant 2: `read` is a list: [\"home\"]");
        told(
            "subject = \"bob\"\nwrite = [\"ho*me\"]",
            "grant 2 (bob): in `write` `ho*me` has a * before its end",
        );
        told("read = \"nothing\"\nwrite = \"nothing\"", "grant 2: it may neither read nor write");
        told("subject = \"\"", "grant 2: `subject` is empty");
        told(&format!("{ANN}read = [\"x\"]"), "grant 3 (ann): its token is that of grant 1");
        assert_eq!(why(&format!("{ANN}read = \"nothing\"\nwrite = [\"\"]"), false, false), "");
    }

    #[test]
    fn some_scopes_are_granted_neither_where_everybody_may_everything_nor_by_a_peer() {
        let some = format!("{ANN}read = [\"home\"]\n");
        assert!(
            why(&some, true, false).contains("grant 1 (ann): it is for some scopes, and the hub is open")
        );
        assert!(
            why(&some, false, true).contains("grant 1 (ann): it is for some scopes, and a peer has none")
        );
        for all in [ANN.to_owned(), format!("{ANN}read = [\"*\"]\nwrite = [\"*\"]\n")] {
            assert_eq!(why(&all, true, true), "");
        }
    }

    #[test]
    fn a_line_is_in_the_grant_whose_header_is_above_it() {
        let text = "open = false\n[[grants]]\ntoken = \"x\"\n # [[grants]]\n [[ grants ]] # ann\nrank = 1\n[other]\n";
        let at: Vec<_> = (1..=7).map(|line| at_line(text, line)).collect();
        assert_eq!(at, [None, Some(1), Some(1), Some(1), Some(2), Some(2), None]);
    }
}
