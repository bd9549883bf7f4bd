//! Fetching whole entities: what an application asks of a session that may not be there yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};

use super::client::{Connection, stop_never};
use super::rounds::Wanted;
use super::scopes::Followed;
use super::{Remote, SyncError};
use crate::evict::{Fetched, named};
use crate::{Db, Error};

/// One call of `fetch`.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) entities: Vec<(String, String)>,
    pub(crate) answer: oneshot::Sender<Result<Fetched, SyncError>>,
}

/// The calls that wait for a session.
#[derive(Debug)]
pub(crate) struct Asks {
    /// `None` once no session will come.
    waiting: Mutex<Option<VecDeque<Ask>>>,
    pub(super) scopes: Mutex<Followed>,
    pub(crate) notify: Notify,
}

impl Default for Asks {
    fn default() -> Self {
        Self { waiting: Mutex::new(Some(VecDeque::new())), scopes: Mutex::default(), notify: Notify::new() }
    }
}

impl Asks {
    fn ask(&self, entities: &[(&str, &str)]) -> oneshot::Receiver<Result<Fetched, SyncError>> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { entities: named(entities), answer };
        self.with(|waiting| waiting.push_back(ask));
        self.notify.notify_one();
        answered
    }

    pub(crate) fn next(&self) -> Option<Ask> {
        self.with(VecDeque::pop_front).flatten()
    }

    /// What was not answered before the connection broke is asked again on the next one.
    pub(crate) fn put_back(&self, ask: Ask) {
        self.with(|waiting| waiting.push_front(ask));
    }

    /// No session will come any more: whoever waits is told so.
    pub(crate) fn close(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn with<T>(&self, act: impl FnOnce(&mut VecDeque<Ask>) -> T) -> Option<T> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(act)
    }
}

impl Db {
    /// Syncs with a hub as [`Db::sync`] does, and has whole entities of it, by kind and id: those that were evicted, or
    /// were never here.
    ///
    /// # Errors
    /// As [`Db::sync`]; [`SyncError::CannotFetch`] if the other side is no authority, or an older one.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// # let remote = served.url().into();
    /// # hub.put("task", "t1", [("title", "write".into())])?;
    /// # phone.sync(&remote).await?;
    /// # phone.evict(&[("task", "t1")])?;
    /// let fetched = phone.fetch(&remote, &[("task", "t1"), ("task", "t2")]).await?;
    /// assert_eq!((fetched.entities, fetched.missing.len()), (1, 1));
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn fetch(&self, remote: &Remote, entities: &[(&str, &str)]) -> Result<Fetched, Error> {
        if entities.is_empty() {
            return Ok(Fetched::default());
        }
        let (_running, stop) = stop_never();
        let asks = Arc::new(Asks::following(remote.scopes_wanted()));
        let answered = asks.ask(entities);
        self.attempts(remote, Wanted::ALL, &asks, stop).await.ok()?;
        asks.close();
        answer(answered.await)
    }
}

impl Connection {
    /// Has whole entities of the hub, by kind and id: those that were evicted, or were never here. If the connection is
    /// down it waits until that is up again.
    ///
    /// # Errors
    /// [`Error::Sync`] if the connection was given up; [`SyncError::CannotFetch`] if the other side is no authority, or
    /// an older one.
    ///
    /// ```
    /// # use rivus::{Db, HubOptions, Schema};
    /// # let runtime = tokio::runtime::Runtime::new().unwrap();
    /// # runtime.block_on(async {
    /// # let (phone, hub) = (Db::memory(Schema::open())?, Db::memory(Schema::open())?);
    /// # let served = hub.serve("127.0.0.1:0", HubOptions::open()).await?;
    /// # hub.put("task", "t1", [("title", "write".into())])?;
    /// let connection = phone.connect(served.url().into());
    /// # connection.synced().await?;
    /// # phone.evict(&[("task", "t1")])?;
    /// connection.fetch(&[("task", "t1")]).await?;
    /// assert!(phone.view("task", "t1")?.is_some());
    /// # Ok::<(), rivus::Error>(())
    /// # }).unwrap();
    /// ```
    pub async fn fetch(&self, entities: &[(&str, &str)]) -> Result<Fetched, Error> {
        if entities.is_empty() {
            return Ok(Fetched::default());
        }
        answer(self.asks().ask(entities).await)
    }
}

fn answer(answered: Result<Result<Fetched, SyncError>, oneshot::error::RecvError>) -> Result<Fetched, Error> {
    match answered {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(SyncError::Broken("it was closed before the answer".to_owned()).into()),
    }
}
