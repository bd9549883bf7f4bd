//! What somebody may do with a scope.

use std::fmt;
use std::sync::Arc;

use crate::replica::WriteScopes;

/// What somebody is about to do with a scope.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Access {
    /// To be told what is in it.
    Read,
    /// To change it by an edit that is judged.
    Write,
}

/// Says what principals may do.
pub trait Authorizer: Send + Sync + fmt::Debug {
    /// Whether `subject` may do this with `scope`, the default scope being empty. Asked anew for every page and every
    /// pushed edit, so that taking a right away acts at once.
    fn allows(&self, subject: &str, access: Access, scope: &str) -> bool;
}

/// What the other side of a connection may do.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate {
    /// Who says so, and of whom; nobody if it may do everything.
    authorizer: Option<(Arc<dyn Authorizer>, Arc<str>)>,
}

impl Gate {
    pub(super) fn new(authorizer: Arc<dyn Authorizer>, subject: &str) -> Self {
        Self { authorizer: Some((authorizer, subject.into())) }
    }

    pub(super) fn is_open(&self) -> bool {
        self.authorizer.is_none()
    }

    pub(super) fn allows(&self, access: Access, scope: &str) -> bool {
        self.authorizer.as_ref().is_none_or(|(by, subject)| by.allows(subject, access, scope))
    }

    /// The scopes that it may write.
    pub(super) fn write_scopes(&self) -> WriteScopes {
        match &self.authorizer {
            None => WriteScopes::default(),
            Some((by, subject)) => {
                let (by, subject) = (Arc::clone(by), Arc::clone(subject));
                WriteScopes::of(move |scope| by.allows(&subject, Access::Write, scope))
            }
        }
    }
}
