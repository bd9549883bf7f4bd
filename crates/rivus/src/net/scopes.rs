//! Which scopes a connection follows: said before, and changed while it is up or down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{MutexGuard, PoisonError};

use rivus_core::replica::Kept;
use rivus_core::scope::SCOPE_BYTES_MAX;
use rivus_core::session::TooManyScopes;
use rivus_core::wire::SCOPES_MAX;

use super::SyncError;
use super::client::Connection;
use super::fetch::Asks;
use crate::Error;

/// What an application wants followed.
#[derive(Debug, Default)]
pub(crate) struct Followed {
    /// By name, with priorities; none if everything is.
    wanted: Option<Wanted>,
    /// What the running session has yet to hear.
    changes: VecDeque<Change>,
}

/// Scopes that are followed by name, each with its priority.
pub(crate) type Wanted = BTreeMap<String, i8>;

/// Something else is to become of a scope.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(crate) scope: String,
    pub(crate) to: To,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum To {
    /// It is followed.
    Follow,
    /// It was denied, and is asked for once more, if there is room for it.
    Again,
    /// It is not, any more.
    Unfollow(Kept),
    Priority(i8),
}

impl Asks {
    /// For a connection that follows these scopes, or everything.
    pub(crate) fn following(scopes: Option<Wanted>) -> Self {
        let asks = Self::default();
        asks.followed().wanted = scopes;
        asks
    }

    /// What a new session follows, and what is not followed any more, which no session has heard.
    pub(crate) fn follow(&self) -> (Option<Wanted>, Vec<(String, Kept)>) {
        let mut followed = self.followed();
        let changes = std::mem::take(&mut followed.changes);
        let unheard = changes.into_iter().filter_map(|change| match change.to {
            To::Unfollow(kept) => Some((change.scope, kept)),
            _ => None,
        });
        let wanted = followed.wanted.clone();
        let is_wanted = |scope: &str| wanted.as_ref().is_none_or(|wanted| wanted.contains_key(scope));
        let unheard = unheard.filter(|(scope, _)| !is_wanted(scope)).collect();
        (wanted, unheard)
    }

    /// What the running session has yet to hear, one thing after the other.
    pub(crate) fn next_change(&self) -> Option<Change> {
        self.followed().changes.pop_front()
    }

    /// Has the running session follow a scope that it was denied, if that is wanted still.
    pub(crate) fn follow_again(&self, scope: &str) {
        let mut followed = self.followed();
        if followed.wanted.as_ref().is_some_and(|wanted| wanted.contains_key(scope)) {
            followed.changes.push_back(Change { scope: scope.to_owned(), to: To::Again });
        }
    }

    fn change(&self, scope: &str, to: To) -> Result<(), SyncError> {
        let mut followed = self.followed();
        let Some(wanted) = &mut followed.wanted else { return Err(SyncError::FollowsEverything) };
        match to {
            To::Follow => {
                let is_new = !wanted.contains_key(scope);
                if is_new && wanted.len() >= SCOPES_MAX || scope.len() > SCOPE_BYTES_MAX {
                    return Err(TooManyScopes { most: SCOPES_MAX }.into());
                }
                wanted.entry(scope.to_owned()).or_insert(0);
            }
            To::Again => {}
            To::Unfollow(_) => drop(wanted.remove(scope)),
            To::Priority(priority) => {
                if let Some(held) = wanted.get_mut(scope) {
                    *held = priority;
                }
            }
        }
        followed.changes.push_back(Change { scope: scope.to_owned(), to });
        drop(followed);
        self.notify.notify_one();
        Ok(())
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Follows one scope more, from now on. A scope that was denied may be asked for again like this;
    /// while it is wanted that is done once a minute, too.
    ///
    /// # Errors
    /// [`Error::Sync`] if the connection follows everything, or as many scopes as it can; it is as it was.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Kept, Remote, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let schema = || Schema::builder().kind("note", |k| k.value("list").scope("list").value("text")).build();
    /// # let (phone, hub) = (Db::memory(schema()?)?, Db::memory(schema()?)?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// let connection = phone.connect(Remote::new(served.url()).scopes(["home"]));
    /// connection.subscribe("work")?;
    /// connection.unsubscribe("home", Kept::No)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn subscribe(&self, scope: &str) -> Result<(), Error> {
        Ok(self.asks().change(scope, To::Follow)?)
    }

    /// Says which scopes are read first: one is asked for once all of higher priority are read to the end. It is 0 until
    /// this is said. Later changes of all come as they are made. Of a scope that is not followed nothing changes.
    ///
    /// # Errors
    /// [`Error::Sync`] if the connection follows everything.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Remote, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let schema = || Schema::builder().kind("note", |k| k.value("list").scope("list").value("text")).build();
    /// # let (phone, hub) = (Db::memory(schema()?)?, Db::memory(schema()?)?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// let connection = phone.connect(Remote::new(served.url()).scopes(["today", "archive"]));
    /// connection.set_priority("archive", -1)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn set_priority(&self, scope: &str, priority: i8) -> Result<(), Error> {
        Ok(self.asks().change(scope, To::Priority(priority))?)
    }

    /// Follows a scope no more. What is here of it stays as it is, or leaves this database once the hub has judged the
    /// pending edits of it; nothing is deleted anywhere. Followed again, the scope is read from the start.
    ///
    /// # Errors
    /// [`Error::Sync`] if the connection follows everything, [`Error::Store`] if the database cannot be written.
    pub fn unsubscribe(&self, scope: &str, kept: Kept) -> Result<(), Error> {
        self.asks().change(scope, To::Unfollow(kept))?;
        self.db().lock()?.unfollow(scope, kept)?;
        Ok(())
    }
}
