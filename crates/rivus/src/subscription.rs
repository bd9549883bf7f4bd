//! Hearing of changes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use rivus_core::replica::Event;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// The events of a database from the moment of [`Db::subscribe`](crate::Db::subscribe) on, as a [`Stream`]; it
/// ends when the last handle of the database is gone.
///
/// There is one [`Event::Changed`] per transaction and entity whose view it may have changed, with its origin. Of what
/// another process has committed to the file, there is one for each entity that it wrote, and an [`Event::Swayed`] for
/// each kind that rules may show otherwise since; what a sync in that process refused or lost, it alone is told. A
/// subscriber that is too slow never holds up a writer: it loses the oldest events and gets a [`Lagged`] in their
/// place.
///
/// ```
/// use futures_util::StreamExt;
/// use rivus::{Db, Event, Origin, Schema};
///
/// # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
/// # runtime.block_on(async {
/// let db = Db::memory(Schema::open())?;
/// let mut events = db.subscribe();
/// db.put("task", "t1", [("title", "write".into()), ("done", false.into())])?;
/// match events.next().await {
///     Some(Ok(Event::Changed { kind, id, origin })) => {
///         assert_eq!((kind.as_str(), id.as_str(), origin), ("task", "t1", Origin::Local));
///     }
///     Some(Ok(other)) => panic!("an edit makes no {other:?}"),
///     Some(Err(lagged)) => println!("{lagged}"),
///     None => unreachable!("the database is open"),
/// }
/// # Ok::<(), rivus::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "events are lost unless the stream is polled"]
pub struct Subscription {
    next: Next,
}

type Next = Pin<Box<dyn Future<Output = (Result<Event, RecvError>, Receiver<Event>)> + Send + Sync>>;

impl Subscription {
    pub(crate) fn new(receiver: Receiver<Event>) -> Self {
        Self { next: next(receiver) }
    }
}

/// The next event, and the receiver that it came from.
fn next(mut receiver: Receiver<Event>) -> Next {
    Box::pin(async move { (receiver.recv().await, receiver) })
}

impl Stream for Subscription {
    type Item = Result<Event, Lagged>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready((event, receiver)) = self.next.as_mut().poll(context) else { return Poll::Pending };
        self.next = next(receiver);
        Poll::Ready(match event {
            Ok(event) => Some(Ok(event)),
            Err(RecvError::Lagged(missed)) => Some(Err(Lagged { missed })),
            Err(RecvError::Closed) => None,
        })
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscription")
    }
}

/// A subscriber was too slow and lost events: read again what you show. Later events follow.
///
/// ```
/// use futures_util::{FutureExt, StreamExt};
/// use rivus::{Db, Lagged, Schema};
///
/// let db = Db::memory(Schema::open())?;
/// let mut events = db.subscribe();
/// for number in 0..5_000 {
///     db.put("count", "c", [("number", number.into())])?;
/// }
/// assert!(matches!(events.next().now_or_never(), Some(Some(Err(Lagged { missed: 1.. })))));
/// assert!(matches!(events.next().now_or_never(), Some(Some(Ok(_)))));
/// # Ok::<(), rivus::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{missed} events were lost, the subscriber being too slow: read again what is shown")]
pub struct Lagged {
    /// How many events were lost.
    pub missed: u64,
}
