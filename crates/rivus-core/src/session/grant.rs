//! Whom a hub lets in, what they may do, and how much of it.
//!
//! Owns the questions that the server's side asks of the application, and the static tokens that answer the first of
//! them. Everything here is a pure function of its arguments, apart from the buckets of [`Rate`]. Knows nothing of
//! frames.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::rate::Rate;
use super::{Rights, SessionError};
use crate::clock::Millis;
use crate::code::Code;
use crate::edit::EDIT_BYTES_MAX;
use crate::replica::{Proposed, Refusal};
use crate::wire::{Bounds, FRAME_BYTES_MAX, PAGE_BYTES_AIM, SCOPES_MAX, page};

/// The longest name of a principal, in bytes.
pub const SUBJECT_BYTES_MAX: usize = 255;

/// The least that a hub has to take in one frame, in bytes: a page, and a row beyond its aim.
pub const FRAME_BYTES_LEAST: usize = 2 * PAGE_BYTES_AIM;

/// What a token grants.
///
/// The default is what those have who show no token where none is needed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grant {
    /// The stable name of the principal, of 1 to [`SUBJECT_BYTES_MAX`] bytes; empty for the anonymous. What a principal
    /// brought belongs to this name, so a token that takes the place of another must grant the same one.
    pub subject: String,
    /// The greatest rank that its edits may bear.
    pub rank: u8,
    /// Which scopes it may read and write; by default all. An [`Authorizer`] must allow it as well.
    pub rights: Rights,
    /// When the grant ends, by the hub's clock; never if there is none.
    pub expires: Option<Millis>,
}

/// Why nobody is let in with this token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Denial {
    /// [`Code::UNAUTHORISED`] or [`Code::EXPIRED`], or a number of the application's.
    pub code: Code,
    /// Why, in words, and what to do.
    pub message: String,
}

impl Denial {
    /// The token grants nothing.
    #[must_use]
    pub fn unauthorised(message: impl Into<String>) -> Self {
        Self { code: Code::UNAUTHORISED, message: message.into() }
    }

    /// The token granted something once and is no more.
    #[must_use]
    pub fn expired(message: impl Into<String>) -> Self {
        Self { code: Code::EXPIRED, message: message.into() }
    }
}

/// Says who somebody is by the token that they show.
pub trait Authenticator: Send + Sync + fmt::Debug {
    /// Who shows `token`, at `now` by the hub's clock.
    ///
    /// # Errors
    /// [`Denial`]: the connection ends with its code.
    fn authenticate(&self, token: Option<&str>, now: Millis) -> Result<Grant, Denial>;
}

/// What somebody is about to do with a scope.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Access {
    /// To be told what is in it.
    Read,
    /// To change it by an edit that is judged.
    Write,
    /// To bring back, unjudged, what the hub may have lost: a device uploads what it holds when it meets the hub for the
    /// first time and after the hub was restored. Authors and ranks are taken as they come, so whoever may do this may
    /// write as anybody, past limits and [`Validator`]. Of others the hub takes what they wrote themselves, and judges it
    /// as it does edits. See [`Restore`].
    Restore,
}

/// Who may bring back what a hub has lost: [`Access::Restore`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Restore {
    /// Nobody.
    Nobody,
    /// Whoever is let in.
    Everybody,
    /// These subjects.
    Subjects(BTreeSet<String>),
}

impl Restore {
    /// These subjects, by name.
    #[must_use]
    pub fn subjects<S: Into<String>>(subjects: impl IntoIterator<Item = S>) -> Self {
        Self::Subjects(subjects.into_iter().map(Into::into).collect())
    }

    fn allows(&self, subject: &str) -> bool {
        match self {
            Self::Nobody => false,
            Self::Everybody => true,
            // The anonymous have no name that could be listed.
            Self::Subjects(subjects) => !subject.is_empty() && subjects.contains(subject),
        }
    }
}

/// Says what principals may do.
pub trait Authorizer: Send + Sync + fmt::Debug {
    /// Whether `subject` may do this with `scope`, the default scope being empty. Asked anew for every page and every
    /// pushed edit, so that taking a right away acts at once.
    fn allows(&self, subject: &str, access: Access, scope: &str) -> bool;
}

/// Says which edits the application takes. It is asked at the hub alone, before the edit is joined; everything that it
/// lets pass is merged, known kinds and fields or not.
pub trait Validator: Send + Sync + fmt::Debug {
    /// Whether the hub takes the edit.
    ///
    /// # Errors
    /// [`Refusal`]: why not, and where. The edit's author gets it back with these words.
    fn validate(&self, subject: &str, edit: &Proposed<'_>) -> Result<(), Refusal>;
}

/// Tokens that an operator hands out, and whether one is needed at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Grants {
    tokens: BTreeMap<String, Grant>,
    /// The rank of those without a token, if they may connect at all.
    anonymous: Option<u8>,
}

impl Grants {
    /// Lets everybody in, with rank 0.
    #[must_use]
    pub fn everybody() -> Self {
        Self::nobody().anonymous(0)
    }

    /// Lets nobody in.
    #[must_use]
    pub fn nobody() -> Self {
        Self::default()
    }

    /// Lets in those without a token, with this rank.
    #[must_use]
    pub fn anonymous(self, rank: u8) -> Self {
        Self { anonymous: Some(rank), ..self }
    }

    /// Lets in those who show `token`, with this rank. They bear a name made of the token: another token is somebody
    /// else, so one that may be replaced some day is better granted by [`Grants::grant_as`].
    #[must_use]
    pub fn grant(self, token: impl Into<String>, rank: u8) -> Self {
        let token = token.into();
        let subject = name_of(&token);
        self.grant_as(subject, token, rank)
    }

    /// Lets in those who show `token`, as `subject` and with this rank. Several tokens may name one subject. Of the name
    /// the first [`SUBJECT_BYTES_MAX`] bytes count.
    #[must_use]
    pub fn grant_as(mut self, subject: impl Into<String>, token: impl Into<String>, rank: u8) -> Self {
        let mut subject = subject.into();
        cut(&mut subject, SUBJECT_BYTES_MAX);
        self.tokens.insert(token.into(), Grant { subject, rank, ..Grant::default() });
        self
    }

    /// Lets in those who show `token`, with this grant. Without a subject they bear a name made of the token, as with
    /// [`Grants::grant`].
    #[must_use]
    pub fn grant_with(mut self, token: impl Into<String>, mut grant: Grant) -> Self {
        let token = token.into();
        if grant.subject.is_empty() {
            grant.subject = name_of(&token);
        }
        cut(&mut grant.subject, SUBJECT_BYTES_MAX);
        self.tokens.insert(token, grant);
        self
    }
}

impl Authenticator for Grants {
    fn authenticate(&self, token: Option<&str>, _now: Millis) -> Result<Grant, Denial> {
        let Some(token) = token else {
            let rank = self.anonymous.ok_or_else(|| Denial::unauthorised("a token is needed"))?;
            return Ok(Grant { rank, ..Grant::default() });
        };
        // Every token is compared in full, so that the time tells nothing of how much of one was right.
        let found = self.tokens.iter().fold(None, |found, (known, granted)| {
            let equal = known.len() == token.len()
                && known.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0;
            if equal { Some(granted) } else { found }
        });
        found.cloned().ok_or_else(|| Denial::unauthorised("the token grants nothing"))
    }
}

/// Leaves at most so many bytes of a text.
pub(super) fn cut(text: &mut String, bytes: usize) {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(end.unwrap_or(0));
}

/// The name of those who show a token that no name was given for. It tells nobody the token.
fn name_of(token: &str) -> String {
    let hash = Sha256::digest(token.as_bytes());
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// How much a hub takes of one connection. Told in WELCOME, so that a device sends nothing that would be refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The longest frame, in bytes after decompression; at most, and by default,
    /// [`FRAME_BYTES_MAX`](crate::wire::FRAME_BYTES_MAX), at least [`FRAME_BYTES_LEAST`].
    pub frame_bytes_max: usize,
    /// The longest value, in its canonical bytes; by default as much as an edit may have.
    pub value_bytes_max: usize,
    /// The most registers of one edit, and of one push.
    pub registers_max: usize,
    /// The most scopes that one connection may follow by name; at most, and by default,
    /// [`SCOPES_MAX`](crate::wire::SCOPES_MAX).
    pub scopes_max: usize,
    /// How many registers a principal may send in a second, all of its connections together; without one, any number.
    /// Every frame counts as one more. A tenth of a minute's worth may come at once.
    pub registers_per_second: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX,
            value_bytes_max: EDIT_BYTES_MAX,
            registers_max: page::REGISTERS_MAX,
            scopes_max: SCOPES_MAX,
            registers_per_second: None,
        }
    }
}

impl Limits {
    /// What WELCOME tells: only what differs from the usual.
    pub(super) fn tell(self) -> Option<Bounds> {
        let usual = Self::default();
        let other = |own: usize, usual: usize| (own != usual).then_some(own as u64);
        let bounds = Bounds {
            frame_bytes_max: other(self.frame_bytes_max, usual.frame_bytes_max),
            value_bytes_max: other(self.value_bytes_max, usual.value_bytes_max),
            registers_max: other(self.registers_max, usual.registers_max),
            scopes_max: other(self.scopes_max, usual.scopes_max),
            registers_per_second: self.registers_per_second,
        };
        (bounds != Bounds::default()).then_some(bounds)
    }

    pub(super) fn told(bounds: Bounds) -> Self {
        let usual = Self::default();
        let own = |told: Option<u64>, usual: usize| {
            told.map_or(usual, |told| usize::try_from(told).unwrap_or(usize::MAX))
        };
        Self {
            frame_bytes_max: own(bounds.frame_bytes_max, usual.frame_bytes_max),
            value_bytes_max: own(bounds.value_bytes_max, usual.value_bytes_max),
            registers_max: own(bounds.registers_max, usual.registers_max),
            scopes_max: own(bounds.scopes_max, usual.scopes_max),
            registers_per_second: bounds.registers_per_second,
        }
    }
}

/// What a server asks before it lets anybody do anything.
#[derive(Debug)]
pub struct Gate {
    authenticator: Arc<dyn Authenticator>,
    authorizer: Option<Arc<dyn Authorizer>>,
    validator: Option<Arc<dyn Validator>>,
    limits: Limits,
    /// `None`: whoever may do everything else, unless somebody looks at edits.
    restore: Option<Restore>,
    rate: Rate,
}

impl Gate {
    /// Whoever is let in may do everything.
    #[must_use]
    pub fn new(authenticator: impl Authenticator + 'static) -> Self {
        Self {
            authenticator: Arc::new(authenticator),
            authorizer: None,
            validator: None,
            limits: Limits::default(),
            restore: None,
            rate: Rate::default(),
        }
    }

    /// Asks this who somebody is.
    #[must_use]
    pub fn authenticator(self, authenticator: Arc<dyn Authenticator>) -> Self {
        Self { authenticator, ..self }
    }

    /// Asks this about everything that is read and written.
    #[must_use]
    pub fn authorizer(self, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { authorizer: Some(authorizer), ..self }
    }

    /// Asks this about every edit.
    #[must_use]
    pub fn validator(self, validator: Arc<dyn Validator>) -> Self {
        Self { validator: Some(validator), ..self }
    }

    /// Lets these bring back what the hub has lost, if the [`Authorizer`] does, too. Without this everybody may, unless
    /// there is a [`Validator`] and no authorizer.
    #[must_use]
    pub fn restore(self, restore: Restore) -> Self {
        Self { restore: Some(restore), ..self }
    }

    /// Who shows this token.
    pub(super) fn admit(&self, token: Option<&str>, now: Millis) -> Result<Grant, SessionError> {
        let refused = |Denial { code, message }| SessionError::Refused { code, message };
        let grant = self.authenticator.authenticate(token, now).map_err(refused)?;
        if grant.expires.is_some_and(|expires| expires <= now) {
            return Err(refused(Denial::expired("the token has expired: show a fresh one")));
        }
        if grant.subject.len() > SUBJECT_BYTES_MAX {
            return Err(refused(Denial::unauthorised("the token names somebody with too long a name")));
        }
        Ok(grant)
    }

    /// Takes no more than this. A frame may always have [`FRAME_BYTES_LEAST`].
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        let frame_bytes_max = limits.frame_bytes_max.clamp(FRAME_BYTES_LEAST, FRAME_BYTES_MAX);
        let registers_max = limits.registers_max.clamp(1, page::REGISTERS_MAX);
        let scopes_max = limits.scopes_max.min(SCOPES_MAX);
        Self { limits: Limits { frame_bytes_max, registers_max, scopes_max, ..limits }, ..self }
    }

    pub(super) fn bounds(&self) -> Limits {
        self.limits
    }

    /// Whether the application is asked what somebody may do, and may say otherwise of each scope.
    pub(super) fn is_asking(&self) -> bool {
        self.authorizer.is_some()
    }

    pub(super) fn allows(&self, subject: &str, access: Access, scope: &str) -> bool {
        let restores = || match &self.restore {
            Some(restore) => restore.allows(subject),
            // Who looks at edits does not mean to let any pass by.
            None => self.authorizer.is_some() || self.validator.is_none(),
        };
        (access != Access::Restore || restores())
            && self.authorizer.as_ref().is_none_or(|authorizer| authorizer.allows(subject, access, scope))
    }

    /// Whether the application looks at edits.
    pub(super) fn is_validating(&self) -> bool {
        self.validator.is_some()
    }

    pub(super) fn validate(&self, subject: &str, edit: &Proposed<'_>) -> Result<(), Refusal> {
        self.validator.as_ref().map_or(Ok(()), |validator| validator.validate(subject, edit))
    }

    /// Takes what registers cost, or says after how many ms the payer is in credit again.
    pub(super) fn charge(&self, payer: &str, registers: usize, now: Millis) -> Result<(), u64> {
        let per_second = self.limits.registers_per_second;
        per_second.map_or(Ok(()), |per_second| self.rate.take(payer, registers, per_second, now))
    }

    /// Takes what registers cost from a payer in credit or not.
    pub(super) fn debit(&self, payer: &str, registers: usize, now: Millis) {
        if let Some(per_second) = self.limits.registers_per_second {
            self.rate.debit(payer, registers, per_second, now);
        }
    }
}

/// Lets any closure answer one of the hub's questions.
#[derive(Clone, Copy)]
pub struct By<F>(pub F);

impl<F> fmt::Debug for By<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("By(a closure)")
    }
}

impl<F: Fn(Option<&str>, Millis) -> Result<Grant, Denial> + Send + Sync> Authenticator for By<F> {
    fn authenticate(&self, token: Option<&str>, now: Millis) -> Result<Grant, Denial> {
        (self.0)(token, now)
    }
}

impl<F: Fn(&str, Access, &str) -> bool + Send + Sync> Authorizer for By<F> {
    fn allows(&self, subject: &str, access: Access, scope: &str) -> bool {
        (self.0)(subject, access, scope)
    }
}

impl<F: Fn(&str, &Proposed<'_>) -> Result<(), Refusal> + Send + Sync> Validator for By<F> {
    fn validate(&self, subject: &str, edit: &Proposed<'_>) -> Result<(), Refusal> {
        (self.0)(subject, edit)
    }
}
