//! Tables of views for SQL, and queries that run again when what they read changes.

use std::collections::BTreeSet;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use rivus_core::edit::EditError;
use rivus_core::projection::Layout;
use rivus_core::replica::Event;
use rivus_sqlite::rusqlite::types::Value as SqlValue;
use rivus_sqlite::rusqlite::{Connection, params_from_iter};

use crate::any_store::AnyStore;
use crate::{Db, Error, Subscription};

impl Db {
    /// Another connection to the file, which can only read: for SQL over the tables that
    /// [`Builder::project`](crate::Builder::project) keeps.
    ///
    /// The table of a kind is called `view_` and the kind. It has a column `id` and one for each declared field; lists,
    /// sets and maps are JSON; fields that an open kind does not declare are in a JSON object `more`. What is deleted
    /// is not there. It shows what [`Db::view`] does, overlays of rules included, as of the last commit.
    ///
    /// # Errors
    /// [`Error::Store`] if the database is in memory, or the file cannot be opened.
    ///
    /// ```
    /// # use rivus::{Db, Entity};
    /// # #[derive(Entity)] struct Note { #[rivus(id)] id: String, text: String }
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let db = Db::builder().entity::<Note>().project(Note::KIND).open(&path)?;
    /// db.insert(&Note { id: "n1".into(), text: "hello".into() })?;
    /// let reader = db.read_connection()?;
    /// let text: String = reader.query_row("SELECT text FROM view_note", [], |row| row.get(0)).unwrap();
    /// assert_eq!(text, "hello");
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn read_connection(&self) -> Result<Connection, Error> {
        let mut replica = self.lock()?;
        // What other programs have written is then in the tables, too.
        replica.follow()?;
        match replica.store() {
            AnyStore::Sqlite(store, _) => Ok(store.read_connection()?),
            AnyStore::Memory(_) => Err(rivus_core::projection::ProjectionError::NoTables.into()),
        }
    }

    /// What the table of a kind looks like: its name and which column holds which field. `None` if
    /// [`Builder::project`](crate::Builder::project) did not ask for it.
    ///
    /// # Errors
    /// [`Error::Reentrant`].
    ///
    /// ```
    /// # use rivus::{Db, Schema};
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let schema = Schema::builder().kind("task", |kind| kind.value("Title").value("title")).build()?;
    /// let db = Db::builder().schema(schema).project("task").open(&path)?;
    /// let table = db.table("task")?.expect("it is kept");
    /// let columns: Vec<_> = table.columns.iter().map(|column| column.name.as_str()).collect();
    /// assert_eq!((table.table.as_str(), columns), ("view_task", vec!["Title", "title_2"]));
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn table(&self, kind: &str) -> Result<Option<Layout>, Error> {
        let replica = self.lock()?;
        Ok(replica.layouts().find(|layout| layout.kind == kind).cloned())
    }

    /// Runs a query over the tables now, and again whenever an entity of one of these kinds changes.
    ///
    /// See [`QuerySubscription`], and [`QueryParams`] for what takes the places of `?1`, `?2` and so on.
    ///
    /// # Errors
    /// [`EditError::UndeclaredKind`]; those of [`Db::read_connection`]. What is wrong with the query itself comes out
    /// of the stream.
    ///
    /// ```
    /// use futures_util::{FutureExt, StreamExt};
    /// use rivus::{Db, Schema};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let schema = Schema::builder().kind("task", |kind| kind.value("title").value("done")).build()?;
    /// let db = Db::builder().schema(schema).project("task").open(&path)?;
    /// let sql = "SELECT id, title FROM view_task WHERE done = ?1 ORDER BY title";
    /// let mut open = db.subscribe_query(&["task"], sql, [false])?;
    /// assert!(open.next().now_or_never().unwrap().unwrap()?.rows.is_empty());
    ///
    /// db.put("task", "t1", [("title", "write".into()), ("done", false.into())])?;
    /// let found = open.next().now_or_never().unwrap().unwrap()?;
    /// assert_eq!(found.columns, ["id", "title"]);
    /// assert_eq!(found.rows, [["t1".to_owned().into(), "write".to_owned().into()]]);
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn subscribe_query(
        &self,
        kinds: &[&str],
        sql: &str,
        params: impl QueryParams,
    ) -> Result<QuerySubscription<QueryRows>, Error> {
        let (sql, params) = (sql.to_owned(), params.values());
        self.subscribe_query_with(kinds, move |conn| {
            let mut query = conn.prepare_cached(&sql)?;
            let columns: Vec<String> = query.column_names().map(str::to_owned).collect();
            let width = columns.len();
            let row = |row: &rivus_sqlite::rusqlite::Row<'_>| (0..width).map(|at| row.get(at)).collect();
            let rows = query.query_map(params_from_iter(&params), row)?;
            Ok(QueryRows { columns, rows: rows.collect::<Result<_, _>>()? })
        })
    }

    /// As [`Db::subscribe_query`], with a closure over the read connection. What it reads is as of one moment.
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// use futures_util::{FutureExt, StreamExt};
    /// use rivus::{Db, Schema};
    ///
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("app.db");
    /// let schema = Schema::builder().kind("task", |kind| kind.value("title")).build()?;
    /// let db = Db::builder().schema(schema).project("task").open(&path)?;
    /// let mut count = db.subscribe_query_with(&["task"], |conn| {
    ///     conn.query_row("SELECT count(*) FROM view_task", [], |row| row.get::<_, i64>(0))
    /// })?;
    /// assert_eq!(count.next().now_or_never().unwrap().unwrap()?, 0);
    /// db.put("task", "t1", [("title", "write".into())])?;
    /// assert_eq!(count.next().now_or_never().unwrap().unwrap()?, 1);
    /// // The same result is not told again.
    /// db.put("task", "t1", [("title", "write it down".into())])?;
    /// assert!(count.next().now_or_never().is_none());
    /// # Ok::<(), rivus::Error>(())
    /// ```
    pub fn subscribe_query_with<T: Clone + PartialEq>(
        &self,
        kinds: &[&str],
        query: impl FnMut(&Connection) -> rivus_sqlite::rusqlite::Result<T> + Send + 'static,
    ) -> Result<QuerySubscription<T>, Error> {
        if let Some(kind) = kinds.iter().find(|kind| self.schema().kind(kind).is_none()) {
            return Err(EditError::UndeclaredKind { kind: (*kind).to_owned() }.into());
        }
        // From before the first run on: nothing is missed in between.
        let events = self.subscribe();
        Ok(QuerySubscription {
            events,
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            conn: self.read_connection()?,
            query: Box::new(query),
            last: None,
            is_due: true,
        })
    }
}

/// What takes the places of `?1`, `?2` and so on in a query: `[]` or `()` for none, an array, a tuple where types differ
/// (up to eight each), or a `Vec` of any length.
///
/// ```
/// # use rivus::{Db, Schema};
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("app.db");
/// let schema = Schema::builder().kind("task", |kind| kind.value("title").value("done")).build()?;
/// let db = Db::builder().schema(schema).project("task").open(&path)?;
/// let all = db.subscribe_query(&["task"], "SELECT id FROM view_task", [])?;
/// let sql = "SELECT id FROM view_task WHERE title = ?1 AND done = ?2";
/// let some = db.subscribe_query(&["task"], sql, ("write".to_owned(), false))?;
/// # Ok::<(), rivus::Error>(())
/// ```
pub trait QueryParams {
    /// In order.
    fn values(self) -> Vec<SqlValue>;
}

impl QueryParams for () {
    fn values(self) -> Vec<SqlValue> {
        Vec::new()
    }
}

// For this length alone, so that `[]` needs no type.
impl QueryParams for [SqlValue; 0] {
    fn values(self) -> Vec<SqlValue> {
        Vec::new()
    }
}

impl<P: Into<SqlValue>> QueryParams for Vec<P> {
    fn values(self) -> Vec<SqlValue> {
        self.into_iter().map(Into::into).collect()
    }
}

macro_rules! query_params {
    ($($len:literal: $($name:ident $at:tt),+;)+) => {$(
        impl<P: Into<SqlValue>> QueryParams for [P; $len] {
            fn values(self) -> Vec<SqlValue> {
                self.map(Into::into).into()
            }
        }

        impl<$($name: Into<SqlValue>),+> QueryParams for ($($name,)+) {
            fn values(self) -> Vec<SqlValue> {
                vec![$(self.$at.into()),+]
            }
        }
    )+};
}

query_params! {
    1: A 0;
    2: A 0, B 1;
    3: A 0, B 1, C 2;
    4: A 0, B 1, C 2, D 3;
    5: A 0, B 1, C 2, D 3, E 4;
    6: A 0, B 1, C 2, D 3, E 4, F 5;
    7: A 0, B 1, C 2, D 3, E 4, F 5, G 6;
    8: A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7;
}

/// What a query found; see [`Db::subscribe_query`].
#[derive(Clone, PartialEq, Debug, Default)]
pub struct QueryRows {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The rows, each a value for each column.
    pub rows: Vec<Vec<SqlValue>>,
}

/// The results of a query as a [`Stream`]: the first at once, then each that differs from the one before; it ends when
/// the last handle of the database is gone.
///
/// The query runs when the stream is polled, on that thread, once for all changes since it ran last, and sees whole
/// transactions. Like a [`Subscription`] it hears of changes of other processes, too, a little later. An error does not end it: the query runs again at the next change.
///
/// [`Db::subscribe_query`] has an example.
#[must_use = "the query does not run unless the stream is polled"]
pub struct QuerySubscription<T> {
    events: Subscription,
    kinds: BTreeSet<String>,
    conn: Connection,
    query: Query<T>,
    last: Option<T>,
    is_due: bool,
}

type Query<T> = Box<dyn FnMut(&Connection) -> rivus_sqlite::rusqlite::Result<T> + Send>;

// Nothing in it is pinned.
impl<T> Unpin for QuerySubscription<T> {}

impl<T: Clone + PartialEq> QuerySubscription<T> {
    /// Takes all events that are there; whether more may come.
    fn take_events(&mut self, context: &mut Context<'_>) -> bool {
        loop {
            match Pin::new(&mut self.events).poll_next(context) {
                Poll::Ready(Some(Ok(Event::Changed { kind, .. } | Event::Swayed { kind }))) => {
                    self.is_due |= self.kinds.contains(&kind);
                }
                // Any view may be another one.
                Poll::Ready(Some(Ok(Event::Rules { .. }))) => self.is_due = true,
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_lagged))) => self.is_due = true,
                Poll::Ready(None) => return false,
                Poll::Pending => return true,
            }
        }
    }

    fn run(&mut self) -> rivus_sqlite::rusqlite::Result<T> {
        let snapshot = self.conn.unchecked_transaction()?;
        let found = (self.query)(&snapshot)?;
        snapshot.commit()?;
        Ok(found)
    }
}

impl<T: Clone + PartialEq> Stream for QuerySubscription<T> {
    type Item = Result<T, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let goes_on = self.take_events(context);
        if std::mem::take(&mut self.is_due) {
            match self.run() {
                Ok(found) if self.last.as_ref() == Some(&found) => {}
                Ok(found) => {
                    self.last = Some(found.clone());
                    return Poll::Ready(Some(Ok(found)));
                }
                Err(error) => return Poll::Ready(Some(Err(Error::Query(error.to_string())))),
            }
        }
        if goes_on { Poll::Pending } else { Poll::Ready(None) }
    }
}

impl<T> fmt::Debug for QuerySubscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuerySubscription").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}
